import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from mcp_taskruns.core.calls.addresses import is_usable_base_uri
from mcp_taskruns.core.calls.credentials import credential_values
from mcp_taskruns.core.calls.redaction import REPLACEMENT, Redactor
from mcp_taskruns.core.calls.request import HttpRequest, build_form_request, build_request, path_arguments
from mcp_taskruns.core.format.compiler import compile_tools
from mcp_taskruns.core.format.spec import parse_capability
from mcp_taskruns.core.model.operation import ArgumentReference, Variable
from mcp_taskruns.errors import CallError, CapabilityError, InvalidArguments, NotConfigured, UpstreamError
from tests.core.documents import KEY, Json, document, inputs, request_of, tool_of

NASTY = [
    "a/b",
    "../../admin",
    "..%2f..%2fadmin",
    "%2e%2e",
    ".%2e",
    "..;/",
    "...",
    "\\..\\..\\admin",
    "/",
    "//evil.example/",
    "https://evil.example/",
    "@evil.example",
    ":8080",
    "?admin=true",
    "&admin=true",
    "a=b",
    "a&b=c#d",
    "#fragment",
    ";param",
    "a;b=c",
    "a,b",
    "+",
    " ",
    "  padded  ",
    "%",
    "%00",
    "%0d%0a",
    "{id}",
    "{{id}}",
    "{{env.THING_KEY}}",
    "{{THING_KEY}}",
    "${THING_KEY}",
    "$THING_KEY",
    "'; DROP TABLE things; --",
    '"},"admin":{"a":"',
    '"',
    "\\",
    "<script>",
    "null",
    "true",
    "-1",
    "größe",
    "日本",
    "💥",
    "e\u0301",
    "\u2028",
    "\u202egnp.exe",
    "\x7f",
    "a" * 5_000,
]

CONTROLS = ["\r\nX-Evil: 1", "\n", "a\rb", "\x00", "a\x00b", "\x1b[31m", "\t", "\x85"]

HALVES = ["\ud800", "a\udfffb"]


def ids(value: object) -> str:
    return "a huge number" if value == 10**5_000 else ascii(value)[:30]


@pytest.mark.parametrize("value", NASTY + CONTROLS, ids=ids)
def test_path_parameter_is_percent_encoded(value: str) -> None:
    url = urlsplit(request_of(tool_of(path="/things/{id}/parts/x{id}.json"), {"id": value}).url)
    assert (url.scheme, url.netloc, url.query, url.fragment) == ("https", "api.example", "", "")
    assert url.path.isascii()
    assert [unquote(segment) for segment in url.path.split("/")] == ["", "things", value, "parts", f"x{value}.json"]


@pytest.mark.parametrize("value", ["", *NASTY, *CONTROLS], ids=ids)
def test_query_parameter_is_percent_encoded(value: str) -> None:
    tool = tool_of(
        inputs(
            {"name": "q", "in": "query"},
            {"name": "list", "in": "query", "type": "array"},
            {"name": "joined", "in": "query", "type": "array", "explode": False},
        )
    )
    request = request_of(tool, {"q": value, "list": [value, "end"], "joined": [value, "end"]})
    url = urlsplit(request.url)
    assert (url.scheme, url.netloc, url.path, url.fragment) == ("https", "api.example", "/things", "")
    *others, (name, joined) = [pair.split("=") for pair in url.query.split("&")]
    assert [(key, unquote(text)) for key, text in others] == [("q", value), ("list", value), ("list", "end")]
    assert (name, [unquote(item) for item in joined.split(",")]) == ("joined", [value, "end"])
    assert parse_qsl(url.query, keep_blank_values=True)[0] == ("q", value)


@pytest.mark.parametrize("value", ["", *NASTY], ids=ids)
def test_header_parameter_must_be_printable_ascii(value: str) -> None:
    tool = tool_of(inputs({"name": "X-Note", "in": "header"}))
    if not (value.isascii() and value.isprintable()):
        with pytest.raises(InvalidArguments, match="X-Note: must be printable ASCII, because it is sent as a header"):
            request_of(tool, {"X-Note": value})
        return
    assert request_of(tool, {"X-Note": value}).headers == (
        ("Accept", "application/json, */*;q=0.5"),
        ("X-Note", value),
    )


@pytest.mark.parametrize("value", CONTROLS + HALVES, ids=ids)
def test_control_characters_are_refused_in_a_header(value: str) -> None:
    with pytest.raises(InvalidArguments, match="note: must be printable ASCII, because it is sent as a header"):
        request_of(tool_of(inputs({"name": "note", "in": "header"})), {"note": value})


@pytest.mark.parametrize("value", HALVES, ids=ids)
def test_unpaired_surrogate_is_refused_in_a_cookie(value: str) -> None:
    with pytest.raises(InvalidArguments, match="the arguments contain a value that cannot be sent"):
        request_of(tool_of(inputs({"name": "note", "in": "cookie"})), {"note": value})


@pytest.mark.parametrize("value", ["", *NASTY, *CONTROLS], ids=ids)
def test_cookie_parameter_is_percent_encoded(value: str) -> None:
    tool = tool_of(inputs({"name": "a", "in": "cookie"}, {"name": "b", "in": "cookie"}))
    cookie = dict(request_of(tool, {"a": value, "b": "end"}).headers)["Cookie"]
    first, second = cookie.split("; ")
    assert (unquote(first.removeprefix("a=")), second) == (value, "b=end")
    assert first.isascii()
    assert first.isprintable()
    assert not set(first) & set(' ;,"')


@pytest.mark.parametrize("value", ["", *NASTY, *CONTROLS], ids=ids)
def test_body_argument_is_escaped_in_json(value: str) -> None:
    whole = tool_of(inputs({"name": "body", "in": "body"}, method="POST"))
    fields = tool_of(inputs({"name": "a", "in": "body"}, {"name": "b", "in": "body"}, method="POST"))
    template = tool_of({"method": "POST", "body": {"type": "json", "data": {"a": "{{a}}", "t": "<{{a}}>"}}})
    assert body_of(request_of(whole, {"body": {value: [value]}})) == {value: [value]}
    assert body_of(request_of(fields, {"a": value, "b": 1})) == {"a": value, "b": 1}
    assert body_of(request_of(template, {"a": value})) == {"a": value, "t": f"<{value}>"}


NO_JSON = [float("nan"), float("inf"), float("-inf"), {"deep": [float("nan")]}, [{"deep": float("inf")}], 10**5_000]


