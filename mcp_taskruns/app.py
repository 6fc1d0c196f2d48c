"""Assemble a server from the settings, and run it."""

import shlex
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio

from mcp_taskruns.core.calls.credentials import weak_credentials
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.reload import watch
from mcp_taskruns.errors import CapabilityError
from mcp_taskruns.garbage import pause_collection
from mcp_taskruns.loading.catalog import Catalog, build_catalog
from mcp_taskruns.loading.files import capability_folders, paths_to_load
from mcp_taskruns.loading.loader import Loaded, load
from mcp_taskruns.logs import configure_logging
from mcp_taskruns.settings import Settings
from mcp_taskruns.signals import call_on_signal

Notify = Callable[[str], None]
"""Show a line to the operator."""


def _ignore(_: str) -> None:
    """Ignore a line for the operator."""


def build_gateway(settings: Settings, notify: Notify = _ignore) -> Gateway:
    """Return a gateway to the tools of the configured capability files; `notify` reports files that are not served.

    Raises CapabilityError if no file can be served or, with `strict`, if one cannot. Raises SettingsError for settings
    that match nothing.
    """
    gateway, _ = load_gateway(settings, notify)
    return gateway


def load_gateway(settings: Settings, notify: Notify) -> tuple[Gateway, Loaded]:
    """Return a gateway as `build_gateway` does, and the capability files that it serves."""
    loaded = _load(settings)
    if loaded.problems and (settings.strict or not (loaded.tools or loaded.rest_tools)):
        raise loaded.problems[0]
    for problem in loaded.problems:
        notify(f"{problem} (this file is not served; run `{_check_command(settings)}` for details)")
    return Gateway(_build_catalog(loaded, settings), settings), loaded


def _check_command(settings: Settings) -> str:
    more = ["--with", ",".join(settings.with_)] if settings.with_ else []
    return shlex.join(["mcp-taskruns", "check", *settings.capabilities, *more])


def _load(settings: Settings, previous: Loaded | None = None) -> Loaded:
    return load(
        paths_to_load(settings.capabilities, settings.with_),
        overlays=not settings.no_overlays,
        names=settings.tool_names,
        base_uris=settings.base_uris,
        rest=settings.rest,
        previous=previous.capabilities if previous else None,
    )


def _build_catalog(loaded: Loaded, settings: Settings) -> Catalog:
    tools, rest_tools = loaded.tools, loaded.rest_tools
    if settings.simulator:
        tools, rest_tools = _simulate_tools(tools, settings), _simulate_tools(rest_tools, settings)
    return build_catalog(tools, settings, rest_tools, is_complete=not loaded.problems)


def _simulate_tools(tools: Sequence[Tool], settings: Settings) -> tuple[Tool, ...]:
    """Disable the tools of providers that are not simulated: with --simulate no call leaves this machine."""
    return tuple(tool if _is_simulated(tool, settings) else _disable(tool) for tool in tools)


def _is_simulated(tool: Tool, settings: Settings) -> bool:
    base_uris = [settings.environment.get(name, "") for name in tool.operation.base.variables]
    return any(base_uri.startswith(settings.simulator) for base_uri in base_uris)


def _disable(tool: Tool) -> Tool:
    reason = f"there is no simulated {tool.prefix}, and this server runs with --simulate"
    return replace(tool, operation=replace(tool.operation, unsupported=reason), runs=None)


def notes_for_operator(gateway: Gateway, settings: Settings) -> list[str]:
    """Return what the operator should know about the routes and the credentials."""
    weak = dict.fromkeys(weak_credentials(gateway.catalog.operations, settings.environment))
    return [*gateway.catalog.notes, *weak]


async def serve(settings: Settings, notify: Notify) -> None:
    """Serve until the client disconnects (stdio), or until SIGINT or SIGTERM."""
    async with simulate_if_requested(settings) as effective:
        with pause_collection():
            gateway, loaded = load_gateway(effective, notify)
        for note in notes_for_operator(gateway, effective):
            notify(note)
        configure_logging(effective.log_level, gateway.redactor)
        async with watch_if_requested(gateway, effective, loaded, notify):
            if effective.transport == "http" or effective.rest:
                await _serve_http(gateway, effective, notify)
            else:
                await _serve_stdio(gateway, effective)


@asynccontextmanager
async def simulate_if_requested(settings: Settings) -> AsyncIterator[Settings]:
    """Run simulated providers in this process if the settings request it, and yield settings that refer to them."""
    if not settings.simulate:
        yield settings
        return
    async with run_simulator(settings.speed) as (origin, environment):
        yield replace(settings, environment={**settings.environment, **environment}, simulator=origin)


@asynccontextmanager
async def run_simulator(speed: float, port: int = 0) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """Run the simulated providers on a loopback port; yield their origin and the environment variables for it.

    Raises OSError if the port cannot be used.
    """
    from mcp_taskruns.simulator import app, server  # four providers that a server does not need

    simulator = app.Simulator(speed=speed)
    async with server.serve(simulator, port=port) as origin:
        yield origin, simulator.environment(origin)


@asynccontextmanager
async def watch_if_requested(
    gateway: Gateway, settings: Settings, loaded: Loaded, notify: Notify
) -> AsyncIterator[None]:
    """Reload changed capability files in the block if the settings request it.

    `loaded` is what the gateway serves; its problems are not reported again.
    """
    if not settings.watch:
        yield
        return

    def build() -> tuple[Catalog, Sequence[CapabilityError]]:
        nonlocal loaded
        loaded = _load(settings, loaded)
        return _build_catalog(loaded, settings), loaded.problems

    folders = capability_folders(paths_to_load(settings.capabilities, settings.with_))
    known = [str(problem) for problem in loaded.problems]
    stopped = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, gateway, folders, build, known, notify, stopped)
        try:
            yield
        finally:
            stopped.set()  # watching uses a thread, which cannot be cancelled


async def _serve_stdio(gateway: Gateway, settings: Settings) -> None:
    with pause_collection():
        from mcp_taskruns.servers.mcp.stdio import run  # the SDK is most of the start; other commands do not need it

    await run(gateway, is_watched=settings.watch)


async def _serve_http(gateway: Gateway, settings: Settings, notify: Notify) -> None:
    """Serve MCP over HTTP, or over stdio beside the REST API."""
    with pause_collection():
        from mcp_taskruns.servers.http import open_servers  # the REST API and its pages; stdio alone does not need them

    with open_servers(gateway, settings) as servers:

        def stop() -> None:
            gateway.stop()
            servers.stop()

        if settings.transport == "http":
            with call_on_signal(lambda _: stop()):
                await servers.serve(notify)
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(servers.serve, notify)
            await _serve_stdio(gateway, settings)
            stop()
