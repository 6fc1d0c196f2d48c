"""One HTTP request to a provider and its response, over an httpx transport."""

import socket
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
from httpx_sse import EventSource

from mcp_taskruns import __version__
from mcp_taskruns.core.calls.errors import unknown_outcome_hint
from mcp_taskruns.core.calls.request import HttpRequest
from mcp_taskruns.core.calls.response import JSON_LINES, HttpResponse
from mcp_taskruns.core.calls.sse import EventId, InvalidEventStream
from mcp_taskruns.core.runs.events import Event
from mcp_taskruns.engine.decoding import ACCEPT_ENCODING, DecodingTransport, is_event_stream, whole_body
from mcp_taskruns.engine.transport import NEW_CONNECTION, AiohttpTransport
from mcp_taskruns.errors import CallError, InvalidArguments, Kind, NotConfigured, UpstreamError

MAX_PARSED_BYTES = 8_000_000
"""The largest JSON or text body. Parsing it blocks the event loop for less than 0.1 s."""

MAX_FILE_BYTES = 32_000_000
"""The largest file, or log of JSON lines."""

MAX_URL_CHARS = 65_536
"""The longest URL that httpx accepts."""

CONNECT_SECONDS = 10.0

SILENCE_SECONDS = 75.0
"""An event stream that sends nothing for so long is dead: providers send a keep-alive every 20 to 25 s."""

_HEADERS = [("User-Agent", f"mcp-taskruns/{__version__}"), ("Accept-Encoding", ACCEPT_ENCODING)]


