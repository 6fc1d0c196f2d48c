"""PostHog's operations on the agent of a run, where the provider differs from its capability file.

Literals are from PostHog's source (products/tasks/backend: api.py, serializers.py).
"""

from typing import Any

import pytest

from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.calls import (
    POSTHOG_COMPLETED,
    POSTHOG_NOT_STARTED,
    POSTHOG_RUNNING,
    POSTHOG_RUNS,
    TASK,
    Arguments,
    outside,
)
from tests.providers.driver import (
    POSTHOG_READING,
    POSTHOG_WRITING,
    Caller,
    SentRequest,
    ToolResult,
    connected,
    run_arguments,
    run_path,
    sent_methods,
    sent_requests,
    server_requests,
)

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

COMMAND, TOKEN, RELAY = (
    "posthog-send-command-agent-server",
    "posthog-get-sandbox-connection-token",
    "posthog-relay-run-message-slack",
)


# send-command-agent-server


async def command(caller: Caller, run_id: str, method: str, within: float = 0.5, **params: Any) -> ToolResult:
    body = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
    return await caller.call(COMMAND, **run_arguments(run_id, body=body), within=within)


async def test_posthog_user_message_is_queued(simulator: Simulator, caller: Caller) -> None:
    result = await command(caller, POSTHOG_RUNNING, "user_message", content="go on")
    message = {"jsonrpc": "2.0", "method": "user_message", "params": {"content": "go on"}, "id": 1}
    assert sent_requests(simulator) == [
        SentRequest("POST", run_path(POSTHOG_RUNNING, "command/"), POSTHOG_WRITING, message)
    ]
    assert result.value == {"jsonrpc": "2.0", "result": {"queued": True}, "id": 1}


async def test_posthog_command_returns_the_result_of_the_agent(caller: Caller) -> None:
    result = await command(caller, POSTHOG_RUNNING, "permission_response", requestId="perm-1", optionId="allow")
    assert result.value["result"] == {"resolved": True}


# The tests make the agent unavailable with a PATCH of the state
@pytest.mark.parametrize(
    ("host", "status", "kind", "message", "hint"),
    [
        ("unreachable", 502, "unavailable", "Agent server is not reachable", "Check with posthog-retrieve-task-run"),
        ("slow", 504, "timeout", "Agent server request timed out", "posthog-get-filtered-task-run-session"),
        ("refusing", 502, "unavailable", "Agent server rejected the command", "may have been carried out"),
    ],
)
async def test_posthog_command_to_an_unavailable_agent_is_not_retried(
    host: str,
    status: int,
    kind: str,
    message: str,
    hint: str,
    simulator: Simulator,
    environment: dict[str, str],
    caller: Caller,
) -> None:
    state = {"sandbox_url": f"https://{host}.modal.host"}
    await outside(environment, "PATCH", run_path(POSTHOG_RUNNING), {"state": state})
    result = await command(caller, POSTHOG_RUNNING, "set_config_option", configId="model", value="x")
    assert (result.error["kind"], result.error["status"]) == (kind, status)
    assert result.error["message"] == f'the provider returned {status}: "{message}"'
    assert hint in result.error["hint"]
    assert sent_methods(simulator) == ["POST"]


async def test_posthog_command_that_timed_out_is_not_retryable(environment: dict[str, str], caller: Caller) -> None:
    state = {"sandbox_url": "https://slow.modal.host"}
    await outside(environment, "PATCH", run_path(POSTHOG_RUNNING), {"state": state})
    result = await command(caller, POSTHOG_RUNNING, "set_config_option", configId="model", value="x")
    assert result.error["retryable"] is False


@pytest.mark.parametrize("method", ["close", "cancel"])
async def test_posthog_command_without_a_sandbox_hints_at_starting_the_run(method: str, caller: Caller) -> None:
    result = await command(caller, POSTHOG_NOT_STARTED, method)
    assert (result.error["kind"], result.error["status"]) == ("conflict", 400)
    assert result.error["message"] == 'the provider returned 400: "No active sandbox for this task run"'
    assert "posthog-start-task-run" in result.error["hint"]
    assert "posthog-resume-task-run-cloud" in result.error["hint"]


async def test_posthog_command_has_a_long_timeout_and_reports_progress(simulator: Simulator, caller: Caller) -> None:
    # api.py (command): the timeout of the agent is 600 s
    simulator.fail_next("posthog", Fault(delay=90))
    result = await command(caller, POSTHOG_RUNNING, "set_config_option", within=95, configId="model", value="x")
    assert result.value["result"] == {"configOptions": []}
    assert len(result.progress) >= 9


