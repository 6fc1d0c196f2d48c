from collections.abc import AsyncIterator

import pytest

from mcp_taskruns.simulator.app import Simulator, serve
from mcp_taskruns.simulator.lifecycle import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def simulator(clock: ManualClock) -> Simulator:
    return Simulator(clock=clock)


@pytest.fixture
async def origin(simulator: Simulator) -> AsyncIterator[str]:
    """Where the simulator listens, on a real socket."""
    async with serve(simulator) as origin:
        yield origin


@pytest.fixture
def fast_simulator() -> Simulator:
    """A simulator in which a thousand seconds pass in one: for the official clients, which cannot move a clock."""
    return Simulator(speed=1000)


@pytest.fixture
async def fast_origin(fast_simulator: Simulator) -> AsyncIterator[str]:
    async with serve(fast_simulator) as origin:
        yield origin
