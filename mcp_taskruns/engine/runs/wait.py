"""Wait for runs: read their status at intervals, and at once when their event stream reports something."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import anyio

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.sse import Event
from mcp_taskruns.core.model.json import parse_or_text
from mcp_taskruns.core.model.operation import EventFormat
from mcp_taskruns.core.model.run import Lifecycle, RunStream
from mcp_taskruns.core.runs.events import describe_event
from mcp_taskruns.core.runs.reading import Reading, describe_run, run_in_event
from mcp_taskruns.core.runs.results import status_line, wait_result
from mcp_taskruns.core.runs.watch import Until, Watch, describe_watch
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.progress import ProgressReporter, Report, reporting
from mcp_taskruns.engine.runs.details import may_ask, open_requests
from mcp_taskruns.engine.runs.poll import RunPoller
from mcp_taskruns.errors import CallError, UpstreamError

LAST_SECONDS = 5.0
"""How long a final read may take beyond the time of the call, and how long a stream may take to open."""

MAX_BRIEF_STREAMS = 3
"""Event streams in a row that ended early, after which only reads are left."""

BRIEF_SECONDS = 10.0
"""A stream that lasts less has ended early."""

PERCENT = 100
ALMOST_DONE = 99
"""The progress, in percent, of a run that reports 100 % and has no terminal status."""


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
    the provider may not show yet. Raises CallError when no run could be read; a failure after that is part of the
    result.
    """
    watch = Watch(run_ids, until, is_started=is_started)
    for reading in known:
        watch.update(reading)
    wait = _Wait(client, lifecycle, arguments, watch, reporter)
    started_at = anyio.current_time()
    await wait.run(seconds)
    blocking = wait.poller.blocking
    failure = blocking or next(iter(watch.failures.values()), None)
    if failure is not None and not watch.is_known:
        raise failure
    elapsed = anyio.current_time() - started_at
    polls = wait.poller.polls
    value = wait_result(lifecycle, watch, elapsed_s=elapsed, polls=polls, several=several, interruption=blocking)
    if not (several or watch.is_done or blocking):
        asked = await _open_requests(client, lifecycle, arguments, watch)
        value["next"] = " ".join([*asked, value["next"]])
    return CallResult.from_value(value, status_line([reading for reading in watch.readings.values() if reading]))


async def wait_for_started_run(
    client: Client,
    lifecycle: Lifecycle,
    arguments: Mapping[str, Any],
    run_id: str,
    reporter: ProgressReporter,
    *,
    seconds: float,
    known: Iterable[Reading] = (),
    is_started: bool = True,
) -> CallResult:
    """Wait for a run that this call has started, as `wait_for_runs` does.

    That it cannot be read is part of the result, not an error of the call: repeating it would start another run.
    """
    started_at = anyio.current_time()
    try:
        return await wait_for_runs(
            client, lifecycle, arguments, [run_id], reporter, seconds=seconds, known=known, is_started=is_started
        )
    except CallError as exc:
        watch = Watch([run_id])
        watch.fail(run_id, exc, is_final=True)
        elapsed = anyio.current_time() - started_at
        return CallResult.from_value(wait_result(lifecycle, watch, elapsed_s=elapsed, polls=0))


async def _open_requests(client: Client, lifecycle: Lifecycle, arguments: Mapping[str, Any], watch: Watch) -> list[str]:
    """Return sentences about what the only run of a wait asks its user."""
    reading = watch.readings[watch.only_run_id]
    if reading is None or not may_ask(reading.status):
        return []
    return await open_requests(client, lifecycle, {**arguments, lifecycle.read.run_id_argument: reading.run_id})


def reporting_wait(
    report: Report, lifecycle: Lifecycle, seconds: float, *, runs: int = 1
) -> AbstractAsyncContextManager[ProgressReporter]:
    """Report the progress of a wait: in percent for one run that reports a ratio, else in seconds of its time."""
    if _has_ratio(lifecycle, runs):
        return reporting(report, PERCENT, is_timed=False)
    return reporting(report, max(seconds, LAST_SECONDS))


def _has_ratio(lifecycle: Lifecycle, runs: int) -> bool:
    return runs == 1 and lifecycle.fields.progress is not None


