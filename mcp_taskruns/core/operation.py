"""What a capability is compiled to: tools, their operations and where each argument goes.

All values, decided once at start. Nothing reads a capability file again after them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Literal

from mcp_taskruns.errors import Kind


class _Step(Enum):
    """A step of a path that is no name and no number; a member stays itself when it is copied or kept."""

    EACH = "[*]"


EACH = _Step.EACH
"""The step of a path that goes to every item of a list."""

Path = tuple[Any, ...]
"""Where something stands in a JSON value: names of members, numbers of items, `EACH`. The empty path is the value."""

Condition = tuple[tuple[Path, tuple[Any, ...]], ...]
"""Paths and, for each, the values of which one has to stand there."""


class Location(StrEnum):
    """Where an argument goes in the request."""

    PATH = "path"
    QUERY = "query"
    HEADER = "header"
    COOKIE = "cookie"
    BODY = "body"


@dataclass(frozen=True)
class Variable:
    """A value of the server's environment; the first of these names that is set wins."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class ArgumentReference:
    """A value that the caller passes under this name."""

    name: str


Template = tuple[str | Variable | ArgumentReference, ...]
"""Text with holes."""

ConstantTemplate = tuple[str | Variable, ...]
"""Text whose holes are filled from the environment alone."""


@dataclass(frozen=True)
class Parameter:
    """An input parameter: one thing that is sent, and where its value comes from.

    `argument` is the name the caller passes it under, None for a `constant`: a template where it is text, else a tree
    of JSON values, both of which may refer to arguments. `default` names the environment's value for an absent
    argument. Arrays in a query repeat the name when `explode`, else they are comma-joined.
    """

    name: str
    location: Location
    argument: str | None
    constant: Any = field(default=None, hash=False)
    default: Variable | None = None
    explode: bool = True


@dataclass(frozen=True)
class Authentication:
    """How a request proves who asks.

    `parts` are the templates of what is secret: a token, user and password for `basic` and `digest`, for `apikey` one
    for each of the `names` under which they are sent.
    """

    kind: Literal["bearer", "basic", "digest", "apikey"]
    parts: tuple[ConstantTemplate, ...]
    placement: Location = Location.HEADER
    names: tuple[str, ...] = ("Authorization",)


@dataclass(frozen=True)
class BaseUri:
    """The provider's address; the first of `variables` that is set in the environment wins over `default`."""

    default: ConstantTemplate | None
    variables: tuple[str, ...]


BodyKind = Literal["json", "text", "xml", "form", "multipart", "binary"]
"""How a body is written: as JSON, as text in which values are escaped for what it is, as a form, as bytes."""


@dataclass(frozen=True)
class Output:
    """A part of what a tool returns, made of the provider's answer.

    `mapping` leads there from the value of the part around it: a path, or the text of a JSONPath that says more than a
    path can. `properties` build an object of what stands there, `items` is applied to each item of a list.
    """

    mapping: Path | str = ()
    constant: Any = None
    properties: Mapping[str, "Output"] = field(default_factory=dict, hash=False)
    items: "Output | None" = None


@dataclass(frozen=True)
class ErrorBody:
    """The members that make a JSON answer an error, whatever its HTTP status."""

    status: str
    message: str


@dataclass(frozen=True)
class ErrorRule:
    """What a provider's error means, when it has one of the statuses, fulfils `when` and its words match `says`.

    No statuses and no `says` are any. `kind` and `hint` replace what the status alone would say, `retryable` what the
    kind would; a hint's holes, `{name}`, are filled with the groups of `says`.
    """

    status: frozenset[int] = frozenset()
    when: Condition = ()
    says: re.Pattern[str] | None = None
    kind: Kind | None = None
    hint: str = ""
    retryable: bool | None = None


@dataclass(frozen=True)
class Rate:
    """How many calls a provider takes in any so many seconds: of reads, of writes, or of both (None)."""

    calls: int
    seconds: float
    of_reads: bool | None = None


@dataclass(frozen=True)
class Limits:
    """How much a provider is asked by one process: calls at once (None: as many as by default), and how often."""

    concurrency: int | None = None
    rates: tuple[Rate, ...] = ()


