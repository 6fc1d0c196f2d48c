"""The log of a run: JSON lines, filtered entries, appended entries.

Expected values are from PostHog products/tasks/backend/{api,models,serializers}.py, stream/redis_stream.py and
posthog/api/mixins.py (https://github.com/PostHog/posthog), not from the simulator.
"""

import json
from typing import Any

import httpx
import pytest

from tests.simulator.posthog.driver import COMPLETED, FREE_TASK, NOT_STARTED, RUNS, TASK, create, update_kinds

pytestmark = pytest.mark.anyio


async def test_logs_are_json_lines(client: httpx.AsyncClient) -> None:
    response = await client.get(f"{RUNS}{COMPLETED}/logs/")
    assert response.headers["Content-Type"] == "application/jsonl"
    assert response.headers["Cache-Control"] == "no-cache"
    entries = [json.loads(line) for line in response.text.splitlines()]
    assert len(entries) == 30
    assert {entry["type"] for entry in entries} == {"notification"}
    assert entries[0]["notification"]["params"]["message"] == "Provisioning sandbox"
    empty = await client.get(f"{RUNS}{NOT_STARTED}/logs/")
    assert (empty.status_code, empty.content) == (200, b"")


async def test_logs_begin_with_those_of_the_run_resumed_from(client: httpx.AsyncClient) -> None:
    entry = {"type": "notification", "mark": True}
    await client.post(f"{RUNS}{NOT_STARTED}/append_log/", json={"entries": [entry]})
    await client.patch(f"{RUNS}{NOT_STARTED}/", json={"state": {"resume_from_run_id": COMPLETED}})
    await client.patch(f"{RUNS}{COMPLETED}/", json={"state": {"resume_from_run_id": NOT_STARTED}})
    lines = (await client.get(f"{RUNS}{NOT_STARTED}/logs/")).text.splitlines()
    assert len(lines) == 31
    assert json.loads(lines[-1]) == entry
    assert (await client.get(f"{RUNS}{NOT_STARTED}/session_logs/")).json() == [entry]


async def test_logs_exclude_a_run_of_another_task(client: httpx.AsyncClient) -> None:
    path = f"{RUNS.replace(TASK, FREE_TASK)}{await create(client, FREE_TASK)}/"
    await client.patch(path, json={"state": {"resume_from_run_id": COMPLETED}})
    assert (await client.get(f"{path}logs/")).content == b""


async def test_append_log_drops_message_chunks(client: httpx.AsyncClient) -> None:
    chunk = {
        "notification": {"method": "session/update", "params": {"update": {"sessionUpdate": "agent_message_chunk"}}}
    }
    odd = [{"notification": "x"}, {"notification": {"method": "session/update", "params": 1}}]
    response = await client.post(f"{RUNS}{NOT_STARTED}/append_log/", json={"entries": [*odd, chunk]})
    assert response.json()["id"] == NOT_STARTED
    assert response.headers["Server-Timing"]
    assert (await client.get(f"{RUNS}{NOT_STARTED}/session_logs/")).json() == odd


@pytest.mark.parametrize(
    ("entries", "attr"), [([], "entries"), ("x", "entries"), ([1], "entries__0"), (None, "entries")]
)
async def test_append_log_requires_entries(client: httpx.AsyncClient, entries: Any, attr: str) -> None:
    response = await client.post(f"{RUNS}{NOT_STARTED}/append_log/", json={"entries": entries})
    assert response.status_code == 400
    assert (response.json()["type"], response.json()["attr"]) == ("validation_error", attr)


async def test_session_logs_are_an_array_with_totals_in_headers(client: httpx.AsyncClient) -> None:
    path = f"{RUNS}{COMPLETED}/session_logs/"
    everything = await client.get(path)
    page = await client.get(path, params={"event_types": "tool_call, _posthog/console", "limit": 10, "offset": 1})
    expected = [entry for entry in everything.json() if update_kinds([entry])[0] in ("tool_call", "_posthog/console")]
    assert page.json() == expected[1:11]
    assert {name: page.headers[name] for name in ("X-Total-Count", "X-Filtered-Count", "X-Matching-Count")} == {
        "X-Total-Count": "30",
        "X-Filtered-Count": "15",
        "X-Matching-Count": "15",
    }
    assert (page.headers["X-Has-More"], everything.headers["X-Has-More"]) == ("true", "false")


async def test_session_logs_page_can_be_shorter_than_its_limit(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_taskruns.simulator.posthog.logs.PAGE_BYTES", 1000)
    response = await client.get(f"{RUNS}{COMPLETED}/session_logs/", params={"limit": 20})
    assert 1 <= len(response.json()) < 20
    assert (response.headers["X-Has-More"], response.headers["X-Matching-Count"]) == ("true", "30")


async def test_session_logs_exclude_types(client: httpx.AsyncClient) -> None:
    path = f"{RUNS}{COMPLETED}/session_logs/"
    response = await client.get(path, params={"exclude_types": "tool_call,tool_call_update"})
    assert set(update_kinds(response.json())) == {"_posthog/console", "plan", "agent_message", "_posthog/turn_complete"}


async def test_session_logs_after_a_timestamp_exclude_it_and_entries_without_one(client: httpx.AsyncClient) -> None:
    path = f"{RUNS}{COMPLETED}/session_logs/"
    await client.post(f"{RUNS}{COMPLETED}/append_log/", json={"entries": [{"no": "time"}, {"timestamp": "soon"}]})
    timestamp = (await client.get(path)).json()[27]["timestamp"]
    for after in (timestamp, timestamp.replace("Z", "+00:00"), timestamp.removesuffix("Z")):
        response = await client.get(path, params={"after": after})
        assert [entry["timestamp"] > timestamp for entry in response.json()] == [True, True]
        assert response.headers["X-Total-Count"] == "32"


@pytest.mark.parametrize(
    ("query", "attr"),
    [
        ("limit=0", "limit"),
        ("limit=5001", "limit"),
        ("limit=ten", "limit"),
        ("offset=-1", "offset"),
        ("after=yesterday", "after"),
        ("event_types=", "event_types"),
    ],
)
async def test_invalid_filter_is_400_with_its_name(client: httpx.AsyncClient, query: str, attr: str) -> None:
    response = await client.get(f"{RUNS}{COMPLETED}/session_logs/?{query}")
    assert (response.status_code, response.json()["attr"]) == (400, attr)
