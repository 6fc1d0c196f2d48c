"""Calls through an MCP client against the simulated providers, their results, and the requests that were sent."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from mcp import types
from mcp.client import Client

from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.loading.catalog import build_catalog
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.servers.mcp.server import build_server
from mcp_taskruns.settings import read_settings
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.traffic import RecordedRequest
from tests.calls import POSTHOG_RUNS, TASK, Arguments, is_from_server
from tests.clock import pass_time, settle

TOOLS = load_tools(())
"""The tools of the built-in capability files, loaded once."""

CLIENT_HEADERS = {"host", "user-agent", "accept-encoding", "content-length", "connection"}
"""Headers that every HTTP client adds."""

# posthog.com/docs/api: the personal API key is a bearer token. All operations except the stream have only a JSON
# renderer, even if they send bytes or JSON lines: PostHog products/tasks/backend/api.py
POSTHOG_READING = {"accept": "application/json, */*;q=0.5", "authorization": "Bearer phx_simulated"}
POSTHOG_WRITING = POSTHOG_READING | {"content-type": "application/json"}


def run_arguments(run_id: str, **more: Any) -> Arguments:
    """Return the arguments that identify a PostHog run, and more arguments."""
    return {"task_id": TASK, "id": run_id, **more}


def run_path(run_id: str, subpath: str = "") -> str:
    """Return the path of a PostHog run, or one below it."""
    return f"{POSTHOG_RUNS}/{run_id}/{subpath}"


@dataclass(frozen=True)
class ToolResult:
    """The result of a tool call and the progress messages before it."""

    raw: types.CallToolResult
    progress: list[str]

    @property
    def is_error(self) -> bool:
        return bool(self.raw.is_error)

    @property
    def structured_content(self) -> Any:
        return self.raw.structured_content

    @property
    def content(self) -> Any:
        """The first block. Fails for an error."""
        assert not self.is_error, self.text
        return self.raw.content[0]

    @property
    def text(self) -> str:
        """The text of the first block."""
        block = self.raw.content[0]
        assert isinstance(block, types.TextContent)
        return block.text

    @property
    def value(self) -> Any:
        """The JSON of the first block. Fails for an error."""
        assert not self.is_error, self.text
        return json.loads(self.text)

    @property
    def notes(self) -> list[str]:
        """The texts of all blocks after the first."""
        notes = [block.text for block in self.raw.content[1:] if isinstance(block, types.TextContent)]
        assert len(notes) == len(self.raw.content) - 1
        return notes

    @property
    def error(self) -> dict[str, Any]:
        """The JSON of the error, which follows the readable line in the only block."""
        assert self.is_error, self.text
        assert (len(self.raw.content), self.structured_content) == (1, None)
        line, _, document = self.text.rpartition("\n")
        error: dict[str, Any] = json.loads(document)
        assert line.startswith(error["message"].removesuffix("."))
        return error

    @property
    def all_text(self) -> str:
        """Everything that the client received."""
        return "\n".join([self.raw.model_dump_json(), *self.progress])


class Caller:
    """An MCP client connected in memory to a server, on the driven clock."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, tool: str, /, *, within: float = 0.5, **arguments: Any) -> ToolResult:
        """Call a tool and return its result. Fails if the call takes more than `within` simulated seconds."""
        messages: list[str] = []
        results: list[types.CallToolResult] = []

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            messages.append(message or "")

        async def call_tool() -> None:
            results.append(await self._client.call_tool(tool, arguments, progress_callback=on_progress))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_tool)
            await settle()
            for _ in range(round(within * 4)):
                if results:
                    break
                await pass_time(0.25)
            tasks.cancel_scope.cancel()
        assert results, f"the call did not return within {within} s: {messages}"
        return ToolResult(results[0], messages)

    async def names(self) -> list[str]:
        """Return the names of the listed tools."""
        return [tool.name for tool in (await self._client.list_tools()).tools]

    async def annotations(self, tool: str) -> dict[str, bool]:
        """Return the annotations of a listed tool."""
        listed = await self._client.list_tools()
        (annotations,) = [item.annotations for item in listed.tools if item.name == tool]
        assert annotations is not None
        hints: dict[str, bool] = annotations.model_dump(by_alias=True, exclude_none=True)
        return hints


@asynccontextmanager
async def connected(environment: Mapping[str, str], **changes: str | None) -> AsyncIterator[Caller]:
    """Yield a client of a server with this environment. A change to None removes the variable."""
    variables = {name: value for name, value in {**environment, **changes}.items() if value is not None}
    settings = read_settings({}, variables)
    async with Client(build_server(Gateway(build_catalog(TOOLS, settings), settings)), mode="auto") as client:
        yield Caller(client)


@dataclass(frozen=True)
class SentRequest:
    """A request that the server sent, without the headers that every client adds. A JSON body is parsed."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any = None


def server_requests(simulator: Simulator) -> list[RecordedRequest]:
    """Return the recorded requests of the server, without those that a test sent directly."""
    return [request for request in simulator.requests if is_from_server(request)]


def sent_methods(simulator: Simulator) -> list[str]:
    """Return the methods of the server's requests."""
    return [request.method for request in server_requests(simulator)]


def sent_requests(simulator: Simulator) -> list[SentRequest]:
    """Return the server's requests for comparison."""
    return list(map(_sent_request, server_requests(simulator)))


def _sent_request(request: RecordedRequest) -> SentRequest:
    headers = {name: value for name, value in request.headers if name not in CLIENT_HEADERS}
    is_json = headers.get("content-type") == "application/json"
    body = json.loads(request.body) if is_json else request.body or None
    return SentRequest(request.method, request.path, headers, body)
