"""PostHog's operations on runs: where the capability file and the provider differ, the client gets what there is.

Literals are from PostHog's source (products/tasks/backend: api.py, serializers.py, models.py; products/tasks/mcp;
posthog/exceptions) and its API documentation.
"""

import json
from typing import Any

import pytest

from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.calls import (
    POSTHOG_COMPLETED,
    POSTHOG_FAILED,
    POSTHOG_NOT_STARTED,
    POSTHOG_RUNNING,
    POSTHOG_RUNS,
    TASK,
    Arguments,
    json_response,
    outside,
    sent,
)
from tests.clock import pass_time
from tests.providers.driver import (
    POSTHOG_READING,
    POSTHOG_WRITING,
    Caller,
    Sent,
    connected,
    methods,
    on,
    path_on,
    requests,
    wire,
)

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

LIST, CREATE, RETRIEVE, UPDATE = (
    "posthog-list-task-runs",
    "posthog-create-task-run",
    "posthog-retrieve-task-run",
    "posthog-update-task-run",
)
RESUME, SET_OUTPUT, START = (
    "posthog-resume-task-run-cloud",
    "posthog-set-run-output",
    "posthog-start-task-run",
)
APPEND = "posthog-append-log-entries"
FREE_TASK = "22222222-2222-4222-8222-222222222222"
"""Its output has no schema."""

# services/code_usage_gate.py: a 429 that does not pass
USAGE_LIMIT = "You've reached your PostHog Code usage limit."


# P1 list-task-runs: "{project_id} unfilled + empty baseUri -> no request possible / 404"


async def test_p1_runs_are_listed_page_by_page_and_the_next_address_is_told_as_an_offset(
    simulator: Simulator, caller: Caller
) -> None:
    first = await caller.call(LIST, task_id=TASK, limit=3)
    # LimitOffsetPagination: `next` is an absolute URL
    assert first.value["next"].startswith("http://")
    assert first.notes[1] == (
        "Items 1 to 3 of 4; there are more: for the next page pass offset 3, or all_pages true for as many as fit."
    )
    rest = await caller.call(LIST, task_id=TASK, limit=3, offset=3)
    assert "Item 4 of 4: this is the end of the list." in rest.notes
    assert [run["id"] for run in first.value["results"] + rest.value["results"]] == [
        POSTHOG_NOT_STARTED,
        POSTHOG_RUNNING,
        POSTHOG_FAILED,
        POSTHOG_COMPLETED,
    ]
    assert wire(simulator) == [
        Sent("GET", f"/posthog/api/projects/1/tasks/{TASK}/runs/?limit=3", POSTHOG_READING),
        Sent("GET", f"/posthog/api/projects/1/tasks/{TASK}/runs/?limit=3&offset=3", POSTHOG_READING),
    ]


