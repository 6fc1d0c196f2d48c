"""Interpretation of responses.

The responses are taken from Render's API reference and its CLI's local server (render-oss/cli
pkg/workflows/apiserver), Inngest's open-source server, PostHog's source (products/tasks/backend), Runway's OpenAPI
document and documentation (docs.dev.runwayml.com).
"""

import json
from dataclasses import replace
from typing import Any

import pytest

from mcp_taskruns.core.calls.errors import HINT_BY_KIND
from mcp_taskruns.core.calls.received import HttpResponse
from mcp_taskruns.core.calls.response import CallResult, read_response, truncate_result
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import EACH
from mcp_taskruns.core.model.operation import Authentication, BaseUri, ErrorBody, Operation, Output, Parameter
from mcp_taskruns.errors import Kind, ProviderError
from tests.core.documents import Json

# Inngest pkg/api/apiv1/cache.go: a cached body is sent without its status code.
INNGEST_ERROR = ErrorBody(status=("status",), message=("error",))


def response(status: int, media_type: str | None, body: bytes | str, **headers: str) -> HttpResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if media_type is not None:
        named["content-type"] = media_type
    return HttpResponse(status, named, body.encode() if isinstance(body, str) else body)


def operation(
    error_body: ErrorBody | None = None,
    authentication: Authentication | None = None,
    parameters: tuple[Parameter, ...] = (),
) -> Operation:
    base = BaseUri(("https://api.example",), ("THING_BASE_URL", "THING_HOST"))
    return Operation(
        "op", "thing", "GET", base, ("/",), parameters, authentication=authentication, error_body=error_body
    )


RUNNING = {"data": {"run_id": "01M80QJSCZBS0XKB4HH7BZPP5C", "status": "Running", "ended_at": None}}


@pytest.mark.parametrize(
    ("given", "result"),
    [
        (
            response(200, "application/json", '{ "a": [1, null, "\\u00f6"] }\n'),
            CallResult(200, '{"a":[1,null,"ö"]}', {"a": [1, None, "ö"]}),
        ),
        (response(202, "Application/JSON; charset=utf-8", "[]"), CallResult(202, "[]", [])),
        (response(200, "application/vnd.api+json", "{}"), CallResult(200, "{}", {})),
        (response(200, "application/json", " null "), CallResult(200, "null", None)),
        (response(200, "application/json", '"text"'), CallResult(200, '"text"', "text")),
        (response(200, "application/json", "0"), CallResult(200, "0", 0)),
        (response(200, "application/json", "\ufeff[1]"), CallResult(200, "[1]", [1])),
        # Render and Runway: DELETE returns 204
        (
            response(204, None, ""),
            CallResult(204, "Done: the provider returned 204 without content.", media_type="text/plain", is_empty=True),
        ),
        # Inngest: DELETE returns 200 with a JSON content type and without content
        (
            response(200, "application/json", ""),
            CallResult(200, "Done: the provider returned 200 without content.", media_type="text/plain", is_empty=True),
        ),
        # Inngest: a cached GET loses its type
        (response(200, "text/plain; charset=utf-8", json.dumps(RUNNING)), CallResult(200, dump(RUNNING), RUNNING)),
        (response(200, None, "[1]"), CallResult(200, "[1]", [1])),
        # Text that happens to be a JSON scalar stays text
        (response(200, "text/plain", "12"), CallResult(200, "12", media_type="text/plain")),
        (response(200, "text/plain", "{no json"), CallResult(200, "{no json", media_type="text/plain")),
        (response(200, "text/csv", "a,b\n1,2\n"), CallResult(200, "a,b\n1,2\n", media_type="text/csv")),
        (response(200, None, "text"), CallResult(200, "text", media_type="text/plain")),
        (response(200, "text/plain", b"a\xffb"), CallResult(200, "a\ufffdb", media_type="text/plain")),
        (response(200, "application/xml", "<a/>"), CallResult(200, "<a/>", media_type="application/xml")),
        (response(200, "application/yaml", "a: 1"), CallResult(200, "a: 1", media_type="application/yaml")),
        (response(200, "text/javascript", "f()"), CallResult(200, "f()", media_type="text/javascript")),
        (
            response(200, "application/javascript", "f()"),
            CallResult(200, "f()", media_type="application/javascript"),
        ),
        (response(200, "application/jsonl", b"a\xffb\n"), CallResult(200, '["a\ufffdb"]', ["a\ufffdb"])),
        # PostHog: logs are JSON lines, and empty before the run has started
        (
            response(200, "application/jsonl", '{"a":1}\n\n{"b":2}\r\nno json\n'),
            CallResult(200, '[{"a":1},{"b":2},"no json"]', [{"a": 1}, {"b": 2}, "no json"]),
        ),
        (response(200, "application/x-ndjson", "1"), CallResult(200, "[1]", [1])),
        (response(200, "application/jsonl", "\n"), CallResult(200, "[]", [])),
        (response(200, "application/jsonl", ""), CallResult(200, "[]", [])),
        # PostHog: an artifact is sent with its own type
        (response(200, "image/png", b"\x89PNG\xff"), CallResult(200, "", data=b"\x89PNG\xff", media_type="image/png")),
        (
            response(200, "application/octet-stream", b"{}\x00"),
            CallResult(200, "", data=b"{}\x00", media_type="application/octet-stream"),
        ),
        # A file without a declared type, as PostHog and S3 return it
        (
            response(200, "application/octet-stream", "# gr\u00fc\u00df \x1b[1mall\x1b[0m\r\n\tx"),
            CallResult(200, "# gr\u00fc\u00df \x1b[1mall\x1b[0m\r\n\tx", media_type="text/plain"),
        ),
        (
            response(200, "binary/octet-stream", b"caf\xe9"),
            CallResult(200, "", data=b"caf\xe9", media_type="binary/octet-stream"),
        ),
        # Line separators of Unicode do not end a JSON line
        (
            response(200, "application/jsonl", '{"a":"x\u2028y\u2029z\x85"}\n"\u2028"\nb\x0bc\x0cd\x1ce\rf'),
            CallResult(
                200,
                '[{"a":"x\u2028y\u2029z\x85"},"\u2028","b\\u000bc\\fd\\u001ce\\rf"]',
                [{"a": "x\u2028y\u2029z\x85"}, "\u2028", "b\x0bc\x0cd\x1ce\rf"],
            ),
        ),
    ],
)
def test_response_is_read_by_content_type(given: HttpResponse, result: CallResult) -> None:
    assert read_response(given, operation()) == result


