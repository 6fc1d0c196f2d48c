"""Compilation of an operation: its request and the arguments of its tool."""

import re
from typing import Any

import pytest

from mcp_taskruns.core.format.compiler import compile_tools
from mcp_taskruns.core.format.inputs import Argument, DeclaredOperation
from mcp_taskruns.core.format.operations import compile_operation
from mcp_taskruns.core.format.policies import Policies
from mcp_taskruns.core.format.spec import (
    Consumed,
    ConsumedOperation,
    ConsumedResource,
    InputParameter,
    parse_capability,
)
from mcp_taskruns.core.model.operation import ArgumentReference, Location, Operation, Parameter, Variable
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import NotConfigured
from tests.core.documents import KEY, Json, capability, document, inputs, request_of, tool_of

BASE = "https://api.example"
ACCEPT = ("Accept", "application/json, */*;q=0.5")


def schema(required: list[str] | None = None, **properties: Json) -> Json:
    whole: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    return whole | ({"required": required} if required else {})


def arguments_of(tool: Tool) -> tuple[list[str], list[str]]:
    """The arguments of a tool, and which of them are required."""
    return list(tool.input_schema["properties"]), tool.input_schema.get("required", [])


def sent(tool: Tool, arguments: Json | None = None) -> tuple[str, tuple[tuple[str, str], ...], bytes | None]:
    """What of a request is this operation's own: the address behind the base, its headers, the body."""
    request = request_of(tool, arguments)
    return request.url.removeprefix(BASE), tuple(set(request.headers) - {ACCEPT}), request.content


def test_operation_is_compiled_from_all_fields() -> None:
    found = capability(
        {
            "method": "put",
            "inputParameters": [
                {"name": "limit", "in": "query", "type": "integer"},
                {"name": "X-Version", "in": "header", "value": "v{{env.THING_KEY}}"},
                {"name": "body", "in": "body"},
            ],
            "outputParameters": [{"name": "id", "value": "$.id"}],
        },
        path="/things/{thing_id}",
        tool={"with": {"limit": "tools.count"}},
    )
    (consumed,) = found.capability.consumes
    (resource,) = consumed.resources
    (declared,) = resource.operations
    (tool,) = found.capability.exposes[0].tools
    place = DeclaredOperation(consumed, resource, declared, Policies("f.yaml", consumed))
    compiled = compile_operation(found, tool, "thing", place)
    operation, arguments = compiled.operation, compiled.arguments
    assert operation == Operation(
        name="op",
        provider="thing",
        namespace="things",
        method="PUT",
        base=operation.base,
        path=("/things/", ArgumentReference("thing_id")),
        parameters=(
            Parameter("thing_id", Location.PATH, "thing_id"),
            Parameter("limit", Location.QUERY, "count"),
            Parameter("X-Version", Location.HEADER, None, ("v", Variable(("THING_KEY",)))),
            Parameter("body", Location.BODY, "body"),
        ),
        body=ArgumentReference("body"),
    )
    assert arguments == [
        Argument(
            "thing_id", InputParameter(name="thing_id", type="string", required=True), Location.PATH, required=True
        ),
        Argument("count", declared.input_parameters[0], Location.QUERY, required=False),
        Argument("body", declared.input_parameters[2], Location.BODY, required=False),
    ]
    assert compiled.dropped == frozenset()


@pytest.mark.parametrize(("own", "path"), [(None, "/resource"), ("/own", "/own"), ("", "")])
def test_path_is_that_of_operation_or_resource(own: str | None, path: str) -> None:
    consumed = Consumed()
    found = DeclaredOperation(
        consumed, ConsumedResource(path="/resource"), ConsumedOperation(name="op", path=own), Policies("f", consumed)
    )
    assert found.path == path


# What `with` gives


@pytest.mark.parametrize(
    ("given", "arguments", "url"),
    [
        ("run {{tools.id}} of {{n}}", {"id": "a/b", "n": 5}, "/things?q=run%20a%2Fb%20of%205"),
        ("run {{tools.id}} of {{n}}", {"n": True}, "/things?q=run%20%20of%20true"),
        ("{{id}}-{{env.THING_KEY}}", {"id": "x"}, "/things?q=x-key-123456"),
        ("{{id}}{{n}}", {}, "/things?q="),
        (["{{id}}", "fixed", "tools.n"], {"id": {"a": 1}, "n": "x"}, "/things?q=%7B%22a%22%3A1%7D&q=fixed&q=x"),
        (["{{id}}", "fixed"], {}, "/things?q=fixed"),
        ({"a": "tools.id", "b": {"c": "n={{n}}"}}, {"id": 1, "n": 2}, None),
    ],
)
def test_template_in_with_is_filled_by_the_caller(given: Any, arguments: Json, url: str | None) -> None:
    tool = tool_of(inputs({"name": "q", "in": "query", "required": True}), tool={"with": {"q": given}})
    names, required = arguments_of(tool)
    assert set(names) <= {"id", "n"}
    assert set(arguments) <= set(names)
    assert required == []
    assert sent(tool, arguments)[0] == (url or "/things?q=%7B%22a%22%3A1%2C%22b%22%3A%7B%22c%22%3A%22n%3D2%22%7D%7D")


