"""Telling MCP clients that the list of tools has changed, in both eras of the protocol."""

import logging
from typing import Any

import anyio
from mcp import types
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged

from mcp_taskruns.engine.gateway import Gateway

TELL_SECONDS = 5.0
"""How long a client may take to be told: one that has stopped reading keeps nobody."""

logger = logging.getLogger(__name__)


def announce_changes(server: Server[None], gateway: Gateway) -> None:
    """Tell every client of the server when the gateway serves another catalog.

    Clients of the 2025 protocols are told on their connection once they are initialized; those of 2026-07-28 on the
    streams that they opened by `subscriptions/listen`.
    """
    bus = InMemorySubscriptionBus()
    connections: set[Connection] = set()

    async def initialized(context: ServerRequestContext[None, Any], _: types.NotificationParams) -> None:
        connection = context.session._connection  # the SDK has no public way to a client without a request
        connections.add(connection)
        connection.exit_stack.callback(connections.discard, connection)

    async def tell(connection: Connection) -> None:
        with anyio.move_on_after(TELL_SECONDS) as bound:
            await connection.send_tool_list_changed()
        if bound.cancelled_caught:
            logger.warning("a client was not told that the tools have changed: it does not read")

    async def changed() -> None:
        await bus.publish(ToolsListChanged())
        async with anyio.create_task_group() as tasks:
            for connection in connections:
                tasks.start_soon(tell, connection)

    server.add_request_handler("subscriptions/listen", types.SubscriptionsListenRequestParams, ListenHandler(bus))
    server.add_notification_handler("notifications/initialized", types.NotificationParams, initialized)
    gateway.on_change(changed)
