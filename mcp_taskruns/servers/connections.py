"""Limits on connections, which hold before a request is authenticated: their number, and the time for each step."""

import asyncio
import errno
import logging
from asyncio import TimerHandle
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mcp_taskruns.servers.bodies import BODY_SECONDS

try:
    import resource
except ImportError:  # pragma: no cover - Windows has no limit of file descriptors
    resource = None  # type: ignore[assignment]  # the module is optional

MAX_CONNECTIONS = 2_000
"""The maximum number of connections of clients, unless the file descriptors allow fewer."""

HEAD_SECONDS = 10.0
"""The timeout for the first byte of a connection up to the end of the head, and for each further head."""

DRAIN_SECONDS = BODY_SECONDS + 2
"""The timeout for a body that no app receives, such as that of a refused request."""

WRITE_SECONDS = 30.0
"""How long a client may read nothing while a response waits for it."""

REPORT_SECONDS = 60.0
"""The minimum interval of log entries about connections that cannot be accepted."""

_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_BEFORE_RESPONSE = {h11.IDLE, h11.SEND_RESPONSE}
_SECONDS = {h11.IDLE: HEAD_SECONDS, h11.SEND_BODY: DRAIN_SECONDS}

logger = logging.getLogger(__name__)


def connection_limit() -> int:
    """Return how many clients may be connected: the other half of the file descriptors is for providers and files."""
    if resource is None:  # pragma: no cover - Windows
        return MAX_CONNECTIONS
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_CONNECTIONS if descriptors == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, descriptors // 2)


class Connection(H11Protocol):
    """A connection that is closed if there are too many, or if the client does not send or read in time.

    uvicorn closes connections that are idle between requests, and has no other timeout.
    """

    _timer: TimerHandle | None = None
    _reading_timer: TimerHandle | None = None
    _phase: object = None
    _is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Refuse the connection if there are too many."""
        if self.limit_concurrency is not None and len(self.connections) + 1 >= self.limit_concurrency:
            self._is_refused = True
            transport.write(_BUSY)
            transport.close()
            return
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Restart the time if a part of a request is complete."""
        super().data_received(data)
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Refuse invalid input once: uvicorn would let an app that runs already respond too, which is an error."""
        if self.conn.our_state in _BEFORE_RESPONSE:
            super().send_400_response(msg)
        else:
            self.transport.close()
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Drop what was received of a body that the app did not want."""
        self.cycle.body.clear()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time."""
        for timer in (self._timer, self._reading_timer):
            if timer is not None:
                timer.cancel()
        if not self._is_refused:
            super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the time for the client to read."""
        super().pause_writing()
        self._watch_reading()

    def resume_writing(self) -> None:
        """Stop the time for the client to read."""
        super().resume_writing()
        if self._reading_timer is not None:
            self._reading_timer.cancel()

    def _watch(self) -> None:
        """Start the time for the part of a request that the client is sending, unless it runs already."""
        phase = (self.conn.their_state, self.cycle)
        if phase == self._phase:
            return
        self._phase = phase
        if self._timer is not None:
            self._timer.cancel()
        seconds = _SECONDS.get(self.conn.their_state)
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._time_out)

    def _time_out(self) -> None:
        has_begun = self.conn.their_state is h11.SEND_BODY or self.conn.trailing_data[0]
        if has_begun and self.conn.our_state in _BEFORE_RESPONSE:
            self.transport.write(_TIMEOUT)
        self.transport.close()

    def _watch_reading(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._reading_timer = self.loop.call_later(WRITE_SECONDS, self._check_reading, waiting)

    def _check_reading(self, waiting: int) -> None:
        if self.transport.get_write_buffer_size() < waiting:
            self._watch_reading()
        else:
            self.transport.abort()


class AcceptErrors:
    """Log that connections cannot be accepted, once a minute; asyncio logs every attempt, thousands in a second."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle_others = loop.get_exception_handler()
        self._reported_at = -inf

    @classmethod
    @contextmanager
    def logged(cls) -> Iterator[None]:
        """Handle the errors of the event loop in the block."""
        loop = asyncio.get_running_loop()
        errors = cls(loop)
        loop.set_exception_handler(errors)
        try:
            yield
        finally:
            loop.set_exception_handler(errors._handle_others)

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _EXHAUSTED and "socket" in context):
            if self._handle_others is None:
                loop.default_exception_handler(context)
            else:
                self._handle_others(loop, context)
        elif loop.time() - self._reported_at >= REPORT_SECONDS:
            self._reported_at = loop.time()
            logger.error("cannot accept connections: %s; raise the limit of file descriptors", error.strerror)
