"""The response of a provider as it was received."""

from collections.abc import Mapping
from dataclasses import dataclass, field

JSON_LINES = frozenset(
    f"application/{name}"
    for name in ("jsonl", "json-lines", "jsonlines", "ndjson", "x-jsonl", "x-json-lines", "x-jsonlines", "x-ndjson")
)
_JSON = frozenset({"application/json", "application/x-json", "text/json", "text/x-json"})


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
        notes: sentences about the body that are not part of it.
        media_type: the content type in lower case without parameters; the first one of several, empty if there is none.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    received_at: float = 0.0
    host: str = ""
    proxy: str = ""
    notes: tuple[str, ...] = ()
    media_type: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        media_type = self.headers.get("content-type", "").partition(";")[0].partition(",")[0].strip().lower()
        object.__setattr__(self, "media_type", media_type)

    @property
    def is_json(self) -> bool:
        """Whether the content type is one of JSON."""
        return is_json(self.media_type)

    @property
    def is_json_lines(self) -> bool:
        """Whether the content type is one of JSON lines."""
        return self.media_type in JSON_LINES

    @property
    def is_text(self) -> bool:
        """Whether the content type is one of text other than JSON, or missing."""
        return is_text(self.media_type)


def is_json(media_type: str) -> bool:
    """Whether a media type in lower case is one of JSON."""
    return media_type in _JSON or media_type.endswith("+json")


def is_text(media_type: str) -> bool:
    """Whether a media type in lower case is one of text other than JSON, or missing."""
    if is_json(media_type):
        return False
    return not media_type or media_type.startswith("text/") or media_type.endswith(("xml", "yaml", "javascript"))
