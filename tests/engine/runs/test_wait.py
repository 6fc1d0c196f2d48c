"""Waiting for runs: every status, how soon a wait returns and after how many requests, and failures on the way."""

import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import anyio
import anyio.to_thread
import jsonschema
import pytest
from mcp.types import CallToolResult, TextContent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mcp_taskruns.core.runs.watch import MAX_FAILED_FIRST_READS
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.runs.read import GONE_SECONDS
from mcp_taskruns.engine.runs.wait import MAX_BRIEF_STREAMS
from mcp_taskruns.errors import NotVisibleYet, ProviderError
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from mcp_taskruns.simulator.server import serve
from tests.calls import (
    INNGEST_CANCELLED,
    INNGEST_COMPLETED,
    INNGEST_FAILED,
    INNGEST_FRESH,
    INNGEST_RUNNING,
    INNGEST_RUNS,
    KEYS,
    NO_FAULT,
    POSTHOG_COMPLETED,
    POSTHOG_FAILED,
    POSTHOG_NOT_STARTED,
    POSTHOG_RUNNING,
    POSTHOG_RUNS,
    READS,
    RENDER_CANCELED,
    RENDER_COMPLETED,
    RENDER_FAILED,
    RENDER_RUNNING,
    RENDER_RUNS,
    RUNWAY_CANCELLED,
    RUNWAY_FAILED,
    RUNWAY_FRESH,
    RUNWAY_SUCCEEDED,
    RUNWAY_TASKS,
    RUNWAY_THROTTLED,
    STREAMS,
    TASK,
    WAITS,
    Arguments,
    calling,
    finished,
    json_response,
    opened,
    outside,
    run_json,
    sent,
    timeless,
)
from tests.calls import Call as FinishedCall
from tests.clients import Era, Transport, listening, open_client
from tests.clock import LoopClock, pass_time, settle
from tests.engine.runs.scripted import IDS, RUN, Call, Provider, scripted_provider, send_and_hold
from tests.engine.runs.scripted import calling as scripted_calling
from tests.servers.mcp.test_stdio import Process, running
from tests.timing import PATIENCE, scaled

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

SQUARE = {"body": {"task": "demo-workflow/square", "input": [7]}}

HINT_SUCCEEDED = "The run has succeeded: no further call is needed."
HINT_FAILED = "The run has failed: read error; waiting longer has no effect."
HINT_CANCELED = "The run has been cancelled: waiting longer has no effect."
RETRY_ADVICE = "read error, and call {} only if a retry can succeed; waiting longer has no effect."
HINT_FAILED_RESTARTABLE = f"The run has failed: {RETRY_ADVICE}"

ENDED_RUNS: dict[str, tuple[Arguments, dict[str, Any]]] = {
    "render completed": (
        {"taskRunId": RENDER_COMPLETED},
        {"status": "succeeded", "native_status": "completed", "result": [144], "error": None, "next": HINT_SUCCEEDED},
    ),
    "render failed": (
        {"taskRunId": RENDER_FAILED},
        {
            "status": "failed",
            "native_status": "failed",
            "result": None,
            "error": "ValueError: no such customer",
            "next": HINT_FAILED_RESTARTABLE.format("render-run-task"),
        },
    ),
    "render canceled": (
        {"taskRunId": RENDER_CANCELED},
        {
            "status": "canceled",
            "native_status": "canceled",
            "result": None,
            "error": None,
            "next": HINT_CANCELED,
        },
    ),
    "inngest completed": (
        {"runId": INNGEST_COMPLETED},
        {
            "status": "succeeded",
            "native_status": "Completed",
            "result": {"input": {"n": 1, "who": "quick"}, "sum": 42},
            "error": None,
            "next": HINT_SUCCEEDED,
        },
    ),
    "inngest failed": (
        {"runId": INNGEST_FAILED},
        {
            "status": "failed",
            "native_status": "Failed",
            "result": None,
            "error": {
                "code": "non_retriable_error",
                "message": "boom: card declined",
                "name": "NonRetriableError",
                "stack": 'Traceback (most recent call last):\n  File "/srv/app/app.py", line 17, in fails\n',
            },
            "next": HINT_FAILED,
        },
    ),
    "inngest cancelled": (
        {"runId": INNGEST_CANCELLED},
        {"status": "canceled", "native_status": "Cancelled", "result": None, "error": None, "next": HINT_CANCELED},
    ),
    "posthog completed": (
        {"task_id": TASK, "id": POSTHOG_COMPLETED},
        {
            "status": "succeeded",
            "native_status": "completed",
            "result": {"summary": "Fixed the retry loop.", "pr_url": "https://github.com/acme/web/pull/42"},
            "error": None,
            "next": HINT_SUCCEEDED,
        },
    ),
    "posthog failed": (
        {"task_id": TASK, "id": POSTHOG_FAILED},
        {
            "status": "failed",
            "native_status": "failed",
            "result": None,
            "error": "Sandbox ran out of memory",
            "next": HINT_FAILED_RESTARTABLE.format("posthog-create-task-run"),
        },
    ),
    "runway succeeded": (
        {"id": RUNWAY_SUCCEEDED},
        {
            "status": "succeeded",
            "native_status": "SUCCEEDED",
            "result": [f"https://outputs.runway.invalid/{RUNWAY_SUCCEEDED}/output.mp4?_jwt=simulated-1"],
            "error": None,
            "next": HINT_SUCCEEDED,
        },
    ),
    "runway failed": (
        {"id": RUNWAY_FAILED},
        {
            "status": "failed",
            "native_status": "FAILED",
            "result": None,
            "error": "An unexpected error occurred. (INTERNAL.BAD_OUTPUT.CODE01)",
            "next": HINT_FAILED,
        },
    ),
    "runway cancelled": (
        {"id": RUNWAY_CANCELLED},
        {"status": "canceled", "native_status": "CANCELLED", "result": None, "error": None, "next": HINT_CANCELED},
    ),
}


