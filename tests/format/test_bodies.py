"""Bodies that are written for an independent reader: forms, multipart, XML."""

import email
import email.policy
from collections.abc import Mapping
from email.message import EmailMessage
from typing import Any
from urllib.parse import parse_qsl
from xml.etree import ElementTree

import pytest

from mcp_taskruns.core.calls.request import HttpRequest
from tests.format.files import sent, tools_of


def content_type(request: HttpRequest) -> str:
    (found,) = [value for name, value in request.headers if name.lower() == "content-type"]
    return found


def form(tool: str, arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    request = sent("body-templates.yaml", tool, arguments)
    assert content_type(request) == "application/x-www-form-urlencoded"
    assert request.content is not None
    return parse_qsl(request.content.decode("ascii"), keep_blank_values=True, strict_parsing=True)


def parts(tool: str, arguments: Mapping[str, Any]) -> list[tuple[str, str | None, str | None, bytes]]:
    """Name, file's name, content type and content of each part."""
    request = sent("body-templates.yaml", tool, arguments)
    assert content_type(request).startswith("multipart/form-data; boundary=")
    assert request.content is not None
    head = f"Content-Type: {content_type(request)}\r\n\r\n".encode()
    message = email.message_from_bytes(head + request.content, policy=email.policy.HTTP)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    found: list[tuple[str, str | None, str | None, bytes]] = []
    for part in message.iter_parts():
        assert part.get_content_disposition() == "form-data"
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        name = part.get_param("name", header="content-disposition")
        found.append((str(name), part.get_filename(), part.get("content-type"), payload))
    return found


def test_form_contains_each_value() -> None:
    arguments = {"name": "A&B=C d+ü%", "tags": ["x", 1], "meta": {"k": [1]}, "on": True}
    assert form("form", arguments) == [
        ("grant", "client"),
        ("name", "A&B=C d+ü%"),
        ("tags", "x"),
        ("tags", "1"),
        ("meta", '{"k":[1]}'),
        ("on", "true"),
        ("note", "to A&B=C d+ü%"),
    ]


def test_absent_argument_is_omitted_from_a_form() -> None:
    assert form("form", {"name": "n", "on": False}) == [
        ("grant", "client"),
        ("name", "n"),
        ("on", "false"),
        ("note", "to n"),
    ]


def test_form_without_values_is_not_sent() -> None:
    request = sent("body-templates.yaml", "form-short", {})
    assert request.content is None
    assert [name for name, _ in request.headers] == ["Accept"]
    assert form("form-short", {"name": ""}) == [("name", "")]


def test_form_written_as_text_is_unchanged() -> None:
    assert form("form-text", {"name": "a&b=c d"}) == [("name", "a&b=c d"), ("fixed", "1+1")]


def test_multipart_has_a_part_for_each_value() -> None:
    assert [(name, file, content) for name, file, _, content in parts("multipart", {"title": "T ü", "count": 3})] == [
        ("title", None, "T ü".encode()),
        ("kind", None, b"fixed"),
        ("count", None, b"3"),
    ]


def test_absent_argument_is_omitted_from_multipart() -> None:
    assert [name for name, *_ in parts("multipart", {"title": "T"})] == ["title", "kind"]


def test_multipart_part_may_be_a_file() -> None:
    arguments = {"title": "T", "content": "a,b\r\n1,2", "filename": "a b.csv"}
    title, file = parts("multipart-file", arguments)
    assert (title[0], title[1], title[3]) == ("title", None, b"T")
    assert file == ("file", "a b.csv", "text/csv", b"a,b\r\n1,2")


def test_multipart_boundary_does_not_occur_in_values() -> None:
    boundary = (
        content_type(sent("body-templates.yaml", "multipart", {"title": "T"})).partition("boundary=")[2].strip('"')
    )
    evil = f"x\r\n--{boundary}\r\nContent-Disposition: form-data; name=admin\r\n\r\ntrue\r\n--{boundary}--"
    assert [(name, content) for name, _, _, content in parts("multipart", {"title": evil})] == [
        ("title", evil.encode()),
        ("kind", b"fixed"),
    ]


@pytest.mark.parametrize(("tool", "method"), [("xml", "POST"), ("bare-xml", "PUT")])
def test_values_are_escaped_in_xml(tool: str, method: str) -> None:
    value = "<b a='1'>&amp; \"q\"</b>"
    request = sent("body-templates.yaml", tool, {"to": value, "text": value})
    assert (request.method, content_type(request).partition(";")[0]) == (method, "application/xml")
    assert request.content is not None
    note = ElementTree.fromstring(request.content)
    assert (note.tag, note.attrib, note.text, list(note)) == ("note", {"to": value}, value, [])


def test_binary_body_is_passed_in_base64() -> None:
    schema = tools_of("body-templates.yaml")["binary"].input_schema["properties"]["content"]
    assert (schema["type"], schema["contentEncoding"]) == ("string", "base64")
