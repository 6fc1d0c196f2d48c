"""Names of tools: distinct, and the same wherever something speaks of them."""

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mcp_taskruns.core.format.compiler import ToolNames, compile_tools
from mcp_taskruns.core.format.names import (
    file_of,
    list_by_declared_names,
    make_unique,
    number_duplicates,
    rename_tools,
    slug,
    title_of,
)
from mcp_taskruns.core.format.spec import Capability, parse_capability
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.loading.loader import load_tools
from tests.core.documents import capability, document, inputs, tool_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Call thing-list.", "Call list."),
        ("thing-list or thing-get", "list or thing-get"),
        ("(thing-list)", "(list)"),
        ("thing-list-more, my-thing-list", "thing-list-more, my-thing-list"),
        ("Thing-list", "Thing-list"),
        ("", ""),
    ],
)
def test_tool_names_in_a_text_are_replaced(text: str, shown: str) -> None:
    assert rename_tools(text, {"thing-list": "list"}) == shown


def texts_of(tool: Tool) -> Iterator[str]:
    """Every text of a tool's that a caller may read."""
    yield tool.description
    yield dump(tool.input_schema)
    yield from (rule.hint for rule in tool.operation.errors)
    yield from (text for _, text in tool.operation.notes)
    if tool.operation.upload is not None:
        yield tool.operation.upload.hint
    if tool.runs is not None:
        yield from tool.runs.status_hints.values()


def referring(names: ToolNames) -> Tool:
    """A tool all of whose texts speak of itself."""
    operation = inputs(
        {"name": "id", "in": "query", "description": "As in thing-do-it."},
        notes=[{"when": {"$.a": 1}, "text": "Now call thing-do-it."}],
        upload={"files": "$.f", "prepared": "$.f", "form_field": "form", "hint": "Then call thing-do-it."},
    )
    rules = {"one": {"hint": "Call thing-do-it with {id}."}, "two": {"hint": "Set {credential}."}}
    (tool,) = compile_tools(
        [capability(operation, tool={"description": "Not thing-do-it."}, errors=rules)], names=names
    )
    return tool


def test_every_text_uses_declared_names_if_those_are_listed() -> None:
    prefixed, spec = referring("prefixed"), referring("spec")
    assert (prefixed.name, spec.name) == ("thing-do-it", "do-it")
    assert list(texts_of(spec)) == [text.replace("thing-do-it", "do-it") for text in texts_of(prefixed)]
    assert sum(text.count("thing-do-it") for text in texts_of(prefixed)) == 5
    # What is no text is as it was.
    assert spec.operation.notes[0][0] == prefixed.operation.notes[0][0] == ((("a",), (1,)),)
    assert spec.operation.upload is not None
    assert spec.operation.upload.files == ("f",)
    assert [rule.kind for rule in spec.operation.errors] == [None, None]


@pytest.mark.parametrize("before", ["\n", "\t", "→ ", "→"])
def test_tool_name_after_any_character_is_replaced(before: str) -> None:
    described = inputs({"name": "id", "in": "query", "description": f"As in:{before}thing-do-it."})
    (tool,) = compile_tools([capability(described)], names="spec")
    assert tool.input_schema["properties"]["id"]["description"] == f"As in:{before}do-it."


@pytest.mark.parametrize("names", ["prefixed", "spec"])
def test_builtin_texts_name_only_listed_tools(names: ToolNames) -> None:
    tools = load_tools([], names=names)
    listed = {tool.name for tool in tools}
    spoken = {
        word
        for tool in tools
        for text in texts_of(tool)
        for word in re.findall(r"\b(?:render|inngest|posthog|runway)-[a-z-]*[a-z]", text)
    }
    assert spoken <= listed
    if names == "prefixed":
        # From all of the places: a description, an error's hint, a remark, what follows an upload, a run's advice
        assert {
            "render-wait-for-run",
            "posthog-retrieve-task-run",
            "posthog-start-task-run",
            "posthog-finalize-direct-uploads-task-run",
        } <= spoken


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("list-task_runs", "List task runs"),
        ("LIST-TASK", "List task"),
        ("--x--", "X"),
        ("ölen", "Ölen"),
        ("", ""),
    ],
)
def test_title_follows_from_the_name(name: str, title: str) -> None:
    assert title_of(name) == title


@pytest.mark.parametrize(
    ("source", "file"),
    [("f.yaml", "f.yaml"), ("f.yaml with overlays/f.yaml", "f.yaml"), ("overlays/f.yaml", "overlays/f.yaml"), ("", "")],
)
def test_file_of_a_source_excludes_the_overlay(source: str, file: str) -> None:
    assert file_of(source) == file


def tools(*names: str, provider: str = "thing") -> list[Tool]:
    """Tools of these names, distinguished by their places."""
    made = tool_of()
    return [replace(made, name=name, title=f"{provider} {place}") for place, name in enumerate(names)]


def mark(file: str) -> str:
    return hashlib.sha256(file.encode()).hexdigest()[:6]


