"""The `authentication` of a capability file, in all its spellings, to what a request does about it."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from mcp_taskruns.core.model.operation import Authentication, ConstantTemplate, Location

_Template = Callable[[Any], ConstantTemplate]

_PLACEMENTS = {"header": Location.HEADER, "query": Location.QUERY, "cookie": Location.COOKIE}


TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The name of a header: RFC 9110 section 5.6.2."""


CONNECTION_HEADERS = frozenset(
    {
        *(
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "upgrade",
            "expect",
        ),
        *("proxy-authorization", "proxy-connection"),
    }
)
"""Headers about the connection, which is the server's: to set one is to say where a request ends (RFC 9110, 7.6.1)."""


class Unsupported(ValueError):
    """Why the operations of an adapter cannot be called."""


class UnsupportedKind(Unsupported):
    """It authenticates in a way that this server does not know."""


def parse_authentication(declared: Mapping[str, Any], template: _Template) -> Authentication | None:
    """How requests authenticate, None where they need not; `template` reads a text with holes.

    Raises Unsupported for a kind that this server cannot do, or that does not say with what.
    """
    kind = re.sub(r"[-_ ]", "", str(declared.get("type") or "none").lower())
    if kind in {"none", "inherit"}:
        return None
    if kind not in _KINDS:
        raise UnsupportedKind(f"authenticates by {declared['type']}, which this server cannot do")
    found = _KINDS[kind](declared, template)
    needed = found.parts[:1] if found.kind == "basic" else found.parts  # with a key as user there is no password
    if not needed or not all(needed) or not all(found.names):
        raise Unsupported(f"authenticates by {declared['type']} and does not say with what")
    if found.placement is not Location.QUERY and not all(map(_is_header, found.names)):
        raise Unsupported(f"sends its key as {', '.join(map(repr, found.names))}, which is no name of a header")
    return found


def _is_header(name: str) -> bool:
    return TOKEN.fullmatch(name) is not None and name.lower() not in CONNECTION_HEADERS


def _first(declared: Mapping[str, Any], *keys: str) -> Any:
    return next((declared[key] for key in keys if declared.get(key)), "")


def _bearer(declared: Mapping[str, Any], template: _Template) -> Authentication:
    return Authentication("bearer", (template(_first(declared, "token", "value")),))


def _basic(declared: Mapping[str, Any], template: _Template) -> Authentication:
    return Authentication("basic", (template(_first(declared, "username")), template(_first(declared, "password"))))


def _digest(declared: Mapping[str, Any], template: _Template) -> Authentication:
    return Authentication("digest", (template(_first(declared, "username")), template(_first(declared, "password"))))


def _api_key(declared: Mapping[str, Any], template: _Template) -> Authentication:
    """One key: `{key, value}`, `{in, name, value}`, `{header, key}`, `{name, key}`; several: `headers`."""
    headers = declared.get("headers")
    if isinstance(headers, Mapping):
        return Authentication("apikey", tuple(map(template, headers.values())), names=tuple(map(str, headers)))
    placement = _PLACEMENTS.get(str(_first(declared, "placement", "in") or "header").lower())
    if placement is None:
        raise Unsupported(f"sends its key in {_first(declared, 'placement', 'in')!r}, which is no header and no query")
    named = next((key for key in ("header", "name", "key") if declared.get(key)), "key")
    value = _first(declared, "value") if named == "key" else _first(declared, "value", "key", "token")
    return Authentication("apikey", (template(value),), placement, (str(declared.get(named, "")),))


_KINDS: Mapping[str, Callable[[Mapping[str, Any], _Template], Authentication]] = {
    "bearer": _bearer,
    "basic": _basic,
    "digest": _digest,
    "apikey": _api_key,
}
