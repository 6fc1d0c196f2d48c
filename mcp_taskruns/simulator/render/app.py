"""Render Workflows: tasks, task runs and their event stream.

Written from the Render API reference, the official SDK (render 1.5.0) and the official local server
(render-oss/cli pkg/workflows/apiserver).
"""

import base64
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import count

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from mcp_taskruns.simulator.http import ALL_METHODS, Json, bearer_key, has_valid_key, list_parameter
from mcp_taskruns.simulator.lifecycle import Change, Clock
from mcp_taskruns.simulator.render.events import event_stream
from mcp_taskruns.simulator.render.rate_limits import RateLimits
from mcp_taskruns.simulator.render.runs import (
    LATEST,
    OWNER_ID,
    TASKS,
    TASKS_BY_NAME,
    VERSION_IDS,
    WORKFLOW,
    WORKFLOW_ID,
    Run,
    Task,
    find_task,
)

Endpoint = Callable[[Request], Awaitable[Response]]

# "Repeating a request with the same key within 24 hours returns the task run that the first request started."
IDEMPOTENCY_KEY_SECONDS = 24 * 3600.0


def error_response(status: int, message: str, **more: str) -> Response:
    return JSONResponse({"message": message, **more}, status)


def page(request: Request, name: str, items: Sequence[Json]) -> Response:
    """Return a page as a top-level array of `{name: item, "cursor": ...}`.

    The cursor of the last item requests the next page. The response does not say whether there is one.
    """
    limit = request.query_params.get("limit", "20")
    if not limit.isdecimal() or not 1 <= int(limit) <= 100:
        return error_response(400, "limit must be between 1 and 100", code="invalid_limit")
    cursors = [base64.urlsafe_b64encode(item["id"].encode()).decode() for item in items]
    after = request.query_params.get("cursor")
    if after and after not in cursors:
        return error_response(400, "invalid cursor", code="invalid_cursor")
    start = cursors.index(after) + 1 if after else 0
    entries = [{name: item, "cursor": cursor} for item, cursor in zip(items, cursors, strict=True)]
    return JSONResponse(entries[start : start + int(limit)])


