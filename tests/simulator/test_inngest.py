"""Shapes are those of the Inngest dev server's answers; the routes are pkg/api/apiv1/apiv1.go and pkg/api/v2."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.lifecycle import ManualClock

pytestmark = pytest.mark.anyio

DEMO, SLEEPY, QUICK, FAILS, CANCELLED = (f"01JZDEM0RVN00000000000000{n}" for n in (1, 2, 3, 4, 5))
UNKNOWN = "01HE8AM9DPK9N37V1RKY1DNQF5"
JSON, TEXT = "application/json", "text/plain; charset=utf-8"

# What the dev server says of a run, in this order.
RUN_KEYS = [
    "run_id",
    "run_started_at",
    "function_id",
    "function_version",
    "environment_id",
    "event_id",
    "status",
    "ended_at",
]


@pytest.fixture
async def api(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": "Bearer signkey-test-simulated"}
    transport = httpx.ASGITransport(simulator.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://simulator/inngest", headers=headers) as client:
        yield client


def seen(response: httpx.Response) -> tuple[int, str | None]:
    return response.status_code, response.headers.get("content-type")


def test_the_environment_points_at_the_mount(simulator: Simulator) -> None:
    assert simulator.inngest.environment("http://127.0.0.1:1") == {
        "INNGEST_BASE_URL": "http://127.0.0.1:1/inngest",
        "INNGEST_SIGNING_KEY": "signkey-test-simulated",
    }


@pytest.mark.parametrize(
    ("run_id", "status", "ended_at", "output"),
    [
        (SLEEPY, "Running", None, None),
        (QUICK, "Completed", "2025-12-31T23:43:00.200Z", {"input": {"n": 1, "who": "quick"}, "sum": 42}),
        (CANCELLED, "Cancelled", "2025-12-31T23:50:02.700Z", {}),
    ],
)
async def test_a_run_is_shown_as_the_dev_server_shows_it(
    api: httpx.AsyncClient, run_id: str, status: str, ended_at: str | None, output: Any
) -> None:
    response = await api.get(f"/v1/runs/{run_id}")
    data = response.json()["data"]
    assert seen(response) == (200, JSON)
    assert response.headers["cache-control"] == "private, max-age=3"
    assert response.headers["x-inngest-server-kind"] == "dev"
    assert list(data) == RUN_KEYS + ([] if output is None else ["output"])
    assert (data["run_id"], data["status"], data["ended_at"], data.get("output")) == (run_id, status, ended_at, output)
    assert response.json()["metadata"] == {
        "fetched_at": "2026-01-01T00:00:00.000Z",
        "cached_until": "2026-01-01T00:00:03.000Z",
    }


async def test_a_failed_run_has_its_error_as_output(api: httpx.AsyncClient) -> None:
    data = (await api.get(f"/v1/runs/{FAILS}")).json()["data"]
    assert (data["status"], sorted(data["output"])) == ("Failed", ["code", "message", "name", "stack"])


async def test_a_run_read_again_within_3_seconds_comes_as_text(api: httpx.AsyncClient, clock: ManualClock) -> None:
    first = await api.get(f"/v1/runs/{SLEEPY}")
    clock.advance(2.9)
    hit = await api.get(f"/v1/runs/{SLEEPY}")
    assert (seen(hit), hit.content) == ((200, TEXT), first.content)
    assert "cache-control" not in hit.headers
    clock.advance(0.1)
    assert seen(await api.get(f"/v1/runs/{SLEEPY}")) == (200, JSON)


@pytest.mark.parametrize("path", ["", "/jobs"])
@pytest.mark.parametrize(
    ("run_id", "body"),
    [
        (UNKNOWN, {"error": f"Unable to load function run: {UNKNOWN}", "data": None, "status": 500}),
        ("nope", {"error": "Invalid run ID: nope", "data": None, "status": 400}),
    ],
)
async def test_reading_what_is_not_there_is_a_200_with_an_error(
    api: httpx.AsyncClient, path: str, run_id: str, body: Any
) -> None:
    for _ in range(2):
        response = await api.get(f"/v1/runs/{run_id}{path}")
        assert (seen(response), response.json()) == ((200, JSON), body)
        assert "cache-control" not in response.headers


async def test_the_jobs_of_a_run_dwindle_until_it_has_ended(api: httpx.AsyncClient, clock: ManualClock) -> None:
    waiting = []
    for _ in range(4):
        response = await api.get(f"/v1/runs/{DEMO}/jobs")
        assert seen(response) == (200, JSON)
        assert response.headers["cache-control"] == "private, max-age=5"
        waiting.append([job["at"][17:19] for job in response.json()["data"]])
        clock.advance(5)
    assert waiting == [["04", "08", "12"], ["08", "12"], ["12"], []]


async def test_a_job_is_of_the_queue_and_not_a_step(api: httpx.AsyncClient) -> None:
    (job,) = (await api.get(f"/v1/runs/{SLEEPY}/jobs")).json()["data"]
    assert list(job) == ["JobID", "at", "position", "kind", "attempt", "Raw"]
    assert (job["at"], job["position"], job["kind"], job["attempt"]) == ("2026-01-01T00:10:00.000Z", 0, "sleep", 0)


async def test_the_first_reading_of_the_demo_run_is_its_beginning(api: httpx.AsyncClient, clock: ManualClock) -> None:
    clock.advance(1000)
    states = []
    for _ in range(2):
        data = (await api.get(f"/v1/runs/{DEMO}")).json()["data"]
        states.append((data["run_started_at"], data["status"]))
        clock.advance(12)
    assert states == [("2026-01-01T00:16:40.000Z", "Running"), ("2026-01-01T00:16:40.000Z", "Completed")]


async def test_cancelling_answers_with_nothing_and_shows_once_the_cache_has_expired(
    api: httpx.AsyncClient, clock: ManualClock
) -> None:
    await api.get(f"/v1/runs/{SLEEPY}")
    response = await api.delete(f"/v1/runs/{SLEEPY}")
    assert (seen(response), response.headers["content-length"]) == ((200, JSON), "0")
    states = []
    for _ in range(2):
        states.append((await api.get(f"/v1/runs/{SLEEPY}")).json()["data"]["status"])
        clock.advance(3)
    assert states == ["Running", "Cancelled"]
    assert (await api.get(f"/v1/runs/{SLEEPY}/jobs")).json()["data"] == []


async def test_cancelling_what_has_ended_changes_nothing(api: httpx.AsyncClient) -> None:
    assert (await api.delete(f"/v1/runs/{QUICK}")).status_code == 200
    assert (await api.get(f"/v1/runs/{QUICK}")).json()["data"]["status"] == "Completed"


@pytest.mark.parametrize(
    ("run_id", "status", "error"),
    [(UNKNOWN, 404, f"Unable to load function run: {UNKNOWN}"), ("nope", 400, "Invalid run ID: nope")],
)
async def test_cancelling_what_is_not_there_is_an_error(
    api: httpx.AsyncClient, run_id: str, status: int, error: str
) -> None:
    response = await api.delete(f"/v1/runs/{run_id}")
    assert (seen(response), response.json()) == ((status, JSON), {"error": error, "data": None, "status": status})


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", f"/v1/runs/{SLEEPY}/cancel"), ("GET", f"/v1/runs/{SLEEPY}/"), ("GET", "/"), ("GET", "/v1/events")],
)
async def test_an_unknown_path_is_not_found_in_plain_text(api: httpx.AsyncClient, method: str, path: str) -> None:
    response = await api.request(method, path)
    assert (seen(response), response.text) == ((404, TEXT), "404 page not found\n")


async def test_a_wrong_method_names_the_right_ones_one_by_one(api: httpx.AsyncClient) -> None:
    response = await api.post(f"/v1/runs/{SLEEPY}")
    assert (response.status_code, response.content) == (405, b"")
    assert response.headers.get_list("allow") == ["GET", "DELETE"]


@pytest.mark.parametrize("key", ["", "Bearer signkey-wrong", "Bearer sk-inn-api-1"])
async def test_v1_takes_signing_keys_only(api: httpx.AsyncClient, key: str) -> None:
    response = await api.get(f"/v1/runs/{SLEEPY}", headers={"Authorization": key})
    assert (seen(response), response.text) == ((401, TEXT), "Authentication failed\n")


async def test_v2_takes_signing_and_api_keys(api: httpx.AsyncClient) -> None:
    good = await api.get("/v2/runs", headers={"Authorization": "Bearer sk-inn-api-1"})
    bad = await api.get("/v2/runs", headers={"Authorization": "Bearer sk-inn-api-wrong"})
    del api.headers["Authorization"]
    none = await api.get("/v2/runs")
    assert good.status_code == 200
    assert (bad.status_code, bad.json()["errors"][0]["code"]) == (401, "invalid_signing_key")
    assert (none.status_code, none.json()["errors"][0]["code"]) == (401, "authorization_header_missing")


@pytest.mark.parametrize("prefix", ["/v2", "/api/v2"])
async def test_v2_shows_a_run_with_its_output_when_asked(api: httpx.AsyncClient, prefix: str) -> None:
    response = await api.get(f"{prefix}/runs/{QUICK}", params={"includeOutput": "true"})
    assert response.json() == {
        "data": {
            "app": {"id": "demo"},
            "function": {"id": "quick", "name": "quick"},
            "id": QUICK,
            "queuedAt": "2025-12-31T23:43:00.000Z",
            "startedAt": "2025-12-31T23:43:00.000Z",
            "status": "COMPLETED",
            "trigger": {"eventIds": ["01JZDEM0EVT000000000000003"]},
            "output": {"input": {"n": 1, "who": "quick"}, "sum": 42},
        },
        "metadata": {"fetchedAt": "2026-01-01T00:00:00.000Z"},
    }
    assert "output" not in (await api.get(f"{prefix}/runs/{QUICK}")).json()["data"]


async def test_v2_pages_say_whether_there_is_more(api: httpx.AsyncClient) -> None:
    pages, cursor = [], ""
    for _ in range(3):
        body = (await api.get("/v2/runs", params={"limit": 2, "cursor": cursor})).json()
        pages.append(([run["id"][-1] for run in body["data"]], body["page"]["hasMore"], body["page"]["limit"]))
        cursor = body["page"]["cursor"]
    assert pages == [(["1", "2"], True, 2), (["5", "4"], True, 2), (["3"], False, 2)]


async def test_v2_filters_by_status_and_function(api: httpx.AsyncClient) -> None:
    failed = (await api.get("/v2/runs?status=FAILED")).json()["data"]
    sleepy = (await api.get("/v2/runs?functionId=sleepy&status=CANCELLED")).json()["data"]
    nothing = (await api.get("/v2/runs?functionId=none")).json()
    assert [[run["id"] for run in runs] for runs in (failed, sleepy)] == [[FAILS], [CANCELLED]]
    assert (nothing["data"], nothing["page"]) == ([], {"hasMore": False, "limit": 20})


async def test_v2_cancels_a_run_once(api: httpx.AsyncClient) -> None:
    answers = [await api.post(f"/v2/runs/{run_id}/cancel", json={}) for run_id in (SLEEPY, SLEEPY, FAILS)]
    assert answers[0].json()["data"] == {"runId": SLEEPY}
    assert [(answer.status_code, answer.json()["errors"][0]["code"]) for answer in answers[1:]] == [
        (409, "run_already_cancelled"),
        (409, "run_already_ended"),
    ]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"/v2/runs/{UNKNOWN}", 404, "not_found"),
        ("GET", "/v2/runs/nope", 400, "invalid_field_format"),
        ("POST", f"/v2/runs/{UNKNOWN}/cancel", 404, "not_found"),
        ("GET", "/v2/runs?limit=0", 400, "invalid_field_format"),
        ("GET", "/v2/runs?cursor=nope", 400, "invalid_field_format"),
    ],
)
async def test_v2_errors_have_a_code_and_a_true_status(
    api: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    response = await api.request(method, path)
    assert (response.status_code, response.json()["errors"][0]["code"]) == (status, code)
