"""PostHog's task runs, offline: who is let in, and which operation answers."""

from collections.abc import Mapping
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from mcp_taskruns.simulator.lifecycle import Clock
from mcp_taskruns.simulator.posthog import artifacts, logs, runs
from mcp_taskruns.simulator.posthog.data import PROJECT_ID, Call, Operation
from mcp_taskruns.simulator.posthog.http import (
    ApiError,
    Key,
    not_found,
    read_json,
    read_key,
    refusal,
    require_accept,
    require_scope,
    throttled,
    validate,
)
from mcp_taskruns.simulator.posthog.seeds import seeded_world

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
PREFIX = "/api/projects/{project_id}/tasks/{task_id}/runs"
# How far apart the calls of the key phx_throttled must be, in simulated seconds.
THROTTLE_SECONDS = 2.0

OPERATIONS: Mapping[str, Mapping[str, Operation]] = {
    "": {"GET": runs.LIST, "POST": runs.CREATE},
    "/{id}": {"GET": runs.RETRIEVE, "PATCH": runs.UPDATE},
    "/{id}/append_log": {"POST": logs.APPEND_LOG},
    "/{id}/artifacts": {"POST": artifacts.UPLOAD},
    "/{id}/artifacts/download": {"POST": artifacts.DOWNLOAD},
    "/{id}/artifacts/finalize_upload": {"POST": artifacts.FINALIZE_UPLOAD},
    "/{id}/artifacts/prepare_upload": {"POST": artifacts.PREPARE_UPLOAD},
    "/{id}/artifacts/presign": {"POST": artifacts.PRESIGN},
    "/{id}/command": {"POST": runs.COMMAND},
    "/{id}/connection_token": {"GET": runs.CONNECTION_TOKEN},
    "/{id}/logs": {"GET": logs.LOGS},
    "/{id}/relay_message": {"POST": runs.RELAY_MESSAGE},
    "/{id}/resume_in_cloud": {"POST": runs.RESUME_IN_CLOUD},
    "/{id}/session_logs": {"GET": logs.SESSION_LOGS},
    "/{id}/set_output": {"PATCH": runs.SET_OUTPUT},
    "/{id}/start": {"POST": runs.START},
    "/{id}/stream": {"GET": logs.STREAM},
}


class PostHog:
    """The 19 operations of PostHog's task-runs API and the object storage beside it.

    Seeds: project `1`; task `11111111-1111-4111-8111-111111111111` (its json_schema wants a `summary`) with the runs,
    newest first,

    - `bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb` not_started, cloud: start it;
    - `cccccccc-cccc-4ccc-8ccc-cccccccccccc` in_progress for ever: it has a sandbox, a Slack thread, an open question;
    - `dddddddd-dddd-4ddd-8ddd-dddddddddddd` failed; the content of its artifact `core.log` is gone;
    - `aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa` completed, 30 log entries, artifacts `report.md` and `screenshot.png`;

    and task `22222222-2222-4222-8222-222222222222`, without schema and runs. A started cloud run is queued, in progress
    after one simulated second and completed after ten.

    Keys: whatever begins with `phx_` and does not contain `wrong`; a wrong one that contains `403` is refused so, and
    not with 401. `phx_readonly` has task:read alone, `phx_overlimit` is over its usage limit, `phx_throttled` is let in
    every two simulated seconds. `phx_outage` finds broken what lies behind the API: 502 of resume_in_cloud, 503 of
    relay_message, and an error event in place of what a stream would have to wait for.

    What it does NOT do: run an agent, keep anything between processes, count calls against PostHog's rate limits,
    check that GitHub, Slack or a sandbox exist, delete what is old, wait the 600 s of a slow agent, end a stream that
    has lasted too long, or know what its source has that the 19 operations do not (cancel, stream_token, set_summary,
    ...). Of json_schema it checks type, required and properties.
    """

    name = "posthog"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.world = seeded_world(clock)
        self._throttled_until = 0.0

    def environment(self, origin: str) -> dict[str, str]:
        """The variables that point a client at the simulator served from `origin`."""
        return {
            "POSTHOG_BASE_URL": f"{origin}/posthog",
            "POSTHOG_API_KEY": "phx_simulated",
            "POSTHOG_PROJECT_ID": PROJECT_ID,
        }

    def routes(self) -> list[BaseRoute]:
        """Everything below the mount `/posthog`; like PostHog's router, with or without the last slash of a path."""
        operations = [
            Route(PREFIX + path + slash, partial(self._answer, by_method), methods=METHODS)
            for path, by_method in OPERATIONS.items()
            for slash in ("", "/")
        ]
        return [*operations, *self.world.storage.routes(), Route("/{path:path}", _no_such_path, methods=METHODS)]

    async def _answer(self, by_method: Mapping[str, Operation], request: Request) -> Response:
        # This path has one renderer, for events, and it renders the refusals too.
        is_stream = logs.STREAM in by_method.values()
        try:
            require_accept(request, "text/event-stream" if is_stream else "application/json")
            return await self._perform(by_method, request)
        except ApiError as error:
            return error.response(as_events=is_stream)

    async def _perform(self, by_method: Mapping[str, Operation], request: Request) -> Response:
        """Refuses in the order of Django REST framework: key, scope, throttle, method, input, and only then 404."""
        key = read_key(request)
        operation = by_method.get("GET" if request.method == "HEAD" else request.method)
        if operation is not None:
            require_scope(key, operation.scope)
        path = request.path_params
        if path["project_id"] != PROJECT_ID:
            raise not_found("Project not found.")
        self._throttle(key)
        if operation is None:
            allowed = ", ".join([*by_method, "HEAD", "OPTIONS"] if "GET" in by_method else [*by_method, "OPTIONS"])
            detail = f'Method "{request.method}" not allowed.'
            raise refusal(405, "invalid_request", "method_not_allowed", detail, headers={"Allow": allowed})
        world = self.world
        world.settle()
        query = validate(operation.query, dict(request.query_params)) if operation.query is not None else {}
        body = {}
        if operation.body is not None:
            body = validate(operation.body, await read_json(request), strict=operation.strict)
        task = world.tasks.get(path["task_id"].lower())
        if task is None:
            raise not_found("Task not found")
        run = world.runs.get(path.get("id", "").lower())
        return await operation.handle(
            world, Call(request, key, task, run if run is not None and run.task is task else None, body, query)
        )

    def _throttle(self, key: Key) -> None:
        if not key.is_throttled:
            return
        now = self._clock.now()
        if now < self._throttled_until:
            raise throttled(self._throttled_until - now)
        self._throttled_until = now + THROTTLE_SECONDS


async def _no_such_path(request: Request) -> Response:
    return not_found("Endpoint not found.").response(as_events=False)
