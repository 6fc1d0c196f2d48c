"""One request and its response over `httpx.MockTransport`: limits, digest authentication, event streams."""

import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import httpx
import pytest

from mcp_taskruns.core.calls.received import HttpResponse
from mcp_taskruns.core.calls.request import HttpRequest
from mcp_taskruns.core.calls.sse import Event
from mcp_taskruns.engine import exchange as exchange_module
from mcp_taskruns.engine.exchange import Exchange
from mcp_taskruns.errors import InvalidArguments, NotConfigured, UpstreamError

pytestmark = pytest.mark.anyio

URL = "https://api.example/v1/things"
REQUEST = HttpRequest("acme", "GET", URL, (), safe_to_retry=True)

Handler = Callable[[httpx.Request], httpx.Response]


def exchange_with(respond: Handler, timeout: float = 60) -> Exchange:
    return Exchange(timeout, httpx.MockTransport(respond))


async def fetch(exchange: Exchange, request: HttpRequest = REQUEST, *, is_file: bool = False) -> HttpResponse:
    async with exchange.send(request) as response:
        return await response.read(is_file=is_file)


def returning(content: bytes, media_type: str = "application/json", status: int = 200) -> Handler:
    return lambda _: httpx.Response(status, headers={"Content-Type": media_type}, content=content)


def raising(error: Exception) -> Handler:
    def respond(_: httpx.Request) -> httpx.Response:
        raise error

    return respond


@pytest.mark.parametrize(
    ("media_type", "is_file", "limit"),
    [
        ("application/json", False, "MAX_PARSED_BYTES"),
        ("text/plain; charset=utf-8", False, "MAX_PARSED_BYTES"),
        ("text/event-stream", False, "MAX_PARSED_BYTES"),
        ("application/jsonl", False, "MAX_FILE_BYTES"),
        ("application/x-ndjson; charset=utf-8", False, "MAX_FILE_BYTES"),
        ("application/json", True, "MAX_FILE_BYTES"),
    ],
)
async def test_body_over_its_limit_is_refused(
    media_type: str, is_file: bool, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_module, "MAX_PARSED_BYTES", 100)
    monkeypatch.setattr(exchange_module, "MAX_FILE_BYTES", 200)
    size: int = getattr(exchange_module, limit)
    exchange = exchange_with(returning(b"x" * size, media_type))
    assert len((await fetch(exchange, is_file=is_file)).body) == size
    with pytest.raises(UpstreamError, match=f"acme sent more than {size} bytes"):
        await fetch(exchange_with(returning(b"x" * (size + 1), media_type)), is_file=is_file)


async def test_url_over_the_limit_is_refused_before_it_is_sent() -> None:
    exchange = exchange_with(raising(AssertionError("nothing may be sent")))
    request = replace(REQUEST, url="https://api.example/" + "x" * 65_536)
    with pytest.raises(InvalidArguments, match="would have 65,556 characters, 65,536 are allowed"):
        await fetch(exchange, request)


@pytest.mark.parametrize("url", ["http://[::1/", "ftp://api.example/"])
async def test_unusable_address_is_a_configuration_error(url: str) -> None:
    exchange = Exchange(60)
    with pytest.raises(NotConfigured, match="its address or the proxy in the environment cannot be used"):
        await fetch(exchange, replace(REQUEST, url=url))
    await exchange.aclose()


