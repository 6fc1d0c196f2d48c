"""Streams of JSON lines: the splitter of a stream into events of bounded size."""

from collections.abc import Iterator

from mcp_taskruns.core.calls.sse import (
    BOM,
    MAX_EVENT_BYTES,
    MAX_LINE_BYTES,
    MAX_QUOTED_BYTES,
    MAX_UNKNOWN_BYTES,
    InvalidEventStream,
    Line,
    to_valid_utf8,
)
from mcp_taskruns.core.calls.truncation import quote

_JSON_STARTS = (b"{", b"[", b'"')
"""How a line of JSON begins. Numbers and literals do not count: the text of a proxy may begin like them."""


class LineSplitter:
    """Splits a stream of JSON lines into events, one for each line, in the form in which `EventSplitter` returns them.

    Follows https://github.com/ndjson/ndjson-spec: empty lines are ignored, the last line needs no line break. U+FFFD
    replaces bytes that are not UTF-8, and a line that is not JSON is an event all the same. The lines before the first
    one of JSON are held back until that arrives. Raises InvalidEventStream for a line that does not end, and for a
    stream without a line of JSON, such as a page.
    """

    def __init__(self) -> None:
        self._line = Line()
        self._is_first_line = True
        self._has_json = False
        self._held_back: list[bytes] = []
        self._unknown = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Return the events that these bytes complete."""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._extend_line(data[start:end])
            start = end + 1
            yield from self._end_line()
        self._extend_line(data[start:])

    def end(self) -> Iterator[bytes]:
        """Return the last event when no more bytes come, and check the stream."""
        yield from self._end_line()
        if self._unknown:
            raise self._no_json()

    def _extend_line(self, part: bytes) -> None:
        self._line.extend(part, room=MAX_EVENT_BYTES)
        if self._line.size > MAX_LINE_BYTES:
            raise InvalidEventStream("a line that does not end")

    def _end_line(self) -> Iterator[bytes]:
        line, self._line = self._line, Line()
        text = bytes(line.data)
        if self._is_first_line:
            self._is_first_line = False
            text = text.removeprefix(BOM)
        text = text.replace(b"\r", b" ").strip()  # a carriage return would divide the event
        if not text:
            return
        event = _event(text, is_truncated=line.is_truncated)
        if self._has_json or text.startswith(_JSON_STARTS):
            self._has_json = True
            yield from self._held_back
            yield event
            self._held_back.clear()
            self._unknown.clear()
        else:
            self._hold_back(event, text)

    def _hold_back(self, event: bytes, text: bytes) -> None:
        self._held_back.append(event)
        self._unknown += text + b" "
        if len(self._unknown) > MAX_UNKNOWN_BYTES:
            raise self._no_json()

    def _no_json(self) -> InvalidEventStream:
        quoted = bytes(self._unknown[:MAX_QUOTED_BYTES]).decode("utf-8", "replace").strip()
        return InvalidEventStream(f"text that has no lines of JSON: {quote(quoted)}")


def _event(text: bytes, *, is_truncated: bool) -> bytes:
    """Return a line as an event without an id."""
    data = to_valid_utf8(text, is_truncated=is_truncated)
    return b"id:" + (b"t" if is_truncated else b"") + b":\ndata:" + data + b"\n\n"
