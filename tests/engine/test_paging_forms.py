"""Lists by page number, by a cursor of the response, and by the URL of the next page, through the gateway."""

import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from mcp_taskruns.errors import InvalidArguments
from mcp_taskruns.settings import Settings
from tests.engine.runs.described import BASE, OPERATIONS, Acme, Call, Json, acme

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

RUNS = [{"id": f"run-{number}", "state": "done"} for number in range(1, 8)]
URL = f"{BASE}/teams/t/jobs"

Lists = Callable[..., AbstractAsyncContextManager[Acme]]
Page = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def lists(tmp_path: Path) -> Lists:
    """Return what serves a list of jobs, of which an overlay describes the pages."""

    @asynccontextmanager
    async def serve(paging: Json, respond: Page, **types: Any) -> AsyncIterator[Acme]:
        settings = types.pop("settings", None)
        inputs = [{"name": name, "in": "query", "type": type_} for name, type_ in types.items()]
        listjobs = {**OPERATIONS["listjobs"], "inputParameters": inputs, "paging": paging}
        operations = {**OPERATIONS, "listjobs": listjobs}
        async with acme(tmp_path, respond, operations=operations, settings=settings) as served:
            yield served

    return serve


def sent(served: Acme) -> list[str]:
    """Return the queries of the requests."""
    return [request.url.query.decode() for request in served.received]


def page_note(call: Call) -> str:
    """Return the note about the page, which follows the statuses of its runs."""
    return next(note for note in call.result.notes if not note.startswith("Run"))


def ids(value: Any) -> list[str]:
    return [run["id"] for run in value["jobs"]]


NUMBERED: Json = {
    "items": "$.jobs",
    "page_argument": "page",
    "page_size_argument": "per_page",
    "default_page_size": 2,
    "max_page_size": 3,
}
NUMBER_TYPES = {"page": "integer", "per_page": "integer"}


def numbered(*, links: bool = False, total: bool = False, first: int = 1, runs: Sequence[Json] = RUNS) -> Page:
    """Return a provider that counts pages from `first`, with a Link header like GitHub's or a total."""

    def respond(request: httpx.Request) -> httpx.Response:
        query = request.url.params
        number, size = int(query.get("page", first)), int(query.get("per_page", 2))
        start = (number - first) * size
        body: Json = {"jobs": runs[start : start + size], **({"total_count": len(runs)} if total else {})}
        has_next = links and start + size < len(runs)
        link = f'<{URL}?per_page={size}&page={number + 1}>; rel="next", <{URL}?page=4>; rel="last"'
        return httpx.Response(200, json=body, headers={"Link": link} if has_next else {})

    return respond


@pytest.mark.parametrize(
    ("paging", "respond"),
    [
        (NUMBERED, numbered()),
        (NUMBERED | {"total": "$.total_count"}, numbered(total=True)),
        (NUMBERED | {"next_url": {"header": "Link"}}, numbered(links=True)),
        (NUMBERED | {"next_url": {"header": "LINK"}, "total": "$.total_count"}, numbered(links=True, total=True)),
        (NUMBERED | {"first_page": 0}, numbered(first=0)),
    ],
)
async def test_all_pages_by_number_reads_each_run_once(lists: Lists, paging: Json, respond: Page) -> None:
    first = paging.get("first_page", 1)
    async with lists(paging, respond, **NUMBER_TYPES) as served:
        call = await served.call("listjobs", all_pages=True)
        assert ids(call.value) == [run["id"] for run in RUNS]
        assert sent(served)[0] == "per_page=3"
        assert [dict(request.url.params) for request in served.received[1:]] == [
            {"page": str(first + number), "per_page": "3"} for number in (1, 2)
        ]
        assert call.result.notes[-1].startswith("Items 1 to 7")
        assert call.result.notes[-1].endswith(": this is the end of the list.")


