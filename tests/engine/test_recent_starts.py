"""Runs that this process has just started: what a provider returns about them may be older than the start."""

from datetime import UTC, datetime

import pytest

from mcp_taskruns.core.model.run import RunStatus
from mcp_taskruns.core.runs.reading import Reading
from mcp_taskruns.engine.recent_starts import GRACE_SECONDS, MAX_STARTS, RecentStarts
from mcp_taskruns.errors import NotVisibleYet
from tests.clock import pass_time

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

NOW = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)


def starts_with(run_id: str, *, is_new: bool) -> RecentStarts:
    starts = RecentStarts(lambda: NOW)
    starts.add("p", run_id, is_new=is_new)
    return starts


async def test_start_is_recent_for_15_seconds() -> None:
    starts = starts_with("run-1", is_new=True)
    assert [starts.is_recent(*run) for run in (("p", "run-1"), ("p", "RUN-1"), ("p", "run-2"), ("q", "run-1"))] == [
        True,
        True,
        False,
        False,
    ]
    await pass_time(GRACE_SECONDS - 0.1)
    assert starts.is_recent("p", "run-1")
    await pass_time(0.2)
    assert not starts.is_recent("p", "run-1")


@pytest.mark.parametrize("ended", ["2026-01-01T12:00:00Z", "2025-12-31T00:00:00Z", "", "soon"])
async def test_terminal_status_from_before_a_resume_is_not_believed(ended: str) -> None:
    starts = starts_with("run-1", is_new=False)
    with pytest.raises(NotVisibleYet, match="still returns the status from before") as caught:
        starts.check("p", Reading("run-1", RunStatus.FAILED, "failed", ended=ended))
    assert caught.value.retryable
    await pass_time(GRACE_SECONDS)
    starts.check("p", Reading("run-1", RunStatus.FAILED, "failed", ended=ended))


@pytest.mark.parametrize(
    ("is_new", "reading"),
    [
        (False, Reading("run-1", RunStatus.FAILED, "failed", ended="2026-01-01T12:00:31Z")),
        (False, Reading("run-1", RunStatus.RUNNING, "running")),
        (False, Reading("run-2", RunStatus.FAILED, "failed")),
        (True, Reading("run-1", RunStatus.FAILED, "failed", ended="2026-01-01T12:00:00Z")),
    ],
    ids=["ended later", "not terminal", "another run", "new run"],
)
async def test_other_statuses_are_believed(is_new: bool, reading: Reading) -> None:
    starts_with("run-1", is_new=is_new).check("p", reading)


async def test_run_that_was_created_a_moment_ago_is_new_also_when_it_is_started() -> None:
    starts = starts_with("run-1", is_new=True)
    starts.add("p", "run-1", is_new=False)
    starts.check("p", Reading("run-1", RunStatus.SUCCEEDED, "completed"))


async def test_number_of_remembered_starts_is_bounded() -> None:
    starts = RecentStarts()
    for number in range(MAX_STARTS + 1):
        starts.add("p", f"run-{number}", is_new=True)
    assert [starts.is_recent("p", f"run-{number}") for number in (0, 1, MAX_STARTS)] == [False, True, True]
