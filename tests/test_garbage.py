"""Garbage collection while the server starts."""

import gc
from collections.abc import Iterator

import pytest

from mcp_taskruns.garbage import pause_collection


@pytest.fixture(autouse=True)
def _unfreeze() -> Iterator[None]:
    """Let the collector visit the objects of other tests again."""
    yield
    gc.unfreeze()


def test_collects_nothing_in_the_block() -> None:
    generations: list[int] = []

    def record(_: str, info: dict[str, int]) -> None:
        generations.append(info["generation"])

    gc.callbacks.append(record)
    try:
        with pause_collection():
            kept = [[number] for number in range(100_000)]
            assert generations == []
    finally:
        gc.callbacks.remove(record)
    assert len(kept) == 100_000


def test_exempts_what_the_block_created_from_later_collections() -> None:
    with pause_collection():
        kept = [[number] for number in range(1000)]
    assert gc.get_freeze_count() >= len(kept)
    assert gc.isenabled()
    assert all(one is not kept for one in gc.get_objects())


def test_collects_again_after_an_exception() -> None:
    with pytest.raises(SystemExit), pause_collection():
        raise SystemExit
    assert gc.isenabled()
