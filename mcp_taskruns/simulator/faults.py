"""Faults: failures that a test or another process injects into the response to the next request."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.responses import Response

from mcp_taskruns.simulator.http import Json

FAULT_FIELDS = frozenset({"provider", "status", "headers", "body", "delay", "truncate"})


@dataclass(frozen=True)
class Fault:
    """A delay, an error response or a truncated response for the next request to a provider.

    Raises ValueError when the fields do not fit together.
    """

    # Status code of a response that replaces the provider's own. None keeps the provider's response.
    status: int | None = None
    # Headers and body of the replacement.
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | bytes = b""
    # Real seconds to wait before responding.
    delay: float = 0.0
    # Announce the whole body, send half of its first chunk and drop the connection.
    truncate: bool = False

    def __post_init__(self) -> None:
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError(f"`status` must be between 200 and 599, not {self.status}")
        if self.delay < 0:
            raise ValueError(f"`delay` must not be negative: {self.delay}")
        if self.truncate and self.status is not None and not self.body:
            raise ValueError("`truncate` with a `status` needs a `body` to truncate")

    def response(self) -> Response | None:
        """Build the replacement response, or return None if the provider responds itself."""
        return None if self.status is None else Response(self.body, self.status, dict(self.headers))


def parse_fault(document: Json) -> tuple[str, Fault]:
    """Read a provider name and a fault from JSON. A `body` that is not a string is sent as JSON.

    Raises ValueError for a document that does not describe a fault.
    """
    if not isinstance(document, dict) or not isinstance(document.get("provider"), str):
        raise ValueError("a fault must be a JSON object with a `provider`")
    if unknown := set(document) - FAULT_FIELDS:
        raise ValueError(f"unknown fields: {', '.join(sorted(unknown))}")
    fields = {name: value for name, value in document.items() if name != "provider" and value is not None}
    try:
        if not isinstance(fields.get("body", ""), str):
            fields["body"] = json.dumps(fields["body"])
            fields["headers"] = {"Content-Type": "application/json"} | fields.get("headers", {})
        return document["provider"], Fault(**fields)
    except TypeError as error:
        raise ValueError(str(error)) from error
