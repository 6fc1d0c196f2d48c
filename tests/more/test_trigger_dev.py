"""Trigger.dev: runs of tasks from their start to their end.

Statuses and errors are those of its OpenAPI description and trigger.dev/docs.
"""

import json
from typing import Any

import pytest

from tests.more.provider import connected
from tests.more.trigger_dev import KEY, OUTPUT, TriggerDev

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

FIRST = "run_1234"


async def test_start_waits_with_progress_until_the_run_has_completed() -> None:
    async with connected(TriggerDev()) as (trigger, caller):
        result = await caller.call(
            "trigger-dev-run-task",
            taskIdentifier="my-task",
            body={"payload": {"userId": "user_1"}, "options": {"tags": ["user_1"]}},
            wait_seconds=40,
            within=40,
        )
        assert {name: result.value[name] for name in ("run_id", "status", "native_status", "result")} == {
            "run_id": FIRST,
            "status": "succeeded",
            "native_status": "COMPLETED",
            "result": OUTPUT,
        }
        assert result.progress[0] == f"started {FIRST}"
        assert [text for text in result.progress if "running" in text] != []
        body = await trigger.received[0].json()
        assert body == {
            "payload": {"userId": "user_1"},
            "options": {"tags": ["user_1"], "idempotencyKey": result.value["idempotency_key"]},
        }
        assert {*trigger.requests} == {"POST /api/v1/tasks/my-task/trigger", f"GET /api/v3/runs/{FIRST}"}


async def test_repeated_start_with_a_key_returns_the_first_run() -> None:
    async with connected(TriggerDev()) as (trigger, caller):
        body = {"options": {"idempotencyKey": "order-1234"}}
        for _ in range(2):
            started = await caller.call("trigger-dev-run-task", taskIdentifier="my-task", body=body)
            assert started.value["id"] == FIRST
        assert len(trigger.runs) == 1


async def test_output_that_the_run_leaves_out_is_read_from_its_result() -> None:
    async with connected(TriggerDev()) as (trigger, caller):
        run_id = trigger.add("my-task")
        trigger.large_outputs.add(run_id)
        result = await caller.call("trigger-dev-wait-for-run", runId=run_id, within=40)
        assert (result.value["status"], result.value["result"]) == ("succeeded", OUTPUT)
        assert trigger.requests.count(f"GET /api/v1/runs/{run_id}/result") == 1


async def test_failed_run_is_explained_with_its_error_its_subtasks_and_its_log() -> None:
    async with connected(TriggerDev()) as (trigger, caller):
        run_id = trigger.add("failing-task")
        waited = await caller.call("trigger-dev-wait-for-run", runId=run_id, within=60)
        assert (waited.value["status"], waited.value["attempts"]) == ("failed", 2)
        assert waited.value["error"]["message"] == "Something went wrong"
        trigger.received.clear()
        value = (await caller.call("trigger-dev-explain-run", runId=run_id)).value
        assert (value["status"], value["native_status"], value["attempts"]) == ("failed", "FAILED", 2)
        assert value["error"] == "Error: Something went wrong"
        assert len(value["earlier_attempts"]) == 1
        assert value["steps"] == [
            {"name": "child-task", "status": "FAILED", "seconds": 2.5},
            {"name": "other-task", "status": "COMPLETED"},
        ]
        assert value["logs"] == {
            "run": [
                "2024-06-25T15:45:26Z LOG starting",
                "2024-06-25T15:45:26Z ERROR attempt 2 Something went wrong",
            ]
        }
        assert "trigger-dev-retry-run" in value["next"]
        assert len(json.dumps(value)) < 1_500 * 4
        assert {*trigger.requests} == {f"GET /api/v3/runs/{run_id}", f"GET /api/v1/runs/{run_id}/events"}


async def test_explanation_stands_without_events() -> None:
    async with connected(TriggerDev()) as (trigger, caller):
        run_id = trigger.add("failing-task")
        trigger.has_events = False
        value = (await caller.call("trigger-dev-explain-run", runId=run_id)).value
        assert value["status"] == "queued"
        assert [text for text in value["unavailable"] if text.startswith("log: ")] != []


async def test_cancel_reports_the_status_before_and_after() -> None:
    async with connected(TriggerDev()) as (trigger, caller):
        run_id = trigger.add("slow-task")
        result = await caller.call("trigger-dev-cancel-run", runId=run_id, within=10)
        assert (result.value["status_before"], result.value["status"]) == ("queued", "canceled")
        again = await caller.call("trigger-dev-cancel-run", runId=run_id)
        assert (again.value["cancelled"], again.value["status"]) == (False, "canceled")
        assert trigger.requests.count(f"POST /api/v2/runs/{run_id}/cancel") == 1


