"""What MCP clients receive: lists, results, errors and binary content."""

import base64
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.types import AudioContent, BlobResourceContents, EmbeddedResource, ImageContent, TextContent

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.errors import CallError
from mcp_taskruns.loading.catalog import build_catalog
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.servers.mcp import wire
from mcp_taskruns.servers.mcp.server import build_server
from mcp_taskruns.servers.mcp.wire import error_to_wire, result_to_wire
from mcp_taskruns.settings import Settings
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.calls import (
    INNGEST_COMPLETED,
    POSTHOG_COMPLETED,
    RENDER_COMPLETED,
    RUNWAY_SUCCEEDED,
    TASK,
    json_response,
)
from tests.clients import Era, open_client, open_gateway
from tests.engine.runs.described import RUNS, acme

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_all_tools_are_listed_with_four_hints(era: Era) -> None:
    async with Client(build_server(open_gateway({})), mode=era) as client:
        tools = (await client.list_tools()).tools
    assert len(tools) == 40
    for tool in tools:
        assert tool.title
        assert tool.annotations
        assert None not in tool.annotations.model_dump(exclude={"title"}).values()
        assert tool.annotations.open_world_hint


async def test_server_info_and_instructions() -> None:
    async with Client(build_server(open_gateway({}, only=("render",))), mode="legacy") as client:
        assert client.server_info
        assert (client.server_info.name, client.server_info.version) == ("mcp-taskruns", "0.1.0")
        assert client.instructions
        assert "(render)" in client.instructions
        assert len(client.instructions) < 600


async def test_instructions_name_the_wait_tools_that_are_listed(tmp_path: Path) -> None:
    async with (
        acme(tmp_path, None, runs={**RUNS, "noun": "build"}) as provider,
        Client(build_server(provider.gateway), mode="legacy") as client,
    ):
        assert client.instructions
        assert "call wait-for-build instead of polling" in client.instructions


async def test_instructions_without_prefixes() -> None:
    tools = load_tools([], names="spec")
    gateway = Gateway(build_catalog(tools, Settings()), Settings())
    async with Client(build_server(gateway), mode="legacy") as client:
        assert client.instructions
        assert "begin with the provider" not in client.instructions


