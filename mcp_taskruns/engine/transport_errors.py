"""What the exceptions of an httpx transport mean for a call."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from mcp_taskruns.core.calls.errors import WRITE_HINT, unknown_outcome_hint
from mcp_taskruns.core.calls.request import UNTRUSTED, HttpRequest
from mcp_taskruns.core.calls.sse import InvalidEventStream
from mcp_taskruns.errors import CallError, Kind, NotConfigured, UpstreamError

MAX_HEADER_BYTES = 65_536
"""Bytes of all header fields of a response together."""

MAX_HEADER_FIELDS = 1_000
"""Header fields of a response. aiohttp limits their number and the length of each, but not all of them together."""


class UnsupportedChallenge(Exception):
    """The provider asks for digest authentication in a form that httpx does not support."""


class HeadersTooLarge(httpx.RemoteProtocolError):
    """The headers of a response exceed MAX_HEADER_BYTES or MAX_HEADER_FIELDS."""


class InvalidHttp(httpx.RemoteProtocolError):
    """The provider sent something else than an HTTP response."""


class ForbiddenAddress(httpx.ConnectError):
    """The host of an address from a response is on this machine or in its network."""


class ProxyLoginRequired(httpx.ProxyError):
    """The proxy, whose host is the message, requires a user and a password."""


@dataclass(frozen=True)
class _Failure:
    """What an exception of an httpx transport means.

    `is_unsent`: the request was not sent. `is_lasting`: a retry cannot help. The message has the placeholders
    `{provider}`, `{host}` and `{reason}`, the message of the exception.
    """

    message: str
    kind: Kind = "unavailable"
    is_unsent: bool = True
    is_lasting: bool = False
    hint: str = ""


LASTING_HINT = "Sending it again is not likely to help: report this to the provider."
PROXY_HINT = "Nothing was sent. Check HTTPS_PROXY and ALL_PROXY in the server's environment."
PROXY_LOGIN_HINT = f"{PROXY_HINT} They can have the form `http://user:password@host:port`."
UNSENT_HINT = "Nothing was sent. Check that the provider is up, and its address in the server's environment."

_TLS = "no secure connection to {provider} at {host}: its certificate or TLS version is not accepted"

_INVALID_HEADS = {
    "buffer too long": HeadersTooLarge,
    "illegal": InvalidHttp,
    "status_code": InvalidHttp,
    "SWITCH": InvalidHttp,
}
"""What h11, the parser of httpx's own transport, means by a RemoteProtocolError with these words."""

_FAILURES: tuple[tuple[type[Exception], type[Exception], _Failure], ...] = (
    # The first row that matches: the exception, an exception among its causes, and what they mean.
    (
        ForbiddenAddress,
        Exception,
        _Failure(
            "the address of {provider}, {host}, leads to this machine or its network",
            is_lasting=True,
            hint=f"Nothing was sent. {UNTRUSTED}",
        ),
    ),
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
        ProxyLoginRequired,
        Exception,
        _Failure(
            "{provider} could not be reached: the proxy {reason} returned 407, it requires a user and a password",
            kind="config",
            is_lasting=True,
            hint=PROXY_LOGIN_HINT,
        ),
    ),
    (
        httpx.ProxyError,
        Exception,
        _Failure(
            "{provider} could not be reached: the proxy in the server's environment refused the connection",
            hint=PROXY_HINT,
        ),
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
        HeadersTooLarge,
        Exception,
        _Failure(
            f"{{provider}} sent a response whose headers have more than {MAX_HEADER_BYTES:,} bytes or "
            f"{MAX_HEADER_FIELDS:,} fields",
            is_unsent=False,
            is_lasting=True,
        ),
    ),
    (
        InvalidHttp,
        Exception,
        _Failure(
            "{provider} sent something else than an HTTP response, or content after a response that has none, for "
            "example with status 204",
            is_unsent=False,
        ),
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
    exc = _refine(exc)
    causes = tuple(_causes_of(exc))
    failure = next(
        failure
        for kind, cause, failure in _FAILURES
        if isinstance(exc, kind) and any(isinstance(one, cause) for one in causes)
    )
    return UpstreamError(
        failure.message.format(provider=provider, host=urlsplit(request.url).netloc, reason=exc),
        kind=failure.kind,
        hint=failure.hint or _hint(failure, request),
        retryable=(failure.is_unsent or request.safe_to_retry) and not failure.is_lasting,
        outcome_unknown=not (failure.is_unsent or request.only_reads),
    )


def _hint(failure: _Failure, request: HttpRequest) -> str:
    if failure.is_unsent:
        return UNSENT_HINT
    if failure.is_lasting:
        return LASTING_HINT if request.only_reads else f"{WRITE_HINT} {LASTING_HINT}"
    return unknown_outcome_hint(is_safe=request.is_safe, is_safe_to_retry=request.safe_to_retry)


def _refine(exc: Exception) -> Exception:
    """Return a more specific exception where httpx's own transport has only one for several faults of a response."""
    if type(exc) is not httpx.RemoteProtocolError:
        return exc
    refined = (kind(str(exc)) for words, kind in _INVALID_HEADS.items() if words in str(exc))
    return next(refined, exc)


def _causes_of(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__
