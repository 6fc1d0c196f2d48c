"""What is sent again and what is not, when, and how often: on a driven clock, against the simulated providers."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import anyio
import pytest

from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from mcp_taskruns.simulator.server import serve
from tests.calls import (
    ALL_TRIES_S,
    INNGEST_RUNNING,
    NO_FAULT,
    PASSING,
    POSTHOG_COMPLETED,
    POSTHOG_NOT_STARTED,
    POSTHOG_RUNNING,
    RENDER_COMPLETED,
    RENDER_RUNNING,
    RUNWAY_SUCCEEDED,
    RUNWAY_THROTTLED,
    TASK,
    TRIES,
    Arguments,
    calling,
    finished,
    opened,
    outside,
    sent,
)
from tests.clock import DRIVEN, LoopClock, pass_time, settle

pytestmark = pytest.mark.anyio

READ: tuple[str, Arguments] = ("render-retrieve-task-run", {"taskRunId": RENDER_COMPLETED})
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def anyio_backend() -> Any:
    return DRIVEN


@pytest.fixture
async def simulator() -> Simulator:
    return Simulator(clock=LoopClock())


@pytest.fixture
async def environment(simulator: Simulator) -> AsyncIterator[dict[str, str]]:
    async with serve(simulator) as origin:
        yield simulator.environment(origin)


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("failures", [1, 3])
async def test_a_read_is_tried_again_and_the_progress_says_so(
    failures: int, fault: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    for _ in range(failures):
        simulator.fail_next("render", PASSING[fault])
    call = await finished(environment, *READ, ALL_TRIES_S)
    assert call.value["id"] == RENDER_COMPLETED
    assert len(sent(simulator)) == failures + 1
    told = [f"; trying again ({number} of 3)" in line for number, line in enumerate(call.lines, 1)]
    assert told == [True] * failures
    assert sorted(progress.progress for progress in call.progress) == [progress.progress for progress in call.progress]


@pytest.mark.parametrize("fault", PASSING)
async def test_a_read_is_tried_again_three_times_at_most(
    fault: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    for _ in range(TRIES + 1):
        simulator.fail_next("render", PASSING[fault])
    call = await finished(environment, *READ, ALL_TRIES_S)
    assert len(sent(simulator)) == TRIES
    assert call.failure.message.endswith(" (4 tries)")
    assert call.failure.retryable


LASTING = {
    **{str(status): Fault(status, body="no") for status in (400, 401, 403, 404, 406, 409, 500)},
    "usage gate": Fault(429, JSON, '{"type":"rate_limited","code":"usage_limit_exceeded","error":"limit"}'),
    "garbage": Fault(200, JSON, '{"id": "trn'),
}


@pytest.mark.parametrize("fault", LASTING)
async def test_what_does_not_pass_is_not_tried_again(
    fault: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("posthog", LASTING[fault])
    call = await finished(environment, "posthog-retrieve-task-run", {"task_id": TASK, "id": POSTHOG_RUNNING}, 0)
    assert (len(sent(simulator)), call.lines) == (1, [])
    assert "tries" not in call.failure.message


async def test_a_certificate_that_is_not_trusted_is_not_tried_again(environment: dict[str, str]) -> None:
    accepted = 0

    async def refuse(stream: anyio.abc.SocketStream) -> None:
        nonlocal accepted
        accepted += 1
        async with stream:
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, refuse)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        environment["RENDER_BASE_URL"] = f"https://127.0.0.1:{port}/v1"
        call = await finished(environment, *READ, 1)
        tasks.cancel_scope.cancel()
    assert "TLS" in call.failure.message
    assert (accepted, call.failure.retryable) == (1, False)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "20"}, 20),
        ({"Retry-After-Ms": "5500"}, 5.5),
        ({"Retry-After-Ms": "5500", "Retry-After": "20"}, 5.5),
        ({"Ratelimit-Reset": "12"}, 12),
    ],
)
async def test_a_provider_is_asked_again_when_it_wants_to_be(
    headers: dict[str, str], seconds: float, simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(429, headers, "slow down"))
    async with opened(environment) as gateway, calling(gateway, *READ) as call:
        await pass_time(seconds - 0.5)
        assert len(sent(simulator)) == 1
        await call.finish(2)
    assert len(sent(simulator)) == 2
    assert call.value["id"] == RENDER_COMPLETED


@pytest.mark.parametrize("header", ["Retry-After", "Ratelimit-Reset"])
async def test_a_moment_at_which_to_ask_again_is_waited_for(
    header: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=30)
    value = format_datetime(moment, usegmt=True) if header == "Retry-After" else str(int(moment.timestamp()))
    simulator.fail_next("render", Fault(429, {header: value}, "slow down"))
    async with opened(environment) as gateway, calling(gateway, *READ) as call:
        await pass_time(20)  # the machine's own clock, by which moments are told, goes on too
        assert len(sent(simulator)) == 1
        await call.finish(12)
    assert len(sent(simulator)) == 2


async def test_other_pauses_are_random_and_each_may_be_twice_as_long(
    simulator: Simulator, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    monkeypatch.setattr("mcp_taskruns.engine.client.random.uniform", uniform)
    for _ in range(3):
        simulator.fail_next("render", PASSING["503"])
    async with opened(environment) as gateway, calling(gateway, *READ) as call:
        await pass_time(6.5)
        assert len(sent(simulator)) == 3
        await call.finish(2)
    assert asked == [(0, 1), (0, 2), (0, 4)]


@pytest.mark.parametrize("status", [429, 503])
async def test_a_pause_that_outlasts_the_call_is_not_made(
    status: int, simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(status, {"Retry-After": "120"}, "later"))
    call = await finished(environment, *READ, 0)
    assert (call.failure.retry_after_s, call.failure.retryable) == (120, True)
    assert len(sent(simulator)) == 1


async def test_all_tries_together_take_no_longer_than_one_call_may(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    for _ in range(TRIES):
        simulator.fail_next("render", Fault(503, {"Retry-After": "25"}, "later"))
    async with opened(environment, timeout=60.0) as gateway, calling(gateway, *READ) as call:
        await call.finish(60)
    assert len(sent(simulator)) == 3
    assert call.failure.message.endswith("(3 tries)")


async def test_a_provider_that_is_slow_has_the_time_of_one_call(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(delay=100))
    async with opened(environment, timeout=20.0) as gateway, calling(gateway, *READ) as call:
        await call.finish(21)
    assert call.failure.kind == "timeout"
    assert len(sent(simulator)) == 1


async def test_cancelling_a_call_that_waits_to_try_again_ends_it(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(503, {"Retry-After": "30"}, "later"))
    async with opened(environment) as gateway, calling(gateway, *READ) as call:
        await pass_time(1)
        call.scope.cancel()
        await settle()
        assert call.is_over
        await pass_time(40)
    assert len(sent(simulator)) == 1


def on(run_id: str, **body: Any) -> Arguments:
    return {"task_id": TASK, "id": run_id, **({"body": body} if body else {})}


FILE = {"name": "a.txt", "type": "context"}

REPEATED: dict[str, Arguments] = {
    # They only read
    "render-list-task-runs": {},
    "render-retrieve-task-run": {"taskRunId": RENDER_COMPLETED},
    "render-stream-realtime-events-sse": {"taskRunIds": [RENDER_COMPLETED]},
    "render-list-tasks": {},
    "render-retrieve-task": {"taskId": "tsk-d5im0000000000000001"},
    "inngest-get-function-run-status": {"runId": INNGEST_RUNNING},
    "inngest-list-jobs-steps-run": {"runId": INNGEST_RUNNING},
    "posthog-list-task-runs": {"task_id": TASK},
    "posthog-retrieve-task-run": on(POSTHOG_COMPLETED),
    "posthog-get-task-run-logs": on(POSTHOG_COMPLETED),
    "posthog-get-filtered-task-run-session": on(POSTHOG_COMPLETED),
    "posthog-stream-task-run": on(POSTHOG_COMPLETED),
    "runway-retrieve-task-status-and-output": {"id": RUNWAY_SUCCEEDED},
    # By POST, and of scope task:read: PostHog products/tasks/backend/api.py
    "posthog-download-artifact-through-backend": on(POSTHOG_COMPLETED, storage_path="x"),
    "posthog-generate-presigned-url-artifact": on(POSTHOG_COMPLETED, storage_path="x"),
    # An entry that is there is echoed: PostHog products/tasks/backend/api.py (artifacts_finalize_upload)
    "posthog-finalize-direct-uploads-task-run": on(
        POSTHOG_RUNNING, artifacts=[{**FILE, "id": "a", "storage_path": "x"}]
    ),
    # "Repeating a request with the same key within 24 hours returns the task run that the first request started":
    # render 1.5.0 public_api/models/run_task.py; a key is made
    "render-run-task": {"body": {"task": "demo-workflow/square", "input": [4]}},
}
SENT_ONCE: dict[str, Arguments] = {
    "posthog-create-task-run": {"task_id": TASK, "body": {}},
    "posthog-update-task-run": on(POSTHOG_RUNNING, stage="x"),
    "posthog-append-log-entries": on(POSTHOG_RUNNING, entries=[{"type": "notification"}]),
    "posthog-upload-artifacts-task-run": on(POSTHOG_RUNNING, artifacts=[{**FILE, "content": "x"}]),
    "posthog-prepare-direct-uploads-task-run": on(POSTHOG_RUNNING, artifacts=[{**FILE, "size": 1}]),
    "posthog-send-command-agent-server": on(
        POSTHOG_RUNNING, jsonrpc="2.0", method="user_message", params={"content": "x"}
    ),
    # A GET, but each mints another token: PostHog products/tasks/backend/api.py (connection_token)
    "posthog-get-sandbox-connection-token": on(POSTHOG_RUNNING),
    "posthog-relay-run-message-slack": on(POSTHOG_RUNNING, text="hi"),
    "posthog-resume-task-run-cloud": on(POSTHOG_COMPLETED),
    "posthog-set-run-output": on(POSTHOG_RUNNING, output={"summary": "x"}),
    "posthog-start-task-run": on(POSTHOG_NOT_STARTED),
}
CANCELS: dict[str, tuple[Arguments, int]] = {
    # To cancel what has ended is an error: render-oss/cli pkg/workflows/apiserver
    "render-cancel-task-run": ({"taskRunId": RENDER_RUNNING}, 1),
    # Of a task that has ended meanwhile DELETE deletes the output: runwayml 5.24 resources/tasks.py
    "runway-cancel-delete-task": ({"id": RUNWAY_THROTTLED}, 1),
    # Changes nothing of a run that has ended: inngest pkg/api/apiv1
    "inngest-cancel-function-run": ({"runId": INNGEST_RUNNING}, 2),
}
RECEIVED = {
    "cut": Fault(truncate=True),
    "lost": Fault(503, body="lost", truncate=True),
    "503": Fault(503),
    "429": Fault(429),
}


def test_each_operation_is_in_one_of_the_tables() -> None:
    tools = {tool.name for tool in load_tools(()) if not tool.is_wait_tool}
    assert tools == {*REPEATED, *SENT_ONCE, *CANCELS}
    assert len(tools) == len(REPEATED) + len(SENT_ONCE) + len(CANCELS) == 31


@pytest.mark.parametrize("fault", RECEIVED)
@pytest.mark.parametrize("tool", REPEATED)
async def test_what_may_arrive_twice_is_sent_again(
    tool: str, fault: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next(tool.partition("-")[0], RECEIVED[fault])
    async with opened(environment) as gateway, calling(gateway, tool, REPEATED[tool]) as call:
        await pass_time(3)
        lines = sent(simulator)
        assert lines.count(lines[0]) >= 2
        assert "trying again" in call.lines[0] or "stream" in tool


@pytest.mark.parametrize("fault", RECEIVED)
@pytest.mark.parametrize("tool", SENT_ONCE)
async def test_what_must_not_arrive_twice_is_sent_once(
    tool: str, fault: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("posthog", RECEIVED[fault])
    call = await finished(environment, tool, SENT_ONCE[tool], 0)
    await pass_time(10)
    assert len(sent(simulator)) == 1
    if fault in {"cut", "lost"}:
        assert call.failure.hint.startswith("The request may have been carried out")
        assert not call.failure.retryable


@pytest.mark.parametrize("fault", ["lost", "503", "429"])  # an answer without content cannot be cut
@pytest.mark.parametrize("tool", CANCELS)
async def test_a_cancellation_is_sent_again_only_where_that_changes_nothing(
    tool: str, fault: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    arguments, times = CANCELS[tool]
    simulator.fail_next(tool.partition("-")[0], NO_FAULT)
    simulator.fail_next(tool.partition("-")[0], RECEIVED[fault])
    async with opened(environment) as gateway, calling(gateway, tool, arguments):
        await pass_time(12)
    assert [line.partition(" ")[0] for line in sent(simulator)].count("DELETE") == times


@pytest.mark.parametrize("tool", ["posthog-relay-run-message-slack", "posthog-resume-task-run-cloud"])
async def test_a_write_that_was_not_sent_is_sent_when_the_provider_is_there(
    tool: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    environment["POSTHOG_BASE_URL"] = "http://127.0.0.1:9"  # the discard port: nothing listens there
    call = await finished(environment, tool, SENT_ONCE[tool], ALL_TRIES_S)
    assert [f"trying again ({number} of 3)" in line for number, line in enumerate(call.lines, 1)] == [True] * 3
    assert call.failure.hint.startswith("Nothing was sent")
    assert call.failure.retryable


async def test_a_write_does_not_fail_because_a_kept_connection_was_closed(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with opened(environment) as gateway:
        for wait_s in (0, 3.9, 5.5, 60):
            await pass_time(wait_s)
            async with calling(gateway, "posthog-retrieve-task-run", on(POSTHOG_RUNNING)) as read:
                await read.finish(2)
            simulator.drop_connections("posthog")
            arguments = SENT_ONCE["posthog-relay-run-message-slack"]
            async with calling(gateway, "posthog-relay-run-message-slack", arguments) as call:
                await call.finish(0)
            assert call.value["status"] == "accepted"
    assert len([line for line in sent(simulator) if line.startswith("POST")]) == 4


async def test_a_wait_reads_again_by_itself_and_does_not_multiply_tries(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    for _ in range(3):
        simulator.fail_next("inngest", Fault(503, body="busy"))
    arguments = {"runId": INNGEST_RUNNING, "wait_seconds": 14}
    async with opened(environment) as gateway, calling(gateway, "inngest-wait-for-run", arguments) as call:
        await call.finish(20)
    assert call.value["timed_out"] is True
    assert len(sent(simulator)) <= 6  # one each three seconds


async def test_a_command_may_take_ten_minutes_and_gives_signs_of_life(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("posthog", Fault(delay=500))
    arguments = SENT_ONCE["posthog-send-command-agent-server"]
    async with opened(environment) as gateway, calling(gateway, "posthog-send-command-agent-server", arguments) as call:
        began = anyio.current_time()
        await pass_time(490)
        await call.finish(20)
    assert call.value["result"] == {"queued": True}
    times = [began, *call.progress_times]
    assert max(later - earlier for earlier, later in pairwise(times)) <= 10


async def test_a_command_has_a_bound_too(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("posthog", Fault(delay=1_000))
    arguments = SENT_ONCE["posthog-send-command-agent-server"]
    async with opened(environment) as gateway, calling(gateway, "posthog-send-command-agent-server", arguments) as call:
        await pass_time(600)
        await call.finish(15)
    assert call.failure.kind == "timeout"
    assert len(sent(simulator)) == 1


async def test_an_upload_to_the_storage_is_tried_again(simulator: Simulator, environment: dict[str, str]) -> None:
    for answer in (NO_FAULT, PASSING["503"]):
        simulator.fail_next("posthog", answer)
    arguments = on(POSTHOG_RUNNING, artifacts=[{**FILE, "content": "hello"}])
    call = await finished(environment, "posthog-prepare-direct-uploads-task-run", arguments, 5)
    assert call.value["artifacts"][0]["uploaded"] is True
    assert [line.rpartition("/posthog")[2] for line in sent(simulator)].count("/storage/") == 2
    stored = await outside(environment, "GET", f"/posthog/api/projects/1/tasks/{TASK}/runs/{POSTHOG_RUNNING}/")
    assert stored["artifacts"] == []


async def test_a_start_whose_answer_cannot_be_read_names_the_key_that_makes_it_safe_to_repeat(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(202, JSON, '{"id":"trn-1","sta'))
    call = await finished(environment, "render-run-task", REPEATED["render-run-task"], 0)
    key = json.loads(simulator.requests[-1].body)["idempotencyKey"]
    assert call.failure.retryable
    assert call.failure.hint == f'To try again pass body.idempotencyKey "{key}": with it no second run is started.'
