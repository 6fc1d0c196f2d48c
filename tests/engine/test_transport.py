"""HTTP on real sockets: one suite over our transport and the stock transport of httpx."""

import contextlib
import datetime
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Callable

import anyio
import anyio.abc
import anyio.streams.tls
import httpx
import pytest
from aiohttp.resolver import ThreadedResolver
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mcp_taskruns.core.calls.received import HttpResponse
from mcp_taskruns.core.calls.request import HttpRequest, build_form_request
from mcp_taskruns.core.calls.sse import Event
from mcp_taskruns.engine.exchange import Exchange
from mcp_taskruns.engine.transport import PUBLIC_ONLY, AiohttpTransport
from mcp_taskruns.engine.transport_errors import ForbiddenAddress
from mcp_taskruns.errors import NotConfigured, UpstreamError
from tests.engine.raw_server import hangs, listening, receive_head, responding, returns, sends
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

DISCARD = "http://127.0.0.1:9"
"""The discard port, on which nothing listens."""


@pytest.fixture(params=[AiohttpTransport, httpx.AsyncHTTPTransport], ids=["aiohttp", "httpx"])
def make_transport(request: pytest.FixtureRequest) -> Callable[[], httpx.AsyncBaseTransport]:
    made: Callable[[], httpx.AsyncBaseTransport] = request.param
    return made


@pytest.fixture
async def exchange(make_transport: Callable[[], httpx.AsyncBaseTransport]) -> AsyncIterator[Exchange]:
    """An exchange whose timeout is too long to matter."""
    exchange = Exchange(PATIENCE, make_transport())
    yield exchange
    await exchange.aclose()


@pytest.fixture
async def impatient(make_transport: Callable[[], httpx.AsyncBaseTransport]) -> AsyncIterator[Exchange]:
    """An exchange with a timeout of 0.3 s."""
    exchange = Exchange(0.3, make_transport())
    yield exchange
    await exchange.aclose()


def get(url: str) -> HttpRequest:
    return HttpRequest("acme", "GET", url, (("X-Mine", "1"),), safe_to_retry=True)


def post(url: str, content: bytes = b"{}") -> HttpRequest:
    return HttpRequest("acme", "POST", url, (("Content-Type", "application/json"),), content)


async def fetch(exchange: Exchange, request: HttpRequest) -> HttpResponse:
    with anyio.fail_after(PATIENCE):
        async with exchange.send(request) as response:
            return await response.read()


async def failure(exchange: Exchange, request: HttpRequest) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await fetch(exchange, request)
    return caught.value


async def test_response_is_complete(exchange: Exchange) -> None:
    async with responding(
        returns(b'{"a":1}', "Content-Type: application/json; charset=utf-8\r\nX-Total: 3\r\n")
    ) as url:
        response = await fetch(exchange, get(url + "/v1/x%2Fy?a=b%20c"))
    assert (response.status, response.body, response.media_type) == (200, b'{"a":1}', "application/json")
    assert response.headers["x-total"] == "3"


