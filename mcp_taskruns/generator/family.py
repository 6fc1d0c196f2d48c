"""The operations of an API that work on one kind of run, guessed from their paths, names and responses."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from mcp_taskruns.generator.document import Document, Operation
from mcp_taskruns.generator.run_fields import Run, find_run
from mcp_taskruns.generator.schemas import Schemas, jsonpath
from mcp_taskruns.generator.words import singular, split_words, words_of

RUN_NOUNS = words_of(
    "run job execution prediction build batch task request workflow render generation crawl transcript deployment "
    "training pipeline invocation operation process transcription conversion export import scan report query statement "
    "session dubbing research extraction evaluation experiment simulation analysis response flow workload"
)
_STRONG_NOUNS = frozenset({"run", "job", "execution", "build", "prediction", "invocation"})

_CANCEL = frozenset({"cancel", "cancellation", "abort", "stop", "terminate", "kill"})
_RETRY = frozenset({"retry", "rerun", "replay", "rebuild", "restart", "resurrect", "repair", "reprocess", "resubmit"})
_START = words_of(
    "start run trigger dispatch dispatche create submit launch execute invoke enqueue queue generate new now"
)
_STRONG_START = frozenset({"trigger", "dispatch", "dispatche", "run", "start", "launch", "execute", "invoke", "submit"})
_STARTS_ONE = frozenset({"start", "create", "trigger", "submit", "launch"})
_SEARCH = frozenset({"filter", "search", "query", "list", "find"})
_STEPS = frozenset({"step", "job", "task", "instance", "stage", "node", "activity"})
_READ_VERBS = frozenset({"get", "status", "describe", "retrieve", "read", "show", "state", "detail"})
_VERSION = re.compile(r"v?\d+(\.\d+)*(beta\d*|alpha\d*)?")


def _segments(path: str) -> tuple[str, ...]:
    """Return the segments of a path without versions; placeholders are `{}`. A verb after a colon is one of its own."""
    written = re.sub(r"\{[^{}]+\}", "{}", path).replace(":", "/")
    return tuple(part for part in written.split("/") if part and not _VERSION.fullmatch(part))


def _action_words(operation: Operation) -> frozenset[str]:
    """Return the words that show what an operation does: of its last segments, its id and its summary."""
    last = [part for part in _segments(operation.path)[-1:] if part != "{}"]
    summary = operation.summary if len(operation.summary) < 80 else operation.summary.partition(".")[0]
    words = (
        word
        for text in (*last, own_id(operation), summary)
        for word in split_words(text.replace("re-run", "rerun").replace("Re-run", "rerun"))
    )
    return frozenset(singular(word) for word in words)


def own_id(operation: Operation) -> str:
    """Return the id of an operation without the path and the method that some frameworks add to it."""
    tail = "_".join(part for part in re.split(r"\W+", f"{operation.path} {operation.method.lower()}") if part)
    normalized = re.sub(r"_+", "_", operation.id)
    return normalized.removesuffix(f"_{tail}") or operation.id


@dataclass(frozen=True)
class RunFamily:
    """The operations on one kind of run."""

    read: Operation
    run: Run
    starts: tuple[Operation, ...] = ()
    cancels: tuple[Operation, ...] = ()
    lists: tuple[tuple[Operation, str], ...] = ()
    """Each with the JSONPath to the runs in its response."""
    logs: tuple[Operation, ...] = ()
    steps: tuple[tuple[Operation, str], ...] = ()
    """Each with the JSONPath to the steps in its response."""
    retries: tuple[Operation, ...] = ()
    results: tuple[Operation, ...] = ()

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        """All operations of the family, each once."""
        pairs = (operation for operation, _ in (*self.lists, *self.steps))
        groups = (*self.starts, self.read, *self.cancels, *pairs, *self.results, *self.logs, *self.retries)
        return tuple(dict.fromkeys(groups))

    @property
    def score(self) -> float:
        """How much this looks like the runs of the API."""
        nouns = [
            singular(split_words(part)[-1]) for part in _segments(self.read.path) if part != "{}" and split_words(part)
        ]
        noun = next((word for word in reversed(nouns) if word not in _READ_VERBS), "")
        statuses = self.run.statuses
        return (
            4 * statuses.describes_runs
            + 0.3 * min(len(statuses.known), 6)
            + 3 * bool(self.cancels)
            + 3 * bool(self.starts)
            + 0.2 * len(self.starts)
            + bool(self.lists)
            + bool(self.retries)
            + (noun in RUN_NOUNS)
            + (noun in _STRONG_NOUNS)
            + 2 * bool(self.run.id)
            - 0.5 * len(self.read.placeholders)
        )


def find_families(document: Document) -> list[RunFamily]:
    """Return the kinds of runs that an API may have, the most probable first."""
    finder = _Finder(document)
    families = [finder.family(operation) for operation in document.operations if finder.may_read(operation)]
    found = [family for family in families if family is not None]
    found = [one for one in found if one.cancels or one.starts or one.run.statuses.describes_runs]
    return sorted(found, key=lambda family: family.score, reverse=True)


class _Finder:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._schemas = Schemas(document)

    def may_read(self, operation: Operation) -> bool:
        """Whether an operation may read one run."""
        if operation.method != "GET" or not operation.is_json:
            return False
        segments = _segments(operation.path)
        if segments[-1:] == ("{}",):
            return True
        has_id = "{}" in segments or any(_is_id(one.name) for one in operation.parameters)
        return has_id and bool(segments) and segments[-1].lower() in _READ_VERBS

    def family(self, read: Operation) -> RunFamily | None:
        """Return the family of the runs that an operation reads; None if its response has no status."""
        base = self._base(read)
        collection = base[:-1] if base[-1:] == ("{}",) else base
        lists = list(self._lists(collection))
        parents = {_segments(operation.path)[:-1] for operation, _ in lists} - {()}
        starts = [one for one in self._document.operations if self._may_start(one, base, parents, read)]
        run = find_run(self._schemas, read, [operation for operation, _ in lists], starts)
        if run is None:
            return None
        below = [one for one in self._document.operations if one is not read and self._is_below(one, base, read)]
        cancels = self._having(below, _CANCEL, lambda one: one.method != "GET")
        retries = self._having(below, _RETRY, lambda one: one.method in {"POST", "PUT"} and one not in cancels)
        reads = [one for one in below if one.method == "GET"]
        logs = [one for one in reads if _is_log(one)]
        steps = [(one, path) for one in reads if one not in logs and (path := self._steps_path(one, base))]
        steps = steps or [(read, path) for path in [self._steps_in(read)] if path]
        logs += [one for one in self._document.operations if one not in logs and is_log_of(one, steps)]
        return RunFamily(
            read=read,
            run=run,
            starts=tuple(one for one in starts if one not in cancels and one not in retries),
            cancels=tuple(self._on_run(cancels, base)),
            lists=tuple(lists),
            logs=tuple(logs),
            steps=tuple(steps),
            retries=tuple(self._on_run(retries, base)),
            results=tuple(self._results(reads, base, read)),
        )

    @staticmethod
    def _base(read: Operation) -> tuple[str, ...]:
        """Return the segments of a run: of the path that reads it, without a verb such as `status`."""
        segments = _segments(read.path)
        return segments[:-1] if segments[-1:] != ("{}",) else segments

    def _is_below(self, operation: Operation, base: tuple[str, ...], read: Operation) -> bool:
        segments = _segments(operation.path)
        return segments[: len(base)] == base and (len(segments) > len(base) or segments == base)

    @staticmethod
    def _having(
        operations: Sequence[Operation], words: frozenset[str], is_suitable: Callable[[Operation], bool]
    ) -> list[Operation]:
        """Return the operations that do something, those first that do nothing else."""
        found = [one for one in operations if words & _action_words(one) and is_suitable(one)]
        return sorted(found, key=lambda one: len(_last_words(one)))

    @staticmethod
    def _on_run(operations: Sequence[Operation], base: tuple[str, ...]) -> Iterator[Operation]:
        """Yield the operations on a run itself, not on its parts."""
        for operation in operations:
            if "{}" not in _segments(operation.path)[len(base) :]:
                yield operation

    def _may_start(
        self, operation: Operation, base: tuple[str, ...], parents: set[tuple[str, ...]], read: Operation
    ) -> bool:
        """Whether an operation may start a run; `parents` are the paths above its lists."""
        if operation.method not in {"POST", "PUT"} or "event-stream" in operation.media_type:
            return False
        segments, words = _segments(operation.path), _action_words(operation)
        if words & (_CANCEL | _RETRY) or {*_last_words(operation)} & _SEARCH:
            return False
        if segments[: len(base)] == base and base[-1:] == ("{}",):
            return segments == base and bool(words & _STARTS_ONE)  # with an id of the caller's choice
        collection = base[:-1] if base[-1:] == ("{}",) else base
        noun = next((part for part in reversed(collection) if part != "{}"), "")
        is_collection = segments == collection or (bool(noun) and segments[-1:] == (noun,))
        verbs = {singular(word) for word in split_words(segments[-1])} if segments and segments[-1] != "{}" else set()
        names = {singular(word) for word in split_words(noun)}
        is_related = bool(names & words) or segments[:-1] in {collection, *parents}
        is_verb = bool(verbs & _START) and (
            is_related or bool(verbs & _STRONG_START and self._returns_any_id(operation))
        )
        return is_collection or is_verb or self._returns_id(operation, read)

    def _returns_any_id(self, operation: Operation) -> bool:
        fields = self._schemas.response_fields(operation)
        return any(field.words == ("id",) and len(field.path) == 1 for field in fields)

    def _returns_id(self, operation: Operation, read: Operation) -> bool:
        """Whether a response has the id by which an operation reads a run."""
        if not read.placeholders:
            return False
        words = split_words(read.placeholders[-1])
        if len(words) < 2:
            return False
        fields = self._schemas.response_fields(operation)
        return any(field.words == words and len(field.path) == 1 for field in fields)

    def _lists(self, collection: tuple[str, ...]) -> Iterator[tuple[Operation, str]]:
        noun = next((part for part in reversed(collection) if part != "{}"), "")
        for operation in self._document.operations:
            segments, last = _segments(operation.path), {*_last_words(operation)}
            is_search = segments[:-1] == collection and last & _SEARCH
            is_collection = operation.method == "GET" and (segments == collection or segments[-1:] == (noun,))
            if (is_collection or is_search) and (path := self._items_path(operation)):
                yield operation, path

    def _items_path(self, operation: Operation) -> str:
        """Return the JSONPath to the objects of the list in a response; empty if there is none."""
        schema = self._schemas.response_of(operation)
        flat = self._schemas.flatten(schema)
        if flat["items"] is not None:
            return "$[*]"
        lists = [field for field in self._schemas.response_fields(operation) if field.schema["items"] is not None]
        for field in lists:
            if len(field.path) < 3 and self._schemas.flatten(field.schema["items"])["properties"]:
                return f"{jsonpath(field.path)}[*]"
        return ""

    def _steps_path(self, operation: Operation, base: tuple[str, ...]) -> str:
        segments = _segments(operation.path)[len(base) :]
        is_steps = len(segments) == 1 and _STEPS & {singular(word) for word in split_words(segments[0])}
        return self._items_path(operation) if is_steps else ""

    def _steps_in(self, read: Operation) -> str:
        """Return the JSONPath to the steps in the response that reads a run; empty if there are none."""
        for field in self._schemas.response_fields(read):
            is_named = len(field.path) < 3 and bool(_STEPS & {singular(word) for word in field.words[-1:]})
            if is_named and self._schemas.flatten(field.schema["items"])["properties"]:
                return f"{jsonpath(field.path)}[*]"
        return ""

    def _results(self, reads: Sequence[Operation], base: tuple[str, ...], read: Operation) -> Iterator[Operation]:
        has_verb = _segments(read.path) != base
        for operation in reads:
            segments = _segments(operation.path)[len(base) :]
            is_named = len(segments) == 1 and {singular(word) for word in split_words(segments[0])} & {
                "result",
                "output",
            }
            if is_named or (has_verb and not segments and base[-1:] == ("{}",)):
                yield operation


def _last_words(operation: Operation) -> tuple[str, ...]:
    """Return the words of the last segment that is not a placeholder."""
    last = next((part for part in reversed(_segments(operation.path)) if part != "{}"), "")
    return tuple(singular(word) for word in split_words(last))


def _is_log(operation: Operation) -> bool:
    return operation.method == "GET" and bool({"log", "console"} & set(_last_words(operation)))


def is_log_of(operation: Operation, steps: Sequence[tuple[Operation, str]]) -> bool:
    """Whether an operation returns the log of a step: its path has the noun of the steps and an id."""
    words = {singular(word) for _, path in steps for word in split_words(path)}
    segments = _segments(operation.path)
    owner = segments[-3:-2] if segments[-2:-1] == ("{}",) else ()
    return _is_log(operation) and any(singular(word) in words for part in owner for word in split_words(part))


def _is_id(name: str) -> bool:
    return split_words(name)[-1:] in {("id",), ("uuid",), ("number",)}
