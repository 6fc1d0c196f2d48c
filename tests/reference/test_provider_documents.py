"""The built-in tools agree with the providers' OpenAPI documents.

Where a document and its provider differ, the tools follow the provider. Each difference is listed here with its reason.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import anyio
import httpx
import pytest
from jsonschema import Draft202012Validator, FormatChecker

from mcp_taskruns.core.calls.arguments import explain_problems
from mcp_taskruns.core.calls.request import HttpRequest, build_request
from mcp_taskruns.core.calls.uploads import extract_files
from mcp_taskruns.core.model.operation import ArgumentReference
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.simulator.app import Simulator
from tests.reference.data import OPENAPI
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

ENVIRONMENT = {
    "RENDER_API_KEY": "rnd_simulated",
    "INNGEST_SIGNING_KEY": "signkey-test-simulated",
    "POSTHOG_API_KEY": "phx_simulated",
    "RUNWAYML_API_SECRET": "key_simulated",
}
# Inngest's v2, for which tools need another key, has a document of its own, which lacks the list of runs.
TOOLS = {tool.name: tool for tool in load_tools([]) if not (tool.derived or tool.operation.needs)}

# The data of the simulators.
COMPLETED, RUNNING = "trn-d5im0000000000000001", "trn-d5im0000000000000004"
INNGEST_RUN = {"runId": "01JZDEM0RVN000000000000002", "X-Inngest-Env": "my-branch"}
TASK = {"project_id": 1, "task_id": "11111111-1111-4111-8111-111111111111"}
DONE = TASK | {"id": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"}
WAITING = TASK | {"id": "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"}
WORKING = TASK | {"id": "cccccccc-cccc-4ccc-8ccc-cccccccccccc"}
STORED = "tasks/artifacts/team_1/task_{task_id}/run_{id}/a1a1a1a1_report.md".format(**DONE)
NAMED = {"name": "report.md", "type": "output", "source": "agent_output", "content_type": "text/markdown"}

RUNS = "/api/projects/{project_id}/tasks/{task_id}/runs/"
RUN = RUNS + "{id}/"


@dataclass(frozen=True)
class Call:
    """A call of a tool with all arguments, and the operation of the document that describes its request."""

    tool: str
    method: str
    path: str
    arguments: Mapping[str, Any]
    about: str = ""

    def __str__(self) -> str:
        return f"{self.tool} {self.about}".strip()

    @property
    def document(self) -> str:
        return self.tool.partition("-")[0]


CALLS = [
    Call(
        "render-list-task-runs",
        "GET",
        "/task-runs",
        {
            # Of trn-d5im0000000000000004.
            "cursor": "dHJuLWQ1aW0wMDAwMDAwMDAwMDAwMDA0",
            "limit": 100,
            "taskSlug": ["demo-workflow/square", "demo-workflow/slow:e4f5a6b"],
            "rootTaskRunId": [COMPLETED, RUNNING],
            "ownerId": ["tea-d5im0000000000000001", "tea-d1abc2def3ghi4jkl5mn"],
            "workflowVersionId": ["wfv-d5im0000000000000002", "wfv-d5im0000000000000001"],
            "workflowId": ["wfl-d5im0000000000000001", "wfl-d1abc2def3ghi4jkl5mn"],
        },
    ),
    Call(
        "render-run-task",
        "POST",
        "/task-runs",
        {"body": {"task": "demo-workflow/square", "input": [5], "idempotencyKey": "k-1"}},
        "with positional arguments",
    ),
    Call(
        "render-run-task",
        "POST",
        "/task-runs",
        {"body": {"task": "tsk-d5im0000000000000001", "input": {"n": 5}, "idempotencyKey": "k-2"}},
        "with named arguments",
    ),
    Call(
        "render-stream-realtime-events-sse",
        "GET",
        "/task-runs/events",
        {"taskRunIds": [COMPLETED, COMPLETED[:-1] + "2"]},
    ),
    Call("render-retrieve-task-run", "GET", "/task-runs/{taskRunId}", {"taskRunId": COMPLETED}),
    Call("render-cancel-task-run", "DELETE", "/task-runs/{taskRunId}", {"taskRunId": RUNNING}),
    Call(
        "render-list-tasks",
        "GET",
        "/tasks",
        {
            # Of tsk-d5im0000000000000001.
            "cursor": "dHNrLWQ1aW0wMDAwMDAwMDAwMDAwMDAx",
            "limit": 1,
            "taskSlug": ["demo-workflow/square", "demo-workflow/slow:e4f5a6b"],
            "ownerId": ["tea-d5im0000000000000001", "tea-d1abc2def3ghi4jkl5mn"],
            "workflowVersionId": ["wfv-d5im0000000000000002", "wfv-d5im0000000000000001"],
            "workflowId": ["wfl-d5im0000000000000001", "wfl-d1abc2def3ghi4jkl5mn"],
        },
    ),
    Call("render-retrieve-task", "GET", "/tasks/{taskId}", {"taskId": "tsk-d5im0000000000000001"}),
    Call("inngest-get-function-run-status", "GET", "/v1/runs/{runID}", INNGEST_RUN),
    # The capability file has POST /v1/runs/{runId}/cancel, which v1 does not have.
    Call("inngest-cancel-function-run", "DELETE", "/v1/runs/{runID}", INNGEST_RUN),
    Call("inngest-list-jobs-steps-run", "GET", "/v1/runs/{runID}/jobs", INNGEST_RUN),
    Call("posthog-list-task-runs", "GET", RUNS, TASK | {"limit": 2, "offset": 1}),
    Call(
        "posthog-create-task-run",
        "POST",
        RUNS,
        TASK
        | {
            "body": {
                "environment": "cloud",
                "mode": "interactive",
                "branch": "main",
                "sandbox_environment_id": "0196b7a1-4f3c-7a10-8d5e-2b9c6f1e0a11",
                "pr_authorship_mode": "bot",
                "run_source": "signal_report",
                "signal_report_id": "sr-1",
                "runtime_adapter": "claude",
                "model": "claude-opus-4-5",
                "reasoning_effort": "xhigh",
                "initial_permission_mode": "bypassPermissions",
                "auto_publish": True,
                "custom_image_id": "0196b7a1-4f3c-7a10-8d5e-2b9c6f1e0a12",
                "rtk_enabled": False,
                "resume_from_run_id": "0196b7a1-4f3c-7a10-8d5e-2b9c6f1e0a13",
            }
        },
    ),
    Call("posthog-create-task-run", "POST", RUNS, TASK | {"body": {"branch": None}}, "without a branch"),
    Call("posthog-create-task-run", "POST", RUNS, TASK, "without a body"),
    Call("posthog-retrieve-task-run", "GET", RUN, DONE),
    Call(
        "posthog-update-task-run",
        "PATCH",
        RUN,
        WORKING
        | {
            "body": {
                "status": "completed",
                "stage": "review",
                "branch": "main",
                "error_message": "none",
                "output": {"pr": 1},
                "state": {"note": 1},
                "state_remove_keys": ["mode"],
                "environment": "local",
            }
        },
    ),
    Call(
        "posthog-update-task-run",
        "PATCH",
        RUN,
        WORKING | {"body": {"stage": None, "branch": None, "error_message": None, "output": None, "state": {}}},
        "with nothing in the place of something",
    ),
    Call("posthog-append-log-entries", "POST", RUN + "append_log/", DONE | {"body": {"entries": [{"any": "thing"}]}}),
    Call(
        "posthog-upload-artifacts-task-run",
        "POST",
        RUN + "artifacts/",
        DONE | {"body": {"artifacts": [NAMED | {"content": "aGk=", "content_encoding": "base64"}]}},
    ),
    Call(
        "posthog-download-artifact-through-backend",
        "POST",
        RUN + "artifacts/download/",
        DONE | {"body": {"storage_path": STORED}},
    ),
    Call(
        "posthog-finalize-direct-uploads-task-run",
        "POST",
        RUN + "artifacts/finalize_upload/",
        DONE | {"body": {"artifacts": [NAMED | {"id": "a1" * 16, "storage_path": STORED}]}},
    ),
    Call(
        "posthog-prepare-direct-uploads-task-run",
        "POST",
        RUN + "artifacts/prepare_upload/",
        DONE | {"body": {"artifacts": [NAMED | {"size": 31_457_280}]}},
        "by size",
    ),
    Call(
        "posthog-prepare-direct-uploads-task-run",
        "POST",
        RUN + "artifacts/prepare_upload/",
        DONE | {"body": {"artifacts": [NAMED | {"content": "aGk=", "content_encoding": "base64"}]}},
        "with content",
    ),
    Call(
        "posthog-generate-presigned-url-artifact",
        "POST",
        RUN + "artifacts/presign/",
        DONE | {"body": {"storage_path": STORED}},
    ),
    Call(
        "posthog-send-command-agent-server",
        "POST",
        RUN + "command/",
        WORKING
        | {"body": {"jsonrpc": "2.0", "method": "user_message", "params": {"content": "Add a test."}, "id": "1"}},
    ),
    Call("posthog-get-sandbox-connection-token", "GET", RUN + "connection_token/", WORKING),
    Call("posthog-get-task-run-logs", "GET", RUN + "logs/", DONE),
    Call("posthog-relay-run-message-slack", "POST", RUN + "relay_message/", WORKING | {"body": {"text": "Done."}}),
    Call("posthog-resume-task-run-cloud", "POST", RUN + "resume_in_cloud/", DONE),
    Call(
        "posthog-get-filtered-task-run-session",
        "GET",
        RUN + "session_logs/",
        DONE
        | {
            "after": "2025-12-31T22:00:00+01:00",
            "event_types": "agent_message,_posthog/console",
            "exclude_types": "tool_call",
            "limit": 5000,
            "offset": 1,
        },
    ),
    Call(
        "posthog-set-run-output",
        "PATCH",
        RUN + "set_output/",
        WORKING | {"body": {"output": {"summary": "Fixed."}}},
    ),
    Call(
        "posthog-start-task-run",
        "POST",
        RUN + "start/",
        WAITING | {"body": {"pending_user_message": "Begin.", "pending_user_artifact_ids": ["a1" * 16]}},
    ),
    Call("posthog-start-task-run", "POST", RUN + "start/", WAITING, "without a body"),
    Call(
        "posthog-stream-task-run",
        "GET",
        RUN + "stream/",
        DONE | {"start": "latest", "Last-Event-ID": "1767218600000-0"},
    ),
    Call(
        "runway-retrieve-task-status-and-output",
        "GET",
        "/v1/tasks/{id}",
        {"id": "27f20503-6c24-4c16-946b-35dbbce2af2f"},
    ),
    Call("runway-cancel-delete-task", "DELETE", "/v1/tasks/{id}", {"id": "47f20503-6c24-4c16-946b-35dbbce2af2f"}),
]


# The documents


@cache
def read_document(name: str) -> Any:
    return json.loads(OPENAPI[name].read_text(encoding="utf-8"))


def resolve(schema: Any, document: Any) -> Any:
    """Return the schema without references, as JSON Schema 2020-12. OpenAPI 3.0 marks null with `nullable`."""
    if isinstance(schema, list):
        return [resolve(item, document) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target = document
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return resolve(target, document)
    plain = {name: resolve(item, document) for name, item in schema.items() if name != "nullable"}
    if not schema.get("nullable"):
        return plain
    return {"anyOf": [plain, {"type": "null"}]} if plain else {}


@dataclass(frozen=True)
class Described:
    """An operation in a document: parameters by location and name, header names in lower case."""

    origins: tuple[str, ...]
    parameters: Mapping[tuple[str, str], Any]
    body: Any
    needs_body: bool
    responses: Mapping[str, Any]


def describe(call: Call) -> Described:
    document = read_document(call.document)
    path = document["paths"][call.path]
    operation = path[call.method.lower()]
    parameters = {}
    for parameter in resolve([*path.get("parameters", ()), *operation.get("parameters", ())], document):
        name = parameter["name"].lower() if parameter["in"] == "header" else parameter["name"]
        parameters[parameter["in"], name] = parameter
    body = operation.get("requestBody", {})
    return Described(
        tuple(server["url"] for server in document["servers"]),
        parameters,
        resolve(body["content"]["application/json"]["schema"], document) if body else {},
        bool(body.get("required")),
        resolve(operation["responses"], document),
    )


def problems(value: Any, schema: Any) -> list[str]:
    errors = Draft202012Validator(schema, format_checker=FormatChecker()).iter_errors(value)
    return [f"{error.json_path}: {error.message}" for error in errors]


# Requests


def build(call: Call, environment: Mapping[str, str] = ENVIRONMENT) -> HttpRequest:
    operation = TOOLS[call.tool].operation
    arguments = call.arguments
    if operation.upload:
        arguments, _ = extract_files(operation.upload, arguments)
    return build_request(operation, arguments, environment)


def members_of(schema: Any, given: Any, at: str = "") -> Iterator[tuple[str, bool]]:
    """Yield every member of the schema and whether the value has it. The first item stands for an array."""
    for name, member in schema.get("properties", {}).items():
        place = f"{at}.{name}".removeprefix(".")
        is_given = isinstance(given, dict) and name in given
        yield place, is_given
        yield from members_of(member, given[name] if is_given else None, place)
    if "items" in schema:
        yield from members_of(schema["items"], given[0] if given else None, f"{at}[]")


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_calls_use_every_argument_of_a_tool(name: str) -> None:
    tool = TOOLS[name]
    calls = [call for call in CALLS if call.tool == name]
    used: dict[str, bool] = {}
    for call in calls:
        assert explain_problems(tool.input_schema, call.arguments) == []
        for place, is_given in members_of(tool.input_schema, call.arguments):
            used[place] = used.get(place, False) or is_given
    assert [place for place, is_used in used.items() if not is_used and place not in tool.server_arguments] == []


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_url_of_a_request_is_in_the_document(call: Call) -> None:
    request = build(call)
    address = request.url.partition("?")[0]
    pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(call.path))
    assert request.method == call.method
    assert any(re.fullmatch(re.escape(origin) + pattern, address) for origin in describe(call).origins), address


JOINED = {
    # The document repeats the name, which is the default. The official TypeScript SDK joins the values, and the local
    # server reads only the first and splits it: render-oss/sdk typescript/src/workflows/client/client.ts,
    # render-oss/cli pkg/workflows/apiserver/server.go
    "taskRunIds",
}
SENT_WITHOUT_BEING_DOCUMENTED = {
    # Newer than the document: products/tasks/backend/serializers.py
    ("posthog-create-task-run", "body.auto_publish"),
    ("posthog-create-task-run", "body.custom_image_id"),
    ("posthog-create-task-run", "body.resume_from_run_id"),
    ("posthog-create-task-run", "body.rtk_enabled"),
    # render 1.5.0 public_api/models/run_task.py has it in the body.
    ("render-run-task", "body.idempotencyKey"),
}


def sent_parameters(call: Call, described: Described, request: HttpRequest) -> dict[tuple[str, str], Any]:
    """Return the parameters in path, query and headers as the document describes them."""
    address = urlsplit(request.url)
    names = re.findall(r"{(\w+)}", call.path)
    # From the end: an origin may have a path too.
    pattern = re.sub(r"\\{\w+\\}", "([^/]+)", re.escape(call.path)) + "$"
    match = re.search(pattern, address.path)
    assert match
    sent: dict[tuple[str, str], Any] = {
        ("path", name): unquote(value) for name, value in zip(names, match.groups(), strict=True)
    }
    # OpenAPI 3 ignores parameters with these names, because other keywords describe them.
    own = {"authorization", "content-type"} | ({"accept"} - {name for _, name in described.parameters})
    sent |= {("header", name.lower()): value for name, value in request.headers if name.lower() not in own}
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(address.query, keep_blank_values=True, strict_parsing=bool(address.query)):
        query.setdefault(name, []).append(value)
    for name, values in query.items():
        parameter = described.parameters.get(("query", name), {})
        if parameter.get("schema", {}).get("type") == "array":
            repeats = parameter.get("explode", True) and name not in JOINED
            assert repeats or len(values) == 1, name
            sent["query", name] = values if repeats else values[0].split(",")
        else:
            (sent["query", name],) = values
    return sent


def read_text(text: Any, schema: Any) -> Any:
    """Return the value of a parameter in a URL."""
    return int(text) if schema.get("type") == "integer" and re.fullmatch(r"-?\d+", text) else text


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_parameters_of_a_request_match_the_document(call: Call) -> None:
    described = describe(call)
    sent = sent_parameters(call, described, build(call))
    assert set(sent) - set(described.parameters) == set()
    required = {place for place, parameter in described.parameters.items() if parameter.get("required")}
    assert required - set(sent) == set()
    for place, value in sent.items():
        schema = described.parameters[place]["schema"]
        assert problems(read_text(value, schema), schema) == [], place
    # Every argument is sent with its value.
    given = {name: value for name, value in call.arguments.items() if name != "body"}
    values = {
        name: read_text(value, described.parameters[place, name]["schema"]) for (place, name), value in sent.items()
    }
    for name, value in given.items():
        ours = next(theirs for theirs in values if theirs.lower() == name.lower())
        assert str(values[ours]) == str(value), name


def undocumented(schema: Any, value: Any, at: str = "body") -> Iterator[str]:
    """Yield the members of the value that are missing in the schema, where the schema lists members."""
    if isinstance(value, list):
        for item in value:
            yield from undocumented(schema.get("items", {}), item, f"{at}[]")
    if isinstance(value, dict) and "properties" in schema:
        for name, member in value.items():
            if name in schema["properties"]:
                yield from undocumented(schema["properties"][name], member, f"{at}.{name}")
            else:
                yield f"{at}.{name}"


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_body_of_a_request_matches_the_document(call: Call) -> None:
    described = describe(call)
    request = build(call)
    if request.content is None:
        assert not described.needs_body
        assert "body" not in call.arguments
        return
    assert ("Content-Type", "application/json") in request.headers
    body = json.loads(request.content)
    assert problems(body, described.body) == []
    unknown = {(call.tool, place) for place in undocumented(described.body, body)}
    assert unknown - SENT_WITHOUT_BEING_DOCUMENTED == set()


# Input schemas


@dataclass(frozen=True)
class Difference:
    """A difference between the input schemas of some tools and the document that is on purpose."""

    tools: str
    differences: tuple[str, ...]
    reason: str


ARTIFACT_TYPES = ["plan", "context", "reference", "output", "artifact", "tree_snapshot", "user_attachment"]
ENUMERATIONS = {
    "create-task-run": {
        "body.environment": ["local", "cloud"],
        "body.initial_permission_mode": [
            *("default", "acceptEdits", "plan", "bypassPermissions", "auto", "read-only", "full-access")
        ],
        "body.mode": ["interactive", "background"],
        "body.pr_authorship_mode": ["user", "bot"],
        "body.reasoning_effort": ["low", "medium", "high", "xhigh", "max"],
        "body.run_source": ["manual", "signal_report"],
        "body.runtime_adapter": ["claude", "codex"],
    },
    "update-task-run": {
        "body.environment": ["local"],
        "body.status": ["not_started", "queued", "in_progress", "completed", "failed", "cancelled"],
    },
    "send-command-agent-server": {
        "body.method": ["user_message", "cancel", "close", "permission_response", "set_config_option"]
    },
    "stream-task-run": {"start": ["latest"]},
    "upload-artifacts-task-run": {"body.artifacts[].type": ARTIFACT_TYPES},
    "finalize-direct-uploads-task-run": {"body.artifacts[].type": ARTIFACT_TYPES},
    "prepare-direct-uploads-task-run": {"body.artifacts[].type": ARTIFACT_TYPES},
}
"""The values in PostHog's document, by tool and place."""

