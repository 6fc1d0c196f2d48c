"""Which of several operations with one name a tool calls."""

from typing import Any

import pytest

from mcp_taskruns.core.format.compiler import compile_tools
from mcp_taskruns.core.format.spec import parse_capability
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import NotConfigured
from tests.core.documents import Json, document, request_of


def tools_of(operations: list[tuple[str, Json]], tools: list[Json], surface: Any = "mcp") -> tuple[Tool, ...]:
    """Return the tools of a file in which all operations have the name `op`, and all tools call it."""
    given = document()
    given["capability"]["consumes"][0]["resources"] = [
        {"path": path, "operations": [{"name": "op"} | operation]} for path, operation in operations
    ]
    called = [{"name": f"tool-{number}", "call": "things.op"} | tool for number, tool in enumerate(tools)]
    if surface == "rest":
        resources = [{"path": f"/v1/{tool['name']}", "operations": [tool]} for tool in called]
        given["capability"]["exposes"] = [{"type": "rest", "resources": resources}]
    else:
        given["capability"]["exposes"][0]["tools"] = called
    return compile_tools([parse_capability(given, "f.yaml")], surface=surface)


def url_of(tool: Tool, **arguments: Any) -> str:
    return request_of(tool, arguments).url.removeprefix("https://api.example")


DELETES = [
    ("/addon", {"method": "DELETE"}),
    ("/addon/linkers/{linker_key}/values", {"method": "DELETE"}),
    ("/addon/linkers/{linker_key}/values/{id}", {"method": "DELETE"}),
]


@pytest.mark.parametrize("surface", ["mcp", "rest"])
def test_operations_of_one_name_are_called_in_file_order(surface: Any) -> None:
    tools = tools_of(DELETES, [{}, {"with": {"linker_key": "tools.linker_key"}}, {}], surface)
    assert [url_of(tool, linker_key="k", id="v") for tool in tools] == [
        "/addon",
        "/addon/linkers/k/values",
        "/addon/linkers/k/values/v",
    ]


def test_order_wins_over_with_if_the_numbers_are_equal() -> None:
    tools = tools_of([("/a", {}), ("/b/{id}", {})], [{"with": {"id": "tools.id"}}, {"with": {}}])
    assert [url_of(tool, id="7").partition("?")[0] for tool in tools] == ["/a", "/b/7"]


def test_tools_of_several_adapters_are_counted_together() -> None:
    given = document(tool={"name": "first"})
    given["capability"]["consumes"][0]["resources"].append({"path": "/second", "operations": [{"name": "op"}]})
    given["capability"]["exposes"].append({"type": "mcp", "tools": [{"name": "second", "call": "things.op"}]})
    tools = compile_tools([parse_capability(given, "f.yaml")])
    assert [url_of(tool) for tool in tools] == ["/things", "/second"]


def test_several_tools_may_call_one_operation() -> None:
    assert [url_of(tool) for tool in tools_of([("/a", {})], [{}, {}, {}])] == ["/a", "/a", "/a"]


BATCH: tuple[str, Json] = ("/batch", {"method": "POST", "inputParameters": [{"name": "items", "in": "body"}]})


@pytest.mark.parametrize(
    ("given", "path"), [({"items": "tools.items"}, "/batch"), ({"id": "tools.id"}, "/7"), ({}, "/7")]
)
@pytest.mark.parametrize("written", ["/{id}", "/{{id}}", "/{{ id }}"])
def test_with_selects_an_operation_if_the_numbers_differ(written: str, given: Json, path: str) -> None:
    (tool,) = tools_of([(written, {}), BATCH], [{"with": given}])
    assert url_of(tool, id=7) == path


@pytest.mark.parametrize(("given", "path"), [({"id": "tools.id"}, "/things/7"), ({}, "/things")])
def test_exact_match_of_with_wins(given: Json, path: str) -> None:
    (tool,) = tools_of([("/things", {}), ("/things/{id}", {})], [{"with": given}])
    assert url_of(tool, id=7) == path


def test_optional_inputs_may_be_omitted_in_with() -> None:
    inputs = [{"name": "q", "in": "query"}, {"name": "limit", "in": "query"}]
    (tool,) = tools_of([("/a", {"inputParameters": inputs}), ("/b/{id}", {})], [{"with": {"q": "tools.q"}}])
    assert url_of(tool, q="x") == "/a?q=x"


def test_constants_need_not_be_in_with() -> None:
    batch = {"inputParameters": [{"name": "items", "in": "body"}, {"name": "v", "in": "query", "value": "1"}]}
    other = {"inputParameters": [{"name": "q", "in": "query"}]}
    (tool,) = tools_of([("/things", other), ("/batch", batch)], [{"with": {"items": "tools.items"}}])
    assert url_of(tool) == "/batch?v=1"


@pytest.mark.parametrize(
    "given", [{"other": "tools.other"}, {"id": "tools.id", "items": "tools.items"}], ids=["none-fits", "several-fit"]
)
def test_tool_whose_operation_is_unclear_is_listed_and_refused(given: Json) -> None:
    operations = [("/{id}", {"inputParameters": [{"name": "items", "in": "body"}], "method": "DELETE"})] * 2
    (tool,) = tools_of(operations, [{"with": given}])
    assert (tool.name, list(tool.input_schema["properties"])) == ("thing-tool-0", list(given))
    reason = "f.yaml has 2 operations with the name 'things.op', and `with` of 'tool-0' does not select one of them"
    with pytest.raises(NotConfigured, match="does not select one of them") as caught:
        request_of(tool, {"id": "7"})
    assert str(caught.value) == reason
