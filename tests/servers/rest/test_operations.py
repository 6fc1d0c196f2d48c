"""The 31 operations of the built-in files over REST.

Methods, paths and parameters were read from capabilities/*.yaml by hand. The expected requests are from the
documentation of the providers (see tests/providers/test_requests.py).
"""

import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import yaml

from mcp_taskruns.engine.progress import Progress
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.lifecycle import ManualClock
from mcp_taskruns.simulator.server import serve
from tests.calls import (
    INNGEST_COMPLETED,
    INNGEST_RUNNING,
    KEYS,
    POSTHOG_COMPLETED,
    POSTHOG_FAILED,
    POSTHOG_NOT_STARTED,
    POSTHOG_RUNNING,
    POSTHOG_RUNS,
    RENDER_COMPLETED,
    RENDER_FAILED,
    RENDER_RUNNING,
    RUNWAY_SUCCEEDED,
    RUNWAY_THROTTLED,
    TASK,
)
from tests.servers.rest.driver import Side, events_in, problem, served
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

SHIPPED = Path(__file__).parents[3] / "capabilities"

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
EVENTS = "text/event-stream"

TEMPLATE = "/v1/api/projects/{project-id}/tasks/{task-id}/runs"
RUNS = f"/v1/api/projects/1/tasks/{TASK}/runs"
RENDER_TASK = "tsk-d5im0000000000000001"
STORED = f"tasks/artifacts/team_1/task_{TASK}/run_{POSTHOG_COMPLETED}/a1a1a1a1_report.md"
NOTE = {"name": "note.txt", "type": "context"}
ENTRY = {"type": "notification", "notification": {"method": "_posthog/console", "params": {"message": "hi"}}}

