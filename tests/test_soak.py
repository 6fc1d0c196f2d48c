"""Two thousand concurrent calls of all tools, to providers with faults in a third of their responses.

Every call acts on objects of its own. Their ids or marks are in every request, so that each request belongs to a call,
and the result of the call can be compared with what happened at the provider.
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

from mcp_taskruns.core.model.tool import Derived, Tool
from mcp_taskruns.engine.runs.explain import SIDE_SECONDS
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
from mcp_taskruns.simulator.render.app import Render
from mcp_taskruns.simulator.server import serve
from mcp_taskruns.simulator.traffic import RecordedRequest
from tests.calls import KEYS, TRIES, Arguments
from tests.clients import open_gateway
from tests.clock import DRIVEN, LoopClock, pass_time

pytestmark = [pytest.mark.anyio, pytest.mark.load]

logger = logging.getLogger(__name__)

SEED = 20_261_124
CALLS = 2_000
CONCURRENT_CALLS = 32
FAULT_RATE = 0.3
"""The share of requests with a fault. Every tenth call has a share of 0.9."""
TIMEOUT, WAIT = 30.0, 4.0
MARGIN = 10.0
"""Seconds of tolerance for the duration of a call."""
HANG_SECONDS = 100.0
"""Longer than any call except a command to PostHog's agent, which may take ten minutes."""

PLANTED = {
    "RENDER_API_KEY": "rnd_planted+5d1c/7a90b2e8f=",
    "INNGEST_SIGNING_KEY": "signkey-test-planted+77e2/c4d19a=",
    "POSTHOG_API_KEY": "phx_planted+c0ffee/123456=",
    "RUNWAYML_API_SECRET": "key_planted+0badf/00d9876=",
}
PLANTED_STATE = {"sandbox_connect_token": "planted-token-1f3e5a", "sandbox_url": "https://planted-1f3e5a.modal.host"}
# Secrets of the simulated PostHog: the state of a run in the cloud, the signature of a token, the path of log_url
POSTHOG_SECRETS = ["sct_simulated_secret", "https://sb-simulated.modal.host", ".c2ltdWxhdGVk", "/storage/tasks/logs/"]


def _encodings_of(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="")
    for offset in range(3):
        # The characters that depend only on the secret, whatever is encoded before and after it
        encoded = base64.b64encode(b"\0" * offset + secret.encode())[4:-4].decode()
        yield encoded
        yield encoded.replace("+", "-").replace("/", "_")


SECRETS = [
    *POSTHOG_SECRETS,
    *(form for secret in (*PLANTED.values(), *PLANTED_STATE.values()) for form in _encodings_of(secret)),
]

JSON = {"Content-Type": "application/json"}
PAGE = "<!DOCTYPE html>\n<html><head><title>Planted page</title></head><body>Sign in to continue</body></html>"


def _escaped(text: str) -> str:
    return '{"error": "' + "".join(f"\\u{ord(character):04x}" for character in text) + '"}'


def _rate_limited(rng: random.Random, _: str) -> Fault:
    wait = rng.choice([{}, {"Retry-After": "1"}, {"Retry-After-Ms": "700"}, {"Ratelimit-Reset": "1"}])
    return Fault(429, wait, "slow down")


def _cloudflare(rng: random.Random, _: str) -> Fault:
    """Return an error of Cloudflare in front of a provider that may have carried out the request."""
    page = "<!DOCTYPE html><title>Web server is returning an unknown error</title>"
    return Fault(
        rng.choice([520, 521, 522, 523, 524]), {"Content-Type": "text/html"}, page, carry_out=rng.random() < 0.5
    )


def _echo(rng: random.Random, key: str) -> Fault:
    """Return a response that contains the credential of its request."""
    body = rng.choice(
        [
            json.dumps({"error": f"not for {key}"}),
            json.dumps({"detail": quote(key, safe="")}),
            json.dumps({"message": base64.b64encode(key.encode()).decode()}),
            _escaped(key),
            f"<html><title>{key}</title></html>",
        ]
    )
    return Fault(rng.choice([200, 400, 401, 403, 500]), rng.choice([JSON, {}, {"X-Key": key}]), body)


