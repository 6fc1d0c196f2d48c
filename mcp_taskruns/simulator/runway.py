"""Runway's task API offline: read a task, cancel or delete it.

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
# How far apart the calls of the key key_throttled must be, in simulated seconds.
THROTTLE_SECONDS = 2.0


@dataclass(frozen=True)
class Task:
    id: str
    timeline: Timeline
    began: float | None = None


TASKS = (
    Task(
        "17f20503-6c24-4c16-946b-35dbbce2af2f",
        Timeline(
            (Step(0, "THROTTLED"), Step(2, "PENDING"), Step(4, "RUNNING"), Step(20, "SUCCEEDED", is_terminal=True)),
        ),
    ),
    Task("27f20503-6c24-4c16-946b-35dbbce2af2f", Timeline((Step(0, "SUCCEEDED", is_terminal=True),)), began=-3600),
    Task("37f20503-6c24-4c16-946b-35dbbce2af2f", Timeline((Step(0, "FAILED", is_terminal=True),)), began=-1800),
    Task("47f20503-6c24-4c16-946b-35dbbce2af2f", Timeline((Step(0, "THROTTLED"),)), began=-600),
    Task("57f20503-6c24-4c16-946b-35dbbce2af2f", Timeline((Step(0, "CANCELLED", is_terminal=True),)), began=-900),
)


def refusal(status: int, message: str, **more: Json) -> Response:
    return JSONResponse({"error": message, **more}, status)


def bad_request(code: str, path: list[str], message: str) -> Response:
    issue = {"code": code, "path": path, "message": message}
    return refusal(400, "Bad Request", issues=[issue], docUrl="https://docs.dev.runwayml.com/api")


class Runway:
    """GET and DELETE `/v1/tasks/{id}`; DELETE cancels a task that goes on and deletes one that has ended.

    Tasks are there from the start, since creating one is not among the operations simulated:

    - 17f20503-6c24-4c16-946b-35dbbce2af2f: begins when it is first read: throttled, pending after 2 simulated seconds,
      running after 4, succeeded after 20
    - 27f20503-…: succeeded
    - 37f20503-…: failed
    - 47f20503-…: throttled, and stays so
    - 57f20503-…: cancelled, but not by DELETE, after which a task cannot be fetched any more

    Keys that begin with `key_` are taken unless they contain `wrong`; `key_throttled` is let in every two simulated
    seconds. Output URLs are new with every GET, but lead nowhere and do not expire; daily limits, refunds, previews and
    failures without a code are not simulated.
    """

    name = "runway"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks = {task.id: task for task in TASKS}
        self._began = {task.id: task.began for task in TASKS}
        self._signed = 0
        self._throttled_until = 0.0

    def environment(self, origin: str) -> dict[str, str]:
        return {"RUNWAY_BASE_URL": f"{origin}/runway/v1", "RUNWAYML_API_SECRET": "key_simulated"}

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/v1/tasks/{task}", self._task, methods=ALL_METHODS),
            Route("/{rest:path}", self._unknown_path, methods=ALL_METHODS),
        ]

    async def _unknown_path(self, _: Request) -> Response:
        return refusal(404, "Not found")

    async def _task(self, request: Request) -> Response:
        operations: dict[str, Callable[[Task], Awaitable[Response]]] = {"GET": self._get, "DELETE": self._delete}
        operation = operations.get(request.method)
        if operation is None:
            return refusal(405, "Method not allowed")
        # The version is asked for before anything else.
        if request.headers.get("x-runway-version") != VERSION:
            return bad_request("invalid_value", ["header", "X-Runway-Version"], f"Expected version {VERSION}")
        if not has_valid_key(request, "key_"):
            return refusal(401, "You did not provide a valid API key.")
        if bearer_key(request) == "key_throttled" and (refused := self._throttle()):
            return refused
        task_id = request.path_params["task"]
        if not UUID4.fullmatch(task_id):
            return bad_request("invalid_format", ["params", "id"], "Invalid UUID")
        task = self._tasks.get(task_id.lower())
        return await operation(task) if task else refusal(404, "Could not find a task with that ID")

    def _throttle(self) -> Response | None:
        """Whether it is too early for another call."""
        now = self._clock.now()
        if now >= self._throttled_until:
            self._throttled_until = now + THROTTLE_SECONDS
            return None
        response = refusal(429, "Too many requests")
        response.headers["Retry-After"] = str(math.ceil(self._throttled_until - now))
        return response

    async def _get(self, task: Task) -> Response:
        now = self._clock.now()
        began = self._began[task.id]
        if began is None:
            began = self._began[task.id] = now
        step = task.timeline.at(now - began)
        shown: Json = {"id": task.id, "status": step.status, "createdAt": self._clock.timestamp(began)}
        if step.status == "RUNNING":
            end = task.timeline.duration or now
            shown["progress"] = round((now - began - step.at) / (end - step.at), 3)
        elif step.status == "SUCCEEDED":
            self._signed += 1
            # A name that no DNS will ever resolve (RFC 2606).
            shown["output"] = [f"https://outputs.runway.invalid/{task.id}/output.mp4?_jwt=simulated-{self._signed}"]
        elif step.status == "FAILED":
            shown |= {"failure": "An unexpected error occurred.", "failureCode": "INTERNAL.BAD_OUTPUT.CODE01"}
        credit = CREDITS if step.status == "SUCCEEDED" or not step.is_terminal else 0
        shown["cost" if step.is_terminal else "estimatedCost"] = {"credits": credit}
        return JSONResponse(shown)

    async def _delete(self, task: Task) -> Response:
        """Cancel or delete, without looking which: the task is gone either way."""
        del self._tasks[task.id]
        return Response(status_code=204)
