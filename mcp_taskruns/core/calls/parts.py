"""Parts of a result: what the argument `result_path` selects, so that a long result can be read in a few calls."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mcp_taskruns.core.calls.truncation import Gap, format_steps, one_line, quote_name
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import Path
from mcp_taskruns.core.model.tool import RESULT_PATH
from mcp_taskruns.errors import InvalidArguments

_STEP = re.compile(
    r"""\.?(?P<name>[\w-]+)
    | \[(?P<index>-?\d{1,9})\]
    | \[(?P<quoted>"(?:[^"\\]|\\.)*")\]
    | \['(?P<single>[^'\\]*)'\]
    | \[(?P<first>-?\d{1,9})?:(?P<end>-?\d{1,9})?\]\Z""",
    re.VERBOSE,
)

MAX_PATH = 200
"""Characters of a path that is suggested."""

MAX_WRITTEN = 2_000
"""Characters of a path that a call passes."""

MAX_SHOWN = 100
"""Characters of a path that an error quotes."""

MAX_NAMES = 10
"""Members that are listed when a path names one that does not exist."""


@dataclass(frozen=True)
class ResultPath:
    """A place in a result, and the range of characters, items or members to return; None for all of the place."""

    steps: Path
    range: slice | None


@dataclass(frozen=True)
class Part:
    """The part of a result that was selected.

    Attributes:
        value: its JSON value.
        path: the place.
        unit: what a range consists of: characters, items or members; empty if the whole place was selected.
        first: the index of the first one of the range.
        end: the index after the last one of the range; None for the end of the place.
        total: how many the place has.
    """

    value: Any
    path: Path
    unit: str = ""
    first: int = 0
    end: int | None = None
    total: int = 0

    def describe(self) -> str:
        """Return which range was selected; empty for a whole place."""
        return str(self.gap(Gap((), len(self.value), self.total, self.unit))) if self.unit else ""

    def gap(self, gap: Gap) -> Gap:
        """Return a gap in the value as a gap in the whole result."""
        if not gap.path:
            return replace(gap, path=self.path, first=self.first, end=self.end, total=self.total or gap.total)
        first, *others = gap.path
        return replace(gap, path=(*self.path, first + self.first if isinstance(first, int) else first, *others))


def parse_result_path(written: str) -> ResultPath:
    """Parse a path such as `data.items[500:]`; `$` may precede it. Raises InvalidArguments."""
    text = written.strip().removeprefix("$")
    steps: list[str | int] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position) if len(text) <= MAX_WRITTEN else None
        if match is None or (match["name"] and position and text[position] != "."):
            raise _no_path(written)
        position = match.end()
        if match.lastgroup in {"first", "end", None}:
            first, end = (int(number) if number else None for number in (match["first"], match["end"]))
            return ResultPath(tuple(steps), slice(first, end))
        steps.append(_read_step(match))
    return ResultPath(tuple(steps), None)


def _read_step(match: re.Match[str]) -> str | int:
    if match["index"]:
        return int(match["index"])
    if match["quoted"] is None:
        return match["name"] or match["single"]
    try:
        name: str = json.loads(match["quoted"], strict=False)
    except ValueError as exc:
        raise _no_path(match.string) from exc
    return name


def _no_path(written: str) -> InvalidArguments:
    shown = one_line(written, MAX_SHOWN)
    return _invalid(f"{shown!r} is not a path such as data.items[500:] or text[40000:60000]", "Nothing was sent.")


def advise_to_read_on(gaps: Sequence[Gap]) -> str:
    """Return a sentence about the argument that reads on after a truncated place."""
    rest = next((gap.rest for gap in gaps if len(gap.rest) <= MAX_PATH), "")
    if not rest:
        return ""
    others = ", or another of these places" if len(gaps) > 1 else ""
    return f"To read on, call again with {RESULT_PATH} {dump(rest)}{others}."


def _invalid(problem: str, hint: str = "") -> InvalidArguments:
    return InvalidArguments(f"{RESULT_PATH}: {problem}", hint=hint)


def find_part(value: Any, path: ResultPath, redact: Callable[[str], str]) -> Part:
    """Return the part of a JSON value, or of a text, at a path. Raises InvalidArguments for a place that it lacks.

    `redact` is applied to a text before a range of it is taken, which could otherwise show a secret in pieces.
    """
    place: Path = ()
    for step in path.steps:
        if isinstance(step, str):
            value = _member(value, step, place)
        else:
            step, value = _item(value, step, place)  # noqa: PLW2901  # a negative index counts from the end
        place = (*place, step)
    if path.range is None:
        return Part(value, place)
    if isinstance(value, str):
        value = redact(value)
    if not isinstance(value, str | list | dict):
        raise _invalid(f"{_name(place)} is {_kind(value)}, which has no range")
    total = len(value)
    first, end, _ = path.range.indices(total)
    end = max(first, end)
    selected = dict(list(value.items())[first:end]) if isinstance(value, dict) else value[first:end]
    return Part(selected, place, _UNITS[type(value)], first, None if end >= total else end, total)


_UNITS: Mapping[type, str] = {str: "characters", list: "items", dict: "members"}


def _member(value: Any, name: str, place: Path) -> Any:
    where = _name(place)
    if not isinstance(value, dict):
        raise _invalid(f"{where} is {_kind(value)}, which has no member {quote_name(name)}")
    if name not in value:
        names = ", ".join(map(quote_name, list(value)[:MAX_NAMES])) or "none"
        more = f" and {len(value) - MAX_NAMES:,} more" if len(value) > MAX_NAMES else ""
        raise _invalid(f"{where} has no member {quote_name(name)}", f"The members of {where} are: {names}{more}.")
    return value[name]


def _item(value: Any, index: int, place: Path) -> tuple[int, Any]:
    if not isinstance(value, list):
        raise _invalid(f"{_name(place)} is {_kind(value)}, which has no item {index}; a range is [{index}:]")
    if not -len(value) <= index < len(value):
        raise _invalid(f"{_name(place)} has {len(value):,} items, and no item {index}")
    return index % len(value), value[index]


def _name(place: Path) -> str:
    return one_line(format_steps(place), MAX_SHOWN) or "the result"


def _kind(value: Any) -> str:
    kinds = {str: "a text", list: "a list", dict: "an object", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")
