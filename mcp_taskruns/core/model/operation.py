"""A provider's operation, compiled from a capability file and its overlay.

All values are immutable and decided once, when files are loaded. Nothing reads a capability file after that.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from mcp_taskruns.core.model.json_path import Condition, Path
from mcp_taskruns.core.model.limits import NO_LIMITS, Limits, RequestKind
from mcp_taskruns.errors import Kind


class Location(StrEnum):
    """The part of the request that a parameter is sent in."""

    PATH = "path"
    QUERY = "query"
    HEADER = "header"
    COOKIE = "cookie"
    BODY = "body"


@dataclass(frozen=True)
class Variable:
    """A value from the server's environment: the first of these variables that is set."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class ArgumentReference:
    """The value of the caller's argument of this name."""

    name: str


class OptionalObject(dict[str, Any]):
    """An object in the template of a body that is not sent if all its members are absent."""


Template = tuple[str | Variable | ArgumentReference, ...]
"""Text with placeholders."""

ConstantTemplate = tuple[str | Variable, ...]
"""Text whose placeholders are all filled from the environment."""


@dataclass(frozen=True)
class Parameter:
    """One value that is sent in a request, and where it comes from."""

    name: str
    location: Location
    argument: str | None
    """The name under which the caller passes the value; None for a constant."""
    constant: Any = field(default=None, hash=False)
    """A template, or a tree of JSON values; both may refer to arguments."""
    default: Variable | None = None
    """The value of an argument that the caller does not pass."""
    explode: bool = True
    """Whether an array in a query repeats the name; else its items are joined by commas."""
    keeps_slashes: bool = False
    """Whether slashes of a value in the path separate segments; else they are encoded."""


@dataclass(frozen=True)
class TokenEndpoint:
    """Where a bearer token is fetched, and what is sent for it."""

    uri: ConstantTemplate
    """A URI, or a reference that is relative to the origin of the provider."""
    body: Any = field(hash=False)
    """A tree of JSON values, whose texts are templates."""
    body_kind: Literal["form", "json"] = "form"
    basic: tuple[ConstantTemplate, ...] = ()
    """Client id and secret, if they are sent in the Authorization header."""
    token: Path = ("access_token",)
    expires_in: Path = ("expires_in",)
    """The seconds for which the token is valid."""
    renew_after: frozenset[int] = frozenset({401})
    """Status codes of the provider after which a new token is fetched."""


@dataclass(frozen=True)
class Authentication:
    """How a request authenticates."""

    kind: Literal["none", "bearer", "basic", "digest", "apikey", "oauth2"]
    parts: tuple[ConstantTemplate, ...]
    """The secrets: a token; user and password (`basic`, `digest`), or both with a colon between them (`basic`); one key
    for each of `names` (`apikey`); client id and secret, or the secrets in the body of a token request (`oauth2`)."""
    placement: Location = Location.HEADER
    names: tuple[str, ...] = ("Authorization",)
    endpoint: TokenEndpoint | None = None
    """Where the token is fetched (`oauth2`)."""

    def variables(self) -> Iterator[Variable]:
        """Yield all variables that have to be set."""
        if self.endpoint:
            yield from variables_in([self.endpoint.body, *self.parts, self.endpoint.uri])
        else:
            yield from variables_in(self.parts)


NO_AUTHENTICATION = Authentication("none", ())


@dataclass(frozen=True)
class BaseUriRule:
    """An environment variable whose value determines the provider's address in the way of the provider's own SDK."""

    variable: str
    matches: re.Pattern[str]
    """The rule applies to values that match as a whole."""
    template: str
    """The address; `{value}` is the value without a slash at its end."""


@dataclass(frozen=True)
class BaseUri:
    """The provider's address: the first of `variables` that is set in the environment, or by a rule, or `default`."""

    default: ConstantTemplate | None
    variables: tuple[str, ...]
    rules: tuple[BaseUriRule, ...] = ()
    """The first one that applies counts."""


BodyKind = Literal["json", "json_text", "text", "xml", "form", "multipart", "binary"]
"""How a body is encoded. In `text` and `xml`, values are escaped for the text around them; `json_text` is JSON of which
a text that is JSON already is sent unchanged."""


@dataclass(frozen=True)
class Output:
    """A part of a tool's result, mapped from the provider's response."""

    mapping: Path | str = ()
    """From the value of the enclosing part: a path, or the text of a JSONPath that a path cannot express."""
    constant: Any = None
    properties: Mapping[str, "Output"] = field(default_factory=dict, hash=False)
    """The members of the object to build from the mapped value."""
    items: "Output | None" = None
    """The output for each item of the mapped list."""


