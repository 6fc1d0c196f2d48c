"""The built-in providers that are served on request, from the command line."""

import json
import os
from pathlib import Path

import pytest

from mcp_taskruns.cli import run
from mcp_taskruns.loading.files import files_on_request
from tests.clients import open_client

Captured = pytest.CaptureFixture[str]


def listed(capsys: Captured, *arguments: str) -> set[str]:
    """Return the prefixes of the tools that `tools` lists with these arguments."""
    assert run(["tools", "--json", *arguments]) == 0
    tools = json.loads(capsys.readouterr().out)["tools"]
    return {tool["name"].partition("-")[0] for tool in tools}


DEFAULT = {"inngest", "posthog", "render", "runway"}


def test_tools_lists_a_provider_only_with_its_name(capsys: Captured) -> None:
    assert listed(capsys) == DEFAULT
    assert listed(capsys, "--with", "replicate") == DEFAULT | {"replicate"}
    assert listed(capsys, "--with", "replicate", "--only", "replicate") == {"replicate"}
    assert "replicate" in listed(capsys, "--with", "all")


def test_with_takes_a_list_can_be_repeated_and_set_in_the_environment(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["tools", "--with", "replicate,nothing"]) == 2
    assert "'nothing'" in capsys.readouterr().err
    assert run(["tools", "--with", "replicate", "--with", "nothing"]) == 2
    assert "'nothing'" in capsys.readouterr().err
    monkeypatch.setenv("MCP_TASKRUNS_WITH", "replicate")
    assert listed(capsys) == DEFAULT | {"replicate"}


@pytest.mark.parametrize(
    "command", [["serve"], ["tools"], ["check"], ["call", "render-list-tasks"]], ids=lambda c: c[0]
)
def test_unknown_name_is_an_error_that_lists_the_names(command: list[str], capsys: Captured) -> None:
    assert run([*command, "--with", "replicat"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mcp-taskruns: --with: no built-in provider has the name 'replicat'; names: ")
    assert all(path.stem in error for path in files_on_request())


def test_with_adds_to_the_folders_of_the_user(capsys: Captured, tmp_path: Path) -> None:
    text = files_on_request(["replicate"])[0].read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(text.replace("- Replicate", "- Mine"), encoding="utf-8")
    assert listed(capsys, "--capabilities", str(tmp_path)) == {"mine"}
    assert listed(capsys, "--capabilities", str(tmp_path), "--with", "replicate") == {"mine", "replicate"}


def test_check_checks_the_files_on_request(capsys: Captured) -> None:
    assert run(["check", "--json", "--strict", "--with", "replicate"]) == 0
    checked = [Path(file).name for file in json.loads(capsys.readouterr().out)["files"]]
    assert len(checked) == len(DEFAULT) + 1
    assert checked[-1] == "replicate.yaml"


def test_call_of_a_provider_that_is_not_simulated_is_an_error_with_simulate(capsys: Captured) -> None:
    assert run(["call", "replicate-list-predictions", "--simulate", "--with", "replicate"]) == 1
    assert "there is no simulated replicate" in capsys.readouterr().err


@pytest.mark.anyio
async def test_server_over_stdio_serves_a_provider_on_request() -> None:
    path = {"PATH": os.environ["PATH"]}
    command = ["-m", "mcp_taskruns", "--with", "replicate", "--watch"]
    async with open_client("stdio", "auto", path, command=command) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"render-wait-for-run", "replicate-wait-for-run"} <= names
        result = await client.call_tool("replicate-list-predictions", {})
        assert result.is_error
        assert "REPLICATE_API_TOKEN" in result.model_dump_json()
