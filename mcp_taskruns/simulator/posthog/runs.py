"""Operations on runs: list, create, retrieve, update, set output, start, resume."""

from collections.abc import Mapping
from typing import Any

from starlette.datastructures import URL
from starlette.responses import JSONResponse, Response

from mcp_taskruns.simulator.posthog.artifacts import missing_artifacts
from mcp_taskruns.simulator.posthog.data import STATUSES, Run, ScriptStep, Task
from mcp_taskruns.simulator.posthog.errors import (
    access_required,
    task_run_error,
    usage_limit_exceeded,
    validation_error,
)
from mcp_taskruns.simulator.posthog.operations import Call, Operation
from mcp_taskruns.simulator.posthog.project import Project
from mcp_taskruns.simulator.posthog.seeds import cloud_script
from mcp_taskruns.simulator.posthog.validation import Field, schema_error

DEFAULT_LIMIT, MAX_LIMIT = 50, 100
# When the usage limit of the key `phx_overlimit` is reset, in simulated seconds.
USAGE_RESET_SECONDS = 3600.0
PROVIDERS: Mapping[str, str] = {"claude": "anthropic", "codex": "openai"}
# Keys that only PostHog writes. PATCH ignores them (products/tasks/backend/api.py `_PROTECTED_RUN_STATE_KEYS`).
PROTECTED_STATE = {"github_credential_source", "pr_authorship_mode", "sandbox_id"}


def _respond(project: Project, call: Call, run: Run, status: int = 200) -> Response:
    return JSONResponse(project.detail(run, call.base), status)


def _require_quota(project: Project, call: Call) -> None:
    if call.key.is_unentitled:
        raise access_required()
    if call.key.is_over_limit:
        raise usage_limit_exceeded(project.clock.timestamp(project.clock.now() + USAGE_RESET_SECONDS))


def _page_number(text: str | None, default: int) -> int:
    """Parse a limit or offset. Django REST framework uses the default for an invalid one."""
    return int(text) if text and text.isdecimal() else default


async def _list(project: Project, call: Call) -> Response:
    params = call.request.query_params
    limit = min(_page_number(params.get("limit"), DEFAULT_LIMIT) or DEFAULT_LIMIT, MAX_LIMIT)
    offset = _page_number(params.get("offset"), 0)
    runs = project.runs_of(call.task)
    url = call.request.url.include_query_params(limit=limit)
    body = {
        "count": len(runs),
        "next": str(url.include_query_params(offset=offset + limit)) if offset + limit < len(runs) else None,
        "previous": _previous(url, offset, limit),
        "results": [project.detail(run, call.base) for run in runs[offset : offset + limit]],
    }
    return JSONResponse(body)


def _previous(url: URL, offset: int, limit: int) -> str | None:
    if offset <= 0:
        return None
    previous = offset - limit
    return str(url.include_query_params(offset=previous) if previous > 0 else url.remove_query_params("offset"))


_CREATE_FIELDS = {
    "environment": Field(default="local", choices=("local", "cloud")),
    "mode": Field(default="background", choices=("interactive", "background")),
    "branch": Field(nullable=True, max_length=255),
    "sandbox_environment_id": Field("uuid"),
    "pr_authorship_mode": Field(choices=("user", "bot")),
    "run_source": Field(choices=("manual", "signal_report")),
    "signal_report_id": Field(blank=False),
    "runtime_adapter": Field(choices=tuple(PROVIDERS)),
    "model": Field(blank=False),
    "reasoning_effort": Field(choices=("low", "medium", "high", "xhigh", "max")),
    "github_user_token": Field(blank=False),
    "auto_publish": Field("any"),
    "custom_image_id": Field("uuid"),
    "rtk_enabled": Field("any"),
    "resume_from_run_id": Field("uuid"),
    "initial_permission_mode": Field(
        choices=("default", "acceptEdits", "plan", "bypassPermissions", "auto", "read-only", "full-access")
    ),
}
_NOT_STATE = {"environment", "branch", "github_user_token", "sandbox_environment_id"}


async def _create(project: Project, call: Call) -> Response:
    """Create a run without starting it."""
    body = call.body
    if body["environment"] == "cloud":
        _require_quota(project, call)
    if body.get("pr_authorship_mode") == "user" and "github_user_token" not in body:
        detail = "Link a GitHub account with repo access before running user-authored cloud tasks."
        raise validation_error("github_authorization_required", detail, "pr_authorship_mode")
    if "sandbox_environment_id" in body:
        # There are no sandbox environments here.
        return JSONResponse({"detail": "Invalid sandbox_environment_id"}, 400)
    state = {key: value for key, value in body.items() if key not in _NOT_STATE}
    if "runtime_adapter" in state:
        state["provider"] = PROVIDERS[state["runtime_adapter"]]
    branch = body.get("branch")
    run = project.add_run(str(project.new_id()), call.task, environment=body["environment"], branch=branch, state=state)
    return _respond(project, call, run, 201)


async def _retrieve(project: Project, call: Call) -> Response:
    return _respond(project, call, call.run)


_UPDATE_FIELDS = {
    "status": Field(choices=STATUSES),
    "branch": Field(nullable=True),
    "stage": Field(nullable=True),
    "output": Field("any", nullable=True),
    "state": Field("any"),
    "state_remove_keys": Field("list", items=Field(blank=False), empty_message="This list may not be empty."),
    "error_message": Field(nullable=True),
    "environment": Field(choices=("local",)),
}


