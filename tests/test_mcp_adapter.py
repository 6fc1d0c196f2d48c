"""What MCP clients are sent: lists, results, errors, binary content."""

import base64
import json
import logging
from typing import Any

import pytest
from mcp.client import Client
from mcp.types import AudioContent, BlobResourceContents, EmbeddedResource, ImageContent, TextContent

from mcp_taskruns import mcp_adapter
from mcp_taskruns.core.result import Outcome
from mcp_taskruns.errors import CallError
from mcp_taskruns.gateway import Gateway
from mcp_taskruns.loader import load_tools
from mcp_taskruns.mcp_adapter import build_server, render_error, render_outcome
from mcp_taskruns.settings import Settings
from tests.doors import Era, open_gateway

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
    gateway = Gateway(tools, Settings())
    async with Client(build_server(gateway), mode="legacy") as client:
        assert client.instructions
        assert "name begins with" not in client.instructions


async def test_what_nobody_foresaw_is_a_tool_error_without_internals(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def explode(*_: Any) -> Outcome:
        raise RuntimeError("internals: rnd_secret")

    monkeypatch.setattr(Gateway, "call", explode)
    async with Client(build_server(open_gateway({})), mode="legacy") as client:
        result = await client.call_tool("render-list-tasks", {})
    assert result.is_error
    assert "internals" not in str(result.content)
    assert "the server failed; its log says why" in str(result.content)
    with caplog.at_level(logging.ERROR):
        assert "call failed tool=render-list-tasks" in caplog.text


def test_an_answer_is_one_text_block_and_each_note_is_another() -> None:
    rendered = render_outcome("t", Outcome(200, '{"a":1}', {"a": 1}, notes=("One.", "Two.")))
    assert rendered == {
        "resultType": "complete",
        "content": [{"type": "text", "text": text} for text in ('{"a":1}', "One.", "Two.")],
        "isError": False,
    }


@pytest.mark.parametrize(
    ("media_type", "kind"), [("image/png", ImageContent), ("audio/mpeg", AudioContent), ("video/mp4", EmbeddedResource)]
)
def test_binary_content_is_passed_on_as_what_it_is(media_type: str, kind: Any) -> None:
    block = render_outcome("t", Outcome(200, "", data=b"\x00\xff", media_type=media_type))["content"][0]
    parsed = kind.model_validate(block)
    if isinstance(parsed, EmbeddedResource):
        assert isinstance(parsed.resource, BlobResourceContents)
        assert (parsed.resource.mime_type, base64.b64decode(parsed.resource.blob)) == (media_type, b"\x00\xff")
    else:
        assert (parsed.mime_type, base64.b64decode(parsed.data)) == (media_type, b"\x00\xff")


def test_binary_content_over_the_bound_is_told_and_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_adapter, "MAX_BINARY_BYTES", 3)
    block = render_outcome("t", Outcome(200, "", data=b"1234", media_type="video/mp4"))["content"][0]
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
