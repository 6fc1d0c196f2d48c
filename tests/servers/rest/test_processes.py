"""`serve --rest` as a process, with MCP over stdio and over HTTP."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any, TextIO

import anyio
import anyio.to_thread
import httpx
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.types import TextContent

from mcp_taskruns.simulator.app import Simulator
from tests.calls import RENDER_COMPLETED, RENDER_RUNNING
from tests.servers.mcp.test_stdio import INITIALIZE, Process
from tests.servers.rest.driver import problem
from tests.timing import PATIENCE, scaled

pytestmark = pytest.mark.anyio

STDIO = ("-m", "mcp_taskruns", "serve", "--rest", "--rest-port", "0")
HTTP = (*STDIO, "--transport", "http", "--port", "0")
REST = re.compile(r"^REST on (http://127\.0\.0\.1:\d+) \(docs at /docs, OpenAPI at /openapi\.json\)$", re.MULTILINE)
MCP = re.compile(r"^MCP on (http://127\.0\.0\.1:\d+)/mcp ", re.MULTILINE)
IN_TIME = scaled(2)
RUN = f"/v1/task-runs/{RENDER_COMPLETED}"


class Log:
    """The standard error of a process."""

    def __init__(self, read_end: int) -> None:
        self._text = ""
        self._is_over = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=[read_end], daemon=True)
        self._thread.start()

    def _read(self, read_end: int) -> None:
        with os.fdopen(read_end, encoding="utf-8") as lines:
            for line in lines:
                with self._change:
                    self._text += line
                    self._change.notify_all()
        with self._change:
            self._is_over = True
            self._change.notify_all()

    async def address(self, pattern: re.Pattern[str]) -> str:
        """Wait for an announced URL and return it."""

        def is_known() -> bool:
            return self._is_over or pattern.search(self._text) is not None

        def wait() -> None:
            with self._change:
                self._change.wait_for(is_known, PATIENCE)

        await anyio.to_thread.run_sync(wait)
        found = pattern.search(self._text)
        assert found, self._text
        return found[1]

    def whole(self) -> str:
        """Return the complete log after the process has exited."""
        self._thread.join(PATIENCE)
        assert self._is_over
        return self._text


@contextmanager
def logged() -> Iterator[tuple[TextIO, Log]]:
    """Yield a file for the standard error of a process, and its log. Close the file after starting the process."""
    read_end, write_end = os.pipe()
    log = Log(read_end)
    with os.fdopen(write_end, "w") as file:
        yield file, log


@contextmanager
def running(environment: Mapping[str, str], command: Sequence[str]) -> Iterator[tuple[Process, Log]]:
    """The server as a process whose standard input stays open."""
    with ExitStack() as stack:
        file, log = stack.enter_context(logged())
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": file}
        child = stack.enter_context(subprocess.Popen([sys.executable, *command], env=os.environ | environment, **pipes))
        stack.callback(child.kill)
        file.close()
        yield Process(child), log


@asynccontextmanager
async def rest_client(origin: str) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(retries=8)
    async with httpx.AsyncClient(base_url=origin, transport=transport, timeout=PATIENCE) as client:
        yield client


async def ended(process: Process) -> tuple[int, float]:
    """The code with which it ends, and the seconds until it does."""
    began = anyio.current_time()
    code = await anyio.to_thread.run_sync(process.child.wait, PATIENCE)
    return code, anyio.current_time() - began


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_mcp_over_stdio_and_rest_in_one_process(
    era: Any, simulator: Simulator, environment: dict[str, str]
) -> None:
    with logged() as (file, log), anyio.fail_after(PATIENCE):
        server = StdioServerParameters(command=sys.executable, args=list(STDIO), env=environment)
        async with (
            Client(stdio_client(server, errlog=file), mode=era) as client,
            rest_client(await log.address(REST)) as rest,
        ):
            response = await rest.get(RUN)
            result = await client.call_tool("render-retrieve-task-run", {"taskRunId": RENDER_COMPLETED})
            assert problem(await rest.get("/v1/nothing"))["status"] == 404
            assert (await rest.get("/health")).json()["routes"] == 31
    written = log.whole()
    block = result.content[0]
    assert isinstance(block, TextContent)
    assert response.status_code == 200
    assert response.text == block.text
    assert "is declared by more than one file" in written
    assert "Traceback" not in written
    assert len(simulator.requests) == 2


async def test_mcp_over_http_and_rest_in_one_process(simulator: Simulator, environment: dict[str, str]) -> None:
    with running(environment, HTTP) as (process, log), anyio.fail_after(PATIENCE):
        mcp, origin = await log.address(MCP), await log.address(REST)
        assert mcp != origin
        async with rest_client(origin) as rest, Client(f"{mcp}/mcp") as client:
            response = await rest.get(RUN)
            result = await client.call_tool("render-retrieve-task-run", {"taskRunId": RENDER_COMPLETED})
            assert problem(await rest.post("/mcp"))["status"] == 404
        block = result.content[0]
        assert isinstance(block, TextContent)
        assert response.text == block.text
        process.child.send_signal(signal.SIGTERM)
        code, _ = await ended(process)
    assert code == 0
    assert len(simulator.requests) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
@pytest.mark.parametrize("command", [STDIO, HTTP], ids=["stdio", "http"])
async def test_signal_during_a_stream_exits_with_0(
    command: Sequence[str], number: signal.Signals, simulator: Simulator, environment: dict[str, str]
) -> None:
    with running(environment, command) as (process, log), anyio.fail_after(PATIENCE):
        texts: list[str] = []
        async with rest_client(await log.address(REST)) as rest, anyio.create_task_group() as tasks:

            async def follow() -> None:
                query = {"taskRunIds": RENDER_RUNNING}
                with suppress(httpx.HTTPError):
                    async with rest.stream("GET", "/v1/task-runs/events", params=query) as response:
                        async for text in response.aiter_text():
                            texts.append(text)

            tasks.start_soon(follow)
            request = await simulator.wait_for_request(lambda request: "events" in request.path)
            process.child.send_signal(number)
            code, seconds = await ended(process)
            await request.disconnected.wait()
        written = log.whole()
    assert code == 0
    assert seconds < IN_TIME
    assert "Traceback" not in written


@pytest.mark.parametrize("command", [STDIO, HTTP], ids=["stdio", "http"])
async def test_signal_while_idle_exits_with_0(command: Sequence[str], environment: dict[str, str]) -> None:
    with running(environment, command) as (process, log), anyio.fail_after(PATIENCE):
        async with rest_client(await log.address(REST)) as rest:
            assert (await rest.get("/health")).status_code == 200
            process.child.send_signal(signal.SIGTERM)
            code, seconds = await ended(process)
        written = log.whole()
    assert code == 0
    assert seconds < IN_TIME
    assert "Traceback" not in written


async def test_closed_standard_input_stops_both_servers(simulator: Simulator, environment: dict[str, str]) -> None:
    with running(environment, STDIO) as (process, log), anyio.fail_after(PATIENCE):
        async with rest_client(await log.address(REST)) as rest, anyio.create_task_group() as tasks:
            await anyio.to_thread.run_sync(process.handshake)

            async def follow() -> None:
                query = {"taskRunIds": RENDER_RUNNING}
                with suppress(httpx.HTTPError):
                    await rest.get("/v1/task-runs/events", params=query)

            tasks.start_soon(follow)
            request = await simulator.wait_for_request(lambda request: "events" in request.path)
            assert process.child.stdin
            process.child.stdin.close()
            code, seconds = await ended(process)
            await request.disconnected.wait()
        written = log.whole()
        origin = REST.search(written)
        assert origin is not None
        async with httpx.AsyncClient() as stranger:
            with pytest.raises(httpx.ConnectError):
                await stranger.get(origin[1])
    assert code == 0
    assert seconds < IN_TIME
    assert "Traceback" not in written


async def test_standard_output_contains_only_the_protocol(environment: dict[str, str]) -> None:
    with running(environment, STDIO) as (process, log), anyio.fail_after(PATIENCE):
        async with rest_client(await log.address(REST)) as rest:
            assert (await rest.get("/v1/tasks")).status_code == 200
        process.send(INITIALIZE)
        response = await anyio.to_thread.run_sync(process.receive)  # the first line there is
    assert response["id"] == 1
    assert response["result"]["serverInfo"]["name"] == "mcp-taskruns"


async def test_rest_port_in_use_is_reported(
    environment: dict[str, str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, *STDIO[:-1], str(port)]
        done = await anyio.run_process(command, env=os.environ | environment, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr.decode()
    assert b"Traceback" not in done.stderr


async def test_both_servers_require_tokens(environment: dict[str, str]) -> None:
    token = "a-token-of-the-operator-1"
    with running(environment | {"MCP_TASKRUNS_TOKENS": token}, HTTP) as (_, log), anyio.fail_after(PATIENCE):
        mcp, origin = await log.address(MCP), await log.address(REST)
        async with rest_client(origin) as rest:
            assert problem(await rest.get(RUN))["status"] == 401
            assert (await rest.post(f"{mcp}/mcp")).status_code == 401
            assert (await rest.get(RUN, headers={"Authorization": f"Bearer {token}"})).status_code == 200


async def test_debug_log_contains_no_credentials(environment: dict[str, str]) -> None:
    planted = {"RENDER_API_KEY": "rnd_wrong_planted_5d1c7a90b2e8", "MCP_TASKRUNS_LOG_LEVEL": "debug"}
    with running(environment | planted, HTTP) as (process, log), anyio.fail_after(PATIENCE):
        async with rest_client(await log.address(REST)) as rest:
            details = problem(await rest.get("/v1/tasks", params={"cursor": "argument-value"}))
        process.child.send_signal(signal.SIGTERM)
        await ended(process)
        written = log.whole()
    assert details["status"] == 403
    assert "DEBUG" in written
    assert "argument-value" not in written
    assert planted["RENDER_API_KEY"] not in f"{written} {details}"
