"""Names of arguments that model vendors refuse, through an MCP client."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp.client import Client as McpClient

from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.loading.catalog import build_catalog
from mcp_taskruns.loading.loader import load
from mcp_taskruns.servers.mcp.server import build_server
from mcp_taskruns.settings import Settings

pytestmark = pytest.mark.anyio

THING = """\
naftiko: 1.0.0-alpha2
info: {tags: [Thing]}
capability:
  consumes:
  - namespace: things
    baseUri: https://api.example
    resources:
    - path: /things
      operations:
      - name: search
        method: POST
        inputParameters:
        - {name: 'filter[status]', in: query, type: string, description: Which ones.}
        - {name: 'page[size]', in: query, type: integer, required: true}
        - {name: body, in: body, type: object}
  exposes:
  - type: mcp
    tools:
    - {name: search, call: things.search, with: {'filter[status]': 'tools.filter[status]', body: tools.body}}
"""

OVERLAY = """\
overlay: 2
capability:
  consumes:
    things:
      operations:
        search:
          inputParameters:
            body: {schema: {properties: {'window[seconds]': {type: integer}}, required: ['window[seconds]']}}
"""


@pytest.mark.parametrize(
    "arguments",
    [
        {"filter_status": "open", "page_size": 5, "body": {"window_seconds": 60}},
        {"filter[status]": "open", "page[size]": 5, "body": {"window[seconds]": 60}},
    ],
    ids=["listed", "real"],
)
async def test_names_that_vendors_refuse_are_listed_safely_and_sent_as_declared(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    (tmp_path / "thing.yaml").write_text(THING)
    (tmp_path / "overlays").mkdir()
    (tmp_path / "overlays/thing.yaml").write_text(OVERLAY)
    sent: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"found": 1})

    settings = Settings()
    catalog = build_catalog(load([tmp_path]).tools, settings)
    gateway = Gateway(catalog, settings, Client(settings, catalog.operations, httpx.MockTransport(respond)))
    async with McpClient(build_server(gateway), mode="legacy") as client:
        (tool,) = (await client.list_tools()).tools
        schema = tool.input_schema
        names = [*schema["properties"], *schema["properties"]["body"]["properties"]]
        assert names == ["filter_status", "page_size", "body", "window_seconds"]
        assert all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}", name) for name in names)
        assert schema["required"] == ["page_size"]
        assert schema["properties"]["body"]["required"] == ["window_seconds"]
        assert "`filter[status]`" in schema["properties"]["filter_status"]["description"]
        assert not (await client.call_tool(tool.name, arguments)).is_error
        refused = await client.call_tool(tool.name, {"filter_stat": "open"})
        assert "filter_status, page_size, body" in str(refused.content)
    await gateway.aclose()
    (request,) = sent
    assert dict(request.url.params) == {"filter[status]": "open", "page[size]": "5"}
    assert json.loads(request.content) == {"window[seconds]": 60}
