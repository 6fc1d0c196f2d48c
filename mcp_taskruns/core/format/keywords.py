"""The keywords that overlays add to the format.

Keywords of the format itself are in camelCase, these are in snake_case. Their descriptions are part of the published
JSON Schema. Paths are JSONPaths that start with `$`.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from mcp_taskruns.core.format.run_keywords import RunsKeywords
from mcp_taskruns.core.format.strict_model import JsonPath, Keywords, StrictModel, When
from mcp_taskruns.core.format.types import Authentications, Names, StatusCodes, without_nulls
from mcp_taskruns.errors import Kind


class Header(StrictModel):
    """A response header."""

    header: str
    """The header's name, in any case."""


class ResponseValue(StrictModel):
    """A value that is in the response once, not in each item."""

    response: JsonPath
    """Path to the value in the response."""


class PagingKeywords(StrictModel):
    """How to get the next page of a list: by cursor, offset, page number, or the URL of the next page."""

    items: JsonPath = "$"
    """Path to the list in the response."""
    page_size_argument: str = "limit"
    """The argument that takes the page size; empty if the page size is fixed."""
    default_page_size: int = Field(gt=0)
    """The page size without that argument, in items."""
    max_page_size: int | None = Field(None, gt=0)
    """The largest page size, in items; default: `default_page_size`."""
    cursor_argument: str = ""
    """The argument that takes the cursor of the next page."""
    next_cursor: JsonPath | ResponseValue | Header = ""
    """Path to the cursor in the last item of a page, or where the response has it."""
    offset_argument: str = ""
    """The argument that takes the number of items to skip."""
    page_argument: str = ""
    """The argument that takes the number of the page."""
    first_page: int = Field(1, ge=0)
    """The number of the first page."""
    next_url: JsonPath | Header | None = None
    """The URL of the next page, absent or null on the last one. Its query has the arguments for the next page; of a
    header `Link` the relation `next` counts."""
    has_more: JsonPath | Header | None = None
    """What is set if there are more items. Without it `next_url` decides, then a `next_cursor` of the response, then
    `total`, or else a full page may be the last one."""
    total: JsonPath | Header | None = None
    """The number of items of all pages."""
    unfiltered_total: JsonPath | Header | None = None
    """The number of items without filters."""


class EventKeywords(StrictModel):
    """How to describe an event of a stream in one line."""

    type_paths: Names = ()
    """Paths to the type of an event; the first one with a value counts."""
    message_paths: Names = ()
    """Paths to its message; the first one with a value counts."""


class LogKeywords(StrictModel):
    """How to filter and describe the entries of a log."""

    time_path: JsonPath
    """Path to the time of an entry."""
    type_paths: Names = ()
    """Paths to the types of an entry, the most specific first."""
    message_paths: Names = ()
    """Paths to its message; the first one with a value counts."""
    type_examples: tuple[str, ...] = ()
    """Examples of types, for the description of the argument `types`."""


class UploadKeywords(StrictModel):
    """Files in the arguments that the server sends to presigned forms in the response."""

    files: JsonPath
    """Path to the files in the arguments."""
    content_field: str = "content"
    """The field of a file that holds its content."""
    encoding_field: str = "content_encoding"
    """The field that is `base64` if the content is."""
    size_field: str = "size"
    """The field for the size in bytes, which the server sets."""
    name_field: str = "name"
    """The field that holds the file's name."""
    media_type_field: str = "content_type"
    """The field that holds the media type."""
    prepared: JsonPath
    """Path to the prepared files in the response, in the same order."""
    form_field: str
    """The field of a prepared file that holds its presigned form, `{url, fields}`."""
    hint: str = ""
    """What to do after the upload."""


class Note(StrictModel):
    """A note that is added to responses that match a condition."""

    when: When = Field({})
    """The condition on the response; default: all responses."""
    text: str
    """The note."""


class EchoKeywords(StrictModel):
    """An argument whose members the response shows as they are stored, whether or not the call has changed them."""

    argument: str
    """The name of the argument, an object."""
    text: str
    """A note about members that the call has not changed; `{fields}` is replaced by their names."""


class TrimKeywords(StrictModel):
    """What readers do not need in the objects at a path of the response."""

    path: JsonPath
    """Path to the objects."""
    drop: Names
    """Their members that are left out."""
    flags: dict[str, JsonPath] = Field({})
    """Members that are added: whether something is at a path of the object, before members are left out."""


class NeededVariableKeywords(StrictModel):
    """An environment variable without which an operation cannot be called."""

    env: str
    """The environment variable."""
    matches: str = ".+"
    """A regular expression that the whole value has to match."""


