"""Rate limits, concurrency slots and holds after 429, on the driven clock. Providers are independent of each other."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from mcp_taskruns.core.model.limits import ALL_REQUESTS, Limits, Rate, RequestKind
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.progress import ignore
from mcp_taskruns.engine.rate_limits import RateLimiter, Slot
from mcp_taskruns.errors import UpstreamError
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from mcp_taskruns.simulator.traffic import RecordedRequest
from tests.calls import (
    INNGEST_COMPLETED,
    NO_FAULT,
    POSTHOG_COMPLETED,
    POSTHOG_RUNNING,
    RENDER_COMPLETED,
    RENDER_RUNNING,
    RUNWAY_SUCCEEDED,
    RUNWAY_THROTTLED,
    TASK,
    WAITS,
    Arguments,
    Call,
    calling,
    opened,
)
from tests.clock import LoopClock, pass_time, settle

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

MINUTE = 60.0
MAX_SILENCE_S = 10
"""Seconds without progress after which a host may give up a call."""

START: tuple[str, Arguments] = ("render-run-task", {"body": {"task": "demo-workflow/slow", "input": []}})
CANCEL: tuple[str, Arguments] = ("render-cancel-task-run", {"taskRunId": RENDER_RUNNING})
RELAY: tuple[str, Arguments] = (
    "posthog-relay-run-message-slack",
    {"task_id": TASK, "id": POSTHOG_RUNNING, "body": {"text": "hi"}},
)
READS: dict[str, tuple[str, Arguments]] = {
    "render": ("render-retrieve-task-run", {"taskRunId": RENDER_COMPLETED}),
    "inngest": ("inngest-get-function-run-status", {"runId": INNGEST_COMPLETED}),
    "posthog": ("posthog-retrieve-task-run", {"task_id": TASK, "id": POSTHOG_COMPLETED}),
    "runway": ("runway-retrieve-task-status-and-output", {"id": RUNWAY_SUCCEEDED}),
}
STREAMS: dict[str, tuple[str, Arguments]] = {
    "render": ("render-stream-realtime-events-sse", {"taskRunIds": [RENDER_RUNNING]}),
    "posthog": ("posthog-stream-task-run", WAITS["posthog"][1]),
}

# 400 reads and 30 writes per minute. Render API reference: Rate limiting
RENDER_READS, RENDER_WRITES = 400, 30
# 480 requests per minute. posthog.com/docs/api: Rate limiting
POSTHOG_CALLS = 480


class TimedSimulator(Simulator):
    """Simulated providers that record when each request arrives."""

    def __init__(self) -> None:
        super().__init__(clock=LoopClock())
        self.times: list[float] = []
        self.traffic.on_request = self._note_time

    def _note_time(self, _: RecordedRequest) -> Fault | None:
        self.times.append(anyio.current_time())
        return None

    def arrival_times(self, prefix: str) -> list[float]:
        """Return when the requests arrived whose method and path start with this prefix."""
        lines = (f"{request.method} {request.path}" for request in self.requests)
        return [at for at, line in zip(self.times, lines, strict=True) if line.startswith(prefix)]


@pytest.fixture
async def simulator() -> TimedSimulator:
    return TimedSimulator()


class Callers:
    """Concurrent calls through one gateway."""

    def __init__(self, gateway: Gateway, tasks: TaskGroup) -> None:
        self.gateway = gateway
        self._tasks = tasks

    def start(self, tool: str, arguments: Arguments, count: int = 1) -> list[Call]:
        calls = [Call() for _ in range(count)]
        for call in calls:
            self._tasks.start_soon(call.run, self.gateway, tool, arguments)
        return calls


@asynccontextmanager
async def concurrent_calls(environment: Mapping[str, str], **flags: object) -> AsyncIterator[Callers]:
    """Open a gateway for concurrent calls; cancel them at the end of the block."""
    async with opened(environment, **flags) as gateway, anyio.create_task_group() as tasks:
        yield Callers(gateway, tasks)
        tasks.cancel_scope.cancel()


async def assert_all_succeed(calls: list[Call]) -> None:
    """Run the calls until all have returned, without any time passing."""
    for _ in range(50):
        if all(call.is_over for call in calls):
            break
        await settle()
    assert all(call.is_over for call in calls), f"{sum(not call.is_over for call in calls)} calls wait"
    assert [call.error for call in calls if call.error] == []


def most_in_a_minute(times: list[float]) -> int:
    """Return the greatest number of requests in any minute."""
    return max(sum(start <= at < start + MINUTE for at in times) for start in times)


@pytest.mark.load
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_writes_are_sent_as_soon_as_the_rate_limit_allows(
    seed: int, simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    random = Random(seed)
    due: list[float] = []
    async with concurrent_calls(environment, timeout=600.0) as callers:
        for _ in range(100):
            await pass_time(random.choice([0, 0, 0, 1, 4]))
            earliest = due[-RENDER_WRITES] + MINUTE if len(due) >= RENDER_WRITES else 0.0
            due.append(max(anyio.current_time(), earliest))
            callers.start(*START)
        await pass_time(due[-1] - anyio.current_time() + 1)
    assert simulator.arrival_times("POST /render") == due
    assert most_in_a_minute(simulator.arrival_times("POST /render")) == RENDER_WRITES


async def test_retries_count_toward_the_rate_limit(simulator: TimedSimulator, environment: dict[str, str]) -> None:
    for number in range(60):
        simulator.fail_next("render", NO_FAULT if number % 4 else Fault(503, body="busy"))
    async with concurrent_calls(environment, timeout=600.0) as callers:
        calls = callers.start(*START, 60)
        await pass_time(190)
        assert [call.error for call in calls] == [None] * 60
    times = simulator.arrival_times("POST /render")
    assert len(times) == 60 + 60 // 4
    assert most_in_a_minute(times) == RENDER_WRITES


async def test_cancellation_reads_at_once_and_reports_that_its_write_waits(
    simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    async with concurrent_calls(environment) as callers:
        await assert_all_succeed(callers.start(*START, RENDER_WRITES))
        await pass_time(10)
        async with calling(callers.gateway, *CANCEL) as call:
            assert len(simulator.arrival_times("GET /render")) == 1
            assert call.lines == ["waiting for render's rate limit: sending in 50 s"]
            await call.finish(50)
    assert simulator.arrival_times("DELETE /render") == [MINUTE]
    assert call.value["status"] == "canceled"
    assert max(later - earlier for earlier, later in pairwise([10, *call.progress_times, MINUTE])) <= MAX_SILENCE_S


@pytest.mark.load
async def test_reads_and_writes_of_render_have_separate_rate_limits(
    simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    async with concurrent_calls(environment) as callers:
        await assert_all_succeed(callers.start(*READS["render"], RENDER_READS))
        await pass_time(5)
        async with calling(callers.gateway, *READS["render"]) as late:
            await assert_all_succeed(callers.start(*START, RENDER_WRITES))
            await late.finish(55)
    assert simulator.arrival_times("GET /render") == [*[0.0] * RENDER_READS, MINUTE]
    assert max(later - earlier for earlier, later in pairwise([5, *late.progress_times, MINUTE])) <= MAX_SILENCE_S
    assert simulator.arrival_times("POST /render") == [5.0] * RENDER_WRITES


@pytest.mark.load
async def test_reads_and_writes_of_posthog_share_a_rate_limit(
    simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    async with concurrent_calls(environment) as callers:
        calls = callers.start(*READS["posthog"], POSTHOG_CALLS // 2)
        await assert_all_succeed([*calls, *callers.start(*RELAY, POSTHOG_CALLS // 2)])
        await pass_time(5)
        async with calling(callers.gateway, *READS["posthog"]) as read, calling(callers.gateway, *RELAY) as write:
            await read.finish(55)
            await write.finish(0)
    assert simulator.times == [*[0.0] * POSTHOG_CALLS, MINUTE, MINUTE]


async def test_rate_limit_of_one_provider_does_not_delay_others(environment: dict[str, str]) -> None:
    async with concurrent_calls(environment) as callers:
        await assert_all_succeed(callers.start(*START, RENDER_WRITES))
        calls = callers.start(*RELAY, RENDER_WRITES)
        calls += callers.start("runway-cancel-delete-task", {"id": RUNWAY_THROTTLED})
        await assert_all_succeed(calls)
        assert anyio.current_time() == 0


async def test_call_that_would_wait_beyond_its_timeout_fails_at_once(
    simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    async with concurrent_calls(environment, timeout=20.0) as callers:
        await assert_all_succeed(callers.start(*START, RENDER_WRITES))
        await pass_time(5)
        async with calling(callers.gateway, *CANCEL) as call:
            await call.finish(0)
        assert anyio.current_time() == 5
    assert (call.failure.kind, call.failure.retryable, call.failure.retry_after_s) == ("rate_limited", True, 55)
    assert call.failure.hint.startswith("Nothing was sent")
    assert simulator.arrival_times("DELETE /render") == []


@pytest.mark.parametrize("delay", [0, 0.5])
async def test_delayed_write_fails_at_once_or_has_time_for_its_response(
    delay: float, simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    async with concurrent_calls(environment) as callers:
        await assert_all_succeed(callers.start(*START, RENDER_WRITES))
        for fault in (NO_FAULT, Fault(delay=1)):  # the read before the cancellation, and the cancellation
            simulator.fail_next("render", fault)
        await pass_time(delay)
        async with calling(callers.gateway, *CANCEL) as call:
            await call.finish(62)
    # The outcome of a write that times out shortly after it was sent would be unknown. The run is read once more.
    assert call.error is None or (call.failure.kind, simulator.arrival_times("DELETE")) == ("rate_limited", [])
    assert call.error is None or (call.ended_at or 0) <= delay + 1


@pytest.mark.parametrize("no_rate_limits", [True, False])
async def test_429_of_a_write_delays_only_writes_to_that_provider(
    no_rate_limits: bool, simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(429, {"Retry-After": "20"}, "slow down"))
    async with (
        concurrent_calls(environment, no_rate_limits=no_rate_limits) as callers,
        calling(callers.gateway, *START) as rejected,
        calling(callers.gateway, *CANCEL) as other,
    ):
        for call in (*READS.values(), RELAY):
            await assert_all_succeed(callers.start(*call))
        assert anyio.current_time() == 0
        await rejected.finish(20)
        await other.finish(0)
    assert simulator.arrival_times("POST /render") == [0, 20]
    assert simulator.arrival_times("DELETE /render") == [20]
    assert other.lines[0] == "waiting for render's rate limit: sending in 20 s"


async def test_429_of_a_stream_delays_streams_and_not_reads(
    simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    stream = ("render-stream-realtime-events-sse", {"taskRunIds": [RENDER_RUNNING], "wait_seconds": 25})
    simulator.fail_next("render", Fault(429, {"Retry-After": "20"}, "too many streams"))
    async with concurrent_calls(environment) as callers, calling(callers.gateway, *stream) as rejected:
        await pass_time(1)
        await assert_all_succeed(callers.start(*READS["render"]))
        assert anyio.current_time() == 1
        async with calling(callers.gateway, *stream) as other:
            await rejected.finish(30)
            await other.finish(30)
    events = "GET /render/v1/task-runs/events"
    assert simulator.arrival_times(events) == [0, 20, 20]
    assert other.lines[0] == "waiting for render's rate limit: sending in 19 s"


async def test_429_of_a_read_delays_streams_too(simulator: TimedSimulator, environment: dict[str, str]) -> None:
    stream = ("render-stream-realtime-events-sse", {"taskRunIds": [RENDER_COMPLETED]})
    simulator.fail_next("render", Fault(429, {"Retry-After": "20"}, "slow down"))
    async with concurrent_calls(environment) as callers, calling(callers.gateway, *READS["render"]):
        await pass_time(1)
        async with calling(callers.gateway, *stream) as following:
            await following.finish(30)
    assert simulator.arrival_times("GET /render/v1/task-runs/events") == [20]


async def test_429_of_a_read_delays_other_reads_by_at_most_a_minute(
    simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(429, {"Retry-After": "300"}, "slow down"))
    async with concurrent_calls(environment) as callers:
        async with calling(callers.gateway, *READS["render"]) as rejected:
            await rejected.finish(0)
        assert rejected.failure.retry_after_s == 300
        await pass_time(10)
        async with calling(callers.gateway, *READS["render"]) as other:
            await assert_all_succeed(callers.start(*START))
            await other.finish(50)
    assert simulator.arrival_times("GET /render") == [0, MINUTE]
    assert simulator.arrival_times("POST /render") == [10]


async def test_shorter_hold_does_not_end_a_longer_one() -> None:
    limiter = RateLimiter("acme", Limits(), has_rates=True)
    limiter.hold(RequestKind.READ, 30)
    limiter.hold(RequestKind.READ, 10)
    await take_token(limiter, at=30)


async def take_token(limiter: RateLimiter, *, at: float) -> list[str]:
    """Take a token, check that it is granted at this time, and return the messages until then."""
    messages: list[str] = []
    granted: list[float] = []

    async def notify(line: str) -> None:
        messages.append(line)

    async def take() -> None:
        await limiter.take_token(RequestKind.READ, deadline=100, notify=notify)
        granted.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        await pass_time(at - anyio.current_time())
    assert granted == [at]
    return messages


async def test_wait_of_less_than_a_second_has_a_complete_message() -> None:
    limiter = RateLimiter("acme", Limits(rates=(Rate(1, 0.5),)), has_rates=True)
    await limiter.take_token(RequestKind.READ, deadline=10, notify=ignore)
    (line,) = await take_token(limiter, at=0.5)
    assert line == "waiting for acme's rate limit: sending in a moment"


async def test_period_begins_with_the_latest_request() -> None:
    limiter = RateLimiter("acme", Limits(rates=(Rate(1, 10.0),)), has_rates=True)
    await take_token(limiter, at=0)
    await pass_time(50)
    for at in (50, 60, 70):
        await take_token(limiter, at=at)


async def test_calls_that_wait_together_during_a_hold_are_sent_one_per_period() -> None:
    limiter = RateLimiter("acme", Limits(rates=(Rate(1, 10.0),)), has_rates=True)
    limiter.hold(RequestKind.READ, 5)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: limiter.take_token(RequestKind.READ, deadline=100, notify=ignore))
        await settle()
        await take_token(limiter, at=15)


async def test_call_cancelled_while_waiting_uses_no_token() -> None:
    limiter = RateLimiter("acme", Limits(rates=(Rate(1, 10.0),)), has_rates=True)
    await limiter.take_token(RequestKind.READ, deadline=10, notify=ignore)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(lambda: limiter.take_token(RequestKind.READ, deadline=100, notify=ignore))
        await settle()
        tasks.cancel_scope.cancel()
    await take_token(limiter, at=10)


async def test_waiting_call_moves_up_when_an_earlier_one_leaves() -> None:
    limiter = RateLimiter("acme", Limits(rates=(Rate(1, 7.0),)), has_rates=True)
    await limiter.take_token(RequestKind.READ, deadline=10, notify=ignore)

    async def give_up() -> None:
        with anyio.move_on_after(5):
            await limiter.take_token(RequestKind.READ, deadline=100, notify=ignore)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(give_up)
        await settle()
        await take_token(limiter, at=7)


async def test_call_that_would_wait_too_long_fails_at_once_with_its_retry_after() -> None:
    limiter = RateLimiter("acme", Limits(rates=(Rate(2, 10.0),)), has_rates=True)
    await limiter.take_token(RequestKind.READ, deadline=10, notify=ignore)
    await pass_time(4)
    await limiter.take_token(RequestKind.READ, deadline=10, notify=ignore)
    async with anyio.create_task_group() as tasks:
        # Tokens were taken at 0 and 4, so the next ones are available at 10, 14, 20, 24, 30...
        for waiting, available_at in enumerate((10, 14, 20, 24, 30)):
            with pytest.raises(UpstreamError, match="acme's rate limit allows no more calls") as exc_info:
                await limiter.take_token(RequestKind.READ, deadline=available_at, notify=ignore)
            assert (waiting, exc_info.value.retry_after_s) == (waiting, available_at - 4)
            tasks.start_soon(lambda: limiter.take_token(RequestKind.READ, deadline=100, notify=ignore))
            await settle()
        assert anyio.current_time() == 4
        tasks.cancel_scope.cancel()


async def test_hold_beyond_the_deadline_fails_a_call_that_already_waits() -> None:
    limiter = RateLimiter("acme", Limits(rates=(Rate(1, 10.0),)), has_rates=True)
    await limiter.take_token(RequestKind.READ, deadline=10, notify=ignore)
    failures: list[tuple[float, UpstreamError]] = []

    async def take_and_fail() -> None:
        with pytest.raises(UpstreamError, match="acme's rate limit allows no more calls of this kind") as exc_info:
            await limiter.take_token(RequestKind.READ, deadline=30, notify=ignore)
        failures.append((anyio.current_time(), exc_info.value))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take_and_fail)
        await pass_time(2)
        limiter.hold(RequestKind.READ, 38)
        await pass_time(8)
    ((at, failure),) = failures
    assert failure.retry_after_s == 40 - at
    assert failure.hint.startswith("Nothing was sent")


async def test_call_cancelled_while_waiting_uses_no_slot() -> None:
    limiter = RateLimiter("acme", Limits(max_concurrent_requests=1), has_rates=True)
    entered = 0

    async def enter() -> None:
        nonlocal entered
        async with limiter.slot(Slot.REQUEST, deadline=100, notify=ignore):
            entered += 1

    async with limiter.slot(Slot.REQUEST, deadline=100, notify=ignore):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(enter)
            await settle()
            tasks.cancel_scope.cancel()
        assert entered == 0
    await enter()
    await enter()


async def test_wait_for_a_slot_ends_at_the_deadline() -> None:
    limiter = RateLimiter("acme", Limits(max_concurrent_requests=1), has_rates=True)
    ended_at: list[float] = []

    async def enter() -> None:
        with pytest.raises(UpstreamError, match="too many calls to acme") as exc_info:
            async with limiter.slot(Slot.REQUEST, deadline=7, notify=ignore):
                raise AssertionError("two calls had the slot")
        assert (exc_info.value.kind, exc_info.value.hint[:16]) == ("rate_limited", "Nothing was sent")
        ended_at.append(anyio.current_time())

    async with limiter.slot(Slot.REQUEST, deadline=100, notify=ignore), anyio.create_task_group() as tasks:
        tasks.start_soon(enter)
        await pass_time(8)
    assert ended_at == [7]


async def test_slots_are_released_when_calls_time_out(simulator: TimedSimulator, environment: dict[str, str]) -> None:
    for _ in range(100):
        simulator.fail_next("posthog", Fault(delay=1_000))
    async with concurrent_calls(environment) as callers:
        hanging = callers.start(*READS["posthog"], 100)
        await pass_time(10)
        async with calling(callers.gateway, *READS["posthog"]) as late:
            assert late.lines == ["waiting for posthog: too many calls are in flight"]
            await late.finish(50)
        assert {call.failure.kind for call in hanging} == {"timeout"}
    assert simulator.times == [*[0.0] * 100, MINUTE]
    assert late.value["id"] == POSTHOG_COMPLETED


@pytest.mark.load
@pytest.mark.parametrize("provider", STREAMS)
async def test_hanging_streams_and_calls_at_a_provider_do_not_delay_others(
    provider: str, simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    # Without rate limits, because 300 streams and the reads of their runs exceed the limit of a minute.
    async with concurrent_calls(environment, no_rate_limits=True) as callers:
        callers.start(*STREAMS[provider], 300)
        for _ in range(50):
            await settle()
            if simulator.traffic.open_connections(provider) == 300:
                break
        await assert_all_succeed(callers.start(*READS[provider], 5))  # streams leave slots for reads
        for _ in range(100):
            simulator.fail_next(provider, Fault(delay=1_000))
        hanging = callers.start(*READS[provider], 100)
        for _ in range(50):
            await settle()
            if simulator.traffic.open_connections(provider) == 400:
                break
        assert simulator.traffic.open_connections(provider) == 400
        for other in READS.keys() - {provider}:
            await assert_all_succeed(callers.start(*READS[other], 10))
        assert not any(call.is_over for call in hanging)
        assert anyio.current_time() == 0


@pytest.mark.parametrize("slot", [Slot.STREAM, Slot.REQUEST], ids=str)
async def test_slot_is_released_after_an_error_a_cancellation_or_a_timeout(
    slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_taskruns.engine.rate_limits.MAX_STREAMS", 1)
    limiter = RateLimiter("acme", Limits(max_concurrent_requests=1), has_rates=True)
    messages: list[str] = []

    async def notify(line: str) -> None:
        messages.append(line)

    async def enter(seconds: float) -> None:
        deadline = anyio.current_time() + seconds
        async with limiter.slot(slot, deadline=deadline, notify=notify):
            pass

    for failing in (ValueError, None):
        with anyio.CancelScope() as scope:
            try:
                async with limiter.slot(slot, deadline=anyio.current_time() + 1, notify=notify):
                    if failing:
                        raise failing
                    scope.cancel()
                    await anyio.sleep_forever()
            except ValueError:
                pass
        await enter(1)
    assert messages == []
    async with (
        limiter.slot(slot, deadline=anyio.current_time() + 1, notify=notify),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(pass_time, 6)
        with pytest.raises(UpstreamError, match="too many calls to acme are in flight") as exc_info:
            await enter(5)
    assert messages == ["waiting for acme: too many calls are in flight"]
    assert (exc_info.value.kind, exc_info.value.retryable) == ("rate_limited", True)


async def test_waiting_call_takes_the_next_free_slot() -> None:
    limiter = RateLimiter("acme", Limits(max_concurrent_requests=2), has_rates=True)
    entered: list[int] = []
    may_leave = anyio.Event()

    async def enter(number: int) -> None:
        async with limiter.slot(Slot.REQUEST, deadline=anyio.current_time() + 60, notify=ignore):
            entered.append(number)
            await may_leave.wait()

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(enter, number)
        await settle()
        assert entered == [0, 1]
        may_leave.set()
    assert entered == [0, 1, 2]


@pytest.mark.parametrize(
    ("prefix", "rates"),
    [
        # Render API reference: Rate limiting
        ("render", {(400, 60, frozenset({RequestKind.READ})), (30, 60, frozenset({RequestKind.WRITE}))}),
        # posthog.com/docs/api: Rate limiting
        ("posthog", {(480, 60, ALL_REQUESTS), (4800, 3600, ALL_REQUESTS)}),
        ("inngest", set()),
        ("runway", set()),
    ],
)
def test_rate_limits_are_those_that_the_providers_publish(prefix: str, rates: set[Any]) -> None:
    for tool in load_tools(()):
        if tool.prefix == prefix:
            limits = tool.operation.limits
            assert {(rate.requests, rate.per_seconds, rate.kinds) for rate in limits.rates} == rates
