"""PostHog's operations on a run's agent: where the capability file and the provider differ, the client is told so.

Literals are from PostHog's source (products/tasks/backend: api.py, serializers.py).
"""

from typing import Any

import pytest

from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.calls import POSTHOG_COMPLETED, POSTHOG_NOT_STARTED, POSTHOG_RUNNING, TASK, Arguments, outside
from tests.providers.driver import (
    POSTHOG_READING,
    POSTHOG_WRITING,
    Caller,
    Sent,
    Told,
    connected,
    methods,
    on,
    path_on,
    requests,
    wire,
)

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

COMMAND, TOKEN, RELAY = (
    "posthog-send-command-agent-server",
    "posthog-get-sandbox-connection-token",
    "posthog-relay-run-message-slack",
)


# P11 send-command-agent-server: "client timeout; 400"


async def command(caller: Caller, run_id: str, method: str, within: float = 0.5, **params: Any) -> Told:
    body = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
    return await caller.call(COMMAND, **on(run_id, body=body), within=within)


async def test_p11_a_message_is_queued_and_told_so(simulator: Simulator, caller: Caller) -> None:
    told = await command(caller, POSTHOG_RUNNING, "user_message", content="go on")
    said = {"jsonrpc": "2.0", "method": "user_message", "params": {"content": "go on"}, "id": 1}
    assert wire(simulator) == [Sent("POST", path_on(POSTHOG_RUNNING, "command/"), POSTHOG_WRITING, said)]
    assert told.value == {"jsonrpc": "2.0", "result": {"queued": True}, "id": 1}


async def test_p11_the_agents_own_answer_is_passed_on(caller: Caller) -> None:
    told = await command(caller, POSTHOG_RUNNING, "permission_response", requestId="perm-1", optionId="allow")
    assert told.value["result"] == {"resolved": True}


# An agent that cannot be reached: PATCH of the state by whoever may write it
@pytest.mark.parametrize(
    ("host", "status", "kind", "says", "hint"),
    [
        ("unreachable", 502, "unavailable", "Agent server is not reachable", "Look with posthog-retrieve-task-run"),
        ("slow", 504, "timeout", "Agent server request timed out", "posthog-get-filtered-task-run-session"),
        ("refusing", 502, "unavailable", "Agent server rejected the command", "may have been carried out"),
    ],
)
async def test_p11_an_agent_that_does_not_answer_is_told_and_not_asked_twice(
    host: str,
    status: int,
    kind: str,
    says: str,
    hint: str,
    simulator: Simulator,
    environment: dict[str, str],
    caller: Caller,
) -> None:
    state = {"sandbox_url": f"https://{host}.modal.host"}
    await outside(environment, "PATCH", path_on(POSTHOG_RUNNING), {"state": state})
    told = await command(caller, POSTHOG_RUNNING, "set_config_option", configId="model", value="x")
    assert (told.error["kind"], told.error["status"]) == (kind, status)
    assert told.error["message"] == f"the provider answered {status}: {says}"
    assert hint in told.error["hint"]
    assert methods(simulator) == ["POST"]


async def test_p11_a_command_that_timed_out_is_not_to_be_repeated(environment: dict[str, str], caller: Caller) -> None:
    state = {"sandbox_url": "https://slow.modal.host"}
    await outside(environment, "PATCH", path_on(POSTHOG_RUNNING), {"state": state})
    told = await command(caller, POSTHOG_RUNNING, "set_config_option", configId="model", value="x")
    assert told.error["retryable"] is False


@pytest.mark.parametrize("method", ["close", "cancel"])
async def test_p11_without_a_sandbox_the_hint_says_how_to_get_one(method: str, caller: Caller) -> None:
    told = await command(caller, POSTHOG_NOT_STARTED, method)
    assert (told.error["kind"], told.error["status"]) == ("conflict", 400)
    assert told.error["message"] == "the provider answered 400: No active sandbox for this task run"
    assert "posthog-start-task-run" in told.error["hint"]
    assert "posthog-resume-task-run-cloud" in told.error["hint"]


async def test_p11_an_agent_is_given_longer_than_other_requests_and_the_client_hears_meanwhile(
    simulator: Simulator, caller: Caller
) -> None:
    # api.py (command): the agent has 600 s
    simulator.fail_next("posthog", Fault(delay=90))
    told = await command(caller, POSTHOG_RUNNING, "set_config_option", within=95, configId="model", value="x")
    assert told.value["result"] == {"configOptions": []}
    assert len(told.progress) >= 9


