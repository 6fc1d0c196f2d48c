"""Faults: failures that a test or another process injects into the response to the next request."""

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from starlette.responses import Response
from starlette.types import Message, Send

from mcp_taskruns.simulator.http import Json


@dataclass(frozen=True)
class Fault:
    """A delay, an error response, or an altered or truncated response for the next request to a provider.

    Raises ValueError when the fields do not fit together.
    """

    # Status code of a response that replaces the provider's own. None keeps the provider's response.
    status: int | None = None
    # Headers and body of the replacement.
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | bytes = b""
    # Real seconds to wait before responding.
    delay: float = 0.0
    # Announce the whole body, send half of its first chunk and drop the connection.
    truncate: bool = False
    # Carry out the request, although the response with `status` replaces its own.
    carry_out: bool = False
    # Compress the body with gzip and leave out its end. An event stream is not changed.
    truncate_gzip: bool = False
    # Leave out the events of a stream that match this regular expression.
    omit_events: str = ""
    # Begin an event stream with this text.
    first_event: str = ""

    def __post_init__(self) -> None:
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError(f"`status` must be between 200 and 599, not {self.status}")
        if self.delay < 0:
            raise ValueError(f"`delay` must not be negative: {self.delay}")
        if self.truncate and self.status is not None and not self.body:
            raise ValueError("`truncate` with a `status` needs a `body` to truncate")
        if self.carry_out and self.status is None:
            raise ValueError("`carry_out` needs a `status`")
        try:
            re.compile(self.omit_events)
        except re.error as error:
            raise ValueError(f"`omit_events` is not a regular expression: {error}") from error

    def response(self) -> Response | None:
        """Build the replacement response, or return None if the provider responds itself."""
        return None if self.status is None else Response(self.body, self.status, dict(self.headers))


class AlteredResponse:
    """Sends a response as a fault alters its body. The simulated providers send each event as one message."""

    def __init__(self, fault: Fault, send: Send) -> None:
        self._fault = fault
        self._send = send
        self._start: Message | None = None
        self._body = b""
        self._is_stream = False

    async def send(self, message: Message) -> None:
        """Send a message of the response."""
        if message["type"] == "http.response.start":
            self._is_stream = dict(message["headers"]).get(b"content-type", b"").startswith(b"text/event-stream")
            self._start = message
            if self._is_stream or not self._fault.truncate_gzip:
                await self._send(message)
        elif self._is_stream:
            await self._send_event(message)
        elif self._fault.truncate_gzip:
            await self._send_truncated(message)
        else:
            await self._send(message)

    async def _send_event(self, message: Message) -> None:
        body: bytes = message.get("body", b"")
        if self._fault.omit_events and re.search(self._fault.omit_events, body.decode()):
            body = b""
        if self._start is not None:
            body, self._start = self._fault.first_event.encode() + body, None
        await self._send({**message, "body": body})

    async def _send_truncated(self, message: Message) -> None:
        self._body += message.get("body", b"")
        if message.get("more_body") or self._start is None:
            return
        headers = [(name, value) for name, value in self._start["headers"] if name != b"content-length"]
        await self._send({**self._start, "headers": [*headers, (b"content-encoding", b"gzip")]})
        await self._send({**message, "body": gzip.compress(self._body)[:-9]})


def parse_fault(document: Json) -> tuple[str, Fault]:
    """Read a provider name and a fault from JSON. A `body` that is not a string is sent as JSON.

    Raises ValueError for a document that does not describe a fault.
    """
    if not isinstance(document, dict) or not isinstance(document.get("provider"), str):
        raise ValueError("a fault must be a JSON object with a `provider`")
    if unknown := set(document) - {"provider", *(each.name for each in fields(Fault))}:
        raise ValueError(f"unknown fields: {', '.join(sorted(unknown))}")
    values = {name: value for name, value in document.items() if name != "provider" and value is not None}
    try:
        if not isinstance(values.get("body", ""), str):
            values["body"] = json.dumps(values["body"])
            values["headers"] = {"Content-Type": "application/json"} | values.get("headers", {})
        return document["provider"], Fault(**values)
    except TypeError as error:
        raise ValueError(str(error)) from error
