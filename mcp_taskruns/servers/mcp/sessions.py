"""Sessions of the 2025 protocols over HTTP: their owners, their number, and the calls of clients that disconnected.

The SDK keeps the sessions. It does not know the tokens, and lets calls run on whose client is gone.
"""

import logging
import re
from dataclasses import dataclass, field
from typing import Any

import anyio
from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER, REQUEST_CANCELLED
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.types import INTERNAL_ERROR, INVALID_REQUEST
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_taskruns.servers.access import CLIENT

MAX_SESSIONS = 1_000
"""The maximum number of open sessions."""

MAX_CLIENT_SESSIONS = 100
"""The maximum number of open sessions of one token."""

IDLE_SECONDS = 1800.0
"""The time without a request after which the SDK closes a session."""

_CALL = "mcp_taskruns.call"
"""The key of an ASGI scope for the `_Call` that the request makes."""

_LOGGERS = ("mcp.server.streamable_http", "mcp.server.streamable_http_manager")
_SESSION_ID = re.compile(r"[0-9a-f]{32}")


def hide_session_ids() -> None:
    """Keep session ids out of the log: without tokens, an id is all that a session needs."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_hide_session_id)


def _hide_session_id(record: logging.LogRecord) -> bool:
    record.msg, record.args = _SESSION_ID.sub("[session]", record.getMessage()), ()
    return True


@dataclass(eq=False)
class _Call:
    """The call that a request makes.

    Only a call that has not ended is cancelled: anyio describes the task that cancels, which takes long.
    """

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    has_ended: bool = False

    def cancel(self) -> None:
        if not self.has_ended:
            self.scope.cancel()


@dataclass(eq=False)
class _Session:
    """A session: the number of its token, its requests in progress, and when the last one ended."""

    client: int | None
    requests: int = 0
    used_at: float = 0.0

    def is_open(self) -> bool:
        return bool(self.requests) or anyio.current_time() - self.used_at < IDLE_SECONDS


class Sessions:
    """ASGI middleware that gives a session only to the token that opened it, and limits the number of sessions."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._opening: list[_Session] = []
        self._sessions: dict[str, _Session] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if headers.get(MCP_PROTOCOL_VERSION_HEADER, LATEST_HANDSHAKE_VERSION) not in HANDSHAKE_PROTOCOL_VERSIONS:
            await self._app(scope, receive, send)  # later protocols have no sessions
            return
        session_id = headers.get(MCP_SESSION_ID_HEADER)
        if session_id is None:
            await self._open(scope, receive, send)
            return
        session = self._sessions.get(session_id)
        if session is None or session.client != scope.get(CLIENT):
            await _error(404, INVALID_REQUEST, "Session not found")(scope, receive, send)
            return
        status = await self._serve(session, scope, receive, send)
        if status == 404 or (scope["method"] == "DELETE" and status == 200):
            self._sessions.pop(session_id, None)

    async def _open(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that opens a session if there is room for one more."""
        session = _Session(scope.get(CLIENT))
        if self._is_full(session.client):
            await _error(503, INTERNAL_ERROR, "Too many open sessions")(scope, receive, send)
            return

        async def register(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                session_id = Headers(raw=message["headers"]).get(MCP_SESSION_ID_HEADER)
                if session_id is not None:
                    self._sessions[session_id] = session
            await send(message)

        self._opening.append(session)
        try:
            await self._serve(session, scope, receive, register)
        finally:
            self._opening.remove(session)

    def _is_full(self, client: int | None) -> bool:
        self._sessions = {key: session for key, session in self._sessions.items() if session.is_open()}
        sessions = {*self._sessions.values(), *self._opening}
        own = sum(session.client == client for session in sessions)
        return len(sessions) >= MAX_SESSIONS or (client is not None and own >= MAX_CLIENT_SESSIONS)

    async def _serve(self, session: _Session, scope: Scope, receive: Receive, send: Send) -> int | None:
        """Serve a request of a session, and cancel its call at the end; return the status code of the response."""
        status: int | None = None

        async def watch(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        call = _Call()
        # Nothing can be resumed: events have no ids. For a client that tries it, the SDK would send no response at all.
        headers = [(name, value) for name, value in scope["headers"] if name != b"last-event-id"]
        session.requests += 1
        try:
            await self._app({**scope, "headers": headers, _CALL: call}, receive, watch)
        finally:
            session.requests -= 1
            session.used_at = anyio.current_time()
            call.cancel()
        return status


async def cancel_with_request(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Cancel a call when its HTTP request has ended: the client is gone and cannot receive the result.

    The protocol lets clients resume an interrupted response by the ids of its events. The responses here have none.
    Middleware for the SDK's server.
    """
    # Notifications have a request too, but one of them is handled as long as the session lives.
    call: _Call | None = (
        ctx.request.scope.get(_CALL) if ctx.request is not None and ctx.request_id is not None else None
    )
    if call is None:
        return await call_next(ctx)
    with call.scope:
        try:
            return await call_next(ctx)
        finally:
            call.has_ended = True
    raise MCPError(REQUEST_CANCELLED, "Request cancelled: the client disconnected")


def _error(status: int, code: int, message: str) -> Response:
    error = {"code": code, "message": message}
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, status)
