"""Calls through the gateway on the driven clock, and the runs of the simulated providers."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.progress import Progress
from mcp_taskruns.errors import CallError
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from mcp_taskruns.simulator.traffic import RecordedRequest
from tests.clients import open_gateway
from tests.clock import pass_time, settle

# The data of the simulated providers: the docstrings of mcp_taskruns/simulator/{render,inngest,posthog,runway}
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

# The variable with each provider's credential
KEYS = {
    "render": "RENDER_API_KEY",
    "inngest": "INNGEST_SIGNING_KEY",
    "posthog": "POSTHOG_API_KEY",
    "runway": "RUNWAYML_API_SECRET",
}

Arguments = dict[str, Any]

# A wait, at each provider, for a run that is still active for minutes
WAITS: dict[str, tuple[str, Arguments]] = {
    "render": ("render-wait-for-run", {"taskRunId": RENDER_RUNNING}),
    "inngest": ("inngest-wait-for-run", {"runId": INNGEST_RUNNING}),
    "posthog": ("posthog-wait-for-run", {"task_id": TASK, "id": POSTHOG_RUNNING}),
    "runway": ("runway-wait-for-run", {"id": RUNWAY_THROTTLED}),
}

# The requests that such a wait sends
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

NO_FAULT = Fault()
"""A request that the simulator responds to as usual."""

PASSING = {
    "truncated": Fault(truncate=True),
    "429": Fault(429, body="slow down"),
    "502": Fault(502, body="bad gateway"),
    "503": Fault(503, body="busy"),
    "504": Fault(504, body="too slow"),
    "524": Fault(524, body="too slow for Cloudflare"),
}
"""Transient faults: the next request may succeed."""

TRIES = 4
"""How often a request that is safe to repeat is sent at most."""

ALL_TRIES_S = 8
"""Seconds that all tries take at most: backoffs of up to 1, 2 and 4 seconds."""


class Call:
    """A call on the driven clock: its progress, with times, and its outcome."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.progress: list[Progress] = []
        self.progress_times: list[float] = []
        self.ended_at: float | None = None
        self.error: CallError | None = None
        self._outcome: CallResult | None = None

    @property
    def is_over(self) -> bool:
        return self.ended_at is not None

    @property
    def outcome(self) -> CallResult:
        assert self._outcome is not None, f"the call has not returned: {self.error or 'it is still running'}"
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
        """The messages of the progress."""
        return [progress.message for progress in self.progress]

    async def report(self, progress: Progress) -> None:
        self.progress.append(progress)
        self.progress_times.append(anyio.current_time())

    async def run(self, gateway: Gateway, tool: str, arguments: Arguments) -> None:
        try:
            with self.scope:
                self._outcome = await gateway.call(tool, arguments, self.report)
        except CallError as exc:
            self.error = exc
        self.ended_at = anyio.current_time()

    async def finish(self, seconds: float) -> "Call":
        """Let time pass until the call is over; fail if it takes longer than `seconds`."""
        await settle()
        for _ in range(round(seconds * 4)):
            if self.is_over:
                break
            await pass_time(0.25)
        assert self.is_over, f"not over after {seconds} s"
        return self


@asynccontextmanager
async def opened(environment: Mapping[str, str], **flags: object) -> AsyncIterator[Gateway]:
    """Open a gateway and close it after the block."""
    gateway = open_gateway(environment, **flags)
    try:
        yield gateway
    finally:
        await gateway.aclose()


@asynccontextmanager
async def calling(gateway: Gateway, tool: str, arguments: Arguments) -> AsyncIterator[Call]:
    """Start a call; cancel it at the end of the block if it is still running."""
    call = Call()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call.run, gateway, tool, arguments)
        await settle()
        yield call
        tasks.cancel_scope.cancel()


async def finished(environment: Mapping[str, str], tool: str, arguments: Arguments, seconds: float = 60) -> Call:
    """Make a call through a gateway of its own; fail if it takes longer than `seconds`."""
    async with opened(environment) as gateway, calling(gateway, tool, arguments) as call:
        return await call.finish(seconds)


async def outside(environment: Mapping[str, str], method: str, path: str, body: Any = None) -> Any:
    """Send a request to a provider as another client would, and return the value of the response."""
    key = environment[KEYS[path.split("/")[1]]]
    origin = environment["RENDER_BASE_URL"].removesuffix("/render/v1")
    headers = {"Authorization": f"Bearer {key}", "X-Runway-Version": "2024-11-06", "Accept": "application/json"}
    async with httpx.AsyncClient(headers=headers) as client:
        response = await client.request(method, origin + path, json=body)
    response.raise_for_status()
    return response.json() if response.content else None


def is_from_server(request: RecordedRequest) -> bool:
    """Return whether our server sent the request, and not `outside`."""
    return dict(request.headers)["user-agent"].startswith("mcp-taskruns/")


def sent(simulator: Simulator) -> list[str]:
    """Return the method and path of each request that our server sent."""
    return [f"{request.method} {request.path}" for request in simulator.requests if is_from_server(request)]


def json_response(value: Any, status: int = 200) -> Fault:
    """Return a fault that responds with this value instead of the simulator's own response."""
    return Fault(status, {"Content-Type": "application/json"}, json.dumps(value))


def timeless(value: dict[str, Any]) -> dict[str, Any]:
    """Return the value of a wait without its seconds, which depend on the speed of the machine."""
    return {name: item for name, item in value.items() if name != "elapsed_seconds"}


def run_json(provider: str, native: str, **more: Any) -> Any:
    """Return the active run of a provider as the provider sends it, with this status."""
    run_id = READS[provider].removesuffix("/").rpartition("/")[2]
    if provider == "inngest":
        return {"data": {"run_id": run_id, "status": native, **more}}
    return {"id": run_id, "status": native, **more}