@dataclass(frozen=True)
class Paging:
    """How a list goes on after a page.

    `items` leads to the list, `limit` is the argument for its length, which is `size` by default and `max_size` at
    most. The next page is asked for by `cursor`, an argument that takes what stands at `next` in the last item, or by
    `offset`, an argument that takes a number of items. `more` leads to what is there when there are more, `total` to
    how many there are, `unfiltered` to how many there were without filters; each may be a header's name. Without `more`
    a page that is full may not be the last.
    """

    items: Path
    limit: str
    size: int
    max_size: int
    cursor: str = ""
    next: Path = ()
    offset: str = ""
    more: Path | str | None = None
    total: Path | str | None = None
    unfiltered: Path | str | None = None


@dataclass(frozen=True)
class EntryLog:
    """A list of log entries: where each tells its time, and its type (the first of several places that has one)."""

    time: Path
    types: tuple[Path, ...]


@dataclass(frozen=True)
class Upload:
    """Files that are sent to where an answer says.

    `files` leads to the files in the arguments, each with members for its `content`, the content's `encoding` and its
    `size`, which is ours to fill in; `prepared` to what the answer tells of each, in the same order, and `form` in that
    to the presigned form: `{url, fields}`.
    """

    files: Path
    content: str
    encoding: str
    size: str
    name: str
    media_type: str
    prepared: Path
    form: str
    advice: str = ""


@dataclass(frozen=True)
class Operation:
    """One HTTP method on a resource of a provider.

    `namespace` is the name of the provider's side in its file, `provider` the prefix of its tools. `path` is text with
    placeholders. `body` is a tree of JSON values and references, None for no body; its kind says how it is sent.
    `outputs` say what of an answer is returned, all of it without them. `unsupported` says why the operation cannot be
    called, when it cannot. `repeatable` says whether calling it twice is like calling it once, where its method does
    not. `redactions` are places in its answer whose values are secrets. `timeout_s` is how long an answer may take,
    where that is longer than usual. `remarks` are said of answers that fulfil their conditions. `is_file`: what it
    answers is a file of somebody's, passed on as it is.
    """

    name: str
    provider: str
    method: str
    base: BaseUri
    path: Template
    parameters: tuple[Parameter, ...] = ()
    body: Any = field(default=None, hash=False)
    body_kind: BodyKind = "json"
    accept: str = "application/json, */*;q=0.5"
    authentication: Authentication | None = None
    error_body: ErrorBody | None = None
    unsupported: str | None = None
    errors: tuple[ErrorRule, ...] = field(default=(), hash=False)
    limits: Limits = Limits()
    repeatable: bool | None = None
    timeout_s: float | None = None
    redactions: tuple[Path, ...] = ()
    paging: Paging | None = None
    log: EntryLog | None = None
    upload: Upload | None = None
    remarks: tuple[tuple[Condition, str], ...] = field(default=(), hash=False)
    is_file: bool = False
    namespace: str = ""
    outputs: Output | None = None

    @property
    def is_stream(self) -> bool:
        """Whether it is called for a stream of server-sent events."""
        return self.accept.startswith("text/event-stream")

    @property
    def is_safe(self) -> bool:
        """Whether its method only reads: RFC 9110 section 9.2.1."""
        return self.method in {"GET", "HEAD", "OPTIONS"}

    @property
    def is_repeatable(self) -> bool:
        """Whether calling it twice is like calling it once. Not so what its method alone calls idempotent.

        To cancel what has ended may be an error, or delete it.
        """
        return self.is_safe if self.repeatable is None else self.repeatable

    def credentials(self) -> Iterator[Variable]:
        """What of the environment it sends and must not show.

        Those are the parts of its authentication and the constants beside it. What stands in the address is mostly a
        name, of a region or an organization, which answers tell too: there only what is called a secret is one.
        """
        parts = list(self.authentication.parts if self.authentication else ())
        constants = [parameter.constant for parameter in self.parameters if parameter.location is not Location.PATH]
        yield from _variables([*parts, *constants, self.body])
        named = [parameter.constant for parameter in self.parameters if parameter.location is Location.PATH]
        for variable in _variables([self.base.default, self.path, *named]):
            if any(_SECRET.search(name) for name in variable.names):
                yield variable


_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|AUTH|CRED|BOT", re.IGNORECASE)


def _variables(tree: Any) -> Iterator[Variable]:
    if isinstance(tree, Variable):
        yield tree
    elif isinstance(tree, dict | list | tuple):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from _variables(item)


@dataclass(frozen=True)
class Hints:
    """What a tool does to the world, all four decided."""

    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool


