"""Waiting for runs: their state first, then their stream or, where there is none, adaptive polling."""

from collections.abc import Iterable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from math import inf
from typing import Any

import anyio

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.model.json import parse_or_text
from mcp_taskruns.core.model.run import Lifecycle, RunStream
from mcp_taskruns.core.runs.events import Event, describe_event
from mcp_taskruns.core.runs.messages import status_line, wait_result
from mcp_taskruns.core.runs.reading import Reading, describe_run, run_in_event
from mcp_taskruns.core.runs.watch import Until, Watch, poll_interval_s, run_age_s
from mcp_taskruns.engine.client import Exchange
from mcp_taskruns.engine.progress import Reporter
from mcp_taskruns.engine.runs.read import read_runs
from mcp_taskruns.errors import CallError, UpstreamError

MAX_FAILURES = 5
"""How often in a row a provider may fail to say where a run stands."""

MAX_STREAMS = 3
"""How many streams in a row may bring nothing before polling takes over."""

LAST_SECONDS = 5.0
"""How long a reading may take that goes beyond the time, and opening a stream, before polling takes its place."""

ALMOST = 0.99
"""The progress of a run that has done everything and has not ended."""


async def wait_for_runs(
    exchange: Exchange,
    lifecycle: Lifecycle,
    arguments: Mapping[str, Any],
    run_ids: Iterable[str],
    reporter: Reporter,
    *,
    seconds: float,
    until: Until = "all",
    several: bool = False,
    known: Iterable[Reading] = (),
) -> CallResult:
    """Wait until `all` or `any` of the runs have ended, for at most `seconds`; time that is over is no error.

    `arguments` are what reading a run takes beside its id, `known` readings that need not be made again. Raises
    CallError when nothing can be found out; what breaks off a wait later is told with what is known.
    """
    watch = Watch(run_ids, until)
    for reading in known:
        watch.update(reading)
    wait = _Wait(exchange, lifecycle, arguments, watch, reporter)
    began = anyio.current_time()
    reason = ""
    try:
        await wait.run(seconds)
    except CallError as exc:
        if not any(watch.readings.values()):
            raise
        reason = exc.message
    elapsed = anyio.current_time() - began
    value = wait_result(lifecycle, watch, elapsed_s=elapsed, polls=wait.polls, several=several, reason=reason)
    return CallResult.from_value(value, status_line([reading for reading in watch.readings.values() if reading]))


def total_of(lifecycle: Lifecycle, runs: int = 1) -> float | None:
    """Up to where the progress of a wait counts: how many runs there are, 1 where a run tells a ratio, or unknown."""
    if runs > 1:
        return runs
    return None if lifecycle.fields.progress is None else 1


