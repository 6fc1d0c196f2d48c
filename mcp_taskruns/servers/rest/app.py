"""The REST side of capability files: their routes over HTTP, with the gateway behind them."""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from mcp_taskruns import __version__
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.model.operation import Location
from mcp_taskruns.core.rest.router import Match, Router
from mcp_taskruns.core.rest.routes import Route, parse_argument
from mcp_taskruns.core.runs.events import Event, Progress
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.errors import CallError, InvalidArguments, Kind
from mcp_taskruns.loading.catalog import Catalog
from mcp_taskruns.servers.http import UNAUTHORIZED

MAX_BODY_BYTES = 64_000_000
"""As for MCP: files of up to 30 MiB, in base64."""

BODY_SECONDS = 60.0
"""How long a body may take to arrive."""

KEEP_ALIVE_SECONDS = 15.0
"""Proxies cut connections that are silent for a minute, some for half of one."""

PROBLEM = "application/problem+json"

STATUSES: Mapping[Kind, int] = {
    "auth": 403,
    "not_found": 404,
    "validation": 400,
    "rate_limited": 429,
    "conflict": 409,
    "usage_limit": 402,
    "unavailable": 503,
    "timeout": 504,
    "unsupported": 501,
    "config": 503,
}
"""The HTTP status of an error for which the provider has none, or one of those that are ours to use."""

Check = Callable[[Request], Awaitable[Response | None]]
"""Refuses a request that is not for this server, or lets it through."""

logger = logging.getLogger(__name__)


class RestApp:
    """An ASGI app of the gateway's routes; each is also there below its capability's prefix.

    `check` refuses requests that are not for this server. `is_protected`: who calls has to show a token.
    """

    def __init__(self, gateway: Gateway, check: Check, *, is_protected: bool) -> None:
        self._gateway = gateway
        self._check = check
        self._is_protected = is_protected
        self._served = _Served(gateway.catalog, is_protected)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        refusal = await self._check(request)
        if refusal is not None:
            told = bytes(refusal.body).decode()
            hint = "Use the server's own address, or name yours with --allowed-hosts."
            refusal = _problem(refusal.status_code, told, {"kind": "auth", "hint": hint})
        response = refusal or self._own_page(request)
        if response is not None:
            await response(scope, receive, send)
            return
        path = _raw_path(scope)
        router = self._now().router
        found = router.find(scope["method"], path)
        if isinstance(found, list) and scope["method"] == "HEAD" and "GET" in found:
            found = router.find("GET", path)
        if isinstance(found, Match):
            await self._answer(found, request, _without_body(send) if scope["method"] == "HEAD" else send)
            return
        response = _refuse_route(scope["method"], path, found, router.find_moved(scope["method"], path))
        await response(scope, receive, send)

    def _now(self) -> "_Served":
        if self._served.catalog is not self._gateway.catalog:
            self._served = _Served(self._gateway.catalog, self._is_protected)
        return self._served

    def _own_page(self, request: Request) -> Response | None:
        path = request.url.path
        if request.method not in {"GET", "HEAD"}:
            return None
        if path == "/health":
            return JSONResponse({"status": "ok", "version": __version__, "routes": len(self._now().catalog.routes)})
        if path == "/openapi.json":
            return JSONResponse(self._now().document())
        if path in {"/", "/docs"}:
            return HTMLResponse(self._now().page())
        return None

    async def _answer(self, found: Match, request: Request, send: Send) -> None:
        """Run the call, unless the client leaves before it is answered."""
        answering = _Answering(send, self._gateway)
        try:
            arguments = _arguments(found, request, await _read_body(request))
        except ClientDisconnect:
            return
        except CallError as exc:
            await answering.fail(exc)
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_until_left, request.receive, tasks.cancel_scope)
            try:
                with self._gateway.in_flight():
                    await self._call(found.route, arguments, request, answering)
            except CallError as exc:
                await answering.fail(exc)
            except Exception:
                logger.exception("call failed route=%s", found.route.name)
                await answering.fail(CallError("the server failed; its log says why", hint="Report this."), 500)
            tasks.cancel_scope.cancel()

    async def _call(self, route: Route, arguments: dict[str, Any], request: Request, answering: "_Answering") -> None:
        if not route.tool.operation.is_stream:
            async with self._gateway.open_tool(route.tool, arguments, _untold) as opened:
                if isinstance(opened, CallResult):
                    await answering.send_outcome(opened)
                else:
                    await answering.send_events(opened)
                    await answering.end()
            return
        last_event_id = request.headers.get("last-event-id", "")
        async with self._gateway.open_stream(route.tool, arguments, last_event_id) as (events, seconds):
            with anyio.move_on_after(0 if request.method == "HEAD" else seconds):
                await answering.send_events(events)
            await answering.end()


