"""Bearer tokens that are fetched from a token endpoint: OAuth 2 client credentials (RFC 6749), or a body of JSON.

The JSON form is that of an Airflow 3.3.2 server.
"""

import base64
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anyio
import httpx
import pytest

from mcp_taskruns.core.calls.request import build_request
from mcp_taskruns.errors import CallError, NotConfigured, ProviderError, UpstreamError
from mcp_taskruns.settings import Settings
from tests.clock import pass_time
from tests.engine.runs.described import OPERATIONS, Acme, Json, acme
from tests.engine.token_server import TOKEN_PATH, TokenServer, granting

pytestmark = pytest.mark.anyio

ID, SECRET = "client-5b1d0c", "s3cr3t+/=&: 9f2e"
"""The secret has characters that a form and a header have to encode."""

CLIENT: Json = {
    "type": "oauth2",
    "tokenUri": TOKEN_PATH,
    "clientId": "{{env.ACME_CLIENT_ID}}",
    "clientSecret": "{{env.ACME_CLIENT_SECRET}}",
}
AIRFLOW: Json = {
    "type": "oauth2",
    "tokenUri": TOKEN_PATH,
    "body": {"username": "{{env.ACME_CLIENT_ID}}", "password": "{{env.ACME_CLIENT_SECRET}}"},
    "renewAfter": [403],
}
ENVIRONMENT = {"ACME_CLIENT_ID": ID, "ACME_CLIENT_SECRET": SECRET}
JOBS = "/teams/t/jobs"
NAMES = "ACME_CLIENT_ID and ACME_CLIENT_SECRET"


@asynccontextmanager
async def calling(
    folder: Path, server: TokenServer, authentication: Any = CLIENT, **environment: str
) -> AsyncIterator[Acme]:
    """Serve the tools of a provider that is a function."""
    settings = Settings(environment={**ENVIRONMENT, **environment})
    async with acme(folder, server, consumed={"authentication": authentication}, settings=settings) as provider:
        yield provider


def sent_tokens(server: TokenServer) -> list[str]:
    """Return the number of the token of each request."""
    return [request.headers["Authorization"].split("-")[1] for request in server.requests]


def form_of(request: httpx.Request) -> dict[str, list[str]]:
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    return parse_qs(request.content.decode(), strict_parsing=True)


# A real server on loopback


async def test_client_credentials_are_sent_by_form_and_the_token_is_kept(tmp_path: Path) -> None:
    server = TokenServer()
    declared = {**CLIENT, "scopes": ["runs:read", "runs:write"], "parameters": {"audience": "https://acme.example"}}
    async with server.listen() as url:
        settings = Settings(environment={**ENVIRONMENT, "ACME_BASE_URL": f"{url}/api/v2"})
        async with acme(tmp_path, None, consumed={"authentication": declared}, settings=settings) as provider:
            for _ in range(3):
                assert (await provider.call("listjobs")).value == {"jobs": []}
    (request,) = server.token_requests
    assert request.method == "POST"
    assert request.headers["Accept"] == "application/json"
    assert form_of(request) == {
        "grant_type": ["client_credentials"],
        "scope": ["runs:read runs:write"],
        "audience": ["https://acme.example"],
    }
    # RFC 6749 section 2.3.1: both are encoded as in a form first
    scheme, _, encoded = request.headers["Authorization"].partition(" ")
    assert (scheme, base64.b64decode(encoded).decode()) == ("Basic", f"{ID}:s3cr3t%2B%2F%3D%26%3A+9f2e")
    assert [request.url.path for request in server.requests] == [f"/api/v2{JOBS}"] * 3
    assert sent_tokens(server) == ["1", "1", "1"]


async def test_client_secret_can_be_part_of_the_form(tmp_path: Path) -> None:
    server = TokenServer()
    async with calling(tmp_path, server, {**CLIENT, "clientAuthentication": "client_secret_post"}) as provider:
        await provider.call("listjobs")
    (request,) = server.token_requests
    assert "Authorization" not in request.headers
    assert form_of(request) == {"grant_type": ["client_credentials"], "client_id": [ID], "client_secret": [SECRET]}


