"""The `authentication` of a capability file, in all its spellings."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from mcp_taskruns.core.calls.addresses import is_http_url, is_private_url
from mcp_taskruns.core.model.json_path import Path, parse_path
from mcp_taskruns.core.model.operation import (
    NO_AUTHENTICATION,
    Authentication,
    ConstantTemplate,
    Location,
    TokenEndpoint,
)

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


_TOKEN_KEYS = frozenset(
    {
        *("type", "granttype", "tokenuri", "tokenurl", "clientid", "clientsecret", "clientauthentication"),
        *("scope", "scopes", "parameters", "body", "tokenpath", "expiresinpath", "renewafter"),
    }
)
"""The keys of `oauth2`, as `_normalize` returns them."""

_USER_NAMES = frozenset({"username", "user", "login", "email"})
"""Members of a body that are not secret, as `_normalize` returns them."""

_OTHER_KEYS = frozenset(
    {"token", "value", "key", "name", "in", "placement", "header", "headers", "username", "password", "credentials"}
)
"""The keys of other types, which an overlay that changes the type leaves in the mapping of the capability file."""


class Unsupported(ValueError):
    """The reason for which operations cannot be called. `fix` is a sentence, if there is a particular one."""

    def __init__(self, reason: str, fix: str = "") -> None:
        super().__init__(reason)
        self.fix = fix


class UnsupportedKind(Unsupported):
    """A type of authentication that this server does not support."""


def parse_alternatives(
    declared: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None, parse_template: _ParseTemplate
) -> tuple[Authentication, ...]:
    """Return the ways in which requests can authenticate, in the order in which they are tried; empty if they need not.

    `declared` is one way or a list of them. Raises Unsupported as `parse_authentication` does.
    """
    written = [declared] if isinstance(declared, Mapping) else declared or ()
    parsed = tuple(parse_authentication(one, parse_template) or NO_AUTHENTICATION for one in written)
    if NO_AUTHENTICATION in parsed[:-1]:
        raise Unsupported(
            "has authentication after that of type none, which never counts", "Move `type: none` to the end."
        )
    return () if parsed == (NO_AUTHENTICATION,) else parsed


def parse_authentication(declared: Mapping[str, Any], parse_template: _ParseTemplate) -> Authentication | None:
    """Return how requests authenticate, or None if they need not.

    `parse_template` parses the text of a secret. Raises Unsupported for an unsupported type or a missing credential.
    """
    kind = _normalize(declared.get("type") or "none")
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


def _normalize(name: Any) -> str:
    """Return a name without regard to case and separators."""
    return re.sub(r"[-_ ]", "", str(name).lower())


def _is_header(name: str) -> bool:
    return TOKEN.fullmatch(name) is not None and name.lower() not in CONNECTION_HEADERS


def _first(declared: Mapping[str, Any], *keys: str) -> Any:
    return next((declared[key] for key in keys if declared.get(key)), "")


def _parse_bearer(declared: Mapping[str, Any], parse_template: _ParseTemplate) -> Authentication:
    return Authentication("bearer", (parse_template(_first(declared, "token", "value")),))


def _parse_basic(declared: Mapping[str, Any], parse_template: _ParseTemplate) -> Authentication:
    """User and password: `{username, password}`, or both in one text, `user:password`: `{credentials}`."""
    if both := _first(declared, "credentials"):
        return Authentication("basic", (parse_template(both),))
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


def _parse_oauth2(declared: Mapping[str, Any], parse_template: _ParseTemplate) -> Authentication:
    """A bearer token of a token endpoint: client credentials (RFC 6749 section 4.4), or with `body` any JSON."""
    options = {_normalize(key): value for key, value in declared.items() if value is not None}
    for key in declared:
        if _normalize(key) not in _TOKEN_KEYS | _OTHER_KEYS:
            raise Unsupported(f"has authentication of type oauth2 with the unknown key {key!r}", f"Remove {key!r}.")
    if _normalize(options.get("granttype", "clientcredentials")) != "clientcredentials":
        raise UnsupportedKind(f"has authentication of type oauth2 with the grant type {options['granttype']}")
    if "body" in options:
        body = _parse_tree(options["body"], parse_template)
        return _with_endpoint(options, parse_template, tuple(_secrets_in(body)), body, "json")
    client = (parse_template(_first(options, "clientid")), parse_template(_first(options, "clientsecret")))
    body = _parse_tree(_form_of(options), parse_template)
    if _sends_basic(options):
        return _with_endpoint(options, parse_template, client, body, "form", client)
    body |= {"client_id": client[0], "client_secret": client[1]}
    return _with_endpoint(options, parse_template, client, body, "form")


def _with_endpoint(
    options: Mapping[str, Any],
    parse_template: _ParseTemplate,
    parts: tuple[ConstantTemplate, ...],
    body: Any,
    body_kind: Literal["form", "json"],
    basic: tuple[ConstantTemplate, ...] = (),
) -> Authentication:
    endpoint = TokenEndpoint(
        _parse_token_uri(_first(options, "tokenuri", "tokenurl"), parse_template),
        body,
        body_kind,
        basic,
        _parse_path(options.get("tokenpath", "$.access_token")),
        _parse_path(options.get("expiresinpath", "$.expires_in")),
        _parse_status_codes(options.get("renewafter", ())),
    )
    return Authentication("oauth2", parts, endpoint=endpoint)


def _sends_basic(options: Mapping[str, Any]) -> bool:
    """Whether client id and secret are sent in the Authorization header, which all servers support: RFC 6749, 2.3.1."""
    written = options.get("clientauthentication", "client_secret_basic")
    if written not in ("client_secret_basic", "client_secret_post"):
        fix = "Use client_secret_basic or client_secret_post."
        raise Unsupported(f"has authentication of type oauth2 with the client authentication {written!r}", fix)
    return bool(written == "client_secret_basic")


def _form_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the form of RFC 6749 section 4.4.2, without the client."""
    scopes = _first(options, "scopes", "scope")
    scope = " ".join(map(str, scopes)) if isinstance(scopes, list) else str(scopes)
    parameters = options.get("parameters", {})
    if not isinstance(parameters, Mapping):
        raise Unsupported("has authentication of type oauth2 whose `parameters` are not a mapping", "Use a mapping.")
    return {"grant_type": "client_credentials", **({"scope": scope} if scope else {}), **parameters}


