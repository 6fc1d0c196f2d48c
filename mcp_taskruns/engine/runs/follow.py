"""Following an event stream to its end, over as many connections as it takes."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.model.operation import Operation
from mcp_taskruns.core.model.run import Lifecycle
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.core.runs.events import EndReason, Event, EventCollector, Replay
from mcp_taskruns.core.runs.reading import Reading
from mcp_taskruns.core.runs.watch import Watch
from mcp_taskruns.engine.client import Exchange, backoff
from mcp_taskruns.engine.progress import Report, Reporter, reporting
from mcp_taskruns.engine.runs.read import read_runs
from mcp_taskruns.errors import CallError, UpstreamError

if TYPE_CHECKING:
    from mcp_taskruns.engine.transport import UpstreamAnswer

MAX_RECONNECTS = 5
"""How often in a row connecting again may bring nothing."""

MAX_BACKOFF_SECONDS = 10.0
"""The longest wait before connecting again, where the server does not say how long."""

MAX_REMEMBERED = 4_000
"""Events that are known again after a reconnection, of those that a server tells anew in spite of the last id."""

SETTLE_SECONDS = 2.0
"""How long a stream may be silent after the end of all runs that are followed: some servers never close it."""

STEADY_SECONDS = 10.0
"""A connection that held for so long has not failed, whatever it brought."""

REPLAY_SECONDS = 5.0
"""How long a stream may take to tell of runs that had ended before it was opened."""

READ_SECONDS = 5.0
"""How long reading the state of a run may take when following is over."""


async def events_of(
    exchange: Exchange,
    operation: Operation,
    arguments: Mapping[str, Any],
    first: "UpstreamAnswer",
    reconnected: Callable[[], Awaitable[None]],
    last_id: str = "",
) -> AsyncGenerator[Event, None]:
    """The events of a stream, each once, whose first connection is `first`; ends when the provider ends it.

    `last_id` is that of the event after which the first connection began.

    A lost connection is made anew, after the last event where ids tell which that was, if asking again is safe;
    `reconnected` is awaited then. Raises CallError when that does not help.
    """
    replay = Replay(MAX_REMEMBERED)
    answer = first
    retry_s: float | None = None
    fruitless = 0
    async with AsyncExitStack() as connection:
        while True:
            opened = anyio.current_time()
            try:
                if answer is not first:
                    await reconnected()
                async with aclosing(answer.events()) as events:
                    async for event in events:
                        retry_s = retry_s if event.retry_s is None else event.retry_s
                        last_id = event.id if event.has_id else last_id
                        if not event.is_keep_alive and not replay.is_known(event):
                            fruitless = 0
                            yield event
                return
            except CallError as exc:
                failure = exc
            if anyio.current_time() - opened >= STEADY_SECONDS:
                fruitless = 0
            while True:
                fruitless += 1
                _give_up(failure, operation, fruitless)
                answer.hang_up()
                await connection.aclose()
                pause = backoff(fruitless, MAX_BACKOFF_SECONDS) if retry_s is None else retry_s
                await anyio.sleep(failure.retry_after_s or pause)
                try:
                    opening = exchange.open_stream(operation, arguments, last_event_id=last_id, has_place=True)
                    answer = await connection.enter_async_context(opening)
                    replay.reconnect()
                    break
                except CallError as exc:
                    failure = exc


def _give_up(failure: CallError, operation: Operation, fruitless: int) -> None:
    """Raise the failure where connecting again is not safe, or has not helped."""
    if not (failure.retryable and operation.is_safe):
        raise failure
    if fruitless > MAX_RECONNECTS:
        raise UpstreamError(
            f"{failure.message}; connecting again {MAX_RECONNECTS} times did not help",
            kind=failure.kind,
            hint=failure.hint,
            retryable=True,
        ) from failure


async def follow(
    exchange: Exchange,
    tool: Tool,
    arguments: Mapping[str, Any],
    report: Report,
    *,
    seconds: float,
) -> CallResult:
    """Call a tool that is there for an event stream, and follow that for at most `seconds`.

    Each event is a progress, all of them the outcome; another answer is what it is.
    """
    runs = _Runs(exchange, tool, arguments)
    async with reporting(report, runs.total) as reporter:

        async def go_on(answer: "UpstreamAnswer") -> CallResult:
            return await _follow(exchange, tool, arguments, answer, runs, reporter, seconds)

        return await exchange.fetch(tool.operation, arguments, go_on, tell=reporter.note)


async def follow_answer(
    exchange: Exchange,
    tool: Tool,
    arguments: Mapping[str, Any],
    answer: "UpstreamAnswer",
    report: Report,
    *,
    seconds: float,
) -> CallResult:
    """The same, of a stream with which a tool was answered that nobody knew to be one."""
    runs = _Runs(exchange, tool, arguments)
    async with reporting(report, runs.total) as reporter:
        return await _follow(exchange, tool, arguments, answer, runs, reporter, seconds)


async def _follow(
    exchange: Exchange,
    tool: Tool,
    arguments: Mapping[str, Any],
    first: "UpstreamAnswer",
    runs: "_Runs",
    reporter: Reporter,
    seconds: float,
) -> CallResult:
    settings = exchange.settings
    collector = EventCollector(
        settings.stream_events, settings.max_result_chars, runs.lifecycle, runs.watch, tool.operation.events
    )
    ended: EndReason = "closed"
    reason = ""
    with anyio.move_on_after(seconds) as bound:
        try:
            await runs.read(bound)
            if not runs.are_over:
                events = events_of(exchange, tool.operation, arguments, first, lambda: runs.read(bound))
                await _take(events, collector, runs, reporter, exchange.mask.redact_text, bound)
            if collector.is_full:
                ended = "event_limit"
            elif collector.error:
                ended, reason = "error", collector.error
        except CallError as exc:
            ended, reason = "error", exc.message
    if bound.cancelled_caught:
        ended = "wait_over"
    await runs.complete()
    if ended != "error" and runs.are_over:
        ended = "terminal"
    resume = next((name for name in tool.input_schema["properties"] if name.lower() == "last-event-id"), "")
    return collector.result(ended, arguments, reason=reason, resume=resume)


async def _take(
    events: AsyncGenerator[Event, None],
    collector: EventCollector,
    runs: "_Runs",
    reporter: Reporter,
    mask: Callable[[str], str],
    bound: anyio.CancelScope,
) -> None:
    """Take in events until there are no more, or the bound on them is reached."""
    end = bound.deadline
    async with aclosing(events):
        async for event in events:
            masked = replace(event, data=mask(event.data), event=mask(event.event), id=mask(event.id))
            line = collector.add(masked)
            if line is not None:
                await reporter.tell(mask(line), collector.count if runs.total is None else runs.ended)
            if collector.is_full:
                return
            settled = anyio.current_time() + SETTLE_SECONDS
            bound.deadline = min(end, settled) if runs.are_over else end


class _Runs:
    """The runs whose events a stream tells, as far as the capability says which these are."""

    def __init__(self, exchange: Exchange, tool: Tool, arguments: Mapping[str, Any]) -> None:
        self._exchange = exchange
        self._arguments = arguments
        self._read: list[Reading] = []
        lifecycle = tool.runs
        stream = lifecycle.stream if lifecycle else None
        is_ours = stream is not None and stream.operation.name == tool.operation.name
        self.lifecycle: Lifecycle | None = lifecycle if is_ours else None
        self.watch: Watch | None = None
        self.total: float | None = None
        if is_ours and stream is not None:
            ids = arguments[stream.run_ids_argument]
            self.watch = Watch(ids if stream.takes_many_runs else [ids])
            self.total = len(self.watch.readings) if stream.takes_many_runs else None

    @property
    def ended(self) -> int:
        """How many have ended."""
        return self.watch.ended_count if self.watch else 0

    @property
    def are_over(self) -> bool:
        """Whether all have ended, and whatever the stream has to tell of that was told."""
        return self.watch is not None and self.watch.is_done

    async def read(self, bound: anyio.CancelScope) -> None:
        """Find the runs of whose end the stream will not tell; those of which it will are left to it."""
        if self.lifecycle is None or self.watch is None:
            return
        untold = self.lifecycle.stream.ends_not_streamed if self.lifecycle.stream else frozenset()
        if not untold:
            return
        try:
            self._read = await read_runs(self._exchange, self.lifecycle, self._arguments, self.watch.pending)
        except CallError as exc:
            if not exc.retryable:
                raise
            return  # the stream goes on; what it does not tell is read in the end
        for reading in self._read:
            if reading.status in untold or not reading.status.is_terminal:
                self.watch.update(reading)
        if all(reading.status.is_terminal for reading in self._read):
            bound.deadline = min(bound.deadline, anyio.current_time() + REPLAY_SECONDS)

    async def complete(self) -> None:
        """What is known of each run in the end, also of those of which the stream told nothing."""
        if self.lifecycle is None or self.watch is None:
            return
        for reading in self._read:
            if reading.status.is_terminal:
                self.watch.update(reading)
        unknown = [run_id for run_id, reading in self.watch.readings.items() if reading is None]
        with anyio.move_on_after(READ_SECONDS), suppress(CallError):
            for reading in await read_runs(self._exchange, self.lifecycle, self._arguments, unknown):
                self.watch.update(reading)
