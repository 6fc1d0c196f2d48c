"""Event streams, with events taken from Render's clients and PostHog's source (products/tasks/backend)."""

import json
from typing import Any

import pytest

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.sse import Event
from mcp_taskruns.core.calls.truncation import MAX_LINE
from mcp_taskruns.core.model.json import dump, parse
from mcp_taskruns.core.model.run import Lifecycle, RunStatus
from mcp_taskruns.core.runs import events
from mcp_taskruns.core.runs.events import (
    ENVELOPE,
    MIN_EVENT_CHARS,
    CollectedEvent,
    EndReason,
    EventCollector,
    describe_event,
)
from mcp_taskruns.core.runs.reading import Reading
from mcp_taskruns.core.runs.replay import Replay
from mcp_taskruns.core.runs.watch import Watch
from mcp_taskruns.errors import CallError
from mcp_taskruns.loading.loader import load_tools
from tests.core.documents import Json

LIFECYCLES: dict[str, Lifecycle] = {tool.prefix: tool.runs for tool in load_tools([]) if tool.runs is not None}

# render 1.5.0 stream_task_runs_events.py: the event is always named task.completed, its data TaskRunDetails
RENDER_EVENT = {
    "id": "trn-d1abc2def3ghi4jkl5mn",
    "taskId": "tsk-d1abc2def3ghi4jkl5mn",
    "status": "failed",
    "results": None,
    "error": "ValueError: no",
}


# PostHog products/tasks/backend/models.py and api.py (stream)
STATE_EVENT = {
    "type": "task_run_state",
    "run_id": "0196b7a2-9e21-7c44-b0f3-5d7a8c2e1b22",
    "task_id": "0196b7a1-4f3c-7a10-8d5e-2b9c6f1e0a11",
    "status": "in_progress",
    "stage": "build",
    "output": None,
    "branch": None,
    "error_message": None,
    "updated_at": "2026-01-01T00:00:00Z",
    "completed_at": None,
}


# The paths of the overlay posthog-task-runs.yaml.
FORMAT = next(tool.operation.events for tool in load_tools([]) if tool.name == "posthog-stream-task-run")


def log_entry(method: str, params: Any) -> Json:
    notification = {"jsonrpc": "2.0", "method": method, "params": params}
    return {"type": "notification", "timestamp": "2026-01-31T09:00:00Z", "notification": notification}


def update(**fields: Any) -> Json:
    return log_entry("session/update", {"sessionId": "s", "update": fields})


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("task.completed", RENDER_EVENT, "trn-d1abc2def3ghi4jkl5mn: failed, ValueError: no"),
        ("task.completed", {"id": "trn-1", "status": "completed", "error": None}, "trn-1: completed"),
        ("message", STATE_EVENT, "0196b7a2-9e21-7c44-b0f3-5d7a8c2e1b22: in_progress, build"),
        (
            "message",
            STATE_EVENT | {"status": "failed", "stage": None, "error_message": "No sandbox"},
            "0196b7a2-9e21-7c44-b0f3-5d7a8c2e1b22: failed, No sandbox",
        ),
        ("message", log_entry("_posthog/console", {"level": "info", "message": "hi"}), "console: hi"),
        (
            "message",
            update(sessionUpdate="agent_message_chunk", content={"type": "text", "text": "I look\nat it"}),
            "agent message chunk: I look at it",
        ),
        (
            "message",
            update(sessionUpdate="tool_call", title="Read main.py", status="pending"),
            "tool call: Read main.py",
        ),
        ("message", update(sessionUpdate="tool_call_update", status="completed"), "tool call update: completed"),
        ("message", update(sessionUpdate="plan"), "plan"),
        ("message", update(sessionUpdate="agent_message_chunk"), "agent message chunk"),
        ("message", update(status="odd"), "update: odd"),
        ("message", update(sessionUpdate="", status="odd"), "update: odd"),
        ("message", log_entry("session/update", {"update": "text"}), "update: text"),
        ("message", log_entry("_posthog/branch", {"branch": "main"}), 'branch: {"branch":"main"}'),
        ("message", log_entry("_posthog/list", [1, 2]), "list: [1,2]"),
        ("message", log_entry("_posthog/turn_complete", None), "turn complete"),
        ("message", log_entry("_posthog/turn_complete", {}), "turn complete"),
        ("message", log_entry("initialize", {"message": "x"}), "initialize: x"),
        ("named", {"notification": {"params": {"text": "x"}}}, "named: x"),
        (
            "message",
            {"type": "permission_request", "requestId": "r1", "toolCall": {}, "options": []},
            "message: permission_request",
        ),
        (
            "message",
            {"type": "permission_request", "requestId": "r1", "toolCall": {"title": "Run make"}, "options": []},
            "permission request: Run make",
        ),
        ("ask", {"toolCall": {"title": "Run make"}}, "ask: Run make"),
        ("ask", {"toolCall": "text", "status": "open"}, "ask: open"),
        ("error", {"error": "Stream not available"}, "error: Stream not available"),
        ("odd", {"x": 1}, "odd: odd"),
        ("done", "", "done"),
        ("done", None, "done"),
        ("message", "[DONE]", "message: [DONE]"),
        ("message", [1, 2], "message: [1, 2]"),
        ("message", 0, "message: 0"),
        # A log entry has no name
        ("", "text", "text"),
        ("", 7, "7"),
        ("", None, ""),
        ("", {"x": 1}, ""),
        ("", {"type": "odd"}, "odd"),
        ("", {"message": "hi"}, "hi"),
        ("", {"type": "odd", "status": "open"}, "odd: open"),
        ("", log_entry("_posthog/console", {"level": "info", "message": "hi"}), "console: hi"),
    ],
)
def test_event_is_described_in_one_line(name: str, data: Any, line: str) -> None:
    assert describe_event(name, data, FORMAT) == line


