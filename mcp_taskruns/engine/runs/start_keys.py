"""The idempotency keys of starts.

Many clients give up on a call after a few seconds, some without a message to the server, and the model makes the same
call again. Such a start reuses the key of the one whose result did not reach the client, so that the provider starts
one run. Keys are kept in memory, with digests of the arguments instead of the arguments.
"""

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import uuid4

import anyio

from mcp_taskruns.core.calls.truncation import quote_name
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import Path, format_path, set_at, value_at
from mcp_taskruns.core.model.run import Lifecycle
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.engine.retries import Key
from mcp_taskruns.errors import CallError

REUSE_SECONDS = 600.0
"""How long the key of a start is kept whose result did not reach the client."""

ABANDONED_SECONDS = 4.0
"""How long a start runs before an identical one shows that the client has given up on it: many do after 5 s."""

MAX_STARTS = 1_000
"""Starts that are remembered; the oldest are forgotten first."""

OWN_PREFIX = "mcp-"
"""The beginning of the keys that this server makes."""


class Stage(Enum):
    """How far a start has come."""

    UNSENT = "unsent"
    SENT = "sent"
    CREATED = "created"
    """The run exists, and a second request may have started it."""
    STARTED = "started"


@dataclass(eq=False)
class Caller:
    """Who makes a call.

    Attributes:
        identity: what distinguishes the callers of one server.
        start: the start of a run in this call, if it is one.
        task: the task that makes the call.
    """

    identity: str = ""
    start: "StartCall | None" = None
    task: "asyncio.Task[Any] | None" = None

    @property
    def is_cancelled(self) -> bool:
        """Whether the call has been cancelled. It ends a moment later, when its connections are closed."""
        return self.task is not None and self.task.cancelling() > 0


@dataclass(eq=False)
class StartCall:
    """One call that starts a run: its idempotency key, and how far it has come.

    Attributes:
        lifecycle: the lifecycle of the run.
        key_path: the path to the argument for the key; empty if the provider takes none.
        key: the key; empty if the provider takes none.
        key_use: whether an earlier call may have sent the key.
        is_reused: whether it is the key of an earlier identical call.
        finder: the tool that shows which runs exist; empty if there is none.
    """

    lifecycle: Lifecycle
    key_path: Path = ()
    key: str = ""
    key_use: Key = Key.NONE
    is_reused: bool = False
    finder: str = ""
    stage: Stage = Stage.UNSENT
    run_id: str = ""

    def key_hint(self) -> str:
        """Return a sentence about repeating the call with its key."""
        argument = f"{format_path(self.key_path)} {dump(self.key)}"
        return f"To try again, pass {argument}: with this key no second run is started."

    def unknown_hint(self) -> str:
        """Return what to do when it is not known whether the run exists."""
        text = f"The run may exist: look with {self.finder}" if self.finder else "The run may exist: look for it"
        return f"{text}. {self.key_hint()}" if self.key else f"{text} before starting another one."

    def stop_hint(self) -> str:
        """Return what to do when the call is interrupted now."""
        lifecycle, run = self.lifecycle, quote_name(self.run_id)
        if self.stage is Stage.UNSENT:
            return "Nothing was sent."
        if self.stage is Stage.SENT:
            return self.unknown_hint()
        if self.stage is Stage.CREATED:
            return f"Run {run} was created, and may have been started: call {lifecycle.read.tool} before starting it."
        key = f' Idempotency key: "{self.key}".' if self.key else ""
        return f"Run {run} was started and continues at the provider: call {lifecycle.wait_tool} to wait for it.{key}"


@dataclass(eq=False)
class _Start:
    """A start whose result has not reached its client, as far as is known."""

    digest: str
    key: str
    began_at: float
    caller: Caller
    """The last call with this key: whether its result reaches the client is what counts."""
    lost_at: float | None = None
    has_siblings: bool = False
    """Whether identical starts ran at the same time, so that the client wants several runs."""

    def is_repeated_at(self, now: float) -> bool:
        """Return whether an identical call that begins now repeats this start."""
        if self.lost_at is not None or self.caller.is_cancelled:
            return True
        return not self.has_siblings and now - self.began_at >= ABANDONED_SECONDS


class StartKeys:
    """The idempotency keys of the starts of one server; with `reuses`, identical starts share them as described."""

    def __init__(self, *, reuses: bool) -> None:
        self._reuses = reuses
        self._starts: list[_Start] = []

    @contextmanager
    def call(
        self, caller: Caller, tool: Tool, lifecycle: Lifecycle, arguments: Mapping[str, Any], finder: str = ""
    ) -> Iterator[StartCall]:
        """Yield the start of a run by a tool, with a key if the provider takes one; the block makes the call."""
        path = lifecycle.starts[tool.operation.name].idempotency_key_argument or ()
        given = value_at(arguments, path) if path else None
        if not path or given:
            # Callers have keys of this server from its errors, so an earlier call may have sent them.
            use = Key.NONE if not path else Key.TRIED if str(given).startswith(OWN_PREFIX) else Key.NEW
            caller.start = StartCall(lifecycle, path, str(given or ""), use, finder=finder)
            yield caller.start
            return
        caller.task = asyncio.current_task()
        start, is_reused = self._find(caller, _digest(caller, tool, set_at(arguments, path, None)))
        use = Key.TRIED if is_reused else Key.NEW
        caller.start = StartCall(lifecycle, path, start.key, use, is_reused, finder)
        with self._remember(start, caller):
            yield caller.start

    def _find(self, caller: Caller, digest: str) -> tuple[_Start, bool]:
        """Return the start that a call repeats, and True; else a new one, and False."""
        now = anyio.current_time()
        self._starts = [start for start in self._starts if start.lost_at is None or now - start.lost_at < REUSE_SECONDS]
        same = [start for start in self._starts if start.digest == digest]
        repeated = next((start for start in same if start.is_repeated_at(now)), None)
        if repeated is not None:
            repeated.caller, repeated.began_at, repeated.lost_at = caller, now, None
            return repeated, True
        start = _Start(digest, f"{OWN_PREFIX}{uuid4()}", now, caller)
        for sibling in (*same, start) if same else ():
            sibling.has_siblings = True
        return start, False

    @contextmanager
    def _remember(self, start: _Start, caller: Caller) -> Iterator[None]:
        """Remember a start while the block runs, and afterwards if its result does not reach the client."""
        if self._reuses and start not in self._starts:
            self._starts = [*self._starts, start][-MAX_STARTS:]
        is_lost = True
        try:
            yield
            is_lost = False
        except CallError as exc:
            is_lost = exc.outcome_unknown
            raise
        finally:
            if start.caller is caller:  # else a later call has the key
                start.lost_at = anyio.current_time()
                if not is_lost and start in self._starts:
                    self._starts.remove(start)


def _digest(caller: Caller, tool: Tool, arguments: Mapping[str, Any]) -> str:
    """Return a digest of who starts what. Arguments that the server handles itself make no difference."""
    sent = {name: value for name, value in arguments.items() if name not in tool.server_arguments}
    text = json.dumps([caller.identity, tool.name, sent], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
