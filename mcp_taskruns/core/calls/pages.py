"""A page of a list: what it holds, and how the list goes on after it."""

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
    """One page, or several that follow each other.

    `start` is how many items stand before it, where pages are asked for so. `is_known`: the provider says whether there
    are more, so that `has_more` is no guess.
    """

    paging: Paging
    items: Sequence[Any]
    start: int
    has_more: bool
    is_known: bool
    total: int | None = None
    unfiltered: int | None = None

    def next_arguments(self, kept: int) -> dict[str, Any]:
        """The arguments that ask for what follows the first `kept` items; none when that cannot be told."""
        if self.paging.offset_argument:
            return {self.paging.offset_argument: self.start + kept}
        cursor = value_at(self.items[kept - 1], self.paging.next_cursor) if kept else None
        return {self.paging.cursor_argument: cursor} if cursor else {}


def read_page(paging: Paging, arguments: Mapping[str, Any], outcome: CallResult) -> Page | None:
    """The page that an answer is, None for an answer without a list; `arguments` are those of its call."""
    items = value_at(outcome.value, paging.items)
    if not isinstance(items, list):
        return None
    more = _told(paging.has_more, outcome)
    is_known = paging.has_more is not None and not (isinstance(paging.has_more, str) and more is None)
    is_full = len(items) >= (arguments.get(paging.page_size_argument) or paging.default_page_size)
    return Page(
        paging=paging,
        items=items,
        start=int(arguments.get(paging.offset_argument) or 0),
        has_more=more not in (None, False, "", "false") if is_known else is_full,
        is_known=is_known,
        total=_number(_told(paging.total, outcome)),
        unfiltered=_number(_told(paging.unfiltered_total, outcome)),
    )


def _number(told: Any) -> int | None:
    return int(told) if isinstance(told, int) or str(told).isdecimal() else None


def _told(place: Path | str | None, outcome: CallResult) -> Any:
    if isinstance(place, str):
        return outcome.headers[place].lower() if place in outcome.headers else None
    return value_at(outcome.value, place)


def join_pages(first: CallResult, pages: Sequence[Page], last: CallResult) -> tuple[CallResult, Page]:
    """The pages as one: as if the first had been longer."""
    items = [item for page in pages for item in page.items]
    paging = pages[0].paging
    value = replace_at(first.value, paging.items, lambda _: items)
    if isinstance(paging.has_more, tuple):
        value = replace_at(value, paging.has_more, lambda _: _told(paging.has_more, last))
    end = pages[-1]
    whole = replace(pages[0], items=items, has_more=end.has_more, total=end.total)
    return replace(first, text=dump(value), value=value), whole


def render_page(outcome: CallResult, page: Page | None, limit: int) -> CallResult:
    """The page within `limit` characters, with a note of how the list goes on after what is shown."""
    if page is None:
        return outcome
    fitted = truncate_result(outcome, limit)
    shown = value_at(fitted.value, page.paging.items)
    kept = len(shown) if isinstance(shown, list) else 0
    return replace(fitted, notes=(describe_page(page, kept), *fitted.notes))


def describe_page(page: Page, kept: int) -> str:
    """How the list goes on after the first `kept` items of a page, in a sentence."""
    if not page.items:
        return (
            f"There are no items from {page.paging.offset_argument} {page.start:,} on."
            if page.start
            else "There are no items."
        )
    if page.paging.offset_argument:
        first, last = page.start + 1, page.start + kept
        told = f"Item {first:,}" if kept == 1 else f"Items {first:,} to {last:,}"
        told += f" of {page.total:,}" if page.total is not None else ""
        if page.unfiltered is not None and page.unfiltered != page.total:
            told += f" (without filters {page.unfiltered:,})"
    else:
        told = "1 item" if kept == 1 else f"{kept:,} items"
    is_cut = kept < len(page.items)
    if not (is_cut or page.has_more):
        return f"{told}: this is the end of the list."
    following = page.next_arguments(kept)
    if not following:
        return f"{told}; there may be more, but the answer does not say how to get them."
    goes_on = "there are more" if is_cut or page.is_known else "the page is full, so there may be more"
    ((name, value),) = following.items()
    return f"{told}; {goes_on}: for the next page pass {name} {dump(value)}, or {ALL_PAGES} true for as many as fit."
