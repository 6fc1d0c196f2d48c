"""Event streams over REST: forwarding, keep-alive, resuming and closing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import ByteStream
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Send

from mcp_taskruns.engine import retries
from mcp_taskruns.servers.rest import responses
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from mcp_taskruns.simulator.lifecycle import ManualClock
from tests.calls import (
    POSTHOG_COMPLETED,
    POSTHOG_NOT_STARTED,
    RENDER_COMPLETED,
    RENDER_FAILED,
    RENDER_RUNNING,
    TASK,
    outside,
)
from tests.servers.rest.driver import PROBLEM, Provider, Side, acme, events_in, problem, send_stream, served, streaming
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

EVENTS = "/v1/events"
RENDER = "/v1/task-runs/events"
POSTHOG = f"/v1/api/projects/1/tasks/{TASK}/runs"


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without a delay."""
    monkeypatch.setattr(retries, "backoff", lambda *_: 0.0)
    monkeypatch.setattr("mcp_taskruns.engine.runs.reconnect.backoff", lambda *_: 0.0)


class Reader:
    """Read a stream in parts."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.text = ""
        self._parts = response.aiter_text()

    async def until(self, wanted: str) -> str:
        """Read until the text contains this; return all text so far."""
        with anyio.fail_after(PATIENCE):
            while wanted not in self.text:
                self.text += await anext(self._parts)
        return self.text

    async def rest(self) -> str:
        """Read until the end of the stream; return all text."""
        with anyio.fail_after(PATIENCE):
            async for part in self._parts:
                self.text += part
        return self.text


@asynccontextmanager
async def reading(side: Side, path: str, method: str = "GET", **more: Any) -> AsyncIterator[Reader]:
    with anyio.fail_after(PATIENCE):
        async with side.client.stream(method, path, **more) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"] == "text/event-stream"
            yield Reader(response)


async def test_events_are_forwarded_immediately() -> None:
    go_on = anyio.Event()

    async def response(_: Request, send: Send) -> None:
        await send_stream(send, [b"data: 1\n\n"], is_open=True)
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"data: 2\n\n"})

    async with acme(Provider(response)) as side, reading(side, EVENTS) as reader:
        assert events_in(await reader.until("data: 1\n\n"))[-1].data == "1"
        go_on.set()
        assert [event.data for event in events_in(await reader.rest())] == ["1", "2"]
        assert reader.response.headers["cache-control"] == "no-store"
        assert reader.response.headers["x-accel-buffering"] == "no"


async def test_event_fields_are_preserved() -> None:
    sent = (
        "id: 7\nevent: thing\nretry: 2500\ndata: one\ndata: two\n\n"
        "id\ndata: no id any more\n\n"
        ": a comment\n\n"
        "event: message\ndata:  a space, naïve\n\n"
    )
    async with acme(Provider(streaming(sent.encode(), end=True))) as side, reading(side, EVENTS) as reader:
        text = await reader.rest()
    assert text == (
        "event: thing\nid: 7\nretry: 2500\ndata: one\ndata: two\n\n"
        "id: \ndata: no id any more\n\n"
        "data:  a space, naïve\n\n"
    )


async def test_render_stream_continues_until_the_runs_are_terminal(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    clock = simulator.clock
    assert isinstance(clock, ManualClock)
    query = {"taskRunIds": [RENDER_FAILED, RENDER_RUNNING]}
    async with served(environment) as side, reading(side, RENDER, params=query) as reader:
        await reader.until(f'"id":"{RENDER_FAILED}"')
        assert RENDER_RUNNING not in reader.text
        clock.advance(600)
        events = events_in(await reader.rest())
    assert [(event.event, event.id) for event in events] == [("task.completed", "0")] * 2
    assert f'"id":"{RENDER_RUNNING}"' in events[1].data


async def test_posthog_stream_resumes_after_last_event_id(simulator: Simulator, environment: dict[str, str]) -> None:
    path = f"{POSTHOG}/{POSTHOG_COMPLETED}/stream"
    async with served(environment) as side:
        async with reading(side, path) as reader:
            everything = events_in(await reader.rest())
        last = everything[4].id
        async with reading(side, path, headers={"Last-Event-ID": last}) as reader:
            after = events_in(await reader.rest())
    assert len(everything) > 10
    assert after == everything[5:]
    ids = [dict(request.headers).get("last-event-id") for request in simulator.requests]
    assert ids == [None, last]


@pytest.mark.parametrize("last", ["7", "a-b", "é", "with space"])
async def test_last_event_id_is_forwarded(last: str) -> None:
    provider = Provider(streaming(b"data: 1\n\n", end=True))
    async with acme(provider) as side, reading(side, EVENTS, headers={"Last-Event-ID": last.encode()}) as reader:
        await reader.rest()
    assert provider.last.headers.get("last-event-id") == (last if last.isascii() else None)


async def test_no_last_event_id_by_default() -> None:
    provider = Provider(streaming(b"data: 1\n\n", end=True))
    async with acme(provider) as side, reading(side, EVENTS) as reader:
        await reader.rest()
    assert "last-event-id" not in provider.last.headers


def cut_once(first: bytes, then: bytes) -> Any:
    """Return a response that drops the first connection after some bytes and completes the next one."""
    calls: list[Request] = []

    async def response(request: Request, send: Send) -> None:
        calls.append(request)
        if len(calls) == 1:
            # The response is incomplete when the app returns, so the server drops the connection.
            await send_stream(send, [first], is_open=True)
        else:
            await send_stream(send, [then], is_open=False)

    return response


async def test_dropped_connection_is_resumed_after_the_last_event() -> None:
    provider = Provider(cut_once(b"id: 1\ndata: 1\n\n", b"id: 2\ndata: 2\n\n"))
    async with acme(provider) as side, reading(side, EVENTS) as reader:
        events = events_in(await reader.rest())
    assert [event.data for event in events] == ["1", "2"]
    assert [request.headers.get("last-event-id") for request in provider.received] == [None, "1"]


async def test_connection_dropped_before_any_event_resumes_from_last_event_id() -> None:
    provider = Provider(cut_once(b": nothing yet\n\n", b"id: 8\ndata: 8\n\n"))
    async with acme(provider) as side, reading(side, EVENTS, headers={"Last-Event-ID": "7"}) as reader:
        events = events_in(await reader.rest())
    assert [event.data for event in events] == ["8"]
    assert [request.headers.get("last-event-id") for request in provider.received] == ["7", "7"]


async def test_silent_stream_gets_keep_alive_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "KEEP_ALIVE_SECONDS", 0.05)
    async with acme(Provider(streaming(b"data: 1\n\n"))) as side, reading(side, EVENTS) as reader:
        began = anyio.current_time()
        text = await reader.until(": keep-alive\n\n" * 4)
        took = anyio.current_time() - began
    assert took > 3 * 0.05, "each only after a silence"
    assert text.startswith("data: 1\n\n: keep-alive\n\n")
    assert [event.data for event in events_in(text)] == ["1"]


async def test_stream_without_events_gets_keep_alive_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "KEEP_ALIVE_SECONDS", 0.05)
    async with acme(Provider(streaming())) as side, reading(side, EVENTS) as reader:
        assert (await reader.until(": keep-alive\n\n")).startswith(": keep-alive\n\n")


async def test_comments_of_the_provider_are_not_forwarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "KEEP_ALIVE_SECONDS", 0.05)
    async with acme(Provider(streaming(b": ping\n\n"))) as side, reading(side, EVENTS) as reader:
        assert "ping" not in await reader.until(": keep-alive\n\n")


async def test_disconnecting_closes_the_provider_stream() -> None:
    provider = Provider(streaming(b"data: 1\n\n"))
    async with acme(provider) as side:
        async with reading(side, EVENTS) as reader:
            await reader.until("data: 1\n\n")
            assert not provider.disconnected.is_set()
        with anyio.fail_after(PATIENCE):
            await provider.disconnected.wait()


async def test_disconnecting_from_a_silent_stream_closes_the_render_stream(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with served(environment) as side:
        async with reading(side, RENDER, params={"taskRunIds": [RENDER_RUNNING]}):
            request = await simulator.wait_for_request(lambda request: "events" in request.path)
            assert not request.disconnected.is_set()
        with anyio.fail_after(PATIENCE):
            await request.disconnected.wait()


async def test_disconnecting_before_the_response_cancels_the_request() -> None:
    requested = anyio.Event()

    async def never(_: Request, __: Send) -> None:
        requested.set()
        await anyio.sleep_forever()

    provider = Provider(never)
    async with acme(provider) as side:
        host, port = side.origin.removeprefix("http://").split(":")
        stream: ByteStream
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(f"GET {EVENTS} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            with anyio.fail_after(PATIENCE):
                await requested.wait()
        with anyio.fail_after(PATIENCE):
            await provider.disconnected.wait()


async def test_wait_seconds_limits_a_stream() -> None:
    provider = Provider(streaming(b"data: 1\n\n"))
    async with acme(provider) as side:
        async with reading(side, EVENTS, params={"wait_seconds": "0.2"}) as reader:
            text = await reader.rest()
        with anyio.fail_after(PATIENCE):
            await provider.disconnected.wait()
    assert text == "data: 1\n\n"
    assert provider.last.target == "/events"


async def test_max_wait_seconds_limits_a_stream() -> None:
    provider = Provider(streaming(b"data: 1\n\n"))
    async with (
        acme(provider, max_wait_seconds=0.2) as side,
        reading(side, EVENTS, params={"wait_seconds": "30"}) as reader,
    ):
        text = await reader.rest()
    assert text == "data: 1\n\n"


@pytest.mark.parametrize("seconds", ["-1", "soon", "NaN", "Infinity", "true"])
async def test_invalid_wait_seconds_is_400_and_nothing_is_sent(seconds: str) -> None:
    provider = Provider(streaming(b"data: 1\n\n", end=True))
    async with acme(provider) as side:
        details = problem(await side.client.get(EVENTS, params={"wait_seconds": seconds}))
    assert (details["status"], details["kind"]) == (400, "validation")
    assert provider.received == []


@pytest.mark.parametrize(
    ("upstream", "status", "kind"),
    [
        (JSONResponse({"error": "no such topic"}, 404), 404, "not_found"),
        (JSONResponse({"error": "who are you"}, 401), 403, "auth"),
        (JSONResponse({"error": "slow down"}, 429, {"Retry-After": "9"}), 429, "rate_limited"),
        (Response("busy", 503), 502, "unavailable"),
        (JSONResponse({"events": []}), 502, "unavailable"),
    ],
    ids=["404", "401", "429", "503", "no stream"],
)
async def test_error_before_the_stream_is_a_problem(upstream: Response, status: int, kind: str) -> None:
    async with acme(Provider(upstream)) as side:
        response = await side.client.get(EVENTS)
    details = problem(response)
    assert (details["status"], details["kind"]) == (status, kind)
    assert response.headers.get("retry-after") == ("9" if status == 429 else None)


async def test_invalid_arguments_of_a_stream_are_a_problem(simulator: Simulator, environment: dict[str, str]) -> None:
    async with served(environment) as side:
        missing = problem(await side.client.get(RENDER))
        unknown = problem(await side.client.get(RENDER, params={"taskRunIds": "trn-none"}))
    assert (missing["status"], missing["detail"]) == (400, "taskRunIds: is required")
    assert unknown["status"] == 404
    assert len(simulator.requests) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_undeclared_event_stream_is_forwarded(method: str) -> None:
    provider = Provider(streaming(b"id: 1\ndata: 1\n\n"))
    async with acme(provider) as side:
        async with reading(side, "/v1/things", method) as reader:
            assert events_in(await reader.until("data: 1\n\n")) == events_in("id: 1\ndata: 1\n\n")
        with anyio.fail_after(PATIENCE):
            await provider.disconnected.wait()
        provider.response = streaming(b"data: 2\n\n", end=True)
        async with reading(side, "/v1/things", method) as reader:
            assert [event.data for event in events_in(await reader.rest())] == ["2"]


async def test_head_of_a_stream_returns_immediately() -> None:
    provider = Provider(streaming(b"data: 1\n\n"))
    async with acme(provider) as side:
        with anyio.fail_after(PATIENCE):
            response = await side.client.head(EVENTS)
        with anyio.fail_after(PATIENCE):
            await provider.disconnected.wait()
    assert response.headers["content-type"] == "text/event-stream"


async def test_error_during_the_stream_is_the_last_event() -> None:
    # A POST is not retried.
    provider = Provider(cut_once(b"id: 1\ndata: 1\n\n", b""))
    async with acme(provider) as side, reading(side, EVENTS, "POST", json={}) as reader:
        *events, last = events_in(await reader.rest())
    assert [event.data for event in events] == ["1"]
    assert last.event == "error"
    details = problem(httpx.Response(503, headers={"Content-Type": PROBLEM}, text=last.data))
    assert details["kind"] == "unavailable"
    assert len(provider.received) == 1


async def test_error_when_reconnecting_is_the_last_event() -> None:
    provider = Provider()

    async def response(_: Request, send: Send) -> None:
        provider.response = JSONResponse({"error": "it is gone"}, 404)
        await send_stream(send, [b"data: 1\n\n"], is_open=True)

    provider.response = response
    async with acme(provider) as side, reading(side, EVENTS) as reader:
        *events, last = events_in(await reader.rest())
    assert [event.data for event in events] == ["1"]
    assert last.event == "error"
    details = problem(httpx.Response(404, headers={"Content-Type": PROBLEM}, text=last.data))
    assert (details["status"], details["kind"]) == (404, "not_found")


async def test_error_event_of_the_provider_is_forwarded(simulator: Simulator, environment: dict[str, str]) -> None:
    async with (
        served(environment | {"POSTHOG_API_KEY": "phx_outage"}) as side,
        reading(side, f"{POSTHOG}/{POSTHOG_NOT_STARTED}/stream") as reader,
    ):
        events = events_in(await reader.rest())
    assert events[-1].event == "error"
    assert len(simulator.requests) == 1


async def test_unexpected_exception_ends_the_stream_with_an_error_event(caplog: pytest.LogCaptureFixture) -> None:
    async with acme(Provider(streaming(b"data: 1\n\n", b"data: 2\n\n", end=True))) as side:
        original = responses.encode_event

        def written(event: Any) -> bytes:
            if event.data == "2":
                raise ZeroDivisionError("inner workings")
            return original(event)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(responses, "encode_event", written)
            async with reading(side, EVENTS) as reader:
                *events, last = events_in(await reader.rest())
    assert [event.data for event in events] == ["1"]
    assert last.event == "error"
    assert "inner workings" not in last.data
    assert [record.getMessage() for record in caplog.records] == ["call failed route=acme-followthings"]


async def test_shutdown_ends_a_stream_with_an_error_event() -> None:
    provider = Provider(streaming(b"data: 1\n\n"))
    async with acme(provider) as side, reading(side, EVENTS) as reader:
        await reader.until("data: 1\n\n")
        side.gateway.stop()
        *_, last = events_in(await reader.rest())
        assert last.event == "error"
        assert "this server is stopping" in last.data
        with anyio.fail_after(PATIENCE):
            await provider.disconnected.wait()


async def test_shutdown_ends_a_call_with_a_problem(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", Fault(delay=60))
    async with served(environment) as side, anyio.create_task_group() as tasks:
        responses: list[httpx.Response] = []

        async def call() -> None:
            responses.append(await side.client.get(f"/v1/task-runs/{RENDER_COMPLETED}"))

        tasks.start_soon(call)
        with anyio.fail_after(PATIENCE):
            await simulator.wait_for_request(lambda request: "task-runs" in request.path)
            side.gateway.stop()
    details = problem(responses[0])
    assert (details["status"], details["kind"], details["retryable"]) == (503, "unavailable", True)
    assert "this server is stopping" in details["detail"]


async def test_post_with_wait_seconds_returns_the_result_of_the_run(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    body = {"task": "demo-workflow/square", "input": [4], "idempotencyKey": "k-1"}
    clock = simulator.clock
    assert isinstance(clock, ManualClock)
    responses: list[httpx.Response] = []
    async with served(environment) as side, anyio.create_task_group() as tasks:

        async def start() -> None:
            responses.append(await side.client.post("/v1/task-runs", json=body, params={"wait_seconds": 30}))

        tasks.start_soon(start)
        with anyio.fail_after(PATIENCE):
            await simulator.wait_for_request(lambda request: "events" in request.path)
            clock.advance(5)
    (response,) = responses
    assert response.status_code == 200, response.text
    assert response.json()["status"] == "succeeded"
    assert response.json()["result"] == [16]
    run = await outside(environment, "GET", "/render/v1/task-runs/trn-d5im0000000000000005")
    assert run["status"] == "completed"
