"""The simulated Render API.

Literals are from the Render API reference, the SDK (render 1.5.0) and render-oss/cli pkg/workflows/apiserver.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest

from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.lifecycle import ManualClock
from mcp_taskruns.simulator.render.app import Render
from mcp_taskruns.simulator.render.runs import OWNER_ID, VERSION_IDS, WORKFLOW_ID
from mcp_taskruns.simulator.server import serve
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

COMPLETED, FAILED, CANCELED, RUNNING = (f"trn-d5im000000000000000{n}" for n in (1, 2, 3, 4))
KEY = {"Authorization": "Bearer rnd_simulated"}


@pytest.fixture
async def api(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(simulator.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://simulator/render/v1", headers=KEY) as client:
        yield client


@pytest.fixture
async def live(origin: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client over a real socket, which receives the frames of a stream as they are sent."""
    async with httpx.AsyncClient(base_url=f"{origin}/render/v1", headers=KEY, timeout=PATIENCE) as client:
        yield client


async def start(api: httpx.AsyncClient, task: str, arguments: Any = (), **more: Any) -> Any:
    response = await api.post("/task-runs", json={"task": task, "input": arguments or [], **more})
    assert response.status_code == 202, response.text
    return response.json()


async def frames(response: httpx.Response) -> AsyncIterator[str]:
    buffer = ""
    async for text in response.aiter_text():
        buffer += text
        while "\n\n" in buffer:
            frame, buffer = buffer.split("\n\n", 1)
            yield frame


def run_of(frame: str) -> Any:
    first, second, data = frame.split("\n")
    assert (first, second) == ("id: 0", "event: task.completed")
    return json.loads(data.removeprefix("data: "))


# Keys


@pytest.mark.parametrize("key", ["", "Bearer rnd_wrong_key", "Bearer signkey-test-simulated", "Basic rnd_simulated"])
async def test_invalid_key_is_401_in_plain_text(api: httpx.AsyncClient, key: str) -> None:
    response = await api.get("/task-runs", headers={"Authorization": key})
    assert (response.status_code, response.headers["content-type"]) == (401, "text/plain; charset=utf-8")


def test_environment_contains_base_url_and_key(simulator: Simulator) -> None:
    assert simulator.render.environment("http://127.0.0.1:1") == {
        "RENDER_BASE_URL": "http://127.0.0.1:1/render/v1",
        "RENDER_API_KEY": "rnd_simulated",
    }


async def test_unknown_path_or_method_is_an_error_in_json(api: httpx.AsyncClient) -> None:
    assert ((r := await api.get("/flows")).status_code, r.text) == (404, "404 page not found\n")
    assert ((r := await api.put("/tasks")).status_code, r.json()) == (405, {"message": "method not allowed"})


async def test_invalid_key_that_contains_json_is_401_in_json(api: httpx.AsyncClient) -> None:
    response = await api.get("/task-runs", headers={"Authorization": "Bearer rnd_wrong_json"})
    assert (response.status_code, sorted(response.json())) == (401, ["id", "message"])


@asynccontextmanager
async def limited(clock: ManualClock, *, resets_at_epoch: bool = False) -> AsyncIterator[httpx.AsyncClient]:
    render = Render(clock, reads_per_minute=2, writes_per_minute=30, resets_at_epoch=resets_at_epoch)
    transport = httpx.ASGITransport(Simulator(clock=clock, render=render).app)
    async with httpx.AsyncClient(transport=transport, base_url="http://simulator/render/v1", headers=KEY) as api:
        yield api


def limits(response: httpx.Response) -> tuple[int, str | None, str | None, str | None]:
    names = ("Ratelimit-Limit", "Ratelimit-Remaining", "Ratelimit-Reset")
    limit, remaining, reset = (response.headers.get(name) for name in names)
    return response.status_code, limit, remaining, reset


