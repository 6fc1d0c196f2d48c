"""Start a run once, whatever number of requests that takes, and wait for its terminal status if asked to."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import anyio

from mcp_taskruns.core.calls.request import path_arguments
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.truncation import quote_name
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import matches, set_at, value_at
from mcp_taskruns.core.model.run import Lifecycle, RunStart, RunStatus
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.core.runs.reading import Reading, describe_run, runs_in_response
from mcp_taskruns.core.runs.results import status_line, wait_result
from mcp_taskruns.core.runs.watch import Watch
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.progress import ProgressReporter, Report, reporting
from mcp_taskruns.engine.runs.wait import reporting_wait, wait_for_runs
from mcp_taskruns.errors import CallError


@dataclass(frozen=True)
class Started:
    """A started run: the provider's response, the run's readings in it, and the idempotency key of the call."""

    result: CallResult
    run_id: str
    readings: list[Reading]
    key: str | None
    is_started: bool = True
    """Whether it begins without another call."""

    @property
    def reading(self) -> Reading | None:
        """The run as the response shows it."""
        return next((reading for reading in self.readings if reading.run_id == self.run_id), None)


async def start_run(
    client: Client,
    tool: Tool,
    lifecycle: Lifecycle,
    arguments: Mapping[str, Any],
    report: Report,
    *,
    seconds: float | None,
) -> CallResult:
    """Call a tool that creates or starts a run; with `seconds`, wait for a terminal status for at most so long.

    Raises CallError when the run was not started. A failure after that is part of the result.
    """
    progress = reporting(report) if seconds is None else reporting_wait(report, lifecycle, seconds)
    async with progress as reporter:
        started = await launch(client, tool, lifecycle, arguments, reporter, is_complete=seconds is not None)
        if seconds is None:
            return with_notes(started)
        if not started.run_id:
            return with_notes(started, "The response does not name the run, so there was nothing to wait for.")
        waited = await _wait(client, lifecycle, arguments, started, reporter, seconds)
    value = waited.value | ({"idempotency_key": started.key} if started.key else {})
    return replace(waited, text=dump(value), value=value)


async def launch(
    client: Client,
    tool: Tool,
    lifecycle: Lifecycle,
    arguments: Mapping[str, Any],
    reporter: ProgressReporter,
    *,
    is_complete: bool,
) -> Started:
    """Call a tool that creates or starts a run. Raises CallError.

    `is_complete`: also start a run that was only created, and report the run's id at once. Where the provider supports
    idempotency keys, a call without one gets one.
    """
    start = lifecycle.starts[tool.operation.name]
    if start.idempotency_key_argument is not None and not value_at(arguments, start.idempotency_key_argument):
        arguments = set_at(arguments, start.idempotency_key_argument, f"mcp-{uuid4()}")
    result = await _send(client, tool, arguments, start, reporter)
    readings = runs_in_response(lifecycle, tool.operation.name, result.value)
    run_id = arguments.get(lifecycle.read.run_id_argument) or (readings[0].run_id if readings else "")
    # A call that names a run starts that run, even if the response shows others.
    readings = [reading for reading in readings if reading.run_id.lower() == run_id.lower()]
    started = Started(result, run_id, readings, value_at(arguments, start.idempotency_key_argument))
    if run_id:
        is_new = lifecycle.read.run_id_argument not in arguments
        client.recent_starts.add(lifecycle.provider, run_id, is_new=is_new)
    if is_complete and started.run_id:
        has_status = started.reading is not None and started.reading.status is not RunStatus.NOT_STARTED
        run = describe_run(started.reading) if started.reading and has_status else started.run_id
        await reporter.report(f"started {run}")
        is_started = await _start_created_run(client, start, arguments, result.value, started.run_id, reporter)
        started = replace(started, is_started=is_started)
    return started


def with_notes(started: Started, *more: str) -> CallResult:
    """Return the provider's response with notes about the run's status and the idempotency key."""
    notes = [status_line(started.readings), *started.result.notes, *more]
    if started.key is not None:
        notes.append(f'Idempotency key: "{started.key}". Repeating the call with it starts no second run.')
    return replace(started.result, notes=tuple(note for note in notes if note))


async def _send(
    client: Client, tool: Tool, arguments: Mapping[str, Any], start: RunStart, reporter: ProgressReporter
) -> CallResult:
    """Send the call. With an idempotency key it is safe to retry: the provider starts one run."""
    if start.idempotency_key_argument is None:
        return await client.fetch(tool.operation, arguments, notify=reporter.note)
    try:
        return await client.fetch(tool.operation, arguments, notify=reporter.note, safe_to_retry=True)
    except CallError as exc:
        if not exc.retryable:
            raise
        key = f"{'.'.join(start.idempotency_key_argument)} {dump(value_at(arguments, start.idempotency_key_argument))}"
        unsent = f"{exc.hint} " if exc.hint.startswith("Nothing was sent") else ""
        hint = f"{unsent}To try again, pass {key}: with this key no second run is started."
        raise exc.replace(hint=hint) from exc.__cause__


async def _start_created_run(
    client: Client,
    start: RunStart,
    arguments: Mapping[str, Any],
    created: Any,
    run_id: str,
    reporter: ProgressReporter,
) -> bool:
    """Start a run that the provider has only created, if a call can; return whether the run is started now."""
    then = start.then
    if then is None:
        return True
    if not matches(created, start.then_when):
        return False
    try:
        call_arguments = {**path_arguments(then.operation, arguments), then.run_id_argument: run_id}
        await client.fetch(then.operation, call_arguments, notify=reporter.note)
    except CallError as exc:
        # Repeating the call would create another run, whatever the reason.
        raise CallError(
            f"run {quote_name(run_id)} was created, but not started: {exc.message}",
            kind=exc.kind,
            status=exc.status,
            hint=f"Do not create another run. Fix the reason, then call {then.tool} for this run.",
        ) from exc
    return True


async def _wait(
    client: Client,
    lifecycle: Lifecycle,
    arguments: Mapping[str, Any],
    started: Started,
    reporter: ProgressReporter,
    seconds: float,
) -> CallResult:
    run_id, reading = started.run_id, started.reading
    known = [reading] if reading and not reading.status.is_terminal else []  # the response has no results
    started_at = anyio.current_time()
    others = path_arguments(lifecycle.read.operation, arguments)
    try:
        return await wait_for_runs(
            client,
            lifecycle,
            others,
            [run_id],
            reporter,
            seconds=seconds,
            known=known,
            is_started=started.is_started,
        )
    except CallError as exc:
        # The run was started, so this is not an error of the call, although nothing is known about the run.
        watch = Watch([run_id])
        watch.fail(run_id, exc, is_final=True)
        elapsed = anyio.current_time() - started_at
        return CallResult.from_value(wait_result(lifecycle, watch, elapsed_s=elapsed, polls=0))
