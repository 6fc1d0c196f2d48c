"""Fixtures: a simulator with a manual clock, and one that runs fast."""

from collections.abc import AsyncIterator

import pytest

from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.lifecycle import ManualClock
from mcp_taskruns.simulator.server import serve


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def simulator(clock: ManualClock) -> Simulator:
    return Simulator(clock=clock)


@pytest.fixture
async def origin(simulator: Simulator) -> AsyncIterator[str]:
    """The origin of the simulator, served on a real socket."""
    async with serve(simulator) as origin:
        yield origin


@pytest.fixture
def fast_simulator() -> Simulator:
    """A simulator that runs 1,000 times as fast, for the official clients, which wait in real time."""
    return Simulator(speed=1000)


@pytest.fixture
async def fast_origin(fast_simulator: Simulator) -> AsyncIterator[str]:
    async with serve(fast_simulator) as origin:
        yield origin
