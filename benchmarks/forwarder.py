"""A hand-written server: the SDK's low-level server, one shared HTTP client and no checks.

Its only tool does the work of `render-retrieve-task-run`. It checks no argument, status code or response size, so the
measured server has to save this work elsewhere.
"""

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import uvicorn
from mcp import types
from mcp.server import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"taskRunId": {"type": "string", "description": "The run's ID (trn-...)."}},
    "required": ["taskRunId"],
}
TOOL = types.Tool(
    name="render-retrieve-task-run",
    description="Retrieve the workflow task run with the provided ID.",
    input_schema=SCHEMA,
)
Context = ServerRequestContext[httpx2.AsyncClient]


@asynccontextmanager
async def lifespan(_server: Server[httpx2.AsyncClient]) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"Authorization": f"Bearer {os.environ['RENDER_API_KEY']}"}
    async with httpx2.AsyncClient(base_url=os.environ["RENDER_BASE_URL"], headers=headers, timeout=30) as client:
        yield client


async def list_tools(_context: Context, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    return types.ListToolsResult(tools=[TOOL])


async def call_tool(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    arguments = params.arguments or {}
    response = await context.lifespan_context.get(f"/task-runs/{arguments['taskRunId']}")
    return types.CallToolResult(content=[types.TextContent(type="text", text=response.text)])


async def serve_stdio(server: Server[httpx2.AsyncClient]) -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transport", choices=["stdio", "http"], default="stdio")
    parser.add_argument("--port", type=int, default=8000)
    flags = parser.parse_args()
    server = Server(
        "forwarder",
        version="1",
        lifespan=lifespan,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        get_tool_input_schema={TOOL.name: SCHEMA}.get,
    )
    if flags.transport == "stdio":
        anyio.run(serve_stdio, server)
    else:
        app = server.streamable_http_app()
        uvicorn.run(app, port=flags.port, http="h11", log_config=None, access_log=False)


if __name__ == "__main__":
    main()
