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
from mcp_taskruns.loading.files import builtin_capabilities, capability_files, capability_folders, orphan_overlays
from mcp_taskruns.loading.loader import load, load_capability, load_tools

BUILTIN = [
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


def load_error(path: Path) -> str:
    with pytest.raises(CapabilityError) as caught:
        load_capability(path)
    return str(caught.value)


def test_builtin_files_are_loaded_in_name_order_without_folders() -> None:
    assert [path.name for path in capability_files([])] == BUILTIN
    assert [tool.prefix for tool in load_tools([])] == ["inngest"] * 9 + ["posthog"] * 22 + ["render"] * 9 + [
        "runway"
    ] * 4


def test_builtin_files_and_overlays_have_the_same_names() -> None:
    overlays = builtin_capabilities() / "overlays"
    assert sorted(path.name for path in overlays.iterdir()) == BUILTIN


def test_builtin_files_of_an_installed_package_are_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "mcp_taskruns"
    (package / "capabilities").mkdir(parents=True)
    monkeypatch.setattr(folders, "__file__", str(package / "loading" / "files.py"))
    assert builtin_capabilities() == package / "capabilities"
    (package / "capabilities").rmdir()
    assert builtin_capabilities() == tmp_path / "site-packages" / "capabilities"


def test_overlay_is_applied_to_the_file_of_its_name(tmp_path: Path) -> None:
    written(tmp_path, THING)
    written(tmp_path, "overlay: 2\nprefix: other", "overlays/thing.yaml")
    written(tmp_path, "- not used", "overlays/unused.yaml")
    assert [tool.name for tool in load_tools([tmp_path])] == ["other-list-things"]


def test_source_includes_the_overlay(tmp_path: Path) -> None:
    path = written(tmp_path, THING)
    assert load_capability(path).source == "thing.yaml"
    written(tmp_path, "overlay: 2\ninfo: {label: Thing}", "overlays/thing.yaml")
    assert load_capability(path).source == "thing.yaml with overlays/thing.yaml"
    assert load_capability(path, overlays=False).source == "thing.yaml"


def test_overlays_can_be_disabled(tmp_path: Path) -> None:
    written(tmp_path, THING)
    written(tmp_path, "overlay: 2\nprefix: other", "overlays/thing.yaml")
    assert [tool.name for tool in load_tools([tmp_path], overlays=False)] == ["thing-list-things"]


def test_builtin_files_load_without_overlays() -> None:
    bare, refined = load_tools([], overlays=False), load_tools([])
    declared = [tool for tool in refined if not (tool.derived or tool.operation.needs)]
    assert [tool.declared_name for tool in bare] == [tool.declared_name for tool in declared]
    assert "posthog-api-managing-task-runs-each-2" in {tool.name for tool in bare}


def test_tool_names_can_be_those_of_the_files() -> None:
    names = {tool.name for tool in load_tools([], names="spec")}
    assert {"run-task", "start-task-run", "cancel-delete-task"} <= names
    # Two providers have a tool of this name.
    assert {"render-list-task-runs", "posthog-list-task-runs", "runway-wait-for-run"} <= names
    assert len(names) == 44


def test_only_yaml_and_yml_files_are_capability_files(tmp_path: Path) -> None:
    for name in ["b.yml", "a.yaml", "c.json", "d.yaml.bak", "notes.txt"]:
        written(tmp_path, THING, name)
    (tmp_path / "folder.yaml").mkdir()
    assert [path.name for path in capability_files([tmp_path])] == ["a.yaml", "b.yml"]


def test_files_and_folders_keep_their_order(tmp_path: Path) -> None:
    first, second = written(tmp_path / "z", THING, "one.txt"), written(tmp_path / "a", THING)
    assert capability_files([str(first), tmp_path / "a"]) == [first, second]


def test_tilde_is_expanded_to_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = written(tmp_path / "mine", THING)
    assert capability_files(["~/mine"]) == capability_files([Path("~/mine/thing.yaml")]) == [path]


def test_orphan_overlays_are_those_without_a_capability_file(tmp_path: Path) -> None:
    written(tmp_path, THING)
    for name in ("thing.yaml", "b.yaml", "a.yml", "notes.txt"):
        written(tmp_path, "overlay: 2\nprefix: other", f"overlays/{name}")
    (tmp_path / "a.yml").mkdir()
    overlays = tmp_path / "overlays"
    assert orphan_overlays([str(tmp_path)]) == [overlays / "a.yml", overlays / "b.yaml"]
    assert orphan_overlays([tmp_path / "thing.yaml"]) == []
    assert orphan_overlays([]) == []


@pytest.mark.parametrize("exists", [True, False])
def test_missing_and_empty_folders_are_rejected(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "empty"
    if exists:
        folder.mkdir()
    with pytest.raises(CapabilityError) as caught:
        load_tools([folder])
    reason = "the folder has no capability files (*.yaml)" if exists else "no such file or folder"
    assert str(caught.value) == f"{folder}: {reason}"


@pytest.mark.parametrize(
    ("scalar", "value"),
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
def test_plain_scalars_follow_yaml_1_2(tmp_path: Path, scalar: str, value: Any) -> None:
    capability = loaded(tmp_path, f"naftiko: 1.0.0-alpha2\nextra: [{scalar}]\n")
    # 1, 1.0 and True are equal, but their representations differ.
    assert repr(capability.model_extra) == repr({"extra": [value]})


def test_parameter_may_be_named_on(tmp_path: Path) -> None:
    written(tmp_path, THING.replace("name: limit", "name: on"))
    (tool,) = load_tools([tmp_path])
    assert list(tool.input_schema["properties"]) == ["on", "result_path"]


def test_aliases_and_merge_keys_are_expanded(tmp_path: Path) -> None:
    capability = loaded(tmp_path, "naftiko: '1'\na: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n")
    assert capability.model_extra == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "thing.yaml: the file is empty", id="empty"),
        pytest.param("# only a comment\n", "thing.yaml: the file is empty", id="only a comment"),
        pytest.param("- a\n", "thing.yaml: a capability file must be a mapping, not a list", id="list"),
        pytest.param("text", "thing.yaml: a capability file must be a mapping, not a scalar", id="scalar"),
        pytest.param(
            "info: {}\n",
            "thing.yaml: naftiko: the format's version is missing; is this a capability file?",
            id="no version",
        ),
        pytest.param(
            "naftiko: 1\ninfo:\n  label: a: b\n",
            "thing.yaml: line 3, column 11: mapping values are not allowed in this context",
            id="invalid YAML",
        ),
        pytest.param(
            "naftiko: 1.0.0-alpha2 info: label: X",
            f"thing.yaml: line 1: {documents.FLATTENED}",
            id="without line breaks",
        ),
        pytest.param(
            "naftiko: 1\na: 1\nb: 2\na: 3\n",
            "thing.yaml: line 4, column 1: duplicate key 'a'",
            id="duplicate key",
        ),
        pytest.param(
            "naftiko: 1\nx:\n- y: {a: 1, 'a': 2}\n",
            "thing.yaml: line 3, column 13: duplicate key 'a'",
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
            "the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed here",
            id="unknown tag",
        ),
        pytest.param(
            "naftiko: 1\nbinds:\n- {{KEY}}: x\n",
            "thing.yaml: line 3, column 3: a key must be a string; quote a value that begins with {{",
            id="key in braces without quotes",
        ),
        pytest.param(
            "naftiko: 1\nvalue: {{KEY}}\n",
            "thing.yaml: line 2, column 9: a key must be a string; quote a value that begins with {{",
            id="value in braces without quotes",
        ),
        pytest.param(
            "naftiko: 1\n\n? [a, b]\n: c\n",
            "thing.yaml: line 3, column 3: a key must be a string; quote a value that begins with {{",
            id="list as a key",
        ),
        pytest.param(
            "naftiko: 1\na: !!int x\n", "thing.yaml: line 2, column 4: 'x' is not a valid int", id="invalid int"
        ),
        pytest.param(
            "naftiko: 1\na: !!float x\n", "thing.yaml: line 2, column 4: 'x' is not a valid float", id="invalid float"
        ),
        pytest.param(
            "naftiko: 1\na: !!bool x\n", "thing.yaml: line 2, column 4: 'x' is not a valid bool", id="invalid bool"
        ),
        pytest.param(
            "naftiko: 1\na: !!int ''\n", "thing.yaml: line 2, column 4: '' is not a valid int", id="empty int"
        ),
        pytest.param(
            "naftiko: 1\na: !!float ''\n", "thing.yaml: line 2, column 4: '' is not a valid float", id="empty float"
        ),
        pytest.param(
            "naftiko: 1\na: !!timestamp x\n",
            "thing.yaml: line 2, column 4: the tag 'tag:yaml.org,2002:timestamp' is not allowed here",
            id="timestamp tag",
        ),
        pytest.param(
            "naftiko: 1\na: !!timestamp 2026-13-45\n",
            "thing.yaml: line 2, column 4: the tag 'tag:yaml.org,2002:timestamp' is not allowed here",
            id="invalid timestamp",
        ),
        pytest.param(
            "naftiko: 1\na: !!str [b]\n",
            "thing.yaml: line 2, column 4: the tag 'tag:yaml.org,2002:str' is not allowed here",
            id="list with string tag",
        ),
        pytest.param(
            "naftiko: *nowhere\n", "thing.yaml: line 1, column 10: found undefined alias", id="undefined alias"
        ),
        pytest.param(
            "naftiko: 1\ncapability:\n  consumes:\n  - baseUri: [a]\n",
            "thing.yaml: capability.consumes[0].baseUri: must be text",
            id="wrong type",
        ),
        pytest.param(
            "naftiko: 1\ncapability:\n  consumes:\n  - resources:\n    - operations:\n      - {}\n",
            "thing.yaml: capability.consumes[0].resources[0].operations[0].name: is missing",
            id="missing name",
        ),
        pytest.param(
            "naftiko: " + "9" * 5_000,
            f"thing.yaml: line 1, column 10: '{'9' * 40}' is not a valid int",
            id="huge number",
        ),
    ],
)
def test_invalid_file_is_rejected_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    # libyaml and the Python parser have different messages for some errors.
    assert load_error(path).replace("found undefined alias 'nowhere'", "found undefined alias") == message


