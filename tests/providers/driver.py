"""What the tests of the providers' operations share: calls by an MCP client, what it was told, and what was sent."""

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
"""The shipped tools, read once."""

TRANSPORT = {"host", "user-agent", "accept-encoding", "content-length", "connection"}
"""Headers that any HTTP client sends by itself."""

# posthog.com/docs/api: personal API key as bearer. All but the stream renders JSON only, also where bytes or JSON lines
# are sent: PostHog products/tasks/backend/api.py
POSTHOG_READING = {"accept": "application/json, */*;q=0.5", "authorization": "Bearer phx_simulated"}
POSTHOG_WRITING = POSTHOG_READING | {"content-type": "application/json"}


def on(run_id: str, **more: Any) -> Arguments:
    """The arguments that name a run of PostHog's, and others."""
    return {"task_id": TASK, "id": run_id, **more}


def path_on(run_id: str, place: str = "") -> str:
    """The path of a run of PostHog's, or of a place below it."""
    return f"{POSTHOG_RUNS}/{run_id}/{place}"


@dataclass(frozen=True)
class Told:
    """What the client was told: the result of its call, and the progress before."""

    result: types.CallToolResult
    progress: list[str]

    @property
    def content(self) -> Any:
        """The first block."""
        assert not self.result.is_error, self.text
        return self.result.content[0]

    @property
    def text(self) -> str:
        block = self.result.content[0]
        assert isinstance(block, types.TextContent)
        return block.text

    @property
    def value(self) -> Any:
        """The JSON of the first block."""
        assert not self.result.is_error, self.text
        return json.loads(self.text)

    @property
    def notes(self) -> list[str]:
        """The texts of all blocks but the first."""
        notes = [block.text for block in self.result.content[1:] if isinstance(block, types.TextContent)]
        assert len(notes) == len(self.result.content) - 1
        return notes

    @property
    def error(self) -> dict[str, Any]:
        """The error as an object, which stands below the line for people in the only block."""
        assert self.result.is_error, self.text
        assert (len(self.result.content), self.result.structured_content) == (1, None)
        line, _, told = self.text.rpartition("\n")
        error: dict[str, Any] = json.loads(told)
        assert line.startswith(error["message"].removesuffix("."))
        return error

    @property
    def everything(self) -> str:
        """All that the client got to see."""
        return "\n".join([self.result.model_dump_json(), *self.progress])


class Caller:
    """A client connected to a server of ours, in memory, on the driven clock."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, tool: str, /, *, within: float = 0.5, **arguments: Any) -> Told:
        """What a call was told that is over within these simulated seconds."""
        lines: list[str] = []
        results: list[types.CallToolResult] = []

        async def note(progress: float, total: float | None, message: str | None) -> None:
            lines.append(message or "")

        async def send() -> None:
            results.append(await self._client.call_tool(tool, arguments, progress_callback=note))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await settle()
            for _ in range(round(within * 4)):
                if results:
                    break
                await pass_time(0.25)
            tasks.cancel_scope.cancel()
        assert results, f"not over after {within} s: {lines}"
        return Told(results[0], lines)

    async def annotations(self, tool: str) -> dict[str, bool]:
        """The hints that the client lists a tool with."""
        listed = await self._client.list_tools()
        (found,) = [one.annotations for one in listed.tools if one.name == tool]
        assert found is not None
        hints: dict[str, bool] = found.model_dump(by_alias=True, exclude_none=True)
        return hints


@asynccontextmanager
async def connected(environment: Mapping[str, str], **changes: str | None) -> AsyncIterator[Caller]:
    """A client of a server with this environment; a change of None leaves that variable out."""
    changed = {name: value for name, value in {**environment, **changes}.items() if value is not None}
    settings = read_settings({}, changed)
    async with Client(build_server(Gateway(build_catalog(TOOLS, settings), settings)), mode="auto") as client:
        yield Caller(client)


@dataclass(frozen=True)
class Sent:
    """A request as it reached the provider, without what any HTTP client sends by itself; a JSON body as its value."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any = None


def requests(simulator: Simulator) -> list[RecordedRequest]:
    """What the server has sent; what a test has sent from outside is left out."""
    return [request for request in simulator.requests if is_from_server(request)]


def methods(simulator: Simulator) -> list[str]:
    """The methods alone."""
    return [request.method for request in requests(simulator)]


def wire(simulator: Simulator) -> list[Sent]:
    """The same, to be compared whole."""
    return list(map(_sent, requests(simulator)))


def _sent(request: RecordedRequest) -> Sent:
    headers = {name: value for name, value in request.headers if name not in TRANSPORT}
    is_json = headers.get("content-type") == "application/json"
    return Sent(request.method, request.path, headers, json.loads(request.body) if is_json else request.body or None)
