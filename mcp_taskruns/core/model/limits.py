"""How much a provider is asked: calls at once, and calls in a period."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """How many calls a provider takes in any so many seconds: of reads, of writes, or of both (None)."""

    calls: int
    seconds: float
    of_reads: bool | None = None


@dataclass(frozen=True)
class Limits:
    """How much a provider is asked by one process: calls at once (None: as many as by default), and how often."""

    concurrency: int | None = None
    rates: tuple[Rate, ...] = ()


NO_LIMITS = Limits()