class _Wait:
    """One wait: what is known about its runs, and how to learn more.

    Only reads prove a terminal status. The event stream reports progress, and brings a read forward.
    """

    def __init__(
        self,
        client: Client,
        lifecycle: Lifecycle,
        arguments: Mapping[str, Any],
        watch: Watch,
        reporter: ProgressReporter,
    ) -> None:
        self.poller = RunPoller(client, lifecycle, arguments, watch, reporter.note)
        self._client = client
        self._lifecycle = lifecycle
        self._arguments = arguments
        self._watch = watch
        self._reporter = reporter

    async def run(self, seconds: float) -> None:
        """Return when the wait is over or the time has passed."""
        end = self.poller.end = anyio.current_time() + seconds
        await self._read_first(seconds)
        if not self.poller.is_over and anyio.current_time() < end:
            with anyio.move_on_at(end):
                await self._watch_closely()
        if not self.poller.is_over and self.poller.may_read_again:
            with anyio.move_on_after(LAST_SECONDS):
                await self._report(await self.poller.read(self._watch.pending))

    async def _watch_closely(self) -> None:
        """Read the runs at intervals, and follow their stream, until the wait is over."""
        async with anyio.create_task_group() as tasks:
            if self._lifecycle.stream is not None:
                tasks.start_soon(self._follow, self._lifecycle.stream)
            while not self.poller.is_over:
                await self._report(await self.poller.poll())
            tasks.cancel_scope.cancel()

    async def _read_first(self, seconds: float) -> None:
        unknown = [run_id for run_id, reading in self._watch.readings.items() if reading is None]
        with anyio.move_on_after(max(seconds, LAST_SECONDS)) as scope:
            await self._report(await self.poller.read(unknown))
        if scope.cancelled_caught:
            timeout = UpstreamError(
                f"{self._lifecycle.provider} did not return the run's status in time",
                kind="timeout",
                hint="Nothing was changed. Try again.",
                retryable=True,
            )
            for run_id in unknown:
                self._watch.fail(run_id, timeout)

    async def _follow(self, stream: RunStream) -> None:
        """Follow the event stream over as many connections as it takes, unless they are refused or end early."""
        brief_streams = 0
        while brief_streams < MAX_BRIEF_STREAMS and self._watch.pending:
            opened_at = anyio.current_time()
            retry_after = None
            try:
                await self._receive(stream)
            except CallError as exc:
                if not exc.retryable:
                    return
                retry_after = exc.retry_after_s
            was_brief = anyio.current_time() - opened_at < BRIEF_SECONDS
            brief_streams = brief_streams + 1 if was_brief else 0
            await anyio.sleep(retry_after or 2.0**brief_streams)

    async def _receive(self, stream: RunStream) -> None:
        """Receive the events of one connection. Raises CallError when it cannot be opened, or is lost."""
        pending = self._watch.pending
        arguments = {
            **self._arguments,
            **stream.new_events_arguments,
            stream.run_ids_argument: pending if stream.takes_many_runs else pending[0],
        }
        async with self._client.open_stream(stream.operation, arguments, seconds=LAST_SECONDS) as opened:
            self.poller.read_soon(pending)  # a run that ended before the stream was open may not appear on it
            try:
                async with aclosing(aiter(opened)) as events:
                    async for event in events:
                        if not (event.is_keep_alive or event.event in stream.connection_events):
                            await self._take_event(event, stream.operation.events)
            finally:
                self.poller.read_soon(pending)  # shows why the stream ended

    async def _take_event(self, event: Event, event_format: EventFormat) -> None:
        if event.is_truncated:
            self.poller.read_soon(self._watch.pending)  # a part of the event does not show the run's status
            return
        data = await self._client.worker.run(len(event.data), parse_or_text, event.data)
        reading = run_in_event(self._lifecycle, data, self._watch.only_run_id)
        if reading is None:
            await self._report([describe_event(event.event, data, event_format)])
        elif reading.status.is_terminal:
            self.poller.read_soon([reading.run_id])
        elif self._watch.note_event(reading):
            await self._report([describe_run(reading)])

    async def _report(self, lines: Iterable[str]) -> None:
        self._reporter.status = describe_watch(self._watch)
        for line in lines:
            await self._reporter.report(line, self._percent())

    def _percent(self) -> float | None:
        """Return the progress of a run that reports a ratio; None for other waits, whose progress is their time."""
        if not _has_ratio(self._lifecycle, len(self._watch.readings)):
            return None
        (reading,) = self._watch.readings.values()
        if reading is None:
            return 0.0
        return PERCENT if reading.status.is_terminal else min((reading.progress or 0.0) * PERCENT, ALMOST_DONE)
