"""Scripted providers: small servers with recorded responses, one for each built-in file that is loaded on request.

A test opens a client of a server for one of them and the driven clock makes its waits short:

    async with connected(Acme()) as (acme, caller):
        result = await caller.call("acme-wait-for-run", job_id="j1", within=10)
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any, ClassVar, TypeVar

from mcp.client import Client
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.loading.catalog import build_catalog
from mcp_taskruns.loading.files import paths_to_load
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.servers.mcp.server import build_server
from mcp_taskruns.settings import read_settings
from tests.clients import listening
from tests.providers.driver import Caller

Json = dict[str, Any]

Handler = Callable[..., Awaitable[Response | None]]
"""Takes the request, and the variables of its path as keyword arguments. None is a 404."""


class NotFound(Exception):
    """The request is for something that does not exist."""


class ScriptedProvider:
    """An ASGI application. Each read of a run moves the run on to the next status of its script.

    A route is a method, a path and a handler. In a path, `{name}` is one segment and `{name*}` several.
    """

    name: ClassVar[str]
    """The name for `--with`."""
    environment: ClassVar[Mapping[str, str]]
    """The variables that point a server at the provider; `{origin}` is its address."""
    authorization: str | None
    """The value of the header `Authorization`; None: no credential is needed."""
    messages: ClassVar[tuple[str, str]] = ("Unauthorized", "Not Found")
    """The messages of a 401 and a 404."""
    error_member: ClassVar[str] = "error"
    """The member of an error with its message."""
    public: ClassVar[Sequence[str]] = ()
    """Paths that need no credential."""

    def __init__(self, routes: Sequence[tuple[str, str, Handler]]) -> None:
        self.received: list[Request] = []
        self._routes = [(method, _to_pattern(path), handler) for method, path, handler in routes]

    @property
    def requests(self) -> list[str]:
        """The received requests as `GET /path?query`."""
        return [_describe(request) for request in self.received]

    def error(self, status: int, message: str) -> Response:
        """Return an error in the provider's form."""
        return JSONResponse({self.error_member: message}, status)

    def unauthorized(self) -> Response:
        """Return the response to a request without the credential."""
        return self.error(401, self.messages[0])

    def not_found(self) -> Response:
        """Return the response to a request for something that does not exist."""
        return self.error(404, self.messages[1])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()  # keeps it, so that tests can read it
        self.received.append(request)
        response = await self._respond(request)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        path = _path_of(request)
        is_open = self.authorization is None or path in self.public
        if not is_open and request.headers.get("authorization") != self.authorization:
            return self.unauthorized()
        for method, pattern, handler in self._routes:
            match = pattern.fullmatch(path)
            if match and method == request.method:
                with suppress(NotFound):
                    return await handler(request, **match.groupdict()) or self.not_found()
        return self.not_found()


P = TypeVar("P", bound=ScriptedProvider)


@asynccontextmanager
async def connected(provider: P, **changes: str | None) -> AsyncIterator[tuple[P, Caller]]:
    """Serve the provider, and yield it with a client of a server that has its tools besides the default ones.

    `changes` are environment variables, with `{origin}` as in those of the provider; None removes one.
    """
    async with listening(provider) as origin:
        variables = {**provider.environment, **changes}
        environment = {name: value.format(origin=origin) for name, value in variables.items() if value is not None}
        settings = read_settings({"with_": [provider.name]}, environment)
        catalog = build_catalog(_tools_with(provider.name), settings)
        async with Client(build_server(Gateway(catalog, settings)), mode="auto") as client:
            yield provider, Caller(client)


@cache
def _tools_with(name: str) -> tuple[Tool, ...]:
    """Load the default tools and those of a provider once, which takes longer than most tests."""
    return load_tools(paths_to_load((), [name]))


def advance(script: list[str]) -> str:
    """Return the status of a run and move the run on; the last status stays."""
    return script.pop(0) if len(script) > 1 else script[0]


def now() -> str:
    """Return the present time as an ISO 8601 timestamp; older runs are polled less often."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _describe(request: Request) -> str:
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{request.method} {_path_of(request)}{query}"


def _path_of(request: Request) -> str:
    """Return the path as it was sent, with percent-encoding."""
    path: bytes = request.scope.get("raw_path", b"")
    return path.decode().partition("?")[0] or request.url.path


def _to_pattern(path: str) -> re.Pattern[str]:
    pattern = re.sub(r"\{(\w+)(\*?)\}", lambda m: f"(?P<{m[1]}>{'.+' if m[2] else '[^/]+'})", path)
    return re.compile(pattern)
