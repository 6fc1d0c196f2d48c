"""Replicate: predictions from their start to their end.

Statuses and errors are those of the OpenAPI description 1.0.0-a1 and replicate.com/docs.
"""

from typing import Any

import pytest

from tests.more.provider import connected
from tests.more.replicate import LOGS, PAGE_SIZE, VERSION, Replicate

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]


async def test_start_waits_with_progress_until_the_prediction_has_succeeded() -> None:
    async with connected(Replicate()) as (replicate, caller):
        result = await caller.call(
            "replicate-create-prediction", version=VERSION, input={"text": "Alice"}, wait_seconds=30, within=30
        )
        run_id = replicate.runs["predictions"][0]["id"]
        assert {name: result.value[name] for name in ("run_id", "status", "native_status", "result", "error")} == {
            "run_id": run_id,
            "status": "succeeded",
            "native_status": "succeeded",
            "result": "hello Alice",
            "error": None,
        }
        assert result.progress[0] == f"started {run_id}: queued"
        assert result.progress[-1].endswith("succeeded")
        assert await replicate.received[0].json() == {"version": VERSION, "input": {"text": "Alice"}}
        assert set(replicate.requests) == {"POST /v1/predictions", f"GET /v1/predictions/{run_id}"}


@pytest.mark.parametrize(
    ("tool", "arguments", "path"),
    [
        (
            "replicate-create-model-prediction",
            {"model_owner": "meta", "model_name": "llama"},
            "/v1/models/meta/llama/predictions",
        ),
        (
            "replicate-create-deployment-prediction",
            {"deployment_owner": "acme", "deployment_name": "images"},
            "/v1/deployments/acme/images/predictions",
        ),
    ],
)
async def test_start_with_an_official_model_or_a_deployment(tool: str, arguments: dict[str, Any], path: str) -> None:
    async with connected(Replicate()) as (replicate, caller):
        started = await caller.call(tool, input={"text": "Alice"}, **arguments)
        assert started.value["status"] == "starting"
        waited = await caller.call("replicate-wait-for-run", prediction_id=started.value["id"], within=30)
        assert (waited.value["status"], waited.value["result"]) == ("succeeded", "hello Alice")
        assert replicate.requests[0] == f"POST {path}"


async def test_wait_reports_the_error_of_a_failed_prediction() -> None:
    async with connected(Replicate()) as (replicate, caller):
        result = await caller.call("replicate-wait-for-run", prediction_id=replicate.add("fail"), within=30)
        assert (result.value["status"], result.value["error"]) == ("failed", "no image")
        prediction = await caller.call("replicate-get-prediction", prediction_id=result.value["run_id"])
        assert (prediction.value["error"], prediction.value["logs"]) == ("no image", LOGS)


async def test_explain_shows_the_error_and_the_log_of_a_failed_prediction() -> None:
    async with connected(Replicate()) as (replicate, caller):
        run_id = replicate.add("fail")
        await caller.call("replicate-wait-for-run", prediction_id=run_id, within=30)
        result = await caller.call("replicate-explain-run", prediction_id=run_id)
        assert (result.value["status"], result.value["error"]) == ("failed", "no image")
        assert result.value["logs"] == {"run": LOGS.splitlines()}


async def test_cancel_reports_the_status_before_and_after() -> None:
    async with connected(Replicate()) as (replicate, caller):
        run_id = replicate.add("slow")
        result = await caller.call("replicate-cancel-prediction", prediction_id=run_id)
        assert (result.value["status_before"], result.value["status"]) == ("queued", "canceled")
        assert replicate.requests == [f"GET /v1/predictions/{run_id}", f"POST /v1/predictions/{run_id}/cancel"]
        again = await caller.call("replicate-cancel-prediction", prediction_id=run_id)
        assert (again.value["cancelled"], again.value["status"]) == (False, "canceled")
        assert replicate.requests[2:] == [f"GET /v1/predictions/{run_id}"]


async def test_list_continues_with_the_cursor_of_next() -> None:
    async with connected(Replicate()) as (replicate, caller):
        ids = [replicate.add("slow") for _ in range(PAGE_SIZE + 1)][::-1]
        first = await caller.call("replicate-list-predictions")
        assert [run["id"] for run in first.value["results"]] == ids[:PAGE_SIZE]
        assert "urls" not in first.value["results"][0]
        assert 'for the next page pass cursor "MTAw"' in first.notes[-1]
        second = await caller.call("replicate-list-predictions", cursor="MTAw")
        assert [run["id"] for run in second.value["results"]] == ids[PAGE_SIZE:]
        assert second.notes[-1] == "1 item: this is the end of the list."
        every = await caller.call("replicate-list-predictions", all_pages=True)
        assert [run["id"] for run in every.value["results"]] == ids


async def test_training_is_read_listed_and_cancelled() -> None:
    async with connected(Replicate()) as (replicate, caller):
        run_id = replicate.add("slow", kind="trainings")
        listed = await caller.call("replicate-list-trainings")
        assert [run["id"] for run in listed.value["results"]] == [run_id]
        assert (await caller.call("replicate-get-training", training_id=run_id)).value["status"] == "starting"
        assert (await caller.call("replicate-cancel-training", training_id=run_id)).value["status"] == "canceled"


async def test_error_of_an_unknown_prediction_names_the_tool_that_lists_them() -> None:
    async with connected(Replicate()) as (_, caller):
        error = (await caller.call("replicate-get-prediction", prediction_id="unknown")).error
        assert (error["kind"], error["status"]) == ("not_found", 404)
        assert "replicate-list-predictions" in error["hint"]


async def test_error_of_an_unknown_version_quotes_the_provider() -> None:
    async with connected(Replicate()) as (_, caller):
        error = (await caller.call("replicate-create-prediction", version="0", input={"text": "Alice"})).error
        assert (error["kind"], error["status"]) == ("validation", 422)
        assert "The specified version does not exist" in error["message"]


async def test_wrong_credential_is_an_error_that_names_the_variable_without_its_value() -> None:
    async with connected(Replicate(), REPLICATE_API_TOKEN="r8_wrong_credential") as (_, caller):
        result = await caller.call("replicate-list-predictions")
        assert result.error["kind"] == "auth"
        assert "REPLICATE_API_TOKEN" in result.error["hint"]
        assert "r8_wrong_credential" not in result.all_text


async def test_missing_credential_is_an_error_without_a_request() -> None:
    async with connected(Replicate(), REPLICATE_API_TOKEN=None) as (replicate, caller):
        error = (await caller.call("replicate-list-predictions")).error
        assert (error["kind"], replicate.requests) == ("auth", [])
        assert "REPLICATE_API_TOKEN" in error["hint"]


async def test_address_can_be_the_variable_of_the_sdk() -> None:
    async with connected(Replicate(), REPLICATE_BASE_URL=None, REPLICATE_API_BASE_URL="{origin}") as (_, caller):
        assert (await caller.call("replicate-list-predictions")).value["results"] == []


async def test_removed_output_is_reported() -> None:
    async with connected(Replicate()) as (replicate, caller):
        run_id = replicate.add("Alice")
        await caller.call("replicate-wait-for-run", prediction_id=run_id, within=30)
        replicate.remove_data(run_id)
        result = await caller.call("replicate-get-prediction", prediction_id=run_id)
        assert any("were removed, which Replicate does an hour after" in note for note in result.notes)
