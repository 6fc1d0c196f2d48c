"""The workflow of the simulated Render account: its tasks, how their runs go and how Render shows them.

Shapes and field names: render-oss/cli pkg/workflows/apiserver and the models of the official SDK (render 1.5.0).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from mcp_taskruns.simulator.http import Json
from mcp_taskruns.simulator.lifecycle import Clock, Step, Timeline

OWNER_ID = "tea-d5im0000000000000001"
WORKFLOW = "demo-workflow"
WORKFLOW_ID = "wfl-d5im0000000000000001"
LATEST, OLD = "e4f5a6b", "a1b2c3d"
VERSION_IDS = {LATEST: "wfv-d5im0000000000000002", OLD: "wfv-d5im0000000000000001"}

# A run waits this long for a machine before each attempt.
QUEUED = 0.5


@dataclass(frozen=True)
class Outcome:
    results: tuple[Json, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Subtask:
    at: float
    task: str
    input: list[Json]


def no_subtasks(_: Json) -> list[Subtask]:
    return []


@dataclass(frozen=True)
class Task:
    id: str
    name: str
    seconds: float
    work: Callable[[Json], Outcome]
    failed_attempts: int = 0
    spawn: Callable[[Json], list[Subtask]] = no_subtasks
    version: str = LATEST
    created: float = -86_400.0

    @property
    def slug(self) -> str:
        return f"{WORKFLOW}/{self.name}"

    def timeline(self, outcome: Outcome) -> Timeline:
        """Failed attempts first: the run goes failed -> pending -> running under the same id.

        Failed and pending share a moment, so no reader takes a run that will be retried for one that is over.
        """
        steps: list[Step] = []
        for attempt in range(self.failed_attempts + 1):
            start = attempt * self.seconds
            if attempt:
                steps.append(Step(start, "failed"))
            steps += [Step(start, "pending"), Step(start + QUEUED, "running")]
        end = (self.failed_attempts + 1) * self.seconds
        steps.append(Step(end, "failed" if outcome.error else "completed", is_terminal=True))
        return Timeline(tuple(steps))

    def shown(self, clock: Clock) -> Json:
        return {
            "id": self.id,
            "name": self.name,
            "createdAt": clock.timestamp(self.created),
            "workflowId": WORKFLOW_ID,
            "workflowVersionId": VERSION_IDS[self.version],
        }


def numbers(given: Json) -> list[float]:
    """The arguments, positional or named, that are numbers one can square."""
    arguments = given.values() if isinstance(given, dict) else given
    return [n for n in arguments if isinstance(n, int) or (isinstance(n, float) and math.isfinite(n * n))]


def square(given: Json) -> Outcome:
    arguments = numbers(given)
    return Outcome((arguments[0] ** 2,)) if arguments else Outcome(error="TypeError: square() takes a number")


def two_numbers(given: Json) -> list[float]:
    return [*numbers(given), 3, 4][:2]


TASKS = (
    Task("tsk-d5im0000000000000001", "square", seconds=3, work=square),
    Task(
        "tsk-d5im0000000000000002",
        "pipeline",
        seconds=8,
        work=lambda given: Outcome((sum(n**2 for n in two_numbers(given)),)),
        spawn=lambda given: [Subtask(at, "square", [n]) for at, n in zip((1.0, 4.5), two_numbers(given), strict=True)],
    ),
    Task(
        "tsk-d5im0000000000000003", "flaky", seconds=2, work=lambda _: Outcome(("third time lucky",)), failed_attempts=2
    ),
    Task("tsk-d5im0000000000000004", "fail", seconds=2, work=lambda _: Outcome(error="ValueError: no such customer")),
    Task("tsk-d5im0000000000000005", "slow", seconds=600, work=lambda _: Outcome(("done at last",))),
    # Without a version filter Render lists the tasks of every version.
    Task("tsk-d5im0000000000000006", "square", seconds=6, work=square, version=OLD, created=-2 * 86_400.0),
)
TASKS_BY_NAME = {task.name: task for task in TASKS if task.version == LATEST}


def find_task(name: str) -> Task | None:
    """By id, `workflow/name`, `workflow/name:version` or bare name; without a version the latest one."""
    slug, _, version = name.partition(":")
    for task in TASKS:
        if task.id == name or (slug in (task.slug, task.name) and task.version == (version or LATEST)):
            return task
    return None


@dataclass(frozen=True)
class Run:
    id: str
    task: Task
    input: Json
    began: float
    timeline: Timeline
    outcome: Outcome
    root: str
    parent: str = ""

    def step(self, now: float) -> Step:
        return self.timeline.at(now - self.began)

    def next_change(self, now: float) -> float | None:
        change = self.timeline.next_change(now - self.began)
        return None if change is None else self.began + change

    def _attempts(self, clock: Clock, now: float, *, detailed: bool) -> list[Json]:
        """One per time the run was running. SDK 1.5.0 raises KeyError without `attempt`, counted from 0."""
        attempts: list[Json] = []
        enqueued = self.began
        for step in self.timeline.until(now - self.began):
            at = clock.timestamp(self.began + step.at)
            if step.status == "pending":
                enqueued = self.began + step.at
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
                    attempts[-1]["error"] = self.outcome.error or "ConnectionError: the database went away"
                if detailed and step.status == "completed":
                    attempts[-1]["results"] = list(self.outcome.results)
        return attempts

    def summary(self, clock: Clock, now: float, *, detailed: bool = False) -> Json:
        """A TaskRun as lists and POST show it: without input, results and error."""
        step = self.step(now)
        attempts = self._attempts(clock, now, detailed=detailed)
        pending = sum(past.status == "pending" for past in self.timeline.until(now - self.began))
        shown: Json = {
            "id": self.id,
            "taskId": self.task.id,
            "status": step.status,
            "parentTaskRunId": self.parent,
            "rootTaskRunId": self.root,
            "retries": pending - 1,
            "attempts": attempts,
        }
        if attempts:
            shown["startedAt"] = attempts[0]["startedAt"]
        if self.parent:
            # The attempt of the parent that spawned it: no task here that has subtasks is retried.
            shown["parentTaskAttempt"] = 0
        if step.is_terminal:
            shown["completedAt"] = clock.timestamp(self.began + step.at)
        return shown

    def details(self, clock: Clock, now: float) -> Json:
        """TaskRunDetails, as GET and the event stream show it."""
        step = self.step(now)
        shown = self.summary(clock, now, detailed=True)
        shown["input"] = self.input
        shown["results"] = list(self.outcome.results) if step.status == "completed" else []
        if step.is_terminal and step.status == "failed":
            shown["error"] = self.outcome.error
        return shown
