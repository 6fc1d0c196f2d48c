"""Runway's task API: read a task, cancel or delete it.

Written from the official SDK (runwayml 5.24.0), Runway's OpenAPI document and docs.dev.runwayml.com.
"""

import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from mcp_taskruns.simulator.http import ALL_METHODS, Json, bearer_key, has_valid_key
from mcp_taskruns.simulator.lifecycle import Clock, Step, Timeline

VERSION = "2024-11-06"
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)
CREDITS = 25
# Minimum interval between requests with the key `key_throttled`, in simulated seconds.
THROTTLE_SECONDS = 2.0


@dataclass(frozen=True)
class Task:
    """A task at its start. `started_at` is in simulated seconds; None: when the task is first read."""

    id: str
    timeline: Timeline
    started_at: float | None = None


TASKS = (
    Task(
        "17f20503-6c24-4c16-946b-35dbbce2af2f",
        Timeline(
            (Step(0, "THROTTLED"), Step(2, "PENDING"), Step(4, "RUNNING"), Step(20, "SUCCEEDED", is_terminal=True)),
        ),
    ),
    Task("27f20503-6c24-4c16-946b-35dbbce2af2f", Timeline((Step(0, "SUCCEEDED", is_terminal=True),)), started_at=-3600),
    Task("37f20503-6c24-4c16-946b-35dbbce2af2f", Timeline((Step(0, "FAILED", is_terminal=True),)), started_at=-1800),
    Task("47f20503-6c24-4c16-946b-35dbbce2af2f", Timeline((Step(0, "THROTTLED"),)), started_at=-600),
    Task("57f20503-6c24-4c16-946b-35dbbce2af2f", Timeline((Step(0, "CANCELLED", is_terminal=True),)), started_at=-900),
)


def error_response(status: int, message: str, **more: Json) -> Response:
    return JSONResponse({"error": message, **more}, status)


def bad_request(code: str, path: list[str], message: str) -> Response:
    issue = {"code": code, "path": path, "message": message}
    return error_response(400, "Bad Request", issues=[issue], docUrl="https://docs.dev.runwayml.com/api")


class Runway:
    """GET and DELETE `/v1/tasks/{id}`. DELETE cancels an active task and deletes one with a terminal status.

    Creating a task is not simulated, so these tasks exist from the start:

    - 17f20503-6c24-4c16-946b-35dbbce2af2f: starts when it is first read: throttled, pending after 2 simulated seconds,
      running after 4, succeeded after 20
    - 27f20503-…: succeeded
    - 37f20503-…: failed
    - 47f20503-…: throttled forever
    - 57f20503-…: cancelled (not by DELETE, which makes a task unavailable)

    Valid keys begin with `key_` and do not contain `wrong`. `key_throttled` may send one request every two simulated
    seconds. Output URLs differ with every GET; they do not resolve and do not expire.

    Not simulated: daily limits, refunds, previews and failures without a code.
    """

    name = "runway"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.tasks = {task.id: task for task in TASKS}
        self.started_at = {task.id: task.started_at for task in TASKS}
        self._signed_urls = 0
        self._throttled_until = 0.0

    def environment(self, origin: str) -> dict[str, str]:
        """Return the environment variables for a simulator served from `origin`."""
        return {"RUNWAY_BASE_URL": f"{origin}/runway/v1", "RUNWAYML_API_SECRET": "key_simulated"}

    def routes(self) -> list[BaseRoute]:
        """Return the routes below the mount `/runway`."""
        return [
            Route("/v1/tasks/{task}", self._task, methods=ALL_METHODS),
            Route("/{rest:path}", self._unknown_path, methods=ALL_METHODS),
        ]

    async def _unknown_path(self, _: Request) -> Response:
        return error_response(404, "Not found")

    async def _task(self, request: Request) -> Response:
        operations: dict[str, Callable[[Task], Awaitable[Response]]] = {"GET": self._get, "DELETE": self._delete}
        operation = operations.get(request.method)
        if operation is None:
            return error_response(405, "Method not allowed")
        # Runway checks the version before anything else.
        if request.headers.get("x-runway-version") != VERSION:
            return bad_request("invalid_value", ["header", "X-Runway-Version"], f"Expected version {VERSION}")
        if not has_valid_key(request, "key_"):
            return error_response(401, "You did not provide a valid API key.")
        if bearer_key(request) == "key_throttled" and (throttled := self._throttle()):
            return throttled
        task_id = request.path_params["task"]
        if not UUID4.fullmatch(task_id):
            return bad_request("invalid_format", ["params", "id"], "Invalid UUID")
        task = self.tasks.get(task_id.lower())
        return await operation(task) if task else error_response(404, "Could not find a task with that ID")

    def _throttle(self) -> Response | None:
        """Return a 429 response if the previous request was too recent."""
        now = self._clock.now()
        if now >= self._throttled_until:
            self._throttled_until = now + THROTTLE_SECONDS
            return None
        response = error_response(429, "Too many requests")
        response.headers["Retry-After"] = str(math.ceil(self._throttled_until - now))
        return response

    async def _get(self, task: Task) -> Response:
        now = self._clock.now()
        started_at = self.started_at[task.id]
        if started_at is None:
            started_at = self.started_at[task.id] = now
        step = task.timeline.at(now - started_at)
        body: Json = {"id": task.id, "status": step.status, "createdAt": self._clock.timestamp(started_at)}
        if step.status == "RUNNING":
            duration = task.timeline.duration or now
            body["progress"] = round((now - started_at - step.at) / (duration - step.at), 3)
        elif step.status == "SUCCEEDED":
            self._signed_urls += 1
            # The top-level domain `.invalid` never resolves (RFC 2606).
            body["output"] = [f"https://outputs.runway.invalid/{task.id}/output.mp4?_jwt=simulated-{self._signed_urls}"]
        elif step.status == "FAILED":
            body |= {"failure": "An unexpected error occurred.", "failureCode": "INTERNAL.BAD_OUTPUT.CODE01"}
        credit = CREDITS if step.status == "SUCCEEDED" or not step.is_terminal else 0
        body["cost" if step.is_terminal else "estimatedCost"] = {"credits": credit}
        return JSONResponse(body)

    async def _delete(self, task: Task) -> Response:
        """Cancel or delete a task. Either way it is no longer available."""
        del self.tasks[task.id]
        return Response(status_code=204)
