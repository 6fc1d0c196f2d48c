"""The lifecycle of a provider's runs, compiled from the `runs` of an overlay."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from mcp_taskruns.core.model.json_path import Condition, Path
from mcp_taskruns.core.model.operation import Location, Operation


class RunStatus(StrEnum):
    """The normalised status of a run; `unknown` is a native status that the overlay does not list."""

    NOT_STARTED = "not started"
    """The run exists, but does not begin by itself: another call has to start it."""
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    UNKNOWN = "unknown"

    @property
    def is_terminal(self) -> bool:
        """Whether a run with this status will not change any more."""
        return self in (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELED)


@dataclass(frozen=True)
class Statuses:
    """The normalised status of each native status.

    A native status has one part for each field that it is made of. `*` in a pattern is any value of one part.
    """

    exact: Mapping[tuple[str, ...], RunStatus] = field(default_factory=dict, hash=False)
    patterns: tuple[tuple[tuple[str, ...], RunStatus], ...] = ()
    """The first that matches counts, if no exact one does."""

    def normalise(self, native: tuple[str, ...]) -> RunStatus:
        """Return the normalised status; `unknown` for a native status that is not listed."""
        if native in self.exact:
            return self.exact[native]
        return next((status for pattern, status in self.patterns if _matches(native, pattern)), RunStatus.UNKNOWN)

    def includes(self, native_status: str) -> bool:
        """Return whether a native status, of which parts may be `*`, can be one of those listed."""
        listed = [*self.exact, *(pattern for pattern, _ in self.patterns)]
        wanted = _parts(native_status)
        return any(_matches(parts, wanted) or _matches(wanted, parts) for parts in map(_parts, map("/".join, listed)))


ANY = "*"
"""Any value of one part of a native status."""


def _parts(native_status: str) -> tuple[str, ...]:
    return tuple(native_status.split("/"))


def _matches(native: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    return len(native) == len(pattern) and all(
        wanted in (ANY, part) for part, wanted in zip(native, pattern, strict=True)
    )


@dataclass(frozen=True)
class ProgressFields:
    """Paths to how far a run is: a ratio from 0 to 1, a percentage, or the number of done parts and of all parts."""

    ratio: Path | None = None
    percent: Path | None = None
    done: tuple[Path, ...] = ()
    """Several numbers, which are added."""
    total: Path | None = None


@dataclass(frozen=True)
class RunFields:
    """Paths to the fields of a run in a JSON value; None for fields that the value does not have."""

    id: Path
    status: tuple[Path, ...]
    """Several paths, whose values are the parts of the native status; parts without a value are left out."""
    stage: Path | None = None
    progress: ProgressFields | None = None
    result: Path | None = None
    error: tuple[Path, ...] = ()
    """Several paths, whose texts are joined."""
    started_at: Path | None = None
    ended_at: Path | None = None
    attempts: Path | None = None
    """Path to the number or the list of attempts."""


@dataclass(frozen=True)
class RunStream:
    """The operation whose events report changes of runs."""

    operation: Operation
    run_ids_argument: str
    """The argument that names the run, or the list of runs if `takes_many_runs`."""
    takes_many_runs: bool
    fields: RunFields
    when: Condition = ()
    """Only events that match this condition hold a run."""
    new_events_arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Arguments that skip the events before the connection."""
    last_events: frozenset[str] = frozenset()
    """Names of events after which the stream is over."""
    connection_events: frozenset[str] = frozenset()
    """Names of events about the connection, not about the run."""


@dataclass(frozen=True)
class RunCall:
    """An operation on one run: the listed name of its tool, and the argument that takes the run's id."""

    tool: str
    operation: Operation
    run_id_argument: str


@dataclass(frozen=True)
class LongPoll:
    """A parameter of the read on which the provider holds its response back until the run has ended, or changed."""

    location: Location
    """Query or header."""
    name: str
    value: str
    """`{seconds}` in it is how long the response may be held back."""
    max_seconds: int


