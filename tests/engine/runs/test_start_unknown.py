"""Writes whose outcome is unknown: the errors name the key, and what to read."""

import json
from typing import Any

import anyio
import pytest

from mcp_taskruns.core.model.run import Lifecycle
from mcp_taskruns.engine.runs.start_keys import Caller
from mcp_taskruns.errors import UpstreamError
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.calls import (
    ALL_TRIES_S,
    NO_FAULT,
    PASSING,
    POSTHOG_NOT_STARTED,
    POSTHOG_RUNNING,
    POSTHOG_RUNS,
    RENDER_RUNS,
    TASK,
    TRIES,
    Arguments,
    calling,
    finished,
    json_response,
    opened,
    outside,
    sent,
)
from tests.clock import pass_time, settle
from tests.engine.runs.test_start import CLOUD, NEW, SLOW, SQUARE, keys_sent, render_runs

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

IN_PROGRESS = json_response({"message": "a request with this idempotency key is in progress"}, 409)
"""As draft-ietf-httpapi-idempotency-key-header section 2.6 describes: 409 while the first request is processed."""

ARRIVED = {
    "interrupted": Fault(truncate=True),
    **{str(status): Fault(status, body="lost") for status in (502, 503, 504, 520, 524)},
}
"""Responses to a start that the provider may have carried out, and that is retried."""

LATER = {
    **{str(status): Fault(status, body="no") for status in (400, 401, 403, 404, 422, 429, 500, 524)},
    "interrupted": Fault(truncate=True),
}


