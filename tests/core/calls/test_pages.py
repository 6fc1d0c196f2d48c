"""Pages of lists: the next arguments and the notes."""

from dataclasses import replace
from typing import Any

import pytest

from mcp_taskruns.core.calls.pages import Page, describe_page, format_page, join_pages, read_page
from mcp_taskruns.core.calls.received import HttpResponse
from mcp_taskruns.core.calls.response import CallResult, read_response
from mcp_taskruns.core.model.json import dump, parse
from mcp_taskruns.core.model.operation import Operation, Paging
from mcp_taskruns.loading.loader import load_tools
from tests.core.documents import Json

TOOLS = {tool.name: tool.operation for tool in load_tools([])}
RENDER_RUNS, RENDER_TASKS = TOOLS["render-list-task-runs"], TOOLS["render-list-tasks"]
POSTHOG_RUNS, SESSION_LOG = TOOLS["posthog-list-task-runs"], TOOLS["posthog-get-filtered-task-run-session"]


def paging_of(operation: Operation) -> Paging:
    assert operation.paging is not None
    return operation.paging


def result_of(operation: Operation, value: Any, headers: dict[str, str] | None = None) -> CallResult:
    """Return the result of a call with this JSON response."""
    sent = {"content-type": "application/json"} | {name.lower(): text for name, text in (headers or {}).items()}
    return read_response(HttpResponse(200, sent, dump(value).encode()), operation)


def read(operation: Operation, arguments: Json, result: CallResult) -> Page:
    """Return the page in a response with a list."""
    page = read_page(paging_of(operation), arguments, result)
    assert page is not None
    return page


def page_of(operation: Operation, arguments: Json, value: Any, headers: dict[str, str] | None = None) -> Page:
    return read(operation, arguments, result_of(operation, value, headers))


def note_of(operation: Operation, arguments: Json, value: Any, headers: dict[str, str] | None = None) -> str:
    """Return the note of a page that is not truncated."""
    page = page_of(operation, arguments, value, headers)
    return describe_page(page, len(page.items))


def render_runs(count: int, first: int = 1, **more: Any) -> list[Json]:
    """Return a page of Render: [{taskRun, cursor}]. Render API reference: List task runs."""
    return [{"taskRun": {"id": f"trn-{n}"} | more, "cursor": f"c{n}"} for n in range(first, first + count)]


def posthog_page(count: int, start: int, total: int) -> Json:
    """Return a page of Django REST framework's LimitOffsetPagination; `next` is a URL, null on the last page."""
    at = "https://us.posthog.com/api/projects/1/tasks/t/runs/?limit=50&offset="
    return {
        "count": total,
        "next": f"{at}{start + count}" if start + count < total else None,
        "previous": f"{at}0" if start else None,
        "results": [{"id": str(start + n)} for n in range(1, count + 1)],
    }


def session_headers(more: str, matching: str, total: str) -> dict[str, str]:
    """Return the headers of a session log of PostHog. products/tasks/backend/api.py (session_logs)"""
    return {"X-Has-More": more, "X-Matching-Count": matching, "X-Filtered-Count": matching, "X-Total-Count": total}


