"""Streams are read as the HTML standard says: html.spec.whatwg.org/multipage/server-sent-events.html."""

import random
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from mcp_taskruns.core.calls import sse as lines
from mcp_taskruns.core.calls.sse import Block, BlockReader
from mcp_taskruns.errors import UpstreamError


def blocks_of(*chunks: bytes) -> list[Block]:
    """The blocks of a whole stream that comes in these chunks."""
    reader = BlockReader("render")
    found = [block for chunk in chunks for block in reader.feed(chunk)]
    reader.end()
    return found


def block(*lines_: bytes, has_id: bool = False, is_cut: bool = False) -> Block:
    return Block(b"".join(line + b"\n" for line in lines_) + b"\n", has_id, is_cut)


def byte_by_byte(stream: bytes) -> Iterator[bytes]:
    return (stream[place : place + 1] for place in range(len(stream)))


# Render's frames as its local server writes them: render-oss/cli pkg/workflows/apiserver/serversideevents/sse.go
RENDER = (
    b"retry: 2000\n\n"
    b": ping\n\n"
    b'id: 0\nevent: task.completed\ndata: {"id":"trn-1","status":"completed"}\n\n'
    b": ping\n\n"
    b'id: 0\nevent: task.completed\ndata: {"id":"trn-2","status":"failed"}\n\n'
)
RENDER_BLOCKS = [
    block(b"retry: 2000"),
    block(b"id: 0", b"event: task.completed", b'data: {"id":"trn-1","status":"completed"}', has_id=True),
    block(b"id: 0", b"event: task.completed", b'data: {"id":"trn-2","status":"failed"}', has_id=True),
]

# A bit of everything; é, € and the brain take two, three and four bytes.
SAMPLE = (
    "\ufeff: begins with a comment\n\n\n"
    "data: one é\r\n\r\n"
    "event: two\rdata: €\r\ndata\rid: 2-0\r\r"
    ":x\ndata:\n:y\ndata: 🧠\r\n\n"
    "id\nretry:10\n\n"
    "data: \u2028 no line's end\x0b\x0c\x1c\x85\n\n"
    "odd: field\ndata: three\n\r\n\r"
    "data: never ended\n"
).encode()
SAMPLE_BLOCKS = [
    block("data: one é".encode()),
    block(b"event: two", "data: €".encode(), b"data", b"id: 2-0", has_id=True),
    block(b"data:", "data: 🧠".encode()),
    block(b"id", b"retry:10", has_id=True),
    block("data: \u2028 no line's end\x0b\x0c\x1c\x85".encode()),
    block(b"data: three"),
]


@pytest.mark.parametrize(("stream", "blocks"), [(RENDER, RENDER_BLOCKS), (SAMPLE, SAMPLE_BLOCKS)])
def test_a_stream_that_comes_whole_is_read(stream: bytes, blocks: list[Block]) -> None:
    assert blocks_of(stream) == blocks


@pytest.mark.parametrize(("stream", "blocks"), [(RENDER, RENDER_BLOCKS), (SAMPLE, SAMPLE_BLOCKS)])
def test_a_stream_that_comes_byte_by_byte_is_read_alike(stream: bytes, blocks: list[Block]) -> None:
    assert blocks_of(*byte_by_byte(stream)) == blocks


@pytest.mark.parametrize(("stream", "blocks"), [(RENDER, RENDER_BLOCKS), (SAMPLE, SAMPLE_BLOCKS)])
def test_wherever_a_stream_is_split_it_is_read_alike(stream: bytes, blocks: list[Block]) -> None:
    wrong = [place for place in range(len(stream) + 1) if blocks_of(stream[:place], stream[place:]) != blocks]
    assert wrong == []


@pytest.mark.parametrize(("stream", "blocks"), [(RENDER, RENDER_BLOCKS), (SAMPLE, SAMPLE_BLOCKS)])
def test_chunks_without_bytes_change_nothing(stream: bytes, blocks: list[Block]) -> None:
    assert blocks_of(b"", *(part for byte in byte_by_byte(stream) for part in (byte, b""))) == blocks