def _parse_token_uri(written: Any, parse_template: _ParseTemplate) -> ConstantTemplate:
    """Parse the URI of a token endpoint. One that begins with a variable is checked when it is used."""
    uri = parse_template(str(written).strip())
    if not uri:
        fix = "Set `tokenUri`."
        raise Unsupported("has authentication of type oauth2 without a token endpoint", fix)
    literal = "".join(part if isinstance(part, str) else "x" for part in uri)
    is_absolute = isinstance(uri[0], str) and "://" in literal
    if is_absolute and not (is_http_url(literal) and is_private_url(literal)):
        fix = "Use an https URL: http is for loopback addresses only."
        raise Unsupported(f"has the token endpoint {literal}, which does not use https", fix)
    return uri


def _parse_path(written: Any) -> Path:
    try:
        return parse_path(str(written))
    except ValueError as exc:
        raise Unsupported(
            f"has authentication of type oauth2 with an invalid path: {exc}", "Correct the path."
        ) from exc


def _parse_status_codes(written: Any) -> frozenset[int]:
    codes = written if isinstance(written, list | tuple) else [written]
    if not all(isinstance(code, int) and 400 <= code < 500 for code in codes):
        fix = "Use status codes from 400 to 499, with which a provider refuses a token."
        raise Unsupported(f"has authentication of type oauth2 with a new token after {written!r}", fix)
    return frozenset({401, *codes})


def _parse_tree(value: Any, parse_template: _ParseTemplate) -> Any:
    """Return JSON with a template for each text."""
    if isinstance(value, Mapping):
        return {name: _parse_tree(item, parse_template) for name, item in value.items()}
    if isinstance(value, list):
        return [_parse_tree(item, parse_template) for item in value]
    return parse_template(value) if isinstance(value, str) else value


def _secrets_in(tree: Any) -> Iterator[ConstantTemplate]:
    """Yield the templates in a body, without the name of a user: redaction would replace a word such as `airflow`."""
    if isinstance(tree, tuple):
        yield tree
    elif isinstance(tree, dict):
        for name, item in tree.items():
            if _normalize(name) not in _USER_NAMES:
                yield from _secrets_in(item)
    elif isinstance(tree, list):
        for item in tree:
            yield from _secrets_in(item)


_PARSERS: Mapping[str, Callable[[Mapping[str, Any], _ParseTemplate], Authentication]] = {
    "bearer": _parse_bearer,
    "basic": _parse_basic,
    "digest": _parse_digest,
    "apikey": _parse_api_key,
    "oauth2": _parse_oauth2,
}
