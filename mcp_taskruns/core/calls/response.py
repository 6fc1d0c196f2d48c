"""Interpretation of a provider's response: the result of a call, or an error."""

import codecs
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mcp_taskruns.core.calls.errors import message_from_text, provider_error, quote_message, unknown_outcome_hint
from mcp_taskruns.core.calls.foreign import foreign_error, missing_run
from mcp_taskruns.core.calls.outputs import map_output
from mcp_taskruns.core.calls.parts import Part
from mcp_taskruns.core.calls.received import JSON_LINES, HttpResponse, is_json, is_text
from mcp_taskruns.core.calls.redaction import redact_paths
from mcp_taskruns.core.calls.trim import trim
from mcp_taskruns.core.calls.truncation import Gap, describe_gaps, truncate
from mcp_taskruns.core.model.json import (
    JsonLimitExceeded,
    count_values,
    dump,
    dump_finite,
    has_huge_integer,
    parse,
    parse_or_text,
    replace_not_finite,
)
from mcp_taskruns.core.model.json_path import matches, value_at
from mcp_taskruns.core.model.operation import Operation
from mcp_taskruns.errors import ProviderError

SHOWN_BODY = 200
"""Characters of an invalid body that its error message quotes."""

NOT_FINITE = "The response has NaN, Infinity or numbers beyond the range of a double: they are shown as null."
HUGE_INTEGER = "The response has integers beyond the range of a double, which some programs cannot read."

MAX_LINES = 200_000
"""Lines of JSON lines that are read, the last ones of a longer log."""

MAX_LINE_VALUES = 600_000
"""Values and member names in all lines that are read: as values they take about 50 MB."""

MAX_LINE_BYTES = 8_000_000
"""The rest of a longer line is dropped."""

_WITHOUT_CONTENT = frozenset({204, 205})
_UNEXPECTED_CONTENT = "The provider sent content with status {}, which HTTP does not allow."

_BINARY = bytes({*range(0x20)} - {*b"\t\n\v\f\r\x1b"})
"""Bytes that text does not contain. The escape character is allowed: logs use it for colours."""


