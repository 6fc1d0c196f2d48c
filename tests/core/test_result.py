"""Answers are as the providers send them: Render's API reference and its CLI's local server (render-oss/cli
pkg/workflows/apiserver), Inngest's open-source server, PostHog's source (products/tasks/backend), Runway's OpenAPI
document and documentation (docs.dev.runwayml.com).
"""

import json
from typing import Any, get_args

import pytest

from mcp_taskruns.core.operation import Authentication, BaseUri, ErrorBody, Location, Operation, Parameter, Variable
from mcp_taskruns.core.result import (
    HINTS,
    MAX_ERROR_MESSAGE,
    Answer,
    Outcome,
    fit,
    provider_error,
    read_answer,
)
from mcp_taskruns.core.text import dump
from mcp_taskruns.errors import Kind, ProviderError

from . import Json

# Inngest pkg/api/apiv1/cache.go: the cached body comes without its status code.
INNGEST_ERROR = ErrorBody(status="status", message="error")


def answer(status: int, media_type: str | None, body: bytes | str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if media_type is not None:
        named["content-type"] = media_type
    return Answer(status, named, body.encode() if isinstance(body, str) else body)


def operation(
    error_body: ErrorBody | None = None,
    authentication: Authentication | None = None,
    parameters: tuple[Parameter, ...] = (),
) -> Operation:
    base = BaseUri("https://api.example", ("THING_BASE_URL", "THING_HOST"))
    return Operation(
        "op", "thing", "GET", base, ("/",), parameters, authentication=authentication, error_body=error_body
    )


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
        (
            answer(204, None, ""),
            Outcome(204, "Done: the provider answered 204 with no content.", media_type="text/plain"),
        ),
        # Inngest: DELETE is answered 200, JSON by its type and without content
        (
            answer(200, "application/json", ""),
            Outcome(200, "Done: the provider answered 200 with no content.", media_type="text/plain"),
        ),
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
            Outcome(200, "Done: the provider answered 200 with no content.", media_type="text/plain"),
        ),
        # PostHog: an artifact comes as its own type
        (answer(200, "image/png", b"\x89PNG\xff"), Outcome(200, "", data=b"\x89PNG\xff", media_type="image/png")),
        (
            answer(200, "application/octet-stream", b"{}"),
            Outcome(200, "", data=b"{}", media_type="application/octet-stream"),
        ),
        # What ends a line for Python stays within a line of JSON
        (
            answer(200, "application/jsonl", '{"a":"x\u2028y\u2029z\x85"}\n"\u2028"\nb\x0bc\x0cd\x1ce\rf'),
            Outcome(
                200,
                '[{"a":"x\u2028y\u2029z\x85"},"\u2028","b\\u000bc\\fd\\u001ce\\rf"]',
                [{"a": "x\u2028y\u2029z\x85"}, "\u2028", "b\x0bc\x0cd\x1ce\rf"],
            ),
        ),
    ],
)
def test_an_answer_is_read_by_its_type(given: Answer, outcome: Outcome) -> None:
    assert read_answer(given, operation()) == outcome


def failure(given: Answer, error_body: ErrorBody | None = None) -> Json:
    with pytest.raises(ProviderError) as caught:
        read_answer(given, operation(error_body))
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
        # A path that is no list says nothing of where
        (
            answer(404, "application/json", '{"status":404,"error":"Not Found","path":"/api/runs/7"}'),
            error("not_found", 404, "Not Found"),
        ),
        (answer(400, "application/json", '{"path":5,"message":"no"}'), error("validation", 400, "no")),
        (answer(400, "application/json", '{"path":{"a":1},"message":"no"}'), error("validation", 400, "no")),
        (
            answer(400, "application/json", '{"path":["entries",0,"type"],"message":"no"}'),
            error("validation", 400, "entries.0.type: no"),
        ),
        (answer(400, "application/json", '["one", "two", "one", ""]'), error("validation", 400, "one - two")),
        (answer(400, "application/json", '{"code":17}'), error("validation", 400, '{"code":17}')),
        (answer(503, None, ""), error("unavailable", 503, "", retryable=True)),
        (
            answer(502, "text/html", "<html><head><TITLE a=b>502 Bad\n  Gateway </TITLE></head><body>…"),
            error("unavailable", 502, "502 Bad Gateway", retryable=True),
        ),
        (answer(500, None, " <!doctype html><p>x"), error("unavailable", 500, "an HTML page", retryable=True)),
        (answer(500, "text/html", " \n"), error("unavailable", 500, "", retryable=True)),
    ],
)
def test_an_error_says_what_the_provider_said(given: Answer, expected: Json) -> None:
    assert failure(given) == expected


