"""The fields of a run, guessed from the schema of the response that reads it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from mcp_taskruns.generator.document import Operation
from mcp_taskruns.generator.schemas import Field, Schemas
from mcp_taskruns.generator.statuses import FAILED, SUCCEEDED, StatusGuess, guess_statuses
from mcp_taskruns.generator.words import code_words, split_words, without_code

_STATUS_WORDS = ("status", "state", "phase", "lifecycle", "condition")
_OUTCOME_WORDS = frozenset({"conclusion", "outcome", "result", "code", "resolution"})
_MIN_NATIVE = 3
"""The number of known statuses in a description that make it a list of statuses."""

_NAMES = (
    "name",
    "display_name",
    "title",
    "key",
    "step_key",
    "task_key",
    "step_name",
    "task_name",
    "task_id",
    "label",
    "id",
)
_RESULTS = ("output", "outputs", "result", "results", "return_value", "response", "data", "artifacts")
_ERRORS = (
    "error",
    "error_message",
    "failure_reason",
    "failure",
    "error_details",
    "errors",
    "exception",
    "state_message",
)
_STARTED = (
    "started_at",
    "start_time",
    "start_date",
    "started",
    "run_started_at",
    "created_at",
    "create_time",
    "created",
)
_ENDED = (
    "ended_at",
    "finished_at",
    "completed_at",
    "end_time",
    "end_date",
    "close_time",
    "finished",
    "completed",
    "ended",
    "date_done",
)
_PERCENT = (
    "progress_percent",
    "percent",
    "percentage",
    "percent_complete",
    "progress_percentage",
    "completion_percentage",
)
_DONE = frozenset({"completed", "succeeded", "done", "processed", "finished", "failed", "errored", "success"})


@dataclass(frozen=True)
class Run:
    """The fields of a run, as JSONPaths from the run; empty texts are unknown."""

    root: tuple[str, ...]
    """The path to the run in the response that reads it."""
    id: str
    status: tuple[str, ...]
    statuses: StatusGuess
    status_source: str
    """Where the statuses are listed."""
    id_source: str = ""
    """Where the path of the id is from, if not from the response that reads a run."""
    result: str = ""
    error: str = ""
    started_at: str = ""
    ended_at: str = ""
    attempts: str = ""
    progress: str | tuple[tuple[str, ...], str] = ""
    """A ratio, or paths to the numbers of parts that are done, and to that of all."""
    percent: str = ""


@dataclass(frozen=True)
class _StatusField:
    paths: tuple[tuple[str, ...], ...]
    statuses: StatusGuess
    source: str
    score: float


def find_run(schemas: Schemas, read: Operation, lists: Sequence[Operation], starts: Sequence[Operation]) -> Run | None:
    """Return the fields of the run that an operation reads; None if it has no status."""
    fields = schemas.response_fields(read)
    status = _find_status(schemas, fields, read, lists)
    if status is None:
        return None
    root = _find_root(fields, status.paths[0], read)
    inner = [Field(field.path[len(root) :], field.schema) for field in fields if field.path[: len(root)] == root]
    inner = [field for field in inner if field.path]
    run_id, source = _find_id(schemas, inner, read, starts)
    done, total = _find_counts(inner)
    return Run(
        root=root,
        id=run_id,
        id_source=source,
        status=tuple(_path(path[len(root) :]) for path in status.paths),
        statuses=status.statuses,
        status_source=status.source,
        result=_find(inner, _RESULTS, lambda one: True),
        error=_find_error(inner),
        started_at=_find(inner, _STARTED, lambda one: one.is_time),
        ended_at=_find(inner, _ENDED, lambda one: one.is_time),
        attempts=_find(inner, ("attempts", "attempt_count", "run_count", "attempt", "run_attempt"), lambda one: True),
        progress=_find(inner, ("progress",), lambda one: one.schema["types"] == {"number"})
        or ((done, total) if done and total else ""),
        percent=_find(inner, _PERCENT, lambda one: one.is_number),
    )


@dataclass(frozen=True)
class Step:
    """The fields of a step of a run, as JSONPaths from the step."""

    name: str
    status: tuple[str, ...]
    failed: tuple[str, ...]
    """The statuses of steps that failed."""
    error: str
    started_at: str
    ended_at: str
    id: str


def find_step(schemas: Schemas, item: Any, read: Operation) -> Step | None:
    """Return the fields of a step with this schema; None if it has no status or no name."""
    fields = schemas.fields(item)
    status = _find_status(schemas, fields, read, ())
    name = _find(fields, _NAMES, lambda one: one.is_scalar)
    if status is None or not name:
        return None
    failed = tuple(native for native, known in status.statuses.known.items() if known == FAILED)
    return (
        None
        if not failed
        else Step(
            name=name,
            status=tuple(_path(path) for path in status.paths),
            failed=failed,
            error=_find_error(fields),
            started_at=_find(fields, _STARTED, lambda one: one.is_time),
            ended_at=_find(fields, _ENDED, lambda one: one.is_time),
            id=_find(fields, ("id", "uuid"), lambda one: one.is_scalar),
        )
    )


def find_result(schemas: Schemas, operation: Operation) -> str:
    """Return the path to the result in the response of an operation that returns it."""
    return _find(schemas.response_fields(operation), _RESULTS, lambda one: True) or "$"


def _path(path: tuple[str, ...]) -> str:
    return Field(path, {}).jsonpath()


def _find_status(
    schemas: Schemas, fields: Sequence[Field], read: Operation, lists: Sequence[Operation]
) -> _StatusField | None:
    """Return the field with the status of a run, with a second one if that has the outcome."""
    found = [status for field in fields if (status := _status_of(schemas, field, read, lists)) is not None]
    best = max(found, key=lambda status: status.score, default=None)
    if best is None or not best.statuses.ended or len(best.statuses.known) < 2:
        return best
    return _with_outcome(best, fields, schemas) or best


def _status_of(schemas: Schemas, field: Field, read: Operation, lists: Sequence[Operation]) -> _StatusField | None:
    words = field.words
    last = words[-1] if words else ""
    is_type_of_state = last == "type" and any(
        word in _STATUS_WORDS for step in field.path[:-1] for word in split_words(step)
    )
    is_type_of_state = is_type_of_state or words[-2:] in {("state", "type"), ("status", "type")}
    if not (last in _STATUS_WORDS or is_type_of_state) or not field.is_scalar:
        return None
    natives, source = _natives_of(schemas, field, read, lists)
    if not natives:
        return None
    guess = guess_statuses(natives)
    is_named = len(words) == 1 or is_type_of_state
    score = (
        4 * guess.describes_runs + 2 * bool(guess.found) + min(len(guess.known), 8) * 0.2 + is_named - len(field.path)
    )
    score += 1.5 * (SUCCEEDED in guess.found and FAILED in guess.found)
    score -= _STATUS_WORDS.index(last) * 0.1 if last in _STATUS_WORDS else 0
    return _StatusField((field.path,), guess, source, score) if guess.found else None


def _natives_of(
    schemas: Schemas, field: Field, read: Operation, lists: Sequence[Operation]
) -> tuple[tuple[str, ...], str]:
    """Return the statuses of a field, and where they are listed."""
    if len(field.enum) > 1:
        return field.enum, "its schema"
    others = {split_words(one) for one in schemas.flatten(schemas.response_of(read))["properties"]}
    described = _listed_in(field.schema["description"], others)
    if described:
        return described, "its description"
    for operation in lists:
        for parameter in operation.parameters:
            words = split_words(parameter.name)
            if parameter.location == "query" and set(words) & set(_STATUS_WORDS):
                flat = schemas.flatten(parameter.schema)
                items = schemas.flatten(flat["items"]) if flat["items"] is not None else flat
                natives = Field((parameter.name,), items).enum
                if guess_statuses(natives).describes_runs:
                    return natives, f"the parameter {parameter.name} of {operation.id}"
    described = _listed_in(read.description, others)
    return (described, f"the description of {read.id}") if described else (field.enum, "its schema")


def _listed_in(text: str, names: Collection[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the statuses that a description lists in quotes or backticks; nothing if it lists too few.

    `names` are the words of the fields of the response, which a description quotes too.
    """
    quoted = [one for one in dict.fromkeys(code_words(without_code(text))) if split_words(one) not in names]
    guess = guess_statuses(tuple(quoted))
    natives = tuple(native for native in guess.known if native not in guess.doubtful)
    listed = guess_statuses(natives)
    is_list = len(natives) >= _MIN_NATIVE and listed.describes_runs and {SUCCEEDED, FAILED} & listed.found
    return natives if is_list else ()


