"""Hostile responses: each call ends, and the event loop goes on meanwhile."""

import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.progress import Progress
from mcp_taskruns.errors import CallError
from mcp_taskruns.loading.catalog import build_catalog
from mcp_taskruns.settings import read_settings
from tests.calls import POSTHOG_RUNNING, TASK
from tests.clients import load_builtin_tools
from tests.hostile import JSON_LINES, RESPONSES, HostileResponse
from tests.timing import PATIENCE, scaled

pytestmark = [pytest.mark.anyio, pytest.mark.load]

ENVIRONMENT = {"RENDER_API_KEY": "rnd_key-123456", "POSTHOG_API_KEY": "phx_key-123456", "POSTHOG_PROJECT_ID": "1"}
RUN = {"task_id": TASK, "id": POSTHOG_RUNNING}
CHUNK_BYTES = 100_000

WAIT_SECONDS = 3
"""How long a stream is followed: the response to reading its run is hostile too, so that it never ends."""

MAX_STEP_S = scaled(0.1)
"""CPU time of the longest step of the event loop: 0.1 s on an idle core, without coverage."""


class Body(httpx.AsyncByteStream):
    """A body that arrives in chunks."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), CHUNK_BYTES):
            await anyio.lowlevel.checkpoint()
            yield self._data[start : start + CHUNK_BYTES]


class Heartbeat:
    """Measures the longest step of the event loop, in seconds of CPU time of this process with all its threads.

    CPU time does not grow while other processes run. What a thread computes while it lets the loop go on is divided
    into steps; what it computes without that, in C code, is one step.
    """

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def run(self) -> None:
        last = time.process_time()
        while True:
            await anyio.sleep(0.001)  # the heartbeat: between two, the loop must not stand still
            now = time.process_time()
            self.longest_s = max(self.longest_s, now - last)
            last = now


def gateway_to(response: HostileResponse) -> Gateway:
    """Return a gateway to providers that send this response to every request."""
    data = response.body()
    transport = httpx.MockTransport(
        lambda _: httpx.Response(response.status, headers=response.headers, stream=Body(data))
    )
    settings = read_settings({"wait_seconds": WAIT_SECONDS}, ENVIRONMENT)
    catalog = build_catalog(load_builtin_tools(overlays=True), settings)
    return Gateway(catalog, settings, Client(settings, catalog.operations, transport))


async def call(gateway: Gateway, tool: str, arguments: dict[str, Any]) -> tuple[str, float]:
    """Make a call; return what the caller reads and the longest step of the event loop."""

    async def ignore(_: Progress) -> None:
        """Ignore progress."""

    heartbeat = Heartbeat()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(heartbeat.run)
        await anyio.sleep(0.01)  # the heartbeat begins before what is measured
        try:
            with anyio.fail_after(PATIENCE):
                text = (await gateway.call(tool, arguments, ignore)).text
        except CallError as exc:
            text = exc.to_line()
        tasks.cancel_scope.cancel()
    await gateway.aclose()
    return text, heartbeat.longest_s


def tool_for(media_type: str) -> tuple[str, dict[str, Any]]:
    if media_type == "text/event-stream":
        return "posthog-stream-task-run", RUN
    if media_type == JSON_LINES:
        return "posthog-get-task-run-logs", RUN
    return "posthog-list-task-runs", {"task_id": TASK}


@pytest.mark.parametrize("name", RESPONSES)
async def test_hostile_response_is_bounded_and_does_not_stop_the_event_loop(name: str) -> None:
    response = RESPONSES[name]
    text, longest_s = await call(gateway_to(response), *tool_for(response.media_type))
    assert len(text) < 60_000
    assert longest_s < MAX_STEP_S


@pytest.mark.parametrize(
    "name", ["as many objects as allowed", "as many names as allowed", "event of objects", "lines of lone surrogates"]
)
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("render-list-task-runs", {"all_pages": True}),
        ("posthog-retrieve-task-run", RUN),
        ("posthog-wait-for-run", {**RUN, "wait_seconds": 0}),
    ],
)
async def test_hostile_response_to_other_tools_does_not_stop_the_event_loop(
    name: str, tool: str, arguments: dict[str, Any]
) -> None:
    _, longest_s = await call(gateway_to(RESPONSES[name]), tool, arguments)
    assert longest_s < MAX_STEP_S
