"""MCP over HTTP: access, progress and shutdown."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from mcp import MCPError
from mcp.client import Client

from mcp_taskruns.errors import SettingsError
from mcp_taskruns.servers.listeners import listen
from mcp_taskruns.servers.mcp.http import build_http_app
from mcp_taskruns.settings import Settings, read_settings
from mcp_taskruns.simulator.app import Simulator
from tests.clients import listening, open_gateway
from tests.timing import PATIENCE, scaled

pytestmark = pytest.mark.anyio

TOKEN = "a-token-of-the-operator-1"
OTHER = "another-token-of-theirs-2"
RUNNING_RUN = "trn-d5im0000000000000004"
LIST = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/list",
    "params": {
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        }
    },
}
HEADERS = {
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/list",
}


async def post(settings: Settings, **headers: str) -> httpx.Response:
    app = build_http_app(open_gateway({}), settings)
    async with listening(app) as origin, httpx.AsyncClient() as client:
        return await client.post(f"{origin}/mcp", json=LIST, headers=HEADERS | headers)


async def test_tools_are_listed_on_loopback() -> None:
    response = await post(Settings())
    assert response.status_code == 200
    assert len(response.json()["result"]["tools"]) == 40


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:9090"}, 421),
        ({"Host": "localhost"}, 200),
        ({"Host": "localhost:1234"}, 200),
        ({"Host": "[::1]:9090"}, 200),
        ({"Host": "localhost.evil.example:9090"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:5173"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
async def test_only_local_hosts_and_the_own_origin_are_accepted(headers: dict[str, str], status: int) -> None:
    assert (await post(Settings(), **headers)).status_code == status


@pytest.mark.parametrize(
    ("host", "status"), [("runs.example:9090", 200), ("runs.example", 200), ("other.example", 421)]
)
async def test_host_header_is_checked_for_other_addresses(host: str, status: int) -> None:
    settings = Settings(host="0.0.0.0", insecure=True, allowed_hosts=("runs.example",))
    assert (await post(settings, Host=host)).status_code == status


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "runs.example"])
def test_listening_on_other_addresses_needs_tokens_or_insecure(host: str) -> None:
    with pytest.raises(SettingsError, match="MCP_TASKRUNS_TOKENS"):
        build_http_app(open_gateway({}), Settings(host=host))
    build_http_app(open_gateway({}), Settings(host=host, insecure=True))
    build_http_app(open_gateway({}), Settings(host=host, tokens=(TOKEN,)))


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {OTHER}", 200),
        (f"Bearer {TOKEN}x", 401),
        (f"Basic {TOKEN}", 401),
        (TOKEN, 401),
        ("Bearer", 401),
        ("", 401),
    ],
)
async def test_requests_need_a_valid_token(authorization: str, status: int) -> None:
    response = await post(Settings(tokens=(TOKEN, OTHER)), Authorization=authorization)
    assert response.status_code == status
    assert (response.headers.get("www-authenticate") == "Bearer") == (status == 401)


async def test_health_needs_no_token() -> None:
    app = build_http_app(open_gateway({}, read_only=True), Settings(tokens=(TOKEN,)))
    async with listening(app) as origin, httpx.AsyncClient() as client:
        response = (await client.get(f"{origin}/health")).json()
    assert response["status"] == "ok"
    assert 0 < response["tools"] < 40


async def test_health_checks_the_host_header() -> None:
    async with listening(build_http_app(open_gateway({}), Settings())) as origin, httpx.AsyncClient() as client:
        assert (await client.get(f"{origin}/health", headers={"Host": "evil.example"})).status_code == 421


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_progress_is_sent_and_cancelling_closes_the_provider_stream(
    era: Any, simulator: Simulator, environment: dict[str, str]
) -> None:
    details: list[tuple[float, float | None, str | None]] = []
    first = anyio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        details.append((progress, total, message))
        first.set()

    arguments = {"taskRunIds": ["trn-d5im0000000000000001", RUNNING_RUN]}
    app = build_http_app(open_gateway(environment), Settings())
    with anyio.fail_after(PATIENCE):
        async with listening(app) as origin, Client(f"{origin}/mcp", mode=era) as client:
            async with anyio.create_task_group() as tasks:

                async def follow() -> None:
                    await client.call_tool(
                        "render-stream-realtime-events-sse", arguments, progress_callback=on_progress
                    )

                tasks.start_soon(follow)
                await first.wait()
                tasks.cancel_scope.cancel()
            with anyio.fail_after(scaled(1)):
                await simulator.requests[0].disconnected.wait()
    assert [(total, message) for _, total, message in details] == [(45, "trn-d5im0000000000000001: succeeded (event)")]


@contextmanager
def running(environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run the server as a process on a free port."""
    command = [sys.executable, "-m", "mcp_taskruns", "serve", "--transport", "http", "--port", "0"]
    with subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def wait_until_listening(child: subprocess.Popen[str]) -> str:
    """Wait until the server responds; return its origin."""
    assert child.stderr
    url = None
    while url is None:
        line = child.stderr.readline()
        assert line, "the server has ended"
        url = re.search(r"MCP on (http://[\d.:]+)", line)
    transport = httpx.HTTPTransport(retries=8)
    with httpx.Client(transport=transport) as client:
        assert client.get(f"{url[1]}/health").status_code == 200
    return url[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
async def test_signal_during_a_call_exits_with_0(
    number: signal.Signals, simulator: Simulator, environment: dict[str, str]
) -> None:
    with running(environment) as child:
        with anyio.fail_after(PATIENCE):
            origin = await anyio.to_thread.run_sync(wait_until_listening, child)
            async with anyio.create_task_group() as tasks, httpx.AsyncClient() as client:
                call = LIST | {"method": "tools/call"}
                call["params"] = {
                    **LIST["params"],  # type: ignore[dict-item]  # it is a dict
                    "name": "render-stream-realtime-events-sse",
                    "arguments": {"taskRunIds": [RUNNING_RUN]},
                }
                names = {"Mcp-Method": "tools/call", "Mcp-Name": "render-stream-realtime-events-sse"}

                async def follow() -> None:
                    with suppress(httpx.HTTPError):
                        await client.post(f"{origin}/mcp", json=call, headers=HEADERS | names, timeout=PATIENCE)

                tasks.start_soon(follow)
                request = await simulator.wait_for_request(lambda request: "events" in request.path)
                child.send_signal(number)
                assert await anyio.to_thread.run_sync(child.wait, 5) == 0
                await request.disconnected.wait()


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_connected_client_at_shutdown_causes_no_traceback(
    era: Any, simulator: Simulator, environment: dict[str, str]
) -> None:
    with running(environment) as child, anyio.fail_after(PATIENCE):
        origin = await anyio.to_thread.run_sync(wait_until_listening, child)
        texts: list[str] = []
        with suppress(BaseExceptionGroup, MCPError):
            async with Client(f"{origin}/mcp", mode=era) as client, anyio.create_task_group() as tasks:

                async def follow() -> None:
                    arguments = {"taskRunIds": [RUNNING_RUN]}
                    texts.append(str((await client.call_tool("render-stream-realtime-events-sse", arguments)).content))

                tasks.start_soon(follow)
                await simulator.wait_for_request(lambda request: "events" in request.path)
                child.send_signal(signal.SIGINT)
        _, log = await anyio.to_thread.run_sync(child.communicate)
    assert child.returncode == 0
    assert "this server is stopping" in str(texts)
    assert log == ""


def test_tcp_nodelay_is_set() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_port_in_use_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "mcp_taskruns", "serve", "--transport", "http", "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


async def test_debug_log_contains_no_credentials(environment: dict[str, str]) -> None:
    planted = {"RENDER_API_KEY": "rnd_wrong_planted_5d1c7a90b2e8", "MCP_TASKRUNS_LOG_LEVEL": "debug"}
    with running(environment | planted) as child:
        with anyio.fail_after(PATIENCE):
            origin = await anyio.to_thread.run_sync(wait_until_listening, child)
            async with Client(f"{origin}/mcp") as client:
                result = await client.call_tool("render-list-tasks", {"cursor": "argument-value"})
        child.send_signal(signal.SIGTERM)
        _, log = await anyio.to_thread.run_sync(child.communicate)
    assert result.is_error
    assert "DEBUG" in log
    assert "argument-value" not in log
    assert planted["RENDER_API_KEY"] not in log + str(result.content)


def test_tokens_are_read_from_the_environment() -> None:
    assert read_settings({}, {"MCP_TASKRUNS_TOKENS": f"{TOKEN}, {OTHER}"}).tokens == (TOKEN, OTHER)
