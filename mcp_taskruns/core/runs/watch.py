"""The runs that a call waits for, and when to read them again."""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from mcp_taskruns.core.model.run import Lifecycle
from mcp_taskruns.core.model.timestamps import parse_timestamp
from mcp_taskruns.core.runs.reading import Reading, describe_run

Until = Literal["all", "any"]


MAX_INTERVAL_S = 30.0
"""However old a run is, it is asked for at least this often."""


AGE_PER_INTERVAL = 20
"""A run is asked for again after a twentieth of its age: the end of an old one is not urgent to the second."""


class Watch:
    """The runs that somebody waits for, and what is known of each; over when all, or `any`, of them have ended."""

    def __init__(self, run_ids: Iterable[str], until: Until = "all") -> None:
        self.readings: dict[str, Reading | None] = dict.fromkeys(run_ids)
        self._until = until

    @property
    def only_run_id(self) -> str:
        """The one run that is watched; empty when there are several."""
        return next(iter(self.readings)) if len(self.readings) == 1 else ""

    def update(self, reading: Reading, *, may_resume: bool = False) -> bool:
        """Take in what was read; whether it is news. Of a run that is not watched, and of one that has ended, none is.

        A run that has ended stays so, for an answer may be older than the last; `may_resume`: but this one is not, and
        the run goes on again.
        """
        known = self.readings.get(reading.run_id)
        has_ended = known is not None and known.status.is_terminal
        if reading.run_id not in self.readings or (has_ended and (reading.status.is_terminal or not may_resume)):
            return False
        self.readings[reading.run_id] = reading
        return known is None or describe_run(reading) != describe_run(known)

    def has_ended(self, run_id: str) -> bool:
        """Whether this run is known to have ended."""
        reading = self.readings.get(run_id)
        return reading is not None and reading.status.is_terminal

    @property
    def pending(self) -> list[str]:
        """The runs that are not known to have ended."""
        return [run_id for run_id in self.readings if not self.has_ended(run_id)]

    @property
    def ended_count(self) -> int:
        """How many of them have ended."""
        return len(self.readings) - len(self.pending)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.ended_count > 0 if self._until == "any" else not self.pending

    def statuses(self) -> dict[str, str]:
        """The state of each run of which one is known."""
        return {run_id: str(reading.status) for run_id, reading in self.readings.items() if reading is not None}


def poll_interval_s(lifecycle: Lifecycle, age_s: float) -> float:
    """The seconds after which to ask for a run again that began `age_s` ago."""
    return max(lifecycle.poll_seconds, min(age_s / AGE_PER_INTERVAL, MAX_INTERVAL_S))


def run_age_s(reading: Reading, now: datetime) -> float:
    """The seconds since a run began, by the provider's own word; 0 where it does not say."""
    began = parse_timestamp(reading.started)
    return 0.0 if began is None else max((now - began).total_seconds(), 0.0)
