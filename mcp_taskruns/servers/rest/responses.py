"""The response to a call: a result, an event stream or a problem."""

import re
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

MAX_HEADER_CHARS = 4_000
"""Characters of a header; many clients and proxies accept 8 KB for a line."""

_NAME = r"[A-Za-z0-9!#$&^_.+-]{1,127}"
_MEDIA_TYPE = re.compile(f"{_NAME}/{_NAME}")
"""A media type without parameters (RFC 6838, section 4.2)."""

_PASSIVE = re.compile(
    r"application/(json|x-ndjson|jsonl|json-lines|([\w.+-]+\+json))|text/(plain|csv|markdown|event-stream)"
    r"|image/(png|jpeg|gif|webp|avif)|audio/[\w.+-]+|video/[\w.+-]+"
)
"""Media types that a browser shows without running anything. It is asked to save all others."""

_INVISIBLE = re.compile(r"[^ -~]")


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
        content = result.text.encode("utf-8", "replace") if result.data is None else result.data
        status = result.status if result.status < 300 and result.status != 204 else 200
        notes = [("X-Note", note) for note in result.notes]
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
        media_type = media_type if _MEDIA_TYPE.fullmatch(media_type) else "application/octet-stream"
        is_text = media_type.startswith("text/") and media_type != "text/event-stream"
        content_type = f"{media_type}; charset=utf-8" if is_text else media_type
        if not _PASSIVE.fullmatch(media_type):
            headers = [("Content-Disposition", "attachment"), *headers]
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
    pairs = [(name.lower().encode("ascii"), _header_value(value)) for name, value in headers]
    return {"type": "http.response.start", "status": status, "headers": pairs}


def _header_value(text: str) -> bytes:
    """Return a text as one line of visible ASCII of bounded length: parts of it may come from a provider."""
    line = _INVISIBLE.sub("?", " ".join(text.split()))
    return (line if len(line) <= MAX_HEADER_CHARS else f"{line[: MAX_HEADER_CHARS - 3]}...").encode("ascii")


def encode_event(event: Event) -> bytes:
    """Return an event in the format of server-sent events."""
    lines = [f"event: {event.event}"] if event.event not in {"", "message"} else []
    lines += [f"id: {event.id}"] if event.has_id else []
    lines += [f"retry: {round(event.retry_s * 1000)}"] if event.retry_s is not None else []
    lines += [f"data: {line}" for line in event.data.split("\n")]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")
