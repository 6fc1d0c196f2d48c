"""The tools as MCP lists and calls them."""

import base64
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from mcp import MCPError, types
from mcp.server.caching import CacheHint
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions

from mcp_taskruns import __version__
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.core.runs.events import Progress
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.errors import CallError, UnknownTool
from mcp_taskruns.loading.catalog import Catalog
from mcp_taskruns.servers.mcp.tasks import Context, Tasks

MAX_BINARY_BYTES = 5_000_000
"""Larger content would not fit a model's context, and breaks some hosts."""

# Without a watch the tool list changes with a restart only.
_LIST_CACHE = CacheHint(ttl_ms=300_000, scope="public")
_CHANGING_LIST_CACHE = CacheHint(ttl_ms=5_000, scope="public")

logger = logging.getLogger(__name__)


class _ChangingServer(Server[None]):
    """A server that tells clients of the 2025 protocols that it will say when its tools change."""

    def create_initialization_options(self, *_: Any, **others: Any) -> InitializationOptions:
        return super().create_initialization_options(NotificationOptions(tools_changed=True), **others)


def build_server(gateway: Gateway, *, is_watched: bool = False) -> Server[None]:
    """An MCP server whose tools are the gateway's; `is_watched`: they change, and clients want to know."""
    tasks = Tasks(gateway, render_result)
    listed = _list_tools(gateway)

    @asynccontextmanager
    async def lifespan(_: Server[None]) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await gateway.aclose()

    async def list_tools(_: Context, __: types.PaginatedRequestParams) -> dict[str, Any]:
        nonlocal listed
        if listed[0] is not gateway.catalog:
            listed = _list_tools(gateway)
        return listed[1]

    async def call_tool(context: Context, params: types.CallToolRequestParams) -> dict[str, Any]:
        async def report(progress: Progress) -> None:
            await context.session.report_progress(progress.progress, progress.total, progress.message)

        arguments = params.arguments or {}
        try:
            task = await tasks.start(context, params.name, arguments)
            return task or render_result(params.name, await gateway.call(params.name, arguments, report))
        except UnknownTool as exc:
            # The specification wants a protocol error here, not a tool error: the model did not choose this name.
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}") from exc
        except CallError as exc:
            return render_error(exc, gateway)
        except Exception:
            # What escapes here reaches 2025 clients with its text.
            logger.exception("call failed tool=%s", params.name)
            return render_error(CallError("the server failed; its log says why", hint="Report this."), gateway)

    cache = _CHANGING_LIST_CACHE if is_watched else _LIST_CACHE
    server: Server[None] = (_ChangingServer if is_watched else Server)(
        "mcp-taskruns",
        version=__version__,
        title="Task runs",
        instructions=_instructions(list(gateway.tools.values())),
        lifespan=lifespan,
        # Without it every HTTP call with arguments lists all tools again.
        get_tool_input_schema=lambda name: tool.input_schema if (tool := gateway.tools.get(name)) else None,
        cache_hints={"tools/list": cache, "server/discover": cache},
    )
    # As dicts in wire form: the SDK validates what it sends, and would do so twice for its own types. It drops the
    # result type, which 2026 clients need, for older ones.
    server.add_request_handler("tools/list", types.PaginatedRequestParams, list_tools)
    server.add_request_handler("tools/call", types.CallToolRequestParams, call_tool)
    tasks.register(server)
    if is_watched:
        from mcp_taskruns.servers.mcp.notifications import announce_changes  # who does not watch has no use for it

        announce_changes(server, gateway)
    return server


def _list_tools(gateway: Gateway) -> tuple[Catalog, dict[str, Any]]:
    """The catalog, and its tools as they are listed."""
    catalog = gateway.catalog
    return catalog, {"resultType": "complete", "tools": [list_tool(tool) for tool in catalog.tools.values()]}


def list_tool(tool: Tool) -> dict[str, Any]:
    """A tool as `tools/list` shows it."""
    hints = tool.hints
    return {
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": tool.input_schema,
        **({} if tool.output_schema is None else {"outputSchema": tool.output_schema}),
        "annotations": {
            "readOnlyHint": hints.read_only,
            "destructiveHint": hints.destructive,
            "idempotentHint": hints.idempotent,
            "openWorldHint": hints.open_world,
        },
    }


def render_result(name: str, outcome: CallResult) -> dict[str, Any]:
    """The result of a call: the answer in the first block, then each thing that there is to say beside it."""
    blocks = [_text(outcome.text) if outcome.data is None else _binary(name, outcome.data, outcome.media_type)]
    blocks += map(_text, outcome.notes)
    result = {"resultType": "complete", "content": blocks, "isError": False}
    return result if outcome.structured is None else {**result, "structuredContent": outcome.structured}


def render_error(error: CallError, gateway: Gateway) -> dict[str, Any]:
    """A tool error: a line for people, then the same as JSON. Text only: some hosts drop anything else."""
    text = gateway.redactor.redact_text(f"{error.to_line()}\n{dump(error.to_json())}")
    return {"resultType": "complete", "content": [_text(text)], "isError": True}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _binary(name: str, data: bytes, media_type: str) -> dict[str, Any]:
    if len(data) > MAX_BINARY_BYTES:
        return _text(f"The content is {len(data):,} bytes of {media_type}, more than can be passed on here.")
    encoded = base64.b64encode(data).decode()
    kind = media_type.partition("/")[0]
    if kind in {"image", "audio"}:
        return {"type": kind, "data": encoded, "mimeType": media_type}
    resource = {"uri": f"taskruns:///{name}", "mimeType": media_type, "blob": encoded}
    return {"type": "resource", "resource": resource}


def _instructions(tools: Sequence[Tool]) -> str:
    providers = ", ".join(dict.fromkeys(tool.prefix for tool in tools))
    prefixed = all(tool.name.startswith(f"{tool.prefix}-") for tool in tools)
    named = "; each tool's name begins with its provider" if prefixed else ""
    return (
        f"Tools to start, watch, wait for and cancel long-running task runs ({providers}){named}. "
        "Starting a run returns at once with its id, or with its result when wait_seconds is passed. To wait for a run "
        "call wait-for-run, which reports progress and returns within a minute, and again while it says timed_out; do "
        "not poll. A run goes on when a call ends. Cancelling tools act at once."
    )
