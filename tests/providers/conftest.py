"""Fixtures of the tests of the providers' operations: the providers go by the clock that a test drives."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from mcp_taskruns.simulator.app import Simulator
from tests.clock import DRIVEN, LoopClock
from tests.providers.driver import Caller, connected


@pytest.fixture
def anyio_backend() -> Any:
    return DRIVEN


@pytest.fixture
async def simulator() -> Simulator:
    return Simulator(clock=LoopClock())


@pytest.fixture
async def caller(environment: dict[str, str]) -> AsyncIterator[Caller]:
    async with connected(environment) as caller:
        yield caller
