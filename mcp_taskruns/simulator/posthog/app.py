"""PostHog's task-runs API: routes, access checks and dispatch to the operations."""

from collections.abc import Mapping
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from mcp_taskruns.simulator.lifecycle import Clock
from mcp_taskruns.simulator.posthog import artifacts, commands, logs, runs, stream
from mcp_taskruns.simulator.posthog.data import PROJECT_ID
from mcp_taskruns.simulator.posthog.errors import ApiError, api_error, not_found, throttled
from mcp_taskruns.simulator.posthog.http import Key, read_json, read_key, require_accept, require_scope
from mcp_taskruns.simulator.posthog.operations import Call, Operation
from mcp_taskruns.simulator.posthog.seeds import seeded_project
from mcp_taskruns.simulator.posthog.validation import validate

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
PREFIX = "/api/projects/{project_id}/tasks/{task_id}/runs"
# Minimum interval between requests with the key `phx_throttled`, in simulated seconds.
THROTTLE_SECONDS = 2.0

OPERATIONS: Mapping[str, Mapping[str, Operation]] = {
    "": {"GET": runs.LIST, "POST": runs.CREATE},
    "/{id}": {"GET": runs.RETRIEVE, "PATCH": runs.UPDATE},
    "/{id}/cancel": {"POST": runs.CANCEL},
    "/{id}/append_log": {"POST": logs.APPEND_LOG},
    "/{id}/artifacts": {"POST": artifacts.UPLOAD},
    "/{id}/artifacts/download": {"POST": artifacts.DOWNLOAD},
    "/{id}/artifacts/finalize_upload": {"POST": artifacts.FINALIZE_UPLOAD},
    "/{id}/artifacts/prepare_upload": {"POST": artifacts.PREPARE_UPLOAD},
    "/{id}/artifacts/presign": {"POST": artifacts.PRESIGN},
    "/{id}/command": {"POST": commands.COMMAND},
    "/{id}/connection_token": {"GET": commands.CONNECTION_TOKEN},
    "/{id}/logs": {"GET": logs.LOGS},
    "/{id}/relay_message": {"POST": commands.RELAY_MESSAGE},
    "/{id}/resume_in_cloud": {"POST": runs.RESUME_IN_CLOUD},
    "/{id}/session_logs": {"GET": logs.SESSION_LOGS},
    "/{id}/set_output": {"PATCH": runs.SET_OUTPUT},
    "/{id}/start": {"POST": runs.START},
    "/{id}/stream": {"GET": stream.STREAM},
}


class PostHog:
    """The 19 operations of PostHog's task-runs API, `cancel`, and the object storage beside it.

    Project `1` contains task `11111111-1111-4111-8111-111111111111`, whose json_schema requires a `summary`, with these
    runs, newest first:

    - `bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb` not_started, cloud: start it;
    - `cccccccc-cccc-4ccc-8ccc-cccccccccccc` in_progress forever: it has a sandbox, a Slack thread and an open question;
    - `dddddddd-dddd-4ddd-8ddd-dddddddddddd` failed; the content of its artifact `core.log` no longer exists;
    - `aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa` completed, 30 log entries, artifacts `report.md` and `screenshot.png`;

    and task `22222222-2222-4222-8222-222222222222`, without schema and runs. A started cloud run is queued, in progress
    after one simulated second and completed after ten.

    Valid keys begin with `phx_` and do not contain `wrong`. The response to an invalid key is 401, or 403 if the key
    contains `403`. `phx_readonly` has only the scope task:read. `phx_overlimit` has exceeded its usage limit, and the
    organization of `phx_unentitled` may not run tasks in the cloud. `phx_throttled` may send one request every two
    simulated seconds. With `phx_outage` the services behind the API are down: resume_in_cloud responds with 502, cancel
    and relay_message with 503, and a stream sends an error event instead of waiting.

    A canceled cloud run ends after `project.cancel_seconds`, at once by default. Set `has_cancel` to False for a
    version of PostHog without that operation, `project.marks_stream_ends` to False for one whose streams end without
    the event `stream-end`. `expire_stream` removes the stream of an ended run, as Redis does some time later.

    Not simulated: running an agent, persistence, PostHog's rate limits, checks that GitHub, Slack or a sandbox exist,
    expiry of old data, the 600 s timeout of a slow agent, the replay of a log on a stream (event ids `log-<n>`), and
    API operations beyond these (stream_token, set_summary, ...). Of json_schema only type, required and properties are
    checked.
    """

    name = "posthog"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.project = seeded_project(clock)
        self.has_cancel = True
        self._throttled_until = 0.0

    def expire_stream(self, run_id: str, *, responds_204: bool = False) -> None:
        """Remove the stream of an ended run. A request for it gets the status of the run, or a 204."""
        run = self.project.runs[run_id]
        run.stream.clear()
        run.has_no_stream = responds_204

    def environment(self, origin: str) -> dict[str, str]:
        """Return the environment variables for a simulator served from `origin`."""
        return {
            "POSTHOG_BASE_URL": f"{origin}/posthog",
            "POSTHOG_API_KEY": "phx_simulated",
            "POSTHOG_PROJECT_ID": PROJECT_ID,
        }

    def routes(self) -> list[BaseRoute]:
        """Return the routes below the mount `/posthog`. As in PostHog, the last slash of a path is optional."""
        operations = [
            Route(PREFIX + path + slash, partial(self._respond, by_method), methods=METHODS)
            for path, by_method in OPERATIONS.items()
            for slash in ("", "/")
        ]
        return [*operations, *self.project.storage.routes(), Route("/{path:path}", _no_such_path, methods=METHODS)]

    async def _respond(self, by_method: Mapping[str, Operation], request: Request) -> Response:
        # The only renderer of this path is for events, and it renders errors too.
        is_stream = stream.STREAM in by_method.values()
        try:
            require_accept(request, "text/event-stream" if is_stream else "application/json")
            return await self._perform(by_method, request)
        except ApiError as error:
            return error.response(as_events=is_stream)

    async def _perform(self, by_method: Mapping[str, Operation], request: Request) -> Response:
        """Check in the order of Django REST framework: key, scope, throttle, method, input, then existence (404)."""
        key = read_key(request)
        if runs.CANCEL in by_method.values() and not self.has_cancel:
            raise not_found("Endpoint not found.")
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
            raise api_error(405, "invalid_request", "method_not_allowed", detail, headers={"Allow": allowed})
        project = self.project
        project.run_scripts()
        query = validate(operation.query, dict(request.query_params)) if operation.query is not None else {}
        body = {}
        if operation.body is not None:
            body = validate(operation.body, await read_json(request), strict=operation.strict)
        task = project.tasks.get(path["task_id"].lower())
        if task is None:
            raise not_found("Task not found")
        run = project.runs.get(path.get("id", "").lower())
        if run is not None and run.task is not task:
            run = None
        return await operation.handle(project, Call(request, key, task, run, body, query))

    def _throttle(self, key: Key) -> None:
        if not key.is_throttled:
            return
        now = self._clock.now()
        if now < self._throttled_until:
            raise throttled(self._throttled_until - now)
        self._throttled_until = now + THROTTLE_SECONDS


async def _no_such_path(request: Request) -> Response:
    return not_found("Endpoint not found.").response(as_events=False)
