"""Render's official SDK (render 1.5.0), sync and async, takes the simulator for Render.

What the SDK sends, and what it says of errors, is what it was seen to do against a recording server and what stands in
its client/workflows.py and client/util.py.
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

pytestmark = pytest.mark.anyio

COMPLETED, FAILED, CANCELED, RUNNING = (f"trn-d5im000000000000000{n}" for n in (1, 2, 3, 4))
KINDS = ("sync", "async")


class SDK:
    """The sync or the async client, both called in the same way."""

    def __init__(self, official: RenderSync | RenderAsync) -> None:
        self.is_async = isinstance(official, RenderAsync)
        self._client = official.client
        self._workflows: Any = official.workflows

    async def _call(self, function: Any, *args: Any, **named: Any) -> Any:
        if self.is_async:
            return await function(*args, **named)
        return await anyio.to_thread.run_sync(partial(function, *args, **named), abandon_on_cancel=True)

    async def start(self, task: str, given: Any, **named: Any) -> Any:
        """The run as it was told when it was started; the async client wraps it, so that it can be awaited."""
        started = await self._call(self._workflows.start_task, task, given, **named)
        return started.task_run if self.is_async else started

    async def run(self, task: str, given: Any, **named: Any) -> TaskRunDetails:
        details: TaskRunDetails = await self._call(self._workflows.run_task, task, given, **named)
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

    async def below(self, operation: ModuleType, *args: Any, **named: Any) -> Any:
        """What the generated half of the SDK has, and its services do not."""
        function = operation.asyncio if self.is_async else operation.sync
        return await self._call(function, *args, client=self._client.internal, **named)


@asynccontextmanager
async def opened(kind: str, origin: str, token: str = "rnd_x") -> AsyncIterator[SDK]:
    base_url = f"{origin}/render"
    with anyio.fail_after(10):
        # The SDK opens a client for its calls and leaves closing it to whoever knows that it is there.
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
async def still(request: pytest.FixtureRequest, origin: str) -> AsyncIterator[SDK]:
    """For a simulator whose time stands still until a test moves it."""
    async with opened(request.param, origin) as sdk:
        yield sdk


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the SDK sleeps between its tries to wait, instead of sleeping."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("render.client.util.sleep", sleep)
    monkeypatch.setattr("render.client.util_sync.sleep", slept.append)
    return slept


def sent(simulator: Simulator) -> list[str]:
    return [f"{request.method} {request.path.removeprefix('/render/v1')}" for request in simulator.requests]


def states(run: Any) -> list[tuple[int, str]]:
    return [(attempt.attempt, attempt.status.value) for attempt in run.attempts]


# Tasks


async def test_the_sdk_lists_tasks_page_by_page(still: SDK) -> None:
    names, cursor = [], ""
    for _ in range(3):
        page = await still.below(list_tasks, limit=2, cursor=cursor)
        names.append([item.task.name for item in page])
        cursor = page[-1].cursor
    assert names == [["square", "pipeline"], ["flaky", "fail"], ["slow", "square"]]
    assert await still.below(list_tasks, cursor=cursor) == []


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({"task_slug": ["demo-workflow/flaky", "demo-workflow/fail"]}, [3, 4]),
        ({"workflow_version_id": [VERSION_IDS["a1b2c3d"]]}, [6]),
        ({"workflow_id": [WORKFLOW_ID], "owner_id": ["tea-other", OWNER_ID], "limit": 1}, [1]),
        ({"owner_id": ["tea-other"]}, []),
    ],
)
async def test_the_sdk_filters_tasks(still: SDK, filters: dict[str, Any], ids: list[int]) -> None:
    listed = await still.below(list_tasks, **filters)
    assert [item.task.id for item in listed] == [f"tsk-d5im000000000000000{n}" for n in ids]


async def test_the_sdk_reads_a_task_with_all_its_members(still: SDK) -> None:
    task = await still.below(get_task, "tsk-d5im0000000000000001")
    assert (task.id, task.name, task.workflow_id) == ("tsk-d5im0000000000000001", "square", WORKFLOW_ID)
    assert (task.created_at, task.workflow_version_id) == (
        datetime.fromisoformat("2025-12-31T00:00:00Z"),
        VERSION_IDS["e4f5a6b"],
    )
    assert (await still.below(get_task, "tsk-unknown")).message == "task not found"


# Listing runs


async def test_the_sdk_lists_runs_page_by_page(still: SDK, simulator: Simulator) -> None:
    first = await still.runs(limit=3, owner_id=[OWNER_ID, "tea-2"])
    second = await still.runs(limit=3, cursor=first[-1].cursor)
    assert [item.task_run.id for item in first + second] == [RUNNING, CANCELED, FAILED, COMPLETED]
    assert [item.task_run.status.value for item in first + second] == ["running", "canceled", "failed", "completed"]
    # One ownerId after the other, although the document wants them joined.
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
async def test_the_sdk_filters_runs(still: SDK, filters: dict[str, Any], ids: list[str]) -> None:
    listed = await still.below(list_task_runs, **filters)
    assert [item.task_run.id for item in listed] == ids


@pytest.mark.parametrize(
    ("params", "code"), [({"limit": 101}, "invalid_limit"), ({"cursor": "not-a-cursor"}, "invalid_cursor")]
)
async def test_the_sdk_knows_the_code_of_a_page_that_cannot_be(still: SDK, params: dict[str, Any], code: str) -> None:
    with pytest.raises(ClientError) as caught:
        await still.runs(**params)
    assert caught.value.code == code


# Starting and waiting


async def test_the_sdk_starts_one_run_for_one_key(still: SDK, simulator: Simulator) -> None:
    started = await still.start("demo-workflow/square", {"n": 1}, idempotency_key="k-1")
    again = await still.start("demo-workflow/square", [2], idempotency_key="k-1")
    other = await still.start("demo-workflow/square", [2], idempotency_key="k-2")
    keyless = await still.start("demo-workflow/square", [2])
    assert (started.id, started.status.value, started.parent_task_run_id) == (again.id, "pending", "")
    assert started.root_task_run_id == started.id
    assert len({started.id, other.id, keyless.id}) == 3
    request = simulator.requests[0]
    assert (request.method, request.path) == ("POST", "/render/v1/task-runs")
    assert json.loads(request.body) == {"task": "demo-workflow/square", "input": {"n": 1}, "idempotencyKey": "k-1"}


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        ("demo-workflow/cube", [], "create task failed: task not found: demo-workflow/cube"),
        (" ", [], "create task failed: task cannot be blank"),
    ],
)
async def test_the_sdk_says_why_a_run_was_not_started(still: SDK, task: str, given: Any, message: str) -> None:
    with pytest.raises(ClientError, match=message):
        await still.start(task, given)


@pytest.mark.parametrize(
    ("task", "given", "results"),
    [
        ("demo-workflow/square", [5], [25]),
        ("demo-workflow/square", {"n": 6}, [36]),
        ("demo-workflow/pipeline", [6, 8], [100]),
    ],
)
async def test_the_sdk_waits_for_a_run_over_the_stream_alone(
    sdk: SDK, fast_simulator: Simulator, task: str, given: Any, results: list[Any]
) -> None:
    done = await sdk.run(task, given)
    assert (done.status.value, done.results) == ("completed", results)
    assert sent(fast_simulator) == ["POST /task-runs", f"GET /task-runs/events?taskRunIds={done.id}"]
    accept = dict(fast_simulator.requests[1].headers)["accept"]
    assert accept == "text/event-stream"


async def test_the_sdk_raises_the_error_of_a_run_that_failed(sdk: SDK) -> None:
    with pytest.raises(TaskRunError, match="ValueError: no such customer"):
        await sdk.run("demo-workflow/fail", [])
    with pytest.raises(TaskRunError, match="takes a number"):
        await sdk.run("demo-workflow/square", ["five"])


async def test_the_sdk_reads_every_attempt_of_a_run_that_was_retried(sdk: SDK) -> None:
    done = await sdk.run("demo-workflow/flaky", [])
    assert (done.results, done.retries) == (["third time lucky"], 2)
    assert states(done) == [(0, "failed"), (1, "failed"), (2, "completed")]
    assert [attempt.error for attempt in done.attempts[:2]] == ["ConnectionError: the database went away"] * 2
    assert {attempt.task_run_id for attempt in done.attempts} == {done.id}


async def test_the_sdk_sees_no_end_in_an_attempt_that_failed(still: SDK, clock: ManualClock) -> None:
    run_id = (await still.start("demo-workflow/flaky", [])).id
    clock.advance(2)
    between = await still.get(run_id)
    assert (between.status.value, between.retries, states(between)) == ("pending", 1, [(0, "failed")])


async def test_the_sdk_learns_of_a_run_that_is_cancelled_while_it_waits(still: SDK, simulator: Simulator) -> None:
    done: list[TaskRunDetails] = []

    async def wait() -> None:
        done.append(await still.run("demo-workflow/slow", []))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        stream = await simulator.wait_for_request(lambda request: "/events?" in request.path)
        await anyio.wait_all_tasks_blocked()  # a stream that is opened after the end would not tell of it
        await still.cancel(stream.path.partition("=")[2])
    # Without an error it is not raised.
    assert done[0].status.value == "canceled"


async def test_the_sdk_waits_again_when_its_stream_is_cut(
    still: SDK, simulator: Simulator, naps: list[float], clock: ManualClock
) -> None:
    simulator.fail_next("render", Fault())  # the start
    simulator.fail_next("render", Fault(truncate=True))  # half of the stream's first frame
    done: list[TaskRunDetails] = []

    async def wait() -> None:
        done.append(await still.run("demo-workflow/square", [7]))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await simulator.wait_for_request(lambda request: "/events?" in request.path and len(simulator.requests) == 3)
        clock.advance(3)
    assert (done[0].results, naps) == ([49], [1.0])


async def test_the_sdk_waits_five_times_for_the_end_of_a_run_that_was_canceled_before(
    still: SDK, simulator: Simulator, naps: list[float]
) -> None:
    started = await still.start("demo-workflow/slow", [], idempotency_key="k-1")
    await still.cancel(started.id)
    # As a run that is going on, so that the SDK waits for it.
    pending = {"id": started.id, "taskId": "tsk-1", "status": "pending", "parentTaskRunId": "", "attempts": []}
    told = json.dumps(pending | {"rootTaskRunId": started.id, "retries": 0})
    simulator.fail_next("render", Fault(status=202, body=told))
    with pytest.raises(RenderError, match="Task run completed with no event"):
        await still.run("demo-workflow/slow", [], idempotency_key="k-1")
    assert naps == [1.0, 2.0, 4.0, 8.0]
    assert sum("/events?" in request.path for request in simulator.requests) == 5


# Reading, cancelling, following


async def test_the_sdk_reads_a_run_with_all_its_members(still: SDK) -> None:
    run = await still.get(COMPLETED)
    assert (run.id, run.task_id, run.status.value) == (COMPLETED, "tsk-d5im0000000000000001", "completed")
    assert (run.input_, run.results, run.retries, states(run)) == ([12], [144], 0, [(0, "completed")])
    assert (run.parent_task_run_id, run.root_task_run_id) == ("", COMPLETED)
    assert run.started_at == datetime.fromisoformat("2025-12-31T23:00:00.500Z")
    assert run.completed_at == datetime.fromisoformat("2025-12-31T23:00:03Z")
    failed, canceled, running = [await still.get(run_id) for run_id in (FAILED, CANCELED, RUNNING)]
    assert (failed.status.value, failed.error, failed.results) == ("failed", "ValueError: no such customer", [])
    assert (canceled.status.value, states(canceled)) == ("canceled", [(0, "canceled")])
    assert (running.status.value, running.results, states(running)) == ("running", [], [(0, "running")])


async def test_the_sdk_reads_what_a_subtask_descends_from(still: SDK, clock: ManualClock) -> None:
    root = (await still.start("demo-workflow/pipeline", [2, 5])).id
    clock.advance(4)
    (child, _) = await still.below(list_task_runs, root_task_run_id=[root])
    run = await still.get(child.task_run.id)
    assert (run.parent_task_run_id, run.root_task_run_id, run.parent_task_attempt) == (root, root, 0)


async def test_the_sdk_cancels_a_run_once_and_no_subtask(still: SDK, clock: ManualClock) -> None:
    root = (await still.start("demo-workflow/pipeline", [])).id
    clock.advance(2)
    (child, _) = await still.below(list_task_runs, root_task_run_id=[root])
    with pytest.raises(ServerError, match=f"task run {child.task_run.id} is a subtask; cancel its root {root} instead"):
        await still.cancel(child.task_run.id)
    await still.cancel(root)
    assert [(await still.get(run_id)).status.value for run_id in (root, child.task_run.id)] == ["canceled"] * 2
    with pytest.raises(ServerError, match=f"cancel task run failed: task run {root} is not active"):
        await still.cancel(root)


async def test_the_sdk_says_that_there_is_no_such_run(still: SDK) -> None:
    with pytest.raises(ClientError, match="get task run failed: task run not found"):
        await still.get("trn-unknown")
    with pytest.raises(ClientError, match="cancel task run failed: task run not found: trn-unknown"):
        await still.cancel("trn-unknown")


async def test_the_sdk_follows_several_runs_to_their_ends(sdk: SDK) -> None:
    squares = [await sdk.start("demo-workflow/square", [n]) for n in (7, 8)]
    failing = await sdk.start("demo-workflow/fail", [])
    events = await sdk.events(squares[0].id, failing.id, squares[1].id)
    assert sorted(event.results[0] for event in events if event.status.value == "completed") == [49, 64]
    assert [event.error for event in events if event.status.value == "failed"] == ["ValueError: no such customer"]
    # Those that have ended before are told again, but for canceled ones.
    replayed = await sdk.events(COMPLETED, FAILED, CANCELED, squares[0].id)
    assert {event.id for event in replayed} == {COMPLETED, FAILED, squares[0].id}


# Refusals


@pytest.mark.parametrize("kind", KINDS)
async def test_the_sdk_is_told_of_the_rate_limit_and_does_not_try_again(kind: str, clock: ManualClock) -> None:
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


async def test_the_sdk_does_not_try_a_failed_call_again(still: SDK, simulator: Simulator) -> None:
    body = json.dumps({"id": "err-1", "message": "try later"})
    for status, error in ((503, ServerError), (429, RateLimitError)):
        simulator.fail_next("render", Fault(status=status, body=body))
        with pytest.raises(error, match=r"^get task run failed: try later \(ID: err-1\)$"):
            await still.get(COMPLETED)
    assert len(simulator.requests) == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_the_sdk_reports_a_refused_key_in_plain_text_and_in_json(kind: str, origin: str) -> None:
    async with opened(kind, origin, "rnd_wrong") as sdk:
        with pytest.raises(RenderError, match="list task runs failed: server returned a non-JSON response: Unauthoriz"):
            await sdk.runs()
    async with opened(kind, origin, "rnd_wrong_json") as sdk:
        with pytest.raises(ClientError, match=r"list task runs failed: Unauthorized \(ID: err-simulated\)"):
            await sdk.runs()


@pytest.mark.parametrize(("token", "run_id"), [("rnd_wrong", COMPLETED), ("rnd_x", "trn-unknown")])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_sdk_cannot_say_why_its_stream_was_refused(
    kind: str, token: str, run_id: str, origin: str, simulator: Simulator
) -> None:
    # It looks at the body of an answer that it streams before it has read it: client/util.py, handle_http_error.
    async with opened(kind, origin, token) as sdk:
        with pytest.raises(httpx.ResponseNotRead):
            await sdk.events(run_id)
    assert sent(simulator) == [f"GET /task-runs/events?taskRunIds={run_id}"]
