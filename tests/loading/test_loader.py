import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mcp_taskruns.core.calls.request import build_request
from mcp_taskruns.core.format import compiler
from mcp_taskruns.core.format.spec import Capability
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import CapabilityError, NotConfigured
from mcp_taskruns.loading import files as folders
from mcp_taskruns.loading import yaml as documents
from mcp_taskruns.loading.files import capability_files, capability_folders, orphan_overlays, shipped_capabilities
from mcp_taskruns.loading.loader import Known, load, load_capability, load_tools

SHIPPED = [
    "inngest-runs.yaml",
    "posthog-task-runs.yaml",
    "render-workflow-tasks-beta.yaml",
    "video-generation-tasks.yaml",
]

THING = """\
naftiko: 1.0.0-alpha2
info: {tags: [Thing]}
capability:
  consumes:
  - namespace: things
    baseUri: https://api.example
    resources:
    - path: /things
      operations:
      - name: list
        inputParameters:
        - {name: limit, in: query}
  exposes:
  - type: mcp
    namespace: mcp
    tools:
    - {name: list-things, call: things.list}
"""

REST_SIDE = """\
  - type: rest
    namespace: rest
    resources:
    - {path: /v1/things, operations: [{method: GET, name: list, call: things.list}]}
"""


def written(folder: Path, text: str | bytes, name: str = "thing.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def loaded(folder: Path, text: str) -> Capability:
    return load_capability(written(folder, text))


def refusal(path: Path) -> str:
    with pytest.raises(CapabilityError) as caught:
        load_capability(path)
    return str(caught.value)


def test_without_a_folder_the_shipped_files_are_loaded_in_name_order() -> None:
    assert [path.name for path in capability_files([])] == SHIPPED
    assert [tool.prefix for tool in load_tools([])] == ["inngest"] * 4 + ["posthog"] * 20 + ["render"] * 8 + [
        "runway"
    ] * 3


def test_every_shipped_file_has_an_overlay_and_no_overlay_is_alone() -> None:
    overlays = shipped_capabilities() / "overlays"
    assert sorted(path.name for path in overlays.iterdir()) == SHIPPED


def test_the_files_of_an_installed_package_lie_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "mcp_taskruns"
    (package / "capabilities").mkdir(parents=True)
    monkeypatch.setattr(folders, "__file__", str(package / "loading" / "files.py"))
    assert shipped_capabilities() == package / "capabilities"
    (package / "capabilities").rmdir()
    assert shipped_capabilities() == tmp_path / "site-packages" / "capabilities"


def test_an_overlay_beside_its_file_refines_it(tmp_path: Path) -> None:
    written(tmp_path, THING)
    written(tmp_path, "prefix: other", "overlays/thing.yaml")
    written(tmp_path, "- no overlay of this folder", "overlays/unused.yaml")
    assert [tool.name for tool in load_tools([tmp_path])] == ["other-list-things"]


def test_a_file_with_an_overlay_is_named_with_it(tmp_path: Path) -> None:
    path = written(tmp_path, THING)
    assert load_capability(path).source == "thing.yaml"
    written(tmp_path, "info: {label: Thing}", "overlays/thing.yaml")
    assert load_capability(path).source == "thing.yaml with overlays/thing.yaml"
    assert load_capability(path, overlays=False).source == "thing.yaml"


def test_overlays_can_be_left_out(tmp_path: Path) -> None:
    written(tmp_path, THING)
    written(tmp_path, "prefix: other", "overlays/thing.yaml")
    assert [tool.name for tool in load_tools([tmp_path], overlays=False)] == ["thing-list-things"]


def test_the_shipped_files_load_without_their_overlays() -> None:
    bare, refined = load_tools([], overlays=False), load_tools([])
    assert [tool.declared_name for tool in bare] == [tool.declared_name for tool in refined if not tool.is_wait_tool]
    assert "posthog-api-managing-task-runs-each-2" in {tool.name for tool in bare}


def test_names_can_be_those_of_the_files() -> None:
    names = {tool.name for tool in load_tools([], names="spec")}
    assert {"run-task", "start-task-run", "cancel-delete-task"} <= names
    # Two providers have this one.
    assert {"render-list-task-runs", "posthog-list-task-runs", "runway-wait-for-run"} <= names
    assert len(names) == 35


def test_both_endings_are_capability_files_and_others_are_not(tmp_path: Path) -> None:
    for name in ["b.yml", "a.yaml", "c.json", "d.yaml.bak", "notes.txt"]:
        written(tmp_path, THING, name)
    (tmp_path / "folder.yaml").mkdir()
    assert [path.name for path in capability_files([tmp_path])] == ["a.yaml", "b.yml"]


def test_a_file_stands_for_itself_and_folders_keep_their_order(tmp_path: Path) -> None:
    first, second = written(tmp_path / "z", THING, "one.txt"), written(tmp_path / "a", THING)
    assert capability_files([str(first), tmp_path / "a"]) == [first, second]


def test_a_folder_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = written(tmp_path / "mine", THING)
    assert capability_files(["~/mine"]) == capability_files([Path("~/mine/thing.yaml")]) == [path]


def test_an_overlay_without_a_file_is_an_orphan(tmp_path: Path) -> None:
    written(tmp_path, THING)
    for name in ("thing.yaml", "b.yaml", "a.yml", "notes.txt"):
        written(tmp_path, "prefix: other", f"overlays/{name}")
    (tmp_path / "a.yml").mkdir()
    overlays = tmp_path / "overlays"
    assert orphan_overlays([str(tmp_path)]) == [overlays / "a.yml", overlays / "b.yaml"]
    assert orphan_overlays([tmp_path / "thing.yaml"]) == []
    assert orphan_overlays([]) == []


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_capability_files_is_refused(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "empty"
    if there:
        folder.mkdir()
    with pytest.raises(CapabilityError) as caught:
        load_tools([folder])
    reason = "no capability files (*.yaml) here" if there else "there is no such file or folder"
    assert str(caught.value) == f"{folder}: {reason}"


@pytest.mark.parametrize(
    ("written_as", "read"),
    [
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("tRUE", "tRUE"),
        ("'true'", "true"),
        ("2026-05-19", "2026-05-19"),
        ("2026-05-19T12:30:00Z", "2026-05-19T12:30:00Z"),
        ("null", None),
        ("~", None),
        ("5", 5),
        ("1.5", 1.5),
        ("1.0.0", "1.0.0"),
        ("12:30", "12:30"),
        ("190:20:30.15", "190:20:30.15"),
        ("010", "010"),
        ("08", "08"),
        ("0b1", "0b1"),
        ("1_000", "1_000"),
        ("0x1F", 31),
        ("0", 0),
        ("-5", -5),
        ("+5", 5),
        (".5", 0.5),
        ("-1.5e+3", -1500.0),
        ("1e3", 1000.0),
        ("1e", "1e"),
        ("-", "-"),
        ("=", "="),
    ],
)
def test_scalars_are_those_of_yaml_1_2(tmp_path: Path, written_as: str, read: Any) -> None:
    capability = loaded(tmp_path, f"naftiko: 1.0.0-alpha2\nextra: [{written_as}]\n")
    # The forms tell 1 from 1.0 and True, which are equal.
    assert repr(capability.model_extra) == repr({"extra": [read]})


def test_a_parameter_may_be_called_on(tmp_path: Path) -> None:
    written(tmp_path, THING.replace("name: limit", "name: on"))
    (tool,) = load_tools([tmp_path])
    assert list(tool.input_schema["properties"]) == ["on"]


def test_aliases_and_merge_keys_are_written_out(tmp_path: Path) -> None:
    capability = loaded(tmp_path, "naftiko: '1'\na: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n")
    assert capability.model_extra == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "thing.yaml: the file is empty", id="empty"),
        pytest.param("# only a comment\n", "thing.yaml: the file is empty", id="only a comment"),
        pytest.param("- a\n", "thing.yaml: a capability file is a mapping, this is a list", id="list"),
        pytest.param("text", "thing.yaml: a capability file is a mapping, this is a text", id="text"),
        pytest.param(
            "info: {}\n",
            "thing.yaml: naftiko: the format's version is missing; is this a capability file?",
            id="no version",
        ),
        pytest.param(
            "naftiko: 1\ninfo:\n  label: a: b\n",
            "thing.yaml: line 3, column 11: mapping values are not allowed in this context",
            id="no YAML",
        ),
        pytest.param(
            "naftiko: 1.0.0-alpha2 info: label: X",
            f"thing.yaml: line 1: {documents.FLATTENED}",
            id="flattened to one line",
        ),
        pytest.param(
            "naftiko: 1\na: 1\nb: 2\na: 3\n",
            "thing.yaml: line 4, column 1: the key 'a' is there twice",
            id="duplicate key",
        ),
        pytest.param(
            "naftiko: 1\nx:\n- y: {a: 1, 'a': 2}\n",
            "thing.yaml: line 3, column 13: the key 'a' is there twice",
            id="duplicate key inside",
        ),
        pytest.param(
            "naftiko: 1\n---\nnaftiko: 2\n",
            "thing.yaml: line 2, column 1: but found another document",
            id="two documents",
        ),
        pytest.param(
            "naftiko: !!python/object/apply:os.system [true]\n",
            "thing.yaml: line 1, column 10: "
            "the tag 'tag:yaml.org,2002:python/object/apply:os.system' cannot stand here",
            id="tag",
        ),
        pytest.param(
            "naftiko: 1\nbinds:\n- {{KEY}}: x\n",
            "thing.yaml: line 3, column 3: a key must be text; a value that begins with {{ needs quotes",
            id="braces without quotes",
        ),
        pytest.param(
            "naftiko: 1\nvalue: {{KEY}}\n",
            "thing.yaml: line 2, column 9: a key must be text; a value that begins with {{ needs quotes",
            id="value in braces without quotes",
        ),
        pytest.param(
            "naftiko: 1\n\n? [a, b]\n: c\n",
            "thing.yaml: line 3, column 3: a key must be text; a value that begins with {{ needs quotes",
            id="list as a key",
        ),
        pytest.param(
            "naftiko: 1\na: !!int x\n", "thing.yaml: line 2, column 4: 'x' cannot be read as int", id="no int"
        ),
        pytest.param(
            "naftiko: 1\na: !!float x\n", "thing.yaml: line 2, column 4: 'x' cannot be read as float", id="no float"
        ),
        pytest.param(
            "naftiko: 1\na: !!bool x\n", "thing.yaml: line 2, column 4: 'x' cannot be read as bool", id="no bool"
        ),
        pytest.param(
            "naftiko: 1\na: !!int ''\n", "thing.yaml: line 2, column 4: '' cannot be read as int", id="empty int"
        ),
        pytest.param(
            "naftiko: 1\na: !!float ''\n", "thing.yaml: line 2, column 4: '' cannot be read as float", id="empty float"
        ),
        pytest.param(
            "naftiko: 1\na: !!timestamp x\n",
            "thing.yaml: line 2, column 4: the tag 'tag:yaml.org,2002:timestamp' cannot stand here",
            id="no timestamp",
        ),
        pytest.param(
            "naftiko: 1\na: !!timestamp 2026-13-45\n",
            "thing.yaml: line 2, column 4: the tag 'tag:yaml.org,2002:timestamp' cannot stand here",
            id="no month",
        ),
        pytest.param(
            "naftiko: 1\na: !!str [b]\n",
            "thing.yaml: line 2, column 4: the tag 'tag:yaml.org,2002:str' cannot stand here",
            id="list as text",
        ),
        pytest.param("naftiko: *nowhere\n", "thing.yaml: line 1, column 10: found undefined alias", id="no anchor"),
        pytest.param(
            "naftiko: 1\ncapability:\n  consumes:\n  - baseUri: [a]\n",
            "thing.yaml: capability.consumes[0].baseUri: has to be text",
            id="wrong type",
        ),
        pytest.param(
            "naftiko: 1\ncapability:\n  consumes:\n  - resources:\n    - operations:\n      - {}\n",
            "thing.yaml: capability.consumes[0].resources[0].operations[0].name: is missing",
            id="missing name",
        ),
        pytest.param(
            "naftiko: " + "9" * 5_000,
            f"thing.yaml: line 1, column 10: '{'9' * 40}' cannot be read as int",
            id="huge number",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    # libyaml and the Python parser say some things in other words.
    told = refusal(path).replace("found undefined alias 'nowhere'", "found undefined alias")
    assert told == message


@pytest.mark.parametrize("data", [b'naftiko: "\xff"\n', b'naftiko: "a\x00b"\n', b"\xff\xfen\x00"])
def test_a_file_that_is_not_text_is_refused(tmp_path: Path, data: bytes) -> None:
    assert refusal(written(tmp_path, data)).startswith("thing.yaml: ")


BOMB = "naftiko: 1\na0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]\n" for number in range(1, 10)
)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BOMB, id="alias bomb"),
        pytest.param("naftiko: 1\na: &a [*a]\n", id="alias of itself"),
        pytest.param("naftiko: 1\na: &a {b: *a}\n", id="mapping in itself"),
        pytest.param("naftiko: 1\na: " + "[" * 500 + "]" * 500, id="nested lists"),
        pytest.param("naftiko: 1\n" + "".join(" " * level + "a:\n" for level in range(200)), id="nested mappings"),
    ],
)
@pytest.mark.timeout(20)
def test_a_file_that_stands_for_far_more_than_it_says_is_refused(tmp_path: Path, text: str) -> None:
    assert refusal(written(tmp_path, text)).endswith("too many or too deeply nested values")


