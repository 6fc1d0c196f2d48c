"""Cancelling honestly: what had ended already is not cancelled, and what became of the rest is told."""

import json

import anyio
import pytest
from mcp.types import CallToolResult, TextContent

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


def methods(simulator: Simulator) -> list[str]:
    return [request.partition(" ")[0] for request in sent(simulator)]


async def test_a_render_run_that_goes_on_is_cancelled_and_read_once_after(
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


async def test_an_inngest_run_is_read_again_when_the_answer_can_be_a_new_one(
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


async def test_an_inngest_answer_that_was_slow_is_not_taken_for_a_new_one(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    # The three seconds of Inngest's cache begin when the provider answers, not when it is asked.
    simulator.fail_next("inngest", Fault(delay=1))
    call = await finished(environment, *RUNNING["inngest"], 6)
    assert (call.value["cancelled"], call.value["status"]) == (True, "canceled")


async def test_a_posthog_answer_tells_the_state_itself(simulator: Simulator, environment: dict[str, str]) -> None:
    call = await finished(environment, *RUNNING["posthog"], 0)
    answer = call.value.pop("response")
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
    assert (answer["id"], answer["status"]) == (POSTHOG_RUNNING, "cancelled")
    assert sent(simulator) == [READS["posthog"], f"PATCH {POSTHOG_RUNS}/{POSTHOG_RUNNING}/"]


async def test_a_posthog_run_that_was_not_started_is_cancelled(environment: dict[str, str]) -> None:
    arguments = {"task_id": TASK, "id": POSTHOG_NOT_STARTED, **PATCH}
    call = await finished(environment, "posthog-update-task-run", arguments, 0)
    assert (call.value["cancelled"], call.value["status_before"], call.value["status"]) == (True, "queued", "canceled")


async def test_the_rest_of_a_body_that_cancels_is_sent_as_well(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    body = {"status": "cancelled", "error_message": "no longer wanted"}
    arguments = {"task_id": TASK, "id": POSTHOG_RUNNING, "body": body}
    await finished(environment, "posthog-update-task-run", arguments, 0)
    assert json.loads(simulator.requests[1].body) == body


async def test_a_posthog_run_is_cancelled_by_command_and_read_once_after(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, *RUNNING["posthog by command"], 0)
    assert (call.value["cancelled"], call.value["status_before"], call.value["status"]) == (True, "running", "canceled")
    assert call.value["response"] == {"jsonrpc": "2.0", "result": {"cancelled": True}, "id": 1}
    command = f"POST {POSTHOG_RUNS}/{POSTHOG_RUNNING}/command/"
    assert sent(simulator) == [READS["posthog"], command, READS["posthog"]]


async def test_a_runway_task_that_is_cancelled_is_told_so_though_it_cannot_be_read_any_more(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, *RUNNING["runway"], 0)
    assert call.value == {
        "provider": "runway",
        "run_id": RUNWAY_THROTTLED,
        "cancelled": True,
        "status_before": "queued",
        "status": "canceled",
        "native_status": "not found",
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


@pytest.mark.parametrize(("tool", "arguments", "state", "native", "told"), ENDED)
async def test_a_run_that_has_ended_is_not_cancelled_and_nothing_is_sent(
    tool: str,
    arguments: Arguments,
    state: str,
    native: str,
    told: str,
    simulator: Simulator,
    environment: dict[str, str],
) -> None:
    call = await finished(environment, tool, arguments, 0)
    run_id = arguments.get("taskRunId") or arguments.get("runId") or arguments["id"]
    assert call.value == {
        "provider": tool.partition("-")[0],
        "run_id": run_id,
        "cancelled": False,
        "status_before": state,
        "status": state,
        "native_status": native,
        "terminal": True,
        "next": f"The run {told}: nothing was cancelled." + (" Nothing was sent." if "body" in arguments else ""),
    }
    assert methods(simulator) == ["GET"]


async def test_a_posthog_run_that_was_cancelled_is_not_cancelled_again(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    await finished(environment, *RUNNING["posthog"], 0)
    call = await finished(environment, *RUNNING["posthog"], 0)
    assert (call.value["cancelled"], call.value["status"]) == (False, "canceled")
    assert methods(simulator) == ["GET", "PATCH", "GET"]


@pytest.mark.parametrize(
    ("task", "state", "told"),
    [
        (RUNWAY_SUCCEEDED, "succeeded", "had already succeeded"),
        (RUNWAY_FAILED, "failed", "had already failed"),
        (RUNWAY_CANCELLED, "canceled", CANCELLED),
    ],
)
@pytest.mark.parametrize("guard", [{}, {"delete_output": False}], ids=["unsaid", "refused"])
async def test_a_runway_task_that_has_ended_keeps_its_output_unless_that_is_wanted(
    guard: Arguments, task: str, state: str, told: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, "runway-cancel-delete-task", {"id": task, **guard}, 0)
    assert (call.value["cancelled"], call.value["status"], call.value["terminal"]) == (False, state, True)
    assert call.value["next"] == (
        f"The run {told}: nothing was cancelled. To have it deleted together with its output, pass delete_output: true."
    )
    assert methods(simulator) == ["GET"]


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (RUNWAY_SUCCEEDED, "had already succeeded"),
        (RUNWAY_FAILED, "had already failed"),
        (RUNWAY_CANCELLED, CANCELLED),
    ],
)
async def test_a_runway_task_that_has_ended_is_deleted_where_that_is_wanted(
    task: str, told: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, "runway-cancel-delete-task", {"id": task, "delete_output": True}, 0)
    assert call.value["cancelled"] is False
    assert call.value["next"] == f"The run {told}: it was deleted together with its output."
    assert sent(simulator) == [f"GET {RUNWAY_TASKS}/{task}", f"DELETE {RUNWAY_TASKS}/{task}"]
    again = await finished(environment, "runway-cancel-delete-task", {"id": task, "delete_output": True}, 0)
    assert again.failure.kind == "not_found"


async def test_the_permission_to_delete_does_not_hinder_cancelling(environment: dict[str, str]) -> None:
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
async def test_a_run_that_nobody_knows_is_not_found_and_nothing_is_sent(
    provider: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, *UNKNOWN[provider], 0)
    assert call.failure.kind == "not_found"
    assert methods(simulator) == ["GET"]


@pytest.mark.parametrize(
    ("status", "state", "told"),
    [
        ("completed", "succeeded", "had already succeeded"),
        ("failed", "failed", "had already failed"),
        # By somebody else, for the provider refused this cancellation.
        ("canceled", "canceled", CANCELLED),
    ],
)
async def test_a_render_run_that_ends_before_the_cancellation_arrives_is_no_error(
    status: str, state: str, told: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    # Render's local server: pkg/workflows/apiserver
    refusal = {"message": f"task run {RENDER_RUNNING} is not active"}
    for answer in (NO_FAULT, json_response(refusal, 500), json_response(run_json("render", status))):
        simulator.fail_next("render", answer)
    call = await finished(environment, *RUNNING["render"], 0)
    assert (call.value["cancelled"], call.value["status_before"], call.value["status"]) == (False, "running", state)
    assert call.value["next"] == f"The run {told}: nothing was cancelled."
    assert methods(simulator) == ["GET", "DELETE", "GET"]


async def test_an_inngest_run_that_ends_before_the_cancellation_arrives_was_not_cancelled(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    # Inngest answers 200 and changes nothing.
    for answer in (NO_FAULT, NO_FAULT, json_response(run_json("inngest", "Completed", output={"sum": 1}))):
        simulator.fail_next("inngest", answer)
    call = await finished(environment, *RUNNING["inngest"], 4)
    assert (call.value["cancelled"], call.value["status_before"], call.value["status"]) == (
        False,
        "running",
        "succeeded",
    )
    assert call.value["next"] == "The run had already succeeded: nothing was cancelled."


async def test_what_a_provider_refuses_while_the_run_goes_on_is_passed_on(
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


async def test_what_a_provider_refuses_is_told_though_the_run_cannot_be_read_after(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    for answer in (NO_FAULT, Fault(403, body="not yours"), *[Fault(503, body="busy")] * TRIES):
        simulator.fail_next("render", answer)
    call = await finished(environment, *RUNNING["render"], ALL_TRIES_S)
    assert (call.failure.message, call.failure.status) == ("the provider returned 403: not yours", 403)


async def test_a_command_that_does_not_reach_the_agent_is_an_error(environment: dict[str, str]) -> None:
    arguments = {"task_id": TASK, "id": POSTHOG_NOT_STARTED, **COMMAND}
    call = await finished(environment, "posthog-send-command-agent-server", arguments, 0)
    assert "No active sandbox for this task run" in call.failure.message


@pytest.mark.parametrize("provider", ["render", "inngest", "posthog by command", "runway"])
async def test_a_cancellation_whose_effect_cannot_be_read_is_no_error(
    provider: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    name = provider.partition(" ")[0]
    for answer in (NO_FAULT, NO_FAULT, *[Fault(503, body="busy")] * TRIES):
        simulator.fail_next(name, answer)
    call = await finished(environment, *RUNNING[provider], 4 + ALL_TRIES_S)
    assert (call.value["status"], call.value["terminal"]) == ("unknown", False)
    assert call.value["next"] == (
        f"The provider has accepted the cancellation: call {name}-wait-for-run to wait for the run."
    )
    assert len(methods(simulator)) == 2 + TRIES


@pytest.mark.parametrize("provider", RUNNING)
async def test_a_run_that_cannot_be_read_is_not_cancelled(
    provider: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    for _ in range(TRIES):
        simulator.fail_next(provider.partition(" ")[0], Fault(503, body="busy"))
    call = await finished(environment, *RUNNING[provider], ALL_TRIES_S)
    assert call.failure.status == 503
    assert methods(simulator) == ["GET"] * TRIES


async def test_a_run_that_does_not_stop_at_once_is_told_as_such(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    for answer in (NO_FAULT, Fault(204), NO_FAULT):
        simulator.fail_next("render", answer)
    call = await finished(environment, *RUNNING["render"], 0)
    assert (call.value["cancelled"], call.value["status"], call.value["terminal"]) == (False, "running", False)
    assert call.value["next"] == (
        "The provider has accepted the cancellation: call render-wait-for-run to wait for the run."
    )


async def test_a_secret_in_the_answer_to_a_cancellation_is_masked(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    key = environment["POSTHOG_API_KEY"] = "phx_planted_5d1c7a90b2e8"
    simulator.fail_next("posthog", NO_FAULT)
    answer = run_json("posthog", "cancelled", error_message=f"stopped by {key}")
    simulator.fail_next("posthog", json_response(answer))
    call = await finished(environment, *RUNNING["posthog"], 0)
    assert call.value["response"]["error_message"] == "stopped by [secret]"
    assert key not in json.dumps([call.outcome.text, call.outcome.notes])


async def test_an_update_that_cancels_nothing_is_forwarded(simulator: Simulator, environment: dict[str, str]) -> None:
    arguments = {"task_id": TASK, "id": POSTHOG_RUNNING, "body": {"stage": "review"}}
    call = await finished(environment, "posthog-update-task-run", arguments, 0)
    assert (call.value["id"], call.value["stage"]) == (POSTHOG_RUNNING, "review")
    assert call.outcome.notes[0] == f"Run {POSTHOG_RUNNING}: running (in_progress)."
    assert methods(simulator) == ["PATCH"]


@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_an_update_that_ends_a_run_in_another_way_is_forwarded(
    status: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    arguments = {"task_id": TASK, "id": POSTHOG_RUNNING, "body": {"status": status}}
    call = await finished(environment, "posthog-update-task-run", arguments, 0)
    assert call.value["status"] == status
    assert methods(simulator) == ["PATCH"]


async def test_a_command_that_cancels_nothing_is_forwarded(simulator: Simulator, environment: dict[str, str]) -> None:
    body = {"jsonrpc": "2.0", "method": "user_message", "params": {"content": "go on"}, "id": 1}
    arguments = {"task_id": TASK, "id": POSTHOG_RUNNING, "body": body}
    call = await finished(environment, "posthog-send-command-agent-server", arguments, 0)
    assert call.value == {"jsonrpc": "2.0", "result": {"queued": True}, "id": 1}
    assert methods(simulator) == ["POST"]


RENDER_LIST = (
    f"Runs {RENDER_RUNNING}: running; {RENDER_CANCELED}: canceled; {RENDER_FAILED}: failed; "
    f"{RENDER_COMPLETED}: succeeded (completed)."
)
POSTHOG_LIST = (
    f"Runs {POSTHOG_NOT_STARTED}: queued (not_started); {POSTHOG_RUNNING}: running (in_progress); "
    f"{POSTHOG_FAILED}: failed; {POSTHOG_COMPLETED}: succeeded (completed)."
)
ENTRIES = {"entries": [{"type": "notification", "notification": {"method": "_posthog/console"}}]}
LINES: list[tuple[str, Arguments, str]] = [
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
    assert all(isinstance(block, TextContent) for block in result.content)
    return [block.text for block in result.content if isinstance(block, TextContent)]


@pytest.mark.parametrize(("tool", "arguments", "line"), LINES)
async def test_an_answer_that_carries_runs_says_where_they_stand_after_its_json(
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
async def test_an_answer_that_carries_no_run_says_nothing_of_one(
    tool: str, arguments: Arguments, environment: dict[str, str]
) -> None:
    call = await finished(environment, tool, arguments, 0)
    assert [note for note in call.outcome.notes if note.startswith("Run")] == []


async def test_of_many_runs_the_first_ten_are_told(environment: dict[str, str]) -> None:
    for _ in range(8):
        await outside(environment, "POST", RENDER_RUNS, {"task": "demo-workflow/slow", "input": []})
    call = await finished(environment, "render-list-task-runs", {}, 0)
    line, _ = call.outcome.notes
    assert line.count("trn-") == 10
    assert line.endswith("; and 2 more.")


@pytest.mark.parametrize(
    ("transport", "era"), [("memory", "legacy"), ("memory", "auto"), ("stdio", "legacy"), ("http", "auto")]
)
async def test_a_client_is_told_what_was_cancelled_and_what_was_not(
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
    assert methods(simulator).count("DELETE") == 1


async def test_a_runway_task_in_a_state_that_nobody_has_named_is_not_deleted_by_accident(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    odd = json_response(run_json("runway", "EXPIRED"))
    simulator.fail_next("runway", odd)
    call = await finished(environment, "runway-cancel-delete-task", {"id": RUNWAY_SUCCEEDED}, 0)
    assert (call.value["cancelled"], call.value["status"]) == (False, "unknown")
    assert call.value["next"] == (
        "It is not known whether EXPIRED is a terminal status, so nothing was cancelled: a run that has ended would be "
        "deleted together with its output. To accept that, pass delete_output: true."
    )
    assert methods(simulator) == ["GET"]
