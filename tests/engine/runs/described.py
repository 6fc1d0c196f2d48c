"""A provider of jobs whose runs an overlay describes, called through the gateway."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from copy import deepcopy
from inspect import isawaitable
from pathlib import Path
from typing import Any

import httpx
import yaml

from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.progress import Progress
from mcp_taskruns.loading.catalog import build_catalog
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.settings import Settings

Json = dict[str, Any]

BASE = "https://api.acme.example"

Respond = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]

RUNS: Json = {
    "read": {"operation": "getjob", "run_id_argument": "job"},
    "start": {"createjob": {}},
    "cancel": {"stopjob": {}},
    "runs_in": {"listjobs": "$.jobs[*]"},
    "fields": {"id": "$.id", "status": "$.state", "error": "$.error"},
    "statuses": {"queued": "waiting", "running": "working", "succeeded": "done", "failed": "broken", "canceled": "off"},
    "poll_seconds": 0.01,
}


def capability(operations: Mapping[str, Json]) -> Json:
    """Return a capability file with a tool for each operation; `tool: false` in an operation makes none."""
    declared = deepcopy(dict(operations))
    tools = [
        {"name": name, "call": f"acme.{name}"} for name, one in declared.items() if one.pop("tool", True) is not False
    ]
    resources = [{"path": one.pop("path"), "operations": [{"name": name, **one}]} for name, one in declared.items()]
    return {
        "naftiko": "1.0.0-alpha2",
        "info": {"label": "Jobs", "tags": ["Acme"]},
        "capability": {
            "consumes": [{"type": "http", "namespace": "acme", "baseUri": BASE, "resources": resources}],
            "exposes": [{"type": "mcp", "namespace": "acme-mcp", "tools": tools}],
        },
    }


OPERATIONS: Mapping[str, Json] = {
    "createjob": {
        "method": "POST",
        "path": "/teams/{team}/jobs",
        "inputParameters": [{"name": "body", "in": "body", "type": "object"}],
    },
    "getjob": {"method": "GET", "path": "/teams/{team}/jobs/{job}"},
    "listjobs": {"method": "GET", "path": "/teams/{team}/jobs"},
    "stopjob": {"method": "POST", "path": "/teams/{team}/jobs/{job}/stop"},
}


class Call:
    """The result of a call, and the progress that it reported."""

    def __init__(self, result: CallResult, progress: list[Progress]) -> None:
        self.result = result
        self.progress = progress

    @property
    def value(self) -> Any:
        """The JSON value of the result's text."""
        return json.loads(self.result.text)

    @property
    def messages(self) -> list[str]:
        """The messages of the progress notifications."""
        return [progress.message for progress in self.progress]


class Acme:
    """A gateway with the tools of the provider, and the requests that the provider received."""

    def __init__(self, gateway: Gateway, requests: list[httpx.Request]) -> None:
        self.gateway = gateway
        self.received = requests

    @property
    def requests(self) -> list[str]:
        """Method, path and body of each request."""
        return [
            f"{request.method} {request.url.raw_path.decode()} {request.content.decode()}".strip()
            for request in self.received
        ]

    async def call(self, tool: str, **arguments: Any) -> Call:
        """Call a tool of the team `t`."""
        progress: list[Progress] = []

        async def report(one: Progress) -> None:
            progress.append(one)

        result = await self.gateway.call(f"acme-{tool}", {"team": "t", **arguments}, report)
        return Call(result, progress)


@asynccontextmanager
async def acme(
    folder: Path,
    respond: Respond | None,
    *,
    operations: Mapping[str, Json] = OPERATIONS,
    runs: Mapping[str, Any] = RUNS,
    consumed: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
) -> AsyncIterator[Acme]:
    """Serve the tools of the provider; `consumed` are further keywords of the provider in the overlay.

    `respond` is None for a provider on a socket, whose address is ACME_BASE_URL in the environment of the settings.
    """
    (folder / "overlays").mkdir(exist_ok=True)
    overlay = {"overlay": 2, "capability": {"consumes": {"acme": {"runs": dict(runs), **(consumed or {})}}}}
    (folder / "acme.yaml").write_text(yaml.safe_dump(capability(operations), sort_keys=False), encoding="utf-8")
    (folder / "overlays" / "acme.yaml").write_text(yaml.safe_dump(overlay, sort_keys=False), encoding="utf-8")
    settings = settings or Settings()
    catalog = build_catalog(load_tools([folder]), settings)
    requests: list[httpx.Request] = []

    async def receive(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        assert respond is not None
        response = respond(request)
        return await response if isawaitable(response) else response

    transport = httpx.MockTransport(receive) if respond else None
    gateway = Gateway(catalog, settings, Client(settings, catalog.operations, transport))
    try:
        yield Acme(gateway, requests)
    finally:
        await gateway.aclose()


def by_path(responses: Mapping[str, Any]) -> Respond:
    """Return a function that responds to `METHOD /path` with a value, a response, or the next one of a list of these.

    The last item of a list is repeated.
    """
    remaining = {key: list(value) if isinstance(value, list) else [value] for key, value in responses.items()}

    def respond(request: httpx.Request) -> httpx.Response:
        values = remaining.get(f"{request.method} {request.url.path}")
        if values is None:
            return httpx.Response(404, json={"detail": "no such route"})
        value = values.pop(0) if len(values) > 1 else values[0]
        return value if isinstance(value, httpx.Response) else httpx.Response(200, json=value)

    return respond