@pytest.mark.parametrize("value", [*HALVES, *NO_JSON, [HALVES[0]], {HALVES[1]: 1}], ids=ids)
@pytest.mark.parametrize("place", ["path", "query", "body"])
def test_invalid_unicode_and_nan_are_refused(place: str, value: Any) -> None:
    tool = tool_of(inputs({"name": "a", "in": place}), path="/{a}" if place == "path" else "/")
    with pytest.raises(InvalidArguments) as caught:
        request_of(tool, {"a": value})
    assert caught.value.to_json() == {
        "kind": "validation",
        "message": "the arguments contain a value that cannot be sent: invalid Unicode, NaN, infinity "
        "or too deep nesting",
        "retryable": False,
    }


@pytest.mark.parametrize("value", NO_JSON, ids=ids)
@pytest.mark.parametrize("place", ["header", "cookie"])
def test_nan_and_infinity_are_refused_in_a_header(place: str, value: Any) -> None:
    with pytest.raises(InvalidArguments, match="the arguments contain a value that cannot be sent"):
        request_of(tool_of(inputs({"name": "a", "in": place})), {"a": value})


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}], ids=["lists", "mappings"])
@pytest.mark.parametrize("place", ["path", "query", "header", "cookie", "body", "template"])
def test_too_deeply_nested_arguments_are_refused(place: str, wrap: Callable[[Any], Any]) -> None:
    value: Any = []
    for _ in range(100_000):
        value = wrap(value)
    operation: Json = (
        {"body": {"data": {"t": "<{{a}}>"}}} if place == "template" else inputs({"name": "a", "in": place})
    )
    tool = tool_of({"method": "POST", **operation}, path="/{a}" if place == "path" else "/")
    with pytest.raises(InvalidArguments, match="the arguments contain a value that cannot be sent"):
        request_of(tool, {"a": value})


@pytest.mark.parametrize("value", [*HALVES, float("nan")], ids=ids)
def test_invalid_unicode_and_nan_are_refused_in_a_body_template(value: Any) -> None:
    tool = tool_of({"method": "POST", "body": {"type": "json", "data": {"t": "<{{a}}>", "v": "{{a}}"}}})
    with pytest.raises(InvalidArguments, match="the arguments contain a value that cannot be sent"):
        request_of(tool, {"a": value})


@pytest.mark.parametrize("value", ["", ".", "..", None, []], ids=repr)
def test_empty_and_dot_path_parameters_are_refused(value: Any) -> None:
    with pytest.raises(InvalidArguments) as caught:
        request_of(tool_of(path="/things/{id}/"), {"id": value})
    assert str(caught.value) == f"id: must be one segment of a path, not {value if value and '.' in value else ''!r}"


SLASHES = inputs({"name": "app", "in": "path", "keeps_slashes": True})


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("fal-ai/flux/dev", "fal-ai/flux/dev"),
        ("one", "one"),
        ("a b/c?d=e#f/%2e%2e", "a%20b/c%3Fd%3De%23f/%252e%252e"),
        ("a/..;/\\../...", "a/..%3B/%5C../..."),
        (5, "5"),
    ],
)
def test_path_parameter_can_keep_its_slashes(value: Any, path: str) -> None:
    for tool in (
        tool_of(SLASHES, path="/apps/{app}/runs"),
        tool_of(SLASHES, path="/apps/{app}/runs", tool={"with": {"app": value}}),
    ):
        assert request_of(tool, {"app": value}).url == f"https://api.example/apps/{path}/runs"


