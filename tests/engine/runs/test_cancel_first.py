"""Cancelling with an operation that older servers of a provider lack, and another one that follows there."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.progress import Progress
from mcp_taskruns.errors import ProviderError
from mcp_taskruns.loading.catalog import build_catalog
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.settings import Settings

pytestmark = pytest.mark.anyio

CAPABILITY: dict[str, Any] = {
    "naftiko": "1.0.0-alpha2",
    "info": {"label": "Jobs", "tags": ["Acme"]},
    "capability": {
        "consumes": [
            {
                "type": "http",
                "namespace": "acme",
                "baseUri": "https://api.acme.example",
                "resources": [
                    {
                        "path": "/teams/{team}/jobs/{job}",
                        "operations": [
                            {"name": "getjob", "method": "GET"},
                            {
                                "name": "updatejob",
                                "method": "PATCH",
                                "inputParameters": [{"name": "body", "in": "body", "type": "object"}],
                            },
                        ],
                    }
                ],
            }
        ],
        "exposes": [
            {
                "type": "mcp",
                "namespace": "acme-mcp",
                "tools": [
                    {"name": "get-job", "call": "acme.getjob"},
                    {"name": "update-job", "call": "acme.updatejob"},
                ],
            }
        ],
    },
}

OVERLAY: dict[str, Any] = {
    "overlay": 2,
    "capability": {
        "consumes": {
            "acme": {
                "operations": {"stopjob": {"method": "POST", "path": "/teams/{team}/jobs/{job}/stop"}},
                "runs": {
                    "read": {"operation": "getjob", "run_id_argument": "job"},
                    "cancel": {
                        "updatejob": {
                            "when": {"$.body.state": "stopped"},
                            "first": {"operation": "stopjob", "when": {"$.body": {"state": "stopped"}}},
                        }
                    },
                    "runs_in": {"stopjob": "$.job"},
                    "fields": {"id": "$.id", "status": "$.state"},
                    "statuses": {"running": "working", "canceled": "stopped"},
                },
            }
        }
    },
}

STOPPED = {"id": "j1", "state": "stopped"}


class Provider:
    """A provider of one working job. `responses` are the status codes and values by method."""

    def __init__(self, responses: Mapping[str, tuple[int, Any]]) -> None:
        self.requests: list[str] = []
        self._responses = {"GET": (200, {"id": "j1", "state": "working"}), **responses}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(f"{request.method} {request.url.path} {request.content.decode()}".strip())
        status, value = self._responses[request.method]
        return httpx.Response(status, json=value)


async def cancel(folder: Path, provider: Provider, **body: str) -> Any:
    """Return the value of a call that cancels the job."""
    (folder / "overlays").mkdir()
    (folder / "acme.yaml").write_text(yaml.safe_dump(CAPABILITY), encoding="utf-8")
    (folder / "overlays" / "acme.yaml").write_text(yaml.safe_dump(OVERLAY), encoding="utf-8")
    settings = Settings()
    catalog = build_catalog(load_tools([folder]), settings)
    gateway = Gateway(catalog, settings, Client(settings, catalog.operations, httpx.MockTransport(provider)))
    arguments = {"team": "a b", "job": "j1", "body": {"state": "stopped", **body}}
    try:
        return json.loads((await gateway.call("acme-update-job", arguments, ignore)).text)
    finally:
        await gateway.aclose()


async def ignore(_: Progress) -> None:
    """Ignore progress."""


async def test_cancels_with_the_operation_that_is_sent_first(tmp_path: Path) -> None:
    provider = Provider({"POST": (202, {"job": STOPPED})})
    value = await cancel(tmp_path, provider)
    assert (value["cancelled"], value["status"], value["response"]) == (True, "canceled", {"job": STOPPED})
    assert provider.requests == ["GET /teams/a b/jobs/j1", "POST /teams/a b/jobs/j1/stop"]


async def test_cancels_with_the_other_operation_where_the_first_is_not_found(tmp_path: Path) -> None:
    provider = Provider({"POST": (404, {"detail": "no such route"}), "PATCH": (200, STOPPED)})
    # The response to PATCH is not in `runs_in`, so the job is read once more, and still works.
    value = await cancel(tmp_path, provider)
    assert (value["cancelled"], value["status"], value["response"]) == (False, "running", STOPPED)
    assert provider.requests == [
        "GET /teams/a b/jobs/j1",
        "POST /teams/a b/jobs/j1/stop",
        'PATCH /teams/a b/jobs/j1 {"state":"stopped"}',
        "GET /teams/a b/jobs/j1",
    ]


@pytest.mark.parametrize("status", [400, 403, 409, 503])
async def test_does_not_send_the_other_operation_after_another_error(status: int, tmp_path: Path) -> None:
    provider = Provider({"POST": (status, {"detail": "no"})})
    with pytest.raises(ProviderError) as caught:
        await cancel(tmp_path, provider)
    assert caught.value.status == status
    assert not [request for request in provider.requests if request.startswith("PATCH")]


async def test_sends_only_the_other_operation_where_it_has_more_to_change(tmp_path: Path) -> None:
    provider = Provider({"PATCH": (200, STOPPED)})
    await cancel(tmp_path, provider, reason="not needed")
    assert provider.requests[1] == 'PATCH /teams/a b/jobs/j1 {"state":"stopped","reason":"not needed"}'
