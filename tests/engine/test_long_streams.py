"""Long event streams over stdio and HTTP: events in real time, and a flood as fast as possible."""

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp.client import Client
from mcp.types import CallToolResult, TextContent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.clients import Era, Transport, listening, open_client
from tests.servers.test_http import running, wait_until_listening
from tests.timing import PATIENCE

EVENTS = 200
PER_SECOND = 20
FLOOD_EVENTS = 10_000
"""Together 30 MB, twice as much as the memory of the server may grow."""

FLOWING_EVENTS = 1_000
"""Events after which the memory of the server is measured first."""

MAX_GROWTH_MIB = 15
IDS = {"task_id": "11111111-1111-4111-8111-111111111111", "id": "cccccccc-cccc-4ccc-8ccc-cccccccccccc"}
TRANSPORTS: list[tuple[Transport, Era]] = [("stdio", "legacy"), ("stdio", "auto"), ("http", "legacy"), ("http", "auto")]

pytestmark = [pytest.mark.anyio, pytest.mark.load]

PADDING = "." * 3_000


def entry(number: int, padding: str = "") -> dict[str, object]:
    """Return a log entry as PostHog writes it: products/tasks/backend/models.py."""
    params = {"sessionId": IDS["id"], "level": "info", "message": f"line {number} of the log{padding}"}
    notification = {"jsonrpc": "2.0", "method": "_posthog/console", "params": params}
    return {"type": "notification", "timestamp": "2026-01-31T09:00:00Z", "notification": notification}


PREFIX = "/api/projects/1/tasks/{task}/runs/{run}"


class Paced:
    """A provider that sends events at a fixed rate, of a run that has ended with the first stream."""

    def __init__(self) -> None:
        self._status = "in_progress"
        self.app = Starlette(routes=[Route(f"{PREFIX}/stream/", self._stream), Route(f"{PREFIX}/", self._get_run)])

    async def _stream(self, _: Request) -> Response:
        async def frames() -> AsyncIterator[str]:
            for number in range(EVENTS):
                await anyio.sleep(1 / PER_SECOND)  # the provider sends at this rate: what is tested
                yield f"id: {1_767_225_600_000 + number}-0\ndata: {json.dumps(entry(number))}\n\n"
            self._status = "completed"

        return StreamingResponse(frames(), media_type="text/event-stream")

    async def _get_run(self, _: Request) -> Response:
        return JSONResponse({"id": IDS["id"], "status": self._status})


async def follow_and_check(transport: Transport, era: Era, environment: dict[str, str]) -> None:
    messages: list[str | None] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        messages.append(message)

    async with open_client(transport, era, environment) as client:
        result = await client.call_tool("posthog-stream-task-run", IDS, progress_callback=on_progress)
    block = result.content[0]
    assert isinstance(block, TextContent)
    value = json.loads(block.text)
    assert (value["ended"], value["runs"]) == ("terminal", {IDS["id"]: "succeeded"})
    assert [event["data"] for event in value["events"]] == [entry(number) for number in range(EVENTS)]
    assert messages == [f"console: line {number} of the log" for number in range(EVENTS)]


async def test_each_event_is_one_notification_in_order_and_the_result_is_complete() -> None:
    with anyio.fail_after(2 * PATIENCE):
        async with listening(Paced().app) as origin, anyio.create_task_group() as tasks:
            environment = {
                "POSTHOG_BASE_URL": origin,
                "POSTHOG_API_KEY": "phx_simulated",
                "POSTHOG_PROJECT_ID": "1",
                "MCP_TASKRUNS_MAX_RESULT_CHARS": "1000000",
            }
            for transport, era in TRANSPORTS:
                tasks.start_soon(follow_and_check, transport, era, environment)


class Flood:
    """A provider that sends events as fast as the client reads them."""

    def __init__(self, events: int) -> None:
        self._events = events
        self.sent = 0
        self.is_flowing = anyio.Event()
        self.is_closed = anyio.Event()
        self.app = Starlette(routes=[Route(f"{PREFIX}/stream/", self._stream), Route(f"{PREFIX}/", self._get_run)])

    async def _get_run(self, _: Request) -> Response:
        status = "completed" if self.is_closed.is_set() else "in_progress"
        return JSONResponse({"id": IDS["id"], "status": status})

    async def _stream(self, _: Request) -> Response:
        async def frames() -> AsyncIterator[str]:
            try:
                for first in range(0, self._events, 50):
                    numbers = range(first, first + 50)
                    yield "".join(
                        f"id: {number}-0\ndata: {json.dumps(entry(number, PADDING))}\n\n" for number in numbers
                    )
                    self.sent += 50
                    if self.sent >= FLOWING_EVENTS:
                        self.is_flowing.set()
            finally:
                self.is_closed.set()

        return StreamingResponse(frames(), media_type="text/event-stream")


