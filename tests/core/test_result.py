"""Answers are as the providers send them: Render's API reference and its CLI's local server (render-oss/cli
pkg/workflows/apiserver), Inngest's open-source server, PostHog's source (products/tasks/backend), Runway's OpenAPI
document and documentation (docs.dev.runwayml.com).
"""

import json
import random
from typing import Any, get_args

import pytest

from mcp_taskruns.core.operation import ErrorBody
from mcp_taskruns.core.result import (
    HINTS,
    MAX_ERROR_MESSAGE,
    MAX_MESSAGE,
    Answer,
    Ended,
    Event,
    EventFold,
    Outcome,
    Progress,
    cut,
    describe_event,
    dump,
    fit,
    one_line,
    provider_error,
    read_answer,
)
from mcp_taskruns.errors import Kind, ProviderError

Json = dict[str, Any]

# Inngest pkg/api/apiv1/cache.go: the cached body comes without its status code.
INNGEST_ERROR = ErrorBody(status="status", message="error")


def answer(status: int, media_type: str | None, body: bytes | str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if media_type is not None:
        named["content-type"] = media_type
    return Answer(status, named, body.encode() if isinstance(body, str) else body)


RUNNING = {"data": {"run_id": "01M80QJSCZBS0XKB4HH7BZPP5C", "status": "Running", "ended_at": None}}


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        (
            answer(200, "application/json", '{ "a": [1, null, "\\u00f6"] }\n'),
            Outcome(200, '{"a":[1,null,"ö"]}', {"a": [1, None, "ö"]}),
        ),
        (answer(202, "Application/JSON; charset=utf-8", "[]"), Outcome(202, "[]", [])),
        (answer(200, "application/vnd.api+json", "{}"), Outcome(200, "{}", {})),
        (answer(200, "application/json", " null "), Outcome(200, "null", None)),
        (answer(200, "application/json", '"text"'), Outcome(200, '"text"', "text")),
        (answer(200, "application/json", "0"), Outcome(200, "0", 0)),
        # Render and Runway: DELETE is answered 204
        (answer(204, None, ""), Outcome(204, "Done: the provider answered 204 with no content.")),
        # Inngest: DELETE is answered 200, JSON by its type and without content
        (answer(200, "application/json", ""), Outcome(200, "Done: the provider answered 200 with no content.")),
        # Inngest: a cached GET loses its type
        (answer(200, "text/plain; charset=utf-8", json.dumps(RUNNING)), Outcome(200, dump(RUNNING), RUNNING)),
        (answer(200, None, "[1]"), Outcome(200, "[1]", [1])),
        # A text that happens to be a JSON scalar is a text
        (answer(200, "text/plain", "12"), Outcome(200, "12", media_type="text/plain")),
        (answer(200, "text/plain", "{no json"), Outcome(200, "{no json", media_type="text/plain")),
        (answer(200, "text/csv", "a,b\n1,2\n"), Outcome(200, "a,b\n1,2\n", media_type="text/csv")),
        (answer(200, None, "text"), Outcome(200, "text", media_type="text/plain")),
        (answer(200, "text/plain", b"a\xffb"), Outcome(200, "a\ufffdb", media_type="text/plain")),
        # PostHog: logs are JSON lines, and empty for a run that has not begun
        (
            answer(200, "application/jsonl", '{"a":1}\n\n{"b":2}\r\nno json\n'),
            Outcome(200, '[{"a":1},{"b":2},"no json"]', [{"a": 1}, {"b": 2}, "no json"]),
        ),
        (answer(200, "application/x-ndjson", "1"), Outcome(200, "[1]", [1])),
        (answer(200, "application/jsonl", "\n"), Outcome(200, "[]", [])),
        (
            answer(200, "application/jsonl", ""),
            Outcome(200, "Done: the provider answered 200 with no content."),
        ),
        # PostHog: an artifact comes as its own type
        (answer(200, "image/png", b"\x89PNG\xff"), Outcome(200, "", data=b"\x89PNG\xff", media_type="image/png")),
        (
            answer(200, "application/octet-stream", b"{}"),
            Outcome(200, "", data=b"{}", media_type="application/octet-stream"),
        ),
        (
            answer(200, "application/json", "<html>"),
            Outcome(
                200,
                "<html>",
                media_type="application/json",
                notes=("The provider called this JSON, and it is not.",),
            ),
        ),
    ],
)
def test_an_answer_is_read_by_its_type(given: Answer, outcome: Outcome) -> None:
    assert read_answer(given, None) == outcome


