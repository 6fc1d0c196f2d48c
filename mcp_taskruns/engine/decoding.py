"""Decode response bodies piece by piece, and divide event streams into events.

httpx and aiohttp decode a chunk at once, however large it becomes: 3.5 kB of doubly compressed zeros take 4 GB. So the
transports return bodies as they were sent, and `DecodingTransport` decodes them piece by piece.
"""

import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import anyio
import anyio.lowlevel
import httpx

from mcp_taskruns.core.calls.json_lines import LineSplitter
from mcp_taskruns.core.calls.sse import EventSplitter

ACCEPT_ENCODING = "gzip, deflate"

EVENT_STREAM = "text/event-stream"

MAX_PIECE_BYTES = 262_144
"""Decoded bytes that exist at a time."""

MAX_INPUT_BYTES = 16_384
"""Bytes of a body that are decoded at a time: what follows a gzip member is copied for each member."""

MAX_MEMBERS = 10_000
"""Members of a gzip body: empty ones could follow each other without end."""

MAX_EVENT_INPUT_BYTES = 4_096
"""Bytes of an event stream that are divided into events at a time. They can hold hundreds of events."""

LINES = "lines"
"""A request extension: true makes an event of each line of a body, whatever its content type."""

_GZIP = 16 + zlib.MAX_WBITS
_WITHOUT_CONTENT = frozenset({204, 205})
_CONSUMED_HEADERS = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})


class DecodingTransport(httpx.AsyncBaseTransport):
    """Wrap a transport so that the streams of its responses are decoded and bounded.

    An event stream arrives event by event, each at most `core.calls.sse.MAX_EVENT_BYTES` long. Reading a stream raises
    httpx.DecodingError for a body that cannot be decoded, httpx.RemoteProtocolError for one that is incomplete, and
    `core.calls.sse.InvalidEventStream`.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._transport.handle_async_request(request)
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        coding = response.headers.get("content-encoding", "identity").strip().lower()
        has_lines = bool(request.extensions.get(LINES)) and _has_content(response)
        is_coded, is_stream = coding not in {"", "identity"}, has_lines or is_event_stream(response)
        if not (is_coded or is_stream):
            response.request = request
            return response
        if is_coded:
            stream = _DecodedStream(stream, coding)
        if is_stream:
            stream = _EventStream(stream, LineSplitter() if has_lines else EventSplitter())
        decoded = httpx.Response(
            response.status_code,
            headers=[(name, value) for name, value in response.headers.raw if name.lower() not in _CONSUMED_HEADERS],
            stream=stream,
            extensions=response.extensions,
            request=request,
        )
        if has_lines:
            decoded.headers["Content-Type"] = EVENT_STREAM
        return decoded

    async def aclose(self) -> None:
        await self._transport.aclose()


def is_event_stream(response: httpx.Response) -> bool:
    """Whether the body is a stream of server-sent events that can be followed."""
    media_type: str = response.headers.get("content-type", "")
    return response.status_code < 300 and media_type.partition(";")[0].strip().lower() == EVENT_STREAM


def _has_content(response: httpx.Response) -> bool:
    return response.is_success and response.status_code not in _WITHOUT_CONTENT


def whole_body(response: httpx.Response) -> httpx.AsyncByteStream:
    """Return the decoded body of a response of `DecodingTransport`; an event stream is not divided into events."""
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)
    return stream.undivided if isinstance(stream, _EventStream) else stream


def _parts(data: bytes, size: int) -> Iterator[bytes]:
    """Divide bytes into parts of at most `size`."""
    return (data[start : start + size] for start in range(0, len(data), size)) if len(data) > size else iter((data,))


class _WrappedStream(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def aclose(self) -> None:
        await self._stream.aclose()


class _DecodedStream(_WrappedStream):
    """A body without its content coding."""

    def __init__(self, stream: httpx.AsyncByteStream, coding: str) -> None:
        super().__init__(stream)
        self._coding = coding

    async def __aiter__(self) -> AsyncIterator[bytes]:
        decoder = _decoder_for(self._coding)
        async for data in self._stream:
            try:
                for part in _parts(data, MAX_INPUT_BYTES):
                    for piece in decoder.decode(part):
                        yield piece
                        await anyio.lowlevel.checkpoint()  # a few bytes can decode to many pieces
            except zlib.error as exc:
                raise httpx.DecodingError(f"the body is not valid {self._coding}: {exc}") from exc
        if not decoder.is_complete:
            raise httpx.RemoteProtocolError(f"the {self._coding} body ends before its end marker")


class _EventStream(_WrappedStream):
    """An event stream, event by event."""

    def __init__(self, stream: httpx.AsyncByteStream, splitter: EventSplitter | LineSplitter) -> None:
        super().__init__(stream)
        self._splitter = splitter

    @property
    def undivided(self) -> httpx.AsyncByteStream:
        return self._stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            for part in _parts(data, MAX_EVENT_INPUT_BYTES):
                for event in self._splitter.feed(part):
                    yield event
                await anyio.lowlevel.checkpoint()
        for event in self._splitter.end():
            yield event


class _Decompressor(Protocol):
    """What `zlib.decompressobj` returns."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Decoder(Protocol):
    def decode(self, data: bytes) -> Iterator[bytes]:
        """Decode the next bytes of a body to pieces of at most MAX_PIECE_BYTES. Raises zlib.error."""

    @property
    def is_complete(self) -> bool:
        """Whether the body may end here; an empty body is complete."""


def _decoder_for(coding: str) -> _Decoder:
    if coding in {"gzip", "x-gzip"}:
        return _GzipDecoder()
    if coding == "deflate":
        return _DeflateDecoder()
    raise httpx.DecodingError(f"the content coding {coding[:50]!r} is not supported")


class _GzipDecoder:
    """RFC 1952: one member or several, which are one body; padding of zeros may follow."""

    def __init__(self) -> None:
        self._member: _Decompressor = zlib.decompressobj(_GZIP)
        self._is_between = True
        self._members = 0

    @property
    def is_complete(self) -> bool:
        return self._is_between

    def decode(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._is_between:
                data = data.lstrip(b"\0")
                if not data:
                    return
                self._member = zlib.decompressobj(_GZIP)
                self._members += 1
                if self._members > MAX_MEMBERS:
                    raise zlib.error(f"more than {MAX_MEMBERS:,} members")
            yield from _pieces(self._member, data)
            self._is_between = self._member.eof
            data = self._member.unused_data


class _DeflateDecoder:
    """RFC 9110 section 8.4.1.2: a zlib stream; some servers send the deflate data without its wrapper."""

    def __init__(self) -> None:
        self._body: _Decompressor | None = None

    @property
    def is_complete(self) -> bool:
        return self._body is None or self._body.eof

    def decode(self, data: bytes) -> Iterator[bytes]:
        if not data:
            return
        if self._body is None:
            has_wrapper = data[0] & 0x0F == zlib.DEFLATED
            self._body = zlib.decompressobj(zlib.MAX_WBITS if has_wrapper else -zlib.MAX_WBITS)
        if not self._body.eof:
            yield from _pieces(self._body, data)


def _pieces(decompressor: _Decompressor, data: bytes) -> Iterator[bytes]:
    """Decompress the data to pieces of bounded size."""
    piece = decompressor.decompress(data, MAX_PIECE_BYTES)
    while piece:
        yield piece
        piece = decompressor.decompress(decompressor.unconsumed_tail, MAX_PIECE_BYTES)
