"""Run a run again, all of it or what failed, and wait for it if asked to."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mcp_taskruns.core.calls.request import path_arguments
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.truncation import quote, quote_name
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import matches, value_at
from mcp_taskruns.core.model.run import Lifecycle, Part, RunRetry, RunStatus
from mcp_taskruns.core.runs.reading import Reading, id_text
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.progress import ProgressReporter, Report, reporting
from mcp_taskruns.engine.runs.details import request_arguments
from mcp_taskruns.engine.runs.read import fetch_run, read_run
from mcp_taskruns.engine.runs.wait import reporting_wait, wait_for_started_run
from mcp_taskruns.errors import CallError, ProviderError

MAX_REASON = 300
"""Characters of the provider's reason for a refusal."""


async def retry_run(
    client: Client,
    lifecycle: Lifecycle,
    arguments: Mapping[str, Any],
    report: Report,
    *,
    part: Part,
    seconds: float | None,
) -> CallResult:
    """Run a run that has ended again; with `seconds`, wait for its result for at most so long.

    `arguments` are those of reading the run. Raises CallError if the run is active, or the provider refuses. A failure
    after that is part of the result.
    """
    progress = reporting(report) if seconds is None else reporting_wait(report, lifecycle, seconds)
    async with progress as reporter:
        retry = _Retry(client, lifecycle, arguments, lifecycle.retries[part], reporter)
        run_id = await retry.send()
        facts = {"provider": lifecycle.provider, "run_id": run_id, "retry_of": retry.run_id}
        if seconds is None:
            text = f"The run was started again: call {lifecycle.wait_tool} with {quote_name(run_id)} to wait for it."
            return CallResult.from_value({**facts, "retried": True, "next": text})
        await reporter.report(f"started again: {quote_name(run_id)}")
        others = path_arguments(lifecycle.read.operation, arguments)
        waited = await wait_for_started_run(client, lifecycle, others, run_id, reporter, seconds=seconds)
    value = {**waited.value, "retry_of": retry.run_id}
    return replace(waited, text=dump(value), value=value)


class _Retry:
    """One call that runs a run again."""

    def __init__(
        self,
        client: Client,
        lifecycle: Lifecycle,
        arguments: Mapping[str, Any],
        retry: RunRetry,
        reporter: ProgressReporter,
    ) -> None:
        self.run_id: str = arguments[lifecycle.read.run_id_argument]
        self._client = client
        self._lifecycle = lifecycle
        self._arguments = arguments
        self._retry = retry
        self._reporter = reporter

    async def send(self) -> str:
        """Return the id of the run that was started. Raises CallError."""
        run, before = await fetch_run(
            self._client, self._lifecycle, self._arguments, self.run_id, notify=self._reporter.note
        )
        self._client.recent_starts.check(self._lifecycle.provider, before)
        if before.status is RunStatus.UNKNOWN:
            raise CallError(
                f"it is not known whether {quote_name(before.native_status)} is a terminal status",
                kind="conflict",
                hint=f"Nothing was sent. Call {self._lifecycle.read.tool} to see the run.",
            )
        if not before.status.is_terminal:
            native = quote_name(before.native_status)
            raise CallError(
                f"run {quote_name(self.run_id)} has not ended: it is {before.status} ({native})",
                kind="conflict",
                hint=f"Nothing was sent. Call {self._lifecycle.wait_tool} to wait for it, or cancel it first.",
            )
        request = self._retry.request
        call = request_arguments(request, self._arguments, self.run_id, run)
        if call is None:
            raise CallError(
                f"run {quote_name(self.run_id)} lacks a value that running it again takes",
                kind="unsupported",
                hint=f"Nothing was sent. Call {self._lifecycle.read.tool} to see the run.",
            )
        try:
            result = await self._client.fetch(request.operation, call, notify=self._reporter.note)
        except CallError as exc:
            return await self._explain(exc, before)
        self._check_refusal(result.value)
        run_id = id_text(value_at(result.value, self._retry.run_id)) or self.run_id
        self._remember(run_id)
        await self._start_created_run(run_id, result.value)
        return run_id

    def _remember(self, run_id: str) -> None:
        """Expect the run to leave its terminal status."""
        is_new = run_id.lower() != self.run_id.lower()
        self._client.recent_starts.add(self._lifecycle.provider, run_id, is_new=is_new)

    def _check_refusal(self, value: Any) -> None:
        if not self._retry.refused or not matches(value, self._retry.refused):
            return
        reason = value_at(value, self._retry.reason)
        because = f": {quote(reason, MAX_REASON)}" if isinstance(reason, str) and reason else ""
        raise CallError(
            f"the provider did not run {quote_name(self.run_id)} again{because}",
            kind="conflict",
            hint="Nothing was started.",
        )

    async def _explain(self, failure: CallError, before: Reading) -> str:
        """Return the run's id if it was started although the response is lost; else raise the failure."""
        if not failure.outcome_unknown:
            raise failure
        after: Reading | None = None
        if self._retry.run_id is None:
            try:
                after = await read_run(self._client, self._lifecycle, self._arguments, self.run_id)
            except CallError:
                after = None
        if after is not None and not after.status.is_terminal:
            self._remember(self.run_id)
            return self.run_id
        if after is not None and _has_ended_again(before, after):
            return self.run_id
        advice = f"{self._lifecycle.read.tool} shows whether it runs again"
        if self._retry.run_id is not None:
            advice = "the new run would have an id of its own, so look for it in the list of runs"
        hint = f"The run may have been started again: before retrying, {advice}."
        raise failure.replace(hint=hint, retryable=False) from failure.__cause__

    async def _start_created_run(self, run_id: str, created: Any) -> None:
        """Start a run that the provider has only created."""
        then = self._retry.then
        if then is None or not matches(created, self._retry.then_when):
            return
        call = {**path_arguments(then.operation, self._arguments), then.run_id_argument: run_id}
        try:
            await self._client.fetch(then.operation, call, notify=self._reporter.note)
        except CallError as exc:
            read = self._lifecycle.read.tool
            hint = f"Do not retry it again. Call {read} for run {quote_name(run_id)}, then {then.tool}."
            message = f"run {quote_name(run_id)} was created, but not started: {exc.message}"
            raise ProviderError(message, kind=exc.kind, status=exc.status, hint=hint) from exc


def _has_ended_again(before: Reading, after: Reading) -> bool:
    """Return whether a run has ended another time."""
    return (before.native_status, before.ended, before.attempts) != (after.native_status, after.ended, after.attempts)
