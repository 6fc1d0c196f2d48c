"""Bring a result into the shape that a tool promises: within its limit, redacted, and structured."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mcp_taskruns.core.calls.response import CallResult, truncate_result
from mcp_taskruns.core.calls.truncation import truncate
from mcp_taskruns.core.model.json import parse
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.engine.client import Client

_TYPES: Mapping[str, type] = {"string": str, "boolean": bool}

MAX_STRUCTURED_CHARS = 20_000
"""A larger object is truncated: it is sent in addition to the text."""

_PAGING_ARGUMENTS = frozenset({"limit", "offset", "cursor", "page", "after"})


def finish_result(client: Client, tool: Tool, result: CallResult) -> CallResult:
    """Truncate and redact a result, and add structured content where the tool has an output schema."""
    fitted = truncate_result(result, client.settings.max_result_chars, _paging_advice(tool))
    redacted = client.redact_result(fitted)
    if tool.output_schema is None:
        return redacted
    if redacted.text != fitted.text and redacted.media_type == "application/json":
        redacted = replace(redacted, value=parse(redacted.text))
    return replace(redacted, structured=_structured_content(tool, tool.output_schema, redacted))


def _paging_advice(tool: Tool) -> str:
    names = [name for name in tool.input_schema["properties"] if name.lower() in _PAGING_ARGUMENTS]
    return f"For the rest call again with other values of {', '.join(names)}." if names else ""


def _structured_content(tool: Tool, schema: Mapping[str, Any], result: CallResult) -> dict[str, Any]:
    """Return the result as an object that matches the output schema: strict clients refuse anything else.

    A response of another shape, because a provider changed it, becomes `{"text": ...}`.
    """
    value: Any = result.value if result.media_type == "application/json" else None
    if not (tool.is_wait_tool or matches_schema(schema, value)):
        return {"text": result.text}
    if tool.is_wait_tool or len(result.text) <= MAX_STRUCTURED_CHARS:
        content: dict[str, Any] = value
        return content
    kept, missing = truncate(value, MAX_STRUCTURED_CHARS, len(result.text))
    return {**kept, "truncated": f"{'; '.join(missing)}. The text of the result has more."}


def matches_schema(schema: Mapping[str, Any], value: Any) -> bool:
    """Return whether a value has the types that an output schema declares.

    The output schemas of tools that call a provider contain only types and properties.
    """
    if "properties" not in schema:
        return isinstance(value, _TYPES[schema["type"]])
    return isinstance(value, dict) and all(
        matches_schema(part, value[name]) for name, part in schema["properties"].items() if name in value
    )