def test_nesting_that_the_parser_cannot_follow_is_refused(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, "naftiko: 1\na: " + "[" * 5_000 + "]" * 5_000)).startswith("thing.yaml: ")


@pytest.mark.parametrize(("size", "told"), [(50, "the format's version is missing"), (51, "larger than 50 bytes")])
def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, told: str
) -> None:
    monkeypatch.setattr(documents, "MAX_FILE_BYTES", 50)
    assert told in refusal(written(tmp_path, "a: b".ljust(size)))


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone.yaml") == "gone.yaml: No such file or directory"
    (tmp_path / "folder.yaml").mkdir()
    assert refusal(tmp_path / "folder.yaml") == "folder.yaml: Is a directory"


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root and Windows read every file")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, THING)
    path.chmod(0)
    assert refusal(path) == "thing.yaml: Permission denied"


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("- a\n", "overlays/thing.yaml: an overlay is a mapping, this is a list"),
        ("a: 1\na: 2\n", "overlays/thing.yaml: line 2, column 1: the key 'a' is there twice"),
        ("a: b: c\n", "overlays/thing.yaml: line 1, column 5: mapping values are not allowed in this context"),
        ("", "overlays/thing.yaml: the file is empty"),
        (
            "prefix: {{x}}\n",
            "overlays/thing.yaml: line 1, column 10: a key must be text; a value that begins with {{ needs quotes",
        ),
    ],
)
def test_a_wrong_overlay_is_refused_by_its_own_name(tmp_path: Path, overlay: str, message: str) -> None:
    path = written(tmp_path, THING)
    written(tmp_path, overlay, "overlays/thing.yaml")
    assert refusal(path) == message


