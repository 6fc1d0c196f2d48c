"""The built-in providers that are served on request, from the command line."""

import json
import os
from itertools import takewhile
from pathlib import Path

import pytest

from mcp_taskruns.cli import run
from mcp_taskruns.loading.files import builtin_capabilities, files_on_request
from mcp_taskruns.loading.sources import relative_path
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


def row_of(name: str, table: str) -> str:
    """Return the lines of a provider in the table, joined."""
    lines = table.splitlines()
    start = next(number for number, line in enumerate(lines) if line.split()[:1] == [name])
    more = takewhile(lambda line: line.startswith(" "), lines[start + 1 :])
    return " ".join(" ".join([lines[start], *more]).split())


def test_providers_prints_a_table_of_all_providers(capsys: Captured) -> None:
    assert run(["providers"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == ["PROVIDER", "SERVED", "TOOLS", "RUNS", "VARIABLES"]
    variables = "RENDER_API_KEY (not set) RENDER_BASE_URL (base URL)"
    assert row_of("render", out) == f"render default 9 wait, explain, cancel {variables}"
    assert row_of("replicate", out).startswith("replicate --with 11 wait, ")
    assert {line.split()[0] for line in out.splitlines() if line[0] != " "} == {
        "PROVIDER",
        *DEFAULT,
        *(path.stem for path in files_on_request()),
    }
    assert err == "Providers marked --with are served on request: mcp-taskruns --with NAME\n"


def test_providers_fits_into_100_columns(capsys: Captured) -> None:
    assert run(["providers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 100 or line != line.rstrip() or not line.isascii()] == []


def test_providers_reports_which_variables_are_set_and_no_values(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RUNWAY_API_KEY", "REPLICATE_API_TOKEN", "RENDER_LOCAL_DEV_URL"):
        monkeypatch.setenv(name, "https://secret.example")
    monkeypatch.setenv("INNGEST_API_KEY", "")  # an empty variable counts as not set
    assert run(["providers", "--json"]) == 0
    assert "secret" not in capsys.readouterr().out
    assert run(["providers"]) == 0
    table = capsys.readouterr().out
    assert "secret" not in table
    assert row_of("runway", table).endswith("RUNWAY_API_KEY (set) RUNWAY_BASE_URL (base URL)")
    assert "REPLICATE_API_TOKEN (set)" in row_of("replicate", table)
    assert row_of("render", table).endswith("RENDER_API_KEY (not set) RENDER_LOCAL_DEV_URL (base URL, set)")
    assert "INNGEST_SIGNING_KEY or INNGEST_API_KEY (not set)" in row_of("inngest", table)


@pytest.mark.parametrize(("key", "runs"), [("", "5 wait, explain, cancel"), ("v2", "9 wait, explain, retry,")])
def test_providers_reports_what_the_variables_that_are_set_make_possible(
    key: str, runs: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNGEST_API_KEY_V2", key)
    assert run(["providers"]) == 0
    assert row_of("inngest", capsys.readouterr().out).startswith(f"inngest default {runs} ")


def test_providers_json_has_the_fields_of_the_table(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("RUNWAY_API_KEY=key_0123456789\n", encoding="utf-8")
    assert run(["providers", "--json", "--env-file", str(tmp_path / "env")]) == 0
    providers = {one["name"]: one for one in json.loads(capsys.readouterr().out)["providers"]}
    assert providers["runway"] == {
        "name": "runway",
        "file": relative_path(builtin_capabilities() / "video-generation-tasks.yaml"),
        "served": "default",
        "tools": 4,
        "runs": ["wait", "explain", "cancel"],
        "credentials": [{"variables": ["RUNWAYML_API_SECRET", "RUNWAY_API_KEY"], "set": True}],
        "base_url": {"variables": ["RUNWAY_BASE_URL", "RUNWAYML_BASE_URL"], "set": False},
    }
    assert providers["replicate"]["served"] == "--with replicate"


def test_providers_reports_a_file_that_cannot_be_served(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("- a\n", encoding="utf-8")
    assert run(["providers", "--capabilities", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "broken" not in out
    assert "broken.yaml" in err.splitlines()[0]
    assert err.splitlines()[0].endswith("(this file is not served)")


def test_providers_without_tools_and_variables_is_a_row(capsys: Captured, tmp_path: Path) -> None:
    text = "naftiko: 1.0.0-alpha2\ninfo: {label: Bare, tags: [Bare]}\ncapability: {consumes: [], exposes: []}\n"
    (tmp_path / "bare.yaml").write_text(text, encoding="utf-8")
    assert run(["providers", "--capabilities", str(tmp_path)]) == 0
    assert row_of("bare", capsys.readouterr().out) == "bare default 0"


@pytest.mark.parametrize("name", [path.stem for path in files_on_request()])
def test_provider_on_request_has_a_row_in_the_readme(name: str) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"| `{name}` | " in readme
