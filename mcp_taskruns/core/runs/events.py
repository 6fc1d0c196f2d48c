"""The events of a stream: a line for people for each, and the result of following it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.sse import Event, is_sendable_id
from mcp_taskruns.core.calls.truncation import MAX_LINE, one_line, truncate
from mcp_taskruns.core.model.json import dump, parse_or_text
from mcp_taskruns.core.model.json_path import Path, value_at
from mcp_taskruns.core.model.operation import EventFormat
from mcp_taskruns.core.model.run import Lifecycle
from mcp_taskruns.core.model.tool import RESULT_PATH
from mcp_taskruns.core.runs.reading import Reading, describe_run, run_in_event
from mcp_taskruns.core.runs.results import status_line
from mcp_taskruns.core.runs.watch import Watch

MIN_EVENT_CHARS = 200
"""Characters that an event may have at least before it is truncated."""

MIN_SHARES = 4
"""One event takes at most this fraction of the characters, so that others are listed too."""

ENVELOPE = 1_000
"""Characters reserved for the rest of the result: why the stream ended, the run statuses, how to continue."""

TRUNCATED_CHARS = len(',"truncated":true')

MAX_STREAM_CHARS = 100_000_000
"""Characters of events that one call follows, listed or not."""


_DETAIL_FIELDS = ("status", "state", "stage", "message", "error", "error_message")

NO_EVENT_FORMAT = EventFormat()


EndReason = Literal["closed", "terminal", "wait_over", "event_limit", "error"]
"""Why following a stream ended."""


@dataclass(frozen=True)
class CollectedEvent:
    """A collected event: a line for people, and the id of the run whose end it reports without proof, or empty."""

    line: str
    ended_run_id: str


class EventCollector:
    """Collects the events of a stream for the result of a call.

    Takes at most `max_events` events, and lists the first of them up to `max_chars` characters. Updates `watch` with
    the runs in all events, also in those that are not listed.
    """

    def __init__(
        self,
        max_events: int,
        max_chars: int,
        lifecycle: Lifecycle | None = None,
        watch: Watch | None = None,
        event_format: EventFormat = NO_EVENT_FORMAT,
    ) -> None:
        self.count = 0
        self.error = ""
        self._chars = 0
        self._max_events = max_events
        self._chars_left = max(max_chars - ENVELOPE, MIN_EVENT_CHARS)
        shares = max(MIN_SHARES, len(watch.readings) if watch else 0)
        self._max_event_chars = max(self._chars_left // shares, MIN_EVENT_CHARS)
        self._events: list[dict[str, Any]] = []
        self._last_id = self._last_data = ""
        self._ended_runs: set[str] = set()
        self._unlisted_runs: set[str] = set()
        self._lifecycle = lifecycle
        self._stream = lifecycle.stream if lifecycle else None
        self._watch = watch
        self._event_format = event_format

    @property
    def is_full(self) -> bool:
        """Whether no more events should be added."""
        return self.count >= self._max_events or self._chars > MAX_STREAM_CHARS

    def add(self, event: Event) -> "CollectedEvent | None":
        """Add an event and return what it reports; None if it is about the connection, or repeats what is known.

        A stream of several runs may repeat the end of a run on each new connection. A stream without ids may repeat the
        status of its run at intervals, to keep the connection open.
        """
        if self._stream is not None and event.event in self._stream.connection_events:
            return None
        data = parse_or_text(event.data)
        reading = self._read_run(data)
        if reading is None:
            line, ended_run_id = describe_event(event.event, data, self._event_format), ""
        elif self._is_repeated(reading) or (event.data == self._last_data and not event.id):
            return None
        else:
            line, ended_run_id = self._take_run(reading)
        self.count += 1
        self._chars += len(event.data)
        self._last_data = event.data
        self.error = line if event.event == "error" else ""
        if not self._list(event, data) and reading is not None:
            self._unlisted_runs.add(reading.run_id)
        return CollectedEvent(line, ended_run_id)

    def _read_run(self, data: Any) -> Reading | None:
        if self._lifecycle is None or self._watch is None:
            return None
        return run_in_event(self._lifecycle, data, self._watch.only_run_id)

    def _is_repeated(self, reading: Reading) -> bool:
        watch, run_id = self._watch, reading.run_id
        is_known = watch is not None and watch.has_ended(run_id) and run_id in self._ended_runs
        takes_many_runs = self._stream is not None and self._stream.takes_many_runs
        return is_known and reading.status.is_terminal and takes_many_runs

    def _take_run(self, reading: Reading) -> tuple[str, str]:
        """Return the line of a run in an event, and the id of the run if the event reports that it has ended."""
        line = describe_run(reading)
        assert self._watch is not None
        if not reading.status.is_terminal:
            self._watch.note_event(reading)
            return line, ""
        # Not "the run has failed": it may be the failure of an attempt.
        line = f"{line} (event)"
        if self._watch.has_ended(reading.run_id):
            self._ended_runs.add(reading.run_id)
            return line, ""
        return line, reading.run_id

    def _list(self, event: Event, data: Any) -> bool:
        """List the event if there is space. Nothing is listed after a gap, so that a later call can continue there."""
        if len(self._events) < self.count - 1:
            return False
        listed = {"event": event.event, "id": event.id, "data": data}
        listed = {name: value for name, value in listed.items() if value not in ("", None)}
        if event.is_truncated:
            listed["truncated"] = True
        if (size := len(dump(listed)) + 1) > self._max_event_chars:
            listed = {**truncate(listed, self._max_event_chars - TRUNCATED_CHARS - 1)[0], "truncated": True}
            size = len(dump(listed)) + 1
        if size > self._chars_left:
            return False
        self._chars_left -= size
        self._events.append(listed)
        if not event.id or is_sendable_id(event.id):
            self._last_id = event.id
        return True

    def result(
        self,
        ended: EndReason,
        arguments: Mapping[str, Any],
        *,
        reason: str = "",
        resume: str = "",
        is_settled: bool = True,
    ) -> CallResult:
        """Return the result of the call: the listed events, why there are no more, and how to continue.

        `arguments` are the arguments of the call, `reason` is the message of an error. `resume` is the name of the
        argument that takes the id of the last event, if the tool has one. `is_settled`: no more events are expected of
        runs that have ended.
        """
        watch = self._watch
        is_complete = is_settled and self._is_complete(ended)
        value: dict[str, Any] = {
            "ended": ended,
            **({"reason": reason} if reason and ended == "error" else {}),
            "runs": watch.statuses() if watch else {},
            "resume": {} if is_complete else self._resume_arguments(arguments, resume),
            "events": self._events,
        }
        readings = [reading for reading in watch.readings.values() if reading] if watch else []
        notes = " ".join(self._notes(ended, reason, is_complete))
        return CallResult.from_value(value, status_line(readings), notes)

    def _is_complete(self, ended: EndReason) -> bool:
        """Return whether all events are listed and no more will follow."""
        all_listed = len(self._events) == self.count
        is_done = self._watch is None or self._watch.is_done
        return all_listed and (ended == "terminal" or (ended == "closed" and is_done))

    def _notes(self, ended: EndReason, reason: str, is_complete: bool) -> Iterator[str]:
        if ended == "closed" and self._watch is not None and not self._watch.is_done:
            yield "The provider closed the stream before all followed runs had ended."
        elif ended == "terminal" and self._watch is not None and not self._watch.is_done:
            yield "All followed runs that can be read have ended."
        else:
            yield _END_NOTES[ended]
        if reason and ended == "terminal":
            yield f"The stream failed before, so events may be missing: {reason.removesuffix('.')}."
        yield from self._status_hints()
        for run_id, failure in self._watch.failures.items() if self._watch else ():
            yield f"The last read of {run_id} failed: {failure.message.removesuffix('.')}."
        if any("truncated" in event for event in self._events):
            yield "Events marked as truncated were too long to be listed in full."
            if self._lifecycle is not None:
                read = self._lifecycle.read
                yield f"A whole run is returned by {read.tool}, and parts of a long one with {RESULT_PATH}."
        if len(self._events) < self.count:
            yield f"Only the first {len(self._events):,} of {self.count:,} events are listed: the rest did not fit."
        if not is_complete:
            yield "To continue, call again with the arguments in resume."

    def _status_hints(self) -> Iterator[str]:
        """Yield what to do about runs that do not go on by themselves."""
        if self._lifecycle is None or self._watch is None:
            return
        readings = [reading for run_id in self._watch.active if (reading := self._watch.readings[run_id])]
        for native in sorted({reading.native_status for reading in readings}):
            if hint := self._lifecycle.status_hint(native):
                yield hint

    def _resume_arguments(self, arguments: Mapping[str, Any], resume: str) -> dict[str, Any]:
        """Return the arguments of a call that continues after the last listed event."""
        again = dict(arguments)
        if resume and self._last_id:
            again[resume] = self._last_id
        stream = self._stream
        if stream is not None and stream.takes_many_runs and self._watch is not None:
            pending = self._watch.pending
            unlisted = self._unlisted_runs.intersection(self._watch.readings)  # a stream may name other runs
            remaining = [*pending, *sorted(unlisted.difference(pending))]
            again[stream.run_ids_argument] = remaining or list(self._watch.readings)
        return again


_END_NOTES: Mapping[EndReason, str] = {
    "closed": "The provider closed the stream: there are no more events.",
    "terminal": "All followed runs have ended.",
    "wait_over": "The time limit of this call was reached, and the stream continues. Nothing was cancelled.",
    "event_limit": "The event limit of this call was reached, and the stream continues. Nothing was cancelled.",
    "error": "The stream failed; the events before the failure are listed. Nothing was cancelled.",
}


def describe_event(name: str, data: Any, event_format: EventFormat = NO_EVENT_FORMAT, limit: int = MAX_LINE) -> str:
    """Return an event as one line of at most `limit` characters: its type and its message.

    Both are at the paths of the format, or else in fields with common names.
    """
    return one_line(_describe_by_format(name, data, event_format) or _describe(name, data), limit)


def _describe_by_format(name: str, data: Any, event_format: EventFormat) -> str:
    """Return the description of an event by the paths of its format; empty if nothing is at them."""
    if not event_format.message_paths:
        return ""
    type_ = _first_value(data, event_format.type_paths)
    message = _message_text(_first_value(data, event_format.message_paths))
    if type_ is None and not message:
        return ""
    if type_ is None:
        type_ = data.get("type") or name
    text = _to_words(str(type_).rpartition("/")[2])
    return f"{text}: {message}" if message and _to_words(message) != text else text


def _first_value(data: Any, paths: Sequence[Path]) -> Any:
    values = (value_at(data, path) for path in paths)
    return next((value for value in values if value not in (None, "", {}, [])), None)


def _describe(name: str, data: Any) -> str:
    if not isinstance(data, dict):
        return f"{name}: {data}" if name and data not in ("", None) else str(data or name)
    subject = str(data.get("id") or data.get("run_id") or data.get("type") or name)
    details = ", ".join(str(data[key]) for key in _DETAIL_FIELDS if data.get(key))
    if not details:
        return f"{name}: {subject}" if name else subject
    return f"{subject}: {details}" if subject else details


def _to_words(type_: str) -> str:
    return type_.replace("_", " ").strip()


def _message_text(value: Any) -> str:
    """Return the text of a message, which may be an object that contains the text."""
    if isinstance(value, dict):
        for key in ("message", "text", "content", "title", "status"):
            if value.get(key):
                return _message_text(value[key])
    return value if isinstance(value, str) else "" if value is None else dump(value)
