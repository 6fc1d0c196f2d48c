"""Places in JSON values, in the part of JSONPath that overlays need: `$.data.id`, `$[*].taskRun`, `results[*]`."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mcp_taskruns.core.operation import EACH, Condition, Path

_STEP = re.compile(r"\.([\w-]+)|(\[\*\])")


def parse_path(text: str) -> Path:
    """The steps of a path; a leading `$` may be left out. Raises ValueError for what is none."""
    rest = text.removeprefix("$") if text[:1] in ("", "$", "[") else f".{text}"
    rest = "" if rest == "." else rest  # `$.` is the whole value, as `$` is
    steps: list[Any] = []
    place = 0
    while place < len(rest):
        match = _STEP.match(rest, place)
        if match is None:
            raise ValueError(f"{text!r} is not a path such as $.data.id or $[*].run")
        steps.append(EACH if match.group(2) else match.group(1))
        place = match.end()
    return tuple(steps)


def values_at(value: Any, path: Path) -> Iterator[Any]:
    """All that stands at a path; nothing where the value has no such place."""
    if not path:
        yield value
    elif path[0] is EACH:
        if isinstance(value, list):
            for item in value:
                yield from values_at(item, path[1:])
    elif isinstance(value, Mapping) and path[0] in value:
        yield from values_at(value[path[0]], path[1:])


def value_at(value: Any, path: Path | None) -> Any:
    """The first of what stands at a path, or None."""
    return None if path is None else next(values_at(value, path), None)


def set_at(value: Mapping[str, Any], path: Path, new: Any) -> dict[str, Any]:
    """A copy of the value with `new` at a path of names; objects on the way are made where they are missing."""
    inner = value.get(path[0])
    below = inner if isinstance(inner, Mapping) else {}
    return {**value, path[0]: set_at(below, path[1:], new) if path[1:] else new}


def fulfils(value: Any, condition: Condition) -> bool:
    """Whether at every path of the condition one of its values stands."""
    return all(value_at(value, path) in wanted for path, wanted in condition)
