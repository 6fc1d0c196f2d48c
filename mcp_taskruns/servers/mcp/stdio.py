"""MCP over standard input and output.

The SDK's own transport reads in a thread that no signal can interrupt, settles on one protocol era for the life of the
process, so that a client that probes with `server/discover` before `initialize` is locked out, and costs twice the time
per call. This one is on the event loop and serves each request in the era it is written in.
"""

import asyncio
import logging
import os
import stat
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self

import anyio
from mcp import types
from mcp.server.connection import Connection, NotifyOnlyOutbound
from mcp.server.lowlevel import Server
from mcp.server.runner import ServerRunner, aclose_shielded, modern_error_data, serve_one
from mcp.shared.dispatcher import DispatchContext
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import InboundLadderRejection, classify_inbound_request
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.message import SessionMessage
from mcp.shared.transport_context import TransportContext
from mcp_types import PROTOCOL_VERSION_META_KEY
from mcp_types.version import LATEST_MODERN_VERSION
from pydantic import ValidationError

MAX_MESSAGE_BYTES = 64_000_000
"""A longer line is no MCP message: it is dropped, unread."""

MAX_WAITING = 64
"""Messages read ahead of the server; after these the client waits."""

FLUSH_SECONDS = 0.5
"""How long the last messages may take to be read at the end."""

_CHUNK = 256 * 1024

logger = logging.getLogger(__name__)


async def serve_stdio(server: Server[Any]) -> None:
    """Serve one client on standard input and output until its input ends or the output is closed.

    While serving, standard output goes to standard error, so that nothing else can write into the protocol.
    """
    async with (
        _private_stdio() as (read_fd, write_fd),
        server.lifespan(server) as state,
        _open_pipes(read_fd, write_fd) as (lines, writer),
    ):
        await _serve(server, state, lines, writer)


async def _serve(server: Server[Any], state: Any, lines: "_Reader", writer: "_Writer") -> None:
    dispatcher: JSONRPCDispatcher[TransportContext] = JSONRPCDispatcher(
        lines,
        writer,
        # Inline, so that a client that pipelines its next request finds an initialized connection.
        inline_methods=frozenset({"initialize"}),
        on_stream_exception=writer.refuse,
    )
    outbound = NotifyOnlyOutbound(dispatcher)
    connection = Connection.for_loop(dispatcher)
    handshake = ServerRunner(server, connection, state)

    async def on_request(
        context: DispatchContext[TransportContext], method: str, params: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        if method == "initialize" or not _is_enveloped(params):
            return await handshake.on_request(context, method, params)
        route = classify_inbound_request({"method": method, "params": params})
        if isinstance(route, InboundLadderRejection):
            raise MCPError(code=route.code, message=route.message, data=route.data)
        enveloped = Connection.from_envelope(
            route.protocol_version, route.client_info, route.client_capabilities, outbound=outbound
        )
        try:
            return await serve_one(server, context, method, params, connection=enveloped, lifespan_state=state)
        except (MCPError, ValidationError):
            raise
        except Exception as exc:
            error = modern_error_data(exc)
            raise MCPError(code=error.code, message=error.message, data=error.data) from exc

    async def on_notify(
        context: DispatchContext[TransportContext], method: str, params: Mapping[str, Any] | None
    ) -> None:
        if connection.initialize_accepted:
            await handshake.on_notify(context, method, params)
            return
        modern = Connection.from_envelope(LATEST_MODERN_VERSION, None, None, outbound=outbound)
        await ServerRunner(server, modern, state).on_notify(context, method, params)

    try:
        await dispatcher.run(on_request, on_notify)
    finally:
        await aclose_shielded(connection)


def _is_enveloped(params: Mapping[str, Any] | None) -> bool:
    """Whether a request is of the 2026-07-28 era: only there does `_meta` name the protocol's version."""
    meta = params.get("_meta") if params else None
    return isinstance(meta, Mapping) and PROTOCOL_VERSION_META_KEY in meta


class _Closing(asyncio.Protocol, ABC):
    """What the SDK asks of both its streams."""

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of the pipe."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class _Reader(_Closing):
    """Lines of standard input as the messages that the SDK's dispatcher reads."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._dropping = False
        self._waiting: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._ended = False
        self._transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.ReadTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        if lines:
            self._partial += lines[0]
            lines[0] = bytes(self._partial)
            self._partial.clear()
            if self._dropping:
                self._dropping = False
                del lines[0]
        if not self._dropping:
            self._partial += rest
        if len(self._partial) > MAX_MESSAGE_BYTES:
            logger.error("message dropped: longer than %d bytes", MAX_MESSAGE_BYTES)
            self._partial.clear()
            self._dropping = True
            lines.append(b"too long")  # which is answered as what is no message
        self._waiting.extend(line for line in lines if line.strip())
        if self._waiting:
            self._arrived.set()
        if self._transport is not None and len(self._waiting) > MAX_WAITING:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end()

    def end(self) -> None:
        """No more input will come; a last line needs no line break."""
        if self._partial.strip():
            self._waiting.append(bytes(self._partial))
            self._partial.clear()
        self._ended = True
        self._arrived.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        while not self._waiting:
            if self._ended:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        line = self._waiting.popleft()
        if self._transport is not None and not self._waiting:
            self._transport.resume_reading()
        return _parse(line)

    async def receive(self) -> SessionMessage | Exception:
        try:
            return await anext(self)
        except StopAsyncIteration:
            raise anyio.EndOfStream from None

    async def aclose(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _parse(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(types.jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as exc:
        return exc


class _Writer(_Closing):
    """Messages of the SDK's dispatcher to lines of standard output."""

    def __init__(self, on_closed: Callable[[], None]) -> None:
        self._on_closed = on_closed
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed = asyncio.Event()
        self._transport: asyncio.WriteTransport | None = None
        self._file_fd = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def write_to_file(self, fd: int) -> None:
        """Write to a file: the event loop cannot wait for one, and need not."""
        self._file_fd = fd

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._closed.set()
        self._writable.set()
        self._on_closed()

    async def send(self, item: SessionMessage) -> None:
        """Write a message; waits while the client does not read. Raises BrokenResourceError once it is gone."""
        line = item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        if self._file_fd >= 0:
            os.write(self._file_fd, line)
            return
        if self._transport is None or self._transport.is_closing():
            raise anyio.BrokenResourceError
        self._transport.write(line)
        await self._writable.wait()

    async def refuse(self, _: Exception) -> None:
        """Answer a line that is no JSON-RPC message."""
        error = types.ErrorData(code=types.PARSE_ERROR, message="Parse error: this line is no JSON-RPC message")
        await self.send(SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=None, error=error)))

    async def aclose(self) -> None:
        if self._transport is not None:
            self._transport.close()
            # What is written should arrive, but a client that has stopped reading does not keep us.
            with anyio.move_on_after(FLUSH_SECONDS, shield=True):
                await self._closed.wait()
            if self._transport is not None:
                self._transport.abort()


