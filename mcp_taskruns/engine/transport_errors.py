"""What the exceptions of an httpx transport mean for a call."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from mcp_taskruns.core.calls.errors import unknown_outcome_hint
from mcp_taskruns.core.calls.request import HttpRequest
from mcp_taskruns.core.calls.sse import InvalidEventStream
from mcp_taskruns.errors import CallError, Kind, NotConfigured, UpstreamError


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
        hint=failure.hint
        or (
            UNSENT_HINT
            if failure.is_unsent
            else unknown_outcome_hint(is_safe=request.is_safe, is_safe_to_retry=request.safe_to_retry)
        ),
        retryable=(failure.is_unsent or request.safe_to_retry) and not failure.is_lasting,
        outcome_unknown=not (failure.is_unsent or request.only_reads),
    )


def _causes_of(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__
