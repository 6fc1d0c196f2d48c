"""Calls that follow event streams, and a provider whose streams follow scripts."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.abc

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.progress import Progress
from mcp_taskruns.errors import CallError
from tests.clients import open_gateway
from tests.timing import PATIENCE

TASK = "11111111-1111-4111-8111-111111111111"
RUN = "cccccccc-cccc-4ccc-8ccc-cccccccccccc"
IDS = {"task_id": TASK, "id": RUN}
POSTHOG = "posthog-stream-task-run"
RENDER = "render-stream-realtime-events-sse"


class Connection:
    """A connection to the provider. A stream that its script does not end is dropped when the script returns."""

    def __init__(self, stream: anyio.abc.SocketStream, head: str, statuses: dict[str, str] | None = None) -> None:
        self.head = head
        self._statuses = {} if statuses is None else statuses
        self.opened_at = anyio.current_time()
        self.was_closed = anyio.Event()
        self._stream = stream

    @property
    def last_event_id(self) -> str | None:
        match = re.search(r"^Last-Event-ID: (.*?)\r$", self.head, re.MULTILINE | re.IGNORECASE)
        return match and match[1]

    async def respond(self, status: str, body: str = "", headers: str = "Content-Type: application/json\r\n") -> None:
        data = body.encode()
        head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        await self._stream.send(head.encode() + data)

    async def open(self, body: str | bytes = b"", headers: str = "Content-Type: text/event-stream\r\n") -> None:
        await self._stream.send(f"HTTP/1.1 200 OK\r\n{headers}Transfer-Encoding: chunked\r\n\r\n".encode())
        await self.send(body)

    async def send(self, body: str | bytes) -> None:
        """Send a part of the stream. The runs in it have the status in it, also when they are read."""
        data = body.encode() if isinstance(body, str) else body
        for line in re.findall(rb"^data: (\{.*\})$", data, re.MULTILINE):
            with suppress(ValueError):
                run = json.loads(line)
                run_id = run.get("run_id") or run.get("id")
                if run_id in self._statuses and "status" in run:
                    self._statuses[run_id] = run["status"]
        if data:
            await self._stream.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self, *, has_run_ended: bool = True) -> None:
        """End the stream, as a provider does when the runs have ended."""
        if has_run_ended:
            active = [run_id for run_id, status in self._statuses.items() if status in ("in_progress", "running")]
            self._statuses.update(dict.fromkeys(active, "completed"))
        await self._stream.send(b"0\r\n\r\n")

    async def wait_until_closed(self) -> None:
        """Send nothing more until the client closes the connection."""
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            await self._stream.receive()
        self.was_closed.set()


Script = Callable[[Connection], Awaitable[None]]


class Provider:
    """PostHog and Render on a raw socket, with a script for each stream and the native status of each run."""

    def __init__(self, scripts: Iterable[Script], statuses: Mapping[str, str]) -> None:
        self.streams: list[Connection] = []
        self.reads: list[str] = []
        self.statuses = {RUN: "in_progress", **statuses}
        self.responses: list[tuple[str, str, str]] = []
        """Status, body and headers of the next responses to reads."""
        self.refusals: dict[str, tuple[str, str]] = {}
        """Status and body of all responses to reads of these runs."""
        self._scripts = list(scripts)
        self._opened = anyio.Event()
        self.origin = ""

    @property
    def environment(self) -> dict[str, str]:
        return {
            "POSTHOG_BASE_URL": self.origin,
            "POSTHOG_API_KEY": "phx_simulated",
            "POSTHOG_PROJECT_ID": "1",
            "RENDER_BASE_URL": self.origin,
            "RENDER_API_KEY": "rnd_simulated",
        }

    async def wait_for_stream(self, number: int) -> Connection:
        """Wait until this many streams were requested and return the last one."""
        with anyio.fail_after(PATIENCE):
            while len(self.streams) < number:
                await self._opened.wait()
        return self.streams[number - 1]

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError, ConnectionError):
                received = b""
                while b"\r\n\r\n" not in received:
                    received += await stream.receive()
                await self._respond(Connection(stream, received.decode(), self.statuses))

    async def _respond(self, connection: Connection) -> None:
        path = connection.head.split(" ", 2)[1]
        if re.search(r"/stream/|/events\?", path):
            script = self._scripts[min(len(self.streams), len(self._scripts) - 1)]
            self.streams.append(connection)
            self._opened.set()
            self._opened = anyio.Event()
            await script(connection)
            return
        run_id = path.rstrip("/").rpartition("/")[2]
        self.reads.append(run_id)
        if self.responses:
            await connection.respond(*self.responses.pop(0))
        elif run_id in self.refusals:
            await connection.respond(*self.refusals[run_id])
        elif run_id in self.statuses:
            await connection.respond("200 OK", json.dumps({"id": run_id, "status": self.statuses[run_id]}))
        else:
            await connection.respond("404 Not Found", '{"message":"task run not found"}')


@asynccontextmanager
async def scripted_provider(*scripts: Script, **statuses: str) -> AsyncIterator[Provider]:
    """Serve a provider whose streams run the scripts in order, and then the last one for each further stream."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", backlog=512)
    provider = Provider(scripts, {name.replace("_", "-"): status for name, status in statuses.items()})
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, provider.serve)
        provider.origin = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        yield provider
        tasks.cancel_scope.cancel()


