"""Tools, results and errors in the JSON form that MCP sends.

The SDK validates what it sends, and would do so twice for its own types. It removes `resultType`, which clients of
2026-07-28 need, for older clients.
"""

import base64
from typing import Any

from mcp_taskruns.core.calls.property_names import listed_schema
from mcp_taskruns.core.calls.redaction import Redactor
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.truncation import quote_name
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import CallError

MAX_BINARY_BYTES = 5_000_000
"""The size above which binary content is omitted: it would not fit the context of a model, and crashes some clients."""


def tool_to_wire(tool: Tool) -> dict[str, Any]:
    """Return a tool as `tools/list` contains it."""
    hints = tool.hints
    return {
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": listed_schema(tool.input_schema, tool.safe_names),
        **({} if tool.output_schema is None else {"outputSchema": tool.output_schema}),
        "annotations": {
            "readOnlyHint": hints.read_only,
            "destructiveHint": hints.destructive,
            "idempotentHint": hints.idempotent,
            "openWorldHint": hints.open_world,
        },
    }


def result_to_wire(tool_name: str, result: CallResult) -> dict[str, Any]:
    """Return a tool result: the response in the first block, then one block for each note."""
    first = _text(result.text) if result.data is None else _binary(tool_name, result.data, result.media_type)
    wire = {"resultType": "complete", "content": [first, *map(_text, result.notes)], "isError": False}
    return wire if result.structured is None else {**wire, "structuredContent": result.structured}


def error_to_wire(error: CallError, redactor: Redactor) -> dict[str, Any]:
    """Return a tool error: a line for people, then the error as JSON. Some clients show nothing but text."""
    text = redactor.redact_text(f"{error.to_line()}\n{dump(error.to_json())}")
    return {"resultType": "complete", "content": [_text(text)], "isError": True}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _binary(tool_name: str, data: bytes, media_type: str) -> dict[str, Any]:
    if len(data) > MAX_BINARY_BYTES:
        kind = quote_name(media_type)
        return _text(f"The content is too large: {len(data):,} bytes of {kind}; the limit is {MAX_BINARY_BYTES:,}.")
    encoded = base64.b64encode(data).decode()
    kind = media_type.partition("/")[0]
    if kind in {"image", "audio"}:
        return {"type": kind, "data": encoded, "mimeType": media_type}
    resource = {"uri": f"taskruns:///{tool_name}", "mimeType": media_type, "blob": encoded}
    return {"type": "resource", "resource": resource}
