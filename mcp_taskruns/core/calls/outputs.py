"""Output mappings: what a tool returns of the provider's response (`outputParameters`)."""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any

from mcp_taskruns.core.model.json_path import EACH, Path, values_at
from mcp_taskruns.core.model.operation import Output

_PATTERN = re.compile(r"=~|\b(?:match|search)\s*\(")
"""JSONPath filters with regular expressions."""


MAX_QUERY = 300
"""Characters of a JSONPath with filters or other features that `parse_path` does not support."""

_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")

_SEVERAL = re.compile(r"\*|\.\.|:|,")
"""A query in a filter that selects several values."""

_UNION = re.compile(r"\[[^\[\]?(]*,")

_INTERSECTION = re.compile(r"(?<!&)&(?!&)")


class CostlyMapping(ValueError):
    """A JSONPath that could visit the values of a response again and again."""


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


@lru_cache(maxsize=500)
def compile_query(mapping: str) -> Any:
    """Compile a JSONPath with filters or other features that `parse_path` does not support.

    Raises ValueError with a noun phrase, for example "a mapping that is not valid JSONPath", and CostlyMapping.
    """
    jsonpath = _import_jsonpath()
    if _PATTERN.search(mapping):
        # A hostile pattern could run forever.
        raise ValueError(f"a mapping with a regular expression, which is not supported: {mapping!r}")
    if _is_costly(mapping):
        raise CostlyMapping(f"a mapping that could take too long for a large response: {mapping[:MAX_QUERY]!r}")
    try:
        return jsonpath.compile(mapping)
    except (jsonpath.JSONPathError, RecursionError, re.error) as exc:
        raise ValueError(f"a mapping that is not valid JSONPath: {mapping!r}") from exc


def _is_costly(mapping: str) -> bool:
    """Return whether a query could visit a value more often than once for each of its steps."""
    text = _QUOTED.sub("''", mapping)
    condition = text.partition("?")[2]
    filtering = condition if "$" in condition else condition.partition("]")[0]
    return (
        len(mapping) > MAX_QUERY
        or text.count("..") > 1
        or _SEVERAL.search(filtering) is not None
        or "?" in condition
        or len(_UNION.findall(text)) > 1
        or _INTERSECTION.search(text) is not None
    )


def _query(value: Any, mapping: str) -> Any:
    jsonpath = _import_jsonpath()
    query = compile_query(mapping)
    try:
        found = list(_matches(query, value)) if isinstance(value, dict | list) else []
    except (jsonpath.JSONPathError, RecursionError, re.error):  # a filter does not apply to the value
        found = []
    is_single = isinstance(query, jsonpath.JSONPath) and query.singular_query()
    return next(iter(found), None) if is_single else found


def _matches(query: Any, value: Any) -> Iterator[Any]:
    """Yield what a query selects. The library's own matches would keep their paths as text, and all inner matches."""
    jsonpath = _import_jsonpath()

    class Match(jsonpath.JSONPathMatch):  # type: ignore[name-defined,misc]  # the library is imported here
        def new_child(self, obj: object, key: int | str) -> "Match":
            return make(obj)

        def add_child(self, *children: object) -> None:
            pass

    def make(obj: object) -> Match:
        return Match(filter_context={}, obj=obj, parent=None, path="", parts=(), root=value)

    paths = [query] if isinstance(query, jsonpath.JSONPath) else [query.path, *(path for _, path in query.paths)]
    for path in paths:
        matches: Any = [make(value)]
        for segment in path.segments:
            matches = segment.resolve(matches)
        yield from (match.obj for match in matches)


def _import_jsonpath() -> ModuleType:
    import jsonpath  # costs start-up time; few mappings need it

    return jsonpath
