"""The `authentication` of a capability file, in all its spellings."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from mcp_taskruns.core.model.operation import Authentication, ConstantTemplate, Location

_ParseTemplate = Callable[[Any], ConstantTemplate]

_PLACEMENTS = {"header": Location.HEADER, "query": Location.QUERY, "cookie": Location.COOKIE}

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The syntax of header names: RFC 9110 section 5.6.2."""

CONNECTION_HEADERS = frozenset(
    {
        *("host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade"),
        *("expect", "proxy-authorization", "proxy-connection"),
    }
)
"""Headers of the connection, which only the server may set: they define where a request ends (RFC 9110, 7.6.1)."""


class Unsupported(ValueError):
    """The reason for which operations cannot be called."""


class UnsupportedKind(Unsupported):
    """A type of authentication that this server does not support."""


def parse_authentication(declared: Mapping[str, Any], parse_template: _ParseTemplate) -> Authentication | None:
    """Return how requests authenticate, or None if they need not.

    `parse_template` parses the text of a secret. Raises Unsupported for an unsupported type or a missing credential.
    """
    kind = re.sub(r"[-_ ]", "", str(declared.get("type") or "none").lower())
    if kind in {"none", "inherit"}:
        return None
    if kind not in _PARSERS:
        raise UnsupportedKind(f"has the unsupported authentication type {declared['type']}")
    parsed = _PARSERS[kind](declared, parse_template)
    # With an API key as the user of `basic` there is no password.
    required = parsed.parts[:1] if parsed.kind == "basic" else parsed.parts
    if not required or not all(required) or not all(parsed.names):
        raise Unsupported(f"has authentication of type {declared['type']} without a credential")
    if parsed.placement is not Location.QUERY and not all(map(_is_header, parsed.names)):
        names = ", ".join(map(repr, parsed.names))
        raise Unsupported(f"sends its key in {names}, which is not a valid header name")
    return parsed


def _is_header(name: str) -> bool:
    return TOKEN.fullmatch(name) is not None and name.lower() not in CONNECTION_HEADERS


def _first(declared: Mapping[str, Any], *keys: str) -> Any:
    return next((declared[key] for key in keys if declared.get(key)), "")


def _parse_bearer(declared: Mapping[str, Any], parse_template: _ParseTemplate) -> Authentication:
    return Authentication("bearer", (parse_template(_first(declared, "token", "value")),))


def _parse_basic(declared: Mapping[str, Any], parse_template: _ParseTemplate) -> Authentication:
    parts = (parse_template(_first(declared, "username")), parse_template(_first(declared, "password")))
    return Authentication("basic", parts)


def _parse_digest(declared: Mapping[str, Any], parse_template: _ParseTemplate) -> Authentication:
    parts = (parse_template(_first(declared, "username")), parse_template(_first(declared, "password")))
    return Authentication("digest", parts)


def _parse_api_key(declared: Mapping[str, Any], parse_template: _ParseTemplate) -> Authentication:
    """One key: `{key, value}`, `{in, name, value}`, `{header, key}`, `{name, key}`; several: `headers`."""
    headers = declared.get("headers")
    if isinstance(headers, Mapping):
        parts = tuple(map(parse_template, headers.values()))
        return Authentication("apikey", parts, names=tuple(map(str, headers)))
    written = _first(declared, "placement", "in")
    placement = _PLACEMENTS.get(str(written or "header").lower())
    if placement is None:
        raise Unsupported(f"sends its key in {written!r}; use header, query or cookie")
    named = next((key for key in ("header", "name", "key") if declared.get(key)), "key")
    value = _first(declared, "value") if named == "key" else _first(declared, "value", "key", "token")
    return Authentication("apikey", (parse_template(value),), placement, (str(declared.get(named, "")),))


_PARSERS: Mapping[str, Callable[[Mapping[str, Any], _ParseTemplate], Authentication]] = {
    "bearer": _parse_bearer,
    "basic": _parse_basic,
    "digest": _parse_digest,
    "apikey": _parse_api_key,
}