class Render:
    """The seven Workflow Tasks operations under `/v1`, for one workspace with one workflow, `demo-workflow`.

    Tasks, in simulated seconds: `square` ([n] -> [n * n], 3), `pipeline` (two `square` subtasks, 8), `flaky` (fails
    twice, completes at 6), `fail` (2), `slow` (600). These runs exist from the start:

    - trn-d5im0000000000000001: square, completed
    - trn-d5im0000000000000002: fail, failed
    - trn-d5im0000000000000003: slow, canceled
    - trn-d5im0000000000000004: slow, running for another nine minutes

    Valid keys begin with `rnd_` and do not contain `wrong`. The error response for an invalid key is plain text, or the
    documented JSON if the key also contains `json`. Rate limits (documented: 400 reads and 30 writes a minute) are off
    by default; when on, every response reports them. `closes_streams=False` is the stream of the local server, and
    `reports_attempts=False` a stream without events of failed attempts (`event_stream`). Without `/v1` every path is
    unknown, in plain text.

    Not simulated: run logs, metrics, creating workflow versions, flows, executing anything, paused runs, the status
    `succeeded` (announced as a replacement of `completed`), and limits of size, plan or permission (403).
    """

    name = "render"

    def __init__(
        self,
        clock: Clock,
        *,
        reads_per_minute: int | None = None,
        writes_per_minute: int | None = None,
        resets_at_epoch: bool = False,
        closes_streams: bool = True,
        reports_attempts: bool = True,
    ) -> None:
        self._clock = clock
        self._change = Change()
        self._numbers = count(1)
        self.runs: dict[str, Run] = {}
        # By workflow and idempotency key: when the key was used, and the run that it started.
        self._idempotency_keys: dict[tuple[str, str], tuple[float, str]] = {}
        self._closes_streams = closes_streams
        self._reports_attempts = reports_attempts
        self._rate_limits = RateLimits(
            clock,
            reads_per_minute=reads_per_minute,
            writes_per_minute=writes_per_minute,
            resets_at_epoch=resets_at_epoch,
        )
        self._start(TASKS_BY_NAME["square"], [12], started_at=-3600.0)
        self._start(TASKS_BY_NAME["fail"], {"customer": "cus_404"}, started_at=-1800.0)
        canceled = self._start(TASKS_BY_NAME["slow"], [], started_at=-900.0)
        self._cancel_with_subtasks(canceled, now=-840.0)
        self._start(TASKS_BY_NAME["slow"], [], started_at=-60.0)

    def environment(self, origin: str) -> dict[str, str]:
        """Return the environment variables for a simulator served from `origin`."""
        return {"RENDER_BASE_URL": f"{origin}/render/v1", "RENDER_API_KEY": "rnd_simulated"}

    def routes(self) -> list[BaseRoute]:
        """Return the routes below the mount `/render`."""
        table: list[tuple[str, str, Endpoint]] = [
            ("GET", "/v1/tasks", self._list_tasks),
            # The id may be a slug. Its slash is already decoded here.
            ("GET", "/v1/tasks/{task:path}", self._get_task),
            ("GET", "/v1/task-runs", self._list_runs),
            ("POST", "/v1/task-runs", self._run_task),
            ("GET", "/v1/task-runs/events", self._stream_events),
            ("GET", "/v1/task-runs/{run}", self._get_run),
            ("DELETE", "/v1/task-runs/{run}", self._cancel_run),
        ]
        routes: list[BaseRoute] = [
            Route(path, self._authenticated(endpoint), methods=[method]) for method, path, endpoint in table
        ]
        paths = {path for _, path, _ in table}
        routes += [Route(path, self._method_not_allowed, methods=ALL_METHODS) for path in sorted(paths)]
        return [*routes, Route("/{rest:path}", self._unknown_path, methods=ALL_METHODS)]

    def _authenticated(self, endpoint: Endpoint) -> Endpoint:
        async def respond(request: Request) -> Response:
            if not has_valid_key(request, "rnd_"):
                if "json" in bearer_key(request):
                    return error_response(401, "Unauthorized", id="err-simulated")
                # Plain text: according to its changelog, SDK 0.6.1 stopped parsing every 401 as JSON.
                return PlainTextResponse("Unauthorized", 401)
            is_limited, headers = self._rate_limits.count(request)
            response = error_response(429, "rate limit exceeded") if is_limited else await endpoint(request)
            response.headers.update(headers)
            return response

        return respond

    async def _method_not_allowed(self, _: Request) -> Response:
        return error_response(405, "method not allowed")

    async def _unknown_path(self, _: Request) -> Response:
        return PlainTextResponse("404 page not found\n", 404)

    async def _list_tasks(self, request: Request) -> Response:
        tasks = [task for task in TASKS if self._matches_filters(request, task)]
        return page(request, "task", [task.body(self._clock) for task in tasks])

    async def _get_task(self, request: Request) -> Response:
        task = find_task(request.path_params["task"])
        return JSONResponse(task.body(self._clock)) if task else error_response(404, "task not found")

    def _matches_filters(self, request: Request, task: Task) -> bool:
        """Check that every filter in the query has a value that matches this task."""
        slugs = {f"{task.slug}:{task.version}"} | ({task.slug} if task.version == LATEST else set())
        properties = {
            "ownerId": {OWNER_ID},
            "workflowId": {WORKFLOW_ID},
            "workflowVersionId": {VERSION_IDS[task.version]},
            "taskSlug": slugs,
        }
        filters = {name: set(list_parameter(request, name)) for name in properties}
        return all(not wanted or wanted & properties[name] for name, wanted in filters.items())

    async def _list_runs(self, request: Request) -> Response:
        now = self._clock.now()
        roots = list_parameter(request, "rootTaskRunId")
        runs = [
            run
            for run in sorted(self.runs.values(), key=lambda run: (run.started_at, run.id), reverse=True)
            if run.started_at <= now and (not roots or run.root in roots) and self._matches_filters(request, run.task)
        ]
        return page(request, "taskRun", [run.summary(self._clock, now) for run in runs])

    async def _run_task(self, request: Request) -> Response:
        try:
            body = json.loads(await request.body())
        except ValueError as error:
            return error_response(400, f"invalid JSON: {error}")
        if not isinstance(body, dict) or not isinstance(body.get("task"), str) or not body["task"].strip():
            return error_response(400, "task cannot be blank")
        if not isinstance(body.get("input"), list | dict):
            return error_response(400, "input must be an array or an object")
        task = find_task(body["task"])
        if task is None:
            return error_response(404, f"task not found: {body['task']}")
        now = self._clock.now()
        key = (WORKFLOW, str(body.get("idempotencyKey") or ""))
        used_at, run_id = self._idempotency_keys.get(key, (-IDEMPOTENCY_KEY_SECONDS, ""))
        if run_id and now - used_at < IDEMPOTENCY_KEY_SECONDS:
            run = self.runs[run_id]
        else:
            run = self._start(task, body["input"], started_at=now)
            if key[1]:
                self._idempotency_keys[key] = (now, run.id)
        return JSONResponse(run.summary(self._clock, now), 202)

    async def _get_run(self, request: Request) -> Response:
        run = self._find(request.path_params["run"])
        if run is None:
            return error_response(404, "task run not found")
        return JSONResponse(run.details(self._clock, self._clock.now()))

    async def _cancel_run(self, request: Request) -> Response:
        run_id = request.path_params["run"]
        run = self._find(run_id)
        now = self._clock.now()
        if run is None:
            return error_response(404, f"task run not found: {run_id}")
        if run.parent:
            return error_response(500, f"task run {run_id} is a subtask; cancel its root {run.root} instead")
        if run.step(now).is_terminal:
            return error_response(500, f"task run {run_id} is not active")
        self._cancel_with_subtasks(run, now)
        self._change.notify()
        return Response(status_code=204)

    def _find(self, run_id: str) -> Run | None:
        run = self.runs.get(run_id)
        return run if run and run.started_at <= self._clock.now() else None

    def _start(self, task: Task, arguments: Json, *, started_at: float, parent: Run | None = None) -> Run:
        """Create a run and those of its subtasks, which start and become visible later."""
        run_id = f"trn-d5im{next(self._numbers):016d}"
        outcome = task.work(arguments)
        run = Run(
            id=run_id,
            task=task,
            input=arguments,
            started_at=started_at,
            timeline=task.timeline(outcome),
            outcome=outcome,
            root=parent.root if parent else run_id,
            parent=parent.id if parent else "",
        )
        self.runs[run_id] = run
        for subtask in task.spawn(arguments):
            self._start(TASKS_BY_NAME[subtask.task], subtask.input, started_at=started_at + subtask.at, parent=run)
        return run

    def _cancel_with_subtasks(self, root: Run, now: float) -> None:
        """Cancel a root run and its descendants. Subtasks that have not started yet are removed."""
        for run in [run for run in self.runs.values() if run.root == root.id]:
            if run.started_at > now:
                del self.runs[run.id]
            else:
                self.runs[run.id] = replace(run, timeline=run.timeline.terminate(now - run.started_at, "canceled"))

    async def _stream_events(self, request: Request) -> Response:
        run_ids = list(dict.fromkeys(list_parameter(request, "taskRunIds")))
        if not run_ids:
            return error_response(400, "taskRunIds is required")
        unknown = [run_id for run_id in run_ids if self._find(run_id) is None]
        if unknown:
            return error_response(404, f"task run not found: {unknown[0]}")
        headers = {"Cache-Control": "no-cache, no-transform"}
        events = event_stream(
            self.runs,
            run_ids,
            self._clock,
            self._change,
            closes=self._closes_streams,
            reports_attempts=self._reports_attempts,
        )
        return StreamingResponse(events, headers=headers, media_type="text/event-stream")