def resident_mib(pid: int) -> float:
    """Return the memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]  # every process has one


def call_message(wait_seconds: float) -> bytes:
    """Return a call of protocol version 2026-07-28, which has no handshake."""
    meta = {
        "progressToken": "p",
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    }
    params = {"name": "posthog-stream-task-run", "arguments": {**IDS, "wait_seconds": wait_seconds}, "_meta": meta}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode() + b"\n"


HAS_PROC = Path("/proc/self/status").exists()
NEEDS_PROC = pytest.mark.skipif(not HAS_PROC, reason="needs /proc to read the memory of another process")


def environment_at(origin: str) -> dict[str, str]:
    """Return the environment of a server whose PostHog is at `origin`, without a low limit on events."""
    return {
        "POSTHOG_BASE_URL": origin,
        "POSTHOG_API_KEY": "phx_simulated",
        "POSTHOG_PROJECT_ID": "1",
        "MCP_TASKRUNS_STREAM_EVENTS": "1000000",
    }


def count_events(messages: Iterable[str]) -> int:
    """Return the number of events that the notifications report, pooled or not."""
    pooled = [re.match(r"([\d,]+) events, the last: ", message) for message in messages]
    return sum(int(match[1].replace(",", "")) if match else 1 for match in pooled)


@NEEDS_PROC
@pytest.mark.parametrize("reads", [True, False], ids=["client reads", "client does not read"])
async def test_memory_does_not_grow_during_a_flood_of_events_over_stdio(reads: bool) -> None:
    flood = Flood(FLOOD_EVENTS)
    lines: list[bytes] = []
    async with listening(flood.app) as origin:
        environment = {**os.environ, **environment_at(origin)}
        async with await anyio.open_process([sys.executable, "-m", "mcp_taskruns"], env=environment) as process:
            assert process.stdin
            assert process.stdout
            with anyio.fail_after(2 * PATIENCE):
                # A client that does not read blocks the flood until the call times out.
                await process.stdin.send(call_message(PATIENCE if reads else 10))
                await flood.is_flowing.wait()
                before = resident_mib(process.pid)
                if reads:
                    buffer = BufferedByteReceiveStream(process.stdout)
                    while not lines or b'"result"' not in lines[-1]:
                        lines.append(await buffer.receive_until(b"\n", 10_000_000))
                else:
                    await flood.is_closed.wait()
                assert resident_mib(process.pid) - before < MAX_GROWTH_MIB
            process.kill()
    if reads:
        assert count_events(json.loads(line)["params"]["message"] for line in lines[:-1]) == FLOOD_EVENTS
        assert flood.sent == FLOOD_EVENTS


@NEEDS_PROC
@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_memory_does_not_grow_during_a_flood_of_events_over_http(era: Era) -> None:
    flood = Flood(FLOOD_EVENTS)
    messages: list[str] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        messages.append(message or "")

    async with listening(flood.app) as origin:
        with running(environment_at(origin)) as server, anyio.fail_after(2 * PATIENCE):
            url = await anyio.to_thread.run_sync(wait_until_listening, server)
            async with Client(f"{url}/mcp", mode=era) as client, anyio.create_task_group() as tasks:
                results: list[CallToolResult] = []

                async def call() -> None:
                    arguments = {**IDS, "wait_seconds": PATIENCE}
                    tool = "posthog-stream-task-run"
                    results.append(await client.call_tool(tool, arguments, progress_callback=on_progress))
                    tasks.cancel_scope.cancel()

                tasks.start_soon(call)
                await flood.is_flowing.wait()
                before = resident_mib(server.pid)
                await anyio.sleep_forever()
            assert resident_mib(server.pid) - before < MAX_GROWTH_MIB
    block = results[0].content[0]
    assert isinstance(block, TextContent)
    listed = [event["data"] for event in json.loads(block.text)["events"]]
    assert listed == [entry(number, PADDING) for number in range(len(listed))]
    assert len(listed) > 5
    assert count_events(messages) == FLOOD_EVENTS
