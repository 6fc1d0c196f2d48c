"""The complete example of docs/overlays.md works as it is printed."""

import json
import re
from pathlib import Path

import pytest
from mcp.client import Client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_taskruns.loading.check import check_files
from mcp_taskruns.servers.mcp.server import build_server
from tests.clients import listening, open_gateway

PAGE = (Path(__file__).parents[1] / "docs" / "overlays.md").read_text(encoding="utf-8")
FILE = re.compile(r"<!-- file: (\S+) -->\n```yaml\n(.*?)```", re.DOTALL)
CALL = re.compile(r"<!-- call: (\S+) -->\n```json\n(.*?)```", re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the files of the example."""
    for name, text in FILE.findall(PAGE):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


class Provider:
    """A provider whose jobs are done when they are read for the second time."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    def app(self) -> Starlette:
        return Starlette(
            routes=[Route("/jobs", self._start, methods=["POST"]), Route("/jobs/{job_id}", self._get, methods=["GET"])]
        )

    async def _start(self, request: Request) -> Response:
        self.requests.append(f"POST {request.url.path} {(await request.body()).decode()}")
        return JSONResponse({"id": "job-1", "state": "waiting"})

    async def _get(self, request: Request) -> Response:
        self.requests.append(f"GET {request.url.path}")
        if request.path_params["job_id"] != "job-1":
            return JSONResponse({"error": "no such job"}, 404)
        done = len(self.requests) > 2
        return JSONResponse({"id": "job-1", "state": "done" if done else "working", "output": "ok" if done else None})


def test_example_has_no_findings(folder: Path) -> None:
    assert [finding.message for finding in check_files([folder]).findings if finding.severity == "error"] == []


@pytest.mark.anyio
async def test_example_call_returns_the_result_of_the_run(folder: Path) -> None:
    ((tool, arguments),) = CALL.findall(PAGE)
    provider = Provider()
    async with listening(provider.app()) as origin:
        gateway = open_gateway({"ACME_BASE_URL": origin}, capabilities=[str(folder)])
        async with Client(build_server(gateway), mode="auto") as client:
            listed = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert list(listed) == ["acme-start-job", "acme-get-job", "acme-wait-for-run", "acme-explain-run"]
            result = await client.call_tool(tool, json.loads(arguments))
            missing = await client.call_tool("acme-get-job", {"job_id": "none"})
    assert provider.requests[0] == 'POST /jobs {"task":"resize"}'
    assert not result.is_error
    assert result.structured_content is not None
    value = {key: result.structured_content[key] for key in ("run_id", "status", "native_status", "result")}
    assert value == {"run_id": "job-1", "status": "succeeded", "native_status": "done", "result": "ok"}
    assert missing.is_error
    assert "There is no such job. Check job_id." in str(missing.content)
