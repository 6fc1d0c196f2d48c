"""What the tests of runs share: the simulated providers' runs, and a call that a driven clock takes to its end."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import httpx

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.runs.events import Progress
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.errors import CallError
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from mcp_taskruns.simulator.traffic import RecordedRequest
from tests.clients import open_gateway
from tests.clock import pass_time, settle

PATIENCE = 20
"""Seconds after which a wait for an event of another process is given up."""

# What the simulated providers have: the docstrings of mcp_taskruns/simulator/{render,inngest,posthog,runway}.py
RENDER_COMPLETED, RENDER_FAILED, RENDER_CANCELED, RENDER_RUNNING = (f"trn-d5im000000000000000{n}" for n in (1, 2, 3, 4))
INNGEST_FRESH, INNGEST_RUNNING, INNGEST_COMPLETED, INNGEST_FAILED, INNGEST_CANCELLED = (
    f"01JZDEM0RVN00000000000000{n}" for n in (1, 2, 3, 4, 5)
)
TASK = "11111111-1111-4111-8111-111111111111"
POSTHOG_COMPLETED = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
POSTHOG_NOT_STARTED = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
POSTHOG_RUNNING = "cccccccc-cccc-4ccc-8ccc-cccccccccccc"
POSTHOG_FAILED = "dddddddd-dddd-4ddd-8ddd-dddddddddddd"
RUNWAY_FRESH, RUNWAY_SUCCEEDED, RUNWAY_FAILED, RUNWAY_THROTTLED, RUNWAY_CANCELLED = (
    f"{n}7f20503-6c24-4c16-946b-35dbbce2af2f" for n in (1, 2, 3, 4, 5)
)

RENDER_RUNS = "/render/v1/task-runs"
INNGEST_RUNS = "/inngest/v1/runs"
POSTHOG_RUNS = f"/posthog/api/projects/1/tasks/{TASK}/runs"
RUNWAY_TASKS = "/runway/v1/tasks"

KEYS = {
    "render": "RENDER_API_KEY",
    "inngest": "INNGEST_SIGNING_KEY",
    "posthog": "POSTHOG_API_KEY",
    "runway": "RUNWAYML_API_SECRET",
}

Arguments = dict[str, Any]

GOING_ON: dict[str, tuple[str, Arguments]] = {
    "render": ("render-wait-for-run", {"taskRunId": RENDER_RUNNING}),
    "inngest": ("inngest-wait-for-run", {"runId": INNGEST_RUNNING}),
    "posthog": ("posthog-wait-for-run", {"task_id": TASK, "id": POSTHOG_RUNNING}),
    "runway": ("runway-wait-for-run", {"id": RUNWAY_THROTTLED}),
}
"""At each provider a run that goes on by itself for minutes."""

READS = {
    "render": f"GET {RENDER_RUNS}/{RENDER_RUNNING}",
    "inngest": f"GET {INNGEST_RUNS}/{INNGEST_RUNNING}",
    "posthog": f"GET {POSTHOG_RUNS}/{POSTHOG_RUNNING}/",
    "runway": f"GET {RUNWAY_TASKS}/{RUNWAY_THROTTLED}",
}
STREAMS = {
    "render": f"GET {RENDER_RUNS}/events?taskRunIds={RENDER_RUNNING}",
    "posthog": f"GET {POSTHOG_RUNS}/{POSTHOG_RUNNING}/stream/?start=latest",
}


class Call:
    """A call under way on the driven clock: what it told, when, and how it ended."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.told: list[Progress] = []
        self.told_at: list[float] = []
        self.ended_at: float | None = None
        self.error: CallError | None = None
        self._outcome: CallResult | None = None

    @property
    def is_over(self) -> bool:
        return self.ended_at is not None

    @property
    def outcome(self) -> CallResult:
        assert self._outcome is not None, f"the call has not returned: {self.error or 'it goes on'}"
        return self._outcome

    @property
    def value(self) -> dict[str, Any]:
        value = self.outcome.value
        assert isinstance(value, dict)
        return value

    @property
    def failure(self) -> CallError:
        assert self.error is not None, "the call has not failed"
        return self.error

    @property
    def lines(self) -> list[str]:
        return [progress.message for progress in self.told]

    async def report(self, progress: Progress) -> None:
        self.told.append(progress)
        self.told_at.append(anyio.current_time())

    async def run(self, gateway: Gateway, tool: str, arguments: Arguments) -> None:
        try:
            with self.scope:
                self._outcome = await gateway.call(tool, arguments, self.report)
        except CallError as exc:
            self.error = exc
        self.ended_at = anyio.current_time()

    async def finish(self, seconds: float) -> "Call":
        """Let time pass until the call is over, which it is within these seconds."""
        await settle()
        for _ in range(round(seconds * 4)):
            if self.is_over:
                break
            await pass_time(0.25)
        assert self.is_over, f"not over after {seconds} s"
        return self


