"""Measure CPU per call, bytes and memory, compared with a hand-written forwarder, with one provider on loopback.

    python benchmarks/calls.py [--quick] [--only WORD] [--check] [--json FILE]

Both servers run at the same time and are measured in turn, in many short bursts, so that other load on the machine
affects both. CPU is the user and system time of the server's process during a burst, divided by its calls. Every
response is compared with the provider's, and the provider must have received as many requests as there were calls.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from callers import Caller, Provider, run_provider, start_caller
from harness import (
    HANDSHAKE_VERSION,
    HERE,
    OURS,
    BenchmarkError,
    Row,
    compare,
    conclude,
    cpu_seconds,
    resident_kib,
    run,
)
from http_client import MODERN_VERSION
from upstream import BIG_BYTES, BIG_ID, SMALL_ID

FORWARDER = [sys.executable, str(HERE / "forwarder.py")]
WARM_UPS = 3

# Ratios to the forwarder: CPU per small call by transport, CPU and bytes of a 112 KB response, memory after all calls.
STDIO_LIMIT = 0.60
HTTP_2025_LIMIT = 1.0
HTTP_2026_LIMIT = 0.85
BIG_LIMIT = 1.3
MEMORY_LIMIT = 1.25
# Memory after all calls, compared with memory after half of them.
GROWTH_LIMIT = 1.03
# Name, protocol version, transport and limit of CPU per small call.
TRANSPORTS = (
    ("stdio", HANDSHAKE_VERSION, "stdio", STDIO_LIMIT),
    (f"HTTP {HANDSHAKE_VERSION[:4]}", HANDSHAKE_VERSION, "http", HTTP_2025_LIMIT),
    (f"HTTP {MODERN_VERSION[:4]}", MODERN_VERSION, "http", HTTP_2026_LIMIT),
)


@dataclass(frozen=True)
class Burst:
    """The costs of a number of calls."""

    # Microseconds per call.
    cpu: float
    wall: float
    # Size of the largest response.
    response_bytes: float


@dataclass(frozen=True)
class Plan:
    """How much to measure, and which rows."""

    rounds: int
    calls: int
    big_calls: int
    memory_calls: int
    only: str

    def includes(self, name: str) -> bool:
        """Check whether a row is to be measured."""
        return self.only in name


def measure(caller: Caller, run_id: str, calls: int, in_flight: int) -> Burst:
    """Measure one burst of calls."""
    wall, cpu = time.monotonic(), cpu_seconds(caller.pid)
    response_bytes = caller.run(run_id, calls, in_flight)
    cpu, wall = cpu_seconds(caller.pid) - cpu, time.monotonic() - wall
    return Burst(cpu / calls * 1e6, wall / calls * 1e6, response_bytes)


def measure_in_turn(
    callers: tuple[Caller, Caller], provider: Provider, rounds: int, *, run_id: str, calls: int, in_flight: int
) -> tuple[list[Burst], list[Burst]]:
    """Measure rounds of both servers, which take turns in going first. The first rounds warm up and do not count."""
    bursts: tuple[list[Burst], list[Burst]] = ([], [])
    for caller in callers:
        caller.prepare(in_flight)
    before = provider.count_requests()
    for number in range(WARM_UPS + rounds):
        for side in (0, 1) if number % 2 else (1, 0):
            bursts[side].append(measure(callers[side], run_id, calls, in_flight))
    expected = 2 * (WARM_UPS + rounds) * calls
    if (forwarded := provider.count_requests() - before) != expected:
        raise BenchmarkError(f"{expected} calls caused {forwarded} requests to the provider")
    return bursts[0][WARM_UPS:], bursts[1][WARM_UPS:]


def measure_calls(
    callers: tuple[Caller, Caller], provider: Provider, plan: Plan, name: str, limit: float
) -> Iterator[Row]:
    """Measure CPU and wall time of calls, and the bytes of a large response."""
    for in_flight in (1, 16, 64):
        title = f"{name}, {in_flight} in flight"
        if plan.includes(title):
            ours, theirs = measure_in_turn(
                callers,
                provider,
                plan.rounds,
                run_id=SMALL_ID,
                calls=max(plan.calls, 2 * in_flight),
                in_flight=in_flight,
            )
            yield compare(f"{title}: CPU", "us", [b.cpu for b in ours], [b.cpu for b in theirs], limit)
            yield compare(f"{title}: wall", "us", [b.wall for b in ours], [b.wall for b in theirs], None)
    title = f"{name}, 112 KB response"
    if plan.includes(title):
        ours, theirs = measure_in_turn(
            callers, provider, plan.rounds, run_id=BIG_ID, calls=plan.big_calls, in_flight=16
        )
        yield compare(f"{title}: CPU", "us", [b.cpu for b in ours], [b.cpu for b in theirs], BIG_LIMIT)
        kib = ours[-1].response_bytes / 1024
        sent = BIG_BYTES / 1024
        yield Row(f"{title}: sent / received", "KiB", kib, sent, kib / sent, None, BIG_LIMIT)


def measure_memory(callers: tuple[Caller, Caller], plan: Plan, name: str) -> Iterator[Row]:
    """Measure the resident memory of fresh servers after half of the calls and after all of them."""
    title = f"{name}, {plan.memory_calls:,} calls: memory"
    if not plan.includes(title):
        return
    halves: list[tuple[float, float]] = []
    for caller in callers:
        caller.prepare(16)
        sizes = []
        for _ in range(2):
            caller.run(SMALL_ID, plan.memory_calls // 2, 16)
            sizes.append(resident_kib(caller.pid) / 1024)
        halves.append((sizes[0], sizes[1]))
    (our_half, ours), (their_half, theirs) = halves
    yield Row(title, "MiB", ours, theirs, ours / theirs, None, MEMORY_LIMIT)
    yield Row(f"{title}, ours / at half", "MiB", ours, our_half, ours / our_half, None, GROWTH_LIMIT)
    yield Row(f"{title}, theirs / at half", "MiB", theirs, their_half, theirs / their_half, None, None)


def parse_arguments() -> tuple[argparse.Namespace, Plan]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="bursts per server (default: 60)")
    parser.add_argument(
        "--calls", type=int, default=64, help="calls per burst, at least two for each call in flight (default: 64)"
    )
    parser.add_argument("--quick", action="store_true", help="20 bursts, and memory after 2,000 calls")
    parser.add_argument(
        "--only", default="", metavar="WORD", help="only rows whose name contains WORD, e.g. stdio, 64, memory"
    )
    parser.add_argument("--ours", type=shlex.split, default=OURS, metavar="COMMAND", help="measure another server")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to FILE")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a requirement is missed")
    flags = parser.parse_args()
    if flags.quick:
        return flags, Plan(rounds=20, calls=flags.calls, big_calls=16, memory_calls=2_000, only=flags.only)
    big_calls = flags.calls // 2
    return flags, Plan(flags.rounds, flags.calls, big_calls=big_calls, memory_calls=10_000, only=flags.only)


def measure_all(ours_command: list[str], plan: Plan) -> list[Row]:
    """Measure every transport."""
    rows: list[Row] = []
    with run_provider() as provider:
        for name, version, transport, limit in TRANSPORTS:
            with (
                start_caller(ours_command, version, transport, provider) as ours,
                start_caller(FORWARDER, version, transport, provider) as theirs,
            ):
                # Measure memory first, while the servers have not handled other calls.
                memory = list(measure_memory((ours, theirs), plan, name))
                rows += [*measure_calls((ours, theirs), provider, plan, name, limit), *memory]
            print(f"{name} done", file=sys.stderr)
    return rows


def main() -> int:
    flags, plan = parse_arguments()
    rows = measure_all(flags.ours, plan)
    if not rows:
        sys.exit(f"no row contains {flags.only!r} in its name")
    print(f"Medians of {plan.rounds} bursts of {plan.calls} calls; theirs: forwarder.py\n")
    return conclude(rows, flags.json, flags.check)


if __name__ == "__main__":
    run(main)