@pytest.mark.parametrize(
    ("arguments", "note"),
    [
        (
            {},
            "Items 1 to 2 of 7; there are more: for the next page pass page 2, or all_pages true for as many as fit.",
        ),
        (
            {"page": 3},
            "Items 5 to 6 of 7; there are more: for the next page pass page 4, or all_pages true for as many as fit.",
        ),
        (
            {"page": 2, "per_page": 3},
            "Items 4 to 6 of 7; there are more: for the next page pass page 3 and per_page 3, or all_pages true for as "
            "many as fit.",
        ),
        ({"page": 4}, "Item 7 of 7: this is the end of the list."),
        ({"page": 9}, "There are no items."),
    ],
)
@pytest.mark.parametrize("links", [False, True])
async def test_note_names_the_number_of_the_next_page(lists: Lists, arguments: Json, note: str, links: bool) -> None:
    paging = NUMBERED | {"total": "$.total_count"} | ({"next_url": {"header": "Link"}} if links else {})
    async with lists(paging, numbered(links=links, total=True), **NUMBER_TYPES) as served:
        call = await served.call("listjobs", **arguments)
        if links and "per_page" not in arguments:
            # GitHub's link has the page size also if the caller did not pass it.
            note = re.sub(r"pass page (\d)", r"pass page \1 and per_page 2", note)
        assert page_note(call) == note


async def test_all_pages_from_a_later_page_keeps_the_page_size(lists: Lists) -> None:
    async with lists(NUMBERED, numbered(), **NUMBER_TYPES) as served:
        call = await served.call("listjobs", page=2, all_pages=True)
        assert ids(call.value) == [run["id"] for run in RUNS[2:]]
        assert sent(served) == ["page=2", "page=3", "page=4"]
        assert call.result.notes[-1] == "Items 3 to 7: this is the end of the list."


async def test_truncated_page_by_number_names_the_rest_and_the_next_page(lists: Lists) -> None:
    runs = [{**run, "text": "x" * 900} for run in RUNS]
    settings = Settings(max_result_chars=2000)
    async with lists(NUMBERED, numbered(runs=runs), settings=settings, **NUMBER_TYPES) as served:
        call = await served.call("listjobs", per_page=3)
        assert len(call.value["jobs"]) < 3
        notes = " ".join(call.result.notes)
        assert "more of this page did not fit; for the page after it pass page 2 and per_page 3." in notes
        assert 'call again with result_path "jobs[2:]"' in notes
        rest = await served.call("listjobs", per_page=3, result_path="jobs[2:]")
        assert [run["id"] for run in rest.value] == ["run-3"]


async def test_provider_that_ignores_the_page_number_ends_the_list(lists: Lists) -> None:
    async with lists(NUMBERED, lambda _: httpx.Response(200, json={"jobs": RUNS[:3]}), **NUMBER_TYPES) as served:
        call = await served.call("listjobs", all_pages=True)
        assert ids(call.value) == ["run-1", "run-2", "run-3"]
        assert call.result.notes[-1] == (
            "Items 1 to 3: the next page contains only items that were already listed, so this is the end of the list."
        )
        assert len(served.received) == 2


async def test_page_number_after_the_total_is_reported_as_ignored(lists: Lists) -> None:
    paging = NUMBERED | {"total": "$.total_count"}
    body = {"jobs": RUNS[:2], "total_count": 7}
    async with lists(paging, lambda _: httpx.Response(200, json=body), **NUMBER_TYPES) as served:
        call = await served.call("listjobs", page=9)
        assert page_note(call) == "Items 17 to 18: the provider ignores page, so this is the end of the list."


@pytest.mark.parametrize("page", [1, 2])
async def test_link_to_the_same_or_an_earlier_page_ends_the_list(lists: Lists, page: int) -> None:
    link = {"Link": f'<{URL}?page={page}>; rel="next"'}
    paging = NUMBERED | {"next_url": {"header": "Link"}}
    async with lists(
        paging, lambda _: httpx.Response(200, json={"jobs": RUNS[:2]}, headers=link), **NUMBER_TYPES
    ) as served:
        call = await served.call("listjobs", page=2)
        assert page_note(call) == (
            "Items 3 to 4: the link to the next page leads back, so this is the end of the list."
        )


