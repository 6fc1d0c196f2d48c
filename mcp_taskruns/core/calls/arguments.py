"""Validation of arguments against a tool's input schema, and the messages for arguments that do not match."""

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from itertools import chain, islice
from math import isfinite
from typing import TYPE_CHECKING, Any

from mcp_taskruns.core.calls.bounded_keywords import BoundedKeywords, Clock, remove_patterns
from mcp_taskruns.core.calls.truncation import one_line
from mcp_taskruns.core.model.json_path import Path, format_path
from mcp_taskruns.core.model.schemas import find_endless_schema, is_recursive
from mcp_taskruns.core.model.timestamps import parse_timestamp
from mcp_taskruns.errors import NotConfigured

if TYPE_CHECKING:
    from jsonschema import ValidationError

MAX_PROBLEMS = 5
"""Problems that are listed in one message."""

MAX_PROBLEM = 300
"""Characters of one problem."""

MAX_PLACE = 100
"""Characters of the place of a problem, and of the name of an unknown argument."""

MAX_VALUES = 200_000
"""JSON values in the arguments of one call, members and items included. Counting them takes about 30 ms."""

MAX_DEPTH = 100
"""Levels of nested objects and arrays. The serializer supports about 250."""

_EXPLAINED_ITEMS = 100
"""Items of an array that are explained first: jsonschema takes seconds for 100,000 invalid items."""

_EXPLAINED_ERRORS = 100
"""Errors that are sorted by their place before the first ones are reported."""


def _refuse_reference(address: str) -> Any:
    raise ValueError(f"schemas are not fetched from {address}")


_NO_REMOTE_REFERENCES = dict.fromkeys(("", "http", "https", "ftp", "file"), _refuse_reference)
_INVALID_SCHEMA = (ValueError, TypeError, LookupError, AttributeError, OSError, RecursionError, re.error)

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:?\d\d)?")


def _is_uuid(text: Any) -> bool:
    return not isinstance(text, str) or _UUID.fullmatch(text) is not None


def _is_date_time(text: Any) -> bool:
    return not isinstance(text, str) or (_DATE_TIME.fullmatch(text) is not None and parse_timestamp(text) is not None)


def _is_any(_: Any) -> bool:
    return True


FORMATS: Mapping[str, Callable[[Any], bool]] = {"uuid": _is_uuid, "date-time": _is_date_time}
"""The formats that are validated: RFC 9562, and RFC 3339 also without seconds or zone. Others are annotations."""


def find_unusable_values(arguments: dict[str, Any]) -> list[str]:
    """Return at most five problems that arguments have with any schema, as `argument: problem`."""
    return list(islice(_unusable_values(arguments), MAX_PROBLEMS))


def _unusable_values(arguments: dict[str, Any]) -> Iterator[str]:
    count = 0
    pending: list[tuple[Path, dict[str, Any] | list[Any]]] = [((), arguments)]
    while pending:
        path, container = pending.pop()
        count += len(container)
        if count > MAX_VALUES:
            yield f"the arguments contain more than {MAX_VALUES:,} values"
            return
        if len(path) > MAX_DEPTH:
            yield f"{_format_place(path)}: is nested more than {MAX_DEPTH} levels deep"
            return
        for step, value in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(value, float) and not isfinite(value):
                yield f"{_format_place((*path, step))}: must be a finite number"
            elif isinstance(value, dict | list):
                pending.append(((*path, step), value))


def _format_place(path: Path) -> str:
    return one_line(format_path(path), MAX_PLACE)


def compile_validator(schema: Mapping[str, Any], clock: Clock = lambda: 0.0) -> Callable[[Any], bool]:
    """Compile a fast function that returns whether arguments match the schema.

    The function may refuse valid arguments: ask `explain_problems` before reporting an error. Raises NotConfigured for
    an invalid schema.
    """
    import fastjsonschema  # costs start-up time; the first call needs it

    # fastjsonschema supports drafts up to 7. It ignores keywords of later drafts, so it never refuses because of them.
    try:
        definition = {**remove_patterns(schema), "$schema": "http://json-schema.org/draft-07/schema#"}
        if find_endless_schema(schema) is not None:
            raise ValueError("a schema refers to itself")
        validate = fastjsonschema.compile(
            definition, handlers=_NO_REMOTE_REFERENCES, use_default=False, formats={**FORMATS, "regex": _is_any}
        )
    except (fastjsonschema.JsonSchemaDefinitionException, *_INVALID_SCHEMA) as exc:
        raise NotConfigured(
            "this tool's input schema is not valid JSON Schema",
            hint="Ask the operator of this server to run `mcp-taskruns check`.",
        ) from exc

    has_patterns = definition.items() != {**schema, "$schema": definition["$schema"]}.items()
    needs_limit = has_patterns or is_recursive(schema)

    def is_valid(arguments: Any) -> bool:
        if needs_limit:
            return not explain_problems(schema, arguments, clock)
        try:
            validate(arguments)
        except (fastjsonschema.JsonSchemaValueException, RecursionError, OverflowError):
            return False
        return True

    return is_valid


