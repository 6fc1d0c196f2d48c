"""A thousand calls of all tools, many at once, to providers that spoil a third of their answers.

Each call has something of its own to act on, whose id or mark is in whatever is sent for it: so each request is known
to be of a call, and what the call was told can be compared with what happened.
"""

import base64
import io
import json
import logging
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, get_args
from urllib.parse import quote

import anyio
import pytest
from mcp.client import Client
from mcp.types import CallToolResult, TextContent
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import Kind
from mcp_taskruns.servers.mcp.server import build_server
from mcp_taskruns.simulator import inngest, runway
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from mcp_taskruns.simulator.lifecycle import Step, Timeline
from mcp_taskruns.simulator.posthog.data import Run as PostHogRun
from mcp_taskruns.simulator.posthog.notifications import console
from mcp_taskruns.simulator.posthog.seeds import JSON_SCHEMA, PNG, cloud_script
from mcp_taskruns.simulator.render import runs as render_runs
from mcp_taskruns.simulator.server import serve
from mcp_taskruns.simulator.traffic import RecordedRequest
from tests.calls import KEYS, TRIES, Arguments
from tests.clients import open_gateway
from tests.clock import DRIVEN, LoopClock, pass_time

# The soak is in the time of the first test
pytestmark = pytest.mark.anyio

logger = logging.getLogger(__name__)

SEED = 20_261_124
CALLS = 1_000
AT_ONCE = 32
SPOILED = 0.3
"""Of the requests of a call; of every tenth call, which has no luck, nearly all are."""
TIMEOUT, WAIT = 30.0, 4.0
MARGIN = 10.0
"""Seconds for the machine, and for the step in which the clock moves."""
HUNG = 100.0
"""Longer than any call but a command to PostHog's agent, which has ten minutes."""

PLANTED = {
    "RENDER_API_KEY": "rnd_planted+5d1c/7a90b2e8f=",
    "INNGEST_SIGNING_KEY": "signkey-test-planted+77e2/c4d19a=",
    "POSTHOG_API_KEY": "phx_planted+c0ffee/123456=",
    "RUNWAYML_API_SECRET": "key_planted+0badf/00d9876=",
}
PLANTED_STATE = {"sandbox_connect_token": "planted-token-1f3e5a", "sandbox_url": "https://planted-1f3e5a.modal.host"}
# What the simulated PostHog makes itself: the state of a run in the cloud, a token's signature, the path of log_url
MADE_THERE = ["sct_simulated_secret", "https://sb-simulated.modal.host", ".c2ltdWxhdGVk", "/storage/tasks/logs/"]


def _forms_of(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="")
    for offset in range(3):
        # What is sure to be the secret's own, wherever it stands in what is encoded
        encoded = base64.b64encode(b"\0" * offset + secret.encode())[4:-4].decode()
        yield encoded
        yield encoded.replace("+", "-").replace("/", "_")


SECRETS = [
    *MADE_THERE,
    *(form for secret in (*PLANTED.values(), *PLANTED_STATE.values()) for form in _forms_of(secret)),
]

JSON = {"Content-Type": "application/json"}


def _spelled_out(text: str) -> str:
    return '{"error": "' + "".join(f"\\u{ord(character):04x}" for character in text) + '"}'


def _refused(dice: random.Random, _: str) -> Fault:
    wait = dice.choice([{}, {"Retry-After": "1"}, {"Retry-After-Ms": "700"}, {"Ratelimit-Reset": "1"}])
    return Fault(429, wait, "slow down")


def _echo(dice: random.Random, key: str) -> Fault:
    """An answer that shows what it was asked with, refused or not."""
    body = dice.choice(
        [
            json.dumps({"error": f"not for {key}"}),
            json.dumps({"detail": quote(key, safe="")}),
            json.dumps({"message": base64.b64encode(key.encode()).decode()}),
            _spelled_out(key),
            f"<html><title>{key}</title></html>",
        ]
    )
    return Fault(dice.choice([200, 400, 401, 403, 500]), dice.choice([JSON, {}, {"X-Key": key}]), body)


def _garbage(dice: random.Random, _: str) -> Fault:
    return dice.choice(
        [
            Fault(200, {"Content-Type": "text/html"}, "<html><title>Sign in</title></html>"),
            Fault(200, JSON, '{"id": "trn-1", "results": [1, 2'),
            Fault(200, JSON, b'\xff\xfe{"id"}'),
            Fault(200, {"Content-Type": "application/x-thing"}, bytes(range(256))),
            Fault(200, {}, "z" * 32_000),
            Fault(200, JSON, '["another", "shape"]'),
            Fault(200, {"Content-Type": "text/event-stream"}, "data: {\n\nevent"),
        ]
    )


