"""Compilation of capability files to tools. Every inference about a file is made here, when it is loaded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from types import MappingProxyType
from typing import Any, Literal

from mcp_taskruns.core.calls.property_names import safe_names
from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.inputs import Argument, DeclaredOperation
from mcp_taskruns.core.format.names import (
    legal_name,
    list_by_declared_names,
    make_unique,
    prefix_of,
    prefixed_name,
    title_of,
)
from mcp_taskruns.core.format.operations import CompiledOperation, compile_operation
from mcp_taskruns.core.format.pairing import Caller, pair_operations
from mcp_taskruns.core.format.policies import Policies, policy_arguments, with_query_arguments
from mcp_taskruns.core.format.run_tools import compile_run_tools
from mcp_taskruns.core.format.runs import add_lifecycles, run_arguments
from mcp_taskruns.core.format.templates import TemplateParser, without_fragment
from mcp_taskruns.core.format.tool_schemas import input_schema
from mcp_taskruns.core.model.operation import BaseUri, Location, Operation
from mcp_taskruns.core.model.tool import Hints, Tool
from mcp_taskruns.errors import CapabilityError

ToolNames = Literal["prefixed", "spec"]
Surface = Literal["mcp", "rest"]

NO_BASE_URIS: Mapping[str, str] = MappingProxyType({})

HINTS_BY_METHOD = {
    # read-only, destructive, idempotent: RFC 9110 section 9.2
    "GET": (True, False, True),
    "HEAD": (True, False, True),
    "OPTIONS": (True, False, True),
    "PUT": (False, True, True),
    "DELETE": (False, True, True),
    "PATCH": (False, True, False),
    "POST": (False, False, False),
}


Refuse = Callable[[spec.Capability, CapabilityError], None]
"""Called for a capability that cannot be compiled."""

_Compiled = list[tuple[spec.Capability, list[Tool]]]


def _raise(_: spec.Capability, error: CapabilityError) -> None:
    raise error


def compile_tools(
    capabilities: Sequence[spec.Capability],
    *,
    names: ToolNames = "prefixed",
    surface: Surface = "mcp",
    base_uris: Mapping[str, str] = NO_BASE_URIS,
    refuse: Refuse = _raise,
) -> tuple[Tool, ...]:
    """Return all tools of the capabilities, in file order, with legal and unique names.

    A capability that cannot be compiled has no tools, and is passed to `refuse`, which raises the error by default. The
    surface `rest` compiles the operations of the `rest` adapters, without lifecycles of runs, of which they may call
    only a part. `base_uris` replace the addresses of providers, by the namespace of their `consumes`.
    """
    compiled = _compile_all(capabilities, surface, base_uris, refuse)
    groups = [group for _, group in compiled]
    if names == "spec":
        remaining = iter(list_by_declared_names(list(chain.from_iterable(groups))))
        groups = [list(islice(remaining, len(group))) for group in groups]
    unique = make_unique(groups, [capability.source for capability, _ in compiled])
    listed_names = {
        tool.name: listed.name
        for (_, group), listed_group in zip(compiled, unique, strict=True)
        for tool, listed in zip(group, listed_group, strict=True)
    }
    tools: list[Tool] = []
    for (capability, _), group in zip(compiled, unique, strict=True):
        try:
            tools += list(add_lifecycles(capability, group, listed_names)) if surface == "mcp" else group
        except Exception as exc:
            refuse(capability, _to_capability_error(capability, exc))
    return tuple(tools)


def _compile_all(
    capabilities: Sequence[spec.Capability], surface: Surface, base_uris: Mapping[str, str], refuse: Refuse
) -> _Compiled:
    """Return the capabilities that can be compiled, each with its tools."""
    compiled: _Compiled = []
    for capability in capabilities:
        try:
            group = [_with_base_uri(tool, base_uris) for tool in _compile_capability(capability, surface)]
            run_tools = compile_run_tools(capability, group) if surface == "mcp" else ()
            compiled.append((capability, [*group, *run_tools]))
        except Exception as exc:
            refuse(capability, _to_capability_error(capability, exc))
    return compiled


def _to_capability_error(capability: spec.Capability, exc: Exception) -> CapabilityError:
    """Return the error of a capability; a bug in this server must not affect other files."""
    if isinstance(exc, CapabilityError):
        return exc
    error = CapabilityError(capability.source, "", f"cannot be compiled because of a bug in this server: {exc!r}")
    error.__cause__ = exc
    return error


def _with_base_uri(tool: Tool, base_uris: Mapping[str, str]) -> Tool:
    given = base_uris.get(tool.operation.namespace)
    return tool if given is None else replace(tool, operation=replace(tool.operation, base=BaseUri((given,), ())))


def _compile_capability(capability: spec.Capability, surface: Surface) -> Iterator[Tool]:
    operations = declared_operations(capability)
    if surface == "mcp":
        tools = [tool for exposed in capability.capability.exposes if exposed.type == "mcp" for tool in exposed.tools]
        for tool, meant in zip(tools, pair_operations(tools, operations), strict=True):
            yield compile_tool(capability, tool, meant)
        return
    routes = [
        (resource.path, operation)
        for exposed in capability.capability.exposes
        if exposed.type == "rest"
        for resource in exposed.resources
        for operation in resource.operations
    ]
    called = pair_operations([operation for _, operation in routes], operations)
    for (path, operation), meant in zip(routes, called, strict=True):
        route = (operation.method, without_fragment(path), capability.source)
        yield replace(compile_tool(capability, operation, meant), route=route)


def declared_operations(capability: spec.Capability) -> dict[str, list[DeclaredOperation]]:
    """Return the operations by the name that `call` uses; `pair_operations` selects one of several.

    Raises CapabilityError for overlay keywords that cannot be compiled.
    """
    operations: dict[str, list[DeclaredOperation]] = {}
    for consumed in capability.capability.consumes:
        policies = Policies(capability.source, consumed)
        for resource in consumed.resources:
            for operation in resource.operations:
                declared = DeclaredOperation(consumed, resource, operation, policies)
                operations.setdefault(f"{consumed.namespace}.{operation.name}", []).append(declared)
    return operations


def compile_tool(capability: spec.Capability, tool: Caller, meant: Sequence[DeclaredOperation]) -> Tool:
    """Return the tool that calls one of the operations it may mean; unless there is exactly one, its calls fail."""
    prefix = prefix_of(capability)
    server_arguments: dict[str, Any] = {}
    declared = meant[0] if len(meant) == 1 else None
    if declared is None:
        compiled = _compile_missing(capability, tool, prefix, len(meant))
    else:
        compiled = compile_operation(capability, tool, prefix, declared)
        is_stream = compiled.operation.is_stream
        server_arguments = run_arguments(declared.consumed, compiled.operation.name, is_stream=is_stream)
        server_arguments |= policy_arguments(declared.operation)
    description = tool.description or (declared.operation.description if declared else None) or tool.name
    name = tool.rename or tool.name
    schema = input_schema(compiled.arguments, server_arguments)
    return Tool(
        name=legal_name(prefixed_name(prefix, name)),
        declared_name=tool.name,
        prefix=prefix,
        title=tool.label or title_of(name),
        description=description,
        hints=_hints(tool.hints, compiled.operation.method),
        input_schema=schema,
        safe_names=safe_names(schema),
        operation=with_query_arguments(compiled.operation, schema["properties"]),
        dropped_arguments=compiled.dropped,
        server_arguments=frozenset(server_arguments) - {argument.name for argument in compiled.arguments},
    )


def _compile_missing(capability: spec.Capability, tool: Caller, prefix: str, number: int) -> CompiledOperation:
    """Return an unsupported operation for a tool whose `call` is the name of no operation, or of several."""
    reason = f"{capability.source} calls the unknown operation {tool.call!r}"
    if number:
        reason = (
            f"{capability.source} has {number} operations with the name {tool.call!r}, "
            f"and `with` of {tool.name!r} does not select one of them"
        )
    if not tool.call:
        reason = f"{capability.source} has no `call` for {tool.name!r}"
        if "steps" in (tool.model_extra or {}):
            reason += ": `steps` are not supported"
    imported = {consumed.import_ for consumed in capability.capability.consumes if consumed.import_}
    if tool.call.partition(".")[0] in imported:
        reason = f"{capability.source} imports the operation of {tool.name!r} from another file, which is not supported"
    base = BaseUri(None, ())
    operation = Operation(name=tool.name, provider=prefix, method="POST", base=base, path=(), unsupported=reason)
    parser = TemplateParser(capability)
    names = {parser.reference(value) or name: name for name, value in tool.with_.items()}
    arguments = [Argument(name, spec.InputParameter(name=name), Location.QUERY, False) for name in names]
    return CompiledOperation(operation, arguments, frozenset())


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
