"""Tools under their files' own names: what speaks of other tools speaks of them by the names that are listed."""

import re
from collections.abc import Iterator

import pytest

from mcp_taskruns.core.compiler import ToolNames, compile_tools
from mcp_taskruns.core.naming import renamed
from mcp_taskruns.core.operation import Tool
from mcp_taskruns.core.text import dump
from mcp_taskruns.loader import load_tools

from . import capability, inputs


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
def test_a_text_speaks_of_tools_by_the_names_under_which_they_are_listed(text: str, shown: str) -> None:
    assert renamed(text, {"thing-list": "list"}) == shown


def told(tool: Tool) -> Iterator[str]:
    """Every text of a tool's that a caller may read."""
    yield tool.description
    yield dump(tool.input_schema)
    yield from (rule.hint for rule in tool.operation.errors)
    yield from (says for _, says in tool.operation.remarks)
    if tool.operation.upload is not None:
        yield tool.operation.upload.advice
    if tool.runs is not None:
        yield from tool.runs.advice.values()


def referring(names: ToolNames) -> Tool:
    """A tool all of whose texts speak of itself."""
    operation = inputs(
        {"name": "id", "in": "query", "description": "As in thing-do-it."},
        remarks=[{"when": {"a": 1}, "says": "Now call thing-do-it."}],
        upload={"files": "f", "prepared": "f", "form": "form", "advice": "Then call thing-do-it."},
    )
    rules = [{"hint": "Call thing-do-it with {id}."}, {"hint": "Set {credential}."}]
    (tool,) = compile_tools(
        [capability(operation, tool={"description": "Not thing-do-it."}, errors=rules)], names=names
    )
    return tool


def test_with_spec_names_every_text_of_a_tool_speaks_of_tools_by_those() -> None:
    prefixed, spec = referring("prefixed"), referring("spec")
    assert (prefixed.name, spec.name) == ("thing-do-it", "do-it")
    assert list(told(spec)) == [text.replace("thing-do-it", "do-it") for text in told(prefixed)]
    assert sum(text.count("thing-do-it") for text in told(prefixed)) == 5
    # What is no text is as it was.
    assert spec.operation.remarks[0][0] == prefixed.operation.remarks[0][0] == ((("a",), (1,)),)
    assert spec.operation.upload is not None
    assert spec.operation.upload.files == ("f",)
    assert [rule.kind for rule in spec.operation.errors] == [None, None]


@pytest.mark.parametrize("before", ["\n", "\t", "→ ", "→"])
def test_a_name_in_an_argument_s_description_is_found_after_any_character(before: str) -> None:
    described = inputs({"name": "id", "in": "query", "description": f"As in:{before}thing-do-it."})
    (tool,) = compile_tools([capability(described)], names="spec")
    assert tool.input_schema["properties"]["id"]["description"] == f"As in:{before}do-it."


@pytest.mark.parametrize("names", ["prefixed", "spec"])
def test_the_shipped_tools_speak_only_of_tools_that_are_listed(names: ToolNames) -> None:
    tools = load_tools([], names=names)
    listed = {tool.name for tool in tools}
    spoken = {
        word
        for tool in tools
        for text in told(tool)
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
