"""A provider's answer to what the caller is told: an outcome or an error."""

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

from mcp_taskruns.core.cutting import cut
from mcp_taskruns.core.operation import Operation
from mcp_taskruns.core.text import dump, parse, parse_or_text
from mcp_taskruns.errors import Kind, ProviderError

MAX_ERROR_MESSAGE = 2_000

KIND_BY_STATUS: dict[int, Kind] = {
    400: "validation",
    401: "auth",
    402: "usage_limit",
    403: "auth",
    404: "not_found",
    405: "unsupported",
    406: "unsupported",
    408: "timeout",
    409: "conflict",
    410: "not_found",
    413: "validation",
    415: "unsupported",
    422: "validation",
    429: "rate_limited",
    501: "unsupported",
    504: "timeout",
}

RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})

HINTS: dict[Kind, str] = {
    "auth": "Check the credential in the server's environment: is it right, and may it do this?",
    "not_found": "Check the ids: list what exists, or it may have been deleted.",
    "validation": "Change the arguments as the message says.",
    "rate_limited": "Wait before the next call to this provider.",
    "conflict": "Read the current state first.",
    "usage_limit": "The account's limit is reached: calling again does not help.",
    "unavailable": "The provider has a problem: try again later.",
    "timeout": "The provider took too long: read the current state before trying again.",
    "unsupported": "The provider does not do this: another tool may.",
    "config": "The server's settings need mending.",
}

_WHITE = re.compile(r"\s+")


@dataclass(frozen=True)
class Answer:
    """A whole answer of the provider: status, its headers with lower-case names, its decoded body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def media_type(self) -> str:
        """The content type without parameters, lower-case; empty when there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True)
class Outcome:
    """What a call returned, before an adapter renders it.

    `text` is compact JSON for a JSON `value`, else the text as it came. `data` is binary content, of `media_type`.
    `notes` are sentences for the reader that are no part of the answer. `structured` is the answer as an object, for
    tools that say what they return.
    """

    status: int
    text: str
    value: Any = None
    data: bytes | None = None
    media_type: str = "application/json"
    notes: tuple[str, ...] = ()
    structured: dict[str, Any] | None = None

    @classmethod
    def of(cls, value: Any, *notes: str) -> "Outcome":
        """A value of our own making; empty notes are none."""
        return cls(200, dump(value), value, notes=tuple(note for note in notes if note))


def read_answer(answer: Answer, operation: Operation) -> Outcome:
    """The outcome of an answer, whole.

    Raises ProviderError for an HTTP status of 300 and over, for a body that the operation's `error_body` makes an
    error, and for JSON that is cut off.
    """
    if answer.status >= 300:
        raise provider_error(answer, _json(answer), operation)
    if not answer.body:
        told = f"Done: the provider answered {answer.status} with no content."
        return Outcome(answer.status, told, media_type="text/plain")
    if _is_json(answer.media_type):
        value = _json(answer)
        if value is None and answer.body.strip() != b"null":
            raise ProviderError(
                f"the provider's answer was cut off, or is not the JSON that it should be: {_plain(answer)[:200]}",
                status=answer.status,
                hint="What was asked for may have been carried out: read the current state before trying again.",
            )
        return _json_outcome(answer, value, operation)
    if answer.media_type in {"application/jsonl", "application/x-ndjson", "application/json-lines"}:
        return _lines_outcome(answer)
    if _is_text(answer.media_type):
        value = _json(answer)  # Inngest's cached answers are JSON under text/plain
        if isinstance(value, dict | list):
            return _json_outcome(answer, value, operation)
        return _text_outcome(answer)
    return Outcome(answer.status, "", data=answer.body, media_type=answer.media_type)


def provider_error(answer: Answer, value: Any, operation: Operation, status: int | None = None) -> ProviderError:
    """The error that an answer is; `value` its JSON body or None, `status` the one it tells in the body."""
    status = status or answer.status
    kind = KIND_BY_STATUS.get(status, "validation" if 400 <= status < 500 else "unavailable")
    said = _error_message(value) or _plain(answer)
    if 300 <= status < 400:
        kind, said = "unsupported", "a redirect, which this server does not follow"
    return ProviderError(
        f"the provider answered {status}: {said}" if said else f"the provider answered {status}",
        kind=kind,
        status=status,
        retryable=status in RETRYABLE,
        retry_after_s=_seconds(answer.headers.get("retry-after")),
        hint=_hint(kind, status, operation),
    )


