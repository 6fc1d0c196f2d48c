"""Event streams to their end: nothing lost, nothing doubled, whatever becomes of the connection."""

import gzip
import itertools
import json
import random
import re
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from mcp.client import Client

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.runs.events import Progress
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.errors import CallError, ProviderError, UpstreamError
from mcp_taskruns.servers.mcp.server import build_server
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.server import serve
from tests.clients import open_gateway
from tests.clock import pass_time, settle
from tests.timing import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

TASK = "11111111-1111-4111-8111-111111111111"
RUN = "cccccccc-cccc-4ccc-8ccc-cccccccccccc"
IDS = {"task_id": TASK, "id": RUN}
POSTHOG = "posthog-stream-task-run"
RENDER = "render-stream-realtime-events-sse"


class Connection:
    """A connection on which a provider answers; a stream that is not ended when its script returns is cut off."""

    def __init__(self, stream: anyio.abc.SocketStream, head: str) -> None:
        self.head = head
        self.at = anyio.current_time()
        self.was_left = anyio.Event()
        self._stream = stream

    @property
    def last_event_id(self) -> str | None:
        found = re.search(r"^Last-Event-ID: (.*?)\r$", self.head, re.MULTILINE | re.IGNORECASE)
        return found and found[1]

    async def answer(self, status: str, body: str = "", headers: str = "Content-Type: application/json\r\n") -> None:
        data = body.encode()
        head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        await self._stream.send(head.encode() + data)

    async def open(self, body: str | bytes = b"", headers: str = "Content-Type: text/event-stream\r\n") -> None:
        await self._stream.send(f"HTTP/1.1 200 OK\r\n{headers}Transfer-Encoding: chunked\r\n\r\n".encode())
        await self.send(body)

    async def send(self, body: str | bytes) -> None:
        data = body.encode() if isinstance(body, str) else body
        if data:
            await self._stream.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        await self._stream.send(b"0\r\n\r\n")

    async def stay(self) -> None:
        """Send nothing more, until the client leaves."""
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            await self._stream.receive()
        self.was_left.set()


Script = Callable[[Connection], Awaitable[None]]


class Provider:
    """PostHog and Render on a raw socket: the streams are scripted, the runs stand in `states`."""

    def __init__(self, scripts: Iterable[Script], states: Mapping[str, str]) -> None:
        self.streams: list[Connection] = []
        self.reads: list[str] = []
        self.states = {RUN: "in_progress", **states}
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

    async def opened(self, number: int) -> Connection:
        """The stream of this number, as soon as it is asked for."""
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
                await self._answer(Connection(stream, received.decode()))

    async def _answer(self, connection: Connection) -> None:
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
        if run_id in self.states:
            await connection.answer("200 OK", json.dumps({"id": run_id, "status": self.states[run_id]}))
        else:
            await connection.answer("404 Not Found", '{"message":"task run not found"}')


@asynccontextmanager
async def provider(*scripts: Script, **states: str) -> AsyncIterator[Provider]:
    """A provider whose streams follow the scripts, one by one and then the last again."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", backlog=512)
    serving = Provider(scripts, {name.replace("_", "-"): state for name, state in states.items()})
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serving.serve)
        serving.origin = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        yield serving
        tasks.cancel_scope.cancel()


class Call:
    """A call under way: what it has told, and in the end its outcome or its error."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.told: list[Progress] = []
        self.error: CallError | None = None
        self.news = anyio.Event()
        self.finished = anyio.Event()
        self._outcome: CallResult | None = None

    async def report(self, progress: Progress) -> None:
        self.told.append(progress)
        self.news.set()
        self.news = anyio.Event()

    async def run(self, tool: str, arguments: Mapping[str, Any]) -> None:
        try:
            self._outcome = await self.gateway.call(tool, arguments, self.report)
        except CallError as exc:
            self.error = exc
        self.finished.set()

    async def until_told(self, count: int) -> None:
        with anyio.fail_after(PATIENCE):
            while len(self.told) < count:
                await self.news.wait()

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

    @property
    def lines(self) -> list[str]:
        return [progress.message for progress in self.told]


@asynccontextmanager
async def calling(
    environment: Mapping[str, str], tool: str, arguments: Mapping[str, Any], **settings: object
) -> AsyncIterator[Call]:
    """A call under way in the block, after which it is waited for."""
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
    async with calling(environment, tool, arguments, **settings) as call:
        pass
    return call


def said(text: str) -> dict[str, Any]:
    """A log entry as PostHog's stream has it."""
    params = {"sessionId": RUN, "level": "info", "message": text}
    notification = {"jsonrpc": "2.0", "method": "_posthog/console", "params": params}
    return {"type": "notification", "notification": notification}


def entry(number: int) -> str:
    """An event with an id."""
    return f"id: {number}-0\ndata: {json.dumps(said(f'line {number}'))}\n\n"


def entries(count: int, first: int = 1) -> str:
    return "".join(map(entry, range(first, first + count)))


def state(status: str, number: int) -> str:
    data = {"type": "task_run_state", "run_id": RUN, "status": status, "stage": None, "error_message": None}
    return f"id: {number}-0\ndata: {json.dumps(data)}\n\n"


def ended_run(run_id: str, status: str = "completed", **more: Any) -> str:
    """Render's event: always the same name and id."""
    return f"id: 0\nevent: task.completed\ndata: {json.dumps({'id': run_id, 'status': status, **more})}\n\n"


def numbers(ids: Iterable[str]) -> list[int]:
    return [int(text.partition("-")[0]) for text in ids]


def sends(body: str | bytes, headers: str = "Content-Type: text/event-stream\r\n") -> Script:
    """Sends this and ends the stream."""

    async def script(connection: Connection) -> None:
        await connection.open(body, headers)
        await connection.end()

    return script


def cuts(body: str | bytes) -> Script:
    """Sends this and drops the connection."""

    async def script(connection: Connection) -> None:
        await connection.open(body)

    return script


def stays(body: str | bytes) -> Script:
    """Sends this and then nothing, without an end."""

    async def script(connection: Connection) -> None:
        await connection.open(body)
        await connection.stay()

    return script


def refuses(status: str, body: str = '{"detail":"no"}', headers: str = "") -> Script:
    async def script(connection: Connection) -> None:
        await connection.answer(status, body, f"Content-Type: application/json\r\n{headers}")

    return script