FAULTS: dict[str, Callable[[random.Random, str], Fault]] = {
    "429": _refused,
    "502": lambda *_: Fault(502, body="busy"),
    "503": lambda *_: Fault(503, body="busy"),
    "504": lambda *_: Fault(504, body="busy"),
    "cut": lambda *_: Fault(truncate=True),
    "cut early": lambda *_: Fault(200, JSON, '{"id": "x", "status": "y"}', truncate=True),
    "lost": lambda *_: Fault(),
    "late": lambda *_: Fault(),
    "slow": lambda dice, _: Fault(delay=dice.uniform(0.5, 5)),
    "hangs": lambda *_: Fault(delay=HUNG),
    "garbage": _garbage,
    "echo": _echo,
}
"""What happens to a request, by dice and by the credential that it has."""

DOUBTFUL = {"", "502", "504", "cut", "cut early", "lost", "late", "slow", "hangs"}
"""After these the provider has done what it was asked, or may have: whoever asked cannot know."""

IN_PLACE = {"garbage", "echo"}
"""Answers that a client may take for one to what it asked."""


@dataclass
class Sent:
    """A request that arrived, what happened to it, and the status with which it was answered, if it was."""

    request: RecordedRequest
    number: int | None
    fault: str = ""
    status: int | None = None

    @property
    def place(self) -> str:
        """Which of the provider's operations it is."""
        path = re.sub(r"[^/]*\d[^/]*", "*", self.request.path.partition("?")[0].rstrip("/").replace("/v1/", "/V/"))
        return f"{self.request.method} {path}"

    @property
    def target(self) -> str:
        """What it asks for: who asks for that again has tried again. Files are told apart by their form's key."""
        key = re.search(rb'name="key"\r\n\r\n([^\r]*)', self.request.body)
        return f"{self.request.method} {self.request.path} {key[1].decode() if key else ''}"

    @property
    def is_write(self) -> bool:
        return self.request.method != "GET" or "/connection_token" in self.request.path


_now: ContextVar[Sent] = ContextVar("_now")
"""What the providers respond to."""


