"""One operation of the API and one call of it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from mcp_taskruns.simulator.posthog.data import Run, Task
from mcp_taskruns.simulator.posthog.errors import not_found
from mcp_taskruns.simulator.posthog.http import Key
from mcp_taskruns.simulator.posthog.project import Project
from mcp_taskruns.simulator.posthog.validation import Field


@dataclass(frozen=True)
class Call:
    """A request with a valid key, query and body."""

    request: Request
    key: Key
    task: Task
    # The run in the path; None if the path has no run or an unknown one.
    optional_run: Run | None
    body: Mapping[str, Any]
    query: Mapping[str, Any]

    @property
    def run(self) -> Run:
        """The run in the path. Raises a 404 if it does not exist."""
        if self.optional_run is None:
            raise not_found()
        return self.optional_run

    @property
    def base(self) -> str:
        """The URL of the simulator's mount as the client sees it, for absolute URLs in responses."""
        url = self.request.url
        return f"{url.scheme}://{url.netloc}{self.request.scope.get('root_path', '')}"


@dataclass(frozen=True)
class Operation:
    """One method on one path."""

    handle: Callable[[Project, Call], Awaitable[Response]]
    scope: str = "task:write"
    # Fields to validate. None: the body or query is ignored.
    body: Mapping[str, Field] | None = None
    query: Mapping[str, Field] | None = None
    # Reject unknown fields of the body instead of dropping them.
    strict: bool = False
