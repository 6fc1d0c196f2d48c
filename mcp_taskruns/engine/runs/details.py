"""What the response about a run leaves out: its result, and what it waits for."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from time import time
from typing import Any

import anyio

from mcp_taskruns.core.calls.echo import describe_unchanged
from mcp_taskruns.core.calls.request import path_arguments
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.model.json import dump, parse_or_text
from mcp_taskruns.core.model.json_path import matches, replace_at, value_at
from mcp_taskruns.core.model.run import Lifecycle, RunRequest, RunStatus
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.core.runs.explanation import fill, has_gaps
from mcp_taskruns.core.runs.reading import Reading, read_status, run_in_event, runs_in_response, with_text_ids
from mcp_taskruns.core.runs.requests import OpenRequests
from mcp_taskruns.engine.client import Client, EventStream
from mcp_taskruns.errors import CallError, NotVisibleYet

FIRST_SECONDS = 0.4
"""How long the first event of the past may take."""

SILENCE_SECONDS = 0.2
"""How long a stream is silent once it has sent the events of the past."""

READ_SECONDS = 3.0
"""How long reading the events of the past may take."""

MAX_EVENTS = 5_000

MAX_CHARS = 4_000_000
"""Characters of events that are read at most."""


async def add_details(client: Client, tool: Tool, arguments: Mapping[str, Any], result: CallResult) -> CallResult:
    """Return the result of a tool about one run with the run's result, if it was lost, and notes about the run."""
    lifecycle = tool.runs
    if tool.operation.echo is not None:
        result = result.with_notes(describe_unchanged(tool.operation.echo, arguments, result.value))
    if lifecycle is None:
        return result
    operation = tool.operation.name
    result = result_with_text_ids(lifecycle, operation, result)
    if operation == lifecycle.read.operation.name:
        result = await complete_result(client, lifecycle, arguments, result)
    runs = runs_in_response(lifecycle, operation, result.value)
    result = result.with_notes(*_older_statuses(client, lifecycle, runs))
    hints = [hint for run in runs if len(runs) == 1 and (hint := lifecycle.status_hint(run.native_status))]
    requests = lifecycle.requests
    if requests is None or operation not in requests.shown_by or any(not may_ask(run.status) for run in runs):
        return result.with_notes(*hints)
    if tool.operation.log is not None and requests.settled_by and matches(_last_entry(result), requests.settled_by):
        return result
    return result.with_notes(*hints, *await open_requests(client, lifecycle, arguments))


def _older_statuses(client: Client, lifecycle: Lifecycle, runs: Iterable[Reading]) -> Iterator[str]:
    """Yield a sentence about each run that this process has just started, and whose status is older than that."""
    for run in runs:
        try:
            client.recent_starts.check(lifecycle.provider, run)
        except NotVisibleYet as exc:
            yield exc.to_line()


def _last_entry(result: CallResult) -> Any:
    """Return the last entry of a log, which is a list or text with an entry in each line."""
    if isinstance(result.value, list):
        return result.value[-1] if result.value else None
    return parse_or_text(result.text.rstrip().rpartition("\n")[2])


def may_ask(status: RunStatus) -> bool:
    """Return whether a run with this status may wait for its user."""
    return status in {RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.UNKNOWN}


def result_with_text_ids(lifecycle: Lifecycle, operation: str, result: CallResult) -> CallResult:
    """Return the result of an operation with the integer ids of runs in it as text."""
    value = with_text_ids(lifecycle, operation, result.value)
    return result if value is result.value else replace(result, text=dump(value), value=value)


async def complete_result(
    client: Client, lifecycle: Lifecycle, arguments: Mapping[str, Any], result: CallResult
) -> CallResult:
    """Return the response to reading a run with its result from elsewhere, if this response has a place for it."""
    fields, run_path = lifecycle.fields, lifecycle.runs_in[lifecycle.read.operation.name]
    if fields.result is None:
        return result
    found, note = await fetch_result(client, lifecycle, arguments, value_at(result.value, run_path))
    if note:
        return result.with_notes(note)
    if found is None:
        return result
    value = replace_at(result.value, (*run_path, *fields.result), lambda _: found)
    return replace(result, text=dump(value), value=value)


