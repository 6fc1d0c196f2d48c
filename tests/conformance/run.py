"""Run the task scenarios of the MCP conformance suite against this server: `make conformance`.

The suite is an npm package and needs Node 22 or newer. `EXPECTED_FAILURES` lists the checks that cannot pass. They need
tools that ask the user, or whose tasks end in a protocol error. The tools of this server do neither.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio
import anyio.to_thread

from mcp_taskruns.app import build_gateway
from mcp_taskruns.servers.mcp.http import build_http_app
from mcp_taskruns.settings import Settings, read_settings
from tests.clients import listening
from tests.conformance.provider import Jobs
from tests.timing import PATIENCE

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
    "sep-2663-tasks-get-status-input-required": "needs a tool that asks the user",
    "tasks-mrtr-tasks-update-resumes": "needs a tool that asks the user",
    "tasks-mrtr-partial-fulfillment": "needs a tool that asks the user twice",
    "sep-2663-mrtr-synchronous-before-task-creation": "needs a tool that asks the user first",
}


def run_scenario(node: str, suite: str, url: str, scenario: str) -> list[dict[str, str]]:
    """Run a scenario and return its checks as the suite writes them."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--scenario", scenario, "--spec-version", "2026-07-28", "--force", "-o", folder]
        command = [node, suite, "server", "--url", url, *options]
        subprocess.run(command, check=False, capture_output=True, timeout=PATIENCE)
        (path,) = Path(folder).glob("*/checks.json")
        checks: list[dict[str, str]] = json.loads(path.read_text())
        return checks


async def main(node: str, suite: str) -> int:
    """Run all scenarios; return exit code 1 if the failures are not the expected ones."""
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
                        print(f"  {check['id']}: {reason or check.get('errorMessage')}")
    return int(failed != set(EXPECTED_FAILURES))


if __name__ == "__main__":
    sys.exit(anyio.run(main, sys.argv[1], sys.argv[2]))