def test_shipped_lists_have_the_paging_of_their_providers() -> None:
    assert {name for name, operation in TOOLS.items() if operation.paging} == {
        "inngest-list-event-runs",
        "inngest-list-function-runs",
        "render-list-task-runs",
        "render-list-tasks",
        "posthog-list-task-runs",
        "posthog-get-filtered-task-run-session",
    }
    # Render API reference: Pagination; limit is 1 to 100, 20 by default
    render = Paging(
        items=(),
        page_size_argument="limit",
        default_page_size=20,
        max_page_size=100,
        cursor_argument="cursor",
        next_cursor=("cursor",),
    )
    assert (paging_of(RENDER_RUNS), paging_of(RENDER_TASKS)) == (render, render)
    # inngest pkg/api/v2/endpoints_runs.go: 20 by default, 100 and 40 at most; page: {cursor, hasMore, limit}
    inngest = Paging(
        items=("data",),
        page_size_argument="limit",
        default_page_size=20,
        max_page_size=100,
        cursor_argument="cursor",
        response_cursor=("page", "cursor"),
        has_more=("page", "hasMore"),
    )
    assert paging_of(TOOLS["inngest-list-function-runs"]) == inngest
    assert paging_of(TOOLS["inngest-list-event-runs"]) == replace(inngest, max_page_size=40)
    # PostHog products/tasks/backend/api.py: LimitOffsetPagination, 50 by default and 100 at most; session_logs 1000 and
    # 5000, whose totals are only in headers
    assert paging_of(POSTHOG_RUNS) == Paging(
        items=("results",),
        page_size_argument="limit",
        default_page_size=50,
        max_page_size=100,
        offset_argument="offset",
        has_more=("next",),
        total=("count",),
    )
    assert paging_of(SESSION_LOG) == Paging(
        items=(),
        page_size_argument="limit",
        default_page_size=1000,
        max_page_size=5000,
        offset_argument="offset",
        has_more="x-has-more",
        total="x-matching-count",
        unfiltered_total="x-total-count",
    )


@pytest.mark.parametrize(
    ("arguments", "count", "note"),
    [
        # Render does not report has_more; its CLI stops at a page that is not full (pkg/tasks/repo.go).
        ({}, 0, "There are no items."),
        ({}, 1, "1 item: this is the end of the list."),
        ({}, 19, "19 items: this is the end of the list."),
        (
            {},
            20,
            '20 items; the page is full, so there may be more: for the next page pass cursor "c20", or all_pages true '
            "for as many as fit.",
        ),
        ({"limit": 21}, 20, "20 items: this is the end of the list."),
        ({"limit": 100}, 99, "99 items: this is the end of the list."),
        (
            {"limit": 1},
            1,
            '1 item; the page is full, so there may be more: for the next page pass cursor "c1", or all_pages true for '
            "as many as fit.",
        ),
        # Render's local server ignores limit and cursor, and returns the whole list.
        ({"limit": 2}, 3, "3 items: the provider ignores limit, so this is the end of the list."),
        ({}, 21, "21 items: the provider ignores limit, so this is the end of the list."),
        # The last page may be full, and the next one empty.
        ({"cursor": "c20", "limit": 20}, 0, "There are no items."),
    ],
)
def test_cursor_paging_continues_after_last_item_of_full_page(arguments: Json, count: int, note: str) -> None:
    assert note_of(RENDER_RUNS, arguments, render_runs(count)) == note


@pytest.mark.parametrize(
    ("arguments", "value", "note"),
    [
        ({}, posthog_page(0, 0, 0), "There are no items."),
        ({}, posthog_page(1, 0, 1), "Item 1 of 1: this is the end of the list."),
        # A full page may be the last: PostHog reports it.
        ({}, posthog_page(50, 0, 50), "Items 1 to 50 of 50: this is the end of the list."),
        (
            {},
            posthog_page(50, 0, 1234),
            "Items 1 to 50 of 1,234; there are more: for the next page pass offset 50, or all_pages true for as many "
            "as fit.",
        ),
        (
            {"offset": 100, "limit": 1},
            posthog_page(1, 100, 120),
            "Item 101 of 120; there are more: for the next page pass offset 101, or all_pages true for as many as fit.",
        ),
        ({"offset": 1100}, posthog_page(20, 1100, 1120), "Items 1,101 to 1,120 of 1,120: this is the end of the list."),
        ({"offset": 5000}, posthog_page(0, 5000, 4), "There are no items at offset 5,000."),
        # JSON Schema accepts 100.0 as an integer.
        ({"offset": 100.0}, posthog_page(20, 100, 120), "Items 101 to 120 of 120: this is the end of the list."),
    ],
)
def test_offset_paging_continues_after_last_item(arguments: Json, value: Json, note: str) -> None:
    assert note_of(POSTHOG_RUNS, arguments, value) == note


