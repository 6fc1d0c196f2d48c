"""Start a run once, whatever number of requests that takes, and wait for its terminal status if asked to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from mcp_taskruns.core.calls.errors import HINT_BY_KIND, REPEAT_HINT
from mcp_taskruns.core.calls.request import path_arguments
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.truncation import quote_name
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import format_path, matches, set_at, value_at
from mcp_taskruns.core.model.operation import Operation
from mcp_taskruns.core.model.run import Lifecycle, RunStart, RunStatus
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.core.runs.reading import Reading, describe_run, id_text, runs_in_response
from mcp_taskruns.core.runs.results import status_line
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.progress import ProgressReporter, Report, reporting
from mcp_taskruns.engine.retries import Key
from mcp_taskruns.engine.runs.details import result_with_text_ids
from mcp_taskruns.engine.runs.find import find_run
from mcp_taskruns.engine.runs.start_keys import Stage, StartCall
from mcp_taskruns.engine.runs.wait import reporting_wait, wait_for_started_run
from mcp_taskruns.errors import CallError

REUSED = (
    "An identical call, whose result had not reached the client, has sent this idempotency key before: this is its "
    "run, and no second one was started. To start another, pass another {argument}."
)

EXISTED = "A run with this id exists, so no second one was started: this is the run."

_GENERAL_HINTS = frozenset(
    {REPEAT_HINT, HINT_BY_KIND["unavailable"], HINT_BY_KIND["timeout"], HINT_BY_KIND["conflict"]}
)
"""Hints that a hint about the idempotency key replaces."""


@dataclass(frozen=True)
class Started:
    """A started run: the provider's response, the run's readings in it, and the call."""

    result: CallResult
    run_id: str
    readings: list[Reading]
    call: StartCall
    is_started: bool = True
    """Whether it begins without another call."""

    @property
    def key(self) -> str | None:
        """The idempotency key of the call."""
        return self.call.key or None

    @property
    def reading(self) -> Reading | None:
        """The run as the response shows it."""
        return next((reading for reading in self.readings if reading.run_id == self.run_id), None)

    @property
    def notes(self) -> Iterator[str]:
        """Sentences about the idempotency key."""
        if self.call.key:
            yield f'Idempotency key: "{self.call.key}". Repeating the call with it starts no second run.'
        if self.call.is_reused:
            yield REUSED.format(argument=format_path(self.call.key_path))


async def start_run(
    client: Client,
    tool: Tool,
    call: StartCall,
    arguments: Mapping[str, Any],
    report: Report,
    *,
    seconds: float | None,
) -> CallResult:
    """Call a tool that creates or starts a run; with `seconds`, wait for a terminal status for at most so long.

    Raises CallError when the run was not started. A failure after that is part of the result.
    """
    lifecycle = call.lifecycle
    progress = reporting(report) if seconds is None else reporting_wait(report, lifecycle, seconds)
    async with progress as reporter:
        started = await launch(client, tool, call, arguments, reporter, is_complete=seconds is not None)
        if seconds is None:
            return with_notes(started)
        if not started.run_id:
            return with_notes(started, "The response does not name the run, so there was nothing to wait for.")
        reading = started.reading
        waited = await wait_for_started_run(
            client,
            lifecycle,
            path_arguments(lifecycle.read.operation, arguments),
            started.run_id,
            reporter,
            seconds=seconds,
            known=[reading] if reading and not reading.status.is_terminal else [],  # the response has no results
            is_started=started.is_started,
        )
    value = waited.value | ({"idempotency_key": started.key} if started.key else {})
    if call.is_reused:
        value["note"] = REUSED.format(argument=format_path(call.key_path))
    return replace(waited, text=dump(value), value=value)


async def launch(
    client: Client,
    tool: Tool,
    call: StartCall,
    arguments: Mapping[str, Any],
    reporter: ProgressReporter,
    *,
    is_complete: bool,
) -> Started:
    """Call a tool that creates or starts a run. Raises CallError.

    `is_complete`: also start a run that was only created, and report the run's id at once.
    """
    lifecycle = call.lifecycle
    start = lifecycle.starts[tool.operation.name]
    if call.key:
        arguments = set_at(arguments, call.key_path, call.key)
    sent_at = datetime.now(UTC)
    operation, result = await _send(client, tool, call, start, arguments, reporter)
    result = result_with_text_ids(lifecycle, operation.name, result)
    readings = runs_in_response(lifecycle, operation.name, result.value)
    run_id = arguments.get(lifecycle.read.run_id_argument) or (readings[0].run_id if readings else "")
    run_id = run_id or id_text(value_at(result.value, start.run_id))
    if not run_id and start.find is not None:
        found = await find_run(client, lifecycle, start.find, arguments, sent_at, reporter.note)
        readings, run_id = ([found], found.run_id) if found else ([], "")
    # A call that names a run starts that run, even if the response shows others.
    readings = [reading for reading in readings if reading.run_id.lower() == run_id.lower()]
    started = Started(result, run_id, readings, call)
    call.run_id = run_id
    if run_id:
        is_new = start.key_is_run_id or lifecycle.read.run_id_argument not in arguments
        client.recent_starts.add(lifecycle.provider, run_id, is_new=is_new)
    if is_complete and run_id:
        call.stage = Stage.CREATED if start.then else Stage.STARTED
        has_status = started.reading is not None and started.reading.status is not RunStatus.NOT_STARTED
        run = describe_run(started.reading) if started.reading and has_status else quote_name(run_id)
        await reporter.report(f"started {run}")
        is_started = await _start_created_run(client, call, start, arguments, result.value, reporter)
        started = replace(started, is_started=is_started)
        call.stage = Stage.STARTED
    return started


def with_notes(started: Started, *more: str) -> CallResult:
    """Return the provider's response with notes about the run's status and the idempotency key."""
    notes = [status_line(started.readings), *started.result.notes, *more, *started.notes]
    return replace(started.result, notes=tuple(note for note in notes if note))


async def _send(
    client: Client,
    tool: Tool,
    call: StartCall,
    start: RunStart,
    arguments: Mapping[str, Any],
    reporter: ProgressReporter,
) -> tuple[Operation, CallResult]:
    """Send the call; return the operation that the provider carried out, and its response.

    With an idempotency key the call is safe to retry: the provider starts one run. After an attempt that may have
    arrived, every error has the key and states that the run may exist.
    """
    call.stage = Stage.SENT
    operation = tool.operation
    # A conflict about the run's own id does not pass: it is no sign of an attempt that is still in progress.
    key = Key.NONE if start.key_is_run_id else call.key_use
    is_repeatable = True if start.key_is_run_id and call.key else None
    try:
        return operation, await client.fetch(
            operation, arguments, notify=reporter.note, key=key, safe_to_retry=is_repeatable
        )
    except CallError as exc:
        if start.key_is_run_id and call.key and exc.kind == "conflict":
            existing = await _read_existing(client, call.lifecycle, arguments, call.key)
            if existing is not None:
                return call.lifecycle.read.operation, existing.with_notes(EXISTED)
        is_unknown = exc.outcome_unknown or call.key_use is Key.TRIED
        if not call.key or not (is_unknown or exc.retryable):
            raise
        hint = call.unknown_hint() if is_unknown else call.key_hint()
        if exc.hint not in _GENERAL_HINTS:
            hint = f"{exc.hint} {hint}"
        raise exc.replace(hint=hint, outcome_unknown=is_unknown) from exc.__cause__


async def _read_existing(
    client: Client, lifecycle: Lifecycle, arguments: Mapping[str, Any], run_id: str
) -> CallResult | None:
    """Return the response to reading a run that may exist; None if it does not, or cannot be read."""
    read = lifecycle.read
    call = {**path_arguments(read.operation, arguments), read.run_id_argument: run_id}
    try:
        return await client.fetch(read.operation, call)
    except CallError:
        return None


async def _start_created_run(
    client: Client,
    call: StartCall,
    start: RunStart,
    arguments: Mapping[str, Any],
    created: Any,
    reporter: ProgressReporter,
) -> bool:
    """Start a run that the provider has only created, if a call can; return whether the run is started now."""
    then = start.then
    if then is None:
        return True
    if not matches(created, start.then_when):
        return False
    try:
        call_arguments = {**path_arguments(then.operation, arguments), then.run_id_argument: call.run_id}
        await client.fetch(then.operation, call_arguments, notify=reporter.note)
    except CallError as exc:
        # Repeating the call would create another run, whatever the reason.
        outcome, fix = "but not started", f"Fix the reason, then call {then.tool} for this run."
        if exc.outcome_unknown:
            outcome = "and may have been started"
            fix = f"Call {call.lifecycle.read.tool} for this run; if it was not started, call {then.tool} for it."
        raise CallError(
            f"run {quote_name(call.run_id)} was created, {outcome}: {exc.message}",
            kind=exc.kind,
            status=exc.status,
            hint=f"Do not create another run. {fix}",
            outcome_unknown=exc.outcome_unknown,
        ) from exc
    return True
