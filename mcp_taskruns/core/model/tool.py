"""A tool as MCP lists it, with the operation that it calls."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mcp_taskruns.core.model.operation import Operation
from mcp_taskruns.core.model.run import Lifecycle

WAIT_SECONDS = "wait_seconds"
UNTIL = "until"
PART = "part"
LINES = "lines"
ALL_PAGES = "all_pages"
RESULT_PATH = "result_path"
LAST, SINCE, TYPES, RAW = "last", "since", "types", "raw"

DEFAULT_LAST = 100
"""Number of log entries to return when the caller passes no `last`."""

DEFAULT_LINES = 40
"""Number of log lines that an explanation has when the caller passes no `lines`."""

MAX_LINES = 500


class Derived(StrEnum):
    """What a tool does that is made of the description of runs, not of an operation."""

    WAIT = "wait"
    """Read a run until it has reached a terminal status."""
    EXPLAIN = "explain"
    """Read a run, its steps and its log."""
    RETRY = "retry"
    """Run a run again."""


@dataclass(frozen=True)
class Hints:
    """The four MCP tool annotations, all of them decided."""

    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool


@dataclass(frozen=True)
class Tool:
    """A tool as MCP lists it, with the operation that it calls."""

    name: str
    """The listed name."""
    declared_name: str
    """The name in the capability file."""
    prefix: str
    """The provider prefix of the listed name."""
    title: str
    description: str
    hints: Hints
    input_schema: Mapping[str, Any] = field(hash=False)
    operation: Operation = field(hash=False)
    dropped_arguments: frozenset[str] = frozenset()
    """Arguments that are accepted and not sent: headers that the server sets itself."""
    runs: Lifecycle | None = field(default=None, hash=False, repr=False)
    """The lifecycle of the runs that the operation works on."""
    derived: Derived | None = None
    """What the tool does with a run, if it does not just call `operation`, which reads the run."""
    server_arguments: frozenset[str] = frozenset()
    """Arguments that the server handles itself, such as `wait_seconds`."""
    safe_names: Mapping[str, str] = field(default_factory=dict, hash=False)
    """For names in the input schema that model vendors refuse, the names to list instead."""
    output_schema: Mapping[str, Any] | None = field(default=None, hash=False)
    route: tuple[str, str, str] | None = None
    """Method, path and capability file of the tool's route on the REST side."""

    @property
    def is_wait_tool(self) -> bool:
        """Whether the tool waits for a run."""
        return self.derived is Derived.WAIT

    def called_operations(self) -> list[Operation]:
        """Return the operations without which a call of the tool is of no use."""
        if self.derived is Derived.RETRY and self.runs is not None:
            return [retry.request.operation for retry in self.runs.retries.values()]
        return [self.operation]

    def is_available(self, environment: Mapping[str, str]) -> bool:
        """Return whether the environment has what a call of the tool needs."""
        return all(operation.is_available(environment) for operation in self.called_operations())
