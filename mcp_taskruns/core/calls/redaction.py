"""Redaction of secrets.

Known secrets (credentials of the server's environment) are replaced by value wherever they occur, because redaction
by key name misses a secret that a provider echoes inside a message. Secrets that the provider creates are not known in
advance: they are replaced at the paths that the overlay names.
"""

import base64
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
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

_EMPTY = (None, "")


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
        self._forms: list[str] = []
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Redact these secrets too, from now on."""
        forms = {form for secret in secrets if len(secret) >= MIN_SECRET for form in _encoded_forms(secret)}
        # Longest first: a secret may be part of another form's text.
        self._forms = sorted(forms.union(self._forms), key=len, reverse=True)

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
        if self._forms and b"\\" in data:
            try:
                data = self._without_escapes(data)
            except ValueError:
                data = b"\n".join(map(self._line_without_escapes, data.split(b"\n")))
        for form in self._forms:
            if (encoded := form.encode()) in data:
                data = data.replace(encoded, REPLACEMENT.encode())
        return data

    def _line_without_escapes(self, line: bytes) -> bytes:
        with suppress(ValueError):
            return self._without_escapes(line) if b"\\" in line else line
        return line

    def _without_escapes(self, data: bytes) -> bytes:
        """Return JSON without escapes if these spell a secret, else unchanged. Raises ValueError for other text."""
        unescaped = dump(parse(data)).encode()
        return unescaped if any(form.encode() in unescaped for form in self._forms) else data


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