def test_template_in_the_path_is_one_encoded_segment() -> None:
    tool = tool_of(path="/repos/{name}/x", tool={"with": {"name": "{{tools.owner}}/{{tools.repo}}"}})
    assert arguments_of(tool) == (["owner", "repo"], [])
    assert sent(tool, {"owner": "a", "repo": ".."})[0] == "/repos/a%2F../x"


@pytest.mark.parametrize("location", ["path", "query", "header", "body"])
def test_literal_in_with_is_sent_in_the_location_of_its_input(location: str) -> None:
    path = "/{v}" if location == "path" else "/things"
    tool = tool_of(
        inputs({"name": "v", "in": location, "required": True}, method="POST"), path=path, tool={"with": {"v": "v1.2"}}
    )
    assert tool.input_schema == schema()
    assert (
        sent(tool, {"v": "callers"})
        == {
            "path": ("/v1.2", (), None),
            "query": ("/things?v=v1.2", (), None),
            "header": ("/things", (("v", "v1.2"),), None),
            "body": ("/things", (("Content-Type", "application/json"),), b'{"v":"v1.2"}'),
        }[location]
    )


@pytest.mark.parametrize(
    ("declared", "required"),
    [
        ([{"in": "query"}, {"in": "header"}], []),
        ([{"in": "query", "required": True}, {"in": "header"}], ["same"]),
        ([{"in": "query"}, {"in": "header", "required": True}], ["same"]),
        ([{"in": "query"}, {"in": "header", "env": "OTHER", "required": True}], []),
    ],
)
def test_two_inputs_may_share_an_argument(declared: list[Json], required: list[str]) -> None:
    named = [{"name": name, **one} for name, one in zip(("a", "X-B"), declared, strict=True)]
    tool = tool_of(inputs(*named), tool={"with": {"a": "tools.same", "X-B": "tools.same"}})
    assert arguments_of(tool) == (["same"], required)
    assert sent(tool, {"same": "v"})[:2] == ("/things?a=v", (("X-B", "v"),))


def test_shared_argument_has_the_description_of_the_first_input() -> None:
    tool = tool_of(
        inputs(
            {"name": "a", "in": "query", "type": "integer", "description": "First."},
            {"name": "b", "in": "query", "type": "string", "required": True},
        ),
        tool={"with": {"a": "tools.n", "b": "tools.n"}},
    )
    assert tool.input_schema == schema(["n"], n={"type": "integer", "description": "First."})


@pytest.mark.parametrize(
    ("method", "given", "arguments", "request_sent"),
    [
        # A body on a method that takes one
        ("POST", {"body": "tools.body"}, {"body": [1]}, ("/things", b"[1]")),
        ("PUT", {"body": "tools.data"}, {"data": {}}, ("/things", b"{}")),
        ("PATCH", {"body": "rest.body"}, {}, ("/things", None)),
        ("DELETE", {"body": "{{given}}"}, {"given": 5}, ("/things", b"5")),
        ("POST", {"body": {"a": "tools.a", "b": 5}}, {"a": "x"}, ("/things", b'{"a":"x","b":5}')),
        ("GET", {"body": "tools.body"}, {"body": "x"}, ("/things?body=x", None)),
        ("HEAD", {"body": "tools.body"}, {"body": "x"}, ("/things?body=x", None)),
        # Anything else is of the query.
        ("GET", {"q": "tools.q"}, {"q": "x"}, ("/things?q=x", None)),
        ("POST", {"page[size]": "tools.n"}, {"n": 5}, ("/things?page%5Bsize%5D=5", None)),
        ("GET", {"q": "fixed", "r": 5, "s": [1, 2]}, {}, ("/things?q=fixed&r=5&s=1&s=2", None)),
        ("GET", {"q": "a{{x}}"}, {"x": 1}, ("/things?q=a1", None)),
        ("GET", {"q": None, "body": None}, {}, ("/things", None)),
        # Server headers are accepted and dropped.
        ("GET", {"Accept": "tools.Accept"}, {"Accept": "x"}, ("/things", None)),
        ("GET", {"content-type": "tools.type"}, {"type": "x"}, ("/things", None)),
        ("GET", {"Authorization": "Bearer x", "HOST": "x", "Content-Length": 5}, {}, ("/things", None)),
    ],
)
def test_undeclared_input_in_with_has_a_location(
    method: str, given: Json, arguments: Json, request_sent: tuple[str, bytes | None]
) -> None:
    tool = tool_of({"method": method}, tool={"with": given})
    url, headers, content = sent(tool, arguments)
    assert (url, content) == request_sent
    assert headers == ((("Content-Type", "application/json"),) if content else ())
    assert set(arguments) <= set(tool.input_schema["properties"]) | tool.dropped_arguments
    assert arguments_of(tool)[1] == []


