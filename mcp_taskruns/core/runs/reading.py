"""The status of a run as a provider reports it, in a response or in an event."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any

from mcp_taskruns.core.calls.truncation import one_line, quote, quote_name
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import Path, matches, value_at, values_at
from mcp_taskruns.core.model.run import Lifecycle, RunFields, RunStatus
from mcp_taskruns.core.model.timestamps import is_zero_time


@dataclass(frozen=True)
class Reading:
    """What a provider reports about a run at one moment.

    Attributes:
        run_id: the id of the run.
        status: the normalised status.
        native_status: the provider's own status, exactly; empty if it reports none.
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


def parse_reading(value: Any, fields: RunFields, statuses: Mapping[str, RunStatus], run_id: str) -> Reading | None:
    """Return the run in a JSON value, or None if the value has no run status.

    `run_id` is used if the value does not contain the id.
    """
    native_status = value_at(value, fields.status)
    if not isinstance(native_status, str) or not native_status:
        return None
    status = statuses.get(native_status, RunStatus.UNKNOWN)
    return Reading(
        run_id=_to_text(value_at(value, fields.id)) or run_id,
        status=status,
        native_status=native_status,
        stage=_to_text(value_at(value, fields.stage)),
        progress=_to_ratio(value_at(value, fields.progress)),
        result=value_at(value, fields.result) if status is RunStatus.SUCCEEDED else None,
        error=_find_error(value, fields.error) if status in {RunStatus.FAILED, RunStatus.CANCELED} else None,
        started=_to_time(value_at(value, fields.started_at)),
        attempts=_to_attempts(value_at(value, fields.attempts)),
        ended=_to_time(value_at(value, fields.ended_at)) if status.is_terminal else "",
    )


def _to_ratio(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return None if isinstance(value, float) and isnan(value) else float(min(max(value, 0), 1))


def _to_attempts(value: Any) -> int | None:
    """Return the number of attempts, or of the items of a list of them; None if there is only one."""
    count = len(value) if isinstance(value, list) else value
    return count if isinstance(count, int) and count > 1 else None


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _to_time(value: Any) -> str:
    return "" if is_zero_time(value) else _to_text(value)


def _find_error(value: Any, paths: Sequence[Path]) -> Any:
    """Return the value at one of the paths; if several have a value, join them as text."""
    errors = [error for path in paths if (error := value_at(value, path)) not in (None, "", {}, [])]
    if len(errors) > 1:
        first, *more = (error if isinstance(error, str) else dump(error) for error in errors)
        return f"{first} ({', '.join(more)})"
    return errors[0] if errors else None


def runs_in_response(lifecycle: Lifecycle, operation: str, value: Any, run_id: str = "") -> list[Reading]:
    """Return the runs in the response of this operation."""
    path = lifecycle.runs_in.get(operation)
    items = () if path is None else values_at(value, path)
    readings = (parse_reading(item, lifecycle.fields, lifecycle.statuses, run_id) for item in items)
    return [reading for reading in readings if reading is not None]


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
