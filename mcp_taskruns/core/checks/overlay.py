"""Checks of overlays: entries that match nothing or change nothing."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcp_taskruns.core.calls.truncation import one_line
from mcp_taskruns.core.checks.codes import Finding, Place
from mcp_taskruns.core.format.dialects import unify
from mcp_taskruns.core.format.names import suggest_name
from mcp_taskruns.core.format.overlay import NO_SHAPE, ROOT, SURFACE, Shape, find_item, operation_places
from mcp_taskruns.core.format.templates import placeholders_of

MAX_QUOTED_VALUE = 60
"""The length in characters to which a value is truncated in a message."""

_REQUIRED_OF_NEW_ITEMS: Mapping[str, Collection[Collection[str]]] = {
    "operations": ({"method", "path"}, {"call"}),
    "tools": ({"call"},),
    "consumes": ({"operations", "baseUri"}, {"operations", "base_uri_env"}),
    "resources": ({"path", "operations"},),
    "exposes": ({"type", "tools"}, {"type", "resources"}),
    "binds": ({"keys"},),
}
"""The keys that make an entry a complete new item: all keys of one of the sets."""

_IDENTIFYING = frozenset({"overlay", "in"})
"""Keys that an overlay repeats to identify what it changes."""

_OPAQUE = frozenset({"schema", "value", "when", "new_events_arguments", "with", "body"})
"""Keys whose values are sent to the provider, so null is a value there."""


@dataclass(frozen=True)
class _Scope:
    """A part of a capability file, with its part of the overlay; `name` is empty for parts without a name."""

    name: str
    base: Mapping[str, Any]
    overlay: Mapping[str, Any]


_Scopes = Sequence[_Scope]
"""Nested parts, from the outermost to the innermost."""


def check_overlay(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> Iterator[Finding]:
    """Find overlay entries that have no effect on the capability document `base`; places are those in the overlay."""
    yield from _check_entries([_Scope("", unify(base), overlay)], ROOT, ())


def _check_entries(scopes: _Scopes, shape: Shape, place: Place) -> Iterator[Finding]:
    base, overlay = scopes[-1].base, scopes[-1].overlay
    for key, value in overlay.items():
        inner = (*place, key)
        old = base.get(key)
        if key == "operations" and len(place) == 3 and place[1] == "consumes":
            yield from _check_operations(scopes, value, shape, inner)
        elif value is None:
            yield from _check_deletion(scopes, key, inner)
        elif key in shape and isinstance(value, Mapping):
            yield from _check_items(scopes, old if isinstance(old, list) else [], value, shape[key], inner)
        elif isinstance(value, Mapping) and (isinstance(old, Mapping) or key not in _OPAQUE):
            scope = _Scope("", old if isinstance(old, Mapping) else {}, value)
            yield from _check_entries([*scopes, scope], SURFACE if inner == ("capability",) else NO_SHAPE, inner)
        elif key in base and _is_equal(old, value) and not _is_identifying(inner):
            message = f"{_describe(scopes, inner)} is already {_quote(value)} in the capability file"
            yield Finding("redundant-overlay-entry", inner, message)


def _check_deletion(scopes: _Scopes, key: str, place: Place) -> Iterator[Finding]:
    base = scopes[-1].base
    if key not in base:
        code = "unused-overlay-entry" if base else "redundant-overlay-entry"
        yield Finding(code, place, f"{_describe(scopes, place)} is null, but there is nothing to delete", "Remove it.")


def _check_operations(scopes: _Scopes, entries: Any, shape: Shape, place: Place) -> Iterator[Finding]:
    """Check the operations of a provider, which are below resources in the capability file."""
    resources = scopes[-1].base.get("resources")
    resources = resources if isinstance(resources, list) else []
    all_places = operation_places(resources)
    for name, entry in entries.items() if isinstance(entries, Mapping) else ():
        places = all_places.get(name)
        resource = resources[places[0][0]] if places else {"operations": _operations_of(resources)}
        scope = _Scope("", resource, {})
        yield from _check_items(
            [*scopes, scope], resource["operations"], {name: entry}, shape.get("operations", ("name", NO_SHAPE)), place
        )


def _operations_of(resources: Sequence[Any]) -> list[Any]:
    operations = [part.get("operations") for part in resources if isinstance(part, Mapping)]
    return [item for items in operations if isinstance(items, list) for item in items]


def _check_items(
    scopes: _Scopes, items: Sequence[Any], entries: Mapping[str, Any], item: tuple[str, Shape], place: Place
) -> Iterator[Finding]:
    """Check entries by name; each changes the item of its name, or is a new one."""
    key, shape = item
    for name, entry in entries.items():
        inner = (*place, name)
        index = find_item(items, key, name, entry)
        if entry is None:
            if index is None:
                message = f"{_describe(scopes, inner)} is null, but there is nothing to delete"
                yield Finding("unused-overlay-entry", inner, message, "Remove it.")
        elif index is not None:
            yield from _check_entries([*scopes, _Scope(name, items[index], entry)], shape, inner)
        elif _is_complete(scopes, inner, entry):
            yield from _check_entries([*scopes, _Scope(name, {}, entry)], shape, inner)
        else:
            known = [str(other.get(key)) for other in items if isinstance(other, Mapping)]
            message = f"`{place[-1]}` of the capability file has no {name}, and the entry is not a complete new item"
            yield Finding("unused-overlay-entry", inner, message, suggest_name(name, known))


def _is_complete(scopes: _Scopes, place: Place, entry: Mapping[str, Any]) -> bool:
    """Return whether an entry that the capability file does not have is a complete new item."""
    if place[-2] == "inputParameters" and "consumes" in place:
        return not {"in", "value", "env"}.isdisjoint(entry) or place[-1] in _known_inputs(scopes)
    return any(set(entry) >= set(keys) for keys in _REQUIRED_OF_NEW_ITEMS.get(str(place[-2]), ((),)))


def _known_inputs(scopes: _Scopes) -> set[str]:
    """Return the names of parameters that are declared around or inside a part, and of placeholders in its paths."""
    around = {name for scope in scopes for part in (scope.base, scope.overlay) for name in _inputs_of(part)}
    inside = (scopes[-1].base, scopes[-1].overlay)
    return around | {name for part in inside for name in _inputs_inside(part)}


def _inputs_of(part: Mapping[str, Any]) -> Iterator[str]:
    for name, item in _named_items(part.get("inputParameters")):
        if "in" in item:  # an overlay entry without a location declares nothing
            yield name
    if isinstance(part.get("path"), str):
        yield from placeholders_of(part["path"])


def _inputs_inside(part: Mapping[str, Any]) -> Iterator[str]:
    yield from _inputs_of(part)
    for key in ("resources", "operations"):
        for _, item in _named_items(part.get(key)):
            yield from _inputs_inside(item)


def _named_items(items: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the items of a list of the capability file, or of a mapping of the overlay, with their names."""
    if isinstance(items, Mapping):
        yield from ((name, item) for name, item in items.items() if isinstance(item, Mapping))
    elif isinstance(items, list):
        yield from ((str(item.get("name")), item) for item in items if isinstance(item, Mapping))


def _is_identifying(place: Place) -> bool:
    is_adapter_type = place[-1] == "type" and place[:1] == ("capability",) and len(place) == 4
    return place[-1] in _IDENTIFYING or is_adapter_type


def _is_equal(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)  # unlike ==, distinguishes 1 from true and from 1.0


def _describe(scopes: _Scopes, place: Place) -> str:
    """Return a short name for a place, such as `hints.destructive of list-things`."""
    names = [scope.name for scope in scopes if scope.name]
    if not names:
        return ".".join(map(str, place))
    last = max(index for index, step in enumerate(place) if step == names[-1])
    return f"{'.'.join(map(str, place[last + 1 :]))} of {names[-1]}" if place[last + 1 :] else str(place[-1])


def _quote(value: Any) -> str:
    text = "true" if value is True else "false" if value is False else str(value)
    return one_line(text, MAX_QUOTED_VALUE)
