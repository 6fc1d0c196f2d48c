"""Real run servers on loopback, each in an environment of its own: `make test-real` installs and isolates them.

Each process of a server is the first in a PID namespace: when it ends, everything that it has started is ended too.
Airflow and Ray do not end all their processes themselves.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.timing import PATIENCE

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent.parent / ".venv" / "real"
WORKFLOWS = HERE / "workflows"


@dataclass(frozen=True)
class Server:
    """A running server."""

    origin: str
    """Where it listens."""
    variables: Mapping[str, str]
    """The environment of an mcp-taskruns that uses it."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The credential for direct requests."""

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request directly, as the truth to compare results with, and return the JSON of the response."""
        response = httpx.request(
            method, f"{self.origin}{path}", json=body, headers=dict(self.headers), timeout=PATIENCE
        )
        response.raise_for_status()
        return response.json()

    def get(self, path: str) -> Any:
        """Read directly."""
        return self.request("GET", path)


@contextmanager
def airflow(folder: Path) -> Iterator[Server]:
    """Run Airflow with SQLite, the workflows in `workflows/airflow`, and the user `admin`."""
    origin, password = "http://127.0.0.1:8080", "a password"
    (folder / "passwords.json").write_text(json.dumps({"admin": password}), encoding="utf-8")
    variables = {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(WORKFLOWS / "airflow"),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "passwords.json"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{origin}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": "8080",
        "AIRFLOW__API__BASE_URL": origin,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    with _process("airflow", ["airflow", "standalone"], variables, folder) as running:
        running.wait_for(f"{origin}/api/v2/version")
        login = httpx.post(f"{origin}/auth/token", json={"username": "admin", "password": password})
        token = login.raise_for_status().json()["access_token"]
        server = Server(
            origin,
            {"AIRFLOW__API__BASE_URL": origin, "AIRFLOW_CLI_TOKEN": token},
            {"Authorization": f"Bearer {token}"},
        )
        running.wait_until(
            lambda: server.get("/api/v2/dags")["total_entries"] == len([*WORKFLOWS.glob("airflow/*.py")])
        )
        yield server


@contextmanager
def prefect(folder: Path) -> Iterator[Server]:
    """Run Prefect with SQLite and one process that serves the flows in `workflows/prefect_flows.py`."""
    origin = "http://127.0.0.1:4200"
    variables = {
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": f"{origin}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    }
    serve_flows = ["python", str(WORKFLOWS / "prefect_flows.py")]
    with ExitStack() as processes:
        running = processes.enter_context(_process("prefect", ["prefect", "server", "start"], variables, folder))
        running.wait_for(f"{origin}/api/health")
        flows = processes.enter_context(_process("prefect", serve_flows, variables, folder))
        server = Server(origin, {"PREFECT_API_URL": f"{origin}/api"})
        flows.wait_until(lambda: len(server.request("POST", "/api/deployments/filter", {})) == 4)
        yield server


@contextmanager
def ray(folder: Path) -> Iterator[Server]:
    """Run a Ray cluster of one node, which requires a token."""
    origin, token = "http://127.0.0.1:8265", "0123456789abcdef0123456789abcdef"
    variables = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        # Otherwise Ray replaces 127.0.0.1 by an address of the machine.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    command = ["ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--port=6379"]
    command += ["--dashboard-host=127.0.0.1", "--dashboard-port=8265", "--num-cpus=2"]
    command += ["--object-store-memory=100000000", f"--temp-dir={folder}"]
    server = Server(origin, {"RAY_ADDRESS": origin, "RAY_AUTH_TOKEN": token}, {"Authorization": f"Bearer {token}"})
    with _process("ray", command, variables, folder) as running:
        running.wait_until(lambda: server.get("/api/version") and server.get("/api/jobs/") == [])
        yield server


class _Process:
    """A process of a server, and what it has written."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self._process = process
        self._output = output

    def wait_for(self, url: str) -> None:
        """Wait until a GET succeeds."""
        self.wait_until(lambda: httpx.get(url, timeout=PATIENCE).raise_for_status().is_success)

    def wait_until(self, is_ready: Any) -> None:
        """Wait until a function returns something true; errors of HTTP mean that it is too early."""
        deadline = time.monotonic() + 2 * PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if is_ready():
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.25)  # the servers report their start only over HTTP
        raise AssertionError(f"the server is not ready:\n{self._output.read_text(errors='replace')[-4000:]}")


@contextmanager
def _process(environment: str, command: list[str], variables: Mapping[str, str], folder: Path) -> Iterator[_Process]:
    """Run a command of a server's environment, and end it with all that it has started."""
    binaries = ENVIRONMENTS / environment / "bin"
    output = folder / f"{command[0]}-output.txt"
    isolated = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", str(binaries / command[0]), *command[1:]]
    path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    with output.open("wb") as file:
        process = subprocess.Popen(
            isolated,
            cwd=folder,
            env={"PATH": path, "HOME": str(folder), "LANG": "C.UTF-8", **variables},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the tests, which then end it
        )
    try:
        yield _Process(process, output)
    finally:
        process.kill()
        process.wait(PATIENCE)