@pytest.mark.parametrize("data", [b'naftiko: "\xff"\n', b'naftiko: "a\x00b"\n', b"\xff\xfen\x00"])
def test_binary_file_is_rejected(tmp_path: Path, data: bytes) -> None:
    assert load_error(written(tmp_path, data)).startswith("thing.yaml: ")


BOMB = "naftiko: 1\na0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]\n" for number in range(1, 10)
)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BOMB, id="alias bomb"),
        pytest.param("naftiko: 1\na: &a [*a]\n", id="recursive list"),
        pytest.param("naftiko: 1\na: &a {b: *a}\n", id="recursive mapping"),
        pytest.param("naftiko: 1\na: " + "[" * 500 + "]" * 500, id="nested lists"),
        pytest.param("naftiko: 1\n" + "".join(" " * level + "a:\n" for level in range(200)), id="nested mappings"),
    ],
)
def test_alias_bombs_and_deep_nesting_are_rejected(tmp_path: Path, text: str) -> None:
    assert load_error(written(tmp_path, text)).endswith("too many or too deeply nested values")


def test_nesting_beyond_the_parser_recursion_limit_is_rejected(tmp_path: Path) -> None:
    assert load_error(written(tmp_path, "naftiko: 1\na: " + "[" * 5_000 + "]" * 5_000)).startswith("thing.yaml: ")


