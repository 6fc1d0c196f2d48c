"""`python -m mcp_taskruns`, and the console script."""

import signal
import sys
from types import FrameType

SERVERS = {"serve", "simulate"}


def main() -> None:
    """Run the command line and exit with its code."""
    signal.signal(signal.SIGINT, _leave)
    signal.signal(signal.SIGTERM, _leave)
    from mcp_taskruns.cli import run  # after the signals: importing takes half a second, in which some already leave

    code = run()
    _ignore_signals()
    sys.exit(code)


def _ignore_signals() -> None:
    """The end cannot be hastened, only disturbed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _leave(number: int, _: FrameType | None) -> None:
    """End the process, with its clean-up: a server without an error, other commands as the shell expects."""
    _ignore_signals()
    command = sys.argv[1] if len(sys.argv) > 1 else "serve"
    sys.exit(0 if command in SERVERS or command.startswith("-") else 128 + number)


if __name__ == "__main__":
    main()
