"""Find the run of a start whose response does not name it, in a list of runs."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import anyio

from mcp_taskruns.core.calls.request import path_arguments
from mcp_taskruns.core.model.json_path import value_at, values_at
from mcp_taskruns.core.model.run import Lifecycle, RunFind
from mcp_taskruns.core.model.timestamps import parse_timestamp
from mcp_taskruns.core.runs.reading import Reading, parse_reading
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.progress import Notify
from mcp_taskruns.errors import CallError, ProviderError

DELAYS = (0.5, 1.0, 2.0, 4.0)
"""How long to sleep before each look at the list, in seconds: a new run may not be listed at once."""

CLOCK_SKEW = timedelta(seconds=2)
"""How much earlier than the start the provider's clock may date the run: many round to seconds."""


async def find_run(
    client: Client, lifecycle: Lifecycle, find: RunFind, arguments: Mapping[str, Any], since: datetime, notify: Notify
) -> Reading | None:
    """Return the newest run in the list since the start, or None if there is none.

    `arguments` are those of the start. A list that cannot be read has no runs: the run was started all the same.
    """
    try:
        call = await _arguments_of_list(client, find, arguments, notify)
        for delay in DELAYS:
            await anyio.sleep(delay)
            listed = await client.fetch(find.operation, call, notify=notify)
            found = _newest(lifecycle, find, listed.value, since - CLOCK_SKEW)
            if found is not None:
                return found
    except CallError as exc:
        await notify(f"the run could not be looked up: {exc.message}")
    return None


async def _arguments_of_list(
    client: Client, find: RunFind, arguments: Mapping[str, Any], notify: Notify
) -> dict[str, Any]:
    same = {name: value for name, path in find.same.items() if (value := value_at(arguments, path)) is not None}
    call = {**path_arguments(find.operation, arguments), **find.arguments, **same}
    if find.actor is not None:
        user = await client.fetch(find.actor.operation, {}, notify=notify)
        name = value_at(user.value, find.actor.name)
        if name is None:  # the list would have the runs of others
            raise ProviderError(f"the response of {find.actor.operation.name} does not name the user")
        call[find.actor.argument] = name
    return call


def _newest(lifecycle: Lifecycle, find: RunFind, value: Any, since: datetime) -> Reading | None:
    """Return the newest run in a list that was created since then."""
    newest: tuple[datetime, Any] | None = None
    for run in values_at(value, lifecycle.runs_in.get(find.operation.name, ())):
        created = parse_timestamp(value_at(run, find.created_at))
        if created is not None and created >= since and (newest is None or created > newest[0]):
            newest = created, run
    return None if newest is None else parse_reading(newest[1], lifecycle.fields, lifecycle.statuses, "")
