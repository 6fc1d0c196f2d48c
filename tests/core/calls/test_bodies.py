"""Encoding of request bodies, directly and through body templates."""

import base64
from email import message_from_bytes
from email.message import Message
from types import SimpleNamespace
from typing import Any

import pytest

from mcp_taskruns.core.calls import bodies
from mcp_taskruns.core.calls.bodies import Part, dump_json, encode_body, encode_multipart, escape_value, to_text
from mcp_taskruns.core.model.operation import BodyKind
from mcp_taskruns.errors import InvalidArguments
from tests.core.documents import Json, request_of, tool_of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        ('a"b\n', 'a"b\n'),
        (True, "true"),
        (None, "null"),
        (5, "5"),
        (1.5, "1.5"),
        (5.0, "5"),
        (-0.0, "0"),
        (1e3, "1000"),
        (["a", 2, True, [3.0, None]], "a,2,true,3,null"),
        ([], ""),
        ({"a": [1, 2], "ö": "ü"}, '{"a":[1,2],"ö":"ü"}'),
    ],
)
def test_to_text_returns_strings_unchanged_and_other_values_as_json(value: Any, text: str) -> None:
    assert to_text(value) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": float("-inf")}])
def test_to_text_refuses_nan_and_infinity(value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_json(value)


@pytest.mark.parametrize(
    ("kind", "escaped"),
    [
        ("json", "&<>\"'\r\n é"),
        ("text", "&<>\"'\r\n é"),
        ("binary", "&<>\"'\r\n é"),
        ("multipart", "&<>\"'\r\n é"),
        ("xml", "&amp;&lt;&gt;&quot;&apos;&#13;&#10; é"),
        ("form", "%26%3C%3E%22%27%0D%0A%20%C3%A9"),
    ],
)
def test_values_inside_text_are_escaped_for_the_body_kind(kind: BodyKind, escaped: str) -> None:
    assert escape_value("&<>\"'\r\n é", kind) == escaped


@pytest.mark.parametrize(
    ("kind", "value", "content_type", "content"),
    [
        ("json", {"a": ["ö", 5.0, None]}, "application/json", '{"a":["ö",5.0,null]}'.encode()),
        ("json", "x", "application/json", b'"x"'),
        ("json", [], "application/json", b"[]"),
        ("text", "größe", "text/plain; charset=utf-8", "größe".encode()),
        ("text", {"a": 1}, "text/plain; charset=utf-8", b'{"a":1}'),
        ("text", ["a", 5], "text/plain; charset=utf-8", b"a,5"),
        ("text", "", "text/plain; charset=utf-8", b""),
        ("xml", "<a>ö</a>", "application/xml", "<a>ö</a>".encode()),
        ("form", "a=1&b=2", "application/x-www-form-urlencoded", b"a=1&b=2"),
        ("form", {}, "application/x-www-form-urlencoded", b""),
        (
            "form",
            {"a b": "1&2/3", "l": ["x", 2, None, True], "n": None, "o": {"k": [1]}, "f": 2.0, "e": [], "t": ""},
            "application/x-www-form-urlencoded",
            b"a%20b=1%262%2F3&l=x&l=2&l=true&o=%7B%22k%22%3A%5B1%5D%7D&f=2&t=",
        ),
        ("binary", "AAECAw==", "application/octet-stream", b"\x00\x01\x02\x03"),
        ("binary", "", "application/octet-stream", b""),
    ],
)
def test_body_is_encoded_by_kind(kind: BodyKind, value: Any, content_type: str, content: bytes) -> None:
    assert encode_body(value, kind) == (content_type, content)


@pytest.mark.parametrize("value", ["AAE", "A A=", "äää=", "AAECAw==\n", "{}", 5, None, ["AAEC"]], ids=repr)
def test_invalid_base64_body_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArguments, match=r"^the body: must be bytes encoded as base64$"):
        encode_body(value, "binary")


@pytest.mark.parametrize("value", [float("nan"), {"a": float("inf")}])
@pytest.mark.parametrize("kind", ["json", "text", "xml", "form", "multipart"])
def test_nan_and_infinity_are_refused_in_every_body_kind(kind: BodyKind, value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_body({"a": value} if kind in {"form", "multipart"} else value, kind)


def parts_of(content_type: str, content: bytes) -> list[Message]:
    """Parse a multipart form with the standard library."""
    message = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + content)
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert all(isinstance(part, Message) for part in parts)
    return [part for part in parts if isinstance(part, Message)]


