"""The ways a client reaches the server: in memory, over stdio, over HTTP."""

import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Literal, TextIO

import anyio
import uvicorn
from mcp.client import Client, ClientExtension
from mcp.client.stdio import StdioServerParameters, stdio_client
from starlette.types import ASGIApp

from mcp_taskruns.app import build_http_app
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.loading.catalog import build_catalog
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.servers.mcp.server import build_server
from mcp_taskruns.settings import Settings, read_settings

Door = Literal["memory", "stdio", "http"]
Era = Literal["legacy", "auto"]
"""The SDK's names: the handshake of 2025-11-25, or a probe that finds 2026-07-28."""


def open_gateway(environment: Mapping[str, str], **flags: object) -> Gateway:
    """A gateway with the shipped tools and these settings."""
    settings = read_settings(flags, environment)
    tools = load_tools(settings.capabilities, overlays=not settings.no_overlays)
    return Gateway(build_catalog(tools, settings), settings)


@asynccontextmanager
async def open_client(
    door: Door,
    era: Era,
    environment: Mapping[str, str],
    errors: TextIO = sys.stderr,
    extensions: Sequence[ClientExtension] = (),
    command: Sequence[str] = ("-m", "mcp_taskruns"),
) -> AsyncIterator[Client]:
    """A connected client; `errors` gets the log of a server that is a process of its own, and `command` starts it."""
    if door == "memory":
        server = build_server(open_gateway(environment))
        async with Client(server, mode=era, extensions=extensions) as client:
            yield client
    elif door == "stdio":
        process = StdioServerParameters(command=sys.executable, args=list(command), env=dict(environment))
        async with Client(stdio_client(process, errlog=errors), mode=era, extensions=extensions) as client:
            yield client
    else:
        app = build_http_app(open_gateway(environment), Settings())
        async with listening(app) as origin, Client(f"{origin}/mcp", mode=era, extensions=extensions) as client:
            yield client


@asynccontextmanager
async def listening(app: ASGIApp) -> AsyncIterator[str]:
    """The app on a loopback port; yields its origin."""
    with socket.create_server(("127.0.0.1", 0)) as server_socket:
        # Inherited by its connections: an answer in two parts would wait for 40 ms.
        server_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = uvicorn.Server(
            uvicorn.Config(app, http="h11", log_config=None, access_log=False, timeout_graceful_shutdown=1)
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server._serve, [server_socket])  # `serve` would take the test run's signals
            try:
                yield f"http://127.0.0.1:{server_socket.getsockname()[1]}"
            finally:
                server.should_exit = True