B, C = mark("b.yaml"), mark("c.yaml")
LONG = "n" * 64


@pytest.mark.parametrize(
    ("groups", "named"),
    [
        ([], []),
        ([["x", "y"], ["z"]], [["x", "y"], ["z"]]),
        ([[], ["x"]], [[], ["x"]]),
        ([["x", "x", "x"]], [["x", "x-2", "x-3"]]),
        ([["x", "x", "x-2"]], [["x", "x-2", "x-2-2"]]),
        ([["x", "x-2", "x"]], [["x", "x-2", "x-3"]]),
        ([["x"], ["x"]], [["x"], [f"x-{B}"]]),
        ([["x"], ["y", "x", "z"]], [["x"], ["y", f"x-{B}", "z"]]),
        ([["x"], ["x", "x"]], [["x"], [f"x-{B}", f"x-{B}-2"]]),
        ([["x", "x"], ["x", "x-2"]], [["x", "x-2"], [f"x-{B}", f"x-2-{B}"]]),
        ([["x"], ["x"], ["x"]], [["x"], [f"x-{B}"], [f"x-{C}"]]),
        ([["x", f"x-{B}"], ["x"]], [["x", f"x-{B}"], [f"x-{B}-2"]]),
        ([["x"], ["x", f"x-{B}"]], [["x"], [f"x-{B}", f"x-{B}-2"]]),
        ([[LONG, LONG]], [[LONG, LONG[:62] + "-2"]]),
        ([[LONG], [LONG, LONG]], [[LONG], [f"{LONG[:57]}-{B}", f"{LONG[:55]}-{B}-2"]]),
    ],
)
def test_later_of_two_equal_names_gets_a_number_or_a_digest(groups: list[list[str]], named: list[list[str]]) -> None:
    files = ["a.yaml", "b.yaml with overlays/b.yaml", "c.yaml"][: len(groups)]
    given = [tools(*names, provider=file) for names, file in zip(groups, files, strict=True)]
    made = make_unique(given, files)
    assert [[tool.name for tool in group] for group in made] == named
    assert all(len(tool.name) <= 64 for group in made for tool in group)
    # Nothing but the names, and each tool in its place
    assert [[replace(tool, name="") for tool in group] for group in made] == [
        [replace(tool, name="") for tool in group] for group in given
    ]


@pytest.mark.parametrize(
    ("tag", "name", "listed"),
    [
        ("Anthropic", "create-message", "anthropic-create-message"),
        ("Anthropic", "anthropic-create-message", "anthropic-create-message"),
        ("Anthropic", "anthropic_create_message", "anthropic_create_message"),
        ("Anthropic", "Anthropic Create Message", "Anthropic-Create-Message"),
        ("GitHub", "GitHubListRepos", "GitHubListRepos"),
        ("Google Cloud Run", "google-cloud-run-list-jobs", "google-cloud-run-list-jobs"),
        ("Google Cloud Run", "google_cloud_run_list_jobs", "google_cloud_run_list_jobs"),
        ("Google Cloud Run", "google-list-jobs", "google-cloud-run-google-list-jobs"),
        ("Fal.ai", "fal.ai-submit", "fal-ai-submit"),
        ("Box", "box", "box"),
        # The prefix is only the beginning of a longer word.
        ("Box", "boxes-list", "box-boxes-list"),
        ("Box", "box2-list", "box-box2-list"),
        ("Box", "list-box-files", "box-list-box-files"),
    ],
)
def test_prefix_is_not_doubled(tag: str, name: str, listed: str) -> None:
    given = document(tool={"name": name})
    given["info"]["tags"] = [tag]
    (tool,) = compile_tools([parse_capability(given, "f.yaml")])
    assert tool.name == listed


def test_prefix_of_an_overlay_is_not_doubled() -> None:
    given = document(tool={"name": "acme-list", "rename": "acme-list-things"}) | {"prefix": "acme"}
    (tool,) = compile_tools([parse_capability(given, "f.yaml")])
    assert tool.name == "acme-list-things"


def of_namespace(namespace: str, *names: str, source: str = "f.yaml", tag: str = "Acme") -> Capability:
    given = document(namespace=namespace)
    given["info"]["tags"] = [tag]
    given["capability"]["exposes"][0]["tools"] = [{"name": name, "call": f"{namespace}.op"} for name in names]
    return parse_capability(given, source)


def listed(*capabilities: Capability) -> list[str]:
    return [tool.name for tool in compile_tools(capabilities)]


JOBS = of_namespace("jobs", "list", "get-job", source="1.yaml")
USERS = of_namespace("acme-users", "list", "acme-list", "get-user", source="2.yaml")


def test_name_that_another_file_has_gets_the_namespace_of_its_file() -> None:
    assert listed(JOBS) == ["acme-list", "acme-get-job"]
    assert listed(USERS) == ["acme-list", "acme-list-2", "acme-get-user"]
    assert listed(JOBS, USERS) == [*listed(JOBS), "acme-users-list", "acme-users-list-2", "acme-get-user"]


