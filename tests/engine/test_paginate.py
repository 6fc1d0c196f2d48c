"""Lists and logs page by page from the simulated providers: no item is missing or repeated."""

import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.errors import CallError, ProviderError
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from mcp_taskruns.simulator.lifecycle import ManualClock
from tests.calls import (
    ALL_TRIES_S,
    NO_FAULT,
    POSTHOG_COMPLETED,
    POSTHOG_NOT_STARTED,
    POSTHOG_RUNS,
    TASK,
    TRIES,
    Call,
    calling,
    json_response,
    opened,
    sent,
)

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

RENDER_LIST, RENDER_TASKS = "render-list-task-runs", "render-list-tasks"
POSTHOG_LIST = "posthog-list-task-runs"
SESSION_LOG, COMPLETE_LOG = "posthog-get-filtered-task-run-session", "posthog-get-task-run-logs"
RUN_WITH_LOG = {"task_id": TASK, "id": POSTHOG_COMPLETED}
MIN_CHARS = 1000
"""The least value of `max_result_chars`."""

SQUARE, SLOW, OWNER = "demo-workflow/square", "demo-workflow/slow", "tea-d5im0000000000000001"


@pytest.fixture
def simulator() -> Simulator:
    """Simulated providers whose timestamps start at a fixed date."""
    return Simulator(clock=ManualClock())


@pytest.fixture
async def gateway(environment: dict[str, str]) -> AsyncIterator[Gateway]:
    async with opened(environment) as gateway:
        yield gateway


async def start_render_runs(environment: dict[str, str], count: int) -> None:
    """Start runs at Render as another client, in addition to the four initial ones."""
    headers = {"Authorization": f"Bearer {environment['RENDER_API_KEY']}"}
    async with httpx.AsyncClient(base_url=environment["RENDER_BASE_URL"], headers=headers) as client:
        for number in range(count):
            (await client.post("/task-runs", json={"task": SQUARE, "input": [number]})).raise_for_status()


async def create_posthog_runs(environment: dict[str, str], count: int) -> None:
    """Create runs at PostHog as another client, in addition to the four initial ones."""
    headers = {"Authorization": f"Bearer {environment['POSTHOG_API_KEY']}"}
    url = environment["POSTHOG_BASE_URL"] + POSTHOG_RUNS.removeprefix("/posthog") + "/"
    async with httpx.AsyncClient(headers=headers) as client:
        for _ in range(count):
            (await client.post(url, json={"environment": "cloud"})).raise_for_status()


async def finished(gateway: Gateway, tool: str, arguments: dict[str, Any], seconds: float = 5) -> Call:
    """Make a call and return it when it is over."""
    async with calling(gateway, tool, arguments) as call:
        return await call.finish(seconds)


async def result_of(gateway: Gateway, tool: str, **arguments: Any) -> CallResult:
    """Make a call and return its result."""
    return (await finished(gateway, tool, arguments)).outcome


def page_note(outcome: CallResult) -> str:
    """Return the note about the page, of which there is exactly one."""
    (note,) = [note for note in outcome.notes if re.match(r"Items? |\d+ items?|There are no", note)]
    return note


def ids_of(outcome: CallResult) -> list[str]:
    """Return the IDs of the listed runs or tasks."""
    if isinstance(outcome.value, dict):
        return [run["id"] for run in outcome.value["results"]]
    return [(item.get("taskRun") or item["task"])["id"] for item in outcome.value]


def entries_of(outcome: CallResult) -> list[Any]:
    """Return the log entries of a result."""
    return [json.loads(line) for line in outcome.text.splitlines()]


async def all_ids(gateway: Gateway, tool: str, **arguments: Any) -> list[str]:
    """Return the IDs of all items, read in one page."""
    outcome = await result_of(gateway, tool, limit=100, **arguments)
    assert page_note(outcome).endswith("this is the end of the list.")
    return ids_of(outcome)


async def follow_notes(gateway: Gateway, tool: str, arguments: dict[str, Any]) -> list[CallResult]:
    """Call again with the argument that each note names until there is no next page; return the results."""
    pages: list[CallResult] = []
    for _ in range(100):
        pages.append(await result_of(gateway, tool, **arguments))
        match = re.search(r"for the next page pass (\w+) (.+), or all_pages true", page_note(pages[-1]))
        if match is None:
            return pages
        name, value = match.group(1), json.loads(match.group(2))
        assert arguments.get(name) != value, "the note names the same page again"
        arguments = {**arguments, name: value}
    raise AssertionError("the list does not end")


