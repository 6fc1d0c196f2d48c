"""Read runs at intervals, and earlier when their event stream suggests it."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from math import ceil, inf
from typing import Any

import anyio

from mcp_taskruns.core.model.run import Lifecycle
from mcp_taskruns.core.runs.polling import MAX_INTERVAL_S, poll_interval_s, run_age_s
from mcp_taskruns.core.runs.reading import Reading, describe_run
from mcp_taskruns.core.runs.watch import Watch
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.progress import Notify, delay_text
from mcp_taskruns.engine.runs.read import MAX_CONCURRENT_READS, read_runs
from mcp_taskruns.errors import CallError, Kind

MIN_SECONDS = 0.5
"""The time between two reads, however many events ask for one."""

FINAL: frozenset[Kind] = frozenset({"validation", "not_found", "unsupported", "conflict", "usage_limit"})
"""Kinds of failures after which no later read can succeed, unless an earlier one did."""


class RunPoller:
    """Reads the pending runs of a watch.

    Attributes:
        watch: the runs.
        polls: how often they were read.
        blocking: the failure of a read that concerns every further one; None as long as there was none.
    """

    def __init__(
        self, client: Client, lifecycle: Lifecycle, arguments: Mapping[str, Any], watch: Watch, notify: Notify
    ) -> None:
        self.watch = watch
        self.polls = 0
        self.blocking: CallError | None = None
        self._client = client
        self._lifecycle = lifecycle
        self._arguments = arguments
        self._notify = notify
        self._due: set[str] = set()
        self._is_due = anyio.Event()
        self._next_round = self._not_before = self._last_read = -inf

    @property
    def is_over(self) -> bool:
        """Whether reading again has no effect."""
        return self.blocking is not None or self.watch.is_over

    @property
    def may_read_again(self) -> bool:
        """Whether a read now may return something newer than the last one."""
        return anyio.current_time() >= max(self._last_read + self._lifecycle.poll_seconds, self._not_before)

    def read_soon(self, run_ids: Iterable[str]) -> None:
        """Bring the next read of these runs forward."""
        self._due.update(run_ids)
        self._is_due.set()

    async def poll(self) -> list[str]:
        """Read the runs that are due next, as soon as they are; see `read`."""
        with anyio.move_on_at(self._next_round) as interval:
            await self._is_due.wait()
        await anyio.sleep_until(max(self._not_before, self._last_read + MIN_SECONDS))
        pending = self.watch.pending
        due = pending if interval.cancelled_caught else [run_id for run_id in pending if run_id in self._due]
        self._due, self._is_due = set(), anyio.Event()
        return await self.read(due)

    async def read(self, run_ids: list[str]) -> list[str]:
        """Read these runs once, and return a line about each that has changed or could not be read."""
        if not run_ids:
            return []
        self.polls += 1
        self._last_read = anyio.current_time()
        known = {run_id for run_id in run_ids if self.watch.readings[run_id] is not None}
        try:
            outcomes = await read_runs(
                self._client, self._lifecycle, self._arguments, run_ids, known=known, notify=self._notify
            )
        except CallError as exc:
            self.blocking = exc
            return [exc.message]
        lines = [self._take(run_id, outcome) for run_id, outcome in outcomes.items()]
        if set(self.watch.pending) <= set(run_ids):
            self._next_round = anyio.current_time() + self._interval()
        return [line for line in lines if line]

    def _take(self, run_id: str, outcome: Reading | CallError) -> str:
        """Take the outcome of a read, and return a line about what is new; empty if nothing is."""
        if isinstance(outcome, Reading):
            return describe_run(outcome) if self.watch.update(outcome) else ""
        was_read = self.watch.readings[run_id] is not None
        is_lasting = outcome.kind in FINAL and not (outcome.retryable or outcome.is_foreign or was_read)
        is_final = is_lasting or outcome.kind == "auth"  # a 403 for one of several runs
        self.watch.fail(run_id, outcome, is_final=is_final)
        now = anyio.current_time()
        if outcome.retry_after_s:
            self._not_before = max(self._not_before, now + outcome.retry_after_s)
        if run_id not in self.watch.pending:
            return f"{run_id}: {outcome.message}"
        delay = max(self._interval(), self._not_before - now)
        return f"{outcome.message.removesuffix('.')}; reading again {delay_text(delay)}"

    def _interval(self) -> float:
        """Return the seconds between two rounds of reads.

        It grows with the age of the youngest run, with the number of runs, and with failures in a row.
        """
        pending = self.watch.pending
        now = datetime.now(UTC)
        readings = [reading for run_id in pending if (reading := self.watch.readings[run_id])]
        ages = [run_age_s(reading, now) for reading in readings]
        interval = poll_interval_s(self._lifecycle, min(ages, default=0.0)) * ceil(len(pending) / MAX_CONCURRENT_READS)
        failures = max(map(self.watch.failed_reads, pending), default=0)
        backoff = min(2.0 ** (failures - 1), MAX_INTERVAL_S) if failures else 0.0
        return backoff if failures and not readings else max(interval, backoff)
