"""Fixtures of the tests of runs: providers and server go by the clock that a test drives."""

from typing import Any

import pytest

from mcp_taskruns.simulator.app import Simulator
from tests.clock import DRIVEN, LoopClock


@pytest.fixture
def anyio_backend() -> Any:
    return DRIVEN


@pytest.fixture
async def simulator() -> Simulator:
    return Simulator(clock=LoopClock())
