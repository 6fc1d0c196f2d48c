"""The command line: output and exit statuses."""

import io
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from mcp_taskruns.cli import COMMANDS, build_parser, run
from mcp_taskruns.settings import flag_of, options
from tests.timing import PATIENCE

Captured = pytest.CaptureFixture[str]


def mcp_taskruns(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mcp_taskruns", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={"PATH": "/usr/bin:/bin"} | environment,
        stdin=subprocess.DEVNULL,
    )


def test_tools_prints_a_table(capsys: Captured) -> None:
    assert run(["tools"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 40
    assert re.search(r"^render-cancel-task-run +destructive +Render: cancel task run$", out, re.MULTILINE)
    assert err == "40 tools\n"


def test_tools_json_is_the_list_of_mcp(capsys: Captured) -> None:
    assert run(["tools", "--json", "--only", "runway,render", "--read-only"]) == 0
    tools = json.loads(capsys.readouterr().out)["tools"]
    assert {tool["name"].partition("-")[0] for tool in tools} == {"render", "runway"}
    assert all(tool["annotations"]["readOnlyHint"] for tool in tools)


def test_tools_with_names_of_the_files(capsys: Captured) -> None:
    assert run(["tools", "--tool-names", "spec"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert "api-managing-task-runs-each" in names
    assert {"render-list-task-runs", "posthog-list-task-runs"} <= set(names)


def test_call_prints_only_the_result_to_stdout() -> None:
    done = mcp_taskruns("call", "render-retrieve-task", '{"taskId": "tsk-d5im0000000000000001"}', "--simulate")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["name"] == "square"


def test_call_prints_progress_and_notes_to_stderr(capsys: Captured) -> None:
    arguments = '{"taskRunIds": ["trn-d5im0000000000000001"]}'
    assert run(["call", "render-stream-realtime-events-sse", arguments, "--simulate", "--speed", "10"]) == 0
    out, err = capsys.readouterr()
    progress, *notes = err.splitlines()
    assert re.fullmatch(r"\d+ of 45  trn-d5im0000000000000001: succeeded \(event\)", progress)
    assert notes == ["Run trn-d5im0000000000000001: succeeded (completed).", "All followed runs have ended."]
    assert json.loads(out)["ended"] == "terminal"


@pytest.mark.parametrize(("flags", "token"), [([], r"\[redacted\]"), (["--reveal-secrets"], r"[\w-]+\.[\w-]+\.[\w-]+")])
def test_call_redacts_secrets_unless_reveal_secrets_is_set(flags: list[str], token: str, capsys: Captured) -> None:
    ids = '{"task_id": "11111111-1111-4111-8111-111111111111", "id": "cccccccc-cccc-4ccc-8ccc-cccccccccccc"}'
    assert run(["call", "posthog-get-sandbox-connection-token", ids, "--simulate", *flags]) == 0
    assert re.fullmatch(token, json.loads(capsys.readouterr().out)["token"])


@pytest.mark.parametrize("command", [["call", "render-list-tasks"], ["serve"]])
def test_weak_credential_is_reported_by_its_variable(command: list[str]) -> None:
    unused = {"RENDER_BASE_URL": "http://127.0.0.1:9/v1"}
    done = mcp_taskruns(*command, RENDER_API_KEY="production", POSTHOG_API_KEY="test", **unused)
    lines = done.stderr.splitlines()
    assert "RENDER_API_KEY is short or a common word: wherever it occurs in results, `[secret]` replaces it." in lines
    assert "POSTHOG_API_KEY has fewer than 6 characters, so it is not redacted in results and log lines." in lines
    assert "production" not in done.stderr


def test_call_writes_binary_content_unchanged(capsys: Captured) -> None:
    ids = {"task_id": "11111111-1111-4111-8111-111111111111", "id": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"}
    assert run(["call", "posthog-retrieve-task-run", json.dumps(ids), "--simulate"]) == 0
    artifacts = json.loads(capsys.readouterr().out)["artifacts"]
    path = next(artifact["storage_path"] for artifact in artifacts if artifact["name"].endswith(".png"))
    call = ["call", "posthog-download-artifact-through-backend", json.dumps(ids | {"body": {"storage_path": path}})]
    done = subprocess.run(
        [sys.executable, "-m", "mcp_taskruns", *call, "--simulate"],
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout.startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["call", "render-list-tasks"], 1, "Set RENDER_API_KEY in the server's environment"),
        (["call", "render-retrieve-task", "{}"], 1, "taskId: is required"),
        (["call", "nope"], 2, "there is no tool 'nope'; run `mcp-taskruns tools` to list them"),
        (
            ["call", "inngest-list-function-runs"],
            2,
            "the tool 'inngest-list-function-runs' is not served; set INNGEST_API_KEY_V2 or INNGEST_API_KEY",
        ),
        (["call", "render-list-task"], 2, "did you mean render-list-tasks?"),
        (["tools", "--exclude-tools", "nope"], 2, "--exclude-tools: no tool matches 'nope'"),
        (["call", "render-list-tasks", "{"], 2, "the arguments are not valid JSON"),
        (["call", "render-list-tasks", "[]"], 2, "must be a JSON object"),
        (["tools", "--only", "nope"], 2, "no provider has the prefix nope"),
        (["tools", "--capabilities", "/nowhere"], 2, "/nowhere: no such file or folder"),
        (["tools", "--env-file", "/nowhere"], 2, "--env-file /nowhere"),
        (["serve", "--transport", "http", "--host", "0.0.0.0"], 2, "MCP_TASKRUNS_TOKENS"),
    ],
)
def test_errors_are_printed_to_stderr(arguments: list[str], status: int, message: str, capsys: Captured) -> None:
    assert run(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [["--nope"], ["nope"], ["tools", "--port", "1"], ["serve", "--transport", "x"]])
def test_invalid_usage_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(arguments)
    assert caught.value.code == 2


def test_unknown_variable_is_rejected(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("MCP_TASKRUNS_READONLY", "1")
    assert run(["tools"]) == 2
    assert "MCP_TASKRUNS_READONLY: unknown variable" in capsys.readouterr().err


def test_list_options_may_contain_spaces(capsys: Captured) -> None:
    assert run(["tools", "--exclude-tools", "render-*, *-cancel-*"]) == 0
    assert not re.search("render|cancel", capsys.readouterr().out)


def test_names_of_the_files_are_used_in_descriptions(capsys: Captured) -> None:
    assert run(["tools", "--json", "--tool-names", "spec"]) == 0
    tools = json.loads(capsys.readouterr().out)["tools"]
    names = {tool["name"] for tool in tools}
    mentioned = set(re.findall(r"\b(?:render|inngest|posthog|runway)-[a-z0-9-]+", str(tools)))
    assert mentioned <= names


def test_version(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        run(["--version"])
    assert capsys.readouterr().out == "mcp-taskruns 0.1.0\n"


def test_help_lists_each_option_of_a_command(capsys: Captured) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            build_parser().parse_args([command, "--help"])
        out = capsys.readouterr().out
        for option in options():
            if command in option.metadata["commands"]:
                assert flag_of(option) in out


@pytest.mark.parametrize("name", ["no_rate_limits", "reveal_secrets"])
def test_options_of_calls_are_rejected_by_other_commands(name: str) -> None:
    parser = build_parser()
    flag = f"--{name.replace('_', '-')}"
    for command in (["serve"], ["call", "render-list-tasks"]):
        assert getattr(parser.parse_args([*command, flag]), name) is True
    for command in (["tools"], ["check"], ["simulate"]):
        with pytest.raises(SystemExit):
            parser.parse_args([*command, flag])


def test_closed_output_pipe_is_not_an_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m mcp_taskruns tools --json | head -1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("{\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_simulate_prints_the_environment_and_exits_on_a_signal(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "mcp_taskruns", "simulate", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout
            assert child.stderr
            assert "running" in child.stderr.readline()
            child.send_signal(number)
            out, err = child.communicate(timeout=PATIENCE)
        finally:
            child.kill()
    assert child.returncode == 0
    assert "Traceback" not in err
    names = re.findall(r"^export (\w+)=\S+$", out, re.MULTILINE)
    assert {"RENDER_BASE_URL", "INNGEST_BASE_URL", "POSTHOG_BASE_URL", "RUNWAY_BASE_URL"} <= set(names)


def test_simulate_fails_if_the_port_is_in_use(capsys: Captured) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(["simulate", "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot listen" in capsys.readouterr().err


GOOD = """\
naftiko: 1.0.0-alpha2
info: {tags: [Good]}
capability:
  consumes:
  - namespace: goods
    baseUri: ''
    resources: [{path: '/things/{id}', operations: [{name: read, method: GET}]}]
  exposes:
  - {type: mcp, tools: [{name: read-thing, call: goods.read}]}
"""

BAD = "naftiko: 1.0.0-alpha2\ninfo: a: b\n"
REASON = "bad.yaml: line 2, column 8: mapping values are not allowed in this context"


def not_served(folder: str) -> str:
    """Return the line about the bad file of a folder."""
    return f"{REASON} (this file is not served; run `mcp-taskruns check {folder}` for details)"


def folder_of(folder: Path, **texts: str) -> str:
    """Write capability files with these names to a folder."""
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return str(folder)


@contextmanager
def things(body: bytes = b'{"is": "here"}', media_type: str = "application/json") -> Iterator[tuple[str, list[str]]]:
    """Run a provider on a loopback port; yield its base URI and the paths that were requested."""
    requested: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requested
        finally:
            server.shutdown()
            thread.join()


HOSTILE = "a\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202eb\u2066\r\nc\td\u00e9\u2028"
ESCAPED = "a\\u001b]0;owned\\u0007\\u001b[2J\\u009b31m\\u007f\\u202eb\\u2066\\u000d\nc\td\u00e9\\u2028"


def on_a_terminal(*arguments: str) -> tuple[str, str]:
    """Run a command with standard output and standard error as terminals; return what it prints to each."""
    terminals = [os.openpty() for _ in range(2)]
    try:
        command = [sys.executable, "-m", "mcp_taskruns", *arguments]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=terminals[0][1], stderr=terminals[1][1]
        ) as child:
            child.wait(PATIENCE)
        texts = [os.read(master, 100_000).decode() if _is_readable(master) else "" for master, _ in terminals]
    finally:
        for pair in terminals:
            for fd in pair:
                os.close(fd)
    # The terminal writes a line break as a carriage return and a line feed.
    return texts[0].replace("\r\n", "\n"), texts[1].replace("\r\n", "\n")


def _is_readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


@pytest.mark.parametrize(
    ("body", "media_type", "printed"),
    [
        (HOSTILE.encode(), "text/plain; charset=utf-8", ESCAPED),
        (
            json.dumps({"a": HOSTILE}, ensure_ascii=False).encode(),
            "application/json",
            '{"a":"' + ESCAPED.replace("\\u000d\n", "\\r\\n").replace("\t", "\\t") + '"}',
        ),
    ],
    ids=["text", "JSON"],
)
def test_call_escapes_control_characters_on_a_terminal_only(
    body: bytes, media_type: str, printed: str, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, good=GOOD)
    with things(body, media_type) as (url, _):
        call = ["call", "good-read-thing", '{"id": "7"}', "--capabilities", folder, "--base-uri", f"goods={url}"]
        out, err = on_a_terminal(*call)
        piped = subprocess.run(
            [sys.executable, "-m", "mcp_taskruns", *call], capture_output=True, timeout=PATIENCE, check=True
        ).stdout
    assert (out, err) == (f"{printed}\n", "")
    if media_type == "application/json":
        assert json.loads(out) == json.loads(piped) == {"a": HOSTILE}
        assert "\u202e" in piped.decode()
    else:
        assert piped == HOSTILE.encode() + b"\n"


def test_characters_that_the_output_cannot_encode_are_escaped(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, good=GOOD)
    with things("café".encode(), "text/plain; charset=utf-8") as (url, _):
        call = ["call", "good-read-thing", '{"id": "7"}', "--capabilities", folder, "--base-uri", f"goods={url}"]
        done = mcp_taskruns(*call, PYTHONIOENCODING="ascii")
    assert (done.stdout, done.stderr) == ("caf\\xe9\n", "")


def test_tools_lists_valid_files_and_reports_an_invalid_one(tmp_path: Path, capsys: Captured) -> None:
    folder = folder_of(tmp_path, good=GOOD, bad=BAD)
    assert run(["tools", "--capabilities", folder]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["good-read-thing"]
    assert err == f"{not_served(folder)}\n1 tool\n"


def test_call_works_with_valid_files_and_reports_an_invalid_one(tmp_path: Path, capsys: Captured) -> None:
    folder = folder_of(tmp_path, good=GOOD, bad=BAD)
    with things() as (url, requested):
        call = ["call", "good-read-thing", '{"id": "7"}', "--capabilities", folder, "--base-uri", f"goods={url}"]
        assert run(call) == 0
    assert capsys.readouterr() == ('{"is":"here"}\n', f"{not_served(folder)}\n")
    assert requested == ["/things/7"]


def test_serve_reports_an_invalid_file_and_continues(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, good=GOOD, bad=BAD)
    # The input ends immediately, and so does the server.
    done = mcp_taskruns("serve", "--capabilities", folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"{not_served(folder)}\n")


@pytest.mark.parametrize("command", [["serve"], ["tools"], ["call", "good-read-thing"]], ids=lambda command: command[0])
@pytest.mark.parametrize("source", ["flag", "variable"])
def test_strict_exits_with_2_for_an_invalid_file(
    tmp_path: Path, command: list[str], source: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [*command, "--capabilities", folder_of(tmp_path, good=GOOD, bad=BAD)]
    if source == "flag":
        given.append("--strict")
    else:
        monkeypatch.setenv("MCP_TASKRUNS_STRICT", "1")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert run(given) == 2
    assert capsys.readouterr() == ("", f"mcp-taskruns: {REASON}\n")


def test_strict_accepts_valid_files(tmp_path: Path, capsys: Captured) -> None:
    assert run(["tools", "--strict", "--capabilities", folder_of(tmp_path, good=GOOD)]) == 0
    assert capsys.readouterr().err == "1 tool\n"


@pytest.mark.parametrize("command", [["serve"], ["tools"], ["call", "good-read-thing"]], ids=lambda command: command[0])
def test_only_invalid_files_exit_with_2(
    tmp_path: Path, command: list[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert run([*command, "--capabilities", folder_of(tmp_path, bad=BAD, worse="- a\n")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"mcp-taskruns: {REASON}\n")
    assert "Traceback" not in err


def test_only_invalid_files_are_reported_before_filters_that_match_nothing(tmp_path: Path, capsys: Captured) -> None:
    flags = ["--only", "good", "--base-uri", "goods=https://a.example", "--tools", "good-*"]
    assert run(["tools", *flags, "--capabilities", folder_of(tmp_path, bad=BAD)]) == 2
    assert capsys.readouterr().err.startswith(f"mcp-taskruns: {REASON}\n")


def test_each_invalid_file_is_reported_in_one_line(tmp_path: Path, capsys: Captured) -> None:
    texts = {
        "a": "",
        "b": "- a\n",
        "c": 'naftiko: 1.0.0-alpha2\ncapability: {consumes: [{resources: 5, baseUri: ["a\\nb"]}]}\n',
        "d": 'naftiko: 1.0.0-alpha2\n"a\\nb": 1\n"a\\nb": 2\n',
        "e": "naftiko: 1.0.0-alpha2 info: label: X",
        "f": GOOD,
    }
    assert run(["tools", "--capabilities", folder_of(tmp_path, **texts)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["a.yaml", "b.yaml", "c.yaml", "d.yaml", "e.yaml", "1 tool"]


@pytest.mark.parametrize("source", ["--base-uri", "MCP_TASKRUNS_BASE_URI", "GOOD_BASE_URL", "env file"])
def test_missing_base_uri_can_be_set_by_flag_or_variable(
    source: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ["call", "good-read-thing", '{"id": "a b"}', "--capabilities", folder_of(tmp_path, good=GOOD)]
    with things() as (url, requested):
        if source == "--base-uri":
            call += [source, f"goods={url}/v2/"]
        elif source == "MCP_TASKRUNS_BASE_URI":
            monkeypatch.setenv(source, f"goods={url}/v2/")
        elif source == "GOOD_BASE_URL":
            monkeypatch.setenv(source, f"{url}/v2/")
        else:
            (tmp_path / "keys.env").write_text(f"GOOD_BASE_URL={url}/v2/\n")
            call += ["--env-file", str(tmp_path / "keys.env")]
        assert run(call) == 0
    assert capsys.readouterr() == ('{"is":"here"}\n', "")
    assert requested == ["/v2/things/a%20b"]


def test_base_uri_option_takes_precedence_over_the_variable_of_the_provider(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ["call", "good-read-thing", '{"id": "7"}', "--capabilities", folder_of(tmp_path, good=GOOD)]
    with things() as (url, requested):
        monkeypatch.setenv("GOOD_BASE_URL", "http://127.0.0.1:9/elsewhere")
        assert run([*call, "--base-uri", f"goods={url}"]) == 0
    assert requested == ["/things/7"]
    assert capsys.readouterr().err == ""


def test_call_without_a_base_uri_suggests_how_to_set_it(tmp_path: Path, capsys: Captured) -> None:
    call = ["call", "good-read-thing", '{"id": "7"}', "--capabilities", folder_of(tmp_path, good=GOOD)]
    assert run(call) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "GOOD_BASE_URL" in err
    assert "--base-uri goods=" in err
    assert json.loads(err.splitlines()[-1])["kind"] == "config"


@pytest.mark.parametrize("command", [["serve"], ["tools"], ["call", "good-read-thing"]], ids=lambda command: command[0])
def test_base_uri_of_an_unknown_namespace_exits_with_2(
    tmp_path: Path, command: list[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    folder = folder_of(tmp_path, good=GOOD, more=GOOD.replace("goods", "others"))
    assert run([*command, "--capabilities", folder, "--base-uri", "good=https://a.example"]) == 2
    assert capsys.readouterr() == (
        "",
        "mcp-taskruns: --base-uri: no capability file consumes good; namespaces: goods, others\n",
    )


def test_invalid_base_uri_exits_with_2(capsys: Captured) -> None:
    assert run(["tools", "--base-uri", "render=api.render.com"]) == 2
    assert capsys.readouterr().err == (
        "mcp-taskruns: --base-uri: 'render=api.render.com' is not NAMESPACE=URL, such as acme=https://api.acme.example\n"
    )


def test_simulate_does_not_call_providers_without_a_simulator(tmp_path: Path, capsys: Captured) -> None:
    with things() as (url, requested):
        call = ["call", "good-read-thing", '{"id": "7"}', "--capabilities", folder_of(tmp_path, good=GOOD)]
        assert run([*call, "--base-uri", f"goods={url}", "--simulate"]) == 1
    assert requested == []
    assert "there is no simulated good, and this server runs with --simulate" in capsys.readouterr().err


def test_check_strict_can_be_set_by_a_variable(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, good=GOOD)
    assert run(["check", folder]) == 0
    monkeypatch.setenv("MCP_TASKRUNS_STRICT", "1")
    assert run(["check", folder]) == 1
    assert "warning" in capsys.readouterr().out
