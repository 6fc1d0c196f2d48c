"""The simulated PostHog behaves as PostHog's task-runs API does.

What is asserted is written from PostHog products/tasks/backend/{api,models,serializers}.py, stream/redis_stream.py and
posthog/api/mixins.py (https://github.com/PostHog/posthog), not from the simulator.
"""

import base64
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from mcp_taskruns.simulator.lifecycle import ManualClock
from mcp_taskruns.simulator.posthog import project as posthog_project
from mcp_taskruns.simulator.posthog.app import PostHog

pytestmark = pytest.mark.anyio

TASK = "11111111-1111-4111-8111-111111111111"
FREE_TASK = "22222222-2222-4222-8222-222222222222"
COMPLETED = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
NOT_STARTED = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
IN_PROGRESS = "cccccccc-cccc-4ccc-8ccc-cccccccccccc"
FAILED = "dddddddd-dddd-4ddd-8ddd-dddddddddddd"
RUNS = f"/posthog/api/projects/1/tasks/{TASK}/runs/"
KEY = {"Authorization": "Bearer phx_simulated"}
OUTAGE = {"Authorization": "Bearer phx_outage"}


@pytest.fixture
def app(clock: ManualClock) -> Starlette:
    return Starlette(routes=[Mount("/posthog", routes=PostHog(clock).routes())])


@pytest.fixture
async def client(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    with anyio.fail_after(5):
        async with httpx.AsyncClient(transport=transport, base_url="http://simulator", headers=KEY) as client:
            yield client


async def run_detail(client: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    answer = await client.get(f"{RUNS}{run_id}/")
    assert answer.status_code == 200, answer.text
    detail: dict[str, Any] = answer.json()
    return detail


async def create(client: httpx.AsyncClient, task: str = TASK, **body: Any) -> str:
    answer = await client.post(f"/posthog/api/projects/1/tasks/{task}/runs/", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def drf(kind: str, code: str, detail: str, attr: str | None = None) -> dict[str, Any]:
    return {"type": kind, "code": code, "detail": detail, "attr": attr}


@dataclass
class OpenStream:
    """The stream's events as they leave the application: httpx.ASGITransport would collect the whole body first."""

    sent: anyio.abc.ObjectReceiveStream[Any]
    status: int = 0
    text: str = ""
    blocks: list[str] = field(default_factory=list)

    async def next_block(self) -> str | None:
        """The lines of the next event; none when the stream has ended."""
        while "\n\n" not in self.text:
            try:
                message = await self.sent.receive()
            except anyio.EndOfStream:
                return None
            self.status = message.get("status", self.status)
            self.text += message.get("body", b"").decode()
        block, _, self.text = self.text.partition("\n\n")
        return block

    async def until(self, wanted: str) -> str:
        while (block := await self.next_block()) is not None:
            if wanted in block:
                return block
        raise AssertionError(f"the stream ended before {wanted!r}")


@asynccontextmanager
async def opened(app: Starlette, path: str, query: str = "", **headers: str) -> AsyncIterator[OpenStream]:
    send, receive = anyio.create_memory_object_stream[Any](1000)
    gone = anyio.Event()
    pairs = {**KEY, "Accept": "text/event-stream", **headers}
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "root_path": "",
        "scheme": "http",
        "query_string": query.encode(),
        "server": ("simulator", 80),
        "headers": [(name.lower().encode(), value.encode()) for name, value in pairs.items()],
    }
    asked = False

    async def hear() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await gone.wait()
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def serve() -> None:
        async with send:
            await app(scope, hear, send.send)

    with anyio.fail_after(5):
        async with receive, anyio.create_task_group() as group:
            group.start_soon(serve)
            yield OpenStream(receive)
            gone.set()


def parse_events(text: str) -> Iterator[dict[str, Any]]:
    for block in text.split("\n\n"):
        if block:
            pairs = dict(line.split(": ", 1) for line in block.split("\n"))
            yield {**pairs, "data": json.loads(pairs["data"])}


SSE = {"Accept": "text/event-stream, */*;q=0.1"}


async def test_the_environment_points_at_the_mount(clock: ManualClock) -> None:
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
        # Where the view lists session authentication first: only type and code tell it from a missing scope.
        ("Bearer phx_wrong_403", 403, "authentication_failed"),
    ],
)
async def test_only_a_personal_api_key_is_let_in(
    client: httpx.AsyncClient, authorization: str, status: int, code: str
) -> None:
    answer = await client.get(RUNS, headers={"Authorization": authorization})
    assert answer.status_code == status
    assert (answer.json()["type"], answer.json()["code"]) == ("authentication_error", code)


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
async def test_a_key_that_may_only_read_changes_nothing(client: httpx.AsyncClient, method: str, path: str) -> None:
    before = await run_detail(client, COMPLETED)
    answer = await client.request(method, RUNS + path, headers={"Authorization": "Bearer phx_readonly"}, json={})
    assert answer.status_code == 403
    detail = "API key missing required scope 'task:write'"
    assert answer.json() == drf("authentication_error", "permission_denied", detail)
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
async def test_a_key_that_may_only_read_reads_everything(
    client: httpx.AsyncClient, method: str, path: str, body: str | None
) -> None:
    storage_path = (await run_detail(client, COMPLETED))["artifacts"][0]["storage_path"]
    headers = {"Authorization": "Bearer phx_readonly"}
    answer = await client.request(
        method, RUNS + path, headers=headers, json={"storage_path": storage_path} if body else None
    )
    assert answer.status_code == 200


async def test_a_throttled_key_is_told_when_to_come_back(client: httpx.AsyncClient, clock: ManualClock) -> None:
    headers = {"Authorization": "Bearer phx_throttled"}
    assert (await client.get(RUNS, headers=headers)).status_code == 200
    clock.advance(0.5)
    refused = await client.get(RUNS, headers=headers)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "2")
    detail = "Request was throttled. Expected available in 2 seconds."
    assert refused.json() == drf("throttled_error", "throttled", detail)
    clock.advance(2)
    assert (await client.get(RUNS, headers=headers)).status_code == 200