DIFFERENCES = [
    Difference(
        "posthog-",
        ("project_id: is not required", "project_id: may be integer too"),
        "POSTHOG_PROJECT_ID is its default, and the id is a number in PostHog's settings",
    ),
    Difference(
        "render-run-task",
        ("body.idempotencyKey: is not in the document",),
        "render 1.5.0 public_api/models/run_task.py",
    ),
    Difference("render-run-task", ("body.task: minLength is 1, not None",), "task cannot be blank: 400"),
    Difference(
        "render-retrieve-task-run render-cancel-task-run",
        ("taskRunId: minLength is 1, not None",),
        "an empty segment would change the path",
    ),
    Difference("render-retrieve-task", ("taskId: minLength is 1, not None",), "as above"),
    Difference(
        "inngest-get-function-run-status inngest-cancel-function-run inngest-list-jobs-steps-run",
        ("runID: minLength is 1, not None",),
        "as above",
    ),
    Difference(
        "render-stream-realtime-events-sse",
        ("taskRunIds: minItems is 1, not None",),
        "a stream without runs is rejected: render-oss/cli pkg/workflows/apiserver",
    ),
    Difference(
        "render-stream-realtime-events-sse",
        ("accept: is not an argument",),
        "text/event-stream is the only value, and the server sets it",
    ),
    Difference(
        "runway-retrieve-task-status-and-output runway-cancel-delete-task",
        ("x-runway-version: is not an argument",),
        "the server sets the version whose responses it can read",
    ),
    Difference(
        "posthog-list-task-runs",
        (
            "limit: minimum is 1, not None",
            "limit: maximum is 100, not None",
            "limit: default is 50, not None",
            "offset: minimum is 0, not None",
            "offset: default is 0, not None",
        ),
        "Django REST framework's LimitOffsetPagination silently corrects other values",
    ),
    Difference(
        "posthog-create-task-run",
        ("body.github_user_token: is not an argument",),
        "a model must not pass credentials; link GitHub in PostHog's settings instead",
    ),
    Difference(
        "posthog-create-task-run",
        ("body.model: minLength is 1, not None", "body.signal_report_id: minLength is 1, not None"),
        "a text field of a serializer must not be blank by default",
    ),
    Difference(
        "posthog-update-task-run",
        ("body: is required", "body: minProperties is 1, not None"),
        "without a body there is nothing to update",
    ),
    Difference(
        "posthog-update-task-run",
        ("body: additionalProperties is False, not None",),
        "strict_request_validation: PostHog rejects unknown members, products/tasks/backend/api.py",
    ),
    Difference(
        "posthog-update-task-run",
        ("body.state_remove_keys: minItems is 1, not None", "body.state_remove_keys[]: minLength is 1, not None"),
        "products/tasks/backend/serializers.py: neither an empty list nor a blank key",
    ),
    Difference(
        "posthog-append-log-entries",
        ("body.entries: minItems is 1, not None",),
        "at least one log entry is required: products/tasks/backend/serializers.py",
    ),
    Difference(
        "posthog-upload-artifacts-task-run posthog-finalize-direct-uploads-task-run "
        "posthog-prepare-direct-uploads-task-run",
        ("body.artifacts: minItems is 1, not None", "body.artifacts[].name: minLength is 1, not None"),
        "an empty list and a file without a name are mistakes of the caller",
    ),
    Difference(
        "posthog-upload-artifacts-task-run posthog-finalize-direct-uploads-task-run "
        "posthog-prepare-direct-uploads-task-run",
        ("body.artifacts[].content_type: pattern is ^[ -~]*$, not None",),
        "it becomes a header of the form that sends the file",
    ),
    Difference(
        "posthog-finalize-direct-uploads-task-run",
        ("body.artifacts[].id: minLength is 1, not None", "body.artifacts[].storage_path: minLength is 1, not None"),
        "both are in the response to the prepare request, and not empty",
    ),
    Difference(
        "posthog-prepare-direct-uploads-task-run",
        (
            "body.artifacts[].size: is not required",
            "body.artifacts[].content: is not in the document",
            "body.artifacts[].content_encoding: is not in the document",
            "body.artifacts[]: anyOf is [{'required': ['size']}, {'required': ['content']}], not None",
        ),
        "the server counts the bytes of the content, and sends it to the URL in the response",
    ),
    Difference(
        "posthog-download-artifact-through-backend posthog-generate-presigned-url-artifact",
        ("body.storage_path: minLength is 1, not None",),
        "no file is stored there",
    ),
    Difference(
        "posthog-send-command-agent-server",
        ("body.id: is one of null, number, string, not anything",),
        "id must be a string or number: products/tasks/backend/serializers.py",
    ),
    Difference(
        "posthog-create-task-run",
        tuple(
            f"body.{name}: is not in the document"
            for name in ("auto_publish", "custom_image_id", "resume_from_run_id", "rtk_enabled")
        ),
        "newer than the document: products/tasks/backend/serializers.py",
    ),
    *(
        Difference(
            f"posthog-{tool}",
            tuple(f"{place}: enum is None, not {values}" for place, values in enumerations.items()),
            "newer versions know further values, which the description does not list",
        )
        for tool, enumerations in ENUMERATIONS.items()
    ),
    Difference(
        "posthog-upload-artifacts-task-run posthog-finalize-direct-uploads-task-run "
        "posthog-prepare-direct-uploads-task-run",
        ("body.artifacts[].type: minLength is 1, not None",),
        "an empty type is not one",
    ),
    Difference("posthog-relay-run-message-slack", ("body.text: minLength is 1, not None",), "nothing would be posted"),
    Difference(
        "posthog-set-run-output",
        ("body: is required", "body.output: is required"),
        "it is required: products/tasks/backend/serializers.py; the document treats its PATCH as a partial update",
    ),
]