@dataclass(frozen=True)
class RunStart:
    """An operation that creates or starts a run."""

    tool: str
    idempotency_key_argument: Path | None = None
    """Path to the argument by which the provider recognises a repeated call."""
    key_is_run_id: bool = False
    """Whether that is the run's own id: a repeated call is refused with a conflict, and the run can be read."""
    run_id: Path | None = None
    """Path to the run's id in the response; None: in the run in the response."""
    find: "RunFind | None" = None
    """How to find the run if the response does not name it."""
    then: RunCall | None = None
    """An operation to call next, without which the run does not proceed."""
    then_when: Condition = ()
    """`then` is called only if the response matches this condition."""


@dataclass(frozen=True)
class RunActor:
    """Who starts runs: an operation whose response names the user of the credential."""

    operation: Operation
    name: Path
    """Path to the name in its response."""
    argument: str
    """The argument of the list that takes the name."""


@dataclass(frozen=True)
class RunFind:
    """How to find the run of a start whose response does not name it: the newest in a list since the start."""

    operation: Operation
    created_at: Path
    """Path from a run to the ISO 8601 timestamp of its creation."""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Constant arguments of the list. It also takes the arguments in its path from the start."""
    same: Mapping[str, Path] = field(default_factory=dict, hash=False)
    """Arguments of the list with the path to their value in the arguments of the start."""
    actor: RunActor | None = None


@dataclass(frozen=True)
class RunCancelFirst:
    """An operation that cancels a run at providers that have it already. It takes the arguments in its path."""

    operation: Operation
    run_id_argument: str
    when: Condition = ()
    """It is sent only if the arguments of the call match this condition."""


@dataclass(frozen=True)
class RunCancel:
    """An operation that cancels a run when its arguments match `when`."""

    call: RunCall
    when: Condition = ()
    confirm_argument: str = ""
    """The argument without which a run with a terminal status is left unchanged; empty: it always is."""
    confirm_effect: str = ""
    """What the call does to such a run, as a participle: `deleted together with its output`."""
    ends_as: frozenset[str] = frozenset()
    """Native statuses of canceled runs that are not among those of `canceled`, because the provider has none."""
    first: RunCancelFirst | None = None
    """Sent first; `call` follows only if the provider does not have this operation."""


@dataclass(frozen=True)
class RunRequest:
    """An operation on one run that needs no tool, and where its arguments come from.

    It also takes the arguments in its path from the call.
    """

    operation: Operation
    run_id_argument: str = ""
    """The argument that takes the run's id; empty: none does."""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Further arguments, as trees in which tuples are paths to values of the run, or of a step of it."""


@dataclass(frozen=True)
class RunResult:
    """Another operation that has the result of a run that succeeded."""

    request: RunRequest
    result: Path = ()
    """In the response of the operation."""
    when: Condition = ()
    """Only of runs that match this condition."""
    is_json_text: bool = False
    """Whether the result is JSON in a text."""
    unwrap: str = ""
    """The only member of an object in which the provider wraps results that are not objects."""
    note: str = ""
    """What to report if the operation does not return the result; empty: the reason."""


@dataclass(frozen=True)
class RunStepParts:
    """What a step is made of: paths from the step to its parts, and from a part to its fields."""

    items: Path
    name: Path
    status: tuple[Path, ...]
    failed: Statuses


@dataclass(frozen=True)
class RunSteps:
    """The operation that lists the steps of a run, with paths to the fields of a step."""

    request: RunRequest
    items: Path
    name: Path
    status: tuple[Path, ...]
    failed: Statuses
    """Native statuses of steps that failed have the status `failed` here, all others are unknown."""
    error: tuple[Path, ...] = ()
    started_at: Path | None = None
    ended_at: Path | None = None
    attempts: Path | None = None
    parts: RunStepParts | None = None


@dataclass(frozen=True)
class RunLog:
    """An operation that returns the log of a run, or of a step of it."""

    request: RunRequest
    is_of_step: bool = False
    entries: Path | None = None
    """Path to the entries in a JSON response, or to one text with all lines; None: the response is text."""
    time: Path | None = None
    message: tuple[Path, ...] = ()
    """Paths to the texts of an entry, which are joined; empty: the whole entry."""
    until: re.Pattern[str] | None = None
    """Lines after the last one that matches are left out."""


Part = Literal["whole", "failed"]
"""What of a run is run again."""


