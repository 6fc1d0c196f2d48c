"""Names of arguments that model vendors refuse, and the names under which tools list them instead.

Anthropic refuses all tools of a request if one property, at any level, has a name other than `[a-zA-Z0-9_.-]{1,64}`.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MAX_NAME = 64

_ACCEPTED = re.compile(rf"[a-zA-Z0-9_.-]{{1,{MAX_NAME}}}")
_INVALID = re.compile(r"[^a-zA-Z0-9_]+")

_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords of JSON Schema whose values are mappings of schemas."""

_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
"""Keywords whose values are lists of schemas."""

_SINGLES = ("items", "additionalProperties", "not", "if", "then", "else", "contains")
"""Keywords whose values are schemas."""

_SAME_VALUE = ("allOf", "anyOf", "oneOf", "if", "then", "else")
"""Keywords whose schemas describe the value itself."""


def safe_names(schema: Mapping[str, Any]) -> dict[str, str]:
    """Return the names to list instead of the property names that vendors refuse, at all levels of a schema.

    They are identifiers of at most 64 characters, and distinct from all other names in the schema.
    """
    refused = dict.fromkeys(name for name in _property_names(schema) if not _ACCEPTED.fullmatch(name))
    if not refused:
        return {}
    taken = set(_property_names(schema)) - refused.keys()
    return {name: _safe_name(name, taken) for name in refused}


def _safe_name(name: str, taken: set[str]) -> str:
    """Return an identifier that is not taken, and add it to the taken ones."""
    safe = _INVALID.sub("_", name).strip("_")
    safe = safe if safe[:1].isalpha() else f"_{safe}"
    if len(safe) > MAX_NAME:
        safe = f"{safe[: MAX_NAME - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    unique, number = safe, 1
    while unique in taken:
        number += 1
        unique = f"{safe[: MAX_NAME - 1 - len(str(number))]}_{number}"
    taken.add(unique)
    return unique


def _property_names(schema: Any) -> Iterator[str]:
    """Yield the names of properties in a schema, the outer ones first."""
    if not isinstance(schema, Mapping):
        return
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        yield from properties
    for part in _subschemas(schema):
        yield from _property_names(part)


def _subschemas(schema: Mapping[str, Any]) -> Iterator[Any]:
    for keyword, value in schema.items():
        if keyword in _MAPS and isinstance(value, Mapping):
            yield from value.values()
        elif keyword in _LISTS and isinstance(value, Sequence):
            yield from value
        elif keyword in _SINGLES:
            yield value


def listed_schema(schema: Any, names: Mapping[str, str]) -> Any:
    """Return a schema with the properties under their safe `names`, which their descriptions explain."""
    if not names or not isinstance(schema, Mapping):
        return schema
    listed: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in {"properties", "dependentSchemas"} and isinstance(value, Mapping):
            listed[keyword] = {
                names.get(name, name): _explained(listed_schema(part, names), name if name in names else "")
                for name, part in value.items()
            }
        elif keyword in _MAPS and isinstance(value, Mapping):
            listed[keyword] = {name: listed_schema(part, names) for name, part in value.items()}
        elif keyword in _LISTS and isinstance(value, list):
            listed[keyword] = [listed_schema(part, names) for part in value]
        elif keyword == "required" and isinstance(value, list):
            listed[keyword] = [names.get(name, name) for name in value]
        else:
            listed[keyword] = listed_schema(value, names) if keyword in _SINGLES else value
    return listed


def _explained(schema: Any, name: str) -> Any:
    if not (name and isinstance(schema, Mapping)):
        return schema
    text = f"{schema.get('description', '')} Also accepted as `{name}`, the name at the provider."
    return {**schema, "description": text.strip()}


def to_real_names(arguments: Mapping[str, Any], schema: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return arguments under the names of the schema, of which the caller may have passed the safe `names`."""
    real = {safe: name for name, safe in names.items()}
    return dict(_rename(arguments, [schema], schema, real))


def _rename(value: Any, schemas: Sequence[Any], root: Mapping[str, Any], real: Mapping[str, str]) -> Any:
    parts = list(_parts(schemas, root))
    if not parts:
        return value
    if isinstance(value, list):
        items = [part["items"] for part in parts if "items" in part]
        return [_rename(item, items, root, real) for item in value] if items else value
    if not isinstance(value, Mapping):
        return value
    properties: dict[str, list[Any]] = {}
    for part in parts:
        for name, inner in (part.get("properties") or {}).items():
            properties.setdefault(name, []).append(inner)
    others = [part["additionalProperties"] for part in parts if "additionalProperties" in part]
    renamed: dict[str, Any] = {}
    for given, item in value.items():
        name = real.get(given, given)
        is_safe_name = given not in properties and name in properties and name not in value
        name = name if is_safe_name else given
        renamed[name] = _rename(item, properties.get(name, others), root, real)
    return renamed


def _parts(schemas: Sequence[Any], root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield all schemas that describe a value: the given ones, what they refer to, and their alternatives."""
    remaining, seen = list(schemas), set()
    while remaining:
        schema = remaining.pop()
        if not isinstance(schema, Mapping) or id(schema) in seen:
            continue
        seen.add(id(schema))
        yield schema
        for keyword in _SAME_VALUE:
            inner = schema.get(keyword)
            remaining += inner if isinstance(inner, list) else [inner]
        if isinstance(schema.get("$ref"), str):
            remaining.append(_resolve(schema["$ref"], root))


def _resolve(reference: str, root: Any) -> Any:
    """Return the schema to which a JSON pointer leads (RFC 6901), or None."""
    for step in reference.removeprefix("#").removeprefix("/").split("/"):
        if step:
            root = root.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(root, Mapping) else None
    return root