@pytest.mark.parametrize("value", ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/../b", "a/./b"])
def test_path_parameter_with_slashes_has_no_empty_or_dot_segment(value: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        request_of(tool_of(SLASHES, path="/apps/{app}/runs"), {"app": value})
    assert str(caught.value) == f"app: must be segments separated by single slashes, not {value!r}"


@pytest.mark.parametrize(("path", "value"), [("/.{app}", "x/y"), ("/.{app}.", "a/b")])
def test_segments_beside_dots_of_the_path_are_sent(path: str, value: str) -> None:
    sent = path.replace("{app}", value)
    assert request_of(tool_of(SLASHES, path=path), {"app": value}).url == f"https://api.example{sent}"


def test_missing_path_parameter_is_reported_by_argument_name() -> None:
    with pytest.raises(InvalidArguments, match=r"^thing: must be one segment"):
        request_of(tool_of(path="/{id}", tool={"with": {"id": "tools.thing"}}), {"thing": ".."})


@pytest.mark.parametrize("path", ["/{a}/../{b}", "/./{a}/{b}", "..", "/{a}/{b}/..?q=1", "/%2e%2E/{a}/{b}"])
def test_path_parameters_that_form_a_dot_segment_together_are_refused(path: str) -> None:
    with pytest.raises(NotConfigured) as caught:
        request_of(tool_of(path=path), {"a": "x", "b": "y"})
    assert caught.value.to_json() == {
        "kind": "unsupported",
        "message": f"things-api.yaml has a path with the segment . or ..: {path!r}",
        "retryable": False,
        "hint": "This tool cannot be called.",
    }


@pytest.mark.parametrize("path", ["/...", "/..a", "/a..b", "/x?q=/../y"])
def test_dots_inside_a_path_segment_are_allowed(path: str) -> None:
    assert request_of(tool_of(path=path)).url == f"https://api.example{path}"


def body_of(request: HttpRequest) -> Any:
    assert request.content is not None
    assert dict(request.headers)["Content-Type"] == "application/json"
    return json.loads(request.content)


@pytest.mark.parametrize(
    ("path", "arguments", "url"),
    [
        ("/{id}.json", {"id": "a b"}, "https://api.example/a%20b.json"),
        ("/jobs/{id}:run", {"id": "7"}, "https://api.example/jobs/7:run"),
        ("/compare/{base}...{head}", {"base": "v1", "head": "v2"}, "https://api.example/compare/v1...v2"),
        ("/{a}/{a}", {"a": "x"}, "https://api.example/x/x"),
        ("/{{ a }}", {"a": "x"}, "https://api.example/x"),
        ("/{a}{b}", {"a": "x", "b": "y"}, "https://api.example/xy"),
        ("/{id}", {"id": 7}, "https://api.example/7"),
        ("/{id}", {"id": 7.0}, "https://api.example/7"),
        ("/{id}", {"id": True}, "https://api.example/true"),
        ("/{id}", {"id": ["a", "b"]}, "https://api.example/a%2Cb"),
        ("/{id}", {"id": "-._~"}, "https://api.example/-._~"),
        ("/search(q='{q}')", {"q": "x"}, "https://api.example/search(q='x')"),
    ],
)
def test_placeholders_are_filled_anywhere_in_the_path(path: str, arguments: Json, url: str) -> None:
    assert request_of(tool_of(path=path), arguments).url == url


@pytest.mark.parametrize(
    ("declared", "value", "query"),
    [
        ({}, "a b", "?q=a%20b"),
        ({}, "", "?q="),
        ({}, None, ""),
        ({}, True, "?q=true"),
        ({}, False, "?q=false"),
        ({}, 0, "?q=0"),
        ({}, 1.5, "?q=1.5"),
        # JSON Schema accepts these as integers.
        ({}, 5.0, "?q=5"),
        ({}, 1e3, "?q=1000"),
        ({}, -0.0, "?q=0"),
        ({}, [2.0, -2.5], "?q=2&q=-2.5"),
        ({}, {"a": [1, "ö"]}, "?q=%7B%22a%22%3A%5B1%2C%22%C3%B6%22%5D%7D"),
        ({}, ["a", 2, True], "?q=a&q=2&q=true"),
        ({}, [], ""),
        ({"explode": True}, ["a", "b"], "?q=a&q=b"),
        ({"explode": False}, ["a", "b,c"], "?q=a,b%2Cc"),
        ({"explode": False}, [], ""),
        ({"explode": False}, "a", "?q=a"),
        ({"name": "filter[name]"}, "a", "?filter%5Bname%5D=a"),
        ({"name": "page.size"}, 5, "?page.size=5"),
        ({"name": "$top"}, 5, "?%24top=5"),
    ],
)
def test_query_parameter_is_encoded_by_type_and_explode(declared: Json, value: Any, query: str) -> None:
    tool = tool_of(inputs({"name": "q", "in": "query"} | declared))
    assert request_of(tool, {declared.get("name", "q"): value}).url == f"https://api.example/things{query}"


def test_query_is_appended_to_a_query_in_the_path() -> None:
    tool = tool_of(inputs({"name": "q", "in": "query"}), path="/things?fixed=1")
    assert request_of(tool, {"q": "2"}).url == "https://api.example/things?fixed=1&q=2"


@pytest.mark.parametrize(
    ("value", "sent"), [("x", "x"), (True, "true"), (5, "5"), (["a", "b"], "a,b"), ({"a": 1}, '{"a":1}')]
)
def test_header_parameter_is_sent_as_text(value: Any, sent: str) -> None:
    tool = tool_of(inputs({"name": "X-A", "in": "header"}))
    assert request_of(tool, {"X-A": value}).headers == (("Accept", "application/json, */*;q=0.5"), ("X-A", sent))


def test_absent_headers_and_cookies_are_not_sent() -> None:
    tool = tool_of(inputs({"name": "X-A", "in": "header"}, {"name": "c", "in": "cookie"}))
    assert request_of(tool).headers == (("Accept", "application/json, */*;q=0.5"),)


@pytest.mark.parametrize(
    ("operation", "arguments", "content"),
    [
        (inputs({"name": "body", "in": "body"}), {}, None),
        (inputs({"name": "body", "in": "body"}), {"body": {}}, b"{}"),
        (inputs({"name": "body", "in": "body"}), {"body": []}, b"[]"),
        (inputs({"name": "body", "in": "body"}), {"body": "x"}, b'"x"'),
        (inputs({"name": "body", "in": "body"}), {"body": {"a": None}}, b'{"a":null}'),
        (inputs({"name": "body", "in": "body"}), {"body": {"a": [5.0, 1.5]}}, b'{"a":[5.0,1.5]}'),
        (inputs({"name": "a", "in": "body"}, {"name": "b", "in": "body"}), {}, None),
        (inputs({"name": "a", "in": "body"}, {"name": "b", "in": "body"}), {"b": [1]}, b'{"b":[1]}'),
        (inputs({"name": "body", "in": "body"}, {"name": "b", "in": "body"}), {"body": {"c": 1}}, b'{"body":{"c":1}}'),
        (inputs({"name": "a", "in": "body", "value": "x-{{env.THING_KEY}}"}), {}, b'{"a":"x-key-123456"}'),
        (inputs({"name": "a", "in": "body", "value": ["{{env.THING_KEY}}", 5]}), {}, b'{"a":["key-123456",5]}'),
        (
            inputs({"name": "a", "in": "body", "value": {"b": ["<{{THING_KEY}}>", None], "c": {}}}),
            {},
            b'{"a":{"b":["<key-123456>",null],"c":{}}}',
        ),
        (inputs({"name": "body", "in": "body", "value": {"b": "{{THING_KEY}}"}}), {}, b'{"b":"key-123456"}'),
        (
            {"body": {"type": "json", "data": {"a": "{{a}}", "b": 1, "c": None}}},
            {"a": [1]},
            b'{"a":[1],"b":1,"c":null}',
        ),
        ({"body": {"type": "json", "data": {"a": "{{a}}", "b": 1}}}, {}, b'{"b":1}'),
        ({"body": {"type": "json", "data": {"a": "{{a}}"}}}, {}, None),
        ({"body": {"type": "json", "data": "{{a}}"}}, {}, None),
        ({"body": {"type": "json", "data": "{{a}}"}}, {"a": {"x": 1}}, b'{"x":1}'),
        ({"body": {"type": "json", "data": ["{{a}}", {"b": "{{b}}"}, ""]}}, {"b": 2}, b'[{"b":2},""]'),
        (
            {"body": {"type": "json", "data": {"t": "n={{n}} ok={{ok}} {{gone}}."}}},
            {"n": 5, "ok": True},
            b'{"t":"n=5 ok=true ."}',
        ),
        ({"body": {"type": "json", "data": {"k": "{{env.THING_KEY}}"}}}, {}, b'{"k":"key-123456"}'),
        ({"body": {"type": "json"}}, {}, None),
        ({"body": {"type": "JSON"}}, {"body": {"a": 1}}, b'{"a":1}'),
        ({"body": {"type": "json", "data": None}}, {"body": []}, b"[]"),
        ({"body": {"type": "json", "data": {}}}, {}, b"{}"),
        ({"body": {"type": "json", "data": "{}"}}, {}, b"{}"),
    ],
)
def test_body_is_built_from_inputs_or_template(operation: Json, arguments: Json, content: bytes | None) -> None:
    request = request_of(tool_of({"method": "POST", **operation}), arguments)
    assert request.content == content
    assert ("Content-Type" in dict(request.headers)) is (content is not None)


def test_body_inputs_are_distinguished_by_argument_names() -> None:
    tool = tool_of(inputs({"name": "id", "in": "body"}, method="POST"), path="/{id}")
    request = request_of(tool, {"id": "p", "id_body": "b"})
    assert (request.url, request.content) == ("https://api.example/p", b'"b"')


@pytest.mark.parametrize(
    ("arguments", "environment", "url"),
    [
        ({}, {"FIRST": "1", "SECOND": "2"}, "https://api.example/1"),
        ({}, {"FIRST": "", "SECOND": "2"}, "https://api.example/2"),
        ({"p": "3"}, {"FIRST": "1"}, "https://api.example/3"),
        ({"p": None}, {"FIRST": "1"}, "https://api.example/1"),
    ],
)
def test_absent_argument_has_default_from_environment(
    arguments: Json, environment: Mapping[str, str], url: str
) -> None:
    tool = tool_of(inputs({"name": "p", "env": ["FIRST", "SECOND"]}), path="/{p}")
    assert request_of(tool, arguments, environment).url == url


def test_missing_default_of_a_path_parameter_is_an_error() -> None:
    tool = tool_of(inputs({"name": "p", "env": ["FIRST", "SECOND"]}), path="/{p}")
    with pytest.raises(InvalidArguments) as caught:
        request_of(tool, {}, {})
    assert caught.value.to_json() == {
        "kind": "validation",
        "message": "p: is required, because the server has no default for it",
        "retryable": False,
        "hint": "Pass p, or set FIRST or SECOND in the server's environment.",
    }


def test_missing_default_of_other_parameters_is_omitted() -> None:
    tool = tool_of(inputs({"name": "q", "in": "query", "env": "FIRST"}))
    assert request_of(tool, {}, {}).url == "https://api.example/things"
    assert request_of(tool, {}, {"FIRST": "1"}).url == "https://api.example/things?q=1"


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("2024-11-06", "2024-11-06"),
        (5, "5"),
        ("Key {{env.THING_KEY}}!", "Key key-123456!"),
        ("{{THING_KEY}}", "key-123456"),
        ("{{env.UNDECLARED}}", "from the environment"),
        ("{{UNDECLARED}}", "from the environment"),
        ("<{{ UNDECLARED }}>", "<from the environment>"),
        (["{{UNDECLARED}}", "b", 5], "from the environment,b,5"),
        ({"a": ["{{THING_KEY}}"]}, '{"a":["key-123456"]}'),
        ("{{ env.THING_KEY }}", "key-123456"),
        ("{one brace}", "{one brace}"),
    ],
)
def test_constant_is_filled_from_environment(value: Any, sent: str) -> None:
    tool = tool_of(inputs({"name": "X-A", "in": "header", "value": value}))
    environment = KEY | {"UNDECLARED": "from the environment"}
    assert dict(request_of(tool, {"X-A": "other"}, environment).headers)["X-A"] == sent


