"""Inngest's three operations, where the provider differs from its capability file.

Literals are from Inngest's open-source server (inngest/inngest pkg/api/apiv1: apiv1.go, cache.go; pkg/enums) and its
responses.
"""

import json
from typing import Any

import pytest

from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.calls import (
    INNGEST_CANCELLED,
    INNGEST_COMPLETED,
    INNGEST_FAILED,
    INNGEST_FRESH,
    INNGEST_RUNNING,
    INNGEST_RUNS,
    Arguments,
    sent,
)
from tests.clock import pass_time
from tests.providers.driver import Caller, SentRequest, connected, sent_requests, server_requests

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

# The bearer token is the signing key. The response to any Accept header is JSON
HEADERS = {"accept": "application/json, */*;q=0.5", "authorization": "Bearer signkey-test-simulated"}
ERROR_BODY = "the provider returned HTTP 200 with an error body"
UNKNOWN = "01HE0000000000000000000000"
TERMINAL = [
    (INNGEST_COMPLETED, "succeeded", "Completed"),
    (INNGEST_FAILED, "failed", "Failed"),
    (INNGEST_CANCELLED, "canceled", "Cancelled"),
]


def cached_error(status: int, message: str) -> Fault:
    """Return an error as cache.go sends it: the cache drops the status code, so every GET is a 200."""
    body = {"error": message, "data": None, "status": status}
    return Fault(200, {"Content-Type": "application/json"}, json.dumps(body))


# get-function-run-status


@pytest.mark.parametrize(("run_id", "status", "native_status"), TERMINAL)
async def test_inngest_get_run_returns_output_and_status_of_a_terminal_run(
    run_id: str, status: str, native_status: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call("inngest-get-function-run-status", runId=run_id)
    assert sent_requests(simulator) == [SentRequest("GET", f"{INNGEST_RUNS}/{run_id}", HEADERS)]
    run = result.value["data"]
    assert (run["run_id"], run["status"], "output" in run) == (run_id, native_status, True)
    assert result.notes == [f"Run {run_id}: {status} ({native_status})."]
    assert result.structured_content == result.value


async def test_inngest_get_run_has_no_output_while_running(caller: Caller) -> None:
    result = await caller.call("inngest-get-function-run-status", runId=INNGEST_RUNNING)
    assert "output" not in result.value["data"]
    assert result.notes == [f"Run {INNGEST_RUNNING}: running (Running)."]


async def test_inngest_200_with_error_for_an_unknown_run_is_not_found(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call("inngest-get-function-run-status", runId=UNKNOWN)
    assert result.error == {
        "kind": "not_found",
        "status": 500,
        "message": f'{ERROR_BODY} (status 500): "Unable to load function run: {UNKNOWN}"',
        "retryable": False,
        "hint": "Inngest has no such run in this environment. Check the id, and that the key is of the run's "
        "environment. An event id, which sending an event returns, is not a run id: GET /v1/events/EVENT_ID/runs lists "
        "its runs.",
    }
    # A real 500 would be retried
    assert len(server_requests(simulator)) == 1


async def test_inngest_invalid_run_id_is_a_validation_error(caller: Caller) -> None:
    result = await caller.call("inngest-get-function-run-status", runId="nope")
    assert (result.error["kind"], result.error["status"]) == ("validation", 400)
    assert result.error["message"] == f'{ERROR_BODY} (status 400): "Invalid run ID: nope"'
    assert "A run id is a ULID" in result.error["hint"]


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "auth"), (404, "not_found"), (429, "rate_limited"), (500, "unavailable")]
)
async def test_inngest_status_in_the_body_determines_the_error_kind(
    status: int, kind: str, simulator: Simulator, caller: Caller
) -> None:
    for _ in range(4):
        simulator.fail_next("inngest", cached_error(status, "no"))
    result = await caller.call("inngest-get-function-run-status", runId=INNGEST_RUNNING, within=8)
    assert (result.error["kind"], result.error["status"]) == (kind, status)


async def test_inngest_cached_text_response_is_parsed_as_json(simulator: Simulator, caller: Caller) -> None:
    first = await caller.call("inngest-get-function-run-status", runId=INNGEST_COMPLETED)
    again = await caller.call("inngest-get-function-run-status", runId=INNGEST_COMPLETED)
    assert (again.value, again.notes) == (first.value, first.notes)
    assert again.structured_content == first.value
    # A cached response as the real server sends it
    body = '{"data":{"run_id":"01M8","status":"Failed","ended_at":null},"metadata":{"cached_until":"x"}}\n'
    simulator.fail_next("inngest", Fault(200, {"Content-Type": "text/plain; charset=utf-8"}, body))
    result = await caller.call("inngest-get-function-run-status", runId=INNGEST_COMPLETED)
    assert result.value["data"]["status"] == "Failed"
    assert result.notes == ["Run 01M8: failed (Failed)."]


async def test_inngest_error_in_a_cached_text_response_is_an_error(simulator: Simulator, caller: Caller) -> None:
    body = f'{{"error":"Unable to load function run: {UNKNOWN}","data":null,"status":500}}'
    simulator.fail_next("inngest", Fault(200, {"Content-Type": "text/plain; charset=utf-8"}, body))
    result = await caller.call("inngest-get-function-run-status", runId=UNKNOWN)
    assert result.error["kind"] == "not_found"


