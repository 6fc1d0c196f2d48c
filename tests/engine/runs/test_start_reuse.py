"""Starts that repeat a start whose result did not reach the client reuse its idempotency key."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest

from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.progress import Progress
from mcp_taskruns.engine.retries import Key
from mcp_taskruns.engine.runs.start_keys import (
    ABANDONED_SECONDS,
    MAX_STARTS,
    REUSE_SECONDS,
    Caller,
    StartCall,
    StartKeys,
)
from mcp_taskruns.errors import ProviderError
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.calls import ALL_TRIES_S, POSTHOG_RUNS, TASK, TRIES, Arguments, Call, calling, opened, outside
from tests.clients import load_builtin_tools
from tests.clock import pass_time, settle
from tests.engine.runs.test_start import CLOUD, NEW, SLOW, SQUARE, keys_sent, render_runs

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

WAITING: Arguments = {**SLOW, "wait_seconds": 45}
ANOTHER = "To start another, pass another body.idempotencyKey."


async def cancelled(gateway: Gateway, arguments: Arguments, seconds: float = 1) -> None:
    """Start a run, and cancel the call after some seconds, as a client does that gives up."""
    async with calling(gateway, "render-run-task", arguments) as call:
        await pass_time(seconds)
        call.scope.cancel()
        await settle()
        assert call.is_over


async def started(gateway: Gateway, arguments: Arguments, seconds: float = 10) -> Call:
    async with calling(gateway, "render-run-task", arguments) as call:
        return await call.finish(seconds)


@pytest.mark.parametrize("repeated", [{**SLOW, "wait_seconds": 0}, SLOW, {**SLOW, "wait_seconds": 2}], ids=str)
async def test_identical_start_after_a_cancelled_wait_reuses_the_key(
    repeated: Arguments, simulator: Simulator, environment: dict[str, str]
) -> None:
    async with opened(environment) as gateway:
        await cancelled(gateway, WAITING)
        call = await started(gateway, repeated)
    first, second = keys_sent(simulator)
    assert first == second
    assert await render_runs(environment) == [NEW]
    text = " ".join([call.outcome.text, *call.outcome.notes])
    assert first in text
    assert "An identical call, whose result had not reached the client" in text
    assert ANOTHER in text


async def test_three_identical_starts_that_the_client_gives_up_on_start_one_run(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    # openai-agents with its defaults gives up after 5 s, and the model tries again.
    async with opened(environment) as gateway:
        for _ in range(3):
            await cancelled(gateway, WAITING, seconds=5)
    assert len(keys_sent(simulator)) == 3
    assert await render_runs(environment) == [NEW]


async def test_identical_start_after_a_start_that_was_cancelled_before_its_response_reuses_the_key(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(delay=30))
    async with opened(environment) as gateway:
        await cancelled(gateway, SQUARE)
        call = await started(gateway, SQUARE)
    first, second = keys_sent(simulator)
    assert first == second
    assert call.value["id"] == NEW


async def test_start_after_a_completed_one_has_a_new_key(simulator: Simulator, environment: dict[str, str]) -> None:
    async with opened(environment) as gateway:
        await started(gateway, SQUARE)
        await started(gateway, {**SQUARE, "wait_seconds": 30})
        await started(gateway, SQUARE)
    assert len(set(keys_sent(simulator))) == 3


async def test_key_is_reused_once_if_the_repeated_start_completes(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with opened(environment) as gateway:
        await cancelled(gateway, WAITING)
        await started(gateway, SLOW)
        await started(gateway, SLOW)
    first, second, third = keys_sent(simulator)
    assert first == second != third


@pytest.mark.parametrize(("seconds", "is_reused"), [(REUSE_SECONDS - 5, True), (REUSE_SECONDS + 5, False)])
async def test_key_is_reused_for_ten_minutes(
    seconds: float, is_reused: bool, simulator: Simulator, environment: dict[str, str]
) -> None:
    assert REUSE_SECONDS == 600
    async with opened(environment) as gateway:
        await cancelled(gateway, WAITING)
        await pass_time(seconds)
        await started(gateway, SLOW)
    first, second = keys_sent(simulator)
    assert (first == second) is is_reused


@pytest.mark.parametrize(
    "other",
    [
        {"body": {**SLOW["body"], "input": [1]}},
        {"body": {**SLOW["body"], "task": "demo-workflow/square"}},
        {"body": {**SLOW["body"], "idempotencyKey": "order-17"}},
    ],
    ids=["input", "task", "key"],
)
async def test_start_with_other_arguments_does_not_reuse_the_key(
    other: Arguments, simulator: Simulator, environment: dict[str, str]
) -> None:
    async with opened(environment) as gateway:
        await cancelled(gateway, WAITING)
        await started(gateway, other)
    assert len(set(keys_sent(simulator))) == 2


async def test_order_of_members_makes_no_difference(simulator: Simulator, environment: dict[str, str]) -> None:
    async with opened(environment) as gateway:
        await cancelled(gateway, WAITING)
        await started(gateway, {"wait_seconds": 0, "body": dict(reversed(SLOW["body"].items()))})
    assert len(set(keys_sent(simulator))) == 1


async def test_key_of_the_caller_is_never_reused(simulator: Simulator, environment: dict[str, str]) -> None:
    async with opened(environment) as gateway:
        await cancelled(gateway, {"body": {**SLOW["body"], "idempotencyKey": "order-17"}, "wait_seconds": 45})
        await started(gateway, SLOW)
    assert len(set(keys_sent(simulator))) == 2


async def test_start_reuse_can_be_turned_off(simulator: Simulator, environment: dict[str, str]) -> None:
    async with opened(environment, no_start_reuse=True) as gateway:
        await cancelled(gateway, WAITING)
        call = await started(gateway, SLOW)
    assert len(set(keys_sent(simulator))) == 2
    assert "did not reach the client" not in " ".join(call.outcome.notes)


async def test_start_reuse_can_be_turned_off_by_an_environment_variable(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    environment["MCP_TASKRUNS_NO_START_REUSE"] = "1"
    async with opened(environment) as gateway:
        await cancelled(gateway, WAITING)
        await started(gateway, SLOW)
    assert len(set(keys_sent(simulator))) == 2


async def test_start_whose_outcome_is_unknown_is_repeated_with_the_same_key(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    for _ in range(TRIES):
        simulator.fail_next("render", Fault(truncate=True))
    async with opened(environment) as gateway:
        await started(gateway, SQUARE, ALL_TRIES_S)
        await started(gateway, SQUARE)
    assert len(set(keys_sent(simulator))) == 1
    assert await render_runs(environment) == [NEW]


async def test_refused_start_is_repeated_with_a_new_key(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", Fault(403, body="no"))
    async with opened(environment) as gateway:
        await started(gateway, SQUARE)
        await started(gateway, SQUARE)
    assert len(set(keys_sent(simulator))) == 2


async def test_conflict_of_a_reused_key_is_waited_out(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", Fault(delay=30))
    async with opened(environment) as gateway:
        await cancelled(gateway, SQUARE)
        for _ in range(2):
            simulator.fail_next("render", Fault(409, body="in progress"))
        call = await started(gateway, SQUARE, 30)
    assert call.value["id"] == NEW
    assert len(set(keys_sent(simulator))) == 1


async def test_error_of_a_reused_key_reports_that_the_run_may_exist(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with opened(environment) as gateway:
        await cancelled(gateway, WAITING)
        simulator.fail_next("render", Fault(403, body="revoked"))
        call = await started(gateway, SLOW)
    assert "The run may exist" in call.failure.hint
    assert keys_sent(simulator)[0] in call.failure.hint


# Clients that give up without a message: python mcp 1.x raises a timeout, and sends no notifications/cancelled


async def test_start_that_repeats_one_that_still_runs_shares_its_key(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with opened(environment) as gateway, calling(gateway, "render-run-task", WAITING):
        await pass_time(5)
        async with calling(gateway, "render-run-task", WAITING):
            await pass_time(5)
            await started(gateway, SLOW)
    assert len(keys_sent(simulator)) == 3
    assert await render_runs(environment) == [NEW]


async def test_identical_starts_at_the_same_time_start_a_run_each(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with (
        opened(environment) as gateway,
        calling(gateway, "render-run-task", WAITING),
        calling(gateway, "render-run-task", WAITING),
    ):
        await pass_time(5)
        # With a limit on calls at once, the third follows later.
        await started(gateway, SLOW)
    assert len(set(keys_sent(simulator))) == 3


async def test_several_cancelled_starts_are_repeated_by_one_start_each(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with opened(environment) as gateway:
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(call_quietly, gateway, WAITING)
            await pass_time(5)
            tasks.cancel_scope.cancel()
        for _ in range(3):
            await started(gateway, SLOW)
    keys = keys_sent(simulator)
    assert set(keys[:2]) == set(keys[2:4])
    assert len(set(keys)) == 3


async def call_quietly(gateway: Gateway, arguments: Arguments) -> None:
    await gateway.call("render-run-task", arguments, ignore)


async def ignore(_: Progress) -> None:
    """Ignore progress."""


async def test_late_result_of_an_abandoned_start_does_not_end_the_reuse_of_its_key(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with (
        opened(environment) as gateway,
        calling(gateway, "render-run-task", {**SLOW, "wait_seconds": 8}) as first,
    ):
        await pass_time(5)
        async with calling(gateway, "render-run-task", WAITING) as second:
            await first.finish(5)
            second.scope.cancel()
            await settle()
        await started(gateway, SLOW)
    assert len(set(keys_sent(simulator))) == 1


async def test_start_without_idempotency_keys_is_sent_again(simulator: Simulator, environment: dict[str, str]) -> None:
    async with opened(environment) as gateway:
        async with calling(gateway, "posthog-create-task-run", {**CLOUD, "wait_seconds": 45}) as call:
            await pass_time(1)
            call.scope.cancel()
            await settle()
        async with calling(gateway, "posthog-create-task-run", CLOUD) as again:
            await again.finish(5)
    assert (await outside(environment, "GET", f"{POSTHOG_RUNS}/"))["count"] == 4 + 2
    assert TASK in json.dumps(again.value)


# The store


TOOL = next(tool for tool in load_builtin_tools(overlays=True) if tool.name == "render-run-task")


@contextmanager
def start(keys: StartKeys, caller: Caller | None = None, tool: Tool = TOOL, **body: Any) -> Iterator[StartCall]:
    assert tool.runs is not None
    with keys.call(caller or Caller(), tool, tool.runs, {"body": {"task": "a/b", "input": [], **body}}) as call:
        yield call


def lose(keys: StartKeys, caller: Caller | None = None, **body: Any) -> str:
    """Make a call whose result does not reach the client, and return its key."""
    with pytest.raises(Cancelled), start(keys, caller, **body) as call:
        raise Cancelled
    return call.key


class Cancelled(BaseException):
    """Cancels a call, as the exception of the event loop does."""


async def test_start_that_was_cancelled_is_repeated_with_the_same_key() -> None:
    keys = StartKeys(reuses=True)
    key = lose(keys)
    with start(keys) as call:
        assert (call.key, call.key_use, call.is_reused) == (key, Key.TRIED, True)


async def test_start_that_is_being_cancelled_is_repeated_with_the_same_key() -> None:
    keys = StartKeys(reuses=True)
    sent: list[str] = []

    async def close_slowly() -> None:
        with start(keys) as call:
            sent.append(call.key)
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)  # of the driven clock

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(close_slowly)
        await settle()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await settle()
            assert len(keys._starts) == 1
            await make_in_a_task_of_its_own(keys, sent)
            await pass_time(2)
    assert sent[0] == sent[1]


async def make_in_a_task_of_its_own(keys: StartKeys, sent: list[str]) -> None:
    async def make() -> None:
        with start(keys) as call:
            sent.append(call.key)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make)


async def test_callers_with_another_identity_do_not_share_keys() -> None:
    keys = StartKeys(reuses=True)
    key = lose(keys, Caller("one"))
    with start(keys, Caller("two")) as call:
        assert (call.key != key, call.key_use, call.is_reused) == (True, Key.NEW, False)
    with start(keys, Caller("one")) as call:
        assert call.key == key


async def test_tools_do_not_share_keys() -> None:
    keys = StartKeys(reuses=True)
    key = lose(keys)
    with start(keys, tool=replace(TOOL, name="other")) as call:
        assert call.key != key


async def test_store_forgets_the_oldest_starts() -> None:
    keys = StartKeys(reuses=True)
    first = lose(keys, number=0)
    second = lose(keys, number=1)
    for number in range(2, MAX_STARTS + 1):
        lose(keys, number=number)
    with start(keys, number=0) as call:
        assert call.key != first
    assert second not in {start.key for start in keys._starts}
    assert len(keys._starts) <= MAX_STARTS


async def test_store_holds_no_arguments() -> None:
    keys = StartKeys(reuses=True)
    lose(keys, Caller("Bearer secret-token"), secret="planted-5d1c7a90")
    assert "planted" not in repr(keys._starts)
    assert all("secret" not in str(value) for start in keys._starts for value in (start.digest, start.key))


async def test_error_with_a_known_outcome_forgets_the_key() -> None:
    keys = StartKeys(reuses=True)
    with pytest.raises(ProviderError), start(keys):
        raise ProviderError("refused", status=403)
    assert keys._starts == []


async def test_half_a_surrogate_pair_in_the_arguments_has_a_digest() -> None:
    keys = StartKeys(reuses=True)
    key = lose(keys, text="\ud83d")
    with start(keys, text="\ud83d") as call:
        assert call.key == key


async def test_start_is_abandoned_after_a_few_seconds() -> None:
    keys = StartKeys(reuses=True)
    with start(keys) as first:
        await pass_time(ABANDONED_SECONDS)
        with start(keys) as second:
            assert second.key == first.key