async def test_every_response_reports_the_rate_limit_of_reads_or_writes(clock: ManualClock) -> None:
    async with limited(clock) as api:
        assert limits(await api.get("/tasks")) == (200, "2", "1", "60")
        clock.advance(15)
        assert limits(await api.get("/task-runs/trn-unknown")) == (404, "2", "0", "45")
        assert limits(await api.get("/tasks")) == (429, "2", "0", "45")
        assert limits(await api.delete(f"/task-runs/{RUNNING}")) == (204, "30", "29", "45")
        clock.advance(45)
        assert limits(await api.get("/tasks")) == (200, "2", "1", "60")


async def test_rate_limit_reset_can_be_in_seconds_since_the_epoch(clock: ManualClock) -> None:
    async with limited(clock, resets_at_epoch=True) as api:
        clock.advance(15)
        # The end of the first minute of 2026.
        assert limits(await api.get("/tasks")) == (200, "2", "1", "1767225660")


async def test_rate_limit_headers_are_absent_without_limits(api: httpx.AsyncClient) -> None:
    assert limits(await api.get("/tasks")) == (200, None, None, None)


# Tasks


async def test_get_task_by_id_name_slug_and_version(api: httpx.AsyncClient) -> None:
    by_slug = await api.get("/tasks/demo-workflow/square")
    assert by_slug.json() == {
        "id": "tsk-d5im0000000000000001",
        "name": "square",
        "createdAt": "2025-12-31T00:00:00.000Z",
        "workflowId": WORKFLOW_ID,
        "workflowVersionId": VERSION_IDS["e4f5a6b"],
    }
    for name in ("tsk-d5im0000000000000001", "square", "demo-workflow%2Fsquare", "demo-workflow/square:e4f5a6b"):
        assert (await api.get(f"/tasks/{name}")).json() == by_slug.json(), name
    assert (await api.get("/tasks/demo-workflow/square:a1b2c3d")).json()["id"] == "tsk-d5im0000000000000006"


async def test_get_unknown_task_is_404(api: httpx.AsyncClient) -> None:
    for name in ("{taskId}", "demo-workflow/square:fffffff"):
        response = await api.get(f"/tasks/{name}")
        assert (response.status_code, response.json()) == (404, {"message": "task not found"})


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["square", "pipeline", "flaky", "fail", "slow", "square"]),
        ("taskSlug=demo-workflow/square", ["square"]),
        ("taskSlug=demo-workflow/flaky&taskSlug=demo-workflow/fail", ["flaky", "fail"]),
        (f"ownerId={OWNER_ID},tea-other&limit=2", ["square", "pipeline"]),
        ("ownerId=tea-other", []),
        (f"workflowVersionId={VERSION_IDS['a1b2c3d']}", ["square"]),
        (f"workflowId={WORKFLOW_ID}&taskSlug=demo-workflow/slow", ["slow"]),
    ],
)
async def test_list_tasks_filters_by_every_parameter(api: httpx.AsyncClient, query: str, names: list[str]) -> None:
    listed = (await api.get(f"/tasks?{query}")).json()
    assert [item["task"]["name"] for item in listed] == names


# Starting


async def test_start_returns_a_summary_without_results(api: httpx.AsyncClient) -> None:
    assert await start(api, "demo-workflow/square", [5]) == {
        "id": "trn-d5im0000000000000005",
        "taskId": "tsk-d5im0000000000000001",
        "status": "pending",
        "parentTaskRunId": "",
        "rootTaskRunId": "trn-d5im0000000000000005",
        "retries": 0,
        "attempts": [],
    }


