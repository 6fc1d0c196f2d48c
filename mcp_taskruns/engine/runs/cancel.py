"""Cancel a run, and report its status before and after."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import anyio

from mcp_taskruns.core.calls.request import path_arguments
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.model.json_path import matches
from mcp_taskruns.core.model.operation import Operation
from mcp_taskruns.core.model.run import Lifecycle, RunCancel, RunStatus
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.core.runs.reading import Reading, runs_in_response
from mcp_taskruns.core.runs.results import cancel_result, status_line
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.progress import ProgressReporter, Report, reporting
from mcp_taskruns.engine.runs.read import read_run
from mcp_taskruns.errors import CallError, ProviderError

NOT_FOUND = 404


def find_cancel(tool: Tool, arguments: Mapping[str, Any]) -> RunCancel | None:
    """Return how this call of the tool cancels a run, or None if it does not."""
    cancels = tool.runs.cancels if tool.runs else ()
    return next((c for c in cancels if c.call.operation == tool.operation and matches(arguments, c.when)), None)


async def cancel_run(
    client: Client,
    lifecycle: Lifecycle,
    cancel: RunCancel,
    arguments: Mapping[str, Any],
    report: Report,
) -> CallResult:
    """Cancel an active run. A run with a terminal status is not changed unless the call confirms.

    Raises CallError when the run cannot be read, or when the provider refuses to cancel an active run.
    """
    async with reporting(report) as reporter:
        return await _Cancellation(client, lifecycle, cancel, arguments, reporter).run()


class _Cancellation:
    """One call that cancels a run."""

    def __init__(
        self,
        client: Client,
        lifecycle: Lifecycle,
        cancel: RunCancel,
        arguments: Mapping[str, Any],
        reporter: ProgressReporter,
    ) -> None:
        self._client = client
        self._lifecycle = lifecycle
        self._cancel = cancel
        self._arguments = arguments
        self._reporter = reporter
        self._run_id = arguments[cancel.call.run_id_argument]
        self._read_arguments = path_arguments(lifecycle.read.operation, arguments)

    async def run(self) -> CallResult:
        before = await read_run(
            self._client, self._lifecycle, self._read_arguments, self._run_id, notify=self._reporter.note
        )
        read_at = anyio.current_time()
        if self._must_be_confirmed(before) and not self._is_confirmed:
            return self._result(before, before, was_accepted=False, was_sent=False)
        try:
            operation, response = await self._send()
        except ProviderError:
            after = await self._read_after()
            if after is not None and after.status.is_terminal:
                return self._result(before, after, was_accepted=False)
            raise
        if before.status.is_terminal:
            return self._result(before, before, was_accepted=True, response=response.value)
        runs = runs_in_response(self._lifecycle, operation.name, response.value, self._run_id)
        if runs:
            return self._result(before, runs[0], was_accepted=True, response=response.value)
        # Until then the provider may return a cached response from before the cancellation.
        await anyio.sleep_until(read_at + self._lifecycle.max_age_seconds)
        after = await self._read_after() or Reading(self._run_id, RunStatus.UNKNOWN, "")
        return self._result(before, after, was_accepted=True, response=response.value)

    async def _send(self) -> tuple[Operation, CallResult]:
        """Send the request; return the operation that the provider carried out, and its response. Raises CallError."""
        first, notify = self._cancel.first, self._reporter.note
        if first is not None and matches(self._arguments, first.when):
            path = path_arguments(first.operation, self._arguments) | {first.run_id_argument: self._run_id}
            try:
                return first.operation, await self._client.fetch(first.operation, path, notify=notify)
            except ProviderError as exc:
                if exc.status != NOT_FOUND:  # the run was there a moment ago: the provider lacks the operation
                    raise
        operation = self._cancel.call.operation
        return operation, await self._client.fetch(operation, self._arguments, notify=notify)

    def _must_be_confirmed(self, before: Reading) -> bool:
        """Whether cancelling might delete the run: it has ended, or it has a status that we do not know."""
        return before.status.is_terminal or (before.status is RunStatus.UNKNOWN and bool(self._cancel.confirm_argument))

    @property
    def _is_confirmed(self) -> bool:
        return bool(self._cancel.confirm_argument and self._arguments.get(self._cancel.confirm_argument))

    async def _read_after(self) -> Reading | None:
        with suppress(CallError):
            return await read_run(self._client, self._lifecycle, self._read_arguments, self._run_id, was_known=True)
        return None

    def _result(
        self, before: Reading, after: Reading, *, was_accepted: bool, was_sent: bool = True, response: Any = None
    ) -> CallResult:
        value = cancel_result(
            self._lifecycle,
            self._cancel,
            before,
            after,
            was_accepted=was_accepted,
            was_sent=was_sent,
            response=response,
        )
        return CallResult.from_value(value, status_line([after]))
