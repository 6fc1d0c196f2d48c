"""A simulated run: a timeline that is a function of elapsed time, and the clock that time is read from.

Nothing runs in the background. A provider keeps, for each run, when it began and its timeline; what a request sees is
computed when it arrives, so the same calls at the same moments always give the same answers.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import anyio
from anyio.lowlevel import checkpoint


class Clock:
    """Simulated seconds since the clock was made: real ones, `speed` times as fast."""

    def __init__(self, speed: float = 1.0, *, start: datetime | None = None) -> None:
        if speed <= 0:
            raise ValueError("speed must be above 0")
        self._speed = speed
        self._start = start or datetime.now(UTC)
        self._zero = time.monotonic()

    def now(self) -> float:
        return (time.monotonic() - self._zero) * self._speed

    async def sleep_until(self, t: float) -> None:
        """Return when `now()` has reached `t`; at once (after letting others run) if it already has."""
        await checkpoint()
        # A timer may fire a hair early, so one sleep is not enough to promise now() >= t.
        while (remaining := t - self.now()) > 0:  # noqa: ASYNC110 - no event announces the time
            await anyio.sleep(remaining / self._speed)

    def moment(self, at: float | None = None) -> datetime:
        """When `at` is (now by default; negative: before the start)."""
        return self._start + timedelta(seconds=self.now() if at is None else at)

    def timestamp(self, at: float | None = None) -> str:
        """The same in ISO 8601, in UTC."""
        return self.moment(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class ManualClock(Clock):
    """A clock that stands still until a test moves it; its timestamps start at a fixed date."""

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
        """Move the clock on and wake every sleeper whose time has come. To be called in the event loop's thread."""
        if seconds < 0:
            raise ValueError("time only goes forward")
        self._now += seconds
        for t, event in self._sleepers:
            if t <= self._now:
                event.set()


class Change:
    """Wakes the open streams when something happened that no clock announces: a run was started or cancelled."""

    def __init__(self) -> None:
        self._waiting: set[anyio.Event] = set()

    def announce(self) -> None:
        for event in self._waiting:
            event.set()

    @contextmanager
    def watch(self) -> Iterator[anyio.Event]:
        """An event that the next announcement sets."""
        event = anyio.Event()
        self._waiting.add(event)
        try:
            yield event
        finally:
            self._waiting.discard(event)

    async def wait(self, clock: Clock, until: float) -> None:
        """Return at the next announcement or at the simulated moment `until`, whichever comes first."""
        with self.watch() as event:
            async with anyio.create_task_group() as group:

                async def alarm() -> None:
                    await clock.sleep_until(until)
                    group.cancel_scope.cancel()

                group.start_soon(alarm)
                await event.wait()
                group.cancel_scope.cancel()


@dataclass(frozen=True)
class Step:
    """From `at` seconds after its beginning a run is in `state`, in the provider's own spelling."""

    at: float
    state: str
    ended: bool = False


@dataclass(frozen=True)
class Timeline:
    """What a run goes through, first to last.

    Steps may share a moment: the run passes through all but the last of them without being seen there. Only the last
    step may be an end; a timeline without one stays in its last state until it is cut.
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if not self.steps or self.steps[0].at != 0:
            raise ValueError("a timeline begins with a step at 0")
        if any(later.at < earlier.at for earlier, later in pairwise(self.steps)):
            raise ValueError("the steps of a timeline are in order")
        if any(step.ended for step in self.steps[:-1]):
            raise ValueError("nothing follows the end of a run")

    def so_far(self, elapsed: float) -> tuple[Step, ...]:
        """The steps reached by then; the first one always is."""
        return tuple(step for step in self.steps if step.at <= elapsed) or self.steps[:1]

    def at(self, elapsed: float) -> Step:
        return self.so_far(elapsed)[-1]

    def next_change(self, elapsed: float) -> float | None:
        """When, after `elapsed`, the next step comes."""
        return next((step.at for step in self.steps if step.at > elapsed), None)

    @property
    def end(self) -> float | None:
        """When the run ends by itself, if it does."""
        return self.steps[-1].at if self.steps[-1].ended else None

    def cut(self, elapsed: float, state: str) -> "Timeline":
        """The same run ended from outside at `elapsed`, in `state`; a run that has ended by then stays as it is."""
        if self.at(elapsed).ended:
            return self
        return Timeline((*self.so_far(elapsed), Step(elapsed, state, ended=True)))
