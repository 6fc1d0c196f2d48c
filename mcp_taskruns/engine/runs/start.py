"""Starting a run: once, however often the provider has to be asked; and waiting for its end where that is wanted."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import anyio

from mcp_taskruns.core.calls.request import path_arguments
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import matches, set_at, value_at
from mcp_taskruns.core.model.run import Lifecycle, RunStart
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.core.runs.messages import status_line, wait_result
from mcp_taskruns.core.runs.reading import Reading, describe_run, runs_in_response
from mcp_taskruns.core.runs.watch import Watch
from mcp_taskruns.engine.client import Exchange
from mcp_taskruns.engine.progress import Report, Reporter, reporting
from mcp_taskruns.engine.runs.wait import total_of, wait_for_runs
from mcp_taskruns.errors import CallError


@dataclass(frozen=True)
class Started:
    """A run that was started: the provider's answer and the runs in it, this one among them or not; the call's key."""

    outcome: CallResult
    run_id: str
    found: list[Reading]
    key: str | None

    @property
    def reading(self) -> Reading | None:
        """The run as far as the answer tells it."""
        return next((reading for reading in self.found if reading.run_id == self.run_id), None)


async def start_run(
    exchange: Exchange,
    tool: Tool,
    lifecycle: Lifecycle,
    arguments: Mapping[str, Any],
    report: Report,
    *,
    seconds: float | None,
) -> CallResult:
    """Call a tool that makes or starts a run and, with `seconds`, wait for its end for at most so long.

    Raises CallError when the run was not started; once it was, nothing that happens while waiting is an error.
    """
    async with reporting(report, total_of(lifecycle)) as reporter:
        started = await launch(exchange, tool, lifecycle, arguments, reporter, is_whole=seconds is not None)
        if seconds is None:
            return noted(started)
        if not started.run_id:
            return noted(started, "The answer does not name the run, so there was no waiting for it.")
        waited = await _wait(exchange, lifecycle, arguments, started, reporter, seconds)
    value = waited.value | ({"idempotency_key": started.key} if started.key else {})
    return replace(waited, text=dump(value), value=value)


async def launch(
    exchange: Exchange,
    tool: Tool,
    lifecycle: Lifecycle,
    arguments: Mapping[str, Any],
    reporter: Reporter,
    *,
    is_whole: bool,
) -> Started:
    """Call a tool that makes or starts a run; `is_whole`: what it makes is started too, and the run's id told at once.

    Where the provider recognises repeated calls by a key, one is made if the caller has none.
    """
    start = lifecycle.starts[tool.operation.name]
    if start.idempotency_key_argument is not None and not value_at(arguments, start.idempotency_key_argument):
        arguments = set_at(arguments, start.idempotency_key_argument, f"mcp-{uuid4()}")
    outcome = await _send(exchange, tool, arguments, start, reporter)
    found = runs_in_response(lifecycle, tool.operation.name, outcome.value)
    run_id = arguments.get(lifecycle.read.run_id_argument) or (found[0].run_id if found else "")
    # A call that names the run starts that one, whatever else its answer tells of.
    found = [reading for reading in found if reading.run_id.lower() == run_id.lower()]
    started = Started(outcome, run_id, found, value_at(arguments, start.idempotency_key_argument))
    if is_whole and started.run_id:
        told = describe_run(started.reading) if started.reading else started.run_id
        await reporter.tell(f"started {told}", 0)
        await _start_what_was_made(exchange, start, arguments, outcome.value, started.run_id, reporter)
    return started


def noted(started: Started, *more: str) -> CallResult:
    """The provider's answer, with what there is to say of it."""
    notes = [status_line(started.found), *started.outcome.notes, *more]
    if started.key is not None:
        notes.append(f'Idempotency key: "{started.key}". Repeating the call with it starts no second run.')
    return replace(started.outcome, notes=tuple(note for note in notes if note))


async def _send(
    exchange: Exchange, tool: Tool, arguments: Mapping[str, Any], start: RunStart, reporter: Reporter
) -> CallResult:
    """Send the call, with a key as often as it takes: the provider starts one run whatever arrived before."""
    if start.idempotency_key_argument is None:
        return await exchange.fetch(tool.operation, arguments, tell=reporter.note)
    try:
        return await exchange.fetch(tool.operation, arguments, tell=reporter.note, repeatable=True)
    except CallError as exc:
        if exc.retryable:
            path = start.idempotency_key_argument
            key = f"{'.'.join(path)} {dump(value_at(arguments, path))}"
            unsent = f"{exc.hint} " if exc.hint.startswith("Nothing was sent") else ""
            exc.hint = f"{unsent}To try again pass {key}: with it no second run is started."
        raise


async def _start_what_was_made(
    exchange: Exchange,
    start: RunStart,
    arguments: Mapping[str, Any],
    made: Any,
    run_id: str,
    reporter: Reporter,
) -> None:
    """Where making a run does not start it, start it."""
    then = start.then
    if then is None or not matches(made, start.then_when):
        return
    try:
        named = {**path_arguments(then.operation, arguments), then.run_id_argument: run_id}
        await exchange.fetch(then.operation, named, tell=reporter.note)
    except CallError as exc:
        # Whatever the reason, to repeat the call would create another run.
        raise CallError(
            f"run {run_id} was created, but not started: {exc.message}",
            kind=exc.kind,
            status=exc.status,
            hint=f"Do not create another: call {then.tool} for this run, when what the message says is mended.",
        ) from exc


async def _wait(
    exchange: Exchange,
    lifecycle: Lifecycle,
    arguments: Mapping[str, Any],
    started: Started,
    reporter: Reporter,
    seconds: float,
) -> CallResult:
    run_id, reading = started.run_id, started.reading
    known = [reading] if reading and not reading.status.is_terminal else []  # the answer tells no results
    began = anyio.current_time()
    others = path_arguments(lifecycle.read.operation, arguments)
    try:
        return await wait_for_runs(exchange, lifecycle, others, [run_id], reporter, seconds=seconds, known=known)
    except CallError as exc:
        # The run was started, so this is no error, although nothing is known of it.
        elapsed = anyio.current_time() - began
        return CallResult.from_value(
            wait_result(lifecycle, Watch([run_id]), elapsed_s=elapsed, polls=0, reason=exc.message)
        )
