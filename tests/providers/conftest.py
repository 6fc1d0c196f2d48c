"""A client of a server for the simulated providers."""

from collections.abc import AsyncIterator

import pytest

from tests.providers.driver import Caller, connected


@pytest.fixture
async def caller(environment: dict[str, str]) -> AsyncIterator[Caller]:
    """A client of a server that uses the simulated providers."""
    async with connected(environment) as caller:
        yield caller
