"""Standard input and output as streams of MCP messages, on the event loop.

The SDK's own transport reads in a thread that signals cannot interrupt, and costs twice as much per call.
"""

import asyncio
import logging
import os
import select
import stat
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import TracebackType
from typing import Self

import anyio
from mcp import types
from mcp.shared.message import SessionMessage

from mcp_taskruns.core.model.json import JsonLimitExceeded, check_bounded
from mcp_taskruns.servers.mcp.backlog import Backlog, Item

MAX_MESSAGE_BYTES = 64_000_000
"""The size above which a line is discarded."""

FLUSH_SECONDS = 0.5
"""The timeout for the client to read the last messages."""

CHECK_SECONDS = 0.3
"""How often a client that does not read is examined."""

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
        self.has_ended = False
        self._backlog = Backlog()
        self._partial = bytearray()
        self._discarding = False
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.ReadTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for line in self._split(data):
            if line.strip():
                self._backlog.add(_parse(line), len(line))
        self._changed.set()
        if self._backlog.is_full:
            self._has_room.clear()
            if self._transport is not None:
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

    async def wait_for_room(self) -> None:
        """Wait until more may be read."""
        await self._has_room.wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end()

    def end(self) -> None:
        """End the stream after the messages that were read; the last line needs no line break."""
        if self._partial.strip():
            self._backlog.add(_parse(bytes(self._partial)), 0)
            self._partial.clear()
        self.has_ended = True
        self._changed.set()

    def stop(self) -> None:
        """End the stream at once, because nobody reads the responses."""
        self._partial.clear()
        self._backlog.clear()
        self.end()

    def hold_requests(self, *, is_blocked: bool) -> None:
        """Yield no requests while the client does not read."""
        self._backlog.is_blocked = is_blocked
        self._changed.set()

    def finish_request(self, request_id: types.RequestId | None) -> None:
        """Take note that a request has its response."""
        self._backlog.finish(request_id)
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        if not self._backlog.is_empty:
            await asyncio.sleep(0)  # a quick response to the last request may show that the client does not read
        while (item := self._backlog.next()) is None:
            if self.has_ended and not self._backlog.waits_for_client:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        if not (self._backlog.is_full or self._has_room.is_set()):
            self._has_room.set()
            if self._transport is not None:
                self._transport.resume_reading()
        return item

    async def receive(self) -> Item:
        """Return the next message. Raises anyio.EndOfStream."""
        try:
            return await anext(self)
        except StopAsyncIteration:
            raise anyio.EndOfStream from None

    async def aclose(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _parse(line: bytes) -> Item:
    try:
        check_bounded(line)
        return SessionMessage(types.jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as exc:
        return exc


class Writer(_Stream):
    """Messages as the lines of an output. When the client has closed it, the reader of the same client ends."""

    def __init__(self, reader: Reader) -> None:
        self.blocked = asyncio.Event()
        """Set while the client does not read."""
        self.drains = 0
        """How often the client has read again."""
        self._reader = reader
        self._turn = asyncio.Lock()
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
        self.blocked.set()
        self._reader.hold_requests(is_blocked=True)

    def resume_writing(self) -> None:
        self.drains += 1
        self.blocked.clear()
        self._writable.set()
        self._reader.hold_requests(is_blocked=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._closed.set()
        self._writable.set()
        self._reader.stop()

    async def send(self, item: SessionMessage) -> None:
        """Write a message after those of earlier callers, once the client reads.

        Raises anyio.BrokenResourceError when the client has closed the output.
        """
        message = item.message
        try:
            # The SDK's response to each open request when it shuts down: clients that have disconnected can fail on it.
            if isinstance(message, types.JSONRPCError) and message.error.code == types.CONNECTION_CLOSED:
                return
            async with self._turn:
                await self._writable.wait()
                self._write(message)
        finally:
            if isinstance(message, types.JSONRPCResponse | types.JSONRPCError):
                self._reader.finish_request(message.id)

    async def send_parse_error(self, reason: Exception) -> None:
        """Write the error response for a line that is not a JSON-RPC message."""
        fault = f"JSON that {reason}" if isinstance(reason, JsonLimitExceeded) else "not a JSON-RPC message"
        error = types.ErrorData(code=types.PARSE_ERROR, message=f"Parse error: the line is {fault}")
        self._write(types.JSONRPCError(jsonrpc="2.0", id=None, error=error))  # without waiting: the SDK reads nothing

    def _write(self, message: types.JSONRPCMessage) -> None:
        line = message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        if self._file_fd >= 0:
            os.write(self._file_fd, line)
            return
        if self._transport is None or self._transport.is_closing():
            raise anyio.BrokenResourceError
        self._transport.write(line)

    def abort(self) -> None:
        """Close the output without what the client has not read."""
        if self._transport is not None:
            self._transport.abort()

    async def aclose(self) -> None:
        if self._transport is not None:
            self._transport.close()
            # Give the client time to read what was written, but do not wait for one that has stopped reading.
            with anyio.move_on_after(FLUSH_SECONDS, shield=True):
                await self._closed.wait()
            self.abort()


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
    writer = Writer(reader)
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
            tasks.start_soon(_abandon_client, read_fd, reader, writer)
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
        await reader.wait_for_room()
    reader.end()


async def _abandon_client(read_fd: int, reader: Reader, writer: Writer) -> None:
    """Close the output to a client that has closed the input and does not read."""
    while True:
        await writer.blocked.wait()
        drains = writer.drains
        await asyncio.sleep(CHECK_SECONDS)
        has_stopped = writer.blocked.is_set() and writer.drains == drains
        if has_stopped and (reader.has_ended or _is_closed(read_fd)):
            writer.abort()
            return


def _is_closed(fd: int) -> bool:
    """Whether the other end of a pipe is closed. While nothing is read from it, the event loop does not notice."""
    poll = select.poll()
    poll.register(fd, 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))


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
