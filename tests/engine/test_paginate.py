"""Lists and logs page by page, against the simulated providers: no item is lost, and none is read twice."""

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

RUNS_OF_RENDER, TASKS_OF_RENDER = "render-list-task-runs", "render-list-tasks"
RUNS_OF_POSTHOG = "posthog-list-task-runs"
SESSION_LOG, WHOLE_LOG = "posthog-get-filtered-task-run-session", "posthog-get-task-run-logs"
LOGGED = {"task_id": TASK, "id": POSTHOG_COMPLETED}
LEAST = 1000
"""Characters that a result has room for at least."""

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
    """Somebody else starts runs at Render, beside the four that there are."""
    headers = {"Authorization": f"Bearer {environment['RENDER_API_KEY']}"}
    async with httpx.AsyncClient(base_url=environment["RENDER_BASE_URL"], headers=headers) as client:
        for number in range(count):
            (await client.post("/task-runs", json={"task": SQUARE, "input": [number]})).raise_for_status()


async def create_posthog_runs(environment: dict[str, str], count: int) -> None:
    """Somebody else creates runs at PostHog, beside the four that there are."""
    headers = {"Authorization": f"Bearer {environment['POSTHOG_API_KEY']}"}
    url = environment["POSTHOG_BASE_URL"] + POSTHOG_RUNS.removeprefix("/posthog") + "/"
    async with httpx.AsyncClient(headers=headers) as client:
        for _ in range(count):
            (await client.post(url, json={"environment": "cloud"})).raise_for_status()


async def finished(gateway: Gateway, tool: str, arguments: dict[str, Any], seconds: float = 5) -> Call:
    async with calling(gateway, tool, arguments) as running:
        return await running.finish(seconds)


async def call(gateway: Gateway, tool: str, **arguments: Any) -> CallResult:
    return (await finished(gateway, tool, arguments)).outcome


def describe_page(outcome: CallResult) -> str:
    (note,) = [note for note in outcome.notes if re.match(r"Items? |\d+ items?|There are no", note)]
    return note


def ids_of(outcome: CallResult) -> list[str]:
    if isinstance(outcome.value, dict):
        return [run["id"] for run in outcome.value["results"]]
    return [(item.get("taskRun") or item["task"])["id"] for item in outcome.value]


def entries_of(outcome: CallResult) -> list[Any]:
    return [json.loads(line) for line in outcome.text.splitlines()]


async def all_ids(gateway: Gateway, tool: str, **arguments: Any) -> list[str]:
    """What there is, in one page."""
    outcome = await call(gateway, tool, limit=100, **arguments)
    assert describe_page(outcome).endswith("this is the end of the list.")
    return ids_of(outcome)


async def walk(gateway: Gateway, tool: str, arguments: dict[str, Any]) -> list[CallResult]:
    """The results of a client that does as it is advised, page after page, until there is no more."""
    pages: list[CallResult] = []
    for _ in range(100):
        pages.append(await call(gateway, tool, **arguments))
        advised = re.search(r"for the next page pass (\w+) (.+), or all_pages true", describe_page(pages[-1]))
        if advised is None:
            return pages
        name, value = advised.group(1), json.loads(advised.group(2))
        assert arguments.get(name) != value, "it does not go on"
        arguments = {**arguments, name: value}
    raise AssertionError("it does not end")


PLAIN: list[dict[str, Any]] = [{}, {"limit": 3}, {"all_pages": True}, {"all_pages": True, "limit": 2}]


@pytest.mark.parametrize("room", [LEAST, 3000, 50_000])
@pytest.mark.parametrize("arguments", PLAIN, ids=str)
async def test_who_does_as_advised_gets_every_run_of_render_s_once(
    arguments: dict[str, Any], room: int, environment: dict[str, str], gateway: Gateway
) -> None:
    await start_render_runs(environment, 20)
    async with opened(environment, max_result_chars=room) as small:
        pages = await walk(small, RUNS_OF_RENDER, arguments)
    assert [run for page in pages for run in ids_of(page)] == await all_ids(gateway, RUNS_OF_RENDER)
    assert all(len(page.text) <= room for page in pages)
    assert (len(pages) > 3) is (room == LEAST or arguments == {"limit": 3})


