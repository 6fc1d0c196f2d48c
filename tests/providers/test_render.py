"""Render's seven operations, where the provider differs from its capability file.

Literals are from Render's API reference (api-docs.render.com, section Workflow Tasks; Rate limiting), the official SDK
(render 1.5.0: public_api, CHANGELOG) and the official local server (render-oss/cli pkg/workflows/apiserver).
"""

import json
from typing import Any

import pytest

from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from mcp_taskruns.simulator.render.app import Render
from mcp_taskruns.simulator.server import serve
from tests.calls import (
    NO_FAULT,
    RENDER_CANCELED,
    RENDER_COMPLETED,
    RENDER_FAILED,
    RENDER_RUNNING,
    RENDER_RUNS,
    Arguments,
    outside,
    sent,
)
from tests.clock import LoopClock, pass_time
from tests.providers.driver import Caller, SentRequest, connected, sent_methods, sent_requests, server_requests

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

# API reference: Authentication. All responses except the stream are JSON
READING = {"accept": "application/json", "authorization": "Bearer rnd_simulated"}
WRITING = READING | {"content-type": "application/json"}
# API reference: Stream realtime events (SSE): Accept "Must be `text/event-stream`"
STREAMING = READING | {"accept": "text/event-stream"}
EVENTS = f"{RENDER_RUNS}/events"
JSON = {"Content-Type": "application/json"}

# Ids of the simulated workspace
OWNER, WORKFLOW, VERSION = "tea-d5im0000000000000001", "wfl-d5im0000000000000001", "wfv-d5im0000000000000002"
TASKS = [f"tsk-d5im000000000000000{number}" for number in range(1, 7)]
SQUARE: dict[str, Any] = {"task": "demo-workflow/square", "input": [4]}
SQUARE_SECONDS = 3.0
"""Duration of a run of square."""


def query_of(request: SentRequest) -> list[str]:
    """Return the query parameters, sorted."""
    return sorted(request.path.partition("?")[2].split("&"))


def ids_of(items: list[dict[str, Any]]) -> list[str]:
    """Return the ids of listed runs or tasks."""
    return [(item.get("taskRun") or item["task"])["id"] for item in items]


# list-task-runs


async def test_render_list_runs_sends_every_filter_and_notes_the_cursor(simulator: Simulator, caller: Caller) -> None:
    filters: Arguments = {
        "limit": 1,
        "taskSlug": ["demo-workflow/slow", "demo-workflow/fail"],
        "rootTaskRunId": [RENDER_RUNNING, RENDER_FAILED],
        "ownerId": [OWNER, "tea-x"],
        "workflowVersionId": [VERSION],
        "workflowId": [WORKFLOW],
    }
    first = await caller.call("render-list-task-runs", **filters)
    cursor = first.value[0]["cursor"]
    assert ids_of(first.value) == [RENDER_RUNNING]
    assert first.notes == [
        f"Run {RENDER_RUNNING}: running.",
        f'1 item; the page is full, so there may be more: for the next page pass cursor "{cursor}", or all_pages true '
        "for as many as fit.",
    ]
    second = await caller.call("render-list-task-runs", cursor=cursor, **filters)
    assert ids_of(second.value) == [RENDER_FAILED]
    request = sent_requests(simulator)[1]
    assert (request.method, request.path.partition("?")[0], request.headers) == ("GET", RENDER_RUNS, READING)
    # API reference, List task runs: arrays are repeated, except ownerId, which is declared `explode: false`
    assert query_of(request) == [
        f"cursor={cursor.replace('=', '%3D')}",
        "limit=1",
        "ownerId=tea-d5im0000000000000001,tea-x",
        "rootTaskRunId=trn-d5im0000000000000002",
        "rootTaskRunId=trn-d5im0000000000000004",
        "taskSlug=demo-workflow%2Ffail",
        "taskSlug=demo-workflow%2Fslow",
        "workflowId=wfl-d5im0000000000000001",
        "workflowVersionId=wfv-d5im0000000000000002",
    ]


