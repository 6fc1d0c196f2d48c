"""The runs that this process started a moment ago, about which a provider may still return something older."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import anyio

from mcp_taskruns.core.model.timestamps import parse_timestamp
from mcp_taskruns.core.runs.reading import Reading
from mcp_taskruns.errors import NotVisibleYet

GRACE_SECONDS = 15.0
"""How long after a start a read replica of a provider may lag behind."""

MAX_STARTS = 1_000
"""Starts that are remembered."""

HINT = "The run was started a moment ago, so it may not be visible yet: read it again in a few seconds."


@dataclass(frozen=True)
class _Start:
    expires_at: float
    started_at: datetime
    is_new: bool


class RecentStarts:
    """The starts of the last `GRACE_SECONDS`."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._starts: dict[tuple[str, str], _Start] = {}

    def add(self, provider: str, run_id: str, *, is_new: bool) -> None:
        """Remember a start. `is_new`: the run did not exist before, so that it cannot have ended before."""
        known = self._find(provider, run_id)
        is_new = is_new or (known is not None and known.is_new)
        while len(self._starts) >= MAX_STARTS:
            del self._starts[next(iter(self._starts))]
        self._starts[provider, run_id.lower()] = _Start(anyio.current_time() + GRACE_SECONDS, self._now(), is_new)

    def is_recent(self, provider: str, run_id: str) -> bool:
        """Return whether the run was started so recently that the provider may not find it yet."""
        return self._find(provider, run_id) is not None

    def check(self, provider: str, reading: Reading) -> None:
        """Raise NotVisibleYet for a terminal status from before the start.

        A run that existed before its start, because the start resumed it, has ended only if the provider reports a
        later time for that.
        """
        start = self._find(provider, reading.run_id)
        if start is None or start.is_new or not reading.status.is_terminal:
            return
        ended = parse_timestamp(reading.ended)
        if ended is None or ended < start.started_at:
            raise NotVisibleYet(
                f"{provider} still returns the status from before the start of run {reading.run_id}: {reading.status}",
                hint=HINT,
                retryable=True,
            )

    def _find(self, provider: str, run_id: str) -> _Start | None:
        start = self._starts.get((provider, run_id.lower()))
        return start if start is not None and anyio.current_time() < start.expires_at else None