@pytest.fixture
def longest_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """No luck: each pause is as long as it can be."""
    monkeypatch.setattr(random, "uniform", lambda _, high: high)


# What a call returns.


async def test_each_event_is_one_progress_in_order_and_one_entry_of_the_result() -> None:
    async with provider(sends(entries(3) + state("completed", 4))) as posthog:
        call = await follow(posthog.environment)
    assert [(progress.progress, progress.total, progress.message) for progress in call.told] == [
        (1, None, "console: line 1"),
        (2, None, "console: line 2"),
        (3, None, "console: line 3"),
        (4, None, f"{RUN}: succeeded"),
    ]
    assert call.value == {
        "ended": "terminal",
        "runs": {RUN: "succeeded"},
        "resume": {},
        "events": [
            {"event": "message", "id": "1-0", "data": said("line 1")},
            {"event": "message", "id": "2-0", "data": said("line 2")},
            {"event": "message", "id": "3-0", "data": said("line 3")},
            {
                "event": "message",
                "id": "4-0",
                "data": {
                    "type": "task_run_state",
                    "run_id": RUN,
                    "status": "completed",
                    "stage": None,
                    "error_message": None,
                },
            },
        ],
    }
    assert call.outcome.notes == (f"Run {RUN}: succeeded (completed).", "All followed runs have ended.")
    assert len(posthog.streams) == 1


async def test_a_stream_that_is_closed_before_its_run_has_ended_says_how_to_go_on() -> None:
    async with provider(sends(entries(2))) as posthog:
        call = await follow(posthog.environment)
    assert call.value["ended"] == "closed"
    assert call.value["runs"] == {RUN: "running"}
    assert call.value["resume"] == {**IDS, "Last-Event-ID": "2-0"}


# Connections that are lost.


@pytest.mark.usefixtures("longest_pauses")
async def test_an_event_that_is_cut_in_its_middle_is_none_and_comes_whole_by_the_next_connection() -> None:
    whole = entry(2)
    async with (
        provider(cuts(entry(1) + whole[: len(whole) // 2]), sends(whole + entry(3))) as posthog,
        calling(posthog.environment, POSTHOG, IDS) as call,
    ):
        await call.until_told(1)
        await pass_time(1.5)
    assert numbers(call.ids) == [1, 2, 3]
    assert call.lines == ["console: line 1", "console: line 2", "console: line 3"]
    assert [connection.last_event_id for connection in posthog.streams] == [None, "1-0"]


async def test_wherever_a_connection_is_cut_nothing_is_lost_or_doubled() -> None:
    short = [f"id: {number}\ndata: {number}\n\n" for number in (1, 2, 3)]
    whole = "retry: 0\n\n" + "".join(short)

    async def go_on(connection: Connection) -> None:
        await connection.open("".join(short[int(connection.last_event_id or 0) :]))
        await connection.end()

    for place in range(len(whole)):
        async with provider(cuts(whole[:place]), go_on) as posthog:
            async with calling(posthog.environment, POSTHOG, IDS) as call:
                await pass_time(1)
            assert [event["data"] for event in call.value["events"]] == [1, 2, 3], whole[:place]
            assert [progress.message for progress in call.told] == ["message: 1", "message: 2", "message: 3"]
            assert len(posthog.streams) == 2


async def test_a_server_that_resumes_too_early_doubles_nothing() -> None:
    async with provider(cuts("retry: 0\n\n" + entries(3)), sends(entries(4, first=2))) as posthog:
        call = await follow(posthog.environment)
    assert numbers(call.ids) == [1, 2, 3, 4, 5]
    assert len(call.told) == 5


async def test_without_ids_what_is_sent_again_from_the_beginning_is_not_doubled() -> None:
    first = "".join(f"data: {text}\n\n" for text in ("a", "a", "b"))
    async with provider(cuts("retry: 0\n\n" + first), sends(first + "data: b\n\ndata: c\n\n")) as posthog:
        call = await follow(posthog.environment)
    # What is said twice was said twice.
    assert [event["data"] for event in call.value["events"]] == ["a", "a", "b", "b", "c"]
    assert len(call.told) == 5
    assert posthog.streams[1].last_event_id is None


async def test_without_ids_what_is_not_sent_again_is_not_taken_for_a_repetition() -> None:
    async with provider(cuts("retry: 0\n\ndata: a\n\ndata: b\n\n"), sends("data: b\n\ndata: c\n\n")) as posthog:
        call = await follow(posthog.environment)
    assert [event["data"] for event in call.value["events"]] == ["a", "b", "b", "c"]


@pytest.mark.parametrize("cut_after", [1, 2, 3])
async def test_a_replay_that_is_cut_too_doubles_nothing(cut_after: int) -> None:
    frames = [f"data: {text}\n\n" for text in "abcd"]
    cut = "".join(frames[:cut_after])
    scripts = [cuts("retry: 0\n\n" + "".join(frames[:2])), cuts(cut), sends("".join(frames))]
    async with provider(*scripts) as posthog:
        call = await follow(posthog.environment)
    assert [event["data"] for event in call.value["events"]] == ["a", "b", "c", "d"]


async def test_the_ends_that_render_tells_to_each_connection_anew_are_not_doubled() -> None:
    retry = "retry: 2000\n\n"
    scripts = [cuts(retry + ended_run("trn-a")), sends(retry + ended_run("trn-a") + ended_run("trn-b", "failed"))]
    async with (
        provider(*scripts, trn_a="running", trn_b="running") as render,
        calling(render.environment, RENDER, {"taskRunIds": ["trn-a", "trn-b"]}) as call,
    ):
        await call.until_told(1)
        await pass_time(2.5)
    assert [(progress.progress, progress.total, progress.message) for progress in call.told] == [
        (1, 2, "trn-a: succeeded"),
        (2, 2, "trn-b: failed"),
    ]
    assert [event["data"]["id"] for event in call.value["events"]] == ["trn-a", "trn-b"]
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {"trn-a": "succeeded", "trn-b": "failed"})
    assert call.value["resume"] == {}


async def test_an_end_that_render_words_differently_the_second_time_is_not_doubled() -> None:
    scripts = [
        cuts("retry: 0\n\n" + ended_run("trn-a", attempts=1)),
        sends(ended_run("trn-a", attempts=2) + ended_run("trn-b")),
    ]
    async with provider(*scripts, trn_a="running", trn_b="running") as render:
        call = await follow(render.environment, RENDER, {"taskRunIds": ["trn-a", "trn-b"]})
    assert [event["data"]["id"] for event in call.value["events"]] == ["trn-a", "trn-b"]
    assert call.lines == ["trn-a: succeeded", "trn-b: succeeded"]


async def test_the_time_to_reconnect_is_the_servers_word() -> None:
    async with (
        provider(cuts("retry: 3000\n\n" + entry(1)), cuts(entry(2)), sends(entry(3))) as posthog,
        calling(posthog.environment, POSTHOG, IDS) as call,
    ):
        await call.until_told(1)
        await pass_time(7)
    assert numbers(call.ids) == [1, 2, 3]
    first, second, third = (connection.at for connection in posthog.streams)
    assert 3 <= second - first < 3.5
    assert 3 <= third - second < 3.5


@pytest.mark.usefixtures("longest_pauses")
async def test_connecting_again_takes_longer_each_time_and_is_given_up_with_what_was_received() -> None:
    async with (
        provider(cuts(entries(2)), cuts("")) as posthog,
        calling(posthog.environment, POSTHOG, IDS, wait_seconds=100.0) as call,
    ):
        await pass_time(40)
    arrivals = [connection.at for connection in posthog.streams]
    pauses = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    assert pauses == pytest.approx([1, 2, 4, 8, 10], abs=0.3)
    assert call.value["ended"] == "error"
    assert call.value["reason"] == (
        "the connection to posthog was lost before its response was complete; 5 new connections did not help"
    )
    assert numbers(call.ids) == [1, 2]
    assert call.value["resume"] == {**IDS, "Last-Event-ID": "2-0"}
    assert call.outcome.notes[-1].startswith("The stream failed; the events before the failure are listed.")


async def test_pauses_before_connecting_again_are_not_all_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    monkeypatch.setattr(random, "uniform", uniform)
    async with provider(cuts(entry(1)), cuts("")) as posthog:
        await follow(posthog.environment)
    assert asked == [(0, 1), (0, 2), (0, 4), (0, 8), (0, 10)]


@pytest.mark.usefixtures("longest_pauses")
async def test_a_connection_that_brings_an_event_begins_the_count_anew() -> None:
    scripts = [cuts(entry(number)) for number in range(1, 12)]
    async with (
        provider(*scripts, sends(entry(12))) as posthog,
        calling(posthog.environment, POSTHOG, IDS) as call,
    ):
        await pass_time(13)
    assert numbers(call.ids) == list(range(1, 13))


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("404 Not Found", "the provider returned 404: no"),
        ("401 Unauthorized", "the provider returned 401: no"),
        ("400 Bad Request", "the provider returned 400: no"),
    ],
)
async def test_a_refusal_that_will_not_pass_is_not_tried_again(status: str, reason: str) -> None:
    async with provider(cuts("retry: 0\n\n" + entry(1)), refuses(status)) as posthog:
        call = await follow(posthog.environment)
    assert (call.value["ended"], call.value["reason"]) == ("error", reason)
    assert numbers(call.ids) == [1]
    assert len(posthog.streams) == 2