PAGE_ARGUMENTS: list[dict[str, Any]] = [{}, {"limit": 3}, {"all_pages": True}, {"all_pages": True, "limit": 2}]


@pytest.mark.parametrize("max_chars", [MIN_CHARS, 3000, 50_000])
@pytest.mark.parametrize("arguments", PAGE_ARGUMENTS, ids=str)
async def test_following_the_next_page_notes_returns_each_render_run_once(
    arguments: dict[str, Any], max_chars: int, environment: dict[str, str], gateway: Gateway
) -> None:
    await start_render_runs(environment, 20)
    async with opened(environment, max_result_chars=max_chars) as small:
        pages = await follow_notes(small, RENDER_LIST, arguments)
    assert [run for page in pages for run in ids_of(page)] == await all_ids(gateway, RENDER_LIST)
    assert all(len(page.text) <= max_chars for page in pages)
    assert (len(pages) > 3) is (max_chars == MIN_CHARS or arguments == {"limit": 3})


@pytest.mark.parametrize("arguments", PAGE_ARGUMENTS, ids=str)
async def test_following_the_next_page_notes_returns_each_posthog_run_once(
    arguments: dict[str, Any], environment: dict[str, str], gateway: Gateway
) -> None:
    await create_posthog_runs(environment, 6)
    async with opened(environment, max_result_chars=MIN_CHARS) as small:
        pages = await follow_notes(small, POSTHOG_LIST, {"task_id": TASK, **arguments})
    assert [run for page in pages for run in ids_of(page)] == await all_ids(gateway, POSTHOG_LIST, task_id=TASK)
    assert all(len(page.text) <= MIN_CHARS for page in pages)
    assert len(pages) > 3


@pytest.mark.parametrize("arguments", PAGE_ARGUMENTS, ids=str)
async def test_following_the_next_page_notes_returns_each_render_task_once(
    arguments: dict[str, Any], environment: dict[str, str], gateway: Gateway
) -> None:
    async with opened(environment, max_result_chars=MIN_CHARS) as small:
        pages = await follow_notes(small, RENDER_TASKS, arguments)
    assert [task for page in pages for task in ids_of(page)] == await all_ids(gateway, RENDER_TASKS)


@pytest.mark.parametrize("arguments", PAGE_ARGUMENTS, ids=str)
async def test_following_the_next_page_notes_returns_each_log_entry_once(
    arguments: dict[str, Any], environment: dict[str, str], gateway: Gateway
) -> None:
    async with opened(environment, max_result_chars=MIN_CHARS) as small:
        pages = await follow_notes(small, SESSION_LOG, RUN_WITH_LOG | arguments | {"raw": True})
        lines = await follow_notes(small, SESSION_LOG, RUN_WITH_LOG | arguments)
    complete = entries_of(await result_of(gateway, COMPLETE_LOG, **RUN_WITH_LOG, raw=True))
    assert [entry for page in pages for entry in entries_of(page)] == complete
    log = (await result_of(gateway, COMPLETE_LOG, **RUN_WITH_LOG)).text
    assert "\n".join(page.text for page in lines) == log
    assert all(len(page.text) <= MIN_CHARS for page in [*pages, *lines])
    assert len(pages) > 3


def queries(simulator: Simulator) -> list[str]:
    """Return the queries of the requests that our server sent."""
    return [path.partition("?")[2] for path in sent(simulator)]


CURSOR = {1: "dHJuLWQ1aW0wMDAwMDAwMDAwMDAwMDAx", 3: "dHJuLWQ1aW0wMDAwMDAwMDAwMDAwMDAz"}
"""The cursors of simulated runs: base64 of their IDs."""


async def test_all_pages_reads_each_page_and_merges_them(simulator: Simulator, gateway: Gateway) -> None:
    outcome = await result_of(gateway, RENDER_LIST, all_pages=True, limit=2)
    assert queries(simulator) == ["limit=2", f"cursor={CURSOR[3]}&limit=2", f"cursor={CURSOR[1]}&limit=2"]
    assert ids_of(outcome) == [f"trn-d5im000000000000000{number}" for number in (4, 3, 2, 1)]
    assert page_note(outcome) == "4 items: this is the end of the list."
    assert json.loads(outcome.text) == outcome.value