async def test_request_is_sent_as_it_was_built(exchange: Exchange) -> None:
    received = []

    async def respond(stream: anyio.abc.SocketStream) -> None:
        data = await receive_head(stream)
        while not data.endswith(b'{"n":1}'):
            data += await stream.receive()
        received.append(data.decode())
        await returns(b"{}")(stream)

    async with listening(respond) as url:
        await fetch(exchange, post(url + "/v1/a%2Fb%20c(1)'*;?x=1%2C2&x=3&y[]=a+b&z=%27", b'{"n":1}'))
    head, _, body = received[0].partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines}
    assert first == "POST /v1/a%2Fb%20c(1)'*;?x=1%2C2&x=3&y[]=a+b&z=%27 HTTP/1.1"
    assert body == '{"n":1}'
    assert len(headers) == len(lines)
    assert headers.pop("user-agent").startswith("mcp-taskruns/")
    assert headers.pop("connection", "") in {"close", ""}
    assert headers == {
        "host": url.removeprefix("http://"),
        "content-type": "application/json",
        "accept-encoding": "gzip, deflate",
        "content-length": "7",
    }


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
async def test_request_body_arrives_whole(size: int, exchange: Exchange) -> None:
    content = (b"0123456789" * (size // 10 + 1))[:size]
    received = []

    async def respond(stream: anyio.abc.SocketStream) -> None:
        data = await receive_head(stream)
        body = data.partition(b"\r\n\r\n")[2]
        while len(body) < size:
            body += await stream.receive()
        received.append(body)
        await returns(b"{}")(stream)

    async with listening(respond) as url:
        await fetch(exchange, post(url, content))
    assert received == [content]


async def test_compressed_response_is_decoded(exchange: Exchange) -> None:
    body = gzip.compress(b'{"a":1}')
    async with responding(returns(body, "Content-Type: application/json\r\nContent-Encoding: gzip\r\n")) as url:
        assert (await fetch(exchange, get(url))).body == b'{"a":1}'


async def test_redirect_is_not_followed(exchange: Exchange) -> None:
    async with responding(returns(b"", f"Location: {DISCARD}/\r\n", "302 Found")) as url:
        assert (await fetch(exchange, get(url))).status == 302


async def test_refused_connection_names_the_host_and_is_retryable(exchange: Exchange) -> None:
    error = await failure(exchange, post(f"{DISCARD}/v1?secret=1"))
    assert error.message == "acme could not be reached: 127.0.0.1:9 refused the connection"
    assert (error.kind, error.retryable) == ("unavailable", True)
    assert error.hint.startswith("Nothing was sent.")


async def test_unknown_host_is_named(exchange: Exchange) -> None:
    error = await failure(exchange, get("http://nobody.invalid/"))
    assert error.message == "acme could not be reached: the host nobody.invalid is unknown"


async def test_read_without_response_times_out_and_is_retryable(impatient: Exchange) -> None:
    async with responding(hangs) as url:
        error = await failure(impatient, get(url))
    assert (error.kind, error.message) == ("timeout", "acme did not respond in time")
    assert error.retryable


async def test_write_without_response_times_out_and_is_not_retryable(impatient: Exchange) -> None:
    async with responding(hangs) as url:
        error = await failure(impatient, post(url))
    assert (error.kind, error.retryable) == ("timeout", False)
    assert "may have been" in error.hint


async def test_silence_in_the_middle_of_a_body_times_out(impatient: Exchange) -> None:
    async def respond(stream: anyio.abc.SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await anyio.sleep_forever()

    async with responding(respond) as url:
        error = await failure(impatient, get(url))
    assert (error.kind, error.message) == ("timeout", "acme did not respond in time")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
    ],
    ids=["nothing", "half a body", "half a chunk", "half a status line", "only an interim response"],
)
async def test_incomplete_response_is_an_error(data: bytes, exchange: Exchange) -> None:
    async with responding(sends(data)) as url:
        error = await failure(exchange, get(url))
    assert error.message == "the connection to acme was lost before its response was complete"
    assert (error.kind, error.retryable) == ("unavailable", True)


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"HTTP/1.1 1000 OK\r\n\r\n", b"<html>\r\n\r\n"])
async def test_response_that_is_not_http_is_an_error(data: bytes, exchange: Exchange) -> None:
    async with responding(sends(data)) as url:
        error = await failure(exchange, get(url))
    assert error.message.startswith("acme sent something else than an HTTP response")
    assert (error.kind, error.retryable) == ("unavailable", True)


@pytest.mark.parametrize("framing", ["Content-Length: 7\r\n", "Transfer-Encoding: chunked\r\n", ""])
@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_content_after_a_response_without_content_is_not_a_lost_connection(status: str, framing: str) -> None:
    exchange = Exchange(PATIENCE)
    async with responding(sends(f'HTTP/1.1 {status}\r\n{framing}\r\n{{"a":1}}'.encode())) as url:
        error = await failure(exchange, post(url))
    await exchange.aclose()
    assert error.message == (
        "acme sent something else than an HTTP response, or content after a response that has none, for example with "
        "status 204"
    )
    assert "may have been carried out" in error.hint
    assert (error.kind, error.retryable, error.outcome_unknown) == ("unavailable", False, True)