@pytest.mark.parametrize("path", ["", f"{NOT_STARTED}/start/", f"{COMPLETED}/resume_in_cloud/"])
async def test_the_usage_limit_gates_what_runs_in_the_cloud_and_says_not_to_retry(
    client: httpx.AsyncClient, path: str
) -> None:
    headers = {"Authorization": "Bearer phx_overlimit"}
    answer = await client.post(RUNS + path, json={"environment": "cloud"}, headers=headers)
    assert answer.status_code == 429
    assert (answer.json()["type"], answer.json()["code"]) == ("rate_limited", "usage_limit_exceeded")
    assert answer.json()["error"] == "You've reached your PostHog Code usage limit."
    assert "Retry-After" not in answer.headers
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
async def test_what_is_not_there_is_not_found(client: httpx.AsyncClient, path: str, detail: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.json() == drf("invalid_request", "not_found", detail)


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
async def test_only_json_is_rendered_even_where_json_is_not_what_comes(
    client: httpx.AsyncClient, accept: str, status: int
) -> None:
    for path in ("", f"{COMPLETED}/logs/"):
        answer = await client.get(RUNS + path, headers={"Accept": accept})
        assert answer.status_code == status
    if status == 406:
        detail = "Could not satisfy the request Accept header."
        assert answer.json() == drf("invalid_request", "not_acceptable", detail)


async def test_a_refusal_to_accept_comes_before_the_key_is_looked_at(client: httpx.AsyncClient) -> None:
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
async def test_errors_of_the_stream_are_garbled(
    client: httpx.AsyncClient, headers: dict[str, str], run_id: str, status: int
) -> None:
    answer = await client.get(f"{RUNS}{run_id}/stream/", headers=headers)
    assert (answer.status_code, answer.text) == (status, "typecodedetailattr")
    assert answer.headers["Content-Type"].startswith("text/event-stream")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", f"{COMPLETED}/", "GET, PATCH, HEAD, OPTIONS"),
        ("DELETE", f"{COMPLETED}/", "GET, PATCH, HEAD, OPTIONS"),
        ("GET", f"{COMPLETED}/start/", "POST, OPTIONS"),
    ],
)
async def test_other_methods_are_not_allowed(client: httpx.AsyncClient, method: str, path: str, allow: str) -> None:
    answer = await client.request(method, RUNS + path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allow)
    assert answer.json() == drf("invalid_request", "method_not_allowed", f'Method "{method}" not allowed.')


async def test_the_last_slash_is_optional(client: httpx.AsyncClient) -> None:
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
async def test_a_body_that_is_no_json_object_is_refused(
    client: httpx.AsyncClient, content: str, content_type: str, status: int, code: str
) -> None:
    answer = await client.post(RUNS, content=content, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_runs_are_listed_newest_first(client: httpx.AsyncClient) -> None:
    page = (await client.get(RUNS)).json()
    assert [run["id"] for run in page.pop("results")] == [NOT_STARTED, IN_PROGRESS, FAILED, COMPLETED]
    assert page == {"count": 4, "next": None, "previous": None}
    assert (await client.get(RUNS.replace(TASK, FREE_TASK))).json()["results"] == []


async def test_the_absolute_next_and_previous_lead_through_all_runs(client: httpx.AsyncClient) -> None:
    seen, url, back = [], f"{RUNS}?limit=1", None
    while url:
        page = (await client.get(url)).json()
        seen += [run["id"] for run in page["results"]]
        url, back = page["next"], page["previous"]
        assert url is None or url.startswith(f"http://simulator{RUNS}?")
    assert seen == [NOT_STARTED, IN_PROGRESS, FAILED, COMPLETED]
    while back:
        page = (await client.get(back)).json()
        seen.append(page["results"][0]["id"])
        back = page["previous"]
    assert seen[4:] == [FAILED, IN_PROGRESS, NOT_STARTED]


async def test_a_page_has_at_most_100_runs_and_50_unless_told(client: httpx.AsyncClient) -> None:
    for _ in range(110):
        await create(client)
    for query, size in (("", 50), ("?limit=101", 100), ("?limit=0", 50), ("?limit=x&offset=y", 50), ("?offset=113", 1)):
        page = (await client.get(RUNS + query)).json()
        assert (page["count"], len(page["results"])) == (114, size)


async def test_a_created_run_is_local_and_not_started(client: httpx.AsyncClient, clock: ManualClock) -> None:
    detail = await run_detail(client, await create(client))
    assert uuid.UUID(detail.pop("id"))
    assert detail == {
        "task": TASK,
        "stage": None,
        "branch": None,
        "status": "not_started",
        "environment": "local",
        "runtime_adapter": None,
        "provider": None,
        "model": None,
        "reasoning_effort": None,
        "log_url": None,
        "error_message": None,
        "output": None,
        "state": {"mode": "background"},
        "artifacts": [],
        "created_at": "2026-01-01T00:00:00.000Z",
        "updated_at": "2026-01-01T00:00:00.000Z",
        "completed_at": None,
    }
    clock.advance(3600)
    assert (await client.get(RUNS)).json()["results"][0]["status"] == "not_started"


async def test_a_run_is_created_as_asked(client: httpx.AsyncClient) -> None:
    made = await create(
        client, environment="cloud", branch="main", runtime_adapter="codex", model="gpt-5", reasoning_effort="high"
    )
    detail = await run_detail(client, made)
    assert detail["environment"] == "cloud"
    assert detail["branch"] == "main"
    assert (detail["runtime_adapter"], detail["provider"]) == ("codex", "openai")
    assert (detail["model"], detail["reasoning_effort"]) == ("gpt-5", "high")


async def test_the_same_calls_make_the_same_ids(client: httpx.AsyncClient) -> None:
    again = Starlette(routes=[Mount("/posthog", routes=PostHog(ManualClock()).routes())])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=again), base_url="http://simulator", headers=KEY
    ) as other:
        assert [await create(client), await create(client)] == [await create(other), await create(other)]


@pytest.mark.parametrize(
    ("body", "code", "attr"),
    [
        ({"environment": "moon"}, "invalid_choice", "environment"),
        ({"branch": "b" * 256}, "max_length", "branch"),
        ({"branch": 7}, "invalid_input", "branch"),
        ({"model": ""}, "blank", "model"),
        ({"model": None}, "null", "model"),
        ({"sandbox_environment_id": "x"}, "invalid_input", "sandbox_environment_id"),
        ({"pr_authorship_mode": "user"}, "github_authorization_required", "pr_authorship_mode"),
    ],
)
async def test_a_wrong_create_is_told_which_field_is_wrong(
    client: httpx.AsyncClient, body: dict[str, Any], code: str, attr: str
) -> None:
    answer = await client.post(RUNS, json=body)
    assert answer.status_code == 400
    assert (answer.json()["type"], answer.json()["code"], answer.json()["attr"]) == ("validation_error", code, attr)