def test_server_header_is_dropped_under_its_name_in_with() -> None:
    tool = tool_of(tool={"with": {"Accept": "tools.given", "Content-Type": "text/plain"}})
    assert tool.input_schema == schema()
    assert tool.dropped_arguments == {"given", "Content-Type"}


def test_names_in_path_or_body_template_are_not_added_to_the_query() -> None:
    tool = tool_of(
        {"method": "POST", "body": {"a": "{{a}}", "b": "{{tools.c}}"}},
        path="/{id}",
        tool={"with": {"id": "tools.thing", "a": "tools.x", "b": "tools.c"}},
    )
    assert arguments_of(tool) == (["thing", "x", "c"], ["thing"])
    assert sent(tool, {"thing": "t", "x": 1, "c": 2})[0::2] == ("/t", b'{"a":1,"b":2}')


def test_argument_of_a_declared_and_an_undeclared_input_is_sent_twice() -> None:
    tool = tool_of(path="/{id}", tool={"with": {"id": "tools.id", "thing": "tools.id"}})
    assert arguments_of(tool) == (["id"], ["id"])
    assert sent(tool, {"id": "7"})[0] == "/7?thing=7"


@pytest.mark.parametrize("broken", ["{{x", "{{}}", ["{{x"], {"a": "{{"}])
def test_unclosed_placeholder_in_with_makes_the_operation_unsupported(broken: Any) -> None:
    tool = tool_of(inputs({"name": "q", "in": "query"}), tool={"with": {"q": broken}})
    assert tool.operation.unsupported is not None
    assert re.match(r"things-api\.yaml has an? (unclosed )?placeholder ", tool.operation.unsupported)


# Arguments


@pytest.mark.parametrize(
    ("refinement", "expected", "required"),
    [
        ({}, {"type": "string", "description": "Theirs."}, False),
        ({"type": "integer"}, {"type": "integer", "description": "Theirs."}, False),
        ({"description": "Ours."}, {"type": "string", "description": "Ours."}, False),
        ({"required": True}, {"type": "string", "description": "Theirs."}, True),
        ({"schema": {"minLength": 1}}, {"type": "string", "description": "Theirs.", "minLength": 1}, False),
        ({"type": None, "description": None}, {"type": "string", "description": "Theirs."}, False),
    ],
)
def test_inputs_of_the_tool_refine_its_arguments(refinement: Json, expected: Json, required: bool) -> None:
    tool = tool_of(
        inputs({"name": "q", "in": "query", "type": "string", "description": "Theirs."}),
        tool={"with": {"q": "tools.given"}, "inputParameters": [{"name": "given", **refinement}, {"name": "unused"}]},
    )
    assert tool.input_schema == schema(["given"] if required else None, given=expected)


@pytest.mark.parametrize(
    ("location", "required"),
    [("path", ["x"]), ("query", []), ("header", []), ("body", [])],
)
def test_tool_may_make_an_argument_optional_except_in_the_path(location: str, required: list[str]) -> None:
    tool = tool_of(
        inputs({"name": "x", "in": location, "required": True}, method="POST"),
        path="/{x}" if location == "path" else "/",
        tool={"inputParameters": [{"name": "x", "required": False}]},
    )
    assert arguments_of(tool) == (["x"], required)


def test_constant_may_refer_to_inputs_of_the_tool() -> None:
    tool = tool_of(
        inputs({"name": "q", "in": "query", "value": "{{given}} {{tools.other}} {{MY_REGION}}"}),
        tool={"inputParameters": [{"name": "given", "type": "string", "required": True}]},
    )
    assert tool.input_schema == schema(["given"], given={"type": "string"}, other={})
    request = request_of(tool, {"given": "a", "other": "b", "MY_REGION": "c"}, {"MY_REGION": "eu"})
    assert request.url == f"{BASE}/things?q=a%20b%20eu"


def test_constant_may_refer_to_names_in_with() -> None:
    tool = tool_of(
        inputs({"name": "X-Of", "in": "header", "value": "thing {{id}}"}),
        path="/{id}",
        tool={"with": {"id": "tools.thing"}},
    )
    assert arguments_of(tool) == (["thing"], ["thing"])
    assert sent(tool, {"thing": "7"})[:2] == ("/7", (("X-Of", "thing 7"),))


