"""Providers that are away, come back, or drop a connection without a word: what reaches them then, and how often."""

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from mcp_taskruns.core.model.json import dump
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from mcp_taskruns.simulator.server import serve
from tests.calls import (
    ALL_TRIES_S,
    INNGEST_RUNNING,
    INNGEST_RUNS,
    NO_FAULT,
    POSTHOG_RUNNING,
    POSTHOG_RUNS,
    READS,
    RENDER_COMPLETED,
    RENDER_RUNNING,
    RENDER_RUNS,
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
from tests.clock import DRIVEN, LoopClock, pass_time

pytestmark = pytest.mark.anyio

MAX_RECONNECTS = 5
"""How often in a row a stream is connected again that brings nothing."""

MAX_FAILURES = 5
"""How often in a row a wait lets a provider fail to say how a run is."""

RUN = {"task_id": TASK, "id": POSTHOG_RUNNING}
START: Arguments = {"body": {"task": "demo-workflow/square", "input": [4]}}
RELAY: tuple[str, Arguments] = ("posthog-relay-run-message-slack", {**RUN, "body": {"text": "hi"}})
TOKEN: tuple[str, Arguments] = ("posthog-get-sandbox-connection-token", RUN)
CANCELS: dict[str, tuple[str, Arguments]] = {
    "render": ("render-cancel-task-run", {"taskRunId": RENDER_RUNNING}),
    "inngest": ("inngest-cancel-function-run", {"runId": INNGEST_RUNNING}),
    "runway": ("runway-cancel-delete-task", {"id": RUNWAY_THROTTLED}),
}


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


@pytest.fixture
def port() -> int:
    """A port on which nothing listens yet."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
    return number


@asynccontextmanager
async def dropping(port: int = 0, answers: Mapping[str, Any] | None = None) -> AsyncIterator[tuple[str, list[str]]]:
    """A provider that answers these methods with these values, and else drops the connection when a request is there.

    Yields its origin and what arrives.
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
                answer = dump((answers or {}).get(method)).encode()
                if answer == b"null":
                    return
                lines = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
                await stream.send(lines.encode() + answer)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve_one)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}", arrived
        tasks.cancel_scope.cancel()


# Nothing was sent to a provider that refused the connection, so that all may be sent when it is there
CALLS: dict[str, tuple[str, Arguments, str]] = {
    "a read": (
        "render-retrieve-task-run",
        {"taskRunId": RENDER_COMPLETED},
        f"GET {RENDER_RUNS}/{RENDER_COMPLETED}",
    ),
    "a start with a key": ("render-run-task", START, f"POST {RENDER_RUNS}"),
    "a GET that mints a token": (*TOKEN, f"GET {POSTHOG_RUNS}/{POSTHOG_RUNNING}/connection_token/"),
    "a POST": (*RELAY, f"POST {POSTHOG_RUNS}/{POSTHOG_RUNNING}/relay_message/"),
    "a PATCH": (
        "posthog-update-task-run",
        {**RUN, "body": {"stage": "x"}},
        f"PATCH {POSTHOG_RUNS}/{POSTHOG_RUNNING}/",
    ),
}


@pytest.mark.parametrize("call", CALLS)
async def test_what_a_provider_that_is_away_was_not_sent_it_is_sent_once_when_it_is_back(
    call: str, simulator: Simulator, port: int
) -> None:
    tool, arguments, line = CALLS[call]
    environment = simulator.environment(f"http://127.0.0.1:{port}")
    async with opened(environment) as gateway, calling(gateway, tool, arguments) as under_way:
        assert "refused the connection; trying again (1 of 3)" in under_way.lines[0]
        async with serve(simulator, port=port):
            await under_way.finish(ALL_TRIES_S)
    assert under_way.error is None
    assert sent(simulator) == [line]


@pytest.mark.parametrize("call", CALLS)
async def test_a_provider_that_stays_away_is_asked_four_times(call: str, simulator: Simulator, port: int) -> None:
    tool, arguments, _ = CALLS[call]
    over = await finished(simulator.environment(f"http://127.0.0.1:{port}"), tool, arguments, ALL_TRIES_S)
    tries = [line for line in over.lines if "trying again" in line]
    assert [f"trying again ({number} of 3)" in line for number, line in enumerate(tries, 1)] == [True] * 3
    assert over.failure.message.endswith(f"refused the connection ({TRIES} tries)")
    assert (over.failure.kind, over.failure.retryable) == ("unavailable", True)


@pytest.mark.parametrize("provider", CANCELS)
async def test_a_cancellation_that_was_not_sent_is_sent_when_the_provider_is_back(
    provider: str, simulator: Simulator, port: int
) -> None:
    tool, arguments = CANCELS[provider]
    told: list[str] = []

    async def tell(line: str) -> None:
        told.append(line)

    async with opened(simulator.environment(f"http://127.0.0.1:{port}")) as gateway, anyio.create_task_group() as tasks:
        # Not through the tool, which reads the run first.
        operation = gateway.tools[tool].operation
        tasks.start_soon(lambda: gateway.exchange.fetch(operation, arguments, tell=tell))
        await pass_time(0)
        assert "refused the connection; trying again (1 of 3)" in told[0]
        async with serve(simulator, port=port):
            await pass_time(ALL_TRIES_S)
    assert [line.partition(" ")[0] for line in sent(simulator)] == ["DELETE"]


async def test_a_write_that_arrived_after_it_was_refused_is_not_sent_again(port: int) -> None:
    environment = Simulator().environment(f"http://127.0.0.1:{port}")
    async with opened(environment) as gateway, calling(gateway, *RELAY) as call:
        assert len(call.lines) == 1
        async with dropping(port) as (_, arrived):
            await call.finish(ALL_TRIES_S)
            await pass_time(10)
    assert len(arrived) == 1
    assert " tries)" in call.failure.message
    assert call.failure.hint.startswith("The request may have been carried out")
    assert not call.failure.retryable


