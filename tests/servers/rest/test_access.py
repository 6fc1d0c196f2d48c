"""Who may call the REST side, what of it is served, and that it shares the limits of the MCP side."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client import Client
from mcp.types import TextContent
from starlette.responses import JSONResponse

from mcp_taskruns.errors import SettingsError
from mcp_taskruns.servers.mcp.server import build_server
from mcp_taskruns.servers.rest.app import build_rest_app
from mcp_taskruns.settings import Settings
from mcp_taskruns.simulator.app import Simulator
from mcp_taskruns.simulator.faults import Fault
from tests.calls import RENDER_COMPLETED
from tests.clients import listening
from tests.servers.rest.driver import ACME, Provider, acme, open_gateway, problem, served
from tests.timing import PATIENCE

pytestmark = pytest.mark.anyio

TOKEN = "a-token-of-the-operator-1"
OTHER = "another-token-of-theirs-2"
TOKENS = {"MCP_TASKRUNS_TOKENS": f"{TOKEN},{OTHER}"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer"},
        {"Authorization": ""},
        {"Cookie": f"Authorization=Bearer {TOKEN}"},
    ],
    ids=["none", "wrong", "scheme", "bare", "empty bearer", "empty", "cookie"],
)
@pytest.mark.parametrize("path", ["/v1/things", "/openapi.json", "/docs", "/", "/v1/nothing", "/health/"])
async def test_without_a_token_there_is_nothing_but_a_problem(path: str, headers: dict[str, str]) -> None:
    provider = Provider()
    async with acme(provider, environment=TOKENS) as side:
        answer = await side.client.get(path, headers=headers)
    told = problem(answer)
    assert (told["status"], told["kind"]) == (401, "auth")
    assert "Authorization: Bearer" in told["hint"]
    assert answer.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in answer.text
    assert provider.received == []


@pytest.mark.parametrize("authorization", [f"Bearer {TOKEN}", f"bearer {OTHER}"])
async def test_with_a_token_all_of_it_is_there_and_the_token_goes_no_further(authorization: str) -> None:
    provider = Provider()
    async with acme(provider, environment=TOKENS) as side:
        answers = [
            await side.client.get(path, headers={"Authorization": authorization})
            for path in ("/v1/things", "/openapi.json", "/docs")
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert "security" in json.dumps(answers[1].json())
    (request,) = provider.received
    assert TOKEN not in str(request)
    assert OTHER not in str(request)


async def test_a_token_in_an_answer_of_the_provider_is_masked() -> None:
    async with acme(Provider(JSONResponse({"told": TOKEN})), environment=TOKENS) as side:
        answer = await side.client.get("/v1/things", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.json()["told"] != TOKEN


async def test_health_is_told_without_a_token() -> None:
    async with acme(Provider(), environment=TOKENS) as side:
        answer = await side.client.get("/health")
    assert answer.status_code == 200
    assert answer.json().keys() == {"status", "version", "routes"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:8080"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Host": "localhost"}, 200),
        ({"Host": "localhost:1234"}, 200),
        ({"Host": "[::1]:8080"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:5173"}, 200),
    ],
)
@pytest.mark.parametrize("path", ["/v1/things", "/health", "/docs", "/openapi.json"])
async def test_only_local_hosts_and_origins_are_answered(path: str, headers: dict[str, str], status: int) -> None:
    provider = Provider()
    async with acme(provider) as side:
        answer = await side.client.get(path, headers=headers)
    assert answer.status_code == status
    if status != 200:
        assert "--allowed-hosts" in problem(answer)["hint"]
    assert len(provider.received) == (1 if status == 200 and path == "/v1/things" else 0)


async def test_what_a_browser_was_made_to_post_does_nothing() -> None:
    provider = Provider()
    form = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    async with acme(provider) as side:
        answer = await side.client.post("/v1/things", content=b'{"x": 1}', headers=form)
    assert answer.status_code == 403
    assert provider.received == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "runs.example"])
def test_listening_beyond_this_machine_needs_tokens_or_consent(host: str) -> None:
    gateway = open_gateway({}, capabilities=[ACME])
    with pytest.raises(SettingsError, match="MCP_TASKRUNS_TOKENS"):
        build_rest_app(gateway, Settings(host=host))
    build_rest_app(gateway, Settings(host=host, insecure=True))
    build_rest_app(gateway, Settings(host=host, tokens=(TOKEN,)))


@pytest.mark.parametrize(
    ("flags", "there", "missing"),
    [
        ({"read_only": True}, ["GET /v1/things", "GET /v1/things/a"], ["DELETE /v1/things/a", "POST /v1/things"]),
        ({"tools": ["acme-get-thing"]}, ["GET /v1/things/a"], ["GET /v1/things", "DELETE /v1/things/a"]),
        ({"tools": ["acme-*-thing"]}, ["GET /v1/things/a", "DELETE /v1/things/a"], ["GET /v1/things"]),
        ({"exclude_tools": ["acme-drop-*"]}, ["GET /v1/things", "POST /v1/things"], ["DELETE /v1/things/a"]),
        ({"only": ["acme"]}, ["GET /v1/things", "DELETE /v1/things/a", "POST /v1/things"], []),
    ],
    ids=["read-only", "tools", "pattern", "exclude-tools", "only"],
)
async def test_what_the_operator_does_not_serve_is_no_route(
    flags: dict[str, Any], there: list[str], missing: list[str]
) -> None:
    provider = Provider()
    async with acme(provider, **flags) as side:
        for request in there:
            method, path = request.split(" ")
            assert (await side.client.request(method, path)).status_code == 200, request
        assert len(provider.received) == len(there)
        for request in missing:
            method, path = request.split(" ")
            for at in (path, f"/acme{path}"):
                assert problem(await side.client.request(method, at))["status"] in {404, 405}, request
        document = (await side.client.get("/openapi.json")).json()["paths"]
        told = {f"{method.upper()} {path}" for path, item in document.items() for method in item}
        assert not told & {request.replace("/a", "/{thing-id}") for request in missing}
    assert len(provider.received) == len(there)


async def test_only_some_providers_are_served_as_routes_and_only_those_claim_a_path(
    simulator: Simulator, environment: dict[str, str]
) -> None:
    async with served(environment, only=["render"]) as side:
        assert {route.tool.prefix for route in side.gateway.catalog.routes} == {"render"}
        assert side.gateway.catalog.notes == ()
        for path in ("/v1/tasks/tsk-d5im0000000000000001", "/render/v1/tasks/tsk-d5im0000000000000001"):
            assert (await side.client.get(path)).json()["name"] == "square"
        assert problem(await side.client.delete("/v1/tasks/x"))["status"] == 405
        assert problem(await side.client.get("/runway/v1/tasks/x"))["status"] == 404
    assert {request.provider for request in simulator.requests} == {"render"}


async def test_read_only_leaves_the_routes_of_the_tools_that_change_nothing(environment: dict[str, str]) -> None:
    async with served(environment, read_only=True) as side:
        named = {route.tool.name for route in side.gateway.catalog.routes}
        assert named == {name for name, tool in side.gateway.tools.items() if not tool.is_wait_tool}
        # A POST that only reads is there, and no other.
        posted = {route.tool.name for route in side.gateway.catalog.routes if route.method != "GET"}
        assert posted == {"posthog-download-artifact-through-backend", "posthog-generate-presigned-url-artifact"}


RATED = """
overlay: 2
prefix: rated
capability:
  consumes:
    rated:
      rate_limits: [{requests: 2, per_seconds: 3600}]
