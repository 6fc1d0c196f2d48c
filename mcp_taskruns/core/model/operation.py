"""What a capability is compiled to: tools, their operations and where each argument goes.

All values, decided once at start. Nothing reads a capability file again after them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from mcp_taskruns.core.model.json_path import Condition, Path
from mcp_taskruns.core.model.limits import NO_LIMITS, Limits
from mcp_taskruns.errors import Kind


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
    limits: Limits = NO_LIMITS
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