def explain_problems(schema: Mapping[str, Any], arguments: Any, clock: Clock = lambda: 0.0) -> list[str]:
    """Return at most five problems by JSON Schema 2020-12, as `argument: problem`; empty for valid arguments.

    `clock` returns seconds of CPU time. Without one, each pattern of the schema has a limit of its own.
    """
    try:
        return _explain(schema, arguments, clock)
    except TimeoutError:
        return ["the arguments take too long to check against the input schema: pass shorter ones"]
    except RecursionError:
        return ["the arguments are nested too deeply for the input schema"]
    except OverflowError:  # raised by `multipleOf`
        return ["the arguments have a number that is too large for the input schema"]


def _explain(schema: Mapping[str, Any], arguments: Any, clock: Clock) -> list[str]:
    import jsonschema  # costs 30 ms and 2 MB; only invalid calls and those with patterns need it

    formats = jsonschema.FormatChecker(())
    for name, check in FORMATS.items():
        formats.checks(name)(check)
    library = jsonschema.Draft202012Validator
    keywords = BoundedKeywords(clock, library.VALIDATORS, jsonschema.ValidationError)
    extended = jsonschema.validators.extend(library, keywords.validators())  # type: ignore[no-untyped-call]  # it has no types
    validator = extended(schema, format_checker=formats)
    for value in (_with_first_items(arguments), arguments):
        errors = islice(validator.iter_errors(value), _EXPLAINED_ERRORS)
        ordered = sorted(errors, key=lambda error: error.json_path)
        described = (one_line(problem, MAX_PROBLEM) for problem in chain.from_iterable(map(_describe, ordered)))
        if problems := list(islice(_unique(described), MAX_PROBLEMS)):
            return problems
    return []


def _with_first_items(value: Any) -> Any:
    """Return a value with only the first items of long arrays."""
    if isinstance(value, Mapping):
        return {name: _with_first_items(item) for name, item in value.items()}
    return [_with_first_items(item) for item in value[:_EXPLAINED_ITEMS]] if isinstance(value, list) else value


def _unique(texts: Iterator[str]) -> Iterator[str]:
    seen: set[str] = set()
    for text in texts:
        if text not in seen:
            seen.add(text)
            yield text


def _describe(error: "ValidationError") -> Iterator[str]:
    place = one_line(error.json_path.removeprefix("$").removeprefix("."), MAX_PLACE)
    rule: Any = error.validator_value
    value: Any = error.instance
    match error.validator:
        case "required":
            yield from (f"{_join(place, name)}: is required" for name in rule if name not in value)
        case "additionalProperties":
            schema: Any = error.schema
            yield from _describe_unknown(place, value, schema.get("properties", {}))
        case "type":
            yield f"{place}: must be of type {rule}"
        case "anyOf":
            yield from _describe_any_of(error, place)
        case "maxLength":
            yield f"{place}: is too long: {len(value):,} characters, at most {rule:,} are allowed"
        case "enum":
            yield f"{place}: must be one of {', '.join(map(str, rule))}"
        case _:
            yield f"{place}: {error.message}"


def _describe_unknown(place: str, value: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    unknown = (name for name in value if name not in known)
    yield from (f"{_join(place, name)}: unknown argument{_suggest(name, known)}" for name in unknown)


def _join(place: str, name: str) -> str:
    return one_line(f"{place}.{name}" if place else name, MAX_PLACE)


def _describe_any_of(error: "ValidationError", place: str) -> Iterator[str]:
    """Describe a value that matches none of several schemas, by the schema whose type it has if there is one."""
    options: Any = error.validator_value
    if all(set(option) == {"required"} for option in options):
        yield f"{place}: needs {' or '.join(name for option in options for name in option['required'])}"
        return
    inner = error.context or []
    right_type = [one for one in inner if one.validator != "type" or one.json_path != error.json_path]
    if right_type:
        yield from chain.from_iterable(map(_describe, right_type))
    else:
        yield f"{place}: must be of type {' or '.join(str(option.get('type')) for option in options)}"


def _suggest(name: str, known: Mapping[str, Any]) -> str:
    for other, schema in known.items():
        if isinstance(schema, Mapping) and name in schema.get("properties", {}):
            return f"; put it into {other}"
    if len(name) > MAX_PLACE:
        return ""
    by_lower_case = {other.lower(): other for other in reversed(list(known))}
    close = get_close_matches(name.lower(), by_lower_case, 1)
    return f"; did you mean {by_lower_case[close[0]]}?" if close else ""
