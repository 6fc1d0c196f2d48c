"""Standard input and output as streams of MCP messages, on the event loop.

The SDK's own transport reads in a thread that signals cannot interrupt, and costs twice as much per call.
"""

import asyncio
import logging
import os
import stat
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import TracebackType
from typing import Self

import anyio
from mcp import types
from mcp.shared.message import SessionMessage

MAX_MESSAGE_BYTES = 64_000_000
"""The size above which a line is discarded."""

MAX_WAITING = 64
"""The number of messages that are read ahead; then the client has to wait."""

FLUSH_SECONDS = 0.5
"""The timeout for the client to read the last messages."""

_CHUNK = 256 * 1024

logger = logging.getLogger(__name__)


class _Stream(asyncio.Protocol, ABC):
    """A stream as an asynchronous context manager, as the SDK requires."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the pipe."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class Reader(_Stream):
    """Messages from the lines of an input; a line that is not a JSON-RPC message is yielded as an exception."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._discarding = False
        self._waiting: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._ended = False
        self._transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.ReadTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._waiting.extend(line for line in self._split(data) if line.strip())
        if self._waiting:
            self._arrived.set()
        if self._transport is not None and len(self._waiting) > MAX_WAITING:
            self._transport.pause_reading()

    def _split(self, data: bytes) -> list[bytes]:
        """Return the lines that are complete with this data, and keep the rest."""
        *lines, rest = data.split(b"\n")
        if lines:
            self._partial += lines[0]
            lines[0] = bytes(self._partial)
            self._partial.clear()
            if self._discarding:
                self._discarding = False
                del lines[0]
        if not self._discarding:
            self._partial += rest
        if len(self._partial) > MAX_MESSAGE_BYTES:
            logger.error("message discarded: it is longer than %d bytes", MAX_MESSAGE_BYTES)
            self._partial.clear()
            self._discarding = True
            lines.append(b"too long")  # not JSON, so it gets an error response
        return lines

    def connection_lost(self, exc: Exception | None) -> None:
        self.end()

    def end(self) -> None:
        """End the stream after the messages that were read; the last line needs no line break."""
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
        """Return the next message. Raises anyio.EndOfStream."""
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


class Writer(_Stream):
    """Messages as the lines of an output. `on_closed` is called when the client has closed it."""

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
        """Write to a file, which is always ready."""
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
        """Write a message, and wait while the client does not read. Raises anyio.BrokenResourceError once closed."""
        line = item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        if self._file_fd >= 0:
            os.write(self._file_fd, line)
            return
        if self._transport is None or self._transport.is_closing():
            raise anyio.BrokenResourceError
        self._transport.write(line)
        await self._writable.wait()

    async def send_parse_error(self, _: Exception) -> None:
        """Write the error response for a line that is not a JSON-RPC message."""
        error = types.ErrorData(code=types.PARSE_ERROR, message="Parse error: the line is not a JSON-RPC message")
        await self.send(SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=None, error=error)))

    async def aclose(self) -> None:
        if self._transport is not None:
            self._transport.close()
            # Give the client time to read what was written, but do not wait for one that has stopped reading.
            with anyio.move_on_after(FLUSH_SECONDS, shield=True):
                await self._closed.wait()
            if self._transport is not None:
                self._transport.abort()


@asynccontextmanager
async def open_stdio() -> AsyncIterator[tuple[Reader, Writer]]:
    """Open standard input and output; the input ends when the output is closed.

    Meanwhile other writes to standard output go to standard error, so that they cannot corrupt the protocol.
    """
    with _private_stdio() as (read_fd, write_fd):
        async with _open_pipes(read_fd, write_fd) as streams:
            yield streams


@asynccontextmanager
async def _open_pipes(read_fd: int, write_fd: int) -> AsyncIterator[tuple[Reader, Writer]]:
    loop = asyncio.get_running_loop()
    reader = Reader()
    writer = Writer(on_closed=reader.end)
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
    """Whether the event loop can wait for a descriptor. It cannot for files and /dev/null, which are always ready."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or (stat.S_ISCHR(mode) and os.isatty(fd))


async def _read_file(fd: int, reader: Reader) -> None:
    while data := os.read(fd, _CHUNK):
        reader.data_received(data)
        await asyncio.sleep(0)
    reader.end()


@contextmanager
def _private_stdio() -> Iterator[tuple[int, int]]:
    """Yield private descriptors of standard input and output; the public ones are /dev/null and standard error."""
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
            # The terminal or pipe is shared with other processes, which expect it to be blocking.
            with suppress(OSError):
                os.set_blocking(private, True)
            os.dup2(private, public)
            os.close(private)
