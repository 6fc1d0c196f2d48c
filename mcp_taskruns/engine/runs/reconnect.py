"""Receive the events of a stream over as many connections as it takes."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any

import anyio

from mcp_taskruns.core.calls.sse import Event
from mcp_taskruns.core.model.operation import Operation
from mcp_taskruns.core.runs.replay import Replay
from mcp_taskruns.engine.client import Client, EventStream
from mcp_taskruns.engine.rate_limits import Slot
from mcp_taskruns.engine.retries import backoff
from mcp_taskruns.errors import CallError, UpstreamError

MAX_RECONNECTS = 5
"""Connections in a row that may bring no event."""

MAX_BACKOFF_SECONDS = 10.0
"""The longest delay before a new connection, unless the provider asks for a longer one."""

MAX_REMEMBERED = 4_000
"""Events that are recognised when a provider sends them again in spite of `Last-Event-ID`."""

STABLE_SECONDS = 10.0
"""A connection that lasted so long did not fail, even without an event, and did not end early."""


NO_CONTENT = 204
"""The status code of a stream that is over: a client must not reconnect. HTML standard, server-sent events."""


class Reconnected:
    """Takes the place of an event when a new connection is open."""


async def reconnecting_events(
    client: Client,
    operation: Operation,
    arguments: Mapping[str, Any],
    first: EventStream,
    last_event_id: str = "",
    *,
    is_over: Callable[[], Awaitable[bool]] | None = None,
) -> AsyncGenerator[Event | Reconnected, None]:
    """Return the events of a stream, each once and without keep-alives, until the provider ends the stream.

    `first` is the first connection, opened after the event `last_event_id`. A lost connection is re-established after
    the last event, if the operation only reads; then a `Reconnected` follows. Raises CallError when that fails.
    `is_over` is called when the provider closes the stream, and returns whether that was its end; by default it was.
    """
    replay = Replay(MAX_REMEMBERED)
    connection = _Connection(client, operation, arguments, first, last_event_id)
    async with connection:
        while True:
            try:
                async with aclosing(aiter(connection.stream)) as events:
                    async for event in events:
                        connection.note(event)
                        if not event.is_keep_alive and not replay.is_known(event):
                            connection.has_brought_event()
                            yield event
                if is_over is None or await is_over():
                    return
                failure = None
            except CallError as exc:
                failure = exc
            if not await connection.reopen(failure):
                return
            replay.reconnect()
            yield Reconnected()


class _Connection:
    """The current connection of a stream, and what a new one needs to know."""

    def __init__(
        self,
        client: Client,
        operation: Operation,
        arguments: Mapping[str, Any],
        first: EventStream,
        last_event_id: str,
    ) -> None:
        self.stream = first
        self._client = client
        self._operation = operation
        self._arguments = arguments
        self._last_event_id = last_event_id
        self._retry_s: float | None = None
        self._failures = self._early_ends = 0
        self._opened_at = anyio.current_time()
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> None:
        return

    async def __aexit__(self, *_: object) -> None:
        await self._resources.aclose()

    def note(self, event: Event) -> None:
        """Remember where a new connection has to begin, and when."""
        if event.retry_s is not None:
            self._retry_s = event.retry_s
        if event.has_id:
            self._last_event_id = self.stream.last_event_id

    def has_brought_event(self) -> None:
        """Forget earlier failures, but not that the provider ends its streams early."""
        self._failures = 0

    async def reopen(self, failure: CallError | None) -> bool:
        """Open a new connection, after as many attempts as it takes; `failure` is None after a complete stream.

        Returns false if the stream is over. Raises CallError when the attempts are used up.
        """
        if anyio.current_time() - self._opened_at >= STABLE_SECONDS:
            self._failures = self._early_ends = 0
        await self.stream.aclose()
        while True:
            if failure is None:
                self._early_ends += 1
            else:
                self._failures += 1
                self._check(failure)
            await self._resources.aclose()
            attempts = self._failures + self._early_ends
            # `retry: 0` of a stream that ends at once would take all requests that the provider allows.
            delay = max(self._retry_s or 0.0, backoff(attempts, MAX_BACKOFF_SECONDS))
            await anyio.sleep((failure and failure.retry_after_s) or delay)
            try:
                await self._open()
            except CallError as exc:
                if exc.status == NO_CONTENT:
                    return False
                failure = exc
            else:
                return True

    async def _open(self) -> None:
        opening = self._client.open_stream(
            self._operation, self._arguments, last_event_id=self._last_event_id, slot=Slot.NONE
        )
        self.stream = await self._resources.enter_async_context(opening)
        self._opened_at = anyio.current_time()

    def _check(self, failure: CallError) -> None:
        """Raise the failure where reconnecting is not safe or has failed too often."""
        if not (failure.retryable and self._operation.is_safe):
            raise failure
        if self._failures > MAX_RECONNECTS:
            message = f"{failure.message}; {MAX_RECONNECTS} reconnections failed"
            raise UpstreamError(message, kind=failure.kind, hint=failure.hint, retryable=True) from failure
