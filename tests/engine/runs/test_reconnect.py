"""Reconnecting event streams: no event is lost or repeated, with backoff and a limit."""

import gzip
import itertools
import random
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from mcp_taskruns.engine.runs.reconnect import MAX_RECONNECTS
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.server import serve
from tests.clients import open_gateway
from tests.clock import pass_time, settle
from tests.engine.runs.scripted import (
    IDS,
    POSTHOG,
    RENDER,
    RUN,
    Call,
    Connection,
    calling,
    follow,
    log_event,
    log_events,
    numbers_of,
    reject,
    scripted_provider,
    send_and_drop,
    send_and_end,
    send_and_hold,
    status_event,
    terminal_event,
    update_run,
)

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]


@pytest.mark.usefixtures("longest_backoff")
async def test_partial_event_of_a_dropped_connection_is_ignored_and_received_again() -> None:
    complete = log_event(2)
    async with (
        scripted_provider(
            send_and_drop(log_event(1) + complete[: len(complete) // 2]), send_and_end(complete + log_event(3))
        ) as posthog,
        calling(posthog.environment, POSTHOG, IDS) as call,
    ):
        await call.wait_for_progress(1)
        await pass_time(1.5)
    assert numbers_of(call.ids) == [1, 2, 3]
    assert call.lines == ["console: line 1", "console: line 2", "console: line 3"]
    assert [connection.last_event_id for connection in posthog.streams] == [None, "1-0"]


async def test_no_event_is_lost_or_repeated_wherever_the_connection_is_dropped() -> None:
    events = [f"id: {number}\ndata: {number}\n\n" for number in (1, 2, 3)]
    complete = "retry: 0\n\n" + "".join(events)

    async def resume(connection: Connection) -> None:
        await connection.open("".join(events[int(connection.last_event_id or 0) :]))
        await connection.end()

    for size in range(len(complete)):
        async with scripted_provider(send_and_drop(complete[:size]), resume) as posthog:
            async with calling(posthog.environment, POSTHOG, IDS) as call:
                await pass_time(1)
            assert [event["data"] for event in call.value["events"]] == [1, 2, 3], complete[:size]
            assert [progress.message for progress in call.progress] == ["message: 1", "message: 2", "message: 3"]
            assert len(posthog.streams) == 2


async def test_replayed_events_with_ids_are_not_repeated() -> None:
    async with scripted_provider(
        send_and_drop("retry: 0\n\n" + log_events(3)), send_and_end(log_events(4, first=2))
    ) as posthog:
        call = await follow(posthog.environment)
    assert numbers_of(call.ids) == [1, 2, 3, 4, 5]
    assert len(call.progress) == 5


async def test_replayed_events_without_ids_are_not_repeated() -> None:
    first = "".join(f"data: {text}\n\n" for text in ("a", "a", "b"))
    async with scripted_provider(
        send_and_drop("retry: 0\n\n" + first), send_and_end(first + "data: b\n\ndata: c\n\n")
    ) as posthog:
        call = await follow(posthog.environment)
    # Equal events on one connection are different events.
    assert [event["data"] for event in call.value["events"]] == ["a", "a", "b", "b", "c"]
    assert len(call.progress) == 5
    assert posthog.streams[1].last_event_id is None


async def test_events_without_ids_that_are_not_a_replay_are_kept() -> None:
    async with scripted_provider(
        send_and_drop("retry: 0\n\ndata: a\n\ndata: b\n\n"), send_and_end("data: b\n\ndata: c\n\n")
    ) as posthog:
        call = await follow(posthog.environment)
    assert [event["data"] for event in call.value["events"]] == ["a", "b", "b", "c"]


@pytest.mark.parametrize("dropped_after", [1, 2, 3])
async def test_replay_that_is_dropped_too_repeats_no_event(dropped_after: int) -> None:
    frames = [f"data: {text}\n\n" for text in "abcd"]
    partial = "".join(frames[:dropped_after])
    scripts = [
        send_and_drop("retry: 0\n\n" + "".join(frames[:2])),
        send_and_drop(partial),
        send_and_end("".join(frames)),
    ]
    async with scripted_provider(*scripts) as posthog:
        call = await follow(posthog.environment)
    assert [event["data"] for event in call.value["events"]] == ["a", "b", "c", "d"]


async def test_terminal_events_that_render_sends_on_each_connection_are_not_repeated() -> None:
    retry = "retry: 2000\n\n"
    scripts = [
        send_and_drop(retry + terminal_event("trn-a")),
        send_and_end(retry + terminal_event("trn-a") + terminal_event("trn-b", "failed")),
    ]
    async with (
        scripted_provider(*scripts, trn_a="running", trn_b="running") as render,
        calling(render.environment, RENDER, {"taskRunIds": ["trn-a", "trn-b"]}) as call,
    ):
        await call.wait_for_progress(1)
        await pass_time(2.5)
    assert call.lines == ["trn-a: succeeded (event)", "trn-b: failed (event)"]
    assert [event["data"]["id"] for event in call.value["events"]] == ["trn-a", "trn-b"]
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {"trn-a": "succeeded", "trn-b": "failed"})
    assert call.value["resume"] == {}


async def test_terminal_event_with_changed_data_is_not_repeated() -> None:
    scripts = [
        send_and_drop("retry: 2000\n\n" + terminal_event("trn-a", attempts=1)),
        send_and_drop("retry: 2000\n\n" + terminal_event("trn-a", attempts=2)),
        send_and_end(terminal_event("trn-a", attempts=3) + terminal_event("trn-b")),
    ]
    async with (
        scripted_provider(*scripts, trn_a="running", trn_b="running") as render,
        calling(render.environment, RENDER, {"taskRunIds": ["trn-a", "trn-b"]}) as call,
    ):
        await call.wait_for_progress(1)
        await pass_time(5)
    # The first event may report an attempt; the second comes after a read of the run that has ended.
    assert [event["data"].get("attempts") for event in call.value["events"]] == [1, 2, None]


@pytest.mark.parametrize(("field", "longest"), [("-5", 1.0), ("soon", 1.0), ("99999999999", 30.0)])
@pytest.mark.usefixtures("longest_backoff")
async def test_unreasonable_retry_field_does_not_delay_the_reconnection(field: str, longest: float) -> None:
    async with (
        scripted_provider(send_and_drop(f"retry: {field}\n\n" + log_event(1)), send_and_end(log_event(2))) as posthog,
        calling(posthog.environment, POSTHOG, IDS) as call,
    ):
        await pass_time(longest - 0.5)
        assert len(posthog.streams) == 1
        await pass_time(1)
    assert numbers_of(call.ids) == [1, 2]


@pytest.mark.parametrize("event", ["", log_event(1)], ids=["without events", "with an event"])
@pytest.mark.usefixtures("longest_backoff")
async def test_reconnects_less_and_less_often_to_a_stream_that_ends_at_once(event: str) -> None:
    async with (
        scripted_provider(send_and_end(f"retry: 0\n\n{event}", has_run_ended=False)) as posthog,
        calling(posthog.environment, POSTHOG, {**IDS, "wait_seconds": 30}) as call,
    ):
        await pass_time(31)
    assert call.value["ended"] == "wait_over"
    starts = [round(connection.opened_at) for connection in posthog.streams]
    assert starts == [0, 1, 3, 7, 15, 25]


async def test_reconnects_after_the_retry_field_of_the_stream() -> None:
    async with (
        scripted_provider(
            send_and_drop("retry: 3000\n\n" + log_event(1)), send_and_drop(log_event(2)), send_and_end(log_event(3))
        ) as posthog,
        calling(posthog.environment, POSTHOG, IDS) as call,
    ):
        await call.wait_for_progress(1)
        await pass_time(7)
    assert numbers_of(call.ids) == [1, 2, 3]
    first, second, third = (connection.opened_at for connection in posthog.streams)
    assert 3 <= second - first < 3.5
    assert 3 <= third - second < 3.5


@pytest.mark.usefixtures("longest_backoff")
async def test_reconnects_with_backoff_and_returns_the_received_events_after_five_failures() -> None:
    async with (
        scripted_provider(send_and_drop(log_events(2)), send_and_drop("")) as posthog,
        calling(posthog.environment, POSTHOG, IDS, wait_seconds=100.0) as call,
    ):
        await pass_time(40)
    times = [connection.opened_at for connection in posthog.streams]
    backoffs = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert backoffs == pytest.approx([1, 2, 4, 8, 10], abs=0.3)
    assert call.value["ended"] == "error"
    assert call.value["reason"] == (
        "the connection to posthog was lost before its response was complete; 5 reconnections failed"
    )
    assert numbers_of(call.ids) == [1, 2]
    assert call.value["resume"] == {**IDS, "Last-Event-ID": "2-0"}
    assert call.outcome.notes[-1].startswith("The stream failed; the events before the failure are listed.")


async def test_reconnect_backoff_is_random_and_its_limit_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        limits.append((low, high))
        return low

    monkeypatch.setattr(random, "uniform", uniform)
    async with scripted_provider(send_and_drop(log_event(1)), send_and_drop("")) as posthog:
        await follow(posthog.environment)
    assert limits == [(0, 1), (0, 2), (0, 4), (0, 8), (0, 10)]


@pytest.mark.usefixtures("longest_backoff")
async def test_connection_with_an_event_resets_the_reconnect_limit() -> None:
    scripts = [send_and_drop(log_event(number)) for number in range(1, 12)]
    async with (
        scripted_provider(*scripts, send_and_end(log_event(12))) as posthog,
        calling(posthog.environment, POSTHOG, IDS) as call,
    ):
        await pass_time(13)
    assert numbers_of(call.ids) == list(range(1, 13))


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("404 Not Found", 'the provider returned 404: "no"'),
        ("401 Unauthorized", 'the provider returned 401: "no"'),
        ("400 Bad Request", 'the provider returned 400: "no"'),
    ],
)
async def test_does_not_reconnect_after_a_permanent_error(status: str, reason: str) -> None:
    async with scripted_provider(send_and_drop("retry: 0\n\n" + log_event(1)), reject(status)) as posthog:
        call = await follow(posthog.environment)
    assert (call.value["ended"], call.value["reason"]) == ("error", reason)
    assert numbers_of(call.ids) == [1]
    assert len(posthog.streams) == 2


