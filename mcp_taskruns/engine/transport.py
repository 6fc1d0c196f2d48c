"""An httpx transport on aiohttp connections.

Stock httpx costs four to nine times as much CPU under load. `httpx.AsyncHTTPTransport` and `httpx.MockTransport` can
take the place of this transport; no other module imports aiohttp.
"""

import socket
import ssl
from collections.abc import AsyncIterator
from http import HTTPStatus
from io import BytesIO
from urllib.request import getproxies, proxy_bypass

import aiohttp
import anyio
import httpx
import truststore
import yarl
from aiohttp.abc import ResolveResult
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.resolver import ThreadedResolver

from mcp_taskruns.core.calls.addresses import LOOPBACK, is_public_address
from mcp_taskruns.engine.transport_errors import (
    MAX_HEADER_BYTES,
    MAX_HEADER_FIELDS,
    ForbiddenAddress,
    HeadersTooLarge,
    InvalidHttp,
    ProxyLoginRequired,
)

NEW_CONNECTION = "new_connection"
"""A request extension: true sends the request over a connection of its own.

A kept connection may be one that the server has just closed: then nobody knows whether the request was processed.
"""

PROXY = "proxy"
"""A response extension: the host and the port of the proxy that the request was sent over."""

PUBLIC_ONLY = "public_only"
"""A request extension: true refuses a host with an address that is not public. Behind a proxy, the proxy has to."""

KEEP_ALIVE_SECONDS = 4.0
"""Many servers close a connection after 5 idle seconds; it must not be used when it is about to be closed."""

CLOSE_SECONDS = 1.0

MAX_PIECE_BYTES = 1_000_000
"""A larger request body is sent piece by piece: written at once it would block the event loop."""

_HEADERS_OF_AIOHTTP = frozenset({b"host", b"content-length", b"transfer-encoding"})

_TRANSLATIONS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    # The first row that matches: an exception of aiohttp, and what httpx calls it.
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ServerFingerprintMismatch, httpx.ConnectError),
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.ServerTimeoutError, httpx.ReadTimeout),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol),
    (aiohttp.ClientOSError, httpx.ReadError),
    (aiohttp.ClientError, httpx.RemoteProtocolError),
)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Send requests over aiohttp: no redirects, no cookies, no decoding, no retries, no limit on connections.

    Understands the request extensions `timeout` (as httpx does) and `NEW_CONNECTION`; responses have the extension
    `PROXY`. Proxies of the environment are used, except for loopback addresses. TLS trusts the certificate authorities
    that the machine trusts.
    """

    def __init__(self) -> None:
        self._tls = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._keeping = self._open_session(
            aiohttp.TCPConnector(limit=0, ssl=self._tls, keepalive_timeout=KEEP_ALIVE_SECONDS)
        )
        self._closing = self._open_session(aiohttp.TCPConnector(limit=0, ssl=self._tls, force_close=True))
        self._public = self._open_session(
            aiohttp.TCPConnector(limit=0, ssl=self._tls, force_close=True, resolver=_PublicResolver())
        )
        self._proxies = getproxies()

    def _open_session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Content-Type", "Accept", "Accept-Encoding", "User-Agent"),
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADER_FIELDS,
            middlewares=(_translate_errors,),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        content = await request.aread()
        timeout = request.extensions.get("timeout", {})
        proxy = self._proxy_for(request.url)
        session = self._closing if request.extensions.get(NEW_CONNECTION) else self._keeping
        if request.extensions.get(PUBLIC_ONLY) and proxy is None:
            session = self._public
        try:
            response = await session.request(
                request.method,
                yarl.URL(str(request.url), encoded=True),  # without `encoded`, yarl rewrites `%2C` to `,`
                headers=_headers_of(request),
                data=BytesIO(content) if len(content) > MAX_PIECE_BYTES else content or None,
                allow_redirects=False,
                proxy=proxy,
                timeout=aiohttp.ClientTimeout(
                    connect=timeout.get("pool"), sock_connect=timeout.get("connect"), sock_read=timeout.get("read")
                ),
            )
        except aiohttp.ClientError as exc:  # raised before the request is sent
            raise _translated(exc) from exc
        except RuntimeError as exc:
            if not session.closed:
                raise
            # A stream that reconnects while the server stops.
            raise httpx.ConnectError("the connections of this server are closed") from exc
        return httpx.Response(
            response.status,
            headers=list(response.raw_headers),
            stream=_Body(response),
            extensions={PROXY: _host_of(proxy)} if proxy else {},
            request=request,
        )

    async def aclose(self) -> None:
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await self._keeping.close()
            await self._closing.close()
            await self._public.close()

    def _proxy_for(self, url: httpx.URL) -> str | None:
        if not self._proxies or url.host in LOOPBACK or proxy_bypass(url.netloc.decode()):
            return None
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        if proxy and httpx.URL(proxy).scheme not in {"http", "https"}:
            raise httpx.UnsupportedProtocol("only http and https proxies are supported")
        return proxy


def _headers_of(request: httpx.Request) -> list[tuple[str, str]]:
    return [
        (name.decode("ascii"), value.decode("latin-1"))
        for name, value in request.headers.raw
        if name.lower() not in _HEADERS_OF_AIOHTTP
    ]


def _host_of(proxy: str) -> str:
    """Return the host and the port of a proxy's URL, which may contain a password."""
    return httpx.URL(proxy).netloc.decode()


class _PublicResolver(ThreadedResolver):
    """Resolves names to public addresses, to which the connection is then made: another look-up could differ."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        results = await super().resolve(host, port, family)
        if not all(is_public_address(result["host"]) for result in results):
            raise ForbiddenAddress(host)
        return results


class _Body(httpx.AsyncByteStream):
    """The body of a response, as it was sent."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except aiohttp.ClientError as exc:
            raise _translated(exc) from exc

    async def aclose(self) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


async def _translate_errors(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Translate aiohttp's exceptions to httpx's.

    aiohttp repeats a GET, PUT or DELETE whose connection is lost, but only when it sees one of its own exceptions: so
    here each request is sent once.
    """
    try:
        return await send(request)
    except (aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError) as exc:
        raise _proxy_error(exc, _host_of(str(request.proxy))) from exc
    except (aiohttp.ClientError, OSError) as exc:
        raise _translated(exc) from exc


def _proxy_error(exc: aiohttp.ClientError, proxy: str) -> httpx.ProxyError:
    """Return the exception for a proxy that cannot be used. It names its host: its URL may contain a password."""
    is_login = isinstance(exc, aiohttp.ClientHttpProxyError) and exc.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
    return ProxyLoginRequired(proxy) if is_login else httpx.ProxyError(proxy)


def _translated(exc: Exception) -> httpx.TransportError:
    if isinstance(exc, aiohttp.ClientResponseError) and isinstance(exc.__cause__, HttpProcessingError):
        return _invalid_response(exc.__cause__)
    translation = next((theirs for ours, theirs in _TRANSLATIONS if isinstance(exc, ours)), httpx.ReadError)
    return translation(str(exc))


def _invalid_response(exc: HttpProcessingError) -> httpx.TransportError:
    """Return the exception for bytes that aiohttp's parser did not accept; the reason is the cause of its exception."""
    reason = exc.__cause__ or exc
    if isinstance(reason, LineTooLong) or "Too many headers" in str(reason):
        return HeadersTooLarge(str(reason))
    return InvalidHttp(str(reason))
