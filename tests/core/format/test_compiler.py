import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from mcp_taskruns.core.format import compiler
from mcp_taskruns.core.format.compiler import compile_tools
from mcp_taskruns.core.format.names import base_uri_variable, legal_name, prefix_of
from mcp_taskruns.core.format.run_tools import compile_run_tools
from mcp_taskruns.core.format.spec import Capability, parse_capability
from mcp_taskruns.core.model.operation import BaseUri, ConstantTemplate, ErrorBody, Variable
from mcp_taskruns.core.model.tool import Derived, Hints, Tool
from mcp_taskruns.errors import CapabilityError, InvalidArguments
from tests.core.documents import Json, capability, document, inputs, request_of, tool_of


def schema(required: list[str] | None = None, **properties: Json) -> Json:
    whole: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    return whole | ({"required": required} if required else {})


def test_tool_is_compiled_from_all_fields_of_its_file() -> None:
    tool = tool_of(
        {"method": "post", "description": "what the provider says"},
        tool={"name": "Do it_now", "label": "Do it now!", "description": "what it does"},
    )
    assert (tool.name, tool.declared_name, tool.prefix, tool.title, tool.description) == (
        "thing-Do-it_now",
        "Do it_now",
        "thing",
        "Do it now!",
        "what it does",
    )
    assert (tool.operation.name, tool.operation.provider, tool.operation.method) == ("op", "thing", "POST")


@pytest.mark.parametrize(
    ("tool", "operation", "title", "description"),
    [
        ({"name": "list-task_runs"}, {}, "List task runs", "list-task_runs"),
        ({"name": "list-task_runs"}, {"description": "Lists."}, "List task runs", "Lists."),
        ({"name": "list-task_runs", "rename": "show-runs"}, {}, "Show runs", "list-task_runs"),
    ],
)
def test_tool_fields_have_fallbacks(tool: Json, operation: Json, title: str, description: str) -> None:
    compiled = tool_of(operation, tool=tool)
    assert (compiled.title, compiled.description) == (title, description)


def test_renamed_tool_keeps_its_declared_name() -> None:
    tool = tool_of(tool={"rename": "other"})
    assert (tool.name, tool.declared_name) == ("thing-other", "do-it")


def test_only_mcp_adapters_have_tools() -> None:
    given = document()
    given["capability"]["exposes"].insert(0, {"type": "rest", "resources": [{"path": "/v1/things"}]})
    given["capability"]["exposes"].append({"type": "skill", "tools": [{"name": "no-tool"}]})
    assert [tool.name for tool in compile_tools([parse_capability(given, "f.yaml")])] == ["thing-do-it"]


def test_tools_are_in_file_order() -> None:
    first, second = document(tool={"name": "b"}), document(tool={"name": "a"})
    second["info"]["tags"] = ["Other"]
    tools = compile_tools([parse_capability(first, "1.yaml"), parse_capability(second, "2.yaml")])
    assert [tool.name for tool in tools] == ["thing-b", "other-a"]


def test_operation_is_found_by_namespace_and_name() -> None:
    given = document()
    other = document({"method": "DELETE"}, namespace="others", baseUri="https://other.example")
    given["capability"]["consumes"] += other["capability"]["consumes"]
    given["capability"]["exposes"][0]["tools"].append({"name": "undo", "call": "others.op"})
    tools = compile_tools([parse_capability(given, "f.yaml")])
    assert [(tool.operation.method, request_of(tool).url) for tool in tools] == [
        ("GET", "https://api.example/things"),
        ("DELETE", "https://other.example/things"),
    ]


def test_tool_calling_an_unknown_operation_is_unsupported() -> None:
    tool = tool_of(tool={"call": "things.missing", "with": {"a": "tools.b", "c": 5}})
    assert tool.operation.unsupported == "things-api.yaml calls the unknown operation 'things.missing'"
    assert tool.input_schema == schema(b={}, c={})
    assert tool.hints == Hints(read_only=False, destructive=False, idempotent=False, open_world=True)


@pytest.mark.parametrize(
    ("name", "legal"),
    [
        ("list-task_runs", "list-task_runs"),
        ("List Task  Runs!", "List-Task-Runs"),
        ("a.b/c:d", "a-b-c-d"),
        ("größe", "gr-e"),
        ("--x--", "x"),
        ("", "tool"),
        ("日本", "tool"),
        ("n" * 64, "n" * 64),
    ],
)
def test_illegal_characters_in_names_are_replaced(name: str, legal: str) -> None:
    assert legal_name(name) == legal


def test_name_above_64_characters_is_truncated_with_a_digest() -> None:
    first, second = legal_name("n" * 65), legal_name("n" * 66)
    assert re.fullmatch(r"n{55}-[0-9a-f]{8}", first)
    assert (len(first), len(second)) == (64, 64)
    assert first != second
    assert legal_name("n" * 65) == first


@pytest.mark.parametrize(
    ("given", "prefix"),
    [
        ({}, "thing"),
        ({"prefix": "own"}, "own"),
        ({"info": {"tags": ["Workflow Tasks (Beta)"]}}, "workflow-tasks-beta"),
        ({"info": {"tags": ["日本"]}}, "things-api"),
        ({"info": {}}, "things-api"),
    ],
)
def test_prefix_is_that_of_overlay_first_tag_or_file_name(given: Json, prefix: str) -> None:
    assert prefix_of(parse_capability(document() | given, "things-api.yaml")) == prefix


