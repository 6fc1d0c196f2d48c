"""Input and output schemas of tools."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mcp_taskruns.core.format.inputs import Argument
from mcp_taskruns.core.model.json_path import EACH, Path
from mcp_taskruns.core.model.operation import Location
from mcp_taskruns.core.model.run import Lifecycle
from mcp_taskruns.core.model.tool import RESULT_PATH, UNTIL, WAIT_SECONDS, Tool

MAX_RUNS = 50
"""How many runs one call can wait for."""

SECONDS_SCHEMA = {"type": "number", "minimum": 0}

DEFAULT_TEXT = "in seconds; default 45, unless configured otherwise."

TYPES = frozenset({"string", "integer", "number", "boolean", "array", "object"})


def input_schema(arguments: Sequence[Argument], server_arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the input schema; an argument of the provider hides one of the server with the same name."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {**server_arguments, **{argument.name: _property(argument) for argument in arguments}},
        "additionalProperties": False,
    }
    required = [argument.name for argument in arguments if argument.required]
    if required:
        schema["required"] = required
    return schema


def _property(argument: Argument) -> dict[str, Any]:
    declared = argument.declared
    schema = _type_schema(declared.type)
    if "array" in schema.get("type", ()):
        # Outside the body values are sent as text, and some clients refuse an array without a type of items.
        schema["items"] = {} if argument.location is Location.BODY else {"type": "string"}
    if declared.description:
        schema["description"] = declared.description
    return schema | (declared.json_schema or {})


def _type_schema(written: str | tuple[str, ...] | None) -> dict[str, Any]:
    """Return the schema of a type. With a type that JSON Schema does not have, every value is accepted."""
    names = list(dict.fromkeys(written if isinstance(written, tuple) else (written,)))
    if "null" in names:
        names.remove("null")  # the argument is left out instead
    if not names or not TYPES.issuperset(names):
        return {}
    return {"type": names if len(names) > 1 else names[0]}


def wait_input_schema(schema: Mapping[str, Any], run_id: str, *, takes_many: bool) -> dict[str, Any]:
    properties = dict(schema["properties"])
    if takes_many:
        one = dict(properties[run_id])
        description = one.pop("description", "Run id.")
        several = {"type": "array", "items": one, "minItems": 1, "maxItems": MAX_RUNS}
        properties[run_id] = {"anyOf": [one, several], "description": f"{description} Or an array of them."}
        until = "For several runs: wait for all (default) or any."
        properties[UNTIL] = {"type": "string", "enum": ["all", "any"], "description": until}
    properties[WAIT_SECONDS] = {**SECONDS_SCHEMA, "description": f"How long to wait, {DEFAULT_TEXT}"}
    return {**schema, "properties": properties}


def output_schema(lifecycle: Lifecycle, tool: Tool) -> dict[str, Any] | None:
    """Return the schema of a result that is about one run, which declares the places of the run's id and status.

    It forbids nothing and requires nothing: providers change their responses, and strict clients refuse results that do
    not match. A result that would not match has `text` instead, and one that is truncated `truncated`.
    """
    operation = tool.operation.name
    cancels = any(cancel.call.operation == tool.operation and not cancel.when for cancel in lifecycle.cancels)
    place = lifecycle.runs_in.get(operation)
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    if cancels:
        _declare_text(schema, ("run_id",))
        _declare_text(schema, ("status",))
        schema["properties"]["cancelled"] = {"type": "boolean"}
    elif place is not None and EACH not in place:
        _declare_text(schema, (*place, *lifecycle.fields.id))
        for path in lifecycle.fields.status[:1]:
            _declare_text(schema, (*place, *path))
    return schema if schema["properties"] else None


def with_result_path(tool: Tool) -> Tool:
    """Return a tool that only reads with the argument that selects a part of its result.

    Waiting and following are not repeated for a part. An argument of the provider hides one with the same name.
    """
    properties = tool.input_schema["properties"]
    if not tool.hints.read_only or tool.derived or tool.operation.is_stream or RESULT_PATH in properties:
        return tool
    schema = {**tool.input_schema, "properties": {**properties, RESULT_PATH: _RESULT_PATH_SCHEMA}}
    return replace(tool, input_schema=schema, server_arguments=tool.server_arguments | {RESULT_PATH})


_RESULT_PATH_SCHEMA = {
    "type": "string",
    "description": "Return only this part, e.g. data.items[500:] or text[40000:60000].",
}


def _declare_text(schema: dict[str, Any], path: Path) -> None:
    for name in path:
        schema["type"] = "object"
        schema = schema.setdefault("properties", {}).setdefault(name, {})
    schema["type"] = "string"
