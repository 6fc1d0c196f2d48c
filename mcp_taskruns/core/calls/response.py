"""A provider's answer to what the caller is told: an outcome or an error."""

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mcp_taskruns.core.calls.errors import message_from_text, provider_error, unknown_outcome_hint
from mcp_taskruns.core.calls.outputs import map_output
from mcp_taskruns.core.calls.redaction import redact_paths
from mcp_taskruns.core.calls.truncation import truncate
from mcp_taskruns.core.model.json import dump, parse, parse_or_text
from mcp_taskruns.core.model.json_path import matches
from mcp_taskruns.core.model.operation import Operation
from mcp_taskruns.errors import ProviderError

JSON_LINES = frozenset({"application/jsonl", "application/x-ndjson", "application/json-lines"})

_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
"""What no text holds; an escape character may stand in a log."""


@dataclass(frozen=True)
class HttpResponse:
    """A whole answer of the provider: status, its headers with lower-case names, its decoded body.

    `received_at` is when it came, in seconds since 1970.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    received_at: float = 0.0

    @property
    def media_type(self) -> str:
        """The content type without parameters, lower-case; empty when there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True)
class CallResult:
    """What a call returned, before an adapter renders it.

    `text` is compact JSON for a JSON `value`, else the text as it came. `data` is binary content, of `media_type`.
    `notes` are sentences for the reader that are no part of the answer. `structured` is the answer as an object, for
    tools that say what they return. `headers` are those of the answer, with lower-case names.
    """

    status: int
    text: str
    value: Any = None
    data: bytes | None = None
    media_type: str = "application/json"
    notes: tuple[str, ...] = ()
    structured: dict[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def with_notes(self, *notes: str) -> "CallResult":
        """The outcome with further notes, before those that it has; empty ones are none."""
        return replace(self, notes=(*filter(None, notes), *self.notes))

    @classmethod
    def from_value(cls, value: Any, *notes: str) -> "CallResult":
        """A value of our own making; empty notes are none."""
        return cls(200, dump(value), value, notes=tuple(note for note in notes if note))


def read_response(answer: HttpResponse, operation: Operation, *, reveal: bool = False) -> CallResult:
    """The outcome of an answer, whole, without what the operation's `redactions` name, unless to `reveal` that.

    Raises ProviderError for an HTTP status of 300 and over, for a body that the operation's `error_body` makes an
    error, and for JSON that is cut off.
    """
    if answer.status >= 300:
        raise _error(answer, _json(answer), operation)
    if not answer.body and (operation.returns_file or answer.media_type not in JSON_LINES):
        told = f"Done: the provider answered {answer.status} with no content."
        return CallResult(answer.status, told, media_type="text/plain")
    if operation.returns_file:
        return _file_outcome(answer)
    if _is_json(answer.media_type):
        value = _json(answer)
        if value is None and answer.body.strip() != b"null":
            raise ProviderError(
                "the provider's answer was cut off, or is not the JSON that it should be: "
                + message_from_text(answer.body, answer.media_type)[:200],
                status=answer.status,
                hint=unknown_outcome_hint(is_safe=operation.is_safe, is_repeatable=operation.is_safe_to_retry),
                retryable=operation.is_safe_to_retry,
            )
        return _json_outcome(answer, value, operation, reveal=reveal)
    if answer.media_type in JSON_LINES:
        return _lines_outcome(answer)
    if _is_text(answer.media_type):
        value = _json(answer)  # Inngest's cached answers are JSON under text/plain
        if isinstance(value, dict | list):
            return _json_outcome(answer, value, operation, reveal=reveal)
        return _text_outcome(answer)
    return _file_outcome(answer)


def _file_outcome(answer: HttpResponse) -> CallResult:
    """A file as text where it is that, or looks so and nobody said what it is."""
    kind = answer.media_type
    if kind.endswith("/octet-stream") and _looks_like_text(answer.body):
        kind = "text/plain"
    if _is_text(kind) or _is_json(kind) or kind in JSON_LINES:
        # Not as JSON: that would be cut by its items, and not be the file any more.
        return replace(_text_outcome(answer), media_type=kind if kind.startswith("text/") else "text/plain")
    return CallResult(answer.status, "", data=answer.body, media_type=kind)


def _error(answer: HttpResponse, value: Any, operation: Operation, status: int | None = None) -> ProviderError:
    """The error that an answer is; `value` its JSON body or None, `status` the one that it tells in the body."""
    plain = message_from_text(answer.body, answer.media_type)
    return provider_error(status or answer.status, answer.headers, value, plain, operation, answer.received_at)


def _json_outcome(answer: HttpResponse, value: Any, operation: Operation, *, reveal: bool) -> CallResult:
    error_body = operation.error_body
    if error_body and isinstance(value, dict) and value.get(error_body.message):
        told = value.get(error_body.status)
        if isinstance(told, int) and told >= 400:
            raise _error(answer, value, operation, told)
    value, redacted = redact_paths(value, () if reveal else operation.redactions)
    notes = [says for when, says in operation.notes if matches(value, when)]
    if redacted:
        notes.append(f"Redacted: {', '.join(redacted)}. The server shows such secrets with --reveal-secrets.")
    if operation.outputs is not None:
        value = map_output(operation.outputs, value)
    return CallResult(answer.status, dump(value), value, notes=tuple(notes), headers=answer.headers)


def truncate_result(outcome: CallResult, limit: int, advice: str = "") -> CallResult:
    """The outcome with its text within `limit` characters, JSON cut by whole items, and a note of what is missing.

    `advice` says how to get the rest.
    """
    if len(outcome.text) <= limit:
        return outcome
    if outcome.media_type == "application/json":
        kept, missing = truncate(outcome.value, limit, len(outcome.text))
        text, told = dump(kept), "; ".join(missing)
    else:
        kept, text, told = (
            outcome.value,
            outcome.text[:limit],
            f"the text: {limit:,} of {len(outcome.text):,} characters",
        )
    note = f"Cut to about {limit:,} characters, kept: {told}. {advice}".strip()
    return replace(outcome, text=text, value=kept, notes=(note, *outcome.notes))


def _lines_outcome(answer: HttpResponse) -> CallResult:
    lines = answer.body.decode("utf-8", "replace").split("\n")
    value = [parse_or_text(line) for line in lines if line.strip()]
    return CallResult(answer.status, dump(value), value, headers=answer.headers)


def _text_outcome(answer: HttpResponse) -> CallResult:
    text = answer.body.decode("utf-8", "replace")
    return CallResult(answer.status, text, media_type=answer.media_type or "text/plain")


def _is_text(media_type: str) -> bool:
    return not media_type or media_type.startswith("text/") or media_type.endswith(("xml", "yaml", "javascript"))


def _looks_like_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return not _BINARY.search(body)


def _is_json(media_type: str) -> bool:
    return media_type == "application/json" or media_type.endswith("+json")


def _json(answer: HttpResponse) -> Any:
    """The body as JSON, or None where it is not."""
    try:
        return parse(answer.body.removeprefix(codecs.BOM_UTF8))
    except ValueError:
        return None
