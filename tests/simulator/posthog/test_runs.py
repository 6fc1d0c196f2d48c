"""Operations on runs: list, create, update, start, resume, set output.

Expected values are from PostHog products/tasks/backend/{api,models,serializers}.py, stream/redis_stream.py and
posthog/api/mixins.py (https://github.com/PostHog/posthog), not from the simulator.
"""

import uuid
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from mcp_taskruns.simulator.lifecycle import ManualClock
from mcp_taskruns.simulator.posthog.app import PostHog
from tests.simulator.posthog.driver import (
    COMPLETED,
    FAILED,
    FREE_TASK,
    IN_PROGRESS,
    KEY,
    NOT_STARTED,
    OUTAGE,
    RUNS,
    TASK,
    create,
    drf_error,
    run_detail,
)

pytestmark = pytest.mark.anyio


async def test_list_returns_runs_newest_first(client: httpx.AsyncClient) -> None:
    page = (await client.get(RUNS)).json()
    assert [run["id"] for run in page.pop("results")] == [NOT_STARTED, IN_PROGRESS, FAILED, COMPLETED]
    assert page == {"count": 4, "next": None, "previous": None}
    assert (await client.get(RUNS.replace(TASK, FREE_TASK))).json()["results"] == []


async def test_next_and_previous_are_absolute_urls_of_all_pages(client: httpx.AsyncClient) -> None:
    run_ids, url, back = [], f"{RUNS}?limit=1", None
    while url:
        page = (await client.get(url)).json()
        run_ids += [run["id"] for run in page["results"]]
        url, back = page["next"], page["previous"]
        assert url is None or url.startswith(f"http://simulator{RUNS}?")
    assert run_ids == [NOT_STARTED, IN_PROGRESS, FAILED, COMPLETED]
    while back:
        page = (await client.get(back)).json()
        run_ids.append(page["results"][0]["id"])
        back = page["previous"]
    assert run_ids[4:] == [FAILED, IN_PROGRESS, NOT_STARTED]


async def test_page_has_50_runs_by_default_and_at_most_100(client: httpx.AsyncClient) -> None:
    for _ in range(110):
        await create(client)
    for query, size in (("", 50), ("?limit=101", 100), ("?limit=0", 50), ("?limit=x&offset=y", 50), ("?offset=113", 1)):
        page = (await client.get(RUNS + query)).json()
        assert (page["count"], len(page["results"])) == (114, size)


async def test_created_run_is_local_and_not_started(client: httpx.AsyncClient, clock: ManualClock) -> None:
    detail = await run_detail(client, await create(client))
    assert uuid.UUID(detail.pop("id"))
    assert detail == {
        "task": TASK,
        "stage": None,
        "branch": None,
        "status": "not_started",
        "environment": "local",
        "runtime_adapter": None,
        "provider": None,
        "model": None,
        "reasoning_effort": None,
        "log_url": None,
        "error_message": None,
        "output": None,
        "state": {"mode": "background"},
        "artifacts": [],
        "created_at": "2026-01-01T00:00:00.000Z",
        "updated_at": "2026-01-01T00:00:00.000Z",
        "completed_at": None,
    }
    clock.advance(3600)
    assert (await client.get(RUNS)).json()["results"][0]["status"] == "not_started"


async def test_create_sets_the_fields_of_the_body(client: httpx.AsyncClient) -> None:
    run_id = await create(
        client, environment="cloud", branch="main", runtime_adapter="codex", model="gpt-5", reasoning_effort="high"
    )
    detail = await run_detail(client, run_id)
    assert detail["environment"] == "cloud"
    assert detail["branch"] == "main"
    assert (detail["runtime_adapter"], detail["provider"]) == ("codex", "openai")
    assert (detail["model"], detail["reasoning_effort"]) == ("gpt-5", "high")


async def test_same_calls_create_the_same_ids(client: httpx.AsyncClient) -> None:
    again = Starlette(routes=[Mount("/posthog", routes=PostHog(ManualClock()).routes())])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=again), base_url="http://simulator", headers=KEY
    ) as other:
        assert [await create(client), await create(client)] == [await create(other), await create(other)]