def test_prefix_from_file_name_excludes_the_overlay() -> None:
    given = parse_capability({"naftiko": "1"}, "things-api.yaml with overlays/things-api.yaml")
    assert prefix_of(given) == "things-api"


def test_prefix_is_never_empty() -> None:
    assert prefix_of(parse_capability({"naftiko": "1"}, "日本.yaml")) == "capability"


@pytest.mark.parametrize(
    ("prefix", "variable"),
    [("render", "RENDER_BASE_URL"), ("google-cloud.run", "GOOGLE_CLOUD_RUN_BASE_URL")],
)
def test_base_uri_variable_has_the_name_of_the_prefix(prefix: str, variable: str) -> None:
    assert base_uri_variable(prefix) == variable


def named(*names: str, prefix: str = "thing") -> Any:
    given = document() | {"prefix": prefix}
    given["capability"]["exposes"][0]["tools"] = [{"name": name, "call": "things.op"} for name in names]
    return parse_capability(given, f"{prefix}.yaml")


def test_equal_names_are_numbered() -> None:
    tools = compile_tools([named("a", "a!", "a", "a-2")])
    assert [tool.name for tool in tools] == ["thing-a", "thing-a-2", "thing-a-3", "thing-a-2-2"]


def test_numbered_names_have_at_most_64_characters() -> None:
    long = "n" * 58  # with "thing-" just 64
    first, second = (tool.name for tool in compile_tools([named(long, long)]))
    assert (first, second) == ("thing-" + long, "thing-" + long[:-2] + "-2")


def test_declared_names_that_collide_are_prefixed() -> None:
    tools = compile_tools([named("list", "run it", prefix="a"), named("list", "stop", prefix="b")], names="spec")
    assert [tool.name for tool in tools] == ["a-list", "run-it", "b-list", "stop"]


def test_declared_names_ignore_renames_of_the_overlay() -> None:
    (tool,) = compile_tools([capability(tool={"rename": "other"})], names="spec")
    assert tool.name == "do-it"


def described(*tools: tuple[str, str], prefix: str) -> Any:
    given = document() | {"prefix": prefix}
    given["capability"]["exposes"][0]["tools"] = [
        {"name": name, "call": "things.op", "description": description} for name, description in tools
    ]
    return parse_capability(given, f"{prefix}.yaml")


def test_descriptions_use_declared_names_if_those_are_listed() -> None:
    first = described(
        ("run-it", "First a-list, then wait; not a-run-it-all, nor run-it. See b-list: `a-run-it`."),
        ("list", "Lists what a-run-it ran."),
        prefix="a",
    )
    second = described(("list", "Lists. Not a-list."), prefix="b")
    assert {tool.name: tool.description for tool in compile_tools([first, second], names="spec")} == {
        "run-it": "First a-list, then wait; not a-run-it-all, nor run-it. See b-list: `run-it`.",
        "a-list": "Lists what run-it ran.",
        "b-list": "Lists. Not a-list.",
    }
    assert compile_tools([first])[1].description == "Lists what a-run-it ran."


def test_declared_names_that_become_equal_are_numbered() -> None:
    tools = compile_tools([named("a b", "a-b", "a.b")], names="spec")
    assert [tool.name for tool in tools] == ["a-b", "a-b-2", "a-b-3"]


@pytest.mark.parametrize(
    ("method", "hints"),
    [
        # RFC 9110, section 9.2: safe and idempotent methods
        ("GET", Hints(True, False, True, True)),
        ("HEAD", Hints(True, False, True, True)),
        ("OPTIONS", Hints(True, False, True, True)),
        ("PUT", Hints(False, True, True, True)),
        ("DELETE", Hints(False, True, True, True)),
        ("PATCH", Hints(False, True, False, True)),
        ("POST", Hints(False, False, False, True)),
        ("QUERY", Hints(False, False, False, True)),
    ],
)
def test_unset_hints_follow_the_method(method: str, hints: Hints) -> None:
    assert tool_of({"method": method}).hints == hints


@pytest.mark.parametrize(
    ("method", "declared", "hints"),
    [
        (
            "DELETE",
            {"readOnly": False, "destructive": False, "idempotent": False, "openWorld": False},
            Hints(False, False, False, False),
        ),
        (
            "GET",
            {"readOnly": False, "destructive": True, "idempotent": False, "openWorld": True},
            Hints(False, True, False, True),
        ),
        ("POST", {"readOnly": True}, Hints(True, False, False, True)),
        ("POST", {"readOnly": False}, Hints(False, False, False, True)),
        ("GET", {"readOnly": False}, Hints(False, False, True, True)),
        ("DELETE", {"readOnly": False}, Hints(False, True, True, True)),
        ("DELETE", {"readOnly": True}, Hints(True, False, True, True)),
        ("DELETE", {"idempotent": False}, Hints(False, True, False, True)),
    ],
)
def test_set_hints_are_unchanged(method: str, declared: Json, hints: Hints) -> None:
    assert tool_of({"method": method}, tool={"hints": declared}).hints == hints