def _garbage(rng: random.Random, _: str) -> Fault:
    return rng.choice(
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
    "429": _rate_limited,
    "502": lambda *_: Fault(502, body="busy"),
    "503": lambda *_: Fault(503, body="busy"),
    "504": lambda *_: Fault(504, body="busy"),
    "truncated": lambda *_: Fault(truncate=True),
    "truncated early": lambda *_: Fault(200, JSON, '{"id": "x", "status": "y"}', truncate=True),
    "lost": lambda *_: Fault(),
    "late": lambda *_: Fault(),
    "slow": lambda rng, _: Fault(delay=rng.uniform(0.5, 5)),
    "hangs": lambda *_: Fault(delay=HANG_SECONDS),
    "cloudflare": _cloudflare,
    "page": lambda *_: Fault(200, {"Content-Type": "text/html; charset=utf-8"}, PAGE),
    "truncated gzip": lambda *_: Fault(truncate_gzip=True),
    "failed after": lambda *_: Fault(502, JSON, '{"message": "upstream error"}', carry_out=True),
    "garbage": _garbage,
    "echo": _echo,
}
"""The faults by name: functions of a random generator and of the credential in the request."""

STREAM_FAULTS: dict[str, Fault] = {
    "lost end event": Fault(omit_events=r'"(completed|failed|canceled|cancelled)"|stream-end'),
    "negative retry": Fault(first_event="retry: -5\n\n"),
}
"""The faults of event streams by name."""

NOT_YET_VISIBLE = Fault(404, JSON, '{"message": "task run not found", "error": "Not found"}')
"""The response to a read shortly after a start."""

OUTCOME_UNKNOWN = {
    "",
    "502",
    "504",
    "truncated",
    "truncated early",
    "lost",
    "late",
    "slow",
    "hangs",
    "cloudflare",
    "truncated gzip",
    "failed after",
}
"""The faults after which the provider has carried out the request, or may have."""

PLAUSIBLE = {"garbage", "echo"}
"""The faults whose response may look like a success."""


@dataclass
class Sent:
    """A request at a provider, its fault and the status code of its response."""

    request: RecordedRequest
    number: int | None
    fault: str = ""
    status: int | None = None
    at: float = field(default_factory=anyio.current_time)
    replacement: Fault | None = None

    @property
    def operation(self) -> str:
        """The operation of the provider: method and path with `*` for ids."""
        path = re.sub(r"[^/]*\d[^/]*", "*", self.request.path.partition("?")[0].rstrip("/").replace("/v1/", "/V/"))
        return f"{self.request.method} {path}"

    @property
    def target(self) -> str:
        """The method and URL, equal for a request and its retries, with the form key of an uploaded file."""
        key = re.search(rb'name="key"\r\n\r\n([^\r]*)', self.request.body)
        return f"{self.request.method} {self.request.path} {key[1].decode() if key else ''}"

    @property
    def is_stream(self) -> bool:
        return bool(re.search(r"/(events|stream)/?($|\?)", self.request.path))

    @property
    def is_start(self) -> bool:
        """Whether the request starts a run, or resumes it."""
        return self.request.method == "POST" and bool(
            re.search(r"/(task-runs|start|resume_in_cloud)/?$", self.request.path)
        )

    @property
    def is_carried_out(self) -> bool:
        """Whether the provider has carried out the request, whatever happened to its response."""
        if self.replacement is not None and self.replacement.status is not None:
            return self.replacement.carry_out
        return self.status is not None and self.status < 300

    @property
    def is_write(self) -> bool:
        return self.request.method != "GET" or "/connection_token" in self.request.path


_now: ContextVar[Sent] = ContextVar("_now")
"""The request that a provider is responding to."""


