"""Runs as MCP tasks, for clients with and without the extension."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import anyio
import httpx
import pytest
from mcp import MCPError, types
from mcp.client import Client, ClientExtension, advertise
from mcp.client.extension import ClaimContext, ResultClaim

from mcp_taskruns.servers.mcp.http import build_http_app
from mcp_taskruns.servers.mcp.server import build_server
from mcp_taskruns.servers.mcp.tasks import EXTENSION
from mcp_taskruns.settings import Settings
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from mcp_taskruns.simulator.lifecycle import ManualClock
from tests.clients import Transport, listening, open_client, open_gateway
from tests.engine.runs.described import acme, by_path
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

SQUARE = {"body": {"task": "demo-workflow/square", "input": [4]}}
SLOW = {"body": {"task": "demo-workflow/slow", "input": []}}
FAIL = {"body": {"task": "demo-workflow/fail", "input": []}}
POSTHOG_TASK = "22222222-2222-4222-8222-222222222222"


class Task(types.Result):
    """CreateTaskResult of SEP-2663."""

    result_type: Literal["task"] = "task"
    task_id: str
    status: str
    status_message: str | None = None
    created_at: str
    last_updated_at: str
    ttl_ms: int | None
    poll_interval_ms: int | None = None


class DetailedTask(Task):
    """The result of tasks/get."""

    result_type: str = "complete"  # type: ignore[assignment]  # another literal than the base class
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class TaskParams(types.RequestParams):
    task_id: str


class UpdateParams(TaskParams):
    input_responses: dict[str, Any]


class GetTask(types.Request[TaskParams, Literal["tasks/get"]]):
    method: Literal["tasks/get"] = "tasks/get"
    params: TaskParams
    name_param = "taskId"


class CancelTask(types.Request[TaskParams, Literal["tasks/cancel"]]):
    method: Literal["tasks/cancel"] = "tasks/cancel"
    params: TaskParams
    name_param = "taskId"


class UpdateTask(types.Request[UpdateParams, Literal["tasks/update"]]):
    method: Literal["tasks/update"] = "tasks/update"
    params: UpdateParams
    name_param = "taskId"


async def resolve(task: Task, context: ClaimContext) -> types.CallToolResult:
    """Poll a task until it is terminal, as a client does, but without delays."""
    with anyio.fail_after(PATIENCE):
        while True:
            found = await context.session.send_request(GetTask(params=TaskParams(task_id=task.task_id)), DetailedTask)
            if found.status == "completed":
                return types.CallToolResult.model_validate(found.result)
            assert found.status == "working"


class Tasks(ClientExtension):
    """The extension of a client that supports tasks."""

    identifier = EXTENSION

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return (ResultClaim(result_type="task", model=Task, resolve=resolve),)


async def start(client: Client, tool: str, arguments: dict[str, Any]) -> Task:
    task = await client.session.call_tool(tool, arguments, allow_claimed=True)
    assert isinstance(task, Task), task
    return task


async def get(client: Client, task_id: str) -> DetailedTask:
    return await client.session.send_request(GetTask(params=TaskParams(task_id=task_id)), DetailedTask)


async def cancel(client: Client, task_id: str) -> dict[str, Any]:
    done = await client.session.send_request(CancelTask(params=TaskParams(task_id=task_id)), types.EmptyResult)
    return done.model_dump(by_alias=True, exclude_none=True)


def advance(simulator: Simulator, seconds: float) -> None:
    assert isinstance(simulator.clock, ManualClock)
    simulator.clock.advance(seconds)


def first_json(result: dict[str, Any] | None) -> Any:
    assert result is not None
    return json.loads(result["content"][0]["text"])


@pytest.mark.parametrize("transport", ["memory", "stdio", "http"])
async def test_run_completes_as_a_task(transport: Transport, simulator: Simulator, environment: dict[str, str]) -> None:
    with anyio.fail_after(PATIENCE):
        async with open_client(transport, "auto", environment, extensions=[Tasks()]) as client:
            task = await start(client, "render-run-task", SQUARE)
            assert (task.status, task.ttl_ms, task.poll_interval_ms) == ("working", None, 5_000)
            assert (task.status_message or "").startswith("Run trn-d5im0000000000000005: queued (pending). Idempotency")
            working = await get(client, task.task_id)
            assert (working.status, working.status_message) == (
                "working",
                "Run trn-d5im0000000000000005: queued (pending).",
            )
            assert (working.created_at, working.result) == (task.created_at, None)
            advance(simulator, 10)
            finished = await get(client, task.task_id)
    assert finished.status == "completed"
    assert (finished.result or {})["isError"] is False
    assert (finished.result or {})["structuredContent"] == first_json(finished.result)
    assert first_json(finished.result) | {"elapsed_seconds": 0} == {
        "provider": "render",
        "run_id": "trn-d5im0000000000000005",
        "status": "succeeded",
        "native_status": "completed",
        "terminal": True,
        "timed_out": False,
        "elapsed_seconds": 0,
        "polls": 1,
        "result": [16],
        "error": None,
        "next": "The run has succeeded: no further call is needed.",
    }


async def test_call_of_a_client_with_tasks_returns_the_result_of_the_task(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    results: list[types.CallToolResult] = []
    async with (
        open_client("memory", "auto", environment, extensions=[Tasks()]) as client,
        anyio.create_task_group() as tasks,
    ):

        async def call() -> None:
            results.append(await client.call_tool("render-run-task", SQUARE))

        tasks.start_soon(call)
        await simulator.wait_for_request(lambda request: request.method == "GET")
        advance(simulator, 10)
    block = results[0].content[0]
    assert isinstance(block, types.TextContent)
    assert json.loads(block.text)["result"] == [16]


async def test_failed_run_is_a_completed_task_with_an_error(simulator: Simulator, environment: dict[str, str]) -> None:
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as client:
        task = await start(client, "render-run-task", FAIL)
        advance(simulator, 10)
        finished = await get(client, task.task_id)
    assert (finished.status, finished.error, (finished.result or {})["isError"]) == ("completed", None, True)
    assert "structuredContent" not in (finished.result or {})
    assert first_json(finished.result)["error"] == "ValueError: no such customer"


async def test_cancelling_a_task_cancels_its_run(simulator: Simulator, environment: dict[str, str]) -> None:
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as client:
        task = await start(client, "render-run-task", SLOW)
        assert set(await cancel(client, task.task_id)) <= {"resultType", "_meta"}
        assert [request.method for request in simulator.requests] == ["POST", "GET", "DELETE", "GET"]
        assert (await get(client, task.task_id)).status == "cancelled"


async def test_cancelling_a_terminal_task_sends_no_request(simulator: Simulator, environment: dict[str, str]) -> None:
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as client:
        task = await start(client, "render-run-task", SQUARE)
        advance(simulator, 10)
        await cancel(client, task.task_id)
        assert (await get(client, task.task_id)).status == "completed"
    assert "DELETE" not in {request.method for request in simulator.requests}


async def test_cancelling_without_a_served_tool_sends_no_request(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    gateway = open_gateway(environment, exclude_tools=("render-cancel-*",))
    async with Client(build_server(gateway), mode="auto", extensions=[Tasks()]) as client:
        task = await start(client, "render-run-task", SLOW)
        await cancel(client, task.task_id)
    assert [request.method for request in simulator.requests] == ["POST"]


async def test_task_does_not_start_a_run_without_a_served_tool(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    gateway = open_gateway(environment, exclude_tools=("posthog-start-task-run",))
    cloud = {"task_id": POSTHOG_TASK, "body": {"environment": "cloud"}}
    async with Client(build_server(gateway), mode="auto", extensions=[Tasks()]) as client:
        rejected = await client.call_tool("posthog-create-task-run", cloud | {"wait_seconds": 20})
        assert rejected.is_error
        made = await client.call_tool("posthog-create-task-run", cloud | {"wait_seconds": None})
        assert not made.is_error
    assert [request.path.rsplit("/", 2)[-2] for request in simulator.requests] == ["runs"]


async def test_run_without_an_id_is_not_a_task(simulator: Simulator, environment: dict[str, str]) -> None:
    odd = Fault(status=202, headers={"Content-Type": "application/json"}, body='{"job":"trn-odd"}')
    simulator.fail_next("render", odd)
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as client:
        result = await client.call_tool("render-run-task", SQUARE)
    block = result.content[0]
    assert isinstance(block, types.TextContent)
    assert block.text == '{"job":"trn-odd"}'


async def test_unrequested_input_is_acknowledged(environment: dict[str, str]) -> None:
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as client:
        task = await start(client, "render-run-task", SLOW)
        update = UpdateParams(task_id=task.task_id, input_responses={"unknown": {}})
        done = await client.session.send_request(UpdateTask(params=update), types.EmptyResult)
        assert set(done.model_dump(by_alias=True, exclude_none=True)) <= {"resultType", "_meta"}


async def test_posthog_run_becomes_a_task_when_it_is_started(simulator: Simulator, environment: dict[str, str]) -> None:
    cloud = {"task_id": POSTHOG_TASK, "body": {"environment": "cloud"}}
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as client:
        made = await client.call_tool("posthog-create-task-run", cloud)
        block = made.content[0]
        assert isinstance(block, types.TextContent)
        run_id = json.loads(block.text)["id"]
        started = await start(client, "posthog-start-task-run", {"task_id": POSTHOG_TASK, "id": run_id})
        whole = await start(client, "posthog-create-task-run", cloud | {"wait_seconds": 20})
        assert [request.path.rsplit("/", 2)[-2] for request in simulator.requests][-2:] == ["runs", "start"]
        advance(simulator, 30)
        for task in (started, whole):
            finished = await get(client, task.task_id)
            assert first_json(finished.result)["result"]["summary"] == "Fixed the retry loop."
        await cancel(client, whole.task_id)
    assert "PATCH" not in {request.method for request in simulator.requests}


async def test_cancelling_a_posthog_task_sets_the_status_canceled(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    cloud = {"task_id": POSTHOG_TASK, "body": {"environment": "cloud"}, "wait_seconds": 20}
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as client:
        task = await start(client, "posthog-create-task-run", cloud)
        await cancel(client, task.task_id)
        assert (await get(client, task.task_id)).status == "cancelled"
    assert [request.path for request in simulator.requests if request.path.endswith("/cancel/")]


async def test_another_server_with_the_same_credential_accepts_the_task_id(environment: dict[str, str]) -> None:
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as client:
        task = await start(client, "render-run-task", SLOW)
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as other:
        assert (await get(other, task.task_id)).status == "working"


def forged(task_id: str) -> str:
    """Return the id of another run with the signature of this one."""
    raw = base64.urlsafe_b64decode(task_id + "=" * (-len(task_id) % 4))
    return base64.urlsafe_b64encode(raw.replace(b"0005", b"0001")).decode().rstrip("=")


@pytest.mark.parametrize("change", ["unknown", "garbage", "forged", "other credential", "not served"])
async def test_invalid_task_id_is_not_found(change: str, simulator: Simulator, environment: dict[str, str]) -> None:
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as client:
        task_id = (await start(client, "render-run-task", SLOW)).task_id
    ids = {"unknown": "tasks-conformance-nonexistent-12345", "garbage": "ä ö", "forged": forged(task_id)}
    if change == "other credential":
        environment["RENDER_API_KEY"] = "rnd_another"
    flags = {"only": ("runway",)} if change == "not served" else {}
    sent = len(simulator.requests)
    async with Client(build_server(open_gateway(environment, **flags)), mode="auto", extensions=[Tasks()]) as client:
        with pytest.raises(MCPError, match="Task not found") as caught:
            await get(client, ids.get(change, task_id))
    assert caught.value.code == types.INVALID_PARAMS
    assert len(simulator.requests) == sent


async def test_task_of_an_unknown_run_is_not_found(simulator: Simulator, environment: dict[str, str]) -> None:
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as client:
        task = await start(client, "render-run-task", SLOW)
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as other:
        for _ in range(2):
            simulator.fail_next("render", Fault(status=404, body='{"message":"task run not found"}'))
        with pytest.raises(MCPError, match="Task not found"):
            await get(other, task.task_id)


async def test_single_404_does_not_end_the_task(simulator: Simulator, environment: dict[str, str]) -> None:
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as client:
        task = await start(client, "render-run-task", SLOW)
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as other:
        simulator.fail_next("render", Fault(status=404, body='{"message":"task run not found"}'))
        assert (await get(other, task.task_id)).status == "working"


async def test_404_pages_of_a_proxy_do_not_end_the_task(simulator: Simulator, environment: dict[str, str]) -> None:
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as client:
        task = await start(client, "render-run-task", SLOW)
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as other:
        for _ in range(2):
            page = Fault(404, {"Content-Type": "text/html"}, "<title>Not Found</title>")
            simulator.fail_next("render", page)
        with pytest.raises(MCPError, match='returned 404: "Not Found"') as caught:
            await get(other, task.task_id)
        assert caught.value.code == types.INTERNAL_ERROR


async def test_run_that_is_not_visible_right_after_its_start_is_working(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as client:
        task = await start(client, "render-run-task", SLOW)
        simulator.fail_next("render", Fault(status=404, body='{"message":"task run not found"}'))
        assert (await get(client, task.task_id)).status == "working"


async def test_unavailable_provider_does_not_end_the_task(simulator: Simulator, environment: dict[str, str]) -> None:
    key = environment["RENDER_API_KEY"] = "rnd_planted_7c1e5b"
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as client:
        task = await start(client, "render-run-task", SLOW)
        simulator.fail_next("render", Fault(status=503, headers={"Retry-After": "3600"}, body=f"down, {key}"))
        with pytest.raises(MCPError, match=r'returned 503: "down, \[secret\]"') as caught:
            await get(client, task.task_id)
        assert caught.value.code == types.INTERNAL_ERROR
        assert (await get(client, task.task_id)).status == "working"
    assert key not in base64.urlsafe_b64decode(task.task_id + "==").decode("latin-1")


async def test_error_of_a_task_has_the_hint(simulator: Simulator, environment: dict[str, str]) -> None:
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as client:
        task = await start(client, "render-run-task", SLOW)
        simulator.fail_next("render", Fault(status=401, body="revoked"))
        with pytest.raises(MCPError, match="Check RENDER_API_KEY in the server's environment"):
            await get(client, task.task_id)
        for fault in (Fault(), Fault(status=502, body="lost")):
            simulator.fail_next("render", fault)
        with pytest.raises(MCPError, match="The provider may have accepted the request"):
            await cancel(client, task.task_id)


async def test_run_that_was_not_started_is_a_tool_error(environment: dict[str, str]) -> None:
    async with open_client("memory", "auto", environment, extensions=[Tasks()]) as client:
        result = await client.call_tool("render-run-task", {"body": {"task": "demo-workflow/nope", "input": []}})
        assert result.is_error
        with pytest.raises(MCPError, match="Unknown tool: nope"):
            await client.call_tool("nope", {})


async def test_client_without_the_extension_gets_the_run(
    environment: dict[str, str],
) -> None:
    async with open_client("memory", "auto", environment) as client:
        result = await client.call_tool("render-run-task", SLOW)
        block = result.content[0]
        assert isinstance(block, types.TextContent)
        assert json.loads(block.text)["status"] == "pending"
        with pytest.raises(MCPError) as caught:
            await get(client, "any")
    assert caught.value.code == types.MISSING_REQUIRED_CLIENT_CAPABILITY
    assert caught.value.error.data == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}


async def test_client_of_2025_has_no_tasks(environment: dict[str, str]) -> None:
    async with open_client("memory", "legacy", environment, extensions=[advertise(EXTENSION)]) as client:
        assert not client.server_capabilities.extensions
        result = await client.call_tool("render-run-task", SLOW)
        assert not result.is_error
        with pytest.raises(MCPError) as caught:
            await get(client, "any")
    assert caught.value.code == types.METHOD_NOT_FOUND


@pytest.mark.parametrize("name", ["another-task", None])
async def test_mcp_name_header_must_match_the_task_id(name: str | None, environment: dict[str, str]) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {EXTENSION: {}}},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    }
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tasks/get",
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"taskId": "a-task", "_meta": meta}}
    app = build_http_app(open_gateway(environment), Settings())
    async with listening(app) as origin, httpx.AsyncClient() as client:
        named = headers if name is None else headers | {"Mcp-Name": name}
        response = await client.post(f"{origin}/mcp", json=body, headers=named)
    assert (response.status_code, response.json()["error"]["code"]) == (400, types.HEADER_MISMATCH)


async def test_integer_id_of_a_run_is_text_in_its_task(tmp_path: Path) -> None:
    job = {"id": 9007199254740993, "state": "waiting"}
    path = f"/teams/t/jobs/{job['id']}"
    respond = by_path({"POST /teams/t/jobs": job, f"GET {path}": job | {"state": "done"}})
    async with acme(tmp_path, respond) as provider:
        with anyio.fail_after(PATIENCE):
            async with Client(build_server(provider.gateway), mode="auto", extensions=[Tasks()]) as client:
                task = await start(client, "acme-createjob", {"team": "t"})
                assert (task.status_message or "").startswith("Run 9007199254740993: queued (waiting).")
                finished = await get(client, task.task_id)
        assert first_json(finished.result)["run_id"] == "9007199254740993"
        assert provider.requests == ["POST /teams/t/jobs", f"GET {path}"]
