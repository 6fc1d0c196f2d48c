from datetime import UTC, datetime

import anyio
import pytest

from mcp_taskruns.simulator.lifecycle import Change, Clock, ManualClock, Step, Timeline

pytestmark = pytest.mark.anyio

RUN = Timeline((Step(0, "queued"), Step(2, "running"), Step(5, "done", ended=True)))
ENDLESS = Timeline((Step(0, "queued"), Step(2, "running")))


@pytest.mark.parametrize(
    ("elapsed", "state", "next_change"),
    [(-1, "queued", 0), (0, "queued", 2), (1.9, "queued", 2), (2, "running", 5), (5, "done", None), (99, "done", None)],
)
def test_the_state_of_a_run_follows_from_elapsed_time(elapsed: float, state: str, next_change: float | None) -> None:
    assert RUN.at(elapsed).state == state
    assert RUN.next_change(elapsed) == next_change


def test_only_a_run_that_ends_by_itself_has_an_end() -> None:
    assert (RUN.end, ENDLESS.end) == (5, None)


def test_a_cut_run_ends_there_and_forgets_what_would_have_come() -> None:
    cut = RUN.cut(3, "cancelled")
    assert cut.steps == (Step(0, "queued"), Step(2, "running"), Step(3, "cancelled", ended=True))


def test_cutting_a_run_that_has_ended_changes_nothing() -> None:
    assert RUN.cut(5, "cancelled") is RUN


def test_a_state_left_at_the_moment_it_is_reached_is_history_but_never_seen() -> None:
    retried = Timeline((Step(0, "running"), Step(1, "failed"), Step(1, "running")))
    assert [step.state for step in retried.so_far(1)] == ["running", "failed", "running"]
    assert retried.at(1).state == "running"


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (Step(1, "late"),),
        (Step(0, "a"), Step(2, "b"), Step(1, "c")),
        (Step(0, "over", ended=True), Step(1, "not over")),
    ],
)
def test_an_impossible_timeline_cannot_be_made(steps: tuple[Step, ...]) -> None:
    with pytest.raises(ValueError, match=r"timeline|follows"):
        Timeline(steps)


async def test_a_fast_clock_wakes_a_sleeper_after_a_fraction_of_the_time() -> None:
    clock = Clock(speed=100_000)
    with anyio.fail_after(5):
        await clock.sleep_until(clock.now() + 600)
    assert clock.now() >= 600


async def test_sleeping_until_a_moment_that_has_passed_returns() -> None:
    clock = Clock()
    with anyio.fail_after(5):
        await clock.sleep_until(clock.now() - 1)


def test_timestamps_are_utc_and_count_from_the_start() -> None:
    clock = Clock(start=datetime(2026, 1, 1, tzinfo=UTC))
    assert (clock.timestamp(0), clock.timestamp(-0.5)) == ("2026-01-01T00:00:00.000Z", "2025-12-31T23:59:59.500Z")
    assert clock.timestamp() >= clock.timestamp(0)


async def test_a_manual_clock_wakes_those_whose_time_has_come_and_no_others() -> None:
    clock = ManualClock()
    woken: list[float] = []

    async def sleeper(t: float) -> None:
        await clock.sleep_until(t)
        woken.append(t)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for t in (10, 20, 30):
                group.start_soon(sleeper, t)
            await anyio.wait_all_tasks_blocked()
            clock.advance(20)
            await anyio.wait_all_tasks_blocked()
            assert sorted(woken) == [10, 20]
            group.cancel_scope.cancel()
    assert clock.timestamp() == "2026-01-01T00:00:20.000Z"


def test_clocks_refuse_to_stand_still_for_ever_or_to_run_backwards() -> None:
    with pytest.raises(ValueError, match="speed"):
        Clock(speed=0)
    with pytest.raises(ValueError, match="forward"):
        ManualClock().advance(-1)


@pytest.mark.parametrize("by_clock", [True, False])
async def test_a_wait_ends_at_the_announcement_or_when_its_time_comes(by_clock: bool) -> None:
    clock, change = ManualClock(), Change()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(change.wait, clock, 10)
            await anyio.wait_all_tasks_blocked()
            if by_clock:
                clock.advance(10)
            else:
                change.announce()