Json = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A REST request, and the request to the provider that it causes.

    `template` is the path in the capability file. `member` is a part of the response. With `tool`, the response is the
    result of that tool with these `arguments`; without it, that of the provider. `is_trimmed`: a part of
    the provider's response is left out. `is_upload`: the body refers to a file that is uploaded first.
    """

    provider: str
    method: str
    template: str
    path: str
    requested: str
    member: str
    query: str = ""
    body: Any = None
    status: int = 200
    is_trimmed: bool = False
    media_type: str = JSON
    tool: str = ""
    arguments: Json | None = None
    is_upload: bool = False

    def __str__(self) -> str:
        return f"{self.provider} {self.method} {self.template}"


def posthog(method: str, run_id: str, at: str, place: str, member: str, **more: Any) -> Row:
    """Return a row about a run, with its REST path and its path at PostHog."""
    requested = f"{method} {POSTHOG_RUNS}/{run_id}/{place}" + (f"?{more['query']}" if "query" in more else "")
    return Row("posthog", method, f"{TEMPLATE}/{{id}}{at}", f"{RUNS}/{run_id}{at}", requested, member, **more)


ROWS = [
    Row(
        "inngest",
        "GET",
        "/v1/v1/runs/{runid}",
        f"/v1/v1/runs/{INNGEST_COMPLETED}",
        f"GET /inngest/v1/runs/{INNGEST_COMPLETED}",
        '"status":"Completed"',
    ),
    Row(
        "inngest",
        "POST",
        "/v1/v1/runs/{runid}/cancel",
        f"/v1/v1/runs/{INNGEST_RUNNING}/cancel",
        f"DELETE /inngest/v1/runs/{INNGEST_RUNNING}",
        '"status_before":"running"',
        tool="inngest-cancel-function-run",
        arguments={"runId": INNGEST_RUNNING},
    ),
    Row(
        "inngest",
        "GET",
        "/v1/v1/runs/{runid}/jobs",
        f"/v1/v1/runs/{INNGEST_RUNNING}/jobs",
        f"GET /inngest/v1/runs/{INNGEST_RUNNING}/jobs",
        '"leased":',
        is_trimmed=True,
    ),
    Row(
        "render",
        "GET",
        "/v1/task-runs",
        "/v1/task-runs",
        f"GET /render/v1/task-runs?rootTaskRunId={RENDER_COMPLETED}&rootTaskRunId={RENDER_RUNNING}&limit=2",
        '[{"taskRun":{"id":"trn-',
        query=f"limit=2&rootTaskRunId={RENDER_COMPLETED}&rootTaskRunId={RENDER_RUNNING}",
    ),
    Row(
        "render",
        "POST",
        "/v1/task-runs",
        "/v1/task-runs",
        "POST /render/v1/task-runs",
        '"status":"pending"',
        body={"task": "demo-workflow/square", "input": [4], "idempotencyKey": "k-1"},
        status=202,
    ),
    Row(
        "render",
        "GET",
        "/v1/task-runs/events",
        "/v1/task-runs/events",
        f"GET /render/v1/task-runs/events?taskRunIds={RENDER_COMPLETED},{RENDER_FAILED}",
        "event: task.completed\n",
        query=f"taskRunIds={RENDER_COMPLETED}&taskRunIds={RENDER_FAILED}",
        media_type=EVENTS,
    ),
    Row(
        "render",
        "GET",
        "/v1/task-runs/{taskrunid}",
        f"/v1/task-runs/{RENDER_COMPLETED}",
        f"GET /render/v1/task-runs/{RENDER_COMPLETED}",
        '"results":[144]',
    ),
    Row(
        "render",
        "DELETE",
        "/v1/task-runs/{taskrunid}",
        f"/v1/task-runs/{RENDER_RUNNING}",
        f"DELETE /render/v1/task-runs/{RENDER_RUNNING}",
        '"cancelled":true',
        tool="render-cancel-task-run",
        arguments={"taskRunId": RENDER_RUNNING},
    ),
    Row(
        "render",
        "GET",
        "/v1/tasks",
        "/v1/tasks",
        "GET /render/v1/tasks?limit=2",
        '[{"task":{"id":"tsk-',
        query="limit=2",
    ),
    Row(
        "render",
        "GET",
        "/v1/tasks/{taskid}",
        f"/render/v1/tasks/{RENDER_TASK}",
        f"GET /render/v1/tasks/{RENDER_TASK}",
        '"name":"square"',
    ),
    Row(
        "runway",
        "GET",
        "/v1/tasks/{id}",
        f"/runway/v1/tasks/{RUNWAY_SUCCEEDED}",
        f"GET /runway/v1/tasks/{RUNWAY_SUCCEEDED}",
        '"status":"SUCCEEDED"',
    ),
    Row(
        "runway",
        "DELETE",
        "/v1/tasks/{id}",
        f"/v1/tasks/{RUNWAY_THROTTLED}",
        f"DELETE /runway/v1/tasks/{RUNWAY_THROTTLED}",
        '"cancelled":true',
        tool="runway-cancel-delete-task",
        arguments={"id": RUNWAY_THROTTLED},
    ),
    Row(
        "posthog",
        "GET",
        TEMPLATE,
        RUNS,
        f"GET {POSTHOG_RUNS}/?limit=2&offset=1",
        '{"count":4,',
        query="limit=2&offset=1",
    ),
    Row(
        "posthog",
        "POST",
        TEMPLATE,
        RUNS,
        f"POST {POSTHOG_RUNS}/",
        '"status":"not_started"',
        body={"environment": "cloud"},
        status=201,
    ),
    posthog("GET", POSTHOG_COMPLETED, "", "", '"status":"completed"'),
    posthog("PATCH", POSTHOG_RUNNING, "", "", '"stage":"review"', body={"stage": "review"}),
    posthog("POST", POSTHOG_RUNNING, "/append-log", "append_log/", '"stage":"build"', body={"entries": [ENTRY]}),
    posthog(
        "POST",
        POSTHOG_RUNNING,
        "/artifacts",
        "artifacts/",
        '"name":"note.txt"',
        body={"artifacts": [NOTE | {"content": "hello"}]},
    ),
    posthog(
        "POST",
        POSTHOG_COMPLETED,
        "/artifacts/download",
        "artifacts/download/",
        "# Report\n\nThe retry loop ran for ever: naïve back-off.\n",
        body={"storage_path": STORED},
        media_type="text/markdown; charset=utf-8",
    ),
    posthog(
        "POST",
        POSTHOG_RUNNING,
        "/artifacts/finalize-upload",
        "artifacts/finalize_upload/",
        '"name":"note.txt"',
        is_upload=True,
    ),
    posthog(
        "POST",
        POSTHOG_RUNNING,
        "/artifacts/prepare-upload",
        "artifacts/prepare_upload/",
        '"presigned_post":{',
        body={"artifacts": [NOTE | {"size": 5}]},
    ),
    posthog(
        "POST",
        POSTHOG_COMPLETED,
        "/artifacts/presign",
        "artifacts/presign/",
        '"expires_in":3600',
        body={"storage_path": STORED},
    ),
    posthog(
        "POST",
        POSTHOG_RUNNING,
        "/command",
        "command/",
        '"queued":true',
        body={"jsonrpc": "2.0", "method": "user_message", "params": {"content": "go on"}, "id": 1},
    ),
    posthog("GET", POSTHOG_RUNNING, "/connection-token", "connection_token/", '{"token":"'),
    posthog(
        "GET",
        POSTHOG_COMPLETED,
        "/logs",
        "logs/",
        "agent message: The tests pass.",
        media_type=TEXT,
        tool="posthog-get-task-run-logs",
        arguments={"task_id": TASK, "id": POSTHOG_COMPLETED},
    ),
    posthog("POST", POSTHOG_RUNNING, "/relay-message", "relay_message/", '"status":"accepted"', body={"text": "hi"}),
    posthog("POST", POSTHOG_FAILED, "/resume-in-cloud", "resume_in_cloud/", '"status":"queued"'),
    posthog(
        "GET",
        POSTHOG_COMPLETED,
        "/session-logs",
        "session_logs/",
        "console: Sandbox ready",
        query="limit=3&offset=1",
        media_type=TEXT,
        tool="posthog-get-filtered-task-run-session",
        arguments={"task_id": TASK, "id": POSTHOG_COMPLETED, "limit": 3, "offset": 1},
    ),
    posthog(
        "PATCH",
        POSTHOG_RUNNING,
        "/set-output",
        "set_output/",
        '"output":{"summary":"done"}',
        body={"output": {"summary": "done"}},
    ),
    posthog("POST", POSTHOG_NOT_STARTED, "/start", "start/", f'"id":"{TASK}"'),
    posthog("GET", POSTHOG_COMPLETED, "/stream", "stream/", "id: 1767218600000-0\n", media_type=EVENTS),
]


def test_table_covers_all_31_operations() -> None:
    found: Counter[tuple[str, str]] = Counter()
    for file in SHIPPED.glob("*.yaml"):
        for adapter in yaml.safe_load(file.read_text("utf-8"))["capability"]["exposes"]:
            for resource in adapter["resources"] if adapter["type"] == "rest" else ():
                found.update((operation["method"], resource["path"]) for operation in resource["operations"])
    assert found.total() == 31
    assert Counter((row.method, row.template) for row in ROWS) == found
    for row in ROWS:
        filled = re.sub(r"\{[^}]+\}", "[^/]+", row.template)
        assert re.fullmatch(f"(/{row.provider})?{filled}", row.path), row.path


@dataclass(frozen=True)
class World:
    """Separate simulated providers with the same clock and ids as all others."""

    simulator: Simulator
    origin: str
    environment: Mapping[str, str]

    @property
    def requested(self) -> list[str]:
        """The requests to the providers without the host."""
        return [f"{request.method} {request.path}" for request in self.simulator.requests]

    def timeless(self, response: httpx.Response) -> str:
        """Return the text of a response without the origin of the providers."""
        return response.text.replace(self.origin, "http://provider")


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    simulator = Simulator(clock=ManualClock())
    async with serve(simulator) as origin:
        yield World(simulator, origin, simulator.environment(origin))


@asynccontextmanager
async def rest_of(place: World) -> AsyncIterator[Side]:
    # Secrets are revealed, so that the response equals that of the provider.
    async with served(place.environment, reveal_secrets=True) as side:
        yield side


async def uploaded(client: httpx.AsyncClient, prepare_at: str) -> Json:
    """Upload a file as the provider requires, and return the body that refers to it."""
    prepared = (await client.post(prepare_at, json={"artifacts": [NOTE | {"size": 5}]})).raise_for_status()
    artifact = prepared.json()["artifacts"][0]
    form = artifact["presigned_post"]
    async with httpx.AsyncClient() as stranger:
        (await stranger.post(form["url"], data=form["fields"], files={"file": b"hello"})).raise_for_status()
    return {"artifacts": [NOTE | {"id": artifact["id"], "storage_path": artifact["storage_path"]}]}


async def by_rest(side: Side, row: Row, path: str) -> httpx.Response:
    body = row.body
    if row.is_upload:
        body = await uploaded(side.client, f"{RUNS}/{POSTHOG_RUNNING}/artifacts/prepare-upload")
    with anyio.fail_after(PATIENCE):
        return await side.client.request(row.method, path, params=row.query or None, json=body)


async def by_itself(place: World, row: Row) -> httpx.Response:
    """Return the response of the provider to a direct request."""
    headers = {"Authorization": f"Bearer {place.environment[KEYS[row.provider]]}"}
    headers |= {"X-Runway-Version": "2024-11-06"} if row.provider == "runway" else {}
    headers["Accept"] = row.media_type if row.media_type == EVENTS else JSON
    method, _, path = row.requested.partition(" ")
    async with httpx.AsyncClient(base_url=place.origin, headers=headers) as client:
        body = row.body
        if row.is_upload:
            body = await uploaded(client, f"{POSTHOG_RUNS}/{POSTHOG_RUNNING}/artifacts/prepare_upload/")
        return await client.request(method, path, json=body)


@pytest.mark.parametrize("row", [row for row in ROWS if not row.tool], ids=str)
async def test_operation_returns_the_response_of_its_provider(row: Row) -> None:
    async with world() as ours, world() as theirs, rest_of(ours) as side:
        response = await by_rest(side, row, row.path)
        original = await by_itself(theirs, row)
        assert (response.status_code, original.status_code) == (row.status, row.status)
        assert response.headers["content-type"] == row.media_type
        assert row.member in response.text
        assert ours.requested == theirs.requested
        assert ours.simulator.requests[-1].body == theirs.simulator.requests[-1].body
        if row.is_trimmed:
            assert len(response.content) < len(original.content)
        elif row.media_type == JSON:
            assert httpx.Response(200, text=ours.timeless(response)).json() == (
                httpx.Response(200, text=theirs.timeless(original)).json()
            )
        elif row.media_type == EVENTS:
            assert events_in(response.text) == [event for event in events_in(original.text) if event.data]
        else:
            assert response.content == original.content


async def _ignore_progress(_: Progress) -> None:
    await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("row", [row for row in ROWS if row.tool], ids=str)
async def test_operation_with_a_lifecycle_returns_the_result_of_its_tool(row: Row) -> None:
    async with world() as ours, world() as theirs, rest_of(ours) as side, rest_of(theirs) as other:
        response = await by_rest(side, row, row.path)
        outcome = await other.gateway.call(row.tool, row.arguments or {}, _ignore_progress)
        assert response.status_code == row.status
        assert response.headers["content-type"] == row.media_type
        assert row.member in response.text
        assert response.text == outcome.text
        assert [value for name, value in response.headers.multi_items() if name == "x-note"] == list(outcome.notes)
        assert row.requested in ours.requested
        assert ours.requested == theirs.requested


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_route_is_also_served_below_its_prefix(row: Row) -> None:
    below = f"/{row.provider}{row.path.removeprefix(f'/{row.provider}')}"
    async with world() as ours, rest_of(ours) as side:
        response = await by_rest(side, row, below)
    assert (response.status_code, response.headers["content-type"]) == (row.status, row.media_type)
    assert row.member in response.text
    assert row.requested in ours.requested


async def test_ambiguous_path_is_404_with_both_prefixed_paths(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with served(environment) as side:
        details = problem(await side.client.get("/v1/tasks/x"))
        assert simulator.requests == []
        assert details["status"] == 404
        assert details["kind"] == "not_found"
        assert "/render/v1/tasks/{taskid} or /runway/v1/tasks/{id}" in details["hint"]
        assert [note.split(" ")[1] for note in side.gateway.catalog.notes] == ["/v1/tasks/{taskid}", "/v1/tasks/{id}"]


async def test_method_of_an_ambiguous_path_that_only_one_file_has_is_served(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with served(environment) as side:
        response = await side.client.delete(f"/v1/tasks/{RUNWAY_THROTTLED}")
        other = await side.client.post("/v1/tasks/x")
    assert response.json()["provider"] == "runway"
    assert problem(other)["status"] == 405
    assert other.headers["allow"] == "DELETE"
