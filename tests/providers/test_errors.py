"""The error that a provider's response becomes: kind, hint, retryability and delay.

The responses are as the providers send them: Render's API reference, its SDK (render 1.5.0) and its CLI's local server
(pkg/workflows/apiserver); Inngest's open-source server (pkg/api); PostHog's source (posthog/exceptions,
products/tasks/backend); Runway's OpenAPI document, SDK (runwayml 5.24.0) and documentation.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import pytest

from mcp_taskruns.core.calls.received import HttpResponse
from mcp_taskruns.core.calls.response import read_response
from mcp_taskruns.core.model.operation import ErrorRule
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import Kind, ProviderError
from mcp_taskruns.loading.loader import load_tools

TOOLS = {tool.name: tool for tool in load_tools(())}
SPEC_NAMES = dict(zip(TOOLS, load_tools((), names="spec"), strict=True))
"""The tools with the names of `--tool-names spec`, by their usual names."""

NOW = 1_767_225_600.0
"""2026-01-01 00:00:00 UTC, when every response is received."""

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
EVENTS = "text/event-stream"
HTML = "text/html"

NGINX = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body>\r\n</html>"
GATEWAY_TIMEOUT = NGINX.replace("502 Bad Gateway", "504 Gateway Time-out")
GARBLED = "typecodedetailattr"
"""An error on PostHog's stream, whose renderer writes only the names of its members."""

UNAVAILABLE = "try again later"

INVITATION = re.compile(r"\b(try (it )?again|(again|try|retry) later)\b|: retry\b|\bretry\.", re.IGNORECASE)
"""A hint that invites the caller to repeat the call as it is; `check ... before retrying` does not."""


@dataclass(frozen=True)
class Row:
    """A response, and the error that it becomes."""

    id: str
    tool: str
    status: int
    body: Any
    kind: Kind
    hint: str
    """A part of the hint that is specific to the case."""
    retryable: bool = False
    after: float | None = None
    media_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    in_body: int | None = None

    def response(self) -> HttpResponse:
        text = self.body if isinstance(self.body, str) else json.dumps(self.body)
        headers = {"content-type": self.media_type} | dict(self.headers)
        return HttpResponse(self.status, headers, text.encode(), NOW)


def drf(kind: str, code: str, detail: str, attr: str | None = None) -> dict[str, Any]:
    """drf-exceptions-hog: PostHog posthog/exceptions"""
    return {"type": kind, "code": code, "detail": detail, "attr": attr}


def message(text: str, **more: str) -> dict[str, str]:
    """Render API reference: errors"""
    return {"id": "err-1", "message": text, **more}