@pytest.mark.parametrize(("size", "message"), [(50, "the format's version is missing"), (51, "larger than 50 bytes")])
def test_file_above_the_size_limit_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, message: str
) -> None:
    monkeypatch.setattr(documents, "MAX_FILE_BYTES", 50)
    assert message in load_error(written(tmp_path, "a: b".ljust(size)))


def test_missing_file_and_directory_are_rejected(tmp_path: Path) -> None:
    assert load_error(tmp_path / "gone.yaml") == "gone.yaml: No such file or directory"
    (tmp_path / "folder.yaml").mkdir()
    assert load_error(tmp_path / "folder.yaml") == "folder.yaml: Is a directory"


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root and Windows read every file")
def test_file_without_read_permission_is_rejected(tmp_path: Path) -> None:
    path = written(tmp_path, THING)
    path.chmod(0)
    assert load_error(path) == "thing.yaml: Permission denied"


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("- a\n", "overlays/thing.yaml: an overlay must be a mapping, not a list"),
        ("a: 1\na: 2\n", "overlays/thing.yaml: line 2, column 1: duplicate key 'a'"),
        ("a: b: c\n", "overlays/thing.yaml: line 1, column 5: mapping values are not allowed in this context"),
        ("", "overlays/thing.yaml: the file is empty"),
        (
            "overlay: 2\nprefix: {{x}}\n",
            "overlays/thing.yaml: line 2, column 10: a key must be a string; quote a value that begins with {{",
        ),
    ],
)
def test_invalid_overlay_is_rejected_with_its_own_name(tmp_path: Path, overlay: str, message: str) -> None:
    path = written(tmp_path, THING)
    written(tmp_path, overlay, "overlays/thing.yaml")
    assert load_error(path) == message