async def test_reconnects_after_the_retry_after_of_429() -> None:
    scripts = [
        send_and_drop("retry: 0\n\n" + log_event(1)),
        reject("429 Too Many Requests", headers="Retry-After: 7\r\n"),
        send_and_end(log_event(2)),
    ]
    async with scripted_provider(*scripts) as posthog, calling(posthog.environment, POSTHOG, IDS) as call:
        await posthog.wait_for_stream(2)
        await pass_time(8)
    assert numbers_of(call.ids) == [1, 2]
    assert 7 <= posthog.streams[2].opened_at - posthog.streams[1].opened_at < 7.5
    assert posthog.streams[2].last_event_id == "1-0"


@pytest.mark.usefixtures("longest_backoff")
@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable"])
async def test_reconnects_after_502_and_503(status: str) -> None:
    scripts = [send_and_drop(log_event(1)), reject(status), reject(status), send_and_end(log_event(2))]
    async with scripted_provider(*scripts) as posthog, calling(posthog.environment, POSTHOG, IDS) as call:
        await pass_time(8)
    assert numbers_of(call.ids) == [1, 2]
    assert len(posthog.streams) == 4


@pytest.mark.usefixtures("longest_backoff")
async def test_reconnects_after_a_restart_of_the_provider(simulator: Simulator) -> None:
    async with AsyncExitStack() as server:
        origin = await server.enter_async_context(serve(simulator))
        environment = simulator.environment(origin)
        async with calling(environment, POSTHOG, IDS) as call:
            await call.wait_for_progress(1)
            await server.aclose()
            await pass_time(2)
            assert not call.finished.is_set()
            await server.enter_async_context(serve(simulator, port=int(origin.rpartition(":")[2])))
            await pass_time(4)
            await update_run(environment, status="completed")
    assert call.value["ended"] == "terminal"
    assert call.lines[-1] == f"{RUN}: succeeded, build (event)"
    assert len(set(call.ids)) == len(call.ids) == len(call.progress)