def test_constant_can_refer_to_any_bind() -> None:
    given = document(authentication={"type": "bearer", "token": "{{secrets.TOKEN}}"})
    given["binds"].append({"namespace": "secrets", "keys": {"TOKEN": ["MY_TOKEN", "OTHER_TOKEN"]}})
    (tool,) = compile_tools([parse_capability(given, "f.yaml")])
    assert dict(request_of(tool, {}, {"OTHER_TOKEN": "t"}).headers)["Authorization"] == "Bearer t"


def test_constant_with_unset_variable_raises_not_configured() -> None:
    tool = tool_of(inputs({"name": "X-A", "in": "header", "value": "{{env.THING_KEY}}"}))
    with pytest.raises(NotConfigured) as caught:
        request_of(tool, {}, {})
    assert caught.value.to_json() == {
        "kind": "config",
        "message": "a value that this call needs is not set",
        "retryable": False,
        "hint": "Set THING_KEY in the server's environment and restart the server.",
    }


def test_constant_with_control_characters_is_refused_without_showing_it() -> None:
    tool = tool_of(inputs({"name": "X-A", "in": "header", "value": "{{env.THING_KEY}}"}))
    with pytest.raises(NotConfigured) as caught:
        request_of(tool, {}, {"THING_KEY": "a\r\nX-Evil: 1"})
    assert caught.value.to_json() == {
        "kind": "config",
        "message": "a value that this call needs contains characters other than printable ASCII",
        "retryable": False,
        "hint": "Correct THING_KEY in the server's environment; check it for a line break.",
    }


JSON_VALUES: list[tuple[Any, str, bytes]] = [
    (True, "true", b"true"),
    (False, "false", b"false"),
    (0, "0", b"0"),
    (5, "5", b"5"),
    (1.5, "1.5", b"1.5"),
    ("5", "5", b'"5"'),
    ("true", "true", b'"true"'),
    ("", "", b'""'),
    ({"a": 1}, "%7B%22a%22%3A1%7D", b'{"a":1}'),
]


@pytest.mark.parametrize(("value", "text", "json_form"), JSON_VALUES)
def test_constant_keeps_its_json_type(value: Any, text: str, json_form: bytes) -> None:
    assert request_of(tool_of(inputs({"name": "q", "in": "query", "value": value}))).url.partition("?q=")[2] == text
    field = request_of(tool_of(inputs({"name": "f", "in": "body", "value": value}, method="POST")))
    assert field.content == b'{"f":' + json_form + b"}"
    whole = request_of(tool_of(inputs({"name": "body", "in": "body", "value": value}, method="POST")))
    assert whole.content == json_form


@pytest.mark.parametrize(
    ("value", "header", "query"),
    [
        (True, "true", "?a=true"),
        (5, "5", "?a=5"),
        ({"a": 1}, '{"a":1}', "?a=%7B%22a%22%3A1%7D"),
        (["x", 2], "x,2", "?a=x&a=2"),
    ],
)
def test_constant_is_encoded_like_an_argument(value: Any, header: str, query: str) -> None:
    declared = [{"name": "a", "in": place, "value": value} for place in ("header", "query", "path")]
    constant = request_of(tool_of(inputs(*declared), path="/{a}"))
    as_arguments = [{"name": "a", "in": place} for place in ("header", "query", "path")]
    arguments = {"a": value, "a_query": value, "a_header": value}
    from_arguments = request_of(tool_of(inputs(*as_arguments), path="/{a}"), arguments)
    assert constant == from_arguments
    assert (dict(constant.headers)["a"], constant.url.partition("?")[2]) == (header, query[1:])


@pytest.mark.parametrize(
    ("path", "value", "url"),
    [
        ("/v1/{{THING_KEY}}/x", "org", "https://api.example/v1/org/x"),
        ("/v1/{{env.THING_KEY}}.json", "a/b ö", None),
        ("/v1/{{THING_KEY}}/x", "a/../b?c#d", "https://api.example/v1/a%2F..%2Fb%3Fc%23d/x"),
        ("/v1/{{env.THING_KEY}}:run", " org\n", "https://api.example/v1/org:run"),
    ],
)
def test_path_placeholder_is_filled_from_environment(path: str, value: str, url: str | None) -> None:
    tool = tool_of(path=path)
    if url is None:
        with pytest.raises(
            NotConfigured, match="a value that this call needs contains characters other than printable ASCII"
        ):
            request_of(tool, {}, {"THING_KEY": value})
    else:
        assert request_of(tool, {}, {"THING_KEY": value}).url == url


