from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_taskruns.errors import CapabilityError
from mcp_taskruns.loading import yaml as documents
from mcp_taskruns.loading.lines import Lines, read_lines
from mcp_taskruns.loading.yaml import FLATTENED, read_document


def written(folder: Path, text: str | bytes, name: str = "thing.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read_error(path: Path) -> CapabilityError:
    with pytest.raises(CapabilityError) as caught:
        read_document(path)
    with pytest.raises(CapabilityError) as again:
        read_lines(path)
    assert str(again.value) == str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("", "", "the file is empty"),
        ("a: b\nc: d: e\n", "line 2, column 5", "mapping values are not allowed in this context"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4, column 3", "duplicate key 'c'"),
        ("a:\n- {{KEY}}: x\n", "line 2, column 3", "a key must be a string; quote a value that begins with {{"),
        ("a: 1\nb: " + "[" * 101 + "]" * 101, "line 2, column 103", "too many or too deeply nested values"),
        ("a: &a [*a]\n", "line 1, column 4", "too many or too deeply nested values"),
        ("- a\n", "", "a capability file must be a mapping, not a list"),
        ("plain text", "", "a capability file must be a mapping, not a scalar"),
        ("5", "", "a capability file must be a mapping, not a scalar"),
    ],
)
def test_invalid_file_is_rejected_with_line_and_column(tmp_path: Path, text: str, place: str, reason: str) -> None:
    error = read_error(written(tmp_path, text))
    assert (error.source, error.place) == ("thing.yaml", place)
    # libyaml and the Python parser have different messages for some errors.
    assert error.reason.replace("allowed here", "allowed in this context") == reason


def test_nesting_up_to_the_limit_is_accepted(tmp_path: Path) -> None:
    assert "a" in read_document(written(tmp_path, "a: " + "[" * 99 + "b" + "]" * 99))


def test_explicit_tag_with_invalid_value_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match=r"^thing\.yaml: line 1, column 4: 'x' is not a valid int$"):
        read_document(written(tmp_path, "a: !!int x\n"))


def test_overlay_error_has_the_folder_name(tmp_path: Path) -> None:
    error = read_error(written(tmp_path, "- a\n", "overlays/thing.yaml"))
    assert str(error) == "overlays/thing.yaml: an overlay must be a mapping, not a list"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("naftiko: 1.0.0-alpha2 info: label: X capability: consumes: - type: http", id="spaces"),
        pytest.param("naftiko: 1.0.0-alpha2 info: label: X\n\n", id="trailing line break"),
        pytest.param('"naftiko: 1.0.0-alpha2\\ninfo:\\n  label: X\\n  tags: []\\n"', id="JSON string"),
    ],
)
def test_file_without_line_breaks_is_recognized(tmp_path: Path, text: str) -> None:
    error = read_error(written(tmp_path, text))
    assert (error.place, error.reason) == ("line 1", FLATTENED)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: b: c\n", "mapping values are not allowed in this context"),
        ("naftiko: *nowhere\n", "found undefined alias"),
        ("{naftiko: 1, a: {b: 1, c: 2}, d", "did not find expected ',' or '}'"),
        ("a: 1\nb: 2\nc: 3\nd: e: f: g\n", "mapping values are not allowed in this context"),
    ],
)
def test_other_invalid_yaml_is_not_reported_as_missing_line_breaks(tmp_path: Path, text: str, reason: str) -> None:
    message = read_error(written(tmp_path, text)).reason
    assert message != FLATTENED
    if hasattr(yaml, "CSafeLoader"):
        assert message.startswith(reason)


def test_json_on_one_line_is_accepted(tmp_path: Path) -> None:
    assert read_document(written(tmp_path, '{"naftiko": "1", "a": {"b": [1]}}')) == {"naftiko": "1", "a": {"b": [1]}}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_utf_16_and_utf_32_are_rejected(tmp_path: Path, encoding: str) -> None:
    error = read_error(written(tmp_path, "naftiko: 1\n".encode(encoding)))
    assert str(error) == "thing.yaml: the file is UTF-16 or UTF-32; save it as UTF-8"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff", "line 1, column 1: the byte 0xff is not valid UTF-8; save the file as UTF-8"),
        (
            "é: 1\nlabel: ü".encode() + b"\xfc",
            "line 2, column 9: the byte 0xfc is not valid UTF-8; save the file as UTF-8",
        ),
        (b'a: "b\x00c"\n', "line 1, column 6: the control character U+0000 is not allowed in YAML; remove it"),
        (
            "a: é\nb: \x1b[0m".encode(),
            "line 2, column 4: the control character U+001B is not allowed in YAML; remove it",
        ),
    ],
)
def test_invalid_bytes_and_control_characters_are_rejected_with_position(
    tmp_path: Path, data: bytes, message: str
) -> None:
    assert str(read_error(written(tmp_path, data))) == f"thing.yaml: {message}"