async def test_token_endpoint_takes_json_with_a_user_and_a_password(tmp_path: Path) -> None:
    server = TokenServer()
    server.grant = lambda token: httpx.Response(201, json={"access_token": token})
    async with server.listen() as url:
        settings = Settings(environment={**ENVIRONMENT, "ACME_BASE_URL": url})
        async with acme(tmp_path, None, consumed={"authentication": AIRFLOW}, settings=settings) as provider:
            await provider.call("listjobs")
    (request,) = server.token_requests
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.content) == {"username": ID, "password": SECRET}
    assert sent_tokens(server) == ["1"]


async def test_body_of_a_token_request_may_be_nested(tmp_path: Path) -> None:
    server = TokenServer()
    declared = {**AIRFLOW, "body": {"auth": [{"secret": "{{env.ACME_CLIENT_SECRET}}"}, 5], "ttl": 3600}}
    async with calling(tmp_path, server, declared) as provider:
        await provider.call("listjobs")
    assert json.loads(server.token_requests[0].content) == {"auth": [{"secret": SECRET}, 5], "ttl": 3600}


async def test_token_and_its_lifetime_are_where_the_overlay_declares_them(tmp_path: Path) -> None:
    server = TokenServer()
    server.grant = lambda token: httpx.Response(200, json={"data": {"token": token, "ttl": 600}})
    declared = {**AIRFLOW, "token_path": "$.data.token", "expires_in_path": "$.data.ttl"}
    async with calling(tmp_path, server, declared) as provider:
        await provider.call("listjobs")
    assert sent_tokens(server) == ["1"]


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("/auth/token", "https://api.acme.example/auth/token"),
        ("auth/token", "https://api.acme.example/auth/token"),
        ("https://login.example/x/auth/token?a=1", "https://login.example/x/auth/token?a=1"),
        ("http://127.0.0.1:1/auth/token", "http://127.0.0.1:1/auth/token"),
        ("{{env.LOGIN}}/auth/token", "https://login.example/auth/token"),
    ],
)
async def test_token_endpoint_is_relative_to_the_origin_of_the_provider(tmp_path: Path, uri: str, url: str) -> None:
    urls: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        urls.append(str(request.url))
        return httpx.Response(200, json={"access_token": "token-1", "jobs": []})

    settings = Settings(environment={**ENVIRONMENT, "LOGIN": "https://login.example"})
    declared = {"authentication": {**CLIENT, "tokenUri": uri}}
    async with acme(tmp_path, respond, consumed=declared, settings=settings) as provider:
        await provider.call("listjobs")
    assert urls == [url, f"https://api.acme.example{JOBS}"]


@pytest.mark.parametrize("login", ["http://login.example", "ftp://login.example", "https://a@login.example"])
async def test_token_endpoint_that_is_not_encrypted_gets_nothing(tmp_path: Path, login: str) -> None:
    server = TokenServer()
    async with calling(tmp_path, server, {**CLIENT, "tokenUri": "{{env.LOGIN}}/auth/token"}, LOGIN=login) as provider:
        with pytest.raises(NotConfigured) as caught:
            await provider.call("listjobs")
    assert caught.value.kind == "auth"
    assert "LOGIN" in caught.value.hint
    assert server.token_requests == server.requests == []


# Lifetime


@pytest.mark.driven_clock
@pytest.mark.parametrize("seconds", [600, 600.0, "600"])
async def test_token_is_replaced_a_minute_before_its_end(tmp_path: Path, seconds: Any) -> None:
    server = TokenServer()
    server.grant = granting(expires_in=seconds)
    async with calling(tmp_path, server) as provider:
        for delay in (0, 539, 2):
            await pass_time(delay)
            await provider.call("listjobs")
    assert sent_tokens(server) == ["1", "1", "2"]