async def test_p11_an_agent_is_cancelled_by_command(simulator: Simulator, caller: Caller) -> None:
    told = await command(caller, POSTHOG_RUNNING, "cancel")
    assert (told.value["cancelled"], told.value["status_before"], told.value["status"]) == (True, "running", "canceled")
    assert methods(simulator) == ["GET", "POST", "GET"]
    again = await command(caller, POSTHOG_RUNNING, "cancel")
    assert (again.value["cancelled"], again.value["status"]) == (False, "canceled")
    assert methods(simulator).count("POST") == 1


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"method": "close"}, "body.jsonrpc: is required"),
        ({"jsonrpc": "2.0"}, "body.method: is required"),
        ({"jsonrpc": "2.0", "method": "stop"}, "body.method: must be one of user_message, cancel, close"),
    ],
    ids=["no version", "no method", "unknown"],
)
async def test_p11_a_command_that_is_none_is_not_sent(
    body: Any, problem: str, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call(COMMAND, **on(POSTHOG_RUNNING, body=body))
    assert told.error["message"].startswith(problem)
    assert requests(simulator) == []


async def test_p11_params_that_posthog_refuses_are_named(caller: Caller) -> None:
    told = await command(caller, POSTHOG_RUNNING, "permission_response", requestId="perm-1")
    assert (told.error["kind"], told.error["status"]) == ("validation", 400)
    assert "params: optionId is required" in told.error["message"]


async def test_p11_commanding_is_listed_as_destructive(caller: Caller) -> None:
    hints = await caller.annotations(COMMAND)
    assert (hints["readOnlyHint"], hints["destructiveHint"], hints["idempotentHint"]) == (False, True, False)


# P12 get-sandbox-connection-token: "403 with a read key; credential in model context"


async def test_p12_a_token_is_not_shown(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call(TOKEN, **on(POSTHOG_RUNNING))
    assert wire(simulator) == [Sent("GET", path_on(POSTHOG_RUNNING, "connection_token/"), POSTHOG_READING)]
    assert told.value == {"token": "[redacted]"}
    assert told.notes == ["Redacted: token. The server shows such secrets with --reveal-secrets."]
    # How a JWT begins
    assert "eyJ" not in told.everything


async def test_p12_a_token_is_shown_where_the_operator_wants_that(environment: dict[str, str]) -> None:
    async with connected(environment, MCP_TASKRUNS_REVEAL_SECRETS="1") as caller:
        told = await caller.call(TOKEN, **on(POSTHOG_RUNNING))
    assert told.value["token"].startswith("eyJ")
    assert told.notes == []


async def test_p12_each_token_is_made_once(simulator: Simulator, caller: Caller) -> None:
    simulator.fail_next("posthog", Fault(503, body="busy"))
    told = await caller.call(TOKEN, **on(POSTHOG_RUNNING))
    assert told.error["kind"] == "unavailable"
    assert len(requests(simulator)) == 1
    hints = await caller.annotations(TOKEN)
    assert (hints["readOnlyHint"], hints["idempotentHint"]) == (False, False)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        (TOKEN, on(POSTHOG_RUNNING)),
        ("posthog-create-task-run", {"task_id": TASK, "body": {}}),
        ("posthog-start-task-run", on(POSTHOG_NOT_STARTED)),
        ("posthog-update-task-run", on(POSTHOG_RUNNING, body={"stage": "x"})),
        (RELAY, on(POSTHOG_RUNNING, body={"text": "hi"})),
    ],
)
async def test_p12_a_key_that_may_only_read_is_told_which_scope_it_lacks(
    tool: str, arguments: Arguments, environment: dict[str, str]
) -> None:
    async with connected(environment, POSTHOG_API_KEY="phx_readonly") as caller:
        assert (await caller.call("posthog-retrieve-task-run", **on(POSTHOG_RUNNING))).value["id"] == POSTHOG_RUNNING
        told = await caller.call(tool, **arguments)
    assert told.error == {
        "kind": "auth",
        "status": 403,
        "message": "the provider answered 403: API key missing required scope 'task:write'",
        "retryable": False,
        "hint": "Give the personal API key in POSTHOG_API_KEY the scope task:write.",
    }


# P14 relay-run-message-slack: "`skipped` is 200: looks like success"


async def test_p14_a_text_is_posted_and_told_so(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call(RELAY, **on(POSTHOG_RUNNING, body={"text": "hi"}))
    assert wire(simulator) == [
        Sent("POST", path_on(POSTHOG_RUNNING, "relay_message/"), POSTHOG_WRITING, {"text": "hi"})
    ]
    assert told.value["status"] == "accepted"
    assert told.notes == []


@pytest.mark.parametrize(
    ("run_id", "text"),
    [(POSTHOG_COMPLETED, "hi"), (POSTHOG_NOT_STARTED, "hi"), (POSTHOG_RUNNING, " \n")],
    ids=["ended", "no thread", "blank"],
)
async def test_p14_a_text_that_was_skipped_is_told_not_to_be_posted(run_id: str, text: str, caller: Caller) -> None:
    told = await caller.call(RELAY, **on(run_id, body={"text": text}))
    assert told.value == {"status": "skipped"}
    assert told.notes == ["NOT posted: the run has ended, has no Slack thread, or the text is blank."]


@pytest.mark.parametrize(
    ("body", "problem"),
    [({}, "body.text: is required"), ({"text": ""}, "body.text: "), ({"text": "x" * 10_001}, "body.text: is too long")],
    ids=["none", "empty", "too long"],
)
async def test_p14_a_text_that_posthog_does_not_take_is_not_sent(
    body: Any, problem: str, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call(RELAY, **on(POSTHOG_RUNNING, body=body))
    assert told.error["message"].startswith(problem)
    assert requests(simulator) == []


async def test_p14_a_text_that_could_not_be_queued_is_not_sent_again(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, POSTHOG_API_KEY="phx_outage") as caller:
        told = await caller.call(RELAY, **on(POSTHOG_RUNNING, body={"text": "hi"}))
    assert (told.error["kind"], told.error["status"], told.error["retryable"]) == ("unavailable", 503, True)
    assert told.error["message"] == "the provider answered 503: Failed to queue Slack relay"
    # What stands in public cannot be taken back
    assert len(requests(simulator)) == 1
