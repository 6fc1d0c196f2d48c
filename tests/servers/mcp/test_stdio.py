"""MCP over stdio with the server as a process: protocol, shutdown and signals."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_taskruns.servers.mcp import pipes
from mcp_taskruns.servers.mcp.pipes import Reader
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.timing import PATIENCE, scaled

pytestmark = pytest.mark.anyio

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
RUNNING_RUN = "trn-d5im0000000000000004"


class Process:
    """The server as a subprocess; every wait has a timeout."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.child = child
        self.buffer = b""

    def send(self, *messages: dict[str, Any]) -> None:
        self.send_bytes(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    def send_bytes(self, data: bytes) -> None:
        assert self.child.stdin
        self.child.stdin.write(data)
        self.child.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.child.stdout
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.child.stdout], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"nothing received; so far: {self.buffer[:200]!r}"
            data = os.read(self.child.stdout.fileno(), 1 << 20)
            assert data, "the server closed its output"
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def handshake(self) -> dict[str, Any]:
        self.send(INITIALIZE)
        response = self.receive()
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return response

    def call(self, number: int, tool: str, **arguments: Any) -> None:
        params = {"name": tool, "arguments": arguments}
        self.send({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})

    def wait(self) -> tuple[int, float, str]:
        """Wait for the process to exit; return its exit status, the seconds it took, and its standard error."""
        began = time.monotonic()
        code = self.child.wait(PATIENCE)
        took = time.monotonic() - began
        assert self.child.stderr
        return code, took, self.child.stderr.read().decode()


@contextmanager
def running(
    environment: dict[str, str] | None = None, program: Sequence[str] = ("-m", "mcp_taskruns"), **more: Any
) -> Iterator[Process]:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    with subprocess.Popen([sys.executable, *program], env=os.environ | (environment or {}), **pipes) as child:
        try:
            yield Process(child)
        finally:
            child.kill()


def modern(number: int, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params | {"_meta": ENVELOPE}}


def test_client_can_initialize_after_discover() -> None:
    with running() as process:
        process.send(modern(1, "server/discover"), INITIALIZE | {"id": 2})
        responses = {response["id"]: response for response in (process.receive(), process.receive())}
        assert responses[1]["result"]["supportedVersions"] == ["2026-07-28"]
        assert responses[2]["result"]["protocolVersion"] == "2025-11-25"
        process.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        process.send({"jsonrpc": "2.0", "id": 3, "method": "tools/list"})
        assert len(process.receive()["result"]["tools"]) == 40


@pytest.fixture(scope="module")
def shared() -> Iterator[Process]:
    """A server without settings for tests that leave it ready for the next message."""
    with running(stderr=subprocess.DEVNULL) as process:
        process.handshake()
        yield process


def test_both_eras_are_served_on_one_connection(shared: Process) -> None:
    shared.send(modern(2, "tools/list"))
    modern_result = shared.receive()["result"]
    shared.send({"jsonrpc": "2.0", "id": 3, "method": "tools/list"})
    legacy_result = shared.receive()["result"]
    assert modern_result["resultType"] == "complete"
    assert modern_result["ttlMs"] == 300_000
    assert "resultType" not in legacy_result
    assert modern_result["tools"] == legacy_result["tools"]


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_handshake_versions_are_supported(version: str) -> None:
    with running() as process:
        process.send(INITIALIZE | {"params": INITIALIZE["params"] | {"protocolVersion": version}})  # type: ignore[operator]  # it is a dict
        result = process.receive()["result"]
    assert result["protocolVersion"] == version
    assert result["serverInfo"]["name"] == "mcp-taskruns"
    assert result["instructions"].startswith("Tools to start, watch, wait for and cancel")


def test_unknown_tool_is_a_protocol_error_in_both_eras(shared: Process) -> None:
    shared.call(2, "nope")
    shared.send(modern(3, "tools/call", name="nope", arguments={}))
    responses = {response["id"]: response for response in (shared.receive(), shared.receive())}
    for response in responses.values():
        assert response["error"] == {"code": -32602, "message": "Unknown tool: nope"}


def test_message_may_arrive_in_pieces(shared: Process) -> None:
    line = json.dumps({"jsonrpc": "2.0", "id": 4, "method": "ping"}).encode() + b"\n"
    for place in range(0, len(line), 7):
        shared.send_bytes(line[place : place + 7])
    assert shared.receive() == {"jsonrpc": "2.0", "id": 4, "result": {}}


