"""Followed runs: a call ends when all of its runs have a terminal status."""

from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

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
    ignore,
    log_event,
    numbers_of,
    reject,
    scripted_provider,
    send_and_end,
    send_and_hold,
    status_event,
    terminal_event,
)
from tests.timing import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]


async def test_run_canceled_before_the_call_ends_it_at_once(simulator: Simulator) -> None:
    canceled = "trn-d5im0000000000000003"
    async with serve(simulator) as origin:
        call = await follow(simulator.environment(origin), RENDER, {"taskRunIds": [canceled]})
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {canceled: "canceled"})
    assert call.value["resume"] == {}


async def test_run_canceled_before_the_call_does_not_hide_the_end_of_another() -> None:
    async with (
        scripted_provider(send_and_hold(terminal_event("trn-b")), trn_a="canceled", trn_b="running") as render,
        calling(render.environment, RENDER, {"taskRunIds": ["trn-a", "trn-b"]}) as call,
    ):
        await call.wait_for_progress(1)
        await pass_time(3)
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {"trn-a": "canceled", "trn-b": "succeeded"})
    assert call.lines == ["trn-b: succeeded (event)"]


async def test_canceled_run_ends_the_call_on_an_open_stream() -> None:
    async with scripted_provider(send_and_hold("retry: 2000\n\n"), trn_a="canceled") as render:
        call = await follow(render.environment, RENDER, {"taskRunIds": ["trn-a"]})
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {"trn-a": "canceled"})
    assert call.outcome.notes[0] == "Run trn-a: canceled."


async def test_run_canceled_while_followed_ends_the_call(simulator: Simulator) -> None:
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


async def test_run_canceled_while_disconnected_ends_the_call() -> None:
    drop = anyio.Event()

    async def open_until_dropped(connection: Connection) -> None:
        await connection.open("retry: 2000\n\n")
        await drop.wait()

    async with (
        scripted_provider(open_until_dropped, send_and_hold(""), trn_a="running") as render,
        calling(render.environment, RENDER, {"taskRunIds": ["trn-a"]}) as call,
    ):
        await settle()
        render.statuses["trn-a"] = "canceled"
        drop.set()
        await pass_time(10)
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {"trn-a": "canceled"})


async def test_run_that_ended_before_the_call_without_an_event_ends_it() -> None:
    async with (
        scripted_provider(send_and_hold(""), trn_a="completed") as render,
        calling(render.environment, RENDER, {"taskRunIds": ["trn-a"]}) as call,
    ):
        await pass_time(6)
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {"trn-a": "succeeded"})


async def test_closes_an_open_stream_when_all_runs_have_ended() -> None:
    async with (
        scripted_provider(
            send_and_hold(terminal_event("trn-a") + terminal_event("trn-b", "failed")), trn_a="running", trn_b="running"
        ) as render,
        calling(render.environment, RENDER, {"taskRunIds": ["trn-a", "trn-b"]}) as call,
    ):
        await call.wait_for_progress(2)
        await pass_time(3)
        assert call.finished.is_set()
        with anyio.fail_after(PATIENCE):
            await render.streams[0].was_closed.wait()
    assert call.value["ended"] == "terminal"
    assert call.outcome.notes == (
        "Runs trn-a: succeeded (completed); trn-b: failed.",
        "All followed runs have ended.",
    )
    # One read of each run when the call starts; after that, their events are enough.
    assert sorted(render.reads) == ["trn-a", "trn-b"]


async def test_events_after_the_terminal_status_are_listed() -> None:
    async with (
        scripted_provider(send_and_hold(log_event(1) + status_event("completed", 2) + log_event(3))) as posthog,
        calling(posthog.environment, POSTHOG, IDS) as call,
    ):
        await call.wait_for_progress(3)
        await pass_time(1)
    assert numbers_of(call.ids) == [1, 2, 3]
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {RUN: "succeeded"})


async def test_slow_events_after_the_terminal_status_are_listed() -> None:
    async def script(connection: Connection) -> None:
        await connection.open(status_event("completed", 1))
        for number in range(2, 7):
            await anyio.sleep(1)  # of the driven clock
            await connection.send(log_event(number))
        await connection.end()

    async with scripted_provider(script) as posthog, calling(posthog.environment, POSTHOG, IDS) as call:
        await pass_time(8)
    assert numbers_of(call.ids) == [1, 2, 3, 4, 5, 6]
    assert (call.value["ended"], call.value["resume"]) == ("terminal", {})


