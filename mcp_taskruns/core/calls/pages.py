"""Pages of a list: the items of a page and how to get the next one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mcp_taskruns.core.calls.response import CallResult, truncate_result
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import Path, replace_at, value_at
from mcp_taskruns.core.model.operation import Paging
from mcp_taskruns.core.model.tool import ALL_PAGES


@dataclass(frozen=True)
class Page:
    """One page of a list, or several consecutive pages.

    Attributes:
        paging: how the provider pages the list.
        items: the items of the page.
        start: the number of items before the page, for paging by offset.
        has_more: whether more items follow.
        is_known: whether the provider reports `has_more`; otherwise it is a guess from the size of the page.
        total: the number of items on all pages, if the provider reports it.
        unfiltered: the number of items without filters, if the provider reports it.
    """

    paging: Paging
    items: Sequence[Any]
    start: int
    has_more: bool
    is_known: bool
    total: int | None = None
    unfiltered: int | None = None

    def next_arguments(self, kept: int) -> dict[str, Any]:
        """Return the arguments that request the items after the first `kept`; empty if these are unknown."""
        if self.paging.offset_argument:
            return {self.paging.offset_argument: self.start + kept}
        cursor = value_at(self.items[kept - 1], self.paging.next_cursor) if kept else None
        return {self.paging.cursor_argument: cursor} if cursor else {}


def read_page(paging: Paging, arguments: Mapping[str, Any], result: CallResult) -> Page | None:
    """Return the page in the result of a call with these arguments, or None if the result has no list."""
    items = value_at(result.value, paging.items)
    if not isinstance(items, list):
        return None
    more = _read_field(paging.has_more, result)
    is_known = paging.has_more is not None and not (isinstance(paging.has_more, str) and more is None)
    is_full = len(items) >= (arguments.get(paging.page_size_argument) or paging.default_page_size)
    return Page(
        paging=paging,
        items=items,
        start=int(arguments.get(paging.offset_argument) or 0),
        has_more=more not in (None, False, "", "false") if is_known else is_full,
        is_known=is_known,
        total=_to_number(_read_field(paging.total, result)),
        unfiltered=_to_number(_read_field(paging.unfiltered_total, result)),
    )


def _to_number(value: Any) -> int | None:
    return int(value) if isinstance(value, int) or str(value).isdecimal() else None


def _read_field(place: Path | str | None, result: CallResult) -> Any:
    """Return the value at a path of the result, or of the header with this name."""
    if isinstance(place, str):
        return result.headers[place].lower() if place in result.headers else None
    return value_at(result.value, place)


def join_pages(first: CallResult, pages: Sequence[Page], last: CallResult) -> tuple[CallResult, Page]:
    """Join consecutive pages into one. `first` and `last` are the results of the first and the last call."""
    items = [item for page in pages for item in page.items]
    paging = pages[0].paging
    value = replace_at(first.value, paging.items, lambda _: items)
    if isinstance(paging.has_more, tuple):
        value = replace_at(value, paging.has_more, lambda _: _read_field(paging.has_more, last))
    joined = replace(pages[0], items=items, has_more=pages[-1].has_more, total=pages[-1].total)
    return replace(first, text=dump(value), value=value), joined


def format_page(result: CallResult, page: Page | None, limit: int) -> CallResult:
    """Truncate the page to `limit` characters and add a note about how to get the items that follow."""
    if page is None:
        return result
    truncated = truncate_result(result, limit)
    shown = value_at(truncated.value, page.paging.items)
    kept = len(shown) if isinstance(shown, list) else 0
    return replace(truncated, notes=(describe_page(page, kept), *truncated.notes))


def describe_page(page: Page, kept: int) -> str:
    """Return a sentence about the first `kept` items of the page and about how to get the items that follow."""
    if not page.items:
        at = f" at {page.paging.offset_argument} {page.start:,}" if page.start else ""
        return f"There are no items{at}."
    if not kept:
        return f"None of the {len(page.items):,} items of this page fits into the result."
    shown = _describe_range(page, kept)
    is_truncated = kept < len(page.items)
    if not (is_truncated or page.has_more):
        return f"{shown}: this is the end of the list."
    arguments = page.next_arguments(kept)
    if not arguments:
        return f"{shown}; there may be more, but the response has no cursor for the next page."
    more = "there are more" if is_truncated or page.is_known else "the page is full, so there may be more"
    ((name, value),) = arguments.items()
    return f"{shown}; {more}: for the next page pass {name} {dump(value)}, or {ALL_PAGES} true for as many as fit."


def _describe_range(page: Page, kept: int) -> str:
    if not page.paging.offset_argument:
        return "1 item" if kept == 1 else f"{kept:,} items"
    first, last = page.start + 1, page.start + kept
    text = f"Item {first:,}" if kept == 1 else f"Items {first:,} to {last:,}"
    text += f" of {page.total:,}" if page.total is not None else ""
    if page.unfiltered is not None and page.unfiltered != page.total:
        text += f" (without filters {page.unfiltered:,})"
    return text