@dataclass(frozen=True)
class RunRetry:
    """An operation that runs a run again, or a part of it."""

    request: RunRequest
    run_id: Path | None = None
    """Path to the id of the new run in the response; None: the run keeps its id."""
    refused: Condition = ()
    """A response that matches this condition is a refusal, although its status code is 2xx; empty: none is."""
    reason: Path | None = None
    """Path to the reason of a refusal."""
    then: RunCall | None = None
    then_when: Condition = ()


@dataclass(frozen=True)
class RunAgain:
    """How to start a run again with the same input.

    Attributes:
        tool: the tool that starts it.
        arguments: its arguments, as a tree with paths from the run.
        required: the names of those that the tool requires.
    """

    tool: str
    arguments: Mapping[str, Any] = field(hash=False)
    required: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RunFailure:
    """The meaning of errors that match a pattern."""

    matches: re.Pattern[str]
    meaning: str


@dataclass(frozen=True)
class RequestEvent:
    """Events about something that a run asks its user; the paths start at the event."""

    when: Condition
    id: Path
    text: Path = ()
    options: Path = ()


@dataclass(frozen=True)
class RunRequests:
    """How a run asks its user for something, such as a permission, and waits for it. The events are on its stream."""

    asked: tuple[RequestEvent, ...]
    resolved: tuple[RequestEvent, ...]
    hint: str
    """What to do; `{id}` and `{options}` are those of the request."""
    recent_seconds: float
    settled_by: Condition = ()
    """No request is open if the last entry of a log matches this condition; empty: it does not show."""
    recent_events_arguments: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Arguments that skip older events; `{milliseconds}` is the time since 1970 from which on they are needed."""
    shown_by: frozenset[str] = frozenset()
    """The operations whose results mention open requests."""


@dataclass(frozen=True)
class Lifecycle:
    """The lifecycle of the runs of one provider. Tools are named as they are listed."""

    provider: str
    read: RunCall
    fields: RunFields
    statuses: Statuses
    wait_tool: str = ""
    stream: RunStream | None = None
    starts: Mapping[str, RunStart] = field(default_factory=dict, hash=False)
    """By the name of the operation."""
    cancels: tuple[RunCancel, ...] = ()
    runs_in: Mapping[str, Path] = field(default_factory=dict, hash=False)
    """Path to the runs in the response of each operation that returns some."""
    result: RunResult | None = None
    steps: RunSteps | None = None
    logs: tuple[RunLog, ...] = ()
    retries: Mapping[Part, RunRetry] = field(default_factory=dict, hash=False)
    retry_tool: str = ""
    explain_tool: str = ""
    again: RunAgain | None = None
    failures: tuple[RunFailure, ...] = ()
    requests: RunRequests | None = None
    long_poll: LongPoll | None = None
    """Used by waits for one run of a provider without a stream."""
    poll_seconds: float = 5.0
    """The shortest useful time between two reads of a run."""
    max_age_seconds: float = 0.0
    """How old a response may be, because the provider caches it."""
    gone_after_cancel: bool = False
    """Whether a canceled run can no longer be read."""
    retention_seconds: float | None = None
    """How long a run can be read after it was started; None: unknown."""
    status_hints: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What to do about a run with this native status, of which parts may be `*`."""

    def status_hint(self, native_status: str) -> str | None:
        """Return what to do about a run with a native status, or None; a hint without `*` counts first."""
        if native_status in self.status_hints:
            return self.status_hints[native_status]
        native = _parts(native_status)
        return next((hint for text, hint in self.status_hints.items() if _matches(native, _parts(text))), None)

    def side_operations(self) -> Iterator[Operation]:
        """Yield the operations that calls about runs use besides those of tools."""
        requests = [self.result and self.result.request, self.steps and self.steps.request]
        requests += [log.request for log in self.logs] + [retry.request for retry in self.retries.values()]
        yield from (request.operation for request in requests if request)
        yield from (cancel.first.operation for cancel in self.cancels if cancel.first)
        for start in self.starts.values():
            if start.find is not None:
                yield start.find.operation
                yield from [start.find.actor.operation] if start.find.actor else []
