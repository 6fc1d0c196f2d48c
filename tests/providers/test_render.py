"""Render's seven operations: where the capability file and the provider differ, the client gets what the provider has.

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
from tests.providers.driver import Caller, Sent, connected, methods, requests, wire

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

# API reference: Authentication. All answers but the stream's are JSON
READING = {"accept": "application/json", "authorization": "Bearer rnd_simulated"}
WRITING = READING | {"content-type": "application/json"}
# API reference: Stream realtime events (SSE): Accept "Must be `text/event-stream`"
STREAMING = READING | {"accept": "text/event-stream"}
EVENTS = f"{RENDER_RUNS}/events"
JSON = {"Content-Type": "application/json"}

# What the simulated workspace has
OWNER, WORKFLOW, VERSION = "tea-d5im0000000000000001", "wfl-d5im0000000000000001", "wfv-d5im0000000000000002"
TASKS = [f"tsk-d5im000000000000000{number}" for number in range(1, 7)]
SQUARE: dict[str, Any] = {"task": "demo-workflow/square", "input": [4]}
ENDS_S = 3.0
"""How long a run of square takes."""


def query_of(sent: Sent) -> list[str]:
    return sorted(sent.path.partition("?")[2].split("&"))


def ids_of(items: list[dict[str, Any]]) -> list[str]:
    """Of a list of runs or of tasks."""
    return [(item.get("taskRun") or item["task"])["id"] for item in items]


# R1 list-task-runs: "works, but only first 20 runs, no paging, no filter by task/workspace"


async def test_r1_runs_are_listed_by_every_filter_and_the_note_says_how_to_go_on(
    simulator: Simulator, caller: Caller
) -> None:
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
    asked = wire(simulator)[1]
    assert (asked.method, asked.path.partition("?")[0], asked.headers) == ("GET", RENDER_RUNS, READING)
    # List task runs: arrays are repeated, ownerId alone is declared `explode: false`
    assert query_of(asked) == [
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


async def test_r1_more_runs_than_a_page_has_are_got_page_by_page_or_all_at_once(
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
    # The page size is the largest that Render gives
    assert sent(simulator)[2:] == [f"GET {RENDER_RUNS}?limit=100"]


async def test_r1_a_limit_that_render_does_not_take_is_refused_before_it_is_sent(
    simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call("render-list-task-runs", limit=101)
    assert told.error["kind"] == "validation"
    assert told.error["message"] == "limit: 101 is greater than the maximum of 100"
    assert requests(simulator) == []


async def test_r1_a_cursor_that_is_none_is_told_as_such(caller: Caller) -> None:
    told = await caller.call("render-list-task-runs", cursor="page-2")
    assert (told.error["kind"], told.error["status"], told.error["retryable"]) == ("validation", 400, False)
    assert told.error["hint"] == "Pass the cursor of an item of the last answer, or none for the first page."


# R2 run-task: "400 when input omitted; retries start duplicate (billed) runs; agent thinks 202 body is the result"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"task": "demo-workflow/square"}, "body.input: is required"),
        ({"input": []}, "body.task: is required"),
        ({"task": "", "input": []}, "body.task: "),
        ({"task": "demo-workflow/square", "input": "4"}, "body.input: must be of type array or object"),
    ],
    ids=["no input", "no task", "blank task", "text for input"],
)
async def test_r2_a_start_that_render_would_refuse_is_not_sent(
    body: dict[str, Any], problem: str, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call("render-run-task", body=body)
    assert told.error["kind"] == "validation"
    assert told.error["message"].startswith(problem)
    assert "Nothing was sent." in told.error["hint"]
    assert requests(simulator) == []


async def test_r2_the_answer_to_a_start_is_told_as_a_run_that_goes_on(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call("render-run-task", body={**SQUARE, "idempotencyKey": "order-1234"})
    assert wire(simulator) == [
        Sent(
            "POST", RENDER_RUNS, WRITING, {"task": "demo-workflow/square", "input": [4], "idempotencyKey": "order-1234"}
        )
    ]
    assert (told.value["status"], "results" in told.value) == ("pending", False)
    assert told.notes == [
        f"Run {told.value['id']}: queued (pending).",
        'Idempotency key: "order-1234". Repeating the call with it starts no second run.',
    ]
    assert told.result.structured_content == told.value


@pytest.mark.parametrize("arguments", [[], {"customer": "cus_1"}], ids=["none", "named"])
async def test_r2_a_task_gets_its_arguments_by_place_or_by_name(
    arguments: Any, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call("render-run-task", body={"task": "tsk-d5im0000000000000004", "input": arguments})
    assert wire(simulator)[0].body["input"] == arguments
    assert told.value["taskId"] == "tsk-d5im0000000000000004"


async def test_r2_repeating_the_call_with_the_key_that_was_made_starts_no_second_run(
    simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call("render-run-task", body=SQUARE)
    key = wire(simulator)[0].body["idempotencyKey"]
    assert told.notes[1] == f'Idempotency key: "{key}". Repeating the call with it starts no second run.'
    again = await caller.call("render-run-task", body={**SQUARE, "idempotencyKey": key})
    assert again.value["id"] == told.value["id"]
    other = await caller.call("render-run-task", body=SQUARE)
    assert other.value["id"] != told.value["id"]
    assert wire(simulator)[2].body["idempotencyKey"] != key


async def test_r2_a_start_whose_answer_is_lost_is_sent_again_and_starts_one_run(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    simulator.fail_next("render", Fault(truncate=True))
    told = await caller.call("render-run-task", body=SQUARE, within=2)
    first, second = wire(simulator)
    assert first == second
    runs = await outside(environment, "GET", RENDER_RUNS)
    assert [run for run in ids_of(runs) if run == told.value["id"]] == [told.value["id"]]
    assert len(runs) == 5
    assert "trying again (1 of 3)" in told.progress[0]


async def test_r2_the_result_is_told_to_who_waits_for_it(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call("render-run-task", body=SQUARE, wait_seconds=45, within=10)
    key = wire(simulator)[0].body["idempotencyKey"]
    assert told.value["status"] == "succeeded"
    assert (told.value["result"], told.value["error"], told.value["idempotency_key"]) == ([16], None, key)
    assert methods(simulator).count("POST") == 1


async def test_r2_of_an_unknown_task_the_hint_names_what_lists_them(caller: Caller) -> None:
    told = await caller.call("render-run-task", body={"task": "demo-workflow/cube", "input": []})
    assert (told.error["kind"], told.error["status"]) == ("not_found", 404)
    assert "task not found: demo-workflow/cube" in told.error["message"]
    assert "render-list-tasks" in told.error["hint"]


# R3 stream-realtime-events-sse: "JSON parse failure, or a tool call that hangs up to 30 min"


async def test_r3_ends_are_told_by_the_status_of_the_run_and_not_by_the_name_of_the_event(
    simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call(
        "render-stream-realtime-events-sse", taskRunIds=[RENDER_COMPLETED, RENDER_FAILED], within=5
    )
    streams = [request for request in wire(simulator) if request.path.startswith(EVENTS)]
    # One comma-joined value: render typescript/src/workflows/client/client.ts, pkg/workflows/apiserver/server.go
    assert streams == [Sent("GET", f"{EVENTS}?taskRunIds=trn-d5im0000000000000001,trn-d5im0000000000000002", STREAMING)]
    # stream_task_runs_events.py: task.completed "regardless of status"
    events = {event["data"]["id"]: event for event in told.value["events"]}
    assert {event["event"] for event in events.values()} == {"task.completed"}
    assert events[RENDER_COMPLETED]["data"]["results"] == [144]
    assert events[RENDER_FAILED]["data"]["error"] == "ValueError: no such customer"
    assert told.value["runs"] == {RENDER_COMPLETED: "succeeded", RENDER_FAILED: "failed"}
    assert (told.value["ended"], told.value["resume"]) == ("terminal", {})
    assert told.notes == [
        f"Runs {RENDER_COMPLETED}: succeeded (completed); {RENDER_FAILED}: failed.",
        "All runs that were followed have ended.",
    ]
    assert len(told.progress) == 2


async def test_r3_a_run_is_followed_to_its_end_and_the_call_with_it(
    environment: dict[str, str], caller: Caller
) -> None:
    run = await outside(environment, "POST", RENDER_RUNS, SQUARE)
    told = await caller.call("render-stream-realtime-events-sse", taskRunIds=[run["id"]], within=ENDS_S + 3)
    (event,) = told.value["events"]
    assert (event["data"]["status"], event["data"]["results"]) == ("completed", [16])
    assert told.value["ended"] == "terminal"


@pytest.mark.parametrize(
    "run_ids",
    [[RENDER_CANCELED], [RENDER_CANCELED, RENDER_COMPLETED], [RENDER_FAILED]],
    ids=["canceled", "one of two", "failed"],
)
async def test_r3_a_stream_that_nobody_closes_holds_up_no_call(run_ids: list[str]) -> None:
    clock = LoopClock()
    simulator = Simulator(clock=clock, render=Render(clock, closes_streams=False))
    async with serve(simulator) as origin, connected(simulator.environment(origin)) as caller:
        told = await caller.call("render-stream-realtime-events-sse", taskRunIds=run_ids, within=5)
    states = {RENDER_CANCELED: "canceled", RENDER_COMPLETED: "succeeded", RENDER_FAILED: "failed"}
    assert told.value["runs"] == {run_id: states[run_id] for run_id in run_ids}
    assert told.value["ended"] == "terminal"


async def test_r3_a_call_does_not_last_as_long_as_a_run_and_says_how_to_go_on(
    simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call("render-stream-realtime-events-sse", taskRunIds=[RENDER_RUNNING], within=60)
    assert (told.value["ended"], told.value["events"]) == ("wait_over", [])
    assert told.value["runs"] == {RENDER_RUNNING: "running"}
    assert told.value["resume"] == {"taskRunIds": [RENDER_RUNNING]}
    assert "Nothing was cancelled." in told.notes[1]
    assert set(methods(simulator)) == {"GET"}


async def test_r3_following_nothing_is_refused_before_it_is_sent(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call("render-stream-realtime-events-sse", taskRunIds=[])
    assert told.error["message"].startswith("taskRunIds: ")
    assert requests(simulator) == []


# R4 retrieve-task-run: "404 `task run not found` (literal braces)"


async def test_r4_a_run_is_read_by_its_id_with_input_results_and_error(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call("render-retrieve-task-run", taskRunId=RENDER_FAILED)
    assert wire(simulator) == [Sent("GET", f"{RENDER_RUNS}/trn-d5im0000000000000002", READING)]
    assert told.value["input"] == {"customer": "cus_404"}
    assert (told.value["results"], told.value["error"]) == ([], "ValueError: no such customer")
    assert told.notes == [f"Run {RENDER_FAILED}: failed."]
    assert told.result.structured_content == told.value


async def test_r4_each_attempt_of_a_run_is_told(environment: dict[str, str], caller: Caller) -> None:
    run = await outside(environment, "POST", RENDER_RUNS, {"task": "demo-workflow/flaky", "input": []})
    await pass_time(6.5)
    told = await caller.call("render-retrieve-task-run", taskRunId=run["id"])
    attempts = told.value["attempts"]
    assert [(attempt["attempt"], attempt["status"]) for attempt in attempts] == [
        (0, "failed"),
        (1, "failed"),
        (2, "completed"),
    ]
    assert told.notes == [f"Run {run['id']}: succeeded (completed)."]


async def test_r4_the_id_is_asked_for_and_never_a_placeholder_sent(simulator: Simulator, caller: Caller) -> None:
    missing = await caller.call("render-retrieve-task-run")
    assert missing.error["message"] == "taskRunId: is required"
    assert requests(simulator) == []
    unknown = await caller.call("render-retrieve-task-run", taskRunId="trn-nope")
    assert (unknown.error["kind"], unknown.error["status"]) == ("not_found", 404)
    assert "render-list-task-runs" in unknown.error["hint"]


# R5 cancel-task-run: "404 (no id); then JSON parse error on empty body; false 'idempotent'"


async def test_r5_an_answer_without_content_is_told_as_a_run_that_was_canceled(
    simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call("render-cancel-task-run", taskRunId=RENDER_RUNNING)
    deletes = [request for request in wire(simulator) if request.method != "GET"]
    assert deletes == [Sent("DELETE", f"{RENDER_RUNS}/trn-d5im0000000000000004", READING)]
    assert told.value == {
        "provider": "render",
        "run_id": RENDER_RUNNING,
        "cancelled": True,
        "status_before": "running",
        "status": "canceled",
        "native_status": "canceled",
        "terminal": True,
        "next": "The run was cancelled.",
    }
    assert told.notes == [f"Run {RENDER_RUNNING}: canceled."]


async def test_r5_cancelling_ends_the_subtasks_too(environment: dict[str, str], caller: Caller) -> None:
    root = await outside(environment, "POST", RENDER_RUNS, {"task": "demo-workflow/pipeline", "input": [3, 4]})
    await pass_time(2)
    told = await caller.call("render-cancel-task-run", taskRunId=root["id"])
    assert told.value["cancelled"]
    family = await caller.call("render-list-task-runs", rootTaskRunId=[root["id"]])
    assert [item["taskRun"]["status"] for item in family.value] == ["canceled", "canceled"]


@pytest.mark.parametrize(
    ("run_id", "state", "told_as"),
    [
        (RENDER_COMPLETED, "succeeded", "The run had already succeeded: nothing was cancelled."),
        (RENDER_FAILED, "failed", "The run had already failed: nothing was cancelled."),
        (RENDER_CANCELED, "canceled", "The run had already been cancelled: nothing was cancelled."),
    ],
)
async def test_r5_a_run_that_has_ended_is_left_alone(
    run_id: str, state: str, told_as: str, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call("render-cancel-task-run", taskRunId=run_id)
    assert (told.value["cancelled"], told.value["status"], told.value["next"]) == (False, state, told_as)
    assert sent(simulator) == [f"GET {RENDER_RUNS}/{run_id}"]


async def test_r5_what_ended_while_it_was_canceled_is_told_and_not_tried_again(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    run = await outside(environment, "POST", RENDER_RUNS, SQUARE)
    simulator.fail_next("render", NO_FAULT)
    # pkg/workflows/apiserver: a run that has ended is a 500
    said = json.dumps({"message": f"task run {run['id']} is not active"})
    simulator.fail_next("render", Fault(500, JSON, said, delay=ENDS_S + 1))
    told = await caller.call("render-cancel-task-run", taskRunId=run["id"], within=ENDS_S + 2)
    assert (told.value["cancelled"], told.value["status_before"], told.value["status"]) == (
        False,
        "queued",
        "succeeded",
    )
    assert methods(simulator) == ["GET", "DELETE", "GET"]


async def test_r5_of_a_subtask_the_hint_names_the_root(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    root = await outside(environment, "POST", RENDER_RUNS, {"task": "demo-workflow/pipeline", "input": [3, 4]})
    await pass_time(2)
    family = await outside(environment, "GET", f"{RENDER_RUNS}?rootTaskRunId={root['id']}")
    (subtask,) = [run for run in ids_of(family) if run != root["id"]]
    told = await caller.call("render-cancel-task-run", taskRunId=subtask)
    assert (told.error["kind"], told.error["status"], told.error["retryable"]) == ("conflict", 500, False)
    assert told.error["hint"] == f"Cancel the root run {root['id']} instead; that cancels this one too."
    assert methods(simulator).count("DELETE") == 1


async def test_r5_what_is_unknown_is_not_canceled(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call("render-cancel-task-run", taskRunId="trn-nope")
    assert (told.error["kind"], told.error["status"]) == ("not_found", 404)
    assert sent(simulator) == [f"GET {RENDER_RUNS}/trn-nope"]
    assert (await caller.annotations("render-cancel-task-run"))["destructiveHint"]


# R6 list-tasks: "works, first 20 only"


async def test_r6_tasks_are_listed_by_every_filter(simulator: Simulator, caller: Caller) -> None:
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
    asked = wire(simulator)[1]
    assert (asked.method, asked.path.partition("?")[0], asked.headers) == ("GET", "/render/v1/tasks", READING)
    assert query_of(asked) == [
        f"cursor={cursor.replace('=', '%3D')}",
        "limit=1",
        "ownerId=tea-d5im0000000000000001,tea-x",
        "taskSlug=demo-workflow%2Ffail",
        "taskSlug=demo-workflow%2Fsquare",
        "workflowId=wfl-d5im0000000000000001",
        "workflowId=wfl-x",
        "workflowVersionId=wfv-d5im0000000000000002",
    ]


async def test_r6_tasks_of_every_version_are_got_over_all_pages(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call("render-list-tasks", limit=2, all_pages=True)
    assert ids_of(told.value) == TASKS
    cursors = [told.value[place]["cursor"].replace("=", "%3D") for place in (1, 3, 5)]
    asked = [query_of(request) for request in wire(simulator)]
    assert asked == [["limit=2"], *([f"cursor={cursor}", "limit=2"] for cursor in cursors)]
    assert told.notes == ["6 items: this is the end of the list."]
    assert told.progress[:3] == [f"page {page}, items so far: {2 * page}" for page in (1, 2, 3)]


# R7 retrieve-task: "404"


async def test_r7_a_task_is_read_by_its_id(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call("render-retrieve-task", taskId="tsk-d5im0000000000000001")
    assert wire(simulator) == [Sent("GET", "/render/v1/tasks/tsk-d5im0000000000000001", READING)]
    # API reference: Retrieve task. There is no schema of the input in it
    assert set(told.value) == {"id", "name", "createdAt", "workflowId", "workflowVersionId"}
    assert (told.value["name"], told.value["workflowId"]) == ("square", WORKFLOW)


async def test_r7_the_id_is_asked_for_and_an_unknown_one_is_told(simulator: Simulator, caller: Caller) -> None:
    missing = await caller.call("render-retrieve-task")
    assert missing.error["message"] == "taskId: is required"
    assert requests(simulator) == []
    unknown = await caller.call("render-retrieve-task", taskId="tsk-nope")
    assert (unknown.error["kind"], unknown.error["status"]) == ("not_found", 404)
    assert "render-list-tasks" in unknown.error["hint"]


# All seven


async def test_without_a_key_the_variable_to_set_is_told(simulator: Simulator, environment: dict[str, str]) -> None:
    async with connected(environment, RENDER_API_KEY=None) as caller:
        told = await caller.call("render-list-tasks")
    assert told.error["kind"] == "auth"
    assert told.error["hint"] == "Set RENDER_API_KEY in the server's environment and start it again."
    assert requests(simulator) == []


@pytest.mark.parametrize("key", ["rnd_wrong", "rnd_wrong_json"])
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("render-retrieve-task-run", {"taskRunId": RENDER_COMPLETED}),
        ("render-stream-realtime-events-sse", {"taskRunIds": [RENDER_COMPLETED]}),
        ("render-run-task", {"body": SQUARE}),
    ],
)
async def test_a_key_that_render_refuses_in_text_or_in_json_is_told_alike(
    tool: str, arguments: dict[str, Any], key: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    # CHANGELOG 0.6.1: a 401 may be plain text
    async with connected(environment, RENDER_API_KEY=key) as caller:
        told = await caller.call(tool, **arguments)
    assert told.error == {
        "kind": "auth",
        "status": 401,
        "message": "the provider answered 401: Unauthorized",
        "retryable": False,
        "hint": "Check RENDER_API_KEY in the server's environment. Render's API keys begin with rnd_.",
    }
    assert key not in told.everything
    assert len(requests(simulator)) == 1


def too_many(reset: int) -> Fault:
    """API reference: Rate limiting."""
    limits = {"Ratelimit-Limit": "400", "Ratelimit-Remaining": "0", "Ratelimit-Reset": str(reset)}
    return Fault(429, JSON | limits, '{"id": "err-1", "message": "rate limit exceeded"}')


async def test_a_read_over_the_rate_limit_is_made_when_the_limit_is_reset(simulator: Simulator, caller: Caller) -> None:
    simulator.fail_next("render", too_many(45))
    told = await caller.call("render-retrieve-task-run", taskRunId=RENDER_COMPLETED, within=46)
    assert told.value["id"] == RENDER_COMPLETED
    assert len(requests(simulator)) == 2
    assert told.progress[0] == ("the provider answered 429: rate limit exceeded; trying again (1 of 3) in 45 s")


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("render-retrieve-task-run", {"taskRunId": RENDER_COMPLETED}),
        ("render-run-task", {"body": SQUARE}),
        ("render-list-tasks", {"all_pages": True}),
    ],
)
async def test_who_would_have_to_wait_too_long_for_the_limit_is_told_how_long(
    tool: str, arguments: dict[str, Any], simulator: Simulator, caller: Caller
) -> None:
    simulator.fail_next("render", too_many(90))
    told = await caller.call(tool, **arguments)
    assert (told.error["kind"], told.error["status"]) == ("rate_limited", 429)
    assert (told.error["retryable"], told.error["retry_after_s"]) == (True, 90)
    assert len(requests(simulator)) == 1


async def test_a_cancel_that_was_refused_for_its_rate_is_left_to_the_caller(
    simulator: Simulator, caller: Caller
) -> None:
    simulator.fail_next("render", NO_FAULT)
    simulator.fail_next("render", too_many(30))
    told = await caller.call("render-cancel-task-run", taskRunId=RENDER_RUNNING, within=40)
    assert (told.error["kind"], told.error["retryable"]) == ("rate_limited", True)
    assert methods(simulator).count("DELETE") == 1


async def test_limits_that_render_counts_are_kept_by_waiting() -> None:
    clock = LoopClock()
    simulator = Simulator(clock=clock, render=Render(clock, reads_per_minute=1))
    async with serve(simulator) as origin, connected(simulator.environment(origin)) as caller:
        await caller.call("render-retrieve-task", taskId=TASKS[0])
        await pass_time(40)
        told = await caller.call("render-retrieve-task", taskId=TASKS[1], within=25)
    assert told.value["name"] == "pipeline"
    assert len(requests(simulator)) == 3
    assert "rate limit exceeded; trying again (1 of 3)" in told.progress[0]