def failure(given: Answer, error_body: ErrorBody | None = None) -> Json:
    with pytest.raises(ProviderError) as caught:
        read_answer(given, error_body)
    return caught.value.to_json()


def error(kind: Kind, status: int, message: str, *, retryable: bool = False, **more: Any) -> Json:
    said = f"the provider answered {status}{': ' * bool(message)}{message}"
    return {"kind": kind, "status": status, "message": said, "retryable": retryable, "hint": HINTS[kind], **more}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # Render API reference: errors are {id, message}
        (
            answer(404, "application/json", '{"id":"err-1","message":"task run not found"}'),
            error("not_found", 404, "task run not found"),
        ),
        # render 1.5.0 changelog, 0.6.1: 401 may be plain text
        (answer(401, "text/plain", "Unauthorized\n"), error("auth", 401, "Unauthorized")),
        # pkg/workflows/apiserver: cancelling what has ended
        (
            answer(500, "application/json", '{"message":"task run trn-1 is not active"}'),
            error("unavailable", 500, "task run trn-1 is not active", retryable=True),
        ),
        # Inngest, pkg/api/apiv1: DELETE of an unknown run
        (
            answer(404, "application/json", '{"error":"Unable to load function run: 01HE","data":null,"status":404}'),
            error("not_found", 404, "Unable to load function run: 01HE"),
        ),
        (answer(404, "text/plain; charset=utf-8", "404 page not found"), error("not_found", 404, "404 page not found")),
        (answer(401, "text/plain", "Authentication failed"), error("auth", 401, "Authentication failed")),
        # PostHog: exceptions-hog
        (
            answer(
                403,
                "application/json",
                '{"type":"authentication_error","code":"permission_denied",'
                '"detail":"API key missing required scope \'task:write\'","attr":null}',
            ),
            error("auth", 403, "API key missing required scope 'task:write'"),
        ),
        (
            answer(
                400,
                "application/json",
                '{"type":"validation_error","code":"required","detail":"This field is required.","attr":"entries"}',
            ),
            error("validation", 400, "entries: This field is required."),
        ),
        (
            answer(
                429,
                "application/json",
                '{"type":"throttled_error","code":"throttled",'
                '"detail":"Request was throttled. Expected available in 13 seconds.","attr":null}',
                retry_after="13",
            ),
            error(
                "rate_limited",
                429,
                "Request was throttled. Expected available in 13 seconds.",
                retryable=True,
                retry_after_s=13.0,
            ),
        ),
        # PostHog: TaskRunErrorResponse
        (
            answer(400, "application/json", '{"error":"Run is already active in cloud"}'),
            error("validation", 400, "Run is already active in cloud"),
        ),
        (
            answer(502, "application/json", '{"error":"Agent server is not reachable"}'),
            error("unavailable", 502, "Agent server is not reachable", retryable=True),
        ),
        (
            answer(504, "application/json", '{"error":"Agent server request timed out"}'),
            error("timeout", 504, "Agent server request timed out", retryable=True),
        ),
        # PostHog: the stream's renderer garbles its errors
        (answer(406, "text/event-stream", "typecodedetailattr"), error("unsupported", 406, "typecodedetailattr")),
        # Runway's OpenAPI document: {error, issues, docUrl}
        (
            answer(
                400,
                "application/json",
                '{"error":"Validation of body failed","issues":[{"code":"invalid_string","path":["params","id"],'
                '"message":"Invalid uuid"},{"code":"x","path":[],"message":"Other"}],"docUrl":"https://docs"}',
            ),
            error("validation", 400, "Validation of body failed - params.id: Invalid uuid - Other"),
        ),
        (
            answer(429, "application/json", '{"error":"You are out of runs."}'),
            error("rate_limited", 429, "You are out of runs.", retryable=True),
        ),
        (answer(404, "application/json", '{"error":"Not found"}'), error("not_found", 404, "Not found")),
        # Inngest v2: {errors: [{code, message}]}
        (
            answer(409, "application/json", '{"errors":[{"code":"run_already_ended","message":"Run has ended"}]}'),
            error("conflict", 409, "Run has ended"),
        ),
        # RFC 9457
        (
            answer(422, "application/problem+json", '{"title":"Unfit","detail":"No such colour","status":422}'),
            error("validation", 422, "No such colour - Unfit"),
        ),
        # RFC 6749
        (
            answer(401, "application/json", '{"error":"invalid_token","error_description":"It expired"}'),
            error("auth", 401, "invalid_token - It expired"),
        ),
        (
            answer(500, "application/json", '{"error":{"message":"deep"}}'),
            error("unavailable", 500, "deep", retryable=True),
        ),
        (answer(400, "application/json", '["one", "two", "one", ""]'), error("validation", 400, "one - two")),
        (answer(400, "application/json", '{"code":17}'), error("validation", 400, '{"code":17}')),
        (answer(503, None, ""), error("unavailable", 503, "", retryable=True)),
        (
            answer(502, "text/html", "<html><head><TITLE a=b>502 Bad\n  Gateway </TITLE></head><body>…"),
            error("unavailable", 502, "502 Bad Gateway", retryable=True),
        ),
        (answer(500, None, " <!doctype html><p>x"), error("unavailable", 500, "an HTML page", retryable=True)),
        (
            answer(302, "text/html", "<title>Found</title>", location="https://evil.example/?key=1"),
            error("unsupported", 302, "a redirect, which this server does not follow"),
        ),
        (answer(304, None, ""), error("unsupported", 304, "a redirect, which this server does not follow")),
    ],
)
def test_an_error_says_what_the_provider_said(given: Answer, expected: Json) -> None:
    assert failure(given) == expected


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, "validation", False),
        (401, "auth", False),
        (402, "usage_limit", False),
        (403, "auth", False),
        (404, "not_found", False),
        (405, "unsupported", False),
        (406, "unsupported", False),
        (408, "timeout", True),
        (409, "conflict", False),
        (410, "not_found", False),
        (413, "validation", False),
        (415, "unsupported", False),
        (418, "validation", False),
        (422, "validation", False),
        (425, "validation", True),
        (429, "rate_limited", True),
        (500, "unavailable", True),
        (501, "unsupported", False),
        (502, "unavailable", True),
        (503, "unavailable", True),
        (504, "timeout", True),
        (505, "unavailable", False),
        (599, "unavailable", False),
    ],
)
def test_the_status_decides_the_kind_and_whether_to_try_again(status: int, kind: Kind, retryable: bool) -> None:
    assert failure(answer(status, "text/plain", "no")) == error(kind, status, "no", retryable=retryable)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("13", 13.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("", None),
        ("soon", None),
    ],
)
def test_a_retry_after_is_told_in_seconds_where_it_is_a_number(header: str, seconds: float | None) -> None:
    assert provider_error(answer(503, None, "", retry_after=header), None).retry_after_s == seconds