async def test_a_provider_that_is_asked_too_often_is_asked_again_when_it_says() -> None:
    scripts = [
        cuts("retry: 0\n\n" + entry(1)),
        refuses("429 Too Many Requests", headers="Retry-After: 7\r\n"),
        sends(entry(2)),
    ]
    async with provider(*scripts) as posthog, calling(posthog.environment, POSTHOG, IDS) as call:
        await posthog.opened(2)
        await pass_time(8)
    assert numbers(call.ids) == [1, 2]
    assert 7 <= posthog.streams[2].at - posthog.streams[1].at < 7.5
    assert posthog.streams[2].last_event_id == "1-0"


@pytest.mark.usefixtures("longest_pauses")
@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable"])
async def test_a_provider_that_has_a_problem_for_a_while_is_asked_again(status: str) -> None:
    scripts = [cuts(entry(1)), refuses(status), refuses(status), sends(entry(2))]
    async with provider(*scripts) as posthog, calling(posthog.environment, POSTHOG, IDS) as call:
        await pass_time(8)
    assert numbers(call.ids) == [1, 2]
    assert len(posthog.streams) == 4


async def change(environment: Mapping[str, str], **body: str) -> None:
    """Have PostHog's run change, of which its stream tells."""
    gateway = open_gateway(environment)
    with anyio.fail_after(PATIENCE):
        await gateway.call("posthog-update-task-run", {**IDS, "body": body}, ignore)
    await gateway.aclose()


async def ignore(_: Progress) -> None:
    """A caller that does not look at progress."""


@pytest.mark.usefixtures("longest_pauses")
async def test_a_provider_that_is_down_for_a_while_is_found_again(simulator: Simulator) -> None:
    async with AsyncExitStack() as server:
        origin = await server.enter_async_context(serve(simulator))
        environment = simulator.environment(origin)
        async with calling(environment, POSTHOG, IDS) as call:
            await call.until_told(1)
            await server.aclose()
            await pass_time(2)
            assert not call.finished.is_set()
            await server.enter_async_context(serve(simulator, port=int(origin.rpartition(":")[2])))
            await pass_time(4)
            await change(environment, status="completed")
    assert call.value["ended"] == "terminal"
    assert call.lines[-1] == f"{RUN}: succeeded, build"
    assert len(set(call.ids)) == len(call.ids) == len(call.told)


@pytest.mark.usefixtures("longest_pauses")
async def test_ten_lost_connections_lose_and_double_nothing(simulator: Simulator) -> None:
    async with serve(simulator) as origin:
        environment = simulator.environment(origin)
        async with calling(environment, POSTHOG, IDS) as call:
            for number in range(10):
                await change(environment, stage=f"stage {number}")
                await settle()
                assert simulator.drop_connections("posthog") == 1
                await change(environment, stage=f"stage {number} and a half")
                await pass_time(1.25)
            await change(environment, status="completed")
        undisturbed = await follow(environment)
    assert sum("/stream/" in request.path for request in simulator.requests) == 12
    assert len(undisturbed.ids) > 20
    assert call.ids == undisturbed.ids
    assert call.value["events"] == undisturbed.value["events"]
    assert call.lines == undisturbed.lines
    assert [progress.progress for progress in call.told] == list(range(1, len(call.ids) + 1))


