"""Limits on connections and bodies, with real sockets."""

import asyncio
import errno
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from anyio.abc import ByteStream
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_taskruns.servers import bodies, connections
from mcp_taskruns.servers.bodies import BodyBudget
from mcp_taskruns.servers.connections import AcceptErrors
from mcp_taskruns.servers.guard import guard
from mcp_taskruns.servers.listeners import DEAD_SECONDS, HttpServers, Listener, listen
from mcp_taskruns.servers.mcp.http import build_http_app
from mcp_taskruns.servers.mcp.sessions import IDLE_SECONDS, MAX_CLIENT_SESSIONS, MAX_SESSIONS
from mcp_taskruns.servers.rest.app import build_rest_app
from mcp_taskruns.settings import Settings
from tests.clients import listening, open_gateway
from tests.clock import pass_time, settle
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

TOKEN = "a-token-of-the-operator-1"
HEAD = "POST /v1/things HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    """Serve an app as the program does; yield its port."""
    with listen("127.0.0.1", 0) as opened:
        servers = HttpServers([Listener(opened, app, "{}")])
        port = opened.getsockname()[1]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(servers.serve, lambda _: None)
            try:
                yield port
            finally:
                servers.stop()


class Peer:
    """A connection that collects what it receives, and whether it was closed."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.received = b""
        self.is_closed = False

    async def send(self, data: bytes) -> None:
        await self._stream.send(data)

    async def collect(self) -> None:
        """Receive until the connection is closed."""
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                self.received += await self._stream.receive()
        self.is_closed = True

    async def trickle(self, data: bytes, seconds: float, interval: float = 3) -> None:
        """Send one byte in each interval while the time passes."""
        for at in range(int(seconds / interval)):
            if not self.is_closed:
                with suppress(anyio.BrokenResourceError):
                    await self.send(data[at : at + 1])
            await pass_time(interval)


@asynccontextmanager
async def peer_of(port: int) -> AsyncIterator[Peer]:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream, anyio.create_task_group() as tasks:
        peer = Peer(stream)
        tasks.start_soon(peer.collect)
        await settle()
        yield peer
        tasks.cancel_scope.cancel()


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Send a short response, without a look at the body."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})


@pytest.mark.driven_clock
async def test_silent_connection_is_closed_after_10_seconds() -> None:
    async with serving(hello) as port, peer_of(port) as peer:
        await pass_time(9)
        assert not peer.is_closed
        await pass_time(2)
        assert peer.is_closed
        assert peer.received == b""


