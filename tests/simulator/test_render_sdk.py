"""Render's official SDK (render 1.5.0), sync and async, works with the simulator.

The expected requests and error messages are those of the SDK's client/workflows.py and client/util.py, and were
observed against a recording server.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from types import ModuleType
from typing import Any

import anyio
import httpx
import pytest
from render import Render as RenderSync
from render import RenderAsync
from render.client.errors import ClientError, RateLimitError, RenderError, ServerError, TaskRunError
from render.client.types import ListTaskRunsParams, TaskRunDetails
from render.public_api.api.workflow_tasks import get_task, list_task_runs, list_tasks

from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from mcp_taskruns.simulator.lifecycle import ManualClock
from mcp_taskruns.simulator.render.app import Render
from mcp_taskruns.simulator.render.runs import OWNER_ID, VERSION_IDS, WORKFLOW_ID
from mcp_taskruns.simulator.server import serve
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

COMPLETED, FAILED, CANCELED, RUNNING = (f"trn-d5im000000000000000{n}" for n in (1, 2, 3, 4))
KINDS = ("sync", "async")


class SDK:
    """One interface to the sync and the async client."""

    def __init__(self, official: RenderSync | RenderAsync) -> None:
        self.is_async = isinstance(official, RenderAsync)
        self._client = official.client
        self._workflows: Any = official.workflows

    async def _call(self, function: Any, *args: Any, **options: Any) -> Any:
        if self.is_async:
            return await function(*args, **options)
        return await anyio.to_thread.run_sync(partial(function, *args, **options), abandon_on_cancel=True)

    async def start(self, task: str, arguments: Any, **options: Any) -> Any:
        """Start a run and return it as in the response. The async client wraps it in an awaitable."""
        started = await self._call(self._workflows.start_task, task, arguments, **options)
        return started.task_run if self.is_async else started

    async def run(self, task: str, arguments: Any, **options: Any) -> TaskRunDetails:
        details: TaskRunDetails = await self._call(self._workflows.run_task, task, arguments, **options)
        return details

    async def get(self, run_id: str) -> TaskRunDetails:
        details: TaskRunDetails = await self._call(self._workflows.get_task_run, run_id)
        return details

    async def cancel(self, run_id: str) -> None:
        assert await self._call(self._workflows.cancel_task_run, run_id) is None

    async def runs(self, **params: Any) -> list[Any]:
        listed: list[Any] = await self._call(self._workflows.list_task_runs, ListTaskRunsParams(**params))
        return listed

    async def events(self, *run_ids: str) -> list[TaskRunDetails]:
        if self.is_async:
            return [event async for event in self._workflows.task_run_events(list(run_ids))]
        events: list[TaskRunDetails] = await self._call(lambda: list(self._workflows.task_run_events(list(run_ids))))
        return events

    async def call_generated(self, operation: ModuleType, *args: Any, **options: Any) -> Any:
        """Call an operation that only the generated part of the SDK has."""
        function = operation.asyncio if self.is_async else operation.sync
        return await self._call(function, *args, client=self._client.internal, **options)


@asynccontextmanager
async def opened(kind: str, origin: str, token: str = "rnd_x") -> AsyncIterator[SDK]:
    base_url = f"{origin}/render"
    with anyio.fail_after(PATIENCE):
        # The SDK opens an HTTP client that it never closes.
        if kind == "sync":
            sync_client = RenderSync(token=token, base_url=base_url)
            with sync_client.client.internal.get_httpx_client():
                yield SDK(sync_client)
        else:
            async_client = RenderAsync(token=token, base_url=base_url)
            async with async_client.client.internal.get_async_httpx_client():
                yield SDK(async_client)


@pytest.fixture(params=KINDS)
async def sdk(request: pytest.FixtureRequest, fast_origin: str) -> AsyncIterator[SDK]:
    async with opened(request.param, fast_origin) as sdk:
        yield sdk


@pytest.fixture(params=KINDS)
async def manual_sdk(request: pytest.FixtureRequest, origin: str) -> AsyncIterator[SDK]:
    """An SDK for the simulator with a manual clock."""
    async with opened(request.param, origin) as sdk:
        yield sdk


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Records the seconds that the SDK sleeps between attempts to wait, instead of sleeping."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("render.client.util.sleep", sleep)
    monkeypatch.setattr("render.client.util_sync.sleep", slept.append)
    return slept


def sent(simulator: Simulator) -> list[str]:
    return [f"{request.method} {request.path.removeprefix('/render/v1')}" for request in simulator.requests]


def attempt_statuses(run: Any) -> list[tuple[int, str]]:
    return [(attempt.attempt, attempt.status.value) for attempt in run.attempts]


# Tasks


async def test_sdk_lists_tasks_by_page(manual_sdk: SDK) -> None:
    names, cursor = [], ""
    for _ in range(3):
        page = await manual_sdk.call_generated(list_tasks, limit=2, cursor=cursor)
        names.append([item.task.name for item in page])
        cursor = page[-1].cursor
    assert names == [["square", "pipeline"], ["flaky", "fail"], ["slow", "square"]]
    assert await manual_sdk.call_generated(list_tasks, cursor=cursor) == []


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({"task_slug": ["demo-workflow/flaky", "demo-workflow/fail"]}, [3, 4]),
        ({"workflow_version_id": [VERSION_IDS["a1b2c3d"]]}, [6]),
        ({"workflow_id": [WORKFLOW_ID], "owner_id": ["tea-other", OWNER_ID], "limit": 1}, [1]),
        ({"owner_id": ["tea-other"]}, []),
    ],
)
async def test_sdk_filters_tasks(manual_sdk: SDK, filters: dict[str, Any], ids: list[int]) -> None:
    listed = await manual_sdk.call_generated(list_tasks, **filters)
    assert [item.task.id for item in listed] == [f"tsk-d5im000000000000000{n}" for n in ids]


async def test_sdk_parses_every_field_of_a_task(manual_sdk: SDK) -> None:
    task = await manual_sdk.call_generated(get_task, "tsk-d5im0000000000000001")
    assert (task.id, task.name, task.workflow_id) == ("tsk-d5im0000000000000001", "square", WORKFLOW_ID)
    assert (task.created_at, task.workflow_version_id) == (
        datetime.fromisoformat("2025-12-31T00:00:00Z"),
        VERSION_IDS["e4f5a6b"],
    )
    assert (await manual_sdk.call_generated(get_task, "tsk-unknown")).message == "task not found"


# Listing runs


async def test_sdk_lists_runs_by_page(manual_sdk: SDK, simulator: Simulator) -> None:
    first = await manual_sdk.runs(limit=3, owner_id=[OWNER_ID, "tea-2"])
    second = await manual_sdk.runs(limit=3, cursor=first[-1].cursor)
    assert [item.task_run.id for item in first + second] == [RUNNING, CANCELED, FAILED, COMPLETED]
    assert [item.task_run.status.value for item in first + second] == ["running", "canceled", "failed", "completed"]
    # The SDK repeats ownerId although the API document joins the values with commas.
    assert sent(simulator)[0] == f"GET /task-runs?limit=3&ownerId={OWNER_ID}&ownerId=tea-2"


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({"root_task_run_id": [COMPLETED, FAILED]}, [FAILED, COMPLETED]),
        ({"task_slug": ["demo-workflow/slow"], "limit": 1}, [RUNNING]),
        ({"workflow_version_id": [VERSION_IDS["a1b2c3d"]]}, []),
        ({"workflow_id": [WORKFLOW_ID], "owner_id": [OWNER_ID], "task_slug": ["demo-workflow/fail"]}, [FAILED]),
    ],
)
async def test_sdk_filters_runs(manual_sdk: SDK, filters: dict[str, Any], ids: list[str]) -> None:
    listed = await manual_sdk.call_generated(list_task_runs, **filters)
    assert [item.task_run.id for item in listed] == ids


@pytest.mark.parametrize(
    ("params", "code"), [({"limit": 101}, "invalid_limit"), ({"cursor": "not-a-cursor"}, "invalid_cursor")]
)
async def test_sdk_raises_the_code_of_an_invalid_limit_or_cursor(
    manual_sdk: SDK, params: dict[str, Any], code: str
) -> None:
    with pytest.raises(ClientError) as raised:
        await manual_sdk.runs(**params)
    assert raised.value.code == code


# Starting and waiting


async def test_sdk_starts_one_run_per_idempotency_key(manual_sdk: SDK, simulator: Simulator) -> None:
    started = await manual_sdk.start("demo-workflow/square", {"n": 1}, idempotency_key="k-1")
    again = await manual_sdk.start("demo-workflow/square", [2], idempotency_key="k-1")
    other = await manual_sdk.start("demo-workflow/square", [2], idempotency_key="k-2")
    keyless = await manual_sdk.start("demo-workflow/square", [2])
    assert (started.id, started.status.value, started.parent_task_run_id) == (again.id, "pending", "")
    assert started.root_task_run_id == started.id
    assert len({started.id, other.id, keyless.id}) == 3
    request = simulator.requests[0]
    assert (request.method, request.path) == ("POST", "/render/v1/task-runs")
    assert json.loads(request.body) == {"task": "demo-workflow/square", "input": {"n": 1}, "idempotencyKey": "k-1"}


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("demo-workflow/cube", [], "create task failed: task not found: demo-workflow/cube"),
        (" ", [], "create task failed: task cannot be blank"),
    ],
)
async def test_sdk_raises_the_message_of_a_failed_start(
    manual_sdk: SDK, task: str, arguments: Any, message: str
) -> None:
    with pytest.raises(ClientError, match=message):
        await manual_sdk.start(task, arguments)


@pytest.mark.parametrize(
    ("task", "arguments", "results"),
    [
        ("demo-workflow/square", [5], [25]),
        ("demo-workflow/square", {"n": 6}, [36]),
        ("demo-workflow/pipeline", [6, 8], [100]),
    ],
)
async def test_sdk_waits_for_a_run_with_only_the_event_stream(
    sdk: SDK, fast_simulator: Simulator, task: str, arguments: Any, results: list[Any]
) -> None:
    done = await sdk.run(task, arguments)
    assert (done.status.value, done.results) == ("completed", results)
    assert sent(fast_simulator) == ["POST /task-runs", f"GET /task-runs/events?taskRunIds={done.id}"]
    accept = dict(fast_simulator.requests[1].headers)["accept"]
    assert accept == "text/event-stream"


async def test_sdk_raises_the_error_of_a_failed_run(sdk: SDK) -> None:
    with pytest.raises(TaskRunError, match="ValueError: no such customer"):
        await sdk.run("demo-workflow/fail", [])
    with pytest.raises(TaskRunError, match="takes a number"):
        await sdk.run("demo-workflow/square", ["five"])


async def test_sdk_parses_every_attempt_of_a_retried_run(sdk: SDK) -> None:
    done = await sdk.run("demo-workflow/flaky", [])
    assert (done.results, done.retries) == (["third time lucky"], 2)
    assert attempt_statuses(done) == [(0, "failed"), (1, "failed"), (2, "completed")]
    assert [attempt.error for attempt in done.attempts[:2]] == ["ConnectionError: the database went away"] * 2
    assert {attempt.task_run_id for attempt in done.attempts} == {done.id}


async def test_sdk_reads_pending_after_a_failed_attempt(manual_sdk: SDK, clock: ManualClock) -> None:
    run_id = (await manual_sdk.start("demo-workflow/flaky", [])).id
    clock.advance(2)
    between = await manual_sdk.get(run_id)
    assert (between.status.value, between.retries, attempt_statuses(between)) == ("pending", 1, [(0, "failed")])


async def test_sdk_stops_waiting_when_the_run_is_canceled(manual_sdk: SDK, simulator: Simulator) -> None:
    done: list[TaskRunDetails] = []

    async def wait() -> None:
        done.append(await manual_sdk.run("demo-workflow/slow", []))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        stream = await simulator.wait_for_request(lambda request: "/events?" in request.path)
        await anyio.wait_all_tasks_blocked()  # a stream opened after the run was canceled has no event for it
        await manual_sdk.cancel(stream.path.partition("=")[2])
    # The SDK raises only for a run with an error.
    assert done[0].status.value == "canceled"


async def test_sdk_reopens_a_truncated_stream(
    manual_sdk: SDK, simulator: Simulator, naps: list[float], clock: ManualClock
) -> None:
    simulator.fail_next("render", Fault())  # no fault for the start
    simulator.fail_next("render", Fault(truncate=True))  # half of the stream's first frame
    done: list[TaskRunDetails] = []

    async def wait() -> None:
        done.append(await manual_sdk.run("demo-workflow/square", [7]))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await simulator.wait_for_request(lambda request: "/events?" in request.path and len(simulator.requests) == 3)
        clock.advance(3)
    assert (done[0].results, naps) == ([49], [1.0])


async def test_sdk_opens_the_stream_of_a_canceled_run_five_times(
    manual_sdk: SDK, simulator: Simulator, naps: list[float]
) -> None:
    started = await manual_sdk.start("demo-workflow/slow", [], idempotency_key="k-1")
    await manual_sdk.cancel(started.id)
    # Report the run as pending, so that the SDK waits for it.
    pending = {"id": started.id, "taskId": "tsk-1", "status": "pending", "parentTaskRunId": "", "attempts": []}
    body = json.dumps(pending | {"rootTaskRunId": started.id, "retries": 0})
    simulator.fail_next("render", Fault(status=202, body=body))
    with pytest.raises(RenderError, match="Task run completed with no event"):
        await manual_sdk.run("demo-workflow/slow", [], idempotency_key="k-1")
    assert naps == [1.0, 2.0, 4.0, 8.0]
    assert sum("/events?" in request.path for request in simulator.requests) == 5


# Reading, canceling, following


async def test_sdk_parses_every_field_of_a_run(manual_sdk: SDK) -> None:
    run = await manual_sdk.get(COMPLETED)
    assert (run.id, run.task_id, run.status.value) == (COMPLETED, "tsk-d5im0000000000000001", "completed")
    assert (run.input_, run.results, run.retries, attempt_statuses(run)) == ([12], [144], 0, [(0, "completed")])
    assert (run.parent_task_run_id, run.root_task_run_id) == ("", COMPLETED)
    assert run.started_at == datetime.fromisoformat("2025-12-31T23:00:00.500Z")
    assert run.completed_at == datetime.fromisoformat("2025-12-31T23:00:03Z")
    failed, canceled, running = [await manual_sdk.get(run_id) for run_id in (FAILED, CANCELED, RUNNING)]
    assert (failed.status.value, failed.error, failed.results) == ("failed", "ValueError: no such customer", [])
    assert (canceled.status.value, attempt_statuses(canceled)) == ("canceled", [(0, "canceled")])
    assert (running.status.value, running.results, attempt_statuses(running)) == ("running", [], [(0, "running")])


async def test_sdk_parses_parent_and_root_of_a_subtask(manual_sdk: SDK, clock: ManualClock) -> None:
    root = (await manual_sdk.start("demo-workflow/pipeline", [2, 5])).id
    clock.advance(4)
    (child, _) = await manual_sdk.call_generated(list_task_runs, root_task_run_id=[root])
    run = await manual_sdk.get(child.task_run.id)
    assert (run.parent_task_run_id, run.root_task_run_id, run.parent_task_attempt) == (root, root, 0)


async def test_sdk_cancels_a_root_run_once_and_not_a_subtask(manual_sdk: SDK, clock: ManualClock) -> None:
    root = (await manual_sdk.start("demo-workflow/pipeline", [])).id
    clock.advance(2)
    (child, _) = await manual_sdk.call_generated(list_task_runs, root_task_run_id=[root])
    with pytest.raises(ServerError, match=f"task run {child.task_run.id} is a subtask; cancel its root {root} instead"):
        await manual_sdk.cancel(child.task_run.id)
    await manual_sdk.cancel(root)
    assert [(await manual_sdk.get(run_id)).status.value for run_id in (root, child.task_run.id)] == ["canceled"] * 2
    with pytest.raises(ServerError, match=f"cancel task run failed: task run {root} is not active"):
        await manual_sdk.cancel(root)


async def test_sdk_raises_the_message_of_an_unknown_run(manual_sdk: SDK) -> None:
    with pytest.raises(ClientError, match="get task run failed: task run not found"):
        await manual_sdk.get("trn-unknown")
    with pytest.raises(ClientError, match="cancel task run failed: task run not found: trn-unknown"):
        await manual_sdk.cancel("trn-unknown")


async def test_sdk_follows_several_runs_to_a_terminal_status(sdk: SDK) -> None:
    squares = [await sdk.start("demo-workflow/square", [n]) for n in (7, 8)]
    failing = await sdk.start("demo-workflow/fail", [])
    events = await sdk.events(squares[0].id, failing.id, squares[1].id)
    assert sorted(event.results[0] for event in events if event.status.value == "completed") == [49, 64]
    assert [event.error for event in events if event.status.value == "failed"] == ["ValueError: no such customer"]
    # Runs with a terminal status are replayed, except canceled ones.
    replayed = await sdk.events(COMPLETED, FAILED, CANCELED, squares[0].id)
    assert {event.id for event in replayed} == {COMPLETED, FAILED, squares[0].id}


# Errors


@pytest.mark.parametrize("kind", KINDS)
async def test_sdk_raises_rate_limit_error_without_a_retry(kind: str, clock: ManualClock) -> None:
    simulator = Simulator(clock=clock, render=Render(clock, reads_per_minute=1, writes_per_minute=1))
    async with serve(simulator) as origin, opened(kind, origin) as sdk:
        await sdk.get(COMPLETED)
        with pytest.raises(RateLimitError, match="get task run failed: rate limit exceeded"):
            await sdk.get(COMPLETED)
        started = await sdk.start("demo-workflow/slow", [])
        with pytest.raises(RateLimitError, match="create task failed"):
            await sdk.start("demo-workflow/slow", [])
        with pytest.raises(RateLimitError, match="cancel task run failed"):
            await sdk.cancel(started.id)
        assert len(simulator.requests) == 5
        clock.advance(60)
        await sdk.cancel(started.id)


async def test_sdk_does_not_retry_a_failed_call(manual_sdk: SDK, simulator: Simulator) -> None:
    body = json.dumps({"id": "err-1", "message": "try later"})
    for status, error in ((503, ServerError), (429, RateLimitError)):
        simulator.fail_next("render", Fault(status=status, body=body))
        with pytest.raises(error, match=r"^get task run failed: try later \(ID: err-1\)$"):
            await manual_sdk.get(COMPLETED)
    assert len(simulator.requests) == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_sdk_raises_for_an_invalid_key_in_plain_text_and_in_json(kind: str, origin: str) -> None:
    async with opened(kind, origin, "rnd_wrong") as sdk:
        with pytest.raises(RenderError, match="list task runs failed: server returned a non-JSON response: Unauthoriz"):
            await sdk.runs()
    async with opened(kind, origin, "rnd_wrong_json") as sdk:
        with pytest.raises(ClientError, match=r"list task runs failed: Unauthorized \(ID: err-simulated\)"):
            await sdk.runs()


@pytest.mark.parametrize(("token", "run_id"), [("rnd_wrong", COMPLETED), ("rnd_x", "trn-unknown")])
@pytest.mark.parametrize("kind", KINDS)
async def test_sdk_raises_response_not_read_for_a_refused_stream(
    kind: str, token: str, run_id: str, origin: str, simulator: Simulator
) -> None:
    # The SDK accesses the body of a streamed response before reading it: client/util.py, handle_http_error.
    async with opened(kind, origin, token) as sdk:
        with pytest.raises(httpx.ResponseNotRead):
            await sdk.events(run_id)
    assert sent(simulator) == [f"GET /task-runs/events?taskRunIds={run_id}"]
