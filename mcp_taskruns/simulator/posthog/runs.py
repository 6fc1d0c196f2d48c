"""What is done to a run: listed, created, started, changed, commanded, resumed, given its output."""

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import URL
from starlette.responses import JSONResponse, Response

from mcp_taskruns.simulator.posthog.artifacts import missing_artifacts
from mcp_taskruns.simulator.posthog.data import STATUSES, TERMINAL, Call, Operation, Run, Task, World, update
from mcp_taskruns.simulator.posthog.http import USAGE_LIMIT, Field, business_error, invalid, schema_error
from mcp_taskruns.simulator.posthog.seeds import cloud_script
from mcp_taskruns.simulator.posthog.storage import as_moment

DEFAULT_LIMIT, MAX_LIMIT = 50, 100
PROVIDERS: Mapping[str, str] = {"claude": "anthropic", "codex": "openai"}
# Written by PostHog alone; PATCH ignores them (products/tasks/backend/api.py `_PROTECTED_RUN_STATE_KEYS`).
PROTECTED_STATE = {"github_credential_source", "pr_authorship_mode", "sandbox_id"}
TOKEN_SECONDS = 24 * 60 * 60


def _respond(world: World, call: Call, run: Run, status: int = 200) -> Response:
    return JSONResponse(world.detail(run, call.base), status)


def _require_quota(call: Call) -> None:
    if call.key.is_over_limit:
        raise USAGE_LIMIT


def _page_number(text: str | None, default: int) -> int:
    """Django REST framework falls back to the default instead of refusing."""
    return int(text) if text and text.isdecimal() else default


async def _list(world: World, call: Call) -> Response:
    params = call.request.query_params
    limit = min(_page_number(params.get("limit"), DEFAULT_LIMIT) or DEFAULT_LIMIT, MAX_LIMIT)
    offset = _page_number(params.get("offset"), 0)
    runs = world.runs_of(call.task)
    url = call.request.url.include_query_params(limit=limit)
    body = {
        "count": len(runs),
        "next": str(url.include_query_params(offset=offset + limit)) if offset + limit < len(runs) else None,
        "previous": _previous(url, offset, limit),
        "results": [world.detail(run, call.base) for run in runs[offset : offset + limit]],
    }
    return JSONResponse(body)


def _previous(url: URL, offset: int, limit: int) -> str | None:
    if offset <= 0:
        return None
    back = offset - limit
    return str(url.include_query_params(offset=back) if back > 0 else url.remove_query_params("offset"))


_CREATE = {
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
    "initial_permission_mode": Field(
        choices=("default", "acceptEdits", "plan", "bypassPermissions", "auto", "read-only", "full-access")
    ),
}
_NOT_STATE = {"environment", "branch", "github_user_token", "sandbox_environment_id"}


async def _create(world: World, call: Call) -> Response:
    """Makes the run and does not start it."""
    body = call.body
    if body["environment"] == "cloud":
        _require_quota(call)
    if body.get("pr_authorship_mode") == "user" and "github_user_token" not in body:
        detail = "Link a GitHub account with repo access before running user-authored cloud tasks."
        raise invalid("github_authorization_required", detail, "pr_authorship_mode")
    if "sandbox_environment_id" in body:
        # None exists here, so none is valid.
        return JSONResponse({"detail": "Invalid sandbox_environment_id"}, 400)
    state = {key: value for key, value in body.items() if key not in _NOT_STATE}
    if "runtime_adapter" in state:
        state["provider"] = PROVIDERS[state["runtime_adapter"]]
    branch = body.get("branch")
    run = world.add_run(str(world.new_id()), call.task, environment=body["environment"], branch=branch, state=state)
    return _respond(world, call, run, 201)


async def _retrieve(world: World, call: Call) -> Response:
    return _respond(world, call, call.run)


_UPDATE = {
    "status": Field(choices=STATUSES),
    "branch": Field(nullable=True),
    "stage": Field(nullable=True),
    "output": Field("any", nullable=True),
    "state": Field("any"),
    "state_remove_keys": Field("list", items=Field(blank=False), empty="This list may not be empty."),
    "error_message": Field(nullable=True),
    "environment": Field(choices=("local",)),
}


def _merged_state(run: Run, body: Mapping[str, Any]) -> Any:
    given = body.get("state", {})
    if not isinstance(given, dict):
        return given
    state = dict(run.state) if isinstance(run.state, dict) else {}
    for name in body.get("state_remove_keys", ()):
        if name not in PROTECTED_STATE:
            state.pop(name, None)
    return state | {name: value for name, value in given.items() if name not in PROTECTED_STATE}


