"""Cancelling a run honestly: what had ended already is not cancelled, and what became of the rest is told."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import anyio

from mcp_taskruns.core.calls.request import path_arguments
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.model.json_path import matches
from mcp_taskruns.core.model.run import Lifecycle, RunCancel, RunStatus
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.core.runs.messages import cancel_result, status_line
from mcp_taskruns.core.runs.reading import Reading, runs_in_response
from mcp_taskruns.engine.client import Exchange
from mcp_taskruns.engine.progress import Report, reporting
from mcp_taskruns.engine.runs.read import read_run
from mcp_taskruns.errors import CallError, ProviderError


def find_cancel(tool: Tool, arguments: Mapping[str, Any]) -> RunCancel | None:
    """What this call of the tool cancels, if it cancels something."""
    cancels = tool.runs.cancels if tool.runs else ()
    return next((c for c in cancels if c.call.operation == tool.operation and matches(arguments, c.when)), None)


async def cancel_run(
    exchange: Exchange,
    lifecycle: Lifecycle,
    cancel: RunCancel,
    arguments: Mapping[str, Any],
    report: Report,
) -> CallResult:
    """Cancel a run that goes on, and tell its state before and after; of one that has ended tell just that.

    Raises CallError for a run that cannot be read, and for what the provider refuses while the run goes on.
    """
    run_id = arguments[cancel.call.run_id_argument]
    others = path_arguments(lifecycle.read.operation, arguments)
    async with reporting(report) as reporter:
        before = await read_run(exchange, lifecycle, others, run_id, tell=reporter.note)
        read_at = anyio.current_time()
        is_forced = bool(cancel.confirm_argument and arguments.get(cancel.confirm_argument))
        # What has ended in a state that we do not know would be deleted, where there is a guard against that.
        is_doubtful = before.status is RunStatus.UNKNOWN and bool(cancel.confirm_argument)
        if (before.status.is_terminal or is_doubtful) and not is_forced:
            return _outcome(lifecycle, cancel, before, before, was_accepted=False, was_sent=False)
        try:
            answer = await exchange.fetch(cancel.call.operation, arguments, tell=reporter.note)
        except ProviderError:
            with suppress(CallError):
                after = await read_run(exchange, lifecycle, others, run_id, was_known=True)
                if after.status.is_terminal:
                    return _outcome(lifecycle, cancel, before, after, was_accepted=False)
            raise
        if before.status.is_terminal:
            return _outcome(lifecycle, cancel, before, before, was_accepted=True, response=answer.value)
        found = runs_in_response(lifecycle, cancel.call.operation.name, answer.value, run_id)
        if found:
            return _outcome(lifecycle, cancel, before, found[0], was_accepted=True, response=answer.value)
        # An answer may be as old as the one before cancelling.
        await anyio.sleep_until(read_at + lifecycle.max_age_seconds)
        try:
            after = await read_run(exchange, lifecycle, others, run_id, was_known=True)
        except CallError:
            after = Reading(run_id, RunStatus.UNKNOWN, "")
        return _outcome(lifecycle, cancel, before, after, was_accepted=True, response=answer.value)


def _outcome(
    lifecycle: Lifecycle,
    cancel: RunCancel,
    before: Reading,
    after: Reading,
    *,
    was_accepted: bool,
    was_sent: bool = True,
    response: Any = None,
) -> CallResult:
    value = cancel_result(
        lifecycle, cancel, before, after, was_accepted=was_accepted, was_sent=was_sent, response=response
    )
    return CallResult.from_value(value, status_line([after]))