@pytest.mark.parametrize("key", ["message", "text", "content", "title", "status"])
def test_message_that_is_an_object_is_described_by_its_text(key: str) -> None:
    data = log_entry("_posthog/console", {"message": {"other": "x", key: "hi"}})
    assert describe_event("message", data, FORMAT) == "console: hi"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("message", log_entry("_posthog/console", {"message": "word\r\n\t " * 1_000})),
        ("n" * 500, {"status": "s" * 500}),
        ("message", "line\n" * 500),
        ("message", "\x1b[31m\x00\x85\x7f" * 500),
        ("message", {"id": "trn", "error": "\u2028x" * 500}),
        ("message", update(sessionUpdate="tool_call" * 500, title="x")),
        ("message", {"toolCall": {"title": "word\n" * 500}}),
    ],
)
def test_event_line_is_truncated(name: str, data: Any) -> None:
    line = describe_event(name, data, FORMAT)
    assert (len(line), line.isprintable(), line[-1]) == (MAX_LINE, True, "…")
    assert describe_event(name, data, FORMAT, 50) == line[:49] + "…"


@pytest.mark.parametrize(
    "event",
    [
        # PostHog api.py (stream): every 20 s of silence
        Event('{"type":"keepalive"}', event="keepalive"),
        Event('{"type": "keepalive"}'),
        Event('{"type":"ping","at":"2026-01-01T00:00:00Z"}'),
        Event("", event="ping"),
        Event("x", event="heartbeat"),
        Event("x", event="keep-alive"),
        # Only an id or a retry time: Render starts with one
        Event("", id="1-0", has_id=True),
        Event("", retry_s=2.0),
    ],
)
def test_keep_alive_events_are_recognised(event: Event) -> None:
    assert event.is_keep_alive


@pytest.mark.parametrize(
    "event",
    [
        Event("", event="done"),
        Event("keepalive"),
        Event("0"),
        Event('{"type":"notification"}'),
        Event('{"type":["keepalive"]}'),
        Event('["type","keepalive"]'),
        Event('{"type":"keepalive"'),
        Event('{"kind":"keepalive"}'),
        Event('{"text":"\\"type\\":\\"keepalive\\""}'),
        Event(json.dumps({"type": "keepalive", "text": "x" * 100})),
        Event('{"error":"Stream not available"}', event="error"),
    ],
)
def test_events_with_content_are_not_keep_alive(event: Event) -> None:
    assert not event.is_keep_alive


def known(replay: Replay, *events: Event) -> list[bool]:
    return [replay.is_known(event) for event in events]


def entry(number: int) -> Event:
    """Return a log entry with an id of PostHog, which uses Redis."""
    return Event(f'{{"n":{number}}}', id=f"{number}-0", has_id=True)