@asynccontextmanager
async def opened(environment: Mapping[str, str], **flags: object) -> AsyncIterator[Gateway]:
    gateway = open_gateway(environment, **flags)
    try:
        yield gateway
    finally:
        await gateway.aclose()


@asynccontextmanager
async def calling(gateway: Gateway, tool: str, arguments: Arguments) -> AsyncIterator[Call]:
    """A call that has begun, and is cut off at the end of the block."""
    call = Call()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call.run, gateway, tool, arguments)
        await settle()
        yield call
        tasks.cancel_scope.cancel()


async def finished(environment: Mapping[str, str], tool: str, arguments: Arguments, seconds: float = 60) -> Call:
    """A call that is over within these seconds, of a server of its own."""
    async with opened(environment) as gateway, calling(gateway, tool, arguments) as call:
        return await call.finish(seconds)


async def outside(environment: Mapping[str, str], method: str, path: str, body: Any = None) -> Any:
    """Somebody else's request to a provider, and its answer."""
    key = environment[KEYS[path.split("/")[1]]]
    origin = environment["RENDER_BASE_URL"].removesuffix("/render/v1")
    headers = {"Authorization": f"Bearer {key}", "X-Runway-Version": "2024-11-06", "Accept": "application/json"}
    async with httpx.AsyncClient(headers=headers) as client:
        answer = await client.request(method, origin + path, json=body)
    answer.raise_for_status()
    return answer.json() if answer.content else None


def is_ours(request: RecordedRequest) -> bool:
    return dict(request.headers)["user-agent"].startswith("mcp-taskruns/")


def sent(simulator: Simulator) -> list[str]:
    """What the server has sent; what a test has sent from outside is left out."""
    return [f"{request.method} {request.path}" for request in simulator.requests if is_ours(request)]


def answering(value: Any, status: int = 200) -> Fault:
    """The next answer, in place of the simulator's own."""
    return Fault(status, {"Content-Type": "application/json"}, json.dumps(value))


HONEST = Fault()
"""A request that the simulator answers itself."""

PASSING = {
    "cut": Fault(truncate=True),
    "429": Fault(429, body="slow down"),
    "502": Fault(502, body="bad gateway"),
    "503": Fault(503, body="busy"),
    "504": Fault(504, body="too slow"),
}
"""Refusals, and a lost connection, that may be gone a moment later."""

TRIES = 4
"""How often something is sent at most that is safe to send again."""

ALL_TRIES_S = 8
"""What trying so often takes at most: pauses of up to 1, 2 and 4 seconds."""


def timeless(value: dict[str, Any]) -> dict[str, Any]:
    """A wait's value without its seconds, which the machine's own speed is part of."""
    return {name: item for name, item in value.items() if name != "elapsed_seconds"}


def run_as_told(provider: str, native: str, **more: Any) -> Any:
    """How a provider tells of its run that goes on, with this status."""
    run_id = READS[provider].removesuffix("/").rpartition("/")[2]
    if provider == "inngest":
        return {"data": {"run_id": run_id, "status": native, **more}}
    return {"id": run_id, "status": native, **more}
