"""What an overlay says in vain."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from mcp_taskruns.core.calls.truncation import one_line
from mcp_taskruns.core.checks.codes import Finding, Place, did_you_mean
from mcp_taskruns.core.checks.model import numbered
from mcp_taskruns.core.format.dialects import unify
from mcp_taskruns.core.format.templates import placeholders_of

_NEW_PARTS: Mapping[str, Collection[Collection[str]]] = {
    "operations": ({"method"}, {"call"}),
    "tools": ({"call"},),
    "consumes": ({"resources", "baseUri"}, {"resources", "baseUriEnv"}),
    "resources": ({"path", "operations"},),
    "exposes": ({"type", "tools"}, {"type", "resources"}),
    "binds": ({"keys"},),
}
"""What an item of these lists has that is not a refinement of one but a new one: all of one of these keys."""

_IDENTIFYING = frozenset({"name", "namespace", "in", "naftiko"})
"""Keys that an overlay repeats to say what it is about."""

_OPAQUE = frozenset({"schema", "value", "const", "when", "arguments", "with", "body"})
"""Keys whose values are the provider's, in which null is a value."""


def check_overlay(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> Iterator[Finding]:
    """What an overlay says in vain of a file; both are documents, and places are those of the overlay."""
    yield from _check_refined([(unify(base), unify(overlay, keep_nulls=True))], ())


_Scopes = Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
"""Parts of a file that stand in each other, each with what an overlay says of it."""


def _check_refined(scopes: _Scopes, place: Place) -> Iterator[Finding]:
    base, overlay = scopes[-1]
    for key, value in overlay.items():
        inner = (*place, key)
        if value is None and key not in base:
            code = "overlay-matches-nothing" if base else "overlay-changes-nothing"
            told = f"{_told(scopes, inner)} is null, and there is nothing to delete"
            yield Finding(code, inner, told, "Take it out.")
        elif key not in base and key not in _OPAQUE:
            yield from _check_new(scopes, value, inner)
        elif isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            yield from _check_refined([*scopes, (base[key], value)], inner)
        elif isinstance(value, list) and isinstance(base.get(key), list) and all(map(identity, value)):
            yield from _check_items(scopes, base[key], value, inner)
            if not value:
                told = f"{_told(scopes, inner)} is an empty list, which adds nothing and deletes nothing"
                yield Finding("overlay-changes-nothing", inner, told, "Write null to delete the list.")
        elif _is_same(base.get(key), value) and not _identifies(inner):
            told = f"{_told(scopes, inner)} is {_shown(value)} in the file as well"
            yield Finding("overlay-changes-nothing", inner, told)


def _check_new(scopes: _Scopes, value: Any, place: Place) -> Iterator[Finding]:
    """What is said of what the file does not have."""
    if isinstance(value, Mapping):
        yield from _check_refined([*scopes, ({}, value)], place)
    elif isinstance(value, list) and all(map(identity, value)):
        yield from _check_items(scopes, [], value, place)


def _check_items(scopes: _Scopes, base: list[Any], items: list[Any], place: Place) -> Iterator[Finding]:
    """Items with names, of which each refines the one of its name."""
    known = {identity(item): item for item in reversed(base)}
    for inner, item in numbered(place, items):
        name = identity(item)
        if name in known:
            yield from _check_refined([*scopes, (known[name], item)], inner)
        elif _is_new(scopes, place, item):
            yield from _check_refined([*scopes, ({}, item)], inner)
        else:
            told = f"there is no {name} among the {place[-1]} of the file, and this is no whole new one"
            mend = did_you_mean(str(name), [str(one) for one in known])
            yield Finding("overlay-matches-nothing", inner, told, mend)


def _is_new(scopes: _Scopes, place: Place, item: Mapping[str, Any]) -> bool:
    """Whether an item that the file does not have is a whole one."""
    if place[-1] == "inputParameters" and "consumes" in place:
        return not {"in", "value", "env"}.isdisjoint(item) or item.get("name") in _known_inputs(scopes)
    return any(set(item) >= set(keys) for keys in _NEW_PARTS.get(str(place[-1]), ((),)))


def _known_inputs(scopes: _Scopes) -> set[str]:
    """The names of inputs that are declared around a part or in it, or that are holes of its paths."""
    around = {name for pair in scopes for part in pair for name in _inputs_of(part)}
    return around | {name for part in scopes[-1] for name in _inputs_below(part)}


def _inputs_of(part: Mapping[str, Any]) -> Iterator[str]:
    declared = part.get("inputParameters")
    for item in declared if isinstance(declared, list) else ():
        if isinstance(item, Mapping) and "in" in item:  # without it an overlay's item does not make itself known
            yield str(item.get("name"))
    if isinstance(part.get("path"), str):
        yield from placeholders_of(part["path"])


def _inputs_below(part: Mapping[str, Any]) -> Iterator[str]:
    yield from _inputs_of(part)
    for key in ("resources", "operations"):
        items = part.get(key)
        for item in items if isinstance(items, list) else ():
            if isinstance(item, Mapping):
                yield from _inputs_below(item)


def _identifies(place: Place) -> bool:
    is_kind = place[-1] == "type" and place[:1] == ("capability",) and len(place) == 4
    return place[-1] in _IDENTIFYING or is_kind


def identity(item: Any) -> str | None:
    """What an item of a list is refined by."""
    name = item.get("name", item.get("namespace")) if isinstance(item, Mapping) else None
    return name if isinstance(name, str) else None


def _is_same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)  # which tells 1 from true and from 1.0


def _told(scopes: _Scopes, place: Place) -> str:
    """What stands at a place, as a person says it: `hints.destructive of list-things`."""
    names = [name for _, part in scopes if (name := identity(part))]
    items = [number for number, step in enumerate(place) if isinstance(step, int)]
    steps = ".".join(map(str, place[items[-1] + 1 :] if items else place))
    return f"{steps} of {names[-1]}" if names else steps


def _shown(value: Any) -> str:
    text = "true" if value is True else "false" if value is False else str(value)
    return one_line(text, 60)
