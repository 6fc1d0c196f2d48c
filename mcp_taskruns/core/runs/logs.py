"""The entries of a log: which of them are wanted, and a line to read for each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mcp_taskruns.core.calls.pages import Page, describe_page
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.truncation import one_line
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import value_at
from mcp_taskruns.core.model.operation import LogFormat
from mcp_taskruns.core.model.timestamps import parse_timestamp
from mcp_taskruns.core.model.tool import DEFAULT_LAST, LAST, RAW, SINCE, TYPES
from mcp_taskruns.core.runs.events import describe_event

MAX_TYPES = 20
"""Types of entries that are named where none fits."""

MAX_LINE = 500
"""Characters of the line that an entry is told in."""


def render_log(
    outcome: CallResult, log: LogFormat, arguments: Mapping[str, Any], limit: int, page: Page | None
) -> CallResult:
    """A log as lines, within `limit` characters, with a note of how many there are.

    Of a whole log the wanted entries are chosen here and the last are kept; of a page, which the provider has chosen,
    the first.
    """
    entries = page.items if page else outcome.value
    if not isinstance(entries, list):
        return outcome
    wanted = entries if page else list(_wanted(entries, log, arguments))
    last = wanted if page else wanted[-(arguments.get(LAST) or DEFAULT_LAST) :]
    lines = [dump(entry) if arguments.get(RAW) else describe_entry(entry, log) for entry in last]
    shown = _first_that_fit(lines, limit) if page else _first_that_fit(lines[::-1], limit)[::-1]
    note = describe_page(page, len(shown)) if page else _note(len(shown), len(wanted), entries, log)
    if not any(shown):
        return replace(outcome, text=note, media_type="text/plain")  # an empty text is an error to some models' APIs
    media_type = "application/jsonl" if arguments.get(RAW) else "text/plain"
    return replace(outcome, text="\n".join(shown), media_type=media_type, notes=(note, *outcome.notes))


def _wanted(entries: Sequence[Any], log: LogFormat, arguments: Mapping[str, Any]) -> Iterator[Any]:
    since = parse_timestamp(arguments.get(SINCE))
    types = arguments.get(TYPES)
    for entry in entries:
        if types and not set(types) & set(_types(entry, log)):
            continue
        at = parse_timestamp(value_at(entry, log.time_path))
        if since is None or (at is not None and at > since):
            yield entry


def _types(entry: Any, log: LogFormat) -> list[str]:
    """All that an entry calls itself, the most special first."""
    found = (value_at(entry, path) for path in log.type_paths)
    return [name for name in found if isinstance(name, str)]


def describe_entry(entry: Any, log: LogFormat) -> str:
    """An entry as one line: when, what kind, and what it says."""
    at = value_at(entry, log.time_path)
    types = _types(entry, log)
    told = describe_event(types[0] if types else "", entry, MAX_LINE)
    return one_line(f"{at} {told}" if isinstance(at, str) else told, MAX_LINE)


def _first_that_fit(lines: Sequence[str], limit: int) -> list[str]:
    """Whole lines, as many as there is room for; of the first at least its beginning."""
    kept: list[str] = []
    for line in lines:
        limit -= len(line) + 1
        if limit < 0:
            break
        kept.append(line)
    return kept or [f"{line[: limit + len(line)]}…" for line in lines[:1]]


def _note(shown: int, wanted: int, entries: Sequence[Any], log: LogFormat) -> str:
    count = len(entries)
    if not wanted:
        if not count:
            return "The log is empty."
        types = sorted({names[0] for entry in entries if (names := _types(entry, log))})
        there_are = f"; their types are {', '.join(types[:MAX_TYPES])}" if types else ""
        return f"None of the {count:,} entries fits{there_are}."
    told = f"All {wanted:,}" if shown == wanted else f"The last {shown:,} of {wanted:,}"
    noun = "entry" if wanted == 1 else "entries"
    return f"{told} {noun} that were asked for; the log has {count:,}." if wanted < count else f"{told} {noun}."