def end_of(run_id: str, status: str = "completed") -> Event:
    """Render's id is always 0: render-oss/cli pkg/workflows/apiserver/serversideevents/sse.go."""
    return Event(dump({"id": run_id, "status": status}), "task.completed", "0", has_id=True)


def plain(*texts: str) -> list[Event]:
    return [Event(text) for text in texts]


def test_first_connection_has_no_known_events() -> None:
    assert known(Replay(100), entry(1), entry(1), end_of("a"), end_of("a"), *plain("x", "x")) == [False] * 6


@pytest.mark.parametrize(
    ("connections", "fresh"),
    [
        pytest.param([[entry(1), entry(2)], [entry(3), entry(4)]], ["1", "2", "3", "4"], id="resumed after an id"),
        pytest.param([[entry(1), entry(2)], [entry(2), entry(3)]], ["1", "2", "3"], id="resumed at an id"),
        pytest.param([[entry(1), entry(2)], [entry(1), entry(2), entry(3)]], ["1", "2", "3"], id="ids, from the start"),
        pytest.param(
            [[entry(1)], [], [entry(1), entry(2)], [entry(1), entry(2), entry(3)]], ["1", "2", "3"], id="often"
        ),
        pytest.param([plain("a", "b"), plain("a", "b", "c")], ["a", "b", "c"], id="no ids, from the start"),
        pytest.param([plain("a", "b"), plain("c", "d")], ["a", "b", "c", "d"], id="no ids, what follows"),
        pytest.param([plain("a", "a"), plain("a", "a", "a")], ["a", "a", "a"], id="no ids, always the same"),
        pytest.param([plain("a", "b", "c"), plain("a"), plain("a", "b", "c", "d")], ["a", "b", "c", "d"], id="short"),
        pytest.param([plain("a", "b"), plain("a", "x", "b")], ["a", "b", "x", "b"], id="no ids, other than before"),
        pytest.param(
            [[entry(1), *plain("a", "b")], [*plain("a", "b", "c"), entry(2), *plain("a")]],
            ["1", "a", "b", "c", "2", "a"],
            id="some without an id, after an id",
        ),
        pytest.param(
            [[*plain("a"), entry(1), *plain("b")], plain("b", "c")],
            ["a", "1", "b", "c"],
            id="some before an id",
        ),
    ],
)
def test_events_of_an_earlier_connection_are_known(connections: list[list[Event]], fresh: list[str]) -> None:
    replay = Replay(100)
    fresh_events = []
    for place, connection in enumerate(connections):
        if place:
            replay.reconnect()
        fresh_events += [event for event in connection if not replay.is_known(event)]
    assert [event.id.partition("-")[0] if event.has_id else event.data for event in fresh_events] == fresh


def test_events_with_the_same_id_are_distinguished_by_data() -> None:
    replay = Replay(100)
    assert known(replay, end_of("a"), end_of("b")) == [False, False]
    replay.reconnect()
    assert known(replay, end_of("a"), end_of("c"), end_of("b", "failed"), end_of("b")) == [True, False, False, True]


def test_events_are_distinguished_by_name_and_id() -> None:
    replay = Replay(100)
    replay.is_known(Event("x", "one", "1", has_id=True))
    replay.reconnect()
    others = [
        Event("x", "two", "1", has_id=True),
        Event("x", "one", "2", has_id=True),
        Event("x", "one", "1"),
        Event("x", "one", "1", has_id=True),
    ]
    assert known(replay, *others) == [False, False, False, True]


def test_retry_time_does_not_distinguish_events() -> None:
    replay = Replay(100)
    replay.is_known(Event("x", id="1", has_id=True))
    replay.reconnect()
    assert replay.is_known(Event("x", id="1", has_id=True, retry_s=3.0))


@pytest.mark.parametrize("kind", ["ids", "no ids"])
def test_number_of_remembered_events_is_bounded(kind: str) -> None:
    replay = Replay(3)
    many = [entry(number) for number in range(10)] if kind == "ids" else plain(*map(str, range(10)))
    for _ in range(20):
        known(replay, *many)
        replay.reconnect()
    held = [value for value in vars(replay).values() if isinstance(value, set | list)]
    assert all(len(value) <= 9 for value in held)
    # The latest events with ids, because a server may send these again, and the first events without ids.
    kept = many[-3:] if kind == "ids" else many[:3]
    assert known(replay, *kept) == [True, True, True]


