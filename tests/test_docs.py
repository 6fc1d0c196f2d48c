"""The documents are true: each flag, variable, command and example in them is the program's own."""

import json
import os
import re
import sys
from dataclasses import Field
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

from mcp_taskruns.cli import COMMANDS, build_parser
from mcp_taskruns.core.model.limits import ALL_REQUESTS, RequestKind
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.engine.client import MAX_RETRIES
from mcp_taskruns.engine.gateway import MAX_STRUCTURED
from mcp_taskruns.engine.paginate import MAX_PAGES
from mcp_taskruns.engine.rate_limits import MAX_AT_ONCE, MAX_STREAMS
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.settings import flag_of, options, variable_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLE = json.loads((ROOT / "claude_desktop_config.example.json").read_text())


@pytest.mark.parametrize("option", options(), ids=lambda option: option.name)
def test_each_flag_and_variable_is_documented(option: Field[Any]) -> None:
    assert f"| `{flag_of(option)}` | `{variable_of(option)}` |" in README


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_documented(command: str) -> None:
    assert re.search(rf"mcp-taskruns {command}\b", README)


def test_each_command_line_in_the_readme_is_one_that_the_program_takes() -> None:
    lines = re.findall(r"^\$ mcp-taskruns ([a-z].*?)(?: +#.*)?$", README, re.MULTILINE)
    assert len(lines) >= 8
    for line in lines:
        words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", line)]
        build_parser().parse_args(words)


SENTENCES = " ".join(README.split())


def test_the_rates_in_the_readme_are_those_that_are_kept() -> None:
    per = {60: "a minute", 3600: "an hour"}
    of = {frozenset({RequestKind.READ}): " reads", frozenset({RequestKind.WRITE}): " writes", ALL_REQUESTS: ""}
    kept = {
        tool.prefix: [
            (f"{rate.requests:,}{of[rate.kinds]}", per[round(rate.per_seconds)]) for rate in tool.operation.limits.rates
        ]
        for tool in load_tools([])
    }
    assert kept == {
        "inngest": [],
        "posthog": [("480", "a minute"), ("4,800", "an hour")],
        "render": [("400 reads", "a minute"), ("30 writes", "a minute")],
        "runway": [],
    }
    assert "(Render: 400 reads and 30 writes a minute; PostHog: 480 calls a minute and 4,800 an hour)" in SENTENCES


@pytest.mark.parametrize(
    "bound",
    [
        f"at most {MAX_AT_ONCE} requests and {MAX_STREAMS} streams open at each provider",
        f"one of more than {MAX_STRUCTURED:,} characters with its long members shortened",
        f"in the time of a wait, and {MAX_PAGES} at most",
        "three times at most",
    ],
)
def test_the_bounds_in_the_readme_are_those_of_the_code(bound: str) -> None:
    assert MAX_RETRIES == 3
    assert bound in SENTENCES


def environment_names(tool: Tool) -> set[str]:
    operation = tool.operation
    names = {name for variable in operation.credentials() for name in variable.names}
    names |= {name for parameter in operation.parameters if parameter.default for name in parameter.default.names}
    return names | set(operation.base.variables)


def test_each_variable_that_a_shipped_tool_reads_is_documented() -> None:
    for tool in load_tools([]):
        for name in environment_names(tool):
            assert f"`{name}`" in README


def test_the_json_in_the_readme_is_json() -> None:
    blocks = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert '"command": "uvx"' in json.dumps(json.loads(block))


@pytest.mark.anyio
async def test_the_example_configuration_works_as_it_stands() -> None:
    server = EXAMPLE["mcpServers"]["taskruns"]
    assert (server["command"], server["args"]) == ("/path/to/mcp-taskruns/.venv/bin/mcp-taskruns", [])
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "mcp_taskruns"], env=server["env"] | {"PATH": os.environ["PATH"]}
    )
    async with Client(command) as client:
        assert len((await client.list_tools()).tools) == 35
        result = await client.call_tool("render-list-tasks", {})
    assert "Set RENDER_API_KEY" in str(result.content)


def test_the_documents_name_nothing_outside_the_project() -> None:
    for path in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "Makefile"):
        assert not re.search(r"\.\./|/home/|/root/|/tmp/", (ROOT / path).read_text()), path
