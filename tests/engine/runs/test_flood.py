"""Event streams at full speed: bounded memory, pooled progress and slow clients."""

import tracemalloc

import anyio
import pytest

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.engine.progress import Progress
from tests.clients import open_gateway
from tests.clock import pass_time, settle
from tests.engine.runs.scripted import (
    IDS,
    POSTHOG,
    Call,
    Connection,
    count_events,
    follow,
    log_events,
    numbers_of,
    scripted_provider,
    send_and_hold,
)
from tests.timing import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock, pytest.mark.load]


class Flood:
    """A script that sends this many events as fast as the client reads them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.sent = 0

    async def __call__(self, connection: Connection) -> None:
        await connection.open()
        await self.send(connection)
        await connection.end()

    async def send(self, connection: Connection) -> None:
        while self.sent < self.count:
            step = min(100, self.count - self.sent)
            await connection.send(log_events(step, first=self.sent + 1))
            self.sent += step


class TracedFlood(Flood):
    """A flood that measures the memory used by the last four fifths of its events."""

    growth = peak = 0

    async def __call__(self, connection: Connection) -> None:
        count, self.count = self.count, self.count // 5
        await connection.open()
        await self.send(connection)
        self.count = count
        tracemalloc.start()
        await self.send(connection)
        self.growth, self.peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        await connection.end()


async def test_memory_stays_flat_at_full_speed() -> None:
    flood = TracedFlood(25_000)  # test_long_streams.py does the same over stdio and HTTP
    async with scripted_provider(flood) as posthog:
        call = Call(open_gateway(posthog.environment, stream_events=1_000_000))
        with anyio.fail_after(PATIENCE):
            await call.run(POSTHOG, {**IDS, "wait_seconds": 500})
        await call.gateway.aclose()
    assert call.value["ended"] == "terminal"
    assert "of 25,000 events" in call.outcome.notes[-1]
    assert count_events(call.lines) == 25_000
    # 20,000 events are 4 MB as text and more than 20 MB as objects; up to 2 MB are in the buffers of the sockets.
    assert flood.growth < 3_000_000
    assert flood.peak < 5_000_000


async def test_result_contains_every_event_up_to_the_limit_at_full_speed() -> None:
    async with scripted_provider(Flood(5_000)) as posthog:
        call = await follow(posthog.environment, stream_events=5_000, max_result_chars=5_000_000)
    assert numbers_of(call.ids) == list(range(1, 5_001))
    assert count_events(call.lines) == 5_000
    assert len(call.progress) < 1_000


async def test_slow_client_blocks_the_provider() -> None:
    flood = Flood(500_000)
    client_reads = anyio.Event()
    received: list[Progress] = []

    async def report(progress: Progress) -> None:
        await client_reads.wait()
        received.append(progress)

    async with scripted_provider(flood) as posthog:
        gateway = open_gateway(posthog.environment, stream_events=2_000)
        outcomes: list[CallResult] = []

        async def call() -> None:
            outcomes.append(await gateway.call(POSTHOG, IDS, report))

        tracemalloc.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await posthog.wait_for_stream(1)
            sent = -1
            while sent != flood.sent:
                sent = flood.sent
                await settle()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert 0 < sent < 250_000  # what fits into the buffers of the system
            assert peak < 20_000_000
            assert received == []
            client_reads.set()
        await gateway.aclose()
    assert outcomes[0].value["ended"] == "event_limit"
    assert count_events(progress.message for progress in received) == 2_000


async def test_call_ends_although_the_client_never_reads() -> None:
    async def report(_: Progress) -> None:
        await anyio.sleep_forever()

    async with scripted_provider(send_and_hold(log_events(300))) as posthog:
        gateway = open_gateway(posthog.environment)
        outcomes: list[CallResult] = []

        async def call() -> None:
            outcomes.append(await gateway.call(POSTHOG, IDS, report))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await posthog.wait_for_stream(1)
            await pass_time(45)
            await pass_time(2)
            assert outcomes
        await gateway.aclose()
    assert outcomes[0].value["ended"] == "wait_over"
    assert outcomes[0].value["resume"]["Last-Event-ID"] == outcomes[0].value["events"][-1]["id"]
