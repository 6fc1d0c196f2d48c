"""PostHog's operations that watch a run: where the capability file and the provider differ, the client gets it all.

Literals are from PostHog's source (products/tasks/backend: api.py, serializers.py, models.py, stream/redis_stream.py).
"""

import json
import re
from typing import Any

import pytest

from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.calls import (
    POSTHOG_COMPLETED,
    POSTHOG_FAILED,
    POSTHOG_NOT_STARTED,
    POSTHOG_RUNNING,
    Arguments,
    outside,
    sent,
)
from tests.providers.driver import (
    POSTHOG_READING,
    POSTHOG_WRITING,
    Caller,
    Sent,
    connected,
    methods,
    on,
    path_on,
    requests,
    wire,
)

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

APPEND, LOG, SESSION_LOG, STREAM = (
    "posthog-append-log-entries",
    "posthog-get-task-run-logs",
    "posthog-get-filtered-task-run-session",
    "posthog-stream-task-run",
)
# The stream's only renderer is that of events: Accept: application/json is 406
STREAMING = POSTHOG_READING | {"accept": "text/event-stream, */*;q=0.1"}


def entry(message: str, timestamp: str = "2026-01-31T09:00:00Z") -> dict[str, Any]:
    """What the agent's console says, in the log."""
    params = {"level": "info", "message": message}
    notification = {"jsonrpc": "2.0", "method": "_posthog/console", "params": params}
    return {"type": "notification", "timestamp": timestamp, "notification": notification}


def kinds(text: str) -> list[str]:
    """What kinds of entries the lines of a log are."""
    return [re.sub(r"^\S+Z ", "", line).partition(":")[0] for line in text.split("\n")]


# P5 append-log-entries: "400 validation_error attr=entries"


