"""Long results are read in a few calls: each result names the call that reads on."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.truncation import Gap
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.results import advice_of
from mcp_taskruns.errors import InvalidArguments
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.calls import (
    INNGEST_COMPLETED,
    NO_FAULT,
    POSTHOG_COMPLETED,
    RENDER_COMPLETED,
    RENDER_FAILED,
    TASK,
    calling,
    json_response,
    opened,
)
from tests.servers.rest.driver import served

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

INNGEST_GET, INNGEST_WAIT = "inngest-get-function-run-status", "inngest-wait-for-run"
RENDER_GET, RENDER_WAIT, RENDER_LIST = "render-retrieve-task-run", "render-wait-for-run", "render-list-task-runs"
POSTHOG_GET = "posthog-retrieve-task-run"
MAX_CALLS = 6

TEXT = "".join(f'line {number}: "é" and more\n' for number in range(8_000))  # about 200 kB
LIST = [{"n": number, "text": "x" * 180} for number in range(1_000)]


@pytest.fixture
async def gateway(environment: dict[str, str]) -> AsyncIterator[Gateway]:
    async with opened(environment) as gateway:
        yield gateway


async def result_of(gateway: Gateway, tool: str, **arguments: Any) -> CallResult:
    async with calling(gateway, tool, arguments) as call:
        return (await call.finish(5)).outcome


def inngest_run(output: Any) -> Fault:
    """Return the response of Inngest's v1 API for a completed run."""
    run = {"run_id": INNGEST_COMPLETED, "status": "Completed", "output": output}
    return json_response({"data": run, "metadata": {"fetched_at": "2026-01-01T00:00:00Z", "cached_until": None}})


def render_run(run_id: str = RENDER_COMPLETED, **fields: Any) -> Fault:
    run: dict[str, Any] = {"id": run_id, "taskId": "tsk-1", "status": "completed", "results": [], "error": None}
    return json_response(run | fields)


def next_call(result: CallResult) -> tuple[str, dict[str, Any]] | None:
    """Return the tool, empty for the same one, and the arguments that the notes advise; None without advice."""
    notes = " ".join(result.notes)
    if found := re.search(r"To read on, call again with (\w+) (\"(?:[^\"\\]|\\.)*\")", notes):
        return "", {found[1]: json.loads(found[2])}
    if found := re.search(r"To read on, call ([\w-]+) with (\w+) (\"[^\"]+\") and (\w+) (\"(?:[^\"\\]|\\.)*\")", notes):
        return found[1], {found[2]: json.loads(found[3]), found[4]: json.loads(found[5])}
    return None


async def read_on(gateway: Gateway, tool: str, result: CallResult, **arguments: Any) -> list[CallResult]:
    """Make the calls that the notes of a result advise, one after the other, and return their results."""
    results: list[CallResult] = []
    while (following := next_call(result)) is not None:
        assert len(results) < MAX_CALLS, "the advice leads to too many calls"
        tool = following[0] or tool
        arguments = arguments | following[1]
        result = await result_of(gateway, tool, **arguments)
        results.append(result)
    return results


async def test_text_of_200_kb_is_read_in_a_few_calls(simulator: Simulator, gateway: Gateway) -> None:
    for _ in range(MAX_CALLS):
        simulator.fail_next("inngest", inngest_run(TEXT))
    result = await result_of(gateway, INNGEST_GET, runId=INNGEST_COMPLETED)
    text = result.value["data"]["output"].rpartition("… (")[0]
    parts = await read_on(gateway, INNGEST_GET, result, runId=INNGEST_COMPLETED)
    assert text + "".join(part.text for part in parts) == TEXT
    assert {part.media_type for part in parts} == {"text/plain"}
    assert len(simulator.requests) <= MAX_CALLS


async def test_list_of_200_kb_is_read_in_a_few_calls(simulator: Simulator, gateway: Gateway) -> None:
    for _ in range(MAX_CALLS):
        simulator.fail_next("inngest", inngest_run({"items": LIST}))
    result = await result_of(gateway, INNGEST_GET, runId=INNGEST_COMPLETED)
    items = result.value["data"]["output"]["items"]
    parts = await read_on(gateway, INNGEST_GET, result, runId=INNGEST_COMPLETED)
    assert items + [item for part in parts for item in part.value] == LIST
    assert all(len(part.text) <= 50_000 for part in parts)


