"""Encoding of request bodies: JSON, text, XML, forms, multipart forms and bytes."""

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
    "json_text": "application/json",
    "text": "text/plain; charset=utf-8",
    "xml": "application/xml",
    "form": "application/x-www-form-urlencoded",
    "binary": "application/octet-stream",
}

# Tabs and line breaks too: an XML parser reads them as spaces in an attribute.
_XML_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;", "\r": "&#13;", "\n": "&#10;", "\t": "&#9;"}
)
_INVALID_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]|[\ufffe\uffff]")
"""Characters that XML 1.0 cannot represent, except surrogates, which no UTF-8 text can contain."""

_FORM_NAME_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


@dataclass(frozen=True)
class Part:
    """A field or a file of a multipart form."""

    name: str
    content: bytes = field(repr=False)
    filename: str | None = None
    media_type: str = ""


def to_text(value: Any) -> str:
    """Return a value as text: compact JSON unless it is a string; lists are joined by commas."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ",".join(map(to_text, value))
    return dump_json(value)


def dump_json(value: Any) -> str:
    """Return compact JSON. Raises ValueError for infinite numbers and NaN."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON Schema accepts 5.0 as an integer, most providers do not
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def escape_value(value: Any, kind: BodyKind) -> str:
    """Return a value escaped for the text of a body of this kind.

    Raises InvalidArguments for characters that the kind cannot represent.
    """
    text = to_text(value)
    if kind == "form":
        return quote(text, safe="")
    if kind != "xml":
        return text
    if _INVALID_XML.search(text):
        raise InvalidArguments("the body contains characters that XML cannot represent")
    return text.translate(_XML_ESCAPES)


def encode_body(value: Any, kind: BodyKind, name: str = "the body") -> tuple[str, bytes]:
    """Encode a body without placeholders; return its content type and its bytes.

    Raises InvalidArguments, whose message contains `name`, and ValueError.
    """
    if kind == "multipart":
        return encode_multipart(list(_parts(value)))
    if kind == "json_text" and _is_json(value):
        content = value.encode()
    elif kind in {"json", "json_text"}:
        content = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    elif kind == "binary":
        content = _decode_base64(value, name)
    elif kind == "form" and isinstance(value, Mapping):
        content = "&".join(f"{quote(str(field), safe='')}={text}" for field, text in _form_fields(value)).encode()
    else:
        content = to_text(value).encode()
    return CONTENT_TYPES[kind], content


def _is_json(value: Any) -> bool:
    """Return whether a value is a text that is valid JSON (RFC 8259)."""
    if not isinstance(value, str):
        return False
    try:
        json.loads(value, parse_constant=_refuse_constant)
    except ValueError:
        return False
    return True


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def encode_multipart(parts: Sequence[Part]) -> tuple[str, bytes]:
    """Encode a multipart form (RFC 7578); return its content type and its bytes.

    The boundary is derived from the content, so equal forms have equal bytes.
    """
    boundary = hashlib.sha256(b"".join(part.content for part in parts)).hexdigest()[:32]
    while any(boundary.encode() in part.content for part in parts):
        boundary = hashlib.sha256(boundary.encode()).hexdigest()[:32]
    lines: list[bytes] = []
    for part in parts:
        lines += [f"--{boundary}".encode(), _part_headers(part).encode(), b"", part.content]
    lines += [f"--{boundary}--".encode(), b""]
    return f"multipart/form-data; boundary={boundary}", b"\r\n".join(lines)


def _part_headers(part: Part) -> str:
    # Names are escaped as browsers do: https://html.spec.whatwg.org/multipage/form-control-infrastructure.html
    disposition = f'Content-Disposition: form-data; name="{part.name.translate(_FORM_NAME_ESCAPES)}"'
    if part.filename is not None:
        disposition += f'; filename="{part.filename.translate(_FORM_NAME_ESCAPES)}"'
    return f"{disposition}\r\nContent-Type: {part.media_type}" if part.media_type else disposition


def _form_fields(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, item in value.items():
        items = item if isinstance(item, list) else [item]
        yield from ((name, quote(to_text(one), safe="")) for one in items if one is not None)


def has_parts(value: Any) -> bool:
    """Return whether a multipart form has at least one part."""
    return next(_parts(value), None) is not None


def _parts(value: Any) -> Iterator[Part]:
    """Yield the parts of a form: an object of names and values, or a list of objects that describe one part each."""
    described = value if isinstance(value, list) else [{"name": name, "value": part} for name, part in value.items()]
    for part in described:
        if not isinstance(part, Mapping) or part.get("value") is None:
            continue  # the argument is absent
        items = part["value"] if isinstance(part["value"], list) else [part["value"]]
        filename, media_type = part.get("filename"), str(part.get("contentType") or "")
        if not (media_type.isascii() and media_type.isprintable()):
            raise InvalidArguments(f"the content type of the form field `{part.get('name')}` is not printable ASCII")
        for item in items:
            content = to_text(item).encode()
            yield Part(str(part.get("name")), content, None if filename is None else str(filename), media_type)


def _decode_base64(value: Any, name: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error) as exc:
        raise InvalidArguments(f"{name}: must be bytes encoded as base64") from exc