# A connection that is dropped when the request is there leaves open whether that was carried out
DROPPED: dict[str, tuple[str, str, Arguments, str, int]] = {
    "a read": (
        "render",
        "render-retrieve-task-run",
        {"taskRunId": RENDER_RUNNING},
        f"GET {RENDER_RUNS}/{RENDER_RUNNING}",
        TRIES,
    ),
    # Inngest's DELETE changes nothing of a run that has ended: inngest pkg/api/apiv1
    "inngest's cancellation": (
        "inngest",
        *CANCELS["inngest"],
        f"DELETE {INNGEST_RUNS}/{INNGEST_RUNNING}",
        TRIES,
    ),
    # To cancel what has ended is an error: render-oss/cli pkg/workflows/apiserver
    "render's cancellation": ("render", *CANCELS["render"], f"DELETE {RENDER_RUNS}/{RENDER_RUNNING}", 1),
    # DELETE of a task that has ended deletes its output: runwayml 5.24 resources/tasks.py
    "runway's cancellation": ("runway", *CANCELS["runway"], f"DELETE {RUNWAY_TASKS}/{RUNWAY_THROTTLED}", 1),
    # Each mints another token: PostHog products/tasks/backend/api.py (connection_token)
    "posthog's token": ("posthog", *TOKEN, f"GET {POSTHOG_RUNS}/{POSTHOG_RUNNING}/connection_token/", 1),
    # Each is another message: PostHog products/tasks/backend/api.py (relay_message)
    "posthog's message": (
        "posthog",
        *RELAY,
        f'POST {POSTHOG_RUNS}/{POSTHOG_RUNNING}/relay_message/ {{"text":"hi"}}',
        1,
    ),
}
NATIVE = {"render": "running", "inngest": "Running", "runway": "RUNNING"}


@pytest.mark.parametrize("case", DROPPED)
async def test_what_arrived_before_the_connection_was_dropped_is_sent_again_only_if_that_is_safe(case: str) -> None:
    provider, tool, arguments, line, times = DROPPED[case]
    # A cancellation reads first, and that is answered.
    answers = {"GET": run_json(provider, NATIVE[provider])} if line.startswith("DELETE") else {}
    async with dropping(answers=answers) as (origin, arrived):
        call = await finished(Simulator().environment(origin), tool, arguments, ALL_TRIES_S)
        await pass_time(10)
    method = line.partition(" ")[0]
    assert [one for one in arrived if one.startswith(method)] == [line] * times
    assert "broke off" in call.failure.message
    assert call.failure.retryable is (times > 1)


async def test_a_start_whose_connection_is_dropped_is_sent_again_with_the_same_key() -> None:
    async with dropping() as (origin, arrived):
        call = await finished(Simulator().environment(origin), "render-run-task", START, ALL_TRIES_S)
    assert len(arrived) == TRIES
    assert len(set(arrived)) == 1
    assert '"idempotencyKey":"mcp-' in arrived[0]
    assert call.failure.message.endswith(f"({TRIES} tries)")


async def test_what_is_told_in_the_end_is_the_last_failure(simulator: Simulator, environment: dict[str, str]) -> None:
    for fault in (
        Fault(503, body="first"),
        Fault(truncate=True),
        Fault(502, body="third"),
        Fault(429, body="the last"),
    ):
        simulator.fail_next("render", fault)
    call = await finished(environment, "render-retrieve-task-run", {"taskRunId": RENDER_COMPLETED}, ALL_TRIES_S)
    assert call.failure.message == "the provider answered 429: the last (4 tries)"
    assert (call.failure.kind, call.failure.status) == ("rate_limited", 429)
    assert ["503: first" in call.lines[0], "broke off" in call.lines[1], "502: third" in call.lines[2]] == [True] * 3


async def test_a_stream_counts_the_tries_to_open_it_and_to_connect_again_apart(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    for fault in (Fault(503, body="busy"), Fault(503, body="busy"), NO_FAULT, *[Fault(503, body="down")] * 30):
        simulator.fail_next("posthog", fault)
    async with opened(environment) as gateway, calling(gateway, "posthog-stream-task-run", RUN) as call:
        await pass_time(4)
        assert ["(1 of 3)" in call.lines[0], "(2 of 3)" in call.lines[1]] == [True, True]
        assert simulator.drop_connections("posthog") == 1
        await call.finish(45)
    streams = [line for line in sent(simulator) if "/stream/" in line]
    assert len(streams) == 3 + MAX_RECONNECTS
    assert call.value["ended"] == "error"


async def test_a_wait_asks_a_provider_that_is_down_once_for_each_of_its_own_tries(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    for _ in range(40):
        simulator.fail_next("inngest", Fault(503, body="down"))
    call = await finished(environment, "inngest-wait-for-run", {"runId": INNGEST_RUNNING, "wait_seconds": 300}, 60)
    assert sent(simulator) == [READS["inngest"]] * (MAX_FAILURES + 1)
    assert call.failure.kind == "unavailable"


async def test_a_wait_whose_stream_is_refused_reads_the_run_before_it_opens_another(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    for _ in range(10):
        simulator.fail_next("render", NO_FAULT)
        simulator.fail_next("render", Fault(503, body="no streams"))
    arguments = {"taskRunId": RENDER_RUNNING, "wait_seconds": 30}
    await finished(environment, "render-wait-for-run", arguments, 40)
    lines = sent(simulator)
    opened_at = [number for number, line in enumerate(lines) if line == STREAMS["render"]]
    assert len(opened_at) > 1
    assert all(lines[number + 1] == READS["render"] for number in opened_at[:-1])