class _Losing:
    """An answer that its provider has given, and that is lost or comes too late."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def pass_on(message: Message) -> None:
            sent = _now.get()
            if message["type"] == "http.response.start":
                sent.status = message["status"]
                if sent.fault == "late":
                    with anyio.move_on_after(HUNG):
                        await sent.request.disconnected.wait()
                elif sent.fault == "lost":
                    # An answer that is not finished when the app returns: the server drops the connection.
                    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            if sent.fault != "lost":
                await send(message)

        await self._app(scope, receive, pass_on)


NUMBER = re.compile(r"(?:mark|trn-0{10}|01J0{13})(\d{10})|(\d{8})-0000-4000-8000-0{12}")
"""The number of a call, in what was made for it."""


def mark(number: int) -> str:
    return f"mark{number:010d}"


def uuid_of(number: int) -> str:
    return f"{number:08d}-0000-4000-8000-000000000000"


def ulid_of(number: int) -> str:
    return f"01J{number:023d}"


class Wire:
    """The way to the providers: spoils what dice say, and knows of each request which it was."""

    def __init__(self, simulator: Simulator, seed: int) -> None:
        self.sent: list[Sent] = []
        self._seed = seed
        self._dice: dict[int | None, random.Random] = {}
        simulator.traffic.on_request = self.choose_fault
        simulator.app.add_middleware(_Losing)

    def choose_fault(self, request: RecordedRequest) -> Fault | None:
        found = NUMBER.search(request.path + request.body.decode("utf-8", "replace"))
        number = int(found[1] or found[2]) if found else None
        sent = Sent(request, number)
        _now.set(sent)
        self.sent.append(sent)
        # Of each call its own, so that what happens to it does not depend on the others
        dice = self._dice.setdefault(number, random.Random(f"{self._seed} {number} faults"))
        if dice.random() >= (0.9 if number is not None and number % 10 == 0 else SPOILED):
            return None
        sent.fault = dice.choice(list(FAULTS))
        return FAULTS[sent.fault](dice, dict(request.headers).get("authorization", ""))


class Stage:
    """The providers, and what each call finds there for itself alone."""

    def __init__(self, simulator: Simulator) -> None:
        self.clock = simulator.clock
        self.render = simulator.render
        self.inngest = simulator.inngest
        self.runway = simulator.runway
        self.project = simulator.posthog.project

    def render_run(self, number: int, name: str, age: float = 0, which: str = "") -> str:
        run_id = f"trn-{number:020d}{which}"
        task = render_runs.TASKS_BY_NAME[name]
        outcome = task.work([7])
        timeline, began = task.timeline(outcome), self.clock.now() - age
        self.render.runs[run_id] = render_runs.Run(run_id, task, [7], began, timeline, outcome, root=run_id)
        return run_id

    def inngest_run(self, number: int, dice: random.Random) -> str:
        run_id = ulid_of(number)
        model = inngest.RUNS[dice.choice([0, 1, 2])]  # begins when it is read, goes on for minutes, completed
        began = model.started_at and self.clock.now() + model.started_at
        self.inngest.runs[run_id] = inngest.Run(
            run_id, model.event_id, model.function, model.function_id, model.timeline, model.output, began, model.jobs
        )
        self.inngest.started_at[run_id], self.inngest.timelines[run_id] = began, model.timeline
        return run_id

    def runway_task(self, number: int, dice: random.Random) -> str:
        going_on = Timeline((Step(0, "RUNNING"), Step(600, "SUCCEEDED", is_terminal=True)))
        task = runway.Task(uuid_of(number), dice.choice([going_on, runway.TASKS[0].timeline, runway.TASKS[1].timeline]))
        self.runway.tasks[task.id], self.runway.started_at[task.id] = task, self.clock.now()
        return task.id

    def posthog_run(self, number: int, status: str = "in_progress", schema: Any = None) -> PostHogRun:
        """A run in the cloud and its task, of the same id, with secrets in its state and in its log's address."""
        task = self.project.add_task(uuid_of(number), number, "Soak", schema, self.clock.timestamp())
        run = self.project.add_run(
            task.id, task, environment="cloud", status=status, state=dict(PLANTED_STATE), in_slack=True
        )
        self.project.add_notification(run, console("begun"))
        self.project.add_notification(run, console("going on"))
        if run.is_terminal:
            self.project.change_run(run, {"status": status})
        return run

    def state_of(self, provider: str, run_id: str) -> str:
        """How the provider calls the state of a run now; empty when there is no such run."""
        now = self.clock.now()
        match provider:
            case "render":
                return self.render.runs[run_id].step(now).status
            case "inngest":
                return self.inngest.status(run_id)
            case "runway":
                task, began = self.runway.tasks.get(run_id), self.runway.started_at[run_id]
                return task.timeline.at(now - began).status if task and began is not None else ""
        self.project.run_scripts()
        return self.project.runs[run_id].status

    def run(self, call: "Call") -> PostHogRun:
        """The run at PostHog that is the call's own."""
        return self.project.runs[uuid_of(call.number)]

    def log(self, call: "Call") -> str:
        return self.project.storage.read(self.run(call).log_key).decode()

    def stored(self, call: "Call") -> list[str]:
        """The contents of the files that the call has brought to the storage."""
        objects = self.project.storage.objects.items()
        return [bytes(one.content).decode() for path, one in objects if mark(call.number) in path]

    def posthog_list(self, number: int) -> str:
        first = self.posthog_run(number)
        for _ in range(4):
            self.project.add_run(str(self.project.new_id()), first.task, state=dict(PLANTED_STATE))
        return first.task.id

    def at_work(self, number: int, dice: random.Random) -> PostHogRun:
        """A run that goes on, or one that ends in two seconds."""
        run = self.posthog_run(number)
        if dice.random() < 0.5:
            self.project.start_script(run, cloud_script(), self.clock.now() - 8)
        return run

    def artifact(self, run: PostHogRun, dice: random.Random, *, is_listed: bool) -> Arguments:
        """A file in the storage, and in the run's manifest or not."""
        name, content, content_type = dice.choice([("a.md", b"# A", "text/markdown"), ("a.png", PNG, "image/png")])
        entry = {"id": "a" * 32, "name": name, "type": "output", "content_type": content_type}
        entry["storage_path"] = f"{run.artifact_prefix}{'a' * 8}_{name}"
        self.project.storage.put(entry["storage_path"], content, content_type)
        if is_listed:
            run.artifacts.append({**entry, "source": "", "size": len(content), "uploaded_at": self.clock.timestamp()})
        return entry


def on(run: PostHogRun, **more: Any) -> Arguments:
    return {"task_id": run.task.id, "id": run.id, **more}


def to(run: PostHogRun, **body: Any) -> Arguments:
    return on(run, body=body)


def waiting(dice: random.Random) -> Arguments:
    return {"wait_seconds": WAIT} if dice.random() < 0.4 else {}


def keyed(number: int, dice: random.Random) -> Arguments:
    return {"idempotencyKey": mark(number)} if dice.random() < 0.5 else {}


