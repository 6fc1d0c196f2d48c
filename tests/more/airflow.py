"""Airflow 3 with three DAGs. Responses are those of an Airflow 3.3.2 server, without members that do not matter."""

import json
from typing import Any, ClassVar
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tests.more.provider import Json, ScriptedProvider, advance, now

TOKEN, EXPIRED, PASSWORD = "jwt-simulated", "jwt-expired", "simulated-password"
RUNS = "/api/v2/dags/{dag_id}/dagRuns"
SCRIPTS = {
    "lab_ok": ["queued", "running", "success"],
    "lab_fail": ["queued", "running", "running", "failed"],
    "lab_slow": ["queued", "running"],
}
"""The states of a run by its DAG. `lab_fail` has one retry, during which the run stays running."""
REFUSALS = {None: (401, "Not authenticated"), f"Bearer {EXPIRED}": (401, "Token Expired")}
DUPLICATE = {"reason": "Unique constraint violation", "statement": "hidden", "orig_error": "hidden"}
ERROR = {"exc_type": "ValueError", "exc_value": "boom: the input is bad", "exc_notes": [], "frames": []}
FAILURE: Json = {"event": "Task failed with exception", "level": "error", "error_detail": [ERROR]}
WARNING = {"timestamp": "2026-11-30T17:11:48.113424Z", "event": "about to fail", "level": "warning"}
LOG = [{"timestamp": None, "event": "::group::Log"}, WARNING, {"timestamp": "2026-11-30T17:11:48.113967Z", **FAILURE}]


