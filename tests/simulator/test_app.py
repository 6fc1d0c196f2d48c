"""The combined app: routing, the record of requests, faults, and serving on a socket."""

import json
import logging
import signal
import zlib
from collections.abc import AsyncIterator

import anyio
import httpx
import pytest
from starlette.types import Receive, Scope, Send

from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from mcp_taskruns.simulator.server import serve
from mcp_taskruns.simulator.traffic import MAX_RECORDED, RecordedRequest
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

KEY = {"Authorization": "Bearer rnd_simulated"}
RUNNING = "trn-d5im0000000000000004"
COMPLETED = "trn-d5im0000000000000001"


@pytest.fixture
async def live(origin: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=origin, headers=KEY, timeout=PATIENCE) as client:
        yield client


def test_environment_contains_the_base_url_of_every_provider(simulator: Simulator) -> None:
    environment = simulator.environment("http://127.0.0.1:1")
    assert {name: value for name, value in environment.items() if name.endswith("_BASE_URL")} == {
        "RENDER_BASE_URL": "http://127.0.0.1:1/render/v1",
        "INNGEST_BASE_URL": "http://127.0.0.1:1/inngest",
        "POSTHOG_BASE_URL": environment["POSTHOG_BASE_URL"],
        "RUNWAY_BASE_URL": "http://127.0.0.1:1/runway/v1",
    }
    assert environment["POSTHOG_BASE_URL"].startswith("http://127.0.0.1:1/posthog")


async def test_every_provider_is_mounted_below_its_name(live: httpx.AsyncClient) -> None:
    statuses = {name: (await live.get(f"/{name}/v1/nothing")).status_code for name in ("render", "inngest", "runway")}
    assert statuses == {"render": 404, "inngest": 404, "runway": 404}
    assert (await live.get("/nobody/v1")).status_code == 404
    assert (await live.get("/posthog/nothing")).status_code == 404


async def test_request_is_recorded_with_its_percent_encoding_headers_and_body(
    live: httpx.AsyncClient, simulator: Simulator
) -> None:
    content = '{"task": "caf\u00e9"}'.encode()
    await live.post("/render/v1/task-runs?a=b%2Cc&x=%7B", content=content, headers={"X-Trace": "1"})
    await live.get("/render/v1/tasks/demo-workflow%2Fsquare")
    await live.get("/nobody")
    first, second = simulator.requests
    assert (first.provider, first.method, first.path) == ("render", "POST", "/render/v1/task-runs?a=b%2Cc&x=%7B")
    assert first.body == content
    assert {("authorization", "Bearer rnd_simulated"), ("x-trace", "1")} <= set(first.headers)
    assert second.path == "/render/v1/tasks/demo-workflow%2Fsquare"
    assert not first.disconnected.is_set()


def test_oldest_recorded_requests_are_dropped(simulator: Simulator) -> None:
    for number in range(MAX_RECORDED + 5):
        simulator.traffic.record(RecordedRequest("render", "GET", f"/{number}", (), b""))
    assert (len(simulator.requests), simulator.requests[0].path) == (MAX_RECORDED, "/5")


async def test_wait_for_request_returns_a_past_or_future_request(live: httpx.AsyncClient, simulator: Simulator) -> None:
    paths: list[str] = []

    async def wait() -> None:
        paths.append((await simulator.wait_for_request(lambda request: request.method == "DELETE")).path)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await live.get("/render/v1/tasks")
            await live.delete("/runway/v1/tasks/x")
        await wait()
    assert paths == ["/runway/v1/tasks/x"] * 2


async def test_disconnect_from_a_stream_is_recorded(live: httpx.AsyncClient, simulator: Simulator) -> None:
    with anyio.fail_after(PATIENCE):
        async with live.stream("GET", f"/render/v1/task-runs/events?taskRunIds={RUNNING}") as response:
            assert await anext(response.aiter_text()) == "retry: 2000\n\n"
            assert not simulator.requests[0].disconnected.is_set()
        await simulator.requests[0].disconnected.wait()


async def test_disconnect_during_a_delay_is_recorded(live: httpx.AsyncClient, simulator: Simulator) -> None:
    simulator.fail_next("render", Fault(delay=3600))
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(live.get, "/render/v1/tasks")
            request = await simulator.wait_for_request(lambda _: True)
            group.cancel_scope.cancel()
        await request.disconnected.wait()


