"""HTTP to the providers: the one module that speaks it, and that knows what its library's errors mean."""

import os
import ssl
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from io import BytesIO
from math import inf
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import anyio
import truststore

# aiohttp's list of signals is made in C++, whose library takes 1 MB, for lists that stay empty here.
os.environ.setdefault("FROZENLIST_NO_EXTENSIONS", "1")
# Where rich is installed, httpx imports its command line with it: 3 MB and 60 ms that a server has no use for. Nobody
# speaks WebSocket here.
for _name in ("httpx._main", "aiohttp._websocket.reader_c", "aiohttp._websocket.mask"):
    sys.modules.setdefault(_name, None)  # type: ignore[arg-type]  # None is how an import is refused

TLS = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts the authorities that the machine trusts."""

# At import aiohttp makes a context for connections that name none: 2 MB of authorities, and 30 ms. It gets ours.
_create_default_context = ssl.create_default_context
ssl.create_default_context = lambda: TLS  # type: ignore[assignment, misc]  # for this import alone
import aiohttp

ssl.create_default_context = _create_default_context

import httpx
import yarl
from httpx_sse import EventSource

from mcp_taskruns import __version__
from mcp_taskruns.core.calls.errors import unknown_outcome_hint
from mcp_taskruns.core.calls.request import LOOPBACK, HttpRequest
from mcp_taskruns.core.calls.response import HttpResponse
from mcp_taskruns.core.calls.sse import Block, BlockReader
from mcp_taskruns.core.runs.events import Event
from mcp_taskruns.errors import Kind, NotConfigured, UpstreamError

MAX_BODY_BYTES = 32_000_000
MAX_PIECE_BYTES = 1_000_000
CONNECT_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 4.0
"""Many servers close a connection that was idle for 5 seconds: one that is about to be closed is not used again."""
SILENCE_SECONDS = 75.0
"""A stream that brings not even a keep-alive for so long is dead: PostHog sends one every 20 s, Render every 25 s."""

_HEADERS = (
    ("User-Agent", f"mcp-taskruns/{__version__}"),
    # What httpx can decode without further packages; aiohttp would offer what it can decode itself.
    ("Accept-Encoding", "gzip, deflate"),
)


class UpstreamAnswer:
    """An answer whose status and headers have arrived and whose body has not been read."""

    def __init__(self, response: httpx.Response, request: HttpRequest, hang_up: Callable[[], None]) -> None:
        self._response = response
        self._request = request
        self.hang_up = hang_up

    @property
    def is_event_stream(self) -> bool:
        """Whether the body is a stream of server-sent events that is worth following."""
        media_type = self._response.headers.get("content-type", "").partition(";")[0].strip().lower()
        return self._response.status_code < 300 and media_type == "text/event-stream"

    async def read(self) -> HttpResponse:
        """The whole answer. Raises UpstreamError when it does not arrive whole or is larger than 32 MB."""
        body = b"".join([chunk async for chunk in self._chunks(MAX_BODY_BYTES)])
        return HttpResponse(self._response.status_code, dict(self._response.headers), body, time.time())

    async def events(self) -> AsyncGenerator[Event, None]:
        """The events as they arrive, also those that only carry an id.

        Raises UpstreamError when the stream breaks off, or when it is none.
        """
        blocks = _Blocks(self._chunks(inf), BlockReader(self._request.provider))
        bounded = httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=blocks)
        async with aclosing(EventSource(bounded).aiter_sse()) as events:
            async for event in events:
                retry_s = None if event.retry is None else event.retry / 1000
                yield Event(event.data, event.event, event.id, blocks.last.has_id, retry_s, blocks.last.is_cut)

    async def _chunks(self, limit: float) -> AsyncIterator[bytes]:
        """The body, decoded and bounded."""
        size = 0
        try:
            async for chunk in self._response.aiter_bytes():
                size += len(chunk)
                if size > limit:
                    raise UpstreamError(
                        f"{self._request.provider} sent more than {limit:,} bytes", hint="Ask for less at a time."
                    )
                yield chunk
        except (aiohttp.ClientError, httpx.DecodingError) as exc:
            raise _translate(exc, self._request) from exc


class _Stream(httpx.AsyncByteStream):
    """Bytes as httpx reads them."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks


