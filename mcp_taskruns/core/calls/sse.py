"""Server-sent events: the event, and the splitter of a stream into events of bounded size.

A parser of server-sent events needs three things that it does not report itself: a bound on the size of an event,
whether an event brought an id or inherited the last one, and whether the text is an event stream at all. The
`EventSplitter` handles them on the bytes, before the parser, and writes its findings into each event's id (`EventId`).
"""

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mcp_taskruns.core.calls.truncation import quote
from mcp_taskruns.core.model.json import parse_or_text

MAX_EVENT_BYTES = 8_000_000
"""The rest of a larger event is dropped. Providers accept at most 4 MB of input and as much of results."""

MAX_EVENT_LINES = 50_000
"""Further lines of an event are dropped: each takes time to parse, however short it is."""

MAX_LINE_BYTES = 32_000_000
"""A longer line is taken for one that never ends."""

MAX_UNKNOWN_BYTES = 64_000
"""Text before the first event that has no field of an event."""

MAX_QUOTED_BYTES = 100

MAX_ID_CHARS = 1_000
"""Characters of an id that is sent back to the provider."""

BOM = b"\xef\xbb\xbf"
_REPLACEMENT = "\ufffd".encode()
_FIELDS = (b"data", b"event", b"id", b"retry")


MAX_KEEP_ALIVE = 100
"""Characters of a keep-alive event. A longer event has content."""

_KEEP_ALIVE = ("keepalive", "keep-alive", "ping", "heartbeat")


@dataclass(frozen=True)
class Event:
    """One server-sent event.

    `id` is the last id of the stream, `has_id` whether this event brought it. `retry_s` is the delay in seconds before
    a new connection that the server asks for. `is_truncated`: the event was too long, and the end of its data was
    dropped.
    """

    data: str
    event: str = "message"
    id: str = ""
    has_id: bool = False
    retry_s: float | None = None
    is_truncated: bool = False

    @property
    def is_keep_alive(self) -> bool:
        """Whether the event only keeps the connection open, or only carries an id or a delay."""
        if self.event in _KEEP_ALIVE or (not self.data and self.event == "message"):
            return True
        if len(self.data) > MAX_KEEP_ALIVE or '"type"' not in self.data:
            return False
        data = parse_or_text(self.data)
        return isinstance(data, dict) and data.get("type") in _KEEP_ALIVE


def is_sendable_id(event_id: str) -> bool:
    """Return whether the id of an event can be sent back as the header `Last-Event-ID`."""
    return 0 < len(event_id) <= MAX_ID_CHARS and event_id.isascii() and event_id.isprintable()


class InvalidEventStream(ValueError):
    """The bytes are not an event stream; the message completes "the provider sent ..."."""


@dataclass(frozen=True)
class EventId:
    """The id of an event, with what `EventSplitter` found out about the event.

    `is_own` is false where the event has no `id` line: then `value` is empty. `is_truncated`: data was dropped.
    """

    value: str
    is_own: bool
    is_truncated: bool

    @classmethod
    def parse(cls, text: str) -> "EventId":
        """Read the id as `EventSplitter` writes it: flags, a colon, and the id."""
        flags, _, value = text.partition(":")
        return cls(value, "i" in flags, "t" in flags)


