"""Compilation of overlay keywords about requests and responses: errors, rate limits, paging, logs, uploads, notes."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, TypeVar

from mcp_taskruns.core.format import keywords, spec
from mcp_taskruns.core.format.names import suggest_name
from mcp_taskruns.core.format.strict_model import When
from mcp_taskruns.core.model.json_path import Condition, Path, parse_condition, parse_path
from mcp_taskruns.core.model.limits import ALL_REQUESTS, Limits, Rate, RequestKind
from mcp_taskruns.core.model.operation import (
    BaseUriRule,
    ErrorBody,
    ErrorRule,
    EventFormat,
    Location,
    LogFormat,
    NeededVariable,
    Operation,
    Paging,
    QueryArgument,
    Trim,
    Upload,
)
from mcp_taskruns.core.model.tool import ALL_PAGES, DEFAULT_LAST, LAST, RAW, SINCE, TYPES
from mcp_taskruns.errors import CapabilityError

_Parsed = TypeVar("_Parsed")
_Fallback = TypeVar("_Fallback")

Report = Callable[[CapabilityError], None]
"""Called for a keyword that cannot be compiled; if it returns, the keyword is compiled without the wrong part."""


def _raise(error: CapabilityError) -> None:
    raise error


_ANY = re.compile("")

_REQUEST_KINDS = {
    "reads": frozenset({RequestKind.READ}),
    "writes": frozenset({RequestKind.WRITE}),
    "all": ALL_REQUESTS,
}


class Policies:
    """Compiles the keywords of one provider and of its operations.

    Keywords that cannot be compiled are reported with their place: by default, all methods raise the CapabilityError.
    """

    def __init__(self, source: str, consumed: spec.Consumed, report: Report = _raise) -> None:
        self._source = source
        self._consumed = consumed
        self._report = report
        self._rules = [(rule.operations, self._error_rule(name, rule)) for name, rule in consumed.errors.items()]
        operations = {operation.name for resource in consumed.resources for operation in resource.operations}
        for name, rule in consumed.errors.items():
            for operation in rule.operations:
                if operation not in operations:
                    fix = suggest_name(operation, operations)
                    self._fail(("errors", name, "operations"), f"there is no operation `{operation}`", fix)
        rates = (
            Rate(limit.requests, limit.per_seconds, _REQUEST_KINDS[limit.applies_to]) for limit in consumed.rate_limits
        )
        self.limits = Limits(consumed.max_concurrent_requests, tuple(rates))

    def errors(self, operation: str) -> tuple[ErrorRule, ...]:
        """Return the error rules of an operation, in the order in which they are tried."""
        return tuple(rule for operations, rule in self._rules if not operations or operation in operations)

    def _error_rule(self, name: str, rule: keywords.ErrorRuleKeywords) -> ErrorRule:
        pattern = rule.message_matches
        at = ("errors", name, "message_matches")
        return ErrorRule(
            status=frozenset(rule.status),
            when=self._condition(rule.when, "errors", name, "when"),
            message_matches=self._parse(re.compile, pattern, None, *at) if pattern else None,
            kind=rule.kind,
            hint=rule.hint,
            retryable=rule.retryable,
        )

    def error_body(self) -> ErrorBody | None:
        """Return what makes a response an error whatever its status code."""
        declared = self._consumed.error_body
        if declared is None:
            return None
        status = self._path(declared.status, "error_body", "status")
        return ErrorBody(status, self._path(declared.message, "error_body", "message"))

    def error_messages(self) -> tuple[Path, ...]:
        """Return the paths to the message of an error body."""
        return self._paths(self._consumed.error_messages, "error_messages")

    def base_uri_rules(self) -> tuple[BaseUriRule, ...]:
        """Return the variables that determine the base URI, in the order in which they are tried."""
        return tuple(
            BaseUriRule(
                rule.env,
                self._parse(re.compile, rule.matches, _ANY, "base_uri_rules", index, "matches"),
                rule.base_uri,
            )
            for index, rule in enumerate(self._consumed.base_uri_rules)
        )

    def redactions(self, operation: spec.ConsumedOperation) -> tuple[Path, ...]:
        """Return the places of secrets in a response: those of the operation, and those of each run in it."""
        paths = list(self._paths(operation.redact, "redact"))
        runs = self._consumed.runs
        if runs is None or not runs.redact:
            return tuple(paths)
        runs_in = dict.fromkeys((runs.read.operation, *runs.start), "$") | runs.runs_in
        runs_path = runs_in.get(operation.name)
        if runs_path is not None:
            run = self._path(runs_path, "runs", "runs_in", operation.name)
            paths += [(*run, *path) for path in self._paths(runs.redact, "runs", "redact")]
        return tuple(paths)

    def needs(self, operation: spec.ConsumedOperation) -> tuple[NeededVariable, ...]:
        """Return the environment variables of which one has to be set."""
        return tuple(
            NeededVariable(one.env, self._parse(re.compile, one.matches, _ANY, "needs", index, "matches"))
            for index, one in enumerate(operation.needs)
        )

    def follow_redirect(self, operation: spec.ConsumedOperation) -> bool:
        """Return whether a redirect is followed."""
        if operation.follow_redirect and operation.method.upper() != "GET":
            self._fail(("follow_redirect",), f"needs the method GET, not {operation.method}")
        return operation.follow_redirect

    def notes(self, operation: spec.ConsumedOperation) -> tuple[tuple[Condition, str], ...]:
        """Return the notes for responses, each with its condition."""
        return tuple(
            (self._condition(note.when, "notes", index, "when"), note.text)
            for index, note in enumerate(operation.notes)
        )

    def trims(self, operation: spec.ConsumedOperation) -> tuple[Trim, ...]:
        """Return what is left out of responses."""
        return tuple(
            Trim(
                path=self._path(rule.path, "trim", index, "path"),
                drop=frozenset(rule.drop),
                flags={name: self._path(path, "trim", index, "flags", name) for name, path in rule.flags.items()},
            )
            for index, rule in enumerate(operation.trim)
        )

    def paging(self, declared: keywords.PagingKeywords | None) -> Paging | None:
        """Return how to get the next page."""
        if declared is None:
            return None
        place = declared.next_cursor
        self._check_paging(declared)
        return Paging(
            items=self._path(declared.items, "paging", "items"),
            page_size_argument=declared.page_size_argument,
            default_page_size=declared.default_page_size,
            max_page_size=declared.max_page_size or declared.default_page_size,
            cursor_argument=declared.cursor_argument,
            next_cursor=self._path(place, "paging", "next_cursor") if isinstance(place, str) and place else (),
            response_cursor=None if isinstance(place, str) else self._place(place, "paging", "next_cursor"),
            offset_argument=declared.offset_argument,
            page_argument=declared.page_argument,
            first_page=declared.first_page,
            next_url=self._place(declared.next_url, "paging", "next_url"),
            has_more=self._place(declared.has_more, "paging", "has_more"),
            total=self._place(declared.total, "paging", "total"),
            unfiltered_total=self._place(declared.unfiltered_total, "paging", "unfiltered_total"),
        )

    def _check_paging(self, declared: keywords.PagingKeywords) -> None:
        """Report keywords that do not show how to get the next page, or that show several ways."""
        given = [one for one in (declared.cursor_argument, declared.offset_argument, declared.page_argument) if one]
        if len(given) != 1 and not (declared.next_url and not given):
            ways = "`cursor_argument`, `offset_argument` and `page_argument`"
            self._fail(("paging",), f"needs one of {ways}, or `next_url` alone")
        if declared.cursor_argument and not (declared.next_cursor or declared.next_url):
            self._fail(("paging", "next_cursor"), "is missing: write the path to the cursor in an item")

    def events(self, declared: keywords.EventKeywords | None) -> EventFormat:
        """Return the paths to the type and the message of an event."""
        declared = declared or keywords.EventKeywords()
        types = self._paths(declared.type_paths, "events", "type_paths")
        return EventFormat(types, self._paths(declared.message_paths, "events", "message_paths"))

    def log(self, declared: keywords.LogKeywords | None) -> LogFormat | None:
        """Return the paths to the parts of a log entry."""
        if declared is None:
            return None
        types = self._paths(declared.type_paths, "log", "type_paths")
        messages = self._paths(declared.message_paths, "log", "message_paths")
        return LogFormat(self._path(declared.time_path, "log", "time_path"), EventFormat(types, messages))

    def upload(self, declared: keywords.UploadKeywords | None) -> Upload | None:
        """Return which files to upload, and to which forms."""
        if declared is None:
            return None
        return Upload(
            files=self._path(declared.files, "upload", "files"),
            content_field=declared.content_field,
            encoding_field=declared.encoding_field,
            size_field=declared.size_field,
            name_field=declared.name_field,
            media_type_field=declared.media_type_field,
            prepared=self._path(declared.prepared, "upload", "prepared"),
            form_field=declared.form_field,
            hint=declared.hint,
        )

    def compile(self, operation: spec.ConsumedOperation) -> None:
        """Compile all keywords of an operation, for the problems that they have."""
        self.needs(operation)
        self.follow_redirect(operation)
        self.redactions(operation)
        self.notes(operation)
        self.paging(operation.paging)
        self.events(operation.events)
        self.log(operation.log)
        self.upload(operation.upload)
        self.trims(operation)

    def _path(self, text: str, *keys: str | int) -> Path:
        return self._parse(parse_path, text, (), *keys)

    def _paths(self, texts: tuple[str, ...], *keys: str | int) -> tuple[Path, ...]:
        return tuple(self._path(text, *keys, index) for index, text in enumerate(texts))

    def _place(
        self, declared: str | keywords.Header | keywords.ResponseValue | None, *keys: str | int
    ) -> Path | str | None:
        """Return a path as its steps, a header as its name in lower case."""
        if isinstance(declared, keywords.Header):
            return declared.header.lower()
        if isinstance(declared, keywords.ResponseValue):
            return self._path(declared.response, *keys, "response")
        return self._path(declared, *keys) if declared else None

    def _condition(self, when: When, *keys: str | int) -> Condition:
        return self._parse(parse_condition, when, (), *keys)

    def _parse(
        self, parse: Callable[[Any], _Parsed], written: Any, fallback: _Fallback, *keys: str | int
    ) -> _Parsed | _Fallback:
        try:
            return parse(written)
        except (ValueError, re.error) as exc:
            self._fail(keys, str(exc))
            return fallback

    def _fail(self, keys: tuple[str | int, ...], reason: str, fix: str = "") -> None:
        place = ".".join(["capability.consumes", *(key for key in keys if isinstance(key, str))])
        self._report(CapabilityError(self._source, place, reason, steps=keys, fix=fix))


def keyword_problems(capability: spec.Capability) -> Iterator[CapabilityError]:
    """Yield everything that is wrong with keywords about requests and responses, each with its `steps`."""
    for consumed in capability.capability.consumes:
        problems: list[CapabilityError] = []
        policies = Policies(capability.source, consumed, problems.append)
        policies.error_body()
        policies.error_messages()
        policies.base_uri_rules()
        scope = ("capability", "consumes", consumed.namespace)
        yield from (_inside(scope, problem) for problem in problems)
        for operation in chain.from_iterable(resource.operations for resource in consumed.resources):
            problems.clear()
            policies.compile(operation)
            for problem in problems:
                is_of_provider = problem.steps[0] == "runs"
                yield _inside(scope if is_of_provider else (*scope, "operations", operation.name), problem)


def _inside(scope: tuple[str, ...], problem: CapabilityError) -> CapabilityError:
    """Return a problem whose steps begin at the document."""
    steps = (*scope, *problem.steps)
    return CapabilityError(problem.source, problem.place, problem.reason, steps=steps, fix=problem.fix)


def with_query_arguments(operation: Operation, properties: Mapping[str, Any]) -> Operation:
    """Return an operation whose paging knows its arguments in the query, with the `properties` of the input schema.

    An argument that the server's environment sets by default is not one of them: it has the same value for each page.
    """
    if operation.paging is None:
        return operation
    query = {
        parameter.name: QueryArgument(parameter.argument, _type_of(properties[parameter.argument]))
        for parameter in operation.parameters
        if parameter.location is Location.QUERY and parameter.argument and parameter.default is None
    }
    return replace(operation, paging=replace(operation.paging, query=query))


def _type_of(schema: Mapping[str, Any]) -> str:
    type_ = schema.get("type", "")
    return type_ if isinstance(type_, str) else ""


def policy_arguments(operation: spec.ConsumedOperation) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the arguments that a tool has because of its operation's keywords, with their schemas."""
    if operation.paging is not None:
        description = "Fetch the following pages too, as many as fit into a result."
        yield ALL_PAGES, {"type": "boolean", "description": description}
    if operation.log is None:
        return
    if operation.paging is None:  # with paging the provider selects the entries
        yield LAST, _schema("integer", "How many entries at most.", minimum=1, default=DEFAULT_LAST)
        example = "2026-01-31T09:00:00Z"
        yield SINCE, _schema("string", "Only entries after this time.", format="date-time", examples=[example])
        types = _schema("array", "Only entries of these types.", items={"type": "string"})
        examples = list(operation.log.type_examples)
        yield TYPES, types | ({"examples": [examples]} if examples else {})
    yield RAW, _schema("boolean", "Return complete entries as JSON lines instead of one line of text for each.")


def _schema(type_: str, description: str, **more: Any) -> dict[str, Any]:
    return {"type": type_, "description": description, **more}
