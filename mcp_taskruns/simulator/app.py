"""The four providers as one ASGI app, with a record of what was sent to them and faults on request."""

import asyncio
import json
import logging
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import anyio
import uvicorn
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_taskruns.simulator.inngest import Inngest
from mcp_taskruns.simulator.lifecycle import Change, Clock
from mcp_taskruns.simulator.posthog.app import PostHog
from mcp_taskruns.simulator.render.app import Render
from mcp_taskruns.simulator.runway import Runway
from mcp_taskruns.simulator.wire import Json

# Enough for any test; a simulator that stays up for days must not grow for days.
MAX_RECORDED = 10_000
SHUTDOWN_SECONDS = 2


@dataclass(frozen=True)
class RecordedRequest:
    """One request as it arrived, `path` with its query and its escapes as sent, header names in lower case."""

    provider: str
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    # Set when the client disconnects before it has the whole answer.
    hung_up: anyio.Event = field(default_factory=anyio.Event, compare=False, repr=False)


@dataclass(frozen=True)
class Fault:
    """What happens to the next request of a provider, in its place or on top of its own answer.

    `delay` is in real seconds. Without a `status` the provider answers itself, after the delay. `cut` announces the
    whole body, sends half of its first part and drops the connection.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | bytes = b""
    delay: float = 0.0
    cut: bool = False

    def __post_init__(self) -> None:
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError("status must be between 200 and 599")
        if self.delay < 0:
            raise ValueError("delay must not be negative")
        if self.cut and self.status is not None and not self.body:
            raise ValueError("there must be a body to cut")


def parse_fault(given: Json) -> tuple[str, Fault]:
    """A fault from JSON, whose `body` may also be JSON to be sent as such."""
    if not isinstance(given, dict) or not isinstance(given.get("provider"), str):
        raise ValueError("a fault is an object with a provider")
    known = {"provider", "status", "headers", "body", "delay", "cut"}
    if unknown := set(given) - known:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    fields = {name: value for name, value in given.items() if name != "provider" and value is not None}
    try:
        if not isinstance(fields.get("body", ""), str):
            fields["body"] = json.dumps(fields["body"])
            fields["headers"] = {"Content-Type": "application/json"} | fields.get("headers", {})
        return given["provider"], Fault(**fields)
    except TypeError as error:
        raise ValueError(str(error)) from error


class Simulator:
    """Render, Inngest, PostHog and Runway below `/render`, `/inngest`, `/posthog` and `/runway`.

    Other processes use `POST /simulator/faults` ({provider, status, headers, body, delay, cut}) and
    `GET /simulator/requests`. There is no authentication for those and no TLS: it is meant for the loopback interface.
    `render` is made by its caller where it is to have rate limits; it should go by the same `clock`.
    """

    def __init__(self, *, speed: float = 1.0, clock: Clock | None = None, render: Render | None = None) -> None:
        self.clock = clock or Clock(speed)
        self.render = render or Render(self.clock)
        self.inngest = Inngest(self.clock)
        self.posthog = PostHog(self.clock)
        self.runway = Runway(self.clock)
        self._providers = (self.render, self.inngest, self.posthog, self.runway)
        self.requests: list[RecordedRequest] = []
        self._arrival = Change()
        self._faults: dict[str, deque[Fault]] = {provider.name: deque() for provider in self._providers}
        self.open: dict[str, set[anyio.CancelScope]] = {provider.name: set() for provider in self._providers}
        mounts = [Mount(f"/{provider.name}", routes=provider.routes()) for provider in self._providers]
        self.app = Starlette(
            routes=[
                *mounts,
                Route("/simulator/faults", self._post_fault, methods=["POST"]),
                Route("/simulator/requests", self._get_requests, methods=["GET"]),
            ],
            middleware=[Middleware(_Observer, simulator=self)],
        )

    def environment(self, origin: str) -> dict[str, str]:
        """The environment variables that send the server here instead of to the providers."""
        return {name: value for provider in self._providers for name, value in provider.environment(origin).items()}

    def fail_next(self, provider: str, fault: Fault) -> None:
        """Spoil the next request to `provider`; called again, the one after it."""
        if provider not in self._faults:
            raise ValueError(f"unknown provider {provider!r}; one of {', '.join(self._faults)}")
        self._faults[provider].append(fault)

    def cut_connections(self, provider: str) -> int:
        """Drop the connections on which answers of `provider` are under way, such as streams; how many there were."""
        scopes = list(self.open[provider])
        for scope in scopes:
            scope.cancel()
        return len(scopes)

    async def wait_for_request(self, wanted: Callable[[RecordedRequest], bool]) -> RecordedRequest:
        """The first recorded request that is wanted, now or when it arrives."""
        seen = 0
        while True:
            with self._arrival.watch() as arrived:
                for request in self.requests[seen:]:
                    if wanted(request):
                        return request
                seen = len(self.requests)
                await arrived.wait()

    def record(self, request: RecordedRequest) -> Fault | None:
        """Note a request that has arrived; the fault that was ordered for it, if any."""
        self.requests.append(request)
        del self.requests[:-MAX_RECORDED]
        self._arrival.announce()
        faults = self._faults[request.provider]
        return faults.popleft() if faults else None

    def provider_of(self, path: str) -> str | None:
        name = path.split("/", 2)[1] if path.startswith("/") else ""
        return name if name in self._faults else None

    async def _post_fault(self, request: Request) -> Response:
        try:
            self.fail_next(*parse_fault(json.loads(await request.body())))
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        return Response(status_code=204)

    async def _get_requests(self, _: Request) -> Response:
        return JSONResponse(
            [
                {
                    "provider": request.provider,
                    "method": request.method,
                    "path": request.path,
                    "headers": request.headers,
                    "body": request.body.decode(errors="replace"),
                    "hung_up": request.hung_up.is_set(),
                }
                for request in self.requests
            ]
        )


class _Observer:
    """Records what reaches a provider, sees the client leave, and puts faults in the way of answers."""

    def __init__(self, app: ASGIApp, simulator: Simulator) -> None:
        self._app = app
        self._simulator = simulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        provider = self._simulator.provider_of(scope["path"]) if scope["type"] == "http" else None
        body = await _read_body(receive) if provider else None
        if provider is None:
            await self._app(scope, receive, send)
            return
        if body is None:
            return
        raw_path, query = scope.get("raw_path") or scope["path"].encode(), scope["query_string"]
        request = RecordedRequest(
            provider,
            scope["method"],
            (raw_path + (b"?" + query if query else b"")).decode("latin-1"),
            tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]),
            body,
        )
        fault = self._simulator.record(request)
        answered = False
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        gone = anyio.Event()

        async def watch_client() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            if not answered:
                request.hung_up.set()
            gone.set()

        async def receive_again() -> Message:
            if unread:
                return unread.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async with anyio.create_task_group() as group:

            async def send_on(message: Message) -> None:
                nonlocal answered
                if fault and fault.cut and message.get("body"):
                    half = message["body"][: len(message["body"]) // 2]
                    answered = True
                    await send({"type": "http.response.body", "body": half, "more_body": True})
                    # An answer that is not finished when the app returns: the server drops the connection.
                    group.cancel_scope.cancel()
                    await checkpoint()
                if message["type"] == "http.response.body" and not message.get("more_body"):
                    answered = True
                await send(message)

            group.start_soon(watch_client)
            self._simulator.open[provider].add(group.cancel_scope)
            try:
                if fault:
                    with anyio.move_on_after(fault.delay):
                        await gone.wait()
                if not gone.is_set():
                    await (_faulty(fault) or self._app)(scope, receive_again, send_on)
            finally:
                self._simulator.open[provider].discard(group.cancel_scope)
            group.cancel_scope.cancel()


async def _read_body(receive: Receive) -> bytes | None:
    """The whole request body, or None if the client left while sending it."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk: bytes = message.get("body", b"")
        body += chunk
        if not message.get("more_body"):
            return body