def test_with_maps_the_placeholders_of_a_template() -> None:
    body = {
        "named": "{{a}}",
        "text": "<{{a}}|{{n}}|{{t}}>",
        "fixed": "{{n}}",
        "list": ["{{l}}"],
        "own": "{{z}}",
        "gone": "{{none}}",
    }
    given = {"a": "tools.x", "n": 5, "t": "v{{y}}", "l": [1, "tools.x"], "none": None}
    tool = tool_of({"method": "POST", "body": body}, tool={"with": given})
    assert arguments_of(tool) == (["x", "y", "z"], [])
    assert sent(tool, {"x": "X", "y": "Y", "z": 0})[0::2] == (
        "/things",
        b'{"named":"X","text":"<X|5|vY>","fixed":5,"list":[[1,"X"]],"own":0,"gone":null}',
    )


@pytest.mark.parametrize(
    ("given", "text"),
    [([1, 2], "<1,2>"), ([1, "tools.x"], "<1,X>"), ({"a": 1}, '<{"a":1}>'), ({"a": "tools.x"}, '<{"a":"X"}>')],
)
def test_list_or_object_in_with_may_be_part_of_a_text(given: Any, text: str) -> None:
    tool = tool_of({"method": "POST", "body": {"type": "text", "data": "<{{l}}>"}}, tool={"with": {"l": given}})
    assert sent(tool, {"x": "X"})[0::2] == ("/things", text.encode())


def test_template_may_refer_to_inputs_of_its_operation() -> None:
    tool = tool_of(
        {
            "method": "POST",
            "body": {"type": "json", "data": {"q": "{{q}}", "v": "{{v}}", "t": "{{id}}-{{q}}"}},
            "inputParameters": [
                {"name": "q", "in": "query", "type": "string", "required": True},
                {"name": "v", "in": "header", "value": "v1"},
            ],
        },
        path="/{id}",
        tool={"with": {"q": "tools.query"}},
    )
    assert arguments_of(tool) == (["id", "query"], ["id", "query"])
    assert sent(tool, {"id": "7", "query": "x"})[0::2] == ("/7?q=x", b'{"q":"x","v":"v1","t":"7-x"}')


def test_inputs_of_the_tool_describe_arguments_of_a_body_template() -> None:
    tool = tool_of(
        {"method": "POST", "body": {"n": "{{n}}"}},
        tool={"inputParameters": [{"name": "n", "type": "integer", "description": "How many.", "required": True}]},
    )
    assert tool.input_schema == schema(["n"], n={"type": "integer", "description": "How many."})


# What the environment gives


@pytest.mark.parametrize("path", ["/{REGION}/x", "/{{REGION}}/x", "/{{ REGION }}/x"])
def test_environment_input_is_the_variable_of_its_name(path: str) -> None:
    declared = inputs({"name": "REGION", "in": "environment", "required": True}, {"name": "q", "in": "query"})
    tool = tool_of(declared, path=path)
    assert arguments_of(tool) == (["q"], [])
    assert request_of(tool, {"REGION": "callers"}, {"REGION": "eu"}).url == f"{BASE}/eu/x"
    with pytest.raises(NotConfigured) as caught:
        request_of(tool, {}, {})
    assert caught.value.hint == "Set REGION in the server's environment and restart the server."


def test_environment_input_of_an_adapter_may_be_used_anywhere() -> None:
    tool = tool_of(
        {"method": "POST", "body": {"r": "{{REGION}}"}},
        inputParameters=[{"name": "REGION", "in": "environment"}],
        baseUri="https://{{REGION}}.example",
        authentication={"type": "bearer", "token": "{{REGION}}-x"},
    )
    request = request_of(tool, {}, {"REGION": "eu"})
    assert tool.input_schema == schema()
    assert (request.url, dict(request.headers)["Authorization"], request.content) == (
        "https://eu.example/things",
        "Bearer eu-x",
        b'{"r":"eu"}',
    )


OF_THE_CONNECTION = [
    # https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1 and the headers that define where a request ends
    *("Connection", "Keep-Alive", "Proxy-Connection", "TE", "Transfer-Encoding", "Upgrade", "transfer-encoding"),
    *("Host", "Content-Length", "Expect", "Trailer", "Proxy-Authorization"),
]


@pytest.mark.parametrize("name", OF_THE_CONNECTION)
@pytest.mark.parametrize("given", ["", "tools.x", "chunked"])
@pytest.mark.parametrize("is_declared", [True, False])
def test_connection_header_is_never_an_argument(name: str, given: str, is_declared: bool) -> None:
    declared = inputs({"name": name, "in": "header", "required": True}) if is_declared else {}
    tool = tool_of(declared, tool={"with": {name: given}} if given else {})
    assert tool.input_schema == schema()
    assert request_of(tool, {name: "chunked", "x": "chunked"}) == request_of(tool_of())
    taken = "x" if given == "tools.x" else name
    assert tool.dropped_arguments == ({taken} if is_declared or given else set())


