"""An overlay refines a capability without touching its file.

An overlay is written in the capability's own keywords. Mappings are merged, lists of mappings are merged item by item
by `name` (`namespace` for binds, consumes and exposes), other values replace, `null` deletes.
"""

from collections.abc import Mapping
from typing import Any

from mcp_taskruns.core.format.dialects import unify
from mcp_taskruns.errors import CapabilityError


def apply_overlay(document: Any, overlay: Any, source: str) -> Any:
    """The capability document with the overlay's entries in it; neither input is changed.

    Raises CapabilityError, naming `source` (the overlay's file), when the overlay is no mapping.
    """
    if not isinstance(overlay, Mapping):
        raise CapabilityError(source, "", f"an overlay is a mapping, this is a {type(overlay).__name__}")
    if not isinstance(document, Mapping):
        return document  # whatever it is, it is no capability, and said to be none
    return _merge(unify(document), unify(overlay, keep_nulls=True))


def _merge(base: Any, refinement: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(refinement, Mapping):
        merged = dict(base)
        for key, value in refinement.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = _merge(base[key], value) if key in base else _merge(_empty(value), value)
        return merged
    if isinstance(base, list) and isinstance(refinement, list):
        return _merge_lists(base, refinement)
    return refinement


def _empty(value: Any) -> Any:
    """What a new value is merged into, so that its own deletions are carried out."""
    return {} if isinstance(value, Mapping) else None


def _merge_lists(base: list[Any], refinement: list[Any]) -> list[Any]:
    if any(_identity(item) is None for item in refinement):
        return refinement
    merged = list(base)
    places = {_identity(item): place for place, item in reversed(list(enumerate(base)))}
    for item in refinement:
        place = places.get(_identity(item))
        if place is None:
            merged.append(item)
        else:
            merged[place] = _merge(merged[place], item)
    return merged


def _identity(item: Any) -> str | None:
    if not isinstance(item, Mapping):
        return None
    identity = item.get("name", item.get("namespace"))
    return identity if isinstance(identity, str) else None