class _Served:
    """The routes of one catalog, ready to be matched, and what is said about them."""

    def __init__(self, catalog: Catalog, is_protected: bool) -> None:
        self.catalog = catalog
        self.router = Router(catalog.routes)
        self._is_protected = is_protected
        self._document: dict[str, Any] = {}
        self._page = ""

    def document(self) -> dict[str, Any]:
        """The OpenAPI document of the routes."""
        from mcp_taskruns.core.rest.openapi import openapi_document

        if not self._document:
            self._document = openapi_document(self.catalog.routes, version=__version__, protected=self._is_protected)
        return self._document

    def page(self) -> str:
        """The same for people."""
        from mcp_taskruns.servers.rest.docs_page import docs_page

        self._page = self._page or docs_page(self.document())
        return self._page


def _raw_path(scope: Scope) -> str:
    """The path as it was sent: what is encoded in a segment, a slash too, belongs to it."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.partition(b"?")[0].decode("latin-1")


def _without_body(send: Send) -> Send:
    """What HEAD is answered with: all of what GET is, but the body."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return send_head


def unauthorized() -> Response:
    """What is answered to who shows no token."""
    hint = "Send Authorization: Bearer with one of the server's tokens."
    return _problem(401, UNAUTHORIZED, {"kind": "auth", "hint": hint}, {"WWW-Authenticate": "Bearer"})


def _refuse_route(method: str, path: str, allowed: list[str], claims: list[str]) -> Response:
    if claims:
        told = f"Several capability files have it: it is at {' and '.join(claims)}."
        return _problem(404, f"{method} {path} is not served", {"kind": "not_found", "hint": told})
    if allowed:
        methods = ", ".join(sorted(set(allowed)))
        if method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": methods})
        return _problem(
            405,
            f"{method} is not served at {path}",
            {"kind": "validation", "hint": f"There is {methods}."},
            {"Allow": methods},
        )
    hint = "GET /openapi.json lists the routes."
    return _problem(404, f"nothing is served at {path}", {"kind": "not_found", "hint": hint})


async def _read_body(request: Request) -> Any:
    """The JSON body; None without one."""
    content = bytearray()
    try:
        with anyio.fail_after(BODY_SECONDS):
            async for chunk in request.stream():
                content += chunk
                if len(content) > MAX_BODY_BYTES:
                    raise InvalidArguments(f"the body is larger than {MAX_BODY_BYTES:,} bytes", status=413)
    except TimeoutError as exc:
        raise InvalidArguments(f"the body did not arrive within {BODY_SECONDS:g} s", status=408) from exc
    if not content.strip():
        return None
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if not (media_type == "application/json" or media_type.endswith("+json")):
        raise InvalidArguments(f"the body is {media_type}, and has to be application/json", status=415)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise InvalidArguments("the body is not JSON") from exc


def _arguments(found: Match, request: Request, body: Any) -> dict[str, Any]:
    """The arguments of a call: from the path, then the query, then headers, then the body."""
    route = found.route
    schemas = route.tool.input_schema["properties"]
    arguments: dict[str, Any] = {}
    if body is not None:
        if route.body:
            arguments[route.body] = body
        elif isinstance(body, dict):
            arguments |= body
        else:
            raise InvalidArguments("the body: must be an object")
    for name, place in route.locations.items():
        if place is Location.HEADER and name in request.headers:
            arguments[name] = parse_argument(request.headers.getlist(name), schemas[name])
    for name in request.query_params:
        arguments[name] = parse_argument(request.query_params.getlist(name), schemas.get(name, {}))
    for variable, text in found.variables.items():
        argument = route.variables.get(variable)
        if argument is not None:
            arguments[argument] = parse_argument([text], schemas[argument])
    return arguments


