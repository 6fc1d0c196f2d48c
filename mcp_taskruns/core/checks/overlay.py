"""Checks of overlays: entries that match nothing or change nothing."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from mcp_taskruns.core.calls.truncation import one_line
from mcp_taskruns.core.checks.codes import Finding, Place, suggest
from mcp_taskruns.core.checks.model import enumerate_items
from mcp_taskruns.core.format.dialects import unify
from mcp_taskruns.core.format.templates import placeholders_of

MAX_QUOTED_VALUE = 60
"""The length in characters to which a value is truncated in a message."""

_REQUIRED_OF_NEW_ITEMS: Mapping[str, Collection[Collection[str]]] = {
    "operations": ({"method"}, {"call"}),
    "tools": ({"call"},),
    "consumes": ({"resources", "baseUri"}, {"resources", "baseUriEnv"}),
    "resources": ({"path", "operations"},),
    "exposes": ({"type", "tools"}, {"type", "resources"}),
    "binds": ({"keys"},),
}
"""The keys that make an item of a list a complete new one: all keys of one of the sets."""

_IDENTIFYING = frozenset({"name", "namespace", "in", "naftiko"})
"""Keys that an overlay repeats to identify what it refines."""

_OPAQUE = frozenset({"schema", "value", "const", "when", "arguments", "with", "body"})
"""Keys whose values are sent to the provider, so null is a value there."""

_Scopes = Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
"""Nested parts of a capability file from the outermost to the innermost, each with its part of the overlay."""


def check_overlay(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> Iterator[Finding]:
    """Find overlay entries that have no effect on the capability document `base`; places are those in the overlay."""
    yield from _check_entries([(unify(base), unify(overlay, keep_nulls=True))], ())


def _check_entries(scopes: _Scopes, place: Place) -> Iterator[Finding]:
    base, overlay = scopes[-1]
    for key, value in overlay.items():
        inner = (*place, key)
        if value is None and key not in base:
            code = "unused-overlay-entry" if base else "redundant-overlay-entry"
            message = f"{_describe(scopes, inner)} is null, but there is nothing to delete"
            yield Finding(code, inner, message, "Remove it.")
        elif key not in base and key not in _OPAQUE:
            yield from _check_added(scopes, value, inner)
        else:
            yield from _check_changed(scopes, base.get(key), value, inner)


def _check_added(scopes: _Scopes, value: Any, place: Place) -> Iterator[Finding]:
    """Check the value of a key that the capability file does not have."""
    if isinstance(value, Mapping):
        yield from _check_entries([*scopes, ({}, value)], place)
    elif isinstance(value, list) and all(map(identity, value)):
        yield from _check_items(scopes, [], value, place)


def _check_changed(scopes: _Scopes, old: Any, value: Any, place: Place) -> Iterator[Finding]:
    """Check the value of a key that the capability file has."""
    if isinstance(value, Mapping) and isinstance(old, Mapping):
        yield from _check_entries([*scopes, (old, value)], place)
    elif isinstance(value, list) and isinstance(old, list) and all(map(identity, value)):
        yield from _check_items(scopes, old, value, place)
        if not value:
            message = f"{_describe(scopes, place)} is an empty list, which changes nothing"
            yield Finding("redundant-overlay-entry", place, message, "Use null to delete the list.")
    elif _is_equal(old, value) and not _is_identifying(place):
        message = f"{_describe(scopes, place)} is already {_quote(value)} in the capability file"
        yield Finding("redundant-overlay-entry", place, message)


def _check_items(scopes: _Scopes, base: list[Any], items: list[Any], place: Place) -> Iterator[Finding]:
    """Check list items with names; each refines the item of its name, or is a new one."""
    known = {identity(item): item for item in reversed(base)}
    for inner, item in enumerate_items(place, items):
        name = identity(item)
        if name in known:
            yield from _check_entries([*scopes, (known[name], item)], inner)
        elif _is_complete(scopes, place, item):
            yield from _check_entries([*scopes, ({}, item)], inner)
        else:
            message = f"`{place[-1]}` of the capability file has no {name}, and the entry is not a complete new item"
            fix = suggest(str(name), [str(other) for other in known])
            yield Finding("unused-overlay-entry", inner, message, fix)


def _is_complete(scopes: _Scopes, place: Place, item: Mapping[str, Any]) -> bool:
    """Whether an item that the capability file does not have is a complete new one."""
    if place[-1] == "inputParameters" and "consumes" in place:
        return not {"in", "value", "env"}.isdisjoint(item) or item.get("name") in _known_inputs(scopes)
    return any(set(item) >= set(keys) for keys in _REQUIRED_OF_NEW_ITEMS.get(str(place[-1]), ((),)))


def _known_inputs(scopes: _Scopes) -> set[str]:
    """Return the names of parameters that are declared around or inside a part, and of placeholders in its paths."""
    around = {name for pair in scopes for part in pair for name in _inputs_of(part)}
    return around | {name for part in scopes[-1] for name in _inputs_inside(part)}


def _inputs_of(part: Mapping[str, Any]) -> Iterator[str]:
    declared = part.get("inputParameters")
    for item in declared if isinstance(declared, list) else ():
        if isinstance(item, Mapping) and "in" in item:  # an overlay item without a location declares nothing
            yield str(item.get("name"))
    if isinstance(part.get("path"), str):
        yield from placeholders_of(part["path"])


def _inputs_inside(part: Mapping[str, Any]) -> Iterator[str]:
    yield from _inputs_of(part)
    for key in ("resources", "operations"):
        items = part.get(key)
        for item in items if isinstance(items, list) else ():
            if isinstance(item, Mapping):
                yield from _inputs_inside(item)


def _is_identifying(place: Place) -> bool:
    is_adapter_type = place[-1] == "type" and place[:1] == ("capability",) and len(place) == 4
    return place[-1] in _IDENTIFYING or is_adapter_type


def identity(item: Any) -> str | None:
    """Return the name by which an overlay refers to a list item, if it has one."""
    name = item.get("name", item.get("namespace")) if isinstance(item, Mapping) else None
    return name if isinstance(name, str) else None


def _is_equal(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)  # unlike ==, distinguishes 1 from true and from 1.0


def _describe(scopes: _Scopes, place: Place) -> str:
    """Return a short name for a place, such as `hints.destructive of list-things`."""
    names = [name for _, part in scopes if (name := identity(part))]
    items = [index for index, step in enumerate(place) if isinstance(step, int)]
    steps = ".".join(map(str, place[items[-1] + 1 :] if items else place))
    return f"{steps} of {names[-1]}" if names else steps


def _quote(value: Any) -> str:
    text = "true" if value is True else "false" if value is False else str(value)
    return one_line(text, MAX_QUOTED_VALUE)
