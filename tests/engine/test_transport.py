"""HTTP to the providers: every way in which an answer may not arrive, on real sockets."""

import contextlib
import gzip
import hashlib
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import anyio
import anyio.abc
import anyio.streams.tls
import pytest

from mcp_taskruns.core.calls.request import HttpRequest
from mcp_taskruns.core.calls.response import HttpResponse
from mcp_taskruns.core.model.operation import ArgumentReference, Authentication, BaseUri, Operation, Variable
from mcp_taskruns.core.runs.events import Event
from mcp_taskruns.engine import exchange as exchange_module
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.exchange import Exchange
from mcp_taskruns.errors import NotConfigured, ProviderError, UpstreamError
from mcp_taskruns.settings import Settings

pytestmark = pytest.mark.anyio

Handler = Callable[[anyio.abc.SocketStream], Awaitable[None]]


@asynccontextmanager
async def provider(handler: Handler) -> AsyncIterator[str]:
    """A server of raw bytes: `handler` gets each connection once a request has arrived."""

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, ConnectionError):
                received = b""
                while b"\r\n\r\n" not in received:
                    received += await stream.receive()
                await handler(stream)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        yield f"http://127.0.0.1:{port}"
        tasks.cancel_scope.cancel()


def sends(data: bytes) -> Handler:
    async def handler(stream: anyio.abc.SocketStream) -> None:
        await stream.send(data)

    return handler


def answers(body: bytes, headers: str = "Content-Type: application/json\r\n", status: str = "200 OK") -> Handler:
    return sends(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)


async def hangs(_: anyio.abc.SocketStream) -> None:
    await anyio.sleep_forever()


async def fetch(url: str, *, timeout: float = 5, method: str = "GET", content: bytes | None = None) -> HttpResponse:
    exchange = Exchange(timeout)
    request = HttpRequest("acme", method, url, (("X-Mine", "1"),), content, repeatable=method == "GET")
    try:
        with anyio.fail_after(10):
            async with exchange.send(request) as answer:
                return await answer.read()
    finally:
        await exchange.aclose()


async def failure(url: str, **more: float) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await fetch(url, **more)  # type: ignore[arg-type]  # floats only here
    return caught.value


async def test_an_answer_arrives_whole() -> None:
    async with provider(answers(b'{"a":1}', "Content-Type: application/json; charset=utf-8\r\nX-Total: 3\r\n")) as url:
        answer = await fetch(url + "/v1/x%2Fy?a=b%20c")
    assert (answer.status, answer.body, answer.media_type) == (200, b'{"a":1}', "application/json")
    assert answer.headers["x-total"] == "3"


async def test_a_request_is_sent_as_it_was_built() -> None:
    received = b""

    async def handler(stream: anyio.abc.SocketStream) -> None:
        nonlocal received
        received = await stream.receive()
        await answers(b"{}")(stream)

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await handler(stream)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        await fetch(f"http://127.0.0.1:{port}/v1/a%2Fb%20c?x=1%2C2&x=3", method="POST", content=b'{"n":1}')
        tasks.cancel_scope.cancel()
    lines = received.decode().split("\r\n")
    assert lines[0] == "POST /v1/a%2Fb%20c?x=1%2C2&x=3 HTTP/1.1"
    assert lines[-1] == '{"n":1}'
    headers = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines[1:-2]}
    assert headers.pop("user-agent").startswith("mcp-taskruns/")
    assert headers == {
        "host": f"127.0.0.1:{port}",
        "x-mine": "1",
        "accept-encoding": "gzip, deflate",
        "content-length": "7",
        "connection": "close",  # nobody knows whether what is sent over one that was kept has arrived
    }


async def test_a_compressed_answer_is_unpacked() -> None:
    packed = gzip.compress(b'{"a":1}')
    async with provider(answers(packed, "Content-Type: application/json\r\nContent-Encoding: gzip\r\n")) as url:
        assert (await fetch(url)).body == b'{"a":1}'


async def test_a_redirect_is_not_followed() -> None:
    async with provider(answers(b"", "Location: http://127.0.0.1:9/\r\n", "302 Found")) as url:
        assert (await fetch(url)).status == 302


async def test_a_refused_connection_names_the_host_and_may_be_tried_again() -> None:
    error = await failure("http://127.0.0.1:9/v1?secret=1")
    assert error.message == "acme could not be reached: 127.0.0.1:9 refused the connection"
    assert (error.kind, error.retryable) == ("unavailable", True)


