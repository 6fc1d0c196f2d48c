"""The REST API of capability files as an ASGI app."""

import logging
from functools import cached_property
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_taskruns import __version__
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.rest.openapi import openapi_document
from mcp_taskruns.core.rest.router import Match, Router
from mcp_taskruns.core.rest.routes import Route
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.progress import Progress
from mcp_taskruns.errors import CallError
from mcp_taskruns.loading.catalog import Catalog
from mcp_taskruns.servers.bodies import BodyBudget
from mcp_taskruns.servers.guard import guard
from mcp_taskruns.servers.rest.docs_page import docs_page
from mcp_taskruns.servers.rest.problems import no_route, refusal_problem
from mcp_taskruns.servers.rest.requests import read_arguments
from mcp_taskruns.servers.rest.responses import ResponseWriter, without_body
from mcp_taskruns.settings import Settings

logger = logging.getLogger(__name__)


def build_rest_app(gateway: Gateway, settings: Settings, bodies: BodyBudget | None = None) -> ASGIApp:
    """Return an app with the routes of a gateway.

    Raises SettingsError if it would accept requests from other machines without a token.
    """
    app = RestApp(gateway, is_protected=bool(settings.tokens))
    return guard(app, settings, bodies, refusal_problem)


class RestApp:
    """An ASGI app with the routes of a gateway, each also below the prefix of its capability.

    `is_protected`: clients need a token.
    """

    def __init__(self, gateway: Gateway, *, is_protected: bool) -> None:
        self._gateway = gateway
        self._is_protected = is_protected
        self._site = _Site(gateway.catalog, is_protected)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        response = self._page(request)
        if response is not None:
            await response(scope, receive, send)
        else:
            await self._route(request, send)

    def _current_site(self) -> "_Site":
        if self._site.catalog is not self._gateway.catalog:
            self._site = _Site(self._gateway.catalog, self._is_protected)
        return self._site

    def _page(self, request: Request) -> Response | None:
        """Return the response for a path that is not a route of a capability file."""
        path = request.url.path
        if request.method not in {"GET", "HEAD"}:
            return None
        if path == "/health":
            routes = len(self._current_site().catalog.routes)
            return JSONResponse({"status": "ok", "version": __version__, "routes": routes})
        if path == "/openapi.json":
            return JSONResponse(self._current_site().document)
        if path in {"/", "/docs"}:
            return HTMLResponse(self._current_site().page)
        return None

    async def _route(self, request: Request, send: Send) -> None:
        method, path = request.method, _raw_path(request.scope)
        router = self._current_site().router
        found = router.find(method, path)
        if isinstance(found, list) and method == "HEAD" and "GET" in found:
            found = router.find("GET", path)
        if isinstance(found, Match):
            await self._respond(found, request, without_body(send) if method == "HEAD" else send)
        else:
            response = no_route(method, path, found, router.find_moved(method, path))
            await response(request.scope, request.receive, send)

    async def _respond(self, match: Match, request: Request, send: Send) -> None:
        """Run the call and send its response; cancel the call if the client disconnects."""
        writer = ResponseWriter(send, self._gateway.redactor)
        try:
            arguments = await read_arguments(match, request)
        except CallError as exc:
            await writer.fail(exc)
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_on_disconnect, request.receive, tasks.cancel_scope)
            try:
                with self._gateway.in_flight():
                    await self._call(match.route, arguments, request, writer)
            except CallError as exc:
                await writer.fail(exc)
            except Exception:
                logger.exception("call failed route=%s", match.route.name)
                message = "internal error of the REST server; details are in its log"
                await writer.fail(CallError(message, hint="Report this error."), 500)
            tasks.cancel_scope.cancel()

    async def _call(self, route: Route, arguments: dict[str, Any], request: Request, writer: ResponseWriter) -> None:
        if not route.tool.operation.is_stream:
            async with self._gateway.open_tool(route.tool, arguments, _ignore_progress) as opened:
                if isinstance(opened, CallResult):
                    await writer.send_result(opened)
                else:
                    await writer.send_events(opened)
                    await writer.end()
            return
        last_event_id = request.headers.get("last-event-id", "")
        async with self._gateway.open_stream(route.tool, arguments, last_event_id) as (events, seconds):
            with anyio.move_on_after(0 if request.method == "HEAD" else seconds):
                await writer.send_events(events)
            await writer.end()


class _Site:
    """The router and the documentation of one catalog."""

    def __init__(self, catalog: Catalog, is_protected: bool) -> None:
        self.catalog = catalog
        self.router = Router(catalog.routes)
        self._is_protected = is_protected

    @cached_property
    def document(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return openapi_document(self.catalog.routes, version=__version__, protected=self._is_protected)

    @cached_property
    def page(self) -> str:
        """The documentation page."""
        return docs_page(self.document)


def _raw_path(scope: Scope) -> str:
    """Return the path with its percent-encoding: an encoded slash is part of a segment."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.partition(b"?")[0].decode("latin-1")


async def _cancel_on_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _ignore_progress(_: Progress) -> None:
    """Ignore progress, which REST has no place for."""
    await anyio.lowlevel.checkpoint()
