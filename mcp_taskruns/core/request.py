"""An operation, the caller's arguments and the environment's values to the one request that they mean."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from mcp_taskruns.core.operation import (
    ArgumentReference,
    Authentication,
    BaseUri,
    ConstantTemplate,
    Location,
    Operation,
    Template,
    Variable,
)
from mcp_taskruns.errors import InvalidArguments, NotConfigured, UpstreamError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


_URI = re.compile(r"[!$->@-~]+")
"""What an address may hold, `?` and `#` aside: a path has to be added to it."""

_VISIBLE = re.compile(r"[!-~]+")

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
class UpstreamRequest:
    """What is sent to the provider. Headers and URL may hold credentials, so neither is in the repr.

    `repeatable`: sending it twice is like sending it once. `patience_s`: how long the provider may be silent before it
    answers, where that is longer than usual.
    """

    provider: str
    method: str
    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    content: bytes | None = field(default=None, repr=False)
    repeatable: bool = False
    patience_s: float | None = field(default=None, repr=False)


@dataclass(frozen=True)
class File:
    """A file to be sent."""

    name: str
    media_type: str
    content: bytes = field(repr=False)


def build_request(
    operation: Operation, arguments: Mapping[str, Any], environment: Mapping[str, str]
) -> UpstreamRequest:
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


def _build(operation: Operation, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> UpstreamRequest:
    base = _base_uri(operation.base, environment)
    credentials = list(_credentials(operation.authentication, environment))
    values = _values(operation, arguments, environment)
    query = [*_query(values), *(pair for place, *pair in credentials if place is Location.QUERY)]
    url = base + _path(operation.path, values, environment)
    if query:
        url += ("&" if "?" in url else "?") + "&".join(f"{quote(name, safe='')}={value}" for name, value in query)
    content = _content(operation.body, arguments, environment)
    headers = [("Accept", operation.accept), *_headers(values)]
    headers += [(name, value) for place, name, value in credentials if place is Location.HEADER]
    if content is not None:
        headers.append(("Content-Type", "application/json"))
    return UpstreamRequest(
        operation.provider,
        operation.method,
        url,
        tuple(headers),
        content,
        repeatable=operation.is_repeatable,
        patience_s=operation.timeout_s,
    )


def build_form_request(provider: str, url: str, content_type: str, content: bytes) -> UpstreamRequest:
    """The request that sends a form to an address that a provider gave. Raises UpstreamError for one that is unsafe."""
    if not (_is_address(url) and _is_private(url) and _VISIBLE.fullmatch(url)):
        raise UpstreamError(f"the address of {provider} cannot be used: it is no https URL", hint="Nothing was sent.")
    return UpstreamRequest(provider, "POST", url, (("Content-Type", content_type),), content, repeatable=True)


def _is_address(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        return False
    return bool(usable) and parts.username is None


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
        for _, _, value in _credentials(operation.authentication, environment):
            yield value.rsplit(" ", 1)[-1]
    except NotConfigured:
        return


def _base_uri(base: BaseUri, environment: Mapping[str, str]) -> str:
    uri = next((environment[name] for name in base.variables if environment.get(name)), base.default)
    if not uri:
        raise NotConfigured(
            "the provider's address is not known",
            hint=f"Set {base.variables[0]} in the server's environment to the provider's base URL.",
        )
    uri = uri.strip().removesuffix("/")
    if not _is_address(uri) or not _URI.fullmatch(uri):
        raise NotConfigured(
            "the provider's address is not a URL",
            hint=f"Set {base.variables[0]} in the server's environment to a URL that begins with https://.",
        )
    if not _is_private(uri):
        raise NotConfigured(
            "the provider's address is not https, and credentials are sent in clear only to this machine",
            hint=f"Set {base.variables[0]} in the server's environment to an address that begins with https://.",
        )
    return uri


def _credentials(
    authentication: Authentication | None, environment: Mapping[str, str]
) -> Iterator[tuple[Location, str, str]]:
    """Where a credential is sent, under which name, and its value."""
    if authentication is None:
        return
    parts = [_secret(template, environment) for template in authentication.parts]
    if authentication.kind == "bearer":
        value = f"Bearer {parts[0]}"
    elif authentication.kind == "basic":
        value = "Basic " + base64.b64encode(":".join(parts).encode()).decode()
    else:
        value = parts[0]
    if authentication.placement is Location.QUERY:
        value = quote(value, safe="")
    yield authentication.placement, authentication.name, value


def _secret(
    template: ConstantTemplate, environment: Mapping[str, str], called: str = "the provider's credential"
) -> str:
    text = ""
    for part in template:
        if isinstance(part, str):
            text += part
            continue
        value = next((environment[name] for name in part.names if environment.get(name)), "").strip()
        if not value:
            raise NotConfigured(
                f"{called} is not set",
                kind="config" if called == A_VALUE else "auth",
                hint=f"Set {' or '.join(part.names)} in the server's environment and start it again.",
            )
        if not (value.isascii() and value.isprintable()):
            raise NotConfigured(
                f"{called} holds characters that it cannot have",
                kind="config" if called == A_VALUE else "auth",
                hint=f"Correct {' or '.join(part.names)} in the server's environment: a line break too many?",
            )
        text += value
    return text


def _values(operation: Operation, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> _Values:
    values: _Values = {}
    for parameter in operation.parameters:
        if parameter.constant is not None:
            value: Any = _fill(parameter.constant, {}, environment)
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
            path += part
            continue
        if isinstance(part, Variable):
            found = _Value(part.names[0], _secret((part,), environment, A_VALUE), True)
        else:
            found = values.get((Location.PATH, part.name)) or _Value(part.name, "", True)
        text = _text(found.value)
        names.append(found.argument)
        if text in {"", ".", ".."}:
            raise InvalidArguments(f"{found.argument}: must be one segment of a path, not {text!r}")
        path += quote(text, safe="")
    if any(segment in {".", ".."} for segment in path.split("/")):
        raise InvalidArguments(f"{', '.join(names)}: together they would leave their place in the path")
    return path


def _query(values: _Values) -> Iterator[tuple[str, str]]:
    for (location, name), found in values.items():
        if location is not Location.QUERY:
            continue
        if not isinstance(found.value, list):
            yield name, quote(_text(found.value), safe="")
        elif found.explode:
            yield from ((name, quote(_text(item), safe="")) for item in found.value)
        elif found.value:
            yield name, ",".join(quote(_text(item), safe="") for item in found.value)


def _headers(values: _Values) -> Iterator[tuple[str, str]]:
    cookies: list[str] = []
    for (location, name), found in values.items():
        if location not in {Location.HEADER, Location.COOKIE}:
            continue
        text = _text(found.value)
        if not (text.isascii() and text.isprintable()):
            raise InvalidArguments(f"{found.argument}: may hold printable ASCII only, it is sent as a header")
        if location is Location.HEADER:
            yield name, text
        else:
            cookies.append(f"{name}={quote(text, safe='')}")
    if cookies:
        yield "Cookie", "; ".join(cookies)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ",".join(map(_text, value))
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # to JSON Schema 5.0 is an integer, to most providers it is not
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _content(body: Any, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> bytes | None:
    value = ABSENT if body is None else _fill(body, arguments, environment)
    if value is ABSENT or (value == {} and isinstance(body, dict)):
        return None
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _fill(tree: Any, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    """The tree with its references replaced by their values; what refers to an absent argument is left out."""
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
        parts = [_fill(part, arguments, environment) for part in tree]
        return "".join(_text(part) for part in parts if part is not ABSENT)
    return tree