@pytest.mark.driven_clock
async def test_token_with_a_short_lifetime_is_used_for_half_of_it(tmp_path: Path) -> None:
    server = TokenServer()
    server.grant = granting(expires_in=20)
    async with calling(tmp_path, server) as provider:
        for delay in (0, 9, 2):
            await pass_time(delay)
            await provider.call("listjobs")
    assert sent_tokens(server) == ["1", "1", "2"]


def jwt(**claims: Any) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "HS512"}, claims)]
    return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "c2lnbmF0dXJl"])


@pytest.mark.driven_clock
@pytest.mark.parametrize(
    ("token", "sent"),
    [
        pytest.param(jwt(exp=time.time() + 86_400), 2, id="exp"),
        pytest.param(jwt(exp=time.time() - 5), 1, id="exp in the past"),
        pytest.param(jwt(exp="soon"), 1, id="exp is text"),
        pytest.param(jwt(exp=True), 1, id="exp is true"),
        pytest.param(jwt(sub="1"), 1, id="no exp"),
        pytest.param("a.W10.c", 1, id="claims are a list"),
        pytest.param("a.////.c", 1, id="claims are no JSON"),
        pytest.param("a.b.c", 1, id="claims are no base64"),
        pytest.param("opaque-token", 1, id="no JWT"),
    ],
)
async def test_lifetime_is_that_of_the_jwt_or_until_a_401(tmp_path: Path, token: str, sent: int) -> None:
    server = TokenServer()
    server.valid.add(token)
    server.grant = lambda _: httpx.Response(201, json={"access_token": token})
    async with calling(tmp_path, server, AIRFLOW) as provider:
        for delay in (0, 80_000, 90_000):
            await pass_time(delay)
            await provider.call("listjobs")
    assert len(server.token_requests) == sent


@pytest.mark.driven_clock
@pytest.mark.parametrize("seconds", [0, -1, None, True, "", "NaN", "inf", 10**400, [600], {}], ids=repr)
async def test_unusable_lifetime_is_until_a_401(tmp_path: Path, seconds: Any) -> None:
    server = TokenServer()
    server.grant = granting(expires_in=seconds)
    async with calling(tmp_path, server) as provider:
        for delay in (0, 1_000_000):
            await pass_time(delay)
            await provider.call("listjobs")
    assert sent_tokens(server) == ["1", "1"]


# Renewal


@pytest.mark.parametrize(
    ("authentication", "status", "calls"), [(CLIENT, 401, 2), (AIRFLOW, 401, 2), (AIRFLOW, 403, 2)]
)
async def test_new_token_is_fetched_once_after_a_refusal(
    tmp_path: Path, authentication: Json, status: int, calls: int
) -> None:
    server = TokenServer()
    server.refusal = httpx.Response(status, json={"detail": "Invalid JWT token"})
    async with calling(tmp_path, server, authentication) as provider:
        await provider.call("listjobs")
        server.valid.clear()
        await provider.call("createjob", body={"x": 1})
    assert sent_tokens(server) == ["1", "1", "2"]
    assert [request.content for request in server.requests[1:]] == [b'{"x":1}'] * 2


@pytest.mark.parametrize("status", [401, 403])
async def test_second_refusal_is_the_error(tmp_path: Path, status: int) -> None:
    server = TokenServer()
    server.respond = lambda _: httpx.Response(status, json={"detail": "Forbidden"})
    async with calling(tmp_path, server, AIRFLOW) as provider:
        with pytest.raises(ProviderError) as caught:
            await provider.call("listjobs")
    assert (caught.value.kind, caught.value.status) == ("auth", status)
    assert f"Check {NAMES} in the server's environment" in caught.value.hint
    assert sent_tokens(server) == ["1", "2"]


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_other_status_codes_do_not_replace_the_token(tmp_path: Path, status: int) -> None:
    server = TokenServer()
    server.respond = lambda _: httpx.Response(status)
    async with calling(tmp_path, server) as provider:
        with pytest.raises(ProviderError):
            await provider.call("createjob", body={})
    assert sent_tokens(server) == ["1"]


