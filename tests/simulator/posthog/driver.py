"""Ids of the simulated PostHog project and calls of its API."""

import json
from collections.abc import Iterator
from typing import Any

import httpx

TASK = "11111111-1111-4111-8111-111111111111"
FREE_TASK = "22222222-2222-4222-8222-222222222222"
COMPLETED = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
NOT_STARTED = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
IN_PROGRESS = "cccccccc-cccc-4ccc-8ccc-cccccccccccc"
FAILED = "dddddddd-dddd-4ddd-8ddd-dddddddddddd"
RUNS = f"/posthog/api/projects/1/tasks/{TASK}/runs/"
KEY = {"Authorization": "Bearer phx_simulated"}
OUTAGE = {"Authorization": "Bearer phx_outage"}
SSE = {"Accept": "text/event-stream, */*;q=0.1"}


async def run_detail(client: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    response = await client.get(f"{RUNS}{run_id}/")
    assert response.status_code == 200, response.text
    detail: dict[str, Any] = response.json()
    return detail


async def create(client: httpx.AsyncClient, task: str = TASK, **body: Any) -> str:
    response = await client.post(f"/posthog/api/projects/1/tasks/{task}/runs/", json=body)
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def drf_error(kind: str, code: str, detail: str, attr: str | None = None) -> dict[str, Any]:
    return {"type": kind, "code": code, "detail": detail, "attr": attr}


async def command(client: httpx.AsyncClient, run_id: str, method: str, **more: Any) -> httpx.Response:
    return await client.post(f"{RUNS}{run_id}/command/", json={"jsonrpc": "2.0", "method": method, **more})


def update_kinds(entries: list[dict[str, Any]]) -> list[str]:
    notifications = [entry["notification"] for entry in entries]
    return [item["params"].get("update", {}).get("sessionUpdate", item["method"]) for item in notifications]


def parse_events(text: str) -> Iterator[dict[str, Any]]:
    for block in text.split("\n\n"):
        if block:
            pairs = dict(line.split(": ", 1) for line in block.split("\n"))
            yield {**pairs, "data": json.loads(pairs["data"])}
