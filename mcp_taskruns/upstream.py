"""HTTP to the providers: the one module that speaks it, and that knows what its library's errors mean."""

import ssl
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from urllib.request import getproxies

import aiohttp
import anyio
import truststore

# Where rich is installed, httpx imports its command line with it: 3 MB and 60 ms that a server has no use for.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # None is how an import is refused

import httpx
from httpx_aiohttp import AiohttpTransport
from httpx_sse import EventSource

from mcp_taskruns import __version__
from mcp_taskruns.core.request import UpstreamRequest
from mcp_taskruns.core.result import Answer, Event
from mcp_taskruns.errors import Kind, NotConfigured, UpstreamError

MAX_CONNECTIONS = 100
MAX_BODY_BYTES = 32_000_000
CONNECT_SECONDS = 10.0

_LIMITS = httpx.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=30)

_HEADERS = (
    ("User-Agent", f"mcp-taskruns/{__version__}"),
    # What httpx can decode without further packages; aiohttp would offer what it can decode itself.
    ("Accept-Encoding", "gzip, deflate"),
)


class UpstreamAnswer:
    """An answer whose status and headers have arrived and whose body has not been read."""

    def __init__(self, response: httpx.Response, request: UpstreamRequest) -> None:
        self._response = response
        self._request = request

    @property
    def is_event_stream(self) -> bool:
        """Whether the body is a stream of server-sent events that is worth following."""
        content_type = self._response.headers.get("content-type", "")
        return self._response.status_code < 300 and content_type.partition(";")[0].strip() == "text/event-stream"

    async def read(self) -> Answer:
        """The whole answer. Raises UpstreamError when it does not arrive whole or is larger than 32 MB."""
        body = b"".join([chunk async for chunk in self._chunks(MAX_BODY_BYTES)])
        return Answer(self._response.status_code, dict(self._response.headers), body)

    async def events(self, max_bytes: int) -> AsyncGenerator[Event, None]:
        """The events as they arrive. Raises UpstreamError when the stream breaks off or outgrows `max_bytes`."""
        bounded = httpx.Response(
            200, headers={"content-type": "text/event-stream"}, stream=_Stream(self._chunks(max_bytes))
        )
        async with aclosing(EventSource(bounded).aiter_sse()) as events:
            async for event in events:
                yield Event(event.data, event.event, event.id)

    async def _chunks(self, limit: int) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for chunk in self._response.aiter_bytes():
                size += len(chunk)
                if size > limit:
                    raise UpstreamError(
                        f"{self._request.provider} sent more than {limit:,} bytes", hint="Ask for less at a time."
                    )
                yield chunk
        except (httpx.HTTPError, httpx.StreamError, aiohttp.ClientError) as exc:
            raise _translate(exc, self._request) from exc


class _Stream(httpx.AsyncByteStream):
    """Bytes as httpx passes them on."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks


class Upstream:
    """One HTTP client for the process: at most 100 connections, no redirects, no cookies.

    `timeout` bounds in seconds how long a request may take until its body is read.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = httpx.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout)).as_dict()
        tls = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the authorities that the machine trusts
        if getproxies():
            # httpx's own transport knows NO_PROXY, and unlike aiohttp's it leaves netrc alone.
            client = httpx.AsyncClient(verify=tls, limits=_LIMITS, follow_redirects=False)
            self._send: Callable[[httpx.Request], Awaitable[httpx.Response]] = partial(client.send, stream=True)
            self._close = client.aclose
        else:
            # Straight to the transport: the client around it would cost as much again, for what is not used here.
            transport = AiohttpTransport(verify=tls, client=partial(_open_session, tls))
            self._send = transport.handle_async_request
            self._close = transport.aclose

    async def aclose(self) -> None:
        """Close all connections, within a second."""
        with anyio.move_on_after(1, shield=True):
            await self._close()

    @asynccontextmanager
    async def send(self, request: UpstreamRequest) -> AsyncIterator[UpstreamAnswer]:
        """Send a request; on leaving, an unread answer is hung up on.

        Raises UpstreamError when no answer arrives, NotConfigured when the provider's address is unusable.
        """
        try:
            outgoing = httpx.Request(
                request.method,
                request.url,
                headers=[*_HEADERS, *request.headers],
                content=request.content,
                extensions={"timeout": self._timeout},
            )
            response = await self._send(outgoing)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
            raise NotConfigured(f"the address of {request.provider} is not a URL that can be called") from exc
        except (httpx.HTTPError, aiohttp.ClientError) as exc:
            raise _translate(exc, request) from exc
        try:
            yield UpstreamAnswer(response, request)
        finally:
            with anyio.CancelScope(shield=True):  # closing does not wait for the provider
                await response.aclose()


def _open_session(tls: ssl.SSLContext) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=tls, keepalive_timeout=30)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


_CAUSES: tuple[tuple[tuple[type[BaseException], ...], Kind, str, str], ...] = (
    # The first that fits, the exception or its causes; httpx-aiohttp calls a refused connection a timeout.
    (
        (ssl.SSLError, aiohttp.ClientConnectorSSLError, aiohttp.ClientConnectorCertificateError),
        "unavailable",
        "no secure connection to {provider} at {host}: its certificate or TLS is not acceptable",
        "Check the address in the server's environment; for a private authority set SSL_CERT_FILE.",
    ),
    (
        (aiohttp.ClientConnectorDNSError,),
        "unavailable",
        "{provider} could not be reached: the host {host} is not known",
        "Check the address in the server's environment and the network.",
    ),
    (
        (aiohttp.ConnectionTimeoutError, httpx.PoolTimeout),
        "timeout",
        "{provider} could not be reached: no connection to {host} in time",
        "Try again later; nothing was sent.",
    ),
    (
        (aiohttp.ClientConnectorError, httpx.ConnectError),
        "unavailable",
        "{provider} could not be reached: {host} refused the connection",
        "Is the provider up, and the address in the server's environment right? Nothing was sent.",
    ),
    (
        (aiohttp.SocketTimeoutError, httpx.ReadTimeout, httpx.WriteTimeout),
        "timeout",
        "{provider} did not answer in time",
        "The request may have been carried out: read the current state before trying again.",
    ),
    (
        (aiohttp.ClientConnectionError,),
        "unavailable",
        "the connection to {provider} broke off before its answer was whole",
        "The request may have been carried out: read the current state before trying again.",
    ),
    (
        (httpx.ConnectTimeout,),
        "timeout",
        "{provider} could not be reached: no connection to {host} in time",
        "Try again later; nothing was sent.",
    ),
    (
        (BaseException,),
        "unavailable",
        "the connection to {provider} broke off before its answer was whole",
        "The request may have been carried out: read the current state before trying again.",
    ),
)
_NOTHING_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, httpx.ConnectError, httpx.PoolTimeout)


def _translate(exc: BaseException, request: UpstreamRequest) -> UpstreamError:
    chain = [exc]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    kind, message, hint = next(
        (kind, message, hint)
        for types, kind, message, hint in _CAUSES
        if any(isinstance(link, types) for link in chain)
    )
    unsent = any(isinstance(link, _NOTHING_SENT) for link in chain)
    return UpstreamError(
        message.format(provider=request.provider, host=httpx.URL(request.url).netloc.decode()),
        kind=kind,
        hint=hint,
        retryable=unsent or request.method in {"GET", "HEAD"},
    )
