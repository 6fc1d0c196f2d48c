"""Progress notifications of a call: one per event, up to 100 a second, heartbeats, and notices of delays."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import anyio

from mcp_taskruns.core.calls.truncation import one_line, quote


@dataclass(frozen=True)
class Progress:
    """A progress notification. `progress` increases with each notification of a call; `message` is one short line."""

    progress: float
    total: float | None = None
    message: str = ""


Report = Callable[[Progress], Awaitable[None]]
"""Takes the progress notifications of a call; supplied by the caller."""

Notify = Callable[[str], Awaitable[None]]
"""Takes a line about a delay, for the people who watch the call."""

HEARTBEAT_SECONDS = 9.0
"""Hosts give up on silent calls: they receive a notification every ten seconds at the latest."""

NOTICE_SECONDS = 9.0
"""A delay is announced again after so many seconds."""

EVENTS_PER_SECOND = 100
"""Notifications per second, and in one burst; further ones are combined."""

POOL_SECONDS = 0.1
LAST_SECONDS = 1.0

MAX_QUOTED = 100
"""Characters of a line that a heartbeat quotes."""

STEP = 0.01
"""The smallest increase of `progress`: MCP requires that the value grows with each notification."""

ALMOST_ALL = 0.99
"""The part of its total that the elapsed time does not exceed, so that the last notification can."""


async def ignore(_: str) -> None:
    """Notify nobody."""


async def wait_with_notices(seconds: float, reason: str, notify: Notify) -> None:
    """Sleep, and announce the reason and the remaining time every NOTICE_SECONDS."""
    end = anyio.current_time() + seconds
    while (remaining := end - anyio.current_time()) > 0:
        await notify(f"{reason} {delay_text(remaining)}")
        await anyio.sleep(min(remaining, NOTICE_SECONDS))


def delay_text(seconds: float) -> str:
    """Return `in 3 s`, or `in a moment` for less than a second."""
    return f"in {ceil(seconds)} s" if seconds >= 1 else "in a moment"


class ProgressReporter:
    """Sends the progress notifications of one call in order, with a growing `progress`; made by `reporting`.

    The progress of a call is the seconds it has taken, of `total` seconds if there is a limit. With `is_timed=False`
    it is the value that the caller reports, of that total. A client that does not read its notifications delays the
    next one, and with it the code that reports.

    Attributes:
        status: what the call waits for, as last read: part of every heartbeat. May be empty.
    """

    def __init__(
        self, report: Report, total: float | None = None, *, is_timed: bool = True, is_stream: bool = False
    ) -> None:
        self.status = ""
        self._report = report
        self._is_timed = is_timed
        self._is_stream = is_stream
        self._total = total
        self._started_at = self._changed_at = self._last_sent = self._refilled_at = anyio.current_time()
        self._tokens = float(EVENTS_PER_SECOND)
        self._value = 0.0
        self._progress: float | None = None
        self._line = ""
        self._pooled = 0

    @cached_property
    def _lock(self) -> anyio.Lock:
        return anyio.Lock()  # most calls report nothing

    @cached_property
    def _pool_filled(self) -> anyio.Event:
        return anyio.Event()

    async def report(self, line: str, value: float | None = None) -> None:
        """Report an event; `value` is the progress of the call after it, if that is not its time."""
        self._line, self._changed_at = line, anyio.current_time()
        self._value = self._value if value is None else value
        if self._take_token():
            await self._send_pool(1)
        else:
            self._pooled += 1
            self._pool_filled.set()

    async def note(self, line: str) -> None:
        """Report a line without progress."""
        await self.report(line)

    async def run_heartbeat(self) -> None:
        """Send heartbeats and pooled notifications until cancelled."""
        while True:
            with anyio.move_on_at(self._last_sent + HEARTBEAT_SECONDS):
                await self._pool_filled.wait()
                self._pool_filled = anyio.Event()
                await anyio.sleep(POOL_SECONDS)
            if self._pooled:
                await self._send_pool(0)
            elif anyio.current_time() >= self._last_sent + HEARTBEAT_SECONDS:
                await self._send(self._heartbeat_line())

    def _heartbeat_line(self) -> str:
        now = anyio.current_time()
        unchanged = f"no change for {now - self._changed_at:.0f} s"
        if self.status:
            is_known = self._line in ("", self.status)
            return f"{self.status}; {unchanged}" + ("" if is_known else self._quote_last("; last: "))
        if self._line:
            return unchanged + self._quote_last("; last: ")
        elapsed = f"{now - self._started_at:.0f} s"
        return f"no events for {elapsed}" if self._is_stream else elapsed

    async def finish(self) -> None:
        """Send what is pooled; a client that does not read does not delay the result."""
        with anyio.move_on_after(LAST_SECONDS):
            await self._send_pool(0)

    def _take_token(self) -> bool:
        now = anyio.current_time()
        gained = (now - self._refilled_at) * EVENTS_PER_SECOND
        self._tokens, self._refilled_at = min(self._tokens + gained, EVENTS_PER_SECOND), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    async def _send_pool(self, more: int) -> None:
        count, self._pooled = self._pooled + more, 0
        if count:
            await self._send(self._line if count == 1 else f"{count} events" + self._quote_last(", the last: "))

    def _quote_last(self, introduction: str) -> str:
        """Return the last line for a sentence: it may be a text of the provider."""
        return introduction + quote(self._line, MAX_QUOTED)

    async def _send(self, line: str) -> None:
        async with self._lock:
            progress = self._next_progress(self._elapsed() if self._is_timed else self._value)
            await self._report(Progress(progress, self._total, one_line(line)))
            self._last_sent = anyio.current_time()

    def _elapsed(self) -> float:
        """Return the seconds that the call has taken, and at most almost all of its total."""
        seconds = round(anyio.current_time() - self._started_at, 2)
        return seconds if self._total is None else min(seconds, self._total * ALMOST_ALL)

    def _next_progress(self, value: float) -> float:
        """Return `value`, or a little more than the last where it has not grown; less than an unreached total."""
        last = self._progress
        if last is not None and value <= last:
            remaining = STEP if self._total is None else (self._total - last) / 100
            value = round(last + (min(STEP, remaining) if remaining > 0 else STEP), 6)
        self._progress = value
        return value


@asynccontextmanager
async def reporting(
    report: Report, total: float | None = None, *, is_timed: bool = True, is_stream: bool = False
) -> AsyncIterator[ProgressReporter]:
    """Report the progress of a block, with heartbeats while it reports nothing; see `ProgressReporter`."""
    reporter = ProgressReporter(report, total, is_timed=is_timed, is_stream=is_stream)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reporter.run_heartbeat)
            yield reporter
            await reporter.finish()
            tasks.cancel_scope.cancel()
    except ExceptionGroup as group:  # callers expect the exception of the block itself
        failure: Exception = group
        while isinstance(failure, ExceptionGroup):  # that of a task group in the block is inside
            failure = failure.exceptions[0]
        raise failure from failure.__cause__
