"""Read a list page by page, up to as many items as fit into a result."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import anyio

from mcp_taskruns.core.calls.pages import Page, join_pages, read_page
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.model.operation import Operation, Paging
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.progress import ProgressReporter
from mcp_taskruns.errors import CallError

MAX_PAGES = 50


async def read_pages(
    client: Client,
    operation: Operation,
    paging: Paging,
    arguments: Mapping[str, Any],
    reporter: ProgressReporter,
    *,
    seconds: float,
) -> tuple[CallResult, Page | None]:
    """Return the pages of a list, from the one that the arguments ask for, as one page.

    Reading stops after `seconds`, after MAX_PAGES, when the result is full, and at a page that fails. Raises CallError
    when the first page fails.
    """
    if arguments.get(paging.page_size_argument) is None:
        arguments = {**arguments, paging.page_size_argument: paging.max_page_size}
    end = anyio.current_time() + seconds
    room = client.settings.max_result_chars
    pages: list[Page] = []
    first = last = await client.fetch(operation, arguments, notify=reporter.note)
    notes = dict.fromkeys(first.notes)
    problem = ""
    while (page := read_page(paging, arguments, last)) is not None:
        if pages and page.items == pages[-1].items:
            break  # the same page again: the provider ignores the argument
        pages.append(page)
        room -= len(last.text)
        await _report(pages, reporter)
        changes = _next_arguments(page, arguments)
        if not changes or len(pages) == MAX_PAGES or room < 0 or anyio.current_time() >= end:
            break
        arguments = {**arguments, **changes}
        try:
            last = await client.fetch(operation, arguments, notify=reporter.note)
            notes |= dict.fromkeys(last.notes)
        except CallError as exc:
            problem = f"The next page could not be read: {exc.message.removesuffix('.')}."
            break
    if not pages:
        return first, None
    whole, page = join_pages(first, pages, last)
    return replace(whole, notes=tuple(filter(None, (problem, *notes)))), page


async def _report(pages: list[Page], reporter: ProgressReporter) -> None:
    count = sum(len(page.items) for page in pages)
    total = pages[-1].total
    of_total = "" if total is None else f" of {total:,}"
    await reporter.report(f"page {len(pages)}, items so far: {count:,}{of_total}", len(pages))


def _next_arguments(page: Page, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the next page that differ from the present ones; none at the end of the list."""
    if not (page.items and page.has_more):
        return {}
    following = page.next_arguments(len(page.items))
    return following if any(arguments.get(name) != value for name, value in following.items()) else {}
