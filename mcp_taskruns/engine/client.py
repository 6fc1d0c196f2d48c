"""The client of the providers: the only way to send a request to one.

It applies rate limits, the deadline of a call and retries, and redacts every body and event before a caller sees it.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from mcp_taskruns.core.calls.addresses import is_loopback_url
from mcp_taskruns.core.calls.bodies import Part, encode_multipart
from mcp_taskruns.core.calls.charsets import to_utf8
from mcp_taskruns.core.calls.credentials import credential_values
from mcp_taskruns.core.calls.errors import unknown_outcome_hint
from mcp_taskruns.core.calls.foreign import without_content
from mcp_taskruns.core.calls.received import HttpResponse
from mcp_taskruns.core.calls.redaction import Redactor
from mcp_taskruns.core.calls.redirects import (
    REDIRECTS,
    credential_in_url,
    follow_redirect,
    leads_elsewhere,
    redirected_error,
    redirected_operation,
    second_redirect,
    without_error_body,
)
from mcp_taskruns.core.calls.request import File, HttpRequest, base_uri, build_form_request, build_request
from mcp_taskruns.core.calls.response import CallResult, read_response
from mcp_taskruns.core.calls.sse import Event, is_sendable_id
from mcp_taskruns.core.calls.tokens import UNSENT_HINT
from mcp_taskruns.core.model.limits import Limits
from mcp_taskruns.core.model.operation import ErrorRule, Operation
from mcp_taskruns.engine.credentials import Tokens
from mcp_taskruns.engine.progress import Notify, ignore
from mcp_taskruns.engine.rate_limits import RateLimiter, Slot
from mcp_taskruns.engine.recent_starts import RecentStarts
from mcp_taskruns.engine.retries import MAX_RETRIES, Attempts, Key
from mcp_taskruns.engine.worker import Worker
from mcp_taskruns.errors import CallError, ProviderError, UpstreamError
from mcp_taskruns.settings import Settings

if TYPE_CHECKING:
    import httpx

    from mcp_taskruns.engine.exchange import Exchange, OpenResponse

STORAGE_ERRORS = (
    ErrorRule(
        hint="The form may have expired, or the file is not the one it was issued for: prepare the upload again."
    ),
)

Failure = TypeVar("Failure", bound=CallError)

logger = logging.getLogger(__name__)


class EventStream:
    """The redacted events of one connection, keep-alives included.

    Iterating raises UpstreamError when the connection is lost, or the body is not an event stream. `last_event_id` is
    the last id as it was received: it goes back to the provider and nowhere else.
    """

    def __init__(self, response: "OpenResponse", redactor: Redactor, worker: Worker) -> None:
        self.last_event_id = ""
        self._response = response
        self._redact = redactor.redact_text
        self._worker = worker

    async def aclose(self) -> None:
        """Close the connection."""
        await self._response.aclose()

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        async with aclosing(self._response.events()) as events:
            async for event in events:
                self.last_event_id = event.id
                yield replace(
                    event,
                    data=await self._worker.run(len(event.data), self._redact, event.data),
                    event=self._redact(event.event),
                    id=self._redact(event.id),
                )


class Client:
    """Sends the requests of all calls of this process.

    `transport` carries the requests; by default connections of our own (`engine.transport`). `settings.timeout` bounds
    one call with its retries, unless its operation has a timeout of its own.
    """

    def __init__(
        self, settings: Settings, operations: Iterable[Operation], transport: "httpx.AsyncBaseTransport | None" = None
    ) -> None:
        self.settings = settings
        self.redactor = Redactor(settings.tokens)
        self.worker = Worker()
        self.large_bodies = anyio.CapacityLimiter(1)  # several would take too much memory
        self.reader = Worker()  # of its own: what has been read is finished, and freed, before more is read
        self._transport = transport
        self._exchange: Exchange | None = None
        self.tokens = Tokens(self.exchange, self.redactor)
        self.recent_starts = RecentStarts()
        self._rate_limiters: dict[str, RateLimiter] = {}
        self.add_operations(operations)

    def add_operations(self, operations: Iterable[Operation]) -> None:
        """Prepare for calls of these operations: redact their credentials, and forget rate limits that changed."""
        limits: dict[str, set[Limits]] = {}
        credentials = {}
        for operation in operations:
            limits.setdefault(operation.provider, set()).add(operation.limits)
            credentials[(operation.authentication, *operation.credentials())] = operation
        values = (credential_values(operation, self.settings.environment) for operation in credentials.values())
        self.redactor.add(chain.from_iterable(values))
        self._rate_limiters = {
            name: limiter for name, limiter in self._rate_limiters.items() if limiter.limits in limits.get(name, ())
        }

    @asynccontextmanager
    async def open(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        *,
        notify: Notify = ignore,
        safe_to_retry: bool | None = None,
    ) -> AsyncIterator[CallResult | EventStream]:
        """Call an operation; yield its complete result, or its event stream if the provider returns one.

        A lost connection or a busy provider leads to retries where these are safe: `safe_to_retry` overrides the
        operation's own word. `notify` receives a line about each delay. Raises CallError when the request cannot be
        sent, gets no response in time, or is refused.
        """
        if safe_to_retry is not None:
            operation = replace(operation, safe_to_retry=safe_to_retry)
        request = build_request(operation, arguments, self.settings.environment)
        async with AsyncExitStack() as connection:
            yield await _Call(self, operation, request, notify).send(connection)

    async def fetch(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        *,
        notify: Notify = ignore,
        safe_to_retry: bool | None = None,
        key: Key = Key.NONE,
        max_retries: int = MAX_RETRIES,
    ) -> CallResult:
        """Call an operation and return its complete result; an event stream is read as text. Raises CallError.

        `key`: which idempotency key the arguments contain. A request with one is safe to retry.
        """
        if safe_to_retry is not None or key is not Key.NONE:
            operation = replace(operation, safe_to_retry=safe_to_retry is not False)
        request = build_request(operation, arguments, self.settings.environment)
        call = _Call(self, operation, request, notify, max_retries=max_retries, key=key, is_streaming=False)
        return await self._fetch(call)

    async def post_form(self, operation: Operation, form: Any, file: File, *, notify: Notify = ignore) -> CallResult:
        """Send a file once to a presigned form, `{url, fields}`, from a response of the operation.

        The form holds its own credential; the provider's is not sent. What the storage sends is not part of the result
        or of an error. Raises CallError.
        """
        storage = f"{operation.provider}'s storage"
        fields = form.get("fields") if isinstance(form, Mapping) else None
        if not isinstance(fields, Mapping) or not all(isinstance(value, str) for value in fields.values()):
            raise UpstreamError(f"{operation.provider} returned no usable upload form", hint="Please report this.")
        parts = [Part(name, value.encode()) for name, value in fields.items()]
        parts.append(Part("file", file.content, file.name, file.media_type or "application/octet-stream"))
        is_local = is_loopback_url(base_uri(operation, self.settings.environment))
        request = build_form_request(storage, str(form.get("url")), *encode_multipart(parts), is_local=is_local)
        upload = Operation(
            f"{operation.name} form", storage, "POST", operation.base, (), errors=STORAGE_ERRORS, safe_to_retry=True
        )
        call = _Call(self, upload, request, notify, max_retries=0, is_streaming=False, shows_body=False)
        return await self._fetch(call)

    @asynccontextmanager
    async def open_stream(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        *,
        last_event_id: str = "",
        seconds: float | None = None,
        slot: Slot = Slot.STREAM,
    ) -> AsyncIterator[EventStream]:
        """Yield the event stream of an operation, from after `last_event_id` where the provider supports that.

        Tries once, for at most `seconds`. `slot`: NONE if the call holds the slot of an earlier connection. Raises
        CallError, also for a response that is not an event stream.
        """
        request = build_request(operation, arguments, self.settings.environment)
        if is_sendable_id(last_event_id):
            headers = [(name, value) for name, value in request.headers if name.lower() != "last-event-id"]
            request = replace(request, headers=(*headers, ("Last-Event-ID", last_event_id)))
        timeout = min(self.settings.timeout, seconds or self.settings.timeout)
        async with AsyncExitStack() as connection:
            call = _Call(self, operation, request, ignore, max_retries=0, timeout=timeout, slot=slot)
            opened = await call.send(connection)
            if not isinstance(opened, EventStream):
                raise no_stream(request, opened.status)
            yield opened

    async def _fetch(self, call: "_Call") -> CallResult:
        async with AsyncExitStack() as connection:
            result = await call.send(connection)
            assert isinstance(result, CallResult)
            return result

    def rate_limiter(self, operation: Operation) -> RateLimiter:
        """Return the rate limiter of the operation's provider."""
        limiter = self._rate_limiters.get(operation.provider)
        if limiter is None:
            has_rates = not self.settings.no_rate_limits
            limiter = RateLimiter(operation.provider, operation.limits, has_rates=has_rates)
            self._rate_limiters[operation.provider] = limiter
        return limiter

    def exchange(self) -> "Exchange":
        """Return the HTTP exchange, which the first call opens."""
        if self._exchange is None:
            # httpx and aiohttp take 0.2 s to import: the first call pays for them, not the start.
            from mcp_taskruns.engine.exchange import Exchange

            self._exchange = Exchange(self.settings.timeout, self._transport)
        return self._exchange

    def redact_result(self, result: CallResult, structured: dict[str, Any] | None = None) -> CallResult:
        """Redact a result once more: decoding may have spelled out a secret that the raw body only encoded.

        `structured` is its structured content, which is redacted already.
        """
        redact = self.redactor.redact_plain_text
        return replace(
            result,
            text=redact(result.text),
            media_type=redact(result.media_type),
            notes=tuple(map(redact, result.notes)),
            structured=structured,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            await exchange.aclose()


class _Call:
    """One call of an operation: its request, sent as often as is safe and necessary.

    `timeout` bounds all attempts together, in seconds. `is_streaming`: an event stream is returned open, not read.
    `shows_body`: the result, or the error, is made of the body too.
    """

    def __init__(
        self,
        client: Client,
        operation: Operation,
        request: HttpRequest,
        notify: Notify,
        *,
        max_retries: int = MAX_RETRIES,
        timeout: float | None = None,
        slot: Slot | None = None,
        key: Key = Key.NONE,
        is_streaming: bool = True,
        shows_body: bool = True,
    ) -> None:
        self._client = client
        self._operation = operation
        self._request = request
        self._notify = notify
        self._max_retries = max_retries
        self._timeout = timeout or operation.timeout_s or client.settings.timeout
        self._key = key
        self._slot = slot or (Slot.STREAM if operation.is_stream or operation.is_held else Slot.REQUEST)
        self._is_streaming = is_streaming
        self._shows_body = shows_body
        self._rate_limiter = client.rate_limiter(operation)
        self._token = ""
        self._refused_token = ""

    async def send(self, connection: AsyncExitStack) -> CallResult | EventStream:
        """Send the request until an attempt succeeds. `connection` closes what the result still needs."""
        deadline = anyio.current_time() + self._timeout
        attempts = Attempts(
            deadline=deadline,
            max_retries=self._max_retries,
            is_safe_to_retry=self._request.safe_to_retry,
            notify=self._notify,
            key=self._key,
        )
        while True:
            try:
                await self._rate_limiter.take_token(
                    self._operation.request_kind,
                    deadline=deadline,
                    notify=self._notify,
                    is_stream=self._operation.is_stream,
                )
            except UpstreamError as exc:
                raise attempts.give_up(exc) from exc.__cause__
            try:
                async with AsyncExitStack() as attempt:
                    result = await self._attempt(attempt, deadline)
                    connection.push_async_exit(attempt.pop_all())
                    return result
            except CallError as exc:
                if not self._renews_token(exc):
                    await attempts.wait(exc)

    def _renews_token(self, failure: CallError) -> bool:
        """Whether the provider refused a token without carrying the request out: a new one is tried once."""
        token = self._request.token
        if token is None or self._refused_token or not isinstance(failure, ProviderError) or failure.outcome_unknown:
            return False
        if failure.status not in token.endpoint.renew_after:
            return False
        self._refused_token = self._token
        return True

    async def _attempt(self, connection: AsyncExitStack, deadline: float) -> CallResult | EventStream:
        async with AsyncExitStack() as large:
            return await self._attempt_once(connection, large, deadline)

    async def _attempt_once(
        self, connection: AsyncExitStack, large: AsyncExitStack, deadline: float
    ) -> CallResult | EventStream:
        """Send the request. `large` holds the right to read a large body until the response has been interpreted."""
        request = await self._with_token(deadline)
        await connection.enter_async_context(
            self._rate_limiter.slot(self._slot, deadline=deadline, notify=self._notify)
        )
        started_at = anyio.current_time()
        with anyio.move_on_after(deadline - started_at) as scope:
            response = await self._send_request(request, connection)
            is_redirected = response.request is not request
            if self._is_streaming and response.is_event_stream and not is_redirected:
                return EventStream(response, self._client.redactor, self._client.worker)
            complete = await self._read_body(response, large)
        if scope.cancelled_caught:
            raise self._timeout_error()
        await connection.aclose()  # frees the slot
        elapsed = anyio.current_time() - started_at
        logger.debug("response provider=%s status=%d seconds=%.3f", self._request.provider, complete.status, elapsed)
        read = self._read_redirected if is_redirected else self._read
        return await self._client.reader.run(len(complete.body), read, complete)

    async def _send_request(self, request: HttpRequest, connection: AsyncExitStack) -> "OpenResponse":
        """Send the request and follow one redirect, if the operation allows it."""
        exchange = self._client.exchange()
        response = await connection.enter_async_context(exchange.send(request))
        if not self._operation.follow_redirect or response.status not in REDIRECTS:
            return response
        is_local = is_loopback_url(request.url)
        redirected = follow_redirect(request, response.status, response.location, is_local=is_local)
        if leads_elsewhere(request, redirected) and self._client.redactor.redact_text(redirected.url) != redirected.url:
            raise credential_in_url(redirected, response.status)
        await response.aclose()
        response = await connection.enter_async_context(exchange.send(redirected))
        if response.status in REDIRECTS:
            raise second_redirect(redirected, response.status)
        return response

    async def _with_token(self, deadline: float) -> HttpRequest:
        """Return the request with its bearer token, if it needs one."""
        request = self._request
        if request.token is None:
            return request
        try:
            with anyio.fail_after(deadline - anyio.current_time()):
                self._token = await self._client.tokens.get(request.provider, request.token, self._refused_token)
        except TimeoutError as exc:
            raise UpstreamError(
                f"the token endpoint of {request.provider} did not respond within {self._timeout:g} s",
                kind="timeout",
                hint=UNSENT_HINT,
                retryable=True,
            ) from exc
        headers = [(name, value) for name, value in request.headers if name.lower() != "authorization"]
        return replace(request, headers=(*headers, ("Authorization", f"Bearer {self._token}")))

    async def _read_body(self, response: "OpenResponse", large: AsyncExitStack) -> HttpResponse:
        take_turn = partial(large.enter_async_context, self._client.large_bodies)
        try:
            return await response.read(is_file=self._operation.returns_file, before_more=take_turn)
        except UpstreamError as exc:
            raise self._with_unknown_outcome(exc) from exc.__cause__

    def _with_unknown_outcome(self, failure: Failure) -> Failure:
        """Return the failure of a request that has arrived, and may have been carried out unless it only reads."""
        return failure.replace(outcome_unknown=not self._request.only_reads)

    def _read(self, response: HttpResponse) -> CallResult:
        """Return the result of a response. After a 429, no request is sent until the provider's delay has passed."""
        operation, settings = self._operation, self._client.settings
        response = to_utf8(response)  # so that credentials in it are found
        shown = response if self._shows_body else without_content(response)
        body = self._client.redactor.redact_bytes(shown.body)
        redacted = shown if body is shown.body else replace(shown, body=body)
        try:
            result = read_response(redacted, operation, reveal=settings.reveal_secrets)
        except ProviderError as exc:
            if exc.kind == "rate_limited" and exc.retry_after_s:
                self._rate_limiter.hold(operation.request_kind, exc.retry_after_s, is_stream=operation.is_stream)
            if exc.status is not None and exc.status < 300:  # the provider accepted the request
                raise self._with_unknown_outcome(exc) from exc.__cause__
            raise
        if operation.is_stream and response.body and result.value is None:
            raise no_stream(self._request, response.status)
        return result

    def _read_redirected(self, response: HttpResponse) -> CallResult:
        """Return the result of a response from the address to which the provider has redirected the request."""
        shown = without_error_body(to_utf8(response))
        redacted = replace(shown, body=self._client.redactor.redact_bytes(shown.body))
        operation = redirected_operation(self._operation)
        try:
            return read_response(redacted, operation, reveal=self._client.settings.reveal_secrets)
        except ProviderError as exc:
            raise redirected_error(exc, response.host) from exc.__cause__

    def _timeout_error(self) -> UpstreamError:
        request = self._request
        return UpstreamError(
            f"{request.provider} did not respond within {self._timeout:g} s",
            kind="timeout",
            hint=unknown_outcome_hint(is_safe=request.is_safe, is_safe_to_retry=request.safe_to_retry),
            retryable=request.safe_to_retry,
            outcome_unknown=not request.only_reads,
        )


def no_stream(request: HttpRequest, status: int) -> UpstreamError:
    """Return the error of a response that should have been an event stream."""
    return UpstreamError(
        f"{request.provider} returned {status} without an event stream",
        hint="Nothing was changed. Read the run's status with another tool.",
        status=status,
    )
