"""A capability file (Naftiko 1.0.0-alpha2) after `unify`, merged with its overlay.

Only the shapes of values are validated here; `compiler` decides what a file means. Unknown keys are kept in
`model_extra` so that `check` can report them.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mcp_taskruns.core.format.dialects import unify
from mcp_taskruns.core.format.keywords import ConsumedKeywords, OperationKeywords, ParameterKeywords, ToolKeywords
from mcp_taskruns.core.format.problems import find_problems
from mcp_taskruns.core.format.types import Authentications, Names, Text, Types
from mcp_taskruns.errors import CapabilityError

KNOWN_VERSIONS = frozenset({"1.0.0-alpha1", "1.0.0-alpha2", "1.0.0-alpha3"})


def _parse_keys(value: Any) -> Any:
    """Return the keys of a bind as a mapping; a key without a source has the source of its own name."""
    if isinstance(value, Mapping):
        return {key: key if source is None else source for key, source in value.items()}
    if not isinstance(value, list):
        return value
    names = [key.get("name") if isinstance(key, Mapping) else key for key in value]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("must have a name in each item")
    return {name: name for name in names}


def _parse_headers(value: Any) -> Any:
    """Return headers as a mapping; some files have a list of items with `name` and `value`."""
    if not isinstance(value, list):
        return value
    if not all(isinstance(item, Mapping) and isinstance(item.get("name"), str) for item in value):
        raise ValueError("must have a name in each item")
    return {item["name"]: item.get("value") for item in value}


def _drop_empty_tags(value: Any) -> Any:
    return [tag for tag in value if tag is not None] if isinstance(value, list) else value


_BindKeys = Annotated[
    dict[str, Names],
    BeforeValidator(_parse_keys, json_schema_input_type=dict[str, str | list[str] | None] | list[str | dict[str, Any]]),
]
_Headers = Annotated[
    dict[str, Any],
    BeforeValidator(_parse_headers, json_schema_input_type=dict[str, Any] | list[dict[str, Any]]),
]
_Tags = Annotated[
    tuple[Text, ...],
    BeforeValidator(_drop_empty_tags, json_schema_input_type=list[str | int | float | None]),
]


class Part(BaseModel):
    """A mapping of a capability file, which may have unknown keys."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True, defer_build=True)


class InputParameter(Part, ParameterKeywords):
    """An input parameter of an operation or a tool."""

    name: Text
    location: str | None = Field(None, alias="in")
    """Where it is sent: path, query, header, cookie or body."""
    type: Types | None = None
    description: Text | None = None
    required: bool | None = None
    value: Any = None
    """A constant value, possibly with placeholders; the caller cannot pass another one."""
    mapping: str | None = None
    """For a parameter of a tool, its place in the body: `body.filter.status`."""


class OutputParameter(Part):
    """A part of the response to return; types are not enforced."""

    name: Text | None = None
    type: Types | None = None
    description: Text | None = None
    value: Any = None
    const: Any = None
    mapping: str | None = None
    """A JSONPath."""
    properties: Any = None
    items: Any = None


class ConsumedOperation(Part, OperationKeywords):
    """One HTTP method of a resource."""

    name: Text
    method: str = "GET"
    path: str | None = None
    description: Text | None = None
    headers: _Headers = {}
    """Constant headers, possibly with placeholders."""
    input_parameters: tuple[InputParameter, ...] = Field((), alias="inputParameters")
    body: Any = None
    output_raw_format: str | None = Field(None, alias="outputRawFormat")
    output_parameters: tuple[OutputParameter, ...] = Field((), alias="outputParameters")


class ConsumedResource(Part):
    """A path of the provider, with its operations."""

    name: Text | None = None
    path: str = ""
    description: Text | None = None
    input_parameters: tuple[InputParameter, ...] = Field((), alias="inputParameters")
    operations: tuple[ConsumedOperation, ...] = ()


class Consumed(Part, ConsumedKeywords):
    """A provider's API."""

    type: str = "http"
    namespace: Text = ""
    base_uri: str | None = Field(None, alias="baseUri")
    description: Text | None = None
    authentication: Authentications = None
    headers: _Headers = {}
    """Constant headers of all requests, possibly with placeholders."""
    input_parameters: tuple[InputParameter, ...] = Field((), alias="inputParameters")
    resources: tuple[ConsumedResource, ...] = ()
    import_: str | None = Field(None, alias="import")
    location: str | None = None


