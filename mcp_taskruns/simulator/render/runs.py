"""The workflow of the simulated Render account: its tasks, the timelines of their runs and their JSON.

Shapes and field names: render-oss/cli pkg/workflows/apiserver and the models of the official SDK (render 1.5.0).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from mcp_taskruns.simulator.http import Json
from mcp_taskruns.simulator.lifecycle import Clock, Step, Timeline

OWNER_ID = "tea-d5im0000000000000001"
WORKFLOW = "demo-workflow"
WORKFLOW_ID = "wfl-d5im0000000000000001"
LATEST, OLD = "e4f5a6b", "a1b2c3d"
VERSION_IDS = {LATEST: "wfv-d5im0000000000000002", OLD: "wfv-d5im0000000000000001"}

# Simulated seconds that a run is pending before each attempt.
PENDING_SECONDS = 0.5

ATTEMPT_ERROR = "ConnectionError: the database went away"


@dataclass(frozen=True)
class Outcome:
    """The results or the error of a run."""

    results: tuple[Json, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Subtask:
    """A subtask, started `at` seconds after its parent."""

    at: float
    task: str
    input: list[Json]


def no_subtasks(_: Json) -> list[Subtask]:
    return []


@dataclass(frozen=True)
class Task:
    """A task of the workflow."""

    id: str
    name: str
    # Duration of one attempt, in simulated seconds.
    seconds: float
    # Compute the outcome of a run from its input.
    work: Callable[[Json], Outcome]
    # Number of attempts that fail before the last one.
    failed_attempts: int = 0
    # Return the subtasks of a run with this input.
    spawn: Callable[[Json], list[Subtask]] = no_subtasks
    version: str = LATEST
    # In simulated seconds.
    created_at: float = -86_400.0

    @property
    def slug(self) -> str:
        return f"{WORKFLOW}/{self.name}"

    def timeline(self, outcome: Outcome) -> Timeline:
        """Return the timeline of a run: a retry goes failed -> pending -> running under the same id.

        `failed` and `pending` have the same time, so a run that will be retried is never observed as failed.
        """
        steps: list[Step] = []
        for attempt in range(self.failed_attempts + 1):
            start = attempt * self.seconds
            if attempt:
                steps.append(Step(start, "failed"))
            steps += [Step(start, "pending"), Step(start + PENDING_SECONDS, "running")]
        duration = (self.failed_attempts + 1) * self.seconds
        steps.append(Step(duration, "failed" if outcome.error else "completed", is_terminal=True))
        return Timeline(tuple(steps))

    def body(self, clock: Clock) -> Json:
        """Return the task as Render's JSON."""
        return {
            "id": self.id,
            "name": self.name,
            "createdAt": clock.timestamp(self.created_at),
            "workflowId": WORKFLOW_ID,
            "workflowVersionId": VERSION_IDS[self.version],
        }


def numbers(arguments: Json) -> list[float]:
    """Return the positional or named arguments that are numbers with a finite square."""
    values = arguments.values() if isinstance(arguments, dict) else arguments
    return [n for n in values if isinstance(n, int) or (isinstance(n, float) and math.isfinite(n * n))]


def square(arguments: Json) -> Outcome:
    values = numbers(arguments)
    return Outcome((values[0] ** 2,)) if values else Outcome(error="TypeError: square() takes a number")


def two_numbers(arguments: Json) -> list[float]:
    return [*numbers(arguments), 3, 4][:2]


TASKS = (
    Task("tsk-d5im0000000000000001", "square", seconds=3, work=square),
    Task(
        "tsk-d5im0000000000000002",
        "pipeline",
        seconds=8,
        work=lambda arguments: Outcome((sum(n**2 for n in two_numbers(arguments)),)),
        spawn=lambda arguments: [
            Subtask(at, "square", [n]) for at, n in zip((1.0, 4.5), two_numbers(arguments), strict=True)
        ],
    ),
    Task(
        "tsk-d5im0000000000000003", "flaky", seconds=2, work=lambda _: Outcome(("third time lucky",)), failed_attempts=2
    ),
    Task("tsk-d5im0000000000000004", "fail", seconds=2, work=lambda _: Outcome(error="ValueError: no such customer")),
    Task("tsk-d5im0000000000000005", "slow", seconds=600, work=lambda _: Outcome(("done at last",))),
    # Without a version filter Render lists the tasks of every version.
    Task("tsk-d5im0000000000000006", "square", seconds=6, work=square, version=OLD, created_at=-2 * 86_400.0),
)
TASKS_BY_NAME = {task.name: task for task in TASKS if task.version == LATEST}


