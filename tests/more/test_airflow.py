"""Airflow: DAG runs from their start to their end. Responses are those of an Airflow 3.3.2 server."""

from typing import Any

import pytest

from tests.more.airflow import EXPIRED, PASSWORD, Airflow
from tests.more.provider import connected
from tests.providers.driver import Caller

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]


async def trigger(caller: Caller, dag_id: str, **arguments: Any) -> dict[str, Any]:
    """Start a run and return the arguments that name it."""
    started = await caller.call("airflow-trigger-dag-run", dag_id=dag_id, **arguments)
    return {"dag_id": dag_id, "dag_run_id": started.value["dag_run_id"]}


async def test_start_waits_with_progress_until_the_run_has_succeeded() -> None:
    async with connected(Airflow()) as (airflow, caller):
        result = await caller.call(
            "airflow-trigger-dag-run", dag_id="lab_ok", conf={"k": "v"}, wait_seconds=30, within=30
        )
        ((_, run_id),) = airflow.runs
        value = result.value
        assert (value["run_id"], value["status"], value["native_status"]) == (run_id, "succeeded", "success")
        assert result.progress[0] == f"started {run_id}: queued"
        assert result.progress[-1] == f"{run_id}: succeeded"
        # The id is one of the server's, so that a repeated call starts no second run.
        assert airflow.bodies == [{"logical_date": None, "conf": {"k": "v"}, "dag_run_id": run_id}]


async def test_duplicate_of_a_run_is_that_run() -> None:
    async with connected(Airflow()) as (airflow, caller):
        call: dict[str, Any] = {"dag_id": "lab_ok", "dag_run_id": "own", "wait_seconds": 30}
        for _ in range(2):
            result = await caller.call("airflow-trigger-dag-run", **call, within=30)
            assert (result.value["run_id"], result.value["status"]) == ("own", "succeeded")
        assert [*airflow.runs] == [("lab_ok", "own")]


async def test_failed_run_is_explained_by_the_log_of_the_failed_task() -> None:
    async with connected(Airflow()) as (airflow, caller):
        run = await trigger(caller, "lab_fail")
        failed = await caller.call("airflow-wait-for-run", **run, within=30)
        assert failed.value["status"] == "failed"
        assert failed.value["next"].startswith("The run has failed: call airflow-explain-run to see why, and call ")
        value = (await caller.call("airflow-explain-run", **run)).value
        assert value["steps"] == [{"name": "boom", "status": "failed", "attempts": 2}]
        assert value["logs"] == {
            "boom": [
                "::group::Log",
                "about to fail",
                "Task failed with exception ValueError boom: the input is bad",
            ]
        }
        assert value["next"] == (
            'Fix the cause, then call airflow-retry-run with part "failed" to run it again with the same input.'
        )
        assert airflow.requests[-1].endswith("/taskInstances/boom/logs/2?map_index=-1")


@pytest.mark.parametrize("part", ["whole", "failed"])
async def test_retry_clears_tasks_of_a_run_that_has_ended(part: str) -> None:
    async with connected(Airflow()) as (airflow, caller):
        run = await trigger(caller, "lab_fail")
        await caller.call("airflow-wait-for-run", **run, within=30)
        result = await caller.call("airflow-retry-run", **run, part=part, wait_seconds=30, within=30)
        assert (result.value["run_id"], result.value["status"]) == (run["dag_run_id"], "failed")
        assert airflow.bodies[-1] == {"dry_run": False, "only_failed": part == "failed"}


async def test_retry_of_the_failed_part_of_a_run_that_succeeded_is_refused() -> None:
    async with connected(Airflow()) as (_, caller):
        run = await trigger(caller, "lab_ok")
        await caller.call("airflow-wait-for-run", **run, within=30)
        error = (await caller.call("airflow-retry-run", **run, part="failed")).error
        assert (error["kind"], error["hint"]) == ("conflict", "Nothing was started.")


async def test_cancelled_run_is_failed_and_an_ended_one_is_not_overwritten() -> None:
    async with connected(Airflow()) as (airflow, caller):
        run = await trigger(caller, "lab_slow")
        result = await caller.call("airflow-cancel-dag-run", **run)
        assert (result.value["cancelled"], result.value["status"]) == (True, "failed")
        ended = await trigger(caller, "lab_ok")
        await caller.call("airflow-wait-for-run", **ended, within=30)
        result = await caller.call("airflow-cancel-dag-run", **ended)
        assert (result.value["cancelled"], result.value["status"]) == (False, "succeeded")
        assert sum(request.startswith("PATCH") for request in airflow.requests) == 1