LIST, RUN, GET, CANCEL, STREAM = (
    "render-list-task-runs",
    "render-run-task",
    "render-retrieve-task-run",
    "render-cancel-task-run",
    "render-stream-realtime-events-sse",
)
RENDER = [
    Row("401 plain", GET, 401, "Unauthorized\n", "auth", "RENDER_API_KEY", media_type=TEXT),
    Row("401 json", LIST, 401, message("unauthorized"), "auth", "begin with rnd_"),
    Row("403", LIST, 403, message("forbidden"), "auth", "lack a permission"),
    Row("wrong slug", RUN, 404, message("task not found: my-workflow/nope"), "not_found", "render-list-tasks"),
    Row("run", GET, 404, message("task run not found"), "not_found", "render-list-task-runs"),
    Row("cancel unknown", CANCEL, 404, message("task run not found: trn-1"), "not_found", "render-list-task-runs"),
    Row("task", "render-retrieve-task", 404, message("task not found"), "not_found", "render-list-tasks lists"),
    Row("stream unknown", STREAM, 404, message("task run not found: trn-1"), "not_found", "(trn-...)"),
    Row("no input", RUN, 400, message("input must be an array or an object"), "validation", "Change the arguments"),
    Row("blank task", RUN, 400, message("task cannot be blank"), "validation", "Change the arguments"),
    Row("cursor", LIST, 400, message("invalid cursor", code="invalid_cursor"), "validation", "none for the first page"),
    Row("limit", LIST, 400, message("invalid limit", code="invalid_limit"), "validation", "Change the arguments"),
    Row("ended", CANCEL, 500, message("task run trn-1 is not active"), "conflict", "has ended already"),
    Row(
        "subtask",
        CANCEL,
        500,
        message("task run trn-2 is a subtask; cancel its root trn-1 instead"),
        "conflict",
        "Cancel the root run trn-1 instead",
    ),
    Row(
        "429 seconds",
        LIST,
        429,
        message("rate limit exceeded"),
        "rate_limited",
        "Wait",
        retryable=True,
        after=45,
        headers=(("ratelimit-limit", "400"), ("ratelimit-remaining", "0"), ("ratelimit-reset", "45")),
    ),
    Row(
        "429 epoch",
        CANCEL,
        429,
        message("rate limit exceeded"),
        "rate_limited",
        "Wait",
        retryable=True,
        after=12,
        headers=(("ratelimit-reset", "1767225612"),),
    ),
    # Every path without /v1, also of the local server
    Row("no /v1", LIST, 404, "404 page not found", "config", "RENDER_BASE_URL must end with /v1", media_type=TEXT),
    Row("500", RUN, 500, message("internal server error"), "unavailable", "may have been carried out"),
    Row("500 read", LIST, 500, message("internal server error"), "unavailable", "try again later", retryable=True),
    Row(
        "503 page",
        GET,
        503,
        "<html><title>503 Service Unavailable</title></html>",
        "unavailable",
        "try again later",
        retryable=True,
        media_type=HTML,
    ),
    Row("429 bare", "render-run-task", 429, message("rate limit exceeded"), "rate_limited", "Wait", retryable=True),
    Row(
        "429 reset soon",
        "render-run-task",
        429,
        message("rate limit exceeded"),
        "rate_limited",
        "Wait",
        retryable=True,
        after=0,
        headers=(("ratelimit-reset", "1767225599"),),
    ),
    Row(
        "429 garbage",
        "render-list-tasks",
        429,
        "Too Many Requests",
        "rate_limited",
        "Wait",
        retryable=True,
        media_type=TEXT,
        headers=(("ratelimit-reset", "soon"),),
    ),
    # Every response has the headers of the rate limit. Render API reference: Rate limiting
    Row(
        "run with limits",
        "render-retrieve-task-run",
        404,
        message("task run not found"),
        "not_found",
        "render-list-task-runs",
        headers=(("ratelimit-limit", "400"), ("ratelimit-remaining", "399"), ("ratelimit-reset", "45")),
    ),
    # The response of production to cancelling an ended run is not documented; in render 1.5.0 it is a ClientError: 4xx
    Row(
        "ended 409",
        "render-cancel-task-run",
        409,
        message("task run trn-1 is not active"),
        "conflict",
        "render-retrieve-task-run",
    ),
    Row(
        "owner",
        "render-list-task-runs",
        400,
        message("invalid owner", code="invalid_owner_id"),
        "validation",
        "Change the arguments",
    ),
    Row(
        "stream 401",
        "render-stream-realtime-events-sse",
        401,
        "Unauthorized",
        "auth",
        "RENDER_API_KEY",
        media_type=TEXT,
    ),
    Row(
        "503",
        "render-list-tasks",
        503,
        message("service unavailable"),
        "unavailable",
        UNAVAILABLE,
        retryable=True,
    ),
]

STATUS, STOP, JOBS = "inngest-get-function-run-status", "inngest-cancel-function-run", "inngest-list-jobs-steps-run"


def v1(status: int, text: str) -> dict[str, Any]:
    """Inngest pkg/api/apiv1: the status is in the body; the response to a GET has 200: cache.go"""
    return {"error": text, "data": None, "status": status}


LIST_V2, EVENT_V2 = "inngest-list-function-runs", "inngest-list-event-runs"
CRON = "Rerunning cron-triggered runs is not yet supported"
TRACE_V2, FORMAT = "inngest-get-function-run-trace", "invalid_field_format"


def v2(code: str, text: str) -> dict[str, Any]:
    """Inngest pkg/api/v2/apiv2base/errors.go"""
    return {"errors": [{"code": code, "message": text}]}