@pytest.mark.parametrize("arguments", PLAIN, ids=str)
async def test_who_does_as_advised_gets_every_run_of_posthog_s_once(
    arguments: dict[str, Any], environment: dict[str, str], gateway: Gateway
) -> None:
    await create_posthog_runs(environment, 6)
    async with opened(environment, max_result_chars=LEAST) as small:
        pages = await walk(small, RUNS_OF_POSTHOG, {"task_id": TASK, **arguments})
    assert [run for page in pages for run in ids_of(page)] == await all_ids(gateway, RUNS_OF_POSTHOG, task_id=TASK)
    assert all(len(page.text) <= LEAST for page in pages)
    assert len(pages) > 3


@pytest.mark.parametrize("arguments", PLAIN, ids=str)
async def test_who_does_as_advised_gets_every_task_once(
    arguments: dict[str, Any], environment: dict[str, str], gateway: Gateway
) -> None:
    async with opened(environment, max_result_chars=LEAST) as small:
        pages = await walk(small, TASKS_OF_RENDER, arguments)
    assert [task for page in pages for task in ids_of(page)] == await all_ids(gateway, TASKS_OF_RENDER)


@pytest.mark.parametrize("arguments", PLAIN, ids=str)
async def test_who_does_as_advised_gets_every_entry_of_a_log_once(
    arguments: dict[str, Any], environment: dict[str, str], gateway: Gateway
) -> None:
    async with opened(environment, max_result_chars=LEAST) as small:
        pages = await walk(small, SESSION_LOG, LOGGED | arguments | {"raw": True})
        lines = await walk(small, SESSION_LOG, LOGGED | arguments)
    whole = entries_of(await call(gateway, WHOLE_LOG, **LOGGED, raw=True))
    assert [entry for page in pages for entry in entries_of(page)] == whole
    told = (await call(gateway, WHOLE_LOG, **LOGGED)).text
    assert "\n".join(page.text for page in lines) == told
    assert all(len(page.text) <= LEAST for page in [*pages, *lines])
    assert len(pages) > 3


def asked(simulator: Simulator) -> list[str]:
    """The queries of the pages that were asked for."""
    return [path.partition("?")[2] for path in sent(simulator)]


CURSOR = {1: "dHJuLWQ1aW0wMDAwMDAwMDAwMDAwMDAx", 3: "dHJuLWQ1aW0wMDAwMDAwMDAwMDAwMDAz"}
"""The simulated cursors of runs: base64 of their ids."""


async def test_all_pages_asks_for_each_page_after_the_last_and_returns_them_as_one(
    simulator: Simulator, gateway: Gateway
) -> None:
    outcome = await call(gateway, RUNS_OF_RENDER, all_pages=True, limit=2)
    assert asked(simulator) == ["limit=2", f"cursor={CURSOR[3]}&limit=2", f"cursor={CURSOR[1]}&limit=2"]
    assert ids_of(outcome) == [f"trn-d5im000000000000000{number}" for number in (4, 3, 2, 1)]
    assert describe_page(outcome) == "4 items: this is the end of the list."
    assert json.loads(outcome.text) == outcome.value


async def test_without_all_pages_one_page_is_read(simulator: Simulator, gateway: Gateway) -> None:
    for all_pages in ({}, {"all_pages": False}):
        assert len(ids_of(await call(gateway, RUNS_OF_RENDER, limit=2, **all_pages))) == 2
    assert asked(simulator) == ["limit=2", "limit=2"]


@pytest.mark.parametrize(
    ("tool", "arguments", "largest"),
    [
        # Render API reference: Pagination; PostHog products/tasks/backend/api.py: max_limit and session_logs
        (RUNS_OF_RENDER, {}, 100),
        (TASKS_OF_RENDER, {}, 100),
        (RUNS_OF_POSTHOG, {"task_id": TASK}, 100),
        (SESSION_LOG, LOGGED, 5000),
    ],
)
async def test_all_pages_asks_for_the_largest_pages_unless_the_caller_wants_smaller_ones(
    tool: str, arguments: dict[str, Any], largest: int, simulator: Simulator, gateway: Gateway
) -> None:
    await call(gateway, tool, **arguments, all_pages=True)
    await call(gateway, tool, **arguments, all_pages=True, limit=77)
    assert asked(simulator) == [f"limit={largest}", "limit=77"]


