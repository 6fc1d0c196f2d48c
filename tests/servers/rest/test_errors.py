"""Errors of the REST API as problem details (RFC 9457)."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, get_args

import anyio
import httpx
import pytest
from mcp.client import Client
from starlette.responses import JSONResponse, Response

from mcp_taskruns.engine import retries
from mcp_taskruns.errors import CallError, Kind
from mcp_taskruns.servers.mcp.server import build_server
from mcp_taskruns.servers.rest.problems import STATUSES
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.calls import INNGEST_COMPLETED, RENDER_COMPLETED, RENDER_RUNNING, TASK
from tests.servers.rest.driver import KEY, Provider, acme, problem, served, streaming

pytestmark = pytest.mark.anyio

UNUSED_ORIGIN = "http://127.0.0.1:9"
"""The discard port, on which nothing listens."""


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without a delay."""
    monkeypatch.setattr(retries, "backoff", lambda *_: 0.0)


@pytest.mark.parametrize(
    ("returned", "status", "kind"),
    [
        (302, 501, "unsupported"),
        (400, 400, "validation"),
        (401, 403, "auth"),
        (402, 402, "usage_limit"),
        (403, 403, "auth"),
        (404, 404, "not_found"),
        (408, 408, "timeout"),
        (409, 409, "conflict"),
        (410, 410, "not_found"),
        (418, 418, "validation"),
        (422, 422, "validation"),
        (429, 429, "rate_limited"),
        (500, 502, "unavailable"),
        (502, 502, "unavailable"),
        (503, 502, "unavailable"),
        (504, 504, "timeout"),
    ],
)
async def test_provider_error_has_its_status_or_that_of_its_kind(returned: int, status: int, kind: str) -> None:
    provider = Provider(JSONResponse({"error": "no such luck"}, returned))
    async with acme(provider) as side:
        response = await side.client.put("/v1/things/a", json={})
    details = problem(response)
    assert (details["status"], details["kind"]) == (status, kind)
    assert f"returned {returned}" in details["detail"]
    assert details.get("provider_status", status) == returned
    assert ("provider_status" in details) == (status != returned)
    assert isinstance(details["retryable"], bool)


async def test_provider_401_is_never_passed_on_as_401() -> None:
    # An overlay maps 401 of this operation to not_found.
    async with acme(Provider(JSONResponse({"error": "no"}, 401))) as side:
        details = problem(await side.client.get("/v1/things/special"))
    assert details["kind"] == "not_found"
    assert details["status"] == 404
    assert details["provider_status"] == 401


async def test_retry_after_is_in_the_body_and_in_a_header() -> None:
    provider = Provider(JSONResponse({"error": "slow down"}, 429, {"Retry-After": "7"}))
    async with acme(provider) as side:
        response = await side.client.put("/v1/things/a", json={})
    details = problem(response)
    assert response.headers["retry-after"] == "7"
    assert (details["retry_after_s"], details["retryable"]) == (7, True)
    assert details["hint"] == "Wait before the next call to this provider."


async def test_no_retry_after_header_without_a_delay() -> None:
    async with acme(Provider(JSONResponse({"error": "slow down"}, 429))) as side:
        response = await side.client.put("/v1/things/a", json={})
    assert problem(response)["kind"] == "rate_limited"
    assert "retry-after" not in response.headers
    assert "retry_after_s" not in response.json()


async def test_retry_after_header_is_at_least_one_second() -> None:
    async with acme(Provider(JSONResponse({"error": "slow down"}, 429, {"Retry-After": "0.2"}))) as side:
        response = await side.client.put("/v1/things/a", json={})
    assert response.headers.get("retry-after", "1") == "1"


async def test_problem_has_the_fields_of_the_mcp_tool_error(simulator: Simulator, environment: dict[str, str]) -> None:
    async with served(environment) as side, Client(build_server(side.gateway), mode="auto") as client:
        details = problem(await side.client.get("/v1/task-runs/trn-none"))
        result = await client.call_tool("render-retrieve-task-run", {"taskRunId": "trn-none"})
    error = json.loads(result.content[0].text.rpartition("\n")[2])  # type: ignore[union-attr]  # it is text
    assert details == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": error["message"],
        "kind": error["kind"],
        "hint": error["hint"],
        "retryable": error["retryable"],
    }
    assert len(simulator.requests) == 2


