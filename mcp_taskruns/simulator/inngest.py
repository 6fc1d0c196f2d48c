"""Inngest's run API: v1 as its open-source server implements it, and what v2 has to list, read and cancel runs.

Written from responses of the Inngest dev server and from its source (inngest/inngest pkg/api/apiv1, pkg/api/v2).
"""

import base64
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from mcp_taskruns.simulator.http import ALL_METHODS, Json, has_valid_key
from mcp_taskruns.simulator.inngest_trace import TracedRun, to_object, trace
from mcp_taskruns.simulator.lifecycle import Clock, Step, Timeline

Endpoint = Callable[[Request], Awaitable[Response]]

ENVIRONMENT_ID = "00000000-0000-4000-b000-000000000000"
ACCOUNT_ID = "00000000-0000-4000-a000-000000000000"
APP_ID = "8f253c51-a9fe-5a4b-933c-8b28abe7935a"
LEASE_ID = "01JZDEM0TAKEN0000000000001"
GROUP_ID = "78e2e1ef-ccd6-4532-aff7-1f37242321cd"
ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.IGNORECASE)
COMMON_HEADERS = {"Vary": "Origin", "X-Inngest-Server-Kind": "dev"}
RUN_MAX_AGE, JOBS_MAX_AGE, EVENT_RUNS_MAX_AGE = 3, 5, 15
# How long a step executes once its job is due, in simulated seconds.
EXECUTION_SECONDS = 1.0
MAX_JOBS = 10
APP = "demo"
RERUN_PREFIX = "01JZDEM0RVN"
MAX_V2_RUNS, MAX_V2_EVENT_RUNS = 100, 40
V2_STATUSES = {"QUEUED", "RUNNING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED", "SKIPPED"}
NEVER = datetime.min.replace(tzinfo=UTC)
V2_TIME_FIELDS = {"queuedAt", "startedAt", "endedAt"}
V2_CANCEL_CONFLICTS = {
    "Cancelled": "run_already_cancelled",
    "Completed": "run_already_ended",
    "Failed": "run_already_ended",
}


@dataclass(frozen=True)
class Run:
    """A run at its start, and the times at which its queued jobs are due."""

    id: str
    event_id: str
    function: str
    function_id: str
    timeline: Timeline
    output: Json = None
    # In simulated seconds; None: when the run is first read.
    started_at: float | None = None
    # In seconds after the start.
    jobs: tuple[float, ...] = ()
    # Whether the app's SDK checkpoints its steps (npm inngest 4), with which v1 loses the output of successful runs.
    is_checkpointed: bool = False


RUNS = (
    Run(
        "01JZDEM0RVN000000000000001",
        "01JZDEM0EVT000000000000001",
        "onboarding",
        "9d6b5a2e-3a51-5f0c-8b1d-1f3f6a5c0a01",
        Timeline((Step(0, "Running"), Step(12, "Completed", is_terminal=True))),
        output={"emails": 3, "trial": "activated"},
        jobs=(4, 8, 12),
    ),
    Run(
        "01JZDEM0RVN000000000000002",
        "01JZDEM0EVT000000000000002",
        "sleepy",
        "01e8cef7-567b-5766-a5ed-09df47b10ee7",
        Timeline((Step(0, "Running"), Step(660, "Completed", is_terminal=True))),
        output={"slept": True},
        started_at=-60,
        jobs=(660,),
    ),
    Run(
        "01JZDEM0RVN000000000000003",
        "01JZDEM0EVT000000000000003",
        "quick",
        "222cde6f-6d7d-5a55-bad1-9a9b6bcec4eb",
        Timeline((Step(0, "Running"), Step(0.2, "Completed", is_terminal=True))),
        output={"input": {"n": 1, "who": "quick"}, "sum": 42},
        started_at=-1020,
    ),
    Run(
        "01JZDEM0RVN000000000000004",
        "01JZDEM0EVT000000000000004",
        "fails",
        "ae225bce-974e-507b-b625-d8e1dc042b1c",
        Timeline((Step(0, "Running"), Step(0.1, "Failed", is_terminal=True))),
        output={
            "code": "non_retriable_error",
            "message": "boom: card declined",
            "name": "NonRetriableError",
            "stack": 'Traceback (most recent call last):\n  File "/srv/app/app.py", line 17, in fails\n',
        },
        started_at=-1020,
    ),
    Run(
        "01JZDEM0RVN000000000000005",
        "01JZDEM0EVT000000000000005",
        "sleepy",
        "01e8cef7-567b-5766-a5ed-09df47b10ee7",
        Timeline((Step(0, "Running"), Step(2.7, "Cancelled", is_terminal=True))),
        output={},
        started_at=-600,
    ),
    Run(
        "01JZDEM0RVN000000000000006",
        "01JZDEM0EVT000000000000006",
        "checkpointed",
        "3c5e2a1b-7d44-5b1e-9f0a-6f2b8d1c4e06",
        Timeline((Step(0, "Running"), Step(0.4, "Completed", is_terminal=True))),
        output=42,
        started_at=-900,
        is_checkpointed=True,
    ),
)


