"""What the statuses of a provider mean, guessed from their words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mcp_taskruns.generator.words import split_words

QUEUED: Final = "queued"
RUNNING: Final = "running"
PAUSED: Final = "paused"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELED: Final = "canceled"
STATUSES = (QUEUED, RUNNING, PAUSED, SUCCEEDED, FAILED, CANCELED)
TERMINAL = frozenset({SUCCEEDED, FAILED, CANCELED})

_PHRASES_OF: Mapping[str, str] = {
    QUEUED: (
        "queued, in queue, enqueued, pending, scheduled, waiting, wait, created, new, submitted, accepted, "
        "received, requested, delayed, deferred, dequeued, dispatched, assigned, allocated, starting, "
        "initializing, initialising, initialized, provisioning, preparing, validating, booting, init, planned, "
        "blocked by concurrency, waiting for resources, not started, unstarted, backlog, draft, idle, throttled, "
        "on queue, claimed, leased"
    ),
    RUNNING: (
        "running, in progress, inprogress, progress, processing, started, executing, active, working, generating, "
        "rendering, building, training, retrying, up for retry, retry, canceling, cancelling, stopping, aborting, "
        "timing out, terminating, finalizing, finalising, failing, completing, ongoing, restarting, continued as "
        "new, cancel requested, cancellation requested, stop requested, pending cancel, pending cancellation, "
        "run, busy, live"
    ),
    PAUSED: (
        "paused, suspended, on hold, held, blocked, frozen, requires action, requires input, action required, "
        "input required, waiting for approval, waiting for input, awaiting approval, awaiting input, needs "
        "approval, waiting on approval, requires approval, manual, hold"
    ),
    SUCCEEDED: (
        "succeeded, success, successful, succeed, complete, completed, done, passed, pass, finished, finish, ok, "
        "fulfilled, processed, ready, completed successfully, finished successfully, fixed"
    ),
    FAILED: (
        "failed, failure, fail, error, errored, errors, crashed, crash, timed out, timedout, timeout, time out, "
        "expired, incomplete, rejected, denied, interrupted, invalid, lost, dead, broken, exception, fault, "
        "faulted, exhausted, startup failure, system failure, internal error, out of memory, oom, evicted, "
        "unsuccessful, unhealthy, not found, declined"
    ),
    CANCELED: (
        "canceled, cancelled, cancel, stopped, revoked, skipped, stale, neutral, superseded, discarded, "
        "withdrawn, not run, deleted, removed, dismissed, ignored, user canceled, user cancelled, voided"
    ),
}

_PHRASES = {phrase: status for status, phrases in _PHRASES_OF.items() for phrase in phrases.split(", ")}

_CANCELED_UNLESS_LISTED = frozenset({"aborted", "terminated", "killed", "shutdown"})
"""Statuses of canceled runs if no other status is, else of runs that failed."""

_ENDED = frozenset({"ended", "closed", "terminated", "completed", "complete", "finished", "done"})
"""Statuses of runs that have ended, whose outcome another field may have."""

_NO_STATUS = frozenset({"unspecified", "unknown", "undefined", "none", "null", ""})


@dataclass(frozen=True)
class StatusGuess:
    """The normalised status of each native one, and the native ones that are not understood."""

    known: Mapping[str, str]
    unclear: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = field(default=())
    """Native statuses that are understood by their context or by a part only."""

    @property
    def found(self) -> frozenset[str]:
        """The normalised statuses that occur."""
        return frozenset(self.known.values())

    @property
    def describes_runs(self) -> bool:
        """Whether these can be the statuses of runs: some are terminal, some are not."""
        return bool(self.found & TERMINAL) and bool(self.found - TERMINAL)

    @property
    def describes_outcomes(self) -> bool:
        """Whether these can be the outcomes of runs that have ended."""
        return {SUCCEEDED, FAILED} <= self.found and not self.found & {QUEUED, RUNNING}

    @property
    def ended(self) -> tuple[str, ...]:
        """The statuses that may only show that a run has ended, while another field shows how."""
        ended = tuple(native for native in self.known if split_words(native)[-1:] and split_words(native)[-1] in _ENDED)
        shows_success = any(one == SUCCEEDED for native, one in self.known.items() if native not in ended)
        is_outcome = FAILED in self.found and SUCCEEDED in self.found and not shows_success
        return () if is_outcome else ended


def guess_statuses(natives: Sequence[str], *, are_outcomes: bool = False) -> StatusGuess:
    """Guess what the statuses of a list mean. `are_outcomes`: all of them are of runs that have ended."""
    phrases = _phrases_of(natives)
    known: dict[str, str] = {}
    doubtful: list[str] = []
    for native, phrase in phrases.items():
        status, is_sure = _classify(phrase, set(phrases.values()))
        if are_outcomes and phrase == "action required":
            status, is_sure = FAILED, False
        if status is not None:
            known[native] = status
            doubtful += [] if is_sure else [native]
    unclear = tuple(native for native in phrases if native not in known and phrases[native] not in _NO_STATUS)
    return StatusGuess(known, unclear, tuple(doubtful))


def _phrases_of(natives: Sequence[str]) -> dict[str, str]:
    """Return the words of each status, without those with which all of them begin."""
    split = {native: list(split_words(native)) for native in natives}
    while len(split) > 1 and len({words[0] if words else "" for words in split.values()}) == 1:
        if any(len(words) < 2 for words in split.values()):
            break
        split = {native: words[1:] for native, words in split.items()}
    return {native: " ".join(words) for native, words in split.items()}


def _classify(phrase: str, phrases: set[str]) -> tuple[str | None, bool]:
    """Return the status of a phrase among those of the same list, and whether it is sure."""
    if phrase == "ready" and any(_PHRASES.get(other) == SUCCEEDED for other in phrases - {phrase}):
        return QUEUED, False
    if phrase in _CANCELED_UNLESS_LISTED:
        is_listed = any(_PHRASES.get(other) == CANCELED and other.startswith("cancel") for other in phrases)
        return (FAILED if is_listed and phrase != "terminated" else CANCELED), False
    if phrase in _PHRASES:
        return _PHRASES[phrase], True
    words = phrase.split()
    if len(words) == 1:
        return _classify_participle(phrase, phrases), False
    return _classify_words(words), False


def _classify_participle(word: str, phrases: set[str]) -> str | None:
    """Return the status of a word that is in no table: `dubbing` runs, and `dubbed` beside it has succeeded."""
    if word.endswith("ing"):
        return RUNNING
    stem = word.removesuffix("ed")
    return SUCCEEDED if stem != word and f"{stem}ing" in phrases else None


def _classify_words(words: Sequence[str]) -> str | None:
    """Return the status of a phrase that is in no table, from its words."""
    if not words or words[0] in {"not", "partial", "partially", "un", "no", "almost"}:
        return None
    if words[-1].startswith("retry") or words[-1] in {"requested"}:
        return RUNNING
    found = [status for word in words if (status := _PHRASES.get(word))]
    terminal = {status for status in found if status in TERMINAL}
    if terminal:
        return terminal.pop() if len(terminal) == 1 else None
    return found[0] if len(set(found)) == 1 else None