async def test_render_list_runs_by_page_or_with_all_pages(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    for _ in range(17):
        await outside(environment, "POST", RENDER_RUNS, SQUARE)
    first = await caller.call("render-list-task-runs")
    cursor = first.value[-1]["cursor"]
    assert len(first.value) == 20
    assert (
        f'20 items; the page is full, so there may be more: for the next page pass cursor "{cursor}"' in first.notes[1]
    )
    rest = await caller.call("render-list-task-runs", cursor=cursor)
    assert ids_of(rest.value) == [RENDER_COMPLETED]
    assert rest.notes[1] == "1 item: this is the end of the list."
    whole = await caller.call("render-list-task-runs", all_pages=True)
    assert ids_of(whole.value) == ids_of(first.value) + ids_of(rest.value)
    # With all_pages the page size is the maximum
    assert sent(simulator)[2:] == [f"GET {RENDER_RUNS}?limit=100"]


async def test_render_list_runs_limit_over_100_is_rejected_before_sending(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call("render-list-task-runs", limit=101)
    assert result.error["kind"] == "validation"
    assert result.error["message"] == "limit: 101 is greater than the maximum of 100"
    assert server_requests(simulator) == []


async def test_render_list_runs_invalid_cursor_is_a_validation_error(caller: Caller) -> None:
    result = await caller.call("render-list-task-runs", cursor="page-2")
    assert (result.error["kind"], result.error["status"], result.error["retryable"]) == ("validation", 400, False)
    assert result.error["hint"] == "Pass the cursor of an item of the last response, or none for the first page."


# run-task


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"task": "demo-workflow/square"}, "body.input: is required"),
        ({"input": []}, "body.task: is required"),
        ({"task": "", "input": []}, "body.task: "),
        ({"task": "demo-workflow/square", "input": "4"}, "body.input: must be of type array or object"),
    ],
    ids=["missing-input", "missing-task", "blank-task", "input-is-text"],
)
async def test_render_invalid_start_is_rejected_before_sending(
    body: dict[str, Any], problem: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call("render-run-task", body=body)
    assert result.error["kind"] == "validation"
    assert result.error["message"].startswith(problem)
    assert "Nothing was sent." in result.error["hint"]
    assert server_requests(simulator) == []


async def test_render_start_returns_a_queued_run_and_its_idempotency_key(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call("render-run-task", body={**SQUARE, "idempotencyKey": "order-1234"})
    assert sent_requests(simulator) == [
        SentRequest(
            "POST", RENDER_RUNS, WRITING, {"task": "demo-workflow/square", "input": [4], "idempotencyKey": "order-1234"}
        )
    ]
    assert (result.value["status"], "results" in result.value) == ("pending", False)
    assert result.notes == [
        f"Run {result.value['id']}: queued (pending).",
        'Idempotency key: "order-1234". Repeating the call with it starts no second run.',
    ]
    assert result.structured_content == result.value


@pytest.mark.parametrize("arguments", [[], {"customer": "cus_1"}], ids=["empty", "named"])
async def test_render_start_passes_positional_or_named_arguments(
    arguments: Any, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call("render-run-task", body={"task": "tsk-d5im0000000000000004", "input": arguments})
    assert sent_requests(simulator)[0].body["input"] == arguments
    assert result.value["taskId"] == "tsk-d5im0000000000000004"


async def test_render_start_with_the_generated_idempotency_key_starts_no_second_run(
    simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call("render-run-task", body=SQUARE)
    key = sent_requests(simulator)[0].body["idempotencyKey"]
    assert result.notes[1] == f'Idempotency key: "{key}". Repeating the call with it starts no second run.'
    again = await caller.call("render-run-task", body={**SQUARE, "idempotencyKey": key})
    assert again.value["id"] == result.value["id"]
    other = await caller.call("render-run-task", body=SQUARE)
    assert other.value["id"] != result.value["id"]
    assert sent_requests(simulator)[2].body["idempotencyKey"] != key


async def test_render_start_with_a_lost_response_is_retried_and_starts_one_run(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    simulator.fail_next("render", Fault(truncate=True))
    result = await caller.call("render-run-task", body=SQUARE, within=2)
    first, second = sent_requests(simulator)
    assert first == second
    runs = await outside(environment, "GET", RENDER_RUNS)
    assert [run for run in ids_of(runs) if run == result.value["id"]] == [result.value["id"]]
    assert len(runs) == 5
    assert "retrying (1 of 3)" in result.progress[0]


async def test_render_start_with_wait_returns_the_result(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call("render-run-task", body=SQUARE, wait_seconds=45, within=10)
    key = sent_requests(simulator)[0].body["idempotencyKey"]
    assert result.value["status"] == "succeeded"
    assert (result.value["result"], result.value["error"], result.value["idempotency_key"]) == ([16], None, key)
    assert sent_methods(simulator).count("POST") == 1


async def test_render_start_of_an_unknown_task_hints_at_list_tasks(caller: Caller) -> None:
    result = await caller.call("render-run-task", body={"task": "demo-workflow/cube", "input": []})
    assert (result.error["kind"], result.error["status"]) == ("not_found", 404)
    assert "task not found: demo-workflow/cube" in result.error["message"]
    assert "render-list-tasks" in result.error["hint"]


# stream-realtime-events-sse


async def test_render_stream_takes_the_status_from_the_run_not_the_event_name(
    simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call(
        "render-stream-realtime-events-sse", taskRunIds=[RENDER_COMPLETED, RENDER_FAILED], within=5
    )
    streams = [request for request in sent_requests(simulator) if request.path.startswith(EVENTS)]
    # One comma-joined value: render typescript/src/workflows/client/client.ts, pkg/workflows/apiserver/server.go
    assert streams == [
        SentRequest("GET", f"{EVENTS}?taskRunIds=trn-d5im0000000000000001,trn-d5im0000000000000002", STREAMING)
    ]
    # stream_task_runs_events.py: task.completed "regardless of status"
    events = {event["data"]["id"]: event for event in result.value["events"]}
    assert {event["event"] for event in events.values()} == {"task.completed"}
    assert events[RENDER_COMPLETED]["data"]["results"] == [144]
    assert events[RENDER_FAILED]["data"]["error"] == "ValueError: no such customer"
    assert result.value["runs"] == {RENDER_COMPLETED: "succeeded", RENDER_FAILED: "failed"}
    assert (result.value["ended"], result.value["resume"]) == ("terminal", {})
    assert result.notes == [
        f"Runs {RENDER_COMPLETED}: succeeded (completed); {RENDER_FAILED}: failed.",
        "All followed runs have ended.",
    ]
    assert len(result.progress) == 2


async def test_render_stream_follows_a_run_to_its_terminal_status(environment: dict[str, str], caller: Caller) -> None:
    run = await outside(environment, "POST", RENDER_RUNS, SQUARE)
    result = await caller.call("render-stream-realtime-events-sse", taskRunIds=[run["id"]], within=SQUARE_SECONDS + 3)
    (event,) = result.value["events"]
    assert (event["data"]["status"], event["data"]["results"]) == ("completed", [16])
    assert result.value["ended"] == "terminal"


@pytest.mark.parametrize(
    "run_ids",
    [[RENDER_CANCELED], [RENDER_CANCELED, RENDER_COMPLETED], [RENDER_FAILED]],
    ids=["canceled", "canceled-and-completed", "failed"],
)
async def test_render_stream_that_never_closes_does_not_block_the_call(run_ids: list[str]) -> None:
    clock = LoopClock()
    simulator = Simulator(clock=clock, render=Render(clock, closes_streams=False))
    async with serve(simulator) as origin, connected(simulator.environment(origin)) as caller:
        result = await caller.call("render-stream-realtime-events-sse", taskRunIds=run_ids, within=5)
    statuses = {RENDER_CANCELED: "canceled", RENDER_COMPLETED: "succeeded", RENDER_FAILED: "failed"}
    assert result.value["runs"] == {run_id: statuses[run_id] for run_id in run_ids}
    assert result.value["ended"] == "terminal"


async def test_render_stream_times_out_with_arguments_to_resume(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call("render-stream-realtime-events-sse", taskRunIds=[RENDER_RUNNING], within=60)
    assert (result.value["ended"], result.value["events"]) == ("wait_over", [])
    assert result.value["runs"] == {RENDER_RUNNING: "running"}
    assert result.value["resume"] == {"taskRunIds": [RENDER_RUNNING]}
    assert "Nothing was cancelled." in result.notes[1]
    assert set(sent_methods(simulator)) == {"GET"}


async def test_render_stream_without_runs_is_rejected_before_sending(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call("render-stream-realtime-events-sse", taskRunIds=[])
    assert result.error["message"].startswith("taskRunIds: ")
    assert server_requests(simulator) == []


# retrieve-task-run


async def test_render_get_run_returns_input_results_and_error(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call("render-retrieve-task-run", taskRunId=RENDER_FAILED)
    assert sent_requests(simulator) == [SentRequest("GET", f"{RENDER_RUNS}/trn-d5im0000000000000002", READING)]
    assert result.value["input"] == {"customer": "cus_404"}
    assert (result.value["results"], result.value["error"]) == ([], "ValueError: no such customer")
    assert result.notes == [f"Run {RENDER_FAILED}: failed."]
    assert result.structured_content == result.value


async def test_render_get_run_returns_every_attempt(environment: dict[str, str], caller: Caller) -> None:
    run = await outside(environment, "POST", RENDER_RUNS, {"task": "demo-workflow/flaky", "input": []})
    await pass_time(6.5)
    result = await caller.call("render-retrieve-task-run", taskRunId=run["id"])
    attempts = result.value["attempts"]
    assert [(attempt["attempt"], attempt["status"]) for attempt in attempts] == [
        (0, "failed"),
        (1, "failed"),
        (2, "completed"),
    ]
    assert result.notes == [f"Run {run['id']}: succeeded (completed)."]


async def test_render_get_run_requires_the_id(simulator: Simulator, caller: Caller) -> None:
    missing = await caller.call("render-retrieve-task-run")
    assert missing.error["message"] == "taskRunId: is required"
    assert server_requests(simulator) == []
    unknown = await caller.call("render-retrieve-task-run", taskRunId="trn-nope")
    assert (unknown.error["kind"], unknown.error["status"]) == ("not_found", 404)
    assert "render-list-task-runs" in unknown.error["hint"]


# cancel-task-run


async def test_render_cancel_with_an_empty_response_returns_the_canceled_run(
    simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call("render-cancel-task-run", taskRunId=RENDER_RUNNING)
    deletes = [request for request in sent_requests(simulator) if request.method != "GET"]
    assert deletes == [SentRequest("DELETE", f"{RENDER_RUNS}/trn-d5im0000000000000004", READING)]
    assert result.value == {
        "provider": "render",
        "run_id": RENDER_RUNNING,
        "cancelled": True,
        "status_before": "running",
        "status": "canceled",
        "native_status": "canceled",
        "terminal": True,
        "next": "The run was cancelled.",
    }
    assert result.notes == [f"Run {RENDER_RUNNING}: canceled."]


async def test_render_cancel_also_cancels_subtasks(environment: dict[str, str], caller: Caller) -> None:
    root = await outside(environment, "POST", RENDER_RUNS, {"task": "demo-workflow/pipeline", "input": [3, 4]})
    await pass_time(2)
    result = await caller.call("render-cancel-task-run", taskRunId=root["id"])
    assert result.value["cancelled"]
    runs = await caller.call("render-list-task-runs", rootTaskRunId=[root["id"]])
    assert [item["taskRun"]["status"] for item in runs.value] == ["canceled", "canceled"]


@pytest.mark.parametrize(
    ("run_id", "status", "message"),
    [
        (RENDER_COMPLETED, "succeeded", "The run had already succeeded: nothing was cancelled."),
        (RENDER_FAILED, "failed", "The run had already failed: nothing was cancelled."),
        (RENDER_CANCELED, "canceled", "The run had already been cancelled: nothing was cancelled."),
    ],
)
async def test_render_cancel_of_a_terminal_run_sends_no_delete(
    run_id: str, status: str, message: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call("render-cancel-task-run", taskRunId=run_id)
    assert (result.value["cancelled"], result.value["status"]) == (False, status)
    assert result.value["next"].startswith(message)
    assert sent(simulator) == [f"GET {RENDER_RUNS}/{run_id}"]


async def test_render_cancel_of_a_run_that_completes_meanwhile_is_not_retried(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    run = await outside(environment, "POST", RENDER_RUNS, SQUARE)
    simulator.fail_next("render", NO_FAULT)
    # pkg/workflows/apiserver: 500 for a run with a terminal status
    body = json.dumps({"message": f"task run {run['id']} is not active"})
    simulator.fail_next("render", Fault(500, JSON, body, delay=SQUARE_SECONDS + 1))
    result = await caller.call("render-cancel-task-run", taskRunId=run["id"], within=SQUARE_SECONDS + 2)
    assert (result.value["cancelled"], result.value["status_before"], result.value["status"]) == (
        False,
        "queued",
        "succeeded",
    )
    assert sent_methods(simulator) == ["GET", "DELETE", "GET"]


async def test_render_cancel_of_a_subtask_hints_at_the_root_run(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    root = await outside(environment, "POST", RENDER_RUNS, {"task": "demo-workflow/pipeline", "input": [3, 4]})
    await pass_time(2)
    runs = await outside(environment, "GET", f"{RENDER_RUNS}?rootTaskRunId={root['id']}")
    (subtask,) = [run for run in ids_of(runs) if run != root["id"]]
    result = await caller.call("render-cancel-task-run", taskRunId=subtask)
    assert (result.error["kind"], result.error["status"], result.error["retryable"]) == ("conflict", 500, False)
    assert result.error["hint"] == f"Cancel the root run {root['id']} instead; that cancels this one too."
    assert sent_methods(simulator).count("DELETE") == 1


async def test_render_cancel_of_an_unknown_run_sends_no_delete(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call("render-cancel-task-run", taskRunId="trn-nope")
    assert (result.error["kind"], result.error["status"]) == ("not_found", 404)
    assert sent(simulator) == [f"GET {RENDER_RUNS}/trn-nope"]
    assert (await caller.annotations("render-cancel-task-run"))["destructiveHint"]


# list-tasks


async def test_render_list_tasks_sends_every_filter(simulator: Simulator, caller: Caller) -> None:
    filters: Arguments = {
        "limit": 1,
        "taskSlug": ["demo-workflow/square", "demo-workflow/fail"],
        "ownerId": [OWNER, "tea-x"],
        "workflowVersionId": [VERSION],
        "workflowId": [WORKFLOW, "wfl-x"],
    }
    first = await caller.call("render-list-tasks", **filters)
    assert ids_of(first.value) == [TASKS[0]]
    cursor = first.value[0]["cursor"]
    second = await caller.call("render-list-tasks", cursor=cursor, **filters)
    assert ids_of(second.value) == [TASKS[3]]
    request = sent_requests(simulator)[1]
    assert (request.method, request.path.partition("?")[0], request.headers) == ("GET", "/render/v1/tasks", READING)
    assert query_of(request) == [
        f"cursor={cursor.replace('=', '%3D')}",
        "limit=1",
        "ownerId=tea-d5im0000000000000001,tea-x",
        "taskSlug=demo-workflow%2Ffail",
        "taskSlug=demo-workflow%2Fsquare",
        "workflowId=wfl-d5im0000000000000001",
        "workflowId=wfl-x",
        "workflowVersionId=wfv-d5im0000000000000002",
    ]


async def test_render_list_tasks_with_all_pages(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call("render-list-tasks", limit=2, all_pages=True)
    assert ids_of(result.value) == TASKS
    cursors = [result.value[index]["cursor"].replace("=", "%3D") for index in (1, 3, 5)]
    queries = [query_of(request) for request in sent_requests(simulator)]
    assert queries == [["limit=2"], *([f"cursor={cursor}", "limit=2"] for cursor in cursors)]
    assert result.notes == ["6 items: this is the end of the list."]
    assert result.progress[:3] == [f"page {page}, items so far: {2 * page}" for page in (1, 2, 3)]


# retrieve-task


async def test_render_get_task_by_id(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call("render-retrieve-task", taskId="tsk-d5im0000000000000001")
    assert sent_requests(simulator) == [SentRequest("GET", "/render/v1/tasks/tsk-d5im0000000000000001", READING)]
    # API reference: Retrieve task. The response has no schema of the input
    assert set(result.value) == {"id", "name", "createdAt", "workflowId", "workflowVersionId"}
    assert (result.value["name"], result.value["workflowId"]) == ("square", WORKFLOW)


async def test_render_get_task_requires_a_known_id(simulator: Simulator, caller: Caller) -> None:
    missing = await caller.call("render-retrieve-task")
    assert missing.error["message"] == "taskId: is required"
    assert server_requests(simulator) == []
    unknown = await caller.call("render-retrieve-task", taskId="tsk-nope")
    assert (unknown.error["kind"], unknown.error["status"]) == ("not_found", 404)
    assert "render-list-tasks" in unknown.error["hint"]


# All operations


async def test_render_missing_key_error_names_the_variable(simulator: Simulator, environment: dict[str, str]) -> None:
    async with connected(environment, RENDER_API_KEY=None) as caller:
        result = await caller.call("render-list-tasks")
    assert result.error["kind"] == "auth"
    assert result.error["hint"] == "Set RENDER_API_KEY in the server's environment and restart the server."
    assert server_requests(simulator) == []


@pytest.mark.parametrize("key", ["rnd_wrong", "rnd_wrong_json"])
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("render-retrieve-task-run", {"taskRunId": RENDER_COMPLETED}),
        ("render-stream-realtime-events-sse", {"taskRunIds": [RENDER_COMPLETED]}),
        ("render-run-task", {"body": SQUARE}),
    ],
)
async def test_render_invalid_key_is_an_auth_error_in_text_or_json(
    tool: str, arguments: dict[str, Any], key: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    # CHANGELOG 0.6.1: a 401 may be plain text
    async with connected(environment, RENDER_API_KEY=key) as caller:
        result = await caller.call(tool, **arguments)
    assert result.error == {
        "kind": "auth",
        "status": 401,
        "message": 'the provider returned 401: "Unauthorized"',
        "retryable": False,
        "hint": "Check RENDER_API_KEY in the server's environment. Render's API keys begin with rnd_.",
    }
    assert key not in result.all_text
    assert len(server_requests(simulator)) == 1


def rate_limit_exceeded(reset: int) -> Fault:
    """Return the response of the API reference, Rate limiting."""
    limits = {"Ratelimit-Limit": "400", "Ratelimit-Remaining": "0", "Ratelimit-Reset": str(reset)}
    return Fault(429, JSON | limits, '{"id": "err-1", "message": "rate limit exceeded"}')


async def test_render_get_retries_429_after_ratelimit_reset(simulator: Simulator, caller: Caller) -> None:
    simulator.fail_next("render", rate_limit_exceeded(45))
    result = await caller.call("render-retrieve-task-run", taskRunId=RENDER_COMPLETED, within=46)
    assert result.value["id"] == RENDER_COMPLETED
    assert len(server_requests(simulator)) == 2
    assert result.progress[0] == ('the provider returned 429: "rate limit exceeded"; retrying (1 of 3) in 45 s')


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("render-retrieve-task-run", {"taskRunId": RENDER_COMPLETED}),
        ("render-run-task", {"body": SQUARE}),
        ("render-list-tasks", {"all_pages": True}),
    ],
)
async def test_render_429_with_a_long_reset_is_an_error_with_retry_after(
    tool: str, arguments: dict[str, Any], simulator: Simulator, caller: Caller
) -> None:
    simulator.fail_next("render", rate_limit_exceeded(90))
    result = await caller.call(tool, **arguments)
    assert (result.error["kind"], result.error["status"]) == ("rate_limited", 429)
    assert (result.error["retryable"], result.error["retry_after_s"]) == (True, 90)
    assert len(server_requests(simulator)) == 1


async def test_render_cancel_does_not_retry_429(simulator: Simulator, caller: Caller) -> None:
    simulator.fail_next("render", NO_FAULT)
    simulator.fail_next("render", rate_limit_exceeded(30))
    result = await caller.call("render-cancel-task-run", taskRunId=RENDER_RUNNING, within=40)
    assert (result.error["kind"], result.error["retryable"]) == ("rate_limited", True)
    assert sent_methods(simulator).count("DELETE") == 1


async def test_render_rate_limit_is_kept_by_waiting() -> None:
    clock = LoopClock()
    simulator = Simulator(clock=clock, render=Render(clock, reads_per_minute=1))
    async with serve(simulator) as origin, connected(simulator.environment(origin)) as caller:
        await caller.call("render-retrieve-task", taskId=TASKS[0])
        await pass_time(40)
        result = await caller.call("render-retrieve-task", taskId=TASKS[1], within=25)
    assert result.value["name"] == "pipeline"
    assert len(server_requests(simulator)) == 3
    assert '"rate limit exceeded"; retrying (1 of 3)' in result.progress[0]