class _LoseResponses:
    """Middleware for responses that are lost or late, although the provider has carried out the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def pass_on(message: Message) -> None:
            sent = _now.get()
            if message["type"] == "http.response.start":
                sent.status = message["status"]
                if sent.fault == "late":
                    with anyio.move_on_after(HANG_SECONDS):
                        await sent.request.disconnected.wait()
                elif sent.fault == "lost":
                    # The server drops the connection of a response that is incomplete when the app returns.
                    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            if sent.fault != "lost":
                await send(message)

        await self._app(scope, receive, pass_on)


NUMBER = re.compile(r"(?:mark|trn-0{10}|01J0{13})(\d{10})|(\d{8})-0000-4000-8000-0{12}")
"""The number of a call in the ids and marks of its objects."""


def mark(number: int) -> str:
    return f"mark{number:010d}"


def uuid_of(number: int) -> str:
    return f"{number:08d}-0000-4000-8000-000000000000"


def ulid_of(number: int) -> str:
    return f"01J{number:023d}"


class Wire:
    """The requests at the providers, and their faults."""

    def __init__(self, simulator: Simulator, seed: int) -> None:
        self.sent: list[Sent] = []
        self._seed = seed
        self._rng: dict[int | None, random.Random] = {}
        simulator.traffic.on_request = self.choose_fault
        simulator.app.add_middleware(_LoseResponses)

    def choose_fault(self, request: RecordedRequest) -> Fault | None:
        sent = self._record(request)
        sent.replacement = self._choose_fault(sent)
        return sent.replacement

    def _record(self, request: RecordedRequest) -> Sent:
        match = NUMBER.search(request.path + request.body.decode("utf-8", "replace"))
        number = int(match[1] or match[2]) if match else None
        sent = Sent(request, number)
        _now.set(sent)
        self.sent.append(sent)
        return sent

    def _choose_fault(self, sent: Sent) -> Fault | None:
        request, number = sent.request, sent.number
        # One generator for each call, so that its faults do not depend on the other calls
        rng = self._rng.setdefault(number, random.Random(f"{self._seed} {number} faults"))
        if rng.random() >= (0.9 if number is not None and number % 10 == 0 else FAULT_RATE):
            return None
        if self._is_read_after_start(sent) and rng.random() < 0.5:
            sent.fault = "not yet visible"
            return NOT_YET_VISIBLE
        if sent.is_stream and rng.random() < 0.5:
            sent.fault = rng.choice(list(STREAM_FAULTS))
            return STREAM_FAULTS[sent.fault]
        names = [name for name in FAULTS if name != "failed after" or not sent.is_stream]
        sent.fault = rng.choice(names)
        return FAULTS[sent.fault](rng, dict(request.headers).get("authorization", ""))

    def _is_read_after_start(self, sent: Sent) -> bool:
        """Whether a request reads a run that its call has just started."""
        if sent.is_write or sent.is_stream or sent.number is None:
            return False
        starts = [one for one in self.sent if one.number == sent.number and one.is_start and one.status in {200, 201}]
        return any(anyio.current_time() - one.at < 5 for one in starts)


class Stage:
    """The providers, and the objects of each call."""

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

    def inngest_run(self, number: int, rng: random.Random) -> str:
        run_id = ulid_of(number)
        model = inngest.RUNS[rng.choice([0, 1, 2])]  # starts when it is read, runs for minutes, completed
        began = model.started_at and self.clock.now() + model.started_at
        self.inngest.runs[run_id] = inngest.Run(
            run_id, model.event_id, model.function, model.function_id, model.timeline, model.output, began, model.jobs
        )
        self.inngest.started_at[run_id], self.inngest.timelines[run_id] = began, model.timeline
        return run_id

    def runway_task(self, number: int, rng: random.Random) -> str:
        running = Timeline((Step(0, "RUNNING"), Step(600, "SUCCEEDED", is_terminal=True)))
        task = runway.Task(uuid_of(number), rng.choice([running, runway.TASKS[0].timeline, runway.TASKS[1].timeline]))
        self.runway.tasks[task.id], self.runway.started_at[task.id] = task, self.clock.now()
        return task.id

    def posthog_run(self, number: int, status: str = "in_progress", schema: Any = None) -> PostHogRun:
        """Add a cloud run and its task with the same id, with secrets in its state and log URL."""
        task = self.project.add_task(uuid_of(number), number, "Soak", schema, self.clock.timestamp())
        run = self.project.add_run(
            task.id, task, environment="cloud", status=status, state=dict(PLANTED_STATE), in_slack=True
        )
        self.project.add_notification(run, console("begun"))
        self.project.add_notification(run, console("going on"))
        if run.is_terminal:
            self.project.change_run(run, {"status": status})
        return run

    def status_of(self, provider: str, run_id: str) -> str:
        """Return the native status of a run, or an empty string if it does not exist."""
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
        """Return the PostHog run of a call."""
        return self.project.runs[uuid_of(call.number)]

    def log(self, call: "Call") -> str:
        return self.project.storage.read(self.run(call).log_key).decode()

    def stored(self, call: "Call") -> list[str]:
        """Return the contents of the files that a call has uploaded."""
        objects = self.project.storage.objects.items()
        return [bytes(one.content).decode() for path, one in objects if mark(call.number) in path]

    def posthog_list(self, number: int) -> str:
        first = self.posthog_run(number)
        for _ in range(4):
            self.project.add_run(str(self.project.new_id()), first.task, state=dict(PLANTED_STATE))
        return first.task.id

    def active_run(self, number: int, rng: random.Random) -> PostHogRun:
        """Add a run that stays active, or one that ends in two seconds."""
        run = self.posthog_run(number)
        if rng.random() < 0.5:
            self.project.start_script(run, cloud_script(), self.clock.now() - 8)
        return run

    def artifact(self, run: PostHogRun, rng: random.Random, *, is_listed: bool) -> Arguments:
        """Add a file to the storage, and to the artifacts of the run if `is_listed`."""
        name, content, content_type = rng.choice([("a.md", b"# A", "text/markdown"), ("a.png", PNG, "image/png")])
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


def waiting(rng: random.Random) -> Arguments:
    return {"wait_seconds": WAIT} if rng.random() < 0.4 else {}


def keyed(number: int, rng: random.Random) -> Arguments:
    return {"idempotencyKey": mark(number)} if rng.random() < 0.5 else {}


def entry(number: int, now: str) -> Arguments:
    notification = {
        "jsonrpc": "2.0",
        "method": "_posthog/console",
        "params": {"level": "info", "message": mark(number)},
    }
    return {"type": "notification", "timestamp": now, "notification": notification}


def file(number: int, rng: random.Random, *, by_size: bool = False) -> Arguments:
    """Return a file with its content, or, if allowed, with the size of a file that the client uploads."""
    contents: list[Arguments] = [
        {"content": mark(number)},
        {"content": base64.b64encode(mark(number).encode()).decode(), "content_encoding": "base64"},
        {"size": 20},
    ]
    return {"name": f"{mark(number)}.txt", "type": "context", **rng.choice(contents if by_size else contents[:2])}


def update(number: int, rng: random.Random) -> Arguments:
    """Return fields of a run, or the status that cancels it."""
    cancelled = {"status": "cancelled"}
    return rng.choice([{"stage": mark(number)}, {"output": {"summary": mark(number)}}, cancelled, cancelled])


def command(number: int, rng: random.Random) -> Arguments:
    message: Arguments = {"method": "user_message", "params": {"content": mark(number)}}
    option: Arguments = {"method": "set_config_option", "params": {"configId": "mode", "value": mark(number)}}
    return {"jsonrpc": "2.0", **rng.choice([message, option, {"method": "cancel"}])}


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
        "taskRunIds": [s.render_run(n, d.choice(["square", "slow", "flaky"])), s.render_run(n, "fail", 10, "b")],
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
        "taskRunId": [s.render_run(n, d.choice(["square", "slow", "flaky"])), s.render_run(n, "fail", 10, "b")],
        "until": d.choice(["all", "any"]),
        "wait_seconds": WAIT,
    },
    "render-explain-run": lambda s, n, d: {"taskRunId": s.render_run(n, d.choice(["square", "fail"]), 10)},
    "inngest-explain-run": lambda s, n, d: {"runId": s.inngest_run(n, d)},
    "posthog-explain-run": lambda s, n, d: on(s.posthog_run(n, d.choice(["in_progress", "failed"]))),
    "posthog-retry-run": lambda s, n, d: on(s.posthog_run(n, "failed"), **waiting(d)),
    "runway-explain-run": lambda s, n, d: {"id": s.runway_task(n, d)},
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
    "posthog-stream-task-run": lambda s, n, d: on(s.active_run(n, d), wait_seconds=WAIT),
    "posthog-wait-for-run": lambda s, n, d: on(s.active_run(n, d), wait_seconds=WAIT),
    "runway-retrieve-task-status-and-output": lambda s, n, d: {"id": s.runway_task(n, d)},
    "runway-wait-for-run": lambda s, n, d: {"id": s.runway_task(n, d), "wait_seconds": WAIT},
    "runway-cancel-delete-task": lambda s, n, d: {"id": s.runway_task(n, d)},
}
"""Functions that return the arguments of a call, by tool."""

FREQUENT = ["render-run-task"] * 3 + ["render-cancel-task-run"]
"""Tools with more calls than Render's rate limit allows in a minute."""

