"""Who may call a server over HTTP: checks of the Host and Origin headers, and bearer tokens."""

import hmac
from collections.abc import Mapping

from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_taskruns.core.calls.addresses import LOOPBACK
from mcp_taskruns.errors import SettingsError
from mcp_taskruns.settings import Settings

UNAUTHORIZED = "A valid bearer token is required."


class HostCheck:
    """Reject requests whose Host or Origin is not this server, which browsers send for other websites.

    Raises SettingsError if the server would accept requests from other machines without a token.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.host not in LOOPBACK and not (settings.tokens or settings.insecure):
            raise SettingsError(
                f"--host {settings.host} lets other machines call this server with your credentials; set "
                "MCP_TASKRUNS_TOKENS to a list of bearer tokens, or use --insecure if access is restricted otherwise"
            )
        names = [*sorted(LOOPBACK), settings.host, *settings.allowed_hosts]
        hosts = [f"[{name}]" if ":" in name and not name.startswith("[") else name for name in names]
        patterns = [pattern for host in hosts for pattern in (host, f"{host}:*")]
        # Set for every host: by default the SDK checks nothing if the host is not loopback.
        self.security = TransportSecuritySettings(
            allowed_hosts=patterns,
            allowed_origins=[f"{scheme}://{pattern}" for scheme in ("http", "https") for pattern in patterns],
        )

    async def __call__(self, request: Request) -> Response | None:
        """Return a response if the request is rejected."""
        return await TransportSecurityMiddleware(self.security).validate_request(request)


class BearerTokens:
    """ASGI middleware that requires one of the tokens, except for /health.

    `refusal` is the response to other requests.
    """

    def __init__(self, app: ASGIApp, tokens: tuple[str, ...], refusal: Response | None = None) -> None:
        self._app = app
        self._refusal = refusal or Response(f"{UNAUTHORIZED}\n", 401, {"WWW-Authenticate": "Bearer"})
        self._tokens = [token.encode() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_public = scope.get("path") == "/health" and scope.get("method") in {"GET", "HEAD"}
        if scope["type"] == "http" and not is_public and not self._is_authorized(dict(scope["headers"])):
            await self._refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_authorized(self, headers: Mapping[bytes, bytes]) -> bool:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        # Compare with all tokens, each in constant time, so that the duration reveals nothing.
        matches = [hmac.compare_digest(token.strip(), known) for known in self._tokens]
        return scheme.lower() == b"bearer" and any(matches)
