"""The simulated Inngest API.

Shapes are those of responses of the Inngest dev server. Routes are those of pkg/api/apiv1/apiv1.go and pkg/api/v2.
"""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.inngest import Inngest
from mcp_taskruns.simulator.lifecycle import ManualClock

pytestmark = pytest.mark.anyio

DEMO, SLEEPY, QUICK, FAILS, CANCELLED, CHECKPOINTED = (f"01JZDEM0RVN00000000000000{n}" for n in range(1, 7))
UNKNOWN = "01HE8AM9DPK9N37V1RKY1DNQF5"
JSON, TEXT = "application/json", "text/plain; charset=utf-8"

# The keys of a run, in the dev server's order.
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


def status_and_type(response: httpx.Response) -> tuple[int, str | None]:
    return response.status_code, response.headers.get("content-type")


def test_environment_contains_base_url_and_signing_key(simulator: Simulator) -> None:
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
async def test_get_run_has_the_shape_of_the_dev_server(
    api: httpx.AsyncClient, run_id: str, status: str, ended_at: str | None, output: Any
) -> None:
    response = await api.get(f"/v1/runs/{run_id}")
    data = response.json()["data"]
    assert status_and_type(response) == (200, JSON)
    assert response.headers["cache-control"] == "private, max-age=3"
    assert response.headers["x-inngest-server-kind"] == "dev"
    assert list(data) == RUN_KEYS + ([] if output is None else ["output"])
    assert (data["run_id"], data["status"], data["ended_at"], data.get("output")) == (run_id, status, ended_at, output)
    assert response.json()["metadata"] == {
        "fetched_at": "2026-01-01T00:00:00.000Z",
        "cached_until": "2026-01-01T00:00:03.000Z",
    }


async def test_failed_run_has_its_error_as_output(api: httpx.AsyncClient) -> None:
    data = (await api.get(f"/v1/runs/{FAILS}")).json()["data"]
    assert (data["status"], sorted(data["output"])) == ("Failed", ["code", "message", "name", "stack"])


async def test_cached_run_is_returned_as_text_for_3_seconds(api: httpx.AsyncClient, clock: ManualClock) -> None:
    first = await api.get(f"/v1/runs/{SLEEPY}")
    clock.advance(2.9)
    hit = await api.get(f"/v1/runs/{SLEEPY}")
    assert (status_and_type(hit), hit.content) == ((200, TEXT), first.content)
    assert "cache-control" not in hit.headers
    clock.advance(0.1)
    assert status_and_type(await api.get(f"/v1/runs/{SLEEPY}")) == (200, JSON)


@pytest.mark.parametrize("path", ["", "/jobs"])
@pytest.mark.parametrize(
    ("run_id", "body"),
    [
        (UNKNOWN, {"error": f"Unable to load function run: {UNKNOWN}", "data": None, "status": 500}),
        ("nope", {"error": "Invalid run ID: nope", "data": None, "status": 400}),
    ],
)
async def test_get_unknown_run_is_200_with_an_error(api: httpx.AsyncClient, path: str, run_id: str, body: Any) -> None:
    for _ in range(2):
        response = await api.get(f"/v1/runs/{run_id}{path}")
        assert (status_and_type(response), response.json()) == ((200, JSON), body)
        assert "cache-control" not in response.headers


async def test_jobs_are_removed_when_they_are_due(api: httpx.AsyncClient, clock: ManualClock) -> None:
    waiting = []
    for _ in range(4):
        response = await api.get(f"/v1/runs/{DEMO}/jobs")
        assert status_and_type(response) == (200, JSON)
        assert response.headers["cache-control"] == "private, max-age=5"
        waiting.append([job["at"][17:19] for job in response.json()["data"]])
        clock.advance(5)
    assert waiting == [["04", "08", "12"], ["08", "12"], ["12"], []]


async def test_job_has_the_shape_of_a_queue_item(api: httpx.AsyncClient) -> None:
    (job,) = (await api.get(f"/v1/runs/{SLEEPY}/jobs")).json()["data"]
    assert list(job) == ["JobID", "at", "position", "kind", "attempt", "Raw"]
    assert (job["at"], job["position"], job["kind"], job["attempt"]) == ("2026-01-01T00:10:00.000Z", 0, "sleep", 0)


