"""Fixtures: the simulated PostHog as an app, and a client of it."""

from collections.abc import AsyncIterator

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from mcp_taskruns.simulator.lifecycle import ManualClock
from mcp_taskruns.simulator.posthog.app import PostHog
from tests.simulator.posthog.driver import KEY
from tests.timing import PATIENCE


@pytest.fixture
def posthog(clock: ManualClock) -> PostHog:
    posthog = PostHog(clock)
    posthog.project.marks_stream_ends = False  # most tests compare the events of the run alone
    return posthog


@pytest.fixture
def app(posthog: PostHog) -> Starlette:
    return Starlette(routes=[Mount("/posthog", routes=posthog.routes())])


@pytest.fixture
async def client(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    with anyio.fail_after(PATIENCE):
        async with httpx.AsyncClient(transport=transport, base_url="http://simulator", headers=KEY) as client:
            yield client