def test_adding_files_changes_no_name_of_the_files_before_them() -> None:
    more = [
        of_namespace("teams", "list", "users-list", source="3.yaml"),  # the name that a tool of 2.yaml has already
        of_namespace("acme", "list", source="4.yaml"),  # a namespace that distinguishes nothing
        of_namespace("jobs", "list", source="5.yaml"),
        of_namespace("other", "list", source="6.yaml", tag="Other"),
    ]
    files = [JOBS, USERS, *more]
    names = [listed(*files[: number + 1]) for number in range(len(files))]
    assert all(fewer == more[: len(fewer)] for fewer, more in itertools.pairwise(names))
    digests = [hashlib.sha256(f"{number}.yaml".encode()).hexdigest()[:6] for number in (4, 5)]
    assert names[-1][5:] == [
        "acme-teams-list",
        "acme-teams-users-list",
        f"acme-list-{digests[0]}",
        f"acme-list-{digests[1]}",
        "other-list",
    ]


def test_own_names_of_a_file_do_not_depend_on_its_longer_names() -> None:
    # The longer name of its `list` would be that of its other tool.
    second = of_namespace("users", "list", "users-list", source="2.yaml")
    digest = hashlib.sha256(b"2.yaml").hexdigest()[:6]
    assert listed(second) == ["acme-list", "acme-users-list"]
    assert listed(JOBS, second)[2:] == [f"acme-list-{digest}", "acme-users-list"]


def test_longer_name_has_at_most_64_characters() -> None:
    name = "l" * 50
    long = of_namespace("namespace-of-many-words", name, source="2.yaml")
    first, second = listed(of_namespace("jobs", name, source="1.yaml"), long)
    assert (first, len(second)) == (f"acme-{name}", 64)
    assert second.startswith("acme-namespace-of-many-words-lll")


def test_each_group_of_tools_needs_a_source() -> None:
    with pytest.raises(ValueError, match="zip"):
        make_unique([tools("x"), tools("y")], ["a.yaml"])


def test_adding_a_file_renames_no_other_tool() -> None:
    def names(*files: str) -> dict[str, list[str]]:
        groups = make_unique([tools(f"of-{file}", "x", "x") for file in files], files)
        return {file: [tool.name for tool in group] for file, group in zip(files, groups, strict=True)}

    few, many = names("a.yaml", "c.yaml"), names("a.yaml", "b.yaml", "c.yaml")
    assert {file: many[file] for file in few} == few
    assert few == {"a.yaml": ["of-a.yaml", "x", "x-2"], "c.yaml": ["of-c.yaml", f"x-{C}", f"x-{C}-2"]}


def test_names_of_several_files_of_one_provider_are_unique() -> None:
    first, second = (capability(source=f"{name}.yaml") for name in "ab")
    assert [tool.name for tool in compile_tools([first, second])] == ["thing-do-it", f"thing-do-it-{B}"]
    assert [tool.name for tool in compile_tools([first, second], names="spec")] == ["thing-do-it", f"thing-do-it-{B}"]


def listed_by_spec(*given: Tool) -> list[str]:
    return [tool.name for tool in list_by_declared_names(given)]


def test_only_unique_declared_names_are_listed() -> None:
    a, b, c = tools("p-list", "q-list", "q-get it")
    given = [replace(a, declared_name="list"), replace(b, declared_name="list"), replace(c, declared_name="get it")]
    assert listed_by_spec(*given) == ["p-list", "q-list", "get-it"]
    assert listed_by_spec(*given[1:]) == ["list", "get-it"]


def test_schema_values_that_are_not_text_are_unchanged() -> None:
    schema = {"properties": {"a": {"minimum": 1, "enum": ["thing-do-it", 5, None]}}, "required": ["a"], "x": True}
    (tool,) = list_by_declared_names([replace(tool_of(), input_schema=schema)])
    assert tool.input_schema == {
        "properties": {"a": {"minimum": 1, "enum": ["do-it", 5, None]}},
        "required": ["a"],
        "x": True,
    }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        (["a", "b"], ["a", "b"]),
        (["a", "a", "a"], ["a", "a-2", "a-3"]),
        (["a", "a-2", "a"], ["a", "a-2", "a-3"]),
        (["a", "a", "a-2"], ["a", "a-2", "a-2-2"]),
        ([LONG, LONG], [LONG, LONG[:62] + "-2"]),
    ],
)
def test_later_of_two_equal_names_is_numbered(names: list[str], expected: list[str]) -> None:
    assert number_duplicates(names) == expected


@pytest.mark.parametrize(
    ("text", "short"),
    [("Render", "render"), ("  Google Cloud.Run! ", "google-cloud-run"), ("größe", "gr-e"), ("日本", "")],
)
def test_slug_has_lower_case_letters_digits_and_hyphens(text: str, short: str) -> None:
    assert slug(text) == short
