"""The delay that a provider asks for before the next request."""

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isfinite

EPOCH_SECONDS = 1e9
"""A rate limit reset above this number is a time in seconds since 1970, below it a delay in seconds."""


def retry_after(headers: Mapping[str, str], status: int, now: float) -> float | None:
    """Return the delay in seconds that the provider requests before the next request.

    `now` is in seconds since 1970. Reads `Retry-After` (RFC 9110 section 10.2.3), `retry-after-ms` and, for 429, the
    reset time of the rate limit.
    """
    milliseconds = _parse_number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(milliseconds / 1000, 0.0)
    seconds = _parse_retry_after(headers.get("retry-after"), now)
    if seconds is None and status == 429:
        seconds = _parse_reset(headers.get("ratelimit-reset") or headers.get("x-ratelimit-reset"), now)
    return None if seconds is None else max(round(seconds, 3), 0.0)


def _parse_retry_after(header: str | None, now: float) -> float | None:
    seconds = _parse_number(header)
    if seconds is not None or not header:
        return seconds
    try:
        moment = parsedate_to_datetime(header)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return None


def _parse_reset(header: str | None, now: float) -> float | None:
    seconds = _parse_number(header)
    return seconds - now if seconds is not None and seconds > EPOCH_SECONDS else seconds


def _parse_number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if isfinite(number) else None
