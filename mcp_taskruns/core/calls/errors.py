"""Interpretation of error responses: kind, whether a retry can help, and what to do next.

The status code gives the first interpretation. The error rules of an overlay refine it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import unescape
from itertools import chain, dropwhile, islice
from typing import Any

from mcp_taskruns.core.calls.credentials import credential_names
from mcp_taskruns.core.calls.retry_after import retry_after
from mcp_taskruns.core.calls.truncation import quote, quote_name
from mcp_taskruns.core.model.json_path import Path, matches, values_at
from mcp_taskruns.core.model.operation import NO_AUTHENTICATION, ErrorRule, Operation
from mcp_taskruns.core.model.patterns import InvalidPattern, search
from mcp_taskruns.errors import Kind, ProviderError

MAX_ERROR_MESSAGE = 2_000
"""Characters of a provider's error message that are passed on."""

KIND_BY_STATUS: Mapping[int, Kind] = {
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

NOT_SUPPORTED = frozenset({501, 505})
"""The 5xx status codes of what a provider cannot do: the request was not carried out, and never will be."""

PASSING: frozenset[Kind] = frozenset({"rate_limited", "unavailable", "timeout"})
"""Kinds of errors after which the same request may succeed; the default for an error rule with a kind."""

READ_HINT = "Nothing was changed: try again."
WRITE_HINT = "The request may have been carried out: read the current state before trying again."
REPEAT_HINT = "The request may have been carried out, but it is safe to try again."
SERVER_BUG_HINT = "This is a bug in this server, not in the call: please report it."

HINT_BY_KIND: Mapping[Kind, str] = {
    "auth": "Check the credential in the server's environment: it may be wrong or lack a permission.",
    "not_found": "Check the ids, for example with a tool that lists them: the resource may have been deleted.",
    "validation": "Change the arguments that the message names.",
    "rate_limited": "Wait before the next call to this provider.",
    "conflict": "Read the current state before trying again.",
    "usage_limit": "The account has reached its limit: another call has no effect.",
    "unavailable": "The provider has a problem: try again later.",
    "timeout": "The provider took too long: read the current state before trying again.",
    "unsupported": "The provider does not support this request: try another tool.",
    "config": "Fix the server configuration.",
}

HINT_BY_STATUS: Mapping[int, str] = {
    406: SERVER_BUG_HINT,
    415: SERVER_BUG_HINT,
    425: "Nothing was carried out: try again in a moment.",
    505: "Check the provider's address and the proxy in the server's environment: one of them refuses HTTP/1.1.",
}
"""Status codes that have a hint of their own."""

UNUSUAL_HINTS: Mapping[tuple[Kind, bool], str] = {
    ("rate_limited", False): "The provider accepts no more calls of this kind: another call has no effect.",
    ("unavailable", False): "The provider has a problem that another call does not solve.",
    ("usage_limit", True): "The account has reached its limit for now: try again later.",
}
"""Hints for a kind that an error rule makes retryable or not, where `HINT_BY_KIND` would say the opposite."""

MAX_QUOTED = 100
"""Characters of a provider's text that a hint quotes, and of the name of a field."""

MAX_MESSAGES = 100
"""Messages in one error body that are read."""

MAX_STEPS = 20
"""Steps of the path to a field that are named."""

UNTITLED = "an HTML page"
"""The message of a page without a title."""

_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_WHITESPACE = re.compile(r"\s+")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_SENTENCE_END = re.compile(r"(?<=\.) (?=[A-Z])")
_TITLE = re.compile(r"<(title|Message)[^>]*>([^<]*)", re.IGNORECASE)
"""The title of an HTML page, or the message of an Amazon S3 error."""

_MESSAGE_KEYS = ("message", "msg", "error", "detail", "title", "error_description", "errors", "issues")
"""Where providers put error messages; among them the fields of RFC 9457, RFC 6749 and FastAPI."""

_LOCATIONS = frozenset({"body", "query", "path", "header", "cookie"})
"""The first step of FastAPI's places: the part of the request."""

_TRACEBACK = "Traceback (most recent call last):"
"""The first line of a Python traceback."""

MAX_TRACEBACK = 200_000
"""Bytes of a traceback that are read: its exception comes last."""


@dataclass(frozen=True)
class Assessment:
    """What an error response means, before the error rules of the overlay apply."""

    kind: Kind
    retryable: bool
    hint: str
    outcome_unknown: bool = False


def is_retryable(status: int) -> bool:
    """Return whether the same request may succeed after this status code, if it may be sent twice."""
    return status in {408, 425, 429} or may_be_done(status)


def may_be_done(status: int) -> bool:
    """Return whether a request with this error status may have been carried out.

    408: RFC 9110 section 15.5.9. A 5xx is often the response of a proxy, which does not know; 520 to 530 are those of
    Cloudflare.
    """
    return status == 408 or (status >= 500 and status not in NOT_SUPPORTED)


def unknown_outcome_hint(*, is_safe: bool, is_safe_to_retry: bool) -> str:
    """Return the hint for a request that may have been carried out, although no complete response arrived."""
    if not is_safe_to_retry:
        return WRITE_HINT
    return READ_HINT if is_safe else REPEAT_HINT


def provider_error(
    status: int,
    headers: Mapping[str, str],
    value: Any,
    text: str,
    operation: Operation,
    received_at: float,
    assessment: Assessment | None = None,
    http_status: int | None = None,
) -> ProviderError:
    """Return the exception for an error response.

    `value` is the body as JSON or None, `text` the body as text. `received_at` is in seconds since 1970. With an
    `assessment`, `text` is a message of ours; without one, the status code decides. `http_status` is the status code of
    the response if `status` is that in its body.
    """
    message = error_message(value, operation.error_messages) or text
    shown = message if assessment else quote_message(message)
    credentials = credential_names(operation)
    assessment = assessment or _assess_status(status, operation, credentials)
    is_known = isinstance(value, dict | list)
    for rule in operation.errors:
        groups = _match_rule(rule, status, value, message)
        if groups is not None:
            variables = {**_quoted_members(value), "credential": credentials, **groups}
            assessment = _apply_rule(rule, assessment, variables)
            is_known |= rule.message_matches is not None  # a message of the provider, although it is not JSON
            break
    returned = f"the provider returned {status}"
    if http_status is not None:
        returned = f"the provider returned HTTP {http_status} with an error body (status {status})"
    return ProviderError(
        f"{returned}: {shown}" if shown else returned,
        kind=assessment.kind,
        status=status,
        retryable=assessment.retryable,
        retry_after_s=retry_after(headers, status, received_at),
        hint=assessment.hint,
        is_foreign=not is_known,
        outcome_unknown=assessment.outcome_unknown,
    )


def _assess_status(status: int, operation: Operation, credentials: str) -> Assessment:
    """Interpret a status code. `credentials` are the names of the operation's credential variables."""
    kind = KIND_BY_STATUS.get(status, "validation" if status < 500 else "unavailable")
    if kind == "auth" and credentials:
        reason = "missing or wrong, or lack" if NO_AUTHENTICATION in operation.alternatives else "wrong or lack"
        hint = f"Check {credentials} in the server's environment: it may be {reason} a permission."
        return Assessment(kind, False, hint)
    if may_be_done(status) and not operation.is_safe_to_retry:
        return Assessment(kind, False, WRITE_HINT, outcome_unknown=True)
    hint = HINT_BY_STATUS.get(status, HINT_BY_KIND[kind])
    return Assessment(kind, is_retryable(status), hint, may_be_done(status) and not operation.is_safe)


def _apply_rule(rule: ErrorRule, assessment: Assessment, variables: Mapping[str, str]) -> Assessment:
    """Refine an assessment. A kind other than `unavailable` and `timeout` means that the request was refused."""
    kind, retryable, is_unknown = assessment.kind, assessment.retryable, assessment.outcome_unknown
    if rule.kind is not None:
        kind, retryable = rule.kind, rule.kind in PASSING
        is_unknown = is_unknown and kind in {"unavailable", "timeout"}
    if rule.retryable is not None:
        retryable = rule.retryable
    elif is_unknown and not (assessment.retryable or rule.hint):
        retryable = False  # sending it again could have a second effect
    # A rule that calls such a request retryable knows that it was not carried out.
    is_unknown = is_unknown and not (retryable and not assessment.retryable)
    hint = _fill_placeholders(rule.hint, variables)
    if hint:
        return Assessment(kind, retryable, hint, is_unknown)
    if (kind, retryable) == (assessment.kind, assessment.retryable):
        return Assessment(kind, retryable, assessment.hint, is_unknown)
    return Assessment(kind, retryable, UNUSUAL_HINTS.get((kind, retryable), HINT_BY_KIND[kind]), is_unknown)


def _match_rule(rule: ErrorRule, status: int, value: Any, message: str) -> dict[str, str] | None:
    """Return the named groups of the rule's pattern, or None if the rule does not apply to the error."""
    if (rule.status and status not in rule.status) or not matches(value, rule.when):
        return None
    if rule.message_matches is None:
        return {}
    try:
        match = search(rule.message_matches.pattern, message)
    except (TimeoutError, InvalidPattern):
        return None
    return match and {name: quote_name(text[:MAX_QUOTED]) for name, text in match.groupdict("").items()}


def _quoted_members(value: Any) -> dict[str, str]:
    """Return the members of an error body that a hint can quote: texts, lists of texts, and numbers."""
    members: dict[str, str] = {}
    for name, item in value.items() if isinstance(value, Mapping) else ():
        if isinstance(item, list):
            text = ", ".join(text for text in item if isinstance(text, str))[:MAX_QUOTED]
            members[name] = ", ".join(map(quote_name, text.split(", ")))
        elif isinstance(item, str):
            members[name] = quote_name(item[:MAX_QUOTED])
        elif isinstance(item, int | float) and not isinstance(item, bool):
            members[name] = f"{item}"[:MAX_QUOTED]
    return members


def _fill_placeholders(hint: str, variables: Mapping[str, str]) -> str:
    """Return a hint with its placeholders filled, without the sentences that have one without a value."""
    sentences = [one for one in _SENTENCE_END.split(hint) if variables.keys() >= set(_PLACEHOLDER.findall(one))]
    return _PLACEHOLDER.sub(lambda match: variables[match.group(1)], " ".join(sentences))


def error_message(value: Any, paths: Iterable[Path] = ()) -> str:
    """Return the message of an error body; empty if there is none.

    It is at `paths`, or else in one of the shapes that providers use.
    """
    found = [one for path in paths for one in values_at(value, path)]
    messages = list(islice(_find_messages(found), MAX_MESSAGES)) or islice(_find_messages(value), MAX_MESSAGES)
    return truncate_message(" - ".join(dict.fromkeys(messages)))


def _find_messages(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value:
        yield truncate_message(_without_traceback(value))
    elif isinstance(value, list):
        for item in value:
            yield from _find_messages(item)
    elif isinstance(value, dict):
        place = _place_of_error(value)
        keys = _MESSAGE_KEYS if any(value.get(key) for key in _MESSAGE_KEYS) or not place else ("code",)
        for message in chain.from_iterable(_find_messages(value.get(key)) for key in keys):
            yield f"{place}: {message}" if place else message


def quote_message(message: str, limit: int = MAX_ERROR_MESSAGE + 1) -> str:
    """Return a provider's message for a sentence of ours, on one line and in quotes; empty if it is empty."""
    return message if message == UNTITLED or not message.strip() else quote(message, limit)


def _place_of_error(value: Mapping[str, Any]) -> str:
    """Return the field that an error is about; empty if the error does not name one."""
    place, path = value.get("attr") or value.get("field"), value.get("path") or value.get("loc")
    if not place and isinstance(path, list):
        steps = [str(step) for step in path[:MAX_STEPS] if isinstance(step, str | int)]
        is_field = len(steps) > 1 and "loc" in value and steps[0] in _LOCATIONS and not steps[1].isdecimal()
        place = ".".join(steps[1:] if is_field else steps)
    return place[:MAX_QUOTED] if isinstance(place, str) else ""


def _without_traceback(text: str) -> str:
    """Return the exception of the last Python traceback in a text; a text without one is returned unchanged."""
    start = text.rfind(_TRACEBACK)
    if start < 0:
        return text
    lines = [line.rstrip() for line in text[start:].splitlines() if _LETTER_OR_DIGIT.search(line)]
    exception = list(dropwhile(lambda line: line[0].isspace(), lines[1:]))
    return "\n".join(exception) or lines[-1].strip()


def truncate_message(text: str) -> str:
    """Return at most `MAX_ERROR_MESSAGE` characters of an error message."""
    return text if len(text) <= MAX_ERROR_MESSAGE else text[:MAX_ERROR_MESSAGE] + "…"


def message_from_text(body: bytes, media_type: str) -> str:
    """Return the message of an error body that is not JSON: the title of a page, or the text itself."""
    if media_type == "text/event-stream":
        return ""  # some event streams send only the names of the fields of an error
    text = body[: 4 * MAX_ERROR_MESSAGE].decode("utf-8", "replace").strip()
    if text and (media_type == "text/html" or text[:1] == "<"):
        title = _TITLE.search(text)
        return truncate_message(_WHITESPACE.sub(" ", unescape(title.group(2))).strip()) if title else UNTITLED
    start = body.rfind(_TRACEBACK.encode())
    if start >= 0:
        text = _without_traceback(body[start : start + MAX_TRACEBACK].decode("utf-8", "replace"))
    return truncate_message(text)