class Hints(Part):
    """The MCP annotations of a tool; those that are not set follow from the HTTP method."""

    read_only: bool | None = Field(None, alias="readOnly")
    destructive: bool | None = None
    idempotent: bool | None = None
    open_world: bool | None = Field(None, alias="openWorld")


class ExposedTool(Part, ToolKeywords):
    """An MCP tool."""

    name: Text
    label: Text | None = None
    description: Text | None = None
    hints: Hints = Hints()
    call: str = ""
    """The operation to call: `namespace.operation`."""
    with_: dict[str, Any] = Field({}, alias="with")
    """Values for inputs of the operation: constants, or references to arguments of the tool."""
    input_parameters: tuple[InputParameter, ...] = Field((), alias="inputParameters")
    output_parameters: tuple[OutputParameter, ...] = Field((), alias="outputParameters")


class RestOperation(Part):
    """One HTTP method of the REST side."""

    rename: ClassVar[str | None] = None
    label: ClassVar[str | None] = None
    input_parameters: ClassVar[tuple[InputParameter, ...]] = ()
    """Only tools have these three."""

    name: Text = ""
    method: str = "GET"
    description: Text | None = None
    hints: Hints = Hints()
    call: str = ""
    with_: dict[str, Any] = Field({}, alias="with")
    output_parameters: tuple[OutputParameter, ...] = Field((), alias="outputParameters")


class RestResource(Part):
    """One path of the REST side."""

    name: Text | None = None
    path: str = ""
    description: Text | None = None
    operations: tuple[RestOperation, ...] = ()


class Exposed(Part):
    """What this server exposes: an adapter of type `mcp` has tools, one of type `rest` has resources."""

    type: str
    namespace: Text = ""
    port: Any = None
    transport: str | None = None
    description: Text | None = None
    tools: tuple[ExposedTool, ...] = ()
    resources: tuple[RestResource, ...] = ()


class Bind(Part):
    """Names of secrets, each with the environment variables that set it; the first that is set counts."""

    namespace: Text = "env"
    location: str | None = None
    description: Text | None = None
    keys: _BindKeys = {}


class Info(Part):
    """General information about the capability."""

    label: Text = ""
    description: Text = ""
    tags: _Tags = ()
    created: Text | None = None
    modified: Text | None = None


class Surface(Part):
    """What the capability consumes and what it exposes."""

    consumes: tuple[Consumed, ...] = ()
    exposes: tuple[Exposed, ...] = ()


class Capability(Part):
    """A capability file."""

    source: str
    """The name of the file, and of its overlay."""
    naftiko: Text
    """The version of the format."""
    prefix: str | None = None
    """The prefix of the tools' names, set by an overlay."""
    info: Info = Info()
    binds: tuple[Bind, ...] = ()
    capability: Surface = Surface()


def parse_capability(document: Any, source: str) -> Capability:
    """Validate a parsed YAML document as a capability file.

    `source` is the file's name, for messages and as a fallback for the prefix. Raises CapabilityError with the file and
    the place in it, for the first problem.
    """
    found = validate_capability(document, source)
    if isinstance(found, Capability):
        return found
    raise found[0]


def validate_capability(document: Any, source: str) -> Capability | list[CapabilityError]:
    """Return the parsed capability file, or all its problems."""
    if not isinstance(document, Mapping):
        return [CapabilityError(source, "", f"must be a mapping, not a {type(document).__name__}")]
    unified = unify(document)
    if "naftiko" not in unified:
        return [CapabilityError(source, "naftiko", "the format's version is missing; is this a capability file?")]
    try:
        return Capability.model_validate({**unified, "source": source})
    except ValidationError as exc:
        return [CapabilityError(source, one.place, one.reason) for one in find_problems(exc)]


def unknown_keys(part: Part, place: str = "") -> Iterator[str]:
    """Yield the places of all keys that the format does not have."""
    for key in part.model_extra or {}:
        yield f"{place}.{key}".lstrip(".")
    for name, info in type(part).model_fields.items():
        value = getattr(part, name)
        inner = f"{place}.{info.alias or name}".lstrip(".")
        if isinstance(value, Part):
            yield from unknown_keys(value, inner)
        elif isinstance(value, tuple):
            for index, item in enumerate(value):
                if isinstance(item, Part):
                    yield from unknown_keys(item, f"{inner}[{index}]")
