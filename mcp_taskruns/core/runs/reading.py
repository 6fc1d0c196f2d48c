"""The status of a run as a provider reports it, in a response or in an event."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from math import isnan
from typing import Any

from mcp_taskruns.core.calls.truncation import one_line, quote, quote_name
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import EACH, Path, matches, replace_at, value_at, values_at
from mcp_taskruns.core.model.run import Lifecycle, ProgressFields, RunFields, RunStatus, Statuses
from mcp_taskruns.core.model.timestamps import to_timestamp

MAX_ERRORS = 20
"""Errors of a run that are joined."""

MAX_NUMBER = 1e300
"""Larger numbers count as this one."""


@dataclass(frozen=True)
class Reading:
    """What a provider reports about a run at one moment.

    Attributes:
        run_id: the id of the run.
        status: the normalised status.
        native_status: the provider's own status, exactly, its parts joined by slashes; empty if it reports none.
        stage: the provider's name of the current step; may be empty.
        progress: a ratio from 0 to 1, if the provider reports it.
        result: the result of a run that succeeded.
        error: the error of a run that failed or was cancelled.
        started: when the run started, as an ISO 8601 timestamp; may be empty.
        ended: when the run reached its terminal status, as an ISO 8601 timestamp; may be empty.
        attempts: how often the provider has tried the run, if more than once.
        note: a sentence about the reading itself, such as that the result may be lost.
    """

    run_id: str
    status: RunStatus
    native_status: str
    stage: str = ""
    progress: float | None = None
    result: Any = None
    error: Any = None
    started: str = ""
    ended: str = ""
    attempts: int | None = None
    note: str = ""


def parse_reading(value: Any, fields: RunFields, statuses: Statuses, run_id: str) -> Reading | None:
    """Return the run in a JSON value, or None if the value has no run status.

    `run_id` is used if the value does not contain the id.
    """
    native = native_parts(value, fields.status)
    if not native:
        return None
    status = statuses.normalise(native)
    return Reading(
        run_id=id_text(value_at(value, fields.id)) or run_id,
        status=status,
        native_status=join_parts(native),
        stage=_to_text(value_at(value, fields.stage)),
        progress=_read_progress(value, fields.progress),
        result=_find_result(value, fields.result) if status is RunStatus.SUCCEEDED else None,
        error=find_error(value, fields.error) if status in (RunStatus.FAILED, RunStatus.CANCELED) else None,
        started=to_timestamp(value_at(value, fields.started_at)),
        attempts=number_of_attempts(value_at(value, fields.attempts)),
        ended=to_timestamp(value_at(value, fields.ended_at)) if status.is_terminal else "",
    )


def read_status(value: Any, fields: RunFields, statuses: Statuses, run_id: str) -> Reading | None:
    """Return the run in a JSON value with its id and status only, or None if the value has no run status."""
    native = native_parts(value, fields.status)
    if not native:
        return None
    return Reading(id_text(value_at(value, fields.id)) or run_id, statuses.normalise(native), join_parts(native))


def native_parts(value: Any, paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the parts of a native status, without those that have no value; empty if the first has none.

    The first is a text. The others may be numbers or truth values, which are written as in JSON.
    """
    first, *others = (value_at(value, path) for path in paths)
    if not (isinstance(first, str) and first):
        return ()
    return (first, *(part for other in others if (part := _part_text(other))))


def join_parts(native: Sequence[str]) -> str:
    """Return a native status as one text."""
    return "/".join(native)


def _part_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return dump(value) if isinstance(value, bool | int | float) else ""


