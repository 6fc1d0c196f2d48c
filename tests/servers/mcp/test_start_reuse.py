"""A client that gives up on a start and repeats it starts one run: over every transport, in both protocol eras."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from mcp.client import Client
from mcp.types import TextContent

from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.servers.mcp.http import build_http_app
from mcp_taskruns.settings import Settings
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.clients import Era, Transport, listening, open_client, open_gateway
from tests.servers.mcp.test_tasks import Tasks, start
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

START = {"body": {"task": "demo-workflow/slow", "input": []}, "wait_seconds": 45}
BRIEF = {**START, "wait_seconds": 0}

CONNECTIONS: list[tuple[Transport, Era]] = [
    ("memory", "legacy"),
    ("memory", "auto"),
    ("stdio", "legacy"),
    ("stdio", "auto"),
    ("http", "legacy"),
    ("http", "auto"),
]

TOKENS = ("first-token-0123456789", "other-token-0123456789")

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
HEADERS = {"Accept": "application/json, text/event-stream"}


def keys_sent(simulator: Simulator) -> list[str]:
    """Return the idempotency keys of all requests that start a run."""
    return [json.loads(request.body)["idempotencyKey"] for request in simulator.requests if request.method == "POST"]


async def give_up(client: Client, simulator: Simulator) -> None:
    """Start a run, and cancel the call while it waits for the run."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_tool, "render-run-task", START)
        stream = await simulator.wait_for_request(lambda request: "/events" in request.path)
        tasks.cancel_scope.cancel()
    await stream.disconnected.wait()  # the server has cancelled the call


async def text_of(client: Client, arguments: dict[str, Any]) -> str:
    """Return the text of all blocks of a start."""
    result = await client.call_tool("render-run-task", arguments)
    assert not result.is_error
    return " ".join(block.text for block in result.content if isinstance(block, TextContent))


@pytest.mark.parametrize(("transport", "era"), CONNECTIONS)
async def test_repeated_start_of_a_cancelled_call_starts_no_second_run(
    transport: Transport, era: Era, simulator: Simulator, environment: dict[str, str]
) -> None:
    with anyio.fail_after(PATIENCE):
        async with open_client(transport, era, environment) as client:
            await give_up(client, simulator)
            text = await text_of(client, BRIEF)
            await text_of(client, BRIEF)
    first, second, third = keys_sent(simulator)
    assert first == second != third
    assert first in text
    assert "no second one was started" in text


class Raw:
    """A client on plain HTTP, which can drop its connection in the middle of a call."""

    def __init__(self, origin: str, http: httpx.AsyncClient, era: Era, token: str) -> None:
        self._url = f"{origin}/mcp"
        self._http = http
        self._era = era
        self._headers = HEADERS | {"Authorization": f"Bearer {token}"}

    async def connect(self) -> None:
        """Open a session, which only the 2025 protocols have."""
        if self._era != "legacy":
            self._headers |= {
                "MCP-Protocol-Version": "2026-07-28",
                "Mcp-Method": "tools/call",
                "Mcp-Name": "render-run-task",
            }
            return
        params = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        }
        body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        response = await self._http.post(self._url, json=body, headers=self._headers)
        self._headers |= {
            "Mcp-Session-Id": response.headers["mcp-session-id"],
            "MCP-Protocol-Version": "2025-11-25",
        }
        initialized = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        await self._http.post(self._url, json=initialized, headers=self._headers)

    @asynccontextmanager
    async def start(self, arguments: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        meta = {"_meta": META} if self._era != "legacy" else {}
        params = {"name": "render-run-task", "arguments": arguments, **meta}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        async with self._http.stream("POST", self._url, json=body, headers=self._headers, timeout=PATIENCE) as response:
            yield response


@asynccontextmanager
async def raw_client(origin: str, era: Era, token: str = "none") -> AsyncIterator[Raw]:
    async with httpx.AsyncClient() as http:
        client = Raw(origin, http, era, token)
        await client.connect()
        yield client


async def until(is_true: Callable[[], bool]) -> None:
    """Wait until a condition of the server holds that no event reports."""
    with anyio.fail_after(PATIENCE):
        while not is_true():  # noqa: ASYNC110 - no event reports what is waited for
            await anyio.sleep(0.01)  # between two looks at the condition


def has_noticed_a_disconnect(gateway: Gateway) -> bool:
    starts = gateway._start_keys._starts
    return any(start.lost_at is not None for start in starts)


async def start_and_disconnect(raw: Raw, gateway: Gateway, simulator: Simulator) -> None:
    async with anyio.create_task_group() as tasks:

        async def start() -> None:
            async with raw.start(START) as response:
                await response.aread()

        tasks.start_soon(start)
        await simulator.wait_for_request(lambda request: "/events" in request.path)
        tasks.cancel_scope.cancel()
    await until(lambda: has_noticed_a_disconnect(gateway))


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_repeated_start_of_a_client_that_disconnected_and_connects_again_starts_no_second_run(
    era: Era, simulator: Simulator, environment: dict[str, str]
) -> None:
    gateway = open_gateway(environment)
    with anyio.fail_after(PATIENCE):
        async with listening(build_http_app(gateway, Settings())) as origin:
            async with raw_client(origin, era) as raw:
                await start_and_disconnect(raw, gateway, simulator)
            async with raw_client(origin, era) as raw, raw.start(BRIEF) as response:
                text = (await response.aread()).decode()
    first, second = keys_sent(simulator)
    assert first == second
    assert first in text
    assert "no second one was started" in text


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_result_that_was_received_before_the_client_disconnected_is_not_lost(
    era: Era, simulator: Simulator, environment: dict[str, str]
) -> None:
    gateway = open_gateway(environment)
    with anyio.fail_after(PATIENCE):
        async with listening(build_http_app(gateway, Settings())) as origin:
            for _ in range(2):
                async with raw_client(origin, era) as raw, raw.start(BRIEF) as response:
                    await response.aread()
    first, second = keys_sent(simulator)
    assert first != second
    assert gateway._start_keys._starts == []


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_callers_with_different_tokens_do_not_share_a_run(
    era: Era, simulator: Simulator, environment: dict[str, str]
) -> None:
    gateway = open_gateway(environment)
    with anyio.fail_after(PATIENCE):
        async with listening(build_http_app(gateway, Settings(tokens=TOKENS))) as origin:
            async with raw_client(origin, era, TOKENS[0]) as raw:
                await start_and_disconnect(raw, gateway, simulator)
            for token in (TOKENS[1], TOKENS[0]):
                async with raw_client(origin, era, token) as raw, raw.start(BRIEF) as response:
                    await response.aread()
    first, other, again = keys_sent(simulator)
    assert first == again != other


async def test_repeated_start_of_a_cancelled_task_starts_no_second_run(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(delay=PATIENCE))
    with anyio.fail_after(PATIENCE):
        async with open_client("memory", "auto", environment, extensions=[Tasks()]) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(start, client, "render-run-task", START)
                request = await simulator.wait_for_request(lambda request: request.method == "POST")
                tasks.cancel_scope.cancel()
            await request.disconnected.wait()
            task = await start(client, "render-run-task", START)
    first, second = keys_sent(simulator)
    assert first == second
    assert "no second one was started" in (task.status_message or "")