async def test_an_unknown_host_is_told_as_such() -> None:
    error = await failure("http://nobody.invalid/")
    assert error.message == "acme could not be reached: the host nobody.invalid is unknown"


async def test_silence_is_a_timeout_after_which_a_read_may_be_tried_again() -> None:
    async with provider(hangs) as url:
        error = await failure(url, timeout=0.2)
    assert (error.kind, error.message) == ("timeout", "acme did not respond in time")
    assert (error.hint, error.retryable) == ("Nothing was changed: try again.", True)


async def test_silence_after_a_write_leaves_open_whether_it_was_carried_out() -> None:
    async with provider(hangs) as url:
        with pytest.raises(UpstreamError) as caught:
            await fetch(url, timeout=0.2, method="POST", content=b"{}")
    assert "may have been carried out" in caught.value.hint
    assert not caught.value.retryable


async def test_silence_in_the_middle_of_an_answer_is_a_timeout() -> None:
    async def handler(stream: anyio.abc.SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await anyio.sleep_forever()

    async with provider(handler) as url:
        error = await failure(url, timeout=0.2)
    assert (error.kind, error.message) == ("timeout", "acme did not respond in time")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ],
    ids=["nothing", "half a body", "half a chunk", "half a status", "no HTTP"],
)
async def test_an_answer_that_is_not_whole_is_an_error(sent: bytes) -> None:
    async with provider(sends(sent)) as url:
        error = await failure(url)
    assert error.kind == "unavailable"
    assert error.message == "the connection to acme was lost before its response was complete"


async def test_a_broken_encoding_is_an_error() -> None:
    async with provider(answers(b"no gzip", "Content-Encoding: gzip\r\n")) as url:
        assert "cannot be decoded" in (await failure(url)).message


async def test_a_write_that_may_have_arrived_is_not_called_retryable() -> None:
    async with provider(sends(b"")) as url:
        with pytest.raises(UpstreamError) as caught:
            await fetch(url, method="POST", content=b"{}")
    assert not caught.value.retryable


async def test_an_answer_larger_than_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "MAX_PARSED_BYTES", 10)
    async with provider(answers(b"12345678901")) as url:
        assert (await failure(url)).message == "acme sent more than 10 bytes"


async def test_plain_text_where_tls_is_expected_is_told_as_such() -> None:
    async with provider(hangs) as url:
        error = await failure(url.replace("http:", "https:"), timeout=0.5)
    assert "could not be reached" in error.message


async def test_a_certificate_that_nobody_vouches_for_is_told_as_such(tls_server: ssl.SSLContext) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            with contextlib.suppress(ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream):
                await anyio.streams.tls.TLSStream.wrap(stream, ssl_context=tls_server, server_side=True)

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        error = await failure(f"https://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}/")
        tasks.cancel_scope.cancel()
    assert error.message.startswith("no secure connection to acme at 127.0.0.1:")
    assert error.hint.endswith("A certificate authority of your own must be trusted by the machine.")


async def test_an_address_that_cannot_be_called_is_a_matter_of_configuration() -> None:
    with pytest.raises(NotConfigured, match="its address or the proxy in the environment cannot be used"):
        await fetch("http://[::1/")


async def test_cookies_are_not_kept_between_calls() -> None:
    requests: list[bytes] = []

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            requests.append(await stream.receive())
            await answers(b"{}", "Set-Cookie: session=1\r\nConnection: close\r\n")(stream)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    exchange = Exchange(5)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}/"
        with anyio.fail_after(5):
            for _ in range(2):
                async with exchange.send(HttpRequest("acme", "GET", url, ())) as answer:
                    await answer.read()
        tasks.cancel_scope.cancel()
    await exchange.aclose()
    assert len(requests) == 2
    assert b"session" not in requests[1]


