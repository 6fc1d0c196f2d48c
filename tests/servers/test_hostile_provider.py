"""A hostile provider does not stop the server for its other clients. `tests/stress.py` tries all responses."""

import anyio
import pytest

from tests.stress import MAX_MEMORY_MB, stress
from tests.timing import PATIENCE, scaled

pytestmark = [pytest.mark.anyio, pytest.mark.load]

NAMES = [
    "field repeated before each message",
    "lines of lone surrogates",
    "one long line",
    "deep and wide",
    "as many objects as allowed",
    "integers of 4,200 digits",
    "gzip bomb",
    "event of many lines",
]


async def test_health_is_read_and_memory_is_bounded_while_a_provider_is_hostile() -> None:
    with anyio.fail_after(2 * PATIENCE):
        outcome = await stress(NAMES)
    assert set(outcome.texts) == set(NAMES)
    assert all(len(text) < 60_000 for text in outcome.texts.values())
    assert outcome.longest_gap_s < scaled(0.5)
    assert outcome.memory_mb < MAX_MEMORY_MB