def _faulty(fault: Fault | None) -> Response | None:
    """The answer that a fault has in the provider's place."""
    if fault is None or fault.status is None:
        return None
    return Response(fault.body, fault.status, dict(fault.headers))


class _Server(uvicorn.Server):
    """uvicorn as a guest: it takes no signals, and stops at once even while streams are open."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stopping = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        # uvicorn's own loop, which keeps the Date header right, wakes ten times a second to see whether to stop.
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
        # Streams see that their client has left and end by themselves; what does not is cancelled.
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=SHUTDOWN_SECONDS)
            for task in stuck:
                task.cancel()
            if stuck:
                await asyncio.wait(stuck, timeout=SHUTDOWN_SECONDS)


@asynccontextmanager
async def serve(simulator: Simulator, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve the simulator in this event loop (asyncio) and yield its origin; port 0 takes any free one.

    On leaving, open answers are cut off. Raises OSError when the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=512) as listener:
        # Inherited by its connections, for which asyncio does not see to it: an answer would wait for 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A dropped connection is an error to uvicorn, here it is ordered: its loggers are silenced.
        config = uvicorn.Config(
            simulator.app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=logging.CRITICAL,
            access_log=False,
            server_header=False,
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        shown = f"[{host}]" if ":" in host else host
        try:
            # The listener accepts from here on; requests wait until uvicorn has started.
            yield f"http://{shown}:{listener.getsockname()[1]}"
        finally:
            server.stopping.set()
            with anyio.CancelScope(shield=True):
                await serving
