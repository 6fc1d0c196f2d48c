"""Bodies of operations: parameters, declared types, and arguments that tools map into the body."""

import json
from typing import Any

import pytest

from mcp_taskruns.core.calls.bodies import encode_body
from mcp_taskruns.core.format.compiler import compile_tools
from mcp_taskruns.core.rest.routes import compile_routes
from mcp_taskruns.errors import CapabilityError, NotConfigured
from tests.core.documents import Json, capability, inputs, request_of, tool_of


def post(*parameters: Json, **operation: Any) -> Json:
    return inputs(*parameters, method="POST", **operation)


def sent(tool: Any, arguments: Json) -> Any:
    """Return the JSON that a call sends, or None for no body."""
    content = request_of(tool, arguments).content
    return None if content is None else json.loads(content)


@pytest.mark.parametrize("name", ["_body", "payload", "Body", "body"])
@pytest.mark.parametrize("value", [{"a": 1}, [1], "text", 5, False, {}])
def test_single_body_parameter_of_any_name_is_the_whole_body(name: str, value: Any) -> None:
    tool = tool_of(post({"name": name, "in": "body"}), tool={"with": {name: f"tools.{name}"}})
    assert sent(tool, {name: value}) == value
    assert sent(tool, {}) is None


def test_whole_body_may_be_renamed_or_built_in_with() -> None:
    operation = post({"name": "_body", "in": "body", "type": "object"})
    assert sent(tool_of(operation, tool={"with": {"_body": "tools.job"}}), {"job": {"a": 1}}) == {"a": 1}
    built = tool_of(operation, tool={"with": {"_body": {"query": "tools.q", "limit": 5}}})
    assert sent(built, {"q": "x"}) == {"query": "x", "limit": 5}


def test_several_body_parameters_are_members_even_if_with_omits_one() -> None:
    operation = post({"name": "a", "in": "body"}, {"name": "b", "in": "body"})
    assert sent(tool_of(operation, tool={"with": {"a": "tools.a", "b": None}}), {"a": 1}) == {"a": 1}


def test_constant_body_parameter_is_a_member() -> None:
    operation = post({"name": "grant_type", "in": "body", "value": "client_credentials"})
    assert sent(tool_of(operation), {}) == {"grant_type": "client_credentials"}
    scope = {"name": "scope", "in": "body"}
    both = tool_of(post({"name": "grant_type", "in": "body", "value": "client_credentials"}, scope))
    assert sent(both, {"scope": "all"}) == {"grant_type": "client_credentials", "scope": "all"}


def test_whole_body_of_another_name_is_the_whole_body_of_a_route() -> None:
    given = capability(post({"name": "_body", "in": "body"}))
    route = {"type": "rest", "resources": [{"path": "/v1/things", "operations": [{"call": "things.op"}]}]}
    whole = given.model_dump(by_alias=True, exclude_unset=True)
    whole["capability"]["exposes"] = [route]
    compiled = compile_routes(compile_tools([given.model_validate(whole)], surface="rest"), [])
    assert [one.body for one in compiled.routes] == ["_body"]


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ('{"a": [1, 2.50]}', b'{"a": [1, 2.50]}'),  # unchanged
        ('"quoted"', b'"quoted"'),
        ("5", b"5"),
        ("plain", b'"plain"'),
        ("{not json", b'"{not json"'),
        ("NaN", b'"NaN"'),
        ("", b'""'),
    ],
)
@pytest.mark.parametrize("name", ["body", "_body"])
def test_json_text_of_a_string_body_is_passed_through(name: str, text: str, content: bytes) -> None:
    request = request_of(tool_of(post({"name": name, "in": "body", "type": "string"})), {name: text})
    assert request.content == content
    assert dict(request.headers)["Content-Type"] == "application/json"


def test_value_of_a_body_that_may_be_json_text_is_encoded() -> None:
    assert encode_body({"a": 1}, "json_text") == ("application/json", b'{"a":1}')


@pytest.mark.parametrize("kind", [None, "object", ["object", "null"]])
def test_text_in_a_body_of_another_type_is_a_json_string(kind: Any) -> None:
    tool = tool_of(post({"name": "body", "in": "body", "type": kind}))
    assert request_of(tool, {"body": '{"a":1}'}).content == b'"{\\"a\\":1}"'