async def test_events_arrive_one_by_one_and_heartbeats_are_none() -> None:
    second = anyio.Event()

    async def handler(stream: anyio.abc.SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await stream.send(b"retry: 2000\n\nid: 0\nevent: task.completed\nda")
        await stream.send(b'ta: {"a":1}\n\n: ping\n\n')
        await second.wait()
        await stream.send(b"data: last\n\n")

    exchange = Exchange(5)
    seen: list[Event] = []
    async with provider(handler) as url:
        with anyio.fail_after(5):
            async with exchange.send(HttpRequest("acme", "GET", url, ())) as answer:
                assert answer.is_event_stream
                async for event in answer.events():
                    seen.append(event)
                    if event.data:
                        second.set()
    await exchange.aclose()
    assert seen == [
        Event("", retry_s=2.0),
        Event('{"a":1}', "task.completed", "0", has_id=True),
        Event("last", "message", "0"),
    ]


async def test_an_error_is_no_event_stream_whatever_it_is_called() -> None:
    headers = "Content-Type: text/event-stream\r\n"
    exchange = Exchange(5)
    async with (
        provider(answers(b"typecodedetailattr", headers, "406 Not Acceptable")) as url,
        exchange.send(HttpRequest("acme", "GET", url, ())) as answer,
    ):
        assert not answer.is_event_stream
        assert (await answer.read()).status == 406
    await exchange.aclose()


async def test_leaving_an_unread_answer_hangs_up() -> None:
    left = anyio.Event()

    async def handler(stream: anyio.abc.SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        try:
            await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            left.set()

    exchange = Exchange(5)
    async with provider(handler) as url:
        async with exchange.send(HttpRequest("acme", "GET", url, ())):
            pass
        with anyio.fail_after(1):
            await left.wait()
    await exchange.aclose()


async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with provider(answers(b'{"by":"proxy"}')) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", "")
        assert (await fetch("http://provider.invalid/v1")).body == b'{"by":"proxy"}'


async def test_this_machine_is_never_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    async with provider(answers(b'{"by":"provider"}')) as url:
        assert (await fetch(url)).body == b'{"by":"provider"}'


async def test_a_host_that_no_proxy_names_is_reached_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "nobody.invalid")
    assert "nobody.invalid is unknown" in (await failure("http://nobody.invalid/")).message


async def test_a_proxy_of_another_kind_is_a_matter_of_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(NotConfigured, match="the proxy in the environment cannot be used"):
        await fetch("http://provider.invalid/")


async def test_a_proxy_that_is_down_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    assert (await failure("http://provider.invalid/v1")).kind == "unavailable"


USER, PASSWORD = "Mufasa", "Circle of Life"

HASHES = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}


@dataclass(frozen=True)
class Request:
    """A request as it was received."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    def credentials(self) -> dict[str, str]:
        """The parameters of its `Authorization: Digest`; none without that header."""
        scheme, _, told = self.headers.get("authorization", "").partition(" ")
        pairs = re.findall(r'(\w+)=(?:"([^"]*)"|([^",\s]*))', told)
        return {name: quoted or bare for name, quoted, bare in pairs} if scheme == "Digest" else {}


@dataclass
class DigestProvider:
    """A provider that knows one user, as RFC 7616 has it, and forgets its nonce after so many requests."""

    algorithm: Literal["MD5", "SHA-256"] = "MD5"
    qop: str = "auth"
    password: str = PASSWORD
    lasts: int = 100
    nonces: int = 0
    count: int = 0
    requests: list[Request] = field(default_factory=list)

    def response(self, request: Request) -> str:
        """What only somebody who knows the password can say: RFC 7616 section 3.4.1."""

        def digest(*parts: str) -> str:
            return HASHES[self.algorithm](":".join(parts).encode()).hexdigest()

        told = request.credentials()
        user = digest(USER, "api@example.org", self.password)
        asked = digest(request.method, request.target)
        if not self.qop:
            return digest(user, f"nonce-{self.nonces}", asked)
        return digest(user, f"nonce-{self.nonces}", f"{self.count + 1:08x}", told["cnonce"], told["qop"], asked)

    def challenge(self) -> str:
        self.nonces += 1
        self.count = 0
        qop = f', qop="{self.qop}"' if self.qop else ""
        return (
            f'Digest realm="api@example.org", algorithm={self.algorithm}, nonce="nonce-{self.nonces}", '
            f'opaque="HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDicOEwrU="{qop}'
        )

    def accepts(self, request: Request) -> bool:
        told = request.credentials()
        expected = {"username": USER, "realm": "api@example.org", "nonce": f"nonce-{self.nonces}"}
        expected |= {"uri": request.target, "opaque": "HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDicOEwrU="}
        if not (self.nonces and self.count < self.lasts and expected.items() <= told.items()):
            return False
        if self.qop and told.get("nc") != f"{self.count + 1:08x}":
            return False
        return told["response"] == self.response(request)

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        """Answer all requests of a connection."""
        async with stream:
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, ConnectionError):
                received = b""
                while True:
                    while b"\r\n\r\n" not in received:
                        received += await stream.receive()
                    head, _, received = received.partition(b"\r\n\r\n")
                    first, *lines = head.decode().split("\r\n")
                    headers = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines}
                    length = int(headers.get("content-length", 0))
                    while len(received) < length:
                        received += await stream.receive()
                    method, target, _ = first.split(" ")
                    request = Request(method, target, headers, received[:length])
                    received = received[length:]
                    self.requests.append(request)
                    await self.answer(request)(stream)

    def answer(self, request: Request) -> Handler:
        if self.accepts(request):
            self.count += 1
            return answers(b'{"user":"Mufasa"}')
        body = b'{"message":"Who are you?"}'
        headers = f"WWW-Authenticate: {self.challenge()}\r\nContent-Type: application/json\r\n"
        return answers(body, headers, "401 Unauthorized")


@asynccontextmanager
async def asking(provider: DigestProvider) -> AsyncIterator[str]:
    """The provider on a loopback port."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, provider.serve)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def client() -> AsyncIterator[Exchange]:
    exchange = Exchange(5)
    try:
        with anyio.fail_after(10):
            yield exchange
    finally:
        await exchange.aclose()


