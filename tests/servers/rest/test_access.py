"""Access to the REST API: tokens, hosts, filters, and rate limits shared with MCP."""

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
async def test_request_without_a_valid_token_is_rejected_with_a_problem(path: str, headers: dict[str, str]) -> None:
    provider = Provider()
    async with acme(provider, environment=TOKENS) as side:
        response = await side.client.get(path, headers=headers)
    details = problem(response)
    assert (details["status"], details["kind"]) == (401, "auth")
    assert "Authorization: Bearer" in details["hint"]
    assert response.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in response.text
    assert provider.received == []


@pytest.mark.parametrize("authorization", [f"Bearer {TOKEN}", f"bearer {OTHER}"])
async def test_request_with_a_token_is_accepted_and_the_token_is_not_forwarded(authorization: str) -> None:
    provider = Provider()
    async with acme(provider, environment=TOKENS) as side:
        responses = [
            await side.client.get(path, headers={"Authorization": authorization})
            for path in ("/v1/things", "/openapi.json", "/docs")
        ]
    assert [response.status_code for response in responses] == [200, 200, 200]
    assert "security" in json.dumps(responses[1].json())
    (request,) = provider.received
    assert TOKEN not in str(request)
    assert OTHER not in str(request)


async def test_token_in_a_response_of_the_provider_is_redacted() -> None:
    async with acme(Provider(JSONResponse({"echo": TOKEN})), environment=TOKENS) as side:
        response = await side.client.get("/v1/things", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.json()["echo"] != TOKEN


async def test_health_needs_no_token() -> None:
    async with acme(Provider(), environment=TOKENS) as side:
        response = await side.client.get("/health")
    assert response.status_code == 200
    assert response.json().keys() == {"status", "version", "routes"}


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
        ({"Origin": "http://localhost:5173"}, 403),
    ],
)
@pytest.mark.parametrize("path", ["/v1/things", "/health", "/docs", "/openapi.json"])
async def test_only_local_hosts_and_the_own_origin_are_accepted(
    path: str, headers: dict[str, str], status: int
) -> None:
    provider = Provider()
    async with acme(provider) as side:
        response = await side.client.get(path, headers=headers)
    assert response.status_code == status
    if status != 200:
        assert "--allowed-hosts" in problem(response)["hint"]
    assert len(provider.received) == (1 if status == 200 and path == "/v1/things" else 0)


@pytest.mark.parametrize(("path", "status"), [("/v1/things", 403), ("/docs", 403), ("/health", 200)])
async def test_request_of_another_site_is_refused_with_a_problem(path: str, status: int) -> None:
    provider = Provider()
    async with acme(provider) as side:
        response = await side.client.get(path, headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"})
        own = await side.client.get(path, headers={"Sec-Fetch-Site": "same-origin", "Origin": side.origin})
    assert (response.status_code, own.status_code) == (status, 200)
    if status != 200:
        assert problem(response)["kind"] == "auth"


async def test_cross_site_post_of_a_browser_is_rejected() -> None:
    provider = Provider()
    form = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    async with acme(provider) as side:
        response = await side.client.post("/v1/things", content=b'{"x": 1}', headers=form)
    assert response.status_code == 403
    assert provider.received == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "runs.example"])
def test_listening_on_other_addresses_needs_tokens_or_insecure(host: str) -> None:
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
async def test_filtered_tools_have_no_routes(flags: dict[str, Any], there: list[str], missing: list[str]) -> None:
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
        details = {f"{method.upper()} {path}" for path, item in document.items() for method in item}
        assert not details & {request.replace("/a", "/{thing-id}") for request in missing}
    assert len(provider.received) == len(there)


async def test_routes_of_filtered_providers_do_not_make_a_path_ambiguous(
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


async def test_read_only_serves_only_routes_that_change_nothing(environment: dict[str, str]) -> None:
    async with served(environment, read_only=True) as side:
        named = {route.tool.name for route in side.gateway.catalog.routes}
        assert named == {name for name, tool in side.gateway.tools.items() if not tool.derived}
        # The only POST is one that reads.
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


async def test_mcp_and_rest_calls_share_a_rate_limit(tmp_path: Path) -> None:
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
            response = await side.client.get("/v1/a")
            result = await client.call_tool("rated-get-a", {})
    details = problem(response)
    assert (details["status"], details["kind"]) == (429, "rate_limited")
    assert details["retry_after_s"] == pytest.approx(3600, abs=30)
    assert int(response.headers["retry-after"]) == pytest.approx(3600, abs=30)
    assert result.is_error
    block = result.content[0]
    assert isinstance(block, TextContent)
    assert '"kind":"rate_limited"' in block.text
    assert len(provider.received) == 2


async def test_disconnecting_cancels_the_call(simulator: Simulator, environment: dict[str, str]) -> None:
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
