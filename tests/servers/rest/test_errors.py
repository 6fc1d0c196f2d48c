"""What goes wrong is told as a problem of RFC 9457, with the kind, the hint and the times that the MCP side tells."""

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

NOBODY = "http://127.0.0.1:9"
"""The discard port: nothing listens there."""


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits before it is tried again."""
    monkeypatch.setattr(retries, "backoff", lambda *_: 0.0)


@pytest.mark.parametrize(
    ("answered", "status", "kind"),
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
async def test_an_error_of_the_provider_has_its_status_or_that_of_its_kind(
    answered: int, status: int, kind: str
) -> None:
    provider = Provider(JSONResponse({"error": "no such luck"}, answered))
    async with acme(provider) as side:
        answer = await side.client.put("/v1/things/a", json={})
    told = problem(answer)
    assert (told["status"], told["kind"]) == (status, kind)
    assert f"returned {answered}" in told["detail"]
    assert told.get("provider_status", status) == answered
    assert ("provider_status" in told) == (status != answered)
    assert isinstance(told["retryable"], bool)


async def test_401_is_about_the_clients_token_alone_whatever_a_capability_makes_of_it() -> None:
    # An overlay says that a 401 of this operation is about what it was asked.
    async with acme(Provider(JSONResponse({"error": "no"}, 401))) as side:
        told = problem(await side.client.get("/v1/things/special"))
    assert told["kind"] == "not_found"
    assert told["status"] == 404
    assert told["provider_status"] == 401


async def test_how_long_to_wait_is_told_in_the_body_and_as_a_header() -> None:
    provider = Provider(JSONResponse({"error": "slow down"}, 429, {"Retry-After": "7"}))
    async with acme(provider) as side:
        answer = await side.client.put("/v1/things/a", json={})
    told = problem(answer)
    assert answer.headers["retry-after"] == "7"
    assert (told["retry_after_s"], told["retryable"]) == (7, True)
    assert told["hint"] == "Wait before the next call to this provider."


async def test_without_a_time_there_is_no_header() -> None:
    async with acme(Provider(JSONResponse({"error": "slow down"}, 429))) as side:
        answer = await side.client.put("/v1/things/a", json={})
    assert problem(answer)["kind"] == "rate_limited"
    assert "retry-after" not in answer.headers
    assert "retry_after_s" not in answer.json()


async def test_a_time_below_a_second_is_told_as_one() -> None:
    async with acme(Provider(JSONResponse({"error": "slow down"}, 429, {"Retry-After": "0.2"}))) as side:
        answer = await side.client.put("/v1/things/a", json={})
    assert answer.headers.get("retry-after", "1") == "1"


async def test_a_problem_says_what_the_tool_error_of_the_mcp_side_says(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with served(environment) as side, Client(build_server(side.gateway), mode="auto") as client:
        told = problem(await side.client.get("/v1/task-runs/trn-none"))
        result = await client.call_tool("render-retrieve-task-run", {"taskRunId": "trn-none"})
    error = json.loads(result.content[0].text.rpartition("\n")[2])  # type: ignore[union-attr]  # it is text
    assert told == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": error["message"],
        "kind": error["kind"],
        "hint": error["hint"],
        "retryable": error["retryable"],
    }
    assert len(simulator.requests) == 2


async def test_a_500_of_inngests_that_means_not_found_is_404(environment: dict[str, str]) -> None:
    async with served(environment) as side:
        told = problem(await side.client.get("/v1/v1/runs/01JZDEM0RVN000000000000009"))
    assert (told["status"], told["kind"], told["provider_status"]) == (404, "not_found", 500)


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
async def test_without_a_key_the_problem_names_the_variable_and_nothing_is_sent(
    path: str, names: list[str], simulator: Simulator, environment: dict[str, str]
) -> None:
    addresses = {name: value for name, value in environment.items() if name.endswith("_BASE_URL")}
    async with served(addresses) as side:
        told = problem(await side.client.get(path))
    assert (told["status"], told["kind"], told["retryable"]) == (403, "auth", False)
    assert any(name in f"{told['detail']} {told['hint']}" for name in names)
    assert simulator.requests == []


async def test_a_wrong_key_of_the_server_is_no_401(simulator: Simulator, environment: dict[str, str]) -> None:
    async with served(environment | {"RENDER_API_KEY": "rnd_wrong_key_of_the_server"}) as side:
        answer = await side.client.get(f"/v1/task-runs/{RENDER_COMPLETED}")
    told = problem(answer)
    assert (told["status"], told["kind"], told["provider_status"]) == (403, "auth", 401)
    assert "www-authenticate" not in answer.headers
    assert len(simulator.requests) == 1


async def test_a_provider_without_an_address_is_503() -> None:
    async with acme(Provider(), environment={"ACME_URL": ""}) as side:
        told = problem(await side.client.get("/v1/things"))
    assert (told["status"], told["kind"]) == (503, "config")
    assert "ACME_" in told["detail"] + told["hint"]


@pytest.mark.parametrize("path", ["/v1/things", "/v1/events"])
async def test_a_provider_that_is_down_is_503(path: str) -> None:
    async with acme(Provider(), environment={"ACME_URL": NOBODY}) as side:
        told = problem(await side.client.get(path))
    assert (told["status"], told["kind"], told["retryable"]) == (503, "unavailable", True)
    assert "127.0.0.1:9 refused the connection" in told["detail"]


async def test_a_provider_that_is_too_slow_is_504() -> None:
    async def never(*_: Any) -> None:
        await anyio.sleep_forever()

    async with acme(Provider(never), timeout=0.2) as side:
        told = problem(await side.client.get("/v1/things"))
    assert (told["status"], told["kind"]) == (504, "timeout")


async def test_an_operation_that_cannot_be_called_is_501() -> None:
    provider = Provider()
    async with acme(provider) as side:
        told = problem(await side.client.get("/v1/odd", params={"lost": "1"}))
    assert (told["status"], told["kind"]) == (501, "unsupported")
    assert provider.received == []


async def test_a_failure_of_the_server_itself_is_500_and_only_its_log_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with acme(Provider()) as side:

        @asynccontextmanager
        async def failing(*_: Any) -> AsyncIterator[None]:
            raise ZeroDivisionError("inner workings")
            yield

        side.gateway.open_tool = failing  # type: ignore[method-assign,assignment]  # a bug that nobody knows
        told = problem(await side.client.get("/v1/things"))
    assert told["status"] == 500
    assert "inner workings" not in json.dumps(told)
    assert told["detail"] == "internal error of the REST server; details are in its log"
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
async def test_a_key_that_the_provider_echoes_is_in_no_answer_and_not_in_the_log(
    echo: Response, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with acme(Provider(echo)) as side:
        answers = [await side.client.get("/v1/things"), await side.client.put("/v1/things/a", json={})]
        log = "\n".join(caplog.messages)
    for answer in answers:
        assert KEY not in answer.text
        assert KEY not in str(answer.headers.raw)
        assert KEY.encode() not in answer.content
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
async def test_a_key_that_is_echoed_in_an_event_is_not_passed_on(event: str) -> None:
    async with acme(Provider(streaming(event.encode(), end=True))) as side:
        answer = await side.client.get("/v1/events")
    assert answer.status_code == 200
    assert "data: " in answer.text
    assert KEY not in answer.text


async def test_a_key_in_an_argument_is_not_in_the_answer_that_repeats_it() -> None:
    async with acme(Provider()) as side:
        answers: list[httpx.Response] = [
            await side.client.get("/v1/things", params={KEY: "1"}),
            await side.client.get("/v1/things", params={"limit": KEY}),
        ]
    for answer in answers:
        assert problem(answer)["status"] == 400
        assert KEY not in answer.text


async def test_a_key_in_what_an_error_says_is_not_in_the_problem() -> None:
    async with acme(Provider()) as side:

        @asynccontextmanager
        async def failing(*_: Any) -> AsyncIterator[None]:
            raise CallError(f"{KEY} is wrong", hint=f'Do not pass "{KEY}".')
            yield

        side.gateway.open_tool = failing  # type: ignore[method-assign,assignment]  # an error that no provider has seen
        told = problem(await side.client.get("/v1/things"))
    assert KEY not in json.dumps(told)
    assert told["hint"].startswith('Do not pass "')


async def test_a_run_that_cannot_be_cancelled_is_a_conflict_and_no_error_of_the_server(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault())
    body = json.dumps({"message": f"task run {RENDER_RUNNING} is a subtask; cancel its root trn-1 instead"})
    simulator.fail_next("render", Fault(500, {"Content-Type": "application/json"}, body))
    async with served(environment) as side:
        told = problem(await side.client.delete(f"/v1/task-runs/{RENDER_RUNNING}"))
    assert (told["status"], told["kind"], told["provider_status"]) == (409, "conflict", 500)


def test_each_kind_of_error_has_a_status_and_none_has_401() -> None:
    assert set(STATUSES) == set(get_args(Kind))
    assert 401 not in STATUSES.values()