async def test_reads_one_page_without_all_pages(simulator: Simulator, gateway: Gateway) -> None:
    for all_pages in ({}, {"all_pages": False}):
        assert len(ids_of(await result_of(gateway, RENDER_LIST, limit=2, **all_pages))) == 2
    assert queries(simulator) == ["limit=2", "limit=2"]


@pytest.mark.parametrize(
    ("tool", "arguments", "largest"),
    [
        # Render API reference: Pagination; PostHog products/tasks/backend/api.py: max_limit and session_logs
        (RENDER_LIST, {}, 100),
        (RENDER_TASKS, {}, 100),
        (POSTHOG_LIST, {"task_id": TASK}, 100),
        (SESSION_LOG, RUN_WITH_LOG, 5000),
    ],
)
async def test_all_pages_uses_the_largest_page_size_unless_limit_is_given(
    tool: str, arguments: dict[str, Any], largest: int, simulator: Simulator, gateway: Gateway
) -> None:
    await result_of(gateway, tool, **arguments, all_pages=True)
    await result_of(gateway, tool, **arguments, all_pages=True, limit=77)
    assert queries(simulator) == [f"limit={largest}", "limit=77"]


async def test_all_pages_sends_the_filters_with_every_page(simulator: Simulator, gateway: Gateway) -> None:
    filters = {"taskSlug": [SQUARE, SLOW], "ownerId": [OWNER, "tea-other"]}
    outcome = await result_of(gateway, RENDER_LIST, all_pages=True, limit=1, **filters)
    parameters = [set(query.split("&")) for query in queries(simulator)]
    # The third page was full, so one more was read.
    assert len(parameters) == 4
    for sent_parameters in parameters:
        assert {
            "limit=1",
            "taskSlug=demo-workflow%2Fsquare",
            "taskSlug=demo-workflow%2Fslow",
            f"ownerId={OWNER},tea-other",
        } <= sent_parameters
    assert ids_of(outcome) == [f"trn-d5im000000000000000{number}" for number in (4, 3, 1)]


async def test_all_pages_of_a_log_sends_its_filters_and_reports_the_total(
    simulator: Simulator, gateway: Gateway
) -> None:
    filters = {"event_types": "tool_call", "limit": 4, "after": "2025-12-31T22:03:26Z"}
    outcome = await result_of(gateway, SESSION_LOG, **RUN_WITH_LOG, **filters, all_pages=True)
    expected = (
        await result_of(gateway, COMPLETE_LOG, **RUN_WITH_LOG, types=["tool_call"], since=filters["after"])
    ).text
    assert outcome.text == expected
    assert page_note(outcome) == "Items 1 to 10 of 10 (without filters 30): this is the end of the list."
    assert [re.sub("after=[^&]*&", "", query) for query in queries(simulator)[:3]] == [
        "event_types=tool_call&limit=4",
        "event_types=tool_call&limit=4&offset=4",
        "event_types=tool_call&limit=4&offset=8",
    ]


async def test_all_pages_starts_at_the_offset_of_the_caller(simulator: Simulator, gateway: Gateway) -> None:
    outcome = await result_of(gateway, POSTHOG_LIST, task_id=TASK, all_pages=True, limit=2, offset=1)
    assert queries(simulator) == ["limit=2&offset=1", "limit=2&offset=3"]
    assert page_note(outcome) == "Items 2 to 4 of 4: this is the end of the list."
    assert (outcome.value["count"], outcome.value["next"]) == (4, None)
    assert ids_of(outcome) == (await all_ids(gateway, POSTHOG_LIST, task_id=TASK))[1:]


async def test_each_page_is_reported_as_progress(environment: dict[str, str], gateway: Gateway) -> None:
    call = await finished(gateway, POSTHOG_LIST, {"task_id": TASK, "all_pages": True, "limit": 3})
    assert call.lines == ["page 1, items so far: 3 of 4", "page 2, items so far: 4 of 4"]
    call = await finished(gateway, RENDER_LIST, {"all_pages": True, "limit": 3})
    assert call.lines == ["page 1, items so far: 3", "page 2, items so far: 4"]


