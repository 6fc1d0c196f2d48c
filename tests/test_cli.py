"""The command line: what it prints where, and its exit codes."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_taskruns.cli import COMMANDS, build_parser, run
from mcp_taskruns.settings import flag_of, options

Captured = pytest.CaptureFixture[str]


def mcp_taskruns(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mcp_taskruns", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PATH": "/usr/bin:/bin"} | environment,
        stdin=subprocess.DEVNULL,
    )


def test_tools_are_a_table(capsys: Captured) -> None:
    assert run(["tools"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 35
    assert re.search(r"^render-cancel-task-run +destructive +Render: cancel task run$", out, re.MULTILINE)
    assert err == "35 tools\n"


def test_tools_as_json_are_what_mcp_lists(capsys: Captured) -> None:
    assert run(["tools", "--json", "--only", "runway,render", "--read-only"]) == 0
    tools = json.loads(capsys.readouterr().out)["tools"]
    assert {tool["name"].partition("-")[0] for tool in tools} == {"render", "runway"}
    assert all(tool["annotations"]["readOnlyHint"] for tool in tools)


def test_spec_names_are_those_of_the_files(capsys: Captured) -> None:
    assert run(["tools", "--tool-names", "spec"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert "api-managing-task-runs-each" in names
    assert {"render-list-task-runs", "posthog-list-task-runs"} <= set(names)


def test_a_call_prints_the_result_and_nothing_else_on_standard_output() -> None:
    done = mcp_taskruns("call", "render-retrieve-task", '{"taskId": "tsk-d5im0000000000000001"}', "--simulate")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["name"] == "square"


def test_a_call_prints_progress_and_notes_on_standard_error() -> None:
    arguments = '{"taskRunIds": ["trn-d5im0000000000000001"]}'
    done = mcp_taskruns("call", "render-stream-realtime-events-sse", arguments, "--simulate", "--speed", "10")
    assert done.returncode == 0
    assert done.stderr == (
        "100%  trn-d5im0000000000000001: succeeded\n"
        "Run trn-d5im0000000000000001: succeeded (completed).\n"
        "All runs that were followed have ended.\n"
    )
    assert json.loads(done.stdout)["ended"] == "terminal"


@pytest.mark.parametrize(("flags", "token"), [([], r"\[redacted\]"), (["--reveal-secrets"], r"[\w-]+\.[\w-]+\.[\w-]+")])
def test_a_call_shows_a_token_to_who_asks_for_secrets_alone(flags: list[str], token: str) -> None:
    run = '{"task_id": "11111111-1111-4111-8111-111111111111", "id": "cccccccc-cccc-4ccc-8ccc-cccccccccccc"}'
    done = mcp_taskruns("call", "posthog-get-sandbox-connection-token", run, "--simulate", *flags)
    assert done.returncode == 0
    assert re.fullmatch(token, json.loads(done.stdout)["token"])


def test_a_call_writes_binary_content_as_it_is() -> None:
    ids = {"task_id": "11111111-1111-4111-8111-111111111111", "id": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"}
    run_json = mcp_taskruns("call", "posthog-retrieve-task-run", json.dumps(ids), "--simulate").stdout
    path = next(a["storage_path"] for a in json.loads(run_json)["artifacts"] if a["name"].endswith(".png"))
    call = ["call", "posthog-download-artifact-through-backend", json.dumps(ids | {"body": {"storage_path": path}})]
    done = subprocess.run(
        [sys.executable, "-m", "mcp_taskruns", *call, "--simulate"],
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["call", "render-list-tasks"], 1, "Set RENDER_API_KEY in the server's environment"),
        (["call", "render-retrieve-task", "{}"], 1, "taskId: is required"),
        (["call", "nope"], 2, "there is no tool 'nope' among those chosen; `mcp-taskruns tools` lists them"),
        (["call", "render-list-task"], 2, "did you mean render-list-tasks?"),
        (["tools", "--exclude-tools", "nope"], 2, "--exclude-tools: no tool matches 'nope'"),
        (["call", "render-list-tasks", "{"], 2, "the arguments are not JSON"),
        (["call", "render-list-tasks", "[]"], 2, "must be a JSON object"),
        (["tools", "--only", "nope"], 2, "no capability has the prefix nope"),
        (["tools", "--capabilities", "/nowhere"], 2, "/nowhere: there is no such file or folder"),
        (["tools", "--env-file", "/nowhere"], 2, "--env-file /nowhere"),
        (["serve", "--transport", "http", "--host", "0.0.0.0"], 2, "MCP_TASKRUNS_TOKENS"),
    ],
)
def test_what_goes_wrong_is_told_on_standard_error(
    arguments: list[str], code: int, told: str, capsys: Captured
) -> None:
    assert run(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [["--nope"], ["nope"], ["tools", "--port", "1"], ["serve", "--transport", "x"]])
def test_wrong_usage_is_refused_with_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(arguments)
    assert caught.value.code == 2


def test_a_setting_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("MCP_TASKRUNS_READONLY", "1")
    assert run(["tools"]) == 2
    assert "MCP_TASKRUNS_READONLY: there is no such setting" in capsys.readouterr().err


def test_check_finds_nothing_wrong_with_the_shipped_files(capsys: Captured) -> None:
    assert run(["check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok:"] * 4


def test_check_names_file_and_place_of_errors_and_goes_on(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "a.yaml").write_text("naftiko: 1.0.0-alpha2\ncapability: {consumes: [{resources: 5}]}\n")
    (tmp_path / "b.yaml").write_text("naftiko: 9.9\nmore: 1\ncapability: {exposes: [{type: mcp, tools: []}]}\n")
    assert run(["check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "error: a.yaml: capability.consumes[0].resources: " in out
    assert "warning: b.yaml: naftiko: version 9.9 is not known here" in out
    assert "warning: b.yaml: more: this key is not known and is ignored" in out
    assert "warning: b.yaml: capability.exposes: no MCP tools" in out
    assert "ok: b.yaml: 0 tools" in out


def test_check_finds_schemas_that_cannot_work_and_overlays_of_nothing(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "a.yaml").write_text(
        "naftiko: 1.0.0-alpha2\ninfo: {tags: [A]}\ncapability:\n  consumes:\n  - namespace: a\n    baseUri: https://a.example\n"
        "    authentication: {type: bearer, token: '{{env.A_TOK}}'}\n"
        "    resources: [{path: /x, operations: [{name: b, method: DELTE, inputParameters: ["
        "{name: p, in: query, schema: {type: banana}}, {name: q, in: query, schema: {$ref: 'https://a.example/s'}}]}]}]\n"
        "  exposes:\n  - type: mcp\n    tools: [{name: t, call: a.b}]\n"
    )
    (tmp_path / "overlays").mkdir()
    (tmp_path / "overlays" / "b.yaml").write_text("prefix: b\n")
    assert run(["check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "b.yaml: there is no capability file of this name" in out
    assert re.search(r"^error: a.yaml: tool a-t: its schema is not valid: .*'banana'", out, re.MULTILINE)
    assert "error: a.yaml: tool a-t: its schema refers to https://a.example/s" in out
    assert "warning: a.yaml: tool a-t: DELTE is no HTTP method" in out
    assert "warning: a.yaml: binds: A_TOK is used and not declared" in out
    assert "ok: a.yaml" not in out


def test_lists_may_hold_blanks(capsys: Captured) -> None:
    assert run(["tools", "--exclude-tools", "render-*, *-cancel-*"]) == 0
    assert not re.search("render|cancel", capsys.readouterr().out)


def test_spec_names_are_also_those_in_descriptions(capsys: Captured) -> None:
    assert run(["tools", "--json", "--tool-names", "spec"]) == 0
    tools = json.loads(capsys.readouterr().out)["tools"]
    names = {tool["name"] for tool in tools}
    mentioned = set(re.findall(r"\b(?:render|inngest|posthog|runway)-[a-z0-9-]+", str(tools)))
    assert mentioned <= names


def test_the_version_is_told(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        run(["--version"])
    assert capsys.readouterr().out == "mcp-taskruns 0.1.0\n"


def test_help_knows_each_command_and_flag(capsys: Captured) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            build_parser().parse_args([command, "--help"])
        told = capsys.readouterr().out
        for option in options():
            if command in option.metadata["commands"]:
                assert flag_of(option) in told


@pytest.mark.parametrize("name", ["no_rate_limits", "reveal_secrets"])
def test_what_only_calls_need_is_no_flag_of_a_command_that_calls_nobody(name: str) -> None:
    parser = build_parser()
    flag = f"--{name.replace('_', '-')}"
    for command in (["serve"], ["call", "render-list-tasks"]):
        assert getattr(parser.parse_args([*command, flag]), name) is True
    for command in (["tools"], ["check"], ["simulate"]):
        with pytest.raises(SystemExit):
            parser.parse_args([*command, flag])


def test_output_to_a_reader_that_leaves_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m mcp_taskruns tools --json | head -1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("{\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_the_simulators_print_their_environment_and_end_on_a_signal(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "mcp_taskruns", "simulate", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout
            assert child.stderr
            assert "running" in child.stderr.readline()
            child.send_signal(number)
            out, err = child.communicate(timeout=10)
        finally:
            child.kill()
    assert child.returncode == 0
    assert "Traceback" not in err
    names = re.findall(r"^export (\w+)=\S+$", out, re.MULTILINE)
    assert {"RENDER_BASE_URL", "INNGEST_BASE_URL", "POSTHOG_BASE_URL", "RUNWAY_BASE_URL"} <= set(names)


def test_simulated_providers_need_a_free_port(capsys: Captured) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(["simulate", "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot listen" in capsys.readouterr().err