def test_json_body_without_data_takes_an_argument() -> None:
    tool = tool_of({"method": "POST", "body": {"type": "json"}})
    assert tool.input_schema == {"type": "object", "properties": {"body": {}}, "additionalProperties": False}
    assert (sent(tool, {"body": {"a": 1}}), sent(tool, {})) == ({"a": 1}, None)
    renamed = tool_of({"method": "POST", "body": {"type": "json"}}, tool={"with": {"body": "tools.job"}})
    assert sent(renamed, {"job": [1]}) == [1]


def test_json_body_without_data_may_declare_its_parameters() -> None:
    members = [{"name": "a", "in": "body", "type": "integer"}, {"name": "b", "in": "body"}]
    tool = tool_of(post(*members, body={"type": "json"}))
    assert sent(tool, {"a": 1, "b": "x"}) == {"a": 1, "b": "x"}
    whole = tool_of(post({"name": "job", "in": "body", "description": "What to do."}, body={"type": "json"}))
    assert whole.input_schema["properties"] == {"job": {"description": "What to do."}}
    assert sent(whole, {"job": {"a": 1}}) == {"a": 1}


@pytest.mark.parametrize(
    ("kind", "value", "content_type", "content"),
    [
        ("formUrlEncoded", {"a": "x y", "b": 1}, "application/x-www-form-urlencoded", b"a=x%20y&b=1"),
        ("text", "x {y}", "text/plain; charset=utf-8", b"x {y}"),
        ("xml", "<a/>", "application/xml", b"<a/>"),
        ("binary", "AAE=", "application/octet-stream", b"\x00\x01"),
    ],
)
def test_body_of_any_type_without_data_takes_an_argument(
    kind: str, value: Any, content_type: str, content: bytes
) -> None:
    request = request_of(tool_of({"method": "POST", "body": {"type": kind}}), {"body": value})
    assert (dict(request.headers)["Content-Type"], request.content) == (content_type, content)


def test_form_without_data_consists_of_its_parameters() -> None:
    fields = [{"name": "a", "in": "body"}, {"name": "b", "in": "body", "value": "c"}]
    request = request_of(tool_of(post(*fields, body={"type": "form"})), {"a": "x"})
    assert (dict(request.headers)["Content-Type"], request.content) == (
        "application/x-www-form-urlencoded",
        b"a=x&b=c",
    )
    parts = request_of(tool_of(post(*fields, body={"type": "multipart"})), {"a": "x"}).content or b""
    assert parts.count(b"Content-Disposition: form-data; name=") == 2


def test_empty_data_is_an_empty_object() -> None:
    request = request_of(tool_of({"method": "POST", "body": {"type": "json", "data": {}}}))
    assert (request.content, dict(request.headers)["Content-Type"]) == (b"{}", "application/json")


def mapped(*parameters: Json) -> Json:
    return {"inputParameters": list(parameters)}


QUERY = {"name": "q", "type": "string", "description": "What to find.", "mapping": "body.query"}
STATUS = {"name": "status", "type": "string", "required": True, "mapping": "body.filter.status"}


@pytest.mark.parametrize(
    ("operation", "arguments", "body"),
    [
        # The template does not name the argument, or there is none.
        (post(body={"type": "json", "data": {"limit": 5}}), {"q": "x", "status": "s"}, {"limit": 5, "query": "x"}),
        (post(body='{"filter": {"kind": "{{kind}}"}}'), {"kind": "k", "status": "s"}, {"filter": {"kind": "k"}}),
        (post(), {"q": "x", "status": "s"}, {"query": "x"}),
        (post(body={"type": "json"}), {"q": "x", "status": "s"}, {"query": "x"}),
        # The arguments replace the whole body as an argument, and stand beside other members.
        (post({"name": "body", "in": "body"}), {"q": "x", "status": "s"}, {"query": "x"}),
        (post({"name": "_body", "in": "body"}), {"q": "x", "status": "s"}, {"query": "x"}),
        (
            post({"name": "a", "in": "body"}, {"name": "b", "in": "body"}),
            {"a": 1, "b": 2, "status": "s"},
            {"a": 1, "b": 2},
        ),
    ],
)
def test_tool_argument_is_put_into_the_body_where_its_mapping_points(
    operation: Json, arguments: Json, body: Json
) -> None:
    tool = tool_of(operation, tool=mapped(QUERY, STATUS))
    properties = tool.input_schema["properties"]
    assert properties["q"] == {"type": "string", "description": "What to find."}
    assert (properties.keys(), tool.input_schema["required"]) == ({*arguments, "q"}, ["status"])
    body = {**body, "filter": {**body.get("filter", {}), "status": "s"}}
    request = request_of(tool, arguments)
    assert (json.loads(request.content or b""), request.url) == (body, "https://api.example/things")