@pytest.mark.parametrize(
    "body",
    [b"\x00", b"a\x08b", b"a\x0eb", b"a\x1ab", b"a\x1cb", b"a\x1fb", b"\xff", b"\xc3", b"\xed\xa0\x80"],
)
def test_file_of_unknown_type_with_control_characters_is_binary(body: bytes) -> None:
    assert read_response(response(200, "application/octet-stream", body), operation()).data == body


@pytest.mark.parametrize("text", ["a\tb\n\x0b\x0c\r\n", "\x1b[1mbold", "\ufeffa", "漢字 \x7f", '{"a": 1}', "[1]"])
def test_file_of_unknown_type_that_is_utf8_is_text(text: str) -> None:
    # PostHog returns an artifact as it was uploaded; its JSON is not rewritten
    assert read_response(response(200, "application/octet-stream", text), operation()) == CallResult(
        200, text, media_type="text/plain"
    )


@pytest.mark.parametrize(
    ("media_type", "body"),
    [("application/json", "[]"), ("text/plain", "[]"), ("application/jsonl", "{}")],
)
def test_result_has_the_headers_of_the_response(media_type: str, body: str) -> None:
    # PostHog api.py (session_logs): totals are in headers
    given = response(200, media_type, body, x_total_count="7")
    assert read_response(given, operation()).headers == {"content-type": media_type, "x-total-count": "7"}
    assert "x-total-count" not in repr(read_response(given, operation()))


RUN = {"id": "r", "log_url": "https://s3/secret", "state": {"sandbox_url": "https://secret", "mode": "x"}}
SECRETS = (("log_url",), ("state", "sandbox_url"), ("state", "sandbox_connect_token"))
SHOWN = {"id": "r", "log_url": "[redacted]", "state": {"sandbox_url": "[redacted]", "mode": "x"}}


@pytest.mark.parametrize("media_type", ["application/json", "text/plain"])
def test_secrets_in_a_response_are_redacted_with_a_note(media_type: str) -> None:
    # PostHog products/tasks/mcp/tools.yaml
    given = response(200, media_type, dump(RUN))
    called = replace(operation(), redactions=SECRETS)
    result = read_response(given, called)
    assert (result.value, result.text) == (SHOWN, dump(SHOWN))
    assert result.notes == (
        "Redacted: log_url, state.sandbox_url. The server shows these secrets with `--reveal-secrets`.",
    )
    assert read_response(given, called, reveal=True) == CallResult(200, dump(RUN), RUN)


