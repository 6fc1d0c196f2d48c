"""Commands to the agent of a run, its connection token and messages for Slack."""

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse, Response

from mcp_taskruns.simulator.posthog.artifacts import missing_artifacts
from mcp_taskruns.simulator.posthog.data import TERMINAL, Run
from mcp_taskruns.simulator.posthog.errors import task_run_error, validation_error
from mcp_taskruns.simulator.posthog.notifications import session_update
from mcp_taskruns.simulator.posthog.operations import Call, Operation
from mcp_taskruns.simulator.posthog.project import Project
from mcp_taskruns.simulator.posthog.storage import parse_timestamp
from mcp_taskruns.simulator.posthog.validation import Field

TOKEN_SECONDS = 24 * 60 * 60

_COMMAND_FIELDS = {
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
# By method: the result of the agent, and the terminal status that the command causes, if any.
_AGENT_RESULTS: Mapping[str, tuple[Mapping[str, Any], str | None]] = {
    "cancel": ({"cancelled": True}, "cancelled"),
    "close": ({"closed": True}, "completed"),
    "permission_response": ({"resolved": True}, None),
    "set_config_option": ({"configOptions": []}, None),
}
_UNREACHABLE = (502, "Agent server is not reachable")
# Agents that fail: PATCH state.sandbox_url to one of these hosts.
_FAILING_SANDBOXES: Mapping[str, tuple[int, str]] = {
    "unreachable.modal.host": _UNREACHABLE,
    "slow.modal.host": (504, "Agent server request timed out"),
    "refusing.modal.host": (502, "Agent server rejected the command"),
}


async def _command(project: Project, call: Call) -> Response:
    """Handle a JSON-RPC request. Messages are queued for the workflow; other commands go to the agent."""
    method, params = call.body["method"], call.body["params"]
    for name in _REQUIRED_PARAMS.get(method, ()):
        if not isinstance(params.get(name), str) or not params[name].strip():
            raise validation_error("invalid_input", f"{name} is required and must be a non-empty string", "params")
    result = (
        _queue_message(project, call.run, params) if method == "user_message" else _call_agent(project, call, method)
    )
    request_id = {} if call.body.get("id") is None else {"id": call.body["id"]}
    return JSONResponse({"jsonrpc": "2.0", "result": result, **request_id})


def _queue_message(project: Project, run: Run, params: Mapping[str, Any]) -> Mapping[str, Any]:
    content, artifact_ids = params.get("content"), params.get("artifact_ids") or []
    if content is not None and not isinstance(content, str):
        raise validation_error("invalid_input", "content must be a string when provided", "params")
    if not isinstance(artifact_ids, list) or not all(isinstance(item, str) and item.strip() for item in artifact_ids):
        raise validation_error("invalid_input", "artifact_ids must be a list of non-empty strings", "params")
    text = (content or "").strip()
    if not text and not artifact_ids:
        detail = "user_message requires a non-empty content string, artifact_ids, or both"
        raise validation_error("invalid_input", detail, "params")
    if missing := missing_artifacts(run, artifact_ids):
        raise task_run_error(400, "Some artifact_ids are invalid for this run", missing_artifact_ids=missing)
    if run.is_terminal:
        raise task_run_error(409, "Task run workflow has ended")
    if not run.is_active_in_cloud:
        # There is no workflow that could receive the message.
        raise task_run_error(502, "Failed to queue user message for task run")
    project.add_notification(run, session_update("user_message", content={"type": "text", "text": text}))
    return {"queued": True}


def _call_agent(project: Project, call: Call, method: str) -> Mapping[str, Any]:
    run = call.run
    sandbox_url = run.state_value("sandbox_url")
    if not sandbox_url:
        more = {"type": "runtime_unavailable", "code": "sandbox_not_ready"}
        raise task_run_error(400, "No active sandbox for this task run", **more)
    host = urlsplit(str(sandbox_url)).hostname or ""
    if not host.endswith((".modal.run", ".modal.host")):
        raise task_run_error(400, "Invalid sandbox URL")
    # The URL stays in the state after the sandbox is gone.
    failure = _FAILING_SANDBOXES.get(host) or (_UNREACHABLE if run.is_terminal else None)
    if failure:
        raise task_run_error(*failure)
    result, status = _AGENT_RESULTS[method]
    if method == "permission_response":
        project.resolve_permission(run, call.body["params"])
    if status:
        project.change_run(run, {"status": status})
    return result


async def _connection_token(project: Project, call: Call) -> Response:
    """Return a token in the form of a JWT. It is not valid anywhere."""
    issued = int(parse_timestamp(project.clock.timestamp()).timestamp())
    claims = {"run_id": call.run.id, "task_id": call.task.id, "iat": issued, "exp": issued + TOKEN_SECONDS}
    parts = [{"alg": "RS256", "typ": "JWT"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return JSONResponse({"token": ".".join([*encoded, "c2ltdWxhdGVk"])})


async def _relay(project: Project, call: Call) -> Response:
    """Accept a message for Slack without posting it. Only a seeded run has a Slack thread."""
    if call.run.status in TERMINAL or not call.run.in_slack or not call.body["text"].strip():
        return JSONResponse({"status": "skipped"})
    if call.key.is_in_outage:
        raise task_run_error(503, "Failed to queue Slack relay")
    return JSONResponse({"status": "accepted", "relay_id": f"relay-{project.new_id()}"})


COMMAND = Operation(_command, body=_COMMAND_FIELDS)
# A GET that needs the write scope, because the token can write.
CONNECTION_TOKEN = Operation(_connection_token)
RELAY_MESSAGE = Operation(_relay, body={"text": Field(required=True, max_length=10_000)})
