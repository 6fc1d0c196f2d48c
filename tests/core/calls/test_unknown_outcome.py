"""The tool that shows whether a write was carried out."""

from dataclasses import replace

import pytest

from mcp_taskruns.core.calls.errors import READ_HINT, REPEAT_HINT, WRITE_HINT
from mcp_taskruns.core.calls.unknown_outcome import changes_something, find_reader, with_reader, write_hint
from mcp_taskruns.core.model.operation import ArgumentReference, BaseUri
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import UpstreamError
from mcp_taskruns.loading.loader import load_tools

TOOLS = {tool.name: tool for tool in load_tools(())}


@pytest.mark.parametrize(
    ("tool", "reader"),
    [
        ("render-run-task", "render-list-task-runs"),
        ("render-cancel-task-run", "render-retrieve-task-run"),
        ("inngest-cancel-function-run", "inngest-get-function-run-status"),
        ("posthog-create-task-run", "posthog-list-task-runs"),
        ("posthog-start-task-run", "posthog-retrieve-task-run"),
        ("posthog-relay-run-message-slack", "posthog-retrieve-task-run"),
        ("posthog-prepare-direct-uploads-task-run", "posthog-retrieve-task-run"),
        ("runway-cancel-delete-task", "runway-retrieve-task-status-and-output"),
    ],
)
def test_reader_has_the_same_path_or_the_longest_part_of_it(tool: str, reader: str) -> None:
    assert find_reader(TOOLS[tool], TOOLS.values()) == reader


@pytest.mark.parametrize("name", [name for name, tool in TOOLS.items() if changes_something(tool)])
def test_every_tool_that_changes_something_has_a_reader(name: str) -> None:
    reader = TOOLS[find_reader(TOOLS[name], TOOLS.values())]
    assert not changes_something(reader)
    assert reader.prefix == TOOLS[name].prefix


def test_reader_is_a_tool_that_is_served() -> None:
    served = [tool for name, tool in TOOLS.items() if name != "posthog-retrieve-task-run"]
    assert find_reader(TOOLS["posthog-start-task-run"], served) == "posthog-list-task-runs"
    assert find_reader(TOOLS["posthog-start-task-run"], []) == ""


def test_reader_belongs_to_the_same_provider() -> None:
    def other(tool: Tool) -> Tool:
        return replace(tool, operation=replace(tool.operation, base=BaseUri(("https://other.example",), ())))

    tool = TOOLS["render-run-task"]
    assert find_reader(tool, [other(TOOLS["render-list-task-runs"])]) == ""


def test_reader_has_whole_segments_of_the_path() -> None:
    tool, reader = TOOLS["render-run-task"], TOOLS["render-list-task-runs"]
    path = ("/task-runs-old/", ArgumentReference("id"), "?force=1")
    renamed = replace(tool, operation=replace(tool.operation, path=path))
    assert find_reader(renamed, [reader]) == ""


def test_tool_that_reads_the_root_is_no_reader_of_everything() -> None:
    root = TOOLS["render-list-task-runs"]
    root = replace(root, operation=replace(root.operation, path=("/",)))
    assert find_reader(TOOLS["render-run-task"], [root]) == ""


@pytest.mark.parametrize("hint", [WRITE_HINT, REPEAT_HINT, f"Look. {WRITE_HINT}"])
def test_hint_about_an_unknown_outcome_names_the_reader(hint: str) -> None:
    failure = UpstreamError("lost", hint=hint, outcome_unknown=True)
    assert with_reader(failure, "acme-get-job").hint == f"{hint} To find out, call acme-get-job."


@pytest.mark.parametrize(
    ("hint", "outcome_unknown", "reader"),
    [
        (WRITE_HINT, False, "acme-get-job"),
        (WRITE_HINT, True, ""),
        (READ_HINT, True, "acme-get-job"),
        ("Check with acme-get-log.", True, "acme-get-job"),
    ],
)
def test_other_failures_are_unchanged(hint: str, outcome_unknown: bool, reader: str) -> None:
    failure = UpstreamError("lost", hint=hint, outcome_unknown=outcome_unknown)
    assert with_reader(failure, reader) is failure


def test_hint_of_an_interrupted_write_names_the_reader_if_there_is_one() -> None:
    assert write_hint("acme-get-job") == f"{WRITE_HINT} To find out, call acme-get-job."
    assert write_hint("") == WRITE_HINT


def test_waiting_changes_nothing() -> None:
    assert not changes_something(TOOLS["render-wait-for-run"])
    assert changes_something(TOOLS["posthog-get-sandbox-connection-token"])  # a GET that creates a token
