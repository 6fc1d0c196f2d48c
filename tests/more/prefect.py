"""Prefect 3 with three deployments, below /api.

Responses are those of a Prefect 3.9.1 server, without members that do not matter. The status code of `set_state` is
whether the state has changed; what has happened is in the body.
"""

import json
from typing import Any, ClassVar
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.more.provider import Json, ScriptedProvider, advance, now

OK, FAIL, PAUSE = (str(UUID(int=0x4000_8000_0000_0000_0000 + number)) for number in (1, 2, 3))
SCRIPTS = {
    OK: ["SCHEDULED/Scheduled", "PENDING/Pending", "RUNNING/Running", "COMPLETED/Completed"],
    FAIL: ["SCHEDULED/Scheduled", "RUNNING/Running", "SCHEDULED/AwaitingRetry", "RUNNING/Running", "FAILED/Failed"],
    PAUSE: ["SCHEDULED/Scheduled", "RUNNING/Running", "PAUSED/Paused"],
}
"""Type and name of the states of a run, by its deployment."""
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
ERROR = "Flow run encountered an exception: ValueError: boom: the input is bad"
LOG = [(20, "Beginning flow run 'failing' for flow 'lab-fail'"), (30, "about to fail"), (40, ERROR)]
IS_CANCELLING = "Cannot transition flows that are cancelling to a state other than Cancelled."


