"""ISO 8601 timestamps."""

from datetime import UTC, datetime
from typing import Any

LAST_ZERO_YEAR = 1970
"""Times up to this year are the zero of a clock: year 1 in Go and .NET, 1970 elsewhere."""


def parse_timestamp(text: Any) -> datetime | None:
    """Return the time that an ISO 8601 text names, or None for any other value.

    A timestamp without a time zone is in UTC.
    """
    try:
        timestamp = datetime.fromisoformat(text.upper())
    except (AttributeError, TypeError, ValueError):
        return None
    return timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)


def is_zero_time(text: Any) -> bool:
    """Return whether a text is the zero time that providers send for an unknown time, in ISO 8601 or a similar form."""
    year, dash, _ = text.partition("-") if isinstance(text, str) else ("", "", "")
    return bool(dash) and len(year) == 4 and year.isdecimal() and int(year) <= LAST_ZERO_YEAR
