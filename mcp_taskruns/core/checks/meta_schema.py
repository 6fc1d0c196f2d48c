"""The meta-schema of JSON Schema 2020-12, compiled to a function that is fast enough for hundreds of tools."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import fastjsonschema
from jsonschema import Draft202012Validator
from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]  # has no type information

_BASE = "https://json-schema.org/draft/2020-12/"


def is_surely_valid(schema: Mapping[str, Any]) -> bool:
    """Return whether the compiled meta-schema accepts a schema; jsonschema decides about those that it refuses."""
    try:
        _compiled()(schema)
    except (fastjsonschema.JsonSchemaValueException, RecursionError):
        return False
    return True


@cache
def _compiled() -> Callable[[Any], Any]:
    compiled: Callable[[Any], Any] = fastjsonschema.compile(
        _single_schema(),
        use_default=False,
        detailed_exceptions=False,
        formats={"regex": _is_pattern, "uri": _is_text, "uri-reference": _is_text},
    )
    return compiled


def _single_schema() -> dict[str, Any]:
    """Return the meta-schema as one schema without vocabularies, of which fastjsonschema knows nothing."""
    root: Mapping[str, Any] = Draft202012Validator.META_SCHEMA
    parts = [root, *(REGISTRY.contents(_BASE + part["$ref"]) for part in root["allOf"])]
    merged: dict[str, Any] = {"$schema": "http://json-schema.org/draft-07/schema#", "type": root["type"]}
    for keyword in ("properties", "$defs"):
        merged[keyword] = {
            name: _without_vocabulary(part) for one in parts for name, part in one.get(keyword, {}).items()
        }
    return merged


def _without_vocabulary(part: Any) -> Any:
    if isinstance(part, list):
        return [_without_vocabulary(item) for item in part]
    if not isinstance(part, Mapping):
        return part
    if "$dynamicRef" in part:
        return {"$ref": "#"}
    if "$ref" in part:
        # Draft 7 ignores keywords beside a reference.
        beside = {name: item for name, item in part.items() if name != "$ref"}
        return {"allOf": [{"$ref": "#" + part["$ref"].partition("#")[2]}, beside]}
    return {name: _without_vocabulary(item) for name, item in part.items() if name != "default"}


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def _is_text(_: str) -> bool:
    return True
