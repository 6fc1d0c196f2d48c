"""GitHub Actions: runs of workflows from their start to their end.

Statuses and errors are those of the OpenAPI description github-repo-actions-api 1.1.4 and docs.github.com/rest.
"""

import json
from typing import Any

import pytest

from tests.more.github_actions import KEY, REPOSITORY, RUN, GitHubActions
from tests.more.provider import connected

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

IN: dict[str, Any] = {"owner": "octocat", "repo": "hello-world"}
FIRST = f"{REPOSITORY}/runs/{RUN}"


async def test_start_waits_with_progress_until_the_run_has_succeeded() -> None:
    async with connected(GitHubActions()) as (github, caller):
        result = await caller.call(
            "github-actions-run-workflow",
            **IN,
            workflow_id="main.yaml",
            ref="main",
            inputs={"environment": "staging"},
            wait_seconds=30,
            within=30,
        )
        assert {name: result.value[name] for name in ("run_id", "status", "native_status", "result")} == {
            "run_id": str(RUN),
            "status": "succeeded",
            "native_status": "completed/success",
            "result": f"https://github.com/octocat/hello-world/actions/runs/{RUN}",
        }
        assert result.progress[0] == f"started {RUN}"
        assert [text for text in result.progress if "running" in text] != []
        assert await github.received[0].json() == {
            "ref": "main",
            "inputs": {"environment": "staging"},
            "return_run_details": True,
        }
        assert {*github.requests} == {f"POST {REPOSITORY}/workflows/main.yaml/dispatches", f"GET {FIRST}"}


async def test_start_without_a_wait_returns_the_id_as_text() -> None:
    async with connected(GitHubActions()) as (_, caller):
        started = await caller.call("github-actions-run-workflow", **IN, workflow_id="main.yaml", ref="main")
        assert started.value["workflow_run_id"] == str(RUN)


async def test_start_at_an_older_server_finds_the_run_of_this_user() -> None:
    async with connected(GitHubActions(returns_run_details=False)) as (github, caller):
        other = github.add("main.yaml", user="hubot")
        result = await caller.call(
            "github-actions-run-workflow", **IN, workflow_id="main.yaml", ref="main", wait_seconds=30, within=40
        )
        assert (result.value["run_id"], result.value["status"]) == (str(RUN + 1), "succeeded")
        assert result.value["run_id"] != other
        listed = next(text for text in github.requests if text.startswith(f"GET {REPOSITORY}/workflows/main.yaml/runs"))
        assert listed.endswith("?actor=octocat&branch=main&event=workflow_dispatch")


async def test_failed_run_is_explained_with_the_failed_job_and_the_end_of_its_log() -> None:
    async with connected(GitHubActions()) as (github, caller):
        run_id = github.add("fail.yaml")
        waited = await caller.call("github-actions-wait-for-run", **IN, run_id=run_id, within=30)
        assert (waited.value["status"], waited.value["error"]) == ("failed", "failure")
        github.received.clear()
        value = (await caller.call("github-actions-explain-run", **IN, run_id=run_id)).value
        assert (value["status"], value["native_status"]) == ("failed", "completed/failure")
        assert value["steps"] == [
            {"name": "test-coverage", "status": "completed/failure", "error": "failed: Run npm test"}
        ]
        log = value["logs"]["test-coverage"]
        assert log[-2:] == [
            "2026-04-17T12:00:01.0000000Z not ok 61 adds numbers",
            "2026-04-17T12:00:01.1000000Z ##[error]Process completed with exit code 1.",
        ]
        assert log[0] == f"… {62 - (len(log) - 1)} earlier lines"
        assert "github-actions-retry-run" in value["next"]
        assert len(json.dumps(value)) < 1_500 * 4
        assert github.requests == [
            f"GET {FIRST}",
            f"GET {FIRST}/jobs?per_page=100",
            f"GET {REPOSITORY}/jobs/{RUN}0/logs",
            f"GET /signedlogcontent?urlSignature={RUN}",
        ]


