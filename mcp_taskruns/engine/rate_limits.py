"""How much one provider is asked by this process: so much at once, and so often."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import ceil

import anyio

from mcp_taskruns.core.model.limits import ALL_REQUESTS, Limits, Rate, RequestKind
from mcp_taskruns.errors import UpstreamError

Tell = Callable[[str], Awaitable[None]]
"""Takes a line for whoever watches the call."""

MAX_AT_ONCE = 100
"""Requests to one provider at once: as many connections as it gets."""

MAX_STREAMS = 400
"""Streams from one provider at once. They have a place of their own, so that there is one for asking how a run is."""

MAX_HOLD_SECONDS = 60.0
"""A provider that refuses one call for longer may take others sooner."""

ANSWER_SECONDS = 5.0
"""Nobody would know what became of a call that is sent and given up a moment later: so much time is for the answer."""

TOLD_EVERY_SECONDS = 9.0
"""Hosts give up on calls that are silent."""


async def silent(_: str) -> None:
    """Tell nobody."""


async def pause(seconds: float, reason: str, tell: Tell) -> None:
    """Let time pass, and tell why and for how long still."""
    end = anyio.current_time() + seconds
    while (left := end - anyio.current_time()) > 0:
        await tell(f"{reason} {_in_time(left)}")
        await anyio.sleep(min(left, TOLD_EVERY_SECONDS))


def _in_time(seconds: float) -> str:
    return f"in {ceil(seconds)} s" if seconds >= 1 else "in a moment"


class Throttle:
    """The limits of one provider, shared by all calls of the process.

    A rate is a bucket of as many tokens as calls are allowed; each comes back so many seconds after it was taken, so
    that in no such time there are more calls than allowed.
    """

    def __init__(self, provider: str, limits: Limits, *, has_rates: bool) -> None:
        self.limits = limits
        self._provider = provider
        self._places = anyio.Semaphore(limits.max_concurrent_requests or MAX_AT_ONCE, fast_acquire=True)
        self._streams = anyio.Semaphore(MAX_STREAMS, fast_acquire=True)
        self._buckets = [_Bucket(rate) for rate in limits.rates] if has_rates else []
        self._held_until = {True: 0.0, False: 0.0}
        both: list[object] = []
        is_shared = any(bucket.rate.kinds == ALL_REQUESTS for bucket in self._buckets)
        self._queues = {True: both, False: both if is_shared else []}
        self._left = anyio.Event()

    @asynccontextmanager
    async def place(self, *, is_stream: bool, deadline: float, tell: Tell) -> AsyncIterator[None]:
        """A place among the requests under way. Raises UpstreamError when none becomes free before the deadline."""
        places = self._streams if is_stream else self._places
        if places.value:
            places.acquire_nowait()
        else:
            await tell(f"waiting for {self._provider}: too many calls are under way already")
            await self._wait_for_place(places, deadline)
        try:
            yield
        finally:
            places.release()

    async def _wait_for_place(self, places: anyio.Semaphore, deadline: float) -> None:
        with anyio.move_on_at(deadline) as bound:
            await places.acquire()
        if bound.cancelled_caught:
            raise UpstreamError(
                f"too many calls to {self._provider} are under way already",
                kind="rate_limited",
                hint="Nothing was sent: try again when others have ended.",
                retryable=True,
            )

    async def turn(self, *, reads: bool, deadline: float, tell: Tell) -> None:
        """Wait until the provider takes one more. Raises UpstreamError where no time would be left for its answer."""
        now = anyio.current_time()
        queue = self._queues[reads]
        if self._turn_at(reads, now, len(queue)) <= now:
            self._take(reads, now)
            return
        place = object()
        queue.append(place)
        tell_at = now
        try:
            while (at := self._turn_at(reads, now, queue.index(place))) > now:
                if at > deadline - ANSWER_SECONDS:
                    raise self._refusal(at - now)
                if now >= tell_at:
                    await tell(f"waiting for {self._provider}'s rate limit: on {_in_time(at - now)}")
                    tell_at = now + TOLD_EVERY_SECONDS
                with anyio.move_on_at(min(at, tell_at)):
                    await self._left.wait()
                now = anyio.current_time()
            self._take(reads, now)
        finally:
            queue.remove(place)
            self._left.set()  # who is behind may come earlier
            self._left = anyio.Event()

    def _turn_at(self, reads: bool, now: float, ahead: int) -> float:
        return max(self._held_until[reads], *(bucket.free_at(now, ahead) for bucket in self._of(reads)), now)

    def _take(self, reads: bool, now: float) -> None:
        for bucket in self._of(reads):
            bucket.take(now)

    def _of(self, reads: bool) -> list["_Bucket"]:
        kind = RequestKind.READ if reads else RequestKind.WRITE
        return [bucket for bucket in self._buckets if kind in bucket.rate.kinds]

    def _refusal(self, seconds: float) -> UpstreamError:
        return UpstreamError(
            f"{self._provider} takes no more calls of this kind for {ceil(seconds)} s",
            kind="rate_limited",
            hint="Nothing was sent, because this server keeps to the provider's rate: wait, or make fewer calls.",
            retryable=True,
            retry_after_s=round(seconds, 1),
        )

    def hold(self, *, reads: bool, seconds: float) -> None:
        """The provider has refused a call and takes none of this kind for a while."""
        until = anyio.current_time() + min(seconds, MAX_HOLD_SECONDS)
        self._held_until[reads] = max(self._held_until[reads], until)


class _Bucket:
    """The tokens of one rate, by the moments at which they were taken."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._taken: deque[float] = deque(maxlen=rate.requests)

    def free_at(self, now: float, ahead: int) -> float:
        """When there is a token for one more, after so many others who wait."""
        missing = ahead + len(self._taken) - self.rate.requests
        if missing < 0:
            return now
        turns, place = divmod(missing, self.rate.requests)
        taken = self._taken[place] if place < len(self._taken) else now
        return taken + self.rate.per_seconds * (turns + 1)

    def take(self, at: float) -> None:
        """Take a token that is free."""
        self._taken.append(at)
