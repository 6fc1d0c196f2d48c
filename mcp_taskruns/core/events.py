"""The events of a stream: one progress for each, and an outcome at the end."""

from dataclasses import dataclass
from typing import Any, Literal

from mcp_taskruns.core.cutting import cut
from mcp_taskruns.core.result import Outcome
from mcp_taskruns.core.text import dump, one_line, parse_or_text

MIN_ROOM = 200
"""Characters that the last event gets at least, of what the bound leaves it."""

ENVELOPE = 400
"""Characters of an outcome beside its whole events: how it ended, and what a cut event may take over its room."""

_KEEP_ALIVE = ("keepalive", "keep-alive", "ping", "heartbeat")
_TOLD = ("status", "state", "stage", "message", "error", "error_message")


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    data: str
    event: str = "message"
    id: str = ""


@dataclass(frozen=True)
class Progress:
    """One progress notification; `progress` grows with every one of a call, `message` is one short line."""

    progress: float
    total: float | None = None
    message: str = ""


Ended = Literal["closed", "wait_over", "event_limit", "error"]


class EventFold:
    """The events of one stream, one by one, to progress and at last to an outcome.

    `max_events` and `max_chars` bound what the outcome holds; once one is reached, `full` is true.
    """

    def __init__(self, max_events: int, max_chars: int) -> None:
        self.full = False
        self._max_events = max_events
        self._max_chars = max_chars - ENVELOPE
        self._chars = 0
        self._events: list[dict[str, Any]] = []

    def add(self, event: Event) -> Progress | None:
        """Take in an event; its progress, or None for a keep-alive."""
        data = parse_or_text(event.data)
        named = data.get("type") if isinstance(data, dict) else None
        if event.event in _KEEP_ALIVE or named in _KEEP_ALIVE or not (event.data or event.event != "message"):
            return None
        listed = {"event": event.event, "id": event.id, "data": data}
        listed = {name: value for name, value in listed.items() if value not in ("", None)}
        room = self._max_chars - self._chars
        if (size := len(dump(listed)) + 1) > room:
            listed = {**cut(listed, max(room, MIN_ROOM))[0], "cut": True}
        self._chars += size
        self._events.append(listed)
        self.full = len(self._events) >= self._max_events or self._chars >= self._max_chars
        return Progress(len(self._events), None, describe_event(event.event, data))

    def outcome(self, ended: Ended, reason: str = "", resume: str = "") -> Outcome:
        """What the caller is told at the end: the events, and why there are no more.

        `resume` is the argument that takes the last event's id, where the tool has one.
        """
        value: dict[str, Any] = {"ended": ended, "count": len(self._events), "events": self._events}
        if reason:
            value["reason"] = reason
        note = _ENDINGS[ended]
        last = self._events[-1].get("id") if self._events else None
        if ended != "closed" and resume and last:
            note += f' Call again with {resume} "{last}" for what follows.'
        elif ended != "closed":
            note += " Call again to follow it further."
        return Outcome(200, dump(value), value, notes=(note,))


_ENDINGS: dict[Ended, str] = {
    "closed": "The provider closed the stream: there are no more events.",
    "wait_over": "The time for this call is over and the stream goes on. Nothing was cancelled.",
    "event_limit": "The bound on how many or how long events one call may bring is reached and the stream goes on; "
    "the last event may be cut. Nothing was cancelled.",
    "error": "The stream broke off; the events before that are listed. Nothing was cancelled.",
}


def describe_event(name: str, data: Any) -> str:
    """One line, of at most 180 characters, that tells a person what an event says."""
    if not isinstance(data, dict):
        return one_line(f"{name}: {data}" if data not in ("", None) else name)
    inner = data.get("notification")
    if isinstance(inner, dict):
        return one_line(f"{inner.get('method', name)}: {_said(inner.get('params'))}")
    subject = data.get("id") or data.get("run_id") or data.get("type") or name
    told = [str(data[key]) for key in _TOLD if data.get(key)]
    return one_line(f"{subject}: {', '.join(told)}" if told else f"{name}: {subject}")


def _said(params: Any) -> str:
    """The words in a log entry's parameters: the first text under the names that logs use."""
    if isinstance(params, dict):
        for key in ("message", "text", "content", "update", "title", "status", "sessionUpdate"):
            if params.get(key):
                return _said(params[key])
    return params if isinstance(params, str) else dump(params)
