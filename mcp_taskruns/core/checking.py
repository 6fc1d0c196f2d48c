"""What the author of a capability file should know about it."""

from collections.abc import Iterator, Sequence

from mcp_taskruns.core.operation import Tool
from mcp_taskruns.core.spec import KNOWN_VERSIONS, Capability, unknown_keys

MAX_DESCRIPTION = 2_048
"""Longer descriptions are cut by some clients."""


def check_capability(capability: Capability, tools: Sequence[Tool]) -> Iterator[str]:
    """Warnings about a capability and the tools compiled from it, as `place: what`."""
    if capability.naftiko not in KNOWN_VERSIONS:
        yield f"naftiko: version {capability.naftiko} is not known here; known are {', '.join(sorted(KNOWN_VERSIONS))}"
    for place in unknown_keys(capability):
        yield f"{place}: this key is not known and is ignored"
    if not tools:
        yield "capability.exposes: no MCP tools"
    for consumed in capability.capability.consumes:
        if consumed.import_ is not None:
            yield f"capability.consumes: import {consumed.import_!r} is not supported"
    addresses = {tool.operation.base.variables[0] for tool in tools if _has_no_address(tool)}
    for variable in sorted(addresses):
        yield f"capability.consumes: no usable baseUri: set {variable}"
    for tool in tools:
        if tool.operation.unsupported:
            yield f"tool {tool.name}: {tool.operation.unsupported}"
        if len(tool.description) > MAX_DESCRIPTION:
            yield f"tool {tool.name}: the description has more than {MAX_DESCRIPTION:,} characters"


def _has_no_address(tool: Tool) -> bool:
    return not tool.operation.unsupported and tool.operation.base.default is None