def test_an_overlays_item_whose_name_is_no_text_is_refused_by_the_format(tmp_path: Path) -> None:
    path = written(tmp_path, THING)
    written(tmp_path, "capability: {exposes: [{type: mcp, tools: [{name: [a]}]}]}", "overlays/thing.yaml")
    assert refusal(path) == ("thing.yaml with overlays/thing.yaml: capability.exposes[0].tools[0].name: has to be text")


def test_one_wrong_file_stops_all(tmp_path: Path) -> None:
    written(tmp_path, THING, "a.yaml")
    written(tmp_path, "- wrong", "b.yaml")
    with pytest.raises(CapabilityError, match=r"^b\.yaml: "):
        load_tools([tmp_path])


UNREADABLE = "naftiko: 1.0.0-alpha2\ninfo: a: b\n"
MISSHAPEN = "naftiko: 1.0.0-alpha2\ncapability: {consumes: [{resources: 5}]}\n"
RUNS_OF_NOTHING = """\
capability:
  consumes:
  - namespace: things
    runs: {read: {operation: nowhere, id: id}, shape: {id: id, state: state}, states: {running: [on]}}
"""


def thing(tag: str, namespace: str = "things") -> str:
    """The capability file with another provider's tag."""
    return (
        THING.replace("[Thing]", f"[{tag}]")
        .replace("namespace: things", f"namespace: {namespace}")
        .replace("call: things.", f"call: {namespace}.")
    )


