"""Bodies as they are sent: trees of values in the form that their kind asks for."""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from mcp_taskruns.core.model.operation import BodyKind
from mcp_taskruns.errors import InvalidArguments

CONTENT_TYPES: Mapping[BodyKind, str] = {
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
    "xml": "application/xml",
    "form": "application/x-www-form-urlencoded",
    "binary": "application/octet-stream",
}

# Tabs and line breaks too: in an attribute they would be read as spaces.
_XML = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;", "\r": "&#13;", "\n": "&#10;", "\t": "&#9;"}
)
_NO_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]|[\ufffe\uffff]")
"""What XML 1.0 cannot hold in any form, surrogates apart, which no text that is sent can hold."""

_QUOTED = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


@dataclass(frozen=True)
class Part:
    """A field of a form, or a file in it."""

    name: str
    content: bytes = field(repr=False)
    filename: str | None = None
    media_type: str = ""


def to_text(value: Any) -> str:
    """A value as text: JSON for what is not text, compact; lists are separated by commas."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ",".join(map(to_text, value))
    return dump_json(value)


def dump_json(value: Any) -> str:
    """Compact JSON. Raises ValueError for a number without a form."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # to JSON Schema 5.0 is an integer, to most providers it is not
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def escape_value(value: Any, kind: BodyKind) -> str:
    """A value as it stands inside a text of this kind. Raises InvalidArguments for what cannot."""
    text = to_text(value)
    if kind != "xml":
        return quote(text, safe="") if kind == "form" else text
    if _NO_XML.search(text):
        raise InvalidArguments("the body: holds characters that XML cannot have")
    return text.translate(_XML)


def encode_body(value: Any, kind: BodyKind, called: str = "the body") -> tuple[str, bytes]:
    """A body whose holes are filled: its content type, and itself.

    Raises InvalidArguments, which names it as it is `called`, and ValueError.
    """
    if kind == "multipart":
        return encode_multipart(list(_parts(value)))
    if kind == "json":
        content = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    elif kind == "binary":
        content = _decoded(value, called)
    elif kind == "form" and isinstance(value, Mapping):
        content = "&".join(f"{quote(str(name), safe='')}={text}" for name, text in _fields(value)).encode()
    else:
        content = to_text(value).encode()
    return CONTENT_TYPES[kind], content


def encode_multipart(parts: Sequence[Part]) -> tuple[str, bytes]:
    """A form of RFC 7578: its content type, and itself. The boundary stands in none of the parts."""
    boundary = hashlib.sha256(b"".join(part.content for part in parts)).hexdigest()[:32]
    while any(boundary.encode() in part.content for part in parts):
        boundary = hashlib.sha256(boundary.encode()).hexdigest()[:32]
    lines: list[bytes] = []
    for part in parts:
        # As browsers write names: https://html.spec.whatwg.org/multipage/form-control-infrastructure.html
        disposition = f'Content-Disposition: form-data; name="{part.name.translate(_QUOTED)}"'
        if part.filename is not None:
            disposition += f'; filename="{part.filename.translate(_QUOTED)}"'
        head = [disposition, *([f"Content-Type: {part.media_type}"] if part.media_type else [])]
        lines += [f"--{boundary}".encode(), "\r\n".join(head).encode(), b"", part.content]
    lines += [f"--{boundary}--".encode(), b""]
    return f"multipart/form-data; boundary={boundary}", b"\r\n".join(lines)


def _fields(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, item in value.items():
        items = item if isinstance(item, list) else [item]
        yield from ((name, quote(to_text(one), safe="")) for one in items if one is not None)


def has_parts(value: Any) -> bool:
    """Whether a form has anything to send."""
    return next(_parts(value), None) is not None


def _parts(value: Any) -> Iterator[Part]:
    """The parts of a form: a mapping of values, or a list of parts of which each says more."""
    described = value if isinstance(value, list) else [{"name": name, "value": part} for name, part in value.items()]
    for part in described:
        if not isinstance(part, Mapping) or part.get("value") is None:
            continue  # its argument was not passed
        items = part["value"] if isinstance(part["value"], list) else [part["value"]]
        filename, media_type = part.get("filename"), str(part.get("contentType") or "")
        if not (media_type.isascii() and media_type.isprintable()):
            raise InvalidArguments("the content type of a part holds characters that it cannot have")
        for item in items:
            yield Part(
                str(part.get("name")), to_text(item).encode(), None if filename is None else str(filename), media_type
            )


def _decoded(value: Any, called: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error) as exc:
        raise InvalidArguments(f"{called}: must be bytes in base64") from exc
