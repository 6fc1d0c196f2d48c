from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_taskruns.errors import CapabilityError
from mcp_taskruns.loading import yaml as documents
from mcp_taskruns.loading.yaml import FLATTENED, Lines, read_document, read_lines


def written(folder: Path, text: str | bytes, name: str = "thing.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path) -> CapabilityError:
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
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4, column 3", "the key 'c' is there twice"),
        ("a:\n- {{KEY}}: x\n", "line 2, column 3", "a key must be text; a value that begins with {{ needs quotes"),
        ("a: 1\nb: " + "[" * 101 + "]" * 101, "line 2, column 103", "too many or too deeply nested values"),
        ("a: &a [*a]\n", "line 1, column 4", "too many or too deeply nested values"),
        ("- a\n", "", "a capability file is a mapping, this is a list"),
        ("some words", "", "a capability file is a mapping, this is a text"),
        ("5", "", "a capability file is a mapping, this is a text"),
    ],
)
def test_a_wrong_file_is_refused_with_the_line_and_the_column(
    tmp_path: Path, text: str, place: str, reason: str
) -> None:
    error = refusal(written(tmp_path, text))
    assert (error.source, error.place) == ("thing.yaml", place)
    # libyaml and the Python parser say some things in other words.
    assert error.reason.replace("allowed here", "allowed in this context") == reason


def test_nesting_up_to_the_bound_is_read(tmp_path: Path) -> None:
    assert "a" in read_document(written(tmp_path, "a: " + "[" * 99 + "b" + "]" * 99))


def test_a_tag_on_what_it_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match=r"^thing\.yaml: line 1, column 4: 'x' cannot be read as int$"):
        read_document(written(tmp_path, "a: !!int x\n"))


def test_an_overlay_is_named_with_its_folder(tmp_path: Path) -> None:
    error = refusal(written(tmp_path, "- a\n", "overlays/thing.yaml"))
    assert str(error) == "overlays/thing.yaml: an overlay is a mapping, this is a list"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("naftiko: 1.0.0-alpha2 info: label: X capability: consumes: - type: http", id="spaces"),
        pytest.param("naftiko: 1.0.0-alpha2 info: label: X\n\n", id="a line break at the end"),
        pytest.param('"naftiko: 1.0.0-alpha2\\ninfo:\\n  label: X\\n  tags: []\\n"', id="a text of JSON"),
    ],
)
def test_a_file_that_is_one_flattened_line_is_told_so(tmp_path: Path, text: str) -> None:
    error = refusal(written(tmp_path, text))
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
def test_another_wrong_file_is_not_told_to_be_flattened(tmp_path: Path, text: str, reason: str) -> None:
    told = refusal(written(tmp_path, text)).reason
    assert told != FLATTENED
    if hasattr(yaml, "CSafeLoader"):
        assert told.startswith(reason)


def test_a_file_of_one_line_may_be_json(tmp_path: Path) -> None:
    assert read_document(written(tmp_path, '{"naftiko": "1", "a": {"b": [1]}}')) == {"naftiko": "1", "a": {"b": [1]}}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_a_file_in_utf_16_or_32_is_told_so(tmp_path: Path, encoding: str) -> None:
    error = refusal(written(tmp_path, "naftiko: 1\n".encode(encoding)))
    assert str(error) == "thing.yaml: the file is UTF-16 or UTF-32, not UTF-8: save it as UTF-8"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\xff", "line 1, column 1: the byte 0xff is not UTF-8: save the file as UTF-8"),
        ("é: 1\nlabel: ü".encode() + b"\xfc", "line 2, column 9: the byte 0xfc is not UTF-8: save the file as UTF-8"),
        (b'a: "b\x00c"\n', "line 1, column 6: the control character U+0000 cannot stand in YAML: take it out"),
        (
            "a: é\nb: \x1b[0m".encode(),
            "line 2, column 4: the control character U+001B cannot stand in YAML: take it out",
        ),
    ],
)
def test_what_is_no_text_is_told_with_its_place(tmp_path: Path, data: bytes, told: str) -> None:
    assert str(refusal(written(tmp_path, data))) == f"thing.yaml: {told}"


