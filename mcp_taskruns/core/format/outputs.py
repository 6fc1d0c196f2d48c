"""Parsing of `outputParameters`: the parts of a response to return."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mcp_taskruns.core.calls.outputs import compile_query
from mcp_taskruns.core.format import spec
from mcp_taskruns.core.model.json_path import Path, parse_path
from mcp_taskruns.core.model.operation import Output

_MAX_DEPTH = 50


def parse_outputs(declared: Iterable[spec.OutputParameter]) -> Output | None:
    """Return the output that parameters describe, or None if it is the whole response.

    A parameter without a name is the value itself, those with names are the members of an object. Raises ValueError.
    """
    parts = [part.model_dump(exclude_unset=True) for part in declared]
    unnamed = next((part for part in parts if not part.get("name")), None)
    if unnamed is not None or not parts:
        return _parse(unnamed or {}, ())
    return Output(properties={part["name"]: _parse(part, (part["name"],)) or Output() for part in parts})


def parse_outputs_or_none(declared: Iterable[spec.OutputParameter]) -> Output | None:
    """Return the same, or None for parameters that cannot be parsed: the whole response is better than no tool."""
    try:
        return parse_outputs(declared)
    except ValueError:
        return None


def _parse(part: Any, default: Path, depth: int = 0) -> Output | None:
    """Return one parameter, or None if it is the value as it is; without a mapping it is the value at `default`."""
    if not isinstance(part, Mapping):
        part = {"type": part}  # `name: string` is short for `name: {type: string}`
    if depth > _MAX_DEPTH:
        raise ValueError("outputs that are nested too deeply")
    constant = part.get("const", part.get("value"))
    mapping = part.get("mapping")
    if mapping is None and isinstance(constant, str) and constant.startswith("$"):
        mapping, constant = constant, None
    if mapping is None and constant is not None:
        return Output(constant=constant)
    if not isinstance(mapping, str | None):
        raise ValueError(f"a mapping that is not valid JSONPath: {mapping!r}")
    output = Output(
        default if mapping is None else _parse_mapping(mapping),
        properties={name: _parse(inner, (name,), depth + 1) or Output() for name, inner in _named_parts(part)},
        items=_parse_items(part.get("items"), depth + 1),
    )
    return None if output == Output() else output


def _parse_mapping(mapping: str) -> Path | str:
    try:
        return parse_path(_with_root(mapping))
    except ValueError:
        compile_query(mapping)
        return mapping


def _with_root(mapping: str) -> str:
    """Return a JSONPath with the leading `$` that capability files may omit."""
    if mapping.startswith("$"):
        return mapping
    return f"${mapping}" if mapping.startswith("[") or not mapping else f"$.{mapping}"


def _parse_items(items: Any, depth: int) -> Output | None:
    if isinstance(items, list) and not _is_single_item(items):
        return _parse({"properties": items}, (), depth)
    item = items[0] if isinstance(items, list) else items
    return None if item is None else _parse(item, (), depth)


def _is_single_item(items: list[Any]) -> bool:
    return len(items) == 1 and not (isinstance(items[0], Mapping) and items[0].get("name"))


def _named_parts(part: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    properties = part.get("properties")
    if isinstance(properties, Mapping):
        yield from ((str(name), inner) for name, inner in properties.items())
    elif isinstance(properties, list):
        yield from ((str(inner.get("name")), inner) for inner in properties if isinstance(inner, Mapping))
