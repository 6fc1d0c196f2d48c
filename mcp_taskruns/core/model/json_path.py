"""Places in JSON values, in the part of JSONPath that is mostly used: `$.data.id`, `$[*].taskRun`, `results[0]`."""

import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any


class _Step(Enum):
    """A step of a path that is no name and no number; a member stays itself when it is copied or kept."""

    EACH = "[*]"


EACH = _Step.EACH
"""The step of a path that goes to every item of a list."""

Path = tuple[Any, ...]
"""Where something stands in a JSON value: names of members, numbers of items, `EACH`. The empty path is the value."""

Condition = tuple[tuple[Path, tuple[Any, ...]], ...]
"""Paths and, for each, the values of which one has to stand there."""

_STEP = re.compile(r"""\.([\w-]+)|\[(?:(\*)|(-?\d{1,9})|'([^'\\]*)'|"([^"\\]*)")\]""")


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
        name, each, number, *quoted = match.groups()
        names = [written for written in (name, *quoted) if written is not None]
        steps.append(EACH if each else int(number) if number else names[0])
        place = match.end()
    return tuple(steps)


def path_text(path: Path) -> str:
    """A path as it is written, without the leading `$.`."""
    told = ("[*]" if step is EACH else f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(told).lstrip(".")


def parse_condition(when: Mapping[str, Any]) -> Condition:
    """Paths with a value, or a list of values of which one has to stand there. Raises ValueError for no path."""
    return tuple(
        (parse_path(path), tuple(wanted) if isinstance(wanted, list) else (wanted,)) for path, wanted in when.items()
    )


def values_at(value: Any, path: Path) -> Iterator[Any]:
    """All that stands at a path; nothing where the value has no such place."""
    if not path:
        yield value
    elif path[0] is EACH:
        if isinstance(value, list):
            for item in value:
                yield from values_at(item, path[1:])
    elif isinstance(path[0], int):
        if isinstance(value, list) and -len(value) <= path[0] < len(value):
            yield from values_at(value[path[0]], path[1:])
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


def changed_at(value: Any, path: Path, change: Callable[[Any], Any]) -> Any:
    """A copy of the value in which all that stands at a path is what `change` makes of it."""
    if not path:
        return change(value)
    if path[0] is EACH:
        return [changed_at(item, path[1:], change) for item in value] if isinstance(value, list) else value
    if isinstance(path[0], int):
        if not (isinstance(value, list) and -len(value) <= path[0] < len(value)):
            return value
        changed = list(value)
        changed[path[0]] = changed_at(value[path[0]], path[1:], change)
        return changed
    if isinstance(value, Mapping) and path[0] in value:
        return {**value, path[0]: changed_at(value[path[0]], path[1:], change)}
    return value


def fulfils(value: Any, condition: Condition) -> bool:
    """Whether at every path of the condition one of its values stands."""
    return all(value_at(value, path) in wanted for path, wanted in condition)