@pytest.mark.parametrize("arguments", [[5], {"n": 5}])
async def test_run_goes_from_pending_to_running_to_completed(
    api: httpx.AsyncClient, clock: ManualClock, arguments: Any
) -> None:
    run_id = (await start(api, "demo-workflow/square", arguments))["id"]
    statuses = []
    for _ in range(3):
        run = (await api.get(f"/task-runs/{run_id}")).json()
        statuses.append((run["status"], run["results"]))
        clock.advance(1.5)
    assert statuses == [("pending", []), ("running", []), ("completed", [25])]
    attempt = {
        "attempt": 0,
        "taskRunId": run_id,
        "status": "completed",
        "enqueuedAt": "2026-01-01T00:00:00.000Z",
        "startedAt": "2026-01-01T00:00:00.500Z",
        "completedAt": "2026-01-01T00:00:03.000Z",
        "results": [25],
    }
    assert (await api.get(f"/task-runs/{run_id}")).json() == {
        "id": run_id,
        "taskId": "tsk-d5im0000000000000001",
        "status": "completed",
        "parentTaskRunId": "",
        "rootTaskRunId": run_id,
        "retries": 0,
        "attempts": [attempt],
        "startedAt": "2026-01-01T00:00:00.500Z",
        "completedAt": "2026-01-01T00:00:03.000Z",
        "input": arguments,
        "results": [25],
    }


async def test_failed_run_has_an_error_and_no_results(api: httpx.AsyncClient, clock: ManualClock) -> None:
    started = await start(api, "demo-workflow/square", ["five"])
    clock.advance(3)
    run = (await api.get(f"/task-runs/{started['id']}")).json()
    assert (run["status"], run["results"]) == ("failed", [])
    assert run["error"] == run["attempts"][0]["error"] == "TypeError: square() takes a number"


async def test_retried_run_keeps_its_id_and_is_never_failed_in_between(
    api: httpx.AsyncClient, clock: ManualClock
) -> None:
    run_id = (await start(api, "demo-workflow/flaky"))["id"]
    history = []
    for _ in range(13):
        run = (await api.get(f"/task-runs/{run_id}")).json()
        history.append((run["status"], run["retries"], [attempt["status"] for attempt in run["attempts"]]))
        clock.advance(0.5)
    assert history[4] == ("pending", 1, ["failed"])
    assert history[12] == ("completed", 2, ["failed", "failed", "completed"])
    assert {status for status, _, _ in history} == {"pending", "running", "completed"}
    assert [attempt["attempt"] for attempt in run["attempts"]] == [0, 1, 2]
    assert "error" not in run


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "invalid JSON"),
        (b"[]", 400, "task cannot be blank"),
        (b'{"task": " ", "input": []}', 400, "task cannot be blank"),
        (b'{"task": "demo-workflow/square"}', 400, "input must be"),
        (b'{"task": "demo-workflow/square", "input": 5}', 400, "input must be"),
        (b'{"task": "demo-workflow/cube", "input": []}', 404, "task not found: demo-workflow/cube"),
    ],
)
async def test_invalid_start_request_starts_no_run(
    api: httpx.AsyncClient, body: bytes, status: int, message: str
) -> None:
    before = (await api.get("/task-runs")).json()
    response = await api.post("/task-runs", content=body)
    assert response.status_code == status
    assert message in response.json()["message"]
    assert (await api.get("/task-runs")).json() == before


async def test_idempotency_key_returns_the_first_run_for_a_day(api: httpx.AsyncClient, clock: ManualClock) -> None:
    first = await start(api, "demo-workflow/square", [5], idempotencyKey="k-1")
    clock.advance(24 * 3600 - 1)
    again = await start(api, "demo-workflow/square", [6], idempotencyKey="k-1")
    other = await start(api, "demo-workflow/square", [6], idempotencyKey="k-2")
    clock.advance(1)
    expired = await start(api, "demo-workflow/square", [6], idempotencyKey="k-1")
    assert again["id"] == first["id"]
    assert len({first["id"], other["id"], expired["id"]}) == 3


# Listing


async def test_list_runs_continues_after_the_cursor_of_the_last_item(api: httpx.AsyncClient) -> None:
    first = (await api.get("/task-runs", params={"limit": 3})).json()
    rest = (await api.get("/task-runs", params={"limit": 3, "cursor": first[-1]["cursor"]})).json()
    assert [item["taskRun"]["id"] for item in first + rest] == [RUNNING, CANCELED, FAILED, COMPLETED]
    assert not {"input", "results", "error"} & set(first[0]["taskRun"])


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "invalid_limit"),
        ("limit=101", "invalid_limit"),
        ("limit=x", "invalid_limit"),
        ("cursor=x", "invalid_cursor"),
    ],
)
async def test_invalid_limit_or_cursor_is_400(api: httpx.AsyncClient, query: str, code: str) -> None:
    response = await api.get(f"/task-runs?{query}")
    assert (response.status_code, response.json()["code"]) == (400, code)


