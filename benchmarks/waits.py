"""What waiting for a run costs: requests to the provider, calls of the model, and how late its end is known.

    python benchmarks/waits.py

Each row is one `...-wait-for-run` against a simulated provider, in real time, all rows at once; beside it what a model
does without such a tool: it reads the run every few seconds, each time with a call of its own.
"""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import anyio

sys.path.insert(0, str(Path(__file__).parents[1]))

from mcp_taskruns.app import build_gateway
from mcp_taskruns.core.runs.events import Progress
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.settings import read_settings
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.server import serve

POSTHOG_TASK = "22222222-2222-4222-8222-222222222222"
ASKING_SECONDS = 3.0
"""How often a model asks that has nothing but a tool to read a run; issue threads tell of 20 to 40 calls for a run."""


@dataclass(frozen=True)
class Case:
    """A run to wait for: `start` makes it and gives the arguments, unless it begins when it is first read."""

    name: str
    provider: str
    wait: str
    read: str
    seconds: float
    arguments: Mapping[str, Any]
    start: str = ""
    run_id: str = ""


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
        "Render, ended",
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
ENDED = ("completed", "Completed", "SUCCEEDED")


@dataclass(frozen=True)
class Row:
    """What one way of waiting took."""

    calls: int
    requests: int
    notifications: int
    late: float


async def measure(case: Case, *, polling: bool) -> Row:
    """One run, waited for in one of the two ways, at providers of its own."""
    simulator = Simulator()
    told = count()

    async def report(_: Progress) -> None:
        next(told)

    async with serve(simulator) as origin:
        gateway = build_gateway(read_settings({}, simulator.environment(origin)))
        try:
            arguments = await begin(gateway, case, report)
            before = len(simulator.requests)
            began = anyio.current_time()
            if polling:
                calls = await ask_again_and_again(gateway, case, arguments, report)
            else:
                outcome = await gateway.call(case.wait, arguments, report)
                assert outcome.value["status"] == "succeeded", outcome.text
                calls = 1
            late = anyio.current_time() - began - case.seconds
            return Row(calls, len(simulator.requests) - before, next(told), late)
        finally:
            await gateway.aclose()


async def begin(gateway: Gateway, case: Case, report: Any) -> dict[str, Any]:
    """The arguments that name the run."""
    if not case.start:
        return dict(case.arguments)
    made = await gateway.call(case.start, case.arguments, report)
    arguments = {name: value for name, value in case.arguments.items() if name != "body"}
    arguments[case.run_id] = made.value["id"]
    if case.provider == "posthog":
        await gateway.call("posthog-start-task-run", arguments, report)
    return arguments


async def ask_again_and_again(gateway: Gateway, case: Case, arguments: dict[str, Any], report: Any) -> int:
    """What a model does that can only read; how many calls that takes."""
    for calls in count(1):
        outcome = await gateway.call(case.read, arguments, report)
        run = outcome.value.get("data", outcome.value)
        if run["status"] in ENDED:
            return calls
        await anyio.sleep(ASKING_SECONDS)
    raise AssertionError


async def main() -> None:
    ways = [(case, polling) for case in CASES for polling in (False, True)]
    rows = await asyncio.gather(*(measure(case, polling=polling) for case, polling in ways))
    print("| run | way | calls of the model | requests per wait | notifications | known after its end |")
    print("|---|---|---:|---:|---:|---:|")
    for (case, polling), row in zip(ways, rows, strict=True):
        way = f"reading every {ASKING_SECONDS:g} s" if polling else f"`{case.wait}`"
        print(f"| {case.name} | {way} | {row.calls} | {row.requests} | {row.notifications} | {row.late:.2f} s |")


if __name__ == "__main__":
    asyncio.run(main())
