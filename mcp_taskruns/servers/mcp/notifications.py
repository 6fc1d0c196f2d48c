"""Notify MCP clients that the list of tools has changed, in both eras of the protocol."""

import logging
from typing import Any

import anyio
from mcp import types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcp_taskruns.engine.gateway import Gateway

SEND_SECONDS = 5.0
"""The timeout for one notification: a client that does not read must not delay the others."""

logger = logging.getLogger(__name__)


def notify_about_changes(server: Server[None], gateway: Gateway) -> None:
    """Notify all clients of the server when the gateway serves another catalog.

    Clients of the 2025 protocols are notified on their connection once it is initialized, those of 2026-07-28 on the
    streams that they opened with `subscriptions/listen`.
    """
    bus = InMemorySubscriptionBus()
    connections = _Connections()

    async def notify() -> None:
        await bus.publish(ToolsListChanged())
        await connections.notify()

    server.add_request_handler("subscriptions/listen", types.SubscriptionsListenRequestParams, ListenHandler(bus))
    server.add_notification_handler("notifications/initialized", types.NotificationParams, connections.initialized)
    gateway.on_change(notify)


class _Connections:
    """The open connections of clients of the 2025 protocols."""

    def __init__(self) -> None:
        # By the identity of the handshake, of which a connection has one.
        self._sessions: dict[int, ServerSession] = {}

    async def initialized(self, context: ServerRequestContext[None, Any], _: types.NotificationParams) -> None:
        """Keep a connection in the set until it is closed: then the SDK cancels its handlers, including this one."""
        key = id(context.session.client_params)
        if context.protocol_version in MODERN_PROTOCOL_VERSIONS or key in self._sessions:
            return
        self._sessions[key] = context.session
        try:
            await anyio.sleep_forever()
        finally:
            del self._sessions[key]

    async def notify(self) -> None:
        """Send `notifications/tools/list_changed` to all connections."""
        async with anyio.create_task_group() as tasks:
            for session in list(self._sessions.values()):
                tasks.start_soon(_send, session)


async def _send(session: ServerSession) -> None:
    with anyio.move_on_after(SEND_SECONDS) as scope:
        await session.send_tool_list_changed()
    if scope.cancelled_caught:
        logger.warning("a client was not notified of changed tools: it did not read for %g s", SEND_SECONDS)