NO_RUN = "Unable to load function run: 01HXYZ8K3V5QWERTY6ABCDEFGH"
INNGEST = [
    Row("unknown in a 200", STATUS, 200, v1(500, NO_RUN), "not_found", "no such run", in_body=500),
    Row("unknown in text", STATUS, 200, v1(500, NO_RUN), "not_found", "no such run", media_type=TEXT, in_body=500),
    Row("jobs of unknown", JOBS, 200, v1(500, NO_RUN), "not_found", "no such run", in_body=500),
    Row("cancel unknown", STOP, 404, v1(404, NO_RUN), "not_found", "no such run"),
    Row(
        "no ulid in a 200",
        STATUS,
        200,
        v1(400, "Invalid run ID: nope"),
        "validation",
        "A run id is a ULID",
        in_body=400,
    ),
    Row("cancel no ulid", STOP, 400, v1(400, "Invalid run ID: nope"), "validation", "A run id is a ULID"),
    Row("401", STATUS, 401, "Authentication failed", "auth", "signkey-", media_type=TEXT),
    Row("401 cancel", STOP, 401, "Authentication failed", "auth", "INNGEST_SIGNING_KEY", media_type=TEXT),
    Row("route", STOP, 404, "404 page not found", "config", "INNGEST_API_BASE_URL", media_type=TEXT),
    Row("405", STOP, 405, "", "unsupported", "another tool", media_type=TEXT),
    Row("429", STATUS, 429, "", "rate_limited", "Wait", retryable=True, media_type=TEXT),
    Row("other 500", STATUS, 200, v1(500, "Unable to query"), "unavailable", "later", retryable=True, in_body=500),
    Row("502", JOBS, 502, "Bad Gateway", "unavailable", "later", retryable=True, media_type=TEXT),
    Row(
        "jobs, no ulid",
        "inngest-list-jobs-steps-run",
        200,
        v1(400, "Invalid run ID: x"),
        "validation",
        "ULID",
        in_body=400,
    ),
    Row(
        "jobs 401", "inngest-list-jobs-steps-run", 401, "Authentication failed", "auth", "sk-inn-api-", media_type=TEXT
    ),
    Row(
        "jobs of unknown in text",
        "inngest-list-jobs-steps-run",
        200,
        v1(500, NO_RUN),
        "not_found",
        "no such run",
        media_type=TEXT,
        in_body=500,
    ),
    Row("v2 unknown", TRACE_V2, 404, v2("not_found", "Run not found"), "not_found", "inngest-list-event-runs"),
    Row("v2 no trace", TRACE_V2, 404, v2("not_found", "Trace not found"), "not_found", "no such run"),
    Row("v2 no ulid", TRACE_V2, 400, v2(FORMAT, "Run ID must be a valid ULID"), "validation", "26 characters"),
    Row("v2 event, no ulid", EVENT_V2, 400, v2(FORMAT, "Event ID must be a valid ULID"), "validation", "of the event"),
    Row("v2 limit", EVENT_V2, 400, v2(FORMAT, "Limit cannot exceed 40"), "validation", ""),
    Row("v2 401", LIST_V2, 401, v2("invalid_signing_key", "Invalid signing key"), "auth", "v2 takes an API key"),
    Row("v2 403", LIST_V2, 403, v2("forbidden", "Forbidden"), "auth", "may read runs"),
    Row("v2 429", LIST_V2, 429, v2("rate_limited", "API rate limit exceeded."), "rate_limited", "", retryable=True),
    Row("v2 cron", TRACE_V2, 501, v2("not_implemented", CRON), "unsupported", "next scheduled run"),
    Row("v2 501", LIST_V2, 501, v2("not_implemented", "List runs is not yet implemented"), "config", "newer version"),
    Row("504", "inngest-get-function-run-status", 504, "", "timeout", "too long", retryable=True, media_type=TEXT),
]

KEY = "POSTHOG_API_KEY"
READ = "posthog-retrieve-task-run"
UPDATE, START, CREATE = "posthog-update-task-run", "posthog-start-task-run", "posthog-create-task-run"
COMMAND, RESUME, FOLLOW = (
    "posthog-send-command-agent-server",
    "posthog-resume-task-run-cloud",
    "posthog-stream-task-run",
)
PREPARE, FINALIZE, DOWNLOAD = (
    "posthog-prepare-direct-uploads-task-run",
    "posthog-finalize-direct-uploads-task-run",
    "posthog-download-artifact-through-backend",
)
NO_KEY = drf("authentication_error", "not_authenticated", "Authentication credentials were not provided.")
BAD_KEY = drf("authentication_error", "authentication_failed", "Personal API key found in request is invalid.")
GATE = {
    "type": "rate_limited",
    "code": "usage_limit_exceeded",
    "error": "You've reached your PostHog Code usage limit.",
    "attr": None,
}