def test_undeclared_placeholder_is_a_required_string() -> None:
    tool = tool_of(path="/things/{thingId}/parts/{part_id}")
    assert tool.input_schema == schema(["thingId", "part_id"], thingId={"type": "string"}, part_id={"type": "string"})


def test_repeated_placeholder_is_one_argument() -> None:
    assert tool_of(path="/{a}/{{ a }}").input_schema == schema(["a"], a={"type": "string"})


@pytest.mark.parametrize(
    ("path", "argument"),
    [
        ("/{a.b}", "a.b"),
        ("/{ tools.a }", "tools.a"),
        ("/{{tools.a}}", "a"),
        ("/{{a}}", "a"),
        ("/{{ rest.a.b }}", "a.b"),
    ],
)
def test_dot_in_a_placeholder_separates_only_in_double_braces(path: str, argument: str) -> None:
    tool = tool_of(path=path)
    assert tool.input_schema == schema([argument], **{argument: {"type": "string"}})
    assert request_of(tool, {argument: "7"}).url == "https://api.example/7"


def test_placeholder_with_a_dot_matches_the_input_of_that_name() -> None:
    tool = tool_of(inputs({"name": "a.b", "in": "path", "type": "integer"}), path="/{a.b}")
    assert tool.input_schema == schema(["a.b"], **{"a.b": {"type": "integer"}})


@pytest.mark.parametrize("path", ["/{{THING_KEY}}", "/{{ env.THING_KEY }}"])
def test_bound_name_in_double_braces_is_not_an_argument(path: str) -> None:
    tool = tool_of(path=path)
    assert tool.input_schema == schema()
    assert request_of(tool, {"THING_KEY": "callers"}).url == "https://api.example/key-123456"


@pytest.mark.parametrize(
    ("path", "argument"),
    [("/{THING_KEY}", "THING_KEY"), ("/{ THING_KEY }", "THING_KEY"), ("/{env.THING_KEY}", "env.THING_KEY")],
)
def test_bound_name_in_single_braces_is_an_argument(path: str, argument: str) -> None:
    tool = tool_of(path=path)
    assert tool.input_schema == schema([argument], **{argument: {"type": "string"}})
    assert request_of(tool, {argument: "callers"}).url == "https://api.example/callers"
    assert list(tool.operation.credentials()) == []


def test_operation_without_inputs_has_no_arguments() -> None:
    assert tool_of().input_schema == schema()


@pytest.mark.parametrize(
    ("declared", "shown"),
    [
        ({"type": "string"}, {"type": "string"}),
        ({"type": "integer", "description": "How many."}, {"type": "integer", "description": "How many."}),
        ({"type": "array"}, {"type": "array", "items": {"type": "string"}}),
        ({"type": "array", "in": "body"}, {"type": "array", "items": {}}),
        ({"type": "object", "in": "body"}, {"type": "object"}),
        ({"type": "file"}, {}),
        ({}, {}),
        ({"type": "string", "schema": {"format": "uuid"}}, {"type": "string", "format": "uuid"}),
        ({"type": "string", "schema": {"type": "integer"}}, {"type": "integer"}),
    ],
)
def test_property_schema_follows_the_declaration(declared: Json, shown: Json) -> None:
    tool = tool_of(inputs({"name": "a", "in": "query"} | declared))
    assert tool.input_schema == schema(a=shown)


@pytest.mark.parametrize(
    ("declared", "required"),
    [
        ({"in": "query"}, False),
        ({"in": "query", "required": True}, True),
        ({"in": "query", "required": True, "env": "A"}, False),
        ({"in": "body"}, False),
        ({"in": "header", "required": True}, True),
    ],
)
def test_argument_with_a_default_is_not_required(declared: Json, required: bool) -> None:
    tool = tool_of(inputs({"name": "a"} | declared))
    assert tool.input_schema == schema(["a"] if required else None, a={})


@pytest.mark.parametrize(
    ("declared", "required"),
    [
        ({"in": "path"}, True),
        ({}, True),
        ({"in": "path", "required": False}, False),
        ({"in": "path", "env": "A"}, False),
    ],
)
def test_path_argument_is_required_without_a_default(declared: Json, required: bool) -> None:
    tool = tool_of(inputs({"name": "a"} | declared), path="/{a}")
    assert tool.input_schema == schema(["a"] if required else None, a={})


def test_input_without_location_is_in_the_query() -> None:
    tool = tool_of(inputs({"name": "a"}))
    assert request_of(tool, {"a": "1"}).url == "https://api.example/things?a=1"


def test_arguments_are_ordered_by_location() -> None:
    declared = [
        {"name": "body", "in": "body"},
        {"name": "h", "in": "header"},
        {"name": "q2", "in": "query"},
        {"name": "q1", "in": "query"},
        {"name": "second", "in": "path"},
    ]
    tool = tool_of(inputs(*declared), path="/{first}/{second}")
    assert list(tool.input_schema["properties"]) == ["first", "second", "q2", "q1", "h", "body"]


@pytest.mark.parametrize("name", ["Authorization", "host", "Content-Length", "CONTENT-TYPE", "Accept"])
def test_server_header_is_not_listed_and_is_dropped(name: str) -> None:
    tool = tool_of(inputs({"name": name, "in": "header", "required": True}), tool={"with": {name: "tools.given"}})
    assert tool.input_schema == schema()
    assert tool.dropped_arguments == {"given"}
    sent = dict(request_of(tool, {"given": "evil", name: "evil"}).headers)
    assert "evil" not in sent.values()


