"""Cancelling runs: a run with a terminal status is not cancelled, and the result reports the status afterwards."""

import json

import anyio
import pytest
from mcp.types import CallToolResult, TextContent

from mcp_taskruns.engine.runs.cancel import SETTLE_SECONDS
from mcp_taskruns.engine.runs.read import GONE_READS, GONE_SECONDS
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.calls import (
    ALL_TRIES_S,
    INNGEST_CANCELLED,
    INNGEST_COMPLETED,
    INNGEST_FAILED,
    INNGEST_RUNNING,
    INNGEST_RUNS,
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
    RUNWAY_SUCCEEDED,
    RUNWAY_TASKS,
    RUNWAY_THROTTLED,
    TASK,
    TRIES,
    Arguments,
    calling,
    finished,
    json_response,
    opened,
    outside,
    run_json,
    sent,
)
from tests.clients import Era, Transport, open_client
from tests.clock import pass_time
from tests.timing import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

PATCH: Arguments = {"body": {"status": "cancelled"}}
COMMAND: Arguments = {"body": {"jsonrpc": "2.0", "method": "cancel", "id": 1}}

RUNNING: dict[str, tuple[str, Arguments]] = {
    "render": ("render-cancel-task-run", {"taskRunId": RENDER_RUNNING}),
    "inngest": ("inngest-cancel-function-run", {"runId": INNGEST_RUNNING}),
    "posthog": ("posthog-update-task-run", {"task_id": TASK, "id": POSTHOG_RUNNING, **PATCH}),
    "posthog by command": ("posthog-send-command-agent-server", {"task_id": TASK, "id": POSTHOG_RUNNING, **COMMAND}),
    "runway": ("runway-cancel-delete-task", {"id": RUNWAY_THROTTLED}),
}


def sent_methods(simulator: Simulator) -> list[str]:
    """Return the methods of the requests that our server sent."""
    return [request.partition(" ")[0] for request in sent(simulator)]


async def test_cancels_a_running_render_run_and_reads_it_once_after(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, *RUNNING["render"], 0)
    assert call.value == {
        "provider": "render",
        "run_id": RENDER_RUNNING,
        "cancelled": True,
        "status_before": "running",
        "status": "canceled",
        "native_status": "canceled",
        "terminal": True,
        "next": "The run was cancelled.",
    }
    assert json.loads(call.outcome.text) == call.value
    assert call.outcome.notes == (f"Run {RENDER_RUNNING}: canceled.",)
    assert sent(simulator) == [READS["render"], f"DELETE {RENDER_RUNS}/{RENDER_RUNNING}", READS["render"]]
    assert (await outside(environment, "GET", f"{RENDER_RUNS}/{RENDER_RUNNING}"))["status"] == "canceled"


