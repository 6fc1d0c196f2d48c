"""Retries: which requests are sent again, after which delay and how often.

The providers are the simulators, on a clock that the tests drive, or a raw socket that drops its connections.
"""

import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from mcp_taskruns.core.model.json import dump
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from mcp_taskruns.simulator.server import serve
from tests.calls import (
    ALL_TRIES_S,
    INNGEST_RUNNING,
    INNGEST_RUNS,
    NO_FAULT,
    PASSING,
    POSTHOG_COMPLETED,
    POSTHOG_NOT_STARTED,
    POSTHOG_RUNNING,
    POSTHOG_RUNS,
    READS,
    RENDER_COMPLETED,
    RENDER_RUNNING,
    RENDER_RUNS,
    RUNWAY_SUCCEEDED,
    RUNWAY_TASKS,
    RUNWAY_THROTTLED,
    STREAMS,
    TASK,
    TRIES,
    Arguments,
    calling,
    finished,
    opened,
    run_json,
    sent,
)
from tests.clock import pass_time, settle

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

MAX_RECONNECTS = 5
"""How often in a row a stream is reconnected without an event."""

JSON = {"Content-Type": "application/json"}
READ: tuple[str, Arguments] = ("render-retrieve-task-run", {"taskRunId": RENDER_COMPLETED})


def on(run_id: str, **body: Any) -> Arguments:
    """Return the arguments of an operation on a PostHog run."""
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
    # An existing entry is returned as it is: PostHog products/tasks/backend/api.py (artifacts_finalize_upload)
    "posthog-finalize-direct-uploads-task-run": on(
        POSTHOG_RUNNING, artifacts=[{**FILE, "id": "a", "storage_path": "x"}]
    ),
    # "Repeating a request with the same key within 24 hours returns the task run that the first request started":
    # render 1.5.0 public_api/models/run_task.py; the server generates a key
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
    # Each posts another message: PostHog products/tasks/backend/api.py (relay_message)
    "posthog-relay-run-message-slack": on(POSTHOG_RUNNING, text="hi"),
    "posthog-resume-task-run-cloud": on(POSTHOG_COMPLETED),
    "posthog-set-run-output": on(POSTHOG_RUNNING, output={"summary": "x"}),
    "posthog-start-task-run": on(POSTHOG_NOT_STARTED),
}
# How often a DELETE is sent whose response is lost
CANCELS: dict[str, tuple[Arguments, int]] = {
    # Cancelling a run in a terminal status is an error: render-oss/cli pkg/workflows/apiserver
    "render-cancel-task-run": ({"taskRunId": RENDER_RUNNING}, 1),
    # DELETE of a task in a terminal status deletes its output: runwayml 5.24 resources/tasks.py
    "runway-cancel-delete-task": ({"id": RUNWAY_THROTTLED}, 1),
    # DELETE does not change a run in a terminal status: inngest pkg/api/apiv1
    "inngest-cancel-function-run": ({"runId": INNGEST_RUNNING}, TRIES),
}

RELAY = ("posthog-relay-run-message-slack", SENT_ONCE["posthog-relay-run-message-slack"])
COMMAND = ("posthog-send-command-agent-server", SENT_ONCE["posthog-send-command-agent-server"])
START = ("render-run-task", REPEATED["render-run-task"])


def test_every_operation_is_in_one_table() -> None:
    # Those that need another key are listed only with it, and all of them are a GET.
    others = [tool for tool in load_tools(()) if tool.operation.needs and not tool.derived]
    assert {tool.operation.method for tool in others} == {"GET"}
    tools = {tool.name for tool in load_tools(()) if not tool.derived} - {tool.name for tool in others}
    assert tools == {*REPEATED, *SENT_ONCE, *CANCELS}
    assert len(tools) == len(REPEATED) + len(SENT_ONCE) + len(CANCELS) == 31


# A read and transient faults