# A URL in the body, as Replicate has it: {next, previous, results}, replicate 1.0 pagination.py

LINKED: Json = {"items": "$.jobs", "next_url": "$.next", "page_size_argument": "", "default_page_size": 3}
CURSORS = {None: 0, "cD0y": 3, "cD0z": 6}


def linked(request: httpx.Request) -> httpx.Response:
    start = CURSORS[request.url.params.get("cursor")]
    following = {0: "cD0y", 3: "cD0z"}.get(start)
    url = f"{URL}?cursor={following}&unknown=1" if following else None
    return httpx.Response(200, json={"next": url, "previous": None, "jobs": RUNS[start : start + 3]})


@pytest.mark.parametrize("more", [{}, {"cursor_argument": "cursor"}])
async def test_all_pages_follows_the_url_in_the_body(lists: Lists, more: Json) -> None:
    async with lists(LINKED | more, linked, cursor="string") as served:
        call = await served.call("listjobs", all_pages=True)
        assert ids(call.value) == [run["id"] for run in RUNS]
        assert call.value["next"] is None
        assert sent(served) == ["", "cursor=cD0y", "cursor=cD0z"]
        assert call.result.notes[-1] == "7 items: this is the end of the list."


async def test_note_names_the_arguments_in_the_url_of_the_next_page(lists: Lists) -> None:
    async with lists(LINKED, linked, cursor="string") as served:
        call = await served.call("listjobs")
        assert page_note(call) == (
            '3 items; there are more: for the next page pass cursor "cD0y", or all_pages true for as many as fit.'
        )


async def test_url_without_an_argument_of_the_operation_is_reported(lists: Lists) -> None:
    body = {"jobs": RUNS[:2], "next": f"{URL}/pages/2?token=x"}
    async with lists(LINKED, lambda _: httpx.Response(200, json=body), cursor="string") as served:
        call = await served.call("listjobs", all_pages=True)
        assert call.result.notes[-1] == (
            "2 items; there may be more, but the response does not show how to get the next page."
        )
        assert len(served.received) == 1


@pytest.mark.parametrize("url", ["?cursor=a", f"{URL}?cursor=a#cursor=b"])
async def test_url_of_the_page_itself_ends_the_list(lists: Lists, url: str) -> None:
    body = {"jobs": RUNS[:2], "next": url}
    async with lists(LINKED, lambda _: httpx.Response(200, json=body), cursor="string") as served:
        call = await served.call("listjobs", cursor="a", all_pages=True)
        assert call.result.notes[-1] == (
            "2 items: the link to the next page leads back, so this is the end of the list."
        )


async def test_cycle_of_urls_ends_the_list(lists: Lists) -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        cursor = request.url.params.get("cursor", "c")
        number = "abc".index(cursor)
        body = {"jobs": [{"id": f"{cursor}{len(cursor)}", "state": "done"}], "next": f"?cursor={'bca'[number]}"}
        return httpx.Response(200, json=body)

    async with lists(LINKED, respond, cursor="string") as served:
        call = await served.call("listjobs", cursor="a", all_pages=True)
        assert ids(call.value) == ["a1", "b1", "c1"]
        assert call.result.notes[-1] == (
            "3 items: the next cursor leads back to an earlier page, so this is the end of the list."
        )


# A cursor in the response. Trigger.dev: pagination.next; Inngest v2: page.cursor with page.hasMore

CURSOR: Json = {
    "items": "$.jobs",
    "cursor_argument": "page[after]",
    "page_size_argument": "page[size]",
    "next_cursor": {"response": "$.pagination.next"},
    "default_page_size": 2,
}


def with_cursor(request: httpx.Request) -> httpx.Response:
    """Respond like an API whose second page is empty although more follow, as Inngest's v2 may."""
    after = request.url.params.get("page[after]")
    jobs, following = {None: (RUNS[:2], "2"), "2": ([], "3"), "3": (RUNS[2:4], None)}[after]
    return httpx.Response(200, json={"jobs": jobs, "pagination": {"next": following}})


