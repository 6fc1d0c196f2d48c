"""Assembly: settings to a running server."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from mcp_taskruns import __version__
from mcp_taskruns.core.calls.redaction import Redactor
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.loading.catalog import Catalog, build_catalog
from mcp_taskruns.loading.files import capability_folders
from mcp_taskruns.loading.loader import Loaded, load
from mcp_taskruns.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

logger = logging.getLogger(__name__)


Tell = Callable[[str], None]


def build_gateway(settings: Settings, tell: Tell | None = None) -> Gateway:
    """The gateway of the settings' capabilities; `tell` is told of files that cannot be served.

    Raises CapabilityError and SettingsError for what the operator has to mend, with `strict` also for one such file.
    """
    loaded = _load(settings)
    if loaded.problems and (settings.strict or not (loaded.tools or loaded.rest_tools)):
        raise loaded.problems[0]
    for problem in loaded.problems:
        if tell is not None:
            tell(str(problem))
    return Gateway(_catalog(loaded, settings), settings)


def _load(settings: Settings, previous: Loaded | None = None) -> Loaded:
    """Load the capability files that the settings name."""
    return load(
        settings.capabilities,
        overlays=not settings.no_overlays,
        names=settings.tool_names,
        base_uris=settings.base_uris,
        rest=settings.rest,
        previous=previous.capabilities if previous else None,
    )


def not_served(problem: str) -> str:
    """The line for an operator about a file that is left out."""
    return f"{problem} (this file is not served; `mcp-taskruns check` says where it is wrong)"


def _catalog(loaded: Loaded, settings: Settings) -> Catalog:
    if settings.simulator:
        loaded = replace(
            loaded,
            tools=tuple(_simulated(tool, settings) for tool in loaded.tools),
            rest_tools=tuple(_simulated(tool, settings) for tool in loaded.rest_tools),
        )
    return build_catalog(loaded.tools, settings, loaded.rest_tools, is_complete=not loaded.problems)


def _simulated(tool: Tool, settings: Settings) -> Tool:
    """The tool, of which no call leaves this machine: who simulates does not expect it."""
    addresses = [settings.environment.get(name, "") for name in tool.operation.base.variables]
    if any(address.startswith(settings.simulator) for address in addresses):
        return tool
    reason = f"there is no simulated {tool.prefix}: this server runs with --simulate"
    return replace(tool, operation=replace(tool.operation, unsupported=reason), runs=None)


async def serve(settings: Settings, announce: Tell) -> None:
    """Serve until the client leaves (stdio), or until SIGINT or SIGTERM; addresses of HTTP servers are announced."""
    async with simulated(settings) as effective:
        problems: list[str] = []
        gateway = build_gateway(effective, problems.append)
        for told in (*map(not_served, problems), *gateway.catalog.notes):
            announce(told)
        configure_logging(effective, gateway.redactor)
        async with _watched(gateway, effective, problems, announce):
            if effective.transport == "http" or effective.rest:
                await _serve_sockets(gateway, effective, announce)
            else:
                await _serve_stdio(gateway, effective)


@asynccontextmanager
async def _watched(gateway: Gateway, settings: Settings, known: Sequence[str], announce: Tell) -> AsyncIterator[None]:
    """With `watch`, a block in which changed capability files are served anew; `known` is what is wrong already."""
    if not settings.watch:
        yield
        return
    from mcp_taskruns.engine.reload import watch

    loaded: Loaded | None = None

    def build() -> tuple[Catalog, list[str]]:
        nonlocal loaded
        loaded = _load(settings, loaded)
        return _catalog(loaded, settings), list(map(str, loaded.problems))

    folders = capability_folders(settings.capabilities)
    stopped = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, gateway, folders, build, known, announce, stopped)
        try:
            yield
        finally:
            stopped.set()  # the thread that waits for changes cannot be cancelled


@asynccontextmanager
async def simulated(settings: Settings) -> AsyncIterator[Settings]:
    """With `simulate`, the settings pointed at simulated providers that run inside this process."""
    if not settings.simulate:
        yield settings
        return
    from mcp_taskruns.simulator.app import Simulator
    from mcp_taskruns.simulator.server import serve

    simulator = Simulator(speed=settings.speed)
    async with serve(simulator) as origin:
        environment = {**settings.environment, **simulator.environment(origin)}
        yield replace(settings, environment=environment, simulator=origin)


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


async def _serve_stdio(gateway: Gateway, settings: Settings) -> None:
    with _importing():
        from mcp_taskruns.servers.mcp.server import build_server

    server = build_server(gateway, is_watched=settings.watch)
    if sys.platform == "win32":  # pragma: no cover - the event loop there cannot wait for standard input
        from mcp.server.stdio import stdio_server

        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
        return
    from mcp_taskruns.servers.mcp.stdio import serve_stdio

    with until_signalled():
        await serve_stdio(server)


async def _serve_sockets(gateway: Gateway, settings: Settings, announce: Tell) -> None:
    """MCP over HTTP or on standard input and output, and the REST side where it is asked for."""
    from mcp_taskruns.servers.http import HttpServers, Listener, listen

    listeners: list[Listener] = []
    with ExitStack() as sockets:
        if settings.transport == "http":
            socket = sockets.enter_context(listen(settings.host, settings.port))
            listeners.append(Listener(socket, build_http_app(gateway, settings), "MCP on {}/mcp (Ctrl-C stops)"))
        if settings.rest:
            socket = sockets.enter_context(listen(settings.host, settings.rest_port))
            told = "REST on {} (docs at /docs, OpenAPI at /openapi.json)"
            listeners.append(Listener(socket, build_rest_app(gateway, settings), told))
        servers = HttpServers(listeners)

        def stop() -> None:
            gateway.stop()
            servers.stop()

        if settings.transport == "http":
            with _on_signal(stop):
                await servers.serve(announce)
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(servers.serve, announce)
            await _serve_stdio(gateway, settings)
            stop()


def build_http_app(gateway: Gateway, settings: Settings) -> "ASGIApp":
    """The ASGI app: MCP at /mcp, health at /health.

    Raises SettingsError when it would listen beyond this machine without asking who calls.
    """
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    from mcp_taskruns.servers.http import BearerTokens, HostCheck
    from mcp_taskruns.servers.mcp.server import build_server
    from mcp_taskruns.servers.mcp.stdio import MAX_MESSAGE_BYTES

    check = HostCheck(settings)

    async def health(request: Request) -> Response:
        refusal = await check(request)
        return refusal or JSONResponse({"status": "ok", "version": __version__, "tools": len(gateway.tools)})

    app: ASGIApp = build_server(gateway, is_watched=settings.watch).streamable_http_app(
        streamable_http_path="/mcp",
        host=settings.host,
        max_request_body_size=MAX_MESSAGE_BYTES,  # files of up to 30 MiB, in base64
        transport_security=check.security,
        custom_starlette_routes=[Route("/health", health)],
    )
    return BearerTokens(app, settings.tokens) if settings.tokens else app


def build_rest_app(gateway: Gateway, settings: Settings) -> "ASGIApp":
    """The ASGI app of the REST side. Raises SettingsError as `build_http_app` does."""
    from mcp_taskruns.servers.http import BearerTokens, HostCheck
    from mcp_taskruns.servers.rest.app import RestApp, unauthorized

    app: ASGIApp = RestApp(gateway, HostCheck(settings), is_protected=bool(settings.tokens))
    return BearerTokens(app, settings.tokens, unauthorized()) if settings.tokens else app


def configure_logging(settings: Settings, mask: Redactor) -> None:
    """Log to standard error, without secrets."""
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter(mask))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    # These log what they pass on, and with it arguments, answers and perhaps credentials.
    for name in ("httpx", "httpcore", "sse_starlette"):
        logging.getLogger(name).setLevel(logging.WARNING)


class RedactingFormatter(logging.Formatter):
    def __init__(self, mask: Redactor) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        return self._mask.redact_text(super().format(record))
