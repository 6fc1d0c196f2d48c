"""What overlays describe about cancelling: an operation to send first, and one that may delete an ended run."""

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
                            {"name": "deletejob", "method": "DELETE"},
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
                    {"name": "delete-job", "call": "acme.deletejob"},
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
                        "deletejob": {"confirm_argument": "even_if_ended", "confirm_effect": "put away"},
                        "updatejob": {
                            "when": {"$.body.state": "stopped"},
                            "first": {"operation": "stopjob", "when": {"$.body": {"state": "stopped"}}},
                        },
                    },
                    "runs_in": {"stopjob": "$.job"},
                    "fields": {"id": "$.id", "status": "$.state"},
                    "statuses": {"running": "working", "succeeded": ["done", "archived"], "canceled": "stopped"},
                },
            }
        }
    },
}

STOPPED = {"id": "j1", "state": "stopped"}


class Provider:
    """A provider of one job, which works. `responses` are the status codes and values by method.

    `then` responds to the second GET and those after it.
    """

    def __init__(self, responses: Mapping[str, tuple[int, Any]], then: tuple[int, Any] | None = None) -> None:
        self.requests: list[str] = []
        self._responses = {"GET": (200, {"id": "j1", "state": "working"}), **responses}
        self._then = then

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(f"{request.method} {request.url.path} {request.content.decode()}".strip())
        status, value = self._responses[request.method]
        if request.method == "GET" and self._then is not None:
            self._responses["GET"] = self._then
        return httpx.Response(status, json=value)


async def cancel(folder: Path, provider: Provider, **body: str) -> Any:
    """Return the value of a call that cancels the job with an update."""
    return await call(folder, provider, "acme-update-job", {"body": {"state": "stopped", **body}})


async def call(folder: Path, provider: Provider, tool: str, arguments: Mapping[str, Any]) -> Any:
    """Return the value of a call about the job."""
    (folder / "overlays").mkdir()
    (folder / "acme.yaml").write_text(yaml.safe_dump(CAPABILITY), encoding="utf-8")
    (folder / "overlays" / "acme.yaml").write_text(yaml.safe_dump(OVERLAY), encoding="utf-8")
    settings = Settings()
    catalog = build_catalog(load_tools([folder]), settings)
    gateway = Gateway(catalog, settings, Client(settings, catalog.operations, httpx.MockTransport(provider)))
    try:
        return json.loads((await gateway.call(tool, {"team": "a b", "job": "j1", **arguments}, ignore)).text)
    finally:
        await gateway.aclose()


async def ignore(_: Progress) -> None:
    """Ignore progress."""


async def test_cancels_with_the_operation_that_is_sent_first(tmp_path: Path) -> None:
    provider = Provider({"POST": (202, {"job": STOPPED})})
    value = await cancel(tmp_path, provider)
    assert (value["cancelled"], value["status"], value["response"]) == (True, "canceled", {"job": STOPPED})
    assert provider.requests == ["GET /teams/a b/jobs/j1", "POST /teams/a b/jobs/j1/stop"]


async def test_cancels_with_the_other_operation_where_the_first_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_taskruns.engine.runs.cancel.SETTLE_SECONDS", ())
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


DONE = (200, {"id": "j1", "state": "done"})


async def test_confirmed_call_about_an_ended_run_has_deleted_it_if_the_run_is_not_found_after(tmp_path: Path) -> None:
    provider = Provider({"GET": DONE, "DELETE": (200, None)}, then=(404, {"detail": "no such job"}))
    value = await call(tmp_path, provider, "acme-delete-job", {"even_if_ended": True})
    assert (value["status"], value["deleted"], value["terminal"]) == ("deleted", True, True)
    assert value["next"] == "The run had already succeeded: it was put away."
    assert [request.split(" ")[0] for request in provider.requests] == ["GET", "DELETE", "GET"]


@pytest.mark.parametrize(
    ("then", "status"),
    [((200, {"id": "j1", "state": "archived"}), "succeeded"), ((400, {"detail": "odd"}), "unknown")],
)
async def test_confirmed_call_about_an_ended_run_reports_the_status_of_a_run_that_is_still_there(
    then: tuple[int, Any], status: str, tmp_path: Path
) -> None:
    provider = Provider({"GET": DONE, "DELETE": (200, None)}, then=then)
    value = await call(tmp_path, provider, "acme-delete-job", {"even_if_ended": True})
    assert (value["status"], value["cancelled"]) == (status, False)
    assert "deleted" not in value