def test_overlay_of_another_version_is_rejected(tmp_path: Path) -> None:
    path = written(tmp_path, THING)
    written(tmp_path, "prefix: other", "overlays/thing.yaml")
    assert load_error(path).startswith("overlays/thing.yaml: overlay: the version of the overlay language is missing")


def test_load_tools_raises_for_the_first_invalid_file(tmp_path: Path) -> None:
    written(tmp_path, THING, "a.yaml")
    written(tmp_path, "- wrong", "b.yaml")
    with pytest.raises(CapabilityError, match=r"^b\.yaml: "):
        load_tools([tmp_path])


INVALID_YAML = "naftiko: 1.0.0-alpha2\ninfo: a: b\n"
INVALID_SHAPE = "naftiko: 1.0.0-alpha2\ncapability: {consumes: [{resources: 5}]}\n"
INVALID_RUNS = """\
overlay: 2
capability:
  consumes:
    things:
      runs:
        read: {operation: nowhere, run_id_argument: id}
        fields: {id: $.id, status: $.status}
        statuses: {running: [on]}
"""


def thing(tag: str, namespace: str = "things") -> str:
    """Return the capability file with the tag of another provider."""
    return (
        THING.replace("[Thing]", f"[{tag}]")
        .replace("namespace: things", f"namespace: {namespace}")
        .replace("call: things.", f"call: {namespace}.")
    )


def names(*folders: Path) -> list[str]:
    return [tool.name for tool in load(folders).tools]


def urls(tools: Sequence[Tool]) -> dict[str, str]:
    """Return the URL that each tool requests by the name of the tool."""
    return {tool.name: build_request(tool.operation, {}, {}).url for tool in tools}


