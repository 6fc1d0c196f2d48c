"""Simulated time and the timeline of a run.

Nothing runs in the background. A provider stores the start and the timeline of each run and computes its status when a
request arrives, so the same requests at the same times always get the same responses.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import anyio
from anyio.lowlevel import checkpoint

# Decimal places of elapsed seconds. (start + 3) - start can be slightly less than 3, but a reader that was woken for a
# step must find it reached.
PRECISION = 6
# A sleep of less than the resolution of the event loop returns without time passing.
MIN_SLEEP_SECONDS = 1e-6


class Clock:
    """Counts simulated seconds since its creation: real seconds times `speed`."""

    def __init__(self, speed: float = 1.0, *, start: datetime | None = None) -> None:
        if speed <= 0:
            raise ValueError(f"`speed` must be greater than 0, not {speed}")
        self._speed = speed
        self._start = start or datetime.now(UTC)
        self._zero = time.monotonic()

    def now(self) -> float:
        """Return the simulated seconds since the start."""
        return (time.monotonic() - self._zero) * self._speed

    async def sleep_until(self, t: float) -> None:
        """Return when `now()` has reached `t`. Yields to other tasks even if it already has."""
        await checkpoint()
        # A timer can fire slightly early, so one sleep does not guarantee now() >= t.
        while (remaining := t - self.now()) > 0:  # noqa: ASYNC110 - there is no event to wait for
            await anyio.sleep(max(remaining / self._speed, MIN_SLEEP_SECONDS))

    def datetime_at(self, at: float | None = None) -> datetime:
        """Return the date and time of `at` (default: now; negative: before the start)."""
        return self._start + timedelta(seconds=self.now() if at is None else at)

    def timestamp(self, at: float | None = None) -> str:
        """Return the same in ISO 8601, in UTC."""
        return self.datetime_at(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class ManualClock(Clock):
    """A clock that moves only when a test advances it. Its timestamps start at a fixed date."""

    def __init__(self, *, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        super().__init__(start=start)
        self._now = 0.0
        self._sleepers: list[tuple[float, anyio.Event]] = []

    def now(self) -> float:
        return self._now

    async def sleep_until(self, t: float) -> None:
        await checkpoint()
        if t <= self._now:
            return
        sleeper = (t, anyio.Event())
        self._sleepers.append(sleeper)
        try:
            await sleeper[1].wait()
        finally:
            self._sleepers.remove(sleeper)

    def advance(self, seconds: float) -> None:
        """Move the clock forward and wake every sleeper that is due. Call it in the event loop's thread."""
        if seconds < 0:
            raise ValueError(f"the clock only moves forward, not by {seconds} seconds")
        self._now += seconds
        for t, event in self._sleepers:
            if t <= self._now:
                event.set()


class Change:
    """Wakes open streams after a change that no clock predicts, such as a run being started or canceled."""

    def __init__(self) -> None:
        self._waiting: set[anyio.Event] = set()

    def notify(self) -> None:
        """Wake everything that waits."""
        for event in self._waiting:
            event.set()

    @contextmanager
    def subscribe(self) -> Iterator[anyio.Event]:
        """Yield an event that the next `notify()` sets."""
        event = anyio.Event()
        self._waiting.add(event)
        try:
            yield event
        finally:
            self._waiting.discard(event)

    async def wait(self, clock: Clock, until: float) -> None:
        """Return at the next `notify()` or at the simulated time `until`, whichever comes first."""
        with self.subscribe() as event:
            async with anyio.create_task_group() as group:

                async def cancel_at_deadline() -> None:
                    await clock.sleep_until(until)
                    group.cancel_scope.cancel()

                group.start_soon(cancel_at_deadline)
                await event.wait()
                group.cancel_scope.cancel()


@dataclass(frozen=True)
class Step:
    """The status of a run from a point in its timeline on."""

    # Seconds after the start of the run.
    at: float
    # In the provider's spelling.
    status: str
    is_terminal: bool = False


@dataclass(frozen=True)
class Timeline:
    """The steps of a run, in order.

    Of several steps at the same time only the last one can be observed. Only the last step of a timeline may be
    terminal; a run without a terminal step keeps its last status until it is terminated.
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if not self.steps or self.steps[0].at != 0:
            raise ValueError("the first step of a timeline must be at 0")
        if any(later.at < earlier.at for earlier, later in pairwise(self.steps)):
            raise ValueError("the steps of a timeline must be in order of time")
        if any(step.is_terminal for step in self.steps[:-1]):
            raise ValueError("only the last step of a timeline may be terminal")

    def until(self, elapsed: float) -> tuple[Step, ...]:
        """Return the steps reached after `elapsed` seconds, always at least the first."""
        elapsed = round(elapsed, PRECISION)
        return tuple(step for step in self.steps if step.at <= elapsed) or self.steps[:1]

    def at(self, elapsed: float) -> Step:
        """Return the current step after `elapsed` seconds."""
        return self.until(elapsed)[-1]

    def next_change(self, elapsed: float) -> float | None:
        """Return the time of the first step after `elapsed`, or None."""
        elapsed = round(elapsed, PRECISION)
        return next((step.at for step in self.steps if step.at > elapsed), None)

    @property
    def duration(self) -> float | None:
        """The seconds until the run reaches a terminal status by itself, or None if it never does."""
        return self.steps[-1].at if self.steps[-1].is_terminal else None

    def terminate(self, elapsed: float, status: str) -> "Timeline":
        """Return the timeline of the same run ended after `elapsed` seconds with `status`.

        A run that has already reached a terminal status keeps it.
        """
        if self.at(elapsed).is_terminal:
            return self
        return Timeline((*self.until(elapsed), Step(round(elapsed, PRECISION), status, is_terminal=True)))
