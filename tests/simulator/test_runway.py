"""The simulated Runway API. Literals are from Runway's OpenAPI document and the official SDK (runwayml 5.24.0)."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.lifecycle import ManualClock

pytestmark = pytest.mark.anyio

DEMO, SUCCEEDED, FAILED, THROTTLED, CANCELLED = (f"{n}7f20503-6c24-4c16-946b-35dbbce2af2f" for n in (1, 2, 3, 4, 5))
KEY = {"Authorization": "Bearer key_simulated"}
VERSION = {"X-Runway-Version": "2024-11-06"}


@pytest.fixture
async def api(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(simulator.app)
    base_url = "http://simulator/runway/v1"
    async with httpx.AsyncClient(transport=transport, base_url=base_url, headers=KEY | VERSION) as client:
        yield client


def test_environment_contains_base_url_and_secret(simulator: Simulator) -> None:
    assert simulator.runway.environment("http://127.0.0.1:1") == {
        "RUNWAY_BASE_URL": "http://127.0.0.1:1/runway/v1",
        "RUNWAYML_API_SECRET": "key_simulated",
    }


async def test_demo_task_starts_when_it_is_first_read_and_reports_progress(
    api: httpx.AsyncClient, clock: ManualClock
) -> None:
    clock.advance(1000)
    bodies: list[Any] = []
    for seconds in (0, 2, 2, 8, 8):
        clock.advance(seconds)
        bodies.append((await api.get(f"/tasks/{DEMO}")).json())
    common = {"id": DEMO, "createdAt": "2026-01-01T00:16:40.000Z"}
    waiting = common | {"estimatedCost": {"credits": 25}}
    assert bodies[:4] == [
        waiting | {"status": "THROTTLED"},
        waiting | {"status": "PENDING"},
        waiting | {"status": "RUNNING", "progress": 0.0},
        waiting | {"status": "RUNNING", "progress": 0.5},
    ]
    (url,) = bodies[4].pop("output")
    assert url.startswith("https://")
    assert bodies[4] == common | {"status": "SUCCEEDED", "cost": {"credits": 25}}


@pytest.mark.parametrize(
    ("task", "fields"),
    [
        (
            FAILED,
            {
                "status": "FAILED",
                "failure": "An unexpected error occurred.",
                "failureCode": "INTERNAL.BAD_OUTPUT.CODE01",
                "cost": {"credits": 0},
            },
        ),
        (THROTTLED, {"status": "THROTTLED", "estimatedCost": {"credits": 25}}),
        (CANCELLED, {"status": "CANCELLED", "cost": {"credits": 0}}),
    ],
)
async def test_fields_depend_on_the_status(
    api: httpx.AsyncClient, clock: ManualClock, task: str, fields: dict[str, Any]
) -> None:
    clock.advance(3600)
    body = (await api.get(f"/tasks/{task}")).json()
    assert body == {"id": task, "createdAt": body["createdAt"]} | fields


async def test_every_get_returns_new_output_urls(api: httpx.AsyncClient) -> None:
    urls = {(await api.get(f"/tasks/{SUCCEEDED}")).json()["output"][0] for _ in range(3)}
    assert len(urls) == 3


@pytest.mark.parametrize("task", [DEMO, SUCCEEDED])
async def test_deleted_task_is_404_whatever_its_status(api: httpx.AsyncClient, task: str) -> None:
    response = await api.delete(f"/tasks/{task}")
    assert (response.status_code, response.content) == (204, b"")
    for method in ("GET", "DELETE"):
        again = await api.request(method, f"/tasks/{task}")
        assert (again.status_code, list(again.json())) == (404, ["error"])


@pytest.mark.parametrize("version", ["", "2024-09-13"])
async def test_version_header_is_checked_before_key_and_id(api: httpx.AsyncClient, version: str) -> None:
    response = await api.get("/tasks/{id}", headers={"X-Runway-Version": version, "Authorization": ""})
    (issue,) = response.json()["issues"]
    assert (response.status_code, issue["path"]) == (400, ["header", "X-Runway-Version"])
    assert sorted(issue) == ["code", "message", "path"]


async def test_id_that_is_not_a_uuid_is_400(api: httpx.AsyncClient) -> None:
    response = await api.get("/tasks/{id}")
    assert (response.status_code, response.json()["issues"][0]["path"]) == (400, ["params", "id"])


@pytest.mark.parametrize("key", ["", "Bearer key_wrong", "Bearer rnd_simulated"])
async def test_invalid_key_is_401(api: httpx.AsyncClient, key: str) -> None:
    response = await api.get(f"/tasks/{DEMO}", headers={"Authorization": key})
    assert (response.status_code, list(response.json())) == (401, ["error"])


async def test_throttled_key_is_429_with_retry_after(api: httpx.AsyncClient, clock: ManualClock) -> None:
    headers = {"Authorization": "Bearer key_throttled"}
    assert (await api.get(f"/tasks/{SUCCEEDED}", headers=headers)).status_code == 200
    clock.advance(0.5)
    limited = await api.delete(f"/tasks/{SUCCEEDED}", headers=headers)
    assert (limited.status_code, limited.headers["Retry-After"], list(limited.json())) == (429, "2", ["error"])
    clock.advance(2)
    assert (await api.get(f"/tasks/{SUCCEEDED}", headers=headers)).status_code == 200


async def test_unknown_methods_and_paths_are_errors(api: httpx.AsyncClient) -> None:
    responses = [await api.post(f"/tasks/{DEMO}"), await api.get("/organization"), await api.get(f"/tasks/{DEMO}/")]
    assert [(response.status_code, list(response.json())) for response in responses] == [
        (405, ["error"]),
        (404, ["error"]),
        (404, ["error"]),
    ]