async def test_all_pages_filters_every_page(simulator: Simulator, gateway: Gateway) -> None:
    filters = {"taskSlug": [SQUARE, SLOW], "ownerId": [OWNER, "tea-other"]}
    outcome = await call(gateway, RUNS_OF_RENDER, all_pages=True, limit=1, **filters)
    queries = [dict.fromkeys(query.split("&")) for query in asked(simulator)]
    # The last page was full too, so one more was asked for.
    assert len(queries) == 4
    for query in queries:
        assert {
            "limit=1",
            "taskSlug=demo-workflow%2Fsquare",
            "taskSlug=demo-workflow%2Fslow",
            f"ownerId={OWNER},tea-other",
        } <= set(query)
    assert ids_of(outcome) == [f"trn-d5im000000000000000{number}" for number in (4, 3, 1)]


async def test_all_pages_of_a_log_keeps_its_filters_and_says_of_how_many(
    simulator: Simulator, gateway: Gateway
) -> None:
    wanted = {"event_types": "tool_call", "limit": 4, "after": "2025-12-31T22:03:26Z"}
    outcome = await call(gateway, SESSION_LOG, **LOGGED, **wanted, all_pages=True)
    types = (await call(gateway, WHOLE_LOG, **LOGGED, types=["tool_call"], since=wanted["after"])).text
    assert outcome.text == types
    assert describe_page(outcome) == "Items 1 to 10 of 10 (without filters 30): this is the end of the list."
    assert [re.sub("after=[^&]*&", "", query) for query in asked(simulator)[:3]] == [
        "event_types=tool_call&limit=4",
        "event_types=tool_call&limit=4&offset=4",
        "event_types=tool_call&limit=4&offset=8",
    ]


async def test_all_pages_goes_on_from_where_the_caller_is(simulator: Simulator, gateway: Gateway) -> None:
    outcome = await call(gateway, RUNS_OF_POSTHOG, task_id=TASK, all_pages=True, limit=2, offset=1)
    assert asked(simulator) == ["limit=2&offset=1", "limit=2&offset=3"]
    assert describe_page(outcome) == "Items 2 to 4 of 4: this is the end of the list."
    assert (outcome.value["count"], outcome.value["next"]) == (4, None)
    assert ids_of(outcome) == (await all_ids(gateway, RUNS_OF_POSTHOG, task_id=TASK))[1:]


async def test_progress_is_told_of_every_page(environment: dict[str, str], gateway: Gateway) -> None:
    running = await finished(gateway, RUNS_OF_POSTHOG, {"task_id": TASK, "all_pages": True, "limit": 3})
    assert running.lines == ["page 1, items so far: 3 of 4", "page 2, items so far: 4 of 4"]
    assert [progress.progress for progress in running.progress] == [1, 2]
    running = await finished(gateway, RUNS_OF_RENDER, {"all_pages": True, "limit": 3})
    assert running.lines == ["page 1, items so far: 3", "page 2, items so far: 4"]


async def test_an_empty_list_is_one_page(simulator: Simulator, gateway: Gateway) -> None:
    outcome = await call(gateway, RUNS_OF_RENDER, all_pages=True, taskSlug=["demo-workflow/none"])
    assert (outcome.value, describe_page(outcome)) == ([], "There are no items.")
    outcome = await call(gateway, SESSION_LOG, task_id=TASK, id=POSTHOG_NOT_STARTED, all_pages=True)
    assert "There are no items." in (outcome.text, *outcome.notes)
    assert len(simulator.requests) == 2


async def test_a_log_that_is_empty_is_called_so(gateway: Gateway) -> None:
    outcome = await call(gateway, WHOLE_LOG, task_id=TASK, id=POSTHOG_NOT_STARTED)
    assert "The log is empty." in (outcome.text, *outcome.notes)