RESET = {"limit_type": "burst", "reset_at": "2026-12-01T00:00:00Z"}
ACCESS = {"type": "permission_denied", "code": "code_access_required", "error": "PostHog Desktop access is required."}


def business(error: str) -> dict[str, Any]:
    return {"error": error}


def scope(name: str) -> dict[str, Any]:
    return drf("authentication_error", "permission_denied", f"API key missing required scope '{name}'")


def invalid(code: str, detail: str, attr: str) -> dict[str, Any]:
    return drf("validation_error", code, detail, attr)


POSTHOG = [
    Row("no key 401", READ, 401, NO_KEY, "auth", KEY),
    Row("no key 403", READ, 403, NO_KEY, "auth", "phc_..."),
    Row("bad key 401", READ, 401, BAD_KEY, "auth", "phx_..."),
    Row("bad key 403", UPDATE, 403, BAD_KEY, "auth", "POSTHOG_HOST"),
    Row("scope write", UPDATE, 403, scope("task:write"), "auth", f"in {KEY} the scope task:write"),
    Row("scope read", READ, 403, scope("task:read"), "auth", "the scope task:read"),
    Row("scope token", "posthog-get-sandbox-connection-token", 403, scope("task:write"), "auth", "scope task:write"),
    Row("stream 401", FOLLOW, 401, GARBLED, "auth", KEY, media_type=EVENTS),
    Row("stream 406", FOLLOW, 406, GARBLED, "unsupported", "report it", media_type=EVENTS),
    Row(
        "406",
        "posthog-get-task-run-logs",
        406,
        drf("invalid_request", "not_acceptable", "Could not satisfy the request Accept header."),
        "unsupported",
        "bug in this server",
    ),
    Row(
        "405",
        READ,
        405,
        drf("invalid_request", "method_not_allowed", 'Method "DELETE" not allowed.'),
        "unsupported",
        "another",
    ),
    Row(
        "415",
        CREATE,
        415,
        drf("invalid_request", "unsupported_media_type", "Unsupported media type"),
        "unsupported",
        "report it",
    ),
    Row("project", READ, 404, drf("invalid_request", "not_found", "Project not found."), "not_found", "project_id"),
    Row("task", CREATE, 404, drf("invalid_request", "not_found", "Task not found"), "not_found", "Check task_id"),
    Row(
        "list", "posthog-list-task-runs", 404, drf("invalid_request", "not_found", "Not found."), "not_found", "region"
    ),
    Row("run", READ, 404, drf("invalid_request", "not_found", "Not found."), "not_found", "posthog-list-task-runs"),
    Row(
        "throttled",
        READ,
        429,
        drf("throttled_error", "throttled", "Request was throttled. Expected available in 13 seconds."),
        "rate_limited",
        "Wait",
        retryable=True,
        after=13,
        headers=(("retry-after", "13"),),
    ),
    Row("gate create", CREATE, 429, GATE, "usage_limit", "A retry has no effect"),
    Row("gate start", START, 429, GATE, "usage_limit", "A retry has no effect"),
    Row("gate resume", RESUME, 429, GATE, "usage_limit", "has to be raised"),
    # logic/services/code_usage_gate.py
    Row("gate reset", START, 429, {**GATE, **RESET}, "usage_limit", f"reset at {RESET['reset_at']}."),
    Row(
        "billing",
        RESUME,
        429,
        {"type": "billing_limit", "error": "Your organization reached"},
        "usage_limit",
        "billing",
    ),
    Row("access", CREATE, 403, ACCESS, "usage_limit", "The key is valid"),
    Row("access reason", START, 403, {**ACCESS, "reason": "startup_plan"}, "usage_limit", "is startup_plan."),
    Row(
        "access unknown",
        RESUME,
        503,
        {"type": "service_unavailable", "code": "desktop_access_unavailable", "error": "We couldn't verify"},
        "unavailable",
        "Nothing was done",
        retryable=True,
    ),
    Row(
        "cancel local",
        UPDATE,
        400,
        business("Only cloud runs can be cancelled via this endpoint"),
        "conflict",
        "desktop",
    ),
    Row(
        "cancel lost",
        UPDATE,
        503,
        business("Could not reach the run's workflow; try again"),
        "unavailable",
        "Nothing was cancelled",
        retryable=True,
    ),
    Row("ended", COMMAND, 409, business("Task run workflow has ended"), "conflict", "posthog-resume-task-run-cloud"),
    Row("parse", CREATE, 400, drf("invalid_request", "parse_error", "JSON parse error"), "validation", "Change the"),
    Row("choice", CREATE, 400, invalid("invalid_choice", '"x" is not valid.', "environment"), "validation", "Change"),
    Row(
        "entries",
        "posthog-append-log-entries",
        400,
        invalid("invalid_input", "At least one log entry is required", "entries"),
        "validation",
        "Change",
    ),
    Row(
        "github",
        CREATE,
        400,
        invalid("github_authorization_required", "Link a GitHub account.", "pr_authorship_mode"),
        "auth",
        "pr_authorship_mode bot",
    ),
    Row("sandbox", CREATE, 400, {"detail": "Invalid sandbox_environment_id"}, "validation", "Change the arguments"),
    Row(
        "start local",
        START,
        400,
        {"error": "Only cloud runs can be started via this endpoint"},
        "conflict",
        "environment cloud",
    ),
    Row(
        "start again",
        START,
        400,
        {"error": "Only queued or not_started cloud runs can be started (current status: completed)"},
        "conflict",
        "posthog-wait-for-run",
    ),
    Row(
        "start ids",
        START,
        400,
        {"detail": "Some pending_user_artifact_ids are invalid for this run", "missing_artifact_ids": ["a1", "a2"]},
        "validation",
        "Not on this run: a1, a2.",
    ),
    Row("active", RESUME, 400, {"error": "Run is already active in cloud"}, "conflict", "posthog-wait-for-run"),
    Row(
        "workflow",
        RESUME,
        502,
        {"error": "Failed to start cloud workflow"},
        "unavailable",
        "whether it is queued",
    ),
    Row("no sandbox", COMMAND, 400, {"error": "No active sandbox for this task run"}, "conflict", START),
    Row(
        "agent gone",
        COMMAND,
        502,
        {"error": "Agent server is not reachable"},
        "unavailable",
        "sandbox may have ended",
    ),
    Row(
        "agent slow",
        COMMAND,
        504,
        {"error": "Agent server request timed out"},
        "timeout",
        "posthog-get-filtered-task-run-session",
    ),
    Row(
        "slack",
        "posthog-relay-run-message-slack",
        503,
        {"error": "Failed to queue Slack relay"},
        "unavailable",
        "Nothing was posted",
        retryable=True,
    ),
    Row(
        "artifact",
        "posthog-generate-presigned-url-artifact",
        404,
        {"error": "Artifact not found on this run"},
        "not_found",
        "a storage_path from artifacts",
    ),
    Row("content", DOWNLOAD, 404, {"error": "Artifact content not found"}, "not_found", "kept for 30 days"),
    Row("path", FINALIZE, 400, {"error": "Artifact storage path is invalid for this run"}, "validation", PREPARE),
    Row("not there", FINALIZE, 400, {"error": "Artifact upload not found in object storage"}, "conflict", PREPARE),
    Row(
        "output",
        "posthog-set-run-output",
        400,
        {"error": "Output validation error: 'summary' is a required property"},
        "validation",
        "json_schema",
    ),
    Row("503", READ, 503, "", "unavailable", "later", retryable=True, media_type=HTML),
    # The stream has no renderer for the message of an error
    Row("stream 403", FOLLOW, 403, GARBLED, "auth", "POSTHOG_API_KEY", media_type=EVENTS),
    Row("stream 404", FOLLOW, 404, GARBLED, "not_found", "posthog-list-task-runs", media_type=EVENTS),
    Row(
        "stream 429",
        FOLLOW,
        429,
        GARBLED,
        "rate_limited",
        "Wait",
        retryable=True,
        after=7,
        media_type=EVENTS,
        headers=(("retry-after", "7"),),
    ),
    Row(
        "throttled write",
        "posthog-append-log-entries",
        429,
        drf("throttled_error", "throttled", "Request was throttled. Expected available in 1 second."),
        "rate_limited",
        "Wait",
        retryable=True,
        after=1,
        headers=(("retry-after", "1"),),
    ),
    Row(
        "no access",
        READ,
        403,
        drf("authentication_error", "permission_denied", "You don't have access to the project."),
        "auth",
        "lack a permission",
    ),
    Row(
        "resume github",
        "posthog-resume-task-run-cloud",
        400,
        invalid("github_authorization_required", "Link a GitHub account.", "pr_authorship_mode"),
        "auth",
        "Link GitHub",
    ),
    Row(
        "required",
        "posthog-relay-run-message-slack",
        400,
        invalid("required", "This field is required.", "text"),
        "validation",
        "Change the arguments",
    ),
    Row(
        "download 406",
        "posthog-download-artifact-through-backend",
        406,
        drf("invalid_request", "not_acceptable", "Could not satisfy the request Accept header."),
        "unsupported",
        "report it",
    ),
    Row(
        "download artifact",
        "posthog-download-artifact-through-backend",
        404,
        {"error": "Artifact not found on this run"},
        "not_found",
        "a storage_path from artifacts",
    ),
    Row(
        "500",
        READ,
        500,
        drf("server_error", "error", "A server error occurred."),
        "unavailable",
        UNAVAILABLE,
        retryable=True,
    ),
    Row("502 page", READ, 502, NGINX, "unavailable", UNAVAILABLE, retryable=True, media_type=HTML),
    Row("504 page", READ, 504, GATEWAY_TIMEOUT, "timeout", "took too long", retryable=True, media_type=HTML),
]

