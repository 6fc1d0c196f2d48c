"""Keys, scopes, limits, unknown paths, methods, Accept header and bodies.

Expected values are from PostHog products/tasks/backend/{api,models,serializers}.py, stream/redis_stream.py and
posthog/api/mixins.py (https://github.com/PostHog/posthog), not from the simulator.
"""

import httpx
import pytest

from mcp_taskruns.simulator.lifecycle import ManualClock
from mcp_taskruns.simulator.posthog.app import PostHog
from tests.simulator.posthog.driver import COMPLETED, FREE_TASK, NOT_STARTED, RUNS, SSE, TASK, drf_error, run_detail

pytestmark = pytest.mark.anyio


def test_environment_contains_base_url_key_and_project(clock: ManualClock) -> None:
    posthog = PostHog(clock)
    assert posthog.name == "posthog"
    assert posthog.environment("http://127.0.0.1:8120") == {
        "POSTHOG_BASE_URL": "http://127.0.0.1:8120/posthog",
        "POSTHOG_API_KEY": "phx_simulated",
        "POSTHOG_PROJECT_ID": "1",
    }


@pytest.mark.parametrize(
    ("authorization", "status", "code"),
    [
        ("", 401, "not_authenticated"),
        ("Basic cGh4Xw==", 401, "not_authenticated"),
        ("Bearer phc_project_token", 401, "authentication_failed"),
        ("Bearer phx_wrong", 401, "authentication_failed"),
        # 403 if the view lists session authentication first. Only type and code distinguish it from a missing scope.
        ("Bearer phx_wrong_403", 403, "authentication_failed"),
    ],
)
async def test_only_a_personal_api_key_is_valid(
    client: httpx.AsyncClient, authorization: str, status: int, code: str
) -> None:
    response = await client.get(RUNS, headers={"Authorization": authorization})
    assert response.status_code == status
    assert (response.json()["type"], response.json()["code"]) == ("authentication_error", code)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", ""),
        ("PATCH", f"{COMPLETED}/"),
        ("POST", f"{COMPLETED}/append_log/"),
        ("POST", f"{COMPLETED}/artifacts/"),
        ("POST", f"{COMPLETED}/artifacts/prepare_upload/"),
        ("POST", f"{COMPLETED}/artifacts/finalize_upload/"),
        ("POST", f"{COMPLETED}/command/"),
        ("GET", f"{COMPLETED}/connection_token/"),
        ("POST", f"{COMPLETED}/relay_message/"),
        ("POST", f"{COMPLETED}/resume_in_cloud/"),
        ("PATCH", f"{COMPLETED}/set_output/"),
        ("POST", f"{COMPLETED}/start/"),
    ],
)
async def test_read_only_key_cannot_write(client: httpx.AsyncClient, method: str, path: str) -> None:
    before = await run_detail(client, COMPLETED)
    response = await client.request(method, RUNS + path, headers={"Authorization": "Bearer phx_readonly"}, json={})
    assert response.status_code == 403
    detail = "API key missing required scope 'task:write'"
    assert response.json() == drf_error("authentication_error", "permission_denied", detail)
    assert await run_detail(client, COMPLETED) == before


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("GET", f"{COMPLETED}/", None),
        ("GET", f"{COMPLETED}/logs/", None),
        ("GET", f"{COMPLETED}/session_logs/", None),
        ("GET", f"{COMPLETED}/stream/", None),
        ("POST", f"{COMPLETED}/artifacts/presign/", "report.md"),
        ("POST", f"{COMPLETED}/artifacts/download/", "report.md"),
    ],
)
async def test_read_only_key_can_read(client: httpx.AsyncClient, method: str, path: str, body: str | None) -> None:
    storage_path = (await run_detail(client, COMPLETED))["artifacts"][0]["storage_path"]
    headers = {"Authorization": "Bearer phx_readonly"}
    response = await client.request(
        method, RUNS + path, headers=headers, json={"storage_path": storage_path} if body else None
    )
    assert response.status_code == 200


async def test_throttled_key_is_429_with_retry_after(client: httpx.AsyncClient, clock: ManualClock) -> None:
    headers = {"Authorization": "Bearer phx_throttled"}
    assert (await client.get(RUNS, headers=headers)).status_code == 200
    clock.advance(0.5)
    limited = await client.get(RUNS, headers=headers)
    assert (limited.status_code, limited.headers["Retry-After"]) == (429, "2")
    detail = "Request was throttled. Expected available in 2 seconds."
    assert limited.json() == drf_error("throttled_error", "throttled", detail)
    clock.advance(2)
    assert (await client.get(RUNS, headers=headers)).status_code == 200