class _Blocks(httpx.AsyncByteStream):
    """An event stream block by block, so that what is decoded next is of `last`."""

    def __init__(self, chunks: AsyncIterator[bytes], reader: BlockReader) -> None:
        self._chunks = chunks
        self._reader = reader
        self.last = Block(b"", False, False)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            for block in self._reader.feed(chunk):
                self.last = block
                yield block.data
        self._reader.end()


class Upstream:
    """One HTTP client for the process: no redirects, no cookies, no bound on connections but its callers'.

    The connections are aiohttp's; httpx decodes what they bring. What must not arrive twice goes over a connection that
    is new: one that the provider has closed meanwhile would leave open whether it arrived. `timeout` bounds in seconds
    how long a provider may be silent; who sends bounds how long it may take in all.
    """

    def __init__(self, timeout: float) -> None:
        self._session = self._open_session(keep_alive=True)
        self._unrepeated: aiohttp.ClientSession | None = None
        self._timeout = timeout
        self._proxies = getproxies()
        self._challenged: dict[tuple[str, ...], aiohttp.DigestAuthMiddleware] = {}

    async def aclose(self) -> None:
        """Close all connections, within a second."""
        with anyio.move_on_after(1, shield=True):
            await self._session.close()
            if self._unrepeated is not None:
                await self._unrepeated.close()

    @asynccontextmanager
    async def send(self, request: HttpRequest) -> AsyncIterator[UpstreamAnswer]:
        """Send a request; on leaving, an unread answer is hung up on.

        Raises UpstreamError when no answer arrives, NotConfigured when the way to the provider cannot be used.
        """
        streams = any(name == "Accept" and value.startswith("text/event-stream") for name, value in request.headers)
        silence = SILENCE_SECONDS if streams else request.timeout_s or self._timeout
        try:
            response = await (self._session if request.repeatable else self._open_unrepeated()).request(
                request.method,
                yarl.URL(request.url, encoded=True),  # or it would be rewritten: `%2C` to `,`
                headers=[*_HEADERS, *request.headers],
                data=_in_pieces(request.content),
                middlewares=self._digests(request),
                allow_redirects=False,
                skip_auto_headers=["Content-Type"],
                proxy=self._proxy_for(request.url),
                timeout=aiohttp.ClientTimeout(
                    connect=self._timeout, sock_connect=min(CONNECT_SECONDS, self._timeout), sock_read=silence
                ),
            )
        except aiohttp.ClientError as exc:
            raise _translate(exc, request) from exc
        except ValueError as exc:  # such as a proxy that speaks SOCKS
            raise NotConfigured(
                f"there is no way to {request.provider}: its address or the proxy in the environment cannot be used",
                hint="Correct the address, HTTPS_PROXY or ALL_PROXY in the server's environment.",
            ) from exc
        try:
            body = _Stream(response.content.iter_any())
            read = httpx.Response(response.status, headers=response.raw_headers, stream=body)
            yield UpstreamAnswer(read, request, response.close)
        finally:
            if response.content.at_eof():
                response.release()
            else:
                response.close()

    def _digests(self, request: HttpRequest) -> tuple[aiohttp.DigestAuthMiddleware, ...]:
        """What answers a challenge; one for each user, so that the next request need not be challenged again."""
        if request.digest is None:
            return ()
        key = (urlsplit(request.url).netloc, *request.digest)
        if key not in self._challenged:
            user, password = request.digest
            self._challenged[key] = aiohttp.DigestAuthMiddleware(user, password)
        return (self._challenged[key],)

    def _open_unrepeated(self) -> aiohttp.ClientSession:
        if self._unrepeated is None:
            self._unrepeated = self._open_session(keep_alive=False)
        return self._unrepeated

    def _open_session(self, *, keep_alive: bool) -> aiohttp.ClientSession:
        lasting: Any = {"keepalive_timeout": KEEP_ALIVE_SECONDS} if keep_alive else {"force_close": True}
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=TLS, **lasting),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        # aiohttp sends a DELETE again whose connection broke, and has no public word against it.
        session._retry_connection = False
        return session

    def _proxy_for(self, url: str) -> str | None:
        """The environment's proxy; never for this machine, where credentials may be sent in clear."""
        parts = urlsplit(url)
        if not self._proxies or parts.hostname in LOOPBACK or proxy_bypass(parts.netloc):
            return None
        proxy = self._proxies.get(parts.scheme) or self._proxies.get("all")
        if proxy and urlsplit(proxy).scheme not in {"http", "https"}:
            raise ValueError("aiohttp would speak HTTP to it")
        return proxy