async def _until_left(receive: Receive, scope: anyio.CancelScope) -> None:
    """End the call when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _untold(_: Progress) -> None:
    """A REST client is not told of progress."""
    await anyio.lowlevel.checkpoint()


class _Answering:
    """One response: a result, a stream of events or a problem."""

    def __init__(self, send: Send, gateway: Gateway) -> None:
        self._send = send
        self._gateway = gateway
        self._is_stream = False
        self._lock = anyio.Lock()
        self._sent_at = 0.0

    async def send_outcome(self, outcome: CallResult) -> None:
        """The answer of the provider, with what there is to say beside it in headers."""
        content = outcome.text.encode() if outcome.data is None else outcome.data
        media_type = outcome.media_type
        status = outcome.status if outcome.status < 300 and outcome.status != 204 else 200
        notes = [("X-Note", note.encode("ascii", "replace").decode()) for note in outcome.notes]
        await self._start(status, media_type, notes)
        await self._send({"type": "http.response.body", "body": content})

    async def send_events(self, events: AsyncIterator[Event]) -> None:
        """The events as they come, and something else while none comes."""
        with anyio.CancelScope(shield=True):
            await self._start(200, "text/event-stream", [("Cache-Control", "no-store"), ("X-Accel-Buffering", "no")])
        self._is_stream = True
        failure: CallError | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_alive)
            try:
                async for event in events:
                    await self._write(_written(event))
            except CallError as exc:  # raised out of here it would be in a group
                failure = exc
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def end(self) -> None:
        """The end of a stream."""
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, error: CallError, status: int | None = None) -> None:
        """What went wrong, as a problem of RFC 9457; in a stream as its last event."""
        problem = _error_problem(error, self._gateway, status)
        if self._is_stream:
            await self._write(b"event: error\ndata: " + bytes(problem.body) + b"\n\n")
            await self.end()
            return
        headers = [(name.decode(), value.decode()) for name, value in problem.raw_headers if name != b"content-length"]
        await self._send(_start_message(problem.status_code, headers))
        await self._send({"type": "http.response.body", "body": bytes(problem.body)})

    async def _keep_alive(self) -> None:
        while True:
            quiet = anyio.current_time() - self._sent_at
            if quiet >= KEEP_ALIVE_SECONDS:
                await self._write(b": keep-alive\n\n")
            else:
                await anyio.sleep(KEEP_ALIVE_SECONDS - quiet)

    async def _write(self, data: bytes) -> None:
        async with self._lock:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
            self._sent_at = anyio.current_time()

    async def _start(self, status: int, media_type: str, headers: list[tuple[str, str]]) -> None:
        text = media_type.startswith("text/") and "charset" not in media_type
        content_type = f"{media_type}; charset=utf-8" if text and media_type != "text/event-stream" else media_type
        await self._send(_start_message(status, [("Content-Type", content_type), *headers]))
        self._sent_at = anyio.current_time()


def _start_message(status: int, headers: list[tuple[str, str]]) -> Message:
    pairs = [(name.lower().encode("latin-1"), " ".join(value.split()).encode("latin-1")) for name, value in headers]
    return {"type": "http.response.start", "status": status, "headers": pairs}


def _written(event: Event) -> bytes:
    """An event as it is written on the wire."""
    lines = [f"event: {event.event}"] if event.event not in {"", "message"} else []
    lines += [f"id: {event.id}"] if event.has_id else []
    lines += [f"retry: {round(event.retry_s * 1000)}"] if event.retry_s is not None else []
    lines += [f"data: {line}" for line in event.data.split("\n")]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


def _error_problem(error: CallError, gateway: Gateway, status: int | None) -> Response:
    told = {name: value for name, value in error.to_json().items() if name not in {"message", "status"}}
    shown = status or _status_of(error)
    if error.status is not None and error.status != shown:
        told["provider_status"] = error.status
    masked = json.loads(gateway.redactor.redact_text(json.dumps(told)))
    headers = {} if error.retry_after_s is None else {"Retry-After": str(max(1, round(error.retry_after_s)))}
    return _problem(shown, gateway.redactor.redact_text(error.message), masked, headers)


def _status_of(error: CallError) -> int:
    """The provider's own status where that is an error of the request; else what our kind of error is.

    401 is about the token of who calls here, never about our own credential at the provider.
    """
    status = error.status
    if status is not None and 400 <= status < 500 and status != 401 and error.kind != "auth":
        return status
    return 502 if status is not None and error.kind == "unavailable" else STATUSES[error.kind]


def _problem(
    status: int, detail: str, members: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    title = next((known.phrase for known in HTTPStatus if known == status), "Error")
    known = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    content = {**known, "kind": "validation", "retryable": False, **members}
    return JSONResponse(content, status, dict(headers or {}), media_type=PROBLEM)
