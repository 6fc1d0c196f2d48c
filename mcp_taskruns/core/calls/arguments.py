"""Validation of arguments against a tool's input schema, and the messages for arguments that do not match."""

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from itertools import chain
from typing import TYPE_CHECKING, Any

from mcp_taskruns.core.model.timestamps import parse_timestamp
from mcp_taskruns.errors import NotConfigured

if TYPE_CHECKING:
    from jsonschema import ValidationError

MAX_PROBLEMS = 5
"""Problems that are listed in one message."""

MAX_MESSAGE = 200
"""Characters of a message of the jsonschema library that are passed on."""


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


FORMATS: Mapping[str, Callable[[Any], bool]] = {"uuid": _is_uuid, "date-time": _is_date_time}
"""The formats that are validated: RFC 9562, and RFC 3339 also without seconds or zone. Others are annotations."""


def compile_validator(schema: Mapping[str, Any]) -> Callable[[Any], bool]:
    """Compile a fast function that returns whether arguments match the schema.

    The function may refuse valid arguments: ask `explain_problems` before reporting an error. Raises NotConfigured for
    an invalid schema.
    """
    import fastjsonschema  # costs start-up time; the first call needs it

    # fastjsonschema supports drafts up to 7. It ignores keywords of later drafts, so it never refuses because of them.
    definition = {**schema, "$schema": "http://json-schema.org/draft-07/schema#"}
    try:
        validate = fastjsonschema.compile(
            definition, handlers=_NO_REMOTE_REFERENCES, use_default=False, formats=dict(FORMATS)
        )
    except (fastjsonschema.JsonSchemaDefinitionException, *_INVALID_SCHEMA) as exc:
        raise NotConfigured(
            "this tool's input schema is not valid JSON Schema",
            hint="Ask the operator of this server to run `mcp-taskruns check`.",
        ) from exc

    def is_valid(arguments: Any) -> bool:
        try:
            validate(arguments)
        except fastjsonschema.JsonSchemaValueException:
            return False
        return True

    return is_valid


def explain_problems(schema: Mapping[str, Any], arguments: Any) -> list[str]:
    """Return at most five problems by JSON Schema 2020-12, as `argument: problem`; empty for valid arguments."""
    from jsonschema import Draft202012Validator, FormatChecker  # costs 30 ms and 2 MB; only invalid calls need it

    formats = FormatChecker(())
    for name, check in FORMATS.items():
        formats.checks(name)(check)
    errors = Draft202012Validator(schema, format_checker=formats).iter_errors(arguments)
    ordered = sorted(errors, key=lambda error: error.json_path)
    return list(dict.fromkeys(chain.from_iterable(map(_describe, ordered))))[:MAX_PROBLEMS]


def _describe(error: "ValidationError") -> Iterator[str]:
    place = error.json_path.removeprefix("$").removeprefix(".")
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
            yield f"{place}: {error.message[:MAX_MESSAGE]}"


def _describe_unknown(place: str, value: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    for name in value:
        if name not in known:
            yield f"{_join(place, name)}: unknown argument{_suggest(name, known)}"


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


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
    by_lower_case = {other.lower(): other for other in reversed(list(known))}
    close = get_close_matches(name.lower(), by_lower_case, 1)
    return f"; did you mean {by_lower_case[close[0]]}?" if close else ""
