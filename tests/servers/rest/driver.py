"""What the tests of the REST side share: the server on a loopback socket, and a provider that answers as it is told."""

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
"""The folder of a capability of these tests: everything that a route can be, none of it a real provider's."""

KEY = "acme-key-planted-5d1c7a90b2e8"
PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Side:
    """A REST side that is listening, a client of it, and the gateway behind it."""

    client: httpx.AsyncClient
    gateway: Gateway
    origin: str


@cache
def _loaded(folders: tuple[str, ...], *, overlays: bool) -> Loaded:
    loaded = load(folders, overlays=overlays, rest=True)
    assert loaded.problems == ()
    return loaded


def open_gateway(environment: Mapping[str, str], **flags: object) -> Gateway:
    """A gateway with the routes of the shipped files, or of those that the flags name."""
    settings = read_settings({"rest": True, **flags}, environment)
    loaded = _loaded(settings.capabilities, overlays=not settings.no_overlays)
    return Gateway(build_catalog(loaded.tools, settings, loaded.rest_tools), settings)


@asynccontextmanager
async def served(environment: Mapping[str, str], **flags: object) -> AsyncIterator[Side]:
    """The REST side on a loopback port, and a client of it."""
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
    """A request as it reached the provider: its target as it was sent, and its headers with lower-case names."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


HttpResponse = Callable[[Request, Send], Awaitable[None]]


@dataclass
class Provider:
    """An HTTP server that notes what it is asked, and answers as it was told last."""

    answer: HttpResponse | Response = field(default_factory=lambda: JSONResponse({"ok": True}))
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
        if isinstance(self.answer, Response):
            await self.answer(scope, receive, send)
            return

        async with anyio.create_task_group() as tasks:

            async def watch_client() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                self.disconnected.set()
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch_client)
            await self.answer(request, send)
            tasks.cancel_scope.cancel()

    @property
    def last(self) -> Received:
        """The last request that has arrived."""
        return self.received[-1]

    @property
    def targets(self) -> list[str]:
        """What was asked, in order."""
        return [f"{request.method} {request.target}" for request in self.received]


@asynccontextmanager
async def acme(provider: Provider, **flags: Any) -> AsyncIterator[Side]:
    """The REST side of the folder's capability, in front of this provider."""
    changes = flags.pop("environment", {})
    async with listening(provider) as origin:
        environment = {"ACME_URL": origin, "ACME_KEY": KEY, **changes}
        async with served(environment, **{"capabilities": [ACME], **flags}) as side:
            yield side


async def send_stream(send: Send, chunks: Sequence[bytes], *, is_open: bool) -> None:
    """An event stream that begins with these chunks; unless it stays open they are all of it."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    if not is_open:
        await send({"type": "http.response.body", "body": b""})


def streaming(*chunks: bytes, end: bool = False) -> HttpResponse:
    """An answer that is such a stream, and silent after the chunks unless that is its end."""

    async def answer(_: Request, send: Send) -> None:
        await send_stream(send, chunks, is_open=not end)
        if not end:
            await anyio.sleep_forever()

    return answer


def problem(answer: httpx.Response) -> dict[str, Any]:
    """The problem that an answer is: RFC 9457."""
    assert answer.headers["content-type"] == PROBLEM, answer.text
    told: dict[str, Any] = answer.json()
    assert told["status"] == answer.status_code
    assert told["type"] == "about:blank"
    assert told["title"]
    assert told["detail"]
    return told


@dataclass(frozen=True)
class Told:
    """An event of a stream as a client reads it."""

    event: str
    id: str
    data: str


def events_in(text: str) -> list[Told]:
    """The events of a stream, without comments."""
    events = []
    for block in text.strip("\n").split("\n\n"):
        fields: dict[str, list[str]] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        if fields.keys() - {""}:
            data = "\n".join(fields.get("data", []))
            events.append(Told(fields.get("event", [""])[-1], fields.get("id", [""])[-1], data))
    return events
