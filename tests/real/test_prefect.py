"""Runs of a real Prefect server, through an MCP client; the server itself is the truth."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.real import servers
from tests.real.agent import WAIT, Agent, agent
from tests.real.servers import Server

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with servers.prefect(folder) as running:
        yield running


@pytest.fixture
async def prefect(server: Server) -> AsyncIterator[Agent]:
    async with agent(server, "prefect") as connected:
        yield connected


async def deployment(prefect: Agent, flow: str) -> str:
    """Return the id of a flow's deployment."""
    found = await prefect.call("get-deployment", flow_name=flow, deployment_name="served")
    return str(found.value["id"])


async def start(prefect: Agent, flow: str, **arguments: Any) -> str:
    """Start a run of a flow and return its id."""
    started = await prefect.call("create-flow-run", deployment_id=await deployment(prefect, flow), **arguments)
    return str(started.value["id"])


async def ended(prefect: Agent, flow: str) -> str:
    """Return the id of a new run that has ended."""
    result = await prefect.call(
        "create-flow-run", deployment_id=await deployment(prefect, flow), parameters={}, wait_seconds=WAIT
    )
    assert result.value["terminal"], result.text
    return str(result.value["run_id"])


async def test_run_succeeds_with_progress(server: Server, prefect: Agent) -> None:
    run_id = await start(prefect, "add", parameters={"a": 5})
    result = await prefect.call("wait-for-run", flow_run_id=run_id, wait_seconds=WAIT)
    assert (result.value["status"], result.value["native_status"]) == ("succeeded", "COMPLETED")
    assert any("running" in message for message in result.progress), result.progress
    read = server.get(f"/api/flow_runs/{run_id}")
    assert (read["state"]["type"], read["parameters"]) == ("COMPLETED", {"a": 5})
    assert "COMPLETED" in server.client("prefect", "--no-prompt", "flow-run", "inspect", run_id)


async def test_start_that_waits_returns_the_end(server: Server, prefect: Agent) -> None:
    run_id = await ended(prefect, "add")
    assert server.get(f"/api/flow_runs/{run_id}")["state_type"] == "COMPLETED"


async def test_run_that_is_retried_is_reported_as_failed_only_at_its_end(server: Server, prefect: Agent) -> None:
    run_id = await start(prefect, "boom", parameters={})
    result = await prefect.call("wait-for-run", flow_run_id=run_id, wait_seconds=WAIT)
    assert (result.value["status"], result.value["attempts"]) == ("failed", 2)
    assert "ValueError: the input is bad" in result.value["error"]
    # A wait that had ended at the first failure would have no RUNNING after it.
    states = [state["type"] for state in server.get(f"/api/flow_run_states/?flow_run_id={run_id}")]
    assert states.count("RUNNING") == 2
    assert states[-1] == "FAILED"
    assert not any("failed" in message for message in result.progress[:-1]), result.progress


async def test_failed_run_is_explained_by_its_task_and_log(prefect: Agent) -> None:
    value = (await prefect.call("explain-run", flow_run_id=await ended(prefect, "boom"))).value
    assert (value["status"], value["attempts"]) == ("failed", 2)
    assert "ValueError: the input is bad" in value["error"]
    assert {step["status"] for step in value["steps"]} == {"FAILED"}
    assert all(step["name"].startswith("explode-") for step in value["steps"])
    assert "ValueError: the input is bad" in value["steps"][0]["error"]
    (lines,) = value["logs"].values()
    assert any("about to fail" in line for line in lines)
    assert [line[:20] for line in lines if line[:4].isdigit()] == sorted(
        line[:20] for line in lines if line[:4].isdigit()
    )


async def test_retry_runs_a_failed_run_again(server: Server, prefect: Agent) -> None:
    run_id = await ended(prefect, "boom")
    before = server.get(f"/api/flow_runs/{run_id}")
    result = await prefect.call("retry-run", flow_run_id=run_id, wait_seconds=WAIT)
    assert (result.value["run_id"], result.value["status"], result.value["retry_of"]) == (run_id, "failed", run_id)
    after = server.get(f"/api/flow_runs/{run_id}")
    assert after["run_count"] > before["run_count"]
    assert after["end_time"] > before["end_time"]


