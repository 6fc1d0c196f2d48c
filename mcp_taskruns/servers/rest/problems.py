"""Error responses as problem details (RFC 9457)."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from mcp_taskruns.core.calls.redaction import Redactor
from mcp_taskruns.errors import CallError, Kind
from mcp_taskruns.servers.access import Refusal

MEDIA_TYPE = "application/problem+json"

STATUSES: Mapping[Kind, int] = {
    "auth": 403,
    "not_found": 404,
    "validation": 400,
    "rate_limited": 429,
    "conflict": 409,
    "usage_limit": 402,
    "unavailable": 503,
    "timeout": 504,
    "unsupported": 501,
    "config": 503,
}
"""The status codes of errors by kind, for errors without a status code of the provider that can be passed on."""

_REFUSED: Mapping[int, Kind] = {401: "auth", 403: "auth", 421: "auth", 408: "timeout", 503: "unavailable"}
"""The kinds of refused requests by status code; others are validation errors."""


def problem(status: int, detail: str, members: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Return a problem with additional members; it is a validation error unless they contain another kind."""
    title = next((known.phrase for known in HTTPStatus if known == status), "Error")
    standard = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    content = {**standard, "kind": "validation", "retryable": False, **members}
    body = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, status, dict(headers or {}), media_type=MEDIA_TYPE)


def error_problem(error: CallError, redactor: Redactor, status: int | None = None) -> Response:
    """Return the problem of a failed call; `status` overrides the status code."""
    members = {name: value for name, value in error.to_json().items() if name not in {"message", "status"}}
    status = status or _status_of(error)
    if error.status is not None and error.status != status:
        members["provider_status"] = error.status
    members = json.loads(redactor.redact_text(json.dumps(members)))
    headers = {} if error.retry_after_s is None else {"Retry-After": str(max(1, round(error.retry_after_s)))}
    return problem(status, redactor.redact_text(error.message), members, headers)


def _status_of(error: CallError) -> int:
    """Return the status code of the provider if it is a client error, else that of the error's kind.

    401 refers to the token of the REST client only, never to the credential for the provider.
    """
    status = error.status
    if status is not None and 400 <= status < 500 and status != 401 and error.kind != "auth":
        return status
    return 502 if status is not None and error.kind == "unavailable" else STATUSES[error.kind]


def refusal_problem(refusal: Refusal) -> Response:
    """Return the problem of a request that was refused before it was routed."""
    kind = _REFUSED.get(refusal.status, "validation")
    members = {"kind": kind, "retryable": refusal.status in {408, 503}, "hint": refusal.hint}
    return problem(refusal.status, refusal.message, members, refusal.headers)


def no_route(method: str, path: str, allowed: list[str], moved: list[str]) -> Response:
    """Return the response for a request without a route.

    `allowed` are the methods that the path has; `moved` are its prefixed paths if several capability files have it.
    """
    if moved:
        hint = f"Several capability files have this route. Use {' or '.join(moved)}."
        return problem(404, f"{method} {path} is ambiguous", {"kind": "not_found", "hint": hint})
    if allowed:
        methods = ", ".join(sorted(set(allowed)))
        if method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": methods})
        detail, hint = f"{method} is not allowed for {path}", f"Allowed methods: {methods}."
        return problem(405, detail, {"kind": "validation", "hint": hint}, {"Allow": methods})
    hint = "GET /openapi.json lists the routes."
    return problem(404, f"there is no route {path}", {"kind": "not_found", "hint": hint})
