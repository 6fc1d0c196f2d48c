"""Pages of a list: the items of a page and how to get the next one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from mcp_taskruns.core.calls.response import Advise, CallResult, no_advice, truncate_result
from mcp_taskruns.core.calls.truncation import Gap
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import Path, replace_at, value_at
from mcp_taskruns.core.model.operation import Paging
from mcp_taskruns.core.model.tool import ALL_PAGES

MAX_CURSOR = 4_000
"""Characters of a cursor that is passed on."""

MAX_DIGITS = 15
"""Digits of a number of items; a longer one is not believed."""


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
        fault: what the provider does wrong, so that no next page can be read; empty if it does nothing wrong.
    """

    paging: Paging
    items: Sequence[Any]
    start: int
    has_more: bool
    is_known: bool
    total: int | None = None
    unfiltered: int | None = None
    fault: str = ""

    def next_arguments(self, kept: int) -> dict[str, Any]:
        """Return the arguments that request the items after the first `kept`; empty if these are unknown."""
        if self.fault:
            return {}
        if self.paging.offset_argument:
            return {self.paging.offset_argument: self.start + kept}
        cursor = _cursor_of(self.items[kept - 1], self.paging) if kept else None
        return {self.paging.cursor_argument: cursor} if cursor else {}

    def end(self, fault: str) -> "Page":
        """Return the page as the last one that can be read, because of what the provider does wrong."""
        return replace(self, has_more=False, fault=fault)


def _cursor_of(item: Any, paging: Paging) -> str | int | None:
    cursor = value_at(item, paging.next_cursor)
    return cursor if isinstance(cursor, str | int) and len(str(cursor)) <= MAX_CURSOR else None


def read_page(
    paging: Paging, arguments: Mapping[str, Any], result: CallResult, before: int | None = None
) -> Page | None:
    """Return the page in the result of a call with these arguments, or None if the result has no list.

    `before` is the number of items before the page, for paging by cursor; None if it is unknown.
    """
    items = value_at(result.value, paging.items)
    if not isinstance(items, list):
        return None
    page = Page(
        paging=paging,
        items=items,
        start=int(arguments.get(paging.offset_argument) or before or 0),
        has_more=False,
        is_known=True,
        total=_to_number(_read_field(paging.total, result)),
        unfiltered=_to_number(_read_field(paging.unfiltered_total, result)),
    )
    has_known_start = before is not None or not arguments.get(paging.cursor_argument)
    page = _with_reported_end(page, result, has_known_start=has_known_start) or _with_guessed_end(page, arguments)
    fault = _find_fault(page, arguments, result)
    return page.end(fault) if fault else page


def _with_reported_end(page: Page, result: CallResult, *, has_known_start: bool) -> Page | None:
    """Return the page with what the provider reports about a next one, or None if it reports nothing."""
    paging = page.paging
    more = _read_field(paging.has_more, result)
    if paging.has_more is not None and not (isinstance(paging.has_more, str) and more is None):
        return replace(page, has_more=more not in (None, False, "", "false"))
    if page.total is not None and has_known_start:
        return replace(page, has_more=bool(page.items) and page.start + len(page.items) < page.total)
    return None


def _with_guessed_end(page: Page, arguments: Mapping[str, Any]) -> Page:
    """Return the page with a guess: a full page may have a next one, and a page above its limit is the whole list."""
    name = page.paging.page_size_argument
    size = arguments.get(name) or page.paging.default_page_size
    if len(page.items) > size:
        return page.end(f"the provider ignores {name}")
    return replace(page, has_more=len(page.items) == size, is_known=False)


def _find_fault(page: Page, arguments: Mapping[str, Any], result: CallResult) -> str:
    """Return what shows that the page is not the one that was asked for, or that the next one would not be."""
    paging = page.paging
    if paging.offset_argument and page.items and page.total is not None and 0 < page.total <= page.start:
        return f"the provider ignores {paging.offset_argument}"
    if not (page.has_more and page.items):
        return page.fault
    passed = arguments.get(paging.cursor_argument)
    if passed and _cursor_of(page.items[-1], paging) == passed:
        return f"the {paging.cursor_argument} of the last item is the one that was passed"
    linked = _read_link(result, paging)
    leads_back = linked == str(passed) if paging.cursor_argument else linked.isdecimal() and int(linked) <= page.start
    return "the link to the next page leads back" if linked and leads_back else ""