async def test_item_500_of_a_list_is_read_in_one_call(simulator: Simulator, gateway: Gateway) -> None:
    simulator.fail_next("inngest", inngest_run({"items": LIST}))
    result = await result_of(gateway, INNGEST_GET, runId=INNGEST_COMPLETED, result_path="data.output.items[500]")
    assert result.value == LIST[500]
    assert json.loads(result.text) == LIST[500]
    assert next_call(result) is None


async def test_range_of_a_list_reports_its_place(simulator: Simulator, gateway: Gateway) -> None:
    simulator.fail_next("inngest", inngest_run({"items": LIST}))
    result = await result_of(gateway, INNGEST_GET, runId=INNGEST_COMPLETED, result_path="data.output.items[990:]")
    assert result.value == LIST[990:]
    assert "data.output.items: items 990 to 1,000 of 1,000" in result.notes


@pytest.mark.parametrize("output", [TEXT, {"items": LIST}], ids=["text", "list"])
async def test_wait_names_the_call_that_reads_on_in_the_output(
    output: Any, simulator: Simulator, gateway: Gateway
) -> None:
    for _ in range(MAX_CALLS):
        simulator.fail_next("inngest", inngest_run(output))
    result = await result_of(gateway, INNGEST_WAIT, runId=INNGEST_COMPLETED)
    tool, arguments = next_call(result) or ("", {})
    assert (tool, arguments["runId"]) == (INNGEST_GET, INNGEST_COMPLETED)
    parts = await read_on(gateway, INNGEST_WAIT, result)
    if output is TEXT:
        shown = result.value["result"].rpartition("… (")[0]
        assert shown + "".join(part.text for part in parts) == TEXT
    else:
        assert result.value["result"]["items"] + [item for part in parts for item in part.value] == LIST


async def test_wait_for_several_runs_names_the_run_that_is_truncated(simulator: Simulator, gateway: Gateway) -> None:
    simulator.fail_next("render", render_run(results=LIST))
    simulator.fail_next("render", render_run(RENDER_FAILED, results=[]))
    simulator.fail_next("render", render_run(results=LIST))
    result = await result_of(gateway, RENDER_WAIT, taskRunId=[RENDER_COMPLETED, RENDER_FAILED])
    tool, arguments = next_call(result) or ("", {})
    assert (tool, arguments["taskRunId"]) == (RENDER_GET, RENDER_COMPLETED)
    shown = result.value["runs"][0]["result"]
    part = await result_of(gateway, tool, **arguments)
    assert part.value[0] == LIST[len(shown)]


async def test_error_of_a_run_names_the_call_that_reads_on(simulator: Simulator, gateway: Gateway) -> None:
    for _ in range(3):
        simulator.fail_next("render", render_run(status="failed", error="Traceback: " + "y" * 90_000))
    result = await result_of(gateway, RENDER_WAIT, taskRunId=RENDER_COMPLETED)
    tool, arguments = next_call(result) or ("", {})
    assert (tool, arguments["result_path"].partition("[")[0]) == (RENDER_GET, "error")
    assert (await result_of(gateway, tool, **arguments)).text.strip("y") == ""


async def test_start_that_waits_names_the_call_that_reads_on(simulator: Simulator, gateway: Gateway) -> None:
    body = {"task": "demo-workflow/square", "input": [2]}
    started = await result_of(gateway, "render-run-task", body=body)
    simulator.fail_next("render", Fault(202, {"Content-Type": "application/json"}, started.text))
    simulator.fail_next("render", NO_FAULT)  # the stream
    simulator.fail_next("render", render_run(started.value["id"], results=LIST))
    result = await result_of(gateway, "render-run-task", body=body, wait_seconds=5)
    assert next_call(result) == (
        RENDER_GET,
        {"taskRunId": started.value["id"], "result_path": f"results[{len(result.value['result'])}:]"},
    )


