"""Events are as the providers send them: Render's clients and PostHog's source (products/tasks/backend)."""

import json
from typing import Any

import pytest

from mcp_taskruns.core.events import ENVELOPE, MIN_ROOM, Ended, Event, EventFold, Progress, describe_event
from mcp_taskruns.core.result import Outcome
from mcp_taskruns.core.text import MAX_LINE, dump

from . import Json

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
        ("message", log_entry("_posthog/console", {"level": "info", "message": "hi"}), "_posthog/console: hi"),
        (
            "message",
            update(sessionUpdate="agent_message_chunk", content={"type": "text", "text": "I look\nat it"}),
            "session/update: I look at it",
        ),
        (
            "message",
            update(sessionUpdate="tool_call", title="Read main.py", status="pending"),
            "session/update: Read main.py",
        ),
        ("message", update(sessionUpdate="plan"), "session/update: plan"),
        ("message", log_entry("_posthog/branch", {"branch": "main"}), '_posthog/branch: {"branch":"main"}'),
        ("message", log_entry("_posthog/list", [1, 2]), "_posthog/list: [1,2]"),
        ("message", log_entry("_posthog/none", None), "_posthog/none: null"),
        ("named", {"notification": {"params": {"text": "x"}}}, "named: x"),
        (
            "message",
            {"type": "permission_request", "requestId": "r1", "toolCall": {}, "options": []},
            "message: permission_request",
        ),
        ("error", {"error": "Stream not available"}, "error: Stream not available"),
        ("odd", {"x": 1}, "odd: odd"),
        ("done", "", "done"),
        ("done", None, "done"),
        ("message", "[DONE]", "message: [DONE]"),
        ("message", [1, 2], "message: [1, 2]"),
        ("message", 0, "message: 0"),
    ],
)
def test_an_event_is_told_in_one_line(name: str, data: Any, line: str) -> None:
    assert describe_event(name, data) == line


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("message", log_entry("_posthog/console", {"message": "word\r\n\t " * 1_000})),
        ("n" * 500, {"status": "s" * 500}),
        ("message", "line\n" * 500),
        ("message", "\x1b[31m\x00\x85\x7f" * 500),
        ("message", {"id": "trn", "error": "\u2028x" * 500}),
    ],
)
def test_the_line_of_an_event_is_short(name: str, data: Any) -> None:
    line = describe_event(name, data)
    assert (len(line), line.isprintable(), line[-1]) == (MAX_LINE, True, "…")


def fold_of(*events: Event, max_events: int = 100, max_chars: int = 10_000) -> tuple[EventFold, list[Progress | None]]:
    fold = EventFold(max_events, max_chars)
    return fold, [fold.add(event) for event in events]


def test_every_event_is_progress_and_keep_alives_are_none() -> None:
    _, told = fold_of(
        Event('{"status":"queued","id":"r"}', id="1-0"),
        # PostHog api.py (stream): every 20 s of silence
        Event('{"type":"keepalive"}', event="keepalive"),
        Event('{"type":"keepalive"}'),
        Event("", event="ping"),
        Event("x", event="heartbeat"),
        # httpx-sse emits an empty event for a comment once an id was seen
        Event("", id="1-0"),
        Event('{"status":"in_progress","id":"r"}', id="2-0"),
        Event("", event="done"),
    )
    assert told == [
        Progress(1, None, "r: queued"),
        None,
        None,
        None,
        None,
        None,
        Progress(2, None, "r: in_progress"),
        Progress(3, None, "done"),
    ]


ENDINGS: list[tuple[Ended, str]] = [
    ("closed", "The provider closed the stream: there are no more events."),
    ("wait_over", "The time for this call is over and the stream goes on. Nothing was cancelled."),
    (
        "event_limit",
        "The bound on how many or how long events one call may bring is reached and the stream goes on; "
        "the last event may be cut. Nothing was cancelled.",
    ),
    ("error", "The stream broke off; the events before that are listed. Nothing was cancelled."),
]


@pytest.mark.parametrize(("ended", "note"), ENDINGS)
def test_at_the_end_the_events_are_listed_and_why_there_are_no_more(ended: Ended, note: str) -> None:
    fold, _ = fold_of(
        Event('{"a": 1}', id="0", event="task.completed"), Event("text"), Event("null", id="2"), Event("", event="done")
    )
    events = [
        {"event": "task.completed", "id": "0", "data": {"a": 1}},
        {"event": "message", "data": "text"},
        {"event": "message", "id": "2"},
        {"event": "done"},
    ]
    value = {"ended": ended, "count": 4, "events": events}
    told = note if ended == "closed" else f"{note} Call again to follow it further."
    assert fold.outcome(ended) == Outcome(200, dump(value), value, notes=(told,))


