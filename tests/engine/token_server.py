"""A provider with a token endpoint, as a function or on a loopback port."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio.abc
import httpx

from tests.engine.raw_server import listening, receive_head

TOKEN_PATH = "/auth/token"


class TokenServer:
    """Issues `token-1-...`, `token-2-...` and so on; all other paths require the last one that is valid.

    `grant` returns the response to a token request, given the next token; `respond` that to a request with a valid one.
    """

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.valid: set[str] = set()
        self.token_requests: list[httpx.Request] = []
        self.requests: list[httpx.Request] = []
        self.refusal = httpx.Response(401, json={"detail": "Token Expired"})
        self.grant: Callable[[str], httpx.Response] = lambda token: httpx.Response(200, json={"access_token": token})
        self.respond: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(200, json={"jobs": []})

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == TOKEN_PATH:
            self.token_requests.append(request)
            token = f"token-{len(self.token_requests)}-7c1f5d0a9e"
            response = self.grant(token)
            if response.is_success:
                self.valid.add(token)
            return response
        self.requests.append(request)
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.valid:
            return self.refusal
        return self.respond(request)

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[str]:
        """Serve on a loopback port; yield the URL."""

        async def serve(stream: anyio.abc.SocketStream) -> None:
            response = self(await _receive(stream))
            head = f"HTTP/1.1 {response.status_code} X\r\nConnection: close\r\n"
            for name, value in response.headers.items():
                head += f"{name}: {value}\r\n"
            await stream.send(head.encode() + b"\r\n" + response.content)

        async with listening(serve) as url:
            yield url


async def _receive(stream: anyio.abc.SocketStream) -> httpx.Request:
    head, _, content = (await receive_head(stream)).partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (field.partition(":") for field in fields)]
    size = int({name.lower(): value for name, value in headers}.get("content-length", 0))
    while len(content) < size:
        content += await stream.receive()
    method, target, _ = line.split(" ")
    return httpx.Request(method, f"http://127.0.0.1{target}", headers=headers, content=content)


def granting(**members: Any) -> Callable[[str], httpx.Response]:
    """Return a `grant` whose responses have further members."""
    return lambda token: httpx.Response(200, content=json.dumps({"access_token": token, **members}))
