"""The entry point: `python -m mcp_taskruns` and the console script."""

import signal
import sys
from types import FrameType

from mcp_taskruns.garbage import pause_collection

SERVERS = {"serve", "simulate"}
"""Commands that run until they are stopped, so a signal is not a failure."""


def main() -> None:
    """Run the command line and exit with its status."""
    signal.signal(signal.SIGINT, _exit)
    signal.signal(signal.SIGTERM, _exit)
    with pause_collection():
        from mcp_taskruns.cli import run  # after the handlers are set: importing takes long enough to be interrupted

    status = run()
    _ignore_signals()
    sys.exit(status)


def _ignore_signals() -> None:
    """Let the interpreter shut down without interruption."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _exit(number: int, _: FrameType | None) -> None:
    """Exit with clean-up: with status 0 for a server, else with that of a command ended by the signal."""
    _ignore_signals()
    command = sys.argv[1] if len(sys.argv) > 1 else "serve"
    sys.exit(0 if command in SERVERS or command.startswith("-") else 128 + number)


if __name__ == "__main__":
    main()
