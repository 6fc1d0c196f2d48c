"""Cancel a run, and report its status before and after."""

from collections.abc import Mapping
from typing import Any

import anyio

from mcp_taskruns.core.calls.request import path_arguments
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.truncation import quote_name
from mcp_taskruns.core.model.json_path import matches
from mcp_taskruns.core.model.operation import Operation
from mcp_taskruns.core.model.run import Lifecycle, RunCancel, RunStatus
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.core.runs.reading import Reading, runs_in_response, with_text_ids
from mcp_taskruns.core.runs.results import DELETED, cancel_result, is_canceled, status_line
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.progress import ProgressReporter, Report, reporting
from mcp_taskruns.engine.runs.read import GONE_READS, read_run
from mcp_taskruns.errors import CallError, ProviderError

NOT_FOUND = 404

SETTLE_SECONDS = (1.0, 2.0)
"""How long to sleep before each further read of a run that the provider cancels in the background."""


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
        self._read_again_at = 0.0

    async def run(self) -> CallResult:
        before = await read_run(
            self._client, self._lifecycle, self._read_arguments, self._run_id, notify=self._reporter.note
        )
        # Until then the provider may return a cached response from before the cancellation.
        self._read_again_at = anyio.current_time() + self._lifecycle.max_age_seconds
        if self._must_be_confirmed(before) and not self._is_confirmed:
            return self._result(before, before, was_accepted=False, was_sent=False)
        try:
            operation, response = await self._send()
        except CallError as exc:
            return await self._explain(exc, before)
        if before.status.is_terminal:
            return await self._after_deletion(before, response.value)
        runs = runs_in_response(self._lifecycle, operation.name, response.value, self._run_id)
        after = runs[0] if runs else await self._read_after(gone_after=1) or self._unknown
        after = await self._settle(after, gone_after=1)
        value = with_text_ids(self._lifecycle, operation.name, response.value)
        return self._result(before, after, was_accepted=True, response=value)

    async def _explain(self, failure: CallError, before: Reading) -> CallResult:
        """Return what the status after a failed request shows to have happened; else raise the failure."""
        if before.status.is_terminal:
            if failure.outcome_unknown and await self._read_after() is None:
                return self._result(before, before, was_accepted=True, was_lost=True)
            raise self._with_advice(failure, before) from failure.__cause__
        after = await self._read_after(gone_after=GONE_READS) or self._unknown
        if failure.outcome_unknown:
            after = await self._settle(after, gone_after=GONE_READS)
        if not after.status.is_terminal:
            raise self._with_advice(failure, after) from failure.__cause__
        was_cancelled = failure.outcome_unknown and is_canceled(self._cancel, after)
        return self._result(before, after, was_accepted=was_cancelled, was_lost=was_cancelled)

    def _with_advice(self, failure: CallError, after: Reading) -> CallError:
        """Return a failure with what is known about the run, if the request may have been carried out."""
        if not failure.outcome_unknown:
            return failure
        status = "its status could not be read"
        if after.native_status:
            status = f"it is {quote_name(after.native_status)} now"
        if after.status.is_terminal:
            advice = f"Call {self._lifecycle.read.tool} before trying again."
        else:
            advice = f"Call {self._lifecycle.wait_tool} to see whether it ends; if it does not, cancel it again."
        hint = f"The provider may have accepted the request for run {quote_name(self._run_id)}: {status}. {advice}"
        return failure.replace(hint=hint)

    async def _after_deletion(self, before: Reading, response: Any) -> CallResult:
        """Return the result of a request that the provider has carried out for a run with a terminal status."""
        after = None if self._lifecycle.gone_after_cancel else await self._read_after()
        return self._result(before, after or before, was_accepted=True, is_kept=after is not None, response=response)

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

    async def _settle(self, after: Reading, *, gone_after: int) -> Reading:
        """Read the run until it has ended, but only for a few seconds."""
        for seconds in SETTLE_SECONDS:
            if not after.status.is_terminal and after.status is not RunStatus.UNKNOWN:
                await anyio.sleep(seconds)
                after = await self._read_after(gone_after=gone_after) or after
        return after

    async def _read_after(self, *, gone_after: int = 0) -> Reading | None:
        """Return the run after the request, with an unknown status if it cannot be read; None if it does not exist."""
        await anyio.sleep_until(self._read_again_at)
        try:
            return await read_run(
                self._client, self._lifecycle, self._read_arguments, self._run_id, gone_after=gone_after
            )
        except CallError as exc:
            return None if exc.kind == "not_found" else self._unknown

    @property
    def _unknown(self) -> Reading:
        return Reading(self._run_id, RunStatus.UNKNOWN, "")

    def _result(
        self, before: Reading, after: Reading, *, was_sent: bool = True, response: Any = None, **facts: bool
    ) -> CallResult:
        """Return the result of the call; `facts` are those of `cancel_result`."""
        value = cancel_result(
            self._lifecycle, self._cancel, before, after, was_sent=was_sent, response=response, **facts
        )
        is_deleted = value["status"] == DELETED
        return CallResult.from_value(value, f"Run {self._run_id}: {DELETED}." if is_deleted else status_line([after]))
