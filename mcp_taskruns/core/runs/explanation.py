"""What explains a run: its times, error, attempts, failed steps and the end of its log."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mcp_taskruns.core.calls.redaction import REDACTED, REPLACEMENT
from mcp_taskruns.core.calls.truncation import one_line, quote_name
from mcp_taskruns.core.model.json import dump, parse_or_text
from mcp_taskruns.core.model.json_path import Path, value_at, values_at
from mcp_taskruns.core.model.patterns import InvalidPattern, search
from mcp_taskruns.core.model.run import Lifecycle, RunFailure, RunLog, RunStatus, RunStepParts, RunSteps
from mcp_taskruns.core.model.timestamps import is_zero_time, parse_timestamp, to_timestamp
from mcp_taskruns.core.model.tool import DEFAULT_LINES
from mcp_taskruns.core.runs.logs import describe_entry
from mcp_taskruns.core.runs.reading import Reading, error_text, find_error, join_parts, native_parts, number_of_attempts

MAX_TEXT = 3_400
"""Characters of an explanation with its log, unless the caller asks for a number of lines.

That is at most 1,500 tokens: the encoding o200k_base takes one for 2.3 characters of a log with many times and numbers.
"""

MAX_ERROR = 900
"""Characters of the error of a run."""

MAX_STEPS = 8
"""Steps that are listed, those that failed first."""

MAX_STEP_NAME = 80

MAX_STEP_ERROR = 300

MAX_STEP_ERRORS = 800
"""Characters of the errors of all listed steps."""

MAX_ATTEMPTS = 2
"""Earlier attempts that are listed, the last ones."""

MAX_ATTEMPT = 150
"""Characters of an earlier attempt."""

MAX_REASON = 200
"""Characters about a request that failed."""

MAX_LOG_LINE = 240

MIN_LOG = 800
"""Characters of all log lines that fit whatever else there is."""

MAX_LONG_LOG = 16_000
"""Characters of all log lines if the caller asks for a number of lines."""

MAX_INPUT = 400
"""Characters of the arguments that start a run again; longer ones are not repeated."""

_ANSI = re.compile(r"\x1b\[[0-9;:?]*[A-Za-z]")
"""Colours and movements of a terminal."""


@dataclass(frozen=True)
class Step:
    """A step of a run.

    Attributes:
        value: the step as the provider reports it.
        has_failed: whether its status is one of those of failed steps.
        fields: what is shown of it.
    """

    value: Any
    has_failed: bool
    fields: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of the step."""
        return str(self.fields["name"])


@dataclass
class Explanation:
    """What is known about a run.

    Attributes:
        reading: the run.
        run: the run as the provider reports it.
        steps: its steps.
        logs: the lines of logs, by the name of the step, or `run` for the log of the run.
        unavailable: what could not be read, each with the reason.
    """

    reading: Reading
    run: Any
    steps: list[Step] = field(default_factory=list)
    logs: dict[str, list[str]] = field(default_factory=dict)
    unavailable: list[str] = field(default_factory=list)

    @property
    def failed_steps(self) -> list[Step]:
        """The steps that failed."""
        return [step for step in self.steps if step.has_failed]

    def add_log(self, name: str, lines: list[str]) -> None:
        """Add a log; steps that run several times in parallel may have the same name."""
        same = sum(known == name or known.startswith(f"{name} (") for known in self.logs)
        self.logs[f"{name} ({same + 1})" if same else name] = lines


def parse_steps(steps: RunSteps, value: Any) -> list[Step]:
    """Return the steps in the response that lists them."""
    return [_parse_step(steps, item) for item in values_at(value, steps.items) if isinstance(item, dict)]


def _parse_step(steps: RunSteps, item: Any) -> Step:
    native = native_parts(item, steps.status)
    has_failed = steps.failed.normalise(native) is RunStatus.FAILED
    error = find_error(item, steps.error) or _failed_parts(steps.parts, item) if has_failed else None
    fields = {
        "name": _name_at(item, steps.name),
        "status": one_line(join_parts(native)) or "unknown",
        "attempts": number_of_attempts(value_at(item, steps.attempts)),
        "seconds": _seconds_between(value_at(item, steps.started_at), value_at(item, steps.ended_at)),
        "error": None if error is None else _shorten(error_text(error), MAX_STEP_ERROR),
    }
    return Step(item, has_failed, {name: value for name, value in fields.items() if value is not None})


def _failed_parts(parts: RunStepParts | None, step: Any) -> str | None:
    """Return a sentence with the names of the parts of a step that failed, or None."""
    if parts is None:
        return None
    natives = ((part, native_parts(part, parts.status)) for part in values_at(step, parts.items))
    failed = [part for part, native in natives if parts.failed.normalise(native) is RunStatus.FAILED]
    return f"failed: {', '.join(_name_at(part, parts.name) for part in failed)}" if failed else None