async def test_a_hundred_streams_that_lose_their_connections_at_once_all_go_on() -> None:
    retry = "retry: 1000\n\n"
    connected = 0

    async def script(connection: Connection) -> None:
        nonlocal connected
        connected += 1
        if connection.last_event_id:
            await connection.open(entry(2))
            await connection.end()
        else:
            await connection.open(retry + entry(1))
            while connected < 100:
                await anyio.lowlevel.checkpoint()

    async with provider(script) as posthog, AsyncExitStack() as stack:
        gateway = open_gateway(posthog.environment)
        stack.push_async_callback(gateway.aclose)
        calls = [Call(gateway) for _ in range(100)]
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for call in calls:
            tasks.start_soon(call.run, POSTHOG, IDS)
        for call in calls:
            await call.until_told(1)
        for _ in range(10):  # the sockets are real: on a busy machine they take some of our time more
            await pass_time(3)
        assert sum(call.finished.is_set() for call in calls) == 100
    assert [(call.value["ended"], numbers(call.ids)) for call in calls] == [("closed", [1, 2])] * 100


async def test_a_hundred_streams_at_once_leave_room_for_what_else_has_to_be_asked() -> None:
    async with provider(stays(ended_run("trn-a")), trn_a="running") as render, AsyncExitStack() as stack:
        gateway = open_gateway(render.environment)
        stack.push_async_callback(gateway.aclose)
        calls = [Call(gateway) for _ in range(100)]
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for call in calls:
            tasks.start_soon(call.run, RENDER, {"taskRunIds": ["trn-a"]})
        await render.opened(100)
        await pass_time(4)
        assert sum(call.finished.is_set() for call in calls) == 100
    assert {call.value["ended"] for call in calls} == {"terminal"}


async def test_a_stream_that_is_asked_for_with_a_write_is_never_asked_for_again(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text(
        "naftiko: 1.0.0-alpha2\nprefix: odd\ncapability:\n  consumes:\n  - namespace: a\n    baseUri: ORIGIN\n"
        "    resources: [{path: /runs/stream/, operations: [{name: b, method: POST}]}]\n"
        "  exposes:\n  - type: mcp\n    tools: [{name: t, call: a.b}]\n"
    )
    async with provider(cuts("retry: 0\n\n" + entry(1))) as odd:
        file = tmp_path / "odd.yaml"
        file.write_text(file.read_text().replace("ORIGIN", odd.origin))
        call = await follow({}, "odd-t", {}, capabilities=(str(tmp_path),))
    assert (call.value["ended"], numbers(call.ids)) == ("error", [1])
    assert call.value["reason"] == "the connection to odd was lost before its response was complete"
    assert len(odd.streams) == 1
    assert odd.streams[0].head.startswith("POST ")


# What a stream may hold.


async def test_posthogs_error_event_ends_the_call_with_its_words() -> None:
    error = 'event: error\ndata: {"error": "Stream timeout"}\n\n'
    async with provider(sends(entry(1) + error)) as posthog:
        call = await follow(posthog.environment)
    assert (call.value["ended"], call.value["reason"]) == ("error", "error: Stream timeout")
    assert [event.get("id") for event in call.value["events"]][:1] == ["1-0"]
    assert call.lines == ["console: line 1", "error: Stream timeout"]
    assert call.value["resume"] == {**IDS, "Last-Event-ID": "1-0"}


async def test_keepalives_are_no_events() -> None:
    keepalives = (
        ": ping\n\n"
        'event: keepalive\ndata: {"type":"keepalive"}\n\n'
        'data: {"type":"keepalive"}\n\n'
        "event: ping\ndata: 1\n\n"
        "id: 1-0\n\n"
        "retry: 100\n\n"
    )
    async with provider(sends(entry(1) + keepalives + entry(2) + keepalives)) as posthog:
        call = await follow(posthog.environment)
    assert numbers(call.ids) == [1, 2]
    assert len(call.told) == 2


async def test_an_id_that_comes_alone_is_where_to_go_on() -> None:
    async with provider(cuts("retry: 0\n\n" + entry(1) + "id: 5-0\n\n"), sends(entry(6))) as posthog:
        call = await follow(posthog.environment)
    assert posthog.streams[1].last_event_id == "5-0"
    assert numbers(call.ids) == [1, 6]


async def test_a_compressed_stream_is_told_event_by_event() -> None:
    compressor = zlib.compressobj(wbits=31)
    second = anyio.Event()

    async def script(connection: Connection) -> None:
        headers = "Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"
        await connection.open(compressor.compress(entry(1).encode()) + compressor.flush(zlib.Z_SYNC_FLUSH), headers)
        await second.wait()
        await connection.send(compressor.compress(entry(2).encode()) + compressor.flush())
        await connection.end()

    async with provider(script) as posthog, calling(posthog.environment, POSTHOG, IDS) as call:
        await call.until_told(1)
        second.set()
    assert numbers(call.ids) == [1, 2]
    assert call.value["ended"] == "closed"


async def test_a_compressed_stream_that_is_cut_goes_on_with_the_next_connection() -> None:
    packed = gzip.compress((entries(2) + "retry: 0\n\n").encode())
    headers = "Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"

    async def script(connection: Connection) -> None:
        await connection.open(packed[:-8], headers)

    async with provider(script, sends(entry(3))) as posthog:
        call = await follow(posthog.environment)
    assert numbers(call.ids) == [1, 2, 3]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'data: {"a": "\xff\xfe"}\n\n', "text that is not UTF-8"),
        (b"<!DOCTYPE html>\n" + b"<p>Bad gateway</p>\n" * 10_000, "text that has no events: <!DOCTYPE html>"),
    ],
    ids=["invalid UTF-8", "HTML"],
)
async def test_what_is_no_event_stream_ends_the_call_with_a_clear_reason(body: bytes, told: str) -> None:
    async with provider(sends(body + entry(9).encode())) as posthog:
        call = await follow(posthog.environment)
    assert call.value["ended"] == "error"
    assert call.value["reason"].startswith(f"posthog sent {told}")
    assert call.value["events"] == []
    assert len(posthog.streams) == 1


