"""The runs that a call waits for."""

from collections.abc import Iterable
from typing import Literal

from mcp_taskruns.core.model.run import RunStatus
from mcp_taskruns.core.runs.reading import Reading, describe_run
from mcp_taskruns.errors import CallError, NotVisibleYet

Until = Literal["all", "any"]

MAX_FAILED_READS = 5
"""Failed reads in a row after which a run that could be read before is given up."""

MAX_FAILED_FIRST_READS = 3
"""Failed reads in a row after which a run that could never be read is given up."""


class Watch:
    """The latest known status of several runs.

    Only a read proves a terminal status: events and failed reads never change one, and never set one. `is_started`:
    this call has started the runs, although the provider may not show it yet. `gives_up`: a run that cannot be read
    many times in a row is given up.

    Attributes:
        readings: the last reading of each run, by its id.
        failures: why the last read of a run failed, by its id; empty for runs whose last read succeeded.
    """

    def __init__(
        self, run_ids: Iterable[str], until: Until = "all", *, is_started: bool = False, gives_up: bool = True
    ) -> None:
        self.readings: dict[str, Reading | None] = dict.fromkeys(run_ids)
        self.failures: dict[str, CallError] = {}
        self._failed_reads: dict[str, int] = {}
        self._given_up: set[str] = set()
        self._until = until
        self._is_started = is_started
        self._gives_up = gives_up

    @property
    def only_run_id(self) -> str:
        """The id of the run if there is only one, else empty."""
        return next(iter(self.readings)) if len(self.readings) == 1 else ""

    def update(self, reading: Reading) -> bool:
        """Store what a read returned, and return whether it changes what is known about the run.

        Readings of other runs are ignored. A terminal status is kept, because a response may be older than the
        previous one.
        """
        if reading.run_id not in self.readings:
            return False
        self._failed_reads.pop(reading.run_id, None)
        self.failures.pop(reading.run_id, None)
        return self._store(reading)

    def note_event(self, reading: Reading) -> bool:
        """Store the status in an event, unless it is terminal; return whether it changes what is known.

        A provider may report the failure of an attempt like that of the run, so a terminal status has to be read.
        """
        if reading.run_id not in self.readings or reading.status.is_terminal:
            return False
        return self._store(reading)

    def _store(self, reading: Reading) -> bool:
        known = self.readings[reading.run_id]
        if known is not None and known.status.is_terminal:
            return False
        self.readings[reading.run_id] = reading
        return known is None or describe_run(reading) != describe_run(known)

    def fail(self, run_id: str, failure: CallError, *, is_final: bool = False) -> None:
        """Count a failed read of a run. `is_final`: no later read can succeed.

        A run that is not visible yet is never given up: that ends by itself.
        """
        self.failures[run_id] = failure
        count = self._failed_reads[run_id] = self.failed_reads(run_id) + 1
        limit = MAX_FAILED_FIRST_READS if self.readings[run_id] is None else MAX_FAILED_READS
        if is_final or (self._gives_up and count > limit and not isinstance(failure, NotVisibleYet)):
            self._given_up.add(run_id)

    def failed_reads(self, run_id: str) -> int:
        """Return the number of failed reads of a run since the last that succeeded."""
        return self._failed_reads.get(run_id, 0)

    def has_ended(self, run_id: str) -> bool:
        """Return whether the run has a terminal status."""
        reading = self.readings.get(run_id)
        return reading is not None and reading.status.is_terminal

    @property
    def active(self) -> list[str]:
        """The ids of the runs without a terminal status."""
        return [run_id for run_id in self.readings if not self.has_ended(run_id)]

    @property
    def pending(self) -> list[str]:
        """The ids of the runs that a further read may still change."""
        return [run_id for run_id in self.active if run_id not in self._given_up]

    @property
    def ended_count(self) -> int:
        """The number of runs with a terminal status."""
        return len(self.readings) - len(self.active)

    @property
    def is_done(self) -> bool:
        """Whether the runs that the call waits for have a terminal status."""
        return self.ended_count > 0 if self._until == "any" else not self.active

    @property
    def has_settled(self) -> bool:
        """Whether no run can change any more: all have ended, or all but those that cannot be read."""
        return self.ended_count > 0 and not self.pending

    @property
    def is_over(self) -> bool:
        """Whether waiting longer has no effect: the runs have ended, cannot be read, or wait for a call."""
        return self.is_done or not self.pending or self.awaits_start

    @property
    def is_known(self) -> bool:
        """Whether any run could be read."""
        return any(self.readings.values())

    @property
    def awaits_start(self) -> bool:
        """Whether no pending run can end before a call starts it."""
        if self._is_started:
            return False
        readings = [self.readings[run_id] for run_id in self.pending]
        return bool(readings) and all(reading and reading.status is RunStatus.NOT_STARTED for reading in readings)

    def statuses(self) -> dict[str, str]:
        """Return the status of each run whose status is known."""
        return {run_id: str(reading.status) for run_id, reading in self.readings.items() if reading is not None}


def describe_watch(watch: Watch) -> str:
    """Return the status of the runs as last read, in one line; empty if it is not known."""
    failed = ", the last read failed" if watch.failures else ""
    if len(watch.readings) > 1:
        return f"{watch.ended_count} of {len(watch.readings)} runs have ended{failed}"
    (reading,) = watch.readings.values()
    return "" if reading is None else f"{describe_run(reading)}{failed}"
