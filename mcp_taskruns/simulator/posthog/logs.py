"""The log of a run, as JSON lines and filtered."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from mcp_taskruns.simulator.posthog.notifications import event_type
from mcp_taskruns.simulator.posthog.operations import Call, Operation
from mcp_taskruns.simulator.posthog.project import Project
from mcp_taskruns.simulator.posthog.storage import parse_timestamp
from mcp_taskruns.simulator.posthog.validation import Field

# PostHog products/tasks/backend/presentation/views/api.py `SESSION_LOG_PAGE_MAX_BYTES`.
PAGE_BYTES = 2 * 1024 * 1024
_NO_CACHE = {"Cache-Control": "no-cache"}
_TIMING = {"Server-Timing": "s3_append;dur=0.10"}


async def _append_log(project: Project, call: Call) -> Response:
    """Append entries to the log. PostHog does not publish them on the stream."""
    project.append_log(call.run, call.body["entries"])
    return JSONResponse(project.detail(call.run, call.base), headers=_TIMING)


async def _logs(project: Project, call: Call) -> Response:
    log = b"".join(project.storage.read(run.log_key) for run in project.resume_chain(call.run))
    return Response(log, headers={"Content-Type": "application/jsonl", **_NO_CACHE})


def _names(text: str | None) -> set[str]:
    return {name.strip() for name in (text or "").split(",") if name.strip()}


def _is_after(entry: Mapping[str, Any], after: Any) -> bool:
    try:
        return bool(parse_timestamp(entry["timestamp"]) > after)
    except (KeyError, TypeError, ValueError):
        return False


def _page(entries: list[Any]) -> list[Any]:
    """Return the entries that fit in a page, at least one."""
    page: list[Any] = []
    size = 0
    for entry in entries:
        size += len(json.dumps(entry))
        if page and size > PAGE_BYTES:
            break
        page.append(entry)
    return page


async def _session_logs(project: Project, call: Call) -> Response:
    """Return entries of this run only. The totals are in headers because the body is an array."""
    entries = [json.loads(line) for line in project.storage.read(call.run.log_key).splitlines()]
    query = call.query
    included, excluded = _names(query.get("event_types")), _names(query.get("exclude_types"))
    matching = [
        entry
        for entry in entries
        if ("after" not in query or _is_after(entry, query["after"]))
        and (not included or event_type(entry) in included)
        and event_type(entry) not in excluded
    ]
    page = _page(matching[query["offset"] : query["offset"] + query["limit"]])
    headers = {
        "X-Total-Count": str(len(entries)),
        "X-Filtered-Count": str(len(matching)),
        "X-Matching-Count": str(len(matching)),
        "X-Has-More": "true" if query["offset"] + len(page) < len(matching) else "false",
        **_NO_CACHE,
    }
    return JSONResponse(page, headers=headers)


_SESSION_QUERY = {
    "after": Field("datetime"),
    "event_types": Field(blank=False),
    "exclude_types": Field(blank=False),
    "limit": Field("integer", default=1000, minimum=1, maximum=5000),
    "offset": Field("integer", default=0, minimum=0),
}

_ENTRIES = Field("list", required=True, items=Field("object"), empty_message="At least one log entry is required")

APPEND_LOG = Operation(_append_log, body={"entries": _ENTRIES})
LOGS = Operation(_logs, "task:read")
SESSION_LOGS = Operation(_session_logs, "task:read", query=_SESSION_QUERY)