def entry(number: int, now: str) -> Arguments:
    said = {"jsonrpc": "2.0", "method": "_posthog/console", "params": {"level": "info", "message": mark(number)}}
    return {"type": "notification", "timestamp": now, "notification": said}


def file(number: int, dice: random.Random, *, by_size: bool = False) -> Arguments:
    """A file with its content, or where it may be, one that the client will send itself."""
    contents: list[Arguments] = [
        {"content": mark(number)},
        {"content": base64.b64encode(mark(number).encode()).decode(), "content_encoding": "base64"},
        {"size": 20},
    ]
    return {"name": f"{mark(number)}.txt", "type": "context", **dice.choice(contents if by_size else contents[:2])}


def update(number: int, dice: random.Random) -> Arguments:
    """Fields of a run, or the status that cancels it."""
    cancelled = {"status": "cancelled"}
    return dice.choice([{"stage": mark(number)}, {"output": {"summary": mark(number)}}, cancelled, cancelled])


def command(number: int, dice: random.Random) -> Arguments:
    message: Arguments = {"method": "user_message", "params": {"content": mark(number)}}
    option: Arguments = {"method": "set_config_option", "params": {"configId": "mode", "value": mark(number)}}
    return {"jsonrpc": "2.0", **dice.choice([message, option, {"method": "cancel"}])}


MAKE: dict[str, Callable[[Stage, int, random.Random], Arguments]] = {
    "render-list-task-runs": lambda s, n, d: {
        "workflowId": [render_runs.WORKFLOW_ID, mark(n)],
        "limit": 20,
        "all_pages": d.random() < 0.5,
    },
    "render-run-task": lambda s, n, d: {
        "body": {"task": "demo-workflow/square", "input": [7, mark(n)], **keyed(n, d)},
        **waiting(d),
    },
    "render-stream-realtime-events-sse": lambda s, n, d: {
        "taskRunIds": [s.render_run(n, d.choice(["square", "slow"])), s.render_run(n, "fail", 10, "b")],
        "wait_seconds": WAIT,
    },
    "render-retrieve-task-run": lambda s, n, d: {"taskRunId": s.render_run(n, "square")},
    "render-cancel-task-run": lambda s, n, d: {"taskRunId": s.render_run(n, d.choice(["slow", "slow", "fail"]), 10)},
    "render-list-tasks": lambda s, n, d: {
        "workflowId": [render_runs.WORKFLOW_ID, mark(n)],
        "limit": 2,
        "all_pages": True,
    },
    "render-retrieve-task": lambda s, n, d: {"taskId": "tsk-d5im0000000000000001"},
    "render-wait-for-run": lambda s, n, d: {
        "taskRunId": [s.render_run(n, d.choice(["square", "slow"])), s.render_run(n, "fail", 10, "b")],
        "until": d.choice(["all", "any"]),
        "wait_seconds": WAIT,
    },
    "inngest-get-function-run-status": lambda s, n, d: {"runId": s.inngest_run(n, d)},
    "inngest-cancel-function-run": lambda s, n, d: {"runId": s.inngest_run(n, d)},
    "inngest-list-jobs-steps-run": lambda s, n, d: {"runId": s.inngest_run(n, d)},
    "inngest-wait-for-run": lambda s, n, d: {"runId": s.inngest_run(n, d), "wait_seconds": WAIT},
    "posthog-list-task-runs": lambda s, n, d: {"task_id": s.posthog_list(n), "limit": 2, "all_pages": d.random() < 0.7},
    "posthog-create-task-run": lambda s, n, d: {
        "task_id": s.posthog_run(n).task.id,
        "body": {"environment": "cloud", "signal_report_id": mark(n)},
        **waiting(d),
    },
    "posthog-retrieve-task-run": lambda s, n, d: on(s.posthog_run(n)),
    "posthog-update-task-run": lambda s, n, d: to(
        s.posthog_run(n, d.choice(["in_progress", "in_progress", "failed"])), **update(n, d)
    ),
    "posthog-append-log-entries": lambda s, n, d: to(s.posthog_run(n), entries=[entry(n, s.clock.timestamp())]),
    "posthog-upload-artifacts-task-run": lambda s, n, d: to(s.posthog_run(n), artifacts=[file(n, d)]),
    "posthog-download-artifact-through-backend": lambda s, n, d: to(
        run := s.posthog_run(n, "completed"), storage_path=s.artifact(run, d, is_listed=True)["storage_path"]
    ),
    "posthog-finalize-direct-uploads-task-run": lambda s, n, d: to(
        run := s.posthog_run(n), artifacts=[s.artifact(run, d, is_listed=False)]
    ),
    "posthog-prepare-direct-uploads-task-run": lambda s, n, d: to(
        s.posthog_run(n), artifacts=[file(n, d, by_size=True) for _ in range(d.choice([1, 2]))]
    ),
    "posthog-generate-presigned-url-artifact": lambda s, n, d: to(
        run := s.posthog_run(n, "completed"), storage_path=s.artifact(run, d, is_listed=True)["storage_path"]
    ),
    "posthog-send-command-agent-server": lambda s, n, d: to(s.posthog_run(n), **command(n, d)),
    "posthog-get-sandbox-connection-token": lambda s, n, d: on(s.posthog_run(n)),
    "posthog-get-task-run-logs": lambda s, n, d: on(s.posthog_run(n), last=5, raw=d.random() < 0.5),
    "posthog-relay-run-message-slack": lambda s, n, d: to(s.posthog_run(n), text=mark(n)),
    "posthog-resume-task-run-cloud": lambda s, n, d: on(s.posthog_run(n, "failed"), **waiting(d)),
    "posthog-get-filtered-task-run-session": lambda s, n, d: on(s.posthog_run(n), limit=1, all_pages=True),
    "posthog-set-run-output": lambda s, n, d: to(
        s.posthog_run(n, schema=d.choice([None, JSON_SCHEMA])), output={"summary": mark(n)}
    ),
    "posthog-start-task-run": lambda s, n, d: {
        **to(s.posthog_run(n, "not_started"), pending_user_message=mark(n)),
        **waiting(d),
    },
    "posthog-stream-task-run": lambda s, n, d: on(s.at_work(n, d), wait_seconds=WAIT),
    "posthog-wait-for-run": lambda s, n, d: on(s.at_work(n, d), wait_seconds=WAIT),
    "runway-retrieve-task-status-and-output": lambda s, n, d: {"id": s.runway_task(n, d)},
    "runway-wait-for-run": lambda s, n, d: {"id": s.runway_task(n, d), "wait_seconds": WAIT},
    "runway-cancel-delete-task": lambda s, n, d: {"id": s.runway_task(n, d)},
}
"""The arguments of each tool's calls."""

