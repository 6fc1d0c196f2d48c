"""The client over `httpx.MockTransport`: retries, deadlines, redaction and event streams."""

import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import anyio
import httpx
import pytest

from mcp_taskruns.core.calls.request import File, build_form_request
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.sse import Event
from mcp_taskruns.core.model.limits import Limits, Rate
from mcp_taskruns.core.model.operation import ArgumentReference, Authentication, BaseUri, ErrorRule, Operation, Variable
from mcp_taskruns.engine.client import Client, EventStream
from mcp_taskruns.engine.progress import ignore
from mcp_taskruns.engine.rate_limits import MAX_STREAMS, Slot
from mcp_taskruns.errors import CallError, NotConfigured, ProviderError, UpstreamError
from mcp_taskruns.settings import Settings
from tests.clock import pass_time
from tests.timing import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

KEY = "planted-key-123456"
EVENTS = "text/event-stream, */*;q=0.1"
BEARER = Authentication("bearer", ((Variable(("ACME_KEY",)),),))
BASE = BaseUri(("https://api.example",), ())

READ = Operation("read", "acme", "GET", BASE, ("/things",), authentication=BEARER)
WRITE = Operation("write", "acme", "POST", BASE, ("/things",), authentication=BEARER, body=ArgumentReference("body"))
FOLLOW = Operation("follow", "acme", "GET", BASE, ("/events",), authentication=BEARER, accept=EVENTS)

Reply = httpx.Response | Exception


class Provider:
    """Returns these responses in turn, the last one for ever; records when each request arrived."""

    def __init__(self, *responses: Reply | Callable[[httpx.Request], httpx.Response]) -> None:
        self.requests: list[httpx.Request] = []
        self.times: list[float] = []
        self._responses = list(responses)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.times.append(round(anyio.current_time(), 3))
        response = self._responses.pop(0) if len(self._responses) > 1 else self._responses[0]
        if isinstance(response, Exception):
            raise response
        return response if isinstance(response, httpx.Response) else response(request)

    def client(self, **settings: Any) -> Client:
        environment = {"ACME_KEY": KEY}
        return Client(Settings(environment=environment, **settings), [READ, WRITE, FOLLOW], httpx.MockTransport(self))


class Body(httpx.AsyncByteStream):
    """A body that pauses before each chunk."""

    def __init__(self, *chunks: bytes | Exception, pause: float = 0) -> None:
        self._chunks = chunks
        self._pause = pause
        self.is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            await anyio.sleep(self._pause)  # of the driven clock
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    async def aclose(self) -> None:
        self.is_closed = True


def thing(value: Any = "thing", status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=value, headers=headers)


def events(*chunks: bytes | Exception, pause: float = 0) -> httpx.Response:
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Body(*chunks, pause=pause))


class Call:
    """One call in the background, on the driven clock."""

    def __init__(self, client: Client, operation: Operation, **options: Any) -> None:
        self.lines: list[str] = []
        self.result: CallResult | None = None
        self.error: CallError | None = None
        self.ended_at: float | None = None
        self._call = client.fetch(operation, {"body": {}}, notify=self._notify, **options)

    async def _notify(self, line: str) -> None:
        self.lines.append(line)

    async def _run(self) -> None:
        try:
            self.result = await self._call
        except CallError as exc:
            self.error = exc
        self.ended_at = round(anyio.current_time(), 3)

    async def run(self, seconds: float = 200) -> "Call":
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run)
            await pass_time(seconds)
            tasks.cancel_scope.cancel()
        return self

    @property
    def failure(self) -> CallError:
        assert self.error is not None
        return self.error


