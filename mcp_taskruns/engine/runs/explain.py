"""Explain a run in one call: read it, its steps and its log."""

from collections.abc import Collection, Mapping
from typing import Any

import anyio

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.model.run import Lifecycle, RunLog, RunRequest, RunStatus
from mcp_taskruns.core.model.tool import DEFAULT_LINES
from mcp_taskruns.core.runs.explanation import (
    MAX_LOG,
    MAX_LONG_LOG,
    Explanation,
    Step,
    explain,
    last_lines,
    log_lines,
    next_step,
    parse_steps,
)
from mcp_taskruns.core.runs.results import status_line
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.progress import Report, reporting
from mcp_taskruns.engine.runs.details import open_requests, request_arguments
from mcp_taskruns.engine.runs.read import fetch_run
from mcp_taskruns.errors import CallError

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
    value = explain(lifecycle, explanation, " ".join([*asked, next_step(lifecycle, explanation, list(served))]))
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
        self._max_chars = MAX_LOG if lines is None else MAX_LONG_LOG

    async def read_steps(self) -> None:
        """Read the steps of the run."""
        steps = self._lifecycle.steps
        if steps is None:
            return
        result = await self._fetch("steps", steps.request, self._explanation.run)
        if result is not None:
            size = len(result.text)
            self._explanation.steps = await self._client.worker.run(size, parse_steps, steps, result.value)

    async def read_logs(self) -> None:
        """Read the end of the log: of the failed steps where logs are of steps, else of the run."""
        failed = self._explanation.failed_steps[:MAX_LOGS]
        for log in self._lifecycle.logs:
            if log.is_of_step:
                for step in failed:
                    await self._read_log(log, step, max(1, self._lines // len(failed)), self._max_chars // len(failed))
            else:
                await self._read_log(log, None, self._lines, self._max_chars)
            if self._explanation.logs:
                return

    async def _read_log(self, log: RunLog, step: Step | None, lines: int, max_chars: int) -> None:
        name = step.name if step else ""
        source = step.value if step else self._explanation.run
        result = await self._fetch(f"log of {name}" if name else "log", log.request, source)
        if result is None:
            return
        text = result.text if result.data is None else result.data.decode("utf-8", "replace")
        size = len(text)
        found = await self._client.worker.run(size, log_lines, log, result.value, text)
        if found:
            text = "\n".join(last_lines(found, lines, max_chars))
            self._explanation.logs[name or "run"] = self._client.redactor.redact_text(text).split("\n")

    async def _fetch(self, what: str, request: RunRequest, source: Any) -> CallResult | None:
        """Return the response to a request; None, with the reason in the explanation, if there is none."""
        run_id = self._explanation.reading.run_id
        call = request_arguments(request, self._arguments, run_id, source)
        if call is None or not request.operation.is_available(self._client.settings.environment):
            return None
        try:
            return await self._client.fetch(request.operation, call, max_retries=1)
        except CallError as exc:
            self._explanation.unavailable.append(f"{what}: {exc.message}")
            return None
