"""Interpretation of error responses, for operations without error rules and with rules made for a test.

The responses are taken from Render's API reference and its CLI's local server (render-oss/cli
pkg/workflows/apiserver), Inngest's open-source server, PostHog's source (products/tasks/backend), and Runway's OpenAPI
document and documentation (docs.dev.runwayml.com).
"""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import pytest

from mcp_taskruns.core.calls.errors import (
    HINT_BY_KIND,
    HINT_BY_STATUS,
    MAX_ERROR_MESSAGE,
    MAX_QUOTED,
    PASSING,
    SERVER_BUG_HINT,
)
from mcp_taskruns.core.calls.received import HttpResponse
from mcp_taskruns.core.calls.retry_after import retry_after
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import Condition
from mcp_taskruns.core.model.operation import (
    NO_AUTHENTICATION,
    Authentication,
    ErrorRule,
    Location,
    Operation,
    Parameter,
    Variable,
)
from mcp_taskruns.errors import Kind, ProviderError
from tests.core.calls.test_response import INNGEST_ERROR, error, failure, operation, raised_by, response
from tests.core.documents import Json


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        # Render API reference: errors are {id, message}
        (
            response(404, "application/json", '{"id":"err-1","message":"task run not found"}'),
            error("not_found", 404, "task run not found"),
        ),
        # render 1.5.0 changelog, 0.6.1: 401 may be plain text
        (response(401, "text/plain", "Unauthorized\n"), error("auth", 401, "Unauthorized")),
        # pkg/workflows/apiserver: cancelling a run that has ended
        (
            response(500, "application/json", '{"message":"task run trn-1 is not active"}'),
            error("unavailable", 500, "task run trn-1 is not active", retryable=True),
        ),
        # Inngest, pkg/api/apiv1: DELETE of an unknown run
        (
            response(404, "application/json", '{"error":"Unable to load function run: 01HE","data":null,"status":404}'),
            error("not_found", 404, "Unable to load function run: 01HE"),
        ),
        (
            response(404, "text/plain; charset=utf-8", "404 page not found"),
            error("not_found", 404, "404 page not found"),
        ),
        (response(401, "text/plain", "Authentication failed"), error("auth", 401, "Authentication failed")),
        # PostHog: exceptions-hog
        (
            response(
                403,
                "application/json",
                '{"type":"authentication_error","code":"permission_denied",'
                '"detail":"API key missing required scope \'task:write\'","attr":null}',
            ),
            error("auth", 403, "API key missing required scope 'task:write'"),
        ),
        (
            response(
                400,
                "application/json",
                '{"type":"validation_error","code":"required","detail":"This field is required.","attr":"entries"}',
            ),
            error("validation", 400, "entries: This field is required."),
        ),
        (
            response(
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
            response(400, "application/json", '{"error":"Run is already active in cloud"}'),
            error("validation", 400, "Run is already active in cloud"),
        ),
        (
            response(502, "application/json", '{"error":"Agent server is not reachable"}'),
            error("unavailable", 502, "Agent server is not reachable", retryable=True),
        ),
        (
            response(504, "application/json", '{"error":"Agent server request timed out"}'),
            error("timeout", 504, "Agent server request timed out", retryable=True),
        ),
        # PostHog: the stream's renderer garbles its errors
        (
            response(406, "text/event-stream", "typecodedetailattr"),
            error("unsupported", 406, "", hint=HINT_BY_STATUS[406]),
        ),
        # Runway's OpenAPI document: {error, issues, docUrl}
        (
            response(
                400,
                "application/json",
                '{"error":"Validation of body failed","issues":[{"code":"invalid_string","path":["params","id"],'
                '"message":"Invalid uuid"},{"code":"x","path":[],"message":"Other"}],"docUrl":"https://docs"}',
            ),
            error("validation", 400, "Validation of body failed - params.id: Invalid uuid - Other"),
        ),
        (
            response(429, "application/json", '{"error":"You are out of runs."}'),
            error("rate_limited", 429, "You are out of runs.", retryable=True),
        ),
        (response(404, "application/json", '{"error":"Not found"}'), error("not_found", 404, "Not found")),
        # Inngest v2: {errors: [{code, message}]}
        (
            response(409, "application/json", '{"errors":[{"code":"run_already_ended","message":"Run has ended"}]}'),
            error("conflict", 409, "Run has ended"),
        ),
        # RFC 9457
        (
            response(422, "application/problem+json", '{"title":"Unfit","detail":"No such colour","status":422}'),
            error("validation", 422, "No such colour - Unfit"),
        ),
        # The order of keys in the body does not matter
        (
            response(400, "application/json", '{"detail":"c","error":"b","message":"a"}'),
            error("validation", 400, "a - b - c"),
        ),
        # RFC 6749
        (
            response(401, "application/json", '{"error":"invalid_token","error_description":"It expired"}'),
            error("auth", 401, "invalid_token - It expired"),
        ),
        (
            response(500, "application/json", '{"error":{"message":"deep"}}'),
            error("unavailable", 500, "deep", retryable=True),
        ),
        # A path that is not a list is not the place of the error
        (
            response(404, "application/json", '{"status":404,"error":"Not Found","path":"/api/runs/7"}'),
            error("not_found", 404, "Not Found"),
        ),
        (response(400, "application/json", '{"path":5,"message":"no"}'), error("validation", 400, "no")),
        (response(400, "application/json", '{"path":{"a":1},"message":"no"}'), error("validation", 400, "no")),
        (
            response(400, "application/json", '{"path":["entries",0,"type"],"message":"no"}'),
            error("validation", 400, "entries.0.type: no"),
        ),
        (response(400, "application/json", '["one", "two", "one", ""]'), error("validation", 400, "one - two")),
        (response(400, "application/json", '{"code":17}'), error("validation", 400, '{"code":17}')),
        (response(503, None, ""), error("unavailable", 503, "", retryable=True)),
        (
            response(502, "text/html", "<html><head><TITLE a=b>502 Bad\n  Gateway </TITLE></head><body>…"),
            error("unavailable", 502, "502 Bad Gateway", retryable=True),
        ),
        (
            response(500, "text/html", "\ufeffOops <html><title>Down</title>"),
            error("unavailable", 500, "Down", retryable=True),
        ),
        (response(500, None, " <!doctype html><p>x"), error("unavailable", 500, "an HTML page", retryable=True)),
        (response(500, "text/html", " \n"), error("unavailable", 500, "", retryable=True)),
        # Amazon S3 API reference: Error responses
        (
            response(
                403,
                "application/xml",
                '<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>',
            ),
            error("auth", 403, "Request has expired"),
        ),
        # JSON is parsed whatever its content type; an event stream that is not JSON has no message
        (response(404, "text/event-stream", '{"detail":"Not found."}'), error("not_found", 404, "Not found.")),
        (response(502, "text/event-stream", "typecodedetailattr"), error("unavailable", 502, "", retryable=True)),
        (response(400, "text/plain", b" caf\xe9 \n"), error("validation", 400, "caf\ufffd")),
        (response(400, "application/json", '{"attr":"a","detail":["x","y"]}'), error("validation", 400, "a: x - a: y")),
        # Buildkite and GitHub name the field and a code
        (
            response(
                422, "application/json", '{"message":"No","errors":[{"field":"ref","code":"missing"},{"code":"x"}]}'
            ),
            error("validation", 422, "No - ref: missing"),
        ),
        (response(400, "application/json", '{"message":null,"error":5,"detail":"z"}'), error("validation", 400, "z")),
    ],
)
def test_error_has_the_message_of_the_provider(received: HttpResponse, expected: Json) -> None:
    assert failure(received) == expected