def _with_outcome(status: _StatusField, fields: Sequence[Field], schemas: Schemas) -> _StatusField | None:
    """Return the status together with the field that has the outcome of a run that has ended; None without one."""
    parent = status.paths[0][:-1]
    for field in sorted(fields, key=lambda one: len(one.path)):
        if field.path[: len(parent)] != parent or not field.is_scalar or not _OUTCOME_WORDS & set(field.words[-2:]):
            continue
        outcomes = guess_statuses(field.enum, are_outcomes=True)
        if outcomes.describes_outcomes:
            return _join(status, field, outcomes, "its schema and that of the outcome")
        # A list may be filtered by both in one parameter.
        same = {native: known for native, known in status.statuses.known.items() if native not in status.statuses.ended}
        mixed = guess_statuses(tuple(same))
        if not field.enum and {SUCCEEDED, FAILED} <= mixed.found:
            return _split(status, field)
    return None


def _join(status: _StatusField, field: Field, outcomes: StatusGuess, source: str) -> _StatusField:
    """Return a status of two fields: `completed/success`."""
    ended = status.statuses.ended
    known = {native: one for native, one in status.statuses.known.items() if native not in ended}
    known |= {f"{native}/{outcome}": one for native in ended for outcome, one in outcomes.known.items()}
    unclear = (*status.statuses.unclear, *(f"{native}/{outcome}" for native in ended for outcome in outcomes.unclear))
    doubtful = (*status.statuses.doubtful, *(f"{ended[0]}/{outcome}" for outcome in outcomes.doubtful))
    return _StatusField((*status.paths, field.path), StatusGuess(known, unclear, doubtful), source, status.score)


