"""The log of a run: selection of its entries, and one line of text for each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mcp_taskruns.core.calls.pages import Page, describe_page
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.truncation import one_line, quote_name
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.json_path import value_at
from mcp_taskruns.core.model.operation import LogFormat
from mcp_taskruns.core.model.timestamps import parse_timestamp
from mcp_taskruns.core.model.tool import DEFAULT_LAST, LAST, RAW, RESULT_PATH, SINCE, TYPES
from mcp_taskruns.core.runs.events import describe_event

MAX_TYPES = 20
"""Types of entries that are listed when no entry matches."""

MAX_LINE = 500
"""Characters of the line of one entry."""


def format_log(
    result: CallResult, log: LogFormat, arguments: Mapping[str, Any], limit: int, page: Page | None
) -> CallResult:
    """Return the log as lines of text within `limit` characters, with a note of how many entries there are.

    Of a complete log, the entries that match the arguments are selected, and the last ones are kept. The entries of a
    page were selected by the provider, and the first ones are kept.
    """
    entries = page.items if page else result.value
    if not isinstance(entries, list):
        return result
    matching = entries if page else list(_select(entries, log, arguments))
    last = matching if page else matching[-(arguments.get(LAST) or DEFAULT_LAST) :]
    lines = [dump(entry) if arguments.get(RAW) else describe_entry(entry, log) for entry in last]
    shown = _fitting_lines(lines, limit) if page else _fitting_lines(lines[::-1], limit)[::-1]
    note = describe_page(page, len(shown)) if page else _describe_selection(len(shown), len(matching), entries, log)
    note += _advise_to_read_on(lines, shown, len(matching), is_page=page is not None)
    if not any(shown):
        return replace(result, text=note, media_type="text/plain")  # some model APIs refuse empty text
    media_type = "application/jsonl" if arguments.get(RAW) else "text/plain"
    return replace(result, text="\n".join(shown), media_type=media_type).with_notes(note)


def _select(entries: Sequence[Any], log: LogFormat, arguments: Mapping[str, Any]) -> Iterator[Any]:
    since = parse_timestamp(arguments.get(SINCE))
    types = arguments.get(TYPES)
    for entry in entries:
        if types and not set(types) & set(_entry_types(entry, log)):
            continue
        at = parse_timestamp(value_at(entry, log.time_path))
        if since is None or (at is not None and at > since):
            yield entry


def _entry_types(entry: Any, log: LogFormat) -> list[str]:
    """Return the types of an entry, the most specific first."""
    values = (value_at(entry, path) for path in log.event.type_paths)
    return [name for name in values if isinstance(name, str)]


def describe_entry(entry: Any, log: LogFormat) -> str:
    """Return one line for an entry: its time, type and message."""
    at = value_at(entry, log.time_path)
    types = _entry_types(entry, log)
    text = describe_event(types[0] if types else "", entry, log.event, MAX_LINE)
    return one_line(f"{at} {text}" if isinstance(at, str) else text, MAX_LINE)


def _fitting_lines(lines: Sequence[str], limit: int) -> list[str]:
    """Return the first lines that fit into `limit` characters, at least the beginning of the first one."""
    kept: list[str] = []
    for line in lines:
        limit -= len(line) + 1
        if limit < 0:
            break
        kept.append(line)
    return kept or [f"{line[: limit + len(line)]}…" for line in lines[:1]]


def _advise_to_read_on(lines: Sequence[str], shown: Sequence[str], matching: int, *, is_page: bool) -> str:
    """Return how to get what no other page has: entries before those that are shown, or the rest of a long one.

    `result_path` takes characters of the text of all `lines`.
    """
    if not shown:
        return ""
    line, piece = (lines[0], shown[0]) if is_page else (lines[-1], shown[-1])
    start = 0 if is_page else sum(len(line) + 1 for line in lines[:-1])
    if piece != line:
        rest = f"[{start + len(piece) - 1}:{start + len(line)}]"
        return f' The entry is truncated: for its rest call again with {RESULT_PATH} "{rest}".'
    if is_page or matching == len(shown):
        return ""
    if len(shown) == len(lines):
        return f" For earlier ones pass {LAST} {matching}."
    end = sum(len(line) + 1 for line in lines[: -len(shown)])
    return f' For earlier ones call again with {RESULT_PATH} "[:{end}]".'


def _describe_selection(shown: int, matching: int, entries: Sequence[Any], log: LogFormat) -> str:
    count = len(entries)
    if not matching:
        return _describe_mismatch(entries, log) if count else "The log is empty."
    amount = f"All {matching:,}" if shown == matching else f"The last {shown:,} of {matching:,}"
    noun = "entry" if matching == 1 else "entries"
    return f"{amount} matching {noun}; the log has {count:,}." if matching < count else f"{amount} {noun}."


def _describe_mismatch(entries: Sequence[Any], log: LogFormat) -> str:
    types = sorted({names[0] for entry in entries if (names := _entry_types(entry, log))})
    hint = f"; their types are {', '.join(map(quote_name, types[:MAX_TYPES]))}" if types else ""
    return f"None of the {len(entries):,} entries matches{hint}."