async def test_write_names_the_call_that_reads_the_run(simulator: Simulator, gateway: Gateway) -> None:
    ids = {"task_id": TASK, "id": POSTHOG_COMPLETED}
    run = (await result_of(gateway, POSTHOG_GET, **ids)).value | {"output": {"items": LIST}}
    simulator.fail_next("posthog", json_response(run))
    result = await result_of(gateway, "posthog-update-task-run", **ids, body={"stage": "review"})
    kept = len(result.value["output"]["items"])
    assert next_call(result) == (POSTHOG_GET, {"id": POSTHOG_COMPLETED, "result_path": f"output.items[{kept}:]"})


async def test_structured_content_names_the_call_that_reads_on(simulator: Simulator, gateway: Gateway) -> None:
    simulator.fail_next("inngest", inngest_run({"items": LIST}))
    result = await result_of(gateway, INNGEST_GET, runId=INNGEST_COMPLETED)
    structured = result.structured or {}
    kept = len(structured["data"]["output"]["items"])
    assert 0 < kept < len(result.value["data"]["output"]["items"])
    assert structured["truncated"] == (
        f"data.output.items: {kept} of 1,000 items. The text of the result has more. "
        f'To read on, call again with result_path "data.output.items[{kept}:]".'
    )
    simulator.fail_next("inngest", inngest_run({"items": LIST}))
    waited = await result_of(gateway, INNGEST_WAIT, runId=INNGEST_COMPLETED)
    assert f'call {INNGEST_GET} with runId "{INNGEST_COMPLETED}"' in (waited.structured or {})["truncated"]


async def test_structured_content_of_a_part_names_places_in_the_whole_result(
    simulator: Simulator, gateway: Gateway
) -> None:
    simulator.fail_next("inngest", inngest_run({"items": LIST}))
    result = await result_of(gateway, INNGEST_GET, runId=INNGEST_COMPLETED, result_path="data.output")
    structured = result.structured or {}
    kept = len(structured["items"])
    assert 0 < kept < len(LIST)
    assert f'result_path "data.output.items[{kept}:]"' in structured["truncated"]


async def test_wait_for_more_runs_than_fit_advises_fewer_ids(environment: dict[str, str], simulator: Simulator) -> None:
    ids = [f"trn-{number}" for number in range(20)]
    for run_id in ids:
        simulator.fail_next("render", render_run(run_id))
    async with opened(environment, max_result_chars=1_000) as small:
        result = await result_of(small, RENDER_WAIT, taskRunId=ids)
    assert any(note.endswith("For the other runs call again with fewer ids.") for note in result.notes)


async def test_list_of_a_provider_that_ignores_paging_is_read_in_a_few_calls(
    simulator: Simulator, gateway: Gateway
) -> None:
    # Render's local server ignores limit and cursor.
    page = [
        {"taskRun": {"id": f"trn-{n}", "status": "running", "taskId": "t" * 150}, "cursor": f"c{n}"} for n in range(700)
    ]
    for _ in range(MAX_CALLS):
        simulator.fail_next("render", json_response(page))
    result = await result_of(gateway, RENDER_LIST, limit=20)
    parts = await read_on(gateway, RENDER_LIST, result, limit=20)
    assert result.value + [item for part in parts for item in part.value] == page
    assert len(parts) < MAX_CALLS


async def test_file_of_200_kb_is_read_in_a_few_calls(simulator: Simulator, gateway: Gateway) -> None:
    for _ in range(MAX_CALLS):
        simulator.fail_next("posthog", Fault(200, {"Content-Type": "text/markdown; charset=utf-8"}, TEXT))
    arguments: dict[str, Any] = {"task_id": TASK, "id": POSTHOG_COMPLETED, "body": {"storage_path": "tasks/a.md"}}
    tool = "posthog-download-artifact-through-backend"
    result = await result_of(gateway, tool, **arguments)
    parts = await read_on(gateway, tool, result, **arguments)
    assert result.text + "".join(part.text for part in parts) == TEXT