def collect(*events: Event, max_events: int = 100, max_chars: int = 10_000) -> tuple[EventCollector, list[str | None]]:
    collector = EventCollector(max_events, max_chars)
    return collector, [line_of(collector, event) for event in events]


def line_of(collector: EventCollector, event: Event) -> str | None:
    collected = collector.add(event)
    return None if collected is None else collected.line


def add_ended(collector: EventCollector, watch: Watch, *run_ids: str) -> None:
    """Add the event of the end of each run, after the run was read."""
    for run_id in run_ids:
        watch.update(Reading(run_id, RunStatus.SUCCEEDED, "completed"))
        collector.add(end_of(run_id))


def watched(
    provider: str, *run_ids: str, max_events: int = 100, max_chars: int = 10_000
) -> tuple[EventCollector, Watch]:
    watch = Watch(run_ids)
    return EventCollector(max_events, max_chars, LIFECYCLES[provider], watch, FORMAT), watch


def test_collector_returns_a_line_for_each_event_and_counts() -> None:
    collector, lines = collect(
        Event('{"status":"queued","id":"r"}', id="1-0"),
        Event('{"status":"in_progress","id":"r"}', id="2-0"),
        Event('{"status":"in_progress","id":"r"}', id="2-0"),
        Event("", event="done"),
    )
    assert lines == ["r: queued", "r: in_progress", "r: in_progress", "done"]
    assert collector.count == 4


END_NOTES: list[tuple[EndReason, str]] = [
    ("closed", "The provider closed the stream: there are no more events."),
    ("terminal", "All followed runs have ended."),
    ("wait_over", "The time limit of this call was reached, and the stream continues. Nothing was cancelled."),
    (
        "event_limit",
        "The event limit of this call was reached, and the stream continues. Nothing was cancelled.",
    ),
    ("error", "The stream failed; the events before the failure are listed. Nothing was cancelled."),
]

TO_CONTINUE = " To continue, call again with the arguments in resume."


@pytest.mark.parametrize(("ended", "note"), END_NOTES)
def test_result_lists_events_and_end_reason(ended: EndReason, note: str) -> None:
    collector, _ = collect(
        Event('{"a": 1}', id="0", event="task.completed"),
        Event("text"),
        Event("null", id="2"),
        Event("", event="done"),
    )
    listed = [
        {"event": "task.completed", "id": "0", "data": {"a": 1}},
        {"event": "message", "data": "text"},
        {"event": "message", "id": "2"},
        {"event": "done"},
    ]
    is_whole = ended in ("closed", "terminal")
    value = {"ended": ended, "runs": {}, "resume": {} if is_whole else {"id": "r"}, "events": listed}
    expected = note if is_whole else note + TO_CONTINUE
    assert collector.result(ended, {"id": "r"}) == CallResult(200, dump(value), value, notes=(expected,))


@pytest.mark.parametrize(("ended", "note"), END_NOTES)
@pytest.mark.parametrize(
    ("events", "resume", "arguments"),
    [
        ([Event("a", id="1-0"), Event("b", id="2-0")], "after", {"task_id": "t", "after": "2-0"}),
        ([Event("a", id="1-0"), Event("b", id="1-0")], "after", {"task_id": "t", "after": "1-0"}),
        ([Event("a", id="1-0"), Event("b")], "after", {"task_id": "t", "after": "0-0"}),
        ([Event("a", id="1-0")], "", {"task_id": "t", "after": "0-0"}),
        ([], "after", {"task_id": "t", "after": "0-0"}),
    ],
    ids=["last id", "an earlier id", "id taken back", "no argument", "no events"],
)
def test_result_has_resume_arguments(
    events: list[Event], resume: str, arguments: Json, ended: EndReason, note: str
) -> None:
    collector, _ = collect(*events)
    given = {"task_id": "t", "after": "0-0"}
    result = collector.result(ended, given, resume=resume)
    is_whole = ended in ("closed", "terminal")
    assert result.notes == (note if is_whole else note + TO_CONTINUE,)
    assert result.value["resume"] == ({} if is_whole else arguments)
    assert given == {"task_id": "t", "after": "0-0"}