def names(*folders: Path) -> list[str]:
    return [tool.name for tool in load(folders).tools]


def urls(tools: Sequence[Tool]) -> dict[str, str]:
    """What each tool asks, by the tool's name."""
    return {tool.name: build_request(tool.operation, {}, {}).url for tool in tools}


@pytest.mark.parametrize(
    ("text", "overlay", "message"),
    [
        pytest.param(
            UNREADABLE, None, "bad.yaml: line 2, column 8: mapping values are not allowed in this context", id="no YAML"
        ),
        pytest.param("", None, "bad.yaml: the file is empty", id="empty"),
        pytest.param("- a\n", None, "bad.yaml: a capability file is a mapping, this is a list", id="list"),
        pytest.param(
            "info: {}\n",
            None,
            "bad.yaml: naftiko: the format's version is missing; is this a capability file?",
            id="no version",
        ),
        pytest.param(
            MISSHAPEN,
            None,
            "bad.yaml: capability.consumes[0].resources: has to be a list, or a mapping keyed by name",
            id="wrong shape",
        ),
        pytest.param(
            THING,
            "prefix: [\n",
            "overlays/bad.yaml: line 2, column 1: did not find expected node content",
            id="overlay that is no YAML",
        ),
        pytest.param(
            THING,
            "prefix: [a]\n",
            "bad.yaml with overlays/bad.yaml: prefix: has to be text",
            id="overlay of a wrong shape",
        ),
        pytest.param(
            thing("Other"),
            RUNS_OF_NOTHING,
            "bad.yaml with overlays/bad.yaml: capability.consumes.runs.read: no tool calls the operation 'nowhere'",
            id="runs that name nothing",
        ),
        pytest.param(
            thing("Other"),
            RUNS_OF_NOTHING.replace("nowhere", "list").replace("id: id}, shape", "id: limit}, advice: 5, shape"),
            "bad.yaml with overlays/bad.yaml: capability.consumes[0].runs.advice: has to be a mapping",
            id="runs of a wrong shape",
        ),
        pytest.param(
            thing("Other"),
            RUNS_OF_NOTHING.replace("nowhere", "list").replace("id: id}, shape", "id: limit}, found: {no: $}, shape"),
            "bad.yaml with overlays/bad.yaml: capability.consumes.runs.found.no: no tool calls the operation 'no'",
            id="runs that are found in nothing",
        ),
    ],
)
def test_a_bad_file_is_a_problem_and_takes_no_other_down(
    tmp_path: Path, text: str, overlay: str | None, message: str
) -> None:
    written(tmp_path, thing("Before"), "a.yaml")
    written(tmp_path, text, "bad.yaml")
    written(tmp_path, thing("Later"), "c.yaml")
    if overlay is not None:
        written(tmp_path, overlay, "overlays/bad.yaml")
    found = load([tmp_path])
    assert [tool.name for tool in found.tools] == ["before-list-things", "later-list-things"]
    # libyaml and the Python parser say some things in other words.
    told = [
        re.sub(
            "expected the node content, but found '<stream end>'", "did not find expected node content", str(problem)
        )
        for problem in found.problems
    ]
    assert told == [message]