RULES = (
    *("enum", "format", "pattern", "default", "minimum", "maximum", "minLength", "maxLength"),
    *("minItems", "maxItems", "minProperties", "maxProperties", "additionalProperties"),
)
ALTERNATIVES = {"anyOf", "oneOf"}
STRUCTURE = {"type", "properties", "required", "items"} | ALTERNATIVES
# Keywords without a constraint.
ANNOTATIONS = {"description", "example", "examples", "title", "writeOnly"}


def alternatives(schema: Any) -> dict[str, Any]:
    """Return the schema by each type that it allows, or an empty dictionary if it allows any."""
    for keyword in ALTERNATIVES & set(schema):
        if "type" not in schema:
            return {kind: one for item in schema[keyword] for kind, one in alternatives(item).items()}
    given = schema.get("type", [])
    return dict.fromkeys(given if isinstance(given, list) else [given], schema)


def compare(ours: Any, theirs: Any, at: str) -> Iterator[str]:
    """Yield the differences between two schemas."""
    mine, their = alternatives(ours), alternatives(theirs)
    if mine and not their:
        yield f"{at}: is one of {', '.join(sorted(mine))}, not anything"
        return
    if more := sorted(set(mine) - set(their)):
        yield f"{at}: may be {', '.join(more)} too"
    if less := sorted(set(their) - set(mine)):
        yield f"{at}: may not be {', '.join(less)}"
    for kind in sorted(set(mine) & set(their)):
        yield from compare_one(mine[kind], their[kind], at)


