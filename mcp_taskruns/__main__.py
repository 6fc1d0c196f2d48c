"""`python -m mcp_taskruns`, and the console script."""

import sys

from mcp_taskruns.cli import run


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
