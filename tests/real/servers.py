"""Real run servers on loopback, each in an environment of its own: `make test-real` installs and isolates them.

Each process of a server is the first in a PID namespace: when it ends, everything that it has started is ended too.
Airflow and Ray do not end all their processes themselves.
"""

import json
import os
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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
    headers: Mapping[str, str]
    """The credential for direct requests."""
    environment: "_Environment"
    """Where its own client is installed."""

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

    def client(self, *command: str) -> str:
        """Run a command of the server's own client and return what it writes."""
        environment = self.environment
        run = subprocess.run(
            environment.command(command),
            env=environment.variables,
            capture_output=True,
            check=False,  # the next line shows what it has written
            timeout=2 * PATIENCE,
        )
        assert run.returncode == 0, run.stderr.decode()
        return run.stdout.decode()


@dataclass(frozen=True)
class _Environment:
    """The virtual environment of a server, and the variables of its processes."""

    name: str
    folder: Path
    settings: Mapping[str, str]

    def command(self, command: Sequence[str]) -> list[str]:
        """Return a command with the path to its program."""
        return [str(ENVIRONMENTS / self.name / "bin" / command[0]), *command[1:]]

    @property
    def variables(self) -> dict[str, str]:
        path = f"{ENVIRONMENTS / self.name / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.folder), "LANG": "C.UTF-8", "COLUMNS": "200", **self.settings}


@contextmanager
def airflow(folder: Path) -> Iterator[Server]:
    """Run Airflow with SQLite, the workflows in `workflows/airflow`, and the user `admin`."""
    origin, password = "http://127.0.0.1:8080", "Nz4XqvS0rYkd"
    login = {"username": "admin", "password": password}
    (folder / "passwords.json").write_text(json.dumps({"admin": password}), encoding="utf-8")
    settings = {
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
    environment = _Environment("airflow", folder, settings)
    with _process(environment, "airflow", "standalone") as running:
        running.wait_for(f"{origin}/api/v2/version")
        token = httpx.post(f"{origin}/auth/token", json=login).raise_for_status().json()["access_token"]
        variables = {"AIRFLOW__API__BASE_URL": origin, "AIRFLOW_USERNAME": "admin", "AIRFLOW_PASSWORD": password}
        server = Server(origin, variables, {"Authorization": f"Bearer {token}"}, environment)
        running.wait_until(
            lambda: server.get("/api/v2/dags")["total_entries"] == len([*WORKFLOWS.glob("airflow/*.py")])
        )
        yield server


@contextmanager
def prefect(folder: Path) -> Iterator[Server]:
    """Run Prefect with SQLite and one process that serves the flows in `workflows/prefect_flows.py`."""
    origin, login = "http://127.0.0.1:4200", "admin:Nz4XqvS0rYkd"
    variables = {"PREFECT_API_URL": f"{origin}/api", "PREFECT_API_AUTH_STRING": login}
    settings = {
        **variables,
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_API_AUTH_STRING": login,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "DO_NOT_TRACK": "1",
    }
    environment = _Environment("prefect", folder, settings)
    basic = b64encode(login.encode()).decode()
    server = Server(origin, variables, {"Authorization": f"Basic {basic}"}, environment)
    with ExitStack() as processes:
        running = processes.enter_context(_process(environment, "prefect", "server", "start"))
        running.wait_for(f"{origin}/api/health")
        flows = processes.enter_context(_process(environment, "python", str(WORKFLOWS / "prefect_flows.py")))
        flows.wait_until(lambda: len(server.request("POST", "/api/deployments/filter", {})) == 4)
        yield server


@contextmanager
def ray(folder: Path) -> Iterator[Server]:
    """Run a Ray cluster of one node, which requires a token."""
    origin, token = "http://127.0.0.1:8265", "0123456789abcdef0123456789abcdef"
    variables = {"RAY_ADDRESS": origin, "RAY_AUTH_TOKEN": token}
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        # Otherwise Ray replaces 127.0.0.1 by an address of the machine.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    environment = _Environment("ray", folder, settings)
    command = ["ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--port=6379", "--num-cpus=2"]
    command += ["--dashboard-host=127.0.0.1", "--dashboard-port=8265"]
    command += ["--object-store-memory=100000000", f"--temp-dir={folder}"]
    server = Server(origin, variables, {"Authorization": f"Bearer {token}"}, environment)
    with _process(environment, *command) as running:
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

    def wait_until(self, is_ready: Callable[[], object]) -> None:
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
def _process(environment: _Environment, *command: str) -> Iterator[_Process]:
    """Run a command of a server's environment, and end it with all that it has started."""
    output = environment.folder / f"{command[0]}-output.txt"
    isolate = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*isolate, *environment.command(command)],
            cwd=environment.folder,
            env=environment.variables,
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
