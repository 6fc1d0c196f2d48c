"""Test the REST API with Spectral and Schemathesis: `make test-rest`.

Spectral lints the OpenAPI document. Schemathesis calls every operation with valid and with invalid arguments. A 5xx
response, or one that the document does not describe, is a failure. The providers are simulated. The arguments are the
paths of the programs `spectral` and `schemathesis`.
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
"""The longest stream or wait that the fuzzer can ask for."""

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
LINT_SECONDS, FUZZ_SECONDS = PATIENCE, 8 * PATIENCE

LISTENING = re.compile(r"REST on (http://\S+)")


class Server:
    """A server process with its origin and its log."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._started = anyio.Event()
        self.origin = ""
        self.log: list[str] = []

    async def read_log(self) -> None:
        """Collect the log until the process ends."""
        assert self._process.stderr is not None
        rest = ""
        async for text in TextReceiveStream(self._process.stderr, errors="replace"):
            *lines, rest = (rest + text).split("\n")
            self.log += lines
            for line in lines:
                if match := LISTENING.search(line):
                    self.origin = match.group(1)
                    self._started.set()
        self.log.append(rest)
        self._started.set()

    async def is_listening(self) -> bool:
        """Wait until the server listens; return False if it does not."""
        with anyio.move_on_after(PATIENCE):
            await self._started.wait()
        return bool(self.origin)


@asynccontextmanager
async def running(command: Sequence[str]) -> AsyncIterator[Server]:
    """Run the server and stop it after the block."""
    async with await anyio.open_process(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        server = Server(process)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.read_log)
            try:
                yield server
            finally:
                if process.returncode is None:
                    process.terminate()
                with anyio.move_on_after(PATIENCE, shield=True):
                    await process.wait()
                if process.returncode is None:
                    process.kill()


async def run_tool(name: str, command: Sequence[str], seconds: float) -> bool:
    """Run a tool with its output shown; return whether it passes."""
    with tempfile.TemporaryDirectory() as folder:  # tools may write to the working directory
        process = await anyio.open_process(command, stdin=subprocess.DEVNULL, stdout=None, stderr=None, cwd=folder)
        async with process:
            with anyio.move_on_after(seconds):
                await process.wait()
            if process.returncode is None:
                process.kill()
                print(f"{name} did not end within {seconds:.0f} s", flush=True)
    return process.returncode == 0


async def main(spectral: str, schemathesis: str, command: Sequence[str] = SERVER) -> int:
    """Run both tools; return exit code 1 if one of them fails, or if the log has a traceback."""
    passed: dict[str, bool] = {}
    async with running(command) as server:
        if not await server.is_listening():
            print("\n".join(["The server did not start:", *server.log]))
            return 1
        async with httpx.AsyncClient(base_url=server.origin, trust_env=False, timeout=PATIENCE) as client:
            document = (await client.get("/openapi.json")).raise_for_status()
            page = (await client.get("/docs")).raise_for_status()
        passed["page"] = page.headers["content-type"].startswith("text/html") and "</html>" in page.text
        with tempfile.TemporaryDirectory() as folder:
            path = anyio.Path(folder) / "openapi.json"
            await path.write_bytes(document.content)
            passed["Spectral"] = await run_tool("Spectral", [spectral, *SPECTRAL, str(path)], LINT_SECONDS)
        url = f"{server.origin}/openapi.json"
        passed["Schemathesis"] = await run_tool("Schemathesis", [schemathesis, *SCHEMATHESIS, url], FUZZ_SECONDS)
    tracebacks = [number for number, line in enumerate(server.log) if line.startswith("Traceback")]
    passed["log"] = not tracebacks
    for number in tracebacks[:5]:
        print("\n".join(server.log[max(number - 1, 0) : number + 40]))
    print(", ".join(f"{name}: {'passed' if has_passed else 'FAILED'}" for name, has_passed in passed.items()))
    return int(not all(passed.values()))


if __name__ == "__main__":
    sys.exit(anyio.run(main, os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])))