def find_task(name: str) -> Task | None:
    """Find a task by id, `workflow/name`, `workflow/name:version` or name. The default version is the latest."""
    slug, _, version = name.partition(":")
    for task in TASKS:
        if task.id == name or (slug in (task.slug, task.name) and task.version == (version or LATEST)):
            return task
    return None


@dataclass(frozen=True)
class Run:
    """One run of a task."""

    id: str
    task: Task
    input: Json
    started_at: float
    timeline: Timeline
    outcome: Outcome
    # Ids of runs; a root run has no parent.
    root: str
    parent: str = ""

    def step(self, now: float) -> Step:
        """Return the current step."""
        return self.timeline.at(now - self.started_at)

    def failed_attempts(self, now: float) -> tuple[Step, ...]:
        """Return the failures reached so far after which the run went on."""
        steps = self.timeline.until(now - self.started_at)
        return tuple(step for step in steps if step.status == "failed" and not step.is_terminal)

    def next_change(self, now: float) -> float | None:
        """Return the simulated time of the next step, or None."""
        change = self.timeline.next_change(now - self.started_at)
        return None if change is None else self.started_at + change

    def _attempts(self, clock: Clock, now: float, *, detailed: bool) -> list[Json]:
        """Return one entry per attempt. SDK 1.5.0 raises KeyError without `attempt`, which counts from 0."""
        attempts: list[Json] = []
        enqueued = self.started_at
        for step in self.timeline.until(now - self.started_at):
            at = clock.timestamp(self.started_at + step.at)
            if step.status == "pending":
                enqueued = self.started_at + step.at
            elif step.status == "running":
                attempts.append(
                    {
                        "attempt": len(attempts),
                        "taskRunId": self.id,
                        "status": "running",
                        "enqueuedAt": clock.timestamp(enqueued),
                        "startedAt": at,
                    }
                )
            elif attempts and attempts[-1]["status"] == "running":
                attempts[-1] |= {"status": step.status, "completedAt": at}
                if detailed and step.status == "failed":
                    attempts[-1]["error"] = self.outcome.error or ATTEMPT_ERROR
                if detailed and step.status == "completed":
                    attempts[-1]["results"] = list(self.outcome.results)
        return attempts

    def summary(self, clock: Clock, now: float, *, detailed: bool = False) -> Json:
        """Return the TaskRun of lists and POST, without input, results and error."""
        step = self.step(now)
        attempts = self._attempts(clock, now, detailed=detailed)
        pending = sum(past.status == "pending" for past in self.timeline.until(now - self.started_at))
        body: Json = {
            "id": self.id,
            "taskId": self.task.id,
            "status": step.status,
            "parentTaskRunId": self.parent,
            "rootTaskRunId": self.root,
            "retries": pending - 1,
            "attempts": attempts,
        }
        if attempts:
            body["startedAt"] = attempts[0]["startedAt"]
        if self.parent:
            # The attempt of the parent that started it. Tasks with subtasks are never retried here.
            body["parentTaskAttempt"] = 0
        if step.is_terminal:
            body["completedAt"] = clock.timestamp(self.started_at + step.at)
        return body

    def details_at_failure(self, clock: Clock, failure: Step) -> Json:
        """Return the TaskRunDetails of the moment in which an attempt failed that is followed by another."""
        steps = self.timeline.steps
        ended = Timeline((*steps[: steps.index(failure)], replace(failure, is_terminal=True)))
        run = replace(self, timeline=ended, outcome=Outcome(error=ATTEMPT_ERROR))
        return run.details(clock, self.started_at + failure.at)

    def details(self, clock: Clock, now: float) -> Json:
        """Return the TaskRunDetails of GET and of the event stream."""
        step = self.step(now)
        body = self.summary(clock, now, detailed=True)
        body["input"] = self.input
        body["results"] = list(self.outcome.results) if step.status == "completed" else []
        if step.is_terminal and step.status == "failed":
            body["error"] = self.outcome.error
        return body