@pytest.mark.parametrize(
    ("body", "code", "attr"),
    [
        ({"environment": "moon"}, "invalid_choice", "environment"),
        ({"branch": "b" * 256}, "max_length", "branch"),
        ({"branch": 7}, "invalid_input", "branch"),
        ({"model": ""}, "blank", "model"),
        ({"model": None}, "null", "model"),
        ({"sandbox_environment_id": "x"}, "invalid_input", "sandbox_environment_id"),
        ({"pr_authorship_mode": "user"}, "github_authorization_required", "pr_authorship_mode"),
    ],
)
async def test_invalid_create_is_400_with_the_field(
    client: httpx.AsyncClient, body: dict[str, Any], code: str, attr: str
) -> None:
    response = await client.post(RUNS, json=body)
    assert response.status_code == 400
    assert (response.json()["type"], response.json()["code"], response.json()["attr"]) == (
        "validation_error",
        code,
        attr,
    )


async def test_unknown_sandbox_environment_is_400(client: httpx.AsyncClient) -> None:
    response = await client.post(RUNS, json={"sandbox_environment_id": TASK})
    assert (response.status_code, response.json()) == (400, {"detail": "Invalid sandbox_environment_id"})


async def test_detail_of_a_cloud_run_contains_secrets(client: httpx.AsyncClient) -> None:
    detail = await run_detail(client, IN_PROGRESS)
    assert detail["status"] == "in_progress"
    assert detail["state"]["sandbox_connect_token"]
    assert detail["state"]["sandbox_url"].startswith("https://")
    assert detail["log_url"].startswith("http://simulator/posthog/storage/")
    assert (await client.get(detail["log_url"])).text == (await client.get(f"{RUNS}{IN_PROGRESS}/logs/")).text


async def test_update_merges_output_and_state(client: httpx.AsyncClient) -> None:
    run_id = await create(client)
    for output, state in (({"a": 1, "b": 1}, {"x": 1, "y": 1}), ({"b": 2}, {"y": 2})):
        response = await client.patch(f"{RUNS}{run_id}/", json={"output": output, "state": state})
    assert response.json()["output"] == {"a": 1, "b": 2}
    assert response.json()["state"] == {"mode": "background", "x": 1, "y": 2}
    removed = await client.patch(f"{RUNS}{run_id}/", json={"state_remove_keys": ["x", "mode"], "stage": "plan"})
    assert (removed.json()["state"], removed.json()["stage"]) == ({"y": 2}, "plan")
    emptied = await client.patch(f"{RUNS}{run_id}/", json={"output": None, "stage": None})
    assert (emptied.json()["output"], emptied.json()["stage"]) == (None, None)


async def test_update_removes_keys_before_merging(client: httpx.AsyncClient) -> None:
    body = {"state": {"mode": "interactive"}, "state_remove_keys": ["mode", "runtime_adapter"]}
    state = (await client.patch(f"{RUNS}{NOT_STARTED}/", json=body)).json()["state"]
    assert state["mode"] == "interactive"
    assert "runtime_adapter" not in state


async def test_update_replaces_values_that_are_not_objects(client: httpx.AsyncClient) -> None:
    response = await client.patch(f"{RUNS}{IN_PROGRESS}/", json={"output": "done", "state": [1]})
    assert (response.json()["output"], response.json()["state"]) == ("done", [1])
    assert response.json()["model"] is None
    assert (await client.patch(f"{RUNS}{IN_PROGRESS}/", json={"output": {"a": 1}})).json()["output"] == {"a": 1}


async def test_update_of_an_ended_run_returns_it_unchanged(client: httpx.AsyncClient) -> None:
    before = await run_detail(client, COMPLETED)
    response = await client.patch(f"{RUNS}{COMPLETED}/", json={"status": "cancelled", "output": {"a": 1}, "stage": "x"})
    assert response.status_code == 200
    after = response.json()
    assert {**after, "log_url": None} == {**before, "log_url": None}
    assert after["status"] == "completed"


async def test_cancel_of_an_active_run_is_accepted_and_can_take_effect_later(
    client: httpx.AsyncClient, clock: ManualClock, posthog: PostHog
) -> None:
    posthog.project.cancel_seconds = 1
    response = await client.post(f"{RUNS}{IN_PROGRESS}/cancel/", json={"reason": "no longer needed"})
    assert (response.status_code, response.json()["status"]) == (202, "in_progress")
    clock.advance(1)
    assert (await run_detail(client, IN_PROGRESS))["status"] == "cancelled"


async def test_cancel_of_a_run_that_was_not_started_ends_it(client: httpx.AsyncClient) -> None:
    response = await client.post(f"{RUNS}{NOT_STARTED}/cancel")
    assert (response.status_code, response.json()["status"]) == (202, "cancelled")


