"""ISO 8601 timestamps."""

from datetime import UTC, datetime
from typing import Any


def parse_timestamp(text: Any) -> datetime | None:
    """Return the time that an ISO 8601 text names, or None for any other value.

    A timestamp without a time zone is in UTC.
    """
    try:
        timestamp = datetime.fromisoformat(text.upper())
    except (AttributeError, TypeError, ValueError):
        return None
    return timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)