@pytest.mark.parametrize("path", ["", f"{NOT_STARTED}/start/", f"{COMPLETED}/resume_in_cloud/"])
async def test_usage_limit_blocks_cloud_runs_without_retry_after(client: httpx.AsyncClient, path: str) -> None:
    headers = {"Authorization": "Bearer phx_overlimit"}
    response = await client.post(RUNS + path, json={"environment": "cloud"}, headers=headers)
    assert response.status_code == 429
    assert (response.json()["type"], response.json()["code"]) == ("rate_limited", "usage_limit_exceeded")
    assert response.json()["error"] == "You've reached your PostHog Desktop usage limit."
    assert (response.json()["limit_type"], response.json()["reset_at"]) == ("burst", "2026-01-01T01:00:00.000Z")
    assert "Retry-After" not in response.headers
    assert (await client.post(RUNS, json={}, headers=headers)).status_code == 201


async def test_organization_without_access_gets_403_for_cloud_runs(client: httpx.AsyncClient) -> None:
    headers = {"Authorization": "Bearer phx_unentitled"}
    response = await client.post(RUNS, json={"environment": "cloud"}, headers=headers)
    assert (response.status_code, response.json()["code"]) == (403, "code_access_required")
    assert response.json()["reason"] == "prepaid_credits"
    assert (await client.post(RUNS, json={}, headers=headers)).status_code == 201


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        (f"/posthog/api/projects/2/tasks/{TASK}/runs/", "Project not found."),
        (f"/posthog/api/projects/1/tasks/{COMPLETED}/runs/", "Task not found"),
        (f"{RUNS}{TASK}/", "Not found."),
        (f"/posthog/api/projects/1/tasks/{FREE_TASK}/runs/{COMPLETED}/", "Not found."),
        ("/posthog/api/projects/{project_id}/tasks/{task_id}/runs/", "Project not found."),
        ("/posthog/api/nothing", "Endpoint not found."),
    ],
)
async def test_unknown_project_task_run_or_path_is_404(client: httpx.AsyncClient, path: str, detail: str) -> None:
    response = await client.get(path)
    assert response.status_code == 404
    assert response.json() == drf_error("invalid_request", "not_found", detail)


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json", 200),
        ("application/json, */*;q=0.5", 200),
        ("application/*", 200),
        ("text/event-stream", 406),
        ("application/jsonl", 406),
        ("application/octet-stream", 406),
    ],
)
async def test_accept_header_must_allow_json_even_for_json_lines(
    client: httpx.AsyncClient, accept: str, status: int
) -> None:
    for path in ("", f"{COMPLETED}/logs/"):
        response = await client.get(RUNS + path, headers={"Accept": accept})
        assert response.status_code == status
    if status == 406:
        detail = "Could not satisfy the request Accept header."
        assert response.json() == drf_error("invalid_request", "not_acceptable", detail)


async def test_accept_header_is_checked_before_the_key(client: httpx.AsyncClient) -> None:
    headers = {"Accept": "application/jsonl", "Authorization": ""}
    assert (await client.get(RUNS, headers=headers)).status_code == 406


@pytest.mark.parametrize(
    ("headers", "run_id", "status"),
    [
        ({"Accept": "application/json"}, COMPLETED, 406),
        ({**SSE, "Authorization": "Bearer phx_wrong"}, COMPLETED, 401),
        (SSE, TASK, 404),
    ],
)
async def test_error_on_the_stream_consists_of_the_keys_of_the_error(
    client: httpx.AsyncClient, headers: dict[str, str], run_id: str, status: int
) -> None:
    response = await client.get(f"{RUNS}{run_id}/stream/", headers=headers)
    assert (response.status_code, response.text) == (status, "typecodedetailattr")
    assert response.headers["Content-Type"].startswith("text/event-stream")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", f"{COMPLETED}/", "GET, PATCH, HEAD, OPTIONS"),
        ("DELETE", f"{COMPLETED}/", "GET, PATCH, HEAD, OPTIONS"),
        ("GET", f"{COMPLETED}/start/", "POST, OPTIONS"),
    ],
)
async def test_unsupported_method_is_405_with_allow(
    client: httpx.AsyncClient, method: str, path: str, allow: str
) -> None:
    response = await client.request(method, RUNS + path)
    assert (response.status_code, response.headers["Allow"]) == (405, allow)
    assert response.json() == drf_error("invalid_request", "method_not_allowed", f'Method "{method}" not allowed.')


async def test_trailing_slash_is_optional(client: httpx.AsyncClient) -> None:
    for path in ("", f"{COMPLETED}/", f"{COMPLETED}/logs/", f"{COMPLETED}/session_logs/"):
        with_slash, without = await client.get(RUNS + path), await client.get((RUNS + path).removesuffix("/"))
        assert without.status_code == 200
        assert without.content == with_slash.content


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        ("{", "application/json", 400, "parse_error"),
        ("environment=cloud", "text/plain", 415, "unsupported_media_type"),
        ("[]", "application/json", 400, "invalid_input"),
    ],
)
async def test_body_must_be_a_json_object(
    client: httpx.AsyncClient, content: str, content_type: str, status: int, code: str
) -> None:
    response = await client.post(RUNS, content=content, headers={"Content-Type": content_type})
    assert (response.status_code, response.json()["code"]) == (status, code)