async def test_all_pages_follows_the_cursor_of_the_response(lists: Lists) -> None:
    types = {"page[after]": "string", "page[size]": "integer"}
    async with lists(CURSOR, with_cursor, **types) as served:
        call = await served.call("listjobs", all_pages=True)
        assert ids(call.value) == ["run-1", "run-2", "run-3", "run-4"]
        assert call.value["pagination"] == {"next": None}
        assert [dict(request.url.params) for request in served.received] == [
            {"page[size]": "2"},
            {"page[size]": "2", "page[after]": "2"},
            {"page[size]": "2", "page[after]": "3"},
        ]
        empty = await served.call("listjobs", **{"page[after]": "2"})
        assert page_note(empty) == (
            'This page has no items; there may be more: for the next page pass page[after] "3".'
        )


@pytest.mark.parametrize(
    ("next_cursor", "type_", "headers", "body", "value"),
    [
        ({"header": "X-Next-Page"}, "integer", {"X-Next-Page": "3"}, {}, 3),
        ({"header": "X-Next-Page"}, "string", {"X-Next-Page": "a"}, {}, "a"),
        ({"response": "$.next"}, "integer", {}, {"next": 3}, 3),
        ({"response": "$.next"}, "string", {}, {"next": 3}, "3"),
    ],
)
async def test_cursor_has_the_type_of_its_argument(
    lists: Lists, next_cursor: Json, type_: str, headers: dict[str, str], body: Json, value: int | str
) -> None:
    paging = CURSOR | {"cursor_argument": "page", "next_cursor": next_cursor}
    response = httpx.Response(200, json={"jobs": RUNS[:2], **body}, headers=headers)
    async with lists(paging, lambda _: response, page=type_) as served:
        call = await served.call("listjobs")
        assert f"for the next page pass page {json.dumps(value)}, or" in page_note(call)


@pytest.mark.parametrize("cursor", ["", None, 0, False, "c" * 5000, {"a": 1}])
async def test_cursor_of_the_response_that_cannot_be_passed_is_not_suggested(lists: Lists, cursor: Any) -> None:
    body = {"jobs": RUNS[:2], "pagination": {"next": cursor}}
    async with lists(CURSOR, lambda _: httpx.Response(200, json=body), **{"page[after]": "string"}) as served:
        call = await served.call("listjobs", all_pages=True)
        lacks = "; there may be more, but the response has no cursor for the next page."
        assert call.result.notes[-1] == f"2 items{lacks if cursor else ': this is the end of the list.'}"
        assert len(served.received) == 1


async def test_cursor_of_the_response_that_was_passed_ends_the_list(lists: Lists) -> None:
    body = {"jobs": RUNS[:2], "pagination": {"next": "x"}}
    async with lists(CURSOR, lambda _: httpx.Response(200, json=body), **{"page[after]": "string"}) as served:
        call = await served.call("listjobs", **{"page[after]": "x"})
        assert page_note(call) == (
            "2 items: the page[after] of the next page is the one that was passed, so this is the end of the list."
        )


async def test_has_more_decides_beside_a_cursor_of_the_response(lists: Lists) -> None:
    paging = CURSOR | {"has_more": "$.more"}
    body = {"jobs": RUNS[:2], "pagination": {"next": "x"}, "more": False}
    async with lists(paging, lambda _: httpx.Response(200, json=body), **{"page[after]": "string"}) as served:
        call = await served.call("listjobs")
        assert page_note(call) == "2 items: this is the end of the list."


async def test_full_page_of_a_fixed_size_may_have_a_next_one(lists: Lists) -> None:
    paging = {**NUMBERED, "page_size_argument": "", "default_page_size": 2}
    async with lists(paging, numbered(), page="integer") as served:
        call = await served.call("listjobs", all_pages=True)
        assert ids(call.value) == [run["id"] for run in RUNS]
        assert sent(served) == ["", "page=2", "page=3", "page=4"]
        with pytest.raises(InvalidArguments):
            await served.call("listjobs", per_page=3)
