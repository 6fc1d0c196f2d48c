"""The character encoding of a response: text in another encoding than UTF-8 is converted to it."""

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import replace

from mcp_taskruns.core.calls.received import HttpResponse

PIECE_BYTES = 65_536
"""Bytes that are converted at a time: other threads can run in between."""

REPLACEMENT = "\ufffd".encode()
"""What replaces bytes that cannot be decoded."""

_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([\w.:-]{1,40})""", re.IGNORECASE)

_BYTE_ORDER_MARKS = (
    # UTF-32 first: its mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_SAME_IN_PRACTICE = {
    "ascii": "cp1252",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "shift_jis": "cp932",
    "tis-620": "cp874",
}
"""https://encoding.spec.whatwg.org/#names-and-labels: the larger encodings that browsers read instead of these."""

_OTHER_LABELS = {"x-sjis": "cp932", "x-gbk": "gb18030", "x-x-big5": "big5", "dos-874": "cp874", "x-cp1252": "cp1252"}
"""Labels of the same specification that Python does not know."""

_REFUSED = frozenset({"idna", "punycode", "raw-unicode-escape", "unicode-escape", "utf-7"})
"""Codecs of Python that are not character encodings of responses; some take quadratic time."""


def to_utf8(response: HttpResponse) -> HttpResponse:
    """Return the response with its text in UTF-8, and notes about converted JSON; binary content is unchanged."""
    if not (response.is_text or response.is_json or response.is_json_lines):
        return response
    encoding = _encoding_of(response)
    if encoding == "utf-8" and _is_utf8(response.body):
        return response
    body = b"".join(_converted(response.body, encoding))
    notes = []
    if encoding != "utf-8" and response.is_json:
        notes.append(f"The response was converted to UTF-8 from {encoding}.")
    if REPLACEMENT in body and response.is_json:
        notes.append(f"The response is not valid {encoding}: \ufffd stands for what cannot be decoded.")
    headers = {**response.headers, "content-type": f"{response.media_type}; charset=utf-8"}
    return replace(response, body=body, headers=headers, notes=tuple(notes))


def _encoding_of(response: HttpResponse) -> str:
    """Return the encoding that a byte order mark names, else the declared one. JSON is in UTF-8 if that is possible."""
    body = response.body
    for mark, encoding in _BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return encoding
    declared = _declared_encoding(response)
    if response.is_text:
        return declared
    if declared.startswith("utf-"):
        return json.detect_encoding(body).removesuffix("-sig")  # the zeros beside ASCII characters show it
    return declared if declared.startswith("iso2022") or not _is_utf8(body) else "utf-8"


def _declared_encoding(response: HttpResponse) -> str:
    """Return Python's name of the charset in the content type; UTF-8 if there is none, or an unknown one."""
    match = _CHARSET.search(response.headers.get("content-type", ""))
    if match is None:
        return "utf-8"
    try:
        label = match.group(1).lower()
        name = codecs.lookup(_OTHER_LABELS.get(label, label)).name
        b"x".decode(name, "replace")
    except (LookupError, UnicodeError):  # unknown, or a codec between other types
        return "utf-8"
    return "utf-8" if name in _REFUSED else _SAME_IN_PRACTICE.get(name, name)


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _converted(body: bytes, encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    for start in range(0, len(body), PIECE_BYTES):
        yield decoder.decode(body[start : start + PIECE_BYTES]).encode("utf-8", "replace")
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")