def test_invalid_line_gets_an_error_response_and_the_next_is_served() -> None:
    with running() as process:
        process.send_bytes(b'{"jsonrpc": \n\n[]\n')
        for _ in range(2):
            response = process.receive()
            assert (response["id"], response["error"]["code"]) == (None, -32700)
        assert process.handshake()["id"] == 1


def test_line_with_too_many_values_gets_an_error_response_and_the_next_is_served(shared: Process) -> None:
    shared.send_bytes(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":[' + b"[]," * 200_000 + b"0]}}\n")
    response = shared.receive()
    assert (response["id"], response["error"]["code"]) == (None, -32700)
    assert "more than 600,000 values" in response["error"]["message"]
    shared.send({"jsonrpc": "2.0", "id": 5, "method": "ping"})
    assert shared.receive()["id"] == 5


def test_message_of_ten_megabytes_is_accepted(shared: Process) -> None:
    shared.call(2, "render-list-tasks", cursor="x" * 10_000_000)
    assert "Set RENDER_API_KEY" in shared.receive()["result"]["content"][0]["text"]


def test_input_and_output_may_be_files(tmp_path: Path) -> None:
    requests, responses = tmp_path / "in", tmp_path / "out"
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    requests.write_text(json.dumps(INITIALIZE) + "\n" + json.dumps(ping) + "\n")
    with requests.open() as stdin, responses.open("w") as stdout, running(stdin=stdin, stdout=stdout) as process:
        code, _, log = process.wait()
    assert (code, log) == (0, "")
    assert json.loads(responses.read_text().splitlines()[0])["id"] == 1


async def test_slow_call_does_not_delay_another(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", Fault(delay=30))

    def play() -> list[int]:
        with running(environment) as process:
            process.handshake()
            process.call(2, "render-list-tasks")
            # The fault applies to the first request, so the second call is sent after it.
            process.call(3, "runway-retrieve-task-status-and-output", id="27f20503-6c24-4c16-946b-35dbbce2af2f")
            return [process.receive()["id"]]

    assert await anyio.to_thread.run_sync(play) == [3]


async def test_prints_and_child_processes_do_not_write_to_the_protocol(environment: dict[str, str]) -> None:
    script = (
        "import mcp_taskruns.servers.mcp.server as server, os, sys\n"
        "convert = server.result_to_wire\n"
        "def noisy(*arguments):\n"
        "    print('noise from python'); sys.stdout.flush(); os.system('echo noise from a child')\n"
        "    return convert(*arguments)\n"
        "server.result_to_wire = noisy\n"
        "from mcp_taskruns.cli import run\n"
        "sys.exit(run([]))"
    )

    def play() -> tuple[dict[str, Any], str]:
        with running(environment, program=["-c", script]) as process:
            process.handshake()
            process.call(2, "render-list-tasks", limit=1)
            response = process.receive()
            assert process.child.stdin
            process.child.stdin.close()
            return response, process.wait()[2]

    response, log = await anyio.to_thread.run_sync(play)
    assert not response["result"]["isError"]
    assert "noise from python" in log
    assert "noise from a child" in log


async def test_progress_is_sent_and_cancelling_a_call_closes_its_connection(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    def start(process: Process) -> dict[str, Any]:
        process.handshake()
        params = {
            "name": "render-stream-realtime-events-sse",
            "arguments": {"taskRunIds": ["trn-d5im0000000000000001", RUNNING_RUN]},
            "_meta": {"progressToken": "follow"},
        }
        process.send({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params})
        return process.receive()

    def cancel(process: Process) -> dict[str, Any]:
        process.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}})
        process.send({"jsonrpc": "2.0", "id": 8, "method": "ping"})
        return process.receive()

    with running(environment) as process:
        progress = await anyio.to_thread.run_sync(start, process)
        assert progress["method"] == "notifications/progress"
        seconds = progress["params"].pop("progress")
        assert progress["params"] == {
            "progressToken": "follow",
            "total": 45,
            "message": "trn-d5im0000000000000001: succeeded (event)",
        }
        assert 0 <= seconds < 45
        request = simulator.requests[0]
        assert not request.disconnected.is_set()
        # A cancelled call gets no response: the next message is the response to the ping.
        assert (await anyio.to_thread.run_sync(cancel, process))["id"] == 8
        with anyio.fail_after(scaled(1)):
            await request.disconnected.wait()
    assert {request.method for request in simulator.requests} == {"GET"}


REASONS = ["closed input", signal.SIGINT, signal.SIGTERM, "closed output"]


