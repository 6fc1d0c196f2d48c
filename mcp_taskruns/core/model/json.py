"""JSON serialization and bounded parsing.

The parser and the serializer are in C and do not let other threads run, so the number of values bounds how long one
call of them takes: below 0.1 s for the limits here.
"""

import re
import sys
from math import isfinite
from typing import Any

from pydantic_core import from_json, to_json

_HUGE_DIGITS = sys.float_info.max_10_exp + 1

_SAMPLED = 30
"""One of so many bytes is looked at first to find a huge integer."""

MAX_VALUES = 600_000
"""Values and member names in one JSON text. 8 MB of ordinary JSON have half as many."""

MAX_CONTAINERS = 100_000
"""Lists and objects in one JSON text: they take more memory and time than other values."""

MAX_DEPTH = 200
"""Levels of nested lists and objects that pydantic-core parses."""

MAX_DIGITS = 4_300
"""Digits of an integer that pydantic-core parses."""

MAX_LONG_DIGITS = 1_000_000
"""Digits of numbers that do not fit 64 bits: reading and writing them takes quadratic time."""

MAX_ESCAPES = 1_000_000
"""Backslashes in a JSON text with a lone surrogate, which is repaired."""

_SMALL = 2 * MAX_CONTAINERS
"""Bytes of a text that cannot exceed a limit: an empty list has two of them."""

_LONG = 20
"""Digits of a number that does not fit 64 bits."""

_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"0" * 9)

_LONE_SURROGATE = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB]..\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)


class JsonLimitExceeded(ValueError):
    """JSON that would take too much time or memory to parse; the message completes "JSON that ..."."""


def dump(value: Any) -> str:
    """Return a value as compact JSON."""
    return to_json(value, inf_nan_mode="null").decode()


def dump_finite(value: Any) -> tuple[str, bool]:
    """Return a value as compact JSON, and whether all numbers are finite: NaN and infinity become null."""
    text = to_json(value, inf_nan_mode="constants").decode()
    if not (_contains(text, "NaN") or _contains(text, "Infinity")):
        return text, True
    written = dump(value)
    return written, written == text


def _contains(text: str, word: str) -> bool:
    """Whether a text contains a word. Most texts lack its first letter, which is found much faster than a word."""
    return word[0] in text and word in text


def replace_not_finite(value: Any) -> Any:
    """Return a value with null for NaN and infinity."""
    if isinstance(value, dict):
        return {name: replace_not_finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [replace_not_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def has_huge_integer(value: Any, text: str) -> bool:
    """Whether a value, which is this JSON text, has an integer beyond the range of a double."""
    data = text.encode()
    return (
        _has_digits(data[::_SAMPLED], _HUGE_DIGITS // _SAMPLED)
        and _has_digits(data, _HUGE_DIGITS)
        and _is_or_has_huge_integer(value)
    )


def _has_digits(data: bytes, count: int) -> bool:
    """Whether so many digits follow each other."""
    return b"0" * count in data.translate(_DIGITS_TO_ZERO)


def _is_or_has_huge_integer(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_is_or_has_huge_integer, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and abs(value) > sys.float_info.max


def parse(text: str | bytes) -> Any:
    """Parse JSON text. Raises JsonLimitExceeded for JSON that exceeds a limit, another ValueError for invalid JSON.

    A lone surrogate becomes a question mark.
    """
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    check_bounded(data)
    try:
        return from_json(data, cache_strings="keys")
    except ValueError as exc:
        if "recursion limit" in str(exc):
            raise JsonLimitExceeded(f"is nested more than {MAX_DEPTH} levels deep") from exc
        if "number out of range" in str(exc):
            raise JsonLimitExceeded(f"has an integer of more than {MAX_DIGITS:,} digits") from exc
        repaired = _replace_lone_surrogates(data)
        if repaired == data:
            raise
    return parse(repaired)


def check_bounded(data: bytes) -> None:
    """Raise JsonLimitExceeded for JSON text with more values than any parser should read; it is not parsed."""
    if len(data) > _SMALL and not _is_bounded(data) and not _is_bounded(_without_strings(data)):
        raise JsonLimitExceeded(f"has more than {MAX_VALUES:,} values or {MAX_CONTAINERS:,} lists and objects")


def parse_or_text(text: str) -> Any:
    """Return the parsed value of JSON text, or the text itself if it is not valid JSON."""
    try:
        return parse(text)
    except ValueError:
        return text


def count_values(data: bytes) -> int:
    """Return an upper bound of the number of values and member names in JSON text, without parsing it."""
    return 1 + len(data) - len(data.translate(None, b",:[{"))


def _is_bounded(data: bytes) -> bool:
    return (
        count_values(data) <= MAX_VALUES
        and data.count(b"[") + data.count(b"{") <= MAX_CONTAINERS
        and data.translate(_DIGITS_TO_ZERO).count(b"0" * _LONG) <= MAX_LONG_DIGITS // _LONG
    )


def _without_strings(data: bytes) -> bytes:
    """Return JSON without its strings; unchanged if it has too many of them."""
    plain = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    return data if plain.count(b'"') > 2 * MAX_VALUES else b"".join(plain.split(b'"')[::2])


def _replace_lone_surrogates(data: bytes) -> bytes:
    if b"\\ud" not in data.lower() or data.count(b"\\") > MAX_ESCAPES:
        return data
    # With escaped backslashes written differently, every backslash starts an escape.
    return _LONE_SURROGATE.sub(b"?", data.replace(b"\\\\", rb"\u005c"))