def assert_retries_are_reported(lines: list[str], count: int) -> None:
    assert [f"retrying ({number} of 3)" in line for number, line in enumerate(lines, 1)] == [True] * count


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("failures", [1, 3])
async def test_retries_a_read_after_a_transient_fault_and_reports_it(
    failures: int, fault: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    for _ in range(failures):
        simulator.fail_next("render", PASSING[fault])
    call = await finished(environment, *READ, ALL_TRIES_S)
    assert call.value["id"] == RENDER_COMPLETED
    assert len(sent(simulator)) == failures + 1
    assert_retries_are_reported(call.lines, failures)
    assert sorted(progress.progress for progress in call.progress) == [progress.progress for progress in call.progress]


@pytest.mark.parametrize("fault", PASSING)
async def test_retries_a_read_at_most_three_times(
    fault: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    for _ in range(TRIES + 1):
        simulator.fail_next("render", PASSING[fault])
    call = await finished(environment, *READ, ALL_TRIES_S)
    assert len(sent(simulator)) == TRIES
    assert call.failure.message.endswith(" (4 attempts)")
    assert call.failure.retryable


async def test_error_after_all_attempts_is_the_last_one(simulator: Simulator, environment: dict[str, str]) -> None:
    for fault in (
        Fault(503, body="first"),
        Fault(truncate=True),
        Fault(502, body="third"),
        Fault(429, body="the last"),
    ):
        simulator.fail_next("render", fault)
    call = await finished(environment, *READ, ALL_TRIES_S)
    assert '429: "the last" (4 attempts)' in call.failure.message
    assert (call.failure.kind, call.failure.status) == ("rate_limited", 429)
    assert ['503: "first"' in call.lines[0], "was lost" in call.lines[1], '502: "third"' in call.lines[2]] == [True] * 3


LASTING = {
    **{str(status): Fault(status, body="no") for status in (400, 401, 403, 404, 406, 409, 500)},
    "usage limit": Fault(429, JSON, '{"type":"rate_limited","code":"usage_limit_exceeded","error":"limit"}'),
    "truncated JSON": Fault(200, JSON, '{"id": "trn'),
}


@pytest.mark.parametrize("fault", LASTING)
async def test_does_not_retry_after_a_permanent_error(
    fault: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("posthog", LASTING[fault])
    call = await finished(environment, "posthog-retrieve-task-run", on(POSTHOG_RUNNING), 0)
    assert (len(sent(simulator)), call.lines) == (1, [])
    assert "attempts" not in call.failure.message


async def test_does_not_retry_an_untrusted_certificate(environment: dict[str, str]) -> None:
    accepted = 0

    async def refuse(stream: SocketStream) -> None:
        nonlocal accepted
        accepted += 1
        async with stream:
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, refuse)
        port = listener.extra(SocketAttribute.local_port)
        environment["RENDER_BASE_URL"] = f"https://127.0.0.1:{port}/v1"
        call = await finished(environment, *READ, 1)
        tasks.cancel_scope.cancel()
    assert "TLS" in call.failure.message
    assert (accepted, call.failure.retryable) == (1, False)


# Delays


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "20"}, 20),
        ({"Retry-After-Ms": "5500"}, 5.5),
        ({"Retry-After-Ms": "5500", "Retry-After": "20"}, 5.5),
        ({"Ratelimit-Reset": "12"}, 12),
    ],
)
async def test_retries_429_after_the_delay_of_the_header(
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
async def test_retries_429_at_the_time_of_the_header(
    header: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    # Far away, because the server compares it with the wall clock, which the test does not drive.
    moment = datetime.now(UTC) + timedelta(seconds=50)
    value = format_datetime(moment, usegmt=True) if header == "Retry-After" else str(int(moment.timestamp()))
    simulator.fail_next("render", Fault(429, {header: value}, "slow down"))
    async with opened(environment) as gateway, calling(gateway, *READ) as call:
        await pass_time(20)
        assert len(sent(simulator)) == 1
        await call.finish(32)
    assert len(sent(simulator)) == 2


async def test_backoff_is_random_and_its_limit_doubles(
    simulator: Simulator, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        limits.append((low, high))
        return high

    monkeypatch.setattr("random.uniform", uniform)
    for _ in range(3):
        simulator.fail_next("render", PASSING["503"])
    async with opened(environment) as gateway, calling(gateway, *READ) as call:
        await pass_time(6.5)
        assert len(sent(simulator)) == 3
        await call.finish(2)
    assert limits == [(0, 1), (0, 2), (0, 4)]


@pytest.mark.parametrize("status", [429, 503])
async def test_does_not_wait_longer_than_the_timeout_of_the_call(
    status: int, simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(status, {"Retry-After": "120"}, "later"))
    call = await finished(environment, *READ, 0)
    assert (call.failure.retry_after_s, call.failure.retryable) == (120, True)
    assert len(sent(simulator)) == 1


async def test_all_attempts_together_take_at_most_the_timeout(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    for _ in range(TRIES):
        simulator.fail_next("render", Fault(503, {"Retry-After": "25"}, "later"))
    async with opened(environment, timeout=60.0) as gateway, calling(gateway, *READ) as call:
        await call.finish(60)
    assert len(sent(simulator)) == 3
    assert call.failure.message.endswith("(3 attempts)")


async def test_a_slow_provider_is_a_timeout_and_not_retried(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", Fault(delay=100))
    async with opened(environment, timeout=20.0) as gateway, calling(gateway, *READ) as call:
        await call.finish(21)
    assert call.failure.kind == "timeout"
    assert len(sent(simulator)) == 1


async def test_cancelling_a_call_during_its_backoff_ends_it(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", Fault(503, {"Retry-After": "30"}, "later"))
    async with opened(environment) as gateway, calling(gateway, *READ) as call:
        await pass_time(1)
        call.scope.cancel()
        await settle()
        assert call.is_over
        await pass_time(40)
    assert len(sent(simulator)) == 1


# A response that is lost or rejects the request


LOST_OR_REJECTED = {
    "connection dropped": Fault(truncate=True),
    "error truncated": Fault(503, body="lost", truncate=True),
    "503": Fault(503),
    "429": Fault(429),
}
# The faults are handled in one place for all operations: each operation needs one, and each fault one operation.
OTHER_FAULTS = [fault for fault in LOST_OR_REJECTED if fault != "connection dropped"]
FAULTS_OF_REPEATED = [(tool, "connection dropped") for tool in REPEATED] + [(READ[0], fault) for fault in OTHER_FAULTS]
FAULTS_OF_SENT_ONCE = [(tool, "connection dropped") for tool in SENT_ONCE] + [(RELAY[0], f) for f in OTHER_FAULTS]


@pytest.mark.parametrize(("tool", "fault"), FAULTS_OF_REPEATED)
async def test_a_request_that_may_arrive_twice_is_sent_again(
    tool: str, fault: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next(tool.partition("-")[0], LOST_OR_REJECTED[fault])
    async with opened(environment) as gateway, calling(gateway, tool, REPEATED[tool]) as call:
        await pass_time(3)
        lines = sent(simulator)
        assert lines.count(lines[0]) >= 2
        assert "retrying" in call.lines[0] or "stream" in tool


@pytest.mark.parametrize(("tool", "fault"), FAULTS_OF_SENT_ONCE)
async def test_a_request_that_must_not_arrive_twice_is_sent_once(
    tool: str, fault: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("posthog", LOST_OR_REJECTED[fault])
    call = await finished(environment, tool, SENT_ONCE[tool], 0)
    await pass_time(10)
    assert len(sent(simulator)) == 1
    if fault in {"connection dropped", "error truncated"}:
        assert call.failure.hint.startswith("The request may have been carried out")
        assert not call.failure.retryable


@pytest.mark.parametrize("fault", ["error truncated", "503", "429"])  # a response without content is never truncated
@pytest.mark.parametrize("tool", CANCELS)
async def test_a_cancellation_is_sent_again_only_where_it_has_no_second_effect(
    tool: str, fault: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    arguments, times = CANCELS[tool]
    simulator.fail_next(tool.partition("-")[0], NO_FAULT)
    simulator.fail_next(tool.partition("-")[0], LOST_OR_REJECTED[fault])
    async with opened(environment) as gateway, calling(gateway, tool, arguments):
        await pass_time(12)
    assert [line.partition(" ")[0] for line in sent(simulator)].count("DELETE") == min(times, 2)


# A provider that refuses the connection: nothing was sent, so every request may be tried again


@pytest.fixture
def port() -> int:
    """A port on which nothing listens yet."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
    return number


REFUSED: dict[str, tuple[str, Arguments, str]] = {
    "a read": (*READ, f"GET {RENDER_RUNS}/{RENDER_COMPLETED}"),
    "a start with a key": (*START, f"POST {RENDER_RUNS}"),
    "a GET that mints a token": (
        "posthog-get-sandbox-connection-token",
        on(POSTHOG_RUNNING),
        f"GET {POSTHOG_RUNS}/{POSTHOG_RUNNING}/connection_token/",
    ),
    "a POST": (*RELAY, f"POST {POSTHOG_RUNS}/{POSTHOG_RUNNING}/relay_message/"),
    "a PATCH": (
        "posthog-update-task-run",
        SENT_ONCE["posthog-update-task-run"],
        f"PATCH {POSTHOG_RUNS}/{POSTHOG_RUNNING}/",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refused_request_is_sent_once_when_the_provider_listens_again(
    case: str, simulator: Simulator, port: int
) -> None:
    tool, arguments, line = REFUSED[case]
    environment = simulator.environment(f"http://127.0.0.1:{port}")
    async with opened(environment) as gateway, calling(gateway, tool, arguments) as call:
        assert "refused the connection; retrying (1 of 3)" in call.lines[0]
        async with serve(simulator, port=port):
            await call.finish(ALL_TRIES_S)
    assert call.error is None
    assert sent(simulator) == [line]


@pytest.mark.parametrize("case", REFUSED)
async def test_a_provider_that_does_not_listen_is_tried_four_times(case: str, simulator: Simulator, port: int) -> None:
    tool, arguments, _ = REFUSED[case]
    call = await finished(simulator.environment(f"http://127.0.0.1:{port}"), tool, arguments, ALL_TRIES_S)
    assert_retries_are_reported([line for line in call.lines if "retrying" in line], 3)
    assert call.failure.message.endswith(f"refused the connection ({TRIES} attempts)")
    assert (call.failure.kind, call.failure.retryable) == ("unavailable", True)
    assert call.failure.hint.startswith("Nothing was sent")


@pytest.mark.parametrize("tool", CANCELS)
async def test_a_refused_cancellation_is_sent_once_when_the_provider_listens_again(
    tool: str, simulator: Simulator, port: int
) -> None:
    lines: list[str] = []

    async def notify(line: str) -> None:
        lines.append(line)

    async with opened(simulator.environment(f"http://127.0.0.1:{port}")) as gateway, anyio.create_task_group() as tasks:
        # Not through the tool, which reads the run first.
        operation = gateway.tools[tool].operation
        tasks.start_soon(lambda: gateway.client.fetch(operation, CANCELS[tool][0], notify=notify))
        await pass_time(0)
        assert "refused the connection; retrying (1 of 3)" in lines[0]
        async with serve(simulator, port=port):
            await pass_time(ALL_TRIES_S)
    assert [line.partition(" ")[0] for line in sent(simulator)] == ["DELETE"]


# A connection that is dropped after the request has arrived: the outcome of the request is unknown


@asynccontextmanager
async def dropping(port: int = 0, responses: Mapping[str, Any] | None = None) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve these values to these methods, and drop the connection after any other request.

    Yields the origin and the requests that arrive.
    """
    arrived: list[str] = []

    async def serve_one(stream: SocketStream) -> None:
        received = BufferedByteReceiveStream(stream)
        async with stream:
            while True:
                try:
                    head = (await received.receive_until(b"\r\n\r\n", 65_536)).decode("latin-1")
                except (anyio.IncompleteRead, anyio.BrokenResourceError):
                    return
                first, *headers = head.split("\r\n")
                sizes = [int(header[15:]) for header in headers if header.lower().startswith("content-length:")]
                content = await received.receive_exactly(sum(sizes)) if any(sizes) else b""
                method, path, _ = first.split(" ")
                arrived.append(f"{method} {path} {content.decode()}".rstrip())
                if method not in (responses or {}):
                    return
                body = dump((responses or {})[method]).encode()
                lines = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                await stream.send(lines.encode() + body)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve_one)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}", arrived
        tasks.cancel_scope.cancel()


def environment_at(origin: str) -> dict[str, str]:
    return Simulator().environment(origin)


async def test_a_write_that_arrived_at_the_second_try_is_not_sent_again(port: int) -> None:
    environment = environment_at(f"http://127.0.0.1:{port}")
    async with opened(environment) as gateway, calling(gateway, *RELAY) as call:
        assert len(call.lines) == 1
        async with dropping(port) as (_, arrived):
            await call.finish(ALL_TRIES_S)
            await pass_time(10)
    assert len(arrived) == 1
    assert " attempts)" in call.failure.message
    assert call.failure.hint.startswith("The request may have been carried out")
    assert not call.failure.retryable


# The tool and its arguments, the run as the provider sends it, the request, and how often it is sent
DROPPED: dict[str, tuple[str, Arguments, Any, str, int]] = {
    "a read": (
        "render-retrieve-task-run",
        {"taskRunId": RENDER_RUNNING},
        None,
        f"GET {RENDER_RUNS}/{RENDER_RUNNING}",
        TRIES,
    ),
    "inngest's cancellation": (
        "inngest-cancel-function-run",
        {"runId": INNGEST_RUNNING},
        run_json("inngest", "Running"),
        f"DELETE {INNGEST_RUNS}/{INNGEST_RUNNING}",
        TRIES,
    ),
    "render's cancellation": (
        "render-cancel-task-run",
        {"taskRunId": RENDER_RUNNING},
        run_json("render", "running"),
        f"DELETE {RENDER_RUNS}/{RENDER_RUNNING}",
        1,
    ),
    "runway's cancellation": (
        "runway-cancel-delete-task",
        {"id": RUNWAY_THROTTLED},
        run_json("runway", "RUNNING"),
        f"DELETE {RUNWAY_TASKS}/{RUNWAY_THROTTLED}",
        1,
    ),
    "posthog's token": (
        "posthog-get-sandbox-connection-token",
        on(POSTHOG_RUNNING),
        None,
        f"GET {POSTHOG_RUNS}/{POSTHOG_RUNNING}/connection_token/",
        1,
    ),
    "posthog's message": (
        *RELAY,
        None,
        f'POST {POSTHOG_RUNS}/{POSTHOG_RUNNING}/relay_message/ {{"text":"hi"}}',
        1,
    ),
}


@pytest.mark.parametrize("case", DROPPED)
async def test_a_request_whose_connection_was_dropped_is_sent_again_only_if_that_is_safe(case: str) -> None:
    tool, arguments, run, line, times = DROPPED[case]
    async with dropping(responses={} if run is None else {"GET": run}) as (origin, arrived):
        call = await finished(environment_at(origin), tool, arguments, ALL_TRIES_S)
        await pass_time(10)
    method = line.partition(" ")[0]
    assert [request for request in arrived if request.startswith(method)] == [line] * times
    assert "was lost" in call.failure.message
    assert call.failure.retryable is (times > 1)


async def test_a_start_whose_connection_was_dropped_is_sent_again_with_the_same_key() -> None:
    async with dropping() as (origin, arrived):
        call = await finished(environment_at(origin), *START, ALL_TRIES_S)
    assert len(arrived) == TRIES
    assert len(set(arrived)) == 1
    assert '"idempotencyKey":"mcp-' in arrived[0]
    assert call.failure.message.endswith(f"({TRIES} attempts)")


async def test_a_write_does_not_fail_because_an_idle_connection_was_closed(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with opened(environment) as gateway:
        for idle_seconds in (0, 3.9, 5.5, 60):
            await pass_time(idle_seconds)
            async with calling(gateway, "posthog-retrieve-task-run", on(POSTHOG_RUNNING)) as read:
                await read.finish(2)
            simulator.drop_connections("posthog")
            async with calling(gateway, *RELAY) as call:
                await call.finish(0)
            assert call.value["status"] == "accepted"
    assert len([line for line in sent(simulator) if line.startswith("POST")]) == 4


async def test_a_start_with_an_unreadable_response_names_its_key(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(202, JSON, '{"id":"trn-1","sta'))
    call = await finished(environment, *START, 0)
    key = json.loads(simulator.requests[-1].body)["idempotencyKey"]
    assert call.failure.retryable
    assert key in call.failure.hint
    assert "body.idempotencyKey" in call.failure.hint


# Streams, waits, commands and uploads


async def test_a_stream_counts_attempts_to_open_and_reconnects_separately(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    for fault in (Fault(503, body="busy"), Fault(503, body="busy"), NO_FAULT, *[Fault(503, body="down")] * 30):
        simulator.fail_next("posthog", fault)
    stream = ("posthog-stream-task-run", on(POSTHOG_RUNNING))
    async with opened(environment) as gateway, calling(gateway, *stream) as call:
        await pass_time(4)
        assert_retries_are_reported(call.lines[:2], 2)
        assert simulator.drop_connections("posthog") == 1
        await call.finish(45)
    streams = [line for line in sent(simulator) if "/stream/" in line]
    assert len(streams) == 3 + MAX_RECONNECTS
    assert call.value["ended"] == "error"


async def test_a_wait_sends_one_request_for_each_read(simulator: Simulator, environment: dict[str, str]) -> None:
    for _ in range(40):
        simulator.fail_next("inngest", Fault(503, body="down"))
    call = await finished(environment, "inngest-wait-for-run", {"runId": INNGEST_RUNNING, "wait_seconds": 300}, 60)
    # Like any other read, the first is tried four times.
    assert sent(simulator) == [READS["inngest"]] * TRIES
    assert call.failure.kind == "unavailable"


async def test_a_wait_continues_after_failed_reads(simulator: Simulator, environment: dict[str, str]) -> None:
    for _ in range(3):
        simulator.fail_next("inngest", Fault(503, body="busy"))
    arguments = {"runId": INNGEST_RUNNING, "wait_seconds": 14}
    async with opened(environment) as gateway, calling(gateway, "inngest-wait-for-run", arguments) as call:
        await call.finish(20)
    assert call.value["timed_out"] is True
    assert len(sent(simulator)) <= 6  # one every three seconds


async def test_a_wait_opens_its_stream_again_after_a_503_and_reads_the_run_meanwhile(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", NO_FAULT)
    simulator.fail_next("render", Fault(503, body="no streams"))
    arguments = {"taskRunId": RENDER_RUNNING, "wait_seconds": 30}
    await finished(environment, "render-wait-for-run", arguments, 40)
    lines = sent(simulator)
    assert lines.count(STREAMS["render"]) == 2
    assert lines.count(READS["render"]) >= 30 // 5  # Render is polled every five seconds


async def test_a_command_may_take_almost_ten_minutes_and_reports_progress(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("posthog", Fault(delay=500))
    async with opened(environment) as gateway, calling(gateway, *COMMAND) as call:
        began = anyio.current_time()
        await pass_time(490)
        await call.finish(20)
    assert call.value["result"] == {"queued": True}
    times = [began, *call.progress_times]
    assert max(later - earlier for earlier, later in pairwise(times)) <= 10


async def test_a_command_has_a_timeout(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("posthog", Fault(delay=1_000))
    async with opened(environment) as gateway, calling(gateway, *COMMAND) as call:
        await pass_time(600)
        await call.finish(15)
    assert call.failure.kind == "timeout"
    assert len(sent(simulator)) == 1


async def test_does_not_retry_an_upload_to_the_storage(simulator: Simulator, environment: dict[str, str]) -> None:
    for fault in (NO_FAULT, PASSING["503"]):
        simulator.fail_next("posthog", fault)
    arguments = on(POSTHOG_RUNNING, artifacts=[{**FILE, "content": "hello"}])
    call = await finished(environment, "posthog-prepare-direct-uploads-task-run", arguments, 5)
    assert call.failure.message == "a.txt was not uploaded: the provider returned 503"
    assert [line.rpartition("/posthog")[2] for line in sent(simulator)].count("/storage/") == 1
