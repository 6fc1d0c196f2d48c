"""Follow an event stream: report each event as progress, and return all of them."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any

import anyio

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.sse import Event
from mcp_taskruns.core.model.run import Lifecycle
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.core.runs.events import EndReason, EventCollector
from mcp_taskruns.core.runs.reading import Reading
from mcp_taskruns.core.runs.watch import Watch
from mcp_taskruns.engine.client import Client, EventStream
from mcp_taskruns.engine.progress import ProgressReporter, Report, reporting
from mcp_taskruns.engine.runs.read import read_runs
from mcp_taskruns.engine.runs.reconnect import Reconnected, reconnecting_events
from mcp_taskruns.errors import CallError

SETTLE_SECONDS = 2.0
"""How long a stream may be silent after all followed runs have ended: some servers never close it."""

REPLAY_SECONDS = 5.0
"""How long a stream may take to send the events of runs that had ended before it was opened."""

READ_SECONDS = 5.0
"""How long the final read of the runs may take."""


async def follow(
    client: Client, tool: Tool, arguments: Mapping[str, Any], report: Report, *, seconds: float
) -> CallResult:
    """Call a tool whose operation returns an event stream, and follow it for at most `seconds`.

    A response that is not an event stream is the result. Raises CallError when the stream cannot be opened.
    """
    runs = _FollowedRuns(client, tool, arguments)
    async with (
        reporting(report, runs.total, is_stream=True) as reporter,
        client.open(tool.operation, arguments, notify=reporter.note) as opened,
    ):
        if isinstance(opened, CallResult):
            return opened
        return await _Follow(client, tool, arguments, runs, reporter).run(opened, seconds)


async def follow_stream(
    client: Client, tool: Tool, arguments: Mapping[str, Any], stream: EventStream, report: Report, *, seconds: float
) -> CallResult:
    """Follow a stream that a tool returned unexpectedly, for at most `seconds`."""
    runs = _FollowedRuns(client, tool, arguments)
    async with reporting(report, runs.total, is_stream=True) as reporter:
        return await _Follow(client, tool, arguments, runs, reporter).run(stream, seconds)


class _Follow:
    """One call that follows a stream."""

    def __init__(
        self,
        client: Client,
        tool: Tool,
        arguments: Mapping[str, Any],
        runs: "_FollowedRuns",
        reporter: ProgressReporter,
    ) -> None:
        settings = client.settings
        self._client = client
        self._tool = tool
        self._arguments = arguments
        self._runs = runs
        self._reporter = reporter
        self._collector = EventCollector(
            settings.stream_events, settings.max_result_chars, runs.lifecycle, runs.watch, tool.operation.events
        )

    async def run(self, stream: EventStream, seconds: float) -> CallResult:
        ended: EndReason = "closed"
        reason = ""
        with anyio.move_on_after(seconds) as scope:
            try:
                await self._receive(stream, scope)
                if self._collector.is_full:
                    ended = "event_limit"
                elif self._collector.error:
                    ended, reason = "error", self._collector.error
            except CallError as exc:
                ended, reason = "error", exc.message
        if scope.cancelled_caught:
            ended = "wait_over"
        await self._runs.complete()
        if ended != "error" and self._runs.are_over:
            ended = "terminal"
        properties = self._tool.input_schema["properties"]
        resume = next((name for name in properties if name.lower() == "last-event-id"), "")
        return self._collector.result(ended, self._arguments, reason=reason, resume=resume)

    async def _receive(self, stream: EventStream, scope: anyio.CancelScope) -> None:
        """Receive events until the stream ends or a limit is reached."""
        await self._runs.read(scope)
        if self._runs.are_over:
            return
        end = scope.deadline
        events = reconnecting_events(self._client, self._tool.operation, self._arguments, stream)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Reconnected):
                    await self._runs.read(scope)
                    continue
                await self._take(event)
                if self._collector.is_full:
                    return
                settled_at = anyio.current_time() + SETTLE_SECONDS
                scope.deadline = min(end, settled_at) if self._runs.are_over else end

    async def _take(self, event: Event) -> None:
        line = self._collector.add(event)
        if line is not None:
            progress = self._collector.count if self._runs.total is None else self._runs.ended
            await self._reporter.report(self._client.redactor.redact_text(line), progress)


class _FollowedRuns:
    """The runs whose events a stream sends, as far as the overlay describes them."""

    def __init__(self, client: Client, tool: Tool, arguments: Mapping[str, Any]) -> None:
        self.lifecycle: Lifecycle | None = None
        self.watch: Watch | None = None
        self.total: float | None = None
        self._client = client
        self._arguments = arguments
        self._readings: list[Reading] = []
        stream = tool.runs.stream if tool.runs else None
        if stream is not None and stream.operation.name == tool.operation.name:
            ids = arguments[stream.run_ids_argument]
            self.lifecycle = tool.runs
            self.watch = Watch(ids if stream.takes_many_runs else [ids])
            self.total = len(self.watch.readings) if stream.takes_many_runs else None

    @property
    def ended(self) -> int:
        """The number of runs that have ended."""
        return self.watch.ended_count if self.watch else 0

    @property
    def are_over(self) -> bool:
        """Whether all runs have ended and the stream has reported it."""
        return self.watch is not None and self.watch.is_done

    async def read(self, scope: anyio.CancelScope) -> None:
        """Read the runs if the stream does not report every terminal status; its own reports are left to it."""
        if self.lifecycle is None or self.watch is None or self.lifecycle.stream is None:
            return
        unreported = self.lifecycle.stream.ends_not_streamed
        if not unreported:
            return
        try:
            self._readings = await read_runs(self._client, self.lifecycle, self._arguments, self.watch.pending)
        except CallError as exc:
            if not exc.retryable:
                raise
            return  # the stream goes on; the final read shows what it does not report
        for reading in self._readings:
            if reading.status in unreported or not reading.status.is_terminal:
                self.watch.update(reading)
        if all(reading.status.is_terminal for reading in self._readings):
            scope.deadline = min(scope.deadline, anyio.current_time() + REPLAY_SECONDS)

    async def complete(self) -> None:
        """Read the runs of which the stream has reported nothing."""
        if self.lifecycle is None or self.watch is None:
            return
        for reading in self._readings:
            if reading.status.is_terminal:
                self.watch.update(reading)
        unknown = [run_id for run_id, reading in self.watch.readings.items() if reading is None]
        with anyio.move_on_after(READ_SECONDS), suppress(CallError):
            for reading in await read_runs(self._client, self.lifecycle, self._arguments, unknown):
                self.watch.update(reading)


async def stream_events(
    client: Client, tool: Tool, arguments: Mapping[str, Any], stream: EventStream, last_event_id: str = ""
) -> AsyncGenerator[Event, None]:
    """Return the events of a stream, over as many connections as it takes. Raises CallError."""
    async with aclosing(reconnecting_events(client, tool.operation, arguments, stream, last_event_id)) as events:
        async for event in events:
            if isinstance(event, Event):
                yield event
