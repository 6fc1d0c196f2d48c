"""Two thousand calls of all tools at once, against providers that fail a third of the time, on a driven clock."""

import base64
import json
import logging
import random
import re
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_args
from urllib.parse import quote

import anyio
import pytest
from mcp.client import Client
from mcp.types import CallToolResult, TextContent

from mcp_taskruns.errors import Kind
from mcp_taskruns.mcp_adapter import build_server
from mcp_taskruns.simulator import runway
from mcp_taskruns.simulator.app import Fault, RecordedRequest, Simulator, serve
from mcp_taskruns.simulator.lifecycle import Step, Timeline
from tests.clock import DRIVEN, LoopClock, pass_time
from tests.doors import open_gateway
from tests.runs.driver import (
    INNGEST_COMPLETED,
    INNGEST_RUNNING,
    POSTHOG_COMPLETED,
    POSTHOG_FAILED,
    POSTHOG_NOT_STARTED,
    POSTHOG_RUNNING,
    POSTHOG_RUNS,
    RENDER_COMPLETED,
    RENDER_RUNNING,
    RENDER_RUNS,
    RUNWAY_SUCCEEDED,
    TASK,
    Arguments,
    is_ours,
    outside,
)

pytestmark = pytest.mark.anyio

CALLS = 2_000
AT_ONCE = 32
JSON = {"Content-Type": "application/json"}
SEED = 20_261_124
TIMEOUT, WAIT = 60, 3
ONE, SEVERAL = TIMEOUT + 5, 4 * TIMEOUT + 10
"""What a call may take that is one request, and one that is several: reading, cancelling, reading, or page by page."""

PLANTED = {
    "RENDER_API_KEY": "rnd_planted_5d1c7a90b2e8f",
    "INNGEST_SIGNING_KEY": "signkey-test-planted77e2c4d19a",
    "POSTHOG_API_KEY": "phx_planted_c0ffee123456",
    "RUNWAYML_API_SECRET": "key_planted_0badf00d9876",
}
PLANTED_STATE = {"sandbox_connect_token": "planted-token-1f3e5a", "sandbox_url": "https://planted-1f3e5a.modal.host"}


@pytest.fixture
def anyio_backend() -> Any:
    return DRIVEN


def forms_of(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="")
    for offset in range(3):
        # What is sure to be the secret's own, wherever it stands in what is encoded
        yield base64.b64encode(b"\0" * offset + secret.encode())[4:-4].decode()


SECRET_FORMS = [form for secret in (*PLANTED.values(), *PLANTED_STATE.values()) for form in forms_of(secret)]


class Faults:
    """Spoils about a third of the requests, and knows which."""

    def __init__(self, rng: random.Random) -> None:
        self.spoiled: Counter[str] = Counter()
        self.with_garbage: list[RecordedRequest] = []
        self._rng = rng

    def choose(self, request: RecordedRequest) -> Fault | None:
        if not is_ours(request) or self._rng.random() > 0.34:
            return None
        name = self._rng.choice(["429", "502", "503", "504", "cut", "cut early", "slow", "hangs", "garbage", "echo"])
        self.spoiled[name] += 1
        if name == "garbage":
            self.with_garbage.append(request)
        return self._fault(name, dict(request.headers).get("authorization", ""))

    def _fault(self, name: str, key: str) -> Fault:
        rng = self._rng
        match name:
            case "429":
                header = rng.choice(["Retry-After", "Ratelimit-Reset", "Retry-After-Ms"])
                return Fault(429, {header: "700" if header.endswith("Ms") else "1"}, "slow down")
            case "cut":
                return Fault(cut=True)
            case "cut early":
                return Fault(200, JSON, '{"id": "x", "status": "y"}', cut=True)
            case "slow":
                return Fault(delay=rng.uniform(0.5, 5))
            case "hangs":
                return Fault(delay=200)
            case "echo":
                return Fault(rng.choice([400, 401, 500]), JSON, json.dumps({"error": key}))
            case "garbage":
                return rng.choice(
                    [
                        Fault(200, {"Content-Type": "text/html"}, "<html><title>Sign in</title></html>"),
                        Fault(200, JSON, '{"id": "trn-1", "results": [1, 2'),
                        Fault(200, JSON, b'\xff\xfe{"id"}'),
                        Fault(200, {"Content-Type": "application/x-thing"}, bytes(range(256))),
                        Fault(200, {}, "z" * 32_000),
                        Fault(200, JSON, '["another", "shape"]'),
                    ]
                )
        return Fault(int(name), body="busy")