@pytest.mark.parametrize(
    ("text", "overlay", "message"),
    [
        pytest.param(
            INVALID_YAML,
            None,
            "bad.yaml: line 2, column 8: mapping values are not allowed in this context",
            id="invalid YAML",
        ),
        pytest.param("", None, "bad.yaml: the file is empty", id="empty"),
        pytest.param("- a\n", None, "bad.yaml: a capability file must be a mapping, not a list", id="list"),
        pytest.param(
            "info: {}\n",
            None,
            "bad.yaml: naftiko: the format's version is missing; is this a capability file?",
            id="no version",
        ),
        pytest.param(
            INVALID_SHAPE,
            None,
            "bad.yaml: capability.consumes[0].resources: must be a list, or a mapping keyed by name",
            id="invalid shape",
        ),
        pytest.param(
            THING,
            "overlay: 2\nprefix: [\n",
            "overlays/bad.yaml: line 3, column 1: did not find expected node content",
            id="overlay with invalid YAML",
        ),
        pytest.param(
            THING,
            "overlay: 2\nprefix: [a]\n",
            "overlays/bad.yaml: prefix: must be text",
            id="overlay of an invalid shape",
        ),
        pytest.param(
            thing("Other"),
            INVALID_RUNS,
            "bad.yaml with overlays/bad.yaml: capability.consumes.runs.read: no tool calls the operation `nowhere`",
            id="runs of an unknown operation",
        ),
        pytest.param(
            thing("Other"),
            INVALID_RUNS.replace("nowhere", "list").replace("id}\n", "limit}\n        status_hints: 5\n", 1),
            "overlays/bad.yaml: capability.consumes.things.runs.status_hints: must be a mapping",
            id="runs of an invalid shape",
        ),
        pytest.param(
            thing("Other"),
            INVALID_RUNS.replace("nowhere", "list").replace("id}\n", "limit}\n        runs_in: {no: $}\n", 1),
            "bad.yaml with overlays/bad.yaml: capability.consumes.runs.runs_in.no: no tool calls the operation `no`",
            id="runs in the response of an unknown operation",
        ),
    ],
)
def test_invalid_file_is_a_problem_and_does_not_affect_other_files(
    tmp_path: Path, text: str, overlay: str | None, message: str
) -> None:
    written(tmp_path, thing("Before"), "a.yaml")
    written(tmp_path, text, "bad.yaml")
    written(tmp_path, thing("Later"), "c.yaml")
    if overlay is not None:
        written(tmp_path, overlay, "overlays/bad.yaml")
    found = load([tmp_path])
    assert [tool.name for tool in found.tools] == ["before-list-things", "later-list-things"]
    # libyaml and the Python parser have different messages for some errors.
    messages = [
        re.sub(
            "expected the node content, but found '<stream end>'", "did not find expected node content", str(problem)
        )
        for problem in found.problems
    ]
    assert messages == [message]


def test_every_invalid_file_is_reported_with_its_name(tmp_path: Path) -> None:
    written(tmp_path, INVALID_YAML, "a.yaml")
    written(tmp_path, THING, "b.yaml")
    written(tmp_path, INVALID_RUNS, "overlays/b.yaml")
    written(tmp_path, INVALID_SHAPE, "c.yaml")
    written(tmp_path, thing("Good"), "d.yaml")
    found = load([tmp_path])
    assert {problem.source for problem in found.problems} == {"a.yaml", "b.yaml with overlays/b.yaml", "c.yaml"}
    assert len(found.problems) == 3
    assert [tool.name for tool in found.tools] == ["good-list-things"]


def test_only_invalid_files_give_problems_and_no_tools(tmp_path: Path) -> None:
    written(tmp_path, INVALID_YAML, "a.yaml")
    written(tmp_path, INVALID_SHAPE, "b.yaml")
    found = load([tmp_path])
    assert found.tools == ()
    assert [problem.source for problem in found.problems] == ["a.yaml", "b.yaml"]


def test_invalid_overlay_is_ignored_when_overlays_are_disabled(tmp_path: Path) -> None:
    written(tmp_path, THING)
    written(tmp_path, "overlay: 2\nprefix: [\n", "overlays/thing.yaml")
    assert len(load([tmp_path]).problems) == 1
    assert load([tmp_path], overlays=False).problems == ()


