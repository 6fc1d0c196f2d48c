"""The findings of capability files, each with its file and line."""

import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp_taskruns.core.calls.truncation import one_line
from mcp_taskruns.core.checks.capability import check_capability, check_together
from mcp_taskruns.core.checks.codes import CODES, Finding
from mcp_taskruns.core.checks.overlay import check_overlay, identity
from mcp_taskruns.core.format.compiler import ToolNames, compile_tools
from mcp_taskruns.core.format.dialects import unify
from mcp_taskruns.core.format.overlay import apply_overlay
from mcp_taskruns.core.format.spec import Capability, parse_capability
from mcp_taskruns.core.model.json_path import path_text
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import CapabilityError
from mcp_taskruns.loading.files import capability_files, orphan_overlays
from mcp_taskruns.loading.yaml import Lines, Place, read_document, read_lines

MAX_MESSAGE = 400


@dataclass(frozen=True)
class Report:
    """A finding, where a person finds it."""

    file: str
    line: int
    place: str
    code: str
    severity: str
    message: str
    mend: str

    def to_line(self) -> str:
        """`file:line: severity: message [code] What to do.`"""
        return f"{self.file}:{self.line}: {self.severity}: {self.message} [{self.code}] {self.mend}"


@dataclass(frozen=True)
class Checked:
    """What was checked, how many tools are in it, and what was found."""

    files: tuple[str, ...]
    tools: int
    reports: tuple[Report, ...]

    def count(self, severity: str) -> int:
        """How many findings are of this severity."""
        return sum(report.severity == severity for report in self.reports)

    def to_json(self) -> dict[str, Any]:
        """For programs: the files and the findings, and how many there are."""
        return {
            "files": list(self.files),
            "findings": [vars(report) for report in self.reports],
            "errors": self.count("error"),
            "warnings": self.count("warning"),
        }

    def summary(self) -> str:
        """`4 files, 31 tools: 1 error, 2 warnings`."""
        found = [_many(number, word) for word in ("error", "warning") if (number := self.count(word))]
        what = f"{_many(len(self.files), 'file')}, {_many(self.tools, 'tool')}"
        return f"{what}: {', '.join(found) or 'no problems'}"


