"""The command `new`: files that can be checked and served."""

import builtins
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from mcp_taskruns import new
from mcp_taskruns.cli import run
from mcp_taskruns.errors import SettingsError
from mcp_taskruns.generator.choice import Choice
from tests.generator import documents

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def openapi(tmp_path: Path) -> Path:
    path = tmp_path / "builds.json"
    path.write_text(json.dumps(documents.builds()), encoding="utf-8")
    return path


def files(folder: Path) -> tuple[Path, Path]:
    return folder / "acme.yaml", folder / "overlays" / "acme.yaml"


def test_new_writes_files_that_check_lists(tmp_path: Path, openapi: Path, capsys: Captured) -> None:
    folder = tmp_path / "mine"
    assert run(["new", "acme", "--openapi", str(openapi), "--output", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"{files(folder)[0]}: 6 tools"
    assert f"mcp-taskruns check {folder}" in err
    assert run(["check", str(folder)]) == 0
    *lines, summary = capsys.readouterr().out.splitlines()
    overlay = files(folder)[1].read_text(encoding="utf-8").splitlines()
    found = [line for line in lines if line.endswith("then remove the comment.")]
    numbers = [number for number, line in enumerate(overlay, 1) if "# check:" in line]
    assert [int(line.rpartition("acme.yaml:")[2].partition(":")[0]) for line in found] == numbers
    assert f"{len(numbers)} notes" in summary
    assert run(["check", "--strict", str(folder)]) == 1
    assert run(["check", "--json", str(folder)]) == 0
    assert f'"notes": {len(numbers)}' in capsys.readouterr().out


def test_new_reads_yaml_with_numbers_as_keys(tmp_path: Path, openapi: Path) -> None:
    root = yaml.safe_dump(json.loads(openapi.read_text(encoding="utf-8"))).replace("'200':", "200:")
    assert "200:" in root
    openapi.write_text(root, encoding="utf-8")
    assert run(["new", "acme", "--openapi", str(openapi), "--output", str(tmp_path)]) == 0
    assert "getbuild" in files(tmp_path)[1].read_text(encoding="utf-8")


def test_new_takes_operations(tmp_path: Path, openapi: Path, capsys: Captured) -> None:
    arguments = ["new", "acme", "--openapi", str(openapi), "--output", str(tmp_path), "--operations"]
    assert run([*arguments, "getBuild,getOrganization"]) == 0
    assert capsys.readouterr().out.startswith(f"{files(tmp_path)[0]}: 2 tools")
    assert run([*arguments, "all", "--force"]) == 0
    assert capsys.readouterr().out.startswith(f"{files(tmp_path)[0]}: 7 tools")


def test_new_does_not_overwrite_without_force(tmp_path: Path, openapi: Path, capsys: Captured) -> None:
    (tmp_path / "overlays").mkdir()
    files(tmp_path)[1].write_text("mine", encoding="utf-8")
    assert run(["new", "acme", "--openapi", str(openapi), "--output", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert not files(tmp_path)[0].exists()
    assert files(tmp_path)[1].read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("Acme Builds", "such as acme-builds"), ("9", ""), ("x" * 31, "such as " + "x" * 30), ("../a", "such as a")],
)
def test_new_refuses_names(tmp_path: Path, openapi: Path, capsys: Captured, name: str, suggestion: str) -> None:
    assert run(["new", name, "--openapi", str(openapi), "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "is not a valid name" in error
    assert suggestion in error


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"swagger": "2.0"}', "Swagger 2.0"),
        ('{"openapi": "3.1.0", "paths": {}}', "no operation is chosen"),
        ('{"a": [}', "line 1"),
        ("[" * 5, "line 2"),
        ('{"a":' + "[" * 100_000, "too deeply nested"),
        ("a: 'b", "line 1"),
        ("", "empty"),
    ],
)
def test_new_refuses_documents(tmp_path: Path, capsys: Captured, text: str, reason: str) -> None:
    path = tmp_path / "api.json"
    path.write_text(text, encoding="utf-8")
    assert run(["new", "acme", "--openapi", str(path), "--output", str(tmp_path)]) == 2
    assert reason in capsys.readouterr().err


def test_new_reports_files_that_cannot_be_read_or_written(
    tmp_path: Path, openapi: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["new", "acme", "--openapi", str(tmp_path / "none.json"), "--output", str(tmp_path)]) == 2
    assert "No such file" in capsys.readouterr().err
    assert run(["new", "acme", "--openapi", str(openapi), "--output", str(openapi / "folder")]) == 2
    assert "cannot write" in capsys.readouterr().err
    monkeypatch.setattr(new, "MAX_DOCUMENT_BYTES", 5)
    assert run(["new", "acme", "--openapi", str(openapi), "--output", str(tmp_path)]) == 2
    assert "larger than 5 bytes" in capsys.readouterr().err


def use_terminal(monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
    """Let standard input and output be a terminal on which these lines are typed."""
    lines = iter(answers)

    def read_line(prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(builtins, "input", read_line)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)


def test_new_lets_the_user_choose_in_a_terminal(
    tmp_path: Path, openapi: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_terminal(monkeypatch, "organization get", "7", "")
    assert run(["new", "acme", "--openapi", str(openapi), "--output", str(tmp_path)]) == 0
    assert "7 [x] GET    /v2/organizations/{org}  getOrganization" in capsys.readouterr().out


def test_new_writes_nothing_if_the_choice_is_left(
    tmp_path: Path, openapi: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_terminal(monkeypatch, "7")
    assert run(["new", "acme", "--openapi", str(openapi), "--output", str(tmp_path)]) == 2
    assert "nothing written" in capsys.readouterr().err
    assert not files(tmp_path)[0].exists()


def test_choice_of_nothing_is_refused(tmp_path: Path, openapi: Path) -> None:
    def choose(choice: Choice) -> None:
        choice.chosen.clear()

    with pytest.raises(SettingsError, match="no operation is chosen"):
        new.write_files("acme", openapi, operations=(), folder=tmp_path, choose=choose)


class Builds(BaseHTTPRequestHandler):
    """A provider with one build that passes."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send({"id": "b", "number": 7, "state": "passed", "jobs": []})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body == {"commit": "HEAD"}
        assert self.headers["Authorization"] == "Bearer secret-token"
        self._send({"id": "b", "number": 7, "state": "scheduled", "jobs": []})

    def _send(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@contextmanager
def provider() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Builds) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_tools_of_the_new_files_start_and_wait(
    tmp_path: Path, openapi: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["new", "acme", "--openapi", str(openapi), "--output", str(tmp_path / "mine")]) == 0
    capsys.readouterr()
    monkeypatch.setenv("ACME_TOKEN", "secret-token")
    arguments = {"org": "o", "slug": "s", "commit": "HEAD", "wait_seconds": 20}
    with provider() as origin:
        monkeypatch.setenv("ACME_BASE_URL", origin)
        assert run(["call", "acme-create-build", json.dumps(arguments), "--capabilities", str(tmp_path / "mine")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["run_id"], result["status"], result["native_status"]) == ("7", "succeeded", "passed")