async def test_stream_is_opened_with_a_new_token_after_a_refusal(tmp_path: Path) -> None:
    server = TokenServer()
    server.respond = lambda _: httpx.Response(200, text="data: one\n\n", headers={"Content-Type": "text/event-stream"})
    operations = {**OPERATIONS, "followjobs": {"method": "GET", "path": "/teams/{team}/events"}}
    settings = Settings(environment=ENVIRONMENT)
    declared = {"authentication": CLIENT, "operations": {"followjobs": {"accept": "text/event-stream"}}}
    async with acme(tmp_path, server, operations=operations, consumed=declared, settings=settings) as provider:
        operation = provider.gateway.tools["acme-followjobs"].operation
        for _ in range(2):
            async with provider.gateway.client.open_stream(operation, {"team": "t"}) as stream:
                assert [event.data async for event in stream] == ["one"]
            server.valid.clear()
    assert sent_tokens(server) == ["1", "1", "2"]


async def test_token_is_not_sent_to_the_address_of_a_redirect(tmp_path: Path) -> None:
    server = TokenServer()
    redirected: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.host == "files.example":
            redirected.append(request)
            return httpx.Response(200, json={"jobs": []})
        return server(request)

    server.respond = lambda _: httpx.Response(302, headers={"Location": "https://files.example/1"})
    settings = Settings(environment=ENVIRONMENT)
    declared = {"authentication": CLIENT, "operations": {"listjobs": {"follow_redirect": True}}}
    async with acme(tmp_path, respond, consumed=declared, settings=settings) as provider:
        await provider.call("listjobs")
    assert [request.headers.get("Authorization") for request in redirected] == [None]
    assert sent_tokens(server) == ["1"]


# Concurrency


async def call_concurrently(provider: Acme, count: int) -> list[CallError | None]:
    outcomes: list[CallError | None] = []

    async def call() -> None:
        try:
            await provider.call("listjobs")
        except CallError as exc:
            outcomes.append(exc)
        else:
            outcomes.append(None)

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(call)
    return outcomes


async def test_one_request_fetches_the_token_of_all_waiting_calls(tmp_path: Path) -> None:
    server = TokenServer()
    async with server.listen() as url:
        settings = Settings(environment={**ENVIRONMENT, "ACME_BASE_URL": url})
        async with acme(tmp_path, None, consumed={"authentication": CLIENT}, settings=settings) as provider:
            assert await call_concurrently(provider, 10) == [None] * 10
            server.valid.clear()
            assert await call_concurrently(provider, 10) == [None] * 10
    assert len(server.token_requests) == 2


async def test_one_refusal_is_the_outcome_of_all_waiting_calls(tmp_path: Path) -> None:
    server = TokenServer()
    server.grant = lambda _: httpx.Response(401, json={"detail": "Invalid credentials"})
    async with server.listen() as url:
        settings = Settings(environment={**ENVIRONMENT, "ACME_BASE_URL": url})
        async with acme(tmp_path, None, consumed={"authentication": CLIENT}, settings=settings) as provider:
            outcomes = await call_concurrently(provider, 10)
            assert {outcome and outcome.kind for outcome in outcomes} == {"auth"}
            assert len(server.token_requests) == 1  # ten wrong passwords could lock the account
            with pytest.raises(CallError):
                await provider.call("listjobs")
    assert len(server.token_requests) == 2


async def test_cancelled_call_leaves_the_token_to_the_next_one(tmp_path: Path) -> None:
    server = TokenServer()
    asked = anyio.Event()
    hangs = True

    class Hanging(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if hangs:
                asked.set()
                await anyio.sleep_forever()
            return server(request)

    async with calling(tmp_path, server) as provider:
        provider.gateway.client._transport = Hanging()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_concurrently, provider, 1)
            await asked.wait()
            tasks.cancel_scope.cancel()
        hangs = False
        await provider.call("listjobs")
    assert sent_tokens(server) == ["1"]


