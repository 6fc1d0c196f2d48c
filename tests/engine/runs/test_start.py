"""Starting runs: retries with an idempotency key start one run, and a call can also wait for the run."""

import json
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import anyio
import pytest
from mcp.types import TextContent

from mcp_taskruns.errors import InvalidArguments
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from mcp_taskruns.simulator.server import serve
from tests.calls import (
    NO_FAULT,
    PASSING,
    POSTHOG_COMPLETED,
    POSTHOG_FAILED,
    POSTHOG_NOT_STARTED,
    POSTHOG_RUNNING,
    POSTHOG_RUNS,
    RENDER_RUNS,
    TASK,
    TRIES,
    Arguments,
    calling,
    finished,
    opened,
    outside,
    sent,
    timeless,
)
from tests.clients import Era, Transport, open_client
from tests.clock import LoopClock, pass_time, settle
from tests.timing import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

SQUARE: Arguments = {"body": {"task": "demo-workflow/square", "input": [7]}}
SLOW: Arguments = {"body": {"task": "demo-workflow/slow", "input": []}}
CLOUD: Arguments = {"task_id": TASK, "body": {"environment": "cloud"}}
NEW = "trn-d5im0000000000000005"
"""The ID of the first run that a test starts at the simulated Render."""


def keys_sent(simulator: Simulator) -> list[str]:
    """Return the idempotency keys of all requests that start a run."""
    return [json.loads(request.body)["idempotencyKey"] for request in simulator.requests if request.method == "POST"]


async def render_runs(environment: dict[str, str]) -> list[str]:
    """Return the IDs of the runs that the test has started."""
    runs = [item["taskRun"]["id"] for item in await outside(environment, "GET", f"{RENDER_RUNS}?limit=100")]
    return sorted(run_id for run_id in runs if run_id >= NEW)


async def test_start_sends_one_request_and_reports_the_key_and_the_status(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, "render-run-task", SQUARE, 0)
    assert sent(simulator) == [f"POST {RENDER_RUNS}"]
    (key,) = keys_sent(simulator)
    assert key.startswith("mcp-")
    assert len(key) == len("mcp-") + 36
    assert json.loads(call.outcome.text)["id"] == NEW
    assert call.outcome.notes == (
        f"Run {NEW}: queued (pending).",
        f'Idempotency key: "{key}". Repeating the call with it starts no second run.',
    )
    assert call.outcome.structured == json.loads(call.outcome.text)


async def test_each_start_has_its_own_idempotency_key(simulator: Simulator, environment: dict[str, str]) -> None:
    for _ in range(2):
        await finished(environment, "render-run-task", SQUARE, 0)
    first, second = keys_sent(simulator)
    assert first != second
    assert len(await render_runs(environment)) == 2


async def test_idempotency_key_of_the_caller_is_used(simulator: Simulator, environment: dict[str, str]) -> None:
    arguments = {"body": {**SQUARE["body"], "idempotencyKey": "order-17"}}
    for _ in range(2):
        call = await finished(environment, "render-run-task", arguments, 0)
        assert 'Idempotency key: "order-17".' in call.outcome.notes[1]
    assert keys_sent(simulator) == ["order-17", "order-17"]
    assert await render_runs(environment) == [NEW]


