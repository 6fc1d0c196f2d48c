"""Notifications about a changed list of tools."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Literal

import anyio
import httpx
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp import types
from mcp.client import Client
from mcp.client.session import IncomingMessage
from mcp.client.subscriptions import ToolsListChanged
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus
from mcp.shared.message import SessionMessage
from mcp.types import ToolListChangedNotification

from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.loading.catalog import Catalog, build_catalog
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.servers.mcp import notifications
from mcp_taskruns.servers.mcp.http import build_http_app
from mcp_taskruns.servers.mcp.server import build_server
from mcp_taskruns.settings import Settings
from tests.clients import Era, listening
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

Transport = Literal["memory", "http"]
TRANSPORTS: list[Transport] = ["memory", "http"]

WATCHED = Settings(watch=True)


@cache
def catalog_of(*prefixes: str) -> Catalog:
    """Return a catalog with the built-in tools of these providers."""
    return build_catalog(load_tools([]), Settings(only=prefixes))


class Notifications:
    """The notifications that one client receives."""

    def __init__(self) -> None:
        self.count = 0
        self._received = anyio.Event()

    def add(self) -> None:
        self.count += 1
        self._received.set()

    async def on_message(self, message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            self.add()

    async def listen(self, client: Client, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with client.listen(tools_list_changed=True) as events:
            task_status.started()
            async for event in events:
                assert event == ToolsListChanged()
                self.add()

    async def wait(self) -> None:
        """Wait for the first notification after the previous wait."""
        await self._received.wait()
        self._received = anyio.Event()


@asynccontextmanager
async def served(gateway: Gateway, transport: Transport, *, is_watched: bool = True) -> AsyncIterator[Any]:
    """Serve the gateway; yield what a client connects to."""
    if transport == "memory":
        yield build_server(gateway, is_watched=is_watched)
        return
    async with listening(build_http_app(gateway, Settings(watch=is_watched))) as origin:
        yield f"{origin}/mcp"


@asynccontextmanager
async def subscribed(server: Any, era: Era) -> AsyncIterator[tuple[Client, Notifications]]:
    """Connect a client that receives notifications about changes."""
    news = Notifications()
    on_message = news.on_message if era == "legacy" else None
    async with Client(server, mode=era, message_handler=on_message) as client, anyio.create_task_group() as tasks:
        if era == "auto":
            await tasks.start(news.listen, client)
        yield client, news
        tasks.cancel_scope.cancel()


async def change_until_notified(gateway: Gateway, news: Notifications, *catalogs: Catalog) -> None:
    """Serve the catalogs in turn until the client is notified: its stream for that may not be open yet."""
    while True:
        for catalog in catalogs:
            await gateway.replace_catalog(catalog)
            with anyio.move_on_after(0.5):
                await news.wait()
                return


async def names(client: Client) -> set[str]:
    tools = await client.list_tools(cache_mode="refresh")
    return {tool.name.partition("-")[0] for tool in tools.tools}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_client_is_notified_of_each_change(era: Era, transport: Transport) -> None:
    gateway = Gateway(catalog_of("render"), WATCHED)
    with anyio.fail_after(PATIENCE):
        async with served(gateway, transport) as server, subscribed(server, era) as (client, news):
            assert await names(client) == {"render"}
            await change_until_notified(gateway, news, catalog_of("runway"))
            assert await names(client) == {"runway"}
            await gateway.replace_catalog(catalog_of("runway", "inngest"))
            await news.wait()
            if transport == "memory":
                assert news.count == 2
            assert await names(client) == {"runway", "inngest"}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_notified_client_does_not_use_its_cached_list(era: Era, transport: Transport) -> None:
    gateway = Gateway(catalog_of("render"), WATCHED)
    with anyio.fail_after(PATIENCE):
        async with served(gateway, transport) as server, subscribed(server, era) as (client, news):
            assert len((await client.list_tools()).tools) == len(catalog_of("render").tools)
            await change_until_notified(gateway, news, catalog_of("runway"))
            assert len((await client.list_tools()).tools) == len(catalog_of("runway").tools)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_clients_of_both_eras_are_notified(transport: Transport) -> None:
    gateway = Gateway(catalog_of("render"), WATCHED)
    with anyio.fail_after(PATIENCE):
        async with (
            served(gateway, transport) as server,
            subscribed(server, "legacy") as (_, one),
            subscribed(server, "legacy") as (_, two),
            subscribed(server, "auto") as (_, three),
        ):
            clients = (one, two, three)
            for news in clients:
                await change_until_notified(gateway, news, catalog_of("runway"))
            # Over HTTP notifications of earlier changes may still arrive.
            counts = [news.count for news in clients]
            await gateway.replace_catalog(catalog_of("inngest"))
            for news, count in zip(clients, counts, strict=True):
                while news.count == count:
                    await news.wait()
            if transport == "memory":
                assert [news.count for news in clients] == [count + 1 for count in counts]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_client_of_2026_without_subscription_is_not_notified(transport: Transport) -> None:
    gateway = Gateway(catalog_of("render"), WATCHED)
    news = Notifications()
    with anyio.fail_after(PATIENCE):
        async with (
            served(gateway, transport) as server,
            Client(server, mode="auto", message_handler=news.on_message) as client,
            subscribed(server, "auto") as (_, other),
        ):
            await gateway.replace_catalog(catalog_of("runway"))
            await other.wait()
            assert await names(client) == {"runway"}
    assert (news.count, other.count) == (0, 1)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("era", ["legacy", "auto"])
@pytest.mark.parametrize("is_watched", [True, False])
async def test_list_changed_capability_is_declared_with_watch_only(
    is_watched: bool, era: Era, transport: Transport
) -> None:
    gateway = Gateway(catalog_of("render"), Settings(watch=is_watched))
    with anyio.fail_after(PATIENCE):
        async with served(gateway, transport, is_watched=is_watched) as server, Client(server, mode=era) as client:
            capabilities = client.server_capabilities
            assert capabilities
            assert capabilities.tools
            assert bool(capabilities.tools.list_changed) is is_watched
            # No other capability is declared.
            assert (capabilities.prompts, capabilities.resources, capabilities.logging) == (None, None, None)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_subscription_is_rejected_without_watch(transport: Transport) -> None:
    gateway = Gateway(catalog_of("render"), Settings())
    with anyio.fail_after(PATIENCE):
        async with served(gateway, transport, is_watched=False) as server, Client(server, mode="auto") as client:
            with pytest.raises(Exception, match=r"(?i)not found|subscriptions/listen"):
                async with client.listen(tools_list_changed=True):
                    raise AssertionError("the subscription was accepted")


@pytest.mark.parametrize(("is_watched", "ttl"), [(True, 5_000), (False, 300_000)])
async def test_cache_lifetime_of_the_list_depends_on_watch(is_watched: bool, ttl: int) -> None:
    gateway = Gateway(catalog_of("render"), Settings(watch=is_watched))
    async with Client(build_server(gateway, is_watched=is_watched), mode="auto") as client:
        assert (await client.list_tools()).ttl_ms == ttl


class Raw:
    """A client of the 2025 protocols that sends and receives single messages."""

    def __init__(
        self,
        received: MemoryObjectReceiveStream[SessionMessage],
        sent: MemoryObjectSendStream[SessionMessage | Exception],
    ) -> None:
        self._received = received
        self._sent = sent

    async def send(self, method: str, number: int | None = None, **params: Any) -> None:
        message: types.JSONRPCMessage = (
            types.JSONRPCNotification(jsonrpc="2.0", method=method)
            if number is None
            else types.JSONRPCRequest(jsonrpc="2.0", id=number, method=method, params=params)
        )
        await self._sent.send(SessionMessage(message))

    async def receive(self) -> types.JSONRPCMessage:
        return (await self._received.receive()).message

    async def handshake(self) -> None:
        """Initialize; the response to the last request shows that earlier messages were handled."""
        info = {"name": "test", "version": "1"}
        await self.send("initialize", 1, protocolVersion="2025-11-25", capabilities={}, clientInfo=info)
        await self.receive()
        await self.send("notifications/initialized")
        await self.send("ping", 2)
        await self.receive()


@asynccontextmanager
async def raw_client(server: Any) -> AsyncIterator[Raw]:
    """Connect a client without buffers: the server waits until it reads a message."""
    to_server, server_reads = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    server_writes, from_server = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.run, server_reads, server_writes, server.create_initialization_options())
        yield Raw(from_server, to_server)
        await from_server.aclose()
        await to_server.aclose()
        tasks.cancel_scope.cancel()


async def test_client_that_does_not_read_does_not_delay_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notifications, "SEND_SECONDS", 0.1)
    gateway = Gateway(catalog_of("render"), WATCHED)
    server = build_server(gateway, is_watched=True)
    with anyio.fail_after(PATIENCE):
        async with raw_client(server) as silent, subscribed(server, "legacy") as (client, news):
            await silent.handshake()
            await gateway.replace_catalog(catalog_of("runway"))
            await news.wait()
            assert await names(client) == {"runway"}
            assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
                "a client was not notified of changed tools: it did not read for 0.1 s"
            ]
            # It is notified again once it reads.
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(gateway.replace_catalog, catalog_of("inngest"))
                message = await silent.receive()
            assert isinstance(message, types.JSONRPCNotification)
            assert message.method == "notifications/tools/list_changed"


async def test_client_is_notified_only_after_initialization() -> None:
    gateway = Gateway(catalog_of("render"), WATCHED)
    server = build_server(gateway, is_watched=True)
    with anyio.fail_after(PATIENCE):
        async with raw_client(server) as client:
            info = {"name": "test", "version": "1"}
            await client.send("initialize", 1, protocolVersion="2025-11-25", capabilities={}, clientInfo=info)
            await client.receive()
            await gateway.replace_catalog(catalog_of("runway"))
            await client.send("notifications/initialized")
            await client.send("ping", 2)
            response = await client.receive()
            assert isinstance(response, types.JSONRPCResponse)
            assert response.id == 2
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(gateway.replace_catalog, catalog_of("inngest"))
                message = await client.receive()
            assert isinstance(message, types.JSONRPCNotification)
            assert message.method == "notifications/tools/list_changed"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_disconnected_client_is_removed(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    notified: list[ServerSession] = []
    send = ServerSession.send_tool_list_changed

    async def record(self: ServerSession) -> None:
        notified.append(self)
        await send(self)

    monkeypatch.setattr(ServerSession, "send_tool_list_changed", record)
    gateway = Gateway(catalog_of("render"), WATCHED)
    with anyio.fail_after(PATIENCE):
        async with served(gateway, transport) as server, subscribed(server, "legacy") as (_, staying):
            async with subscribed(server, "legacy") as (_, leaving):
                for news in (staying, leaving):
                    await change_until_notified(gateway, news, catalog_of("runway"))
                notified.clear()
                await gateway.replace_catalog(catalog_of("inngest"))
                assert len(set(notified)) == 2
            while len(set(notified)) != 1:
                notified.clear()
                await gateway.replace_catalog(catalog_of("runway"))
                await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_closed_subscription_is_removed(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    buses: list[InMemorySubscriptionBus] = []

    class Bus(InMemorySubscriptionBus):
        def __init__(self) -> None:
            super().__init__()
            buses.append(self)

    monkeypatch.setattr(notifications, "InMemorySubscriptionBus", Bus)
    gateway = Gateway(catalog_of("render"), WATCHED)
    with anyio.fail_after(PATIENCE):
        async with served(gateway, transport) as server:
            async with subscribed(server, "auto") as (_, news):
                await gateway.replace_catalog(catalog_of("runway"))
                await news.wait()
                assert [len(bus._listeners) for bus in buses] == [1]
            while buses[0]._listeners:
                await gateway.replace_catalog(catalog_of("inngest"))
                await anyio.lowlevel.checkpoint()


async def test_client_without_an_event_stream_does_not_delay_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "SEND_SECONDS", 30.0)
    gateway = Gateway(catalog_of("render"), WATCHED)
    headers = {"Accept": "application/json, text/event-stream"}
    initialize = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }
    with anyio.fail_after(PATIENCE):
        async with (
            listening(build_http_app(gateway, WATCHED)) as origin,
            httpx.AsyncClient(base_url=origin, headers=headers) as client,
            subscribed(f"{origin}/mcp", "legacy") as (_, news),
        ):
            response = await client.post("/mcp", json=initialize)
            session = {"Mcp-Session-Id": response.headers["Mcp-Session-Id"]}
            done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
            assert (await client.post("/mcp", json=done, headers=session)).status_code == 202
            with anyio.fail_after(PATIENCE):
                # More than all buffers hold.
                for _ in range(50):
                    await gateway.replace_catalog(catalog_of("runway"))
            await change_until_notified(gateway, news, catalog_of("inngest"))
            listed = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
            response = await client.post("/mcp", json=listed, headers=session)
            assert "inngest-wait-for-run" in response.text
