"""Listeners, HTTP servers and bearer tokens."""

import logging
import socket
from collections.abc import Sequence

import anyio
import httpx
import pytest
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from mcp_taskruns.errors import SettingsError
from mcp_taskruns.servers.access import BearerTokens, HostCheck
from mcp_taskruns.servers.listeners import HttpServers, Listener, listen
from mcp_taskruns.settings import Settings
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

TOKEN, OTHER = "a-token-of-the-operator-1", "another-token-of-theirs-2"


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await PlainTextResponse("hello")(scope, receive, send)


async def forever(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await anyio.sleep_forever()


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:{port}"),
        pytest.param(
            "::1", "http://[::1]:{port}", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
        ),
    ],
)
def test_listener_has_its_url(host: str, url: str) -> None:
    with listen(host, 0) as opened:
        port = opened.getsockname()[1]
        assert Listener(opened, hello, "there: {}").url == url.format(port=port)
        with socket.create_connection((host, port), timeout=PATIENCE):
            pass


def test_unusable_address_is_reported() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(SettingsError, match=r"cannot listen on 127\.0\.0\.1:"):
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(SettingsError, match=r"cannot listen on 203\.0\.113\.1:0: "):
        listen("203.0.113.1", 0)


class Announced:
    """Collect the lines of servers, and wait until there is one for each."""

    def __init__(self, count: int) -> None:
        self.lines: list[str] = []
        self._count = count
        self.all = anyio.Event()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if len(self.lines) == self._count:
            self.all.set()


async def test_servers_start_and_stop_together() -> None:
    with listen("127.0.0.1", 0) as one, listen("127.0.0.1", 0) as other, anyio.fail_after(PATIENCE):
        listeners = [Listener(one, hello, "one at {}"), Listener(other, hello, "other at {} (really)")]
        servers, announced = HttpServers(listeners), Announced(2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(servers.serve, announced)
            await announced.all.wait()
            assert announced.lines == [f"one at {listeners[0].url}", f"other at {listeners[1].url} (really)"]
            async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(retries=5)) as client:
                assert [(await client.get(listener.url)).text for listener in listeners] == ["hello", "hello"]
            servers.stop()


async def test_open_response_is_closed_at_shutdown(caplog: pytest.LogCaptureFixture) -> None:
    level = logging.getLogger("uvicorn.error").level
    try:
        with listen("127.0.0.1", 0) as opened, anyio.fail_after(PATIENCE):
            listener, announced = Listener(opened, forever, "{}"), Announced(1)
            servers = HttpServers([listener])
            async with httpx.AsyncClient() as client, anyio.create_task_group() as tasks:
                tasks.start_soon(servers.serve, announced)
                await announced.all.wait()
                async with client.stream("GET", listener.url) as response:
                    parts = response.aiter_text()
                    assert await anext(parts) == "begun"
                    servers.stop()
                    with pytest.raises(httpx.HTTPError):
                        await anext(parts)
    finally:
        logging.getLogger("uvicorn.error").setLevel(level)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def bearer(app: BearerTokens) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ([f"Bearer {TOKEN}"], 200),
        ([f"BEARER {OTHER}"], 200),
        ([f"Bearer   {TOKEN} "], 200),
        ([f"Bearer {TOKEN[:-1]}"], 401),
        ([f"Bearer {TOKEN}, {OTHER}"], 401),
        ([f"Token {TOKEN}"], 401),
        ([TOKEN], 401),
        (["Bearer "], 401),
        ([], 401),
        ([f"Bearer {TOKEN}", "Bearer wrong"], 401),
    ],
)
async def test_only_a_known_token_is_accepted(authorization: Sequence[str], status: int) -> None:
    async with bearer(BearerTokens(hello, (TOKEN, OTHER))) as client:
        response = await client.get("/", headers=[("Authorization", value) for value in authorization])
    assert response.status_code == status
    assert ("www-authenticate" in response.headers) == (status == 401)


async def test_rejected_request_gets_the_configured_response() -> None:
    async with bearer(BearerTokens(hello, (TOKEN,), Response("no", 401))) as client:
        response = await client.get("/x")
        assert (response.status_code, response.text) == (401, "no")
        assert (await client.get("/health")).text == "hello"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_addresses_need_tokens_or_insecure(host: str) -> None:
    with pytest.raises(SettingsError, match="MCP_TASKRUNS_TOKENS"):
        HostCheck(Settings(host=host))
    for settings in (Settings(host=host, insecure=True), Settings(host=host, tokens=(TOKEN,))):
        assert f"{'[' + host + ']' if ':' in host else host}:*" in HostCheck(settings).security.allowed_hosts


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_tokens(host: str) -> None:
    assert "localhost:*" in HostCheck(Settings(host=host)).security.allowed_hosts
