"""The subset of JSONPath that paths in capability files and overlays use: `$.data.id`, `$[*].taskRun`, `$.items[0]`."""

import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any


class _Step(Enum):
    """A step that is neither a name nor an index; an enum member keeps its identity when it is copied or pickled."""

    EACH = "[*]"


EACH = _Step.EACH
"""The step to every item of a list."""

Path = tuple[Any, ...]
"""The steps to a place in a JSON value: member names, list indexes, `EACH`. The empty path is the whole value."""

Condition = tuple[tuple[Path, tuple[Any, ...]], ...]
"""Paths, each with the values that are accepted there."""

_STEP = re.compile(r"""\.([\w-]+)|\[(?:(\*)|(-?\d{1,9})|'([^'\\]*)'|"([^"\\]*)")\]""")


def parse_path(text: str) -> Path:
    """Return the steps of a path. Raises ValueError for a text that is not a path or does not start with `$`."""
    if not text.startswith("$"):
        fix = f"$.{text}" if text[:1] not in ("[", "") else f"${text}"
        raise ValueError(f"`{text}` is not a path: paths start with `$`, write `{fix}`")
    rest = "" if text == "$." else text[1:]  # `$.` is a common spelling of `$`
    steps: list[Any] = []
    position = 0
    while position < len(rest):
        match = _STEP.match(rest, position)
        if match is None:
            raise ValueError(f"`{text}` is not a path such as `$.data.id` or `$[*].run`")
        name, each, index, *quoted = match.groups()
        names = [written for written in (name, *quoted) if written is not None]
        steps.append(EACH if each else int(index) if index else names[0])
        position = match.end()
    return tuple(steps)


def format_path(path: Path) -> str:
    """Return a path as text, without the leading `$.`."""
    steps = ("[*]" if step is EACH else f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).lstrip(".")


def parse_condition(when: Mapping[str, Any]) -> Condition:
    """Return a condition from paths with a value, or a list of accepted values. Raises ValueError for invalid paths."""
    return tuple(
        (parse_path(path), tuple(wanted) if isinstance(wanted, list) else (wanted,)) for path, wanted in when.items()
    )


def values_at(value: Any, path: Path) -> Iterator[Any]:
    """Yield all values at a path; none where the value has no such place."""
    for position, step in enumerate(path):
        if step is EACH:
            for item in value if isinstance(value, list) else ():
                yield from values_at(item, path[position + 1 :])
            return
        if not _has(value, step):
            return
        value = value[step]
    yield value


def value_at(value: Any, path: Path | None) -> Any:
    """Return the first value at a path, or None."""
    if path is None:
        return None
    for position, step in enumerate(path):
        if step is EACH:
            return next(values_at(value, path[position:]), None)
        if not _has(value, step):
            return None
        value = value[step]
    return value


def _has(value: Any, step: Any) -> bool:
    """Whether a JSON value has this member or item."""
    if isinstance(value, dict):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and -len(value) <= step < len(value)


def set_at(value: Mapping[str, Any], path: Path, new: Any) -> dict[str, Any]:
    """Return a copy of the value with `new` at a path of names; missing objects on the way are created."""
    inner = value.get(path[0])
    below = inner if isinstance(inner, Mapping) else {}
    return {**value, path[0]: set_at(below, path[1:], new) if path[1:] else new}


def replace_at(value: Any, path: Path, replace: Callable[[Any], Any]) -> Any:
    """Return a copy of the value in which everything at a path is replaced by the result of `replace`."""
    if not path:
        return replace(value)
    if path[0] is EACH:
        return [replace_at(item, path[1:], replace) for item in value] if isinstance(value, list) else value
    if isinstance(path[0], int):
        if not (isinstance(value, list) and -len(value) <= path[0] < len(value)):
            return value
        items = list(value)
        items[path[0]] = replace_at(value[path[0]], path[1:], replace)
        return items
    if isinstance(value, Mapping) and path[0] in value:
        return {**value, path[0]: replace_at(value[path[0]], path[1:], replace)}
    return value


def matches(value: Any, condition: Condition) -> bool:
    """Return whether an accepted value is at every path of the condition."""
    return all(value_at(value, path) in accepted for path, accepted in condition)
