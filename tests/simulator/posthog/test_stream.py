"""The event stream of a run.

Expected values are from PostHog products/tasks/backend/{api,models,serializers}.py, stream/redis_stream.py and
posthog/api/mixins.py (https://github.com/PostHog/posthog), not from the simulator.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream
from starlette.applications import Starlette

from mcp_taskruns.simulator.lifecycle import ManualClock
from mcp_taskruns.simulator.posthog import project as posthog_project
from mcp_taskruns.simulator.posthog.app import PostHog
from tests.simulator.posthog.driver import (
    COMPLETED,
    FAILED,
    IN_PROGRESS,
    KEY,
    NOT_STARTED,
    OUTAGE,
    RUNS,
    SSE,
    command,
    create,
    parse_events,
    update_kinds,
)
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio


@dataclass
class OpenStream:
    """Reads events while the app sends them. httpx.ASGITransport collects the whole body first."""

    messages: MemoryObjectReceiveStream[Any]
    text: str = ""

    async def next_block(self) -> str | None:
        """Return the lines of the next event, or None at the end of the stream."""
        while "\n\n" not in self.text:
            try:
                message = await self.messages.receive()
            except anyio.EndOfStream:
                return None
            self.text += message.get("body", b"").decode()
        block, _, self.text = self.text.partition("\n\n")
        return block

    async def until(self, text: str) -> str:
        """Skip events until one contains `text`, and return it."""
        while (block := await self.next_block()) is not None:
            if text in block:
                return block
        raise AssertionError(f"the stream ended without {text!r}")


@asynccontextmanager
async def open_stream(app: Starlette, path: str, query: str = "", **headers: str) -> AsyncIterator[OpenStream]:
    """Call the app with a GET request and yield the stream. Leaving the block disconnects."""
    send, receive = anyio.create_memory_object_stream[Any](1000)
    disconnected = anyio.Event()
    scope = http_scope(path, query, {**KEY, "Accept": "text/event-stream", **headers})
    unread = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive_message() -> dict[str, Any]:
        if unread:
            return unread.pop()
        await disconnected.wait()
        return {"type": "http.disconnect"}

    async def run_app() -> None:
        async with send:
            await app(scope, receive_message, send.send)

    with anyio.fail_after(PATIENCE):
        async with receive, anyio.create_task_group() as group:
            group.start_soon(run_app)
            yield OpenStream(receive)
            disconnected.set()


def http_scope(path: str, query: str, headers: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "root_path": "",
        "scheme": "http",
        "query_string": query.encode(),
        "server": ("simulator", 80),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }


async def test_stream_of_a_completed_run_replays_it_and_closes(client: httpx.AsyncClient) -> None:
    response = await client.get(f"{RUNS}{COMPLETED}/stream/", headers=SSE)
    assert response.headers["Content-Type"] == "text/event-stream"
    assert (response.headers["Cache-Control"], response.headers["X-Accel-Buffering"]) == ("no-cache", "no")
    events = list(parse_events(response.text))
    assert all(event.keys() == {"id", "data"} for event in events)
    ids = [tuple(int(part) for part in event["id"].split("-")) for event in events]
    assert ids == sorted(set(ids))
    assert {event["data"]["type"] for event in events} == {"task_run_state", "notification"}
    last = events[-1]["data"]
    assert last.keys() == {
        "type",
        "run_id",
        "task_id",
        "status",
        "stage",
        "output",
        "branch",
        "error_message",
        "updated_at",
        "completed_at",
    }
    assert (last["type"], last["status"]) == ("task_run_state", "completed")


async def test_stream_has_message_chunks_and_log_has_whole_messages(client: httpx.AsyncClient) -> None:
    stream = parse_events((await client.get(f"{RUNS}{COMPLETED}/stream/", headers=SSE)).text)
    streamed = update_kinds([event["data"] for event in stream if event["data"]["type"] == "notification"])
    logged = update_kinds((await client.get(f"{RUNS}{COMPLETED}/session_logs/")).json())
    assert ("agent_message_chunk" in streamed, "agent_message" in streamed) == (True, False)
    assert ("agent_message_chunk" in logged, "agent_message" in logged) == (False, True)


async def test_stream_resumes_after_last_event_id(client: httpx.AsyncClient) -> None:
    path = f"{RUNS}{COMPLETED}/stream/"
    events = list(parse_events((await client.get(path, headers=SSE)).text))
    for index in (0, 7, len(events) - 1):
        rest = await client.get(path, headers={**SSE, "Last-Event-ID": events[index]["id"]}, params={"start": "latest"})
        assert list(parse_events(rest.text)) == events[index + 1 :]
    garbage = await client.get(path, headers={**SSE, "Last-Event-ID": "what"})
    assert list(parse_events(garbage.text)) == events


async def test_stream_closes_at_the_terminal_status_of_a_started_run(app: Starlette, clock: ManualClock) -> None:
    async with open_stream(app, f"{RUNS}{NOT_STARTED}/stream/") as stream:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://simulator", headers=KEY) as client:
            await client.post(f"{RUNS}{NOT_STARTED}/start/")
        await stream.until('"queued"')
        clock.advance(1)
        await stream.until("Provisioning sandbox")
        await stream.until('"in_progress"')
        clock.advance(9)
        await stream.until("_posthog/turn_complete")
        assert '"status": "completed"' in await stream.until("task_run_state")
        assert await stream.next_block() is None


async def test_stream_closes_when_the_run_is_canceled(
    app: Starlette, client: httpx.AsyncClient, clock: ManualClock
) -> None:
    async with open_stream(app, f"{RUNS}{IN_PROGRESS}/stream/") as stream:
        await stream.until("permission_request")
        await client.patch(f"{RUNS}{IN_PROGRESS}/", json={"status": "cancelled"})
        assert '"status": "cancelled"' in (await stream.next_block() or "")
        assert await stream.next_block() is None


async def test_idle_stream_sends_keepalive_without_id_every_20_seconds(app: Starlette, clock: ManualClock) -> None:
    async with open_stream(app, f"{RUNS}{IN_PROGRESS}/stream/", "start=latest") as stream:
        await anyio.wait_all_tasks_blocked()
        for _ in range(2):
            clock.advance(19)
            await anyio.wait_all_tasks_blocked()
            assert stream.messages.statistics().current_buffer_used <= 1  # at most the start of the response
            clock.advance(1)
            assert await stream.next_block() == 'event: keepalive\ndata: {"type": "keepalive"}'


async def test_stream_from_latest_sends_only_new_events(app: Starlette, client: httpx.AsyncClient) -> None:
    async with open_stream(app, f"{RUNS}{IN_PROGRESS}/stream/", "start=latest") as stream:
        await anyio.wait_all_tasks_blocked()
        await command(client, IN_PROGRESS, "user_message", params={"content": "Hurry"})
        assert "Hurry" in (await stream.next_block() or "")


async def test_stream_from_latest_of_a_completed_run_is_empty(client: httpx.AsyncClient) -> None:
    response = await client.get(f"{RUNS}{COMPLETED}/stream/", params={"start": "latest"}, headers=SSE)
    assert response.content == b""


async def test_stream_without_entries_for_120_seconds_sends_an_error(app: Starlette, clock: ManualClock) -> None:
    async with open_stream(app, f"{RUNS}{NOT_STARTED}/stream/") as stream:
        for _ in range(5):
            await anyio.wait_all_tasks_blocked()
            clock.advance(20)
            assert (await stream.next_block() or "").startswith("event: keepalive")
        clock.advance(20)
        assert await stream.until("error") == 'event: error\ndata: {"error": "Stream not available"}'
        assert await stream.next_block() is None


async def test_stream_reports_a_lost_connection_and_can_be_resumed(app: Starlette, client: httpx.AsyncClient) -> None:
    async with open_stream(app, f"{RUNS}{IN_PROGRESS}/stream/", **OUTAGE) as stream:
        last_id = (await stream.until("permission_request")).split("\n")[0].removeprefix("id: ")
        assert await stream.next_block() == 'event: error\ndata: {"error": "Connection lost to task run stream"}'
        assert await stream.next_block() is None
    await client.patch(f"{RUNS}{IN_PROGRESS}/", json={"status": "cancelled"})
    rest = await client.get(f"{RUNS}{IN_PROGRESS}/stream/", headers=SSE | {"Last-Event-ID": last_id})
    assert [event["data"]["status"] for event in parse_events(rest.text)] == ["cancelled"]


async def test_oldest_entries_of_a_long_stream_are_trimmed(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posthog_project, "MAX_STREAM_LENGTH", 3)
    run_id = await create(client)
    for stage in ("one", "two", "three"):
        await client.patch(f"{RUNS}{run_id}/", json={"stage": stage})
    await client.patch(f"{RUNS}{run_id}/", json={"status": "failed"})
    events = parse_events((await client.get(f"{RUNS}{run_id}/stream/", headers=SSE)).text)
    # The end marker is the third entry.
    assert [(event["data"]["stage"], event["data"]["status"]) for event in events] == [
        ("three", "not_started"),
        ("three", "failed"),
    ]


async def test_connection_is_rotated_after_15_minutes_and_resumes_after_the_last_id(
    app: Starlette, client: httpx.AsyncClient, clock: ManualClock
) -> None:
    async with open_stream(app, f"{RUNS}{IN_PROGRESS}/stream/") as stream:
        last_id = (await stream.until("permission_request")).split("\n")[0].removeprefix("id: ")
        await anyio.wait_all_tasks_blocked()
        clock.advance(15 * 60)
        assert await stream.until("event: end") == 'event: end\ndata: {"type": "rotated"}'
        assert await stream.next_block() is None
    async with open_stream(app, f"{RUNS}{IN_PROGRESS}/stream/", **{"Last-Event-ID": last_id}) as stream:
        await anyio.wait_all_tasks_blocked()
        await client.patch(f"{RUNS}{IN_PROGRESS}/", json={"status": "cancelled"})
        assert '"status": "cancelled"' in (await stream.next_block() or "")


@pytest.mark.parametrize("query", ["", "?start=latest"])
async def test_stream_of_an_ended_run_can_end_with_stream_end(
    client: httpx.AsyncClient, posthog: PostHog, query: str
) -> None:
    posthog.project.marks_stream_ends = True
    text = (await client.get(f"{RUNS}{COMPLETED}/stream/{query}", headers=SSE)).text
    assert text.endswith('event: stream-end\ndata: {"status": "complete"}\n\n')


async def test_expired_stream_of_an_ended_run_has_one_event_without_id(
    client: httpx.AsyncClient, posthog: PostHog
) -> None:
    posthog.project.marks_stream_ends = True
    posthog.expire_stream(COMPLETED)
    response = await client.get(f"{RUNS}{COMPLETED}/stream/", headers={**SSE, "Last-Event-ID": "1-0"})
    state, end = parse_events(response.text)
    assert (list(state), state["data"]["type"], state["data"]["status"]) == (["data"], "task_run_state", "completed")
    assert end == {"event": "stream-end", "data": {"status": "complete"}}


async def test_expired_stream_can_be_204_until_the_run_is_resumed(client: httpx.AsyncClient, posthog: PostHog) -> None:
    posthog.expire_stream(FAILED, responds_204=True)
    response = await client.get(f"{RUNS}{FAILED}/stream/", headers=SSE)
    assert (response.status_code, response.content) == (204, b"")
    await client.post(f"{RUNS}{FAILED}/resume_in_cloud/")
    assert not posthog.project.runs[FAILED].has_no_stream


async def test_stream_reports_that_a_permission_request_was_resolved(app: Starlette, client: httpx.AsyncClient) -> None:
    async with open_stream(app, f"{RUNS}{IN_PROGRESS}/stream/") as stream:
        await stream.until("permission_request")
        await command(client, IN_PROGRESS, "permission_response", params={"requestId": "perm-1", "optionId": "allow"})
        assert '"requestId": "perm-1"' in await stream.until("_posthog/permission_resolved")
    assert "permission" not in (await client.get(f"{RUNS}{IN_PROGRESS}/logs/")).text.replace("May I push", "")


async def test_resumed_run_has_a_new_stream(client: httpx.AsyncClient, clock: ManualClock) -> None:
    old = list(parse_events((await client.get(f"{RUNS}{FAILED}/stream/", headers=SSE)).text))
    await client.post(f"{RUNS}{FAILED}/resume_in_cloud/")
    clock.advance(10)
    new = list(parse_events((await client.get(f"{RUNS}{FAILED}/stream/", headers=SSE)).text))
    assert (old[-1]["data"]["status"], new[0]["data"]["status"]) == ("failed", "queued")
    assert new[-1]["data"]["status"] == "completed"


async def test_disconnect_ends_the_stream(app: Starlette) -> None:
    async with open_stream(app, f"{RUNS}{IN_PROGRESS}/stream/") as stream:
        await stream.until("permission_request")
    assert stream.messages.statistics().open_send_streams == 0  # the app has returned