def test_constant_is_not_an_argument() -> None:
    tool = tool_of(inputs({"name": "version", "in": "query", "value": "2024-11-06"}))
    assert tool.input_schema == schema()
    assert request_of(tool, {"version": "other"}).url == "https://api.example/things?version=2024-11-06"


@pytest.mark.parametrize(
    "reference",
    [
        *("tools.given", "rest.given", "mcp.given", "things-mcp.given", "$this.things-mcp.given", "$this.tools.given"),
        *("rest.path.given", "rest.query.given", "rest.header.given", "rest.body.given", "tools.query.given"),
        *("{{given}}", "{{ given }}", "{{tools.given}}", "{{ things-mcp.given }}", "{{$this.things-mcp.given}}"),
    ],
)
def test_with_renames_an_argument(reference: str) -> None:
    tool = tool_of(
        inputs({"name": "sent", "in": "query", "type": "string"}), path="/{p}", tool={"with": {"sent": reference}}
    )
    assert tool.input_schema == schema(["p"], p={"type": "string"}, given={"type": "string"})
    assert request_of(tool, {"given": "v", "p": "x"}).url == "https://api.example/x?sent=v"


@pytest.mark.parametrize(
    ("literal", "query"),
    [
        ("plain", "?sent=plain"),
        ("v1.2", "?sent=v1.2"),
        ("api.example.com", "?sent=api.example.com"),
        ("my_adapter.given", "?sent=my_adapter.given"),
        ("tools.", "?sent=tools."),
        ("tools", "?sent=tools"),
        ("", "?sent="),
        (5, "?sent=5"),
        (0, "?sent=0"),
        (False, "?sent=false"),
        (["a", 2], "?sent=a&sent=2"),
        ({"a": 1}, "?sent=%7B%22a%22%3A1%7D"),
        ("{{env.THING_KEY}}", "?sent=key-123456"),
        (None, ""),
    ],
)
def test_literal_in_with_is_sent_unchanged(literal: Any, query: str) -> None:
    declared = {"name": "sent", "in": "query", "required": True}
    tool = tool_of(inputs(declared), tool={"with": {"sent": literal}})
    assert tool.input_schema == schema()
    assert request_of(tool, {"sent": "callers"}).url == f"https://api.example/things{query}"


@pytest.mark.parametrize("path", ["/{id}", "/x"])
def test_null_in_with_omits_an_input_except_in_the_path(path: str) -> None:
    tool = tool_of(path=path, tool={"with": {"id": None}})
    assert tool.input_schema == schema()
    if path == "/x":
        assert request_of(tool).url == "https://api.example/x"
    else:
        with pytest.raises(InvalidArguments, match=r"^id: must be one segment of a path, not ''$"):
            request_of(tool, {"id": "7"})


def test_with_renames_a_placeholder() -> None:
    tool = tool_of(path="/{id}", tool={"with": {"id": "tools.thing"}})
    assert tool.input_schema == schema(["thing"], thing={"type": "string"})
    assert request_of(tool, {"thing": "7"}).url == "https://api.example/7"


def test_same_name_in_path_and_query_is_two_arguments() -> None:
    declared = inputs({"name": "id", "in": "query", "type": "integer"}, {"name": "id", "in": "header"})
    tool = tool_of(declared, path="/{id}", tool={"with": {"id": "tools.id"}})
    assert tool.input_schema == schema(["id"], id={"type": "string"}, id_query={"type": "integer"}, id_header={})
    request = request_of(tool, {"id": "a", "id_query": 2, "id_header": "c"})
    assert (request.url, dict(request.headers)["id"]) == ("https://api.example/a?id=2", "c")


def test_suffixed_name_that_is_taken_gets_another_suffix() -> None:
    tool = tool_of(inputs({"name": "id_query", "in": "query"}, {"name": "id", "in": "query"}), path="/{id}")
    assert list(tool.input_schema["properties"]) == ["id", "id_query", "id_query_query"]
    request = request_of(tool, {"id": "p", "id_query": "q", "id_query_query": "r"})
    assert request.url == "https://api.example/p?id=q&id_query=r"


def test_name_is_suffixed_until_it_is_unique() -> None:
    declared = [{"name": name, "in": "query"} for name in ("id_header", "id_header_header")]
    tool = tool_of(inputs(*declared, {"name": "id", "in": "header"}), path="/{id}")
    assert list(tool.input_schema["properties"]) == ["id", "id_header", "id_header_header", "id_header_header_header"]
    request = request_of(tool, {"id": "p", "id_header": 1, "id_header_header": 2, "id_header_header_header": 3})
    assert request.url == "https://api.example/p?id_header=1&id_header_header=2"
    assert dict(request.headers)["id"] == "3"


def test_inner_inputs_override_fields_of_outer_ones() -> None:
    given = document(
        inputs({"name": "a", "in": "query", "description": "inner"}),
        inputParameters=[
            {"name": "a", "in": "query", "type": "integer", "description": "outer", "required": True},
            {"name": "X-Version", "in": "header", "value": "1"},
        ],
    )
    given["capability"]["consumes"][0]["resources"][0]["inputParameters"] = [
        {"name": "a", "in": "query", "description": "middle", "schema": {"minimum": 1}},
        {"name": "X-Version", "in": "header", "value": "2"},
    ]
    (tool,) = compile_tools([parse_capability(given, "f.yaml")])
    assert tool.input_schema == schema(["a"], a={"type": "integer", "description": "inner", "minimum": 1})
    assert request_of(tool, {"a": 1}).headers == (("Accept", "application/json, */*;q=0.5"), ("X-Version", "2"))


