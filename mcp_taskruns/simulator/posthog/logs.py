"""How a run is watched: the log as JSON lines, the log filtered, and the stream of server-sent events."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from mcp_taskruns.simulator.posthog.data import Call, Operation, Run, StreamEntry, World, event_type
from mcp_taskruns.simulator.posthog.http import Field
from mcp_taskruns.simulator.posthog.storage import as_moment

# PostHog products/tasks/backend/api.py `stream` and stream/redis_stream.py.
KEEPALIVE_SECONDS = 20.0
WAIT_FOR_STREAM_SECONDS = 120.0

_NO_CACHE = {"Cache-Control": "no-cache"}
_TIMING = {"Server-Timing": "s3_append;dur=0.10"}


async def _append_log(world: World, call: Call) -> Response:
    """Adds to the log only: PostHog does not publish these entries on the stream."""
    world.append_log(call.run, call.body["entries"])
    return JSONResponse(world.detail(call.run, call.base), headers=_TIMING)


async def _logs(world: World, call: Call) -> Response:
    log = b"".join(world.storage.read(run.log_key) for run in world.resume_chain(call.run))
    return Response(log, headers={"Content-Type": "application/jsonl", **_NO_CACHE})


def _names(text: str | None) -> set[str]:
    return {name.strip() for name in (text or "").split(",") if name.strip()}


def _is_after(entry: Mapping[str, Any], moment: Any) -> bool:
    try:
        return bool(as_moment(entry["timestamp"]) > moment)
    except (KeyError, TypeError, ValueError):
        return False


async def _session_logs(world: World, call: Call) -> Response:
    """This run's own entries only; the totals stand in headers because the body is a bare array."""
    entries = [json.loads(line) for line in world.storage.read(call.run.log_key).splitlines()]
    query = call.query
    wanted, unwanted = _names(query.get("event_types")), _names(query.get("exclude_types"))
    matching = [
        entry
        for entry in entries
        if ("after" not in query or _is_after(entry, query["after"]))
        and (not wanted or event_type(entry) in wanted)
        and event_type(entry) not in unwanted
    ]
    page = matching[query["offset"] : query["offset"] + query["limit"]]
    headers = {
        "X-Total-Count": str(len(entries)),
        "X-Filtered-Count": str(len(matching)),
        "X-Matching-Count": str(len(matching)),
        "X-Has-More": "true" if query["offset"] + len(page) < len(matching) else "false",
        **_NO_CACHE,
    }
    return JSONResponse(page, headers=headers)


def _frame(data: Mapping[str, Any], *, event_id: tuple[int, int] | None = None, name: str | None = None) -> bytes:
    lines = [f"event: {name}"] if name else []
    if event_id:
        lines.append("id: {}-{}".format(*event_id))
    lines.append(f"data: {json.dumps(data)}")
    return ("\n".join(lines) + "\n\n").encode()


def _parse_id(text: str) -> tuple[int, int]:
    """Redis reads a missing sequence as 0; PostHog reads an id that is none as the beginning."""
    milliseconds, _, sequence = text.partition("-")
    try:
        return int(milliseconds), int(sequence or 0)
    except ValueError:
        return 0, 0


def _unread(run: Run, last: tuple[int, int]) -> list[StreamEntry]:
    first = len(run.stream)
    while first and run.stream[first - 1].id > last:
        first -= 1
    return run.stream[first:]


async def _events(
    world: World, run: Run, last: tuple[int, int] | None, *, from_latest: bool, is_cut: bool
) -> AsyncIterator[bytes]:
    """Entries after `last` as they come, keepalives while none do; ends without a word when the run has ended.

    `is_cut`: with an error in place of the first wait.
    """
    opened = idle_since = world.clock.now()
    while True:
        world.settle()
        if run.stream and last is None:
            last = run.stream[-1].id if from_latest else (0, 0)
            # Whoever asks for the latest of a stream that is complete would wait for ever.
            if from_latest and run.stream[-1].data is None:
                return
        unread = _unread(run, last) if last is not None else []
        for entry in unread:
            if entry.data is None:
                return
            last, idle_since = entry.id, world.clock.now()
            yield _frame(entry.data, event_id=entry.id)
        # Sending takes its time: look again before waiting for what may have come meanwhile.
        if unread:
            continue
        if is_cut:
            yield _frame({"error": "Connection lost to task run stream"}, name="error")
            return
        now = world.clock.now()
        if not run.stream and now >= opened + WAIT_FOR_STREAM_SECONDS:
            yield _frame({"error": "Stream not available"}, name="error")
            return
        if now >= idle_since + KEEPALIVE_SECONDS:
            idle_since = now
            yield _frame({"type": "keepalive"}, name="keepalive")
            continue
        await world.change.wait(world.clock, _next_look(run, opened, idle_since))


def _next_look(run: Run, opened: float, idle_since: float) -> float:
    moments = [idle_since + KEEPALIVE_SECONDS]
    if run.script:
        moments.append(run.script[0].at)
    if not run.stream:
        moments.append(opened + WAIT_FOR_STREAM_SECONDS)
    return min(moments)


async def _stream(world: World, call: Call) -> Response:
    last_id = call.request.headers.get("last-event-id")
    from_latest = not last_id and call.request.query_params.get("start") == "latest"
    last = _parse_id(last_id) if last_id else None
    events = _events(world, call.run, last, from_latest=from_latest, is_cut=call.key.is_in_outage)
    headers = {**_NO_CACHE, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, headers=headers)


_SESSION_QUERY = {
    "after": Field("datetime"),
    "event_types": Field(blank=False),
    "exclude_types": Field(blank=False),
    "limit": Field("integer", default=1000, minimum=1, maximum=5000),
    "offset": Field("integer", default=0, minimum=0),
}

_ENTRIES = Field("list", required=True, items=Field("object"), empty="At least one log entry is required")

APPEND_LOG = Operation(_append_log, body={"entries": _ENTRIES})
LOGS = Operation(_logs, "task:read")
SESSION_LOGS = Operation(_session_logs, "task:read", query=_SESSION_QUERY)
STREAM = Operation(_stream, "task:read")