def test_secrets_in_a_list_are_redacted_with_one_note() -> None:
    page = {"count": 2, "results": [RUN, RUN, {"id": "s", "log_url": None}]}
    called = replace(operation(), redactions=tuple(("results", EACH, *place) for place in SECRETS))
    result = read_response(response(200, "application/json", dump(page)), called)
    assert result.value["results"] == [SHOWN, SHOWN, {"id": "s", "log_url": None}]
    assert result.notes == (
        "Redacted: results[*].log_url, results[*].state.sandbox_url. "
        "The server shows these secrets with `--reveal-secrets`.",
    )


@pytest.mark.parametrize("value", [{"id": "r"}, {"id": "r", "log_url": None}, {"log_url": ""}, [], "x", None])
def test_response_without_secrets_has_no_note(value: Any) -> None:
    called = replace(operation(), redactions=SECRETS)
    assert read_response(response(200, "application/json", dump(value)), called) == CallResult(200, dump(value), value)


def test_output_mapping_is_applied_after_redaction() -> None:
    called = replace(operation(), redactions=SECRETS, outputs=Output(mapping=("state",)))
    result = read_response(response(200, "application/json", dump(RUN)), called)
    assert (result.value, result.text) == (SHOWN["state"], dump(SHOWN["state"]))


REMARKS = (
    (((("status",), ("skipped", "ignored")),), "NOT posted."),
    (((("status",), ("skipped",)), (("text",), ("",))), "There was no text."),
)


@pytest.mark.parametrize(
    ("value", "notes"),
    [
        # PostHog api.py (relay_message): 200 even if nothing is posted
        ({"status": "skipped"}, ("NOT posted.",)),
        ({"status": "ignored", "text": ""}, ("NOT posted.",)),
        ({"status": "skipped", "text": ""}, ("NOT posted.", "There was no text.")),
        ({"status": "accepted", "text": ""}, ()),
        (["skipped"], ()),
    ],
)
def test_matching_response_has_the_notes_of_the_overlay(value: Any, notes: tuple[str, ...]) -> None:
    called = replace(operation(), notes=REMARKS)
    assert read_response(response(200, "application/json", dump(value)), called).notes == notes


def test_overlay_notes_precede_the_redaction_note() -> None:
    called = replace(operation(), redactions=(("a",),), notes=(((), "Look."),))
    result = read_response(response(200, "application/json", '{"a":"x"}'), called)
    assert result.notes == ("Look.", "Redacted: a. The server shows these secrets with `--reveal-secrets`.")


def test_with_notes_prepends_and_drops_empty_notes() -> None:
    result = CallResult.from_value({"a": 1}, "", "old")
    assert result == CallResult(200, '{"a":1}', {"a": 1}, notes=("old",))
    assert result.with_notes("first", "", "second").notes == ("first", "second", "old")
    assert result.with_notes("").notes == ("old",)


def failure(given: HttpResponse, error_body: ErrorBody | None = None) -> Json:
    with pytest.raises(ProviderError) as caught:
        read_response(given, operation(error_body))
    return caught.value.to_json()


def raised_by(given: HttpResponse, called: Operation | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        read_response(given, called or operation())
    return caught.value


def quoted(message: str) -> str:
    """Return a message as an error quotes it; ours are not quoted."""
    return message if message in OUR_MESSAGES else '"' + message.replace('"', "'") + '"'


OUR_MESSAGES = {"", "an HTML page", "a redirect, which this server does not follow"}


def error(kind: Kind, status: int, message: str, *, retryable: bool = False, **more: Any) -> Json:
    return {
        "kind": kind,
        "status": status,
        "message": f"the provider returned {status}{f': {quoted(message)}' if message else ''}",
        "retryable": retryable,
        "hint": HINT_BY_KIND[kind],
    } | more


@pytest.mark.parametrize("media_type", ["application/json", "application/vnd.api+json; charset=utf-8"])
@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("<p>", "an HTML page"),
        ('{"data":[{"id":"trn-1"},', '{"data":[{"id":"trn-1"},'),
        (b'{"a":\xff', '{"a":\ufffd'),
        ("x" * 1_000, "x" * 199 + "…"),
        ("nul", "nul"),
        (" ", ""),
    ],
)
def test_invalid_json_response_is_an_error(media_type: str, body: str | bytes, shown: str) -> None:
    assert failure(response(200, media_type, body)) == {
        "kind": "unavailable",
        "status": 200,
        "message": f"the provider's response is incomplete or is not valid JSON: {quoted(shown)}",
        "retryable": True,
        "hint": "Nothing was changed: try again.",
    }


