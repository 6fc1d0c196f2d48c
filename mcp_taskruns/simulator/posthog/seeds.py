"""The initial tasks and runs of the simulated PostHog, and the scripts of its cloud runs."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from mcp_taskruns.simulator.lifecycle import Clock
from mcp_taskruns.simulator.posthog.data import Run, ScriptStep
from mcp_taskruns.simulator.posthog.notifications import Notification, agent_message, console, session_update
from mcp_taskruns.simulator.posthog.project import Project

TASK_ID = "11111111-1111-4111-8111-111111111111"
FREE_TASK_ID = "22222222-2222-4222-8222-222222222222"
COMPLETED_RUN_ID = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
NOT_STARTED_RUN_ID = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
IN_PROGRESS_RUN_ID = "cccccccc-cccc-4ccc-8ccc-cccccccccccc"
FAILED_RUN_ID = "dddddddd-dddd-4ddd-8ddd-dddddddddddd"

# Fake secrets, which a client must not show to a model.
SANDBOX_STATE: Mapping[str, Any] = {
    "sandbox_id": "sb-simulated",
    "sandbox_url": "https://sb-simulated.modal.host",
    "sandbox_connect_token": "sct_simulated_secret",
}
OUTPUT: Mapping[str, Any] = {"summary": "Fixed the retry loop.", "pr_url": "https://github.com/acme/web/pull/42"}
JSON_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["summary"],
    "properties": {"summary": {"type": "string"}, "pr_url": {"type": "string"}},
}
REPORT = "# Report\n\nThe retry loop ran for ever: naïve back-off.\n".encode()
# One red pixel.
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC")

TURN_COMPLETE = Notification("_posthog/turn_complete", {"stopReason": "end_turn"})


def _tool_call(number: int, title: str) -> tuple[Notification, Notification]:
    call_id = f"toolu_{number:03}"
    return (
        session_update("tool_call", toolCallId=call_id, title=title, kind="execute", status="pending"),
        session_update("tool_call_update", toolCallId=call_id, status="completed"),
    )


def _provision() -> Iterator[ScriptStep]:
    """Return the first steps of every script."""
    yield ScriptStep(0, (), {"status": "queued"})
    yield ScriptStep(1, (console("Provisioning sandbox"),), {"status": "in_progress", "stage": "setup"}, SANDBOX_STATE)
    yield ScriptStep(2, (console("Sandbox ready"),))


def cloud_script(tool_calls: int = 1) -> Iterator[ScriptStep]:
    """Return the script of a run that succeeds after ten seconds. Each additional tool call takes half a second."""
    started, finished = _tool_call(1, "Read src/retry.py")
    yield from _provision()
    plan = [{"content": "Bound the retry loop", "priority": "high", "status": "pending"}]
    yield ScriptStep(3, (session_update("plan", entries=plan),), {"stage": "plan"})
    yield ScriptStep(4, agent_message("I will bound the retry loop."))
    yield ScriptStep(5, (started,), {"stage": "build"})
    yield ScriptStep(6, (finished,))
    at = 6.0
    for number in range(2, tool_calls + 1):
        at += 0.5
        yield ScriptStep(at, _tool_call(number, f"Edit src/file_{number}.py"))
    yield ScriptStep(at + 1, (console("Running tests"),))
    yield ScriptStep(at + 2, agent_message("The tests pass."), {"stage": "review"})
    yield ScriptStep(at + 3, (console("Pushed branch fix/retry-loop"),), {"branch": "fix/retry-loop"})
    yield ScriptStep(at + 4, (TURN_COMPLETE,), {"status": "completed", "output": dict(OUTPUT)})


def _working_script() -> Iterator[ScriptStep]:
    """Return the script of a run that waits forever for a permission or a command."""
    yield from _provision()
    yield ScriptStep(3, agent_message("May I push to main?"), {"stage": "build"})


def _failing_script() -> Iterator[ScriptStep]:
    """Return the script of a run that fails after five seconds."""
    yield from _provision()
    error = "Sandbox ran out of memory"
    yield ScriptStep(5, (console(error, "error"),), {"status": "failed", "error_message": error})


PERMISSION_REQUEST: Mapping[str, Any] = {
    "type": "permission_request",
    "requestId": "perm-1",
    "toolCall": {"toolCallId": "toolu_900", "title": "git push origin main"},
    "options": [
        {"optionId": "allow", "name": "Allow", "kind": "allow_once"},
        {"optionId": "reject", "name": "Reject", "kind": "reject_once"},
    ],
}


def _artifact(run: Run, artifact_id: str, name: str, *, kind: str, size: int, at: str) -> dict[str, Any]:
    content_types = {"md": "text/markdown", "png": "image/png", "log": "text/plain"}
    return {
        "id": artifact_id,
        "name": name,
        "type": kind,
        "source": "agent_output",
        "size": size,
        "content_type": content_types[name.rpartition(".")[2]],
        "storage_path": f"{run.artifact_prefix}{artifact_id[:8]}_{name}",
        "uploaded_at": at,
    }


def _complete(project: Project, run: Run) -> None:
    """Play the script of the completed run and add its artifacts."""
    project.start_script(run, cloud_script(tool_calls=11), -7000)
    uploaded_at = project.clock.timestamp(-6990)
    for artifact_id, name, kind, content in (
        ("a1" * 16, "report.md", "output", REPORT),
        ("a2" * 16, "screenshot.png", "artifact", PNG),
    ):
        entry = _artifact(run, artifact_id, name, kind=kind, size=len(content), at=uploaded_at)
        run.artifacts.append(entry)
        project.storage.put(entry["storage_path"], content, entry["content_type"])


def seeded_project(clock: Clock) -> Project:
    """Create the tasks and runs that the docstring of `PostHog` lists."""
    project = Project(clock)
    task = project.add_task(TASK_ID, 1, "Fix the retry loop", JSON_SCHEMA, clock.timestamp(-7200))
    project.add_task(FREE_TASK_ID, 2, "Say something about the week", None, clock.timestamp(-7100))
    claude = {"mode": "background", "runtime_adapter": "claude", "provider": "anthropic", "model": "claude-opus-4-5"}

    def add(run_id: str, at: float, **fields: Any) -> Run:
        timestamp = clock.timestamp(at)
        defaults = {"environment": "cloud", "state": dict(claude), "created_at": timestamp, "updated_at": timestamp}
        return project.add_run(run_id, task, **{**defaults, **fields})

    _complete(project, add(COMPLETED_RUN_ID, -7000))

    failed = add(FAILED_RUN_ID, -3600)
    project.start_script(failed, _failing_script(), -3600)
    # PostHog keeps objects for 30 days and the manifest forever. The content of this artifact has expired.
    failed.artifacts.append(
        _artifact(failed, "d1" * 16, "core.log", kind="artifact", size=2048, at=clock.timestamp(-3590))
    )

    working = add(IN_PROGRESS_RUN_ID, -60, in_slack=True)
    project.start_script(working, _working_script(), -60)
    project.publish(working, PERMISSION_REQUEST, -57)

    add(NOT_STARTED_RUN_ID, -30)
    return project
