"""JSON serialization and parsing."""

import json
import sys
from typing import Any

from pydantic_core import from_json, to_json

_HUGE_DIGITS = sys.float_info.max_10_exp + 1
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"0" * 9)


def dump(value: Any) -> str:
    """Return a value as compact JSON."""
    return to_json(value, inf_nan_mode="null").decode()


def dump_finite(value: Any) -> tuple[str, bool]:
    """Return a value as compact JSON, and whether all numbers are finite: NaN and infinity become null."""
    text = to_json(value, inf_nan_mode="constants").decode()
    if "NaN" not in text and "Infinity" not in text:
        return text, True
    written = dump(value)
    return written, written == text


def has_huge_integer(value: Any, text: str) -> bool:
    """Whether a value, which is this JSON text, has an integer beyond the range of a double."""
    return b"0" * _HUGE_DIGITS in text.encode().translate(_DIGITS_TO_ZERO) and _is_or_has_huge_integer(value)


def _is_or_has_huge_integer(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_is_or_has_huge_integer, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and abs(value) > sys.float_info.max


def parse(text: str | bytes) -> Any:
    """Parse JSON text. Raises ValueError for invalid JSON.

    A lone surrogate becomes a question mark.
    """
    try:
        return from_json(text, cache_strings="keys")
    except ValueError:
        if (b"\\ud" if isinstance(text, bytes) else "\\ud") not in text.lower():  # type: ignore[operator]  # same type
            raise
    try:
        written = json.dumps(json.loads(text), ensure_ascii=False)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    return from_json(written.encode("utf-8", "replace"), cache_strings="keys")


def parse_or_text(text: str) -> Any:
    """Return the parsed value of JSON text, or the text itself if it is not valid JSON."""
    try:
        return parse(text)
    except ValueError:
        return text
