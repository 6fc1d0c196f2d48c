"""Runway's official SDK (runwayml 5.24.0), sync and async, works with the simulator.

The expected retries, delays and polling are those of the SDK's _base_client.py and lib/polling.py. The simulator's
clock advances only while the SDK sleeps.
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
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

DEMO, SUCCEEDED, FAILED, THROTTLED, CANCELLED = (f"{n}7f20503-6c24-4c16-946b-35dbbce2af2f" for n in (1, 2, 3, 4, 5))
UNKNOWN = "97f20503-6c24-4c16-946b-35dbbce2af2f"
KINDS = ("sync", "async")


class SDK:
    """One interface to the sync and the async client."""

    def __init__(self, official: RunwayML | AsyncRunwayML) -> None:
        self._is_async = isinstance(official, AsyncRunwayML)
        self._tasks: Any = official.tasks

    async def _call(self, function: Any, *args: Any, **options: Any) -> Any:
        if self._is_async:
            return await function(*args, **options)
        return await anyio.to_thread.run_sync(partial(function, *args, **options), abandon_on_cancel=True)

    async def retrieve(self, task: str) -> Any:
        return await self._call(self._tasks.retrieve, task)

    async def delete(self, task: str) -> None:
        assert await self._call(self._tasks.delete, task) is None

    async def wait(self, task: Any, **options: Any) -> Any:
        return await self._call(task.wait_for_task_output, **options)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> list[float]:
    """Records the seconds that the SDK sleeps; the clock advances by them instead."""
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
    # Without strict validation the SDK accepts a response of any shape.
    options = {"base_url": f"{origin}/runway", "api_key": api_key, "_strict_response_validation": True, **options}
    with anyio.fail_after(PATIENCE):
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


async def test_sdk_parses_a_task_in_every_status(sdk: SDK, clock: ManualClock) -> None:
    tasks = []
    for seconds in (0, 2, 2, 8, 8):
        clock.advance(seconds)
        tasks.append(await sdk.retrieve(DEMO))
    assert [task.status for task in tasks] == ["THROTTLED", "PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]
    assert [task.progress for task in tasks[2:4]] == [0.0, 0.5]
    assert [task.estimated_cost.credits for task in tasks[:4]] == [25, 25, 25, 25]
    assert (tasks[4].cost.credits, len(tasks[4].output)) == (25, 1)
    assert {task.id for task in tasks} == {DEMO}
    assert len({task.created_at for task in tasks}) == 1
    failed, cancelled = await sdk.retrieve(FAILED), await sdk.retrieve(CANCELLED)
    assert (failed.status, failed.failure, failed.cost.credits) == ("FAILED", "An unexpected error occurred.", 0)
    assert failed.failure_code == "INTERNAL.BAD_OUTPUT.CODE01"
    assert (cancelled.status, cancelled.cost.credits) == ("CANCELLED", 0)


async def test_sdk_gets_new_output_urls_with_every_get(sdk: SDK) -> None:
    assert len({(await sdk.retrieve(SUCCEEDED)).output[0] for _ in range(3)}) == 3


@pytest.mark.parametrize("task", [THROTTLED, SUCCEEDED])
async def test_sdk_raises_not_found_for_a_deleted_task(sdk: SDK, simulator: Simulator, task: str) -> None:
    await sdk.delete(task)
    for method in (sdk.retrieve, sdk.delete):
        with pytest.raises(NotFoundError) as error_info:
            await method(task)
        assert error_info.value.body == {"error": "Could not find a task with that ID"}
    assert [request.method for request in simulator.requests] == ["DELETE", "GET", "DELETE"]
    assert sent(simulator, "accept") == ["*/*", "application/json", "*/*"]


async def test_sdk_sends_version_and_key(sdk: SDK, simulator: Simulator) -> None:
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
async def test_sdk_raises_client_errors_without_a_retry(
    kind: str,
    options: dict[str, Any],
    task: str,
    error: type[APIStatusError],
    origin: str,
    simulator: Simulator,
    naps: list[float],
) -> None:
    async with opened(kind, origin, **options) as sdk:
        for method in (sdk.retrieve, sdk.delete):
            with pytest.raises(error) as error_info:
                await method(task)
            body: Any = error_info.value.body
            assert isinstance(body["error"], str)
            assert ("issues" in body) == (error is BadRequestError)
    assert sent(simulator, "x-stainless-retry-count") == ["0", "0"]
    assert naps == []


# Retries


def faults_with(status: int, times: int = 2, **headers: str) -> list[Fault]:
    fault = Fault(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()}, body="{}")
    return [fault] * times


TRUNCATED = Fault(status=200, body="{}" * 100, truncate=True)
BACKOFF = [(0.375, 0.5), (0.75, 1.0)]
"""Bounds of the SDK's backoff: half a second, then one second, each up to a quarter shorter."""


@pytest.mark.parametrize(
    ("faults", "bounds"),
    [
        (faults_with(429, Retry_After="1"), [(1, 1), (1, 1)]),
        (faults_with(429, Retry_After_Ms="250", Retry_After="1"), [(0.25, 0.25)] * 2),
        (faults_with(503, Retry_After="60"), [(60, 60)] * 2),
        # The SDK ignores a Retry-After of 0 or of more than a minute.
        (faults_with(503, Retry_After="61"), BACKOFF),
        (faults_with(429, Retry_After="0"), BACKOFF),
        (faults_with(429), BACKOFF),
        (faults_with(503), BACKOFF),
        (faults_with(502), BACKOFF),
        (faults_with(504, times=1), BACKOFF[:1]),
        (faults_with(500, times=1), BACKOFF[:1]),
        (faults_with(409, times=1), BACKOFF[:1]),
        (faults_with(408, times=1), BACKOFF[:1]),
        (faults_with(400, times=1, X_Should_Retry="true"), BACKOFF[:1]),
        ([TRUNCATED], BACKOFF[:1]),
    ],
)
async def test_sdk_retries_after_retry_after_or_its_own_backoff(
    sdk: SDK, simulator: Simulator, naps: list[float], faults: Sequence[Fault], bounds: list[tuple[float, float]]
) -> None:
    for fault in faults:
        simulator.fail_next("runway", fault)
    assert (await sdk.retrieve(SUCCEEDED)).status == "SUCCEEDED"
    assert sent(simulator, "x-stainless-retry-count") == [str(n) for n in range(len(faults) + 1)]
    assert len(naps) == len(bounds)
    assert all(low <= nap <= high for nap, (low, high) in zip(naps, bounds, strict=True)), naps