async def test_subtasks_appear_when_they_start_with_parent_and_root(api: httpx.AsyncClient, clock: ManualClock) -> None:
    root = (await start(api, "demo-workflow/pipeline", [2, 5]))["id"]

    async def list_runs() -> list[str]:
        listed = (await api.get("/task-runs", params={"rootTaskRunId": [root, "trn-other"]})).json()
        return [item["taskRun"]["id"] for item in listed]

    sizes = []
    for seconds in (0, 1, 3.5):
        clock.advance(seconds)
        sizes.append(len(await list_runs()))
    assert sizes == [1, 2, 3]
    clock.advance(3.5)
    child = (await api.get(f"/task-runs/{(await list_runs())[0]}")).json()
    assert (child["parentTaskRunId"], child["rootTaskRunId"], child["results"]) == (root, root, [25])
    assert child["parentTaskAttempt"] == 0
    assert (await api.get(f"/task-runs/{root}")).json()["results"] == [29]


@pytest.mark.parametrize("query", ["rootTaskRunId={0},{1}", "rootTaskRunId={0}&rootTaskRunId={1}"])
async def test_list_parameter_is_repeated_or_comma_separated(api: httpx.AsyncClient, query: str) -> None:
    listed = (await api.get("/task-runs?" + query.format(COMPLETED, FAILED))).json()
    assert [item["taskRun"]["id"] for item in listed] == [FAILED, COMPLETED]


# Canceling


async def test_cancel_root_run_cancels_its_subtasks(api: httpx.AsyncClient, clock: ManualClock) -> None:
    root = (await start(api, "demo-workflow/pipeline"))["id"]
    clock.advance(2)
    response = await api.delete(f"/task-runs/{root}")
    assert (response.status_code, response.content) == (204, b"")
    clock.advance(10)
    listed = (await api.get("/task-runs", params={"rootTaskRunId": root})).json()
    assert [item["taskRun"]["status"] for item in listed] == ["canceled", "canceled"]
    assert listed[0]["taskRun"]["attempts"][0]["completedAt"] == "2026-01-01T00:00:02.000Z"


async def test_cancel_of_a_subtask_a_terminal_or_an_unknown_run_is_an_error(
    api: httpx.AsyncClient, clock: ManualClock
) -> None:
    root = (await start(api, "demo-workflow/pipeline"))["id"]
    clock.advance(2)
    listed = (await api.get("/task-runs", params={"rootTaskRunId": root})).json()
    subtask = listed[0]["taskRun"]["id"]
    responses = [await api.delete(f"/task-runs/{run_id}") for run_id in (subtask, COMPLETED, "trn-unknown")]
    assert [(response.status_code, response.json()["message"]) for response in responses] == [
        (500, f"task run {subtask} is a subtask; cancel its root {root} instead"),
        (500, f"task run {COMPLETED} is not active"),
        (404, "task run not found: trn-unknown"),
    ]


async def test_get_unknown_run_is_404(api: httpx.AsyncClient) -> None:
    response = await api.get("/task-runs/{taskRunId}")
    assert (response.status_code, response.json()) == (404, {"message": "task run not found"})


# Events


async def test_stream_replays_terminal_runs_except_canceled_ones_and_closes(api: httpx.AsyncClient) -> None:
    response = await api.get(f"/task-runs/events?taskRunIds={COMPLETED},{FAILED}&taskRunIds={CANCELED}")
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache, no-transform"
    retry, first, second, end = response.text.split("\n\n")
    assert (retry, end) == ("retry: 2000", "")
    assert (run_of(first)["status"], run_of(second)["status"]) == ("completed", "failed")
    assert run_of(first) == (await api.get(f"/task-runs/{COMPLETED}")).json()


