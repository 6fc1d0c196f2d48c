"""Responses in other encodings than UTF-8."""

import codecs
import time

import pytest

from mcp_taskruns.core.calls.charsets import to_utf8
from mcp_taskruns.core.calls.received import HttpResponse
from mcp_taskruns.core.calls.response import CallResult, read_response
from mcp_taskruns.core.model.operation import BaseUri, Operation
from mcp_taskruns.errors import ProviderError

READ = Operation("read", "thing", "GET", BaseUri(("https://api.example",), ()), ("/",))
FILE = Operation("file", "thing", "GET", BaseUri(("https://api.example",), ()), ("/",), returns_file=True)

TEXT = '{"name":"Jos\u00e9"}'
JAPANESE = '{"name":"\u65e5\u672c"}'
INVALID = "The response is not valid {}: \ufffd stands for what cannot be decoded."
CONVERTED = "The response was converted to UTF-8 from {}."


def response(content_type: str, body: bytes, status: int = 200) -> HttpResponse:
    return HttpResponse(status, {"content-type": content_type} if content_type else {}, body)


def result_of(content_type: str, body: bytes) -> CallResult:
    return read_response(to_utf8(response(content_type, body)), READ)


@pytest.mark.parametrize(
    ("content_type", "body", "encoding"),
    [
        ("application/json; charset=iso-8859-1", TEXT.encode("latin-1"), "cp1252"),
        ('application/json;charset="ISO-8859-1"', TEXT.encode("latin-1"), "cp1252"),
        ("application/problem+json ; Charset='latin1'; v=1", TEXT.encode("latin-1"), "cp1252"),
        ("application/json; charset=us-ascii", TEXT.encode("latin-1"), "cp1252"),
        ("application/json; charset=iso-8859-15", TEXT.encode("iso-8859-15"), "iso8859-15"),
        ("application/json", TEXT.encode("utf-16"), "utf-16"),
        ("application/json; charset=utf-8", codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "utf-16"),
        ("application/json; charset=utf-16", TEXT.encode("utf-16-be"), "utf-16-be"),
        ("application/json; charset=utf-16le", TEXT.encode("utf-16-le"), "utf-16-le"),
        ("application/json", TEXT.encode("utf-16-le"), "utf-16-le"),
        ("application/json", TEXT.encode("utf-32"), "utf-32"),
        ("application/json", codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"), "utf-32"),
        ("application/json", TEXT.encode("utf-32-be"), "utf-32-be"),
    ],
)
def test_json_in_another_encoding_is_converted_with_a_note(content_type: str, body: bytes, encoding: str) -> None:
    # https://www.rfc-editor.org/rfc/rfc8259#section-8.1, https://www.rfc-editor.org/rfc/rfc4627#section-3
    result = result_of(content_type, body)
    assert (result.value, result.text) == ({"name": "Jos\u00e9"}, TEXT)
    assert result.notes == (CONVERTED.format(encoding),)


@pytest.mark.parametrize("charset", ["shift_jis", "euc-jp", "iso-2022-jp", "gb18030"])
def test_json_in_an_east_asian_encoding_is_converted(charset: str) -> None:
    result = result_of(f"application/json; charset={charset}", JAPANESE.encode(charset))
    assert result.value == {"name": "\u65e5\u672c"}
    assert result.notes[0].startswith("The response was converted to UTF-8 from ")


@pytest.mark.parametrize(
    ("charset", "encoding", "text"),
    [
        ("Shift_JIS", "cp932", "\u2460\u3231"),
        ("x-sjis", "cp932", "\u65e5"),
        ("gb2312", "gbk", "\u9555"),
        ("x-gbk", "gbk", "\u9555"),
        ("euc-kr", "cp949", "\ub620\ubc29"),
        ("ks_c_5601-1987", "cp949", "\ub620\ubc29"),
        ("iso-8859-9", "cp1254", "\u015f\u2014"),
        ("tis-620", "cp874", "\u0e01\u2026"),
    ],
)
def test_json_is_read_in_the_larger_encoding_that_its_label_stands_for(charset: str, encoding: str, text: str) -> None:
    # https://encoding.spec.whatwg.org/#names-and-labels
    result = result_of(f"application/json; charset={charset}", f'{{"name":"{text}"}}'.encode(encoding))
    assert result.value == {"name": text}


@pytest.mark.parametrize("media_type", ["text/json", "application/x-json", "application/json, application/json"])
def test_other_types_of_json_are_json(media_type: str) -> None:
    assert result_of(media_type, TEXT.encode()).value == {"name": "Jos\u00e9"}
    with pytest.raises(ProviderError, match="is not valid JSON"):
        result_of(media_type, b"{")


@pytest.mark.parametrize("name", ["ndjson", "x-ndjson", "jsonl", "x-jsonlines", "json-lines"])
def test_types_of_json_lines_are_lists(name: str) -> None:
    assert result_of(f"application/{name}", b'{"a":1}\n2\n').value == [{"a": 1}, 2]


@pytest.mark.parametrize("charset", ["", "utf-8", "UTF8", "iso-8859-1", "utf-16", "klingon", "zlib", "punycode"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_json_in_utf8_is_read_whatever_its_declared_charset(charset: str, mark: bytes) -> None:
    result = result_of(f"application/json; charset={charset}", mark + TEXT.encode())
    assert (result.value, result.notes) == ({"name": "Jos\u00e9"}, ())


@pytest.mark.parametrize(
    "charset", ["", "; charset=utf-8", "; charset=klingon", "; charset=idna", "; charset=undefined"]
)
def test_invalid_bytes_in_json_are_replaced_with_a_note(charset: str) -> None:
    result = result_of(f"application/json{charset}", b'{"name":"Jos\xe9", "n":1}')
    assert result.value == {"name": "Jos\ufffd", "n": 1}
    assert result.notes == (INVALID.format("utf-8"),)


def test_invalid_bytes_in_another_encoding_are_replaced_with_a_note() -> None:
    body = codecs.BOM_UTF16_LE + '["a'.encode("utf-16-le") + b"\x00\xd8" + '"]'.encode("utf-16-le")
    result = result_of("application/json", body)
    assert result.value == ["a\ufffd"]
    assert result.notes == (CONVERTED.format("utf-16"), INVALID.format("utf-16"))


def test_surrogates_in_utf8_are_replaced() -> None:
    assert result_of("application/json", b'"\xed\xa0\x80"').value == "\ufffd" * 3


@pytest.mark.parametrize("content_type", ["text/csv; charset=windows-1252", "text/csv; charset=iso-8859-1"])
def test_text_is_read_in_its_declared_encoding(content_type: str) -> None:
    # https://encoding.spec.whatwg.org/#names-and-labels: iso-8859-1 is read as windows-1252
    result = result_of(content_type, "5 \u20ac, \u201cJos\u00e9\u201d".encode("cp1252"))
    assert result == CallResult(200, "5 \u20ac, \u201cJos\u00e9\u201d", media_type="text/csv")


def test_json_lines_in_utf16_are_converted() -> None:
    result = result_of("application/x-ndjson", '{"a":1}\n{"b":2}\n'.encode("utf-16"))
    assert result.value == [{"a": 1}, {"b": 2}]


def test_text_file_is_read_in_its_declared_encoding() -> None:
    given = response("text/plain; charset=latin1", b"caf\xe9")
    assert read_response(to_utf8(given), FILE).text == "caf\u00e9"


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream; charset=utf-16"])
def test_binary_content_is_not_converted(content_type: str) -> None:
    given = response(content_type, b"\xff\xfe\xe9\x00")
    assert to_utf8(given) is given
    assert read_response(given, READ).data == given.body


def test_error_message_in_another_encoding_is_converted() -> None:
    given = response("application/json; charset=utf-16", '{"message":"Jos\u00e9"}'.encode("utf-16"), 400)
    with pytest.raises(ProviderError, match="Jos\u00e9"):
        read_response(to_utf8(given), READ)


def test_title_of_a_page_in_another_encoding_is_converted() -> None:
    given = response("text/html", "<html><title>Jos\u00e9</title>".encode("utf-16"))
    with pytest.raises(ProviderError, match='instead of JSON: "Jos\u00e9"'):
        read_response(to_utf8(given), READ)


def test_conversion_is_done_once() -> None:
    given = response("application/json; charset=utf-16", TEXT.encode("utf-16"))
    converted = to_utf8(given)
    assert converted.body == TEXT.encode()
    assert to_utf8(converted) is converted


def test_characters_across_pieces_are_whole() -> None:
    text = '"' + "\u65e5\U0001f600" * 50_000 + '"'
    for encoding in ("utf-16", "gb18030"):
        result = result_of(f"application/json; charset={encoding}", text.encode(encoding))
        assert result.value == "\u65e5\U0001f600" * 50_000


@pytest.mark.parametrize(
    "charset", ["punycode", "idna", "unicode_escape", "raw_unicode_escape", "utf-7", "zlib", "rot13"]
)
def test_slow_and_unsuitable_codecs_are_not_used(charset: str) -> None:
    began = time.process_time()
    result = result_of(f"text/plain; charset={charset}", b"-" + b"a" * 1_000_000)
    assert result.text == "-" + "a" * 1_000_000
    assert time.process_time() - began < 5
