"""A clock that tests drive: the event loop's own, so that every sleep, bound and timer of the process goes by it.

`anyio_backend` of a module that uses it returns `DRIVEN`; what it simulates takes a `LoopClock`.
"""

import asyncio

import aiohttp.connector
import anyio

from mcp_taskruns.simulator.lifecycle import Clock

TURNS = 200
"""Turns of the event loop in which answers on loopback sockets go to and fro."""


class DrivenLoop(asyncio.SelectorEventLoop):
    """An event loop that is ahead of real time by as much as it was told."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


# By which aiohttp tells how long a connection was idle.
aiohttp.connector.monotonic = lambda: asyncio.get_running_loop().time()  # type: ignore[attr-defined]  # it exports none

DRIVEN = ("asyncio", {"loop_factory": DrivenLoop})


class LoopClock(Clock):
    """Simulated seconds that are the event loop's."""

    def __init__(self) -> None:
        super().__init__()
        self._began: float | None = None

    def now(self) -> float:
        if self._began is None:
            self._began = anyio.current_time()
        return anyio.current_time() - self._began


async def settle() -> None:
    """Let everything happen that needs no time to pass."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def pass_time(seconds: float, step: float = 0.25) -> None:
    """Let time pass, step by step: what is due after one step happens before the next.

    The real time that this takes is part of it, so that a busy machine does not make it more.
    """
    loop = asyncio.get_running_loop()
    assert isinstance(loop, DrivenLoop)
    end = loop.time() + seconds
    await settle()
    while (left := end - loop.time()) > 0:
        loop.ahead += min(step, left)
        await settle()