@pytest.mark.parametrize(("ended", "note"), ENDINGS)
@pytest.mark.parametrize(
    ("events", "resume", "advice"),
    [
        ([Event("a", id="1-0"), Event("b", id="2-0")], "after", 'Call again with after "2-0" for what follows.'),
        ([Event("a", id="1-0"), Event("", event="ping", id="2-0")], "x", 'Call again with x "1-0" for what follows.'),
        ([Event("a", id="1-0"), Event("b")], "after", "Call again to follow it further."),
        ([Event("a", id="1-0")], "", "Call again to follow it further."),
        ([], "after", "Call again to follow it further."),
    ],
    ids=["last id", "keep-alive last", "no id", "no argument", "no events"],
)
def test_a_stream_that_is_not_over_says_how_to_follow_it_further(
    events: list[Event], resume: str, advice: str, ended: Ended, note: str
) -> None:
    fold, _ = fold_of(*events)
    assert fold.outcome(ended, resume=resume).notes == (note if ended == "closed" else f"{note} {advice}",)


def test_the_reason_of_an_end_is_told() -> None:
    fold, _ = fold_of()
    assert fold.outcome("error", "connection lost").value == {
        "ended": "error",
        "count": 0,
        "events": [],
        "reason": "connection lost",
    }


def test_a_fold_is_full_at_its_number_of_events() -> None:
    fold = EventFold(3, 10_000)
    seen = []
    for _ in range(3):
        assert fold.add(Event("x")) is not None
        assert fold.add(Event("", event="ping")) is None
        seen.append(fold.full)
    assert seen == [False, False, True]


@pytest.mark.parametrize(
    ("events", "full"),
    [
        # Beside the text, JSON takes 29 characters and a comma, with an id 38 and a comma.
        pytest.param([Event("x" * 969)], [False], id="one character less"),
        pytest.param([Event("x" * 970)], [True], id="to the character"),
        pytest.param([Event("x" * 961, id="0")], [True], id="with its id"),
        pytest.param([Event("", event="n" * 987)], [True], id="with its name"),
        pytest.param([Event("x" * 470), Event("y" * 469)], [False, False], id="two that fit"),
        pytest.param([Event("x" * 470), Event("y" * 470)], [False, True], id="two to the character"),
    ],
)
def test_a_fold_is_full_at_its_number_of_characters_of_json(events: list[Event], full: list[bool]) -> None:
    fold = EventFold(100, 1_000 + ENVELOPE)
    told = [(fold.add(event) is not None, fold.full) for event in events]
    assert told == [(True, place) for place in full]


def test_the_event_that_exceeds_the_bound_is_cut_and_its_progress_is_told_whole() -> None:
    fold, told = fold_of(
        Event("short", id="1"),
        Event(json.dumps({"id": "trn-1", "status": "failed", "results": ["x" * 50] * 100}), id="2"),
        max_chars=1_000 + ENVELOPE,
    )
    assert told == [Progress(1, None, "message: short"), Progress(2, None, "trn-1: failed")]
    first, last = fold.outcome("event_limit").value["events"]
    kept = last["data"].pop("results")
    assert (first, last) == (
        {"event": "message", "id": "1", "data": "short"},
        {"event": "message", "id": "2", "data": {"id": "trn-1", "status": "failed"}, "cut": True},
    )
    assert kept == ["x" * 50] * len(kept)
    assert 800 < len(dump(kept)) < 1_000


def test_an_event_that_is_cut_has_some_room_however_little_is_left() -> None:
    fold, told = fold_of(Event("x" * 950), Event("y" * 2_000), max_chars=1_000)
    assert [fold.full, *(item is not None for item in told)] == [True, True, True]
    last = fold.outcome("event_limit").value["events"][-1]
    shown = last["data"].count("y")
    assert last == {"event": "message", "data": "y" * shown + f"… ({2_000 - shown:,} more)", "cut": True}
    assert MIN_ROOM - 60 < len(dump(last["data"])) <= MIN_ROOM


def test_an_event_with_broken_json_is_listed_as_text() -> None:
    # Render's example of this stream spreads the JSON over lines without "data:": a parser gets its first line only.
    fold, told = fold_of(Event("{", event="task.completed"))
    assert told == [Progress(1, None, "task.completed: {")]
    assert fold.outcome("closed").value["events"] == [{"event": "task.completed", "data": "{"}]