async def test_unexpected_exception_is_a_tool_error_without_internals(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def explode(*_: Any) -> CallResult:
        raise RuntimeError("internals: rnd_secret")

    monkeypatch.setattr(Gateway, "call", explode)
    async with Client(build_server(open_gateway({})), mode="legacy") as client:
        result = await client.call_tool("render-list-tasks", {})
    assert result.is_error
    assert "internals" not in str(result.content)
    assert "internal error of the MCP server; details are in its log" in str(result.content)
    with caplog.at_level(logging.ERROR):
        assert "call failed tool=render-list-tasks" in caplog.text


READS_OF_A_RUN = {
    "render-retrieve-task-run": {"taskRunId": RENDER_COMPLETED},
    "inngest-get-function-run-status": {"runId": INNGEST_COMPLETED},
    "posthog-retrieve-task-run": {"task_id": TASK, "id": POSTHOG_COMPLETED},
    "runway-retrieve-task-status-and-output": {"id": RUNWAY_SUCCEEDED},
}


async def call(client: Client, tool: str, arguments: Mapping[str, Any]) -> tuple[list[str], Any]:
    """Return the text blocks of a result and its structured content, which the client has validated."""
    result = await client.call_tool(tool, dict(arguments))
    assert not result.is_error
    return [block.text for block in result.content if isinstance(block, TextContent)], result.structured_content


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_response_about_one_run_has_structured_content(era: Era, environment: dict[str, str]) -> None:
    async with open_client("memory", era, environment) as client:
        for tool, arguments in READS_OF_A_RUN.items():
            texts, structured = await call(client, tool, arguments)
            assert isinstance(structured, dict)
            assert structured == json.loads(texts[0])


async def test_structured_content_is_redacted(environment: dict[str, str]) -> None:
    async with open_client("memory", "auto", environment) as client:
        _, structured = await call(client, "posthog-retrieve-task-run", READS_OF_A_RUN["posthog-retrieve-task-run"])
    assert structured["log_url"] == "[redacted]"
    assert structured["status"] == "completed"


OTHER_SHAPES = {
    "array": json_response([{"id": RENDER_COMPLETED, "status": "completed"}]),
    "id that is a truth value": json_response({"id": True, "status": "completed"}),
    "status that is an object": json_response({"id": RENDER_COMPLETED, "status": {"name": "completed"}}),
    "text": Fault(200, {"Content-Type": "text/plain"}, "completed"),
}


@pytest.mark.parametrize("era", ["legacy", "auto"])
@pytest.mark.parametrize("response", OTHER_SHAPES)
async def test_response_of_an_unexpected_shape_is_structured_as_text(
    response: str, era: Era, simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", OTHER_SHAPES[response])
    async with open_client("memory", era, environment) as client:
        texts, structured = await call(client, "render-retrieve-task-run", {"taskRunId": RENDER_COMPLETED})
    assert structured == {"text": texts[0]}


async def test_progress_grows_from_one_part_of_a_call_to_the_next(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    values: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        values.append(progress)

    simulator.fail_next("render", Fault(502, {}, "busy"))
    simulator.fail_next("render", Fault(200, {"Content-Type": "text/event-stream"}, "data: a\n\ndata: b\n\n"))
    async with open_client("memory", "auto", environment) as client:
        await client.call_tool("render-list-tasks", {}, progress_callback=on_progress)
    assert len(values) == 3
    assert values == sorted(set(values))


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_structured_content_of_a_long_run_is_truncated(
    era: Era, simulator: Simulator, environment: dict[str, str]
) -> None:
    run = {"id": RENDER_COMPLETED, "status": "completed", "results": ["x" * 300] * 100}
    simulator.fail_next("render", json_response(run))
    async with open_client("memory", era, environment) as client:
        texts, structured = await call(client, "render-retrieve-task-run", {"taskRunId": RENDER_COMPLETED})
    assert json.loads(texts[0]) == run
    assert texts[1:] == [f"Run {RENDER_COMPLETED}: succeeded (completed)."]
    assert set(structured) == {*run, "truncated"}
    assert (structured["id"], structured["status"]) == (run["id"], run["status"])
    kept = len(structured["results"])
    assert structured["results"] == run["results"][:kept]
    assert structured["truncated"] == (
        f"results: {kept} of 100 items. The text of the result has more. "
        f'To read on, call again with result_path "results[{kept}:]".'
    )
    assert 15_000 < len(json.dumps(structured)) < 20_500


def test_response_and_notes_are_separate_text_blocks() -> None:
    wire_form = result_to_wire("t", CallResult(200, '{"a":1}', {"a": 1}, notes=("One.", "Two.")))
    assert wire_form == {
        "resultType": "complete",
        "content": [{"type": "text", "text": text} for text in ('{"a":1}', "One.", "Two.")],
        "isError": False,
    }


@pytest.mark.parametrize(
    ("media_type", "kind"), [("image/png", ImageContent), ("audio/mpeg", AudioContent), ("video/mp4", EmbeddedResource)]
)
def test_binary_content_is_sent_by_its_media_type(media_type: str, kind: Any) -> None:
    block = result_to_wire("t", CallResult(200, "", data=b"\x00\xff", media_type=media_type))["content"][0]
    parsed = kind.model_validate(block)
    if isinstance(parsed, EmbeddedResource):
        assert isinstance(parsed.resource, BlobResourceContents)
        assert (parsed.resource.mime_type, base64.b64decode(parsed.resource.blob)) == (media_type, b"\x00\xff")
    else:
        assert (parsed.mime_type, base64.b64decode(parsed.data)) == (media_type, b"\x00\xff")


def test_binary_content_above_the_size_limit_is_omitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_BINARY_BYTES", 3)
    block = result_to_wire("t", CallResult(200, "", data=b"1234", media_type="video/mp4"))["content"][0]
    assert TextContent.model_validate(block).text.startswith("The content is too large: 4 bytes of video/mp4")


def test_error_is_a_line_and_json() -> None:
    error = CallError("it broke", kind="rate_limited", status=429, retryable=True, retry_after_s=2.0, hint="Wait.")
    wire_form = error_to_wire(error, open_gateway({}).redactor)
    line, _, rest = wire_form["content"][0]["text"].partition("\n")
    assert wire_form["isError"]
    assert "structuredContent" not in wire_form
    assert line == "it broke. Wait."
    assert json.loads(rest) == {
        "kind": "rate_limited",
        "status": 429,
        "message": "it broke",
        "retryable": True,
        "retry_after_s": 2.0,
        "hint": "Wait.",
    }
