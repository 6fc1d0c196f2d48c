"""What a run looks like, at any provider: where it stands, what it says of itself, when to ask again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import isnan
from typing import Any, Literal

from mcp_taskruns.core.operation import Lifecycle, Path, RunShape, RunState
from mcp_taskruns.core.paths import fulfils, value_at, values_at
from mcp_taskruns.core.text import dump, one_line, read_moment

Until = Literal["all", "any"]

MAX_INTERVAL_S = 30.0
"""However old a run is, it is asked for at least this often."""

AGE_PER_INTERVAL = 20
"""A run is asked for again after a twentieth of its age: the end of an old one is not urgent to the second."""

MAX_TOLD_RUNS = 10
"""Of how many runs a line tells the state one by one."""


@dataclass(frozen=True)
class Reading:
    """What a provider said of a run. `result` is that of a run that succeeded, `error` of one that did not."""

    run_id: str
    state: RunState
    native: str
    stage: str = ""
    progress: float | None = None
    result: Any = None
    error: Any = None
    started: str = ""


def reading_of(value: Any, shape: RunShape, states: Mapping[str, RunState], run_id: str = "") -> Reading | None:
    """The run in a JSON value, None where there is none. `run_id` is its id where the value does not tell it."""
    native = value_at(value, shape.state)
    if not isinstance(native, str):
        return None
    found_id = value_at(value, shape.id)
    state = states.get(native, RunState.UNKNOWN)
    return Reading(
        run_id=found_id if isinstance(found_id, str) and found_id else run_id,
        state=state,
        native=native,
        stage=_text(value_at(value, shape.stage)),
        progress=_ratio(value_at(value, shape.progress)),
        result=value_at(value, shape.result) if state is RunState.SUCCEEDED else None,
        error=_error(value, shape.error) if state in {RunState.FAILED, RunState.CANCELED} else None,
        started=_text(value_at(value, shape.started)),
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


def runs_in_answer(lifecycle: Lifecycle, operation: str, value: Any, run_id: str = "") -> list[Reading]:
    """The runs that an answer of this operation carries."""
    path = lifecycle.found.get(operation)
    items = () if path is None else values_at(value, path)
    readings = (reading_of(item, lifecycle.shape, lifecycle.states, run_id) for item in items)
    return [reading for reading in readings if reading is not None]


def run_in_event(lifecycle: Lifecycle, data: Any, run_id: str = "") -> Reading | None:
    """The run that an event of the life cycle's stream tells of, if it does; `run_id` is the one that it is of."""
    stream = lifecycle.stream
    if stream is None or not fulfils(data, stream.when):
        return None
    reading = reading_of(data, stream.shape, lifecycle.states, run_id)
    # A stream of one run tells of no other, whatever it spells its id like.
    return reading if reading is None or stream.is_many else replace(reading, run_id=run_id)


class Watch:
    """The runs that somebody waits for, and what is known of each; over when all, or `any`, of them have ended."""

    def __init__(self, run_ids: Iterable[str], until: Until = "all") -> None:
        self.readings: dict[str, Reading | None] = dict.fromkeys(run_ids)
        self._until = until

    @property
    def only(self) -> str:
        """The one run that is watched; empty when there are several."""
        return next(iter(self.readings)) if len(self.readings) == 1 else ""

    def take(self, reading: Reading, *, may_resume: bool = False) -> bool:
        """Take in what was read; whether it is news. Of a run that is not watched, and of one that has ended, none is.

        A run that has ended stays so, for an answer may be older than the last; `may_resume`: but this one is not, and
        the run goes on again.
        """
        known = self.readings.get(reading.run_id)
        has_ended = known is not None and known.state.is_terminal
        if reading.run_id not in self.readings or (has_ended and (reading.state.is_terminal or not may_resume)):
            return False
        self.readings[reading.run_id] = reading
        return known is None or describe_run(reading) != describe_run(known)

    def has_ended(self, run_id: str) -> bool:
        """Whether this run is known to have ended."""
        reading = self.readings.get(run_id)
        return reading is not None and reading.state.is_terminal

    @property
    def pending(self) -> list[str]:
        """The runs that are not known to have ended."""
        return [run_id for run_id in self.readings if not self.has_ended(run_id)]

    @property
    def ended(self) -> int:
        """How many of them have ended."""
        return len(self.readings) - len(self.pending)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.ended > 0 if self._until == "any" else not self.pending

    def states(self) -> dict[str, str]:
        """The state of each run of which one is known."""
        return {run_id: str(reading.state) for run_id, reading in self.readings.items() if reading is not None}


