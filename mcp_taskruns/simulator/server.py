"""Serve the simulator on a socket."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import uvicorn

from mcp_taskruns.simulator.app import Simulator

SHUTDOWN_SECONDS = 2


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals alone and stops at once even while streams are open."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stopping = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        # uvicorn's own loop polls ten times a second for the stop flag. A tick a second keeps the Date header current.
        while not self.stopping.is_set():
            await self.on_tick(0)
            with anyio.move_on_after(1):
                await self.stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        tasks = list(self.server_state.tasks)
        for connection in list(self.server_state.connections):
            connection.transport.close()
        # Open streams end when they notice the disconnect. Cancel those that do not.
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=SHUTDOWN_SECONDS)
            for task in stuck:
                task.cancel()
            if stuck:
                await asyncio.wait(stuck, timeout=SHUTDOWN_SECONDS)


@asynccontextmanager
async def serve(simulator: Simulator, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve the simulator in the running asyncio event loop and yield its origin; port 0 picks a free port.

    On exit, open connections are closed. Raises OSError when the port is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=512) as listener:
        # Accepted connections inherit this. asyncio does not set it for them, which delays a response by 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = _Server(_configure(simulator))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        url_host = f"[{host}]" if ":" in host else host
        try:
            # The socket already accepts connections. Requests wait until uvicorn has started.
            yield f"http://{url_host}:{listener.getsockname()[1]}"
        finally:
            server.stopping.set()
            with anyio.CancelScope(shield=True):
                await serving


def _configure(simulator: Simulator) -> uvicorn.Config:
    # Silence uvicorn's loggers: they report connections that the simulator drops on purpose as errors.
    return uvicorn.Config(
        simulator.app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level=logging.CRITICAL,
        access_log=False,
        server_header=False,
    )