async def _update(world: World, call: Call) -> Response:
    """Merges objects into `output` and `state`. An end in `status`, or a hand-over to local, stops the agent."""
    run, changes = call.run, dict(call.body)
    if isinstance(changes.get("output"), dict) and isinstance(run.output, dict):
        changes["output"] = {**run.output, **changes["output"]}
    if changes.keys() & {"state", "state_remove_keys"}:
        changes["state"] = _merged_state(run, call.body)
    changes.pop("state_remove_keys", None)
    if "environment" in changes:
        run.script.clear()
    world.change_run(run, changes)
    return _respond(world, call, run)


async def _set_output(world: World, call: Call) -> Response:
    """Replaces the output. Ends the run when its task has a schema, as PostHog does for structured tasks alone."""
    run, schema, output = call.run, call.task.json_schema, call.body["output"]
    error = schema_error(schema, output) if schema else None
    if error:
        raise business_error(400, f"Output validation error: {error}")
    world.change_run(run, {"output": output, **({"status": "completed"} if schema else {})})
    return _respond(world, call, run)


_START = {
    "pending_user_message": Field(),
    "pending_user_artifact_ids": Field("list", items=Field(max_length=128), default=()),
}


async def _start(world: World, call: Call) -> Response:
    """Answers with the task, not with the run."""
    run = call.run
    if run.environment != "cloud":
        raise business_error(400, "Only cloud runs can be started via this endpoint")
    if run.status not in ("not_started", "queued"):
        raise business_error(
            400, f"Only queued or not_started cloud runs can be started (current status: {run.status})"
        )
    _require_quota(call)
    artifact_ids = list(call.body["pending_user_artifact_ids"])
    if missing := missing_artifacts(run, artifact_ids):
        detail = "Some pending_user_artifact_ids are invalid for this run"
        return JSONResponse({"detail": detail, "missing_artifact_ids": missing}, 400)
    if isinstance(run.state, dict):
        run.state.update({key: value for key, value in call.body.items() if value})
    # A run has one workflow: to start it twice is to start it once.
    if not run.script:
        world.play(run, cloud_script())
    return JSONResponse(_task_body(world, call))


def _task_body(world: World, call: Call) -> dict[str, Any]:
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
        "latest_run": world.detail(world.runs_of(task)[0], call.base),
        "created_at": task.created_at,
        "updated_at": world.clock.timestamp(),
        "created_by": {"id": 1, "first_name": "Sim", "email": "sim@example.com"},
        "ci_prompt": None,
    }


async def _resume(world: World, call: Call) -> Response:
    """Puts the run in the cloud from wherever it was, its new life on a new stream."""
    run = call.run
    _require_quota(call)
    if run.is_active_in_cloud:
        raise business_error(400, "Run is already active in cloud")
    if call.key.is_in_outage:
        # All else of the run is put back (products/tasks/backend `resume_task_run_in_cloud`).
        world.change_run(run, {"error_message": "Failed to start cloud workflow"})
        raise business_error(502, "Failed to start cloud workflow")
    run.environment, run.completed_at, run.error_message = "cloud", None, None
    run.stream.clear()
    world.play(run, cloud_script())
    return _respond(world, call, run)


_COMMAND = {
    "jsonrpc": Field(required=True, choices=("2.0",)),
    "method": Field(
        required=True, choices=("user_message", "cancel", "close", "permission_response", "set_config_option")
    ),
    "params": Field("object", default={}),
    "id": Field("json_rpc_id", nullable=True),
}
_REQUIRED_PARAMS: Mapping[str, tuple[str, ...]] = {
    "permission_response": ("requestId", "optionId"),
    "set_config_option": ("configId", "value"),
}
# The result of the agent, and how its command ends the run, if it does.
_AGENT: Mapping[str, tuple[Mapping[str, Any], str | None]] = {
    "cancel": ({"cancelled": True}, "cancelled"),
    "close": ({"closed": True}, "completed"),
    "permission_response": ({"resolved": True}, None),
    "set_config_option": ({"configOptions": []}, None),
}
_UNREACHABLE = (502, "Agent server is not reachable")
# PATCH state.sandbox_url to one of these to see an agent that does not answer.
_BAD_SANDBOXES: Mapping[str, tuple[int, str]] = {
    "unreachable.modal.host": _UNREACHABLE,
    "slow.modal.host": (504, "Agent server request timed out"),
    "refusing.modal.host": (502, "Agent server rejected the command"),
}


