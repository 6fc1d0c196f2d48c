"""How PostHog reads a request: its key, Accept header and body."""

import json
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from mcp_taskruns.simulator.posthog.errors import api_error


@dataclass(frozen=True)
class Key:
    """A personal API key. Its text determines its scopes and how it is treated."""

    text: str

    @property
    def scopes(self) -> frozenset[str]:
        return frozenset({"task:read"} if self.text == "phx_readonly" else {"task:read", "task:write"})

    @property
    def is_throttled(self) -> bool:
        return self.text == "phx_throttled"

    @property
    def is_in_outage(self) -> bool:
        return self.text == "phx_outage"

    @property
    def is_unentitled(self) -> bool:
        return self.text == "phx_unentitled"

    @property
    def is_over_limit(self) -> bool:
        return self.text == "phx_overlimit"


def read_key(request: Request) -> Key:
    """Return the personal API key. Project tokens (`phc_`) are invalid here. Raises a 401 or 403."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not text:
        detail = "Authentication credentials were not provided."
        raise api_error(401, "authentication_error", "not_authenticated", detail)
    if not text.startswith("phx_") or "wrong" in text:
        detail = "Personal API key found in request Authorization header is invalid."
        # Django REST framework responds with 403 if a view lists session authentication first.
        raise api_error(403 if "403" in text else 401, "authentication_error", "authentication_failed", detail)
    return Key(text)


def require_scope(key: Key, scope: str) -> None:
    """Raise a 403 if the key lacks the scope."""
    if scope not in key.scopes:
        detail = f"API key missing required scope '{scope}'"
        raise api_error(403, "authentication_error", "permission_denied", detail)


def require_accept(request: Request, media_type: str) -> None:
    """Raise a 406 unless the client accepts the media type of the only renderer. The framework ignores `q`."""
    family = media_type.partition("/")[0]
    ranges = request.headers.get("accept", "*/*").split(",")
    accepted = {media_range.partition(";")[0].strip().lower() for media_range in ranges}
    if not accepted & {"*/*", f"{family}/*", media_type}:
        raise api_error(406, "invalid_request", "not_acceptable", "Could not satisfy the request Accept header.")


async def read_json(request: Request) -> Any:
    """Parse the body. An empty body is an empty object, as in Django REST framework. Raises a 400 or 415."""
    raw = await request.body()
    if not raw:
        return {}
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip() != "application/json":
        detail = f'Unsupported media type "{content_type}" in request.'
        raise api_error(415, "invalid_request", "unsupported_media_type", detail)
    try:
        return json.loads(raw)
    except ValueError as exc:
        raise api_error(400, "invalid_request", "parse_error", f"JSON parse error - {exc}") from exc