@pytest.mark.parametrize(
    ("name", "value", "sent_as"),
    [
        ("Accept", "text/csv", ("Accept", "text/csv")),
        ("accept", "text/csv", ("accept", "text/csv")),
        ("Content-Type", "application/vnd.api+json", ("Content-Type", "application/vnd.api+json")),
        ("Authorization", "Token {{env.THING_KEY}}", ("Authorization", "Token key-123456")),
        *((name, "chunked", None) for name in OF_THE_CONNECTION),
    ],
)
def test_constant_header_is_sent_unless_it_is_a_connection_header(
    name: str, value: Any, sent_as: tuple[str, str] | None
) -> None:
    tool = tool_of(
        inputs({"name": name, "in": "header", "value": value}, {"name": "body", "in": "body"}, method="POST")
    )
    headers = request_of(tool, {"body": 1}).headers
    assert [pair for pair in headers if pair[0].lower() == name.lower()] == ([sent_as] if sent_as else [])
    assert arguments_of(tool) == (["body"], [])


def test_authentication_wins_over_a_constant_header() -> None:
    tool = tool_of(
        inputs({"name": "authorization", "in": "header", "value": "constant"}),
        authentication={"type": "bearer", "token": "{{env.THING_KEY}}"},
    )
    assert request_of(tool).headers == (ACCEPT, ("Authorization", "Bearer key-123456"))


# Where nothing can be sent


