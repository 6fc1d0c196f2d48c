"""Pages of a list: the items of a page and how to get the next one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mcp_taskruns.core.calls.links import find_next_link, parse_query, query_arguments, to_type
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
        start: the number of items before the page, for paging by offset or page number.
        has_more: whether more items follow.
        is_known: whether the provider reports `has_more`; otherwise it is a guess from the size of the page.
        following: the arguments of the next page, if they follow from the page as a whole; empty for paging by offset
            and by cursors of items, and after the last page.
        total: the number of items on all pages, if the provider reports it.
        unfiltered: the number of items without filters, if the provider reports it.
        fault: what the provider does wrong, so that no next page can be read; empty if it does nothing wrong.
    """

    paging: Paging
    items: Sequence[Any]
    start: int
    has_more: bool
    is_known: bool
    following: Mapping[str, Any] = field(default_factory=dict)
    total: int | None = None
    unfiltered: int | None = None
    fault: str = ""

    def next_arguments(self, kept: int) -> dict[str, Any]:
        """Return the arguments that request the items after the first `kept`; empty if these are unknown."""
        if self.fault:
            return {}
        if self.following and kept == len(self.items):
            return dict(self.following)
        if self.paging.offset_argument:
            return {self.paging.offset_argument: self.start + kept}
        cursor = _cursor_of(self.items[kept - 1], self.paging) if kept else None
        return {self.paging.cursor_argument: cursor} if cursor else {}

    def end(self, fault: str) -> "Page":
        """Return the page as the last one that can be read, because of what the provider does wrong."""
        return replace(self, has_more=False, following={}, fault=fault)


def _cursor_of(item: Any, paging: Paging) -> str | int | None:
    return _usable_cursor(value_at(item, paging.next_cursor)) if paging.next_cursor else None


def _usable_cursor(cursor: Any) -> str | int | None:
    """Return a cursor that can be passed on, or None."""
    is_usable = isinstance(cursor, str | int) and not isinstance(cursor, bool) and len(str(cursor)) <= MAX_CURSOR
    return (cursor or None) if is_usable else None


def read_page(
    paging: Paging, arguments: Mapping[str, Any], result: CallResult, before: int | None = None
) -> Page | None:
    """Return the page in the result of a call with these arguments, or None if the result has no list.

    `before` is the number of items before the page, for paging by cursor or page number; None if it is unknown.
    """
    items = value_at(result.value, paging.items)
    if not isinstance(items, list):
        return None
    page = Page(
        paging=paging,
        items=items,
        start=_find_start(paging, arguments, before),
        has_more=False,
        is_known=True,
        total=_to_number(_read_field(paging.total, result)),
        unfiltered=_to_number(_read_field(paging.unfiltered_total, result)),
    )
    has_known_start = before is not None or not arguments.get(paging.cursor_argument)
    page = _with_reported_end(page, result, has_known_start=has_known_start) or _with_guessed_end(page, arguments)
    if page.has_more:
        page = replace(page, following=_find_following(page, arguments, result))
    fault = _find_fault(page, arguments, result)
    return page.end(fault) if fault else page


def _find_start(paging: Paging, arguments: Mapping[str, Any], before: int | None) -> int:
    """Return the number of items before the page."""
    if paging.offset_argument:
        return int(arguments.get(paging.offset_argument) or before or 0)
    if before is not None or not paging.page_argument:
        return before or 0
    size = min(_page_size(paging, arguments), paging.max_page_size)
    return (page_number(paging, arguments) - paging.first_page) * size


def page_number(paging: Paging, arguments: Mapping[str, Any]) -> int:
    """Return the number of the page that the arguments request."""
    number = arguments.get(paging.page_argument)
    return paging.first_page if number is None else int(number)


def _page_size(paging: Paging, arguments: Mapping[str, Any]) -> int:
    return int(arguments.get(paging.page_size_argument) or paging.default_page_size)