def read(part: Message) -> tuple[Any, Any, Any, Any]:
    disposition = {name: part.get_param(name, header="content-disposition") for name in ("name", "filename")}
    return disposition["name"], disposition["filename"], part["Content-Type"], part.get_payload(decode=True)


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ({"a": "1", "b": 5, "t": True, "e": ""}, [("a", b"1"), ("b", b"5"), ("t", b"true"), ("e", b"")]),
        ({"l": ["x", 2], "n": None, "o": {"k": 1}}, [("l", b"x"), ("l", b"2"), ("o", b'{"k":1}')]),
        ({"ö": "ü\r\n\r\n--x"}, [("ö", "ü\r\n\r\n--x".encode())]),
        ([{"name": "a", "value": "1"}, {"name": "b", "value": None}, {"name": "c"}], [("a", b"1")]),
        ([{"name": "l", "value": ["x", "y"]}, "no part", 5, None], [("l", b"x"), ("l", b"y")]),
        ([{"name": 5, "value": 6}], [("5", b"6")]),
    ],
)
def test_multipart_form_has_a_part_for_each_value(value: Any, parts: list[tuple[str, bytes]]) -> None:
    content_type, content = encode_body(value, "multipart")
    found = [read(part) for part in parts_of(content_type, content)]
    assert found == [(name if name.isascii() else found[0][0], None, None, text) for name, text in parts]
    for name, _ in parts:
        assert f'Content-Disposition: form-data; name="{name}"\r\n'.encode() in content


def test_multipart_part_can_have_filename_and_content_type() -> None:
    form = [
        {"name": "file", "value": "a,b\n", "filename": "a.csv", "contentType": "text/csv"},
        {"name": "file", "value": "{}", "contentType": "application/json"},
        {"name": "file", "value": "x", "filename": 5, "contentType": None},
        {"name": "file", "value": "x", "filename": ""},
    ]
    assert [read(part) for part in parts_of(*encode_body(form, "multipart"))] == [
        ("file", "a.csv", "text/csv", b"a,b\n"),
        ("file", None, "application/json", b"{}"),
        ("file", "5", None, b"x"),
        ("file", "", None, b"x"),
    ]


def test_multipart_names_are_escaped() -> None:
    # https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data
    part = Part('a"\r\nX-Evil: 1', b"x", filename='b"; name="c\n')
    _, content = encode_multipart([part])
    assert content.split(b"\r\n")[1] == (
        b'Content-Disposition: form-data; name="a%22%0D%0AX-Evil: 1"; filename="b%22; name=%22c%0A"'
    )


