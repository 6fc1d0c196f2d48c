"""How to read on in a run of which a result shows only a part."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mcp_taskruns.core.calls.parts import MAX_PATH
from mcp_taskruns.core.calls.truncation import Gap
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import EACH, Path, value_at
from mcp_taskruns.core.model.operation import Location
from mcp_taskruns.core.model.run import Lifecycle
from mcp_taskruns.core.model.tool import RESULT_PATH


def advise_to_read_run(lifecycle: Lifecycle, operation: str, value: Any, gaps: Sequence[Gap]) -> str:
    """Return a sentence about the call that reads on after a truncated place of a run.

    `value` is the result of an operation, or of waiting.
    """
    read = lifecycle.read
    is_wait = isinstance(value, dict) and {"timed_out", "polls"} <= value.keys()
    for gap in gaps:
        if is_wait:
            found = _find_in_wait(lifecycle, value, gap.path)
        else:
            found = _find_run(lifecycle, operation, value, gap.path)
        if found is None:
            continue
        run_id, path = found
        rest = replace(gap, path=(*lifecycle.runs_in[read.operation.name], *path)).rest
        if len(rest) <= MAX_PATH:
            arguments = f"{read.run_id_argument} {dump(run_id)} and {RESULT_PATH} {dump(rest)}"
            return f"To read on, call {read.tool} with {arguments}{_other_arguments(lifecycle)}."
    are_runs_left_out = is_wait and any(gap.path == ("runs",) for gap in gaps)
    return "For the other runs call again with fewer ids." if are_runs_left_out else ""


def _other_arguments(lifecycle: Lifecycle) -> str:
    """Return the names of the other arguments that reading a run needs; the caller has passed them before."""
    read = lifecycle.read
    names = [
        parameter.argument
        for parameter in read.operation.parameters
        if parameter.location is Location.PATH and parameter.argument and parameter.default is None
    ]
    others = [name for name in names if name != read.run_id_argument]
    return f" and the same {' and '.join(others)}" if others else ""


def _find_in_wait(lifecycle: Lifecycle, value: Any, path: Path) -> tuple[str, Path] | None:
    """Return the id of the run with this place in the result of waiting, and the place in the run."""
    if path[:1] == ("runs",) and len(path) > 1:
        value, path = value["runs"][path[1]], path[2:]
    fields = lifecycle.fields
    places = {"result": fields.result, "error": fields.error[0] if len(fields.error) == 1 else None}
    place = places.get(path[0]) if path else None
    return None if place is None else (value["run_id"], (*place, *path[1:]))


def _find_run(lifecycle: Lifecycle, operation: str, value: Any, path: Path) -> tuple[str, Path] | None:
    """Return the id of the run with this place in the response of an operation, and the place in the run."""
    place = lifecycle.runs_in.get(operation)
    if place is None or EACH in place or path[: len(place)] != place:
        return None
    run_id = value_at(value, (*place, *lifecycle.fields.id))
    return (run_id, path[len(place) :]) if isinstance(run_id, str) else None