def test_path_placeholder_has_alternative_variables() -> None:
    given = document(path="/{{ORG}}")
    given["binds"][0]["keys"]["ORG"] = ["FIRST_ORG", "SECOND_ORG"]
    (tool,) = compile_tools([parse_capability(given, "f.yaml")])
    assert request_of(tool, {}, {"SECOND_ORG": "2"}).url == "https://api.example/2"
    with pytest.raises(NotConfigured) as caught:
        request_of(tool, {"ORG": "callers", "FIRST_ORG": "callers"}, {})
    assert caught.value.to_json() == {
        "kind": "config",
        "message": "a value that this call needs is not set",
        "retryable": False,
        "hint": "Set FIRST_ORG or SECOND_ORG in the server's environment and restart the server.",
    }


@pytest.mark.parametrize("value", [".", ".."])
def test_environment_value_in_the_path_is_percent_encoded(value: str) -> None:
    with pytest.raises(InvalidArguments, match=f"^THING_KEY: must be one segment of a path, not '{re.escape(value)}'"):
        request_of(tool_of(path="/v1/{{THING_KEY}}/x"), {}, {"THING_KEY": value})


BASIC = "Basic " + base64.b64encode(b"me:key-123456").decode()


@pytest.mark.parametrize(
    ("authentication", "headers", "query"),
    [
        (None, (), ""),
        ({}, (), ""),
        ({"type": "none"}, (), ""),
        ({"type": "bearer", "token": "{{env.THING_KEY}}"}, (("Authorization", "Bearer key-123456"),), ""),
        ({"type": "Bearer", "token": "{{THING_KEY}}"}, (("Authorization", "Bearer key-123456"),), ""),
        ({"type": "basic", "username": "me", "password": "{{env.THING_KEY}}"}, (("Authorization", BASIC),), ""),
        ({"type": "apikey", "key": "X-Key", "value": "{{env.THING_KEY}}"}, (("X-Key", "key-123456"),), ""),
        (
            {"type": "apikey", "key": "Authorization", "value": "Token {{env.THING_KEY}}", "placement": "header"},
            (("Authorization", "Token key-123456"),),
            "",
        ),
        (
            {"type": "apikey", "key": "api key", "value": "{{env.THING_KEY}}&=", "placement": "query"},
            (),
            "?api%20key=key-123456%26%3D",
        ),
        # Other spellings in public files
        (
            {"type": "apikey", "in": "header", "name": "X-Key", "value": "{{env.THING_KEY}}"},
            (("X-Key", "key-123456"),),
            "",
        ),
        ({"type": "apikey", "in": "query", "name": "k", "value": "{{env.THING_KEY}}"}, (), "?k=key-123456"),
        ({"type": "apikey", "name": "X-Key", "value": "{{env.THING_KEY}}"}, (("X-Key", "key-123456"),), ""),
        ({"type": "apikey", "header": "X-Key", "key": "{{env.THING_KEY}}"}, (("X-Key", "key-123456"),), ""),
        ({"type": "apikey", "header": "X-Key", "key": "Token {{THING_KEY}}"}, (("X-Key", "Token key-123456"),), ""),
        ({"type": "apikey", "header": "X-Key", "value": "{{env.THING_KEY}}"}, (("X-Key", "key-123456"),), ""),
    ],
)
def test_credential_is_sent_by_authentication_type(
    authentication: Json | None, headers: tuple[tuple[str, str], ...], query: str
) -> None:
    request = request_of(tool_of(authentication=authentication))
    assert request.headers == (("Accept", "application/json, */*;q=0.5"), *headers)
    assert request.url == f"https://api.example/things{query}"
    assert request_of(tool_of(auth=authentication)) == request


def test_query_credential_follows_the_arguments() -> None:
    tool = tool_of(
        inputs({"name": "q", "in": "query"}),
        authentication={"type": "apikey", "key": "key", "value": "{{env.THING_KEY}}", "placement": "query"},
    )
    assert request_of(tool, {"q": "1"}).url == "https://api.example/things?q=1&key=key-123456"


BEARER = {"type": "bearer", "token": "{{env.THING_KEY}}"}
UNBOUND = {"type": "bearer", "token": "{{MY_TOKEN}}"}


@pytest.mark.parametrize(
    ("authentication", "environment", "hint"),
    [
        (BEARER, {}, "Set THING_KEY in the server's environment and restart the server."),
        (BEARER, {"THING_KEY": ""}, "Set THING_KEY in the server's environment and restart the server."),
        (BEARER, {"THING_KEY": " \n"}, "Set THING_KEY in the server's environment and restart the server."),
        (UNBOUND, {}, "Set MY_TOKEN in the server's environment and restart the server."),
        (
            {"type": "basic", "username": "{{env.USER_NAME}}", "password": "{{env.THING_KEY}}"},
            KEY,
            "Set USER_NAME in the server's environment and restart the server.",
        ),
    ],
)
def test_missing_credential_raises_not_configured(
    authentication: Json, environment: Mapping[str, str], hint: str
) -> None:
    with pytest.raises(NotConfigured) as caught:
        request_of(tool_of(authentication=authentication), {}, environment)
    assert caught.value.to_json() == {
        "kind": "auth",
        "message": "the provider's credential is not set",
        "retryable": False,
        "hint": hint,
    }


def test_missing_credential_names_all_alternative_variables() -> None:
    given = document(authentication=BEARER)
    given["binds"][0]["keys"]["THING_KEY"] = ["A_KEY", "B_KEY", "THING_KEY"]
    (tool,) = compile_tools([parse_capability(given, "f.yaml")])
    assert list(tool.operation.credentials()) == [Variable(("A_KEY", "B_KEY", "THING_KEY"))]
    with pytest.raises(NotConfigured) as caught:
        request_of(tool, {}, {})
    assert caught.value.hint == "Set A_KEY or B_KEY or THING_KEY in the server's environment and restart the server."


def test_credential_without_bind_is_read_from_environment() -> None:
    request = request_of(tool_of(authentication=UNBOUND), {"MY_TOKEN": "callers"}, {"MY_TOKEN": "servers"})
    assert dict(request.headers)["Authorization"] == "Bearer servers"


def test_whitespace_around_a_credential_is_stripped() -> None:
    request = request_of(tool_of(authentication=BEARER), {}, {"THING_KEY": " key-123456\r\n"})
    assert dict(request.headers)["Authorization"] == "Bearer key-123456"


