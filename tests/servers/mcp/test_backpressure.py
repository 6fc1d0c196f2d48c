"""MCP over stdio with a client that does not read its responses."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import types
from mcp.server.lowlevel import Server

from mcp_taskruns.servers.mcp import backlog
from mcp_taskruns.servers.mcp.pipes import _open_pipes
from mcp_taskruns.servers.mcp.stdio import _serve
from tests.servers.mcp.test_stdio import INITIALIZE, modern, running
from tests.timing import PATIENCE, scaled

pytestmark = pytest.mark.anyio

Json = dict[str, Any]

LARGE = "x" * 300_000
"""More than a pipe and the buffer of the writer hold."""


class Peer:
    """A client at the other end of two pipes, which reads only when it is asked to."""

    def __init__(self, write_fd: int, read_fd: int) -> None:
        self._write_fd = write_fd
        self._read_fd = read_fd
        self._received = b""
        os.set_blocking(write_fd, False)
        os.set_blocking(read_fd, False)

    async def send(self, *messages: Json) -> None:
        data = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
        with anyio.fail_after(PATIENCE):
            while data:
                await anyio.wait_writable(self._write_fd)
                data = data[os.write(self._write_fd, data) :]

    async def send_until_full(self, message: Json) -> int:
        """Send a message until the server reads no more; return how often it was sent as a whole."""
        line = json.dumps(message).encode() + b"\n"
        size = 0
        while True:
            with suppress(BlockingIOError):
                size += os.write(self._write_fd, line[size % len(line) :])
                continue
            await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(0.2) as scope:  # the pipe becomes writable at once if the server reads on
                await anyio.wait_writable(self._write_fd)
            if scope.cancelled_caught:
                return size // len(line)

    async def receive(self) -> Json:
        with anyio.fail_after(PATIENCE):
            while b"\n" not in self._received:
                await anyio.wait_readable(self._read_fd)
                data = os.read(self._read_fd, 1 << 20)
                assert data, "the server closed its output"
                self._received += data
        line, _, self._received = self._received.partition(b"\n")
        message: Json = json.loads(line)
        return message

    async def receive_ids(self, count: int) -> list[int]:
        return [(await self.receive())["id"] for _ in range(count)]


@asynccontextmanager
async def connected(handle: Callable[[str], Awaitable[str]]) -> AsyncIterator[Peer]:
    """Connect a client to a server whose tool calls return what `handle` returns for the name of the tool."""

    async def call_tool(_: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        return types.CallToolResult(content=[types.TextContent(type="text", text=await handle(params.name))])

    server: Server[Any] = Server("test", on_call_tool=call_tool)
    requests_in, requests_out = os.pipe()
    responses_in, responses_out = os.pipe()
    try:
        async with (
            server.lifespan(server) as state,
            _open_pipes(requests_in, responses_out) as (reader, writer),
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(_serve, server, state, reader, writer)
            yield Peer(requests_out, responses_in)
            tasks.cancel_scope.cancel()
    finally:
        for fd in (requests_in, requests_out, responses_in, responses_out):
            os.close(fd)


def call(number: int, name: str = "large") -> Json:
    return modern(number, "tools/call", name=name, arguments={})


def cancel(number: int) -> Json:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}


PING = {"jsonrpc": "2.0", "id": 999, "method": "ping"}


class Handler:
    """Tool calls: `large` returns a long text, another name waits until it is cancelled."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.changed = anyio.Event()

    async def __call__(self, name: str) -> str:
        self.started.append(name)
        self._note()
        if name == "large":
            return LARGE
        try:
            await anyio.sleep_forever()
        except BaseException:
            self.cancelled.append(name)
            self._note()
            raise
        return ""

    def _note(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(PATIENCE):
            while not condition():
                await self.changed.wait()


async def test_no_request_is_started_while_the_client_does_not_read() -> None:
    handler = Handler()
    async with connected(handler) as client:
        await client.send(*map(call, range(200)))
        await handler.wait_until(lambda: bool(handler.started))
        await anyio.wait_all_tasks_blocked()
        assert 0 < len(handler.started) < 10
        assert await client.receive_ids(200) == list(range(200))
    assert len(handler.started) == 200


async def test_no_more_is_read_when_many_requests_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MAX_WAITING_BYTES", 400_000)
    handler = Handler()
    async with connected(handler) as client:
        sent = await client.send_until_full(call(1))
        assert 100 < sent < 5_000
        assert len(handler.started) < 10
        assert await client.receive_ids(100) == [1] * 100
        await client.send_until_full(call(1))


async def test_running_request_is_cancelled_while_the_client_does_not_read() -> None:
    handler = Handler()
    async with connected(handler) as client:
        await client.send(call(1, "slow"), *map(call, range(2, 50)))
        await handler.wait_until(lambda: "slow" in handler.started)
        await anyio.wait_all_tasks_blocked()
        await client.send(cancel(1))
        await handler.wait_until(lambda: handler.cancelled == ["slow"])
        assert len(handler.started) < 10
        assert await client.receive_ids(48) == list(range(2, 50))


async def test_waiting_request_that_is_cancelled_is_never_started() -> None:
    handler = Handler()
    async with connected(handler) as client:
        await client.send(*map(call, range(20)), call(20, "cancelled"), call(21))
        await anyio.wait_all_tasks_blocked()
        await client.send(cancel(20))
        await anyio.wait_all_tasks_blocked()
        assert await client.receive_ids(21) == [*range(20), 21]
    assert "cancelled" not in handler.started


async def test_ping_and_cancellation_do_not_wait_for_requests_in_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MAX_IN_WORK", 2)
    handler = Handler()
    async with connected(handler) as client:
        await client.send(call(1, "one"), call(2, "two"), call(3, "three"), PING)
        assert (await client.receive())["id"] == 999
        assert handler.started == ["one", "two"]
        await client.send(cancel(1))
        await handler.wait_until(lambda: handler.started == ["one", "two", "three"])
        assert handler.cancelled == ["one"]


async def test_messages_keep_their_order_while_the_client_reads() -> None:
    async with connected(Handler()) as client:
        await client.send(INITIALIZE, PING, call(2), {"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert await client.receive_ids(3) == [1, 999, 2]


async def test_invalid_lines_get_their_errors_when_the_client_reads() -> None:
    async with connected(Handler()) as client:
        await client.send(call(1), call(2), {"no": "message"}, call(3))
        await anyio.wait_all_tasks_blocked()
        responses = [await client.receive() for _ in range(4)]
    assert [response["id"] for response in responses] == [1, 2, None, 3]
    assert responses[2]["error"]["code"] == types.PARSE_ERROR


def memory_of(process: subprocess.Popen[bytes]) -> int:
    """Return the most memory that a process has had, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def wait_until_idle(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process sleeps and has done nothing for a while."""
    stat = Path(f"/proc/{process.pid}/stat")
    deadline, since, previous = time.monotonic() + PATIENCE, time.monotonic(), [""]
    while time.monotonic() - since < 0.5:
        state, *counters = stat.read_text().rpartition(")")[2].split()
        current = [state, *counters[10:12]]
        if state != "S" or current != previous:
            since, previous = time.monotonic(), current
        assert time.monotonic() < deadline
        time.sleep(0.02)  # the system reports no event when a process becomes idle


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")
def test_unread_responses_take_little_memory() -> None:
    with running() as process:
        process.handshake()
        wait_until_idle(process.child)
        before = memory_of(process.child)
        process.send(*({"jsonrpc": "2.0", "id": number, "method": "tools/list"} for number in range(3_000)))
        wait_until_idle(process.child)
        assert memory_of(process.child) - before < 40_000_000


@pytest.mark.parametrize(
    ("amount", "reason"),
    [
        ("some", "closed input"),
        ("some", signal.SIGINT),
        ("some", signal.SIGTERM),
        ("as many as fit", "closed input"),
        ("as many as fit", signal.SIGTERM),
    ],
    ids=str,
)
def test_server_stops_in_time_while_its_client_does_not_read(amount: str, reason: str | signal.Signals) -> None:
    with running() as process:
        assert process.child.stdin
        process.handshake()
        request = {"jsonrpc": "2.0", "id": 5, "method": "tools/list"}
        if amount == "some":
            process.send(*[request] * 200)
        else:
            _send_until_full(process.child, json.dumps(request).encode() + b"\n")
        if isinstance(reason, signal.Signals):
            process.child.send_signal(reason)
        else:
            process.child.stdin.close()
        code, took, log = process.wait()
    assert (code, log) == (0, "")
    assert took < scaled(2)


def _send_until_full(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin
    fd = process.stdin.fileno()
    os.set_blocking(fd, False)
    since = time.monotonic()
    lines = line * 1_000
    while time.monotonic() - since < 1:
        with suppress(BlockingIOError):
            os.write(fd, lines)
            since = time.monotonic()
            continue
        time.sleep(0.02)  # until the server has read, or does not read any more
