"""Read the status of runs with their provider's own operation."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeGuard

import anyio

from mcp_taskruns.core.model.json_path import value_at
from mcp_taskruns.core.model.run import Lifecycle, RunStatus
from mcp_taskruns.core.runs.reading import Reading, runs_in_response
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.progress import Notify, ignore
from mcp_taskruns.engine.recent_starts import HINT
from mcp_taskruns.engine.retries import MAX_RETRIES
from mcp_taskruns.engine.runs.details import fetch_result
from mcp_taskruns.errors import CallError, Kind, NotVisibleYet, ProviderError

MAX_CONCURRENT_READS = 8
"""Runs that one call reads at a time: the others of the process need connections too."""

GONE = "the provider no longer knows this run: it was canceled or deleted"

GONE_READS = 2
"""Reads in a row that have to find a run missing before it counts as gone, if no request of ours explains it."""

GONE_SECONDS = 3.0
"""The time between these reads."""

BLOCKING: frozenset[Kind] = frozenset({"auth", "config"})
"""Kinds of failures that concern every run of a provider, as far as is known."""

FORBIDDEN = 403
"""The status code for a credential that may be wrong, or may lack a permission for one run."""


async def read_run(
    client: Client,
    lifecycle: Lifecycle,
    arguments: Mapping[str, Any],
    run_id: str,
    *,
    gone_after: int = 0,
    notify: Notify = ignore,
    max_retries: int = MAX_RETRIES,
) -> Reading:
    """Read one run; `arguments` are the other arguments of the provider's operation.

    If the provider forgets canceled runs, a run that `gone_after` reads in a row do not find counts as canceled; 0: it
    never does. Raises CallError, also for a response without a run; NotVisibleYet if this process started the run a
    moment ago.
    """
    read = _Read(client, lifecycle, arguments, run_id, notify, max_retries)
    try:
        reading = await read.send()
    except ProviderError as exc:
        if exc.kind != "not_found" or exc.is_foreign:
            raise
        explained = explain_missing(client, lifecycle, run_id, exc)
        if explained is not exc:
            raise explained from exc
        if not (gone_after and lifecycle.gone_after_cancel):
            raise
        return await read.confirm_gone(gone_after - 1)
    client.recent_starts.check(lifecycle.provider, reading)
    return reading


def explain_missing(client: Client, lifecycle: Lifecycle, run_id: str, failure: CallError) -> CallError:
    """Return NotVisibleYet for a run that is not found although this process has just started it, else the failure."""
    if failure.kind != "not_found" or not client.recent_starts.is_recent(lifecycle.provider, run_id):
        return failure
    return NotVisibleYet(failure.message, kind=failure.kind, status=failure.status, hint=HINT, retryable=True)


async def fetch_run(
    client: Client, lifecycle: Lifecycle, arguments: Mapping[str, Any], run_id: str, *, notify: Notify = ignore
) -> tuple[Any, Reading]:
    """Return a run as the provider reports it, and what it shows. Raises CallError, as `read_run` does."""
    return await _Read(client, lifecycle, arguments, run_id, notify, MAX_RETRIES).fetch()


class _Read:
    """A read of one run, that can be sent more than once."""

    def __init__(
        self,
        client: Client,
        lifecycle: Lifecycle,
        arguments: Mapping[str, Any],
        run_id: str,
        notify: Notify,
        max_retries: int,
    ) -> None:
        self._client = client
        self._lifecycle = lifecycle
        self._arguments = {**arguments, lifecycle.read.run_id_argument: run_id}
        self._run_id = run_id
        self._notify = notify
        self._max_retries = max_retries

    async def send(self) -> Reading:
        """Return the run, with its result from the operation that has it."""
        run, reading = await self.fetch()
        found, note = await fetch_result(self._client, self._lifecycle, self._arguments, run)
        return replace(reading, result=reading.result if found is None else found, note=note)

    async def fetch(self) -> tuple[Any, Reading]:
        """Return the run as the response has it, and the reading of it."""
        lifecycle, read = self._lifecycle, self._lifecycle.read
        result = await self._client.fetch(
            read.operation, self._arguments, notify=self._notify, max_retries=self._max_retries
        )
        runs = await self._client.worker.run(
            len(result.text), runs_in_response, lifecycle, read.operation.name, result.value, self._run_id
        )
        if not runs:
            raise ProviderError(
                f"the response of {lifecycle.provider} contains no run status",
                hint=f"Call {read.tool} to see the response.",
                status=result.status,
            )
        reading = replace(runs[0], run_id=self._run_id)  # the caller's spelling: some providers ignore case
        return value_at(result.value, lifecycle.runs_in[read.operation.name]), reading

    async def confirm_gone(self, reads: int) -> Reading:
        """Read a run that was not found so many times more: one such response may come from a replica or a proxy."""
        for _ in range(reads):
            await anyio.sleep(GONE_SECONDS)
            try:
                return await self.send()
            except ProviderError as exc:
                if exc.kind != "not_found" or exc.is_foreign:
                    raise
        return Reading(self._run_id, RunStatus.CANCELED, "", error=GONE)


async def read_runs(
    client: Client,
    lifecycle: Lifecycle,
    arguments: Mapping[str, Any],
    run_ids: Iterable[str],
    *,
    known: Container[str] = (),
    notify: Notify = ignore,
) -> dict[str, Reading | CallError]:
    """Read several runs at a time, each once: callers that poll have retries of their own.

    Returns the reading of each run, or why it could not be read. `known` are the runs that could be read before. Raises
    a CallError that concerns all runs, such as that of a wrong credential; a 403 only if no run can be read.
    """
    reads = _ConcurrentReads(client, lifecycle, arguments, known, notify)
    return await reads.run(list(run_ids))


class _ConcurrentReads:
    """Reads runs concurrently, until a failure that concerns them all."""

    def __init__(
        self,
        client: Client,
        lifecycle: Lifecycle,
        arguments: Mapping[str, Any],
        known: Container[str],
        notify: Notify,
    ) -> None:
        self._client = client
        self._lifecycle = lifecycle
        self._arguments = arguments
        self._known = known
        self._notify = notify
        self._slots = anyio.Semaphore(MAX_CONCURRENT_READS)
        self._tasks = anyio.create_task_group()
        self._outcomes: dict[str, Reading | CallError] = {}

    async def run(self, run_ids: list[str]) -> dict[str, Reading | CallError]:
        async with self._tasks:
            for run_id in run_ids:
                self._tasks.start_soon(self._read, run_id)
        was_any_read = any(isinstance(outcome, Reading) for outcome in self._outcomes.values())
        for run_id, outcome in self._outcomes.items():
            if self._is_blocking(outcome, run_id) and not (was_any_read and outcome.status == FORBIDDEN):
                raise outcome
        return self._outcomes

    def _is_blocking(self, outcome: Reading | CallError, run_id: str) -> TypeGuard[CallError]:
        """Whether the outcome is a failure that concerns all runs. The address is right if a run was read before."""
        if not isinstance(outcome, CallError):
            return False
        return outcome.kind in BLOCKING and not (outcome.kind == "config" and run_id in self._known)

    async def _read(self, run_id: str) -> None:
        async with self._slots:
            try:
                self._outcomes[run_id] = await read_run(
                    self._client,
                    self._lifecycle,
                    self._arguments,
                    run_id,
                    gone_after=GONE_READS if run_id in self._known else 0,
                    notify=self._notify,
                    max_retries=0,
                )
            except CallError as exc:
                self._outcomes[run_id] = exc
                if self._is_blocking(exc, run_id) and exc.status != FORBIDDEN:
                    self._tasks.cancel_scope.cancel()
