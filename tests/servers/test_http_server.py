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


async def test_refused_request_gets_the_response_of_the_server() -> None:
    app = BearerTokens(hello, (TOKEN,), lambda refusal: Response(f"no: {refusal.message}", refusal.status))
    async with bearer(app) as client:
        response = await client.get("/x")
        assert (response.status_code, response.text) == (401, "no: A valid bearer token is required.")
        assert (await client.get("/health")).text == "hello"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
async def test_other_addresses_need_tokens_or_insecure(host: str) -> None:
    with pytest.raises(SettingsError, match="MCP_TASKRUNS_TOKENS"):
        HostCheck(hello, Settings(host=host))
    in_url = f"[{host}]" if ":" in host else host
    for settings in (Settings(host=host, insecure=True), Settings(host=host, tokens=(TOKEN,))):
        assert await status_of(settings, Host=f"{in_url}:9090") == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
async def test_loopback_needs_no_tokens(host: str) -> None:
    assert await status_of(Settings(host=host), Host="localhost:9090") == 200


async def status_of(settings: Settings, path: str = "/mcp", method: str = "GET", **headers: str) -> int:
    """Send a request to an app behind a host check; return the status code."""
    transport = httpx.ASGITransport(HostCheck(hello, settings))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9090") as client:
        return (await client.request(method, path, headers=named)).status_code


ADDED = Settings(allowed_hosts=("runs.example", "Other.example:8443", "fd00::1"))


@pytest.mark.parametrize(
    ("settings", "host", "origin", "status"),
    [
        (Settings(), "127.0.0.1:9090", "http://127.0.0.1:9090", 200),
        (Settings(), "LOCALHOST:9090", "http://LocalHost:9090", 200),
        (Settings(), "[::1]:9090", "http://[::1]:9090", 200),
        (Settings(), "127.0.0.1:9090", "http://127.0.0.1:9091", 403),
        (Settings(), "127.0.0.1:9090", "http://localhost:5173", 403),
        (Settings(), "127.0.0.1:9090", "http://localhost", 403),
        (Settings(), "127.0.0.1:9090", "http://127.0.0.1:9090.evil.example", 403),
        (Settings(), "127.0.0.1:9090", "http://evil.example:9090", 403),
        (Settings(), "127.0.0.1:9090", "chrome-extension://127.0.0.1:9090", 403),
        (Settings(), "127.0.0.1:9090", "null", 403),
        (ADDED, "runs.example", "https://runs.example", 200),
        (ADDED, "RUNS.example:80", "https://runs.example", 200),
        (ADDED, "127.0.0.1:9090", "https://runs.example", 200),
        (ADDED, "127.0.0.1:9090", "https://other.example:8443", 200),
        (ADDED, "127.0.0.1:9090", "https://other.example", 403),
        (ADDED, "[fd00::1]:9090", "http://[fd00::1]:9090", 200),
        (ADDED, "127.0.0.1:9090", "http://runs.example:5173", 403),
        (ADDED, "evil.example", "https://runs.example", 421),
    ],
)
async def test_only_the_own_origin_is_allowed(settings: Settings, host: str, origin: str, status: int) -> None:
    assert await status_of(settings, Host=host, Origin=origin) == status


LINK = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}


@pytest.mark.parametrize(
    ("site", "path", "method", "headers", "status"),
    [
        ("same-origin", "/v1/things", "POST", {}, 200),
        ("none", "/v1/things", "GET", LINK, 200),
        ("cross-site", "/v1/things", "GET", {}, 403),
        ("cross-site", "/v1/things", "GET", LINK, 403),
        ("Cross-Site", "/mcp", "POST", {}, 403),
        ("same-site", "/mcp", "POST", {}, 403),
        ("same-site", "/v1/things", "GET", {}, 403),
        ("cross-site", "/health", "GET", {}, 200),
        ("cross-site", "/docs", "GET", LINK, 200),
        ("cross-site", "/openapi.json", "GET", LINK, 200),
        ("cross-site", "/docs", "POST", LINK, 403),
        ("cross-site", "/docs", "GET", {}, 403),
        ("cross-site", "/docs", "GET", {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}, 403),
    ],
)
async def test_requests_of_other_sites_are_refused(
    site: str, path: str, method: str, headers: dict[str, str], status: int
) -> None:
    assert await status_of(Settings(), path, method, Sec_Fetch_Site=site, **headers) == status
