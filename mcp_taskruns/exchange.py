"""One request to a provider and its answer, bounded in time and free of secrets."""

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

import anyio

from mcp_taskruns.core.masking import Mask
from mcp_taskruns.core.operation import Operation
from mcp_taskruns.core.request import UpstreamRequest, build_request
from mcp_taskruns.core.result import Outcome, read_answer
from mcp_taskruns.errors import UpstreamError
from mcp_taskruns.settings import Settings

if TYPE_CHECKING:
    from mcp_taskruns.upstream import Upstream, UpstreamAnswer

logger = logging.getLogger(__name__)


class Exchange:
    """Calls operations for everybody of this process."""

    def __init__(self, settings: Settings, secrets: Iterable[str]) -> None:
        self.settings = settings
        self.mask = Mask(secrets)
        self._upstream: Upstream | None = None

    async def fetch(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        follow: "Callable[[UpstreamAnswer], Awaitable[Outcome]] | None" = None,
    ) -> Outcome:
        """The outcome of one request; an answer that is an event stream is what `follow` makes of it.

        Raises CallError: what cannot be sent, what does not arrive in time, and what the provider refuses.
        """
        request = build_request(operation, arguments, self.settings.environment)
        began = anyio.current_time()
        try:
            with anyio.fail_after(self.settings.timeout) as bound:
                async with self._open_upstream().send(request) as answer:
                    if follow is not None and answer.is_event_stream:
                        bound.deadline = inf  # a stream has bounds of its own
                        return await follow(answer)
                    whole = await answer.read()
        except TimeoutError as exc:
            raise self._timed_out(request) from exc
        seconds = anyio.current_time() - began
        logger.debug("answered operation=%s status=%d seconds=%.3f", operation.name, whole.status, seconds)
        outcome = read_answer(replace(whole, body=self.mask.data(whole.body)), operation)
        if operation.is_stream and whole.body and outcome.value is None:
            raise self._no_stream(request, whole.status)
        return outcome

    @asynccontextmanager
    async def open_stream(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        *,
        last_event_id: str = "",
        seconds: float | None = None,
    ) -> "AsyncIterator[UpstreamAnswer]":
        """The event stream of an operation, from after `last_event_id` where the server knows it.

        Opening it takes `seconds` at most, or as long as any request. Raises CallError, also for an answer that is no
        event stream.
        """
        within = min(self.settings.timeout, seconds or inf)
        request = build_request(operation, arguments, self.settings.environment)
        if last_event_id.isascii() and last_event_id.isprintable() and last_event_id:
            kept = [(name, value) for name, value in request.headers if name.lower() != "last-event-id"]
            request = replace(request, headers=(*kept, ("Last-Event-ID", last_event_id)))
        sending = self._open_upstream().send(request)
        try:
            with anyio.fail_after(within):
                answer = await sending.__aenter__()
        except TimeoutError as exc:
            raise self._timed_out(request, within) from exc
        try:
            if not answer.is_event_stream:
                with anyio.fail_after(self.settings.timeout):
                    whole = await answer.read()
                read_answer(replace(whole, body=self.mask.data(whole.body)), operation)
                raise self._no_stream(request, whole.status)
            yield answer
        finally:
            await sending.__aexit__(None, None, None)

    def mask_outcome(self, outcome: Outcome) -> Outcome:
        """The outcome masked once more: what was decoded since its answer entered may spell a secret anew."""
        return replace(
            outcome,
            text=self.mask.plain(outcome.text),
            media_type=self.mask.plain(outcome.media_type),
            notes=tuple(map(self.mask.plain, outcome.notes)),
        )

    async def aclose(self) -> None:
        """Hang up on the providers."""
        if self._upstream is not None:
            upstream, self._upstream = self._upstream, None
            await upstream.aclose()

    def _open_upstream(self) -> "Upstream":
        if self._upstream is None:
            # The HTTP client takes 150 ms to import: paid by the first call, not by the start.
            from mcp_taskruns.upstream import Upstream

            self._upstream = Upstream(self.settings.timeout)
        return self._upstream

    def _no_stream(self, request: UpstreamRequest, status: int) -> UpstreamError:
        return UpstreamError(f"{request.provider} answered {status} without an event stream")

    def _timed_out(self, request: UpstreamRequest, seconds: float | None = None) -> UpstreamError:
        from mcp_taskruns.upstream import timed_out

        return timed_out(request, seconds or self.settings.timeout)


def backoff(attempt: int, longest: float = inf) -> float:
    """The seconds before trying again after so many failures: exponential, with full jitter, from one second on."""
    return random.uniform(0, min(2.0 ** (attempt - 1), longest))
