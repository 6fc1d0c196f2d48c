"""Conversion of the dialects of capability files to the one that `spec` reads.

Where older files have a list of named items, newer ones have a mapping keyed by name. Some keys have two spellings.
"""

from collections.abc import Mapping
from typing import Any

_Shape = Mapping[str, tuple[str, Any]]
"""Keys whose values are lists of named items: the key of the name, and the shape of an item."""

_PARAMETERS: _Shape = {"inputParameters": ("name", {}), "outputParameters": ("name", {})}
_OPERATIONS: _Shape = {"operations": ("name", _PARAMETERS), **_PARAMETERS}
_RESOURCES: _Shape = {"resources": ("name", _OPERATIONS), **_PARAMETERS}
_ROOT: _Shape = {"binds": ("namespace", {})}
_SURFACE: _Shape = {
    "consumes": ("namespace", _RESOURCES),
    "exposes": ("namespace", {"tools": ("name", _PARAMETERS), **_RESOURCES}),
}

SYNONYMS = {"ikanos": "naftiko", "auth": "authentication", "display": "label"}
"""The key that `spec` reads, by its other spelling."""

OTHER_SPELLINGS = {key: spelling for spelling, key in SYNONYMS.items()}


def unify(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with lists instead of mappings keyed by name, and one spelling of each key.

    Keys without a value are dropped. Values of a wrong type are kept, for `spec` to report.
    """
    unified = _unify(document, _ROOT)
    for key, shape in (("capability", _SURFACE), ("info", {})):
        if isinstance(unified.get(key), Mapping):
            unified[key] = _unify(unified[key], shape)
    return unified


def _unify(part: Mapping[str, Any], shape: _Shape) -> dict[str, Any]:
    unified: dict[str, Any] = {}
    for written, value in part.items():
        if value is None:
            continue
        key = SYNONYMS.get(written, written)
        if key != written and part.get(key) is not None:
            key = written  # with both spellings, the synonym is an unknown key
        unified.setdefault(key, _to_list(value, *shape[key]) if key in shape else value)
    return unified


def _to_list(value: Any, identity: str, shape: _Shape) -> Any:
    if isinstance(value, Mapping):
        value = [_with_name(key, item, identity) for key, item in value.items()]
    if not isinstance(value, list):
        return value
    return [_unify(item, shape) if isinstance(item, Mapping) else item for item in value]


def _with_name(key: Any, item: Any, identity: str) -> Any:
    if not (item is None or isinstance(item, Mapping)):
        return item
    named = {identity: key, **(item or {})}
    if isinstance(key, str) and key.startswith("/"):
        named.setdefault("path", key)
    return named