async def test_body_is_sent_unchanged_except_for_the_idempotency_key(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    await finished(environment, "render-run-task", {**SQUARE, "wait_seconds": 0})
    body = json.loads(simulator.requests[0].body)
    assert body == {**SQUARE["body"], "idempotencyKey": body["idempotencyKey"]}


async def test_empty_idempotency_key_is_replaced(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", Fault(truncate=True))
    await finished(environment, "render-run-task", {"body": {**SQUARE["body"], "idempotencyKey": ""}}, 60)
    assert len(await render_runs(environment)) == 1


async def test_start_with_wait_returns_the_result_of_the_wait_and_the_idempotency_key(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, "render-run-task", {**SQUARE, "wait_seconds": 30}, 4)
    (key,) = keys_sent(simulator)
    assert timeless(call.value) == {
        "provider": "render",
        "run_id": NEW,
        "status": "succeeded",
        "native_status": "completed",
        "terminal": True,
        "timed_out": False,
        "polls": 3,
        "result": [49],
        "error": None,
        "next": "The run has succeeded: no further call is needed.",
        "idempotency_key": key,
    }
    assert json.loads(call.outcome.text) == call.value
    assert f"Run {NEW}: succeeded (completed)." in call.outcome.notes
    assert call.lines[0] == f"started {NEW}: queued"
    assert all(later.progress > earlier.progress for earlier, later in pairwise(call.progress))
    read = f"GET {RENDER_RUNS}/{NEW}"
    assert [request for request in sent(simulator) if request != read] == [
        f"POST {RENDER_RUNS}",
        f"GET {RENDER_RUNS}/events?taskRunIds={NEW}",
    ]
    assert sent(simulator).count(read) == call.value["polls"]


async def test_run_id_is_reported_before_waiting(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", NO_FAULT)
    simulator.fail_next("render", Fault(delay=30))
    async with (
        opened(environment) as gateway,
        calling(gateway, "render-run-task", {**SLOW, "wait_seconds": 60}) as call,
    ):
        assert call.lines == [f"started {NEW}: queued"]


async def test_failed_run_is_not_an_error_of_the_start(environment: dict[str, str]) -> None:
    arguments = {"body": {"task": "demo-workflow/fail", "input": []}, "wait_seconds": 30}
    call = await finished(environment, "render-run-task", arguments, 3)
    assert (call.value["status"], call.value["error"]) == ("failed", "ValueError: no such customer")


async def test_repeated_start_of_an_ended_run_returns_its_result(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    arguments = {"body": {**SQUARE["body"], "idempotencyKey": "order-17"}, "wait_seconds": 30}
    await finished(environment, "render-run-task", arguments, 4)
    before = len(sent(simulator))
    call = await finished(environment, "render-run-task", arguments, 0)
    assert (call.value["status"], call.value["result"]) == ("succeeded", [49])
    # The response to a start has no results, so the run is read.
    assert sent(simulator)[before:] == [f"POST {RENDER_RUNS}", f"GET {RENDER_RUNS}/{NEW}"]


async def test_timeout_of_the_wait_after_a_start_does_not_cancel_the_run(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, "render-run-task", {**SLOW, "wait_seconds": 5}, 6)
    assert (call.value["run_id"], call.value["timed_out"], call.value["status"]) == (NEW, True, "running")
    assert [request.partition(" ")[0] for request in sent(simulator)][:3] == ["POST", "GET", "GET"]
    assert {request.partition(" ")[0] for request in sent(simulator)[1:]} == {"GET"}
    assert (await outside(environment, "GET", f"{RENDER_RUNS}/{NEW}"))["status"] == "running"


async def test_start_with_wait_of_0_seconds_returns_at_once(environment: dict[str, str]) -> None:
    call = await finished(environment, "render-run-task", {**SLOW, "wait_seconds": 0}, 0)
    assert (call.value["run_id"], call.value["timed_out"], call.value["status"]) == (NEW, True, "queued")


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("failures", [1, 3])
async def test_retries_a_start_after_a_transient_fault_with_the_same_key(
    failures: int, fault: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    for _ in range(failures):
        simulator.fail_next("render", PASSING[fault])
    call = await finished(environment, "render-run-task", SQUARE, 20)
    assert json.loads(call.outcome.text)["id"] == NEW
    keys = keys_sent(simulator)
    assert len(keys) == failures + 1
    assert len(set(keys)) == 1
    assert await render_runs(environment) == [NEW]
    messages = [line for line in call.lines if "no change" not in line]
    assert [f"; retrying ({number} of 3)" in line for number, line in enumerate(messages, 1)] == [True] * failures


async def test_retries_a_start_after_the_retry_after_of_429(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", Fault(429, {"Retry-After": "20"}, "slow down"))
    async with opened(environment) as gateway, calling(gateway, "render-run-task", SQUARE) as call:
        await pass_time(19)
        assert len(sent(simulator)) == 1
        await call.finish(2)
    assert len(sent(simulator)) == 2


@pytest.mark.parametrize("fault", PASSING)
async def test_retries_a_start_at_most_three_times_and_the_error_names_the_key(
    fault: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    for _ in range(TRIES + 1):
        simulator.fail_next("render", PASSING[fault])
    call = await finished(environment, "render-run-task", SQUARE, 30)
    keys = keys_sent(simulator)
    assert len(keys) == TRIES
    assert call.failure.hint.endswith(
        f'To try again, pass body.idempotencyKey "{keys[0]}": with this key no second run is started.'
    )


async def test_start_with_a_long_retry_after_fails_at_once_and_names_the_key(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(429, {"Retry-After": "3600"}, "slow down"))
    call = await finished(environment, "render-run-task", SQUARE, 0)
    assert keys_sent(simulator)[0] in call.failure.hint
    assert call.failure.retry_after_s == 3600


async def test_start_at_a_provider_that_refuses_connections_fails_within_the_timeout(
    environment: dict[str, str],
) -> None:
    environment["RENDER_BASE_URL"] = "http://127.0.0.1:9"  # the discard port, on which nothing listens
    call = await finished(environment, "render-run-task", SQUARE, 60)
    assert "refused the connection" in call.failure.message


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 500])
async def test_does_not_retry_a_start_after_a_permanent_error(
    status: int, simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(status, body="no"))
    call = await finished(environment, "render-run-task", SQUARE, 0)
    assert call.failure.status == status
    assert len(sent(simulator)) == 1


async def test_does_not_retry_a_start_without_idempotency_key(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("posthog", Fault(truncate=True))
    call = await finished(environment, "posthog-create-task-run", CLOUD, 0)
    assert "was lost" in call.failure.message
    assert len(sent(simulator)) == 1
    assert (await outside(environment, "GET", f"{POSTHOG_RUNS}/"))["count"] == 4 + 1


async def test_interrupted_wait_after_a_start_returns_the_run_id(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", NO_FAULT)
    for _ in range(2):  # the stream, and the read that replaces it
        simulator.fail_next("render", Fault(401, body="revoked"))
    call = await finished(environment, "render-run-task", {**SLOW, "wait_seconds": 30}, 10)
    (key,) = keys_sent(simulator)
    assert (call.value["run_id"], call.value["status"], call.value["terminal"]) == (NEW, "queued", False)
    assert call.value["idempotency_key"] == key
    assert (call.value["reason"], call.value["timed_out"]) == ('the provider returned 401: "revoked"', False)
    assert "RENDER_API_KEY" in call.value["next"]
    assert call.value["next"].endswith("Then call render-wait-for-run again.")
    assert await render_runs(environment) == [NEW]


async def test_unreachable_provider_after_a_start_is_not_an_error() -> None:
    simulator = Simulator(clock=LoopClock())
    async with AsyncExitStack() as server:
        environment = simulator.environment(await server.enter_async_context(serve(simulator)))
        arguments = {**SLOW, "wait_seconds": 600}
        async with opened(environment) as gateway, calling(gateway, "render-run-task", arguments) as call:
            await pass_time(2)
            await server.aclose()
            await call.finish(300)
    assert call.value["run_id"] == NEW
    assert call.outcome.notes == (f"Run {NEW}: running.",)
    assert "refused the connection" in call.value["reason"]


async def test_cancelling_the_call_after_a_start_does_not_cancel_the_run(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with (
        opened(environment) as gateway,
        calling(gateway, "render-run-task", {**SLOW, "wait_seconds": 60}) as call,
    ):
        await pass_time(1)
        call.scope.cancel()
        await settle()
        assert call.is_over
        stream = next(request for request in simulator.requests if "/events" in request.path)
        assert stream.disconnected.is_set()
    assert [request.method for request in simulator.requests].count("POST") == 1
    assert {request.method for request in simulator.requests} == {"POST", "GET"}
    assert (await outside(environment, "GET", f"{RENDER_RUNS}/{NEW}"))["status"] == "running"


# PostHog: creating a run does not start it, only cloud runs can be started, and a start responds with the task.
# PostHog products/tasks/backend/api.py


async def created_run(environment: dict[str, str]) -> dict[str, Any]:
    """Return the newest run of the task."""
    runs = await outside(environment, "GET", f"{POSTHOG_RUNS}/")
    assert runs["count"] == 4 + 1
    run: dict[str, Any] = runs["results"][0]
    return run


async def test_creating_a_posthog_cloud_run_with_wait_starts_it(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, "posthog-create-task-run", {**CLOUD, "wait_seconds": 30}, 12)
    run = await created_run(environment)
    path = f"{POSTHOG_RUNS}/{run['id']}"
    writes = [request for request in sent(simulator) if request.startswith("POST")]
    assert writes == [f"POST {POSTHOG_RUNS}/", f"POST {path}/start/"]
    assert sent(simulator).count(f"GET {path}/stream/?start=latest") == 1
    assert (call.value["run_id"], call.value["status"]) == (run["id"], "succeeded")
    assert call.value["result"]["summary"] == "Fixed the retry loop."
    assert call.lines[0] == f"started {run['id']}"
    assert "idempotency_key" not in call.value


async def test_creating_a_posthog_cloud_run_without_wait_does_not_start_it(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, "posthog-create-task-run", CLOUD, 0)
    assert sent(simulator) == [f"POST {POSTHOG_RUNS}/"]
    assert call.outcome.notes == (
        f"Run {call.value['id']}: not started (not_started).",
        "Created, NOT started: call posthog-start-task-run with its id.",
    )


@pytest.mark.parametrize("body", [{}, {"environment": "local"}])
async def test_creating_a_local_posthog_run_does_not_start_it(
    body: Arguments, simulator: Simulator, environment: dict[str, str]
) -> None:
    arguments = {"task_id": TASK, "body": body, "wait_seconds": 600}
    call = await finished(environment, "posthog-create-task-run", arguments, 0)
    run = await created_run(environment)
    assert (run["status"], run["environment"]) == ("not_started", "local")
    assert [request for request in sent(simulator) if "/start/" in request] == []
    assert (call.value["run_id"], call.value["status"], call.value["timed_out"]) == (run["id"], "not started", False)


async def test_error_names_the_run_that_was_created_but_not_started(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("posthog", NO_FAULT)
    simulator.fail_next("posthog", Fault(402, {"Content-Type": "application/json"}, '{"error": "over the limit"}'))
    call = await finished(environment, "posthog-create-task-run", {**CLOUD, "wait_seconds": 30}, 0)
    run = await created_run(environment)
    assert call.failure.message == (
        f'run {run["id"]} was created, but not started: the provider returned 402: "over the limit"'
    )
    assert call.failure.hint.startswith(
        "Do not create another run. Fix the reason, then call posthog-start-task-run for this run"
    )
    assert not call.failure.retryable  # repeating the call would create another run
    assert call.failure.status == 402
    assert len(sent(simulator)) == 2


async def test_starts_a_posthog_run_and_waits_in_one_call(simulator: Simulator, environment: dict[str, str]) -> None:
    arguments = {"task_id": TASK, "id": POSTHOG_NOT_STARTED, "wait_seconds": 30}
    call = await finished(environment, "posthog-start-task-run", arguments, 12)
    assert call.lines[0] == f"started {POSTHOG_NOT_STARTED}: queued"
    assert (call.value["run_id"], call.value["status"]) == (POSTHOG_NOT_STARTED, "succeeded")
    read, stream = f"GET {POSTHOG_RUNS}/{POSTHOG_NOT_STARTED}/", "stream/?start=latest"
    assert [request for request in sent(simulator) if request != read] == [
        f"POST {read.removeprefix('GET ')}start/",
        read + stream,
    ]


async def test_posthog_response_with_another_run_is_not_used_for_the_started_run(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    newer = await outside(environment, "POST", f"{POSTHOG_RUNS}/", {"environment": "cloud"})
    arguments = {"task_id": TASK, "id": POSTHOG_NOT_STARTED}
    call = await finished(environment, "posthog-start-task-run", arguments, 0)
    assert call.value["latest_run"]["id"] == newer["id"]
    assert call.outcome.notes == ()
    waited = await finished(environment, "posthog-wait-for-run", {**arguments, "wait_seconds": 30}, 12)
    assert (waited.value["run_id"], waited.value["status"]) == (POSTHOG_NOT_STARTED, "succeeded")


async def test_waits_for_the_started_posthog_run_if_the_response_contains_another(
    environment: dict[str, str],
) -> None:
    await outside(environment, "POST", f"{POSTHOG_RUNS}/", {"environment": "cloud"})
    arguments = {"task_id": TASK, "id": POSTHOG_NOT_STARTED, "wait_seconds": 30}
    call = await finished(environment, "posthog-start-task-run", arguments, 12)
    assert call.lines[0] == f"started {POSTHOG_NOT_STARTED}"
    assert (call.value["run_id"], call.value["status"]) == (POSTHOG_NOT_STARTED, "succeeded")


async def test_starting_a_posthog_run_without_wait_sends_one_request(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    arguments = {"task_id": TASK, "id": POSTHOG_NOT_STARTED}
    call = await finished(environment, "posthog-start-task-run", arguments, 0)
    assert call.value["id"] == TASK
    assert len(sent(simulator)) == 1


async def test_resumes_a_posthog_run_and_waits_in_one_call(simulator: Simulator, environment: dict[str, str]) -> None:
    arguments = {"task_id": TASK, "id": POSTHOG_FAILED, "wait_seconds": 30}
    call = await finished(environment, "posthog-resume-task-run-cloud", arguments, 12)
    assert call.lines[0] == f"started {POSTHOG_FAILED}: queued, setup"  # PostHog keeps the stage
    assert (call.value["run_id"], call.value["status"]) == (POSTHOG_FAILED, "succeeded")
    path = f"{POSTHOG_RUNS}/{POSTHOG_FAILED}"
    assert [request for request in sent(simulator) if request != f"GET {path}/"] == [
        f"POST {path}/resume_in_cloud/",
        f"GET {path}/stream/?start=latest",
    ]


async def test_resuming_a_posthog_run_without_wait_reports_its_status(environment: dict[str, str]) -> None:
    arguments = {"task_id": TASK, "id": POSTHOG_COMPLETED}
    call = await finished(environment, "posthog-resume-task-run-cloud", arguments, 0)
    assert call.outcome.notes == (
        f"Run {POSTHOG_COMPLETED}: queued.",
        "Redacted: log_url, state.sandbox_connect_token, state.sandbox_url. "
        "The server shows these secrets with `--reveal-secrets`.",
    )


@pytest.mark.parametrize("tool", ["posthog-start-task-run", "posthog-resume-task-run-cloud"])
async def test_rejected_start_is_an_error_without_a_wait(
    tool: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    call = await finished(environment, tool, {"task_id": TASK, "id": POSTHOG_RUNNING, "wait_seconds": 30}, 0)
    assert call.failure.status == 400
    assert len(sent(simulator)) == 1


async def test_wait_is_rejected_if_the_tool_that_starts_the_run_is_excluded(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with (
        opened(environment, exclude_tools=("posthog-start-task-run",)) as gateway,
        calling(gateway, "posthog-create-task-run", {**CLOUD, "wait_seconds": 30}) as call,
    ):
        await call.finish(0)
        assert isinstance(call.failure, InvalidArguments)
        assert "posthog-start-task-run is not served" in call.failure.message
        assert call.failure.hint == "Leave out wait_seconds. Nothing was sent."
        assert simulator.requests == []
        async with calling(gateway, "posthog-create-task-run", CLOUD) as call_without_wait:
            await call_without_wait.finish(0)
        assert call_without_wait.value["status"] == "not_started"


@pytest.fixture(params=[("memory", "legacy"), ("memory", "auto"), ("stdio", "auto"), ("http", "legacy")], ids=str)
def connection(request: pytest.FixtureRequest) -> tuple[Transport, Era]:
    transport, era = request.param
    return transport, era


async def test_client_receives_the_run_id_in_the_first_notification(
    connection: tuple[Transport, Era], simulator: Simulator, environment: dict[str, str]
) -> None:
    messages: list[str] = []
    is_started, is_over = anyio.Event(), anyio.Event()
    texts: list[str] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        messages.append(message or "")
        is_started.set()

    with anyio.fail_after(PATIENCE):
        async with open_client(*connection, environment) as client, anyio.create_task_group() as tasks:

            async def start() -> None:
                arguments = {**SLOW, "wait_seconds": 45}
                result = await client.call_tool("render-run-task", arguments, progress_callback=on_progress)
                assert not result.is_error
                texts.extend(block.text for block in result.content if isinstance(block, TextContent))
                is_over.set()

            tasks.start_soon(start)
            await is_started.wait()
            assert messages[0] == f"started {NEW}: queued"
            await outside(environment, "DELETE", f"{RENDER_RUNS}/{NEW}")
            await is_over.wait()
    value = json.loads(texts[0])
    assert (value["run_id"], value["status"]) == (NEW, "canceled")
    assert value["idempotency_key"] == keys_sent(simulator)[0]
    assert f"Run {NEW}: canceled." in texts[1:]


async def test_client_that_cancels_a_start_with_wait_leaves_the_run_running(
    connection: tuple[Transport, Era], simulator: Simulator, environment: dict[str, str]
) -> None:
    with anyio.fail_after(PATIENCE):
        async with open_client(*connection, environment) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.call_tool, "render-run-task", {**SLOW, "wait_seconds": 45})
                stream = await simulator.wait_for_request(lambda request: "/events" in request.path)
                tasks.cancel_scope.cancel()
            await stream.disconnected.wait()
    assert "DELETE" not in {request.method for request in simulator.requests}
    assert (await outside(environment, "GET", f"{RENDER_RUNS}/{NEW}"))["status"] in {"pending", "running"}


async def test_response_without_a_run_id_is_returned(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", Fault(202, {"Content-Type": "application/json"}, '{"job":"trn-odd"}'))
    call = await finished(environment, "render-run-task", {**SQUARE, "wait_seconds": 30}, 0)
    assert call.outcome.text == '{"job":"trn-odd"}'
    assert call.outcome.notes[0] == "The response does not name the run, so there was nothing to wait for."


async def test_start_whose_run_cannot_be_read_returns_the_run_id(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    # The response contains another run, so the status of this one is unknown when its read fails.
    await outside(environment, "POST", f"{POSTHOG_RUNS}/", {"environment": "cloud"})
    simulator.fail_next("posthog", NO_FAULT)
    simulator.fail_next("posthog", Fault(401, body="revoked"))
    arguments = {"task_id": TASK, "id": POSTHOG_NOT_STARTED, "wait_seconds": 30}
    call = await finished(environment, "posthog-start-task-run", arguments, 0)
    assert (call.value["run_id"], call.value["status"]) == (POSTHOG_NOT_STARTED, "unknown")
    assert (call.value["reason"], call.value["timed_out"]) == ('the provider returned 401: "revoked"', False)
