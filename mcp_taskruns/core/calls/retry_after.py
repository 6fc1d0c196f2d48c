"""The delay that a provider asks for before the next request."""

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isfinite

from mcp_taskruns.core.model.timestamps import parse_timestamp

EPOCH_SECONDS = 1e9
"""A larger number is a time in seconds since 1970, a smaller one a delay in seconds."""

EPOCH_MILLISECONDS = 1e12
"""A larger number is a time since 1970 in milliseconds, or in a smaller unit."""

_DURATION = re.compile(r'"?(?P<number>\d{1,9}(\.\d{1,9})?)"?\s*(?P<unit>|ms|s|secs?|seconds?)', re.IGNORECASE)
"""A delay with a unit or in quotes."""

RESET_HEADERS = ("ratelimit-reset", "x-ratelimit-reset", "x-rate-limit-reset")
"""When a rate limit allows requests again; read without `Retry-After` when the limit is used up."""

REMAINING_HEADERS = ("ratelimit-remaining", "x-ratelimit-remaining", "x-rate-limit-remaining")
"""How many requests a rate limit still allows."""


def retry_after(headers: Mapping[str, str], status: int, now: float) -> float | None:
    """Return the delay in seconds that the provider requests before the next request.

    `now` is in seconds since 1970. Reads `Retry-After` (RFC 9110 section 10.2.3), `retry-after-ms` and, for 429, the
    reset time of the rate limit; GitHub sends 403 instead, with no remaining requests. Providers send delays and times,
    in seconds and milliseconds.
    """
    milliseconds = _parse_number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(milliseconds / 1000, 0.0)
    is_used_up = status == 429 or (status == 403 and any(headers.get(name) == "0" for name in REMAINING_HEADERS))
    names = ("retry-after", *(RESET_HEADERS if is_used_up else ()))
    delays = (_parse_delay(headers.get(name), now) for name in names)
    seconds = next((delay for delay in delays if delay is not None), None)
    return None if seconds is None else max(round(seconds, 3), 0.0)


def _parse_delay(header: str | None, now: float) -> float | None:
    """Return the delay until the time that a header names, or the delay that it is."""
    number = _parse_number(header)
    if number is None:
        return _parse_date_or_duration(header or "", now)
    while number > EPOCH_MILLISECONDS:
        number /= 1000
    return number - now if number > EPOCH_SECONDS else number


def _parse_date_or_duration(text: str, now: float) -> float | None:
    """Return the delay of a duration such as `30s`, or until a date."""
    duration = _DURATION.fullmatch(text.strip())
    if duration:
        return float(duration["number"]) / (1000 if duration["unit"].lower() == "ms" else 1)
    time = _parse_date(text)
    return None if time is None else time - now


def _parse_date(text: str) -> float | None:
    """Return the seconds since 1970 of an HTTP date (RFC 9110 section 5.6.7), or of one in the form of RFC 3339."""
    moment = parse_timestamp(text.strip())
    if moment is not None:
        return moment.timestamp()
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _parse_number(text: str | None) -> float | None:
    """Return the number in a header, of several values the last."""
    try:
        number = float((text or "").rpartition(",")[2])
    except ValueError:
        return None
    return number if isfinite(number) else None
