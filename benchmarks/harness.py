"""Shared by the benchmarks: child processes, CPU time and memory of processes, a stdio client, and result rows."""

import contextlib
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
OURS = [sys.executable, "-m", "mcp_taskruns", "serve"]
HANDSHAKE_VERSION = "2025-11-25"
CLIENT = {"name": "benchmark", "version": "1"}
Json = dict[str, Any]


class BenchmarkError(Exception):
    """A server did not do the work that is being measured, so the figures are meaningless."""


@dataclass
class Child:
    """A child process and the file with its stderr."""

    process: subprocess.Popen[bytes]
    stderr: IO[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    def read_stderr(self) -> str:
        """Return the end of stderr."""
        self.stderr.seek(0)
        return self.stderr.read()[-2000:].decode(errors="replace") or "(nothing on stderr)"


@contextlib.contextmanager
def launched(command: Sequence[str], env: dict[str, str] | None = None) -> Iterator[Child]:
    """Run a command with pipes until the block is left, then kill its process group."""
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            env=clean_environment() | (env or {}),
            cwd=ROOT,
            start_new_session=True,
        )
        try:
            yield Child(process, stderr)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=10)
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()


def clean_environment() -> dict[str, str]:
    """Return the environment without credentials, settings and proxies, which would affect a server."""
    excluded = ("RENDER_", "INNGEST_", "POSTHOG_", "RUNWAY", "MCP_", "PYTHON", "OTEL_")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(excluded) and not name.lower().endswith("_proxy")
    }


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of all threads of another process, with a resolution of nanoseconds.

    Linux derives the clock id from the pid (CPUCLOCK_SCHED in linux/posix-timers.h). /proc/<pid>/stat has a resolution
    of only 10 ms.
    """
    return time.clock_gettime((~pid << 3) | 2)


def resident_kib(pid: int) -> int:
    """Return the resident memory of a process in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise BenchmarkError(f"process {pid} has exited")


def encode_request(request_id: int, method: str, params: Json) -> bytes:
    """Return a JSON-RPC request."""
    message = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
    return json.dumps(message, separators=(",", ":")).encode()


INITIALIZE: Json = {"protocolVersion": HANDSHAKE_VERSION, "capabilities": {}, "clientInfo": CLIENT}
INITIALIZED = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'


class StdioClient:
    """A minimal MCP client on pipes, without an SDK: one write per message."""

    def __init__(self, child: Child) -> None:
        assert child.process.stdin
        assert child.process.stdout
        self.child = child
        self.stdin = child.process.stdin.fileno()
        self.stdout = child.process.stdout.fileno()
        self.unread = b""
        self.lines: list[bytes] = []
        os.set_blocking(self.stdin, False)
        os.set_blocking(self.stdout, False)
        self.readable = select.poll()
        self.readable.register(self.stdout, select.POLLIN)
        self.writable = select.poll()
        self.writable.register(self.stdin, select.POLLOUT)

    def initialize(self, deadline: float) -> None:
        """Do the handshake of 2025-11-25."""
        self.request(0, "initialize", INITIALIZE, deadline)
        self.send(INITIALIZED, deadline)

    def request(self, request_id: int, method: str, params: Json, deadline: float) -> Json:
        """Send a request and return the result of its response, which must be the next message."""
        self.send(encode_request(request_id, method, params), deadline)
        response: Json = json.loads(self.receive(deadline))
        if response.get("id") != request_id or "result" not in response:
            raise BenchmarkError(f"unexpected response to {method}: {response}")
        result: Json = response["result"]
        return result

    def send(self, message: bytes, deadline: float) -> None:
        """Write a message."""
        unsent = message + b"\n"
        while unsent:
            self.wait(self.writable, deadline)
            try:
                unsent = unsent[os.write(self.stdin, unsent) :]
            except BrokenPipeError:
                raise BenchmarkError(f"the server exited: {self.child.read_stderr()}") from None

    def receive(self, deadline: float) -> bytes:
        """Return the next line."""
        while not self.lines:
            self.wait(self.readable, deadline)
            data = os.read(self.stdout, 1 << 18)
            if not data:
                raise BenchmarkError(f"the server exited: {self.child.read_stderr()}")
            if b"\n" in data:
                *lines, self.unread = (self.unread + data).split(b"\n")
                self.lines = lines[::-1]
            else:
                self.unread += data
        return self.lines.pop()

    def wait(self, poll: select.poll, deadline: float) -> None:
        """Wait for a pipe. Raises BenchmarkError at the deadline (time.monotonic)."""
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise BenchmarkError(f"no response in time: {self.child.read_stderr()}")


@dataclass(frozen=True)
class Row:
    """One comparison. `ours` must be at most `limit` times `theirs`."""

    name: str
    unit: str
    ours: float
    theirs: float
    ratio: float
    paired: float | None
    limit: float | None

    @property
    def verdict(self) -> str:
        if self.limit is None:
            return ""
        return "ok" if self.ratio <= self.limit else "MISS"


def compare(name: str, unit: str, ours: Sequence[float], theirs: Sequence[float], limit: float | None) -> Row:
    """Compare the medians of rounds that ran in turn. `paired` is the median of the ratios of the rounds."""
    our_median, their_median = statistics.median(ours), statistics.median(theirs)
    paired = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return Row(name, unit, our_median, their_median, our_median / their_median, paired, limit)


def show(rows: Sequence[Row]) -> None:
    """Print the rows as a table."""
    width = max(len(row.name) for row in rows)
    print(f"{'':{width}}  {'ours':>9} {'theirs':>9} {'unit':5} {'ratio':>6} {'paired':>6} {'limit':>6}  verdict")
    for row in rows:
        paired = f"{row.paired:6.3f}" if row.paired is not None else " " * 6
        limit = f"{row.limit:6.2f}" if row.limit is not None else " " * 6
        figures = f"{row.ours:9.1f} {row.theirs:9.1f} {row.unit:5} {row.ratio:6.3f} {paired} {limit}"
        print(f"{row.name:{width}}  {figures}  {row.verdict}".rstrip())


def conclude(rows: Sequence[Row], json_file: Path | None, check: bool) -> int:
    """Print the rows and the requirements met and missed, write the rows to a file, and return the exit status."""
    show(rows)
    missed = [row.name for row in rows if row.verdict == "MISS"]
    limited = sum(row.limit is not None for row in rows)
    print(
        f"\n{limited - len(missed)} of {limited} requirements met" + "".join(f"\n  missed: {name}" for name in missed)
    )
    if json_file:
        json_file.write_text(json.dumps([asdict(row) | {"verdict": row.verdict} for row in rows], indent=2) + "\n")
    return 1 if check and missed else 0


def run(main: Callable[[], int]) -> NoReturn:
    """Run a benchmark as a program. SIGTERM also terminates its child processes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except BenchmarkError as exc:
        sys.exit(f"benchmark failed: {exc}")
