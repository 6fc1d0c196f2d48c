"""The MCP server: lists the tools of a gateway and calls them."""

import logging
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import Any

from mcp import MCPError, types
from mcp.server.caching import CacheHint
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions

from mcp_taskruns import __version__
from mcp_taskruns.core.calls.truncation import one_line
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.tool import Derived, Tool
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.progress import STEP, Progress
from mcp_taskruns.errors import CallError, UnknownTool
from mcp_taskruns.servers.mcp.callers import caller_of
from mcp_taskruns.servers.mcp.notifications import notify_about_changes
from mcp_taskruns.servers.mcp.tasks import Context, Tasks
from mcp_taskruns.servers.mcp.wire import error_to_wire, result_to_wire, tool_to_wire

# Without --watch the tools change with a restart only.
_LIST_CACHE = CacheHint(ttl_ms=300_000, scope="public")
_WATCHED_LIST_CACHE = CacheHint(ttl_ms=5_000, scope="public")

_HEADER = '"x-mcp-header"'
"""The keyword of a schema for an argument that clients of 2026-07-28 repeat in a header."""

logger = logging.getLogger(__name__)


class _WatchedServer(Server[None]):
    """A server that declares the capability `tools.listChanged` to clients of the 2025 protocols."""

    def create_initialization_options(self, *_: Any, **others: Any) -> InitializationOptions:
        return super().create_initialization_options(NotificationOptions(tools_changed=True), **others)


def build_server(gateway: Gateway, *, is_watched: bool = False) -> Server[None]:
    """Return an MCP server for the tools of a gateway; with `is_watched` clients are notified when they change."""
    handlers = _Handlers(gateway)
    cache = _WATCHED_LIST_CACHE if is_watched else _LIST_CACHE
    server: Server[None] = (_WatchedServer if is_watched else Server)(
        "mcp-taskruns",
        version=__version__,
        title="Task runs",
        instructions=_instructions(list(gateway.tools.values())),
        lifespan=handlers.lifespan,
        get_tool_input_schema=handlers.schema_with_headers,
        cache_hints={"tools/list": cache, "server/discover": cache},
    )
    if "opentelemetry.sdk" not in sys.modules:
        server.middleware.clear()  # it would make traces that nothing records
    server.add_request_handler("tools/list", types.PaginatedRequestParams, handlers.list_tools)
    server.add_request_handler("tools/call", types.CallToolRequestParams, handlers.call_tool)
    handlers.tasks.register(server)
    if is_watched:
        notify_about_changes(server, gateway)
    return server


class _Handlers:
    """The request handlers of one server."""

    def __init__(self, gateway: Gateway) -> None:
        self.tasks = Tasks(gateway)
        self._gateway = gateway
        self._list()

    @asynccontextmanager
    async def lifespan(self, _: Server[None]) -> AsyncIterator[None]:
        """Close the gateway when the server stops."""
        try:
            yield
        finally:
            await self._gateway.aclose()

    async def list_tools(self, _: Context, __: types.PaginatedRequestParams) -> dict[str, Any]:
        """Handle tools/list: all tools in one page, since some clients read only the first."""
        if self._catalog is not self._gateway.catalog:
            self._list()
        return self._listed

    def schema_with_headers(self, name: str) -> Mapping[str, Any] | None:
        """Return the input schema of a tool if clients of 2026-07-28 repeat arguments of it in headers.

        The SDK compares these headers with the arguments, which takes longer than a schema without them deserves.
        """
        if self._catalog is not self._gateway.catalog:
            self._list()
        return self._schemas_with_headers.get(name)

    async def call_tool(self, context: Context, params: types.CallToolRequestParams) -> dict[str, Any]:
        """Handle tools/call."""
        report = _ProgressNotifications(context).send
        arguments = params.arguments or {}
        try:
            caller = caller_of(context)
            task = await self.tasks.start(context, params.name, arguments, caller)
            return task or result_to_wire(params.name, await self._gateway.call(params.name, arguments, report, caller))
        except UnknownTool as exc:
            # The specification requires a protocol error here, not a tool error.
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {one_line(params.name)}") from exc
        except CallError as exc:
            return error_to_wire(exc, self._gateway.redactor)
        except Exception:
            # The SDK would send the text of the exception to clients of the 2025 protocols.
            logger.exception("call failed tool=%s", params.name)
            error = CallError("internal error of the MCP server; details are in its log", hint="Report this error.")
            return error_to_wire(error, self._gateway.redactor)

    def _list(self) -> None:
        """List the tools of the catalog that is served now."""
        self._catalog = self._gateway.catalog
        tools = self._catalog.tools
        self._listed = {"resultType": "complete", "tools": [tool_to_wire(tool) for tool in tools.values()]}
        schemas = {name: tool.input_schema for name, tool in tools.items()}
        self._schemas_with_headers = {name: schema for name, schema in schemas.items() if _HEADER in dump(schema)}


class _ProgressNotifications:
    """Sends the progress of one call. MCP requires that it grows, also from one part of a call to the next."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._last = -inf

    async def send(self, progress: Progress) -> None:
        """Send a progress notification."""
        value = progress.progress
        self._last = value if value > self._last else self._last + STEP
        await self._context.session.report_progress(self._last, progress.total, progress.message)


def _instructions(tools: Sequence[Tool]) -> str:
    providers = ", ".join(dict.fromkeys(tool.prefix for tool in tools))
    is_prefixed = all(tool.name.startswith(f"{tool.prefix}-") for tool in tools)
    prefix = "; tool names begin with the provider" if is_prefixed else ""
    waits = dict.fromkeys(tool.declared_name for tool in tools if tool.derived is Derived.WAIT)
    wait = " or ".join(waits) or "wait-for-run"
    return (
        f"Tools to start, watch, wait for and cancel long-running task runs ({providers}){prefix}. "
        "Starting a run returns its id immediately, or its result if wait_seconds is set. To wait for a run, call "
        f"{wait} instead of polling: it reports progress and returns within a minute; call it again while the "
        "result has timed_out. A run continues when a call ends. Tools that cancel take effect immediately."
    )
