"""Calls through the gateway: tool selection, arguments, redaction, limits and cancellation."""

import json
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.progress import Progress
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
from tests.timing import PATIENCE, scaled

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}
EVENTS = {"Content-Type": "text/event-stream"}
COMPLETED_RUN = "trn-d5im0000000000000001"
RUNNING_RUN = "trn-d5im0000000000000004"


async def ignore(_: Progress) -> None:
    """Ignore progress."""


async def call(gateway: Gateway, tool: str, arguments: dict[str, Any]) -> CallResult:
    try:
        with anyio.fail_after(PATIENCE):
            return await gateway.call(tool, arguments, ignore)
    finally:
        await gateway.aclose()


def names(**flags: object) -> set[str]:
    return set(open_gateway({}, **flags).tools)


def test_read_only_serves_only_read_only_tools() -> None:
    gateway = open_gateway({}, read_only=True)
    assert "render-retrieve-task-run" in gateway.tools
    assert "render-run-task" not in gateway.tools
    assert all(tool.hints.read_only for tool in gateway.tools.values())


async def test_excluded_tool_cannot_be_called(simulator: Simulator, environment: dict[str, str]) -> None:
    gateway = open_gateway(environment, read_only=True)
    with pytest.raises(UnknownTool):
        await call(gateway, "render-cancel-task-run", {"taskRunId": RUNNING_RUN})
    assert simulator.requests == []


def test_only_serves_the_providers_with_these_prefixes() -> None:
    assert {name.partition("-")[0] for name in names(only=("render", "runway"))} == {"render", "runway"}


def test_unknown_prefix_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"no provider has the prefix rendr; prefixes: inngest, posthog, render"):
        open_gateway({}, only=("rendr",))


def test_patterns_select_and_exclude_tools() -> None:
    assert names(tools=("render-list-*", "*-cancel-*")) == {
        "render-list-tasks",
        "render-list-task-runs",
        "render-cancel-task-run",
        "inngest-cancel-function-run",
        "runway-cancel-delete-task",
    }
    assert names(tools=("render-list-*",), exclude_tools=("*-runs",)) == {"render-list-tasks"}