class OperationKeywords(Keywords):
    """Keywords of an operation."""

    needs: tuple[NeededVariableKeywords, ...] = ()
    """Tools of the operation are listed only if one of these environment variables is set; default: always."""

    accept: str | None = None
    """The Accept header; `text/event-stream` makes the operation an event stream."""
    stream_format: Literal["sse", "ndjson"] | None = None
    """Makes the operation an event stream: of server-sent events, or of lines that are one event each, whatever the
    Content-Type of the response is; default: server-sent events, if `accept` asks for them."""
    safe_to_retry: bool | None = None
    """Whether two calls have the effect of one; default: for GET, HEAD and OPTIONS."""
    timeout_seconds: float | None = Field(None, gt=0)
    """How long a response may take, in seconds, if longer than the default."""
    authentication: Authentications = None
    """How the operation authenticates, if otherwise than the provider's other operations."""
    redact: Names = ()
    """Paths to secrets in the response."""
    paging: PagingKeywords | None = None
    events: EventKeywords | None = None
    log: LogKeywords | None = None
    upload: UploadKeywords | None = None
    echo: EchoKeywords | None = None
    trim: tuple[TrimKeywords, ...] = ()
    """Objects in the response that are shortened."""
    notes: tuple[Note, ...] = ()
    """Notes that are added to responses that match a condition."""
    follow_redirect: bool = False
    """Whether one redirect of a GET is followed, to https and a public address only, without the provider's credential
    and headers; on loopback if the provider is there."""
    returns_file: bool = False
    """Whether the response is a user's file, to be returned unchanged."""


class ErrorBodyKeywords(StrictModel):
    """What makes a JSON response an error, whatever its HTTP status code."""

    status: JsonPath
    """Path to the status code; 400 and above is an error."""
    message: JsonPath
    """Path to the message."""


class ErrorRuleKeywords(StrictModel):
    """The meaning of an error; a rule applies if `operations`, `status`, `when` and `message_matches` all match."""

    operations: Names = ()
    """Names of operations; default: all."""
    status: StatusCodes = ()
    """HTTP status codes; default: all."""
    when: When = Field({})
    """The condition on the body of the response; default: all."""
    message_matches: str = ""
    """A regular expression that is searched in the provider's message."""
    kind: Kind | None = None
    """The kind of the error; default: decided by the status code."""
    hint: str = ""
    """What to do; `{name}` is replaced by the group of that name, or else by that member of the body, `{credential}` by
    the credential's variable. A sentence with a placeholder that has no value is left out."""
    retryable: bool | None = None
    """Whether the same call may succeed later; default: decided by the kind."""


class RateLimit(StrictModel):
    """At most this many requests in any period of this length."""

    requests: int = Field(gt=0)
    """The number of requests."""
    per_seconds: float = Field(gt=0)
    """The length of the period in seconds."""
    applies_to: Literal["reads", "writes", "all"] = "all"
    """`reads`: GET, HEAD and OPTIONS; `writes`: other methods."""


class BaseUriRuleKeywords(StrictModel):
    """A variable of the provider's own SDK that determines the base URI. On loopback no credential is needed then."""

    env: str
    """The environment variable."""
    matches: str = ".+"
    """A regular expression that the whole value has to match; other values are ignored."""
    base_uri: str = "{value}"
    """The base URI; `{value}` is replaced by the value without a slash at its end."""


class ConsumedKeywords(Keywords):
    """Keywords of a provider."""

    base_uri_env: Names = ()
    """Environment variables that set the base URI; the first that is set counts."""
    base_uri_rules: tuple[BaseUriRuleKeywords, ...] = ()
    """Variables that determine the base URI if none of `base_uri_env` is set; the first rule that applies counts."""
    accept: str | None = None
    """The Accept header of all operations."""
    error_body: ErrorBodyKeywords | None = None
    error_messages: Names = ()
    """Paths to the message of an error body; if none has a value, the message is in one of the usual members."""
    errors: Annotated[dict[str, ErrorRuleKeywords], without_nulls] = Field({})
    """Error rules by name; the first that matches counts, in the order of the file."""
    rate_limits: tuple[RateLimit, ...] = ()
    """Limits that the server keeps to, each for a kind of request."""
    max_concurrent_requests: int | None = Field(None, gt=0)
    """How many requests the server sends at once; default: 100."""
    runs: RunsKeywords | None = None


class ParameterKeywords(Keywords):
    """Keywords of an input parameter."""

    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    """JSON Schema keywords that are added to the parameter's schema."""
    explode: bool | None = None
    """Whether an array in a query repeats the name; if false its items are joined by commas."""
    keeps_slashes: bool = False
    """Whether a value in the path may have several segments, separated by slashes; otherwise slashes are encoded."""
    env: Names = ()
    """Environment variables that set the value if the caller does not; the first that is set counts."""


class ToolKeywords(Keywords):
    """Keywords of a tool."""

    rename: str | None = None
    """The name to list instead of `name`."""
