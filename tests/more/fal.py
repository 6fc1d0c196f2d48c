"""fal's queue.

Literals are from the OpenAPI description v1 (components/schemas). With `documented`, responses are those of
fal.ai/docs, Inference API, where it differs: 202 while a request is active, a failure inside COMPLETED, and the
statuses of cancelling.
"""

from typing import ClassVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.more.provider import Json, ScriptedProvider, advance

KEY = "key-id:key-secret"
ORIGIN = "https://queue.fal.run"
SCRIPTS = {
    "a cat": ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"],
    "fail": ["IN_QUEUE", "IN_PROGRESS", "FAILED"],
    "slow": ["IN_QUEUE", "IN_PROGRESS"],
}
"""By the prompt, the statuses of a request."""
ACTIVE = {"IN_QUEUE", "IN_PROGRESS"}
MODELS = {"fal-ai/fast-sdxl", "fal-ai/flux/dev", "fal-ai/flux/schnell", "fal-ai/kling-video/v2/master/text-to-video"}
OUTPUT = {"images": [{"url": "https://v3.fal.media/files/cat.png"}], "seed": 42}
ERROR = "The model could not process the input"
LOGS = [
    {"timestamp": "2026-04-17T12:00:00Z", "level": "INFO", "message": "Loading model"},
    {"timestamp": "2026-04-17T12:00:01Z", "level": "ERROR", "message": ERROR},
]


class Fal(ScriptedProvider):
    """Requests by their prompt, under the first two parts of the model's id. There is no list."""

    name = "fal"
    environment: ClassVar = {"FAL_KEY": KEY, "FAL_BASE_URL": "{origin}"}
    authorization = f"Key {KEY}"
    error_member = "detail"
    messages = ("Authentication is required to access this application", "Not Found")

    def __init__(
        self, *, documented: bool = False, shows_start: bool = True, error_type: str = "request_failed"
    ) -> None:
        self._documented = documented
        self._shows_start = shows_start
        self._error_type = {"error_type": error_type} if error_type else {}
        self._apps: dict[str, str] = {}
        self._scripts: dict[str, list[str]] = {}
        request = "/{owner}/{app}/requests/{request_id}"
        super().__init__(
            [
                ("GET", f"{request}/status", self._get_status),
                ("GET", request, self._get_result),
                ("PUT", f"{request}/cancel", self._cancel),
                ("POST", "/{model*}", self._submit),
            ]
        )

    async def _submit(self, request: Request, model: str) -> Response:
        if model not in MODELS:
            return self.error(404, f"Application '{model}' not found")
        body = await request.json()
        if body.get("prompt") not in SCRIPTS:
            missing = {"loc": ["body", "prompt"], "msg": "field required", "type": "value_error.missing"}
            return JSONResponse({"detail": [missing]}, 422)
        request_id = f"80e732af-660e-45cd-bd63-{len(self._apps):012}"
        self._apps[request_id] = app = "/".join(model.split("/")[:2])
        self._scripts[request_id] = [*SCRIPTS[body["prompt"]]]
        status = {"status": "IN_QUEUE"} if self._shows_start else {}
        return JSONResponse({"request_id": request_id, **status, **self._urls(app, request_id)})

    def _urls(self, app: str, request_id: str) -> Json:
        url = f"{ORIGIN}/{app}/requests/{request_id}"
        return {"response_url": url, "status_url": f"{url}/status", "cancel_url": f"{url}/cancel"}

    def _is_known(self, owner: str, app: str, request_id: str) -> bool:
        return self._apps.get(request_id) == f"{owner}/{app}"

    async def _get_status(self, request: Request, owner: str, app: str, request_id: str) -> Response | None:
        if not self._is_known(owner, app, request_id):
            return None
        status = advance(self._scripts[request_id])
        body: Json = {"status": status}
        if self._documented:
            body |= {"request_id": request_id, **self._urls(f"{owner}/{app}", request_id)}
        if self._documented and status in {"FAILED", "CANCELED"}:  # for a canceled request this is not documented
            body |= {"status": "COMPLETED", "error": ERROR, **self._error_type}
        if status == "IN_QUEUE":
            body["queue_position"] = 0
        if request.query_params.get("logs") == "1":
            body["logs"] = {"IN_QUEUE": [], "FAILED": LOGS}.get(status, LOGS[:1])
        return JSONResponse(body, 202 if self._documented and status in ACTIVE else 200)

    async def _get_result(self, _: Request, owner: str, app: str, request_id: str) -> Response | None:
        if not self._is_known(owner, app, request_id):
            return None
        status = self._scripts[request_id][0]
        if status in ACTIVE:
            return Response(status_code=202)
        return JSONResponse(OUTPUT) if status == "COMPLETED" else self.error(422, ERROR)

    async def _cancel(self, _: Request, owner: str, app: str, request_id: str) -> Response:
        if not self._is_known(owner, app, request_id):
            return JSONResponse({"status": "NOT_FOUND"}, 404) if self._documented else self.not_found()
        if self._scripts[request_id][0] not in ACTIVE:
            if self._documented:
                return JSONResponse({"status": "ALREADY_COMPLETED"}, 400)
            return self.error(409, "Request already finished and cannot be canceled.")
        self._scripts[request_id] = ["CANCELED"]
        if self._documented:
            return JSONResponse({"status": "CANCELLATION_REQUESTED"}, 202)
        return JSONResponse({"status": "CANCELED", "request_id": request_id})
