"""What the author of a capability file should know about it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mcp_taskruns.core.compiler import HINTS_BY_METHOD
from mcp_taskruns.core.operation import ArgumentReference, Location, Operation, Tool
from mcp_taskruns.core.spec import KNOWN_VERSIONS, Capability, unknown_keys

MAX_DESCRIPTION = 2_048
"""Longer descriptions are cut by some clients."""


def check_schemas(tools: Sequence[Tool]) -> Iterator[str]:
    """What is wrong with the input schemas of tools, as `place: what`: such a tool cannot be called."""
    from jsonschema import Draft202012Validator, SchemaError

    for tool in tools:
        try:
            Draft202012Validator.check_schema(tool.input_schema)
        except SchemaError as exc:
            yield f"tool {tool.name}: its schema is not valid: {exc.json_path}: {exc.message[:200]}"
        for address in _remote_references(tool.input_schema):
            yield f"tool {tool.name}: its schema refers to {address}: only references within it can be followed"


def _remote_references(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        reference = schema.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            yield reference
        for item in schema.values():
            yield from _remote_references(item)
    elif isinstance(schema, list):
        for item in schema:
            yield from _remote_references(item)


def check_capability(capability: Capability, tools: Sequence[Tool]) -> Iterator[str]:
    """Warnings about a capability and the tools compiled from it, as `place: what`."""
    if capability.naftiko not in KNOWN_VERSIONS:
        yield f"naftiko: version {capability.naftiko} is not known here; known are {', '.join(sorted(KNOWN_VERSIONS))}"
    for place in unknown_keys(capability):
        yield f"{place}: this key is not known and is ignored"
    yield from _check_consumed(capability)
    for exposed in capability.capability.exposes:
        if exposed.type not in {"mcp", "rest"}:
            yield f"capability.exposes: {exposed.type} is not supported"
    if not tools:
        yield "capability.exposes: no MCP tools"
    yield from _check_variables(capability, tools)
    for tool in tools:
        yield from (f"tool {tool.name}: {problem}" for problem in _check_tool(tool))


def _check_consumed(capability: Capability) -> Iterator[str]:
    names: list[str] = []
    for consumed in capability.capability.consumes:
        names += [f"{consumed.namespace}.{one.name}" for resource in consumed.resources for one in resource.operations]
        if consumed.import_ is not None:
            yield f"capability.consumes: import {consumed.import_!r} is not supported"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"operation {name}: is there {names.count(name)} times; a call is of the one that its `with` fits"


def _check_variables(capability: Capability, tools: Sequence[Tool]) -> Iterator[str]:
    known = {name for bind in capability.binds for key, names in bind.keys.items() for name in (key, *names)}
    used = {name for tool in tools for variable in tool.operation.credentials() for name in variable.names}
    for name in sorted(used - known):
        yield f"binds: {name} is used and not declared"
    addresses = {tool.operation.base.variables[0] for tool in tools if _has_no_address(tool)}
    for variable in sorted(addresses):
        yield f"capability.consumes: no usable baseUri: set {variable}"


def _check_tool(tool: Tool) -> Iterator[str]:
    if tool.operation.method not in HINTS_BY_METHOD:
        yield f"{tool.operation.method} is no HTTP method of this format"
    if tool.operation.unsupported:
        yield tool.operation.unsupported
    for name in _misplaced(tool.operation):
        yield f"the path has no place for the path parameter {name}: it is not sent"
    if len(tool.description) > MAX_DESCRIPTION:
        yield f"the description has more than {MAX_DESCRIPTION:,} characters"


def _misplaced(operation: Operation) -> list[str]:
    places = {hole.name for hole in operation.path if isinstance(hole, ArgumentReference)}
    inputs = [parameter.name for parameter in operation.parameters if parameter.location is Location.PATH]
    return [name for name in inputs if name not in places]


def _has_no_address(tool: Tool) -> bool:
    return not tool.operation.unsupported and tool.operation.base.default is None
