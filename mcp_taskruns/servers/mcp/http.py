"""MCP over HTTP as an ASGI app."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from mcp_taskruns import __version__
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.servers.access import BearerTokens, HostCheck
from mcp_taskruns.servers.mcp.pipes import MAX_MESSAGE_BYTES
from mcp_taskruns.servers.mcp.server import build_server
from mcp_taskruns.settings import Settings


def build_http_app(gateway: Gateway, settings: Settings) -> ASGIApp:
    """Return an app with MCP at /mcp and a health check at /health.

    Raises SettingsError if it would accept requests from other machines without a token.
    """
    check = HostCheck(settings)

    async def health(request: Request) -> Response:
        refusal = await check(request)
        return refusal or JSONResponse({"status": "ok", "version": __version__, "tools": len(gateway.tools)})

    app: ASGIApp = build_server(gateway, is_watched=settings.watch).streamable_http_app(
        streamable_http_path="/mcp",
        host=settings.host,
        max_request_body_size=MAX_MESSAGE_BYTES,  # as over stdio; a file of 30 MiB in base64 fits
        transport_security=check.security,
        custom_starlette_routes=[Route("/health", health)],
    )
    return BearerTokens(app, settings.tokens) if settings.tokens else app
