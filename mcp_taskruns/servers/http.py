"""The HTTP servers that the settings request: MCP, the REST API, or both."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.servers.bodies import BodyBudget
from mcp_taskruns.servers.listeners import HttpServers, Listener, listen
from mcp_taskruns.servers.mcp.http import build_http_app
from mcp_taskruns.servers.rest.app import build_rest_app
from mcp_taskruns.settings import Settings


@contextmanager
def open_servers(gateway: Gateway, settings: Settings) -> Iterator[HttpServers]:
    """Open the sockets of the servers, which are closed at the end of the block. Raises SettingsError."""
    listeners: list[Listener] = []
    bodies = BodyBudget()
    with ExitStack() as sockets:
        if settings.transport == "http":
            socket = sockets.enter_context(listen(settings.host, settings.port))
            app = build_http_app(gateway, settings, bodies)
            listeners.append(Listener(socket, app, "MCP on {}/mcp (Ctrl-C stops)"))
        if settings.rest:
            socket = sockets.enter_context(listen(settings.host, settings.rest_port))
            announcement = "REST on {} (docs at /docs, OpenAPI at /openapi.json)"
            listeners.append(Listener(socket, build_rest_app(gateway, settings, bodies), announcement))
        yield HttpServers(listeners)
