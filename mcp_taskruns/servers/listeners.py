"""HTTP servers on sockets of their own, started and stopped together."""

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import anyio
import uvicorn
from starlette.types import ASGIApp

from mcp_taskruns.errors import SettingsError
from mcp_taskruns.servers.connections import AcceptErrors, Connection, connection_limit

SHUTDOWN_SECONDS = 1
"""The time for active calls to finish when a server stops."""

DEAD_SECONDS = 40
"""How long a client may acknowledge nothing. With a keep-alive comment every 15 seconds a dead one is found in 55."""

BACKLOG = 256
"""Connections that wait to be accepted; all of them may be accepted before the first is refused."""

_TCP_OPTIONS = {
    # asyncio sets it only for sockets of its own; without it responses are delayed by 40 ms.
    "TCP_NODELAY": 1,
    # The next three find a dead client of a silent connection, the last one that of a connection with data to send.
    "TCP_KEEPIDLE": DEAD_SECONDS // 2,
    "TCP_KEEPINTVL": DEAD_SECONDS // 8,
    "TCP_KEEPCNT": 4,
    "TCP_USER_TIMEOUT": DEAD_SECONDS * 1000,
}

_uvicorn_logger = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class Listener:
    """An app and the socket on which it is served; `announcement` has a placeholder for the URL."""

    socket: socket.socket
    app: ASGIApp
    announcement: str

    @property
    def url(self) -> str:
        """The URL of the socket."""
        host, port = self.socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises SettingsError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as exc:
        raise SettingsError(f"cannot listen on {host}:{port}: {exc.strerror or exc}") from exc
    # Connections inherit the options.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_OPTIONS.items():
        option = getattr(socket, name, None)
        if option is not None:  # not every system has all of them
            listener.setsockopt(socket.IPPROTO_TCP, option, value)
    return listener


class _Server(uvicorn.Server):
    """A server without signal handlers: uvicorn's raise the signal again, which ends the process with an error."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServers:
    """HTTP servers that are started and stopped together."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners
        limit = connection_limit() // max(1, len(listeners))
        self._servers = [_Server(_configure(listener.app, limit)) for listener in listeners]

    async def serve(self, notify: Callable[[str], None]) -> None:
        """Serve until `stop` is called; `notify` gets a line with the URL of each server."""
        with AcceptErrors.logged(), _without_warnings():
            async with anyio.create_task_group() as tasks:
                for listener, server in zip(self._listeners, self._servers, strict=True):
                    notify(listener.announcement.format(listener.url))
                    tasks.start_soon(server.serve, [listener.socket])

    def stop(self) -> None:
        """Stop all servers after at most `SHUTDOWN_SECONDS`."""
        _uvicorn_logger.setLevel(logging.CRITICAL)  # it logs an error for every connection that is still open then
        for server in self._servers:
            server.should_exit = True


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Log only errors of uvicorn in the block: anybody can cause its warnings, with each invalid request one or two."""
    level = _uvicorn_logger.level
    _uvicorn_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _uvicorn_logger.setLevel(level)


def _configure(app: ASGIApp, connections: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        # On h11: httptools does not strip white space around header values, as RFC 9110 requires.
        http=Connection,
        ws="none",
        limit_concurrency=connections + 1,  # uvicorn refuses requests when this number is reached
        backlog=min(BACKLOG, connections // 2),
        lifespan="auto",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
