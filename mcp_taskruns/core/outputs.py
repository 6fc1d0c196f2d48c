"""What a tool returns of an answer: `outputParameters` with their mappings."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mcp_taskruns.core.operation import EACH, Output, Path
from mcp_taskruns.core.paths import parse_path, values_at

if TYPE_CHECKING:
    from mcp_taskruns.core import spec

_MAX_DEPTH = 50
_PATTERN = re.compile(r"=~|\b(?:match|search)\s*\(")


def parse_outputs(declared: "Iterable[spec.OutputParameter]") -> Output | None:
    """The output that the parameters describe; None where they take the answer as it is.

    A parameter without a name is the value itself; those with names are the members of an object. Raises ValueError.
    """
    parts = [part.model_dump(exclude_unset=True) for part in declared]
    unnamed = next((part for part in parts if not part.get("name")), None)
    if unnamed is not None or not parts:
        return _parse(unnamed or {}, ())
    return Output(properties={part["name"]: _parse(part, (part["name"],)) or Output() for part in parts})


def read_outputs(declared: "Iterable[spec.OutputParameter]") -> Output | None:
    """The same; None also for parameters that cannot be read: the answer as it is serves better than none."""
    try:
        return parse_outputs(declared)
    except ValueError:
        return None


def _parse(part: Any, default: Path, depth: int = 0) -> Output | None:
    """One parameter; without a mapping of its own it is what stands at `default`. None: the value as it is."""
    if not isinstance(part, Mapping):
        part = {"type": part}  # `name: string` for `name: {type: string}`
    if depth > _MAX_DEPTH:
        raise ValueError("outputs that are nested too deeply")
    constant = part.get("const", part.get("value"))
    mapping = part.get("mapping")
    if mapping is None and isinstance(constant, str) and constant.startswith("$"):
        mapping, constant = constant, None
    if mapping is None and constant is not None:
        return Output(constant=constant)
    if not isinstance(mapping, str | None):
        raise ValueError(f"a mapping that is no JSONPath: {mapping!r}")
    output = Output(
        default if mapping is None else _path(mapping),
        properties={name: _parse(inner, (name,), depth + 1) or Output() for name, inner in _named(part)},
        items=_parse_items(part.get("items"), depth + 1),
    )
    return None if output == Output() else output


def _path(mapping: str) -> Path | str:
    try:
        return parse_path(mapping)
    except ValueError:
        _compile(mapping)
        return mapping


def _parse_items(items: Any, depth: int) -> Output | None:
    if isinstance(items, list) and not _is_unnamed(items):
        return _parse({"properties": items}, (), depth)
    item = items[0] if isinstance(items, list) else items
    return None if item is None else _parse(item, (), depth)


def _is_unnamed(items: list[Any]) -> bool:
    return len(items) == 1 and not (isinstance(items[0], Mapping) and items[0].get("name"))


def _named(part: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    properties = part.get("properties")
    if isinstance(properties, Mapping):
        yield from ((str(name), inner) for name, inner in properties.items())
    elif isinstance(properties, list):
        yield from ((str(inner.get("name")), inner) for inner in properties if isinstance(inner, Mapping))


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


def _compile(mapping: str) -> Any:
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

    query = _compile(mapping)
    try:
        found = query.findall(value) if isinstance(value, dict | list) else []
    except (jsonpath.JSONPathError, RecursionError, re.error):  # of values that its filters cannot take
        found = []
    is_one = isinstance(query, jsonpath.JSONPath) and query.singular_query()
    return next(iter(found), None) if is_one else found
