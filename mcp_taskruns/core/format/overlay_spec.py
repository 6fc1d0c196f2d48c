"""An overlay as it is written: version 2 of the overlay language.

Overlays use the keywords of the format and those of `keywords`. What capability files have in lists, overlays have in
mappings keyed by name, and operations are directly below their namespace.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from mcp_taskruns.core.format.keywords import (
    ConsumedKeywords,
    OperationKeywords,
    ParameterKeywords,
    ToolKeywords,
)
from mcp_taskruns.core.format.problems import find_problems
from mcp_taskruns.core.format.strict_model import StrictModel
from mcp_taskruns.core.format.types import Authentications, Names, Text, Types, without_nulls
from mcp_taskruns.errors import CapabilityError

VERSION = 2

_REMOVED = object()


class ParameterOverlay(StrictModel, ParameterKeywords):
    """Changes to an input parameter, or a new one."""

    location: str | None = Field(None, alias="in")
    """Where it is sent; selects the parameter if several have its name, for example in path and body."""
    type: Types | None = None
    description: Text | None = None
    required: bool | None = None
    value: Any = None
    """A constant value; the caller cannot pass another one."""


_Parameters = Annotated[dict[str, ParameterOverlay], without_nulls]


class OperationOverlay(StrictModel, OperationKeywords):
    """Changes to an operation of the provider, or a new one with `method` and `path`."""

    method: str | None = None
    path: str | None = None
    description: Text | None = None
    headers: dict[str, Any] = Field({})
    """Constant headers, possibly with placeholders."""
    input_parameters: _Parameters = Field({}, alias="inputParameters")
    body: Any = None
    output_raw_format: str | None = Field(None, alias="outputRawFormat")
    output_parameters: list[dict[str, Any]] = Field([], alias="outputParameters")
    """Replaces the list of the capability file."""


class ConsumedOverlay(StrictModel, ConsumedKeywords):
    """Changes to a provider's API."""

    type: str | None = None
    base_uri: str | None = Field(None, alias="baseUri")
    description: Text | None = None
    authentication: Authentications = None
    headers: dict[str, Any] = Field({})
    """Constant headers of all requests, possibly with placeholders."""
    input_parameters: _Parameters = Field({}, alias="inputParameters")
    operations: Annotated[dict[str, OperationOverlay], without_nulls] = Field({})


class HintsOverlay(StrictModel):
    """MCP annotations of a tool."""

    read_only: bool | None = Field(None, alias="readOnly")
    destructive: bool | None = None
    idempotent: bool | None = None
    open_world: bool | None = Field(None, alias="openWorld")


class ToolOverlay(StrictModel, ToolKeywords):
    """Changes to a tool, or a new one with `call`."""

    label: Text | None = None
    description: Text | None = None
    hints: HintsOverlay = HintsOverlay()
    call: str | None = None
    with_: dict[str, Any] = Field({}, alias="with")
    input_parameters: _Parameters = Field({}, alias="inputParameters")
    output_parameters: list[dict[str, Any]] = Field([], alias="outputParameters")
    """Replaces the list of the capability file."""


class RestOperationOverlay(StrictModel):
    """Changes to an operation of the REST side."""

    method: str | None = None
    description: Text | None = None
    hints: HintsOverlay = HintsOverlay()
    call: str | None = None
    with_: dict[str, Any] = Field({}, alias="with")
    output_parameters: list[dict[str, Any]] = Field([], alias="outputParameters")
    """Replaces the list of the capability file."""


class RestResourceOverlay(StrictModel):
    """Changes to a path of the REST side."""

    path: str | None = None
    description: Text | None = None
    operations: Annotated[dict[str, RestOperationOverlay], without_nulls] = Field({})


class ExposedOverlay(StrictModel):
    """Changes to what this server exposes."""

    type: str | None = None
    port: Any = None
    transport: str | None = None
    description: Text | None = None
    tools: Annotated[dict[str, ToolOverlay], without_nulls] = Field({})
    resources: Annotated[dict[str, RestResourceOverlay], without_nulls] = Field({})
    """Resources of an adapter of type `rest`."""