UNCOMPILABLE = THING.replace("baseUri: https://api.example", "errors: [{says: '('}]")


@pytest.mark.parametrize(
    "text",
    [INVALID_YAML, INVALID_SHAPE, "", UNCOMPILABLE],
    ids=["invalid YAML", "invalid shape", "empty", "compile error"],
)
def test_previous_version_replaces_a_file_that_became_invalid(tmp_path: Path, text: str) -> None:
    written(tmp_path, thing("One") + REST_SIDE, "one.yaml")
    written(tmp_path, thing("Two") + REST_SIDE, "two.yaml")
    before = load([tmp_path], rest=True)
    assert before.problems == ()
    written(tmp_path, text, "two.yaml")
    previous = before.capabilities
    for _ in range(2):  # also when it is loaded again
        found = load([tmp_path], rest=True, previous=previous)
        previous = found.capabilities
        assert (found.tools, found.rest_tools) == (before.tools, before.rest_tools)
        assert [problem.source for problem in found.problems] == ["two.yaml"]
    written(tmp_path, thing("Fixed"), "two.yaml")
    fixed = load([tmp_path], rest=True, previous=previous)
    assert ([tool.prefix for tool in fixed.tools], fixed.problems) == (["one", "fixed"], ())
    assert [tool.prefix for tool in fixed.rest_tools] == ["one"]


@pytest.mark.parametrize("text", [INVALID_YAML, UNCOMPILABLE])
def test_invalid_file_without_a_previous_version_is_not_served(tmp_path: Path, text: str) -> None:
    written(tmp_path, thing("One"), "one.yaml")
    before = load([tmp_path])
    written(tmp_path, text, "two.yaml")
    found = load([tmp_path], previous=before.capabilities)
    assert [tool.prefix for tool in found.tools] == ["one"]
    assert [problem.source for problem in found.problems] == ["two.yaml"]
    assert list(found.capabilities) == [tmp_path / "one.yaml"]


def test_previous_version_of_a_removed_file_is_not_served(tmp_path: Path) -> None:
    written(tmp_path, thing("One"), "one.yaml")
    path = written(tmp_path, thing("Two"), "two.yaml")
    before = load([tmp_path])
    path.unlink()
    found = load([tmp_path], previous=before.capabilities)
    assert [tool.prefix for tool in found.tools] == ["one"]
    written(tmp_path, INVALID_YAML, "two.yaml")
    assert [tool.prefix for tool in load([tmp_path], previous=found.capabilities).tools] == ["one"]


def test_previous_version_replaces_a_file_whose_overlay_became_invalid(tmp_path: Path) -> None:
    written(tmp_path, THING)
    written(tmp_path, "overlay: 2\nprefix: refined\n", "overlays/thing.yaml")
    before = load([tmp_path])
    written(tmp_path, INVALID_RUNS, "overlays/thing.yaml")
    found = load([tmp_path], previous=before.capabilities)
    assert [tool.prefix for tool in found.tools] == ["refined"]
    assert [problem.source for problem in found.problems] == ["thing.yaml with overlays/thing.yaml"]


