"""A capability file as it is written (Naftiko 1.0.0-alpha2, in one dialect), with the words that overlays add.

Only shapes are checked here; what a file means is decided in `compiler`. Keys that the format does not know are kept
in `model_extra`, so that `check` can name them.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mcp_taskruns.core.format.dialects import unify
from mcp_taskruns.errors import CapabilityError, Kind

KNOWN_VERSIONS = frozenset({"1.0.0-alpha1", "1.0.0-alpha2", "1.0.0-alpha3"})


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) else value


def _list(value: Any) -> Any:
    return [value] if isinstance(value, str | int) else value


def _types(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _keys(value: Any) -> Any:
    """Keys that are named as their sources may stand without them."""
    if isinstance(value, Mapping):
        return {key: key if source is None else source for key, source in value.items()}
    if not isinstance(value, list):
        return value
    names = [key.get("name") if isinstance(key, Mapping) else key for key in value]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("has to name a key in each item")
    return {name: name for name in names}


def _authentication(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


def _tags(value: Any) -> Any:
    return [tag for tag in value if tag is not None] if isinstance(value, list) else value


Text = Annotated[str, BeforeValidator(_text)]
Names = Annotated[tuple[str, ...], BeforeValidator(_list)]
Types = Annotated[str | tuple[str, ...], BeforeValidator(_types)]


class Part(BaseModel):
    """What every part of a capability file shares."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)


class InputParameter(Part):
    """An input of an operation. `schema`, `explode` and `env` are overlay words."""

    name: Text
    location: str | None = Field(None, alias="in")
    type: Types | None = None
    description: Text | None = None
    required: bool | None = None
    value: Any = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    explode: bool | None = None
    env: Names = ()


class OutputParameter(Part):
    """What of the answer is returned; the types are advisory. `properties` and `items` hold the same again."""

    name: Text | None = None
    type: Types | None = None
    description: Text | None = None
    value: Any = None
    const: Any = None
    mapping: str | None = None
    properties: Any = None
    items: Any = None


class Paging(Part):
    """How a list goes on after a page. An overlay word."""

    items: str = "$"
    limit: str = "limit"
    size: int = Field(gt=0)
    max_size: int | None = Field(None, gt=0, alias="maxSize")
    cursor: str = ""
    next: str = ""
    offset: str = ""
    more: str = ""
    total: str = ""
    unfiltered: str = ""


class LogFormat(Part):
    """A list of log entries. An overlay word."""

    time: str
    type: Names = ()
    examples: tuple[str, ...] = ()


class Upload(Part):
    """Files that are sent to where the answer says. An overlay word."""

    files: str
    content: str = "content"
    encoding: str = "content_encoding"
    size: str = "size"
    name: str = "name"
    media_type: str = Field("content_type", alias="mediaType")
    prepared: str
    form: str
    advice: str = ""


class Remark(Part):
    """What is to be said of an answer that has these marks. An overlay word."""

    when: dict[str, Any] = {}
    says: str


class ConsumedOperation(Part):
    """One HTTP method of a resource. What follows `outputParameters` are overlay words, and `accept`."""

    name: Text
    method: str = "GET"
    path: str | None = None
    description: Text | None = None
    accept: str | None = None
    input_parameters: tuple[InputParameter, ...] = Field((), alias="inputParameters")
    body: Any = None
    output_raw_format: str | None = Field(None, alias="outputRawFormat")
    output_parameters: tuple[OutputParameter, ...] = Field((), alias="outputParameters")
    repeatable: bool | None = None
    timeout: float | None = Field(None, gt=0)
    redact: Names = ()
    paging: Paging | None = None
    log: LogFormat | None = None
    upload: Upload | None = None
    remarks: tuple[Remark, ...] = ()
    file: bool = False


class ConsumedResource(Part):
    """A path of the provider and the operations on it."""

    name: Text | None = None
    path: str = ""
    description: Text | None = None
    input_parameters: tuple[InputParameter, ...] = Field((), alias="inputParameters")
    operations: tuple[ConsumedOperation, ...] = ()


class ErrorBody(Part):
    """The members of a JSON answer that make it an error, whatever the HTTP status. An overlay word."""

    status: str
    message: str


class ErrorRule(Part):
    """What an error means that has these marks. An overlay word."""

    operations: Names = ()
    status: Annotated[tuple[int, ...], BeforeValidator(_list)] = ()
    when: dict[str, Any] = {}
    says: str = ""
    kind: Kind | None = None
    hint: str = ""
    retryable: bool | None = None


class Rate(Part):
    """So many calls in so many seconds."""

    calls: int = Field(gt=0)
    per: float = Field(gt=0)
    of: Literal["reads", "writes", "all"] = "all"


class Limits(Part):
    """How much the provider may be asked. An overlay word."""

    concurrency: int | None = Field(None, gt=0)
    rates: tuple[Rate, ...] = ()


class RunCall(Part):
    """An operation on one run, and the argument that is the run's id."""

    operation: str
    id: str = ""


class RunFields(Part):
    """Paths to the parts of a run in a JSON value."""

    id: str = ""
    state: str = ""
    stage: str = ""
    progress: str = ""
    result: str = ""
    error: Names = ()
    started: str = ""


class RunStream(Part):
    """The operation whose events tell of runs, its argument `ids` which; `shape` says what stands elsewhere there."""

    operation: str
    ids: str
    when: dict[str, Any] = {}
    shape: RunFields = RunFields()
    arguments: dict[str, Any] = {}
    untold: Names = ()


class RunStart(Part):
    """An operation that makes or starts runs."""

    operation: str
    key: str = ""
    then: RunCall | None = None
    when: dict[str, Any] = {}