@pytest.mark.parametrize("value", ["a\nb", "a\r\nX-Evil: 1", "schlüssel", "a\x00b", "\u201ckey\u201d"])
def test_credential_with_control_characters_is_refused_without_showing_it(value: str) -> None:
    with pytest.raises(NotConfigured) as caught:
        request_of(tool_of(authentication=BEARER), {}, {"THING_KEY": value})
    assert caught.value.to_json() == {
        "kind": "auth",
        "message": "the provider's credential contains characters other than printable ASCII",
        "retryable": False,
        "hint": "Correct THING_KEY in the server's environment; check it for a line break.",
    }


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("https://other.example", "https://other.example/things"),
        ("https://other.example/", "https://other.example/things"),
        (" https://other.example/base/ ", "https://other.example/base/things"),
        ("http://localhost:8120/v1", "http://localhost:8120/v1/things"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1/things"),
        ("http://[::1]:1", "http://[::1]:1/things"),
        ("HTTPS://other.example", "HTTPS://other.example/things"),
        ("", "https://api.example/things"),
    ],
)
def test_base_url_of_the_environment_takes_precedence(address: str, url: str) -> None:
    assert request_of(tool_of(), {}, {"THING_BASE_URL": address}).url == url


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("other.example", "the provider's base URL is not valid"),
        ("ftp://other.example", "the provider's base URL is not valid"),
        ("file:///etc/passwd", "the provider's base URL is not valid"),
        ("https://", "the provider's base URL is not valid"),
        ("https:///path", "the provider's base URL is not valid"),
        ("https://:443", "the provider's base URL is not valid"),
        ("https://[::1", "the provider's base URL is not valid"),
        ("https://[one]/", "the provider's base URL is not valid"),
        ("//other.example", "the provider's base URL is not valid"),
        ("none", "the provider's base URL is not valid"),
        ("http://other.example", "not https"),
        ("http://127.0.0.1.other.example", "not https"),
        ("http://localhost.other.example", "not https"),
        ("http://localhost@other.example", "the provider's base URL is not valid"),
        ("http://127.0.0.1:80@other.example/", "the provider's base URL is not valid"),
        ("https://me:key@other.example", "the provider's base URL is not valid"),
        ("https://@other.example", "the provider's base URL is not valid"),
        ("https://other.example:port", "the provider's base URL is not valid"),
        ("https://other.example:99999", "the provider's base URL is not valid"),
        ("https://other.example:0", "the provider's base URL is not valid"),
        ("https://other.example/?q=1", "the provider's base URL is not valid"),
        ("https://other.example?q=1", "the provider's base URL is not valid"),
        ("https://other.example/#x", "the provider's base URL is not valid"),
        ("http://10.0.0.1", "not https"),
        ("http://0.0.0.0", "not https"),
    ],
)
def test_insecure_or_invalid_base_url_is_refused(address: str, message: str) -> None:
    with pytest.raises(NotConfigured, match=message) as caught:
        request_of(tool_of(authentication=BEARER), {}, KEY | {"THING_BASE_URL": address})
    assert (caught.value.kind, caught.value.hint.split(" in ")[0]) == ("config", "Set THING_BASE_URL")
    assert address not in caught.value.message


@pytest.mark.parametrize("written", [None, "", "/v1", "https://{host}/v1", "https://${HOST}"])
def test_missing_base_url_names_the_variable_to_set(written: str | None) -> None:
    with pytest.raises(NotConfigured) as caught:
        request_of(tool_of(baseUri=written))
    assert caught.value.to_json() == {
        "kind": "config",
        "message": "the provider's base URL is not set",
        "retryable": False,
        "hint": "Set THING_BASE_URL in the server's environment to the provider's base URL, "
        "or start the server with `--base-uri things=URL`.",
    }
    assert request_of(tool_of(baseUri=written), {}, {"THING_BASE_URL": "https://own.example"}).url == (
        "https://own.example/things"
    )


def test_unsupported_operation_cannot_be_called() -> None:
    with pytest.raises(NotConfigured) as caught:
        request_of(tool_of(authentication={"type": "hmac"}))
    assert caught.value.to_json() == {
        "kind": "unsupported",
        "message": "things-api.yaml has the unsupported authentication type hmac",
        "retryable": False,
        "hint": "This tool cannot be called.",
    }


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ({"baseUri": ""}, {}),
        ({"authentication": {"type": "hmac"}}, {}),
        ({"authentication": UNBOUND}, {}),
        ({"path": "/{a}"}, {"a": ".."}),
    ],
)
def test_errors_do_not_contain_secrets(tool: Json, arguments: Json) -> None:
    with pytest.raises(CallError) as caught:
        request_of(tool_of(**tool), arguments, KEY)
    assert "key-123456" not in repr(caught.value) + str(caught.value.to_json())


def test_repr_of_a_request_hides_secrets() -> None:
    tool = tool_of(
        inputs({"name": "body", "in": "body"}, method="POST"),
        authentication={"type": "apikey", "key": "k", "value": "{{env.THING_KEY}}", "placement": "query"},
    )
    request = request_of(tool, {"body": "confidential text"})
    assert repr(request) == "HttpRequest(provider='thing', method='POST', safe_to_retry=False)"


@pytest.mark.parametrize(
    ("method", "declared", "safe_to_retry"),
    [
        # RFC 9110 section 9.2.1 for safe methods. Idempotent is not enough: cancelling again after the run has
        # ended deletes it at Runway (runwayml 5.24 resources/tasks.py).
        ("GET", None, True),
        ("HEAD", None, True),
        ("OPTIONS", None, True),
        ("POST", None, False),
        ("PATCH", None, False),
        ("PUT", None, False),
        ("DELETE", None, False),
        ("DELETE", True, True),
        ("POST", True, True),
        ("GET", False, False),
    ],
)
def test_request_is_repeatable_if_safe_or_declared(method: str, declared: bool | None, safe_to_retry: bool) -> None:
    assert request_of(tool_of({"method": method, "safe_to_retry": declared})).safe_to_retry is safe_to_retry


def test_request_has_the_timeout_of_its_operation() -> None:
    assert request_of(tool_of({"timeout_seconds": 610})).timeout_s == 610.0
    assert request_of(tool_of()).timeout_s is None


def test_path_arguments_selects_arguments_of_the_path() -> None:
    # PostHog: .../tasks/{task_id}/runs/{id}/, whose project the environment may give
    operation = tool_of(
        inputs(
            {"name": "id", "in": "path"},
            {"name": "limit", "in": "query"},
            {"name": "X-A", "in": "header"},
            {"name": "body", "in": "body"},
            method="POST",
        ),
        path="/tasks/{task_id}/runs/{id}/",
    ).operation
    arguments = {"id": "r", "task_id": "t", "limit": 1, "X-A": "a", "body": {"id": "other"}, "wait_seconds": 5}
    assert path_arguments(operation, arguments) == {"id": "r", "task_id": "t"}
    assert path_arguments(operation, {"id": "r"}) == {"id": "r"}


