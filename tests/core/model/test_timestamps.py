"""Times in the forms of several providers."""

from typing import Any

import pytest

from mcp_taskruns.core.model.timestamps import to_timestamp


@pytest.mark.parametrize(
    ("value", "timestamp"),
    [
        ("2026-11-30T17:09:17.215Z", "2026-11-30T17:09:17.215Z"),
        (1796058557, "2026-11-30T17:09:17Z"),
        (1796058557.5, "2026-11-30T17:09:17.500000Z"),
        (1796058557500, "2026-11-30T17:09:17.500000Z"),
        (1796058557500000, "2026-11-30T17:09:17.500000Z"),
        (1796058557500000000, "2026-11-30T17:09:17.500000Z"),
        ("1796058557500000000", "2026-11-30T17:09:17.500000Z"),
        ("1796058557500", "2026-11-30T17:09:17.500000Z"),
        ("1796058557", "1796058557"),
        ("12345678901234567890", "12345678901234567890"),
        ("0001-01-01T00:00:00Z", ""),
        (0, ""),
        (-1, ""),
        (True, ""),
        (1e300, ""),
        (float("inf"), ""),
        (float("nan"), ""),
        (None, ""),
        ({}, ""),
    ],
)
def test_time_is_iso_8601_text_or_unix_time_in_seconds_to_nanoseconds(value: Any, timestamp: str) -> None:
    assert to_timestamp(value) == timestamp