async def test_a_sandbox_environment_that_is_not_there_is_invalid(client: httpx.AsyncClient) -> None:
    answer = await client.post(RUNS, json={"sandbox_environment_id": TASK})
    assert (answer.status_code, answer.json()) == (400, {"detail": "Invalid sandbox_environment_id"})


async def test_the_detail_of_a_cloud_run_holds_secrets(client: httpx.AsyncClient) -> None:
    detail = await run_detail(client, IN_PROGRESS)
    assert detail["status"] == "in_progress"
    assert detail["state"]["sandbox_connect_token"]
    assert detail["state"]["sandbox_url"].startswith("https://")
    assert detail["log_url"].startswith("http://simulator/posthog/storage/")
    assert (await client.get(detail["log_url"])).text == (await client.get(f"{RUNS}{IN_PROGRESS}/logs/")).text


async def test_an_update_merges_output_and_state(client: httpx.AsyncClient) -> None:
    run_id = await create(client)
    for output, state in (({"a": 1, "b": 1}, {"x": 1, "y": 1}), ({"b": 2}, {"y": 2})):
        answer = await client.patch(f"{RUNS}{run_id}/", json={"output": output, "state": state})
    assert answer.json()["output"] == {"a": 1, "b": 2}
    assert answer.json()["state"] == {"mode": "background", "x": 1, "y": 2}
    removed = await client.patch(f"{RUNS}{run_id}/", json={"state_remove_keys": ["x", "mode"], "stage": "plan"})
    assert (removed.json()["state"], removed.json()["stage"]) == ({"y": 2}, "plan")
    emptied = await client.patch(f"{RUNS}{run_id}/", json={"output": None, "stage": None})
    assert (emptied.json()["output"], emptied.json()["stage"]) == (None, None)


async def test_an_update_removes_keys_before_it_merges(client: httpx.AsyncClient) -> None:
    body = {"state": {"mode": "interactive"}, "state_remove_keys": ["mode", "runtime_adapter"]}
    state = (await client.patch(f"{RUNS}{NOT_STARTED}/", json=body)).json()["state"]
    assert state["mode"] == "interactive"
    assert "runtime_adapter" not in state


async def test_an_update_replaces_what_is_no_object(client: httpx.AsyncClient) -> None:
    answer = await client.patch(f"{RUNS}{COMPLETED}/", json={"output": "done", "state": [1]})
    assert (answer.json()["output"], answer.json()["state"]) == ("done", [1])
    assert answer.json()["model"] is None
    assert (await client.patch(f"{RUNS}{COMPLETED}/", json={"output": {"a": 1}})).json()["output"] == {"a": 1}


async def test_an_update_ignores_what_posthog_alone_writes(client: httpx.AsyncClient) -> None:
    body = {"state": {"sandbox_id": "mine"}, "state_remove_keys": ["sandbox_id"]}
    answer = await client.patch(f"{RUNS}{IN_PROGRESS}/", json=body)
    assert answer.json()["state"]["sandbox_id"] == "sb-simulated"


@pytest.mark.parametrize(
    ("body", "code", "attr"),
    [
        ({"statuss": "failed"}, "invalid_input", "statuss"),
        ({"status": "canceled"}, "invalid_choice", "status"),
        ({"environment": "cloud"}, "invalid_choice", "environment"),
        ({"state_remove_keys": []}, "invalid_input", "state_remove_keys"),
        ({"state_remove_keys": [1]}, "invalid_input", "state_remove_keys__0"),
        ({"state": None}, "null", "state"),
    ],
)
async def test_a_wrong_update_changes_nothing(
    client: httpx.AsyncClient, body: dict[str, Any], code: str, attr: str
) -> None:
    before = await run_detail(client, IN_PROGRESS)
    answer = await client.patch(f"{RUNS}{IN_PROGRESS}/", json=body)
    assert answer.status_code == 400
    assert (answer.json()["code"], answer.json()["attr"]) == (code, attr)
    assert await run_detail(client, IN_PROGRESS) == before


async def test_cancelling_a_started_run_stops_it_where_it_is(client: httpx.AsyncClient, clock: ManualClock) -> None:
    await client.post(f"{RUNS}{NOT_STARTED}/start/")
    clock.advance(3)
    answer = await client.patch(f"{RUNS}{NOT_STARTED}/", json={"status": "cancelled"})
    assert (answer.json()["status"], answer.json()["completed_at"]) == ("cancelled", "2026-01-01T00:00:03.000Z")
    clock.advance(60)
    assert (await run_detail(client, NOT_STARTED))["status"] == "cancelled"


async def test_handing_a_run_over_to_local_stops_its_agent(client: httpx.AsyncClient, clock: ManualClock) -> None:
    await client.post(f"{RUNS}{NOT_STARTED}/start/")
    clock.advance(3)
    await client.patch(f"{RUNS}{NOT_STARTED}/", json={"environment": "local"})
    clock.advance(60)
    detail = await run_detail(client, NOT_STARTED)
    assert (detail["environment"], detail["status"]) == ("local", "in_progress")


async def test_start_answers_with_the_task_and_the_run_then_goes_its_way(
    client: httpx.AsyncClient, clock: ManualClock
) -> None:
    started = await client.post(f"{RUNS}{NOT_STARTED}/start/", json={"pending_user_message": "Go"})
    assert started.status_code == 200
    assert started.json()["id"] == TASK
    assert started.json()["latest_run"]["id"] == NOT_STARTED
    assert started.json()["latest_run"]["state"]["pending_user_message"] == "Go"
    seen = []
    for _ in range(12):
        detail = await run_detail(client, NOT_STARTED)
        seen.append((detail["status"], detail["stage"]))
        clock.advance(1)
    assert list(dict.fromkeys(seen)) == [
        ("queued", None),
        ("in_progress", "setup"),
        ("in_progress", "plan"),
        ("in_progress", "build"),
        ("in_progress", "review"),
        ("completed", "review"),
    ]
    assert detail["completed_at"] == "2026-01-01T00:00:10.000Z"
    assert detail["output"]["summary"]


