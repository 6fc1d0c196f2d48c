"""The splitter of a stream of JSON lines, on bytes in pieces of every size."""

import pytest

from mcp_taskruns.core.calls.json_lines import LineSplitter
from mcp_taskruns.core.calls.sse import EventId, InvalidEventStream


def split(body: bytes, size: int = 1_000_000) -> list[tuple[str, bool]]:
    """Return the data of each event, and whether it was truncated."""
    splitter = LineSplitter()
    events = [event for start in range(0, len(body), size) for event in splitter.feed(body[start : start + size])]
    return [read(event) for event in (*events, *splitter.end())]


def read(event: bytes) -> tuple[str, bool]:
    event_id, data, *rest = event.decode().split("\n")
    assert rest == ["", ""]
    parsed = EventId.parse(event_id.removeprefix("id:"))
    assert not parsed.is_own
    return data.removeprefix("data:"), parsed.is_truncated


@pytest.mark.parametrize("size", [1, 3, 1_000])
@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b'{"a": 1}\n{"a": 2}\n', ['{"a": 1}', '{"a": 2}']),
        (b'{"a": 1}\n{"a": 2}', ['{"a": 1}', '{"a": 2}']),
        (b'{"a": 1}\r\n\r\n\n{"a":\r2}\r\n', ['{"a": 1}', '{"a": 2}']),
        (b'\xef\xbb\xbf{"a": 1}\n', ['{"a": 1}']),
        (b'{"a": 1}\nnot json\n[2]\n', ['{"a": 1}', "not json", "[2]"]),
        (b'warming up\n{"a": 1}\n', ["warming up", '{"a": 1}']),
        (b'{"a": "\xff"}\n', ['{"a": "\ufffd"}']),
        ('{"a": "\u2028\u00e4"}\n'.encode(), ['{"a": "\u2028\u00e4"}']),
        (b'"text"\n1\nnull\n', ['"text"', "1", "null"]),
        (b"\n\n", []),
        (b"", []),
    ],
)
def test_each_line_is_an_event(body: bytes, events: list[str], size: int) -> None:
    assert split(body, size) == [(event, False) for event in events]


def test_long_line_is_truncated_and_the_next_one_is_complete() -> None:
    long, short = split(b'{"a": "' + b"x" * 9_000_000 + b'"}\n{"a": 1}\n')
    assert (len(long[0]), long[1]) == (8_000_000, True)
    assert short == ('{"a": 1}', False)


def test_truncated_line_does_not_end_with_a_part_of_a_character() -> None:
    ((data, is_truncated),) = split(b'{"a":  "' + "ä".encode() * 4_500_000 + b'"}\n')
    assert is_truncated
    assert data.endswith("ä")


def test_line_that_does_not_end_is_refused() -> None:
    splitter = LineSplitter()
    for _ in range(32):
        assert list(splitter.feed(b"x" * 1_000_000)) == []
    with pytest.raises(InvalidEventStream, match="a line that does not end"):
        list(splitter.feed(b"x"))


@pytest.mark.parametrize("body", [b"<html>\n<title>Busy</title>\n</html>", b"502 Bad Gateway"])
def test_text_without_a_line_of_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidEventStream, match="no lines of JSON"):
        split(body)


def test_text_before_the_first_line_of_json_is_bounded() -> None:
    splitter = LineSplitter()
    with pytest.raises(InvalidEventStream, match="no lines of JSON"):
        list(splitter.feed(b"words\n" * 20_000))