def _with_reported_end(page: Page, result: CallResult, *, has_known_start: bool) -> Page | None:
    """Return the page with what the provider reports about a next one, or None if it reports nothing."""
    paging = page.paging
    more = _read_field(paging.has_more, result)
    if paging.has_more is not None and not (isinstance(paging.has_more, str) and more is None):
        return replace(page, has_more=more not in (None, False, "", "false"))
    if paging.next_url is not None:
        return replace(page, has_more=bool(_read_url(paging, result)))
    if paging.response_cursor is not None:
        return replace(page, has_more=bool(_read_value(paging.response_cursor, result)))
    if page.total is not None and has_known_start:
        return replace(page, has_more=bool(page.items) and page.start + len(page.items) < page.total)
    return None


def _with_guessed_end(page: Page, arguments: Mapping[str, Any]) -> Page:
    """Return the page with a guess: a full page may have a next one, and a page above its limit is the whole list."""
    name, size = page.paging.page_size_argument, _page_size(page.paging, arguments)
    if name and len(page.items) > size:
        return page.end(f"the provider ignores {name}")
    return replace(page, has_more=len(page.items) >= size, is_known=False)


def _find_following(page: Page, arguments: Mapping[str, Any], result: CallResult) -> dict[str, Any]:
    """Return the arguments of the next page that follow from the whole page, other than those of this page.

    A page size that was passed is repeated, because the number of a page counts pages of one size.
    """
    paging = page.paging
    size = {name: arguments[name] for name in [paging.page_size_argument] if arguments.get(name) is not None}
    if paging.next_url is not None:
        found = query_arguments(_read_url(paging, result), paging.query)
        following = {name: value for name, value in found.items() if arguments.get(name) != value}
        return following | size if size.keys() & found.keys() and following else following
    if paging.response_cursor is not None:
        cursor = _usable_cursor(_read_value(paging.response_cursor, result))
        types = {one.name: one.type for one in paging.query.values()}
        return {paging.cursor_argument: to_type(cursor, types.get(paging.cursor_argument, ""))} if cursor else {}
    if paging.page_argument and page.items:
        return {paging.page_argument: page_number(paging, arguments) + 1} | size
    return {}


def _find_fault(page: Page, arguments: Mapping[str, Any], result: CallResult) -> str:
    """Return what shows that the page is not the one that was asked for, or that the next one would not be."""
    paging = page.paging
    counted = paging.offset_argument or paging.page_argument
    if counted and page.items and page.total is not None and 0 < page.total <= page.start:
        return f"the provider ignores {counted}"
    if not (page.has_more and (page.items or page.following)):
        return page.fault
    passed = arguments.get(paging.cursor_argument)
    if passed and page.items and _cursor_of(page.items[-1], paging) == passed:
        return f"the {paging.cursor_argument} of the last item is the one that was passed"
    if passed and page.following.get(paging.cursor_argument) == passed:
        return f"the {paging.cursor_argument} of the next page is the one that was passed"
    return "the link to the next page leads back" if _leads_back(page, arguments, result) else ""


def _leads_back(page: Page, arguments: Mapping[str, Any], result: CallResult) -> bool:
    """Whether the URL of the next page is that of this page or of an earlier one."""
    paging = page.paging
    query = parse_query(_read_url(paging, result))
    linked = next(iter(query.get(_parameter_of(paging), ())), "")
    if paging.offset_argument or paging.page_argument:
        current = page.start if paging.offset_argument else page_number(paging, arguments)
        return len(linked) <= MAX_DIGITS and linked.isdecimal() and int(linked) <= current
    if paging.cursor_argument:
        return bool(linked) and linked == str(arguments.get(paging.cursor_argument))
    return bool(query.keys() & paging.query.keys()) and not page.following


def _parameter_of(paging: Paging) -> str:
    """Return the query parameter of the argument that takes the place of a page in the list."""
    name = paging.position_argument
    return next((parameter for parameter, one in paging.query.items() if one.name == name), name)


