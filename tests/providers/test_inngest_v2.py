"""Inngest's tools for v2, which are listed with an API key for it.

Literals are from Inngest's open-source server (inngest/inngest pkg/api/v2/endpoints_runs.go) and its responses.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.calls import (
    INNGEST_CANCELLED,
    INNGEST_COMPLETED,
    INNGEST_FAILED,
    INNGEST_FRESH,
    INNGEST_RUNNING,
    json_response,
    sent,
)
from tests.providers.driver import Caller, SentRequest, connected, sent_requests, server_requests

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

KEY = "sk-inn-api-test-simulated"
LIST, EVENT_RUNS, TRACE = "inngest-list-function-runs", "inngest-list-event-runs", "inngest-get-function-run-trace"
RETRY = "inngest-retry-run"
V2_TOOLS = {LIST, EVENT_RUNS, TRACE, RETRY}
HEADERS = {"accept": "application/json, */*;q=0.5", "authorization": f"Bearer {KEY}"}
UNKNOWN = "01HE0000000000000000000000"


@pytest.fixture
async def caller(environment: dict[str, str]) -> AsyncIterator[Caller]:
    """A client of a server that has an API key for v2 beside the signing key."""
    async with connected({**environment, "INNGEST_API_KEY_V2": KEY}) as caller:
        yield caller


@pytest.mark.parametrize(
    ("variables", "is_listed"),
    [
        ({}, False),
        ({"INNGEST_API_KEY": "signkey-prod-1234567890"}, False),
        ({"INNGEST_API_KEY": "sk-inn-api-1234567890"}, True),
        ({"INNGEST_API_KEY_V2": "1234567890"}, True),
        ({"INNGEST_API_KEY_V2": "", "INNGEST_API_KEY": "x-sk-inn-api-1234567890"}, False),
    ],
)
async def test_inngest_v2_tools_are_listed_with_an_api_key_for_v2(
    variables: Mapping[str, str], is_listed: bool, environment: dict[str, str]
) -> None:
    async with connected({**environment, **variables}) as caller:
        names = await caller.names()
    assert V2_TOOLS & set(names) == (V2_TOOLS if is_listed else set())
    assert len(names) == (44 if is_listed else 40)


@pytest.mark.parametrize(
    "variables",
    [
        {"INNGEST_API_KEY": KEY},
        {"INNGEST_API_KEY_V2": KEY, "INNGEST_API_KEY": "sk-inn-api-of-another-account"},
        {"INNGEST_API_KEY_V2": KEY, "INNGEST_SIGNING_KEY": "signkey-wrong"},
    ],
)
async def test_inngest_v2_tools_send_the_api_key(
    variables: Mapping[str, str], simulator: Simulator, environment: dict[str, str]
) -> None:
    async with connected({**environment, **variables}) as caller:
        await caller.call(LIST)
        await caller.call(EVENT_RUNS, eventId=INNGEST_FAILED.replace("RVN", "EVT"))
        await caller.call(TRACE, runId=INNGEST_FAILED)
    assert [request.headers for request in sent_requests(simulator)] == [HEADERS] * 3


async def test_inngest_tools_of_v1_send_the_signing_key_beside_an_api_key(simulator: Simulator, caller: Caller) -> None:
    await caller.call("inngest-get-function-run-status", runId=INNGEST_FAILED)
    (request,) = sent_requests(simulator)
    assert request.headers["authorization"] == "Bearer signkey-test-simulated"


async def test_inngest_list_sends_its_filters(simulator: Simulator, caller: Caller) -> None:
    arguments: dict[str, Any] = {
        "status": ["FAILED", "CANCELLED"],
        "appId": ["demo"],
        "functionId": ["sleepy", "fails"],
        "from": "2020-01-01T00:00:00Z",
        "until": "2120-01-01T00:00:00Z",
        "timeField": "startedAt",
        "order": "asc",
        "includeOutput": True,
        "limit": 2,
    }
    result = await caller.call(LIST, **arguments)
    query = (
        "status=FAILED&status=CANCELLED&appId=demo&functionId=sleepy&functionId=fails&from=2020-01-01T00%3A00%3A00Z"
        "&until=2120-01-01T00%3A00%3A00Z&timeField=startedAt&order=asc&includeOutput=true&limit=2"
    )
    assert sent_requests(simulator) == [SentRequest("GET", f"/inngest/v2/runs?{query}", HEADERS)]
    runs = [(run["id"], run["status"], run.get("output", {}).get("message")) for run in result.value["data"]]
    assert runs == [(INNGEST_FAILED, "FAILED", "boom: card declined"), (INNGEST_CANCELLED, "CANCELLED", None)]
    assert result.notes == ["2 items: this is the end of the list."]


async def test_inngest_list_names_the_cursor_of_the_next_page(caller: Caller) -> None:
    first = await caller.call(LIST, limit=4)
    cursor = first.value["page"]["cursor"]
    assert first.notes == [
        f'4 items; there are more: for the next page pass cursor "{cursor}", or all_pages true for as many as fit.'
    ]
    second = await caller.call(LIST, limit=4, cursor=cursor)
    assert second.notes == ["2 items: this is the end of the list."]
    runs = [run["id"] for run in first.value["data"] + second.value["data"]]
    assert len(set(runs)) == 6


async def test_inngest_list_reads_all_pages(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call(LIST, limit=2, all_pages=True, within=5)
    assert len({run["id"] for run in result.value["data"]}) == 6
    assert (len(server_requests(simulator)), result.value["page"]["hasMore"]) == (3, False)
    assert result.notes == ["6 items: this is the end of the list."]


async def test_inngest_list_goes_on_after_an_empty_page(simulator: Simulator, caller: Caller) -> None:
    # Inngest's cloud may return a cursor with an empty page: pkg/api/v2/endpoints_runs.go, listRuns
    simulator.fail_next("inngest", json_response({"data": [], "page": {"hasMore": True, "limit": 20, "cursor": ""}}))
    empty = await caller.call(LIST)
    assert empty.notes == ["There are no items."]
    page = {"hasMore": True, "limit": 20, "cursor": "c2"}
    simulator.fail_next("inngest", json_response({"data": [], "page": page}))
    simulator.fail_next("inngest", json_response({"data": [{"id": "1"}], "page": {"hasMore": False, "limit": 20}}))
    result = await caller.call(LIST, all_pages=True, within=5)
    assert result.value["data"] == [{"id": "1"}]


async def test_inngest_event_runs_are_those_of_the_event(simulator: Simulator, caller: Caller) -> None:
    event = INNGEST_COMPLETED.replace("RVN", "EVT")
    result = await caller.call(EVENT_RUNS, eventId=event)
    assert sent(simulator) == [f"GET /inngest/v2/events/{event}/runs"]
    assert [(run["id"], run["status"]) for run in result.value["data"]] == [(INNGEST_COMPLETED, "COMPLETED")]
    assert result.notes == ["1 item: this is the end of the list."]


async def test_inngest_event_without_runs_has_no_items(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call(EVENT_RUNS, eventId=UNKNOWN, all_pages=True)
    assert (result.value["data"], result.notes) == ([], ["There are no items."])
    # 40 is the most that this list takes
    assert server_requests(simulator)[0].path.endswith("?limit=40")


async def test_inngest_trace_shows_the_failed_step(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call(TRACE, runId=INNGEST_FAILED, includeOutput=True)
    assert sent(simulator) == [f"GET /inngest/v2/runs/{INNGEST_FAILED}/trace?includeOutput=true"]
    root = result.value["data"]["rootSpan"]
    (step,) = root["children"]
    assert (root["status"], step["name"], step["status"]) == ("FAILED", "charge-card", "FAILED")
    assert step["output"]["message"] == "boom: card declined"


@pytest.mark.parametrize(("run_id", "steps"), [(INNGEST_FRESH, ["RUNNING"]), (INNGEST_RUNNING, ["WAITING"])])
async def test_inngest_trace_shows_the_active_step(run_id: str, steps: list[str], caller: Caller) -> None:
    result = await caller.call(TRACE, runId=run_id)
    assert [step["status"] for step in result.value["data"]["rootSpan"]["children"]] == steps


@pytest.mark.parametrize(
    ("tool", "arguments", "kind", "status", "hint"),
    [
        (TRACE, {"runId": UNKNOWN}, "not_found", 404, "inngest-list-event-runs lists its runs"),
        (TRACE, {"runId": "nope"}, "validation", 400, "Ids are ULIDs"),
        (EVENT_RUNS, {"eventId": "nope"}, "validation", 400, "Ids are ULIDs"),
        (LIST, {"status": ["BROKEN"]}, "validation", 400, ""),
        (LIST, {"cursor": "nope"}, "validation", 400, ""),
    ],
)
async def test_inngest_errors_of_v2_have_a_kind_and_a_hint(
    tool: str, arguments: dict[str, Any], kind: str, status: int, hint: str, caller: Caller
) -> None:
    error = (await caller.call(tool, **arguments)).error
    assert (error["kind"], error["status"]) == (kind, status)
    assert hint in error["hint"]


async def test_inngest_invalid_key_for_v2_names_its_variable(environment: dict[str, str]) -> None:
    async with connected({**environment, "INNGEST_API_KEY_V2": "sk-inn-api-wrong-key"}) as caller:
        result = await caller.call(LIST)
    assert (result.error["kind"], result.error["status"]) == ("auth", 401)
    assert result.error["hint"].startswith("Check INNGEST_API_KEY_V2 or INNGEST_API_KEY or")
    assert "sk-inn-api-wrong-key" not in result.all_text


async def test_inngest_operation_that_an_older_server_lacks_is_explained(simulator: Simulator, caller: Caller) -> None:
    body = '{"errors":[{"code":"not_implemented","message":"List runs is not yet implemented"}]}'
    simulator.fail_next("inngest", Fault(501, {"Content-Type": "application/json"}, body))
    error = (await caller.call(LIST)).error
    assert (error["kind"], error["status"]) == ("config", 501)
    assert "does not have that part of v2" in error["hint"]


async def test_inngest_explain_shows_the_failed_step_with_a_key_for_v2(
    caller: Caller, environment: dict[str, str]
) -> None:
    explained = await caller.call("inngest-explain-run", runId=INNGEST_FAILED)
    (step,) = explained.value["steps"]
    assert (step["name"], step["status"], step["error"]) == ("charge-card", "FAILED", "boom: card declined")
    assert "call inngest-retry-run" in explained.value["next"]
    async with connected(environment) as without_key:
        explained = await without_key.call("inngest-explain-run", runId=INNGEST_FAILED)
    assert "retry-run" not in explained.value["next"]
    assert explained.value["error"] == "NonRetriableError: boom: card declined"


async def test_inngest_retry_reruns_an_ended_run_as_a_new_one(simulator: Simulator, caller: Caller) -> None:
    retried = await caller.call(RETRY, runId=INNGEST_COMPLETED, wait_seconds=10, within=10)
    new = retried.value["run_id"]
    assert (retried.value["retry_of"], retried.value["status"]) == (INNGEST_COMPLETED, "succeeded")
    assert sent(simulator)[:3] == [
        f"GET /inngest/v1/runs/{INNGEST_COMPLETED}",
        f"POST /inngest/v2/runs/{INNGEST_COMPLETED}/rerun",
        f"GET /inngest/v1/runs/{new}",
    ]
    assert sent_requests(simulator)[1].headers["authorization"] == f"Bearer {KEY}"
    listed = await caller.call(EVENT_RUNS, eventId=INNGEST_COMPLETED.replace("RVN", "EVT"))
    assert {run["id"] for run in listed.value["data"]} == {INNGEST_COMPLETED, new}


async def test_inngest_run_of_a_cron_cannot_be_rerun(simulator: Simulator, caller: Caller) -> None:
    await caller.call("inngest-get-function-run-status", runId=INNGEST_FAILED)
    text = "Rerunning cron-triggered runs is not yet supported"
    body = f'{{"errors":[{{"code":"not_implemented","message":"{text}"}}]}}'
    simulator.fail_next("inngest", json_response({"data": {"run_id": INNGEST_FAILED, "status": "Failed"}}))
    simulator.fail_next("inngest", Fault(501, {"Content-Type": "application/json"}, body))
    error = (await caller.call(RETRY, runId=INNGEST_FAILED)).error
    assert (error["kind"], error["status"]) == ("unsupported", 501)
    assert "next scheduled run" in error["hint"]


async def test_inngest_key_for_v2_is_redacted_in_results_of_v1(simulator: Simulator, caller: Caller) -> None:
    run = {"run_id": INNGEST_FAILED, "status": "Failed", "output": f"key {KEY}"}
    simulator.fail_next("inngest", json_response({"data": run}))
    result = await caller.call("inngest-get-function-run-status", runId=INNGEST_FAILED)
    assert KEY not in result.all_text
