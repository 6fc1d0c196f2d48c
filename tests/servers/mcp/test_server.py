"""What MCP clients are sent: lists, results, errors, binary content."""

import base64
import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest
from mcp.client import Client
from mcp.types import AudioContent, BlobResourceContents, EmbeddedResource, ImageContent, TextContent

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.errors import CallError
from mcp_taskruns.loading.catalog import build_catalog
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.servers.mcp import server as mcp_adapter
from mcp_taskruns.servers.mcp.server import build_server, render_error, render_result
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

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_all_tools_are_listed_with_all_four_hints(era: Era) -> None:
    async with Client(build_server(open_gateway({})), mode=era) as client:
        tools = (await client.list_tools()).tools
    assert len(tools) == 35
    for tool in tools:
        assert tool.title
        assert tool.annotations
        assert None not in tool.annotations.model_dump(exclude={"title"}).values()
        assert tool.annotations.open_world_hint


async def test_the_server_says_who_it_is_and_how_to_use_it() -> None:
    async with Client(build_server(open_gateway({}, only=("render",))), mode="legacy") as client:
        assert client.server_info
        assert (client.server_info.name, client.server_info.version) == ("mcp-taskruns", "0.1.0")
        assert client.instructions
        assert "(render)" in client.instructions
        assert len(client.instructions) < 600


async def test_without_prefixes_the_server_does_not_speak_of_them() -> None:
    tools = load_tools([], names="spec")
    gateway = Gateway(build_catalog(tools, Settings()), Settings())
    async with Client(build_server(gateway), mode="legacy") as client:
        assert client.instructions
        assert "name begins with" not in client.instructions