def test_same_name_in_another_location_is_another_input() -> None:
    tool = tool_of(inputs({"name": "a", "in": "query"}), inputParameters=[{"name": "a", "in": "header", "value": "h"}])
    request = request_of(tool, {"a": "q"})
    assert (request.url, dict(request.headers)["a"]) == ("https://api.example/things?a=q", "h")


def test_path_input_of_an_adapter_needs_a_placeholder() -> None:
    declared = [{"name": "id", "in": "path", "description": "Id."}]
    assert tool_of(inputParameters=declared).input_schema == schema()
    assert tool_of(path="/{id}", inputParameters=declared).input_schema == schema(["id"], id={"description": "Id."})


def test_environment_input_is_neither_an_argument_nor_sent() -> None:
    tool = tool_of(inputs({"name": "a", "in": "environment"}))
    assert tool.input_schema == schema()
    assert request_of(tool, {"a": "v"}) == request_of(tool_of())


@pytest.mark.parametrize(
    ("resource", "operation", "url"),
    [
        ("/a/", {}, "https://api.example/a/"),
        ("/a", {"path": "/b"}, "https://api.example/b"),
        ("/a", {"path": ""}, "https://api.example"),
        ("/a?fixed=1", {}, "https://api.example/a?fixed=1"),
    ],
)
def test_path_of_the_operation_wins_and_keeps_its_trailing_slash(resource: str, operation: Json, url: str) -> None:
    assert request_of(tool_of(operation, path=resource)).url == url


@pytest.mark.parametrize(
    ("written", "default"),
    [
        ("https://api.example", ("https://api.example",)),
        ("HTTPS://api.example", ("HTTPS://api.example",)),
        (" https://api.example/v1/ ", ("https://api.example/v1/",)),
        ("https://api.example/v1//", ("https://api.example/v1//",)),
        ("http://localhost:1", ("http://localhost:1",)),
        ("https://{{env.HOST}}/v1", ("https://", Variable(("HOST",)), "/v1")),
        ("https://{{HOST}}", ("https://", Variable(("HOST",)))),
        ("{{env.THING_URL}}/v1", (Variable(("THING_URL",)), "/v1")),
        ("{{THING_KEY}}", (Variable(("THING_KEY",)),)),
        ("{{env.HOST}}/{v}", None),
        ("/{{env.HOST}}", None),
        ("", None),
        ("  ", None),
        ("/", None),
        (None, None),
        ("/v1", None),
        ("api.example", None),
        ("https://{host}/v1", None),
        ("https://${HOST}/v1", None),
        ("ftp://api.example", None),
    ],
)
def test_base_uri_that_is_not_a_url_must_be_configured(written: str | None, default: ConstantTemplate | None) -> None:
    assert tool_of(baseUri=written).operation.base == BaseUri(default, ("THING_BASE_URL",))


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("https://api.example", "https://api.example/things"),
        ("https://api.example/", "https://api.example/things"),
        (" https://api.example/v1/ ", "https://api.example/v1/things"),
        ("https://api.example/v1//", "https://api.example/v1//things"),
        ("https://{{HOST}}/", "https://eu.example/things"),
    ],
)
def test_one_trailing_slash_of_the_base_uri_is_dropped(written: str, url: str) -> None:
    assert request_of(tool_of(baseUri=written), {}, {"HOST": "eu.example"}).url == url


def test_base_uri_may_have_more_variables() -> None:
    tool = tool_of(base_uri_env=["THING_HOST", "THING_URL"])
    assert tool.operation.base.variables == ("THING_BASE_URL", "THING_HOST", "THING_URL")


@pytest.mark.parametrize(
    ("declared", "compiled"),
    [
        (None, None),
        ({"status": "$.code", "message": "$.why"}, ErrorBody(("code",), ("why",))),
    ],
)
def test_operation_has_the_error_body_of_its_provider(declared: Json | None, compiled: ErrorBody | None) -> None:
    assert tool_of(error_body=declared).operation.error_body == compiled


@pytest.mark.parametrize(
    ("operation", "consumed", "accept"),
    [
        ({}, {}, "application/json, */*;q=0.5"),
        ({}, {"accept": "application/json"}, "application/json"),
        ({"accept": "text/csv"}, {"accept": "application/json"}, "text/csv"),
        ({"description": "Answers text/event-stream."}, {"accept": "application/json"}, "text/event-stream, */*;q=0.1"),
        (
            inputs({"name": "Accept", "in": "header", "description": "Must be `text/event-stream`."}),
            {},
            "text/event-stream, */*;q=0.1",
        ),
        ({"accept": "text/csv", "description": "text/event-stream"}, {}, "text/csv"),
    ],
)
def test_accept_is_declared_or_follows_from_descriptions(operation: Json, consumed: Json, accept: str) -> None:
    assert request_of(tool_of(operation, **consumed)).headers == (("Accept", accept),)


