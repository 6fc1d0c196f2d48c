"""An operation, the caller's arguments and the environment's values to the one request that they mean."""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any
from urllib.parse import quote, urlsplit

from mcp_taskruns.core.calls.bodies import encode_body, escape_value, has_parts, to_text
from mcp_taskruns.core.model.operation import (
    ArgumentReference,
    Authentication,
    BodyKind,
    ConstantTemplate,
    Location,
    Operation,
    Template,
    Variable,
)
from mcp_taskruns.errors import InvalidArguments, NotConfigured, UpstreamError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


_URI = re.compile(r"[A-Za-z0-9\-._~:/@!$&'()*+,;=%\[\]]+")
"""What an address may hold (RFC 3986), `?` and `#` aside: a path has to be added to it."""

_LITERAL = "/?&=%:@!$'()*+,;~"
"""What of a path's own text is sent as it is, beside letters, digits and `-._`."""

_VISIBLE = re.compile(r"[!-~]+")

A_CREDENTIAL = "the provider's credential"
DIGEST_HINT = "Correct the user in the server's environment: RFC 7616 has no place for one."
A_VALUE = "a value that this call needs"

ABSENT = object()
"""No value was given; None is a value."""


@dataclass(frozen=True)
class _Value:
    """What is sent for a parameter, the argument it came from, and whether an array repeats its name."""

    argument: str
    value: Any
    explode: bool


_Values = dict[tuple[Location, str], _Value]


@dataclass(frozen=True)
class HttpRequest:
    """What is sent to the provider. Headers and URL may hold credentials, so neither is in the repr.

    `digest` are the user and the password for a provider that asks for HTTP digest authentication. `repeatable`:
    sending it twice is like sending it once. `patience_s`: how long the provider may be silent before it answers, where
    that is longer than usual.
    """

    provider: str
    method: str
    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    content: bytes | None = field(default=None, repr=False)
    digest: tuple[str, str] | None = field(default=None, repr=False)
    repeatable: bool = False
    timeout_s: float | None = field(default=None, repr=False)


@dataclass(frozen=True)
class File:
    """A file to be sent."""

    name: str
    media_type: str
    content: bytes = field(repr=False)