async def test_p1_all_pages_are_told_as_one_list(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call(LIST, task_id=TASK, limit=2, all_pages=True)
    assert (len(told.value["results"]), told.value["count"], told.value["next"]) == (4, 4, None)
    assert "Items 1 to 4 of 4: this is the end of the list." in told.notes
    assert told.progress == ["page 1, items so far: 2 of 4", "page 2, items so far: 4 of 4"]
    assert len(requests(simulator)) == 2


async def test_p1_the_project_is_the_servers_or_the_calls(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    other = await caller.call(LIST, task_id=TASK, project_id=7)
    assert sent(simulator) == [f"GET /posthog/api/projects/7/tasks/{TASK}/runs/"]
    assert (other.error["kind"], other.error["status"]) == ("not_found", 404)
    assert "POSTHOG_PROJECT_ID" in other.error["hint"]
    async with connected(environment, POSTHOG_PROJECT_ID=None) as unset:
        told = await unset.call(LIST, task_id=TASK)
        assert told.error["hint"] == "Pass project_id, or set POSTHOG_PROJECT_ID in the server's environment."
        assert len(requests(simulator)) == 1
        assert (await unset.call(LIST, task_id=TASK, project_id="1")).value["count"] == 4


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "task_id: is required"),
        ({"task_id": "task-1"}, "task_id: 'task-1' is not a 'uuid'"),
        ({"task_id": TASK, "limit": 101}, "limit: 101 is greater than the maximum of 100"),
        ({"task_id": TASK, "offset": -1}, "offset: -1 is less than the minimum of 0"),
    ],
    ids=["no task", "no uuid", "limit", "offset"],
)
async def test_p1_what_posthog_does_not_take_is_refused_before_it_is_sent(
    arguments: Arguments, problem: str, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call(LIST, **arguments)
    assert (told.error["kind"], told.error["message"]) == ("validation", problem)
    assert requests(simulator) == []


async def test_p1_of_an_unknown_task_the_hint_says_what_to_check(caller: Caller) -> None:
    told = await caller.call(LIST, task_id="33333333-3333-4333-8333-333333333333")
    assert (told.error["kind"], told.error["status"]) == ("not_found", 404)
    assert "The project has no such task." in told.error["hint"]


# P2 create-task-run: "run never starts (needs environment:"cloud" + /start/)"


@pytest.mark.parametrize(
    ("body", "environment_of_it", "remark"),
    [
        ({"environment": "cloud"}, "cloud", "Created, NOT started: call posthog-start-task-run with its id."),
        (None, "local", "Created, NOT started: a local run waits for its desktop client, posthog-start-task-run takes"),
    ],
    ids=["cloud", "default"],
)
async def test_p2_a_run_that_is_created_is_told_not_to_be_started(
    body: Any, environment_of_it: str, remark: str, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call(CREATE, task_id=TASK, **({} if body is None else {"body": body}))
    headers = POSTHOG_READING if body is None else POSTHOG_WRITING
    assert wire(simulator) == [Sent("POST", f"{POSTHOG_RUNS}/", headers, body)]
    assert (told.value["status"], told.value["environment"]) == ("not_started", environment_of_it)
    assert told.notes[0] == f"Run {told.value['id']}: queued (not_started)."
    assert told.notes[1].startswith(remark)


async def test_p2_all_that_a_run_can_be_told_is_sent(simulator: Simulator, caller: Caller) -> None:
    # serializers.py: TaskRunBootstrapCreateRequestSerializer
    body = {
        "environment": "cloud",
        "mode": "interactive",
        "branch": "fix/retry-loop",
        "pr_authorship_mode": "bot",
        "run_source": "signal_report",
        "signal_report_id": "sr-1",
        "runtime_adapter": "claude",
        "model": "claude-opus-4-5",
        "reasoning_effort": "high",
        "initial_permission_mode": "plan",
    }
    told = await caller.call(CREATE, task_id=TASK, body=body)
    assert wire(simulator)[0].body == body
    assert (told.value["branch"], told.value["model"]) == ("fix/retry-loop", "claude-opus-4-5")


async def test_p2_a_cloud_run_is_started_for_who_waits_for_it(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call(CREATE, task_id=TASK, body={"environment": "cloud"}, wait_seconds=45, within=20)
    run = path_on(told.value["run_id"])
    assert wire(simulator)[:2] == [
        Sent("POST", f"{POSTHOG_RUNS}/", POSTHOG_WRITING, {"environment": "cloud"}),
        Sent("POST", f"{run}start/", POSTHOG_READING),
    ]
    assert methods(simulator).count("POST") == 2
    assert (told.value["status"], told.value["timed_out"]) == ("succeeded", False)
    assert told.value["result"]["summary"] == "Fixed the retry loop."


@pytest.mark.parametrize("body", [{"environment": "moon"}, {"branch": "x" * 256}, {"model": ""}], ids=str)
async def test_p2_what_posthog_would_refuse_is_not_sent(body: Any, simulator: Simulator, caller: Caller) -> None:
    told = await caller.call(CREATE, task_id=TASK, body=body)
    assert told.error["message"].startswith(f"body.{next(iter(body))}: ")
    assert requests(simulator) == []


async def test_p2_who_has_no_github_account_is_told_what_to_do(caller: Caller) -> None:
    told = await caller.call(CREATE, task_id=TASK, body={"environment": "cloud", "pr_authorship_mode": "user"})
    assert (told.error["kind"], told.error["status"]) == ("auth", 400)
    assert told.error["message"].startswith("the provider answered 400: pr_authorship_mode: Link a GitHub account")
    assert told.error["hint"] == "Link GitHub in PostHog's settings, or pass pr_authorship_mode bot."


# P3 api-managing-task-runs-each: "works with project id; leaks credentials into model context"

# products/tasks/mcp/tools.yaml: what PostHog's own server removes
SECRETS = ("log_url", "state.sandbox_connect_token", "state.sandbox_url")
BAIT = ("sct_simulated_secret", "sb-simulated.modal.host", "X-Amz-Signature", "planted")
SHOWN: dict[str, tuple[str, Arguments]] = {
    "retrieve": (RETRIEVE, on(POSTHOG_RUNNING)),
    "list": (LIST, {"task_id": TASK}),
    "all pages": (LIST, {"task_id": TASK, "limit": 1, "all_pages": True}),
    "update": (UPDATE, on(POSTHOG_RUNNING, body={"stage": "x"})),
    "append": (APPEND, on(POSTHOG_RUNNING, body={"entries": [{"type": "notification"}]})),
    "resume": (RESUME, on(POSTHOG_COMPLETED)),
    "set output": (SET_OUTPUT, on(POSTHOG_RUNNING, body={"output": {"summary": "x"}})),
    "start": (START, on(POSTHOG_NOT_STARTED)),
    "cancel": (UPDATE, on(POSTHOG_RUNNING, body={"status": "cancelled"})),
}

EACH_RUN = (POSTHOG_RUNNING, POSTHOG_COMPLETED, POSTHOG_NOT_STARTED, POSTHOG_FAILED)


async def plant(environment: dict[str, str], run_id: str) -> None:
    """Somebody gives a run a log and the secrets of a sandbox."""
    await outside(environment, "POST", path_on(run_id, "append_log/"), {"entries": [{"type": "notification"}]})
    state = {"sandbox_connect_token": f"planted-{run_id}", "sandbox_url": "https://planted.modal.host"}
    await outside(environment, "PATCH", path_on(run_id), {"state": state})


def runs_in(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs in an answer: of a list, of a task, of a cancellation, or the run that it is."""
    found: list[dict[str, Any]] = value.get("results") or [value.get("latest_run") or value.get("response") or value]
    return found


@pytest.mark.parametrize("place", SHOWN)
async def test_p3_secrets_of_a_run_reach_no_model(place: str, environment: dict[str, str], caller: Caller) -> None:
    tool, arguments = SHOWN[place]
    for run_id in [arguments["id"]] if "id" in arguments else EACH_RUN:
        await plant(environment, run_id)
    told = await caller.call(tool, **arguments)
    assert not [bait for bait in BAIT if bait in told.everything]
    for run in runs_in(told.value):
        assert run["log_url"] == "[redacted]"
        assert run["state"]["sandbox_connect_token"] == "[redacted]"
        assert run["state"]["sandbox_url"] == "[redacted]"
        assert run["state"]["mode"] == "background"
    if place != "cancel":
        (note,) = [note for note in told.notes if note.startswith("Redacted: ")]
        assert [secret for secret in SECRETS if secret in note] == list(SECRETS)
        assert note.endswith("The server shows such secrets with --reveal-secrets.")


async def test_p3_secrets_of_a_run_that_is_created_reach_no_model(simulator: Simulator, caller: Caller) -> None:
    state = {
        "sandbox_connect_token": "planted-token",
        "sandbox_url": "https://planted.modal.host",
        "mode": "background",
    }
    run = {"id": POSTHOG_RUNNING, "status": "not_started", "environment": "cloud", "state": state}
    simulator.fail_next("posthog", json_response({**run, "log_url": "https://planted.amazonaws.com/x"}, 201))
    told = await caller.call(CREATE, task_id=TASK, body={"environment": "cloud"})
    assert "planted" not in told.everything
    assert told.value == {
        **run,
        "log_url": "[redacted]",
        "state": {"sandbox_connect_token": "[redacted]", "sandbox_url": "[redacted]", "mode": "background"},
    }


@pytest.mark.parametrize(
    ("tool", "more"), [("posthog-wait-for-run", {"wait_seconds": 1}), ("posthog-stream-task-run", {"wait_seconds": 1})]
)
async def test_p3_secrets_of_a_run_that_is_watched_reach_no_model(
    tool: str, more: Arguments, environment: dict[str, str], caller: Caller
) -> None:
    await plant(environment, POSTHOG_RUNNING)
    told = await caller.call(tool, **on(POSTHOG_RUNNING, **more), within=10)
    assert POSTHOG_RUNNING in told.text
    assert not [bait for bait in BAIT if bait in told.everything]


async def test_p3_what_is_empty_is_not_told_to_be_redacted(caller: Caller) -> None:
    told = await caller.call(RETRIEVE, **on(POSTHOG_NOT_STARTED))
    assert told.value["log_url"] is None
    assert told.notes == [f"Run {POSTHOG_NOT_STARTED}: queued (not_started)."]


async def test_p3_secrets_are_shown_where_the_operator_wants_that(environment: dict[str, str]) -> None:
    await plant(environment, POSTHOG_RUNNING)
    async with connected(environment, MCP_TASKRUNS_REVEAL_SECRETS="1") as caller:
        told = await caller.call(RETRIEVE, **on(POSTHOG_RUNNING))
    assert "redacted" not in told.everything.lower()
    assert told.value["state"]["sandbox_connect_token"] == f"planted-{POSTHOG_RUNNING}"
    assert told.value["state"]["sandbox_url"] == "https://planted.modal.host"
    assert "X-Amz-Signature" in told.value["log_url"]


async def test_p3_a_run_is_read_below_its_project_and_task(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call(RETRIEVE, **on(POSTHOG_FAILED))
    run = f"/posthog/api/projects/1/tasks/{TASK}/runs/dddddddd-dddd-4ddd-8ddd-dddddddddddd/"
    assert wire(simulator) == [Sent("GET", run, POSTHOG_READING)]
    assert (told.value["status"], told.value["error_message"]) == ("failed", "Sandbox ran out of memory")
    assert told.notes[0] == f"Run {POSTHOG_FAILED}: failed."
    unknown = await caller.call(RETRIEVE, **on("eeeeeeee-eeee-4eee-8eee-eeeeeeeeeeee"))
    assert (unknown.error["kind"], unknown.error["status"]) == ("not_found", 404)
    assert "posthog-list-task-runs" in unknown.error["hint"]


# P4 update-task-run: "surprise merge; setting status cancels a live agent (should be destructive)"


async def test_p4_an_update_is_merged_into_what_there_is(simulator: Simulator, caller: Caller) -> None:
    first = {"output": {"a": 1}, "state": {"mine": 1, "other": 2}}
    second = {"output": {"b": 2}, "state_remove_keys": ["other"], "branch": None}
    await caller.call(UPDATE, **on(POSTHOG_RUNNING, body=first))
    told = await caller.call(UPDATE, **on(POSTHOG_RUNNING, body=second))
    run = path_on(POSTHOG_RUNNING)
    assert wire(simulator) == [
        Sent("PATCH", run, POSTHOG_WRITING, first),
        Sent("PATCH", run, POSTHOG_WRITING, second),
    ]
    assert told.value["output"] == {"a": 1, "b": 2}
    assert (told.value["state"]["mine"], told.value["state"]["mode"]) == (1, "background")
    assert "other" not in told.value["state"]
    assert told.notes[0] == f"Run {POSTHOG_RUNNING}: running (in_progress)."


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"Stage": "x"}, "body.Stage: is no argument of this tool; did you mean stage?"),
        ({"summary": "x"}, "body.summary: is no argument of this tool"),
        ({"status": "canceled"}, "body.status: must be one of"),
        ({"environment": "cloud"}, "body.environment: must be one of local"),
        ({"state_remove_keys": []}, "body.state_remove_keys: "),
        ({}, "body: "),
    ],
    ids=["case", "unknown", "one l", "cloud", "no keys", "nothing"],
)
async def test_p4_an_update_that_posthog_would_refuse_is_not_sent(
    body: Any, problem: str, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call(UPDATE, **on(POSTHOG_RUNNING, body=body))
    assert told.error["kind"] == "validation"
    assert told.error["message"].startswith(problem)
    assert requests(simulator) == []


async def test_p4_the_status_cancelled_ends_a_live_run_and_is_told_so(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call(UPDATE, **on(POSTHOG_RUNNING, body={"status": "cancelled"}))
    run = path_on(POSTHOG_RUNNING)
    assert wire(simulator) == [
        Sent("GET", run, POSTHOG_READING),
        Sent("PATCH", run, POSTHOG_WRITING, {"status": "cancelled"}),
    ]
    assert (told.value["cancelled"], told.value["status_before"], told.value["status"]) == (True, "running", "canceled")
    again = await caller.call(UPDATE, **on(POSTHOG_RUNNING, body={"status": "cancelled"}))
    assert (again.value["cancelled"], again.value["status"]) == (False, "canceled")
    assert methods(simulator) == ["GET", "PATCH", "GET"]


async def test_p4_updating_is_listed_as_destructive(caller: Caller) -> None:
    hints = await caller.annotations(UPDATE)
    assert (hints["readOnlyHint"], hints["destructiveHint"], hints["idempotentHint"]) == (False, True, True)


# P15 resume-task-run-cloud: "fine; destructive in fact"


@pytest.mark.parametrize("run_id", [POSTHOG_COMPLETED, POSTHOG_FAILED])
async def test_p15_a_run_goes_on_in_the_cloud_and_is_told_so(run_id: str, simulator: Simulator, caller: Caller) -> None:
    told = await caller.call(RESUME, **on(run_id))
    assert wire(simulator) == [Sent("POST", path_on(run_id, "resume_in_cloud/"), POSTHOG_READING)]
    assert (told.value["id"], told.value["status"], told.value["completed_at"]) == (run_id, "queued", None)
    assert told.notes[0] == f"Run {run_id}: queued."
    hints = await caller.annotations(RESUME)
    assert (hints["readOnlyHint"], hints["destructiveHint"], hints["idempotentHint"]) == (False, True, False)


async def test_p15_a_run_that_is_active_is_a_conflict(caller: Caller) -> None:
    told = await caller.call(RESUME, **on(POSTHOG_RUNNING))
    assert (told.error["kind"], told.error["status"]) == ("conflict", 400)
    assert told.error["message"] == "the provider answered 400: Run is already active in cloud"
    assert "posthog-wait-for-run" in told.error["hint"]


async def test_p15_a_workflow_that_does_not_start_is_not_started_again(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, POSTHOG_API_KEY="phx_outage") as caller:
        told = await caller.call(RESUME, **on(POSTHOG_FAILED))
    assert (told.error["kind"], told.error["status"]) == ("unavailable", 502)
    assert told.error["message"] == "the provider answered 502: Failed to start cloud workflow"
    assert "Look with posthog-retrieve-task-run" in told.error["hint"]
    assert len(requests(simulator)) == 1


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        (RESUME, on(POSTHOG_COMPLETED)),
        (START, on(POSTHOG_NOT_STARTED)),
        (CREATE, {"task_id": TASK, "body": {"environment": "cloud"}}),
    ],
)
async def test_p15_a_usage_limit_is_not_waited_for(
    tool: str, arguments: Arguments, simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, POSTHOG_API_KEY="phx_overlimit") as caller:
        told = await caller.call(tool, **arguments)
    assert told.error == {
        "kind": "usage_limit",
        "status": 429,
        "message": f"the provider answered 429: {USAGE_LIMIT}",
        "retryable": False,
        "hint": (
            "The usage limit of this PostHog account is reached: calling again does not help, somebody has to raise it."
        ),
    }
    assert len(requests(simulator)) == 1


# P17 set-run-output: "surprising completion"


async def test_p17_output_is_replaced_and_the_end_of_the_run_is_told(simulator: Simulator, caller: Caller) -> None:
    output = {"summary": "Nothing to do."}
    await caller.call(UPDATE, **on(POSTHOG_RUNNING, body={"output": {"pr_url": "https://example.com/1"}}))
    told = await caller.call(SET_OUTPUT, **on(POSTHOG_RUNNING, body={"output": output}))
    assert wire(simulator)[1:] == [
        Sent("PATCH", path_on(POSTHOG_RUNNING, "set_output/"), POSTHOG_WRITING, {"output": output})
    ]
    assert (told.value["output"], told.value["status"]) == (output, "completed")
    assert told.notes[0] == f"Run {POSTHOG_RUNNING}: succeeded (completed)."
    assert (await caller.annotations(SET_OUTPUT))["destructiveHint"]


async def test_p17_without_a_schema_the_run_goes_on(environment: dict[str, str], caller: Caller) -> None:
    runs = f"/posthog/api/projects/1/tasks/{FREE_TASK}/runs/"
    run = await outside(environment, "POST", runs, {"environment": "cloud"})
    told = await caller.call(SET_OUTPUT, task_id=FREE_TASK, id=run["id"], body={"output": ["any", 1, None]})
    assert told.value["output"] == ["any", 1, None]
    assert told.notes[0] == f"Run {run['id']}: queued (not_started)."


async def test_p17_output_that_does_not_fit_the_schema_of_the_task_is_told(caller: Caller) -> None:
    told = await caller.call(SET_OUTPUT, **on(POSTHOG_RUNNING, body={"output": {"pr_url": "x"}}))
    assert (told.error["kind"], told.error["status"]) == ("validation", 400)
    assert "Output validation error: 'summary' is a required property" in told.error["message"]
    assert told.error["hint"] == "The output has to fit the json_schema of the run's task."


@pytest.mark.parametrize("arguments", [{}, {"body": {}}], ids=str)
async def test_p17_without_output_nothing_is_sent(arguments: Any, simulator: Simulator, caller: Caller) -> None:
    told = await caller.call(SET_OUTPUT, **on(POSTHOG_RUNNING, **arguments))
    assert told.error["kind"] == "validation"
    assert "is required" in told.error["message"]
    assert requests(simulator) == []


# P18 start-task-run: "`run` fields missing"


async def test_p18_starting_is_answered_with_the_task_and_the_run_is_told(simulator: Simulator, caller: Caller) -> None:
    body = {"pending_user_message": "Mind the tests."}
    told = await caller.call(START, **on(POSTHOG_NOT_STARTED, body=body))
    assert wire(simulator) == [Sent("POST", path_on(POSTHOG_NOT_STARTED, "start/"), POSTHOG_WRITING, body)]
    assert (told.value["id"], told.value["latest_run"]["id"]) == (TASK, POSTHOG_NOT_STARTED)
    assert told.notes[0] == f"Run {POSTHOG_NOT_STARTED}: queued."


async def test_p18_of_another_run_of_the_task_no_state_is_told_as_if_it_were_the_one(
    environment: dict[str, str], caller: Caller
) -> None:
    newer = await outside(environment, "POST", f"{POSTHOG_RUNS}/", {"environment": "cloud"})
    told = await caller.call(START, **on(POSTHOG_NOT_STARTED))
    assert told.value["latest_run"]["id"] == newer["id"]
    assert not [note for note in told.notes if note.startswith(f"Run {newer['id']}")]


async def test_p18_the_result_of_the_run_is_told_to_who_waits_for_it(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call(START, **on(POSTHOG_NOT_STARTED, wait_seconds=45), within=20)
    assert (told.value["run_id"], told.value["status"]) == (POSTHOG_NOT_STARTED, "succeeded")
    assert told.value["result"]["pr_url"] == "https://github.com/acme/web/pull/42"
    assert methods(simulator).count("POST") == 1


async def test_p18_a_run_that_was_started_before_is_a_conflict(caller: Caller) -> None:
    await caller.call(START, **on(POSTHOG_NOT_STARTED))
    await pass_time(12)
    told = await caller.call(START, **on(POSTHOG_NOT_STARTED))
    assert (told.error["kind"], told.error["status"], told.error["retryable"]) == ("conflict", 400, False)
    assert "Only queued or not_started cloud runs can be started" in told.error["message"]
    assert "posthog-wait-for-run" in told.error["hint"]
    assert "posthog-resume-task-run-cloud" in told.error["hint"]


async def test_p18_a_local_run_is_not_started_from_here(environment: dict[str, str], caller: Caller) -> None:
    run = await outside(environment, "POST", f"{POSTHOG_RUNS}/", {})
    told = await caller.call(START, **on(run["id"]))
    assert (told.error["kind"], told.error["status"]) == ("conflict", 400)
    assert "Only cloud runs can be started via this endpoint" in told.error["message"]
    assert "environment cloud" in told.error["hint"]


async def test_p18_artifacts_that_the_run_does_not_have_are_told(caller: Caller) -> None:
    body = {"pending_user_artifact_ids": ["nope"]}
    told = await caller.call(START, **on(POSTHOG_NOT_STARTED, body=body))
    assert (told.error["kind"], told.error["status"]) == ("validation", 400)
    assert "pending_user_artifact_ids are invalid for this run" in told.error["message"]


# All that need a key

EACH: dict[str, Arguments] = {
    LIST: {"task_id": TASK},
    RETRIEVE: on(POSTHOG_RUNNING),
    CREATE: {"task_id": TASK, "body": {"environment": "cloud"}},
    "posthog-get-task-run-logs": on(POSTHOG_RUNNING),
    "posthog-stream-task-run": on(POSTHOG_RUNNING),
    "posthog-get-sandbox-connection-token": on(POSTHOG_RUNNING),
}
NO_KEY = (
    "Check POSTHOG_API_KEY in the server's environment: a personal API key (phx_...) of this region; project tokens "
    "(phc_...) are refused. POSTHOG_HOST sets the region."
)


NO_SCOPE = "Check POSTHOG_API_KEY in the server's environment: is it right, and may it do this?"


@pytest.mark.parametrize("tool", EACH)
async def test_without_a_key_the_variable_to_set_is_told(
    tool: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, POSTHOG_API_KEY=None) as caller:
        told = await caller.call(tool, **EACH[tool])
    assert told.error["kind"] == "auth"
    assert told.error["hint"] == "Set POSTHOG_API_KEY in the server's environment and start it again."
    assert requests(simulator) == []


@pytest.mark.parametrize(("key", "status"), [("phx_wrong", 401), ("phx_wrong_403", 403), ("phc_project", 401)])
@pytest.mark.parametrize("tool", EACH)
async def test_a_key_that_posthog_refuses_is_told_whatever_the_status(
    tool: str, key: str, status: int, simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, POSTHOG_API_KEY=key) as caller:
        told = await caller.call(tool, **EACH[tool])
    assert (told.error["kind"], told.error["status"], told.error["retryable"]) == ("auth", status, False)
    # api.py (stream): the renderer of events iterates over the error, so that a 403 may as well be a missing scope
    is_untold = (tool, status) == ("posthog-stream-task-run", 403)
    assert told.error["hint"] == (NO_SCOPE if is_untold else NO_KEY)
    assert "typecode" not in told.everything
    assert key not in told.everything
    assert len(requests(simulator)) == 1


async def test_a_read_that_is_throttled_is_made_after_the_time_that_posthog_asks_for(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, POSTHOG_API_KEY="phx_throttled") as caller:
        await caller.call(RETRIEVE, **on(POSTHOG_RUNNING))
        told = await caller.call(RETRIEVE, **on(POSTHOG_RUNNING), within=4)
    assert told.value["id"] == POSTHOG_RUNNING
    assert len(requests(simulator)) == 3
    assert "Request was throttled." in told.progress[0]
    assert "trying again (1 of 3)" in told.progress[0]


async def test_an_accept_that_posthog_refuses_is_told_to_be_our_mistake(simulator: Simulator, caller: Caller) -> None:
    detail = "Could not satisfy the request Accept header."
    said = {"type": "invalid_request", "code": "not_acceptable", "detail": detail, "attr": None}
    simulator.fail_next("posthog", Fault(406, {"Content-Type": "application/json"}, json.dumps(said)))
    told = await caller.call(RETRIEVE, **on(POSTHOG_RUNNING))
    assert (told.error["kind"], told.error["status"], told.error["retryable"]) == ("unsupported", 406, False)
    assert "mistake of this server" in told.error["hint"]