def _name_at(value: Any, path: Path) -> str:
    return one_line(_text(value_at(value, path)) or "unnamed", MAX_STEP_NAME)


def log_lines(log: RunLog, value: Any, text: str) -> list[str]:
    """Return the lines of a log, oldest first, from the JSON `value` of a response, or from its text."""
    if log.entries is None:
        entries = value if isinstance(value, list) else [_parse_line(log, line) for line in text.splitlines()]
    else:
        found = list(values_at(value, log.entries))
        entries = found[0].splitlines() if len(found) == 1 and isinstance(found[0], str) else found
    lines = (_log_line(log, entry) for entry in _oldest_first(log, entries))
    return _up_to_last_match([line for line in lines if line], log.until)


def _parse_line(log: RunLog, line: str) -> Any:
    """Return the entry in a line of JSON, which may arrive with any Content-Type; else the line."""
    entry = parse_or_text(line) if log.message else line
    return entry if isinstance(entry, dict) else line


def _up_to_last_match(lines: list[str], pattern: re.Pattern[str] | None) -> list[str]:
    """Return the lines up to the last one that matches; all if none does, or without a pattern."""
    if pattern is None:
        return lines
    with suppress(TimeoutError, InvalidPattern):
        last = next((number for number in reversed(range(len(lines))) if search(pattern.pattern, lines[number])), None)
        return lines[: last + 1] if last is not None else lines
    return lines


def _oldest_first(log: RunLog, entries: list[Any]) -> list[Any]:
    """Return the entries in the order of their times: some providers return the end of a log only newest first."""
    times = [time for entry in entries if (time := parse_timestamp(value_at(entry, log.time))) is not None]
    return entries[::-1] if times and times[0] > times[-1] else entries


def _log_line(log: RunLog, entry: Any) -> str:
    own = log.request.operation.log
    if isinstance(entry, str):
        shown = entry
    elif own is not None and not log.message:
        shown = describe_entry(entry, own)
    elif log.message:
        texts = (_text(value_at(entry, path)) for path in log.message)
        shown = " ".join(text for text in (to_timestamp(value_at(entry, log.time)), *texts) if text)
    else:
        shown = dump(entry)
    return one_line(_ANSI.sub("", shown), MAX_LOG_LINE)


def last_lines(lines: Sequence[str], count: int, max_chars: int) -> list[str]:
    """Return the last lines, at most `count` of them and at most `max_chars` characters, with a mark for the others."""
    kept: list[str] = []
    for line in reversed(lines[-count:]):
        max_chars -= len(dump(line)) + 1
        if max_chars < 0 and kept:
            break
        kept.append(line)
    omitted = len(lines) - len(kept)
    mark = [f"… {omitted:,} earlier lines"] if omitted else []
    return [*mark, *reversed(kept)]


def explain(
    lifecycle: Lifecycle, explanation: Explanation, next_step: str, *, lines: int | None = None
) -> dict[str, Any]:
    """Return the explanation of a run as one object; members that are unknown are left out.

    `lines` is the number of log lines that the caller asks for.
    """
    reading = explanation.reading
    error = None if reading.error is None else error_text(reading.error)
    errors = [error] if error is not None else []
    errors += [step.fields["error"] for step in explanation.failed_steps[:MAX_STEPS] if "error" in step.fields]
    value = {
        "provider": lifecycle.provider,
        "run_id": reading.run_id,
        "status": str(reading.status),
        "native_status": reading.native_status or None,
        "terminal": reading.status.is_terminal,
        "stage": reading.stage or None,
        "progress": reading.progress if not reading.status.is_terminal else None,
        "started_at": reading.started or None,
        "ended_at": reading.ended or None,
        "seconds": _seconds_between(reading.started, reading.ended),
        "error": None if error is None else _shorten(error, MAX_ERROR),
        "meaning": _meaning(lifecycle.failures, errors),
        "attempts": reading.attempts,
        "earlier_attempts": _earlier_attempts(lifecycle, explanation.run),
        **_shown_steps(explanation),
        "unavailable": [_shorten(reason, MAX_REASON) for reason in explanation.unavailable] or None,
        "logs": None,
        "next": next_step,
    }
    value["logs"] = _shown_logs(explanation.logs, lines, MAX_TEXT - len(dump(value))) or None
    return {name: item for name, item in value.items() if item is not None}


def _shown_steps(explanation: Explanation) -> dict[str, Any]:
    """Return the steps that are listed, and the number of all steps, and of those that failed, if there are more."""
    failed = explanation.failed_steps
    others = [step for step in explanation.steps if not step.has_failed]
    shown = [*failed, *others[len(others) - max(MAX_STEPS - len(failed), 0) :]][:MAX_STEPS]
    limit = MAX_STEP_ERRORS // max(len(shown), 1)
    steps = [
        {name: _shorten(item, limit) if name == "error" else item for name, item in step.fields.items()}
        for step in shown
    ]
    return {
        "steps": steps or None,
        "steps_in_total": len(explanation.steps) if len(explanation.steps) > len(shown) else None,
        "failed_steps": len(failed) if len(failed) > len(shown) else None,
    }


