"""Prefect: flow runs from their start to their end. Responses are those of a Prefect 3.9.1 server."""

from typing import Any
from uuid import UUID

import pytest

from tests.more.prefect import ERROR, FAIL, LOG, OK, PAUSE, Prefect
from tests.more.provider import connected
from tests.providers.driver import Caller

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]


async def start(caller: Caller, deployment: str, **arguments: Any) -> str:
    """Start a run of a deployment and return its id."""
    started = await caller.call("prefect-create-flow-run", deployment_id=deployment, **arguments)
    return str(started.value["id"])


async def test_start_waits_with_progress_until_the_run_has_succeeded() -> None:
    async with connected(Prefect()) as (prefect, caller):
        result = await caller.call(
            "prefect-create-flow-run", deployment_id=OK, parameters={"x": 5}, wait_seconds=30, within=30
        )
        (run_id,) = prefect.runs
        assert (result.value["run_id"], result.value["status"]) == (run_id, "succeeded")
        assert result.progress == [
            f"started {run_id}: queued, Scheduled",
            f"{run_id}: queued, Pending",
            f"{run_id}: running, Running",
            f"{run_id}: succeeded, Completed",
        ]
        key = result.value["idempotency_key"]
        assert prefect.bodies[0] == {"parameters": {"x": 5}, "idempotency_key": key}


async def test_known_key_is_the_first_run() -> None:
    async with connected(Prefect()) as (prefect, caller):
        ids = {await start(caller, OK, parameters={"x": x}, idempotency_key="order-1") for x in (5, 7)}
        assert ids == set(prefect.runs)


async def test_run_that_is_retried_has_failed_only_at_its_end_and_is_explained() -> None:
    async with connected(Prefect()) as (_, caller):
        run_id = await start(caller, FAIL, parameters={})
        failed = await caller.call("prefect-wait-for-run", flow_run_id=run_id, within=30)
        assert (failed.value["status"], failed.value["error"]) == ("failed", ERROR)
        assert f"{run_id}: queued, AwaitingRetry" in failed.progress
        value = (await caller.call("prefect-explain-run", flow_run_id=run_id)).value
        (step,) = value["steps"]
        assert (step["name"], step["status"], step["error"]) == ("boom-0", "FAILED", ERROR)
        assert [line.partition("Z ")[2] for line in value["logs"]["run"]] == [message for _, message in LOG]
        assert value["next"] == "Fix the cause, then call prefect-retry-run to run it again with the same input."


async def test_retry_runs_a_failed_run_again_and_is_refused_for_another() -> None:
    async with connected(Prefect()) as (prefect, caller):
        failed = await start(caller, FAIL, parameters={})
        await caller.call("prefect-wait-for-run", flow_run_id=failed, within=30)
        result = await caller.call("prefect-retry-run", flow_run_id=failed, wait_seconds=30, within=30)
        assert (result.value["run_id"], result.value["status"], result.value["retry_of"]) == (
            failed,
            "succeeded",
            failed,
        )
        sent = len(prefect.requests)
        error = (await caller.call("prefect-retry-run", flow_run_id=failed)).error
        assert error["kind"] == "conflict"
        assert '"Run is already COMPLETED."' in error["message"]
        active = await start(caller, PAUSE, parameters={})
        assert "has not ended" in (await caller.call("prefect-retry-run", flow_run_id=active)).error["message"]
        assert sum("set_state" in request for request in prefect.requests[sent:]) == 1


@pytest.mark.parametrize(
    ("state", "is_served", "status"),
    [
        ("SCHEDULED/Scheduled", True, "canceled"),  # the response is REJECT
        ("RUNNING/Running", True, "canceled"),
        ("RUNNING/Running", False, "running"),
    ],
)
async def test_cancel_is_judged_by_the_state_of_the_run(state: str, is_served: bool, status: str) -> None:
    async with connected(Prefect()) as (prefect, caller):
        prefect.is_served = is_served
        run_id = await start(caller, OK, parameters={})
        prefect.runs[run_id]["script"][:] = [state]
        result = await caller.call("prefect-cancel-flow-run", flow_run_id=run_id, within=5)
        assert (result.value["cancelled"], result.value["status"]) == (status == "canceled", status)
        assert prefect.requests.count(f"POST /api/flow_runs/{run_id}/set_state") == 1


async def test_cancel_leaves_an_ended_run_unchanged() -> None:
    async with connected(Prefect()) as (prefect, caller):
        run_id = await start(caller, OK, parameters={})
        await caller.call("prefect-wait-for-run", flow_run_id=run_id, within=30)
        result = await caller.call("prefect-cancel-flow-run", flow_run_id=run_id)
        assert (result.value["cancelled"], result.value["status"]) == (False, "succeeded")
        assert not any("set_state" in request for request in prefect.requests)


async def test_paused_run_is_resumed() -> None:
    async with connected(Prefect()) as (_, caller):
        run_id = await start(caller, PAUSE, parameters={})
        waited = await caller.call("prefect-wait-for-run", flow_run_id=run_id, wait_seconds=10, within=11)
        assert (waited.value["status"], waited.value["timed_out"]) == ("paused", True)
        result = await caller.call("prefect-resume-flow-run", flow_run_id=run_id, wait_seconds=30, within=30)
        assert result.value["status"] == "succeeded"


async def test_list_filters_by_state() -> None:
    async with connected(Prefect()) as (prefect, caller):
        run_ids = [await start(caller, OK, parameters={}) for _ in range(2)]
        await caller.call("prefect-wait-for-run", flow_run_id=run_ids[0], within=30)
        filters = {"state": {"type": {"any_": ["COMPLETED"]}}}
        listed = await caller.call("prefect-list-flow-runs", flow_runs=filters)
        assert [run["id"] for run in listed.value] == run_ids[:1]
        assert prefect.bodies[-1]["flow_runs"] == filters


async def test_errors_name_what_to_do() -> None:
    async with connected(Prefect()) as (_, caller):
        unknown = str(UUID(int=7))
        for tool in ("get-flow-run", "wait-for-run", "explain-run", "cancel-flow-run"):
            error = (await caller.call(f"prefect-{tool}", flow_run_id=unknown)).error
            assert error["kind"] == "not_found"
            assert "prefect-list-flow-runs" in error["hint"]
        error = (await caller.call("prefect-create-flow-run", deployment_id=OK, parameters={"x": "abc"})).error
        assert error["kind"] == "validation"
        assert "parameter_openapi_schema" in error["hint"]


class PrefectWithLogin(Prefect):
    """The server with PREFECT_SERVER_API_AUTH_STRING=admin:pass."""

    authorization = "Basic YWRtaW46cGFzcw=="


async def test_user_and_password_are_in_one_variable() -> None:
    async with connected(PrefectWithLogin(), PREFECT_API_AUTH_STRING="admin:pass") as (prefect, caller):
        await start(caller, OK)
        assert len(prefect.runs) == 1


async def test_server_that_requires_a_login_is_an_error_that_names_the_variables() -> None:
    async with connected(PrefectWithLogin()) as (_, caller):
        error = (await caller.call("prefect-create-flow-run", deployment_id=OK)).error
        assert (error["kind"], error["message"]) == ("auth", 'the provider returned 401: "Unauthorized"')
        assert "PREFECT_API_KEY or PREFECT_API_AUTH_STRING" in error["hint"]
