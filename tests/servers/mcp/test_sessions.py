"""Sessions of the 2025 protocols over HTTP: owners, limits, the log, and clients that vanish."""

import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import httpx
import pytest
from mcp.client import Client

from mcp_taskruns.servers.listeners import HttpServers, Listener, listen
from mcp_taskruns.servers.mcp import sessions
from mcp_taskruns.servers.mcp.http import build_http_app
from mcp_taskruns.settings import Settings
from mcp_taskruns.simulator.app import Simulator
from tests.clients import listening, open_gateway
from tests.clock import pass_time
from tests.timing import PATIENCE, scaled

pytestmark = pytest.mark.anyio

TOKEN, OTHER = "a-token-of-the-operator-1", "another-token-of-theirs-2"
RUNNING_RUN = "trn-d5im0000000000000004"
ACCEPT = {"Accept": "application/json, text/event-stream"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
FOLLOW = {
    "jsonrpc": "2.0",
    "id": 2,
    "method": "tools/call",
    "params": {"name": "render-stream-realtime-events-sse", "arguments": {"taskRunIds": [RUNNING_RUN]}},
}


class Caller:
    """A client of the 2025 protocol that sends single requests, with a token or without."""

    def __init__(self, client: httpx.AsyncClient, token: str = "") -> None:
        self._client = client
        self._headers = ACCEPT | ({"Authorization": f"Bearer {token}"} if token else {})

    async def send(self, body: dict[str, Any] | None, session: str = "", method: str = "POST") -> httpx.Response:
        headers = self._headers | ({"Mcp-Session-Id": session} if session else {})
        return await self._client.request(method, "/mcp", json=body, headers=headers)

    async def open(self) -> str:
        """Open a session and return its id."""
        response = await self.send(INITIALIZE)
        assert response.status_code == 200, response.text
        return response.headers["mcp-session-id"]


def connect(origin: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=origin, timeout=PATIENCE)


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_session_is_not_found_with_another_token(method: str) -> None:
    app = build_http_app(open_gateway({}), Settings(tokens=(TOKEN, OTHER)))
    async with listening(app) as origin, connect(origin) as client:
        owner, other = Caller(client, TOKEN), Caller(client, OTHER)
        session = await owner.open()
        foreign = await other.send(LIST if method == "POST" else None, session, method)
        unknown = await other.send(LIST if method == "POST" else None, "0" * 32, method)
        assert (await owner.send(LIST, session)).status_code == 200
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json() == unknown.json()


async def test_ended_session_is_not_found() -> None:
    async with listening(build_http_app(open_gateway({}), Settings())) as origin, connect(origin) as client:
        caller = Caller(client)
        session = await caller.open()
        assert (await caller.send(None, session, "DELETE")).status_code == 200
        assert (await caller.send(LIST, session)).status_code == 404


async def test_stream_that_cannot_be_resumed_is_opened_again() -> None:
    async with listening(build_http_app(open_gateway({}), Settings())) as origin, connect(origin) as client:
        session = await Caller(client).open()
        headers = ACCEPT | {"Mcp-Session-Id": session, "Last-Event-ID": "7"}
        async with client.stream("GET", "/mcp", headers=headers) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")


async def test_one_token_has_at_most_100_sessions() -> None:
    app = build_http_app(open_gateway({}), Settings(tokens=(TOKEN, OTHER)))
    async with listening(app) as origin, connect(origin) as client:
        caller = Caller(client, TOKEN)
        opened = [await caller.open() for _ in range(100)]
        assert (await caller.send(INITIALIZE)).status_code == 503
        assert (await client.get("/health")).status_code == 200
        await Caller(client, OTHER).open()
        await caller.send(None, opened[0], "DELETE")
        await caller.open()
        assert (await caller.send(INITIALIZE)).status_code == 503
        assert (await caller.send(LIST, opened[1])).status_code == 200


async def test_simultaneous_requests_do_not_exceed_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_CLIENT_SESSIONS", 5)
    statuses: list[int] = []
    app = build_http_app(open_gateway({}), Settings(tokens=(TOKEN,)))
    async with listening(app) as origin, connect(origin) as client:
        caller = Caller(client, TOKEN)

        async def initialize() -> None:
            statuses.append((await caller.send(INITIALIZE)).status_code)

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(initialize)
        assert sorted(statuses) == [200] * 5 + [503] * 15


async def test_total_number_of_sessions_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sessions.MAX_SESSIONS == 1000
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 3)
    async with listening(build_http_app(open_gateway({}), Settings())) as origin, connect(origin) as client:
        caller = Caller(client)
        for _ in range(3):
            await caller.open()
        assert (await caller.send(INITIALIZE)).status_code == 503
        async with Client(f"{origin}/mcp", mode="auto") as modern:  # 2026-07-28 has no sessions
            assert (await modern.list_tools()).tools


