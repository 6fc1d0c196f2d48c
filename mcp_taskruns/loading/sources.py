"""A capability file while it is checked, and where in it and in its overlay a finding is."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mcp_taskruns.core.calls.truncation import one_line
from mcp_taskruns.core.checks.codes import Finding, Place, Severity
from mcp_taskruns.core.format.compiler import ToolNames, compile_tools
from mcp_taskruns.core.format.dialects import unify
from mcp_taskruns.core.format.overlay import apply_overlay, operation_places, overlay_place
from mcp_taskruns.core.format.overlay_spec import find_valid_part, without
from mcp_taskruns.core.format.policies import keyword_problems
from mcp_taskruns.core.format.runs import find_run_problems
from mcp_taskruns.core.format.spec import Capability, parse_capability, validate_capability
from mcp_taskruns.core.model.json_path import format_path
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import CapabilityError
from mcp_taskruns.loading.lines import Lines, read_lines
from mcp_taskruns.loading.marks import find_marks
from mcp_taskruns.loading.yaml import read_nodes

MAX_MESSAGE = 400
"""The length in characters to which a message is truncated."""


@dataclass(frozen=True)
class LocatedFinding:
    """A finding with its file and line; the fields are those of `check --json`."""

    file: str
    line: int
    path: str
    code: str
    severity: Severity
    message: str
    fix: str

    def to_line(self) -> str:
        """Return the finding as `file:line: severity: message [code] Fix.`"""
        return f"{self.file}:{self.line}: {self.severity}: {self.message} [{self.code}] {self.fix}"


class Source:
    """A capability file with its overlay while it is checked.

    The documents stay empty, and the capability None, if reading fails.
    """

    def __init__(self, path: Path, overlay: Path | None) -> None:
        self.path = path
        self.overlay = overlay
        self.base_document: dict[str, Any] = {}
        self.overlay_document: dict[str, Any] = {}
        self.merged: Mapping[str, Any] = {}
        self.capability: Capability | None = None
        self.tools: tuple[Tool, ...] = ()
        self._lines: dict[Path, Lines] = {}
        self._roots: dict[Path, yaml.Node] = {}

    def read(self, names: ToolNames) -> list[CapabilityError]:
        """Read both files and compile the merged document, both as far as they are valid; return what is wrong."""
        problems: list[CapabilityError] = []
        try:
            self.base_document = self._read(self.path)
            self.merged = unify(self.base_document)
        except CapabilityError as exc:
            problems.append(exc)
        try:
            problems += self._read_overlay()
        except CapabilityError as exc:
            problems.append(exc)
        return [*problems, *self._compile(names)] if self.base_document else problems

    def _read_overlay(self) -> list[CapabilityError]:
        """Read the overlay and merge its valid part. Raises CapabilityError for a file that cannot be read."""
        if self.overlay is None:
            return []
        name = f"overlays/{self.path.name}"
        self.overlay_document, problems = find_valid_part(self._read(self.overlay), name)
        while self.base_document:
            try:
                self.merged = apply_overlay(self.base_document, self.overlay_document, name)
                break
            except CapabilityError as exc:
                problems.append(exc)
                self.overlay_document = without(self.overlay_document, exc.steps)
        return problems

    def _compile(self, names: ToolNames) -> list[CapabilityError]:
        """Parse and compile the merged document, without keywords and `runs` that are wrong; return what is wrong."""
        source = f"{self.path.name} with overlays/{self.path.name}" if self.overlay else self.path.name
        capability = validate_capability(self.merged, source)
        if not isinstance(capability, Capability):
            return capability
        problems = list(keyword_problems(capability))
        document = self.merged
        for place in {_keyword_place(named_place(document, problem.steps)) for problem in problems}:
            document = without(document, place)
        if problems:
            capability = parse_capability(document, source)
        try:
            self.tools = compile_tools([capability], names=names)
        except CapabilityError as exc:
            with_runs, capability = capability, parse_capability(_without_runs(document), source)
            self.tools = compile_tools([capability], names=names)
            problems += dict.fromkeys(find_run_problems(with_runs, self.tools)) or [exc]
        self.capability = capability
        return problems

    def locate(self, finding: Finding) -> LocatedFinding:
        """Locate a finding in the overlay if the value comes from there, else in the capability file."""
        lines = self._lines_of(self.path)
        if self.overlay in self._lines:
            overlay_lines = self._lines_of(self.overlay)
            named = overlay_place(self.merged, finding.place)
            is_deeper = overlay_lines.depth_of(named) > _named_depth(finding.place, lines.depth_of(finding.place))
            # An overlay changes parts of an operation or a tool; what is wrong with all of it is in the file.
            is_whole_item = finding.place[-2:-1] in {("operations",), ("tools",)}
            if is_deeper or (_has_value(self.overlay_document, named) and not is_whole_item):
                return locate_in_file(finding, self.overlay, overlay_lines.line_of(named))
        return locate_in_file(finding, self.path, lines.line_of(finding.place))

    def locate_in_overlay(self, finding: Finding) -> LocatedFinding:
        """Locate a finding whose place is in the overlay's own document."""
        path = self.overlay or self.path
        return locate_in_file(finding, path, self._lines_of(path).line_of(finding.place))

    def marks(self) -> Iterator[LocatedFinding]:
        """Yield a finding for each comment in the two files that marks something to confirm."""
        for path, root in self._roots.items():
            for line, text in find_marks(path, root):
                yield locate_in_file(Finding("to-confirm", (), f"to confirm: {text}"), path, line)

    def locate_error(self, error: CapabilityError) -> LocatedFinding:
        """Locate the reason for which the file cannot be read or compiled."""
        line = re.match(r"line (\d+)", error.place)
        is_of_overlay = self.overlay and error.source.startswith("overlays/")
        message = f"{error.place}: {error.reason}" if error.place and not line else error.reason
        if is_of_overlay and error.steps:
            return self.locate_in_overlay(Finding("invalid-file", error.steps, message, error.fix))
        if line or is_of_overlay or not self.merged:
            path = self.overlay if self.overlay and is_of_overlay else self.path
            fix = "Correct the YAML syntax." if isinstance(error.__cause__, yaml.YAMLError) else ""
            return locate_in_file(
                Finding("invalid-file", (), error.reason, fix), path, int(line.group(1)) if line else 1
            )
        place = named_place(self.merged, error.steps) if error.steps else find_place(self.merged, error.place)
        return self.locate(Finding("invalid-file", place, message, error.fix))

    def _read(self, path: Path) -> dict[str, Any]:
        document, root = read_nodes(path)
        self._lines[path] = Lines(root)
        self._roots[path] = root
        return document

    def _lines_of(self, path: Path) -> Lines:
        if path not in self._lines:
            self._lines[path] = read_lines(path)
        return self._lines[path]