FORM = ("multipart/form-data; boundary=b", b"--b--")


@pytest.mark.parametrize(
    "url",
    [
        "https://bucket.s3.amazonaws.com/",
        "https://s3.example:9000/bucket?x=1#y",
        # Object storage of a self-hosted PostHog on this machine
        "http://127.0.0.1:19000/posthog",
        "http://localhost/posthog",
        "http://[::1]:19000/",
    ],
)
def test_form_request_has_no_other_headers(url: str) -> None:
    request = build_form_request("thing's storage", url, *FORM, is_local=True)
    assert request == HttpRequest(
        "thing's storage", "POST", url, (("Content-Type", FORM[0]),), FORM[1], safe_to_retry=True
    )


@pytest.mark.parametrize(
    "url",
    [
        "http://bucket.s3.amazonaws.com/",
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "ftp://bucket.example/",
        "file:///etc/passwd",
        "//bucket.example/",
        "/bucket",
        "bucket.example",
        "None",
        "",
        "https://",
        "https:///path",
        "https://[::1",
        "https://me:key@bucket.example/",
        "https://@bucket.example/",
        "https://bucket.example:0/",
        "https://bucket.example:99999/",
        "https://bucket.example:port/",
        "http://localhost@bucket.example/",
        "http://127.0.0.1.bucket.example/",
        # Characters that a URL cannot contain: RFC 3986 section 2
        "https://bucket.example/a b",
        "https://bucket.example/\r\nX-A: b",
        "https://bucket.example/\n",
        "https://bucket.example/\x00",
        "https://b\u00fccket.example/",
    ],
)
def test_form_request_to_insecure_url_is_refused(url: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        build_form_request("thing's storage", url, *FORM)
    assert caught.value.to_json() == {
        "kind": "unavailable",
        "message": "the upload URL of thing's storage is not a valid https URL",
        "retryable": False,
        "hint": "Nothing was sent.",
    }


def test_repr_of_a_form_request_hides_url_and_content() -> None:
    request = build_form_request("storage", "https://s3.example/?sig=secret", "type", b"secret")
    assert "secret" not in repr(request)


@pytest.mark.parametrize(
    ("authentication", "environment", "values"),
    [
        (None, KEY, []),
        (BEARER, KEY, ["key-123456", "key-123456"]),
        (BEARER, {}, []),
        (
            {"type": "apikey", "key": "A", "value": "Token {{env.THING_KEY}}-x"},
            KEY,
            ["key-123456", "key-123456-x"],
        ),
        (
            {"type": "basic", "username": "me", "password": "{{env.THING_KEY}}"},
            KEY,
            ["key-123456", base64.b64encode(b"me:key-123456").decode()],
        ),
        (
            {"type": "basic", "username": "{{env.USER_NAME}}", "password": "{{env.THING_KEY}}"},
            KEY,
            ["key-123456"],
        ),
    ],
)
def test_credential_values_are_raw_and_encoded(
    authentication: Json | None, environment: Mapping[str, str], values: list[str]
) -> None:
    operation = tool_of(authentication=authentication).operation
    assert list(credential_values(operation, environment)) == values


@pytest.mark.parametrize(
    "operation",
    [
        inputs({"name": "X-A", "in": "header", "value": "v1 {{env.THING_KEY}}"}),
        inputs({"name": "a", "in": "query", "value": "{{env.THING_KEY}}"}),
        inputs({"name": "a", "in": "cookie", "value": "{{env.THING_KEY}}"}),
        inputs({"name": "a", "in": "body", "value": "{{env.THING_KEY}}"}),
        {"body": {"type": "json", "data": {"a": [{"b": "{{env.THING_KEY}}"}]}}},
    ],
)
def test_secrets_in_constants_are_credential_values(operation: Json) -> None:
    compiled = tool_of({"method": "POST", **operation}).operation
    assert set(credential_values(compiled, KEY)) == {"key-123456"}
    assert list(credential_values(compiled, {})) == []


@pytest.mark.parametrize(
    ("operation", "environment"),
    [
        ({}, {}),
        (inputs({"name": "X-K", "in": "header", "value": "{{env.THING_KEY}}"}), {"THING_KEY": " key-123456\n"}),
        (inputs({"name": "X-K", "in": "header", "value": "{{MY_TOKEN}}"}), {"MY_TOKEN": "key-123456"}),
        (inputs({"name": "c", "in": "cookie", "value": "{{MY_TOKEN}}"}), {"MY_TOKEN": "key-123456"}),
        (inputs({"name": "k", "in": "query", "value": ["{{MY_TOKEN}}"]}), {"MY_TOKEN": "key-123456"}),
        (inputs({"name": "k", "in": "body", "value": {"a": "{{MY_TOKEN}}"}}), {"MY_TOKEN": "key-123456"}),
    ],
    ids=["nothing", "stripped", "header", "cookie", "query", "body"],
)
def test_variables_in_constants_are_credential_values(operation: Json, environment: Mapping[str, str]) -> None:
    tool = tool_of({"method": "POST", **operation})
    request = request_of(tool, {}, environment)
    sent = f"{request.url} {request.headers} {request.content!r}"
    redactor = Redactor(credential_values(tool.operation, environment))
    assert ("key-123456" in sent) is (operation != {})
    assert redactor.redact_text(sent) == sent.replace("key-123456", REPLACEMENT)


@pytest.mark.parametrize(
    ("password", "environment"),
    [
        ("{{env.THING_KEY}}", {"THING_KEY": " key-123456\n"}),
        ("{{MY_PASSWORD}}", {"MY_PASSWORD": "key-123456"}),
        ("{{env.MY_PASSWORD}}", {"MY_PASSWORD": "key-123456\r\n"}),
    ],
    ids=["stripped", "unbound", "not among the keys"],
)
def test_basic_password_is_redacted_alone_and_encoded(password: str, environment: Mapping[str, str]) -> None:
    operation = tool_of(authentication={"type": "basic", "username": "me", "password": password}).operation
    redactor = Redactor(credential_values(operation, environment))
    assert redactor.redact_text(f"sent key-123456 and {BASIC}") == f"sent {REPLACEMENT} and Basic {REPLACEMENT}"


def test_names_in_the_base_url_are_not_redacted() -> None:
    tool = tool_of(
        inputs({"name": "id", "in": "path", "value": "{{env.MY_REGION}}"}),
        path="/{id}/{{env.MY_ORG}}",
        baseUri="https://{{env.MY_REGION}}.example",
    )
    environment = {"MY_REGION": "eu-west-1", "MY_ORG": "an-organization"}
    assert request_of(tool, {}, environment).url == "https://eu-west-1.example/eu-west-1/an-organization"
    assert list(credential_values(tool.operation, environment)) == []


def test_secrets_in_the_base_url_are_redacted() -> None:
    tool = tool_of(path="/bot{{env.BOT_TOKEN}}/send", baseUri="https://api.example/{{env.MY_SECRET}}")
    environment = {"BOT_TOKEN": "12345:bot", "MY_SECRET": "secret-123456"}
    assert request_of(tool, {}, environment).url == "https://api.example/secret-123456/bot12345%3Abot/send"
    assert set(credential_values(tool.operation, environment)) == {"12345:bot", "secret-123456"}
    redactor = Redactor(credential_values(tool.operation, environment))
    assert (
        redactor.redact_text(request_of(tool, {}, environment).url)
        == f"https://api.example/{REPLACEMENT}/bot{REPLACEMENT}/send"
    )


@pytest.mark.parametrize("password", [{}, {"password": ""}, {"password": None}], ids=repr)
def test_basic_authentication_can_have_an_empty_password(password: Json) -> None:
    tool = tool_of(authentication={"type": "basic", "username": "{{env.THING_KEY}}", **password})
    assert tool.operation.unsupported is None
    sent = dict(request_of(tool).headers)["Authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")) == b"key-123456:"
    redactor = Redactor(credential_values(tool.operation, KEY))
    assert redactor.redact_text(f"{sent} of key-123456") == f"Basic {REPLACEMENT} of {REPLACEMENT}"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("https://api.example", True),
        ("https://api.example/v1", True),
        ("http://localhost:8080", True),
        ("http://127.0.0.1/x", True),
        ("http://api.example", False),
        ("https://api.example?a=b", False),
        ("https://api.example/#a", False),
        ("https://me:pass@api.example", False),
        ("ftp://api.example", False),
        ("https://", False),
        ("https://[", False),
    ],
)
def test_usable_base_uri_is_https_or_loopback(uri: str, expected: bool) -> None:
    assert is_usable_base_uri(uri) is expected


