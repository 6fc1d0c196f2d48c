"""MCP over standard input and output, with both protocol eras on one connection.

The SDK fixes the era with the first request, so a client that sends `server/discover` before `initialize` could not
initialize. Here every request is served in the era in which it is written.
"""

import sys
from collections.abc import Mapping
from typing import Any

import anyio
from mcp.server.connection import Connection, NotifyOnlyOutbound
from mcp.server.lowlevel import Server
from mcp.server.runner import ServerRunner, aclose_shielded, modern_error_data, serve_one
from mcp.server.stdio import stdio_server
from mcp.shared.dispatcher import DispatchContext
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import InboundLadderRejection, classify_inbound_request
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.transport_context import TransportContext
from mcp_types import PROTOCOL_VERSION_META_KEY
from mcp_types.version import LATEST_MODERN_VERSION
from pydantic import ValidationError

from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.servers.mcp.pipes import Reader, Writer, open_stdio
from mcp_taskruns.servers.mcp.server import build_server
from mcp_taskruns.signals import call_on_signal

DELIVERY_SECONDS = 0.3
"""The time for the last messages to a client before the server exits because of a signal."""

_Dispatcher = JSONRPCDispatcher[TransportContext]
_Context = DispatchContext[TransportContext]
_Params = Mapping[str, Any] | None


async def run(gateway: Gateway, *, is_watched: bool) -> None:
    """Serve a gateway to one client until it disconnects, or until SIGINT or SIGTERM."""
    server = build_server(gateway, is_watched=is_watched)
    if sys.platform == "win32":  # pragma: no cover - the event loop of Windows cannot wait for standard input
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
    else:
        signalled = anyio.Event()
        async with anyio.create_task_group() as tasks:
            with call_on_signal(lambda _: signalled.set()):
                tasks.start_soon(_stop_on_signal, signalled, gateway, tasks.cancel_scope)
                await serve_stdio(server)
            tasks.cancel_scope.cancel()


async def _stop_on_signal(signalled: anyio.Event, gateway: Gateway, server: anyio.CancelScope) -> None:
    """End the calls in flight when a signal arrives, and the server when their errors have been sent."""
    await signalled.wait()
    if gateway.stop():
        await anyio.sleep(DELIVERY_SECONDS)
    server.cancel()


async def serve_stdio(server: Server[Any]) -> None:
    """Serve one client until its input ends or the output is closed."""
    async with server.lifespan(server) as state, open_stdio() as (reader, writer):
        await _serve(server, state, reader, writer)


async def _serve(server: Server[Any], state: Any, reader: Reader, writer: Writer) -> None:
    dispatcher: _Dispatcher = JSONRPCDispatcher(
        reader,
        writer,
        # Inline, so that the next request of a client that pipelines finds an initialized connection.
        inline_methods=frozenset({"initialize"}),
        on_stream_exception=writer.send_parse_error,
    )
    connection = Connection.for_loop(dispatcher)
    eras = _Eras(server, state, dispatcher, connection)
    try:
        await dispatcher.run(eras.on_request, eras.on_notify)
    finally:
        await aclose_shielded(connection)


class _Eras:
    """Route each message to the 2025 connection, or to a connection of its own if it is of the 2026-07-28 era."""

    def __init__(self, server: Server[Any], state: Any, dispatcher: _Dispatcher, connection: Connection) -> None:
        self._server = server
        self._state = state
        self._outbound = NotifyOnlyOutbound(dispatcher)
        self._connection = connection
        self._runner = ServerRunner(server, connection, state)

    async def on_request(self, context: _Context, method: str, params: _Params) -> dict[str, Any]:
        """Handle a request. Raises MCPError and ValidationError, which the dispatcher turns into error responses."""
        if method == "initialize" or not _is_modern(params):
            return await self._runner.on_request(context, method, params)
        route = classify_inbound_request({"method": method, "params": params})
        if isinstance(route, InboundLadderRejection):
            raise MCPError(code=route.code, message=route.message, data=route.data)
        connection = Connection.from_envelope(
            route.protocol_version, route.client_info, route.client_capabilities, outbound=self._outbound
        )
        try:
            return await serve_one(
                self._server, context, method, params, connection=connection, lifespan_state=self._state
            )
        except (MCPError, ValidationError):
            raise
        except Exception as exc:
            error = modern_error_data(exc)
            raise MCPError(code=error.code, message=error.message, data=error.data) from exc

    async def on_notify(self, context: _Context, method: str, params: _Params) -> None:
        """Handle a notification, which is of the 2025 era once the connection is initialized."""
        if self._connection.initialize_accepted:
            await self._runner.on_notify(context, method, params)
            return
        connection = Connection.from_envelope(LATEST_MODERN_VERSION, None, None, outbound=self._outbound)
        await ServerRunner(self._server, connection, self._state).on_notify(context, method, params)


def _is_modern(params: _Params) -> bool:
    """Whether a request is of the 2026-07-28 era: only there `_meta` has the protocol version."""
    meta = params.get("_meta") if params else None
    return isinstance(meta, Mapping) and PROTOCOL_VERSION_META_KEY in meta