@pytest.mark.parametrize(
    ("arguments", "count", "headers", "note"),
    [
        ({}, 3, session_headers("false", "3", "3"), "Items 1 to 3 of 3: this is the end of the list."),
        (
            {"limit": 3},
            3,
            session_headers("true", "40", "40"),
            "Items 1 to 3 of 40; there are more: for the next page pass offset 3, or all_pages true for as many as "
            "fit.",
        ),
        (
            {"limit": 3, "offset": 10, "event_types": "tool_call"},
            3,
            session_headers("true", "1040", "2040"),
            "Items 11 to 13 of 1,040 (without filters 2,040); there are more: for the next page pass offset 13, or "
            "all_pages true for as many as fit.",
        ),
        (
            {"event_types": "tool_call"},
            1,
            session_headers("false", "1", "40"),
            "Item 1 of 1 (without filters 40): this is the end of the list.",
        ),
        ({"event_types": "none"}, 0, session_headers("false", "0", "40"), "There are no items."),
        ({"offset": 40}, 0, session_headers("false", "40", "40"), "There are no items at offset 40."),
        # PostHog reports that a full page is the last.
        ({"limit": 3}, 3, session_headers("false", "3", "3"), "Items 1 to 3 of 3: this is the end of the list."),
        # A proxy may change the case of the value.
        (
            {},
            1,
            session_headers("True", "2", "2"),
            "Item 1 of 2; there are more: for the next page pass offset 1, or all_pages true for as many as fit.",
        ),
        ({}, 1, session_headers("FALSE", "1", "1"), "Item 1 of 1: this is the end of the list."),
        # A proxy may drop the headers: then a full page may not be the last.
        ({}, 2, {}, "Items 1 to 2: this is the end of the list."),
        (
            {"limit": 2},
            2,
            {},
            "Items 1 to 2; the page is full, so there may be more: for the next page pass offset 2, or all_pages true "
            "for as many as fit.",
        ),
        ({}, 2, session_headers("false", "many", "-1"), "Items 1 to 2: this is the end of the list."),
        ({}, 2, session_headers("false", "9" * 5000, "9" * 5000), "Items 1 to 2: this is the end of the list."),
        # Without X-Has-More the total decides.
        ({"limit": 2}, 2, {"X-Matching-Count": "2"}, "Items 1 to 2 of 2: this is the end of the list."),
        ({"limit": 2, "offset": 4}, 2, {"X-Matching-Count": "6"}, "Items 5 to 6 of 6: this is the end of the list."),
        (
            {},
            3,
            {"X-Matching-Count": "40"},
            "Items 1 to 3 of 40; there are more: for the next page pass offset 3, or all_pages true for as many as "
            "fit.",
        ),
        # PostHog caps a page at 2 MiB, so that it may be shorter than its limit: X-Has-More decides, not the total.
        (
            {"limit": 100},
            3,
            session_headers("true", "3", "9"),
            "Items 1 to 3 (without filters 9); there are more: for the next page pass offset 3, or all_pages true for "
            "as many as fit.",
        ),
        # A server that ignores the offset returns items beyond the total.
        (
            {"limit": 2, "offset": 2},
            2,
            session_headers("false", "2", "2"),
            "Items 3 to 4: the provider ignores offset, so this is the end of the list.",
        ),
    ],
)
def test_offset_paging_reads_has_more_from_headers(
    arguments: Json, count: int, headers: dict[str, str], note: str
) -> None:
    assert note_of(SESSION_LOG, arguments, [{"n": n} for n in range(count)], headers) == note


