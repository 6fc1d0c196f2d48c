"""Whether arguments fit a tool's input schema, and what is wrong when they do not."""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from mcp_taskruns.core.model.timestamps import parse_timestamp
from mcp_taskruns.errors import NotConfigured

if TYPE_CHECKING:
    from jsonschema import ValidationError

SHOWN_PROBLEMS = 5


def _refuse(address: str) -> Any:
    raise ValueError(f"a schema is not fetched from {address}")


_NO_HANDLERS = dict.fromkeys(("", "http", "https", "ftp", "file"), _refuse)
_WRONG_SCHEMA = (ValueError, TypeError, LookupError, AttributeError, OSError, RecursionError, re.error)


_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:?\d\d)?")


def _is_uuid(text: Any) -> bool:
    return not isinstance(text, str) or _UUID.fullmatch(text) is not None


def _is_date_time(text: Any) -> bool:
    return not isinstance(text, str) or (_DATE_TIME.fullmatch(text) is not None and parse_timestamp(text) is not None)


FORMATS: Mapping[str, Callable[[Any], bool]] = {"uuid": _is_uuid, "date-time": _is_date_time}
"""The formats that are checked: RFC 9562, and RFC 3339 also without seconds or zone. Others only tell."""


def compile_validator(schema: Mapping[str, Any]) -> Callable[[Any], bool]:
    """A quick test for the schema; what it refuses, `explain_problems` decides."""
    import fastjsonschema  # here, and jsonschema below: neither is needed to start

    # Draft 7 is the last that the quick test knows: of later drafts it checks less, and so never too much.
    definition = {**schema, "$schema": "http://json-schema.org/draft-07/schema#"}
    try:
        check = fastjsonschema.compile(definition, handlers=_NO_HANDLERS, use_default=False, formats=dict(FORMATS))
    except (fastjsonschema.JsonSchemaDefinitionException, *_WRONG_SCHEMA) as exc:
        raise NotConfigured(
            "this tool's input schema is not valid JSON Schema",
            hint="The server's operator should run `mcp-taskruns check`.",
        ) from exc

    def accepts(arguments: Any) -> bool:
        try:
            check(arguments)
        except fastjsonschema.JsonSchemaValueException:
            return False
        return True

    return accepts


def explain_problems(schema: Mapping[str, Any], arguments: Any) -> list[str]:
    """What is wrong by JSON Schema 2020-12, each as `argument: rule`, at most five; empty when nothing is."""
    from jsonschema import Draft202012Validator, FormatChecker  # 2 MB and 30 ms that a server of right calls never pays

    formats = FormatChecker(())
    for name, check in FORMATS.items():
        formats.checks(name)(check)
    found = Draft202012Validator(schema, format_checker=formats).iter_errors(arguments)
    problems = sorted(found, key=lambda problem: problem.json_path)
    return list(dict.fromkeys(chain.from_iterable(map(_describe, problems))))[:SHOWN_PROBLEMS]


def _describe(problem: "ValidationError") -> Iterator[str]:
    place = problem.json_path.removeprefix("$").removeprefix(".")
    rule: Any = problem.validator_value
    value: Any = problem.instance
    schema: Any = problem.schema
    match problem.validator:
        case "required":
            yield from (f"{place}.{name}: is required".lstrip(".") for name in rule if name not in value)
        case "additionalProperties":
            known = schema.get("properties", {})
            for name in value:
                if name not in known:
                    yield f"{place}.{name}: is no argument of this tool".lstrip(".") + _advice(name, known)
        case "type":
            yield f"{place}: must be of type {rule}"
        case "anyOf":
            yield from _describe_any(problem, place)
        case "maxLength":
            yield f"{place}: is too long, {len(value):,} characters where {rule:,} are allowed"
        case "enum":
            yield f"{place}: must be one of {', '.join(map(str, rule))}"
        case _:
            yield f"{place}: {problem.message[:200]}"


def _describe_any(problem: "ValidationError", place: str) -> Iterator[str]:
    """What is wrong when none of several schemas fits: what keeps out of the one that was meant, or all types."""
    options: Any = problem.validator_value
    if all(set(option) == {"required"} for option in options):
        yield f"{place}: needs {' or '.join(name for option in options for name in option['required'])}"
        return
    inner = problem.context or []
    meant = [one for one in inner if one.validator != "type" or one.json_path != problem.json_path]
    if meant:
        yield from chain.from_iterable(map(_describe, meant))
    else:
        yield f"{place}: must be of type {' or '.join(str(option.get('type')) for option in options)}"


def _advice(name: str, known: Mapping[str, Any]) -> str:
    from difflib import get_close_matches

    for other, schema in known.items():
        if isinstance(schema, Mapping) and name in schema.get("properties", {}):
            return f"; put it into {other}"
    close = get_close_matches(name.lower(), {other.lower(): other for other in known}, 1)
    return f"; did you mean {next(other for other in known if other.lower() == close[0])}?" if close else ""