class Prefect(ScriptedProvider):
    """The server, without authentication. `bodies` are the received JSON bodies."""

    name = "prefect"
    environment: ClassVar = {"PREFECT_API_URL": "{origin}/api"}
    authorization: str | None = None

    def __init__(self) -> None:
        self.runs: dict[str, Json] = {}
        self.is_served = True
        """Whether the process that serves the flows still runs: only then is CANCELLING followed by CANCELLED."""
        self.bodies: list[Any] = []
        super().__init__(
            [
                ("POST", "/api/deployments/{deployment_id}/create_flow_run", self._create),
                ("GET", "/api/flow_runs/{run_id}", self._get),
                ("POST", "/api/flow_runs/filter", self._list),
                ("POST", "/api/flow_runs/{run_id}/set_state", self._set_state),
                ("POST", "/api/flow_runs/{run_id}/resume", self._resume),
                *(("POST", f"/api/{name}/filter", self._list_parts) for name in ("logs", "task_runs")),
            ]
        )

    async def _respond(self, request: Request) -> Response:
        content = await request.body()
        self.bodies.append(json.loads(content) if content else {})
        if request.method == "POST" and self.bodies[-1].get("limit", 0) > 200:
            return self.error(422, "Invalid limit: must be less than or equal to 200.")
        return await super()._respond(request)

    def error(self, status: int, message: str) -> Response:
        return JSONResponse({"detail": message}, status)

    def unauthorized(self) -> Response:
        return JSONResponse({"exception_message": "Unauthorized"}, 401)

    async def _create(self, _: Request, deployment_id: str) -> Response:
        body = self.bodies[-1]
        parameters, key = body.get("parameters") or {}, body.get("idempotency_key")
        if not isinstance(parameters.get("x", 0), int):
            return self.error(409, "Error creating flow run: Validation failed for field 'x'. Failure reason: ...")
        for run in self.runs.values():  # the key is of the flow; here each deployment has a flow of its own
            if key and (run["idempotency_key"], run["deployment_id"]) == (key, deployment_id):
                return JSONResponse(_show(run))
        run_id = str(UUID(int=0x4000_8000_0000_0000_0100 + len(self.runs)))
        run = {"id": run_id, "deployment_id": deployment_id, "parameters": parameters, "idempotency_key": key}
        self.runs[run_id] = {**run, "script": [*SCRIPTS[deployment_id]]}
        return JSONResponse(_show(self.runs[run_id]), 201)

    async def _get(self, _: Request, run_id: str) -> Response:
        run = self.runs.get(run_id)
        if run is None:
            return self.error(404, "Flow run not found")
        shown = _show(run)
        advance(run["script"])
        return JSONResponse(shown)

    async def _list(self, _: Request) -> Response:
        body = self.bodies[-1]
        types = body.get("flow_runs", {}).get("state", {}).get("type", {}).get("any_")
        runs = [run for run in map(_show, self.runs.values()) if types is None or run["state_type"] in types]
        return JSONResponse(_page(runs, body))

    async def _set_state(self, _: Request, run_id: str) -> Response:
        if run_id not in self.runs:
            return JSONResponse({"exception_message": f"Flow run with id {run_id} not found"}, 404)
        run = self.runs[run_id]
        type_ = _state(run["script"][0])["type"]
        if self.bodies[-1]["state"]["type"] == "SCHEDULED":
            return self._retry(run, type_)
        if type_ in ENDED:
            return _result(200, "ABORT", run, f"Run is already in terminal state {type_}.")
        if type_ == "CANCELLING":
            return _result(200, "REJECT", run, IS_CANCELLING)
        if type_ == "SCHEDULED":
            run["script"][:] = ["CANCELLED/Cancelled"]
            return _result(201, "REJECT", run, "Scheduled flow run has no infrastructure to terminate.")
        run["script"][:] = ["CANCELLING/Cancelling", *(["CANCELLED/Cancelled"] if self.is_served else [])]
        return _result(201, "ACCEPT", run)

    def _retry(self, run: Json, type_: str) -> Response:
        if type_ == "COMPLETED":
            return _result(200, "REJECT", run, "Run is already COMPLETED.")
        run.pop("end_time", None)
        run["script"][:] = ["SCHEDULED/AwaitingRetry", "PENDING/Pending", "RUNNING/Running", "COMPLETED/Completed"]
        return _result(201, "ACCEPT", run)

    async def _resume(self, _: Request, run_id: str) -> Response:
        run = self.runs[run_id]
        if run["script"] != ["PAUSED/Paused"]:
            return _result(200, "ABORT", None, "Cannot resume a flow run that is not paused.")
        run["script"][:] = ["RUNNING/Running", "COMPLETED/Completed"]
        return _result(201, "ACCEPT", run)

    async def _list_parts(self, _: Request) -> Response:
        body = self.bodies[-1]
        if "logs" not in body:
            (run_id,) = body["flow_runs"]["id"]["any_"]
            return JSONResponse([{"id": run_id, "name": "boom-0", "state": _show(self.runs[run_id])["state"]}])
        entry = {"name": "prefect.flow_runs", "timestamp": now(), "flow_run_id": body["logs"]["flow_run_id"]["any_"][0]}
        lines = [{**entry, "level": level, "message": text} for level, text in LOG]
        return JSONResponse([line for line in lines if line["level"] >= body["logs"].get("level", {}).get("ge_", 0)])


def _page(items: list[Json], body: Json) -> list[Json]:
    return items[body.get("offset", 0) :][: body.get("limit", 200)]


def _state(written: str) -> Json:
    type_, _, name = written.partition("/")
    message = {"FAILED": ERROR, "CANCELLED": "Flow run was cancelled successfully."}.get(type_)
    return {"type": type_, "name": name, "message": message, "timestamp": now()}


def _show(run: Json) -> Json:
    state = _state(run["script"][0])
    shown = {name: value for name, value in run.items() if name not in ("script", "end_time")}
    end = run.setdefault("end_time", now()) if state["type"] in ENDED else None
    return {**shown, "state_type": state["type"], "run_count": 1, "start_time": None, "end_time": end, "state": state}


def _result(status: int, outcome: str, run: Json | None, reason: str = "") -> Response:
    details = {"type": f"{outcome.lower()}_details", **({"reason": reason} if reason else {})}
    state = _state(run["script"][0]) if run else None
    return JSONResponse({"state": state, "status": outcome, "details": details}, status)
