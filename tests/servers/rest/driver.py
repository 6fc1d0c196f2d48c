"""Helpers of the REST tests: a server on a loopback port, and a provider with configurable responses."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.loading.catalog import build_catalog
from mcp_taskruns.loading.loader import Loaded, load
from mcp_taskruns.servers.rest.app import build_rest_app
from mcp_taskruns.settings import read_settings
from tests.clients import listening
from tests.timing import PATIENCE

ACME = str(Path(__file__).parent / "capabilities")
"""The folder of a capability file with all kinds of routes."""

KEY = "acme-key-planted-5d1c7a90b2e8"
PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Side:
    """A running REST server with its gateway and a client."""

    client: httpx.AsyncClient
    gateway: Gateway
    origin: str


@cache
def _loaded(folders: tuple[str, ...], *, overlays: bool) -> Loaded:
    loaded = load(folders, overlays=overlays, rest=True)
    assert loaded.problems == ()
    return loaded


def open_gateway(environment: Mapping[str, str], **flags: object) -> Gateway:
    """Return a gateway with the routes of the built-in files, or of those that the flags select."""
    settings = read_settings({"rest": True, **flags}, environment)
    loaded = _loaded(settings.capabilities, overlays=not settings.no_overlays)
    return Gateway(build_catalog(loaded.tools, settings, loaded.rest_tools), settings)


@asynccontextmanager
async def served(environment: Mapping[str, str], **flags: object) -> AsyncIterator[Side]:
    """Serve the REST API on a loopback port."""
    gateway = open_gateway(environment, **flags)
    app = build_rest_app(gateway, read_settings({"rest": True, **flags}, environment))
    async with listening(app) as origin, httpx.AsyncClient(base_url=origin, timeout=PATIENCE) as client:
        try:
            yield Side(client, gateway, origin)
        finally:
            gateway.stop()
            await gateway.aclose()


@dataclass(frozen=True)
class Received:
    """A request that the provider received, with the raw target and lower-case header names."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


HttpResponse = Callable[[Request, Send], Awaitable[None]]


@dataclass
class Provider:
    """An HTTP server that records requests and sends a configured response."""

    response: HttpResponse | Response = field(default_factory=lambda: JSONResponse({"ok": True}))
    received: list[Received] = field(default_factory=list)
    disconnected: anyio.Event = field(default_factory=anyio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        body = await request.body()
        query = scope["query_string"].decode()
        target = scope["raw_path"].decode() + (f"?{query}" if query else "")
        self.received.append(Received(scope["method"], target, dict(request.headers), body))
        if isinstance(self.response, Response):
            await self.response(scope, receive, send)
            return

        async with anyio.create_task_group() as tasks:

            async def watch_client() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                self.disconnected.set()
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch_client)
            await self.response(request, send)
            tasks.cancel_scope.cancel()

    @property
    def last(self) -> Received:
        """The last received request."""
        return self.received[-1]

    @property
    def targets(self) -> list[str]:
        """Method and target of all requests in order."""
        return [f"{request.method} {request.target}" for request in self.received]


@asynccontextmanager
async def acme(provider: Provider, **flags: Any) -> AsyncIterator[Side]:
    """Serve the REST API of the test capability for this provider."""
    changes = flags.pop("environment", {})
    async with listening(provider) as origin:
        environment = {"ACME_URL": origin, "ACME_KEY": KEY, **changes}
        async with served(environment, **{"capabilities": [ACME], **flags}) as side:
            yield side


async def send_stream(send: Send, chunks: Sequence[bytes], *, is_open: bool) -> None:
    """Send an event stream with these chunks, and end it unless `is_open`."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    if not is_open:
        await send({"type": "http.response.body", "body": b""})


def streaming(*chunks: bytes, end: bool = False) -> HttpResponse:
    """Return a response that streams these chunks, and then stays open unless `end`."""

    async def response(_: Request, send: Send) -> None:
        await send_stream(send, chunks, is_open=not end)
        if not end:
            await anyio.sleep_forever()

    return response


def problem(response: httpx.Response) -> dict[str, Any]:
    """Return the problem details of a response."""
    assert response.headers["content-type"] == PROBLEM, response.text
    details: dict[str, Any] = response.json()
    assert details["status"] == response.status_code
    assert details["type"] == "about:blank"
    assert details["title"]
    assert details["detail"]
    return details


@dataclass(frozen=True)
class ReceivedEvent:
    """An event as a client reads it."""

    event: str
    id: str
    data: str


def events_in(text: str) -> list[ReceivedEvent]:
    """Return the events of a stream without comments."""
    events = []
    for block in text.strip("\n").split("\n\n"):
        fields: dict[str, list[str]] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        if fields.keys() - {""}:
            data = "\n".join(fields.get("data", []))
            events.append(ReceivedEvent(fields.get("event", [""])[-1], fields.get("id", [""])[-1], data))
    return events
