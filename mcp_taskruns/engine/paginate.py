"""Read a list page by page, up to as many items as fit into a result."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import anyio

from mcp_taskruns.core.calls.pages import Page, join_pages, read_page
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
    if arguments.get(paging.page_size_argument) is None:
        arguments = {**arguments, paging.page_size_argument: paging.max_page_size}
    end = anyio.current_time() + seconds
    room = client.settings.max_result_chars
    pages: list[Page] = []
    listed = _ListedItems(tool, paging)
    requested = [arguments.get(paging.cursor_argument or paging.offset_argument)]
    first = last = await client.fetch(tool.operation, arguments, notify=reporter.note)
    notes = dict.fromkeys(first.notes)
    stopped = ""
    while (page := read_page(paging, arguments, last, _count(pages) if requested[0] is None else None)) is not None:
        new_items = listed.add(page.items)
        if pages and page.has_more and not page.items:
            pages[-1] = pages[-1].end("the next page is empty")
            break
        if pages and page.items and not new_items:
            pages[-1] = pages[-1].end("the next page contains only items that were already listed")
            break
        following = page.next_arguments(len(page.items)) if page.items and page.has_more else {}
        if any(value in requested for value in following.values()):
            page, following = page.end(f"the next {paging.cursor_argument} leads back to an earlier page"), {}
        pages.append(replace(page, items=new_items))
        room -= len(last.text)
        await _report(pages, reporter)
        stopped = _reason_to_stop(len(pages), room, end, seconds)
        if not following or stopped:
            break
        arguments = {**arguments, **following}
        requested += following.values()
        try:
            last = await client.fetch(tool.operation, arguments, notify=reporter.note)
            notes |= dict.fromkeys(last.notes)
        except CallError as exc:
            stopped = f"The next page could not be read: {exc.message.removesuffix('.')}."
            break
    if not pages:
        return first, None
    whole, page = join_pages(first, pages, last)
    stopped = stopped if page.next_arguments(len(page.items)) and page.has_more else ""
    return replace(whole, notes=tuple(filter(None, (stopped, *notes)))), page


def _reason_to_stop(pages: int, room: int, end: float, seconds: float) -> str:
    """Return why no further page is read, empty to go on."""
    if pages == MAX_PAGES:
        return f"Reading stopped after {MAX_PAGES} pages, the most that one call reads."
    if room < 0:
        return "Reading stopped because the result is full."
    if anyio.current_time() >= end:
        return f"Reading stopped after the {seconds:g} s of this call."
    return ""


class _ListedItems:
    """The items of the pages so far, by which repeated ones are recognised.

    Runs are recognised by their ids, and items with cursors by their JSON. Other items may be equal, for example the
    entries of a log: of these only a whole page is recognised.
    """

    def __init__(self, tool: Tool, paging: Paging) -> None:
        self._id_path = _run_id_path(tool, paging)
        self._has_distinct_items = bool(self._id_path or paging.cursor_argument)
        self._keys: set[str] = set()

    def add(self, items: Sequence[Any]) -> list[Any]:
        """Return the items of the next page that are new."""
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


def _run_id_path(tool: Tool, paging: Paging) -> Path | None:
    """Return the path from an item to the id of its run, if the list is one of runs."""
    place = tool.runs.runs_in.get(tool.operation.name, ()) if tool.runs else ()
    to_item = (*paging.items, EACH)
    if tool.runs is None or place[: len(to_item)] != to_item:
        return None
    return (*place[len(to_item) :], *tool.runs.fields.id)


async def _report(pages: list[Page], reporter: ProgressReporter) -> None:
    count = _count(pages)
    total = pages[-1].total
    of_total = "" if total is None else f" of {total:,}"
    await reporter.report(f"page {len(pages)}, items so far: {count:,}{of_total}", len(pages))


def _count(pages: Sequence[Page]) -> int:
    return sum(len(page.items) for page in pages)
