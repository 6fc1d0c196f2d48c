"""Output mappings: what a tool returns of the provider's response (`outputParameters`)."""

import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from mcp_taskruns.core.model.json_path import EACH, Path, values_at
from mcp_taskruns.core.model.operation import Output

_PATTERN = re.compile(r"=~|\b(?:match|search)\s*\(")
"""JSONPath filters with regular expressions."""


def map_output(output: Output, value: Any) -> Any:
    """Return what the mapping makes of the response's JSON value; None where something is missing."""
    if output.constant is not None:
        return output.constant
    found = _find(value, output.mapping)
    if isinstance(found, list) and output.items is not None:
        return [map_output(output.items, item) for item in found]
    if not output.properties or not isinstance(found, list | Mapping):
        return found
    if isinstance(found, list) and not any(map(_has_index, output.properties.values())):
        # Some capability files declare a list as an object: the properties are those of each item.
        return [map_output(Output(properties=output.properties), item) for item in found]
    return {name: map_output(inner, found) for name, inner in output.properties.items()}


def _has_index(output: Output) -> bool:
    """Return whether the mapping selects an item of a list by its index, for example a column of a row."""
    return isinstance(next(iter(output.mapping), None), int)


def _find(value: Any, mapping: Path | str) -> Any:
    """Return the value at a path, or a list of values if the path can match several."""
    if isinstance(mapping, str):
        return _query(value, mapping)
    found = list(values_at(value, mapping))
    return found if EACH in mapping else next(iter(found), None)


def compile_query(mapping: str) -> Any:
    """Compile a JSONPath with filters or other features that `parse_path` does not support.

    Raises ValueError with a noun phrase, for example "a mapping that is not valid JSONPath".
    """
    jsonpath = _import_jsonpath()
    if _PATTERN.search(mapping):
        # A hostile pattern could run forever.
        raise ValueError(f"a mapping with a regular expression, which is not supported: {mapping!r}")
    try:
        return jsonpath.compile(mapping)
    except (jsonpath.JSONPathError, RecursionError, re.error) as exc:
        raise ValueError(f"a mapping that is not valid JSONPath: {mapping!r}") from exc


def _query(value: Any, mapping: str) -> Any:
    jsonpath = _import_jsonpath()
    query = compile_query(mapping)
    try:
        found = query.findall(value) if isinstance(value, dict | list) else []
    except (jsonpath.JSONPathError, RecursionError, re.error):  # a filter does not apply to the value
        found = []
    is_single = isinstance(query, jsonpath.JSONPath) and query.singular_query()
    return next(iter(found), None) if is_single else found


def _import_jsonpath() -> ModuleType:
    import jsonpath  # costs start-up time; few mappings need it

    return jsonpath
