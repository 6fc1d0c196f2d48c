"""Trigger.dev's management API, with one environment.

Literals are from its OpenAPI description (paths and components/schemas).
"""

import json
from itertools import chain
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.more.provider import Json, ScriptedProvider, advance, now

KEY = "tr_dev_1234"
SCRIPTS = {
    "my-task": ["QUEUED", "EXECUTING", "COMPLETED"],
    "failing-task": ["QUEUED", "EXECUTING", "REATTEMPTING", "FAILED"],
    "slow-task": ["QUEUED", "EXECUTING"],
    "delayed-task": ["DELAYED"],
}
"""By the id of a task, the statuses of its runs."""
ENDED = {"COMPLETED", "FAILED", "CANCELED"}
STATUSES = {*chain(*SCRIPTS.values()), *ENDED, "PENDING_VERSION", "FROZEN", "CRASHED", "INTERRUPTED", "SYSTEM_FAILURE"}
ERROR = {"message": "Something went wrong", "name": "Error", "stackTrace": "Error: Something went wrong"}
OUTPUT = {"answer": 42}
NOT_FINISHED = "Run either doesn't exist or is not finished"
CHILDREN = [
    {"id": "run_2001", "taskIdentifier": "other-task", "status": "COMPLETED"},
    {
        "id": "run_2002",
        "taskIdentifier": "child-task",
        "status": "FAILED",
        "startedAt": "2024-06-25T15:45:26.000Z",
        "finishedAt": "2024-06-25T15:45:28.500Z",
    },
]
TIMES = dict.fromkeys(("createdAt", "updatedAt"), now())


