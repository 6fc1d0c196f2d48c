"""The events of a stream: one line for each, and an outcome at the end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.truncation import MAX_LINE, one_line, truncate
from mcp_taskruns.core.model.json import dump, parse_or_text
from mcp_taskruns.core.model.run import Lifecycle
from mcp_taskruns.core.runs.messages import status_line
from mcp_taskruns.core.runs.reading import describe_run, run_in_event
from mcp_taskruns.core.runs.watch import Watch

MIN_ROOM = 200
"""Characters that an event gets at least before it is cut."""

TRUNCATED_CHARS = len(',"truncated":true')

MIN_SHARE = 4
"""One event takes at most this part of the characters, so that it does not keep the others out."""

ENVELOPE = 1_000
"""Characters of an outcome beside its events: how it ended, states of runs, how to go on."""

MAX_STREAM_CHARS = 100_000_000
"""What one call follows at most, listed or not."""

MAX_KEEP_ALIVE = 100
"""A longer event says something."""

_KEEP_ALIVE = ("keepalive", "keep-alive", "ping", "heartbeat")
_TOLD = ("status", "state", "stage", "message", "error", "error_message")


@dataclass(frozen=True)
class Event:
    """One server-sent event.

    `id` is the stream's last id, `has_id` whether this event brought it. `retry_s` are the seconds after which the
    server wants to be asked again when the connection is lost. `is_cut`: its data was too long to be kept whole.
    """

    data: str
    event: str = "message"
    id: str = ""
    has_id: bool = False
    retry_s: float | None = None
    is_cut: bool = False

    @property
    def is_keep_alive(self) -> bool:
        """Whether nothing happened: it keeps the connection open, or only carries an id or a time to reconnect."""
        if self.event in _KEEP_ALIVE or (not self.data and self.event == "message"):
            return True
        if len(self.data) > MAX_KEEP_ALIVE or '"type"' not in self.data:
            return False
        data = parse_or_text(self.data)
        return isinstance(data, dict) and data.get("type") in _KEEP_ALIVE


@dataclass(frozen=True)
class Progress:
    """One progress notification; `progress` grows with every one of a call, `message` is one short line."""

    progress: float
    total: float | None = None
    message: str = ""


EndReason = Literal["closed", "terminal", "wait_over", "event_limit", "error"]


class Replay:
    """Knows which events of a new connection were received on an earlier one.

    An event that brings an id is known by it and by what it says: Render's id is always 0. Those without an id come
    again in the order in which they came since the last id, or since the beginning. The last `limit` events with ids
    are remembered at least, of the others the first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._earlier: set[int] = set()
        self._older: set[int] = set()
        self._current: set[int] = set()
        self._since_id: list[int] = []
        self._place: int | None = None

    def reconnect(self) -> None:
        """A new connection begins."""
        if len(self._earlier) > self._limit:
            self._earlier.clear()
        self._earlier |= self._older | self._current
        self._older = set()
        self._current = set()
        self._place = 0

    def is_known(self, event: Event) -> bool:
        """Whether an earlier connection brought this event; to be asked of each, in order."""
        told = hash((event.has_id and event.id, event.event, event.data))
        if event.has_id:
            self._since_id.clear()
            self._place = None
            if len(self._current) >= self._limit:
                self._older, self._current = self._current, set()
            self._current.add(told)
            return told in self._earlier
        if self._place is not None and self._since_id[self._place : self._place + 1] == [told]:
            self._place += 1
            return True
        self._place = None
        if len(self._since_id) < self._limit:
            self._since_id.append(told)
        return False


