"""PostHog's error responses, in their two shapes."""

import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response


class ApiError(Exception):
    """An error response, raised by a handler and sent by the dispatcher."""

    def __init__(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(body)
        self.status = status
        self.body = body
        self.headers = headers

    def response(self, *, as_events: bool) -> Response:
        """Build the response. On the event stream PostHog's renderer iterates over the dict and writes its keys."""
        if as_events:
            return Response("".join(self.body), self.status, self.headers, "text/event-stream")
        return JSONResponse(self.body, self.status, self.headers)


def api_error(
    status: int, kind: str, code: str, detail: str, *, attr: str | None = None, headers: Mapping[str, str] | None = None
) -> ApiError:
    """Return an error in the shape of Django REST framework at PostHog (drf-exceptions-hog)."""
    return ApiError(status, {"type": kind, "code": code, "detail": detail, "attr": attr}, headers)


def not_found(detail: str = "Not found.") -> ApiError:
    """Return a 404."""
    return api_error(404, "invalid_request", "not_found", detail)


def validation_error(code: str, detail: str, attr: str | None) -> ApiError:
    """Return a 400 for an invalid field."""
    return api_error(400, "validation_error", code, detail, attr=attr)


def task_run_error(status: int, error: str, **more: Any) -> ApiError:
    """Return an error in the other shape, TaskRunErrorResponse, which the task views use."""
    return ApiError(status, {"error": error, **more})


def usage_limit_exceeded(reset_at: str) -> ApiError:
    """Return a 429 without Retry-After: the limit is one of the day (`burst`) or of the month (`sustained`).

    Source: PostHog products/tasks/backend/logic/services/code_usage_gate.py.
    """
    body = {
        "type": "rate_limited",
        "code": "usage_limit_exceeded",
        "error": "You've reached your PostHog Desktop usage limit.",
        "is_pro": False,
        "limit_type": "burst",
        "reset_at": reset_at,
    }
    return ApiError(429, body)


def access_required() -> ApiError:
    """Return a 403 for an organization that is not entitled to cloud runs, although the key is valid.

    Source: PostHog products/tasks/backend/logic/services/code_usage_gate.py.
    """
    message = "PostHog Desktop isn't available while this organization has prepaid credits."
    body = {
        "type": "permission_denied",
        "code": "code_access_required",
        "error": f"{message} Select another organization to continue.",
        "reason": "prepaid_credits",
    }
    return ApiError(403, body)


def access_unavailable() -> ApiError:
    """Return a 503: PostHog could not find out whether the organization is entitled to cloud runs."""
    body = {
        "type": "service_unavailable",
        "code": "desktop_access_unavailable",
        "error": "We couldn't verify PostHog Desktop access. Try again.",
    }
    return ApiError(503, body)


def throttled(seconds: float) -> ApiError:
    """Return a 429 with Retry-After."""
    wait = math.ceil(seconds)
    detail = f"Request was throttled. Expected available in {wait} second{'' if wait == 1 else 's'}."
    return api_error(429, "throttled_error", "throttled", detail, headers={"Retry-After": str(wait)})
