"""A provider's answer to what the caller is told: an outcome, an error, or the fold of a stream's events."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic_core import from_json, to_json

from mcp_taskruns.core.operation import ErrorBody
from mcp_taskruns.errors import Kind, ProviderError

MAX_MESSAGE = 180
"""Hosts show about 200 characters of a progress message."""

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

_KEEP_ALIVE = frozenset({"keepalive", "keep-alive", "ping", "heartbeat"})
_TOLD = ("status", "state", "stage", "message", "error", "error_message")
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
    `notes` are sentences for the reader that are no part of the answer.
    """

    status: int
    text: str
    value: Any = None
    data: bytes | None = None
    media_type: str = "application/json"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    data: str
    event: str = "message"
    id: str = ""


@dataclass(frozen=True)
class Progress:
    """One progress notification; `progress` grows with every one of a call, `message` is one short line."""

    progress: float
    total: float | None = None
    message: str = ""


Ended = Literal["closed", "wait_over", "event_limit", "error"]


def read_answer(answer: Answer, error_body: ErrorBody | None) -> Outcome:
    """The outcome of an answer, whole.

    Raises ProviderError for an HTTP status of 300 and over, and for a body that `error_body` makes an error.
    """
    if answer.status >= 300:
        raise provider_error(answer, _json(answer))
    if not answer.body:
        return Outcome(answer.status, f"Done: the provider answered {answer.status} with no content.")
    if _is_json(answer.media_type):
        value = _json(answer)
        if value is None and answer.body.strip() != b"null":
            note = "The provider called this JSON, and it is not."
            return _text_outcome(answer, note)
        return _json_outcome(answer, value, error_body)
    if answer.media_type in {"application/jsonl", "application/x-ndjson", "application/json-lines"}:
        return _lines_outcome(answer)
    if answer.media_type.startswith("text/") or not answer.media_type:
        value = _json(answer)  # Inngest's cached answers are JSON under text/plain
        if isinstance(value, dict | list):
            return _json_outcome(answer, value, error_body)
        return _text_outcome(answer)
    return Outcome(answer.status, "", data=answer.body, media_type=answer.media_type)


def provider_error(answer: Answer, value: Any, status: int | None = None) -> ProviderError:
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
        hint=HINTS[kind],
    )


class EventFold:
    """The events of one stream, one by one, to progress and at last to an outcome.

    `max_events` and `max_chars` bound what the outcome holds; once one is reached, `full` is true.
    """

    def __init__(self, max_events: int, max_chars: int) -> None:
        self.full = False
        self._max_events = max_events
        self._max_chars = max_chars
        self._chars = 0
        self._events: list[dict[str, Any]] = []

    def add(self, event: Event) -> Progress | None:
        """Take in an event; its progress, or None for a keep-alive."""
        data = _parse(event.data)
        named = data.get("type") if isinstance(data, dict) else None
        if event.event in _KEEP_ALIVE or named in _KEEP_ALIVE or not (event.data or event.event != "message"):
            return None
        self._chars += len(event.data)
        if self._chars > self._max_chars:
            self.full = True
            return None
        listed = {"event": event.event, "id": event.id, "data": data}
        self._events.append({name: value for name, value in listed.items() if value not in ("", None)})
        self.full = len(self._events) >= self._max_events
        return Progress(len(self._events), None, describe_event(event.event, data))

    def outcome(self, ended: Ended, reason: str = "") -> Outcome:
        """What the caller is told at the end: the events, and why there are no more."""
        value: dict[str, Any] = {"ended": ended, "count": len(self._events), "events": self._events}
        if reason:
            value["reason"] = reason
        return Outcome(200, dump(value), value, notes=(_ENDINGS[ended],))


_ENDINGS: dict[Ended, str] = {
    "closed": "The provider closed the stream: there are no more events.",
    "wait_over": "The time for this call is over and the stream goes on: call again to follow it further. "
    "Nothing was cancelled.",
    "event_limit": "The bound on events is reached and the stream goes on: call again to follow it further. "
    "Nothing was cancelled.",
    "error": "The stream broke off: the events before that are listed. Read the run's state, or call again.",
}


def describe_event(name: str, data: Any) -> str:
    """One line, of at most 180 characters, that tells a person what an event says."""
    if not isinstance(data, dict):
        return one_line(f"{name}: {data}" if data not in ("", None) else name)
    inner = data.get("notification")
    if isinstance(inner, dict):
        return one_line(f"{inner.get('method', name)}: {_said(inner.get('params'))}")
    subject = data.get("id") or data.get("run_id") or data.get("type") or name
    told = [
        str(data[key]) for key in ("status", "state", "stage", "message", "error", "error_message") if data.get(key)
    ]
    return one_line(f"{subject}: {', '.join(told)}" if told else f"{name}: {subject}")


