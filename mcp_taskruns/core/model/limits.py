"""Rate limits and concurrency limits of a provider."""

from dataclasses import dataclass
from enum import Enum


class RequestKind(Enum):
    """A kind of request that providers count separately."""

    READ = "read"
    """GET, HEAD and OPTIONS."""
    WRITE = "write"
    """All other methods."""


ALL_REQUESTS = frozenset(RequestKind)


@dataclass(frozen=True)
class Rate:
    """At most `requests` requests of the given kinds in any period of `per_seconds` seconds."""

    requests: int
    per_seconds: float
    kinds: frozenset[RequestKind] = ALL_REQUESTS


@dataclass(frozen=True)
class Limits:
    """The limits that one process keeps to for one provider."""

    max_concurrent_requests: int | None = None
    """None: the server's default."""
    rates: tuple[Rate, ...] = ()


NO_LIMITS = Limits()