def compare_one(ours: Any, theirs: Any, at: str) -> Iterator[str]:
    assert set(ours) | set(theirs) <= {*RULES, *STRUCTURE, *ANNOTATIONS}, at
    for rule in (*RULES, *ALTERNATIVES):
        mine, their = ours.get(rule), theirs.get(rule)
        if rule == "additionalProperties":
            mine, their = (None if value in (True, {}) else value for value in (mine, their))
        if mine != their:
            yield f"{at}: {rule} is {mine}, not {their}"
    yield from compare_members(
        ours.get("properties", {}),
        theirs.get("properties", {}),
        set(ours.get("required", ())),
        set(theirs.get("required", ())),
        f"{at}.",
    )
    if "items" in ours or "items" in theirs:
        yield from compare(ours.get("items", {}), theirs.get("items", {}), f"{at}[]")


def compare_members(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], required: set[str], needed: set[str], at: str
) -> Iterator[str]:
    for name in sorted(set(ours) - set(theirs)):
        yield f"{at}{name}: is not in the document"
    for name in sorted(set(theirs) - set(ours)):
        yield f"{at}{name}: is not an argument"
    for name in sorted(set(ours) & set(theirs)):
        if (name in required) != (name in needed):
            yield f"{at}{name}: is {'' if name in required else 'not '}required"
        yield from compare(ours[name], theirs[name], f"{at}{name}")