@dataclass(frozen=True)
class CallResult:
    """The result of a call, before a server formats it.

    Attributes:
        status: the status code of the provider's response.
        text: compact JSON of `value`, or the text of a response that is not JSON.
        value: the JSON value; None if the response is not JSON.
        data: binary content of type `media_type`.
        media_type: the media type of `text` or `data`.
        notes: sentences for the reader that are not part of the response.
        structured: the response as an object, for tools with an output schema.
        headers: the headers of the response, with names in lower case.
        part: the part of the response that `text` and `value` are; None for all of it.
        is_empty: whether the response has no content, so that `text` is a sentence of this server.
    """

    status: int
    text: str
    value: Any = None
    data: bytes | None = None
    media_type: str = "application/json"
    notes: tuple[str, ...] = ()
    structured: dict[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    part: Part | None = None
    is_empty: bool = False

    def with_notes(self, *notes: str) -> "CallResult":
        """Return the result with these notes before its own; empty notes are dropped."""
        added = tuple(filter(None, notes))
        return replace(self, notes=added + self.notes) if added else self

    @classmethod
    def from_value(cls, value: Any, *notes: str) -> "CallResult":
        """Return a result with a JSON value made by this server; empty notes are dropped."""
        return cls(200, dump(value), value, notes=tuple(note for note in notes if note))


def read_response(response: HttpResponse, operation: Operation, *, reveal: bool = False) -> CallResult:
    """Return the result of a call, not truncated. The text of the response is in UTF-8, as `to_utf8` returns it.

    Values at the operation's `redactions` are redacted unless `reveal` is set. Raises ProviderError for a status code
    outside 200 to 299, for a body that the operation's `error_body` declares an error, for a page or nothing instead of
    JSON, and for invalid JSON.
    """
    foreign = foreign_error(response, operation)
    if foreign is not None:
        raise foreign
    if response.status >= 300:
        raise _error(response, _parse_body(response), operation)
    if operation.returns_run and not response.body.strip():
        raise missing_run(response, operation)
    if not response.body and (operation.returns_file or not response.is_json_lines):
        text = f"Done: the provider returned {response.status} without content."
        return CallResult(response.status, text, media_type="text/plain", is_empty=True)
    unexpected = _UNEXPECTED_CONTENT.format(response.status) if response.status in _WITHOUT_CONTENT else ""
    return _content_result(response, operation, reveal=reveal).with_notes(unexpected, *response.notes)


def _content_result(response: HttpResponse, operation: Operation, *, reveal: bool) -> CallResult:
    if operation.returns_file:
        return _file_result(response)
    if response.is_json:
        return _json_result(response, _require_json(response, operation), operation, reveal=reveal)
    if response.is_json_lines:
        return _json_lines_result(response)
    if not response.is_text:
        return _file_result(response)
    value = _parse_body(response)  # some caches send JSON with the type text/plain
    if isinstance(value, dict | list):
        return _json_result(response, value, operation, reveal=reveal)
    return _text_result(response)


Advise = Callable[[Sequence[Gap]], str]
"""Return a sentence about how to get what was left out; empty if there is no way."""


def no_advice(_: Sequence[Gap]) -> str:
    """Advise nothing."""
    return ""


def truncate_result(result: CallResult, limit: int, advise: Advise = no_advice) -> CallResult:
    """Truncate the text of a result to `limit` characters, JSON by whole items, and add a note of what was kept."""
    size = len(result.text)
    if size <= limit:
        return result
    if result.media_type == "application/json":
        value, gaps = truncate(result.value, limit, size)
        text = dump(value)
    else:
        value, text, gaps = result.value, result.text[:limit], [Gap((), limit, size, "characters")]
    if result.part is not None:
        gaps = [result.part.gap(gap) for gap in gaps]
    note = f"Truncated to about {limit:,} characters; kept: {describe_gaps(gaps)}. {advise(gaps)}".strip()
    return replace(result, text=text, value=value).with_notes(note)


def _require_json(response: HttpResponse, operation: Operation) -> Any:
    hint = unknown_outcome_hint(is_safe=operation.is_safe, is_safe_to_retry=operation.is_safe_to_retry)
    try:
        return _parse_json(response.body)
    except JsonLimitExceeded as exc:
        raise ProviderError(
            f"the provider's response is JSON that {exc}",
            status=response.status,
            hint="Ask for less at a time." if operation.is_safe else hint,
        ) from exc
    except ValueError as exc:
        shown = quote_message(message_from_text(response.body, response.media_type), SHOWN_BODY)
        raise ProviderError(
            f"the provider's response is incomplete or is not valid JSON: {shown}",
            status=response.status,
            hint=hint,
            retryable=operation.is_safe_to_retry,
            is_foreign=True,
        ) from exc


def _error(response: HttpResponse, value: Any, operation: Operation, status: int | None = None) -> ProviderError:
    """Return the exception for an error response. `status` replaces the status code of the response."""
    text = message_from_text(response.body, response.media_type)
    return provider_error(
        status or response.status,
        response.headers,
        value,
        text,
        operation,
        response.received_at,
        http_status=None if status in (None, response.status) else response.status,
    )


def _json_result(response: HttpResponse, value: Any, operation: Operation, *, reveal: bool) -> CallResult:
    _check_error_body(response, value, operation)
    value, redacted = redact_paths(value, () if reveal else operation.redactions)
    notes = [note for condition, note in operation.notes if matches(value, condition)]
    if redacted:
        notes.append(f"Redacted: {', '.join(redacted)}. The server shows these secrets with `--reveal-secrets`.")
    value = trim(value, operation.trims)
    if operation.outputs is not None:
        value = map_output(operation.outputs, value)
    return _value_result(response, value, *notes)


def _value_result(response: HttpResponse, value: Any, *notes: str) -> CallResult:
    """Return a JSON value as a result, with notes about numbers that JSON or its readers do not have."""
    text, is_finite = dump_finite(value)
    if not is_finite:
        value, notes = replace_not_finite(value), (*notes, NOT_FINITE)
    if has_huge_integer(value, text):
        notes = (*notes, HUGE_INTEGER)
    return CallResult(response.status, text, value, notes=notes, headers=response.headers)


def _check_error_body(response: HttpResponse, value: Any, operation: Operation) -> None:
    """Raise ProviderError for a body that reports an error although the status code does not."""
    error_body = operation.error_body
    if error_body and value_at(value, error_body.message):
        status = value_at(value, error_body.status)
        if isinstance(status, int) and status >= 400:
            raise _error(response, value, operation, status)


def _file_result(response: HttpResponse) -> CallResult:
    """Return a file, as text if it is text or looks like text and has no specific type.

    JSON stays text too: as a value it could be truncated by items, and would no longer be the file.
    """
    kind = response.media_type
    if kind.endswith("/octet-stream") and _looks_like_text(response.body):
        kind = "text/plain"
    if is_text(kind) or is_json(kind) or kind in JSON_LINES:
        return replace(_text_result(response), media_type=kind if kind.startswith("text/") else "text/plain")
    return CallResult(response.status, "", data=response.body, media_type=kind)


def _json_lines_result(response: HttpResponse) -> CallResult:
    """Return the lines as a list, the last ones of a log that has too many lines or values."""
    lines = response.body.rsplit(b"\n", MAX_LINES)
    value: list[Any] = []
    room = MAX_LINE_VALUES
    while lines and room > 0 and b"\n" not in lines[-1]:
        line = lines.pop()[:MAX_LINE_BYTES]
        room -= count_values(line)
        if line.strip():
            value.append(parse_or_text(line.decode("utf-8", "replace")))
    value.reverse()
    note = f"Only the last {len(value):,} lines were read: the response has too many lines or values." if lines else ""
    return _value_result(response, value).with_notes(note)


def _text_result(response: HttpResponse) -> CallResult:
    text = response.body.decode("utf-8", "replace")
    return CallResult(response.status, text, media_type=response.media_type or "text/plain")


def _looks_like_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return len(body.translate(None, _BINARY)) == len(body)


def _parse_body(response: HttpResponse) -> Any:
    """Return the body as JSON, or None if it is not JSON."""
    try:
        return _parse_json(response.body)
    except ValueError:
        return None


def _parse_json(body: bytes) -> Any:
    return parse(body.removeprefix(codecs.BOM_UTF8))
