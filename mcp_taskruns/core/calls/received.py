"""The response of a provider as it was received."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class HttpResponse:
    """A complete response of the provider.

    Attributes:
        status: the status code.
        headers: the headers, with names in lower case.
        body: the decoded body.
        received_at: when it was received, in seconds since 1970.
        host: the host and the port that the request was sent to; may be empty.
        proxy: the host and the port of the proxy that the request was sent over; empty without a proxy.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    received_at: float = 0.0
    host: str = ""
    proxy: str = ""

    @property
    def media_type(self) -> str:
        """The content type in lower case without parameters; empty if there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()