async def ask(exchange: Exchange, url: str, content: bytes | None = None, password: str = PASSWORD) -> HttpResponse:
    """The answer to a request of the user; one with a body changes something."""
    method = "POST" if content else "GET"
    request = HttpRequest("acme", method, url, (), content, digest=(USER, password), repeatable=not content)
    async with exchange.send(request) as answer:
        return await answer.read()


@pytest.mark.parametrize("qop", ["auth", "auth, other", ""])
@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
async def test_a_challenge_is_answered_without_the_password(algorithm: Literal["MD5", "SHA-256"], qop: str) -> None:
    # https://www.rfc-editor.org/rfc/rfc7616#section-3.9.1
    asked = DigestProvider(algorithm, qop.partition(",")[0])
    async with asking(asked) as url, client() as exchange:
        answer = await ask(exchange, f"{url}/dir/index%2Fx.html?a=b%20c&d=%2C")
    assert (answer.status, answer.body) == (200, b'{"user":"Mufasa"}')
    first, second = asked.requests
    assert first.credentials() == {}
    told = second.credentials()
    assert (first.target, told["uri"]) == ("/dir/index%2Fx.html?a=b%20c&d=%2C", "/dir/index%2Fx.html?a=b%20c&d=%2C")
    assert told["algorithm"] == algorithm
    assert PASSWORD not in str(second.headers)


async def test_a_provider_that_has_asked_once_need_not_ask_again() -> None:
    asked = DigestProvider()
    async with asking(asked) as url, client() as exchange:
        statuses = [(await ask(exchange, f"{url}/{place}")).status for place in range(3)]
    assert statuses == [200, 200, 200]
    told = [request.credentials() for request in asked.requests]
    assert [one.get("nc") for one in told] == [None, "00000001", "00000002", "00000003"]
    assert len({one["cnonce"] for one in told[1:]}) == 3


async def test_a_challenge_that_is_new_is_answered_too() -> None:
    asked = DigestProvider(lasts=1)
    async with asking(asked) as url, client() as exchange:
        statuses = [(await ask(exchange, url)).status for _ in range(2)]
    assert statuses == [200, 200]
    told = [request.credentials() for request in asked.requests]
    assert [(one.get("nonce"), one.get("nc")) for one in told] == [
        (None, None),
        ("nonce-1", "00000001"),
        ("nonce-1", "00000002"),
        ("nonce-2", "00000001"),
    ]


