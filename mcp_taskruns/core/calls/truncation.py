"""Truncation of long JSON values and texts.

JSON is truncated by whole items and members, so that the result is still valid JSON.
"""

import re
from typing import Any

from mcp_taskruns.core.model.json import dump

MAX_LINE = 180
"""Characters of a line for people. Hosts show about 200 characters of a progress message."""

MAX_NOTES = 10
"""Truncated places that are listed one by one."""

MIN_SHARE = 60
"""Members with fewer characters are not truncated but kept or left out."""

MARK = 30
"""Characters reserved for the mark `… (1,234 more)` and the quotes."""

MAX_NAME = 100
"""Characters of an id, a status or another name in a sentence."""

_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
"""White space, and characters that control a terminal or the direction of the text around them."""

_PLAIN_NAME = re.compile(rf"[\w.:/@+-]{{1,{MAX_NAME}}}")


def one_line(text: str, limit: int = MAX_LINE) -> str:
    """Return the text as one line of at most `limit` characters."""
    line = _BLANK.sub(" ", text).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def quote(text: str, limit: int = MAX_LINE) -> str:
    """Return a provider's text for a sentence of ours: one line of at most `limit` characters, in double quotes.

    The text cannot end the quotation: its double quotes become single ones.
    """
    return '"' + one_line(text.replace('"', "'"), limit) + '"'


def quote_name(name: str) -> str:
    """Return an id, a status or another name for a sentence: as it is, or quoted if it could be read as a sentence."""
    return name if not name or _PLAIN_NAME.fullmatch(name) else quote(name, MAX_NAME)


def truncate(value: Any, limit: int, size: int | None = None) -> tuple[Any, list[str]]:
    """Leave out items and members of `value` until its JSON has at most `limit` characters.

    Return the value and one note for each truncated place. `size` is the number of characters of the whole JSON, if
    the caller knows it. Below about 100 characters the limit may be exceeded by a value that cannot be smaller.
    """
    notes: list[str] = []
    kept = _truncate(value, limit, "", notes, len(dump(value)) if size is None else size)
    if len(notes) > MAX_NOTES:
        notes[MAX_NOTES:] = [f"and {len(notes) - MAX_NOTES:,} more"]
    return kept, notes


def _truncate(value: Any, budget: int, place: str, notes: list[str], size: int) -> Any:
    if size <= budget:
        return value
    if isinstance(value, str):
        return _truncate_text(value, budget, place, notes)
    if isinstance(value, list):
        return _truncate_list(value, budget, place, notes)
    if isinstance(value, dict):
        return _truncate_object(value, budget, place, notes)
    notes.append(f"{place or 'the value'}: a number of {size:,} digits is left out")
    return None


def _truncate_text(text: str, budget: int, place: str, notes: list[str]) -> str:
    kept = max(budget - MARK, 0)
    while kept and len(dump(text[:kept])) > budget - MARK + 2:  # an escaped character takes up to six characters
        kept = kept * 3 // 4
    notes.append(f"{place or 'the text'}: {kept:,} of {len(text):,} characters")
    return f"{text[:kept]}… ({len(text) - kept:,} more)"


def _truncate_list(items: list[Any], budget: int, place: str, notes: list[str]) -> list[Any]:
    kept: list[Any] = []
    left = budget - 2
    for index, item in enumerate(items):
        size = len(dump(item)) + 1
        if size > left:
            if not kept and left >= MIN_SHARE:
                kept.append(_truncate(item, left, f"{place}[{index}]", notes, size - 1))
            break
        kept.append(item)
        left -= size
    if len(kept) < len(items):
        notes.append(f"{place or 'the list'}: {len(kept):,} of {len(items):,} items")
    return kept


def _truncate_object(members: dict[str, Any], budget: int, place: str, notes: list[str]) -> dict[str, Any]:
    """Keep small members whole and share the rest between the large ones.

    If there are too many members, keep the first that fit.
    """
    sizes = {name: len(dump({name: item})) - 1 for name, item in members.items()}
    share = _member_limit(sorted(sizes.values()), budget - 2)
    kept: dict[str, Any] = {}
    left = budget - 2
    for name, item in members.items():
        name_size = len(dump(name))
        size = min(sizes[name], max(share, MIN_SHARE, name_size + MARK))  # names are never truncated
        if size > left:
            break
        left -= size
        shown = quote_name(name[:MIN_SHARE])
        inner = f"{place}.{shown}" if place else shown
        kept[name] = _truncate(item, size - name_size - 2, inner, notes, sizes[name] - name_size - 2)
    if len(kept) < len(members):
        notes.append(f"{place or 'the object'}: {len(kept):,} of {len(members):,} members")
    return kept


def _member_limit(sizes: list[int], budget: int) -> int:
    """Return the size above which members are truncated. `sizes` are sorted, and their sum exceeds the budget."""
    for place, size in enumerate(sizes):
        fair = budget // (len(sizes) - place)
        if size > fair:
            return fair
        budget -= size
    return budget