@pytest.mark.parametrize("last", [{"taskRun": {}}, {"cursor": ""}, {"cursor": None}, "text", None, [1]])
def test_page_without_cursor_has_no_next_arguments(last: Any) -> None:
    value = [*render_runs(1), last]
    note = "2 items; there may be more, but the response has no cursor for the next page."
    assert note_of(RENDER_RUNS, {"limit": 2}, value) == note
    assert page_of(RENDER_RUNS, {"limit": 2}, value).next_arguments(2) == {}


def test_no_cursor_follows_zero_items() -> None:
    assert page_of(RENDER_RUNS, {}, render_runs(3)).next_arguments(0) == {}
    assert page_of(POSTHOG_RUNS, {"offset": 7}, posthog_page(3, 7, 20)).next_arguments(0) == {"offset": 7}


@pytest.mark.parametrize(
    ("value", "total"),
    [
        ({"results": [], "count": 12}, 12),
        ({"results": [], "count": "12"}, 12),
        ({"results": [], "count": None}, None),
        ({"results": [], "count": "a dozen"}, None),
        ({"results": [], "count": [12]}, None),
        ({"results": []}, None),
    ],
)
def test_total_is_shown_if_it_is_a_number(value: Json, total: int | None) -> None:
    assert page_of(POSTHOG_RUNS, {}, value).total == total


@pytest.mark.parametrize(
    ("value", "has_more"),
    [(None, False), (False, False), ("", False), ("false", False), (True, True), ("https://x.example/?offset=1", True)],
)
def test_more_items_follow_if_the_has_more_field_is_set(value: Any, has_more: bool) -> None:
    assert page_of(POSTHOG_RUNS, {}, {"results": [{}], "next": value}).has_more is has_more


@pytest.mark.parametrize(
    ("operation", "value"),
    [
        (RENDER_RUNS, {"message": "moved"}),
        (RENDER_RUNS, "text"),
        (POSTHOG_RUNS, []),
        (POSTHOG_RUNS, {"detail": "moved"}),
        (POSTHOG_RUNS, {"results": {"a": 1}}),
    ],
)
def test_response_without_list_is_not_a_page(operation: Operation, value: Any) -> None:
    result = result_of(operation, value)
    page = read_page(paging_of(operation), {}, result)
    assert page is None
    assert format_page(result, page, 1000) == result


ADVICE = r"for the next page pass"


def shown(operation: Operation, arguments: Json, value: Any, limit: int) -> CallResult:
    result = result_of(operation, value)
    return format_page(result, read(operation, arguments, result), limit)


def test_page_within_limit_is_not_truncated() -> None:
    value = render_runs(5)
    result = shown(RENDER_RUNS, {}, value, 10_000)
    assert (result.value, parse(result.text)) == (value, value)
    assert result.notes == ("5 items: this is the end of the list.",)


def test_notes_of_the_result_are_kept() -> None:
    result = result_of(RENDER_RUNS, render_runs(5)).with_notes("Redacted: something.")
    noted = format_page(result, read(RENDER_RUNS, {}, result), 10_000)
    assert noted.notes == ("5 items: this is the end of the list.", "Redacted: something.")


def test_truncated_page_continues_after_last_shown_item() -> None:
    value = render_runs(20, input=["x" * 100])
    result = shown(RENDER_RUNS, {}, value, 1000)
    kept = len(result.value)
    assert 0 < kept < 20
    assert result.value == value[:kept]
    assert result.notes == (
        f'{kept} items; there are more: for the next page pass cursor "c{kept}", or all_pages true for as many as fit.',
        f"Truncated to about 1,000 characters; kept: the list: {kept} of 20 items.",
    )


def test_truncated_last_page_is_not_the_end_of_the_list() -> None:
    value = posthog_page(30, 90, 120) | {"results": [{"id": str(n), "output": "x" * 80} for n in range(91, 121)]}
    result = shown(POSTHOG_RUNS, {"offset": 90}, value, 1000)
    kept = len(result.value["results"])
    assert 0 < kept < 30
    assert result.notes[0] == (
        f"Items 91 to {90 + kept} of 120; there are more: for the next page pass offset {90 + kept}, or all_pages true "
        "for as many as fit."
    )


