"""Tasks and runs of the simulated PostHog project."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_taskruns.simulator.posthog.notifications import Notification

PROJECT_ID = "1"
STATUSES = ("not_started", "queued", "in_progress", "completed", "failed", "cancelled")
TERMINAL = ("completed", "failed", "cancelled")


@dataclass(frozen=True)
class ScriptStep:
    """One step of a script: notifications, then changes of the run."""

    # Simulated seconds.
    at: float
    notifications: tuple[Notification, ...] = ()
    # New values of the run's fields, and of keys of its state.
    changes: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StreamEntry:
    """An entry of the event stream. Without data it marks the end of the stream."""

    # As in Redis: milliseconds, and a sequence number within them.
    id: tuple[int, int]
    data: Mapping[str, Any] | None


@dataclass
class Task:
    """A task, which has runs."""

    id: str
    number: int
    title: str
    json_schema: Mapping[str, Any] | None
    created_at: str


@dataclass
class Run:
    """One run of a task, with the steps of its script that are still to come and its event stream."""

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
    script: list[ScriptStep] = field(default_factory=list)
    stream: list[StreamEntry] = field(default_factory=list)
    last_stream_id: tuple[int, int] = (0, 0)
    # Whether a request for the stream of the ended run gets a 204.
    has_no_stream: bool = False

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
        """Return a value of the state. PATCH can replace the state by any JSON, so it may not be an object."""
        return self.state.get(key) if isinstance(self.state, dict) else None


def state_event(run: Run) -> dict[str, Any]:
    """Return the event that reports the state of a run."""
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
