"""Truncation of long JSON values and texts.

JSON is truncated by whole items and members, so that the result is still valid JSON.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import Path

MAX_LINE = 180
"""Characters of a line for people. Hosts show about 200 characters of a progress message."""

MAX_BLANK = 1_000
"""White space in a text beyond which the text of a line may end earlier: the rest of a long text is not read."""

MAX_GAPS = 10
"""Truncated places that are listed one by one."""

MAX_PLACE = 120
"""Characters of a truncated place in a list of them."""

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
    line = _BLANK.sub(" ", text[: MAX_BLANK + 2 * limit]).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def quote(text: str, limit: int = MAX_LINE) -> str:
    """Return a provider's text for a sentence of ours: one line of at most `limit` characters, in double quotes.

    The text cannot end the quotation: its double quotes become single ones.
    """
    return '"' + one_line(text.replace('"', "'"), limit) + '"'


def quote_name(name: str) -> str:
    """Return an id, a status or another name for a sentence: as it is, or quoted if it could be read as a sentence."""
    return name if not name or _PLAIN_NAME.fullmatch(name) else quote(name, MAX_NAME)


@dataclass(frozen=True)
class Gap:
    """A place in a JSON value, or a text, of which only the first part was kept.

    Attributes:
        path: the place, as names and indexes; empty for the whole value.
        kept: how many of the parts were kept.
        total: how many parts the place has.
        unit: what the parts are: characters, items, members, or the digits of a number.
        first: the index of the first kept part.
        end: the index after the last part that was asked for; None for all.
    """

    path: Path
    kept: int
    total: int
    unit: str
    first: int = 0
    end: int | None = None

    def __str__(self) -> str:
        place = one_line(format_steps(self.path), MAX_PLACE) or _WHOLE[self.unit]
        if self.unit == "digits":
            return f"{place}: a number of {self.total:,} digits is left out"
        if self.first or self.end is not None:
            return f"{place}: {self.unit} {self.first:,} to {self.first + self.kept:,} of {self.total:,}"
        return f"{place}: {self.kept:,} of {self.total:,} {self.unit}"

    @property
    def rest(self) -> str:
        """The path of what was left out, as the argument `result_path` takes it."""
        place = format_steps(self.path)
        end = "" if self.end is None else self.end
        return place if self.unit == "digits" else f"{place}[{self.first + self.kept}:{end}]"


_WHOLE = {"characters": "the text", "items": "the list", "members": "the object", "digits": "the value"}

_PLAIN_STEP = re.compile(r"[\w-]+")


def format_steps(path: Path) -> str:
    """Return a path as text, with quotes around names that need them: `data.items[0]["a b"]`."""
    steps = (_format_step(step) for step in path)
    return "".join(steps).removeprefix(".")


def _format_step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if _PLAIN_STEP.fullmatch(step) else f"[{dump(step)}]"


def describe_gaps(gaps: Sequence[Gap]) -> str:
    """Return what was kept at each place."""
    listed = [str(gap) for gap in gaps[:MAX_GAPS]]
    return "; ".join([*listed, f"and {len(gaps) - MAX_GAPS:,} more"] if len(gaps) > MAX_GAPS else listed)


def truncate(value: Any, limit: int, size: int | None = None) -> tuple[Any, list[Gap]]:
    """Leave out items and members of `value` until its JSON has at most `limit` characters.

    Return the value and the truncated places. `size` is the number of characters of the whole JSON, if the caller knows
    it. Below about 100 characters the limit may be exceeded by a value that cannot be smaller.
    """
    gaps: list[Gap] = []
    return _truncate(value, limit, (), gaps, len(dump(value)) if size is None else size), gaps


def _truncate(value: Any, budget: int, path: Path, gaps: list[Gap], size: int) -> Any:
    if size <= budget:
        return value
    if isinstance(value, str):
        return _truncate_text(value, budget, path, gaps)
    if isinstance(value, list):
        return _truncate_list(value, budget, path, gaps)
    if isinstance(value, dict):
        return _truncate_object(value, budget, path, gaps)
    gaps.append(Gap(path, 0, size, "digits"))
    return None


def _truncate_text(text: str, budget: int, path: Path, gaps: list[Gap]) -> str:
    kept = max(budget - MARK, 0)
    while kept and len(dump(text[:kept])) > budget - MARK + 2:  # an escaped character takes up to six characters
        kept = kept * 3 // 4
    gaps.append(Gap(path, kept, len(text), "characters"))
    return f"{text[:kept]}… ({len(text) - kept:,} more)"


def _truncate_list(items: list[Any], budget: int, path: Path, gaps: list[Gap]) -> list[Any]:
    kept: list[Any] = []
    left = budget - 2
    for index, item in enumerate(items):
        size = len(dump(item)) + 1
        if size > left:
            if not kept and left >= MIN_SHARE:
                kept.append(_truncate(item, left, (*path, index), gaps, size - 1))
            break
        kept.append(item)
        left -= size
    if len(kept) < len(items):
        gaps.append(Gap(path, len(kept), len(items), "items"))
    return kept


def _truncate_object(members: dict[str, Any], budget: int, path: Path, gaps: list[Gap]) -> dict[str, Any]:
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
        kept[name] = _truncate(item, size - name_size - 2, (*path, name), gaps, sizes[name] - name_size - 2)
    if len(kept) < len(members):
        gaps.append(Gap(path, len(kept), len(members), "members"))
    return kept


def _member_limit(sizes: list[int], budget: int) -> int:
    """Return the size above which members are truncated. `sizes` are sorted, and their sum exceeds the budget."""
    for place, size in enumerate(sizes):
        fair = budget // (len(sizes) - place)
        if size > fair:
            return fair
        budget -= size
    return budget