@pytest.mark.parametrize("kind", ["oauth1", "aws-sig-v4", "hmac"])
def test_unsupported_authentication_makes_the_operation_unsupported(kind: str) -> None:
    tool = tool_of(path="/{id}", authentication={"type": kind})
    assert tool.operation.unsupported == f"things-api.yaml has the unsupported authentication type {kind}"
    assert tool.input_schema == schema(["id"], id={"type": "string"})


@pytest.mark.parametrize(
    "authentication",
    [
        {"type": "bearer"},
        {"type": "bearer", "token": ""},
        {"type": "bearer", "token": None},
        {"type": "basic", "username": ""},
        {"type": "basic", "password": "{{env.THING_KEY}}"},
        {"type": "digest", "username": "me"},
        {"type": "apikey", "key": "X-Key"},
        {"type": "apikey", "value": "{{env.THING_KEY}}"},
        {"type": "apikey", "name": "X-Key", "in": "header", "value": ""},
        {"type": "apikey", "header": "X-Key"},
        {"type": "apikey"},
    ],
)
@pytest.mark.parametrize("word", ["authentication", "auth"])
def test_missing_credential_makes_the_operation_unsupported(word: str, authentication: Json) -> None:
    tool = tool_of(path="/{id}", **{word: authentication})
    assert tool.operation.unsupported == (
        f"things-api.yaml has authentication of type {authentication['type']} without a credential"
    )
    assert tool.operation.authentication is None
    assert tool.input_schema == schema(["id"], id={"type": "string"})


@pytest.mark.parametrize("place", [["query"], {"query": 1}, 5, "body", "path"], ids=repr)
@pytest.mark.parametrize("word", ["in", "placement"])
def test_invalid_key_placement_makes_the_operation_unsupported(word: str, place: Any) -> None:
    tool = tool_of(authentication={"type": "apikey", word: place, "name": "X-Key", "value": "{{env.THING_KEY}}"})
    assert tool.operation.unsupported == (f"things-api.yaml sends its key in {place!r}; use header, query or cookie")


@pytest.mark.parametrize("place", [None, "", "HEADER"], ids=repr)
@pytest.mark.parametrize("word", ["in", "placement"])
def test_api_key_without_placement_is_in_a_header(word: str, place: Any) -> None:
    tool = tool_of(authentication={"type": "apikey", word: place, "name": "X-Key", "value": "{{env.THING_KEY}}"})
    assert dict(request_of(tool).headers)["X-Key"] == "key-123456"


ANY = "{{env.THING_KEY}}"


@pytest.mark.parametrize(
    ("operation", "consumed", "path"),
    [
        ({}, {"authentication": {"type": "bearer", "token": ANY}}, "/"),
        ({}, {"auth": {"type": "basic", "username": "me", "password": ANY}}, "/"),
        ({}, {"authentication": {"type": "apikey", "header": "X", "key": f"Token {ANY}"}}, "/"),
        (inputs({"name": "X-Key", "in": "header", "value": f"v1 {ANY}"}), {}, "/"),
        (inputs({"name": "key", "in": "query", "value": ANY}), {}, "/"),
        (inputs({"name": "key", "in": "cookie", "value": ANY}), {}, "/"),
        ({}, {"inputParameters": [{"name": "X-Key", "in": "header", "value": ANY}]}, "/"),
        (inputs({"name": "X-Key", "in": "header", "value": ANY}), {}, "/{id}"),
    ],
)
def test_variables_outside_the_path_are_credentials(operation: Json, consumed: Json, path: str) -> None:
    credentials = tool_of(operation, path=path, **consumed).operation.credentials()
    assert list(credentials) == [Variable(("THING_KEY",))]


@pytest.mark.parametrize(
    ("operation", "consumed"),
    [
        ({}, {"authentication": {"type": "bearer", "token": "{{MY_TOKEN}}"}}),
        ({}, {"authentication": {"type": "basic", "username": "me", "password": "{{ MY_TOKEN }}"}}),
        ({}, {"authentication": {"type": "apikey", "name": "X-Key", "value": "Token {{MY_TOKEN}}"}}),
        (inputs({"name": "X-Key", "in": "header", "value": "v1 {{MY_TOKEN}}"}), {}),
        (inputs({"name": "key", "in": "query", "value": ["{{MY_TOKEN}}"]}), {}),
        (inputs({"name": "key", "in": "body", "value": {"a": [{"b": "{{MY_TOKEN}}"}]}}), {}),
        (inputs({"name": "key", "in": "cookie", "value": "{{env.MY_TOKEN}}"}), {}),
    ],
)
def test_unbound_name_in_a_constant_is_an_environment_variable(operation: Json, consumed: Json) -> None:
    tool = tool_of({"method": "POST", **operation}, **consumed)
    assert set(tool.operation.credentials()) == {Variable(("MY_TOKEN",))}
    assert tool.input_schema == schema()


@pytest.mark.parametrize(
    "operation",
    [
        inputs({"name": "body", "in": "body", "value": ANY}),
        inputs({"name": "key", "in": "body", "value": f"v1 {ANY}"}, {"name": "other", "in": "body"}),
        {"body": {"type": "json", "data": ANY}},
        {"body": {"type": "json", "data": {"a": [1, {"b": f"v1 {ANY} {{{{x}}}}"}], "c": None}}},
    ],
)
def test_variables_in_the_body_are_credentials(operation: Json) -> None:
    credentials = tool_of({"method": "POST", **operation}).operation.credentials()
    assert set(credentials) == {Variable(("THING_KEY",))}