def locate_in_file(finding: Finding, path: Path, line: int) -> LocatedFinding:
    """Return the finding with its file and line."""
    return LocatedFinding(
        file=relative_path(path),
        line=line,
        path=format_path(finding.place),
        code=finding.code,
        severity=finding.severity,
        message=one_line(finding.message, MAX_MESSAGE),
        fix=finding.fix,
    )


def relative_path(path: Path) -> str:
    """Return a path relative to the working directory if it is inside it, else the path as it is."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else path)


def _keyword_place(place: Place) -> Place:
    """Return the place of the keyword of a provider or an operation in which a place is; in `errors`, of the rule."""
    if place[3:4] == ("resources",):
        return place[:8]
    return place[:5] if place[3:4] == ("errors",) else place[:4]


def _without_runs(document: Mapping[str, Any]) -> Mapping[str, Any]:
    kept: Mapping[str, Any] = document
    for index, consumed in enumerate(document["capability"]["consumes"]):
        if "runs" in consumed:
            kept = without(kept, ("capability", "consumes", index, "runs"))
    return kept


def _named_depth(place: Place, depth: int) -> int:
    """Return a depth in a capability file as that in an overlay, where operations are directly below a namespace."""
    return max(depth - 2, 3) if place[3:4] == ("resources",) and depth > 3 else depth


def named_place(document: Any, steps: Sequence[str | int]) -> Place:
    """Return the place in a merged document to which the names of an overlay lead, as far as it exists."""
    place: list[str | int] = []
    is_operation = tuple(steps[:2]) == ("capability", "consumes") and steps[3:4] == ("operations",)
    for number, step in enumerate(steps):
        if is_operation and number == 4:
            found = operation_places(document if isinstance(document, list) else ())
            outer, inner = found.get(str(step), [(0, 0)])[0]
            path: list[str | int] = [outer, "operations", inner]
        elif isinstance(document, list) and isinstance(step, str):
            names = [item.get("name", item.get("namespace")) for item in document if isinstance(item, Mapping)]
            path = [names.index(step) if step in names else 0]
        else:
            path = ["resources" if is_operation and number == 3 else step]
        for one in path:
            place.append(one)
            document = _descend(document, one)
    return tuple(place)


def _descend(document: Any, step: str | int) -> Any:
    if isinstance(step, int):
        return document[step] if isinstance(document, list) and step < len(document) else None
    return document.get(step) if isinstance(document, Mapping) else None


def _has_value(document: Any, place: Place) -> bool:
    """Whether an overlay sets the value at a place, itself or by replacing a part around it."""
    for step in place:
        if not isinstance(document, Mapping):
            return True
        if step not in document:
            return False
        document = document[step]
    return True


def find_place(document: Any, text: str) -> Place:
    """Return the place that a path such as `capability.consumes[0].baseUri` describes.

    Where the path omits the index of a list item, the first item that has the next key is meant.
    """
    place: list[str | int] = []
    for index, name in re.findall(r"\[(\d+)\]|([^.\[\]]+)", text):
        if name and isinstance(document, list):
            candidates = (number for number, item in enumerate(document) if isinstance(item, Mapping) and name in item)
            place.append(next(candidates, 0))
            document = _descend(document, place[-1])
        place.append(int(index) if index else name)
        document = _descend(document, place[-1])
    return tuple(place)