TASK, DELETE = "runway-retrieve-task-status-and-output", "runway-cancel-delete-task"


def issue(path: list[str], text: str) -> dict[str, Any]:
    """Runway's OpenAPI document: {error, issues: [{code, path, message}], docUrl}"""
    return {"error": "Validation of request failed", "issues": [{"code": "invalid", "path": path, "message": text}]}


RUNWAY = [
    Row("version", TASK, 400, issue(["headers", "X-Runway-Version"], "Required"), "unsupported", "report it"),
    Row("uuid", TASK, 400, issue(["params", "id"], "Invalid uuid"), "validation", "Change the arguments"),
    Row("401", TASK, 401, {"error": "Unauthorized"}, "auth", "RUNWAYML_API_SECRET"),
    Row("401 delete", DELETE, 401, {"error": "Unauthorized"}, "auth", "key_..."),
    Row("404", TASK, 404, {"error": "Task not found"}, "not_found", "was deleted or cancelled"),
    Row("404 delete", DELETE, 404, {"error": "Task not found"}, "not_found", "after which it cannot be fetched"),
    Row("405", TASK, 405, {"error": "Method not allowed"}, "unsupported", "another tool"),
    Row("429", TASK, 429, {"error": "Too many requests"}, "rate_limited", "Wait", retryable=True),
    Row(
        "429 after",
        TASK,
        429,
        {"error": "Too many requests"},
        "rate_limited",
        "Wait",
        retryable=True,
        after=2,
        headers=(("retry-after", "2"),),
    ),
    Row(
        "429 after ms",
        DELETE,
        429,
        {"error": "Too many requests"},
        "rate_limited",
        "Wait",
        retryable=True,
        after=0.25,
        headers=(("retry-after-ms", "250"), ("retry-after", "1")),
    ),
    Row("502", TASK, 502, {"error": "Bad gateway"}, "unavailable", "later", retryable=True),
    Row(
        "503 date",
        TASK,
        503,
        {"error": "Overloaded"},
        "unavailable",
        "later",
        retryable=True,
        after=30,
        headers=(("retry-after", "Thu, 01 Jan 2026 00:00:30 GMT"),),
    ),
    Row("504", TASK, 504, {"error": "Gateway timeout"}, "timeout", "too long", retryable=True),
    Row(
        "400 bare",
        "runway-cancel-delete-task",
        400,
        {"error": "Bad request"},
        "validation",
        "Change the arguments",
    ),
    # The exact message is not documented; header names are case-insensitive (RFC 9110 section 5.1)
    Row(
        "version in lower case",
        "runway-cancel-delete-task",
        400,
        issue(["headers", "x-runway-version"], "Required"),
        "unsupported",
        "report it",
    ),
    Row("delete 405", "runway-cancel-delete-task", 405, {"error": "Method not allowed"}, "unsupported", "another tool"),
    Row(
        "delete 503",
        "runway-cancel-delete-task",
        503,
        "",
        "unavailable",
        "may have been carried out: read the current state",
        media_type=TEXT,
    ),
    Row(
        "429 garbage",
        "runway-retrieve-task-status-and-output",
        429,
        {"error": "Too many requests"},
        "rate_limited",
        "Wait",
        retryable=True,
        headers=(("retry-after", "a while"), ("retry-after-ms", "nan")),
    ),
]

