"""Explain a run in one call: read it, its steps and its log."""

from collections.abc import Collection, Mapping
from typing import Any

import anyio

from mcp_taskruns.core.calls.pages import read_page
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.truncation import quote_name
from mcp_taskruns.core.model.run import Lifecycle, RunLog, RunRequest, RunStatus
from mcp_taskruns.core.model.tool import DEFAULT_LINES
from mcp_taskruns.core.runs.explanation import (
    Explanation,
    explain,
    log_lines,
    next_step,
    parse_steps,
)
from mcp_taskruns.core.runs.results import status_line
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.progress import Report, reporting
from mcp_taskruns.engine.runs.details import open_requests, request_arguments
from mcp_taskruns.engine.runs.read import fetch_run
from mcp_taskruns.errors import CallError, NotVisibleYet

MAX_STEP_PAGES = 5
"""Pages of the list of steps that are read."""

MAX_LOGS = 3
"""Failed steps of which the log is read."""

SIDE_SECONDS = 15.0
"""How long all requests besides reading the run may take."""


async def explain_run(
    client: Client,
    lifecycle: Lifecycle,
    arguments: Mapping[str, Any],
    report: Report,
    *,
    lines: int | None,
    served: Collection[str],
) -> CallResult:
    """Return what is known about a run. Raises CallError when the run itself cannot be read.

    `arguments` are those of reading the run, `lines` is the number of log lines that the caller asks for, `served` are
    the names of the tools that can be called next. A step list or a log that cannot be read is named in the result.
    """
    run_id = arguments[lifecycle.read.run_id_argument]
    async with reporting(report) as reporter:
        run, reading = await fetch_run(client, lifecycle, arguments, run_id, notify=reporter.note)
        explanation = Explanation(reading, run)
        side = _SideRequests(client, lifecycle, arguments, explanation, lines)
        with anyio.move_on_after(SIDE_SECONDS) as scope:
            await side.read_steps()
            await side.read_logs()
            asked = await open_requests(client, lifecycle, arguments) if reading.status in _MAY_ASK else []
        if scope.cancelled_caught:
            asked = []
            explanation.unavailable.append(f"the rest: the provider took longer than {SIDE_SECONDS:g} s")
    next_call = next_step(lifecycle, explanation, list(served))
    try:
        client.recent_starts.check(lifecycle.provider, reading)
    except NotVisibleYet as exc:  # without this, a run that has just been retried would be retried again
        next_call = exc.to_line()
    value = explain(lifecycle, explanation, " ".join([*asked, next_call]), lines=lines)
    return CallResult.from_value(value, status_line([reading]))


_MAY_ASK = frozenset({RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.UNKNOWN})


class _SideRequests:
    """The requests besides reading the run. One that fails is named in the explanation."""

    def __init__(
        self,
        client: Client,
        lifecycle: Lifecycle,
        arguments: Mapping[str, Any],
        explanation: Explanation,
        lines: int | None,
    ) -> None:
        self._client = client
        self._lifecycle = lifecycle
        self._arguments = arguments
        self._explanation = explanation
        self._lines = lines or DEFAULT_LINES

    async def read_steps(self) -> None:
        """Read the steps of the run, page by page."""
        steps = self._lifecycle.steps
        call = self._arguments_of(steps.request, self._explanation.run) if steps else None
        if steps is None or call is None:
            return
        paging = steps.request.operation.paging
        for _ in range(MAX_STEP_PAGES):
            result = await self._fetch("steps", steps.request, call)
            if result is None:
                return
            self._explanation.steps += await self._client.worker.run(len(result.text), parse_steps, steps, result.value)
            page = read_page(paging, call, result) if paging else None
            following = page.next_arguments(len(page.items)) if page and page.has_more else {}
            if not following:
                return
            call |= following
        self._explanation.unavailable.append(f"steps: there are more than {MAX_STEP_PAGES} pages of them")

    async def read_logs(self) -> None:
        """Read the log: of the failed steps where logs are of steps, else of the run."""
        failed = self._explanation.failed_steps[:MAX_LOGS]
        for log in self._lifecycle.logs:
            if log.is_of_step:
                for step in failed:
                    await self._read_log(log, step.value, step.name)
            else:
                await self._read_log(log, self._explanation.run, "")
            if self._explanation.logs:
                return

    async def _read_log(self, log: RunLog, source: Any, name: str) -> None:
        """Read the log of the run, or of the step with this name."""
        call = self._arguments_of(log.request, source)
        if call is None:
            return
        result = await self._fetch(f"log of {quote_name(name)}" if name else "log", log.request, call)
        if result is None or result.is_empty:
            return
        text = result.text if result.data is None else result.data.decode("utf-8", "replace")
        found = await self._client.worker.run(len(text), log_lines, log, result.value, text)
        if found:
            last = self._client.redactor.redact_text("\n".join(found[-self._lines :])).split("\n")
            self._explanation.add_log(name or "run", [*found[: -self._lines], *last])

    def _arguments_of(self, request: RunRequest, source: Any) -> dict[str, Any] | None:
        """Return the arguments of a request about the run or a step; None if it cannot be sent."""
        if not request.operation.is_available(self._client.settings.environment):
            return None
        return request_arguments(request, self._arguments, self._explanation.reading.run_id, source)

    async def _fetch(self, what: str, request: RunRequest, call: dict[str, Any]) -> CallResult | None:
        """Return the response to a request; None, with the reason in the explanation, if there is none."""
        try:
            return await self._client.fetch(request.operation, call, max_retries=1)
        except CallError as exc:
            self._explanation.unavailable.append(f"{what}: {exc.message}")
            return None
