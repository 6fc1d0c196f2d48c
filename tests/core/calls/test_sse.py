"""Streams are read as the HTML standard says: html.spec.whatwg.org/multipage/server-sent-events.html."""

import random
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from mcp_taskruns.core.calls import sse
from mcp_taskruns.core.calls.sse import EventId, EventSplitter, InvalidEventStream


def events_in(*chunks: bytes) -> list[bytes]:
    """Return the events of a whole stream that arrives in these chunks."""
    splitter = EventSplitter()
    events = [event for chunk in chunks for event in splitter.feed(chunk)]
    splitter.end()
    return events


def event(*lines: bytes, is_truncated: bool = False) -> bytes:
    """Return an event of these lines as the splitter writes it: with its id first, and flags before the id."""
    ids = [line.removeprefix(b"id").removeprefix(b":").removeprefix(b" ") for line in lines if line[:2] == b"id"]
    flags = (b"i" if ids else b"") + (b"t" if is_truncated else b"")
    others = [line for line in lines if line[:2] != b"id"]
    return b"\n".join([b"id:" + flags + b":" + b"".join(ids), *others, b"", b""])


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
RENDER_EVENTS = [
    event(b"retry: 2000"),
    event(b"id: 0", b"event: task.completed", b'data: {"id":"trn-1","status":"completed"}'),
    event(b"id: 0", b"event: task.completed", b'data: {"id":"trn-2","status":"failed"}'),
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
SAMPLE_EVENTS = [
    event("data: one é".encode()),
    event(b"event: two", "data: €".encode(), b"data", b"id: 2-0"),
    event(b"data:", "data: 🧠".encode()),
    event(b"id", b"retry:10"),
    event("data: \u2028 no line's end\x0b\x0c\x1c\x85".encode()),
    event(b"data: three"),
]


@pytest.mark.parametrize(("stream", "events"), [(RENDER, RENDER_EVENTS), (SAMPLE, SAMPLE_EVENTS)])
def test_stream_in_one_chunk_is_split(stream: bytes, events: list[bytes]) -> None:
    assert events_in(stream) == events


@pytest.mark.parametrize(("stream", "events"), [(RENDER, RENDER_EVENTS), (SAMPLE, SAMPLE_EVENTS)])
def test_stream_byte_by_byte_is_split(stream: bytes, events: list[bytes]) -> None:
    assert events_in(*byte_by_byte(stream)) == events


@pytest.mark.parametrize(("stream", "events"), [(RENDER, RENDER_EVENTS), (SAMPLE, SAMPLE_EVENTS)])
def test_stream_in_two_chunks_is_split(stream: bytes, events: list[bytes]) -> None:
    wrong = [place for place in range(len(stream) + 1) if events_in(stream[:place], stream[place:]) != events]
    assert wrong == []


@pytest.mark.parametrize(("stream", "events"), [(RENDER, RENDER_EVENTS), (SAMPLE, SAMPLE_EVENTS)])
def test_empty_chunks_are_ignored(stream: bytes, events: list[bytes]) -> None:
    assert events_in(b"", *(part for byte in byte_by_byte(stream) for part in (byte, b""))) == events


@pytest.mark.parametrize("seed", range(20))
def test_line_endings_and_chunk_boundaries_do_not_matter(seed: int) -> None:
    chance = random.Random(seed)
    written = [b"data: a", b"id: 1", b"", b": ping", b"", b"data: b", b"data: c", b"", b"", b"event: d", b"data", b""]
    stream = b""
    for line in written:
        # CR and LF with nothing between them are one end of a line, not two.
        after_cr = not line and stream.endswith(b"\r")
        stream += line + chance.choice([b"\r", b"\r\n"] if after_cr else [b"\n", b"\r", b"\r\n"])
    places = sorted(chance.sample(range(len(stream) + 1), 6))
    chunks = [stream[begin:end] for begin, end in zip([0, *places], [*places, len(stream)], strict=True)]
    assert events_in(*chunks) == [
        event(b"data: a", b"id: 1"),
        event(b"data: b", b"data: c"),
        event(b"event: d", b"data"),
    ]


@pytest.mark.parametrize(
    ("chunks", "events"),
    [
        pytest.param([b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n"], [event(b"data: a", b"data: b")], id="CR|LF"),
        pytest.param([b"data: a\r", b"data: b\r", b"\r"], [event(b"data: a", b"data: b")], id="CR"),
        pytest.param([b"data: a\r", b"\n", b"\r", b"\n"], [event(b"data: a")], id="each alone"),
        pytest.param([b"data: a\r", b"\n\n"], [event(b"data: a")], id="CR|LF LF"),
        pytest.param([b"data: a\n\r", b"data: b\n\n"], [event(b"data: a"), event(b"data: b")], id="LF CR"),
    ],
)
def test_crlf_divided_between_chunks_is_one_line_ending(chunks: list[bytes], events: list[bytes]) -> None:
    assert events_in(*chunks) == events


def test_event_is_returned_with_the_bytes_that_complete_it() -> None:
    reader = EventSplitter()
    assert [list(reader.feed(chunk)) for chunk in (b"data: a", b"\r", b"\r", b"\n", b"data: b\n", b"\n")] == [
        [],
        [],
        [event(b"data: a")],
        [],
        [],
        [event(b"data: b")],
    ]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        pytest.param(b"", [], id="nothing"),
        pytest.param(b"\n\n\r\n\r\r", [], id="blank lines"),
        pytest.param(b": ping\n\n:\n\n", [], id="comments"),
        pytest.param(b": \xff not UTF-8\n\ndata: a\n\n", [event(b"data: a")], id="a comment that is not UTF-8"),
        pytest.param(b"\xef\xbb\xbfdata: a\n\n", [event(b"data: a")], id="a byte order mark"),
        pytest.param(b"\xef\xbb\xbf\n\ndata: a\n\n", [event(b"data: a")], id="a byte order mark on a line of its own"),
        pytest.param(b"data\n\n", [event(b"data")], id="empty data"),
        pytest.param(b"event: done\n\n", [event(b"event: done")], id="no data"),
        pytest.param(b"id: 1-0\n\n", [event(b"id: 1-0")], id="an id alone"),
        pytest.param(b"id\n\n", [event(b"id")], id="an id that is taken back"),
        pytest.param(b"data: id: 3\n\n", [event(b"data: id: 3")], id="data that looks like an id"),
        pytest.param(b"retry: 2000\n\n", [event(b"retry: 2000")], id="a time to reconnect"),
        pytest.param(b"data: a\n", [], id="an event that is not ended"),
        pytest.param(b"data: a", [], id="nor its line"),
        pytest.param(b"data: a\n\nevent: b\ndata", [event(b"data: a")], id="truncated in the middle of an event"),
        pytest.param(b"data: a\n\nid\n: x\nodd\n", [event(b"data: a")], id="truncated after a comment"),
    ],
)
def test_incomplete_events_and_comments_are_dropped(stream: bytes, events: list[bytes]) -> None:
    assert events_in(stream) == events


def test_byte_order_mark_is_dropped_only_at_the_beginning() -> None:
    assert events_in(b"data: a\n\n\xef\xbb\xbfdata: b\ndata: c\n\n") == [event(b"data: a"), event(b"data: c")]


def test_unknown_fields_after_an_event_are_dropped() -> None:
    # Render's example of this stream spreads the JSON over lines without "data:".
    stream = b'event: task.completed\ndata: {\n  "id": "trn-1",\n}\n\n' + b"junk\n\n" * 100_000 + b"data: b\n\n"
    assert events_in(stream) == [event(b"event: task.completed", b"data: {"), event(b"data: b")]


def test_line_of_a_mebibyte_is_kept() -> None:
    line = b"data: " + b"x" * 1_048_576
    stream = b"data: a\n\n" + line + b"\n\ndata: b\n\n"
    pieces = [stream[place : place + 1_000] for place in range(0, len(stream), 1_000)]
    assert events_in(stream) == events_in(*pieces) == [event(b"data: a"), event(line), event(b"data: b")]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that are reached soon: 40 bytes of an event, 100 of a line, 60 of other text."""
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 40)
    monkeypatch.setattr(sse, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(sse, "MAX_UNKNOWN_BYTES", 60)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("lines", "kept"),
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
def test_event_over_the_limit_is_truncated_and_flagged(lines: list[bytes], kept: list[bytes]) -> None:
    expected = [event(*kept, is_truncated=lines != kept), event(b"data: next")]
    stream = b"".join(line + b"\n" for line in lines) + b"\ndata: next\n\n"
    assert events_in(stream) == events_in(*byte_by_byte(stream)) == expected


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("line", [b": " + b"x" * 90, b"odd: " + b"x" * 90])
def test_long_line_without_a_field_does_not_truncate_the_event(line: bytes) -> None:
    assert events_in(b"data: a\n\n" + line + b"\ndata: b\n" + line + b"\n\ndata: c\n\n") == [
        event(b"data: a"),
        event(b"data: b"),
        event(b"data: c"),
    ]


def failure_of(*chunks: bytes) -> InvalidEventStream:
    with pytest.raises(InvalidEventStream) as caught:
        events_in(*chunks)
    return caught.value


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("begin", [b"", b"data: a\n\n", b"data: ", b": "])
def test_line_that_does_not_end_is_an_error(begin: bytes) -> None:
    failure = failure_of(begin, *([b"x" * 30] * 10))
    assert str(failure) == "a line that does not end"


@pytest.mark.usefixtures("small")
def test_line_that_ends_at_the_limit_is_accepted() -> None:
    assert events_in(b":" + b"x" * 99 + b"\n\ndata: a\n\n") == [event(b"data: a")]
    assert str(failure_of(b":" + b"x" * 100 + b"\n\ndata: a\n\n")) == "a line that does not end"


# https://encoding.spec.whatwg.org/#utf-8-decoder: one U+FFFD for each maximal invalid sequence
@pytest.mark.parametrize(
    ("line", "read"),
    [
        pytest.param(b"data: \xff", "data: \ufffd", id="no letter"),
        pytest.param(b"data: caf\xe9 x", "data: caf\ufffd x", id="Latin 1"),
        pytest.param(b"data: \xc3", "data: \ufffd", id="half a letter"),
        pytest.param(b"data: \xed\xa0\x80", "data: \ufffd\ufffd\ufffd", id="half a surrogate pair"),
        pytest.param(b"data: \xc0\xaf", "data: \ufffd\ufffd", id="an overlong slash"),
        pytest.param(b"event: \xfe", "event: \ufffd", id="not in the data"),
    ],
)
def test_invalid_utf8_is_replaced(line: bytes, read: str) -> None:
    stream = b"id: 1\n" + line + b"\n\ndata: next\n\n"
    expected = [event(b"id: 1", read.encode()), event(b"data: next")]
    assert events_in(stream) == events_in(*byte_by_byte(stream)) == expected


@pytest.mark.parametrize("line", [b"id: \xff", b"id: 1\xff", b"id:\xed\xa0\x80"])
def test_id_that_is_not_utf8_is_ignored(line: bytes) -> None:
    assert events_in(line + b"\ndata: a\n\n") == [event(b"data: a")]


def test_text_in_utf16_is_not_an_event_stream() -> None:
    assert "text that has no events" in str(failure_of("data: a\n\n".encode("utf-16")))


@pytest.mark.parametrize(
    "value", [b"-5", b"abc", b"", b"1.5", b"1e3", b"+5", b"5 ", b" 5", b"1_000", "\u0665".encode()]
)
def test_invalid_time_to_reconnect_is_ignored(value: bytes) -> None:
    # https://html.spec.whatwg.org/multipage/server-sent-events.html: only ASCII digits
    assert events_in(b"retry: " + value + b"\n\n") == []
    assert events_in(b"retry: " + value + b"\ndata: a\n\n") == [event(b"data: a")]


@pytest.mark.usefixtures("small")
def test_truncated_event_is_valid_utf8() -> None:
    assert events_in(b"data: " + b"x" * 60 + b"\xff\n\n") == [event(b"data: " + b"x" * 34, is_truncated=True)]
    assert events_in(b"data: " + b"x" * 33 + "\u00e9".encode() + b"\n\n") == [
        event(b"data: " + b"x" * 33, is_truncated=True)
    ]


@pytest.mark.usefixtures("small")
def test_replaced_bytes_do_not_exceed_the_bound_of_an_event() -> None:
    # 38 invalid bytes would become 108 bytes.
    (read,) = events_in(b"data: " + b"\xff" * 30 + b"\ndata: \xff\n\n")
    assert EventId.parse(read.partition(b"\n")[0].removeprefix(b"id:").decode()).is_truncated
    assert len(read) < 60
    assert read.decode().count("\ufffd") <= 12


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param(b'{"error":"no such run"}\n', '{"error":"no such run"}', id="JSON"),
        pytest.param(b'{"error":"no such run"}', '{"error":"no such run"}', id="JSON without a line's end"),
        pytest.param(b'{\n  "a": 1\n}\n', '{ "a": 1 }', id="JSON on several lines"),
        pytest.param(b"<html>\n<body>Bad gateway</body>\n", "<html> <body>Bad gateway</body>", id="HTML"),
        pytest.param(b"<html><body>Bad gateway</body>", "<html><body>Bad gateway</body>", id="HTML on one line"),
        pytest.param(b"x" * 200 + b"\n" + b"y" * 200 + b"\n", "x" * 100, id="not a second long line"),
        pytest.param(b"\n\n: comment\nBusy\n\n", "Busy", id="after a comment"),
        pytest.param(b"\xef\xbb\xbfBusy\n", "Busy", id="after a byte order mark"),
        pytest.param(b"x" * 99 + "é".encode() + b"\n", "x" * 99 + "\ufffd", id="truncated inside a character"),
    ],
)
def test_text_without_events_is_an_error_that_quotes_its_beginning(text: bytes, shown: str) -> None:
    quoted = '"' + shown.replace('"', "'") + '"'
    expected = f"text that has no events: {quoted}"
    assert str(failure_of(text)) == str(failure_of(*byte_by_byte(text))) == expected


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("line", [b"junk\n", b"junk\n\n", b"junk\r\n"])
def test_endless_text_without_events_is_an_error_before_it_ends(line: bytes) -> None:
    reader = EventSplitter()
    list(reader.feed(line * 11))
    with pytest.raises(InvalidEventStream, match='text that has no events: "junk junk junk'):
        list(reader.feed(line * 2))


@pytest.mark.usefixtures("small")
def test_some_unknown_fields_before_the_first_event_are_accepted() -> None:
    assert events_in(b"HTTP/1.1 200 OK\nServer\n\ndata: a\n\n", b"junk\n" * 100) == [event(b"data: a")]


def size_of(value: Any) -> int:
    """Return the bytes that a splitter and its parts hold."""
    if isinstance(value, bytes | bytearray):
        return len(value)
    if isinstance(value, list):
        return sum(map(size_of, value))
    return sum(map(size_of, vars(value).values())) if hasattr(value, "__dict__") else 0


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
def test_buffered_bytes_stay_bounded(chunk: bytes) -> None:
    reader = EventSplitter()
    list(reader.feed(b"data: a\n\n"))
    most = 0
    for _ in range(1_000):
        list(reader.feed(chunk))
        most = max(most, size_of(reader))
    assert most <= sse.MAX_EVENT_BYTES


@pytest.mark.usefixtures("small")
def test_buffered_bytes_of_text_without_events_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_UNKNOWN_BYTES", 10_000)
    reader = EventSplitter()
    for _ in range(100):
        list(reader.feed(b"junk" * 20 + b"\n"))
        assert size_of(reader) <= 200


def test_memory_does_not_grow_with_the_number_of_events() -> None:
    reader = EventSplitter()
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


@pytest.mark.parametrize(
    ("text", "event_id"),
    [
        (":", EventId("", is_own=False, is_truncated=False)),
        ("i:", EventId("", is_own=True, is_truncated=False)),
        ("i:1:2", EventId("1:2", is_own=True, is_truncated=False)),
        ("it:7", EventId("7", is_own=True, is_truncated=True)),
        ("t:", EventId("", is_own=False, is_truncated=True)),
    ],
)
def test_event_id_is_parsed(text: str, event_id: EventId) -> None:
    assert EventId.parse(text) == event_id


def test_id_with_a_null_character_is_ignored() -> None:
    assert events_in(b"id: 1\x002\ndata: a\n\n") == [event(b"data: a")]
