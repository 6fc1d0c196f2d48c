"""Wait for runs: read their status first, then follow their event stream or poll."""

from collections.abc import Iterable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from math import inf
from typing import Any

import anyio

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.sse import Event
from mcp_taskruns.core.model.json import parse_or_text
from mcp_taskruns.core.model.operation import EventFormat
from mcp_taskruns.core.model.run import Lifecycle, RunStream
from mcp_taskruns.core.runs.events import describe_event
from mcp_taskruns.core.runs.polling import poll_interval_s, run_age_s
from mcp_taskruns.core.runs.reading import Reading, describe_run, run_in_event
from mcp_taskruns.core.runs.results import status_line, wait_result
from mcp_taskruns.core.runs.watch import Until, Watch
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.progress import ProgressReporter
from mcp_taskruns.engine.runs.read import read_runs
from mcp_taskruns.errors import CallError, UpstreamError

MAX_FAILURES = 5
"""Failed reads in a row after which a wait gives up."""

MAX_STREAMS = 3
"""Event streams in a row without an event after which polling takes over."""

LAST_SECONDS = 5.0
"""How long a final read may take beyond the time of the call, and how long a stream may take to open."""

ALMOST_DONE = 0.99
"""The progress of a run that reports 100 % and has no terminal status."""


async def wait_for_runs(
    client: Client,
    lifecycle: Lifecycle,
    arguments: Mapping[str, Any],
    run_ids: Iterable[str],
    reporter: ProgressReporter,
    *,
    seconds: float,
    until: Until = "all",
    several: bool = False,
    known: Iterable[Reading] = (),
    is_started: bool = False,
) -> CallResult:
    """Wait until `all` or `any` of the runs have a terminal status, for at most `seconds`. A timeout is not an error.

    `arguments` are the arguments of the read operation besides the run id; `known` are readings that need not be made
    again. A wait for runs that no call has started ends at once, unless `is_started`: this call has started them, which
    the provider may not show yet. Raises CallError when no run could be read; a failure after that ends the wait with
    what is known.
    """
    watch = Watch(run_ids, until)
    for reading in known:
        watch.update(reading)
    wait = _Wait(client, lifecycle, arguments, watch, reporter, is_started=is_started)
    started_at = anyio.current_time()
    reason = ""
    try:
        await wait.run(seconds)
    except CallError as exc:
        if not any(watch.readings.values()):
            raise
        reason = exc.message
    elapsed = anyio.current_time() - started_at
    value = wait_result(
        lifecycle,
        watch,
        elapsed_s=elapsed,
        polls=wait.polls,
        several=several,
        reason=reason,
        timed_out=not (watch.is_done or reason or wait.awaits_start),
    )
    return CallResult.from_value(value, status_line([reading for reading in watch.readings.values() if reading]))


def progress_total(lifecycle: Lifecycle, runs: int = 1) -> float | None:
    """Return the `total` of a wait's progress: the number of runs, 1 for a run that reports a ratio, else None."""
    if runs > 1:
        return runs
    return None if lifecycle.fields.progress is None else 1


