"""Numbers that JSON does not have, NaN and the infinities, are refused by each server before anything is sent."""

import json
from typing import Any

import httpx
import pytest

from mcp_taskruns.servers.mcp.http import build_http_app
from mcp_taskruns.settings import Settings
from mcp_taskruns.simulator.app import Simulator
from tests.clients import listening, open_gateway
from tests.servers.mcp.test_stdio import ENVELOPE, running
from tests.servers.rest.driver import problem, served

pytestmark = pytest.mark.anyio

# Each as it is written in a request: Python's parsers accept the constants, and 1e999 is infinite as a double.
NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999"]

# The arguments of a call with a number in them, and the place that the error names
CALLS = [
    ("render-run-task", '{"body": {"task": "t", "input": [1, {"deep": [%s]}]}}', "body.input[1].deep[0]"),
    ("render-wait-for-run", '{"taskRunId": "trn-d5im0000000000000004", "wait_seconds": %s}', "wait_seconds"),
    ("render-list-task-runs", '{"limit": %s}', "limit"),
]


def call(tool: str, arguments: str) -> bytes:
    """Return a tools/call request with arguments that are not JSON."""
    meta = json.dumps(ENVELOPE)
    params = f'{{"name": "{tool}", "arguments": {arguments}, "_meta": {meta}}}'
    return f'{{"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {params}}}'.encode()


def error_text(response: dict[str, Any]) -> str:
    assert response["result"]["isError"], response
    text: str = response["result"]["content"][0]["text"]
    return text


@pytest.mark.parametrize("number", NUMBERS)
def test_non_finite_number_is_refused_over_stdio(number: str) -> None:
    with running() as process:
        process.handshake()
        for tool, arguments, place in CALLS:
            process.send_bytes(call(tool, arguments % number) + b"\n")
            assert error_text(process.receive()).startswith(f"{place}: must be a finite number. ")


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(("tool", "arguments", "place"), CALLS)
async def test_non_finite_number_is_refused_over_http(
    tool: str, arguments: str, place: str, number: str, environment: dict[str, str], simulator: Simulator
) -> None:
    app = build_http_app(open_gateway(environment), Settings())
    headers = {
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
    }
    async with listening(app) as origin, httpx.AsyncClient() as client:
        response = await client.post(f"{origin}/mcp", content=call(tool, arguments % number), headers=headers)
    assert f"{place}: must be a finite number. " in response.text
    assert simulator.requests == []


@pytest.mark.parametrize("number", NUMBERS)
async def test_non_finite_number_is_refused_by_rest(
    number: str, environment: dict[str, str], simulator: Simulator
) -> None:
    content = f'{{"task": "demo-workflow/square", "input": [1, {{"deep": [{number}]}}]}}'
    headers = {"Content-Type": "application/json"}
    async with served(environment) as side:
        body = problem(await side.client.post("/v1/task-runs", content=content, headers=headers))
        seconds = problem(await side.client.get(f"/v1/task-runs/events?taskRunIds=trn-1&wait_seconds={number}"))
    assert body["status"] == seconds["status"] == 400
    assert body["detail"] == "body.input[1].deep[0]: must be a finite number"
    assert seconds["detail"].startswith("wait_seconds: must be ")
    assert simulator.requests == []


async def test_huge_wait_seconds_is_limited_to_the_maximum(environment: dict[str, str]) -> None:
    arguments = {"taskRunId": "trn-d5im0000000000000001", "wait_seconds": 10**400}
    gateway = open_gateway(environment)
    try:
        result = await gateway.call("render-wait-for-run", arguments, _ignore)
    finally:
        await gateway.aclose()
    assert result.value["status"] == "succeeded"


async def _ignore(_: object) -> None:
    """Ignore progress."""