PROVIDERS = {"render": RENDER, "inngest": INNGEST, "posthog": POSTHOG, "runway": RUNWAY}
ROWS = [row for rows in PROVIDERS.values() for row in rows]


def error_of(row: Row, tools: Mapping[str, Tool] = TOOLS) -> ProviderError:
    """Return the error that the response of a row becomes."""
    with pytest.raises(ProviderError) as caught:
        read_response(row.response(), tools[row.tool].operation)
    return caught.value


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.tool.partition('-')[0]} {row.id}" for row in ROWS])
def test_response_becomes_an_error_with_kind_and_hint(row: Row) -> None:
    error = error_of(row)
    assert (error.kind, error.retryable, error.retry_after_s) == (row.kind, row.retryable, row.after)
    assert error.status == (row.in_body or row.status)
    assert row.hint in error.hint


def test_no_response_is_in_the_tables_twice() -> None:
    seen = Counter((row.tool, row.status, str(row.body), row.headers, row.media_type) for row in ROWS)
    assert [response for response, count in seen.items() if count > 1] == []


def test_the_tables_have_every_kind_of_error() -> None:
    assert {row.kind for row in ROWS} == set(get_args(Kind))


def test_message_contains_the_message_of_the_provider() -> None:
    for row in ROWS:
        if isinstance(row.body, dict):
            body = row.body["errors"][0] if "errors" in row.body else row.body
            message = next(body[key] for key in ("message", "detail", "error") if body.get(key))
            quoted = message.replace('"', "'")
            assert quoted in error_of(row).message


