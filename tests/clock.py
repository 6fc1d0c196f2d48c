"""A clock that tests drive: the time of the event loop, and so of every sleep, timeout and timer in it.

Mark a test `driven_clock` to run it on a `DrivenLoop`. Its simulator then uses a `LoopClock`.
"""

import asyncio
import selectors
import time
from selectors import SelectorKey
from typing import Any

import aiohttp.connector
import anyio
import anyio.to_thread

from mcp_taskruns.simulator.lifecycle import Clock

GRACE_SECONDS = 0.0005
"""Real seconds without I/O after which an event loop with nothing to run counts as idle."""

Events = list[tuple[SelectorKey, int]]


class _Threads:
    """Counts the functions that `anyio.to_thread` runs: an event loop that waits for a thread is not idle."""

    working = 0
    _run_sync = staticmethod(anyio.to_thread.run_sync)

    @classmethod
    async def run_sync(cls, *args: Any, **kwargs: Any) -> Any:
        cls.working += 1
        try:
            return await cls._run_sync(*args, **kwargs)
        finally:
            cls.working -= 1


anyio.to_thread.run_sync = _Threads.run_sync  # type: ignore[assignment]  # any function, any arguments


class _DrivenSelector(selectors.DefaultSelector):
    """A selector that owns the time of its event loop.

    The loop calls `select` with the seconds until its next timer, or 0 while it has something to run. While it is idle
    and `wait_idle` or `pass_time` waits, time advances to the next timer. While nothing waits, real time passes, so
    that other processes and threads can be waited for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.left = 0.0
        self.waiter: asyncio.Future[None] | None = None

    def select(self, timeout: float | None = None) -> Events:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        if self.waiter is None:
            began = time.monotonic()
            events = super().select(timeout)
            self.now += time.monotonic() - began
            return events
        if events := super().select(GRACE_SECONDS):
            return events
        if _Threads.working:
            return []
        self._advance(timeout)
        return []

    def _advance(self, timeout: float | None) -> None:
        if self.left > 0:
            step = self.left if timeout is None else min(timeout, self.left)
            self.now += step
            self.left -= step
        elif self.waiter is not None:
            if not self.waiter.done():
                self.waiter.set_result(None)
            self.waiter = None


class DrivenLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while it is idle."""

    def __init__(self) -> None:
        self._driven = _DrivenSelector()
        super().__init__(self._driven)

    def time(self) -> float:
        return self._driven.now

    async def run_until_idle(self, seconds: float = 0) -> None:
        """Let these seconds pass and return when nothing is left to run."""
        assert self._driven.waiter is None, "only one task may drive the clock"
        self._driven.waiter = self.create_future()
        self._driven.left = seconds
        try:
            await self._driven.waiter
        finally:
            self._driven.waiter = None
            self._driven.left = 0


# aiohttp measures with it how long a connection has been idle. It has no public setting for the clock.
aiohttp.connector.monotonic = lambda: asyncio.get_running_loop().time()  # type: ignore[attr-defined]  # not exported

DRIVEN = ("asyncio", {"loop_factory": DrivenLoop})


class LoopClock(Clock):
    """Simulated seconds that are the seconds of the event loop.

    Its timestamps start now, because the server compares them with the wall clock.
    """

    def __init__(self) -> None:
        super().__init__()
        self._began: float | None = None

    def now(self) -> float:
        if self._began is None:
            self._began = anyio.current_time()
        return anyio.current_time() - self._began


async def settle() -> None:
    """Run everything that does not need time to pass."""
    await pass_time(0)


async def pass_time(seconds: float) -> None:
    """Let time pass from timer to timer."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, DrivenLoop)
    await loop.run_until_idle(seconds)
