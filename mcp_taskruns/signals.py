"""Handling of SIGINT and SIGTERM."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import anyio

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def cancel_on_signal() -> Iterator[anyio.CancelScope]:
    """Cancel the block on SIGINT and SIGTERM; further signals have no effect while it ends."""
    with anyio.CancelScope() as scope, call_on_signal(lambda _: scope.cancel()):
        yield scope


@contextmanager
def call_on_signal(callback: Callable[[int], None]) -> Iterator[None]:
    """Call a function on the event loop, with the signal's number, for each SIGINT and SIGTERM in the block."""
    loop = asyncio.get_running_loop()

    def handle(number: int, _: object) -> None:
        with suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(callback, number)

    previous = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
