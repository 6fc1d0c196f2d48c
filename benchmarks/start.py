"""Measure the time from process start to the first response to tools/list, compared with a bare SDK server.

    python benchmarks/start.py [--rounds 15] [--check] [--json FILE]

The servers are started in turn, so that other load on the machine affects both. CPU is the user and system time of the
server's process when its response arrives.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from harness import HERE, OURS, BenchmarkError, StdioClient, compare, conclude, cpu_seconds, launched, run

BARE = [sys.executable, str(HERE / "bare_server.py")]
LIMIT = 1.25
TIMEOUT_SECONDS = 60.0


def measure_start(command: Sequence[str]) -> tuple[float, float]:
    """Start a server and list its tools. Return the wall time and the CPU time in milliseconds."""
    started = time.monotonic()
    with launched(command) as child:
        client = StdioClient(child)
        client.initialize(started + TIMEOUT_SECONDS)
        result = client.request(1, "tools/list", {}, started + TIMEOUT_SECONDS)
        wall, cpu = time.monotonic() - started, cpu_seconds(child.pid)
        if not result["tools"]:
            raise BenchmarkError(f"{shlex.join(command)} lists no tools")
    return wall * 1000, cpu * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="starts per server (default: 15)")
    parser.add_argument("--warm-ups", type=int, default=2, help="starts per server that do not count (default: 2)")
    parser.add_argument("--quick", action="store_true", help="5 rounds")
    parser.add_argument("--ours", type=shlex.split, default=OURS, metavar="COMMAND", help="measure another server")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to FILE")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a requirement is missed")
    flags = parser.parse_args()

    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    rounds = 5 if flags.quick else flags.rounds
    for number in range(flags.warm_ups + rounds):
        for command, samples in ((flags.ours, ours), (BARE, theirs)):
            sample = measure_start(command)
            if number >= flags.warm_ups:
                samples.append(sample)
    print(f"Process start to the response to tools/list on stdio, medians of {rounds} rounds; theirs: bare_server.py\n")
    rows = [
        compare(f"start, {name}", "ms", [sample[n] for sample in ours], [sample[n] for sample in theirs], LIMIT)
        for n, name in enumerate(("wall", "CPU"))
    ]
    return conclude(rows, flags.json, flags.check)


if __name__ == "__main__":
    run(main)
