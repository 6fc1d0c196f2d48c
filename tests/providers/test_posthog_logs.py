"""PostHog's operations on logs and the event stream, where the provider differs from its capability file.

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
    SentRequest,
    connected,
    run_arguments,
    run_path,
    sent_methods,
    sent_requests,
    server_requests,
)

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

APPEND, LOG, SESSION_LOG, STREAM = (
    "posthog-append-log-entries",
    "posthog-get-task-run-logs",
    "posthog-get-filtered-task-run-session",
    "posthog-stream-task-run",
)
# The stream has only a renderer for events, so Accept: application/json is a 406
STREAMING = POSTHOG_READING | {"accept": "text/event-stream, */*;q=0.1"}


def entry(message: str, timestamp: str = "2026-01-31T09:00:00Z") -> dict[str, Any]:
    """Return a log entry of console output."""
    params = {"level": "info", "message": message}
    notification = {"jsonrpc": "2.0", "method": "_posthog/console", "params": params}
    return {"type": "notification", "timestamp": timestamp, "notification": notification}


def entry_kinds(text: str) -> list[str]:
    """Return the kind of entry in each line of a formatted log."""
    return [re.sub(r"^\S+Z ", "", line).partition(":")[0] for line in text.split("\n")]


# append-log-entries


async def test_posthog_append_log_returns_the_run(simulator: Simulator, caller: Caller) -> None:
    entries = [entry("one"), entry("two")]
    result = await caller.call(APPEND, **run_arguments(POSTHOG_RUNNING, body={"entries": entries}))
    assert sent_requests(simulator) == [
        SentRequest("POST", run_path(POSTHOG_RUNNING, "append_log/"), POSTHOG_WRITING, {"entries": entries})
    ]
    # The response is a whole TaskRunDetail
    assert (result.value["id"], result.value["status"]) == (POSTHOG_RUNNING, "in_progress")
    assert result.notes[0] == f"Run {POSTHOG_RUNNING}: running (in_progress)."
    log = await caller.call(LOG, **run_arguments(POSTHOG_RUNNING, last=2))
    assert log.text == "2026-01-31T09:00:00Z console: one\n2026-01-31T09:00:00Z console: two"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"body": {"entries": []}}, "body.entries: "),
        ({"body": {}}, "body.entries: is required"),
        ({"body": {"entries": ["hello"]}}, "body.entries[0]: must be of type object"),
        ({"body": {"entries": entry("x")}}, "body.entries: must be of type array"),
    ],
    ids=["empty", "missing", "text", "not-a-list"],
)
async def test_posthog_append_log_invalid_entries_are_rejected_before_sending(
    arguments: Arguments, problem: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call(APPEND, **run_arguments(POSTHOG_RUNNING, **arguments))
    assert result.error["kind"] == "validation"
    assert result.error["message"].startswith(problem)
    assert server_requests(simulator) == []


async def test_posthog_append_log_with_a_lost_response_is_not_retried(simulator: Simulator, caller: Caller) -> None:
    simulator.fail_next("posthog", Fault(truncate=True))
    result = await caller.call(APPEND, **run_arguments(POSTHOG_RUNNING, body={"entries": [entry("once")]}), within=5)
    assert result.error["retryable"] is False
    assert len(server_requests(simulator)) == 1


# get-task-run-logs


async def test_posthog_log_is_formatted_as_readable_lines(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call(LOG, **run_arguments(POSTHOG_COMPLETED, last=3))
    # PostHog responds with 406 to Accept: application/jsonl
    assert sent_requests(simulator) == [SentRequest("GET", run_path(POSTHOG_COMPLETED, "logs/"), POSTHOG_READING)]
    assert entry_kinds(result.text) == ["agent message", "console", "turn complete"]
    assert result.notes == ["The last 3 of 30 entries. For earlier ones pass last 30."]


async def test_posthog_log_filters_by_type_and_time(caller: Caller) -> None:
    whole = await caller.call(LOG, **run_arguments(POSTHOG_COMPLETED))
    assert whole.notes == ["All 30 entries."]
    calls = await caller.call(LOG, **run_arguments(POSTHOG_COMPLETED, types=["tool_call"], last=100))
    assert entry_kinds(calls.text) == ["tool call"] * 11
    assert calls.notes == ["All 11 matching entries; the log has 30."]
    timestamps = [line.partition(" ")[0] for line in whole.text.split("\n")]
    later = await caller.call(LOG, **run_arguments(POSTHOG_COMPLETED, since=timestamps[-2]))
    assert later.text == whole.text.split("\n")[-1]


async def test_posthog_log_with_raw_returns_json_lines(caller: Caller) -> None:
    result = await caller.call(LOG, **run_arguments(POSTHOG_COMPLETED, last=2, raw=True))
    entries = [json.loads(line) for line in result.text.split("\n")]
    assert [item["notification"]["method"] for item in entries] == ["_posthog/console", "_posthog/turn_complete"]
    assert {item["type"] for item in entries} == {"notification"}


@pytest.mark.parametrize(("arguments", "limit"), [({}, 100), ({"last": 2000}, 2000)], ids=["default", "all"])
async def test_posthog_large_log_is_truncated_to_its_last_entries(
    arguments: Arguments, limit: int, environment: dict[str, str], caller: Caller
) -> None:
    entries = [entry(f"{number} {'x' * (900 if number < 1900 else 90)}") for number in range(2000)]
    await outside(environment, "POST", run_path(POSTHOG_RUNNING, "append_log/"), {"entries": entries})
    result = await caller.call(LOG, **run_arguments(POSTHOG_RUNNING, **arguments))
    numbers = [int(line.split()[2]) for line in result.text.split("\n")]
    assert numbers == list(range(2000 - len(numbers), 2000))
    assert 100 <= len(numbers) <= limit
    assert len(result.text) <= 50_000
    note, permission = result.notes
    assert "waits for a response" in permission
    assert note.startswith(f"The last {len(numbers)} of 2,003 entries. For earlier ones ")
    assert ("pass last 2003." in note) is (limit == 100)
    assert ("call again with result_path" in note) is (limit == 2000)


async def test_posthog_log_includes_the_run_resumed_from(environment: dict[str, str], caller: Caller) -> None:
    state = {"resume_from_run_id": POSTHOG_COMPLETED}
    await outside(environment, "PATCH", run_path(POSTHOG_RUNNING), {"state": state})
    result = await caller.call(LOG, **run_arguments(POSTHOG_RUNNING))
    assert result.notes[0] == "All 33 entries."
    assert "May I push to main?" in result.text.split("\n")[-1]


async def test_posthog_empty_log(caller: Caller) -> None:
    result = await caller.call(LOG, **run_arguments(POSTHOG_NOT_STARTED))
    assert (result.is_error, result.text, result.notes) == (False, "The log is empty.", [])


# get-filtered-task-run-session


async def test_posthog_session_log_pages_by_the_counts_in_the_headers(simulator: Simulator, caller: Caller) -> None:
    filters = {"event_types": "tool_call", "exclude_types": "_posthog/console", "after": "2020-01-01T00:00:00Z"}
    first = await caller.call(SESSION_LOG, **run_arguments(POSTHOG_COMPLETED, limit=4, **filters))
    request = sent_requests(simulator)[0]
    path, _, query = request.path.partition("?")
    assert (request.method, path, request.headers) == (
        "GET",
        run_path(POSTHOG_COMPLETED, "session_logs/"),
        POSTHOG_READING,
    )
    assert sorted(query.split("&")) == [
        "after=2020-01-01T00%3A00%3A00Z",
        "event_types=tool_call",
        "exclude_types=_posthog%2Fconsole",
        "limit=4",
    ]
    assert entry_kinds(first.text) == ["tool call"] * 4
    assert first.notes == [
        "Items 1 to 4 of 11 (without filters 30); there are more: for the next page pass offset 4, or all_pages true "
        "for as many as fit."
    ]
    rest = await caller.call(SESSION_LOG, **run_arguments(POSTHOG_COMPLETED, limit=400, offset=4, **filters))
    assert entry_kinds(rest.text) == ["tool call"] * 7
    assert rest.notes == ["Items 5 to 11 of 11 (without filters 30): this is the end of the list."]


async def test_posthog_session_log_with_pages_shorter_than_their_limit_is_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch, caller: Caller
) -> None:
    # A page has at most 2 MiB: api.py (session_logs)
    monkeypatch.setattr("mcp_taskruns.simulator.posthog.logs.PAGE_BYTES", 1_500)
    result = await caller.call(SESSION_LOG, **run_arguments(POSTHOG_COMPLETED, limit=30, all_pages=True))
    assert len(result.progress) > 2
    assert len(result.text.split("\n")) == 30
    assert result.notes[0] == "Items 1 to 30 of 30: this is the end of the list."


async def test_posthog_session_log_with_all_pages(simulator: Simulator, caller: Caller) -> None:
    whole = await caller.call(SESSION_LOG, **run_arguments(POSTHOG_COMPLETED))
    paged = await caller.call(SESSION_LOG, **run_arguments(POSTHOG_COMPLETED, limit=8, all_pages=True))
    assert (paged.text, len(paged.text.split("\n"))) == (whole.text, 30)
    assert paged.notes == ["Items 1 to 30 of 30: this is the end of the list."]
    assert paged.progress == [f"page {page}, items so far: {min(8 * page, 30)} of 30" for page in (1, 2, 3, 4)]
    assert [request.path.partition("?")[2] for request in server_requests(simulator)[1:]] == [
        "limit=8",
        "limit=8&offset=8",
        "limit=8&offset=16",
        "limit=8&offset=24",
    ]


async def test_posthog_session_log_continues_after_a_timestamp(environment: dict[str, str], caller: Caller) -> None:
    result = await caller.call(SESSION_LOG, **run_arguments(POSTHOG_RUNNING))
    last = result.text.split("\n")[-1].partition(" ")[0]
    new = entry("new", "2035-01-31T09:00:00Z")
    await outside(environment, "POST", run_path(POSTHOG_RUNNING, "append_log/"), {"entries": [new]})
    later = await caller.call(SESSION_LOG, **run_arguments(POSTHOG_RUNNING, after=last))
    assert later.text == "2035-01-31T09:00:00Z console: new"
    assert later.notes[0] == "Item 1 of 1 (without filters 4): this is the end of the list."


async def test_posthog_session_log_without_matching_entries(caller: Caller) -> None:
    result = await caller.call(SESSION_LOG, **run_arguments(POSTHOG_COMPLETED, event_types="nothing"))
    assert (result.is_error, result.text, result.notes) == (False, "There are no items.", [])


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
async def test_posthog_session_log_invalid_arguments_are_rejected_before_sending(
    arguments: Arguments, problem: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call(SESSION_LOG, **run_arguments(POSTHOG_COMPLETED, **arguments))
    assert result.error["message"].startswith(problem)
    assert server_requests(simulator) == []


# stream-task-run


async def test_posthog_stream_reports_events_as_progress(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call(STREAM, **run_arguments(POSTHOG_COMPLETED), within=5)
    assert sent_requests(simulator)[0] == SentRequest("GET", run_path(POSTHOG_COMPLETED, "stream/"), STREAMING)
    events = result.value["events"]
    assert {event["data"]["type"] for event in events} == {"task_run_state", "notification"}
    # Ids of Redis stream entries
    assert all(re.fullmatch(r"\d{13}-\d+", event["id"]) for event in events)
    assert (events[0]["data"]["status"], events[-1]["data"]["status"]) == ("queued", "completed")
    assert result.value["runs"] == {POSTHOG_COMPLETED: "succeeded"}
    assert (result.value["ended"], result.value["resume"]) == ("terminal", {})
    assert len(result.progress) == len(events)


async def test_posthog_stream_times_out_and_resumes_after_the_last_event(
    simulator: Simulator, environment: dict[str, str], caller: Caller
) -> None:
    result = await caller.call(STREAM, **run_arguments(POSTHOG_RUNNING), within=60)
    # The keepalive after 20 s is not reported as an event
    assert {event["event"] for event in result.value["events"]} == {"message"}
    assert result.value["events"][-1]["data"]["type"] == "permission_request"
    last = result.value["events"][-1]["id"]
    assert result.value["ended"] == "wait_over"
    assert result.value["resume"] == run_arguments(POSTHOG_RUNNING, **{"Last-Event-ID": last})
    assert "Nothing was cancelled." in result.notes[1]
    assert set(sent_methods(simulator)) == {"GET"}
    await outside(environment, "PATCH", run_path(POSTHOG_RUNNING), {"stage": "review", "status": "completed"})
    rest = await caller.call(STREAM, **result.value["resume"], within=5)
    resumed = [request for request in sent_requests(simulator) if "last-event-id" in request.headers]
    assert resumed == [SentRequest("GET", run_path(POSTHOG_RUNNING, "stream/"), {**STREAMING, "last-event-id": last})]
    assert [event["data"]["stage"] for event in rest.value["events"]] == ["review"]
    assert rest.value["ended"] == "terminal"


async def test_posthog_stream_from_latest_skips_past_events(simulator: Simulator, caller: Caller) -> None:
    result = await caller.call(STREAM, **run_arguments(POSTHOG_RUNNING, start="latest", wait_seconds=2), within=5)
    assert sent(simulator)[0] == f"GET {run_path(POSTHOG_RUNNING, 'stream/?start=latest')}"
    assert result.value["events"] == []


async def test_posthog_stream_with_an_error_event_is_followed_on_while_the_run_goes_on(
    environment: dict[str, str],
) -> None:
    async with connected(environment, POSTHOG_API_KEY="phx_outage") as caller:
        result = await caller.call(STREAM, **run_arguments(POSTHOG_RUNNING), within=60)
    assert result.value["ended"] in {"error", "wait_over"}
    assert [event for event in result.value["events"] if event.get("event") == "error"]
    assert result.value["runs"] == {POSTHOG_RUNNING: "running"}
    assert result.value["resume"]["id"] == POSTHOG_RUNNING


async def test_posthog_stream_of_a_run_that_is_not_started_ends_with_an_error(caller: Caller) -> None:
    # api.py (stream): "Stream not available" after 120 s
    result = await caller.call(STREAM, **run_arguments(POSTHOG_NOT_STARTED, wait_seconds=130), within=132)
    assert (result.value["ended"], result.value["reason"]) == ("error", "error: Stream not available")
    assert result.value["runs"] == {POSTHOG_NOT_STARTED: "not started"}


async def test_posthog_lost_stream_is_resumed_after_the_last_event(simulator: Simulator, caller: Caller) -> None:
    whole = await caller.call(STREAM, **run_arguments(POSTHOG_FAILED), within=5)
    events = [f"id: {event['id']}\ndata: {json.dumps(event['data'])}\n\n" for event in whole.value["events"]]
    body = "".join(events[:2])
    headers = {"Content-Type": "text/event-stream", "Content-Length": str(len(body) + 1000)}
    simulator.requests.clear()
    simulator.fail_next("posthog", Fault(200, headers, body + "x" * len(body), truncate=True))
    result = await caller.call(STREAM, **run_arguments(POSTHOG_FAILED), within=20)
    assert result.value["events"] == whole.value["events"]
    resumed = [request for request in sent_requests(simulator) if "last-event-id" in request.headers]
    assert resumed[0].headers["last-event-id"] == whole.value["events"][1]["id"]
    assert result.value["runs"] == {POSTHOG_FAILED: "failed"}


@pytest.mark.parametrize("tool", [LOG, SESSION_LOG, STREAM])
async def test_posthog_log_and_stream_of_an_unknown_run_are_not_found(
    tool: str, simulator: Simulator, caller: Caller
) -> None:
    result = await caller.call(tool, **run_arguments("eeeeeeee-eeee-4eee-8eee-eeeeeeeeeeee"))
    assert (result.error["kind"], result.error["status"]) == ("not_found", 404)
    # api.py (stream): the renderer writes only the keys of the error
    assert "typecode" not in result.all_text
    assert "posthog-list-task-runs" in result.error["hint"]
    # The run is read as well: the stream of a run that has ended may be gone.
    assert len(server_requests(simulator)) == (2 if tool == STREAM else 1)


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (Fault(200, {"Content-Type": "text/html"}, "<title>Log in</title>"), "unavailable", "an HTML page instead"),
        # api.py (stream): the renderer writes only the keys of the 406
        (Fault(406, {"Content-Type": "text/event-stream"}, "typecodedetailattr"), "unsupported", "returned 406"),
    ],
    ids=["html", "406"],
)
async def test_posthog_response_that_is_not_a_stream_is_an_error(
    fault: Fault, kind: str, message: str, simulator: Simulator, caller: Caller
) -> None:
    simulator.fail_next("posthog", fault)
    result = await caller.call(STREAM, **run_arguments(POSTHOG_RUNNING))
    assert result.error["kind"] == kind
    assert message in result.error["message"]
    assert "typecode" not in result.all_text
