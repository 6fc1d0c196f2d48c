"""Reading where runs stand, by their provider's own operation."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import anyio

from mcp_taskruns.core.model.run import Lifecycle, RunStatus
from mcp_taskruns.core.runs.reading import Reading, runs_in_response
from mcp_taskruns.engine.client import MAX_RETRIES, Exchange
from mcp_taskruns.engine.rate_limits import Tell, silent
from mcp_taskruns.errors import CallError, ProviderError

MAX_AT_ONCE = 8
"""How many runs are read side by side: the other calls need connections too."""

GONE = "the provider does not know this run any more: it was cancelled or deleted"


async def read_run(
    exchange: Exchange,
    lifecycle: Lifecycle,
    arguments: Mapping[str, Any],
    run_id: str,
    *,
    was_known: bool = False,
    tell: Tell = silent,
    max_retries: int = MAX_RETRIES,
) -> Reading:
    """The run as its provider tells it now.

    `arguments` hold what else the operation takes. Of a run that `was_known` and is not found any more the provider
    may have forgotten that it was cancelled. Raises CallError, also when the answer tells no run.
    """
    read = lifecycle.read
    try:
        outcome = await exchange.fetch(
            read.operation, {**arguments, read.run_id_argument: run_id}, tell=tell, max_retries=max_retries
        )
    except ProviderError as exc:
        if exc.kind == "not_found" and was_known and lifecycle.gone_after_cancel:
            return Reading(run_id, RunStatus.CANCELED, "not found", error=GONE)
        raise
    found = runs_in_response(lifecycle, read.operation.name, outcome.value, run_id)
    if not found:
        raise ProviderError(
            f"the answer of {lifecycle.provider} tells no run's state",
            hint=f"Call {read.tool} to see it.",
            status=outcome.status,
        )
    return replace(found[0], run_id=run_id)  # as it was asked for: upper case or lower, it is the same run


async def read_runs(
    exchange: Exchange,
    lifecycle: Lifecycle,
    arguments: Mapping[str, Any],
    run_ids: Iterable[str],
    *,
    were_known: bool = False,
) -> list[Reading]:
    """Several runs at once. Raises the first CallError: who reads again and again tries again by that."""
    readings: list[Reading] = []
    failures: list[CallError] = []
    places = anyio.Semaphore(MAX_AT_ONCE)

    async def read(run_id: str) -> None:
        async with places:
            try:
                readings.append(
                    await read_run(exchange, lifecycle, arguments, run_id, was_known=were_known, max_retries=0)
                )
            except CallError as exc:
                if len(asked) > 1:
                    exc.message = f"{run_id}: {exc.message}"
                failures.append(exc)
                tasks.cancel_scope.cancel()

    asked = list(run_ids)
    async with anyio.create_task_group() as tasks:
        for run_id in asked:
            tasks.start_soon(read, run_id)
    if failures:
        raise failures[0]
    return readings