def _shown_logs(logs: Mapping[str, Sequence[str]], lines: int | None, room: int) -> dict[str, list[str]]:
    """Return the last lines of each log, within `room` characters unless the caller asks for a number of lines."""
    count = max(1, (lines or DEFAULT_LINES) // max(len(logs), 1))
    chars = (max(room, MIN_LOG) if lines is None else MAX_LONG_LOG) // max(len(logs), 1)
    return {name: last_lines(log, count, chars) for name, log in logs.items()}


def _earlier_attempts(lifecycle: Lifecycle, run: Any) -> list[str] | None:
    """Return the attempts before the last one, if the provider lists them."""
    attempts = value_at(run, lifecycle.fields.attempts)
    if not isinstance(attempts, list) or len(attempts) < 2:
        return None
    return [_shorten(dump(attempt), MAX_ATTEMPT) for attempt in attempts[:-1][-MAX_ATTEMPTS:]]


def _meaning(failures: Sequence[RunFailure], texts: Sequence[str]) -> str | None:
    """Return the meaning of the first failure that matches one of the errors."""
    return next(_meanings(failures, texts), None)


def _meanings(failures: Sequence[RunFailure], texts: Sequence[str]) -> Iterator[str]:
    for failure in failures:
        for text in texts:
            try:
                if search(failure.matches.pattern, text[:MAX_ERROR]):
                    yield failure.meaning
            except (TimeoutError, InvalidPattern):
                continue


def next_step(lifecycle: Lifecycle, explanation: Explanation, served: Sequence[str]) -> str:
    """Return a sentence about what to call next, of the tools that are `served`."""
    reading = explanation.reading
    status, native = reading.status, reading.native_status
    if not status.is_terminal and (hint := lifecycle.status_hint(native)):
        return hint
    if status is RunStatus.UNKNOWN:
        name = quote_name(native)
        return f"It is not known whether {name} is a terminal status: {lifecycle.read.tool} shows the whole run."
    if status is RunStatus.NOT_STARTED:
        return f"The run has not been started. After that, call {lifecycle.wait_tool} to wait for it."
    if not status.is_terminal:
        return f"The run has not ended: call {lifecycle.wait_tool} to wait for it."
    if status is RunStatus.SUCCEEDED:
        return f"The run has succeeded: {lifecycle.read.tool} returns its result."
    condition = "Fix the cause, then" if status is RunStatus.FAILED else "If it is still needed,"
    return f"{condition} {_how_to_run_again(lifecycle, explanation, served)}."


def _how_to_run_again(lifecycle: Lifecycle, explanation: Explanation, served: Sequence[str]) -> str:
    if lifecycle.retry_tool in served:
        has_failed = explanation.reading.status is RunStatus.FAILED
        part = ' with part "failed"' if has_failed and len(lifecycle.retries) > 1 else ""
        return f"call {lifecycle.retry_tool}{part} to run it again with the same input"
    again, run = lifecycle.again, explanation.run
    if again is not None and again.tool in served:
        tree = {
            name: item
            for name, item in again.arguments.items()
            if name in again.required or fill(item, run) is not None
        }
        text = dump(fill(tree, run))
        if has_gaps(tree, run) or len(text) > MAX_INPUT:
            text = f"the input that {lifecycle.read.tool} shows"
        marks = [mark for mark in (REDACTED, REPLACEMENT) if mark in text]
        hint = f". Replace {' and '.join(marks)} by the values, which this server does not show" if marks else ""
        return f"start it again with the same input: call {again.tool} with {text}{hint}"
    starts = [start.tool for start in lifecycle.starts.values() if start.tool in served]
    return f"start it again with {starts[0]}" if starts else "start it again"


def fill(tree: Any, source: Any) -> Any:
    """Return a tree of arguments with the values of the run, or of a step, that its paths lead to."""
    if isinstance(tree, tuple):
        return value_at(source, tree)
    if isinstance(tree, dict):
        return {name: fill(item, source) for name, item in tree.items()}
    return [fill(item, source) for item in tree] if isinstance(tree, list) else tree


def has_gaps(tree: Any, source: Any) -> bool:
    """Return whether a path in a tree of arguments leads to nothing. A value may contain nulls."""
    if isinstance(tree, tuple):
        return value_at(source, tree) is None
    items = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return any(has_gaps(item, source) for item in items)


def _seconds_between(started: Any, ended: Any) -> float | None:
    begin, end = parse_timestamp(started), parse_timestamp(ended)
    if begin is None or end is None or is_zero_time(started) or end < begin:
        return None
    return round((end - begin).total_seconds(), 1)


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"


def _text(value: Any) -> str:
    """Return a value of a step or of a log entry as text; empty for an absent one."""
    return value if isinstance(value, str) else "" if value is None else dump(value)