@pytest.mark.parametrize("reason", REASONS, ids=str)
@pytest.mark.parametrize("during", ["idle", "a call"])
async def test_server_exits_with_0_and_closes_its_connections(
    reason: str | signal.Signals, during: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    def begin(process: Process) -> None:
        process.handshake()
        if during == "a call":
            process.call(2, "render-stream-realtime-events-sse", taskRunIds=[RUNNING_RUN])

    def stop(process: Process) -> tuple[int, float, str]:
        assert process.child.stdin
        assert process.child.stdout
        if isinstance(reason, signal.Signals):
            process.child.send_signal(reason)
        elif reason == "closed input":
            process.child.stdin.close()
        else:
            process.child.stdout.close()
        return process.wait()

    with running(environment) as process, anyio.fail_after(PATIENCE):
        await anyio.to_thread.run_sync(begin, process)
        if during == "a call":
            await simulator.wait_for_request(lambda request: "events" in request.path)
        code, took, log = await anyio.to_thread.run_sync(stop, process)
        assert (code, log) == (0, "")
        assert took < scaled(2)
        for request in simulator.requests:
            if "events" in request.path:
                with anyio.fail_after(scaled(1)):
                    await request.disconnected.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
async def test_further_signals_do_not_disturb_the_shutdown(
    number: signal.Signals, simulator: Simulator, environment: dict[str, str]
) -> None:
    def begin(process: Process) -> None:
        process.handshake()
        process.call(2, "render-stream-realtime-events-sse", taskRunIds=[RUNNING_RUN])

    def stop(process: Process) -> tuple[int, float, str]:
        while process.child.poll() is None:
            process.child.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.child.wait(0.02)
        return process.wait()

    with running(environment) as process, anyio.fail_after(PATIENCE):
        await anyio.to_thread.run_sync(begin, process)
        await simulator.wait_for_request(lambda request: "events" in request.path)
        code, took, log = await anyio.to_thread.run_sync(stop, process)
    assert (code, log) == (0, "")
    assert took < scaled(2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_signal_while_starting_exits_without_an_error(number: signal.Signals) -> None:
    # The program sends the signal to itself while it imports the SDK, so that the moment is exact.
    script = (
        "import os, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == 'mcp_taskruns.servers.mcp.server': os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['mcp-taskruns']\n"
        "from mcp_taskruns.__main__ import main\n"
        "main()"
    )
    with running(program=["-c", script]) as process:
        code, took, log = process.wait()
    assert (code, log) == (0, "")
    assert took < scaled(5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
@pytest.mark.parametrize("flags", [(), ("serve", "--simulate"), ("serve", "--transport", "http", "--port", "0")])
def test_repeated_signals_while_starting_exit_without_an_error(flags: tuple[str, ...], number: signal.Signals) -> None:
    with running(program=["-m", "mcp_taskruns", *flags]) as process:
        process.send(INITIALIZE)
        while process.child.poll() is None:
            process.child.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.child.wait(0.02)
        code, _, log = process.wait()
    # A signal that arrives before our first line is handled by the kernel or the interpreter.
    assert code in {0, -number}
    assert "Traceback" not in log or code == -number


def test_closed_standard_input_is_reported() -> None:
    done = subprocess.run(
        f"{sys.executable} -m mcp_taskruns <&- >&-",
        shell=True,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "mcp-taskruns: --transport stdio needs standard input and output, and one of them is closed\n"


class TestReader:
    """Lines that arrive in pieces."""

    async def test_last_line_needs_no_line_break(self) -> None:
        reader = Reader()
        reader.data_received(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
        reader.end()
        assert len([item async for item in reader]) == 1

    async def test_lines_may_be_split_anywhere(self) -> None:
        data = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n\r\n{"jsonrpc":"2.0","id":2,"method":"ping"}\r\n'
        for place in range(len(data) + 1):
            reader = Reader()
            reader.data_received(data[:place])
            reader.data_received(data[place:])
            reader.end()
            seen = [item async for item in reader]
            assert [item.message.id for item in seen if not isinstance(item, Exception)] == [1, 2]  # type: ignore[union-attr]  # requests

    async def test_line_above_the_size_limit_is_rejected_and_the_next_is_read(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pipes, "MAX_MESSAGE_BYTES", 100)
        reader = Reader()
        for _ in range(9):
            reader.data_received(b"x" * 90)
        reader.data_received(b'x\n{"jsonrpc":"2.0","id":2,"method":"ping"}\n')
        reader.end()
        rejected, accepted = [item async for item in reader]
        assert isinstance(rejected, Exception)
        assert not isinstance(accepted, Exception)
        with pytest.raises(anyio.EndOfStream):
            await reader.receive()
