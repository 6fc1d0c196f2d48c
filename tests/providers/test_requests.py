"""The request that every shipped tool sends, and the arguments that it accepts.

The expected values are from the providers, never from this project: Render's API reference (api-docs.render.com,
section Workflow Tasks), Inngest's open-source server (inngest/inngest pkg/api/apiv1/apiv1.go) and its v1 document
(docs/api-docs/v1.yaml), PostHog's source (products/tasks/backend/api.py and serializers.py) and API schema, and
Runway's SDK (runwayml 5.24.0 resources/tasks.py).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from mcp_taskruns.core.calls.arguments import compile_validator, explain_problems
from mcp_taskruns.core.calls.received import HttpResponse
from mcp_taskruns.core.calls.request import HttpRequest, build_request
from mcp_taskruns.core.calls.response import read_response
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import InvalidArguments, ProviderError
from mcp_taskruns.loading.loader import load_tools

ENVIRONMENT = {
    "RENDER_API_KEY": "rnd_key",
    "INNGEST_SIGNING_KEY": "signkey-prod-1",
    "INNGEST_API_KEY_V2": "sk-inn-api-1",
    "POSTHOG_API_KEY": "phx_key",
    "POSTHOG_PROJECT_ID": "42",
    "RUNWAYML_API_SECRET": "key_1",
}

TOOLS = {tool.name: tool for tool in load_tools([])}

# api-docs.render.com: Authentication
RENDER = {"Accept": "application/json", "Authorization": "Bearer rnd_key"}
RENDER_JSON = RENDER | {"Content-Type": "application/json"}
# inngest.com/docs/reference/rest-api: the bearer token is the signing key; the response is JSON whatever Accept is
INNGEST = {"Accept": "application/json, */*;q=0.5", "Authorization": "Bearer signkey-prod-1"}
INNGEST_V2 = INNGEST | {"Authorization": "Bearer sk-inn-api-1"}
# posthog.com/docs/api: personal API key as bearer token. Renders only JSON, also for bytes and JSON lines:
# products/tasks/backend/api.py
POSTHOG = {"Accept": "application/json, */*;q=0.5", "Authorization": "Bearer phx_key"}
POSTHOG_JSON = POSTHOG | {"Content-Type": "application/json"}
# The stream has only a renderer of event streams: products/tasks/backend/api.py (stream)
POSTHOG_STREAM = {"Accept": "text/event-stream, */*;q=0.1", "Authorization": "Bearer phx_key"}
# docs.dev.runwayml.com: API versioning
RUNWAY = {"Accept": "application/json", "X-Runway-Version": "2024-11-06", "Authorization": "Bearer key_1"}

TASK_ID = "0196b7a1-4f3c-7a10-8d5e-2b9c6f1e0a11"
RUN_ID = "0196b7a2-9e21-7c44-b0f3-5d7a8c2e1b22"
RUNS = "https://us.posthog.com/api/projects/42/tasks/0196b7a1-4f3c-7a10-8d5e-2b9c6f1e0a11/runs/"
RUN = RUNS + "0196b7a2-9e21-7c44-b0f3-5d7a8c2e1b22/"
TASK = {"task_id": TASK_ID}
ONE = {"task_id": TASK_ID, "id": RUN_ID}


@dataclass(frozen=True)
class Pinned:
    """A call and the request that it sends."""

    tool: str
    arguments: Mapping[str, Any]
    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)
    about: str = ""

    def __str__(self) -> str:
        return f"{self.tool} {self.about}".strip()


EVERY_TOOL = [
    # Render API reference: List task runs
    Pinned("render-list-task-runs", {}, "GET", "https://api.render.com/v1/task-runs", RENDER),
    # Render API reference: Run task; render 1.5.0 public_api/models/run_task.py
    Pinned(
        "render-run-task",
        {"body": {"task": "my-workflow/calculate_square", "input": [5], "idempotencyKey": "k-1"}},
        "POST",
        "https://api.render.com/v1/task-runs",
        RENDER_JSON,
        b'{"task":"my-workflow/calculate_square","input":[5],"idempotencyKey":"k-1"}',
    ),
    # Render API reference: Stream realtime events (SSE): Accept "must be text/event-stream"
    Pinned(
        "render-stream-realtime-events-sse",
        {"taskRunIds": ["trn-1234"]},
        "GET",
        "https://api.render.com/v1/task-runs/events?taskRunIds=trn-1234",
        RENDER | {"Accept": "text/event-stream"},
    ),
    # Render API reference: Retrieve task run
    Pinned(
        "render-retrieve-task-run",
        {"taskRunId": "trn-d1abc2def3ghi4jkl5mn"},
        "GET",
        "https://api.render.com/v1/task-runs/trn-d1abc2def3ghi4jkl5mn",
        RENDER,
    ),
    # Render API reference: Cancel task run
    Pinned(
        "render-cancel-task-run",
        {"taskRunId": "trn-d1abc2def3ghi4jkl5mn"},
        "DELETE",
        "https://api.render.com/v1/task-runs/trn-d1abc2def3ghi4jkl5mn",
        RENDER,
    ),
    # Render API reference: List tasks
    Pinned("render-list-tasks", {}, "GET", "https://api.render.com/v1/tasks", RENDER),
    # Render API reference: Retrieve task
    Pinned(
        "render-retrieve-task",
        {"taskId": "tsk-d1abc2def3ghi4jkl5mn"},
        "GET",
        "https://api.render.com/v1/tasks/tsk-d1abc2def3ghi4jkl5mn",
        RENDER,
    ),
    # inngest pkg/api/apiv1/apiv1.go: GET /v1/runs/{runID}
    Pinned(
        "inngest-get-function-run-status",
        {"runId": "01HXYZ8K3V5QWERTY6ABCDEFGH"},
        "GET",
        "https://api.inngest.com/v1/runs/01HXYZ8K3V5QWERTY6ABCDEFGH",
        INNGEST,
    ),
    # inngest pkg/api/apiv1/apiv1.go: DELETE /v1/runs/{runID}; there is no POST .../cancel on v1
    Pinned(
        "inngest-cancel-function-run",
        {"runId": "01HXYZ8K3V5QWERTY6ABCDEFGH"},
        "DELETE",
        "https://api.inngest.com/v1/runs/01HXYZ8K3V5QWERTY6ABCDEFGH",
        INNGEST,
    ),
    # inngest pkg/api/apiv1/apiv1.go: GET /v1/runs/{runID}/jobs
    Pinned(
        "inngest-list-jobs-steps-run",
        {"runId": "01HXYZ8K3V5QWERTY6ABCDEFGH"},
        "GET",
        "https://api.inngest.com/v1/runs/01HXYZ8K3V5QWERTY6ABCDEFGH/jobs",
        INNGEST,
    ),
    # inngest pkg/api/v2/endpoints_runs.go: ListRuns, GetEventRuns, GetFunctionTrace
    Pinned("inngest-list-function-runs", {}, "GET", "https://api.inngest.com/v2/runs", INNGEST_V2),
    Pinned(
        "inngest-list-event-runs",
        {"eventId": "01HXYZ8K3V5QWERTY6ABCDEFGH"},
        "GET",
        "https://api.inngest.com/v2/events/01HXYZ8K3V5QWERTY6ABCDEFGH/runs",
        INNGEST_V2,
    ),
    Pinned(
        "inngest-get-function-run-trace",
        {"runId": "01HXYZ8K3V5QWERTY6ABCDEFGH"},
        "GET",
        "https://api.inngest.com/v2/runs/01HXYZ8K3V5QWERTY6ABCDEFGH/trace",
        INNGEST_V2,
    ),
    # PostHog's API schema: tasks_runs_list
    Pinned("posthog-list-task-runs", TASK, "GET", RUNS, POSTHOG),
    # tasks_runs_create, TaskRunBootstrapCreateRequestSerializer
    Pinned(
        "posthog-create-task-run",
        {**TASK, "body": {"environment": "cloud", "mode": "background"}},
        "POST",
        RUNS,
        POSTHOG_JSON,
        b'{"environment":"cloud","mode":"background"}',
    ),
    # tasks_runs_retrieve
    Pinned("posthog-retrieve-task-run", ONE, "GET", RUN, POSTHOG),
    # tasks_runs_partial_update, TaskRunUpdateSerializer
    Pinned(
        "posthog-update-task-run",
        {**ONE, "body": {"status": "cancelled"}},
        "PATCH",
        RUN,
        POSTHOG_JSON,
        b'{"status":"cancelled"}',
    ),
    # tasks_runs_append_log_create, TaskRunAppendLogRequestSerializer
    Pinned(
        "posthog-append-log-entries",
        {**ONE, "body": {"entries": [{"type": "notification", "notification": {"method": "_posthog/console"}}]}},
        "POST",
        RUN + "append_log/",
        POSTHOG_JSON,
        b'{"entries":[{"type":"notification","notification":{"method":"_posthog/console"}}]}',
    ),
    # tasks_runs_artifacts_create, TaskRunArtifactsUploadRequestSerializer
    Pinned(
        "posthog-upload-artifacts-task-run",
        {
            **ONE,
            "body": {
                "artifacts": [{"name": "p.png", "type": "output", "content": "iVBOR", "content_encoding": "base64"}]
            },
        },
        "POST",
        RUN + "artifacts/",
        POSTHOG_JSON,
        b'{"artifacts":[{"name":"p.png","type":"output","content":"iVBOR","content_encoding":"base64"}]}',
    ),
    # tasks_runs_artifacts_download_create, TaskRunArtifactPresignRequestSerializer
    Pinned(
        "posthog-download-artifact-through-backend",
        {**ONE, "body": {"storage_path": "tasks/artifacts/team_1/p.png"}},
        "POST",
        RUN + "artifacts/download/",
        POSTHOG_JSON,
        b'{"storage_path":"tasks/artifacts/team_1/p.png"}',
    ),
    # tasks_runs_artifacts_finalize_upload_create, TaskRunArtifactsFinalizeUploadRequestSerializer
    Pinned(
        "posthog-finalize-direct-uploads-task-run",
        {**ONE, "body": {"artifacts": [{"id": "a1", "name": "p", "type": "output", "storage_path": "tasks/p"}]}},
        "POST",
        RUN + "artifacts/finalize_upload/",
        POSTHOG_JSON,
        b'{"artifacts":[{"id":"a1","name":"p","type":"output","storage_path":"tasks/p"}]}',
    ),
    # tasks_runs_artifacts_prepare_upload_create, TaskRunArtifactsPrepareUploadRequestSerializer
    Pinned(
        "posthog-prepare-direct-uploads-task-run",
        {**ONE, "body": {"artifacts": [{"name": "p", "type": "output", "size": 31457280}]}},
        "POST",
        RUN + "artifacts/prepare_upload/",
        POSTHOG_JSON,
        b'{"artifacts":[{"name":"p","type":"output","size":31457280}]}',
    ),
    # tasks_runs_artifacts_presign_create, TaskRunArtifactPresignRequestSerializer
    Pinned(
        "posthog-generate-presigned-url-artifact",
        {**ONE, "body": {"storage_path": "tasks/artifacts/team_1/p.png"}},
        "POST",
        RUN + "artifacts/presign/",
        POSTHOG_JSON,
        b'{"storage_path":"tasks/artifacts/team_1/p.png"}',
    ),
    # tasks_runs_command_create, TaskRunCommandRequestSerializer
    Pinned(
        "posthog-send-command-agent-server",
        {**ONE, "body": {"jsonrpc": "2.0", "method": "user_message", "params": {"content": "go on"}, "id": 1}},
        "POST",
        RUN + "command/",
        POSTHOG_JSON,
        b'{"jsonrpc":"2.0","method":"user_message","params":{"content":"go on"},"id":1}',
    ),
    # tasks_runs_connection_token_retrieve
    Pinned("posthog-get-sandbox-connection-token", ONE, "GET", RUN + "connection_token/", POSTHOG),
    # tasks_runs_logs_retrieve: Accept: application/jsonl is 406, though that is what is sent
    Pinned("posthog-get-task-run-logs", ONE, "GET", RUN + "logs/", POSTHOG),
    # tasks_runs_relay_message_create, TaskRunRelayMessageRequestSerializer
    Pinned(
        "posthog-relay-run-message-slack",
        {**ONE, "body": {"text": "Fertig: größer"}},
        "POST",
        RUN + "relay_message/",
        POSTHOG_JSON,
        b'{"text":"Fertig: gr\xc3\xb6\xc3\x9fer"}',
    ),
    # tasks_runs_resume_in_cloud_create: no body
    Pinned("posthog-resume-task-run-cloud", ONE, "POST", RUN + "resume_in_cloud/", POSTHOG),
    # tasks_runs_session_logs_retrieve, TaskRunSessionLogsQuerySerializer
    Pinned("posthog-get-filtered-task-run-session", ONE, "GET", RUN + "session_logs/", POSTHOG),
    # tasks_runs_set_output_partial_update, TaskRunSetOutputRequestSerializer
    Pinned(
        "posthog-set-run-output",
        {**ONE, "body": {"output": {"pr_url": None, "ok": True}}},
        "PATCH",
        RUN + "set_output/",
        POSTHOG_JSON,
        b'{"output":{"pr_url":null,"ok":true}}',
    ),
    # tasks_runs_start_create, TaskRunStartRequestSerializer
    Pinned(
        "posthog-start-task-run",
        {**ONE, "body": {"pending_user_message": "hi", "pending_user_artifact_ids": ["a1"]}},
        "POST",
        RUN + "start/",
        POSTHOG_JSON,
        b'{"pending_user_message":"hi","pending_user_artifact_ids":["a1"]}',
    ),
    # tasks_runs_stream_retrieve
    Pinned("posthog-stream-task-run", ONE, "GET", RUN + "stream/", POSTHOG_STREAM),
    # runwayml 5.24.0 resources/tasks.py: retrieve
    Pinned(
        "runway-retrieve-task-status-and-output",
        {"id": "17f20503-6c24-4c16-946b-35dbbce2af2f"},
        "GET",
        "https://api.dev.runwayml.com/v1/tasks/17f20503-6c24-4c16-946b-35dbbce2af2f",
        RUNWAY,
    ),
    # runwayml 5.24.0 resources/tasks.py: delete
    Pinned(
        "runway-cancel-delete-task",
        {"id": "17f20503-6c24-4c16-946b-35dbbce2af2f"},
        "DELETE",
        "https://api.dev.runwayml.com/v1/tasks/17f20503-6c24-4c16-946b-35dbbce2af2f",
        RUNWAY,
    ),
]

VARIANTS = [
    # Render API reference: List task runs. Arrays repeat the name (form, explode), but ownerId has explode: false
    Pinned(
        "render-list-task-runs",
        {
            "rootTaskRunId": ["trn-a", "trn-b"],
            "cursor": "c+/=",
            "limit": 100,
            "taskSlug": ["my-workflow/my-task"],
            "ownerId": ["tea-1", "tea-2"],
            "workflowVersionId": ["wfv-1"],
            "workflowId": ["wfl-1"],
        },
        "GET",
        "https://api.render.com/v1/task-runs?rootTaskRunId=trn-a&rootTaskRunId=trn-b&cursor=c%2B%2F%3D&limit=100"
        "&taskSlug=my-workflow%2Fmy-task&ownerId=tea-1,tea-2&workflowVersionId=wfv-1&workflowId=wfl-1",
        RENDER,
        about="filtered and paged",
    ),
    # Render API reference: List tasks
    Pinned(
        "render-list-tasks",
        {"cursor": "abc", "limit": 1, "ownerId": ["tea-1", "tea-2"], "workflowId": ["w1", "w2"]},
        "GET",
        "https://api.render.com/v1/tasks?cursor=abc&limit=1&ownerId=tea-1,tea-2&workflowId=w1&workflowId=w2",
        RENDER,
        about="filtered and paged",
    ),
    # render-oss/cli pkg/workflows/apiserver/server.go reads the first value only and splits it at commas
    Pinned(
        "render-stream-realtime-events-sse",
        {"taskRunIds": ["trn-1234", "trn-5678"]},
        "GET",
        "https://api.render.com/v1/task-runs/events?taskRunIds=trn-1234,trn-5678",
        RENDER | {"Accept": "text/event-stream"},
        about="of two runs",
    ),
    # Render API reference: Run task: input may be an object of named arguments
    Pinned(
        "render-run-task",
        {"body": {"task": "tsk-d1abc2def3ghi4jkl5mn", "input": {"n": 5, "deep": [{"a": None}]}}},
        "POST",
        "https://api.render.com/v1/task-runs",
        RENDER_JSON,
        b'{"task":"tsk-d1abc2def3ghi4jkl5mn","input":{"n":5,"deep":[{"a":null}]}}',
        about="with named arguments",
    ),
    # docs/api-docs/v1.yaml: x-inngest-env
    Pinned(
        "inngest-get-function-run-status",
        {"runId": "01HXYZ8K3V5QWERTY6ABCDEFGH", "X-Inngest-Env": "feature/a"},
        "GET",
        "https://api.inngest.com/v1/runs/01HXYZ8K3V5QWERTY6ABCDEFGH",
        INNGEST | {"X-Inngest-Env": "feature/a"},
        about="of a branch environment",
    ),
    # inngest.com/docs/reference/python/overview/env-vars: INNGEST_ENV
    Pinned(
        "inngest-cancel-function-run",
        {"runId": "01HXYZ8K3V5QWERTY6ABCDEFGH"},
        "DELETE",
        "https://api.inngest.com/v1/runs/01HXYZ8K3V5QWERTY6ABCDEFGH",
        INNGEST | {"X-Inngest-Env": "feature-a"},
        environment=ENVIRONMENT | {"INNGEST_ENV": "feature-a"},
        about="of INNGEST_ENV",
    ),
    # LimitOffsetPagination: products/tasks/backend/api.py
    Pinned(
        "posthog-list-task-runs",
        {**TASK, "limit": 100, "offset": 200},
        "GET",
        RUNS + "?limit=100&offset=200",
        POSTHOG,
        about="third page",
    ),
    # TaskRunSessionLogsQuerySerializer: comma-separated types, ISO 8601 time
    Pinned(
        "posthog-get-filtered-task-run-session",
        {
            **ONE,
            "after": "2026-01-31T09:00:00+00:00",
            "event_types": "agent_message_chunk,tool_call",
            "exclude_types": "_posthog/console",
            "limit": 100,
            "offset": 0,
        },
        "GET",
        RUN + "session_logs/?after=2026-01-31T09%3A00%3A00%2B00%3A00"
        "&event_types=agent_message_chunk%2Ctool_call&exclude_types=_posthog%2Fconsole&limit=100&offset=0",
        POSTHOG,
        about="filtered",
    ),
    # All fields of these bodies are optional, and so are the bodies: serializers.py
    Pinned("posthog-create-task-run", TASK, "POST", RUNS, POSTHOG, about="without body"),
    Pinned("posthog-start-task-run", ONE, "POST", RUN + "start/", POSTHOG, about="without body"),
    Pinned("posthog-start-task-run", {**ONE, "body": {}}, "POST", RUN + "start/", POSTHOG_JSON, b"{}", about="with {}"),
    # products/tasks/backend/api.py (stream): ?start=latest
    Pinned(
        "posthog-stream-task-run",
        {**ONE, "start": "latest"},
        "GET",
        RUN + "stream/?start=latest",
        POSTHOG_STREAM,
        about="from now on",
    ),
    # products/tasks/backend/api.py (stream): the request header Last-Event-ID is the id to resume after
    Pinned(
        "posthog-stream-task-run",
        {**ONE, "Last-Event-ID": "1767225600000-0"},
        "GET",
        RUN + "stream/",
        POSTHOG_STREAM | {"Last-Event-ID": "1767225600000-0"},
        about="resumed",
    ),
    Pinned(
        "posthog-retrieve-task-run",
        {**ONE, "project_id": "7"},
        "GET",
        RUN.replace("/42/", "/7/"),
        POSTHOG,
        about="of another project",
    ),
    # posthog.com/docs/api: eu.posthog.com, or the origin of a self-hosted instance
    Pinned(
        "posthog-retrieve-task-run",
        ONE,
        "GET",
        RUN.replace("us.", "eu."),
        POSTHOG,
        environment=ENVIRONMENT | {"POSTHOG_HOST": "https://eu.posthog.com/"},
        about="at POSTHOG_HOST",
    ),
    Pinned(
        "posthog-retrieve-task-run",
        ONE,
        "GET",
        RUN.replace("https://us.posthog.com", "http://127.0.0.1:8010/posthog"),
        POSTHOG,
        environment=ENVIRONMENT
        | {"POSTHOG_BASE_URL": "http://127.0.0.1:8010/posthog/", "POSTHOG_HOST": "https://eu.posthog.com"},
        about="at POSTHOG_BASE_URL rather than POSTHOG_HOST",
    ),
    # render 1.5.0 client.py: the local development server listens on port 8120
    Pinned(
        "render-list-tasks",
        {},
        "GET",
        "http://localhost:8120/v1/tasks",
        RENDER,
        environment=ENVIRONMENT | {"RENDER_BASE_URL": "http://localhost:8120/v1/"},
        about="at RENDER_BASE_URL",
    ),
    # inngest.com/docs/local-development: the dev server listens on port 8288
    Pinned(
        "inngest-list-jobs-steps-run",
        {"runId": "01HXYZ8K3V5QWERTY6ABCDEFGH"},
        "GET",
        "http://localhost:8288/v1/runs/01HXYZ8K3V5QWERTY6ABCDEFGH/jobs",
        INNGEST,
        environment=ENVIRONMENT | {"INNGEST_BASE_URL": "http://localhost:8288/"},
        about="at INNGEST_BASE_URL",
    ),
    # inngest.com/docs/reference/python/overview/env-vars: INNGEST_API_BASE_URL
    Pinned(
        "inngest-list-jobs-steps-run",
        {"runId": "01HXYZ8K3V5QWERTY6ABCDEFGH"},
        "GET",
        "http://localhost:8288/v1/runs/01HXYZ8K3V5QWERTY6ABCDEFGH/jobs",
        INNGEST,
        environment=ENVIRONMENT | {"INNGEST_API_BASE_URL": "http://localhost:8288"},
        about="at INNGEST_API_BASE_URL",
    ),
    # The capability files' names of the keys. The providers' own names win where both are set.
    Pinned(
        "inngest-get-function-run-status",
        {"runId": "01HXYZ8K3V5QWERTY6ABCDEFGH"},
        "GET",
        "https://api.inngest.com/v1/runs/01HXYZ8K3V5QWERTY6ABCDEFGH",
        INNGEST | {"Authorization": "Bearer from-the-file"},
        environment={"INNGEST_API_KEY": "from-the-file"},
        about="with INNGEST_API_KEY",
    ),
    Pinned(
        "inngest-get-function-run-status",
        {"runId": "01HXYZ8K3V5QWERTY6ABCDEFGH"},
        "GET",
        "https://api.inngest.com/v1/runs/01HXYZ8K3V5QWERTY6ABCDEFGH",
        INNGEST,
        environment=ENVIRONMENT | {"INNGEST_API_KEY": "from-the-file"},
        about="with both keys",
    ),
    Pinned(
        "runway-cancel-delete-task",
        {"id": "17f20503-6c24-4c16-946b-35dbbce2af2f"},
        "DELETE",
        "https://api.dev.runwayml.com/v1/tasks/17f20503-6c24-4c16-946b-35dbbce2af2f",
        RUNWAY | {"Authorization": "Bearer from-the-file"},
        environment={"RUNWAY_API_KEY": "from-the-file", "RUNWAYML_API_SECRET": ""},
        about="with RUNWAY_API_KEY",
    ),
    Pinned(
        "runway-cancel-delete-task",
        {"id": "17f20503-6c24-4c16-946b-35dbbce2af2f"},
        "DELETE",
        "https://api.dev.runwayml.com/v1/tasks/17f20503-6c24-4c16-946b-35dbbce2af2f",
        RUNWAY,
        environment=ENVIRONMENT | {"RUNWAY_API_KEY": "from-the-file"},
        about="with both keys",
    ),
]


def tool_of(pinned: Pinned) -> Tool:
    return TOOLS[pinned.tool]


def sent(request: HttpRequest) -> tuple[str, str, list[tuple[str, str]], bytes | None]:
    return request.method, request.url, sorted(request.headers), request.content


@pytest.mark.parametrize("pinned", EVERY_TOOL + VARIANTS, ids=str)
def test_call_sends_the_documented_request(pinned: Pinned) -> None:
    request = build_request(tool_of(pinned).operation, pinned.arguments, pinned.environment)
    assert sent(request) == (pinned.method, pinned.url, sorted(pinned.headers.items()), pinned.content)


def test_every_shipped_operation_has_a_request() -> None:
    # A wait tool sends the requests of the tool that reads the run.
    forwarding = [name for name, tool in TOOLS.items() if not tool.derived]
    assert sorted(pinned.tool for pinned in EVERY_TOOL) == sorted(forwarding)
    assert (len(forwarding), len(TOOLS)) == (34, 44)


@pytest.mark.parametrize("pinned", EVERY_TOOL + VARIANTS, ids=str)
def test_input_schema_accepts_the_arguments_of_a_documented_call(pinned: Pinned) -> None:
    schema = tool_of(pinned).input_schema
    assert explain_problems(schema, pinned.arguments) == []
    assert compile_validator(schema)(pinned.arguments)


@pytest.mark.parametrize(
    ("tool", "arguments", "problems"),
    [
        # Render API reference: Run task: task and input are required
        ("render-run-task", {"body": {"task": "a/b"}}, ["body.input: is required"]),
        ("render-run-task", {"body": {}}, ["body.task: is required", "body.input: is required"]),
        (
            "render-run-task",
            {"body": {"task": "a/b", "input": 5}},
            ["body.input: must be of type array or object"],
        ),
        ("render-run-task", {}, ["body: is required"]),
        # Render API reference: Pagination: limit is 1 to 100
        ("render-list-task-runs", {"limit": 101}, ["limit: 101 is greater than the maximum of 100"]),
        ("render-list-task-runs", {"limit": True}, ["limit: must be of type integer"]),
        ("render-list-task-runs", {"rootTaskRunId": "trn-a"}, ["rootTaskRunId: must be of type array"]),
        ("render-list-task-runs", {"ownerId": ["tea-1", 2]}, ["ownerId[1]: must be of type string"]),
        ("render-list-tasks", {"rootTaskRunId": ["trn-a"]}, ["rootTaskRunId: unknown argument"]),
        ("render-stream-realtime-events-sse", {"taskRunIds": []}, ["taskRunIds: [] should be non-empty"]),
        ("render-retrieve-task-run", {"id": "trn-a"}, ["id: unknown argument", "taskRunId: is required"]),
        ("posthog-append-log-entries", {**ONE, "body": {"entries": []}}, ["body.entries: [] should be non-empty"]),
        # TaskRunSessionLogsQuerySerializer: limit is 1 to 5000
        (
            "posthog-get-filtered-task-run-session",
            {**ONE, "limit": 5001},
            ["limit: 5001 is greater than the maximum of 5000"],
        ),
        # TaskRunRelayMessageRequestSerializer: text is required
        ("posthog-relay-run-message-slack", {**ONE, "body": {}}, ["body.text: is required"]),
        ("runway-cancel-delete-task", {}, ["id: is required"]),
        ("runway-cancel-delete-task", {"id": 5}, ["id: must be of type string"]),
    ],
)
def test_input_schema_rejects_arguments_that_the_provider_rejects(
    tool: str, arguments: Any, problems: list[str]
) -> None:
    schema = TOOLS[tool].input_schema
    assert sorted(explain_problems(schema, arguments)) == sorted(problems)
    assert not compile_validator(schema)(arguments)


def test_at_most_five_problems_are_reported_and_each_is_truncated() -> None:
    schema = {"type": "object", "additionalProperties": {"maxLength": 1}}
    problems = explain_problems(schema, {f"a{number}": "x" * 1_000 for number in range(9)})
    assert [problem.partition(":")[0] for problem in problems] == ["a0", "a1", "a2", "a3", "a4"]
    assert max(map(len, problems)) <= 210


def test_missing_project_id_names_the_argument_and_the_variable() -> None:
    environment = {"POSTHOG_API_KEY": "phx_key"}
    with pytest.raises(InvalidArguments) as caught:
        build_request(TOOLS["posthog-list-task-runs"].operation, TASK, environment)
    assert caught.value.message == "project_id: is required, because the server has no default for it"
    assert caught.value.hint == "Pass project_id, or set POSTHOG_PROJECT_ID in the server's environment."


def test_accept_argument_of_the_render_file_is_ignored() -> None:
    tool = TOOLS["render-stream-realtime-events-sse"]
    assert tool.dropped_arguments == {"Accept"}
    assert "Accept" not in tool.input_schema["properties"]
    request = build_request(tool.operation, {"taskRunIds": ["trn-1"], "Accept": "application/json"}, ENVIRONMENT)
    assert [value for name, value in request.headers if name == "Accept"] == ["text/event-stream"]


# inngest pkg/api/apiv1: the response to an unknown run is a 200 with status 500 in its body, see cache.go
@pytest.mark.parametrize("tool", [name for name in TOOLS if name.startswith("inngest-")])
@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Unable to load function run: 01HXYZ8K3V5QWERTY6ABCDEFGH", "not_found"),
        ("Unable to query jobs", "unavailable"),
    ],
)
def test_inngest_error_in_the_body_of_a_200(tool: str, message: str, kind: str) -> None:
    body = json.dumps({"error": message, "data": None, "status": 500}).encode()
    with pytest.raises(ProviderError) as caught:
        read_response(HttpResponse(200, {"content-type": "application/json"}, body), TOOLS[tool].operation)
    assert (caught.value.kind, caught.value.status) == (kind, 500)
    assert caught.value.message == f'the provider returned HTTP 200 with an error body (status 500): "{message}"'