class Call:
    """A running call: its progress, and then its outcome or its error."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.progress: list[Progress] = []
        self.progress_times: list[float] = []
        self.error: CallError | None = None
        self._changed = anyio.Event()
        self.finished = anyio.Event()
        self._outcome: CallResult | None = None

    async def report(self, progress: Progress) -> None:
        self.progress.append(progress)
        self.progress_times.append(anyio.current_time())
        self._changed.set()
        self._changed = anyio.Event()

    async def run(self, tool: str, arguments: Mapping[str, Any]) -> None:
        try:
            self._outcome = await self.gateway.call(tool, arguments, self.report)
        except CallError as exc:
            self.error = exc
        self.finished.set()

    async def wait_for_progress(self, count: int) -> None:
        with anyio.fail_after(PATIENCE):
            while len(self.progress) < count:
                await self._changed.wait()

    @property
    def outcome(self) -> CallResult:
        assert self._outcome is not None, self.error
        return self._outcome

    @property
    def value(self) -> Any:
        return json.loads(self.outcome.text)

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.value["events"]]

    def assert_progress_is_time(self, total: float) -> None:
        """Assert that each progress is greater than the one before, in seconds of this total."""
        values = [progress.progress for progress in self.progress]
        assert values == sorted(set(values))
        assert {progress.total for progress in self.progress} == {total}
        assert all(0 <= value <= total for value in values)

    @property
    def lines(self) -> list[str]:
        return [progress.message for progress in self.progress]


@asynccontextmanager
async def calling(
    environment: Mapping[str, str], tool: str, arguments: Mapping[str, Any], **settings: object
) -> AsyncIterator[Call]:
    """Start a call and wait for it after the block."""
    call = Call(open_gateway(environment, **settings))
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call.run, tool, arguments)
            yield call
            with anyio.fail_after(PATIENCE):
                await call.finished.wait()
    finally:
        await call.gateway.aclose()


async def follow(
    environment: Mapping[str, str], tool: str = POSTHOG, arguments: Mapping[str, Any] = IDS, **settings: object
) -> Call:
    """Make a call and return it when it is over."""
    async with calling(environment, tool, arguments, **settings) as call:
        pass
    return call


def log_entry(text: str) -> dict[str, Any]:
    """Return a log entry with this message as on PostHog's stream."""
    params = {"sessionId": RUN, "level": "info", "message": text}
    notification = {"jsonrpc": "2.0", "method": "_posthog/console", "params": params}
    return {"type": "notification", "notification": notification}


def log_event(number: int) -> str:
    """Return an event with a log entry and this number as its id."""
    return f"id: {number}-0\ndata: {json.dumps(log_entry(f'line {number}'))}\n\n"


def log_events(count: int, first: int = 1) -> str:
    """Return consecutive events with log entries."""
    return "".join(map(log_event, range(first, first + count)))


def status_event(status: str, number: int) -> str:
    """Return an event with a status of PostHog's run and this number as its id."""
    data = {"type": "task_run_state", "run_id": RUN, "status": status, "stage": None, "error_message": None}
    return f"id: {number}-0\ndata: {json.dumps(data)}\n\n"


def terminal_event(run_id: str, status: str = "completed", **more: Any) -> str:
    """Return Render's event of a run with a terminal status, whose name and id are always the same."""
    return f"id: 0\nevent: task.completed\ndata: {json.dumps({'id': run_id, 'status': status, **more})}\n\n"


def numbers_of(ids: Iterable[str]) -> list[int]:
    """Return the numbers of events from their ids."""
    return [int(text.partition("-")[0]) for text in ids]


def send_and_end(
    body: str | bytes, headers: str = "Content-Type: text/event-stream\r\n", *, has_run_ended: bool = True
) -> Script:
    """Return a script that sends this and ends the stream."""

    async def script(connection: Connection) -> None:
        await connection.open(body, headers)
        await connection.end(has_run_ended=has_run_ended)

    return script


def send_and_drop(body: str | bytes) -> Script:
    """Return a script that sends this and drops the connection."""

    async def script(connection: Connection) -> None:
        await connection.open(body)

    return script


def send_and_hold(body: str | bytes) -> Script:
    """Return a script that sends this and keeps the stream open."""

    async def script(connection: Connection) -> None:
        await connection.open(body)
        await connection.wait_until_closed()

    return script


def reject(status: str, body: str = '{"detail":"no"}', headers: str = "") -> Script:
    """Return a script that responds with an error."""

    async def script(connection: Connection) -> None:
        await connection.respond(status, body, f"Content-Type: application/json\r\n{headers}")

    return script


async def ignore(_: Progress) -> None:
    """Ignore progress."""


async def update_run(environment: Mapping[str, str], **body: str) -> None:
    """Update PostHog's run, which sends an event to its streams."""
    gateway = open_gateway(environment)
    with anyio.fail_after(PATIENCE):
        await gateway.call("posthog-update-task-run", {**IDS, "body": body}, ignore)
    await gateway.aclose()


def count_events(lines: Iterable[str]) -> int:
    """Return the number of events that the notifications report, pooled or not."""
    pooled = (re.match(r"([\d,]+) events, the last: ", line) for line in lines)
    return sum(int(match[1].replace(",", "")) if match else 1 for match in pooled)
