"""Calls through the gateway: what is let through, what is sent, what is bounded."""

import json
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.runs.events import Progress
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.errors import (
    CallError,
    InvalidArguments,
    NotConfigured,
    ProviderError,
    SettingsError,
    UnknownTool,
    UpstreamError,
)
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.clients import open_gateway

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}
EVENTS = {"Content-Type": "text/event-stream"}
COMPLETED_RUN = "trn-d5im0000000000000001"
RUNNING_RUN = "trn-d5im0000000000000004"


async def ignore(_: Progress) -> None:
    """A caller that does not look at progress."""


async def call(gateway: Gateway, tool: str, arguments: dict[str, Any]) -> CallResult:
    try:
        with anyio.fail_after(10):
            return await gateway.call(tool, arguments, ignore)
    finally:
        await gateway.aclose()


def names(**flags: object) -> set[str]:
    return set(open_gateway({}, **flags).tools)


def test_read_only_leaves_only_tools_that_change_nothing() -> None:
    gateway = open_gateway({}, read_only=True)
    assert "render-retrieve-task-run" in gateway.tools
    assert "render-run-task" not in gateway.tools
    assert all(tool.hints.read_only for tool in gateway.tools.values())


async def test_a_tool_that_is_filtered_out_cannot_be_called(simulator: Simulator, environment: dict[str, str]) -> None:
    gateway = open_gateway(environment, read_only=True)
    with pytest.raises(UnknownTool):
        await call(gateway, "render-cancel-task-run", {"taskRunId": RUNNING_RUN})
    assert simulator.requests == []


def test_only_serves_the_providers_with_these_prefixes() -> None:
    assert {name.partition("-")[0] for name in names(only=("render", "runway"))} == {"render", "runway"}


def test_a_prefix_that_no_capability_has_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"no provider has the prefix rendr; prefixes: inngest, posthog, render"):
        open_gateway({}, only=("rendr",))


def test_patterns_choose_and_exclude_tools() -> None:
    assert names(tools=("render-list-*", "*-cancel-*")) == {
        "render-list-tasks",
        "render-list-task-runs",
        "render-cancel-task-run",
        "inngest-cancel-function-run",
        "runway-cancel-delete-task",
    }
    assert names(tools=("render-list-*",), exclude_tools=("*-runs",)) == {"render-list-tasks"}


