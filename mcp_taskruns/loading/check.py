"""`mcp-taskruns check`: the findings of capability files, each with its file and line."""

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp_taskruns.core.checks.capability import check_capability, check_together
from mcp_taskruns.core.checks.codes import RULES, Finding, Place, Severity
from mcp_taskruns.core.checks.overlay import check_overlay
from mcp_taskruns.core.format.compiler import ToolNames
from mcp_taskruns.core.format.overlay import overlay_place
from mcp_taskruns.loading.files import capability_files, orphan_overlays, overlay_of
from mcp_taskruns.loading.sources import (
    LocatedFinding,
    Source,
    find_place,
    locate_in_file,
    named_place,
    relative_path,
)


@dataclass(frozen=True)
class CheckResult:
    """The checked files, the number of their tools, and the findings in the order of files and lines."""

    files: tuple[str, ...]
    tools: int
    findings: tuple[LocatedFinding, ...]

    def count(self, severity: Severity) -> int:
        """Return the number of findings of this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return {
            "files": list(self.files),
            "findings": [vars(finding) for finding in self.findings],
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "notes": self.count("note"),
        }

    def summary(self) -> str:
        """Return a line such as `4 files, 31 tools: 1 error, 2 warnings`."""
        severities: tuple[Severity, ...] = ("error", "warning", "note")
        problems = [_pluralize(number, name) for name in severities if (number := self.count(name))]
        files = f"{_pluralize(len(self.files), 'file')}, {_pluralize(self.tools, 'tool')}"
        return f"{files}: {', '.join(problems) or 'no problems'}"


def _pluralize(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def check_files(
    files: Sequence[str | Path],
    *,
    overlays: bool = True,
    names: ToolNames = "prefixed",
    environment: Collection[str] | None = None,
) -> CheckResult:
    """Check files and folders, each file with its overlay; without any, check the built-in files.

    `environment` holds the names of the environment variables that are set; None means that they are not checked.
    Raises CapabilityError for a file that does not exist and for a folder without capability files.
    """
    sources, findings = _find_sources(files, overlays=overlays)
    for source in sources:
        findings += _check_source(source, names, environment)
    read = [(source, source.capability) for source in sources if source.capability]
    for index, finding in check_together([capability for _, capability in read]):
        findings.append(read[index][0].locate(finding))
    return CheckResult(
        tuple(relative_path(source.path) for source in sources),
        sum(len(source.tools) for source in sources),
        tuple(sorted(dict.fromkeys(findings), key=lambda item: (item.file, item.line, item.code, item.message))),
    )


def _find_sources(files: Sequence[str | Path], *, overlays: bool) -> tuple[list[Source], list[LocatedFinding]]:
    """Return the capability files with their overlays, and the findings of overlays without a capability file.

    An overlay that is listed itself is applied even without `overlays`.
    """
    findings = [_unmatched_overlay(path) for path in orphan_overlays(files)] if overlays else []
    sources: dict[Path, Source] = {}
    for path in capability_files(files):
        base = path.parent.parent / path.name if path.parent.name == "overlays" else path
        if not base.is_file():
            findings.append(_unmatched_overlay(path))
            continue
        overlay = overlay_of(base)
        has_overlay = overlay.is_file() and (overlays or base != path)
        sources.setdefault(base.resolve(), Source(base, overlay if has_overlay else None))
    return list(sources.values()), findings


def _unmatched_overlay(path: Path) -> LocatedFinding:
    message = f"there is no capability file {path.name} for this overlay"
    return locate_in_file(Finding("unused-overlay-entry", (), message, "Give both files the same name."), path, 1)


def _check_source(source: Source, names: ToolNames, environment: Collection[str] | None) -> Iterator[LocatedFinding]:
    problems = source.read(names)
    findings: list[Finding] = []
    if source.capability is not None:
        findings = list(check_capability(source.capability, source.tools, environment))
    overlay_findings = (
        list(check_overlay(source.base_document, source.overlay_document)) if source.base_document else []
    )
    yield from map(source.locate_in_overlay, overlay_findings)
    # An unused entry may have added an incomplete part; its other problems are consequences of that.
    unused = [finding.place for finding in overlay_findings if finding.code == "unused-overlay-entry"]
    for problem in problems:
        place = named_place(source.merged, problem.steps) if problem.steps else find_place(source.merged, problem.place)
        if not _is_inside(source, place, unused):
            yield source.locate_error(problem)
    for finding in findings:
        if not _is_inside(source, finding.place, unused):
            yield source.locate(finding)
    yield from source.marks()


def _is_inside(source: Source, place: Place, parts: Sequence[Place]) -> bool:
    named = overlay_place(source.merged, place)
    return any(named[: len(part)] == part for part in parts)


def codes_page() -> str:
    """Return the reference page of all rule codes, in Markdown."""
    parts = [
        "# Findings of `mcp-taskruns check`",
        "",
        "`mcp-taskruns check` reads capability files with their overlays and reports problems. Each finding is one "
        "line: file, line, severity, message, rule code in brackets, and a fix. With `--json` findings are objects "
        "with the keys `file`, `line`, `path`, `code`, `severity`, `message` and `fix`.",
        "",
        "An **error** means that a part of the file cannot be used. A **warning** means that it can be used, but has "
        "a problem. A **note** is about something to confirm.",
        "",
        "| exit status | meaning |",
        "|---|---|",
        "| 0 | no errors (with `--strict`: no findings) |",
        "| 1 | errors (with `--strict`: any findings) |",
        "| 2 | a file does not exist, or invalid usage |",
        "",
        "This page is generated: `python -m mcp_taskruns.loading.check > docs/checks.md`.",
        "",
    ]
    for code, rule in sorted(RULES.items()):
        parts += [f"## {code}", "", f"**{rule.severity.capitalize()}.** {rule.title} {rule.reason}", "", rule.fix, ""]
        if rule.example:
            parts += ["```yaml", rule.example, "```", ""]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(codes_page())
