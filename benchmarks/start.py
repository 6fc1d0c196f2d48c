"""How long until a host can show our tools: process start to the first tools/list answer, against a bare SDK server.

    python benchmarks/start.py [--rounds 15] [--check] [--json FILE]

Both are started in turn, so that what else the machine does meets both. CPU is user and system time of the server's
process when its answer arrives.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from harness import HERE, OURS, BenchmarkError, StdioClient, compare, conclude, cpu_seconds, launched, run

BARE = [sys.executable, str(HERE / "bare_server.py")]
LIMIT = 1.15
PATIENCE = 60.0


def measure_start(command: Sequence[str]) -> tuple[float, float]:
    """Start a server and ask for its tools: milliseconds on the wall and on the CPU."""
    started = time.monotonic()
    with launched(command) as child:
        client = StdioClient(child)
        client.initialize(started + PATIENCE)
        result = client.request(1, "tools/list", {}, started + PATIENCE)
        wall, cpu = time.monotonic() - started, cpu_seconds(child.pid)
        if not result["tools"]:
            raise BenchmarkError(f"{shlex.join(command)} lists no tools")
    return wall * 1000, cpu * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="starts of each server (15)")
    parser.add_argument("--warm-ups", type=int, default=2, help="starts of each that do not count (2)")
    parser.add_argument("--quick", action="store_true", help="5 rounds")
    parser.add_argument("--ours", type=shlex.split, default=OURS, metavar="COMMAND", help="another server to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a requirement is missed")
    flags = parser.parse_args()

    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    rounds = 5 if flags.quick else flags.rounds
    for number in range(flags.warm_ups + rounds):
        for command, samples in ((flags.ours, ours), (BARE, theirs)):
            sample = measure_start(command)
            if number >= flags.warm_ups:
                samples.append(sample)
    print(
        f"Process start to the first tools/list answer on stdio, medians of {rounds} rounds; theirs: bare_server.py\n"
    )
    rows = [
        compare(f"start, {name}", "ms", [sample[n] for sample in ours], [sample[n] for sample in theirs], LIMIT)
        for n, name in enumerate(("wall", "CPU"))
    ]
    return conclude(rows, flags.json, flags.check)


if __name__ == "__main__":
    run(main)