class Airflow(ScriptedProvider):
    """The server. The DAGs in `paused` accept runs and start none of them. `bodies` are the received JSON bodies."""

    name = "airflow"
    environment: ClassVar = {"AIRFLOW__API__BASE_URL": "{origin}", "AIRFLOW_CLI_TOKEN": TOKEN}
    authorization = f"Bearer {TOKEN}"
    public = ("/auth/token",)

    def __init__(self) -> None:
        self.runs: dict[tuple[str, str], Json] = {}
        self.paused: set[str] = set()
        self.bodies: list[Any] = []
        self._refusal = REFUSALS[None]
        super().__init__(
            [
                ("POST", "/auth/token", self._create_token),
                ("POST", RUNS, self._trigger),
                ("GET", RUNS, self._list),
                *((method, f"{RUNS}/{{run_id}}", self._run) for method in ("GET", "PATCH")),
                *((method, f"{RUNS}/{{run_id}}/{{verb}}", self._run) for method in ("GET", "POST")),
                ("GET", f"{RUNS}/{{run_id}}/taskInstances/{{task_id}}/{{what*}}", self._get_of_task),
            ]
        )

    async def _respond(self, request: Request) -> Response:
        self._refusal = REFUSALS.get(request.headers.get("authorization"), (403, "Invalid JWT token"))
        if content := await request.body():
            self.bodies.append(json.loads(content))
        return await super()._respond(request)

    def error(self, status: int, message: Any) -> Response:
        return JSONResponse({"detail": message}, status)

    def unauthorized(self) -> Response:
        return self.error(*self._refusal)

    async def _create_token(self, _: Request) -> Response:
        if self.bodies[-1] != {"username": "admin", "password": PASSWORD}:
            return self.error(401, "Invalid credentials")
        return JSONResponse({"access_token": str(self.authorization).removeprefix("Bearer ")}, 201)

    async def _trigger(self, _: Request, dag_id: str) -> Response:
        body = self.bodies[-1]
        if dag_id not in SCRIPTS:
            return self.error(404, f"Dag with dag_id: '{dag_id}' not found")
        if "logical_date" not in body:
            return self.error(422, [{"type": "missing", "loc": ["body", "logical_date"], "msg": "Field required"}])
        run_id = body.get("dag_run_id") or f"manual__2026-11-30T17:11:43.32121{len(self.runs)}+00:00"
        if (dag_id, run_id) in self.runs:
            return self.error(409, DUPLICATE)
        run = {"dag_run_id": run_id, "dag_id": dag_id, "logical_date": None, "conf": body.get("conf") or {}}
        self.runs[dag_id, run_id] = {**run, "script": [*SCRIPTS[dag_id]]}
        return JSONResponse(_show(self.runs[dag_id, run_id]))

    async def _list(self, request: Request, dag_id: str) -> Response:
        states = request.query_params.getlist("state") or ["queued", "running", "success", "failed"]
        runs = [
            _show(run) for (dag, _), run in self.runs.items() if dag_id in ("~", dag) and run["script"][0] in states
        ]
        return JSONResponse({"dag_runs": _page(runs, request), "total_entries": len(runs), "next_cursor": None})

    async def _run(self, request: Request, dag_id: str, run_id: str, verb: str = "") -> Response:
        run = self.runs.get((dag_id, unquote(run_id)))
        if run is None:
            return self.error(404, f"The DagRun with dag_id: `{dag_id}` and run_id: `{unquote(run_id)}` was not found")
        shown, script = _show(run), run["script"]
        match request.method, verb:
            case "GET", "taskInstances":
                return JSONResponse({"task_instances": [_task(run)], "total_entries": 1})
            case "GET", "wait":
                return _wait(script, request.query_params.getlist("result"))
            case "GET", _:
                if dag_id not in self.paused:
                    advance(script)
                return JSONResponse(shown)
            case "PATCH", _:
                script[:] = [self.bodies[-1]["state"]]  # a run that has ended is overwritten
            case "POST", _ if self.bodies[-1].get("dry_run", True):
                return JSONResponse({"task_instances": [_task(run)]})
            case "POST", _ if script != ["success"] or not self.bodies[-1].get("only_failed"):
                script[:] = SCRIPTS[dag_id]
                run.pop("end_date", None)
        return JSONResponse(_show(run))

    async def _get_of_task(self, request: Request, dag_id: str, run_id: str, task_id: str, what: str) -> Response:
        run = self.runs[dag_id, unquote(run_id)]
        task, number = _task(run), what.rpartition("/")[2]
        if what == "tries":
            tries = [{**task, "try_number": number + 1} for number in range(task["try_number"])]
            return JSONResponse({"task_instances": tries, "total_entries": len(tries)})
        if number == "return_value" and run["script"] != ["success"]:
            return self.error(404, "XCom entry with key: `return_value` not found")
        if number == "return_value":
            return JSONResponse({"key": number, "value": {"total": 24}, "task_id": task_id})
        if task_id != task["task_id"] or not number.isdecimal() or int(number) > task["try_number"]:
            return self.error(404, "TaskInstance not found")
        if "ndjson" in request.headers["accept"]:
            return Response("".join(f"{json.dumps(line)}\n" for line in LOG), media_type="application/x-ndjson")
        return JSONResponse({"content": LOG, "continuation_token": None})


def _wait(script: list[str], tasks: list[str]) -> Response:
    """Send a line for each state, without a Content-Type, as the server does; the last one may have results."""
    lines: list[Json] = [{"state": state} for state in script]
    lines[-1] |= {"results": {task: {"total": 24} for task in tasks}} if tasks else {}
    del script[:-1]
    return StreamingResponse(f"{json.dumps(line)}\n" for line in lines)


def _page(items: list[Json], request: Request) -> list[Json]:
    offset, limit = (int(request.query_params.get(name, default)) for name, default in (("offset", 0), ("limit", 50)))
    return items[offset : offset + min(limit, 100)]


def _show(run: Json) -> Json:
    state = run["script"][0]
    reached = {"queued": (), "running": ("start_date",)}.get(state, ("start_date", "end_date"))
    times = {name: run.setdefault(name, now()) if name in reached else None for name in ("start_date", "end_date")}
    return {**{name: value for name, value in run.items() if name != "script"}, "state": state, **times}


def _task(run: Json) -> Json:
    state = run["script"][0]
    task = {"task_id": "boom" if run["dag_id"] == "lab_fail" else "first", "map_index": -1, "max_tries": 1}
    return {**task, "state": None if state == "queued" else state, "try_number": 2 if state == "failed" else 1}
