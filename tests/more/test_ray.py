"""Ray Jobs: jobs from their start to their end. Responses are those of a Ray 2.60.0 cluster."""

import pytest

from tests.more.provider import connected
from tests.more.ray import LOG, Ray

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]


async def test_start_waits_with_progress_until_the_job_has_succeeded() -> None:
    async with connected(Ray()) as (ray, caller):
        result = await caller.call("ray-submit-job", entrypoint="ok", wait_seconds=30, within=30)
        (job_id,) = ray.jobs
        value = result.value
        assert (value["run_id"], value["status"], value["native_status"]) == (job_id, "succeeded", "SUCCEEDED")
        # The server chooses the id, so that a repeated call starts no second job.
        assert ray.bodies == [{"entrypoint": "ok", "submission_id": job_id}]
        assert result.progress == [
            f"started {job_id}",
            f"{job_id}: queued",
            f"{job_id}: running",
            f"{job_id}: succeeded",
        ]


async def test_duplicate_of_a_job_is_that_job() -> None:
    async with connected(Ray()) as (ray, caller):
        await caller.call("ray-submit-job", entrypoint="ok", submission_id="own", wait_seconds=30, within=30)
        again = await caller.call("ray-submit-job", entrypoint="fail", submission_id="own", wait_seconds=30, within=2)
        assert (again.value["run_id"], again.value["status"]) == ("own", "succeeded")
        again = await caller.call("ray-submit-job", entrypoint="fail", submission_id="own")
        assert again.value["status"] == "SUCCEEDED"
        assert "A run with this id exists, so no second one was started: this is the run." in again.notes
        assert [request for request in ray.requests if request.startswith("POST")] == ["POST /api/jobs/"] * 3


async def test_failed_job_is_explained() -> None:
    async with connected(Ray()) as (_, caller):
        failed = await caller.call("ray-submit-job", entrypoint="fail", metadata={"k": "v"}, wait_seconds=30, within=30)
        assert failed.value["status"] == "failed"
        value = (await caller.call("ray-explain-run", submission_id=failed.value["run_id"])).value
        assert "failed with exit code 3" in value["error"]
        assert value["error"].endswith("(JOB_ENTRYPOINT_COMMAND_ERROR)")
        assert value["started_at"].endswith("Z")
        assert value["seconds"] >= 0
        assert value["logs"] == {"run": LOG.replace("\t", " ").splitlines()}
        assert value["next"] == (
            "Fix the cause, then start it again with the same input: call ray-submit-job with "
            '{"entrypoint":"fail","metadata":{"k":"v"}}.'
        )


async def test_call_that_starts_a_job_again_has_no_secrets() -> None:
    environment = {"env_vars": {"KEY": "s3cr3t-value"}, "pip": ["requests"]}
    async with connected(Ray()) as (_, caller):
        failed = await caller.call(
            "ray-submit-job", entrypoint="fail", runtime_env=environment, wait_seconds=30, within=30
        )
        result = await caller.call("ray-explain-run", submission_id=failed.value["run_id"])
        assert result.value["next"].endswith(
            '{"entrypoint":"fail","runtime_env":{"env_vars":"[redacted]","pip":["requests"]}}. '
            "Replace [redacted] by the values, which this server does not show."
        )
        assert "s3cr3t" not in result.all_text


async def test_cancel_reads_a_job_that_stops_in_the_background_again() -> None:
    async with connected(Ray()) as (ray, caller):
        await caller.call("ray-submit-job", entrypoint="slow", submission_id="own")
        result = await caller.call("ray-stop-job", submission_id="own", within=5)
        value = result.value
        assert (value["cancelled"], value["status_before"], value["status"]) == (True, "queued", "canceled")
        again = await caller.call("ray-stop-job", submission_id="own")
        assert (again.value["cancelled"], again.value["status"]) == (False, "canceled")
        assert ray.requests.count("POST /api/jobs/own/stop") == 1


async def test_job_that_waits_for_resources_is_not_reported_as_canceled() -> None:
    async with connected(Ray()) as (_, caller):
        await caller.call("ray-submit-job", entrypoint="waiting", submission_id="own")
        result = await caller.call("ray-stop-job", submission_id="own", within=5)
        assert (result.value["cancelled"], result.value["status"]) == (False, "queued")


async def test_list_leaves_out_the_logs_of_failed_jobs() -> None:
    async with connected(Ray()) as (_, caller):
        await caller.call("ray-submit-job", entrypoint="fail", submission_id="own", wait_seconds=30, within=30)
        (job,) = (await caller.call("ray-list-jobs")).value
        assert (job["submission_id"], job["status"], job["driver_exit_code"]) == ("own", "FAILED", 3)
        assert "message" not in job


async def test_delete_of_an_active_job_is_refused_with_what_to_do() -> None:
    async with connected(Ray()) as (ray, caller):
        await caller.call("ray-submit-job", entrypoint="slow", submission_id="own")
        error = (await caller.call("ray-delete-job", submission_id="own")).error
        assert (error["kind"], error["retryable"]) == ("conflict", False)
        assert "Stop it first with ray-stop-job" in error["hint"]
        assert ray.requests.count("DELETE /api/jobs/own") == 1


async def test_unknown_job_and_wrong_token_are_errors() -> None:
    async with connected(Ray()) as (_, caller):
        for tool in ("get-job", "wait-for-run", "explain-run", "stop-job", "get-job-logs"):
            error = (await caller.call(f"ray-{tool}", submission_id="nope")).error
            assert error["kind"] == "not_found"
            assert "ray-list-jobs" in error["hint"]
    async with connected(Ray(), RAY_AUTH_TOKEN="x" * 32) as (ray, caller):
        error = (await caller.call("ray-submit-job", entrypoint="ok")).error
        assert error["kind"] == "auth"
        assert "RAY_AUTH_TOKEN" in error["hint"]
        assert ray.jobs == {}
