"""Runs of a real Airflow, through an MCP client; Airflow itself is the truth."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from tests.real import servers
from tests.real.agent import WAIT, Agent, agent
from tests.real.servers import Server

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with servers.airflow(folder) as running:
        yield running


@pytest.fixture
async def airflow(server: Server) -> AsyncIterator[Agent]:
    async with agent(server, "airflow") as connected:
        yield connected


def read(server: Server, dag_id: str, run_id: str, below: str = "") -> Any:
    """Read a run directly, or something below it."""
    return server.get(f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}{below}")


async def test_run_succeeds_with_progress(server: Server, airflow: Agent) -> None:
    started = await airflow.call("trigger-dag-run", dag_id="add", conf={"a": 5})
    run_id = started.value["dag_run_id"]
    result = await airflow.call("wait-for-run", dag_id="add", dag_run_id=run_id, wait_seconds=WAIT)
    assert (result.value["status"], result.value["native_status"]) == ("succeeded", "success")
    assert any("running" in message for message in result.progress), result.progress
    assert read(server, "add", run_id)["state"] == "success"
    task = await airflow.call("get-task-result", dag_id="add", dag_run_id=run_id, task_id="total")
    assert task.value["value"] == {"total": 7}
    listed = server.client("airflow", "dags", "list-runs", "add", "--output", "json").splitlines()[-1]  # after warnings
    assert [run["state"] for run in json.loads(listed) if run["run_id"] == run_id] == ["success"]


async def test_run_whose_task_is_retried_is_reported_as_failed_only_at_its_end(server: Server, airflow: Agent) -> None:
    result = await airflow.call("trigger-dag-run", dag_id="boom", wait_seconds=WAIT)
    assert (result.value["status"], result.value["native_status"]) == ("failed", "failed"), result.text
    assert not any("failed" in message for message in result.progress[:-1]), result.progress
    tries = read(server, "boom", result.value["run_id"], "/taskInstances/explode/tries")["task_instances"]
    assert [one["try_number"] for one in tries] == [1, 2]


async def test_failed_run_is_explained_by_the_log_of_its_task(airflow: Agent) -> None:
    run_id = (await airflow.call("trigger-dag-run", dag_id="boom", wait_seconds=WAIT)).value["run_id"]
    value = (await airflow.call("explain-run", dag_id="boom", dag_run_id=run_id)).value
    assert (value["status"], value["terminal"]) == ("failed", True)
    steps = {step["name"]: step for step in value["steps"]}
    assert (steps["explode"]["status"], steps["explode"]["attempts"]) == ("failed", 2)
    assert steps["after"]["status"] == "upstream_failed"
    lines = value["logs"]["explode"]
    assert "about to fail" in lines
    assert "Task failed with exception ValueError the input is bad" in lines
    assert "airflow-retry-run" in value["next"]


async def test_retry_runs_the_failed_part_again(server: Server, airflow: Agent) -> None:
    run_id = (await airflow.call("trigger-dag-run", dag_id="boom", wait_seconds=WAIT)).value["run_id"]
    result = await airflow.call("retry-run", dag_id="boom", dag_run_id=run_id, part="failed", wait_seconds=WAIT)
    assert (result.value["run_id"], result.value["status"]) == (run_id, "failed"), result.text
    tries = read(server, "boom", run_id, "/taskInstances/explode/tries")["task_instances"]
    assert [one["try_number"] for one in tries] == [1, 2, 3, 4]


async def test_retry_of_the_failed_part_of_a_run_that_succeeded_is_refused(server: Server, airflow: Agent) -> None:
    run_id = (await airflow.call("trigger-dag-run", dag_id="add", conf={"a": 1}, wait_seconds=WAIT)).value["run_id"]
    error = (await airflow.call("retry-run", dag_id="add", dag_run_id=run_id, part="failed")).error
    assert error["kind"] == "conflict"
    assert read(server, "add", run_id)["state"] == "success"


async def test_run_is_canceled(server: Server, airflow: Agent) -> None:
    run_id = f"own-{uuid4()}"
    await airflow.call("trigger-dag-run", dag_id="slow", dag_run_id=run_id)
    while read(server, "slow", run_id)["state"] != "running":
        await airflow.call("wait-for-run", dag_id="slow", dag_run_id=run_id, wait_seconds=1)
    result = await airflow.call("cancel-dag-run", dag_id="slow", dag_run_id=run_id)
    value = result.value
    assert (value["cancelled"], value["status_before"], value["status"]) == (True, "running", "failed"), result.text
    assert read(server, "slow", run_id)["state"] == "failed"


async def test_cancel_leaves_an_ended_run_unchanged(server: Server, airflow: Agent) -> None:
    run_id = (await airflow.call("trigger-dag-run", dag_id="add", conf={"a": 1}, wait_seconds=WAIT)).value["run_id"]
    result = await airflow.call("cancel-dag-run", dag_id="add", dag_run_id=run_id)
    assert (result.value["cancelled"], result.value["status"]) == (False, "succeeded"), result.text
    assert read(server, "add", run_id)["state"] == "success"


async def test_same_dag_run_id_starts_no_second_run(server: Server, airflow: Agent) -> None:
    own = f"own-{uuid4()}"
    results = [
        await airflow.call("trigger-dag-run", dag_id="add", dag_run_id=own, conf={"a": a}, wait_seconds=WAIT)
        for a in (1, 2)
    ]
    assert [(one.value["run_id"], one.value["status"]) for one in results] == [(own, "succeeded")] * 2
    assert read(server, "add", own)["conf"] == {"a": 1}


async def test_lists_runs_by_state(server: Server, airflow: Agent) -> None:
    run_id = (await airflow.call("trigger-dag-run", dag_id="boom", wait_seconds=WAIT)).value["run_id"]
    listed = await airflow.call("list-dag-runs", dag_id="~", state=["failed"], order_by=["-run_after"])
    ids = [run["dag_run_id"] for run in listed.value["dag_runs"]]
    assert ids[0] == run_id
    failed = server.get("/api/v2/dags/~/dagRuns?state=failed&order_by=-run_after")
    assert ids == [run["dag_run_id"] for run in failed["dag_runs"]]


async def test_unknown_run_is_an_error(airflow: Agent) -> None:
    for tool in ("wait-for-run", "get-dag-run", "cancel-dag-run"):
        for dag_id, mentioned in (("add", "dag_run_id"), ("nope", "dag_id")):
            result = await airflow.call(tool, dag_id=dag_id, dag_run_id="nope")
            assert result.error["kind"] == "not_found", result.text
            assert mentioned in result.error["hint"]


@pytest.mark.parametrize("variable", ["AIRFLOW_CLI_TOKEN", "AIRFLOW_PASSWORD"])
async def test_wrong_credential_is_an_error(server: Server, variable: str) -> None:
    async with agent(server, "airflow", **{variable: "wrong"}) as airflow:
        for tool, more in (("trigger-dag-run", {}), ("wait-for-run", {"dag_run_id": "nope"})):
            result = await airflow.call(tool, dag_id="add", **more)
            assert result.error["kind"] == "auth", result.text
            assert variable in result.error["hint"]


async def test_token_is_a_credential_too(server: Server) -> None:
    token = server.headers["Authorization"].removeprefix("Bearer ")
    async with agent(server, "airflow", AIRFLOW_CLI_TOKEN=token, AIRFLOW_PASSWORD="") as airflow:
        assert {dag["dag_id"] for dag in (await airflow.call("list-dags")).value["dags"]} == {"add", "boom", "slow"}


async def test_follows_the_states_of_a_run(server: Server, airflow: Agent) -> None:
    run_id = (await airflow.call("trigger-dag-run", dag_id="add", conf={"a": 1})).value["dag_run_id"]
    result = await airflow.call("follow-dag-run", dag_id="add", dag_run_id=run_id, wait_seconds=WAIT)
    assert (result.value["ended"], result.value["runs"]) == ("terminal", {run_id: "succeeded"})
    states = [event["data"]["state"] for event in result.value["events"]]
    assert states[-1] == read(server, "add", run_id)["state"] == "success"
    assert len(states) == len(set(states))  # Airflow sends one each second
