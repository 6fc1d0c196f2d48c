"""The keywords of JSON Schema that have regular expressions, checked within a limited time."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mcp_taskruns.core.model.patterns import SEARCH_SECONDS, compile_pattern, search

MAX_SECONDS = 0.1
"""Time of all searches for the patterns of one schema."""

Clock = Callable[[], float]

_PATTERN_PART = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\$", re.DOTALL)
"""An escaped character, a set of characters, or an anchor."""


def remove_patterns(schema: Any) -> Any:
    """Return a schema without its patterns. Raises InvalidPattern for one that is not a regular expression."""
    if isinstance(schema, list):
        return [remove_patterns(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    kept: dict[str, Any] = {}
    for name, item in schema.items():
        if name == "pattern" and isinstance(item, str):
            compile_pattern(to_python_pattern(item))
        elif name == "patternProperties" and isinstance(item, Mapping):
            for pattern in item:
                compile_pattern(to_python_pattern(pattern))
        else:
            kept[name] = remove_patterns(item)
    return kept


def to_python_pattern(pattern: str) -> str:
    """Return a pattern in which `$` means the end of the text, as in ECMA 262.

    Python's `$` also matches before a line break at the end, which would let it into a header or a file name.
    """
    return _PATTERN_PART.sub(lambda part: r"\Z" if part.group() == "$" else part.group(), pattern)


class PatternKeywords:
    """Validators of the jsonschema library for the keywords with patterns of one schema.

    `clock` returns seconds; together the searches take at most MAX_SECONDS. Each raises TimeoutError after that.
    `error` is the library's exception: its import takes too long for the start.
    """

    def __init__(self, clock: Clock, error: Callable[..., Any]) -> None:
        self._clock = clock
        self._error = error
        self._end = clock() + MAX_SECONDS

    def validators(self) -> dict[str, Callable[[Any, Any, Any, Any], Iterator[Any]]]:
        """Return the validators by keyword."""
        return {
            "pattern": self._check_pattern,
            "patternProperties": self._check_pattern_properties,
            "additionalProperties": self._check_additional_properties,
            # jsonschema searches for `patternProperties` here, without a limit.
            "unevaluatedProperties": lambda *_: iter(()),
        }

    def _matches(self, pattern: str, text: str) -> bool:
        seconds = min(SEARCH_SECONDS, self._end - self._clock())
        if seconds <= 0:
            raise TimeoutError
        return search(to_python_pattern(pattern), text, seconds) is not None

    def _check_pattern(self, _: Any, pattern: Any, value: Any, __: Any) -> Iterator[Any]:
        if isinstance(value, str) and not self._matches(pattern, value):
            yield self._error(f"{value!r} does not match {pattern!r}")

    def _check_pattern_properties(self, validator: Any, patterns: Any, value: Any, _: Any) -> Iterator[Any]:
        for pattern, schema in patterns.items() if isinstance(value, dict) else ():
            for name, item in value.items():
                if self._matches(pattern, name):
                    yield from validator.descend(item, schema, path=name, schema_path=pattern)

    def _check_additional_properties(self, validator: Any, rule: Any, value: Any, schema: Any) -> Iterator[Any]:
        properties, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        extra = {
            name: item
            for name, item in (value.items() if isinstance(value, dict) else ())
            if name not in properties and not any(self._matches(pattern, name) for pattern in patterns)
        }
        if isinstance(rule, Mapping):
            for name, item in extra.items():
                yield from validator.descend(item, rule, path=name)
        elif not rule and extra:
            yield self._error("unknown members", instance=extra)
