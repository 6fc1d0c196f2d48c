"""What to do after a call that changes something, and of which it is not known whether it did."""

from collections.abc import Iterable
from typing import TypeVar

from mcp_taskruns.core.calls.errors import REPEAT_HINT, WRITE_HINT
from mcp_taskruns.core.model.operation import Operation
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import CallError

_Failure = TypeVar("_Failure", bound=CallError)


def find_reader(tool: Tool, tools: Iterable[Tool]) -> str:
    """Return the name of the tool that reads what a tool changes, or an empty text.

    It reads the same path, or else the longest part of it: GET /jobs/{id} for POST /jobs/{id}/stop, and GET /jobs for
    POST /jobs.
    """
    path = _segments(tool.operation)
    readers = [other for other in tools if _reads(other) and _are_related(other.operation, tool.operation)]
    above = [reader for reader in readers if (part := _segments(reader.operation)) and part == path[: len(part)]]
    return max(above, key=lambda reader: len(_segments(reader.operation))).name if above else ""


def write_hint(reader: str) -> str:
    """Return the hint for a write that may have been carried out; `reader` is the tool to read the state with."""
    return f"{WRITE_HINT} {_how_to_read(reader)}".rstrip()


def with_reader(failure: _Failure, reader: str) -> _Failure:
    """Return the failure with the tool that shows its outcome, if that is unknown and its hint names no tool."""
    if not (failure.outcome_unknown and reader and failure.hint.endswith((WRITE_HINT, REPEAT_HINT))):
        return failure
    return failure.replace(hint=f"{failure.hint} {_how_to_read(reader)}")


def changes_something(tool: Tool) -> bool:
    """Return whether a call of the tool is more than reading."""
    if tool.derived:
        return not tool.hints.read_only
    return not (tool.operation.is_safe and tool.operation.is_safe_to_retry)


def _how_to_read(reader: str) -> str:
    return f"To find out, call {reader}." if reader else ""


def _reads(tool: Tool) -> bool:
    operation = tool.operation
    is_short = not (operation.is_stream or operation.returns_file or operation.log)
    return is_short and not tool.derived and not changes_something(tool)


def _are_related(one: Operation, other: Operation) -> bool:
    return (one.provider, one.namespace, one.base) == (other.provider, other.namespace, other.base)


def _segments(operation: Operation) -> list[str]:
    """Return the segments of an operation's path, with the same text for all placeholders."""
    text = "".join(part if isinstance(part, str) else "{}" for part in operation.path)
    return [segment for segment in text.partition("?")[0].split("/") if segment]