async def test_run_of_a_paused_dag_stays_queued_with_a_hint() -> None:
    async with connected(Airflow()) as (airflow, caller):
        airflow.paused.add("lab_slow")
        run = await trigger(caller, "lab_slow")
        result = await caller.call("airflow-get-dag-run", **run)
        assert any("airflow-set-dag-paused" in note for note in result.notes)


async def test_list_filters_by_state_and_is_paged() -> None:
    async with connected(Airflow()) as (airflow, caller):
        runs = [await trigger(caller, "lab_ok", dag_run_id=f"own-{number}") for number in range(3)]
        await caller.call("airflow-cancel-dag-run", **runs[0])
        listed = await caller.call("airflow-list-dag-runs", dag_id="~", state=["queued"], limit=1)
        assert [run["dag_run_id"] for run in listed.value["dag_runs"]] == ["own-1"]
        assert any("offset" in note for note in listed.notes)
        assert airflow.requests[-1] == "GET /api/v2/dags/~/dagRuns?state=queued&limit=1"


async def test_errors_name_what_to_do() -> None:
    async with connected(Airflow()) as (_, caller):
        for tool in ("get-dag-run", "wait-for-run", "explain-run", "cancel-dag-run"):
            error = (await caller.call(f"airflow-{tool}", dag_id="lab_ok", dag_run_id="nope")).error
            assert error["kind"] == "not_found"
            assert "airflow-list-dag-runs" in error["hint"]
        error = (await caller.call("airflow-trigger-dag-run", dag_id="nope")).error
        assert error["kind"] == "not_found"
        assert "airflow-list-dags" in error["hint"]


@pytest.mark.parametrize("token", ["nonsense", EXPIRED])
async def test_wrong_token_is_an_error_that_names_its_variable(token: str) -> None:
    async with connected(Airflow(), AIRFLOW_CLI_TOKEN=token) as (airflow, caller):
        error = (await caller.call("airflow-trigger-dag-run", dag_id="lab_ok")).error
        assert error["kind"] == "auth"
        assert "AIRFLOW_CLI_TOKEN" in error["hint"]
        assert airflow.runs == {}


async def test_token_is_fetched_for_a_user_and_a_password() -> None:
    login = {"AIRFLOW_CLI_TOKEN": None, "AIRFLOW_USERNAME": "admin", "AIRFLOW_PASSWORD": PASSWORD}
    async with connected(Airflow(), **login) as (airflow, caller):
        for _ in range(2):
            await trigger(caller, "lab_ok")
        assert airflow.requests == ["POST /auth/token", *["POST /api/v2/dags/lab_ok/dagRuns"] * 2]
        airflow.authorization = "Bearer jwt-2"  # as after a restart with another secret: the first token is a 403
        await trigger(caller, "lab_ok")
        assert airflow.requests.count("POST /auth/token") == 2


async def test_wrong_password_names_the_variables_and_starts_nothing() -> None:
    login = {"AIRFLOW_CLI_TOKEN": None, "AIRFLOW_USERNAME": "admin", "AIRFLOW_PASSWORD": "wrong-one"}
    async with connected(Airflow(), **login) as (airflow, caller):
        error = (await caller.call("airflow-trigger-dag-run", dag_id="lab_ok")).error
        assert (error["kind"], error["message"]) == (
            "auth",
            'the token endpoint of airflow returned 401: "Invalid credentials"',
        )
        assert "AIRFLOW_USERNAME and AIRFLOW_PASSWORD" in error["hint"]
        assert airflow.requests == ["POST /auth/token"]


async def test_follows_the_states_of_a_run() -> None:
    async with connected(Airflow()) as (airflow, caller):
        run = await trigger(caller, "lab_fail")
        result = await caller.call("airflow-follow-dag-run", **run, within=10)
        assert [event["data"]["state"] for event in result.value["events"]] == ["running", "failed"]
        assert result.value["runs"] == {run["dag_run_id"]: "failed"}
        assert any(request.endswith("/wait?interval=1") for request in airflow.requests)