# Errors


@pytest.mark.parametrize(
    ("response", "kind", "message"),
    [
        (httpx.Response(401, json={"detail": "Invalid credentials"}), "auth", 'returned 401: "Invalid credentials"'),
        (
            httpx.Response(400, json={"error": "invalid_client", "error_description": "No such client."}),
            "auth",
            'returned 400: "invalid_client - No such client."',
        ),
        (httpx.Response(404, text="not found"), "auth", 'returned 404: "not found"'),
        (httpx.Response(403), "auth", "returned 403"),
        (
            httpx.Response(302, headers={"Location": "https://evil.example/?t=1"}),
            "auth",
            "returned 302: a redirect, which is not followed",
        ),
        (httpx.Response(200, json={"token": "x"}), "auth", "returned 200 without a token that can be sent"),
        (httpx.Response(200, json=[]), "auth", "returned 200 without a token that can be sent"),
        (httpx.Response(200, text="<html>"), "auth", "returned 200 without a token that can be sent"),
        (httpx.Response(200, json={"access_token": ""}), "auth", "returned 200 without a token that can be sent"),
        (
            httpx.Response(200, json={"access_token": "a\r\nX: 1"}),
            "auth",
            "returned 200 without a token that can be sent",
        ),
        (httpx.Response(200, json={"access_token": 5}), "auth", "returned 200 without a token that can be sent"),
        (httpx.Response(501), "unsupported", "returned 501"),
    ],
    ids=repr,
)
async def test_error_of_the_token_endpoint_names_the_variables(
    tmp_path: Path, response: httpx.Response, kind: str, message: str
) -> None:
    server = TokenServer()
    server.grant = lambda _: response
    async with calling(tmp_path, server) as provider:
        with pytest.raises(UpstreamError) as caught:
            await provider.call("createjob", body={})
    failure = caught.value
    assert failure.message == f"the token endpoint of acme {message}"
    assert failure.hint == f"Nothing was sent to the provider itself. Check {NAMES} in the server's environment."
    assert (failure.kind, failure.status, failure.retryable, failure.outcome_unknown) == (kind, None, False, False)
    assert server.requests == []
    assert len(server.token_requests) == 1


async def test_large_response_of_the_token_endpoint_is_refused(tmp_path: Path) -> None:
    server = TokenServer()
    server.grant = granting(more="x" * 1_000_000)
    async with calling(tmp_path, server) as provider:
        with pytest.raises(UpstreamError, match="sent more than a token") as caught:
            await provider.call("listjobs")
    assert caught.value.kind == "auth"


@pytest.mark.driven_clock
@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_brief_error_of_the_token_endpoint_is_retried_also_for_a_write(tmp_path: Path, status: int) -> None:
    server = TokenServer()
    refusals = [httpx.Response(status, headers={"Retry-After": "1"})]
    server.grant = lambda token: refusals.pop() if refusals else granting()(token)
    async with calling(tmp_path, server) as provider, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: provider.call("createjob", body={}))
        await pass_time(60)
    assert sent_tokens(server) == ["2"]


@pytest.mark.driven_clock
async def test_unreachable_token_endpoint_changes_nothing(tmp_path: Path) -> None:
    server = TokenServer()

    def fail(_: str) -> httpx.Response:
        raise httpx.ReadError("reset")

    server.grant = fail
    failures: list[CallError] = []

    async with calling(tmp_path, server) as provider, anyio.create_task_group() as tasks:

        async def call() -> None:
            with pytest.raises(UpstreamError) as caught:
                await provider.call("createjob", body={})
            failures.append(caught.value)

        tasks.start_soon(call)
        await pass_time(60)
    (failure,) = failures
    assert failure.message.startswith("the connection to the token endpoint of acme was lost")
    assert (failure.kind, failure.outcome_unknown) == ("unavailable", False)
    assert failure.hint == "Nothing was sent to the provider itself: try again."
    assert len(server.token_requests) == 4


