"""Redaction of secrets.

Known secrets (credentials of the server's environment) are replaced by value wherever they occur, because redaction
by key name misses a secret that a provider echoes inside a message. Secrets that the provider creates are not known in
advance: they are replaced at the paths that the overlay names.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

from mcp_taskruns.core.model.json import dump, parse
from mcp_taskruns.core.model.json_path import Path, format_path, replace_at, values_at

REPLACEMENT = "[secret]"
"""Replaces a known secret."""

REDACTED = "[redacted]"
"""Replaces the value at a path that the overlay names."""

MIN_SECRET = 6
"""Shorter values are not redacted: they occur in ordinary words, so redaction would garble responses."""

PIECE_BYTES = 200_000
"""Bytes in which escapes are replaced at a time."""

MAX_LINES = 5_000
"""JSON lines with escapes that are read one by one when escapes spell a secret."""

_EMPTY = (None, "")

_SPELLING_ESCAPE = re.compile(rb"\\[u/]")
"""The beginning of an escape that JSON does not need: it may spell a secret."""

_UNICODE_ESCAPES = re.compile(rb"\\u[0-9a-fA-F]{4}(?:\\u[0-9a-fA-F]{4}){0,999}")


def redact_paths(value: Any, paths: Iterable[Path]) -> tuple[Any, list[str]]:
    """Replace the values at these paths of a JSON value.

    Return the new value and the paths where something was replaced.
    """
    redacted: list[str] = []
    for path in paths:
        if all(secret in _EMPTY for secret in values_at(value, path)):
            continue
        value = replace_at(value, path, lambda secret: secret if secret in _EMPTY else REDACTED)
        redacted.append(format_path(path))
    return value, redacted


class Redactor:
    """Replaces every known secret, also in its JSON, URL and base64 forms."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._lasting: set[str] = set()
        self._replaceable: dict[object, set[str]] = {}
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Redact these secrets too, from now on."""
        self._lasting |= _all_forms(secrets)
        self._sort_forms()

    def redact_instead(self, owner: object, secrets: Iterable[str]) -> None:
        """Redact these secrets from now on instead of those that `owner` had before: tokens are replaced for ever."""
        self._replaceable[owner] = _all_forms(secrets)
        self._sort_forms()

    def _sort_forms(self) -> None:
        # Longest first: a secret may be part of another form's text.
        self._forms = sorted(self._lasting.union(*self._replaceable.values()), key=len, reverse=True)
        self._encoded = [form.encode() for form in self._forms]

    def __repr__(self) -> str:
        return f"Redactor({len(self._forms)} forms)"

    def redact_text(self, text: str) -> str:
        """Redact text, also JSON in which a secret is written with escapes."""
        if "\\" not in text:
            return self.redact_plain_text(text)
        return self.redact_bytes(text.encode("utf-8", "replace")).decode()

    def redact_plain_text(self, text: str) -> str:
        """Redact text that is not JSON, or JSON that this server has written."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, REPLACEMENT)
        return text

    def redact_bytes(self, data: bytes) -> bytes:
        """Redact bytes. JSON or JSON lines in which escapes spell a secret are written again without escapes."""
        if b"\\" in data and self._occurs_in(_unescape(data)):
            try:
                data = dump(parse(data)).encode()
            except ValueError:
                data = self._without_escapes_by_line(data)
        return self._replace_forms(data)

    def _without_escapes_by_line(self, data: bytes) -> bytes:
        """Return JSON lines, each without escapes if these spell a secret; after MAX_LINES such lines, plain text."""
        parts: list[bytes] = []
        kept = start = 0  # what begins at `kept` is unchanged so far
        for _ in range(MAX_LINES):
            escape = _SPELLING_ESCAPE.search(data, start)
            if escape is None:
                return b"".join([*parts, data[kept:]])
            begin = data.rfind(b"\n", start, escape.start()) + 1 or start
            start = end if (end := data.find(b"\n", escape.end())) >= 0 else len(data)
            line = data[begin:start]
            if self._occurs_in(_unescape(line)):
                parts += data[kept:begin], self._line_without_escapes(line)
                kept = start
        return b"".join([*parts, data[kept:start], _unescape(data[start:])])

    def _line_without_escapes(self, line: bytes) -> bytes:
        try:
            return dump(parse(line)).encode()
        except ValueError:
            text = self._replace_forms(line)  # text that only has backslashes keeps them
            return _unescape(text) if self._occurs_in(_unescape(text)) else text

    def _occurs_in(self, data: bytes) -> bool:
        return any(form in data for form in self._encoded)

    def _replace_forms(self, data: bytes) -> bytes:
        for form in self._encoded:
            if form in data:
                data = data.replace(form, REPLACEMENT.encode())
        return data


def _unescape(data: bytes) -> bytes:
    """Return text with the characters that JSON escapes spell, as far as these can spell a secret."""
    return b"".join(map(_unescape_piece, _pieces(data)))


def _unescape_piece(data: bytes) -> bytes:
    data = data.replace(b"\\/", b"/").replace(b'\\"', b'"').replace(b"\\\\", b"\\")
    return _UNICODE_ESCAPES.sub(_spelled, data)


def _pieces(data: bytes) -> Iterator[bytes]:
    """Divide text between escapes: the matches in a piece take far more memory than the piece."""
    start = 0
    while start < len(data):
        end = start + PIECE_BYTES
        if (escape := data.find(b"\\", end - 12, end)) >= 0 and end < len(data):
            end = escape
        yield data[start:end]
        start = end


def _spelled(escapes: re.Match[bytes]) -> bytes:
    units = bytes.fromhex(escapes.group().replace(b"\\u", b"").decode())
    return units.decode("utf-16-be", "replace").encode()


def _all_forms(secrets: Iterable[str]) -> set[str]:
    return {form for secret in secrets if len(secret) >= MIN_SECRET for form in _encoded_forms(secret)}


def _encoded_forms(secret: str) -> Iterator[str]:
    yield secret
    yield json.dumps(secret)[1:-1]
    yield dump(secret)[1:-1]
    yield quote(secret, safe="")
    raw = secret.encode()
    for offset in range(3):
        # Base64 encodes three bytes as four characters, so the position of the secret in its group of three decides
        # its form. Characters that also hold bits of the neighbouring bytes are left out.
        encoded = base64.b64encode(b"\0" * offset + raw)
        whole = encoded[-(-offset * 8 // 6) : (offset + len(raw)) * 8 // 6].decode()
        yield whole
        yield whole.replace("+", "-").replace("/", "_")