async def test_starting_a_queued_run_again_does_not_begin_it_again(
    client: httpx.AsyncClient, clock: ManualClock
) -> None:
    await client.post(f"{RUNS}{NOT_STARTED}/start/")
    clock.advance(0.5)
    assert (await client.post(f"{RUNS}{NOT_STARTED}/start/")).status_code == 200
    clock.advance(9.5)
    assert (await run_detail(client, NOT_STARTED))["status"] == "completed"


async def test_only_a_waiting_cloud_run_can_be_started(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{RUNS}{COMPLETED}/start/")
    message = "Only queued or not_started cloud runs can be started (current status: completed)"
    assert (answer.status_code, answer.json()) == (400, {"error": message})
    local = await client.post(f"{RUNS}{await create(client)}/start/")
    assert (local.status_code, local.json()) == (400, {"error": "Only cloud runs can be started via this endpoint"})


async def test_a_start_names_the_artifacts_that_it_misses(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{RUNS}{NOT_STARTED}/start/", json={"pending_user_artifact_ids": ["nope"]})
    assert (answer.status_code, answer.json()["missing_artifact_ids"]) == (400, ["nope"])
    assert (await run_detail(client, NOT_STARTED))["status"] == "not_started"


@pytest.mark.parametrize("run_id", [FAILED, NOT_STARTED])
async def test_a_run_is_resumed_in_the_cloud(client: httpx.AsyncClient, clock: ManualClock, run_id: str) -> None:
    resumed = (await client.post(f"{RUNS}{run_id}/resume_in_cloud/")).json()
    assert (resumed["status"], resumed["environment"]) == ("queued", "cloud")
    assert (resumed["completed_at"], resumed["error_message"]) == (None, None)
    again = await client.post(f"{RUNS}{run_id}/resume_in_cloud/")
    assert (again.status_code, again.json()) == (400, {"error": "Run is already active in cloud"})
    clock.advance(10)
    assert (await run_detail(client, run_id))["status"] == "completed"


async def test_a_run_that_cannot_be_resumed_stays_as_it_was_but_for_its_error(client: httpx.AsyncClient) -> None:
    before = await run_detail(client, COMPLETED)
    answer = await client.post(f"{RUNS}{COMPLETED}/resume_in_cloud/", headers=OUTAGE)
    assert (answer.status_code, answer.json()) == (502, {"error": "Failed to start cloud workflow"})
    assert await run_detail(client, COMPLETED) == before | {
        "error_message": "Failed to start cloud workflow",
        "updated_at": "2026-01-01T00:00:00.000Z",
    }


async def test_set_output_replaces_the_output_and_completes_a_structured_run(client: httpx.AsyncClient) -> None:
    await client.patch(f"{RUNS}{IN_PROGRESS}/", json={"output": {"old": True}})
    answer = await client.patch(f"{RUNS}{IN_PROGRESS}/set_output/", json={"output": {"summary": "ok"}})
    assert (answer.json()["output"], answer.json()["status"]) == ({"summary": "ok"}, "completed")
    assert answer.json()["completed_at"] == "2026-01-01T00:00:00.000Z"


async def test_set_output_leaves_a_run_open_when_its_task_has_no_schema(client: httpx.AsyncClient) -> None:
    run_id = await create(client, FREE_TASK)
    path = f"{RUNS.replace(TASK, FREE_TASK)}{run_id}/set_output/"
    answer = await client.patch(path, json={"output": "anything"})
    assert (answer.json()["output"], answer.json()["status"]) == ("anything", "not_started")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"pr_url": "x"}, "'summary' is a required property"),
        ({"summary": 1}, "1 is not of type 'string'"),
        ("done", "'done' is not of type 'object'"),
    ],
)
async def test_set_output_refuses_what_breaks_the_schema(client: httpx.AsyncClient, output: Any, message: str) -> None:
    answer = await client.patch(f"{RUNS}{IN_PROGRESS}/set_output/", json={"output": output})
    assert (answer.status_code, answer.json()) == (400, {"error": f"Output validation error: {message}"})
    assert (await run_detail(client, IN_PROGRESS))["status"] == "in_progress"


async def test_set_output_wants_an_output(client: httpx.AsyncClient) -> None:
    answer = await client.patch(f"{RUNS}{IN_PROGRESS}/set_output/", json={})
    assert answer.json() == drf("validation_error", "required", "This field is required.", "output")


@pytest.mark.parametrize(
    ("run_id", "text", "status"),
    [
        (IN_PROGRESS, "Done", "accepted"),
        (IN_PROGRESS, "  ", "skipped"),
        (NOT_STARTED, "Done", "skipped"),
        (COMPLETED, "Done", "skipped"),
    ],
)
async def test_a_message_is_relayed_only_from_an_open_run_with_a_thread(
    client: httpx.AsyncClient, run_id: str, text: str, status: str
) -> None:
    answer = await client.post(f"{RUNS}{run_id}/relay_message/", json={"text": text})
    assert (answer.status_code, answer.json()["status"]) == (200, status)
    assert ("relay_id" in answer.json()) == (status == "accepted")


@pytest.mark.parametrize(
    ("run_id", "status", "body"),
    [
        (IN_PROGRESS, 503, {"error": "Failed to queue Slack relay"}),
        (COMPLETED, 200, {"status": "skipped"}),
    ],
)
async def test_a_message_that_cannot_be_queued_is_an_error_if_it_was_to_be_queued(
    client: httpx.AsyncClient, run_id: str, status: int, body: Any
) -> None:
    answer = await client.post(f"{RUNS}{run_id}/relay_message/", json={"text": "Done"}, headers=OUTAGE)
    assert (answer.status_code, answer.json()) == (status, body)