@pytest.mark.parametrize("media_type", ["text/plain\r\nX-Evil: 1", "text/größe", "a\x00b"])
def test_content_type_with_line_break_or_non_ascii_is_refused(media_type: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        encode_body([{"name": "a", "value": "x", "contentType": media_type}], "multipart")
    assert str(caught.value) == "the content type of the form field `a` is not printable ASCII"


def test_multipart_encoding_is_deterministic() -> None:
    form = {"a": "1", "b": "2"}
    content_type, content = encode_body(form, "multipart")
    assert encode_body(form, "multipart") == (content_type, content)
    assert encode_body({"a": "other"}, "multipart")[0] != content_type
    boundary = content_type.removeprefix("multipart/form-data; boundary=").encode()
    assert content.split(b"--" + boundary)[0::3] == [b"", b"--\r\n"]


def test_multipart_boundary_does_not_occur_in_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = "0" * 32
    digests = iter([taken, "1" * 32, "2" * 32])
    hashing = SimpleNamespace(sha256=lambda _: SimpleNamespace(hexdigest=lambda: next(digests)))
    monkeypatch.setattr(bodies, "hashlib", hashing)
    content_type, content = encode_multipart([Part("a", f"{taken} {'1' * 32}".encode())])
    assert content_type == f"multipart/form-data; boundary={'2' * 32}"
    assert content.endswith(b"\r\n--" + b"2" * 32 + b"--\r\n")


def test_multipart_form_without_parts_has_only_the_closing_boundary() -> None:
    content_type, content = encode_multipart([])
    boundary = content_type.removeprefix("multipart/form-data; boundary=")
    assert content == f"--{boundary}--\r\n".encode()


def test_repr_of_a_part_hides_its_content() -> None:
    assert "confidential text" not in repr(Part("a", b"confidential text"))


FORM_TYPE = "application/x-www-form-urlencoded"
JSON_TYPE = "application/json"


@pytest.mark.parametrize(
    ("body", "arguments", "content_type", "content"),
    [
        # JSON, as a tree and as text
        ('{"a": {{a}}, "b": "{{b}}", "t": "<{{t}}>"}', {"a": [1], "t": '"'}, JSON_TYPE, b'{"a":[1],"t":"<\\">"}'),
        ({"type": "json", "data": '{"a": {{a}}}'}, {"a": {"b": None}}, "application/json", b'{"a":{"b":null}}'),
        ({"type": "json", "data": '{"a": {{a}}}'}, {}, None, None),
        ({"type": "JSON", "data": "say {{a}}"}, {"a": 1}, "application/json", b'"say 1"'),
        ({"a": "{{a}}", "b": 1}, {"a": 2}, "application/json", b'{"a":2,"b":1}'),
        (["{{a}}", "x"], {}, "application/json", b'["x"]'),
        ("[{{a}}, 1]", {"a": "x"}, "application/json", b'["x",1]'),
        # An object with other members is not a template but a literal body.
        ({"data": {"a": "{{a}}"}}, {"a": 1}, "application/json", b'{"data":{"a":1}}'),
        ({"type": "note"}, {}, "application/json", b'{"type":"note"}'),
        ({"type": "{{a}}", "b": 1}, {"a": "x"}, "application/json", b'{"type":"x","b":1}'),
        ({"type": "avro"}, {}, "application/json", b'{"type":"avro"}'),
        ({"type": "text", "data": "{{a}}", "b": 1}, {"a": 5}, "application/json", b'{"type":"text","data":5,"b":1}'),
        ({}, {}, None, None),
        ({"type": "json", "data": 5}, {}, "application/json", b"5"),
        # text
        ("say {{a}}", {"a": "<&>"}, "text/plain; charset=utf-8", b"say <&>"),
        ({"type": "text", "data": "{{a}}"}, {"a": "ö"}, "text/plain; charset=utf-8", "ö".encode()),
        ({"type": "raw", "data": "say {{a}}{{b}}"}, {"a": 5}, "text/plain; charset=utf-8", b"say 5"),
        ({"type": "text", "data": '{"a": 1}'}, {}, "text/plain; charset=utf-8", b'{"a": 1}'),
        # XML
        (" <x>{{a}}</x>", {"a": "<&>\"'"}, "application/xml", b" <x>&lt;&amp;&gt;&quot;&apos;</x>"),
        ({"type": "xml", "data": "<x a='{{a}}'/>"}, {"a": {"b": 1}}, "application/xml", b"<x a='{&quot;b&quot;:1}'/>"),
        ({"type": "xml", "data": "<x/>"}, {}, "application/xml", b"<x/>"),
        # forms
        ({"type": "formUrlEncoded", "data": {"a": "{{a}}"}}, {"a": ["x", "y"]}, FORM_TYPE, b"a=x&a=y"),
        ({"type": "formUrlEncoded", "data": {"b": "<{{b}}>"}}, {"b": "&"}, FORM_TYPE, b"b=%3C%26%3E"),
        ({"type": "form", "data": {"a": "{{a}}"}}, {}, None, None),
        ({"type": "form_url_encoded", "data": {"a": "{{a}}", "b": True}}, {}, FORM_TYPE, b"b=true"),
        ({"type": "form", "data": "a={{a}}&b=x%20y"}, {"a": "1&b=2"}, FORM_TYPE, b"a=1%26b%3D2&b=x%20y"),
        ({"type": "form", "data": {5: "{{a}}"}}, {"a": 1}, FORM_TYPE, b"5=1"),
        # bytes
        ({"type": "binary", "data": "{{a}}"}, {"a": "AAEC"}, "application/octet-stream", b"\x00\x01\x02"),
        ({"type": "binary", "data": "AAEC"}, {}, "application/octet-stream", b"\x00\x01\x02"),
    ],
)  # fmt: skip
def test_body_template_is_filled_and_encoded_by_kind(
    body: Any, arguments: Json, content_type: str | None, content: bytes | None
) -> None:
    request = request_of(tool_of({"method": "POST", "body": body}), arguments)
    assert (dict(request.headers).get("Content-Type"), request.content) == (content_type, content)


@pytest.mark.parametrize(
    ("data", "arguments", "parts"),
    [
        (
            {"purpose": "batch", "file": "{{file}}", "gone": "{{gone}}"},
            {"file": "a\n"},
            [("purpose", None, None, b"batch"), ("file", None, None, b"a\n")],
        ),
        (
            [
                {"name": "file", "value": "{{file}}", "filename": "{{name}}.txt", "contentType": "{{type}}"},
                {"name": "gone", "value": "{{gone}}"},
            ],
            {"file": "a", "name": 'q"'},
            [("file", "q%22.txt", None, b"a")],
        ),
        ({"gone": "{{gone}}"}, {}, None),
        ([{"name": "gone", "value": "{{gone}}", "filename": "a"}], {}, None),
        ([], {}, None),
        ({}, {}, None),
        (["value", {"name": "a", "value": "x"}], {}, [("a", None, None, b"x")]),
        # Values that are not parts are omitted.
        ([5, {"name": "a", "value": "x"}], {}, [("a", None, None, b"x")]),
        ([5, {"name": "gone", "value": "{{gone}}"}], {}, None),
    ],
)
def test_multipart_form_omits_parts_with_absent_arguments(data: Any, arguments: Json, parts: list[Any] | None) -> None:
    request = request_of(tool_of({"method": "POST", "body": {"type": "multipartForm", "data": data}}), arguments)
    if parts is None:
        assert request.content is None
        assert "Content-Type" not in dict(request.headers)
    else:
        assert request.content is not None
        found = parts_of(dict(request.headers)["Content-Type"], request.content)
        assert [read(part) for part in found] == parts


@pytest.mark.parametrize("kind", ["multipart", "multipartForm", "multipart-form", "MULTIPART_FORM", "multipart form"])
def test_multipart_form_has_several_spellings(kind: str) -> None:
    request = request_of(tool_of({"method": "POST", "body": {"type": kind, "data": {"a": "1"}}}))
    assert dict(request.headers)["Content-Type"].startswith("multipart/form-data; boundary=")


@pytest.mark.parametrize("data", ["text", 5, "{{a}}"], ids=repr)
def test_multipart_form_without_part_names_is_listed_but_unsupported(data: Any) -> None:
    tool = tool_of({"method": "POST", "body": {"type": "multipart", "data": data}})
    assert tool.operation.unsupported == "things-api.yaml has a multipart body without fields"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"type": "json", "data": '{"a": "{{"}'}, "an unclosed placeholder in '{{'"),
        ({"type": "json", "data": {"a": "{{a"}}, "an unclosed placeholder in '{{a'"),
        ("say {{", "an unclosed placeholder in 'say {{'"),
        ("<x>{{}}</x>", "a placeholder without a name in '<x>{{}}</x>'"),
    ],
)
def test_broken_body_template_makes_the_tool_unsupported(body: Any, message: str) -> None:
    assert tool_of({"method": "POST", "body": body}).operation.unsupported == f"things-api.yaml has {message}"


