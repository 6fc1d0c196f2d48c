"""An answer that is an error, to what it means: its kind, whether trying again can help, and what to do."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any

from mcp_taskruns.core.model.json_path import matches
from mcp_taskruns.core.model.operation import ErrorRule, Operation
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

PASSING: frozenset[Kind] = frozenset({"rate_limited", "unavailable", "timeout"})
"""The kinds that a moment later may be gone; for a rule that says no more."""

READ_HINT = "Nothing was changed: try again."
WRITE_HINT = "The request may have been carried out: read the current state before trying again."
REPEAT_HINT = "The request may have been carried out, and to try again is safe."


def unknown_outcome_hint(*, is_safe: bool, is_repeatable: bool) -> str:
    """What to do when a request may have arrived and its answer is not known."""
    if not is_repeatable:
        return WRITE_HINT
    return READ_HINT if is_safe else REPEAT_HINT


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

OUR_MISTAKE = "This is a mistake of this server, not of the call: please report it."

HINT_BY_STATUS: dict[int, str] = {406: OUR_MISTAKE, 415: OUR_MISTAKE}

MAX_GROUP = 100
"""Characters of a provider's words that a hint repeats at most."""

EPOCH = 1e9
"""A time to come back that is more than so many seconds is a moment."""

_WHITE = re.compile(r"\s+")
_HOLE = re.compile(r"\{(\w+)\}")
_MARKUP = re.compile(r"<(title|Message)[^>]*>([^<]*)", re.IGNORECASE)


def provider_error(
    status: int, headers: Mapping[str, str], value: Any, plain: str, operation: Operation, received_at: float
) -> ProviderError:
    """The error of an answer.

    `value` is its body as JSON or None, `plain` its body as text, `received_at` when it came, in seconds since 1970.
    """
    said = error_message(value) or plain
    kind = KIND_BY_STATUS.get(status, "validation" if 400 <= status < 500 else "unavailable")
    retryable = status in RETRYABLE
    if not operation.is_safe_to_retry and (status == 408 or status >= 500):
        retryable = False
    variables = ", ".join(dict.fromkeys(" or ".join(variable.names) for variable in operation.credentials()))
    if 300 <= status < 400:
        kind, said = "unsupported", "a redirect, which this server does not follow"
        hint = f"Set {operation.base.variables[0]} in the server's environment to the address that it leads to."
    elif kind == "auth" and variables:
        hint = f"Check {variables} in the server's environment: is it right, and may it do this?"
    elif status in RETRYABLE and not retryable:
        hint = WRITE_HINT
    else:
        hint = HINT_BY_STATUS.get(status, HINTS[kind])
    for rule in operation.errors:
        groups = _fits(rule, status, value, said)
        if groups is not None:
            if rule.kind is not None:
                kind, retryable, hint = rule.kind, rule.kind in PASSING, HINTS[rule.kind]
            retryable = retryable if rule.retryable is None else rule.retryable
            words = {**_members(value), "credential": variables, **groups}
            hint = _filled(rule.hint, words) if rule.hint else hint
            break
    return ProviderError(
        f"the provider answered {status}: {said}" if said else f"the provider answered {status}",
        kind=kind,
        status=status,
        retryable=retryable,
        retry_after_s=retry_after(headers, status, received_at),
        hint=hint,
    )


def _fits(rule: ErrorRule, status: int, value: Any, said: str) -> dict[str, str] | None:
    """The words that the rule finds in an error that it is about; None for another error."""
    if (rule.status and status not in rule.status) or not matches(value, rule.when):
        return None
    if rule.message_matches is None:
        return {}
    match = rule.message_matches.search(said)
    return match and {name: text[:MAX_GROUP] for name, text in match.groupdict("").items()}


def _members(value: Any) -> dict[str, str]:
    """What a hint can repeat of an error's body: its texts, and lists of them."""
    members = value.items() if isinstance(value, Mapping) else ()
    lists = {name: [text for text in item if isinstance(text, str)] for name, item in members if isinstance(item, list)}
    texts = {name: item for name, item in members if isinstance(item, str)}
    return {
        name: text[:MAX_GROUP] for name, text in ({n: ", ".join(item) for n, item in lists.items()} | texts).items()
    }


def _filled(hint: str, words: Mapping[str, str]) -> str:
    return _HOLE.sub(lambda hole: words.get(hole.group(1), hole.group()), hint)


def retry_after(headers: Mapping[str, str], status: int, now: float) -> float | None:
    """The seconds after which a provider wants to be asked again; `now` is in seconds since 1970.

    RFC 9110 section 10.2.3 for Retry-After, which may be a date. Rate limits also tell when they are reset: in so many
    seconds, or at a moment.
    """
    found = _number(headers.get("retry-after-ms"))
    if found is not None:
        return max(found / 1000, 0.0)
    written = headers.get("retry-after")
    found = _number(written)
    if found is None and written:
        try:
            moment = parsedate_to_datetime(written)
            found = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, OverflowError):
            found = None
    if found is None and status == 429:
        found = _number(headers.get("ratelimit-reset") or headers.get("x-ratelimit-reset"))
        found = found - now if found is not None and found > EPOCH else found
    return None if found is None else max(round(found, 3), 0.0)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if isfinite(number) else None


def error_message(value: Any) -> str:
    """The words of an error body, in the shapes that providers use."""
    return truncate_message(" - ".join(dict.fromkeys(_error_words(value))))


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


def truncate_message(text: str) -> str:
    """An error's text within its bound."""
    return text if len(text) <= MAX_ERROR_MESSAGE else text[:MAX_ERROR_MESSAGE] + "…"


def message_from_text(body: bytes, media_type: str) -> str:
    """What a body that is no known error shape says, without a page's markup."""
    if media_type == "text/event-stream":
        return ""  # PostHog's stream writes the names of its error's members, and nothing else
    text = body[: 4 * MAX_ERROR_MESSAGE].decode("utf-8", "replace").strip()
    if text and (media_type == "text/html" or text[:1] == "<"):
        told = _MARKUP.search(text)
        return truncate_message(_WHITE.sub(" ", told.group(2)).strip()) if told else "an HTML page"
    return truncate_message(text)