async def test_retry_of_a_run_that_succeeded_is_refused(server: Server, prefect: Agent) -> None:
    run_id = await ended(prefect, "add")
    error = (await prefect.call("retry-run", flow_run_id=run_id)).error
    assert error["kind"] == "conflict"
    assert "already COMPLETED" in error["message"]
    assert server.get(f"/api/flow_runs/{run_id}")["run_count"] == 1


async def test_run_is_canceled(server: Server, prefect: Agent) -> None:
    run_id = await start(prefect, "slow", parameters={})
    while server.get(f"/api/flow_runs/{run_id}")["state_type"] != "RUNNING":
        await prefect.call("wait-for-run", flow_run_id=run_id, wait_seconds=1)
    result = await prefect.call("cancel-flow-run", flow_run_id=run_id)
    assert result.value["status_before"] == "running"
    waited = await prefect.call("wait-for-run", flow_run_id=run_id, wait_seconds=WAIT)
    assert (waited.value["status"], waited.value["native_status"]) == ("canceled", "CANCELLED")
    assert server.get(f"/api/flow_runs/{run_id}")["state_type"] == "CANCELLED"


async def test_scheduled_run_is_canceled_at_once(server: Server, prefect: Agent) -> None:
    later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2099-01-01T00:00:00Z"}}
    run_id = await start(prefect, "slow", parameters={}, state=later)
    result = await prefect.call("cancel-flow-run", flow_run_id=run_id)
    assert (result.value["cancelled"], result.value["status"]) == (True, "canceled"), result.text
    assert server.get(f"/api/flow_runs/{run_id}")["state_type"] == "CANCELLED"


async def test_cancel_leaves_an_ended_run_unchanged(server: Server, prefect: Agent) -> None:
    run_id = await ended(prefect, "add")
    result = await prefect.call("cancel-flow-run", flow_run_id=run_id)
    assert (result.value["cancelled"], result.value["status"]) == (False, "succeeded"), result.text
    assert server.get(f"/api/flow_runs/{run_id}")["state_type"] == "COMPLETED"


async def test_same_idempotency_key_starts_no_second_run(server: Server, prefect: Agent) -> None:
    key = str(uuid4())
    run_id = await start(prefect, "add", parameters={}, idempotency_key=key)
    assert await start(prefect, "add", parameters={}, idempotency_key=key) == run_id
    by_key = {"flow_runs": {"idempotency_key": {"any_": [key]}}}
    assert server.request("POST", "/api/flow_runs/count", by_key) == 1


async def test_lists_runs_by_state(server: Server, prefect: Agent) -> None:
    run_id = await ended(prefect, "boom")
    failed = {"state": {"type": {"any_": ["FAILED"]}}}
    listed = await prefect.call("list-flow-runs", flow_runs=failed)
    ids = [run["id"] for run in listed.value]
    assert run_id in ids
    assert sorted(ids) == sorted(
        run["id"] for run in server.request("POST", "/api/flow_runs/filter", {"flow_runs": failed})
    )


async def test_resumes_a_paused_run(server: Server, prefect: Agent) -> None:
    run_id = await start(prefect, "approve", parameters={})
    while server.get(f"/api/flow_runs/{run_id}")["state_type"] != "PAUSED":
        await prefect.call("wait-for-run", flow_run_id=run_id, wait_seconds=1)
    result = await prefect.call("resume-flow-run", flow_run_id=run_id, wait_seconds=WAIT)
    assert result.value["status"] == "succeeded", result.text


@pytest.mark.parametrize("run_id", ["00000000-0000-4000-8000-000000000000", "no-uuid"])
async def test_unknown_run_is_an_error(prefect: Agent, run_id: str) -> None:
    for tool in ("wait-for-run", "get-flow-run", "cancel-flow-run"):
        result = await prefect.call(tool, flow_run_id=run_id)
        assert result.error["kind"] in ("not_found", "validation"), result.text


async def test_wrong_password_is_an_error(server: Server) -> None:
    async with agent(server, "prefect", PREFECT_API_AUTH_STRING="admin:wrong") as prefect:
        for tool in ("create-flow-run", "wait-for-run"):
            id_argument = "deployment_id" if tool == "create-flow-run" else "flow_run_id"
            result = await prefect.call(tool, **{id_argument: str(uuid4())})
            assert result.error["kind"] == "auth", result.text
            assert "PREFECT_API_AUTH_STRING" in result.error["hint"]