@pytest.mark.parametrize("text", ["\ufeffa: 1\r\nb: é\r\n", "a: 1\nb: é\n", "a: 1\rb: é\r"])
def test_byte_order_marks_and_other_line_ends_are_read(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert read_document(path) == {"a": 1, "b": "é"}
    assert read_lines(path).line_of(("b",)) == 2


@pytest.mark.parametrize(("size", "is_read"), [(50, True), (51, False)])
def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, is_read: bool
) -> None:
    monkeypatch.setattr(documents, "MAX_FILE_BYTES", 50)
    path = written(tmp_path, "a: b".ljust(size))
    if is_read:
        assert read_document(path) == {"a": "b"}
    else:
        assert str(refusal(path)) == "thing.yaml: larger than 50 bytes"


def test_a_file_that_is_not_there_is_told_so(tmp_path: Path) -> None:
    assert str(refusal(tmp_path / "gone.yaml")) == "gone.yaml: No such file or directory"


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
        pytest.param((), 2, id="the document"),
        pytest.param(("naftiko",), 2, id="key"),
        pytest.param(CONSUMES, 11, id="key in a key"),
        pytest.param((*CONSUMES, 0), 12, id="item by number"),
        pytest.param((*CONSUMES, "things"), 12, id="item by namespace"),
        pytest.param((*CONSUMES, "things", "resources", "second", "operations", 1, "method"), 19, id="item by name"),
        pytest.param((*CONSUMES, 0, "resources", 1, "operations", "list", "name"), 18, id="in a flow"),
        pytest.param((*CONSUMES, 1), 20, id="item that is text"),
        pytest.param(("capability", "keyed", "two", "path"), 24, id="keyed map by key"),
        pytest.param(("capability", "keyed", 1, "path"), 24, id="keyed map by number"),
        pytest.param(("capability", "keyed", 0), 22, id="first entry of a keyed map"),
        pytest.param((*CONSUMES, 0, "authentication", "type"), 13, id="word in another spelling"),
        pytest.param(("info", "label"), 7, id="word in an old spelling"),
        pytest.param(("info", "one"), 4, id="merged"),
        pytest.param(("info", "two"), 9, id="merged and replaced"),
        pytest.param(("info", 0), 4, id="number of a merged entry"),
        pytest.param(("info", 2), 7, id="number of an entry after merged ones"),
        pytest.param(("list", 0, 1), 26, id="list in a list"),
    ],
)
def test_what_is_there_has_the_line_on_which_it_begins(lines: Lines, place: Any, line: int) -> None:
    assert lines.line_of(place) == line
    assert lines.depth_of(place) == len(place)


@pytest.mark.parametrize(
    ("place", "line", "depth"),
    [
        (("gone",), 2, 0),
        (("info", "gone", "more"), 6, 1),
        ((*CONSUMES, "gone"), 11, 2),
        ((*CONSUMES, 7, "path"), 11, 2),
        ((*CONSUMES, "things", "resources", "first", "operations"), 15, 5),
        ((*CONSUMES, 1, "name"), 20, 3),
        (("capability", "keyed", 5), 21, 2),
        (("naftiko", "more"), 2, 1),
        (("list", "no text"), 25, 1),
    ],
)
def test_what_is_not_there_has_the_line_of_the_innermost_part_around_it(
    lines: Lines, place: Any, line: int, depth: int
) -> None:
    assert lines.line_of(place) == line
    assert lines.depth_of(place) == depth


def test_several_merged_mappings_have_the_order_of_their_data(tmp_path: Path) -> None:
    path = written(tmp_path, "a: &a {x: 1}\nb: &b\n  y: 2\n  x: 3\nc:\n  z: 4\n  <<: [*a, *b]\n")
    lines, data = read_lines(path), read_document(path)
    assert list(data["c"].items()) == [("y", 2), ("x", 1), ("z", 4)]
    assert [lines.line_of(("c", number)) for number in range(3)] == [3, 1, 6]


def test_each_value_of_a_shipped_file_has_its_line() -> None:
    path = Path(__file__).parents[2] / "capabilities" / "render-workflow-tasks-beta.yaml"
    lines, written_lines = read_lines(path), path.read_text().splitlines()
    tools = read_document(path)["capability"]["exposes"][1]["tools"]
    assert len(tools) == 7
    for number, tool in enumerate(tools):
        line = lines.line_of(("capability", "exposes", 1, "tools", number))
        assert written_lines[line - 1].strip() == f"- name: {tool['name']}"
        line = lines.line_of(("capability", "exposes", "render-workflow-tasks-beta-mcp", "tools", tool["name"], "call"))
        assert written_lines[line - 1].strip() == f"call: {tool['call']}"
