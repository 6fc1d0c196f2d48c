"""A limit on the values of a message, which the SDK parses at once: 60 MB of empty lists take 18 s and 1.8 GB."""

from mcp.types import INVALID_REQUEST
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_taskruns.core.model.json import JsonLimitExceeded, check_bounded


class MessageLimit:
    """ASGI middleware that refuses a message with too many values. A body has to arrive as one ASGI message."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        first: Message | None = await receive()
        assert first is not None
        try:
            check_bounded(first.get("body", b""))
        except JsonLimitExceeded as exc:
            error = {"code": INVALID_REQUEST, "message": f"The message is JSON that {exc}"}
            await JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, 413)(scope, receive, send)
            return

        async def replay() -> Message:
            nonlocal first
            message, first = first, None
            return message or await receive()

        await self._app(scope, replay, send)