async def test_inngest_500_for_an_unknown_run_is_404(environment: dict[str, str]) -> None:
    async with served(environment) as side:
        details = problem(await side.client.get("/v1/v1/runs/01JZDEM0RVN000000000000009"))
    assert (details["status"], details["kind"], details["provider_status"]) == (404, "not_found", 500)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (f"/v1/task-runs/{RENDER_COMPLETED}", ["RENDER_API_KEY"]),
        (f"/v1/task-runs/events?taskRunIds={RENDER_COMPLETED}", ["RENDER_API_KEY"]),
        (f"/v1/v1/runs/{INNGEST_COMPLETED}", ["INNGEST_SIGNING_KEY"]),
        (f"/v1/api/projects/1/tasks/{TASK}/runs", ["POSTHOG_API_KEY"]),
        ("/runway/v1/tasks/27f20503-6c24-4c16-946b-35dbbce2af2f", ["RUNWAYML_API_SECRET"]),
    ],
)
async def test_missing_credential_names_the_variable_and_sends_nothing(
    path: str, names: list[str], simulator: Simulator, environment: dict[str, str]
) -> None:
    addresses = {name: value for name, value in environment.items() if name.endswith("_BASE_URL")}
    async with served(addresses) as side:
        details = problem(await side.client.get(path))
    assert (details["status"], details["kind"], details["retryable"]) == (403, "auth", False)
    assert any(name in f"{details['detail']} {details['hint']}" for name in names)
    assert simulator.requests == []


async def test_invalid_credential_of_the_server_is_403(simulator: Simulator, environment: dict[str, str]) -> None:
    async with served(environment | {"RENDER_API_KEY": "rnd_wrong_key_of_the_server"}) as side:
        response = await side.client.get(f"/v1/task-runs/{RENDER_COMPLETED}")
    details = problem(response)
    assert (details["status"], details["kind"], details["provider_status"]) == (403, "auth", 401)
    assert "www-authenticate" not in response.headers
    assert len(simulator.requests) == 1


async def test_missing_base_uri_is_503() -> None:
    async with acme(Provider(), environment={"ACME_URL": ""}) as side:
        details = problem(await side.client.get("/v1/things"))
    assert (details["status"], details["kind"]) == (503, "config")
    assert "ACME_" in details["detail"] + details["hint"]


@pytest.mark.parametrize("path", ["/v1/things", "/v1/events"])
async def test_unreachable_provider_is_503(path: str) -> None:
    async with acme(Provider(), environment={"ACME_URL": UNUSED_ORIGIN}) as side:
        details = problem(await side.client.get(path))
    assert (details["status"], details["kind"], details["retryable"]) == (503, "unavailable", True)
    assert "127.0.0.1:9 refused the connection" in details["detail"]


async def test_provider_timeout_is_504() -> None:
    async def never(*_: Any) -> None:
        await anyio.sleep_forever()

    async with acme(Provider(never), timeout=0.2) as side:
        details = problem(await side.client.get("/v1/things"))
    assert (details["status"], details["kind"]) == (504, "timeout")


async def test_unsupported_operation_is_501() -> None:
    provider = Provider()
    async with acme(provider) as side:
        details = problem(await side.client.get("/v1/odd", params={"lost": "1"}))
    assert (details["status"], details["kind"]) == (501, "unsupported")
    assert provider.received == []


async def test_unexpected_exception_is_500_with_details_in_the_log_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with acme(Provider()) as side:

        @asynccontextmanager
        async def failing(*_: Any) -> AsyncIterator[None]:
            raise ZeroDivisionError("inner workings")
            yield

        side.gateway.open_tool = failing  # type: ignore[method-assign,assignment]  # simulates a bug
        details = problem(await side.client.get("/v1/things"))
    assert details["status"] == 500
    assert "inner workings" not in json.dumps(details)
    assert details["detail"] == "internal error of the REST server; details are in its log"
    (record,) = caplog.records
    assert record.getMessage() == "call failed route=acme-list-things"
    assert record.exc_info is not None