def test_truncated_page_above_its_limit_has_no_next_page() -> None:
    page = page_of(RENDER_RUNS, {"limit": 2}, render_runs(3))
    note = "1 item: the provider ignores limit, and the other 2 items did not fit."
    assert describe_page(page, 1) == note


def test_page_without_its_list_after_truncation_shows_no_items() -> None:
    value = {"a": ["x"] * 100} | posthog_page(3, 0, 20)
    result = shown(POSTHOG_RUNS, {}, value, 100)
    assert "results" not in result.value
    assert result.notes[0] == "None of the 3 items of this page fits into the result."


def walk(operation: Operation, pages: Any, limit: int) -> list[Any]:
    """Return all items shown by following the advice of each note."""
    arguments: Json = {}
    seen: list[Any] = []
    for _ in range(1000):
        result = result_of(operation, pages(arguments))
        page = read(operation, arguments, result)
        visible = format_page(result, page, limit)
        items = visible.value if operation is RENDER_RUNS else visible.value["results"]
        seen += items
        if ADVICE not in visible.notes[0]:
            return seen
        following = page.next_arguments(len(items))
        assert following != {name: arguments.get(name) for name in following}, "it does not go on"
        ((name, value),) = following.items()
        assert f"{ADVICE} {name} {dump(value)}," in visible.notes[0]
        arguments = {**arguments, **following}
    raise AssertionError("it does not end")


# Items that are small, about as large as the limit, and much larger, which are truncated.
SIZES = [10, 300, 5_000, 1, 900, 990, 1_000, 1_010, 60, 60, 60, 20_000, 20_000, 5]


@pytest.mark.parametrize("limit", [1000, 1500, 30_000])
def test_following_the_advice_shows_every_item_once_with_cursor(limit: int) -> None:
    items: list[Json] = [
        {"taskRun": {"id": f"trn-{n}", "input": ["x" * size]}, "cursor": f"c{n}"} for n, size in enumerate(SIZES * 4, 1)
    ]

    def pages(arguments: Json) -> list[Json]:
        start = int(arguments.get("cursor", "c0")[1:])
        return items[start : start + 20]

    seen = walk(RENDER_RUNS, pages, limit)
    assert [item["taskRun"]["id"] for item in seen] == [item["taskRun"]["id"] for item in items]


@pytest.mark.parametrize("limit", [1000, 1500, 30_000])
def test_following_the_advice_shows_every_item_once_with_offset(limit: int) -> None:
    items = [{"id": f"run-{n}", "output": "x" * size} for n, size in enumerate(SIZES * 8)]

    def pages(arguments: Json) -> Json:
        start = arguments.get("offset", 0)
        found = items[start : start + 50]
        return posthog_page(len(found), start, len(items)) | {"results": found}

    seen = walk(POSTHOG_RUNS, pages, limit)
    assert [item["id"] for item in seen] == [item["id"] for item in items]


def test_pages_are_joined_into_one() -> None:
    values = [posthog_page(2, 3, 7), posthog_page(2, 5, 7)]
    results = [result_of(POSTHOG_RUNS, value) for value in values]
    pages = [read(POSTHOG_RUNS, {"offset": offset}, result) for offset, result in zip((3, 5), results, strict=True)]
    whole, page = join_pages(results[0], pages, results[1])
    assert whole.value == {
        "count": 7,
        "next": None,
        "previous": values[0]["previous"],
        "results": [{"id": "4"}, {"id": "5"}, {"id": "6"}, {"id": "7"}],
    }
    assert parse(whole.text) == whole.value
    assert page == replace(pages[0], items=whole.value["results"], has_more=False)
    assert describe_page(page, 4) == "Items 4 to 7 of 7: this is the end of the list."
    assert page.next_arguments(3) == {"offset": 6}


