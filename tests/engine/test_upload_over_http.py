"""Uploads through a real MCP client and server."""

import anyio
import pytest

from mcp_taskruns.errors import InvalidArguments
from mcp_taskruns.simulator.app import Simulator
from tests.calls import POSTHOG_FAILED, POSTHOG_RUNNING, TASK
from tests.clients import open_client, open_gateway
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio


async def test_file_of_five_megabytes_is_accepted_over_http(simulator: Simulator, environment: dict[str, str]) -> None:
    big = {"name": "big.txt", "type": "context", "content": "x" * 5_000_000}
    arguments = {"task_id": TASK, "id": POSTHOG_FAILED, "body": {"artifacts": [big]}}
    with anyio.fail_after(PATIENCE):
        async with open_client("http", "auto", environment) as client:
            result = await client.call_tool("posthog-prepare-direct-uploads-task-run", arguments)
    assert not result.is_error
    assert any(len(request.body) > 5_000_000 for request in simulator.requests)


async def test_content_type_with_a_line_break_is_refused(simulator: Simulator, environment: dict[str, str]) -> None:
    evil = {"name": "a.txt", "type": "context", "content": "x", "content_type": "text/plain\r\nX-Evil: 1"}
    arguments = {"task_id": TASK, "id": POSTHOG_RUNNING, "body": {"artifacts": [evil]}}
    gateway = open_gateway(environment)
    with pytest.raises(InvalidArguments, match="content_type"):
        gateway.prepare("posthog-prepare-direct-uploads-task-run", arguments)
    assert simulator.requests == []
