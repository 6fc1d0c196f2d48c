"""Follow an event stream: report each event as progress, and return all of them."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import Any

import anyio

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.sse import Event
from mcp_taskruns.core.model.run import Lifecycle
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.core.runs.events import EndReason, EventCollector
from mcp_taskruns.core.runs.watch import Watch, describe_watch
from mcp_taskruns.engine.client import Client, EventStream
from mcp_taskruns.engine.progress import ProgressReporter, Report, reporting
from mcp_taskruns.engine.runs.poll import MIN_SECONDS, RunPoller
from mcp_taskruns.engine.runs.read import BLOCKING
from mcp_taskruns.engine.runs.reconnect import NO_CONTENT, Reconnected, reconnecting_events
from mcp_taskruns.errors import CallError, NotVisibleYet

SETTLE_SECONDS = 2.0
"""How long a stream may be silent after all followed runs have ended: some servers never close it."""

REPLAY_SECONDS = 5.0
"""How long a stream may take to send the events of runs that had ended before it was opened."""

OPEN_SECONDS = 5.0
"""How long a stream may take to open before the runs are read meanwhile; also beyond the time of the call."""

LAG_SECONDS = 10.0
"""How long reads may still show a run as active after the last event of its stream."""

READ_SECONDS = 5.0
"""How long the final read of the runs may take."""


async def follow(
    client: Client, tool: Tool, arguments: Mapping[str, Any], report: Report, *, seconds: float
) -> CallResult:
    """Call a tool whose operation returns an event stream, and follow it for at most `seconds`.

    A response that is not an event stream is the result. Raises CallError when the stream cannot be opened and the runs
    have not ended, or when none of the runs that it is about can be read.
    """
    end = anyio.current_time() + seconds
    async with reporting(report, seconds, is_stream=True) as reporter:
        follower = _Follower(client, tool, arguments, reporter)
        await follower.wait_until_visible(end)
        return await follower.run(client.open(tool.operation, arguments, notify=reporter.note), end)


async def follow_stream(
    client: Client, tool: Tool, arguments: Mapping[str, Any], stream: EventStream, report: Report, *, seconds: float
) -> CallResult:
    """Follow a stream that a tool returned unexpectedly, for at most `seconds`."""
    end = anyio.current_time() + seconds
    async with reporting(report, seconds, is_stream=True) as reporter:
        return await _Follower(client, tool, arguments, reporter).run(nullcontext(stream), end)


def _followed_runs(tool: Tool, arguments: Mapping[str, Any]) -> tuple[Lifecycle | None, Watch | None]:
    """Return the runs whose events the tool's stream sends, as far as the overlay describes them."""
    stream = tool.runs.stream if tool.runs else None
    if stream is None or stream.operation.name != tool.operation.name:
        return None, None
    ids = arguments[stream.run_ids_argument]
    return tool.runs, Watch(ids if stream.takes_many_runs else [ids], gives_up=False)


