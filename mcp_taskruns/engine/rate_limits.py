"""The limits of a provider that all calls of the process share: requests in flight, and requests in a period."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from math import ceil

import anyio

from mcp_taskruns.core.model.limits import Limits, Rate, RequestKind
from mcp_taskruns.engine.progress import NOTICE_SECONDS, Notify, delay_text
from mcp_taskruns.errors import UpstreamError

MAX_REQUESTS = 100
"""Requests to one provider at a time, where its overlay sets no limit."""

MAX_STREAMS = 400
"""Event streams of one provider at a time. They are counted apart, so that runs can always be read too."""

MAX_HOLD_SECONDS = 60.0
"""The longest pause after a 429 of a provider: other calls may be accepted sooner."""

MIN_RESPONSE_SECONDS = 5.0
"""A request is sent only if so much time is left for its response: otherwise its outcome would be unknown."""


class Slot(Enum):
    """What a request occupies while it is in flight; NONE: it takes over the slot of an earlier one."""

    REQUEST = "request"
    STREAM = "stream"
    NONE = "none"


class RateLimiter:
    """The limits of one provider, shared by all calls of the process.

    A rate is a bucket with one token per allowed request. A token returns one period after it was taken: so no period
    has more requests than allowed.
    """

    def __init__(self, provider: str, limits: Limits, *, has_rates: bool) -> None:
        self.limits = limits
        self._provider = provider
        self._slots = {
            Slot.REQUEST: anyio.Semaphore(limits.max_concurrent_requests or MAX_REQUESTS, fast_acquire=True),
            Slot.STREAM: anyio.Semaphore(MAX_STREAMS, fast_acquire=True),
        }
        buckets = [_Bucket(rate) for rate in limits.rates] if has_rates else []
        self._buckets = {kind: [one for one in buckets if kind in one.rate.kinds] for kind in RequestKind}
        self._held_until = dict.fromkeys(RequestKind, 0.0)
        self._streams_held_until = 0.0
        self._queues = self._make_queues(buckets)
        self._queue_moved = anyio.Event()

    @staticmethod
    def _make_queues(buckets: list["_Bucket"]) -> dict[RequestKind, list[object]]:
        """Make one queue for each kind, or one for both where they share a bucket."""
        if any(len(bucket.rate.kinds) > 1 for bucket in buckets):
            shared: list[object] = []
            return dict.fromkeys(RequestKind, shared)
        return {kind: [] for kind in RequestKind}

    @asynccontextmanager
    async def slot(self, slot: Slot, *, deadline: float, notify: Notify) -> AsyncIterator[None]:
        """Occupy a slot while the block runs. Raises UpstreamError when none becomes free before the deadline."""
        if slot is Slot.NONE:
            yield
            return
        slots = self._slots[slot]
        if slots.value:
            slots.acquire_nowait()
        else:
            await notify(f"waiting for {self._provider}: too many calls are in flight")
            await self._wait_for_slot(slots, deadline)
        try:
            yield
        finally:
            slots.release()

    async def _wait_for_slot(self, slots: anyio.Semaphore, deadline: float) -> None:
        with anyio.move_on_at(deadline) as scope:
            await slots.acquire()
        if scope.cancelled_caught:
            raise UpstreamError(
                f"too many calls to {self._provider} are in flight",
                kind="rate_limited",
                hint="Nothing was sent. Try again when other calls have finished.",
                retryable=True,
            )

    async def take_token(self, kind: RequestKind, *, deadline: float, notify: Notify, is_stream: bool = False) -> None:
        """Wait until the rate limits allow one more request. `is_stream`: it opens an event stream.

        Raises UpstreamError when it would be sent too late for a response before the deadline.
        """
        now = anyio.current_time()
        queue = self._queues[kind]
        if self._allowed_at(kind, now, len(queue), is_stream=is_stream) <= now:
            self._take(kind, now)
            return
        place = object()
        queue.append(place)
        notify_at = now
        try:
            while (allowed_at := self._allowed_at(kind, now, queue.index(place), is_stream=is_stream)) > now:
                if allowed_at > deadline - MIN_RESPONSE_SECONDS:
                    raise self._rate_limited(allowed_at - now)
                if now >= notify_at:
                    await notify(f"waiting for {self._provider}'s rate limit: sending {delay_text(allowed_at - now)}")
                    notify_at = now + NOTICE_SECONDS
                with anyio.move_on_at(min(allowed_at, notify_at)):
                    await self._queue_moved.wait()
                now = anyio.current_time()
            self._take(kind, now)
        finally:
            queue.remove(place)
            self._queue_moved.set()  # later requests may now be allowed sooner
            self._queue_moved = anyio.Event()

    def _allowed_at(self, kind: RequestKind, now: float, ahead: int, *, is_stream: bool) -> float:
        free_at = (bucket.free_at(now, ahead) for bucket in self._buckets[kind])
        return max(self._held_until[kind], self._streams_held_until if is_stream else now, *free_at, now)

    def _take(self, kind: RequestKind, now: float) -> None:
        for bucket in self._buckets[kind]:
            bucket.take(now)

    def _rate_limited(self, seconds: float) -> UpstreamError:
        return UpstreamError(
            f"{self._provider}'s rate limit allows no more calls of this kind for {ceil(seconds)} s",
            kind="rate_limited",
            hint="Nothing was sent. Wait, or make fewer calls.",
            retryable=True,
            retry_after_s=round(seconds, 1),
        )

    def hold(self, kind: RequestKind, seconds: float, *, is_stream: bool = False) -> None:
        """Send no requests of this kind for a while: the provider returned 429.

        After one for an event stream, only streams are held up: providers often limit how many are open.
        """
        until = anyio.current_time() + min(seconds, MAX_HOLD_SECONDS)
        if is_stream:
            self._streams_held_until = max(self._streams_held_until, until)
        else:
            self._held_until[kind] = max(self._held_until[kind], until)


class _Bucket:
    """The tokens of one rate, recorded as the times at which they were taken."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._taken: deque[float] = deque(maxlen=rate.requests)

    def free_at(self, now: float, ahead: int) -> float:
        """Return when a token is free for a request that has `ahead` others before it."""
        missing = ahead + len(self._taken) - self.rate.requests
        if missing < 0:
            return now
        rounds, place = divmod(missing, self.rate.requests)
        taken_at = self._taken[place] if place < len(self._taken) else now
        return taken_at + self.rate.per_seconds * (rounds + 1)

    def take(self, at: float) -> None:
        """Take a free token."""
        self._taken.append(at)
