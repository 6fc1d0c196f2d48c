"""The bytes of an event stream to the blocks of lines that its events are, bounded and checked."""

from collections.abc import Iterator
from dataclasses import dataclass

from mcp_taskruns.errors import UpstreamError

MAX_EVENT_BYTES = 8_000_000
"""More of one event is not kept: 4 MB of input and as much of results are the most that a provider takes."""

MAX_LINE_BYTES = 32_000_000
"""A line that goes on beyond this will not end."""

MAX_JUNK_BYTES = 64_000
"""Bytes that may come before the first event and are none."""

SHOWN_BYTES = 100

_BOM = b"\xef\xbb\xbf"
_FIELDS = (b"data", b"event", b"id", b"retry")


@dataclass(frozen=True)
class Block:
    """The lines of one event, with the blank one that ends it. `is_cut`: what came beyond the bound is left out."""

    data: bytes
    has_id: bool
    is_cut: bool


class BlockReader:
    """Takes a stream's bytes as they come and gives its blocks; comments are left out.

    Raises UpstreamError for what is no event stream: text that is not UTF-8, a line without end, or other lines than
    events have. `provider` is named in it.
    """

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._line = bytearray()
        self._line_size = 0
        self._lines: list[bytes] = []
        self._size = 0
        self._is_cut = False
        self._is_line_cut = False
        self._after_cr = False
        self._begun = False
        self._found = False
        self._junk = bytearray()
        self._junk_size = 0

    def feed(self, data: bytes) -> Iterator[Block]:
        """The blocks that are whole with these bytes."""
        if not data:
            return
        if self._after_cr:
            data = data.removeprefix(b"\n")  # the second half of a line's end
        self._after_cr = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._extend(data[start:end])
            start = end + 1
            block = self._end_line()
            if block is not None:
                yield block
        self._extend(data[start:])

    def end(self) -> None:
        """No more bytes will come; an event that is not whole is none."""
        if not self._found and self._line_size:
            self._end_line()
        if not self._found and self._junk_size:
            raise self._no_events()

    def _extend(self, part: bytes) -> None:
        self._line_size += len(part)
        if self._line_size > MAX_LINE_BYTES:
            raise self._wrong("a line without end")
        room = MAX_EVENT_BYTES - self._size - len(self._line)
        if len(part) > room:
            self._is_line_cut = True
            part = part[: max(room, 0)]
        self._line += part

    def _end_line(self) -> Block | None:
        line = bytes(self._line)
        is_blank, is_cut = not self._line_size, self._is_line_cut
        self._line.clear()
        self._line_size, self._is_line_cut = 0, False
        if not self._begun:
            self._begun = True
            if line.startswith(_BOM):
                line = line.removeprefix(_BOM)
                is_blank = not line
        if is_blank:
            return self._end_block()
        if not line:
            self._is_cut = True  # there was no room for it
        if not line or line.startswith(b":"):
            return None
        try:
            line.decode()
        except UnicodeDecodeError as exc:
            if not (is_cut and exc.reason == "unexpected end of data"):
                raise self._wrong("text that is not UTF-8") from exc
            line = line[: exc.start]
        if line.partition(b":")[0] in _FIELDS:
            self._lines.append(line)
            self._size += len(line)
            self._is_cut |= is_cut
        elif not self._found:
            if len(self._junk) < SHOWN_BYTES:
                self._junk += line[:SHOWN_BYTES] + b" "
            self._junk_size += len(line) + 1
            if self._junk_size > MAX_JUNK_BYTES:
                raise self._no_events()
        return None

    def _end_block(self) -> Block | None:
        lines, self._lines = self._lines, []
        is_cut, self._is_cut, self._size = self._is_cut, False, 0
        if not lines:
            return None
        self._found = True
        has_id = any(line.partition(b":")[0] == b"id" for line in lines)
        return Block(b"\n".join([*lines, b"", b""]), has_id, is_cut)

    def _no_events(self) -> UpstreamError:
        shown = bytes(self._junk[:SHOWN_BYTES]).decode("utf-8", "replace").strip()
        return self._wrong(f"other text than events: {shown}")

    def _wrong(self, what: str) -> UpstreamError:
        return UpstreamError(
            f"{self._provider} sent {what} where an event stream should be",
            hint="Following it again is not likely to help: read the run's state instead.",
        )