@dataclass(frozen=True)
class NeededVariable:
    """An environment variable, and what its whole value has to match."""

    name: str
    matches: re.Pattern[str]

    def is_set(self, environment: Mapping[str, str]) -> bool:
        """Whether the variable has such a value."""
        value = environment.get(self.name, "").strip()
        return bool(value) and self.matches.fullmatch(value) is not None


@dataclass(frozen=True)
class Echo:
    """An argument whose members the response shows as they are stored, whether or not the call has changed them."""

    argument: str
    text: str
    """A note about members that the call has not changed; `{fields}` are their names."""


@dataclass(frozen=True)
class Trim:
    """What readers do not need in the objects at a path of a response."""

    path: Path
    drop: frozenset[str]
    """Members that are left out."""
    flags: Mapping[str, Path] = field(default_factory=dict, hash=False)
    """Members that are added: whether something is at a path of the object."""


@dataclass(frozen=True)
class ErrorBody:
    """Paths to what makes a JSON response an error, whatever its HTTP status code."""

    status: Path
    message: Path


@dataclass(frozen=True)
class ErrorRule:
    """A meaning of provider errors that match `status`, `when` and `message_matches`."""

    status: frozenset[int] = frozenset()
    """HTTP status codes; empty: any."""
    when: Condition = ()
    message_matches: re.Pattern[str] | None = None
    kind: Kind | None = None
    """Instead of the kind that follows from the status code."""
    hint: str = ""
    """Its placeholders, `{name}`, are filled with the groups of `message_matches`."""
    retryable: bool | None = None
    """Instead of the value that follows from the kind."""


@dataclass(frozen=True)
class QueryArgument:
    """The argument of a query parameter, with its JSON Schema type; the type is empty if it has several or none."""

    name: str
    type: str


@dataclass(frozen=True)
class Paging:
    """How to get the next page of a list.

    A provider with `cursor_argument` takes a cursor there, one with `offset_argument` the number of items to skip, one
    with `page_argument` the number of the page. With `next_url` the arguments are in the URL of the next page.
    """

    items: Path
    page_size_argument: str
    default_page_size: int
    max_page_size: int
    cursor_argument: str = ""
    next_cursor: Path = ()
    """Path to the cursor, from the last item."""
    response_cursor: Path | str | None = None
    """Path to the cursor, from the response, or the header that has it."""
    offset_argument: str = ""
    page_argument: str = ""
    first_page: int = 1
    """The number of the first page."""
    next_url: Path | str | None = None
    """Path to the URL of the next page, or the header that has it."""
    has_more: Path | str | None = None
    """Path, or header, that is set when there are more items. Without it a full page may be the last one."""
    total: Path | str | None = None
    """Path, or header, of the number of items."""
    unfiltered_total: Path | str | None = None
    """Path, or header, of the number of items without filters."""
    query: Mapping[str, QueryArgument] = field(default_factory=dict, hash=False, compare=False)
    """The arguments of the operation that are sent in the query, by their query parameters."""

    @property
    def position_argument(self) -> str:
        """The argument that takes the place of the page in the list: its offset, its number or its cursor."""
        return self.offset_argument or self.page_argument or self.cursor_argument


@dataclass(frozen=True)
class EventFormat:
    """Paths to the type and the message of an event or a log entry; the first path with a value counts."""

    type_paths: tuple[Path, ...] = ()
    message_paths: tuple[Path, ...] = ()


@dataclass(frozen=True)
class LogFormat:
    """Paths to the parts of a log entry."""

    time_path: Path
    event: EventFormat = EventFormat()


@dataclass(frozen=True)
class Upload:
    """Files in the arguments that are sent to presigned forms in the response."""

    files: Path
    """Path to the files in the arguments, each an object with the following fields."""
    content_field: str
    encoding_field: str
    size_field: str
    """Set by the server."""
    name_field: str
    media_type_field: str
    prepared: Path
    """Path to the prepared files in the response, in the same order."""
    form_field: str
    """The field of a prepared file that holds its presigned form: `{url, fields}`."""
    hint: str = ""


StreamFormat = Literal["sse", "ndjson"]
"""How the events of a stream are written: as server-sent events, or one on each line, whatever the content type."""