async def fetch_result(client: Client, lifecycle: Lifecycle, arguments: Mapping[str, Any], run: Any) -> tuple[Any, str]:
    """Return the result of a run that succeeded from the operation that has it, or a note about why it is missing.

    `arguments` are those of reading the run. Both are empty if the run's own response has its result.
    """
    source = lifecycle.result
    if source is None or not matches(run, source.when):
        return None, ""
    reading = read_status(run, lifecycle.fields, lifecycle.statuses, "")
    if reading is None or reading.status is not RunStatus.SUCCEEDED:
        return None, ""
    run_id = arguments[lifecycle.read.run_id_argument]
    call = request_arguments(source.request, arguments, run_id, run)
    if call is None:
        return None, ""
    try:
        response = await client.fetch(source.request.operation, call, max_retries=0)
    except CallError as exc:
        return None, source.note or f"The result could not be read: {exc.message}"
    is_text = response.value is None and response.data is None and not response.is_empty
    value = response.text if is_text else response.value
    found = value_at(value, source.result)
    if found is None and (source.note or response.data is not None):
        return None, source.note or "The result is a file, which is not shown here."
    if source.is_json_text and isinstance(found, str):
        found = parse_or_text(found)
    return _unwrap(found, source.unwrap), ""


def request_arguments(
    request: RunRequest, arguments: Mapping[str, Any], run_id: str, source: Any
) -> dict[str, Any] | None:
    """Return the arguments of a request about a run; None if the run, or the step, lacks a value for one.

    `arguments` are those of the call, `source` is the run or the step with the values for further arguments.
    """
    if has_gaps(request.arguments, source):
        return None
    filled = fill(request.arguments, source)
    named = {request.run_id_argument: run_id} if request.run_id_argument else {}
    return {**path_arguments(request.operation, arguments), **named, **filled}


def _unwrap(value: Any, name: str) -> Any:
    """Return the only member of an object in which a provider wraps what is not an object; else the value."""
    is_wrapper = name and isinstance(value, dict) and [*value] == [name] and not isinstance(value[name], dict)
    return value[name] if is_wrapper else value


async def open_requests(client: Client, lifecycle: Lifecycle, arguments: Mapping[str, Any]) -> list[str]:
    """Return sentences about what a run asks its user, from the last events of its stream.

    `arguments` are those of reading the run. A stream that cannot be read has no requests.
    """
    requests, stream = lifecycle.requests, lifecycle.stream
    if requests is None or stream is None:
        return []
    since = str(round((time() - requests.recent_seconds) * 1000))
    call = {
        **path_arguments(stream.operation, arguments),
        stream.run_ids_argument: arguments[lifecycle.read.run_id_argument],
        **{name: text.replace("{milliseconds}", since) for name, text in requests.recent_events_arguments.items()},
    }
    found = OpenRequests(requests)
    with suppress(CallError), anyio.move_on_after(READ_SECONDS):
        async with client.open_stream(stream.operation, call, seconds=READ_SECONDS) as opened:
            await _read_past(opened, lifecycle, found)
    return [client.redactor.redact_text(sentence) for sentence in found.describe()]


async def _read_past(opened: EventStream, lifecycle: Lifecycle, found: OpenRequests) -> None:
    """Read events until the stream is silent."""
    count = chars = 0
    async with aclosing(aiter(opened)) as events:
        while count < MAX_EVENTS and chars < MAX_CHARS:
            event = None
            with anyio.move_on_after(SILENCE_SECONDS if count else FIRST_SECONDS):
                event = await anext(events, None)
            if event is None or event.is_keep_alive:
                return
            count, chars = count + 1, chars + len(event.data)
            data = parse_or_text(event.data)
            found.update(data)
            run = run_in_event(lifecycle, data, "")
            if run is not None and run.status.is_terminal:
                found.clear()
