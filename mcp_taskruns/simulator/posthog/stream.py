"""The stream of a run's server-sent events."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.responses import Response, StreamingResponse

from mcp_taskruns.simulator.posthog.data import Run, StreamEntry, state_event
from mcp_taskruns.simulator.posthog.operations import Call, Operation
from mcp_taskruns.simulator.posthog.project import Project

# PostHog products/tasks/backend/presentation/views/api.py `stream` and stream/redis_stream.py.
KEEPALIVE_SECONDS = 20.0
# After that a connection is closed with the event `end`, although the run goes on.
CONNECTION_SECONDS = 15 * 60.0
WAIT_FOR_STREAM_SECONDS = 120.0


def _rotated() -> bytes:
    return _frame({"type": "rotated"}, name="end")


def _end(project: Project) -> bytes:
    """Return what marks the end of the stream of a run that has ended."""
    return _frame({"status": "complete"}, name="stream-end") if project.marks_stream_ends else b""


def _frame(data: Mapping[str, Any], *, event_id: tuple[int, int] | None = None, name: str | None = None) -> bytes:
    lines = [f"event: {name}"] if name else []
    if event_id:
        lines.append("id: {}-{}".format(*event_id))
    lines.append(f"data: {json.dumps(data)}")
    return ("\n".join(lines) + "\n\n").encode()


def _parse_id(text: str) -> tuple[int, int]:
    """Parse an event id. Redis reads a missing sequence number as 0; PostHog reads an invalid id as the beginning."""
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
    project: Project, run: Run, last: tuple[int, int] | None, *, from_latest: bool, loses_connection: bool
) -> AsyncIterator[bytes]:
    """Yield the entries after `last`, and keepalives while there are none.

    Closes with `stream-end` after the terminal status, and with `end` after 15 minutes.

    With `loses_connection` the stream sends an error event instead of waiting for the first time.
    """
    opened = idle_since = project.clock.now()
    while True:
        project.run_scripts()
        if run.is_terminal and not run.stream:
            # Redis no longer has the stream.
            yield _frame(state_event(run))
            yield _end(project)
            return
        if run.stream and last is None:
            last = run.stream[-1].id if from_latest else (0, 0)
            # Nothing follows the latest entry of a complete stream.
            if from_latest and run.stream[-1].data is None:
                yield _end(project)
                return
        unread = _unread(run, last) if last is not None else []
        for entry in unread:
            if entry.data is None:
                yield _end(project)
                return
            last, idle_since = entry.id, project.clock.now()
            yield _frame(entry.data, event_id=entry.id)
        # Entries may have been added while these were sent, so check again before waiting.
        if unread:
            continue
        if loses_connection:
            yield _frame({"error": "Connection lost to task run stream"}, name="error")
            return
        now = project.clock.now()
        if now >= opened + CONNECTION_SECONDS:
            yield _rotated()
            return
        if not run.stream and now >= opened + WAIT_FOR_STREAM_SECONDS:
            yield _frame({"error": "Stream not available"}, name="error")
            return
        if now >= idle_since + KEEPALIVE_SECONDS:
            idle_since = now
            yield _frame({"type": "keepalive"}, name="keepalive")
            continue
        await project.change.wait(project.clock, _next_check(run, opened, idle_since))


def _next_check(run: Run, opened: float, idle_since: float) -> float:
    times = [idle_since + KEEPALIVE_SECONDS, opened + CONNECTION_SECONDS]
    if run.script:
        times.append(run.script[0].at)
    if not run.stream:
        times.append(opened + WAIT_FOR_STREAM_SECONDS)
    return min(times)


async def _stream(project: Project, call: Call) -> Response:
    if call.run.is_terminal and call.run.has_no_stream:
        return Response(status_code=204)
    last_id = call.request.headers.get("last-event-id")
    from_latest = not last_id and call.request.query_params.get("start") == "latest"
    last = _parse_id(last_id) if last_id else None
    events = _events(project, call.run, last, from_latest=from_latest, loses_connection=call.key.is_in_outage)
    headers = {"Cache-Control": "no-cache", "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, headers=headers)


STREAM = Operation(_stream, "task:read")