def test_every_bad_file_is_told_and_named(tmp_path: Path) -> None:
    written(tmp_path, UNREADABLE, "a.yaml")
    written(tmp_path, THING, "b.yaml")
    written(tmp_path, RUNS_OF_NOTHING, "overlays/b.yaml")
    written(tmp_path, MISSHAPEN, "c.yaml")
    written(tmp_path, thing("Good"), "d.yaml")
    found = load([tmp_path])
    assert {problem.source for problem in found.problems} == {"a.yaml", "b.yaml with overlays/b.yaml", "c.yaml"}
    assert len(found.problems) == 3
    assert [tool.name for tool in found.tools] == ["good-list-things"]


def test_of_bad_files_alone_there_are_no_tools_and_all_problems(tmp_path: Path) -> None:
    written(tmp_path, UNREADABLE, "a.yaml")
    written(tmp_path, MISSHAPEN, "b.yaml")
    found = load([tmp_path])
    assert found.tools == ()
    assert [problem.source for problem in found.problems] == ["a.yaml", "b.yaml"]


def test_an_overlay_that_is_left_out_is_no_problem(tmp_path: Path) -> None:
    written(tmp_path, THING)
    written(tmp_path, "prefix: [\n", "overlays/thing.yaml")
    assert len(load([tmp_path]).problems) == 1
    assert load([tmp_path], overlays=False).problems == ()


