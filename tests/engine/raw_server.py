"""A server of raw bytes on a loopback port, for what no HTTP library would send."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.abc

Handler = Callable[[anyio.abc.SocketStream], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Handler) -> AsyncIterator[str]:
    """Serve each connection; yield the server's URL."""

    async def serve_and_close(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, ConnectionError):
                await serve(stream)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve_and_close)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def responding(respond: Handler) -> AsyncIterator[str]:
    """Call `respond` for each connection once the head of a request has arrived."""

    async def serve(stream: anyio.abc.SocketStream) -> None:
        await receive_head(stream)
        await respond(stream)

    async with listening(serve) as url:
        yield url


async def receive_head(stream: anyio.abc.SocketStream) -> bytes:
    """Receive up to the end of a request's headers, and whatever came with it."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += await stream.receive()
    return received


def sends(data: bytes) -> Handler:
    """Send these bytes and close the connection."""

    async def respond(stream: anyio.abc.SocketStream) -> None:
        await stream.send(data)

    return respond


def returns(body: bytes, headers: str = "Content-Type: application/json\r\n", status: str = "200 OK") -> Handler:
    """Send a complete response."""
    return sends(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)


async def hangs(_: anyio.abc.SocketStream) -> None:
    """Never respond."""
    await anyio.sleep_forever()
