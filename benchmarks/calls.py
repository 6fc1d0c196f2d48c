"""What a call costs: CPU per call, bytes and memory, against a hand-written forwarder on one loopback provider.

    python benchmarks/calls.py [--quick] [--only WORD] [--check] [--json FILE]

Both servers are up at once and measured in turn, in many short bursts, so that what else the machine does meets both.
CPU is user and system time of the server's process over a burst, divided by its calls. Every answer is read and
compared with what the provider sent, and the provider must have seen as many requests as there were calls.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import shlex
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness import (
    HANDSHAKE_VERSION,
    HERE,
    OURS,
    BenchmarkError,
    Child,
    Json,
    Row,
    StdioClient,
    compare,
    conclude,
    cpu_seconds,
    encode_request,
    launched,
    resident_kib,
    run,
)
from http_client import MODERN_VERSION, Connection, Session
from upstream import BIG_BYTES, BIG_ID, KEY, describe_big_run, describe_run

FORWARDER = [sys.executable, str(HERE / "forwarder.py")]
UPSTREAM = [sys.executable, str(HERE / "upstream.py")]
TOOL = "render-retrieve-task-run"
WARM_UPS = 3
SMALL_ID = "trn-d4kq5m6uk2gs73f3v0bg"
EXPECTED = {SMALL_ID: describe_run(SMALL_ID), BIG_ID: describe_big_run()}

STDIO_LIMIT = 0.85
HTTP_LIMIT = 1.0
BIG_LIMIT = 1.3
MEMORY_LIMIT = 1.15
FLAT_LIMIT = 1.03


@dataclass(frozen=True)
class Burst:
    """What a number of calls took: CPU and wall in microseconds a call, and the bytes of one answer."""

    cpu: float
    wall: float
    answer_bytes: float


@dataclass(frozen=True)
class Plan:
    rounds: int
    calls: int
    big_calls: int
    memory_calls: int
    only: str

    def wants(self, name: str) -> bool:
        return self.only in name


class Door(Protocol):
    """One way into one server."""

    pid: int

    def prepare(self, in_flight: int) -> None:
        """Connect for so many calls at a time."""

    def run(self, run_id: str, calls: int, in_flight: int) -> float:
        """Make calls, so many at a time, and check their answers: the bytes of the longest one."""


class StdioDoor:
    def __init__(self, child: Child) -> None:
        self.pid = child.pid
        self.client = StdioClient(child)
        self.client.initialize(time.monotonic() + 60)
        self.ids = itertools.count(1)

    def prepare(self, in_flight: int) -> None:
        pass

    def run(self, run_id: str, calls: int, in_flight: int) -> float:
        deadline = time.monotonic() + patience(calls)
        params = {"name": TOOL, "arguments": {"taskRunId": run_id}}
        pending: set[int] = set()
        longest = sent = 0
        while sent < calls or pending:
            while sent < calls and len(pending) < in_flight:
                request_id = next(self.ids)
                self.client.send(encode_request(request_id, "tools/call", params), deadline)
                pending.add(request_id)
                sent += 1
            line = self.client.receive(deadline)
            message = json.loads(line)
            if "id" in message:
                pending.remove(message["id"])
                check_answer(message, run_id)
                longest = max(longest, len(line))
        return longest


class HttpDoor:
    def __init__(self, child: Child, port: int, era: str) -> None:
        self.pid = child.pid
        self.ids = itertools.count(1)
        self.runner = asyncio.Runner()
        self.connections: list[Connection] = []
        self.session = self.runner.run(asyncio.wait_for(Session.open(port, era, TOOL), 30))

    def prepare(self, in_flight: int) -> None:
        self.runner.run(asyncio.wait_for(self.reconnect(in_flight), 30))

    async def reconnect(self, count: int) -> None:
        for connection in self.connections:
            await connection.close()
        self.connections = [await Connection.open(self.session.port) for _ in range(count)]

    async def reopen_closed(self) -> None:
        """A server hangs up on a connection that was idle for five seconds, while the other was measured."""
        for _ in range(3):
            await asyncio.sleep(0)
        for place, connection in enumerate(self.connections):
            if connection.reader.at_eof():
                await connection.close()
                self.connections[place] = await Connection.open(self.session.port)

    def run(self, run_id: str, calls: int, in_flight: int) -> float:
        return self.runner.run(asyncio.wait_for(self.run_connections(run_id, calls, in_flight), patience(calls)))

    def close(self) -> None:
        self.prepare(0)
        self.runner.close()

    async def run_connections(self, run_id: str, calls: int, in_flight: int) -> int:
        params = {"name": TOOL, "arguments": {"taskRunId": run_id}}
        turns = iter(range(calls))
        longest = 0

        async def work(connection: Connection) -> None:
            nonlocal longest
            for _ in turns:
                message, size = await self.session.call(connection, next(self.ids), params)
                check_answer(message, run_id)
                longest = max(longest, size)

        await self.reopen_closed()
        async with asyncio.TaskGroup() as group:
            for connection in self.connections[:in_flight]:
                group.create_task(work(connection))
        return longest


@dataclass(frozen=True)
class Upstream:
    port: int

    @property
    def environment(self) -> dict[str, str]:
        return {
            "RENDER_BASE_URL": f"http://127.0.0.1:{self.port}/v1",
            "RENDER_API_KEY": KEY,
            "MCP_TASKRUNS_MAX_RESULT_CHARS": "1000000",
            # 400 reads a minute would be no benchmark.
            "MCP_TASKRUNS_NO_RATE_LIMITS": "1",
        }

    def count_requests(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/requests", timeout=10) as answer:
            return int(answer.read())


def patience(calls: int) -> float:
    return 60 + calls * 0.05


def check_answer(message: Json, run_id: str) -> None:
    """The text must be the provider's answer, whole: otherwise the two servers did not do the same work."""
    result = message.get("result")
    if not result or result.get("isError") or json.loads(result["content"][0]["text"]) != EXPECTED[run_id]:
        raise BenchmarkError(f"the tool answered {json.dumps(message)[:2000]}")