# cancel-function-run


async def test_inngest_cancel_sends_delete_and_returns_the_status_read_afterwards(
    simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call("inngest-cancel-function-run", runId=INNGEST_RUNNING, within=5)
    run = f"{INNGEST_RUNS}/01JZDEM0RVN000000000000002"
    # The response to DELETE is 200 without content. The first GET is cached for 3 s
    assert sent_requests(simulator) == [
        SentRequest("GET", run, HEADERS),
        SentRequest("DELETE", run, HEADERS),
        SentRequest("GET", run, HEADERS),
    ]
    assert result.value == {
        "provider": "inngest",
        "run_id": INNGEST_RUNNING,
        "cancelled": True,
        "status_before": "running",
        "status": "canceled",
        "native_status": "Cancelled",
        "terminal": True,
        "next": "The run was cancelled.",
    }
    assert result.notes == [f"Run {INNGEST_RUNNING}: canceled (Cancelled)."]


@pytest.mark.parametrize(("run_id", "status", "native_status"), TERMINAL)
async def test_inngest_cancel_of_a_terminal_run_sends_no_delete(
    run_id: str, status: str, native_status: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call("inngest-cancel-function-run", runId=run_id)
    assert (result.value["cancelled"], result.value["status"], result.value["native_status"]) == (
        False,
        status,
        native_status,
    )
    assert result.value["next"].count(": nothing was cancelled.")
    assert sent(simulator) == [f"GET {INNGEST_RUNS}/{run_id}"]


async def test_inngest_cancel_of_an_unknown_run_sends_no_delete(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call("inngest-cancel-function-run", runId=UNKNOWN)
    assert result.error["kind"] == "not_found"
    assert sent(simulator) == [f"GET {INNGEST_RUNS}/{UNKNOWN}"]


async def test_inngest_cancel_is_annotated_destructive_and_idempotent(caller: Caller) -> None:
    hints = await caller.annotations("inngest-cancel-function-run")
    assert (hints["readOnlyHint"], hints["destructiveHint"], hints["idempotentHint"]) == (False, True, True)


# list-jobs-steps-run


async def test_inngest_list_jobs_returns_queued_jobs(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call("inngest-list-jobs-steps-run", runId=INNGEST_RUNNING)
    assert sent_requests(simulator) == [SentRequest("GET", f"{INNGEST_RUNS}/01JZDEM0RVN000000000000002/jobs", HEADERS)]
    (job,) = result.value["data"]
    assert (job["kind"], job["position"], job["attempt"], job["leased"]) == ("sleep", 0, 0, False)
    assert "Raw" not in job
    assert result.notes == []


@pytest.mark.parametrize("run_id", [INNGEST_COMPLETED, INNGEST_FAILED, INNGEST_CANCELLED])
async def test_inngest_empty_job_list_has_an_explanation(run_id: str, caller: Caller) -> None:
    result = await caller.call("inngest-list-jobs-steps-run", runId=run_id)
    assert result.value["data"] == []
    assert result.notes == [
        "The queue has nothing for this run, as for every run that has ended. This is not a history of steps."
    ]
    again = await caller.call("inngest-list-jobs-steps-run", runId=run_id)
    assert again.notes == result.notes


async def test_inngest_job_of_an_executing_step_is_leased(caller: Caller) -> None:
    await caller.call("inngest-list-jobs-steps-run", runId=INNGEST_FRESH)  # which starts it
    await pass_time(5.1)  # responses are cached for 5 s; a step executes from 4 s to 5 s, and from 8 s to 9 s
    await pass_time(3.4)
    result = await caller.call("inngest-list-jobs-steps-run", runId=INNGEST_FRESH)
    assert [(job["kind"], job["leased"]) for job in result.value["data"]] == [("edge", True), ("sleep", False)]


async def test_inngest_list_jobs_of_an_unknown_run_is_not_found(caller: Caller) -> None:
    result = await caller.call("inngest-list-jobs-steps-run", runId=UNKNOWN)
    assert result.error["kind"] == "not_found"


# All operations

TOOLS = ["inngest-get-function-run-status", "inngest-cancel-function-run", "inngest-list-jobs-steps-run"]


@pytest.mark.parametrize("tool", TOOLS)
async def test_inngest_missing_run_id_is_rejected_before_sending(
    tool: str, simulator: Simulator, caller: Caller
) -> None:
    invalid: tuple[Arguments, ...] = ({}, {"runId": ""})
    for arguments in invalid:
        result = await caller.call(tool, **arguments)
        assert (result.error["kind"], result.error["message"].partition(":")[0]) == ("validation", "runId")
    assert server_requests(simulator) == []


@pytest.mark.parametrize("tool", TOOLS)
async def test_inngest_missing_key_error_names_the_variable(
    tool: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, INNGEST_SIGNING_KEY=None) as caller:
        result = await caller.call(tool, runId=INNGEST_RUNNING)
    assert result.error["kind"] == "auth"
    assert result.error["hint"].startswith("Set INNGEST_SIGNING_KEY or INNGEST_API_KEY in the server's environment")
    assert server_requests(simulator) == []


# pkg/authn/signing_key_strategy.go: API keys are valid for v2 only
@pytest.mark.parametrize("key", ["signkey-prod-wrong", "sk-inn-api-0123456789"])
@pytest.mark.parametrize("tool", TOOLS)
async def test_inngest_invalid_key_error_explains_the_key_type(
    tool: str, key: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, INNGEST_SIGNING_KEY=key) as caller:
        result = await caller.call(tool, runId=INNGEST_RUNNING)
    assert (result.error["kind"], result.error["status"], result.error["retryable"]) == ("auth", 401, False)
    assert result.error["message"] == 'the provider returned 401: "Authentication failed"'
    assert "INNGEST_SIGNING_KEY" in result.error["hint"]
    assert "the environment's signing key (signkey-...), not an API key" in result.error["hint"]
    assert key not in result.all_text
    assert len(server_requests(simulator)) == 1


async def test_inngest_key_from_the_variable_of_the_capability_file_is_used(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, INNGEST_SIGNING_KEY=None, INNGEST_API_KEY="signkey-prod-1") as caller:
        await caller.call("inngest-get-function-run-status", runId=INNGEST_FRESH)
    assert sent_requests(simulator)[0].headers["authorization"] == "Bearer signkey-prod-1"


@pytest.mark.parametrize(
    ("variables", "arguments", "name"),
    [
        ({"INNGEST_ENV": "pr-7"}, {}, "pr-7"),
        ({}, {"X-Inngest-Env": "pr-8"}, "pr-8"),
        ({"INNGEST_ENV": "pr-7"}, {"X-Inngest-Env": "pr-8"}, "pr-8"),
    ],
    ids=["variable", "argument", "both"],
)
async def test_inngest_branch_environment_comes_from_the_variable_or_the_argument(
    variables: dict[str, str],
    arguments: dict[str, Any],
    name: str,
    simulator: Simulator,
    environment: dict[str, str],
) -> None:
    async with connected(environment, **variables) as caller:
        await caller.call("inngest-get-function-run-status", runId=INNGEST_FRESH, **arguments)
    assert sent_requests(simulator)[0].headers == {**HEADERS, "x-inngest-env": name}


# Results that v1 has lost: seen at Inngest's server with npm inngest 4, whose apps checkpoint their steps by default

CHECKPOINTED = "01JZDEM0RVN000000000000006"


@pytest.mark.parametrize("key", ["signkey-test-simulated", "sk-inn-api-simulated"])
async def test_inngest_lost_output_is_read_from_v2(key: str, simulator: Simulator, environment: dict[str, str]) -> None:
    async with connected(environment, INNGEST_API_KEY=key) as caller:
        got = await caller.call("inngest-get-function-run-status", runId=CHECKPOINTED)
        waited = await caller.call("inngest-wait-for-run", runId=CHECKPOINTED)
    assert (got.value["data"]["output"], waited.value["result"]) == (42, 42)
    path = f"/inngest/v2/runs/{CHECKPOINTED}?includeOutput=true"
    second = server_requests(simulator)[1]
    assert (second.path, dict(second.headers)["authorization"]) == (path, f"Bearer {key}")
    assert not [note for note in got.notes if "lost" in note]


async def test_inngest_lost_output_that_v2_refuses_is_reported(environment: dict[str, str]) -> None:
    async with connected(environment, INNGEST_API_KEY="sk-inn-api-wrong") as caller:
        got = await caller.call("inngest-get-function-run-status", runId=CHECKPOINTED)
        waited = await caller.call("inngest-wait-for-run", runId=CHECKPOINTED)
    assert got.value["data"]["output"] == ""
    assert [note for note in got.notes if note.startswith("The output may be lost")]
    assert (waited.value["status"], waited.value["result"]) == ("succeeded", "")
    assert "The output may be lost" in waited.value["next"]


async def test_inngest_output_that_is_not_lost_is_not_read_again(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call("inngest-get-function-run-status", runId=INNGEST_COMPLETED)
    assert result.value["data"]["output"] == {"input": {"n": 1, "who": "quick"}, "sum": 42}
    assert len(server_requests(simulator)) == 1


async def test_inngest_dev_server_needs_no_key_and_has_the_output(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.inngest.is_dev = True
    url = environment["INNGEST_BASE_URL"]
    async with connected(environment, INNGEST_BASE_URL=None, INNGEST_SIGNING_KEY=None, INNGEST_DEV=url) as caller:
        result = await caller.call("inngest-get-function-run-status", runId=CHECKPOINTED)
    assert result.value["data"]["output"] == 42
    assert "authorization" not in dict(server_requests(simulator)[0].headers)


async def test_inngest_id_of_an_event_is_explained(caller: Caller) -> None:
    result = await caller.call("inngest-get-function-run-status", runId=INNGEST_COMPLETED.replace("RVN", "EVT"))
    assert result.error["kind"] == "not_found"
    assert "GET /v1/events/EVENT_ID/runs lists its runs" in result.error["hint"]