async def test_executing_step_is_a_leased_job(api: httpx.AsyncClient, clock: ManualClock) -> None:
    """Seen at Inngest's server: a step that executes has one item in the queue, which is leased."""
    await api.get(f"/v1/runs/{DEMO}")
    clock.advance(4)
    jobs = (await api.get(f"/v1/runs/{DEMO}/jobs")).json()["data"]
    assert [("leaseID" in job["Raw"], job["kind"]) for job in jobs] == [
        (True, "edge"),
        (False, "sleep"),
        (False, "sleep"),
    ]
    clock.advance(5)
    assert len((await api.get(f"/v1/runs/{DEMO}/jobs")).json()["data"]) == 1


async def test_v1_loses_the_output_of_a_checkpointed_run(api: httpx.AsyncClient) -> None:
    """Seen at Inngest's server with npm inngest 4, which checkpoints steps by default."""
    v1 = (await api.get(f"/v1/runs/{CHECKPOINTED}")).json()["data"]
    v2 = (await api.get(f"/v2/runs/{CHECKPOINTED}?includeOutput=true")).json()["data"]
    assert (v1["status"], v1["output"]) == ("Completed", "")
    assert (v2["status"], v2["output"]) == ("COMPLETED", {"data": 42})


async def test_runs_of_an_event(api: httpx.AsyncClient) -> None:
    event_id = QUICK.replace("RVN", "EVT")
    response = await api.get(f"/v1/events/{event_id}/runs")
    assert [run["run_id"] for run in response.json()["data"]] == [QUICK]
    assert response.headers["cache-control"] == "private, max-age=15"
    assert (await api.get(f"/v1/events/{UNKNOWN}/runs")).json()["data"] == []
    assert (await api.get("/v1/events/nope/runs")).json()["status"] == 400
    as_run = (await api.get(f"/v1/runs/{event_id}")).json()
    assert as_run == {"error": f"Unable to load function run: {event_id}", "data": None, "status": 500}


async def test_dev_server_needs_no_key() -> None:
    app = Starlette(routes=Inngest(ManualClock(), is_dev=True).routes())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://dev") as client:
        responses = [await client.get(f"/{version}/runs/{QUICK}") for version in ("v1", "v2", "v1")]
        assert [response.status_code for response in responses] == [200, 200, 200]
        assert "error" not in responses[0].json()
        any_key = {"Authorization": "Bearer whatever"}
        assert (await client.get(f"/v2/runs/{QUICK}", headers=any_key)).status_code == 200


async def test_demo_run_starts_when_it_is_first_read(api: httpx.AsyncClient, clock: ManualClock) -> None:
    clock.advance(1000)
    statuses = []
    for _ in range(2):
        data = (await api.get(f"/v1/runs/{DEMO}")).json()["data"]
        statuses.append((data["run_started_at"], data["status"]))
        clock.advance(12)
    assert statuses == [("2026-01-01T00:16:40.000Z", "Running"), ("2026-01-01T00:16:40.000Z", "Completed")]


async def test_cancel_has_an_empty_response_and_shows_after_the_cache_expires(
    api: httpx.AsyncClient, clock: ManualClock
) -> None:
    await api.get(f"/v1/runs/{SLEEPY}")
    response = await api.delete(f"/v1/runs/{SLEEPY}")
    assert (status_and_type(response), response.headers["content-length"]) == ((200, JSON), "0")
    statuses = []
    for _ in range(2):
        statuses.append((await api.get(f"/v1/runs/{SLEEPY}")).json()["data"]["status"])
        clock.advance(3)
    assert statuses == ["Running", "Cancelled"]
    assert (await api.get(f"/v1/runs/{SLEEPY}/jobs")).json()["data"] == []


async def test_cancel_keeps_a_terminal_status(api: httpx.AsyncClient) -> None:
    assert (await api.delete(f"/v1/runs/{QUICK}")).status_code == 200
    assert (await api.get(f"/v1/runs/{QUICK}")).json()["data"]["status"] == "Completed"


