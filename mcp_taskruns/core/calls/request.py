"""Construction of the HTTP request of a call from an operation, arguments and the server's environment."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any
from urllib.parse import quote

from mcp_taskruns.core.calls.addresses import (
    BASE_URI_PATTERN,
    VISIBLE_ASCII,
    is_http_url,
    is_loopback_url,
    is_private_url,
    is_usable_base_uri,
    may_be_public,
)
from mcp_taskruns.core.calls.bodies import encode_body, escape_value, has_parts, to_text
from mcp_taskruns.core.calls.credentials import (
    BASE_URI_PART,
    CONSTANT,
    Credentials,
    choose_authentication,
    fill_constant,
    read_variable,
    require_variable,
    resolve_credentials,
)
from mcp_taskruns.core.calls.tokens import TokenRequest, build_token_request
from mcp_taskruns.core.model.operation import (
    ArgumentReference,
    BaseUri,
    BodyKind,
    Location,
    Operation,
    OptionalObject,
    Parameter,
    StreamFormat,
    Template,
    Variable,
)
from mcp_taskruns.errors import InvalidArguments, NotConfigured, UpstreamError

_PATH_CHARACTERS = "/?&=%:@!$'()*+,;~"
"""Characters of the literal text of a path that are not percent-encoded, besides letters, digits and `-._`."""


ABSENT = object()
"""Stands for an absent value; None is a value."""


@dataclass(frozen=True)
class _Value:
    """The value of a parameter, the argument that it comes from, and how it is written."""

    argument: str
    value: Any
    explode: bool = True
    keeps_slashes: bool = False


_Values = dict[tuple[Location, str], _Value]


UNTRUSTED = "Do not send it there: report this to the provider."
"""A hint for an address from a response that must not be used."""


@dataclass(frozen=True)
class HttpRequest:
    """A request to the provider. The URL and the headers may contain credentials, so the repr does not show them.

    Attributes:
        provider: the prefix of the provider's tools.
        method: the HTTP method.
        url: the complete URL.
        headers: names and values of the headers.
        content: the body.
        digest: user and password for HTTP digest authentication.
        safe_to_retry: whether sending the request twice has the same effect as sending it once.
        timeout_s: how long the provider may take to respond, in seconds; None for the default.
        token: the request for the bearer token that is added to the headers before the request is sent.
        public_only: whether the host must have a public address, because the URL is from a response.
        stream_format: how the events of a stream are written; None if the response is not known to be one.
    """

    provider: str
    method: str
    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    content: bytes | None = field(default=None, repr=False)
    digest: tuple[str, str] | None = field(default=None, repr=False)
    safe_to_retry: bool = False
    timeout_s: float | None = field(default=None, repr=False)
    token: TokenRequest | None = field(default=None, repr=False)
    public_only: bool = field(default=False, repr=False)
    stream_format: StreamFormat | None = field(default=None, repr=False)

    @property
    def is_safe(self) -> bool:
        """Whether the request only reads."""
        return self.method in {"GET", "HEAD"}

    @property
    def only_reads(self) -> bool:
        """Whether the request only reads, and can be repeated: some providers create something with a GET."""
        return self.is_safe and self.safe_to_retry


@dataclass(frozen=True)
class File:
    """A file that is uploaded."""

    name: str
    media_type: str
    content: bytes = field(repr=False)


def build_request(operation: Operation, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> HttpRequest:
    """Build the request of a call whose arguments match the tool's input schema.

    Raises NotConfigured, which names the environment variable to set, and InvalidArguments, which names the argument
    that cannot be sent.
    """
    if operation.unsupported:
        raise NotConfigured(operation.unsupported, kind="unsupported", hint="This tool cannot be called.")
    try:
        return _build(operation, _with_integer_ids(operation, arguments), environment)
    except (ValueError, RecursionError) as exc:
        raise InvalidArguments(
            "the arguments contain a value that cannot be sent: invalid Unicode, NaN, infinity or too deep nesting"
        ) from exc


def _with_integer_ids(operation: Operation, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments with the ids of runs as the provider takes them: callers pass all of them as text."""
    integers = {name: int(arguments[name]) for name in operation.integer_arguments if name in arguments}
    return {**arguments, **integers} if integers else arguments


