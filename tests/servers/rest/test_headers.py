"""Headers of REST responses: what browsers may do with them, and what a provider can put into them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest
from anyio.abc import SocketAttribute, SocketStream
from starlette.responses import Response
from starlette.types import Message

from mcp_taskruns.core.calls.redaction import Redactor
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.servers.rest.responses import ResponseWriter
from tests.servers.rest.driver import ACME, KEY, Provider, acme, problem, served, streaming
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

TOKENS = {"MCP_TASKRUNS_TOKENS": "a-token-of-the-operator-1"}


@pytest.mark.parametrize(
    "path", ["/v1/things", "/v1/nothing", "/health", "/docs", "/openapi.json", "/v1/things?limit=x"]
)
@pytest.mark.parametrize("environment", [{}, TOKENS], ids=["open", "without a token"])
async def test_every_response_is_sandboxed_and_not_sniffed(path: str, environment: dict[str, str]) -> None:
    async with acme(Provider(), environment=environment) as side:
        response = await side.client.get(path)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"] == "sandbox"


async def test_event_stream_is_sandboxed_and_not_sniffed() -> None:
    async with acme(Provider(streaming(b"data: x\n\n", end=True))) as side:
        response = await side.client.get("/v1/events")
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"] == "sandbox"
    assert "content-disposition" not in response.headers


@pytest.mark.parametrize(
    "media_type",
    [
        "image/svg+xml",
        "text/xml",
        "application/xml",
        "application/atom+xml",
        "text/xsl",
        "application/pdf",
        "text/javascript",
        "multipart/x-mixed-replace; boundary=a",
        "application/x-anything",
    ],
)
async def test_type_that_a_browser_may_run_is_an_attachment(media_type: str) -> None:
    content = b"<script xmlns='http://www.w3.org/1999/xhtml'>alert(1)</script>"
    async with acme(Provider(Response(content, headers={"Content-Type": media_type}))) as side:
        response = await side.client.get("/v1/things")
    assert response.headers["content-disposition"] == "attachment"


@pytest.mark.parametrize(
    "media_type", ["application/json", "application/geo+json", "text/plain", "text/csv", "image/png", "video/mp4"]
)
async def test_passive_type_is_no_attachment(media_type: str) -> None:
    async with acme(Provider(Response(b'{"a":1}', headers={"Content-Type": media_type}))) as side:
        response = await side.client.get("/v1/things")
    assert response.status_code == 200
    assert "content-disposition" not in response.headers


@asynccontextmanager
async def raw_provider(response: bytes) -> AsyncIterator[str]:
    """Serve these bytes to every request: the servers of the other tests send valid headers only."""

    async def respond(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(response)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, respond)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


async def get_things(response: bytes) -> httpx.Response:
    async with raw_provider(response) as origin:
        environment = {"ACME_URL": origin, "ACME_KEY": KEY}
        async with served(environment, capabilities=[ACME]) as side:
            with anyio.fail_after(PATIENCE):
                return await side.client.get("/v1/things")


@pytest.mark.parametrize(
    ("media_type", "sent"),
    [
        (b"", "text/plain; charset=utf-8"),
        ("text/plaïn".encode(), "application/octet-stream"),
        (b"text/pl\xe9in", "application/octet-stream"),
        ("text/\u2028html".encode(), "application/octet-stream"),
        (b"text/html, text/plain", "text/html; charset=utf-8"),
        (b"text/\x0bhtml", "application/octet-stream"),
        (b"text", "application/octet-stream"),
        (b"text/" + b"x" * 8_000, "application/octet-stream"),
        (b"a" * 8_000, "application/octet-stream"),
    ],
    ids=["empty", "UTF-8", "Latin-1", "line separator", "two", "control", "no subtype", "long subtype", "long"],
)
async def test_invalid_content_type_of_a_provider_is_no_error(media_type: bytes, sent: str) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\nContent-Type: " + media_type
    response = await get_things(head + b"\r\n\r\nhello")
    assert (response.status_code, response.content) == (200, b"hello")
    assert response.headers["content-type"] == sent
    assert ("content-disposition" in response.headers) == (not sent.startswith("text/plain"))


@pytest.mark.parametrize(
    "head",
    [
        b"200 OK\r\nContent-Type: text/html\r\n ; x=1",
        b"200 OK\r\nContent-Type: text/plain\rX-Injected: 1",
        b'200 OK\r\nContent-Type: text/plain\r\nContent-Disposition: attachment; filename="\xff\xfe\r.html"',
        b"429 Slow\r\nRetry-After: inf",
        b"429 Slow\r\nRetry-After: 1e400",
        b"429 Slow\r\nRetry-After: \xff",
        b"401 \xff\xfe\r\nWWW-Authenticate: \xff",
        b"500 \xc3\xa9\r\nContent-Type: \xff/\xff",
    ],
)
async def test_header_of_a_provider_causes_no_internal_error(head: bytes, caplog: pytest.LogCaptureFixture) -> None:
    response = await get_things(b"HTTP/1.1 " + head + b"\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
    assert response.status_code != 500
    if response.status_code != 200:
        problem(response)
    assert "x-injected" not in response.headers
    assert "internal error" not in response.text
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def headers_of(result: CallResult) -> httpx.Headers:
    """Return the headers of the response for a result."""
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    await ResponseWriter(send, Redactor(())).send_result(result)
    return httpx.Headers(messages[0]["headers"])


@pytest.mark.parametrize("media_type", ["text/html", "application/xhtml+xml", "image/svg+xml"])
async def test_file_that_a_browser_may_run_is_an_attachment(media_type: str) -> None:
    headers = await headers_of(CallResult(200, "<p>", media_type=media_type))
    assert headers["content-disposition"] == "attachment"
    assert headers["content-type"].startswith(media_type)


@pytest.mark.parametrize("text", ["é\u2028 \x00\x1b[2J\x7f\r\nX-Injected: 1", "x" * 100_000, "\ud800"])
async def test_header_with_a_text_of_the_provider_is_one_line_of_ascii(text: str) -> None:
    headers = await headers_of(CallResult(200, text, media_type="text/plain", notes=(text,)))
    assert headers["x-note"].isascii()
    assert headers["x-note"].isprintable()
    assert len(headers["x-note"]) <= 8_000  # nginx and aiohttp accept 8 KB
    assert "x-injected" not in headers
