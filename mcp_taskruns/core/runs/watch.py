"""The runs that a call waits for."""

from collections.abc import Iterable
from typing import Literal

from mcp_taskruns.core.model.run import RunStatus
from mcp_taskruns.core.runs.reading import Reading, describe_run

Until = Literal["all", "any"]


class Watch:
    """The latest known status of several runs.

    It is done when all runs have a terminal status, or with `until="any"` when one has.
    """

    def __init__(self, run_ids: Iterable[str], until: Until = "all") -> None:
        self.readings: dict[str, Reading | None] = dict.fromkeys(run_ids)
        self._until = until

    @property
    def only_run_id(self) -> str:
        """The id of the run if there is only one, else empty."""
        return next(iter(self.readings)) if len(self.readings) == 1 else ""

    def update(self, reading: Reading, *, may_resume: bool = False) -> bool:
        """Store a reading and return whether it changes what is known about the run.

        Readings of other runs are ignored. A terminal status is kept, because a response may be older than the
        previous one. With `may_resume` the reading is known to be newer, and may show that the run continues.
        """
        known = self.readings.get(reading.run_id)
        has_ended = known is not None and known.status.is_terminal
        if reading.run_id not in self.readings or (has_ended and (reading.status.is_terminal or not may_resume)):
            return False
        self.readings[reading.run_id] = reading
        return known is None or describe_run(reading) != describe_run(known)

    def has_ended(self, run_id: str) -> bool:
        """Return whether the run has a terminal status."""
        reading = self.readings.get(run_id)
        return reading is not None and reading.status.is_terminal

    @property
    def pending(self) -> list[str]:
        """The ids of the runs without a terminal status."""
        return [run_id for run_id in self.readings if not self.has_ended(run_id)]

    @property
    def ended_count(self) -> int:
        """The number of runs with a terminal status."""
        return len(self.readings) - len(self.pending)

    @property
    def is_done(self) -> bool:
        """Whether waiting can stop."""
        return self.ended_count > 0 if self._until == "any" else not self.pending

    @property
    def awaits_start(self) -> bool:
        """Whether no pending run can end before a call starts it."""
        readings = [self.readings[run_id] for run_id in self.pending]
        return bool(readings) and all(reading and reading.status is RunStatus.NOT_STARTED for reading in readings)

    def statuses(self) -> dict[str, str]:
        """Return the status of each run whose status is known."""
        return {run_id: str(reading.status) for run_id, reading in self.readings.items() if reading is not None}
