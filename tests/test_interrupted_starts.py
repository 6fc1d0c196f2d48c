"""SIGINT and SIGTERM in the middle of a start: the run, or the key and how to find it, are reported.

Over stdio, over HTTP and on the command line.
"""

import json
import signal
from typing import Any

import anyio
import httpx
import pytest

from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.servers.mcp.test_stdio import Process, running
from tests.servers.test_http import running as serving
from tests.servers.test_http import wait_until_listening
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

START: dict[str, Any] = {"body": {"task": "demo-workflow/slow", "input": []}, "wait_seconds": 45}
NEW = "trn-d5im0000000000000005"
"""The id of the first run that a test starts at the simulated Render."""

STAGES = {"waiting": "was started and continues at the provider", "starting": "The run may exist"}

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}


async def reach(stage: str, simulator: Simulator) -> None:
    """Wait until the start has reached a stage."""
    part = "/events" if stage == "waiting" else "/task-runs"
    await simulator.wait_for_request(lambda request: part in request.path)


def delay_start(stage: str, simulator: Simulator) -> None:
    if stage == "starting":
        simulator.fail_next("render", Fault(delay=PATIENCE))


def assert_explained(text: str, stage: str, simulator: Simulator) -> None:
    key = json.loads(simulator.requests[0].body)["idempotencyKey"]
    assert STAGES[stage] in text
    assert key in text
    assert (NEW if stage == "waiting" else "render-list-task-runs") in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
@pytest.mark.parametrize("stage", STAGES)
async def test_signal_during_a_start_over_stdio_is_explained_to_the_client(
    stage: str, number: signal.Signals, simulator: Simulator, environment: dict[str, str]
) -> None:
    def start(process: Process) -> None:
        process.handshake()
        process.call(2, "render-run-task", **START)

    def stop(process: Process) -> tuple[dict[str, Any], int, str]:
        process.child.send_signal(number)
        message = process.receive()
        while message.get("id") != 2:
            message = process.receive()
        code, _, log = process.wait()
        return message, code, log

    delay_start(stage, simulator)
    with running(environment) as process, anyio.fail_after(PATIENCE):
        await anyio.to_thread.run_sync(start, process)
        await reach(stage, simulator)
        message, code, log = await anyio.to_thread.run_sync(stop, process)
    assert (code, log) == (0, "")
    assert message["result"]["isError"] is True
    assert_explained(message["result"]["content"][0]["text"], stage, simulator)


@pytest.mark.parametrize("stage", STAGES)
async def test_signal_during_a_start_over_http_is_explained_to_the_client(
    stage: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "render-run-task",
    }
    params = {"name": "render-run-task", "arguments": START, "_meta": META}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    texts: list[str] = []
    delay_start(stage, simulator)
    with serving(environment) as child, anyio.fail_after(PATIENCE):
        origin = await anyio.to_thread.run_sync(wait_until_listening, child)
        async with httpx.AsyncClient(timeout=PATIENCE) as client, anyio.create_task_group() as tasks:

            async def start() -> None:
                texts.append((await client.post(f"{origin}/mcp", json=body, headers=headers)).text)

            tasks.start_soon(start)
            await reach(stage, simulator)
            child.send_signal(signal.SIGTERM)
    assert_explained(texts[0], stage, simulator)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
@pytest.mark.parametrize("stage", STAGES)
async def test_signal_during_a_start_on_the_command_line_is_explained(
    stage: str, number: signal.Signals, simulator: Simulator, environment: dict[str, str]
) -> None:
    def stop(process: Process) -> tuple[int, float, str]:
        process.child.send_signal(number)
        return process.wait()

    delay_start(stage, simulator)
    program = ("-m", "mcp_taskruns", "call", "render-run-task", json.dumps(START))
    with running(environment, program) as process, anyio.fail_after(PATIENCE):
        await reach(stage, simulator)
        code, _, log = await anyio.to_thread.run_sync(stop, process)
    assert code == 128 + number
    assert "interrupted." in log
    assert "Traceback" not in log
    assert_explained(log, stage, simulator)