def find_differences(tool: Tool, call: Call) -> Iterator[str]:
    described = describe(call)
    theirs = {name: parameter["schema"] for (_, name), parameter in described.parameters.items()}
    needed = {name for (_, name), parameter in described.parameters.items() if parameter.get("required")}
    if described.body:
        theirs["body"] = described.body
        needed |= {"body"} if described.needs_body else set()
    # Path parameters correspond by position, headers by name regardless of case.
    placeholders = [part.name for part in tool.operation.path if isinstance(part, ArgumentReference)]
    names = dict(zip(placeholders, re.findall(r"{(\w+)}", call.path), strict=True))
    headers = {name for place, name in described.parameters if place == "header"}
    names |= {name: name.lower() for name in tool.input_schema["properties"] if name.lower() in headers}
    given = tool.input_schema["properties"].items()
    ours = {names.get(name, name): schema for name, schema in given if name not in tool.server_arguments}
    required = {names.get(name, name) for name in tool.input_schema.get("required", ())}
    yield from compare_members(ours, theirs, required, needed, "")


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_input_schema_differs_from_the_document_only_as_listed(name: str) -> None:
    call = next(call for call in CALLS if call.tool == name)
    expected = [
        difference
        for known in DIFFERENCES
        if name in known.tools.split() or (known.tools.endswith("-") and name.startswith(known.tools))
        for difference in known.differences
    ]
    assert sorted(find_differences(TOOLS[name], call)) == sorted(expected)