async def test_wrong_arguments_are_refused_and_nothing_is_sent(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    with pytest.raises(InvalidArguments, match="taskRunId: is required") as caught:
        await call(open_gateway(environment), "render-retrieve-task-run", {})
    assert caught.value.hint == "The arguments of render-retrieve-task-run are: taskRunId. Nothing was sent."
    assert simulator.requests == []


@pytest.mark.parametrize("flag", ["tools", "exclude_tools"])
def test_a_pattern_that_matches_no_tool_is_a_settings_error(flag: str) -> None:
    with pytest.raises(SettingsError, match=r"no tool matches 'render-cancel'"):
        open_gateway({}, **{flag: ("*-list-*", "render-cancel")})


async def test_nulls_are_left_out(simulator: Simulator, environment: dict[str, str]) -> None:
    await call(open_gateway(environment), "render-list-tasks", {"limit": None, "cursor": None})
    assert [request.path for request in simulator.requests] == ["/render/v1/tasks"]


async def test_a_header_that_the_server_sets_itself_is_accepted_and_dropped(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    arguments = {"taskRunIds": [COMPLETED_RUN], "Accept": "text/html"}
    await call(open_gateway(environment), "render-stream-realtime-events-sse", arguments)
    assert [value for name, value in simulator.requests[0].headers if name == "accept"] == ["text/event-stream"]


async def test_a_secret_that_a_provider_echoes_is_masked(simulator: Simulator, environment: dict[str, str]) -> None:
    key = environment["RENDER_API_KEY"] = "rnd_planted_7c1e5b"
    simulator.fail_next("render", Fault(status=200, body=json.dumps({"you sent": f"Bearer {key}"})))
    outcome = await call(open_gateway(environment), "render-list-tasks", {})
    assert outcome.text == '{"you sent":"Bearer [secret]"}'
    assert outcome.value == {"you sent": "Bearer [secret]"}


async def test_a_secret_in_a_providers_error_is_masked(simulator: Simulator, environment: dict[str, str]) -> None:
    key = environment["RENDER_API_KEY"] = "rnd_planted_7c1e5b"
    simulator.fail_next("render", Fault(status=401, body=f"no such key: {key}"))
    with pytest.raises(ProviderError) as caught:
        await call(open_gateway(environment), "render-list-tasks", {})
    assert caught.value.message == "the provider returned 401: no such key: [secret]"


ODD_KEY = "phx_abc&def<ghi>/jk12"
SPELLINGS = [
    ODD_KEY,
    ODD_KEY.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),  # as Go writes it
    ODD_KEY.replace("/", "\\/"),  # as PHP writes it
    "".join(f"\\u{ord(letter):04x}" for letter in ODD_KEY),
]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_a_secret_is_masked_however_json_spells_it(
    spelling: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    environment["RENDER_API_KEY"] = ODD_KEY
    simulator.fail_next("render", Fault(status=200, headers=JSON, body=f'{{"said":"{spelling}"}}'))
    outcome = await call(open_gateway(environment), "render-list-tasks", {})
    assert outcome.text == '{"said":"[secret]"}'


async def test_a_secret_in_any_field_of_an_event_is_masked(simulator: Simulator, environment: dict[str, str]) -> None:
    body = f'id: {ODD_KEY}\nevent: {ODD_KEY}\ndata: {{"note":"{SPELLINGS[3]}","status":"{SPELLINGS[1]}"}}\n\n'
    simulator.fail_next("posthog", Fault(status=200, headers=EVENTS, body=body))
    told: list[str] = []

    async def report(progress: Progress) -> None:
        told.append(progress.message)

    gateway = open_gateway(environment | {"POSTHOG_API_KEY": ODD_KEY})
    arguments = {"task_id": "11111111-1111-4111-8111-111111111111", "id": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"}
    with anyio.fail_after(10):
        outcome = await gateway.call("posthog-stream-task-run", arguments, report)
    await gateway.aclose()
    assert told == ["[secret]: [secret]"]
    data = {"note": "[secret]", "status": "[secret]"}
    assert outcome.value["events"] == [{"event": "[secret]", "id": "[secret]", "data": data}]


async def test_a_secret_in_a_content_type_is_masked(simulator: Simulator, environment: dict[str, str]) -> None:
    key = environment["RENDER_API_KEY"] = "rnd_planted_7c1e5b"
    simulator.fail_next("render", Fault(status=200, headers={"Content-Type": f"application/{key}"}, body="x"))
    assert (await call(open_gateway(environment), "render-list-tasks", {})).media_type == "application/[secret]"


async def test_a_file_that_holds_no_secret_is_passed_on_byte_for_byte(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    written = '{\n  "a": "x\\ny",\n  "pi": 1.10\n}'
    headers = {"Content-Type": "application/zip"}
    simulator.fail_next("posthog", Fault(status=200, headers=headers, body=written))
    ids = {"task_id": "11111111-1111-4111-8111-111111111111", "id": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"}
    arguments = ids | {"body": {"storage_path": "x"}}
    outcome = await call(open_gateway(environment), "posthog-download-artifact-through-backend", arguments)
    assert outcome.data == written.encode()


async def test_json_that_is_cut_off_is_an_error(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", Fault(status=200, headers=JSON, body='[{"task":{"id":"tsk'))
    with pytest.raises(ProviderError, match="is incomplete or is not valid JSON") as caught:
        await call(open_gateway(environment), "render-list-tasks", {})
    assert caught.value.kind == "unavailable"


async def test_half_a_surrogate_pair_does_not_spoil_an_answer(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(status=200, headers=JSON, body='{"a":"x\\ud800y"}'))
    assert (await call(open_gateway(environment), "render-list-tasks", {})).text == '{"a":"x?y"}'


async def test_a_provider_that_is_too_slow_is_given_up_within_the_timeout(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(delay=30))
    with pytest.raises(UpstreamError, match=r"render did not respond (within 1 s|in time)") as caught:
        await call(open_gateway(environment, timeout=1.0), "render-list-tasks", {})
    assert caught.value.kind == "timeout"


async def test_a_long_answer_is_cut_with_advice_on_how_to_get_the_rest(environment: dict[str, str]) -> None:
    gateway = open_gateway(environment, max_result_chars=1_000)
    outcome = await call(gateway, "render-list-tasks", {})
    assert 0 < len(json.loads(outcome.text)) < 6
    assert len(outcome.text) <= 1_000
    assert outcome.notes[0].startswith(f"{len(json.loads(outcome.text))} items; there are more: for the next page pass")
    assert outcome.notes[1].startswith("Truncated to about 1,000 characters; kept: the list:")


async def test_stopping_ends_calls_under_way_with_an_error(simulator: Simulator, environment: dict[str, str]) -> None:
    gateway = open_gateway(environment)
    errors: list[str] = []

    async def follow() -> None:
        with pytest.raises(UpstreamError) as caught:
            await gateway.call("render-stream-realtime-events-sse", {"taskRunIds": [RUNNING_RUN]}, ignore)
        errors.append(caught.value.message)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            request = await simulator.wait_for_request(lambda request: "events" in request.path)
            gateway.stop()
        await request.disconnected.wait()
    await gateway.aclose()
    assert errors == ["this server is stopping"]


async def test_a_call_after_hanging_up_connects_again(environment: dict[str, str]) -> None:
    gateway = open_gateway(environment)
    for _ in range(2):
        assert (await call(gateway, "render-list-tasks", {"limit": 1})).status == 200


async def test_cancelling_a_hundred_calls_leaves_the_connections_usable(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    gateway = open_gateway(environment)
    streams = {"taskRunIds": [RUNNING_RUN]}
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(gateway.call, "render-stream-realtime-events-sse", streams, ignore)
            while len(simulator.requests) < 100:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert (await call(gateway, "render-list-tasks", {"limit": 1})).status == 200


async def test_a_schema_that_is_not_valid_is_told_and_nothing_is_fetched_for_it(tmp_path: Any) -> None:
    (tmp_path / "odd.yaml").write_text(
        "naftiko: 1.0.0-alpha2\nprefix: odd\ncapability:\n  consumes:\n  - namespace: a\n    baseUri: http://127.0.0.1:9\n"
        "    resources: [{path: /x, operations: [{name: b, inputParameters: [{name: q, in: query, "
        "schema: {$ref: 'http://127.0.0.1:9/schema.json'}}]}]}]\n"
        "  exposes:\n  - type: mcp\n    tools: [{name: t, call: a.b}]\n"
    )
    with pytest.raises(NotConfigured, match="input schema is not valid JSON Schema"):
        await call(open_gateway({}, capabilities=(str(tmp_path),)), "odd-t", {"q": 1})


async def test_cancelling_a_call_hangs_up_on_the_provider_within_a_second(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    gateway = open_gateway(environment)
    arguments = {"taskRunIds": [RUNNING_RUN]}
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(gateway.call, "render-stream-realtime-events-sse", arguments, ignore)
            request = await simulator.wait_for_request(lambda request: "events" in request.path)
            tasks.cancel_scope.cancel()
        with anyio.fail_after(1):
            await request.disconnected.wait()
    await gateway.aclose()


async def test_a_hundred_calls_at_once_are_all_answered(simulator: Simulator, environment: dict[str, str]) -> None:
    gateway = open_gateway(environment)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(gateway.call, "render-list-tasks", {"limit": 1}, ignore)
    await gateway.aclose()
    assert [request.method for request in simulator.requests] == ["GET"] * 100


async def test_errors_of_unsupported_tools_say_so(tmp_path: Any) -> None:
    (tmp_path / "odd.yaml").write_text(
        "naftiko: 1.0.0-alpha2\ncapability:\n  exposes:\n  - type: mcp\n    tools: [{name: t, call: a.b}]\n"
    )
    with pytest.raises(CallError) as caught:
        await call(open_gateway({}, capabilities=(str(tmp_path),)), "odd-t", {})
    assert caught.value.kind == "unsupported"
