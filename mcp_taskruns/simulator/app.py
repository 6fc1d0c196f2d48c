"""The four providers as one ASGI app that records requests and injects faults."""

import json
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from mcp_taskruns.simulator.faults import Fault, parse_fault
from mcp_taskruns.simulator.inngest import Inngest
from mcp_taskruns.simulator.lifecycle import Clock
from mcp_taskruns.simulator.middleware import TrafficMiddleware
from mcp_taskruns.simulator.posthog.app import PostHog
from mcp_taskruns.simulator.render.app import Render
from mcp_taskruns.simulator.runway import Runway
from mcp_taskruns.simulator.traffic import RecordedRequest, Traffic


class Simulator:
    """Render, Inngest, PostHog and Runway below `/render`, `/inngest`, `/posthog` and `/runway`.

    Other processes use `POST /simulator/faults` (a provider and the fields of a `Fault`) and
    `GET /simulator/requests`. These have no authentication and there is no TLS: bind to the loopback interface only.
    Pass `render` to configure its rate limits; it must share `clock`.
    """

    def __init__(self, *, speed: float = 1.0, clock: Clock | None = None, render: Render | None = None) -> None:
        self.clock = clock or Clock(speed)
        self.render = render or Render(self.clock)
        self.inngest = Inngest(self.clock)
        self.posthog = PostHog(self.clock)
        self.runway = Runway(self.clock)
        self._providers = (self.render, self.inngest, self.posthog, self.runway)
        self.traffic = Traffic([provider.name for provider in self._providers])
        self.requests = self.traffic.requests
        self.app = Starlette(
            routes=[
                *(Mount(f"/{provider.name}", routes=provider.routes()) for provider in self._providers),
                Route("/simulator/faults", self._post_fault, methods=["POST"]),
                Route("/simulator/requests", self._get_requests, methods=["GET"]),
            ],
            middleware=[Middleware(TrafficMiddleware, traffic=self.traffic)],
        )

    def environment(self, origin: str) -> dict[str, str]:
        """Return the environment variables that point a server at the simulator served from `origin`."""
        return {name: value for provider in self._providers for name, value in provider.environment(origin).items()}

    def fail_next(self, provider: str, fault: Fault) -> None:
        """Queue a fault for the next request to `provider`; faults queued later apply to later requests.

        Raises ValueError for an unknown provider.
        """
        self.traffic.fail_next(provider, fault)

    def drop_connections(self, provider: str) -> int:
        """Drop every connection on which `provider` is sending a response; return their number."""
        return self.traffic.drop_connections(provider)

    async def wait_for_request(self, matches: Callable[[RecordedRequest], bool]) -> RecordedRequest:
        """Return the first matching request, waiting for it if it has not been recorded yet."""
        return await self.traffic.wait_for_request(matches)

    async def _post_fault(self, request: Request) -> Response:
        try:
            self.fail_next(*parse_fault(json.loads(await request.body())))
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        return Response(status_code=204)

    async def _get_requests(self, _: Request) -> Response:
        return JSONResponse(
            [
                {
                    "provider": request.provider,
                    "method": request.method,
                    "path": request.path,
                    "headers": request.headers,
                    "body": request.body.decode(errors="replace"),
                    "disconnected": request.disconnected.is_set(),
                }
                for request in self.requests
            ]
        )
