"""Regular expressions of capability files, which are searched for a limited time.

Python's `re` takes years for a pattern such as `^(a+)+$`, and no other thread runs meanwhile. The `regex` package ends
a search after a given time.
"""

import re
from functools import lru_cache
from typing import Any

SEARCH_SECONDS = 0.05
"""CPU time of one search."""

MAX_PATTERN_CHARS = 10_000
"""Characters of a pattern: to compile more takes a second."""

MAX_STATES = 20_000
"""States of a compiled pattern: about 8 MB."""

_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(?P<minimum>\d{1,9})|(?P<open>\()|(?P<close>\))|(?P<space>\s|\(\?#[^)]*\))|.",
    re.DOTALL,
)


class InvalidPattern(ValueError):
    """A text that is not a regular expression."""


class PatternTooLarge(InvalidPattern):
    """A regular expression that takes too much time or memory to compile."""


@lru_cache(maxsize=500)
def compile_pattern(pattern: str) -> Any:
    """Return a compiled pattern of the `regex` package. Raises InvalidPattern."""
    import regex  # takes 20 ms to import; few calls need it

    if len(pattern) > MAX_PATTERN_CHARS or _count_states(pattern) > MAX_STATES:
        raise PatternTooLarge(f"`{pattern[:100]}` is too large")
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as exc:
        raise InvalidPattern(f"`{pattern[:100]}` is not a regular expression: {exc}") from exc


def search(pattern: str, text: str, seconds: float = SEARCH_SECONDS) -> Any:
    """Return the first match of a pattern, or None. Raises InvalidPattern, and TimeoutError after `seconds`."""
    return compile_pattern(pattern).search(text, timeout=seconds)


def _count_states(pattern: str) -> int:
    """Return about how many states a compiled pattern has.

    `regex` writes out what is repeated at least a number of times: `((a{1000}){1000}){1000}` would take all memory.
    """
    sizes = [0]
    last = 0
    for token in _TOKEN.finditer(pattern):
        if token["open"]:
            sizes.append(0)
        elif token["close"]:
            last = sizes.pop()
            sizes = sizes or [0]  # an unbalanced parenthesis, which `regex` refuses
            sizes[-1] += last
        elif token["minimum"]:
            sizes[-1] += last * (int(token["minimum"]) - 1)
            last *= int(token["minimum"])
        elif not token["space"]:
            last = 1
            sizes[-1] += 1
        if sizes[-1] > MAX_STATES:
            break
    return max(sizes)