@pytest.mark.driven_clock
@pytest.mark.parametrize("before", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"], ids=["first", "second"])
async def test_head_that_trickles_is_408_after_10_seconds(before: bytes) -> None:
    async with serving(hello) as port, peer_of(port) as peer:
        if before:
            await peer.send(before)
            await settle()
        await peer.trickle(b"GET / HTTP/1.1\r\nHost: localhost\r\n", 15)
        assert peer.is_closed
        assert b"HTTP/1.1 408 " in peer.received


@pytest.mark.driven_clock
async def test_idle_connection_is_closed_between_requests() -> None:
    async with serving(hello) as port, peer_of(port) as peer:
        for _ in range(3):
            await peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await pass_time(4)
            assert not peer.is_closed
        await pass_time(2)
        assert peer.is_closed
        assert peer.received.count(b"hello") == 3


@pytest.mark.driven_clock
async def test_body_of_a_refused_request_is_not_received_for_longer_than_a_minute() -> None:
    app = build_rest_app(open_gateway({}), Settings(tokens=(TOKEN,)))
    async with serving(app) as port, peer_of(port) as peer:
        await peer.send(HEAD.format(1000).encode())
        await settle()
        assert b"HTTP/1.1 401 " in peer.received
        await peer.trickle(b"x" * 1000, 57)
        assert not peer.is_closed
        await peer.trickle(b"x" * 1000, 9)
        assert peer.is_closed


@pytest.mark.driven_clock
@pytest.mark.parametrize("build", [build_http_app, build_rest_app])
@pytest.mark.parametrize("path", ["/mcp", "/v1/things", "/health"])
async def test_body_that_trickles_is_408_after_a_minute(build: Any, path: str) -> None:
    async with serving(build(open_gateway({}), Settings())) as port, peer_of(port) as peer:
        await peer.send(HEAD.replace("/v1/things", path).format(1000).encode())
        await peer.trickle(b"x" * 1000, 57)
        assert peer.received == b""
        await peer.trickle(b"x" * 1000, 9)
        assert b"HTTP/1.1 408 " in peer.received
        assert peer.is_closed


@pytest.mark.driven_clock
async def test_event_stream_is_not_interrupted() -> None:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(20):
                await send({"type": "http.response.body", "body": b": keep-alive\n\n", "more_body": True})
                await anyio.sleep(15)  # of the driven clock
            await send({"type": "http.response.body", "body": b"end"})

    async with serving(guard(stream, Settings(), None)) as port, peer_of(port) as peer:
        await peer.send(HEAD.format(2).encode() + b"{}")
        await pass_time(299)
        assert not peer.is_closed
        await pass_time(2)
        assert b"end" in peer.received


class Flood:
    """An app that sends 64 MB, and then waits."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x" * 64_000_000, "more_body": True})
            await anyio.sleep_forever()


@pytest.mark.driven_clock
async def test_client_that_reads_nothing_is_disconnected() -> None:
    async with serving(Flood()) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await pass_time(40)
            client.settimeout(PATIENCE)
            received = await anyio.to_thread.run_sync(drain, client)
    assert received < 64_000_000


@pytest.mark.driven_clock
async def test_client_that_reads_slowly_stays_connected() -> None:
    async with serving(Flood()) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            client.settimeout(PATIENCE)
            for _ in range(5):
                await pass_time(20)
                assert await anyio.to_thread.run_sync(receive_exactly, client, 8_000_000)


def drain(client: socket.socket) -> int:
    """Receive until the connection is closed; return the number of bytes."""
    size = 0
    with suppress(ConnectionResetError):
        while data := client.recv(1_000_000):
            size += len(data)
    return size


def receive_exactly(client: socket.socket, size: int) -> bool:
    """Receive this number of bytes; return whether there were so many."""
    while size > 0:
        data = client.recv(min(size, 1_000_000))
        if not data:
            return False
        size -= len(data)
    return True


def test_dead_connections_are_found_by_the_system() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 40_000


@pytest.mark.driven_clock
async def test_bodies_have_a_limit_together() -> None:
    app = build_rest_app(open_gateway({}), Settings(), BodyBudget(1000))
    async with serving(app) as port, peer_of(port) as first, peer_of(port) as second:
        await first.send(HEAD.format(900).encode() + b"x" * 800)
        await settle()
        await second.send(HEAD.format(900).encode() + b"x" * 800)
        await settle()
        assert b"HTTP/1.1 503 " in second.received
        assert b"retry-after" in second.received.lower()
        assert first.received == b""
        await first.send(b"x" * 100)
        await settle()
        assert b"HTTP/1.1 404 " in first.received
        async with peer_of(port) as third:
            await third.send(HEAD.format(900).encode() + b"x" * 900)
            await settle()
            assert b"HTTP/1.1 404 " in third.received


def test_documentation_has_the_limits() -> None:
    limits = {
        "connections of clients": f"{connections.MAX_CONNECTIONS:,}, and half of",
        "head of a request": f"{connections.HEAD_SECONDS:g} s",
        "body of a request": f"{bodies.BODY_SECONDS:g} s",
        "bodies of all active requests": f"{bodies.MAX_ALL_BODIES_BYTES // 1_000_000} MB",
        "client that reads nothing of a waiting response": f"{connections.WRITE_SECONDS:g} s",
        "client that acknowledges nothing, on Linux": f"{DEAD_SECONDS} s",
        "open sessions of the 2025 protocols": f"{MAX_SESSIONS:,}, and {MAX_CLIENT_SESSIONS} for",
        "session without a request": f"{IDLE_SECONDS // 60:g} min",
    }
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
    for name, limit in limits.items():
        assert f"| {name} | {limit}" in page


def test_limit_of_all_bodies_is_256_mb() -> None:
    budget = BodyBudget()
    assert budget.take(256_000_000)
    assert not budget.take(1)
    assert bodies.MAX_BODY_BYTES < bodies.MAX_ALL_BODIES_BYTES


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_mcp_body_above_the_size_limit_is_413(is_chunked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 1000)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 1001

    async with listening(build_http_app(open_gateway({}), Settings())) as origin, httpx.AsyncClient() as client:
        content = chunks() if is_chunked else b"x" * 1001
        response = await client.post(f"{origin}/mcp", content=content)
    assert response.status_code == 413


async def test_mcp_message_with_too_many_values_is_not_parsed() -> None:
    call = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{"a":%s}}}'
    many, text = call % (b"[" + b"[]," * 200_000 + b"[]]"), call % (b'"' + b"[]," * 200_000 + b'"')
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    async with listening(build_http_app(open_gateway({}), Settings())) as origin, httpx.AsyncClient() as client:
        response = await client.post(f"{origin}/mcp", content=many, headers=headers)
        accepted = await client.post(f"{origin}/mcp", content=text, headers=headers)
    assert response.status_code == 413
    assert "more than 600,000 values or 100,000 lists" in response.json()["error"]["message"]
    assert accepted.json()["error"]["message"] == "Bad Request: Missing session ID"


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file descriptors")
@pytest.mark.parametrize("descriptors", [64, 256])
def test_many_connections_leave_the_server_usable_and_the_log_short(descriptors: int) -> None:
    command = f"ulimit -n {descriptors} && exec {sys.executable} -m mcp_taskruns serve --transport http --port 0"
    with subprocess.Popen(["/bin/sh", "-c", command], stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stderr
            announced = re.search(r"http://127\.0\.0\.1:(\d+)", child.stderr.readline())
            assert announced
            port = int(announced[1])
            with ExitStack() as opened:
                clients = [opened.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(400)]
                refused = clients[-1]
                refused.settimeout(PATIENCE)
                assert refused.recv(1000).startswith(b"HTTP/1.1 503 ")
            with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as client:
                assert client.get(f"{announced[0]}/health", timeout=PATIENCE).status_code == 200
        finally:
            child.terminate()
            _, log = child.communicate()
    assert len(log.splitlines()) <= 1, log[:2000]


INVALID = [
    b"\xff\xfe\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
    b"GET /%ff%00%0a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab",
]


@pytest.mark.parametrize("build", [build_http_app, build_rest_app])
@pytest.mark.parametrize("tokens", [(), (TOKEN,)])
async def test_invalid_requests_write_nothing_to_the_log(
    build: Any, tokens: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(build(open_gateway({}), Settings(tokens=tokens))) as port:
        for request in INVALID:
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await stream.send(request)
                await stream.send_eof()
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    assert b" 500 " not in await stream.receive(), request
    assert caplog.records == []


@pytest.mark.driven_clock
async def test_invalid_body_of_a_refused_request_closes_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    app = build_rest_app(open_gateway({}), Settings(tokens=(TOKEN,)))
    async with serving(app) as port, peer_of(port) as peer:
        await peer.send(b"POST /v1/things HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await settle()
        assert b"HTTP/1.1 401 " in peer.received
        await peer.send(b"not a chunk\r\n")
        await settle()
        assert peer.is_closed
    assert caplog.records == []


async def test_full_descriptors_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    before, others = loop.get_exception_handler(), list[str]()
    loop.set_exception_handler(lambda _, context: others.append(context["message"]))
    context = {
        "message": "socket.accept() out of system resource",
        "exception": OSError(errno.EMFILE, "Too many open files"),
        "socket": None,
    }
    try:
        with AcceptErrors.logged():
            for _ in range(1000):
                loop.call_exception_handler(context)
            loop.call_exception_handler({"message": "another error", "exception": ValueError("x")})
    finally:
        loop.set_exception_handler(before)
    assert others == ["another error"]
    assert len(caplog.records) == 1
    assert "Too many open files" in caplog.text