async def test_request_with_an_incomplete_body_is_not_recorded(origin: str, simulator: Simulator) -> None:
    address = httpx.URL(origin)
    with anyio.fail_after(PATIENCE):
        async with await anyio.connect_tcp(address.host, address.port or 0) as stream:
            await stream.send(b"POST /render/v1/task-runs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        async with httpx.AsyncClient(base_url=origin, timeout=PATIENCE) as client:
            await client.get("/render/v1/tasks")
    assert [request.method for request in simulator.requests] == ["GET"]


async def test_fault_applies_to_the_next_request_of_its_provider_only(
    live: httpx.AsyncClient, simulator: Simulator
) -> None:
    simulator.fail_next("render", Fault(status=429, headers={"Ratelimit-Reset": "7"}, body='{"message":"slow down"}'))
    simulator.fail_next("render", Fault(status=503))
    assert (await live.get("/runway/v1/tasks/x")).status_code == 400
    limited, down, fine = [await live.get("/render/v1/tasks") for _ in range(3)]
    assert (limited.status_code, limited.headers["ratelimit-reset"], limited.text) == (
        429,
        "7",
        '{"message":"slow down"}',
    )
    assert (down.status_code, down.content, fine.status_code) == (503, b"", 200)
    assert len(simulator.requests) == 4


async def test_fault_with_only_a_delay_keeps_the_response_of_the_provider(
    live: httpx.AsyncClient, simulator: Simulator
) -> None:
    simulator.fail_next("render", Fault(delay=0.01))
    assert (await live.get("/render/v1/tasks?limit=1")).json()[0]["task"]["name"] == "square"


@pytest.mark.parametrize("fault", [Fault(status=200, body="0123456789", truncate=True), Fault(truncate=True)])
async def test_truncated_response_is_shorter_than_its_content_length(
    live: httpx.AsyncClient, simulator: Simulator, fault: Fault
) -> None:
    simulator.fail_next("render", fault)
    received: list[bytes] = []

    async def read(response: httpx.Response) -> None:
        async for chunk in response.aiter_bytes():
            received.append(chunk)

    async with live.stream("GET", "/render/v1/tasks") as response:
        announced = int(response.headers["content-length"])
        with anyio.fail_after(PATIENCE), pytest.raises(httpx.RemoteProtocolError):
            await read(response)
    assert len(b"".join(received)) == announced // 2
    assert not simulator.requests[0].disconnected.is_set()


async def test_truncated_stream_breaks_in_its_first_event(live: httpx.AsyncClient, simulator: Simulator) -> None:
    simulator.fail_next("render", Fault(truncate=True))
    with anyio.fail_after(PATIENCE):
        async with live.stream("GET", f"/render/v1/task-runs/events?taskRunIds={RUNNING}") as response:
            with pytest.raises(httpx.RemoteProtocolError):
                await response.aread()


async def test_request_is_carried_out_although_its_response_is_replaced(
    live: httpx.AsyncClient, simulator: Simulator
) -> None:
    simulator.fail_next("render", Fault(524, carry_out=True))
    body = {"task": "demo-workflow/square", "input": [7]}
    runs = len(simulator.render.runs)
    assert (await live.post("/render/v1/task-runs", json=body)).status_code == 524
    assert len(simulator.render.runs) == runs + 1
    simulator.fail_next("render", Fault(524))
    assert (await live.post("/render/v1/task-runs", json=body)).status_code == 524
    assert len(simulator.render.runs) == runs + 1


async def test_truncated_gzip_has_no_end(live: httpx.AsyncClient, simulator: Simulator) -> None:
    simulator.fail_next("render", Fault(truncate_gzip=True))
    async with live.stream("GET", "/render/v1/tasks") as response:
        body = b"".join([chunk async for chunk in response.aiter_raw()])
    assert (response.status_code, response.headers["content-encoding"]) == (200, "gzip")
    decoder = zlib.decompressobj(wbits=31)
    assert decoder.decompress(body)[:2] == b"[{"
    assert not decoder.eof


async def test_events_of_a_stream_are_omitted_and_added(live: httpx.AsyncClient, simulator: Simulator) -> None:
    simulator.fail_next("render", Fault(omit_events="task.completed", first_event="retry: -5\n\n"))
    url = f"/render/v1/task-runs/events?taskRunIds={COMPLETED}"
    assert (await live.get(url)).text == "retry: -5\n\nretry: 2000\n\n"
    assert "task.completed" in (await live.get(url)).text


async def test_faults_and_recorded_requests_are_available_over_http(live: httpx.AsyncClient) -> None:
    fault = {"provider": "inngest", "status": 429, "headers": {"Retry-After": "1"}, "body": {"errors": []}}
    assert (await live.post("/simulator/faults", json=fault)).status_code == 204
    limited = await live.get("/inngest/v1/runs/x?y=1")
    assert (limited.status_code, limited.headers["retry-after"], limited.json()) == (429, "1", {"errors": []})
    assert limited.headers["content-type"] == "application/json"
    (request,) = (await live.get("/simulator/requests")).json()
    assert {name: request[name] for name in ("provider", "method", "path", "body", "disconnected")} == {
        "provider": "inngest",
        "method": "GET",
        "path": "/inngest/v1/runs/x?y=1",
        "body": "",
        "disconnected": False,
    }
    assert ["authorization", "Bearer rnd_simulated"] in request["headers"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "Expecting"),
        ("[]", "must be a JSON object with a `provider`"),
        ('{"provider": "temporal"}', "unknown provider 'temporal'; use one of render, inngest, posthog, runway"),
        ('{"provider": "render", "statu": 500}', "unknown fields: statu"),
        ('{"provider": "render", "status": 99}', "between 200 and 599"),
        ('{"provider": "render", "status": "no"}', "not supported"),
        ('{"provider": "render", "delay": -1}', "negative"),
        ('{"provider": "render", "headers": 1, "body": []}', "unsupported operand"),
        ('{"provider": "render", "status": 500, "truncate": true}', "needs a `body` to truncate"),
        ('{"provider": "render", "carry_out": true}', "needs a `status`"),
        ('{"provider": "render", "omit_events": "("}', "is not a regular expression"),
    ],
)
async def test_invalid_fault_is_rejected_with_400(live: httpx.AsyncClient, document: str, message: str) -> None:
    response = await live.post("/simulator/faults", content=document)
    assert response.status_code == 400
    assert message in response.json()["error"]