async def test_interim_responses_before_the_final_one_are_skipped(exchange: Exchange) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
    async with responding(sends(interim + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")) as url:
        response = await fetch(exchange, get(url))
    assert (response.status, response.body) == (200, b"{}")
    assert "link" not in response.headers


def header_fields(count: int, size: int) -> str:
    """Return header fields of this size together with the ends of their lines."""
    names = (f"X-Field-{number:05}: " for number in range(count))
    return "".join(f"{name}{'a' * (size - len(name) - 2)}\r\n" for name in names)


@pytest.mark.parametrize(("count", "size"), [(1, 65_000), (2, 32_000), (65, 1_000), (650, 100), (950, 60)])
async def test_headers_of_64_kb_are_accepted(count: int, size: int, exchange: Exchange) -> None:
    async with responding(returns(b"{}", header_fields(count, size))) as url:
        response = await fetch(exchange, get(url))
    assert response.body == b"{}"
    assert sum(name.startswith("x-field-") for name in response.headers) == count


@pytest.mark.parametrize(
    ("count", "size"), [(1, 66_000), (2, 33_000), (67, 1_000), (670, 100), (1, 1_000_000), (5_000, 100), (100, 60_000)]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_larger_headers_are_an_error_that_is_not_retryable(
    method: str, count: int, size: int, exchange: Exchange
) -> None:
    async with responding(returns(b"{}", header_fields(count, size))) as url:
        error = await failure(exchange, get(url) if method == "GET" else post(url))
    assert error.message == "acme sent a response whose headers have more than 65,536 bytes or 1,000 fields"
    assert (error.kind, error.retryable) == ("unavailable", False)
    assert ("may have been carried out" in error.hint) is (method == "POST")
    assert "try again" not in error.hint


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_write_whose_connection_is_lost_is_sent_once(method: str, exchange: Exchange) -> None:
    requests = []

    async def drop(stream: anyio.abc.SocketStream) -> None:
        requests.append(await receive_head(stream))

    async with listening(drop) as url:
        error = await failure(exchange, HttpRequest("acme", method, url, ()))
    assert len(requests) == 1
    assert not error.retryable


async def test_write_over_a_connection_that_the_server_has_closed_is_sent_once(exchange: Exchange) -> None:
    connections = 0

    async def respond_and_close(stream: anyio.abc.SocketStream) -> None:
        nonlocal connections
        connections += 1
        await receive_head(stream)
        await returns(b"{}")(stream)

    async with listening(respond_and_close) as url:
        await fetch(exchange, get(url))
        response = await fetch(exchange, HttpRequest("acme", "DELETE", url, ()))
    assert (response.status, connections) == (200, 2)


async def test_plain_text_server_at_an_https_address_is_an_error(impatient: Exchange) -> None:
    async with responding(hangs) as url:
        error = await failure(impatient, get(url.replace("http:", "https:")))
    assert "could not be reached" in error.message


async def test_untrusted_certificate_is_an_error_that_is_not_retryable(
    tls_server: ssl.SSLContext, exchange: Exchange
) -> None:
    async def serve(stream: anyio.abc.SocketStream) -> None:
        with contextlib.suppress(ssl.SSLError):
            await anyio.streams.tls.TLSStream.wrap(stream, ssl_context=tls_server, server_side=True)

    async with listening(serve) as url:
        error = await failure(exchange, get(url.replace("http:", "https:")))
    assert error.message.startswith("no secure connection to acme at 127.0.0.1:")
    assert error.hint.endswith("A certificate authority of your own must be trusted by the machine.")
    assert not error.retryable


async def test_cookies_are_not_kept(exchange: Exchange) -> None:
    requests = []

    async def respond(stream: anyio.abc.SocketStream) -> None:
        requests.append(await receive_head(stream))
        await returns(b"{}", "Set-Cookie: session=1\r\nConnection: close\r\n")(stream)

    async with listening(respond) as url:
        for _ in range(2):
            await fetch(exchange, get(url))
    assert len(requests) == 2
    assert b"session" not in requests[1]


async def test_events_arrive_one_by_one(exchange: Exchange) -> None:
    second = anyio.Event()

    async def respond(stream: anyio.abc.SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await stream.send(b"retry: 2000\n\nid: 0\nevent: task.completed\nda")
        await stream.send(b'ta: {"a":1}\n\n: ping\n\n')
        await second.wait()
        await stream.send(b"data: last\n\n")

    events: list[Event] = []
    async with responding(respond) as url:
        with anyio.fail_after(PATIENCE):
            async with exchange.send(get(url)) as response:
                assert response.is_event_stream
                async for event in response.events():
                    events.append(event)
                    if event.data:
                        second.set()
    assert events == [
        Event("", retry_s=2.0),
        Event('{"a":1}', "task.completed", "0", has_id=True),
        Event("last", "message", "0"),
    ]


async def test_leaving_an_unread_response_closes_its_connection(exchange: Exchange) -> None:
    closed = anyio.Event()

    async def respond(stream: anyio.abc.SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        try:
            await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            closed.set()

    async with responding(respond) as url:
        async with exchange.send(get(url)):
            pass
        with anyio.fail_after(PATIENCE):
            await closed.wait()


async def test_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with responding(returns(b'{"by":"proxy"}')) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", "")
        exchange = Exchange(PATIENCE)
        assert (await fetch(exchange, get("http://provider.invalid/v1"))).body == b'{"by":"proxy"}'
        await exchange.aclose()


async def test_loopback_address_is_reached_without_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", DISCARD)
    monkeypatch.setenv("NO_PROXY", "")
    exchange = Exchange(PATIENCE)
    async with responding(returns(b'{"by":"provider"}')) as url:
        assert (await fetch(exchange, get(url))).body == b'{"by":"provider"}'
    await exchange.aclose()


@pytest.mark.parametrize(
    ("proxy", "no_proxy", "message"),
    [
        (DISCARD, "nobody.invalid", "acme could not be reached: the host nobody.invalid is unknown"),
        (
            DISCARD,
            "",
            "acme could not be reached: the proxy in the server's environment refused the connection",
        ),
    ],
    ids=["host without a proxy", "proxy that is down"],
)
async def test_unreachable_proxy(proxy: str, no_proxy: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    exchange = Exchange(PATIENCE)
    error = await failure(exchange, get("http://nobody.invalid/v1"))
    await exchange.aclose()
    assert (error.message, error.kind) == (message, "unavailable")


@contextlib.asynccontextmanager
async def through_a_proxy_that_requires_a_login(
    monkeypatch: pytest.MonkeyPatch, variable: str, body: bytes, headers: str
) -> AsyncIterator[tuple[Exchange, str]]:
    """Yield an exchange that uses such a proxy, and the address of the proxy."""
    monkeypatch.setenv("NO_PROXY", "")
    async with responding(returns(body, headers, "407 Proxy Authentication Required")) as proxy:
        address = proxy.removeprefix("http://")
        monkeypatch.setenv(variable, f"http://user:s3cret@{address}")
        exchange = Exchange(PATIENCE)
        yield exchange, address
        await exchange.aclose()


async def test_proxy_that_requires_a_login_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    challenge = 'Proxy-Authenticate: Basic realm="x"\r\n'
    async with through_a_proxy_that_requires_a_login(monkeypatch, "HTTP_PROXY", b"<html>", challenge) as opened:
        exchange, address = opened
        response = await fetch(exchange, get("http://provider.invalid/v1"))
    assert (response.status, response.host, response.proxy) == (407, "provider.invalid", address)


async def test_proxy_that_requires_a_login_for_a_tunnel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with through_a_proxy_that_requires_a_login(monkeypatch, "HTTPS_PROXY", b"", "") as (exchange, address):
        error = await failure(exchange, post("https://provider.invalid/v1"))
    assert error.message == (
        f"acme could not be reached: the proxy {address} returned 407, it requires a user and a password"
    )
    assert (error.kind, error.retryable) == ("config", False)
    assert error.hint.startswith("Nothing was sent. Check HTTPS_PROXY and ALL_PROXY")
    assert "s3cret" not in error.to_line()


async def test_socks_proxy_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    exchange = Exchange(PATIENCE)
    with pytest.raises(NotConfigured, match="the proxy in the environment cannot be used"):
        await fetch(exchange, get("http://provider.invalid/"))
    await exchange.aclose()


@pytest.fixture
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """The server side of TLS, with a self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def test_nothing_listens_on_the_discard_port() -> None:
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 9)) != 0


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::ffff:127.0.0.1"]])
async def test_name_that_resolves_to_an_address_that_is_not_public_is_refused(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(*_: object) -> list[dict[str, object]]:
        return [{"host": address} for address in addresses]

    monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
    exchange = Exchange(PATIENCE)
    request = build_form_request("acme's storage", "https://bucket.example/key", "text/plain", b"")
    with pytest.raises(UpstreamError) as caught:
        async with exchange.send(request):
            raise AssertionError("the request was sent")
    await exchange.aclose()
    message = "the address of acme's storage, bucket.example, leads to this machine or its network"
    assert (caught.value.message, caught.value.retryable) == (message, False)


async def test_name_of_this_machine_is_resolved_and_refused() -> None:
    # `localhost` as a name that the operating system resolves: no other is known on every machine.
    transport = AiohttpTransport()
    request = httpx.Request("POST", "http://LOCALHOST:9/", extensions={PUBLIC_ONLY: True})
    with pytest.raises(ForbiddenAddress):
        await transport.handle_async_request(request)
    await transport.aclose()


async def test_request_after_closing_is_a_connection_error() -> None:
    transport = AiohttpTransport()
    await transport.aclose()
    with pytest.raises(httpx.ConnectError, match="are closed"):
        await transport.handle_async_request(httpx.Request("GET", "http://127.0.0.1:9/"))
