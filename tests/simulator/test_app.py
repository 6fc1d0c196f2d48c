import json
import logging
import signal
from collections.abc import AsyncIterator

import anyio
import httpx
import pytest
from starlette.types import Receive, Scope, Send

from mcp_taskruns.simulator.app import MAX_RECORDED, Fault, RecordedRequest, Simulator, serve

pytestmark = pytest.mark.anyio

KEY = {"Authorization": "Bearer rnd_simulated"}
RUNNING = "trn-d5im0000000000000004"


@pytest.fixture
async def live(origin: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=origin, headers=KEY, timeout=5) as client:
        yield client


def test_one_environment_points_the_server_at_all_four(simulator: Simulator) -> None:
    environment = simulator.environment("http://127.0.0.1:1")
    assert {name: value for name, value in environment.items() if name.endswith("_BASE_URL")} == {
        "RENDER_BASE_URL": "http://127.0.0.1:1/render/v1",
        "INNGEST_BASE_URL": "http://127.0.0.1:1/inngest",
        "POSTHOG_BASE_URL": environment["POSTHOG_BASE_URL"],
        "RUNWAY_BASE_URL": "http://127.0.0.1:1/runway/v1",
    }
    assert environment["POSTHOG_BASE_URL"].startswith("http://127.0.0.1:1/posthog")


async def test_every_provider_answers_below_its_name(live: httpx.AsyncClient) -> None:
    statuses = {name: (await live.get(f"/{name}/v1/nothing")).status_code for name in ("render", "inngest", "runway")}
    assert statuses == {"render": 404, "inngest": 404, "runway": 404}
    assert (await live.get("/nobody/v1")).status_code == 404
    assert (await live.get("/posthog/nothing")).status_code == 404


async def test_what_arrived_is_recorded_as_it_was_sent(live: httpx.AsyncClient, simulator: Simulator) -> None:
    content = '{"task": "caf\u00e9"}'.encode()
    await live.post("/render/v1/task-runs?a=b%2Cc&x=%7B", content=content, headers={"X-Trace": "1"})
    await live.get("/render/v1/tasks/demo-workflow%2Fsquare")
    await live.get("/nobody")
    first, second = simulator.requests
    assert (first.provider, first.method, first.path) == ("render", "POST", "/render/v1/task-runs?a=b%2Cc&x=%7B")
    assert first.body == content
    assert {("authorization", "Bearer rnd_simulated"), ("x-trace", "1")} <= set(first.headers)
    assert second.path == "/render/v1/tasks/demo-workflow%2Fsquare"
    assert not first.hung_up.is_set()


def test_the_record_forgets_the_oldest_requests(simulator: Simulator) -> None:
    for number in range(MAX_RECORDED + 5):
        simulator.record(RecordedRequest("render", "GET", f"/{number}", (), b""))
    assert (len(simulator.requests), simulator.requests[0].path) == (MAX_RECORDED, "/5")


async def test_one_can_wait_for_a_request_that_has_arrived_or_will(
    live: httpx.AsyncClient, simulator: Simulator
) -> None:
    found: list[str] = []

    async def wait() -> None:
        found.append((await simulator.wait_for_request(lambda request: request.method == "DELETE")).path)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await live.get("/render/v1/tasks")
            await live.delete("/runway/v1/tasks/x")
        await wait()
    assert found == ["/runway/v1/tasks/x"] * 2


async def test_a_client_that_leaves_a_stream_is_noticed(live: httpx.AsyncClient, simulator: Simulator) -> None:
    with anyio.fail_after(5):
        async with live.stream("GET", f"/render/v1/task-runs/events?taskRunIds={RUNNING}") as response:
            assert await anext(response.aiter_text()) == "retry: 2000\n\n"
            assert not simulator.requests[0].hung_up.is_set()
        await simulator.requests[0].hung_up.wait()


async def test_a_client_that_leaves_while_an_answer_is_delayed_is_noticed(
    live: httpx.AsyncClient, simulator: Simulator
) -> None:
    simulator.fail_next("render", Fault(delay=3600))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(live.get, "/render/v1/tasks")
            request = await simulator.wait_for_request(lambda _: True)
            group.cancel_scope.cancel()
        await request.hung_up.wait()


