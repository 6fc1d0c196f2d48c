"""Work on large values in a thread, so that the event loop goes on."""

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread

MAX_INLINE = 128_000
"""Bytes or characters that are worked on without a thread: in the worst case they take less than 0.1 s."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Worker:
    """Runs functions on large values in a thread, one at a time.

    Python code in a thread lets the event loop run every few milliseconds. A call of C code may not, so everything
    that parses or serializes has a bound (`core.model.json`). One at a time bounds the memory too.
    """

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(1)

    async def run(
        self, size: int, work: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        """Call `work`, in a thread if `size`, the bytes or characters it works on, is large."""
        if size <= MAX_INLINE:
            return work(*args, **kwargs)
        return await anyio.to_thread.run_sync(partial(work, *args, **kwargs), limiter=self._limiter)
