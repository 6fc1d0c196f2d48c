"""What a tool returns of an answer: `outputParameters` with their mappings."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mcp_taskruns.core.model.json_path import EACH, Path, values_at
from mcp_taskruns.core.model.operation import Output

if TYPE_CHECKING:
    pass

_PATTERN = re.compile(r"=~|\b(?:match|search)\s*\(")


def map_output(output: Output, value: Any) -> Any:
    """What the output makes of an answer's value; what is missing there is None."""
    if output.constant is not None:
        return output.constant
    found = _find(value, output.mapping)
    if isinstance(found, list) and output.items is not None:
        return [map_output(output.items, item) for item in found]
    if not output.properties or not isinstance(found, list | Mapping):
        return found
    if isinstance(found, list) and not any(map(_is_number, output.properties.values())):
        # Of some lists their files say that they are objects: each item is meant.
        return [map_output(Output(properties=output.properties), item) for item in found]
    return {name: map_output(inner, found) for name, inner in output.properties.items()}


def _is_number(output: Output) -> bool:
    """Whether it is an item by its number, as of a row without names."""
    return isinstance(next(iter(output.mapping), None), int)


def _find(value: Any, mapping: Path | str) -> Any:
    """What stands there: one value, or a list where there may be several."""
    if isinstance(mapping, str):
        return _query(value, mapping)
    found = list(values_at(value, mapping))
    return found if EACH in mapping else next(iter(found), None)


def compile_query(mapping: str) -> Any:
    """A JSONPath that goes beyond names, numbers and all items. Raises ValueError for what is none."""
    import jsonpath  # only such mappings pay for it

    if _PATTERN.search(mapping):
        raise ValueError(f"a mapping with a pattern, which could take without end: {mapping!r}")
    try:
        return jsonpath.compile(mapping)
    except (jsonpath.JSONPathError, RecursionError, re.error) as exc:
        raise ValueError(f"a mapping that is no JSONPath: {mapping!r}") from exc


def _query(value: Any, mapping: str) -> Any:
    import jsonpath

    query = compile_query(mapping)
    try:
        found = query.findall(value) if isinstance(value, dict | list) else []
    except (jsonpath.JSONPathError, RecursionError, re.error):  # of values that its filters cannot take
        found = []
    is_one = isinstance(query, jsonpath.JSONPath) and query.singular_query()
    return next(iter(found), None) if is_one else found