async def test_cancel_of_an_ended_run_returns_it_unchanged(client: httpx.AsyncClient) -> None:
    response = await client.post(f"{RUNS}{COMPLETED}/cancel/")
    assert (response.status_code, response.json()["status"]) == (200, "completed")


async def test_cancel_is_refused_for_a_local_run_and_fails_in_an_outage(client: httpx.AsyncClient) -> None:
    local = await client.post(f"{RUNS}{await create(client)}/cancel/")
    assert (local.status_code, local.json()) == (
        400,
        {"error": "Only cloud runs can be cancelled via this endpoint"},
    )
    outage = await client.post(f"{RUNS}{IN_PROGRESS}/cancel/", headers=OUTAGE)
    assert (outage.status_code, outage.json()) == (503, {"error": "Could not reach the run's workflow; try again"})


async def test_older_version_has_no_cancel(clock: ManualClock) -> None:
    posthog = PostHog(clock)
    posthog.has_cancel = False
    app = Starlette(routes=[Mount("/posthog", routes=posthog.routes())])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://simulator", headers=KEY
    ) as client:
        response = await client.post(f"{RUNS}{IN_PROGRESS}/cancel/")
    assert (response.status_code, response.json()["detail"]) == (404, "Endpoint not found.")


async def test_update_ignores_protected_state_keys(client: httpx.AsyncClient) -> None:
    body = {"state": {"sandbox_id": "mine"}, "state_remove_keys": ["sandbox_id"]}
    response = await client.patch(f"{RUNS}{IN_PROGRESS}/", json=body)
    assert response.json()["state"]["sandbox_id"] == "sb-simulated"


@pytest.mark.parametrize(
    ("body", "code", "attr"),
    [
        ({"statuss": "failed"}, "invalid_input", "statuss"),
        ({"status": "canceled"}, "invalid_choice", "status"),
        ({"environment": "cloud"}, "invalid_choice", "environment"),
        ({"state_remove_keys": []}, "invalid_input", "state_remove_keys"),
        ({"state_remove_keys": [1]}, "invalid_input", "state_remove_keys__0"),
        ({"state": None}, "null", "state"),
    ],
)
async def test_invalid_update_is_400_and_changes_nothing(
    client: httpx.AsyncClient, body: dict[str, Any], code: str, attr: str
) -> None:
    before = await run_detail(client, IN_PROGRESS)
    response = await client.patch(f"{RUNS}{IN_PROGRESS}/", json=body)
    assert response.status_code == 400
    assert (response.json()["code"], response.json()["attr"]) == (code, attr)
    assert await run_detail(client, IN_PROGRESS) == before


async def test_status_cancelled_stops_a_started_run(client: httpx.AsyncClient, clock: ManualClock) -> None:
    await client.post(f"{RUNS}{NOT_STARTED}/start/")
    clock.advance(3)
    response = await client.patch(f"{RUNS}{NOT_STARTED}/", json={"status": "cancelled"})
    assert (response.json()["status"], response.json()["completed_at"]) == ("cancelled", "2026-01-01T00:00:03.000Z")
    clock.advance(60)
    assert (await run_detail(client, NOT_STARTED))["status"] == "cancelled"


async def test_environment_local_stops_the_agent(client: httpx.AsyncClient, clock: ManualClock) -> None:
    await client.post(f"{RUNS}{NOT_STARTED}/start/")
    clock.advance(3)
    await client.patch(f"{RUNS}{NOT_STARTED}/", json={"environment": "local"})
    clock.advance(60)
    detail = await run_detail(client, NOT_STARTED)
    assert (detail["environment"], detail["status"]) == ("local", "in_progress")


async def test_start_returns_the_task_and_the_run_completes(client: httpx.AsyncClient, clock: ManualClock) -> None:
    started = await client.post(f"{RUNS}{NOT_STARTED}/start/", json={"pending_user_message": "Go"})
    assert started.status_code == 200
    assert started.json()["id"] == TASK
    assert started.json()["latest_run"]["id"] == NOT_STARTED
    assert started.json()["latest_run"]["state"]["pending_user_message"] == "Go"
    history = []
    for _ in range(12):
        detail = await run_detail(client, NOT_STARTED)
        history.append((detail["status"], detail["stage"]))
        clock.advance(1)
    assert list(dict.fromkeys(history)) == [
        ("queued", None),
        ("in_progress", "setup"),
        ("in_progress", "plan"),
        ("in_progress", "build"),
        ("in_progress", "review"),
        ("completed", "review"),
    ]
    assert detail["completed_at"] == "2026-01-01T00:00:10.000Z"
    assert detail["output"]["summary"]