@pytest.mark.parametrize("case", ENDED_RUNS)
async def test_wait_for_an_ended_run_returns_after_one_request(
    case: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    provider = case.partition(" ")[0]
    arguments, expected = ENDED_RUNS[case]
    call = await finished(environment, f"{provider}-wait-for-run", arguments, 0)
    assert len(sent(simulator)) == 1
    run_id = arguments.get("id") or arguments.get("runId") or arguments["taskRunId"]
    common = {"provider": provider, "run_id": run_id, "terminal": True, "timed_out": False, "polls": 1}
    assert timeless(call.value) == common | expected
    status, native_status = expected["status"], expected["native_status"]
    description = status if status == native_status else f"{status} ({native_status})"
    assert call.outcome.notes == (f"Run {run_id}: {description}.",)


async def test_wait_for_a_cancelled_posthog_run_returns_after_one_request(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    await outside(environment, "PATCH", f"{POSTHOG_RUNS}/{POSTHOG_RUNNING}/", {"status": "cancelled"})
    call = await finished(environment, *WAITS["posthog"], 0)
    assert sent(simulator) == [READS["posthog"]]
    assert (call.value["status"], call.value["native_status"]) == ("canceled", "cancelled")


# Statuses: Render API reference (Task run); inngest pkg/enums/run_status.go; PostHog products/tasks/backend/models.py;
# runwayml 5.24 types/task_retrieve_response.py
TERMINAL_STATUSES = [
    ("render", "succeeded", "succeeded"),
    ("render", "completed", "succeeded"),
    ("render", "failed", "failed"),
    ("render", "canceled", "canceled"),
    ("inngest", "Completed", "succeeded"),
    ("inngest", "Failed", "failed"),
    ("inngest", "Overflowed", "failed"),
    ("inngest", "Cancelled", "canceled"),
    ("inngest", "Skipped", "canceled"),
    ("posthog", "completed", "succeeded"),
    ("posthog", "failed", "failed"),
    ("posthog", "cancelled", "canceled"),
    ("runway", "SUCCEEDED", "succeeded"),
    ("runway", "FAILED", "failed"),
    ("runway", "CANCELLED", "canceled"),
]
OTHER_STATUSES = [
    ("render", "pending", "queued"),
    ("render", "running", "running"),
    ("render", "paused", "paused"),
    ("render", "hibernating", "unknown"),
    ("inngest", "Scheduled", "queued"),
    ("inngest", "Running", "running"),
    ("posthog", "not_started", "not started"),
    ("posthog", "queued", "queued"),
    ("posthog", "in_progress", "running"),
    ("runway", "PENDING", "queued"),
    ("runway", "THROTTLED", "queued"),
    ("runway", "RUNNING", "running"),
]


@pytest.mark.parametrize(("provider", "native_status", "status"), TERMINAL_STATUSES)
async def test_terminal_native_status_ends_the_wait(
    provider: str, native_status: str, status: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next(provider, json_response(run_json(provider, native_status)))
    call = await finished(environment, *WAITS[provider], 0)
    assert (call.value["status"], call.value["native_status"], call.value["terminal"]) == (status, native_status, True)


@pytest.mark.parametrize(("provider", "native_status", "status"), OTHER_STATUSES)
async def test_non_terminal_native_status_does_not_end_the_wait(
    provider: str, native_status: str, status: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next(provider, json_response(run_json(provider, native_status)))
    tool, arguments = WAITS[provider]
    call = await finished(environment, tool, {**arguments, "wait_seconds": 0})
    assert (call.value["status"], call.value["native_status"]) == (status, native_status)
    assert (call.value["terminal"], call.value["timed_out"]) == (False, status != "not started")


STREAMED: dict[str, tuple[str, str, Any, dict[str, Any]]] = {
    "render canceled": ("DELETE", f"{RENDER_RUNS}/{RENDER_RUNNING}", None, {"status": "canceled"}),
    "posthog completed": (
        "PATCH",
        f"{POSTHOG_RUNS}/{POSTHOG_RUNNING}/",
        {"status": "completed", "output": {"summary": "Done."}},
        {"status": "succeeded", "result": {"summary": "Done."}},
    ),
    "posthog completed by its output": (
        "PATCH",
        f"{POSTHOG_RUNS}/{POSTHOG_RUNNING}/set_output/",
        {"output": {"summary": "Done."}},
        {"status": "succeeded", "result": {"summary": "Done."}},
    ),
    "posthog failed": (
        "PATCH",
        f"{POSTHOG_RUNS}/{POSTHOG_RUNNING}/",
        {"status": "failed", "error_message": "Out of memory"},
        {"status": "failed", "error": "Out of memory"},
    ),
    "posthog cancelled": (
        "PATCH",
        f"{POSTHOG_RUNS}/{POSTHOG_RUNNING}/",
        {"status": "cancelled"},
        {"status": "canceled"},
    ),
    "posthog cancelled by command": (
        "POST",
        f"{POSTHOG_RUNS}/{POSTHOG_RUNNING}/command/",
        {"jsonrpc": "2.0", "method": "cancel", "id": 1},
        {"status": "canceled"},
    ),
}


@pytest.mark.parametrize("case", STREAMED)
async def test_terminal_status_on_the_stream_ends_the_wait_within_a_second(
    case: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    provider = case.partition(" ")[0]
    method, path, body, expected = STREAMED[case]
    async with opened(environment) as gateway, calling(gateway, *WAITS[provider]) as call:
        await pass_time(20)
        assert not call.is_over
        await outside(environment, method, path, body)
        await call.finish(1)
    assert {name: call.value[name] for name in expected} == expected
    assert (call.value["terminal"], call.value["timed_out"]) == (True, False)
    assert sent(simulator).count(STREAMS[provider]) == 1
    assert set(sent(simulator)) == {READS[provider], STREAMS[provider]}


@pytest.mark.parametrize(
    ("task", "seconds", "expected"),
    [
        ("square", 3, {"status": "succeeded", "native_status": "completed", "result": [49], "error": None}),
        ("fail", 2, {"status": "failed", "result": None, "error": "ValueError: no such customer"}),
        ("flaky", 6, {"status": "succeeded", "result": ["third time lucky"], "attempts": 3}),
    ],
)
async def test_wait_returns_within_a_second_of_the_end_of_a_render_run(
    task: str, seconds: float, expected: dict[str, Any], simulator: Simulator, environment: dict[str, str]
) -> None:
    run = await outside(environment, "POST", RENDER_RUNS, {"task": f"demo-workflow/{task}", "input": [7]})
    async with (
        opened(environment) as gateway,
        calling(gateway, "render-wait-for-run", {"taskRunId": run["id"]}) as call,
    ):
        await pass_time(seconds - 1)
        assert not call.is_over
        await call.finish(1 + 1)
    assert {name: call.value[name] for name in expected} == expected
    assert sent(simulator).count(f"GET {RENDER_RUNS}/events?taskRunIds={run['id']}") == 1
    # At the start, when the stream is open, at each event (an attempt that failed sends one), and every 5 seconds.
    assert sent(simulator).count(f"GET {RENDER_RUNS}/{run['id']}") <= 2 + expected.get("attempts", 1) + 1


async def test_wait_returns_within_a_second_of_the_end_of_a_posthog_run(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    await outside(environment, "POST", f"{POSTHOG_RUNS}/{POSTHOG_NOT_STARTED}/start/", {})
    arguments = {"task_id": TASK, "id": POSTHOG_NOT_STARTED}
    async with opened(environment) as gateway, calling(gateway, "posthog-wait-for-run", arguments) as call:
        await pass_time(9)
        assert not call.is_over
        await call.finish(1 + 1)
    assert (call.value["status"], call.value["result"]["summary"]) == ("succeeded", "Fixed the retry loop.")
    assert len(sent(simulator)) <= 6


async def test_polls_an_inngest_run_every_three_seconds(simulator: Simulator, environment: dict[str, str]) -> None:
    call = await finished(environment, "inngest-wait-for-run", {"runId": INNGEST_FRESH}, 12 + 3)
    assert (call.value["status"], call.value["result"]) == ("succeeded", {"emails": 3, "trial": "activated"})
    # Sent at 0, 3, 6, 9 and 12 seconds.
    assert sent(simulator) == [f"GET {INNGEST_RUNS}/{INNGEST_FRESH}"] * 5
    assert call.value["polls"] == 5


async def test_polls_a_runway_task_every_five_seconds(simulator: Simulator, environment: dict[str, str]) -> None:
    call = await finished(environment, "runway-wait-for-run", {"id": RUNWAY_FRESH}, 20 + 5)
    assert call.value["status"] == "succeeded"
    # Sent at 0, 5, 10, 15 and 20 seconds.
    assert sent(simulator) == [f"GET {RUNWAY_TASKS}/{RUNWAY_FRESH}"] * 5


POLLED: dict[str, tuple[Any, dict[str, Any]]] = {
    "inngest Completed": ({"output": {"sum": 1}}, {"status": "succeeded", "result": {"sum": 1}}),
    "inngest Failed": ({"output": {"message": "boom"}}, {"status": "failed", "error": {"message": "boom"}}),
    "inngest Cancelled": ({"output": {}}, {"status": "canceled", "error": None}),
    "runway SUCCEEDED": ({"output": ["https://outputs.invalid/1"]}, {"result": ["https://outputs.invalid/1"]}),
    "runway FAILED": ({"failure": "Unsafe.", "failureCode": "SAFETY.INPUT.TEXT"}, {"status": "failed"}),
    "runway CANCELLED": ({}, {"status": "canceled"}),
}


@pytest.mark.parametrize("case", POLLED)
async def test_polled_terminal_status_ends_the_wait_within_one_interval(
    case: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    provider, _, native_status = case.partition(" ")
    more, expected = POLLED[case]
    now = datetime.now(UTC).isoformat()
    started = {"run_started_at": now} if provider == "inngest" else {"createdAt": now}
    active = json_response(run_json(provider, {"inngest": "Running", "runway": "RUNNING"}[provider], **started))
    for response in (active, active, json_response(run_json(provider, native_status, **more))):
        simulator.fail_next(provider, response)
    call = await finished(environment, *WAITS[provider], 2 * {"inngest": 3, "runway": 5}[provider] + 1)
    assert {name: call.value[name] for name in expected} == expected
    assert sent(simulator) == [READS[provider]] * 3


async def test_inngest_run_cancelled_by_another_client_ends_the_wait_within_one_interval(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with opened(environment) as gateway, calling(gateway, *WAITS["inngest"]) as call:
        await pass_time(7)
        assert sent(simulator) == [READS["inngest"]] * 3
        await outside(environment, "DELETE", f"{INNGEST_RUNS}/{INNGEST_RUNNING}")
        await call.finish(3)
    assert (call.value["status"], call.value["native_status"]) == ("canceled", "Cancelled")
    assert sent(simulator) == [READS["inngest"]] * 4


async def test_runway_task_deleted_during_the_wait_is_canceled(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with opened(environment) as gateway, calling(gateway, "runway-wait-for-run", {"id": RUNWAY_FRESH}) as call:
        await pass_time(6)
        await outside(environment, "DELETE", f"{RUNWAY_TASKS}/{RUNWAY_FRESH}")
        await call.finish(5 + GONE_SECONDS)
    assert (call.value["status"], call.value["native_status"], call.value["terminal"]) == (
        "canceled",
        None,
        True,
    )
    assert call.outcome.notes[0] == f"Run {RUNWAY_FRESH}: canceled."
    assert call.value["error"] == "the provider no longer knows this run: it was canceled or deleted"
    assert len(sent(simulator)) == 4


@pytest.mark.parametrize(
    ("provider", "age", "interval"),
    [("inngest", 0, 3), ("inngest", 200, 10), ("inngest", 3600, 30), ("runway", 0, 5), ("runway", 86_400, 30)],
)
async def test_polling_interval_grows_with_the_age_of_the_run(
    provider: str, age: float, interval: float, simulator: Simulator, environment: dict[str, str]
) -> None:
    began = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
    started = {"run_started_at": began} if provider == "inngest" else {"createdAt": began}
    for _ in range(4):
        simulator.fail_next(provider, json_response(run_json(provider, "Running", **started)))
    tool, arguments = WAITS[provider]
    async with opened(environment) as gateway, calling(gateway, tool, {**arguments, "wait_seconds": 600}) as call:
        for count in (1, 2):
            await pass_time(interval - 1)
            assert len(sent(simulator)) == count
            await pass_time(1.5)
            assert len(sent(simulator)) == count + 1
        assert not call.is_over


async def test_render_run_canceled_while_its_stream_opens_ends_the_wait(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", NO_FAULT)
    simulator.fail_next("render", Fault(delay=1))
    async with opened(environment) as gateway, calling(gateway, *WAITS["render"]) as call:
        assert sent(simulator) == [READS["render"], STREAMS["render"]]
        await outside(environment, "DELETE", f"{RENDER_RUNS}/{RENDER_RUNNING}")
        await call.finish(2)
    assert call.value["status"] == "canceled"
    assert sent(simulator) == [READS["render"], STREAMS["render"], READS["render"]]


async def test_posthog_run_that_ends_while_its_stream_opens_ends_the_wait(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("posthog", NO_FAULT)
    simulator.fail_next("posthog", Fault(delay=1))
    async with opened(environment) as gateway, calling(gateway, *WAITS["posthog"]) as call:
        await outside(environment, "PATCH", f"{POSTHOG_RUNS}/{POSTHOG_RUNNING}/", {"status": "failed"})
        await call.finish(2)
    assert call.value["status"] == "failed"
    assert sent(simulator) == [READS["posthog"], STREAMS["posthog"], READS["posthog"]]


@asynccontextmanager
async def endless_render(statuses: list[str], events: bytes = b"") -> AsyncIterator[tuple[dict[str, str], list[str]]]:
    """Serve a Render whose event stream sends `events` and never ends, as its local server does for canceled runs.

    Each GET of a run returns the next status. Yields the environment of a client and the paths that it requests.
    """
    paths: list[str] = []

    async def get_run(request: Request) -> Response:
        paths.append(request.url.path)
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        return JSONResponse({"id": request.path_params["run"], "status": status, "results": ["done"]})

    async def stream() -> AsyncIterator[bytes]:
        yield b"retry: 2000\n\n" + events
        await anyio.sleep_forever()

    async def get_events(request: Request) -> Response:
        paths.append(request.url.path)
        return StreamingResponse(stream(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/task-runs/events", get_events), Route("/task-runs/{run}", get_run)])
    async with listening(app) as origin:
        yield {"RENDER_BASE_URL": origin, "RENDER_API_KEY": "rnd_x"}, paths


@pytest.mark.parametrize("status", ["canceled", "completed", "failed"])
async def test_run_that_ended_before_its_stream_was_open_ends_the_wait(status: str) -> None:
    async with endless_render(["running", status]) as (environment, paths):
        call = await finished(environment, *WAITS["render"], 1)
    assert call.value["native_status"] == status
    run = f"/task-runs/{RENDER_RUNNING}"
    assert paths == [run, "/task-runs/events", run]


async def test_terminal_event_above_the_size_limit_ends_the_wait() -> None:
    ended = {"id": RENDER_RUNNING, "status": "completed", "results": ["x" * 9_000_000]}
    event = f"event: task.completed\ndata: {json.dumps(ended)}\n\n".encode()
    async with endless_render(["running", "completed"], event) as (environment, _):
        call = await finished(environment, *WAITS["render"], 5)
    assert (call.value["status"], call.value["result"]) == ("succeeded", ["done"])


async def test_run_that_ends_without_an_event_is_read_after_a_silent_stream() -> None:
    async with endless_render(["running", "running", "completed"]) as (environment, _):
        call = await finished(environment, *WAITS["render"], 46)
    assert (call.value["status"], call.value["timed_out"]) == ("succeeded", False)


@pytest.mark.parametrize("status", [200, 404, 406])
async def test_polls_if_the_provider_has_no_stream(
    status: int, simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", NO_FAULT)
    simulator.fail_next("render", json_response({"message": "no events here"}, status))
    async with opened(environment) as gateway, calling(gateway, *WAITS["render"]) as call:
        await pass_time(12)
        assert sent(simulator).count(STREAMS["render"]) == 1
        await outside(environment, "DELETE", f"{RENDER_RUNS}/{RENDER_RUNNING}")
        await call.finish(5)
    assert call.value["status"] == "canceled"
    # At 0, after the response of the stream, and at 5 or 6, 11 and 16 seconds.
    assert sent(simulator).count(READS["render"]) <= 5


@pytest.mark.parametrize("provider", ["render", "posthog"])
async def test_reconnects_a_dropped_stream_and_misses_no_event(
    provider: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    method, path, body, expected = STREAMED[{"render": "render canceled", "posthog": "posthog cancelled"}[provider]]
    async with opened(environment) as gateway, calling(gateway, *WAITS[provider]) as call:
        assert simulator.drop_connections(provider) == 1
        await pass_time(2)
        assert sent(simulator).count(STREAMS[provider]) == 2
        await outside(environment, method, path, body)
        await call.finish(1)
    assert call.value["status"] == expected["status"]


# Render closes a stream without events after a while. PostHog sends an error event before it closes a stream.
CLOSED_STREAMS = {
    "render": ": ping\n\n",
    "posthog": 'event: error\ndata: {"error": "Connection lost to task run stream"}\n\n',
}


@pytest.mark.parametrize("provider", CLOSED_STREAMS)
async def test_reconnects_a_closed_stream_while_the_run_is_active(
    provider: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    method, path, body, expected = STREAMED[{"render": "render canceled", "posthog": "posthog cancelled"}[provider]]
    simulator.fail_next(provider, NO_FAULT)
    simulator.fail_next(provider, Fault(200, {"Content-Type": "text/event-stream"}, CLOSED_STREAMS[provider]))
    async with opened(environment) as gateway, calling(gateway, *WAITS[provider]) as call:
        await pass_time(3)
        assert sent(simulator).count(STREAMS[provider]) == 2
        await outside(environment, method, path, body)
        await call.finish(1)
    assert call.value["status"] == expected["status"]


async def test_waits_for_a_posthog_run_that_starts_after_its_stream_timed_out(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    # PostHog waits 120 seconds for the stream of a run that is still queued, then closes with an error event.
    simulator.posthog.project.runs[POSTHOG_NOT_STARTED].status = "queued"
    arguments = {"task_id": TASK, "id": POSTHOG_NOT_STARTED, "wait_seconds": 600}
    async with opened(environment) as gateway, calling(gateway, "posthog-wait-for-run", arguments) as call:
        await pass_time(125)
        assert "error: Stream not available" in "\n".join(call.lines)
        await outside(environment, "POST", f"{POSTHOG_RUNS}/{POSTHOG_NOT_STARTED}/start/", {})
        await call.finish(10 + 1)
    assert call.value["status"] == "succeeded"


@pytest.mark.parametrize("provider", ["render", "posthog"])
async def test_run_that_ends_while_its_stream_is_disconnected_ends_the_wait_within_a_second(
    provider: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    method, path, body, _ = STREAMED[{"render": "render canceled", "posthog": "posthog failed"}[provider]]
    async with opened(environment) as gateway, calling(gateway, *WAITS[provider]) as call:
        assert simulator.drop_connections(provider) == 1
        await outside(environment, method, path, body)
        await call.finish(1)
    assert call.value["terminal"]


async def test_polls_after_repeated_stream_disconnects(simulator: Simulator, environment: dict[str, str]) -> None:
    tool, arguments = WAITS["render"]
    async with opened(environment) as gateway, calling(gateway, tool, {**arguments, "wait_seconds": 600}) as call:
        dropped = 0
        for _ in range(40):
            dropped += simulator.drop_connections("render")
            await pass_time(1)
        streams = sent(simulator).count(STREAMS["render"])
        assert dropped == streams == MAX_BRIEF_STREAMS
        polls = sent(simulator).count(READS["render"])
        await pass_time(20)
        assert sent(simulator).count(STREAMS["render"]) == streams
        assert sent(simulator).count(READS["render"]) in {polls + 3, polls + 4}
        await outside(environment, "DELETE", f"{RENDER_RUNS}/{RENDER_RUNNING}")
        await call.finish(5)
    assert call.value["status"] == "canceled"


async def test_repeats_a_rate_limited_poll_after_retry_after(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("inngest", NO_FAULT)
    simulator.fail_next("inngest", Fault(429, {"Retry-After": "20"}, "slow down"))
    async with (
        opened(environment) as gateway,
        calling(gateway, "inngest-wait-for-run", {"runId": INNGEST_FRESH}) as call,
    ):
        await pass_time(4)
        assert len(sent(simulator)) == 2
        await pass_time(18)
        assert len(sent(simulator)) == 2
        await call.finish(3)
    assert call.value["status"] == "succeeded"
    assert len(sent(simulator)) == 3
    assert 'the provider returned 429: "slow down"; reading again in 20 s' in call.lines


async def test_reopens_a_rate_limited_stream_after_retry_after(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", NO_FAULT)
    simulator.fail_next("render", Fault(429, {"Retry-After": "20"}, "slow down"))
    async with opened(environment) as gateway, calling(gateway, *WAITS["render"]):
        await pass_time(19)
        assert sent(simulator).count(STREAMS["render"]) == 1
        await pass_time(4)
        assert sent(simulator).count(STREAMS["render"]) == 2


async def test_skips_the_last_read_during_retry_after(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("inngest", NO_FAULT)
    simulator.fail_next("inngest", Fault(429, {"Retry-After": "60"}, "slow down"))
    call = await finished(environment, "inngest-wait-for-run", {"runId": INNGEST_RUNNING, "wait_seconds": 20}, 21)
    assert (call.value["status"], call.value["timed_out"]) == ("running", True)
    assert len(sent(simulator)) == 2


@pytest.mark.parametrize("failures", [1, 5])
async def test_wait_continues_after_failed_reads(
    failures: int, simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("inngest", NO_FAULT)
    for _ in range(failures):
        simulator.fail_next("inngest", Fault(503, body="busy"))
    call = await finished(environment, "inngest-wait-for-run", {"runId": INNGEST_FRESH}, 45)
    assert call.value["status"] == "succeeded"
    assert "reason" not in call.value
    assert (
        sum(line.startswith('the provider returned 503: "busy"; reading again in') for line in call.lines) == failures
    )


async def test_wait_ends_with_the_last_known_status_after_too_many_failed_reads(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("inngest", NO_FAULT)
    for _ in range(7):
        simulator.fail_next("inngest", Fault(503, body="busy"))
    call = await finished(environment, "inngest-wait-for-run", {"runId": INNGEST_FRESH}, 45)
    assert (call.value["status"], call.value["reason"]) == ("running", 'the provider returned 503: "busy"')
    assert (call.value["timed_out"], call.value["terminal"]) == (False, False)
    assert call.value["next"].startswith("The last read of the run failed, so its status may have changed.")
    assert call.value["next"].endswith("To wait again, call inngest-wait-for-run.")
    assert len(sent(simulator)) == 1 + 6


async def test_provider_that_never_responds_is_a_timeout_error(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    for _ in range(2):  # the read and the last one at the timeout
        simulator.fail_next("inngest", Fault(delay=500))
    arguments = {"runId": INNGEST_FRESH, "wait_seconds": 20}
    call = await finished(environment, "inngest-wait-for-run", arguments, 26)
    assert call.failure.message == "inngest did not return the run's status in time"
    assert (call.failure.kind, call.failure.retryable) == ("timeout", True)


async def test_does_not_open_a_stream_during_retry_after(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", Fault(429, {"Retry-After": "20"}, "slow down"))
    async with opened(environment) as gateway, calling(gateway, *WAITS["render"]):
        await pass_time(19)
        assert sent(simulator) == [READS["render"]]
        await pass_time(4)
        assert len(sent(simulator)) > 1


async def test_reconnects_less_often_to_a_stream_that_keeps_ending(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("posthog", NO_FAULT)
    event = 'data: {"type":"notification","notification":{"method":"_posthog/console","params":{"message":"hi"}}}\n\n'
    for _ in range(40):
        simulator.fail_next("posthog", Fault(200, {"Content-Type": "text/event-stream"}, event))
        for _ in range(2):
            simulator.fail_next("posthog", NO_FAULT)
    async with opened(environment) as gateway, calling(gateway, *WAITS["posthog"]):
        await pass_time(60)
    assert 1 <= sent(simulator).count(STREAMS["posthog"]) <= MAX_BRIEF_STREAMS


async def test_unknown_native_status_is_reported_as_unknown(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("runway", json_response(run_json("runway", "EXPIRED")))
    tool, arguments = WAITS["runway"]
    call = await finished(environment, tool, {**arguments, "wait_seconds": 0}, 0)
    assert (call.value["status"], call.value["native_status"]) == ("unknown", "EXPIRED")
    assert call.value["next"] == (
        "It is not known whether EXPIRED is a terminal status: "
        "read the run with runway-retrieve-task-status-and-output."
    )


@pytest.mark.parametrize("provider", ["render", "inngest", "posthog", "runway"])
async def test_wait_tolerates_an_unreachable_provider_for_a_while(provider: str) -> None:
    simulator = Simulator(clock=LoopClock())
    tool, arguments = WAITS[provider]
    async with AsyncExitStack() as server:
        environment = simulator.environment(await server.enter_async_context(serve(simulator)))
        async with (
            opened(environment) as gateway,
            calling(gateway, tool, {**arguments, "wait_seconds": 600}) as call,
        ):
            await pass_time(2)
            await server.aclose()
            await pass_time(8)
            assert not call.is_over
            await call.finish(300)
    assert "refused the connection" in call.value["reason"]
    assert call.value["status"] == ("queued" if provider == "runway" else "running")


async def test_failed_attempt_on_the_stream_does_not_end_the_wait(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    # The event of an attempt that failed looks like that of a run that failed. Render's local server.
    run = await outside(environment, "POST", RENDER_RUNS, {"task": "demo-workflow/flaky", "input": []})
    call = await finished(environment, "render-wait-for-run", {"taskRunId": run["id"]}, 30)
    assert (call.value["status"], call.value["result"]) == ("succeeded", ["third time lucky"])
    assert not any("failed" in line for line in call.lines)


@pytest.mark.parametrize("provider", ["render", "posthog"])
async def test_run_that_ends_while_its_stream_is_silent_is_read_at_the_polling_interval(provider: str) -> None:
    async with (
        scripted_provider(send_and_hold(": ping\n\n"), trn_a="running") as scripted,
        scripted_call(scripted, provider) as call,
    ):
        await pass_time(7)
        scripted.statuses.update({"trn-a": "completed", RUN: "completed"})
        await pass_time(5 + 1)
        assert call.finished.is_set()
    assert (call.value["status"], call.value["timed_out"]) == ("succeeded", False)


UNREADABLE: dict[str, tuple[str, str, str]] = {
    "404": ("404 Not Found", "application/json", '{"message":"task run not found"}'),
    "HTML page": ("200 OK", "text/html", "<html><title>Maintenance</title></html>"),
    "404 of a router": ("404 Not Found", "text/plain", "404 page not found\n"),
    "HTML 404": ("404 Not Found", "text/html", "<html><title>Not Found</title></html>"),
    "empty": ("200 OK", "application/json", ""),
    "null status": ("200 OK", "application/json", '{"id":"trn-a","status":null}'),
    "empty status": ("200 OK", "application/json", '{"id":"trn-a","status":""}'),
    "broken JSON": ("200 OK", "application/json", '{"id":"trn-a","sta'),
    "another shape": ("200 OK", "application/json", "[]"),
    "520": ("520 Unknown", "text/html", "<html><title>Web server is returning an unknown error</title></html>"),
}


@pytest.mark.parametrize("case", UNREADABLE)
async def test_unreadable_response_during_a_wait_is_a_missed_reading(case: str) -> None:
    status, media_type, body = UNREADABLE[case]
    async with (
        scripted_provider(send_and_hold(""), trn_a="running") as scripted,
        scripted_call(scripted, "render") as call,
    ):
        await pass_time(2)
        scripted.responses.append((status, body, f"Content-Type: {media_type}\r\n"))
        await pass_time(10)
        assert scripted.responses == []
        assert not call.finished.is_set()
        scripted.statuses["trn-a"] = "completed"
        await pass_time(8)
    assert call.value["status"] == "succeeded"
    assert any("reading again in" in line for line in call.lines)


async def test_single_404_of_runway_during_a_wait_is_a_missed_reading(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("runway", NO_FAULT)
    simulator.fail_next("runway", json_response({"error": "not found"}, 404))
    call = await finished(environment, "runway-wait-for-run", {"id": RUNWAY_FRESH}, 40)
    assert call.value["status"] == "succeeded"


async def test_404_page_of_a_proxy_does_not_show_that_a_runway_task_is_gone(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("runway", NO_FAULT)
    for _ in range(3):
        simulator.fail_next("runway", Fault(404, {"Content-Type": "text/html"}, "<title>Not Found</title>"))
    call = await finished(environment, "runway-wait-for-run", {"id": RUNWAY_FRESH}, 45)
    assert call.value["status"] == "succeeded"


async def start(gateway: Gateway, tool: str, arguments: Arguments) -> dict[str, Any]:
    """Start a run without waiting for it, and return the provider's response."""
    async with calling(gateway, tool, arguments) as call:
        await call.finish(0)
    return call.value


async def test_run_that_is_not_visible_after_its_start_is_waited_for(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    missing = json_response({"message": "task run not found"}, 404)
    async with opened(environment) as gateway:
        run = await start(gateway, "render-run-task", SQUARE)
        for _ in range(2):
            simulator.fail_next("render", missing)
        async with calling(gateway, "render-wait-for-run", {"taskRunId": run["id"]}) as call:
            await call.finish(10)
    assert (call.value["status"], call.value["result"]) == ("succeeded", [49])


async def follow_invisible(
    simulator: Simulator, environment: dict[str, str], *, misses: int, seconds: float
) -> FinishedCall:
    """Start a run, and follow it although the next reads do not find it."""
    arguments = {"task_id": TASK, "id": POSTHOG_NOT_STARTED}
    async with opened(environment) as gateway:
        await start(gateway, "posthog-start-task-run", arguments)
        for _ in range(misses):
            simulator.fail_next("posthog", json_response({"detail": "Task run not found"}, 404))
        async with calling(gateway, "posthog-stream-task-run", {**arguments, "wait_seconds": seconds}) as call:
            return await call.finish(seconds)


async def test_run_that_is_not_visible_after_its_start_is_followed(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await follow_invisible(simulator, environment, misses=2, seconds=20)
    assert (call.value["ended"], call.value["runs"]) == ("terminal", {POSTHOG_NOT_STARTED: "succeeded"})


async def test_follow_of_a_run_that_is_not_visible_yet_ends_in_time(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await follow_invisible(simulator, environment, misses=20, seconds=3)
    assert isinstance(call.error, NotVisibleYet)


async def test_404_right_after_the_start_is_explained(simulator: Simulator, environment: dict[str, str]) -> None:
    async with opened(environment) as gateway:
        run = await start(gateway, "render-run-task", SQUARE)
        errors = []
        for seconds in (0, 16):
            await pass_time(seconds)
            simulator.fail_next("render", json_response({"message": "task run not found"}, 404))
            async with calling(gateway, "render-retrieve-task-run", {"taskRunId": run["id"]}) as call:
                await call.finish(0)
            errors.append(call.error)
    assert [type(error) for error in errors] == [NotVisibleYet, ProviderError]
    assert errors[0] is not None
    assert "started a moment ago" in errors[0].hint


async def test_end_from_before_a_resume_is_not_believed(simulator: Simulator, environment: dict[str, str]) -> None:
    # A read replica that lags behind a resume.
    older = run_json("posthog", "failed", completed_at="2026-01-01T00:00:00Z", error_message="Out of memory")
    simulator.fail_next("posthog", NO_FAULT)
    for _ in range(2):
        simulator.fail_next("posthog", json_response(older))
    arguments = {"task_id": TASK, "id": POSTHOG_FAILED, "wait_seconds": 40}
    call = await finished(environment, "posthog-resume-task-run-cloud", arguments, 30)
    assert (call.value["status"], call.value["error"]) == ("succeeded", None)


async def test_end_from_before_a_resume_is_explained(simulator: Simulator, environment: dict[str, str]) -> None:
    older = {"id": POSTHOG_FAILED, "status": "failed", "completed_at": "2026-01-01T00:00:00Z"}
    arguments = {"task_id": TASK, "id": POSTHOG_FAILED}
    notes = []
    async with opened(environment) as gateway:
        await start(gateway, "posthog-resume-task-run-cloud", arguments)
        for seconds in (0, 16):
            await pass_time(seconds)
            simulator.fail_next("posthog", json_response(older))
            async with calling(gateway, "posthog-retrieve-task-run", arguments) as call:
                await call.finish(1)
            notes.append(call.outcome.notes)
    assert notes == [
        (
            f"Run {POSTHOG_FAILED}: failed.",
            f"posthog still returns the status from before the start of run {POSTHOG_FAILED}: failed. The run was "
            "started a moment ago, so it may not be visible yet: read it again in a few seconds.",
        ),
        (f"Run {POSTHOG_FAILED}: failed.",),
    ]


async def test_failed_attempt_does_not_end_a_start_with_wait(environment: dict[str, str]) -> None:
    flaky = {"body": {"task": "demo-workflow/flaky", "input": []}, "wait_seconds": 30}
    call = await finished(environment, "render-run-task", flaky, 31)
    assert (call.value["status"], call.value["attempts"]) == ("succeeded", 3)


async def test_failed_attempt_does_not_end_a_wait_for_several_runs(environment: dict[str, str]) -> None:
    tasks = ("flaky", "square")
    runs = [
        await outside(environment, "POST", RENDER_RUNS, {"task": f"demo-workflow/{task}", "input": [7]})
        for task in tasks
    ]
    arguments = {"taskRunId": [run["id"] for run in runs]}
    call = await finished(environment, "render-wait-for-run", arguments, 31)
    assert [run["status"] for run in call.value["runs"]] == ["succeeded", "succeeded"]


async def test_wrong_credential_during_a_wait_ends_it_with_the_hint(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("runway", NO_FAULT)
    simulator.fail_next("runway", json_response({"error": "invalid key"}, 401))
    call = await finished(environment, "runway-wait-for-run", {"id": RUNWAY_FRESH}, 6)
    assert (call.value["status"], call.value["timed_out"]) == ("queued", False)
    assert call.value["reason"] == 'the provider returned 401: "invalid key"'
    assert "RUNWAYML_API_SECRET" in call.value["next"]
    assert call.value["next"].endswith("Then call runway-wait-for-run again.")


async def test_rate_limit_at_the_end_of_a_wait_is_its_reason(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("inngest", NO_FAULT)
    simulator.fail_next("inngest", Fault(429, {"Retry-After": "60"}, "slow down"))
    call = await finished(environment, "inngest-wait-for-run", {"runId": INNGEST_RUNNING, "wait_seconds": 20}, 21)
    assert (call.value["timed_out"], call.value["reason"]) == (True, 'the provider returned 429: "slow down"')
    assert "The run continues" not in call.value["next"]


async def test_heartbeat_of_a_start_with_wait_has_the_status_as_last_read(environment: dict[str, str]) -> None:
    call = await finished(
        environment, "render-run-task", {"body": {"task": "demo-workflow/slow", "input": []}, "wait_seconds": 30}, 31
    )
    heartbeats = [line for line in call.lines if "no change for" in line]
    assert heartbeats
    assert all(": running" in line for line in heartbeats)


UNKNOWN: dict[str, tuple[str, Arguments]] = {
    "render": ("render-wait-for-run", {"taskRunId": "trn-d5im9999999999999999"}),
    # Status 200 with {"error": "Unable to load function run: ...", "status": 500}: inngest pkg/api/apiv1/cache.go
    "inngest": ("inngest-wait-for-run", {"runId": "01JZDEM0RVN000000000000099"}),
    "posthog": ("posthog-wait-for-run", {"task_id": TASK, "id": "99999999-9999-4999-8999-999999999999"}),
    "runway": ("runway-wait-for-run", {"id": "97f20503-6c24-4c16-946b-35dbbce2af2f"}),
}


@pytest.mark.parametrize("provider", UNKNOWN)
async def test_wait_for_an_unknown_run_is_not_found(
    provider: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, *UNKNOWN[provider], 0)
    assert (call.failure.kind, call.failure.retryable) == ("not_found", False)
    assert len(sent(simulator)) == 1


@pytest.mark.parametrize("provider", WAITS)
async def test_wrong_credential_is_an_error_at_once(
    provider: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    environment[KEYS[provider]] = {"render": "rnd", "inngest": "signkey-", "posthog": "phx", "runway": "key"}[
        provider
    ] + "_wrong_one"
    call = await finished(environment, *WAITS[provider], 0)
    assert (call.failure.kind, call.failure.status) == ("auth", 401)
    assert len(sent(simulator)) == 1


@pytest.mark.parametrize("provider", WAITS)
async def test_provider_that_refuses_every_connection_is_an_error_after_a_few_reads(
    provider: str, environment: dict[str, str]
) -> None:
    environment[f"{provider.upper()}_BASE_URL"] = "http://127.0.0.1:9"  # the discard port, on which nothing listens
    call = await finished(environment, *WAITS[provider], 8)
    assert "refused the connection" in call.failure.message
    assert sum("reading again" in line for line in call.lines) == MAX_FAILED_FIRST_READS


async def test_retries_the_first_read_after_a_transient_fault(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("runway", Fault(503, body="busy"))
    call = await finished(environment, "runway-wait-for-run", {"id": RUNWAY_SUCCEEDED}, 5)
    assert call.value["status"] == "succeeded"
    assert len(sent(simulator)) == 2


async def test_timeout_of_a_wait_that_never_read_the_run_is_an_error(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    for _ in range(4):
        simulator.fail_next("runway", Fault(503, body="busy"))
    call = await finished(environment, "runway-wait-for-run", {"id": RUNWAY_SUCCEEDED, "wait_seconds": 2}, 8)
    assert call.failure.status == 503


STILL_ACTIVE = "The run continues, and nothing was cancelled: call"


@pytest.mark.parametrize("provider", WAITS)
async def test_wait_returns_timed_out_when_the_run_is_still_active(
    provider: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    tool, arguments = WAITS[provider]
    call = await finished(environment, tool, {**arguments, "wait_seconds": 10}, 11)
    value = call.value
    assert 10 <= value["elapsed_seconds"] < 12
    assert (value["timed_out"], value["terminal"]) == (True, False)
    assert value["status"] == ("queued" if provider == "runway" else "running")
    assert value["next"].endswith(f"{STILL_ACTIVE} {tool} again to keep waiting.")
    assert {request.partition(" ")[0] for request in sent(simulator)} == {"GET"}
    await settle()
    streams = [request for request in simulator.requests if f"GET {request.path}" == STREAMS.get(provider)]
    assert all(stream.disconnected.is_set() for stream in streams)
    again = await finished(environment, tool, {**arguments, "wait_seconds": 0})
    assert again.value["status"] == value["status"]


async def test_wait_of_0_seconds_reads_once(simulator: Simulator, environment: dict[str, str]) -> None:
    async with opened(environment) as gateway:
        # The second wait has an open connection, on which another request could be sent before the timeout.
        for count in (1, 2):
            async with calling(
                gateway, "render-wait-for-run", {"taskRunId": RENDER_RUNNING, "wait_seconds": 0}
            ) as call:
                await call.finish(0)
            assert sent(simulator) == [READS["render"]] * count
            assert (call.value["status"], call.value["timed_out"], call.value["polls"]) == ("running", True, 1)


async def test_wait_of_0_seconds_returns_a_terminal_status(environment: dict[str, str]) -> None:
    call = await finished(environment, "runway-wait-for-run", {"id": RUNWAY_SUCCEEDED, "wait_seconds": 0}, 0)
    assert (call.value["status"], call.value["timed_out"], call.value["terminal"]) == ("succeeded", False, True)


async def test_wait_is_limited_by_max_wait_seconds(environment: dict[str, str]) -> None:
    arguments = {"taskRunId": RENDER_RUNNING, "wait_seconds": 900}
    async with (
        opened(environment, max_wait_seconds=5) as gateway,
        calling(gateway, "render-wait-for-run", arguments) as call,
    ):
        await call.finish(6)
    assert call.value["timed_out"]
    assert call.value["elapsed_seconds"] >= 5


async def test_default_wait_is_the_wait_seconds_setting(environment: dict[str, str]) -> None:
    async with opened(environment, wait_seconds=7) as gateway, calling(gateway, *WAITS["render"]) as call:
        await pass_time(5)
        assert not call.is_over
        await call.finish(3)
    assert call.value["timed_out"]


async def test_last_read_at_the_timeout_finds_an_ended_run(simulator: Simulator, environment: dict[str, str]) -> None:
    # The task is ten minutes old, so it is read every 30 seconds.
    async with (
        opened(environment) as gateway,
        calling(gateway, "runway-wait-for-run", {"id": RUNWAY_THROTTLED, "wait_seconds": 20}) as call,
    ):
        await pass_time(6)
        await outside(environment, "DELETE", f"{RUNWAY_TASKS}/{RUNWAY_THROTTLED}")
        await call.finish(15 + GONE_SECONDS)
    assert (call.value["status"], call.value["timed_out"]) == ("canceled", False)
    assert len(sent(simulator)) == 1 + 2  # a task that is gone is read twice


@pytest.mark.parametrize("provider", WAITS)
async def test_cancelling_a_wait_closes_its_stream_and_not_the_run(
    provider: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    async with opened(environment) as gateway, calling(gateway, *WAITS[provider]) as call:
        await pass_time(1)
        call.scope.cancel()
        await settle()
        assert call.is_over
        before = sent(simulator)
        streams = [request for request in simulator.requests if f"GET {request.path}" == STREAMS.get(provider)]
        assert len(streams) == (provider in STREAMS)
        assert all(stream.disconnected.is_set() for stream in streams)
        await pass_time(60)
        assert sent(simulator) == before
    again = await finished(environment, WAITS[provider][0], {**WAITS[provider][1], "wait_seconds": 0})
    assert not again.value["terminal"]


@pytest.mark.parametrize("provider", WAITS)
async def test_stop_ends_a_wait_and_not_the_run(
    provider: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    async with opened(environment) as gateway, calling(gateway, *WAITS[provider]) as call:
        await pass_time(1)
        gateway.stop()
        await call.finish(0)
    assert call.failure.message == "this server is stopping"
    assert call.failure.hint == "The run continues at the provider."
    assert {request.partition(" ")[0] for request in sent(simulator)} == {"GET"}


@pytest.mark.parametrize("provider", WAITS)
async def test_wait_sends_progress_at_least_every_10_seconds(provider: str, environment: dict[str, str]) -> None:
    began = anyio.current_time()
    call = await finished(environment, *WAITS[provider], 46)
    times = [began, *call.progress_times, anyio.current_time()]
    assert max(later - earlier for earlier, later in pairwise(times)) <= 10
    assert len(call.progress) >= 5
    assert all(later.progress > earlier.progress for earlier, later in pairwise(call.progress))


async def test_each_status_or_stage_of_a_posthog_run_is_reported(environment: dict[str, str]) -> None:
    run = f"{POSTHOG_RUNS}/{POSTHOG_RUNNING}/"
    async with opened(environment) as gateway, calling(gateway, *WAITS["posthog"]) as call:
        for changes in ({"stage": "review"}, {"stage": "merge"}, {"branch": "fix"}, {"status": "completed"}):
            await outside(environment, "PATCH", run, changes)
            await settle()
        await call.finish(1)
    # A change of the branch is not reported.
    assert call.lines == [
        f"{POSTHOG_RUNNING}: running, build",
        f"{POSTHOG_RUNNING}: running, review",
        f"{POSTHOG_RUNNING}: running, merge",
        f"{POSTHOG_RUNNING}: succeeded, merge",
    ]
    assert {progress.total for progress in call.progress} == {45}


async def test_log_entries_of_a_posthog_run_are_reported(environment: dict[str, str]) -> None:
    await outside(environment, "POST", f"{POSTHOG_RUNS}/{POSTHOG_NOT_STARTED}/start/", {})
    call = await finished(environment, "posthog-wait-for-run", {"task_id": TASK, "id": POSTHOG_NOT_STARTED}, 12)
    messages = "\n".join(call.lines)
    for line in ("console: Provisioning sandbox", "agent message chunk: The tests pass.", "console: Running tests"):
        assert line in messages
    assert all(later.progress > earlier.progress for earlier, later in pairwise(call.progress))


async def test_progress_of_a_runway_task_is_its_own_ratio(environment: dict[str, str]) -> None:
    call = await finished(environment, "runway-wait-for-run", {"id": RUNWAY_FRESH}, 25)
    assert {progress.total for progress in call.progress} == {100}
    assert call.progress[0].progress == 0
    assert call.progress[-1].progress == 100
    reads = [
        progress for progress in call.progress if "running" in progress.message and "no change" not in progress.message
    ]
    # The task runs from second 4 to second 20 and is read at 5, 10 and 15.
    assert [round(progress.progress, -1) for progress in reads] == [10, 40, 70]
    assert all(later.progress > earlier.progress for earlier, later in pairwise(call.progress))


async def test_progress_of_a_wait_never_exceeds_its_total(simulator: Simulator, environment: dict[str, str]) -> None:
    for _ in range(4):
        simulator.fail_next("runway", json_response(run_json("runway", "RUNNING", progress=1.0)))
    simulator.fail_next("runway", json_response(run_json("runway", "SUCCEEDED")))
    call = await finished(environment, *WAITS["runway"], 25)
    assert call.value["status"] == "succeeded"
    assert all(later.progress > earlier.progress for earlier, later in pairwise(call.progress))
    assert max(progress.progress for progress in call.progress) <= 100


async def test_wait_for_several_runs_returns_when_all_have_ended(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    square = await outside(environment, "POST", RENDER_RUNS, {"task": "demo-workflow/square", "input": [7]})
    ids = [RENDER_COMPLETED, square["id"], RENDER_RUNNING]
    async with opened(environment) as gateway, calling(gateway, "render-wait-for-run", {"taskRunId": ids}) as call:
        await pass_time(5)
        assert not call.is_over
        await outside(environment, "DELETE", f"{RENDER_RUNS}/{RENDER_RUNNING}")
        await call.finish(1)
    common = {"terminal": True, "error": None}
    value = timeless(call.value)
    polls = value.pop("polls")
    assert value == {
        "provider": "render",
        "runs": [
            {"run_id": RENDER_COMPLETED, "status": "succeeded", "native_status": "completed", "result": [144]} | common,
            {"run_id": square["id"], "status": "succeeded", "native_status": "completed", "result": [49]} | common,
            {"run_id": RENDER_RUNNING, "status": "canceled", "native_status": "canceled", "result": None} | common,
        ],
        "terminal": True,
        "timed_out": False,
        "next": f"All runs have ended, some without success: {RETRY_ADVICE}".format("render-run-task"),
    }
    # Each run once, one stream for the two active ones, and those at each event and every 5 seconds.
    requests = sent(simulator)
    assert requests[3] == f"GET {RENDER_RUNS}/events?taskRunIds={square['id']},{RENDER_RUNNING}"
    assert requests.count(f"GET {RENDER_RUNS}/{RENDER_COMPLETED}") == 1
    assert requests.count(requests[3]) == 1
    assert 2 <= polls <= 5
    assert len(requests) <= 3 + 1 + 2 * (polls - 1)
    assert {progress.total for progress in call.progress} == {45}
    assert all(later.progress > earlier.progress for earlier, later in pairwise(call.progress))


async def test_wait_until_any_returns_when_the_first_run_has_ended(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    square = await outside(environment, "POST", RENDER_RUNS, {"task": "demo-workflow/square", "input": [7]})
    arguments = {"taskRunId": [RENDER_RUNNING, square["id"]], "until": "any"}
    async with opened(environment) as gateway, calling(gateway, "render-wait-for-run", arguments) as call:
        await pass_time(2)
        assert not call.is_over
        await call.finish(2)
    assert [run["status"] for run in call.value["runs"]] == ["running", "succeeded"]
    assert call.value["timed_out"] is False
    assert call.value["next"] == f'Call render-wait-for-run again for the runs that continue: ["{RENDER_RUNNING}"].'
    assert len(sent(simulator)) <= 2 + 1 + 2 + 2


async def test_wait_until_any_returns_at_once_if_a_run_has_ended(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    arguments = {"taskRunId": [RENDER_RUNNING, RENDER_FAILED], "until": "any"}
    call = await finished(environment, "render-wait-for-run", arguments, 0)
    assert [run["status"] for run in call.value["runs"]] == ["running", "failed"]
    assert len(sent(simulator)) == 2


async def test_duplicate_run_ids_are_read_once(simulator: Simulator, environment: dict[str, str]) -> None:
    arguments = {"taskRunId": [RENDER_COMPLETED, RENDER_FAILED, RENDER_COMPLETED]}
    call = await finished(environment, "render-wait-for-run", arguments, 0)
    assert [run["run_id"] for run in call.value["runs"]] == [RENDER_COMPLETED, RENDER_FAILED]
    assert len(sent(simulator)) == 2


async def test_list_with_one_run_id_returns_a_list(environment: dict[str, str]) -> None:
    call = await finished(environment, "render-wait-for-run", {"taskRunId": [RENDER_COMPLETED]}, 0)
    assert [run["status"] for run in call.value["runs"]] == ["succeeded"]


async def test_unknown_run_among_several_has_its_own_reason_and_the_others_are_waited_for(
    environment: dict[str, str],
) -> None:
    arguments = {"taskRunId": [RENDER_RUNNING, "trn-d5im9999999999999999"]}
    async with opened(environment) as gateway, calling(gateway, "render-wait-for-run", arguments) as call:
        await pass_time(5)
        assert not call.is_over
        await outside(environment, "DELETE", f"{RENDER_RUNS}/{RENDER_RUNNING}")
        await call.finish(1)
    known, unknown = call.value["runs"]
    assert (known["status"], "reason" in known) == ("canceled", False)
    assert (unknown["status"], unknown["terminal"]) == ("unknown", False)
    assert unknown["reason"] == 'the provider returned 404: "task run not found"'
    assert (call.value["terminal"], call.value["timed_out"]) == (False, False)


@pytest.mark.parametrize("status", ["unknown", "running"])
async def test_refused_run_among_several_has_its_own_reason_and_the_others_are_waited_for(status: str) -> None:
    # The others can be read, so the credential is not wrong, but lacks a permission for this run.
    refusal = {"trn-b": ("403 Forbidden", '{"message":"not your workspace"}')}
    arguments = {"taskRunId": ["trn-a", "trn-b"]}
    async with scripted_provider(send_and_hold(""), trn_a="running", trn_b="running") as scripted:
        scripted.refusals.update(refusal if status == "unknown" else {})
        async with scripted_calling(scripted.environment, "render-wait-for-run", arguments) as call:
            await pass_time(2)
            scripted.refusals.update(refusal)
            await pass_time(10)
            assert not call.finished.is_set()
            scripted.statuses["trn-a"] = "completed"
            await pass_time(6)
    assert [(run["status"], run.get("reason")) for run in call.value["runs"]] == [
        ("succeeded", None),
        (status, 'the provider returned 403: "not your workspace"'),
    ]
    assert "RENDER_API_KEY" in call.value["next"]
    assert "trn-b" in call.value["next"]


async def test_unknown_runs_alone_are_an_error(environment: dict[str, str]) -> None:
    arguments = {"taskRunId": ["trn-d5im9999999999999998", "trn-d5im9999999999999999"]}
    call = await finished(environment, "render-wait-for-run", arguments, 0)
    assert call.failure.kind == "not_found"


async def test_wait_for_50_runs_sends_at_most_eight_concurrent_requests(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    ids = [f"trn-d5im00000000000001{n:02}" for n in range(50)]
    for _ in ids:
        simulator.fail_next("render", Fault(200, delay=1))
    async with opened(environment) as gateway, calling(gateway, "render-wait-for-run", {"taskRunId": ids}):
        assert len(sent(simulator)) == 8


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("inngest-wait-for-run", {"runId": INNGEST_COMPLETED.lower()}),
        ("posthog-wait-for-run", {"task_id": TASK, "id": POSTHOG_COMPLETED.upper()}),
        ("runway-wait-for-run", {"id": RUNWAY_SUCCEEDED.upper()}),
    ],
)
async def test_run_id_is_not_case_sensitive(
    tool: str, arguments: Arguments, simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, tool, {**arguments, "wait_seconds": 10})
    assert call.value["status"] == "succeeded"
    assert len(sent(simulator)) == 1


async def test_run_id_is_not_case_sensitive_on_the_stream(environment: dict[str, str]) -> None:
    arguments = {"task_id": TASK, "id": POSTHOG_RUNNING.upper()}
    async with opened(environment) as gateway, calling(gateway, "posthog-wait-for-run", arguments) as call:
        await outside(environment, "PATCH", f"{POSTHOG_RUNS}/{POSTHOG_RUNNING}/", {"status": "completed"})
        await call.finish(1)
    assert call.value["status"] == "succeeded"


async def test_hint_for_a_posthog_run_that_was_not_started_names_the_start_tool(environment: dict[str, str]) -> None:
    arguments = {"task_id": TASK, "id": POSTHOG_NOT_STARTED, "wait_seconds": 600}
    call = await finished(environment, "posthog-wait-for-run", arguments, 0)
    assert (call.value["status"], call.value["terminal"], call.value["timed_out"]) == ("not started", False, False)
    assert call.value["next"] == (
        "The run has not been started: start a cloud run with posthog-start-task-run; the desktop client starts a "
        "local run. After the start, call posthog-wait-for-run."
    )


@pytest.mark.parametrize("spelling", ["plain", "escaped"])
@pytest.mark.parametrize("provider", WAITS)
async def test_secret_in_a_run_is_redacted(
    provider: str, spelling: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    key = environment[KEYS[provider]] = {"render": "rnd", "inngest": "signkey-", "posthog": "phx", "runway": "key"}[
        provider
    ] + "_planted_5d1c7a90b2e8"
    native_status = {"render": "failed", "inngest": "Failed", "posthog": "failed", "runway": "FAILED"}[provider]
    member = {"render": "error", "inngest": "output", "posthog": "error_message", "runway": "failure"}[provider]
    body = json.dumps(run_json(provider, native_status, **{member: f"cannot use {key}"}))
    if spelling == "escaped":
        body = body.replace("planted", "pl\\u0061nted")
    simulator.fail_next(provider, Fault(200, {"Content-Type": "application/json"}, body))
    tool, arguments = WAITS[provider]
    call = await finished(environment, tool, arguments, 0)
    assert call.value["error"] == "cannot use [secret]"
    assert call.outcome.structured == json.loads(call.outcome.text)
    assert key not in json.dumps([call.outcome.text, call.outcome.structured, call.outcome.notes, call.lines])


async def test_secret_on_the_stream_of_a_run_is_redacted(simulator: Simulator, environment: dict[str, str]) -> None:
    key = environment["POSTHOG_API_KEY"] = "phx_planted_5d1c7a90b2e8"
    log = {"type": "notification", "notification": {"method": "_posthog/console", "params": {"message": f"key {key}"}}}
    event = f"data: {json.dumps(log)}\n\n".replace("planted", "pl\\u0061nted")
    simulator.fail_next("posthog", NO_FAULT)
    simulator.fail_next("posthog", Fault(200, {"Content-Type": "text/event-stream"}, event))
    async with opened(environment) as gateway, calling(gateway, *WAITS["posthog"]) as call:
        await pass_time(1)
        body = {"status": "completed", "output": {"key": key}}
        await outside(environment, "PATCH", f"{POSTHOG_RUNS}/{POSTHOG_RUNNING}/", body)
        await call.finish(6)
    assert call.value["result"] == {"key": "[secret]"}
    assert "console: key [secret]" in call.lines
    assert key not in json.dumps([call.outcome.text, call.outcome.structured, call.lines])


@asynccontextmanager
async def scripted_call(scripted: Provider, provider: str) -> AsyncIterator[Call]:
    """Wait for the run of a scripted provider."""
    arguments = {"taskRunId": "trn-a"} if provider == "render" else IDS
    async with scripted_calling(scripted.environment, f"{provider}-wait-for-run", arguments) as call:
        yield call


def texts_of(result: CallToolResult) -> list[str]:
    """Return the text blocks of a result."""
    return [block.text for block in result.content if isinstance(block, TextContent)]


TRANSPORTS: list[tuple[Transport, Era]] = [
    ("memory", "legacy"),
    ("memory", "auto"),
    ("stdio", "legacy"),
    ("stdio", "auto"),
    ("http", "legacy"),
    ("http", "auto"),
]


async def test_structured_content_equals_the_text_and_matches_the_output_schema(environment: dict[str, str]) -> None:
    calls = [(f"{case.partition(' ')[0]}-wait-for-run", arguments) for case, (arguments, _) in ENDED_RUNS.items()]
    calls += [(tool, {**arguments, "wait_seconds": 0}) for tool, arguments in WAITS.values()]
    calls += [("render-wait-for-run", {"taskRunId": [RENDER_COMPLETED, RENDER_RUNNING], "until": "any"})]
    calls += [("render-wait-for-run", {"taskRunId": [RENDER_RUNNING], "wait_seconds": 0})]
    async with open_client("memory", "auto", environment) as client:
        schemas = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
        for tool, arguments in calls:
            result = await client.call_tool(tool, arguments)
            assert not result.is_error
            schema = schemas[tool]
            assert schema is not None
            jsonschema.validate(result.structured_content, schema)
            assert json.loads(texts_of(result)[0]) == result.structured_content
            assert texts_of(result)[1].startswith("Run")


@pytest.mark.parametrize("ids", [RENDER_RUNNING, [RENDER_RUNNING]], ids=["one", "several"])
async def test_truncated_result_matches_the_output_schema(
    ids: Any, simulator: Simulator, environment: dict[str, str]
) -> None:
    results = [{"row": n, "text": "x" * 100} for n in range(2_000)]
    simulator.fail_next("render", json_response(run_json("render", "completed", results=results)))
    async with open_client("memory", "auto", environment) as client:
        schema = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}["render-wait-for-run"]
        result = await client.call_tool("render-wait-for-run", {"taskRunId": ids})
    assert schema is not None
    jsonschema.validate(result.structured_content, schema)
    first, *notes = texts_of(result)
    structured = dict(result.structured_content or {})
    advice = f'call render-retrieve-task-run with taskRunId "{RENDER_RUNNING}" and result_path "results['
    assert advice in structured.pop("truncated")
    assert json.loads(first) == structured
    assert len(first) <= 50_000
    assert any(text.startswith("Truncated to about") and advice in text for text in notes)


@pytest.mark.parametrize(("transport", "era"), TRANSPORTS)
async def test_two_waits_on_one_connection_are_independent(
    transport: Transport, era: Era, simulator: Simulator, environment: dict[str, str]
) -> None:
    results: dict[str, CallToolResult] = {}
    progress_of: dict[str, list[float]] = {"render": [], "posthog": []}
    ended = {provider: anyio.Event() for provider in progress_of}
    with anyio.fail_after(PATIENCE):
        async with open_client(transport, era, environment) as client, anyio.create_task_group() as tasks:

            async def wait(provider: str) -> None:
                async def on_progress(progress: float, total: float | None, message: str | None) -> None:
                    progress_of[provider].append(progress)

                tool, arguments = WAITS[provider]
                results[provider] = await client.call_tool(tool, arguments, progress_callback=on_progress)
                ended[provider].set()

            for provider in progress_of:
                tasks.start_soon(wait, provider)
            await simulator.wait_for_request(lambda request: request.path in STREAMS["render"])
            await simulator.wait_for_request(lambda request: request.path in STREAMS["posthog"])
            await outside(environment, "PATCH", f"{POSTHOG_RUNS}/{POSTHOG_RUNNING}/", {"status": "completed"})
            await ended["posthog"].wait()
            assert not ended["render"].is_set()
            await outside(environment, "DELETE", f"{RENDER_RUNS}/{RENDER_RUNNING}")
            await ended["render"].wait()
    values = {provider: result.structured_content for provider, result in results.items()}
    assert {provider: value and value["status"] for provider, value in values.items()} == {
        "render": "canceled",
        "posthog": "succeeded",
    }
    for amounts in progress_of.values():
        assert amounts == sorted(set(amounts))
        assert amounts


@pytest.mark.parametrize(("transport", "era"), TRANSPORTS)
async def test_client_that_cancels_a_wait_does_not_cancel_the_run(
    transport: Transport, era: Era, simulator: Simulator, environment: dict[str, str]
) -> None:
    tool, arguments = WAITS["render"]
    with anyio.fail_after(PATIENCE):
        async with open_client(transport, era, environment) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.call_tool, tool, arguments)
                stream = await simulator.wait_for_request(lambda request: "/events" in request.path)
                tasks.cancel_scope.cancel()
            await stream.disconnected.wait()
            again = await client.call_tool(tool, {**arguments, "wait_seconds": 0})
    assert again.structured_content
    assert again.structured_content["status"] == "running"
    assert {request.method for request in simulator.requests} == {"GET"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
async def test_signal_during_a_wait_ends_the_server_and_not_the_run(
    number: signal.Signals, simulator: Simulator, environment: dict[str, str]
) -> None:
    def start_wait(process: Process) -> None:
        process.handshake()
        process.call(2, "render-wait-for-run", taskRunId=RENDER_RUNNING)

    def stop(process: Process) -> tuple[int, float, str]:
        process.child.send_signal(number)
        return process.wait()

    with running(environment) as process, anyio.fail_after(PATIENCE):
        await anyio.to_thread.run_sync(start_wait, process)
        stream = await simulator.wait_for_request(lambda request: "/events" in request.path)
        code, took, log = await anyio.to_thread.run_sync(stop, process)
        await stream.disconnected.wait()
    assert (code, log) == (0, "")
    assert took < scaled(2)
    assert {request.method for request in simulator.requests} == {"GET"}
