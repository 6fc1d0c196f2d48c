"""The messages of a client that were read but not yet handled, and which of them may be handled now.

No request is handled while the client does not read its responses, so that these cannot pile up. What the client
cancels meanwhile is cancelled.
"""

from collections import deque
from collections.abc import Callable

from mcp import types
from mcp.shared.dispatcher import as_request_id, coerce_request_id
from mcp.shared.message import ServerMessageMetadata, SessionMessage

MAX_IN_WORK = 1_000
"""The number of requests in work above which only pings are handled."""

MAX_WAITING_BYTES = 4_000_000
"""The size of waiting messages above which no more are read."""

MESSAGE_BYTES = 1_000
"""The approximate memory of a message besides its text."""

Item = SessionMessage | Exception
"""A message, or the reason why a line is not a message."""


class Backlog:
    """Messages in the order of their arrival, except that cancellations and pings overtake requests that have to wait.

    `is_blocked` is whether the client does not read.
    """

    def __init__(self) -> None:
        self.is_blocked = False
        self._items: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._in_work: set[types.RequestId] = set()

    @property
    def is_full(self) -> bool:
        """Whether no more should be read."""
        return self._bytes > MAX_WAITING_BYTES

    @property
    def is_empty(self) -> bool:
        """Whether no messages wait."""
        return not self._items

    @property
    def waits_for_client(self) -> bool:
        """Whether messages wait until the client reads."""
        return self.is_blocked and bool(self._items)

    def add(self, item: Item, size: int) -> None:
        """Add a message with a text of `size` bytes. The cancellation of a waiting request removes the request."""
        cancelled = _cancelled_id(item)
        if cancelled is None:
            self._items.append((item, size))
            self._bytes += size + MESSAGE_BYTES
        elif self._take_first(lambda other: _request_id(other) == cancelled) is None:
            self._items.appendleft((item, size))
            self._bytes += size + MESSAGE_BYTES

    def clear(self) -> None:
        """Discard all messages."""
        self._items.clear()
        self._bytes = 0

    def next(self) -> Item | None:
        """Take the next message that may be handled; None if there is none, or all have to wait."""
        if not self._items:
            return None
        first, _ = self._items[0]
        if isinstance(first, SessionMessage) and _request_id(first) is None:
            return self._take(0)
        if self.is_blocked:
            return None
        if len(self._in_work) < MAX_IN_WORK:
            return self._started(self._take(0))
        ping = self._take_first(_is_ping)
        return None if ping is None else self._started(ping)

    def finish(self, request_id: types.RequestId | None) -> None:
        """Take note that a request is not in work any more."""
        if request_id is not None:
            self._in_work.discard(coerce_request_id(request_id))

    def _started(self, item: Item) -> Item:
        request_id = _request_id(item)
        if request_id is None or isinstance(item, Exception):
            return item

        async def finish() -> None:
            self.finish(request_id)

        self._in_work.add(request_id)
        return SessionMessage(item.message, ServerMessageMetadata(on_request_unanswered=finish))

    def _take_first(self, is_wanted: Callable[[Item], bool]) -> Item | None:
        place = next((place for place, (item, _) in enumerate(self._items) if is_wanted(item)), None)
        return None if place is None else self._take(place)

    def _take(self, place: int) -> Item:
        item, size = self._items[place]
        del self._items[place]
        self._bytes -= size + MESSAGE_BYTES
        return item


def _request_id(item: Item) -> types.RequestId | None:
    """Return the id of a request in the form in which ids are compared; None for another message."""
    if isinstance(item, SessionMessage) and isinstance(item.message, types.JSONRPCRequest):
        return coerce_request_id(item.message.id)
    return None


def _is_ping(item: Item) -> bool:
    request = item.message if isinstance(item, SessionMessage) else None
    return isinstance(request, types.JSONRPCRequest) and request.method == "ping"


def _cancelled_id(item: Item) -> types.RequestId | None:
    """Return the id of the request that a message cancels; None for another message."""
    if isinstance(item, SessionMessage) and isinstance(item.message, types.JSONRPCNotification):
        message = item.message
        if message.method == "notifications/cancelled":
            request_id = as_request_id((message.params or {}).get("requestId"))
            return None if request_id is None else coerce_request_id(request_id)
    return None