class _Wait:
    """One wait: what is known about its runs, and how to learn more."""

    def __init__(
        self,
        client: Client,
        lifecycle: Lifecycle,
        arguments: Mapping[str, Any],
        watch: Watch,
        reporter: ProgressReporter,
        *,
        is_started: bool,
    ) -> None:
        self.polls = 0
        self._is_started = is_started
        self._watch = watch
        self._reporter = reporter
        self._client = client
        self._lifecycle = lifecycle
        self._arguments = arguments
        self._stream = lifecycle.stream
        self._reported = 0
        self._failures = 0
        self._empty_streams = self._brief_streams = 0
        self._failure: CallError | None = None
        self._not_before = self._last_read = -inf

    async def run(self, seconds: float) -> None:
        """Return when the wait is over or the time has passed."""
        end = anyio.current_time() + seconds
        if not all(self._watch.readings.values()):
            await self._read_first(seconds)
        while not self._watch.is_done and not self.awaits_start and anyio.current_time() < end:
            with anyio.move_on_at(end):
                await self._learn_more()
        await self._read_last()
        if self._failure is not None and not any(self._watch.readings.values()):
            raise self._failure

    @property
    def awaits_start(self) -> bool:
        """Whether waiting has no effect, because no call has started the runs."""
        return self._watch.awaits_start and not self._is_started

    async def _read_first(self, seconds: float) -> None:
        with anyio.move_on_after(max(seconds, LAST_SECONDS)) as scope:
            await self._read()
        if scope.cancelled_caught:
            self._failure = UpstreamError(
                f"{self._lifecycle.provider} did not return the run's status in time",
                kind="timeout",
                hint="Nothing was changed. Try again.",
                retryable=True,
            )

    async def _read_last(self) -> None:
        """Read once more, unless the provider would return the same again: some streams report nothing but ends."""
        next_read = max(self._last_read + self._lifecycle.poll_seconds, self._not_before)
        if not self._watch.is_done and anyio.current_time() >= next_read:
            with anyio.move_on_after(LAST_SECONDS):
                await self._read()

    async def _learn_more(self) -> None:
        stream = self._stream
        if stream is None:
            await self._sleep(self._interval())
            await self._read()
            return
        await anyio.sleep_until(self._not_before)
        opened_at = anyio.current_time()
        await self._follow(stream)
        if not self._watch.is_done and anyio.current_time() >= self._not_before:
            await self._read()  # shows why the stream ended
        if not self._watch.is_done:
            # A stream that closes at once is no better than polling.
            was_long = anyio.current_time() - opened_at >= self._lifecycle.poll_seconds
            self._brief_streams = 0 if was_long else self._brief_streams + 1
            await self._sleep(min(2.0 ** max(self._brief_streams - 1, 0), self._interval()))

    async def _sleep(self, seconds: float) -> None:
        """Sleep before the next request to the provider, at least as long as the provider asks for."""
        await anyio.sleep_until(max(anyio.current_time() + seconds, self._not_before))

    def _interval(self) -> float:
        """Return the seconds between two reads, by the age of the youngest run."""
        now = datetime.now(UTC)
        ages = [run_age_s(reading, now) for run_id in self._watch.pending if (reading := self._watch.readings[run_id])]
        return poll_interval_s(self._lifecycle, min(ages, default=0.0))

    async def _read(self) -> None:
        """Read the pending runs. A read that fails for a passing reason is repeated later, a few times."""
        self.polls += 1
        are_known = all(self._watch.readings.values())
        try:
            readings = await read_runs(
                self._client, self._lifecycle, self._arguments, self._watch.pending, were_known=are_known
            )
        except CallError as exc:
            self._failures += 1
            has_responded = are_known or exc.status is not None
            if not (exc.retryable and has_responded) or self._failures > MAX_FAILURES:
                raise
            self._failure = exc
            self._postpone(exc)
            await self._report(f"{exc.message}; reading again")
            return
        self._failures = 0
        self._last_read = anyio.current_time()
        for reading in readings:
            await self._take(reading)

    async def _follow(self, stream: RunStream) -> None:
        """Follow an event stream until the wait is over or the stream ends; if streams fail, polling takes over."""
        pending = self._watch.pending
        arguments = {
            **self._arguments,
            **stream.new_events_arguments,
            stream.run_ids_argument: pending if stream.takes_many_runs else pending[0],
        }
        self._empty_streams += 1
        try:
            opening = self._client.open_stream(stream.operation, arguments, seconds=LAST_SECONDS)
            async with opening as opened:
                # A run that ended before the stream was open may not appear on it.
                await self._read()
                async with aclosing(aiter(opened)) as events:
                    while not self._watch.is_done and (event := await anext(events, None)) is not None:
                        if not event.is_keep_alive:
                            await self._take_event(event, stream.operation.events)
        except CallError as exc:
            if not exc.retryable:
                self._stream = None
            self._postpone(exc)
        if self._empty_streams > MAX_STREAMS:
            self._stream = None

    def _postpone(self, failure: CallError) -> None:
        self._not_before = max(self._not_before, anyio.current_time() + (failure.retry_after_s or 0.0))

    async def _take_event(self, event: Event, event_format: EventFormat) -> None:
        if event.is_truncated:
            await self._read()  # a part of the event does not show the run's status
            return
        data = parse_or_text(event.data)
        reading = run_in_event(self._lifecycle, data, self._watch.only_run_id)
        if reading is not None:
            await self._take(reading)
        else:
            await self._report(describe_event(event.event, data, event_format))
        if event.event != "error":
            self._empty_streams = 0

    async def _take(self, reading: Reading) -> None:
        if self._watch.update(reading):
            await self._report(describe_run(reading))

    async def _report(self, line: str) -> None:
        self._reported += 1
        await self._reporter.report(line, self._progress())

    def _progress(self) -> float:
        """Return the runs that have ended, for one run its ratio, else the number of lines so far."""
        if len(self._watch.readings) > 1:
            return self._watch.ended_count
        (reading,) = self._watch.readings.values()
        if self._lifecycle.fields.progress is None:
            return self._reported
        if reading is None:
            return 0.0
        return 1.0 if reading.status.is_terminal else min(reading.progress or 0.0, ALMOST_DONE)
