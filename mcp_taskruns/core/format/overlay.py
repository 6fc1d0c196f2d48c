"""Merging an overlay into a capability document.

Mappings are merged, other values replace, `null` deletes. Items of lists of the capability file are merged by the name
under which the overlay has them; items that the file does not have are added.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mcp_taskruns.core.format.dialects import unify
from mcp_taskruns.core.format.overlay_spec import validate_overlay
from mcp_taskruns.errors import CapabilityError

Shape = Mapping[str, tuple[str, Any]]
"""The keys whose values are lists in capability files and mappings in overlays: the key of the name, and the shape of
an item."""

_PARAMETERS: Shape = {"inputParameters": ("name", {})}
ROOT: Shape = {"binds": ("namespace", {})}
SURFACE: Shape = {
    "consumes": ("namespace", {**_PARAMETERS, "operations": ("name", _PARAMETERS)}),
    "exposes": (
        "namespace",
        {"tools": ("name", _PARAMETERS), "resources": ("name", {"operations": ("name", {})})},
    ),
}
NO_SHAPE: Shape = {}


def apply_overlay(document: Any, overlay: Any, source: str) -> Any:
    """Return the capability document with an overlay merged in; neither argument is changed.

    Raises CapabilityError, with the overlay's file name `source`, for an invalid overlay.
    """
    validate_overlay(overlay, source)
    if not isinstance(document, Mapping):
        return document  # `parse_capability` reports it
    document = unify(document)
    changes = {key: value for key, value in overlay.items() if key != "overlay"}
    surface = changes.pop("capability", None) or {}
    merged = _merge(document, changes, ROOT)
    base = merged.get("capability", {})
    if surface and isinstance(base, Mapping):
        merged["capability"] = _Surface(source).merge(base, surface)
    return merged


class _Surface:
    """Merges the `capability` of an overlay, whose operations are not below resources."""

    def __init__(self, source: str) -> None:
        self._source = source

    def merge(self, base: Mapping[str, Any], surface: Mapping[str, Any]) -> dict[str, Any]:
        operations = {
            namespace: consumed["operations"]
            for namespace, consumed in (surface.get("consumes") or {}).items()
            if consumed and consumed.get("operations")
        }
        merged = _merge(base, _without_operations(surface), SURFACE)
        for namespace, changes in operations.items():
            index = find_item(merged["consumes"], "namespace", namespace, {})
            assert index is not None, "merged before"
            merged["consumes"][index] = self._merge_operations(merged["consumes"][index], namespace, changes)
        return merged

    def _merge_operations(
        self, consumed: Mapping[str, Any], namespace: str, changes: Mapping[str, Any]
    ) -> dict[str, Any]:
        resources = [dict(item) if isinstance(item, Mapping) else item for item in consumed.get("resources") or ()]
        all_places = operation_places(resources)
        for name, change in sorted(changes.items(), key=lambda item: item[1] is None):  # deletions change the indexes
            places = all_places.get(name, [])
            if len(places) > 1:
                place = f"capability.consumes.{namespace}.operations.{name}"
                reason = f"the capability file has {len(places)} operations with the name `{name}`: make names unique"
                steps = ("capability", "consumes", namespace, "operations", name)
                raise CapabilityError(self._source, place, reason, steps=steps)
            if places:
                resource = resources[places[0][0]]
                resource["operations"] = _merge_items(resource["operations"], {name: change}, "name", _PARAMETERS)
            elif change is not None:
                resources.append({"name": name, "operations": _merge_items([], {name: change}, "name", _PARAMETERS)})
        return {**consumed, "resources": resources}


def _without_operations(surface: Mapping[str, Any]) -> dict[str, Any]:
    consumes = {
        namespace: consumed and {key: value for key, value in consumed.items() if key != "operations"}
        for namespace, consumed in (surface.get("consumes") or {}).items()
    }
    return {**surface, **({"consumes": consumes} if consumes else {})}


def operation_places(resources: Sequence[Any]) -> dict[str, list[tuple[int, int]]]:
    """Return the indexes of the resource and the operation of all operations, by their names."""
    places: dict[str, list[tuple[int, int]]] = {}
    for outer, resource in enumerate(resources):
        operations = resource.get("operations") if isinstance(resource, dict) else None
        for inner, operation in enumerate(operations if isinstance(operations, list) else ()):
            if isinstance(operation, dict) and isinstance(operation.get("name"), str):
                places.setdefault(operation["name"], []).append((outer, inner))
    return places


def find_item(items: Sequence[Any], key: str, name: str, change: Any) -> int | None:
    """Return the index of the item that an overlay entry `name: change` is about: the first one of that name.

    Parameters with the same name are distinguished by `in`, if the entry has it.
    """
    location = change.get("in") if isinstance(change, Mapping) else None
    for index, item in enumerate(items):
        if isinstance(item, Mapping) and item.get(key) == name and location in (None, item.get("in", location)):
            return index
    return None


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any], shape: Shape = NO_SHAPE) -> dict[str, Any]:
    merged = dict(base)
    for key, change in changes.items():
        if change is None:
            merged.pop(key, None)
        elif key in shape:
            items = base.get(key)
            merged[key] = _merge_items(items if isinstance(items, list) else [], change, *shape[key])
        elif isinstance(change, Mapping):
            inner = base.get(key)
            merged[key] = _merge(inner if isinstance(inner, Mapping) else {}, change)
        else:
            merged[key] = change
    return merged


def _merge_items(items: Sequence[Any], changes: Mapping[str, Any], key: str, shape: Shape) -> list[Any]:
    merged = list(items)
    for name, change in changes.items():
        index = find_item(merged, key, name, change)
        if change is None:
            merged = [item for number, item in enumerate(merged) if number != index]
        elif index is None:
            merged.append({key: name, **_merge({}, change, shape)})
        else:
            merged[index] = _merge(merged[index], change, shape)
    return merged


def overlay_place(document: Any, place: Sequence[int | str]) -> tuple[int | str, ...]:
    """Return the place in an overlay that changes a place of the merged document: names instead of indexes."""
    steps: list[int | str] = []
    for step in place:
        siblings, document = document, _entry(document, step)
        if isinstance(siblings, list) and isinstance(document, Mapping):
            name = document.get("name", document.get("namespace"))
            steps.append(name if isinstance(name, str) else step)
        else:
            steps.append(step)
    if steps[:2] == ["capability", "consumes"] and steps[3:4] == ["resources"]:
        del steps[3:5]  # operations are directly below their namespace
    return tuple(steps)


def _entry(document: Any, step: int | str) -> Any:
    if isinstance(step, int):
        return document[step] if isinstance(document, list) and step < len(document) else None
    return document.get(step) if isinstance(document, Mapping) else None
