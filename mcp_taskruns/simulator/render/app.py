"""Render Workflows offline: tasks, task runs and their event stream.

Written from the Render API reference, the official SDK (render 1.5.0) and the official local server
(render-oss/cli pkg/workflows/apiserver).
"""

import base64
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import count

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from mcp_taskruns.simulator.http import ALL_METHODS, Json, bearer_key, has_valid_key, list_parameter
from mcp_taskruns.simulator.lifecycle import Change, Clock
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
KEY_LIFETIME = 24 * 3600.0
HEARTBEAT = 25.0
# "The server automatically closes the stream [when] the stream has not sent any events for 30 minutes."
IDLE_LIMIT = 30 * 60.0


def refusal(status: int, message: str, **more: str) -> Response:
    return JSONResponse({"message": message, **more}, status)


def page(request: Request, name: str, items: Sequence[Json]) -> Response:
    """A top-level array of `{name: item, "cursor": ...}`.

    The cursor of the last item asks for what follows it; nothing says whether there is more.
    """
    limit = request.query_params.get("limit", "20")
    if not limit.isdecimal() or not 1 <= int(limit) <= 100:
        return refusal(400, "limit must be between 1 and 100", code="invalid_limit")
    cursors = [base64.urlsafe_b64encode(item["id"].encode()).decode() for item in items]
    after = request.query_params.get("cursor")
    if after and after not in cursors:
        return refusal(400, "invalid cursor", code="invalid_cursor")
    start = cursors.index(after) + 1 if after else 0
    shown = zip(items, cursors, strict=True)
    return JSONResponse([{name: item, "cursor": cursor} for item, cursor in shown][start : start + int(limit)])


