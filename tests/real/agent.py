"""An agent: an MCP client of mcp-taskruns, which runs as a process of its own and uses a real server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp.client import Client

from tests.clients import open_client
from tests.providers.driver import ToolResult
from tests.real.servers import Server

WAIT = 300
"""Seconds that a call may wait for a run; the runs take less than a minute on an idle machine."""


class Agent:
    """Calls the tools of one provider."""

    def __init__(self, client: Client, provider: str) -> None:
        self._client = client
        self._provider = provider

    async def call(self, tool: str, /, **arguments: Any) -> ToolResult:
        """Call a tool by its name without the provider's."""
        messages: list[str] = []

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            messages.append(message or "")

        name = f"{self._provider}-{tool}"
        return ToolResult(await self._client.call_tool(name, arguments, progress_callback=on_progress), messages)


@asynccontextmanager
async def agent(server: Server, provider: str, **variables: str) -> AsyncIterator[Agent]:
    """Connect an agent; `variables` change the environment of mcp-taskruns."""
    environment = {**server.variables, **variables, "MCP_TASKRUNS_MAX_WAIT_SECONDS": str(WAIT)}
    command = ("-m", "mcp_taskruns", "--with", provider, "--only", provider)
    async with open_client("stdio", "auto", environment, command=command) as client:
        yield Agent(client, provider)