@pytest.mark.parametrize(
    ("error", "message", "kind", "is_unsent"),
    [
        (httpx.ConnectError("x"), "acme could not be reached: api.example refused the connection", "unavailable", True),
        (httpx.ConnectTimeout("x"), "acme could not be reached: no connection to api.example in time", "timeout", True),
        (httpx.PoolTimeout("x"), "acme could not be reached: no connection to api.example in time", "timeout", True),
        (httpx.ReadTimeout("x"), "acme did not respond in time", "timeout", False),
        (httpx.WriteTimeout("x"), "acme did not respond in time", "timeout", False),
        (httpx.DecodingError("x"), "acme sent a body that cannot be decoded", "unavailable", False),
        (
            httpx.ReadError("x"),
            "the connection to acme was lost before its response was complete",
            "unavailable",
            False,
        ),
        (
            httpx.RemoteProtocolError("x"),
            "the connection to acme was lost before its response was complete",
            "unavailable",
            False,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
@pytest.mark.parametrize("safe_to_retry", [True, False])
async def test_transport_errors_are_translated(
    error: Exception, message: str, kind: str, is_unsent: bool, safe_to_retry: bool
) -> None:
    with pytest.raises(UpstreamError) as caught:
        await fetch(exchange_with(raising(error)), replace(REQUEST, method="POST", safe_to_retry=safe_to_retry))
    assert (caught.value.message, caught.value.kind) == (message, kind)
    assert caught.value.retryable is (is_unsent or safe_to_retry)
    assert caught.value.hint.startswith("Nothing was sent.") is is_unsent
    assert caught.value.__cause__ is error


async def test_timeouts_and_connection_are_chosen_by_the_request() -> None:
    extensions = []

    def respond(request: httpx.Request) -> httpx.Response:
        extensions.append(request.extensions)
        return httpx.Response(204)

    exchange = exchange_with(respond, timeout=7)
    await fetch(exchange)
    await fetch(exchange, replace(REQUEST, safe_to_retry=False, timeout_s=600))
    await fetch(exchange, replace(REQUEST, headers=(("Accept", "text/event-stream, */*;q=0.1"),)))
    plain, slow, stream = extensions
    assert plain["timeout"] == {"connect": 7, "pool": 7, "read": 7, "write": 7}
    assert slow["timeout"]["read"] == 600
    assert stream["timeout"]["read"] == exchange_module.SILENCE_SECONDS
    assert [one["new_connection"] for one in extensions] == [False, True, False]


@pytest.mark.parametrize("name", ["User-Agent", "user-agent", "Accept-Encoding", "ACCEPT-ENCODING"])
async def test_declared_header_replaces_the_default(name: str) -> None:
    sent: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(204)

    exchange = exchange_with(respond)
    await fetch(exchange)
    await fetch(exchange, replace(REQUEST, headers=((name, "identity"),)))
    default, declared = (request.headers for request in sent)
    assert default["User-Agent"].startswith("mcp-taskruns/")
    assert declared.get_list(name) == ["identity"]
    assert len(declared.raw) == len(default.raw)


async def test_error_response_is_not_an_event_stream() -> None:
    exchange = exchange_with(returning(b"typecodedetailattr", "text/event-stream", 406))
    async with exchange.send(REQUEST) as response:
        assert not response.is_event_stream
        assert (await response.read()).status == 406


async def test_event_stream_can_be_read_as_text() -> None:
    text = b": comment\ndata: 1\n\n"
    assert (await fetch(exchange_with(returning(text, "text/event-stream")))).body == text


async def test_events_inherit_the_last_id() -> None:
    text = b"data: 0\n\nid: 7\ndata: 1\n\ndata: 2\n\nid\ndata: 3\n\n"
    async with exchange_with(returning(text, "text/event-stream")).send(REQUEST) as response:
        events = [event async for event in response.events()]
    assert events == [
        Event("0"),
        Event("1", id="7", has_id=True),
        Event("2", id="7"),
        Event("3", id="", has_id=True),
    ]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"2500", 2.5),
        (b"0", 0.0),
        (b"30000", 30.0),
        (b"30001", 30.0),
        (b"9" * 4_000, 30.0),
        (b"-5", None),
        (b"soon", None),
        (b"1e3", None),
        (b"9" * 5_000, None),
    ],
)
async def test_time_to_reconnect_is_at_most_30_seconds(value: bytes, seconds: float | None) -> None:
    text = b"retry: " + value + b"\ndata: a\n\n"
    async with exchange_with(returning(text, "text/event-stream")).send(REQUEST) as response:
        assert [event async for event in response.events()] == [Event("a", retry_s=seconds)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"error":"no such run"}', "acme sent text that has no events: \"{'error':'no such run'}\""),
    ],
)
async def test_invalid_event_stream_is_an_error_that_is_not_retryable(text: bytes, message: str) -> None:
    async with exchange_with(returning(text, "text/event-stream")).send(REQUEST) as response:
        with pytest.raises(UpstreamError) as caught:
            [event async for event in response.events()]
    assert caught.value.message == f"{message} instead of an event stream"
    assert not caught.value.retryable


USER, PASSWORD = "Mufasa", "Circle of Life"

HASHES = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}


@dataclass
class DigestProvider:
    """A provider with one user that demands digest authentication as in RFC 7616.

    A nonce is good for `lifetime` requests.
    """

    algorithm: Literal["MD5", "SHA-256"] = "MD5"
    qop: str = "auth"
    lifetime: int = 100
    nonces: int = 0
    count: int = 0
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.accepts(request):
            self.count += 1
            return httpx.Response(200, json={"user": USER})
        return httpx.Response(401, headers={"WWW-Authenticate": self.challenge()}, json={"message": "Who are you?"})

    def challenge(self) -> str:
        self.nonces += 1
        self.count = 0
        qop = f', qop="{self.qop}"' if self.qop else ""
        return (
            f'Digest realm="api@example.org", algorithm={self.algorithm}, nonce="nonce-{self.nonces}", '
            f'opaque="HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDicOEwrU="{qop}'
        )

    def accepts(self, request: httpx.Request) -> bool:
        given = credentials(request)
        expected = {"username": USER, "realm": "api@example.org", "nonce": f"nonce-{self.nonces}"}
        expected |= {"uri": target(request), "opaque": "HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDicOEwrU="}
        if not (self.nonces and self.count < self.lifetime and expected.items() <= given.items()):
            return False
        if self.qop and given.get("nc") != f"{self.count + 1:08x}":
            return False
        return given["response"] == self.response(request, given)

    def response(self, request: httpx.Request, given: dict[str, str]) -> str:
        """Return what only a client with the password can compute: RFC 7616 section 3.4.1."""

        def digest(*parts: str) -> str:
            return HASHES[self.algorithm](":".join(parts).encode()).hexdigest()

        user = digest(USER, "api@example.org", PASSWORD)
        action = digest(request.method, target(request))
        nonce = f"nonce-{self.nonces}"
        if not self.qop:
            return digest(user, nonce, action)
        return digest(user, nonce, f"{self.count + 1:08x}", given["cnonce"], given["qop"], action)