class RunState(StrEnum):
    """Where a run stands, in any provider; `unknown` is a native state that its capability does not name."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    UNKNOWN = "unknown"

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended: it will not leave this state."""
        return self in {RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELED}


@dataclass(frozen=True)
class RunShape:
    """Where the parts of a run stand in a JSON value; what has no path is not told there.

    `error` are several paths, whose texts are joined. `progress` leads to a ratio from 0 to 1.
    """

    id: Path
    state: Path
    stage: Path | None = None
    progress: Path | None = None
    result: Path | None = None
    error: tuple[Path, ...] = ()
    started: Path | None = None


@dataclass(frozen=True)
class RunStream:
    """The operation whose events tell how runs go on.

    `ids` is the argument that names the runs, a list of them when `is_many`. Events that fulfil `when` hold a run of
    `shape`. `arguments` are passed when only what follows matters. A run that is in one of the states `untold` when
    the stream is opened never appears on it.
    """

    operation: Operation
    ids: str
    is_many: bool
    shape: RunShape
    when: Condition = ()
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    untold: frozenset[RunState] = frozenset()


@dataclass(frozen=True)
class RunStart:
    """An operation that makes or starts a run.

    `key` leads to the argument by which the provider recognises a repeated call. `then` is an operation that has to
    be called too before the run goes on, when its answer fulfils `when`.
    """

    tool: str
    key: Path | None = None
    then: "RunCall | None" = None
    when: Condition = ()


@dataclass(frozen=True)
class RunCall:
    """An operation on one run: its tool's name, and the argument that is the run's id."""

    tool: str
    operation: Operation
    id: str


@dataclass(frozen=True)
class RunCancel:
    """A call that cancels a run: of this tool, with arguments that fulfil `when`.

    `guard` is the argument without which a run that has ended is left alone; empty: it is left alone in any case.
    """

    call: RunCall
    when: Condition = ()
    guard: str = ""


@dataclass(frozen=True)
class Lifecycle:
    """How a run lives at one provider. Tools are named as they are listed.

    `found` says in whose answers runs stand, and where. Reading more often than every `interval_s` seconds tells
    nothing new; an answer may be `cached_s` old. `is_forgotten`: a run that was cancelled cannot be read any more.
    `lifetime_s`: how long a run can be read after it began, None where that is not known. `advice` are sentences for
    native states.
    """

    provider: str
    read: RunCall
    shape: RunShape
    states: Mapping[str, RunState] = field(hash=False)
    wait_tool: str = ""
    stream: RunStream | None = None
    starts: Mapping[str, RunStart] = field(default_factory=dict, hash=False)
    cancels: tuple[RunCancel, ...] = ()
    found: Mapping[str, Path] = field(default_factory=dict, hash=False)
    interval_s: float = 5.0
    cached_s: float = 0.0
    is_forgotten: bool = False
    lifetime_s: float | None = None
    advice: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Tool:
    """What MCP lists, and the operation that a call of it runs.

    `ignored` are arguments that are accepted and dropped: the server sets those headers itself. `runs` is the life
    cycle of the runs that the operation is about; a tool that `waits` reads one until it has ended. `own` are arguments
    that are the server's and not the operation's. `route` is where the REST side has it: method, path and file.
    """

    name: str
    spec_name: str
    prefix: str
    title: str
    description: str
    hints: Hints
    input_schema: Mapping[str, Any] = field(hash=False)
    operation: Operation = field(hash=False)
    ignored: frozenset[str] = frozenset()
    runs: Lifecycle | None = field(default=None, hash=False, repr=False)
    waits: bool = False
    own: frozenset[str] = frozenset()
    output_schema: Mapping[str, Any] | None = field(default=None, hash=False)
    route: tuple[str, str, str] | None = None


@dataclass(frozen=True)
class Route:
    """One operation of the REST side.

    `path` is the path as it is served, with `variables` that are arguments of the tool, by the names they have there.
    `places` say where a caller passes each argument: an argument that is all of the body is named in `body`, others
    of the body are its members. `source` is the file, `name` distinct among all routes. `claimed` is the path that the
    file has, where that is another file's as well.
    """

    method: str
    path: str
    tool: Tool = field(hash=False)
    variables: Mapping[str, str] = field(hash=False)
    places: Mapping[str, Location] = field(hash=False)
    body: str = ""
    source: str = ""
    name: str = ""
    claimed: str = ""
