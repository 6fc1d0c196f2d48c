"""The REST side under Spectral and Schemathesis: `make test-rest`.

Spectral lints the OpenAPI document; Schemathesis calls every operation that it tells of, with arguments that fit and
with arguments that do not: an answer of 5xx is a failure, and one that the document does not tell of. The providers are
simulated. Arguments: the programs `spectral` and `schemathesis`.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from tests.timing import PATIENCE

HERE = Path(__file__).parent

MAX_WAIT_SECONDS = 2
"""How long a stream or a wait lasts at most, whatever the fuzzer asks for."""

SERVER = (
    *(sys.executable, "-m", "mcp_taskruns", "serve", "--transport", "http", "--port", "0"),
    *("--rest", "--rest-port", "0", "--simulate", "--speed", "100", "--no-rate-limits"),
    *("--wait-seconds", "1", "--max-wait-seconds", str(MAX_WAIT_SECONDS)),
)
SPECTRAL = ("lint", "--ruleset", str(HERE / ".spectral.yaml"), "--fail-severity", "warn")
SCHEMATHESIS = (
    *("--config-file", str(HERE / "schemathesis.toml"), "run", "--no-color", "--phases", "examples,coverage,fuzzing"),
    *("--max-examples", "15", "--generation-deterministic", "--suppress-health-check", "all"),
    *("--request-timeout", str(10 * MAX_WAIT_SECONDS)),
)
START_SECONDS, LINT_SECONDS, FUZZ_SECONDS, STOP_SECONDS = 30, 60, 480, 15

_TOLD = re.compile(r"REST on (http://\S+)")


class Server:
    """The server in a process of its own: where it listens, and what it logged."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._started = anyio.Event()
        self.origin = ""
        self.log: list[str] = []

    async def read_log(self) -> None:
        """Collect what the process logs until it ends."""
        assert self._process.stderr is not None
        rest = ""
        async for text in TextReceiveStream(self._process.stderr, errors="replace"):
            *lines, rest = (rest + text).split("\n")
            self.log += lines
            for line in lines:
                if told := _TOLD.search(line):
                    self.origin = told.group(1)
                    self._started.set()
        self.log.append(rest)
        self._started.set()

    async def is_listening(self) -> bool:
        """Whether it listens, after waiting for it to."""
        with anyio.move_on_after(START_SECONDS):
            await self._started.wait()
        return bool(self.origin)


@asynccontextmanager
async def running(command: Sequence[str]) -> AsyncIterator[Server]:
    """The server, whether it listens or not; it is ended on the way out."""
    async with await anyio.open_process(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        server = Server(process)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.read_log)
            try:
                yield server
            finally:
                if process.returncode is None:
                    process.terminate()
                with anyio.move_on_after(STOP_SECONDS, shield=True):
                    await process.wait()
                if process.returncode is None:
                    process.kill()


async def run_tool(name: str, command: Sequence[str], seconds: float) -> bool:
    """Whether the tool finds nothing wrong; what it says is shown."""
    with tempfile.TemporaryDirectory() as folder:  # tools may write beside themselves
        process = await anyio.open_process(command, stdin=subprocess.DEVNULL, stdout=None, stderr=None, cwd=folder)
        async with process:
            with anyio.move_on_after(seconds):
                await process.wait()
            if process.returncode is None:
                process.kill()
                print(f"{name} did not end within {seconds} s", flush=True)
    return process.returncode == 0


async def main(spectral: str, schemathesis: str, command: Sequence[str] = SERVER) -> int:
    """Run both tools; the exit code is 1 when one of them, or the server's log, tells of anything wrong."""
    found: dict[str, bool] = {}
    async with running(command) as server:
        if not await server.is_listening():
            print("\n".join(["the server does not say where its REST side is:", *server.log]))
            return 1
        async with httpx.AsyncClient(base_url=server.origin, trust_env=False, timeout=PATIENCE) as client:
            document = (await client.get("/openapi.json")).raise_for_status()
            page = (await client.get("/docs")).raise_for_status()
        found["page"] = page.headers["content-type"].startswith("text/html") and "</html>" in page.text
        with tempfile.TemporaryDirectory() as folder:
            path = anyio.Path(folder) / "openapi.json"
            await path.write_bytes(document.content)
            found["Spectral"] = await run_tool("Spectral", [spectral, *SPECTRAL, str(path)], LINT_SECONDS)
        url = f"{server.origin}/openapi.json"
        found["Schemathesis"] = await run_tool("Schemathesis", [schemathesis, *SCHEMATHESIS, url], FUZZ_SECONDS)
    tracebacks = [place for place, line in enumerate(server.log) if line.startswith("Traceback")]
    found["log"] = not tracebacks
    for place in tracebacks[:5]:
        print("\n".join(server.log[max(place - 1, 0) : place + 40]))
    print(", ".join(f"{name}: {'passed' if passed else 'FAILED'}" for name, passed in found.items()))
    return int(not all(found.values()))


if __name__ == "__main__":
    sys.exit(anyio.run(main, os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])))
