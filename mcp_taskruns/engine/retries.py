"""Decide whether and when a failed request is sent again."""

import random
from math import inf

import anyio

from mcp_taskruns.engine.progress import Notify, wait_with_notices
from mcp_taskruns.errors import CallError, UpstreamError

MAX_RETRIES = 3

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
"""Status codes of errors that are often gone a moment later."""


class Attempts:
    """The attempts at one request: at most `max_retries` after the first, all within `deadline`.

    `is_safe_to_retry`: sending the request twice has the effect of sending it once.
    """

    def __init__(self, *, deadline: float, max_retries: int, is_safe_to_retry: bool, notify: Notify) -> None:
        self._deadline = deadline
        self._max_retries = max_retries
        self._is_safe_to_retry = is_safe_to_retry
        self._notify = notify
        self._failures: list[CallError] = []

    async def wait(self, failure: CallError) -> None:
        """Wait before the next attempt. Raises the failure, with the number of attempts, when there is none."""
        self._failures.append(failure)
        retries = len(self._failures)
        if retries > self._max_retries or not self._may_succeed(failure):
            raise self.counted(failure) from failure.__cause__
        delay = failure.retry_after_s or backoff(retries)
        if anyio.current_time() + delay >= self._deadline:
            raise self.counted(failure) from failure.__cause__
        reason = f"{failure.message.removesuffix('.')}; retrying ({retries} of {self._max_retries})"
        await wait_with_notices(delay, reason, self._notify)

    def give_up(self, reason: CallError) -> CallError:
        """Return the error to raise when no further attempt is possible: the last failure, or else the reason."""
        return self.counted(self._failures[-1]) if self._failures else reason

    def counted(self, failure: CallError) -> CallError:
        """Return the failure with the number of attempts in its message."""
        attempts = len(self._failures)
        return failure if attempts < 2 else failure.replace(message=f"{failure.message} ({attempts} attempts)")

    def _may_succeed(self, failure: CallError) -> bool:
        if isinstance(failure, UpstreamError):
            return failure.retryable  # false where the request may have arrived and must not arrive twice
        return self._is_safe_to_retry and failure.retryable and failure.status in RETRIED_STATUSES


def backoff(attempt: int, longest: float = inf) -> float:
    """Return the delay in seconds after so many failures: exponential from one second, with full jitter."""
    return random.uniform(0, min(2.0 ** (attempt - 1), longest))
