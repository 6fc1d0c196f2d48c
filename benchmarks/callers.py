"""Tool calls to a server over stdio or HTTP, and the provider behind it. Every response is checked."""

import asyncio
import contextlib
import itertools
import json
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from harness import HERE, BenchmarkError, Child, Json, StdioClient, encode_request, launched
from http_client import Connection, Session
from upstream import BIG_ID, KEY, SMALL_ID, describe_big_run, describe_run

UPSTREAM = [sys.executable, str(HERE / "upstream.py")]
TOOL = "render-retrieve-task-run"
EXPECTED = {SMALL_ID: describe_run(SMALL_ID), BIG_ID: describe_big_run()}


class Caller(Protocol):
    """Calls the tool of one server over one transport."""

    pid: int

    def prepare(self, in_flight: int) -> None:
        """Open the connections for this number of concurrent calls."""

    def run(self, run_id: str, calls: int, in_flight: int) -> float:
        """Make calls, `in_flight` at a time, and return the size of the largest response in bytes."""


class StdioCaller:
    """Calls over pipes."""

    def __init__(self, child: Child) -> None:
        self.pid = child.pid
        self.client = StdioClient(child)
        self.client.initialize(time.monotonic() + 60)
        self.ids = itertools.count(1)

    def prepare(self, in_flight: int) -> None:
        pass

    def run(self, run_id: str, calls: int, in_flight: int) -> float:
        deadline = time.monotonic() + timeout(calls)
        params = {"name": TOOL, "arguments": {"taskRunId": run_id}}
        pending: set[int] = set()
        largest = sent = 0
        while sent < calls or pending:
            while sent < calls and len(pending) < in_flight:
                request_id = next(self.ids)
                self.client.send(encode_request(request_id, "tools/call", params), deadline)
                pending.add(request_id)
                sent += 1
            line = self.client.receive(deadline)
            message = json.loads(line)
            if "id" in message:
                pending.remove(message["id"])
                check_response(message, run_id)
                largest = max(largest, len(line))
        return largest


class HttpCaller:
    """Calls over keep-alive connections."""

    def __init__(self, child: Child, port: int, version: str) -> None:
        self.pid = child.pid
        self.ids = itertools.count(1)
        self.runner = asyncio.Runner()
        self.connections: list[Connection] = []
        self.session = self.runner.run(asyncio.wait_for(Session.open(port, version, TOOL), 30))

    def prepare(self, in_flight: int) -> None:
        self.runner.run(asyncio.wait_for(self.reconnect(in_flight), 30))

    async def reconnect(self, count: int) -> None:
        for connection in self.connections:
            await connection.close()
        self.connections = [await Connection.open(self.session.port) for _ in range(count)]

    async def reopen_closed(self) -> None:
        """Reopen connections that the server closed after five idle seconds, while the other server was measured."""
        for _ in range(3):
            await asyncio.sleep(0)
        for index, connection in enumerate(self.connections):
            if connection.reader.at_eof():
                await connection.close()
                self.connections[index] = await Connection.open(self.session.port)

    def run(self, run_id: str, calls: int, in_flight: int) -> float:
        return self.runner.run(asyncio.wait_for(self.run_connections(run_id, calls, in_flight), timeout(calls)))

    def close(self) -> None:
        self.prepare(0)
        self.runner.close()

    async def run_connections(self, run_id: str, calls: int, in_flight: int) -> int:
        """Share the calls among the connections and return the size of the largest response."""
        remaining = iter(range(calls))
        await self.reopen_closed()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.run_connection(connection, run_id, remaining))
                for connection in self.connections[:in_flight]
            ]
        return max(task.result() for task in tasks)

    async def run_connection(self, connection: Connection, run_id: str, remaining: Iterator[int]) -> int:
        params = {"name": TOOL, "arguments": {"taskRunId": run_id}}
        largest = 0
        for _ in remaining:
            message, size = await self.session.call(connection, next(self.ids), params)
            check_response(message, run_id)
            largest = max(largest, size)
        return largest


@dataclass(frozen=True)
class Provider:
    """The process of upstream.py."""

    port: int

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of a server for this provider."""
        return {
            "RENDER_BASE_URL": f"http://127.0.0.1:{self.port}/v1",
            "RENDER_API_KEY": KEY,
            "MCP_TASKRUNS_MAX_RESULT_CHARS": "1000000",
            # The limit of 400 reads a minute would be measured instead of the server.
            "MCP_TASKRUNS_NO_RATE_LIMITS": "1",
        }

    def count_requests(self) -> int:
        """Return the number of runs that the provider has sent."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/requests", timeout=10) as response:
            return int(response.read())


def timeout(calls: int) -> float:
    """Return a generous timeout in seconds for a number of calls."""
    return 60 + calls * 0.05


def check_response(message: Json, run_id: str) -> None:
    """Raise BenchmarkError unless the text is the provider's complete response.

    Otherwise the two servers did not do the same work.
    """
    result = message.get("result")
    if not result or result.get("isError") or json.loads(result["content"][0]["text"]) != EXPECTED[run_id]:
        raise BenchmarkError(f"unexpected response of the tool: {json.dumps(message)[:2000]}")


@contextlib.contextmanager
def run_provider() -> Iterator[Provider]:
    """Run upstream.py until the block is left."""
    with launched(UPSTREAM) as child:
        assert child.process.stdout
        yield Provider(int(child.process.stdout.readline()))


@contextlib.contextmanager
def start_caller(command: list[str], version: str, transport: str, provider: Provider) -> Iterator[Caller]:
    """Start a server and yield a caller of its tool."""
    if transport == "stdio":
        with launched(command, provider.environment) as child:
            yield StdioCaller(child)
        return
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with launched([*command, "--transport", "http", "--port", str(port)], provider.environment) as child:
        wait_for_port(port, child)
        with contextlib.closing(HttpCaller(child, port, version)) as caller:
            yield caller


def wait_for_port(port: int, child: Child) -> None:
    """Wait until the server accepts connections. Raises BenchmarkError after 30 seconds."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and child.process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise BenchmarkError(f"no server on port {port}: {child.read_stderr()}")