@pytest.mark.parametrize(
    ("operation", "path", "consumed", "problem"),
    [
        (
            {"method": "trace"},
            "/",
            {},
            "the unknown method 'trace'; use one of DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT",
        ),
        ({"method": ""}, "/", {}, "the unknown method ''; use one of DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
        ({}, "/", {"type": "grpc"}, "`consumes` of the unsupported type 'grpc'"),
        ({}, "https://other.example/x", {}, "a URL instead of a path: 'https://other.example/x'"),
        ({"path": "HTTP://other.example"}, "/", {}, "a URL instead of a path: 'HTTP://other.example'"),
        ({}, "/a/../b", {}, "a path with the segment . or ..: '/a/../b'"),
        ({}, "/a/%2e./b", {}, "a path with the segment . or ..: '/a/%2e./b'"),
        ({}, "./a", {}, "a path with the segment . or ..: './a'"),
        ({}, "/a/{x", {}, "an unmatched brace in '/a/{x'"),
        ({}, "/a/{{x}", {}, "an unmatched brace in '/a/{{x}'"),
        ({}, "/a/{}", {}, "a placeholder without a name in '/a/{}'"),
        ({}, "/a{?q,limit}", {}, "the RFC 6570 expression {?q,limit} in '/a{?q,limit}', which is not supported"),
        ({"body": {"{{x}}": 1}, "method": "POST"}, "/", {}, "a placeholder in a key, '{{x}}'"),
        (
            {"body": {"type": "form", "data": {"a-{{x}}": 1}}, "method": "POST"},
            "/",
            {},
            "a placeholder in a key, 'a-{{x}}'",
        ),
        (
            {"body": {"type": "json", "data": '[{"{{x}}": 1}]'}, "method": "POST"},
            "/",
            {},
            "a placeholder in a key, '{{x}}'",
        ),
        (inputs({"name": "q", "in": "querry"}), "/", {}, "the parameter 'q' in the unknown location 'querry'"),
        (
            inputs({"name": "q", "in": "Query"}, {"name": "m", "in": "matrix", "value": 1}),
            "/",
            {},
            "the parameter 'm' in the unknown location 'matrix'",
        ),
        (
            {},
            "/",
            {"inputParameters": [{"name": "q", "in": ""}, {"name": "r", "in": "headers"}]},
            "the parameter 'r' in the unknown location 'headers'",
        ),
        (
            inputs({"name": "id", "in": "path"}),
            "/things",
            {},
            "the path parameter 'id', for which the path '/things' has no placeholder",
        ),
        (
            inputs({"name": "id", "in": "path"}, path="/own/{other}"),
            "/{id}",
            {},
            "the path parameter 'id', for which the path '/own/{other}' has no placeholder",
        ),
        # A place is known in capitals too.
        (
            inputs({"name": "id", "in": "Path"}),
            "/things",
            {},
            "the path parameter 'id', for which the path '/things' has no placeholder",
        ),
        (inputs({"name": "a b", "in": "Header"}), "/", {}, "the header parameter 'a b', which is not a valid name"),
        (inputs({"name": "a b", "in": "header"}), "/", {}, "the header parameter 'a b', which is not a valid name"),
        (inputs({"name": "größe", "in": "cookie"}), "/", {}, "the cookie parameter 'größe', which is not a valid name"),
        (
            inputs({"name": "X\r\nY", "in": "header", "value": "1"}),
            "/",
            {},
            "the header parameter 'X\\r\\nY', which is not a valid name",
        ),
        (
            inputs({"name": "q", "in": "query", "value": "a {{"}),
            "/",
            {},
            "an unclosed placeholder in 'a {{'",
        ),
        ({}, "/", {"baseUri": "https://{{env.HOST"}, "an unclosed placeholder in 'https://{{env.HOST'"),
        (
            {},
            "/",
            {"authentication": {"type": "bearer", "token": "{{env.THING_KEY"}},
            "an unclosed placeholder in '{{env.THING_KEY'",
        ),
        # Of several the first in the order of the request
        ({"method": "TRACE", "path": "/{x"}, "/", {"type": "grpc"}, "an unmatched brace in '/{x'"),
    ],
)
def test_unsupported_operation_has_a_reason(operation: Json, path: str, consumed: Json, problem: str) -> None:
    tool = tool_of(operation, path=path, **consumed)
    with pytest.raises(NotConfigured) as caught:
        request_of(tool, dict.fromkeys(tool.input_schema["properties"], "x"))
    assert caught.value.to_json() == {
        "kind": "unsupported",
        "message": f"things-api.yaml has {problem}",
        "retryable": False,
        "hint": "This tool cannot be called.",
    }


def test_unknown_location_affects_operations_of_its_resource_only() -> None:
    given = document()
    resources = given["capability"]["consumes"][0]["resources"]
    resources.append({"path": "/more", "operations": [{"name": "more"}], "inputParameters": [{"name": "a", "in": "x"}]})
    given["capability"]["exposes"][0]["tools"].append({"name": "more", "call": "things.more"})
    tools = compile_tools([parse_capability(given, "f.yaml")])
    assert [tool.operation.unsupported for tool in tools] == [
        None,
        "f.yaml has the parameter 'a' in the unknown location 'x'",
    ]


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize("place", ["formData", "formdata", "form", "Form"])
def test_form_fields_are_sent_as_a_form(place: str) -> None:
    tool = tool_of(
        inputs(
            {"name": "From", "in": place, "type": "string", "required": True},
            {"name": "tags", "in": place, "type": "array"},
            {"name": "v", "in": place, "value": "1.0"},
            method="POST",
        )
    )
    assert arguments_of(tool) == (["From", "tags"], ["From"])
    assert sent(tool, {"From": "me & you", "tags": ["a", "b"]}) == (
        "/things",
        (("Content-Type", FORM),),
        b"From=me%20%26%20you&tags=a&tags=b&v=1.0",
    )
    assert sent(tool, {"From": "me"})[2] == b"From=me&v=1.0"


def test_empty_form_is_not_sent() -> None:
    tool = tool_of(inputs({"name": "a", "in": "formData"}, {"name": "f", "in": "form", "type": "file"}, method="POST"))
    assert sent(tool, {}) == ("/things", (), None)


@pytest.mark.parametrize("scope", ["adapter", "operation"])
def test_form_with_a_file_is_multipart(scope: str) -> None:
    fields = [{"name": "file", "in": "formData", "type": "file"}, {"name": "n", "in": "formData", "type": "integer"}]
    operation: Json = {"method": "POST"} | ({"inputParameters": fields} if scope == "operation" else {})
    tool = tool_of(operation, **({"inputParameters": fields} if scope == "adapter" else {}))
    assert tool.input_schema == schema(file={}, n={"type": "integer"})
    _, ((name, content_type),), content = sent(tool, {"file": "a,b", "n": 5})
    kind, _, boundary = content_type.partition("; boundary=")
    assert (name, kind) == ("Content-Type", "multipart/form-data")
    assert (
        content
        == (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"\r\n\r\na,b\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="n"\r\n\r\n5\r\n--{boundary}--\r\n'
        ).encode()
    )


def test_body_template_wins_over_form_fields() -> None:
    tool = tool_of(
        inputs({"name": "a", "in": "formData"}, method="POST", body={"type": "json", "data": {"x": "{{a}}"}})
    )
    assert sent(tool, {"a": "1"}) == ("/things", (("Content-Type", "application/json"),), b'{"x":"1"}')


@pytest.mark.parametrize("scope", ["adapter", "resource"])
@pytest.mark.parametrize("place", ["header", "cookie"])
def test_header_name_with_line_breaks_is_never_sent(scope: str, place: str) -> None:
    given = document()
    adapter = given["capability"]["consumes"][0]
    part = adapter if scope == "adapter" else adapter["resources"][0]
    part["inputParameters"] = [{"name": "X-A: 1\r\nX-B", "in": place, "value": "x"}]
    (tool,) = compile_tools([parse_capability(given, "f.yaml")])
    with pytest.raises(NotConfigured, match="which is not a valid name"):
        request_of(tool)


def test_path_parameter_of_adapter_or_resource_needs_no_placeholder() -> None:
    given = document(inputParameters=[{"name": "a", "in": "path"}])
    given["capability"]["consumes"][0]["resources"][0]["inputParameters"] = [{"name": "b", "in": "path"}]
    (tool,) = compile_tools([parse_capability(given, "f.yaml")])
    assert (tool.operation.unsupported, tool.input_schema) == (None, schema())


# The path


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("things", "/things"),
        ("{id}", "/7"),
        ("", ""),
        ("?a=b", "?a=b"),
        ("/a b/ö", "/a%20b/%C3%B6"),
        ("/a%20b", "/a%20b"),
        ('/a"<>\\^`|b', "/a%22%3C%3E%5C%5E%60%7Cb"),
        ("/a#b", "/a"),
        ("/x?a=b", "/x?a=b"),
        ("/x?a={id}&b=c d", "/x?a=7&b=c%20d"),
        ("/things/", "/things/"),
        ("//things", "//things"),
        ("/a:run/@me/(x)/$y,z;w=1", "/a:run/@me/(x)/$y,z;w=1"),
        ("/[x]", "/%5Bx%5D"),
    ],
)
def test_path_text_is_percent_encoded(path: str, url: str) -> None:
    tool = tool_of(path=path)
    assert request_of(tool, {"id": 7}).url == BASE + url


