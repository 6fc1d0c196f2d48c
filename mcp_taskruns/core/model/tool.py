"""What MCP lists, and the operation that a call of it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_taskruns.core.model.operation import Operation
from mcp_taskruns.core.model.run import Lifecycle

WAIT_SECONDS = "wait_seconds"
UNTIL = "until"
ALL_PAGES = "all_pages"
LAST, SINCE, TYPES, RAW = "last", "since", "types", "raw"

DEFAULT_LAST = 100
"""Entries of a log that are told when none says how many."""


@dataclass(frozen=True)
class Hints:
    """What a tool does to the world, all four decided."""

    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool


@dataclass(frozen=True)
class Tool:
    """What MCP lists, and the operation that a call of it runs.

    `ignored` are arguments that are accepted and dropped: the server sets those headers itself. `runs` is the life
    cycle of the runs that the operation is about; a tool that `waits` reads one until it has ended. `own` are arguments
    that are the server's and not the operation's. `route` is where the REST side has it: method, path and file.
    """

    name: str
    spec_name: str
    prefix: str
    title: str
    description: str
    hints: Hints
    input_schema: Mapping[str, Any] = field(hash=False)
    operation: Operation = field(hash=False)
    ignored: frozenset[str] = frozenset()
    runs: Lifecycle | None = field(default=None, hash=False, repr=False)
    waits: bool = False
    own: frozenset[str] = frozenset()
    output_schema: Mapping[str, Any] | None = field(default=None, hash=False)
    route: tuple[str, str, str] | None = None