def test_mapped_argument_in_with_is_sent_in_the_body_only() -> None:
    given = {**mapped(QUERY), "with": {"q": "tools.q"}}
    request = request_of(tool_of(post(body={"type": "json", "data": {"query": "old"}}), tool=given), {"q": "x"})
    assert (request.content, request.url) == (b'{"query":"x"}', "https://api.example/things")
    named = {**mapped(QUERY), "with": {"query": "tools.q"}}
    assert sent(tool_of(post({"name": "query", "in": "body"}), tool=named), {"q": "x"}) == {"query": "x"}


FIRST, LAST = ({"name": name, "mapping": f"body.filter.name.{name}"} for name in ("first", "last"))


@pytest.mark.parametrize(
    ("operation", "arguments", "body"),
    [
        (post(), {}, None),
        (post(body={"type": "json"}), {}, None),
        (post(), {"q": "x"}, {"query": "x"}),
        (post(), {"last": "Z"}, {"filter": {"name": {"last": "Z"}}}),
        (post({"name": "a", "in": "body"}, {"name": "b", "in": "body"}), {"a": 1}, {"a": 1}),
        (post(body={"type": "json", "data": {"limit": 5}}), {}, {"limit": 5}),
        # What the file writes is sent.
        (post(body={"type": "json", "data": {}}), {}, {}),
        (post(body={"type": "json", "data": {"filter": {}}}), {}, {"filter": {}}),
        (
            post(body={"type": "json", "data": {}}),
            {"q": None, "first": None},
            {"query": None, "filter": {"name": {"first": None}}},
        ),
    ],
)
def test_objects_around_absent_mapped_arguments_are_not_sent(operation: Json, arguments: Json, body: Any) -> None:
    assert sent(tool_of(operation, tool=mapped(QUERY, FIRST, LAST)), arguments) == body


def test_argument_may_be_mapped_to_the_whole_body() -> None:
    tool = tool_of(post({"name": "body", "in": "body"}), tool=mapped({"name": "job", "mapping": "body"}))
    assert list(tool.input_schema["properties"]) == ["job"]
    assert sent(tool, {"job": {"a": 1}}) == {"a": 1}


def test_mapping_outside_the_body_is_ignored() -> None:
    tool = tool_of(post({"name": "body_id", "in": "query"}), tool=mapped({"name": "body_id", "mapping": "$.body_id"}))
    assert request_of(tool, {"body_id": "7"}).url == "https://api.example/things?body_id=7"
    assert request_of(tool, {"body_id": "7"}).content is None


@pytest.mark.parametrize(
    ("operation", "mapping", "reason"),
    [
        (post(), "body.items[0]", "has the mapping 'body.items[0]', which is not a path of names"),
        (post(), "body..a", "has the mapping 'body..a', which is not a path of names"),
        (post(body="text {{a}}"), "body.q", "maps an argument to the member 'q' of a body that is not an object"),
        (
            post(body={"type": "json", "data": {"q": [1]}}),
            "body.q.x",
            "maps an argument to the member 'x' of a body that is not an object",
        ),
    ],
)
def test_mapping_that_cannot_be_applied_makes_the_operation_unsupported(
    operation: Json, mapping: str, reason: str
) -> None:
    with pytest.raises(NotConfigured) as caught:
        request_of(tool_of(operation, tool=mapped({"name": "q", "mapping": mapping})), {"q": 1})
    assert str(caught.value) == f"things-api.yaml {reason}"


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/oauth2/token#refresh", "/oauth2/token"),
        ("/things/{id}#part", "/things/7"),
        ("/things/{id}/x#{part}?a=1", "/things/7/x"),
        ("/things?kind=a#b", "/things?kind=a"),
        ("/things/{{id}}#", "/things/7"),
        ("#only", ""),
        ("/things/{a#b}", "/things/9"),
    ],
)
@pytest.mark.parametrize("of", ["resource", "operation"])
def test_fragment_of_a_path_is_not_sent(path: str, url: str, of: str) -> None:
    tool = tool_of(path=path) if of == "resource" else tool_of({"path": path})
    assert request_of(tool, {"id": "7", "a#b": "9"}).url == f"https://api.example{url}"
    assert "part" not in tool.input_schema["properties"]