async def test_stream_of_a_canceled_run_closes_without_an_event(api: httpx.AsyncClient) -> None:
    assert (await api.get(f"/task-runs/events?taskRunIds={CANCELED}")).text == "retry: 2000\n\n"


@pytest.mark.parametrize(("query", "status"), [("", 400), (f"?taskRunIds={COMPLETED}&taskRunIds=trn-unknown", 404)])
async def test_stream_without_runs_or_with_an_unknown_run_is_an_error(
    api: httpx.AsyncClient, query: str, status: int
) -> None:
    assert (await api.get(f"/task-runs/events{query}")).status_code == status


async def test_stream_sends_an_event_at_the_terminal_status_and_closes(
    live: httpx.AsyncClient, clock: ManualClock
) -> None:
    run_id = (await start(live, "demo-workflow/square", [3]))["id"]
    with anyio.fail_after(PATIENCE):
        async with live.stream("GET", "/task-runs/events", params={"taskRunIds": run_id}) as response:
            stream = frames(response)
            assert await anext(stream) == "retry: 2000"
            clock.advance(3)
            assert run_of(await anext(stream))["results"] == [9]
            assert [frame async for frame in stream] == []


async def test_stream_of_the_local_server_reports_failed_attempts(clock: ManualClock) -> None:
    """Seen at Render's local server (CLI 2.24): a GET shortly after the event has the status `pending`."""
    simulator = Simulator(clock=clock, render=Render(clock, reports_attempts=True))
    async with (
        serve(simulator) as origin,
        httpx.AsyncClient(base_url=f"{origin}/render/v1", headers=KEY, timeout=PATIENCE) as live,
    ):
        run_id = (await start(live, "demo-workflow/flaky"))["id"]
        seen = []
        with anyio.fail_after(PATIENCE):
            async with live.stream("GET", "/task-runs/events", params={"taskRunIds": run_id}) as response:
                stream = frames(response)
                assert await anext(stream) == "retry: 2000"
                for _ in range(3):
                    clock.advance(2)
                    event = run_of(await anext(stream))
                    now = (await live.get(f"/task-runs/{run_id}")).json()
                    seen.append((event["status"], len(event["attempts"]), event.get("error"), now["status"]))
                assert [frame async for frame in stream] == []
    error = "ConnectionError: the database went away"
    assert seen == [
        ("failed", 1, error, "pending"),
        ("failed", 2, error, "pending"),
        ("completed", 3, None, "completed"),
    ]


async def test_open_stream_sends_an_event_when_its_run_is_canceled(live: httpx.AsyncClient) -> None:
    with anyio.fail_after(PATIENCE):
        async with live.stream("GET", "/task-runs/events", params={"taskRunIds": RUNNING}) as response:
            stream = frames(response)
            assert await anext(stream) == "retry: 2000"
            assert (await live.delete(f"/task-runs/{RUNNING}")).status_code == 204
            assert run_of(await anext(stream))["status"] == "canceled"
            assert [frame async for frame in stream] == []


async def test_idle_stream_pings_every_25_seconds(live: httpx.AsyncClient, clock: ManualClock) -> None:
    with anyio.fail_after(PATIENCE):
        async with live.stream("GET", "/task-runs/events", params={"taskRunIds": RUNNING}) as response:
            stream = frames(response)
            assert await anext(stream) == "retry: 2000"
            for _ in range(2):
                clock.advance(25)
                assert await anext(stream) == ": ping"


async def test_stream_closes_after_30_minutes_without_an_event(
    monkeypatch: pytest.MonkeyPatch, live: httpx.AsyncClient, clock: ManualClock
) -> None:
    # No seeded run is active for longer than the real limit, so the test shortens the limit.
    monkeypatch.setattr("mcp_taskruns.simulator.render.events.IDLE_LIMIT", 20)
    with anyio.fail_after(PATIENCE):
        async with live.stream("GET", "/task-runs/events", params={"taskRunIds": RUNNING}) as response:
            stream = frames(response)
            assert await anext(stream) == "retry: 2000"
            clock.advance(20)
            assert [frame async for frame in stream] == []
