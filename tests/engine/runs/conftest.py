"""Fixtures of the tests of runs."""

import random

import pytest


@pytest.fixture
def longest_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each random backoff as long as possible."""
    monkeypatch.setattr(random, "uniform", lambda _, high: high)