def _hint(kind: Kind, status: int, operation: Operation) -> str:
    if 300 <= status < 400:
        return f"Set {operation.base.variables[0]} in the server's environment to the address that it leads to."
    names = dict.fromkeys(" or ".join(variable.names) for variable in operation.credentials())
    if kind == "auth" and names:
        return f"Check {', '.join(names)} in the server's environment: is it right, and may it do this?"
    return HINTS[kind]


def _json_outcome(answer: Answer, value: Any, operation: Operation) -> Outcome:
    error_body = operation.error_body
    if error_body and isinstance(value, dict) and value.get(error_body.message):
        told = value.get(error_body.status)
        if isinstance(told, int) and told >= 400:
            missing = str(value[error_body.message]).startswith(error_body.not_found or ("\0",))
            raise provider_error(answer, value, operation, 404 if missing else told)
    return Outcome(answer.status, dump(value), value)


def fit(outcome: Outcome, limit: int, advice: str = "") -> Outcome:
    """The outcome with its text within `limit` characters, JSON cut by whole items, and a note of what is missing.

    `advice` says how to get the rest.
    """
    if len(outcome.text) <= limit:
        return outcome
    if outcome.media_type == "application/json":
        kept, missing = cut(outcome.value, limit)
        text, told = dump(kept), "; ".join(missing)
    else:
        text, told = outcome.text[:limit], f"the text: {limit:,} of {len(outcome.text):,} characters"
    note = f"Cut to about {limit:,} characters, kept: {told}. {advice}".strip()
    return replace(outcome, text=text, notes=(note, *outcome.notes))


def _lines_outcome(answer: Answer) -> Outcome:
    lines = answer.body.decode("utf-8", "replace").split("\n")
    value = [parse_or_text(line) for line in lines if line.strip()]
    return Outcome(answer.status, dump(value), value)


def _text_outcome(answer: Answer) -> Outcome:
    text = answer.body.decode("utf-8", "replace")
    return Outcome(answer.status, text, media_type=answer.media_type or "text/plain")


def _is_text(media_type: str) -> bool:
    return not media_type or media_type.startswith("text/") or media_type.endswith(("xml", "yaml", "javascript"))


def _is_json(media_type: str) -> bool:
    return media_type == "application/json" or media_type.endswith("+json")


def _json(answer: Answer) -> Any:
    """The body as JSON, or None where it is not."""
    try:
        return parse(answer.body.removeprefix(codecs.BOM_UTF8))
    except ValueError:
        return None


def _error_message(value: Any) -> str:
    """The words of an error body, in the shapes that providers use."""
    return one_message(" - ".join(dict.fromkeys(_error_words(value))))


def _error_words(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _error_words(item)
    elif isinstance(value, dict):
        path = value.get("path")
        where = value.get("attr") or (".".join(map(str, path)) if isinstance(path, list) else "")
        for key in ("message", "error", "detail", "title", "error_description", "errors", "issues"):
            for words in _error_words(value.get(key)):
                yield f"{where}: {words}" if where else words


def one_message(text: str) -> str:
    """An error's text within its bound."""
    return text if len(text) <= MAX_ERROR_MESSAGE else text[:MAX_ERROR_MESSAGE] + "…"


def _plain(answer: Answer) -> str:
    """What a body that is no known error shape says, without a page's markup."""
    text = answer.body[: 4 * MAX_ERROR_MESSAGE].decode("utf-8", "replace").strip()
    if text and (answer.media_type == "text/html" or text[:1] == "<"):
        title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
        return _WHITE.sub(" ", title.group(1)).strip() if title else "an HTML page"
    return one_message(text)


def _seconds(text: str | None) -> float | None:
    """A Retry-After in seconds; one that is a date is left out, for a model has no clock."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return max(seconds, 0.0) if isfinite(seconds) else None
