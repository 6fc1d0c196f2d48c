"""How a run lives at a provider, as an overlay describes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mcp_taskruns.core.model.json_path import Condition, Path
from mcp_taskruns.core.model.operation import Operation


class RunStatus(StrEnum):
    """Where a run stands, in any provider; `unknown` is a native state that its capability does not name."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    UNKNOWN = "unknown"

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended: it will not leave this state."""
        return self in {RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELED}


@dataclass(frozen=True)
class RunShape:
    """Where the parts of a run stand in a JSON value; what has no path is not told there.

    `error` are several paths, whose texts are joined. `progress` leads to a ratio from 0 to 1.
    """

    id: Path
    state: Path
    stage: Path | None = None
    progress: Path | None = None
    result: Path | None = None
    error: tuple[Path, ...] = ()
    started: Path | None = None


@dataclass(frozen=True)
class RunStream:
    """The operation whose events tell how runs go on.

    `ids` is the argument that names the runs, a list of them when `is_many`. Events that fulfil `when` hold a run of
    `shape`. `arguments` are passed when only what follows matters. A run that is in one of the states `untold` when
    the stream is opened never appears on it.
    """

    operation: Operation
    ids: str
    is_many: bool
    shape: RunShape
    when: Condition = ()
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    untold: frozenset[RunStatus] = frozenset()


@dataclass(frozen=True)
class RunStart:
    """An operation that makes or starts a run.

    `key` leads to the argument by which the provider recognises a repeated call. `then` is an operation that has to
    be called too before the run goes on, when its answer fulfils `when`.
    """

    tool: str
    key: Path | None = None
    then: "RunCall | None" = None
    when: Condition = ()


@dataclass(frozen=True)
class RunCall:
    """An operation on one run: its tool's name, and the argument that is the run's id."""

    tool: str
    operation: Operation
    id: str


@dataclass(frozen=True)
class RunCancel:
    """A call that cancels a run: of this tool, with arguments that fulfil `when`.

    `guard` is the argument without which a run that has ended is left alone; empty: it is left alone in any case.
    """

    call: RunCall
    when: Condition = ()
    guard: str = ""


@dataclass(frozen=True)
class Lifecycle:
    """How a run lives at one provider. Tools are named as they are listed.

    `found` says in whose answers runs stand, and where. Reading more often than every `interval_s` seconds tells
    nothing new; an answer may be `cached_s` old. `is_forgotten`: a run that was cancelled cannot be read any more.
    `lifetime_s`: how long a run can be read after it began, None where that is not known. `advice` are sentences for
    native states.
    """

    provider: str
    read: RunCall
    shape: RunShape
    states: Mapping[str, RunStatus] = field(hash=False)
    wait_tool: str = ""
    stream: RunStream | None = None
    starts: Mapping[str, RunStart] = field(default_factory=dict, hash=False)
    cancels: tuple[RunCancel, ...] = ()
    found: Mapping[str, Path] = field(default_factory=dict, hash=False)
    interval_s: float = 5.0
    cached_s: float = 0.0
    is_forgotten: bool = False
    lifetime_s: float | None = None
    advice: Mapping[str, str] = field(default_factory=dict, hash=False)
