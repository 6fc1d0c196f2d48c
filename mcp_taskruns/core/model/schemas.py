"""References in JSON Schemas that lead back to where they are."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

MAX_APPLIED = 10_000
"""Schemas that are applied to one value: references to each other can multiply them."""

MAX_CHAIN = 50
"""Schemas that lead to each other one by one for the same value."""

_ONE = ("not", "if", "then", "else")
_MANY = ("allOf", "anyOf", "oneOf")
_NAMED = ("dependentSchemas",)

Place = tuple[Any, ...]


def find_endless_schema(schema: Any) -> Place | None:
    """Return the place of a schema that applies itself to the same value, or too many schemas; None without one.

    A reference inside of `properties` or `items` is no such schema: it applies to a part of the value.
    """
    counts: dict[int, int] = {}
    for place, part in _parts(schema):
        if _count_applied(schema, part, counts, ()) > MAX_APPLIED:
            return place
    return None


def _parts(schema: Any) -> Iterator[tuple[Place, Any]]:
    pending: list[tuple[Place, Any]] = [((), schema)]
    while pending:
        place, part = pending.pop()
        if isinstance(part, Mapping):
            yield place, part
            pending += [((*place, name), item) for name, item in part.items()]
        elif isinstance(part, list):
            pending += [((*place, index), item) for index, item in enumerate(part)]


def _count_applied(root: Any, schema: Any, counts: dict[int, int], chain: tuple[int, ...]) -> int:
    """Return how many schemas are applied to a value by this one, more than MAX_APPLIED for a cycle."""
    if not isinstance(schema, Mapping):
        return 1
    key = id(schema)
    if key in chain or len(chain) > MAX_CHAIN:
        return MAX_APPLIED + 1
    if key not in counts:
        inner = (_count_applied(root, part, counts, (*chain, key)) for part in _applied(root, schema))
        counts[key] = 1 + sum(inner)
    return counts[key]


def _applied(root: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the schemas that a schema applies to the same value."""
    for name in _MANY:
        if isinstance(parts := schema.get(name), list):
            yield from parts
    for name in _NAMED:
        if isinstance(named := schema.get(name), Mapping):
            yield from named.values()
    yield from (schema[name] for name in _ONE if name in schema)
    reference = schema.get("$ref")
    if isinstance(reference, str) and _is_local(reference):
        yield _resolve(root, reference)


def _is_local(reference: str) -> bool:
    return reference == "#" or reference.startswith("#/")


def _resolve(root: Any, reference: str) -> Any:
    """Return the schema to which a reference such as `#/$defs/a` leads, or None."""
    part = root
    for step in unquote(reference[1:]).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(part, list) and name.isdecimal() and len(name) < 6 and int(name) < len(part):
            part = part[int(name)]
        else:
            part = part.get(name) if isinstance(part, Mapping) else None
    return part


def is_recursive(schema: Any) -> bool:
    """Return whether a schema has a reference that leads back to it, also for a part of the value.

    A reference by an anchor or a URL counts as one.
    """
    above: set[int] = set()
    done: set[int] = set()
    pending: list[tuple[Any, bool]] = [(schema, False)]
    while pending:
        part, is_left = pending.pop()
        if is_left:
            above.discard(id(part))
            done.add(id(part))
        elif id(part) in above or _has_other_reference(part):
            return True
        elif isinstance(part, Mapping | list) and id(part) not in done:
            above.add(id(part))
            pending.append((part, True))
            pending += [(inner, False) for inner in _reached(schema, part)]
    return False


def _reached(root: Any, part: Any) -> Iterator[Any]:
    """Yield what a part of a schema contains and refers to."""
    yield from part.values() if isinstance(part, Mapping) else part
    if isinstance(part, Mapping) and isinstance(reference := part.get("$ref"), str):
        yield _resolve(root, reference)


def _has_other_reference(part: Any) -> bool:
    reference = part.get("$ref") if isinstance(part, Mapping) else None
    return isinstance(reference, str) and not _is_local(reference)