@pytest.mark.driven_clock
async def test_idle_session_ends_and_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 1)
    async with listening(build_http_app(open_gateway({}), Settings())) as origin, connect(origin) as client:
        caller = Caller(client)
        first = await caller.open()
        await pass_time(sessions.IDLE_SECONDS - 1)
        assert (await caller.send(INITIALIZE)).status_code == 503
        await pass_time(2)
        await caller.open()
        assert (await caller.send(LIST, first)).status_code == 404


async def test_session_ids_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app = build_http_app(open_gateway({}), Settings(tokens=(TOKEN, OTHER)))
    async with listening(app) as origin, connect(origin) as client:
        caller = Caller(client, TOKEN)
        used, left = await caller.open(), await caller.open()
        await caller.send(LIST, used)
        await Caller(client, OTHER).send(LIST, used)
        await caller.send(None, used, "DELETE")
        await caller.send(LIST, used)
        await caller.send(LIST, "an-id-of-another-server")
    records = [record for record in caplog.records if not record.name.startswith("httpc")]  # that is the client here
    log = "\n".join(map(logging.Formatter().format, records))
    assert "Created new transport" in log
    assert used not in log
    assert left not in log
    assert "an-id-of-another-server" not in log


async def follow_and_vanish(simulator: Simulator, vanish: Callable[[], Awaitable[None]]) -> None:
    """Wait for the stream at the provider, let the client vanish, and wait for the end of the stream."""
    with anyio.fail_after(PATIENCE):
        request = await simulator.wait_for_request(lambda request: "events" in request.path)
    await vanish()
    with anyio.fail_after(scaled(5)):
        await request.disconnected.wait()


async def test_call_ends_when_its_response_is_closed(
    simulator: Simulator, environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    app = build_http_app(open_gateway(environment), Settings())
    async with listening(app) as origin, connect(origin) as client, anyio.create_task_group() as tasks:
        caller = Caller(client)
        session = await caller.open()
        call = anyio.CancelScope()

        async def follow() -> None:
            with call:
                await caller.send(FOLLOW, session)

        async def close() -> None:
            call.cancel()

        tasks.start_soon(follow)
        await follow_and_vanish(simulator, close)
        assert (await caller.send(LIST, session)).status_code == 200
    assert caplog.records == []


CLIENT = """
import sys, anyio
from mcp.client import Client
async def main():
    async with Client(sys.argv[1], mode="legacy") as client:
        await client.call_tool("render-stream-realtime-events-sse", {"taskRunIds": [sys.argv[2]]})
anyio.run(main)
"""


async def test_call_ends_when_the_client_is_killed(simulator: Simulator, environment: dict[str, str]) -> None:
    async with listening(build_http_app(open_gateway(environment), Settings())) as origin:
        command = [sys.executable, "-c", CLIENT, f"{origin}/mcp", RUNNING_RUN]
        async with await anyio.open_process(command, stderr=subprocess.DEVNULL) as child:

            async def kill() -> None:
                child.kill()

            try:
                await follow_and_vanish(simulator, kill)
            finally:
                with suppress(ProcessLookupError):
                    child.kill()


async def test_call_of_a_connected_client_goes_on_when_another_response_is_closed(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    app = build_http_app(open_gateway(environment), Settings())
    async with listening(app) as origin, connect(origin) as client, anyio.create_task_group() as tasks:
        caller = Caller(client)
        session = await caller.open()

        async def follow() -> None:
            await caller.send(FOLLOW, session)

        tasks.start_soon(follow)
        with anyio.fail_after(PATIENCE):
            request = await simulator.wait_for_request(lambda request: "events" in request.path)
        with suppress(httpx.ReadTimeout):
            headers = ACCEPT | {"Mcp-Session-Id": session}
            await client.post("/mcp", json={**FOLLOW, "id": 3}, headers=headers, timeout=scaled(0.1))
        assert (await caller.send(LIST, session)).status_code == 200
        assert not request.disconnected.is_set()
        tasks.cancel_scope.cancel()


@pytest.mark.load
async def test_stopping_with_1000_sessions_takes_seconds() -> None:
    app = build_http_app(open_gateway({}), Settings())
    with listen("127.0.0.1", 0) as opened:
        servers = HttpServers([Listener(opened, app, "{}")])
        started = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(servers.serve, lambda _: started.set())
            await started.wait()
            url = f"http://127.0.0.1:{opened.getsockname()[1]}"
            async with httpx.AsyncClient(
                base_url=url, timeout=PATIENCE, transport=httpx.AsyncHTTPTransport(retries=5)
            ) as client:
                caller = Caller(client)
                for _ in range(1000):
                    await caller.open()
                assert (await caller.send(INITIALIZE)).status_code == 503
            begun = anyio.current_time()
            servers.stop()
        assert anyio.current_time() - begun < scaled(2)
