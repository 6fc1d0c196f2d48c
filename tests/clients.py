"""Gateways, servers and clients: in memory, over stdio and over HTTP."""

import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Literal, TextIO

import anyio
import uvicorn
from mcp.client import Client, ClientExtension
from mcp.client.stdio import StdioServerParameters, stdio_client
from starlette.types import ASGIApp

from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.loading.catalog import build_catalog
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.servers.mcp.http import build_http_app
from mcp_taskruns.servers.mcp.server import build_server
from mcp_taskruns.settings import Settings, read_settings

Transport = Literal["memory", "stdio", "http"]
Era = Literal["legacy", "auto"]
"""The SDK's names for the protocol versions: 2025-11-25 with a handshake; a probe that detects 2026-07-28."""


@cache
def load_builtin_tools(*, overlays: bool) -> tuple[Tool, ...]:
    """Load the built-in tools once, which takes longer than most tests."""
    return load_tools((), overlays=overlays)


def open_gateway(environment: Mapping[str, str], **flags: object) -> Gateway:
    """Return a gateway with these settings and the tools of their capability files, or the built-in ones."""
    settings = read_settings(flags, environment)
    overlays = not settings.no_overlays
    paths = settings.capabilities
    tools = load_tools(paths, overlays=overlays) if paths else load_builtin_tools(overlays=overlays)
    return Gateway(build_catalog(tools, settings), settings)


@asynccontextmanager
async def open_client(
    transport: Transport,
    era: Era,
    environment: Mapping[str, str],
    errors: TextIO = sys.stderr,
    extensions: Sequence[ClientExtension] = (),
    command: Sequence[str] = ("-m", "mcp_taskruns"),
) -> AsyncIterator[Client]:
    """Connect a client. For stdio, `command` starts the server process, whose log is written to `errors`."""
    if transport == "memory":
        server = build_server(open_gateway(environment))
        async with Client(server, mode=era, extensions=extensions) as client:
            yield client
    elif transport == "stdio":
        process = StdioServerParameters(command=sys.executable, args=list(command), env=dict(environment))
        async with Client(stdio_client(process, errlog=errors), mode=era, extensions=extensions) as client:
            yield client
    else:
        app = build_http_app(open_gateway(environment), Settings())
        async with listening(app) as origin, Client(f"{origin}/mcp", mode=era, extensions=extensions) as client:
            yield client


class _Server(uvicorn.Server):
    """A server that stops immediately. uvicorn's own checks ten times a second whether to stop."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(app, http="h11", log_config=None, access_log=False, timeout_graceful_shutdown=1)
        )
        self.stopping = anyio.Event()

    async def main_loop(self) -> None:
        await self.stopping.wait()


@asynccontextmanager
async def listening(app: ASGIApp) -> AsyncIterator[str]:
    """Serve the app on a loopback port and yield its origin."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Connections inherit it. Without it, a response in two parts takes 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = _Server(app)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server._serve, [listener])  # `serve` would handle the signals of the test run
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.stopping.set()
