"""What the simulated PostHog holds: tasks, their runs, each run's log and event stream, and what runs do by themselves.

Nothing runs in the background: a started run has a script, and whoever looks at it plays what is due by then.
"""

import json
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from mcp_taskruns.simulator.lifecycle import Change, Clock
from mcp_taskruns.simulator.posthog.http import Field, Key, not_found
from mcp_taskruns.simulator.posthog.storage import Storage, as_moment

PROJECT_ID = "1"
STATUSES = ("not_started", "queued", "in_progress", "completed", "failed", "cancelled")
TERMINAL = ("completed", "failed", "cancelled")
# PostHog products/tasks/backend/stream/redis_stream.py: older entries are trimmed, a silent gap for who resumes.
MAX_STREAM_LENGTH = 20_000
# How far PostHog follows state.resume_from_run_id (products/tasks/backend/models.py).
MAX_RESUME_DEPTH = 10
_NAMESPACE = uuid.UUID("70057409-0000-4000-8000-000000000000")


@dataclass(frozen=True)
class Notification:
    """What the agent says: the method and params of a log entry."""

    method: str
    params: Mapping[str, Any]


def console(message: str, level: str = "info") -> Notification:
    return Notification("_posthog/console", {"level": level, "message": message})


def update(kind: str, /, **fields: Any) -> Notification:
    return Notification("session/update", {"update": {"sessionUpdate": kind, **fields}})


def says(text: str) -> tuple[Notification, Notification]:
    """One message: a chunk for the stream, and the whole that is logged in its place."""
    content = {"type": "text", "text": text}
    return update("agent_message_chunk", content=content), update("agent_message", content=content)


def event_type(entry: Mapping[str, Any]) -> str:
    """What session_logs filters by: the method, or for session/update the kind of update."""
    notification = entry.get("notification")
    if not isinstance(notification, dict):
        return ""
    method = str(notification.get("method", ""))
    params = notification.get("params")
    inner = params.get("update") if isinstance(params, dict) else None
    if method == "session/update" and isinstance(inner, dict):
        return str(inner.get("sessionUpdate", method))
    return method


def is_message_chunk(entry: Mapping[str, Any]) -> bool:
    return event_type(entry) == "agent_message_chunk"