UNCOMPILABLE = THING.replace("baseUri: https://api.example", "errors: [{says: '('}]")


@pytest.mark.parametrize("text", [UNREADABLE, MISSHAPEN, "", UNCOMPILABLE], ids=["YAML", "shape", "empty", "meaning"])
def test_of_a_known_file_that_is_bad_now_the_old_tools_are_served_and_its_problem_is_told(
    tmp_path: Path, text: str
) -> None:
    known = Known()
    written(tmp_path, thing("One") + REST_SIDE, "one.yaml")
    written(tmp_path, thing("Two") + REST_SIDE, "two.yaml")
    before = load([tmp_path], rest=True, known=known)
    assert before.problems == ()
    written(tmp_path, text, "two.yaml")
    for _ in range(2):  # also when it is read again
        found = load([tmp_path], rest=True, known=known)
        assert (found.tools, found.rest_tools) == (before.tools, before.rest_tools)
        assert [problem.source for problem in found.problems] == ["two.yaml"]
    written(tmp_path, thing("Mended"), "two.yaml")
    mended = load([tmp_path], rest=True, known=known)
    assert ([tool.prefix for tool in mended.tools], mended.problems) == (["one", "mended"], ())
    assert [tool.prefix for tool in mended.rest_tools] == ["one"]


@pytest.mark.parametrize("text", [UNREADABLE, UNCOMPILABLE])
def test_of_a_bad_file_that_is_not_known_nothing_is_served(tmp_path: Path, text: str) -> None:
    known = Known()
    written(tmp_path, thing("One"), "one.yaml")
    load([tmp_path], known=known)
    written(tmp_path, text, "two.yaml")
    found = load([tmp_path], known=known)
    assert [tool.prefix for tool in found.tools] == ["one"]
    assert [problem.source for problem in found.problems] == ["two.yaml"]
    assert list(known.capabilities) == [tmp_path / "one.yaml"]


def test_a_known_file_that_is_removed_is_not_known_any_more(tmp_path: Path) -> None:
    known = Known()
    written(tmp_path, thing("One"), "one.yaml")
    path = written(tmp_path, thing("Two"), "two.yaml")
    load([tmp_path], known=known)
    path.unlink()
    assert [tool.prefix for tool in load([tmp_path], known=known).tools] == ["one"]
    written(tmp_path, UNREADABLE, "two.yaml")
    assert [tool.prefix for tool in load([tmp_path], known=known).tools] == ["one"]


def test_a_known_file_whose_overlay_is_bad_now_is_served_as_it_was(tmp_path: Path) -> None:
    known = Known()
    written(tmp_path, THING)
    written(tmp_path, "prefix: refined\n", "overlays/thing.yaml")
    load([tmp_path], known=known)
    written(tmp_path, RUNS_OF_NOTHING, "overlays/thing.yaml")
    found = load([tmp_path], known=known)
    assert [tool.prefix for tool in found.tools] == ["refined"]
    assert [problem.source for problem in found.problems] == ["thing.yaml with overlays/thing.yaml"]


