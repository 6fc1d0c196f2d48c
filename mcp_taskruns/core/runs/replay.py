"""Recognise events that a new connection repeats."""

from mcp_taskruns.core.calls.sse import Event


class Replay:
    """Recognises the events of a new connection that an earlier one has already brought.

    An event with an id is recognised by the id and its data, because some providers send the same id with every event.
    Events without an id are expected again in the order in which they came since the last id, or since the beginning.
    Of events with ids at least the last `limit` are remembered, of others the first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._earlier: set[int] = set()
        self._older: set[int] = set()
        self._current: set[int] = set()
        self._since_id: list[int] = []
        self._position: int | None = None

    def reconnect(self) -> None:
        """Begin a new connection."""
        if len(self._earlier) > self._limit:
            self._earlier.clear()
        self._earlier |= self._older | self._current
        self._older = set()
        self._current = set()
        self._position = 0

    def is_known(self, event: Event) -> bool:
        """Return whether an earlier connection brought this event; call it for each event, in order."""
        fingerprint = hash((event.has_id and event.id, event.event, event.data))
        if event.has_id:
            self._since_id.clear()
            self._position = None
            if len(self._current) >= self._limit:
                self._older, self._current = self._current, set()
            self._current.add(fingerprint)
            return fingerprint in self._earlier
        if self._position is not None and self._since_id[self._position : self._position + 1] == [fingerprint]:
            self._position += 1
            return True
        self._position = None
        if len(self._since_id) < self._limit:
            self._since_id.append(fingerprint)
        return False
