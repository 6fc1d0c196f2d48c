"""Capability files that others wrote must work here too.

The folder is $CAPABILITY_CORPUS, else a folder `corpus-sample` that lies beside the checkout; without one, these tests
are skipped.
"""

import os
import re
from collections.abc import Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from mcp_taskruns.core.arguments import compile_check, explain_problems
from mcp_taskruns.core.operation import Location, Tool, Variable
from mcp_taskruns.core.request import build_request
from mcp_taskruns.loader import capability_files, load_tools
from mcp_taskruns.mcp_adapter import list_tool


def corpus() -> list[Path]:
    named = os.environ.get("CAPABILITY_CORPUS")
    found = [Path(named)] if named else sorted(Path(__file__).resolve().parents[2].glob("*/corpus-sample"))
    return capability_files(found[:1]) if found else []


FILES = corpus()

pytestmark = pytest.mark.skipif(not FILES, reason="no corpus: set CAPABILITY_CORPUS to a folder of capability files")

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


@cache
def exposed(path: Path) -> list[str]:
    """The names of the tools that a file exposes, read without this project's code."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    adapters = document["capability"].get("exposes", [])
    return [str(tool["name"]) for adapter in adapters if adapter["type"] == "mcp" for tool in adapter["tools"]]


@every_file
def test_all_tools_of_a_file_are_listed(path: Path) -> None:
    tools = load_tools([path])
    assert [tool.spec_name for tool in tools] == exposed(path)
    assert len({tool.name for tool in tools}) == len(tools)
    for tool in tools:
        listed = list_tool(tool)
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", listed["name"])
        assert listed["description"]
        Draft202012Validator.check_schema(listed["inputSchema"])
        assert set(listed["inputSchema"].get("required", [])) <= set(listed["inputSchema"]["properties"])


@pytest.mark.parametrize("names", ["prefixed", "spec"])
def test_all_files_together_have_distinct_names(names: Any) -> None:
    tools = load_tools(FILES, names=names)
    assert [tool.spec_name for tool in tools] == [name for path in FILES for name in exposed(path)]
    assert len({tool.name for tool in tools}) == len(tools)
    assert [tool.name for tool in tools if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool.name)] == []


SAMPLES = {"integer": 1, "number": 1.5, "boolean": True, "array": ["a"], "object": {"a": 1}, "string": "a/b"}


def sample_call(tool: Tool) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Arguments that fit the schema, and an environment in which all is set."""
    properties = tool.input_schema["properties"]
    arguments = {name: SAMPLES[schema.get("type", "string")] for name, schema in properties.items()}
    constants = [parameter.constant for parameter in tool.operation.parameters if isinstance(parameter.constant, tuple)]
    holes = [hole for hole in chain(tool.operation.path, *constants) if isinstance(hole, Variable)]
    names = chain.from_iterable(variable.names for variable in [*holes, *tool.operation.credentials()])
    environment = dict.fromkeys(names, "key-123456")
    return arguments, environment | {tool.operation.base.variables[0]: "https://api.example/base"}


@every_file
def test_all_tools_of_a_file_can_be_called_once_their_variables_are_set(path: Path) -> None:
    for tool in load_tools([path]):
        if tool.operation.unsupported:
            continue
        arguments, environment = sample_call(tool)
        assert explain_problems(tool.input_schema, arguments) == []
        assert compile_check(tool.input_schema)(arguments)
        request = build_request(tool.operation, arguments, environment)
        assert request.url.startswith("https://api.example/base/")
        assert request.url.isascii()
        headers = dict(request.headers)
        assert len(headers) == len(request.headers)
        sent = "\n".join([request.url, *headers.values()])
        assert not re.search(r"[{}]|tools\.|%7B%7B", sent), "a placeholder or a reference is sent as it is written"
        if any(tool.operation.credentials()):
            assert "key-123456" in sent or headers["Authorization"].startswith("Basic ")
        has_body = any(parameter.location is Location.BODY for parameter in tool.operation.parameters)
        assert (request.content is not None) is (has_body or tool.operation.body is not None)
