"""Decide whether and when a failed request is sent again."""

import random
from enum import Enum
from math import inf

import anyio

from mcp_taskruns.engine.progress import Notify, wait_with_notices
from mcp_taskruns.errors import CallError, UpstreamError

MAX_RETRIES = 3

CONFLICT = 409

MAX_CONFLICT_DELAY = 8.0
"""The longest time in seconds between two attempts while the first one is still in progress."""


class Key(Enum):
    """The idempotency key of a request."""

    NONE = "none"
    NEW = "new"
    """No earlier call has sent it."""
    TRIED = "tried"
    """An earlier call may have sent it."""


class Attempts:
    """The attempts at one request: at most `max_retries` after the first, all within `deadline`.

    `is_safe_to_retry`: sending the request twice has the effect of sending it once. With an idempotency key a 409 after
    an attempt that may have arrived means that this attempt is still in progress, as in
    draft-ietf-httpapi-idempotency-key-header: it is retried until the deadline.
    """

    def __init__(
        self, *, deadline: float, max_retries: int, is_safe_to_retry: bool, notify: Notify, key: Key = Key.NONE
    ) -> None:
        self._deadline = deadline
        self._max_retries = max_retries
        self._is_safe_to_retry = is_safe_to_retry
        self._notify = notify
        self._key = key
        self._failures: list[CallError] = []
        self._conflicts = 0

    async def wait(self, failure: CallError) -> None:
        """Wait before the next attempt. Raises the failure, as `final` returns it, when there is none."""
        is_in_progress = self._is_in_progress(failure)
        self._failures.append(failure)
        if is_in_progress:
            self._conflicts += 1
            delay = failure.retry_after_s or backoff(self._conflicts, MAX_CONFLICT_DELAY)
            plan = "an earlier attempt is in progress; asking again"
        else:
            retries = len(self._failures) - self._conflicts
            if retries > self._max_retries or not self._may_succeed(failure):
                raise self.final(failure) from failure.__cause__
            delay = failure.retry_after_s or backoff(retries)
            plan = f"retrying ({retries} of {self._max_retries})"
        if anyio.current_time() + delay >= self._deadline:
            raise self.final(failure) from failure.__cause__
        await wait_with_notices(delay, f"{failure.message.removesuffix('.')}; {plan}", self._notify)

    def give_up(self, reason: CallError) -> CallError:
        """Return the error to raise when no further attempt is possible: the last failure, or else the reason."""
        return self.final(self._failures[-1]) if self._failures else reason

    def final(self, failure: CallError) -> CallError:
        """Return the failure with the number of attempts, and what all of them together mean for the outcome."""
        attempts = len(self._failures)
        failure = failure.replace(
            message=failure.message if attempts < 2 else f"{failure.message} ({attempts} attempts)",
            outcome_unknown=self._may_have_arrived,
        )
        return failure.replace(kind="timeout", retryable=True) if self._is_in_progress(failure) else failure

    @property
    def _may_have_arrived(self) -> bool:
        return any(failure.outcome_unknown for failure in self._failures)

    def _is_in_progress(self, failure: CallError) -> bool:
        was_tried = self._key is Key.TRIED or (self._key is Key.NEW and self._may_have_arrived)
        return was_tried and failure.status == CONFLICT

    def _may_succeed(self, failure: CallError) -> bool:
        if isinstance(failure, UpstreamError):
            return failure.retryable  # false where the request may have arrived and must not arrive twice
        has_delay = failure.kind == "rate_limited" and failure.retry_after_s is not None
        return self._is_safe_to_retry and failure.retryable and (has_delay or is_often_brief(failure.status))


def is_often_brief(status: int | None) -> bool:
    """Return whether errors with this status code are often gone a moment later. A 500 is mostly a lasting bug."""
    return status == 429 or (status is not None and status > 500)


def backoff(attempt: int, longest: float = inf) -> float:
    """Return the delay in seconds after so many failures: exponential from one second, with full jitter."""
    return random.uniform(0, min(2.0 ** (attempt - 1), longest))
