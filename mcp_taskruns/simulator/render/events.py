"""Render's event stream of task runs."""

import json
from collections.abc import AsyncIterator, Mapping

import anyio

from mcp_taskruns.simulator.lifecycle import Change, Clock
from mcp_taskruns.simulator.render.runs import Run

HEARTBEAT = 25.0
# "The server automatically closes the stream [when] the stream has not sent any events for 30 minutes."
IDLE_LIMIT = 30 * 60.0


async def event_stream(
    runs: Mapping[str, Run], run_ids: list[str], clock: Clock, change: Change, *, closes: bool
) -> AsyncIterator[str]:
    """Yield one event for each run with a terminal status, including earlier ones, except canceled runs.

    A stream opened for a canceled run therefore ends without an event, which the SDK reports as "Task run completed
    with no event". The official local server never closes a stream; with `closes=False` this one does not either.
    """
    last_event = now = clock.now()
    next_ping = now + HEARTBEAT
    waiting = [run_id for run_id in run_ids if runs[run_id].step(now).status != "canceled"]
    yield "retry: 2000\n\n"
    while waiting:
        # Read the clock and the runs again after every frame: both can change while the client receives one.
        now = clock.now()
        terminal = next((run_id for run_id in waiting if runs[run_id].step(now).is_terminal), None)
        if terminal:
            waiting.remove(terminal)
            last_event = now
            data = json.dumps(runs[terminal].details(clock, now), separators=(",", ":"))
            # Render sends "task.completed" for every status, and always the same id: a stream cannot be resumed.
            yield f"id: 0\nevent: task.completed\ndata: {data}\n\n"
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