async def test_empty_list_is_one_page(simulator: Simulator, gateway: Gateway) -> None:
    outcome = await result_of(gateway, RENDER_LIST, all_pages=True, taskSlug=["demo-workflow/none"])
    assert (outcome.value, page_note(outcome)) == ([], "There are no items.")
    outcome = await result_of(gateway, SESSION_LOG, task_id=TASK, id=POSTHOG_NOT_STARTED, all_pages=True)
    assert "There are no items." in (outcome.text, *outcome.notes)
    assert len(simulator.requests) == 2


async def test_empty_log_is_reported_as_empty(gateway: Gateway) -> None:
    outcome = await result_of(gateway, COMPLETE_LOG, task_id=TASK, id=POSTHOG_NOT_STARTED)
    assert "The log is empty." in (outcome.text, *outcome.notes)


async def test_status_line_lists_the_runs_of_all_pages(gateway: Gateway) -> None:
    outcome = await result_of(gateway, RENDER_LIST, all_pages=True, limit=2)
    assert outcome.notes[0] == (
        "Runs trn-d5im0000000000000004: running; trn-d5im0000000000000003: canceled; trn-d5im0000000000000002: failed; "
        "trn-d5im0000000000000001: succeeded (completed)."
    )


async def test_all_pages_stops_after_50_pages(
    simulator: Simulator, environment: dict[str, str], gateway: Gateway
) -> None:
    await start_render_runs(environment, 60)
    outcome = await result_of(gateway, RENDER_LIST, all_pages=True, limit=1)
    assert len(sent(simulator)) == 50
    assert "Reading stopped after 50 pages, the most that one call reads." in outcome.notes
    everything = await all_ids(gateway, RENDER_LIST)
    assert ids_of(outcome) == everything[:50]
    next_pages = await follow_notes(gateway, RENDER_LIST, {"cursor": outcome.value[-1]["cursor"], "limit": 100})
    assert ids_of(outcome) + ids_of(next_pages[0]) == everything
    assert f"pass cursor {json.dumps(outcome.value[-1]['cursor'])}," in page_note(outcome)


async def test_all_pages_stops_when_the_result_is_full(simulator: Simulator, environment: dict[str, str]) -> None:
    await start_render_runs(environment, 60)
    async with opened(environment, max_result_chars=5000) as gateway:
        outcome = await result_of(gateway, RENDER_LIST, all_pages=True, limit=5)
    pages, shown = len(sent(simulator)), len(ids_of(outcome))
    assert pages < 13, "all pages were read"
    assert "Reading stopped because the result is full." in outcome.notes
    assert 5 * (pages - 2) < shown <= 5 * pages
    assert f"pass cursor {json.dumps(outcome.value[-1]['cursor'])}," in page_note(outcome)


async def test_all_pages_stops_at_the_timeout(simulator: Simulator, environment: dict[str, str]) -> None:
    await start_render_runs(environment, 60)
    for _ in range(20):
        simulator.fail_next("render", Fault(delay=4))
    async with opened(environment, wait_seconds=10) as gateway:
        call = await finished(gateway, RENDER_LIST, {"all_pages": True, "limit": 2}, 20)
    # The pages arrive at 4, 8 and 12 seconds; after 12 there is no time for another.
    assert len(sent(simulator)) == 3
    assert len(ids_of(call.outcome)) == 6
    assert "Reading stopped after the 10 s of this call." in call.outcome.notes
    assert "for the next page pass cursor" in page_note(call.outcome)


def render_page(*numbers: int) -> Fault:
    """Return a page of Render with a run for each number."""
    return json_response([{"taskRun": {"id": f"trn-{n}", "status": "running"}, "cursor": f"c{n}"} for n in numbers])


def posthog_page(count: int, more: bool, *numbers: int) -> Fault:
    """Return a page of PostHog with a run for each number, and a next page if there are `more`."""
    next_url = "https://us.posthog.com/api/projects/1/tasks/t/runs/?offset=2" if more else None
    runs = [{"id": f"run-{n}", "status": "in_progress"} for n in numbers]
    return json_response({"count": count, "next": next_url, "previous": None, "results": runs})


def queue_faults(simulator: Simulator, provider: str, faults: Sequence[Fault]) -> None:
    """Have the provider respond to the next requests with these faults."""
    for fault in faults:
        simulator.fail_next(provider, fault)