@dataclass
class Made:
    """One call: what was asked, how it ended, and the mark that its arguments carry."""

    tool: str
    arguments: Arguments
    mark: str
    result: CallToolResult | None = None
    progress: list[tuple[float, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def texts(self) -> list[str]:
        assert self.result is not None
        return [block.text for block in self.result.content if isinstance(block, TextContent)]

    @property
    def error(self) -> Any:
        return json.loads(self.texts[0].rpartition("\n")[2]) if self.result and self.result.is_error else None

    @property
    def value(self) -> Any:
        """The answer as an object, where it is one of ours or of the provider's."""
        structured = self.result.structured_content if self.result else None
        if structured is not None and "text" not in structured:
            return structured
        return None


def on(run_id: str, **more: Any) -> Arguments:
    return {"task_id": TASK, "id": run_id, **more}


def body(run_id: str, **members: Any) -> Arguments:
    return on(run_id, body=members)


def file(mark: str, **more: Any) -> dict[str, Any]:
    return {"name": f"{mark}.txt", "type": "context", **more}


MAKE: dict[str, Callable[[str, random.Random], Arguments]] = {
    "render-list-task-runs": lambda _, rng: {"limit": 3, "all_pages": rng.random() < 0.5},
    "render-run-task": lambda mark, rng: {
        "body": {"task": "demo-workflow/square", "input": [mark], "idempotencyKey": mark},
        **({"wait_seconds": WAIT} if rng.random() < 0.3 else {}),
    },
    "render-stream-realtime-events-sse": lambda _, __: {
        "taskRunIds": [RENDER_COMPLETED, RENDER_RUNNING],
        "wait_seconds": WAIT,
    },
    "render-retrieve-task-run": lambda _, __: {"taskRunId": RENDER_COMPLETED},
    "render-list-tasks": lambda _, __: {"limit": 2, "all_pages": True},
    "render-retrieve-task": lambda _, __: {"taskId": "tsk-d5im0000000000000001"},
    "render-wait-for-run": lambda _, __: {"taskRunId": [RENDER_COMPLETED, RENDER_RUNNING], "wait_seconds": WAIT},
    "inngest-get-function-run-status": lambda _, __: {"runId": INNGEST_COMPLETED},
    "inngest-cancel-function-run": lambda _, __: {"runId": INNGEST_RUNNING},
    "inngest-list-jobs-steps-run": lambda _, __: {"runId": INNGEST_RUNNING},
    "inngest-wait-for-run": lambda _, __: {"runId": INNGEST_RUNNING, "wait_seconds": WAIT},
    "posthog-list-task-runs": lambda _, __: {"task_id": TASK, "limit": 2, "all_pages": True},
    "posthog-create-task-run": lambda mark, _: {"task_id": TASK, "body": {"environment": "cloud", "branch": mark}},
    "posthog-retrieve-task-run": lambda _, __: on(POSTHOG_RUNNING),
    "posthog-update-task-run": lambda mark, _: body(POSTHOG_RUNNING, stage=mark),
    "posthog-append-log-entries": lambda mark, _: body(POSTHOG_RUNNING, entries=[{"type": mark}]),
    "posthog-upload-artifacts-task-run": lambda mark, _: body(POSTHOG_FAILED, artifacts=[file(mark, content="hi")]),
    "posthog-download-artifact-through-backend": lambda _, __: body(POSTHOG_COMPLETED, storage_path="x"),
    "posthog-finalize-direct-uploads-task-run": lambda mark, _: body(
        POSTHOG_FAILED, artifacts=[file(mark, id="a", storage_path="x")]
    ),
    "posthog-prepare-direct-uploads-task-run": lambda mark, _: body(
        POSTHOG_FAILED, artifacts=[file(mark, content=mark)]
    ),
    "posthog-generate-presigned-url-artifact": lambda _, __: body(POSTHOG_COMPLETED, storage_path="x"),
    "posthog-send-command-agent-server": lambda mark, _: body(
        POSTHOG_RUNNING, jsonrpc="2.0", method="user_message", params={"content": mark}
    ),
    "posthog-get-sandbox-connection-token": lambda _, __: on(POSTHOG_RUNNING),
    "posthog-get-task-run-logs": lambda _, __: on(POSTHOG_COMPLETED, last=5),
    "posthog-relay-run-message-slack": lambda mark, _: body(POSTHOG_RUNNING, text=mark),
    "posthog-resume-task-run-cloud": lambda _, __: on(POSTHOG_FAILED),
    "posthog-get-filtered-task-run-session": lambda _, __: on(POSTHOG_COMPLETED, limit=5, all_pages=True),
    "posthog-set-run-output": lambda mark, _: body(POSTHOG_COMPLETED, output={"summary": mark}),
    "posthog-start-task-run": lambda mark, _: body(POSTHOG_NOT_STARTED, pending_user_message=mark),
    "posthog-stream-task-run": lambda _, __: on(POSTHOG_RUNNING, wait_seconds=WAIT),
    "posthog-wait-for-run": lambda _, __: on(POSTHOG_RUNNING, wait_seconds=WAIT),
    "runway-retrieve-task-status-and-output": lambda _, __: {"id": RUNWAY_SUCCEEDED},
    "runway-wait-for-run": lambda _, __: {"id": RUNWAY_SUCCEEDED, "wait_seconds": WAIT},
}
CANCELS = {"render-cancel-task-run": "taskRunId", "runway-cancel-delete-task": "id"}
"""Each call gets a run of its own to cancel."""

QUICK = {
    "render-retrieve-task-run",
    "render-retrieve-task",
    "render-run-task",
    "inngest-get-function-run-status",
    "inngest-list-jobs-steps-run",
    "runway-retrieve-task-status-and-output",
    *(
        name
        for name in MAKE
        if name.startswith("posthog-")
        and not re.search("list|wait|stream|prepare|command|session|create|start|resume", name)
    ),
}
"""The tools whose calls are one request, or that one again."""


class Soak:
    """The calls, and the providers on which they are made."""

    def __init__(self, simulator: Simulator, environment: dict[str, str], rng: random.Random) -> None:
        self.calls: list[Made] = []
        self.faults = Faults(rng)
        self.simulator = simulator
        self.environment = environment
        self._rng = rng

    async def prepare(self) -> None:
        """Plant secrets, and runs to cancel."""
        for run_id in (POSTHOG_RUNNING, POSTHOG_COMPLETED, POSTHOG_FAILED):
            await outside(self.environment, "PATCH", f"{POSTHOG_RUNS}/{run_id}/", {"state": PLANTED_STATE})
        share = CALLS // (len(MAKE) + len(CANCELS)) + 1
        order = {"task": "demo-workflow/slow", "input": []}
        runs = [await outside(self.environment, "POST", RENDER_RUNS, order) for _ in range(share)]
        going = Timeline((Step(0, "RUNNING"), Step(3600, "SUCCEEDED", ended=True)))
        tasks = [runway.Task(str(uuid.UUID(int=self._rng.getrandbits(128), version=4)), going) for _ in range(share)]
        self.simulator.runway._tasks |= {task.id: task for task in tasks}
        self.simulator.runway._began |= {task.id: 0.0 for task in tasks}
        targets = {
            "render-cancel-task-run": [r["id"] for r in runs],
            "runway-cancel-delete-task": [t.id for t in tasks],
        }
        names = [*MAKE, *CANCELS]
        for number in range(CALLS):
            tool, mark = names[number % len(names)], f"mark{number:05d}m"
            cancel = CANCELS.get(tool)
            arguments = {cancel: targets[tool].pop()} if cancel else MAKE[tool](mark, self._rng)
            self.calls.append(Made(tool, arguments, mark))
        self._rng.shuffle(self.calls)
        record = self.simulator.record

        def recording(request: RecordedRequest) -> Fault | None:
            record(request)
            return self.faults.choose(request)

        self.simulator.record = recording  # type: ignore[method-assign]

    async def run(self, client: Client) -> None:
        """Make all calls, so many at once, while time passes."""
        left = iter(self.calls)

        async def work() -> None:
            for call in left:
                await self._call(client, call)

        async def drive() -> None:
            while True:
                await pass_time(0.5, step=0.5)

        async with anyio.create_task_group() as driver:
            driver.start_soon(drive)
            async with anyio.create_task_group() as workers:
                for _ in range(AT_ONCE):
                    workers.start_soon(work)
            driver.cancel_scope.cancel()

    async def _call(self, client: Client, call: Made) -> None:
        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            call.progress.append((progress, message or ""))

        began = anyio.current_time()
        call.result = await client.call_tool(call.tool, call.arguments, progress_callback=on_progress)
        call.seconds = anyio.current_time() - began

    @cached_property
    def marked(self) -> dict[str, list[RecordedRequest]]:
        """What was sent for each call that has its mark in what it sends."""
        found: dict[str, list[RecordedRequest]] = defaultdict(list)
        for request in filter(is_ours, self.simulator.requests):
            for mark in set(re.findall(r"mark\d{5}m", request.body.decode("utf-8", "replace"))):
                found[mark].append(request)
        return found


@pytest.fixture(scope="module")
def log() -> Iterator[list[str]]:
    """Everything that is logged, of whatever level."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.getMessage()} {record.exc_text or ''} {record.args}")

    handler, root = Keep(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lines
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
async def soak() -> AsyncIterator[Soak]:
    simulator = Simulator(clock=LoopClock())
    async with serve(simulator) as origin:
        environment = {
            **simulator.environment(origin),
            **PLANTED,
            "MCP_TASKRUNS_TIMEOUT": str(TIMEOUT),
            "MCP_TASKRUNS_WAIT_SECONDS": str(WAIT),
        }
        yield Soak(simulator, environment, random.Random(SEED))


@pytest.mark.timeout(300)
async def test_two_thousand_calls_with_faults_end_as_they_should(soak: Soak, log: list[str]) -> None:
    await soak.prepare()
    gateway = open_gateway(soak.environment)
    timeouts = {name: tool.operation.timeout_s for name, tool in gateway.tools.items()}
    async with Client(build_server(gateway), mode="auto") as client:
        await soak.run(client)
    calls = soak.calls
    kinds = Counter(call.error["kind"] if call.error else "success" for call in calls)
    summary = f"seed {SEED}: {dict(kinds)}; faults {dict(soak.faults.spoiled)}"
    assert len(calls) == CALLS == sum(kinds.values()), summary
    assert set(kinds) <= {*get_args(Kind), "success"}, summary
    assert kinds["success"] > CALLS // 2, summary
    assert sum(soak.faults.spoiled.values()) > CALLS // 3, summary
    assert_bounds(calls, timeouts)
    assert_nothing_unsafe_was_repeated(soak)
    assert_no_secrets(calls, log)
    assert_the_providers_agree(soak)


def assert_bounds(calls: list[Made], timeouts: dict[str, float | None]) -> None:
    for call in calls:
        is_quick = call.tool in QUICK and "wait_seconds" not in call.arguments
        bound = (timeouts[call.tool] or 0) + (ONE if is_quick else SEVERAL)
        assert call.seconds <= bound, f"{call.tool} took {call.seconds:.0f} s"
        values = [value for value, _ in call.progress]
        assert values == sorted(set(values)), call.tool


def assert_nothing_unsafe_was_repeated(soak: Soak) -> None:
    """By the mark in what was sent, or by the run that each call had for itself."""
    safe = {"posthog-finalize-direct-uploads-task-run"}
    deleted = Counter(r.path.rpartition("/")[2] for r in soak.simulator.requests if r.method == "DELETE")
    for call in soak.calls:
        requests = soak.marked[call.mark]
        if call.tool == "render-run-task":
            assert len({request.body for request in requests}) <= 1
            started = [run for run in soak.simulator.render._runs.values() if run.input == [call.mark]]
            assert len(started) <= 1, call.mark
        elif call.tool == "posthog-prepare-direct-uploads-task-run":
            prepared = [request for request in requests if request.path.endswith("/prepare_upload/")]
            assert len(prepared) <= 1, call.mark
        elif requests and call.tool not in safe:
            assert len(requests) == 1, f"{call.tool} was sent {len(requests)} times"
        if call.tool in CANCELS:
            run_id = call.arguments[CANCELS[call.tool]]
            assert deleted[run_id] <= 1, call.tool
    for ending in ("/connection_token/", "/resume_in_cloud/"):
        made = [c for c in soak.calls if ending[1:5] in c.tool or ending[1:7] in c.tool]
        assert len([r for r in soak.simulator.requests if r.path.endswith(ending)]) <= len(made)


def assert_no_secrets(calls: list[Made], log: list[str]) -> None:
    told = [call.result.model_dump_json() + json.dumps(call.progress) for call in calls if call.result is not None]
    ours = [line for line in log if "connection_made" not in line]
    for form in SECRET_FORMS:
        assert not any(form in text for text in told), form
        assert not any(form in line for line in ours), form


def assert_the_providers_agree(soak: Soak) -> None:
    """What a call was told to have done is done; what was told not to be sent did not arrive."""
    garbled = {id(request) for request in soak.faults.with_garbage}
    checked: Counter[str] = Counter()
    for call in soak.calls:
        requests = soak.marked[call.mark]
        if call.error and "Nothing was sent" in call.error["hint"]:
            assert requests == [], f"{call.tool}: {call.error}"
        if not call.error and not any(id(request) in garbled for request in requests):
            checked[call.tool] += is_done(call, soak.simulator)
    assert {tool for tool, count in checked.items() if count > 5} >= {
        "render-run-task",
        "render-cancel-task-run",
        "inngest-cancel-function-run",
        "runway-cancel-delete-task",
        "posthog-create-task-run",
        "posthog-upload-artifacts-task-run",
        "posthog-prepare-direct-uploads-task-run",
    }, checked


def is_done(call: Made, simulator: Simulator) -> bool:
    """Whether there was something to be done; fails when it was not."""
    world = simulator.posthog._world
    value = call.value or {}
    run_id = str(value.get("id") or value.get("run_id"))
    match call.tool:
        case "posthog-upload-artifacts-task-run":
            assert f"{call.mark}.txt" in {entry["name"] for entry in world.runs[POSTHOG_FAILED].artifacts}
        case "posthog-prepare-direct-uploads-task-run":
            stored = [bytes(one.content) for path, one in world.storage.objects.items() if call.mark in path]
            assert stored == [call.mark.encode()]
        case "render-run-task" if value:
            assert simulator.render._runs[run_id].input == [call.mark]
        case "posthog-create-task-run" if value:
            assert world.runs[run_id].branch == call.mark
        case "render-cancel-task-run" if value.get("cancelled"):
            run = simulator.render._runs[run_id]
            assert run.step(simulator.clock.now()).state == "canceled"
        case "runway-cancel-delete-task" if value.get("cancelled"):
            assert run_id not in simulator.runway._tasks
        case "inngest-cancel-function-run" if value.get("state") == "canceled":
            assert simulator.inngest._timelines[run_id].steps[-1].state == "Cancelled"
        case _:
            return False
    return True