def test_binary_body_argument_is_described_as_base64() -> None:
    tool = tool_of({"method": "POST", "body": {"type": "binary", "data": "{{file}}"}})
    assert tool.input_schema == {
        "type": "object",
        "properties": {"file": {"description": "Bytes, in base64.", "type": "string", "contentEncoding": "base64"}},
        "additionalProperties": False,
        "required": ["file"],
    }
    content = bytes(range(256))
    assert request_of(tool, {"file": base64.b64encode(content).decode()}).content == content


@pytest.mark.parametrize(("data", "called"), [("{{file}}", "file"), ("AA{{file}}", "the body"), ("AA!", "the body")])
def test_invalid_base64_is_reported_by_argument_name(data: str, called: str) -> None:
    tool = tool_of({"method": "POST", "body": {"type": "binary", "data": data}})
    with pytest.raises(InvalidArguments, match=f"^{called}: must be bytes encoded as base64$"):
        request_of(tool, {"file": "no base64!"})


@pytest.mark.parametrize(
    ("body", "required"),
    [
        ("say {{a}}", ["a"]),
        ("<x>{{a}}</x>", ["a"]),
        ({"type": "text", "data": "{{a}}"}, ["a"]),
        ({"type": "json", "data": {"a": "{{a}}"}}, None),
        ({"type": "json", "data": {"t": "say {{a}}"}}, None),
        ({"type": "form", "data": {"a": "{{a}}"}}, None),
        ({"type": "form", "data": "a={{a}}"}, None),
        ({"type": "multipart", "data": {"a": "{{a}}"}}, None),
    ],
)
def test_arguments_of_text_templates_are_required_and_others_are_optional(
    body: Any, required: list[str] | None
) -> None:
    schema = tool_of({"method": "POST", "body": body}).input_schema
    assert (schema.get("required"), list(schema["properties"])) == (required, ["a"])
