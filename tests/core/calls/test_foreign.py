"""Responses that the provider's API did not make."""

import re
import time
from dataclasses import replace

import pytest

from mcp_taskruns.core.calls.received import HttpResponse
from mcp_taskruns.core.calls.response import CallResult, read_response
from mcp_taskruns.core.model.operation import BaseUri, ErrorRule, Operation
from mcp_taskruns.errors import ProviderError

BASE = BaseUri(("https://api.example",), ("THING_BASE_URL", "THING_HOST"))
READ = Operation("read", "thing", "GET", BASE, ("/",))
WRITE = Operation("write", "thing", "POST", BASE, ("/",))
READ_RUN = replace(READ, returns_run=True)
START = replace(WRITE, returns_run=True)

PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign  in &middot; Example</title></head></html>"


def response(status: int, body: bytes = b"", media_type: str = "", **headers: str) -> HttpResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named |= {"content-type": media_type} if media_type else {}
    return HttpResponse(status, named, body, host="api.example:8443")


def raised_by(given: HttpResponse, called: Operation = READ) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        read_response(given, called)
    assert (caught.value.status, caught.value.is_foreign) == (given.status, True)
    return caught.value


@pytest.mark.parametrize("status", [200, 201, 202, 203, 206])
@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("text/html", PAGE),
        ("TEXT/HTML; Charset=UTF-8", PAGE),
        ("application/xhtml+xml", b'<?xml version="1.0"?>' + PAGE),
        ("text/html", b"\xef\xbb\xbf" + PAGE),
        ("", PAGE),
        ("application/json", PAGE),
        ("text/plain; charset=utf-8", b"\r\n " + PAGE.replace(b"html", b"HTML")),
    ],
)
def test_html_page_instead_of_json_is_an_error_with_its_title(status: int, media_type: str, body: bytes) -> None:
    error = raised_by(response(status, body, media_type))
    assert error.message == (f'the provider returned {status}: an HTML page instead of JSON: "Sign in · Example"')
    assert error.hint == (
        "Check THING_BASE_URL in the server's environment: api.example:8443 may not be the provider's API. "
        "Nothing was changed: try again."
    )
    assert (error.kind, error.retryable) == ("unavailable", True)


def test_html_page_after_a_write_has_an_unknown_outcome() -> None:
    error = raised_by(response(200, b"<p>ok", "text/html"), WRITE)
    assert error.message == "the provider returned 200: an HTML page instead of JSON"
    assert error.hint.endswith("The request may have been carried out: read the current state before trying again.")
    assert not error.retryable


def test_title_of_a_page_is_short_and_on_one_line() -> None:
    error = raised_by(response(200, b"<html><title>a\n" + b"b" * 5_000, "text/html"))
    assert error.message.endswith(f': "a {"b" * 197}…"')


@pytest.mark.parametrize(
    "called",
    [
        replace(READ, accept="text/html"),
        replace(READ, accept="application/json, text/html;q=0.9"),
        replace(READ, accept="*/*"),
        replace(READ, returns_file=True),
        replace(READ, output_format="html"),
    ],
    ids=["html", "json or html", "anything", "file", "declared"],
)
def test_html_page_is_the_result_of_an_operation_that_may_return_one(called: Operation) -> None:
    text = PAGE.decode()
    assert read_response(response(200, PAGE, "text/html"), called) == CallResult(200, text, media_type="text/html")


@pytest.mark.parametrize(("body", "text"), [(b"ok", "ok"), (b'{ "a": 1 }', '{"a":1}')])
def test_text_and_json_with_the_type_of_a_page_are_results(body: bytes, text: str) -> None:
    # https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks: `ok` as text/html
    assert read_response(response(200, body, "text/html"), WRITE).text == text


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/json", "application/octet-stream", "text/xml"])
@pytest.mark.parametrize(
    "start",
    ["<!-- a --> <!-- b > -->\n<html>", "<?xml version='1.0'?><!DOCTYPE html>", "<head>", "<meta x>", "<body>"],
)
def test_beginning_of_a_page_is_recognised_under_another_type(media_type: str, start: str) -> None:
    with pytest.raises(ProviderError, match="an HTML page instead of JSON"):
        read_response(response(200, f"{start}<title>Login</title>".encode(), media_type), READ)


@pytest.mark.parametrize("text", ["<!---->" * 20_000, "<!-- " * 20_000, "<?xml " * 20_000, " " * 100_000])
def test_markup_without_a_page_is_recognised_in_little_time(text: str) -> None:
    start = time.process_time()
    assert read_response(response(200, text.encode(), "text/plain"), READ).text
    assert time.process_time() - start < 1


@pytest.mark.parametrize("text", ["", "<p>some markup</p>", "htmlx", "<htmlx>", "say <html>", "OK"])
def test_other_text_is_a_result(text: str) -> None:
    assert read_response(response(200, text.encode(), "text/plain"), READ).text


@pytest.mark.parametrize("body", [b"", b" \r\n"], ids=["nothing", "white space"])
@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_missing_content_is_an_error_where_a_run_is_expected(status: int, body: bytes) -> None:
    error = raised_by(response(status, body, media_type="application/json"), READ_RUN)
    assert error.message == f"the provider returned {status}: no content, where a run was expected"
    assert (error.kind, error.retryable, error.hint) == ("unavailable", True, "Nothing was changed: try again.")


@pytest.mark.parametrize(("safe_to_retry", "hint"), [(None, "read the current state"), (True, "safe to try again")])
def test_start_without_content_has_an_unknown_outcome(safe_to_retry: bool | None, hint: str) -> None:
    error = raised_by(response(200), replace(START, safe_to_retry=safe_to_retry))
    assert "may have been carried out" in error.hint
    assert hint in error.hint
    assert error.retryable is bool(safe_to_retry)


