"""Responses that the provider's API did not make: pages, challenges, redirects, and those of a proxy."""

import re
from dataclasses import replace
from urllib.parse import urlsplit

from mcp_taskruns.core.calls.errors import (
    UNTITLED,
    Assessment,
    message_from_text,
    provider_error,
    unknown_outcome_hint,
)
from mcp_taskruns.core.calls.received import HttpResponse
from mcp_taskruns.core.calls.truncation import quote
from mcp_taskruns.core.model.operation import Operation
from mcp_taskruns.errors import ProviderError

CHALLENGES = {"cf-mitigated": "Cloudflare", "x-amzn-waf-action": "AWS WAF", "x-vercel-mitigated": "Vercel"}
"""Headers of a protection against bots that has refused a request, and who sends them."""

MAX_TITLE = 200
"""Characters of a page's title that an error quotes."""

_HTML = frozenset({"text/html", "application/xhtml+xml"})
_UNTYPED = frozenset({"", "text/plain", "application/octet-stream", "application/xml", "text/xml"})
_MARKUP = re.compile(rb"(\xef\xbb\xbf)?\s*<")
_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]{0,200}>\s*|<!--(?:(?!-->).){0,2000}-->\s*){0,5}"
    rb"<(?:!doctype\s+html|html|head|title|meta|body)[\s>]",
    re.IGNORECASE | re.DOTALL,
)
_HOST = re.compile(r"[\w.:\[\]-]{1,255}")


def without_content(response: HttpResponse) -> HttpResponse:
    """Return a response without its body, except that a page instead of a result stays recognisable as one."""
    is_foreign = response.status < 300 and is_page(response)
    return replace(response, body=b"<html>" if is_foreign else b"")


def foreign_error(response: HttpResponse, operation: Operation) -> ProviderError | None:
    """Return the exception for a response that the API did not make, as far as its head shows; None for any other."""
    if not CHALLENGES.keys().isdisjoint(response.headers):
        return _challenge(response, operation)
    if response.status < 200:
        return _interim(response, operation)
    if 300 <= response.status < 400:
        return _redirect(response, operation)
    if response.status == 407:
        return _refused_by_proxy(response, operation)
    if response.status < 300 and _accepts_only_data(operation) and is_page(response):
        return _page(response, operation)
    return None


def missing_run(response: HttpResponse, operation: Operation) -> ProviderError:
    """Return the exception for a response without content where a run is due."""
    meaning = Assessment("unavailable", operation.is_safe_to_retry, _outcome_hint(operation))
    return _error(response, operation, "no content, where a run was expected", meaning)


def _error(response: HttpResponse, operation: Operation, message: str, meaning: Assessment) -> ProviderError:
    status, headers = response.status, response.headers
    return provider_error(status, headers, None, message, operation, response.received_at, meaning)


def _challenge(response: HttpResponse, operation: Operation) -> ProviderError:
    protection = next(name for header, name in CHALLENGES.items() if header in response.headers)
    message = f"a challenge of {protection}, which protects {response.host or 'the provider'} against bots"
    hint = "Ask the provider to admit this server's address, or use another network: a retry does not help."
    return _error(response, operation, message, Assessment("unavailable", False, hint))


def _interim(response: HttpResponse, operation: Operation) -> ProviderError:
    message = "an interim response instead of a final one"
    hint = f"{_address_hint(response, operation)} {_outcome_hint(operation)}"
    return _error(response, operation, message, Assessment("unavailable", operation.is_safe_to_retry, hint))


def _redirect(response: HttpResponse, operation: Operation) -> ProviderError:
    """Return the exception for a redirect. It names the host only: the rest of the address may hold a secret."""
    location = response.headers.get("location", "")
    host = host_of(location)
    message = "a redirect, which this server does not follow"
    hint = _address_hint(response, operation)
    if response.status == 304:
        message, hint = "nothing has changed since an earlier response", "This server keeps no earlier responses."
    elif host and host != response.host.lower():
        message = f"a redirect to {host}, which this server does not follow"
        hint = (
            f"If the provider's API has moved to {host}, set {_variable(operation)} in the server's environment. If "
            "that host asks for a login, something between this server and the provider has intercepted the request."
        )
    elif location:
        message = f"a redirect to another path of {host or response.host or 'the same host'}"
        hint = f"{_address_hint(response, operation)} This server does not follow redirects."
    return _error(response, operation, message, Assessment("unsupported", False, hint))


def host_of(location: str) -> str:
    """Return the host and the port of an absolute URL, or an empty text."""
    try:
        host = urlsplit(location).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""
    return host if _HOST.fullmatch(host) else ""


def _refused_by_proxy(response: HttpResponse, operation: Operation) -> ProviderError:
    proxy = f"the proxy {response.proxy}" if response.proxy else f"a proxy before {response.host or 'the provider'}"
    hint = "The proxy did not pass the request on. Set HTTPS_PROXY to `http://user:password@host:port`."
    return _error(response, operation, f"{proxy} requires a user and a password", Assessment("config", False, hint))


def _accepts_only_data(operation: Operation) -> bool:
    if operation.is_stream:
        return True
    accept = operation.accept.lower()
    if operation.returns_file or operation.output_format != "json":
        return False
    return "json" in accept and "html" not in accept


def is_page(response: HttpResponse) -> bool:
    """Whether the body is HTML. Some servers send text or JSON with the type text/html, or HTML as JSON."""
    media_type = response.media_type
    may_be_page = media_type in _UNTYPED or response.is_json
    pattern = _MARKUP if media_type in _HTML else _PAGE if may_be_page else None
    return pattern is not None and pattern.match(response.body) is not None


def _page(response: HttpResponse, operation: Operation) -> ProviderError:
    title = message_from_text(response.body, "text/html")
    expected = "an event stream" if operation.is_stream else "JSON"
    message = f"{UNTITLED} instead of {expected}" + (
        f": {quote(title, MAX_TITLE)}" if title and title != UNTITLED else ""
    )
    hint = f"{_address_hint(response, operation)} {_outcome_hint(operation)}"
    return _error(response, operation, message, Assessment("unavailable", operation.is_safe_to_retry, hint))


def _outcome_hint(operation: Operation) -> str:
    return unknown_outcome_hint(is_safe=operation.is_safe, is_safe_to_retry=operation.is_safe_to_retry)


def _address_hint(response: HttpResponse, operation: Operation) -> str:
    return (
        f"Check {_variable(operation)} in the server's environment: {response.host or 'its address'} may not be the "
        "provider's API."
    )


def _variable(operation: Operation) -> str:
    """Return the name of the variable with the provider's address, or the option that sets it."""
    return next(iter(operation.base.variables), f"`--base-uri {operation.namespace}`")
