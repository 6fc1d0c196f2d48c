"""Event streams through the REST side: as they come, kept alive, from where the client was, and hung up with it."""

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
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits before it is tried again."""
    monkeypatch.setattr(retries, "backoff", lambda *_: 0.0)
    monkeypatch.setattr("mcp_taskruns.engine.runs.reconnect.backoff", lambda *_: 0.0)


class Reader:
    """A stream that is read bit by bit."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.text = ""
        self._parts = answer.aiter_text()

    async def until(self, wanted: str) -> str:
        """All that has come, once this is in it."""
        with anyio.fail_after(PATIENCE):
            while wanted not in self.text:
                self.text += await anext(self._parts)
        return self.text

    async def rest(self) -> str:
        """All, after the stream has ended."""
        with anyio.fail_after(PATIENCE):
            async for part in self._parts:
                self.text += part
        return self.text


@asynccontextmanager
async def reading(side: Side, path: str, method: str = "GET", **more: Any) -> AsyncIterator[Reader]:
    with anyio.fail_after(PATIENCE):
        async with side.client.stream(method, path, **more) as answer:
            assert answer.status_code == 200, await answer.aread()
            assert answer.headers["content-type"] == "text/event-stream"
            yield Reader(answer)


async def test_each_event_is_there_as_soon_as_the_provider_has_sent_it() -> None:
    go_on = anyio.Event()

    async def answer(_: Request, send: Send) -> None:
        await send_stream(send, [b"data: 1\n\n"], is_open=True)
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"data: 2\n\n"})

    async with acme(Provider(answer)) as side, reading(side, EVENTS) as reader:
        assert events_in(await reader.until("data: 1\n\n"))[-1].data == "1"
        go_on.set()
        assert [event.data for event in events_in(await reader.rest())] == ["1", "2"]
        assert reader.answer.headers["cache-control"] == "no-store"
        assert reader.answer.headers["x-accel-buffering"] == "no"


async def test_ids_names_retries_and_lines_are_kept() -> None:
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


async def test_a_stream_of_renders_goes_on_until_the_runs_have_ended(
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


async def test_a_stream_of_posthogs_begins_after_the_last_event_that_the_client_has(
    simulator: Simulator, environment: dict[str, str]
) -> None:
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
async def test_the_last_event_id_of_the_client_reaches_the_provider_where_it_is_plain(last: str) -> None:
    provider = Provider(streaming(b"data: 1\n\n", end=True))
    async with acme(provider) as side, reading(side, EVENTS, headers={"Last-Event-ID": last.encode()}) as reader:
        await reader.rest()
    assert provider.last.headers.get("last-event-id") == (last if last.isascii() else None)


async def test_without_one_none_is_sent() -> None:
    provider = Provider(streaming(b"data: 1\n\n", end=True))
    async with acme(provider) as side, reading(side, EVENTS) as reader:
        await reader.rest()
    assert "last-event-id" not in provider.last.headers


def cut_once(first: bytes, then: bytes) -> Any:
    """A provider whose first connection is lost after these bytes; the next one ends as it should."""
    calls: list[Request] = []

    async def answer(request: Request, send: Send) -> None:
        calls.append(request)
        if len(calls) == 1:
            # An answer that is not finished when the app returns: the server drops the connection.
            await send_stream(send, [first], is_open=True)
        else:
            await send_stream(send, [then], is_open=False)

    return answer


async def test_a_connection_that_is_lost_is_made_again_after_the_last_event() -> None:
    provider = Provider(cut_once(b"id: 1\ndata: 1\n\n", b"id: 2\ndata: 2\n\n"))
    async with acme(provider) as side, reading(side, EVENTS) as reader:
        events = events_in(await reader.rest())
    assert [event.data for event in events] == ["1", "2"]
    assert [request.headers.get("last-event-id") for request in provider.received] == [None, "1"]


async def test_a_connection_that_is_lost_before_any_event_is_made_again_from_where_the_client_was() -> None:
    provider = Provider(cut_once(b": nothing yet\n\n", b"id: 8\ndata: 8\n\n"))
    async with acme(provider) as side, reading(side, EVENTS, headers={"Last-Event-ID": "7"}) as reader:
        events = events_in(await reader.rest())
    assert [event.data for event in events] == ["8"]
    assert [request.headers.get("last-event-id") for request in provider.received] == ["7", "7"]


async def test_a_silent_stream_is_kept_alive_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "KEEP_ALIVE_SECONDS", 0.05)
    async with acme(Provider(streaming(b"data: 1\n\n"))) as side, reading(side, EVENTS) as reader:
        began = anyio.current_time()
        text = await reader.until(": keep-alive\n\n" * 4)
        took = anyio.current_time() - began
    assert took > 3 * 0.05, "each only after a silence"
    assert text.startswith("data: 1\n\n: keep-alive\n\n")
    assert [event.data for event in events_in(text)] == ["1"]