def key_hint(key: str) -> str:
    return f'To try again, pass body.idempotencyKey "{key}": with this key no second run is started.'


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("first", ["interrupted", "502", "524"])
async def test_every_error_after_an_attempt_that_may_have_arrived_names_the_key(
    first: str, later: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    for fault in (ARRIVED[first], *[LATER[later]] * TRIES):
        simulator.fail_next("render", fault)
    call = await finished(environment, "render-run-task", SQUARE, ALL_TRIES_S)
    (key,) = set(keys_sent(simulator))
    assert call.failure.outcome_unknown
    assert "The run may exist: look with render-list-task-runs." in call.failure.hint
    assert call.failure.hint.endswith(key_hint(key))


async def test_error_after_an_attempt_that_may_have_arrived_keeps_its_own_hint(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(502, body="lost"))
    simulator.fail_next("render", Fault(401, body="revoked"))
    call = await finished(environment, "render-run-task", SQUARE, ALL_TRIES_S)
    assert (call.failure.kind, call.failure.status, call.failure.retryable) == ("auth", 401, False)
    assert "RENDER_API_KEY" in call.failure.hint


async def test_timeout_of_a_start_names_the_key(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", Fault(delay=500))
    call = await finished(environment, "render-run-task", SQUARE, 61)
    (key,) = keys_sent(simulator)
    assert (call.failure.kind, call.failure.outcome_unknown) == ("timeout", True)
    assert call.failure.hint == f"The run may exist: look with render-list-task-runs. {key_hint(key)}"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
async def test_refusal_of_the_only_attempt_does_not_name_the_key(
    status: int, simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(status, body="no"))
    call = await finished(environment, "render-run-task", SQUARE, 0)
    assert not call.failure.outcome_unknown
    assert "idempotencyKey" not in call.failure.hint
    assert len(sent(simulator)) == 1


async def test_rate_limited_start_names_the_key_and_does_not_claim_that_the_run_may_exist(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    for _ in range(TRIES):
        simulator.fail_next("render", PASSING["429"])
    call = await finished(environment, "render-run-task", SQUARE, ALL_TRIES_S)
    assert call.failure.hint.endswith(key_hint(keys_sent(simulator)[0]))
    assert "may exist" not in call.failure.hint
    assert not call.failure.outcome_unknown


@pytest.mark.parametrize("first", ARRIVED)
async def test_conflict_after_an_attempt_that_may_have_arrived_is_waited_out_with_the_same_key(
    first: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    for fault in (ARRIVED[first], *[IN_PROGRESS] * 6):
        simulator.fail_next("render", fault)
    call = await finished(environment, "render-run-task", SQUARE, 60)
    assert json.loads(call.outcome.text)["id"] == NEW
    assert len(keys_sent(simulator)) == 8
    assert len(set(keys_sent(simulator))) == 1
    assert await render_runs(environment) == [NEW]
    assert "an earlier attempt is in progress; asking again" in call.lines[1]


async def test_waiting_out_a_conflict_is_bounded_by_the_time_of_the_call(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    for fault in (ARRIVED["502"], *[IN_PROGRESS] * 500):
        simulator.fail_next("render", fault)
    call = await finished(environment, "render-run-task", SQUARE, 61)
    (key,) = set(keys_sent(simulator))
    assert (call.failure.kind, call.failure.status) == ("timeout", 409)
    assert (call.failure.retryable, call.failure.outcome_unknown) == (True, True)
    assert call.failure.hint == f"The run may exist: look with render-list-task-runs. {key_hint(key)}"


async def test_conflict_is_waited_out_if_the_caller_passes_a_key_that_this_server_made(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    for fault in (*[ARRIVED["502"]] * TRIES, IN_PROGRESS, IN_PROGRESS):
        simulator.fail_next("render", fault)
    await finished(environment, "render-run-task", SQUARE, ALL_TRIES_S)
    body = {**SQUARE["body"], "idempotencyKey": keys_sent(simulator)[0]}
    call = await finished(environment, "render-run-task", {"body": body}, 20)
    assert json.loads(call.outcome.text)["id"] == NEW


async def test_conflict_about_a_key_of_the_caller_is_an_error(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", IN_PROGRESS)
    body = {**SQUARE["body"], "idempotencyKey": "order-17"}
    call = await finished(environment, "render-run-task", {"body": body}, 0)
    assert (call.failure.status, len(sent(simulator))) == (409, 1)


# Writes without a key

ONCE: dict[str, tuple[Arguments, str]] = {
    "posthog-create-task-run": (CLOUD, "posthog-list-task-runs"),
    "posthog-start-task-run": ({"task_id": TASK, "id": POSTHOG_NOT_STARTED}, "posthog-retrieve-task-run"),
    "posthog-update-task-run": (
        {"task_id": TASK, "id": POSTHOG_RUNNING, "body": {"stage": "x"}},
        "posthog-retrieve-task-run",
    ),
    "posthog-append-log-entries": (
        {"task_id": TASK, "id": POSTHOG_RUNNING, "body": {"entries": [{"type": "notification"}]}},
        "posthog-retrieve-task-run",
    ),
    "posthog-get-sandbox-connection-token": ({"task_id": TASK, "id": POSTHOG_RUNNING}, "posthog-retrieve-task-run"),
}


@pytest.mark.parametrize("lost", ["interrupted", "500", "503", "524"])
@pytest.mark.parametrize("tool", ONCE)
async def test_write_with_an_unknown_outcome_names_the_tool_to_read_with(
    tool: str, lost: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    arguments, reader = ONCE[tool]
    simulator.fail_next("posthog", Fault(truncate=True) if lost == "interrupted" else Fault(int(lost), body="lost"))
    call = await finished(environment, tool, arguments, 0)
    assert call.failure.hint == (
        "The request may have been carried out: read the current state before trying again. "
        f"To find out, call {reader}."
    )
    assert (call.failure.outcome_unknown, call.failure.retryable) == (True, False)


async def test_hint_of_an_overlay_about_an_unknown_outcome_is_kept(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("posthog", json_response({"error": "Failed to start cloud workflow"}, 502))
    call = await finished(environment, "posthog-resume-task-run-cloud", {"task_id": TASK, "id": POSTHOG_RUNNING}, 0)
    assert call.failure.hint.startswith("Check with posthog-retrieve-task-run")
    assert "To find out" not in call.failure.hint


@pytest.mark.parametrize("lost", ["interrupted", "502"])
async def test_created_run_whose_start_has_an_unknown_outcome_may_have_been_started(
    lost: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("posthog", NO_FAULT)
    simulator.fail_next("posthog", ARRIVED[lost])
    call = await finished(environment, "posthog-create-task-run", {**CLOUD, "wait_seconds": 30}, 0)
    run_id = (await outside(environment, "GET", f"{POSTHOG_RUNS}/"))["results"][0]["id"]
    assert call.failure.message.startswith(f"run {run_id} was created, and may have been started: ")
    assert call.failure.hint == (
        "Do not create another run. Call posthog-retrieve-task-run for this run; if it was not started, call "
        "posthog-start-task-run for it."
    )
    assert (call.failure.outcome_unknown, call.failure.retryable) == (True, False)


# A server that stops


async def stopped(environment: dict[str, str], tool: str, arguments: Arguments, seconds: float = 1) -> Any:
    """Return the error of a call during which the server stops."""
    async with opened(environment) as gateway, calling(gateway, tool, arguments) as call:
        await pass_time(seconds)
        gateway.stop()
        await settle()
        assert call.failure.message == "this server is stopping"
    return call.failure


async def test_stop_in_the_middle_of_a_start_names_the_key(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", Fault(delay=30))
    failure = await stopped(environment, "render-run-task", {**SLOW, "wait_seconds": 45})
    (key,) = keys_sent(simulator)
    assert failure.hint == f"The run may exist: look with render-list-task-runs. {key_hint(key)}"
    assert (failure.outcome_unknown, failure.retryable) == (True, False)


async def test_stop_while_waiting_after_a_start_names_the_run_and_the_key(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    failure = await stopped(environment, "render-run-task", {**SLOW, "wait_seconds": 45})
    (key,) = keys_sent(simulator)
    assert failure.hint == (
        f"Run {NEW} was started and continues at the provider: call render-wait-for-run to wait for it. "
        f'Idempotency key: "{key}".'
    )


async def test_stop_between_creating_and_starting_a_run_names_the_run(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("posthog", NO_FAULT)
    simulator.fail_next("posthog", Fault(delay=30))
    failure = await stopped(environment, "posthog-create-task-run", {**CLOUD, "wait_seconds": 45})
    run_id = (await outside(environment, "GET", f"{POSTHOG_RUNS}/"))["results"][0]["id"]
    assert failure.hint == (
        f"Run {run_id} was created, and may have been started: call posthog-retrieve-task-run before starting it."
    )


async def test_stop_in_the_middle_of_a_start_without_a_key_names_the_tool_to_look_with(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("posthog", Fault(delay=30))
    failure = await stopped(environment, "posthog-create-task-run", CLOUD)
    assert failure.hint == "The run may exist: look with posthog-list-task-runs before starting another one."


async def test_stop_before_a_start_is_sent_reports_that_nothing_was_sent(environment: dict[str, str]) -> None:
    async with opened(environment) as gateway:
        tool = gateway.tools["render-run-task"]
        assert tool.runs is not None

        async def start(lifecycle: Lifecycle, caller: Caller) -> None:
            with gateway.in_flight(caller, tool), gateway.start_call(caller, tool, lifecycle, SQUARE):
                gateway.stop()
                await anyio.sleep_forever()

        with pytest.raises(UpstreamError) as caught:
            await start(tool.runs, Caller())
    assert (caught.value.hint, caught.value.retryable) == ("Nothing was sent.", True)


async def test_stop_in_the_middle_of_another_write_names_the_tool_to_read_with(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("posthog", Fault(delay=30))
    arguments, reader = ONCE["posthog-append-log-entries"]
    failure = await stopped(environment, "posthog-append-log-entries", arguments)
    assert failure.hint.endswith(f"To find out, call {reader}.")
    assert failure.outcome_unknown


async def test_stop_of_a_wait_reports_that_the_run_continues(environment: dict[str, str]) -> None:
    run = await outside(environment, "POST", RENDER_RUNS, {"task": "demo-workflow/slow", "input": []})
    failure = await stopped(environment, "render-wait-for-run", {"taskRunId": run["id"]})
    assert (failure.hint, failure.outcome_unknown) == ("The run continues at the provider.", False)
