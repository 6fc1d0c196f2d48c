"""Bearer tokens that this process fetches, keeps until shortly before their end, and replaces."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import anyio

from mcp_taskruns.core.calls.charsets import to_utf8
from mcp_taskruns.core.calls.received import HttpResponse
from mcp_taskruns.core.calls.redaction import Redactor
from mcp_taskruns.core.calls.request import HttpRequest
from mcp_taskruns.core.calls.tokens import UNSENT_HINT, Token, TokenRequest, read_token
from mcp_taskruns.errors import CallError, UpstreamError

if TYPE_CHECKING:
    from mcp_taskruns.engine.exchange import Exchange

logger = logging.getLogger(__name__)


class _Kept:
    """The token of one request, and the last failure to fetch it."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.token = ""
        self.valid_until = 0.0
        self.failure: CallError | None = None
        self.failures = 0

    def accept(self, token: Token) -> None:
        """Keep a token that has just been fetched."""
        self.token = token.value
        self.valid_until = float("inf") if token.seconds is None else anyio.current_time() + token.seconds
        self.failure = None


class Tokens:
    """Fetches each token with one request at a time; calls that wait for it share the outcome.

    All tokens are redacted from the moment they arrive, also the one that was replaced last.
    """

    def __init__(self, exchange: "Callable[[], Exchange]", redactor: Redactor) -> None:
        self._exchange = exchange
        self._redactor = redactor
        self._kept: dict[TokenRequest, _Kept] = {}

    async def get(self, provider: str, request: TokenRequest, refused: str = "") -> str:
        """Return a valid token, not the one that the provider has refused. Raises CallError."""
        kept = self._kept.setdefault(request, _Kept())
        earlier_failures = kept.failures
        async with kept.lock:
            if kept.token not in {"", refused} and anyio.current_time() < kept.valid_until:
                return kept.token
            if kept.failure is not None and kept.failures > earlier_failures:
                raise kept.failure.replace()
            try:
                token = await self._fetch(provider, request)
            except CallError as exc:
                kept.failure, kept.failures = exc, kept.failures + 1
                raise
            self._redactor.redact_instead(request, {token.value, kept.token})
            kept.accept(token)
            return kept.token

    async def _fetch(self, provider: str, request: TokenRequest) -> Token:
        name = f"the token endpoint of {provider}"
        started_at = anyio.current_time()
        message = HttpRequest(name, "POST", request.url, request.headers, request.content, safe_to_retry=True)
        try:
            async with self._exchange().send(message) as opened:
                response = to_utf8(await opened.read(before_more=_refuse_more))
        except UpstreamError as exc:
            hint = UNSENT_HINT if exc.outcome_unknown else exc.hint
            raise exc.replace(hint=hint, outcome_unknown=False) from exc.__cause__
        elapsed = anyio.current_time() - started_at
        logger.debug("token provider=%s status=%d seconds=%.3f", provider, response.status, elapsed)
        return read_token(self._redact_error(response), request, name)

    def _redact_error(self, response: HttpResponse) -> HttpResponse:
        """Redact the body of an error response. That of another one is shown to nobody, and has a token."""
        is_error = not 200 <= response.status < 300
        return replace(response, body=self._redactor.redact_bytes(response.body)) if is_error else response


async def _refuse_more() -> NoReturn:
    raise UpstreamError(
        "the token endpoint sent more than a token",
        kind="auth",
        hint="Nothing was sent to the provider itself. Check `tokenUri` in the overlay.",
    )