def test_result_has_the_reason_of_an_error() -> None:
    collector, _ = collect()
    assert collector.result("error", {"a": 1}, reason="connection lost").value == {
        "ended": "error",
        "reason": "connection lost",
        "runs": {},
        "resume": {"a": 1},
        "events": [],
    }


@pytest.mark.parametrize(
    ("events", "error"),
    [
        # PostHog api.py (stream)
        ([Event('{"error":"Stream not available"}', event="error")], "error: Stream not available"),
        ([Event("a"), Event("no", event="error")], "error: no"),
        ([Event("no", event="error"), Event("a")], ""),
        ([Event('{"error":"of the run"}')], ""),
        ([], ""),
    ],
)
def test_error_event_at_the_end_is_recorded(events: list[Event], error: str) -> None:
    collector, _ = collect(*events)
    assert collector.error == error


def test_collector_is_full_at_max_events() -> None:
    collector = EventCollector(3, 10_000)
    seen = []
    for _ in range(3):
        collector.add(Event("x"))
        seen.append(collector.is_full)
    assert seen == [False, False, True]


def test_collector_is_full_at_max_stream_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_STREAM_CHARS", 1_000)
    collector, lines = collect(*[Event("x" * 500)] * 2, max_chars=1_000)
    assert (collector.is_full, None in lines) == (False, False)
    collector.add(Event("x"))
    assert collector.is_full


# Besides its text, an event takes 29 characters and a comma, with an id 38 and a comma.
@pytest.mark.parametrize(
    ("events", "listed"),
    [
        pytest.param([Event("x" * 220)] * 4, [220] * 4, id="to the character"),
        pytest.param([Event("x" * 220)] * 5, [220] * 4, id="one more does not fit"),
        pytest.param(
            [*[Event("x" * 220)] * 3, Event("x" * 219), Event("")], [220, 220, 220, 219], id="a small one does not fit"
        ),
        pytest.param([Event("x" * 170)] * 5, [170] * 5, id="five that fit"),
        pytest.param([*[Event("x" * 170)] * 4, Event("x" * 171), Event("x")], [170] * 4, id="five that do not"),
        pytest.param([Event("x" * 211, id="0")] * 5, [211] * 4, id="with their ids"),
        pytest.param([Event("", event="n" * 237)] * 5, [0] * 4, id="with their names"),
    ],
)
def test_events_are_listed_until_one_does_not_fit(events: list[Event], listed: list[int]) -> None:
    collector, lines = collect(*events, max_chars=1_000 + ENVELOPE)
    assert [len(event.get("data", "")) for event in collector.result("closed", {}).value["events"]] == listed
    assert not any("truncated" in event for event in collector.result("closed", {}).value["events"])
    assert (None in lines, collector.count, collector.is_full) == (False, len(events), False)


@pytest.mark.parametrize(
    ("ended", "note"),
    [
        ("closed", END_NOTES[0][1]),
        ("terminal", END_NOTES[1][1]),
        ("wait_over", END_NOTES[2][1]),
    ],
)
def test_unlisted_events_are_counted_and_can_be_resumed(ended: EndReason, note: str) -> None:
    collector, _ = collect(
        *[Event("x" * 200, id=f"{number}-0") for number in range(1_500)], max_events=2_000, max_chars=2_000
    )
    result = collector.result(ended, {"id": "r"}, resume="after")
    assert result.notes == (f"{note} Only the first 4 of 1,500 events are listed: the rest did not fit.{TO_CONTINUE}",)
    assert result.value["resume"] == {"id": "r", "after": "3-0"}
    assert [event["id"] for event in result.value["events"]] == ["0-0", "1-0", "2-0", "3-0"]


def test_truncated_event_of_a_run_has_a_note_about_the_tool_that_returns_the_run() -> None:
    collector, _ = watched("render", "a")
    collector.add(Event(dump({"id": "a", "status": "completed", "results": ["x" * 90_000]}), "task.completed"))
    (note,) = collector.result("terminal", {"taskRunIds": ["a"]}).notes
    assert "A whole run is returned by render-retrieve-task-run, and parts of a long one with result_path." in note