@pytest.mark.parametrize("media_type", ["application/json", "text/plain; charset=utf-8"])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            '{"error":"Invalid run ID: nope","data":null,"status":400}',
            error("validation", 400, "Invalid run ID: nope"),
        ),
        (
            '{"error":"Unable to load function run: 01HE","data":null,"status":404}',
            error("not_found", 404, "Unable to load function run: 01HE"),
        ),
    ],
)
def test_an_error_in_the_body_of_a_200_is_an_error(media_type: str, body: str, expected: Json) -> None:
    assert failure(answer(200, media_type, body), INNGEST_ERROR) == expected


@pytest.mark.parametrize(
    "body",
    [
        '{"data":{"status":"Failed","output":{"error":"boom"}}}',
        '{"error":"","status":500}',
        '{"error":"told","status":200}',
        '{"error":"told","status":"500"}',
        '{"error":"told"}',
        '[{"error":"told","status":500}]',
    ],
)
def test_a_body_that_only_looks_like_an_error_is_none(body: str) -> None:
    assert read_answer(answer(200, "application/json", body), INNGEST_ERROR).value == json.loads(body)


def test_an_error_in_the_body_is_none_where_the_provider_has_no_such_errors() -> None:
    body = {"error": "told", "status": 500}
    assert read_answer(answer(200, "application/json", dump(body)), None).value == body


