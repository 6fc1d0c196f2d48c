"""One HTTP request to a provider and its response, over an httpx transport."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import lru_cache
from urllib.parse import urlsplit

import httpx
from httpx_sse import EventSource

from mcp_taskruns import __version__
from mcp_taskruns.core.calls.received import JSON_LINES, HttpResponse
from mcp_taskruns.core.calls.request import HttpRequest
from mcp_taskruns.core.calls.sse import Event, EventId
from mcp_taskruns.engine.decoding import ACCEPT_ENCODING, LINES, DecodingTransport, is_event_stream, whole_body
from mcp_taskruns.engine.transport import NEW_CONNECTION, PROXY, PUBLIC_ONLY, AiohttpTransport
from mcp_taskruns.engine.transport_errors import (
    MAX_HEADER_BYTES,
    HeadersTooLarge,
    UnsupportedChallenge,
    translated_errors,
)
from mcp_taskruns.errors import InvalidArguments, UpstreamError

MAX_PARSED_BYTES = 8_000_000
"""The largest JSON or text body. Parsing it blocks the event loop for less than 0.1 s."""

MAX_FILE_BYTES = 32_000_000
"""The largest file, or log of JSON lines."""

LARGE_BYTES = 1_000_000
"""A larger body is read when it is its turn: many of them would take too much memory."""

MAX_URL_CHARS = 65_536
"""The longest URL that httpx accepts."""

CONNECT_SECONDS = 10.0

MAX_RETRY_MS = 30_000
"""The longest delay before a new connection that an event stream can ask for, in milliseconds."""

SILENCE_SECONDS = 75.0
"""An event stream that sends nothing for so long is dead: providers send a keep-alive every 20 to 25 s."""

_HEADERS = [("User-Agent", f"mcp-taskruns/{__version__}"), ("Accept-Encoding", ACCEPT_ENCODING)]
"""Headers of every request that does not have its own."""


_parse_url = lru_cache(maxsize=64)(httpx.URL)
"""Parse a URL. Runs are read again and again, and parsing takes longer than the rest of a request's construction."""


Before = Callable[[], Awaitable[object]]


async def do_nothing() -> None:
    """Continue at once."""


class OpenResponse:
    """A response whose status and headers have arrived; its body is still to be read, whole or event by event."""

    def __init__(self, response: httpx.Response, request: HttpRequest) -> None:
        self.request = request
        self._response = response

    @property
    def status(self) -> int:
        """The status code."""
        return self._response.status_code

    @property
    def location(self) -> str:
        """The address to which a redirect leads; it may hold a credential. Empty if there is none."""
        return str(self._response.headers.get("location", ""))

    @property
    def is_event_stream(self) -> bool:
        """Whether the body is a stream of server-sent events that can be followed."""
        return is_event_stream(self._response)

    async def aclose(self) -> None:
        """Close the response, and with an unread body its connection."""
        await self._response.aclose()

    async def read(self, *, is_file: bool = False, before_more: Before = do_nothing) -> HttpResponse:
        """Return the response with its whole body; `before_more` is awaited before more than LARGE_BYTES are read.

        Raises UpstreamError for a body that is too large, incomplete, or cannot be decoded.
        """
        headers = dict(self._response.headers.items())
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        max_bytes = MAX_FILE_BYTES if is_file or media_type in JSON_LINES else MAX_PARSED_BYTES
        body = bytearray()
        with translated_errors(self.request):
            async for chunk in whole_body(self._response):
                if len(body) <= LARGE_BYTES < len(body) + len(chunk):
                    await before_more()
                body += chunk
                if len(body) > max_bytes:
                    raise UpstreamError(
                        f"{self.request.provider} sent more than {max_bytes:,} bytes", hint="Ask for less at a time."
                    )
        return HttpResponse(
            self._response.status_code,
            headers,
            bytes(body),
            time.time(),
            host=urlsplit(self.request.url).netloc,
            proxy=self._response.extensions.get(PROXY, ""),
        )

    async def events(self) -> AsyncGenerator[Event, None]:
        """Return the events as they arrive, keep-alives included.

        Raises UpstreamError when the connection is lost, or the body is not an event stream.
        """
        last_id = ""
        with translated_errors(self.request):
            async with aclosing(EventSource(self._response).aiter_sse()) as events:
                async for event in events:
                    event_id = EventId.parse(event.id)
                    last_id = event_id.value if event_id.is_own else last_id
                    retry_s = None if event.retry is None else min(event.retry, MAX_RETRY_MS) / 1000
                    yield Event(event.data, event.event, last_id, event_id.is_own, retry_s, event_id.is_truncated)