async def test_the_runs_of_all_pages_are_told_with_their_states(gateway: Gateway) -> None:
    outcome = await call(gateway, RUNS_OF_RENDER, all_pages=True, limit=2)
    assert outcome.notes[0] == (
        "Runs trn-d5im0000000000000004: running; trn-d5im0000000000000003: canceled; trn-d5im0000000000000002: failed; "
        "trn-d5im0000000000000001: succeeded (completed)."
    )


async def test_after_50_pages_the_caller_has_to_ask_again(
    simulator: Simulator, environment: dict[str, str], gateway: Gateway
) -> None:
    await start_render_runs(environment, 60)
    outcome = await call(gateway, RUNS_OF_RENDER, all_pages=True, limit=1)
    assert len(sent(simulator)) == 50
    everything = await all_ids(gateway, RUNS_OF_RENDER)
    assert ids_of(outcome) == everything[:50]
    following = await walk(gateway, RUNS_OF_RENDER, {"cursor": outcome.value[-1]["cursor"], "limit": 100})
    assert ids_of(outcome) + ids_of(following[0]) == everything
    assert f"pass cursor {json.dumps(outcome.value[-1]['cursor'])}," in describe_page(outcome)


async def test_no_page_is_read_for_which_a_result_has_no_room(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    await start_render_runs(environment, 60)
    async with opened(environment, max_result_chars=5000) as gateway:
        outcome = await call(gateway, RUNS_OF_RENDER, all_pages=True, limit=5)
    pages, shown = len(sent(simulator)), len(ids_of(outcome))
    assert pages < 13, "all that there are"
    assert 5 * (pages - 2) < shown <= 5 * pages
    assert f"pass cursor {json.dumps(outcome.value[-1]['cursor'])}," in describe_page(outcome)


async def test_no_page_is_read_when_the_time_is_over(simulator: Simulator, environment: dict[str, str]) -> None:
    await start_render_runs(environment, 60)
    for _ in range(20):
        simulator.fail_next("render", Fault(delay=4))
    async with opened(environment, wait_seconds=10) as gateway:
        running = await finished(gateway, RUNS_OF_RENDER, {"all_pages": True, "limit": 2}, 20)
    # At 4 and 8 seconds there was time for another, at 12 there was none.
    assert len(sent(simulator)) == 3
    assert len(ids_of(running.outcome)) == 6
    assert "for the next page pass cursor" in describe_page(running.outcome)


def full_page(*numbers: int) -> Fault:
    """A page of Render's with a run of each number."""
    return json_response([{"taskRun": {"id": f"trn-{n}", "status": "running"}, "cursor": f"c{n}"} for n in numbers])


def posthog_page(count: int, more: bool, *numbers: int) -> Fault:
    following = "https://us.posthog.com/api/projects/1/tasks/t/runs/?offset=2" if more else None
    runs = [{"id": f"run-{n}", "status": "in_progress"} for n in numbers]
    return json_response({"count": count, "next": following, "previous": None, "results": runs})


def order(simulator: Simulator, provider: str, faults: Sequence[Fault]) -> None:
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
    ("fault", "told"),
    [
        (FORBIDDEN, "the provider returned 403: You don't have access to the project"),
        (Fault(404, {"Content-Type": "application/json"}, '{"detail": "Not found."}'), "the provider returned 404"),
        (Fault(200, {"Content-Type": "application/json"}, '{"results": ['), "incomplete"),
        (Fault(500), "the provider returned 500"),
    ],
    ids=["403", "404", "garbage", "500"],
)
async def test_a_page_that_fails_leaves_those_before_it_and_is_told(
    fault: Fault, told: str, simulator: Simulator, gateway: Gateway
) -> None:
    order(simulator, "posthog", [NO_FAULT, fault])
    outcome = await call(gateway, RUNS_OF_POSTHOG, task_id=TASK, all_pages=True, limit=2)
    assert len(ids_of(outcome)) == 2
    assert describe_page(outcome) == (
        "Items 1 to 2 of 4; there are more: for the next page pass offset 2, or all_pages true for as many as fit."
    )
    (problem,) = [note for note in outcome.notes if note.startswith("The next page could not be read: ")]
    assert told in problem
    assert problem.endswith(".")
    assert not problem.endswith("..")
    # So advised, the caller gets the rest.
    rest = await walk(gateway, RUNS_OF_POSTHOG, {"task_id": TASK, "all_pages": True, "offset": 2})
    assert ids_of(outcome) + ids_of(rest[0]) == await all_ids(gateway, RUNS_OF_POSTHOG, task_id=TASK)