@pytest.mark.parametrize("media_type", ["text/plain", "application/json"])
def test_a_long_error_is_cut(media_type: str) -> None:
    text = "x" * 100_000
    body = text if media_type == "text/plain" else dump({"error": text})
    told = failure(answer(400, media_type, body))["message"]
    assert told == "the provider answered 400: " + "x" * MAX_ERROR_MESSAGE + "…"


def test_every_kind_of_error_has_a_hint() -> None:
    assert all(HINTS[kind].endswith((".", "?")) for kind in get_args(Kind))


def test_an_answer_does_not_show_its_body() -> None:
    assert "confidence" not in repr(answer(200, "text/plain", "in confidence"))


RUNS = [
    {"taskRun": {"id": f"trn-{number:020}", "status": "completed"}, "cursor": f"c{number}"} for number in range(200)
]


def fitted(value: Any, limit: int, advice: str = "") -> Outcome:
    return fit(Outcome(200, dump(value), value), limit, advice)


@pytest.mark.parametrize("limit", [10_000, 20_000])
def test_what_fits_is_left_as_it_is(limit: int) -> None:
    outcome = Outcome(200, "x" * 10_000, media_type="text/plain", notes=("told",))
    assert fit(outcome, limit, "advice") is outcome


@pytest.mark.parametrize("limit", [300, 1_000, 5_000])
def test_a_list_is_cut_to_whole_items_and_told_so(limit: int) -> None:
    outcome = fitted(RUNS, limit, "Ask for the rest.")
    kept = json.loads(outcome.text)
    assert kept == RUNS[: len(kept)]
    assert len(outcome.text) <= limit < len(dump(RUNS[: len(kept) + 1]))
    assert outcome.notes == (
        f"Cut to about {limit:,} characters, kept: the list: {len(kept)} of 200 items. Ask for the rest.",
    )
    assert outcome.value == RUNS


def test_small_members_stay_whole_beside_a_big_list() -> None:
    # PostHog's page: {count, next, previous, results}
    page = {"count": 200, "next": "https://us.posthog.com/?offset=100", "previous": None, "results": RUNS}
    outcome = fitted(page, 2_000)
    kept = json.loads(outcome.text)
    assert kept == {**page, "results": RUNS[: len(kept["results"])]}
    assert 1_800 < len(outcome.text) <= 2_000
    assert outcome.notes == (f"Cut to about 2,000 characters, kept: results: {len(kept['results'])} of 200 items.",)


def test_a_first_item_that_does_not_fit_is_cut_inside() -> None:
    outcome = fitted([{"id": "trn-1", "results": ["x" * 5_000]}, {"id": "trn-2"}], 500)
    ((kept, *_), *others) = json.loads(outcome.text), None
    assert (others, kept["id"]) == ([None], "trn-1")
    (text,) = kept["results"]
    shown = text.partition("…")[0]
    assert text == f"{shown}… ({5_000 - len(shown):,} more)"
    assert outcome.notes == (
        f"Cut to about 500 characters, kept: [0].results[0]: {len(shown)} of 5,000 characters; the list: 1 of 2 items.",
    )


def test_several_big_members_share_the_room() -> None:
    outcome = fitted({"a": "x" * 9_000, "b": {"c": ["y" * 10] * 900}, "d": "z" * 100}, 1_000)
    kept = json.loads(outcome.text)
    assert kept["d"] == "z" * 100
    assert 350 < len(kept["a"]) < 500
    assert 350 < len(dump(kept["b"])) < 500
    assert len(outcome.text) <= 1_000


def test_a_long_string_is_cut_and_told_so() -> None:
    outcome = fitted("x" * 2_000, 130)
    assert json.loads(outcome.text) == "x" * 100 + "… (1,900 more)"
    assert outcome.notes == ("Cut to about 130 characters, kept: the text: 100 of 2,000 characters.",)


def test_a_text_is_cut_at_the_limit() -> None:
    outcome = fit(Outcome(200, "abc" * 1_000, media_type="text/plain", notes=("told",)), 1_000, "Ask again.")
    assert outcome.text == ("abc" * 1_000)[:1_000]
    assert outcome.notes == (
        "Cut to about 1,000 characters, kept: the text: 1,000 of 3,000 characters. Ask again.",
        "told",
    )