class OpenResponse:
    """A response whose status and headers have arrived; its body is still to be read, whole or event by event."""

    def __init__(self, response: httpx.Response, request: HttpRequest) -> None:
        self._response = response
        self._request = request

    @property
    def is_event_stream(self) -> bool:
        """Whether the body is a stream of server-sent events that can be followed."""
        return is_event_stream(self._response)

    async def aclose(self) -> None:
        """Close the response, and with an unread body its connection."""
        await self._response.aclose()

    async def read(self, *, is_file: bool = False) -> HttpResponse:
        """Return the response with its whole body.

        Raises UpstreamError for a body that is too large, incomplete, or cannot be decoded.
        """
        media_type = self._response.headers.get("content-type", "").partition(";")[0].strip().lower()
        max_bytes = MAX_FILE_BYTES if is_file or media_type in JSON_LINES else MAX_PARSED_BYTES
        body = bytearray()
        with translated_errors(self._request):
            async for chunk in whole_body(self._response):
                body += chunk
                if len(body) > max_bytes:
                    raise UpstreamError(
                        f"{self._request.provider} sent more than {max_bytes:,} bytes", hint="Ask for less at a time."
                    )
        return HttpResponse(self._response.status_code, dict(self._response.headers), bytes(body), time.time())

    async def events(self) -> AsyncGenerator[Event, None]:
        """Return the events as they arrive, keep-alives included.

        Raises UpstreamError when the connection is lost, or the body is not an event stream.
        """
        last_id = ""
        with translated_errors(self._request):
            async with aclosing(EventSource(self._response).aiter_sse()) as events:
                async for event in events:
                    event_id = EventId.parse(event.id)
                    last_id = event_id.value if event_id.is_own else last_id
                    retry_s = None if event.retry is None else event.retry / 1000
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
            request.url,
            headers=[*_HEADERS, *request.headers],
            content=request.content,
            extensions={"timeout": self._timeouts_of(request), NEW_CONNECTION: not request.safe_to_retry},
        )
        if request.digest is None:
            return await self._transport.handle_async_request(message)
        return await self._send_with_digest(message, *request.digest)

    def _timeouts_of(self, request: HttpRequest) -> dict[str, float]:
        expects_stream = any(
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


class UnsupportedChallenge(Exception):
    """The provider asks for digest authentication in a form that httpx does not support."""


@dataclass(frozen=True)
class _Failure:
    """What an exception of an httpx transport means.

    `is_unsent`: the request was not sent. `is_lasting`: a retry cannot help. The message has the placeholders
    `{provider}` and `{host}`.
    """

    message: str
    kind: Kind = "unavailable"
    is_unsent: bool = True
    is_lasting: bool = False
    hint: str = ""


UNSENT_HINT = "Nothing was sent. Check that the provider is up, and its address in the server's environment."

_TLS = "no secure connection to {provider} at {host}: its certificate or TLS version is not accepted"

_FAILURES: tuple[tuple[type[Exception], type[Exception], _Failure], ...] = (
    # The first row that matches: the exception, an exception among its causes, and what they mean.
    (
        httpx.ConnectError,
        ssl.SSLCertVerificationError,
        _Failure(
            _TLS,
            is_lasting=True,
            hint=f"{UNSENT_HINT} A certificate authority of your own must be trusted by the machine.",
        ),
    ),
    (httpx.ConnectError, ssl.SSLError, _Failure(_TLS, is_lasting=True)),
    (httpx.ConnectError, socket.gaierror, _Failure("{provider} could not be reached: the host {host} is unknown")),
    (httpx.ConnectError, Exception, _Failure("{provider} could not be reached: {host} refused the connection")),
    (
        httpx.ProxyError,
        Exception,
        _Failure("{provider} could not be reached: the proxy in the server's environment refused the connection"),
    ),
    (
        httpx.ConnectTimeout,
        Exception,
        _Failure("{provider} could not be reached: no connection to {host} in time", kind="timeout"),
    ),
    (
        httpx.PoolTimeout,
        Exception,
        _Failure("{provider} could not be reached: no connection to {host} in time", kind="timeout"),
    ),
    (
        httpx.TimeoutException,
        Exception,
        _Failure("{provider} did not respond in time", kind="timeout", is_unsent=False),
    ),
    (
        httpx.DecodingError,
        Exception,
        _Failure("{provider} sent a body that cannot be decoded", is_unsent=False),
    ),
    (
        httpx.HTTPError,
        Exception,
        _Failure("the connection to {provider} was lost before its response was complete", is_unsent=False),
    ),
)


@contextmanager
def translated_errors(request: HttpRequest) -> Iterator[None]:
    """Translate the exceptions of a transport to ours."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, InvalidEventStream, UnsupportedChallenge) as exc:
        raise _translate(exc, request) from exc


def _translate(exc: Exception, request: HttpRequest) -> CallError:
    provider = request.provider
    if isinstance(exc, InvalidEventStream):
        return UpstreamError(
            f"{provider} sent {exc} instead of an event stream",
            hint="Following it again is not likely to help: read the run's status instead.",
        )
    if isinstance(exc, UnsupportedChallenge):
        return UpstreamError(
            f"{provider} asks for digest authentication in a form that this server does not support",
            kind="auth",
            hint="Please report this: the challenge does not follow RFC 7616.",
        )
    if isinstance(exc, httpx.UnsupportedProtocol | httpx.InvalidURL):
        return NotConfigured(
            f"{provider} cannot be reached: its address or the proxy in the environment cannot be used",
            hint="Correct the address, HTTPS_PROXY or ALL_PROXY in the server's environment.",
        )
    causes = tuple(_causes_of(exc))
    failure = next(
        failure
        for kind, cause, failure in _FAILURES
        if isinstance(exc, kind) and any(isinstance(one, cause) for one in causes)
    )
    return UpstreamError(
        failure.message.format(provider=provider, host=urlsplit(request.url).netloc),
        kind=failure.kind,
        hint=failure.hint or (UNSENT_HINT if failure.is_unsent else _hint_after_sending(request)),
        retryable=(failure.is_unsent or request.safe_to_retry) and not failure.is_lasting,
    )


def _causes_of(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


def _hint_after_sending(request: HttpRequest) -> str:
    return unknown_outcome_hint(is_safe=request.method in {"GET", "HEAD"}, is_safe_to_retry=request.safe_to_retry)
