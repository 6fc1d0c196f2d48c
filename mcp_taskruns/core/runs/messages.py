"""What people and models read about runs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mcp_taskruns.core.calls.truncation import one_line
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.run import Lifecycle, RunStatus
from mcp_taskruns.core.runs.reading import Reading
from mcp_taskruns.core.runs.watch import Watch

MAX_TOLD_RUNS = 10
"""Of how many runs a line tells the state one by one."""


def status_line(readings: Sequence[Reading]) -> str:
    """The states of the runs that an answer carries, in our words and the provider's, on one line; empty for none."""
    if not readings:
        return ""
    told = [one_line(f"{reading.run_id}: {_both_states(reading)}") for reading in readings[:MAX_TOLD_RUNS]]
    if len(readings) > MAX_TOLD_RUNS:
        told.append(f"and {len(readings) - MAX_TOLD_RUNS:,} more")
    return f"{'Run' if len(readings) == 1 else 'Runs'} {'; '.join(told)}."


def _both_states(reading: Reading) -> str:
    return (
        str(reading.status)
        if reading.native_status == reading.status
        else f"{reading.status} ({reading.native_status})"
    )


def wait_result(
    lifecycle: Lifecycle, watch: Watch, *, elapsed_s: float, polls: int, several: bool = False, reason: str = ""
) -> dict[str, Any]:
    """What a wait returns: of one run its state flat, of several a list of them. `reason` is why it broke off."""
    timed_out = not watch.is_done and not reason
    runs = [_run_value(run_id, reading) for run_id, reading in watch.readings.items()]
    waited = {"timed_out": timed_out, "elapsed_seconds": round(elapsed_s, 1), "polls": polls}
    if several:
        found: dict[str, Any] = {"runs": runs, "terminal": watch.is_done, **waited}
    else:
        found = {**runs[0], **waited}
        found |= {name: found.pop(name) for name in ("result", "error")}
    if reason:
        found |= {"reason": reason, "next": f"Waiting broke off: call {lifecycle.wait_tool} again in a while."}
        return {"provider": lifecycle.provider, **found}
    return {"provider": lifecycle.provider, **found, "next": " ".join(_next_steps(lifecycle, watch))}


def _run_value(run_id: str, reading: Reading | None) -> dict[str, Any]:
    state = reading.status if reading else RunStatus.UNKNOWN
    return {
        "run_id": run_id,
        "status": str(state),
        "native_status": reading.native_status if reading else None,
        "terminal": state.is_terminal,
        "result": reading.result if reading else None,
        "error": reading.error if reading else None,
    }


def _next_steps(lifecycle: Lifecycle, watch: Watch) -> Iterator[str]:
    """What to call next, in a sentence; a second one where the provider's state asks for something."""
    pending = watch.pending
    if not pending:
        states = [reading.status for reading in watch.readings.values() if reading]
        yield _after_all(states, _restart(lifecycle))
        return
    odd = sorted(
        {r.native_status for run_id in pending if (r := watch.readings[run_id]) and r.status is RunStatus.UNKNOWN}
    )
    if odd:
        yield f"Whether {', '.join(odd)} is an end is not known here: look with {lifecycle.read.tool}."
        return
    natives = {reading.native_status for run_id in pending if (reading := watch.readings[run_id])}
    advised = [lifecycle.status_hints[native] for native in sorted(natives) if native in lifecycle.status_hints]
    yield from advised
    if advised:
        return
    if not any(watch.readings.values()):
        yield f"Nothing is known yet: call {lifecycle.wait_tool} again."
    elif len(watch.readings) == 1:
        yield f"Call {lifecycle.wait_tool} again to wait on: the run goes on, and nothing was cancelled."
    else:
        yield f"Call {lifecycle.wait_tool} again for those that go on: {dump(pending)}."


def _after_all(states: Sequence[RunStatus], restart: str) -> str:
    subject = "The run has" if len(states) == 1 else "All runs have"
    if set(states) == {RunStatus.SUCCEEDED}:
        return f"{subject} ended: no further call is needed."
    if set(states) == {RunStatus.CANCELED}:
        return f"{subject} ended, cancelled: waiting longer changes nothing."
    how = "not all in success" if RunStatus.SUCCEEDED in states else "not in success"
    return f"{subject} ended, {how}: read error{restart}; waiting longer changes nothing."


def _restart(lifecycle: Lifecycle) -> str:
    tool = next((start.tool for start in lifecycle.starts.values()), "")
    return f", and call {tool} only if another try is worth it" if tool else ""


_HAS_ENDED = {
    RunStatus.SUCCEEDED: "had already succeeded",
    RunStatus.FAILED: "had already failed",
    RunStatus.CANCELED: "had already been cancelled",
}


def cancel_result(
    lifecycle: Lifecycle, before: Reading, after: Reading, *, was_accepted: bool, answer: Any, guard: str, beside: str
) -> dict[str, Any]:
    """What cancelling returns: whether that ended the run, its state before and after, the provider's answer.

    `was_accepted`: the provider was asked and did not refuse. A run that had ended before was deleted then, which is
    what the argument `guard` is for. `beside` is said too where nothing was cancelled.
    """
    is_deleted = was_accepted and before.status.is_terminal
    is_cancelled = was_accepted and not is_deleted and after.status is RunStatus.CANCELED
    value = {
        "provider": lifecycle.provider,
        "run_id": after.run_id,
        "cancelled": is_cancelled,
        "status_before": str(before.status),
        "status": str(after.status),
        "native_status": after.native_status or None,
        "terminal": after.status.is_terminal,
        **({"deleted": True} if is_deleted else {}),
    }
    if is_deleted:
        told = f"The run {_HAS_ENDED[before.status]}: it was deleted together with its output."
    elif is_cancelled:
        told = "The run was cancelled."
    elif after.status.is_terminal:
        told = f"The run {_HAS_ENDED[after.status]}: nothing was cancelled.{beside}"
        if guard:
            told += f" To delete it together with its output, pass {guard}: true."
    elif not was_accepted:
        told = (
            f"Where the run stands is not known ({after.native_status}): nothing was cancelled. If it has ended, "
            f"cancelling deletes it with its output: to do so pass {guard}: true."
        )
    else:
        told = f"The provider has accepted the cancellation; call {lifecycle.wait_tool} to see the run end."
    return {**value, **({} if answer is None else {"response": answer}), "next": told}


WAIT_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "provider": {"type": "string"},
        "run_id": {"type": "string"},
        "status": {"type": "string", "enum": [str(state) for state in RunStatus]},
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


def matches_schema(schema: Mapping[str, Any], value: Any) -> bool:
    """Whether an answer has the types that its schema declares, which is all that such a schema does."""
    if "properties" not in schema:
        return isinstance(value, _TYPES[schema["type"]])
    return isinstance(value, dict) and all(
        matches_schema(part, value[name]) for name, part in schema["properties"].items() if name in value
    )