@pytest.mark.parametrize(
    "received",
    [
        response(302, "text/html", "<title>Found</title>"),
        response(301, "application/json", '{"message":"moved"}'),
        response(300, None, ""),
        response(399, None, ""),
    ],
)
def test_redirect_is_an_error_that_names_the_base_url_variable(received: HttpResponse) -> None:
    assert failure(received) == error(
        "unsupported",
        received.status,
        "a redirect, which this server does not follow",
        hint="Check THING_BASE_URL in the server's environment: its address may not be the provider's API.",
    )


KEY_HEADER = Authentication("apikey", ((Variable(("A_KEY", "B_KEY")),),), names=("X-Key",))
BASIC = Authentication("basic", ((Variable(("USER_NAME",)),), (Variable(("PASSWORD",)),)))
TEAM = (Parameter("X-Team", Location.HEADER, None, (Variable(("TEAM_KEY",)),)),)


# Bodies of an Airflow 3.3.2 server and a Prefect 3.9.1 server, which use FastAPI
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"detail": [{"type": "missing", "loc": ["body", "logical_date"], "msg": "Field required", "input": {}}]},
            "logical_date: Field required",
        ),
        (
            {
                "detail": [
                    {"type": "extra_forbidden", "loc": ["body", "a", 0], "msg": "Extra inputs are not permitted"},
                    {"type": "missing", "loc": ["query", "interval"], "msg": "Field required"},
                ]
            },
            "a.0: Extra inputs are not permitted - interval: Field required",
        ),
        ({"detail": [{"loc": ["body", 1], "msg": "JSON decode error"}]}, "body.1: JSON decode error"),
        ({"detail": [{"loc": ["body"], "msg": "Field required"}]}, "body: Field required"),
        ({"detail": {"reason": "Unique constraint violation", "message": "Serious error"}}, "Serious error"),
    ],
    ids=repr,
)
def test_message_of_fastapi_names_the_field(body: Json, message: str) -> None:
    raised = raised_by(response(422, "application/json", json.dumps(body)))
    assert raised.message == f'the provider returned 422: "{message}"'


