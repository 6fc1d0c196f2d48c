"""The response to a call: a result, an event stream or a problem."""

from collections.abc import AsyncIterator

import anyio
from starlette.types import Message, Send

from mcp_taskruns.core.calls.redaction import Redactor
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.sse import Event
from mcp_taskruns.errors import CallError
from mcp_taskruns.servers.rest.problems import error_problem

KEEP_ALIVE_SECONDS = 15.0
"""The interval of comments in a silent event stream: proxies close idle connections after 30 to 60 seconds."""


class ResponseWriter:
    """Send one response."""

    def __init__(self, send: Send, redactor: Redactor) -> None:
        self._send = send
        self._redactor = redactor
        self._is_stream = False
        self._lock = anyio.Lock()
        self._sent_at = 0.0

    async def send_result(self, result: CallResult) -> None:
        """Send the provider's response, with notes about it as headers."""
        content = result.text.encode() if result.data is None else result.data
        status = result.status if result.status < 300 and result.status != 204 else 200
        notes = [("X-Note", note.encode("ascii", "replace").decode()) for note in result.notes]
        await self._start(status, result.media_type, notes)
        await self._send({"type": "http.response.body", "body": content})

    async def send_events(self, events: AsyncIterator[Event]) -> None:
        """Start an event stream and send events, and comments while there are none."""
        with anyio.CancelScope(shield=True):
            await self._start(200, "text/event-stream", [("Cache-Control", "no-store"), ("X-Accel-Buffering", "no")])
        self._is_stream = True
        failure: CallError | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_alive)
            try:
                async for event in events:
                    await self._write(encode_event(event))
            except CallError as exc:  # raised after the task group, which would wrap it
                failure = exc
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def end(self) -> None:
        """End an event stream."""
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, error: CallError, status: int | None = None) -> None:
        """Send a problem; in an event stream it is the data of a last event, `error`."""
        problem = error_problem(error, self._redactor, status)
        if self._is_stream:
            await self._write(b"event: error\ndata: " + bytes(problem.body) + b"\n\n")
            await self.end()
            return
        headers = [(name.decode(), value.decode()) for name, value in problem.raw_headers if name != b"content-length"]
        await self._send(_start_message(problem.status_code, headers))
        await self._send({"type": "http.response.body", "body": bytes(problem.body)})

    async def _keep_alive(self) -> None:
        while True:
            idle = anyio.current_time() - self._sent_at
            if idle >= KEEP_ALIVE_SECONDS:
                await self._write(b": keep-alive\n\n")
            else:
                await anyio.sleep(KEEP_ALIVE_SECONDS - idle)

    async def _write(self, data: bytes) -> None:
        async with self._lock:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
            self._sent_at = anyio.current_time()

    async def _start(self, status: int, media_type: str, headers: list[tuple[str, str]]) -> None:
        is_text = media_type.startswith("text/") and "charset" not in media_type
        content_type = f"{media_type}; charset=utf-8" if is_text and media_type != "text/event-stream" else media_type
        await self._send(_start_message(status, [("Content-Type", content_type), *headers]))
        self._sent_at = anyio.current_time()


def without_body(send: Send) -> Send:
    """Return a `send` that omits bodies, for HEAD."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return send_head


def _start_message(status: int, headers: list[tuple[str, str]]) -> Message:
    pairs = [(name.lower().encode("latin-1"), " ".join(value.split()).encode("latin-1")) for name, value in headers]
    return {"type": "http.response.start", "status": status, "headers": pairs}


def encode_event(event: Event) -> bytes:
    """Return an event in the format of server-sent events."""
    lines = [f"event: {event.event}"] if event.event not in {"", "message"} else []
    lines += [f"id: {event.id}"] if event.has_id else []
    lines += [f"retry: {round(event.retry_s * 1000)}"] if event.retry_s is not None else []
    lines += [f"data: {line}" for line in event.data.split("\n")]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")
