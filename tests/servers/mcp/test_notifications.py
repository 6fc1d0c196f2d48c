"""Clients are told when the list of tools has changed."""

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
from mcp.server.connection import Connection
from mcp.server.subscriptions import InMemorySubscriptionBus
from mcp.shared.message import SessionMessage
from mcp.types import ToolListChangedNotification

from mcp_taskruns.app import build_http_app
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.loading.catalog import Catalog, build_catalog
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.servers.mcp import notifications as mcp_changes
from mcp_taskruns.servers.mcp.server import build_server
from mcp_taskruns.settings import Settings
from tests.clients import Era, listening
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

Way = Literal["memory", "http"]
WAYS: list[Way] = ["memory", "http"]

WATCHED = Settings(watch=True)


@cache
def catalog_of(*prefixes: str) -> Catalog:
    """The shipped tools of these providers."""
    return build_catalog(load_tools([]), Settings(only=prefixes))


class News:
    """What one client is told, and by what."""

    def __init__(self) -> None:
        self.count = 0
        self._came = anyio.Event()

    def add(self) -> None:
        self.count += 1
        self._came.set()

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
        """Wait for the first news after the last that was waited for."""
        await self._came.wait()
        self._came = anyio.Event()


@asynccontextmanager
async def served(gateway: Gateway, way: Way, *, is_watched: bool = True) -> AsyncIterator[Any]:
    """What clients of the gateway connect to."""
    if way == "memory":
        yield build_server(gateway, is_watched=is_watched)
        return
    async with listening(build_http_app(gateway, Settings(watch=is_watched))) as origin:
        yield f"{origin}/mcp"


@asynccontextmanager
async def told(server: Any, era: Era) -> AsyncIterator[tuple[Client, News]]:
    """A client that wants to know of changes."""
    news = News()
    on_message = news.on_message if era == "legacy" else None
    async with Client(server, mode=era, message_handler=on_message) as client, anyio.create_task_group() as tasks:
        if era == "auto":
            await tasks.start(news.listen, client)
        yield client, news
        tasks.cancel_scope.cancel()


async def change_until_told(gateway: Gateway, news: News, *catalogs: Catalog) -> None:
    """Serve the catalogs in turn until the client is told: nobody knows when its stream for that is open."""
    while True:
        for catalog in catalogs:
            await gateway.replace_catalog(catalog)
            with anyio.move_on_after(0.5):
                await news.wait()
                return


async def names(client: Client) -> set[str]:
    tools = await client.list_tools(cache_mode="refresh")
    return {tool.name.partition("-")[0] for tool in tools.tools}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_a_client_is_told_of_each_change_and_then_lists_the_new_tools(era: Era, way: Way) -> None:
    gateway = Gateway(catalog_of("render"), WATCHED)
    with anyio.fail_after(PATIENCE):
        async with served(gateway, way) as server, told(server, era) as (client, news):
            assert await names(client) == {"render"}
            await change_until_told(gateway, news, catalog_of("runway"))
            assert await names(client) == {"runway"}
            await gateway.replace_catalog(catalog_of("runway", "inngest"))
            await news.wait()
            if way == "memory":
                assert news.count == 2
            assert await names(client) == {"runway", "inngest"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_a_client_that_was_told_sees_the_new_tools_without_asking_for_fresh_ones(era: Era, way: Way) -> None:
    gateway = Gateway(catalog_of("render"), WATCHED)
    with anyio.fail_after(PATIENCE):
        async with served(gateway, way) as server, told(server, era) as (client, news):
            assert len((await client.list_tools()).tools) == len(catalog_of("render").tools)
            await change_until_told(gateway, news, catalog_of("runway"))
            assert len((await client.list_tools()).tools) == len(catalog_of("runway").tools)


@pytest.mark.parametrize("way", WAYS)
async def test_clients_of_both_eras_are_told_of_one_change(way: Way) -> None:
    gateway = Gateway(catalog_of("render"), WATCHED)
    with anyio.fail_after(PATIENCE):
        async with (
            served(gateway, way) as server,
            told(server, "legacy") as (_, one),
            told(server, "legacy") as (_, two),
            told(server, "auto") as (_, three),
        ):
            clients = (one, two, three)
            for news in clients:
                await change_until_told(gateway, news, catalog_of("runway"))
            # Over HTTP they may still be told of changes of before.
            counts = [news.count for news in clients]
            await gateway.replace_catalog(catalog_of("inngest"))
            for news, count in zip(clients, counts, strict=True):
                while news.count == count:
                    await news.wait()
            if way == "memory":
                assert [news.count for news in clients] == [count + 1 for count in counts]


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_of_2026_that_does_not_listen_is_not_told(way: Way) -> None:
    gateway = Gateway(catalog_of("render"), WATCHED)
    news = News()
    with anyio.fail_after(PATIENCE):
        async with (
            served(gateway, way) as server,
            Client(server, mode="auto", message_handler=news.on_message) as client,
            told(server, "auto") as (_, other),
        ):
            await gateway.replace_catalog(catalog_of("runway"))
            await other.wait()
            assert await names(client) == {"runway"}
    assert (news.count, other.count) == (0, 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("era", ["legacy", "auto"])
@pytest.mark.parametrize("is_watched", [True, False])
async def test_changes_are_promised_only_by_who_watches(is_watched: bool, era: Era, way: Way) -> None:
    gateway = Gateway(catalog_of("render"), Settings(watch=is_watched))
    with anyio.fail_after(PATIENCE):
        async with served(gateway, way, is_watched=is_watched) as server, Client(server, mode=era) as client:
            capabilities = client.server_capabilities
            assert capabilities
            assert capabilities.tools
            assert bool(capabilities.tools.list_changed) is is_watched
            # Nothing else comes with it.
            assert (capabilities.prompts, capabilities.resources, capabilities.logging) == (None, None, None)


@pytest.mark.parametrize("way", WAYS)
async def test_who_does_not_watch_has_nothing_to_listen_to(way: Way) -> None:
    gateway = Gateway(catalog_of("render"), Settings())
    with anyio.fail_after(PATIENCE):
        async with served(gateway, way, is_watched=False) as server, Client(server, mode="auto") as client:
            with pytest.raises(Exception, match=r"(?i)not found|subscriptions/listen"):
                async with client.listen(tools_list_changed=True):
                    raise AssertionError("it listens")


@pytest.mark.parametrize(("is_watched", "ttl"), [(True, 5_000), (False, 300_000)])
async def test_a_list_that_may_change_is_kept_for_a_few_seconds_only(is_watched: bool, ttl: int) -> None:
    gateway = Gateway(catalog_of("render"), Settings(watch=is_watched))
    async with Client(build_server(gateway, is_watched=is_watched), mode="auto") as client:
        assert (await client.list_tools()).ttl_ms == ttl


class Raw:
    """A client of the 2025 protocols, down to its messages: it reads only what it is told to read."""

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
        """Become a client that may be told; the answer to the last request says that all before it was taken in."""
        info = {"name": "test", "version": "1"}
        await self.send("initialize", 1, protocolVersion="2025-11-25", capabilities={}, clientInfo=info)
        await self.receive()
        await self.send("notifications/initialized")
        await self.send("ping", 2)
        await self.receive()


@asynccontextmanager
async def raw_client(server: Any) -> AsyncIterator[Raw]:
    """A client whose messages wait until it reads them, of which none are kept ahead."""
    to_server, server_reads = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    server_writes, from_server = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.run, server_reads, server_writes, server.create_initialization_options())
        yield Raw(from_server, to_server)
        await from_server.aclose()
        await to_server.aclose()
        tasks.cancel_scope.cancel()


async def test_a_client_that_does_not_read_keeps_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mcp_changes, "TELL_SECONDS", 0.1)
    gateway = Gateway(catalog_of("render"), WATCHED)
    server = build_server(gateway, is_watched=True)
    with anyio.fail_after(PATIENCE):
        async with raw_client(server) as silent, told(server, "legacy") as (client, news):
            await silent.handshake()
            await gateway.replace_catalog(catalog_of("runway"))
            await news.wait()
            assert await names(client) == {"runway"}
            assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
                "a client was not told that the tools have changed: it does not read"
            ]
            # It is told again once it reads.
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(gateway.replace_catalog, catalog_of("inngest"))
                message = await silent.receive()
            assert isinstance(message, types.JSONRPCNotification)
            assert message.method == "notifications/tools/list_changed"