def poll_interval(lifecycle: Lifecycle, age_s: float) -> float:
    """The seconds after which to ask for a run again that began `age_s` ago."""
    return max(lifecycle.interval_s, min(age_s / AGE_PER_INTERVAL, MAX_INTERVAL_S))


def age_of(reading: Reading, now: datetime) -> float:
    """The seconds since a run began, by the provider's own word; 0 where it does not say."""
    began = read_moment(reading.started)
    return 0.0 if began is None else max((now - began).total_seconds(), 0.0)


def describe_run(reading: Reading) -> str:
    """One line for a person who watches: the run, where it stands, and how far it is."""
    told = [str(reading.state) if reading.state is not RunState.UNKNOWN else reading.native]
    if reading.stage:
        told.append(reading.stage)
    if reading.progress is not None and not reading.state.is_terminal:
        told.append(f"{reading.progress:.0%}")
    if reading.error is not None:
        told.append(brief_error(reading.error))
    return one_line(f"{reading.run_id}: {', '.join(told)}")


def brief_error(error: Any) -> str:
    """The words of a run's error."""
    if isinstance(error, dict):
        named = [error[key] for key in ("name", "message") if isinstance(error.get(key), str)]
        if named:
            return ": ".join(named)
    return error if isinstance(error, str) else dump(error)


def state_line(readings: Sequence[Reading]) -> str:
    """The states of the runs that an answer carries, in our words and the provider's, on one line; empty for none."""
    if not readings:
        return ""
    told = [one_line(f"{reading.run_id}: {_both_states(reading)}") for reading in readings[:MAX_TOLD_RUNS]]
    if len(readings) > MAX_TOLD_RUNS:
        told.append(f"and {len(readings) - MAX_TOLD_RUNS:,} more")
    return f"{'Run' if len(readings) == 1 else 'Runs'} {'; '.join(told)}."


def _both_states(reading: Reading) -> str:
    return str(reading.state) if reading.native == reading.state else f"{reading.state} ({reading.native})"


def wait_value(
    lifecycle: Lifecycle, watch: Watch, *, elapsed_s: float, polls: int, several: bool = False, reason: str = ""
) -> dict[str, Any]:
    """What a wait returns: of one run its state flat, of several a list of them. `reason` is why it broke off."""
    timed_out = not watch.is_over and not reason
    runs = [_run_value(run_id, reading) for run_id, reading in watch.readings.items()]
    waited = {"timed_out": timed_out, "elapsed_seconds": round(elapsed_s, 1), "polls": polls}
    if several:
        found: dict[str, Any] = {"runs": runs, "terminal": watch.is_over, **waited}
    else:
        found = {**runs[0], **waited}
        found |= {name: found.pop(name) for name in ("result", "error")}
    if reason:
        found |= {"reason": reason, "next": f"Waiting broke off: call {lifecycle.wait_tool} again in a while."}
        return {"provider": lifecycle.provider, **found}
    return {"provider": lifecycle.provider, **found, "next": " ".join(_next_steps(lifecycle, watch))}


def _run_value(run_id: str, reading: Reading | None) -> dict[str, Any]:
    state = reading.state if reading else RunState.UNKNOWN
    return {
        "run_id": run_id,
        "state": str(state),
        "native_status": reading.native if reading else None,
        "terminal": state.is_terminal,
        "result": reading.result if reading else None,
        "error": reading.error if reading else None,
    }


def _next_steps(lifecycle: Lifecycle, watch: Watch) -> Iterator[str]:
    """What to call next, in a sentence; a second one where the provider's state asks for something."""
    pending = watch.pending
    if not pending:
        states = [reading.state for reading in watch.readings.values() if reading]
        yield _after_all(states, _restart(lifecycle))
        return
    odd = sorted({r.native for run_id in pending if (r := watch.readings[run_id]) and r.state is RunState.UNKNOWN})
    if odd:
        yield f"Whether {', '.join(odd)} is an end is not known here: look with {lifecycle.read.tool}."
        return
    natives = {reading.native for run_id in pending if (reading := watch.readings[run_id])}
    advised = [lifecycle.advice[native] for native in sorted(natives) if native in lifecycle.advice]
    yield from advised
    if advised:
        return
    if not any(watch.readings.values()):
        yield f"Nothing is known yet: call {lifecycle.wait_tool} again."
    elif len(watch.readings) == 1:
        yield f"Call {lifecycle.wait_tool} again to wait on: the run goes on, and nothing was cancelled."
    else:
        yield f"Call {lifecycle.wait_tool} again for those that go on: {dump(pending)}."