async def test_text_that_is_not_utf_8_ends_the_call_and_keeps_what_was_received() -> None:
    async with provider(sends(entries(2).encode() + b"data: \xff\n\n" + entry(3).encode())) as posthog:
        call = await follow(posthog.environment)
    assert call.value["ended"] == "error"
    assert call.value["reason"] == "posthog sent text that is not UTF-8 instead of an event stream"
    assert numbers(call.ids) == [1, 2]
    assert len(call.told) == 2
    assert call.value["resume"] == {**IDS, "Last-Event-ID": "2-0"}
    assert call.outcome.notes[-1].startswith("The stream failed; the events before the failure are listed.")
    assert len(posthog.streams) == 1


async def test_a_page_in_the_middle_of_a_stream_is_left_out() -> None:
    page = "<html>\n" + "<p>Bad gateway</p>\n" * 10_000 + "\n"
    async with provider(sends(entries(2) + page + entry(3))) as posthog:
        call = await follow(posthog.environment)
    assert numbers(call.ids) == [1, 2, 3]


async def test_a_line_without_end_ends_the_call_in_bounded_memory_and_keeps_what_was_received() -> None:
    sent = 0

    async def script(connection: Connection) -> None:
        nonlocal sent
        await connection.open(entry(1) + "data: ")
        while sent < 200_000_000:
            await connection.send(b"x" * 1_000_000)
            sent += 1_000_000

    async with provider(script) as posthog:
        tracemalloc.start()
        call = await follow(posthog.environment)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (call.value["ended"], call.value["reason"]) == (
        "error",
        "posthog sent a line that does not end instead of an event stream",
    )
    assert numbers(call.ids) == [1]
    assert sent < 100_000_000
    assert peak < 60_000_000


async def test_an_event_of_a_megabyte_is_cut_and_the_others_stay_whole() -> None:
    long = f"id: 2-0\ndata: {json.dumps(said('x' * 1_048_576))}\n\n"
    async with provider(sends(entry(1) + long + entry(3))) as posthog:
        call = await follow(posthog.environment)
    first, cut, third = call.value["events"]
    assert (first, third) == (
        {"event": "message", "id": "1-0", "data": said("line 1")},
        {"event": "message", "id": "3-0", "data": said("line 3")},
    )
    assert (cut["truncated"], cut["id"], cut["data"]["type"]) == (True, "2-0", "notification")
    assert cut["data"]["notification"]["params"]["message"].startswith("xxx")
    assert len(call.outcome.text) <= 50_000
    assert all(len(line) <= 180 for line in call.lines)


async def test_an_event_that_is_longer_than_is_kept_is_cut_and_the_next_one_is_read() -> None:
    long = f"id: 2-0\ndata: {'x' * 9_000_000}\n\n"
    async with provider(sends(entry(1) + long + entry(3))) as posthog:
        call = await follow(posthog.environment)
    assert numbers(call.ids) == [1, 2, 3]
    assert [event.get("truncated", False) for event in call.value["events"]] == [False, True, False]


async def test_an_answer_that_is_no_event_stream_is_an_error() -> None:
    page = sends("<html><title>Sign in</title></html>", "Content-Type: text/html\r\n")
    async with provider(page) as posthog:
        call = await follow(posthog.environment)
    assert isinstance(call.error, UpstreamError)
    assert call.error.message == "posthog returned 200 without an event stream"


async def test_a_reconnection_that_brings_no_event_stream_keeps_what_was_received() -> None:
    page = sends("<html><title>Sign in</title></html>", "Content-Type: text/html\r\n")
    async with provider(cuts("retry: 0\n\n" + entries(2)), page) as posthog:
        call = await follow(posthog.environment)
    assert (call.value["ended"], call.value["reason"]) == ("error", "posthog returned 200 without an event stream")
    assert numbers(call.ids) == [1, 2]
    assert len(posthog.streams) == 2


async def test_a_stream_that_is_refused_is_an_error() -> None:
    async with provider(refuses("404 Not Found")) as posthog:
        call = await follow(posthog.environment)
    assert isinstance(call.error, ProviderError)
    assert (call.error.status, call.error.message) == (404, "the provider returned 404: no")


# Bounds.


@pytest.mark.parametrize(
    ("arguments", "settings", "seconds"),
    [
        ({}, {}, 45),
        ({}, {"wait_seconds": 20.0}, 20),
        ({"wait_seconds": 7}, {"wait_seconds": 20.0}, 7),
        ({"wait_seconds": 30}, {"wait_seconds": 20.0}, 30),
        ({"wait_seconds": 100_000}, {"max_wait_seconds": 12.0}, 12),
        ({}, {"max_wait_seconds": 12.0}, 12),
    ],
)
async def test_following_ends_when_its_time_is_over(
    arguments: dict[str, Any], settings: dict[str, Any], seconds: float
) -> None:
    async with (
        provider(stays(entry(1))) as posthog,
        calling(posthog.environment, POSTHOG, IDS | arguments, **settings) as call,
    ):
        await call.until_told(1)
        await pass_time(seconds - 1)
        assert not call.finished.is_set()
        await pass_time(2)
        assert call.finished.is_set()
        with anyio.fail_after(PATIENCE):
            await posthog.streams[0].was_left.wait()
    assert call.value["ended"] == "wait_over"
    assert call.value["resume"] == {**IDS, **arguments, "Last-Event-ID": "1-0"}
    assert call.outcome.notes == (
        f"Run {RUN}: running (in_progress).",
        "The time limit of this call was reached, and the stream continues. Nothing was cancelled."
        " To continue, call again with the arguments in resume.",
    )
    assert "wait_seconds" not in posthog.streams[0].head


async def test_no_time_at_all_is_enough_to_say_how_to_go_on() -> None:
    async with provider(stays("")) as posthog:
        call = await follow(posthog.environment, arguments={**IDS, "wait_seconds": 0})
    assert (call.value["ended"], call.value["events"]) == ("wait_over", [])


async def answer_from(connection: Connection, last: int) -> None:
    """PostHog's stream: what comes after the last event that the client has."""
    after = int((connection.last_event_id or "0").partition("-")[0])
    await connection.open(entries(last - after, first=after + 1))
    await connection.end()