async def test_list_has_pages_and_filters() -> None:
    async with connected(TriggerDev()) as (trigger, caller):
        ids = [trigger.add("slow-task") for _ in range(29)][::-1]
        trigger.add("delayed-task")
        page: dict[str, Any] = {"filter[taskIdentifier]": ["slow-task"], "page[size]": 10}
        first = await caller.call("trigger-dev-list-runs", **page)
        assert [run["id"] for run in first.value["data"]] == ids[:10]
        assert any(ids[9] in note for note in first.notes)
        page_after: dict[str, Any] = {**page, "page[after]": ids[9]}
        second = await caller.call("trigger-dev-list-runs", **page_after)
        assert [run["id"] for run in second.value["data"]] == ids[10:20]
        every = await caller.call("trigger-dev-list-runs", **page, all_pages=True)
        assert [run["id"] for run in every.value["data"]] == ids
        wanted: dict[str, Any] = {"filter[status]": ["DELAYED", "FAILED"]}
        delayed = await caller.call("trigger-dev-list-runs", **wanted)
        assert [run["taskIdentifier"] for run in delayed.value["data"]] == ["delayed-task"]
        assert trigger.requests[-1] == "GET /api/v1/runs?filter%5Bstatus%5D=DELAYED,FAILED"


async def test_retry_starts_another_run_and_waits_for_it() -> None:
    async with connected(TriggerDev()) as (trigger, caller):
        run_id = trigger.add("my-task", {"userId": "user_1"})
        trigger.end(run_id, "FAILED")
        result = await caller.call("trigger-dev-retry-run", runId=run_id, wait_seconds=40, within=40)
        assert (result.value["run_id"], result.value["retry_of"]) == ("run_1235", run_id)
        assert (result.value["status"], result.value["result"]) == ("succeeded", OUTPUT)
        assert trigger.runs[0]["payload"] == {"userId": "user_1"}


async def test_result_events_and_trace_are_read() -> None:
    async with connected(TriggerDev()) as (trigger, caller):
        run_id = trigger.add("my-task")
        error = (await caller.call("trigger-dev-get-run-result", runId=run_id)).error
        assert (error["kind"], error["status"]) == ("not_found", 404)
        assert "has not completed yet" in error["hint"]
        trigger.end(run_id, "COMPLETED")
        result = (await caller.call("trigger-dev-get-run-result", runId=run_id)).value
        assert (result["ok"], json.loads(result["output"])) == (True, OUTPUT)
        events = (await caller.call("trigger-dev-list-run-events", runId=run_id)).value["events"]
        assert [event["message"] for event in events] == ["starting", "attempt 2"]
        assert "style" not in events[0]
        trace = (await caller.call("trigger-dev-get-run-trace", runId=run_id)).value["trace"]
        assert trace["rootSpan"]["children"][0]["data"]["message"] == "step 1"


async def test_run_that_has_a_delay_is_rescheduled() -> None:
    async with connected(TriggerDev()) as (trigger, caller):
        run_id = trigger.add("delayed-task")
        result = await caller.call("trigger-dev-reschedule-run", runId=run_id, delay="1hr")
        assert result.value["status"] == "DELAYED"
        assert await trigger.received[-1].json() == {"delay": "1hr"}
        shown = await caller.call("trigger-dev-get-run", runId=run_id)
        assert any("trigger-dev-reschedule-run" in note for note in shown.notes)


async def test_wrong_credential_is_an_error_that_names_the_variable_without_its_value() -> None:
    async with connected(TriggerDev(), TRIGGER_SECRET_KEY="tr_dev_wrong_credential") as (_, caller):
        result = await caller.call("trigger-dev-list-runs")
        assert result.error["kind"] == "auth"
        assert "TRIGGER_SECRET_KEY" in result.error["hint"]
        assert "tr_dev_wrong_credential" not in result.all_text


@pytest.mark.parametrize("tool", ["get-run", "wait-for-run", "explain-run", "cancel-run", "retry-run"])
async def test_error_of_an_unknown_run_names_the_tool_that_lists_them(tool: str) -> None:
    async with connected(TriggerDev()) as (_, caller):
        error = (await caller.call(f"trigger-dev-{tool}", runId="run_0", within=10)).error
        assert (error["kind"], error["status"]) == ("not_found", 404)
        assert "trigger-dev-list-runs" in error["hint"]


async def test_error_of_an_unknown_task_is_about_the_environment_of_the_key() -> None:
    async with connected(TriggerDev()) as (_, caller):
        error = (await caller.call("trigger-dev-run-task", taskIdentifier="none", body={})).error
        assert (error["kind"], error["status"]) == ("not_found", 404)
        assert "no such task in the environment of the key" in error["hint"]


async def test_error_of_a_list_names_the_invalid_filter() -> None:
    async with connected(TriggerDev()) as (_, caller):
        wanted: dict[str, Any] = {"filter[status]": ["DEQUEUED"]}
        error = (await caller.call("trigger-dev-list-runs", **wanted)).error
        assert error["kind"] == "validation"
        assert "Invalid status values: DEQUEUED" in error["message"]


async def test_address_has_a_default_name_too() -> None:
    async with connected(TriggerDev(), TRIGGER_API_URL=None, TRIGGER_DEV_BASE_URL="{origin}") as (_, caller):
        assert (await caller.call("trigger-dev-list-runs")).value["data"] == []
    assert KEY.startswith("tr_dev_")
