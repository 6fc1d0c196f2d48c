"""What an overlay says of a provider's answers, and of how it may be asked, to values."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from mcp_taskruns.core.format import spec
from mcp_taskruns.core.model.json_path import Condition, Path, parse_condition, parse_path
from mcp_taskruns.core.model.limits import ALL_REQUESTS, Limits, Rate, RequestKind
from mcp_taskruns.core.model.operation import ErrorRule, LogFormat, Paging, Upload
from mcp_taskruns.core.model.tool import ALL_PAGES, DEFAULT_LAST, LAST, RAW, SINCE, TYPES
from mcp_taskruns.errors import CapabilityError

_KINDS = {"reads": frozenset({RequestKind.READ}), "writes": frozenset({RequestKind.WRITE}), "all": ALL_REQUESTS}


class Refinements:
    """The refinements of one `consumes`; what is wrong with them is a CapabilityError that names the place."""

    def __init__(self, source: str, consumed: spec.Consumed) -> None:
        self._source = source
        self._consumed = consumed
        names = {operation.name for resource in consumed.resources for operation in resource.operations}
        for name in {name for rule in consumed.errors for name in rule.operations} - names:
            raise self._wrong("errors.operations", f"there is no operation {name!r}")
        self._rules = [(rule.operations, self._rule(rule)) for rule in consumed.errors]
        declared = consumed.limits or spec.Limits()
        rates = (Rate(rate.calls, rate.per, _KINDS[rate.of]) for rate in declared.rates)
        self.limits = Limits(declared.concurrency, tuple(rates))

    def errors(self, operation: str) -> tuple[ErrorRule, ...]:
        """The rules for errors of this operation, in order."""
        return tuple(rule for operations, rule in self._rules if not operations or operation in operations)

    def _rule(self, declared: spec.ErrorRule) -> ErrorRule:
        return ErrorRule(
            status=frozenset(declared.status),
            when=self._read(parse_condition, declared.when, "errors.when"),
            message_matches=self._pattern(declared.says, "errors.says"),
            kind=declared.kind,
            hint=declared.hint,
            retryable=declared.retryable,
        )

    def redactions(self, operation: spec.ConsumedOperation) -> tuple[Path, ...]:
        """The places of secrets in an answer: those that the operation names, and those of each run in it."""
        own = [self._path(text, "redact") for text in operation.redact]
        runs = self._consumed.runs
        if runs is None or not runs.redact:
            return tuple(own)
        found = dict.fromkeys((runs.read.operation, *(start.operation for start in runs.start)), "$") | runs.found
        at = found.get(operation.name)
        if at is not None:
            run = self._path(at, f"runs.found.{operation.name}")
            own += [(*run, *self._path(text, "runs.redact")) for text in runs.redact]
        return tuple(own)

    def remarks(self, operation: spec.ConsumedOperation) -> tuple[tuple[Condition, str], ...]:
        """What is to be said of which answers."""
        return tuple(
            (self._read(parse_condition, remark.when, "remarks.when"), remark.says) for remark in operation.remarks
        )

    def paging(self, declared: spec.Paging | None) -> Paging | None:
        """How a list goes on."""
        if declared is None:
            return None
        if bool(declared.cursor) == bool(declared.offset):
            raise self._wrong("paging", "needs a cursor or an offset, and not both")
        if declared.cursor and not declared.next:
            raise self._wrong("paging.next", "is missing: where in an item is the cursor?")
        return Paging(
            items=self._path(declared.items, "paging.items"),
            page_size_argument=declared.limit,
            default_page_size=declared.size,
            max_page_size=declared.max_size or declared.size,
            cursor_argument=declared.cursor,
            next_cursor=self._path(declared.next, "paging.next"),
            offset_argument=declared.offset,
            has_more=self._path_or_header(declared.more, "paging.more"),
            total=self._path_or_header(declared.total, "paging.total"),
            unfiltered_total=self._path_or_header(declared.unfiltered, "paging.unfiltered"),
        )

    def log(self, declared: spec.LogFormat | None) -> LogFormat | None:
        """Where entries of a log tell what."""
        if declared is None:
            return None
        types = (self._path(text, "log.type") for text in declared.type)
        return LogFormat(self._path(declared.time, "log.time"), tuple(types))

    def upload(self, declared: spec.Upload | None) -> Upload | None:
        """Files that are sent elsewhere."""
        if declared is None:
            return None
        return Upload(
            files=self._path(declared.files, "upload.files"),
            content_field=declared.content,
            encoding_field=declared.encoding,
            size_field=declared.size,
            name_field=declared.name,
            media_type_field=declared.media_type,
            prepared=self._path(declared.prepared, "upload.prepared"),
            form=declared.form,
            hint=declared.advice,
        )

    def _pattern(self, text: str, key: str) -> re.Pattern[str] | None:
        pattern: re.Pattern[str] | None = self._read(re.compile, text, key) if text else None
        return pattern

    def _path(self, text: str, key: str) -> Path:
        path: Path = self._read(parse_path, text, key)
        return path

    def _path_or_header(self, text: str, key: str) -> Path | str | None:
        """A header is told from a path by its prefix, X-."""
        if text.lower().startswith("x-"):
            return text.lower()
        return self._path(text, key) if text else None

    def _read(self, read: Callable[[Any], Any], written: Any, key: str) -> Any:
        try:
            return read(written)
        except (ValueError, re.error) as exc:
            raise self._wrong(key, str(exc)) from exc

    def _wrong(self, key: str, reason: str) -> CapabilityError:
        return CapabilityError(self._source, f"capability.consumes.{key}", reason)


def refined_arguments(operation: spec.ConsumedOperation) -> Iterator[tuple[str, dict[str, Any]]]:
    """The arguments that a tool of this operation gets for its refinements, with their schemas."""
    if operation.paging is not None:
        told = "Fetch the following pages too, as many as fit into a result."
        yield ALL_PAGES, {"type": "boolean", "description": told}
    if operation.log is None:
        return
    if operation.paging is None:  # else the provider chooses among the entries
        yield (
            LAST,
            {"type": "integer", "minimum": 1, "default": DEFAULT_LAST, "description": "How many entries at most."},
        )
        told = "Only entries after this time."
        example = "2026-01-31T09:00:00Z"
        yield SINCE, {"type": "string", "format": "date-time", "description": told, "examples": [example]}
        told = "Only entries of these types."
        examples = [operation.log.examples] if operation.log.examples else []
        yield (
            TYPES,
            {"type": "array", "items": {"type": "string"}, "description": told}
            | ({"examples": examples} if examples else {}),
        )
    yield RAW, {"type": "boolean", "description": "Entries as JSON lines, whole, not as a line to read each."}