@asynccontextmanager
async def _open_pipes(read_fd: int, write_fd: int) -> AsyncIterator[tuple[_Reader, _Writer]]:
    loop = asyncio.get_running_loop()
    reader = _Reader()
    writer = _Writer(on_closed=reader.end)
    try:
        if _is_waitable(write_fd):
            await loop.connect_write_pipe(lambda: writer, os.fdopen(os.dup(write_fd), "wb", buffering=0))
        else:
            writer.write_to_file(write_fd)
        async with anyio.create_task_group() as tasks:
            if _is_waitable(read_fd):
                await loop.connect_read_pipe(lambda: reader, os.fdopen(os.dup(read_fd), "rb", buffering=0))
            else:
                tasks.start_soon(_read_file, read_fd, reader)
            yield reader, writer
            tasks.cancel_scope.cancel()
    finally:
        await reader.aclose()
        await writer.aclose()


def _is_waitable(fd: int) -> bool:
    """Whether the event loop can wait for this descriptor: files and the null device are always ready."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or (stat.S_ISCHR(mode) and os.isatty(fd))


async def _read_file(fd: int, reader: _Reader) -> None:
    while data := os.read(fd, _CHUNK):
        reader.data_received(data)
        await asyncio.sleep(0)
    reader.end()


@asynccontextmanager
async def _private_stdio() -> AsyncIterator[tuple[int, int]]:
    """The process's input and output for the protocol alone; prints go to standard error meanwhile."""
    sys.stdout.flush()
    read_fd, write_fd = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    try:
        yield read_fd, write_fd
    finally:
        with suppress(ValueError, OSError):
            sys.stdout.flush()
        for private, public in ((read_fd, 0), (write_fd, 1)):
            # The flag is the terminal's or the pipe's, not ours alone: others use it after us.
            with suppress(OSError):
                os.set_blocking(private, True)
            os.dup2(private, public)
            os.close(private)