def target(request: httpx.Request) -> str:
    return request.url.raw_path.decode()


def credentials(request: httpx.Request) -> dict[str, str]:
    """Return the parameters of a request's digest authentication; none without it."""
    scheme, _, parameters = request.headers.get("authorization", "").partition(" ")
    pairs = re.findall(r'(\w+)=(?:"([^"]*)"|([^",\s]*))', parameters)
    return {name: quoted or bare for name, quoted, bare in pairs} if scheme == "Digest" else {}


@asynccontextmanager
async def digest_exchange(provider: Handler) -> AsyncIterator[Exchange]:
    exchange = exchange_with(provider)
    yield exchange
    await exchange.aclose()


def with_user(url: str = URL, content: bytes | None = None, password: str = PASSWORD) -> HttpRequest:
    method = "POST" if content else "GET"
    return HttpRequest("acme", method, url, (), content, digest=(USER, password), safe_to_retry=not content)


@pytest.mark.parametrize("qop", ["auth", "auth, other", ""])
@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
async def test_digest_response_does_not_contain_the_password(algorithm: Literal["MD5", "SHA-256"], qop: str) -> None:
    # https://www.rfc-editor.org/rfc/rfc7616#section-3.9.1
    provider = DigestProvider(algorithm, qop.partition(",")[0])
    path = "/dir/index%2Fx.html?a=b%20c&d=%2C"
    async with digest_exchange(provider) as exchange:
        response = await fetch(exchange, with_user(f"https://api.example{path}"))
    assert (response.status, response.body) == (200, b'{"user":"Mufasa"}')
    assert len(provider.requests) == 2
    given = credentials(provider.requests[1])
    assert (given["uri"], given["algorithm"]) == (path, algorithm)
    assert PASSWORD not in str(provider.requests[1].headers)


async def test_known_digest_challenge_is_anticipated() -> None:
    provider = DigestProvider()
    async with digest_exchange(provider) as exchange:
        statuses = [(await fetch(exchange, with_user(f"{URL}/{number}"))).status for number in range(3)]
    assert statuses == [200, 200, 200]
    given = [request.headers.get("authorization", "") for request in provider.requests]
    counts = [re.findall(r"nc=(\w+)", header) for header in given]
    assert counts[-2:] == [["00000002"], ["00000003"]]
    assert len(provider.requests) == 4


async def test_expired_digest_nonce_is_renewed() -> None:
    provider = DigestProvider(lifetime=1)
    async with digest_exchange(provider) as exchange:
        statuses = [(await fetch(exchange, with_user())).status for _ in range(2)]
    assert statuses == [200, 200]
    assert credentials(provider.requests[-1])["nonce"] == "nonce-2"


@pytest.mark.parametrize("size", [2, 3_000_000])
async def test_body_is_sent_again_after_a_digest_challenge(size: int) -> None:
    content = (b"0123456789" * (size // 10 + 1))[:size]
    provider = DigestProvider()
    async with digest_exchange(provider) as exchange:
        statuses = [(await fetch(exchange, with_user(content=content))).status for _ in range(2)]
    assert statuses == [200, 200]
    assert [request.content for request in provider.requests] == [content] * 3


async def test_digest_users_are_kept_apart() -> None:
    provider = DigestProvider()
    async with digest_exchange(provider) as exchange:
        statuses = [
            (await fetch(exchange, with_user(password=password))).status for password in (PASSWORD, "other", PASSWORD)
        ]
        anonymous = await fetch(exchange, replace(with_user(), digest=None))
    assert statuses == [200, 401, 200]
    assert anonymous.status == 401
    assert credentials(provider.requests[-1]) == {}


async def test_challenge_of_another_scheme_is_a_response() -> None:
    async with digest_exchange(
        lambda _: httpx.Response(401, headers={"WWW-Authenticate": 'Basic realm="x"'}, content=b"no")
    ) as exchange:
        response = await fetch(exchange, with_user())
    assert (response.status, response.body) == (401, b"no")


@pytest.mark.parametrize(
    "challenge",
    [
        'Digest realm="x", nonce="n", algorithm=SHA3-256, qop="auth"',
        'Digest realm="x", nonce="n", qop="auth-conf"',
        'Digest realm="x", nonce="n", qop="auth-int"',
        'Digest realm="x", qop="auth"',
        "Digest realm",
    ],
    ids=["algorithm", "quality of protection", "integrity protection", "no nonce", "no value"],
)
async def test_unsupported_digest_challenge_is_an_error(challenge: str) -> None:
    async with digest_exchange(lambda _: httpx.Response(401, headers={"WWW-Authenticate": challenge})) as exchange:
        with pytest.raises(UpstreamError) as caught:
            await fetch(exchange, with_user())
    assert (caught.value.kind, caught.value.retryable) == ("auth", False)
    assert "digest authentication in a form that this server does not support" in caught.value.message
    assert PASSWORD not in caught.value.to_line()