class _Wait:
    """One wait: what is known of its runs, and how it goes on finding out."""

    def __init__(
        self,
        exchange: Exchange,
        lifecycle: Lifecycle,
        arguments: Mapping[str, Any],
        watch: Watch,
        reporter: Reporter,
    ) -> None:
        self.polls = 0
        self._watch = watch
        self._reporter = reporter
        self._exchange = exchange
        self._lifecycle = lifecycle
        self._arguments = arguments
        self._stream = lifecycle.stream
        self._told = 0
        self._failures = 0
        self._fruitless = self._brief = 0
        self._failure: CallError | None = None
        self._not_before = self._last_read = -inf

    async def run(self, seconds: float) -> None:
        """Return when the wait is over or its time is."""
        end = anyio.current_time() + seconds
        if not all(self._watch.readings.values()):
            with anyio.move_on_after(max(seconds, LAST_SECONDS)) as first:
                await self._read()
            if first.cancelled_caught:
                self._failure = UpstreamError(
                    f"{self._lifecycle.provider} did not say in time where the run stands",
                    kind="timeout",
                    hint="Nothing was changed: try again.",
                    retryable=True,
                )
        while not self._watch.is_done and anyio.current_time() < end:
            with anyio.move_on_at(end):
                await self._find_out_more()
        # Once more, but not sooner than an answer can be a new one: some streams tell of ends alone.
        next_read = max(self._last_read + self._lifecycle.poll_seconds, self._not_before)
        if not self._watch.is_done and anyio.current_time() >= next_read:
            with anyio.move_on_after(LAST_SECONDS):
                await self._read()
        if self._failure is not None and not any(self._watch.readings.values()):
            raise self._failure

    async def _find_out_more(self) -> None:
        stream = self._stream
        if stream is None:
            await self._pause(self._interval())
            await self._read()
            return
        await anyio.sleep_until(self._not_before)
        opened = anyio.current_time()
        await self._follow(stream)
        if not self._watch.is_done and anyio.current_time() >= self._not_before:
            await self._read()  # why the stream has ended
        if not self._watch.is_done:
            # A stream that ends as soon as it is open is no better than asking again.
            has_lasted = anyio.current_time() - opened >= self._lifecycle.poll_seconds
            self._brief = 0 if has_lasted else self._brief + 1
            await self._pause(min(2.0 ** max(self._brief - 1, 0), self._interval()))

    async def _pause(self, seconds: float) -> None:
        """Let time pass before the provider is asked again: as long as is useful, and as it wants."""
        await anyio.sleep_until(max(anyio.current_time() + seconds, self._not_before))

    def _interval(self) -> float:
        """The seconds between two readings, by the age of the youngest run."""
        now = datetime.now(UTC)
        ages = [run_age_s(reading, now) for run_id in self._watch.pending if (reading := self._watch.readings[run_id])]
        return poll_interval_s(self._lifecycle, min(ages, default=0.0))

    async def _read(self) -> None:
        """Read the runs that have not ended. A provider that cannot answer now is asked again, some times."""
        self.polls += 1
        is_known = all(self._watch.readings.values())
        try:
            readings = await read_runs(
                self._exchange, self._lifecycle, self._arguments, self._watch.pending, were_known=is_known
            )
        except CallError as exc:
            self._failures += 1
            has_answered = is_known or exc.status is not None
            if not (exc.retryable and has_answered) or self._failures > MAX_FAILURES:
                raise
            self._failure = exc
            self._put_off(exc)
            await self._tell(f"{exc.message}; asking again")
            return
        self._failures = 0
        self._last_read = anyio.current_time()
        for reading in readings:
            await self._take(reading)

    async def _follow(self, stream: RunStream) -> None:
        """Take in a stream's events until the wait is over or the stream is; polling takes over from one that fails."""
        pending = self._watch.pending
        arguments = {
            **self._arguments,
            **stream.new_events_arguments,
            stream.run_ids_argument: pending if stream.takes_many_runs else pending[0],
        }
        self._fruitless += 1
        try:
            opening = self._exchange.open_stream(stream.operation, arguments, seconds=LAST_SECONDS)
            async with opening as answer:
                # What ended before the stream was open may not be told on it.
                await self._read()
                async with aclosing(answer.events()) as events:
                    while not self._watch.is_done and (event := await anext(events, None)) is not None:
                        if not event.is_keep_alive:
                            await self._take_event(event)
        except CallError as exc:
            if not exc.retryable:
                self._stream = None
            self._put_off(exc)
        if self._fruitless > MAX_STREAMS:
            self._stream = None

    def _put_off(self, failure: CallError) -> None:
        self._not_before = max(self._not_before, anyio.current_time() + (failure.retry_after_s or 0.0))

    async def _take_event(self, event: Event) -> None:
        if event.is_cut:
            await self._read()  # what it says cannot be told from a part of it
            return
        mask = self._exchange.mask.redact_text
        data = parse_or_text(mask(event.data))
        reading = run_in_event(self._lifecycle, data, self._watch.only_run_id)
        if reading is not None:
            await self._take(reading)
        else:
            await self._tell(describe_event(mask(event.event), data))
        if event.event != "error":
            self._fruitless = 0

    async def _take(self, reading: Reading) -> None:
        if self._watch.update(reading):
            await self._tell(describe_run(reading))

    async def _tell(self, line: str) -> None:
        self._told += 1
        await self._reporter.tell(line, self._value())

    def _value(self) -> float:
        """How far the wait has come: of several runs those that have ended, of one its progress, else what was told."""
        if len(self._watch.readings) > 1:
            return self._watch.ended_count
        (reading,) = self._watch.readings.values()
        if self._lifecycle.fields.progress is None:
            return self._told
        if reading is None:
            return 0.0
        return 1.0 if reading.status.is_terminal else min(reading.progress or 0.0, ALMOST)
