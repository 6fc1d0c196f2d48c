"""The traffic of the simulated providers: recorded requests, queued faults and open connections."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from mcp_taskruns.simulator.faults import Fault
from mcp_taskruns.simulator.lifecycle import Change

# More than any test sends. The limit keeps a simulator that runs for days from growing.
MAX_RECORDED = 10_000


@dataclass(frozen=True)
class RecordedRequest:
    """One request as received."""

    provider: str
    method: str
    # Path and query string with their percent-encoding.
    path: str
    # Names in lower case.
    headers: tuple[tuple[str, str], ...]
    body: bytes
    # Set when the client disconnects before it has received the whole response.
    disconnected: anyio.Event = field(default_factory=anyio.Event, compare=False, repr=False)


class Traffic:
    """Records requests, hands out the queued faults and drops connections, by provider."""

    def __init__(self, providers: Sequence[str]) -> None:
        self.requests: list[RecordedRequest] = []
        # Called with every recorded request; returns a fault for it. Queued faults take precedence.
        self.on_request: Callable[[RecordedRequest], Fault | None] | None = None
        self._arrival = Change()
        self._faults: dict[str, deque[Fault]] = {provider: deque() for provider in providers}
        self._connections: dict[str, set[anyio.CancelScope]] = {provider: set() for provider in providers}

    def provider_of(self, path: str) -> str | None:
        """Return the provider that a URL path leads to, or None."""
        name = path.split("/", 2)[1] if path.startswith("/") else ""
        return name if name in self._faults else None

    def fail_next(self, provider: str, fault: Fault) -> None:
        """Queue a fault for the next request to `provider`; faults queued later apply to later requests.

        Raises ValueError for an unknown provider.
        """
        if provider not in self._faults:
            raise ValueError(f"unknown provider {provider!r}; use one of {', '.join(self._faults)}")
        self._faults[provider].append(fault)

    def record(self, request: RecordedRequest) -> Fault | None:
        """Record a request and return the fault to apply to it, if any."""
        self.requests.append(request)
        del self.requests[:-MAX_RECORDED]
        self._arrival.notify()
        chosen = self.on_request(request) if self.on_request else None
        queued = self._faults[request.provider]
        return queued.popleft() if queued else chosen

    async def wait_for_request(self, matches: Callable[[RecordedRequest], bool]) -> RecordedRequest:
        """Return the first matching request, waiting for it if it has not been recorded yet."""
        seen = 0
        while True:
            with self._arrival.subscribe() as arrived:
                for request in self.requests[seen:]:
                    if matches(request):
                        return request
                seen = len(self.requests)
                await arrived.wait()

    @contextmanager
    def connection(self, provider: str, scope: anyio.CancelScope) -> Iterator[None]:
        """Register a connection on which a response is being sent; cancelling `scope` drops it."""
        self._connections[provider].add(scope)
        try:
            yield
        finally:
            self._connections[provider].discard(scope)

    def open_connections(self, provider: str) -> int:
        """Return the number of connections on which `provider` is sending a response."""
        return len(self._connections[provider])

    def drop_connections(self, provider: str) -> int:
        """Drop every connection on which `provider` is sending a response; return their number."""
        scopes = list(self._connections[provider])
        for scope in scopes:
            scope.cancel()
        return len(scopes)
