"""Bodies are decoded piece by piece, whatever a provider sends as Content-Encoding."""

import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterable

import httpx
import pytest

from mcp_taskruns.core.calls.request import HttpRequest
from mcp_taskruns.engine import exchange as exchange_module
from mcp_taskruns.engine.decoding import MAX_PIECE_BYTES, DecodingTransport
from mcp_taskruns.engine.exchange import Exchange
from mcp_taskruns.errors import UpstreamError

pytestmark = pytest.mark.anyio

TEXT = b'{"message":"' + b"hello " * 1_000 + b'"}'
RAW_DEFLATE = zlib.compress(TEXT)[2:-4]
"""Without the zlib header and checksum, as some servers send it."""


class Chunks(httpx.AsyncByteStream):
    """A body in these chunks; counts how many were read."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = list(chunks)
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            self.read += 1
            yield chunk


def divided(data: bytes, size: int) -> list[bytes]:
    return [data[place : place + size] for place in range(0, len(data), size)]


def transport_of(
    stream: httpx.AsyncByteStream, coding: str, media_type: str = "application/json"
) -> httpx.MockTransport:
    headers = {"Content-Type": media_type} | ({"Content-Encoding": coding} if coding else {})
    return httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, stream=stream))


async def body_of(stream: httpx.AsyncByteStream, coding: str) -> bytes:
    exchange = Exchange(5, transport_of(stream, coding))
    async with exchange.send(HttpRequest("acme", "GET", "https://api.example/", (), safe_to_retry=True)) as response:
        return (await response.read()).body


async def failure(data: bytes, coding: str) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await body_of(Chunks([data]), coding)
    return caught.value


@pytest.mark.parametrize("size", [1, 7, 100, 100_000])
@pytest.mark.parametrize(
    ("coding", "data"),
    [
        pytest.param("gzip", gzip.compress(TEXT), id="gzip"),
        pytest.param("GZIP ", gzip.compress(TEXT), id="gzip in capitals"),
        pytest.param("x-gzip", gzip.compress(TEXT), id="x-gzip"),
        pytest.param("gzip", gzip.compress(TEXT[:50]) + gzip.compress(TEXT[50:]), id="two gzip members"),
        pytest.param("gzip", gzip.compress(b"") + gzip.compress(TEXT), id="an empty gzip member"),
        pytest.param("gzip", gzip.compress(TEXT) + b"\0" * 10, id="gzip with padding"),
        pytest.param("deflate", zlib.compress(TEXT), id="deflate"),
        pytest.param("deflate", RAW_DEFLATE, id="deflate without a zlib header"),
        pytest.param("identity", TEXT, id="identity"),
        pytest.param("", TEXT, id="no coding"),
    ],
)
async def test_body_is_decoded(coding: str, data: bytes, size: int) -> None:
    assert await body_of(Chunks(divided(data, size)), coding) == TEXT


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        pytest.param("gzip", gzip.compress(TEXT), id="gzip"),
        pytest.param("deflate", zlib.compress(TEXT), id="deflate"),
        pytest.param("deflate", RAW_DEFLATE, id="deflate without a zlib header"),
    ],
)
async def test_empty_chunks_of_a_compressed_body_are_ignored(coding: str, data: bytes) -> None:
    assert await body_of(Chunks([b"", data[:1], b"", data[1:], b""]), coding) == TEXT


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_empty_body_needs_no_end_marker(coding: str) -> None:
    assert await body_of(Chunks([]), coding) == b""


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        pytest.param("gzip", gzip.compress(TEXT)[:-1], id="gzip without its last byte"),
        pytest.param("gzip", gzip.compress(TEXT)[:15], id="the beginning of gzip"),
        pytest.param("gzip", gzip.compress(TEXT) + gzip.compress(TEXT)[:20], id="a second member that is incomplete"),
        pytest.param("deflate", zlib.compress(TEXT)[:-1], id="deflate without its last byte"),
    ],
)
async def test_truncated_compressed_body_is_an_incomplete_response(coding: str, data: bytes) -> None:
    error = await failure(data, coding)
    assert error.message == "the connection to acme was lost before its response was complete"
    assert error.retryable


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        pytest.param("gzip", b"not gzip", id="not gzip"),
        pytest.param("gzip", gzip.compress(TEXT) + b"rubbish", id="rubbish after gzip"),
        pytest.param("gzip", gzip.compress(TEXT) + b"\0XXX", id="text after the padding of gzip"),
        pytest.param("deflate", b"\xff" * 10, id="not deflate"),
        pytest.param("br", b"\x0b\x02\x80hello\x03", id="brotli, which is not offered"),
        pytest.param("zstd", b"\x28\xb5\x2f\xfd", id="zstd, which is not offered"),
        pytest.param("gzip, gzip", gzip.compress(gzip.compress(TEXT)), id="two codings"),
        pytest.param("x" * 1_000, b"", id="an unknown coding"),
    ],
)
async def test_body_that_cannot_be_decoded_is_an_error(coding: str, data: bytes) -> None:
    error = await failure(data, coding)
    assert error.message == "acme sent a body that cannot be decoded"
    assert error.kind == "unavailable"


async def test_decompression_bomb_is_stopped_in_bounded_memory() -> None:
    # 100 MB of zeros in 100 kB, and 4 GB of them in 3.5 kB of two layers: the second layer is never decoded.
    once = zlib.compress(b"\0" * 100_000_000, 9)
    stream = Chunks([once])
    tracemalloc.start()
    try:
        with pytest.raises(UpstreamError, match="acme sent more than 8,000,000 bytes"):
            await body_of(stream, "deflate")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * exchange_module.MAX_PARSED_BYTES
    assert "cannot be decoded" in (await failure(zlib.compress(once), "deflate, deflate")).message


async def test_decoded_pieces_are_bounded() -> None:
    transport = DecodingTransport(transport_of(Chunks([gzip.compress(b"\0" * 5_000_000)]), "gzip"))
    response = await transport.handle_async_request(httpx.Request("GET", "https://api.example/"))
    assert isinstance(response.stream, httpx.AsyncByteStream)
    sizes = [len(piece) async for piece in response.stream]
    assert sum(sizes) == 5_000_000
    assert max(sizes) <= MAX_PIECE_BYTES


async def test_decoded_response_has_no_headers_of_the_encoded_body() -> None:
    transport = DecodingTransport(
        httpx.MockTransport(
            lambda _: httpx.Response(200, headers={"Content-Encoding": "gzip", "X-Total": "3"}, stream=Chunks([]))
        )
    )
    response = await transport.handle_async_request(httpx.Request("GET", "https://api.example/"))
    assert list(response.headers.items()) == [("x-total", "3")]
    await transport.aclose()


async def test_compressed_event_stream_is_decoded_event_by_event() -> None:
    compressor = zlib.compressobj(wbits=31)
    first = compressor.compress(b"data: 1\n\n") + compressor.flush(zlib.Z_SYNC_FLUSH)
    rest = compressor.compress(b"data: 2\n\n") + compressor.flush()
    stream = Chunks([first, rest])
    exchange = Exchange(5, transport_of(stream, "gzip", "text/event-stream"))
    read = []
    async with exchange.send(HttpRequest("acme", "GET", "https://api.example/", ())) as response:
        async for event in response.events():
            read.append((event.data, stream.read))
    assert read == [("1", 1), ("2", 2)]


async def test_gzip_members_are_bounded() -> None:
    assert await body_of(Chunks([gzip.compress(b"a") * 5_000]), "gzip") == b"a" * 5_000
    assert "cannot be decoded" in (await failure(gzip.compress(b"") * 20_000, "gzip")).message