ECHOES = {
    "json": JSONResponse({"key": KEY, "in": {KEY: [f"Bearer {KEY}"]}}),
    "text": Response(f"your key is {KEY}", media_type="text/plain"),
    "file": Response(f"\x00{KEY}\x00", media_type="application/octet-stream"),
    "type": Response(b"\xff", headers={"Content-Type": f"application/{KEY}"}),
    "error": JSONResponse({"error": f"wrong key {KEY}"}, 400),
    "refusal": JSONResponse({"error": f"wrong key {KEY}"}, 401, {"Retry-After": KEY, "X-Key": KEY}),
    "page": Response(f"<html>{KEY}</html>", 503, media_type="text/html"),
    "redirect": Response(b"", 302, {"Location": f"/{KEY}"}),
    "broken": Response(f'{{"key": "{KEY}', media_type="application/json"),
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
async def test_echoed_credential_is_in_no_response_and_not_in_the_log(
    echo: Response, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with acme(Provider(echo)) as side:
        responses = [await side.client.get("/v1/things"), await side.client.put("/v1/things/a", json={})]
        log = "\n".join(caplog.messages)
    for response in responses:
        assert KEY not in response.text
        assert KEY not in str(response.headers.raw)
        assert KEY.encode() not in response.content
    assert KEY not in log


@pytest.mark.parametrize(
    "event",
    [
        f"data: {KEY}\n\n",
        f"event: {KEY}\ndata: 1\n\n",
        f'data: {{"key": "{KEY}"}}\n\n',
        f"data: a\ndata: {KEY}\n\n",
        f"id: {KEY}\ndata: 1\n\n",
        f": {KEY}\ndata: 1\n\n",
    ],
    ids=["data", "name", "json", "line", "id", "comment"],
)
async def test_echoed_credential_in_an_event_is_redacted(event: str) -> None:
    async with acme(Provider(streaming(event.encode(), end=True))) as side:
        response = await side.client.get("/v1/events")
    assert response.status_code == 200
    assert "data: " in response.text
    assert KEY not in response.text


async def test_credential_in_an_argument_is_redacted_in_the_error() -> None:
    async with acme(Provider()) as side:
        responses: list[httpx.Response] = [
            await side.client.get("/v1/things", params={KEY: "1"}),
            await side.client.get("/v1/things", params={"limit": KEY}),
        ]
    for response in responses:
        assert problem(response)["status"] == 400
        assert KEY not in response.text


async def test_credential_in_an_error_message_is_redacted() -> None:
    async with acme(Provider()) as side:

        @asynccontextmanager
        async def failing(*_: Any) -> AsyncIterator[None]:
            raise CallError(f"{KEY} is wrong", hint=f'Do not pass "{KEY}".')
            yield

        side.gateway.open_tool = failing  # type: ignore[method-assign,assignment]  # simulates an error
        details = problem(await side.client.get("/v1/things"))
    assert KEY not in json.dumps(details)
    assert details["hint"].startswith('Do not pass "')


async def test_cancelling_a_run_that_cannot_be_cancelled_is_409(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault())
    body = json.dumps({"message": f"task run {RENDER_RUNNING} is a subtask; cancel its root trn-1 instead"})
    simulator.fail_next("render", Fault(500, {"Content-Type": "application/json"}, body))
    async with served(environment) as side:
        details = problem(await side.client.delete(f"/v1/task-runs/{RENDER_RUNNING}"))
    assert (details["status"], details["kind"], details["provider_status"]) == (409, "conflict", 500)


def test_every_kind_has_a_status_other_than_401() -> None:
    assert set(STATUSES) == set(get_args(Kind))
    assert 401 not in STATUSES.values()
