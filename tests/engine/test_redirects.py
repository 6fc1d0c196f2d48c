"""Operations whose overlay lets the server follow one redirect: a link to a storage, for example for a log.

GitHub responds to `GET /repos/{owner}/{repo}/actions/jobs/{job_id}/logs` with a 302 to a link that is valid for one
minute.
"""

import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from mcp_taskruns.errors import CallError, ProviderError, UpstreamError
from mcp_taskruns.settings import Settings
from tests.engine.raw_server import listening, receive_head, returns
from tests.engine.runs.described import OPERATIONS, Acme, Json, acme

pytestmark = pytest.mark.anyio

LINK = "https://logs.example/7.txt?sig=SIGNED"
TOKEN = "acme-token-0123456789"
GET_LOG: Json = {
    "method": "GET",
    "path": "/teams/{team}/jobs/{job}/log",
    "inputParameters": [
        {"name": "ACME_TOKEN", "in": "environment"},
        {"name": "X-Version", "in": "header", "value": "2"},
        {"name": "session", "in": "cookie", "value": "c1"},
    ],
}
FOLLOWING: Json = {
    "authentication": {"type": "bearer", "token": "{{ACME_TOKEN}}"},
    "operations": {"getlog": {"follow_redirect": True}},
}


class Storage:
    """Redirects requests for a log, and responds to the redirected ones."""

    def __init__(self, location: str | None = LINK, stored: httpx.Response | None = None, status: int = 302) -> None:
        self.redirect = httpx.Response(status, headers={} if location is None else {"Location": location})
        self.stored = stored or httpx.Response(200, text="line 1\nline 2\n")

    def __call__(self, request: httpx.Request) -> httpx.Response:
        return (
            self.redirect if request.url.host == "api.acme.example" and request.url.path[-4:] == "/log" else self.stored
        )


async def get_log(
    folder: Path, storage: Storage, *, consumed: Json = FOLLOWING, environment: dict[str, str] | None = None
) -> tuple[Any, Acme]:
    settings = Settings(environment={"ACME_TOKEN": TOKEN, **(environment or {})})
    operations = {**OPERATIONS, "getlog": GET_LOG}
    async with acme(folder, storage, operations=operations, consumed=consumed, settings=settings) as provider:
        try:
            return (await provider.call("getlog", job="7")).result, provider
        except CallError as exc:
            return exc, provider


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_one_redirect_is_followed_without_the_providers_headers(tmp_path: Path, status: int) -> None:
    result, provider = await get_log(tmp_path, Storage(status=status))
    assert result.text == "line 1\nline 2\n"
    first, second = provider.received
    assert first.headers["Authorization"] == f"Bearer {TOKEN}"
    assert (second.method, str(second.url)) == ("GET", LINK)
    assert second.extensions["public_only"] is True
    assert dict(second.headers) == {
        "host": "logs.example",
        "accept": "*/*",
        "user-agent": second.headers["user-agent"],
        "accept-encoding": "gzip, deflate",
    }


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/files/7?sig=1#part", "https://api.acme.example/files/7?sig=1"),
        ("//cdn.example/7", "https://cdn.example/7"),
        ("../7.txt", "https://api.acme.example/teams/t/jobs/7.txt"),
    ],
)
async def test_relative_redirect_is_followed(tmp_path: Path, location: str, url: str) -> None:
    _, provider = await get_log(tmp_path, Storage(location))
    assert str(provider.received[1].url) == url