@pytest.mark.parametrize(
    ("method", "safe_to_retry", "is_lost"),
    [("POST", None, True), ("DELETE", None, True), ("POST", True, False), ("GET", None, False), ("GET", False, True)],
)
def test_invalid_json_after_a_write_has_an_unknown_outcome(
    method: str, safe_to_retry: bool | None, is_lost: bool
) -> None:
    called = replace(operation(), method=method, safe_to_retry=safe_to_retry)
    raised = raised_by(response(200, "application/json", "{"), called)
    may = "The request may have been carried out: read the current state before trying again."
    if is_lost:
        assert (raised.hint, raised.retryable) == (may, False)
    else:
        reads = "Nothing was changed: try again."
        writes = "The request may have been carried out, but it is safe to try again."
        assert (raised.hint, raised.retryable) == (reads if method == "GET" else writes, True)


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
def test_error_in_the_body_of_a_200_is_an_error(media_type: str, body: str, expected: Json) -> None:
    returned = "the provider returned HTTP 200 with an error body (status "
    found = failure(response(200, media_type, body), INNGEST_ERROR)
    assert found["message"].startswith(returned)
    message = found["message"].replace(returned, "the provider returned ").replace("): ", ": ")
    assert found | {"message": message} == expected


@pytest.mark.parametrize(
    "body",
    [
        '{"data":{"status":"Failed","output":{"error":"boom"}}}',
        '{"error":"","status":500}',
        '{"error":"failed","status":200}',
        '{"error":"failed","status":"500"}',
        '{"error":"failed"}',
        '[{"error":"failed","status":500}]',
    ],
)
def test_body_that_resembles_an_error_is_a_result(body: str) -> None:
    assert read_response(response(200, "application/json", body), operation(INNGEST_ERROR)).value == json.loads(body)


def test_error_body_is_ignored_unless_declared() -> None:
    body = {"error": "failed", "status": 500}
    assert read_response(response(200, "application/json", dump(body)), operation()).value == body


def test_repr_of_a_response_hides_its_body() -> None:
    assert "confidence" not in repr(response(200, "text/plain", "in confidence"))


RUNS = [
    {"taskRun": {"id": f"trn-{number:020}", "status": "completed"}, "cursor": f"c{number}"} for number in range(200)
]


def fitted(value: Any, limit: int, advice: str = "") -> CallResult:
    return truncate_result(CallResult(200, dump(value), value), limit, lambda _: advice)


@pytest.mark.parametrize("limit", [10_000, 20_000])
def test_result_within_limit_is_unchanged(limit: int) -> None:
    result = CallResult(200, "x" * 10_000, media_type="text/plain", notes=("an earlier note",))
    assert truncate_result(result, limit, lambda _: "advice") is result


@pytest.mark.parametrize("limit", [300, 1_000, 5_000])
def test_list_is_truncated_to_whole_items_with_a_note(limit: int) -> None:
    result = fitted(RUNS, limit, "Ask for the rest.")
    kept = json.loads(result.text)
    assert kept == RUNS[: len(kept)]
    assert len(result.text) <= limit < len(dump(RUNS[: len(kept) + 1]))
    assert result.notes == (
        f"Truncated to about {limit:,} characters; kept: the list: {len(kept)} of 200 items. Ask for the rest.",
    )
    assert result.value == kept


def test_small_members_are_kept_beside_a_truncated_list() -> None:
    # PostHog's page: {count, next, previous, results}
    page = {"count": 200, "next": "https://us.posthog.com/?offset=100", "previous": None, "results": RUNS}
    result = fitted(page, 2_000)
    kept = json.loads(result.text)
    assert kept == {**page, "results": RUNS[: len(kept["results"])]}
    assert 1_800 < len(result.text) <= 2_000
    assert result.notes == (
        f"Truncated to about 2,000 characters; kept: results: {len(kept['results'])} of 200 items.",
    )


def test_first_item_is_truncated_if_it_does_not_fit() -> None:
    result = fitted([{"id": "trn-1", "results": ["x" * 5_000]}, {"id": "trn-2"}], 500)
    ((kept, *_), *others) = json.loads(result.text), None
    assert (others, kept["id"]) == ([None], "trn-1")
    (text,) = kept["results"]
    shown = text.partition("…")[0]
    assert text == f"{shown}… ({5_000 - len(shown):,} more)"
    assert result.notes == (
        f"Truncated to about 500 characters; kept: [0].results[0]: {len(shown)} of 5,000 characters; "
        "the list: 1 of 2 items.",
    )