async def test_a_page_that_is_no_list_leaves_those_before_it(simulator: Simulator, gateway: Gateway) -> None:
    order(simulator, "posthog", [NO_FAULT, json_response({"detail": "moved"})])
    outcome = await call(gateway, RUNS_OF_POSTHOG, task_id=TASK, all_pages=True, limit=2)
    assert len(ids_of(outcome)) == 2
    assert "pass offset 2," in describe_page(outcome)
    assert len(sent(simulator)) == 2


async def test_a_page_that_does_not_come_leaves_those_before_it(simulator: Simulator, gateway: Gateway) -> None:
    order(simulator, "render", [NO_FAULT, NO_FAULT, *[Fault(truncate=True)] * TRIES])
    running = await finished(gateway, RUNS_OF_RENDER, {"all_pages": True, "limit": 1}, ALL_TRIES_S)
    assert len(ids_of(running.outcome)) == 2
    assert len(sent(simulator)) == 2 + TRIES
    assert any("could not be read: the connection to render was lost" in note for note in running.outcome.notes)


async def test_a_log_s_page_that_fails_leaves_those_before_it(simulator: Simulator, gateway: Gateway) -> None:
    order(simulator, "posthog", [NO_FAULT, FORBIDDEN])
    outcome = await call(gateway, SESSION_LOG, **LOGGED, all_pages=True, limit=3)
    assert outcome.text.count("\n") == 2
    assert "pass offset 3," in describe_page(outcome)
    assert any(note.startswith("The next page could not be read: ") for note in outcome.notes)


async def test_a_page_that_comes_at_the_second_try_is_one_of_all(simulator: Simulator, gateway: Gateway) -> None:
    order(simulator, "render", [NO_FAULT, Fault(503)])
    running = await finished(gateway, RUNS_OF_RENDER, {"all_pages": True, "limit": 2}, ALL_TRIES_S)
    assert len(ids_of(running.outcome)) == 4
    assert describe_page(running.outcome) == "4 items: this is the end of the list."
    assert any("retrying" in line for line in running.lines)
    assert [progress.progress for progress in running.progress] == sorted({each.progress for each in running.progress})


async def test_without_a_first_page_the_call_fails(simulator: Simulator, gateway: Gateway) -> None:
    order(simulator, "posthog", [FORBIDDEN])
    running = await finished(gateway, RUNS_OF_POSTHOG, {"task_id": TASK, "all_pages": True})
    assert isinstance(running.failure, ProviderError)
    assert running.failure.status == 403
    assert len(simulator.requests) == 1


async def test_a_cursor_that_repeats_ends_the_list(simulator: Simulator, gateway: Gateway) -> None:
    order(simulator, "render", [full_page(1, 2)] * 10)
    outcome = await call(gateway, RUNS_OF_RENDER, all_pages=True, limit=2)
    assert [path.partition("?")[2] for path in sent(simulator)] == ["limit=2", "cursor=c2&limit=2"]
    assert len(ids_of(outcome)) == 2  # the same page again adds nothing


async def test_cursors_that_go_round_are_followed_for_50_pages_at_most(simulator: Simulator, gateway: Gateway) -> None:
    order(simulator, "render", [full_page(1), full_page(2)] * 40)
    await call(gateway, RUNS_OF_RENDER, all_pages=True, limit=1)
    assert len(sent(simulator)) <= 50


@pytest.mark.parametrize("before", [[], [posthog_page(9, True, 1, 2)]])
async def test_an_empty_page_ends_the_list_whatever_the_provider_says(
    before: list[Fault], simulator: Simulator, gateway: Gateway
) -> None:
    order(simulator, "posthog", [*before, *[posthog_page(9, True)] * 10])
    outcome = await call(gateway, RUNS_OF_POSTHOG, task_id=TASK, all_pages=True, limit=2)
    assert len(simulator.requests) == len(before) + 1
    assert len(ids_of(outcome)) == 2 * len(before)