async def test_explanation_knows_why_a_run_timed_out() -> None:
    async with connected(GitHubActions()) as (github, caller):
        run_id = github.add("main.yaml")
        github.end(run_id, "timed_out")
        value = (await caller.call("github-actions-explain-run", **IN, run_id=run_id)).value
        assert (value["status"], value["error"]) == ("failed", "timed_out")
        assert value["meaning"].startswith("A job ran longer than its timeout-minutes")


async def test_cancel_waits_until_the_run_is_cancelled() -> None:
    async with connected(GitHubActions()) as (github, caller):
        run_id = github.add("slow.yaml")
        result = await caller.call("github-actions-cancel-run", **IN, run_id=run_id, within=10)
        assert (result.value["cancelled"], result.value["status_before"], result.value["status"]) == (
            True,
            "queued",
            "canceled",
        )
        again = await caller.call("github-actions-cancel-run", **IN, run_id=run_id)
        assert (again.value["cancelled"], again.value["status"]) == (False, "canceled")
        assert [text for text in github.requests if text.startswith("POST")] == [f"POST {FIRST}/cancel"]


async def test_cancel_of_a_run_that_ends_meanwhile_reports_its_status() -> None:
    async with connected(GitHubActions()) as (github, caller):
        run_id = github.add("main.yaml")
        github.end_after_read(run_id, "success")
        result = await caller.call("github-actions-cancel-run", **IN, run_id=run_id)
        assert (result.value["cancelled"], result.value["status"]) == (False, "succeeded")


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("github-actions-list-runs", {}), ("github-actions-list-workflow-runs", {"workflow_id": "slow.yaml"})],
)
async def test_list_of_runs_has_pages_and_filters(tool: str, arguments: dict[str, Any]) -> None:
    async with connected(GitHubActions()) as (github, caller):
        ids = [github.add("slow.yaml") for _ in range(5)][::-1]
        github.end(ids[4], "failure")
        first = await caller.call(tool, **IN, **arguments, per_page=2)
        assert [run["id"] for run in first.value["workflow_runs"]] == ids[:2]
        assert "node_id" not in first.value["workflow_runs"][0]
        assert any('"page": 2' in note or "page 2" in note for note in first.notes), first.notes
        third = await caller.call(tool, **IN, **arguments, per_page=2, page=3)
        assert [run["id"] for run in third.value["workflow_runs"]] == ids[4:]
        every = await caller.call(tool, **IN, **arguments, per_page=2, all_pages=True)
        assert [run["id"] for run in every.value["workflow_runs"]] == ids
        failed = await caller.call(tool, **IN, **arguments, status="failure")
        assert [run["id"] for run in failed.value["workflow_runs"]] == ids[4:]


async def test_jobs_and_the_log_of_a_job_are_read() -> None:
    async with connected(GitHubActions()) as (github, caller):
        run_id = github.add("fail.yaml")
        github.end(run_id, "failure")
        (job,) = (await caller.call("github-actions-list-run-jobs", **IN, run_id=run_id)).value["jobs"]
        assert [step["conclusion"] for step in job["steps"]] == ["success", "failure", "skipped"]
        shown = await caller.call("github-actions-get-job", **IN, job_id=job["id"])
        assert shown.value["name"] == "test-coverage"
        log = await caller.call("github-actions-get-job-log", **IN, job_id=job["id"])
        assert "Process completed with exit code 1." in log.all_text
        assert "authorization" not in github.received[-1].headers


async def test_workflows_are_listed() -> None:
    async with connected(GitHubActions()) as (_, caller):
        listed = (await caller.call("github-actions-list-workflows", **IN)).value["workflows"]
        assert listed[0] == {"id": 161335, "path": ".github/workflows/main.yaml", "state": "active"}