@dataclass(frozen=True)
class Operation:
    """One HTTP method of a resource of a provider."""

    name: str
    provider: str
    """The prefix of the provider's tools."""
    method: str
    base: BaseUri
    path: Template
    parameters: tuple[Parameter, ...] = ()
    body: Any = field(default=None, hash=False)
    """A tree of JSON values and references; None: no body."""
    body_kind: BodyKind = "json"
    accept: str = "application/json, */*;q=0.5"
    authentication: Authentication | None = None
    alternatives: tuple[Authentication, ...] = ()
    """Used instead: the first whose variables are all set counts. NO_AUTHENTICATION makes the credential optional."""
    error_body: ErrorBody | None = None
    error_messages: tuple[Path, ...] = ()
    """Where error bodies have their message; otherwise in one of the usual members."""
    unsupported: str | None = None
    """Why the operation cannot be called, if it cannot."""
    errors: tuple[ErrorRule, ...] = field(default=(), hash=False)
    limits: Limits = NO_LIMITS
    safe_to_retry: bool | None = None
    """Whether two calls have the effect of one; None: decided by the method."""
    timeout_s: float | None = None
    """How long a response may take, if longer than the default."""
    redactions: tuple[Path, ...] = ()
    """Places of secrets in the response."""
    paging: Paging | None = None
    events: EventFormat = EventFormat()
    log: LogFormat | None = None
    upload: Upload | None = None
    trims: tuple[Trim, ...] = ()
    echo: Echo | None = None
    notes: tuple[tuple[Condition, str], ...] = field(default=(), hash=False)
    """Notes for responses that match a condition."""
    returns_file: bool = False
    """Whether the response is a user's file, to be returned unchanged."""
    returns_run: bool = False
    """Whether the response shows a run or a list of runs, so that it has content."""
    output_format: str = "json"
    """The format that the capability file declares for the response. The response may have another one."""
    namespace: str = ""
    """The namespace of its `consumes` in the capability file."""
    needs: tuple[NeededVariable, ...] = field(default=(), hash=False)
    """Variables of which one has to be set, or else tools that call the operation are not listed."""
    outputs: Output | None = None
    """The parts of the response to return; None: all of it."""
    integer_arguments: frozenset[str] = frozenset()
    """Arguments with the id of a run that callers pass as text, and the provider takes as an integer."""
    stream_format: StreamFormat | None = None
    """The format of the event stream that the operation returns; None: decided by `accept`."""
    follow_redirect: bool = False
    """Whether one redirect is followed, without credentials."""
    is_held: bool = False
    """Whether the request asks the provider to hold its response back."""

    @property
    def is_stream(self) -> bool:
        """Whether the response is a stream of events."""
        return self.stream_format is not None or self.accept.startswith("text/event-stream")

    @property
    def request_kind(self) -> RequestKind:
        """What rate limits count its requests as."""
        return RequestKind.READ if self.is_safe else RequestKind.WRITE

    @property
    def is_safe(self) -> bool:
        """Whether the method is safe, that is read-only: RFC 9110 section 9.2.1."""
        return self.method in {"GET", "HEAD", "OPTIONS"}

    @property
    def is_safe_to_retry(self) -> bool:
        """Whether two calls have the effect of one.

        The methods that RFC 9110 calls idempotent are not safe to retry by default: a second DELETE may be an error, or
        delete a run that the first one canceled.
        """
        return self.is_safe if self.safe_to_retry is None else self.safe_to_retry

    def is_available(self, environment: Mapping[str, str]) -> bool:
        """Whether the environment has what the operation needs."""
        return not self.needs or any(variable.is_set(environment) for variable in self.needs)

    @property
    def authentications(self) -> tuple[Authentication, ...]:
        """All ways to authenticate, in the order in which they are tried."""
        return (self.authentication, *self.alternatives) if self.authentication else ()

    def credentials(self) -> Iterator[Variable]:
        """Yield the variables whose values are secrets: those of the authentication, of constants and of the body.

        Values in the address are mostly names, of a region or an organization, which responses contain as well: there
        only variables whose names suggest a secret count.
        """
        parts = [part for authentication in self.authentications for part in authentication.parts]
        constants = [parameter.constant for parameter in self.parameters if parameter.location is not Location.PATH]
        yield from variables_in([*parts, *constants, self.body])
        in_path = [parameter.constant for parameter in self.parameters if parameter.location is Location.PATH]
        addresses = [one.endpoint.uri for one in self.authentications if one.endpoint]
        for variable in variables_in([self.base.default, self.path, *in_path, *addresses]):
            if any(_SECRET.search(name) for name in variable.names):
                yield variable

    def variables(self) -> Iterator[Variable]:
        """Yield all variables whose values a request contains."""
        constants = [parameter.constant for parameter in self.parameters]
        yield from variables_in([self.path, self.body, self.base.default])
        for authentication in self.authentications:
            yield from authentication.variables()
        yield from variables_in(constants)


_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|AUTH|CRED|BOT", re.IGNORECASE)


def variables_in(tree: Any) -> Iterator[Variable]:
    """Yield the variables in a tree of templates and JSON values."""
    if isinstance(tree, Variable):
        yield tree
    elif isinstance(tree, dict | list | tuple):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from variables_in(item)
