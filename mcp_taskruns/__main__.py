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
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the end cannot be hastened, only disturbed
    sys.exit(code)


def _leave(number: int, _: FrameType | None) -> None:
    """End the process, with its clean-up: a server without an error, other commands as the shell expects."""
    command = sys.argv[1] if len(sys.argv) > 1 else "serve"
    sys.exit(0 if command in SERVERS or command.startswith("-") else 128 + number)


if __name__ == "__main__":
    main()