@pytest.mark.parametrize("seed", range(20))
def test_however_the_lines_end_and_the_chunks_fall_the_blocks_are_the_same(seed: int) -> None:
    chance = random.Random(seed)
    written = [b"data: a", b"id: 1", b"", b": ping", b"", b"data: b", b"data: c", b"", b"", b"event: d", b"data", b""]
    stream = b""
    for line in written:
        # CR and LF with nothing between them are one end of a line, not two.
        after_cr = not line and stream.endswith(b"\r")
        stream += line + chance.choice([b"\r", b"\r\n"] if after_cr else [b"\n", b"\r", b"\r\n"])
    places = sorted(chance.sample(range(len(stream) + 1), 6))
    chunks = [stream[begin:end] for begin, end in zip([0, *places], [*places, len(stream)], strict=True)]
    assert blocks_of(*chunks) == [
        block(b"data: a", b"id: 1", has_id=True),
        block(b"data: b", b"data: c"),
        block(b"event: d", b"data"),
    ]


@pytest.mark.parametrize(
    ("chunks", "blocks"),
    [
        pytest.param([b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n"], [block(b"data: a", b"data: b")], id="CR|LF"),
        pytest.param([b"data: a\r", b"data: b\r", b"\r"], [block(b"data: a", b"data: b")], id="CR"),
        pytest.param([b"data: a\r", b"\n", b"\r", b"\n"], [block(b"data: a")], id="each alone"),
        pytest.param([b"data: a\r", b"\n\n"], [block(b"data: a")], id="CR|LF LF"),
        pytest.param([b"data: a\n\r", b"data: b\n\n"], [block(b"data: a"), block(b"data: b")], id="LF CR"),
    ],
)
def test_a_line_end_in_two_chunks_is_one(chunks: list[bytes], blocks: list[Block]) -> None:
    assert blocks_of(*chunks) == blocks


def test_a_block_is_told_with_the_bytes_that_end_it() -> None:
    reader = BlockReader("render")
    assert [list(reader.feed(chunk)) for chunk in (b"data: a", b"\r", b"\r", b"\n", b"data: b\n", b"\n")] == [
        [],
        [],
        [block(b"data: a")],
        [],
        [],
        [block(b"data: b")],
    ]


@pytest.mark.parametrize(
    ("stream", "blocks"),
    [
        pytest.param(b"", [], id="nothing"),
        pytest.param(b"\n\n\r\n\r\r", [], id="blank lines"),
        pytest.param(b": ping\n\n:\n\n", [], id="comments"),
        pytest.param(b": \xff not UTF-8\n\ndata: a\n\n", [block(b"data: a")], id="a comment that is not UTF-8"),
        pytest.param(b"\xef\xbb\xbfdata: a\n\n", [block(b"data: a")], id="a byte order mark"),
        pytest.param(b"\xef\xbb\xbf\n\ndata: a\n\n", [block(b"data: a")], id="a byte order mark on a line of its own"),
        pytest.param(b"data\n\n", [block(b"data")], id="empty data"),
        pytest.param(b"event: done\n\n", [block(b"event: done")], id="no data"),
        pytest.param(b"id: 1-0\n\n", [block(b"id: 1-0", has_id=True)], id="an id alone"),
        pytest.param(b"id\n\n", [block(b"id", has_id=True)], id="an id that is taken back"),
        pytest.param(b"data: id: 3\n\n", [block(b"data: id: 3")], id="data that looks like an id"),
        pytest.param(b"retry: 2000\n\n", [block(b"retry: 2000")], id="a time to reconnect"),
        pytest.param(b"data: a\n", [], id="an event that is not ended"),
        pytest.param(b"data: a", [], id="nor its line"),
        pytest.param(b"data: a\n\nevent: b\ndata", [block(b"data: a")], id="cut in the middle of an event"),
        pytest.param(b"data: a\n\nid\n: x\nodd\n", [block(b"data: a")], id="cut after a comment"),
    ],
)
def test_what_is_no_whole_event_is_none(stream: bytes, blocks: list[Block]) -> None:
    assert blocks_of(stream) == blocks


def test_a_byte_order_mark_counts_at_the_beginning_only() -> None:
    assert blocks_of(b"data: a\n\n\xef\xbb\xbfdata: b\ndata: c\n\n") == [block(b"data: a"), block(b"data: c")]


def test_after_an_event_lines_that_are_no_fields_are_left_out() -> None:
    # Render's example of this stream spreads the JSON over lines without "data:".
    stream = b'event: task.completed\ndata: {\n  "id": "trn-1",\n}\n\n' + b"junk\n\n" * 100_000 + b"data: b\n\n"
    assert blocks_of(stream) == [block(b"event: task.completed", b"data: {"), block(b"data: b")]


def test_a_line_of_a_mebibyte_is_kept_whole_however_it_comes() -> None:
    line = b"data: " + b"x" * 1_048_576
    stream = b"data: a\n\n" + line + b"\n\ndata: b\n\n"
    pieces = [stream[place : place + 1_000] for place in range(0, len(stream), 1_000)]
    assert blocks_of(stream) == blocks_of(*pieces) == [block(b"data: a"), block(line), block(b"data: b")]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that are reached soon: 40 bytes of an event, 100 of a line, 60 of other text."""
    monkeypatch.setattr(lines, "MAX_EVENT_BYTES", 40)
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(lines, "MAX_JUNK_BYTES", 60)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("event", "cut"),
    [
        pytest.param([b"data: " + b"x" * 34], [b"data: " + b"x" * 34], id="to the byte"),
        pytest.param([b"data: " + b"x" * 35], [b"data: " + b"x" * 34], id="a byte more"),
        pytest.param([b"data: " + b"x" * 34, b"data: y"], [b"data: " + b"x" * 34], id="to the byte, and a line more"),
        pytest.param([b"data: " + b"x" * 94], [b"data: " + b"x" * 34], id="the longest line"),
        pytest.param([b"id: 1", b"data: " + b"x" * 50], [b"id: 1", b"data: " + b"x" * 29], id="after an id"),
        pytest.param([b"data: " + b"x" * 94, b"data: y"], [b"data: " + b"x" * 34], id="no room for a second line"),
        pytest.param(
            [b"data: " + b"x" * 20, b"data: " + b"y" * 20, b"data: z"],
            [b"data: " + b"x" * 20, b"data: " + b"y" * 8],
            id="in the second line",
        ),
        pytest.param(["data: é".encode() + b"x" * 40], ["data: é".encode() + b"x" * 32], id="letters of two bytes"),
        pytest.param([b"data: " + "é".encode() * 20], [b"data: " + "é".encode() * 17], id="between two letters"),
        pytest.param([b"data: x" + "é".encode() * 20], [b"data: x" + "é".encode() * 16], id="in a letter of two bytes"),
        pytest.param([b"data: xx" + "🧠".encode() * 20], [b"data: xx" + "🧠".encode() * 8], id="after one of four"),
        pytest.param([b"data: x" + "🧠".encode() * 20], [b"data: x" + "🧠".encode() * 8], id="in one of four"),
    ],
)
def test_an_event_over_the_bound_is_cut_and_says_so(event: list[bytes], cut: list[bytes]) -> None:
    is_cut = event != cut
    expected = [block(*cut, has_id=cut[0].startswith(b"id"), is_cut=is_cut), block(b"data: next")]
    stream = b"".join(line + b"\n" for line in event) + b"\ndata: next\n\n"
    assert blocks_of(stream) == blocks_of(*byte_by_byte(stream)) == expected


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("line", [b": " + b"x" * 90, b"odd: " + b"x" * 90])
def test_a_long_line_that_is_no_part_of_the_event_does_not_cut_it(line: bytes) -> None:
    assert blocks_of(b"data: a\n\n" + line + b"\ndata: b\n" + line + b"\n\ndata: c\n\n") == [
        block(b"data: a"),
        block(b"data: b"),
        block(b"data: c"),
    ]


def failure_of(*chunks: bytes) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        blocks_of(*chunks)
    return caught.value


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("begin", [b"", b"data: a\n\n", b"data: ", b": "])
def test_a_line_without_end_is_an_error(begin: bytes) -> None:
    failure = failure_of(begin, *([b"x" * 30] * 10))
    assert failure.message == "render sent a line without end where an event stream should be"
    assert (failure.kind, failure.retryable) == ("unavailable", False)
    assert failure.hint == "Following it again is not likely to help: read the run's state instead."


@pytest.mark.usefixtures("small")
def test_a_line_that_ends_at_the_bound_is_none_without_end() -> None:
    assert blocks_of(b":" + b"x" * 99 + b"\n\ndata: a\n\n") == [block(b"data: a")]
    assert "a line without end" in failure_of(b":" + b"x" * 100 + b"\n\ndata: a\n\n").message


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"data: \xff", id="no letter"),
        pytest.param(b"data: caf\xe9", id="Latin 1"),
        pytest.param(b"data: \xc3", id="half a letter"),
        pytest.param(b"data: \xed\xa0\x80", id="half a surrogate pair"),
        pytest.param(b"data: \xc0\xaf", id="an overlong slash"),
        pytest.param(b"event: \xfe", id="not in the data"),
        pytest.param("data: a".encode("utf-16"), id="UTF-16"),
    ],
)
@pytest.mark.parametrize("begin", [b"", b"data: a\n\n"])
def test_text_that_is_not_utf_8_is_an_error_after_the_events_before_it(begin: bytes, line: bytes) -> None:
    reader = BlockReader("render")
    assert list(reader.feed(begin)) == ([block(b"data: a")] if begin else [])
    with pytest.raises(UpstreamError) as caught:
        list(reader.feed(line + b"\n\n"))
    assert caught.value.message == "render sent text that is not UTF-8 where an event stream should be"


@pytest.mark.usefixtures("small")
def test_an_event_that_is_cut_is_utf_8_nevertheless() -> None:
    assert "not UTF-8" in failure_of(b"data: \xff" + b"x" * 60 + b"\n\n").message
    assert blocks_of(b"data: " + b"x" * 60 + b"\xff\n\n") == [block(b"data: " + b"x" * 34, is_cut=True)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param(b'{"error":"no such run"}\n', '{"error":"no such run"}', id="JSON"),
        pytest.param(b'{"error":"no such run"}', '{"error":"no such run"}', id="JSON without a line's end"),
        pytest.param(b'{\n  "a": 1\n}\n', '{   "a": 1 }', id="JSON on several lines"),
        pytest.param(b"<html>\n<body>Bad gateway</body>\n", "<html> <body>Bad gateway</body>", id="HTML"),
        pytest.param(b"<html><body>Bad gateway</body>", "<html><body>Bad gateway</body>", id="HTML on one line"),
        pytest.param(b"x" * 200 + b"\n" + b"y" * 200 + b"\n", "x" * 100, id="not a second long line"),
        pytest.param(b"\n\n: comment\nBusy\n\n", "Busy", id="after a comment"),
        pytest.param(b"\xef\xbb\xbfBusy\n", "Busy", id="after a byte order mark"),
    ],
)
def test_other_text_than_events_is_an_error_that_shows_how_it_begins(text: bytes, shown: str) -> None:
    told = f"render sent other text than events: {shown} where an event stream should be"
    assert failure_of(text).message == failure_of(*byte_by_byte(text)).message == told


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("line", [b"junk\n", b"junk\n\n", b"junk\r\n"])
def test_other_text_that_goes_on_and_on_is_an_error_before_it_ends(line: bytes) -> None:
    reader = BlockReader("render")
    list(reader.feed(line * 11))
    with pytest.raises(UpstreamError, match="other text than events: junk junk junk"):
        list(reader.feed(line * 2))


@pytest.mark.usefixtures("small")
def test_a_few_odd_lines_before_the_first_event_are_no_error() -> None:
    assert blocks_of(b"HTTP/1.1 200 OK\nServer\n\ndata: a\n\n", b"junk\n" * 100) == [block(b"data: a")]


def size_of(reader: BlockReader) -> int:
    """The bytes that a reader holds."""
    held: dict[str, Any] = vars(reader)
    texts = [value for value in held.values() if isinstance(value, bytes | bytearray)]
    texts += [line for value in held.values() if isinstance(value, list) for line in value]
    return sum(map(len, texts))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(b"data: " + b"x" * 90 + b"\n", id="one event without end"),
        pytest.param(b"data\n", id="one event of empty lines without end"),
        pytest.param(b"data: " + b"x" * 90 + b"\n\n", id="events that are cut"),
        pytest.param(b": " + b"x" * 90 + b"\n", id="comments"),
        pytest.param(b"odd: " + b"x" * 90 + b"\n", id="lines that are no fields"),
        pytest.param(b"\r", id="blank lines"),
    ],
)
def test_what_a_reader_holds_stays_small_over_a_stream_without_end(chunk: bytes) -> None:
    reader = BlockReader("render")
    list(reader.feed(b"data: a\n\n"))
    most = 0
    for _ in range(1_000):
        list(reader.feed(chunk))
        most = max(most, size_of(reader))
    assert most <= lines.MAX_EVENT_BYTES


@pytest.mark.usefixtures("small")
def test_nor_does_it_hold_much_of_what_is_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_JUNK_BYTES", 10_000)
    reader = BlockReader("render")
    for _ in range(100):
        list(reader.feed(b"junk" * 20 + b"\n"))
        assert size_of(reader) <= 200


def test_memory_does_not_grow_over_many_events() -> None:
    reader = BlockReader("render")
    chunk = b'id: 1-0\ndata: {"type":"notification","text":"' + b"x" * 100 + b'"}\n\n' * 10
    list(reader.feed(chunk))
    tracemalloc.start()
    try:
        count = sum(1 for _ in range(4_000) for _ in reader.feed(chunk))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 4_000
    assert peak < 10_000
