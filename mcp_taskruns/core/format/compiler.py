"""Capabilities to tools: every inference about a capability file happens here, once, at start."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.inputs import Argument, Found
from mcp_taskruns.core.format.names import legal_name, list_by_declared_names, make_unique, prefix_of, title_of
from mcp_taskruns.core.format.operations import compile_operation
from mcp_taskruns.core.format.policies import Policies, policy_arguments
from mcp_taskruns.core.format.runs import add_lifecycles, compile_wait_tools, run_arguments
from mcp_taskruns.core.format.templates import Holes, placeholders_of
from mcp_taskruns.core.model.operation import BaseUri, Location, Operation
from mcp_taskruns.core.model.tool import Hints, Tool
from mcp_taskruns.errors import CapabilityError

ToolNames = Literal["prefixed", "spec"]
Surface = Literal["mcp", "rest"]

AnyFound = TypeVar("AnyFound", bound=Found)

NO_BASE_URIS: Mapping[str, str] = MappingProxyType({})

Called = spec.ExposedTool | spec.RestOperation
"""What calls an operation of the provider: a tool of the MCP side, or an operation of the REST side."""

HINTS_BY_METHOD = {
    # read-only, destructive, idempotent: RFC 9110 section 9.2 for what is safe and what is idempotent
    "GET": (True, False, True),
    "HEAD": (True, False, True),
    "OPTIONS": (True, False, True),
    "PUT": (False, True, True),
    "DELETE": (False, True, True),
    "PATCH": (False, True, False),
    "POST": (False, False, False),
}

TYPES = frozenset({"string", "integer", "number", "boolean", "array", "object"})


def _raise(_: spec.Capability, error: CapabilityError) -> None:
    raise error


def compile_tools(
    capabilities: Sequence[spec.Capability],
    *,
    names: ToolNames = "prefixed",
    surface: Surface = "mcp",
    base_uris: Mapping[str, str] = NO_BASE_URIS,
    refuse: Callable[[spec.Capability, CapabilityError], None] = _raise,
) -> tuple[Tool, ...]:
    """All tools of the capabilities, in file order, with legal and distinct names.

    A capability that cannot be compiled has none, and why is what `refuse` is told: by default it is raised. The
    surface is the side of the files that is read: `mcp`, or what their `rest` adapters call, as tools too, without the
    life cycles of runs, of which they may call no more than a part. `base_uris`
    are the addresses of providers by the namespace of their `consumes`, whatever file and environment say.
    """
    compiled: list[tuple[spec.Capability, list[Tool]]] = []
    for capability in capabilities:
        try:
            group = [_addressed(tool, base_uris) for tool in _compile_capability(capability, surface)]
            waits = compile_wait_tools(capability, group) if surface == "mcp" else ()
            compiled.append((capability, [*group, *waits]))
        except Exception as exc:
            refuse(capability, _told(capability, exc))
    if names == "spec":
        left = iter(list_by_declared_names(list(chain.from_iterable(group for _, group in compiled))))
        groups = [list(islice(left, len(group))) for _, group in compiled]
    else:
        groups = [group for _, group in compiled]
    named = make_unique(groups, [capability.source for capability, _ in compiled])
    listed = {
        tool.name: shown.name
        for (_, group), shown_group in zip(compiled, named, strict=True)
        for tool, shown in zip(group, shown_group, strict=True)
    }
    tools: list[Tool] = []
    for (capability, _), group in zip(compiled, named, strict=True):
        try:
            tools += list(add_lifecycles(capability, group, listed)) if surface == "mcp" else group
        except Exception as exc:
            refuse(capability, _told(capability, exc))
    return tuple(tools)


def _told(capability: spec.Capability, exc: Exception) -> CapabilityError:
    """What is wrong with a capability; a mistake of ours is told as one, so that it takes no other file down."""
    if isinstance(exc, CapabilityError):
        return exc
    error = CapabilityError(capability.source, "", f"cannot be compiled, which is a mistake of this server: {exc!r}")
    error.__cause__ = exc
    return error


def _addressed(tool: Tool, base_uris: Mapping[str, str]) -> Tool:
    given = base_uris.get(tool.operation.namespace)
    return tool if given is None else replace(tool, operation=replace(tool.operation, base=BaseUri((given,), ())))


def _compile_capability(capability: spec.Capability, surface: Surface) -> Iterator[Tool]:
    operations = find_operations(capability)
    for exposed in capability.capability.exposes:
        if exposed.type != surface:
            continue
        for tool in exposed.tools:
            yield compile_tool(capability, tool, choose(tool, operations.get(tool.call, ())))
        for resource in exposed.resources if surface == "rest" else ():
            for operation in resource.operations:
                compiled = compile_tool(capability, operation, choose(operation, operations.get(operation.call, ())))
                yield replace(compiled, route=(operation.method, resource.path, capability.source))


def find_operations(capability: spec.Capability) -> dict[str, list[Found]]:
    """The operations by what `call` says of them; several of one name are told apart by `choose`.

    Raises CapabilityError for refinements that cannot be read.
    """
    operations: dict[str, list[Found]] = {}
    for consumed in capability.capability.consumes:
        refinements = Policies(capability.source, consumed)
        for resource in consumed.resources:
            for operation in resource.operations:
                found = Found(consumed, resource, operation, refinements)
                operations.setdefault(f"{consumed.namespace}.{operation.name}", []).append(found)
    return operations


def choose(tool: Called, candidates: Sequence[AnyFound]) -> AnyFound | None:
    """Of several operations of one name the only one whose inputs are those of `with`, else the first."""
    fits = fitting(tool, candidates)
    return fits[0] if len(fits) == 1 else next(iter(candidates), None)


def fitting(tool: Called, candidates: Sequence[AnyFound]) -> list[AnyFound]:
    """Those operations whose inputs are the names of `with`: all of them, else but for what stands in the path."""
    exactly = [found for found in candidates if _fits_exactly(tool, found)]
    return exactly if len(exactly) == 1 else [found for found in candidates if _fits_but_for_path(tool, found)]


def _fits_exactly(tool: Called, found: Found) -> bool:
    placeholders, declared = _inputs(found)
    return set(tool.with_) == declared | placeholders


def _fits_but_for_path(tool: Called, found: Found) -> bool:
    placeholders, declared = _inputs(found)
    return set(tool.with_) | placeholders == declared | placeholders


def _inputs(found: Found) -> tuple[set[str], set[str]]:
    """The placeholders of an operation's path, and its inputs that are not constants."""
    inputs = (*found.resource.input_parameters, *found.operation.input_parameters)
    return set(placeholders_of(found.path)), {item.name for item in inputs if item.value is None}


