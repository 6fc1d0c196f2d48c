"""Limits on the bodies of requests: the size and the time of each, and the bytes of all."""

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_taskruns.servers.access import Refusal, Refuse

MAX_BODY_BYTES = 64_000_000
"""The maximum size of a body, as for MCP messages over stdio; a file of 30 MiB in base64 fits."""

MAX_ALL_BODIES_BYTES = 256_000_000
"""The maximum size of the bodies of all requests that are being received or served."""

BODY_SECONDS = 60.0
"""The timeout for receiving a body."""


class BodyBudget:
    """The bytes that bodies may take together; the servers of a process share one."""

    def __init__(self, size: int = MAX_ALL_BODIES_BYTES) -> None:
        self._free = size

    def take(self, size: int) -> bool:
        """Take these bytes; return whether they were free."""
        if size > self._free:
            return False
        self._free -= size
        return True

    def give_back(self, size: int) -> None:
        """Free bytes that were taken."""
        self._free += size


class BodyLimit:
    """ASGI middleware that receives a body completely before it calls the app, or refuses the request."""

    def __init__(self, app: ASGIApp, budget: BodyBudget, refuse: Refuse) -> None:
        self._app = app
        self._budget = budget
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(self._budget)
        try:
            app = await self._receive(body, scope, receive)
            if app is not None:
                await app(scope, body.replay_before(receive), send)
        finally:
            self._budget.give_back(body.size)

    async def _receive(self, body: "_Body", scope: Scope, receive: Receive) -> ASGIApp | None:
        """Return the app for a request whose body was received, or a refusal; None if the client disconnected."""
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
            return self._refuse(_too_large())
        with anyio.move_on_after(BODY_SECONDS):
            while body.is_incomplete:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                refusal = body.add(message)
                if refusal is not None:
                    return self._refuse(refusal)
            return self._app
        return self._refuse(_too_slow())


class _Body:
    """One body; `size` bytes of the budget are taken for it."""

    def __init__(self, budget: BodyBudget) -> None:
        self.size = 0
        self.is_incomplete = True
        self._budget = budget
        self._content = bytearray()

    def add(self, message: Message) -> Refusal | None:
        """Keep the content of a message, or return why it is refused."""
        content = message.get("body", b"")
        if self.size + len(content) > MAX_BODY_BYTES:
            return _too_large()
        if not self._budget.take(len(content)):
            hint = "Retry when other requests have ended."
            return Refusal(503, "too many large requests are active", hint, {"Retry-After": "5"})
        self.size += len(content)
        self.is_incomplete = message.get("more_body", False)
        self._content += content
        return None

    def replay_before(self, receive: Receive) -> Receive:
        """Return a `receive` that returns the body first."""
        message: Message | None = {"type": "http.request", "body": bytes(self._content), "more_body": False}
        self._content.clear()

        async def replay() -> Message:
            nonlocal message
            replayed, message = message, None
            return replayed or await receive()

        return replay


def _too_large() -> Refusal:
    return Refusal(413, f"the body is larger than {MAX_BODY_BYTES:,} bytes", "Send less, or a file in parts.")


def _too_slow() -> Refusal:
    message = f"the body was not received within {BODY_SECONDS:g} s"
    return Refusal(408, message, "Send the request again.", {"Connection": "close"})
