"""Invalid files: each is reported by its name, and valid files beside it work."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mcp_taskruns.core.calls.request import build_request
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import CallError, CapabilityError
from mcp_taskruns.loading.loader import load, load_tools
from tests.format.files import ENVIRONMENT, FOLDER
from tests.timing import PATIENCE, scaled

GOOD = """\
naftiko: 1.0.0-alpha2
info:
  label: Good
  tags: [Good]
capability:
  consumes:
  - type: http
    namespace: good
    baseUri: https://good.example
    resources:
    - path: /things/{id}
      operations:
      - {name: get, method: GET}
  exposes:
  - type: mcp
    namespace: good-mcp
    tools:
    - {name: get, call: good.get, with: {id: tools.id}}
"""

BOMB = "naftiko: 1.0.0-alpha2\na0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]\n" for number in range(1, 10)
)

BAD: dict[str, str | bytes] = {
    "invalid YAML": "naftiko: 1.0.0-alpha2\ninfo: {label: [}\n",
    "a mapping inside a plain value": "naftiko: 1.0.0-alpha2\ninfo: a: b\n",
    "tab as indentation": "naftiko: 1.0.0-alpha2\ninfo:\n\tlabel: x\n",
    "two documents": GOOD + "---\n" + GOOD,
    "a key twice": GOOD + "naftiko: 1.0.0-alpha2\n",
    "a template without quotes": GOOD.replace("https://good.example", "{{env.HOST}}"),
    "one flattened line": GOOD.replace("\n", " "),
    "one flattened line without blanks": GOOD.replace("\n", ""),
    "empty": "",
    "only a comment": "# nothing\n",
    "only null": "null\n",
    "a list": "- naftiko: 1.0.0-alpha2\n- capability: {}\n",
    "a text": "just words\n",
    "a number": "42\n",
    "JSON that is no mapping": "[1, 2, 3]",
    "consumes is a text": GOOD.replace("consumes:\n  - type: http", "consumes: http\n  unused:\n  - type: http"),
    "consumes is a number": "naftiko: 1.0.0-alpha2\ncapability: {consumes: 5}\n",
    "exposes is true": "naftiko: 1.0.0-alpha2\ncapability: {exposes: true}\n",
    "tools is a number": "naftiko: 1.0.0-alpha2\ncapability: {exposes: [{type: mcp, namespace: m, tools: 5}]}\n",
    "a tool is a text": "naftiko: 1.0.0-alpha2\ncapability: {exposes: [{type: mcp, namespace: m, tools: [get]}]}\n",
    "a tool without a name": "naftiko: 1.0.0-alpha2\ncapability: {exposes: [{type: mcp, tools: [{call: a.b}]}]}\n",
    "with is a list": GOOD.replace("with: {id: tools.id}", "with: [tools.id]"),
    "a resource is a list": GOOD.replace("- path: /things/{id}\n      operations:", "- - path\n    - operations:"),
    "operations is a text": GOOD.replace("operations:\n      - {name: get, method: GET}", "operations: get"),
    "a path is a mapping": GOOD.replace("path: /things/{id}", "path: {id: things}"),
    "authentication is a number": GOOD.replace("namespace: good\n", "namespace: good\n    authentication: 5\n"),
    "binds is a text": GOOD + "binds: env\n",
    "info is a list": "naftiko: 1.0.0-alpha2\ninfo: [label]\n",
    "capability is a text": "naftiko: 1.0.0-alpha2\ncapability: none\n",
    "no version": GOOD.replace("naftiko: 1.0.0-alpha2\n", ""),
    "a version that is a mapping": GOOD.replace("naftiko: 1.0.0-alpha2", "naftiko: {version: 1}"),
    "alias bomb": BOMB,
    "an alias in itself": "naftiko: 1.0.0-alpha2\ninfo: &a {label: *a}\n",
    "an alias of nothing": "naftiko: 1.0.0-alpha2\ninfo: *nothing\n",
    "a tag of Python": "naftiko: 1.0.0-alpha2\ninfo: !!python/object/apply:os.getcwd []\n",
    "a tag that does not fit": "naftiko: 1.0.0-alpha2\ninfo: {label: !!int x}\n",
    "an unknown tag": "naftiko: 1.0.0-alpha2\ninfo: {label: !secret x}\n",
    "nested lists": "naftiko: 1.0.0-alpha2\ninfo: " + "[" * 500 + "]" * 500 + "\n",
    "nested mappings": "naftiko: 1.0.0-alpha2\n" + "".join(" " * level + "info:\n" for level in range(300)),
    "NUL bytes": "naftiko: 1.0.0-alpha2\ninfo: {label: a\0b}\n",
    "only NUL bytes": "\0" * 1000,
    "binary": bytes(range(256)) * 20,
    "a ZIP archive": b"PK\x03\x04\x14\x00\x00\x00\x08\x00" + bytes(range(255, 0, -1)),
    "a PNG": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "Latin-1": GOOD.replace("Good", "Größe").encode("latin-1"),
    "truncated in the middle of a character": GOOD.encode() + "# ü".encode()[:-1],
    "HTML": "<!DOCTYPE html>\n<html><head><title>404: Not Found</title></head></html>\n",
    "a conflict of versions": GOOD.replace("info:", "<<<<<<< HEAD\ninfo:\n=======\n>>>>>>> other"),
}

BAD_FILES = [
    pytest.param(text, id=name, marks=[pytest.mark.load] if name == "alias bomb" else []) for name, text in BAD.items()
]


def written(folder: Path, text: str | bytes, name: str = "bad.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def unsupported(tool: Tool) -> str:
    """Why a tool cannot be called; nothing of it is sent."""
    arguments = dict.fromkeys(tool.input_schema["properties"], "a")
    with pytest.raises(CallError) as caught:
        build_request(tool.operation, arguments, ENVIRONMENT)
    assert caught.value.kind == "unsupported"
    return caught.value.to_line()


@pytest.mark.parametrize("text", BAD_FILES)
def test_invalid_file_is_reported_and_others_work(tmp_path: Path, text: str | bytes) -> None:
    written(tmp_path, GOOD, "a.yaml")
    written(tmp_path, text)
    written(tmp_path, GOOD.replace("Good", "Other"), "c.yaml")
    found = load([tmp_path])
    assert [tool.name for tool in found.tools] == ["good-get", "other-get"]
    (problem,) = found.problems
    assert isinstance(problem, CapabilityError)
    assert problem.source == "bad.yaml"
    assert problem.reason
    assert str(problem) == ": ".join(part for part in (problem.source, problem.place, problem.reason) if part)
    assert len(str(problem)) < 500
    assert str(problem).isprintable()


@pytest.mark.parametrize("text", BAD_FILES)
def test_load_tools_raises_for_an_invalid_file(tmp_path: Path, text: str | bytes) -> None:
    written(tmp_path, GOOD, "a.yaml")
    written(tmp_path, text)
    with pytest.raises(CapabilityError, match=r"^bad\.yaml: "):
        load_tools([tmp_path])


def test_all_invalid_files_are_reported_in_order(tmp_path: Path) -> None:
    written(tmp_path, "- a", "b.yaml")
    written(tmp_path, GOOD, "c.yaml")
    written(tmp_path, "", "a.yaml")
    written(tmp_path, "x: y", "d.yml")
    found = load([tmp_path])
    assert [problem.source for problem in found.problems] == ["a.yaml", "b.yaml", "d.yml"]
    assert [tool.name for tool in found.tools] == ["good-get"]
    with pytest.raises(CapabilityError, match=r"^a\.yaml: "):
        load_tools([tmp_path])


def test_valid_files_have_no_problem() -> None:
    found = load([FOLDER])
    assert found.problems == ()
    assert found.tools == load_tools([FOLDER])
    assert len(found.tools) > 150


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("invalid YAML", "line 2"),
        ("a mapping inside a plain value", "line 2"),
        ("tab as indentation", "line 3"),
        ("a key twice", "line 19"),
        ("a template without quotes", "line 9"),
        ("consumes is a number", "capability.consumes"),
        ("exposes is true", "capability.exposes"),
        ("tools is a number", "capability.exposes[0].tools"),
        ("a tool is a text", "capability.exposes[0].tools[0]"),
        ("a tool without a name", "capability.exposes[0].tools[0].name"),
        ("with is a list", "capability.exposes[0].tools[0].with"),
        ("operations is a text", "capability.consumes[0].resources[0].operations"),
        ("a path is a mapping", "capability.consumes[0].resources[0].path"),
        ("authentication is a number", "capability.consumes[0].authentication"),
        ("binds is a text", "binds"),
        ("info is a list", "info"),
        ("capability is a text", "capability"),
    ],
)
def test_problem_has_a_place(tmp_path: Path, name: str, place: str) -> None:
    written(tmp_path, BAD[name])
    written(tmp_path, GOOD, "good.yaml")
    (problem,) = load([tmp_path]).problems
    assert f"{problem.place}:".startswith((f"{place}:", f"{place},"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("one flattened line", "line"),
        ("one flattened line without blanks", "line"),
        ("empty", "empty"),
        ("only a comment", "empty"),
        ("a list", "mapping"),
        ("a text", "mapping"),
        ("no version", "version"),
        ("a key twice", "duplicate key"),
        ("a template without quotes", "quote a value"),
        ("alias bomb", "too many"),
        ("nested lists", "nested"),
        ("Latin-1", "UTF-8"),
    ],
)
def test_problem_has_a_reason(tmp_path: Path, name: str, reason: str) -> None:
    written(tmp_path, BAD[name])
    written(tmp_path, GOOD, "good.yaml")
    (problem,) = load([tmp_path]).problems
    assert reason in problem.reason


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 100_000 + "]" * 100_000, id="lists"),
        pytest.param("[" * 100_000, id="lists without an end"),
        pytest.param("{a: " * 100_000 + "}" * 100_000, id="mappings"),
        pytest.param("\n" + "- " * 100_000 + "a", id="items of items"),
        pytest.param("\n" + "? " * 100_000 + "a", id="keys of keys"),
        pytest.param("&a [" * 100_000 + "]" * 100_000, id="anchors"),
    ],
)
def test_unbounded_nesting_does_not_crash_the_process(tmp_path: Path, text: str) -> None:
    written(tmp_path, f"naftiko: 1.0.0-alpha2\ninfo: {text}\n")
    written(tmp_path, GOOD, "good.yaml")
    # In a process of its own: a stack overflow in the parser raises no exception.
    program = (
        "import sys; from mcp_taskruns.loading.loader import load; found = load(sys.argv[1:]); print(*found.problems)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("bad.yaml: ")


def test_file_of_100_megabytes_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD, "huge.yaml")
    os.truncate(path, 100_000_000)
    written(tmp_path, GOOD)
    started = time.process_time()
    found = load([tmp_path])
    assert time.process_time() - started < scaled(1)
    (problem,) = found.problems
    assert (problem.source, len(found.tools)) == ("huge.yaml", 1)
    assert "larger than" in problem.reason


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(GOOD.encode("utf-16"), id="with a byte order mark"),
        pytest.param(GOOD.encode("utf-16-le"), id="little-endian"),
        pytest.param(GOOD.encode("utf-16-be"), id="big-endian"),
    ],
)
def test_utf_16_file_is_reported(tmp_path: Path, text: bytes) -> None:
    written(tmp_path, text)
    written(tmp_path, GOOD, "good.yaml")
    found = load([tmp_path])
    (problem,) = found.problems
    assert (problem.source, len(found.tools)) == ("bad.yaml", 1)
    assert "UTF-8" in problem.reason


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(GOOD.replace("\n", "\r\n").encode(), id="Windows line ends"),
        pytest.param(b"\xef\xbb\xbf" + GOOD.encode(), id="byte order mark"),
        pytest.param(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode(), id="both"),
        pytest.param(GOOD.removesuffix("\n").encode(), id="no line end at the end"),
        pytest.param(b"---\n" + GOOD.encode() + b"...\n", id="marks of a document"),
        pytest.param(b"%YAML 1.2\n---\n" + GOOD.encode(), id="directive"),
        pytest.param(GOOD.replace("Good", "Good \U0001f600").encode(), id="emoji"),
    ],
)
def test_bom_and_other_line_ends_are_accepted(tmp_path: Path, text: bytes) -> None:
    written(tmp_path, text)
    found = load([tmp_path])
    assert found.problems == ()
    assert [tool.name for tool in found.tools] == ["good-get"]


def test_folder_named_like_a_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").mkdir()
    written(tmp_path, GOOD, "good.yaml")
    found = load([tmp_path])
    assert ([tool.name for tool in found.tools], found.problems) == (["good-get"], ())
    with pytest.raises(CapabilityError, match=r"x\.yaml"):
        load_tools([tmp_path / "x.yaml"])


def test_dangling_link_does_not_affect_others(tmp_path: Path) -> None:
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere.yaml")
    written(tmp_path, GOOD, "good.yaml")
    assert [tool.name for tool in load([tmp_path]).tools] == ["good-get"]


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root and Windows read every file")
def test_file_without_permission_is_reported(tmp_path: Path) -> None:
    written(tmp_path, GOOD).chmod(0)
    written(tmp_path, GOOD, "good.yaml")
    found = load([tmp_path])
    (problem,) = found.problems
    assert (problem.source, len(found.tools)) == ("bad.yaml", 1)
    assert "Permission denied" in problem.reason


@pytest.mark.parametrize("filler", [" ", "x", "{", "a b ", "{ ", "\\t"])
@pytest.mark.parametrize(
    "place",
    [
        "path: /things/{id}",
        "baseUri: https://good.example",
        "method: GET}",
        "with: {id: tools.id}",
        "namespace: good\n",
    ],
)
def test_long_text_after_two_braces_is_parsed_in_linear_time(tmp_path: Path, filler: str, place: str) -> None:
    endless = '"{{' + filler * (100_000 // len(filler)) + '"'
    wrong = {
        "path: /things/{id}": f'path: "/things/{endless[1:]}',
        "baseUri: https://good.example": f'baseUri: "https://{endless[1:]}',
        "method: GET}": f"method: POST, body: {endless}}}",
        "with: {id: tools.id}": f"with: {{id: {endless}}}",
        "namespace: good\n": f"namespace: good\n    authentication: {{type: bearer, token: {endless}}}\n",
    }[place]
    written(tmp_path, GOOD.replace(place, wrong))
    started = time.process_time()
    found = load([tmp_path])
    assert time.process_time() - started < scaled(2)
    assert found.problems == ()
    (tool,) = found.tools
    with pytest.raises(CallError) as caught:
        build_request(tool.operation, dict.fromkeys(tool.input_schema["properties"], "a"), ENVIRONMENT)
    assert caught.value.kind in {"unsupported", "config"}
    assert len(caught.value.to_line()) < 1_000
    assert len(str(tool.input_schema)) < 1_000


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ("path: /things/{id}", "path: '/things/{{id'"),
        ("path: /things/{id}", "path: '/things/{{id}/x'"),
        ("path: /things/{id}", "path: '/things/{id}/{{'"),
        ("path: /things/{id}", "path: '/things/../{id}'"),
        ("path: /things/{id}", "path: '../{id}'"),
        ("path: /things/{id}", "path: '/things/{id}/..'"),
        ("path: /things/{id}", "path: '/things/./{id}'"),
        ("call: good.get", "call: good.got"),
        ("call: good.get", "call: get"),
        ("call: good.get", "call: ''"),
        ("call: good.get, ", ""),
    ],
)
def test_operation_that_cannot_be_sent_is_listed_with_a_reason(tmp_path: Path, place: str, wrong: str) -> None:
    text = GOOD.replace(place, wrong)
    assert text != GOOD
    written(tmp_path, text)
    found = load([tmp_path])
    assert found.problems == ()
    (tool,) = found.tools
    assert unsupported(tool)


@pytest.mark.parametrize(
    "other",
    [
        "- {type: skill, namespace: s, skills: [{name: x}]}",
        "- {type: control, namespace: c, port: 1}",
        "- {type: api, namespace: a, resources: [{path: /x, operations: [{method: GET, call: good.get}]}]}",
        "- {type: of-tomorrow, namespace: n, anything: {deep: [1]}}",
        "- {type: mcp, namespace: m, tools: [{name: s, steps: [{type: call, name: a, call: good.get}]}]}",
        "- {type: mcp, namespace: m, tools: [{name: s, ref: things.get}]}",
        "- {type: mcp, namespace: m, resources: [{name: r, uri: 'x://y'}], prompts: [{name: p}]}",
        "- {type: mcp, namespace: m}",
    ],
)
def test_unsupported_parts_do_not_affect_the_rest_of_a_file(tmp_path: Path, other: str) -> None:
    written(tmp_path, GOOD + f"  {other}\naggregates: [{{namespace: things, functions: [{{name: get}}]}}]\n")
    found = load([tmp_path])
    assert found.problems == ()
    first, *others = found.tools
    assert build_request(first.operation, {"id": "a"}, {}).url == "https://good.example/things/a"
    assert all(unsupported(tool) for tool in others)


def test_unknown_version_is_accepted(tmp_path: Path) -> None:
    written(tmp_path, GOOD.replace("1.0.0-alpha2", "9.9"))
    found = load([tmp_path])
    assert ([tool.name for tool in found.tools], found.problems) == (["good-get"], ())