def _split(status: _StatusField, field: Field) -> _StatusField:
    """Return a status of two fields whose values are in one list."""
    natives = [*status.statuses.known, *status.statuses.unclear]
    rest = [native for native in natives if native not in status.statuses.ended]
    outcomes = guess_statuses(tuple(rest), are_outcomes=True)
    is_outcome = {native for native, one in outcomes.known.items() if one in {SUCCEEDED, FAILED, "canceled"}}
    kept = {native: one for native, one in status.statuses.known.items() if native not in is_outcome}
    active = _StatusField(status.paths, StatusGuess(kept, (), ()), status.source, status.score)
    ended = tuple(native for native in kept if native in status.statuses.ended)
    only = StatusGuess(
        {n: one for n, one in outcomes.known.items() if n in is_outcome}, outcomes.unclear, outcomes.doubtful
    )
    unclear = tuple(f"{native}/{outcome}" for native in ended for outcome in only.unclear)
    known = {n: one for n, one in kept.items() if n not in ended}
    known |= {f"{native}/{outcome}": one for native in ended for outcome, one in only.known.items()}
    doubtful = tuple(f"{native}/{outcome}" for native in ended for outcome in only.doubtful)
    return _StatusField((*active.paths, field.path), StatusGuess(known, unclear, doubtful), status.source, status.score)


def _find_root(fields: Sequence[Field], status: tuple[str, ...], read: Operation) -> tuple[str, ...]:
    """Return the path to the object that is the run.

    That is the outermost one around the status that has an id, else the innermost one in which the id is deeper.
    """
    named = {split_words(name) for name in read.placeholders[-1:]}
    around = [status[:length] for length in range(len(status))]
    for root in around:
        if any(field.path[:-1] == root and field.words in named | {("id",), ("uuid",), ("uid",)} for field in fields):
            return root
    named |= {words[1:] for words in named}
    for root in reversed(around):
        if any(field.path[: len(root)] == root and field.words in named for field in fields):
            return root
    return ()


def _find_id(
    schemas: Schemas, fields: Sequence[Field], read: Operation, starts: Sequence[Operation]
) -> tuple[str, str]:
    """Return the path to the id of a run, and where it is from if the run does not show it."""
    names = [one.name for one in read.parameters if one.location == "query" and split_words(one.name)[-1:] == ("id",)]
    names = list(read.placeholders[-1:]) or names[:1]
    expected = [split_words(name.rpartition(".")[2]) for name in names]
    candidates = [
        *expected,
        ("id",),
        ("uuid",),
        ("uid",),
        *((*words[:-1], "id") for words in expected if words[-1:] != ("id",)),
    ]
    for words in candidates:
        same = [field for field in fields if field.words == words and field.is_scalar]
        if same and (len(same[0].path) == 1 or words in expected):
            return same[0].jsonpath(), ""
    for operation in starts:
        for field in schemas.response_fields(operation):
            if field.words in expected and field.is_scalar:
                return field.jsonpath(), operation.id
    return "", ""


def _find(fields: Sequence[Field], names: Sequence[str], is_suitable: Callable[[Field], bool]) -> str:
    """Return the path to the first field of the run itself with one of these names."""
    by_words = {"_".join(field.words): field for field in reversed(fields) if len(field.path) == 1}
    found = (by_words[name] for name in names if name in by_words and is_suitable(by_words[name]))
    return next((field.jsonpath() for field in found), "")


def _find_error(fields: Sequence[Field]) -> str:
    """Return the path to the error of a run, or to its message; that of a status object comes last."""
    path = _find(fields, _ERRORS, lambda one: True)
    if path:
        message = f"{path}.message"
        return message if any(field.jsonpath() == message for field in fields) else path
    for field in fields:
        if (
            len(field.path) == 2
            and split_words(field.path[0])[-1:] in {("state",), ("status",)}
            and field.name == "message"
        ):
            return field.jsonpath()
    return ""


def _find_counts(fields: Sequence[Field]) -> tuple[tuple[str, ...], str]:
    """Return the paths to the numbers of parts that are done, and to that of all parts."""
    for total in fields:
        if len(total.path) == 2 and total.name == "total" and total.is_number:
            beside = [field for field in fields if field.path[:-1] == total.path[:-1] and field.is_number]
            done = tuple(field.jsonpath() for field in beside if field.words[-1] in _DONE)
            return done, total.jsonpath()
    return (), ""