FORBIDDEN = json_response(
    {
        "type": "authentication_error",
        "code": "permission_denied",
        "detail": "You don't have access to the project.",
        "attr": None,
    },
    403,
)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (FORBIDDEN, 'the provider returned 403: "You don\'t have access to the project."'),
        (Fault(404, {"Content-Type": "application/json"}, '{"detail": "Not found."}'), "the provider returned 404"),
        (Fault(200, {"Content-Type": "application/json"}, '{"results": ['), "incomplete"),
        (Fault(500), "the provider returned 500"),
    ],
    ids=["403", "404", "invalid JSON", "500"],
)
async def test_failed_page_keeps_the_pages_before_it_and_is_reported(
    fault: Fault, message: str, simulator: Simulator, gateway: Gateway
) -> None:
    queue_faults(simulator, "posthog", [NO_FAULT, fault])
    outcome = await result_of(gateway, POSTHOG_LIST, task_id=TASK, all_pages=True, limit=2)
    assert len(ids_of(outcome)) == 2
    assert page_note(outcome) == (
        "Items 1 to 2 of 4; there are more: for the next page pass offset 2, or all_pages true for as many as fit."
    )
    (problem,) = [note for note in outcome.notes if note.startswith("The next page could not be read: ")]
    assert message in problem
    assert problem.endswith(".")
    assert not problem.endswith("..")
    # The note leads to the remaining pages.
    rest = await follow_notes(gateway, POSTHOG_LIST, {"task_id": TASK, "all_pages": True, "offset": 2})
    assert ids_of(outcome) + ids_of(rest[0]) == await all_ids(gateway, POSTHOG_LIST, task_id=TASK)


async def test_page_that_is_not_a_list_keeps_the_pages_before_it(simulator: Simulator, gateway: Gateway) -> None:
    queue_faults(simulator, "posthog", [NO_FAULT, json_response({"detail": "moved"})])
    outcome = await result_of(gateway, POSTHOG_LIST, task_id=TASK, all_pages=True, limit=2)
    assert len(ids_of(outcome)) == 2
    assert "pass offset 2," in page_note(outcome)
    assert len(sent(simulator)) == 2


async def test_page_with_dropped_connections_keeps_the_pages_before_it(simulator: Simulator, gateway: Gateway) -> None:
    queue_faults(simulator, "render", [NO_FAULT, NO_FAULT, *[Fault(truncate=True)] * TRIES])
    call = await finished(gateway, RENDER_LIST, {"all_pages": True, "limit": 1}, ALL_TRIES_S)
    assert len(ids_of(call.outcome)) == 2
    assert len(sent(simulator)) == 2 + TRIES
    assert any("could not be read: the connection to render was lost" in note for note in call.outcome.notes)


async def test_failed_page_of_a_log_keeps_the_pages_before_it(simulator: Simulator, gateway: Gateway) -> None:
    queue_faults(simulator, "posthog", [NO_FAULT, FORBIDDEN])
    outcome = await result_of(gateway, SESSION_LOG, **RUN_WITH_LOG, all_pages=True, limit=3)
    assert outcome.text.count("\n") == 2
    assert "pass offset 3," in page_note(outcome)
    assert any(note.startswith("The next page could not be read: ") for note in outcome.notes)


async def test_retries_a_page_after_a_transient_fault(simulator: Simulator, gateway: Gateway) -> None:
    queue_faults(simulator, "render", [NO_FAULT, Fault(503)])
    call = await finished(gateway, RENDER_LIST, {"all_pages": True, "limit": 2}, ALL_TRIES_S)
    assert len(ids_of(call.outcome)) == 4
    assert page_note(call.outcome) == "4 items: this is the end of the list."
    assert any("retrying" in line for line in call.lines)
    assert [progress.progress for progress in call.progress] == sorted(
        {progress.progress for progress in call.progress}
    )


async def test_failed_first_page_is_an_error(simulator: Simulator, gateway: Gateway) -> None:
    queue_faults(simulator, "posthog", [FORBIDDEN])
    call = await finished(gateway, POSTHOG_LIST, {"task_id": TASK, "all_pages": True})
    assert isinstance(call.failure, ProviderError)
    assert call.failure.status == 403
    assert len(simulator.requests) == 1


