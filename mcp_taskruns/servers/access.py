"""Who may call a server over HTTP: checks of the headers that browsers send, and bearer tokens."""

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_taskruns.core.calls.addresses import LOOPBACK
from mcp_taskruns.errors import SettingsError
from mcp_taskruns.settings import Settings

CLIENT = "mcp_taskruns.client"
"""The key of an ASGI scope for the number of the token that the request brought."""

PAGES = frozenset({"/", "/docs", "/openapi.json"})
"""Pages that links on other websites may open: they show nothing of a provider."""

_SAFE = {"GET", "HEAD"}


@dataclass(frozen=True)
class Refusal:
    """Why a request is refused: a status code, a message, and what to do."""

    status: int
    message: str
    hint: str
    headers: Mapping[str, str] = field(default_factory=dict)


Refuse = Callable[[Refusal], Response]
"""Return the response for a refusal, in the format of a server."""

UNAUTHORIZED = Refusal(
    401,
    "A valid bearer token is required.",
    "Send the header `Authorization: Bearer` with one of the tokens in MCP_TASKRUNS_TOKENS.",
    {"WWW-Authenticate": "Bearer"},
)


def refuse_as_text(refusal: Refusal) -> Response:
    """Return a refusal as plain text."""
    return PlainTextResponse(f"{refusal.message} {refusal.hint}\n", refusal.status, dict(refusal.headers))


class HostCheck:
    """ASGI middleware that rejects what browsers send for other websites.

    The Host header must be a name of this server, against DNS rebinding. The Origin header, if there is one, must be
    this server under the port of the request, or a name that the operator added. Sec-Fetch-Site must not name another
    site, except to open one of the `PAGES` by a link and for /health, which monitors embed.

    Raises SettingsError if the server would accept requests from other machines without a token.
    """

    def __init__(self, app: ASGIApp, settings: Settings, refuse: Refuse = refuse_as_text) -> None:
        if settings.host not in LOOPBACK and not (settings.tokens or settings.insecure):
            raise SettingsError(
                f"--host {settings.host} lets other machines call this server with your credentials; set "
                "MCP_TASKRUNS_TOKENS to a list of bearer tokens, or use --insecure if access is restricted otherwise"
            )
        self._app = app
        self._refuse = refuse
        self._added = frozenset(map(_in_url, settings.allowed_hosts))
        self._names = self._added | frozenset(map(_in_url, [*LOOPBACK, settings.host]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._check(scope) if scope["type"] == "http" else None
        app = self._app if refusal is None else self._refuse(refusal)
        await app(scope, receive, send)

    def _check(self, scope: Scope) -> Refusal | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if not self._is_ours(host):
            hint = "Use the address of the server, or add the host name with --allowed-hosts."
            return Refusal(421, f"The Host header {host!r} is not a name of this server.", hint)
        if not all(self._is_own_origin(origin.lower(), host) for origin in headers.getlist("origin")):
            hint = "Web pages of other origins cannot call this server; --allowed-hosts adds a host name."
            return Refusal(403, "The Origin header is not the origin of this server.", hint)
        if not (_is_same_site(headers) or scope["path"] == "/health" or _opens_page(scope, headers)):
            hint = "Open the address directly, or call the server from a program."
            return Refusal(403, "The browser sends this request for another website.", hint)
        return None

    def _is_ours(self, host: str) -> bool:
        return host in self._names or _split_port(host)[0] in self._names

    def _is_own_origin(self, origin: str, host: str) -> bool:
        scheme, _, authority = origin.partition("://")
        if not origin:
            return True
        if scheme not in {"http", "https"}:
            return False
        name, port = _split_port(authority)
        return authority in self._added or (name in self._names and port == _split_port(host)[1])


def _in_url(name: str) -> str:
    """Return a host name as URLs have it: an IPv6 address in brackets."""
    return f"[{name}]".lower() if name.count(":") > 1 and not name.startswith("[") else name.lower()


def _split_port(host: str) -> tuple[str, str]:
    """Return the name and the port, which is empty if there is none."""
    name, colon, port = host.rpartition(":")
    return (name, port) if colon and not host.endswith("]") else (host, "")


def _is_same_site(headers: Headers) -> bool:
    """Whether a browser does not name another site; other clients send no such header.

    All ports of a machine are one site, so `same-site` can be any page on it.
    """
    return all(site.lower() in {"same-origin", "none"} for site in headers.getlist("sec-fetch-site"))


def _opens_page(scope: Scope, headers: Headers) -> bool:
    """Whether the request opens one of the pages in a window of its own."""
    is_navigation = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return is_navigation and scope["method"] in _SAFE and scope["path"] in PAGES


class BearerTokens:
    """ASGI middleware that requires one of the tokens, except for /health, and adds its number to the scope."""

    def __init__(self, app: ASGIApp, tokens: Iterable[str], refuse: Refuse = refuse_as_text) -> None:
        self._app = app
        self._refusal = refuse(UNAUTHORIZED)
        self._tokens = [token.encode() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_public = scope.get("path") == "/health" and scope.get("method") in _SAFE
        if scope["type"] != "http" or is_public:
            await self._app(scope, receive, send)
            return
        number = self._number(dict(scope["headers"]))
        app = self._refusal if number is None else self._app
        await app({**scope, CLIENT: number}, receive, send)

    def _number(self, headers: Mapping[bytes, bytes]) -> int | None:
        """Return the number of the token in the headers; None if it is unknown."""
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        # Compare with all tokens, each in constant time, so that the duration reveals nothing.
        matches = [hmac.compare_digest(token.strip(), known) for known in self._tokens]
        return matches.index(True) if scheme.lower() == b"bearer" and any(matches) else None


_SAFE_HEADERS = {b"x-content-type-options": b"nosniff", b"content-security-policy": b"sandbox"}


class SafeHeaders:
    """ASGI middleware that keeps browsers from running what a provider returned.

    `nosniff` makes them believe the content type, and a sandbox has no scripts and no access to this server.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                others = [header for header in message.get("headers", ()) if header[0] not in _SAFE_HEADERS]
                message = {**message, "headers": [*others, *_SAFE_HEADERS.items()]}
            await send(message)

        await self._app(scope, receive, send_with_headers)