@pytest.mark.parametrize(
    ("run_id", "status", "error"),
    [(UNKNOWN, 404, f"Unable to load function run: {UNKNOWN}"), ("nope", 400, "Invalid run ID: nope")],
)
async def test_cancel_unknown_run_is_an_error(api: httpx.AsyncClient, run_id: str, status: int, error: str) -> None:
    response = await api.delete(f"/v1/runs/{run_id}")
    assert (status_and_type(response), response.json()) == (
        (status, JSON),
        {"error": error, "data": None, "status": status},
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", f"/v1/runs/{SLEEPY}/cancel"), ("GET", f"/v1/runs/{SLEEPY}/"), ("GET", "/"), ("GET", "/v1/events")],
)
async def test_unknown_path_is_404_in_plain_text(api: httpx.AsyncClient, method: str, path: str) -> None:
    response = await api.request(method, path)
    assert (status_and_type(response), response.text) == ((404, TEXT), "404 page not found\n")


async def test_unsupported_method_is_405_with_one_allow_header_per_method(api: httpx.AsyncClient) -> None:
    response = await api.post(f"/v1/runs/{SLEEPY}")
    assert (response.status_code, response.content) == (405, b"")
    assert response.headers.get_list("allow") == ["GET", "DELETE"]


@pytest.mark.parametrize("key", ["", "Bearer signkey-wrong", "Bearer sk-inn-api-1"])
async def test_v1_accepts_only_signing_keys(api: httpx.AsyncClient, key: str) -> None:
    response = await api.get(f"/v1/runs/{SLEEPY}", headers={"Authorization": key})
    assert (status_and_type(response), response.text) == ((401, TEXT), "Authentication failed\n")


async def test_v2_accepts_signing_keys_and_api_keys(api: httpx.AsyncClient) -> None:
    valid = await api.get("/v2/runs", headers={"Authorization": "Bearer sk-inn-api-1"})
    invalid = await api.get("/v2/runs", headers={"Authorization": "Bearer sk-inn-api-wrong"})
    del api.headers["Authorization"]
    missing = await api.get("/v2/runs")
    assert valid.status_code == 200
    assert (invalid.status_code, invalid.json()["errors"][0]["code"]) == (401, "invalid_signing_key")
    assert (missing.status_code, missing.json()["errors"][0]["code"]) == (401, "authorization_header_missing")


@pytest.mark.parametrize("prefix", ["/v2", "/api/v2"])
async def test_v2_includes_the_output_on_request(api: httpx.AsyncClient, prefix: str) -> None:
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


async def test_v2_pages_report_whether_there_are_more(api: httpx.AsyncClient) -> None:
    pages, cursor = [], ""
    for _ in range(3):
        body = (await api.get("/v2/runs", params={"limit": 2, "cursor": cursor})).json()
        pages.append(([run["id"][-1] for run in body["data"]], body["page"]["hasMore"], body["page"]["limit"]))
        cursor = body["page"]["cursor"]
    assert pages == [(["1", "2"], True, 2), (["5", "6"], True, 2), (["4", "3"], False, 2)]


async def test_v2_list_filters_by_status_and_function(api: httpx.AsyncClient) -> None:
    failed = (await api.get("/v2/runs?status=FAILED")).json()["data"]
    sleepy = (await api.get("/v2/runs?functionId=sleepy&status=CANCELLED")).json()["data"]
    no_runs = (await api.get("/v2/runs?functionId=none")).json()
    assert [[run["id"] for run in runs] for runs in (failed, sleepy)] == [[FAILS], [CANCELLED]]
    assert (no_runs["data"], no_runs["page"]) == ([], {"hasMore": False, "limit": 20})


@pytest.mark.parametrize(
    ("query", "runs"),
    [
        ("status=FAILED&status=cancelled", [CANCELLED, FAILS]),
        ("appId=demo&functionId=sleepy", [SLEEPY, CANCELLED]),
        ("appId=other", []),
        # quick and fails started 1020 s before the clock's start, at 23:43
        ("until=2025-12-31T23:44:00Z", [FAILS, QUICK]),
        ("until=2025-12-31T23:44:00Z&order=asc", [QUICK, FAILS]),
        ("from=2025-12-31T23:44:00Z&until=2025-12-31T23:59:00Z", [CANCELLED, CHECKPOINTED]),
        ("timeField=endedAt&until=2025-12-31T23:43:00.150Z", [FAILS]),
        ("timeField=startedAt&until=2025-12-31T23:43:00Z", []),
    ],
)
async def test_v2_list_has_the_filters_of_the_server(api: httpx.AsyncClient, query: str, runs: list[str]) -> None:
    assert [run["id"] for run in (await api.get(f"/v2/runs?{query}")).json()["data"]] == runs