@pytest.mark.driven_clock
async def test_silent_token_endpoint_is_a_timeout(tmp_path: Path) -> None:
    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await anyio.sleep_forever()
            raise AssertionError

    failures: list[CallError] = []
    async with calling(tmp_path, TokenServer()) as provider, anyio.create_task_group() as tasks:
        provider.gateway.client._transport = Silent()

        async def call() -> None:
            with pytest.raises(UpstreamError) as caught:
                await provider.call("createjob", body={})
            failures.append(caught.value)

        tasks.start_soon(call)
        await pass_time(120)
    (failure,) = failures
    assert failure.message == "the token endpoint of acme did not respond within 60 s"
    assert (failure.kind, failure.outcome_unknown) == ("timeout", False)


@pytest.mark.parametrize("missing", [("ACME_CLIENT_ID",), ("ACME_CLIENT_SECRET",), tuple(ENVIRONMENT)])
@pytest.mark.parametrize("authentication", [CLIENT, AIRFLOW], ids=["form", "json"])
async def test_missing_credential_names_all_variables(
    tmp_path: Path, authentication: Json, missing: tuple[str, ...]
) -> None:
    server = TokenServer()
    async with calling(tmp_path, server, authentication, **dict.fromkeys(missing, "")) as provider:
        with pytest.raises(NotConfigured) as caught:
            await provider.call("listjobs")
    assert caught.value.kind == "auth"
    assert caught.value.hint == f"Set {NAMES} in the server's environment and restart the server."
    assert server.token_requests == []


# Redaction


def planted(server: TokenServer) -> list[str]:
    """Return the secrets in the forms in which they are sent."""
    requests = [*server.token_requests, *server.requests]
    sent = {
        request.headers["Authorization"].split(" ")[1] for request in requests if "Authorization" in request.headers
    }
    return [ID, SECRET, *sent]


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("authentication", [CLIENT, AIRFLOW], ids=["form", "json"])
async def test_secrets_are_redacted_in_results_errors_and_logs(
    tmp_path: Path, authentication: Json, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = TokenServer()
    # It shows what it knows, the tokens that it has replaced, too.
    server.respond = lambda _: httpx.Response(
        status, json={"message": " ".join(planted(server)), "token": sorted(server.valid)}
    )
    async with calling(tmp_path, server, authentication) as provider:
        await _show(provider)
        server.valid.clear()
        shown = await _show(provider)
    shown += caplog.text
    assert len(server.token_requests) == 2
    for secret in planted(server):
        # The name of a user is no secret: it may be a word such as the provider's name.
        assert (secret in shown) == (secret == ID and authentication == AIRFLOW)


async def _show(provider: Acme) -> str:
    try:
        return (await provider.call("listjobs")).result.text
    except ProviderError as exc:
        return f"{exc.to_line()} {exc.to_json()} {exc!r}"


async def test_secrets_are_redacted_in_errors_of_the_token_endpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = TokenServer()
    server.grant = lambda _: httpx.Response(400, json={"detail": " ".join(planted(server))})
    async with calling(tmp_path, server) as provider:
        with pytest.raises(UpstreamError) as caught:
            await provider.call("listjobs")
    shown = f"{caught.value.to_line()} {caught.value!r} {caplog.text}"
    assert "[secret]" in shown
    for secret in planted(server):
        assert secret not in shown


async def test_repr_shows_no_secret(tmp_path: Path) -> None:
    server = TokenServer()
    async with calling(tmp_path, server, {**CLIENT, "clientAuthentication": "client_secret_post"}) as provider:
        await provider.call("listjobs")
        operation = provider.gateway.tools["acme-listjobs"].operation
        request = build_request(operation, {"team": "t"}, provider.gateway.client.settings.environment)
        shown = f"{request!r} {request.token!r} {provider.gateway.client.redactor!r}"
    for secret in planted(server):
        assert secret not in shown
