"""Fixtures shared by all tests."""

import os
from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import Any

import httpx
import pytest

from mcp_taskruns.settings import PREFIX
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.lifecycle import ManualClock
from mcp_taskruns.simulator.server import serve
from tests.clock import DRIVEN, LoopClock
from tests.timing import TEST_TIMEOUT

# Each client of a test would load the CA certificates of the machine, which takes longer than most tests.
httpx._transports.default.create_ssl_context = cache(httpx.create_ssl_context)  # type: ignore[attr-defined]  # not exported


def pytest_configure(config: pytest.Config) -> None:
    """Measure the coverage of the processes that run tests, but not of the servers that tests start."""
    if hasattr(config, "workerinput"):
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test the time bound of pytest-timeout."""
    for item in items:
        item.add_marker(pytest.mark.timeout(TEST_TIMEOUT))


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """asyncio; on a clock that the test drives if the test is marked `driven_clock`."""
    return DRIVEN if request.node.get_closest_marker("driven_clock") else "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """Hide the settings, credentials and proxies of the machine, also from fixtures that several tests share."""
    endings = ("_API_URL", "_BASE_URL", "_KEY", "_SECRET", "_TOKEN", "_PASSWORD", "_PROXY", "_proxy", "POSTHOG_HOST")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(PREFIX) or name.endswith(endings) or name == "POSTHOG_PROJECT_ID":
                patch.delenv(name)
        yield


@pytest.fixture
async def simulator(request: pytest.FixtureRequest) -> Simulator:
    """Simulated providers; their time moves only when the test moves it."""
    return Simulator(clock=LoopClock() if request.node.get_closest_marker("driven_clock") else ManualClock())


@pytest.fixture
async def environment(simulator: Simulator) -> AsyncIterator[dict[str, str]]:
    """Serve the simulated providers; return the environment that points our server at them."""
    async with serve(simulator) as origin:
        yield simulator.environment(origin)
