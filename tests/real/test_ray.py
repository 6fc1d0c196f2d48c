"""Jobs of a real Ray cluster, through an MCP client; the cluster itself is the truth."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.real import servers
from tests.real.agent import WAIT, Agent, agent
from tests.real.servers import Server

pytestmark = pytest.mark.anyio

OK = """python -c 'import time; print("added", flush=True); time.sleep(5)'"""
BOOM = """python -c 'print("about to fail", flush=True); raise ValueError("the input is bad")'"""
SLOW = """python -c 'import time; print("sleeping", flush=True); time.sleep(600)'"""


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with servers.ray(folder) as running:
        yield running


@pytest.fixture
async def ray(server: Server) -> AsyncIterator[Agent]:
    async with agent(server, "ray") as connected:
        yield connected


async def test_job_succeeds_with_progress(server: Server, ray: Agent) -> None:
    started = await ray.call("submit-job", entrypoint=OK, metadata={"by": "test"})
    job_id = started.value["submission_id"]
    result = await ray.call("wait-for-run", submission_id=job_id, wait_seconds=WAIT)
    assert (result.value["status"], result.value["native_status"]) == ("succeeded", "SUCCEEDED")
    assert any("running" in message for message in result.progress), result.progress
    read = server.get(f"/api/jobs/{job_id}")
    assert (read["status"], read["driver_exit_code"], read["metadata"]) == ("SUCCEEDED", 0, {"by": "test"})
    assert "succeeded" in server.client("ray", "job", "status", "--address", server.origin, job_id)


async def test_start_that_waits_returns_the_end(server: Server, ray: Agent) -> None:
    result = await ray.call("submit-job", entrypoint=OK, wait_seconds=WAIT)
    assert result.value["status"] == "succeeded", result.text
    assert server.get(f"/api/jobs/{result.value['run_id']}")["status"] == "SUCCEEDED"


async def test_failed_job_has_its_error(server: Server, ray: Agent) -> None:
    result = await ray.call("submit-job", entrypoint=BOOM, wait_seconds=WAIT)
    assert (result.value["status"], result.value["native_status"]) == ("failed", "FAILED"), result.text
    assert "exit code 1" in result.value["error"]
    assert "ValueError: the input is bad" in result.value["error"]
    assert server.get(f"/api/jobs/{result.value['run_id']}")["message"] in result.value["error"]


async def test_failed_job_is_explained_with_its_log_and_how_to_start_it_again(ray: Agent) -> None:
    started = await ray.call("submit-job", entrypoint=BOOM, metadata={"by": "test"}, wait_seconds=WAIT)
    value = (await ray.call("explain-run", submission_id=started.value["run_id"])).value
    assert (value["status"], value["terminal"]) == ("failed", True)
    assert "exit code 1" in value["error"]
    assert value["seconds"] > 0
    assert "ValueError: the input is bad" in value["logs"]["run"]
    _, _, arguments = value["next"].partition("call ray-submit-job with ")
    assert json.loads(arguments.removesuffix(".")) == {"entrypoint": BOOM, "metadata": {"by": "test"}}


async def test_job_is_canceled(server: Server, ray: Agent) -> None:
    job_id = (await ray.call("submit-job", entrypoint=SLOW)).value["submission_id"]
    while server.get(f"/api/jobs/{job_id}")["status"] != "RUNNING":
        await ray.call("wait-for-run", submission_id=job_id, wait_seconds=1)
    result = await ray.call("stop-job", submission_id=job_id)
    assert result.value["status_before"] == "running"
    waited = await ray.call("wait-for-run", submission_id=job_id, wait_seconds=WAIT)
    assert (waited.value["status"], waited.value["native_status"]) == ("canceled", "STOPPED")
    assert server.get(f"/api/jobs/{job_id}")["status"] == "STOPPED"


async def test_cancel_leaves_an_ended_job_unchanged(server: Server, ray: Agent) -> None:
    job_id = (await ray.call("submit-job", entrypoint="true", wait_seconds=WAIT)).value["run_id"]
    result = await ray.call("stop-job", submission_id=job_id)
    assert (result.value["cancelled"], result.value["status"]) == (False, "succeeded"), result.text
    assert server.get(f"/api/jobs/{job_id}")["status"] == "SUCCEEDED"


async def test_same_submission_id_starts_no_second_job(server: Server, ray: Agent) -> None:
    own = f"own-{uuid4()}"
    first = await ray.call("submit-job", entrypoint="true", submission_id=own, wait_seconds=WAIT)
    assert (first.value["run_id"], first.value["status"]) == (own, "succeeded")
    before = server.get(f"/api/jobs/{own}")
    again = await ray.call("submit-job", entrypoint=BOOM, submission_id=own, wait_seconds=WAIT)
    assert (again.value["run_id"], again.value["status"]) == (own, "succeeded"), again.text
    assert server.get(f"/api/jobs/{own}") == before


async def test_lists_the_jobs(server: Server, ray: Agent) -> None:
    job_id = (await ray.call("submit-job", entrypoint=BOOM, wait_seconds=WAIT)).value["run_id"]
    listed = {job["submission_id"]: job["status"] for job in (await ray.call("list-jobs")).value}
    assert listed[job_id] == "FAILED"
    assert listed == {job["submission_id"]: job["status"] for job in server.get("/api/jobs/")}


async def test_reads_and_deletes_a_job(server: Server, ray: Agent) -> None:
    job_id = (await ray.call("submit-job", entrypoint=OK, wait_seconds=WAIT)).value["run_id"]
    assert "added" in (await ray.call("get-job-logs", submission_id=job_id)).value["logs"]
    await ray.call("delete-job", submission_id=job_id)
    assert job_id not in [job["submission_id"] for job in server.get("/api/jobs/")]


async def test_unknown_job_is_an_error(ray: Agent) -> None:
    for tool in ("wait-for-run", "get-job", "get-job-logs", "stop-job"):
        result = await ray.call(tool, submission_id="nope")
        assert result.error["kind"] == "not_found", result.text


async def test_wrong_token_is_an_error(server: Server) -> None:
    async with agent(server, "ray", RAY_AUTH_TOKEN="wrong" * 8) as ray:
        for tool in ("submit-job", "wait-for-run"):
            arguments = {"entrypoint": "true"} if tool == "submit-job" else {"submission_id": "nope"}
            result = await ray.call(tool, **arguments)
            assert result.error["kind"] == "auth", result.text
            assert "RAY_AUTH_TOKEN" in result.error["hint"]
