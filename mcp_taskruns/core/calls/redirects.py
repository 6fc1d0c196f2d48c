"""Redirects that an operation expects: the request that follows one, and what its response means.

Some providers respond with a link to a storage, for example for a log. The link holds its own credential, so errors
name only its host.
"""

from dataclasses import replace
from urllib.parse import urljoin, urlsplit

from mcp_taskruns.core.calls.addresses import VISIBLE_ASCII, is_http_url, is_private_url, may_be_public
from mcp_taskruns.core.calls.foreign import host_of
from mcp_taskruns.core.calls.received import HttpResponse
from mcp_taskruns.core.calls.request import UNTRUSTED, HttpRequest
from mcp_taskruns.core.model.operation import BaseUri, ErrorRule, Operation
from mcp_taskruns.errors import ProviderError, UpstreamError

REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""The status codes of redirects to another URL for the same content: RFC 9110 section 15.4."""

ACCEPT = "*/*"

EXPIRED = "The link may have expired, or its content may be gone: call again for a new one."

_ERRORS = (ErrorRule(status=frozenset({401, 403}), kind="unavailable"),)
"""A storage refuses a link that has expired; the provider's credential was not sent to it."""


def follow_redirect(request: HttpRequest, status: int, location: str, *, is_local: bool) -> HttpRequest:
    """Return the request that follows a redirect: a GET without credentials, cookies and the provider's headers.

    With `is_local`, because the provider itself is on this machine, the redirect may lead to it or to its network.
    Raises UpstreamError for any other such redirect, and for one that does not lead to a valid https URL.
    """
    provider = request.provider
    if not location:
        message = f"{provider} returned {status}, a redirect, without the header `Location`"
        raise UpstreamError(message, status=status, hint="Nothing was changed. Report this to the provider.")
    url = _resolve(request.url, location)
    host = host_of(url)
    if not (host and is_http_url(url) and is_private_url(url) and VISIBLE_ASCII.fullmatch(url)):
        raise _refused(f"{provider} redirects to {host or 'an address'}, which is not a valid https URL", status)
    if not (is_local or may_be_public(url)):
        raise _refused(f"{provider} redirects to {host}, which is this machine or a part of its network", status)
    return HttpRequest(
        f"{host} (to which {provider} redirects)",
        "GET",
        url,
        (("Accept", ACCEPT),),
        safe_to_retry=True,
        timeout_s=request.timeout_s,
        public_only=not is_local,
    )


def _resolve(base: str, location: str) -> str:
    """Return the absolute URL of a redirect, which may be relative, without a fragment; empty if it has none."""
    try:
        return urlsplit(urljoin(base, location.strip()))._replace(fragment="").geturl()
    except ValueError:
        return ""


def _refused(message: str, status: int) -> UpstreamError:
    return UpstreamError(message, status=status, hint=f"The redirect was not followed. {UNTRUSTED}")


def second_redirect(request: HttpRequest, status: int) -> UpstreamError:
    """Return the error of a redirect in the response to a redirected request."""
    hint = "This server follows one redirect, and has not followed the second one."
    return UpstreamError(f"{request.provider} returned {status}, another redirect", status=status, hint=hint)


def leads_elsewhere(request: HttpRequest, redirected: HttpRequest) -> bool:
    """Return whether a redirected request is sent to another host or port."""
    return host_of(redirected.url) != host_of(request.url)


def credential_in_url(redirected: HttpRequest, status: int) -> UpstreamError:
    """Return the error of a redirect whose URL contains a credential of this server."""
    return _refused(f"{redirected.provider} would receive a credential of this server in the URL", status)


def redirected_operation(operation: Operation) -> Operation:
    """Return the operation as far as it describes the content of a response from elsewhere."""
    return replace(
        operation,
        base=BaseUri(None, ()),
        parameters=(),
        body=None,
        authentication=None,
        error_body=None,
        errors=_ERRORS,
        stream_format=None,
    )


def without_error_body(response: HttpResponse) -> HttpResponse:
    """Return a response without its body if it is an error: that of a storage quotes the signature of the link."""
    return replace(response, body=b"") if response.status >= 300 else response


def redirected_error(failure: ProviderError, host: str) -> ProviderError:
    """Return the error of a response to a redirected request."""
    return failure.replace(message=f"after a redirect to {host}, {failure.message}", hint=EXPIRED)
