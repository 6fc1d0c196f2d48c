"""A JSON value that is too long for its reader: cut by whole items, never in the middle of a value."""

import re
from typing import Any

from mcp_taskruns.core.model.json import dump

MAX_LINE = 180
"""Hosts show about 200 characters of a progress message."""

_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")  # control characters would reach a terminal


def one_line(text: str, limit: int = MAX_LINE) -> str:
    """Text as one line of at most so many characters."""
    line = _BLANK.sub(" ", text).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


MAX_NOTES = 10
"""How many cuts are told one by one."""

MIN_SHARE = 60
"""A member of fewer characters than these is not worth cutting: it is kept or left out."""

MARK = 30
"""What `… (1,234 more)` and the quotes take."""


def truncate(value: Any, limit: int, size: int | None = None) -> tuple[Any, list[str]]:
    """`value` with whole items left out until its JSON has at most `limit` characters, and what was kept of what.

    `size` is how many it has, where that is known. A limit of fewer than about a hundred characters may be exceeded by
    what cannot be smaller.
    """
    notes: list[str] = []
    kept = _cut(value, limit, "", notes, len(dump(value)) if size is None else size)
    if len(notes) > MAX_NOTES:
        notes[MAX_NOTES:] = [f"and {len(notes) - MAX_NOTES:,} more"]
    return kept, notes


def _cut(value: Any, budget: int, place: str, notes: list[str], size: int) -> Any:
    if size <= budget:
        return value
    if isinstance(value, str):
        return _cut_text(value, budget, place, notes)
    if isinstance(value, list):
        return _cut_list(value, budget, place, notes)
    if isinstance(value, dict):
        return _cut_members(value, budget, place, notes)
    notes.append(f"{place or 'the value'}: a number of {size:,} digits is left out")
    return None


def _cut_text(text: str, budget: int, place: str, notes: list[str]) -> str:
    kept = max(budget - MARK, 0)
    while kept and len(dump(text[:kept])) > budget - MARK + 2:  # what is escaped takes up to six characters
        kept = kept * 3 // 4
    notes.append(f"{place or 'the text'}: {kept:,} of {len(text):,} characters")
    return f"{text[:kept]}… ({len(text) - kept:,} more)"


def _cut_list(items: list[Any], budget: int, place: str, notes: list[str]) -> list[Any]:
    kept: list[Any] = []
    left = budget - 2
    for index, item in enumerate(items):
        size = len(dump(item)) + 1
        if size > left:
            if not kept and left >= MIN_SHARE:
                kept.append(_cut(item, left, f"{place}[{index}]", notes, size - 1))
            break
        kept.append(item)
        left -= size
    if len(kept) < len(items):
        notes.append(f"{place or 'the list'}: {len(kept):,} of {len(items):,} items")
    return kept


def _cut_members(members: dict[str, Any], budget: int, place: str, notes: list[str]) -> dict[str, Any]:
    """Small members stay whole and the large share what is left; of very many, the first that fit are kept."""
    sizes = {name: len(dump({name: item})) - 1 for name, item in members.items()}
    share = _share(sorted(sizes.values()), budget - 2)
    kept: dict[str, Any] = {}
    left = budget - 2
    for name, item in members.items():
        least = max(MIN_SHARE, len(dump(name)) + MARK)  # a name is never cut
        size = min(sizes[name], max(share, least))
        if size > left:
            break
        left -= size
        named = len(dump(name)) + 2
        inner = f"{place}.{name[:MIN_SHARE]}".lstrip(".")
        kept[name] = _cut(item, size - named, inner, notes, sizes[name] - named)
    if len(kept) < len(members):
        notes.append(f"{place or 'the object'}: {len(kept):,} of {len(members):,} members")
    return kept


def _share(sizes: list[int], budget: int) -> int:
    """The size over which members are cut; `sizes` are in order, and together larger than the budget."""
    for place, size in enumerate(sizes):
        fair = budget // (len(sizes) - place)
        if size > fair:
            return fair
        budget -= size
    return budget
