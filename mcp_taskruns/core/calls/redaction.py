"""Secrets masked by value: whatever a text holds, it does not hold a credential.

Masking by key name misses the secret that a provider echoes inside a message. Secrets that the provider makes are not
known before: those are redacted where they stand.
"""

import base64
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from mcp_taskruns.core.model.json import dump, parse
from mcp_taskruns.core.model.json_path import Path, format_path, replace_at

REPLACEMENT = "[secret]"

REDACTED = "[redacted]"

MIN_SECRET = 6
"""Shorter values are words: masking them would garble answers and hide nothing."""


def redact_paths(value: Any, places: Iterable[Path]) -> tuple[Any, list[str]]:
    """A JSON value without what stands at these places, and which of them held something."""
    redacted: list[str] = []
    for place in places:
        found = False

        def hide(secret: Any) -> Any:
            nonlocal found
            found = found or secret not in (None, "")
            return secret if secret in (None, "") else REDACTED

        value = replace_at(value, place, hide)
        if found:
            redacted.append(format_path(place))
    return value, redacted


class Redactor:
    """Replaces every known secret, also in its JSON, URL and base64 forms."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._forms: list[str] = []
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Replace these as well, from now on."""
        forms = {form for secret in secrets if len(secret) >= MIN_SECRET for form in _forms(secret)}
        # The longest first: a secret may be part of another form's text.
        self._forms = sorted(forms.union(self._forms), key=len, reverse=True)

    def __repr__(self) -> str:
        return f"Redactor({len(self._forms)} forms)"

    def redact_text(self, text: str) -> str:
        """The text without secrets, also where it is JSON that spells them with escapes."""
        return (
            self.redact_bytes(text.encode("utf-8", "replace")).decode()
            if "\\" in text
            else self.redact_plain_text(text)
        )

    def redact_plain_text(self, text: str) -> str:
        """Text that is no JSON, or JSON of our own writing, without secrets."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, REPLACEMENT)
        return text

    def redact_bytes(self, data: bytes) -> bytes:
        """The bytes without secrets. JSON is written anew where its escapes spell one, which they can in many ways."""
        if self._forms and b"\\" in data:
            try:
                data = self._spelled(data)
            except ValueError:
                data = b"\n".join(map(self._line, data.split(b"\n")))  # JSON lines, perhaps
        for form in self._forms:
            if (encoded := form.encode()) in data:
                data = data.replace(encoded, REPLACEMENT.encode())
        return data

    def _line(self, line: bytes) -> bytes:
        with suppress(ValueError):
            return self._spelled(line) if b"\\" in line else line
        return line

    def _spelled(self, data: bytes) -> bytes:
        """JSON without escapes where these spell a secret. Raises ValueError for what is no JSON."""
        spelled = dump(parse(data)).encode()
        return spelled if any(form.encode() in spelled for form in self._forms) else data


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield json.dumps(secret)[1:-1]
    yield dump(secret)[1:-1]
    yield quote(secret, safe="")
    raw = secret.encode()
    for offset in range(3):
        # Base64 writes three bytes as four characters: where the secret starts within a group decides its form. The
        # characters that it shares with its neighbours are left out.
        encoded = base64.b64encode(b"\0" * offset + raw)
        whole = encoded[-(-offset * 8 // 6) : (offset + len(raw)) * 8 // 6].decode()
        yield whole
        yield whole.replace("+", "-").replace("/", "_")