NOT_AGAIN = "the next page contains only items that were already listed, so this is the end of the list."


async def test_repeated_cursor_ends_the_list(simulator: Simulator, gateway: Gateway) -> None:
    queue_faults(simulator, "render", [render_page(1, 2)] * 10)
    outcome = await result_of(gateway, RENDER_LIST, all_pages=True, limit=2)
    assert [path.partition("?")[2] for path in sent(simulator)] == ["limit=2", "cursor=c2&limit=2"]
    assert ids_of(outcome) == ["trn-1", "trn-2"]  # the repeated page adds no item
    assert page_note(outcome) == f"2 items: {NOT_AGAIN}"


@pytest.mark.parametrize("length", [2, 3, 7])
async def test_cycle_of_cursors_ends_the_list(length: int, simulator: Simulator, gateway: Gateway) -> None:
    cycle = [render_page(2 * n, 2 * n + 1) for n in range(length)]
    queue_faults(simulator, "render", cycle * 10)
    call = await finished(gateway, RENDER_LIST, {"all_pages": True, "limit": 2})
    assert ids_of(call.outcome) == [f"trn-{n}" for n in range(2 * length)]
    assert len(sent(simulator)) <= length + 1
    assert page_note(call.outcome) == f"{2 * length} items: {NOT_AGAIN}"
    assert call.lines[-1] == f"page {length}, items so far: {2 * length}"


async def test_cycle_of_cursors_that_repeats_changed_runs_ends_the_list(simulator: Simulator, gateway: Gateway) -> None:
    page = [{"taskRun": {"id": f"trn-{n}", "status": "succeeded"}, "cursor": f"c{n}"} for n in (1, 2)]
    queue_faults(simulator, "render", [render_page(1, 2), render_page(3, 4), *[json_response(page)] * 10])
    outcome = await result_of(gateway, RENDER_LIST, all_pages=True, limit=2)
    assert ids_of(outcome) == ["trn-1", "trn-2", "trn-3", "trn-4"]
    assert len(sent(simulator)) == 3


def render_items(*pairs: tuple[int, str]) -> Fault:
    """Return a page of Render with a run and a cursor for each pair."""
    return json_response([{"taskRun": {"id": f"trn-{n}", "status": "running"}, "cursor": text} for n, text in pairs])


@pytest.mark.parametrize("tool", [RENDER_LIST, RENDER_TASKS])
async def test_cursor_that_was_passed_ends_the_list_after_its_items(
    tool: str, simulator: Simulator, gateway: Gateway
) -> None:
    queue_faults(simulator, "render", [render_items((1, "a"), (2, "x")), *[render_items((3, "b"), (4, "x"))] * 10])
    outcome = await result_of(gateway, tool, all_pages=True, limit=2)
    assert ids_of(outcome) == ["trn-1", "trn-2", "trn-3", "trn-4"]
    assert len(sent(simulator)) == 2
    assert page_note(outcome) == (
        "4 items: the cursor of the last item is the one that was passed, so this is the end of the list."
    )


async def test_cursor_of_an_earlier_page_with_other_items_ends_the_list(simulator: Simulator, gateway: Gateway) -> None:
    pages = [render_items((n, text)) for n, text in enumerate(["a", "b", "c", "a", "b", "c"], 1)]
    queue_faults(simulator, "render", pages)
    outcome = await result_of(gateway, RENDER_LIST, all_pages=True, limit=1)
    assert ids_of(outcome) == ["trn-1", "trn-2", "trn-3", "trn-4"]
    assert len(sent(simulator)) == 4
    assert page_note(outcome) == (
        "4 items: the next cursor leads back to an earlier page, so this is the end of the list."
    )


async def test_page_above_its_limit_ends_the_list(simulator: Simulator, gateway: Gateway) -> None:
    # Render's local server ignores limit and cursor.
    queue_faults(simulator, "render", [render_page(1, 2, 3)] * 10)
    outcome = await result_of(gateway, RENDER_LIST, all_pages=True, limit=2)
    assert ids_of(outcome) == ["trn-1", "trn-2", "trn-3"]
    assert len(sent(simulator)) == 1
    assert page_note(outcome) == "3 items: the provider ignores limit, so this is the end of the list."


