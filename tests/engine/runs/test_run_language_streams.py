"""Streams of JSON lines that an overlay describes: each test has a provider that sends one in pieces.

The lines, their statuses and the missing content type are those of Airflow 3.3.2: `GET .../dagRuns/{id}/wait`.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from mcp_taskruns.settings import Settings
from tests.clock import pass_time
from tests.engine.raw_server import listening, receive_head
from tests.engine.runs.described import OPERATIONS, RUNS, Acme, Call, acme
from tests.engine.runs.scripted import Connection

pytestmark = [pytest.mark.anyio, pytest.mark.driven_clock]

WATCH = {
    "method": "GET",
    "path": "/teams/{team}/jobs/{job}/wait",
    "inputParameters": [{"name": "interval", "in": "query", "value": "1"}],
}
STREAMING: dict[str, Any] = {
    **RUNS,
    "stream": {"operation": "watchjob", "run_ids_argument": "job"},
    "poll_seconds": 30,
}
NDJSON = {"operations": {"watchjob": {"stream_format": "ndjson"}}}


class Provider:
    """A provider of one job, whose stream follows a script."""

    def __init__(self, script: "Script") -> None:
        self.state = "waiting"
        self.reads = 0
        self.heads: list[str] = []
        self._script = script

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        connection = Connection(stream, (await receive_head(stream)).decode())
        if "/wait?interval=1 " in connection.head:
            self.heads.append(connection.head)
            await self._script(self, connection)
        else:
            self.reads += 1
            await connection.respond("200 OK", json.dumps({"id": "7", "state": self.state, "error": "boom"}))

    async def report(self, connection: Connection, *states: str) -> None:
        """Send a line for each status, a second apart."""
        for self.state in states:
            await connection.send(json.dumps({"state": self.state}) + "\n")
            await anyio.sleep(1)


Script = Callable[[Provider, Connection], Awaitable[None]]


@asynccontextmanager
async def streaming(folder: Path, script: Script) -> AsyncIterator[tuple[Acme, Provider]]:
    provider = Provider(script)
    async with listening(provider.serve) as origin:
        settings = Settings(environment={"ACME_BASE_URL": origin})
        operations = {**OPERATIONS, "watchjob": WATCH}
        async with acme(
            folder, None, operations=operations, runs=STREAMING, consumed=NDJSON, settings=settings
        ) as tools:
            yield tools, provider


async def call(folder: Path, tool: str, script: Script, **arguments: Any) -> tuple[Call, Provider]:
    """Call a tool with the id of the job, and let as much time pass as the call may take."""
    calls: list[Call] = []

    async def run(tools: Acme) -> None:
        calls.append(await tools.call(tool, job="7", **arguments))

    async with streaming(folder, script) as (tools, provider), anyio.create_task_group() as tasks:
        tasks.start_soon(run, tools)
        await pass_time(arguments.get("wait_seconds", 45) + 10)
    return calls[0], provider


async def wait(folder: Path, script: Script, **arguments: Any) -> tuple[Call, Provider]:
    return await call(folder, "wait-for-run", script, **arguments)


async def follow(folder: Path, script: Script) -> tuple[Call, Provider]:
    return await call(folder, "watchjob", script)


STATES = ("waiting", "waiting", "working", "working", "working", "working", "broken")
"""What Airflow's stream reported about a run that failed, with the names of this provider."""


async def report_all(provider: Provider, connection: Connection) -> None:
    await connection.open(headers="")
    await provider.report(connection, *STATES)
    await connection.end()


async def test_wait_follows_json_lines_without_a_content_type(tmp_path: Path) -> None:
    called, provider = await wait(tmp_path, report_all)
    assert (called.value["status"], called.value["error"], called.value["timed_out"]) == ("failed", "boom", False)
    assert called.messages == ["7: queued", "7: running", '7: failed, "boom"']
    assert called.value["elapsed_seconds"] < 10  # the line about the end has made the server read the run
    assert "\r\nAccept: application/x-ndjson, */*;q=0.1\r\n" in provider.heads[0]


async def test_followed_json_lines_are_events_without_repeated_statuses(tmp_path: Path) -> None:
    called, _ = await follow(tmp_path, report_all)
    assert called.messages == ["7: queued", "7: running", "7: failed (event)"]
    assert called.value["ended"] == "terminal"
    assert [event["data"]["state"] for event in called.value["events"]] == ["waiting", "working", "broken"]