class RunCancel(Part):
    """An operation that cancels a run, when its arguments fulfil `when`."""

    operation: str
    id: str = ""
    when: dict[str, Any] = {}
    guard: str = ""


class Runs(Part):
    """How a run lives at a provider. An overlay word."""

    read: RunCall
    stream: RunStream | None = None
    start: tuple[RunStart, ...] = ()
    cancel: tuple[RunCancel, ...] = ()
    found: dict[str, str] = {}
    shape: RunFields
    states: dict[str, Names]
    interval: float = Field(5.0, gt=0)
    cached: float = Field(0.0, ge=0)
    forgotten: bool = False
    lifetime: float | None = Field(None, gt=0)
    advice: dict[str, str] = {}
    redact: Names = ()


class Consumed(Part):
    """The provider's side. `baseUriEnv`, `accept`, `errorBody`, `errors`, `limits` and `runs` are overlay words."""

    type: str = "http"
    namespace: Text = ""
    base_uri: str | None = Field(None, alias="baseUri")
    base_uri_env: Names = Field((), alias="baseUriEnv")
    description: Text | None = None
    accept: str | None = None
    error_body: ErrorBody | None = Field(None, alias="errorBody")
    errors: tuple[ErrorRule, ...] = ()
    limits: Limits | None = None
    runs: Runs | None = None
    authentication: Annotated[dict[str, Any] | None, BeforeValidator(_authentication)] = None
    input_parameters: tuple[InputParameter, ...] = Field((), alias="inputParameters")
    resources: tuple[ConsumedResource, ...] = ()
    import_: str | None = Field(None, alias="import")
    location: str | None = None


class Hints(Part):
    """What a tool does to the world; unset ones follow the method."""

    read_only: bool | None = Field(None, alias="readOnly")
    destructive: bool | None = None
    idempotent: bool | None = None
    open_world: bool | None = Field(None, alias="openWorld")


class ExposedTool(Part):
    """One MCP tool. `rename` is an overlay word: the name to list instead of `name`."""

    name: Text
    rename: str | None = None
    label: Text | None = None
    description: Text | None = None
    hints: Hints = Hints()
    call: str = ""
    with_: dict[str, Any] = Field({}, alias="with")
    input_parameters: tuple[InputParameter, ...] = Field((), alias="inputParameters")
    output_parameters: tuple[OutputParameter, ...] = Field((), alias="outputParameters")


class RestOperation(Part):
    """One HTTP method of our REST side."""

    name: Text = ""
    method: str = "GET"
    description: Text | None = None
    call: str = ""
    with_: dict[str, Any] = Field({}, alias="with")
    output_parameters: tuple[OutputParameter, ...] = Field((), alias="outputParameters")


class RestResource(Part):
    """One path of our REST side."""

    name: Text | None = None
    path: str = ""
    description: Text | None = None
    operations: tuple[RestOperation, ...] = ()


class Exposed(Part):
    """Our side: an `mcp` adapter has tools, a `rest` adapter has resources."""

    type: str
    namespace: Text = ""
    port: Any = None
    transport: str | None = None
    description: Text | None = None
    tools: tuple[ExposedTool, ...] = ()
    resources: tuple[RestResource, ...] = ()


class Bind(Part):
    """Names of secrets and where they come from. An overlay may give several environment names: the first set wins."""

    namespace: Text = "env"
    location: str | None = None
    description: Text | None = None
    keys: Annotated[dict[str, Names], BeforeValidator(_keys)] = {}


class Info(Part):
    """Who and what the capability is."""

    label: Text = ""
    description: Text = ""
    tags: Annotated[tuple[Text, ...], BeforeValidator(_tags)] = ()
    created: Text | None = None
    modified: Text | None = None


class Surface(Part):
    """Both sides of a capability."""

    consumes: tuple[Consumed, ...] = ()
    exposes: tuple[Exposed, ...] = ()


class Capability(Part):
    """One capability file. `prefix` is an overlay word: what its tools' names begin with."""

    source: str
    naftiko: Text
    prefix: str | None = None
    info: Info = Info()
    binds: tuple[Bind, ...] = ()
    capability: Surface = Surface()


_TOLD = {
    # what pydantic calls what is wrong, and what an author does
    "missing": "is missing",
    "tuple_type": "has to be a list, or a mapping keyed by name",
    "list_type": "has to be a list",
    "dict_type": "has to be a mapping",
    "model_type": "has to be a mapping",
    "model_attributes_type": "has to be a mapping",
    "string_type": "has to be text",
    "bool_type": "has to be true or false",
    "bool_parsing": "has to be true or false",
    "int_type": "has to be a whole number",
    "int_parsing": "has to be a whole number",
    "float_type": "has to be a number",
    "float_parsing": "has to be a number",
}


def parse_capability(document: Any, source: str) -> Capability:
    """Read a parsed YAML document as a capability.

    `source` is the file's name, used in messages and as the last resort for a prefix.
    Raises CapabilityError naming the file and the place in it.
    """
    if not isinstance(document, Mapping):
        raise CapabilityError(source, "", f"a capability file is a mapping, this is a {type(document).__name__}")
    unified = unify(document)
    if "naftiko" not in unified:
        raise CapabilityError(source, "naftiko", "the format's version is missing; is this a capability file?")
    try:
        return Capability.model_validate({**unified, "source": source})
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        told = _TOLD.get(first["type"]) or first["msg"].removeprefix("Value error, ")
        raise CapabilityError(source, _place(first["loc"]), told) from exc


def unknown_keys(part: Part, place: str = "") -> Iterator[str]:
    """The places of all keys that the format does not know."""
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


def _place(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).lstrip(".")