@pytest.mark.parametrize(("path", "joined"), [("/x?a=b", "/x?a=b&q=1"), ("/x", "/x?q=1"), ("/x?", "/x?&q=1")])
def test_query_is_added_to_that_of_the_path(path: str, joined: str) -> None:
    assert sent(tool_of(inputs({"name": "q", "in": "query"}), path=path), {"q": 1})[0] == joined


@pytest.mark.parametrize("place", ["PATH", "Query", "HEADER"])
def test_location_is_case_insensitive(place: str) -> None:
    written, plain = (
        tool_of(inputs({"name": "a", "in": spelled}), path="/{a}" if place == "PATH" else "/")
        for spelled in (place, place.lower())
    )
    assert written.input_schema == plain.input_schema
    assert request_of(written, {"a": "v"}) == request_of(plain, {"a": "v"})


# The address


def several(*providers: Json) -> list[Tool]:
    """A tool of each of these providers of one file."""
    given = document()
    given["capability"]["consumes"] = [
        {"resources": [{"path": "/", "operations": [{"name": "op"}]}], **one} for one in providers
    ]
    given["capability"]["exposes"][0]["tools"] = [
        {"name": one["namespace"], "call": f"{one['namespace']}.op"} for one in providers
    ]
    return list(compile_tools([parse_capability(given, "f.yaml")]))


@pytest.mark.parametrize(
    ("providers", "variables"),
    [
        ([{"namespace": "api"}], ["THING_BASE_URL"]),
        ([{"namespace": "api"}, {"namespace": "my.auth"}], ["THING_API_BASE_URL", "THING_MY_AUTH_BASE_URL"]),
        # What is not called is none of several.
        ([{"namespace": "api"}, {"namespace": "files", "type": "file"}], ["THING_BASE_URL", "THING_BASE_URL"]),
        ([{"namespace": "api"}, {"namespace": "other", "import": "other"}], ["THING_BASE_URL", "THING_BASE_URL"]),
    ],
)
def test_each_provider_of_a_file_has_its_own_base_uri_variable(providers: list[Json], variables: list[str]) -> None:
    tools = several(*providers)
    assert [tool.operation.base.variables for tool in tools] == [(name,) for name in variables]
    with pytest.raises(NotConfigured) as caught:
        request_of(tools[0], {}, {})
    assert caught.value.hint == (
        f"Set {variables[0]} in the server's environment to the provider's base URL, "
        f"or start the server with `--base-uri {providers[0]['namespace']}=URL`."
    )


def test_given_base_uri_has_no_variable() -> None:
    (tool,) = compile_tools([capability()], base_uris={"things": "https://own.example"})
    assert request_of(tool, {}, {"THING_BASE_URL": "https://other.example"}).url == "https://own.example/things"


@pytest.mark.parametrize("address", ["https://{host}", "http://own.example", "https://a b"])
def test_invalid_given_base_uri_is_rejected_with_its_flag(address: str) -> None:
    (tool,) = compile_tools([capability()], base_uris={"things": address})
    with pytest.raises(NotConfigured) as caught:
        request_of(tool, {}, {"THING_BASE_URL": "https://other.example"})
    assert caught.value.kind == "config"
    assert "--base-uri things" in caught.value.hint
    assert not re.search("Set --base-uri .* in the server's environment", caught.value.hint)