def id_text(value: Any) -> str:
    """Return the id of a run, which some providers write as an integer, as text; empty for any other value."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _to_text(value)


def ids_as_text(value: Any) -> Any:
    """Return the id of a run, or the ids in a list, with integers as text; any other value as it is."""
    if isinstance(value, list):
        return [ids_as_text(item) for item in value]
    return id_text(value) or value


def with_text_ids(lifecycle: Lifecycle, operation: str, value: Any) -> Any:
    """Return the response of an operation with the integer ids of runs in it as text.

    Clients cannot pass large integers on exactly, and a run has one id everywhere.
    """
    place, start = lifecycle.runs_in.get(operation), lifecycle.starts.get(operation)
    paths = [(*place, *lifecycle.fields.id)] if place is not None else []
    paths += [start.run_id] if start is not None and start.run_id is not None else []
    for path in paths:
        if any(isinstance(found, int) for found in values_at(value, path)):
            value = replace_at(value, path, ids_as_text)
    return value


def _read_progress(value: Any, fields: ProgressFields | None) -> float | None:
    """Return how far a run is, as a ratio; None if it does not report that."""
    if fields is None:
        return None
    ratio = _to_number(value_at(value, fields.ratio))
    percent = _to_number(value_at(value, fields.percent))
    done = [number for path in fields.done if (number := _to_number(value_at(value, path))) is not None]
    total = _to_number(value_at(value, fields.total))
    if ratio is None and percent is not None:
        ratio = percent / 100
    if ratio is None and done and total is not None and total > 0:
        ratio = sum(done) / total
    return None if ratio is None else min(max(ratio, 0.0), 1.0)


def _to_number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return None if isinstance(value, float) and isnan(value) else float(min(max(value, -MAX_NUMBER), MAX_NUMBER))


def number_of_attempts(value: Any) -> int | None:
    """Return the number of attempts, or of the items of a list of them; None if there is only one."""
    count = len(value) if isinstance(value, list) else value
    return count if isinstance(count, int) and count > 1 else None


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _find_result(value: Any, path: Path | None) -> Any:
    """Return the value at a path; a list if the path leads to each item of a list."""
    if path is None or EACH not in path:
        return value_at(value, path)
    return list(values_at(value, path)) or None


def find_error(value: Any, paths: Sequence[Path]) -> Any:
    """Return the value at one of the paths; if there are several values, join them as text."""
    found = chain.from_iterable(values_at(value, path) for path in paths)
    errors = [error for error in islice(found, MAX_ERRORS) if error not in (None, "", {}, [])]
    if len(errors) > 1:
        first, *more = (error if isinstance(error, str) else dump(error) for error in errors)
        return f"{first} ({', '.join(more)})"
    return errors[0] if errors else None


def runs_in_response(lifecycle: Lifecycle, operation: str, value: Any, run_id: str = "") -> list[Reading]:
    """Return the runs in the response of this operation."""
    readings = (
        parse_reading(item, lifecycle.fields, lifecycle.statuses, run_id) for item in _runs(lifecycle, operation, value)
    )
    return [reading for reading in readings if reading is not None]


def statuses_in_response(lifecycle: Lifecycle, operation: str, value: Any, run_id: str) -> list[Reading]:
    """Return the runs in the response of this operation, with their ids and statuses only."""
    readings = (
        read_status(item, lifecycle.fields, lifecycle.statuses, run_id) for item in _runs(lifecycle, operation, value)
    )
    return [reading for reading in readings if reading is not None]


def _runs(lifecycle: Lifecycle, operation: str, value: Any) -> Iterable[Any]:
    path = lifecycle.runs_in.get(operation)
    return () if path is None else values_at(value, path)


def run_in_event(lifecycle: Lifecycle, data: Any, run_id: str) -> Reading | None:
    """Return the run in an event of the lifecycle's stream, or None if the event has none.

    `run_id` is the run that the stream is about, if it is about one run.
    """
    stream = lifecycle.stream
    if stream is None or not matches(data, stream.when):
        return None
    reading = parse_reading(data, stream.fields, lifecycle.statuses, run_id)
    # The stream of one run contains no other run, even if an event spells the id differently.
    return reading if reading is None or stream.takes_many_runs else replace(reading, run_id=run_id)


def describe_run(reading: Reading) -> str:
    """Return one line for people: the run, its status, and its progress or error."""
    is_known = reading.status is not RunStatus.UNKNOWN
    details = [str(reading.status) if is_known else quote_name(reading.native_status)]
    if reading.stage:
        details.append(quote_name(reading.stage))
    if reading.progress is not None and not reading.status.is_terminal:
        details.append(f"{reading.progress:.0%}")
    if reading.error is not None:
        details.append(quote(error_text(reading.error)))
    return one_line(f"{quote_name(reading.run_id)}: {', '.join(details)}")


def error_text(error: Any) -> str:
    """Return the error of a run as text: its name and message if it has these, else all of it."""
    if isinstance(error, dict):
        parts = [error[key] for key in ("name", "message") if isinstance(error.get(key), str)]
        if parts:
            return ": ".join(parts)
    return error if isinstance(error, str) else dump(error)
