"""The time bounds of the tests, scaled by one factor.

A bound guards against hanging. Tests wait for events; a bound only ends a wait that would never end. Set
`TEST_TIME_SCALE` to a number greater than 1 on a machine that is slower or busier than usual.
"""

import os

SCALE = float(os.environ.get("TEST_TIME_SCALE", "1"))

PATIENCE = 120 * SCALE
"""Seconds after which a wait for an event fails."""

TEST_TIMEOUT = 4 * PATIENCE
"""Seconds after which pytest-timeout ends a test."""


def scaled(seconds: float) -> float:
    """Return a bound that is part of what is tested, with allowance for a machine that is eight times slower."""
    return 8 * seconds * SCALE