@pytest.mark.parametrize("text", ["\ufeffa: 1\r\nb: é\r\n", "a: 1\nb: é\n", "a: 1\rb: é\r"])
def test_byte_order_mark_and_other_line_breaks_are_accepted(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert read_document(path) == {"a": 1, "b": "é"}
    assert read_lines(path).line_of(("b",)) == 2


@pytest.mark.parametrize(("size", "is_read"), [(50, True), (51, False)])
def test_file_above_the_size_limit_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, is_read: bool
) -> None:
    monkeypatch.setattr(documents, "MAX_FILE_BYTES", 50)
    path = written(tmp_path, "a: b".ljust(size))
    if is_read:
        assert read_document(path) == {"a": "b"}
    else:
        assert str(read_error(path)) == "thing.yaml: the file is larger than 50 bytes"


def test_missing_file_is_reported(tmp_path: Path) -> None:
    assert str(read_error(tmp_path / "gone.yaml")) == "gone.yaml: No such file or directory"


TEXT = """\
# One thing.
naftiko: 1.0.0-alpha2
shared: &shared
  one: 1
  two: 2
info:
  display: Thing
  <<: *shared
  two: 3
capability:
  consumes:
  - namespace: things
    auth: {type: bearer}
    resources:
    - name: first
      path: /first
    - name: second
      operations: [{name: get}, {name: list,
        method: GET}]
  - plain text
  keyed:
    one: {path: /one}
    two:
      path: /two
list:
- [a, b]
-
  name: [no text]
"""


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    return read_lines(written(tmp_path, TEXT))


CONSUMES = ("capability", "consumes")


@pytest.mark.parametrize(
    ("place", "line"),
    [
        pytest.param((), 2, id="document"),
        pytest.param(("naftiko",), 2, id="key"),
        pytest.param(CONSUMES, 11, id="nested key"),
        pytest.param((*CONSUMES, 0), 12, id="item by index"),
        pytest.param((*CONSUMES, 0, "resources", 1, "operations", 1, "method"), 19, id="nested item"),
        pytest.param((*CONSUMES, 0, "resources", 1, "operations", 0, "name"), 18, id="flow style"),
        pytest.param((*CONSUMES, 1), 20, id="item that is a string"),
        pytest.param(("capability", "keyed", "two", "path"), 24, id="keyed mapping by key"),
        pytest.param(("capability", "keyed", 1, "path"), 24, id="keyed mapping by index"),
        pytest.param(("capability", "keyed", 0), 22, id="first entry of a keyed mapping"),
        pytest.param((*CONSUMES, 0, "authentication", "type"), 13, id="keyword in another spelling"),
        pytest.param(("info", "label"), 7, id="keyword in an old spelling"),
        pytest.param(("info", "one"), 4, id="merged entry"),
        pytest.param(("info", "two"), 9, id="merged and replaced entry"),
        pytest.param(("info", 0), 4, id="index of a merged entry"),
        pytest.param(("info", 2), 7, id="index of an entry after merged ones"),
        pytest.param(("list", 0, 1), 26, id="list in a list"),
    ],
)
def test_line_of_existing_place(lines: Lines, place: Any, line: int) -> None:
    assert lines.line_of(place) == line
    assert lines.depth_of(place) == len(place)


@pytest.mark.parametrize(
    ("place", "line", "depth"),
    [
        (("gone",), 2, 0),
        (("info", "gone", "more"), 6, 1),
        ((*CONSUMES, "gone"), 11, 2),
        ((*CONSUMES, 7, "path"), 11, 2),
        ((*CONSUMES, 0, "resources", 0, "operations"), 15, 5),
        ((*CONSUMES, 1, "name"), 20, 3),
        (("capability", "keyed", 5), 21, 2),
        (("naftiko", "more"), 2, 1),
        (("list", "no text"), 25, 1),
    ],
)
def test_line_of_missing_place_is_that_of_the_innermost_existing_part(
    lines: Lines, place: Any, line: int, depth: int
) -> None:
    assert lines.line_of(place) == line
    assert lines.depth_of(place) == depth


def test_merged_entries_have_the_order_of_the_data(tmp_path: Path) -> None:
    path = written(tmp_path, "a: &a {x: 1}\nb: &b\n  y: 2\n  x: 3\nc:\n  z: 4\n  <<: [*a, *b]\n")
    lines, data = read_lines(path), read_document(path)
    assert list(data["c"].items()) == [("y", 2), ("x", 1), ("z", 4)]
    assert [lines.line_of(("c", number)) for number in range(3)] == [3, 1, 6]


def test_lines_of_tools_in_a_builtin_file() -> None:
    path = Path(__file__).parents[2] / "capabilities" / "render-workflow-tasks-beta.yaml"
    lines, written_lines = read_lines(path), path.read_text().splitlines()
    tools = read_document(path)["capability"]["exposes"][1]["tools"]
    assert len(tools) == 7
    for number, tool in enumerate(tools):
        line = lines.line_of(("capability", "exposes", 1, "tools", number))
        assert written_lines[line - 1].strip() == f"- name: {tool['name']}"
        line = lines.line_of(("capability", "exposes", 1, "tools", number, "call"))
        assert written_lines[line - 1].strip() == f"call: {tool['call']}"
