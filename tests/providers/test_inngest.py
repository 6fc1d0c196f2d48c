"""Inngest's three operations: where the capability file and the provider differ, the client gets what the provider has.

Literals are from Inngest's open-source server (inngest/inngest pkg/api/apiv1: apiv1.go, cache.go; pkg/enums) and the
answers that it gives.
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
from tests.providers.driver import Caller, Sent, connected, requests, wire

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

# The bearer is the signing key of the environment, and any Accept is answered with JSON
SENT = {"accept": "application/json, */*;q=0.5", "authorization": "Bearer signkey-test-simulated"}
UNKNOWN = "01HE0000000000000000000000"
ENDED = [
    (INNGEST_COMPLETED, "succeeded", "Completed"),
    (INNGEST_FAILED, "failed", "Failed"),
    (INNGEST_CANCELLED, "canceled", "Cancelled"),
]


def refused(status: int, message: str) -> Fault:
    """cache.go keeps the body of a refusal and loses its code: every GET is answered 200."""
    said = {"error": message, "data": None, "status": status}
    return Fault(200, {"Content-Type": "application/json"}, json.dumps(said))


# I1 get-function-run-status: "unknown run = HTTP 200 with {error, data: null, status: 500} -> reported as success"


@pytest.mark.parametrize(("run_id", "state", "status"), ENDED)
async def test_i1_a_run_is_told_with_its_output_also_when_that_is_an_error(
    run_id: str, state: str, status: str, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call("inngest-get-function-run-status", runId=run_id)
    assert wire(simulator) == [Sent("GET", f"{INNGEST_RUNS}/{run_id}", SENT)]
    run = told.value["data"]
    assert (run["run_id"], run["status"], "output" in run) == (run_id, status, True)
    assert told.notes == [f"Run {run_id}: {state} ({status})."]
    assert told.result.structured_content == told.value


async def test_i1_a_run_that_goes_on_has_no_output(caller: Caller) -> None:
    told = await caller.call("inngest-get-function-run-status", runId=INNGEST_RUNNING)
    assert "output" not in told.value["data"]
    assert told.notes == [f"Run {INNGEST_RUNNING}: running (Running)."]


async def test_i1_an_unknown_run_that_is_answered_with_200_is_not_found(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call("inngest-get-function-run-status", runId=UNKNOWN)
    assert told.error == {
        "kind": "not_found",
        "status": 500,
        "message": f"the provider answered 500: Unable to load function run: {UNKNOWN}",
        "retryable": False,
        "hint": "Inngest has no such run in this environment. Check the id, and that the key is of the run's "
        "environment.",
    }
    # What is said with 500 would be worth another try
    assert len(requests(simulator)) == 1


async def test_i1_an_id_that_is_no_ulid_is_a_mistake_of_the_call(caller: Caller) -> None:
    told = await caller.call("inngest-get-function-run-status", runId="nope")
    assert (told.error["kind"], told.error["status"]) == ("validation", 400)
    assert told.error["message"] == "the provider answered 400: Invalid run ID: nope"
    assert "A run id is a ULID" in told.error["hint"]


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "auth"), (404, "not_found"), (429, "rate_limited"), (500, "unavailable")]
)
async def test_i1_the_status_in_the_body_decides_what_an_error_means(
    status: int, kind: str, simulator: Simulator, caller: Caller
) -> None:
    for _ in range(4):
        simulator.fail_next("inngest", refused(status, "no"))
    told = await caller.call("inngest-get-function-run-status", runId=INNGEST_RUNNING, within=8)
    assert (told.error["kind"], told.error["status"]) == (kind, status)


async def test_i1_a_cached_answer_is_json_although_it_is_called_text(simulator: Simulator, caller: Caller) -> None:
    first = await caller.call("inngest-get-function-run-status", runId=INNGEST_COMPLETED)
    again = await caller.call("inngest-get-function-run-status", runId=INNGEST_COMPLETED)
    assert (again.value, again.notes) == (first.value, first.notes)
    assert again.result.structured_content == first.value
    # A cache hit as the server sends it, should the simulator ever stop doing so
    said = '{"data":{"run_id":"01M8","status":"Failed","ended_at":null},"metadata":{"cached_until":"x"}}\n'
    simulator.fail_next("inngest", Fault(200, {"Content-Type": "text/plain; charset=utf-8"}, said))
    told = await caller.call("inngest-get-function-run-status", runId=INNGEST_COMPLETED)
    assert told.value["data"]["status"] == "Failed"
    assert told.notes == ["Run 01M8: failed (Failed)."]


async def test_i1_an_error_is_one_also_in_a_cached_answer(simulator: Simulator, caller: Caller) -> None:
    said = f'{{"error":"Unable to load function run: {UNKNOWN}","data":null,"status":500}}'
    simulator.fail_next("inngest", Fault(200, {"Content-Type": "text/plain; charset=utf-8"}, said))
    told = await caller.call("inngest-get-function-run-status", runId=UNKNOWN)
    assert told.error["kind"] == "not_found"


# I2 cancel-function-run: "404 `404 page not found` (text/plain); nothing cancelled"


async def test_i2_a_run_is_cancelled_by_delete_and_told_as_what_it_is_afterwards(
    simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call("inngest-cancel-function-run", runId=INNGEST_RUNNING, within=5)
    run = f"{INNGEST_RUNS}/01JZDEM0RVN000000000000002"
    # Answered 200 without content. The reading before is cached for 3 s
    assert wire(simulator) == [Sent("GET", run, SENT), Sent("DELETE", run, SENT), Sent("GET", run, SENT)]
    assert told.value == {
        "provider": "inngest",
        "run_id": INNGEST_RUNNING,
        "cancelled": True,
        "status_before": "running",
        "status": "canceled",
        "native_status": "Cancelled",
        "terminal": True,
        "next": "The run was cancelled.",
    }
    assert told.notes == [f"Run {INNGEST_RUNNING}: canceled (Cancelled)."]


@pytest.mark.parametrize(("run_id", "state", "status"), ENDED)
async def test_i2_a_run_that_has_ended_is_told_so_and_left_alone(
    run_id: str, state: str, status: str, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call("inngest-cancel-function-run", runId=run_id)
    assert (told.value["cancelled"], told.value["status"], told.value["native_status"]) == (False, state, status)
    assert told.value["next"].endswith("nothing was cancelled.")
    assert sent(simulator) == [f"GET {INNGEST_RUNS}/{run_id}"]


async def test_i2_an_unknown_run_is_not_cancelled(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call("inngest-cancel-function-run", runId=UNKNOWN)
    assert told.error["kind"] == "not_found"
    assert sent(simulator) == [f"GET {INNGEST_RUNS}/{UNKNOWN}"]


async def test_i2_cancelling_is_listed_as_destructive_and_safe_to_repeat(caller: Caller) -> None:
    hints = await caller.annotations("inngest-cancel-function-run")
    assert (hints["readOnlyHint"], hints["destructiveHint"], hints["idempotentHint"]) == (False, True, True)


# I3 list-jobs-steps-run: "200 with [] for every finished run; wrong expectation"


async def test_i3_what_waits_in_the_queue_is_listed(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call("inngest-list-jobs-steps-run", runId=INNGEST_RUNNING)
    assert wire(simulator) == [Sent("GET", f"{INNGEST_RUNS}/01JZDEM0RVN000000000000002/jobs", SENT)]
    (job,) = told.value["data"]
    assert (job["kind"], job["position"], job["attempt"]) == ("sleep", 0, 0)
    assert told.notes == []


@pytest.mark.parametrize("run_id", [INNGEST_COMPLETED, INNGEST_FAILED, INNGEST_CANCELLED])
async def test_i3_an_empty_queue_is_told_to_be_no_history_of_steps(run_id: str, caller: Caller) -> None:
    told = await caller.call("inngest-list-jobs-steps-run", runId=run_id)
    assert told.value["data"] == []
    assert told.notes == [
        "Nothing waits in the queue for this run: it has ended, or a step is executing. This is no history of steps."
    ]
    again = await caller.call("inngest-list-jobs-steps-run", runId=run_id)
    assert again.notes == told.notes


async def test_i3_an_unknown_run_has_no_queue(caller: Caller) -> None:
    told = await caller.call("inngest-list-jobs-steps-run", runId=UNKNOWN)
    assert told.error["kind"] == "not_found"


# All three

EACH = ["inngest-get-function-run-status", "inngest-cancel-function-run", "inngest-list-jobs-steps-run"]


@pytest.mark.parametrize("tool", EACH)
async def test_without_an_id_nothing_is_sent(tool: str, simulator: Simulator, caller: Caller) -> None:
    given: tuple[Arguments, ...] = ({}, {"runId": ""})
    for arguments in given:
        told = await caller.call(tool, **arguments)
        assert (told.error["kind"], told.error["message"].partition(":")[0]) == ("validation", "runId")
    assert requests(simulator) == []


@pytest.mark.parametrize("tool", EACH)
async def test_without_a_key_the_variable_to_set_is_told(
    tool: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, INNGEST_SIGNING_KEY=None) as caller:
        told = await caller.call(tool, runId=INNGEST_RUNNING)
    assert told.error["kind"] == "auth"
    assert told.error["hint"].startswith("Set INNGEST_SIGNING_KEY or INNGEST_API_KEY in the server's environment")
    assert requests(simulator) == []


# pkg/authn/signing_key_strategy.go: API keys are for v2
@pytest.mark.parametrize("key", ["signkey-prod-wrong", "sk-inn-api-0123456789"])
@pytest.mark.parametrize("tool", EACH)
async def test_a_key_that_v1_refuses_in_text_is_told_with_what_it_takes(
    tool: str, key: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, INNGEST_SIGNING_KEY=key) as caller:
        told = await caller.call(tool, runId=INNGEST_RUNNING)
    assert (told.error["kind"], told.error["status"], told.error["retryable"]) == ("auth", 401, False)
    assert told.error["message"] == "the provider answered 401: Authentication failed"
    assert "INNGEST_SIGNING_KEY" in told.error["hint"]
    assert "the environment's signing key (signkey-...), no API key" in told.error["hint"]
    assert key not in told.everything
    assert len(requests(simulator)) == 1


async def test_a_signing_key_under_the_files_own_name_is_taken(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, INNGEST_SIGNING_KEY=None, INNGEST_API_KEY="signkey-prod-1") as caller:
        await caller.call("inngest-get-function-run-status", runId=INNGEST_FRESH)
    assert wire(simulator)[0].headers["authorization"] == "Bearer signkey-prod-1"


@pytest.mark.parametrize(
    ("variables", "arguments", "name"),
    [
        ({"INNGEST_ENV": "pr-7"}, {}, "pr-7"),
        ({}, {"X-Inngest-Env": "pr-8"}, "pr-8"),
        ({"INNGEST_ENV": "pr-7"}, {"X-Inngest-Env": "pr-8"}, "pr-8"),
    ],
    ids=["variable", "argument", "both"],
)
async def test_a_branch_environment_is_named_by_the_server_or_the_call(
    variables: dict[str, str],
    arguments: dict[str, Any],
    name: str,
    simulator: Simulator,
    environment: dict[str, str],
) -> None:
    async with connected(environment, **variables) as caller:
        await caller.call("inngest-get-function-run-status", runId=INNGEST_FRESH, **arguments)
    assert wire(simulator)[0].headers == {**SENT, "x-inngest-env": name}
