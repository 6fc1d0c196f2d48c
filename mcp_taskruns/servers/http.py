"""Listening for HTTP: sockets, servers, and who may call."""

import hmac
import logging
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import anyio
import uvicorn
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_taskruns.core.calls.request import LOOPBACK
from mcp_taskruns.errors import SettingsError
from mcp_taskruns.settings import Settings

SHUTDOWN_SECONDS = 1
"""How long calls under way may take to end when a server is stopped."""


UNAUTHORIZED = "A bearer token of this server is needed."


@dataclass(frozen=True)
class Listener:
    """An app and the socket that it is served on; `announcement` has a hole for the address."""

    socket: socket.socket
    app: ASGIApp
    announcement: str

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self.socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises SettingsError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=512)
    except OSError as exc:
        raise SettingsError(f"cannot listen on {host}:{port}: {exc.strerror or exc}") from exc
    # Its connections inherit this; asyncio sees to it for its own sockets only. An answer would wait 40 ms otherwise.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class _QuietServer(uvicorn.Server):
    """Signals are ours: uvicorn raises them again after shutdown, which ends the process with an error."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServers:
    """HTTP servers that are started and stopped together."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners
        self._servers = [_QuietServer(_configure(listener.app)) for listener in listeners]

    async def serve(self, announce: Callable[[str], None]) -> None:
        """Serve until they are stopped; their addresses are announced."""
        async with anyio.create_task_group() as tasks:
            for listener, server in zip(self._listeners, self._servers, strict=True):
                announce(listener.announcement.format(listener.url))
                tasks.start_soon(server.serve, [listener.socket])

    def stop(self) -> None:
        """End them all within a moment."""
        # What clients leave open is cut then: no error, and no reason for a traceback.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        for server in self._servers:
            server.should_exit = True


def _configure(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",  # httptools does not strip white space around header values as RFC 9110 asks
        lifespan="auto",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


class HostCheck:
    """Refuses requests that a browser was made to send: their Host or Origin is another name than ours.

    Raises SettingsError when strangers could call, because the address is not loopback and no token is asked for.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.host not in LOOPBACK and not (settings.tokens or settings.insecure):
            raise SettingsError(
                f"--host {settings.host} lets other machines call this server with your keys: set MCP_TASKRUNS_TOKENS "
                "to the bearer tokens that may, or give --insecure if something else keeps strangers out"
            )
        names = [*sorted(LOOPBACK), settings.host, *settings.allowed_hosts]
        hosts = [f"[{name}]" if ":" in name and not name.startswith("[") else name for name in names]
        patterns = [pattern for host in hosts for pattern in (host, f"{host}:*")]
        # Given whatever the address: with a host that is not loopback the SDK's default checks nothing.
        self.security = TransportSecuritySettings(
            allowed_hosts=patterns,
            allowed_origins=[f"{scheme}://{pattern}" for scheme in ("http", "https") for pattern in patterns],
        )

    async def __call__(self, request: Request) -> Response | None:
        return await TransportSecurityMiddleware(self.security).validate_request(request)


class BearerTokens:
    """Lets only requests with one of the tokens reach the app; to ask for /health is for everybody."""

    def __init__(self, app: ASGIApp, tokens: tuple[str, ...], refusal: Response | None = None) -> None:
        self._app = app
        self._refusal = refusal or Response(f"{UNAUTHORIZED}\n", 401, {"WWW-Authenticate": "Bearer"})
        self._tokens = [token.encode() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_open = scope.get("path") == "/health" and scope.get("method") in {"GET", "HEAD"}
        if scope["type"] == "http" and not is_open and not self._is_known(dict(scope["headers"])):
            await self._refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_known(self, headers: Mapping[bytes, bytes]) -> bool:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        # All are compared, each in constant time: how long it takes tells nothing.
        matches = [hmac.compare_digest(token.strip(), known) for known in self._tokens]
        return scheme.lower() == b"bearer" and any(matches)