async def test_reads_a_cancelled_inngest_run_after_its_cache_has_expired(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with opened(environment) as gateway, calling(gateway, *RUNNING["inngest"]) as call:
        await pass_time(2)
        delete = f"DELETE {INNGEST_RUNS}/{INNGEST_RUNNING}"
        assert sent(simulator) == [READS["inngest"], delete]
        await call.finish(2)
        assert sent(simulator) == [READS["inngest"], delete, READS["inngest"]]
    assert call.value == {
        "provider": "inngest",
        "run_id": INNGEST_RUNNING,
        "cancelled": True,
        "status_before": "running",
        "status": "canceled",
        "native_status": "Cancelled",
        "terminal": True,
        "next": "The run was cancelled.",
    }


async def test_inngest_cache_time_starts_with_the_response_of_a_slow_read(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    # Inngest caches a response for three seconds, which start when it sends the response.
    simulator.fail_next("inngest", Fault(delay=1))
    call = await finished(environment, *RUNNING["inngest"], 6)
    assert (call.value["cancelled"], call.value["status"]) == (True, "canceled")


async def test_posthog_run_that_is_canceled_in_the_background_is_read_until_it_has_ended(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.posthog.project.cancel_seconds = 1
    call = await finished(environment, *RUNNING["posthog"], 2)
    response = call.value.pop("response")
    assert call.value == {
        "provider": "posthog",
        "run_id": POSTHOG_RUNNING,
        "cancelled": True,
        "status_before": "running",
        "status": "canceled",
        "native_status": "cancelled",
        "terminal": True,
        "next": "The run was cancelled.",
    }
    assert (response["id"], response["status"]) == (POSTHOG_RUNNING, "in_progress")
    assert sent(simulator) == [
        READS["posthog"],
        f"POST {POSTHOG_RUNS}/{POSTHOG_RUNNING}/cancel/",
        READS["posthog"],
    ]


async def test_cancels_a_posthog_run_that_was_not_started(environment: dict[str, str]) -> None:
    arguments = {"task_id": TASK, "id": POSTHOG_NOT_STARTED, **PATCH}
    call = await finished(environment, "posthog-update-task-run", arguments, 0)
    assert (call.value["cancelled"], call.value["status_before"], call.value["status"]) == (
        True,
        "not started",
        "canceled",
    )


async def test_body_of_a_cancelling_update_is_sent_completely(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    body = {"status": "cancelled", "error_message": "no longer wanted"}
    arguments = {"task_id": TASK, "id": POSTHOG_RUNNING, "body": body}
    await finished(environment, "posthog-update-task-run", arguments, 0)
    assert json.loads(simulator.requests[1].body) == body


async def test_cancels_a_posthog_run_by_command_and_reads_it_once_after(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, *RUNNING["posthog by command"], 0)
    assert (call.value["cancelled"], call.value["status_before"], call.value["status"]) == (True, "running", "canceled")
    assert call.value["response"] == {"jsonrpc": "2.0", "result": {"cancelled": True}, "id": 1}
    command = f"POST {POSTHOG_RUNS}/{POSTHOG_RUNNING}/command/"
    assert sent(simulator) == [READS["posthog"], command, READS["posthog"]]


async def test_runway_task_that_is_not_found_after_the_delete_is_canceled(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, *RUNNING["runway"], 0)
    assert call.value == {
        "provider": "runway",
        "run_id": RUNWAY_THROTTLED,
        "cancelled": True,
        "status_before": "queued",
        "status": "canceled",
        "native_status": None,
        "terminal": True,
        "next": "The run was cancelled.",
    }
    assert sent(simulator) == [READS["runway"], f"DELETE {RUNWAY_TASKS}/{RUNWAY_THROTTLED}", READS["runway"]]


CANCELLED = "had already been cancelled"
ENDED: list[tuple[str, Arguments, str, str, str]] = [
    ("render-cancel-task-run", {"taskRunId": RENDER_COMPLETED}, "succeeded", "completed", "had already succeeded"),
    ("render-cancel-task-run", {"taskRunId": RENDER_FAILED}, "failed", "failed", "had already failed"),
    ("render-cancel-task-run", {"taskRunId": RENDER_CANCELED}, "canceled", "canceled", CANCELLED),
    ("inngest-cancel-function-run", {"runId": INNGEST_COMPLETED}, "succeeded", "Completed", "had already succeeded"),
    ("inngest-cancel-function-run", {"runId": INNGEST_FAILED}, "failed", "Failed", "had already failed"),
    ("inngest-cancel-function-run", {"runId": INNGEST_CANCELLED}, "canceled", "Cancelled", CANCELLED),
    (
        "posthog-update-task-run",
        {"task_id": TASK, "id": POSTHOG_COMPLETED, **PATCH},
        "succeeded",
        "completed",
        "had already succeeded",
    ),
    (
        "posthog-update-task-run",
        {"task_id": TASK, "id": POSTHOG_FAILED, **PATCH},
        "failed",
        "failed",
        "had already failed",
    ),
    (
        "posthog-send-command-agent-server",
        {"task_id": TASK, "id": POSTHOG_FAILED, **COMMAND},
        "failed",
        "failed",
        "had already failed",
    ),
]


@pytest.mark.parametrize(("tool", "arguments", "status", "native_status", "explanation"), ENDED)
async def test_does_not_cancel_a_run_with_a_terminal_status(
    tool: str,
    arguments: Arguments,
    status: str,
    native_status: str,
    explanation: str,
    simulator: Simulator,
    environment: dict[str, str],
) -> None:
    call = await finished(environment, tool, arguments, 0)
    explained = call.value.pop("next")
    assert explained.startswith(f"The run {explanation}: nothing was cancelled.")
    assert explained.endswith(" Nothing was sent.") is ("body" in arguments)
    run_id = arguments.get("taskRunId") or arguments.get("runId") or arguments["id"]
    assert call.value == {
        "provider": tool.partition("-")[0],
        "run_id": run_id,
        "cancelled": False,
        "status_before": status,
        "status": status,
        "native_status": native_status,
        "terminal": True,
    }
    assert sent_methods(simulator) == ["GET"]


@pytest.mark.parametrize(
    ("tool", "arguments", "path", "time", "error"),
    [
        (
            "render-cancel-task-run",
            {"taskRunId": RENDER_FAILED},
            f"{RENDER_RUNS}/{RENDER_FAILED}",
            ("completedAt",),
            "ValueError: no such customer",
        ),
        (
            "inngest-cancel-function-run",
            {"runId": INNGEST_FAILED},
            f"{INNGEST_RUNS}/{INNGEST_FAILED}",
            ("data", "ended_at"),
            "",
        ),
        (
            "posthog-update-task-run",
            {"task_id": TASK, "id": POSTHOG_FAILED, **PATCH},
            f"{POSTHOG_RUNS}/{POSTHOG_FAILED}/",
            ("completed_at",),
            "",
        ),
    ],
)
async def test_cancelling_an_ended_run_reports_when_and_with_which_error_it_ended(
    tool: str, arguments: Arguments, path: str, time: tuple[str, ...], error: str, environment: dict[str, str]
) -> None:
    run = await outside(environment, "GET", path)
    ended_at = run
    for name in time:
        ended_at = ended_at[name]
    call = await finished(environment, tool, arguments, 0)
    assert f'It ended at {ended_at} with the error: "{error}' in call.value["next"]


async def test_does_not_cancel_a_posthog_run_twice(simulator: Simulator, environment: dict[str, str]) -> None:
    await finished(environment, *RUNNING["posthog"], 2)
    call = await finished(environment, *RUNNING["posthog"], 0)
    assert (call.value["cancelled"], call.value["status"]) == (False, "canceled")
    assert sent_methods(simulator).count("POST") == 1


@pytest.mark.parametrize(
    ("task", "status", "explanation"),
    [
        (RUNWAY_SUCCEEDED, "succeeded", "had already succeeded"),
        (RUNWAY_FAILED, "failed", "had already failed"),
        (RUNWAY_CANCELLED, "canceled", CANCELLED),
    ],
)
@pytest.mark.parametrize("confirmation", [{}, {"delete_output": False}], ids=["not confirmed", "declined"])
async def test_does_not_delete_an_ended_runway_task_without_confirmation(
    confirmation: Arguments, task: str, status: str, explanation: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, "runway-cancel-delete-task", {"id": task, **confirmation}, 0)
    assert (call.value["cancelled"], call.value["status"], call.value["terminal"]) == (False, status, True)
    assert call.value["next"].startswith(f"The run {explanation}: nothing was cancelled. ")
    assert call.value["next"].endswith(" To have it deleted together with its output, pass delete_output: true.")
    assert sent_methods(simulator) == ["GET"]


@pytest.mark.parametrize(
    ("task", "explanation"),
    [
        (RUNWAY_SUCCEEDED, "had already succeeded"),
        (RUNWAY_FAILED, "had already failed"),
        (RUNWAY_CANCELLED, CANCELLED),
    ],
)
async def test_deletes_an_ended_runway_task_with_confirmation(
    task: str, explanation: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, "runway-cancel-delete-task", {"id": task, "delete_output": True}, 0)
    assert (call.value["cancelled"], call.value["deleted"], call.value["terminal"]) == (False, True, True)
    # GET of a deleted task is 404: runwayml 5.24 resources/tasks.py
    assert (call.value["status"], call.value["native_status"]) == ("deleted", None)
    assert call.value["next"].startswith(f"The run {explanation}: it was deleted together with its output.")
    assert call.outcome.notes == (f"Run {task}: deleted.",)
    assert sent(simulator) == [f"GET {RUNWAY_TASKS}/{task}", f"DELETE {RUNWAY_TASKS}/{task}"]
    again = await finished(environment, "runway-cancel-delete-task", {"id": task, "delete_output": True}, 0)
    assert again.failure.kind == "not_found"


async def test_confirmed_delete_of_an_active_runway_task_cancels_it(environment: dict[str, str]) -> None:
    arguments = {"id": RUNWAY_THROTTLED, "delete_output": True}
    call = await finished(environment, "runway-cancel-delete-task", arguments, 0)
    assert (call.value["cancelled"], call.value["next"]) == (True, "The run was cancelled.")


UNKNOWN: dict[str, tuple[str, Arguments]] = {
    "render": ("render-cancel-task-run", {"taskRunId": "trn-d5im9999999999999999"}),
    "inngest": ("inngest-cancel-function-run", {"runId": "01JZDEM0RVN000000000000099"}),
    "posthog": (
        "posthog-update-task-run",
        {"task_id": TASK, "id": "99999999-9999-4999-8999-999999999999", **PATCH},
    ),
    "runway": ("runway-cancel-delete-task", {"id": "97f20503-6c24-4c16-946b-35dbbce2af2f"}),
}


@pytest.mark.parametrize("provider", UNKNOWN)
async def test_cancelling_an_unknown_run_is_not_found(
    provider: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, *UNKNOWN[provider], 0)
    assert call.failure.kind == "not_found"
    assert sent_methods(simulator) == ["GET"]


@pytest.mark.parametrize(
    ("native_status", "status", "explanation"),
    [
        ("completed", "succeeded", "had already succeeded"),
        ("failed", "failed", "had already failed"),
        # Cancelled by another client: the provider rejected this cancellation.
        ("canceled", "canceled", CANCELLED),
    ],
)
async def test_render_run_that_ends_before_its_cancellation_is_not_an_error(
    native_status: str, status: str, explanation: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    # Render's local server: pkg/workflows/apiserver
    rejection = {"message": f"task run {RENDER_RUNNING} is not active"}
    for fault in (NO_FAULT, json_response(rejection, 500), json_response(run_json("render", native_status))):
        simulator.fail_next("render", fault)
    call = await finished(environment, *RUNNING["render"], 0)
    assert (call.value["cancelled"], call.value["status_before"], call.value["status"]) == (False, "running", status)
    assert call.value["next"] == f"The run {explanation}: nothing was cancelled."
    assert sent_methods(simulator) == ["GET", "DELETE", "GET"]


async def test_inngest_run_that_ends_before_its_cancellation_is_not_cancelled(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    # Inngest responds with 200 and changes nothing.
    for fault in (NO_FAULT, NO_FAULT, json_response(run_json("inngest", "Completed", output={"sum": 1}))):
        simulator.fail_next("inngest", fault)
    call = await finished(environment, *RUNNING["inngest"], 4)
    assert (call.value["cancelled"], call.value["status_before"], call.value["status"]) == (
        False,
        "running",
        "succeeded",
    )
    assert call.value["next"] == "The run had already succeeded: nothing was cancelled."


LOST = {
    "interrupted": Fault(200, body="gone", truncate=True),
    **{str(status): Fault(status, body="lost") for status in (500, 502, 503, 504, 520, 524)},
}
"""Responses to a request that the provider may have carried out."""

# What is safe to repeat is lost only if all tries are
LOSSES = {"render": 1, "inngest": TRIES, "posthog": TRIES, "posthog by command": 1, "runway": 1}
NATIVE_CANCELED = {"render": "canceled", "inngest": "Cancelled", "posthog": "cancelled"}
REPEATED_STATUSES = {"interrupted", "502", "503", "504", "520", "524"}


def lose_cancellation(simulator: Simulator, provider: str, lost: str) -> None:
    """Let the simulator respond to the reading of the run, and lose the response to the cancellation."""
    name = provider.partition(" ")[0]
    losses = LOSSES[provider] if lost in REPEATED_STATUSES else 1
    for fault in (NO_FAULT, *[LOST[lost]] * losses):
        simulator.fail_next(name, fault)


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("provider", RUNNING)
async def test_run_that_is_canceled_after_a_lost_response_was_cancelled(
    provider: str, lost: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    name = provider.partition(" ")[0]
    lose_cancellation(simulator, provider, lost)
    gone = json_response({"error": "not found"}, 404)
    for _ in range(GONE_READS):
        simulator.fail_next(name, gone if name == "runway" else json_response(run_json(name, NATIVE_CANCELED[name])))
    call = await finished(environment, *RUNNING[provider], 4 + ALL_TRIES_S + GONE_SECONDS)
    assert (call.value["cancelled"], call.value["status"], call.value["terminal"]) == (True, "canceled", True)
    assert call.value["status_before"] in {"running", "queued"}
    assert call.value["next"] == "The run was cancelled; the provider's response was lost."


async def test_run_that_is_canceled_a_moment_after_a_lost_response_was_cancelled(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    # A gateway that times out while the provider carries the request out, or a read replica that lags behind.
    lose_cancellation(simulator, "render", "504")
    for _ in range(2):
        simulator.fail_next("render", json_response(run_json("render", "running")))
    simulator.fail_next("render", json_response(run_json("render", "canceled")))
    call = await finished(environment, *RUNNING["render"], sum(SETTLE_SECONDS))
    assert (call.value["cancelled"], call.value["status"]) == (True, "canceled")
    assert call.value["next"] == "The run was cancelled; the provider's response was lost."


@pytest.mark.parametrize("lost", LOST)
async def test_run_that_succeeded_before_a_lost_cancellation_was_not_cancelled(
    lost: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    lose_cancellation(simulator, "render", lost)
    simulator.fail_next("render", json_response(run_json("render", "completed")))
    call = await finished(environment, *RUNNING["render"], 0)
    assert (call.value["cancelled"], call.value["status"]) == (False, "succeeded")
    assert call.value["next"] == "The run had already succeeded: nothing was cancelled."


async def test_reading_after_a_lost_cancellation_is_retried(simulator: Simulator, environment: dict[str, str]) -> None:
    lose_cancellation(simulator, "render", "502")
    for _ in range(TRIES - 1):
        simulator.fail_next("render", Fault(503, body="busy"))
    simulator.fail_next("render", json_response(run_json("render", "canceled")))
    call = await finished(environment, *RUNNING["render"], ALL_TRIES_S)
    assert (call.value["cancelled"], call.value["status"]) == (True, "canceled")
    assert sent_methods(simulator) == ["GET", "DELETE", *["GET"] * TRIES]


@pytest.mark.parametrize("lost", ["interrupted", "500", "524"])
async def test_lost_cancellation_of_a_run_that_goes_on_has_an_unknown_outcome(
    lost: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    lose_cancellation(simulator, "render", lost)
    call = await finished(environment, *RUNNING["render"], sum(SETTLE_SECONDS))
    assert call.failure.outcome_unknown
    assert call.failure.hint == (
        f"The provider may have accepted the request for run {RENDER_RUNNING}: it is running now. Call "
        "render-wait-for-run to see whether it ends; if it does not, cancel it again."
    )
    assert sent_methods(simulator) == ["GET", "DELETE", "GET", *["GET"] * len(SETTLE_SECONDS)]


async def test_lost_cancellation_of_a_run_that_cannot_be_read_after_has_an_unknown_outcome(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    lose_cancellation(simulator, "render", "502")
    for _ in range(TRIES):
        simulator.fail_next("render", Fault(503, body="busy"))
    call = await finished(environment, *RUNNING["render"], ALL_TRIES_S)
    assert (call.failure.status, call.failure.outcome_unknown) == (502, True)
    assert "its status could not be read" in call.failure.hint


async def test_inngest_run_is_read_after_a_lost_cancellation_when_its_cache_has_expired(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    # "Cache-Control: private, max-age=3" of a reading from before the cancellation: inngest pkg/api/apiv1/cache.go
    simulator.fail_next("inngest", NO_FAULT)
    simulator.fail_next("inngest", Fault(500, body="lost"))
    async with opened(environment) as gateway, calling(gateway, *RUNNING["inngest"]) as call:
        await outside(environment, "DELETE", f"{INNGEST_RUNS}/{INNGEST_RUNNING}")
        await call.finish(4)
    assert (call.value["cancelled"], call.value["status"]) == (True, "canceled")


@pytest.mark.parametrize("lost", ["interrupted", "502"])
async def test_lost_deletion_of_a_runway_task_that_is_gone_has_deleted_it(
    lost: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    for fault in (NO_FAULT, LOST[lost], json_response({"error": "not found"}, 404)):
        simulator.fail_next("runway", fault)
    call = await finished(environment, "runway-cancel-delete-task", {"id": RUNWAY_SUCCEEDED, "delete_output": True}, 0)
    assert (call.value["cancelled"], call.value["deleted"], call.value["status"]) == (False, True, "deleted")
    assert call.value["next"] == (
        "The run had already succeeded: it was deleted together with its output; the provider's response was lost."
    )


async def test_lost_deletion_of_a_runway_task_that_is_still_there_is_an_error(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    for fault in (NO_FAULT, LOST["502"]):
        simulator.fail_next("runway", fault)
    call = await finished(environment, "runway-cancel-delete-task", {"id": RUNWAY_SUCCEEDED, "delete_output": True}, 0)
    assert (call.failure.status, call.failure.outcome_unknown) == (502, True)
    assert f"{RUNWAY_SUCCEEDED}: it is SUCCEEDED now." in call.failure.hint
    assert call.failure.hint.endswith("Call runway-retrieve-task-status-and-output before trying again.")
    assert not call.failure.retryable


async def test_rejected_cancellation_of_a_running_run_is_an_error(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    root = await outside(environment, "POST", RENDER_RUNS, {"task": "demo-workflow/pipeline", "input": [3, 4]})
    await pass_time(2)
    runs = await outside(environment, "GET", f"{RENDER_RUNS}?rootTaskRunId={root['id']}")
    (subtask,) = [item["taskRun"]["id"] for item in runs if item["taskRun"]["id"] != root["id"]]
    call = await finished(environment, "render-cancel-task-run", {"taskRunId": subtask}, 0)
    assert f"task run {subtask} is a subtask; cancel its root {root['id']} instead" in call.failure.message
    assert call.failure.status == 500
    assert (await outside(environment, "GET", f"{RENDER_RUNS}/{subtask}"))["status"] == "running"


async def test_rejected_cancellation_is_an_error_even_if_the_run_cannot_be_read_after(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    for fault in (NO_FAULT, Fault(403, body="not yours"), *[Fault(503, body="busy")] * TRIES):
        simulator.fail_next("render", fault)
    call = await finished(environment, *RUNNING["render"], ALL_TRIES_S)
    assert (call.failure.message, call.failure.status) == ('the provider returned 403: "not yours"', 403)


async def test_cancel_command_without_a_sandbox_is_an_error(environment: dict[str, str]) -> None:
    arguments = {"task_id": TASK, "id": POSTHOG_NOT_STARTED, **COMMAND}
    call = await finished(environment, "posthog-send-command-agent-server", arguments, 0)
    assert "No active sandbox for this task run" in call.failure.message


@pytest.mark.parametrize("provider", ["render", "inngest", "posthog by command", "runway"])
async def test_status_is_unknown_when_the_run_cannot_be_read_after_its_cancellation(
    provider: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    name = provider.partition(" ")[0]
    for fault in (NO_FAULT, NO_FAULT, *[Fault(503, body="busy")] * TRIES):
        simulator.fail_next(name, fault)
    call = await finished(environment, *RUNNING[provider], 4 + ALL_TRIES_S)
    assert (call.value["status"], call.value["terminal"]) == ("unknown", False)
    assert call.value["next"] == (
        f"The provider has accepted the cancellation: call {name}-wait-for-run to wait for the run."
    )
    assert len(sent_methods(simulator)) == 2 + TRIES


@pytest.mark.parametrize("provider", RUNNING)
async def test_does_not_cancel_a_run_that_cannot_be_read_before(
    provider: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    for _ in range(TRIES):
        simulator.fail_next(provider.partition(" ")[0], Fault(503, body="busy"))
    call = await finished(environment, *RUNNING[provider], ALL_TRIES_S)
    assert call.failure.status == 503
    assert sent_methods(simulator) == ["GET"] * TRIES


async def test_run_that_does_not_stop_at_once_is_not_reported_as_cancelled(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    for fault in (NO_FAULT, Fault(204), NO_FAULT):
        simulator.fail_next("render", fault)
    call = await finished(environment, *RUNNING["render"], sum(SETTLE_SECONDS))
    assert (call.value["cancelled"], call.value["status"], call.value["terminal"]) == (False, "running", False)
    assert call.value["next"] == (
        "The provider has accepted the cancellation: call render-wait-for-run to wait for the run."
    )


async def test_secret_in_the_response_to_a_cancellation_is_redacted(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    key = environment["POSTHOG_API_KEY"] = "phx_planted_5d1c7a90b2e8"
    simulator.fail_next("posthog", NO_FAULT)
    run = run_json("posthog", "cancelled", error_message=f"stopped by {key}")
    simulator.fail_next("posthog", json_response(run))
    call = await finished(environment, *RUNNING["posthog"], 0)
    assert call.value["response"]["error_message"] == "stopped by [secret]"
    assert key not in json.dumps([call.outcome.text, call.outcome.notes])


async def test_update_without_a_cancellation_is_forwarded(simulator: Simulator, environment: dict[str, str]) -> None:
    arguments = {"task_id": TASK, "id": POSTHOG_RUNNING, "body": {"stage": "review"}}
    call = await finished(environment, "posthog-update-task-run", arguments, 0)
    assert (call.value["id"], call.value["stage"]) == (POSTHOG_RUNNING, "review")
    assert call.outcome.notes[0] == f"Run {POSTHOG_RUNNING}: running (in_progress)."
    assert sent_methods(simulator) == ["PATCH"]


@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_update_to_another_terminal_status_is_forwarded(
    status: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    arguments = {"task_id": TASK, "id": POSTHOG_RUNNING, "body": {"status": status}}
    call = await finished(environment, "posthog-update-task-run", arguments, 0)
    assert call.value["status"] == status
    assert sent_methods(simulator) == ["PATCH"]


async def test_command_without_a_cancellation_is_forwarded(simulator: Simulator, environment: dict[str, str]) -> None:
    body = {"jsonrpc": "2.0", "method": "user_message", "params": {"content": "continue"}, "id": 1}
    arguments = {"task_id": TASK, "id": POSTHOG_RUNNING, "body": body}
    call = await finished(environment, "posthog-send-command-agent-server", arguments, 0)
    assert call.value == {"jsonrpc": "2.0", "result": {"queued": True}, "id": 1}
    assert sent_methods(simulator) == ["POST"]


RENDER_LIST = (
    f"Runs {RENDER_RUNNING}: running; {RENDER_CANCELED}: canceled; {RENDER_FAILED}: failed; "
    f"{RENDER_COMPLETED}: succeeded (completed)."
)
POSTHOG_LIST = (
    f"Runs {POSTHOG_NOT_STARTED}: not started (not_started); {POSTHOG_RUNNING}: running (in_progress); "
    f"{POSTHOG_FAILED}: failed; {POSTHOG_COMPLETED}: succeeded (completed)."
)
ENTRIES = {"entries": [{"type": "notification", "notification": {"method": "_posthog/console"}}]}
STATUS_LINES: list[tuple[str, Arguments, str]] = [
    ("render-list-task-runs", {}, RENDER_LIST),
    ("render-retrieve-task-run", {"taskRunId": RENDER_COMPLETED}, f"Run {RENDER_COMPLETED}: succeeded (completed)."),
    (
        "render-run-task",
        {"body": {"task": "demo-workflow/square", "input": [7]}},
        "Run trn-d5im0000000000000005: queued (pending).",
    ),
    ("render-cancel-task-run", {"taskRunId": RENDER_RUNNING}, f"Run {RENDER_RUNNING}: canceled."),
    ("render-wait-for-run", {"taskRunId": RENDER_COMPLETED}, f"Run {RENDER_COMPLETED}: succeeded (completed)."),
    (
        "render-stream-realtime-events-sse",
        {"taskRunIds": [RENDER_COMPLETED]},
        f"Run {RENDER_COMPLETED}: succeeded (completed).",
    ),
    (
        "inngest-get-function-run-status",
        {"runId": INNGEST_COMPLETED},
        f"Run {INNGEST_COMPLETED}: succeeded (Completed).",
    ),
    ("inngest-cancel-function-run", {"runId": INNGEST_FAILED}, f"Run {INNGEST_FAILED}: failed (Failed)."),
    ("inngest-wait-for-run", {"runId": INNGEST_CANCELLED}, f"Run {INNGEST_CANCELLED}: canceled (Cancelled)."),
    ("posthog-list-task-runs", {"task_id": TASK}, POSTHOG_LIST),
    (
        "posthog-retrieve-task-run",
        {"task_id": TASK, "id": POSTHOG_COMPLETED},
        f"Run {POSTHOG_COMPLETED}: succeeded (completed).",
    ),
    (
        "posthog-append-log-entries",
        {"task_id": TASK, "id": POSTHOG_RUNNING, "body": ENTRIES},
        f"Run {POSTHOG_RUNNING}: running (in_progress).",
    ),
    (
        "posthog-set-run-output",
        {"task_id": TASK, "id": POSTHOG_RUNNING, "body": {"output": {"summary": "done"}}},
        f"Run {POSTHOG_RUNNING}: succeeded (completed).",
    ),
    (
        "posthog-update-task-run",
        {"task_id": TASK, "id": POSTHOG_RUNNING, **PATCH},
        f"Run {POSTHOG_RUNNING}: canceled (cancelled).",
    ),
    (
        "posthog-resume-task-run-cloud",
        {"task_id": TASK, "id": POSTHOG_FAILED},
        f"Run {POSTHOG_FAILED}: queued.",
    ),
    (
        "posthog-wait-for-run",
        {"task_id": TASK, "id": POSTHOG_COMPLETED},
        f"Run {POSTHOG_COMPLETED}: succeeded (completed).",
    ),
    (
        "runway-retrieve-task-status-and-output",
        {"id": RUNWAY_THROTTLED},
        f"Run {RUNWAY_THROTTLED}: queued (THROTTLED).",
    ),
    ("runway-cancel-delete-task", {"id": RUNWAY_SUCCEEDED}, f"Run {RUNWAY_SUCCEEDED}: succeeded (SUCCEEDED)."),
    ("runway-wait-for-run", {"id": RUNWAY_FAILED}, f"Run {RUNWAY_FAILED}: failed (FAILED)."),
]


def texts_of(result: CallToolResult) -> list[str]:
    """Return the text blocks of a result, which has no other blocks."""
    assert all(isinstance(block, TextContent) for block in result.content)
    return [block.text for block in result.content if isinstance(block, TextContent)]


@pytest.mark.parametrize(("tool", "arguments", "line"), STATUS_LINES)
async def test_result_with_runs_is_followed_by_a_line_with_their_statuses(
    tool: str, arguments: Arguments, line: str, environment: dict[str, str]
) -> None:
    async with open_client("memory", "auto", environment) as client:
        result = await client.call_tool(tool, arguments)
    first, *others = texts_of(result)
    assert not result.is_error
    json.loads(first)
    assert line in others


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("render-list-tasks", {}),
        ("render-list-task-runs", {"taskSlug": ["demo-workflow/nothing"]}),
        ("inngest-list-jobs-steps-run", {"runId": INNGEST_COMPLETED}),
        ("posthog-get-task-run-logs", {"task_id": TASK, "id": POSTHOG_COMPLETED}),
    ],
)
async def test_result_without_runs_has_no_status_line(
    tool: str, arguments: Arguments, environment: dict[str, str]
) -> None:
    call = await finished(environment, tool, arguments, 0)
    assert [note for note in call.outcome.notes if note.startswith("Run")] == []


async def test_status_line_lists_the_first_ten_of_many_runs(environment: dict[str, str]) -> None:
    for _ in range(8):
        await outside(environment, "POST", RENDER_RUNS, {"task": "demo-workflow/slow", "input": []})
    call = await finished(environment, "render-list-task-runs", {}, 0)
    line, _ = call.outcome.notes
    assert line.count("trn-") == 10
    assert line.endswith("; and 2 more.")


@pytest.mark.parametrize(
    ("transport", "era"), [("memory", "legacy"), ("memory", "auto"), ("stdio", "legacy"), ("http", "auto")]
)
async def test_client_can_cancel_a_run_once(
    transport: Transport, era: Era, simulator: Simulator, environment: dict[str, str]
) -> None:
    tool, arguments = RUNNING["render"]
    with anyio.fail_after(PATIENCE):
        async with open_client(transport, era, environment) as client:
            first = await client.call_tool(tool, arguments)
            second = await client.call_tool(tool, arguments)
    assert (first.is_error, second.is_error) == (False, False)
    assert [json.loads(texts_of(result)[0])["cancelled"] for result in (first, second)] == [True, False]
    assert texts_of(second)[1:] == [f"Run {RENDER_RUNNING}: canceled."]
    assert sent_methods(simulator).count("DELETE") == 1


async def test_does_not_delete_a_runway_task_with_an_unknown_status(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("runway", json_response(run_json("runway", "EXPIRED")))
    call = await finished(environment, "runway-cancel-delete-task", {"id": RUNWAY_SUCCEEDED}, 0)
    assert (call.value["cancelled"], call.value["status"]) == (False, "unknown")
    assert call.value["next"] == (
        "It is not known whether EXPIRED is a terminal status, so nothing was cancelled: a run that has ended would be "
        "deleted together with its output. To accept that, pass delete_output: true."
    )
    assert sent_methods(simulator) == ["GET"]