async def test_second_start_of_a_queued_run_has_no_effect(client: httpx.AsyncClient, clock: ManualClock) -> None:
    await client.post(f"{RUNS}{NOT_STARTED}/start/")
    clock.advance(0.5)
    assert (await client.post(f"{RUNS}{NOT_STARTED}/start/")).status_code == 200
    clock.advance(9.5)
    assert (await run_detail(client, NOT_STARTED))["status"] == "completed"


async def test_start_of_a_local_or_completed_run_is_400(client: httpx.AsyncClient) -> None:
    response = await client.post(f"{RUNS}{COMPLETED}/start/")
    message = "Only queued or not_started cloud runs can be started (current status: completed)"
    assert (response.status_code, response.json()) == (400, {"error": message})
    local = await client.post(f"{RUNS}{await create(client)}/start/")
    assert (local.status_code, local.json()) == (400, {"error": "Only cloud runs can be started via this endpoint"})


async def test_start_with_unknown_artifacts_is_400_with_their_ids(client: httpx.AsyncClient) -> None:
    response = await client.post(f"{RUNS}{NOT_STARTED}/start/", json={"pending_user_artifact_ids": ["nope"]})
    assert (response.status_code, response.json()["missing_artifact_ids"]) == (400, ["nope"])
    assert (await run_detail(client, NOT_STARTED))["status"] == "not_started"


@pytest.mark.parametrize("run_id", [FAILED, NOT_STARTED])
async def test_resume_runs_in_the_cloud_again(client: httpx.AsyncClient, clock: ManualClock, run_id: str) -> None:
    resumed = (await client.post(f"{RUNS}{run_id}/resume_in_cloud/")).json()
    assert (resumed["status"], resumed["environment"]) == ("queued", "cloud")
    assert (resumed["completed_at"], resumed["error_message"]) == (None, None)
    again = await client.post(f"{RUNS}{run_id}/resume_in_cloud/")
    assert (again.status_code, again.json()) == (400, {"error": "Run is already active in cloud"})
    clock.advance(10)
    assert (await run_detail(client, run_id))["status"] == "completed"


async def test_failed_resume_changes_only_the_error_message(client: httpx.AsyncClient) -> None:
    before = await run_detail(client, COMPLETED)
    response = await client.post(f"{RUNS}{COMPLETED}/resume_in_cloud/", headers=OUTAGE)
    assert (response.status_code, response.json()) == (502, {"error": "Failed to start cloud workflow"})
    assert await run_detail(client, COMPLETED) == before | {
        "error_message": "Failed to start cloud workflow",
        "updated_at": "2026-01-01T00:00:00.000Z",
    }


async def test_set_output_replaces_the_output_and_completes_a_run_with_a_schema(client: httpx.AsyncClient) -> None:
    await client.patch(f"{RUNS}{IN_PROGRESS}/", json={"output": {"old": True}})
    response = await client.patch(f"{RUNS}{IN_PROGRESS}/set_output/", json={"output": {"summary": "ok"}})
    assert (response.json()["output"], response.json()["status"]) == ({"summary": "ok"}, "completed")
    assert response.json()["completed_at"] == "2026-01-01T00:00:00.000Z"


async def test_set_output_keeps_the_status_without_a_schema(client: httpx.AsyncClient) -> None:
    run_id = await create(client, FREE_TASK)
    path = f"{RUNS.replace(TASK, FREE_TASK)}{run_id}/set_output/"
    response = await client.patch(path, json={"output": "anything"})
    assert (response.json()["output"], response.json()["status"]) == ("anything", "not_started")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"pr_url": "x"}, "'summary' is a required property"),
        ({"summary": 1}, "1 is not of type 'string'"),
        ("done", "'done' is not of type 'object'"),
    ],
)
async def test_set_output_that_violates_the_schema_is_400(client: httpx.AsyncClient, output: Any, message: str) -> None:
    response = await client.patch(f"{RUNS}{IN_PROGRESS}/set_output/", json={"output": output})
    assert (response.status_code, response.json()) == (400, {"error": f"Output validation error: {message}"})
    assert (await run_detail(client, IN_PROGRESS))["status"] == "in_progress"


async def test_set_output_requires_an_output(client: httpx.AsyncClient) -> None:
    response = await client.patch(f"{RUNS}{IN_PROGRESS}/set_output/", json={})
    assert response.json() == drf_error("validation_error", "required", "This field is required.", "output")