def test_all_alternative_variables_are_redacted() -> None:
    given = document(authentication=BEARER)
    given["binds"][0]["keys"]["THING_KEY"] = ["A_KEY", "THING_KEY", "C_KEY"]
    (tool,) = compile_tools([parse_capability(given, "f.yaml")])
    values = set(credential_values(tool.operation, KEY | {"C_KEY": "other-123456"}))
    assert values == {"key-123456", "other-123456"}


def test_path_with_dot_segments_is_refused() -> None:
    operation = replace(tool_of(path="/{id}").operation, path=("/a/../", ArgumentReference("id")))
    with pytest.raises(InvalidArguments, match=r"^id: must not form the path segment `.` or `..` together$"):
        build_request(operation, {"id": "x"}, {})


RULES = [
    {"env": "LOCAL_URL", "matches": "https?://.+", "base_uri": "{value}/v1"},
    {"env": "LOCAL_URL", "base_uri": "https://{value}/v1"},
    {"env": "USE_LOCAL", "matches": "1|true", "base_uri": "http://localhost:8120/v1"},
]


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"USE_LOCAL": "1"}, "http://localhost:8120/v1/things"),
        ({"USE_LOCAL": "true"}, "http://localhost:8120/v1/things"),
        ({"USE_LOCAL": "yes"}, "https://api.example/things"),
        ({"USE_LOCAL": ""}, "https://api.example/things"),
        ({"LOCAL_URL": "http://127.0.0.1:1/", "USE_LOCAL": "1"}, "http://127.0.0.1:1/v1/things"),
        ({"LOCAL_URL": "host.example"}, "https://host.example/v1/things"),
        ({"LOCAL_URL": "http://localhost:1", "THING_BASE_URL": "https://own.example"}, "https://own.example/things"),
    ],
)
def test_base_uri_rules_apply_unless_another_variable_is_set(environment: Mapping[str, str], url: str) -> None:
    tool = tool_of(baseUri="https://api.example", path="/things", base_uri_rules=RULES)
    assert request_of(tool, {}, environment).url == url


@pytest.mark.parametrize(
    ("environment", "authorization"),
    [
        ({"USE_LOCAL": "1"}, None),
        ({"USE_LOCAL": "1", "THING_BASE_URL": "http://127.0.0.1:1"}, None),
        ({"USE_LOCAL": "1", **KEY}, "Bearer key-123456"),
    ],
)
def test_local_server_of_an_sdk_needs_no_credential(environment: Mapping[str, str], authorization: str | None) -> None:
    tool = tool_of(baseUri="https://api.example", authentication=BEARER, base_uri_rules=RULES)
    assert dict(request_of(tool, {}, environment).headers).get("Authorization") == authorization


@pytest.mark.parametrize(
    "environment",
    [
        {"THING_BASE_URL": "http://127.0.0.1:1"},
        {"USE_LOCAL": "0", "THING_BASE_URL": "http://127.0.0.1:1"},
        {"USE_LOCAL": "1", "THING_BASE_URL": "https://own.example"},
        {"LOCAL_URL": "host.example"},
        {"USE_LOCAL": "1", "THING_KEY": "two\nlines"},
    ],
)
def test_any_other_server_needs_a_credential(environment: Mapping[str, str]) -> None:
    tool = tool_of(baseUri="https://api.example", authentication=BEARER, base_uri_rules=RULES)
    with pytest.raises(NotConfigured):
        request_of(tool, {}, environment)


def test_operation_can_have_an_authentication_of_its_own() -> None:
    own = {"type": "apikey", "key": "X-Key", "value": "other"}
    tool = tool_of({"authentication": own}, authentication=BEARER)
    assert dict(request_of(tool, {}, KEY).headers)["X-Key"] == "other"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "169.254.169.254", "2130706433", "localhost"])
def test_form_of_a_provider_elsewhere_is_not_sent_to_this_machine_or_its_network(host: str) -> None:
    with pytest.raises(UpstreamError, match="leads to this machine or its network") as caught:
        build_form_request("thing's storage", f"https://{host}/", *FORM)
    assert caught.value.hint.startswith("Nothing was sent.")
    assert build_form_request("thing's storage", f"https://{host}/", *FORM, is_local=True).public_only is False
    assert build_form_request("thing's storage", "https://s3.example/", *FORM).public_only is True


def test_invalid_pattern_of_a_base_uri_rule_is_rejected_with_its_place() -> None:
    with pytest.raises(CapabilityError, match="unterminated") as caught:
        tool_of(baseUri="https://api.example", base_uri_rules=[{"env": "LOCAL_URL", "matches": "("}])
    assert caught.value.place == "capability.consumes.base_uri_rules.matches"