def build_request(operation: Operation, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> HttpRequest:
    """The request of one call; `arguments` have passed the tool's input schema.

    Raises NotConfigured naming the variable to set, and InvalidArguments naming the argument that cannot be sent.
    """
    if operation.unsupported:
        raise NotConfigured(operation.unsupported, kind="unsupported", hint="This tool cannot be called.")
    try:
        return _build(operation, arguments, environment)
    except (ValueError, RecursionError) as exc:  # half a surrogate pair, NaN, a thousand brackets
        raise InvalidArguments(
            "the arguments hold a value that cannot be sent: text or a number without a form"
        ) from exc


def _build(operation: Operation, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> HttpRequest:
    base = _base_uri(operation, environment)
    digest, credentials = _credentials(operation.authentication, environment)
    values = _values(operation, arguments, environment)
    url = base + _path(operation.path, values, environment)
    query = [*_query(values), *_pairs(credentials, Location.QUERY)]
    if query:
        url += ("&" if "?" in url else "?") + "&".join(query)
    content_type, content = _content(operation, arguments, environment)
    cookies = [*_cookies(values), *_pairs(credentials, Location.COOKIE)]
    headers = _merged(
        [("Accept", operation.accept)],
        [("Content-Type", content_type)] if content_type else [],
        _headers(values),
        [("Cookie", "; ".join(cookies))] if cookies else [],
        [(name, value) for place, name, value in credentials if place is Location.HEADER],
    )
    return HttpRequest(
        operation.provider,
        operation.method,
        url,
        headers,
        content,
        digest=digest,
        repeatable=operation.is_safe_to_retry,
        timeout_s=operation.timeout_s,
    )


def _merged(*groups: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The headers of all groups; of one that is there twice, however it is spelled, the last."""
    merged: dict[str, tuple[str, str]] = {}
    for name, value in chain.from_iterable(groups):
        merged[name.lower()] = (name, value)
    return tuple(merged.values())


def _pairs(credentials: Iterable[tuple[Location, str, str]], location: Location) -> Iterator[str]:
    for place, name, value in credentials:
        if place is location:
            yield f"{quote(name, safe='')}={quote(value, safe='')}"


def build_form_request(provider: str, url: str, content_type: str, content: bytes) -> HttpRequest:
    """The request that sends a form to an address that a provider gave. Raises UpstreamError for one that is unsafe."""
    if not (_is_address(url) and _is_private(url) and _VISIBLE.fullmatch(url)):
        raise UpstreamError(f"the address of {provider} cannot be used: it is no https URL", hint="Nothing was sent.")
    return HttpRequest(provider, "POST", url, (("Content-Type", content_type),), content, repeatable=True)


def _is_address(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        return False
    return bool(usable) and parts.username is None


def is_usable_base_uri(uri: str) -> bool:
    """Whether an address can be called: with credentials only over https, or on this machine."""
    return _is_address(uri) and _URI.fullmatch(uri) is not None and _is_private(uri)


def _is_private(uri: str) -> bool:
    """Whether nobody on the way reads what is sent there."""
    parts = urlsplit(uri)
    return parts.scheme == "https" or parts.hostname in LOOPBACK


def path_arguments(operation: Operation, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Of the arguments of one operation those that stand in the path of another on the same resource."""
    names = {parameter.argument for parameter in operation.parameters if parameter.location is Location.PATH}
    return {name: value for name, value in arguments.items() if name in names}


def credential_values(operation: Operation, environment: Mapping[str, str]) -> Iterator[str]:
    """The secrets of the environment that calls of this operation send, in the forms in which they are sent."""
    for variable in operation.credentials():
        yield from (environment[name].strip() for name in variable.names if environment.get(name))
    try:
        for _, _, value in _credentials(operation.authentication, environment)[1]:
            yield value.rsplit(" ", 1)[-1]
    except NotConfigured:
        return


def _base_uri(operation: Operation, environment: Mapping[str, str]) -> str:
    base = operation.base
    flag = f"--base-uri {operation.namespace}=URL"
    mend = f"Set {base.variables[0]} in the server's environment" if base.variables else f"Correct {flag}: set it"
    uri = next((environment[name] for name in base.variables if environment.get(name)), "")
    if not uri and base.default is not None:
        uri = _secret(base.default, environment, "a part of the provider's address")
    if not uri:
        also = f", or start it with {flag}" if operation.namespace else ""
        raise NotConfigured("the provider's address is not known", hint=f"{mend} to the provider's base URL{also}.")
    uri = uri.strip().removesuffix("/")
    if not _is_address(uri) or not _URI.fullmatch(uri):
        raise NotConfigured("the provider's address is not a URL", hint=f"{mend} to a URL that begins with https://.")
    if not _is_private(uri):
        raise NotConfigured(
            "the provider's address is not https, and credentials are sent in clear only to this machine",
            hint=f"{mend} to an address that begins with https://.",
        )
    return uri


def _credentials(
    authentication: Authentication | None, environment: Mapping[str, str]
) -> tuple[tuple[str, str] | None, list[tuple[Location, str, str]]]:
    """User and password where the provider has to ask first; else where each credential is sent, its name and value."""
    if authentication is None:
        return None, []
    parts = [_secret(template, environment) for template in authentication.parts]
    match authentication.kind:
        case "digest":
            if ":" in parts[0]:
                raise NotConfigured("the user for digest authentication holds a colon", kind="auth", hint=DIGEST_HINT)
            return (parts[0], parts[1]), []
        case "bearer":
            parts = [f"Bearer {parts[0]}"]
        case "basic":
            parts = ["Basic " + base64.b64encode(":".join(parts).encode()).decode()]
    return None, [
        (authentication.placement, name, value) for name, value in zip(authentication.names, parts, strict=True)
    ]


def _secret(template: ConstantTemplate, environment: Mapping[str, str], called: str = A_CREDENTIAL) -> str:
    text = ""
    for part in template:
        if isinstance(part, str):
            text += part
            continue
        value = next((environment[name] for name in part.names if environment.get(name)), "").strip()
        if not value:
            raise NotConfigured(
                f"{called} is not set",
                kind="auth" if called == A_CREDENTIAL else "config",
                hint=f"Set {' or '.join(part.names)} in the server's environment and start it again.",
            )
        if not (value.isascii() and value.isprintable()):
            raise NotConfigured(
                f"{called} holds characters that it cannot have",
                kind="auth" if called == A_CREDENTIAL else "config",
                hint=f"Correct {' or '.join(part.names)} in the server's environment: a line break too many?",
            )
        text += value
    return text


def _values(operation: Operation, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> _Values:
    values: _Values = {}
    for parameter in operation.parameters:
        if parameter.constant is not None:
            value: Any = _fill(parameter.constant, arguments, environment)
            value = None if value is ABSENT else value
        else:
            value = arguments.get(parameter.argument or parameter.name)
        if value is None and parameter.default is not None:
            names = parameter.default.names
            value = next((environment[name] for name in names if environment.get(name)), None)
            if value is None and parameter.location is Location.PATH:
                raise InvalidArguments(
                    f"{parameter.argument}: is required, and the server has no default for it",
                    hint=f"Pass {parameter.argument}, or set {' or '.join(names)} in the server's environment.",
                )
        if value is not None:
            argument = parameter.argument or parameter.name
            values[parameter.location, parameter.name] = _Value(argument, value, parameter.explode)
    return values


def _path(template: Template, values: _Values, environment: Mapping[str, str]) -> str:
    path = ""
    names: list[str] = []
    for part in template:
        if isinstance(part, str):
            path += quote(part, safe=_LITERAL)
            continue
        if isinstance(part, Variable):
            found = _Value(part.names[0], _secret((part,), environment, A_VALUE), True)
        else:
            found = values.get((Location.PATH, part.name)) or _Value(part.name, "", True)
        text = to_text(found.value)
        names.append(found.argument)
        if text in {"", ".", ".."}:
            raise InvalidArguments(f"{found.argument}: must be one segment of a path, not {text!r}")
        path += quote(text, safe="")
    if any(segment in {".", ".."} for segment in path.partition("?")[0].split("/")):
        raise InvalidArguments(f"{', '.join(names)}: together they would leave their place in the path")
    return path if path[:1] in {"", "/", "?"} else f"/{path}"


def _query(values: _Values) -> Iterator[str]:
    for (location, name), found in values.items():
        if location is not Location.QUERY:
            continue
        if not isinstance(found.value, list):
            yield _pair(name, quote(to_text(found.value), safe=""))
        elif found.explode:
            yield from (_pair(name, quote(to_text(item), safe="")) for item in found.value)
        elif found.value:
            yield _pair(name, ",".join(quote(to_text(item), safe="") for item in found.value))


def _pair(name: str, value: str) -> str:
    return f"{quote(name, safe='')}={value}"


def _headers(values: _Values) -> Iterator[tuple[str, str]]:
    for (location, name), found in values.items():
        if location is Location.HEADER:
            text = to_text(found.value)
            if not (text.isascii() and text.isprintable()):
                raise InvalidArguments(f"{found.argument}: may hold printable ASCII only, it is sent as a header")
            yield name, text


def _cookies(values: _Values) -> Iterator[str]:
    for (location, name), found in values.items():
        if location is Location.COOKIE:
            yield f"{name}={quote(to_text(found.value), safe='')}"


def _content(
    operation: Operation, arguments: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[str, bytes | None]:
    """The content type and the body; none where all that it would hold is absent."""
    body, kind = operation.body, operation.body_kind
    value = ABSENT if body is None else _fill(body, arguments, environment, kind)
    if value is ABSENT or (isinstance(body, dict) and not value):
        return "", None
    if kind == "multipart" and not has_parts(value):
        return "", None
    return encode_body(value, kind, body.name if isinstance(body, ArgumentReference) else "the body")


def _fill(tree: Any, arguments: Mapping[str, Any], environment: Mapping[str, str], kind: BodyKind = "json") -> Any:
    """The tree with its references replaced by their values; what refers to an absent argument is left out.

    A value inside a text is escaped for a body of this `kind`, where all of that is the text.
    """
    if isinstance(tree, ArgumentReference):
        return arguments.get(tree.name, ABSENT)
    if isinstance(tree, Variable):
        return _secret((tree,), environment, A_VALUE)
    if isinstance(tree, dict):
        filled = {name: _fill(item, arguments, environment) for name, item in tree.items()}
        return {name: value for name, value in filled.items() if value is not ABSENT}
    if isinstance(tree, list):
        items = [_fill(item, arguments, environment) for item in tree]
        return [value for value in items if value is not ABSENT]
    if isinstance(tree, tuple):
        return "".join(_part(part, arguments, environment, kind) for part in tree)
    return tree


def _part(
    part: str | Variable | ArgumentReference,
    arguments: Mapping[str, Any],
    environment: Mapping[str, str],
    kind: BodyKind,
) -> str:
    if isinstance(part, str):
        return part
    value = _fill(part, arguments, environment)
    return "" if value is ABSENT else escape_value(value, kind)
