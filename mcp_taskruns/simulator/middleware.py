"""ASGI middleware that records requests, notices disconnected clients and applies faults."""

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_taskruns.simulator.faults import AlteredResponse, Fault
from mcp_taskruns.simulator.traffic import RecordedRequest, Traffic


class TrafficMiddleware:
    """Records every request to a provider and applies the fault queued for it."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self._app = app
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        provider = self._traffic.provider_of(scope["path"]) if scope["type"] == "http" else None
        if provider is None:
            await self._app(scope, receive, send)
            return
        body = await _read_body(receive)
        if body is None:
            return
        request = _recorded(provider, scope, body)
        fault = self._traffic.record(request)
        async with anyio.create_task_group() as group:
            exchange = _Exchange(request, fault, receive, send, group)
            group.start_soon(exchange.watch_client)
            with self._traffic.connection(provider, group.cancel_scope):
                await exchange.run(self._app, scope)
            group.cancel_scope.cancel()


class _Exchange:
    """One request and its response, with the client watched for a disconnect."""

    def __init__(
        self, request: RecordedRequest, fault: Fault | None, receive: Receive, send: Send, group: TaskGroup
    ) -> None:
        self._request = request
        self._fault = fault
        self._receive = receive
        self._send = send
        self._group = group
        self._unread: list[Message] = [{"type": "http.request", "body": request.body, "more_body": False}]
        self._is_complete = False
        self._disconnected = anyio.Event()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Respond after the fault's delay, with the fault's response or that of `app`."""
        if self._fault:
            with anyio.move_on_after(self._fault.delay):
                await self._disconnected.wait()
        if self._disconnected.is_set():
            return
        if self._fault is None:
            await app(scope, self.receive, self.send)
            return
        replacement = self._fault.response()
        if replacement is None or self._fault.carry_out:
            altered = AlteredResponse(self._fault, self.send)
            await app(scope, self.receive, altered.send if replacement is None else _discard)
        if replacement is not None:
            await replacement(scope, self.receive, self.send)

    async def watch_client(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._is_complete:
            self._request.disconnected.set()
        self._disconnected.set()

    async def receive(self) -> Message:
        if self._unread:
            return self._unread.pop()
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self._fault and self._fault.truncate and message.get("body"):
            half = message["body"][: len(message["body"]) // 2]
            self._is_complete = True
            await self._send({"type": "http.response.body", "body": half, "more_body": True})
            # The server drops the connection when the app returns with its response incomplete.
            self._group.cancel_scope.cancel()
            await checkpoint()
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._is_complete = True
        await self._send(message)


async def _discard(_: Message) -> None:
    """Lose a message of a response."""


def _recorded(provider: str, scope: Scope, body: bytes) -> RecordedRequest:
    raw_path, query = scope.get("raw_path") or scope["path"].encode(), scope["query_string"]
    return RecordedRequest(
        provider,
        scope["method"],
        (raw_path + (b"?" + query if query else b"")).decode("latin-1"),
        tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]),
        body,
    )


async def _read_body(receive: Receive) -> bytes | None:
    """Read the whole request body; return None if the client disconnects while sending it."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk: bytes = message.get("body", b"")
        body += chunk
        if not message.get("more_body"):
            return body