async def test_calls_that_end_at_their_bound_on_events_go_on_exactly() -> None:
    async with provider(lambda connection: answer_from(connection, 10)) as posthog:
        arguments: dict[str, Any] = dict(IDS)
        found: list[int] = []
        ends: list[str] = []
        for _ in range(3):
            call = await follow(posthog.environment, arguments=arguments, stream_events=4)
            found += numbers(call.ids)
            ends.append(call.value["ended"])
            arguments = call.value["resume"]
    assert found == list(range(1, 11))
    assert ends == ["event_limit", "event_limit", "closed"]


async def test_a_result_that_is_full_lists_the_first_events_and_goes_on_after_the_last_of_them() -> None:
    async with provider(lambda connection: answer_from(connection, 100)) as posthog:
        arguments: dict[str, Any] = dict(IDS)
        found: list[int] = []
        calls = 0
        while len(found) < 100:
            call = await follow(posthog.environment, arguments=arguments, max_result_chars=4_000)
            calls += 1
            assert len(call.outcome.text) <= 4_000
            # What is not listed is told all the same.
            assert len(call.told) == 100 - len(found)
            if len(found) + len(call.ids) < 100:
                assert f"Listed are the first {len(call.ids)} of {100 - len(found)} events" in call.outcome.notes[-1]
            found += numbers(call.ids)
            arguments = call.value["resume"]
            assert arguments["Last-Event-ID"] == f"{found[-1]}-0"
    assert found == list(range(1, 101))
    assert calls < 12


async def test_the_list_ends_with_the_first_event_that_does_not_fit_though_a_later_one_would() -> None:
    long = "".join(f"id: {number}-0\ndata: {json.dumps(said('x' * 450))}\n\n" for number in range(1, 6))
    async with provider(sends(long + entry(6))) as posthog:
        call = await follow(posthog.environment, max_result_chars=4_000)
    assert numbers(call.ids) == [1, 2, 3, 4]
    assert call.value["resume"]["Last-Event-ID"] == "4-0"


async def test_ends_of_runs_that_did_not_fit_are_in_the_arguments_to_go_on_with() -> None:
    ids = [f"trn-{number:02}" for number in range(10)]
    body = "".join(ended_run(run_id, results=["x" * 300]) for run_id in ids)
    async with provider(sends(body), **dict.fromkeys(ids, "running")) as render:
        call = await follow(render.environment, RENDER, {"taskRunIds": ids}, max_result_chars=2_000)
    listed = [event["data"]["id"] for event in call.value["events"]]
    assert 0 < len(listed) < 10
    assert listed + call.value["resume"]["taskRunIds"] == ids
    assert call.value["runs"] == dict.fromkeys(ids, "succeeded")
    assert call.value["ended"] == "terminal"


# Silence.


async def test_a_silent_stream_gives_a_sign_of_life_at_least_every_ten_seconds() -> None:
    moments: list[float] = []
    async with (
        provider(stays(entry(1))) as posthog,
        calling(posthog.environment, POSTHOG, {**IDS, "wait_seconds": 100}) as call,
    ):
        report = call.report

        async def timed(progress: Progress) -> None:
            moments.append(anyio.current_time())
            await report(progress)

        call.report = timed  # type: ignore[method-assign]  # the call has the old one already
        await call.until_told(1)
        for count in range(2, 12):
            await pass_time(10)
            assert len(call.told) >= count
        await pass_time(2)
    amounts = [progress.progress for progress in call.told]
    assert all(earlier < later for earlier, later in itertools.pairwise(amounts))
    assert amounts[0] == 1
    assert amounts[-1] < 2
    assert call.lines[1] == "9 s, no news: console: line 1"


async def test_a_stream_that_says_nothing_at_all_gives_signs_of_life() -> None:
    keepalive = 'event: keepalive\ndata: {"type":"keepalive"}\n\n'
    async with provider(stays(keepalive)) as posthog, calling(posthog.environment, POSTHOG, IDS) as call:
        await pass_time(50)
    seconds = [int(line.removesuffix(" s")) for line in call.lines]
    assert len(seconds) >= 4
    assert all(9 <= later - earlier <= 10 for earlier, later in itertools.pairwise([0, *seconds]))
    assert call.value["events"] == []


# Runs that are watched.


async def test_a_run_that_was_canceled_before_is_no_reason_to_wait(simulator: Simulator) -> None:
    canceled = "trn-d5im0000000000000003"
    async with serve(simulator) as origin:
        call = await follow(simulator.environment(origin), RENDER, {"taskRunIds": [canceled]})
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {canceled: "canceled"})
    assert call.value["resume"] == {}


async def test_a_run_that_was_canceled_before_does_not_hide_the_end_of_another() -> None:
    async with (
        provider(stays(ended_run("trn-b")), trn_a="canceled", trn_b="running") as render,
        calling(render.environment, RENDER, {"taskRunIds": ["trn-a", "trn-b"]}) as call,
    ):
        await call.until_told(1)
        await pass_time(1)
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {"trn-a": "canceled", "trn-b": "succeeded"})
    assert [(progress.progress, progress.total) for progress in call.told] == [(2, 2)]


async def test_a_canceled_run_ends_the_call_though_the_server_never_closes_the_stream() -> None:
    async with provider(stays("retry: 2000\n\n"), trn_a="canceled") as render:
        call = await follow(render.environment, RENDER, {"taskRunIds": ["trn-a"]})
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {"trn-a": "canceled"})
    assert call.outcome.notes[0] == "Run trn-a: canceled."


async def test_a_run_that_is_canceled_while_it_is_followed_ends_the_call(simulator: Simulator) -> None:
    running = "trn-d5im0000000000000004"
    async with serve(simulator) as origin:
        environment = simulator.environment(origin)
        async with calling(environment, RENDER, {"taskRunIds": [running]}) as call:
            await pass_time(1)
            gateway = open_gateway(environment)
            await gateway.call("render-cancel-task-run", {"taskRunId": running}, ignore)
            await gateway.aclose()
            await pass_time(1)
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {running: "canceled"})
    assert [event["data"]["status"] for event in call.value["events"]] == ["canceled"]


async def test_a_run_that_is_canceled_while_the_connection_is_lost_ends_the_call() -> None:
    gone = anyio.Event()

    async def first(connection: Connection) -> None:
        await connection.open("retry: 2000\n\n")
        await gone.wait()

    async with (
        provider(first, stays(""), trn_a="running") as render,
        calling(render.environment, RENDER, {"taskRunIds": ["trn-a"]}) as call,
    ):
        await settle()
        render.states["trn-a"] = "canceled"
        gone.set()
        await pass_time(10)
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {"trn-a": "canceled"})


