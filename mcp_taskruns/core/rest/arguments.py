"""Parse the arguments of a REST request."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

_BOOLEANS = {"true": True, "false": False}


def parse_argument(texts: Sequence[str], schema: Mapping[str, Any]) -> Any:
    """Convert the texts of a URL or a header to the type that the argument's schema declares.

    Text that cannot be converted is returned unchanged, so that validation reports it.
    """
    types = _declared_types(schema)
    if "array" in types and (len(texts) > 1 or len(types) == 1):
        items = schema.get("items", next((one["items"] for one in schema.get("anyOf", ()) if "items" in one), {}))
        return [parse_argument([text], items) for text in texts]
    if len(texts) > 1:
        return list(texts)
    text = texts[0]
    if "string" in types:
        return text
    if "boolean" in types and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    return _parse_json(text) if types & {"integer", "number", "object", "array"} else text


def _parse_json(text: str) -> Any:
    """Return the value of JSON text, or the text itself if it is not JSON or null."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text
    return text if value is None else value


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _declared_types(schema: Mapping[str, Any]) -> set[str]:
    declared = schema.get("type", [])
    types = {declared} if isinstance(declared, str) else set(declared)
    for option in schema.get("anyOf", ()):
        types |= _declared_types(option)
    return types