def _many(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


class _Source:
    """A capability file with its overlay, while it is checked."""

    def __init__(self, path: Path, overlay: Path | None) -> None:
        self.path = path
        self.overlay = overlay
        self.document: dict[str, Any] = {}
        self.refinement: dict[str, Any] = {}
        self.refined: Mapping[str, Any] = {}
        self.merged: Mapping[str, Any] = {}
        self.capability: Capability | None = None
        self.tools: tuple[Tool, ...] = ()
        self._lines: dict[Path, Lines] = {}

    def read(self, names: ToolNames) -> Capability:
        """Read both files and compile what they are together. Raises CapabilityError."""
        self.document = read_document(self.path)
        source = self.path.name
        self.merged = unify(self.document)
        if self.overlay:
            self.refinement = read_document(self.overlay)
            self.refined = unify(self.refinement, keep_nulls=True)
            source = f"{source} with overlays/{source}"
            self.merged = apply_overlay(self.document, self.refinement, f"overlays/{self.path.name}")
        capability = parse_capability(self.merged, source)
        self.tools = compile_tools([capability], names=names)
        self.capability = capability
        return capability

    def report(self, finding: Finding) -> Report:
        """The finding where the overlay says it, if it does, else where the file does."""
        if self.overlay:
            named, lines = _by_name(self.merged, finding.place), self._of(self.overlay)
            is_deeper = lines.depth_of(named) > self._of(self.path).depth_of(finding.place)
            if is_deeper or _is_said(self.refined, named):
                return _report(finding, self.overlay, lines.line_of(named))
        return _report(finding, self.path, self._of(self.path).line_of(finding.place))

    def report_overlay(self, finding: Finding) -> Report:
        """A finding of the overlay alone."""
        path = self.overlay or self.path
        return _report(finding, path, self._of(path).line_of(finding.place))

    def report_error(self, error: CapabilityError) -> Report:
        """Why the file cannot be read, or not be compiled."""
        line = re.match(r"line (\d+)", error.place)
        is_of_overlay = self.overlay and error.source.startswith("overlays/")
        if line or is_of_overlay or not self.merged:
            path = self.overlay if self.overlay and is_of_overlay else self.path
            return _report(Finding("invalid-file", (), error.reason), path, int(line.group(1)) if line else 1)
        told = f"{error.place}: {error.reason}" if error.place else error.reason
        return self.report(Finding("invalid-file", _find_place(self.merged, error.place), told))

    def _of(self, path: Path) -> Lines:
        if path not in self._lines:
            self._lines[path] = read_lines(path)
        return self._lines[path]


def check_files(
    files: Sequence[str | Path],
    *,
    overlays: bool = True,
    names: ToolNames = "prefixed",
    environment: Collection[str] | None = None,
) -> Checked:
    """Check files and folders, each file with its overlay; none: the shipped ones.

    `environment` are the names of the variables that are set; without it they are not looked at. Raises CapabilityError
    for a file that is not there, and for a folder without capability files.
    """
    reports: list[Report] = []
    if overlays:
        reports += [_orphan(path) for path in orphan_overlays(files)]
    sources: dict[Path, _Source] = {}
    for path in capability_files(files):
        base = path.parent.parent / path.name if path.parent.name == "overlays" else path
        if not base.is_file():
            reports.append(_orphan(path))
            continue
        overlay = base.parent / "overlays" / base.name
        is_refined = overlay.is_file() and (overlays or base != path)
        sources.setdefault(base.resolve(), _Source(base, overlay if is_refined else None))
    for source in sources.values():
        reports += _check_source(source, names, environment)
    read = [(source, source.capability) for source in sources.values() if source.capability]
    for number, finding in check_together([capability for _, capability in read]):
        reports.append(read[number][0].report(finding))
    return Checked(
        tuple(shown(source.path) for source in sources.values()),
        sum(len(source.tools) for source in sources.values()),
        tuple(sorted(dict.fromkeys(reports), key=lambda one: (one.file, one.line, one.code, one.message))),
    )


def _check_source(source: _Source, names: ToolNames, environment: Collection[str] | None) -> Iterator[Report]:
    error: CapabilityError | None = None
    findings: list[Finding] = []
    try:
        findings = list(check_capability(source.read(names), source.tools, environment))
    except CapabilityError as exc:
        error = exc
    vain = []
    for finding in check_overlay(source.document, source.refinement):
        yield source.report_overlay(finding)
        vain += [_by_name(source.refined, finding.place)] if finding.code == "overlay-matches-nothing" else []

    def follows(place: Place) -> bool:
        """Whether what is wrong at a place comes from what the overlay adds to nothing."""
        named = _by_name(source.merged, place)
        return any(named[: len(part)] == part for part in vain)

    if error and not follows(_find_place(source.merged, error.place)):
        yield source.report_error(error)
    yield from (source.report(finding) for finding in findings if not follows(finding.place))


def _orphan(path: Path) -> Report:
    told = f"there is no capability file {path.name} that this overlay refines"
    return _report(Finding("overlay-matches-nothing", (), told, "Name it as the file."), path, 1)


def _report(finding: Finding, path: Path, line: int) -> Report:
    return Report(
        file=shown(path),
        line=line,
        place=path_text(finding.place),
        code=finding.code,
        severity=finding.severity,
        message=one_line(finding.message, MAX_MESSAGE),
        mend=finding.mend,
    )


def shown(path: Path) -> str:
    """A path as it is told: from the working folder where it is below that."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else path)


def _by_name(document: Any, place: Place) -> Place:
    """A place with the names of items instead of their numbers, where they have names."""
    named: list[str | int] = []
    for step in place:
        siblings, document = document, _entry(document, step)
        is_refined = isinstance(step, int) and isinstance(siblings, list) and any(map(identity, siblings))
        named.append((identity(document) or "") if is_refined else step)  # no overlay says anything of one without
    return tuple(named)


def _entry(document: Any, step: str | int) -> Any:
    if isinstance(step, int):
        return document[step] if isinstance(document, list) and step < len(document) else None
    return document.get(step) if isinstance(document, Mapping) else None


def _is_said(document: Any, named: Place) -> bool:
    """Whether a document says what stands at a place of names, be it that the part around it is something else."""
    for step in named:
        if isinstance(document, list):
            document = dict(enumerate(document)) | {identity(item): item for item in document}
        if not isinstance(document, Mapping):
            return True
        if step not in document:
            return False
        document = document[step]
    return True


def _find_place(document: Any, text: str) -> Place:
    """`capability.consumes[0].baseUri` as steps; without a number in a list, its first item that goes on so."""
    place: list[str | int] = []
    for number, name in re.findall(r"\[(\d+)\]|([^.\[\]]+)", text):
        if name and isinstance(document, list):
            fitting = (index for index, item in enumerate(document) if isinstance(item, Mapping) and name in item)
            place.append(next(fitting, 0))
            document = _entry(document, place[-1])
        place.append(int(number) if number else name)
        document = _entry(document, place[-1])
    return tuple(place)


def codes_page() -> str:
    """The page that lists all codes."""
    parts = [
        "# What `mcp-taskruns check` finds",
        "",
        "`mcp-taskruns check` reads capability files with their overlays and says what is wrong with them, a line for "
        "each finding: file, line, severity, what is wrong, the code in brackets, and what to do. It ends with 1 when "
        "there are errors, or with `--strict` any findings, with 2 when a file is not there, else with 0.",
        "",
        "An **error** is something that cannot be served; a **warning** is served, and badly.",
        "",
        "This page is written by `python -m mcp_taskruns.check > docs/checks.md`.",
        "",
    ]
    for name, code in sorted(CODES.items()):
        parts += [f"## {name}", "", f"**{code.severity.capitalize()}.** {code.title} {code.why}", "", code.mend, ""]
        if code.example:
            parts += ["```yaml", code.example, "```", ""]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(codes_page())
