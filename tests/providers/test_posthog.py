"""PostHog's operations on runs, where the provider differs from its capability file.

Literals are from PostHog's source (products/tasks/backend: api.py, serializers.py, models.py; products/tasks/mcp;
posthog/exceptions) and its API documentation.
"""

import json
import re
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
    SentRequest,
    connected,
    run_arguments,
    run_path,
    sent_methods,
    sent_requests,
    server_requests,
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
"""A task without a schema for its output."""

# services/code_usage_gate.py: a 429 that waiting does not resolve
USAGE_LIMIT = "You've reached your PostHog Desktop usage limit."


# list-task-runs


async def test_posthog_list_runs_notes_the_next_url_as_an_offset(simulator: Simulator, caller: Caller) -> None:
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
    assert sent_requests(simulator) == [
        SentRequest("GET", f"/posthog/api/projects/1/tasks/{TASK}/runs/?limit=3", POSTHOG_READING),
        SentRequest("GET", f"/posthog/api/projects/1/tasks/{TASK}/runs/?limit=3&offset=3", POSTHOG_READING),
    ]


async def test_posthog_list_runs_with_all_pages(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call(LIST, task_id=TASK, limit=2, all_pages=True)
    assert (len(result.value["results"]), result.value["count"], result.value["next"]) == (4, 4, None)
    assert "Items 1 to 4 of 4: this is the end of the list." in result.notes
    assert result.progress == ["page 1, items so far: 2 of 4", "page 2, items so far: 4 of 4"]
    assert len(server_requests(simulator)) == 2


async def test_posthog_project_comes_from_the_variable_or_the_argument(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    other = await caller.call(LIST, task_id=TASK, project_id=7)
    assert sent(simulator) == [f"GET /posthog/api/projects/7/tasks/{TASK}/runs/"]
    assert (other.error["kind"], other.error["status"]) == ("not_found", 404)
    assert "POSTHOG_PROJECT_ID" in other.error["hint"]
    async with connected(environment, POSTHOG_PROJECT_ID=None) as unset:
        result = await unset.call(LIST, task_id=TASK)
        assert result.error["hint"] == "Pass project_id, or set POSTHOG_PROJECT_ID in the server's environment."
        assert len(server_requests(simulator)) == 1
        assert (await unset.call(LIST, task_id=TASK, project_id="1")).value["count"] == 4


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "task_id: is required"),
        ({"task_id": "task-1"}, "task_id: 'task-1' is not a 'uuid'"),
        ({"task_id": TASK, "limit": 101}, "limit: 101 is greater than the maximum of 100"),
        ({"task_id": TASK, "offset": -1}, "offset: -1 is less than the minimum of 0"),
    ],
    ids=["missing-task", "not-a-uuid", "limit", "offset"],
)
async def test_posthog_list_runs_invalid_arguments_are_rejected_before_sending(
    arguments: Arguments, problem: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call(LIST, **arguments)
    assert (result.error["kind"], result.error["message"]) == ("validation", problem)
    assert server_requests(simulator) == []


async def test_posthog_list_runs_of_an_unknown_task_is_not_found_with_a_hint(caller: Caller) -> None:
    result = await caller.call(LIST, task_id="33333333-3333-4333-8333-333333333333")
    assert (result.error["kind"], result.error["status"]) == ("not_found", 404)
    assert "The project has no such task." in result.error["hint"]


# create-task-run


@pytest.mark.parametrize(
    ("body", "run_environment", "note"),
    [
        ({"environment": "cloud"}, "cloud", "Created, NOT started: call posthog-start-task-run with its id."),
        (None, "local", "Created, NOT started: a local run waits for its desktop client, posthog-start-task-run takes"),
    ],
    ids=["cloud", "default"],
)
async def test_posthog_create_run_notes_that_it_is_not_started(
    body: Any, run_environment: str, note: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call(CREATE, task_id=TASK, **({} if body is None else {"body": body}))
    headers = POSTHOG_READING if body is None else POSTHOG_WRITING
    assert sent_requests(simulator) == [SentRequest("POST", f"{POSTHOG_RUNS}/", headers, body)]
    assert (result.value["status"], result.value["environment"]) == ("not_started", run_environment)
    assert result.notes[0] == f"Run {result.value['id']}: not started (not_started)."
    assert result.notes[1].startswith(note)


async def test_posthog_create_run_sends_every_field(simulator: Simulator, caller: Caller) -> None:
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
        "auto_publish": True,
        "custom_image_id": TASK,
        "rtk_enabled": False,
        "resume_from_run_id": POSTHOG_COMPLETED,
    }
    result = await caller.call(CREATE, task_id=TASK, body=body)
    assert sent_requests(simulator)[0].body == body
    assert (result.value["branch"], result.value["model"]) == ("fix/retry-loop", "claude-opus-4-5")


async def test_posthog_create_run_with_wait_starts_the_cloud_run(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call(CREATE, task_id=TASK, body={"environment": "cloud"}, wait_seconds=45, within=20)
    run = run_path(result.value["run_id"])
    assert sent_requests(simulator)[:2] == [
        SentRequest("POST", f"{POSTHOG_RUNS}/", POSTHOG_WRITING, {"environment": "cloud"}),
        SentRequest("POST", f"{run}start/", POSTHOG_READING),
    ]
    assert sent_methods(simulator).count("POST") == 2
    assert (result.value["status"], result.value["timed_out"]) == ("succeeded", False)
    assert result.value["result"]["summary"] == "Fixed the retry loop."


@pytest.mark.parametrize("body", [{"environment": 7}, {"branch": "x" * 256}, {"model": ""}], ids=str)
async def test_posthog_create_run_invalid_body_is_rejected_before_sending(
    body: Any, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call(CREATE, task_id=TASK, body=body)
    assert result.error["message"].startswith(f"body.{next(iter(body))}: ")
    assert server_requests(simulator) == []


async def test_posthog_create_run_without_github_account_is_an_auth_error_with_a_hint(caller: Caller) -> None:
    result = await caller.call(CREATE, task_id=TASK, body={"environment": "cloud", "pr_authorship_mode": "user"})
    assert (result.error["kind"], result.error["status"]) == ("auth", 400)
    assert result.error["message"].startswith('the provider returned 400: "pr_authorship_mode: Link a GitHub')
    assert result.error["hint"] == "Link GitHub in PostHog's settings, or pass pr_authorship_mode bot."


# retrieve-task-run

# products/tasks/mcp/tools.yaml: fields that PostHog's own server removes
SECRETS = ("log_url", "state.sandbox_connect_token", "state.sandbox_url")
SECRET_VALUES = ("sct_simulated_secret", "sb-simulated.modal.host", "X-Amz-Signature", "planted")
CALLS_WITH_A_RUN: dict[str, tuple[str, Arguments]] = {
    "retrieve": (RETRIEVE, run_arguments(POSTHOG_RUNNING)),
    "list": (LIST, {"task_id": TASK}),
    "all pages": (LIST, {"task_id": TASK, "limit": 1, "all_pages": True}),
    "update": (UPDATE, run_arguments(POSTHOG_RUNNING, body={"stage": "x"})),
    "append": (APPEND, run_arguments(POSTHOG_RUNNING, body={"entries": [{"type": "notification"}]})),
    "resume": (RESUME, run_arguments(POSTHOG_COMPLETED)),
    "set output": (SET_OUTPUT, run_arguments(POSTHOG_RUNNING, body={"output": {"summary": "x"}})),
    "start": (START, run_arguments(POSTHOG_NOT_STARTED)),
    "cancel": (UPDATE, run_arguments(POSTHOG_RUNNING, body={"status": "cancelled"})),
}

ALL_RUNS = (POSTHOG_RUNNING, POSTHOG_COMPLETED, POSTHOG_NOT_STARTED, POSTHOG_FAILED)


async def plant_secrets(environment: dict[str, str], run_id: str) -> None:
    """Give a run a log and the secrets of a sandbox, with requests outside the server."""
    await outside(environment, "POST", run_path(run_id, "append_log/"), {"entries": [{"type": "notification"}]})
    state = {"sandbox_connect_token": f"planted-{run_id}", "sandbox_url": "https://planted.modal.host"}
    await outside(environment, "PATCH", run_path(run_id), {"state": state})


def runs_in(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the runs in a list, a task, the result of a cancellation or a single run."""
    runs: list[dict[str, Any]] = value.get("results") or [value.get("latest_run") or value.get("response") or value]
    return runs


@pytest.mark.parametrize("name", CALLS_WITH_A_RUN)
async def test_posthog_secrets_of_a_run_are_redacted(name: str, environment: dict[str, str], caller: Caller) -> None:
    tool, arguments = CALLS_WITH_A_RUN[name]
    for run_id in [arguments["id"]] if "id" in arguments else ALL_RUNS:
        await plant_secrets(environment, run_id)
    result = await caller.call(tool, **arguments, within=2)
    assert not [secret for secret in SECRET_VALUES if secret in result.all_text]
    for run in runs_in(result.value):
        assert run["log_url"] == "[redacted]"
        assert run["state"]["sandbox_connect_token"] == "[redacted]"
        assert run["state"]["sandbox_url"] == "[redacted]"
        assert run["state"]["mode"] == "background"
    if name != "cancel":
        (note,) = [note for note in result.notes if note.startswith("Redacted: ")]
        assert [secret for secret in SECRETS if secret in note] == list(SECRETS)
        assert note.endswith("The server shows these secrets with `--reveal-secrets`.")


async def test_posthog_secrets_of_a_created_run_are_redacted(simulator: Simulator, caller: Caller) -> None:
    state = {
        "sandbox_connect_token": "planted-token",
        "sandbox_url": "https://planted.modal.host",
        "mode": "background",
    }
    run = {"id": POSTHOG_RUNNING, "status": "not_started", "environment": "cloud", "state": state}
    simulator.fail_next("posthog", json_response({**run, "log_url": "https://planted.amazonaws.com/x"}, 201))
    result = await caller.call(CREATE, task_id=TASK, body={"environment": "cloud"})
    assert "planted" not in result.all_text
    assert result.value == {
        **run,
        "log_url": "[redacted]",
        "state": {"sandbox_connect_token": "[redacted]", "sandbox_url": "[redacted]", "mode": "background"},
    }


@pytest.mark.parametrize(
    ("tool", "more"), [("posthog-wait-for-run", {"wait_seconds": 1}), ("posthog-stream-task-run", {"wait_seconds": 1})]
)
async def test_posthog_secrets_of_a_watched_run_are_redacted(
    tool: str, more: Arguments, environment: dict[str, str], caller: Caller
) -> None:
    await plant_secrets(environment, POSTHOG_RUNNING)
    result = await caller.call(tool, **run_arguments(POSTHOG_RUNNING, **more), within=10)
    assert POSTHOG_RUNNING in result.text
    assert not [secret for secret in SECRET_VALUES if secret in result.all_text]


async def test_posthog_empty_secrets_are_not_noted_as_redacted(caller: Caller) -> None:
    result = await caller.call(RETRIEVE, **run_arguments(POSTHOG_NOT_STARTED))
    assert result.value["log_url"] is None
    assert result.notes[0] == f"Run {POSTHOG_NOT_STARTED}: not started (not_started)."
    assert not [note for note in result.notes if note.startswith("Redacted")]


async def test_posthog_secrets_are_shown_with_reveal_secrets(environment: dict[str, str]) -> None:
    await plant_secrets(environment, POSTHOG_RUNNING)
    async with connected(environment, MCP_TASKRUNS_REVEAL_SECRETS="1") as caller:
        result = await caller.call(RETRIEVE, **run_arguments(POSTHOG_RUNNING))
    assert "redacted" not in result.all_text.lower()
    assert result.value["state"]["sandbox_connect_token"] == f"planted-{POSTHOG_RUNNING}"
    assert result.value["state"]["sandbox_url"] == "https://planted.modal.host"
    assert "X-Amz-Signature" in result.value["log_url"]


async def test_posthog_get_run_by_project_task_and_id(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call(RETRIEVE, **run_arguments(POSTHOG_FAILED))
    run = f"/posthog/api/projects/1/tasks/{TASK}/runs/dddddddd-dddd-4ddd-8ddd-dddddddddddd/"
    assert sent_requests(simulator) == [SentRequest("GET", run, POSTHOG_READING)]
    assert (result.value["status"], result.value["error_message"]) == ("failed", "Sandbox ran out of memory")
    assert result.notes[0] == f"Run {POSTHOG_FAILED}: failed."
    unknown = await caller.call(RETRIEVE, **run_arguments("eeeeeeee-eeee-4eee-8eee-eeeeeeeeeeee"))
    assert (unknown.error["kind"], unknown.error["status"]) == ("not_found", 404)
    assert "posthog-list-task-runs" in unknown.error["hint"]


# update-task-run


async def test_posthog_update_run_merges_output_and_state(simulator: Simulator, caller: Caller) -> None:
    first = {"output": {"a": 1}, "state": {"mine": 1, "other": 2}}
    second = {"output": {"b": 2}, "state_remove_keys": ["other"], "branch": None}
    await caller.call(UPDATE, **run_arguments(POSTHOG_RUNNING, body=first))
    result = await caller.call(UPDATE, **run_arguments(POSTHOG_RUNNING, body=second))
    run = run_path(POSTHOG_RUNNING)
    assert sent_requests(simulator) == [
        SentRequest("PATCH", run, POSTHOG_WRITING, first),
        SentRequest("PATCH", run, POSTHOG_WRITING, second),
    ]
    assert result.value["output"] == {"a": 1, "b": 2}
    assert (result.value["state"]["mine"], result.value["state"]["mode"]) == (1, "background")
    assert "other" not in result.value["state"]
    assert result.notes[0] == f"Run {POSTHOG_RUNNING}: running (in_progress)."


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"Stage": "x"}, "body.Stage: unknown argument; did you mean stage?"),
        ({"summary": "x"}, "body.summary: unknown argument"),
        ({"state_remove_keys": []}, "body.state_remove_keys: "),
        ({}, "body: "),
    ],
    ids=["wrong-case", "unknown-field", "no-keys", "empty"],
)
async def test_posthog_update_run_invalid_body_is_rejected_before_sending(
    body: Any, problem: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call(UPDATE, **run_arguments(POSTHOG_RUNNING, body=body))
    assert result.error["kind"] == "validation"
    assert result.error["message"].startswith(problem)
    assert server_requests(simulator) == []


async def test_posthog_update_run_with_status_cancelled_cancels_the_run(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call(UPDATE, **run_arguments(POSTHOG_RUNNING, body={"status": "cancelled"}), within=2)
    run = run_path(POSTHOG_RUNNING)
    assert sent_requests(simulator) == [
        SentRequest("GET", run, POSTHOG_READING),
        SentRequest("POST", run_path(POSTHOG_RUNNING, "cancel/"), POSTHOG_READING),
    ]
    assert (result.value["cancelled"], result.value["status_before"], result.value["status"]) == (
        True,
        "running",
        "canceled",
    )
    again = await caller.call(UPDATE, **run_arguments(POSTHOG_RUNNING, body={"status": "cancelled"}))
    assert (again.value["cancelled"], again.value["status"]) == (False, "canceled")
    assert sent_methods(simulator).count("POST") == 1


async def test_posthog_cancel_falls_back_to_patch_at_a_server_without_the_operation(
    simulator: Simulator, caller: Caller
) -> None:
    simulator.posthog.has_cancel = False
    result = await caller.call(UPDATE, **run_arguments(POSTHOG_RUNNING, body={"status": "cancelled"}))
    assert (result.value["cancelled"], result.value["native_status"]) == (True, "cancelled")
    assert sent_methods(simulator)[:3] == ["GET", "POST", "PATCH"]
    assert sent_requests(simulator)[2].body == {"status": "cancelled"}


async def test_posthog_cancel_with_other_fields_is_a_patch(simulator: Simulator, caller: Caller) -> None:
    body = {"status": "cancelled", "error_message": "no longer wanted"}
    result = await caller.call(UPDATE, **run_arguments(POSTHOG_RUNNING, body=body))
    assert result.value["cancelled"]
    assert sent_methods(simulator)[:2] == ["GET", "PATCH"]


async def test_posthog_cancel_of_a_local_run_has_a_hint(environment: dict[str, str], caller: Caller) -> None:
    run = await outside(environment, "POST", f"{POSTHOG_RUNS}/", {})
    result = await caller.call(UPDATE, **run_arguments(run["id"], body={"status": "cancelled"}))
    assert (result.error["kind"], result.error["status"]) == ("conflict", 400)
    assert "pass error_message" in result.error["hint"]


async def test_posthog_cancel_in_an_outage_is_retried_and_cancels_nothing(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, POSTHOG_API_KEY="phx_outage") as caller:
        result = await caller.call(UPDATE, **run_arguments(POSTHOG_RUNNING, body={"status": "cancelled"}), within=30)
    assert (result.error["status"], result.error["retryable"]) == (503, True)
    assert "it is in_progress now" in result.error["hint"]
    assert sent_methods(simulator).count("POST") > 1


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        (CREATE, {"task_id": TASK, "body": {"environment": "moon"}}),
        (CREATE, {"task_id": TASK, "body": {"reasoning_effort": "ultra"}}),
        (UPDATE, run_arguments(POSTHOG_RUNNING, body={"status": "archived"})),
        (UPDATE, run_arguments(POSTHOG_RUNNING, body={"environment": "edge"})),
        (
            "posthog-send-command-agent-server",
            run_arguments(POSTHOG_RUNNING, body={"jsonrpc": "2.0", "method": "mcp_response"}),
        ),
        (
            "posthog-upload-artifacts-task-run",
            run_arguments(POSTHOG_RUNNING, body={"artifacts": [{"name": "a", "type": "blueprint", "content": "a"}]}),
        ),
        ("posthog-stream-task-run", run_arguments(POSTHOG_RUNNING, start="earliest", wait_seconds=1)),
    ],
)
async def test_posthog_values_that_only_newer_versions_know_are_sent(
    tool: str, arguments: Arguments, simulator: Simulator, caller: Caller
) -> None:
    await caller.call(tool, **arguments, within=5)
    assert server_requests(simulator)


async def test_posthog_accepts_the_artifact_type_skill_bundle(caller: Caller) -> None:
    artifact = {"name": "a.zip", "type": "skill_bundle", "content": "a"}
    result = await caller.call(
        "posthog-upload-artifacts-task-run", **run_arguments(POSTHOG_RUNNING, body={"artifacts": [artifact]})
    )
    assert result.value["artifacts"][-1]["type"] == "skill_bundle"


async def test_posthog_update_of_an_ended_run_is_reported_as_unchanged(caller: Caller) -> None:
    body = {"stage": "review", "output": {"summary": "Fixed the retry loop.", "extra": 1}}
    result = await caller.call(UPDATE, **run_arguments(POSTHOG_COMPLETED, body={**body, "status": "failed"}))
    assert (result.is_error, result.value["status"]) == (False, "completed")
    (note,) = [note for note in result.notes if note.startswith("NOT changed")]
    assert note.startswith("NOT changed: output.extra, status. PostHog changes nothing in a run that has ended")


async def test_posthog_update_of_a_protected_key_is_reported_as_unchanged(caller: Caller) -> None:
    body = {"state": {"sandbox_id": "mine", "sandbox_url": "https://x.modal.host", "mine": 1}}
    result = await caller.call(UPDATE, **run_arguments(POSTHOG_RUNNING, body=body))
    assert [note for note in result.notes if note.startswith("NOT changed: state.sandbox_id. ")]


async def test_posthog_update_of_an_active_run_is_not_reported_as_unchanged(caller: Caller) -> None:
    result = await caller.call(UPDATE, **run_arguments(POSTHOG_RUNNING, body={"stage": "x", "status": "completed"}))
    assert not [note for note in result.notes if "NOT changed" in note]


async def test_posthog_update_run_is_annotated_destructive(caller: Caller) -> None:
    hints = await caller.annotations(UPDATE)
    assert (hints["readOnlyHint"], hints["destructiveHint"], hints["idempotentHint"]) == (False, True, True)


# resume-task-run-cloud


@pytest.mark.parametrize("run_id", [POSTHOG_COMPLETED, POSTHOG_FAILED])
async def test_posthog_resume_run_returns_the_queued_run(run_id: str, simulator: Simulator, caller: Caller) -> None:
    result = await caller.call(RESUME, **run_arguments(run_id))
    assert sent_requests(simulator) == [SentRequest("POST", run_path(run_id, "resume_in_cloud/"), POSTHOG_READING)]
    assert (result.value["id"], result.value["status"], result.value["completed_at"]) == (run_id, "queued", None)
    assert result.notes[0] == f"Run {run_id}: queued."
    hints = await caller.annotations(RESUME)
    assert (hints["readOnlyHint"], hints["destructiveHint"], hints["idempotentHint"]) == (False, True, False)


async def test_posthog_resume_of_an_active_run_is_a_conflict(caller: Caller) -> None:
    result = await caller.call(RESUME, **run_arguments(POSTHOG_RUNNING))
    assert (result.error["kind"], result.error["status"]) == ("conflict", 400)
    assert result.error["message"] == 'the provider returned 400: "Run is already active in cloud"'
    assert "posthog-wait-for-run" in result.error["hint"]


async def test_posthog_resume_does_not_retry_502(simulator: Simulator, environment: dict[str, str]) -> None:
    async with connected(environment, POSTHOG_API_KEY="phx_outage") as caller:
        result = await caller.call(RESUME, **run_arguments(POSTHOG_FAILED))
    assert (result.error["kind"], result.error["status"]) == ("unavailable", 502)
    assert result.error["message"] == 'the provider returned 502: "Failed to start cloud workflow"'
    assert "Check with posthog-retrieve-task-run" in result.error["hint"]
    assert len(server_requests(simulator)) == 1


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        (RESUME, run_arguments(POSTHOG_COMPLETED)),
        (START, run_arguments(POSTHOG_NOT_STARTED)),
        (CREATE, {"task_id": TASK, "body": {"environment": "cloud"}}),
    ],
)
async def test_posthog_usage_limit_is_not_retried(
    tool: str, arguments: Arguments, simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, POSTHOG_API_KEY="phx_overlimit") as caller:
        result = await caller.call(tool, **arguments)
    hint = re.sub(r"20\d\d-\S+Z", "<time>", result.error["hint"])
    assert result.error | {"hint": hint} == {
        "kind": "usage_limit",
        "status": 429,
        "message": f'the provider returned 429: "{USAGE_LIMIT}"',
        "retryable": False,
        "hint": (
            "The usage limit of this PostHog account is reached. It is the burst limit (burst is that of a day, "
            "sustained that of a month). It is reset at <time>. A retry before that has no effect, unless the limit is "
            "raised."
        ),
    }
    assert len(server_requests(simulator)) == 1


# set-run-output


async def test_posthog_set_output_replaces_the_output_and_completes_the_run(
    simulator: Simulator, caller: Caller
) -> None:
    output = {"summary": "Nothing to do."}
    await caller.call(UPDATE, **run_arguments(POSTHOG_RUNNING, body={"output": {"pr_url": "https://example.com/1"}}))
    result = await caller.call(SET_OUTPUT, **run_arguments(POSTHOG_RUNNING, body={"output": output}))
    assert sent_requests(simulator)[1:] == [
        SentRequest("PATCH", run_path(POSTHOG_RUNNING, "set_output/"), POSTHOG_WRITING, {"output": output})
    ]
    assert (result.value["output"], result.value["status"]) == (output, "completed")
    assert result.notes[0] == f"Run {POSTHOG_RUNNING}: succeeded (completed)."
    assert (await caller.annotations(SET_OUTPUT))["destructiveHint"]


async def test_posthog_set_output_keeps_the_status_without_a_schema(
    environment: dict[str, str], caller: Caller
) -> None:
    runs = f"/posthog/api/projects/1/tasks/{FREE_TASK}/runs/"
    run = await outside(environment, "POST", runs, {"environment": "cloud"})
    result = await caller.call(SET_OUTPUT, task_id=FREE_TASK, id=run["id"], body={"output": ["any", 1, None]})
    assert result.value["output"] == ["any", 1, None]
    assert result.notes[0] == f"Run {run['id']}: not started (not_started)."


async def test_posthog_set_output_that_violates_the_schema_is_a_validation_error(caller: Caller) -> None:
    result = await caller.call(SET_OUTPUT, **run_arguments(POSTHOG_RUNNING, body={"output": {"pr_url": "x"}}))
    assert (result.error["kind"], result.error["status"]) == ("validation", 400)
    assert "Output validation error: 'summary' is a required property" in result.error["message"]
    assert result.error["hint"] == "The output has to fit the json_schema of the run's task."


@pytest.mark.parametrize("arguments", [{}, {"body": {}}], ids=str)
async def test_posthog_set_output_without_output_is_rejected_before_sending(
    arguments: Any, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call(SET_OUTPUT, **run_arguments(POSTHOG_RUNNING, **arguments))
    assert result.error["kind"] == "validation"
    assert "is required" in result.error["message"]
    assert server_requests(simulator) == []


# start-task-run


async def test_posthog_start_run_returns_the_task_and_notes_the_run(simulator: Simulator, caller: Caller) -> None:
    body = {"pending_user_message": "Mind the tests."}
    result = await caller.call(START, **run_arguments(POSTHOG_NOT_STARTED, body=body))
    assert sent_requests(simulator) == [
        SentRequest("POST", run_path(POSTHOG_NOT_STARTED, "start/"), POSTHOG_WRITING, body)
    ]
    assert (result.value["id"], result.value["latest_run"]["id"]) == (TASK, POSTHOG_NOT_STARTED)
    assert result.notes[0] == f"Run {POSTHOG_NOT_STARTED}: queued."


async def test_posthog_start_run_does_not_note_the_status_of_another_run(
    environment: dict[str, str], caller: Caller
) -> None:
    newer = await outside(environment, "POST", f"{POSTHOG_RUNS}/", {"environment": "cloud"})
    result = await caller.call(START, **run_arguments(POSTHOG_NOT_STARTED))
    assert result.value["latest_run"]["id"] == newer["id"]
    assert not [note for note in result.notes if note.startswith(f"Run {newer['id']}")]


async def test_posthog_start_run_with_wait_returns_the_result(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call(START, **run_arguments(POSTHOG_NOT_STARTED, wait_seconds=45), within=20)
    assert (result.value["run_id"], result.value["status"]) == (POSTHOG_NOT_STARTED, "succeeded")
    assert result.value["result"]["pr_url"] == "https://github.com/acme/web/pull/42"
    assert sent_methods(simulator).count("POST") == 1


async def test_posthog_start_of_a_completed_run_is_a_conflict(caller: Caller) -> None:
    await caller.call(START, **run_arguments(POSTHOG_NOT_STARTED))
    await pass_time(12)
    result = await caller.call(START, **run_arguments(POSTHOG_NOT_STARTED))
    assert (result.error["kind"], result.error["status"], result.error["retryable"]) == ("conflict", 400, False)
    assert "Only queued or not_started cloud runs can be started" in result.error["message"]
    assert "posthog-wait-for-run" in result.error["hint"]
    assert "posthog-resume-task-run-cloud" in result.error["hint"]


async def test_posthog_start_of_a_local_run_is_a_conflict(environment: dict[str, str], caller: Caller) -> None:
    run = await outside(environment, "POST", f"{POSTHOG_RUNS}/", {})
    result = await caller.call(START, **run_arguments(run["id"]))
    assert (result.error["kind"], result.error["status"]) == ("conflict", 400)
    assert "Only cloud runs can be started via this endpoint" in result.error["message"]
    assert "environment cloud" in result.error["hint"]


async def test_posthog_start_run_with_unknown_artifacts_is_a_validation_error(caller: Caller) -> None:
    body = {"pending_user_artifact_ids": ["nope"]}
    result = await caller.call(START, **run_arguments(POSTHOG_NOT_STARTED, body=body))
    assert (result.error["kind"], result.error["status"]) == ("validation", 400)
    assert "pending_user_artifact_ids are invalid for this run" in result.error["message"]


# All operations

CALLS: dict[str, Arguments] = {
    LIST: {"task_id": TASK},
    RETRIEVE: run_arguments(POSTHOG_RUNNING),
    CREATE: {"task_id": TASK, "body": {"environment": "cloud"}},
    "posthog-get-task-run-logs": run_arguments(POSTHOG_RUNNING),
    "posthog-stream-task-run": run_arguments(POSTHOG_RUNNING),
    "posthog-get-sandbox-connection-token": run_arguments(POSTHOG_RUNNING),
}
NO_KEY = (
    "Check POSTHOG_API_KEY in the server's environment: a personal API key (phx_...) of this region; project tokens "
    "(phc_...) are refused. POSTHOG_HOST sets the region."
)


NO_SCOPE = "Check POSTHOG_API_KEY in the server's environment: it may be wrong or lack a permission."


@pytest.mark.parametrize("tool", CALLS)
async def test_posthog_missing_key_error_names_the_variable(
    tool: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, POSTHOG_API_KEY=None) as caller:
        result = await caller.call(tool, **CALLS[tool])
    assert result.error["kind"] == "auth"
    assert result.error["hint"] == "Set POSTHOG_API_KEY in the server's environment and restart the server."
    assert server_requests(simulator) == []


@pytest.mark.parametrize(("key", "status"), [("phx_wrong", 401), ("phx_wrong_403", 403), ("phc_project", 401)])
@pytest.mark.parametrize("tool", CALLS)
async def test_posthog_invalid_key_is_an_auth_error_for_401_and_403(
    tool: str, key: str, status: int, simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, POSTHOG_API_KEY=key) as caller:
        result = await caller.call(tool, **CALLS[tool])
    assert (result.error["kind"], result.error["status"], result.error["retryable"]) == ("auth", status, False)
    # api.py (stream): the renderer writes only the keys of the error, so a 403 may also be a missing scope
    is_ambiguous = (tool, status) == ("posthog-stream-task-run", 403)
    assert result.error["hint"] == (NO_SCOPE if is_ambiguous else NO_KEY)
    assert "typecode" not in result.all_text
    assert key not in result.all_text
    assert len(server_requests(simulator)) == 1


async def test_posthog_get_run_retries_429_after_retry_after(simulator: Simulator, environment: dict[str, str]) -> None:
    async with connected(environment, POSTHOG_API_KEY="phx_throttled") as caller:
        await caller.call(RETRIEVE, **run_arguments(POSTHOG_RUNNING))
        result = await caller.call(RETRIEVE, **run_arguments(POSTHOG_RUNNING), within=4)
    assert result.value["id"] == POSTHOG_RUNNING
    assert [request.path for request in server_requests(simulator)].count(run_path(POSTHOG_RUNNING)) == 3
    assert "Request was throttled." in result.progress[0]
    assert "retrying (1 of 3)" in result.progress[0]


async def test_posthog_rejected_accept_header_is_an_error_of_this_server(simulator: Simulator, caller: Caller) -> None:
    detail = "Could not satisfy the request Accept header."
    body = {"type": "invalid_request", "code": "not_acceptable", "detail": detail, "attr": None}
    simulator.fail_next("posthog", Fault(406, {"Content-Type": "application/json"}, json.dumps(body)))
    result = await caller.call(RETRIEVE, **run_arguments(POSTHOG_RUNNING))
    assert (result.error["kind"], result.error["status"], result.error["retryable"]) == ("unsupported", 406, False)
    assert "bug in this server" in result.error["hint"]