async def test_what_nobody_foresaw_is_a_tool_error_without_internals(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def explode(*_: Any) -> CallResult:
        raise RuntimeError("internals: rnd_secret")

    monkeypatch.setattr(Gateway, "call", explode)
    async with Client(build_server(open_gateway({})), mode="legacy") as client:
        result = await client.call_tool("render-list-tasks", {})
    assert result.is_error
    assert "internals" not in str(result.content)
    assert "the server failed; its log says why" in str(result.content)
    with caplog.at_level(logging.ERROR):
        assert "call failed tool=render-list-tasks" in caplog.text


READS_OF_A_RUN = {
    "render-retrieve-task-run": {"taskRunId": RENDER_COMPLETED},
    "inngest-get-function-run-status": {"runId": INNGEST_COMPLETED},
    "posthog-retrieve-task-run": {"task_id": TASK, "id": POSTHOG_COMPLETED},
    "runway-retrieve-task-status-and-output": {"id": RUNWAY_SUCCEEDED},
}


async def accepted(client: Client, tool: str, arguments: Mapping[str, Any]) -> tuple[list[str], Any]:
    """The text blocks of a result and its structured content, which the client has found to fit the output schema."""
    result = await client.call_tool(tool, dict(arguments))
    assert not result.is_error
    return [block.text for block in result.content if isinstance(block, TextContent)], result.structured_content


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_an_answer_about_one_run_is_an_object_too(era: Era, environment: dict[str, str]) -> None:
    async with open_client("memory", era, environment) as client:
        for tool, arguments in READS_OF_A_RUN.items():
            texts, structured = await accepted(client, tool, arguments)
            assert isinstance(structured, dict)
            assert structured == json.loads(texts[0])


async def test_what_is_redacted_in_the_text_is_redacted_in_the_object(environment: dict[str, str]) -> None:
    async with open_client("memory", "auto", environment) as client:
        _, structured = await accepted(client, "posthog-retrieve-task-run", READS_OF_A_RUN["posthog-retrieve-task-run"])
    assert structured["log_url"] == "[redacted]"
    assert structured["status"] == "completed"


OTHER_SHAPES = {
    "an array": json_response([{"id": RENDER_COMPLETED, "status": "completed"}]),
    "an id that is a number": json_response({"id": 5, "status": "completed"}),
    "a state that is an object": json_response({"id": RENDER_COMPLETED, "status": {"name": "completed"}}),
    "a text": Fault(200, {"Content-Type": "text/plain"}, "completed"),
    "nothing": Fault(204, {}, ""),
}


@pytest.mark.parametrize("era", ["legacy", "auto"])
@pytest.mark.parametrize("answer", OTHER_SHAPES)
async def test_an_answer_of_another_shape_than_was_listed_is_an_object_with_its_text(
    answer: str, era: Era, simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", OTHER_SHAPES[answer])
    async with open_client("memory", era, environment) as client:
        texts, structured = await accepted(client, "render-retrieve-task-run", {"taskRunId": RENDER_COMPLETED})
    assert structured == {"text": texts[0]}


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_a_long_run_is_whole_in_the_text_and_cut_in_the_object(
    era: Era, simulator: Simulator, environment: dict[str, str]
) -> None:
    run = {"id": RENDER_COMPLETED, "status": "completed", "results": ["x" * 300] * 100}
    simulator.fail_next("render", json_response(run))
    async with open_client("memory", era, environment) as client:
        texts, structured = await accepted(client, "render-retrieve-task-run", {"taskRunId": RENDER_COMPLETED})
    assert json.loads(texts[0]) == run
    assert texts[1:] == [f"Run {RENDER_COMPLETED}: succeeded (completed)."]
    assert set(structured) == {*run, "truncated"}
    assert (structured["id"], structured["status"]) == (run["id"], run["status"])
    kept = len(structured["results"])
    assert structured["results"] == run["results"][:kept]
    assert structured["truncated"] == f"results: {kept} of 100 items. The text of the result has more."
    assert 15_000 < len(json.dumps(structured)) < 20_500


def test_an_answer_is_one_text_block_and_each_note_is_another() -> None:
    rendered = render_result("t", CallResult(200, '{"a":1}', {"a": 1}, notes=("One.", "Two.")))
    assert rendered == {
        "resultType": "complete",
        "content": [{"type": "text", "text": text} for text in ('{"a":1}', "One.", "Two.")],
        "isError": False,
    }


@pytest.mark.parametrize(
    ("media_type", "kind"), [("image/png", ImageContent), ("audio/mpeg", AudioContent), ("video/mp4", EmbeddedResource)]
)
def test_binary_content_is_passed_on_as_what_it_is(media_type: str, kind: Any) -> None:
    block = render_result("t", CallResult(200, "", data=b"\x00\xff", media_type=media_type))["content"][0]
    parsed = kind.model_validate(block)
    if isinstance(parsed, EmbeddedResource):
        assert isinstance(parsed.resource, BlobResourceContents)
        assert (parsed.resource.mime_type, base64.b64decode(parsed.resource.blob)) == (media_type, b"\x00\xff")
    else:
        assert (parsed.mime_type, base64.b64decode(parsed.data)) == (media_type, b"\x00\xff")


def test_binary_content_over_the_bound_is_told_and_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_adapter, "MAX_BINARY_BYTES", 3)
    block = render_result("t", CallResult(200, "", data=b"1234", media_type="video/mp4"))["content"][0]
    assert TextContent.model_validate(block).text.startswith("The content is 4 bytes of video/mp4")


def test_an_error_is_a_line_for_people_and_the_same_as_json() -> None:
    error = CallError("it broke", kind="rate_limited", status=429, retryable=True, retry_after_s=2.0, hint="Wait.")
    rendered = render_error(error, open_gateway({}))
    line, _, rest = rendered["content"][0]["text"].partition("\n")
    assert rendered["isError"]
    assert "structuredContent" not in rendered
    assert line == "it broke. Wait."
    assert json.loads(rest) == {
        "kind": "rate_limited",
        "status": 429,
        "message": "it broke",
        "retryable": True,
        "retry_after_s": 2.0,
        "hint": "Wait.",
    }
