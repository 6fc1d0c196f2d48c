"""Compilation of routes and conversion of their arguments."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mcp_taskruns.core.model.operation import ArgumentReference, BaseUri, Location, Operation, Parameter
from mcp_taskruns.core.model.tool import Derived, Hints, Tool
from mcp_taskruns.core.rest.arguments import parse_argument
from mcp_taskruns.core.rest.routes import Route, Routes, compile_routes, normalize_name, route_key
from tests.core.documents import Json

TEXT = {"type": "string"}


def tool(
    method: str = "GET",
    path: str = "/v1/runs",
    arguments: Mapping[str, Location] | None = None,
    *,
    name: str = "acme-list-runs",
    prefix: str = "acme",
    source: str = "acme.yaml",
    operation: str = "listruns",
    own: Sequence[str] = (),
    body: Any = None,
    sent_as: Mapping[str, str] | None = None,
) -> Tool:
    """Return the tool of a REST adapter with these arguments; `sent_as` has the provider's names of some."""
    arguments = arguments or {}
    parameters = [
        Parameter((sent_as or {}).get(argument, argument), location, argument)
        for argument, location in arguments.items()
        if location is not Location.BODY
    ]
    return Tool(
        name=name,
        declared_name=name,
        prefix=prefix,
        title=name,
        description=name,
        hints=Hints(True, False, True, True),
        input_schema={"type": "object", "properties": dict.fromkeys((*arguments, *own), TEXT)},
        operation=Operation(operation, prefix, method, BaseUri(None, ()), (path,), tuple(parameters), body),
        server_arguments=frozenset(own),
        route=(method, path, source),
    )


def served(tool: Tool, name: str) -> Tool:
    """Return the same tool as an MCP adapter has it."""
    return replace(tool, name=name, route=None)


def only(routes: Routes) -> Route:
    (route,) = routes.routes
    assert routes.notes == ()
    return route


def paths(routes: Routes) -> list[str]:
    return [f"{route.method} {route.path}" for route in routes.routes]


@pytest.mark.parametrize(
    ("method", "path", "served_as"),
    [
        ("GET", "/v1/runs", "GET /v1/runs"),
        ("get", "/v1/runs", "GET /v1/runs"),
        ("GET", "v1/runs", "GET /v1/runs"),
        ("GET", "/v1/runs/", "GET /v1/runs/"),
        ("POST", "/v1/runs/{id}", "POST /v1/runs/{id}"),
    ],
)
def test_route_has_method_and_path_of_its_file(method: str, path: str, served_as: str) -> None:
    route = only(compile_routes([tool(method, path)], []))
    assert f"{route.method} {route.path}" == served_as
    assert (route.source, route.name, route.shared_path, route.body) == ("acme.yaml", "acme-list-runs", "", "")


def test_tool_without_route_is_not_served() -> None:
    assert compile_routes([replace(tool(), route=None)], []) == Routes()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("taskrunid", "taskRunId", True),
        ("task-id", "task_id", True),
        ("TASK_ID", "taskId", True),
        ("task", "tasks", False),
        ("task.id", "task_id", False),
    ],
)
def test_normalize_name_ignores_case_hyphens_and_underscores(one: str, other: str, same: bool) -> None:
    assert (normalize_name(one) == normalize_name(other)) is same


@pytest.mark.parametrize(
    ("path", "arguments", "sent_as", "variables"),
    [
        ("/v1/{taskRunId}", ["taskRunId"], {}, {"taskRunId": "taskRunId"}),
        ("/v1/{taskrunid}", ["taskRunId"], {}, {"taskrunid": "taskRunId"}),
        ("/v1/{task-id}/{id}", ["id", "task_id"], {}, {"task-id": "task_id", "id": "id"}),
        ("/v1/{ID}", ["id", "iD"], {}, {"ID": "id"}),
        ("/v1/{iD}", ["id", "iD"], {}, {"iD": "iD"}),
        ("/v1/{run-id}", ["which"], {"which": "runId"}, {"run-id": "which"}),
        ("/v1/{run-id}", ["run_id", "which"], {"which": "runId"}, {"run-id": "run_id"}),
        ("/v1/{{ run-id }}.{id}", ["id", "run_id"], {}, {"run-id": "run_id", "id": "id"}),
        ("/v1/{rest.runId}", ["runId"], {}, {"runId": "runId"}),
        ("/v1/{lost}", ["id"], {}, {}),
        ("/v1/runs", ["id"], {}, {}),
    ],
    ids=[
        "equal",
        "case",
        "hyphen",
        "the first",
        "exact",
        "the provider's",
        "ours first",
        "braces",
        "the caller's",
        "none",
        "no variable",
    ],
)
def test_placeholder_is_the_argument_with_its_name(
    path: str, arguments: list[str], sent_as: Json, variables: Mapping[str, str]
) -> None:
    given = tool("GET", path, dict.fromkeys(arguments, Location.PATH), sent_as=sent_as)
    assert only(compile_routes([given], [])).variables == variables