async def test_items_without_a_cursor_end_the_list(simulator: Simulator, gateway: Gateway) -> None:
    order(simulator, "render", [json_response([{"taskRun": {"id": "trn-1", "status": "running"}}])] * 10)
    outcome = await call(gateway, RUNS_OF_RENDER, all_pages=True, limit=1)
    assert len(simulator.requests) == 1
    assert describe_page(outcome) == "1 item; there may be more, but the response has no cursor for the next page."


@pytest.mark.parametrize("more", ["true", "false"])
async def test_a_session_log_ends_where_its_header_says(more: str, simulator: Simulator, gateway: Gateway) -> None:
    headers = {"Content-Type": "application/json", "X-Has-More": more, "X-Matching-Count": "3", "X-Total-Count": "3"}
    order(simulator, "posthog", [Fault(200, headers, '[{"n": 1}, {"n": 2}]'), Fault(200, headers, "[]")])
    await call(gateway, SESSION_LOG, **LOGGED, all_pages=True, limit=2)
    assert len(simulator.requests) == (2 if more == "true" else 1)


@pytest.mark.parametrize("all_pages", [True, False])
async def test_an_answer_that_is_no_list_is_shown_as_it_is(
    all_pages: bool, simulator: Simulator, gateway: Gateway
) -> None:
    for tool, arguments in ((RUNS_OF_POSTHOG, {"task_id": TASK}), (SESSION_LOG, LOGGED)):
        order(simulator, "posthog", [json_response({"detail": "moved"})])
        outcome = await call(gateway, tool, **arguments, all_pages=all_pages)
        assert outcome.text == '{"detail":"moved"}'
        assert [note for note in outcome.notes if "no items" in note] == []


async def test_what_is_redacted_on_a_later_page_is_told_as_well(simulator: Simulator, gateway: Gateway) -> None:
    # One page has a run that never started, which has no secrets, the next one whose sandbox has.
    outcome = await call(gateway, RUNS_OF_POSTHOG, task_id=TASK, all_pages=True, limit=1)
    assert len(ids_of(outcome)) == 4
    assert "sct_simulated_secret" not in outcome.text
    assert '"sandbox_connect_token":"[redacted]"' in outcome.text
    (note,) = [note for note in outcome.notes if note.startswith("Redacted: ")]
    assert "sandbox_connect_token" in note


async def test_a_list_goes_on_after_what_is_shown_also_where_all_pages_is_cut(
    simulator: Simulator, environment: dict[str, str], gateway: Gateway
) -> None:
    everything = await all_ids(gateway, RUNS_OF_POSTHOG, task_id=TASK)
    async with opened(environment, max_result_chars=LEAST) as small:
        outcome = await call(small, RUNS_OF_POSTHOG, task_id=TASK, all_pages=True, limit=4)
    shown = len(ids_of(outcome))
    assert 0 < shown < 4
    assert ids_of(outcome) == everything[:shown]
    assert f"pass offset {shown}," in describe_page(outcome)


async def test_the_last_entries_of_a_log_are_those_that_fit(environment: dict[str, str], gateway: Gateway) -> None:
    whole = (await call(gateway, WHOLE_LOG, **LOGGED)).text.split("\n")
    async with opened(environment, max_result_chars=LEAST) as small:
        outcome = await call(small, WHOLE_LOG, **LOGGED)
    lines = outcome.text.split("\n")
    assert 1 < len(lines) < len(whole)
    assert lines == whole[-len(lines) :]
    assert outcome.notes == (f"The last {len(lines)} of {len(whole)} entries.",)


@pytest.mark.parametrize("since", ["2026-02-30T09:00:00Z", "2026-01-31T25:00:00Z", "yesterday", "2026-01-31"])
async def test_a_time_that_is_none_is_refused_and_not_taken_for_any(
    since: str, simulator: Simulator, gateway: Gateway
) -> None:
    running = await finished(gateway, WHOLE_LOG, LOGGED | {"since": since})
    assert isinstance(running.error, CallError)
    assert running.error.message == f"since: {since!r} is not a 'date-time'"
    assert simulator.requests == []