def test_unexpected_exception_in_one_file_does_not_affect_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(given: Capability, *_: object) -> tuple[Tool, ...]:
        return () if given.source == "good.yaml" else (1 // 0,)  # type: ignore[return-value]  # it never returns

    monkeypatch.setattr(compiler, "compile_run_tools", failing)
    written(tmp_path, THING, "bad.yaml")
    written(tmp_path, thing("Good"), "good.yaml")
    found = load([tmp_path])
    assert [tool.prefix for tool in found.tools] == ["good"]
    assert [str(problem) for problem in found.problems] == [
        "bad.yaml: cannot be compiled because of a bug in this server: "
        "ZeroDivisionError('integer division or modulo by zero')"
    ]


def test_only_the_invalid_one_of_two_files_with_one_name_is_skipped(tmp_path: Path) -> None:
    written(tmp_path / "one", thing("One"))
    written(tmp_path / "two", UNCOMPILABLE)
    found = load([tmp_path / "one", tmp_path / "two"])
    assert [problem.source for problem in found.problems] == ["thing.yaml"]
    assert [tool.prefix for tool in found.tools] == ["one"]


@pytest.mark.parametrize("folders_", [["b.yaml", "."], [".", "b.yaml"], [".", "."], ["./b.yaml", "a.yaml", "b.yaml"]])
def test_file_listed_with_its_folder_is_loaded_once(tmp_path: Path, folders_: list[str]) -> None:
    written(tmp_path, thing("One"), "a.yaml")
    written(tmp_path, thing("Two"), "b.yaml")
    (tmp_path / "inner").mkdir()
    for way in (tmp_path, tmp_path / "inner" / ".."):
        found = load([tmp_path / folders_[0], *(way / name for name in folders_[1:])])
        assert [tool.name for tool in found.tools] == ["one-list-things", "two-list-things"]


def test_rest_tools_are_compiled_on_request_only(tmp_path: Path) -> None:
    written(tmp_path, THING + REST_SIDE)
    assert load([tmp_path]).rest_tools == ()
    (tool,) = load([tmp_path], rest=True).rest_tools
    assert tool.route == ("GET", "/v1/things", "thing.yaml")
    assert load([tmp_path], rest=True).tools == load([tmp_path]).tools


def test_file_with_rest_adapter_only_has_rest_tools(tmp_path: Path) -> None:
    written(tmp_path, THING.partition("  exposes:")[0] + "  exposes:\n" + REST_SIDE)
    found = load([tmp_path], rest=True)
    assert (found.tools, len(found.rest_tools), found.problems) == ((), 1, ())


def test_invalid_file_is_reported_once_with_rest(tmp_path: Path) -> None:
    written(tmp_path, INVALID_SHAPE, "a.yaml")
    written(tmp_path, THING + REST_SIDE, "b.yaml")
    written(tmp_path, INVALID_RUNS, "overlays/b.yaml")
    written(tmp_path, thing("Good") + REST_SIDE, "c.yaml")
    found = load([tmp_path], rest=True)
    assert [problem.source for problem in found.problems] == ["a.yaml", "b.yaml with overlays/b.yaml"]
    assert [tool.prefix for tool in (*found.tools, *found.rest_tools)] == ["good", "good"]


def test_base_uri_override_applies_to_all_files_with_the_namespace(tmp_path: Path) -> None:
    written(tmp_path, thing("One", "shared"), "a.yaml")
    written(tmp_path, thing("Two", "shared"), "b.yaml")
    written(tmp_path, thing("Three", "other"), "c.yaml")
    found = load([tmp_path], base_uris={"shared": "https://given.example/api", "unused": "https://x.example"})
    assert urls(found.tools) == {
        "one-list-things": "https://given.example/api/things",
        "two-list-things": "https://given.example/api/things",
        "three-list-things": "https://api.example/things",
    }


@pytest.mark.parametrize("base_uri", ["''", "'{host}'", "/relative", "'${HOST}'", "'https://{host}/v1'"])
def test_base_uri_override_replaces_an_invalid_base_uri(tmp_path: Path, base_uri: str) -> None:
    written(tmp_path, THING.replace("baseUri: https://api.example", f"baseUri: {base_uri}"))
    with pytest.raises(NotConfigured) as caught:
        urls(load([tmp_path]).tools)
    assert re.search("THING_BASE_URL.*--base-uri things=", caught.value.to_line())
    given = load([tmp_path], base_uris={"things": "https://given.example/"})
    assert urls(given.tools) == {"thing-list-things": "https://given.example/things"}


def test_base_uri_override_applies_to_rest_tools(tmp_path: Path) -> None:
    written(tmp_path, THING + REST_SIDE)
    (tool,) = load([tmp_path], base_uris={"things": "https://given.example"}, rest=True).rest_tools
    assert list(urls([tool]).values()) == ["https://given.example/things"]


def test_tool_names_do_not_depend_on_other_files(tmp_path: Path) -> None:
    for number, tag in enumerate(["Acme", "Beta", "Gamma"]):
        written(tmp_path, thing(tag), f"{number}.yaml")
    alone = [name for number in range(3) for name in names(tmp_path / f"{number}.yaml")]
    assert alone == ["acme-list-things", "beta-list-things", "gamma-list-things"]
    assert names(tmp_path) == alone


def test_colliding_tool_name_of_the_later_file_gets_a_digest(tmp_path: Path) -> None:
    first, second = written(tmp_path, THING, "a.yaml"), written(tmp_path, THING, "b.yaml")
    other = written(tmp_path, thing("Other"), "c.yaml")
    kept, suffixed, another = names(tmp_path)
    assert (kept, another) == (*names(first), *names(other)) == ("thing-list-things", "other-list-things")
    assert re.fullmatch("thing-list-things-[0-9a-f]{6}", suffixed)
    assert names(second) == ["thing-list-things"]
    # The digest depends on the file name only, not on other files.
    assert names(first, second) == [kept, suffixed]
    written(tmp_path, thing("More"), "aa.yaml")
    assert names(tmp_path) == [kept, "more-list-things", suffixed, another]


def test_colliding_tool_names_of_several_files_get_distinct_digests(tmp_path: Path) -> None:
    for number in range(5):
        written(tmp_path, THING, f"{number}.yaml")
    found = names(tmp_path)
    assert len(set(found)) == 5
    assert all(re.fullmatch("thing-list-things-[0-9a-f]{6}", name) for name in found[1:])


def test_files_of_one_name_in_two_folders_have_distinct_tool_names(tmp_path: Path) -> None:
    written(tmp_path / "one", THING)
    written(tmp_path / "two", THING)
    first, second = names(tmp_path / "one", tmp_path / "two")
    assert first == "thing-list-things"
    assert second != first
    assert second.startswith("thing-list-things-")


def test_duplicate_tool_name_in_one_file_is_numbered(tmp_path: Path) -> None:
    twice = THING + "    - {name: list-things, call: things.list}\n"
    written(tmp_path, twice, "a.yaml")
    written(tmp_path, twice, "b.yaml")
    found = names(tmp_path)
    assert found[:2] == ["thing-list-things", "thing-list-things-2"]
    assert re.fullmatch("thing-list-things-[0-9a-f]{6}", found[2])
    assert len(set(found)) == 4


def test_tools_keep_the_order_of_files_and_folders(tmp_path: Path) -> None:
    for place, tag in [("z/b.yaml", "One"), ("z/a.yaml", "Two"), ("a/c.yml", "Three"), ("a/c.yaml", "Four")]:
        written(tmp_path, thing(tag), place)
    assert [tool.prefix for tool in load([tmp_path / "z", tmp_path / "a"]).tools] == ["two", "one", "four", "three"]


def test_overlays_apply_to_files_in_their_own_folder(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        written(tmp_path / folder, THING)
        written(tmp_path / folder, f"overlay: 2\nprefix: {folder}", "overlays/thing.yaml")
    assert names(tmp_path / "one", tmp_path / "two") == ["one-list-things", "two-list-things"]


def test_capability_folders_are_those_that_contain_the_files(tmp_path: Path) -> None:
    one, two = written(tmp_path / "one", THING), written(tmp_path / "two", THING)
    assert capability_folders([one, str(two.parent), one.parent]) == [one.parent, two.parent]
    assert capability_folders([]) == [builtin_capabilities()]