async def test_a_client_that_leaves_while_sending_is_not_recorded(origin: str, simulator: Simulator) -> None:
    address = httpx.URL(origin)
    with anyio.fail_after(5):
        async with await anyio.connect_tcp(address.host, address.port or 0) as stream:
            await stream.send(b"POST /render/v1/task-runs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        async with httpx.AsyncClient(base_url=origin) as client:
            await client.get("/render/v1/tasks")
    assert [request.method for request in simulator.requests] == ["GET"]


async def test_a_fault_spoils_the_next_request_of_that_provider_only(
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


async def test_a_delay_alone_leaves_the_answer_to_the_provider(live: httpx.AsyncClient, simulator: Simulator) -> None:
    simulator.fail_next("render", Fault(delay=0.01))
    assert (await live.get("/render/v1/tasks?limit=1")).json()[0]["task"]["name"] == "square"


@pytest.mark.parametrize("fault", [Fault(status=200, body="0123456789", cut=True), Fault(cut=True)])
async def test_a_cut_answer_announces_more_than_it_sends(
    live: httpx.AsyncClient, simulator: Simulator, fault: Fault
) -> None:
    simulator.fail_next("render", fault)
    received: list[bytes] = []

    async def read(response: httpx.Response) -> None:
        async for chunk in response.aiter_bytes():
            received.append(chunk)

    async with live.stream("GET", "/render/v1/tasks") as response:
        announced = int(response.headers["content-length"])
        with anyio.fail_after(5), pytest.raises(httpx.RemoteProtocolError):
            await read(response)
    assert len(b"".join(received)) == announced // 2
    assert not simulator.requests[0].hung_up.is_set()


async def test_a_cut_stream_breaks_off_in_its_first_frame(live: httpx.AsyncClient, simulator: Simulator) -> None:
    simulator.fail_next("render", Fault(cut=True))
    with anyio.fail_after(5):
        async with live.stream("GET", f"/render/v1/task-runs/events?taskRunIds={RUNNING}") as response:
            with pytest.raises(httpx.RemoteProtocolError):
                await response.aread()


async def test_another_process_orders_faults_and_reads_the_record(live: httpx.AsyncClient) -> None:
    fault = {"provider": "inngest", "status": 429, "headers": {"Retry-After": "1"}, "body": {"errors": []}}
    assert (await live.post("/simulator/faults", json=fault)).status_code == 204
    limited = await live.get("/inngest/v1/runs/x?y=1")
    assert (limited.status_code, limited.headers["retry-after"], limited.json()) == (429, "1", {"errors": []})
    assert limited.headers["content-type"] == "application/json"
    (request,) = (await live.get("/simulator/requests")).json()
    assert {name: request[name] for name in ("provider", "method", "path", "body", "hung_up")} == {
        "provider": "inngest",
        "method": "GET",
        "path": "/inngest/v1/runs/x?y=1",
        "body": "",
        "hung_up": False,
    }
    assert ["authorization", "Bearer rnd_simulated"] in request["headers"]


@pytest.mark.parametrize(
    ("order", "complaint"),
    [
        ("{", "Expecting"),
        ("[]", "an object with a provider"),
        ('{"provider": "temporal"}', "unknown provider 'temporal'; one of render, inngest, posthog, runway"),
        ('{"provider": "render", "statu": 500}', "unknown: statu"),
        ('{"provider": "render", "status": 99}', "between 200 and 599"),
        ('{"provider": "render", "status": "no"}', "not supported"),
        ('{"provider": "render", "delay": -1}', "negative"),
        ('{"provider": "render", "headers": 1, "body": []}', "unsupported operand"),
        ('{"provider": "render", "status": 500, "cut": true}', "body to cut"),
    ],
)
async def test_a_fault_that_makes_no_sense_is_refused(live: httpx.AsyncClient, order: str, complaint: str) -> None:
    response = await live.post("/simulator/faults", content=order)
    assert response.status_code == 400
    assert complaint in response.json()["error"]


async def test_serving_ends_at_once_while_a_stream_is_open(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_taskruns.simulator.app.SHUTDOWN_SECONDS", 3600)
    with anyio.fail_after(5):
        async with httpx.AsyncClient(headers=KEY) as client:
            async with serve(simulator) as origin:
                request = client.build_request("GET", f"{origin}/render/v1/task-runs/events?taskRunIds={RUNNING}")
                response = await client.send(request, stream=True)
                chunks = response.aiter_text()
                assert await anext(chunks) == "retry: 2000\n\n"
            with pytest.raises(httpx.RemoteProtocolError):
                await anext(chunks)
            with pytest.raises(httpx.ConnectError):
                await client.get(f"{origin}/render/v1/tasks")


async def test_serving_ends_while_an_answer_will_not(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []

    async def stubborn(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"wait", "more_body": True})
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(True)

    monkeypatch.setattr(simulator, "app", stubborn)
    monkeypatch.setattr("mcp_taskruns.simulator.app.SHUTDOWN_SECONDS", 0.01)
    with anyio.fail_after(5):
        async with httpx.AsyncClient() as client, serve(simulator) as origin:
            response = await client.send(client.build_request("GET", origin), stream=True)
            assert await anext(response.aiter_raw()) == b"wait"
    assert ended


async def test_serving_nobody_ends_before_it_has_begun(simulator: Simulator) -> None:
    with anyio.fail_after(5):
        async with serve(simulator, host="::1") as origin:
            assert origin.startswith("http://[::1]:")


async def test_serving_leaves_signals_alone(simulator: Simulator) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    async with serve(simulator) as origin, httpx.AsyncClient(headers=KEY) as client:
        await client.get(f"{origin}/render/v1/tasks")
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


async def test_serving_on_a_taken_port_says_so(simulator: Simulator, origin: str) -> None:
    with pytest.raises(OSError, match="in use"):
        async with serve(simulator, port=httpx.URL(origin).port or 0):
            pass


async def test_a_mistake_of_the_test_is_raised_as_it_is(simulator: Simulator) -> None:
    with pytest.raises(KeyError):
        async with serve(simulator):
            raise KeyError


async def test_dropped_connections_are_not_logged(
    live: httpx.AsyncClient, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.fail_next("render", Fault(status=200, body=json.dumps([]), cut=True))
    with caplog.at_level(logging.INFO), pytest.raises(httpx.RemoteProtocolError):
        await live.get("/render/v1/tasks")
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []
