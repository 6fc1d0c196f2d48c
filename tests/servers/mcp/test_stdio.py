"""The server as a process on standard input and output: its protocol, its ends, its signals."""

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

from mcp_taskruns.servers.mcp import stdio
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
    """The server as a subprocess; every wait is bounded."""

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
        answer = self.receive()
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    def call(self, number: int, tool: str, **arguments: Any) -> None:
        params = {"name": tool, "arguments": arguments}
        self.send({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})

    def end(self) -> tuple[int, float, str]:
        """Wait for the process to end: its exit code, the seconds it took, and what is on standard error."""
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


def test_a_client_that_probes_with_discover_can_still_initialize() -> None:
    with running() as process:
        process.send(modern(1, "server/discover"), INITIALIZE | {"id": 2})
        answers = {answer["id"]: answer for answer in (process.receive(), process.receive())}
        assert answers[1]["result"]["supportedVersions"] == ["2026-07-28"]
        assert answers[2]["result"]["protocolVersion"] == "2025-11-25"
        process.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        process.send({"jsonrpc": "2.0", "id": 3, "method": "tools/list"})
        assert len(process.receive()["result"]["tools"]) == 35


def test_both_eras_are_served_on_one_connection() -> None:
    with running() as process:
        process.handshake()
        process.send(modern(2, "tools/list"))
        modern_result = process.receive()["result"]
        process.send({"jsonrpc": "2.0", "id": 3, "method": "tools/list"})
        legacy_result = process.receive()["result"]
    assert modern_result["resultType"] == "complete"
    assert modern_result["ttlMs"] == 300_000
    assert "resultType" not in legacy_result
    assert modern_result["tools"] == legacy_result["tools"]


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_each_handshake_version_is_spoken(version: str) -> None:
    with running() as process:
        process.send(INITIALIZE | {"params": INITIALIZE["params"] | {"protocolVersion": version}})  # type: ignore[operator]  # it is a dict
        result = process.receive()["result"]
    assert result["protocolVersion"] == version
    assert result["serverInfo"]["name"] == "mcp-taskruns"
    assert result["instructions"].startswith("Tools to start, watch, wait for and cancel")


def test_an_unknown_tool_is_a_protocol_error_in_both_eras() -> None:
    with running() as process:
        process.handshake()
        process.call(2, "nope")
        process.send(modern(3, "tools/call", name="nope", arguments={}))
        answers = {answer["id"]: answer for answer in (process.receive(), process.receive())}
    for answer in answers.values():
        assert answer["error"] == {"code": -32602, "message": "Unknown tool: nope"}


def test_a_message_in_pieces_is_put_together() -> None:
    line = json.dumps(INITIALIZE).encode() + b"\n"
    with running() as process:
        for place in range(0, len(line), 7):
            process.send_bytes(line[place : place + 7])
        assert process.receive()["id"] == 1


def test_a_line_that_is_no_message_is_answered_and_the_next_is_served() -> None:
    with running() as process:
        process.send_bytes(b'{"jsonrpc": \n\n[]\n')
        for _ in range(2):
            answer = process.receive()
            assert (answer["id"], answer["error"]["code"]) == (None, -32700)
        assert process.handshake()["id"] == 1


def test_a_message_of_ten_megabytes_is_served() -> None:
    with running() as process:
        process.handshake()
        process.call(2, "render-list-tasks", cursor="x" * 10_000_000)
        assert "Set RENDER_API_KEY" in process.receive()["result"]["content"][0]["text"]


def test_input_from_a_file_and_output_to_a_file_are_served(tmp_path: Path) -> None:
    questions, answers = tmp_path / "in", tmp_path / "out"
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    questions.write_text(json.dumps(INITIALIZE) + "\n" + json.dumps(ping) + "\n")
    with questions.open() as stdin, answers.open("w") as stdout, running(stdin=stdin, stdout=stdout) as process:
        code, _, log = process.end()
    assert (code, log) == (0, "")
    assert json.loads(answers.read_text().splitlines()[0])["id"] == 1


async def test_one_slow_call_does_not_hold_up_another(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", Fault(delay=30))

    def play() -> list[int]:
        with running(environment) as process:
            process.handshake()
            process.call(2, "render-list-tasks")
            # The fault is for the first request to arrive: the second call goes out once it has.
            process.call(3, "runway-retrieve-task-status-and-output", id="27f20503-6c24-4c16-946b-35dbbce2af2f")
            return [process.receive()["id"]]

    assert await anyio.to_thread.run_sync(play) == [3]


async def test_prints_and_children_do_not_get_into_the_protocol(environment: dict[str, str]) -> None:
    script = (
        "import mcp_taskruns.servers.mcp.server as adapter, os, sys\n"
        "render = adapter.render_result\n"
        "def noisy(*arguments):\n"
        "    print('noise from python'); sys.stdout.flush(); os.system('echo noise from a child')\n"
        "    return render(*arguments)\n"
        "adapter.render_result = noisy\n"
        "from mcp_taskruns.cli import run\n"
        "sys.exit(run([]))"
    )

    def play() -> tuple[dict[str, Any], str]:
        with running(environment, program=["-c", script]) as process:
            process.handshake()
            process.call(2, "render-list-tasks", limit=1)
            answer = process.receive()
            assert process.child.stdin
            process.child.stdin.close()
            return answer, process.end()[2]

    answer, log = await anyio.to_thread.run_sync(play)
    assert not answer["result"]["isError"]
    assert "noise from python" in log
    assert "noise from a child" in log


async def test_progress_arrives_before_the_result_and_a_cancelled_call_hangs_up(
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
        assert progress["params"] == {
            "progressToken": "follow",
            "progress": 1,
            "total": 2,
            "message": "trn-d5im0000000000000001: succeeded",
        }
        request = simulator.requests[0]
        assert not request.disconnected.is_set()
        # A cancelled call is never answered: the next message is the ping's answer.
        assert (await anyio.to_thread.run_sync(cancel, process))["id"] == 8
        with anyio.fail_after(scaled(1)):
            await request.disconnected.wait()
    assert {request.method for request in simulator.requests} == {"GET"}


ENDS = ["end of input", signal.SIGINT, signal.SIGTERM, "closed output"]


@pytest.mark.parametrize("end", ENDS, ids=str)
@pytest.mark.parametrize("during", ["idle", "a call"])
async def test_the_server_ends_in_time_with_code_0_and_hangs_up(
    end: str | signal.Signals, during: str, simulator: Simulator, environment: dict[str, str]
) -> None:
    def begin(process: Process) -> None:
        process.handshake()
        if during == "a call":
            process.call(2, "render-stream-realtime-events-sse", taskRunIds=[RUNNING_RUN])

    def stop(process: Process) -> tuple[int, float, str]:
        assert process.child.stdin
        assert process.child.stdout
        if isinstance(end, signal.Signals):
            process.child.send_signal(end)
        elif end == "end of input":
            process.child.stdin.close()
        else:
            process.child.stdout.close()
        return process.end()

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
async def test_further_signals_do_not_disturb_the_end(
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
        return process.end()

    with running(environment) as process, anyio.fail_after(PATIENCE):
        await anyio.to_thread.run_sync(begin, process)
        await simulator.wait_for_request(lambda request: "events" in request.path)
        code, took, log = await anyio.to_thread.run_sync(stop, process)
    assert (code, log) == (0, "")
    assert took < scaled(2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_a_signal_during_the_start_ends_it_without_an_error(number: signal.Signals) -> None:
    # The signal comes while the SDK is being imported: the moment is in the program, so no time is waited for.
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
        code, took, log = process.end()
    assert (code, log) == (0, "")
    assert took < scaled(5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
@pytest.mark.parametrize("flags", [(), ("serve", "--simulate"), ("serve", "--transport", "http", "--port", "0")])
def test_repeated_signals_at_any_moment_of_the_start_end_it_without_an_error(
    flags: tuple[str, ...], number: signal.Signals
) -> None:
    with running(program=["-m", "mcp_taskruns", *flags]) as process:
        process.send(INITIALIZE)
        while process.child.poll() is None:
            process.child.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.child.wait(0.02)
        code, _, log = process.end()
    # A signal before the interpreter runs our first line is the kernel's to answer.
    assert code in {0, -number}
    assert "Traceback" not in log or code == -number


def test_a_process_without_standard_input_is_told_what_is_missing() -> None:
    done = subprocess.run(
        f"{sys.executable} -m mcp_taskruns <&- >&-",
        shell=True,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "mcp-taskruns: there is no standard input or no standard output to serve on\n"


def test_the_server_ends_although_its_client_has_stopped_reading() -> None:
    with running() as process:
        process.handshake()
        for number in range(200):  # more than a pipe holds, of which nothing is read
            process.send({"jsonrpc": "2.0", "id": number, "method": "tools/list"})
        process.child.send_signal(signal.SIGTERM)
        code, took, _ = process.end()
    assert code == 0
    assert took < scaled(2.5)


class TestReader:
    """What a line is, whatever the pieces in which it arrives."""

    async def test_a_last_line_needs_no_line_break(self) -> None:
        reader = stdio._Reader()
        reader.data_received(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
        reader.end()
        assert len([item async for item in reader]) == 1

    async def test_lines_are_the_same_however_they_are_split(self) -> None:
        data = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n\r\n{"jsonrpc":"2.0","id":2,"method":"ping"}\r\n'
        for place in range(len(data) + 1):
            reader = stdio._Reader()
            reader.data_received(data[:place])
            reader.data_received(data[place:])
            reader.end()
            seen = [item async for item in reader]
            assert [item.message.id for item in seen if not isinstance(item, Exception)] == [1, 2]  # type: ignore[union-attr]  # requests

    async def test_a_line_over_the_bound_is_refused_and_the_next_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stdio, "MAX_MESSAGE_BYTES", 100)
        reader = stdio._Reader()
        for _ in range(9):
            reader.data_received(b"x" * 90)
        reader.data_received(b'x\n{"jsonrpc":"2.0","id":2,"method":"ping"}\n')
        reader.end()
        refused, served = [item async for item in reader]
        assert isinstance(refused, Exception)
        assert not isinstance(served, Exception)
        with pytest.raises(anyio.EndOfStream):
            await reader.receive()
