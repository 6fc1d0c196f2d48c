"""Assembly: settings to a running server."""

import asyncio
import gc
import hmac
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from mcp_taskruns import __version__
from mcp_taskruns.core.masking import Mask
from mcp_taskruns.core.request import LOOPBACK
from mcp_taskruns.errors import SettingsError
from mcp_taskruns.gateway import Gateway
from mcp_taskruns.loader import load_tools
from mcp_taskruns.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

SHUTDOWN_SECONDS = 1
"""How long calls under way may take to end when the HTTP server is stopped."""

logger = logging.getLogger(__name__)


def build_gateway(settings: Settings) -> Gateway:
    """The gateway of the settings' capabilities.

    Raises CapabilityError and SettingsError for what the operator has to mend.
    """
    tools = load_tools(settings.capabilities, overlays=not settings.no_overlays, names=settings.tool_names)
    return Gateway(tools, settings)


async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve until the client leaves (stdio), or until SIGINT or SIGTERM; an HTTP server's address is announced."""
    async with simulated(settings) as effective:
        gateway = build_gateway(effective)
        configure_logging(effective, gateway.mask)
        if effective.transport == "http":
            await _serve_http(gateway, effective, announce)
        else:
            await _serve_stdio(gateway)


@asynccontextmanager
async def simulated(settings: Settings) -> AsyncIterator[Settings]:
    """With `simulate`, the settings pointed at simulated providers that run inside this process."""
    if not settings.simulate:
        yield settings
        return
    from mcp_taskruns.simulator.app import Simulator, serve

    simulator = Simulator(speed=settings.speed)
    async with serve(simulator) as origin:
        yield replace(settings, environment={**settings.environment, **simulator.environment(origin)})


@contextmanager
def until_signalled() -> Iterator[anyio.CancelScope]:
    """A block on the event loop that SIGINT and SIGTERM end; while it ends, further ones change nothing."""
    with anyio.CancelScope() as block, _on_signal(block.cancel):
        yield block


@contextmanager
def _on_signal(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def handle(*_: object) -> None:
        with suppress(RuntimeError):  # the loop has ended before us
            loop.call_soon_threadsafe(stop)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _importing() -> Iterator[None]:
    """What the SDK's import makes stays: to look for garbage in it meanwhile takes a tenth of the start."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _serve_stdio(gateway: Gateway) -> None:
    with _importing():
        from mcp_taskruns.mcp_adapter import build_server

    server = build_server(gateway)
    if sys.platform == "win32":  # pragma: no cover - the event loop there cannot wait for standard input
        from mcp.server.stdio import stdio_server

        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
        return
    from mcp_taskruns.stdio import serve_stdio

    with until_signalled():
        await serve_stdio(server)


async def _serve_http(gateway: Gateway, settings: Settings, announce: Callable[[str], None]) -> None:
    import uvicorn

    class QuietServer(uvicorn.Server):
        """Signals are ours: uvicorn raises them again after shutdown, which ends the process with an error."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    server = QuietServer(
        uvicorn.Config(
            build_http_app(gateway, settings),
            http="h11",  # httptools does not strip white space around header values as RFC 9110 asks
            lifespan="on",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
    )

    def stop() -> None:
        gateway.stop()
        # What clients leave open is cut then: no error, and no reason for a traceback.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        server.should_exit = True

    with _listen(settings) as listener, _on_signal(stop):
        host, port = listener.getsockname()[:2]
        announce(f"MCP on http://{f'[{host}]' if ':' in host else host}:{port}/mcp (Ctrl-C stops)")
        await server.serve([listener])


def _listen(settings: Settings) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=512)
    except OSError as exc:
        reason = exc.strerror or exc
        raise SettingsError(f"cannot listen on {settings.host}:{settings.port}: {reason}") from exc
    # Its connections inherit this; asyncio sees to it for its own sockets only. An answer would wait 40 ms otherwise.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def build_http_app(gateway: Gateway, settings: Settings) -> "ASGIApp":
    """The ASGI app: MCP at /mcp, health at /health.

    Raises SettingsError when it would listen beyond this machine without asking who calls.
    """
    from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    from mcp_taskruns.mcp_adapter import build_server
    from mcp_taskruns.stdio import MAX_MESSAGE_BYTES

    if settings.host not in LOOPBACK and not (settings.tokens or settings.insecure):
        raise SettingsError(
            f"--host {settings.host} lets other machines call this server with your keys: set MCP_TASKRUNS_TOKENS to "
            "the bearer tokens that may, or give --insecure if something else keeps strangers out"
        )

    names = [*sorted(LOOPBACK), settings.host, *settings.allowed_hosts]
    hosts = [f"[{name}]" if ":" in name and not name.startswith("[") else name for name in names]
    patterns = [pattern for host in hosts for pattern in (host, f"{host}:*")]
    # Given whatever the address: with a host that is not loopback the SDK's default checks nothing.
    security = TransportSecuritySettings(
        allowed_hosts=patterns,
        allowed_origins=[f"{scheme}://{pattern}" for scheme in ("http", "https") for pattern in patterns],
    )

    async def health(request: Request) -> Response:
        refusal = await TransportSecurityMiddleware(security).validate_request(request)
        return refusal or JSONResponse({"status": "ok", "version": __version__, "tools": len(gateway.tools)})

    app: ASGIApp = build_server(gateway).streamable_http_app(
        streamable_http_path="/mcp",
        host=settings.host,
        max_request_body_size=MAX_MESSAGE_BYTES,  # files of up to 30 MiB, in base64
        transport_security=security,
        custom_starlette_routes=[Route("/health", health)],
    )
    return BearerTokens(app, settings.tokens) if settings.tokens else app


class BearerTokens:
    """Lets only requests with one of the tokens reach /mcp."""

    def __init__(self, app: "ASGIApp", tokens: tuple[str, ...]) -> None:
        self._app = app
        self._tokens = [token.encode() for token in tokens]

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] == "http" and scope["path"] != "/health" and not self._is_known(dict(scope["headers"])):
            await send(
                {
                    "type": "http.response.start",
                    "status": 401,
                    "headers": [(b"www-authenticate", b"Bearer"), (b"content-type", b"text/plain; charset=utf-8")],
                }
            )
            await send({"type": "http.response.body", "body": b"A bearer token of this server is needed.\n"})
            return
        await self._app(scope, receive, send)

    def _is_known(self, headers: Mapping[bytes, bytes]) -> bool:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        # All are compared, each in constant time: how long it takes tells nothing.
        matches = [hmac.compare_digest(token.strip(), known) for known in self._tokens]
        return scheme.lower() == b"bearer" and any(matches)


def configure_logging(settings: Settings, mask: Mask) -> None:
    """Log to standard error, without secrets."""
    handler = logging.StreamHandler()
    handler.setFormatter(_MaskingFormatter(mask))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    # These log what they pass on, and with it arguments, answers and perhaps credentials.
    for name in ("httpx", "httpcore", "sse_starlette"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _MaskingFormatter(logging.Formatter):
    def __init__(self, mask: Mask) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        return self._mask.text(super().format(record))