async def test_invalid_arguments_are_rejected_before_a_request_is_sent(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    with pytest.raises(InvalidArguments, match="taskRunId: is required") as exc_info:
        await call(open_gateway(environment), "render-retrieve-task-run", {})
    assert (
        exc_info.value.hint
        == "The arguments of render-retrieve-task-run are: taskRunId, result_path. Nothing was sent."
    )
    assert simulator.requests == []


@pytest.mark.parametrize("flag", ["tools", "exclude_tools"])
def test_pattern_that_matches_no_tool_is_a_settings_error(flag: str) -> None:
    with pytest.raises(SettingsError, match=r"no tool matches 'render-cancel'"):
        open_gateway({}, **{flag: ("*-list-*", "render-cancel")})


async def test_null_arguments_are_not_sent(simulator: Simulator, environment: dict[str, str]) -> None:
    await call(open_gateway(environment), "render-list-tasks", {"limit": None, "cursor": None})
    assert [request.path for request in simulator.requests] == ["/render/v1/tasks"]


async def test_header_argument_that_the_server_sets_is_accepted_and_ignored(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    arguments = {"taskRunIds": [COMPLETED_RUN], "Accept": "text/html"}
    await call(open_gateway(environment), "render-stream-realtime-events-sse", arguments)
    assert [value for name, value in simulator.requests[0].headers if name == "accept"] == ["text/event-stream"]


async def test_secret_in_a_response_is_redacted(simulator: Simulator, environment: dict[str, str]) -> None:
    key = environment["RENDER_API_KEY"] = "rnd_planted_7c1e5b"
    simulator.fail_next("render", Fault(status=200, body=json.dumps({"received": f"Bearer {key}"})))
    outcome = await call(open_gateway(environment), "render-list-tasks", {})
    assert outcome.text == '{"received":"Bearer [secret]"}'
    assert outcome.value == {"received": "Bearer [secret]"}


async def test_secret_in_a_provider_error_is_redacted(simulator: Simulator, environment: dict[str, str]) -> None:
    key = environment["RENDER_API_KEY"] = "rnd_planted_7c1e5b"
    simulator.fail_next("render", Fault(status=401, body=f"no such key: {key}"))
    with pytest.raises(ProviderError) as exc_info:
        await call(open_gateway(environment), "render-list-tasks", {})
    assert exc_info.value.message == 'the provider returned 401: "no such key: [secret]"'


ODD_KEY = "phx_abc&def<ghi>/jk12"
SPELLINGS = [
    ODD_KEY,
    ODD_KEY.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),  # as Go encodes it
    ODD_KEY.replace("/", "\\/"),  # as PHP encodes it
    "".join(f"\\u{ord(letter):04x}" for letter in ODD_KEY),
]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_secret_is_redacted_in_every_json_spelling(
    spelling: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    environment["RENDER_API_KEY"] = ODD_KEY
    simulator.fail_next("render", Fault(status=200, headers=JSON, body=f'{{"echo":"{spelling}"}}'))
    outcome = await call(open_gateway(environment), "render-list-tasks", {})
    assert outcome.text == '{"echo":"[secret]"}'


async def test_secret_in_any_field_of_an_event_is_redacted(simulator: Simulator, environment: dict[str, str]) -> None:
    body = f'id: {ODD_KEY}\nevent: {ODD_KEY}\ndata: {{"note":"{SPELLINGS[3]}","status":"{SPELLINGS[1]}"}}\n\n'
    simulator.fail_next("posthog", Fault(status=200, headers=EVENTS, body=body))
    messages: list[str] = []

    async def report(progress: Progress) -> None:
        messages.append(progress.message)

    gateway = open_gateway(environment | {"POSTHOG_API_KEY": ODD_KEY})
    arguments = {"task_id": "11111111-1111-4111-8111-111111111111", "id": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"}
    with anyio.fail_after(PATIENCE):
        outcome = await gateway.call("posthog-stream-task-run", arguments, report)
    await gateway.aclose()
    assert messages == ["[secret]: [secret]"]
    data = {"note": "[secret]", "status": "[secret]"}
    assert outcome.value["events"] == [{"event": "[secret]", "id": "[secret]", "data": data}]


async def test_secret_in_a_content_type_is_redacted(simulator: Simulator, environment: dict[str, str]) -> None:
    key = environment["RENDER_API_KEY"] = "rnd_planted_7c1e5b"
    simulator.fail_next("render", Fault(status=200, headers={"Content-Type": f"application/{key}"}, body="x"))
    assert (await call(open_gateway(environment), "render-list-tasks", {})).media_type == "application/[secret]"


async def test_file_without_secrets_is_returned_unchanged(simulator: Simulator, environment: dict[str, str]) -> None:
    content = '{\n  "a": "x\\ny",\n  "pi": 1.10\n}'
    headers = {"Content-Type": "application/zip"}
    simulator.fail_next("posthog", Fault(status=200, headers=headers, body=content))
    ids = {"task_id": "11111111-1111-4111-8111-111111111111", "id": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"}
    arguments = ids | {"body": {"storage_path": "x"}}
    outcome = await call(open_gateway(environment), "posthog-download-artifact-through-backend", arguments)
    assert outcome.data == content.encode()


async def test_truncated_json_response_is_an_error(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", Fault(status=200, headers=JSON, body='[{"task":{"id":"tsk'))
    with pytest.raises(ProviderError, match="is incomplete or is not valid JSON") as exc_info:
        await call(open_gateway(environment), "render-list-tasks", {})
    assert exc_info.value.kind == "unavailable"


async def test_lone_surrogate_in_a_response_is_replaced(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", Fault(status=200, headers=JSON, body='{"a":"x\\ud800y"}'))
    assert (await call(open_gateway(environment), "render-list-tasks", {})).text == '{"a":"x?y"}'


async def test_slow_provider_is_a_timeout_error(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", Fault(delay=30))
    with pytest.raises(UpstreamError, match=r"render did not respond (within 1 s|in time)") as exc_info:
        await call(open_gateway(environment, timeout=1.0), "render-list-tasks", {})
    assert exc_info.value.kind == "timeout"


async def test_long_result_is_truncated_and_names_the_next_page(environment: dict[str, str]) -> None:
    gateway = open_gateway(environment, max_result_chars=1_000)
    outcome = await call(gateway, "render-list-tasks", {})
    assert 0 < len(json.loads(outcome.text)) < 6
    assert len(outcome.text) <= 1_000
    assert outcome.notes[0].startswith(f"{len(json.loads(outcome.text))} items; there are more: for the next page pass")
    assert outcome.notes[1].startswith("Truncated to about 1,000 characters; kept: the list:")


async def test_stop_ends_running_calls_with_an_error(simulator: Simulator, environment: dict[str, str]) -> None:
    gateway = open_gateway(environment)
    errors: list[str] = []

    async def follow() -> None:
        with pytest.raises(UpstreamError) as exc_info:
            await gateway.call("render-stream-realtime-events-sse", {"taskRunIds": [RUNNING_RUN]}, ignore)
        errors.append(exc_info.value.message)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            request = await simulator.wait_for_request(lambda request: "events" in request.path)
            gateway.stop()
        await request.disconnected.wait()
    await gateway.aclose()
    assert errors == ["this server is stopping"]


async def test_call_after_close_opens_new_connections(environment: dict[str, str]) -> None:
    gateway = open_gateway(environment)
    for _ in range(2):
        assert (await call(gateway, "render-list-tasks", {"limit": 1})).status == 200


async def test_connections_are_usable_after_100_cancelled_calls(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    gateway = open_gateway(environment)
    streams = {"taskRunIds": [RUNNING_RUN]}
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(gateway.call, "render-stream-realtime-events-sse", streams, ignore)
            while len(simulator.requests) < 100:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert (await call(gateway, "render-list-tasks", {"limit": 1})).status == 200


async def test_invalid_input_schema_is_reported_and_its_reference_is_not_fetched(tmp_path: Any) -> None:
    (tmp_path / "odd.yaml").write_text(
        "naftiko: 1.0.0-alpha2\nprefix: odd\ncapability:\n  consumes:\n  - namespace: a\n    baseUri: http://127.0.0.1:9\n"
        "    resources: [{path: /x, operations: [{name: b, inputParameters: [{name: q, in: query, "
        "schema: {$ref: 'http://127.0.0.1:9/schema.json'}}]}]}]\n"
        "  exposes:\n  - type: mcp\n    tools: [{name: t, call: a.b}]\n"
    )
    with pytest.raises(NotConfigured, match="input schema is not valid JSON Schema"):
        await call(open_gateway({}, capabilities=(str(tmp_path),)), "odd-t", {"q": 1})


async def test_cancelling_a_call_closes_its_connection_within_a_second(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    gateway = open_gateway(environment)
    arguments = {"taskRunIds": [RUNNING_RUN]}
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(gateway.call, "render-stream-realtime-events-sse", arguments, ignore)
            request = await simulator.wait_for_request(lambda request: "events" in request.path)
            tasks.cancel_scope.cancel()
        with anyio.fail_after(scaled(1)):
            await request.disconnected.wait()
    await gateway.aclose()


async def test_100_concurrent_calls_succeed(simulator: Simulator, environment: dict[str, str]) -> None:
    gateway = open_gateway(environment)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(gateway.call, "render-list-tasks", {"limit": 1}, ignore)
    await gateway.aclose()
    assert [request.method for request in simulator.requests] == ["GET"] * 100


async def test_call_of_an_unsupported_tool_is_an_unsupported_error(tmp_path: Any) -> None:
    (tmp_path / "odd.yaml").write_text(
        "naftiko: 1.0.0-alpha2\ncapability:\n  exposes:\n  - type: mcp\n    tools: [{name: t, call: a.b}]\n"
    )
    with pytest.raises(CallError) as exc_info:
        await call(open_gateway({}, capabilities=(str(tmp_path),)), "odd-t", {})
    assert exc_info.value.kind == "unsupported"
