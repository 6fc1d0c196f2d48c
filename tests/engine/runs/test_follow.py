"""Following event streams: what a call returns, what a stream may contain, limits, heartbeats and cancellation."""

import itertools
import json
import tracemalloc
import zlib
from typing import Any

import anyio
import pytest
from mcp.client import Client

from mcp_taskruns.engine.runs.reconnect import MAX_RECONNECTS
from mcp_taskruns.errors import ProviderError
from mcp_taskruns.servers.mcp.server import build_server
from tests.clients import open_gateway
from tests.clock import pass_time, settle
from tests.engine.runs.scripted import (
    IDS,
    POSTHOG,
    RENDER,
    RUN,
    Connection,
    calling,
    follow,
    log_entry,
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
)
from tests.timing import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]


# Results


async def test_each_event_is_one_notification_and_one_entry_of_the_result() -> None:
    async with scripted_provider(send_and_end(log_events(3) + status_event("completed", 4))) as posthog:
        call = await follow(posthog.environment)
    assert call.lines == ["console: line 1", "console: line 2", "console: line 3", f"{RUN}: succeeded (event)"]
    call.assert_progress_is_time(45)
    assert call.value == {
        "ended": "terminal",
        "runs": {RUN: "succeeded"},
        "resume": {},
        "events": [
            {"event": "message", "id": "1-0", "data": log_entry("line 1")},
            {"event": "message", "id": "2-0", "data": log_entry("line 2")},
            {"event": "message", "id": "3-0", "data": log_entry("line 3")},
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


async def test_stream_of_an_active_run_that_ends_is_opened_again_after_the_last_id_until_the_time_is_used() -> None:
    async with (
        scripted_provider(send_and_end(log_events(2), has_run_ended=False)) as posthog,
        calling(posthog.environment, POSTHOG, IDS) as call,
    ):
        await call.wait_for_progress(2)
        await pass_time(50)
    assert call.value["ended"] == "wait_over"
    assert call.value["runs"] == {RUN: "running"}
    assert call.value["resume"] == {**IDS, "Last-Event-ID": "2-0"}
    assert numbers_of(call.ids) == [1, 2]
    assert len(posthog.streams) > MAX_RECONNECTS
    assert {stream.last_event_id for stream in posthog.streams[1:]} == {"2-0"}


async def test_rotated_stream_continues_on_a_new_connection() -> None:
    rotated = 'event: end\ndata: {"type": "rotated"}\n\n'  # newest source of PostHog, every 15 minutes
    scripts = [
        send_and_end("retry: 0\n\n" + log_events(2) + rotated, has_run_ended=False),
        send_and_end(log_event(3) + status_event("completed", 4)),
    ]
    async with scripted_provider(*scripts) as posthog:
        call = await follow(posthog.environment)
    assert posthog.streams[1].last_event_id == "2-0"
    assert numbers_of(call.ids) == [1, 2, 3, 4]
    assert not any("rotated" in line for line in call.lines)
    assert (call.value["ended"], call.value["resume"]) == ("terminal", {})


STREAM_END = 'event: stream-end\ndata: {"status": "complete"}\n\n'


@pytest.mark.parametrize(("status", "ended"), [("completed", "terminal"), ("in_progress", "closed")])
async def test_stream_is_not_opened_again_after_its_last_event(
    status: str, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_taskruns.engine.runs.follow.LAG_SECONDS", 2.0)

    async def script(connection: Connection) -> None:
        await connection.open("retry: 0\n\n" + log_event(1) + STREAM_END)
        await connection.end(has_run_ended=False)
        await anyio.sleep(1.0)  # the reads lag behind the stream
        posthog.statuses[RUN] = status

    async with scripted_provider(script) as posthog:
        call = await follow(posthog.environment)
    assert (call.value["ended"], len(posthog.streams)) == (ended, 1)


async def test_stream_with_no_content_is_over() -> None:
    scripts = [send_and_end("retry: 0\n\n" + log_event(1), has_run_ended=False), reject("204 No Content", "")]
    async with scripted_provider(*scripts) as posthog:
        call = await follow(posthog.environment)
    assert (call.value["ended"], call.value["runs"], len(posthog.streams)) == ("closed", {RUN: "running"}, 2)


async def test_first_response_without_content_leaves_the_status_of_the_run() -> None:
    async with scripted_provider(reject("204 No Content", "")) as posthog:
        posthog.statuses[RUN] = "completed"
        call = await follow(posthog.environment)
    assert call.value == {"ended": "terminal", "runs": {RUN: "succeeded"}, "resume": {}, "events": []}


async def test_failed_attempt_on_the_stream_is_not_the_end_of_the_run() -> None:
    async def script(connection: Connection) -> None:
        await connection.open(terminal_event("trn-a", "failed", attempts=1))
        render.statuses["trn-a"] = "pending"  # render's local server, a GET after the event
        await attempt_read.wait()
        await connection.send(terminal_event("trn-a", "completed", attempts=2))
        await connection.end()

    attempt_read = anyio.Event()
    async with (
        scripted_provider(script, trn_a="running") as render,
        calling(render.environment, RENDER, {"taskRunIds": ["trn-a"]}) as call,
    ):
        await call.wait_for_progress(1)
        await pass_time(2)
        assert not call.finished.is_set()
        attempt_read.set()
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {"trn-a": "succeeded"})
    assert call.lines == ["trn-a: failed (event)", "trn-a: succeeded (event)"]


async def test_end_that_the_stream_never_reports_is_read_at_the_polling_interval() -> None:
    async with (
        scripted_provider(send_and_hold(""), trn_a="running") as render,
        calling(render.environment, RENDER, {"taskRunIds": ["trn-a"]}) as call,
    ):
        await pass_time(2)
        render.statuses["trn-a"] = "completed"
        await pass_time(8)
        assert call.finished.is_set()
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {"trn-a": "succeeded"})


# What a stream may contain


ERROR_EVENT = 'event: error\ndata: {"error": "Stream timeout"}\n\n'


async def test_stream_of_an_active_run_that_reports_an_error_is_opened_again() -> None:
    scripts = [
        send_and_end("retry: 0\n\n" + log_event(1) + ERROR_EVENT, has_run_ended=False),
        send_and_end(log_event(2)),
    ]
    async with scripted_provider(*scripts) as posthog:
        call = await follow(posthog.environment)
    assert posthog.streams[1].last_event_id == "1-0"
    assert call.lines == ["console: line 1", "error: Stream timeout", "console: line 2"]
    assert call.value["ended"] == "terminal"


async def test_terminal_status_of_the_run_wins_over_an_error_event() -> None:
    async with scripted_provider(send_and_end(log_event(1) + ERROR_EVENT)) as posthog:
        call = await follow(posthog.environment)
    assert (call.value["ended"], call.value["resume"]) == ("terminal", {})
    assert "error: Stream timeout" in call.outcome.notes[-1]


async def test_keep_alives_are_not_events() -> None:
    keepalives = (
        ": ping\n\n"
        'event: keepalive\ndata: {"type":"keepalive"}\n\n'
        'data: {"type":"keepalive"}\n\n'
        "event: ping\ndata: 1\n\n"
        "id: 1-0\n\n"
        "retry: 100\n\n"
    )
    async with scripted_provider(send_and_end(log_event(1) + keepalives + log_event(2) + keepalives)) as posthog:
        call = await follow(posthog.environment)
    assert numbers_of(call.ids) == [1, 2]
    assert len(call.progress) == 2


async def test_id_without_data_sets_the_last_event_id() -> None:
    async with scripted_provider(
        send_and_drop("retry: 0\n\n" + log_event(1) + "id: 5-0\n\n"), send_and_end(log_event(6))
    ) as posthog:
        call = await follow(posthog.environment)
    assert posthog.streams[1].last_event_id == "5-0"
    assert numbers_of(call.ids) == [1, 6]


async def test_compressed_stream_is_reported_event_by_event() -> None:
    compressor = zlib.compressobj(wbits=31)
    first_received = anyio.Event()

    async def script(connection: Connection) -> None:
        headers = "Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"
        await connection.open(compressor.compress(log_event(1).encode()) + compressor.flush(zlib.Z_SYNC_FLUSH), headers)
        await first_received.wait()
        await connection.send(compressor.compress(log_event(2).encode()) + compressor.flush())
        await connection.end()

    async with scripted_provider(script) as posthog, calling(posthog.environment, POSTHOG, IDS) as call:
        await call.wait_for_progress(1)
        first_received.set()
    assert numbers_of(call.ids) == [1, 2]
    assert call.value["ended"] == "terminal"


async def test_text_that_is_not_an_event_stream_ends_the_call_with_a_reason() -> None:
    body = b"<!DOCTYPE html>\n" + b"<p>Bad gateway</p>\n" * 10_000
    async with scripted_provider(send_and_end(body + log_event(9).encode(), has_run_ended=False)) as posthog:
        call = await follow(posthog.environment)
    assert call.value["ended"] == "error"
    assert call.value["reason"].startswith('posthog sent text that has no events: "<!DOCTYPE html>')
    assert call.value["events"] == []
    assert len(posthog.streams) == 1


async def test_event_that_is_not_utf_8_is_decoded_with_replacement() -> None:
    event = log_event(3).encode().replace(b"line 3", b"caf\xe9")
    assert b"\xe9" in event
    async with scripted_provider(send_and_end(log_events(2).encode() + event + log_event(4).encode())) as posthog:
        call = await follow(posthog.environment)
    assert numbers_of(call.ids) == [1, 2, 3, 4]
    assert call.lines[2].endswith("caf\ufffd")
    assert call.value["ended"] == "terminal"


async def test_html_page_between_events_is_ignored() -> None:
    page = "<html>\n" + "<p>Bad gateway</p>\n" * 10_000 + "\n"
    async with scripted_provider(send_and_end(log_events(2) + page + log_event(3))) as posthog:
        call = await follow(posthog.environment)
    assert numbers_of(call.ids) == [1, 2, 3]


async def test_endless_line_ends_the_call_in_bounded_memory() -> None:
    sent = 0

    async def script(connection: Connection) -> None:
        nonlocal sent
        await connection.open(log_event(1) + "data: ")
        while sent < 200_000_000:
            await connection.send(b"x" * 1_000_000)
            sent += 1_000_000

    async with scripted_provider(script) as posthog:
        tracemalloc.start()
        call = await follow(posthog.environment)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (call.value["ended"], call.value["reason"]) == (
        "error",
        "posthog sent a line that does not end instead of an event stream",
    )
    assert numbers_of(call.ids) == [1]
    assert sent < 100_000_000
    assert peak < 60_000_000


async def test_event_of_a_megabyte_is_truncated_and_others_are_complete() -> None:
    long = f"id: 2-0\ndata: {json.dumps(log_entry('x' * 1_048_576))}\n\n"
    async with scripted_provider(send_and_end(log_event(1) + long + log_event(3))) as posthog:
        call = await follow(posthog.environment)
    first, truncated, third = call.value["events"]
    assert (first, third) == (
        {"event": "message", "id": "1-0", "data": log_entry("line 1")},
        {"event": "message", "id": "3-0", "data": log_entry("line 3")},
    )
    assert (truncated["truncated"], truncated["id"], truncated["data"]["type"]) == (True, "2-0", "notification")
    assert truncated["data"]["notification"]["params"]["message"].startswith("xxx")
    assert len(call.outcome.text) <= 50_000
    assert all(len(line) <= 180 for line in call.lines)


async def test_event_above_the_size_limit_is_truncated_and_the_next_one_is_read() -> None:
    long = f"id: 2-0\ndata: {'x' * 9_000_000}\n\n"
    async with scripted_provider(send_and_end(log_event(1) + long + log_event(3))) as posthog:
        call = await follow(posthog.environment)
    assert numbers_of(call.ids) == [1, 2, 3]
    assert [event.get("truncated", False) for event in call.value["events"]] == [False, True, False]


async def test_response_without_an_event_stream_is_an_error() -> None:
    page = send_and_end("<html><title>Sign in</title></html>", "Content-Type: text/html\r\n", has_run_ended=False)
    async with scripted_provider(page) as posthog:
        call = await follow(posthog.environment)
    assert isinstance(call.error, ProviderError)
    assert call.error.message == 'the provider returned 200: an HTML page instead of an event stream: "Sign in"'


async def test_rejected_stream_is_an_error() -> None:
    async with scripted_provider(reject("404 Not Found")) as posthog:
        call = await follow(posthog.environment)
    assert isinstance(call.error, ProviderError)
    assert (call.error.status, call.error.message) == (404, 'the provider returned 404: "no"')


# Limits


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
async def test_following_ends_after_wait_seconds(
    arguments: dict[str, Any], settings: dict[str, Any], seconds: float
) -> None:
    async with (
        scripted_provider(send_and_hold(log_event(1))) as posthog,
        calling(posthog.environment, POSTHOG, IDS | arguments, **settings) as call,
    ):
        await call.wait_for_progress(1)
        await pass_time(seconds - 1)
        assert not call.finished.is_set()
        await pass_time(2)
        assert call.finished.is_set()
        with anyio.fail_after(PATIENCE):
            await posthog.streams[0].was_closed.wait()
    assert call.value["ended"] == "wait_over"
    assert call.value["resume"] == {**IDS, **arguments, "Last-Event-ID": "1-0"}
    assert call.outcome.notes == (
        f"Run {RUN}: running (in_progress).",
        "The time limit of this call was reached, and the stream continues. Nothing was cancelled."
        " To continue, call again with the arguments in resume.",
    )
    assert "wait_seconds" not in posthog.streams[0].head


async def test_wait_of_0_seconds_returns_without_events() -> None:
    async with scripted_provider(send_and_hold("")) as posthog:
        call = await follow(posthog.environment, arguments={**IDS, "wait_seconds": 0})
    assert (call.value["ended"], call.value["events"]) == ("wait_over", [])


async def send_after_last_id(connection: Connection, last: int) -> None:
    """Send the events after the one that the client names, as PostHog does, up to the number `last`."""
    after = int((connection.last_event_id or "0").partition("-")[0])
    await connection.open(log_events(last - after, first=after + 1))
    await connection.end()


async def test_calls_that_end_at_the_event_limit_resume_without_gap() -> None:
    async with scripted_provider(lambda connection: send_after_last_id(connection, 10)) as posthog:
        arguments: dict[str, Any] = dict(IDS)
        listed: list[int] = []
        ends: list[str] = []
        for _ in range(3):
            call = await follow(posthog.environment, arguments=arguments, stream_events=4)
            listed += numbers_of(call.ids)
            ends.append(call.value["ended"])
            arguments = call.value["resume"]
    assert listed == list(range(1, 11))
    assert ends == ["event_limit", "event_limit", "terminal"]


async def test_full_result_lists_the_first_events_and_resumes_after_the_last_listed() -> None:
    async with scripted_provider(lambda connection: send_after_last_id(connection, 100)) as posthog:
        arguments: dict[str, Any] = dict(IDS)
        listed: list[int] = []
        calls = 0
        while len(listed) < 100:
            call = await follow(posthog.environment, arguments=arguments, max_result_chars=4_000)
            calls += 1
            assert len(call.outcome.text) <= 4_000
            # Events that are not listed are reported, too.
            assert len(call.progress) == 100 - len(listed)
            if len(listed) + len(call.ids) < 100:
                assert (
                    f"Only the first {len(call.ids)} of {100 - len(listed)} events are listed" in call.outcome.notes[-1]
                )
            listed += numbers_of(call.ids)
            arguments = call.value["resume"]
            assert len(listed) == 100 or arguments["Last-Event-ID"] == f"{listed[-1]}-0"
    assert listed == list(range(1, 101))
    assert calls < 12


async def test_list_ends_before_the_first_event_that_does_not_fit() -> None:
    long = "".join(f"id: {number}-0\ndata: {json.dumps(log_entry('x' * 450))}\n\n" for number in range(1, 6))
    async with scripted_provider(send_and_end(long + log_event(6))) as posthog:
        call = await follow(posthog.environment, max_result_chars=4_000)
    assert numbers_of(call.ids) == [1, 2, 3, 4]
    assert call.value["resume"]["Last-Event-ID"] == "4-0"


async def test_resume_contains_runs_whose_terminal_events_did_not_fit() -> None:
    ids = [f"trn-{number:02}" for number in range(10)]
    body = "".join(terminal_event(run_id, results=["x" * 300]) for run_id in ids)
    async with scripted_provider(send_and_end(body), **dict.fromkeys(ids, "running")) as render:
        call = await follow(render.environment, RENDER, {"taskRunIds": ids}, max_result_chars=2_000)
    listed = [event["data"]["id"] for event in call.value["events"]]
    assert 0 < len(listed) < 10
    assert listed + call.value["resume"]["taskRunIds"] == ids
    assert call.value["runs"] == dict.fromkeys(ids, "succeeded")
    assert call.value["ended"] == "terminal"


async def test_resume_contains_only_runs_that_were_asked_for() -> None:
    ids, others = [f"trn-{number:02}" for number in range(3)], [f"trn-other-{number:02}" for number in range(10)]
    body = "".join(terminal_event(run_id, results=["x" * 300]) for run_id in [*others, *ids])
    async with scripted_provider(send_and_end(body), **dict.fromkeys(ids, "running")) as render:
        call = await follow(render.environment, RENDER, {"taskRunIds": ids}, max_result_chars=2_000)
    assert len(call.value["events"]) < 10
    assert call.value["resume"]["taskRunIds"] == ids
    assert list(call.value["runs"]) == ids


@pytest.mark.parametrize("event_id", ["ü2", "2" * 1_001], ids=["not ASCII", "too long"])
async def test_resume_contains_the_last_id_that_a_header_can_contain(event_id: str) -> None:
    body = f"id: 1-0\ndata: one\n\nid: {event_id}\ndata: two\n\n"
    async with scripted_provider(send_and_end(body, has_run_ended=False), send_and_end(log_event(3))) as posthog:
        call = await follow(posthog.environment, stream_events=2)
        again = await follow(posthog.environment, arguments=call.value["resume"])
    assert again.error is None
    assert (len(call.value["events"]), numbers_of(again.ids)) == (2, [3])
    assert [connection.last_event_id for connection in posthog.streams] == [None, "1-0"]


# Heartbeats


async def test_silent_stream_sends_a_heartbeat_at_least_every_10_seconds() -> None:
    async with (
        scripted_provider(send_and_hold(log_event(1))) as posthog,
        calling(posthog.environment, POSTHOG, {**IDS, "wait_seconds": 100}) as call,
    ):
        await call.wait_for_progress(1)
        for count in range(2, 12):
            await pass_time(10)
            assert len(call.progress) >= count
        await pass_time(2)
    amounts = [progress.progress for progress in call.progress]
    assert all(earlier < later for earlier, later in itertools.pairwise(amounts))
    call.assert_progress_is_time(100)
    assert amounts[-1] == pytest.approx(99, abs=1)
    assert max(later - earlier for earlier, later in itertools.pairwise(call.progress_times)) <= 10
    assert call.lines[1] == f'{RUN}: running; no change for 9 s; last: "console: line 1"'


async def test_stream_without_events_sends_heartbeats() -> None:
    keepalive = 'event: keepalive\ndata: {"type":"keepalive"}\n\n'
    async with (
        scripted_provider(send_and_hold(keepalive)) as posthog,
        calling(posthog.environment, POSTHOG, IDS) as call,
    ):
        await pass_time(50)
    prefix = f"{RUN}: running; no change for "
    seconds = [int(line.removeprefix(prefix).removesuffix(" s")) for line in call.lines]
    assert len(seconds) >= 4
    assert all(9 <= later - earlier <= 10 for earlier, later in itertools.pairwise([0, *seconds]))
    assert call.value["events"] == []


async def test_heartbeats_are_sent_while_the_stream_opens() -> None:
    async def script(connection: Connection) -> None:
        await anyio.sleep(25)  # of the driven clock
        await connection.open(status_event("completed", 1))
        await connection.end()

    async with scripted_provider(script) as posthog, calling(posthog.environment, POSTHOG, IDS) as call:
        await pass_time(21)
        assert call.lines == [f"{RUN}: running; no change for {seconds} s" for seconds in (9, 18)]
        await pass_time(6)
    assert call.value["ended"] == "terminal"


# Cancelling and stopping


async def test_cancelling_a_call_during_its_backoff_ends_it_at_once() -> None:
    has_progress = anyio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        has_progress.set()

    async with (
        scripted_provider(send_and_drop("retry: 60000\n\n" + log_event(1))) as posthog,
        Client(build_server(open_gateway(posthog.environment)), mode="legacy") as client,
    ):
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                await client.call_tool(POSTHOG, IDS, progress_callback=on_progress)

            tasks.start_soon(call)
            with anyio.fail_after(PATIENCE):
                await has_progress.wait()
            await settle()
            began = anyio.current_time()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(PATIENCE):
            assert (await client.list_tools()).tools
        assert anyio.current_time() - began < 1
        await pass_time(100)
    assert len(posthog.streams) == 1


@pytest.mark.parametrize("phase", ["following", "backoff"])
async def test_stop_ends_the_call_at_once(phase: str) -> None:
    script = send_and_hold(log_event(1)) if phase == "following" else send_and_drop("retry: 60000\n\n" + log_event(1))
    async with scripted_provider(script) as posthog, calling(posthog.environment, POSTHOG, IDS) as call:
        await call.wait_for_progress(1)
        await settle()
        call.gateway.stop()
        await settle()
        assert call.finished.is_set()
        if phase == "following":
            with anyio.fail_after(PATIENCE):
                await posthog.streams[0].was_closed.wait()
    assert call.error
    assert (call.error.message, call.error.retryable) == ("this server is stopping", True)
    assert call.error.hint == "The run continues at the provider."


# Secrets


async def test_secrets_are_redacted_in_events_and_in_resume() -> None:
    key = "phx_simulated"
    event = f"id: {key}\nevent: log\ndata: {json.dumps(log_entry(f'my key is {key}'))}\n\n"
    async with scripted_provider(send_and_drop("retry: 0\n\n" + event), send_and_hold("")) as posthog:
        call = await follow(posthog.environment, arguments={**IDS, "wait_seconds": 2})
    assert call.lines == ["console: my key is [secret]"]
    assert call.value["events"] == [{"event": "log", "id": "[secret]", "data": log_entry("my key is [secret]")}]
    assert call.value["resume"]["Last-Event-ID"] == "[secret]"
    # The provider receives its own id unchanged.
    assert posthog.streams[1].last_event_id == key
    assert key not in call.outcome.text + str(call.outcome.notes) + str(call.progress)


async def test_secret_in_the_reason_is_redacted() -> None:
    error = 'event: error\ndata: {"error": "bad key phx_simulated"}\n\n'
    async with scripted_provider(send_and_end(error)) as posthog:
        call = await follow(posthog.environment)
    assert "error: bad key [secret]" in call.outcome.notes[-1]
    assert "phx_simulated" not in str(call.outcome)