@pytest.fixture
def _full_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the random delays as long as they can be."""
    monkeypatch.setattr("mcp_taskruns.engine.retries.random.uniform", lambda _, longest: longest)


@pytest.mark.usefixtures("_full_backoff")
@pytest.mark.parametrize(
    "failure",
    [
        thing("busy", 503),
        thing("busy", 502),
        thing("busy", 504),
        thing("busy", 520),
        thing("busy", 524),
        thing("busy", 530),
        thing("slow down", 429),
        httpx.ReadError("lost"),
        httpx.ConnectError("refused"),
    ],
    ids=lambda failure: str(getattr(failure, "status_code", type(failure).__name__)),
)
async def test_read_is_retried_with_growing_delays(failure: Reply) -> None:
    provider = Provider(failure, failure, failure, thing())
    call = await Call(provider.client(), READ).run()
    assert call.result is not None
    assert call.result.value == "thing"
    assert provider.times == [0, 1, 3, 7]
    assert [line for line in call.lines if "retrying (1 of 3)" in line] == call.lines[:1]


@pytest.mark.usefixtures("_full_backoff")
async def test_read_is_retried_three_times_at_most() -> None:
    provider = Provider(thing("busy", 503))
    call = await Call(provider.client(), READ).run()
    assert len(provider.requests) == 4
    assert call.failure.message.endswith('"busy" (4 attempts)')
    assert call.failure.retryable


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500, 501, 505])
async def test_other_statuses_are_not_retried(status: int) -> None:
    provider = Provider(thing("no", status))
    call = await Call(provider.client(), READ).run()
    assert len(provider.requests) == 1
    assert call.failure.status == status


async def test_retries_429_after_retry_after() -> None:
    provider = Provider(thing("slow down", 429, **{"Retry-After": "20"}), thing())
    call = await Call(provider.client(), READ).run()
    assert provider.times == [0, 20]
    assert call.lines[0].endswith('"slow down"; retrying (1 of 3) in 20 s')
    assert "retrying (1 of 3) in 11 s" in call.lines[1]


async def test_delay_is_reported_after_a_message_with_a_full_stop() -> None:
    provider = Provider(thing("Slow down.", 429, **{"Retry-After": "20"}), thing())
    call = await Call(provider.client(), READ).run()
    assert call.lines[0].endswith('"Slow down."; retrying (1 of 3) in 20 s')


async def test_retries_a_403_that_an_overlay_declares_a_rate_limit() -> None:
    rule = ErrorRule(status=frozenset({403}), kind="rate_limited")
    operation = replace(READ, errors=(rule,))
    provider = Provider(thing("slow down", 403, **{"Retry-After": "20"}), thing())
    await Call(provider.client(), operation).run()
    assert provider.times == [0, 20]
    without_delay = Provider(thing("slow down", 403), thing())
    call = await Call(without_delay.client(), operation).run()
    assert (call.failure.retryable, len(without_delay.requests)) == (True, 1)


@pytest.mark.parametrize("delay", [60, 120])
async def test_retry_after_beyond_the_deadline_ends_the_call(delay: int) -> None:
    provider = Provider(thing("slow down", 429, **{"Retry-After": str(delay)}))
    call = await Call(provider.client(timeout=60), READ).run()
    assert (call.ended_at, len(provider.requests)) == (0, 1)
    assert call.failure.retry_after_s == delay


async def test_other_calls_wait_while_a_provider_asks_for_a_pause() -> None:
    provider = Provider(thing("slow down", 429, **{"Retry-After": "20"}), thing())
    client = provider.client()
    first = Call(client, READ, max_retries=0)
    await first.run(1)
    second = await Call(client, READ).run()
    assert first.failure.kind == "rate_limited"
    assert provider.times == [0, 20]
    assert second.lines[0] == "waiting for acme's rate limit: sending in 19 s"


@pytest.mark.parametrize(
    "failure",
    [thing("busy", 503), thing("slow down", 429), httpx.ReadError("lost"), httpx.ReadTimeout("silent")],
    ids=lambda failure: str(getattr(failure, "status_code", type(failure).__name__)),
)
async def test_write_that_may_have_arrived_is_sent_once(failure: Reply) -> None:
    provider = Provider(failure, thing())
    call = await Call(provider.client(), WRITE).run()
    assert len(provider.requests) == 1
    assert call.error is not None


@pytest.mark.parametrize("failure", [httpx.ConnectError("refused"), httpx.ConnectTimeout("slow")], ids=["no", "slow"])
async def test_write_that_was_not_sent_is_retried(failure: Exception) -> None:
    provider = Provider(failure, thing())
    call = await Call(provider.client(), WRITE).run()
    assert len(provider.requests) == 2
    assert call.error is None


async def test_repeatable_write_is_retried() -> None:
    provider = Provider(httpx.ReadError("lost"), thing("busy", 503), thing())
    call = await Call(provider.client(), WRITE, safe_to_retry=True).run()
    assert len(provider.requests) == 3
    assert call.error is None


async def test_slow_response_times_out_at_the_deadline() -> None:
    provider = Provider(lambda _: httpx.Response(200, stream=Body(b"a" * 10, b"b" * 10, pause=40)))
    call = await Call(provider.client(timeout=60), WRITE).run()
    assert call.ended_at == 60
    assert call.failure.message == "acme did not respond within 60 s"
    assert (call.failure.kind, call.failure.retryable) == ("timeout", False)


@pytest.mark.parametrize(
    ("operation", "safe_to_retry", "hint"),
    [
        (READ, None, "Nothing was changed: try again."),
        (WRITE, True, "The request may have been carried out, but it is safe to try again."),
        (WRITE, None, "The request may have been carried out: read the current state before trying again."),
    ],
    ids=["read", "write that is safe to retry", "write"],
)
async def test_timeout_has_a_hint_about_its_effect(operation: Operation, safe_to_retry: bool | None, hint: str) -> None:
    provider = Provider(lambda _: httpx.Response(200, stream=Body(b"late", pause=100)))
    call = await Call(provider.client(timeout=60), operation, safe_to_retry=safe_to_retry).run()
    assert (call.failure.hint, call.failure.retryable) == (hint, hint.endswith("try again."))


@pytest.mark.parametrize(
    ("requests", "message"),
    [(1, 'the provider returned 503: "busy"'), (2, 'the provider returned 502: "gone" (2 attempts)')],
)
async def test_retry_that_the_rate_limit_does_not_allow_raises_the_last_failure(requests: int, message: str) -> None:
    limited = replace(READ, limits=Limits(rates=(Rate(requests, 100.0),)))
    provider = Provider(thing("busy", 503), thing("gone", 502), thing())
    call = await Call(provider.client(timeout=60), limited).run()
    assert len(provider.requests) == requests
    assert call.failure.message == message


async def test_retries_share_one_deadline() -> None:
    provider = Provider(thing("busy", 503, **{"Retry-After": "25"}))
    call = await Call(provider.client(timeout=60), READ).run()
    assert provider.times == [0, 25, 50]
    assert call.ended_at == 50
    assert call.failure.message.endswith("(3 attempts)")


async def test_cancelled_call_closes_its_response() -> None:
    body = Body(b"never", pause=1_000)
    client = Provider(httpx.Response(200, stream=body)).client()
    await Call(client, READ).run(5)
    assert body.is_closed


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """Return everything that was logged."""
    with caplog.at_level(logging.DEBUG):
        yield lambda: "\n".join(f"{record.getMessage()} {record.args}" for record in caplog.records)


async def test_key_is_sent_and_redacted_in_results_and_logs(log: Callable[[], str]) -> None:
    provider = Provider(thing({"echo": KEY, "escaped": "\\u0070lanted"}))
    call = await Call(provider.client(), READ).run(1)
    assert provider.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert call.result is not None
    assert call.result.value["echo"] == "[secret]"
    assert KEY not in repr(call.result) + log() + repr(provider.requests[0])
    assert "response provider=acme status=200" in log()


@pytest.mark.parametrize("status", [200, 400, 401, 500])
async def test_key_is_redacted_in_every_response(status: int) -> None:
    call = await Call(Provider(thing({"message": f"key {KEY} is wrong"}, status)).client(), READ).run(1)
    shown = call.result.text if call.result else call.failure.to_line()
    assert "key [secret] is wrong" in shown


async def test_open_yields_a_redacted_event_stream() -> None:
    text = f"id: {KEY}\nevent: {KEY}\ndata: my key is {KEY}\n\n".encode()
    async with Provider(events(text)).client().open(FOLLOW, {}) as opened:
        assert isinstance(opened, EventStream)
        assert opened.last_event_id == ""
        received = [event async for event in opened]
        assert opened.last_event_id == KEY  # it goes back to the provider
    assert received == [Event("my key is [secret]", "[secret]", "[secret]", has_id=True)]


async def test_open_yields_the_result_of_another_response() -> None:
    async with Provider(thing({"a": 1})).client().open(READ, {}) as opened:
        assert isinstance(opened, CallResult)
        assert opened.value == {"a": 1}


async def test_fetch_reads_an_event_stream_as_text() -> None:
    result = await Provider(events(b"data: 1\n\n")).client().fetch(READ, {})
    assert (result.text, result.media_type) == ("data: 1\n\n", "text/event-stream")


async def test_open_retries_until_the_stream_is_open() -> None:
    provider = Provider(thing("busy", 503), events(b"data: 1\n\n"))
    received: list[str] = []

    async def follow() -> None:
        async with provider.client().open(FOLLOW, {}) as opened:
            assert isinstance(opened, EventStream)
            received.extend([event.data async for event in opened])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await pass_time(10)
    assert received == ["1"]
    assert len(provider.requests) == 2


async def test_lost_stream_raises_after_its_events() -> None:
    provider = Provider(events(b"data: 1\n\n", httpx.ReadError("lost")))
    received = []

    async def follow() -> None:
        async with provider.client().open(FOLLOW, {}) as opened:
            assert isinstance(opened, EventStream)
            async for event in opened:
                received.append(event.data)

    with pytest.raises(UpstreamError, match="the connection to acme was lost") as caught:
        await follow()
    assert received == ["1"]
    assert caught.value.retryable


async def test_stream_is_closed_when_its_block_ends() -> None:
    body = Body(b"data: 1\n\n", b"data: 2\n\n")
    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=body)
    async with Provider(response).client().open_stream(FOLLOW, {}) as stream, aclosing(aiter(stream)) as received:
        assert (await anext(received)).data == "1"
        assert not body.is_closed
    assert body.is_closed


async def test_stream_may_last_longer_than_the_timeout() -> None:
    received: list[str] = []
    client = Provider(events(b"data: 1\n\n", b"data: 2\n\n", pause=50)).client(timeout=60)

    async def follow() -> None:
        async with client.open_stream(FOLLOW, {}) as stream:
            received.extend([event.data async for event in stream])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await pass_time(200)
    assert received == ["1", "2"]


@pytest.mark.parametrize(
    ("last_event_id", "sent"),
    [("1-0", "1-0"), ("", None), ("a\nb", None), ("é", None)],
    ids=["id", "none", "line break", "not ASCII"],
)
async def test_last_event_id_is_sent(last_event_id: str, sent: str | None) -> None:
    provider = Provider(events())
    async with provider.client().open_stream(FOLLOW, {}, last_event_id=last_event_id):
        pass
    assert provider.requests[0].headers.get("last-event-id") == sent


async def test_response_that_is_not_a_stream_is_an_error() -> None:
    with pytest.raises(UpstreamError, match="acme returned 200 without an event stream") as caught:
        async with Provider(thing("text")).client().open_stream(FOLLOW, {}):
            pytest.fail("this is not a stream")
    assert caught.value.hint == "Nothing was changed. Read the run's status with another tool."


async def test_stream_that_is_refused_is_not_retried() -> None:
    provider = Provider(thing("busy", 503))
    with pytest.raises(ProviderError, match="busy"):
        async with provider.client().open_stream(FOLLOW, {}):
            pytest.fail("there is no stream")
    assert len(provider.requests) == 1


async def test_opening_a_stream_times_out() -> None:
    client = Provider(lambda _: httpx.Response(200, stream=Body(b"{", pause=100))).client()
    ended_at = []

    async def open_stream() -> None:
        with pytest.raises(UpstreamError, match="acme did not respond within 5 s"):
            async with client.open_stream(FOLLOW, {}, seconds=5):
                pytest.fail("there is no stream")
        ended_at.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_stream)
        await pass_time(10)
    assert ended_at == [5]


async def test_reconnected_stream_keeps_the_slot_of_its_call() -> None:
    client = Provider(events(), events(), events()).client()
    limiter = client.rate_limiter(FOLLOW)

    async def occupy() -> None:
        async with limiter.slot(Slot.STREAM, deadline=1_000, notify=ignore):
            await anyio.sleep_forever()

    async def follow() -> None:
        async with client.open_stream(FOLLOW, {}, slot=Slot.NONE):
            pass
        with pytest.raises(UpstreamError, match="too many calls to acme are in flight"):
            async with client.open_stream(FOLLOW, {}, seconds=6):
                pytest.fail("there is no slot")

    async with anyio.create_task_group() as tasks:
        for _ in range(MAX_STREAMS):
            tasks.start_soon(occupy)
        await pass_time(0)
        tasks.start_soon(follow)
        await pass_time(10)
        tasks.cancel_scope.cancel()


async def test_missing_credential_is_an_error_before_anything_is_sent() -> None:
    provider = Provider(thing())
    client = Client(Settings(), [READ], httpx.MockTransport(provider))
    with pytest.raises(NotConfigured) as caught:
        await client.fetch(READ, {})
    assert "ACME_KEY" in caught.value.hint
    assert provider.requests == []


async def test_wrong_digest_password_is_an_error_that_does_not_show_it(log: Callable[[], str]) -> None:
    digest = Authentication("digest", (("Mufasa",), (Variable(("ACME_PASSWORD",)),)))
    operation = Operation("read", "acme", "GET", BASE, ("/things",), authentication=digest)
    challenge = 'Digest realm="x", nonce="n", qop="auth"'
    provider = Provider(thing({"message": "Who are you?"}, 401, **{"WWW-Authenticate": challenge}))
    settings = Settings(environment={"ACME_PASSWORD": "Hakuna Matata"})
    client = Client(settings, [operation], httpx.MockTransport(provider))
    with pytest.raises(ProviderError) as caught:
        await client.fetch(operation, {})
    error = caught.value
    assert (error.kind, error.status, error.retryable) == ("auth", 401, False)
    assert "Who are you?" in error.message
    assert "ACME_PASSWORD" in error.hint
    assert len(provider.requests) == 2
    assert "Hakuna" not in repr(error) + str(error.to_json()) + error.to_line() + log()
    assert "Hakuna" not in str([request.headers for request in provider.requests])


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/s3 HTTP/1.1\r\nHost: a\r\n\r\nGET /x",
        "https://storage.example/a b",
        "https://storage.example/\u00e9",
        "http://storage.example/",
        "https://user@storage.example/",
        "file:///etc/passwd",
    ],
)
def test_upload_url_that_is_not_a_plain_https_url_is_refused(url: str) -> None:
    with pytest.raises(UpstreamError, match="is not a valid https URL"):
        build_form_request("acme's storage", url, "text/plain", b"")


@pytest.mark.parametrize("fields", [None, [], {"key": 1}, "text"])
async def test_upload_form_with_unusable_fields_is_an_error(fields: Any) -> None:
    client = Provider(thing()).client()
    with pytest.raises(UpstreamError, match="acme returned no usable upload form"):
        await client.post_form(WRITE, {"url": "https://storage.example", "fields": fields}, File("a", "", b""))


def test_http_libraries_are_imported_by_the_first_call_only() -> None:
    program = "import sys, mcp_taskruns.app; print(sorted({'httpx', 'aiohttp', 'jsonschema'} & set(sys.modules)))"
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert finished.stdout.strip() == "[]"


@pytest.mark.parametrize("charset", ["utf-16", "utf-16-le", "utf-32"])
async def test_credential_in_another_encoding_is_redacted(charset: str) -> None:
    body = f'{{"name": "Jos\u00e9 {KEY}"}}'.encode(charset)
    headers = {"Content-Type": "application/json; charset=utf-16"}
    call = await Call(Provider(httpx.Response(200, headers=headers, content=body)).client(), READ).run()
    assert call.result is not None
    assert call.result.value == {"name": "Jos\u00e9 [secret]"}