@pytest.mark.usefixtures("longest_backoff")
async def test_ten_dropped_connections_lose_and_repeat_no_event(simulator: Simulator) -> None:
    async with serve(simulator) as origin:
        environment = simulator.environment(origin)
        async with calling(environment, POSTHOG, IDS) as call:
            for number in range(10):
                await update_run(environment, stage=f"stage {number}")
                await settle()
                assert simulator.drop_connections("posthog") == 1
                await update_run(environment, stage=f"stage {number}, disconnected")
                await pass_time(1.25)
            await update_run(environment, status="completed")
        complete = await follow(environment)
    assert sum("/stream/" in request.path for request in simulator.requests) == 12
    assert len(complete.ids) > 20
    assert call.ids == complete.ids
    assert call.value["events"] == complete.value["events"]
    assert call.lines == complete.lines
    call.assert_progress_is_time(45)


async def test_100_streams_dropped_at_once_all_reconnect() -> None:
    retry = "retry: 1000\n\n"
    connected = 0

    async def script(connection: Connection) -> None:
        nonlocal connected
        connected += 1
        if connection.last_event_id:
            await connection.open(log_event(2))
            await connection.end()
        else:
            await connection.open(retry + log_event(1))
            while connected < 100:
                await anyio.lowlevel.checkpoint()

    async with scripted_provider(script) as posthog, AsyncExitStack() as stack:
        gateway = open_gateway(posthog.environment)
        stack.push_async_callback(gateway.aclose)
        calls = [Call(gateway) for _ in range(100)]
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for call in calls:
            tasks.start_soon(call.run, POSTHOG, {**IDS, "wait_seconds": 120})
        for call in calls:
            await call.wait_for_progress(1)
        # The sockets are real, and 500 requests in a minute are more than the rate limit of PostHog.
        for _ in range(30):
            await pass_time(3)
        assert sum(call.finished.is_set() for call in calls) == 100
    assert [(call.value["ended"], numbers_of(call.ids)) for call in calls] == [("terminal", [1, 2])] * 100