def _build(operation: Operation, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> HttpRequest:
    base = base_uri(operation, environment)
    digest, credentials, token = _credentials(operation, base, environment)
    values = _parameter_values(operation, arguments, environment)
    path = _encode_path(operation.path, values, environment)
    content_type, content = _encode_content(operation, arguments, environment)
    query = [*_encode_query(values), *_encode_credentials(credentials, Location.QUERY)]
    cookies = [*_encode_cookies(values), *_encode_credentials(credentials, Location.COOKIE)]
    headers = _merge_headers(
        [("Accept", operation.accept)],
        [("Content-Type", content_type)] if content_type else [],
        _encode_headers(values),
        [("Cookie", "; ".join(cookies))] if cookies else [],
        [(name, value) for location, name, value in credentials if location is Location.HEADER],
    )
    return HttpRequest(
        operation.provider,
        operation.method,
        _append_query(base + path, query),
        headers,
        content,
        digest=digest,
        safe_to_retry=operation.is_safe_to_retry,
        timeout_s=operation.timeout_s,
        stream_format=operation.stream_format,
        token=token,
    )


def _append_query(url: str, query: list[str]) -> str:
    return url + ("&" if "?" in url else "?") + "&".join(query) if query else url


def _merge_headers(*groups: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return the headers of all groups. The last value of a name wins, regardless of case."""
    merged: dict[str, tuple[str, str]] = {}
    for name, value in chain.from_iterable(groups):
        merged[name.lower()] = (name, value)
    return tuple(merged.values())


def _encode_credentials(credentials: Credentials, location: Location) -> Iterator[str]:
    for place, name, value in credentials:
        if place is location:
            yield _encode_pair(name, quote(value, safe=""))


def build_form_request(
    provider: str, url: str, content_type: str, content: bytes, *, is_local: bool = False
) -> HttpRequest:
    """Build the request that sends a form to a URL from a response.

    With `is_local`, because the provider itself is on this machine, the URL may lead to it or to its network. Raises
    UpstreamError for any other such URL, and for one that is not https.
    """
    if not (is_http_url(url) and is_private_url(url) and VISIBLE_ASCII.fullmatch(url)):
        raise UpstreamError(f"the upload URL of {provider} is not a valid https URL", hint="Nothing was sent.")
    if not (is_local or may_be_public(url)):
        raise UpstreamError(
            f"the upload URL of {provider} leads to this machine or its network", hint=f"Nothing was sent. {UNTRUSTED}"
        )
    headers = (("Content-Type", content_type),)
    return HttpRequest(provider, "POST", url, headers, content, safe_to_retry=True, public_only=not is_local)


def path_arguments(operation: Operation, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that `operation` has in its path, for a call on the same resource."""
    names = {parameter.argument for parameter in operation.parameters if parameter.location is Location.PATH}
    return {name: value for name, value in arguments.items() if name in names}


def _base_uri_by_rule(base: BaseUri, environment: Mapping[str, str]) -> str | None:
    for rule in base.rules:
        value = environment.get(rule.variable, "").strip()
        if value and rule.matches.fullmatch(value):
            return rule.template.replace("{value}", value.removesuffix("/"))
    return None


def _credentials(
    operation: Operation, base: str, environment: Mapping[str, str]
) -> tuple[tuple[str, str] | None, Credentials, TokenRequest | None]:
    """Return the credentials of a request, and the request for its token.

    A development server on this machine, as the variables of the provider's SDK declare it, needs none.
    """
    try:
        authentication = choose_authentication(operation, environment)
        digest, credentials = resolve_credentials(authentication, environment)
        return digest, credentials, build_token_request(authentication, base, environment)
    except NotConfigured:
        names = [name for variable in operation.credentials() for name in variable.names]
        is_local = is_loopback_url(base) and _base_uri_by_rule(operation.base, environment) is not None
        if is_local and read_variable(names, environment) is None:
            return None, [], None
        raise


def base_uri(operation: Operation, environment: Mapping[str, str]) -> str:
    """Return the provider's base URL without a trailing slash. Raises NotConfigured if it is not set or not usable."""
    base = operation.base
    uri = read_variable(base.variables, environment) or _base_uri_by_rule(base, environment)
    if uri is None and base.default is not None:
        uri = fill_constant(base.default, environment, BASE_URI_PART)
    uri = (uri or "").strip().removesuffix("/")
    if not is_usable_base_uri(uri):
        raise _unusable_base_uri(operation, uri)
    return uri


def _unusable_base_uri(operation: Operation, uri: str) -> NotConfigured:
    base = operation.base
    flag = f"`--base-uri {operation.namespace}=URL`"
    advice = f"Set {base.variables[0]} in the server's environment to" if base.variables else f"Set {flag} to"
    if not uri:
        alternative = f", or start the server with {flag}" if operation.namespace else ""
        message = "the provider's base URL is not set"
        return NotConfigured(message, hint=f"{advice} the provider's base URL{alternative}.")
    message = "the provider's base URL is not valid"
    if is_http_url(uri) and BASE_URI_PATTERN.fullmatch(uri):
        message = "the provider's base URL is not https, and credentials are sent without encryption to loopback only"
    return NotConfigured(message, hint=f"{advice} a URL that begins with https://.")


def _parameter_values(operation: Operation, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> _Values:
    values: _Values = {}
    for parameter in operation.parameters:
        value = _parameter_value(parameter, arguments, environment)
        if value is not None:
            argument = parameter.argument or parameter.name
            values[parameter.location, parameter.name] = _Value(
                argument, value, parameter.explode, parameter.keeps_slashes
            )
    return values


def _parameter_value(parameter: Parameter, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    """Return the value of a parameter, or None if it is absent. A missing path parameter is an error."""
    if parameter.constant is not None:
        value = _fill(parameter.constant, arguments, environment)
        value = None if value is ABSENT else value
    else:
        value = arguments.get(parameter.argument or parameter.name)
    if value is not None or parameter.default is None:
        return value
    names = parameter.default.names
    value = read_variable(names, environment)
    if value is None and parameter.location is Location.PATH:
        raise InvalidArguments(
            f"{parameter.argument}: is required, because the server has no default for it",
            hint=f"Pass {parameter.argument}, or set {' or '.join(names)} in the server's environment.",
        )
    return value


def _encode_path(template: Template, values: _Values, environment: Mapping[str, str]) -> str:
    """Fill the placeholders of a path. Each value is percent-encoded and stays one segment, unless it keeps slashes."""
    path = ""
    names: list[str] = []
    for part in template:
        if isinstance(part, str):
            path += _encode_literal(part)
            continue
        value = _path_value(part, values, environment)
        names.append(value.argument)
        path += _encode_segments(value)
    if any(segment in {".", ".."} for segment in path.partition("?")[0].split("/")):
        raise InvalidArguments(f"{', '.join(names)}: must not form the path segment `.` or `..` together")
    return path if path[:1] in {"", "/", "?"} else f"/{path}"


@lru_cache(maxsize=1_000)
def _encode_literal(text: str) -> str:
    """Return the literal text of a path percent-encoded."""
    return quote(text, safe=_PATH_CHARACTERS)


def _encode_segments(value: _Value) -> str:
    text = to_text(value.value)
    segments = text.split("/") if value.keeps_slashes else [text]
    if not {"", ".", ".."}.isdisjoint(segments):
        expected = "segments separated by single slashes" if value.keeps_slashes else "one segment of a path"
        raise InvalidArguments(f"{value.argument}: must be {expected}, not {text!r}")
    return "/".join(quote(segment, safe="") for segment in segments)


def _path_value(part: Variable | ArgumentReference, values: _Values, environment: Mapping[str, str]) -> _Value:
    if isinstance(part, Variable):
        return _Value(part.names[0], require_variable(part, environment, CONSTANT))
    return values.get((Location.PATH, part.name)) or _Value(part.name, "")


def _encode_query(values: _Values) -> Iterator[str]:
    for (location, name), parameter in values.items():
        if location is not Location.QUERY:
            continue
        if not isinstance(parameter.value, list):
            yield _encode_pair(name, quote(to_text(parameter.value), safe=""))
            continue
        items = [quote(to_text(item), safe="") for item in parameter.value]
        if parameter.explode:
            yield from (_encode_pair(name, item) for item in items)
        elif items:
            yield _encode_pair(name, ",".join(items))


def _encode_pair(name: str, value: str) -> str:
    return f"{quote(name, safe='')}={value}"


def _encode_headers(values: _Values) -> Iterator[tuple[str, str]]:
    for (location, name), parameter in values.items():
        if location is Location.HEADER:
            text = to_text(parameter.value)
            if not (text.isascii() and text.isprintable()):
                raise InvalidArguments(f"{parameter.argument}: must be printable ASCII, because it is sent as a header")
            yield name, text


def _encode_cookies(values: _Values) -> Iterator[str]:
    for (location, name), parameter in values.items():
        if location is Location.COOKIE:
            yield f"{name}={quote(to_text(parameter.value), safe='')}"


def _encode_content(
    operation: Operation, arguments: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[str, bytes | None]:
    """Return the content type and the body; no body if all arguments that it refers to are absent."""
    body, kind = operation.body, operation.body_kind
    value = ABSENT if body is None else _fill(body, arguments, environment, kind)
    if value is ABSENT:
        return "", None
    if kind == "multipart" and not has_parts(value):
        return "", None
    return encode_body(value, kind, body.name if isinstance(body, ArgumentReference) else "the body")


def _fill(tree: Any, arguments: Mapping[str, Any], environment: Mapping[str, str], kind: BodyKind = "json") -> Any:
    """Replace the references in a tree by their values; drop members and items that refer to absent arguments.

    A value inside text is escaped for a body of this `kind`, if the text is the whole body.
    """
    if isinstance(tree, ArgumentReference):
        return arguments.get(tree.name, ABSENT)
    if isinstance(tree, Variable):
        return require_variable(tree, environment, CONSTANT)
    if isinstance(tree, dict):
        filled = {name: _fill(item, arguments, environment) for name, item in tree.items()}
        present = {name: value for name, value in filled.items() if value is not ABSENT}
        return ABSENT if isinstance(tree, OptionalObject) and not present else present
    if isinstance(tree, list):
        items = [_fill(item, arguments, environment) for item in tree]
        return [value for value in items if value is not ABSENT]
    if isinstance(tree, tuple):
        return "".join(_fill_text(part, arguments, environment, kind) for part in tree)
    return tree


def _fill_text(
    part: str | Variable | ArgumentReference,
    arguments: Mapping[str, Any],
    environment: Mapping[str, str],
    kind: BodyKind,
) -> str:
    if isinstance(part, str):
        return part
    value = _fill(part, arguments, environment)
    return "" if value is ABSENT else escape_value(value, kind)
