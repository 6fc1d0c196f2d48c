"""Read the status of runs with their provider's own operation."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import anyio

from mcp_taskruns.core.model.run import Lifecycle, RunStatus
from mcp_taskruns.core.runs.reading import Reading, runs_in_response
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.progress import Notify, ignore
from mcp_taskruns.engine.retries import MAX_RETRIES
from mcp_taskruns.errors import CallError, ProviderError

MAX_CONCURRENT_READS = 8
"""Runs that one call reads at a time: the others of the process need connections too."""

GONE = "the provider no longer knows this run: it was canceled or deleted"


async def read_run(
    client: Client,
    lifecycle: Lifecycle,
    arguments: Mapping[str, Any],
    run_id: str,
    *,
    was_known: bool = False,
    notify: Notify = ignore,
    max_retries: int = MAX_RETRIES,
) -> Reading:
    """Read one run; `arguments` are the other arguments of the provider's operation.

    If the provider forgets canceled runs, a run that `was_known` and is not found now counts as canceled. Raises
    CallError, also for a response without a run.
    """
    read = lifecycle.read
    try:
        result = await client.fetch(
            read.operation, {**arguments, read.run_id_argument: run_id}, notify=notify, max_retries=max_retries
        )
    except ProviderError as exc:
        if exc.kind == "not_found" and was_known and lifecycle.gone_after_cancel:
            return Reading(run_id, RunStatus.CANCELED, "", error=GONE)
        raise
    runs = runs_in_response(lifecycle, read.operation.name, result.value, run_id)
    if not runs:
        raise ProviderError(
            f"the response of {lifecycle.provider} contains no run status",
            hint=f"Call {read.tool} to see the response.",
            status=result.status,
        )
    return replace(runs[0], run_id=run_id)  # the caller's spelling: some providers ignore case


async def read_runs(
    client: Client,
    lifecycle: Lifecycle,
    arguments: Mapping[str, Any],
    run_ids: Iterable[str],
    *,
    were_known: bool = False,
) -> list[Reading]:
    """Read several runs at a time, each once: callers that poll have retries of their own.

    Raises the first CallError.
    """
    reads = _ConcurrentReads(client, lifecycle, arguments, were_known=were_known)
    return await reads.run(list(run_ids))


class _ConcurrentReads:
    """Reads runs concurrently, until the first failure."""

    def __init__(self, client: Client, lifecycle: Lifecycle, arguments: Mapping[str, Any], *, were_known: bool) -> None:
        self._client = client
        self._lifecycle = lifecycle
        self._arguments = arguments
        self._were_known = were_known
        self._slots = anyio.Semaphore(MAX_CONCURRENT_READS)
        self._tasks = anyio.create_task_group()
        self._readings: list[Reading] = []
        self._failures: list[tuple[str, CallError]] = []

    async def run(self, run_ids: list[str]) -> list[Reading]:
        async with self._tasks:
            for run_id in run_ids:
                self._tasks.start_soon(self._read, run_id)
        if self._failures:
            run_id, failure = self._failures[0]
            message = failure.message if len(run_ids) == 1 else f"{run_id}: {failure.message}"
            raise failure.replace(message=message) from failure.__cause__
        return self._readings

    async def _read(self, run_id: str) -> None:
        async with self._slots:
            try:
                reading = await read_run(
                    self._client, self._lifecycle, self._arguments, run_id, was_known=self._were_known, max_retries=0
                )
            except CallError as exc:
                self._failures.append((run_id, exc))
                self._tasks.cancel_scope.cancel()
            else:
                self._readings.append(reading)