async def test_a_stream_that_has_not_sent_anything_is_kept_alive_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "KEEP_ALIVE_SECONDS", 0.05)
    async with acme(Provider(streaming())) as side, reading(side, EVENTS) as reader:
        assert (await reader.until(": keep-alive\n\n")).startswith(": keep-alive\n\n")


async def test_comments_of_the_provider_are_not_passed_on_but_by_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "KEEP_ALIVE_SECONDS", 0.05)
    async with acme(Provider(streaming(b": ping\n\n"))) as side, reading(side, EVENTS) as reader:
        assert "ping" not in await reader.until(": keep-alive\n\n")


async def test_a_client_that_hangs_up_hangs_up_on_the_provider() -> None:
    provider = Provider(streaming(b"data: 1\n\n"))
    async with acme(provider) as side:
        async with reading(side, EVENTS) as reader:
            await reader.until("data: 1\n\n")
            assert not provider.disconnected.is_set()
        with anyio.fail_after(PATIENCE):
            await provider.disconnected.wait()


async def test_a_client_that_hangs_up_on_a_silent_stream_hangs_up_on_render(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with served(environment) as side:
        async with reading(side, RENDER, params={"taskRunIds": [RENDER_RUNNING]}):
            request = await simulator.wait_for_request(lambda request: "events" in request.path)
            assert not request.disconnected.is_set()
        with anyio.fail_after(PATIENCE):
            await request.disconnected.wait()


async def test_a_client_that_leaves_before_the_provider_answers_hangs_up_too() -> None:
    asked = anyio.Event()

    async def never(_: Request, __: Send) -> None:
        asked.set()
        await anyio.sleep_forever()

    provider = Provider(never)
    async with acme(provider) as side:
        host, port = side.origin.removeprefix("http://").split(":")
        stream: ByteStream
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(f"GET {EVENTS} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            with anyio.fail_after(PATIENCE):
                await asked.wait()
        with anyio.fail_after(PATIENCE):
            await provider.disconnected.wait()


async def test_wait_seconds_ends_a_stream_that_goes_on() -> None:
    provider = Provider(streaming(b"data: 1\n\n"))
    async with acme(provider) as side:
        async with reading(side, EVENTS, params={"wait_seconds": "0.2"}) as reader:
            text = await reader.rest()
        with anyio.fail_after(PATIENCE):
            await provider.disconnected.wait()
    assert text == "data: 1\n\n"
    assert provider.last.target == "/events"


async def test_a_stream_lasts_no_longer_than_the_operator_allows() -> None:
    provider = Provider(streaming(b"data: 1\n\n"))
    async with (
        acme(provider, max_wait_seconds=0.2) as side,
        reading(side, EVENTS, params={"wait_seconds": "30"}) as reader,
    ):
        text = await reader.rest()
    assert text == "data: 1\n\n"


@pytest.mark.parametrize("seconds", ["-1", "soon", "NaN", "Infinity", "true"])
async def test_wait_seconds_that_are_no_time_are_refused_before_anything_is_sent(seconds: str) -> None:
    provider = Provider(streaming(b"data: 1\n\n", end=True))
    async with acme(provider) as side:
        told = problem(await side.client.get(EVENTS, params={"wait_seconds": seconds}))
    assert (told["status"], told["kind"]) == (400, "validation")
    assert provider.received == []


@pytest.mark.parametrize(
    ("answer", "status", "kind"),
    [
        (JSONResponse({"error": "no such topic"}, 404), 404, "not_found"),
        (JSONResponse({"error": "who are you"}, 401), 403, "auth"),
        (JSONResponse({"error": "slow down"}, 429, {"Retry-After": "9"}), 429, "rate_limited"),
        (Response("busy", 503), 502, "unavailable"),
        (JSONResponse({"events": []}), 503, "unavailable"),
    ],
    ids=["404", "401", "429", "503", "no stream"],
)
async def test_what_goes_wrong_before_the_stream_is_a_problem(answer: Response, status: int, kind: str) -> None:
    async with acme(Provider(answer)) as side:
        response = await side.client.get(EVENTS)
    told = problem(response)
    assert (told["status"], told["kind"]) == (status, kind)
    assert response.headers.get("retry-after") == ("9" if status == 429 else None)


async def test_arguments_that_do_not_fit_are_a_problem_and_no_stream(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with served(environment) as side:
        missing = problem(await side.client.get(RENDER))
        unknown = problem(await side.client.get(RENDER, params={"taskRunIds": "trn-none"}))
    assert (missing["status"], missing["detail"]) == (400, "taskRunIds: is required")
    assert unknown["status"] == 404
    assert len(simulator.requests) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_stream_that_no_capability_tells_of_is_passed_on_as_one(method: str) -> None:
    provider = Provider(streaming(b"id: 1\ndata: 1\n\n"))
    async with acme(provider) as side:
        async with reading(side, "/v1/things", method) as reader:
            assert events_in(await reader.until("data: 1\n\n")) == events_in("id: 1\ndata: 1\n\n")
        with anyio.fail_after(PATIENCE):
            await provider.disconnected.wait()
        provider.answer = streaming(b"data: 2\n\n", end=True)
        async with reading(side, "/v1/things", method) as reader:
            assert [event.data for event in events_in(await reader.rest())] == ["2"]


async def test_head_of_a_stream_does_not_wait_for_its_end() -> None:
    provider = Provider(streaming(b"data: 1\n\n"))
    async with acme(provider) as side:
        with anyio.fail_after(PATIENCE):
            answer = await side.client.head(EVENTS)
        with anyio.fail_after(PATIENCE):
            await provider.disconnected.wait()
    assert answer.headers["content-type"] == "text/event-stream"


async def test_what_goes_wrong_in_the_middle_is_the_last_event() -> None:
    # A POST is not sent again.
    provider = Provider(cut_once(b"id: 1\ndata: 1\n\n", b""))
    async with acme(provider) as side, reading(side, EVENTS, "POST", json={}) as reader:
        *events, last = events_in(await reader.rest())
    assert [event.data for event in events] == ["1"]
    assert last.event == "error"
    told = problem(httpx.Response(503, headers={"Content-Type": PROBLEM}, text=last.data))
    assert told["kind"] == "unavailable"
    assert len(provider.received) == 1


async def test_an_error_when_connecting_again_is_the_last_event() -> None:
    provider = Provider()

    async def answer(_: Request, send: Send) -> None:
        provider.answer = JSONResponse({"error": "it is gone"}, 404)
        await send_stream(send, [b"data: 1\n\n"], is_open=True)

    provider.answer = answer
    async with acme(provider) as side, reading(side, EVENTS) as reader:
        *events, last = events_in(await reader.rest())
    assert [event.data for event in events] == ["1"]
    assert last.event == "error"
    told = problem(httpx.Response(404, headers={"Content-Type": PROBLEM}, text=last.data))
    assert (told["status"], told["kind"]) == (404, "not_found")


async def test_an_error_event_of_the_providers_is_an_event_as_any_other(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with (
        served(environment | {"POSTHOG_API_KEY": "phx_outage"}) as side,
        reading(side, f"{POSTHOG}/{POSTHOG_NOT_STARTED}/stream") as reader,
    ):
        events = events_in(await reader.rest())
    assert events[-1].event == "error"
    assert len(simulator.requests) == 1


async def test_a_failure_of_the_server_itself_ends_the_stream_with_an_error(caplog: pytest.LogCaptureFixture) -> None:
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


async def test_the_end_of_the_server_ends_a_stream_and_says_so() -> None:
    provider = Provider(streaming(b"data: 1\n\n"))
    async with acme(provider) as side, reading(side, EVENTS) as reader:
        await reader.until("data: 1\n\n")
        side.gateway.stop()
        *_, last = events_in(await reader.rest())
        assert last.event == "error"
        assert "this server is stopping" in last.data
        with anyio.fail_after(PATIENCE):
            await provider.disconnected.wait()


async def test_the_end_of_the_server_ends_a_call_with_a_problem(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    simulator.fail_next("render", Fault(delay=60))
    async with served(environment) as side, anyio.create_task_group() as tasks:
        answers: list[httpx.Response] = []

        async def call() -> None:
            answers.append(await side.client.get(f"/v1/task-runs/{RENDER_COMPLETED}"))

        tasks.start_soon(call)
        with anyio.fail_after(PATIENCE):
            await simulator.wait_for_request(lambda request: "task-runs" in request.path)
            side.gateway.stop()
    told = problem(answers[0])
    assert (told["status"], told["kind"], told["retryable"]) == (503, "unavailable", True)
    assert "this server is stopping" in told["detail"]


async def test_a_started_run_is_followed_to_its_end_by_a_post_that_waits(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    body = {"task": "demo-workflow/square", "input": [4], "idempotencyKey": "k-1"}
    clock = simulator.clock
    assert isinstance(clock, ManualClock)
    answers: list[httpx.Response] = []
    async with served(environment) as side, anyio.create_task_group() as tasks:

        async def start() -> None:
            answers.append(await side.client.post("/v1/task-runs", json=body, params={"wait_seconds": 30}))

        tasks.start_soon(start)
        with anyio.fail_after(PATIENCE):
            await simulator.wait_for_request(lambda request: "events" in request.path)
            clock.advance(5)
    (answer,) = answers
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "succeeded"
    assert answer.json()["result"] == [16]
    run = await outside(environment, "GET", "/render/v1/task-runs/trn-d5im0000000000000005")
    assert run["status"] == "completed"
