"""Measure what waiting for a run costs: requests to the provider, tool calls, and delay after the end of the run.

    python benchmarks/waits.py

One row is a call of `...-wait-for-run` with a simulated provider. The next row is a model without that tool, which
reads the run every few seconds with one call each. All rows run at the same time, in real time.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import anyio

from mcp_taskruns.app import build_gateway
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.progress import Progress
from mcp_taskruns.settings import read_settings
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.server import serve

POSTHOG_TASK = "22222222-2222-4222-8222-222222222222"
READ_INTERVAL_SECONDS = 3.0
"""Interval of a model that can only read a run. Issue threads report 20 to 40 calls for one run."""


@dataclass(frozen=True)
class Case:
    """A run to wait for."""

    name: str
    provider: str
    # Tools that wait for the run and read it.
    wait: str
    read: str
    # Duration of the run.
    seconds: float
    arguments: Mapping[str, Any]
    # Tool that creates the run, and the argument for its id. Empty: the run starts when it is first read.
    start: str = ""
    id_argument: str = ""


CASES = (
    Case(
        "Render, 8 s",
        "render",
        "render-wait-for-run",
        "render-retrieve-task-run",
        8,
        {"body": {"task": "demo-workflow/pipeline", "input": [3, 4]}},
        "render-run-task",
        "taskRunId",
    ),
    Case(
        "Render, finished",
        "render",
        "render-wait-for-run",
        "render-retrieve-task-run",
        0,
        {"taskRunId": "trn-d5im0000000000000001"},
    ),
    Case(
        "PostHog, 10 s",
        "posthog",
        "posthog-wait-for-run",
        "posthog-retrieve-task-run",
        10,
        {"task_id": POSTHOG_TASK, "body": {"environment": "cloud"}},
        "posthog-create-task-run",
        "id",
    ),
    Case(
        "Inngest, 12 s",
        "inngest",
        "inngest-wait-for-run",
        "inngest-get-function-run-status",
        12,
        {"runId": "01JZDEM0RVN000000000000001"},
    ),
    Case(
        "Runway, 20 s",
        "runway",
        "runway-wait-for-run",
        "runway-retrieve-task-status-and-output",
        20,
        {"id": "17f20503-6c24-4c16-946b-35dbbce2af2f"},
    ),
)
TERMINAL = ("completed", "Completed", "SUCCEEDED")


@dataclass(frozen=True)
class Row:
    """The cost of one wait."""

    calls: int
    requests: int
    notifications: int
    # Seconds between the end of the run and the result.
    delay: float


async def measure(case: Case, *, polling: bool) -> Row:
    """Start a run at new simulated providers and wait for it with the tool or by reading."""
    simulator = Simulator()
    notifications = count()

    async def report(_: Progress) -> None:
        next(notifications)

    async with serve(simulator) as origin:
        gateway = build_gateway(read_settings({}, simulator.environment(origin)))
        try:
            arguments = await start_run(gateway, case, report)
            before = len(simulator.requests)
            started_at = anyio.current_time()
            if polling:
                calls = await read_until_terminal(gateway, case, arguments, report)
            else:
                outcome = await gateway.call(case.wait, arguments, report)
                assert outcome.value["status"] == "succeeded", outcome.text
                calls = 1
            delay = anyio.current_time() - started_at - case.seconds
            return Row(calls, len(simulator.requests) - before, next(notifications), delay)
        finally:
            await gateway.aclose()


async def start_run(gateway: Gateway, case: Case, report: Any) -> dict[str, Any]:
    """Start the run and return the arguments that identify it."""
    if not case.start:
        return dict(case.arguments)
    created = await gateway.call(case.start, case.arguments, report)
    arguments = {name: value for name, value in case.arguments.items() if name != "body"}
    arguments[case.id_argument] = created.value["id"]
    if case.provider == "posthog":
        await gateway.call("posthog-start-task-run", arguments, report)
    return arguments


async def read_until_terminal(gateway: Gateway, case: Case, arguments: dict[str, Any], report: Any) -> int:
    """Read the run at intervals until its status is terminal. Return the number of calls."""
    for calls in count(1):
        outcome = await gateway.call(case.read, arguments, report)
        run = outcome.value.get("data", outcome.value)
        if run["status"] in TERMINAL:
            return calls
        await anyio.sleep(READ_INTERVAL_SECONDS)
    raise AssertionError


async def main() -> None:
    ways = [(case, polling) for case in CASES for polling in (False, True)]
    rows = await asyncio.gather(*(measure(case, polling=polling) for case, polling in ways))
    print("| run | way | calls of the model | requests per wait | notifications | known after it ended |")
    print("|---|---|---:|---:|---:|---:|")
    for (case, polling), row in zip(ways, rows, strict=True):
        way = f"reading every {READ_INTERVAL_SECONDS:g} s" if polling else f"`{case.wait}`"
        print(f"| {case.name} | {way} | {row.calls} | {row.requests} | {row.notifications} | {row.delay:.2f} s |")


if __name__ == "__main__":
    asyncio.run(main())