@contextlib.contextmanager
def provider() -> Iterator[Upstream]:
    with launched(UPSTREAM) as child:
        assert child.process.stdout
        yield Upstream(int(child.process.stdout.readline()))


@contextlib.contextmanager
def opened(command: list[str], era: str, transport: str, upstream: Upstream) -> Iterator[Door]:
    if transport == "stdio":
        with launched(command, upstream.environment) as child:
            yield StdioDoor(child)
        return
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with launched([*command, "--transport", "http", "--port", str(port)], upstream.environment) as child:
        wait_for_port(port, child)
        with contextlib.closing(HttpDoor(child, port, era)) as door:
            yield door


def wait_for_port(port: int, child: Child) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and child.process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise BenchmarkError(f"no server on port {port}: {child.complaint()}")


def measure(door: Door, run_id: str, calls: int, in_flight: int) -> Burst:
    wall, cpu = time.monotonic(), cpu_seconds(door.pid)
    answer_bytes = door.run(run_id, calls, in_flight)
    cpu, wall = cpu_seconds(door.pid) - cpu, time.monotonic() - wall
    return Burst(cpu / calls * 1e6, wall / calls * 1e6, answer_bytes)


def measure_in_turn(
    doors: tuple[Door, Door], upstream: Upstream, rounds: int, *, run_id: str, calls: int, in_flight: int
) -> tuple[list[Burst], list[Burst]]:
    """Rounds of both, each going first in every other round; the first rounds warm up and do not count."""
    bursts: tuple[list[Burst], list[Burst]] = ([], [])
    for door in doors:
        door.prepare(in_flight)
    seen = upstream.count_requests()
    for number in range(WARM_UPS + rounds):
        for side in (0, 1) if number % 2 else (1, 0):
            bursts[side].append(measure(doors[side], run_id, calls, in_flight))
    expected = 2 * (WARM_UPS + rounds) * calls
    if (forwarded := upstream.count_requests() - seen) != expected:
        raise BenchmarkError(f"{expected} calls became {forwarded} requests")
    return bursts[0][WARM_UPS:], bursts[1][WARM_UPS:]


