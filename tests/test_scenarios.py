"""All 40 tools over every transport and protocol version, against the simulated providers."""

import json
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from mcp.client import Client
from mcp.types import CallToolResult, TextContent

from mcp_taskruns.engine import retries
from mcp_taskruns.engine.runs import poll, reconnect
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.server import serve
from tests.clients import Era, Transport, open_client
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

TASK = "11111111-1111-4111-8111-111111111111"
COMPLETED, NOT_STARTED, IN_PROGRESS, FAILED = (
    "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa",
    "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb",
    "cccccccc-cccc-4ccc-8ccc-cccccccccccc",
    "dddddddd-dddd-4ddd-8ddd-dddddddddddd",
)
ARTIFACT = {"name": "note.txt", "type": "context"}
Results = Mapping[str, Any]
Arguments = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One call: the tool, its arguments, or a function of earlier results, and a pattern for its result."""

    tool: str
    arguments: Arguments | Callable[[Results], Arguments]
    expected: str


def run(run_id: str, **more: Any) -> Arguments:
    return {"task_id": TASK, "id": run_id, **more}


def artifact_path(results: Results) -> Arguments:
    report = results["posthog-retrieve-task-run"]["artifacts"][0]
    return run(COMPLETED, body={"storage_path": report["storage_path"]})


def uploaded(results: Results) -> Arguments:
    """Upload a file with the prepared form, as an agent with a shell would."""
    prepared = results["posthog-prepare-direct-uploads-task-run"]["artifacts"][0]
    post = prepared["presigned_post"]
    httpx.post(post["url"], data=post["fields"], files={"file": b"hello"}).raise_for_status()
    named = {"id": prepared["id"], "storage_path": prepared["storage_path"]}
    return run(IN_PROGRESS, body={"artifacts": [ARTIFACT | named]})


STEPS = [
    Step("render-list-tasks", {"limit": 2}, r'^\[\{"task":\{"id":"tsk-.*"name":"square"'),
    Step("render-retrieve-task", {"taskId": "tsk-d5im0000000000000001"}, r'"name":"square"'),
    Step("render-run-task", {"body": {"task": "demo-workflow/square", "input": [4]}}, r'"status":"pending"'),
    Step("render-list-task-runs", {"limit": 2, "taskSlug": ["demo-workflow/square"]}, r'"taskRun":\{"id":"trn-'),
    Step("render-retrieve-task-run", {"taskRunId": "trn-d5im0000000000000001"}, r'"status":"completed"'),
    Step(
        "render-stream-realtime-events-sse",
        {"taskRunIds": ["trn-d5im0000000000000001", "trn-d5im0000000000000002"], "Accept": "text/event-stream"},
        r'^\{"ended":"terminal","runs":\{.*\},"resume":\{\},"events":\[\{"event":"task.completed"',
    ),
    Step(
        "render-wait-for-run",
        {"taskRunId": ["trn-d5im0000000000000001", "trn-d5im0000000000000002"]},
        r'^\{"provider":"render","runs":\[\{"run_id":"trn-.*"status":"succeeded".*"status":"failed".*"terminal":true',
    ),
    Step(
        "render-explain-run",
        {"taskRunId": "trn-d5im0000000000000002"},
        r'"status":"failed".*"error":".*"next":"Fix the cause, then start it again .*: call render-run-task',
    ),
    Step(
        "render-cancel-task-run",
        {"taskRunId": "trn-d5im0000000000000004"},
        r'"cancelled":true,"status_before":"running","status":"canceled"',
    ),
    Step("inngest-get-function-run-status", {"runId": "01JZDEM0RVN000000000000003"}, r'"status":"Completed"'),
    Step("inngest-list-jobs-steps-run", {"runId": "01JZDEM0RVN000000000000002"}, r'^\{"data":\['),
    Step(
        "inngest-wait-for-run",
        {"runId": "01JZDEM0RVN000000000000004"},
        r'"status":"failed".*"error":\{.*card declined.*"next":"The run has failed',
    ),
    Step(
        "inngest-explain-run", {"runId": "01JZDEM0RVN000000000000004"}, r'"status":"failed".*"error":".*card declined'
    ),
    Step(
        "inngest-cancel-function-run",
        {"runId": "01JZDEM0RVN000000000000003"},
        r'"cancelled":false,"status_before":"succeeded",.*had already succeeded: nothing was cancelled',
    ),
    Step("posthog-list-task-runs", {"task_id": TASK, "limit": 1}, r'^\{"count":4,'),
    Step("posthog-create-task-run", {"task_id": TASK, "body": {"environment": "cloud"}}, r'"status":"not_started"'),
    Step("posthog-retrieve-task-run", run(COMPLETED), r'"status":"completed"'),
    Step("posthog-update-task-run", run(IN_PROGRESS, body={"stage": "review"}), r'"stage":"review"'),
    Step(
        "posthog-append-log-entries",
        run(IN_PROGRESS, body={"entries": [{"type": "notification", "notification": {"method": "_posthog/console"}}]}),
        rf'"id":"{IN_PROGRESS}"',
    ),
    Step(
        "posthog-upload-artifacts-task-run",
        run(IN_PROGRESS, body={"artifacts": [ARTIFACT | {"content": "hello"}]}),
        r'"name":"note.txt"',
    ),
    Step("posthog-download-artifact-through-backend", artifact_path, r"^# "),
    Step(
        "posthog-prepare-direct-uploads-task-run",
        run(IN_PROGRESS, body={"artifacts": [ARTIFACT | {"size": 5}]}),
        r'"presigned_post":\{',
    ),
    Step("posthog-finalize-direct-uploads-task-run", uploaded, r'"name":"note.txt"'),
    Step("posthog-generate-presigned-url-artifact", artifact_path, r'"expires_in":3600'),
    Step(
        "posthog-send-command-agent-server",
        run(IN_PROGRESS, body={"jsonrpc": "2.0", "method": "user_message", "params": {"content": "go on"}, "id": 1}),
        r'"queued":true',
    ),
    Step("posthog-get-sandbox-connection-token", run(IN_PROGRESS), r'^\{"token":"\[redacted\]"\}$'),
    Step("posthog-get-task-run-logs", run(COMPLETED), r"(?s)^2\S*Z \w.*\n2\S*Z agent message: The tests pass"),
    Step("posthog-relay-run-message-slack", run(IN_PROGRESS, body={"text": "hi"}), r'"status":"accepted"'),
    Step(
        "posthog-explain-run",
        run(FAILED),
        r'"status":"failed".*"error":".*"logs":\{"run":\[.*"next":"Fix the cause, then call posthog-retry-run',
    ),
    Step("posthog-retry-run", run(FAILED), rf'"run_id":"{FAILED}","retry_of":"{FAILED}","retried":true'),
    Step("posthog-get-filtered-task-run-session", run(COMPLETED, limit=3), r"^2\S*Z \w.*\n2\S*Z .*\n2\S*Z \w[^\n]*$"),
    Step("posthog-set-run-output", run(IN_PROGRESS, body={"output": {"summary": "done"}}), r'"summary":"done"'),
    Step("posthog-start-task-run", run(NOT_STARTED), rf'"id":"{TASK}"'),
    Step("posthog-stream-task-run", run(COMPLETED), r'^\{"ended":"terminal",'),
    Step("posthog-wait-for-run", run(COMPLETED), r'"status":"succeeded".*"result":\{"summary":"Fixed the retry loop."'),
    Step("posthog-resume-task-run-cloud", run(COMPLETED), rf'"id":"{COMPLETED}"'),
    Step(
        "runway-retrieve-task-status-and-output",
        {"id": "27f20503-6c24-4c16-946b-35dbbce2af2f"},
        r'"status":"SUCCEEDED"',
    ),
    Step(
        "runway-wait-for-run",
        {"id": "27f20503-6c24-4c16-946b-35dbbce2af2f"},
        r'"status":"succeeded".*"result":\["https://outputs.runway.invalid/',
    ),
    Step(
        "runway-explain-run",
        {"id": "27f20503-6c24-4c16-946b-35dbbce2af2f"},
        r'"status":"succeeded".*"next":"The run has succeeded',
    ),
    Step(
        "runway-cancel-delete-task",
        {"id": "47f20503-6c24-4c16-946b-35dbbce2af2f"},
        r'"cancelled":true,"status_before":"queued","status":"canceled"',
    ),
]

TRANSPORTS: list[tuple[Transport, Era]] = [
    ("memory", "legacy"),
    ("memory", "auto"),
    ("stdio", "legacy"),
    ("stdio", "auto"),
    ("http", "legacy"),
    ("http", "auto"),
]


@pytest.fixture
async def simulated() -> AsyncIterator[dict[str, str]]:
    """Serve simulated providers that run 100 times as fast; return the environment that points our server at them."""
    # Slow enough that the running runs, which last nine minutes, are still active when they are canceled.
    simulator = Simulator(speed=20)
    async with serve(simulator) as origin:
        yield simulator.environment(origin)


def text_of(result: CallToolResult) -> str:
    block = result.content[0]
    assert isinstance(block, TextContent)
    return block.text


@pytest.mark.parametrize(("transport", "era"), TRANSPORTS)
async def test_every_tool_returns_the_response_of_its_provider(
    transport: Transport, era: Era, simulated: dict[str, str]
) -> None:
    with anyio.fail_after(PATIENCE):
        async with open_client(transport, era, simulated) as client:
            listed = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(listed) == {step.tool for step in STEPS}
            results: dict[str, Any] = {}
            for step in STEPS:
                arguments = step.arguments
                if callable(arguments):
                    arguments = await anyio.to_thread.run_sync(arguments, results)
                result = await client.call_tool(step.tool, arguments)
                text = text_of(result)
                assert not result.is_error, f"{step.tool}: {text}"
                assert re.search(step.expected, text), f"{step.tool}: {text[:300]}"
                has_output_schema = listed[step.tool].output_schema is not None
                assert result.structured_content == (json.loads(text) if has_output_schema else None)
                if text.startswith("{"):
                    results[step.tool] = json.loads(text)


PLANTED = {
    "RENDER_API_KEY": "rnd_wrong_planted_5d1c7a90b2e8",
    "INNGEST_SIGNING_KEY": "wrong-signkey-planted-77e2c4d19a",
    "POSTHOG_API_KEY": "phx_wrong_planted_c0ffee123456",
    "RUNWAYML_API_SECRET": "key_wrong_planted_0badf00d9876",
    "POSTHOG_PROJECT_ID": "1",
    "MCP_TASKRUNS_LOG_LEVEL": "debug",
}
VARIABLES = {"render": "RENDER", "inngest": "INNGEST", "posthog": "POSTHOG", "runway": "RUNWAY"}


async def call_all(client: Client) -> dict[str, str]:
    """Call all tools with valid arguments and return their error messages."""
    errors: dict[str, str] = {}
    for step in STEPS:
        arguments = step.arguments
        if callable(arguments):
            entry = ARTIFACT | {"id": "1", "storage_path": "x"}
            finalize = step.tool == "posthog-finalize-direct-uploads-task-run"
            arguments = run(COMPLETED, body={"artifacts": [entry]} if finalize else {"storage_path": "x"})
        result = await client.call_tool(step.tool, arguments)
        assert result.is_error, f"{step.tool}: {text_of(result)}"
        assert not result.structured_content
        errors[step.tool] = text_of(result)
    return errors


def planted_in(text: str) -> list[str]:
    return [value for value in PLANTED.values() if len(value) > 10 and value in text]


USUAL_COMMAND = ("-m", "mcp_taskruns")
COMMAND_WITHOUT_BACKOFF = (
    "-c",
    "from mcp_taskruns import __main__; from mcp_taskruns.engine import retries; "
    "from mcp_taskruns.engine.runs import poll, reconnect; "
    "retries.backoff = reconnect.backoff = lambda *_: 0.0; poll.MAX_INTERVAL_S = 0.0; __main__.main()",
)
"""A server that retries, and reads a run after a failed read, without backoff."""


async def errors_and_log(
    environment: dict[str, str], transport: Transport, command: Sequence[str] = USUAL_COMMAND
) -> tuple[dict[str, str], str]:
    with tempfile.TemporaryFile("w+") as errors, anyio.fail_after(PATIENCE):
        async with open_client(transport, "legacy", environment, errors, command=command) as client:
            texts = await call_all(client)
        errors.seek(0)
        return texts, errors.read()


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_invalid_credential_is_an_auth_error_and_never_shown(
    transport: Transport, simulated: dict[str, str]
) -> None:
    texts, log = await errors_and_log(simulated | PLANTED, transport)
    assert (log == "") == (transport == "http")  # over HTTP the server is in this process, without a log of its own
    for tool, text in texts.items():
        assert re.search(r"returned 40[13]", text), f"{tool}: {text}"
        assert '"kind":"auth"' in text
        assert re.search(rf"Check ({VARIABLES[tool.partition('-')[0]]}|RUNWAYML)_\w+", text), f"{tool}: {text}"
    assert planted_in(json.dumps(texts) + log) == []


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_missing_credential_names_its_variable(transport: Transport, simulated: dict[str, str]) -> None:
    addresses = {name: value for name, value in simulated.items() if name.endswith("_BASE_URL")}
    texts, _ = await errors_and_log(addresses | {"POSTHOG_PROJECT_ID": "1"}, transport)
    for tool, text in texts.items():
        names = {name for name in PLANTED if name.startswith(VARIABLES[tool.partition("-")[0]])}
        assert any(f"{name}" in text for name in names), f"{tool}: {text}"
        assert "environment" in text


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_unreachable_provider_is_a_retryable_error(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (retries, reconnect):
        monkeypatch.setattr(module, "backoff", lambda *_: 0.0)
    monkeypatch.setattr(poll, "MAX_INTERVAL_S", 0.0)
    unused = "http://127.0.0.1:9"  # the discard port, on which nothing listens
    addresses = {f"{name}_BASE_URL": unused for name in VARIABLES.values()}
    texts, log = await errors_and_log(PLANTED | addresses, transport, COMMAND_WITHOUT_BACKOFF)
    for tool, text in texts.items():
        assert f"{tool.partition('-')[0]} could not be reached: 127.0.0.1:9 refused the connection" in text
        assert '"retryable":true' in text
    assert planted_in(json.dumps(texts) + log) == []