async def _command(world: World, call: Call) -> Response:
    """JSON-RPC. A message is queued for the run's workflow; the rest goes to the agent in the sandbox."""
    method, params = call.body["method"], call.body["params"]
    for name in _REQUIRED_PARAMS.get(method, ()):
        if not isinstance(params.get(name), str) or not params[name].strip():
            raise invalid("invalid_input", f"{name} is required and must be a non-empty string", "params")
    result = _queue_message(world, call.run, params) if method == "user_message" else _ask_agent(world, call, method)
    request_id = {} if call.body.get("id") is None else {"id": call.body["id"]}
    return JSONResponse({"jsonrpc": "2.0", "result": result, **request_id})


def _queue_message(world: World, run: Run, params: Mapping[str, Any]) -> Mapping[str, Any]:
    content, artifact_ids = params.get("content"), params.get("artifact_ids") or []
    if content is not None and not isinstance(content, str):
        raise invalid("invalid_input", "content must be a string when provided", "params")
    if not isinstance(artifact_ids, list) or not all(isinstance(one, str) and one.strip() for one in artifact_ids):
        raise invalid("invalid_input", "artifact_ids must be a list of non-empty strings", "params")
    text = (content or "").strip()
    if not text and not artifact_ids:
        detail = "user_message requires a non-empty content string, artifact_ids, or both"
        raise invalid("invalid_input", detail, "params")
    if missing := missing_artifacts(run, artifact_ids):
        raise business_error(400, "Some artifact_ids are invalid for this run", missing_artifact_ids=missing)
    if not run.is_active_in_cloud:
        # No workflow is there to be signalled.
        raise business_error(502, "Failed to queue user message for task run")
    world.say(run, update("user_message", content={"type": "text", "text": text}))
    return {"queued": True}


def _ask_agent(world: World, call: Call, method: str) -> Mapping[str, Any]:
    run = call.run
    sandbox_url = run.state_value("sandbox_url")
    if not sandbox_url:
        raise business_error(400, "No active sandbox for this task run")
    host = urlsplit(str(sandbox_url)).hostname or ""
    if not host.endswith((".modal.run", ".modal.host")):
        raise business_error(400, "Invalid sandbox URL")
    # The URL outlives the sandbox.
    failure = _BAD_SANDBOXES.get(host) or (_UNREACHABLE if run.is_terminal else None)
    if failure:
        raise business_error(*failure)
    result, status = _AGENT[method]
    if status:
        world.change_run(run, {"status": status})
    return result


async def _connection_token(world: World, call: Call) -> Response:
    """A token in the form of a JWT, good for nothing."""
    issued = int(as_moment(world.clock.timestamp()).timestamp())
    claims = {"run_id": call.run.id, "task_id": call.task.id, "iat": issued, "exp": issued + TOKEN_SECONDS}
    parts = [{"alg": "RS256", "typ": "JWT"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return JSONResponse({"token": ".".join([*encoded, "c2ltdWxhdGVk"])})


async def _relay(world: World, call: Call) -> Response:
    """Posts nowhere; only a seeded run has a Slack thread."""
    if call.run.status in TERMINAL or not call.run.in_slack or not call.body["text"].strip():
        return JSONResponse({"status": "skipped"})
    if call.key.is_in_outage:
        raise business_error(503, "Failed to queue Slack relay")
    return JSONResponse({"status": "accepted", "relay_id": f"relay-{world.new_id()}"})


LIST = Operation(_list, "task:read")
CREATE = Operation(_create, body=_CREATE)
RETRIEVE = Operation(_retrieve, "task:read")
# Stricter than the code that we could read (posthog/api/mixins.py drops unknown keys): a client must send none.
UPDATE = Operation(_update, body=_UPDATE, strict=True)
SET_OUTPUT = Operation(_set_output, body={"output": Field("any", required=True)})
START = Operation(_start, body=_START)
RESUME_IN_CLOUD = Operation(_resume)
COMMAND = Operation(_command, body=_COMMAND)
# It is a GET, and yet it mints a token that can write.
CONNECTION_TOKEN = Operation(_connection_token)
RELAY_MESSAGE = Operation(_relay, body={"text": Field(required=True, max_length=10_000)})