def _read_url(paging: Paging, result: CallResult) -> str:
    """Return the URL of the next page, which may be what reports that there is one; empty if there is none."""
    if isinstance(paging.next_url, str):
        header = result.headers.get(paging.next_url, "")
        return find_next_link(header) if paging.next_url == "link" else header.strip()
    path = paging.next_url if isinstance(paging.has_more, str) or paging.next_url else paging.has_more
    url = value_at(result.value, path)
    return url if isinstance(url, str) else ""


def _read_value(place: Path | str, result: CallResult) -> Any:
    """Return the value at a path of the result, or of the header with this name."""
    return result.headers.get(place) if isinstance(place, str) else value_at(result.value, place)


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
    for place in (paging.has_more, paging.next_url, paging.response_cursor):
        if isinstance(place, tuple):
            value = replace_at(value, place, partial(_keep, value_at(last.value, place)))
    joined = replace(pages[-1], items=items, start=pages[0].start, unfiltered=pages[0].unfiltered)
    return replace(first, text=dump(value), value=value), joined


def _keep(latest: Any, _: Any) -> Any:
    return latest


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
    arguments = page.next_arguments(kept)
    if not page.items:
        return _describe_empty(page, arguments)
    if not kept:
        return f"None of the {len(page.items):,} items of this page fits into the result."
    shown = _describe_range(page, kept)
    if page.fault:
        return f"{shown}: {_describe_fault(page, kept)}."
    if kept < len(page.items) and not arguments:
        return f"{shown}; {_describe_rest(page, kept)}."
    if kept == len(page.items) and not page.has_more:
        return f"{shown}: this is the end of the list."
    if not arguments:
        lack = "has no cursor for" if page.paging.cursor_argument else "does not show how to get"
        return f"{shown}; there may be more, but the response {lack} the next page."
    more = "there are more" if kept < len(page.items) or page.is_known else "the page is full, so there may be more"
    return f"{shown}; {more}: for the next page pass {_format(arguments)}, or {ALL_PAGES} true for as many as fit."


def _format(arguments: Mapping[str, Any]) -> str:
    return " and ".join(f"{name} {dump(value)}" for name, value in arguments.items())


def _describe_empty(page: Page, following: Mapping[str, Any]) -> str:
    if following and page.has_more:
        return f"This page has no items; there may be more: for the next page pass {_format(following)}."
    at = f" at {page.paging.offset_argument} {page.start:,}" if page.start and page.paging.offset_argument else ""
    return f"There are no items{at}."


def _describe_rest(page: Page, kept: int) -> str:
    """Return the end of a sentence about items of the page that did not fit, and that no other page has."""
    rest = f"{len(page.items) - kept:,} more of this page did not fit"
    following = page.next_arguments(len(page.items)) if page.has_more else {}
    return f"{rest}; for the page after it pass {_format(following)}" if following else rest


def _describe_fault(page: Page, kept: int) -> str:
    if kept < len(page.items):
        return f"{page.fault}, and the other {len(page.items) - kept:,} items did not fit"
    if page.total is not None and page.start + kept < page.total:
        return f"{page.fault}, so the other items cannot be read"
    return f"{page.fault}, so this is the end of the list"


def _describe_range(page: Page, kept: int) -> str:
    if not (page.paging.offset_argument or page.paging.page_argument):
        return "1 item" if kept == 1 else f"{kept:,} items"
    first, last = page.start + 1, page.start + kept
    text = f"Item {first:,}" if kept == 1 else f"Items {first:,} to {last:,}"
    claims_more = page.has_more and page.start + len(page.items) == page.total
    text += f" of {page.total:,}" if page.total is not None and last <= page.total and not claims_more else ""
    if page.unfiltered is not None and page.unfiltered != page.total:
        text += f" (without filters {page.unfiltered:,})"
    return text