def test_what_nobody_foresaw_in_one_file_takes_no_other_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(given: Capability, *_: object) -> tuple[Tool, ...]:
        return () if given.source == "good.yaml" else (1 // 0,)  # type: ignore[return-value]  # it never returns

    monkeypatch.setattr(compiler, "wait_tools", failing)
    written(tmp_path, THING, "bad.yaml")
    written(tmp_path, thing("Good"), "good.yaml")
    found = load([tmp_path])
    assert [tool.prefix for tool in found.tools] == ["good"]
    assert [str(problem) for problem in found.problems] == [
        "bad.yaml: cannot be compiled, which is a mistake of this server: "
        "ZeroDivisionError('integer division or modulo by zero')"
    ]


def test_of_two_files_of_one_name_the_bad_one_alone_is_left_out(tmp_path: Path) -> None:
    written(tmp_path / "one", thing("One"))
    written(tmp_path / "two", UNCOMPILABLE)
    found = load([tmp_path / "one", tmp_path / "two"])
    assert [problem.source for problem in found.problems] == ["thing.yaml"]
    assert [tool.prefix for tool in found.tools] == ["one"]


@pytest.mark.parametrize("folders_", [["b.yaml", "."], [".", "b.yaml"], [".", "."], ["./b.yaml", "a.yaml", "b.yaml"]])
def test_a_file_that_is_named_together_with_its_folder_is_served_once(tmp_path: Path, folders_: list[str]) -> None:
    written(tmp_path, thing("One"), "a.yaml")
    written(tmp_path, thing("Two"), "b.yaml")
    (tmp_path / "inner").mkdir()
    for way in (tmp_path, tmp_path / "inner" / ".."):
        found = load([tmp_path / folders_[0], *(way / name for name in folders_[1:])])
        assert [tool.name for tool in found.tools] == ["one-list-things", "two-list-things"]


def test_the_rest_side_is_read_only_where_it_is_asked_for(tmp_path: Path) -> None:
    written(tmp_path, THING + REST_SIDE)
    assert load([tmp_path]).rest_tools == ()
    (tool,) = load([tmp_path], rest=True).rest_tools
    assert tool.route == ("GET", "/v1/things", "thing.yaml")
    assert load([tmp_path], rest=True).tools == load([tmp_path]).tools


def test_a_file_without_an_mcp_side_has_a_rest_side_all_the_same(tmp_path: Path) -> None:
    written(tmp_path, THING.partition("  exposes:")[0] + "  exposes:\n" + REST_SIDE)
    found = load([tmp_path], rest=True)
    assert (found.tools, len(found.rest_tools), found.problems) == ((), 1, ())


def test_a_bad_file_is_told_once_with_the_rest_side_too(tmp_path: Path) -> None:
    written(tmp_path, MISSHAPEN, "a.yaml")
    written(tmp_path, THING + REST_SIDE, "b.yaml")
    written(tmp_path, RUNS_OF_NOTHING, "overlays/b.yaml")
    written(tmp_path, thing("Good") + REST_SIDE, "c.yaml")
    found = load([tmp_path], rest=True)
    assert [problem.source for problem in found.problems] == ["a.yaml", "b.yaml with overlays/b.yaml"]
    assert [tool.prefix for tool in (*found.tools, *found.rest_tools)] == ["good", "good"]


def test_the_address_of_a_namespace_can_be_given_for_all_files_that_consume_it(tmp_path: Path) -> None:
    written(tmp_path, thing("One", "shared"), "a.yaml")
    written(tmp_path, thing("Two", "shared"), "b.yaml")
    written(tmp_path, thing("Three", "other"), "c.yaml")
    found = load([tmp_path], base_uris={"shared": "https://given.example/api", "nobody": "https://x.example"})
    assert urls(found.tools) == {
        "one-list-things": "https://given.example/api/things",
        "two-list-things": "https://given.example/api/things",
        "three-list-things": "https://api.example/things",
    }


@pytest.mark.parametrize("written_as", ["''", "'{host}'", "/relative", "'${HOST}'", "'https://{host}/v1'"])
def test_a_given_address_stands_in_for_one_that_is_none(tmp_path: Path, written_as: str) -> None:
    written(tmp_path, THING.replace("baseUri: https://api.example", f"baseUri: {written_as}"))
    with pytest.raises(NotConfigured) as caught:
        urls(load([tmp_path]).tools)
    assert re.search("THING_BASE_URL.*--base-uri things=", caught.value.to_line())
    given = load([tmp_path], base_uris={"things": "https://given.example/"})
    assert urls(given.tools) == {"thing-list-things": "https://given.example/things"}


def test_a_given_address_is_also_that_of_the_rest_side(tmp_path: Path) -> None:
    written(tmp_path, THING + REST_SIDE)
    (tool,) = load([tmp_path], base_uris={"things": "https://given.example"}, rest=True).rest_tools
    assert list(urls([tool]).values()) == ["https://given.example/things"]


def test_names_are_the_same_alone_and_together(tmp_path: Path) -> None:
    for number, tag in enumerate(["Acme", "Beta", "Gamma"]):
        written(tmp_path, thing(tag), f"{number}.yaml")
    alone = [name for number in range(3) for name in names(tmp_path / f"{number}.yaml")]
    assert alone == ["acme-list-things", "beta-list-things", "gamma-list-things"]
    assert names(tmp_path) == alone


def test_of_two_files_with_one_name_the_later_one_alone_is_marked(tmp_path: Path) -> None:
    first, second = written(tmp_path, THING, "a.yaml"), written(tmp_path, THING, "b.yaml")
    other = written(tmp_path, thing("Other"), "c.yaml")
    kept, marked, another = names(tmp_path)
    assert (kept, another) == (*names(first), *names(other)) == ("thing-list-things", "other-list-things")
    assert re.fullmatch("thing-list-things-[0-9a-f]{6}", marked)
    assert names(second) == ["thing-list-things"]
    # The mark is the file's: what else is served does not change it.
    assert names(first, second) == [kept, marked]
    written(tmp_path, thing("More"), "aa.yaml")
    assert names(tmp_path) == [kept, "more-list-things", marked, another]


def test_each_of_several_later_files_has_a_mark_of_its_own(tmp_path: Path) -> None:
    for number in range(5):
        written(tmp_path, THING, f"{number}.yaml")
    found = names(tmp_path)
    assert len(set(found)) == 5
    assert all(re.fullmatch("thing-list-things-[0-9a-f]{6}", name) for name in found[1:])


def test_two_files_of_one_name_in_two_folders_have_distinct_tools(tmp_path: Path) -> None:
    written(tmp_path / "one", THING)
    written(tmp_path / "two", THING)
    first, second = names(tmp_path / "one", tmp_path / "two")
    assert first == "thing-list-things"
    assert second != first
    assert second.startswith("thing-list-things-")


def test_a_name_that_is_twice_in_one_file_is_numbered_there(tmp_path: Path) -> None:
    twice = THING + "    - {name: list-things, call: things.list}\n"
    written(tmp_path, twice, "a.yaml")
    written(tmp_path, twice, "b.yaml")
    found = names(tmp_path)
    assert found[:2] == ["thing-list-things", "thing-list-things-2"]
    assert re.fullmatch("thing-list-things-[0-9a-f]{6}", found[2])
    assert len(set(found)) == 4


def test_tools_are_in_the_order_of_their_files_and_folders(tmp_path: Path) -> None:
    for place, tag in [("z/b.yaml", "One"), ("z/a.yaml", "Two"), ("a/c.yml", "Three"), ("a/c.yaml", "Four")]:
        written(tmp_path, thing(tag), place)
    assert [tool.prefix for tool in load([tmp_path / "z", tmp_path / "a"]).tools] == ["two", "one", "four", "three"]


def test_the_overlays_of_two_folders_refine_their_own_files(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        written(tmp_path / folder, THING)
        written(tmp_path / folder, f"prefix: {folder}", "overlays/thing.yaml")
    assert names(tmp_path / "one", tmp_path / "two") == ["one-list-things", "two-list-things"]


def test_the_folders_are_those_in_which_files_lie(tmp_path: Path) -> None:
    one, two = written(tmp_path / "one", THING), written(tmp_path / "two", THING)
    assert capability_folders([one, str(two.parent), one.parent]) == [one.parent, two.parent]
    assert capability_folders([]) == [shipped_capabilities()]
