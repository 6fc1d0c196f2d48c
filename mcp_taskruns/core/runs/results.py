"""The results of waiting and cancelling, and the sentences about runs in results."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mcp_taskruns.core.calls.truncation import one_line, quote, quote_name
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.run import Lifecycle, RunCancel, RunStatus
from mcp_taskruns.core.runs.reading import Reading, error_text
from mcp_taskruns.core.runs.watch import Watch
from mcp_taskruns.errors import CallError

MAX_LISTED_RUNS = 10
"""Runs whose status is listed one by one in a line."""

DELETED = "deleted"
"""The status of a run that a call has deleted. It is not a run status: such a run cannot be read."""


def status_line(readings: Sequence[Reading]) -> str:
    """Return one line with the normalised and the native status of each run; empty without runs."""
    if not readings:
        return ""
    runs = [
        one_line(f"{quote_name(reading.run_id)}: {_both_statuses(reading)}") for reading in readings[:MAX_LISTED_RUNS]
    ]
    if len(readings) > MAX_LISTED_RUNS:
        runs.append(f"and {len(readings) - MAX_LISTED_RUNS:,} more")
    return f"{'Run' if len(readings) == 1 else 'Runs'} {'; '.join(runs)}."


def _both_statuses(reading: Reading) -> str:
    if reading.native_status in ("", reading.status):
        return str(reading.status)
    return f"{reading.status} ({quote_name(reading.native_status)})"


def wait_result(
    lifecycle: Lifecycle,
    watch: Watch,
    *,
    elapsed_s: float,
    polls: int,
    several: bool = False,
    interruption: CallError | None = None,
) -> dict[str, Any]:
    """Return the result of waiting, which matches `WAIT_SCHEMA`.

    The fields of a single run are at the top level, those of several runs in `runs`. `interruption` is the error that
    ended the wait for all runs.
    """
    runs = [_run_fields(watch, run_id) for run_id in watch.readings]
    wait = {
        "timed_out": not (watch.is_over or interruption),
        "elapsed_seconds": round(elapsed_s, 1),
        "polls": polls,
    }
    if several:
        result: dict[str, Any] = {"runs": runs, "terminal": watch.is_done, **wait}
    else:
        result = {**runs[0], **wait}
        result |= {name: result.pop(name) for name in ("result", "error")}  # long fields last
        result |= {"reason": result.pop("reason")} if "reason" in result else {}
    if interruption is not None:
        result["reason"] = interruption.message
        result["next"] = f"{interruption.hint} Then call {lifecycle.wait_tool} again.".lstrip()
    else:
        notes = dict.fromkeys(reading.note for reading in watch.readings.values() if reading and reading.note)
        result["next"] = " ".join([*_next_steps(lifecycle, watch), *notes])
    return {"provider": lifecycle.provider, **result}


def _run_fields(watch: Watch, run_id: str) -> dict[str, Any]:
    reading = watch.readings[run_id]
    status = reading.status if reading else RunStatus.UNKNOWN
    failure = watch.failures.get(run_id)
    return {
        "run_id": run_id,
        "status": str(status),
        "native_status": (reading.native_status or None) if reading else None,
        "terminal": status.is_terminal,
        **({"attempts": reading.attempts} if reading and reading.attempts is not None else {}),
        "result": reading.result if reading else None,
        "error": reading.error if reading else None,
        **({} if failure is None else {"reason": failure.message}),
    }


def _next_steps(lifecycle: Lifecycle, watch: Watch) -> Iterator[str]:
    """Yield sentences about what to call next."""
    if not watch.active:
        yield _after_all(lifecycle, [reading for reading in watch.readings.values() if reading])
        return
    yield from _failed_reads(lifecycle, watch)
    pending = [run_id for run_id in watch.active if run_id not in watch.failures]
    readings = [reading for run_id in pending if (reading := watch.readings[run_id])]
    unknown = sorted({reading.native_status for reading in readings if reading.status is RunStatus.UNKNOWN})
    natives = sorted({reading.native_status for reading in readings})
    hints = list(dict.fromkeys(hint for native in natives if (hint := lifecycle.status_hint(native))))
    yield from hints
    if unknown:
        names = ", ".join(map(quote_name, unknown))
        yield f"It is not known whether {names} is a terminal status: read the run with {lifecycle.read.tool}."
        of_unknown_status = {reading.run_id for reading in readings if reading.status is RunStatus.UNKNOWN}
        pending = [run_id for run_id in pending if run_id not in of_unknown_status]
    if not pending:
        return
    if watch.awaits_start:
        if not any(lifecycle.wait_tool in hint for hint in hints):
            yield f"When it has been started, call {lifecycle.wait_tool} to wait for it."
    elif not readings:
        yield f"No status is known yet: call {lifecycle.wait_tool} again."
    elif len(watch.readings) == 1:
        yield f"The run continues, and nothing was cancelled: call {lifecycle.wait_tool} again to keep waiting."
    else:
        yield f"Call {lifecycle.wait_tool} again for the runs that continue: {dump(pending)}."


def _failed_reads(lifecycle: Lifecycle, watch: Watch) -> Iterator[str]:
    """Yield what to do about runs whose last read failed."""
    failed = [run_id for run_id in watch.active if run_id in watch.failures]
    hints = list(dict.fromkeys(watch.failures[run_id].hint for run_id in failed))
    if not failed:
        return
    if len(watch.readings) > 1:
        yield f"The last read of these runs failed, see their reason: {dump(failed)}."
    elif watch.is_known:
        yield "The last read of the run failed, so its status may have changed."
    yield from filter(None, hints)
    yield f"To wait again, call {lifecycle.wait_tool}."


def _after_all(lifecycle: Lifecycle, readings: Sequence[Reading]) -> str:
    """Return what to do after all runs have a terminal status."""
    statuses = [reading.status for reading in readings]
    subject = "The run has" if len(statuses) == 1 else "All runs have"
    if set(statuses) == {RunStatus.SUCCEEDED}:
        return f"{subject} succeeded: no further call is needed."
    if set(statuses) == {RunStatus.CANCELED}:
        return f"{subject} been cancelled: waiting longer has no effect."
    if set(statuses) == {RunStatus.FAILED}:
        outcome = "failed"
    else:
        outcome = "ended, some without success" if RunStatus.SUCCEEDED in statuses else "ended without success"
    errors = [reading.error for reading in readings if reading.status is RunStatus.FAILED]
    is_unexplained = bool(errors) and errors == [None] * len(errors)
    advice = f"call {lifecycle.explain_tool} to see why" if is_unexplained else "read error"
    return f"{subject} {outcome}: {advice}{_retry_advice(lifecycle)}; waiting longer has no effect."


def _retry_advice(lifecycle: Lifecycle) -> str:
    tool = next((start.tool for start in lifecycle.starts.values()), "")
    return f", and call {tool} only if a retry can succeed" if tool else ""


_ALREADY = {
    RunStatus.SUCCEEDED: "had already succeeded",
    RunStatus.FAILED: "had already failed",
    RunStatus.CANCELED: "had already been cancelled",
}

_DEFAULT_EFFECT = "changed by the provider"

_LOST = "; the provider's response was lost"

MAX_QUOTED_ERROR = 300
"""Characters of a run's error that a sentence quotes."""