def test_truncated_event_is_marked_with_a_note() -> None:
    collector, _ = collect(Event("whole"), Event("half", is_truncated=True))
    result = collector.result("closed", {})
    assert result.value["events"] == [
        {"event": "message", "data": "whole"},
        {"event": "message", "data": "half", "truncated": True},
    ]
    assert result.notes == (f"{END_NOTES[0][1]} Events marked as truncated were too long to be listed in full.",)


def test_long_event_is_truncated_in_the_list_but_not_in_its_line() -> None:
    collector, lines = collect(
        Event("short", id="1"),
        Event(json.dumps({"id": "trn-1", "status": "failed", "results": ["x" * 50] * 100}), id="2"),
        Event("last", id="3"),
        max_chars=4_000 + ENVELOPE,
    )
    assert lines == ["message: short", "trn-1: failed", "message: last"]
    first, second, third = collector.result("event_limit", {}).value["events"]
    kept = second["data"].pop("results")
    assert (first, second, third) == (
        {"event": "message", "id": "1", "data": "short"},
        {"event": "message", "id": "2", "data": {"id": "trn-1", "status": "failed"}, "truncated": True},
        {"event": "message", "id": "3", "data": "last"},
    )
    assert kept == ["x" * 50] * len(kept)
    assert 800 < len(dump(kept)) < 1_000


def test_truncated_event_has_a_minimum_size() -> None:
    collector, lines = collect(Event("y" * 2_000), Event("z"), max_chars=100)
    assert lines == [f"message: {'y' * (MAX_LINE - 10)}…", "message: z"]
    (only,) = collector.result("event_limit", {}).value["events"]
    shown = only["data"].count("y")
    assert only == {"event": "message", "data": "y" * shown + f"… ({2_000 - shown:,} more)", "truncated": True}
    assert MIN_EVENT_CHARS - 60 < len(dump(only)) <= MIN_EVENT_CHARS


@pytest.mark.parametrize("size", range(221, 300))
def test_truncated_events_fit_into_their_share(size: int) -> None:
    collector, _ = collect(
        *[Event(json.dumps({"a": "x" * 150, "b": "y" * (size - 150)}))] * 4, max_chars=1_000 + ENVELOPE
    )
    listed = collector.result("closed", {}).value["events"]
    assert len(listed) == 4
    assert sum(len(dump(event)) + 1 for event in listed) <= 1_000


@pytest.mark.parametrize("max_chars", [2_000, 5_000, 20_000])
@pytest.mark.parametrize(
    "event",
    [
        Event("x" * 5_000, id="1-0"),
        Event('"\\' * 5_000, id="1-0"),
        Event("🧠" * 5_000),
        Event(json.dumps({f"k{number}": "v" * number for number in range(200)})),
        Event(json.dumps([[[["x" * 50] * 20] * 5] * 2])),
        Event('{"a":1}', event="n" * 50),
    ],
)
def test_result_does_not_exceed_max_chars(event: Event, max_chars: int) -> None:
    collector, _ = collect(*[event] * 200, max_events=1_000, max_chars=max_chars)
    text = collector.result("event_limit", {"project_id": 1, "id": "r" * 36}, reason="r" * 180, resume="after").text
    assert max_chars / 3 < len(text) <= max_chars
    assert parse(text)["events"]


def test_event_with_invalid_json_is_listed_as_text() -> None:
    # Render's example of this stream has JSON over several lines without "data:": a parser returns only the first line.
    collector, lines = collect(Event("{", event="task.completed"))
    assert lines == ["task.completed: {"]
    assert collector.result("closed", {}).value["events"] == [{"event": "task.completed", "data": "{"}]


def test_result_has_the_statuses_of_the_runs() -> None:
    run_id = "0196b7a2-9e21-7c44-b0f3-5d7a8c2e1b22"
    collector, watch = watched("posthog", run_id)
    end = Reading(run_id, RunStatus.SUCCEEDED, "completed", "build", result={"a": 1})
    lines = [
        line_of(collector, Event(json.dumps(STATE_EVENT), id="1-0")),
        line_of(collector, Event(json.dumps(log_entry("_posthog/console", {"message": "hi"})), id="2-0")),
    ]
    watch.update(end)
    lines.append(line_of(collector, Event(json.dumps(STATE_EVENT | {"status": "completed"}), id="3-0")))
    assert lines == [f"{run_id}: running, build", "console: hi", f"{run_id}: succeeded, build (event)"]
    assert watch.readings == {run_id: end}
    result = collector.result("terminal", {"id": run_id})
    assert (result.value["runs"], result.value["resume"]) == ({run_id: "succeeded"}, {})
    assert result.notes == (f"Run {run_id}: succeeded (completed).", "All followed runs have ended.")