async def test_posthog_cancel_command_cancels_the_run(simulator: Simulator, caller: Caller) -> None:
    result = await command(caller, POSTHOG_RUNNING, "cancel")
    assert (result.value["cancelled"], result.value["status_before"], result.value["status"]) == (
        True,
        "running",
        "canceled",
    )
    assert sent_methods(simulator) == ["GET", "POST", "GET"]
    again = await command(caller, POSTHOG_RUNNING, "cancel")
    assert (again.value["cancelled"], again.value["status"]) == (False, "canceled")
    assert sent_methods(simulator).count("POST") == 1


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"method": "close"}, "body.jsonrpc: is required"),
        ({"jsonrpc": "2.0"}, "body.method: is required"),
    ],
    ids=["missing-version", "missing-method"],
)
async def test_posthog_invalid_command_is_rejected_before_sending(
    body: Any, problem: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call(COMMAND, **run_arguments(POSTHOG_RUNNING, body=body))
    assert result.error["message"].startswith(problem)
    assert server_requests(simulator) == []


async def test_posthog_command_with_missing_params_is_a_validation_error(caller: Caller) -> None:
    result = await command(caller, POSTHOG_RUNNING, "permission_response", requestId="perm-1")
    assert (result.error["kind"], result.error["status"]) == ("validation", 400)
    assert "params: optionId is required" in result.error["message"]


async def test_posthog_command_is_annotated_destructive(caller: Caller) -> None:
    hints = await caller.annotations(COMMAND)
    assert (hints["readOnlyHint"], hints["destructiveHint"], hints["idempotentHint"]) == (False, True, False)


# get-sandbox-connection-token


async def test_posthog_connection_token_is_redacted(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call(TOKEN, **run_arguments(POSTHOG_RUNNING))
    assert sent_requests(simulator) == [
        SentRequest("GET", run_path(POSTHOG_RUNNING, "connection_token/"), POSTHOG_READING)
    ]
    assert result.value == {"token": "[redacted]"}
    assert result.notes == ["Redacted: token. The server shows these secrets with `--reveal-secrets`."]
    # A JWT begins with "eyJ"
    assert "eyJ" not in result.all_text


async def test_posthog_connection_token_is_shown_with_reveal_secrets(environment: dict[str, str]) -> None:
    async with connected(environment, MCP_TASKRUNS_REVEAL_SECRETS="1") as caller:
        result = await caller.call(TOKEN, **run_arguments(POSTHOG_RUNNING))
    assert result.value["token"].startswith("eyJ")
    assert result.notes == []


async def test_posthog_connection_token_request_is_not_retried(simulator: Simulator, caller: Caller) -> None:
    simulator.fail_next("posthog", Fault(503, body="busy"))
    result = await caller.call(TOKEN, **run_arguments(POSTHOG_RUNNING))
    assert result.error["kind"] == "unavailable"
    assert len(server_requests(simulator)) == 1
    hints = await caller.annotations(TOKEN)
    assert (hints["readOnlyHint"], hints["idempotentHint"]) == (False, False)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        (TOKEN, run_arguments(POSTHOG_RUNNING)),
        ("posthog-create-task-run", {"task_id": TASK, "body": {}}),
        ("posthog-start-task-run", run_arguments(POSTHOG_NOT_STARTED)),
        ("posthog-update-task-run", run_arguments(POSTHOG_RUNNING, body={"stage": "x"})),
        (RELAY, run_arguments(POSTHOG_RUNNING, body={"text": "hi"})),
    ],
)
async def test_posthog_read_only_key_error_names_the_missing_scope(
    tool: str, arguments: Arguments, environment: dict[str, str]
) -> None:
    async with connected(environment, POSTHOG_API_KEY="phx_readonly") as caller:
        assert (await caller.call("posthog-retrieve-task-run", **run_arguments(POSTHOG_RUNNING))).value[
            "id"
        ] == POSTHOG_RUNNING
        result = await caller.call(tool, **arguments)
    assert result.error == {
        "kind": "auth",
        "status": 403,
        "message": "the provider returned 403: \"API key missing required scope 'task:write'\"",
        "retryable": False,
        "hint": "Give the personal API key in POSTHOG_API_KEY the scope task:write.",
    }


# relay-run-message-slack