def _said(params: Any) -> str:
    """The words in a log entry's parameters: the first text under the names that logs use."""
    if isinstance(params, dict):
        for key in ("message", "text", "content", "update", "title", "status", "sessionUpdate"):
            if params.get(key):
                return _said(params[key])
    return params if isinstance(params, str) else dump(params)


def one_line(text: str) -> str:
    """Text as one line of at most 180 characters."""
    line = _WHITE.sub(" ", text).strip()
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1] + "…"


def dump(value: Any) -> str:
    """Compact JSON."""
    return to_json(value, inf_nan_mode="null").decode()


def cut(value: Any, limit: int) -> tuple[Any, list[str]]:
    """`value` with whole items left out until its JSON is about `limit` characters, and what was left out."""
    notes: list[str] = []
    return _cut(value, limit, "", notes), notes


def _cut(value: Any, budget: int, place: str, notes: list[str]) -> Any:
    if isinstance(value, str):
        if len(value) + 2 <= budget:
            return value
        kept = max(budget - 30, 0)
        notes.append(f"{place or 'the text'}: {kept:,} of {len(value):,} characters")
        return value[:kept] + f"… ({len(value) - kept:,} more)"
    if isinstance(value, list):
        return _cut_list(value, budget, place, notes)
    if isinstance(value, dict):
        sizes = {name: len(dump(item)) + len(name) + 4 for name, item in value.items()}
        share = _share(sorted(sizes.values()), budget)
        return {
            name: item
            if sizes[name] <= share
            else _cut(item, share - len(name) - 4, f"{place}.{name}".lstrip("."), notes)
            for name, item in value.items()
        }
    return value


def _cut_list(items: list[Any], budget: int, place: str, notes: list[str]) -> list[Any]:
    kept: list[Any] = []
    left = budget - 2
    for index, item in enumerate(items):
        size = len(dump(item)) + 1
        if size > left:
            if not kept and left > 0:
                kept.append(_cut(item, left, f"{place}[{index}]", notes))
            break
        kept.append(item)
        left -= size
    if len(kept) < len(items):
        notes.append(f"{place or 'the list'}: {len(kept):,} of {len(items):,} items")
    return kept


def _share(sizes: list[int], budget: int) -> int:
    """The size over which members are cut, so that what is small stays whole and the rest shares the budget."""
    for place, size in enumerate(sizes):
        fair = budget // (len(sizes) - place)
        if size > fair:
            return max(fair, 0)
        budget -= size
    return sizes[-1] if sizes else budget


def _json_outcome(answer: Answer, value: Any, error_body: ErrorBody | None) -> Outcome:
    if error_body and isinstance(value, dict) and value.get(error_body.message):
        told = value.get(error_body.status)
        if isinstance(told, int) and told >= 400:
            missing = str(value[error_body.message]).startswith(error_body.not_found or ("\0",))
            raise provider_error(answer, value, 404 if missing else told)
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
    lines = answer.body.decode("utf-8", "replace").splitlines()
    value = [_parse(line) for line in lines if line.strip()]
    return Outcome(answer.status, dump(value), value)


def _text_outcome(answer: Answer, *notes: str) -> Outcome:
    text = answer.body.decode("utf-8", "replace")
    return Outcome(answer.status, text, media_type=answer.media_type or "text/plain", notes=notes)


def _is_json(media_type: str) -> bool:
    return media_type == "application/json" or media_type.endswith("+json")


def _json(answer: Answer) -> Any:
    """The body as JSON, or None where it is not."""
    try:
        return from_json(answer.body, cache_strings="keys")
    except ValueError:
        return None


def _parse(text: str) -> Any:
    """JSON where it is JSON, else the text."""
    try:
        return from_json(text, cache_strings="keys")
    except ValueError:
        return text


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
        where = value.get("attr") or ".".join(map(str, value.get("path") or []))
        for key in ("message", "error", "detail", "title", "error_description", "errors", "issues"):
            for words in _error_words(value.get(key)):
                yield f"{where}: {words}" if where else words


def one_message(text: str) -> str:
    """An error's text within its bound."""
    return text if len(text) <= MAX_ERROR_MESSAGE else text[:MAX_ERROR_MESSAGE] + "…"


def _plain(answer: Answer) -> str:
    """What a body that is no known error shape says, without a page's markup."""
    text = answer.body[: 4 * MAX_ERROR_MESSAGE].decode("utf-8", "replace").strip()
    if answer.media_type == "text/html" or text[:1] == "<":
        title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
        return _WHITE.sub(" ", title.group(1)).strip() if title else "an HTML page"
    return one_message(text)


def _seconds(text: str | None) -> float | None:
    """A Retry-After in seconds; one that is a date is left out, for a model has no clock."""
    try:
        return max(float(text or ""), 0.0)
    except ValueError:
        return None
