"""Timestamps of ISO 8601."""

from datetime import UTC, datetime
from typing import Any


def read_moment(text: Any) -> datetime | None:
    """The moment that a text of ISO 8601 names, in UTC where it names no zone; None for anything else."""
    try:
        moment = datetime.fromisoformat(text.upper())
    except (AttributeError, TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