def cancel_result(
    lifecycle: Lifecycle,
    cancel: RunCancel,
    before: Reading,
    after: Reading,
    *,
    was_accepted: bool,
    was_sent: bool,
    was_lost: bool = False,
    is_kept: bool = False,
    response: Any = None,
) -> dict[str, Any]:
    """Return the result of cancelling: the status before and after, and the provider's response.

    `was_sent` is whether the request was sent, `was_accepted` whether the provider carried it out, `was_lost` whether
    that is known only from the status afterwards. A request that is carried out for a run with a terminal status
    deletes the run, unless it `is_kept`.
    """
    is_deleted = was_accepted and before.status.is_terminal and not is_kept
    is_cancelled = was_accepted and not before.status.is_terminal and is_canceled(cancel, after)
    return {
        "provider": lifecycle.provider,
        "run_id": after.run_id,
        "cancelled": is_cancelled,
        "status_before": str(before.status),
        "status": DELETED if is_deleted else str(after.status),
        "native_status": None if is_deleted else after.native_status or None,
        "terminal": is_deleted or after.status.is_terminal,
        **({"deleted": True} if is_deleted else {}),
        **({} if response is None else {"response": response}),
        "next": _after_cancel(
            lifecycle, cancel, before, after, was_accepted=was_accepted, was_sent=was_sent, was_lost=was_lost
        ),
    }


def is_canceled(cancel: RunCancel, reading: Reading) -> bool:
    """Return whether a run that was active before a request to cancel it has been canceled."""
    return reading.status is RunStatus.CANCELED or reading.native_status in cancel.ends_as


def _after_cancel(
    lifecycle: Lifecycle,
    cancel: RunCancel,
    before: Reading,
    after: Reading,
    *,
    was_accepted: bool,
    was_sent: bool,
    was_lost: bool,
) -> str:
    """Return what happened to the run and what to call next."""
    effect = cancel.confirm_effect or _DEFAULT_EFFECT
    lost = _LOST if was_lost else ""
    if was_accepted and before.status.is_terminal:
        return f"The run {_ALREADY[before.status]}: it was {effect}{lost}.{_how_it_ended(before)}"
    if was_accepted and is_canceled(cancel, after):
        return f"The run was cancelled{lost}."
    if after.status.is_terminal:
        sentences = [f"The run {_ALREADY[after.status]}: nothing was cancelled.{_how_it_ended(after)}"]
        if not was_sent and cancel.when:
            sentences.append("Nothing was sent.")
        if not was_accepted and cancel.confirm_argument:
            sentences.append(f"To have it {effect}, pass {cancel.confirm_argument}: true.")
        return " ".join(sentences)
    if was_accepted:
        return f"The provider has accepted the cancellation: call {lifecycle.wait_tool} to wait for the run."
    return (
        f"It is not known whether {quote_name(after.native_status)} is a terminal status, so nothing was cancelled: a "
        f"run that has ended would be {effect}. To accept that, pass {cancel.confirm_argument}: true."
    )


def _how_it_ended(reading: Reading) -> str:
    """Return a sentence, after a space, with the time and the error of a run's end; empty if neither is known."""
    at = f" at {quote_name(reading.ended)}" if reading.ended else ""
    error = "" if reading.error is None else error_text(reading.error)
    if error.strip():
        return f" It ended{at} with the error: {quote(error, MAX_QUOTED_ERROR)}."
    return f" It ended{at}." if at else ""


WAIT_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "provider": {"type": "string"},
        "run_id": {"type": "string"},
        "status": {"type": "string", "enum": [str(status) for status in RunStatus]},
        "native_status": {},
        "terminal": {"type": "boolean"},
        "timed_out": {"type": "boolean"},
        "elapsed_seconds": {"type": "number"},
        "polls": {"type": "integer"},
        "attempts": {"type": "integer"},
        "result": {},
        "error": {},
        "reason": {"type": "string"},
        "runs": {"type": "array", "items": {"type": "object"}},
        "next": {"type": "string"},
        "truncated": {"type": "string"},
    },
    "required": ["provider", "terminal", "timed_out", "elapsed_seconds", "polls", "next"],
}
"""The JSON Schema of the result of waiting."""