def test_terminal_status_in_an_event_is_not_believed_but_reported_for_a_read() -> None:
    collector, watch = watched("render", "a", "b")
    collected = [collector.add(end_of("a", status)) for status in ("failed", "failed", "completed")]
    assert collected == [
        CollectedEvent("a: failed (event)", "a"),
        CollectedEvent("a: failed (event)", "a"),
        CollectedEvent("a: succeeded (event)", "a"),
    ]
    assert (watch.statuses(), watch.pending) == ({}, ["a", "b"])


def test_repeated_event_of_a_run_that_has_ended_is_ignored() -> None:
    collector, watch = watched("render", "a", "b")
    add_ended(collector, watch, "a", "b")
    assert [collector.add(end_of("a")), collector.add(end_of("b"))] == [None, None]
    assert collector.count == 2
    assert [event["data"]["id"] for event in collector.result("terminal", {}).value["events"]] == ["a", "b"]


def test_event_of_a_run_that_was_read_as_ended_is_listed_once() -> None:
    collector, watch = watched("render", "a")
    watch.update(Reading("a", RunStatus.SUCCEEDED, "completed"))
    assert collector.add(end_of("a")) == CollectedEvent("a: succeeded (event)", "")
    assert collector.add(end_of("a")) is None


def test_other_status_after_a_terminal_status_is_listed() -> None:
    collector, watch = watched("render", "a")
    add_ended(collector, watch, "a")
    assert line_of(collector, end_of("a", "running")) == "a: running"
    assert watch.statuses() == {"a": "succeeded"}


def test_events_of_other_runs_are_listed_but_not_watched() -> None:
    collector, watch = watched("render", "a", "b")
    line = "c: succeeded (event)"
    assert [line_of(collector, end_of("c")), line_of(collector, end_of("c"))] == [line, line]
    assert watch.statuses() == {}


def test_event_without_run_id_belongs_to_the_only_run() -> None:
    data = json.dumps({"type": "task_run_state", "status": "queued"})
    collector, watch = watched("posthog", "a")
    assert (line_of(collector, Event(data)), watch.statuses()) == ("a: queued", {"a": "queued"})
    collector, watch = watched("posthog", "a", "b")
    collector.add(Event(data))
    assert watch.statuses() == {}


def test_events_are_described_by_their_data_without_a_watch() -> None:
    collector = EventCollector(100, 10_000, LIFECYCLES["render"], None, FORMAT)
    assert line_of(collector, end_of("a")) == "a: completed"
    assert collector.result("closed", {}).value["runs"] == {}


@pytest.mark.parametrize("event", [Event('{"error":"x"}', event="error"), Event("{"), Event('{"id":"a"}')])
def test_event_without_run_is_described_by_its_data(event: Event) -> None:
    collector, watch = watched("render", "a")
    assert line_of(collector, event) == describe_event(event.event, parse(event.data) if event.data != "{" else "{")
    assert watch.statuses() == {}


@pytest.mark.parametrize("ended", ["closed", "wait_over", "event_limit", "error"])
def test_resume_contains_the_pending_runs(ended: EndReason) -> None:
    collector, watch = watched("render", "a", "b", "c")
    add_ended(collector, watch, "b")
    result = collector.result(ended, {"taskRunIds": ["a", "b", "c"], "Accept": "x"})
    assert result.value["resume"] == {"taskRunIds": ["a", "c"], "Accept": "x"}
    assert result.value["runs"] == {"b": "succeeded"}
    assert result.notes[0] == "Run b: succeeded (completed)."
    assert result.notes[1].endswith(TO_CONTINUE)


def test_stream_closed_before_all_runs_ended_has_a_note() -> None:
    collector, watch = watched("render", "a", "b")
    add_ended(collector, watch, "b")
    notes = collector.result("closed", {"taskRunIds": ["a", "b"]}).notes
    assert notes[1] == f"The provider closed the stream before all followed runs had ended.{TO_CONTINUE}"