def _merged_state(run: Run, body: Mapping[str, Any]) -> Any:
    changes = body.get("state", {})
    if not isinstance(changes, dict):
        return changes
    state = dict(run.state) if isinstance(run.state, dict) else {}
    for name in body.get("state_remove_keys", ()):
        if name not in PROTECTED_STATE:
            state.pop(name, None)
    return state | {name: value for name, value in changes.items() if name not in PROTECTED_STATE}


async def _update(project: Project, call: Call) -> Response:
    """Merge objects into `output` and `state`. A terminal `status`, or the environment `local`, stops the agent.

    A run that has ended is returned unchanged.
    """
    run, changes = call.run, dict(call.body)
    if run.is_terminal:
        return _respond(project, call, run)
    if isinstance(changes.get("output"), dict) and isinstance(run.output, dict):
        changes["output"] = {**run.output, **changes["output"]}
    if changes.keys() & {"state", "state_remove_keys"}:
        changes["state"] = _merged_state(run, call.body)
    changes.pop("state_remove_keys", None)
    if "environment" in changes:
        run.script.clear()
    project.change_run(run, changes)
    return _respond(project, call, run)


async def _set_output(project: Project, call: Call) -> Response:
    """Replace the output. As in PostHog, this completes the run if its task has a schema."""
    run, schema, output = call.run, call.task.json_schema, call.body["output"]
    error = schema_error(schema, output) if schema else None
    if error:
        raise task_run_error(400, f"Output validation error: {error}")
    project.change_run(run, {"output": output, **({"status": "completed"} if schema else {})})
    return _respond(project, call, run)


_START_FIELDS = {
    "pending_user_message": Field(),
    "pending_user_artifact_ids": Field("list", items=Field(max_length=128), default=()),
}


async def _start(project: Project, call: Call) -> Response:
    """Start a run. The response is the task, not the run."""
    run = call.run
    if run.environment != "cloud":
        raise task_run_error(400, "Only cloud runs can be started via this endpoint")
    if run.status not in ("not_started", "queued"):
        raise task_run_error(
            400, f"Only queued or not_started cloud runs can be started (current status: {run.status})"
        )
    _require_quota(project, call)
    artifact_ids = list(call.body["pending_user_artifact_ids"])
    if missing := missing_artifacts(run, artifact_ids):
        detail = "Some pending_user_artifact_ids are invalid for this run"
        return JSONResponse({"detail": detail, "missing_artifact_ids": missing}, 400)
    if isinstance(run.state, dict):
        run.state.update({key: value for key, value in call.body.items() if value})
    # A run has one workflow, so a second start has no effect.
    if not run.script:
        project.start_script(run, cloud_script())
    return JSONResponse(_task_body(project, call))


def _task_body(project: Project, call: Call) -> dict[str, Any]:
    task: Task = call.task
    return {
        "id": task.id,
        "task_number": task.number,
        "slug": f"SIM-{task.number}",
        "title": task.title,
        "title_manually_set": True,
        "description": task.title,
        "origin_product": "user_created",
        "repository": "acme/web",
        "github_integration": None,
        "json_schema": task.json_schema,
        "internal": False,
        "latest_run": project.detail(project.runs_of(task)[0], call.base),
        "created_at": task.created_at,
        "updated_at": project.clock.timestamp(),
        "created_by": {"id": 1, "first_name": "Sim", "email": "sim@example.com"},
        "ci_prompt": None,
    }


async def _cancel(project: Project, call: Call) -> Response:
    """Ask the workflow of a cloud run to cancel it. A run that has ended is returned unchanged."""
    run = call.run
    if run.is_terminal:
        return _respond(project, call, run)
    if run.environment != "cloud":
        raise task_run_error(400, "Only cloud runs can be cancelled via this endpoint")
    if call.key.is_in_outage:
        raise task_run_error(503, "Could not reach the run's workflow; try again")
    if project.cancel_seconds:
        run.script = [ScriptStep(project.clock.now() + project.cancel_seconds, changes={"status": "cancelled"})]
        project.change.notify()
    else:
        project.change_run(run, {"status": "cancelled"})
    return _respond(project, call, run, 202)


async def _resume(project: Project, call: Call) -> Response:
    """Start the run again in the cloud, with a new stream."""
    run = call.run
    _require_quota(project, call)
    if run.is_active_in_cloud:
        raise task_run_error(400, "Run is already active in cloud")
    if call.key.is_in_outage:
        # PostHog restores everything else of the run (products/tasks/backend `resume_task_run_in_cloud`).
        project.change_run(run, {"error_message": "Failed to start cloud workflow"})
        raise task_run_error(502, "Failed to start cloud workflow")
    run.environment, run.completed_at, run.error_message = "cloud", None, None
    run.stream.clear()
    run.has_no_stream = False
    project.start_script(run, cloud_script())
    return _respond(project, call, run)


LIST = Operation(_list, "task:read")
CREATE = Operation(_create, body=_CREATE_FIELDS)
RETRIEVE = Operation(_retrieve, "task:read")
# Stricter than PostHog, which drops unknown keys (posthog/api/mixins.py), to find clients that send them.
UPDATE = Operation(_update, body=_UPDATE_FIELDS, strict=True)
CANCEL = Operation(
    _cancel, body={"reason": Field(nullable=True), "only_if_awaiting_first_message": Field("any")}, strict=True
)
SET_OUTPUT = Operation(_set_output, body={"output": Field("any", required=True)})
START = Operation(_start, body=_START_FIELDS)
RESUME_IN_CLOUD = Operation(_resume)