UNSENT_HINT = "Nothing was sent: is the provider up, and the address in the server's environment right?"

_CAUSES: tuple[tuple[tuple[type[BaseException], ...], Kind, bool, str], ...] = (
    # the first that fits: what was raised, its kind, whether nothing was sent, what happened
    (
        (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError, aiohttp.ServerFingerprintMismatch),
        "unavailable",
        True,
        "no secure connection to {provider} at {host}: its certificate or TLS is not acceptable",
    ),
    (
        (aiohttp.ClientConnectorDNSError,),
        "unavailable",
        True,
        "{provider} could not be reached: the host {host} is not known",
    ),
    (
        (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError),
        "unavailable",
        True,
        "{provider} could not be reached: the proxy in the server's environment does not let through",
    ),
    (
        (aiohttp.ClientConnectorError,),
        "unavailable",
        True,
        "{provider} could not be reached: {host} refused the connection",
    ),
    (
        (aiohttp.ConnectionTimeoutError,),
        "timeout",
        True,
        "{provider} could not be reached: no connection to {host} in time, or all of ours are in use",
    ),
    ((aiohttp.ServerTimeoutError,), "timeout", False, "{provider} did not answer in time"),
    ((Exception,), "unavailable", False, "the connection to {provider} broke off before its answer was whole"),
)


def timed_out(request: HttpRequest, seconds: float) -> UpstreamError:
    """The error of a call whose time is over."""
    return UpstreamError(
        f"{request.provider} did not answer within {seconds:g} s",
        kind="timeout",
        hint=_after_sending(request),
        retryable=request.repeatable,
    )


def _in_pieces(content: bytes | None) -> bytes | BytesIO | None:
    """A body as aiohttp wants it: a large one at once would hold up the event loop."""
    return BytesIO(content) if content and len(content) > MAX_PIECE_BYTES else content


def _after_sending(request: HttpRequest) -> str:
    return unknown_outcome_hint(is_safe=request.method in {"GET", "HEAD"}, is_repeatable=request.repeatable)


def _translate(exc: Exception, request: HttpRequest) -> UpstreamError:
    if request.digest is not None and type(exc) is aiohttp.ClientError:  # which the digest's middleware alone raises
        return UpstreamError(
            f"{request.provider} asks for digest authentication in a way that this server cannot answer",
            kind="auth",
            hint="Report this: its challenge is none of RFC 7616.",
        )
    kind, unsent, message = next(
        (kind, unsent, message) for types, kind, unsent, message in _CAUSES if isinstance(exc, types)
    )
    hint = UNSENT_HINT if unsent else _after_sending(request)
    return UpstreamError(
        message.format(provider=request.provider, host=urlsplit(request.url).netloc),
        kind=kind,
        hint=hint + _FURTHER.get(type(exc), ""),
        retryable=(unsent or request.repeatable) and not isinstance(exc, _LASTING),
    )


_LASTING = (
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ClientConnectorSSLError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.ClientHttpProxyError,
)
"""What trying again does not mend."""

_FURTHER: dict[type[Any], str] = {
    aiohttp.ClientConnectorCertificateError: " An authority of your own has to be trusted by the machine.",
}