def test_resume_of_the_stream_of_one_run_has_the_same_arguments() -> None:
    collector, _ = watched("posthog", "a")
    assert collector.result("wait_over", {"id": "a"}).value["resume"] == {"id": "a"}


def test_stream_closed_after_all_runs_ended_has_no_resume() -> None:
    collector, watch = watched("render", "a")
    add_ended(collector, watch, "a")
    assert collector.result("closed", {"taskRunIds": ["a"]}).value["resume"] == {}


def test_resume_contains_runs_with_unlisted_events() -> None:
    collector, watch = watched("render", "a", "b", "c", "d", max_chars=ENVELOPE + 200)
    results = {"results": ["x" * 60]}
    for run_id in "dcba":
        watch.update(Reading(run_id, RunStatus.SUCCEEDED, "completed"))
        collector.add(Event(dump({"id": run_id, "status": "completed", **results}), "task.completed", "0", has_id=True))
    result = collector.result("terminal", {"taskRunIds": ["a", "b", "c", "d"]})
    assert [event["data"]["id"] for event in result.value["events"]] == ["d"]
    assert result.value["resume"] == {"taskRunIds": ["a", "b", "c"]}
    assert result.value["runs"] == dict.fromkeys("abcd", "succeeded")


def test_resume_contains_each_run_once() -> None:
    collector, _ = watched("render", "a", "b", max_chars=ENVELOPE + 200)
    for number in range(5):
        collector.add(Event(dump({"id": "b", "status": "running", "n": "x" * 60, "m": number}), id="0", has_id=True))
    assert collector.result("wait_over", {}).value["resume"] == {"taskRunIds": ["a", "b"]}


def test_resume_contains_all_runs_if_only_other_events_are_unlisted() -> None:
    collector, _ = watched("render", "a", max_chars=ENVELOPE + 200)
    collector.add(end_of("a"))
    collector.add(Event("x" * 190))
    assert collector.result("terminal", {}).value["resume"] == {"taskRunIds": ["a"]}


def test_each_run_has_its_share_of_the_characters() -> None:
    run_ids = [f"trn-{number}" for number in range(20)]
    collector, _ = watched("render", *run_ids, max_chars=20_000 + ENVELOPE)
    for run_id in run_ids:
        collector.add(
            Event(dump({"id": run_id, "status": "completed", "results": ["x" * 90] * 1_000}), "task.completed", "0")
        )
    listed = collector.result("terminal", {}).value["events"]
    assert [event["data"]["id"] for event in listed] == run_ids
    assert all(event["truncated"] and event["data"]["results"] for event in listed)


def test_terminal_status_wins_over_a_failed_stream() -> None:
    collector, watch = watched("posthog", "a")
    watch.update(Reading("a", RunStatus.SUCCEEDED, "completed"))
    result = collector.result("terminal", {"id": "a"}, reason="the connection was lost.", resume="after")
    assert (result.value["ended"], result.value["resume"], "reason" in result.value) == ("terminal", {}, False)
    assert result.notes[-1].endswith("The stream failed before, so events may be missing: the connection was lost.")


def test_stream_that_still_sends_events_of_an_ended_run_can_be_resumed() -> None:
    collector, watch = watched("posthog", "a")
    collector.add(Event("x", id="7-0"))
    watch.update(Reading("a", RunStatus.SUCCEEDED, "completed"))
    result = collector.result("terminal", {"id": "a"}, resume="after", is_settled=False)
    assert result.value["resume"] == {"id": "a", "after": "7-0"}


def test_run_that_cannot_be_read_has_a_note() -> None:
    collector, watch = watched("render", "a", "b")
    watch.fail("b", CallError("the provider returned 404."), is_final=True)
    note = "The last read of b failed: the provider returned 404."
    assert note in collector.result("wait_over", {}).notes[-1]


def test_result_has_the_hint_for_a_run_that_was_not_started() -> None:
    collector, watch = watched("posthog", "a")
    watch.update(Reading("a", RunStatus.NOT_STARTED, "not_started"))
    assert "posthog-start-task-run" in collector.result("wait_over", {"id": "a"}).notes[-1]
    assert "posthog-start-task-run" not in watched("render", "a")[0].result("wait_over", {}).notes[-1]