async def test_a_run_that_had_ended_and_is_not_told_again_ends_the_call() -> None:
    async with (
        provider(stays(""), trn_a="completed") as render,
        calling(render.environment, RENDER, {"taskRunIds": ["trn-a"]}) as call,
    ):
        await pass_time(6)
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {"trn-a": "succeeded"})


async def test_when_all_runs_have_ended_a_stream_that_is_never_closed_is_left() -> None:
    async with (
        provider(stays(ended_run("trn-a") + ended_run("trn-b", "failed")), trn_a="running", trn_b="running") as render,
        calling(render.environment, RENDER, {"taskRunIds": ["trn-a", "trn-b"]}) as call,
    ):
        await call.until_told(2)
        await pass_time(3)
        assert call.finished.is_set()
        with anyio.fail_after(PATIENCE):
            await render.streams[0].was_left.wait()
    assert call.value["ended"] == "terminal"
    assert call.outcome.notes == (
        "Runs trn-a: succeeded (completed); trn-b: failed.",
        "All followed runs have ended.",
    )
    # The states before, so that none is missed; the events tell the rest.
    assert sorted(render.reads) == ["trn-a", "trn-b"]


async def test_what_posthog_says_after_the_end_of_a_run_is_listed_too() -> None:
    async with (
        provider(stays(entry(1) + state("completed", 2) + entry(3))) as posthog,
        calling(posthog.environment, POSTHOG, IDS) as call,
    ):
        await call.until_told(3)
        await pass_time(1)
    assert numbers(call.ids) == [1, 2, 3]
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {RUN: "succeeded"})


async def test_what_comes_slowly_after_the_end_of_a_run_is_listed_as_long_as_it_comes() -> None:
    async def script(connection: Connection) -> None:
        await connection.open(state("completed", 1))
        for number in range(2, 7):
            await anyio.sleep(1)  # of the driven clock
            await connection.send(entry(number))
        await connection.end()

    async with provider(script) as posthog, calling(posthog.environment, POSTHOG, IDS) as call:
        await pass_time(8)
    assert numbers(call.ids) == [1, 2, 3, 4, 5, 6]
    assert (call.value["ended"], call.value["resume"]) == ("terminal", {})


async def test_two_events_that_tell_the_end_of_a_run_are_two_events() -> None:
    async with provider(sends(state("completed", 1) + entry(2) + state("completed", 3))) as posthog:
        call = await follow(posthog.environment)
    assert numbers(call.ids) == [1, 2, 3]


async def test_a_run_that_is_resumed_after_its_end_is_followed_on() -> None:
    again = state("completed", 1) + state("queued", 2) + state("in_progress", 3)

    async def script(connection: Connection) -> None:
        await connection.open(again)
        await anyio.sleep(10)  # of the driven clock
        await connection.send(state("failed", 4))
        await connection.end()

    async with provider(script) as posthog, calling(posthog.environment, POSTHOG, IDS) as call:
        await pass_time(12)
    assert numbers(call.ids) == [1, 2, 3, 4]
    assert call.value["runs"] == {RUN: "failed"}


@pytest.mark.usefixtures("longest_pauses")
async def test_a_connection_that_is_dead_without_a_word_is_made_anew() -> None:
    last = sends(entry(2) + state("completed", 3))
    async with (
        provider(stays(entry(1)), last) as posthog,
        calling(posthog.environment, POSTHOG, {**IDS, "wait_seconds": 120}) as call,
    ):
        await call.until_told(1)
        await pass_time(70)
        assert len(posthog.streams) == 1
        await pass_time(10)
        assert posthog.streams[1].last_event_id == "1-0"
    assert numbers(call.ids) == [1, 2, 3]


async def test_a_server_that_is_slow_to_answer_is_no_reason_for_silence() -> None:
    async def script(connection: Connection) -> None:
        await anyio.sleep(25)  # of the driven clock
        await connection.open(state("completed", 1))
        await connection.end()

    async with provider(script) as posthog, calling(posthog.environment, POSTHOG, IDS) as call:
        await pass_time(21)
        assert [progress.message for progress in call.told] == ["9 s", "18 s"]
        await pass_time(6)
    assert call.value["ended"] == "terminal"


@pytest.mark.usefixtures("longest_pauses")
async def test_connections_that_hold_for_a_while_are_no_failures() -> None:
    async def script(connection: Connection) -> None:
        await connection.open(": ping\n\n")
        await anyio.sleep(11)  # of the driven clock

    scripts = [*[script] * 8, sends(state("completed", 1))]
    async with (
        provider(*scripts) as posthog,
        calling(posthog.environment, POSTHOG, {**IDS, "wait_seconds": 300}) as call,
    ):
        await pass_time(8 * 12 + 2)
    assert (call.value["ended"], len(posthog.streams)) == ("terminal", 9)


async def test_the_runs_that_go_on_are_what_to_go_on_with() -> None:
    async with (
        provider(stays(ended_run("trn-a")), trn_a="running", trn_b="running") as render,
        calling(render.environment, RENDER, {"taskRunIds": ["trn-a", "trn-b"], "wait_seconds": 5}) as call,
    ):
        await pass_time(6)
    assert (call.value["ended"], call.value["runs"]) == ("wait_over", {"trn-a": "succeeded", "trn-b": "running"})
    assert call.value["resume"] == {"taskRunIds": ["trn-b"], "wait_seconds": 5}


@pytest.mark.usefixtures("longest_pauses")
async def test_a_state_that_cannot_be_read_for_a_moment_does_not_end_a_stream_that_goes_on() -> None:
    body = ended_run("trn-a")

    async def script(connection: Connection) -> None:
        await connection.open()
        await pause.wait()
        await connection.send(body)
        await connection.end()

    pause = anyio.Event()
    async with provider(script, trn_a="running") as render:
        answer = Connection.answer

        async def busy(self: Connection, status: str, *more: Any) -> None:
            await answer(self, "503 Service Unavailable", "{}")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Connection, "answer", busy)
            async with calling(render.environment, RENDER, {"taskRunIds": ["trn-a"]}) as call:
                await settle()
                pause.set()
                await pass_time(5)
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {"trn-a": "succeeded"})


# How a call ends from outside.