class EventSplitter:
    """Splits a stream of bytes into events, each ready to be parsed on its own; comments are dropped.

    Follows the grammar of https://html.spec.whatwg.org/multipage/server-sent-events.html: U+FFFD replaces bytes that
    are not UTF-8. Raises InvalidEventStream for a line that does not end, and for text without a field of an event.
    """

    def __init__(self) -> None:
        self._line = Line()
        self._event = _EventLines()
        self._after_cr = False
        self._is_first_line = True
        self._has_fields = False
        self._unknown = bytearray()
        self._unknown_size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Return the events that these bytes complete."""
        if not data:
            return
        if self._after_cr:
            data = data.removeprefix(b"\n")  # the second half of a CRLF
        self._after_cr = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._extend_line(data[start:end])
            start = end + 1
            event = self._end_line()
            if event is not None:
                yield event
        self._extend_line(data[start:])

    def end(self) -> Iterable[bytes]:
        """Check the stream when no more bytes come; an incomplete event is dropped, as the standard demands."""
        if not self._has_fields and self._line.size:
            self._end_line()
        if not self._has_fields and self._unknown_size:
            raise self._no_events()
        return ()

    def _extend_line(self, part: bytes) -> None:
        self._line.extend(part, room=MAX_EVENT_BYTES - self._event.size)
        if self._line.size > MAX_LINE_BYTES:
            raise InvalidEventStream("a line that does not end")

    def _end_line(self) -> bytes | None:
        line, self._line = self._line, Line()
        text = bytes(line.data)
        is_blank = not line.size
        if self._is_first_line:
            self._is_first_line = False
            if text.startswith(BOM):
                text = text.removeprefix(BOM)
                is_blank = not text
        if is_blank:
            event, self._event = self._event, _EventLines()
            return event.to_bytes()
        if not text:
            self._event.is_truncated = True  # the event had no room left for the line
        elif not text.startswith(b":"):
            self._add_line(text, is_truncated=line.is_truncated)
        return None

    def _add_line(self, line: bytes, *, is_truncated: bool) -> None:
        if line.partition(b":")[0] in _FIELDS:
            self._has_fields = True
            text = to_valid_utf8(line, is_truncated=is_truncated)
            room = max(MAX_EVENT_BYTES - self._event.size, len(line))
            self._event.add(_truncate(text, room), is_truncated=is_truncated or len(text) > room)
        elif not self._has_fields:
            if len(self._unknown) < MAX_QUOTED_BYTES:
                self._unknown += line[:MAX_QUOTED_BYTES] + b" "
            self._unknown_size += len(line) + 1
            if self._unknown_size > MAX_UNKNOWN_BYTES:
                raise self._no_events()

    def _no_events(self) -> InvalidEventStream:
        quoted = bytes(self._unknown[:MAX_QUOTED_BYTES]).decode("utf-8", "replace").strip()
        return InvalidEventStream(f"text that has no events: {quote(quoted)}")


class Line:
    """A line that is being received: its size, and as much of it as there is room for."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.size = 0
        self.is_truncated = False

    def extend(self, part: bytes, *, room: int) -> None:
        self.size += len(part)
        room -= len(self.data)
        if len(part) > room:
            self.is_truncated = True
            part = part[: max(room, 0)]
        self.data += part


class _EventLines:
    """The lines of one event."""

    def __init__(self) -> None:
        self.size = 0
        self.is_truncated = False
        self._lines: list[bytes] = []
        self._id: bytes | None = None

    def add(self, line: bytes, *, is_truncated: bool) -> None:
        self.size += len(line)
        self.is_truncated |= is_truncated
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"id":
            if not (b"\0" in value or _REPLACEMENT in value):  # it could not be sent back
                self._id = value
        elif len(self._lines) == MAX_EVENT_LINES:
            self.is_truncated = True
        elif name != b"retry" or value.isdigit():  # the standard ignores other times
            self._lines.append(line)

    def to_bytes(self) -> bytes | None:
        """Return the event with its id as `EventId.parse` reads it; None for an event without lines."""
        if not self._lines and self._id is None:
            return None
        flags = (b"" if self._id is None else b"i") + (b"t" if self.is_truncated else b"")
        return b"\n".join([b"id:" + flags + b":" + (self._id or b""), *self._lines, b"", b""])


def to_valid_utf8(line: bytes, *, is_truncated: bool) -> bytes:
    """Return the line with U+FFFD instead of invalid bytes; of a truncated line drop the character that was divided."""
    try:
        line.decode()
    except UnicodeDecodeError:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return decoder.decode(line, final=not is_truncated).encode()
    return line


def _truncate(text: bytes, room: int) -> bytes:
    """Return at most `room` bytes of UTF-8 text, and only whole characters."""
    return text if len(text) <= room else text[:room].decode("utf-8", "ignore").encode()