class EventCollector:
    """The events of one stream, one by one, to lines and at last to an outcome.

    `max_events` bounds how many are taken in, after which `is_full`; `max_chars` how many are listed. Of what follows
    after these, states and lines are told still. `watch` gets what the events say of its runs.
    """

    def __init__(
        self, max_events: int, max_chars: int, lifecycle: Lifecycle | None = None, watch: Watch | None = None
    ) -> None:
        self.count = 0
        self.error = ""
        self._chars = 0
        self._max_events = max_events
        self._room = max(max_chars - ENVELOPE, MIN_ROOM)
        self._share = max(self._room // max(MIN_SHARE, len(watch.readings) if watch else 0), MIN_ROOM)
        self._events: list[dict[str, Any]] = []
        self._last_id = ""
        self._unlisted: set[str] = set()
        self._lifecycle = lifecycle
        self._watch = watch

    @property
    def is_full(self) -> bool:
        """Whether the bound on events, or on their length, is reached."""
        return self.count >= self._max_events or self._chars > MAX_STREAM_CHARS

    def add(self, event: Event) -> str | None:
        """Take in an event; its line, or None for the end of a run that was told before."""
        data = parse_or_text(event.data)
        line = describe_event(event.event, data)
        told_of = ""
        stream = self._lifecycle.stream if self._lifecycle else None
        if self._lifecycle is not None and self._watch is not None and stream is not None:
            reading = run_in_event(self._lifecycle, data, self._watch.only_run_id)
            if reading is not None:
                if stream.takes_many_runs and reading.status.is_terminal and self._watch.has_ended(reading.run_id):
                    return None  # Render tells the end of a run anew to each connection
                self._watch.update(reading, may_resume=not stream.takes_many_runs)
                told_of, line = reading.run_id, describe_run(reading)
        self.count += 1
        self._chars += len(event.data)
        self.error = line if event.event == "error" else ""
        if not self._list(event, data) and told_of:
            self._unlisted.add(told_of)
        return line

    def _list(self, event: Event, data: Any) -> bool:
        if len(self._events) < self.count - 1:
            return False  # the list ends where the first did not fit, so that the rest can be asked for
        listed = {"event": event.event, "id": event.id, "data": data}
        listed = {name: value for name, value in listed.items() if value not in ("", None)}
        if event.is_cut:
            listed["truncated"] = True
        if (size := len(dump(listed)) + 1) > self._share:
            listed = {**truncate(listed, self._share - TRUNCATED_CHARS - 1)[0], "truncated": True}
            size = len(dump(listed)) + 1
        if size > self._room:
            return False
        self._room -= size
        self._events.append(listed)
        self._last_id = event.id
        return True

    def result(
        self, ended: EndReason, arguments: Mapping[str, Any], *, reason: str = "", resume: str = ""
    ) -> CallResult:
        """What the caller is told at the end: the events, why there are no more, and how to go on.

        `arguments` are those of the call, `resume` the one that takes the last event's id, where the tool has one.
        """
        missing = self.count - len(self._events)
        watch = self._watch
        is_whole = not missing and (ended == "terminal" or (ended == "closed" and (watch is None or watch.is_done)))
        value: dict[str, Any] = {
            "ended": ended,
            **({"reason": reason} if reason else {}),
            "runs": watch.statuses() if watch else {},
            "resume": {} if is_whole else self._resume(arguments, resume),
            "events": self._events,
        }
        readings = [reading for reading in watch.readings.values() if reading] if watch else []
        note = _ENDINGS[ended]
        if ended == "closed" and not is_whole:
            note = "The provider closed the stream before all that was followed had ended."
        if any("truncated" in event for event in self._events):
            note += " Data marked as truncated was too long to be listed whole."
        if missing:
            note += f" Listed are the first {len(self._events):,} of {self.count:,} events: the rest did not fit."
        if not is_whole:
            note += " To go on call again with the arguments in resume."
        return CallResult.from_value(value, status_line(readings), note)

    def _resume(self, arguments: Mapping[str, Any], resume: str) -> dict[str, Any]:
        again = dict(arguments)
        if resume and self._last_id:
            again[resume] = self._last_id
        stream = self._lifecycle.stream if self._lifecycle else None
        if stream is not None and stream.takes_many_runs and self._watch is not None:
            pending = self._watch.pending
            left = [*pending, *sorted(self._unlisted.difference(pending))]
            again[stream.run_ids_argument] = left or list(self._watch.readings)
        return again


_ENDINGS: dict[EndReason, str] = {
    "closed": "The provider closed the stream: there are no more events.",
    "terminal": "All runs that were followed have ended.",
    "wait_over": "The time for this call is over and the stream goes on. Nothing was cancelled.",
    "event_limit": "The bound on the events of one call is reached and the stream goes on. Nothing was cancelled.",
    "error": "The stream broke off; the events before that are listed. Nothing was cancelled.",
}


def describe_event(name: str, data: Any, limit: int = MAX_LINE) -> str:
    """One line, of at most so many characters, that tells a person what an event says."""
    return one_line(_describe(name, data), limit)


def _describe(name: str, data: Any) -> str:
    if not isinstance(data, dict):
        return f"{name}: {data}" if name and data not in ("", None) else str(data or name)
    inner = data.get("notification")
    if isinstance(inner, dict):
        return _describe_entry(str(inner.get("method", name)), inner.get("params"))
    asked = data.get("toolCall")
    if isinstance(asked, dict) and asked.get("title"):
        return f"{_words(data.get('type') or name)}: {asked['title']}"
    subject = data.get("id") or data.get("run_id") or data.get("type") or name
    told = [str(data[key]) for key in _TOLD if data.get(key)]
    return f"{subject}: {', '.join(told)}" if told else f"{name}: {subject}" if name else str(subject)


def _describe_entry(method: str, params: Any) -> str:
    """A log entry: what kind it is, then the first words under the names that logs use."""
    update = params.get("update") if isinstance(params, dict) else None
    kind = update.get("sessionUpdate") if isinstance(update, dict) else None
    kind = _words(kind or method.rpartition("/")[2])
    said = _said(params)
    return f"{kind}: {said}" if said and _words(said) != kind else kind


def _words(kind: Any) -> str:
    return str(kind).replace("_", " ").strip()


def _said(params: Any) -> str:
    if isinstance(params, dict):
        for key in ("message", "text", "content", "update", "title", "status", "sessionUpdate"):
            if params.get(key):
                return _said(params[key])
    return params if isinstance(params, str) else "" if params in (None, {}, []) else dump(params)