class Exchange:
    """Sends requests over an httpx transport and reads responses; follows no redirects and keeps no cookies.

    `timeout` is the longest silence of a provider, in seconds.
    """

    def __init__(self, timeout: float, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._transport = DecodingTransport(transport or AiohttpTransport())
        self._timeout = timeout
        self._digests: dict[tuple[str, ...], httpx.DigestAuth] = {}

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    @asynccontextmanager
    async def send(self, request: HttpRequest) -> AsyncIterator[OpenResponse]:
        """Send a request; leaving the block closes the response, and with an unread body its connection.

        Raises UpstreamError when no response arrives, NotConfigured when the provider's address or the proxy of the
        environment cannot be used.
        """
        with translated_errors(request):
            response = await self._send(request)
            if _header_bytes(response) > MAX_HEADER_BYTES:
                await response.aclose()
                raise HeadersTooLarge(request.provider)
        try:
            yield OpenResponse(response, request)
        finally:
            await response.aclose()

    async def _send(self, request: HttpRequest) -> httpx.Response:
        if len(request.url) > MAX_URL_CHARS:
            raise InvalidArguments(
                f"the request's URL would have {len(request.url):,} characters, {MAX_URL_CHARS:,} are allowed",
                hint="Nothing was sent. Pass shorter arguments.",
            )
        message = httpx.Request(
            request.method,
            _parse_url(request.url),
            headers=_with_defaults(request.headers),
            content=request.content,
            extensions={
                "timeout": self._timeouts_of(request),
                NEW_CONNECTION: not request.safe_to_retry,
                PUBLIC_ONLY: request.public_only,
                LINES: request.stream_format == "ndjson",
            },
        )
        if request.digest is None:
            return await self._transport.handle_async_request(message)
        return await self._send_with_digest(message, *request.digest)

    def _timeouts_of(self, request: HttpRequest) -> dict[str, float]:
        expects_stream = request.stream_format is not None or any(
            name == "Accept" and value.startswith("text/event-stream") for name, value in request.headers
        )
        return {
            "connect": min(CONNECT_SECONDS, self._timeout),
            "pool": self._timeout,
            "read": SILENCE_SECONDS if expects_stream else request.timeout_s or self._timeout,
            "write": self._timeout,
        }

    async def _send_with_digest(self, message: httpx.Request, user: str, password: str) -> httpx.Response:
        """Send a request with HTTP digest authentication (RFC 7616); a known challenge is anticipated."""
        key = (message.url.netloc.decode(), user, password)
        flow = self._digests.setdefault(key, httpx.DigestAuth(user, password)).async_auth_flow(message)
        async with aclosing(flow):
            message = await anext(flow)
            while True:
                response = await self._transport.handle_async_request(message)
                try:
                    message = await flow.asend(response)
                except StopAsyncIteration:
                    return response
                except (httpx.ProtocolError, NotImplementedError, KeyError, ValueError) as exc:
                    await response.aclose()
                    raise UnsupportedChallenge(str(exc)) from exc
                await response.aclose()


def _with_defaults(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    names = {name.lower() for name, _ in headers}
    return [*(default for default in _HEADERS if default[0].lower() not in names), *headers]


def _header_bytes(response: httpx.Response) -> int:
    """Return the size of the header fields as they are sent, each with a colon, a space and the end of its line."""
    return sum(len(name) + len(value) + 4 for name, value in response.headers.raw)