@pytest.mark.parametrize(
    ("operation", "path"),
    [
        ({}, "/"),
        ({}, "/{{env.MY_REGION}}"),
        (inputs({"name": "id", "in": "path", "value": "{{MY_NAME}}"}), "/{id}"),
        (inputs({"name": "q", "in": "query", "env": "THING_KEY"}), "/"),
        (inputs({"name": "q", "in": "query", "value": 5}, {"name": "l", "in": "query", "value": ["a"]}), "/"),
    ],
)
def test_variables_in_path_and_defaults_are_not_credentials(operation: Json, path: str) -> None:
    assert list(tool_of(operation, path=path).operation.credentials()) == []


@pytest.mark.parametrize("name", ["MY_KEY", "my_token", "A_SECRET", "PASSWORD", "OAUTH_ID", "CREDENTIAL", "BOT_ID"])
@pytest.mark.parametrize(
    ("operation", "consumed", "path"),
    [
        ({}, {}, "/bot{{env.%s}}/send"),
        ({}, {"baseUri": "https://{{env.%s}}.example"}, "/"),
        ({}, {"baseUri": "https://api.example/{{%s}}"}, "/"),
        (inputs({"name": "id", "in": "path", "value": "{{%s}}"}), {}, "/{id}"),
        (inputs({"name": "id", "in": "path", "value": "v1-{{env.%s}}"}), {}, "/{id}"),
    ],
)
def test_variables_in_the_address_with_secret_names_are_credentials(
    name: str, operation: Json, consumed: Json, path: str
) -> None:
    def filled(tree: Any) -> Any:
        return json.loads(json.dumps(tree).replace("%s", name))

    tool = tool_of(filled(operation), path=path.replace("%s", name), **filled(consumed))
    assert list(tool.operation.credentials()) == [Variable((name,))]


def test_one_secret_name_of_a_variable_makes_it_a_credential() -> None:
    given = document(path="/{{env.HANDLE}}")
    given["binds"] = [{"keys": {"HANDLE": ["THING_HANDLE", "THING_TOKEN"]}}]
    (tool,) = compile_tools([parse_capability(given, "f.yaml")])
    assert list(tool.operation.credentials()) == [Variable(("THING_HANDLE", "THING_TOKEN"))]


@pytest.mark.parametrize("kind", ["protobuf", "graphql", "jsonl", 5])
def test_unsupported_body_makes_the_operation_unsupported(kind: Any) -> None:
    tool = tool_of({"method": "POST", "body": {"type": kind, "data": "{{a}}"}})
    assert tool.operation.unsupported == (f"things-api.yaml has a body of the unsupported type {kind}")


def test_placeholders_of_a_body_template_are_arguments() -> None:
    data = {"name": "{{name}}", "text": "to {{who}} from {{name}}", "list": ["{{ tools.item }}", 5], "fixed": True}
    tool = tool_of({"method": "POST", "body": {"data": data}, **inputs({"name": "name", "in": "query"})})
    assert list(tool.input_schema["properties"]) == ["name", "who", "item"]


@pytest.mark.parametrize(
    ("exposed", "reason"),
    [
        ({"call": ""}, "things-api.yaml has no `call` for 'do-it'"),
        (
            {"call": "", "steps": [{"call": "things.op"}]},
            "things-api.yaml has no `call` for 'do-it': `steps` are not supported",
        ),
        ({"call": "op"}, "things-api.yaml calls the unknown operation 'op'"),
        ({"call": "other.op", "steps": []}, "things-api.yaml calls the unknown operation 'other.op'"),
    ],
)
def test_tool_without_call_is_unsupported(exposed: Json, reason: str) -> None:
    tool = tool_of(tool=exposed)
    assert (tool.operation.unsupported, tool.input_schema, tool.description) == (reason, schema(), "do-it")
    assert (tool.operation.name, tool.operation.provider) == ("do-it", "thing")


def test_tool_of_an_imported_provider_is_unsupported() -> None:
    tool = tool_of(tool={"call": "things.op"}, **{"import": "things", "location": "./things.yaml", "resources": []})
    assert tool.operation.unsupported == (
        "things-api.yaml imports the operation of 'do-it' from another file, which is not supported"
    )


def test_unsupported_tool_has_the_arguments_in_with() -> None:
    given = {"a": "tools.x", "b": "{{y}}", "c": "rest.body.z", "d": "fixed", "e": "tools.x"}
    tool = tool_of(tool={"call": "no.op", "with": given})
    assert tool.input_schema == schema(x={}, y={}, z={}, d={})


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (["string", "null"], {"type": "string"}),
        (["string", "integer"], {"type": ["string", "integer"]}),
        (["array", "string"], {"type": ["array", "string"], "items": {"type": "string"}}),
        (["array", "null"], {"type": "array", "items": {"type": "string"}}),
        (["string", None], {"type": "string"}),
        # The value may have the type that is not known.
        (["int", "string"], {}),
        (["array", "date", "null"], {}),
        (["file"], {}),
        ([], {}),
        ("any", {}),
        ("", {}),
    ],
)
def test_unknown_type_is_ignored(written: Any, shown: Json) -> None:
    assert tool_of(inputs({"name": "a", "in": "query", "type": written})).input_schema == schema(a=shown)


