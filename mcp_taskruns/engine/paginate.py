"""Read a list page by page, up to as many items as fit into a result."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import anyio

from mcp_taskruns.core.calls.pages import Page, join_pages, page_number, read_page
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import EACH, Path, value_at
from mcp_taskruns.core.model.operation import Paging
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.progress import ProgressReporter
from mcp_taskruns.errors import CallError

MAX_PAGES = 50


async def read_pages(
    client: Client,
    tool: Tool,
    paging: Paging,
    arguments: Mapping[str, Any],
    reporter: ProgressReporter,
    *,
    seconds: float,
) -> tuple[CallResult, Page | None]:
    """Return the pages of a list, from the one that the arguments ask for, as one page.

    Reading stops after `seconds`, after MAX_PAGES, when the result is full, at a page that fails, and at one that leads
    back to an earlier page; a note contains the reason. Raises CallError when the first page fails.
    """
    if _may_set_page_size(paging, arguments):
        arguments = {**arguments, paging.page_size_argument: paging.max_page_size}
    end = anyio.current_time() + seconds
    room = client.settings.max_result_chars
    pages = _Pages(tool, paging, arguments)
    first = last = await client.fetch(tool.operation, arguments, notify=reporter.note)
    notes = dict.fromkeys(first.notes)
    stopped = ""
    while (page := read_page(paging, arguments, last, pages.known_count)) is not None:
        following = pages.add(page)
        room -= len(last.text)
        await _report(pages, reporter)
        stopped = _reason_to_stop(len(pages.pages), room, end, seconds)
        if not following or stopped:
            break
        arguments = {**arguments, **following}
        try:
            last = await client.fetch(tool.operation, arguments, notify=reporter.note)
            notes |= dict.fromkeys(last.notes)
        except CallError as exc:
            stopped = f"The next page could not be read: {exc.message.removesuffix('.')}."
            break
    if not pages.pages:
        return first, None
    whole, page = join_pages(first, pages.pages, last)
    stopped = stopped if page.has_more and page.next_arguments(len(page.items)) else ""
    return replace(whole, notes=tuple(filter(None, (stopped, *notes)))), page


def _may_set_page_size(paging: Paging, arguments: Mapping[str, Any]) -> bool:
    """Whether the caller leaves the page size open. The number of a later page depends on it."""
    is_later = bool(paging.page_argument) and page_number(paging, arguments) != paging.first_page
    return bool(paging.page_size_argument) and arguments.get(paging.page_size_argument) is None and not is_later


def _reason_to_stop(pages: int, room: int, end: float, seconds: float) -> str:
    """Return why no further page is read, empty to go on."""
    if pages == MAX_PAGES:
        return f"Reading stopped after {MAX_PAGES} pages, the most that one call reads."
    if room < 0:
        return "Reading stopped because the result is full."
    if anyio.current_time() >= end:
        return f"Reading stopped after the {seconds:g} s of this call."
    return ""


class _Pages:
    """The pages of a list so far, each item once.

    Runs are recognised by their ids, and items that have cursors by their JSON. Other items may be equal, for example
    the entries of a log: of these only a whole page is recognised.
    """

    def __init__(self, tool: Tool, paging: Paging, arguments: Mapping[str, Any]) -> None:
        self.pages: list[Page] = []
        self._id_path = _run_id_path(tool, paging)
        self._has_distinct_items = bool(self._id_path or paging.next_cursor)
        self._keys: set[str] = set()
        first: dict[str, Any] = {paging.offset_argument: 0, paging.page_argument: paging.first_page}
        self._arguments = first | {name: value for name, value in arguments.items() if value is not None}
        self._is_complete = arguments.get(paging.position_argument) in (None, first.get(paging.position_argument))
        self._requested = {_identity(self._arguments)}

    @property
    def count(self) -> int:
        """The number of items."""
        return sum(len(page.items) for page in self.pages)

    @property
    def known_count(self) -> int | None:
        """The number of items before the next page; None if the list was not read from its beginning."""
        return self.count if self._is_complete else None

    def add(self, page: Page) -> dict[str, Any]:
        """Add the new items of the next page; return the arguments of the one after it, none at the end of the list."""
        new_items = self._new_items(page.items)
        is_gap = page.has_more and not page.items and bool(page.following)
        if self.pages and not new_items and (page.items or page.has_more) and not is_gap:
            repeated = "the next page contains only items that were already listed"
            self.pages[-1] = self.pages[-1].end(repeated if page.items else "the next page is empty")
            return {}
        following = page.next_arguments(len(page.items)) if page.has_more and (page.items or is_gap) else {}
        self._arguments |= following
        if following and _identity(self._arguments) in self._requested:
            names = " and ".join(following)
            page = page.end(f"the next {names} leads back to an earlier page")
            following = {}
        self.pages.append(replace(page, items=new_items))
        self._requested.add(_identity(self._arguments))
        return following

    def _new_items(self, items: Sequence[Any]) -> list[Any]:
        if self._has_distinct_items:
            keys = [self._key(item) for item in items]
            new_items = [item for item, key in zip(items, keys, strict=True) if key not in self._keys]
        else:
            keys = [dump(items)]
            new_items = [] if keys[0] in self._keys else list(items)
        self._keys.update(keys)
        return new_items

    def _key(self, item: Any) -> str:
        run_id = value_at(item, self._id_path)
        return run_id if isinstance(run_id, str) else dump(item)


def _identity(arguments: Mapping[str, Any]) -> str:
    """Return a text that is the same for the same arguments in any order."""
    return dump(dict(sorted(arguments.items())))


def _run_id_path(tool: Tool, paging: Paging) -> Path | None:
    """Return the path from an item to the id of its run, if the list is one of runs."""
    place = tool.runs.runs_in.get(tool.operation.name, ()) if tool.runs else ()
    to_item = (*paging.items, EACH)
    if tool.runs is None or place[: len(to_item)] != to_item:
        return None
    return (*place[len(to_item) :], *tool.runs.fields.id)


async def _report(pages: _Pages, reporter: ProgressReporter) -> None:
    count, total = len(pages.pages), pages.pages[-1].total
    of_total = "" if total is None else f" of {total:,}"
    await reporter.report(f"page {count}, items so far: {pages.count:,}{of_total}")