async def test_serve_stops_at_once_with_an_open_stream(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_taskruns.simulator.server.SHUTDOWN_SECONDS", 3600)
    with anyio.fail_after(PATIENCE):
        async with httpx.AsyncClient(headers=KEY, timeout=PATIENCE) as client:
            async with serve(simulator) as origin:
                request = client.build_request("GET", f"{origin}/render/v1/task-runs/events?taskRunIds={RUNNING}")
                response = await client.send(request, stream=True)
                chunks = response.aiter_text()
                assert await anext(chunks) == "retry: 2000\n\n"
            with pytest.raises(httpx.RemoteProtocolError):
                await anext(chunks)
            with pytest.raises(httpx.ConnectError):
                await client.get(f"{origin}/render/v1/tasks")


async def test_serve_cancels_a_response_that_does_not_end(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    canceled: list[bool] = []

    async def never_ending_app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"wait", "more_body": True})
        try:
            await anyio.sleep_forever()
        finally:
            canceled.append(True)

    monkeypatch.setattr(simulator, "app", never_ending_app)
    monkeypatch.setattr("mcp_taskruns.simulator.server.SHUTDOWN_SECONDS", 0.01)
    with anyio.fail_after(PATIENCE):
        async with httpx.AsyncClient(timeout=PATIENCE) as client, serve(simulator) as origin:
            response = await client.send(client.build_request("GET", origin), stream=True)
            assert await anext(response.aiter_raw()) == b"wait"
    assert canceled


async def test_serve_on_ipv6_stops_without_a_request(simulator: Simulator) -> None:
    with anyio.fail_after(PATIENCE):
        async with serve(simulator, host="::1") as origin:
            assert origin.startswith("http://[::1]:")


async def test_serve_keeps_the_signal_handlers(simulator: Simulator) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    async with serve(simulator) as origin, httpx.AsyncClient(headers=KEY, timeout=PATIENCE) as client:
        await client.get(f"{origin}/render/v1/tasks")
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


async def test_serve_raises_os_error_for_a_port_in_use(simulator: Simulator, origin: str) -> None:
    with pytest.raises(OSError, match="in use"):
        async with serve(simulator, port=httpx.URL(origin).port or 0):
            pass


async def test_exception_inside_serve_is_raised_unchanged(simulator: Simulator) -> None:
    with pytest.raises(KeyError):
        async with serve(simulator):
            raise KeyError


async def test_dropped_connections_are_not_logged(
    live: httpx.AsyncClient, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.fail_next("render", Fault(status=200, body=json.dumps([]), truncate=True))
    with caplog.at_level(logging.INFO), pytest.raises(httpx.RemoteProtocolError):
        await live.get("/render/v1/tasks")
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []
