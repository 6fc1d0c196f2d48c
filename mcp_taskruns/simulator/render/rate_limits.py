"""Render's rate limits and the headers that report them."""

import math

from starlette.requests import Request

from mcp_taskruns.simulator.lifecycle import Clock


class RateLimits:
    """Counts reads and writes per minute of the simulated clock.

    Render documents `Ratelimit-Reset` as seconds since the epoch (`resets_at_epoch`), but the example in the same
    documentation shows seconds from now.
    """

    def __init__(
        self, clock: Clock, *, reads_per_minute: int | None, writes_per_minute: int | None, resets_at_epoch: bool
    ) -> None:
        self._clock = clock
        self._limits = {"read": reads_per_minute, "write": writes_per_minute}
        self._resets_at_epoch = resets_at_epoch
        # The minute of the last request and the number of requests in it.
        self._counts: dict[str, tuple[float, int]] = {}

    def count(self, request: Request) -> tuple[bool, dict[str, str]]:
        """Count a request. Return whether it exceeds the limit, and the response headers that report the limit."""
        kind = "read" if request.method in ("GET", "HEAD") else "write"
        limit = self._limits[kind]
        if limit is None:
            return False, {}
        now = self._clock.now()
        minute = now // 60
        last_minute, count = self._counts.get(kind, (minute, 0))
        count = count + 1 if last_minute == minute else 1
        self._counts[kind] = (minute, count)
        next_minute = (minute + 1) * 60
        reset = self._clock.datetime_at(next_minute).timestamp() if self._resets_at_epoch else next_minute - now
        return count > limit, {
            "Ratelimit-Limit": str(limit),
            "Ratelimit-Remaining": str(max(limit - count, 0)),
            "Ratelimit-Reset": str(math.ceil(reset)),
        }