def test_large_members_share_the_limit() -> None:
    result = fitted({"a": "x" * 9_000, "b": {"c": ["y" * 10] * 900}, "d": "z" * 100}, 1_000)
    kept = json.loads(result.text)
    assert kept["d"] == "z" * 100
    assert 350 < len(kept["a"]) < 500
    assert 350 < len(dump(kept["b"])) < 500
    assert len(result.text) <= 1_000


def test_long_string_is_truncated_with_a_note() -> None:
    result = fitted("x" * 2_000, 130)
    assert json.loads(result.text) == "x" * 100 + "… (1,900 more)"
    assert result.notes == ("Truncated to about 130 characters; kept: the text: 100 of 2,000 characters.",)


def test_text_is_truncated_at_the_limit() -> None:
    result = truncate_result(
        CallResult(200, "abc" * 1_000, media_type="text/plain", notes=("an earlier note",)),
        1_000,
        lambda _: "Ask again.",
    )
    assert result.text == ("abc" * 1_000)[:1_000]
    assert result.notes == (
        "Truncated to about 1,000 characters; kept: the text: 1,000 of 3,000 characters. Ask again.",
        "an earlier note",
    )


@pytest.mark.parametrize(
    ("media_type", "body", "result"),
    [
        # The bytes of a file are never parsed as JSON.
        ("application/json", '{ "a": 1 }', CallResult(200, '{ "a": 1 }', media_type="text/plain")),
        ("application/json", '{"a": ', CallResult(200, '{"a": ', media_type="text/plain")),
        ("application/x-ndjson", '{"a":1}', CallResult(200, '{"a":1}', media_type="text/plain")),
        ("text/csv", "a,b", CallResult(200, "a,b", media_type="text/csv")),
        ("image/png", "x", CallResult(200, "", data=b"x", media_type="image/png")),
    ],
)
def test_file_is_returned_unchanged(media_type: str, body: str, result: CallResult) -> None:
    assert read_response(response(200, media_type, body), replace(operation(), returns_file=True)) == result


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ('{"a":NaN,"b":1.5}', {"a": None, "b": 1.5}),
        ("[Infinity,-Infinity]", [None, None]),
        ("[1e400,-1e400,1.8e308]", [None, None, None]),
        ('{"a":[{"b":NaN}],"c":"NaN"}', {"a": [{"b": None}], "c": "NaN"}),
        ("NaN", None),
    ],
)
def test_number_that_json_does_not_have_is_null_with_a_note(body: str, value: Any) -> None:
    result = read_response(response(200, "application/json", body), operation())
    assert (result.value, result.text) == (value, dump(value))
    assert result.notes == (
        "The response has NaN, Infinity or numbers beyond the range of a double: they are shown as null.",
    )


@pytest.mark.parametrize("body", ['{"a":"NaN"}', '["Infinity",1e308]', "[1.7976931348623157e308]", '{"NaN":1}'])
def test_finite_numbers_have_no_note(body: str) -> None:
    result = read_response(response(200, "application/json", body), operation())
    assert (result.value, result.notes) == (json.loads(body), ())


@pytest.mark.parametrize(
    "body", ["9" * 309, "-" + "9" * 400, json.dumps({"a": [1, {"b": int("8" * 350)}]}), f'["{"1" * 400}",{"1" * 400}]']
)
def test_integer_beyond_a_double_is_kept_with_a_note(body: str) -> None:
    result = read_response(response(200, "application/json", body), operation())
    assert (result.value, result.text) == (json.loads(body), dump(json.loads(body)))
    assert result.notes == ("The response has integers beyond the range of a double, which some programs cannot read.",)


@pytest.mark.parametrize("body", ["9" * 308, json.dumps({"a": "1" * 400}), str(10**308), "12345678901234567890123"])
def test_integer_within_a_double_has_no_note(body: str) -> None:
    result = read_response(response(200, "application/json", body), operation())
    assert (result.value, result.notes) == (json.loads(body), ())


def test_numbers_in_json_lines_have_notes_too() -> None:
    result = read_response(response(200, "application/jsonl", '{"a":NaN}\n[1]\n'), operation())
    assert (result.value, result.text, len(result.notes)) == ([{"a": None}, [1]], '[{"a":null},[1]]', 1)


@pytest.mark.parametrize("status", [204, 205])
def test_content_with_a_status_that_has_none_is_a_result_with_a_note(status: int) -> None:
    result = read_response(response(status, "application/json", '{"a":1}'), operation())
    assert result.value == {"a": 1}
    assert result.notes == (f"The provider sent content with status {status}, which HTTP does not allow.",)