@pytest.mark.parametrize(
    ("method", "location", "place"),
    [
        ("GET", Location.QUERY, Location.QUERY),
        ("GET", Location.HEADER, Location.HEADER),
        ("GET", Location.COOKIE, Location.QUERY),
        ("GET", Location.PATH, Location.QUERY),
        ("GET", Location.BODY, Location.QUERY),
        ("HEAD", Location.BODY, Location.QUERY),
        ("OPTIONS", Location.BODY, Location.QUERY),
        ("POST", Location.BODY, Location.BODY),
        ("DELETE", Location.BODY, Location.BODY),
        ("POST", Location.QUERY, Location.QUERY),
        ("POST", Location.COOKIE, Location.QUERY),
    ],
)
def test_argument_is_passed_at_its_location_or_in_the_query(method: str, location: Location, place: Location) -> None:
    assert only(compile_routes([tool(method, "/v1/runs", {"x": location})], [])).locations == {"x": place}


def test_server_arguments_are_in_the_query_and_path_arguments_in_the_path() -> None:
    given = tool("POST", "/v1/{id}", {"id": Location.QUERY, "b": Location.BODY}, own=["wait_seconds"])
    assert only(compile_routes([given], [])).locations == {
        "id": Location.PATH,
        "b": Location.BODY,
        "wait_seconds": Location.QUERY,
    }


@pytest.mark.parametrize(
    ("body", "name"), [(ArgumentReference("order"), "order"), ({"a": ArgumentReference("order")}, ""), (None, "")]
)
def test_only_whole_body_arguments_are_the_body(body: Any, name: str) -> None:
    assert only(compile_routes([tool("POST", body=body)], [])).body == name


def test_route_calls_the_equivalent_served_tool() -> None:
    rest = tool("GET", "/v1/runs", {"x": Location.QUERY}, name="acme-rest")
    own = replace(served(rest, "acme-mcp"), server_arguments=frozenset({"all_pages"}))
    own = replace(own, input_schema={"properties": {"all_pages": {}, **rest.input_schema["properties"]}})
    route = only(compile_routes([rest], [own]))
    assert (route.tool, route.name) == (own, "acme-mcp")
    assert route.locations == {"all_pages": Location.QUERY, "x": Location.QUERY}


def test_route_calls_the_first_equivalent_tool() -> None:
    rest = tool()
    first, second = served(rest, "first"), served(rest, "second")
    assert only(compile_routes([rest], [first, second])).tool is first


@pytest.mark.parametrize(
    "change",
    [
        {"prefix": "other"},
        {"derived": Derived.WAIT},
        {"input_schema": {"properties": {"x": TEXT}}},
        {"operation": replace(tool().operation, name="other")},
        {"operation": replace(tool().operation, namespace="other")},
        {"operation": replace(tool().operation, method="POST")},
        {"operation": replace(tool().operation, path=("/other",))},
    ],
    ids=["prefix", "waits", "arguments", "operation", "namespace", "method", "path"],
)
def test_route_does_not_call_a_different_tool(change: Json) -> None:
    rest = tool()
    assert only(compile_routes([rest], [replace(served(rest, "acme-mcp"), **change)])).tool is rest


def test_path_in_two_files_is_served_below_each_prefix() -> None:
    one = tool("GET", "/v1/tasks/{taskid}", prefix="render", source="a.yaml with overlays/a.yaml", name="one")
    other = tool("GET", "/v1/tasks/{id}", prefix="runway", source="b.yaml", name="other")
    free = tool("DELETE", "/v1/tasks/{id}", prefix="runway", source="b.yaml", name="free")
    found = compile_routes([one, other, free], [])
    assert paths(found) == ["GET /render/v1/tasks/{taskid}", "GET /runway/v1/tasks/{id}", "DELETE /v1/tasks/{id}"]
    assert [route.shared_path for route in found.routes] == ["/v1/tasks/{taskid}", "/v1/tasks/{id}", ""]
    assert found.notes == (
        "GET /v1/tasks/{taskid} is declared by more than one file: that of a.yaml is served at "
        "/render/v1/tasks/{taskid}",
        "GET /v1/tasks/{id} is declared by more than one file: that of b.yaml is served at /runway/v1/tasks/{id}",
    )


