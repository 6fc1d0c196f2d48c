"""Bearer tokens of a token endpoint: what is sent for one, and what the response means.

The form is that of OAuth 2 client credentials: RFC 6749 sections 2.3.1, 4.4.2 and 5.1.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any
from urllib.parse import urljoin, urlsplit

from mcp_taskruns.core.calls.addresses import VISIBLE_ASCII, is_http_url, is_private_url
from mcp_taskruns.core.calls.bodies import encode_body
from mcp_taskruns.core.calls.credentials import CREDENTIAL, client_credentials, describe_variables, fill_constant
from mcp_taskruns.core.calls.errors import (
    KIND_BY_STATUS,
    error_message,
    is_retryable,
    message_from_text,
    quote_message,
)
from mcp_taskruns.core.calls.received import HttpResponse
from mcp_taskruns.core.calls.retry_after import retry_after
from mcp_taskruns.core.model.json import parse
from mcp_taskruns.core.model.json_path import value_at
from mcp_taskruns.core.model.operation import Authentication, TokenEndpoint
from mcp_taskruns.errors import NotConfigured, UpstreamError

EARLY_SECONDS = 60.0
"""How long before its end a token is replaced: it has to be valid when the request arrives, on clocks that differ."""


UNSENT_HINT = "Nothing was sent to the provider itself: try again."


@dataclass(frozen=True)
class TokenRequest:
    """The request for a token. Its values may contain credentials, so the repr does not show them."""

    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    content: bytes = field(repr=False)
    endpoint: TokenEndpoint = field(repr=False)
    variables: str
    """The variables with the credentials, for a hint."""


@dataclass(frozen=True)
class Token:
    """A bearer token, and the seconds after which it has to be replaced; None: unknown."""

    value: str = field(repr=False)
    seconds: float | None


def build_token_request(
    authentication: Authentication | None, base: str, environment: Mapping[str, str]
) -> TokenRequest | None:
    """Return the request for the token of an authentication, or None if it needs none.

    `base` is the base URL of the provider. Raises NotConfigured.
    """
    endpoint = authentication.endpoint if authentication else None
    if authentication is None or endpoint is None:
        return None
    variables = describe_variables((authentication,))
    origin = "{0.scheme}://{0.netloc}/".format(urlsplit(base))
    url = urljoin(origin, fill_constant(endpoint.uri, environment, CREDENTIAL).strip())
    if not (is_http_url(url) and is_private_url(url) and VISIBLE_ASCII.fullmatch(url) and "#" not in url):
        raise NotConfigured(
            "the token endpoint has an address that is neither an https URL nor on this machine",
            kind="auth",
            hint=f"Nothing was sent. Check {variables} in the server's environment, and `tokenUri` in the overlay.",
        )
    content_type, content = encode_body(_fill(endpoint.body, environment), endpoint.body_kind)
    headers = [("Accept", "application/json"), ("Content-Type", content_type)]
    if endpoint.basic:
        headers.append(("Authorization", f"Basic {client_credentials(endpoint, environment)}"))
    return TokenRequest(url, tuple(headers), content, endpoint, variables)


def _fill(tree: Any, environment: Mapping[str, str]) -> Any:
    """Fill the templates of a tree."""
    if isinstance(tree, tuple):
        return fill_constant(tree, environment, CREDENTIAL)
    if isinstance(tree, dict):
        return {name: _fill(item, environment) for name, item in tree.items()}
    return [_fill(item, environment) for item in tree] if isinstance(tree, list) else tree


def read_token(response: HttpResponse, request: TokenRequest, name: str) -> Token:
    """Return the token of a response. `name` is that of the endpoint in a message.

    Raises UpstreamError for a response without a token.
    """
    value = _parse(response.body)
    if not 200 <= response.status < 300:
        raise _refusal(response, value, request, name)
    token = value_at(value, request.endpoint.token)
    if not (isinstance(token, str) and VISIBLE_ASCII.fullmatch(token)):
        raise UpstreamError(
            f"{name} returned {response.status} without a token that can be sent",
            kind="auth",
            hint=_hint(request),
        )
    declared = _number(value_at(value, request.endpoint.expires_in))
    end = _number(_claims(token).get("exp"))
    lifetimes = (declared, end - response.received_at)
    lifetime = next((seconds for seconds in lifetimes if seconds > 0), None)
    return Token(token, lifetime and lifetime - min(EARLY_SECONDS, lifetime / 2))


def _refusal(response: HttpResponse, value: Any, request: TokenRequest, name: str) -> UpstreamError:
    """Return the error of a response without a token.

    It has no status code, because callers would take that for the provider's.
    """
    status = response.status
    message = error_message(value) or message_from_text(response.body, response.media_type)
    shown = "a redirect, which is not followed" if 300 <= status < 400 else quote_message(message)
    can_pass = is_retryable(status)
    return UpstreamError(
        f"{name} returned {status}: {shown}" if shown else f"{name} returned {status}",
        kind=KIND_BY_STATUS.get(status, "unavailable") if can_pass or status >= 500 else "auth",
        retryable=can_pass,
        retry_after_s=retry_after(response.headers, status, response.received_at),
        hint=UNSENT_HINT if can_pass else _hint(request),
    )


def _hint(request: TokenRequest) -> str:
    return f"Nothing was sent to the provider itself. Check {request.variables} in the server's environment."


def _parse(body: bytes) -> Any:
    try:
        return parse(body)
    except ValueError:
        return None


def _claims(token: str) -> Mapping[str, Any]:
    """Return the claims of a token that is a JWT (RFC 7519); they are not verified, because the provider does that."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = parse(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return {}
    return claims if isinstance(claims, Mapping) else {}


def _number(value: Any) -> float:
    """Return a number, also one that is written as text; 0 for anything else."""
    if isinstance(value, bool):
        return 0.0
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return number if isfinite(number) else 0.0
