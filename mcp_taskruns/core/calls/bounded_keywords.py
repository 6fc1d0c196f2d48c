"""The keywords of JSON Schema, checked within a limited time."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mcp_taskruns.core.model.patterns import SEARCH_SECONDS, compile_pattern, search

MAX_SECONDS = 0.1
"""Time of all searches for the patterns of one schema."""

MAX_CHECK_SECONDS = 0.5
"""Time of a whole check. A schema that has two references to itself takes 2^n steps for a value of n levels."""

Clock = Callable[[], float]
Check = Callable[[Any, Any, Any, Any], Iterator[Any] | None]
"""A validator of the jsonschema library: of its validator, what the keyword has, a value, and the schema."""

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


class BoundedKeywords:
    """Validators of the jsonschema library for the keywords of one schema.

    `library` are its own ones, `error` is its exception: its import takes too long for the start. `clock` returns
    seconds. Each validator raises TimeoutError when all searches together have taken MAX_SECONDS, or everything
    MAX_CHECK_SECONDS.
    """

    def __init__(self, clock: Clock, library: Mapping[str, Check], error: Callable[..., Any]) -> None:
        self._clock = clock
        self._library = library
        self._error = error
        start = clock()
        self._end_of_searches = start + MAX_SECONDS
        self._end = start + MAX_CHECK_SECONDS

    def validators(self) -> dict[str, Check]:
        """Return the validators by keyword."""
        return {name: self._within_limit(check) for name, check in {**self._library, **self._own()}.items()}

    def _own(self) -> dict[str, Check]:
        return {
            "pattern": self._check_pattern,
            "patternProperties": self._check_pattern_properties,
            "additionalProperties": self._check_additional_properties,
            # jsonschema searches for `patternProperties` here, without a limit.
            "unevaluatedProperties": lambda *_: iter(()),
            # jsonschema compares each item with each other one: 3,000 objects take half a minute.
            "uniqueItems": self._check_unique_items,
        }

    def _within_limit(self, check: Check) -> Check:
        def check_within_limit(validator: Any, rule: Any, value: Any, schema: Any) -> Iterator[Any] | None:
            if self._clock() > self._end:
                raise TimeoutError
            return check(validator, rule, value, schema)

        return check_within_limit

    def _matches(self, pattern: str, text: str) -> bool:
        seconds = min(SEARCH_SECONDS, self._end_of_searches - self._clock())
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

    def _check_unique_items(self, _: Any, rule: Any, value: Any, __: Any) -> Iterator[Any]:
        items = value if rule and isinstance(value, list) else []
        if len({json.dumps(item, sort_keys=True) for item in items}) < len(items):
            yield self._error("has items that are equal")