async def test_posthog_relay_message_is_accepted(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call(RELAY, **run_arguments(POSTHOG_RUNNING, body={"text": "hi"}))
    assert sent_requests(simulator) == [
        SentRequest("POST", run_path(POSTHOG_RUNNING, "relay_message/"), POSTHOG_WRITING, {"text": "hi"})
    ]
    assert result.value["status"] == "accepted"
    assert result.notes == []


@pytest.mark.parametrize(
    ("run_id", "text"),
    [(POSTHOG_COMPLETED, "hi"), (POSTHOG_NOT_STARTED, "hi"), (POSTHOG_RUNNING, " \n")],
    ids=["completed", "no-thread", "blank"],
)
async def test_posthog_skipped_relay_message_is_noted_as_not_posted(run_id: str, text: str, caller: Caller) -> None:
    result = await caller.call(RELAY, **run_arguments(run_id, body={"text": text}))
    assert result.value == {"status": "skipped"}
    assert result.notes == ["NOT posted: the run has ended, has no Slack thread, or the text is blank."]


@pytest.mark.parametrize(
    ("body", "problem"),
    [({}, "body.text: is required"), ({"text": ""}, "body.text: "), ({"text": "x" * 10_001}, "body.text: is too long")],
    ids=["missing", "empty", "too-long"],
)
async def test_posthog_relay_message_invalid_text_is_rejected_before_sending(
    body: Any, problem: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call(RELAY, **run_arguments(POSTHOG_RUNNING, body=body))
    assert result.error["message"].startswith(problem)
    assert server_requests(simulator) == []


async def test_posthog_relay_message_does_not_retry_503(simulator: Simulator, environment: dict[str, str]) -> None:
    async with connected(environment, POSTHOG_API_KEY="phx_outage") as caller:
        result = await caller.call(RELAY, **run_arguments(POSTHOG_RUNNING, body={"text": "hi"}))
    assert (result.error["kind"], result.error["status"], result.error["retryable"]) == ("unavailable", 503, True)
    assert result.error["message"] == 'the provider returned 503: "Failed to queue Slack relay"'
    # A message that was posted cannot be withdrawn
    assert len(server_requests(simulator)) == 1


# Permission requests, which only the stream has


WAITS = "The run waits for a response to its request perm-1: git push origin main."
HOW = "posthog-send-command-agent-server with the method permission_response and the params requestId perm-1"
READERS = ("posthog-retrieve-task-run", "posthog-get-task-run-logs", "posthog-get-filtered-task-run-session")


@pytest.mark.parametrize("tool", READERS)
async def test_posthog_run_that_waits_for_a_permission_is_noted(tool: str, caller: Caller) -> None:
    result = await caller.call(tool, **run_arguments(POSTHOG_RUNNING), within=2)
    (note,) = [note for note in result.notes if note.startswith(WAITS)]
    assert HOW in note
    assert note.endswith("one of: allow, reject.")


async def test_posthog_wait_reports_the_permission_that_the_run_waits_for(caller: Caller) -> None:
    result = await caller.call("posthog-wait-for-run", **run_arguments(POSTHOG_RUNNING, wait_seconds=2), within=5)
    assert (result.value["status"], result.value["timed_out"]) == ("running", True)
    assert result.value["next"].startswith(WAITS)


@pytest.mark.parametrize("tool", READERS)
async def test_posthog_permission_that_was_given_is_not_noted(tool: str, caller: Caller) -> None:
    await command(caller, POSTHOG_RUNNING, "permission_response", requestId="perm-1", optionId="allow")
    result = await caller.call(tool, **run_arguments(POSTHOG_RUNNING), within=2)
    assert not [note for note in result.notes if "waits for" in note]


async def test_posthog_permission_request_in_a_notification_is_noted(simulator: Simulator, caller: Caller) -> None:
    project = simulator.posthog.project
    params = {
        "requestId": "perm-2",
        "toolCall": {"toolCallId": "t", "title": "rm -r build"},
        "options": [{"optionId": "no"}],
    }
    project.publish(
        project.runs[POSTHOG_RUNNING],
        {"type": "notification", "notification": {"method": "_posthog/permission_request", "params": params}},
    )
    result = await caller.call("posthog-retrieve-task-run", **run_arguments(POSTHOG_RUNNING), within=2)
    assert [note for note in result.notes if "its request perm-2: rm -r build." in note]
    assert [note for note in result.notes if note.startswith(WAITS)]


@pytest.mark.parametrize("run", [POSTHOG_COMPLETED, POSTHOG_NOT_STARTED])
async def test_posthog_stream_is_read_only_for_a_run_that_may_ask(
    run: str, simulator: Simulator, caller: Caller
) -> None:
    await caller.call("posthog-retrieve-task-run", **run_arguments(run))
    assert len(server_requests(simulator)) == 1


async def test_posthog_stream_that_cannot_be_read_does_not_fail_the_call(simulator: Simulator, caller: Caller) -> None:
    simulator.fail_next("posthog", Fault())
    simulator.fail_next("posthog", Fault(503))
    result = await caller.call("posthog-retrieve-task-run", **run_arguments(POSTHOG_RUNNING), within=2)
    assert result.value["status"] == "in_progress"


async def test_posthog_log_of_a_run_that_ended_with_an_open_request_does_not_mention_it(
    environment: dict[str, str], caller: Caller
) -> None:
    await outside(environment, "PATCH", f"{POSTHOG_RUNS}/{POSTHOG_RUNNING}/", {"status": "failed"})
    result = await caller.call("posthog-get-task-run-logs", **run_arguments(POSTHOG_RUNNING), within=4)
    assert not [note for note in result.notes if "waits for" in note]


async def test_posthog_get_of_a_run_that_was_not_started_names_what_starts_it(caller: Caller) -> None:
    result = await caller.call("posthog-retrieve-task-run", **run_arguments(POSTHOG_NOT_STARTED))
    assert result.notes[0] == f"Run {POSTHOG_NOT_STARTED}: not started (not_started)."
    assert [note for note in result.notes if "posthog-start-task-run" in note]