def test_an_empty_mapping_and_scalars_are_never_cut() -> None:
    value: Json = {"empty": {}, "none": None, "yes": True, "number": 1.5, "long": "x" * 1_000}
    kept, _ = cut(value, 200)
    assert {name: item for name, item in kept.items() if name != "long"} == {
        name: item for name, item in value.items() if name != "long"
    }
    assert cut({}, 0) == ({}, [])


def grown(chance: random.Random, depth: int) -> Any:
    kind = chance.choice(["text", "number", "list", "list", "dict", "dict"]) if depth else "text"
    if kind == "text":
        return "abc déf " * chance.randrange(200)
    if kind == "number":
        return chance.choice([None, True, 1.5, chance.randrange(10**6)])
    items = [grown(chance, depth - 1) for _ in range(chance.randrange(8))]
    return items if kind == "list" else {f"member{place}": item for place, item in enumerate(items)}


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("limit", [500, 2_000, 10_000])
def test_whatever_is_cut_is_json_about_within_the_limit(seed: int, limit: int) -> None:
    value = grown(random.Random(seed), 5)
    kept, notes = cut(value, limit)
    text = dump(kept)
    assert json.loads(text) == kept
    # A string that is cut to nothing still says how much is missing; each cut is a note.
    assert len(text) <= limit + 24 * len(notes)
    assert (kept == value) is (notes == [])
    if len(dump(value)) <= limit:
        assert kept == value


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
        ("message", {"id": "trn", "error": "\u2028x" * 500}),
    ],
)
def test_the_line_of_an_event_is_short(name: str, data: Any) -> None:
    line = describe_event(name, data)
    assert (len(line), len(line.splitlines()), line[-1]) == (MAX_MESSAGE, 1, "…")


def test_a_line_of_180_characters_is_whole() -> None:
    assert (one_line("x" * 180), one_line("x" * 181)) == ("x" * 180, "x" * 179 + "…")


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
    ("closed", "The provider closed the stream"),
    ("wait_over", "The time for this call is over and the stream goes on"),
    ("event_limit", "The bound on events is reached and the stream goes on"),
    ("error", "The stream broke off"),
]


@pytest.mark.parametrize(("ended", "note"), ENDINGS)
def test_at_the_end_the_events_are_listed_and_why_there_are_no_more(ended: Ended, note: str) -> None:
    fold, _ = fold_of(
        Event('{"a": 1}', id="0", event="task.completed"), Event("text"), Event("null", id="2"), Event("", event="done")
    )
    outcome = fold.outcome(ended)
    events = [
        {"event": "task.completed", "id": "0", "data": {"a": 1}},
        {"event": "message", "data": "text"},
        {"event": "message", "id": "2"},
        {"event": "done"},
    ]
    assert outcome.value == {"ended": ended, "count": 4, "events": events}
    assert (outcome.status, json.loads(outcome.text), len(outcome.notes)) == (200, outcome.value, 1)
    assert outcome.notes[0].startswith(note)


def test_a_stream_that_goes_on_says_that_nothing_was_cancelled() -> None:
    fold, _ = fold_of()
    said = {ended: "Nothing was cancelled." in fold.outcome(ended).notes[0] for ended, _ in ENDINGS}
    assert said == {"closed": False, "wait_over": True, "event_limit": True, "error": False}


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


def test_a_fold_is_full_before_its_number_of_characters_is_exceeded() -> None:
    fold, told = fold_of(Event("x" * 400), Event("y" * 600), Event("z"), max_chars=1_000)
    assert [item is not None for item in told] == [True, True, False]
    assert (fold.full, fold.outcome("event_limit").value["count"]) == (True, 2)


def test_an_event_with_broken_json_is_listed_as_text() -> None:
    # Render's example of this stream spreads the JSON over lines without "data:": a parser gets its first line only.
    fold, told = fold_of(Event("{", event="task.completed"))
    assert told == [Progress(1, None, "task.completed: {")]
    assert fold.outcome("closed").value["events"] == [{"event": "task.completed", "data": "{"}]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, "ö", None]}, '{"a":[1,"ö",null]}'),
        (float("inf"), "null"),
        ([float("nan")], "[null]"),
        ("\u2028", '"\u2028"'),
    ],
)
def test_json_is_written_compact_and_valid(value: Any, text: str) -> None:
    assert dump(value) == text
