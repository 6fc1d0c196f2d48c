"""Progress while a call runs: every event up to a hundred a second, and a sign of life where nothing happens."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from mcp_taskruns.core.calls.truncation import one_line
from mcp_taskruns.core.runs.events import Progress

Report = Callable[[Progress], Awaitable[None]]
"""What a caller gives to be told of progress while a call runs."""

HEARTBEAT_SECONDS = 9.0
"""Hosts give up on calls that are silent: they are told something every ten seconds at the latest."""

EVENTS_PER_SECOND = 100
"""So many notifications a second, and as many at once; what comes faster is pooled."""

POOL_SECONDS = 0.1
LAST_SECONDS = 1.0

STEP = 0.001
"""How far a notification moves that has nothing to count: `progress` has to increase with each."""


class Reporter:
    """Reports the progress of one call, in order, with `progress` growing; made by `reporting`.

    A caller that does not take a notification holds up the next one, and with it whoever reports.
    """

    def __init__(self, report: Report, total: float | None = None) -> None:
        self._report = report
        self._total = total
        self._lock = anyio.Lock()
        self._began = self._last_sent = self._refilled = anyio.current_time()
        self._tokens = float(EVENTS_PER_SECOND)
        self._value = 0.0
        self._progress: float | None = None
        self._line = ""
        self._pooled = 0
        self._pool_filled = anyio.Event()

    async def tell(self, line: str, value: float) -> None:
        """Something happened, after which the call has come as far as `value`."""
        self._line, self._value = line, value
        if self._take_token():
            await self._send_pool(1)
        else:
            self._pooled += 1
            self._pool_filled.set()

    async def note(self, line: str) -> None:
        """Something is to be said that brings the call no further."""
        await self.tell(line, self._value)

    async def beat(self) -> None:
        """Give signs of life, and what was pooled, until cancelled."""
        while True:
            with anyio.move_on_at(self._last_sent + HEARTBEAT_SECONDS):
                await self._pool_filled.wait()
                self._pool_filled = anyio.Event()
                await anyio.sleep(POOL_SECONDS)
            if self._pooled:
                await self._send_pool(0)
            elif anyio.current_time() >= self._last_sent + HEARTBEAT_SECONDS:
                elapsed = anyio.current_time() - self._began
                await self._send(f"{elapsed:.0f} s, no news: {self._line}" if self._line else f"{elapsed:.0f} s")

    async def finish(self) -> None:
        """Tell what is pooled still; a caller that does not listen does not keep the result."""
        with anyio.move_on_after(LAST_SECONDS):
            await self._send_pool(0)

    def _take_token(self) -> bool:
        now = anyio.current_time()
        gained = (now - self._refilled) * EVENTS_PER_SECOND
        self._tokens, self._refilled = min(self._tokens + gained, EVENTS_PER_SECOND), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    async def _send_pool(self, more: int) -> None:
        count, self._pooled = self._pooled + more, 0
        if count:
            await self._send(self._line if count == 1 else f"{count} events, the last: {self._line}")

    async def _send(self, line: str) -> None:
        async with self._lock:
            progress = self._next(self._value)
            await self._report(Progress(progress, self._total, one_line(line)))
            self._last_sent = anyio.current_time()

    def _next(self, value: float) -> float:
        """`value`, or a little more than the last where it has not grown; never the total before it is reached."""
        last = self._progress
        if last is not None and value <= last:
            left = STEP if self._total is None else (self._total - last) / 100
            value = last + min(STEP, left) if left > 0 else last + STEP
        self._progress = value
        return value


@asynccontextmanager
async def reporting(report: Report, total: float | None = None) -> AsyncIterator[Reporter]:
    """A block that reports its progress, with signs of life while it says nothing; `total` where it is known."""
    reporter = Reporter(report, total)
    failure: Exception | None = None

    async def beat() -> None:
        nonlocal failure
        try:
            await reporter.beat()
        except Exception as exc:
            failure = exc
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        try:
            yield reporter
        except Exception as exc:
            failure = exc  # the group would wrap it
        else:
            await reporter.finish()
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