@pytest.mark.parametrize(("part", "operation"), [("whole", "rerun"), ("failed", "rerun-failed-jobs")])
async def test_retry_keeps_the_id_and_waits_for_the_next_attempt(part: str, operation: str) -> None:
    async with connected(GitHubActions()) as (github, caller):
        run_id = github.add("fail.yaml")
        github.end(run_id, "failure")
        result = await caller.call(
            "github-actions-retry-run", **IN, run_id=run_id, part=part, wait_seconds=30, within=30
        )
        assert (result.value["run_id"], result.value["status"], result.value["attempts"]) == (run_id, "succeeded", 2)
        (sent,) = [request for request in github.received if request.method == "POST"]
        assert (sent.url.path, await sent.body()) == (f"{FIRST}/{operation}", b"")


async def test_retry_of_an_active_run_sends_nothing() -> None:
    async with connected(GitHubActions()) as (github, caller):
        error = (await caller.call("github-actions-retry-run", **IN, run_id=github.add("slow.yaml"))).error
        assert error["kind"] == "conflict"
        assert [text for text in github.requests if text.startswith("POST")] == []


async def test_rerun_of_one_job_names_the_tool_that_waits() -> None:
    async with connected(GitHubActions()) as (github, caller):
        run_id = github.add("fail.yaml")
        github.end(run_id, "failure")
        job: dict[str, Any] = {**IN, "job_id": int(f"{run_id}0")}
        result = await caller.call("github-actions-rerun-job", **job, enable_debug_logging=True)
        assert await github.received[-1].json() == {"enable_debug_logging": True}
        assert any("github-actions-wait-for-run" in note for note in result.notes)


@pytest.mark.parametrize(
    "headers", [{"Retry-After": "5"}, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "{reset}"}]
)
async def test_secondary_rate_limit_of_a_read_is_waited_for(headers: dict[str, str]) -> None:
    async with connected(GitHubActions()) as (github, caller):
        run_id = github.add("main.yaml")
        github.limit(headers, seconds=5)
        result = await caller.call("github-actions-get-run", **IN, run_id=run_id, within=10)
        assert result.value["status"] == "queued"
        assert github.requests == [f"GET {FIRST}"] * 2


async def test_wrong_credential_is_an_error_that_names_the_variable_without_its_value() -> None:
    async with connected(GitHubActions(), GITHUB_TOKEN="ghp_wrong_credential") as (_, caller):
        result = await caller.call("github-actions-list-runs", **IN)
        assert result.error["kind"] == "auth"
        assert "GITHUB_TOKEN or GH_TOKEN" in result.error["hint"]
        assert "ghp_wrong_credential" not in result.all_text


async def test_credential_can_be_that_of_the_command_line_tool() -> None:
    async with connected(GitHubActions(), GITHUB_TOKEN=None, GH_TOKEN=KEY) as (_, caller):
        assert (await caller.call("github-actions-list-runs", **IN)).value["total_count"] == 0


@pytest.mark.parametrize("tool", ["get-run", "wait-for-run", "explain-run", "cancel-run", "retry-run"])
async def test_error_of_an_unknown_run_names_the_tool_that_lists_them(tool: str) -> None:
    async with connected(GitHubActions()) as (_, caller):
        error = (await caller.call(f"github-actions-{tool}", **IN, run_id="1", within=10)).error
        assert (error["kind"], error["status"]) == ("not_found", 404)
        assert "github-actions-list-runs" in error["hint"]


async def test_error_of_an_unknown_workflow_names_the_tool_that_lists_them() -> None:
    async with connected(GitHubActions()) as (_, caller):
        call = {**IN, "workflow_id": "none.yaml"}
        for tool, arguments in (("run-workflow", {**call, "ref": "main"}), ("list-workflow-runs", call)):
            error = (await caller.call(f"github-actions-{tool}", **arguments)).error
            assert error["kind"] == "not_found"
            assert "github-actions-list-workflows" in error["hint"]


async def test_error_of_an_unknown_branch_names_the_argument() -> None:
    async with connected(GitHubActions()) as (_, caller):
        error = (await caller.call("github-actions-run-workflow", **IN, workflow_id="main.yaml", ref="none")).error
        assert (error["kind"], error["status"]) == ("validation", 422)
        assert "No ref found for: none" in error["message"]
        assert "as ref" in error["hint"]
