"""Calls whose response something else than the provider's API has sent, over real sockets."""

import gzip

import anyio
import anyio.abc
import pytest

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.errors import CallError
from tests.calls import RENDER_RUNNING, opened
from tests.engine.raw_server import Handler, listening, receive_head, responding, returns, sends
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio


PAGE = b"<!doctype html><html><head><title>Sign in \xe2\x80\x94 Example</title></head><body>x</body></html>"
RUN = '{"id":"trn-d5im0000000000000004","status":"running","input":["Jos\u00e9"]}'


async def ignore_progress(_: object) -> None:
    """Report progress to nobody."""


async def outcome_at(url: str) -> CallResult | CallError:
    """Call a tool that reads a run at a provider with this address."""
    async with opened({"RENDER_BASE_URL": f"{url}/v1", "RENDER_API_KEY": "rnd_0123456789"}) as gateway:
        try:
            with anyio.fail_after(PATIENCE):
                return await gateway.call("render-retrieve-task-run", {"taskRunId": RENDER_RUNNING}, ignore_progress)
        except CallError as exc:
            return exc


async def result_over(respond: Handler) -> CallResult:
    async with responding(respond) as url:
        outcome = await outcome_at(url)
    assert isinstance(outcome, CallResult)
    return outcome


async def failure_over(respond: Handler) -> CallError:
    async with responding(respond) as url:
        outcome = await outcome_at(url)
    assert isinstance(outcome, CallError)
    return outcome


def gzipped(body: bytes, headers: str) -> Handler:
    return returns(gzip.compress(body), f"{headers}cOnTeNt-EnCoDiNg: GZIP\r\n")


@pytest.mark.parametrize(
    "respond",
    [
        returns(PAGE, "Content-Type: text/html\r\n"),
        returns(PAGE, "CONTENT-TYPE: TEXT/HTML; charset=UTF-8\r\n", "206 Partial Content"),
        returns(PAGE, ""),
        returns(PAGE, "content-type: text/plain\r\n", "203 Non-Authoritative Information"),
        gzipped(PAGE, "Content-Type: text/html\r\n"),
        returns(PAGE.decode().encode("utf-16"), "Content-Type: text/html\r\n"),
        returns(PAGE.decode().encode("cp1252"), "Content-Type: text/html; charset='windows-1252'\r\n"),
        sends(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n" + PAGE
        ),
    ],
    ids=["html", "206", "no type", "text", "gzip", "UTF-16", "windows-1252", "after an interim response"],
)
async def test_page_instead_of_a_run_is_an_error_with_its_title_and_the_address_to_check(respond: Handler) -> None:
    error = await failure_over(respond)
    assert error.message.endswith('an HTML page instead of JSON: "Sign in \u2014 Example"')
    assert "RENDER_BASE_URL" in error.hint
    assert "127.0.0.1:" in error.hint
    assert error.is_foreign


@pytest.mark.parametrize("status", ["200 OK", "202 Accepted", "204 No Content"])
@pytest.mark.parametrize("headers", ["", "Content-Type: application/json\r\n", "Content-Type: text/html\r\n"])
async def test_response_without_content_instead_of_a_run_is_an_error(status: str, headers: str) -> None:
    error = await failure_over(returns(b"", headers, status))
    assert error.message == f"the provider returned {status[:3]}: no content, where a run was expected"
    assert error.is_foreign


@pytest.mark.parametrize("status", ["300 Multiple Choices", "301 Moved", "307 Temporary Redirect", "308 Permanent"])
async def test_redirect_names_the_host_of_its_location(status: str) -> None:
    error = await failure_over(returns(b"", "LOCATION: https://login.example/?next=secret\r\n", status))
    assert (
        error.message
        == f"the provider returned {status[:3]}: a redirect to login.example, which this server does not follow"
    )
    assert "RENDER_BASE_URL" in error.hint


@pytest.mark.parametrize(
    ("respond", "message"),
    [
        (returns(b"", "", "304 Not Modified"), "the provider returned 304: nothing has changed since"),
        (
            sends(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
            "the provider returned 101: an interim response instead of a final one",
        ),
        (
            returns(PAGE, "", "407 Proxy Authentication Required"),
            "the provider returned 407: a proxy before 127.0.0.1:",
        ),
        (
            returns(PAGE, "CF-Mitigated: challenge\r\nContent-Type: text/html\r\n", "403 Forbidden"),
            "the provider returned 403: a challenge of Cloudflare, which protects 127.0.0.1:",
        ),
        (
            returns(b"", "x-amzn-waf-action: challenge\r\n", "202 Accepted"),
            "the provider returned 202: a challenge of AWS WAF, which protects 127.0.0.1:",
        ),
    ],
    ids=["304", "101", "407", "challenge", "challenge without content"],
)
async def test_response_of_something_between_is_described(respond: Handler, message: str) -> None:
    error = await failure_over(respond)
    assert error.message.startswith(message)
    assert error.is_foreign


@pytest.mark.parametrize(
    "respond",
    [
        returns(RUN.encode("latin-1"), "Content-Type: application/json; charset=ISO-8859-1\r\n"),
        returns(RUN.encode("latin-1"), 'content-type: Application/JSON; Charset="latin1"\r\n'),
        returns(RUN.encode("utf-16"), "Content-Type: application/json\r\n"),
        returns(RUN.encode("utf-16-be"), "Content-Type: application/json; charset=utf-16\r\n"),
        gzipped(RUN.encode("utf-16"), "Content-Type: application/json\r\n"),
    ],
    ids=["Latin-1", "quoted charset", "UTF-16", "UTF-16 without a mark", "gzip"],
)
async def test_run_in_another_encoding_is_read(respond: Handler) -> None:
    result = await result_over(respond)
    assert result.value["input"] == ["Jos\u00e9"]
    assert any(note.startswith("The response was converted to UTF-8 from ") for note in result.notes)


async def test_run_with_invalid_bytes_and_numbers_is_read() -> None:
    body = RUN.replace('["', '[NaN,1e999,"').encode("latin-1")
    result = await result_over(returns(body))
    assert result.value["input"] == [None, None, "Jos\ufffd"]
    assert [note[:30] for note in result.notes[-2:]] == [
        "The response is not valid utf-",
        "The response has NaN, Infinity",
    ]


async def test_headers_beyond_the_limit_are_not_retried() -> None:
    connections = 0

    async def respond(stream: anyio.abc.SocketStream) -> None:
        nonlocal connections
        connections += 1
        await receive_head(stream)
        await returns(RUN.encode(), f"X-Large: {'a' * 70_000}\r\n")(stream)

    async with listening(respond) as url:
        outcome = await outcome_at(url)
    assert isinstance(outcome, CallError)
    assert "headers have more than 65,536 bytes" in outcome.message
    assert (connections, outcome.retryable) == (1, False)
