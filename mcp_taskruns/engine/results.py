"""Bring a result into the shape that a tool promises: within its limit, redacted, and structured."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mcp_taskruns.core.calls.parts import advise_to_read_on, find_part, parse_result_path
from mcp_taskruns.core.calls.response import Advise, CallResult, truncate_result
from mcp_taskruns.core.calls.truncation import Gap, describe_gaps, truncate
from mcp_taskruns.core.model.json import dump, parse
from mcp_taskruns.core.model.tool import RESULT_PATH, Tool
from mcp_taskruns.core.runs.reading_on import advise_to_read_run
from mcp_taskruns.engine.client import Client
from mcp_taskruns.errors import InvalidArguments

_TYPES: Mapping[str, type] = {"string": str, "boolean": bool}

MAX_STRUCTURED_CHARS = 20_000
"""A larger object is truncated: it is sent in addition to the text."""

_PAGING_ARGUMENTS = frozenset({"limit", "offset", "cursor", "page", "after"})


def finish_result(client: Client, tool: Tool, result: CallResult) -> CallResult:
    """Truncate and redact a result, and add structured content where the tool has an output schema."""
    limit = client.settings.max_result_chars
    fitted = truncate_result(result, limit, advice_of(tool, result.value))
    if fitted is result and result.part is not None:
        fitted = result.with_notes(result.part.describe())
    if tool.output_schema is None:
        return client.redact_result(fitted)
    value = result.value if result.media_type == "application/json" else None
    if not (tool.is_wait_tool or matches_schema(tool.output_schema, value)):
        redacted = client.redact_result(fitted)
        return replace(redacted, structured={"text": redacted.text})
    max_chars = limit if tool.is_wait_tool else min(limit, MAX_STRUCTURED_CHARS)
    return client.redact_result(fitted, _structured_content(client, tool, result, max_chars))


def select_part(client: Client, result: CallResult, written: str) -> CallResult:
    """Return the part of a complete result that `result_path` names. Raises InvalidArguments if there is none."""
    if result.data is not None:
        raise InvalidArguments(f"{RESULT_PATH}: the result is a file of type {result.media_type}, which has no parts")
    whole = result.value if result.media_type == "application/json" else result.text
    part = find_part(whole, parse_result_path(written), client.redactor.redact_plain_text)
    if isinstance(part.value, str):
        text = part.value or part.describe() or "The text is empty."  # some model APIs refuse empty text
        return replace(result, text=text, value=None, media_type="text/plain", part=part)
    return replace(result, text=dump(part.value), value=part.value, media_type="application/json", part=part)


def advice_of(tool: Tool, value: Any) -> Advise:
    """Return what gives advice about truncated places of a result of this tool."""
    if RESULT_PATH in tool.server_arguments:
        return advise_to_read_on
    if tool.runs is not None:
        return partial(advise_to_read_run, tool.runs, tool.operation.name, value)
    return partial(_advise_to_page, tool)


def _advise_to_page(tool: Tool, _: Sequence[Gap]) -> str:
    names = [name for name in tool.input_schema["properties"] if name.lower() in _PAGING_ARGUMENTS]
    return f"For the rest call again with other values of {', '.join(names)}." if names else ""


def _structured_content(client: Client, tool: Tool, result: CallResult, limit: int) -> dict[str, Any]:
    """Return an object that matches the output schema, redacted; `truncated` describes what was left out."""
    content: dict[str, Any] = result.value
    size = len(result.text)
    if size > limit:
        content, gaps = truncate(content, limit, size)
        gaps = [result.part.gap(gap) for gap in gaps] if result.part else gaps
        more = "The text of the result has more. " if limit < client.settings.max_result_chars else ""
        advice = f"{more}{advice_of(tool, result.value)(gaps)}".strip()
        content = {**content, "truncated": f"{describe_gaps(gaps)}. {advice}".strip()}
    text = dump(content)
    redacted = client.redactor.redact_plain_text(text)
    return content if redacted == text else parse(redacted)


def matches_schema(schema: Mapping[str, Any], value: Any) -> bool:
    """Return whether a value has the types that an output schema declares.

    The output schemas of tools that call a provider contain only types and properties.
    """
    if "properties" not in schema:
        return isinstance(value, _TYPES[schema["type"]])
    return isinstance(value, dict) and all(
        matches_schema(part, value[name]) for name, part in schema["properties"].items() if name in value
    )
