"""Rates, places and holds to the second, on a clock that stands still; no provider's troubles are another's."""

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
HOST_PATIENCE_S = 10
"""What is silent for longer may be given up by its host."""

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

# 400 reads and 30 writes a minute. Render API reference: Rate limiting
RENDER_READS, RENDER_WRITES = 400, 30
# 480 requests a minute. posthog.com/docs/api: Rate limiting
POSTHOG_CALLS = 480


class TimedSimulator(Simulator):
    """Simulated providers that note when each request arrives."""

    def __init__(self) -> None:
        super().__init__(clock=LoopClock())
        self.times: list[float] = []
        self.traffic.on_request = self._note_time

    def _note_time(self, _: RecordedRequest) -> Fault | None:
        self.times.append(anyio.current_time())
        return None

    def arrived(self, begins: str) -> list[float]:
        """When the requests arrived that begin so: with a method and a path."""
        lines = (f"{request.method} {request.path}" for request in self.requests)
        return [at for at, line in zip(self.times, lines, strict=True) if line.startswith(begins)]


@pytest.fixture
async def simulator() -> TimedSimulator:
    return TimedSimulator()


class Crowd:
    """Calls of one gateway, side by side."""

    def __init__(self, gateway: Gateway, tasks: TaskGroup) -> None:
        self.gateway = gateway
        self._tasks = tasks

    def begin(self, tool: str, arguments: Arguments, count: int = 1) -> list[Call]:
        calls = [Call() for _ in range(count)]
        for call in calls:
            self._tasks.start_soon(call.run, self.gateway, tool, arguments)
        return calls


@asynccontextmanager
async def crowded(environment: Mapping[str, str], **flags: object) -> AsyncIterator[Crowd]:
    """A gateway and calls of it, which are cut off at the end of the block."""
    async with opened(environment, **flags) as gateway, anyio.create_task_group() as tasks:
        yield Crowd(gateway, tasks)
        tasks.cancel_scope.cancel()


async def answered(calls: list[Call]) -> None:
    """Let the calls end well, which they do without that time passes."""
    for _ in range(50):
        if all(call.is_over for call in calls):
            break
        await settle()
    assert all(call.is_over for call in calls), f"{sum(not call.is_over for call in calls)} calls wait"
    assert [call.error for call in calls if call.error] == []


def most_in_a_minute(times: list[float]) -> int:
    return max(sum(start <= at < start + MINUTE for at in times) for start in times)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_each_write_is_sent_as_soon_as_the_minute_before_allows(
    seed: int, simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    pauses = Random(seed)
    due: list[float] = []
    async with crowded(environment, timeout=600.0) as crowd:
        for _ in range(100):
            await pass_time(pauses.choice([0, 0, 0, 1, 4]))
            earliest = due[-RENDER_WRITES] + MINUTE if len(due) >= RENDER_WRITES else 0.0
            due.append(max(anyio.current_time(), earliest))
            crowd.begin(*START)
        await pass_time(due[-1] - anyio.current_time() + 1)
    assert simulator.arrived("POST /render") == due
    assert most_in_a_minute(simulator.arrived("POST /render")) == RENDER_WRITES


async def test_what_is_sent_again_counts_as_well(simulator: TimedSimulator, environment: dict[str, str]) -> None:
    for number in range(60):
        simulator.fail_next("render", NO_FAULT if number % 4 else Fault(503, body="busy"))
    async with crowded(environment, timeout=600.0) as crowd:
        calls = crowd.begin(*START, 60)
        await pass_time(190)
        assert [call.error for call in calls] == [None] * 60
    times = simulator.arrived("POST /render")
    assert len(times) == 60 + 60 // 4
    assert most_in_a_minute(times) == RENDER_WRITES


async def test_a_cancellation_reads_at_once_and_waits_for_its_write_and_says_so(
    simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    async with crowded(environment) as crowd:
        await answered(crowd.begin(*START, RENDER_WRITES))
        await pass_time(10)
        async with calling(crowd.gateway, *CANCEL) as call:
            assert len(simulator.arrived("GET /render")) == 1
            assert call.lines == ["waiting for render's rate limit: sending in 50 s"]
            await call.finish(50)
    assert simulator.arrived("DELETE /render") == [MINUTE]
    assert call.value["status"] == "canceled"
    assert max(later - earlier for earlier, later in pairwise([10, *call.progress_times, MINUTE])) <= HOST_PATIENCE_S


async def test_reads_have_a_rate_of_their_own_and_it_counts_them_too(
    simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    async with crowded(environment) as crowd:
        await answered(crowd.begin(*READS["render"], RENDER_READS))
        await pass_time(5)
        async with calling(crowd.gateway, *READS["render"]) as late:
            await answered(crowd.begin(*START, RENDER_WRITES))
            await late.finish(55)
    assert simulator.arrived("GET /render") == [*[0.0] * RENDER_READS, MINUTE]
    assert max(later - earlier for earlier, later in pairwise([5, *late.progress_times, MINUTE])) <= HOST_PATIENCE_S
    assert simulator.arrived("POST /render") == [5.0] * RENDER_WRITES


async def test_posthog_counts_reads_and_writes_together(simulator: TimedSimulator, environment: dict[str, str]) -> None:
    async with crowded(environment) as crowd:
        calls = crowd.begin(*READS["posthog"], POSTHOG_CALLS // 2)
        await answered([*calls, *crowd.begin(*RELAY, POSTHOG_CALLS // 2)])
        await pass_time(5)
        async with calling(crowd.gateway, *READS["posthog"]) as read, calling(crowd.gateway, *RELAY) as write:
            await read.finish(55)
            await write.finish(0)
    assert simulator.times == [*[0.0] * POSTHOG_CALLS, MINUTE, MINUTE]


async def test_the_rate_of_one_provider_holds_up_no_other(environment: dict[str, str]) -> None:
    async with crowded(environment) as crowd:
        await answered(crowd.begin(*START, RENDER_WRITES))
        calls = crowd.begin(*RELAY, RENDER_WRITES)
        calls += crowd.begin("runway-cancel-delete-task", {"id": RUNWAY_THROTTLED})
        await answered(calls)
        assert anyio.current_time() == 0


async def test_a_turn_that_comes_after_the_time_of_the_call_is_refused_at_once(
    simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    async with crowded(environment, timeout=20.0) as crowd:
        await answered(crowd.begin(*START, RENDER_WRITES))
        await pass_time(5)
        async with calling(crowd.gateway, *CANCEL) as call:
            await call.finish(0)
        assert anyio.current_time() == 5
    assert (call.failure.kind, call.failure.retryable, call.failure.retry_after_s) == ("rate_limited", True, 55)
    assert call.failure.hint.startswith("Nothing was sent")
    assert simulator.arrived("DELETE /render") == []


@pytest.mark.parametrize("after", [0, 0.5])
async def test_a_call_whose_turn_comes_late_is_refused_or_has_time_for_its_answer(
    after: float, simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    async with crowded(environment) as crowd:
        await answered(crowd.begin(*START, RENDER_WRITES))
        for fault in (NO_FAULT, Fault(delay=1)):  # the reading before the cancellation, and the cancellation
            simulator.fail_next("render", fault)
        await pass_time(after)
        async with calling(crowd.gateway, *CANCEL) as call:
            await call.finish(62)
    # Nobody would know what became of a write that was sent and given up a moment later.
    assert call.error is None or (call.failure.kind, simulator.arrived("DELETE")) == ("rate_limited", [])
    assert call.error is None or call.ended_at == after


@pytest.mark.parametrize("no_rate_limits", [True, False])
async def test_a_refused_write_holds_up_other_writes_there_and_nothing_else(
    no_rate_limits: bool, simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(429, {"Retry-After": "20"}, "slow down"))
    async with (
        crowded(environment, no_rate_limits=no_rate_limits) as crowd,
        calling(crowd.gateway, *START) as refused,
        calling(crowd.gateway, *CANCEL) as other,
    ):
        for call in (*READS.values(), RELAY):
            await answered(crowd.begin(*call))
        assert anyio.current_time() == 0
        await refused.finish(20)
        await other.finish(0)
    assert simulator.arrived("POST /render") == [0, 20]
    assert simulator.arrived("DELETE /render") == [20]
    assert other.lines[0] == "waiting for render's rate limit: sending in 20 s"


async def test_a_refused_read_holds_up_other_reads_there_for_a_minute_at_most(
    simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(429, {"Retry-After": "300"}, "slow down"))
    async with crowded(environment) as crowd:
        async with calling(crowd.gateway, *READS["render"]) as refused:
            await refused.finish(0)
        assert refused.failure.retry_after_s == 300
        await pass_time(10)
        async with calling(crowd.gateway, *READS["render"]) as other:
            await answered(crowd.begin(*START))
            await other.finish(50)
    assert simulator.arrived("GET /render") == [0, MINUTE]
    assert simulator.arrived("POST /render") == [10]


async def test_a_shorter_hold_does_not_end_a_longer_one() -> None:
    limiter = RateLimiter("acme", Limits(), has_rates=True)
    limiter.hold(RequestKind.READ, 30)
    limiter.hold(RequestKind.READ, 10)
    await taking(limiter, at=30)


async def taking(limiter: RateLimiter, *, at: float) -> list[str]:
    """Take a turn, which comes at that moment; what was told meanwhile."""
    told: list[str] = []
    came: list[float] = []

    async def notify(line: str) -> None:
        told.append(line)

    async def take() -> None:
        await limiter.take_token(RequestKind.READ, deadline=100, notify=notify)
        came.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        await pass_time(at - anyio.current_time())
    assert came == [at]
    return told


async def test_a_wait_of_less_than_a_second_is_told_in_a_whole_sentence() -> None:
    limiter = RateLimiter("acme", Limits(rates=(Rate(1, 0.5),)), has_rates=True)
    await limiter.take_token(RequestKind.READ, deadline=10, notify=ignore)
    (line,) = await taking(limiter, at=0.5)
    assert line == "waiting for acme's rate limit: sending in a moment"


async def test_who_is_cancelled_while_waiting_for_a_turn_takes_none_from_the_others() -> None:
    limiter = RateLimiter("acme", Limits(rates=(Rate(1, 10.0),)), has_rates=True)
    await limiter.take_token(RequestKind.READ, deadline=10, notify=ignore)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(lambda: limiter.take_token(RequestKind.READ, deadline=100, notify=ignore))
        await settle()
        tasks.cancel_scope.cancel()
    await taking(limiter, at=10)


async def test_who_waits_for_a_turn_comes_earlier_when_one_before_it_leaves() -> None:
    limiter = RateLimiter("acme", Limits(rates=(Rate(1, 7.0),)), has_rates=True)
    await limiter.take_token(RequestKind.READ, deadline=10, notify=ignore)

    async def leave() -> None:
        with anyio.move_on_after(5):
            await limiter.take_token(RequestKind.READ, deadline=100, notify=ignore)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        await settle()
        await taking(limiter, at=7)


async def test_who_would_wait_too_long_behind_others_is_refused_at_once_and_told_when_its_turn_is() -> None:
    limiter = RateLimiter("acme", Limits(rates=(Rate(2, 10.0),)), has_rates=True)
    await limiter.take_token(RequestKind.READ, deadline=10, notify=ignore)
    await pass_time(4)
    await limiter.take_token(RequestKind.READ, deadline=10, notify=ignore)
    async with anyio.create_task_group() as tasks:
        # The tokens were taken at 0 and 4, so the turns come at 10, 14, 20, 24, 30...
        for ahead, turn in enumerate((10, 14, 20, 24, 30)):
            with pytest.raises(UpstreamError, match="acme's rate limit allows no more calls") as caught:
                await limiter.take_token(RequestKind.READ, deadline=turn, notify=ignore)
            assert (ahead, caught.value.retry_after_s) == (ahead, turn - 4)
            tasks.start_soon(lambda: limiter.take_token(RequestKind.READ, deadline=100, notify=ignore))
            await settle()
        assert anyio.current_time() == 4
        tasks.cancel_scope.cancel()


async def test_a_hold_is_for_those_who_wait_already_and_refuses_whose_time_it_outlasts() -> None:
    limiter = RateLimiter("acme", Limits(rates=(Rate(1, 10.0),)), has_rates=True)
    await limiter.take_token(RequestKind.READ, deadline=10, notify=ignore)
    refused: list[tuple[float, UpstreamError]] = []

    async def be_refused() -> None:
        with pytest.raises(UpstreamError, match="acme's rate limit allows no more calls of this kind") as caught:
            await limiter.take_token(RequestKind.READ, deadline=30, notify=ignore)
        refused.append((anyio.current_time(), caught.value))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(be_refused)
        await pass_time(2)
        limiter.hold(RequestKind.READ, 38)
        await pass_time(8)
    ((at, failure),) = refused
    assert failure.retry_after_s == 40 - at
    assert failure.hint.startswith("Nothing was sent")


async def test_who_is_cancelled_while_waiting_for_a_place_takes_none_from_the_others() -> None:
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


async def test_waiting_for_a_place_ends_with_the_time_of_the_call() -> None:
    limiter = RateLimiter("acme", Limits(max_concurrent_requests=1), has_rates=True)
    ended_at: list[float] = []

    async def enter() -> None:
        with pytest.raises(UpstreamError, match="too many calls to acme") as caught:
            async with limiter.slot(Slot.REQUEST, deadline=7, notify=ignore):
                raise AssertionError("there were two at once")
        assert (caught.value.kind, caught.value.hint[:16]) == ("rate_limited", "Nothing was sent")
        ended_at.append(anyio.current_time())

    async with limiter.slot(Slot.REQUEST, deadline=100, notify=ignore), anyio.create_task_group() as tasks:
        tasks.start_soon(enter)
        await pass_time(8)
    assert ended_at == [7]


async def test_places_come_back_when_calls_time_out_and_the_next_one_says_that_it_waits(
    simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    for _ in range(100):
        simulator.fail_next("posthog", Fault(delay=1_000))
    async with crowded(environment) as crowd:
        hanging = crowd.begin(*READS["posthog"], 100)
        await pass_time(10)
        async with calling(crowd.gateway, *READS["posthog"]) as late:
            assert late.lines == ["waiting for posthog: too many calls are in flight"]
            await late.finish(50)
        assert {call.failure.kind for call in hanging} == {"timeout"}
    assert simulator.times == [*[0.0] * 100, MINUTE]
    assert late.value["id"] == POSTHOG_COMPLETED


@pytest.mark.parametrize("provider", STREAMS)
async def test_streams_and_calls_that_hang_at_a_provider_hold_up_nobody_else(
    provider: str, simulator: TimedSimulator, environment: dict[str, str]
) -> None:
    # Streams are reads too, and following one reads its run: more than a minute allows.
    async with crowded(environment, no_rate_limits=True) as crowd:
        crowd.begin(*STREAMS[provider], 300)
        for _ in range(50):
            await settle()
            if simulator.traffic.open_connections(provider) == 300:
                break
        await answered(crowd.begin(*READS[provider], 5))  # streams leave room for asking how a run is
        for _ in range(100):
            simulator.fail_next(provider, Fault(delay=1_000))
        hanging = crowd.begin(*READS[provider], 100)
        for _ in range(50):
            await settle()
            if simulator.traffic.open_connections(provider) == 400:
                break
        assert simulator.traffic.open_connections(provider) == 400
        for other in READS.keys() - {provider}:
            await answered(crowd.begin(*READS[other], 10))
        assert not any(call.is_over for call in hanging)
        assert anyio.current_time() == 0


@pytest.mark.parametrize("slot", [Slot.STREAM, Slot.REQUEST], ids=str)
async def test_a_place_is_given_back_by_whoever_leaves(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_taskruns.engine.rate_limits.MAX_STREAMS", 1)
    limiter = RateLimiter("acme", Limits(max_concurrent_requests=1), has_rates=True)
    told: list[str] = []

    async def notify(line: str) -> None:
        told.append(line)

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
    assert told == []
    async with (
        limiter.slot(slot, deadline=anyio.current_time() + 1, notify=notify),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(pass_time, 6)
        with pytest.raises(UpstreamError, match="too many calls to acme are in flight") as caught:
            await enter(5)
    assert told == ["waiting for acme: too many calls are in flight"]
    assert (caught.value.kind, caught.value.retryable) == ("rate_limited", True)


async def test_who_waits_for_a_place_gets_it_when_one_is_free() -> None:
    limiter = RateLimiter("acme", Limits(max_concurrent_requests=2), has_rates=True)
    entered: list[int] = []
    leave = anyio.Event()

    async def enter(number: int) -> None:
        async with limiter.slot(Slot.REQUEST, deadline=anyio.current_time() + 60, notify=ignore):
            entered.append(number)
            await leave.wait()

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(enter, number)
        await settle()
        assert entered == [0, 1]
        leave.set()
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
def test_the_rates_are_those_that_the_providers_publish(prefix: str, rates: set[Any]) -> None:
    for tool in load_tools(()):
        if tool.prefix == prefix:
            limits = tool.operation.limits
            assert {(rate.requests, rate.per_seconds, rate.kinds) for rate in limits.rates} == rates