class BindOverlay(StrictModel):
    """Changes to a bind."""

    location: str | None = None
    description: Text | None = None
    keys: Annotated[dict[str, Names], without_nulls] = Field({})
    """By the name of a secret, the environment variables that set it; the first that is set counts."""


class InfoOverlay(StrictModel):
    """Changes to the general information."""

    label: Text | None = None
    description: Text | None = None
    tags: list[Text] = Field([])
    created: Text | None = None
    modified: Text | None = None


class SurfaceOverlay(StrictModel):
    """Changes to what the capability consumes and exposes, by namespace."""

    consumes: Annotated[dict[str, ConsumedOverlay], without_nulls] = Field({})
    exposes: Annotated[dict[str, ExposedOverlay], without_nulls] = Field({})


class Overlay(StrictModel):
    """An overlay: changes to the capability file of the same name."""

    overlay: Literal[2]
    """The version of the overlay language."""
    prefix: str | None = None
    """The prefix of the tools' names."""
    info: InfoOverlay = InfoOverlay()
    binds: Annotated[dict[str, BindOverlay], without_nulls] = Field({})
    """By namespace."""
    capability: SurfaceOverlay = SurfaceOverlay()


def validate_overlay(overlay: Any, source: str) -> None:
    """Validate a parsed YAML document as an overlay. Raises CapabilityError with the first problem and its place."""
    for problem in _find_problems(overlay, source):
        raise problem


def find_valid_part(overlay: Any, source: str) -> tuple[dict[str, Any], list[CapabilityError]]:
    """Return an overlay without the parts that are not valid, and their problems."""
    found: list[CapabilityError] = []
    while problems := _find_problems(overlay, source):
        found += problems
        remaining = overlay
        for problem in problems:
            remaining = {**without(remaining, problem.steps), "overlay": VERSION}
        if remaining == overlay:
            return {"overlay": VERSION}, found
        overlay = remaining
    return dict(overlay), found


def without(document: Any, steps: Sequence[str | int]) -> Any:
    """Return a document without the part to which steps lead, or without the mapping in which the last one is missing.

    Nothing is removed if a mapping around the part is missing. The document itself remains.
    """
    kept = _remove(document, steps)
    return {} if kept is _REMOVED else kept


def _remove(document: Any, steps: Sequence[str | int]) -> Any:
    if not (steps and isinstance(document, Mapping | list)):
        return _REMOVED
    entries = dict(document.items() if isinstance(document, Mapping) else enumerate(document))
    if steps[0] not in entries:
        return document if steps[1:] else _REMOVED
    entries[steps[0]] = _remove(entries[steps[0]], steps[1:])
    kept = {key: item for key, item in entries.items() if item is not _REMOVED}
    return kept if isinstance(document, Mapping) else list(kept.values())


def _find_problems(overlay: Any, source: str) -> list[CapabilityError]:
    if not isinstance(overlay, Mapping):
        return [CapabilityError(source, "", f"an overlay must be a mapping, not a {type(overlay).__name__}")]
    if "overlay" not in overlay:
        reason = "the version of the overlay language is missing: write `overlay: 2` on the first line"
        return [_version_problem(source, reason), *_find_problems({**overlay, "overlay": VERSION}, source)]
    if overlay["overlay"] != VERSION or isinstance(overlay["overlay"], bool):
        reason = f"version {overlay['overlay']!r} of the overlay language is not supported: write `overlay: 2`"
        return [_version_problem(source, reason)]
    try:
        Overlay.model_validate(overlay)
    except ValidationError as exc:
        return [
            CapabilityError(source, one.place, one.reason.replace("must be a list, or", "must be"), steps=one.steps)
            for one in find_problems(exc)
        ]
    return []


def _version_problem(source: str, reason: str) -> CapabilityError:
    return CapabilityError(source, "overlay", reason, steps=("overlay",))