async def test_repeated_terminal_status_with_another_id_is_another_event() -> None:
    async with scripted_provider(
        send_and_end(status_event("completed", 1) + log_event(2) + status_event("completed", 3))
    ) as posthog:
        call = await follow(posthog.environment)
    assert numbers_of(call.ids) == [1, 2, 3]


async def test_run_resumed_after_a_terminal_status_is_followed() -> None:
    resumed = status_event("completed", 1) + status_event("queued", 2) + status_event("in_progress", 3)

    async def script(connection: Connection) -> None:
        await connection.open(resumed)
        await anyio.sleep(10)  # of the driven clock
        await connection.send(status_event("failed", 4))
        await connection.end()

    async with scripted_provider(script) as posthog, calling(posthog.environment, POSTHOG, IDS) as call:
        await pass_time(12)
    assert numbers_of(call.ids) == [1, 2, 3, 4]
    assert call.value["runs"] == {RUN: "failed"}


async def test_resume_contains_only_the_active_runs() -> None:
    async with (
        scripted_provider(send_and_hold(terminal_event("trn-a")), trn_a="running", trn_b="running") as render,
        calling(render.environment, RENDER, {"taskRunIds": ["trn-a", "trn-b"], "wait_seconds": 5}) as call,
    ):
        await pass_time(6)
    assert (call.value["ended"], call.value["runs"]) == ("wait_over", {"trn-a": "succeeded", "trn-b": "running"})
    assert call.value["resume"] == {"taskRunIds": ["trn-b"], "wait_seconds": 5}


@pytest.mark.usefixtures("longest_backoff")
async def test_failed_read_of_a_run_does_not_end_its_stream() -> None:
    body = terminal_event("trn-a")

    async def script(connection: Connection) -> None:
        await connection.open()
        await read_failed.wait()
        await connection.send(body)
        await connection.end()

    read_failed = anyio.Event()
    async with scripted_provider(script, trn_a="running") as render:
        respond = Connection.respond

        async def busy_once(self: Connection, *response: Any) -> None:
            await respond(self, *(response if read_failed.is_set() else ("503 Service Unavailable", "{}")))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Connection, "respond", busy_once)
            async with calling(render.environment, RENDER, {"taskRunIds": ["trn-a"]}) as call:
                await settle()
                read_failed.set()
                await pass_time(5)
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {"trn-a": "succeeded"})


async def test_100_concurrent_streams_leave_slots_for_reads() -> None:
    async with (
        scripted_provider(send_and_hold(terminal_event("trn-a")), trn_a="running") as render,
        AsyncExitStack() as stack,
    ):
        gateway = open_gateway(render.environment)
        stack.push_async_callback(gateway.aclose)
        calls = [Call(gateway) for _ in range(100)]
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for call in calls:
            tasks.start_soon(call.run, RENDER, {"taskRunIds": ["trn-a"]})
        await render.wait_for_stream(100)
        await pass_time(4)
        assert sum(call.finished.is_set() for call in calls) == 100
    assert {call.value["ended"] for call in calls} == {"terminal"}


def refusal(status: str) -> tuple[str, str, str]:
    return (status, '{"detail":"no"}', "Content-Type: application/json\r\n")


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "404 Not Found"])
async def test_refused_read_does_not_end_a_stream_with_events(status: str) -> None:
    async def script(connection: Connection) -> None:
        await connection.open(log_event(1))
        await anyio.sleep(8)  # of the driven clock
        await connection.send(log_event(2))
        await connection.wait_until_closed()

    async with (
        scripted_provider(script) as posthog,
        calling(posthog.environment, POSTHOG, {**IDS, "wait_seconds": 20}) as call,
    ):
        posthog.responses = [("503 Service Unavailable", "{}", ""), *[refusal(status)] * 5]
        await call.wait_for_progress(1)
        await pass_time(10)
        assert not call.finished.is_set()
        await pass_time(11)
    assert (call.value["ended"], numbers_of(call.ids)) == ("wait_over", [1, 2])
    assert f"the provider returned {status[:3]}" in " ".join(call.outcome.notes)
    assert ("POSTHOG_API_KEY" in " ".join(call.outcome.notes)) == (status[:3] != "404")


