"""Fixtures of all tests."""

import os

import pytest

from mcp_taskruns.settings import PREFIX


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