PREFECT = {
    "exception_message": "Invalid request received.",
    "exception_detail": [{"type": "extra_forbidden", "loc": ["body", "nope"], "msg": "Extra inputs are not permitted"}],
    "request_body": {"nope": 1},
}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (PREFECT, "Invalid request received. - nope: Extra inputs are not permitted"),
        ({"exception_message": "Unauthorized"}, "Unauthorized"),
        ({"exception_message": "Unauthorized", "message": "no"}, "Unauthorized"),
        ({"exception_message": None, "detail": "Flow run not found"}, "Flow run not found"),
        ({"exception_message": "", "exception_detail": [], "detail": "Not Found"}, "Not Found"),
        ([], "[]"),
    ],
    ids=repr,
)
def test_error_message_is_at_the_paths_of_the_provider(body: Any, message: str) -> None:
    called = replace(operation(), error_messages=(("exception_message",), ("exception_detail",)))
    assert raised_by(response(422, "application/json", json.dumps(body)), called).message == (
        f'the provider returned 422: "{message}"'
    )


# Bodies of a Ray 2.60.0 dashboard; a traceback may be in another one
FRAMES = """Traceback (most recent call last):
  File "/srv/common.py", line 445, in validate_request_type
    return request_type(**json_data)
           ^^^^^^^^^^^^^^^^^^^^^^^^^
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            FRAMES + "TypeError: an unexpected keyword argument 'foo'\n",
            "TypeError: an unexpected keyword argument 'foo'",
        ),
        (
            FRAMES + f"RuntimeError: Request failed with status code 500: {FRAMES}RuntimeError: it is RUNNING.\n.\n",
            "RuntimeError: it is RUNNING.",
        ),
        (
            FRAMES
            + "\nThe above exception was the direct cause of the following exception:\n\n"
            + FRAMES
            + "KeyError: 5",
            "KeyError: 5",
        ),
        (FRAMES + "ValueError: two lines\nof text", "ValueError: two lines of text"),
        (FRAMES, "return request_type(**json_data)"),
        ("Traceback (most recent call last):", "Traceback (most recent call last):"),
        (FRAMES + FRAMES.partition("\n")[2] * 1_000 + "KeyError: 5", "KeyError: 5"),
    ],
    ids=["one", "nested", "chained", "two lines", "truncated", "first line", "long"],
)
@pytest.mark.parametrize("media_type", ["text/plain", "application/json"])
def test_traceback_is_shown_by_its_exception(media_type: str, text: str, message: str) -> None:
    body = json.dumps({"detail": text}) if media_type == "application/json" else text
    assert raised_by(response(500, media_type, body)).message == f'the provider returned 500: "{message}"'


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("called", "names"),
    [
        (operation(authentication=KEY_HEADER), "A_KEY or B_KEY"),
        (operation(authentication=BASIC), "USER_NAME, PASSWORD"),
        (operation(authentication=KEY_HEADER, parameters=TEAM), "A_KEY or B_KEY, TEAM_KEY"),
        (operation(parameters=TEAM), "TEAM_KEY"),
    ],
    ids=["alternatives", "two parts", "constant beside", "constant"],
)
def test_hint_of_401_and_403_names_the_credential_variables(called: Operation, names: str, status: int) -> None:
    raised = raised_by(response(status, None, ""), called)
    assert raised.hint == f"Check {names} in the server's environment: it may be wrong or lack a permission."
    assert (raised.kind, raised.retryable) == ("auth", False)


@pytest.mark.parametrize(
    ("alternatives", "parameters", "hint"),
    [
        (
            (BASIC,),
            (),
            "Check A_KEY or B_KEY, or USER_NAME and PASSWORD in the server's environment: it may be wrong or ",
        ),
        (
            (NO_AUTHENTICATION,),
            (),
            "Check A_KEY or B_KEY in the server's environment: it may be missing or wrong, or ",
        ),
        (
            (NO_AUTHENTICATION,),
            TEAM,
            "Check A_KEY or B_KEY, TEAM_KEY in the server's environment: it may be missing or wrong, or ",
        ),
    ],
)
def test_hint_of_401_names_the_variables_of_all_alternatives(
    alternatives: tuple[Authentication, ...], parameters: tuple[Parameter, ...], hint: str
) -> None:
    called = replace(operation(authentication=KEY_HEADER, parameters=parameters), alternatives=alternatives)
    assert raised_by(response(401, None, ""), called).hint == f"{hint}lack a permission."


def test_hint_of_other_status_codes_does_not_name_the_credential() -> None:
    called = operation(authentication=KEY_HEADER)
    statuses = [status for status in range(400, 600) if status not in {401, 403, 407}]
    raised = {raised_by(response(status, None, ""), called).hint for status in statuses}
    assert raised <= {*HINT_BY_KIND.values(), *HINT_BY_STATUS.values()}


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
        (507, "unavailable", True),
        # Cloudflare, developers.cloudflare.com: HTTP response status codes, Cloudflare 5xx errors
        (520, "unavailable", True),
        (524, "unavailable", True),
        (530, "unavailable", True),
        (599, "unavailable", True),
    ],
)
def test_status_code_decides_kind_and_retryable(status: int, kind: Kind, retryable: bool) -> None:
    hint = HINT_BY_STATUS.get(status, HINT_BY_KIND[kind])
    assert failure(response(status, "text/plain", "no")) == error(kind, status, "no", retryable=retryable, hint=hint)


@pytest.mark.parametrize(
    ("method", "safe_to_retry", "is_open"),
    [("POST", None, True), ("DELETE", None, True), ("GET", False, True), ("POST", True, False), ("GET", None, False)],
)
@pytest.mark.parametrize(
    ("status", "arrived"),
    # RFC 9110 section 15.5.9, RFC 6585 section 4, RFC 8470 section 5.2: 425 and 429 were not carried out, 408 may be
    [*dict.fromkeys([408, 500, 502, 503, 504, 507, 520, 524, 530], True).items(), (425, False), (429, False)],
)
def test_error_of_an_operation_that_is_not_safe_to_retry_is_not_retryable(
    status: int, arrived: bool, method: str, safe_to_retry: bool | None, is_open: bool
) -> None:
    raised = raised_by(response(status, None, ""), replace(operation(), method=method, safe_to_retry=safe_to_retry))
    assert raised.retryable is not (arrived and is_open)
    read_first = "The request may have been carried out: read the current state before trying again."
    assert (raised.hint == read_first) is (arrived and is_open)
    assert raised.kind == raised_by(response(status, None, ""), operation()).kind


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("text/plain", "x" * 100_000),
        ("application/json", dump({"error": "x" * 100_000})),
        ("application/json", dump({"issues": [{"message": "x" * 1_500}, {"message": "y" * 1_500}]})),
        # A title and a message of object storage that continue beyond the part of the body that is read
        ("text/html", "<title>" + "x" * 100_000),
        ("text/html", f"<html><title>{'x' * 3_000}</title>"),
        ("application/xml", f"<Error><Message>{'x' * 3_000}</Message></Error>"),
    ],
    ids=["text", "json", "several", "title without end", "title", "xml"],
)
def test_long_error_message_is_truncated(media_type: str, body: str) -> None:
    message = failure(response(400, media_type, body))["message"]
    raised = message.removeprefix('the provider returned 400: "').removesuffix('"')
    assert raised[:1_500] == "x" * 1_500
    assert (len(raised), raised[-1]) == (MAX_ERROR_MESSAGE + 1, "…")


def test_every_kind_has_a_hint() -> None:
    assert all(HINT_BY_KIND[kind].endswith((".", "?")) for kind in get_args(Kind))


NOW = 1_792_567_660.0
"""2026-10-21 07:27:40 UTC"""


def after(status: int = 503, **headers: str) -> float | None:
    """Return `retry_after_s` of an error response with these headers, received at NOW."""
    raised = raised_by(replace(response(status, None, "", **headers), received_at=NOW))
    json.dumps(raised.to_json(), allow_nan=False)
    return raised.retry_after_s


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("13", 13.0),
        (" 13 ", 13.0),
        ("1.5", 1.5),
        ("0.12345", 0.123),
        ("-3", 0.0),
        # Several values, as some proxies add their own
        ("13, 7", 7.0),
        ("13,", None),
        # A time instead of a delay, in seconds, milliseconds or smaller units
        (str(int(NOW) + 20), 20.0),
        (str(NOW + 20.5), 20.5),
        (str(int(NOW) - 20), 0.0),
        (str(int(NOW + 20) * 1_000), 20.0),
        (str(int(NOW + 20) * 1_000 + 250), 20.25),
        (str(int(NOW + 20) * 1_000_000), 20.0),
        (str(int(NOW - 20) * 1_000), 0.0),
        # RFC 9110 section 5.6.7: all three date formats must be accepted
        ("Wed, 21 Oct 2026 07:28:00 GMT", 20.0),
        ("Wednesday, 21-Oct-26 07:28:00 GMT", 20.0),
        ("Wed Oct 21 07:28:00 2026", 20.0),
        ("Wed, 21 Oct 2026 09:28:00 +0200", 20.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("inf", None),
        ("-inf", None),
        ("Infinity", None),
        ("1e999", None),
        ("nan", None),
        ("Wed, 32 Oct 2026 07:28:00 GMT", None),
        ("Wed, 21 Oct 2026 25:28:00 GMT", None),
        pytest.param("Wed, 21 Oct 99999999999999999999 07:28:00 GMT", None, id="a year with twenty digits"),
        ("21 Oct 2026 07:28:00 +99999999999", None),
        ("\x00", None),
        (",", None),
    ],
)
def test_retry_after_header_is_parsed_as_seconds_or_date(header: str, seconds: float | None, status: int) -> None:
    assert after(status, retry_after=header) == seconds


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "EST5")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone of a process cannot be set on Windows")
@pytest.mark.usefixtures("far_from_greenwich")
@pytest.mark.parametrize(
    "header", ["Wed, 21 Oct 2026 07:28:00 GMT", "Wed Oct 21 07:28:00 2026", "Wed, 21 Oct 2026 07:28:00 -0000"]
)
def test_retry_after_date_is_gmt_in_any_time_zone(header: str) -> None:
    assert after(retry_after=header) == 20.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("30s", 30.0),
        ("1.5 seconds", 1.5),
        ("250ms", 0.25),
        ('"30"', 30.0),
        ("2026-10-21T07:28:00Z", 20.0),
        ("2026-10-21t09:28:00.5+02:00", 20.5),
        ("2026-13-99", None),
        ("30 parsecs", None),
    ],
)
def test_retry_after_with_a_unit_or_an_iso_date_is_read(header: str, seconds: float | None) -> None:
    assert after(retry_after=header) == seconds


@pytest.mark.parametrize(
    ("ms", "seconds"), [("250", 0.25), ("2000", 2.0), ("0", 0.0), ("-1", 0.0), ("soon", 7.0), ("nan", 7.0), ("", 7.0)]
)
def test_retry_after_ms_takes_precedence_if_valid(ms: str, seconds: float) -> None:
    # runwayml 5.24 _base_client.py: retry-after-ms, then retry-after
    assert after(retry_after_ms=ms, retry_after="7") == seconds


@pytest.mark.parametrize("name", ["ratelimit_reset", "x_ratelimit_reset", "x_rate_limit_reset"])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        # Render API reference, Rate limiting: seconds since 1970, but 45 in its example
        ("45", 45.0),
        (str(int(NOW) + 12), 12.0),
        (str(int(NOW) - 12), 0.0),
        (str(NOW + 0.5), 0.5),
        (str(int(NOW) * 1_000 + 12_000), 12.0),
        (str(int(NOW) * 1_000 - 12_000), 0.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 20.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("1000000000", 1_000_000_000.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
    ],
)
def test_rate_limit_reset_is_a_delay_or_a_time(header: str, seconds: float | None, name: str) -> None:
    assert after(429, **{name: header}) == seconds


def test_retry_after_takes_precedence_over_rate_limit_reset() -> None:
    limits = {"ratelimit_reset": "45", "x_ratelimit_reset": "50"}
    assert after(429, retry_after_ms="9", retry_after="7", **limits) == 0.009
    assert after(429, retry_after="7", **limits) == 7.0
    assert after(429, retry_after="0", **limits) == 0.0
    assert after(429, retry_after="soon", **limits) == 45.0
    assert after(429, **limits) == 45.0
    assert after(429) is None


@pytest.mark.parametrize("status", [400, 403, 500, 503])
def test_rate_limit_reset_is_ignored_while_requests_remain(status: int) -> None:
    # Render sends these headers with every response: API reference, Rate limiting
    assert after(status, ratelimit_reset="45", x_ratelimit_reset="45") is None
    assert after(status, x_ratelimit_reset="45", x_ratelimit_remaining="1") is None


@pytest.mark.parametrize("name", ["ratelimit", "x_ratelimit", "x_rate_limit"])
def test_rate_limit_reset_is_read_for_403_without_remaining_requests(name: str) -> None:
    # docs.github.com/rest: Rate limits for the REST API, Exceeding the rate limit
    used_up = {f"{name}_remaining": "0", f"{name}_reset": "1792567705"}
    assert after(403, **used_up) == 45.0
    assert after(500, **used_up) is None


def test_retry_after_is_parsed_for_any_status() -> None:
    assert retry_after({"retry-after": "5"}, 200, NOW) == 5.0
    assert retry_after({}, 429, NOW) is None


def raised_with_rules(received: HttpResponse, *rules: ErrorRule, **more: Any) -> ProviderError:
    return raised_by(received, replace(operation(**more), errors=rules))


def error_response(status: int, message: str, **members: Any) -> HttpResponse:
    return response(status, "application/json", dump({"message": message, **members}))


A_RULE = ErrorRule(kind="conflict", hint="Do that.")


@pytest.mark.parametrize(
    ("rule", "applies"),
    [
        (ErrorRule(), True),
        (ErrorRule(status=frozenset({403})), True),
        (ErrorRule(status=frozenset({401, 403})), True),
        (ErrorRule(status=frozenset({401, 404})), False),
        (ErrorRule(when=((("code",), ("no",)),)), True),
        (ErrorRule(when=((("code",), ("x", "no")),)), True),
        (ErrorRule(when=((("code",), ("x",)),)), False),
        (ErrorRule(when=((("code",), ("no",)), (("deep", "er"), (1,)))), True),
        (ErrorRule(when=((("code",), ("no",)), (("deep", "er"), (2,)))), False),
        (ErrorRule(when=((("nowhere",), (None,)),)), True),
        (ErrorRule(message_matches=re.compile("run")), True),
        (ErrorRule(message_matches=re.compile("^task run")), True),
        (ErrorRule(message_matches=re.compile("^run")), False),
        (ErrorRule(message_matches=re.compile("Run")), False),
        (ErrorRule(message_matches=re.compile("")), True),
        (ErrorRule(frozenset({403}), ((("code",), ("no",)),), re.compile("run")), True),
        (ErrorRule(frozenset({404}), ((("code",), ("no",)),), re.compile("run")), False),
        (ErrorRule(frozenset({403}), ((("code",), ("x",)),), re.compile("run")), False),
        (ErrorRule(frozenset({403}), ((("code",), ("no",)),), re.compile("ran")), False),
    ],
)
def test_error_rule_applies_if_status_condition_and_message_match(rule: ErrorRule, applies: bool) -> None:
    raised = raised_with_rules(
        error_response(403, "task run is odd", code="no", deep={"er": 1}), replace(rule, kind="conflict", hint="Do.")
    )
    assert (raised.kind, raised.hint) == (("conflict", "Do.") if applies else ("auth", HINT_BY_KIND["auth"]))


@pytest.mark.parametrize(
    ("received", "when"),
    [
        (response(400, "text/plain", "code"), ((("code",), ("no",)),)),
        (response(400, "application/json", '["no"]'), ((("code",), ("no",)),)),
        (response(400, "application/json", '{"code": "no"'), ((("code",), ("no",)),)),
        (response(400, None, ""), ((("code",), ("no",)),)),
    ],
)
def test_error_rule_condition_does_not_match_body_without_members(received: HttpResponse, when: Condition) -> None:
    assert raised_with_rules(received, replace(A_RULE, when=when)).kind == "validation"


@pytest.mark.parametrize(
    ("received", "pattern"),
    [
        (response(401, "text/plain", "Authentication failed\n"), "^Authentication failed$"),
        (response(503, "text/html", "<html><title>Bad  gateway</title>"), "^Bad gateway$"),
        (response(400, "application/json", '{"attr":"entries","detail":"Too many"}'), "^entries: Too many$"),
        (response(404, None, ""), "^$"),
    ],
)
def test_error_rule_pattern_is_matched_against_the_error_message(received: HttpResponse, pattern: str) -> None:
    assert raised_with_rules(received, replace(A_RULE, message_matches=re.compile(pattern))).kind == "conflict"


def test_error_rule_status_is_matched_against_status_in_body() -> None:
    # Inngest pkg/api/apiv1/cache.go: sent with 200
    received = response(200, "text/plain", '{"error":"Unable to load function run: 01HE","data":null,"status":500}')
    raised = raised_with_rules(received, replace(A_RULE, status=frozenset({500})), error_body=INNGEST_ERROR)
    assert (raised.kind, raised.status) == ("conflict", 500)
    raised = raised_with_rules(received, replace(A_RULE, status=frozenset({200})), error_body=INNGEST_ERROR)
    assert (raised.kind, raised.status) == ("unavailable", 500)


def test_first_matching_error_rule_applies() -> None:
    odd = ErrorRule(status=frozenset({404}), kind="usage_limit", hint="Never.")
    first = ErrorRule(status=frozenset({429}), kind="conflict", hint="First.")
    second = ErrorRule(kind="timeout", hint="Second.", retryable=False)
    assert raised_with_rules(error_response(429, "no"), odd, first, second).to_json() == error(
        "conflict", 429, "no", hint="First."
    )
    assert raised_with_rules(error_response(429, "no"), odd, second, first).to_json() == error(
        "timeout", 429, "no", hint="Second."
    )
    assert raised_with_rules(error_response(429, "no"), ErrorRule(), first).to_json() == error(
        "rate_limited", 429, "no", retryable=True
    )


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("status", [400, 500])
def test_kind_of_error_rule_decides_retryable_by_default(kind: Kind, status: int) -> None:
    passes = kind in {"rate_limited", "unavailable", "timeout"}
    assert raised_with_rules(error_response(status, "no"), ErrorRule(kind=kind)).to_json() == error(
        kind, status, "no", retryable=passes
    )
    for retryable in (True, False):
        raised = raised_with_rules(error_response(status, "no"), ErrorRule(kind=kind, hint="Go.", retryable=retryable))
        assert raised.to_json() == error(kind, status, "no", hint="Go.", retryable=retryable)


def test_error_rule_without_kind_keeps_kind_of_status() -> None:
    hinted = ErrorRule(hint="Go.")
    assert raised_with_rules(error_response(503, "no"), hinted).to_json() == error(
        "unavailable", 503, "no", retryable=True, hint="Go."
    )
    assert raised_with_rules(error_response(404, "no"), hinted).to_json() == error("not_found", 404, "no", hint="Go.")
    lasting = ErrorRule(retryable=False)
    assert raised_with_rules(error_response(503, "no"), lasting).to_json() == error(
        "unavailable", 503, "no", hint="The provider has a problem that another call does not solve."
    )
    passing = ErrorRule(retryable=True)
    assert raised_with_rules(error_response(404, "no"), passing).to_json() == error(
        "not_found", 404, "no", retryable=True
    )


INVITATION = re.compile(r"\b(try (it )?again|(again|try|retry) later)\b|: retry\b|\bretry\.", re.IGNORECASE)
"""A hint that invites the caller to repeat the call as it is; `read ... before trying again` does not."""


@pytest.mark.parametrize(
    "called",
    [operation(), replace(operation(), method="POST"), replace(operation(), method="POST", safe_to_retry=True)],
)
@pytest.mark.parametrize("retryable", [None, True, False])
@pytest.mark.parametrize("kind", [None, *get_args(Kind)])
def test_no_hint_invites_to_repeat_a_call_that_is_not_retryable(
    kind: Kind | None, retryable: bool | None, called: Operation
) -> None:
    for status in (*range(400, 432), 451, 499, *range(500, 600)):
        for rules in ((), (ErrorRule(kind=kind, retryable=retryable),)):
            raised = raised_by(response(status, None, ""), replace(called, errors=rules))
            assert raised.retryable or not INVITATION.search(raised.hint), (status, rules, raised.hint)
            assert not (raised.retryable and "has no effect" in raised.hint), (status, rules, raised.hint)


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "PUT"])
@pytest.mark.parametrize("safe_to_retry", [None, True])
@pytest.mark.parametrize(
    ("status", "is_unknown"),
    [
        *dict.fromkeys([408, 500, 502, 503, 504, 507, 520, 524, 530, 599], True).items(),
        *dict.fromkeys([400, 401, 403, 404, 409, 422, 425, 429, 501, 505], False).items(),
    ],
)
def test_outcome_of_a_write_is_unknown_after_a_status_that_a_proxy_may_have_sent(
    status: int, is_unknown: bool, safe_to_retry: bool | None, method: str
) -> None:
    called = replace(operation(), method=method, safe_to_retry=safe_to_retry)
    assert raised_by(response(status, None, ""), called).outcome_unknown is is_unknown
    assert raised_by(response(status, None, ""), operation()).outcome_unknown is False


def test_error_rule_with_the_kind_of_a_refusal_makes_the_outcome_known() -> None:
    # Render's local server refuses with 500: pkg/workflows/apiserver
    called = replace(operation(), method="DELETE", errors=(ErrorRule(status=frozenset({500}), kind="conflict"),))
    assert raised_by(response(500, None, ""), called).outcome_unknown is False


@pytest.mark.parametrize("rule", [ErrorRule(kind="unavailable"), ErrorRule(kind="timeout"), ErrorRule(retryable=False)])
def test_error_rule_without_hint_leaves_the_outcome_of_a_write_unknown(rule: ErrorRule) -> None:
    raised = raised_by(response(503, None, ""), replace(operation(), method="POST", errors=(rule,)))
    assert (raised.outcome_unknown, raised.retryable) == (True, False)
    assert "read the current state" in raised.hint


def test_error_rule_that_calls_a_write_retryable_makes_its_outcome_known() -> None:
    # Slack relay of PostHog, products/tasks/backend/api.py: 503 if nothing was queued
    called = replace(
        operation(), method="POST", errors=(ErrorRule(kind="unavailable", hint="Nothing was posted: retry."),)
    )
    raised = raised_by(response(503, None, ""), called)
    assert (raised.outcome_unknown, raised.retryable) == (False, True)


def test_error_rule_does_not_change_status_message_and_retry_after() -> None:
    received = replace(
        error_response(429, "out of credit"), headers={"content-type": "application/json", "retry-after": "3600"}
    )
    raised = raised_with_rules(received, ErrorRule(kind="usage_limit", hint="Pay."))
    assert raised.to_json() == error("usage_limit", 429, "out of credit", hint="Pay.", retry_after_s=3600.0)


def hint_of(pattern: str, hint: str, message: str, called: Operation | None = None) -> str:
    rule = ErrorRule(message_matches=re.compile(pattern), hint=hint)
    return raised_by(error_response(403, message), replace(called or operation(), errors=(rule,))).hint


@pytest.mark.parametrize(
    ("pattern", "hint", "message", "expected"),
    [
        # PostHog posthog/permissions.py
        (
            "required scope '(?P<scope>[^']+)'",
            "Give it the scope {scope}.",
            "API key missing required scope 'task:write'",
            "Give it the scope task:write.",
        ),
        (
            r"run (?P<run>\S+) is a subtask; cancel its root (?P<root>[\w-]+)",
            "Cancel {root}, not {run}: {root}.",
            "task run trn-2 is a subtask; cancel its root trn-1 instead",
            "Cancel trn-1, not trn-2: trn-1.",
        ),
        ("(?P<a>x)?no", "[{a}]", "no", "[]"),
        ("no", "{} {a b} { a}", "no", "{} {a b} { a}"),
        # Braces in the provider's text are not placeholders
        ("(?P<a>.+)", "It returned {a}.", "{credential} {a} {0}", 'It returned "{credential} {a} {0}".'),
    ],
)
def test_hint_placeholders_are_filled_with_groups_of_the_pattern(
    pattern: str, hint: str, message: str, expected: str
) -> None:
    assert hint_of(pattern, hint, message, operation(authentication=KEY_HEADER)) == expected


@pytest.mark.parametrize(
    ("body", "pattern", "hint", "expected"),
    [
        # PostHog's TaskRunErrorResponse: products/tasks/backend/serializers.py
        ({"missing_artifact_ids": ["a1", "a2"]}, "", "Not here: {missing_artifact_ids}.", "Not here: a1, a2."),
        ({"code": "odd", "detail": "no"}, "", "{code}: {detail}.", "odd: no."),
        ({"ids": ["a", 5, None, {"b": "c"}, "d"]}, "", "[{ids}]", "[a, d]"),
        ({"ids": []}, "", "[{ids}]", "[]"),
        ({"a": 5, "b": 1.5}, "", "{a} {b}", "5 1.5"),
        ({"a": "x" * (MAX_QUOTED + 1)}, "", "{a}", "x" * MAX_QUOTED),
        ({"a": ["x" * MAX_QUOTED, "y"]}, "", "{a}", "x" * MAX_QUOTED),
        ({"a": ["x", "y z."]}, "", "{a}", 'x, "y z."'),
        ({"a": "{b} {credential}", "b": "c"}, "", "{a}", '"{b} {credential}"'),
        # Groups of the rule take precedence, and the body cannot replace the name of the credential
        ({"message": "text", "a": "member"}, r"(?P<a>\w+)", "{a}", "text"),
        ({"credential": "your password"}, "", "Look at {credential}.", "Look at A_KEY or B_KEY."),
    ],
)
def test_hint_placeholders_are_filled_with_texts_of_the_body(body: Any, pattern: str, hint: str, expected: str) -> None:
    rule = ErrorRule(message_matches=re.compile(pattern), hint=hint)
    received = response(403, "application/json", dump(body))
    assert raised_with_rules(received, rule, authentication=KEY_HEADER).hint == expected


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        ("It is full. It is emptied at {reset_at}. Wait.", "It is full. Wait."),
        ("It is full ({kind}, {reset_at}). Wait until {until} or ask.", "Wait until 17 or ask."),
        ("Ask {who}.", ""),
    ],
)
@pytest.mark.parametrize("missing", [{}, {"kind": "daily", "reset_at": None, "who": {"name": "x"}}, {"reset_at": True}])
def test_sentence_of_a_hint_without_a_value_for_its_placeholder_is_left_out(
    hint: str, expected: str, missing: dict[str, Any]
) -> None:
    received = response(429, "application/json", dump({"until": 17, **missing}))
    assert raised_with_rules(received, ErrorRule(hint=hint)).hint == (expected or raised_with_rules(received).hint)


def test_quoted_text_in_a_hint_is_bounded() -> None:
    assert hint_of("(?P<a>x+)", "{a}", "x" * 5_000) == "x" * MAX_QUOTED
    assert hint_of("(?P<a>x+)", "{a}", "x" * MAX_QUOTED) == "x" * MAX_QUOTED


@pytest.mark.parametrize(
    ("called", "expected"),
    [
        (operation(authentication=KEY_HEADER), "Look at A_KEY or B_KEY."),
        (operation(authentication=BASIC, parameters=TEAM), "Look at USER_NAME, PASSWORD, TEAM_KEY."),
    ],
)
def test_credential_placeholder_is_filled_with_variable_names(called: Operation, expected: str) -> None:
    assert hint_of("", "Look at {credential}.", "no", called) == expected


def test_hint_of_406_and_415_asks_to_report_a_bug() -> None:
    assert {status: failure(response(status, None, ""))["hint"] for status in (406, 415)} == dict.fromkeys(
        (406, 415), SERVER_BUG_HINT
    )
    assert "report" in SERVER_BUG_HINT
    assert failure(response(405, None, ""))["hint"] == HINT_BY_KIND["unsupported"] != SERVER_BUG_HINT
    assert raised_with_rules(response(406, None, ""), ErrorRule(hint="Go.")).hint == "Go."


def test_retryable_status_codes_have_a_passing_kind() -> None:
    raised = {status: raised_by(response(status, None, "")) for status in range(400, 600)}
    lasting = [status for status, error in raised.items() if error.retryable and error.kind not in PASSING]
    # Too Early is about the connection, not about the request: RFC 8470 section 5.2
    assert lasting == [425]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "\x00",
        "null",
        "true",
        "17",
        "[]",
        "{}",
        '"text"',
        "[[[[[[[]]]]]]]",
        '{"error":{}}',
        '{"error":[]}',
        '{"error":[{"error":null}]}',
        '{"message":{"message":{"message":"deep"}}}',
        '{"issues":"none"}',
        '{"path":[null,{"a":1},[2]],"message":"m"}',
        '{"attr":{"a":1},"message":"m"}',
        "<",
        "<title",
        "<title></title>",
        "[" * 5_000,
    ],
)
def test_any_error_body_becomes_a_provider_error(body: str) -> None:
    for status in (*range(300, 600), 999):
        for media_type in (None, "application/json", "text/html", "text/event-stream", "image/png"):
            raised = raised_by(response(status, media_type, body))
            assert raised.message.startswith(f"the provider returned {status}")
            assert raised.kind in get_args(Kind)
            assert raised.hint