MORE_OFTEN = ["render-run-task"] * 3 + ["render-cancel-task-run"]
"""More than Render lets through in a minute."""

SAFE_TO_REPEAT = {
    # "Repeating a request with the same key within 24 hours returns the task run that the first request started":
    # render 1.5.0 public_api/models/run_task.py
    "POST /render/V/task-runs",
    # Cancelling what has ended changes nothing: inngest pkg/api/apiv1
    "DELETE /inngest/V/runs/*",
    # Reads by POST, of scope task:read, and what echoes an entry that exists: PostHog products/tasks/backend/api.py
    "POST /posthog/api/projects/*/tasks/*/runs/*/artifacts/download",
    "POST /posthog/api/projects/*/tasks/*/runs/*/artifacts/presign",
    "POST /posthog/api/projects/*/tasks/*/runs/*/artifacts/finalize_upload",
    # The same file to the same place
    "POST /posthog/storage",
}
"""What may arrive twice, although it is not for reading."""

LASTING: set[Kind] = {"auth", "not_found", "validation", "conflict", "usage_limit", "unsupported", "config"}
"""The kinds of errors that calling again does not mend."""


@dataclass
class Call:
    """One call: what was asked, what was told and when, and what was sent for it."""

    number: int
    tool: Tool
    arguments: Arguments = field(default_factory=dict)
    result: CallToolResult | None = None
    progress: list[tuple[float, str]] = field(default_factory=list)
    seconds: float = 0.0
    sent: list[Sent] = field(default_factory=list)

    def __str__(self) -> str:
        sent = [f"{one.place} {one.fault or 'as it should'} {one.status}" for one in self.sent]
        told = [text[:2_000] for text in self.texts] if self.result else "nothing"
        return f"{self.number} {self.tool.name} {self.arguments}\nsent {sent}\ntold {told}\nprogress {self.progress}"

    @property
    def texts(self) -> list[str]:
        assert self.result is not None
        return [block.text for block in self.result.content if isinstance(block, TextContent)]

    @property
    def error(self) -> Any:
        """The error as an object, or None where there is none."""
        return json.loads(self.texts[0].rpartition("\n")[2]) if self.result and self.result.is_error else None

    @property
    def value(self) -> Any:
        """The answer as an object, where it is one."""
        try:
            value = json.loads(self.texts[0])
        except (IndexError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def writes(self) -> list[Sent]:
        return [sent for sent in self.sent if sent.is_write]

    @property
    def is_odd(self) -> bool:
        """Whether something else than its provider has answered in its place."""
        return any(sent.fault in IN_PLACE for sent in self.sent)

    @property
    def bound(self) -> float:
        """The seconds within which it has to be answered: so much for each request, and for what it waits."""
        name, operation = self.tool.name, self.tool.operation
        body = self.arguments.get("body", {})
        one = operation.timeout_s or TIMEOUT
        a_wait = max(WAIT, 5) + 5  # the first reading may take 5 s, and the last one beyond the time
        if self.tool.is_wait_tool:
            return a_wait
        if operation.is_stream:
            return one + a_wait
        if body.get("method") == "cancel" or body.get("status") == "cancelled" or "-cancel-" in name:
            return TIMEOUT + one + 3 + TIMEOUT  # read, sent, and read when an answer is a new one
        if self.arguments.get("all_pages"):
            return one + WAIT  # no page is begun after that
        if name == "posthog-prepare-direct-uploads-task-run":
            return one + TIMEOUT * len(body["artifacts"])
        if "wait_seconds" in self.arguments:
            return one + (TIMEOUT if name == "posthog-create-task-run" else 0) + a_wait
        return one


class Soak:
    """The calls, what was logged meanwhile, and the providers afterwards."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.simulator = Simulator(clock=LoopClock())
        self.stage = Stage(self.simulator)
        self.wire = Wire(self.simulator, seed)
        self.calls: list[Call] = []
        self.log: list[str] = []
        self.output = io.StringIO()

    async def run(self) -> None:
        """Make all calls, so many at once, while time passes."""
        with _logging(self.log), redirect_stderr(self.output), redirect_stdout(self.output):
            async with serve(self.simulator) as origin:
                environment = {**self.simulator.environment(origin), **PLANTED}
                gateway = open_gateway(environment, timeout=TIMEOUT, wait_seconds=WAIT)
                names = [*MAKE, *MORE_OFTEN]
                self.calls = [Call(number, gateway.tools[names[number % len(names)]]) for number in range(CALLS)]
                async with Client(build_server(gateway), mode="auto") as client:
                    await self._make_calls(client)
        by_number: dict[int | None, list[Sent]] = defaultdict(list)
        for sent in self.wire.sent:
            by_number[sent.number].append(sent)
        for call in self.calls:
            call.sent = by_number[call.number]

    async def _make_calls(self, client: Client) -> None:
        left = iter(random.Random(self.seed).sample(self.calls, len(self.calls)))

        async def work() -> None:
            for call in left:
                await self._call(client, call)

        async def drive() -> None:
            while True:
                await pass_time(60)

        async with anyio.create_task_group() as driver:
            driver.start_soon(drive)
            async with anyio.create_task_group() as workers:
                for _ in range(AT_ONCE):
                    workers.start_soon(work)
            driver.cancel_scope.cancel()

    async def _call(self, client: Client, call: Call) -> None:
        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            call.progress.append((progress, message or ""))

        dice = random.Random(f"{self.seed} {call.number} arguments")
        call.arguments = MAKE[call.tool.name](self.stage, call.number, dice)
        began = anyio.current_time()
        call.result = await client.call_tool(call.tool.name, call.arguments, progress_callback=on_progress)
        call.seconds = anyio.current_time() - began

    def __str__(self) -> str:
        kinds = Counter(call.error["kind"] if call.error else "success" for call in self.calls)
        faults = Counter(sent.fault or "none" for sent in self.wire.sent)
        again = sum("retrying" in line for call in self.calls for _, line in call.progress)
        longest = max(self.calls, key=lambda call: call.seconds)
        return (
            f"seed {self.seed}: {len(self.calls):,} calls: {dict(kinds)}; {len(self.wire.sent):,} requests, "
            f"tried again {again:,} times: {dict(faults)}; the longest {longest.seconds:.0f} s, {longest.tool.name}"
        )


@contextmanager
def _logging(lines: list[str]) -> Iterator[None]:
    """Everything that is logged, of whatever level, with its traceback."""

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{self.format(record)} {record.args}")

    handler, root = Keep(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


ENDED = {"succeeded", "failed", "canceled"}
CANCELLED = {"render": {"canceled"}, "inngest": {"cancelled"}, "posthog": {"cancelled"}, "runway": {""}}
"""How the state of a run that was cancelled is called; Runway forgets it."""


def is_started(call: Call, stage: Stage) -> bool:
    """Once, and with the key that was told."""
    (key,) = {json.loads(sent.request.body)["idempotencyKey"] for sent in call.writes}
    (run,) = [run for run in stage.render.runs.values() if mark(call.number) in run.input]
    return run_of(call) == run.id and any(key in text for text in call.texts)


def is_created(call: Call, stage: Stage) -> bool:
    """Once, and started where its end was waited for."""
    (run,) = [run for run in stage.project.runs.values() if run.state_value("signal_report_id") == mark(call.number)]
    return run_of(call) == run.id and (run.status != "not_started") is ("wait_seconds" in call.arguments)


def run_of(call: Call) -> Any:
    return call.value.get("run_id") or call.value["id"]


def is_listed(call: Call, stage: Stage) -> bool:
    """Each run once, and all where it is not told that there are more."""
    ids = [run["id"] for run in call.value["results"]]
    missing = {run.id for run in stage.project.runs_of(stage.run(call).task)} - set(ids)
    return len(set(ids)) == len(ids) and bool(missing) is any("there are more" in text for text in call.texts)


def is_whole(call: Call, stage: Stage) -> bool:
    """The content of a file, as text or as an image."""
    assert call.result is not None
    (block,) = call.result.content
    told = block.text.encode() if isinstance(block, TextContent) else base64.b64decode(getattr(block, "data", ""))
    return told == stage.project.storage.read(call.arguments["body"]["storage_path"])


def is_commanded(call: Call, stage: Stage) -> bool:
    is_message = call.arguments["body"]["method"] == "user_message"
    return stage.log(call).count(mark(call.number)) == is_message and call.writes[-1].status == 200


DONE: dict[str, Callable[[Call, Stage], bool]] = {
    "render-run-task": is_started,
    "posthog-list-task-runs": is_listed,
    "posthog-create-task-run": is_created,
    "posthog-update-task-run": lambda c, s: c.arguments["body"].items() <= vars(s.run(c)).items(),
    "posthog-append-log-entries": lambda c, s: s.log(c).count(mark(c.number)) == 1,
    "posthog-upload-artifacts-task-run": lambda c, s: (
        [one["name"] for one in s.run(c).artifacts] == [f"{mark(c.number)}.txt"] and s.stored(c) == [mark(c.number)]
    ),
    "posthog-download-artifact-through-backend": is_whole,
    "posthog-finalize-direct-uploads-task-run": lambda c, s: [one["id"] for one in s.run(c).artifacts] == ["a" * 32],
    "posthog-prepare-direct-uploads-task-run": lambda c, s: (
        s.stored(c) == [mark(c.number) for one in c.arguments["body"]["artifacts"] if "content" in one]
    ),
    "posthog-send-command-agent-server": is_commanded,
    "posthog-relay-run-message-slack": lambda c, s: c.value["status"] == "accepted" and c.writes[-1].status == 200,
    "posthog-resume-task-run-cloud": lambda c, s: s.state_of("posthog", s.run(c).id) in {"in_progress", "completed"},
    "posthog-set-run-output": lambda c, s: s.run(c).output == {"summary": mark(c.number)},
    "posthog-start-task-run": lambda c, s: (
        s.run(c).state_value("pending_user_message") == mark(c.number) and s.run(c).status != "not_started"
    ),
}
"""Whether a call has done what its answer says."""


@pytest.fixture(scope="module")
def anyio_backend() -> Any:
    return DRIVEN


@pytest.fixture(scope="module")
async def soak() -> Soak:
    made = Soak(SEED)
    await made.run()
    return made


@pytest.fixture(autouse=True)
def _told(soak: Soak) -> None:
    logger.warning("%s", soak)  # shown beside what fails


async def test_every_tool_is_called_and_every_fault_happens(soak: Soak) -> None:
    tools = Counter(call.tool.name for call in soak.calls if not call.error)
    assert set(tools) == set(open_gateway({}).tools)
    assert min(tools.values()) > 5
    assert sum(tools.values()) > CALLS / 2
    assert {sent.fault for sent in soak.wire.sent} == {*FAULTS, ""}
    assert sum(1 for sent in soak.wire.sent if sent.fault) > len(soak.wire.sent) / 4


async def test_every_call_is_answered_within_its_bound(soak: Soak) -> None:
    assert len(soak.calls) == CALLS
    for call in soak.calls:
        assert call.result is not None
        assert call.seconds <= call.bound + MARGIN, str(call)
        values = [value for value, _ in call.progress]
        assert values == sorted(set(values)), str(call)


async def test_every_answer_is_a_success_or_an_error_of_the_one_model(soak: Soak) -> None:
    for call in soak.calls:
        error = call.error
        assert call.result is not None
        has_object = call.result.structured_content is not None
        assert has_object is (error is None and call.tool.output_schema is not None), str(call)
        if error is None:
            continue
        assert len(call.texts) == 1
        assert call.texts[0].startswith(error["message"].removesuffix(".")), str(call)
        assert error.keys() <= {"kind", "status", "message", "retryable", "retry_after_s", "hint"}, str(call)
        assert error["kind"] in get_args(Kind), str(call)
        assert error["hint"], str(call)
        assert error["retryable"] is False or error["kind"] not in LASTING, str(call)
        assert error["retryable"] is True or "retry_after_s" not in error, str(call)
        assert "the server failed" not in error["message"], str(call)


async def test_nothing_unsafe_is_sent_twice(soak: Soak) -> None:
    for call in soak.calls:
        for (place, _), count in Counter((sent.place, sent.target) for sent in call.writes).items():
            assert count <= (TRIES if place in SAFE_TO_REPEAT else 1), str(call)
        if call.tool.name == "render-run-task":
            assert len({sent.request.body for sent in call.writes}) <= 1, str(call)  # with one key, given or made


async def test_who_is_told_to_call_again_does_nothing_twice_by_that(soak: Soak) -> None:
    harmless = {"POST /posthog/api/projects/*/tasks/*/runs/*/artifacts/prepare_upload"}  # makes forms, and no more
    for call in soak.calls:
        if call.error and call.error["retryable"]:
            done = {sent.place for sent in call.writes if sent.fault in DOUBTFUL}
            assert done <= SAFE_TO_REPEAT | harmless, str(call)


async def test_no_secret_is_in_any_answer_or_log(soak: Soak) -> None:
    told = [call.result.model_dump_json() + json.dumps(call.progress) for call in soak.calls if call.result]
    for secret in SECRETS:
        for text in [*told, *soak.log, soak.output.getvalue()]:
            assert secret not in text, text[:2_000]
    assert sum("[secret]" in text for text in told) > 20
    assert sum("[redacted]" in text for text in told) > 100
    assert any("response provider=" in line for line in soak.log)


async def test_a_key_is_sent_to_its_provider_alone(soak: Soak) -> None:
    for sent in soak.wire.sent:
        headers = dict(sent.request.headers)
        is_form = sent.place == "POST /posthog/storage"
        own = PLANTED[KEYS[sent.request.provider]]
        assert headers.get("authorization") == (None if is_form else f"Bearer {own}")
        everything = f"{sent.request.path} {headers} {sent.request.body!r}"
        assert not any(secret in everything for secret in PLANTED.values() if secret != own)
        assert not is_form or own not in everything


async def test_what_is_told_of_the_providers_answers_is_what_they_answered(soak: Soak) -> None:
    for call in soak.calls:
        error = call.error
        if error is None or not call.sent:
            continue
        if "status" in error:
            assert error["status"] in {sent.status for sent in call.sent}, str(call)
        tries = re.search(r" \((\d) tries\)$", error["message"])
        if tries:
            assert int(tries[1]) in Counter(sent.target for sent in call.sent).values(), str(call)
            assert int(tries[1]) <= TRIES, str(call)


async def test_what_is_told_not_to_be_sent_has_not_arrived(soak: Soak) -> None:
    told = [call for call in soak.calls if call.error and "Nothing was sent" in call.error["hint"]]
    assert len(told) > 5
    for call in told:
        assert not (call.sent if call.tool.operation.is_safe else call.writes), str(call)


async def test_what_is_told_of_runs_is_so(soak: Soak) -> None:
    """Whatever was answered on the way."""
    ended: Counter[str] = Counter()
    for call in soak.calls:
        value, provider = call.value, call.tool.prefix
        if call.error:
            continue
        if call.tool.is_wait_tool:
            for run in value.get("runs", [value]):
                if run["terminal"]:
                    ended[call.tool.name] += 1
                    assert run["native_status"] == soak.stage.state_of(provider, run["run_id"]), str(call)
        elif "cancelled" in value:
            ended[call.tool.name] += value["cancelled"]
            is_cancelled = soak.stage.state_of(provider, value["run_id"]).lower() in CANCELLED[provider]
            assert is_cancelled or not value["cancelled"], str(call)
            # What ends by itself may have ended in between; what the provider has taken it will do.
            assert not is_cancelled or value["cancelled"] or not value["terminal"], str(call)
            assert not call.writes or value["status_before"] not in ENDED, str(call)
    assert len(ended) == 9
    assert min(ended.values()) > 0, ended


async def test_what_is_told_to_be_done_is_done(soak: Soak) -> None:
    checked: Counter[str] = Counter()
    for call in soak.calls:
        if not (call.error or call.is_odd or "cancelled" in call.value) and call.tool.name in DONE:
            checked[call.tool.name] += 1
            assert DONE[call.tool.name](call, soak.stage), str(call)
    assert checked.keys() == DONE.keys()
    assert min(checked.values()) > 0, checked
