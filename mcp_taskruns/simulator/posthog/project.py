"""The simulated PostHog project: its tasks and runs, their logs and event streams, and what runs do by themselves.

Nothing runs in the background. A started run has a script, whose due steps are performed when a request arrives.
"""

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mcp_taskruns.simulator.lifecycle import Change, Clock
from mcp_taskruns.simulator.posthog.data import Run, ScriptStep, StreamEntry, Task, state_event
from mcp_taskruns.simulator.posthog.notifications import Notification, event_type, is_message_chunk
from mcp_taskruns.simulator.posthog.storage import Storage, parse_timestamp

# PostHog products/tasks/backend/stream/redis_stream.py trims older entries. A resuming client cannot notice the gap.
MAX_STREAM_LENGTH = 20_000
# How far PostHog follows state.resume_from_run_id (products/tasks/backend/models.py).
MAX_RESUME_DEPTH = 10
_NAMESPACE = uuid.UUID("70057409-0000-4000-8000-000000000000")


class Project:
    """The tasks, runs and objects that the handlers share. The same calls always create the same ids."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.storage = Storage(clock)
        self.tasks: dict[str, Task] = {}
        self.runs: dict[str, Run] = {}
        self.change = Change()
        # How long the workflow takes to cancel a run, in simulated seconds.
        self.cancel_seconds = 0.0
        # Whether the event `stream-end` follows the terminal status of a run on its stream.
        self.marks_stream_ends = True
        self._ids_created = 0

    def new_id(self) -> uuid.UUID:
        """Return an id that has not been used."""
        self._ids_created += 1
        return uuid.uuid5(_NAMESPACE, str(self._ids_created))

    def add_task(
        self, task_id: str, number: int, title: str, schema: Mapping[str, Any] | None, created_at: str
    ) -> Task:
        """Create a task."""
        task = Task(task_id, number, title, schema, created_at)
        self.tasks[task_id] = task
        return task

    def add_run(self, run_id: str, task: Task, **fields: Any) -> Run:
        """Create a run with these fields."""
        now = self.clock.timestamp()
        run = Run(run_id, task, **{"created_at": now, "updated_at": now, **fields})
        self.runs[run_id] = run
        return run

    def runs_of(self, task: Task) -> list[Run]:
        """Return the runs of a task, newest first."""
        return [run for run in reversed(self.runs.values()) if run.task is task]

    def resume_chain(self, run: Run) -> list[Run]:
        """Return the run and those it resumes from, oldest first. A link to a run of another task is ignored."""
        chain = [run]
        while len(chain) <= MAX_RESUME_DEPTH:
            earlier = self.runs.get(str(chain[0].state_value("resume_from_run_id")))
            if earlier is None or earlier.task is not run.task or earlier in chain:
                break
            chain.insert(0, earlier)
        return chain

    def start_script(self, run: Run, script: Iterable[ScriptStep], started_at: float | None = None) -> None:
        """Replace the script of a run by this one, started at `started_at` (default: now)."""
        zero = self.clock.now() if started_at is None else started_at
        run.script = [replace(step, at=zero + step.at) for step in script]
        self.run_scripts()
        self.change.notify()

    def run_scripts(self) -> None:
        """Perform the due steps of every script."""
        now = self.clock.now()
        for run in self.runs.values():
            while run.script and run.script[0].at <= now:
                self._perform(run, run.script.pop(0))

    def _perform(self, run: Run, step: ScriptStep) -> None:
        for notification in step.notifications:
            self.add_notification(run, notification, step.at)
        if isinstance(run.state, dict):
            run.state.update(step.state)
        if step.changes:
            self.change_run(run, step.changes, step.at)

    def add_notification(self, run: Run, notification: Notification, at: float | None = None) -> None:
        """Publish and log a notification. Message chunks are only published, whole messages only logged."""
        params = {"sessionId": run.id, **notification.params}
        entry = {
            "type": "notification",
            "timestamp": self.clock.timestamp(at),
            "notification": {"jsonrpc": "2.0", "method": notification.method, "params": params},
        }
        if event_type(entry) != "agent_message":
            self.publish(run, entry, at)
        self.append_log(run, [entry])

    def resolve_permission(self, run: Run, params: Mapping[str, Any]) -> None:
        """Publish that a permission request was resolved. As for the request, nothing of it is in the log."""
        params = {name: params[name] for name in ("requestId", "optionId")}
        notification = {"jsonrpc": "2.0", "method": "_posthog/permission_resolved", "params": params}
        self.publish(run, {"type": "notification", "timestamp": self.clock.timestamp(), "notification": notification})

    def append_log(self, run: Run, entries: Iterable[Mapping[str, Any]]) -> None:
        """Append entries without message chunks to the log (products/tasks/backend/models.py `append_log`)."""
        for entry in entries:
            if not is_message_chunk(entry):
                self.storage.append(run.log_key, json.dumps(entry).encode() + b"\n")

    def change_run(self, run: Run, changes: Mapping[str, Any], at: float | None = None) -> None:
        """Set fields of a run and publish its new state. A terminal status ends its script and its stream."""
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
        """Add an entry to the stream of a run. None marks its end."""
        milliseconds = round(parse_timestamp(self.clock.timestamp(at)).timestamp() * 1000)
        last, sequence = run.last_stream_id
        run.last_stream_id = (milliseconds, 0) if milliseconds > last else (last, sequence + 1)
        run.stream.append(StreamEntry(run.last_stream_id, data))
        del run.stream[:-MAX_STREAM_LENGTH]
        self.change.notify()

    def detail(self, run: Run, base: str) -> dict[str, Any]:
        """Return TaskRunDetail. It has secrets: a presigned `log_url`, and sandbox credentials in `state`."""
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
