"""What a capability is compiled to: tools, their operations and where each argument goes.

All values, decided once at start. Nothing reads a capability file again after them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal


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

    `argument` is the name the caller passes it under, None for a `constant`: a template where it is text, else a JSON
    value. `default` names the environment's value for an absent argument. Arrays in a query repeat the name when
    `explode`, else they are comma-joined.
    """

    name: str
    location: Location
    argument: str | None
    constant: Any = None
    default: Variable | None = None
    explode: bool = True


@dataclass(frozen=True)
class Authentication:
    """How a request proves who asks. `parts` are the key's templates: one, or user and password for `basic`."""

    kind: Literal["bearer", "basic", "apikey"]
    parts: tuple[ConstantTemplate, ...]
    placement: Location = Location.HEADER
    name: str = "Authorization"


@dataclass(frozen=True)
class BaseUri:
    """The provider's address; the first of `variables` that is set in the environment wins over `default`."""

    default: str | None
    variables: tuple[str, ...]


@dataclass(frozen=True)
class ErrorBody:
    """The members that make a JSON answer an error, whatever its HTTP status.

    A message that begins with one of `not_found` means that there is no such thing, whatever its status.
    """

    status: str
    message: str
    not_found: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """One HTTP method on a resource of a provider.

    `path` is text with placeholders. `body` is a tree of JSON values and references, None for no body.
    `unsupported` says why the operation cannot be called, when it cannot.
    """

    name: str
    provider: str
    method: str
    base: BaseUri
    path: Template
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    accept: str = "application/json, */*;q=0.5"
    authentication: Authentication | None = None
    error_body: ErrorBody | None = None
    unsupported: str | None = None

    def credentials(self) -> Iterator[Variable]:
        """What of the environment it sends and must not show.

        Those are the parts of its authentication and the constants beside it; a constant in the path is a name.
        """
        parts = list(self.authentication.parts if self.authentication else ())
        constants = [parameter.constant for parameter in self.parameters if parameter.location is not Location.PATH]
        return _variables([*parts, *constants, self.body])


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


@dataclass(frozen=True)
class Tool:
    """What MCP lists, and the operation that a call of it runs.

    `ignored` are arguments that are accepted and dropped: the server sets those headers itself.
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
