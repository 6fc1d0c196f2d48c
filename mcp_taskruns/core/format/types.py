"""Field types that accept the several spellings of a value that capability files use."""

from typing import Annotated, Any

from pydantic import BeforeValidator, PlainValidator


def _to_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) else value


def _to_list(value: Any) -> Any:
    return [value] if isinstance(value, str | int) else value


def _to_types(value: Any) -> Any:
    """Return a list of types as a tuple; a `null` without quotes is the type of that name."""
    return tuple("null" if item is None else item for item in value) if isinstance(value, list) else value


def _to_authentication(value: Any) -> Any:
    """Return authentication as a mapping, or a list of mappings; a text is a type."""
    ways = value if isinstance(value, list) else [{"type": value} if isinstance(value, str) else value]
    if value is not None and not all(isinstance(way, dict) for way in ways):
        raise ValueError("must be a mapping, or a list of mappings")
    return ways if isinstance(value, list) else ways[0]


def _without_nulls(value: Any) -> Any:
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


Text = Annotated[str, BeforeValidator(_to_text, json_schema_input_type=str | int | float)]
"""A string; YAML numbers such as `1.0` are read as text."""

Names = Annotated[tuple[str, ...], BeforeValidator(_to_list, json_schema_input_type=str | list[str])]
"""A list of strings, or a single one."""

StatusCodes = Annotated[tuple[int, ...], BeforeValidator(_to_list, json_schema_input_type=int | list[int])]
"""A list of HTTP status codes, or a single one."""

Types = Annotated[str | tuple[str, ...], BeforeValidator(_to_types, json_schema_input_type=str | list[str | None])]
"""A JSON Schema type, or a list of types."""

Authentications = Annotated[
    dict[str, Any] | list[dict[str, Any]] | None,
    PlainValidator(_to_authentication, json_schema_input_type=dict[str, Any] | list[dict[str, Any]] | str | None),
]
"""How requests authenticate, or a list of alternatives."""

without_nulls = BeforeValidator(_without_nulls)
"""Drops the entries of a mapping that are null."""