def v1_error(status: int, message: str) -> Response:
    return JSONResponse({"error": message, "data": None, "status": status}, status, COMMON_HEADERS)


def v2_error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"errors": [{"code": code, "message": message}]}, status, COMMON_HEADERS)


def _includes_output(request: Request) -> bool:
    return request.query_params.get("includeOutput") == "true"


def _parse_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _is_between(at: datetime | None, first: datetime | None, end: datetime | None) -> bool:
    if at is None:
        return first is end is None
    return (first is None or first <= at) and (end is None or at < end)


class Inngest:
    """GET and DELETE `/v1/runs/{id}`, `/v1/runs/{id}/jobs`, `/v1/events/{id}/runs`, and v2 (below `/v2` and `/api/v2`):
    `/runs`, `/runs/{id}`, `/runs/{id}/trace`, `/runs/{id}/cancel`,
    `/runs/{id}/rerun`, `/events/{id}/runs`.

    This API cannot start a run, so these runs exist from the start:

    - 01JZDEM0RVN000000000000001: onboarding; starts when it is first read, completes 12 simulated seconds later
    - 01JZDEM0RVN000000000000002: sleepy, running for another ten minutes
    - 01JZDEM0RVN000000000000003: quick, completed
    - 01JZDEM0RVN000000000000004: fails, failed
    - 01JZDEM0RVN000000000000005: sleepy, cancelled
    - 01JZDEM0RVN000000000000006: checkpointed, completed with 42, which v1 has lost

    The id of each run's event has `EVT` instead of `RVN`.

    Valid keys begin with `signkey-`, on v2 also with `sk-inn-api-`, and do not contain `wrong`. With `is_dev` any key
    is valid, and none is needed, as on the dev server.

    Not simulated: sending events, bulk cancellations, metadata, reruns from a step, branch environments, rate limits,
    statuses before Running, and the filters query and isDeferred of the v2 list.
    """

    name = "inngest"

    def __init__(self, clock: Clock, *, is_dev: bool = False) -> None:
        self._clock = clock
        self.is_dev = is_dev
        self.runs = {run.id: run for run in RUNS}
        self.started_at = {run.id: run.started_at for run in RUNS}
        self.timelines = {run.id: run.timeline for run in RUNS}
        self._cache: dict[tuple[str, str], tuple[float, bytes]] = {}

    def environment(self, origin: str) -> dict[str, str]:
        """Return the environment variables for a simulator served from `origin`."""
        return {"INNGEST_BASE_URL": f"{origin}/inngest", "INNGEST_SIGNING_KEY": "signkey-test-simulated"}

    def routes(self) -> list[BaseRoute]:
        """Return the routes below the mount `/inngest`."""
        v2: dict[str, dict[str, Endpoint]] = {
            "/runs": {"GET": self._v2(self._list_v2)},
            "/runs/{run}": {"GET": self._v2(self._get_v2)},
            "/runs/{run}/cancel": {"POST": self._v2(self._cancel_v2)},
            "/runs/{run}/rerun": {"POST": self._v2(self._rerun_v2)},
            "/runs/{run}/trace": {"GET": self._v2(self._trace_v2)},
            "/events/{event}/runs": {"GET": self._v2(self._event_runs_v2)},
        }
        table: dict[str, dict[str, Endpoint]] = {
            "/v1/runs/{run}": {
                "GET": self._v1(self._cached(self._get, RUN_MAX_AGE)),
                "DELETE": self._v1(self._cancel),
            },
            "/v1/runs/{run}/jobs": {"GET": self._v1(self._cached(self._jobs, JOBS_MAX_AGE))},
            "/v1/events/{event}/runs": {"GET": self._v1(self._cached(self._event_runs, EVENT_RUNS_MAX_AGE))},
            **{f"{prefix}{path}": methods for prefix in ("/v2", "/api/v2") for path, methods in v2.items()},
        }
        routes: list[BaseRoute] = [
            Route(path, self._by_method(methods), methods=ALL_METHODS) for path, methods in table.items()
        ]
        return [*routes, Route("/{rest:path}", self._unknown_path, methods=ALL_METHODS)]

    async def _unknown_path(self, _: Request) -> Response:
        headers = COMMON_HEADERS | {"X-Content-Type-Options": "nosniff"}
        return PlainTextResponse("404 page not found\n", 404, headers)

    def _by_method(self, endpoints: dict[str, Endpoint]) -> Endpoint:
        async def respond(request: Request) -> Response:
            if endpoint := endpoints.get(request.method):
                return await endpoint(request)
            response = Response(status_code=405, headers=COMMON_HEADERS)
            # Inngest's router sends one Allow header per method.
            for method in endpoints:
                response.headers.append("Allow", method)
            return response

        return respond

    def _v1(self, endpoint: Endpoint) -> Endpoint:
        async def respond(request: Request) -> Response:
            if not self.is_dev and not has_valid_key(request, "signkey-"):
                headers = COMMON_HEADERS | {"X-Content-Type-Options": "nosniff"}
                return PlainTextResponse("Authentication failed\n", 401, headers)
            return await endpoint(request)

        return respond

    def _v2(self, endpoint: Endpoint) -> Endpoint:
        async def respond(request: Request) -> Response:
            if self.is_dev:
                return await endpoint(request)
            if "authorization" not in request.headers:
                return v2_error(401, "authorization_header_missing", "Authorization header is missing")
            if not has_valid_key(request, "signkey-", "sk-inn-api-"):
                return v2_error(401, "invalid_signing_key", "Invalid signing key")
            return await endpoint(request)

        return respond

    def _cached(self, endpoint: Endpoint, max_age: int) -> Endpoint:
        """Cache responses as Inngest does (pkg/api/apiv1/cache.go), including its defects.

        It stores only the body, so a cached response has no headers and the content type text/plain. It never copies
        the status code, so every response to a GET is a 200, even an error. Canceling a run does not clear it.
        """

        async def respond(request: Request) -> Response:
            now = self._clock.now()
            key = (str(request.url), request.headers.get("authorization", ""))
            expires_at, body = self._cache.get(key, (now, b""))
            if now < expires_at:
                return PlainTextResponse(body, headers=COMMON_HEADERS)
            response = await endpoint(request)
            if response.status_code == 200:
                response.headers["Cache-Control"] = f"private, max-age={max_age}"
                self._cache[key] = (now + max_age, bytes(response.body))
            response.status_code = 200
            return response

        return respond

    def status(self, run_id: str) -> str:
        """Return the current status of a run."""
        return self._step(self.runs[run_id])[1].status

    def _step(self, run: Run) -> tuple[float, Step]:
        """Return the start and the current step of a run. The demo run starts when it is first read."""
        started_at = self.started_at[run.id]
        if started_at is None:
            started_at = self.started_at[run.id] = self._clock.now()
        return started_at, self.timelines[run.id].at(self._clock.now() - started_at)

    def _terminate(self, run: Run, started_at: float) -> None:
        self.timelines[run.id] = self.timelines[run.id].terminate(self._clock.now() - started_at, "Cancelled")

    def _find(self, request: Request, *, unknown_status: int) -> Run | Response:
        run_id = request.path_params["run"]
        if not ULID.fullmatch(run_id):
            return v1_error(400, f"Invalid run ID: {run_id}")
        run = self.runs.get(run_id.upper())
        return run or v1_error(unknown_status, f"Unable to load function run: {run_id}")

    def _v1_response(self, data: Json, max_age: int) -> Response:
        now = self._clock.now()
        metadata = {"fetched_at": self._clock.timestamp(now), "cached_until": self._clock.timestamp(now + max_age)}
        return JSONResponse({"data": data, "metadata": metadata}, headers=COMMON_HEADERS)

    async def _get(self, request: Request) -> Response:
        run = self._find(request, unknown_status=500)
        if isinstance(run, Response):
            return run
        return self._v1_response(self._v1_run(run), RUN_MAX_AGE)

    def _v1_run(self, run: Run) -> Json:
        started_at, step = self._step(run)
        data: Json = {
            "run_id": run.id,
            "run_started_at": self._clock.timestamp(started_at),
            "function_id": run.function_id,
            "function_version": 0,
            "environment_id": ENVIRONMENT_ID,
            "event_id": run.event_id,
            "status": step.status,
            "ended_at": self._clock.timestamp(started_at + step.at) if step.is_terminal else None,
        }
        if step.status == "Completed" and run.is_checkpointed:
            data["output"] = ""
        elif step.is_terminal:
            data["output"] = {} if step.status == "Cancelled" else run.output
        return data

    async def _event_runs(self, request: Request) -> Response:
        """List the runs that an event started; none for an unknown event."""
        event_id = request.path_params["event"]
        if not ULID.fullmatch(event_id):
            return v1_error(400, f"Invalid event ID: {event_id}")
        runs = [run for run in self.runs.values() if run.event_id == event_id.upper()]
        return self._v1_response([self._v1_run(run) for run in runs], EVENT_RUNS_MAX_AGE)

    async def _jobs(self, request: Request) -> Response:
        """List the queue items of a run, not its steps: those that wait, and those that execute, which are leased.

        A run with a terminal status has none.
        """
        run = self._find(request, unknown_status=500)
        if isinstance(run, Response):
            return run
        started_at, step = self._step(run)
        finished = self._clock.now() - EXECUTION_SECONDS
        pending = [] if step.is_terminal else [started_at + at for at in run.jobs if started_at + at > finished]
        return self._v1_response(
            [self._job(run, position, at) for position, at in enumerate(pending[:MAX_JOBS])], JOBS_MAX_AGE
        )

    def _job(self, run: Run, position: int, at: float) -> Json:
        started_at = self.started_at[run.id] or 0.0
        # Job ids are opaque. An id only has to stay the same while its job is queued.
        job_id = f"{run.id[-3:]}job{round(at - started_at):06d}"
        return {
            "JobID": job_id,
            "at": self._clock.timestamp(at),
            "position": position,
            "kind": "sleep" if at > self._clock.now() else "edge",
            "attempt": 0,
            "Raw": self._queue_item(run, job_id, due=at, enqueued=started_at),
        }

    def _queue_item(self, run: Run, job_id: str, *, due: float, enqueued: float) -> Json:
        """Return the queue item as Inngest stores it, which v1 includes in its responses."""
        due_ms = round(self._clock.datetime_at(due).timestamp() * 1000)
        identifier = {
            "runID": run.id,
            "wID": run.function_id,
            "wv": 1,
            "evtID": run.event_id,
            "eventIDs": [run.event_id],
            "aID": ACCOUNT_ID,
            "wsID": ENVIRONMENT_ID,
            "appID": APP_ID,
            "pf": 0,
        }
        kind, lease = ("sleep", {}) if due > self._clock.now() else ("edge", {"leaseID": LEASE_ID})
        return {
            "id": job_id,
            "at": due_ms,
            "wt": due_ms,
            "wfID": run.function_id,
            "wsID": ENVIRONMENT_ID,
            "genID": 1,
            "data": {
                "groupID": GROUP_ID,
                "wsID": ENVIRONMENT_ID,
                "kind": kind,
                "identifier": identifier,
                "atts": 0,
                "maxAtts": 5,
                "payload": {"edge": {"incoming": "step", "outgoing": "c2640f79b4ed481b838ce4ad75330aa3f825d4d9"}},
                "pf": 0,
            },
            "eat": round(self._clock.datetime_at(enqueued).timestamp() * 1000),
            **lease,
        }

    async def _cancel(self, request: Request) -> Response:
        """Cancel a run. A run with a terminal status keeps it, and the response is the same."""
        run = self._find(request, unknown_status=404)
        if isinstance(run, Response):
            return run
        self._terminate(run, self._step(run)[0])
        return Response(media_type="application/json", headers=COMMON_HEADERS)

    def _find_v2(self, request: Request) -> Run | Response:
        run_id = request.path_params["run"]
        if not ULID.fullmatch(run_id):
            return v2_error(400, "invalid_field_format", "Run ID must be a valid ULID")
        return self.runs.get(run_id.upper()) or v2_error(404, "not_found", "Run not found")

    def _v2_response(self, data: Json, **more: Json) -> Response:
        metadata = {"fetchedAt": self._clock.timestamp()}
        return JSONResponse({"data": data, "metadata": metadata, **more}, headers=COMMON_HEADERS)

    def _v2_run(self, run: Run, request: Request) -> Json:
        started_at, step = self._step(run)
        data: Json = {
            "app": {"id": APP},
            "function": {"id": run.function, "name": run.function},
            "id": run.id,
            "queuedAt": self._clock.timestamp(started_at),
            "startedAt": self._clock.timestamp(started_at),
            "status": step.status.upper(),
            "trigger": {"eventIds": [run.event_id]},
        }
        if _includes_output(request) and step.is_terminal and step.status != "Cancelled":
            data["output"] = to_object(run.output)
        return data

    async def _get_v2(self, request: Request) -> Response:
        run = self._find_v2(request)
        return run if isinstance(run, Response) else self._v2_response(self._v2_run(run, request))

    async def _trace_v2(self, request: Request) -> Response:
        run = self._find_v2(request)
        if isinstance(run, Response):
            return run
        started_at, step = self._step(run)
        ended_at = started_at + step.at if step.is_terminal else None
        traced = TracedRun(run.id, run.function, started_at, step.status.upper(), ended_at, run.output)
        return self._v2_response(trace(traced, self._clock, include_output=_includes_output(request)))

    async def _list_v2(self, request: Request) -> Response:
        query = request.query_params
        statuses = [status.upper() for status in query.getlist("status")]
        if unknown := set(statuses) - V2_STATUSES:
            return v2_error(400, "invalid_field_format", f"Status is invalid: {min(unknown)}")
        time_field = query.get("timeField", "queuedAt")
        if time_field not in V2_TIME_FIELDS:
            return v2_error(400, "invalid_field_format", "timeField is invalid")
        if query.get("order", "desc") not in ("asc", "desc"):
            return v2_error(400, "invalid_field_format", "order is invalid")
        try:
            first, end = (_parse_time(query.get(name)) for name in ("from", "until"))
        except ValueError:
            return v2_error(400, "invalid_field_format", "from and until must be valid timestamps")
        timed = [(self._v2_time(run, time_field), run) for run in self.runs.values()]
        runs = [run for at, run in timed if _is_between(at, first, end)]
        runs.sort(
            key=lambda run: (self._v2_time(run, time_field) or NEVER, run.id), reverse=query.get("order") != "asc"
        )
        listed = [self._v2_run(run, request) for run in runs]
        listed = [run for run in listed if not statuses or run["status"] in statuses]
        for name, part in (("appId", "app"), ("functionId", "function")):
            listed = [run for run in listed if run[part]["id"] in (query.getlist(name) or [run[part]["id"]])]
        return self._v2_page(listed, request, MAX_V2_RUNS)

    def _v2_time(self, run: Run, time_field: str) -> datetime | None:
        """Return the time in a field of a run in v2, or None for the end of a run that has not ended."""
        started_at, step = self._step(run)
        if time_field != "endedAt":
            return self._clock.datetime_at(started_at)
        return self._clock.datetime_at(started_at + step.at) if step.is_terminal else None

    async def _event_runs_v2(self, request: Request) -> Response:
        """List the runs that an event started; none for an unknown event."""
        event_id = request.path_params["event"]
        if not ULID.fullmatch(event_id):
            return v2_error(400, "invalid_field_format", "Event ID must be a valid ULID")
        runs = [self._v2_run(run, request) for run in self.runs.values() if run.event_id == event_id.upper()]
        return self._v2_page(runs, request, MAX_V2_EVENT_RUNS)

    def _v2_page(self, runs: list[Json], request: Request, max_limit: int) -> Response:
        limit = request.query_params.get("limit", "20")
        if not limit.isdecimal() or not 1 <= int(limit) <= max_limit:
            return v2_error(400, "invalid_field_format", f"limit must be between 1 and {max_limit}")
        cursors = [base64.b64encode(json.dumps({"id": run["id"]}).encode()).decode() for run in runs]
        after = request.query_params.get("cursor")
        if after and after not in cursors:
            return v2_error(400, "invalid_field_format", "Invalid cursor")
        start = cursors.index(after) + 1 if after else 0
        end = start + int(limit)
        page: Json = {"hasMore": end < len(runs), "limit": int(limit)}
        if page_cursors := cursors[start:end]:
            page["cursor"] = page_cursors[-1]
        return self._v2_response(runs[start:end], page=page)

    async def _cancel_v2(self, request: Request) -> Response:
        run = self._find_v2(request)
        if isinstance(run, Response):
            return run
        started_at, step = self._step(run)
        if code := V2_CANCEL_CONFLICTS.get(step.status):
            return v2_error(409, code, f"Run is already {step.status.lower()}")
        self._terminate(run, started_at)
        return self._v2_response({"runId": run.id})

    async def _rerun_v2(self, request: Request) -> Response:
        """Start a new run of the same event, with the timeline of the first run of its function."""
        run = self._find_v2(request)
        if isinstance(run, Response):
            return run
        original = next(one for one in RUNS if one.function == run.function)
        new_id = f"{RERUN_PREFIX}{len(self.runs) + 1:015d}"
        self.runs[new_id] = replace(original, id=new_id, event_id=run.event_id)
        self.started_at[new_id] = self._clock.now()
        self.timelines[new_id] = original.timeline
        return self._v2_response({"runId": new_id})