@pytest.mark.parametrize("size", [2, 3_000_000], ids=["small", "large"])
async def test_a_body_arrives_whole_with_the_answer_to_the_challenge(size: int) -> None:
    content = (b"0123456789" * (size // 10 + 1))[:size]
    asked = DigestProvider()
    async with asking(asked) as url, client() as exchange:
        answers = [await ask(exchange, url, content) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    assert [request.method for request in asked.requests] == ["POST"] * 3
    assert [bool(request.credentials()) for request in asked.requests] == [False, True, True]
    assert all(request.body == content for request in asked.requests)


async def test_users_of_one_provider_are_told_apart() -> None:
    asked = DigestProvider()
    async with asking(asked) as url, client() as exchange:
        statuses = [(await ask(exchange, url, password=password)).status for password in (PASSWORD, "other", PASSWORD)]
    assert statuses == [200, 401, 200]


async def test_a_request_without_a_user_does_not_answer_a_challenge() -> None:
    asked = DigestProvider()
    async with asking(asked) as url, client() as exchange:
        await ask(exchange, url)
        async with exchange.send(HttpRequest("acme", "GET", url, (), repeatable=True)) as answer:
            assert (await answer.read()).status == 401
    assert asked.requests[-1].credentials() == {}
    assert len(asked.requests) == 3


async def test_a_challenge_of_another_kind_is_an_answer() -> None:
    headers = 'WWW-Authenticate: Basic realm="x"\r\n'
    async with provider(answers(b"no", headers, "401 Unauthorized")) as url, client() as exchange:
        answer = await ask(exchange, url)
    assert (answer.status, answer.body) == (401, b"no")


@pytest.mark.parametrize(
    ("challenge", "user"),
    [
        ('Digest realm="x", nonce="n", algorithm=SHA3-256, qop="auth"', USER),
        ('Digest realm="x", nonce="n", qop="auth-conf"', USER),
        ('Digest realm="x", qop="auth"', USER),
    ],
    ids=["algorithm", "quality", "nonce"],
)
async def test_a_challenge_that_cannot_be_answered_is_told_as_such(challenge: str, user: str) -> None:
    request = HttpRequest("acme", "GET", "", (), digest=(user, PASSWORD), repeatable=True)
    refusal = answers(b"no", f"WWW-Authenticate: {challenge}\r\n", "401 Unauthorized")
    async with provider(refusal) as url, client() as exchange:
        with pytest.raises((NotConfigured, UpstreamError)) as caught:
            async with exchange.send(replace(request, url=url)) as answer:
                await answer.read()
    assert not caught.value.retryable
    assert not re.search("broke off|proxy|address", caught.value.to_line())
    assert PASSWORD not in caught.value.to_line()


def operation_of(url: str) -> Operation:
    """An operation of such a provider, whose password is the environment's."""
    secret = Variable(("ACME_PASSWORD",))
    return Operation(
        "change",
        "acme",
        "POST",
        BaseUri((url,), ()),
        ("/things",),
        body=ArgumentReference("body"),
        authentication=Authentication("digest", ((USER,), (secret,))),
    )


def settings_of(password: str) -> Settings:
    return Settings(environment={"ACME_PASSWORD": password})


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """All that is logged, by anybody."""
    with caplog.at_level(logging.DEBUG):
        yield lambda: "\n".join(f"{record.getMessage()} {record.args}" for record in caplog.records)


async def call(url: str, password: str) -> Any:
    operation = operation_of(url)
    exchange = Client(settings_of(password), [operation])
    try:
        with anyio.fail_after(10):
            return (await exchange.fetch(operation, {"body": {"n": [1]}})).value
    finally:
        await exchange.aclose()


async def test_an_operation_of_a_file_answers_a_challenge(log: Callable[[], str]) -> None:
    asked = DigestProvider("SHA-256")
    async with asking(asked) as url:
        assert await call(url, PASSWORD) == {"user": "Mufasa"}
    assert [request.body for request in asked.requests] == [b'{"n":[1]}'] * 2
    assert asked.requests[-1].headers["content-type"] == "application/json"
    assert "response provider=acme status=200" in log()
    assert PASSWORD not in log()


async def test_a_wrong_password_is_an_error_that_does_not_show_it(log: Callable[[], str]) -> None:
    asked = DigestProvider()
    async with asking(asked) as url:
        with pytest.raises(ProviderError) as caught:
            await call(url, "Hakuna Matata")
    error = caught.value
    assert (error.kind, error.status, error.retryable) == ("auth", 401, False)
    assert "Who are you?" in error.message
    assert "ACME_PASSWORD" in error.hint
    assert len(asked.requests) == 2
    assert asked.requests[-1].credentials()["username"] == USER
    assert "Hakuna" not in repr(error) + str(error.to_json()) + error.to_line() + log()
    assert "Hakuna" not in str([request.headers for request in asked.requests])


@pytest.fixture
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's side of TLS with a certificate of its own making."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

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


def test_a_port_is_free_to_refuse() -> None:
    """The discard port: what the tests above call where nothing listens."""
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 9)) != 0