@pytest.mark.parametrize("listed", [False, True], ids=["mapping", "list"])
def test_declared_headers_are_sent(listed: bool) -> None:
    def headers(**values: Any) -> Any:
        return [{"name": name, "value": value} for name, value in values.items()] if listed else values

    tool = tool_of(
        {"headers": headers(A="inner", B="<{{env.THING_KEY}}>", D=2, E=None, F="{{tools.trace}}")},
        headers=headers(A="outer", C="c-{{REGION}}"),
    )
    request = request_of(tool, {"trace": "t"}, {"THING_KEY": "k", "REGION": "eu"})
    sent_headers = dict(request.headers)
    del sent_headers["Accept"]
    assert sent_headers == {"A": "inner", "B": "<k>", "C": "c-eu", "D": "2", "F": "t"}
    assert list(tool.input_schema["properties"]) == ["trace"]


@pytest.mark.parametrize("headers", [["X-A"], [{"value": 1}], "X-A: 1"])
def test_headers_of_a_wrong_shape_are_rejected(headers: Any) -> None:
    with pytest.raises(CapabilityError, match=r"consumes\[0\]\.headers: must"):
        tool_of(headers=headers)


def test_declared_header_may_refer_to_inputs_of_the_operation() -> None:
    operation = inputs(
        {"name": "trace", "in": "query"}, headers={"X-Trace": "{{trace}}/{{id}}", "X-Region": "{{REGION}}"}
    )
    tool = tool_of(operation, path="/things/{id}", tool={"with": {"trace": "tools.t"}})
    request = request_of(tool, {"t": "a", "id": "7"}, {"REGION": "eu"})
    assert request.url == "https://api.example/things/7?trace=a"
    assert dict(request.headers) | {"X-Trace": "a/7", "X-Region": "eu"} == dict(request.headers)
    assert list(tool.input_schema["properties"]) == ["id", "t"]


def test_declared_accept_and_content_type_replace_the_defaults() -> None:
    headers = {"accept": "application/vnd.x+json", "Content-Type": "application/vnd.y+json", "Content-Length": "1"}
    request = request_of(tool_of(post({"name": "body", "in": "body"}, headers=headers)), {"body": {}})
    assert request.headers == (("accept", "application/vnd.x+json"), ("Content-Type", "application/vnd.y+json"))


@pytest.mark.parametrize(
    ("written", "types"),
    [
        (["string", "string"], "string"),
        (["string", "integer", "string"], ["string", "integer"]),
        (["array", "array"], "array"),
    ],
)
def test_repeated_types_are_listed_once(written: list[str], types: Any) -> None:
    tool = tool_of(inputs({"name": "a", "in": "query", "type": written}))
    assert tool.input_schema["properties"]["a"]["type"] == types


@pytest.mark.parametrize(
    ("base_uri", "environment", "url"),
    [
        ("https://{{env.THING_BASE_URL}}/v1", {"THING_BASE_URL": "host.example"}, "https://host.example/v1/things"),
        (
            "https://{{THING_BASE_URL}}/v1",
            {"THING_BASE_URL": "host.example", "THING_THINGS_BASE_URL": "https://other.example"},
            "https://other.example/things",
        ),
        ("{{env.THING_BASE_URL}}", {"THING_BASE_URL": "https://host.example/x/"}, "https://host.example/x/things"),
        (
            "https://{{env.THING_THINGS_BASE_URL}}",
            {"THING_THINGS_BASE_URL": "host.example", "THING_BASE_URL": "https://other.example"},
            "https://other.example/things",
        ),
        (
            "https://{{env.THING_BASE_URL}}.{{env.THING_THINGS_BASE_URL}}",
            {"THING_BASE_URL": "a", "THING_THINGS_BASE_URL": "example"},
            "https://a.example/things",
        ),
    ],
)
def test_variable_of_the_base_uri_template_does_not_replace_it(base_uri: str, environment: Json, url: str) -> None:
    assert request_of(tool_of(baseUri=base_uri), {}, environment).url == url


def test_overlay_variable_of_the_base_uri_template_does_not_replace_it() -> None:
    tool = tool_of(baseUri="https://{{env.HOST}}", base_uri_env=["HOST", "URL"])
    assert request_of(tool, {}, {"HOST": "host.example"}).url == "https://host.example/things"
    assert request_of(tool, {}, {"HOST": "h", "URL": "https://other.example"}).url == "https://other.example/things"
