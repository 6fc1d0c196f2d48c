"""Runway's two operations, where the provider differs from its capability file.

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
from tests.providers.driver import Caller, SentRequest, connected, sent_methods, sent_requests, server_requests

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

GET, DELETE = "runway-retrieve-task-status-and-output", "runway-cancel-delete-task"
HEADERS = {
    "accept": "application/json",
    "authorization": "Bearer key_simulated",
    "x-runway-version": "2024-11-06",
}
JSON = {"Content-Type": "application/json"}
DELETED = (
    "The task was deleted or cancelled, which no call undoes and after which it cannot be fetched, or the id is of "
    "another organization."
)


# retrieve-task-status-and-output


@pytest.mark.parametrize(
    ("task", "native_status", "status"),
    [
        (RUNWAY_SUCCEEDED, "SUCCEEDED", "succeeded"),
        (RUNWAY_FAILED, "FAILED", "failed"),
        (RUNWAY_CANCELLED, "CANCELLED", "canceled"),
        (RUNWAY_THROTTLED, "THROTTLED", "queued"),
    ],
)
async def test_runway_get_task_sends_the_version_and_returns_the_status(
    task: str, native_status: str, status: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call(GET, id=task)
    assert sent_requests(simulator) == [SentRequest("GET", f"{RUNWAY_TASKS}/{task}", HEADERS)]
    assert (result.value["id"], result.value["status"]) == (task, native_status)
    (note,) = result.notes
    assert note.startswith(f"Run {task}: {status} ({native_status}")
    assert result.structured_content == result.value
    # types/task_retrieve_response.py: `cost` with a terminal status, `estimatedCost` before
    assert ("cost" in result.value, "estimatedCost" in result.value) == (status != "queued", status == "queued")


async def test_runway_get_task_maps_every_status_of_a_task(caller: Caller) -> None:
    statuses: list[tuple[str, str]] = []
    for seconds in (0, 3, 9, 9):
        await pass_time(seconds)
        result = await caller.call(GET, id=RUNWAY_FRESH)
        statuses.append((result.value["status"], result.notes[0].partition(": ")[2].partition(" ")[0]))
    assert statuses == [
        ("THROTTLED", "queued"),
        ("PENDING", "queued"),
        ("RUNNING", "running"),
        ("SUCCEEDED", "succeeded"),
    ]


async def test_runway_get_task_returns_progress(caller: Caller) -> None:
    await caller.call(GET, id=RUNWAY_FRESH)
    await pass_time(12)
    result = await caller.call(GET, id=RUNWAY_FRESH)
    # The simulated task runs from 4 s to 20 s
    assert result.value["progress"] == pytest.approx(0.5, abs=0.1)


async def test_runway_get_task_returns_the_failure(caller: Caller) -> None:
    result = await caller.call(GET, id=RUNWAY_FAILED)
    assert result.value["failure"] == "An unexpected error occurred."
    assert result.value["failureCode"] == "INTERNAL.BAD_OUTPUT.CODE01"


async def test_runway_get_task_returns_new_output_urls(caller: Caller) -> None:
    first = await caller.call(GET, id=RUNWAY_SUCCEEDED)
    second = await caller.call(GET, id=RUNWAY_SUCCEEDED)
    assert first.value["output"][0].startswith("https://")
    assert first.value["output"] != second.value["output"]


async def test_runway_undocumented_fields_are_passed_through(simulator: Simulator, caller: Caller) -> None:
    # runwayml/runway-api-mcp-server reads previewUrls. failureCode and cost are optional
    task = {
        "id": RUNWAY_FAILED,
        "status": "FAILED",
        "createdAt": "2026-01-01T00:00:00Z",
        "failure": "no",
        "previewUrls": [],
    }
    simulator.fail_next("runway", Fault(200, JSON, json.dumps(task)))
    result = await caller.call(GET, id=RUNWAY_FAILED)
    assert result.value == task
    assert result.structured_content == task


async def test_runway_undocumented_status_is_unknown(simulator: Simulator, caller: Caller) -> None:
    task = {"id": RUNWAY_FRESH, "status": "PROCESSING", "createdAt": "2026-01-01T00:00:00Z"}
    simulator.fail_next("runway", Fault(200, JSON, json.dumps(task)))
    result = await caller.call(GET, id=RUNWAY_FRESH)
    assert result.value == task
    assert result.notes == [f"Run {RUNWAY_FRESH}: unknown (PROCESSING)."]


@pytest.mark.parametrize("tool", [GET, DELETE])
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [({}, "id: is required"), ({"id": "task-1"}, "id: 'task-1' is not a 'uuid'")],
    ids=["missing", "not-a-uuid"],
)
async def test_runway_invalid_task_id_is_rejected_before_sending(
    arguments: dict[str, Any], problem: str, tool: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call(tool, **arguments)
    assert (result.error["kind"], result.error["message"]) == ("validation", problem)
    assert server_requests(simulator) == []


async def test_runway_rejected_version_is_an_error_of_this_server(simulator: Simulator, caller: Caller) -> None:
    issue = {"code": "invalid_value", "path": ["header", "X-Runway-Version"], "message": "Expected version 2027-01-01"}
    body = {"error": "Bad Request", "issues": [issue], "docUrl": "https://docs.dev.runwayml.com/api"}
    simulator.fail_next("runway", Fault(400, JSON, json.dumps(body)))
    result = await caller.call(GET, id=RUNWAY_SUCCEEDED)
    assert (result.error["kind"], result.error["status"]) == ("unsupported", 400)
    assert "Bad Request - header.X-Runway-Version: Expected version 2027-01-01" in result.error["message"]
    assert "bug in this server" in result.error["hint"]


# cancel-delete-task


@pytest.mark.parametrize("task", [RUNWAY_THROTTLED, RUNWAY_FRESH])
async def test_runway_cancel_of_an_active_task_makes_it_unavailable(
    task: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call(DELETE, id=task)
    path = f"{RUNWAY_TASKS}/{task}"
    assert sent_requests(simulator) == [
        SentRequest("GET", path, HEADERS),
        SentRequest("DELETE", path, HEADERS),
        SentRequest("GET", path, HEADERS),
    ]
    assert (result.value["cancelled"], result.value["status_before"], result.value["status"]) == (
        True,
        "queued",
        "canceled",
    )
    assert result.value["next"] == "The run was cancelled."
    for tool in (GET, DELETE):
        missing = await caller.call(tool, id=task)
        assert (missing.error["kind"], missing.error["status"], missing.error["retryable"]) == ("not_found", 404, False)
        assert missing.error["hint"] == DELETED
    assert sent_methods(simulator).count("DELETE") == 1


@pytest.mark.parametrize(
    ("task", "status"), [(RUNWAY_SUCCEEDED, "succeeded"), (RUNWAY_FAILED, "failed"), (RUNWAY_CANCELLED, "canceled")]
)
@pytest.mark.parametrize("arguments", [{}, {"delete_output": False}], ids=["omitted", "false"])
async def test_runway_cancel_of_a_terminal_task_keeps_its_output(
    arguments: dict[str, Any], task: str, status: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call(DELETE, id=task, **arguments)
    assert sent(simulator) == [f"GET {RUNWAY_TASKS}/{task}"]
    assert (result.value["cancelled"], result.value["status"], "deleted" in result.value) == (False, status, False)
    assert result.value["next"].endswith("To have it deleted together with its output, pass delete_output: true.")
    assert (await caller.call(GET, id=task)).value["id"] == task


async def test_runway_delete_output_deletes_a_terminal_task(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call(DELETE, id=RUNWAY_SUCCEEDED, delete_output=True)
    path = f"{RUNWAY_TASKS}/{RUNWAY_SUCCEEDED}"
    # `delete_output` is not sent
    assert sent_requests(simulator) == [SentRequest("GET", path, HEADERS), SentRequest("DELETE", path, HEADERS)]
    assert (result.value["deleted"], result.value["cancelled"]) == (True, False)
    assert result.value["next"] == "The run had already succeeded: it was deleted together with its output."
    assert (await caller.call(GET, id=RUNWAY_SUCCEEDED)).error["hint"] == DELETED


async def test_runway_cancel_of_a_task_with_an_unknown_status_sends_no_delete(
    simulator: Simulator, caller: Caller
) -> None:
    simulator.fail_next("runway", Fault(200, JSON, json.dumps({"id": RUNWAY_SUCCEEDED, "status": "ARCHIVED"})))
    result = await caller.call(DELETE, id=RUNWAY_SUCCEEDED)
    assert (result.value["cancelled"], result.value["status"]) == (False, "unknown")
    assert "delete_output: true" in result.value["next"]
    assert sent_methods(simulator) == ["GET"]


@pytest.mark.parametrize("fault", [Fault(truncate=True), Fault(503, body="busy")], ids=["truncated", "503"])
async def test_runway_delete_is_never_retried(fault: Fault, simulator: Simulator, caller: Caller) -> None:
    # A second DELETE would delete the finished task and its output
    simulator.fail_next("runway", NO_FAULT)
    simulator.fail_next("runway", fault)
    await caller.call(DELETE, id=RUNWAY_THROTTLED, within=10)
    assert sent_methods(simulator).count("DELETE") == 1


async def test_runway_cancel_is_annotated_destructive(caller: Caller) -> None:
    hints = await caller.annotations(DELETE)
    assert (hints["readOnlyHint"], hints["destructiveHint"]) == (False, True)


# Both operations


@pytest.mark.parametrize("tool", [GET, DELETE])
async def test_runway_missing_key_error_names_the_variable(
    tool: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, RUNWAYML_API_SECRET=None) as caller:
        result = await caller.call(tool, id=RUNWAY_SUCCEEDED)
    assert result.error["kind"] == "auth"
    assert result.error["hint"].startswith("Set RUNWAYML_API_SECRET or RUNWAY_API_KEY in the server's environment")
    assert server_requests(simulator) == []


@pytest.mark.parametrize("tool", [GET, DELETE])
async def test_runway_invalid_key_error_names_the_variable(
    tool: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, RUNWAYML_API_SECRET="key_wrong") as caller:
        result = await caller.call(tool, id=RUNWAY_SUCCEEDED)
    assert (result.error["kind"], result.error["status"], result.error["retryable"]) == ("auth", 401, False)
    assert "RUNWAYML_API_SECRET" in result.error["hint"]
    assert "(key_...)" in result.error["hint"]
    assert "key_wrong" not in result.all_text
    assert len(server_requests(simulator)) == 1


async def test_runway_key_from_the_variable_of_the_capability_file_is_used(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected(environment, RUNWAYML_API_SECRET=None, RUNWAY_API_KEY="key_1") as caller:
        await caller.call(GET, id=RUNWAY_SUCCEEDED)
    assert sent_requests(simulator)[0].headers["authorization"] == "Bearer key_1"


# docs.dev.runwayml.com, Errors: retry a 429 after Retry-After
TOO_MANY = Fault(429, JSON | {"Retry-After": "7"}, '{"error": "Too many requests"}')


async def test_runway_get_task_retries_429_after_retry_after(simulator: Simulator, caller: Caller) -> None:
    simulator.fail_next("runway", TOO_MANY)
    result = await caller.call(GET, id=RUNWAY_SUCCEEDED, within=8)
    assert result.value["status"] == "SUCCEEDED"
    assert len(server_requests(simulator)) == 2
    assert result.progress[0] == 'the provider returned 429: "Too many requests"; retrying (1 of 3) in 7 s'


async def test_runway_repeated_429_is_an_error_with_retry_after(simulator: Simulator, caller: Caller) -> None:
    for _ in range(TRIES):
        simulator.fail_next("runway", TOO_MANY)
    result = await caller.call(GET, id=RUNWAY_SUCCEEDED, within=22)
    assert (result.error["kind"], result.error["retryable"], result.error["retry_after_s"]) == ("rate_limited", True, 7)
    assert len(server_requests(simulator)) == TRIES


async def test_runway_cancel_does_not_retry_429(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    simulator.fail_next("runway", NO_FAULT)
    simulator.fail_next("runway", TOO_MANY)
    result = await caller.call(DELETE, id=RUNWAY_THROTTLED, within=10)
    assert (result.error["kind"], result.error["retry_after_s"]) == ("rate_limited", 7)
    assert sent_methods(simulator).count("DELETE") == 1
    assert (await outside(environment, "GET", f"{RUNWAY_TASKS}/{RUNWAY_THROTTLED}"))["status"] == "THROTTLED"


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_runway_client_errors_are_not_retried(status: int, simulator: Simulator, caller: Caller) -> None:
    simulator.fail_next("runway", Fault(status, JSON, '{"error": "no"}'))
    result = await caller.call(GET, id=RUNWAY_SUCCEEDED)
    assert not result.error["retryable"]
    assert len(server_requests(simulator)) == 1