@pytest.mark.parametrize(
    "given",
    [
        answer(302, "text/html", "<title>Found</title>", location="https://evil.example/?key=1"),
        answer(301, "application/json", '{"message":"moved"}'),
        answer(304, None, ""),
        answer(399, None, ""),
    ],
)
def test_a_redirect_is_not_followed_and_says_which_address_to_set(given: Answer) -> None:
    assert failure(given) == error(
        "unsupported",
        given.status,
        "a redirect, which this server does not follow",
        hint="Set THING_BASE_URL in the server's environment to the address that it leads to.",
    )


@pytest.mark.parametrize("media_type", ["application/json", "application/vnd.api+json; charset=utf-8"])
@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("<html><title>Sign  in</title>", "Sign in"),
        ("<p>", "an HTML page"),
        ('{"data":[{"id":"trn-1"},', '{"data":[{"id":"trn-1"},'),
        (b'{"a":\xff', '{"a":\ufffd'),
        ("x" * 1_000, "x" * 200),
        ("nul", "nul"),
        (" ", ""),
    ],
)
def test_an_answer_that_is_not_the_json_that_it_should_be_is_an_error(
    media_type: str, body: str | bytes, shown: str
) -> None:
    assert failure(answer(200, media_type, body)) == {
        "kind": "unavailable",
        "status": 200,
        "message": f"the provider's answer was cut off, or is not the JSON that it should be: {shown}",
        "retryable": False,
        "hint": "What was asked for may have been carried out: read the current state before trying again.",
    }


KEY_HEADER = Authentication("apikey", ((Variable(("A_KEY", "B_KEY")),),), name="X-Key")
BASIC = Authentication("basic", ((Variable(("USER_NAME",)),), (Variable(("PASSWORD",)),)))
TEAM = (Parameter("X-Team", Location.HEADER, None, (Variable(("TEAM_KEY",)),)),)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (operation(authentication=KEY_HEADER), "A_KEY or B_KEY"),
        (operation(authentication=BASIC), "USER_NAME, PASSWORD"),
        (operation(authentication=KEY_HEADER, parameters=TEAM), "A_KEY or B_KEY, TEAM_KEY"),
        (operation(parameters=TEAM), "TEAM_KEY"),
    ],
    ids=["alternatives", "two parts", "constant beside", "constant"],
)
def test_a_refused_credential_is_named(asked: Operation, names: str, status: int) -> None:
    told = provider_error(answer(status, None, ""), None, asked)
    assert told.hint == f"Check {names} in the server's environment: is it right, and may it do this?"


def test_a_credential_is_named_only_where_it_is_what_was_refused() -> None:
    asked = operation(authentication=KEY_HEADER)
    statuses = [status for status in range(400, 600) if status not in {401, 403}]
    told = {provider_error(answer(status, None, ""), None, asked).hint for status in statuses}
    assert told <= set(HINTS.values())


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
        ("inf", None),
        ("-inf", None),
        ("Infinity", None),
        ("1e999", None),
        ("nan", None),
    ],
)
def test_a_retry_after_is_told_in_seconds_where_it_is_a_number(header: str, seconds: float | None) -> None:
    told = provider_error(answer(503, None, "", retry_after=header), None, operation())
    assert told.retry_after_s == seconds
    json.dumps(told.to_json(), allow_nan=False)


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
    assert read_answer(answer(200, "application/json", body), operation(INNGEST_ERROR)).value == json.loads(body)


# Inngest answers 200 with a status of 500 in the body for a run that it cannot find: pkg/api/apiv1/cache.go, runs.go
@pytest.mark.parametrize(
    ("not_found", "body", "expected"),
    [
        (
            ("Unable to load function run",),
            '{"error":"Unable to load function run: 01HE","data":null,"status":500}',
            error("not_found", 404, "Unable to load function run: 01HE"),
        ),
        (
            ("No such", "Unable to load"),
            '{"error":"Unable to load it","status":500}',
            error("not_found", 404, "Unable to load it"),
        ),
        (
            ("Unable to load",),
            '{"error":"Being unable: Unable to load","status":500}',
            error("unavailable", 500, "Being unable: Unable to load", retryable=True),
        ),
        ((), '{"error":"Unable","status":500}', error("unavailable", 500, "Unable", retryable=True)),
        (("no",), '{"error":["no","yes"],"status":400}', error("validation", 400, "no - yes")),
    ],
)
def test_a_message_that_says_there_is_no_such_thing_is_not_found(
    not_found: tuple[str, ...], body: str, expected: Json
) -> None:
    assert failure(answer(200, "application/json", body), ErrorBody("status", "error", not_found)) == expected


def test_a_message_that_says_there_is_no_such_thing_is_no_error_without_a_status_of_one() -> None:
    body = {"error": "Unable to load", "status": 200}
    given = answer(200, "application/json", dump(body))
    assert read_answer(given, operation(ErrorBody("status", "error", ("Unable",)))).value == body


def test_an_error_in_the_body_is_none_where_the_provider_has_no_such_errors() -> None:
    body = {"error": "told", "status": 500}
    assert read_answer(answer(200, "application/json", dump(body)), operation()).value == body


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
