"""What a run looks like, at any provider: where it stands, what it says of itself, when to ask again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any

from mcp_taskruns.core.calls.truncation import one_line
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import Path, matches, value_at, values_at
from mcp_taskruns.core.model.run import Lifecycle, RunFields, RunStatus


@dataclass(frozen=True)
class Reading:
    """What a provider said of a run. `result` is that of a run that succeeded, `error` of one that did not."""

    run_id: str
    status: RunStatus
    native_status: str
    stage: str = ""
    progress: float | None = None
    result: Any = None
    error: Any = None
    started: str = ""


def parse_reading(value: Any, shape: RunFields, states: Mapping[str, RunStatus], run_id: str = "") -> Reading | None:
    """The run in a JSON value, None where there is none. `run_id` is its id where the value does not tell it."""
    native = value_at(value, shape.status)
    if not isinstance(native, str):
        return None
    found_id = value_at(value, shape.id)
    status = states.get(native, RunStatus.UNKNOWN)
    return Reading(
        run_id=found_id if isinstance(found_id, str) and found_id else run_id,
        status=status,
        native_status=native,
        stage=_text(value_at(value, shape.stage)),
        progress=_ratio(value_at(value, shape.progress)),
        result=value_at(value, shape.result) if status is RunStatus.SUCCEEDED else None,
        error=_error(value, shape.error) if status in {RunStatus.FAILED, RunStatus.CANCELED} else None,
        started=_text(value_at(value, shape.started_at)),
    )


def _ratio(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or isnan(value):
        return None
    return min(max(float(value), 0.0), 1.0)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _error(value: Any, paths: Sequence[Path]) -> Any:
    told = [found for path in paths if (found := value_at(value, path)) not in (None, "", {}, [])]
    if len(told) > 1:
        first, *more = (text if isinstance(text, str) else dump(text) for text in told)
        return f"{first} ({', '.join(more)})"
    return told[0] if told else None


def runs_in_response(lifecycle: Lifecycle, operation: str, value: Any, run_id: str = "") -> list[Reading]:
    """The runs that an answer of this operation carries."""
    path = lifecycle.runs_in.get(operation)
    items = () if path is None else values_at(value, path)
    readings = (parse_reading(item, lifecycle.fields, lifecycle.statuses, run_id) for item in items)
    return [reading for reading in readings if reading is not None]


def run_in_event(lifecycle: Lifecycle, data: Any, run_id: str = "") -> Reading | None:
    """The run that an event of the life cycle's stream tells of, if it does; `run_id` is the one that it is of."""
    stream = lifecycle.stream
    if stream is None or not matches(data, stream.when):
        return None
    reading = parse_reading(data, stream.fields, lifecycle.statuses, run_id)
    # A stream of one run tells of no other, whatever it spells its id like.
    return reading if reading is None or stream.takes_many_runs else replace(reading, run_id=run_id)


def describe_run(reading: Reading) -> str:
    """One line for a person who watches: the run, where it stands, and how far it is."""
    told = [str(reading.status) if reading.status is not RunStatus.UNKNOWN else reading.native_status]
    if reading.stage:
        told.append(reading.stage)
    if reading.progress is not None and not reading.status.is_terminal:
        told.append(f"{reading.progress:.0%}")
    if reading.error is not None:
        told.append(error_text(reading.error))
    return one_line(f"{reading.run_id}: {', '.join(told)}")


def error_text(error: Any) -> str:
    """The words of a run's error."""
    if isinstance(error, dict):
        named = [error[key] for key in ("name", "message") if isinstance(error.get(key), str)]
        if named:
            return ": ".join(named)
    return error if isinstance(error, str) else dump(error)
