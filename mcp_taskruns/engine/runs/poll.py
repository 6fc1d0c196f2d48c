"""Read runs at intervals, earlier when their event stream suggests it, or by long polls."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from math import ceil, inf
from typing import Any

import anyio

from mcp_taskruns.core.model.run import Lifecycle
from mcp_taskruns.core.runs.polling import MAX_INTERVAL_S, poll_interval_s, run_age_s, with_long_poll
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
        end: when polling ends at the latest: no response is held back for longer.
    """

    def __init__(
        self, client: Client, lifecycle: Lifecycle, arguments: Mapping[str, Any], watch: Watch, notify: Notify
    ) -> None:
        self.watch = watch
        self.polls = 0
        self.blocking: CallError | None = None
        self.end = inf
        self._client = client
        self._lifecycle = lifecycle
        is_for_one = len(watch.readings) == 1  # the responses for others would be waited for
        self._long_poll = lifecycle.long_poll if lifecycle.stream is None and is_for_one else None
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
        return await self.read(due, self._held_seconds(due))

    def _held_seconds(self, run_ids: list[str]) -> int:
        """Return for how long the provider may hold back the response to a read of these runs; 0: not at all.

        A read after a failed one is an ordinary one, which shows whether long polls are the reason.
        """
        poll = self._long_poll
        if poll is None or self.watch.failures or any(self.watch.readings[run_id] is None for run_id in run_ids):
            return 0
        return int(max(min(poll.max_seconds, self.end - anyio.current_time()), 0))

    async def read(self, run_ids: list[str], held_seconds: int = 0) -> list[str]:
        """Read these runs once, and return a line about each that has changed or could not be read.

        The provider is asked to hold its response back for at most `held_seconds`.
        """
        if not run_ids:
            return []
        self.polls += 1
        self._last_read = anyio.current_time()
        lifecycle = self._lifecycle
        if held_seconds and self._long_poll is not None:
            timeout = self._client.settings.timeout
            lifecycle = with_long_poll(lifecycle, self._long_poll, held_seconds, timeout_s=timeout)
        known = {run_id for run_id in run_ids if self.watch.readings[run_id] is not None}
        try:
            outcomes = await read_runs(
                self._client, lifecycle, self._arguments, run_ids, known=known, notify=self._notify
            )
        except CallError as exc:
            self.blocking = exc
            return [exc.message]
        lines = [self._take(run_id, outcome) for run_id, outcome in outcomes.items()]
        previous_round = self._finish_round(held_seconds)
        if set(self.watch.pending) <= set(run_ids):
            self._next_round = previous_round + self._interval()
        return [line for line in lines if line]

    def _finish_round(self, held_seconds: int) -> float:
        """Return when the interval until the next round of reads has begun.

        A long poll follows the first read at once. It counts from its beginning, so that another one follows it at
        once, except where the provider has responded at once.
        """
        now = anyio.current_time()
        if self._long_poll is None or self.watch.failures:
            return now
        if held_seconds:
            began, self._last_read = self._last_read, now  # the response shows the status at the end of the read
            return began
        return -inf if self.polls == 1 else now

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