REST: Json = {
    "type": "rest",
    "namespace": "things-rest",
    "resources": [
        {"path": "/v1/things", "operations": [{"name": "list", "call": "things.op", "with": {"q": "rest.q"}}]},
        {
            "path": "/v1/things/{id}",
            "operations": [
                {"name": "get", "method": "GET", "call": "things.op", "description": "Gets.", "with": {"q": "rest.id"}},
                {"method": "DELETE", "call": "things.none"},
            ],
        },
    ],
}


def test_rest_side_is_compiled_to_tools() -> None:
    given = document(inputs({"name": "q", "in": "query"}))
    given["capability"]["exposes"].append(REST)
    tools = compile_tools([parse_capability(given, "f.yaml")], surface="rest")
    assert [(tool.name, tool.declared_name, tool.title, tool.description) for tool in tools] == [
        ("thing-list", "list", "List", "list"),
        ("thing-get", "get", "Get", "Gets."),
        ("thing", "", "", ""),
    ]
    assert [list(tool.input_schema["properties"]) for tool in tools] == [["q"], ["id"], []]
    assert tools[0].hints == Hints(True, False, True, True)
    assert tools[2].operation.unsupported == "f.yaml calls the unknown operation 'things.none'"


RUNS: Json = {
    "read": {"operation": "op", "run_id_argument": "id"},
    "fields": {"id": "$.id", "status": "$.status"},
    "statuses": {},
}


@pytest.mark.parametrize("stage", ["compile_run_tools", "add_lifecycles"])
def test_unexpected_error_in_any_stage_refuses_the_capability(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    def failing(given: Capability, *_: Any) -> Iterator[Tool]:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(compiler, stage, failing)
    refused: list[Capability] = []
    given = capability(source="broken.yaml")
    assert compile_tools([given], refuse=lambda one, _: refused.append(one)) == ()
    assert refused == [given]


@pytest.mark.parametrize(
    "consumed",
    [
        {"errors": {"rule": {"message_matches": "("}}},
        {"runs": {**RUNS, "read": {"operation": "none"}}},
        {"runs": {**RUNS, "runs_in": {"lost": "$"}}},
    ],
    ids=["refinements", "wait tools", "life cycles"],
)
def test_capability_that_cannot_be_compiled_does_not_affect_others(consumed: Json) -> None:
    broken = capability(path="/{id}", source="broken.yaml", **consumed)
    sound = capability(source="sound.yaml")
    refused: list[CapabilityError] = []
    tools = compile_tools([sound, broken, sound], refuse=lambda _, error: refused.append(error))
    assert [error.source for error in refused] == ["broken.yaml"]
    assert [tool.declared_name for tool in tools] == ["do-it", "do-it"]
    with pytest.raises(CapabilityError) as caught:
        compile_tools([sound, broken])
    assert str(caught.value) == str(refused[0])


def test_unexpected_error_affects_its_file_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(given: Capability, tools: Sequence[Tool]) -> Iterator[Tool]:
        if given.source == "broken.yaml":
            raise ZeroDivisionError("odd")
        return compile_run_tools(given, tools)

    monkeypatch.setattr(compiler, "compile_run_tools", failing)
    sound, broken = capability(source="sound.yaml"), capability(source="broken.yaml")
    refused: list[CapabilityError] = []
    tools = compile_tools([sound, broken, sound], refuse=lambda _, error: refused.append(error))
    assert [tool.declared_name for tool in tools] == ["do-it", "do-it"]
    assert [str(error) for error in refused] == [
        "broken.yaml: cannot be compiled because of a bug in this server: ZeroDivisionError('odd')"
    ]
    assert isinstance(refused[0].__cause__, ZeroDivisionError)
    with pytest.raises(CapabilityError, match=r"^broken\.yaml: "):
        compile_tools([broken])


def test_rest_side_has_no_lifecycles() -> None:
    given = document(path="/{id}", runs={**RUNS, "statuses": {"running": ["on"]}})
    given["capability"]["exposes"].append(
        {"type": "rest", "resources": [{"path": "/v1/{id}", "operations": [{"name": "get", "call": "things.op"}]}]}
    )
    read = parse_capability(given, "f.yaml")
    derived = {tool.declared_name: tool.derived for tool in compile_tools([read])}
    assert derived == {"do-it": None, "wait-for-run": Derived.WAIT, "explain-run": Derived.EXPLAIN}
    assert all(tool.runs is not None for tool in compile_tools([read]))
    (tool,) = compile_tools([read], surface="rest")
    assert (tool.declared_name, tool.is_wait_tool, tool.runs) == ("get", False, None)


def test_rest_side_may_call_some_operations_of_runs() -> None:
    given = document(path="/{id}", runs={**RUNS, "read": {"operation": "more"}, "statuses": {"running": ["on"]}})
    given["capability"]["exposes"] = [
        {"type": "rest", "resources": [{"path": "/v1/{id}", "operations": [{"name": "get", "call": "things.op"}]}]}
    ]
    (tool,) = compile_tools([parse_capability(given, "f.yaml")], surface="rest")
    assert tool.operation.unsupported is None
