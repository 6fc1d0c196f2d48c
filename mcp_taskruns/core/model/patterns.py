"""Regular expressions of capability files, which are searched for a limited time.

Python's `re` takes years for a pattern such as `^(a+)+$`, and no other thread runs meanwhile. The `regex` package ends
a search after a given time.
"""

from functools import lru_cache
from typing import Any

SEARCH_SECONDS = 0.05
"""CPU time of one search."""


class InvalidPattern(ValueError):
    """A text that is not a regular expression."""


@lru_cache(maxsize=500)
def compile_pattern(pattern: str) -> Any:
    """Return a compiled pattern of the `regex` package. Raises InvalidPattern."""
    import regex  # takes 20 ms to import; few calls need it

    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as exc:
        raise InvalidPattern(f"`{pattern[:100]}` is not a regular expression: {exc}") from exc


def search(pattern: str, text: str, seconds: float = SEARCH_SECONDS) -> Any:
    """Return the first match of a pattern, or None. Raises InvalidPattern, and TimeoutError after `seconds`."""
    return compile_pattern(pattern).search(text, timeout=seconds)