@dataclass(frozen=True)
class Beat:
    """One moment of a script: what is said, then what changes. `at` is in simulated seconds."""

    at: float
    said: tuple[Notification, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StreamEntry:
    """`id` is Redis's: milliseconds and a sequence number within them. No data: the stream is complete."""

    id: tuple[int, int]
    data: Mapping[str, Any] | None


@dataclass
class Task:
    id: str
    number: int
    title: str
    json_schema: Mapping[str, Any] | None
    created_at: str


@dataclass
class Run:
    id: str
    task: Task
    created_at: str
    updated_at: str
    environment: str = "local"
    status: str = "not_started"
    stage: str | None = None
    branch: str | None = None
    error_message: str | None = None
    output: Any = None
    state: Any = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    completed_at: str | None = None
    in_slack: bool = False
    script: list[Beat] = field(default_factory=list)
    stream: list[StreamEntry] = field(default_factory=list)
    last_id: tuple[int, int] = (0, 0)

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def is_active_in_cloud(self) -> bool:
        return self.environment == "cloud" and self.status in ("queued", "in_progress")

    @property
    def log_key(self) -> str:
        return f"tasks/logs/team_{PROJECT_ID}/task_{self.task.id}/run_{self.id}.jsonl"

    @property
    def artifact_prefix(self) -> str:
        return f"tasks/artifacts/team_{PROJECT_ID}/task_{self.task.id}/run_{self.id}/"

    def state_value(self, key: str) -> Any:
        """PATCH may replace the state by anything, so it is not always an object."""
        return self.state.get(key) if isinstance(self.state, dict) else None


class World:
    """Everything the handlers share. New ids count up, so the same calls make the same ids."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.storage = Storage(clock)
        self.tasks: dict[str, Task] = {}
        self.runs: dict[str, Run] = {}
        self.change = Change()
        self._made = 0

    def new_id(self) -> uuid.UUID:
        self._made += 1
        return uuid.uuid5(_NAMESPACE, str(self._made))

    def add_task(
        self, task_id: str, number: int, title: str, schema: Mapping[str, Any] | None, created_at: str
    ) -> Task:
        task = Task(task_id, number, title, schema, created_at)
        self.tasks[task_id] = task
        return task

    def add_run(self, run_id: str, task: Task, **fields: Any) -> Run:
        now = self.clock.timestamp()
        run = Run(run_id, task, **{"created_at": now, "updated_at": now, **fields})
        self.runs[run_id] = run
        return run

    def runs_of(self, task: Task) -> list[Run]:
        """Newest first, as PostHog orders them."""
        return [run for run in reversed(self.runs.values()) if run.task is task]

    def resume_chain(self, run: Run) -> list[Run]:
        """The run and those it resumes from, oldest first. A link to another task's run is dropped."""
        chain = [run]
        while len(chain) <= MAX_RESUME_DEPTH:
            earlier = self.runs.get(str(chain[0].state_value("resume_from_run_id")))
            if earlier is None or earlier.task is not run.task or earlier in chain:
                break
            chain.insert(0, earlier)
        return chain

    def play(self, run: Run, script: Iterable[Beat], starting: float | None = None) -> None:
        """Let the run do this from `starting` (now by default) on, and nothing that it would have done before."""
        zero = self.clock.now() if starting is None else starting
        run.script = [Beat(zero + beat.at, beat.said, beat.changes, beat.state) for beat in script]
        self.settle()
        self.change.notify()

    def settle(self) -> None:
        """Play what is due by now in every script."""
        now = self.clock.now()
        for run in self.runs.values():
            while run.script and run.script[0].at <= now:
                self._perform(run, run.script.pop(0))

    def _perform(self, run: Run, beat: Beat) -> None:
        for notification in beat.said:
            self.say(run, notification, beat.at)
        if isinstance(run.state, dict):
            run.state.update(beat.state)
        if beat.changes:
            self.change_run(run, beat.changes, beat.at)

    def say(self, run: Run, notification: Notification, at: float | None = None) -> None:
        """A log entry on the stream and in the log: chunks of a message only there, the whole message only here."""
        params = {"sessionId": run.id, **notification.params}
        entry = {
            "type": "notification",
            "timestamp": self.clock.timestamp(at),
            "notification": {"jsonrpc": "2.0", "method": notification.method, "params": params},
        }
        if event_type(entry) != "agent_message":
            self.publish(run, entry, at)
        self.append_log(run, [entry])

    def append_log(self, run: Run, entries: Iterable[Mapping[str, Any]]) -> None:
        """PostHog drops chunks of messages from the log (products/tasks/backend/models.py `append_log`)."""
        for entry in entries:
            if not is_message_chunk(entry):
                self.storage.append(run.log_key, json.dumps(entry).encode() + b"\n")

    def change_run(self, run: Run, changes: Mapping[str, Any], at: float | None = None) -> None:
        """Set fields, tell the stream, and close it when the run has ended."""
        for name, value in changes.items():
            setattr(run, name, value)
        run.updated_at = self.clock.timestamp(at)
        if "status" in changes and run.is_terminal:
            run.script.clear()
            run.completed_at = run.completed_at or run.updated_at
        self.publish(run, state_event(run), at)
        if "status" in changes and run.is_terminal:
            self.publish(run, None, at)

    def publish(self, run: Run, data: Mapping[str, Any] | None, at: float | None = None) -> None:
        milliseconds = round(as_moment(self.clock.timestamp(at)).timestamp() * 1000)
        last, sequence = run.last_id
        run.last_id = (milliseconds, 0) if milliseconds > last else (last, sequence + 1)
        run.stream.append(StreamEntry(run.last_id, data))
        del run.stream[:-MAX_STREAM_LENGTH]
        self.change.notify()

    def detail(self, run: Run, base: str) -> dict[str, Any]:
        """TaskRunDetail, secrets included: `log_url` is presigned, `state` holds what opens the sandbox."""
        key = run.log_key
        return {
            "id": run.id,
            "task": run.task.id,
            "stage": run.stage,
            "branch": run.branch,
            "status": run.status,
            "environment": run.environment,
            "runtime_adapter": run.state_value("runtime_adapter"),
            "provider": run.state_value("provider"),
            "model": run.state_value("model"),
            "reasoning_effort": run.state_value("reasoning_effort"),
            "log_url": self.storage.presigned_url(base, key) if key in self.storage.objects else None,
            "error_message": run.error_message,
            "output": run.output,
            "state": run.state,
            "artifacts": run.artifacts,
            "created_at": run.created_at,
            "updated_at": run.updated_at,
            "completed_at": run.completed_at,
        }


def state_event(run: Run) -> dict[str, Any]:
    return {
        "type": "task_run_state",
        "run_id": run.id,
        "task_id": run.task.id,
        "status": run.status,
        "stage": run.stage,
        "output": run.output,
        "branch": run.branch,
        "error_message": run.error_message,
        "updated_at": run.updated_at,
        "completed_at": run.completed_at,
    }


@dataclass(frozen=True)
class Call:
    """One request that was let in: who asks, for which task and run, with what valid body and query."""

    request: Request
    key: Key
    task: Task
    found: Run | None
    body: Mapping[str, Any]
    query: Mapping[str, Any]

    @property
    def run(self) -> Run:
        """The run in the path."""
        if self.found is None:
            raise not_found()
        return self.found

    @property
    def base(self) -> str:
        """Where the simulator is mounted, as the caller sees it: absolute URLs in answers begin with it."""
        url = self.request.url
        return f"{url.scheme}://{url.netloc}{self.request.scope.get('root_path', '')}"


@dataclass(frozen=True)
class Operation:
    """One method on one path. `body` declares what is validated; none means that the body is not looked at."""

    handle: Callable[[World, Call], Awaitable[Response]]
    scope: str = "task:write"
    body: Mapping[str, Field] | None = None
    query: Mapping[str, Field] | None = None
    strict: bool = False