def test_every_operation_of_the_documents_has_a_tool() -> None:
    has = {
        (name, method.upper(), path)
        for name in OPENAPI
        for path, operations in read_document(name)["paths"].items()
        for method in operations
        if method != "parameters"
    }
    # Inngest's document has more than runs. The capability file does not.
    beside = {operation for operation in has if operation[0] == "inngest" and not operation[2].startswith("/v1/runs/")}
    assert has - beside == {(call.document, call.method, call.path) for call in CALLS}


# Responses of the simulators


REJECTED = {
    "posthog-create-task-run",  # the sandbox environment does not exist
    "posthog-start-task-run",  # the artifact belongs to another run
}
KNOWN_DIFFERENCES = {
    # The open-source server writes fetched_at and cached_until: inngest/inngest pkg/api/apiv1
    "inngest: $.metadata: 'fetchedAt' is a required property",
    # The document has only bytes. PostHog sends them with the media type of the artifact: api.py (artifacts/download).
    "posthog: text/markdown",
}


@pytest.mark.parametrize("call", CALLS, ids=str)
async def test_response_of_the_simulator_matches_the_document(call: Call, simulator: Simulator) -> None:
    request = build(call, simulator.environment("http://127.0.0.1:1"))
    with anyio.fail_after(PATIENCE):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(simulator.app)) as client:
            response = await client.request(
                request.method, request.url, content=request.content, headers=httpx.Headers(list(request.headers))
            )
    assert (response.status_code >= 400) == (str(call) in REJECTED), response.text
    media_types = describe(call).responses[str(response.status_code)].get("content", {})
    if not media_types:
        assert response.content == b""
        return
    media_type = response.headers["Content-Type"].partition(";")[0]
    differences = [] if media_type in media_types else [media_type]
    if media_type == "application/json":
        differences += problems(response.json(), media_types[media_type]["schema"])
    assert {f"{call.document}: {problem}" for problem in differences} - KNOWN_DIFFERENCES == set()