class _Follower:
    """One call that follows a stream.

    Attributes:
        poller: reads the followed runs, because the stream does not prove that one has ended; None if the overlay does
            not describe the runs of the stream.
    """

    def __init__(self, client: Client, tool: Tool, arguments: Mapping[str, Any], reporter: ProgressReporter) -> None:
        settings = client.settings
        lifecycle, watch = _followed_runs(tool, arguments)
        self.poller: RunPoller | None = None
        if lifecycle is not None and watch is not None:
            self.poller = RunPoller(client, lifecycle, arguments, watch, reporter.note)
        self._client = client
        self._tool = tool
        self._arguments = arguments
        self._reporter = reporter
        self._collector = EventCollector(
            settings.stream_events, settings.max_result_chars, lifecycle, watch, tool.operation.events
        )
        self._response: CallResult | None = None
        self._stream_failure: CallError | None = None
        self._read_failure: CallError | None = None
        self._is_open = anyio.Event()
        self._last_events = lifecycle.stream.last_events if lifecycle and lifecycle.stream else frozenset()
        self._is_stream_over = False
        self._scope = anyio.CancelScope()
        self._end = 0.0

    async def wait_until_visible(self, end: float) -> None:
        """Read a run that this process has just started until the provider finds it: it would refuse the stream.

        Raises NotVisibleYet when the time of the call, `end`, has passed before.
        """
        if self.poller is None:
            return
        watch, run_id = self.poller.watch, self.poller.watch.only_run_id
        with anyio.move_on_at(end) as scope:
            while not (watch.is_known or self.poller.is_over):
                if not self._client.recent_starts.is_recent(self._tool.prefix, run_id):
                    return
                await self.poller.poll()
        if scope.cancelled_caught and isinstance(watch.failures.get(run_id), NotVisibleYet):
            raise watch.failures[run_id]

    async def run(self, opening: AbstractAsyncContextManager[CallResult | EventStream], end: float) -> CallResult:
        """Follow the stream that `opening` opens, until the time `end`."""
        self._end = end
        self._scope.deadline = max(end, anyio.current_time() + OPEN_SECONDS)
        with self._scope:
            async with anyio.create_task_group() as tasks:
                if self.poller is not None:
                    tasks.start_soon(self._keep_reading, self.poller)
                await self._receive(opening)
                tasks.cancel_scope.cancel()
        if self._response is not None:
            return self._response
        if self._read_failure is not None and not self._collector.count:
            raise self._read_failure
        is_settled = not self._scope.cancelled_caught or self._scope.deadline < self._end
        refusal = None if self._is_open.is_set() else self._stream_failure
        if refusal is None or refusal.kind not in BLOCKING:
            await self._read_last()
        if refusal is not None and not self._have_runs_ended:
            raise refusal
        return self._result(is_settled=is_settled)

    def _result(self, *, is_settled: bool) -> CallResult:
        failure = self._stream_failure
        reason = self._collector.error if failure is None else failure.message
        properties = self._tool.input_schema["properties"]
        resume = next((name for name in properties if name.lower() == "last-event-id"), "")
        result = self._collector.result(
            self._end_reason(reason), self._arguments, reason=reason, resume=resume, is_settled=is_settled
        )
        blocking = self.poller and self.poller.blocking
        return result.with_notes(f"The runs could not be read: {blocking.to_line()}") if blocking else result

    def _end_reason(self, reason: str) -> EndReason:
        if self._collector.is_full:
            return "event_limit"
        if self._have_runs_ended:
            return "terminal"
        if reason:
            return "error"
        return "wait_over" if self._scope.cancelled_caught else "closed"

    @property
    def _have_runs_ended(self) -> bool:
        return self.poller is not None and self.poller.watch.has_settled

    async def _receive(self, opening: AbstractAsyncContextManager[CallResult | EventStream]) -> None:
        """Open the stream, and receive its events until it ends or a limit is reached."""
        try:
            async with opening as opened:
                self._is_open.set()
                self._scope.deadline = min(self._scope.deadline, self._end)
                if not isinstance(opened, CallResult):
                    await self._receive_events(opened)
                elif self.poller is None or opened.status != NO_CONTENT:  # else the stream is over
                    self._response = opened
        except CallError as exc:
            self._stream_failure = exc

    async def _receive_events(self, stream: EventStream) -> None:
        is_over = None if self.poller is None else self._is_over
        events = reconnecting_events(self._client, self._tool.operation, self._arguments, stream, is_over=is_over)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Reconnected):
                    self._read_soon()
                    continue
                self._is_stream_over |= event.event in self._last_events
                await self._take(event)
                if self._collector.is_full:
                    return
                self._settle(SETTLE_SECONDS)

    async def _take(self, event: Event) -> None:
        taken = await self._client.worker.run(len(event.data), self._collector.add, event)
        if taken is None:
            return
        if self.poller is not None:
            self._reporter.status = describe_watch(self.poller.watch)
            if taken.ended_run_id:
                self.poller.read_soon([taken.ended_run_id])
        await self._reporter.report(self._client.redactor.redact_text(taken.line))

    async def _keep_reading(self, poller: RunPoller) -> None:
        """Read the runs at intervals until all have ended, which ends the call when the stream falls silent."""
        watch = poller.watch
        with anyio.move_on_after(OPEN_SECONDS):
            await self._is_open.wait()
        await poller.read(watch.pending)
        self._settle(SETTLE_SECONDS if self._collector.count else REPLAY_SECONDS)
        while watch.pending and poller.blocking is None:  # runs that nothing has started too: another call may do so
            self._reporter.status = describe_watch(watch)
            await poller.poll()
            self._settle(SETTLE_SECONDS)
        failure = poller.blocking or next(iter(watch.failures.values()), None)
        if failure is None or failure.retryable or watch.is_known:
            return
        if not self._collector.count:  # the runs do not exist, so the stream will never end
            self._read_failure = failure
            self._scope.cancel()

    def _settle(self, seconds: float) -> None:
        """Limit the silence of the stream, if all runs have ended."""
        if self._have_runs_ended:
            self._scope.deadline = min(self._end, anyio.current_time() + seconds)

    async def _is_over(self) -> bool:
        """Read the runs after the provider has closed the stream, and return whether there is nothing to follow."""
        assert self.poller is not None
        await self.poller.read(self.poller.watch.pending)
        if self._is_stream_over:
            with anyio.move_on_after(LAG_SECONDS):  # a read may be older than the end of the stream
                while not self.poller.is_over:
                    await anyio.sleep(MIN_SECONDS)
                    await self.poller.read(self.poller.watch.pending)
        return self.poller.is_over or self._is_stream_over

    def _read_soon(self) -> None:
        if self.poller is not None:
            self.poller.read_soon(self.poller.watch.pending)

    async def _read_last(self) -> None:
        if self.poller is not None and not self.poller.is_over:
            with anyio.move_on_after(READ_SECONDS):
                await self.poller.read(self.poller.watch.pending)


async def stream_events(
    client: Client, tool: Tool, arguments: Mapping[str, Any], stream: EventStream, last_event_id: str = ""
) -> AsyncGenerator[Event, None]:
    """Return the events of a stream, over as many connections as it takes. Raises CallError."""
    async with aclosing(reconnecting_events(client, tool.operation, arguments, stream, last_event_id)) as events:
        async for event in events:
            if isinstance(event, Event):
                yield event