def measure_calls(doors: tuple[Door, Door], upstream: Upstream, plan: Plan, name: str, limit: float) -> Iterator[Row]:
    for in_flight in (1, 16, 64):
        title = f"{name}, {in_flight} in flight"
        if plan.wants(title):
            ours, theirs = measure_in_turn(
                doors, upstream, plan.rounds, run_id=SMALL_ID, calls=max(plan.calls, 2 * in_flight), in_flight=in_flight
            )
            yield compare(f"{title}: CPU", "us", [b.cpu for b in ours], [b.cpu for b in theirs], limit)
            yield compare(f"{title}: wall", "us", [b.wall for b in ours], [b.wall for b in theirs], None)
    title = f"{name}, 112 KB answer"
    if plan.wants(title):
        ours, theirs = measure_in_turn(doors, upstream, plan.rounds, run_id=BIG_ID, calls=plan.big_calls, in_flight=16)
        yield compare(f"{title}: CPU", "us", [b.cpu for b in ours], [b.cpu for b in theirs], BIG_LIMIT)
        kib = ours[-1].answer_bytes / 1024
        sent = BIG_BYTES / 1024
        yield Row(f"{title}: sent / received", "KiB", kib, sent, kib / sent, None, BIG_LIMIT)


def measure_memory(doors: tuple[Door, Door], plan: Plan, name: str) -> Iterator[Row]:
    """Resident memory of fresh servers after half of the calls and after all."""
    title = f"{name}, {plan.memory_calls:,} calls: memory"
    if not plan.wants(title):
        return
    halves: list[tuple[float, float]] = []
    for door in doors:
        door.prepare(16)
        sizes = []
        for _ in range(2):
            door.run(SMALL_ID, plan.memory_calls // 2, 16)
            sizes.append(resident_kib(door.pid) / 1024)
        halves.append((sizes[0], sizes[1]))
    (our_half, ours), (their_half, theirs) = halves
    yield Row(title, "MiB", ours, theirs, ours / theirs, None, MEMORY_LIMIT)
    yield Row(f"{title}, ours / at half", "MiB", ours, our_half, ours / our_half, None, FLAT_LIMIT)
    yield Row(f"{title}, theirs / at half", "MiB", theirs, their_half, theirs / their_half, None, None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="bursts of each server (60)")
    parser.add_argument("--calls", type=int, default=64, help="calls a burst, at least two for each in flight (64)")
    parser.add_argument("--quick", action="store_true", help="20 bursts, memory after 2,000 calls")
    parser.add_argument(
        "--only", default="", metavar="WORD", help="only rows with this in their names: stdio, 64, memory"
    )
    parser.add_argument("--ours", type=shlex.split, default=OURS, metavar="COMMAND", help="another server to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a requirement is missed")
    flags = parser.parse_args()
    if flags.quick:
        plan = Plan(rounds=20, calls=flags.calls, big_calls=16, memory_calls=2_000, only=flags.only)
    else:
        plan = Plan(flags.rounds, flags.calls, big_calls=flags.calls // 2, memory_calls=10_000, only=flags.only)

    ways = (
        ("stdio", HANDSHAKE_VERSION, "stdio", STDIO_LIMIT),
        (f"HTTP {HANDSHAKE_VERSION[:4]}", HANDSHAKE_VERSION, "http", HTTP_LIMIT),
        (f"HTTP {MODERN_VERSION[:4]}", MODERN_VERSION, "http", HTTP_LIMIT),
    )
    rows: list[Row] = []
    with provider() as upstream:
        for name, era, transport, limit in ways:
            with (
                opened(flags.ours, era, transport, upstream) as ours,
                opened(FORWARDER, era, transport, upstream) as theirs,
            ):
                # Memory first: it is that of servers which have done nothing else.
                memory = list(measure_memory((ours, theirs), plan, name))
                rows += [*measure_calls((ours, theirs), upstream, plan, name, limit), *memory]
            print(f"{name} done", file=sys.stderr)
    if not rows:
        parser.error(f"no row has {flags.only!r} in its name")
    print(f"Medians of {plan.rounds} bursts of {plan.calls} calls; theirs: forwarder.py\n")
    return conclude(rows, flags.json, flags.check)


if __name__ == "__main__":
    run(main)
