"""Replicate's HTTP API: predictions and trainings.

Literals are from the OpenAPI description 1.0.0-a1 (descriptions of the operations) and replicate.com/docs.
"""

import base64
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.more.provider import Json, ScriptedProvider, advance, now

KEY = "r8_simulated"
VERSION = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
API = "https://api.replicate.com/v1"
PAGE_SIZE = 100
SCRIPTS = {
    "Alice": ["starting", "processing", "succeeded"],
    "fail": ["starting", "processing", "failed"],
    "slow": ["starting", "processing"],
}
"""By the text in the input, the statuses of a prediction; that of another text is that of Alice."""
ACTIVE = {"starting", "processing"}
LOGS = "Loading model\nTraceback (most recent call last):\nValueError: no image\n"


class Replicate(ScriptedProvider):
    """Predictions by the text in their input, and trainings that `add` adds."""

    name = "replicate"
    environment: ClassVar = {"REPLICATE_API_TOKEN": KEY, "REPLICATE_BASE_URL": "{origin}/v1"}
    authorization = f"Bearer {KEY}"
    error_member = "detail"
    messages = ("You did not pass a valid authentication token", "Not found.")

    def __init__(self) -> None:
        self.runs: dict[str, list[Json]] = {"predictions": [], "trainings": []}
        self._scripts: dict[str, list[str]] = {}
        super().__init__(
            [
                ("POST", "/v1/predictions", self._create),
                ("POST", "/v1/models/{owner}/{name}/predictions", self._create_official),
                ("POST", "/v1/deployments/{owner}/{name}/predictions", self._create_official),
                ("GET", "/v1/{kind}", self._list),
                ("GET", "/v1/{kind}/{run_id}", self._get),
                ("POST", "/v1/{kind}/{run_id}/cancel", self._cancel),
            ]
        )

    def add(self, text: str, kind: str = "predictions", model: str = "replicate/hello-world") -> str:
        """Add a run that is starting and return its id."""
        prefix = "gm3qorzdhgbfurvjtvhg6d" if kind == "predictions" else "zz4ibbonubfz7carwiefib"
        run_id = f"{prefix}{len(self.runs[kind]):04}"
        urls = {"get": f"{API}/{kind}/{run_id}", "cancel": f"{API}/{kind}/{run_id}/cancel"}
        run = {"id": run_id, "model": model, "version": VERSION, "input": {"text": text}, "source": "api"}
        self.runs[kind].insert(0, {**run, "urls": urls, "created_at": now()})
        self._scripts[run_id] = [*SCRIPTS.get(text, SCRIPTS["Alice"])]
        return run_id

    def remove_data(self, run_id: str) -> None:
        """Remove input, output and logs, as Replicate does an hour after the prediction has ended."""
        run = next(run for run in self.runs["predictions"] if run["id"] == run_id)
        run["data_removed"] = True

    def _show(self, run: Json) -> Json:
        status = self._scripts[run["id"]][0]
        has_ended = status not in ACTIVE
        ended: Json = {"completed_at": now(), "metrics": {"predict_time": 0.012683}}
        shown: Json = {
            "output": f"hello {run['input']['text']}" if status == "succeeded" else None,
            "error": "no image" if status == "failed" else None,
            "logs": LOGS if status == "failed" else "",
            "started_at": None if status == "starting" else run["created_at"],
            "completed_at": None,
            "data_removed": False,
        }
        removed: Json = {"input": {}, "output": None, "logs": None} if run.get("data_removed") else {}
        return {**shown, **run, **(ended if has_ended else {}), "status": status, **removed}

    def _find(self, kind: str, run_id: str) -> Json | None:
        return next((self._show(run) for run in self.runs.get(kind, []) if run["id"] == run_id), None)

    async def _create(self, request: Request) -> Response:
        body = await request.json()
        if body.get("version") != VERSION:
            return self.error(422, "The specified version does not exist")
        return self._created(request, self.add(body["input"].get("text", "")))

    async def _create_official(self, request: Request, owner: str, name: str) -> Response:
        body = await request.json()
        if "version" in body:
            return self.error(422, "Additional property version is not allowed")
        return self._created(request, self.add(body["input"].get("text", ""), model=f"{owner}/{name}"))

    def _created(self, request: Request, run_id: str) -> Response:
        """Return a new prediction: with `Prefer: wait` as it is in the end, if it has one."""
        script = self._scripts[run_id]
        if request.headers.get("prefer", "").startswith("wait"):
            del script[:-1]
        prediction = self._find("predictions", run_id)
        assert prediction is not None
        return JSONResponse(prediction, 202 if prediction["status"] in ACTIVE else 201)

    async def _list(self, request: Request, kind: str) -> Response:
        if kind not in self.runs:
            return self.not_found()
        start = int(base64.b64decode(request.query_params.get("cursor", "MA==")))
        end = start + PAGE_SIZE
        cursor = base64.b64encode(str(end).encode()).decode().replace("=", "%3D")
        next_url = f"{API}/{kind}?cursor={cursor}" if end < len(self.runs[kind]) else None
        items = [self._show(run) for run in self.runs[kind][start:end]]
        results = [{name: value for name, value in item.items() if name != "logs"} for item in items]
        return JSONResponse({"next": next_url, "previous": None, "results": results})

    async def _get(self, _: Request, kind: str, run_id: str) -> Response | None:
        run = self._find(kind, run_id)
        if run is None:
            return None
        advance(self._scripts[run_id])
        return JSONResponse(run)

    async def _cancel(self, _: Request, kind: str, run_id: str) -> Response | None:
        run = self._find(kind, run_id)
        if run is None:
            return None
        if run["status"] in ACTIVE:
            self._scripts[run_id] = ["canceled"]
        return JSONResponse(self._find(kind, run_id))
