"""JSON and lines of text."""

import json
import re
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json, to_json

MAX_LINE = 180
"""Hosts show about 200 characters of a progress message."""

_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")  # control characters would reach a terminal


def dump(value: Any) -> str:
    """Compact JSON."""
    return to_json(value, inf_nan_mode="null").decode()


def parse(text: str | bytes) -> Any:
    """The value of JSON text; raises ValueError for other text. Half a surrogate pair becomes a question mark."""
    try:
        return from_json(text, cache_strings="keys")
    except ValueError:
        if (b"\\ud" if isinstance(text, bytes) else "\\ud") not in text.lower():  # type: ignore[operator]  # alike
            raise
    try:
        written = json.dumps(json.loads(text), ensure_ascii=False)
    except RecursionError as exc:
        raise ValueError("too deep") from exc
    return from_json(written.encode("utf-8", "replace"), cache_strings="keys")


def parse_or_text(text: str) -> Any:
    """JSON where it is JSON, else the text."""
    try:
        return parse(text)
    except ValueError:
        return text


def one_line(text: str, limit: int = MAX_LINE) -> str:
    """Text as one line of at most so many characters."""
    line = _BLANK.sub(" ", text).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def read_moment(text: Any) -> datetime | None:
    """The moment that a text of ISO 8601 names, in UTC where it names no zone; None for anything else."""
    try:
        moment = datetime.fromisoformat(text.upper())
    except (AttributeError, TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