SAFE_TO_REPEAT = {
    # "Repeating a request with the same key within 24 hours returns the task run that the first request started":
    # render 1.5.0 public_api/models/run_task.py
    "POST /render/V/task-runs",
    # Cancelling an ended run has no effect: inngest pkg/api/apiv1, PostHog products/tasks/backend/api.py
    "DELETE /inngest/V/runs/*",
    "POST /posthog/api/projects/*/tasks/*/runs/*/cancel",
    # POST with scope task:read, and a POST that returns an existing entry: PostHog products/tasks/backend/api.py
    "POST /posthog/api/projects/*/tasks/*/runs/*/artifacts/download",
    "POST /posthog/api/projects/*/tasks/*/runs/*/artifacts/presign",
    "POST /posthog/api/projects/*/tasks/*/runs/*/artifacts/finalize_upload",
    # The same file with the same key
    "POST /posthog/storage",
}
"""The write operations that may arrive twice."""

PERMANENT: set[Kind] = {"auth", "not_found", "validation", "conflict", "usage_limit", "unsupported", "config"}
"""The kinds of errors that a retry does not fix."""


@dataclass
class Call:
    """A call, its result and progress, and its requests."""

    number: int
    tool: Tool
    arguments: Arguments = field(default_factory=dict)
    result: CallToolResult | None = None
    progress: list[tuple[float, str]] = field(default_factory=list)
    seconds: float = 0.0
    sent: list[Sent] = field(default_factory=list)

    def __str__(self) -> str:
        sent = [f"{one.operation} {one.fault or 'no fault'} {one.status}" for one in self.sent]
        texts = [text[:2_000] for text in self.texts] if self.result else "none"
        return f"{self.number} {self.tool.name} {self.arguments}\nsent {sent}\nresult {texts}\nprogress {self.progress}"

    @property
    def texts(self) -> list[str]:
        assert self.result is not None
        return [block.text for block in self.result.content if isinstance(block, TextContent)]

    @property
    def error(self) -> Any:
        """The error as an object, or None."""
        return json.loads(self.texts[0].rpartition("\n")[2]) if self.result and self.result.is_error else None

    @property
    def value(self) -> Any:
        """The result as an object, or an empty one."""
        try:
            value = json.loads(self.texts[0])
        except (IndexError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def writes(self) -> list[Sent]:
        return [sent for sent in self.sent if sent.is_write]

    @property
    def has_plausible_fault(self) -> bool:
        """Whether a fault may have looked like a success."""
        plausible = PLAUSIBLE | ({"page"} if self.tool.operation.returns_file else set())
        return any(sent.fault in plausible for sent in self.sent)

    @property
    def bound(self) -> float:
        """The seconds that the call may take: the timeouts of its requests and its wait."""
        name, operation = self.tool.name, self.tool.operation
        body = self.arguments.get("body", {})
        one = operation.timeout_s or TIMEOUT
        a_wait = max(WAIT, 5) + 5  # the first read may take 5 s, and the last one 5 s after the wait
        if self.tool.is_wait_tool:
            return a_wait
        if self.tool.derived is Derived.EXPLAIN:
            return one + SIDE_SECONDS
        if self.tool.derived is Derived.RETRY:
            return TIMEOUT * 3 + (a_wait if "wait_seconds" in self.arguments else 0)  # two reads and the request
        if operation.is_stream:
            return one + a_wait
        if body.get("method") == "cancel" or body.get("status") == "cancelled" or "-cancel-" in name:
            return TIMEOUT + one + 3 + TIMEOUT  # a read, the cancellation, and a read after the cache has expired
        if self.arguments.get("all_pages"):
            return one + WAIT  # no page is requested after that
        if name == "posthog-prepare-direct-uploads-task-run":
            return one + TIMEOUT * len(body["artifacts"])
        if "wait_seconds" in self.arguments:
            return one + (TIMEOUT if name == "posthog-create-task-run" else 0) + a_wait
        return one


class Soak:
    """The calls, the log, and the providers after the calls."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        clock = LoopClock()
        self.simulator = Simulator(clock=clock, render=Render(clock, reports_attempts=True))
        self.stage = Stage(self.simulator)
        self.wire = Wire(self.simulator, seed)
        self.calls: list[Call] = []
        self.log: list[str] = []
        self.output = io.StringIO()

    async def run(self) -> None:
        """Make all calls while time passes."""
        with _logging(self.log), redirect_stderr(self.output), redirect_stdout(self.output):
            async with serve(self.simulator) as origin:
                environment = {**self.simulator.environment(origin), **PLANTED}
                gateway = open_gateway(environment, timeout=TIMEOUT, wait_seconds=WAIT)
                names = [*MAKE, *FREQUENT]
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
                for _ in range(CONCURRENT_CALLS):
                    workers.start_soon(work)
            driver.cancel_scope.cancel()

    async def _call(self, client: Client, call: Call) -> None:
        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            call.progress.append((progress, message or ""))

        rng = random.Random(f"{self.seed} {call.number} arguments")
        call.arguments = MAKE[call.tool.name](self.stage, call.number, rng)
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
    """Collect log records of all levels with their tracebacks."""

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
"""The native status of a cancelled run. Runway deletes it."""


def is_started(call: Call, stage: Stage) -> bool:
    """Whether the run was started once, and the key is in the result."""
    (key,) = {json.loads(sent.request.body)["idempotencyKey"] for sent in call.writes}
    (run,) = [run for run in stage.render.runs.values() if mark(call.number) in run.input]
    return run_of(call) == run.id and any(key in text for text in call.texts)


def is_created(call: Call, stage: Stage) -> bool:
    """Whether the run was created once, and started if the call waited for it."""
    (run,) = [run for run in stage.project.runs.values() if run.state_value("signal_report_id") == mark(call.number)]
    return run_of(call) == run.id and (run.status != "not_started") is ("wait_seconds" in call.arguments)


def run_of(call: Call) -> Any:
    return call.value.get("run_id") or call.value["id"]


def is_listed(call: Call, stage: Stage) -> bool:
    """Whether each run is listed once, and the result mentions missing ones."""
    ids = [run["id"] for run in call.value["results"]]
    missing = {run.id for run in stage.project.runs_of(stage.run(call).task)} - set(ids)
    return len(set(ids)) == len(ids) and bool(missing) is any("there are more" in text for text in call.texts)


def is_whole(call: Call, stage: Stage) -> bool:
    """Whether the result is the content of the file, as text or as an image."""
    assert call.result is not None
    (block,) = call.result.content
    content = block.text.encode() if isinstance(block, TextContent) else base64.b64decode(getattr(block, "data", ""))
    return content == stage.project.storage.read(call.arguments["body"]["storage_path"])


def is_commanded(call: Call, stage: Stage) -> bool:
    is_message = call.arguments["body"]["method"] == "user_message"
    return stage.log(call).count(mark(call.number)) == is_message and call.writes[-1].status == 200


DONE: dict[str, Callable[[Call, Stage], bool]] = {
    "render-run-task": is_started,
    "posthog-list-task-runs": is_listed,
    "posthog-create-task-run": is_created,
    # An ended run is not changed: PostHog products/tasks/backend/api.py
    "posthog-update-task-run": lambda c, s: (
        c.value["status"] == s.run(c).status == "failed" or c.arguments["body"].items() <= vars(s.run(c)).items()
    ),
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
    "posthog-resume-task-run-cloud": lambda c, s: s.status_of("posthog", s.run(c).id) in {"in_progress", "completed"},
    "posthog-set-run-output": lambda c, s: s.run(c).output == {"summary": mark(c.number)},
    "posthog-start-task-run": lambda c, s: (
        s.run(c).state_value("pending_user_message") == mark(c.number) and s.run(c).status != "not_started"
    ),
}
"""Functions that return whether the outcome at the provider matches the result, by tool."""


@pytest.fixture(scope="module")
def anyio_backend() -> Any:
    return DRIVEN


@pytest.fixture(scope="module")
async def soak() -> Soak:
    made = Soak(SEED)
    await made.run()
    return made


@pytest.fixture(autouse=True)
def _report(soak: Soak) -> None:
    logger.warning("%s", soak)  # pytest shows it with a failure


async def check_every_tool_is_called_and_every_fault_happens(soak: Soak) -> None:
    tools = Counter(call.tool.name for call in soak.calls if not call.error)
    assert set(tools) == set(open_gateway({}).tools)
    assert min(tools.values()) > 5
    assert sum(tools.values()) > CALLS / 2
    assert {sent.fault for sent in soak.wire.sent} == {*FAULTS, *STREAM_FAULTS, "not yet visible", ""}
    assert sum(1 for sent in soak.wire.sent if sent.fault) > len(soak.wire.sent) / 4


async def check_every_call_returns_within_its_time_bound(soak: Soak) -> None:
    assert len(soak.calls) == CALLS
    for call in soak.calls:
        assert call.result is not None
        assert call.seconds <= call.bound + MARGIN, str(call)
        values = [value for value, _ in call.progress]
        assert values == sorted(set(values)), str(call)


async def check_every_result_is_a_success_or_a_well_formed_error(soak: Soak) -> None:
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
        assert error["retryable"] is False or error["kind"] not in PERMANENT, str(call)
        assert error["retryable"] is True or "retry_after_s" not in error, str(call)
        assert "the server failed" not in error["message"], str(call)


async def check_unsafe_writes_are_sent_once(soak: Soak) -> None:
    for call in soak.calls:
        for (operation, _), count in Counter((sent.operation, sent.target) for sent in call.writes).items():
            assert count <= (TRIES if operation in SAFE_TO_REPEAT else 1), str(call)
        if call.tool.name == "render-run-task":
            assert len({sent.request.body for sent in call.writes}) <= 1, str(call)  # with one key, passed or generated


async def check_retryable_errors_are_safe_to_retry(soak: Soak) -> None:
    harmless = {
        "POST /posthog/api/projects/*/tasks/*/runs/*/artifacts/prepare_upload",  # only creates upload forms
        # Another call reads the run first, and sends nothing if it has ended.
        "DELETE /render/V/task-runs/*",
        "DELETE /runway/V/tasks/*",
        "PATCH /posthog/api/projects/*/tasks/*/runs/*",
    }
    for call in soak.calls:
        if call.error and call.error["retryable"]:
            done = {sent.operation for sent in call.writes if sent.fault in OUTCOME_UNKNOWN}
            assert done <= SAFE_TO_REPEAT | harmless, str(call)


async def check_secrets_are_in_no_result_or_log(soak: Soak) -> None:
    results = [call.result.model_dump_json() + json.dumps(call.progress) for call in soak.calls if call.result]
    for secret in SECRETS:
        for text in [*results, *soak.log, soak.output.getvalue()]:
            assert secret not in text, text[:2_000]
    assert sum("[secret]" in text for text in results) > 20
    assert sum("[redacted]" in text for text in results) > 100
    assert any("response provider=" in line for line in soak.log)


async def check_credentials_are_sent_only_to_their_provider(soak: Soak) -> None:
    for sent in soak.wire.sent:
        headers = dict(sent.request.headers)
        is_form = sent.operation == "POST /posthog/storage"
        own = PLANTED[KEYS[sent.request.provider]]
        assert headers.get("authorization") == (None if is_form else f"Bearer {own}")
        everything = f"{sent.request.path} {headers} {sent.request.body!r}"
        assert not any(secret in everything for secret in PLANTED.values() if secret != own)
        assert not is_form or own not in everything


async def check_status_and_tries_in_errors_match_the_requests(soak: Soak) -> None:
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


async def check_requests_reported_as_not_sent_have_not_arrived(soak: Soak) -> None:
    unsent = [call for call in soak.calls if call.error and "Nothing was sent" in call.error["hint"]]
    assert len(unsent) > 5
    for call in unsent:
        assert not (call.sent if call.tool.operation.is_safe else call.writes), str(call)


async def check_reported_run_status_is_the_one_at_the_provider(soak: Soak) -> None:
    ended: Counter[str] = Counter()
    for call in soak.calls:
        value, provider = call.value, call.tool.prefix
        if call.error:
            continue
        if "timed_out" in value:  # a wait, also after a start
            for run in value.get("runs", [value]):
                if run["terminal"]:
                    ended[call.tool.name] += 1
                    assert run["native_status"] == soak.stage.status_of(provider, run["run_id"]), str(call)
        elif "cancelled" in value:
            ended[call.tool.name] += value["cancelled"]
            is_cancelled = soak.stage.status_of(provider, value["run_id"]).lower() in CANCELLED[provider]
            assert is_cancelled or not value["cancelled"], str(call)
            # A run may end by itself in between. An accepted cancellation is carried out later.
            assert not is_cancelled or value["cancelled"] or not value["terminal"], str(call)
            assert not call.writes or value["status_before"] not in ENDED, str(call)
            # Whatever happened to its response: this call has cancelled the run.
            is_done = any(sent.is_carried_out for sent in call.writes) and value["status_before"] not in ENDED
            assert not (is_done and is_cancelled and "had already been" in value["next"]), str(call)
    assert len(ended) > 9
    assert min(ended.values()) > 0, ended


async def check_followed_runs_have_the_status_at_the_provider(soak: Soak) -> None:
    ended: Counter[str] = Counter()
    for call in soak.calls:
        lifecycle = call.tool.runs
        if call.error or lifecycle is None or "events" not in call.value:
            continue
        for run_id, status in call.value["runs"].items():
            if status in ENDED:
                ended[call.tool.prefix] += 1
                native = soak.stage.status_of(call.tool.prefix, run_id)
                assert lifecycle.statuses.normalise((native,)) == status, str(call)
    assert min(ended[provider] for provider in ("render", "posthog")) > 5


async def check_pages_are_not_results(soak: Soak) -> None:
    pages = [call for call in soak.calls if any(sent.fault == "page" for sent in call.sent)]
    assert len(pages) > 50
    for call in pages:
        if not call.error and not call.tool.operation.returns_file:
            assert "Sign in to continue" not in call.texts[0], str(call)


async def check_start_with_an_unknown_outcome_gives_its_key(soak: Soak) -> None:
    unknown = 0
    for call in soak.calls:
        if call.error and call.tool.name == "render-run-task" and any(sent.is_carried_out for sent in call.writes):
            unknown += 1
            (key,) = {json.loads(sent.request.body)["idempotencyKey"] for sent in call.writes}
            assert key in call.error["hint"], str(call)
    assert unknown > 3


async def check_cancellations_are_interrupted(soak: Soak) -> None:
    cancels = [sent for call in soak.calls if "-cancel-" in call.tool.name for sent in call.writes]
    assert sum(sent.fault in OUTCOME_UNKNOWN - {""} for sent in cancels) > 10


async def check_successful_calls_have_their_effect_at_the_provider(soak: Soak) -> None:
    checked: Counter[str] = Counter()
    for call in soak.calls:
        if not (call.error or call.has_plausible_fault or "cancelled" in call.value) and call.tool.name in DONE:
            checked[call.tool.name] += 1
            assert DONE[call.tool.name](call, soak.stage), str(call)
    assert checked.keys() == DONE.keys()
    assert min(checked.values()) > 0, checked


CHECKS = (
    check_every_tool_is_called_and_every_fault_happens,
    check_every_call_returns_within_its_time_bound,
    check_every_result_is_a_success_or_a_well_formed_error,
    check_unsafe_writes_are_sent_once,
    check_retryable_errors_are_safe_to_retry,
    check_secrets_are_in_no_result_or_log,
    check_credentials_are_sent_only_to_their_provider,
    check_status_and_tries_in_errors_match_the_requests,
    check_requests_reported_as_not_sent_have_not_arrived,
    check_reported_run_status_is_the_one_at_the_provider,
    check_followed_runs_have_the_status_at_the_provider,
    check_pages_are_not_results,
    check_start_with_an_unknown_outcome_gives_its_key,
    check_cancellations_are_interrupted,
    check_successful_calls_have_their_effect_at_the_provider,
)


async def test_soak_reports_nothing_false_and_sends_nothing_unsafe_twice(soak: Soak) -> None:
    """Run all checks on one soak: parallel workers would make a soak each."""
    failures = {}
    for check in CHECKS:
        try:
            await check(soak)
        except AssertionError as exc:
            failures[check.__name__] = str(exc)[:2_000]
    assert failures == {}
