"""Timelines, clocks and waiting for changes."""

from datetime import UTC, datetime

import anyio
import pytest

from mcp_taskruns.simulator.lifecycle import Change, Clock, ManualClock, Step, Timeline
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

RUN = Timeline((Step(0, "queued"), Step(2, "running"), Step(5, "done", is_terminal=True)))
ENDLESS = Timeline((Step(0, "queued"), Step(2, "running")))


@pytest.mark.parametrize(
    ("elapsed", "status", "next_change"),
    [(-1, "queued", 0), (0, "queued", 2), (1.9, "queued", 2), (2, "running", 5), (5, "done", None), (99, "done", None)],
)
def test_status_of_a_run_follows_from_the_elapsed_time(elapsed: float, status: str, next_change: float | None) -> None:
    assert RUN.at(elapsed).status == status
    assert RUN.next_change(elapsed) == next_change


@pytest.mark.parametrize("start", [number / 10 for number in range(1, 100)])
def test_step_is_reached_at_its_time_despite_rounding(start: float) -> None:
    assert RUN.at(start + 5 - start).status == "done"
    assert RUN.next_change(start + 2 - start) == 5


@pytest.mark.parametrize("elapsed", [2.000000449, 1 / 3])
def test_terminate_applies_at_once_despite_rounding(elapsed: float) -> None:
    assert RUN.terminate(elapsed, "cancelled").at(elapsed).status == "cancelled"


def test_run_without_a_terminal_step_has_no_duration() -> None:
    assert (RUN.duration, ENDLESS.duration) == (5, None)


def test_terminated_run_drops_its_later_steps() -> None:
    terminated = RUN.terminate(3, "cancelled")
    assert terminated.steps == (Step(0, "queued"), Step(2, "running"), Step(3, "cancelled", is_terminal=True))


def test_terminate_keeps_a_run_with_a_terminal_status() -> None:
    assert RUN.terminate(5, "cancelled") is RUN


def test_status_replaced_at_the_same_time_is_in_the_history_only() -> None:
    retried = Timeline((Step(0, "running"), Step(1, "failed"), Step(1, "running")))
    assert [step.status for step in retried.until(1)] == ["running", "failed", "running"]
    assert retried.at(1).status == "running"


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (Step(1, "late"),),
        (Step(0, "a"), Step(2, "b"), Step(1, "c")),
        (Step(0, "done", is_terminal=True), Step(1, "running")),
    ],
)
def test_invalid_timeline_raises_value_error(steps: tuple[Step, ...]) -> None:
    with pytest.raises(ValueError, match="of a timeline"):
        Timeline(steps)


async def test_fast_clock_sleeps_for_a_fraction_of_the_time() -> None:
    clock = Clock(speed=100_000)
    with anyio.fail_after(PATIENCE):
        await clock.sleep_until(clock.now() + 600)
    assert clock.now() >= 600


async def test_sleep_until_a_past_time_returns() -> None:
    clock = Clock()
    with anyio.fail_after(PATIENCE):
        await clock.sleep_until(clock.now() - 1)


def test_timestamps_are_in_utc_and_relative_to_the_start() -> None:
    clock = Clock(start=datetime(2026, 1, 1, tzinfo=UTC))
    assert (clock.timestamp(0), clock.timestamp(-0.5)) == ("2026-01-01T00:00:00.000Z", "2025-12-31T23:59:59.500Z")
    assert clock.timestamp() >= clock.timestamp(0)


async def test_manual_clock_wakes_only_the_sleepers_that_are_due() -> None:
    clock = ManualClock()
    woken: list[float] = []

    async def sleeper(t: float) -> None:
        await clock.sleep_until(t)
        woken.append(t)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            for t in (10, 20, 30):
                group.start_soon(sleeper, t)
            await anyio.wait_all_tasks_blocked()
            clock.advance(20)
            await anyio.wait_all_tasks_blocked()
            assert sorted(woken) == [10, 20]
            group.cancel_scope.cancel()
    assert clock.timestamp() == "2026-01-01T00:00:20.000Z"


def test_clock_rejects_zero_speed_and_a_negative_advance() -> None:
    with pytest.raises(ValueError, match="speed"):
        Clock(speed=0)
    with pytest.raises(ValueError, match="forward"):
        ManualClock().advance(-1)


@pytest.mark.parametrize("by_clock", [True, False])
async def test_wait_returns_at_a_change_or_at_its_deadline(by_clock: bool) -> None:
    clock, change = ManualClock(), Change()
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(change.wait, clock, 10)
            await anyio.wait_all_tasks_blocked()
            if by_clock:
                clock.advance(10)
            else:
                change.notify()