async def test_cancelling_the_call_while_it_waits_to_connect_again_ends_it_at_once() -> None:
    told = anyio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.set()

    async with (
        provider(cuts("retry: 60000\n\n" + entry(1))) as posthog,
        Client(build_server(open_gateway(posthog.environment)), mode="legacy") as client,
    ):
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                await client.call_tool(POSTHOG, IDS, progress_callback=on_progress)

            tasks.start_soon(call)
            with anyio.fail_after(PATIENCE):
                await told.wait()
            await settle()
            began = anyio.current_time()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(PATIENCE):
            assert (await client.list_tools()).tools
        assert anyio.current_time() - began < 1
        await pass_time(100)
    assert len(posthog.streams) == 1


@pytest.mark.parametrize("moment", ["while following", "while waiting to connect again"])
async def test_stopping_the_server_ends_the_call_at_once(moment: str) -> None:
    following_on = stays(entry(1)) if moment == "while following" else cuts("retry: 60000\n\n" + entry(1))
    async with provider(following_on) as posthog, calling(posthog.environment, POSTHOG, IDS) as call:
        await call.until_told(1)
        await settle()
        call.gateway.stop()
        await settle()
        assert call.finished.is_set()
        if moment == "while following":
            with anyio.fail_after(PATIENCE):
                await posthog.streams[0].was_left.wait()
    assert call.error
    assert (call.error.message, call.error.retryable) == ("this server is stopping", True)
    assert call.error.hint == "The run at the provider goes on."


# Secrets.


async def test_secrets_are_masked_in_events_and_in_the_arguments_to_go_on_with() -> None:
    key = "phx_simulated"
    event = f"id: {key}\nevent: log\ndata: {json.dumps(said(f'my key is {key}'))}\n\n"
    async with provider(cuts("retry: 0\n\n" + event), sends("")) as posthog:
        call = await follow(posthog.environment)
    assert call.lines == ["console: my key is [secret]"]
    assert call.value["events"] == [{"event": "log", "id": "[secret]", "data": said("my key is [secret]")}]
    assert call.value["resume"]["Last-Event-ID"] == "[secret]"
    # The provider that gave it gets it back.
    assert posthog.streams[1].last_event_id == key
    assert key not in call.outcome.text + str(call.outcome.notes) + str(call.told)


async def test_a_secret_in_the_reason_of_an_end_is_masked() -> None:
    error = 'event: error\ndata: {"error": "bad key phx_simulated"}\n\n'
    async with provider(sends(error)) as posthog:
        call = await follow(posthog.environment)
    assert call.value["reason"] == "error: bad key [secret]"


# Speed and memory.


class Flood:
    """Sends so many events as fast as they are taken."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.sent = 0

    async def __call__(self, connection: Connection) -> None:
        await connection.open()
        await self.send(connection)
        await connection.end()

    async def send(self, connection: Connection) -> None:
        while self.sent < self.count:
            step = min(100, self.count - self.sent)
            await connection.send(entries(step, first=self.sent + 1))
            self.sent += step


class Traced(Flood):
    """Measures the memory that the last four fifths of the events take."""

    grown = peak = 0

    async def __call__(self, connection: Connection) -> None:
        count, self.count = self.count, self.count // 5
        await connection.open()
        await self.send(connection)
        self.count = count
        tracemalloc.start()
        await self.send(connection)
        self.grown, self.peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        await connection.end()


async def test_at_full_speed_memory_stays_flat() -> None:
    flood = Traced(25_000)  # over a real transport it is a hundred thousand: test_long_streams.py
    async with provider(flood) as posthog:
        call = Call(open_gateway(posthog.environment, stream_events=1_000_000))
        with anyio.fail_after(50):
            await call.run(POSTHOG, {**IDS, "wait_seconds": 500})
        await call.gateway.aclose()
    assert call.value["ended"] == "closed"
    assert "of 25,000 events" in call.outcome.notes[-1]
    assert stands_for(call.lines) == 25_000
    # Twenty thousand events are 4 MB as text, more than 20 as objects; 2 MB are on their way between the two sockets.
    assert flood.grown < 3_000_000
    assert flood.peak < 5_000_000


async def test_at_full_speed_every_event_is_in_the_result_up_to_its_bound() -> None:
    async with provider(Flood(5_000)) as posthog:
        call = await follow(posthog.environment, stream_events=5_000, max_result_chars=5_000_000)
    assert numbers(call.ids) == list(range(1, 5_001))
    assert stands_for(call.lines) == 5_000
    assert len(call.told) < 1_000


def stands_for(lines: Iterable[str]) -> int:
    """How many events the notifications stand for, by their own word."""
    counts = (re.match(r"([\d,]+) events, the last: ", line) for line in lines)
    return sum(int(found[1].replace(",", "")) if found else 1 for found in counts)


async def test_a_client_that_does_not_read_holds_up_the_provider() -> None:
    flood = Flood(500_000)
    reads = anyio.Event()
    told: list[Progress] = []

    async def report(progress: Progress) -> None:
        await reads.wait()
        told.append(progress)

    async with provider(flood) as posthog:
        gateway = open_gateway(posthog.environment, stream_events=2_000)
        outcomes: list[CallResult] = []

        async def call() -> None:
            outcomes.append(await gateway.call(POSTHOG, IDS, report))

        tracemalloc.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await posthog.opened(1)
            sent = -1
            while sent != flood.sent:
                sent = flood.sent
                await settle()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert 0 < sent < 250_000  # what fits the system's own buffers
            assert peak < 20_000_000
            assert told == []
            reads.set()
        await gateway.aclose()
    assert outcomes[0].value["ended"] == "event_limit"
    assert stands_for(progress.message for progress in told) == 2_000


async def test_a_client_that_does_not_read_does_not_keep_the_result() -> None:
    async def report(_: Progress) -> None:
        await anyio.sleep_forever()

    async with provider(stays(entries(300))) as posthog:
        gateway = open_gateway(posthog.environment)
        outcomes: list[CallResult] = []

        async def call() -> None:
            outcomes.append(await gateway.call(POSTHOG, IDS, report))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await posthog.opened(1)
            await pass_time(45)
            await pass_time(2)
            assert outcomes
        await gateway.aclose()
    assert outcomes[0].value["ended"] == "wait_over"
    assert outcomes[0].value["resume"]["Last-Event-ID"] == outcomes[0].value["events"][-1]["id"]
