"""Fixtures of all tests."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace

import pytest
import uvicorn.server

from mcp_taskruns.settings import PREFIX
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.lifecycle import ManualClock
from mcp_taskruns.simulator.server import serve


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the machine's own settings, keys or proxies."""
    endings = ("_BASE_URL", "_API_KEY", "_API_SECRET", "_SIGNING_KEY", "_PROXY", "_proxy", "POSTHOG_HOST")
    for name in list(os.environ):
        if name.startswith(PREFIX) or name.endswith(endings) or name == "POSTHOG_PROJECT_ID":
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True, scope="session")
def _quick_servers() -> Iterator[None]:
    """uvicorn looks every tenth of a second whether to stop, and thousands of its servers are stopped here."""

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.005))  # uvicorn's own sleep, and no test's

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.server, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
        yield


@pytest.fixture
def simulator() -> Simulator:
    """Simulated providers whose time stands still until a test moves it."""
    return Simulator(clock=ManualClock())


@pytest.fixture
async def environment(simulator: Simulator) -> AsyncIterator[dict[str, str]]:
    """The environment that points the server at those providers, while they listen."""
    async with serve(simulator) as origin:
        yield simulator.environment(origin)
