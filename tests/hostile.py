"""Responses of a hostile provider: small on the wire or on disk, and expensive for a careless reader."""

import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MB = 1_000_000
LIMIT = 7_900_000
"""Bytes of a body that is just small enough to be parsed."""

JSON = "application/json"
JSON_LINES = "application/x-ndjson"


@dataclass(frozen=True)
class HostileResponse:
    """A response with a body that is built when it is needed."""

    body: Callable[[], bytes]
    media_type: str = JSON
    status: int = 200
    coding: str = ""

    @property
    def headers(self) -> dict[str, str]:
        coding = {"Content-Encoding": self.coding} if self.coding else {}
        return {"Content-Type": self.media_type, **coding}


def _repeat(item: bytes, size: int = LIMIT) -> bytes:
    """Return a JSON list of the item, repeated."""
    return b"[" + item * (size // len(item)) + b"0]"


def _gzip_members(count: int, data: bytes = b"") -> bytes:
    return gzip.compress(data) * count


RESPONSES: Mapping[str, HostileResponse] = {
    "field repeated before each message": HostileResponse(
        lambda: json.dumps({"attr": "a" * 200_000, "errors": ["m", *map(str, range(20_000))]}).encode(),
        status=400,
    ),
    "path repeated before each message": HostileResponse(
        lambda: json.dumps({"path": ["p" * 10] * 20_000, "errors": [*map(str, range(20_000))]}).encode(),
        status=422,
    ),
    "many equal messages": HostileResponse(lambda: json.dumps({"errors": ["m"] * 500_000}).encode(), status=400),
    "long error message": HostileResponse(lambda: json.dumps({"error": "\n" * 3_000_000}).encode(), status=500),
    "nested errors": HostileResponse(lambda: b'{"attr":"a","errors":' * 190 + b'"m"' + b"}" * 190, status=400),
    "titles": HostileResponse(lambda: b"<title" * MB, "text/html", 502),
    "lines of lone surrogates": HostileResponse(lambda: b'"\\ud800"\n' * 100_000, JSON_LINES),
    "lone surrogates in one text": HostileResponse(lambda: b'["' + b"\\ud800" * 1_300_000 + b'"]'),
    "surrogate pairs in names": HostileResponse(
        lambda: b"{" + b",".join(b'"\\ud83d\\ude00%d":"\\udc00"' % n for n in range(100_000)) + b"}"
    ),
    "10 million lines": HostileResponse(lambda: b"1\n" * 10 * MB, JSON_LINES),
    "empty lines": HostileResponse(lambda: b"\n" * 30 * MB, JSON_LINES),
    "lines of backslashes": HostileResponse(lambda: b"\\\n" * 10 * MB, JSON_LINES),
    "one long line": HostileResponse(lambda: b'"' + b"a" * 30 * MB + b'"', JSON_LINES),
    "log of objects": HostileResponse(lambda: b'{"a":{"b":[1,2,3]},"c":"d"}\n' * MB, JSON_LINES),
    "wide list": HostileResponse(lambda: _repeat(b"0,")),
    "empty lists": HostileResponse(lambda: _repeat(b"[],")),
    "empty objects": HostileResponse(lambda: _repeat(b"{},")),
    "deep list": HostileResponse(lambda: b"[" * 4 * MB),
    "closed deep list": HostileResponse(lambda: b"[" * MB + b"]" * MB),
    "deep and wide": HostileResponse(lambda: _repeat(b"[" * 190 + b"]" * 190 + b",", 1_900_000)),
    "deep objects": HostileResponse(lambda: _repeat(b'{"a":' * 190 + b"1" + b"}" * 190 + b",")),
    "as many lists as allowed": HostileResponse(lambda: _repeat(b"[],", 3 * 99_000)),
    "as many objects as allowed": HostileResponse(lambda: _repeat(b'{"id":"r"},', 11 * 99_000)),
    "as many texts as allowed": HostileResponse(lambda: _repeat(b'"text",', 7 * 599_000)),
    "as many names as allowed": HostileResponse(
        lambda: b"{" + b",".join(b'"%020d":0' % n for n in range(299_000)) + b"}"
    ),
    "equal names": HostileResponse(lambda: b"{" + b'"a":0,' * 290_000 + b'"a":0}'),
    "integers of 4,200 digits": HostileResponse(lambda: _repeat(b"9" * 4_200 + b",")),
    "fewer integers of 4,200 digits": HostileResponse(lambda: _repeat(b"9" * 4_200 + b",", 900_000)),
    "integers of 25 digits": HostileResponse(lambda: _repeat(b"9" * 25 + b",")),
    "integer of a million digits": HostileResponse(lambda: b"9" * MB),
    "names of 1 MB": HostileResponse(lambda: json.dumps({letter * MB: letter * MB for letter in "abc"}).encode()),
    "escapes": HostileResponse(lambda: b'["' + b"\\n" * (LIMIT // 2) + b'"]'),
    "escaped characters": HostileResponse(lambda: b'["' + b"\\u0041 " * (LIMIT // 7) + b'"]'),
    "gzip bomb": HostileResponse(lambda: gzip.compress(b"0" * 100 * MB), coding="gzip"),
    "deflate bomb": HostileResponse(lambda: zlib.compress(b" " * 100 * MB), coding="deflate"),
    "gzip members": HostileResponse(lambda: _gzip_members(20_000), coding="gzip"),
    "gzip members of one byte": HostileResponse(lambda: _gzip_members(20_000, b" "), coding="gzip"),
    "bytes that look like text": HostileResponse(lambda: b"\t" * 7 * MB, "application/octet-stream"),
    "blank text": HostileResponse(lambda: b" \x0b" * 3 * MB, "text/plain"),
    "long event": HostileResponse(lambda: b"data: " + b"a" * 20 * MB + b"\n\n", "text/event-stream"),
    "event of many lines": HostileResponse(lambda: b"data:\n" * 200_000 + b"\n", "text/event-stream"),
    "event of many numbers": HostileResponse(lambda: b"data: " + _repeat(b"0,") + b"\n\n", "text/event-stream"),
    "event of escapes": HostileResponse(lambda: b'data: ["' + b"\\n" * 3 * MB + b'"]\n\n', "text/event-stream"),
    "event of objects": HostileResponse(
        lambda: b"data: " + _repeat(b'{"id":"r"},', 11 * 99_000) + b"\n\n", "text/event-stream"
    ),
    "small events": HostileResponse(lambda: b"data:1\n\n" * 100_000, "text/event-stream"),
    "comments": HostileResponse(lambda: b":\n" * 400_000, "text/event-stream"),
    "event without end": HostileResponse(lambda: b"data: " + b"a" * 40 * MB, "text/event-stream"),
}