async def test_does_not_reconnect_a_stream_that_is_requested_with_post(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text(
        "naftiko: 1.0.0-alpha2\nprefix: odd\ncapability:\n  consumes:\n  - namespace: a\n    baseUri: ORIGIN\n"
        "    resources: [{path: /runs/stream/, operations: [{name: b, method: POST}]}]\n"
        "  exposes:\n  - type: mcp\n    tools: [{name: t, call: a.b}]\n"
    )
    async with scripted_provider(send_and_drop("retry: 0\n\n" + log_event(1))) as odd:
        file = tmp_path / "odd.yaml"
        file.write_text(file.read_text().replace("ORIGIN", odd.origin))
        call = await follow({}, "odd-t", {}, capabilities=(str(tmp_path),))
    assert (call.value["ended"], numbers_of(call.ids)) == ("error", [1])
    assert call.value["reason"] == "the connection to odd was lost before its response was complete"
    assert len(odd.streams) == 1
    assert odd.streams[0].head.startswith("POST ")


@pytest.mark.usefixtures("longest_backoff")
async def test_reconnects_a_connection_without_data_for_over_a_minute() -> None:
    last = send_and_end(log_event(2) + status_event("completed", 3))
    async with (
        scripted_provider(send_and_hold(log_event(1)), last) as posthog,
        calling(posthog.environment, POSTHOG, {**IDS, "wait_seconds": 120}) as call,
    ):
        await call.wait_for_progress(1)
        await pass_time(70)
        assert len(posthog.streams) == 1
        await pass_time(10)
        assert posthog.streams[1].last_event_id == "1-0"
    assert numbers_of(call.ids) == [1, 2, 3]


@pytest.mark.usefixtures("longest_backoff")
async def test_long_connection_without_events_resets_the_reconnect_limit() -> None:
    async def script(connection: Connection) -> None:
        await connection.open(": ping\n\n")
        await anyio.sleep(11)  # of the driven clock

    scripts = [*[script] * 8, send_and_end(status_event("completed", 1))]
    async with (
        scripted_provider(*scripts) as posthog,
        calling(posthog.environment, POSTHOG, {**IDS, "wait_seconds": 300}) as call,
    ):
        await pass_time(8 * 12 + 2)
    assert (call.value["ended"], len(posthog.streams)) == ("terminal", 9)


async def test_reconnects_a_truncated_compressed_stream() -> None:
    compressed = gzip.compress((log_events(2) + "retry: 0\n\n").encode())
    headers = "Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"

    async def script(connection: Connection) -> None:
        await connection.open(compressed[:-8], headers)

    async with scripted_provider(script, send_and_end(log_event(3))) as posthog:
        call = await follow(posthog.environment)
    assert numbers_of(call.ids) == [1, 2, 3]


async def test_reconnect_without_an_event_stream_keeps_the_received_events() -> None:
    page = send_and_end("<html><title>Sign in</title></html>", "Content-Type: text/html\r\n", has_run_ended=False)
    async with scripted_provider(send_and_drop("retry: 0\n\n" + log_events(2)), page) as posthog:
        call = await follow(posthog.environment)
    assert call.value["ended"] == "error"
    assert 'an HTML page instead of an event stream: "Sign in"' in call.value["reason"]
    assert numbers_of(call.ids) == [1, 2]
    assert len(posthog.streams) == 1 + MAX_RECONNECTS