async def test_p5_entries_are_appended_and_the_run_is_told(simulator: Simulator, caller: Caller) -> None:
    entries = [entry("one"), entry("two")]
    told = await caller.call(APPEND, **on(POSTHOG_RUNNING, body={"entries": entries}))
    assert wire(simulator) == [
        Sent("POST", path_on(POSTHOG_RUNNING, "append_log/"), POSTHOG_WRITING, {"entries": entries})
    ]
    # TaskRunDetail, whole
    assert (told.value["id"], told.value["status"]) == (POSTHOG_RUNNING, "in_progress")
    assert told.notes[0] == f"Run {POSTHOG_RUNNING}: running (in_progress)."
    log = await caller.call(LOG, **on(POSTHOG_RUNNING, last=2))
    assert log.text == "2026-01-31T09:00:00Z console: one\n2026-01-31T09:00:00Z console: two"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"body": {"entries": []}}, "body.entries: "),
        ({"body": {}}, "body.entries: is required"),
        ({"body": {"entries": ["hello"]}}, "body.entries[0]: must be of type object"),
        ({"body": {"entries": entry("x")}}, "body.entries: must be of type array"),
    ],
    ids=["empty", "none", "text", "no list"],
)
async def test_p5_entries_that_posthog_would_refuse_are_not_sent(
    arguments: Arguments, problem: str, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call(APPEND, **on(POSTHOG_RUNNING, **arguments))
    assert told.error["kind"] == "validation"
    assert told.error["message"].startswith(problem)
    assert requests(simulator) == []


async def test_p5_entries_are_not_appended_twice_for_an_answer_that_is_lost(
    simulator: Simulator, caller: Caller
) -> None:
    simulator.fail_next("posthog", Fault(truncate=True))
    told = await caller.call(APPEND, **on(POSTHOG_RUNNING, body={"entries": [entry("once")]}), within=5)
    assert told.error["retryable"] is False
    assert len(requests(simulator)) == 1


# P13 get-task-run-logs: "JSON parse failure; multi-MB result"


async def test_p13_json_lines_are_told_as_lines_to_read(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call(LOG, **on(POSTHOG_COMPLETED, last=3))
    # Accept: application/jsonl is 406
    assert wire(simulator) == [Sent("GET", path_on(POSTHOG_COMPLETED, "logs/"), POSTHOG_READING)]
    assert kinds(told.text) == ["agent message", "console", "turn complete"]
    assert told.notes == ["The last 3 of 30 entries."]


async def test_p13_entries_are_chosen_by_kind_and_time(caller: Caller) -> None:
    whole = await caller.call(LOG, **on(POSTHOG_COMPLETED))
    assert whole.notes == ["All 30 entries."]
    calls = await caller.call(LOG, **on(POSTHOG_COMPLETED, types=["tool_call"], last=100))
    assert kinds(calls.text) == ["tool call"] * 11
    assert calls.notes == ["All 11 entries that were asked for; the log has 30."]
    moments = [line.partition(" ")[0] for line in whole.text.split("\n")]
    later = await caller.call(LOG, **on(POSTHOG_COMPLETED, since=moments[-2]))
    assert later.text == whole.text.split("\n")[-1]


async def test_p13_the_json_lines_themselves_are_told_on_request(caller: Caller) -> None:
    told = await caller.call(LOG, **on(POSTHOG_COMPLETED, last=2, raw=True))
    entries = [json.loads(line) for line in told.text.split("\n")]
    assert [one["notification"]["method"] for one in entries] == ["_posthog/console", "_posthog/turn_complete"]
    assert {one["type"] for one in entries} == {"notification"}


@pytest.mark.parametrize(("arguments", "most"), [({}, 100), ({"last": 2000}, 2000)], ids=["default", "all"])
async def test_p13_of_a_log_of_megabytes_the_end_is_told(
    arguments: Arguments, most: int, environment: dict[str, str], caller: Caller
) -> None:
    entries = [entry(f"{number} {'x' * (900 if number < 1900 else 90)}") for number in range(2000)]
    await outside(environment, "POST", path_on(POSTHOG_RUNNING, "append_log/"), {"entries": entries})
    told = await caller.call(LOG, **on(POSTHOG_RUNNING, **arguments))
    numbers = [int(line.split()[2]) for line in told.text.split("\n")]
    assert numbers == list(range(2000 - len(numbers), 2000))
    assert 100 <= len(numbers) <= most
    assert len(told.text) <= 50_000
    assert told.notes == [f"The last {len(numbers)} of 2,003 entries."]


async def test_p13_the_log_is_that_of_the_runs_that_were_resumed_too(
    environment: dict[str, str], caller: Caller
) -> None:
    state = {"resume_from_run_id": POSTHOG_COMPLETED}
    await outside(environment, "PATCH", path_on(POSTHOG_RUNNING), {"state": state})
    told = await caller.call(LOG, **on(POSTHOG_RUNNING))
    assert told.notes == ["All 33 entries."]
    assert "May I push to main?" in told.text.split("\n")[-1]


async def test_p13_an_empty_log_is_told_to_be_empty(caller: Caller) -> None:
    told = await caller.call(LOG, **on(POSTHOG_NOT_STARTED))
    assert (told.result.is_error, told.text, told.notes) == (False, "The log is empty.", [])


# P16 get-filtered-task-run-session: "has_more lost -> cannot page; 1000 entries per call"


async def test_p16_the_counts_in_the_headers_say_how_the_log_goes_on(simulator: Simulator, caller: Caller) -> None:
    wanted = {"event_types": "tool_call", "exclude_types": "_posthog/console", "after": "2020-01-01T00:00:00Z"}
    first = await caller.call(SESSION_LOG, **on(POSTHOG_COMPLETED, limit=4, **wanted))
    asked = wire(simulator)[0]
    path, _, query = asked.path.partition("?")
    assert (asked.method, path, asked.headers) == ("GET", path_on(POSTHOG_COMPLETED, "session_logs/"), POSTHOG_READING)
    assert sorted(query.split("&")) == [
        "after=2020-01-01T00%3A00%3A00Z",
        "event_types=tool_call",
        "exclude_types=_posthog%2Fconsole",
        "limit=4",
    ]
    assert kinds(first.text) == ["tool call"] * 4
    assert first.notes == [
        "Items 1 to 4 of 11 (without filters 30); there are more: for the next page pass offset 4, or all_pages true "
        "for as many as fit."
    ]
    rest = await caller.call(SESSION_LOG, **on(POSTHOG_COMPLETED, limit=400, offset=4, **wanted))
    assert kinds(rest.text) == ["tool call"] * 7
    assert rest.notes == ["Items 5 to 11 of 11 (without filters 30): this is the end of the list."]


async def test_p16_all_pages_are_told_as_one(simulator: Simulator, caller: Caller) -> None:
    whole = await caller.call(SESSION_LOG, **on(POSTHOG_COMPLETED))
    paged = await caller.call(SESSION_LOG, **on(POSTHOG_COMPLETED, limit=8, all_pages=True))
    assert (paged.text, len(paged.text.split("\n"))) == (whole.text, 30)
    assert paged.notes == ["Items 1 to 30 of 30: this is the end of the list."]
    assert paged.progress == [f"page {page}, items so far: {min(8 * page, 30)} of 30" for page in (1, 2, 3, 4)]
    assert [request.path.partition("?")[2] for request in requests(simulator)[1:]] == [
        "limit=8",
        "limit=8&offset=8",
        "limit=8&offset=16",
        "limit=8&offset=24",
    ]


async def test_p16_what_comes_after_the_last_line_is_asked_for_by_its_time(
    environment: dict[str, str], caller: Caller
) -> None:
    told = await caller.call(SESSION_LOG, **on(POSTHOG_RUNNING))
    seen = told.text.split("\n")[-1].partition(" ")[0]
    new = entry("new", "2035-01-31T09:00:00Z")
    await outside(environment, "POST", path_on(POSTHOG_RUNNING, "append_log/"), {"entries": [new]})
    later = await caller.call(SESSION_LOG, **on(POSTHOG_RUNNING, after=seen))
    assert later.text == "2035-01-31T09:00:00Z console: new"
    assert later.notes == ["Item 1 of 1 (without filters 4): this is the end of the list."]


async def test_p16_where_nothing_fits_that_is_told(caller: Caller) -> None:
    told = await caller.call(SESSION_LOG, **on(POSTHOG_COMPLETED, event_types="nothing"))
    assert (told.result.is_error, told.text, told.notes) == (False, "There are no items.", [])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"after": "yesterday"}, "after: 'yesterday' is not a 'date-time'"),
        ({"limit": 5001}, "limit: 5001 is greater than the maximum of 5000"),
        ({"limit": 0}, "limit: 0 is less than the minimum of 1"),
        ({"event_types": ""}, "event_types: "),
    ],
    ids=str,
)
async def test_p16_what_posthog_would_refuse_is_not_sent(
    arguments: Arguments, problem: str, simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call(SESSION_LOG, **on(POSTHOG_COMPLETED, **arguments))
    assert told.error["message"].startswith(problem)
    assert requests(simulator) == []


# P19 api-managing-task-runs-each-2: "406, or hang: stream lasts the whole run"


async def test_p19_a_stream_is_asked_for_as_one_and_its_events_are_told_as_they_come(
    simulator: Simulator, caller: Caller
) -> None:
    told = await caller.call(STREAM, **on(POSTHOG_COMPLETED), within=5)
    assert wire(simulator)[0] == Sent("GET", path_on(POSTHOG_COMPLETED, "stream/"), STREAMING)
    events = told.value["events"]
    assert {event["data"]["type"] for event in events} == {"task_run_state", "notification"}
    # Redis's ids
    assert all(re.fullmatch(r"\d{13}-\d+", event["id"]) for event in events)
    assert (events[0]["data"]["status"], events[-1]["data"]["status"]) == ("queued", "completed")
    assert told.value["runs"] == {POSTHOG_COMPLETED: "succeeded"}
    assert (told.value["ended"], told.value["resume"]) == ("terminal", {})
    assert len(told.progress) == len(events)


async def test_p19_a_run_that_goes_on_is_left_to_go_on_and_resumed_after_the_last_event(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    told = await caller.call(STREAM, **on(POSTHOG_RUNNING), within=60)
    # 20 s without an event are told by a keepalive, which is none
    assert {event["event"] for event in told.value["events"]} == {"message"}
    assert told.value["events"][-1]["data"]["type"] == "permission_request"
    last = told.value["events"][-1]["id"]
    assert told.value["ended"] == "wait_over"
    assert told.value["resume"] == on(POSTHOG_RUNNING, **{"Last-Event-ID": last})
    assert "Nothing was cancelled." in told.notes[1]
    assert set(methods(simulator)) == {"GET"}
    await outside(environment, "PATCH", path_on(POSTHOG_RUNNING), {"stage": "review", "status": "completed"})
    rest = await caller.call(STREAM, **told.value["resume"], within=5)
    resumed = [request for request in wire(simulator) if "last-event-id" in request.headers]
    assert resumed == [Sent("GET", path_on(POSTHOG_RUNNING, "stream/"), {**STREAMING, "last-event-id": last})]
    assert [event["data"]["stage"] for event in rest.value["events"]] == ["review"]
    assert rest.value["ended"] == "terminal"


async def test_p19_what_has_happened_so_far_can_be_left_out(simulator: Simulator, caller: Caller) -> None:
    told = await caller.call(STREAM, **on(POSTHOG_RUNNING, start="latest", wait_seconds=2), within=5)
    assert sent(simulator)[0] == f"GET {path_on(POSTHOG_RUNNING, 'stream/?start=latest')}"
    assert told.value["events"] == []


async def test_p19_an_error_among_the_events_is_told_as_the_reason(environment: dict[str, str]) -> None:
    async with connected(environment, POSTHOG_API_KEY="phx_outage") as caller:
        told = await caller.call(STREAM, **on(POSTHOG_RUNNING), within=60)
    assert told.value["ended"] == "error"
    assert "Connection lost to task run stream" in told.value["reason"]
    assert [event["event"] for event in told.value["events"]].count("error") == 1
    assert told.value["resume"]["id"] == POSTHOG_RUNNING


async def test_p19_a_stream_of_a_run_that_was_never_started_ends_with_the_call(caller: Caller) -> None:
    # api.py (stream): after 120 s "Stream not available"
    told = await caller.call(STREAM, **on(POSTHOG_NOT_STARTED, wait_seconds=130), within=132)
    assert (told.value["ended"], told.value["reason"]) == ("error", "error: Stream not available")
    assert told.value["runs"] == {POSTHOG_NOT_STARTED: "queued"}


async def test_p19_a_stream_that_is_lost_is_read_on_after_the_last_event(simulator: Simulator, caller: Caller) -> None:
    whole = await caller.call(STREAM, **on(POSTHOG_FAILED), within=5)
    events = [f"id: {event['id']}\ndata: {json.dumps(event['data'])}\n\n" for event in whole.value["events"]]
    said = "".join(events[:2])
    headers = {"Content-Type": "text/event-stream", "Content-Length": str(len(said) + 1000)}
    simulator.requests.clear()
    simulator.fail_next("posthog", Fault(200, headers, said + "x" * len(said), truncate=True))
    told = await caller.call(STREAM, **on(POSTHOG_FAILED), within=20)
    assert told.value["events"] == whole.value["events"]
    assert wire(simulator)[1].headers["last-event-id"] == whole.value["events"][1]["id"]
    assert told.value["runs"] == {POSTHOG_FAILED: "failed"}


@pytest.mark.parametrize("tool", [LOG, SESSION_LOG, STREAM])
async def test_p19_an_unknown_run_has_nothing_to_watch(tool: str, simulator: Simulator, caller: Caller) -> None:
    told = await caller.call(tool, **on("eeeeeeee-eeee-4eee-8eee-eeeeeeeeeeee"))
    assert (told.error["kind"], told.error["status"]) == ("not_found", 404)
    # api.py (stream): the renderer of events iterates over the error
    assert "typecode" not in told.everything
    assert "posthog-list-task-runs" in told.error["hint"]
    assert len(requests(simulator)) == 1


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (Fault(200, {"Content-Type": "text/html"}, "<title>Log in</title>"), "unavailable", "without an event stream"),
        # api.py (stream): this is how its renderer writes a refused Accept
        (Fault(406, {"Content-Type": "text/event-stream"}, "typecodedetailattr"), "unsupported", "answered 406"),
    ],
    ids=["page", "406"],
)
async def test_p19_an_answer_that_is_no_stream_is_no_end_of_the_run(
    fault: Fault, kind: str, says: str, simulator: Simulator, caller: Caller
) -> None:
    simulator.fail_next("posthog", fault)
    told = await caller.call(STREAM, **on(POSTHOG_RUNNING))
    assert told.error["kind"] == kind
    assert says in told.error["message"]
    assert "typecode" not in told.everything