async def test_a_client_is_told_only_after_it_has_initialized() -> None:
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
            answer = await client.receive()
            assert isinstance(answer, types.JSONRPCResponse)
            assert answer.id == 2
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(gateway.replace_catalog, catalog_of("inngest"))
                message = await client.receive()
            assert isinstance(message, types.JSONRPCNotification)
            assert message.method == "notifications/tools/list_changed"


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_has_left_is_forgotten(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Connection] = []
    send = Connection.send_tool_list_changed

    async def noted(self: Connection, **more: Any) -> None:
        asked.append(self)
        await send(self, **more)

    monkeypatch.setattr(Connection, "send_tool_list_changed", noted)
    gateway = Gateway(catalog_of("render"), WATCHED)
    with anyio.fail_after(PATIENCE):
        async with served(gateway, way) as server, told(server, "legacy") as (_, stays):
            async with told(server, "legacy") as (_, leaves):
                for news in (stays, leaves):
                    await change_until_told(gateway, news, catalog_of("runway"))
                asked.clear()
                await gateway.replace_catalog(catalog_of("inngest"))
                assert len(set(asked)) == 2
            while len(set(asked)) != 1:
                asked.clear()
                await gateway.replace_catalog(catalog_of("runway"))
                await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("way", WAYS)
async def test_a_stream_of_changes_that_was_left_is_forgotten(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    buses: list[InMemorySubscriptionBus] = []

    class Bus(InMemorySubscriptionBus):
        def __init__(self) -> None:
            super().__init__()
            buses.append(self)

    monkeypatch.setattr(mcp_changes, "InMemorySubscriptionBus", Bus)
    gateway = Gateway(catalog_of("render"), WATCHED)
    with anyio.fail_after(PATIENCE):
        async with served(gateway, way) as server:
            async with told(server, "auto") as (_, news):
                await gateway.replace_catalog(catalog_of("runway"))
                await news.wait()
                assert [len(bus._listeners) for bus in buses] == [1]
            while buses[0]._listeners:
                await gateway.replace_catalog(catalog_of("inngest"))
                await anyio.lowlevel.checkpoint()


async def test_a_client_that_opened_no_stream_of_its_own_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_changes, "TELL_SECONDS", 30.0)
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
            told(f"{origin}/mcp", "legacy") as (_, news),
        ):
            answer = await client.post("/mcp", json=initialize)
            session = {"Mcp-Session-Id": answer.headers["Mcp-Session-Id"]}
            done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
            assert (await client.post("/mcp", json=done, headers=session)).status_code == 202
            with anyio.fail_after(PATIENCE):
                # More than any buffer on the way holds.
                for _ in range(50):
                    await gateway.replace_catalog(catalog_of("runway"))
            await change_until_told(gateway, news, catalog_of("inngest"))
            listed = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
            answer = await client.post("/mcp", json=listed, headers=session)
            assert "inngest-wait-for-run" in answer.text