async def test_provider_that_ignores_the_offset_ends_the_list(simulator: Simulator, gateway: Gateway) -> None:
    page = {"count": 9, "next": True, "results": [{"id": "run-1", "status": "queued"}, {"id": "run-2"}]}
    queue_faults(simulator, "posthog", [json_response(page)] * 10)
    outcome = await result_of(gateway, POSTHOG_LIST, task_id=TASK, all_pages=True, limit=2)
    assert ids_of(outcome) == ["run-1", "run-2"]
    assert len(sent(simulator)) == 2
    assert page_note(outcome) == (
        "Items 1 to 2 of 9: the next page contains only items that were already listed, so the other items cannot be "
        "read."
    )


async def test_runs_that_moved_to_the_next_page_are_listed_once(simulator: Simulator, gateway: Gateway) -> None:
    # A run was created between the requests.
    moved = [{"id": "run-2", "status": "completed"}, {"id": "run-3", "status": "queued"}]
    pages = [posthog_page(4, True, 1, 2), json_response({"count": 4, "next": None, "results": moved})]
    queue_faults(simulator, "posthog", pages)
    call = await finished(gateway, POSTHOG_LIST, {"task_id": TASK, "all_pages": True, "limit": 2})
    assert ids_of(call.outcome) == ["run-1", "run-2", "run-3"]
    assert call.lines[-1] == "page 2, items so far: 3 of 4"


async def test_link_that_leads_back_ends_the_list(simulator: Simulator, gateway: Gateway) -> None:
    page = {"count": 2, "next": "https://us.posthog.com/x/?limit=2&offset=0", "results": [{"id": "1"}, {"id": "2"}]}
    queue_faults(simulator, "posthog", [json_response(page)] * 10)
    outcome = await result_of(gateway, POSTHOG_LIST, task_id=TASK, all_pages=True, limit=2)
    assert len(sent(simulator)) == 1
    assert page_note(outcome) == (
        "Items 1 to 2 of 2: the link to the next page leads back, so this is the end of the list."
    )


def log_page(more: str, *numbers: int) -> Fault:
    """Return a page of a session log of PostHog."""
    headers = {"Content-Type": "application/json", "X-Has-More": more}
    return Fault(200, headers, json.dumps([{"n": number} for number in numbers]))


async def test_repeated_page_of_a_log_ends_it(simulator: Simulator, gateway: Gateway) -> None:
    queue_faults(simulator, "posthog", [log_page("true", 1, 1), log_page("true", 1, 2), *[log_page("true", 1, 1)] * 10])
    outcome = await result_of(gateway, SESSION_LOG, **RUN_WITH_LOG, all_pages=True, limit=2, raw=True)
    assert entries_of(outcome) == [{"n": 1}, {"n": 1}, {"n": 1}, {"n": 2}]  # entries of a log may be equal
    assert len(sent(simulator)) == 3
    assert page_note(outcome).startswith("Items 1 to 4: the next page contains only items that were already listed")


async def test_short_page_is_followed_by_another_if_x_has_more_is_true(simulator: Simulator, gateway: Gateway) -> None:
    # A page of PostHog's session log has at most 2 MiB, so it may be shorter than its limit.
    queue_faults(simulator, "posthog", [log_page("true", 1), log_page("true", 2, 3), log_page("false", 4)])
    outcome = await result_of(gateway, SESSION_LOG, **RUN_WITH_LOG, all_pages=True, limit=100, raw=True)
    assert entries_of(outcome) == [{"n": n} for n in (1, 2, 3, 4)]
    assert [re.search(r"offset=(\d+)", path) and path.rpartition("offset=")[2] for path in sent(simulator)] == [
        None,
        "1",
        "3",
    ]
    assert page_note(outcome) == "Items 1 to 4: this is the end of the list."


@pytest.mark.parametrize("before", [[], [posthog_page(9, True, 1, 2)]])
async def test_empty_page_ends_the_list_despite_a_next_page(
    before: list[Fault], simulator: Simulator, gateway: Gateway
) -> None:
    queue_faults(simulator, "posthog", [*before, *[posthog_page(9, True)] * 10])
    outcome = await result_of(gateway, POSTHOG_LIST, task_id=TASK, all_pages=True, limit=2)
    assert len(simulator.requests) == len(before) + 1
    assert len(ids_of(outcome)) == 2 * len(before)
    if before:
        assert page_note(outcome) == "Items 1 to 2 of 9: the next page is empty, so the other items cannot be read."


