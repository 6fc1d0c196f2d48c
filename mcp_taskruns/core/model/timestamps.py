"""ISO 8601 timestamps and Unix times."""

from datetime import UTC, datetime
from typing import Any

LAST_ZERO_YEAR = 1970
"""Times up to this year are the zero of a clock: year 1 in Go and .NET, 1970 elsewhere."""


FIRST_MILLISECONDS = 100_000_000_000
"""Unix times from here on are in a smaller unit than seconds; in seconds it would be in the year 5138."""

FEWEST_DIGITS = 13
"""A text of so many digits or more is a Unix time in milliseconds or less; a shorter number may be anything."""

MOST_DIGITS = 19
"""Those of a Unix time in nanoseconds."""


def parse_timestamp(value: Any) -> datetime | None:
    """Return the time that an ISO 8601 text or a Unix time names, or None for any other value.

    A timestamp without a time zone is in UTC. A Unix time is a positive number of seconds, milliseconds, microseconds
    or nanoseconds, or its digits as text if it is not in seconds.
    """
    if _is_unix_text(value):
        return _from_unix(int(value))
    if isinstance(value, int | float) and value > 0 and not isinstance(value, bool):
        return _from_unix(value)
    try:
        timestamp = datetime.fromisoformat(value.upper())
    except (AttributeError, TypeError, ValueError):
        return None
    return timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)


def to_timestamp(value: Any) -> str:
    """Return a time as an ISO 8601 timestamp; a text as it is; empty for any other value and for a zero time."""
    if isinstance(value, str) and not _is_unix_text(value):
        return "" if is_zero_time(value) else value
    moment = parse_timestamp(value)
    return moment.isoformat().replace("+00:00", "Z") if moment else ""


def _is_unix_text(value: Any) -> bool:
    is_digits = isinstance(value, str) and value.isascii() and value.isdecimal()
    return is_digits and FEWEST_DIGITS <= len(value) <= MOST_DIGITS


def _from_unix(number: float) -> datetime | None:
    for _ in ("milliseconds", "microseconds", "nanoseconds"):
        if number >= FIRST_MILLISECONDS:
            number /= 1000
    try:
        return datetime.fromtimestamp(number, UTC)
    except (OverflowError, ValueError):  # beyond the year 9999, or not a number
        return None


def is_zero_time(text: Any) -> bool:
    """Return whether a text is the zero time that providers send for an unknown time, in ISO 8601 or a similar form."""
    year, dash, _ = text.partition("-") if isinstance(text, str) else ("", "", "")
    return bool(dash) and len(year) == 4 and year.isdecimal() and int(year) <= LAST_ZERO_YEAR