def compile_tool(capability: spec.Capability, tool: Called, found: Found | None) -> Tool:
    """The tool that calls the operation that was found; without one every call of it is refused."""
    prefix = prefix_of(capability)
    own: dict[str, Any] = {}
    if found is None:
        operation = _missing_operation(capability, tool, prefix)
        holes = Holes(capability)
        names = {holes.reference(value) or name: name for name, value in tool.with_.items()}
        arguments = [Argument(name, spec.InputParameter(name=name), Location.QUERY, False) for name in names]
        ignored: frozenset[str] = frozenset()
    else:
        operation, arguments, ignored = compile_operation(capability, tool, prefix, found)
        own = run_arguments(found.consumed, operation.name, is_stream=operation.is_stream)
        own |= policy_arguments(found.operation)
    described = tool.description or (found.operation.description if found else None) or tool.name
    name = getattr(tool, "rename", None) or tool.name
    return Tool(
        name=legal_name(f"{prefix}-{name}"),
        declared_name=tool.name,
        prefix=prefix,
        title=getattr(tool, "label", None) or title_of(name),
        description=described,
        hints=_hints(getattr(tool, "hints", spec.Hints()), operation.method),
        input_schema=_input_schema(arguments, own),
        operation=operation,
        dropped_arguments=ignored,
        server_arguments=frozenset(own) - {argument.name for argument in arguments},
    )


def _missing_operation(capability: spec.Capability, tool: Called, prefix: str) -> Operation:
    reason = f"{capability.source} calls {tool.call!r}, which none of its consumes declares"
    if not tool.call:
        reason = f"{capability.source} does not say what {tool.name!r} calls"
        if "steps" in (tool.model_extra or {}):
            reason += ": it has steps, which this server cannot take"
    imported = {consumed.import_ for consumed in capability.capability.consumes if consumed.import_}
    if tool.call.partition(".")[0] in imported:
        reason = f"{capability.source} imports what {tool.name!r} calls from another file, which this server cannot do"
    return Operation(
        name=tool.name, provider=prefix, method="POST", base=BaseUri(None, ()), path=(), unsupported=reason
    )


def _hints(declared: spec.Hints, method: str) -> Hints:
    read_only, destructive, idempotent = HINTS_BY_METHOD.get(method, HINTS_BY_METHOD["POST"])
    if declared.read_only is not None:
        read_only = declared.read_only
        destructive = destructive and not read_only
    return Hints(
        read_only,
        destructive if declared.destructive is None else declared.destructive,
        idempotent if declared.idempotent is None else declared.idempotent,
        True if declared.open_world is None else declared.open_world,
    )


def _input_schema(arguments: Sequence[Argument], own: Mapping[str, Any]) -> dict[str, Any]:
    """The provider's arguments, and our own where they leave room for them."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {**own, **{argument.name: _property(argument) for argument in arguments}},
        "additionalProperties": False,
    }
    required = [argument.name for argument in arguments if argument.required]
    if required:
        schema["required"] = required
    return schema


def _property(argument: Argument) -> dict[str, Any]:
    declared = argument.declared
    schema = _type(declared.type)
    if "array" in schema.get("type", ()):
        # What is not in the body is sent as text, and some clients refuse an array without items' type.
        schema["items"] = {} if argument.location is Location.BODY else {"type": "string"}
    if declared.description:
        schema["description"] = declared.description
    return schema | (declared.json_schema or {})


def _type(written: str | tuple[str, ...] | None) -> dict[str, Any]:
    """The type as JSON Schema has it; what that does not know says nothing."""
    if isinstance(written, tuple):
        known = [name for name in written if name in TYPES]
        return {"type": known if len(known) > 1 else known[0]} if known else {}
    return {"type": written} if written in TYPES else {}