def test_path_in_two_files_with_one_prefix_is_served_below_file_names() -> None:
    given = [
        tool(prefix="acme", source="acme-one.yaml with overlays/acme-one.yaml"),
        tool(prefix="acme", source="Acme Two.yml"),
        tool(prefix="other", source="other.yaml"),
    ]
    found = compile_routes(given, [])
    assert paths(found) == ["GET /acme-one/v1/runs", "GET /acme-two/v1/runs", "GET /other/v1/runs"]
    assert len(found.notes) == 3


def test_duplicate_path_in_one_file_is_served_once() -> None:
    first = tool("GET", "/v1/{a}", name="first", source="acme.yaml with overlays/acme.yaml")
    again = tool("GET", "/v1/{b}", name="again", source="acme.yaml with overlays/acme.yaml")
    found = compile_routes([first, again], [])
    assert [route.name for route in found.routes] == ["first"]
    assert found.notes == ("GET /v1/{b} is declared twice in acme.yaml: the first declaration is served",)


def test_two_routes_of_one_tool_have_distinct_names() -> None:
    one, other = tool("GET", "/v1/a"), tool("GET", "/v1/b")
    assert [route.name for route in compile_routes([one, other], []).routes] == ["acme-list-runs", "acme-list-runs-2"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("GET", "/v1/{a}"), ("GET", "/v1/{b}"), True),
        (("GET", "/v1/{a}"), ("GET", "/v1/{{b}}"), True),
        (("GET", "/v1/{a}"), ("POST", "/v1/{a}"), False),
        (("GET", "/v1/{a}"), ("GET", "/v1/a"), False),
        (("GET", "/v1/{a}"), ("GET", "/v1/{a}/"), False),
    ],
)
def test_route_key_is_equal_for_the_same_requests(one: tuple[str, str], other: tuple[str, str], same: bool) -> None:
    assert (route_key(*one) == route_key(*other)) is same


ARRAY = {"type": "array", "items": {"type": "integer"}}
EITHER: Json = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]}
OBJECT = {"type": "object"}


@pytest.mark.parametrize(
    ("texts", "schema", "value"),
    [
        (["5"], {"type": "string"}, "5"),
        (["5"], {}, "5"),
        (["5"], {"type": "integer"}, 5),
        (["-5"], {"type": "integer"}, -5),
        (["5"], {"type": "number"}, 5),
        (["1.5"], {"type": "number"}, 1.5),
        (["1.5"], {"type": "integer"}, 1.5),
        (["five"], {"type": "integer"}, "five"),
        ([""], {"type": "integer"}, ""),
        (["null"], {"type": "integer"}, "null"),
        (["NaN"], {"type": "number"}, "NaN"),
        (["-Infinity"], {"type": "number"}, "-Infinity"),
        (["9" * 5000], {"type": "integer"}, "9" * 5000),
        (["true"], {"type": "boolean"}, True),
        (["FALSE"], {"type": "boolean"}, False),
        (["1"], {"type": "boolean"}, "1"),
        (["true"], {"type": "string"}, "true"),
        (["true"], {"type": ["boolean", "integer"]}, True),
        (["7"], {"type": ["boolean", "integer"]}, 7),
        (["7"], {"type": ["string", "integer"]}, "7"),
        (["1", "2"], ARRAY, [1, 2]),
        (["1"], ARRAY, [1]),
        (["a"], {"type": "array"}, ["a"]),
        (["a", "1"], {"type": "array", "items": {}}, ["a", "1"]),
        (["1"], EITHER, "1"),
        (["1", "2"], EITHER, [1, 2]),
        (["1", "2"], {"type": "integer"}, ["1", "2"]),
        (["a", "b"], {"type": "string"}, ["a", "b"]),
        (['{"a": [1]}'], OBJECT, {"a": [1]}),
        (['{"a": '], OBJECT, '{"a": '),
        (["[" * 100_000], OBJECT, "[" * 100_000),
        (["[1]"], {"type": ["object", "array"]}, [1]),
        (["x"], {"anyOf": [{"type": "integer"}, {"type": "boolean"}]}, "x"),
    ],
)
def test_parse_argument_converts_by_schema_or_returns_text(texts: list[str], schema: Json, value: Any) -> None:
    read = parse_argument(texts, schema)
    assert (type(read), read) == (type(value), value)