async def test_earlier_entries_of_a_log_are_read_with_a_range(environment: dict[str, str], gateway: Gateway) -> None:
    run = {"task_id": TASK, "id": POSTHOG_COMPLETED}
    whole = (await result_of(gateway, "posthog-get-task-run-logs", **run)).text
    async with opened(environment, max_result_chars=1_000) as small:
        last = await result_of(small, "posthog-get-task-run-logs", **run)
        found = re.search(r'call again with result_path "(\[:\d+\])"', last.notes[0])
        assert found is not None
        first = await result_of(small, "posthog-get-task-run-logs", **run, result_path=found[1])
        parts = await read_on(small, "posthog-get-task-run-logs", first, **run)
    assert first.text + "".join(part.text for part in parts) + last.text == whole


async def test_rest_returns_the_part_of_a_result(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", render_run(results=LIST))
    simulator.fail_next("render", render_run(results=["é" * 10]))
    async with served(environment) as side:
        path = f"/v1/task-runs/{RENDER_COMPLETED}"
        items = await side.client.get(path, params={"result_path": "results[500:502]"})
        text = await side.client.get(path, params={"result_path": "results[0][3:6]"})
        refused = await side.client.get(path, params={"result_path": "results["})
    assert items.json() == LIST[500:502]
    assert (text.text, text.headers["content-type"]) == ("ééé", "text/plain; charset=utf-8")
    assert refused.status_code == 400
    assert len(simulator.requests) == 2


async def test_path_that_is_not_valid_is_refused_before_a_request_is_sent(
    simulator: Simulator, gateway: Gateway
) -> None:
    async with calling(gateway, RENDER_GET, {"taskRunId": RENDER_COMPLETED, "result_path": "results["}) as call:
        await call.finish(5)
    assert isinstance(call.failure, InvalidArguments)
    assert call.failure.hint == "Nothing was sent."
    assert simulator.requests == []


async def test_place_that_a_result_lacks_is_an_error_with_the_members(simulator: Simulator, gateway: Gateway) -> None:
    simulator.fail_next("render", render_run())
    async with calling(gateway, RENDER_GET, {"taskRunId": RENDER_COMPLETED, "result_path": "output"}) as call:
        await call.finish(5)
    assert isinstance(call.failure, InvalidArguments)
    assert call.failure.to_line() == (
        "result_path: the result has no member output. The members of the result are: id, taskId, status, results, "
        "error."
    )


async def test_secret_cannot_be_read_in_pieces(
    simulator: Simulator, environment: dict[str, str], gateway: Gateway
) -> None:
    secret = environment["RENDER_API_KEY"]
    escaped = "".join(f"\\u{ord(character):04x}" for character in secret)
    body = '{"id": "trn-1", "status": "completed", "results": ["%s"]}' % escaped  # noqa: UP031  # braces
    for first in (0, 4):
        simulator.fail_next("render", Fault(200, {"Content-Type": "application/json"}, body))
        path = f"results[0][{first}:{first + 4}]"
        result = await result_of(gateway, RENDER_GET, taskRunId=RENDER_COMPLETED, result_path=path)
        assert result.text == "[secret]"[first : first + 4]


async def test_file_has_no_parts(simulator: Simulator, gateway: Gateway) -> None:
    simulator.fail_next("render", Fault(200, {"Content-Type": "image/png"}, "\x00"))
    async with calling(gateway, RENDER_GET, {"taskRunId": RENDER_COMPLETED, "result_path": "a"}) as call:
        await call.finish(5)
    assert isinstance(call.failure, InvalidArguments)
    assert call.failure.message == "result_path: the result is a file of type image/png, which has no parts"


async def test_empty_range_of_a_text_is_described(simulator: Simulator, gateway: Gateway) -> None:
    simulator.fail_next("render", render_run(results=["abc"]))
    result = await result_of(gateway, RENDER_GET, taskRunId=RENDER_COMPLETED, result_path="results[0][9:]")
    assert result.text == "results[0]: characters 3 to 3 of 3"


def test_tool_without_parts_advises_other_values_of_its_paging_arguments() -> None:
    listed = next(tool for tool in load_tools([]) if tool.name == RENDER_LIST)
    tool = replace(listed, server_arguments=frozenset(), runs=None)
    gaps = [Gap((), 5, 10, "items")]
    assert advice_of(tool, [])(gaps) == "For the rest call again with other values of cursor, limit."
    assert advice_of(replace(tool, input_schema={"properties": {}}), [])(gaps) == ""
