"""A request to a provider and its answer: bounded in time, within the provider's limits, free of secrets."""

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, Any

import anyio

from mcp_taskruns.core.calls.bodies import Part, encode_multipart
from mcp_taskruns.core.calls.redaction import Redactor
from mcp_taskruns.core.calls.request import File, HttpRequest, build_form_request, build_request, credential_values
from mcp_taskruns.core.calls.response import CallResult, HttpResponse, read_response
from mcp_taskruns.core.model.limits import Limits
from mcp_taskruns.core.model.operation import ErrorRule, Operation
from mcp_taskruns.engine.rate_limits import Tell, Throttle, pause, silent
from mcp_taskruns.errors import CallError, ProviderError, UpstreamError
from mcp_taskruns.settings import Settings

if TYPE_CHECKING:
    from mcp_taskruns.engine.transport import Upstream, UpstreamAnswer

MAX_RETRIES = 3

RETRIED = frozenset({429, 502, 503, 504})
"""Refusals that a moment later may be none."""

STORAGE_ERRORS = (ErrorRule(hint="The form may be too old, or the file not what it was made for: prepare it again."),)

Follow = Callable[["UpstreamAnswer"], Awaitable[CallResult]]

logger = logging.getLogger(__name__)


class Exchange:
    """Calls operations for everybody of this process."""

    def __init__(self, settings: Settings, operations: Iterable[Operation]) -> None:
        self.settings = settings
        self.mask = Redactor(settings.tokens)
        self._upstream: Upstream | None = None
        self._throttles: dict[str, Throttle] = {}
        self.adopt(operations)

    def adopt(self, operations: Iterable[Operation]) -> None:
        """Let these operations be called from now on: their secrets are masked, their limits kept."""
        limits: dict[str, set[Limits]] = {}
        credentials = {}
        for operation in operations:
            limits.setdefault(operation.provider, set()).add(operation.limits)
            credentials[(operation.authentication, *operation.credentials())] = operation
        values = (credential_values(operation, self.settings.environment) for operation in credentials.values())
        self.mask.add(chain.from_iterable(values))
        kept = {name: throttle for name, throttle in self._throttles.items() if throttle.limits in limits.get(name, ())}
        self._throttles = kept

    async def fetch(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        follow: Follow | None = None,
        *,
        tell: Tell = silent,
        repeatable: bool | None = None,
        max_retries: int = MAX_RETRIES,
    ) -> CallResult:
        """The outcome of a request; an answer that is an event stream is what `follow` makes of it.

        What passes (a lost connection, a provider that is busy) is tried again within the time that a call has, where
        that is safe: `repeatable` says so instead of the operation. `tell` is told of waiting. Raises CallError: what
        cannot be sent, what does not arrive in time, and what the provider refuses.
        """
        request = build_request(operation, arguments, self.settings.environment)
        if repeatable is not None:
            operation, request = replace(operation, safe_to_retry=repeatable), replace(request, repeatable=repeatable)
        return await self._send(request, operation, follow, tell, max_retries)

    async def post_form(self, operation: Operation, form: Any, file: File, *, tell: Tell = silent) -> CallResult:
        """Send a file to a presigned form, `{url, fields}`, that came in an answer of the operation.

        No credential goes with it: the form holds what it needs. Raises CallError.
        """
        place = f"{operation.provider}'s storage"
        fields = form.get("fields") if isinstance(form, Mapping) else None
        if not isinstance(fields, Mapping) or not all(isinstance(value, str) for value in fields.values()):
            raise UpstreamError(f"{operation.provider} did not say how the file is sent", hint="Report this.")
        parts = [Part(name, value.encode()) for name, value in fields.items()]
        parts.append(Part("file", file.content, file.name, file.media_type or "application/octet-stream"))
        request = build_form_request(place, str(form.get("url")), *encode_multipart(parts))
        storage = Operation(
            f"{operation.name} form", place, "POST", operation.base, (), errors=STORAGE_ERRORS, safe_to_retry=True
        )
        return await self._send(request, storage, None, tell, MAX_RETRIES)

    async def _send(
        self, request: HttpRequest, operation: Operation, follow: Follow | None, tell: Tell, max_retries: int
    ) -> CallResult:
        seconds = operation.timeout_s or self.settings.timeout
        deadline = anyio.current_time() + seconds
        throttle = self._throttle(operation)
        tries = 0
        failure: CallError | None = None
        while True:
            try:
                await throttle.turn(reads=operation.is_safe, deadline=deadline, tell=tell)
            except UpstreamError:
                if failure is None:
                    raise
                raise _counted(failure, tries) from None  # what happened, and not that there is no other try
            if failure is not None and anyio.current_time() >= deadline:
                raise _counted(failure, tries)
            tries += 1
            try:
                async with throttle.place(is_stream=operation.is_stream, deadline=deadline, tell=tell):
                    whole = await self._exchange(request, follow, deadline, seconds)
                return whole if isinstance(whole, CallResult) else self._told(whole, operation, request)
            except CallError as exc:
                wait = None
                if tries <= max_retries and _may_pass(exc, request):
                    wait = exc.retry_after_s or backoff(tries)
                if wait is None or anyio.current_time() + wait >= deadline:
                    raise _counted(exc, tries) from exc.__cause__
                failure = exc
                reason = f"{exc.message.removesuffix('.')}; trying again ({tries} of {max_retries})"
            await pause(wait, reason, tell)

    async def _exchange(
        self, request: HttpRequest, follow: Follow | None, deadline: float, seconds: float
    ) -> HttpResponse | CallResult:
        """The whole answer; of an event stream what `follow` makes of it, which has bounds of its own."""
        began = anyio.current_time()
        try:
            with anyio.fail_after(deadline - began) as bound:
                async with self._open_upstream().send(request) as answer:
                    if follow is not None and answer.is_event_stream:
                        bound.deadline = inf
                        return await follow(answer)
                    whole = await answer.read()
        except TimeoutError as exc:
            raise self._timed_out(request, seconds) from exc
        took = anyio.current_time() - began
        logger.debug("answered provider=%s status=%d seconds=%.3f", request.provider, whole.status, took)
        return whole

    def _told(self, whole: HttpResponse, operation: Operation, request: HttpRequest) -> CallResult:
        outcome = self._read(whole, operation)
        if operation.is_stream and whole.body and outcome.value is None:
            raise self._no_stream(request, whole.status)
        return outcome

    def _read(self, whole: HttpResponse, operation: Operation) -> CallResult:
        """What an answer means. A provider that refuses because of its rate is left alone for as long as it says."""
        masked = replace(whole, body=self.mask.redact_bytes(whole.body))
        try:
            return read_response(masked, operation, reveal=self.settings.reveal_secrets)
        except ProviderError as exc:
            if exc.kind == "rate_limited" and exc.retry_after_s:
                self._throttle(operation).hold(reads=operation.is_safe, seconds=exc.retry_after_s)
            raise

    def _throttle(self, operation: Operation) -> Throttle:
        throttle = self._throttles.get(operation.provider)
        if throttle is None:
            has_rates = not self.settings.no_rate_limits
            throttle = Throttle(operation.provider, operation.limits, has_rates=has_rates)
            self._throttles[operation.provider] = throttle
        return throttle

    @asynccontextmanager
    async def open_stream(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        *,
        last_event_id: str = "",
        seconds: float | None = None,
        has_place: bool = False,
    ) -> "AsyncIterator[UpstreamAnswer]":
        """The event stream of an operation, from after `last_event_id` where the server knows it.

        Opening it takes `seconds` at most, or as long as any request. `has_place`: it takes the place of one that the
        call has followed. Raises CallError, also for an answer that is no event stream.
        """
        within = min(self.settings.timeout, seconds or inf)
        deadline = anyio.current_time() + within
        request = build_request(operation, arguments, self.settings.environment)
        if last_event_id.isascii() and last_event_id.isprintable() and last_event_id:
            kept = [(name, value) for name, value in request.headers if name.lower() != "last-event-id"]
            request = replace(request, headers=(*kept, ("Last-Event-ID", last_event_id)))
        throttle = self._throttle(operation)
        await throttle.turn(reads=operation.is_safe, deadline=deadline, tell=silent)
        async with (
            nullcontext() if has_place else throttle.place(is_stream=True, deadline=deadline, tell=silent),
            self._opened(request, deadline, within) as answer,
        ):
            if not answer.is_event_stream:
                try:
                    with anyio.fail_after(self.settings.timeout):
                        whole = await answer.read()
                except TimeoutError as exc:
                    raise self._timed_out(request, self.settings.timeout) from exc
                self._read(whole, operation)
                raise self._no_stream(request, whole.status)
            yield answer

    @asynccontextmanager
    async def _opened(self, request: HttpRequest, deadline: float, seconds: float) -> "AsyncIterator[UpstreamAnswer]":
        sending = self._open_upstream().send(request)
        try:
            with anyio.fail_after(deadline - anyio.current_time()):
                answer = await sending.__aenter__()
        except TimeoutError as exc:
            raise self._timed_out(request, seconds) from exc
        try:
            yield answer
        finally:
            await sending.__aexit__(None, None, None)

    def redact_result(self, outcome: CallResult) -> CallResult:
        """The outcome masked once more: what was decoded since its answer entered may spell a secret anew."""
        return replace(
            outcome,
            text=self.mask.redact_plain_text(outcome.text),
            media_type=self.mask.redact_plain_text(outcome.media_type),
            notes=tuple(map(self.mask.redact_plain_text, outcome.notes)),
        )

    async def aclose(self) -> None:
        """Hang up on the providers."""
        if self._upstream is not None:
            upstream, self._upstream = self._upstream, None
            await upstream.aclose()

    def _open_upstream(self) -> "Upstream":
        if self._upstream is None:
            # The HTTP client takes 150 ms to import: paid by the first call, not by the start.
            from mcp_taskruns.engine.transport import Upstream

            self._upstream = Upstream(self.settings.timeout)
        return self._upstream

    def _no_stream(self, request: HttpRequest, status: int) -> UpstreamError:
        return UpstreamError(
            f"{request.provider} answered {status} without an event stream",
            hint="Nothing was changed: read how things stand with another tool.",
        )

    def _timed_out(self, request: HttpRequest, seconds: float) -> UpstreamError:
        from mcp_taskruns.engine.transport import timed_out

        return timed_out(request, seconds)


def _counted(failure: CallError, tries: int) -> CallError:
    failure.message += f" ({tries} tries)" if tries > 1 else ""
    return failure


def _may_pass(failure: CallError, request: HttpRequest) -> bool:
    """Whether the same request may succeed in a moment, and to send it again is safe."""
    if isinstance(failure, UpstreamError):
        return failure.retryable  # which it is not when the request may have arrived, and must not arrive twice
    return request.repeatable and failure.retryable and failure.status in RETRIED


def backoff(attempt: int, longest: float = inf) -> float:
    """The seconds before trying again after so many failures: exponential, with full jitter, from one second on."""
    return random.uniform(0, min(2.0 ** (attempt - 1), longest))