def _read_link(result: CallResult, paging: Paging) -> str:
    """Return the offset or the cursor in the URL of the next page; empty if the response has none."""
    link = None if isinstance(paging.has_more, str) else value_at(result.value, paging.has_more)
    if not isinstance(link, str):
        return ""
    parameters = parse_qs(link.partition("?")[2].partition("#")[0])
    found = next(iter(parameters.get(paging.offset_argument or paging.cursor_argument, ())), "")
    return found if len(found) <= MAX_CURSOR else ""


def _to_number(value: Any) -> int | None:
    """Return a number of items as a provider reports it; None for anything else, such as -1."""
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    return int(text) if text.isdecimal() and len(text) <= MAX_DIGITS else None


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
    joined = replace(pages[-1], items=items, start=pages[0].start, unfiltered=pages[0].unfiltered)
    return replace(first, text=dump(value), value=value), joined


def format_page(result: CallResult, page: Page | None, limit: int, advise: Advise = no_advice) -> CallResult:
    """Truncate the page to `limit` characters and add a note about how to get the items that follow.

    `advise` gives the advice about places that no other page has.
    """
    if page is None:
        return result
    truncated = truncate_result(result, limit, partial(_advise_within, page, advise))
    shown = value_at(truncated.value, page.paging.items)
    kept = len(shown) if isinstance(shown, list) else 0
    return replace(truncated, notes=(describe_page(page, kept), *truncated.notes))


def _advise_within(page: Page, advise: Advise, gaps: Sequence[Gap]) -> str:
    """Return advice about the places that are not on the next page."""
    place = page.paging.items
    return advise([gap for gap in gaps if gap.path != place or not (gap.kept and page.next_arguments(gap.kept))])


def describe_page(page: Page, kept: int) -> str:
    """Return a sentence about the first `kept` items of the page and about how to get the items that follow."""
    if not page.items:
        at = f" at {page.paging.offset_argument} {page.start:,}" if page.start else ""
        return f"There are no items{at}."
    if not kept:
        return f"None of the {len(page.items):,} items of this page fits into the result."
    shown = _describe_range(page, kept)
    if page.fault:
        return f"{shown}: {_describe_fault(page, kept)}."
    is_truncated = kept < len(page.items)
    if not (is_truncated or page.has_more):
        return f"{shown}: this is the end of the list."
    arguments = page.next_arguments(kept)
    if not arguments:
        return f"{shown}; there may be more, but the response has no cursor for the next page."
    more = "there are more" if is_truncated or page.is_known else "the page is full, so there may be more"
    ((name, value),) = arguments.items()
    return f"{shown}; {more}: for the next page pass {name} {dump(value)}, or {ALL_PAGES} true for as many as fit."


def _describe_fault(page: Page, kept: int) -> str:
    if kept < len(page.items):
        return f"{page.fault}, and the other {len(page.items) - kept:,} items did not fit"
    if page.total is not None and page.start + kept < page.total:
        return f"{page.fault}, so the other items cannot be read"
    return f"{page.fault}, so this is the end of the list"


def _describe_range(page: Page, kept: int) -> str:
    if not page.paging.offset_argument:
        return "1 item" if kept == 1 else f"{kept:,} items"
    first, last = page.start + 1, page.start + kept
    text = f"Item {first:,}" if kept == 1 else f"Items {first:,} to {last:,}"
    claims_more = page.has_more and page.start + len(page.items) == page.total
    text += f" of {page.total:,}" if page.total is not None and last <= page.total and not claims_more else ""
    if page.unfiltered is not None and page.unfiltered != page.total:
        text += f" (without filters {page.unfiltered:,})"
    return text
