"""Garbage collection while the server starts."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def pause_collection() -> Iterator[None]:
    """Collect no garbage in the block, and exempt what exists at its end from all later collections.

    Modules and tools stay until the process ends. Each full collection would visit all of them and stop the event loop
    meanwhile. The documentation of `gc.freeze` recommends this order.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
