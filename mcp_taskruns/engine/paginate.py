"""Reading a list page by page, up to as many items as fit into a result."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import anyio

from mcp_taskruns.core.calls.pages import Page, join_pages, read_page
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.model.operation import Operation, Paging
from mcp_taskruns.engine.client import Exchange
from mcp_taskruns.engine.progress import Reporter
from mcp_taskruns.errors import CallError

MAX_PAGES = 50


async def read_pages(
    exchange: Exchange,
    operation: Operation,
    paging: Paging,
    arguments: Mapping[str, Any],
    reporter: Reporter,
    *,
    seconds: float,
) -> tuple[CallResult, Page | None]:
    """All pages of a list from the one on that the arguments ask for, as one.

    No further page is read after `seconds`, after 50 pages, and when there is more than a result can hold. A page that
    fails ends the list. Raises CallError when the first one does.
    """
    if arguments.get(paging.page_size_argument) is None:
        arguments = {**arguments, paging.page_size_argument: paging.max_page_size}
    end = anyio.current_time() + seconds
    room = exchange.settings.max_result_chars
    pages: list[Page] = []
    first = last = await exchange.fetch(operation, arguments, tell=reporter.note)
    notes = dict.fromkeys(first.notes)
    problem = ""
    while (page := read_page(paging, arguments, last)) is not None:
        if pages and page.items == pages[-1].items:
            break  # the same page again: the provider does not look at what it was asked
        pages.append(page)
        room -= len(last.text)
        read = sum(len(one.items) for one in pages)
        of_all = "" if page.total is None else f" of {page.total:,}"
        await reporter.tell(f"page {len(pages)}, items so far: {read:,}{of_all}", len(pages))
        following = page.next_arguments(len(page.items))
        goes_on = any(arguments.get(name) != value for name, value in following.items())
        if (
            not (page.items and page.has_more and goes_on)
            or len(pages) == MAX_PAGES
            or room < 0
            or anyio.current_time() >= end
        ):
            break
        arguments = {**arguments, **following}
        try:
            last = await exchange.fetch(operation, arguments, tell=reporter.note)
            notes |= dict.fromkeys(last.notes)
        except CallError as exc:
            problem = f"The next page could not be read: {exc.message.removesuffix('.')}."
            break
    if not pages:
        return first, None
    whole, page = join_pages(first, pages, last)
    return replace(whole, notes=tuple(filter(None, (problem, *notes)))), page
