"""The provider behind the tools that the MCP conformance suite calls."""

import itertools
import time

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route


class Jobs:
    """Jobs that end after some seconds or when they are cancelled."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._ends: dict[str, tuple[float, str]] = {}
        self.app = Starlette(
            routes=[
                Route("/greet", self._greet),
                Route("/confirm", self._confirm),
                Route("/slow", self._slow, methods=["POST"]),
                Route("/failing", self._failing, methods=["POST"]),
                Route("/jobs/{id}", self._job, methods=["GET", "DELETE"]),
            ]
        )

    async def _greet(self, request: Request) -> Response:
        return PlainTextResponse(f"Hello, {request.query_params['name']}!")

    async def _confirm(self, _: Request) -> Response:
        return PlainTextResponse("This tool does not ask.")

    async def _slow(self, request: Request) -> Response:
        return self._start(float((await request.json()).get("seconds", 0)), "succeeded")

    async def _failing(self, _: Request) -> Response:
        return self._start(0.5, "failed")

    def _start(self, seconds: float, status: str) -> Response:
        job = f"job-{next(self._numbers)}"
        self._ends[job] = (time.monotonic() + seconds, status)
        return JSONResponse(self._to_json(job), 202)

    async def _job(self, request: Request) -> Response:
        job = request.path_params["id"]
        if job not in self._ends:
            return JSONResponse({"error": "job not found"}, 404)
        if request.method == "DELETE":
            self._ends[job] = (time.monotonic(), "canceled")
            return Response(status_code=204)
        return JSONResponse(self._to_json(job))

    def _to_json(self, job: str) -> dict[str, str]:
        ends_at, status = self._ends[job]
        return {"id": job, "status": status if time.monotonic() >= ends_at else "running", "text": f"{job} has ended"}
