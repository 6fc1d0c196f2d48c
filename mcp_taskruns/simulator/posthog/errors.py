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


def usage_limit_exceeded() -> ApiError:
    """Return a 429 without Retry-After, because waiting has no effect.

    Source: PostHog products/tasks/backend/services/code_usage_gate.py.
    """
    message = "You've reached your PostHog Code usage limit."
    body = {"type": "rate_limited", "code": "usage_limit_exceeded", "error": message, "detail": message, "attr": None}
    return ApiError(429, body)


def throttled(seconds: float) -> ApiError:
    """Return a 429 with Retry-After."""
    wait = math.ceil(seconds)
    detail = f"Request was throttled. Expected available in {wait} second{'' if wait == 1 else 's'}."
    return api_error(429, "throttled_error", "throttled", detail, headers={"Retry-After": str(wait)})