def _after_all(states: Sequence[RunState], restart: str) -> str:
    subject = "The run has" if len(states) == 1 else "All runs have"
    if set(states) == {RunState.SUCCEEDED}:
        return f"{subject} ended: no further call is needed."
    if set(states) == {RunState.CANCELED}:
        return f"{subject} ended, cancelled: waiting longer changes nothing."
    how = "not all in success" if RunState.SUCCEEDED in states else "not in success"
    return f"{subject} ended, {how}: read error{restart}; waiting longer changes nothing."


def _restart(lifecycle: Lifecycle) -> str:
    tool = next((start.tool for start in lifecycle.starts.values()), "")
    return f", and call {tool} only if another try is worth it" if tool else ""


_HAS_ENDED = {
    RunState.SUCCEEDED: "had already succeeded",
    RunState.FAILED: "had already failed",
    RunState.CANCELED: "had already been cancelled",
}


def cancel_value(
    lifecycle: Lifecycle, before: Reading, after: Reading, *, was_accepted: bool, answer: Any, guard: str, beside: str
) -> dict[str, Any]:
    """What cancelling returns: whether that ended the run, its state before and after, the provider's answer.

    `was_accepted`: the provider was asked and did not refuse. A run that had ended before was deleted then, which is
    what the argument `guard` is for. `beside` is said too where nothing was cancelled.
    """
    is_deleted = was_accepted and before.state.is_terminal
    is_cancelled = was_accepted and not is_deleted and after.state is RunState.CANCELED
    value = {
        "provider": lifecycle.provider,
        "run_id": after.run_id,
        "cancelled": is_cancelled,
        "state_before": str(before.state),
        "state": str(after.state),
        "native_status": after.native or None,
        "terminal": after.state.is_terminal,
        **({"deleted": True} if is_deleted else {}),
    }
    if is_deleted:
        told = f"The run {_HAS_ENDED[before.state]}: it was deleted together with its output."
    elif is_cancelled:
        told = "The run was cancelled."
    elif after.state.is_terminal:
        told = f"The run {_HAS_ENDED[after.state]}: nothing was cancelled.{beside}"
        if guard:
            told += f" To delete it together with its output, pass {guard}: true."
    elif not was_accepted:
        told = (
            f"Where the run stands is not known ({after.native}): nothing was cancelled. If it has ended, cancelling "
            f"deletes it with its output: to do so pass {guard}: true."
        )
    else:
        told = f"The provider has accepted the cancellation; call {lifecycle.wait_tool} to see the run end."
    return {**value, **({} if answer is None else {"answer": answer}), "next": told}


WAIT_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "provider": {"type": "string"},
        "run_id": {"type": "string"},
        "state": {"type": "string", "enum": [str(state) for state in RunState]},
        "native_status": {},
        "terminal": {"type": "boolean"},
        "timed_out": {"type": "boolean"},
        "elapsed_seconds": {"type": "number"},
        "polls": {"type": "integer"},
        "result": {},
        "error": {},
        "reason": {"type": "string"},
        "runs": {"type": "array", "items": {"type": "object"}},
        "next": {"type": "string"},
    },
    "required": ["provider", "terminal", "timed_out", "elapsed_seconds", "polls", "next"],
}
"""The JSON Schema of what a wait returns."""


_TYPES: Mapping[str, type] = {"string": str, "boolean": bool}


def fits_answer(schema: Mapping[str, Any], value: Any) -> bool:
    """Whether an answer has the types that its schema declares, which is all that such a schema does."""
    if "properties" not in schema:
        return isinstance(value, _TYPES[schema["type"]])
    return isinstance(value, dict) and all(
        fits_answer(part, value[name]) for name, part in schema["properties"].items() if name in value
    )
