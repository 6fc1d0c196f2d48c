"""The dialects of capability files to the one that `spec` reads.

Where a list has items with a name, newer files have a mapping keyed by it; some words have a second spelling.
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


def unify(document: Mapping[str, Any], *, keep_nulls: bool = False) -> dict[str, Any]:
    """The document with lists for mappings and one spelling of each word; what has a wrong shape is left as it is.

    A key without a value is as good as none, but for an overlay, which deletes with it.
    """
    unified = _unify(document, _ROOT, keep_nulls)
    for key, shape in (("capability", _SURFACE), ("info", {})):
        if isinstance(unified.get(key), Mapping):
            unified[key] = _unify(unified[key], shape, keep_nulls)
    return unified


def _unify(part: Mapping[str, Any], shape: _Shape, keep_nulls: bool) -> dict[str, Any]:
    unified: dict[str, Any] = {}
    for key, value in part.items():
        if value is None and not keep_nulls:
            continue
        word = SYNONYMS.get(key, key)
        if part.get(word) is not None or (keep_nulls and word in part):
            word = key  # both are there: one of them is a word that nobody knows
        named = shape.get(word)
        if named is not None:
            value = _listed(value, *named, keep_nulls)  # noqa: PLW2901  # the same value, in its other form
        unified.setdefault(word, value)
    return unified


def _listed(value: Any, identity: str, shape: _Shape, keep_nulls: bool) -> Any:
    if isinstance(value, Mapping):
        value = [_named(key, item, identity) for key, item in value.items()]
    if not isinstance(value, list):
        return value
    return [_unify(item, shape, keep_nulls) if isinstance(item, Mapping) else item for item in value]


def _named(key: Any, item: Any, identity: str) -> Any:
    if not (item is None or isinstance(item, Mapping)):
        return item
    named = {identity: key, **(item or {})}
    if isinstance(key, str) and key.startswith("/"):
        named.setdefault("path", key)
    return named