def test_digest_user_with_a_colon_is_rejected() -> None:
    digest = {"type": "digest", "username": "{{env.USER_NAME}}", "password": "{{env.PASSWORD}}"}
    tool = tool_of(authentication=digest)
    assert request_of(tool, {}, {"USER_NAME": "user", "PASSWORD": "a:b"}).digest == ("user", "a:b")
    with pytest.raises(NotConfigured, match="contains a colon"):
        request_of(tool, {}, {"USER_NAME": "us:er", "PASSWORD": "a:b"})


def test_missing_base_uri_without_namespace_names_its_variable() -> None:
    with pytest.raises(NotConfigured) as caught:
        request_of(tool_of(baseUri="", namespace="", tool={"call": ".op"}), {}, {})
    assert caught.value.hint == "Set THING_BASE_URL in the server's environment to the provider's base URL."


@pytest.mark.parametrize(
    ("environment", "outcome"),
    [
        ({"HOST": "eu.example", "THING_KEY": "v1"}, "https://eu.example/v1/things"),
        ({"HOST": "eu.example", "THING_KEY": "v1", "THING_BASE_URL": "https://own.example"}, "https://own.example/things"),
        ({"HOST": "a b", "THING_KEY": "v1"}, "the provider's base URL is not valid"),
        ({"HOST": "eu.example", "THING_KEY": "v1?x"}, "the provider's base URL is not valid"),
        ({"HOST": "me@eu.example", "THING_KEY": "v1"}, "the provider's base URL is not valid"),
        ({"HOST": "größe.example", "THING_KEY": "v1"}, "contains characters other than printable ASCII"),
        ({"HOST": "eu.example"}, "a part of the provider's base URL is not set"),
        ({"HOST": " ", "THING_KEY": "v1"}, "a part of the provider's base URL is not set"),
    ],
)  # fmt: skip
def test_base_uri_is_filled_from_the_environment(environment: Json, outcome: str) -> None:
    tool = tool_of(baseUri="https://{{env.HOST}}/{{THING_KEY}}/")
    if outcome.startswith("https://"):
        assert request_of(tool, {}, environment).url == outcome
    else:
        with pytest.raises(NotConfigured, match=outcome):
            request_of(tool, {}, environment)


def test_missing_variable_of_the_base_uri_is_a_configuration_error() -> None:
    with pytest.raises(NotConfigured) as caught:
        request_of(tool_of(baseUri="https://{{env.HOST}}"), {}, KEY)
    assert caught.value.to_json() == {
        "kind": "config",
        "message": "a part of the provider's base URL is not set",
        "retryable": False,
        "hint": "Set HOST in the server's environment and restart the server.",
    }


@pytest.mark.parametrize("place", ["form", "formData"])
def test_form_field_named_body_is_a_field(place: str) -> None:
    tool = tool_of({"method": "POST", "inputParameters": [{"name": "body", "in": place}]})
    request = request_of(tool, {"body": "hi & you"}, {"THING_BASE_URL": "https://api.example"})
    assert (dict(request.headers)["Content-Type"], request.content) == (
        "application/x-www-form-urlencoded",
        b"body=hi%20%26%20you",
    )


@pytest.mark.parametrize("kind", ["file", ["file", "null"]])
def test_form_with_a_file_has_parts(kind: Any) -> None:
    tool = tool_of({"method": "POST", "inputParameters": [{"name": "body", "in": "form", "type": kind}]})
    request = request_of(tool, {"body": "hi"}, {"THING_BASE_URL": "https://api.example"})
    assert dict(request.headers)["Content-Type"].startswith("multipart/form-data; boundary=")
    assert b'name="body"\r\n\r\nhi\r\n' in (request.content or b"")


@pytest.mark.parametrize(
    "operation",
    [
        {"method": "POST", "body": '{"{{x}}": 1}'},
        {"method": "POST", "inputParameters": [{"name": "body", "in": "body", "value": {"{{x}}": 1}}]},
    ],
)
def test_placeholder_in_a_key_makes_the_operation_unsupported(operation: Json) -> None:
    with pytest.raises(NotConfigured, match="a placeholder in a key"):
        request_of(tool_of(operation), {}, {"THING_BASE_URL": "https://api.example"})


@pytest.mark.parametrize("name", ["Transfer-Encoding", "content-length", "Host"])
def test_api_key_in_a_connection_header_is_rejected(name: str) -> None:
    tool = tool_of(authentication={"type": "apikey", "header": name, "value": "chunked"})
    with pytest.raises(NotConfigured, match="which is not a valid header name"):
        request_of(tool, {}, {"THING_BASE_URL": "https://api.example"})