@pytest.mark.parametrize(
    "media_type",
    ["application/x-ndjson", "application/json", "text/html; charset=latin-1", "text/event-stream", "image/png"],
)
async def test_lines_are_events_whatever_the_content_type_is(tmp_path: Path, media_type: str) -> None:
    async def script(provider: Provider, connection: Connection) -> None:
        await connection.open(headers=f"Content-Type: {media_type}\r\n")
        for piece in (b'{"state": "work', b'ing", "n": "\xc3', b'\xa4"}\r', b"\n\r\n", b'{"state": "done"'):
            await connection.send(piece)
            await anyio.sleep(0.1)
        provider.state = "done"
        await connection.send(b"}")
        await connection.end()

    called, _ = await follow(tmp_path, script)
    assert [event["data"] for event in called.value["events"]] == [{"state": "working", "n": "ä"}, {"state": "done"}]
    assert (called.value["ended"], called.value["runs"]) == ("terminal", {"7": "succeeded"})


async def test_lines_that_are_not_json_or_not_utf_8_do_not_end_a_wait(tmp_path: Path) -> None:
    async def script(provider: Provider, connection: Connection) -> None:
        await connection.open(b'{"state": "working"}\nnot json \xff\n{"state": "wor\n', headers="")
        await connection.send(b'["' + b"x" * 9_000_000 + b'"]\n')
        await provider.report(connection, "done")

    called, _ = await wait(tmp_path, script)
    assert called.value["status"] == "succeeded"
    assert called.messages[:3] == ["7: queued", "7: running", "message: not json \ufffd"]


async def test_stream_that_closes_early_is_no_proof_of_an_end(tmp_path: Path) -> None:
    async def script(provider: Provider, connection: Connection) -> None:
        await connection.open(headers="")
        await provider.report(connection, "working")
        await connection.end()
        if len(provider.heads) == 2:
            provider.state = "done"

    called, provider = await wait(tmp_path, script)
    assert called.value["status"] == "succeeded"
    assert len(provider.heads) > 1


async def test_endless_line_leaves_the_reads(tmp_path: Path) -> None:
    async def script(provider: Provider, connection: Connection) -> None:
        await connection.open(headers="")
        await provider.report(connection, "working")
        with suppress(anyio.BrokenResourceError):
            for _ in range(40):
                await connection.send(b"x" * 1_000_000)
        provider.state = "done"

    called, provider = await wait(tmp_path, script)
    assert called.value["status"] == "succeeded"
    assert len(provider.heads) == 1


async def test_silent_stream_is_opened_again_after_75_seconds(tmp_path: Path) -> None:
    async def script(provider: Provider, connection: Connection) -> None:
        await connection.open(b'{"state": "working"}\n', headers="")
        if len(provider.heads) > 1:
            await provider.report(connection, "done")
        await connection.wait_until_closed()

    called, provider = await wait(tmp_path, script, wait_seconds=200)
    assert called.value["status"] == "succeeded"
    assert 75 < called.value["elapsed_seconds"] < 85
    assert len(provider.heads) == 2


@pytest.mark.parametrize("body", ["<html>\n<title>Busy</title>\n", "upstream error"])
async def test_page_is_not_a_stream_of_lines(tmp_path: Path, body: str) -> None:
    async def script(_: Provider, connection: Connection) -> None:
        await connection.respond("200 OK", body, "Content-Type: text/html\r\n")

    called, _ = await follow(tmp_path, script)
    assert (called.value["ended"], called.value["events"]) == ("error", [])
    assert "no lines of JSON" in called.value["reason"]


async def test_refused_stream_of_lines_leaves_the_reads(tmp_path: Path) -> None:
    async def script(provider: Provider, connection: Connection) -> None:
        provider.state = "done"
        await connection.respond("422 Unprocessable", '{"detail": "interval"}')

    called, _ = await wait(tmp_path, script)
    assert called.value["status"] == "succeeded"


async def test_lines_are_forwarded_as_events(tmp_path: Path) -> None:
    async def script(_: Provider, connection: Connection) -> None:
        await connection.open(b'{"state": "working"}\n{"state": "done"}\n', headers="")
        await connection.end()

    async with streaming(tmp_path, script) as (tools, _):
        tool = tools.gateway.tools["acme-watchjob"]
        async with tools.gateway.open_stream(tool, {"team": "t", "job": "7"}) as (events, _seconds):
            assert [event.data async for event in events] == ['{"state": "working"}', '{"state": "done"}']
