"""Capability files with one operation, for tests of compiled tools."""

from collections.abc import Mapping
from typing import Any

from mcp_taskruns.core.calls.request import HttpRequest, build_request
from mcp_taskruns.core.format.compiler import compile_tools
from mcp_taskruns.core.format.spec import Capability, parse_capability
from mcp_taskruns.core.model.tool import Tool

Json = dict[str, Any]

KEY = {"THING_KEY": "key-123456"}


def document(
    operation: Json | None = None, *, path: str = "/things", tool: Json | None = None, **consumed: Any
) -> Json:
    """Return a capability file with one operation and one tool; `consumed` are keys of its adapter."""
    return {
        "naftiko": "1.0.0-alpha2",
        "info": {"tags": ["Thing", "Beta"]},
        "binds": [{"namespace": "env", "keys": {"THING_KEY": "THING_KEY"}}],
        "capability": {
            "consumes": [
                {
                    "type": "http",
                    "namespace": "things",
                    "baseUri": "https://api.example",
                    "resources": [{"name": "r", "path": path, "operations": [{"name": "op"} | (operation or {})]}],
                }
                | consumed
            ],
            "exposes": [
                {
                    "type": "mcp",
                    "namespace": "things-mcp",
                    "tools": [{"name": "do-it", "call": "things.op"} | (tool or {})],
                }
            ],
        },
    }


def capability(*args: Any, source: str = "things-api.yaml", **kwargs: Any) -> Capability:
    return parse_capability(document(*args, **kwargs), source)


def tool_of(*args: Any, **kwargs: Any) -> Tool:
    """Return the tool of such a capability file."""
    (tool,) = compile_tools([capability(*args, **kwargs)])
    return tool


def inputs(*parameters: Json, **operation: Any) -> Json:
    """Return an operation with these input parameters."""
    return {"inputParameters": list(parameters), **operation}


def request_of(
    tool: Tool, arguments: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
) -> HttpRequest:
    return build_request(tool.operation, arguments or {}, KEY if environment is None else environment)
