"""What is left out of responses, and what calls have not changed."""

from typing import Any

import pytest

from mcp_taskruns.core.calls.echo import describe_unchanged
from mcp_taskruns.core.calls.trim import trim
from mcp_taskruns.core.model.json_path import EACH
from mcp_taskruns.core.model.operation import Echo, Trim

RULE = Trim(("jobs", EACH), frozenset({"raw"}), {"held": ("raw", "lease")})


@pytest.mark.parametrize(
    ("job", "trimmed"),
    [
        ({"id": 1, "raw": {"lease": "a"}}, {"id": 1, "held": True}),
        ({"id": 1, "raw": {"lease": None}}, {"id": 1, "held": False}),
        ({"id": 1}, {"id": 1, "held": False}),
        ("text", "text"),
    ],
)
def test_members_are_left_out_and_flags_are_added(job: Any, trimmed: Any) -> None:
    assert trim({"jobs": [job]}, [RULE]) == {"jobs": [trimmed]}
    assert trim({"other": [job]}, [RULE]) == {"other": [job]}


@pytest.mark.parametrize(
    ("wanted", "shown", "fields"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, ""),
        ({"a": 1, "b": 3}, {"a": 1, "b": 2}, "b"),
        ({"a": {"x": 1, "y": 2}}, {"a": {"x": 1, "z": 0}}, "a.y"),
        ({"a": {"x": 1}}, {"a": None}, "a"),
        ({"hidden": 1}, {}, ""),
        ({"a": "key", "b": "key"}, {"a": "[redacted]", "b": "a [secret]"}, ""),
        (None, {"a": 1}, ""),
        ({"a": 1}, "text", ""),
    ],
)
def test_members_that_the_response_shows_otherwise_are_not_changed(wanted: Any, shown: Any, fields: str) -> None:
    note = describe_unchanged(Echo("body", "kept: {fields}"), {"body": wanted}, shown)
    assert note == (f"kept: {fields}" if fields else "")