def test_joined_pages_have_the_latest_total() -> None:
    results = [result_of(POSTHOG_RUNS, posthog_page(2, 0, 4)), result_of(POSTHOG_RUNS, posthog_page(2, 2, 9))]
    pages = [read(POSTHOG_RUNS, {"offset": offset}, result) for offset, result in zip((0, 2), results, strict=True)]
    whole, page = join_pages(results[0], pages, results[1])
    assert (page.total, page.has_more) == (9, True)
    assert whole.value["next"] == results[1].value["next"]


def test_pages_without_has_more_field_are_joined() -> None:
    results = [result_of(RENDER_RUNS, render_runs(2)), result_of(RENDER_RUNS, render_runs(2, 3))]
    pages = [read(RENDER_RUNS, {"limit": 2}, result) for result in results]
    whole, page = join_pages(results[0], pages, results[1])
    assert whole.value == render_runs(4)
    assert (page.has_more, page.is_known, page.next_arguments(4)) == (True, False, {"cursor": "c4"})


def test_joining_one_page_changes_nothing() -> None:
    result = result_of(RENDER_RUNS, render_runs(2))
    page = read(RENDER_RUNS, {}, result)
    assert join_pages(result, [page], result) == (result, page)


def link(query: str) -> Json:
    return {"count": 9, "next": f"https://us.posthog.com/api/runs/{query}", "results": [{"id": "1"}, {"id": "2"}]}


@pytest.mark.parametrize(
    ("query", "leads_back"),
    [
        ("?limit=2&offset=4", False),
        ("?offset=3", False),
        ("?offset=2", True),
        ("?offset=0&limit=2", True),
        ("?limit=2", False),
        ("", False),
        ("?offset=abc", False),
        ("?offset=" + "9" * 10_000, False),
        ("?offset=4#offset=0", False),
    ],
)
def test_link_to_an_earlier_page_is_not_followed(query: str, leads_back: bool) -> None:
    page = page_of(POSTHOG_RUNS, {"offset": 2, "limit": 2}, link(query))
    assert page.has_more is not leads_back
    assert page.next_arguments(2) == ({} if leads_back else {"offset": 4})


def test_link_with_the_cursor_that_was_passed_is_not_followed() -> None:
    paging = Paging(
        items=("items",),
        page_size_argument="limit",
        default_page_size=2,
        max_page_size=2,
        cursor_argument="after",
        next_cursor=("id",),
        has_more=("next",),
        total=("count",),
    )

    def read_next(query: str, **arguments: Any) -> Page | None:
        value = {"items": [{"id": "a"}, {"id": "b"}], "next": f"/list?{query}", "count": 2}
        return read_page(paging, arguments, CallResult(200, dump(value), value))

    for query, arguments, has_more in (("after=b", {"after": "x"}, True), ("after=x", {"after": "x"}, False)):
        page = read_next(query, **arguments)
        assert page is not None
        assert page.has_more is has_more


@pytest.mark.parametrize(("cursor", "before", "has_more"), [(None, None, False), ("a", None, True), ("a", 2, False)])
def test_total_ends_a_list_with_cursors_where_the_position_is_known(
    cursor: str | None, before: int | None, has_more: bool
) -> None:
    paging = replace(paging_of(RENDER_RUNS), items=("items",), total=("count",))
    value = {"items": render_runs(2), "count": 2 + (before or 0)}
    page = read_page(paging, {"limit": 2, "cursor": cursor}, CallResult(200, dump(value), value), before)
    assert page is not None
    assert page.has_more is has_more


@pytest.mark.parametrize("cursor", ["c" * 5_000, {"a": 1}, ["c"], 0, False])
def test_cursor_that_cannot_be_passed_is_not_suggested(cursor: Any) -> None:
    value = [{"taskRun": {"id": "1"}, "cursor": cursor}]
    assert page_of(RENDER_RUNS, {"limit": 1}, value).next_arguments(1) == {}
