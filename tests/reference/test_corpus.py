"""Public capability files load, and their tools can be listed and called."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from mcp_taskruns.core.calls.arguments import compile_validator, explain_problems
from mcp_taskruns.core.calls.request import build_request
from mcp_taskruns.core.model.operation import Location, Variable
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import NotConfigured
from mcp_taskruns.loading.loader import load, load_tools
from mcp_taskruns.servers.mcp.wire import tool_to_wire
from tests.reference.data import CORPUS

every_file = pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)


@cache
def exposed(path: Path) -> list[str]:
    """Return the names of the tools in a file, read without the code of this project."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    adapters = document["capability"].get("exposes", [])
    return [str(tool["name"]) for adapter in adapters if adapter["type"] == "mcp" for tool in adapter["tools"]]


@every_file
def test_every_tool_of_a_file_is_listed(path: Path) -> None:
    tools = load_tools([path])
    assert [tool.declared_name for tool in tools] == exposed(path)
    assert len({tool.name for tool in tools}) == len(tools)
    for tool in tools:
        listed = tool_to_wire(tool)
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", listed["name"])
        assert listed["description"]
        Draft202012Validator.check_schema(listed["inputSchema"])
        assert set(listed["inputSchema"].get("required", [])) <= set(listed["inputSchema"]["properties"])


@pytest.mark.parametrize("names", ["prefixed", "spec"])
def test_tool_names_of_all_files_are_distinct(names: Any) -> None:
    tools = load_tools(CORPUS, names=names)
    assert [tool.declared_name for tool in tools] == [name for path in CORPUS for name in exposed(path)]
    assert len({tool.name for tool in tools}) == len(tools)
    assert [tool.name for tool in tools if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool.name)] == []


SAMPLES = {"integer": 1, "number": 1.5, "boolean": True, "array": ["a"], "object": {"a": 1}, "string": "a/b"}

BASE_URL = "https://api.example/base"

UNSUPPORTED = re.compile(
    r"(?P<file>\S+)"
    r"( imports the operation of '.+' from another file, which is not supported"
    r"| has the path parameter '(?P<parameter>.+)', for which the path '(?P<path>.*)' has no placeholder"
    r"| has (the unsupported authentication type |authentication of type )"
    r"(?P<kind>oauth\w*|aws\S*|hmac\S*|jwt|custom)( without a credential)?"
    r"| calls the unknown operation '.*'"
    r"| has no `call` for '.+'(: `steps` are not supported)?)"
)
"""The reasons in a file that prevent the call of a tool."""


def sample_arguments(tool: Tool) -> dict[str, Any]:
    """Return a valid value for every argument of a tool."""
    return {name: sample_of(schema) for name, schema in tool.input_schema["properties"].items()}


def sample_of(schema: Mapping[str, Any]) -> Any:
    if schema.get("contentEncoding") == "base64":
        return "AAEC"
    kind = schema.get("type", "string")
    return SAMPLES[kind if isinstance(kind, str) else kind[0]]


def variables_of(tree: Any) -> Iterator[str]:
    """Yield the names of the environment variables in the parts of an operation."""
    if isinstance(tree, Variable):
        yield from tree.names
    elif isinstance(tree, dict | list | tuple):
        yield from chain.from_iterable(map(variables_of, tree.values() if isinstance(tree, dict) else tree))


def sample_environment(tool: Tool) -> dict[str, str]:
    """Return an environment with every variable of a tool except the base URL."""
    operation = tool.operation
    constants = [parameter.constant for parameter in operation.parameters]
    names = variables_of([operation.path, operation.body, constants, list(operation.credentials())])
    return dict.fromkeys(names, "key-123456")


def namespaces(path: Path) -> list[str]:
    """Return the namespaces of a file, read without the code of this project."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [str(consumed.get("namespace", "")) for consumed in document["capability"].get("consumes", [])]


@every_file
def test_unsupported_tool_names_the_cause_in_its_file(path: Path) -> None:
    for tool in load_tools([path]):
        if tool.operation.unsupported is None:
            continue
        with pytest.raises(NotConfigured) as caught:
            build_request(tool.operation, sample_arguments(tool), sample_environment(tool))
        assert caught.value.to_json() == {
            "kind": "unsupported",
            "message": tool.operation.unsupported,
            "retryable": False,
            "hint": "This tool cannot be called.",
        }
        reason = UNSUPPORTED.fullmatch(tool.operation.unsupported)
        assert reason is not None, tool.operation.unsupported
        assert reason["file"] == path.name
        written = path.read_text(encoding="utf-8")
        assert all(part is None or part in written for part in reason.group("parameter", "path", "kind"))


@every_file
def test_every_tool_of_a_file_can_be_called_with_its_variables(path: Path) -> None:
    by_flag = load([path], base_uris=dict.fromkeys(namespaces(path), BASE_URL)).tools
    for tool, flagged in zip(load_tools([path]), by_flag, strict=True):
        if tool.operation.unsupported:
            assert flagged.operation.unsupported == tool.operation.unsupported
            continue
        arguments, environment = sample_arguments(tool), sample_environment(tool)
        assert explain_problems(tool.input_schema, arguments) == []
        assert compile_validator(tool.input_schema)(arguments)
        variable = tool.operation.base.variables[0]
        request = build_request(tool.operation, arguments, environment | {variable: BASE_URL})
        assert request == build_request(flagged.operation, arguments, environment)
        assert re.fullmatch(rf"{re.escape(BASE_URL)}([/?].*)?", request.url)
        assert request.url.isascii()
        headers = dict(request.headers)
        assert len({name.lower() for name in headers}) == len(request.headers)
        body = (request.content or b"").decode("utf-8", "replace").replace('{"a":1}', "")
        sent = "\n".join([request.url, *headers.values(), body])
        assert not re.search(r"[{}]|tools\.|%7B%7B", sent.replace("{}", "").replace(body, "")), (
            "a placeholder is not replaced"
        )
        assert not re.search(r"\{\{|\btools\.", body), "a placeholder is not replaced"
        if any(tool.operation.credentials()):
            assert "key-123456" in sent or headers["Authorization"].startswith("Basic ") or request.digest
        has_body = any(parameter.location is Location.BODY for parameter in tool.operation.parameters)
        assert (request.content is not None) is (has_body or tool.operation.body is not None)
        assert ("Content-Type" in headers) is (request.content is not None)


@every_file
def test_missing_base_url_names_its_variable_and_flag(path: Path) -> None:
    for tool in load_tools([path]):
        operation = tool.operation
        if operation.unsupported:
            continue
        arguments, environment = sample_arguments(tool), sample_environment(tool)
        if operation.base.default is None:
            with pytest.raises(NotConfigured) as caught:
                build_request(operation, arguments, environment)
            assert caught.value.kind == "config"
            assert f"Set {operation.base.variables[0]} " in caught.value.hint
            assert f"--base-uri {operation.namespace}=URL" in caught.value.hint
            assert operation.namespace in namespaces(path)
        else:
            hosts = dict.fromkeys(variables_of(operation.base.default), "host.example")
            url = build_request(operation, arguments, environment | hosts).url
            assert url.startswith("https://")
            assert not re.search(r"[{}$]", url.partition("?")[0])
