"""A server process whose provider is hostile, while another client reads `/health` every 50 ms.

`python -m tests.stress` tries all hostile responses. It prints the longest gap between two responses to that client and
the server's peak memory, and exits with 1 if one of them exceeds its limit. It takes about a minute.
"""

import os
import re
import sys
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx
from mcp.client import Client

from tests.calls import TASK
from tests.engine.raw_server import listening, receive_head
from tests.hostile import JSON_LINES, RESPONSES, HostileResponse
from tests.timing import PATIENCE

MAX_GAP_S = 0.5
"""The longest time between two responses to the client of `/health` on an idle machine with two cores."""

MAX_MEMORY_MB = 400

INTERVAL_S = 0.05
CALLERS = 4
CHUNK_BYTES = 200_000

_RUN_ID = re.compile(rb"00000000-0000-4000-8000-(\d{12})")


@dataclass
class Outcome:
    """What the client of `/health` and the callers saw."""

    longest_gap_s: float = 0.0
    health_responses: int = 0
    memory_mb: float = 0.0
    texts: dict[str, str] = field(default_factory=dict)


class Provider:
    """Sends the response whose number is in the id of the run."""

    def __init__(self, responses: Sequence[HostileResponse]) -> None:
        self._prepared = [_message(response) for response in responses]

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        match = _RUN_ID.search(await receive_head(stream))
        assert match is not None
        message = memoryview(self._prepared[int(match.group(1))])
        for start in range(0, len(message), CHUNK_BYTES):
            await stream.send(bytes(message[start : start + CHUNK_BYTES]))


def _message(response: HostileResponse) -> bytes:
    body = response.body()
    headers = {**response.headers, "Content-Length": str(len(body)), "Connection": "close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {response.status} Hostile\r\n{lines}\r\n".encode() + body


def _tool_for(response: HostileResponse) -> str:
    if response.media_type == "text/event-stream":
        return "posthog-stream-task-run"
    return "posthog-get-task-run-logs" if response.media_type == JSON_LINES else "posthog-retrieve-task-run"


@asynccontextmanager
async def _server(provider: str) -> Any:
    """Start a server over HTTP; yield its process and its origin."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith(("_proxy", "_PROXY"))}
    environment |= {"POSTHOG_API_KEY": "phx_key-123456", "POSTHOG_PROJECT_ID": "1", "POSTHOG_BASE_URL": provider}
    environment["MCP_TASKRUNS_WAIT_SECONDS"] = "5"  # the run of a hostile stream never ends
    command = [sys.executable, "-m", "mcp_taskruns", "serve", "--transport", "http", "--port", "0"]
    async with await anyio.open_process(command, env=environment, stdout=None) as process:
        try:
            log, origin = b"", None
            assert process.stderr is not None
            with anyio.fail_after(PATIENCE):
                while origin is None:
                    log += await process.stderr.receive()
                    origin = re.search(rb"http://127\.0\.0\.1:\d+", log)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_drain, process.stderr)
                yield process, origin.group().decode()
                tasks.cancel_scope.cancel()
        finally:
            process.kill()


async def _drain(stream: anyio.abc.ByteReceiveStream) -> None:
    async for _ in stream:
        pass


async def _read_health(origin: str, outcome: Outcome) -> None:
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as client:
        last = anyio.current_time()
        while True:
            response = await client.get(f"{origin}/health")
            response.raise_for_status()
            now = anyio.current_time()
            outcome.longest_gap_s = max(outcome.longest_gap_s, now - last - INTERVAL_S)
            outcome.health_responses += 1
            last = now
            await anyio.sleep(INTERVAL_S)  # how often the client reads


async def _call(origin: str, names: Sequence[str], numbers: Sequence[int], outcome: Outcome) -> None:
    async with Client(f"{origin}/mcp", mode="auto") as client:
        for number in numbers:
            run = f"00000000-0000-4000-8000-{number:012}"
            tool = _tool_for(RESPONSES[names[number]])
            result = await client.call_tool(tool, {"task_id": TASK, "id": run})
            outcome.texts[names[number]] = getattr(result.content[0], "text", "")


async def stress(names: Sequence[str]) -> Outcome:
    """Call tools that get these responses, from several clients at a time, and return what was seen meanwhile."""
    outcome = Outcome()
    provider = Provider([RESPONSES[name] for name in names])
    async with listening(provider.serve) as address, _server(address) as (process, origin):
        async with anyio.create_task_group() as health:
            health.start_soon(_read_health, origin, outcome)
            async with anyio.create_task_group() as callers:
                for first in range(CALLERS):
                    callers.start_soon(_call, origin, names, range(first, len(names), CALLERS), outcome)
            health.cancel_scope.cancel()
        outcome.memory_mb = _peak_memory_mb(process.pid)
    return outcome


def _peak_memory_mb(pid: int) -> float:
    """Return the peak of a process's resident memory; 0 on a system without /proc."""
    status = Path(f"/proc/{pid}/status")
    peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(peak.group(1)) / 1_000 if peak else 0.0


def main() -> int:
    outcome = anyio.run(stress, list(RESPONSES))
    print(f"{len(outcome.texts)} responses; {outcome.health_responses} responses to /health")
    print(f"longest gap {outcome.longest_gap_s:.3f} s (at most {MAX_GAP_S}); ", end="")
    print(f"peak memory {outcome.memory_mb:.0f} MB (at most {MAX_MEMORY_MB})")
    return int(outcome.longest_gap_s > MAX_GAP_S or outcome.memory_mb > MAX_MEMORY_MB)


if __name__ == "__main__":
    sys.exit(main())