async def test_redirect_is_an_error_without_the_keyword(tmp_path: Path) -> None:
    failure, provider = await get_log(tmp_path, Storage(), consumed={"authentication": FOLLOWING["authentication"]})
    assert isinstance(failure, ProviderError)
    assert "a redirect to logs.example, which this server does not follow" in failure.message
    assert len(provider.received) == 1


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://logs.example/7?sig=SIGNED", "logs.example, which is not a valid https URL"),
        ("ftp://logs.example/7?sig=SIGNED", "logs.example, which is not a valid https URL"),
        ("https://user:SIGNED@logs.example/7", "logs.example, which is not a valid https URL"),
        ("https://logs.example/SIGNED\u00e4", "logs.example, which is not a valid https URL"),
        ("https://logs.example:99999/7?sig=SIGNED", "logs.example:99999, which is not a valid https URL"),
        ("https://[::1/SIGNED", "an address, which is not a valid https URL"),
        ("https://localhost/7?sig=SIGNED", "localhost, which is this machine or a part of its network"),
        ("https://127.0.0.1/7?sig=SIGNED", "127.0.0.1, which is this machine or a part of its network"),
        ("https://[::1]:8443/7?sig=SIGNED", "[::1]:8443, which is this machine or a part of its network"),
        ("https://10.1.2.3/7?sig=SIGNED", "10.1.2.3, which is this machine or a part of its network"),
        ("https://169.254.169.254/7?sig=SIGNED", "169.254.169.254, which is this machine or a part of its network"),
        ("https://2130706433/7?sig=SIGNED", "2130706433, which is this machine or a part of its network"),
        ("", "returned 302, a redirect, without the header `Location`"),
        (None, "returned 302, a redirect, without the header `Location`"),
    ],
)
async def test_redirect_to_an_unusable_address_is_an_error(
    tmp_path: Path, location: str | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    storage = Storage(None)
    if location is not None:
        storage.redirect = httpx.Response(302, headers=[(b"Location", location.encode())])
    failure, provider = await get_log(tmp_path, storage)
    assert isinstance(failure, UpstreamError)
    assert reason in failure.message
    assert not failure.retryable
    assert len(provider.received) == 1
    assert "SIGNED" not in f"{failure.to_line()} {failure!r} {caplog.text}"


async def test_second_redirect_is_an_error(tmp_path: Path) -> None:
    second = httpx.Response(307, headers={"Location": "https://other.example/?sig=SIGNED"})
    failure, provider = await get_log(tmp_path, Storage(stored=second))
    assert failure.message == "logs.example (to which acme redirects) returned 307, another redirect"
    assert len(provider.received) == 2


async def test_credential_is_not_sent_to_another_host_in_the_url(tmp_path: Path) -> None:
    failure, provider = await get_log(tmp_path, Storage(f"https://logs.example/?token={TOKEN}"))
    assert "would receive a credential of this server" in failure.message
    assert TOKEN not in failure.to_line()
    assert len(provider.received) == 1


@pytest.mark.parametrize(
    ("stored", "kind", "message"),
    [
        (httpx.Response(403, text="<Error><Message>SIGNED expired</Message></Error>"), "unavailable", "403"),
        (httpx.Response(404, json={"message": "SIGNED"}), "not_found", "404"),
        (httpx.Response(401, json={"message": "SIGNED"}), "unavailable", "401"),
    ],
)
async def test_error_of_the_second_host_names_it_and_not_the_link(
    tmp_path: Path, stored: httpx.Response, kind: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    failure, provider = await get_log(tmp_path, Storage(stored=stored))
    assert failure.message == f"after a redirect to logs.example, the provider returned {message}"
    assert failure.kind == kind
    assert failure.hint == "The link may have expired, or its content may be gone: call again for a new one."
    assert len(provider.received) == 2
    assert "SIGNED" not in f"{failure.to_line()} {caplog.text}"


async def test_redirected_response_may_be_binary(tmp_path: Path) -> None:
    stored = httpx.Response(200, content=b"\x89PNG\x00\xff", headers={"Content-Type": "image/png"})
    result, _ = await get_log(tmp_path, Storage(stored=stored))
    assert (result.data, result.media_type) == (b"\x89PNG\x00\xff", "image/png")


async def test_redirected_response_is_redacted_and_may_be_json(tmp_path: Path) -> None:
    stored = httpx.Response(200, json={"log": f"token {TOKEN}"})
    result, _ = await get_log(tmp_path, Storage(stored=stored))
    assert "log" in result.value
    assert TOKEN not in result.text


async def test_large_redirected_response_is_refused_except_as_a_file(tmp_path: Path) -> None:
    def large() -> Storage:
        return Storage(stored=httpx.Response(200, content=b"x" * 30_000_000, headers={"Content-Type": "text/plain"}))

    failure, _ = await get_log(tmp_path, large())
    assert "sent more than 8,000,000 bytes" in failure.message
    as_file = {"operations": {"getlog": {"follow_redirect": True, "returns_file": True}}}
    result, _ = await get_log(tmp_path, large(), consumed={**FOLLOWING, **as_file})
    assert any("30,000,000 characters" in note for note in result.notes)


async def test_busy_storage_is_asked_again_with_a_new_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_taskruns.engine.retries.backoff", lambda *_: 0.0)
    storage = Storage()
    responses = [httpx.Response(503), storage.stored]

    def respond(request: httpx.Request) -> httpx.Response:
        response = storage(request)
        return responses.pop(0) if response is storage.stored else response

    result, provider = await get_log(tmp_path, respond)  # type: ignore[arg-type]  # behaves like a storage
    assert result.text.startswith("line 1")
    assert [request.url.host for request in provider.received] == ["api.acme.example", "logs.example"] * 2


async def test_provider_on_loopback_may_redirect_to_loopback(tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def serve(stream: Any) -> None:
        heads.append(await receive_head(stream))
        headers = "Connection: close\r\nContent-Type: text/plain\r\n"
        to_storage = returns(b"", f"{headers}Location: {origin}/stored?sig=1\r\n", "302 Found")
        await (to_storage if len(heads) == 1 else returns(b"stored", headers))(stream)

    async with listening(serve) as origin:
        settings = Settings(environment={"ACME_TOKEN": TOKEN, "ACME_BASE_URL": origin})
        operations = {**OPERATIONS, "getlog": GET_LOG}
        async with acme(tmp_path, None, operations=operations, consumed=FOLLOWING, settings=settings) as provider:
            assert (await provider.call("getlog", job="7")).result.text == "stored"
    assert b"Authorization" in heads[0]
    assert b"Authorization" not in heads[1]
    assert heads[1].startswith(b"GET /stored?sig=1 HTTP/1.1\r\n")


async def test_redirect_of_a_write_cannot_be_followed(tmp_path: Path) -> None:
    consumed = {"operations": {"stopjob": {"follow_redirect": True}}}
    with pytest.raises(Exception, match="follow_redirect: needs the method GET, not POST"):
        async with acme(tmp_path, Storage(), consumed=consumed):
            pass
