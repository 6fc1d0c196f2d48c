"""Render's event stream of task runs."""

import json
from collections.abc import AsyncIterator, Mapping

import anyio

from mcp_taskruns.simulator.http import Json
from mcp_taskruns.simulator.lifecycle import Change, Clock
from mcp_taskruns.simulator.render.runs import Run

HEARTBEAT = 25.0
# "The server automatically closes the stream [when] the stream has not sent any events for 30 minutes."
IDLE_LIMIT = 30 * 60.0


def _frame(details: Json) -> str:
    # Render sends "task.completed" for every status, and always the same id: a stream cannot be resumed.
    return f"id: 0\nevent: task.completed\ndata: {json.dumps(details, separators=(',', ':'))}\n\n"


async def event_stream(
    runs: Mapping[str, Run], run_ids: list[str], clock: Clock, change: Change, *, closes: bool, reports_attempts: bool
) -> AsyncIterator[str]:
    """Yield one event for each run with a terminal status, including earlier ones, except canceled runs.

    A stream opened for a canceled run therefore ends without an event, which the SDK reports as "Task run completed
    with no event". The official local server never closes a stream; with `closes=False` this one does not either.

    The local server also reports each failed attempt of a run that goes on: an event with the status `failed`, although
    a GET a moment later returns `pending`. With `reports_attempts` this one does, too. Like the local server it does
    not repeat such an event on a later connection.
    """
    last_event = now = clock.now()
    next_ping = now + HEARTBEAT
    waiting = [run_id for run_id in run_ids if runs[run_id].step(now).status != "canceled"]
    reported = {run_id: len(runs[run_id].failed_attempts(now)) for run_id in waiting}
    yield "retry: 2000\n\n"
    while waiting:
        # Read the clock and the runs again after every frame: both can change while the client receives one.
        now = clock.now()
        retried = [run_id for run_id in waiting if len(runs[run_id].failed_attempts(now)) > reported[run_id]]
        terminal = next((run_id for run_id in waiting if runs[run_id].step(now).is_terminal), None)
        if retried and reports_attempts:
            last_event = now
            run = runs[retried[0]]
            failure = run.failed_attempts(now)[reported[run.id]]
            reported[run.id] += 1
            yield _frame(run.details_at_failure(clock, failure))
        elif terminal:
            waiting.remove(terminal)
            last_event = now
            yield _frame(runs[terminal].details(clock, now))
        elif now >= last_event + IDLE_LIMIT:
            break
        elif now >= next_ping:
            next_ping = now + HEARTBEAT
            yield ": ping\n\n"
        else:
            changes = (runs[run_id].next_change(now) for run_id in waiting)
            wake = min([next_ping, last_event + IDLE_LIMIT, *(at for at in changes if at is not None)])
            await change.wait(clock, wake)
    if not closes:
        await anyio.sleep_forever()
