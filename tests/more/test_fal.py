"""fal: requests from their submission to their end.

Statuses and errors are those of the OpenAPI description v1 and, where it differs, of fal.ai/docs.
"""

import json
from typing import Any

import pytest

from tests.more.fal import ERROR, OUTPUT, Fal
from tests.more.provider import connected

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

MODEL: dict[str, Any] = {"model_owner": "fal-ai", "model_name": "fast-sdxl"}


async def submitted(caller: Any, prompt: str) -> Any:
    """Submit a request, and return the arguments that name it."""
    started = await caller.call("fal-submit-request", input={"prompt": prompt}, **MODEL)
    return {**MODEL, "request_id": started.value["request_id"]}


@pytest.mark.parametrize("documented", [False, True])
async def test_start_waits_with_progress_and_reads_the_result_once(documented: bool) -> None:
    async with connected(Fal(documented=documented)) as (fal, caller):
        result = await caller.call("fal-submit-request", input={"prompt": "a cat"}, wait_seconds=30, within=30, **MODEL)
        assert (result.value["status"], result.value["result"]) == ("succeeded", OUTPUT)
        assert result.progress[0].startswith(f"started {result.value['run_id']}")
        results = [sent for sent in fal.requests if sent.endswith(result.value["run_id"])]
        assert results == [f"GET /fal-ai/fast-sdxl/requests/{result.value['run_id']}"]


async def test_model_with_an_id_of_many_parts() -> None:
    async with connected(Fal()) as (fal, caller):
        await caller.call(
            "fal-submit-endpoint-request",
            model_owner="fal-ai",
            model_name="kling-video",
            endpoint_path="v2/master/text-to-video",
            input={"prompt": "a cat"},
        )
        assert fal.requests == ["POST /fal-ai/kling-video/v2/master/text-to-video"]


@pytest.mark.parametrize("documented", [False, True])
async def test_failed_request_is_explained(documented: bool) -> None:
    async with connected(Fal(documented=documented)) as (_, caller):
        run = await submitted(caller, "fail")
        waited = await caller.call("fal-wait-for-run", within=30, **run)
        assert (waited.value["status"], waited.value["result"]) == ("failed", None)
        explained = await caller.call("fal-explain-run", **run)
        assert explained.value["status"] == "failed"
        assert ERROR in explained.value["logs"]["run"][-1]
        assert len(json.dumps(explained.value)) < 2_000


@pytest.mark.parametrize("documented", [False, True])
async def test_cancel_of_an_active_and_of_an_ended_request(documented: bool) -> None:
    async with connected(Fal(documented=documented)) as (fal, caller):
        run = await submitted(caller, "slow")
        canceled = await caller.call("fal-cancel-request", within=30, **run)
        assert canceled.value["status_before"] in {"queued", "running"}
        assert canceled.value["terminal"] is True
        sent = len([one for one in fal.requests if one.startswith("PUT")])
        again = await caller.call("fal-cancel-request", within=30, **run)
        assert again.value["cancelled"] is False
        assert len([one for one in fal.requests if one.startswith("PUT")]) == sent


async def test_request_that_does_not_exist() -> None:
    async with connected(Fal()) as (_, caller):
        missing = await caller.call(
            "fal-get-request-status", request_id="80e732af-660e-45cd-bd63-580e4f2a94cc", **MODEL
        )
        assert missing.error["kind"] == "not_found"


async def test_wrong_key_is_an_error_that_names_its_variable() -> None:
    async with connected(Fal(), FAL_KEY="wrong-id:wrong-secret") as (_, caller):
        refused = await caller.call("fal-submit-request", input={"prompt": "a cat"}, **MODEL)
        assert refused.error["kind"] == "auth"
        assert "FAL_KEY" in refused.error["hint"]
        assert "wrong-secret" not in refused.all_text


async def test_start_whose_response_has_no_status_waits_too() -> None:
    async with connected(Fal(shows_start=False)) as (_, caller):
        result = await caller.call("fal-submit-request", input={"prompt": "a cat"}, wait_seconds=30, within=30, **MODEL)
        assert (result.value["status"], result.value["result"]) == ("succeeded", OUTPUT)


async def test_request_that_completed_with_an_error_of_no_type_has_failed() -> None:
    async with connected(Fal(documented=True, error_type="")) as (_, caller):
        waited = await caller.call("fal-wait-for-run", within=30, **await submitted(caller, "fail"))
        assert (waited.value["status"], waited.value["error"]) == ("failed", ERROR)