async def test_items_without_a_cursor_end_the_list(simulator: Simulator, gateway: Gateway) -> None:
    queue_faults(simulator, "render", [json_response([{"taskRun": {"id": "trn-1", "status": "running"}}])] * 10)
    outcome = await result_of(gateway, RENDER_LIST, all_pages=True, limit=1)
    assert len(simulator.requests) == 1
    assert page_note(outcome) == "1 item; there may be more, but the response has no cursor for the next page."


@pytest.mark.parametrize("more", ["true", "false"])
async def test_session_log_ends_when_x_has_more_is_false(more: str, simulator: Simulator, gateway: Gateway) -> None:
    headers = {"Content-Type": "application/json", "X-Has-More": more, "X-Matching-Count": "3", "X-Total-Count": "3"}
    queue_faults(simulator, "posthog", [Fault(200, headers, '[{"n": 1}, {"n": 2}]'), Fault(200, headers, "[]")])
    await result_of(gateway, SESSION_LOG, **RUN_WITH_LOG, all_pages=True, limit=2)
    assert len(simulator.requests) == (2 if more == "true" else 1)


@pytest.mark.parametrize("all_pages", [True, False])
async def test_response_that_is_not_a_list_is_returned_unchanged(
    all_pages: bool, simulator: Simulator, gateway: Gateway
) -> None:
    for tool, arguments in ((POSTHOG_LIST, {"task_id": TASK}), (SESSION_LOG, RUN_WITH_LOG)):
        queue_faults(simulator, "posthog", [json_response({"detail": "moved"})])
        outcome = await result_of(gateway, tool, **arguments, all_pages=all_pages)
        assert outcome.text == '{"detail":"moved"}'
        assert [note for note in outcome.notes if "no items" in note] == []


async def test_redactions_on_later_pages_are_reported(simulator: Simulator, gateway: Gateway) -> None:
    # The run on the first page never started and has no secrets. The sandbox of the next run has one.
    outcome = await result_of(gateway, POSTHOG_LIST, task_id=TASK, all_pages=True, limit=1)
    assert len(ids_of(outcome)) == 4
    assert "sct_simulated_secret" not in outcome.text
    assert '"sandbox_connect_token":"[redacted]"' in outcome.text
    (note,) = [note for note in outcome.notes if note.startswith("Redacted: ")]
    assert "sandbox_connect_token" in note


async def test_truncated_all_pages_result_names_the_offset_after_the_last_item(
    simulator: Simulator, environment: dict[str, str], gateway: Gateway
) -> None:
    everything = await all_ids(gateway, POSTHOG_LIST, task_id=TASK)
    async with opened(environment, max_result_chars=MIN_CHARS) as small:
        outcome = await result_of(small, POSTHOG_LIST, task_id=TASK, all_pages=True, limit=4)
    shown = len(ids_of(outcome))
    assert 0 < shown < 4
    assert ids_of(outcome) == everything[:shown]
    assert f"pass offset {shown}," in page_note(outcome)


async def test_truncated_log_contains_its_last_entries(environment: dict[str, str], gateway: Gateway) -> None:
    log = (await result_of(gateway, COMPLETE_LOG, **RUN_WITH_LOG)).text.split("\n")
    async with opened(environment, max_result_chars=MIN_CHARS) as small:
        outcome = await result_of(small, COMPLETE_LOG, **RUN_WITH_LOG)
    lines = outcome.text.split("\n")
    assert 1 < len(lines) < len(log)
    assert lines == log[-len(lines) :]
    earlier = len("\n".join(log)) - len(outcome.text)
    assert outcome.notes == (
        f'The last {len(lines)} of {len(log)} entries. For earlier ones call again with result_path "[:{earlier}]".',
    )


@pytest.mark.parametrize("since", ["2026-02-30T09:00:00Z", "2026-01-31T25:00:00Z", "yesterday", "2026-01-31"])
async def test_invalid_time_argument_is_rejected(since: str, simulator: Simulator, gateway: Gateway) -> None:
    call = await finished(gateway, COMPLETE_LOG, RUN_WITH_LOG | {"since": since})
    assert isinstance(call.error, CallError)
    assert call.error.message == f"since: {since!r} is not a 'date-time'"
    assert simulator.requests == []