async def test_a_message_of_more_than_10000_characters_is_not_relayed(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{RUNS}{IN_PROGRESS}/relay_message/", json={"text": "x" * 10_001})
    assert (answer.status_code, answer.json()["code"]) == (400, "max_length")


async def command(client: httpx.AsyncClient, run_id: str, method: str, **more: Any) -> httpx.Response:
    return await client.post(f"{RUNS}{run_id}/command/", json={"jsonrpc": "2.0", "method": method, **more})


async def test_a_message_is_queued_and_stands_in_the_log(client: httpx.AsyncClient) -> None:
    answer = await command(client, IN_PROGRESS, "user_message", params={"content": "Hurry"}, id=7)
    assert answer.json() == {"jsonrpc": "2.0", "result": {"queued": True}, "id": 7}
    assert "Hurry" in (await client.get(f"{RUNS}{IN_PROGRESS}/logs/")).text


async def test_a_message_to_a_run_without_workflow_is_not_queued(client: httpx.AsyncClient) -> None:
    answer = await command(client, COMPLETED, "user_message", params={"content": "Hurry"})
    assert (answer.status_code, answer.json()) == (502, {"error": "Failed to queue user message for task run"})


async def test_a_message_names_the_artifacts_that_it_misses(client: httpx.AsyncClient) -> None:
    answer = await command(client, IN_PROGRESS, "user_message", params={"artifact_ids": ["nope"]})
    error = "Some artifact_ids are invalid for this run"
    assert (answer.status_code, answer.json()) == (400, {"error": error, "missing_artifact_ids": ["nope"]})


@pytest.mark.parametrize(
    ("method", "params", "result", "status"),
    [
        ("permission_response", {"requestId": "perm-1", "optionId": "allow"}, {"resolved": True}, "in_progress"),
        ("set_config_option", {"configId": "mode", "value": "plan"}, {"configOptions": []}, "in_progress"),
        ("cancel", {}, {"cancelled": True}, "cancelled"),
        ("close", {}, {"closed": True}, "completed"),
    ],
)
async def test_a_command_goes_to_the_agent_in_the_sandbox(
    client: httpx.AsyncClient, method: str, params: dict[str, Any], result: dict[str, Any], status: str
) -> None:
    answer = await command(client, IN_PROGRESS, method, params=params, id="c-1")
    assert answer.json() == {"jsonrpc": "2.0", "id": "c-1", "result": result}
    assert (await run_detail(client, IN_PROGRESS))["status"] == status


@pytest.mark.parametrize(
    ("sandbox_url", "status", "error"),
    [
        (None, 400, "No active sandbox for this task run"),
        ("https://evil.example", 400, "Invalid sandbox URL"),
        ("https://unreachable.modal.host", 502, "Agent server is not reachable"),
        ("https://refusing.modal.host", 502, "Agent server rejected the command"),
        ("https://slow.modal.host", 504, "Agent server request timed out"),
    ],
)
async def test_a_command_fails_as_its_sandbox_does(
    client: httpx.AsyncClient, sandbox_url: str | None, status: int, error: str
) -> None:
    await client.patch(f"{RUNS}{IN_PROGRESS}/", json={"state": {"sandbox_url": sandbox_url}})
    answer = await command(client, IN_PROGRESS, "cancel")
    assert (answer.status_code, answer.json()) == (status, {"error": error})


async def test_the_sandbox_is_gone_when_its_run_has_ended(client: httpx.AsyncClient) -> None:
    assert (await run_detail(client, COMPLETED))["state"]["sandbox_url"]
    answer = await command(client, COMPLETED, "cancel")
    assert (answer.status_code, answer.json()) == (502, {"error": "Agent server is not reachable"})


@pytest.mark.parametrize(
    ("method", "more", "attr"),
    [
        ("shutdown", {}, "method"),
        ("user_message", {}, "params"),
        ("user_message", {"params": {"content": 1}}, "params"),
        ("user_message", {"params": {"artifact_ids": "a"}}, "params"),
        ("user_message", {"params": []}, "params"),
        ("permission_response", {"params": {"requestId": "perm-1"}}, "params"),
        ("set_config_option", {"params": {"configId": " ", "value": "x"}}, "params"),
        ("cancel", {"id": {}}, "id"),
        ("cancel", {"jsonrpc": "1.0"}, "jsonrpc"),
    ],
)
async def test_a_wrong_command_is_told_which_field_is_wrong(
    client: httpx.AsyncClient, method: str, more: dict[str, Any], attr: str
) -> None:
    answer = await command(client, IN_PROGRESS, method, **more)
    assert (answer.status_code, answer.json()["attr"]) == (400, attr)


async def test_a_connection_token_is_a_jwt_for_a_day(client: httpx.AsyncClient) -> None:
    token = (await client.get(f"{RUNS}{IN_PROGRESS}/connection_token/")).json()["token"]
    _, claims, _ = token.split(".")
    payload = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert payload["run_id"] == IN_PROGRESS
    assert payload["exp"] - payload["iat"] == 24 * 60 * 60


async def test_a_download_is_the_artifact_byte_for_byte_under_its_own_type(client: httpx.AsyncClient) -> None:
    report, png = (await run_detail(client, COMPLETED))["artifacts"]
    for entry, content_type in ((report, "text/markdown"), (png, "image/png")):
        path = {"storage_path": entry["storage_path"]}
        answer = await client.post(f"{RUNS}{COMPLETED}/artifacts/download/", json=path)
        assert answer.headers["Content-Type"] == content_type
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{entry["name"]}"'
        assert answer.headers["Cache-Control"] == "no-cache"
        assert len(answer.content) == entry["size"]
        presigned = (await client.post(f"{RUNS}{COMPLETED}/artifacts/presign/", json=path)).json()
        assert presigned["expires_in"] == 3600
        fetched = await client.get(presigned["url"], headers={"Authorization": ""})
        assert (fetched.content, fetched.headers["Content-Type"]) == (answer.content, content_type)
    assert answer.content.startswith(b"\x89PNG")


async def test_a_presigned_url_is_good_for_an_hour_and_for_one_object(
    client: httpx.AsyncClient, clock: ManualClock
) -> None:
    report, png = (await run_detail(client, COMPLETED))["artifacts"]
    body = {"storage_path": report["storage_path"]}
    url = (await client.post(f"{RUNS}{COMPLETED}/artifacts/presign/", json=body)).json()["url"]
    other = await client.get(url.replace(report["storage_path"], png["storage_path"]))
    assert (other.status_code, "SignatureDoesNotMatch" in other.text) == (403, True)
    clock.advance(3600)
    assert (await client.get(url)).status_code == 200
    clock.advance(1)
    expired = await client.get(url)
    assert (expired.status_code, "Request has expired" in expired.text) == (403, True)


async def test_an_artifact_whose_content_is_gone_is_listed_and_not_found(client: httpx.AsyncClient) -> None:
    path = {"storage_path": (await run_detail(client, FAILED))["artifacts"][0]["storage_path"]}
    answer = await client.post(f"{RUNS}{FAILED}/artifacts/download/", json=path)
    assert (answer.status_code, answer.json()) == (404, {"error": "Artifact content not found"})
    url = (await client.post(f"{RUNS}{FAILED}/artifacts/presign/", json=path)).json()["url"]
    assert (await client.get(url)).status_code == 404


async def test_an_artifact_is_found_on_its_own_run_and_downloaded_from_those_that_resume_it(
    client: httpx.AsyncClient,
) -> None:
    path = {"storage_path": (await run_detail(client, COMPLETED))["artifacts"][0]["storage_path"]}
    for operation in ("presign", "download"):
        answer = await client.post(f"{RUNS}{NOT_STARTED}/artifacts/{operation}/", json=path)
        assert (answer.status_code, answer.json()) == (404, {"error": "Artifact not found on this run"})
    await client.patch(f"{RUNS}{NOT_STARTED}/", json={"state": {"resume_from_run_id": COMPLETED}})
    assert (await client.post(f"{RUNS}{NOT_STARTED}/artifacts/download/", json=path)).status_code == 200
    assert (await client.post(f"{RUNS}{NOT_STARTED}/artifacts/presign/", json=path)).status_code == 404


async def test_an_upload_answers_with_the_whole_manifest(client: httpx.AsyncClient) -> None:
    binary = bytes(range(256))
    artifacts = [
        {"name": "notes.txt", "type": "plan", "content": "naïve"},
        {
            "name": "../my file?.bin",
            "type": "output",
            "content": base64.b64encode(binary).decode(),
            "content_encoding": "base64",
            "content_type": "application/x-thing",
            "source": "agent",
        },
    ]
    answer = await client.post(f"{RUNS}{COMPLETED}/artifacts/", json={"artifacts": artifacts})
    manifest = answer.json()["artifacts"]
    assert [entry["name"] for entry in manifest] == ["report.md", "screenshot.png", "notes.txt", "my_file_.bin"]
    assert [entry["size"] for entry in manifest[2:]] == [6, 256]
    assert manifest == (await run_detail(client, COMPLETED))["artifacts"]
    for entry, content, content_type in (
        (manifest[2], "naïve".encode(), "application/octet-stream"),
        (manifest[3], binary, "application/x-thing"),
    ):
        path = {"storage_path": entry["storage_path"]}
        download = await client.post(f"{RUNS}{COMPLETED}/artifacts/download/", json=path)
        assert (download.content, download.headers["Content-Type"]) == (content, content_type)


@pytest.mark.parametrize(
    ("artifacts", "attr"),
    [
        ("x", "artifacts"),
        (["x"], "artifacts__0"),
        ([{"name": "a", "type": "plan"}], "artifacts__0__content"),
        ([{"name": "a", "type": "picture", "content": ""}], "artifacts__0__type"),
        ([{"name": "a", "type": "plan", "content": "%", "content_encoding": "base64"}], "artifacts__0__content"),
        ([{"name": "a", "type": "plan", "content": "x" * 31_457_281}], "artifacts__0__content"),
    ],
)
async def test_a_wrong_upload_is_told_which_field_is_wrong(
    client: httpx.AsyncClient, artifacts: Any, attr: str
) -> None:
    answer = await client.post(f"{RUNS}{COMPLETED}/artifacts/", json={"artifacts": artifacts})
    assert (answer.status_code, answer.json()["attr"]) == (400, attr)
    assert len((await run_detail(client, COMPLETED))["artifacts"]) == 2


async def prepare(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    body = {"artifacts": [{"name": "data.bin", "type": "output", "size": 1000, **more}]}
    answer = await client.post(f"{RUNS}{COMPLETED}/artifacts/prepare_upload/", json=body)
    assert answer.status_code == 200, answer.text
    prepared: dict[str, Any] = answer.json()["artifacts"][0]
    return prepared


async def finalize(client: httpx.AsyncClient, prepared: dict[str, Any], **more: Any) -> httpx.Response:
    body = {name: prepared[name] for name in ("id", "name", "type", "storage_path")} | more
    return await client.post(f"{RUNS}{COMPLETED}/artifacts/finalize_upload/", json={"artifacts": [body]})


async def send_form(client: httpx.AsyncClient, form: dict[str, Any], content: bytes, **changed: str) -> httpx.Response:
    return await client.post(
        form["url"],
        data=form["fields"] | changed,
        files={"file": ("data.bin", content)},
        headers={"Authorization": ""},
    )


async def test_a_direct_upload_is_prepared_sent_to_storage_and_finalized(client: httpx.AsyncClient) -> None:
    prepared = await prepare(client)
    assert prepared["expires_in"] == 3600
    early = await finalize(client, prepared)
    assert (early.status_code, early.json()) == (400, {"error": "Artifact upload not found in object storage"})
    assert (await send_form(client, prepared["presigned_post"], b"\0" * 1000)).status_code == 204
    assert len((await run_detail(client, COMPLETED))["artifacts"]) == 2
    done = (await finalize(client, prepared)).json()["artifacts"]
    assert [(entry["name"], entry["size"], entry["content_type"]) for entry in done] == [
        ("data.bin", 1000, "binary/octet-stream")
    ]
    again = (await finalize(client, prepared)).json()["artifacts"]
    assert again == done
    assert len((await run_detail(client, COMPLETED))["artifacts"]) == 3
    path = {"storage_path": prepared["storage_path"]}
    download = await client.post(f"{RUNS}{COMPLETED}/artifacts/download/", json=path)
    assert download.content == b"\0" * 1000


async def test_a_direct_upload_must_belong_to_the_run(client: httpx.AsyncClient) -> None:
    prepared = await prepare(client)
    for path in (
        prepared["storage_path"].replace(COMPLETED, FAILED),
        prepared["storage_path"].replace("_data", "data"),
    ):
        answer = await finalize(client, prepared, storage_path=path)
        assert (answer.status_code, answer.json()) == (400, {"error": "Artifact storage path is invalid for this run"})


async def test_storage_refuses_a_form_that_is_not_the_signed_one(client: httpx.AsyncClient, clock: ManualClock) -> None:
    form = (await prepare(client))["presigned_post"]
    forged = await send_form(client, form, b"x", policy=base64.b64encode(b"{}").decode())
    assert (forged.status_code, "SignatureDoesNotMatch" in forged.text) == (403, True)
    moved = await send_form(client, form, b"x", key="elsewhere")
    assert (moved.status_code, "Invalid according to Policy" in moved.text) == (403, True)
    # PostHog allows 64 KiB more than the size that was announced.
    assert (await send_form(client, form, b"x" * (1000 + 65_536))).status_code == 204
    large = await send_form(client, form, b"x" * (1000 + 65_537))
    assert (large.status_code, "EntityTooLarge" in large.text) == (400, True)
    clock.advance(3601)
    assert (await send_form(client, form, b"x")).status_code == 403


async def test_storage_wants_the_fields_before_the_file(client: httpx.AsyncClient) -> None:
    form = (await prepare(client))["presigned_post"]
    parts = {name: (None, value) for name, value in form["fields"].items()}
    first = await client.post(form["url"], files={"file": ("data.bin", b"x"), **parts})
    assert (first.status_code, "must contain a field named 'key'" in first.text) == (400, True)
    without = await client.post(form["url"], files=parts)
    assert (without.status_code, "exactly one file" in without.text) == (400, True)


@pytest.mark.parametrize(("size", "code"), [(0, "min_value"), (31_457_281, "max_value"), (True, "invalid_input")])
async def test_an_upload_of_no_or_too_many_bytes_is_not_prepared(
    client: httpx.AsyncClient, size: Any, code: str
) -> None:
    body = {"artifacts": [{"name": "a", "type": "plan", "size": size}]}
    answer = await client.post(f"{RUNS}{COMPLETED}/artifacts/prepare_upload/", json=body)
    assert (answer.status_code, answer.json()["code"], answer.json()["attr"]) == (400, code, "artifacts__0__size")


async def test_a_sent_object_over_the_limit_is_not_finalized(client: httpx.AsyncClient) -> None:
    prepared = await prepare(client, size=31_457_280)
    assert (await send_form(client, prepared["presigned_post"], bytes(31_457_281))).status_code == 204
    answer = await finalize(client, prepared)
    assert (answer.status_code, answer.json()) == (400, {"error": "data.bin exceeds the 30MB attachment limit"})


async def test_logs_are_json_lines(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"{RUNS}{COMPLETED}/logs/")
    assert answer.headers["Content-Type"] == "application/jsonl"
    assert answer.headers["Cache-Control"] == "no-cache"
    entries = [json.loads(line) for line in answer.text.splitlines()]
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


async def test_logs_leave_out_the_run_of_another_task(client: httpx.AsyncClient) -> None:
    path = f"{RUNS.replace(TASK, FREE_TASK)}{await create(client, FREE_TASK)}/"
    await client.patch(path, json={"state": {"resume_from_run_id": COMPLETED}})
    assert (await client.get(f"{path}logs/")).content == b""


async def test_append_log_adds_whole_entries_and_drops_chunks_of_messages(client: httpx.AsyncClient) -> None:
    chunk = {
        "notification": {"method": "session/update", "params": {"update": {"sessionUpdate": "agent_message_chunk"}}}
    }
    odd = [{"notification": "x"}, {"notification": {"method": "session/update", "params": 1}}]
    answer = await client.post(f"{RUNS}{NOT_STARTED}/append_log/", json={"entries": [*odd, chunk]})
    assert answer.json()["id"] == NOT_STARTED
    assert answer.headers["Server-Timing"]
    assert (await client.get(f"{RUNS}{NOT_STARTED}/session_logs/")).json() == odd


@pytest.mark.parametrize(
    ("entries", "attr"), [([], "entries"), ("x", "entries"), ([1], "entries__0"), (None, "entries")]
)
async def test_append_log_wants_entries(client: httpx.AsyncClient, entries: Any, attr: str) -> None:
    answer = await client.post(f"{RUNS}{NOT_STARTED}/append_log/", json={"entries": entries})
    assert answer.status_code == 400
    assert (answer.json()["type"], answer.json()["attr"]) == ("validation_error", attr)


def kinds(entries: list[dict[str, Any]]) -> list[str]:
    notifications = [entry["notification"] for entry in entries]
    return [one["params"].get("update", {}).get("sessionUpdate", one["method"]) for one in notifications]


async def test_session_logs_are_an_array_with_the_totals_in_headers(client: httpx.AsyncClient) -> None:
    path = f"{RUNS}{COMPLETED}/session_logs/"
    everything = await client.get(path)
    page = await client.get(path, params={"event_types": "tool_call, _posthog/console", "limit": 10, "offset": 1})
    wanted = [one for one in everything.json() if kinds([one])[0] in ("tool_call", "_posthog/console")]
    assert page.json() == wanted[1:11]
    assert {name: page.headers[name] for name in ("X-Total-Count", "X-Filtered-Count", "X-Matching-Count")} == {
        "X-Total-Count": "30",
        "X-Filtered-Count": "15",
        "X-Matching-Count": "15",
    }
    assert (page.headers["X-Has-More"], everything.headers["X-Has-More"]) == ("true", "false")


async def test_session_logs_leave_out_the_excluded_types(client: httpx.AsyncClient) -> None:
    path = f"{RUNS}{COMPLETED}/session_logs/"
    answer = await client.get(path, params={"exclude_types": "tool_call,tool_call_update"})
    assert set(kinds(answer.json())) == {"_posthog/console", "plan", "agent_message", "_posthog/turn_complete"}


async def test_session_logs_after_a_moment_exclude_it_and_what_has_no_timestamp(client: httpx.AsyncClient) -> None:
    path = f"{RUNS}{COMPLETED}/session_logs/"
    await client.post(f"{RUNS}{COMPLETED}/append_log/", json={"entries": [{"no": "time"}, {"timestamp": "soon"}]})
    moment = (await client.get(path)).json()[27]["timestamp"]
    for after in (moment, moment.replace("Z", "+00:00"), moment.removesuffix("Z")):
        answer = await client.get(path, params={"after": after})
        assert [entry["timestamp"] > moment for entry in answer.json()] == [True, True]
        assert answer.headers["X-Total-Count"] == "32"


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
async def test_a_wrong_filter_is_told_which_it_is(client: httpx.AsyncClient, query: str, attr: str) -> None:
    answer = await client.get(f"{RUNS}{COMPLETED}/session_logs/?{query}")
    assert (answer.status_code, answer.json()["attr"]) == (400, attr)


async def test_the_stream_of_an_ended_run_replays_it_and_closes(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"{RUNS}{COMPLETED}/stream/", headers=SSE)
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert (answer.headers["Cache-Control"], answer.headers["X-Accel-Buffering"]) == ("no-cache", "no")
    events = list(parse_events(answer.text))
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


async def test_the_stream_has_the_chunks_of_a_message_and_the_log_has_the_whole(client: httpx.AsyncClient) -> None:
    stream = parse_events((await client.get(f"{RUNS}{COMPLETED}/stream/", headers=SSE)).text)
    streamed = kinds([event["data"] for event in stream if event["data"]["type"] == "notification"])
    logged = kinds((await client.get(f"{RUNS}{COMPLETED}/session_logs/")).json())
    assert ("agent_message_chunk" in streamed, "agent_message" in streamed) == (True, False)
    assert ("agent_message_chunk" in logged, "agent_message" in logged) == (False, True)


async def test_the_stream_goes_on_after_the_last_event_id(client: httpx.AsyncClient) -> None:
    path = f"{RUNS}{COMPLETED}/stream/"
    events = list(parse_events((await client.get(path, headers=SSE)).text))
    for index in (0, 7, len(events) - 1):
        rest = await client.get(path, headers={**SSE, "Last-Event-ID": events[index]["id"]}, params={"start": "latest"})
        assert list(parse_events(rest.text)) == events[index + 1 :]
    garbage = await client.get(path, headers={**SSE, "Last-Event-ID": "what"})
    assert list(parse_events(garbage.text)) == events


async def test_the_stream_of_a_started_run_ends_with_it(app: Starlette, clock: ManualClock) -> None:
    async with opened(app, f"{RUNS}{NOT_STARTED}/stream/") as stream:
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


async def test_the_stream_closes_when_the_run_is_cancelled(
    app: Starlette, client: httpx.AsyncClient, clock: ManualClock
) -> None:
    async with opened(app, f"{RUNS}{IN_PROGRESS}/stream/") as stream:
        await stream.until("permission_request")
        await client.patch(f"{RUNS}{IN_PROGRESS}/", json={"status": "cancelled"})
        assert '"status": "cancelled"' in (await stream.next_block() or "")
        assert await stream.next_block() is None


async def test_an_idle_stream_is_kept_alive_every_20_seconds_without_an_id(app: Starlette, clock: ManualClock) -> None:
    async with opened(app, f"{RUNS}{IN_PROGRESS}/stream/", "start=latest") as stream:
        await anyio.wait_all_tasks_blocked()
        for _ in range(2):
            clock.advance(19)
            await anyio.wait_all_tasks_blocked()
            assert stream.sent.statistics().current_buffer_used <= 1  # type: ignore[attr-defined]  # only the head
            clock.advance(1)
            assert await stream.next_block() == 'event: keepalive\ndata: {"type": "keepalive"}'


async def test_the_latest_of_a_stream_is_only_what_comes_from_now_on(app: Starlette, client: httpx.AsyncClient) -> None:
    async with opened(app, f"{RUNS}{IN_PROGRESS}/stream/", "start=latest") as stream:
        await anyio.wait_all_tasks_blocked()
        await command(client, IN_PROGRESS, "user_message", params={"content": "Hurry"})
        assert "Hurry" in (await stream.next_block() or "")


async def test_the_latest_of_a_complete_stream_is_nothing(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"{RUNS}{COMPLETED}/stream/", params={"start": "latest"}, headers=SSE)
    assert answer.content == b""


async def test_a_stream_that_does_not_appear_for_120_seconds_is_an_error(app: Starlette, clock: ManualClock) -> None:
    async with opened(app, f"{RUNS}{NOT_STARTED}/stream/") as stream:
        for _ in range(5):
            await anyio.wait_all_tasks_blocked()
            clock.advance(20)
            assert (await stream.next_block() or "").startswith("event: keepalive")
        clock.advance(20)
        assert await stream.until("error") == 'event: error\ndata: {"error": "Stream not available"}'
        assert await stream.next_block() is None


async def test_a_stream_that_loses_its_connection_says_so_and_can_be_read_on(
    app: Starlette, client: httpx.AsyncClient
) -> None:
    async with opened(app, f"{RUNS}{IN_PROGRESS}/stream/", **OUTAGE) as stream:
        told = (await stream.until("permission_request")).split("\n")[0]
        assert await stream.next_block() == 'event: error\ndata: {"error": "Connection lost to task run stream"}'
        assert await stream.next_block() is None
    await client.patch(f"{RUNS}{IN_PROGRESS}/", json={"status": "cancelled"})
    rest = await client.get(f"{RUNS}{IN_PROGRESS}/stream/", headers=SSE | {"Last-Event-ID": told.removeprefix("id: ")})
    assert [event["data"]["status"] for event in parse_events(rest.text)] == ["cancelled"]


async def test_the_oldest_entries_of_a_long_stream_are_trimmed_without_a_word(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posthog_project, "MAX_STREAM_LENGTH", 3)
    run_id = await create(client)
    for stage in ("one", "two", "three"):
        await client.patch(f"{RUNS}{run_id}/", json={"stage": stage})
    await client.patch(f"{RUNS}{run_id}/", json={"status": "failed"})
    events = parse_events((await client.get(f"{RUNS}{run_id}/stream/", headers=SSE)).text)
    # The mark that the stream is complete is the third entry.
    assert [(event["data"]["stage"], event["data"]["status"]) for event in events] == [
        ("three", "not_started"),
        ("three", "failed"),
    ]


async def test_a_resumed_run_has_a_new_stream(client: httpx.AsyncClient, clock: ManualClock) -> None:
    old = list(parse_events((await client.get(f"{RUNS}{FAILED}/stream/", headers=SSE)).text))
    await client.post(f"{RUNS}{FAILED}/resume_in_cloud/")
    clock.advance(10)
    new = list(parse_events((await client.get(f"{RUNS}{FAILED}/stream/", headers=SSE)).text))
    assert (old[-1]["data"]["status"], new[0]["data"]["status"]) == ("failed", "queued")
    assert new[-1]["data"]["status"] == "completed"


async def test_hanging_up_ends_the_stream(app: Starlette) -> None:
    async with opened(app, f"{RUNS}{IN_PROGRESS}/stream/") as stream:
        await stream.until("permission_request")
    assert stream.sent.statistics().open_send_streams == 0  # type: ignore[attr-defined]  # the application has returned