def test_hint_is_complete_sentences_without_placeholders() -> None:
    hints = {row.id: error_of(row).hint for row in ROWS}
    assert [name for name, hint in hints.items() if not re.fullmatch(r"[A-Z][^{}]*[.?]", hint)] == []


RULES = {id(rule): (tool.prefix, rule) for tool in TOOLS.values() for rule in tool.operation.errors}


def without(rule: ErrorRule) -> dict[str, Tool]:
    """Return the tools as they would be if their overlays did not have this rule."""
    return {
        name: replace(tool, operation=replace(operation, errors=tuple(one for one in operation.errors if one != rule)))
        for name, tool in TOOLS.items()
        for operation in [tool.operation]
    }


@pytest.mark.parametrize(
    ("prefix", "rule"), RULES.values(), ids=[f"{prefix} {rule.hint[:40]}" for prefix, rule in RULES.values()]
)
def test_every_rule_of_an_overlay_changes_the_error_of_a_row(prefix: str, rule: ErrorRule) -> None:
    tools = without(rule)
    rows = [row for row in ROWS if row.tool.startswith(f"{prefix}-")]
    assert [row.id for row in rows if error_of(row, tools).to_json() != error_of(row).to_json()]


def tools_named_in(hint: str, names: Iterable[str]) -> set[str]:
    """Return which of these tool names are words of the hint."""
    return {name for name in names if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", hint)}


def test_hint_names_tools_as_they_are_listed() -> None:
    names = {prefixed: tool.name for prefixed, tool in SPEC_NAMES.items()}
    pairs = [
        (tools_named_in(error_of(row).hint, names), tools_named_in(error_of(row, SPEC_NAMES).hint, names.values()))
        for row in ROWS
    ]
    assert [pair for pair in pairs if {names[name] for name in pair[0]} != pair[1]] == []
    assert {"render-list-tasks", "posthog-wait-for-run"} <= set().union(*(prefixed for prefixed, _ in pairs))
    assert "list-tasks" in set().union(*(listed for _, listed in pairs))


# Responses without a message, of every tool


CREDENTIAL = {
    "render": "RENDER_API_KEY",
    "inngest": "INNGEST_SIGNING_KEY",
    "posthog": "POSTHOG_API_KEY",
    "runway": "RUNWAYML_API_SECRET",
}
STATUSES: dict[int, tuple[Kind, bool]] = {
    400: ("validation", False),
    401: ("auth", False),
    403: ("auth", False),
    404: ("not_found", False),
    405: ("unsupported", False),
    406: ("unsupported", False),
    409: ("conflict", False),
    415: ("unsupported", False),
    429: ("rate_limited", True),
    500: ("unavailable", True),
    502: ("unavailable", True),
    503: ("unavailable", True),
    504: ("timeout", True),
}


def errors_without_message(tool: Tool, status: int) -> Iterator[ProviderError]:
    """Yield the errors of responses with this status whose body is empty or unknown."""
    for media_type, body in (
        (None, ""),
        (TEXT, "no"),
        (HTML, NGINX),
        (EVENTS, GARBLED),
        (JSON, "{}"),
        (JSON, '{"error":"no","message":"no","detail":"no"}'),
        (JSON, "[" * 50),
    ):
        headers = {} if media_type is None else {"content-type": media_type}
        with pytest.raises(ProviderError) as caught:
            read_response(HttpResponse(status, headers, body.encode(), NOW), tool.operation)
        yield caught.value


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_error_without_message_follows_from_the_status(tool: Tool) -> None:
    for status, (kind, is_transient) in STATUSES.items():
        # After a 5xx the outcome of a write is unknown, and sending it again may have a second effect.
        is_unknown = status >= 500 and not tool.operation.is_safe_to_retry
        for error in errors_without_message(tool, status):
            assert (error.kind, error.status) == (kind, status)
            assert error.retryable is (is_transient and not is_unknown)
            assert error.hint
            assert ("may have been carried out: read the current" in error.hint) is is_unknown
            if kind == "auth":
                assert CREDENTIAL[tool.prefix] in error.hint
            if status in (406, 415):
                assert "report it" in error.hint


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_redirect_names_the_variable_of_the_base_url(tool: Tool) -> None:
    for status in (301, 302, 307, 308):
        for error in errors_without_message(tool, status):
            assert (error.kind, error.retryable) == ("unsupported", False)
            assert tool.operation.base.variables[0] in error.hint


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_messages_of_other_providers_have_no_meaning(tool: Tool) -> None:
    others = [row for row in ROWS if not row.tool.startswith(tool.prefix) and row.status == 400 and not row.in_body]
    assert len(others) > 5
    for row in others:
        with pytest.raises(ProviderError) as caught:
            read_response(row.response(), tool.operation)
        assert (row.id, caught.value.kind) == (row.id, "validation")


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_no_error_rule_invites_to_repeat_a_call_that_is_not_retryable(tool: Tool) -> None:
    for rule in tool.operation.errors:
        # The rules alone, so that each applies whatever the body of the response is.
        operation = replace(tool.operation, errors=(replace(rule, when=(), message_matches=None),))
        for status in rule.status or (400, 401, 403, 404, 409, 429, 500, 502, 503, 504):
            with pytest.raises(ProviderError) as caught:
                read_response(HttpResponse(status, {}, b"", NOW), operation)
            error = caught.value
            assert error.retryable or not INVITATION.search(error.hint), (rule, error.hint)
            assert not (error.retryable and "has no effect" in error.hint), (rule, error.hint)


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_any_5xx_of_a_read_but_501_and_505_is_retryable(tool: Tool) -> None:
    if not (tool.operation.is_safe and tool.operation.is_safe_to_retry):
        return
    for status in range(500, 600):
        (error, *_) = errors_without_message(tool, status)
        assert error.retryable is (status not in {501, 505}), status
        assert error.retryable or not INVITATION.search(error.hint), (status, error.hint)
