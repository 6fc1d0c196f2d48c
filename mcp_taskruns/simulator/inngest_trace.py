"""The steps of Inngest's simulated runs, and their trace as v2 returns it.

Shapes are those of inngest/inngest pkg/api/v2/endpoints_runs.go, toTraceSpan.
"""

import hashlib
from dataclasses import dataclass

from mcp_taskruns.simulator.http import Json
from mcp_taskruns.simulator.lifecycle import Clock

ACTIVE_STATUSES = {"RUN": "RUNNING", "SLEEP": "WAITING"}


@dataclass(frozen=True)
class TracedStep:
    """A step of a function, in seconds after the start of its run."""

    name: str
    # RUN or SLEEP
    op: str
    start: float
    end: float
    output: Json = None
    has_failed: bool = False


STEPS: dict[str, tuple[TracedStep, ...]] = {
    "onboarding": (
        TracedStep("send-welcome", "RUN", 0, 1, {"email": 1}),
        TracedStep("wait-for-signup", "SLEEP", 1, 4),
        TracedStep("activate-trial", "RUN", 4, 5, {"email": 2, "trial": "activated"}),
        TracedStep("wait-for-use", "SLEEP", 5, 8),
        TracedStep("send-tips", "RUN", 8, 9, {"email": 3}),
        TracedStep("wait-for-end", "SLEEP", 9, 12),
    ),
    "sleepy": (TracedStep("nap", "SLEEP", 0, 660),),
    "quick": (TracedStep("add", "RUN", 0, 0.1, {"sum": 42}),),
    "fails": (
        TracedStep(
            "charge-card",
            "RUN",
            0,
            0.1,
            {"message": "boom: card declined", "name": "NonRetriableError"},
            has_failed=True,
        ),
    ),
    "checkpointed": (TracedStep("compute", "RUN", 0, 0.3, 42),),
}


@dataclass(frozen=True)
class TracedRun:
    """What a trace shows of a run: its function, its start, its status in v2, and its end if it has ended."""

    id: str
    function: str
    started_at: float
    status: str
    ended_at: float | None
    output: Json


def to_object(value: Json) -> Json:
    """Return a value as v2 returns outputs: what is not an object is wrapped."""
    return value if isinstance(value, dict) else {"data": value}


def trace(run: TracedRun, clock: Clock, *, include_output: bool) -> Json:
    """Return the tree of a run's steps: those that have begun."""
    root = _span(run.id, run.function, run.status, clock, run.started_at, run.ended_at)
    if include_output and run.ended_at is not None and run.status != "CANCELLED":
        root["output"] = to_object(run.output)
    until = clock.now() if run.ended_at is None else run.ended_at
    begun = [step for step in STEPS[run.function] if run.started_at + step.start <= until]
    root["children"] = [_step(run, step, clock, until, include_output=include_output) for step in begun]
    return {"runId": run.id, "rootSpan": root}


def _step(run: TracedRun, step: TracedStep, clock: Clock, until: float, *, include_output: bool) -> Json:
    start, end = run.started_at + step.start, run.started_at + step.end
    is_cancelled = run.status == "CANCELLED" and until < end
    if end <= until:
        status = "FAILED" if step.has_failed else "COMPLETED"
    else:
        status = "CANCELLED" if is_cancelled else ACTIVE_STATUSES[step.op]
    ended_at = end if end <= until else until if is_cancelled else None
    span = _span(f"{run.id}/{step.name}", step.name, status, clock, start, ended_at)
    span |= {"stepId": hashlib.sha1(step.name.encode(), usedforsecurity=False).hexdigest(), "stepOp": step.op}
    if include_output and end <= until and step.op == "RUN":
        span["output"] = to_object(step.output)
    return span


def _span(key: str, name: str, status: str, clock: Clock, start: float, end: float | None) -> Json:
    span: Json = {
        "id": hashlib.sha256(key.encode()).hexdigest()[:16],
        "name": name,
        "status": status,
        "queuedAt": clock.timestamp(start),
        "startedAt": clock.timestamp(start),
    }
    if end is not None:
        span |= {"endedAt": clock.timestamp(end), "durationMs": str(round((end - start) * 1000))}
    return span