async def test_sdk_retries_a_delete(sdk: SDK, simulator: Simulator, naps: list[float]) -> None:
    simulator.fail_next("runway", Fault(status=429, headers={"Retry-After": "1"}))
    await sdk.delete(SUCCEEDED)
    assert (sent(simulator, "x-stainless-retry-count"), naps) == (["0", "1"], [1.0])


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        (faults_with(429, times=3, Retry_After="1"), RateLimitError),
        (faults_with(503, times=3), InternalServerError),
        ([TRUNCATED] * 3, APIConnectionError),
    ],
)
async def test_sdk_gives_up_after_three_attempts(
    sdk: SDK, simulator: Simulator, faults: Sequence[Fault], error: type[Exception]
) -> None:
    for fault in faults:
        simulator.fail_next("runway", fault)
    with pytest.raises(error):
        await sdk.retrieve(SUCCEEDED)
    assert sent(simulator, "x-stainless-retry-count") == ["0", "1", "2"]


async def test_sdk_does_not_retry_with_x_should_retry_false(sdk: SDK, simulator: Simulator, naps: list[float]) -> None:
    simulator.fail_next("runway", faults_with(429, X_Should_Retry="false")[0])
    with pytest.raises(RateLimitError):
        await sdk.retrieve(SUCCEEDED)
    assert (len(simulator.requests), naps) == (1, [])


@pytest.mark.parametrize("kind", KINDS)
async def test_sdk_with_max_retries_0_sends_one_request(
    kind: str, origin: str, simulator: Simulator, naps: list[float]
) -> None:
    simulator.fail_next("runway", faults_with(429, Retry_After="1")[0])
    async with opened(kind, origin, max_retries=0) as sdk:
        with pytest.raises(RateLimitError):
            await sdk.retrieve(SUCCEEDED)
    assert (len(simulator.requests), naps) == (1, [])


@pytest.mark.parametrize("kind", KINDS)
async def test_sdk_waits_until_the_throttled_key_is_accepted(
    kind: str, origin: str, simulator: Simulator, naps: list[float], clock: ManualClock
) -> None:
    async with opened(kind, origin, "key_throttled") as sdk:
        await sdk.retrieve(SUCCEEDED)
        clock.advance(0.5)
        assert (await sdk.retrieve(SUCCEEDED)).status == "SUCCEEDED"
    assert (sent(simulator, "x-stainless-retry-count"), naps) == (["0", "0", "1"], [2.0])


# Waiting


async def test_sdk_polls_a_task_about_every_six_seconds(sdk: SDK, naps: list[float]) -> None:
    done = await sdk.wait(await sdk.retrieve(DEMO))
    assert (done.status, done.cost.credits, len(done.output)) == ("SUCCEEDED", 25, 1)
    assert all(4.5 <= nap <= 7.5 for nap in naps), naps
    # The task takes 20 seconds.
    assert sum(naps[:-1]) < 20 <= sum(naps)


async def test_sdk_waits_ten_minutes_by_default(sdk: SDK, naps: list[float]) -> None:
    task = await sdk.retrieve(THROTTLED)
    for options, seconds in (({}, 600), ({"timeout": 60}, 60)):
        naps.clear()
        with pytest.raises(TaskTimeoutError) as error_info:
            await sdk.wait(task, **options)
        assert error_info.value.task_details.status == "THROTTLED"
        assert sum(naps[:-1]) <= seconds < sum(naps)


async def test_sdk_raises_the_failure_of_a_task(sdk: SDK, naps: list[float]) -> None:
    task = await sdk.retrieve(FAILED)
    with pytest.raises(TaskFailedError) as error_info:
        await sdk.wait(task)
    details = error_info.value.task_details
    assert details.status == "FAILED"
    assert details.failure_code == "INTERNAL.BAD_OUTPUT.CODE01"
    assert len(naps) == 1


async def test_sdk_raises_not_found_while_waiting_for_a_deleted_task(sdk: SDK) -> None:
    task = await sdk.retrieve(THROTTLED)
    await sdk.delete(THROTTLED)
    with pytest.raises(NotFoundError):
        await sdk.wait(task)


@pytest.mark.parametrize(
    ("kind", "error", "least"),
    # "If the task fails or is cancelled, a `TaskFailedError` will be raised". The sync client keeps polling instead.
    [("sync", TaskTimeoutError, 60), ("async", TaskFailedError, 0)],
)
async def test_sync_sdk_waits_for_a_canceled_task_until_the_timeout(
    kind: str, error: type[TaskTimeoutError | TaskFailedError], least: float, origin: str, naps: list[float]
) -> None:
    async with opened(kind, origin) as sdk:
        task = await sdk.retrieve(CANCELLED)
        with pytest.raises(error) as error_info:
            await sdk.wait(task, timeout=60)
    exception: Any = error_info.value
    assert exception.task_details.status == "CANCELLED"
    assert (len(naps) == 1) == (kind == "async")
    assert sum(naps) > least