class TriggerDev(ScriptedProvider):
    """Runs by task: one that completes, one that fails after two attempts, one that goes on, one that is delayed.

    Runs in `large_outputs` leave their output out. Without `has_events`, no run has events.
    """

    name = "trigger-dev"
    environment: ClassVar = {"TRIGGER_SECRET_KEY": KEY, "TRIGGER_API_URL": "{origin}"}
    authorization = f"Bearer {KEY}"
    messages = ("Invalid or Missing API key", "Run not found")

    def __init__(self) -> None:
        self.runs: list[Json] = []
        self.large_outputs: set[str] = set()
        self.has_events = True
        self._scripts: dict[str, list[str]] = {}
        run = "/api/v1/runs/{run_id}"
        super().__init__(
            [
                ("POST", "/api/v1/tasks/{task}/trigger", self._trigger),
                ("GET", "/api/v1/runs", self._list),
                ("GET", "/api/v3/runs/{run_id}", self._get),
                ("GET", f"{run}/result", self._get_result),
                ("GET", f"{run}/events", self._list_events),
                ("GET", f"{run}/trace", self._get_trace),
                ("POST", "/api/v2/runs/{run_id}/cancel", self._cancel),
                ("POST", f"{run}/replay", self._replay),
                ("POST", f"{run}/reschedule", self._reschedule),
            ]
        )

    def add(self, task: str, payload: object = None, idempotency_key: str | None = None) -> str:
        """Add a run of a task and return its id."""
        run_id = f"run_{1234 + len(self.runs)}"
        run: Json = {"id": run_id, "taskIdentifier": task, "version": "20240523.1", "isTest": False, **TIMES}
        self.runs.insert(0, {**run, "payload": payload, "idempotencyKey": idempotency_key})
        self._scripts[run_id] = [*SCRIPTS[task]]
        return run_id

    def end(self, run_id: str, status: str) -> None:
        """End a run."""
        self._scripts[run_id] = [status]

    def _find(self, run_id: str) -> Json | None:
        """Return a run with its status, and its output or its attempts' errors."""
        run = next((run for run in self.runs if run["id"] == run_id), None)
        if run is None:
            return None
        status = self._scripts[run_id][0]
        attempt = {"id": "attempt_1234", "status": "FAILED", "error": ERROR, **TIMES}
        has_failed = status in {"REATTEMPTING", "FAILED"}
        more: Json = {"status": status, "attempts": [attempt] * (2 if status == "FAILED" else int(has_failed))}
        if status in ENDED:
            more["finishedAt"] = TIMES["updatedAt"]
        if status == "FAILED":
            more["relatedRuns"] = {"children": CHILDREN}
        if status == "COMPLETED" and run_id not in self.large_outputs:
            more["output"] = OUTPUT
        return {**run, **more}

    async def _trigger(self, request: Request, task: str) -> Response:
        if task not in SCRIPTS:
            return self.error(404, "Task not found")
        body = await request.json()
        key = body.get("options", {}).get("idempotencyKey")
        known = next((run["id"] for run in self.runs if key and run["idempotencyKey"] == key), None)
        return JSONResponse({"id": known or self.add(task, body.get("payload"), key)})

    async def _list(self, request: Request) -> Response:
        query = request.query_params
        statuses = [status for status in query.get("filter[status]", "").split(",") if status]
        tasks = [task for task in query.get("filter[taskIdentifier]", "").split(",") if task]
        if unknown := sorted({*statuses} - STATUSES):
            details = [{"code": "custom", "message": f"Invalid status values: {', '.join(unknown)}"}]
            return JSONResponse({"error": "Query Error", "details": details}, 400)
        runs = [run for item in self.runs if (run := self._find(item["id"]))]
        runs = [run for run in runs if not statuses or run["status"] in statuses]
        runs = [run for run in runs if not tasks or run["taskIdentifier"] in tasks]
        ids = [run["id"] for run in runs]
        start = ids.index(query["page[after]"]) + 1 if "page[after]" in query else 0
        end = start + int(query.get("page[size]", 25))
        hidden = {"payload", "output", "attempts"}
        items = [{name: value for name, value in run.items() if name not in hidden} for run in runs[start:end]]
        pagination = {"next": items[-1]["id"]} if end < len(runs) else {}
        return JSONResponse({"data": items, "pagination": pagination})

    async def _get(self, _: Request, run_id: str) -> Response | None:
        run = self._find(run_id)
        if run is None:
            return None
        advance(self._scripts[run_id])
        return JSONResponse(run)

    async def _get_result(self, _: Request, run_id: str) -> Response:
        run = self._find(run_id)
        if run is None or run["status"] not in ENDED:
            return self.error(404, NOT_FINISHED)
        ok = {"ok": True, "output": json.dumps(OUTPUT), "outputType": "application/json"}
        outcome = ok if run["status"] == "COMPLETED" else {"ok": False, "error": ERROR}
        return JSONResponse({"id": run_id, "taskIdentifier": run["taskIdentifier"], **outcome})

    async def _list_events(self, _: Request, run_id: str) -> Response:
        shared = {"runId": run_id, "startTime": "1719330326000000000", "duration": 491000000, "style": {"icon": "task"}}
        exception = {"name": "exception", "properties": {"exception": {"message": ERROR["message"]}}}
        events: list[Json] = [
            {**shared, "level": "LOG", "message": "starting", "isError": False, "events": []},
            {**shared, "level": "ERROR", "message": "attempt 2", "isError": True, "events": [exception]},
        ]
        return JSONResponse({"events": events}) if self._find(run_id) and self.has_events else self.not_found()

    async def _get_trace(self, _: Request, run_id: str) -> Response:
        data = {"message": "my-task", "startTime": TIMES["createdAt"], "duration": 491000000, "isError": False}
        child = {"id": "b2", "parentId": "a1", "runId": run_id, "data": {**data, "message": "step 1"}, "children": []}
        root = {"id": "a1", "parentId": None, "runId": run_id, "data": data, "children": [child]}
        return JSONResponse({"trace": {"traceId": "t1", "rootSpan": root}}) if self._find(run_id) else self.not_found()

    async def _cancel(self, _: Request, run_id: str) -> Response | None:
        run = self._find(run_id)
        if run is None:
            return None
        if run["status"] not in ENDED:
            self._scripts[run_id] = ["CANCELED"]
        return JSONResponse({"id": run_id})

    async def _replay(self, _: Request, run_id: str) -> Response:
        run = self._find(run_id)
        return JSONResponse({"id": self.add(run["taskIdentifier"], run["payload"])}) if run else self.not_found()

    async def _reschedule(self, _: Request, run_id: str) -> Response | None:
        run = self._find(run_id)
        if run is None:
            return None
        return JSONResponse(run) if run["status"] == "DELAYED" else self.error(400, "Run is not delayed")