class Render:
    """The seven Workflow Tasks operations under `/v1`, for one workspace with one workflow, `demo-workflow`.

    Tasks, in simulated seconds: `square` ([n] -> [n * n], 3), `pipeline` (two `square` subtasks, 8), `flaky` (fails
    twice, completes at 6), `fail` (2), `slow` (600). Runs that exist at the start:

    - trn-d5im0000000000000001: square, completed
    - trn-d5im0000000000000002: fail, failed
    - trn-d5im0000000000000003: slow, canceled
    - trn-d5im0000000000000004: slow, running, and still for nine minutes

    Any key that begins with `rnd_` is taken unless it contains `wrong`; the refusal is plain text, for one that also
    contains `json` the documented JSON. Rate limits (documented: 400 reads, 30 writes a minute) are off unless asked
    for; then every answer tells where they stand. There are no run logs, metrics, workflow versions to create or flows;
    results do not come from running anything; a paused run and the status `succeeded`, announced for completed, never
    occur, and neither do limits of size, plan or permission (403).
    """

    name = "render"

    def __init__(
        self,
        clock: Clock,
        *,
        reads_per_minute: int | None = None,
        writes_per_minute: int | None = None,
        resets_at_epoch: bool = False,
    ) -> None:
        """Limits are counted by the minute of the clock.

        Ratelimit-Reset is documented as seconds of the epoch (`resets_at_epoch`), but the documentation's own example
        shows seconds from now.
        """
        self._clock = clock
        self._change = Change()
        self._numbers = count(1)
        self._runs: dict[str, Run] = {}
        self._keys: dict[tuple[str, str], tuple[float, str]] = {}
        self._limits = {"read": reads_per_minute, "write": writes_per_minute}
        self._resets_at_epoch = resets_at_epoch
        self._spent: dict[str, tuple[float, int]] = {}
        self._start(TASKS_BY_NAME["square"], [12], began=-3600.0)
        self._start(TASKS_BY_NAME["fail"], {"customer": "cus_404"}, began=-1800.0)
        canceled = self._start(TASKS_BY_NAME["slow"], [], began=-900.0)
        self._cancel_family(canceled, now=-840.0)
        self._start(TASKS_BY_NAME["slow"], [], began=-60.0)

    def environment(self, origin: str) -> dict[str, str]:
        return {"RENDER_BASE_URL": f"{origin}/render/v1", "RENDER_API_KEY": "rnd_simulated"}

    def routes(self) -> list[BaseRoute]:
        table: list[tuple[str, str, Endpoint]] = [
            ("GET", "/v1/tasks", self._list_tasks),
            # The id may be a slug, whose slash arrives here already decoded.
            ("GET", "/v1/tasks/{task:path}", self._get_task),
            ("GET", "/v1/task-runs", self._list_runs),
            ("POST", "/v1/task-runs", self._run_task),
            ("GET", "/v1/task-runs/events", self._stream_events),
            ("GET", "/v1/task-runs/{run}", self._get_run),
            ("DELETE", "/v1/task-runs/{run}", self._cancel_run),
        ]
        routes: list[BaseRoute] = [
            Route(path, self._guarded(endpoint), methods=[method]) for method, path, endpoint in table
        ]
        paths = {path for _, path, _ in table}
        routes += [Route(path, self._wrong_method, methods=ALL_METHODS) for path in sorted(paths)]
        return [*routes, Route("/{rest:path}", self._unknown_path, methods=ALL_METHODS)]

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        async def answer(request: Request) -> Response:
            if not has_valid_key(request, "rnd_"):
                if "json" in bearer_key(request):
                    return refusal(401, "Unauthorized", id="err-simulated")
                # Plain text: SDK changelog 0.6.1 repairs a client that took every 401 for JSON.
                return PlainTextResponse("Unauthorized", 401)
            is_over, limits = self._spend(request)
            response = refusal(429, "rate limit exceeded") if is_over else await endpoint(request)
            response.headers.update(limits)
            return response

        return answer

    def _spend(self, request: Request) -> tuple[bool, dict[str, str]]:
        """Count a request: whether it is over the limit, and the headers that tell where the limit stands."""
        kind = "read" if request.method in ("GET", "HEAD") else "write"
        limit = self._limits[kind]
        if limit is None:
            return False, {}
        now = self._clock.now()
        minute = now // 60
        counted, spent = self._spent.get(kind, (minute, 0))
        spent = spent + 1 if counted == minute else 1
        self._spent[kind] = (minute, spent)
        end = (minute + 1) * 60
        reset = self._clock.datetime_at(end).timestamp() if self._resets_at_epoch else end - now
        return spent > limit, {
            "Ratelimit-Limit": str(limit),
            "Ratelimit-Remaining": str(max(limit - spent, 0)),
            "Ratelimit-Reset": str(math.ceil(reset)),
        }

    async def _wrong_method(self, _: Request) -> Response:
        return refusal(405, "method not allowed")

    async def _unknown_path(self, _: Request) -> Response:
        return refusal(404, "not found")

    async def _list_tasks(self, request: Request) -> Response:
        tasks = [task for task in TASKS if self._wanted(request, task)]
        return page(request, "task", [task.shown(self._clock) for task in tasks])

    async def _get_task(self, request: Request) -> Response:
        task = find_task(request.path_params["task"])
        return JSONResponse(task.shown(self._clock)) if task else refusal(404, "task not found")

    def _wanted(self, request: Request, task: Task) -> bool:
        """Whether every filter that is given names this task in one of its values."""
        slugs = {f"{task.slug}:{task.version}"} | ({task.slug} if task.version == LATEST else set())
        facts = {
            "ownerId": {OWNER_ID},
            "workflowId": {WORKFLOW_ID},
            "workflowVersionId": {VERSION_IDS[task.version]},
            "taskSlug": slugs,
        }
        return all(not (given := list_parameter(request, name)) or fact & set(given) for name, fact in facts.items())

    async def _list_runs(self, request: Request) -> Response:
        now = self._clock.now()
        roots = list_parameter(request, "rootTaskRunId")
        runs = [
            run
            for run in sorted(self._runs.values(), key=lambda run: (run.began, run.id), reverse=True)
            if run.began <= now and (not roots or run.root in roots) and self._wanted(request, run.task)
        ]
        return page(request, "taskRun", [run.summary(self._clock, now) for run in runs])

    async def _run_task(self, request: Request) -> Response:
        try:
            body = json.loads(await request.body())
        except ValueError as error:
            return refusal(400, f"invalid JSON: {error}")
        if not isinstance(body, dict) or not isinstance(body.get("task"), str) or not body["task"].strip():
            return refusal(400, "task cannot be blank")
        if not isinstance(body.get("input"), list | dict):
            return refusal(400, "input must be an array or an object")
        task = find_task(body["task"])
        if task is None:
            return refusal(404, f"task not found: {body['task']}")
        now = self._clock.now()
        key = (WORKFLOW, str(body.get("idempotencyKey") or ""))
        used, known = self._keys.get(key, (-KEY_LIFETIME, ""))
        if known and now - used < KEY_LIFETIME:
            run = self._runs[known]
        else:
            run = self._start(task, body["input"], began=now)
            if key[1]:
                self._keys[key] = (now, run.id)
        return JSONResponse(run.summary(self._clock, now), 202)

    async def _get_run(self, request: Request) -> Response:
        run = self._find(request.path_params["run"])
        if run is None:
            return refusal(404, "task run not found")
        return JSONResponse(run.details(self._clock, self._clock.now()))

    async def _cancel_run(self, request: Request) -> Response:
        run_id = request.path_params["run"]
        run = self._find(run_id)
        now = self._clock.now()
        if run is None:
            return refusal(404, f"task run not found: {run_id}")
        if run.parent:
            return refusal(500, f"task run {run_id} is a subtask; cancel its root {run.root} instead")
        if run.step(now).is_terminal:
            return refusal(500, f"task run {run_id} is not active")
        self._cancel_family(run, now)
        self._change.notify()
        return Response(status_code=204)

    def _find(self, run_id: str) -> Run | None:
        run = self._runs.get(run_id)
        return run if run and run.began <= self._clock.now() else None

    def _start(self, task: Task, given: Json, *, began: float, parent: Run | None = None) -> Run:
        """Plan a run and, under it, the runs of its subtasks; those begin, and can be seen, later."""
        run_id = f"trn-d5im{next(self._numbers):016d}"
        outcome = task.work(given)
        run = Run(
            id=run_id,
            task=task,
            input=given,
            began=began,
            timeline=task.timeline(outcome),
            outcome=outcome,
            root=parent.root if parent else run_id,
            parent=parent.id if parent else "",
        )
        self._runs[run_id] = run
        for subtask in task.spawn(given):
            self._start(TASKS_BY_NAME[subtask.task], subtask.input, began=began + subtask.at, parent=run)
        return run

    def _cancel_family(self, root: Run, now: float) -> None:
        """Cancel a root run and all that descends from it; subtasks that had not begun never will."""
        for run in [run for run in self._runs.values() if run.root == root.id]:
            if run.began > now:
                del self._runs[run.id]
            else:
                self._runs[run.id] = replace(run, timeline=run.timeline.terminate(now - run.began, "canceled"))

    async def _stream_events(self, request: Request) -> Response:
        run_ids = list(dict.fromkeys(list_parameter(request, "taskRunIds")))
        if not run_ids:
            return refusal(400, "taskRunIds is required")
        unknown = [run_id for run_id in run_ids if self._find(run_id) is None]
        if unknown:
            return refusal(404, f"task run not found: {unknown[0]}")
        headers = {"Cache-Control": "no-cache, no-transform"}
        return StreamingResponse(self._frames(run_ids), headers=headers, media_type="text/event-stream")

    async def _frames(self, run_ids: list[str]) -> AsyncIterator[str]:
        """One event per run when it has ended, those that ended before included, except canceled ones.

        So a stream opened for a canceled run ends without an event, which the SDK reports as "Task run completed with
        no event"; the official local server would keep it open for ever.
        """
        last_event = now = self._clock.now()
        next_ping = now + HEARTBEAT
        waiting = [run_id for run_id in run_ids if self._runs[run_id].step(now).status != "canceled"]
        yield "retry: 2000\n\n"
        while waiting:
            # Looked at again after every frame: time passes and runs are canceled while a client takes one.
            now = self._clock.now()
            ended = next((run_id for run_id in waiting if self._runs[run_id].step(now).is_terminal), None)
            if ended:
                waiting.remove(ended)
                last_event = now
                data = json.dumps(self._runs[ended].details(self._clock, now), separators=(",", ":"))
                # "task.completed" whatever the status is, and always the same id: there is no resuming.
                yield f"id: 0\nevent: task.completed\ndata: {data}\n\n"
            elif now - last_event >= IDLE_LIMIT:
                return
            elif now >= next_ping:
                next_ping = now + HEARTBEAT
                yield ": ping\n\n"
            else:
                changes = (self._runs[run_id].next_change(now) for run_id in waiting)
                wake = min([next_ping, last_event + IDLE_LIMIT, *(at for at in changes if at is not None)])
                await self._change.wait(self._clock, wake)
