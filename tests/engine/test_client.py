"""One request and its answer: what a provider that stalls, or a form that is odd, comes to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from mcp_taskruns.core.calls.request import File, build_form_request
from mcp_taskruns.core.model.operation import BaseUri, Operation
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.rate_limits import MAX_STREAMS, Slot
from mcp_taskruns.errors import UpstreamError
from mcp_taskruns.settings import Settings
from mcp_taskruns.simulator.app import Simulator
from tests.calls import POSTHOG_FAILED, POSTHOG_RUNNING, TASK
from tests.clients import open_client, open_gateway

pytestmark = pytest.mark.anyio

EVENTS = "text/event-stream, */*;q=0.1"


@asynccontextmanager
async def answering(head: bytes) -> AsyncIterator[Operation]:
    """A stream's operation at a provider that begins its answer so, and then says nothing more."""

    async def serve(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(head)
            await anyio.sleep_forever()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        origin = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        yield Operation("follow", "acme", "GET", BaseUri((origin,), ()), ("/events",), accept=EVENTS)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("status", ["200 OK", "500 Internal Server Error"])
async def test_a_stream_that_is_none_and_stalls_is_a_timeout(status: str) -> None:
    exchange = Client(Settings(timeout=0.3), ())
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode()
    async with answering(head) as operation:
        with anyio.fail_after(10), pytest.raises(UpstreamError) as caught:
            async with exchange.open_stream(operation, {}):
                pytest.fail("no stream")
        await exchange.aclose()
    assert caught.value.kind == "timeout"


async def test_a_stream_that_is_connected_again_takes_the_place_that_its_call_has() -> None:
    exchange = Client(Settings(timeout=5), ())
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    async with answering(head) as operation:
        for _ in range(MAX_STREAMS):
            await exchange.rate_limiter(operation)._slots[Slot.STREAM].acquire()
        with anyio.fail_after(10):
            async with exchange.open_stream(operation, {}, slot=Slot.NONE):
                pass
            with pytest.raises(UpstreamError, match="too many calls to acme"):
                async with exchange.open_stream(operation, {}, seconds=0.2):
                    pytest.fail("no place")
        await exchange.aclose()


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
def test_a_form_is_sent_to_no_address_that_could_be_more_than_one(url: str) -> None:
    with pytest.raises(UpstreamError, match="is not a valid https URL"):
        build_form_request("acme's storage", url, "text/plain", b"")


@pytest.mark.parametrize("fields", [{"a": {"x": 1}}, {"a": None}, [], None])
async def test_a_form_whose_fields_are_no_texts_is_told(fields: Any) -> None:
    operation = Operation("prepare", "acme", "POST", BaseUri(("https://acme.example",), ()), ("/",))
    form = {"url": "https://storage.example/", "fields": fields}
    with pytest.raises(UpstreamError, match="acme returned no usable upload form"):
        await Client(Settings(), ()).post_form(operation, form, File("a.txt", "", b"x"))


async def test_a_file_of_five_megabytes_is_taken_over_http(simulator: Simulator, environment: dict[str, str]) -> None:
    file = {"name": "big.txt", "type": "context", "content": "x" * 5_000_000}
    arguments = {"task_id": TASK, "id": POSTHOG_FAILED, "body": {"artifacts": [file]}}
    with anyio.fail_after(30):
        async with open_client("http", "auto", environment) as client:
            result = await client.call_tool("posthog-prepare-direct-uploads-task-run", arguments)
    assert not result.is_error
    assert any(len(request.body) > 5_000_000 for request in simulator.requests)


async def test_a_content_type_adds_no_line_to_a_form(simulator: Simulator, environment: dict[str, str]) -> None:
    file = {"name": "a.txt", "type": "context", "content": "x", "content_type": "text/plain\r\nX-Evil: 1"}
    gateway = open_gateway(environment)
    arguments = {"task_id": TASK, "id": POSTHOG_RUNNING, "body": {"artifacts": [file]}}
    with pytest.raises(Exception, match="content_type"):
        gateway.prepare("posthog-prepare-direct-uploads-task-run", arguments)
    assert simulator.requests == []
