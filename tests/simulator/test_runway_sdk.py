"""Runway's official SDK (runwayml 5.24.0), sync and async, takes the simulator for Runway.

When it tries again, how long it waits before that, and how it polls stands in its _base_client.py and lib/polling.py.
What it sleeps passes on the simulator's clock, and no other time does.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from runwayml import (
    APIConnectionError,
    APIStatusError,
    AsyncRunwayML,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
    RunwayML,
    TaskFailedError,
)
from runwayml.lib.polling import TaskTimeoutError

from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from mcp_taskruns.simulator.lifecycle import ManualClock

pytestmark = pytest.mark.anyio

DEMO, SUCCEEDED, FAILED, THROTTLED, CANCELLED = (f"{n}7f20503-6c24-4c16-946b-35dbbce2af2f" for n in (1, 2, 3, 4, 5))
UNKNOWN = "97f20503-6c24-4c16-946b-35dbbce2af2f"
KINDS = ("sync", "async")


class SDK:
    """The sync or the async client, both called in the same way."""

    def __init__(self, official: RunwayML | AsyncRunwayML) -> None:
        self._is_async = isinstance(official, AsyncRunwayML)
        self._tasks: Any = official.tasks

    async def _call(self, function: Any, *args: Any, **named: Any) -> Any:
        if self._is_async:
            return await function(*args, **named)
        return await anyio.to_thread.run_sync(partial(function, *args, **named), abandon_on_cancel=True)

    async def retrieve(self, task: str) -> Any:
        return await self._call(self._tasks.retrieve, task)

    async def delete(self, task: str) -> None:
        assert await self._call(self._tasks.delete, task) is None

    async def wait(self, task: Any, **named: Any) -> Any:
        return await self._call(task.wait_for_task_output, **named)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> list[float]:
    """How long the SDK sleeps, instead of sleeping: the clock moves on by as much."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    async def async_sleep(seconds: float) -> None:
        sleep(seconds)

    def sleep_in_thread(seconds: float) -> None:
        anyio.from_thread.run_sync(sleep, seconds)

    time = SimpleNamespace(sleep=sleep_in_thread, time=clock.now)
    for module in ("runwayml._base_client", "runwayml.lib.polling"):
        monkeypatch.setattr(f"{module}.time", time)
        monkeypatch.setattr(f"{module}.anyio", SimpleNamespace(sleep=async_sleep, current_time=clock.now))
    return slept


@asynccontextmanager
async def opened(kind: str, origin: str, api_key: str = "key_x", **options: Any) -> AsyncIterator[SDK]:
    # Otherwise an answer of another shape than documented is taken as it is.
    options = {"base_url": f"{origin}/runway", "api_key": api_key, "_strict_response_validation": True, **options}
    with anyio.fail_after(10):
        if kind == "sync":
            with RunwayML(**options) as sync_client:
                yield SDK(sync_client)
        else:
            async with AsyncRunwayML(**options) as async_client:
                yield SDK(async_client)


@pytest.fixture(params=KINDS)
async def sdk(request: pytest.FixtureRequest, origin: str, naps: list[float]) -> AsyncIterator[SDK]:
    async with opened(request.param, origin) as sdk:
        yield sdk


def sent(simulator: Simulator, header: str) -> list[str | None]:
    return [dict(request.headers).get(header) for request in simulator.requests]


# Reading and deleting


async def test_the_sdk_reads_a_task_in_every_status(sdk: SDK, clock: ManualClock) -> None:
    seen = []
    for seconds in (0, 2, 2, 8, 8):
        clock.advance(seconds)
        seen.append(await sdk.retrieve(DEMO))
    assert [task.status for task in seen] == ["THROTTLED", "PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]
    assert [task.progress for task in seen[2:4]] == [0.0, 0.5]
    assert [task.estimated_cost.credits for task in seen[:4]] == [25, 25, 25, 25]
    assert (seen[4].cost.credits, len(seen[4].output)) == (25, 1)
    assert {task.id for task in seen} == {DEMO}
    assert len({task.created_at for task in seen}) == 1
    failed, cancelled = await sdk.retrieve(FAILED), await sdk.retrieve(CANCELLED)
    assert (failed.status, failed.failure, failed.cost.credits) == ("FAILED", "An unexpected error occurred.", 0)
    assert failed.failure_code == "INTERNAL.BAD_OUTPUT.CODE01"
    assert (cancelled.status, cancelled.cost.credits) == ("CANCELLED", 0)


async def test_the_sdk_gets_fresh_urls_with_every_reading(sdk: SDK) -> None:
    assert len({(await sdk.retrieve(SUCCEEDED)).output[0] for _ in range(3)}) == 3


@pytest.mark.parametrize("task", [THROTTLED, SUCCEEDED])
async def test_the_sdk_cancels_or_deletes_a_task_once(sdk: SDK, simulator: Simulator, task: str) -> None:
    await sdk.delete(task)
    for refused in (sdk.retrieve, sdk.delete):
        with pytest.raises(NotFoundError) as caught:
            await refused(task)
        assert caught.value.body == {"error": "Could not find a task with that ID"}
    assert [request.method for request in simulator.requests] == ["DELETE", "GET", "DELETE"]
    assert sent(simulator, "accept") == ["*/*", "application/json", "*/*"]


async def test_the_sdk_asks_as_this_version_of_the_api_wants_to_be_asked(sdk: SDK, simulator: Simulator) -> None:
    await sdk.retrieve(SUCCEEDED)
    (request,) = simulator.requests
    headers = dict(request.headers)
    assert (request.method, request.path) == ("GET", f"/runway/v1/tasks/{SUCCEEDED}")
    assert (headers["x-runway-version"], headers["authorization"]) == ("2024-11-06", "Bearer key_x")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "task", "error"),
    [
        ({"api_key": "key_wrong"}, SUCCEEDED, AuthenticationError),
        ({}, "not-a-uuid", BadRequestError),
        ({"default_headers": {"X-Runway-Version": "2023-01-01"}}, SUCCEEDED, BadRequestError),
        ({}, UNKNOWN, NotFoundError),
    ],
)
async def test_the_sdk_tells_refusals_apart_and_tries_none_again(
    kind: str,
    options: dict[str, Any],
    task: str,
    error: type[APIStatusError],
    origin: str,
    simulator: Simulator,
    naps: list[float],
) -> None:
    async with opened(kind, origin, **options) as sdk:
        for refused in (sdk.retrieve, sdk.delete):
            with pytest.raises(error) as caught:
                await refused(task)
            body: Any = caught.value.body
            assert isinstance(body["error"], str)
            assert ("issues" in body) == (error is BadRequestError)
    assert sent(simulator, "x-stainless-retry-count") == ["0", "0"]
    assert naps == []


# Trying again


def later(status: int, times: int = 2, **headers: str) -> list[Fault]:
    fault = Fault(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()}, body="{}")
    return [fault] * times


CUT = Fault(status=200, body="{}" * 100, truncate=True)
BACKOFF = [(0.375, 0.5), (0.75, 1.0)]
"""Half a second, then a whole one, each up to a quarter shorter."""


@pytest.mark.parametrize(
    ("faults", "bounds"),
    [
        (later(429, Retry_After="1"), [(1, 1), (1, 1)]),
        (later(429, Retry_After_Ms="250", Retry_After="1"), [(0.25, 0.25)] * 2),
        (later(503, Retry_After="60"), [(60, 60)] * 2),
        # What is over a minute is no reasonable time to wait, and neither is nothing.
        (later(503, Retry_After="61"), BACKOFF),
        (later(429, Retry_After="0"), BACKOFF),
        (later(429), BACKOFF),
        (later(503), BACKOFF),
        (later(502), BACKOFF),
        (later(504, times=1), BACKOFF[:1]),
        (later(500, times=1), BACKOFF[:1]),
        (later(409, times=1), BACKOFF[:1]),
        (later(408, times=1), BACKOFF[:1]),
        (later(400, times=1, X_Should_Retry="true"), BACKOFF[:1]),
        ([CUT], BACKOFF[:1]),
    ],
)
async def test_the_sdk_tries_again_when_it_was_told_to_or_by_its_own_measure(
    sdk: SDK, simulator: Simulator, naps: list[float], faults: Sequence[Fault], bounds: list[tuple[float, float]]
) -> None:
    for fault in faults:
        simulator.fail_next("runway", fault)
    assert (await sdk.retrieve(SUCCEEDED)).status == "SUCCEEDED"
    assert sent(simulator, "x-stainless-retry-count") == [str(n) for n in range(len(faults) + 1)]
    assert len(naps) == len(bounds)
    assert all(low <= nap <= high for nap, (low, high) in zip(naps, bounds, strict=True)), naps


async def test_the_sdk_tries_to_delete_again_too(sdk: SDK, simulator: Simulator, naps: list[float]) -> None:
    simulator.fail_next("runway", Fault(status=429, headers={"Retry-After": "1"}))
    await sdk.delete(SUCCEEDED)
    assert (sent(simulator, "x-stainless-retry-count"), naps) == (["0", "1"], [1.0])


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        (later(429, times=3, Retry_After="1"), RateLimitError),
        (later(503, times=3), InternalServerError),
        ([CUT] * 3, APIConnectionError),
    ],
)
async def test_the_sdk_gives_up_after_three_tries(
    sdk: SDK, simulator: Simulator, faults: Sequence[Fault], error: type[Exception]
) -> None:
    for fault in faults:
        simulator.fail_next("runway", fault)
    with pytest.raises(error):
        await sdk.retrieve(SUCCEEDED)
    assert sent(simulator, "x-stainless-retry-count") == ["0", "1", "2"]


async def test_the_sdk_does_not_try_again_when_it_is_told_not_to(
    sdk: SDK, simulator: Simulator, naps: list[float]
) -> None:
    simulator.fail_next("runway", later(429, X_Should_Retry="false")[0])
    with pytest.raises(RateLimitError):
        await sdk.retrieve(SUCCEEDED)
    assert (len(simulator.requests), naps) == (1, [])


@pytest.mark.parametrize("kind", KINDS)
async def test_the_sdk_can_be_made_to_try_once(kind: str, origin: str, simulator: Simulator, naps: list[float]) -> None:
    simulator.fail_next("runway", later(429, Retry_After="1")[0])
    async with opened(kind, origin, max_retries=0) as sdk:
        with pytest.raises(RateLimitError):
            await sdk.retrieve(SUCCEEDED)
    assert (len(simulator.requests), naps) == (1, [])


@pytest.mark.parametrize("kind", KINDS)
async def test_the_sdk_waits_for_as_long_as_the_simulator_throttles_it(
    kind: str, origin: str, simulator: Simulator, naps: list[float], clock: ManualClock
) -> None:
    async with opened(kind, origin, "key_throttled") as sdk:
        await sdk.retrieve(SUCCEEDED)
        clock.advance(0.5)
        assert (await sdk.retrieve(SUCCEEDED)).status == "SUCCEEDED"
    assert (sent(simulator, "x-stainless-retry-count"), naps) == (["0", "0", "1"], [2.0])


# Waiting


async def test_the_sdk_waits_for_a_task_and_asks_every_six_seconds_or_so(sdk: SDK, naps: list[float]) -> None:
    done = await sdk.wait(await sdk.retrieve(DEMO))
    assert (done.status, done.cost.credits, len(done.output)) == ("SUCCEEDED", 25, 1)
    assert all(4.5 <= nap <= 7.5 for nap in naps), naps
    # It takes the task 20 seconds.
    assert sum(naps[:-1]) < 20 <= sum(naps)


async def test_the_sdk_waits_for_ten_minutes_unless_told_otherwise(sdk: SDK, naps: list[float]) -> None:
    task = await sdk.retrieve(THROTTLED)
    for named, seconds in (({}, 600), ({"timeout": 60}, 60)):
        naps.clear()
        with pytest.raises(TaskTimeoutError) as caught:
            await sdk.wait(task, **named)
        assert caught.value.task_details.status == "THROTTLED"
        assert sum(naps[:-1]) <= seconds < sum(naps)


async def test_the_sdk_tells_what_a_task_failed_of(sdk: SDK, naps: list[float]) -> None:
    task = await sdk.retrieve(FAILED)
    with pytest.raises(TaskFailedError) as caught:
        await sdk.wait(task)
    details = caught.value.task_details
    assert details.status == "FAILED"
    assert details.failure_code == "INTERNAL.BAD_OUTPUT.CODE01"
    assert len(naps) == 1


async def test_the_sdk_learns_that_a_task_was_deleted_while_it_waits(sdk: SDK) -> None:
    task = await sdk.retrieve(THROTTLED)
    await sdk.delete(THROTTLED)
    with pytest.raises(NotFoundError):
        await sdk.wait(task)


@pytest.mark.parametrize(
    ("kind", "error", "least"),
    # "If the task fails or is cancelled, a `TaskFailedError` will be raised": not by the sync client, which polls on.
    [("sync", TaskTimeoutError, 60), ("async", TaskFailedError, 0)],
)
async def test_the_sync_sdk_waits_for_a_cancelled_task_until_its_time_is_over(
    kind: str, error: type[TaskTimeoutError | TaskFailedError], least: float, origin: str, naps: list[float]
) -> None:
    async with opened(kind, origin) as sdk:
        task = await sdk.retrieve(CANCELLED)
        with pytest.raises(error) as caught:
            await sdk.wait(task, timeout=60)
    raised: Any = caught.value
    assert raised.task_details.status == "CANCELLED"
    assert (len(naps) == 1) == (kind == "async")
    assert sum(naps) > least