@pytest.mark.parametrize("body", [b"{}", b"null", b"", b"x"])
@pytest.mark.parametrize("status", [99, 100, 101, 103, 199])
def test_interim_response_is_an_error(status: int, body: bytes) -> None:
    error = raised_by(response(status, body, "application/json"))
    assert error.message == f"the provider returned {status}: an interim response instead of a final one"
    assert "THING_BASE_URL" in error.hint


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308, 399])
@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("https://login.example/?token=s3cret#x", "login.example"),
        ("//login.example:444/a", "login.example:444"),
        ("HTTPS://user:s3cret@LOGIN.example/", "login.example"),
        ("http://[2001:db8::1]:80/", "[2001:db8::1]:80"),
        ("https://api.example/", "api.example"),
    ],
)
def test_redirect_names_the_other_host(status: int, location: str, host: str) -> None:
    error = raised_by(response(status, PAGE, "text/html", location=location))
    assert error.message == (f"the provider returned {status}: a redirect to {host}, which this server does not follow")
    assert error.hint.startswith(f"If the provider's API has moved to {host}, set THING_BASE_URL in the server's")
    assert (error.kind, error.retryable) == ("unsupported", False)
    assert "s3cret" not in error.to_line()


@pytest.mark.parametrize("location", ["/login?next=s3cret", "login", "?page=2", "https://API.example:8443/v1/"])
def test_redirect_on_the_same_host_is_described(location: str) -> None:
    error = raised_by(response(302, location=location))
    assert error.message == "the provider returned 302: a redirect to another path of api.example:8443"
    assert "THING_BASE_URL" in error.hint
    assert "s3cret" not in error.to_line()


@pytest.mark.parametrize("location", ["http://[::1/", "https://a\tb\x1b[31m/", "https://" + "x" * 300])
def test_redirect_to_an_invalid_address_is_an_error(location: str) -> None:
    assert "a redirect to another path" in raised_by(response(302, location=location)).message


def test_redirect_without_an_address_is_an_error() -> None:
    assert raised_by(response(301)).message == (
        "the provider returned 301: a redirect, which this server does not follow"
    )


def test_not_modified_is_an_error() -> None:
    error = raised_by(response(304, location="https://login.example/"))
    assert error.message == "the provider returned 304: nothing has changed since an earlier response"


@pytest.mark.parametrize(
    ("proxy", "name"),
    [("proxy.example:3128", "the proxy proxy.example:3128"), ("", "a proxy before api.example:8443")],
)
def test_proxy_that_requires_a_password_is_named(proxy: str, name: str) -> None:
    error = raised_by(replace(response(407, PAGE, "text/html"), proxy=proxy))
    assert error.message == f"the provider returned 407: {name} requires a user and a password"
    assert "HTTPS_PROXY" in error.hint
    assert (error.kind, error.retryable) == ("config", False)


@pytest.mark.parametrize("status", [200, 202, 403, 405, 429, 503])
@pytest.mark.parametrize(
    ("header", "value", "name"),
    [
        ("cf-mitigated", "challenge", "Cloudflare"),
        ("x-amzn-waf-action", "captcha", "AWS WAF"),
        ("x-vercel-mitigated", "challenge", "Vercel"),
    ],
)
def test_challenge_of_a_bot_protection_is_named(status: int, header: str, value: str, name: str) -> None:
    # https://developers.cloudflare.com/cloudflare-challenges/challenge-types/challenge-pages/detect-response/
    # https://docs.aws.amazon.com/waf/latest/developerguide/waf-captcha-and-challenge-how-it-works.html
    given = response(status, b"<html><title>Just a moment...</title>", "text/html", retry_after="7")
    error = raised_by(replace(given, headers={**given.headers, header: value}))
    assert error.message == (
        f"the provider returned {status}: a challenge of {name}, which protects api.example:8443 against bots"
    )
    assert (error.kind, error.retryable, error.retry_after_s) == ("unavailable", False, 7.0)


@pytest.mark.parametrize(
    ("status", "media_type", "body", "is_foreign"),
    [
        (404, "application/json", b'{"message":"no such run"}', False),
        (404, "text/plain", b'{"message":"no such run"}', False),
        (404, "application/json", b"[]", False),
        (404, "text/html", PAGE, True),
        (404, "text/plain", b"404 page not found", True),
        (404, "", b"", True),
        (404, "application/json", b'"x"', True),
        (502, "text/html", PAGE, True),
        (500, "application/problem+json", b'{"title":"x"}', False),
    ],
)
def test_error_without_json_is_foreign(status: int, media_type: str, body: bytes, is_foreign: bool) -> None:
    with pytest.raises(ProviderError) as caught:
        read_response(response(status, body, media_type), READ)
    assert caught.value.is_foreign is is_foreign


@pytest.mark.parametrize(
    ("rule", "is_foreign"),
    [
        (ErrorRule(message_matches=re.compile("^Job .+ does not exist")), False),
        (ErrorRule(message_matches=re.compile("^Run .+ does not exist")), True),
        (ErrorRule(status=frozenset({404})), True),
    ],
)
def test_text_that_an_error_rule_knows_is_not_foreign(rule: ErrorRule, is_foreign: bool) -> None:
    with pytest.raises(ProviderError) as caught:
        read_response(response(404, b"Job nope does not exist", "text/plain"), replace(READ, errors=(rule,)))
    assert caught.value.is_foreign is is_foreign


def test_operation_without_a_variable_for_its_address_names_the_option() -> None:
    called = replace(READ, base=BaseUri(("https://api.example",), ()), namespace="things")
    assert "`--base-uri things`" in raised_by(response(302), called).hint
    assert "`--base-uri things`" in raised_by(response(200, PAGE, "text/html"), called).hint
