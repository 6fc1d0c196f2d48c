"""MCP over HTTP as an ASGI app."""

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from mcp_taskruns import __version__
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.servers.bodies import MAX_BODY_BYTES, BodyBudget
from mcp_taskruns.servers.guard import guard
from mcp_taskruns.servers.mcp.messages import MessageLimit
from mcp_taskruns.servers.mcp.server import build_server
from mcp_taskruns.servers.mcp.sessions import (
    IDLE_SECONDS,
    MAX_SESSIONS,
    Sessions,
    cancel_with_request,
    hide_session_ids,
)
from mcp_taskruns.settings import Settings


def build_http_app(gateway: Gateway, settings: Settings, bodies: BodyBudget | None = None) -> ASGIApp:
    """Return an app with MCP at /mcp and a health check at /health.

    Raises SettingsError if it would accept requests from other machines without a token.
    """

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "version": __version__, "tools": len(gateway.tools)})

    server = build_server(gateway, is_watched=settings.watch)
    server.middleware.append(cancel_with_request)
    hide_session_ids()
    manager = StreamableHTTPSessionManager(
        server,
        session_idle_timeout=IDLE_SECONDS,
        max_request_body_size=MAX_BODY_BYTES,
        max_sessions=MAX_SESSIONS,
    )
    app = Starlette(
        routes=[Route("/mcp", MessageLimit(Sessions(manager.handle_request))), Route("/health", health)],
        lifespan=lambda _: manager.run(),
    )
    return guard(app, settings, bodies)