"""
CAPABILITY = """
naftiko: 1.0.0-alpha2
info: {label: Rated, tags: [Rated]}
capability:
  consumes:
  - type: http
    namespace: rated
    baseUri: URL
    resources:
    - {name: a, path: /a, operations: [{name: a, method: GET}]}
  exposes:
  - type: rest
    namespace: r
    resources:
    - {path: /v1/a, name: a, operations: [{method: GET, name: a, call: rated.a}]}
  - type: mcp
    namespace: m
    tools:
    - {name: get-a, call: rated.a, hints: {readOnly: true}}
"""


async def test_calls_of_both_sides_count_against_one_limit(tmp_path: Path) -> None:
    (tmp_path / "overlays").mkdir()
    (tmp_path / "overlays" / "rated.yaml").write_text(RATED, "utf-8")
    provider = Provider()
    async with listening(provider) as origin:
        (tmp_path / "rated.yaml").write_text(CAPABILITY.replace("URL", origin), "utf-8")
        async with (
            served({}, capabilities=[str(tmp_path)]) as side,
            Client(build_server(side.gateway), mode="auto") as client,
        ):
            assert (await side.client.get("/v1/a")).status_code == 200
            assert not (await client.call_tool("rated-get-a", {})).is_error
            answer = await side.client.get("/v1/a")
            result = await client.call_tool("rated-get-a", {})
    told = problem(answer)
    assert (told["status"], told["kind"]) == (429, "rate_limited")
    assert told["retry_after_s"] == pytest.approx(3600, abs=30)
    assert int(answer.headers["retry-after"]) == pytest.approx(3600, abs=30)
    assert result.is_error
    block = result.content[0]
    assert isinstance(block, TextContent)
    assert '"kind":"rate_limited"' in block.text
    assert len(provider.received) == 2


async def test_a_client_that_leaves_ends_its_call(simulator: Simulator, environment: dict[str, str]) -> None:
    simulator.fail_next("render", Fault(delay=60))
    async with served(environment) as side, anyio.create_task_group() as tasks:

        async def call() -> None:
            await side.client.get(f"/v1/task-runs/{RENDER_COMPLETED}")

        tasks.start_soon(call)
        with anyio.fail_after(PATIENCE):
            request = await simulator.wait_for_request(lambda request: "task-runs" in request.path)
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True), anyio.fail_after(PATIENCE):
            await request.disconnected.wait()