async def test_v2_lists_the_runs_of_an_event(api: httpx.AsyncClient) -> None:
    event = FAILS.replace("RVN", "EVT")
    body = (await api.get(f"/v2/events/{event}/runs?includeOutput=true")).json()
    assert [(run["id"], run["output"]["name"]) for run in body["data"]] == [(FAILS, "NonRetriableError")]
    assert (body["page"]["hasMore"], body["page"]["limit"]) == (False, 20)
    assert (await api.get(f"/v2/events/{UNKNOWN}/runs")).json()["data"] == []


async def test_v2_trace_lists_the_steps_that_have_begun(api: httpx.AsyncClient, clock: ManualClock) -> None:
    async def statuses(run_id: str) -> list[tuple[str, str]]:
        root = (await api.get(f"/v2/runs/{run_id}/trace")).json()["data"]["rootSpan"]
        return [(root["name"], root["status"]), *((step["name"], step["status"]) for step in root["children"])]

    fresh = QUICK.removesuffix("3") + "1"
    assert await statuses(fresh) == [("onboarding", "RUNNING"), ("send-welcome", "RUNNING")]
    clock.advance(2)
    assert (await statuses(fresh))[1:] == [("send-welcome", "COMPLETED"), ("wait-for-signup", "WAITING")]
    assert await statuses(SLEEPY) == [("sleepy", "RUNNING"), ("nap", "WAITING")]
    assert await statuses(CANCELLED) == [("sleepy", "CANCELLED"), ("nap", "CANCELLED")]
    assert await statuses(FAILS) == [("fails", "FAILED"), ("charge-card", "FAILED")]


async def test_v2_trace_has_times_and_outputs_on_request(api: httpx.AsyncClient) -> None:
    body = (await api.get(f"/v2/runs/{CHECKPOINTED}/trace?includeOutput=true")).json()
    root = body["data"]["rootSpan"]
    (step,) = root["children"]
    assert (body["data"]["runId"], root["output"], step["output"]) == (CHECKPOINTED, {"data": 42}, {"data": 42})
    assert (step["stepOp"], step["durationMs"], step["endedAt"]) == ("RUN", "300", "2025-12-31T23:45:00.300Z")
    plain = (await api.get(f"/v2/runs/{CHECKPOINTED}/trace")).json()["data"]["rootSpan"]
    assert "output" not in plain
    assert "output" not in plain["children"][0]


async def test_v2_rerun_starts_a_new_run_of_the_same_event(api: httpx.AsyncClient, clock: ManualClock) -> None:
    new = (await api.post(f"/v2/runs/{CANCELLED}/rerun")).json()["data"]["runId"]
    clock.advance(5)
    data = (await api.get(f"/v2/runs/{new}")).json()["data"]
    assert (data["status"], data["function"]["id"]) == ("RUNNING", "sleepy")
    assert data["trigger"] == {"eventIds": [CANCELLED.replace("RVN", "EVT")]}
    assert (await api.get(f"/v1/runs/{CANCELLED}")).json()["data"]["status"] == "Cancelled"


async def test_v2_cancel_of_a_terminal_run_is_409(api: httpx.AsyncClient) -> None:
    responses = [await api.post(f"/v2/runs/{run_id}/cancel", json={}) for run_id in (SLEEPY, SLEEPY, FAILS)]
    assert responses[0].json()["data"] == {"runId": SLEEPY}
    assert [(response.status_code, response.json()["errors"][0]["code"]) for response in responses[1:]] == [
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
        ("GET", "/v2/runs?status=BROKEN", 400, "invalid_field_format"),
        ("GET", "/v2/runs?timeField=at", 400, "invalid_field_format"),
        ("GET", "/v2/runs?order=up", 400, "invalid_field_format"),
        ("GET", "/v2/runs?from=today", 400, "invalid_field_format"),
        ("GET", f"/v2/runs/{UNKNOWN}/trace", 404, "not_found"),
        ("POST", f"/v2/runs/{UNKNOWN}/rerun", 404, "not_found"),
        ("GET", "/v2/events/nope/runs", 400, "invalid_field_format"),
        ("GET", f"/v2/events/{UNKNOWN}/runs?limit=41", 400, "invalid_field_format"),
    ],
)
async def test_v2_errors_have_a_code_and_a_status_code(
    api: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    response = await api.request(method, path)
    assert (response.status_code, response.json()["errors"][0]["code"]) == (status, code)