async def test_credential_that_expires_while_following_is_reported() -> None:
    async with (
        scripted_provider(send_and_hold(log_event(1))) as posthog,
        calling(posthog.environment, POSTHOG, {**IDS, "wait_seconds": 20}) as call,
    ):
        await pass_time(3)
        posthog.responses = [refusal("401 Unauthorized")]
        await pass_time(20)
    assert 'The runs could not be read: the provider returned 401: "no". Check POSTHOG_API_KEY' in call.outcome.notes[0]


async def test_run_that_another_call_starts_while_it_is_followed_is_read_again() -> None:
    async def script(connection: Connection) -> None:
        await connection.open(log_event(1))
        await anyio.sleep(8)  # of the driven clock
        await connection.send(status_event("in_progress", 2))
        await anyio.sleep(8)  # of the driven clock
        await connection.send(status_event("completed", 3))
        await connection.wait_until_closed()

    async with (
        scripted_provider(script, **{RUN: "not_started"}) as posthog,
        calling(posthog.environment, POSTHOG, {**IDS, "wait_seconds": 60}) as call,
    ):
        await pass_time(20)
        assert call.finished.is_set()
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {RUN: "succeeded"})


async def test_followed_run_is_read_again_after_an_outage_of_a_minute() -> None:
    async with (
        scripted_provider(send_and_hold(log_event(1))) as posthog,
        calling(posthog.environment, POSTHOG, {**IDS, "wait_seconds": 300}) as call,
    ):
        await call.wait_for_progress(1)
        posthog.responses = [refusal("503 Service Unavailable")] * 8
        await pass_time(60)
        posthog.responses.clear()
        posthog.statuses[RUN] = "completed"
        await pass_time(35)
        assert call.finished.is_set()
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {RUN: "succeeded"})


@pytest.mark.parametrize("seconds", [3, 20])
async def test_runs_are_read_while_the_stream_opens(seconds: int) -> None:
    # A proxy that buffers sends not even the head before the first event.
    async with (
        scripted_provider(Connection.wait_until_closed, trn_a="running") as render,
        calling(render.environment, RENDER, {"taskRunIds": ["trn-a"], "wait_seconds": seconds}) as call,
    ):
        await pass_time(2)
        render.statuses["trn-a"] = "completed"
        await pass_time(8 + 1)
        assert call.finished.is_set()
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {"trn-a": "succeeded"})


async def test_call_ends_in_time_while_the_stream_opens() -> None:
    async with (
        scripted_provider(Connection.wait_until_closed) as posthog,
        calling(posthog.environment, POSTHOG, {**IDS, "wait_seconds": 20}) as call,
    ):
        await pass_time(20)
        assert call.finished.is_set()
    assert (call.value["ended"], call.value["runs"]) == ("wait_over", {RUN: "running"})
    assert call.value["resume"] == {**IDS, "wait_seconds": 20}


@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone", "500 Internal Server Error"])
async def test_terminal_status_of_the_run_wins_over_a_stream_that_cannot_be_opened(status: str) -> None:
    async with scripted_provider(reject(status)) as posthog:
        posthog.statuses[RUN] = "completed"
        call = await follow(posthog.environment)
    assert (call.value["ended"], call.value["runs"], call.value["resume"]) == ("terminal", {RUN: "succeeded"}, {})
    assert "so events may be missing" in call.outcome.notes[1]


async def test_unknown_run_among_several_does_not_keep_the_call_open() -> None:
    async with (
        scripted_provider(send_and_hold(""), trn_a="running") as render,
        calling(render.environment, RENDER, {"taskRunIds": ["trn-a", "trn-b"]}) as call,
    ):
        await pass_time(2)
        render.statuses["trn-a"] = "completed"
        await pass_time(5 + 3)
        assert call.finished.is_set()
    assert (call.value["ended"], call.value["runs"], call.value["resume"]) == ("terminal", {"trn-a": "succeeded"}, {})
    assert call.outcome.notes[1] == (
        "All followed runs that can be read have ended. "
        'The last read of trn-b failed: the provider returned 404: "task run not found".'
    )
