"""Runway's two operations: where the capability file and the provider differ, the client gets what the provider has.

Literals are from the official SDK (runwayml 5.24.0: _client.py, resources/tasks.py, types/task_retrieve_response.py)
and docs.dev.runwayml.com (API versioning, Errors).
"""

import json
from typing import Any

import pytest

from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.calls import (
    NO_FAULT,
    RUNWAY_CANCELLED,
    RUNWAY_FAILED,
    RUNWAY_FRESH,
    RUNWAY_SUCCEEDED,
    RUNWAY_TASKS,
    RUNWAY_THROTTLED,
    TRIES,
    outside,
    sent,
)
from tests.clock import pass_time
from tests.providers.driver import Caller, Sent, connected, methods, requests, wire

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

GET, DELETE = "runway-retrieve-task-status-and-output", "runway-cancel-delete-task"
SENT = {
    "accept": "application/json",
    "authorization": "Bearer key_simulated",
    "x-runway-version": "2024-11-06",
}
JSON = {"Content-Type": "application/json"}
DELETED = (
    "The task was deleted or cancelled, which no call undoes and after which it cannot be fetched, or the id is of "
    "another organization."
)


# W1 retrieve-task-status-and-output: "400 (no version header) before anything else; 404 with {id}"


@pytest.mark.parametrize(
    ("task", "status", "state"),
    [
        (RUNWAY_SUCCEEDED, "SUCCEEDED", "succeeded"),
        (RUNWAY_FAILED, "FAILED", "failed"),
        (RUNWAY_CANCELLED, "CANCELLED", "canceled"),
        (RUNWAY_THROTTLED, "THROTTLED", "queued"),
    ],
)
async def test_w1_a_task_is_asked_for_with_the_version_and_told_with_its_state(
    task: str, status: str, state: str, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call(GET, id=task)
    assert wire(simulator) == [Sent("GET", f"{RUNWAY_TASKS}/{task}", SENT)]
    assert (told.value["id"], told.value["status"]) == (task, status)
    (note,) = told.notes
    assert note.startswith(f"Run {task}: {state} ({status}")
    assert told.result.structured_content == told.value
    # types/task_retrieve_response.py: `cost` of what has ended, `estimatedCost` before
    assert ("cost" in told.value, "estimatedCost" in told.value) == (status != "THROTTLED", status == "THROTTLED")


async def test_w1_a_task_is_told_from_its_place_in_the_queue_to_its_output(caller: Caller) -> None:
    seen: list[tuple[str, str]] = []
    for seconds in (0, 3, 9, 9):
        await pass_time(seconds)
        told = await caller.call(GET, id=RUNWAY_FRESH)
        seen.append((told.value["status"], told.notes[0].partition(": ")[2].partition(" ")[0]))
    assert seen == [("THROTTLED", "queued"), ("PENDING", "queued"), ("RUNNING", "running"), ("SUCCEEDED", "succeeded")]


async def test_w1_how_far_a_task_is_is_told(caller: Caller) -> None:
    await caller.call(GET, id=RUNWAY_FRESH)
    await pass_time(12)
    told = await caller.call(GET, id=RUNWAY_FRESH)
    # 4 s to 20 s
    assert told.value["progress"] == pytest.approx(0.5, abs=0.1)


async def test_w1_why_a_task_failed_is_told(caller: Caller) -> None:
    told = await caller.call(GET, id=RUNWAY_FAILED)
    assert told.value["failure"] == "An unexpected error occurred."
    assert told.value["failureCode"] == "INTERNAL.BAD_OUTPUT.CODE01"


async def test_w1_each_reading_has_output_addresses_of_its_own(caller: Caller) -> None:
    first = await caller.call(GET, id=RUNWAY_SUCCEEDED)
    second = await caller.call(GET, id=RUNWAY_SUCCEEDED)
    assert first.value["output"][0].startswith("https://")
    assert first.value["output"] != second.value["output"]


async def test_w1_members_that_are_not_documented_are_passed_on(simulator: Simulator, caller: Caller) -> None:
    # runwayml/runway-api-mcp-server reads previewUrls; a failureCode may be missing, and so may the cost
    task = {
        "id": RUNWAY_FAILED,
        "status": "FAILED",
        "createdAt": "2026-01-01T00:00:00Z",
        "failure": "no",
        "previewUrls": [],
    }
    simulator.fail_next("runway", Fault(200, JSON, json.dumps(task)))
    told = await caller.call(GET, id=RUNWAY_FAILED)
    assert told.value == task
    assert told.result.structured_content == task


async def test_w1_a_status_that_is_not_documented_is_no_error(simulator: Simulator, caller: Caller) -> None:
    task = {"id": RUNWAY_FRESH, "status": "PROCESSING", "createdAt": "2026-01-01T00:00:00Z"}
    simulator.fail_next("runway", Fault(200, JSON, json.dumps(task)))
    told = await caller.call(GET, id=RUNWAY_FRESH)
    assert told.value == task
    assert told.notes == [f"Run {RUNWAY_FRESH}: unknown (PROCESSING)."]


@pytest.mark.parametrize("tool", [GET, DELETE])
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [({}, "id: is required"), ({"id": "task-1"}, "id: 'task-1' is not a 'uuid'")],
    ids=["none", "no uuid"],
)
async def test_w1_an_id_that_is_no_uuid_is_refused_before_it_is_sent(
    arguments: dict[str, Any], problem: str, tool: str, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call(tool, **arguments)
    assert (told.error["kind"], told.error["message"]) == ("validation", problem)
    assert requests(simulator) == []


async def test_w1_a_version_that_runway_refuses_is_told_to_be_our_mistake(simulator: Simulator, caller: Caller) -> None:
    issue = {"code": "invalid_value", "path": ["header", "X-Runway-Version"], "message": "Expected version 2027-01-01"}
    said = {"error": "Bad Request", "issues": [issue], "docUrl": "https://docs.dev.runwayml.com/api"}
    simulator.fail_next("runway", Fault(400, JSON, json.dumps(said)))
    told = await caller.call(GET, id=RUNWAY_SUCCEEDED)
    assert (told.error["kind"], told.error["status"]) == ("unsupported", 400)
    assert "Bad Request - header.X-Runway-Version: Expected version 2027-01-01" in told.error["message"]
    assert "mistake of this server" in told.error["hint"]


# W2 cancel-delete-task: "400; then JSON parse error on 204"


@pytest.mark.parametrize("task", [RUNWAY_THROTTLED, RUNWAY_FRESH])
async def test_w2_a_task_that_goes_on_is_cancelled_and_gone_for_good(
    task: str, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call(DELETE, id=task)
    path = f"{RUNWAY_TASKS}/{task}"
    assert wire(simulator) == [Sent("GET", path, SENT), Sent("DELETE", path, SENT), Sent("GET", path, SENT)]
    assert (told.value["cancelled"], told.value["status_before"], told.value["status"]) == (True, "queued", "canceled")
    assert told.value["next"] == "The run was cancelled."
    for tool in (GET, DELETE):
        gone = await caller.call(tool, id=task)
        assert (gone.error["kind"], gone.error["status"], gone.error["retryable"]) == ("not_found", 404, False)
        assert gone.error["hint"] == DELETED
    assert methods(simulator).count("DELETE") == 1


@pytest.mark.parametrize(
    ("task", "state"), [(RUNWAY_SUCCEEDED, "succeeded"), (RUNWAY_FAILED, "failed"), (RUNWAY_CANCELLED, "canceled")]
)
@pytest.mark.parametrize("arguments", [{}, {"delete_output": False}], ids=["unsaid", "false"])
async def test_w2_a_finished_task_is_not_deleted_with_its_output_unless_that_is_wanted(
    arguments: dict[str, Any], task: str, state: str, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call(DELETE, id=task, **arguments)
    assert sent(simulator) == [f"GET {RUNWAY_TASKS}/{task}"]
    assert (told.value["cancelled"], told.value["status"], "deleted" in told.value) == (False, state, False)
    assert told.value["next"].endswith("To delete it together with its output, pass delete_output: true.")
    assert (await caller.call(GET, id=task)).value["id"] == task


async def test_w2_a_finished_task_is_deleted_where_that_is_wanted(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call(DELETE, id=RUNWAY_SUCCEEDED, delete_output=True)
    path = f"{RUNWAY_TASKS}/{RUNWAY_SUCCEEDED}"
    # What is ours is not sent
    assert wire(simulator) == [Sent("GET", path, SENT), Sent("DELETE", path, SENT)]
    assert (told.value["deleted"], told.value["cancelled"]) == (True, False)
    assert told.value["next"] == "The run had already succeeded: it was deleted together with its output."
    assert (await caller.call(GET, id=RUNWAY_SUCCEEDED)).error["hint"] == DELETED


async def test_w2_a_task_of_an_unknown_status_is_not_deleted_unawares(simulator: Simulator, caller: Caller) -> None:
    simulator.fail_next("runway", Fault(200, JSON, json.dumps({"id": RUNWAY_SUCCEEDED, "status": "ARCHIVED"})))
    told = await caller.call(DELETE, id=RUNWAY_SUCCEEDED)
    assert (told.value["cancelled"], told.value["status"]) == (False, "unknown")
    assert "delete_output: true" in told.value["next"]
    assert methods(simulator) == ["GET"]


@pytest.mark.parametrize("fault", [Fault(truncate=True), Fault(503, body="busy")], ids=["cut", "503"])
async def test_w2_a_deletion_is_never_sent_twice(fault: Fault, simulator: Simulator, caller: Caller) -> None:
    # A second one would find the task finished, and delete its output
    simulator.fail_next("runway", NO_FAULT)
    simulator.fail_next("runway", fault)
    await caller.call(DELETE, id=RUNWAY_THROTTLED, within=10)
    assert methods(simulator).count("DELETE") == 1


async def test_w2_cancelling_is_listed_as_destructive(caller: Caller) -> None:
    hints = await caller.annotations(DELETE)
    assert (hints["readOnlyHint"], hints["destructiveHint"]) == (False, True)


# Both


@pytest.mark.parametrize("tool", [GET, DELETE])
async def test_without_a_key_the_variable_to_set_is_told(
    tool: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, RUNWAYML_API_SECRET=None) as caller:
        told = await caller.call(tool, id=RUNWAY_SUCCEEDED)
    assert told.error["kind"] == "auth"
    assert told.error["hint"].startswith("Set RUNWAYML_API_SECRET or RUNWAY_API_KEY in the server's environment")
    assert requests(simulator) == []


@pytest.mark.parametrize("tool", [GET, DELETE])
async def test_a_key_that_runway_refuses_is_told_with_its_variable(
    tool: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, RUNWAYML_API_SECRET="key_wrong") as caller:
        told = await caller.call(tool, id=RUNWAY_SUCCEEDED)
    assert (told.error["kind"], told.error["status"], told.error["retryable"]) == ("auth", 401, False)
    assert "RUNWAYML_API_SECRET" in told.error["hint"]
    assert "(key_...)" in told.error["hint"]
    assert "key_wrong" not in told.everything
    assert len(requests(simulator)) == 1


async def test_a_key_under_the_files_own_name_is_taken(simulator: Simulator, environment: dict[str, str]) -> None:
    async with connected(environment, RUNWAYML_API_SECRET=None, RUNWAY_API_KEY="key_1") as caller:
        await caller.call(GET, id=RUNWAY_SUCCEEDED)
    assert wire(simulator)[0].headers["authorization"] == "Bearer key_1"


# Errors: 429 is worth another try, after the time that Retry-After names
TOO_MANY = Fault(429, JSON | {"Retry-After": "7"}, '{"error": "Too many requests"}')


async def test_a_reading_that_was_too_many_is_made_after_the_time_that_runway_asks_for(
    simulator: Simulator, caller: Caller
) -> None:
    simulator.fail_next("runway", TOO_MANY)
    told = await caller.call(GET, id=RUNWAY_SUCCEEDED, within=8)
    assert told.value["status"] == "SUCCEEDED"
    assert len(requests(simulator)) == 2
    assert told.progress[0] == "the provider answered 429: Too many requests; trying again (1 of 3) in 7 s"


async def test_a_provider_that_goes_on_refusing_is_told_with_the_time_to_wait(
    simulator: Simulator, caller: Caller
) -> None:
    for _ in range(TRIES):
        simulator.fail_next("runway", TOO_MANY)
    told = await caller.call(GET, id=RUNWAY_SUCCEEDED, within=22)
    assert (told.error["kind"], told.error["retryable"], told.error["retry_after_s"]) == ("rate_limited", True, 7)
    assert len(requests(simulator)) == TRIES


async def test_a_deletion_that_was_too_many_is_left_to_the_caller(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    simulator.fail_next("runway", NO_FAULT)
    simulator.fail_next("runway", TOO_MANY)
    told = await caller.call(DELETE, id=RUNWAY_THROTTLED, within=10)
    assert (told.error["kind"], told.error["retry_after_s"]) == ("rate_limited", 7)
    assert methods(simulator).count("DELETE") == 1
    assert (await outside(environment, "GET", f"{RUNWAY_TASKS}/{RUNWAY_THROTTLED}"))["status"] == "THROTTLED"


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_what_runway_says_never_to_try_again_is_not(status: int, simulator: Simulator, caller: Caller) -> None:
    simulator.fail_next("runway", Fault(status, JSON, '{"error": "no"}'))
    told = await caller.call(GET, id=RUNWAY_SUCCEEDED)
    assert not told.error["retryable"]
    assert len(requests(simulator)) == 1
