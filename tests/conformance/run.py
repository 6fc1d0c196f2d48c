"""The task scenarios of the MCP conformance suite against this server: `make conformance`.

The suite is an npm package and needs Node 22 or newer. What it cannot see here is named in `EXPECTED_FAILURES`: checks
of tools that ask their user something, or that end in a protocol error; no run of a provider does either.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio
import anyio.to_thread

from mcp_taskruns.app import build_gateway, build_http_app
from mcp_taskruns.settings import Settings, read_settings
from tests.clients import listening
from tests.conformance.provider import Jobs

HERE = Path(__file__).parent

SCENARIOS = (
    "tasks-lifecycle",
    "tasks-capability-negotiation",
    "tasks-wire-fields",
    "tasks-request-state-removal",
    "tasks-request-headers",
    "tasks-dispatch-and-envelope",
    "tasks-required-task-error",
    "tasks-mrtr-input",
    "tasks-mrtr-composition",
)
EXPECTED_FAILURES = {
    "sep-2663-tasks-get-status-failed": "needs a tool whose task ends in a protocol error",
    "sep-2663-server-returns-missing-capability-when-required": "needs a tool that cannot be called without tasks",
    "sep-2663-tasks-get-status-input-required": "needs a tool that asks its user",
    "tasks-mrtr-tasks-update-resumes": "needs a tool that asks its user",
    "tasks-mrtr-partial-fulfillment": "needs a tool that asks its user twice",
    "sep-2663-mrtr-synchronous-before-task-creation": "needs a tool that asks its user first",
}


def run_scenario(node: str, suite: str, url: str, scenario: str) -> list[dict[str, str]]:
    """The checks of a scenario, as the suite writes them."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--scenario", scenario, "--spec-version", "2026-07-28", "--force", "-o", folder]
        command = [node, suite, "server", "--url", url, *options]
        subprocess.run(command, check=False, capture_output=True, timeout=120)
        (written,) = Path(folder).glob("*/checks.json")
        checks: list[dict[str, str]] = json.loads(written.read_text())
        return checks


async def main(node: str, suite: str) -> int:
    """Run all scenarios; the exit code is 1 when a check fails that should not, or passes that cannot."""
    wrong = 0
    failed: set[str] = set()
    async with listening(Jobs().app) as provider:
        flags = {"capabilities": (str(HERE / "capabilities"),), "tool_names": "spec"}
        gateway = build_gateway(read_settings(flags, {"JOBS_BASE_URL": provider}))
        async with listening(build_http_app(gateway, Settings())) as origin:
            for scenario in SCENARIOS:
                checks = await anyio.to_thread.run_sync(run_scenario, node, suite, f"{origin}/mcp", scenario)
                passed = [check for check in checks if check["status"] == "SUCCESS"]
                print(f"{scenario}: {len(passed)} of {len(checks)}")
                for check in checks:
                    if check["status"] == "FAILURE":
                        failed.add(check["id"])
                        reason = EXPECTED_FAILURES.get(check["id"])
                        wrong += reason is None
                        print(f"  {check['id']}: {reason or check.get('errorMessage')}")
    return int(wrong > 0 or failed != set(EXPECTED_FAILURES))


if __name__ == "__main__":
    sys.exit(anyio.run(main, sys.argv[1], sys.argv[2]))
