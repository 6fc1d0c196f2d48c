"""Rendering of logs: selection, lines and notes."""

import json
import re
from typing import Any

import pytest

from mcp_taskruns.core.calls.pages import read_page
from mcp_taskruns.core.calls.received import HttpResponse
from mcp_taskruns.core.calls.response import CallResult, read_response
from mcp_taskruns.core.model.json import dump
from mcp_taskruns.core.model.operation import EventFormat, LogFormat, Operation, Paging
from mcp_taskruns.core.runs.logs import MAX_LINE, describe_entry, format_log
from mcp_taskruns.loading.loader import load_tools
from tests.core.documents import Json

TOOLS = {tool.name: tool.operation for tool in load_tools([])}
LOGS, SESSION_LOG = TOOLS["posthog-get-task-run-logs"], TOOLS["posthog-get-filtered-task-run-session"]
MAX_CHARS = 50_000


def log_of(operation: Operation) -> LogFormat:
    assert operation.log is not None
    return operation.log


LOG = log_of(LOGS)


def entry(second: int | str | None, method: str = "_posthog/console", **params: Any) -> Json:
    """Return a log entry of PostHog, `seconds` after nine o'clock. products/tasks/backend/models.py"""
    at = f"2026-01-31T09:{second // 60:02}:{second % 60:02}Z" if isinstance(second, int) else second
    timed = {} if at is None else {"timestamp": at}
    return {"type": "notification", **timed, "notification": {"jsonrpc": "2.0", "method": method, "params": params}}


def update(second: int, kind: str, **more: Any) -> Json:
    return entry(second, "session/update", update={"sessionUpdate": kind, **more})


def log_result(entries: list[Any]) -> CallResult:
    """Return the result for these JSON lines: PostHog sends the complete log as application/jsonl."""
    body = "".join(f"{item if isinstance(item, str) else json.dumps(item)}\n" for item in entries)
    return read_response(HttpResponse(200, {"content-type": "application/jsonl"}, body.encode()), LOGS)


def render(entries: list[Any], max_chars: int = MAX_CHARS, **arguments: Any) -> CallResult:
    return format_log(log_result(entries), LOG, arguments, max_chars, None)


def render_entries_of_page(
    entries: list[Any], max_chars: int = MAX_CHARS, more: str = "false", total: int = 40, **arguments: Any
) -> CallResult:
    """Render a page of a session log: a JSON array, with its totals in headers."""
    headers = {"content-type": "application/json", "x-has-more": more, "x-matching-count": str(total)}
    result = read_response(HttpResponse(200, headers, dump(entries).encode()), SESSION_LOG)
    assert SESSION_LOG.paging is not None
    return format_log(
        result, log_of(SESSION_LOG), arguments, max_chars, read_page(SESSION_LOG.paging, arguments, result)
    )


MIXED = [
    entry(0, level="info", message="Provisioning sandbox"),
    update(1, "tool_call", title="Read src/retry.py", status="pending"),
    update(2, "agent_message", content={"type": "text", "text": "The tests pass."}),
    entry(3, "_posthog/turn_complete", stopReason="end_turn"),
]


def test_log_has_one_line_for_each_entry_oldest_first() -> None:
    result = render(MIXED)
    assert result.text.split("\n") == [
        "2026-01-31T09:00:00Z console: Provisioning sandbox",
        "2026-01-31T09:00:01Z tool call: Read src/retry.py",
        "2026-01-31T09:00:02Z agent message: The tests pass.",
        '2026-01-31T09:00:03Z turn complete: {"stopReason":"end_turn"}',
    ]
    assert result.notes == ("All 4 entries.",)
    assert result.media_type == "text/plain"


def test_entries_of_a_page_are_rendered_like_a_complete_log() -> None:
    assert render_entries_of_page(MIXED).text == render(MIXED).text
    assert log_of(SESSION_LOG) == LOG


def test_entries_of_a_page_may_be_nested() -> None:
    result = CallResult.from_value({"entries": MIXED, "total": 4})
    paging = Paging(items=("entries",), page_size_argument="limit", default_page_size=10, max_page_size=10)
    page = read_page(paging, {}, result)
    assert format_log(result, LOG, {}, MAX_CHARS, page).text == render(MIXED).text


def test_entries_of_a_page_are_not_selected_again() -> None:
    # The provider has applied the arguments, which may have the names of ours.
    arguments: Json = {"types": ["unknown"], "since": "2030-01-01T00:00:00Z"}
    assert render_entries_of_page(MIXED, **arguments).text == render(MIXED).text


def test_notes_of_the_result_are_kept() -> None:
    result = format_log(log_result(MIXED).with_notes("Redacted: something."), LOG, {}, MAX_CHARS, None)
    assert result.notes == ("All 4 entries.", "Redacted: something.")


def numbers(result: CallResult) -> list[int]:
    """Return the numbers of the entries of `counted` that are shown."""
    return [int(number) for number in re.findall(r"entry (\d+)$", result.text, re.MULTILINE)]


def counted(count: int, **more: Any) -> list[Json]:
    return [entry(number, message=f"entry {number}") | more for number in range(count)]


@pytest.mark.parametrize(
    ("count", "arguments", "shown", "note"),
    [
        (5, {"last": 2}, [3, 4], "The last 2 of 5 entries. For earlier ones pass last 5."),
        (5, {"last": 5}, [0, 1, 2, 3, 4], "All 5 entries."),
        (5, {"last": 50}, [0, 1, 2, 3, 4], "All 5 entries."),
        (100, {}, list(range(100)), "All 100 entries."),
        (1234, {}, list(range(1134, 1234)), "The last 100 of 1,234 entries. For earlier ones pass last 1234."),
        (300, {"last": 299}, list(range(1, 300)), "The last 299 of 300 entries. For earlier ones pass last 300."),
    ],
)
def test_last_100_entries_are_shown_by_default(count: int, arguments: Json, shown: list[int], note: str) -> None:
    result = render(counted(count), **arguments)
    assert numbers(result) == shown
    assert result.notes == (note,)


@pytest.mark.parametrize(
    ("since", "shown"),
    [
        # Exclusive, as PostHog's own `after` is: products/tasks/backend/api.py (session_logs)
        ("2026-01-31T09:00:02Z", [3, 4]),
        ("2026-01-31T09:00:01.999Z", [2, 3, 4]),
        ("2026-01-31T08:59:59Z", [0, 1, 2, 3, 4]),
        ("2026-01-31T09:00:03.999Z", [4]),
        # The same time in other zones and other spellings of RFC 3339
        ("2026-01-31T10:00:02+01:00", [3, 4]),
        ("2026-01-31T04:00:02-05:00", [3, 4]),
        ("2026-01-31T10:00:02.000+0100", [3, 4]),
        ("2026-01-31 09:00:02Z", [3, 4]),
        ("2026-01-31t09:00:02z", [3, 4]),
        ("2026-01-31T09:00Z", [1, 2, 3, 4]),
    ],
)
def test_since_selects_later_entries(since: str, shown: list[int]) -> None:
    result = render(counted(5), since=since)
    assert numbers(result) == shown
    assert result.notes == (
        ("All 5 entries.",)
        if len(shown) == 5
        else (f"All {len(shown)} matching {'entry' if len(shown) == 1 else 'entries'}; the log has 5.",)
    )


@pytest.mark.parametrize("at", [None, "", "yesterday", "2026-99-99T09:00:00Z", -1, {"a": 1}])
def test_since_omits_entries_without_time(at: Any) -> None:
    untimed = entry(0, message="entry 0") | {"timestamp": at}
    if at is None:
        del untimed["timestamp"]
    entries = [untimed, entry(1, message="entry 1")]
    assert numbers(render(entries, since="2020-01-01T00:00:00Z")) == [1]
    assert numbers(render(entries)) == [0, 1]


def test_since_compares_unix_times() -> None:
    entries = [entry(0, message="entry 0") | {"timestamp": 1769850000}, entry(1, message="entry 1")]
    assert numbers(render(entries, since="2026-01-31T09:00:00Z")) == [1]
    assert numbers(render(entries, since="2026-01-31T08:59:59Z")) == [0, 1]


def test_time_without_zone_is_utc() -> None:
    entries = [entry("2026-01-31T09:00:00", message="entry 0"), entry("2026-01-31T09:00:01.5", message="entry 1")]
    assert numbers(render(entries, since="2026-01-31T10:00:00+01:00")) == [1]


@pytest.mark.parametrize(
    ("types", "shown"),
    [
        # The type of an event, for session/update the kind of update: products/tasks/backend/api.py (session_logs)
        (["tool_call"], [1]),
        (["agent_message", "tool_call"], [1, 2]),
        (["_posthog/console"], [0]),
        (["_posthog/turn_complete", "unknown"], [3]),
        ([], [0, 1, 2, 3]),
    ],
)
def test_types_selects_entries_of_these_types(types: list[str], shown: list[int]) -> None:
    result = render(MIXED, types=types, raw=True)
    assert [json.loads(line) for line in result.text.splitlines()] == [MIXED[number] for number in shown]


@pytest.mark.parametrize("types", [["unknown"], ["tool"]])
def test_note_lists_the_types_if_no_entry_matches(types: list[str]) -> None:
    result = render(MIXED, types=types)
    there_are = "_posthog/console, _posthog/turn_complete, agent_message, tool_call"
    assert (result.text, result.notes) == (f"None of the 4 entries matches; their types are {there_are}.", ())


def test_note_lists_no_types_if_entries_have_none() -> None:
    assert render(["text", "more text"], types=["tool_call"]).text == "None of the 2 entries matches."


def test_types_match_generic_and_specific_types() -> None:
    assert render(MIXED, types=["session/update"]).text.count("\n") == 1


def test_last_matching_entries_are_shown_with_their_number() -> None:
    entries = [*counted(40), *(update(50 + number, "tool_call", title=f"entry {number}") for number in range(12))]
    result = render(entries, types=["tool_call"], since="2026-01-31T09:00:51Z", last=3)
    assert numbers(result) == [9, 10, 11]
    assert result.notes == ("The last 3 of 10 matching entries; the log has 52. For earlier ones pass last 10.",)


def test_types_omits_entries_without_type() -> None:
    entries = [MIXED[1], {"timestamp": "2026-01-31T09:00:09Z"}, "text", 5, None, {"notification": {"method": 7}}]
    assert render(entries, types=["tool_call"]).text == render(MIXED[1:2]).text


@pytest.mark.parametrize("entries", [[], ["", "  "]])
def test_empty_log_has_a_note(entries: list[Any]) -> None:
    # "200 application/jsonl, possibly empty": products/tasks/backend/api.py (logs)
    result = render(entries)
    assert "The log is empty." in (result.text, *result.notes)
    assert "Done" not in result.text
    assert result.media_type == "text/plain"


def test_result_without_entries_is_not_empty_text() -> None:
    # Model APIs refuse a message with an empty text block.
    assert render([""]).text
    assert render(MIXED, types=["unknown"]).text
    assert render_entries_of_page([], total=0).text


def test_raw_returns_json_lines() -> None:
    result = render(MIXED, raw=True, last=2)
    assert [json.loads(line) for line in result.text.split("\n")] == MIXED[2:]
    assert result.media_type == "application/jsonl"
    assert render_entries_of_page(MIXED, raw=True).text.split("\n") == list(map(dump, MIXED))
    assert render(MIXED, raw=False).text == render(MIXED).text


def test_raw_entry_is_one_complete_line() -> None:
    odd = entry(0, message="a\nb\r\nc\u2028d\x1b[31m\x00" + "x" * 5000)
    (line,) = render([odd], raw=True).text.split("\n")
    assert json.loads(line) == odd


ODD: list[Any] = [
    entry(0, message="a\nb\r\n\tc\x0b\x0c\x85d"),
    entry(0, message="\x1b[31mred\x1b[0m \x00\x07\x7f\x9b"),
    entry(0, message="x" * 100_000),
    entry(0, message="ü" * 600),
    entry("2026-01-31T09:00:00Z\nforged: 1", message="two lines"),
    entry("9" * 5000, message="a long time"),
    entry("\x1b[2J", message="clears the screen"),
    entry(0, "method\nof/two lines", message="m"),
    entry(0, "m" * 5000),
    update(0, "a\nkind", content="c"),
    update(0, "k" * 5000),
    {"timestamp": "2026-01-31T09:00:00Z", "a\nname": "v" * 1000},
    {"notification": None},
    {"notification": {"method": None, "params": ["a\nb"] * 500}},
    {"type": "a\nb" * 300},
    "plain text\nthat is no JSON",
    "x" * 5000,
    5,
    None,
    True,
    [],
    {},
    ["a\nb"] * 300,
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_entry_is_one_line_of_at_most_500_characters(odd: Any) -> None:
    line = describe_entry(odd, LOG)
    assert len(line) <= MAX_LINE == 500
    assert len(line.splitlines()) <= 1
    assert re.search(r"[\x00-\x1f\x7f-\x9f]", line) is None


def test_invalid_entry_does_not_affect_others() -> None:
    odd = [item for item in ODD if not isinstance(item, str)]  # text with a line break would be two lines
    lines = render([MIXED[0], *odd, MIXED[2]], last=1000).text.split("\n")
    assert (lines[0], lines[-1]) == (describe_entry(MIXED[0], LOG), describe_entry(MIXED[2], LOG))
    assert len(lines) == len(odd) + 2


@pytest.mark.parametrize(
    ("odd", "line"),
    [
        ("plain text", "plain text"),
        (5, "5"),
        ({"message": "hi"}, "hi"),
        ({"id": "e1", "message": "hi"}, "e1: hi"),
        (entry(None, message="no time"), "console: no time"),
        ({"timestamp": 5, "message": "hi"}, "hi"),
    ],
)
def test_entry_of_another_shape_is_described(odd: Any, line: str) -> None:
    assert describe_entry(odd, LOG) == line


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"kind": "tick", "message": "hi"}, "tick: hi"),
        ({"kind": "tick", "id": "e1", "message": "hi"}, "e1: hi"),
        ({"kind": "tick"}, "tick: tick"),
        ({"kind": 5, "message": "hi"}, "hi"),
    ],
)
def test_entry_is_described_by_common_fields_without_message_paths(data: Json, line: str) -> None:
    log = LogFormat(("at",), EventFormat(type_paths=(("kind",),)))
    assert describe_entry({"at": "09:00", **data}, log) == f"09:00 {line}"


LINE = len("2026-01-31T09:00:00Z console: entry 0")


@pytest.mark.parametrize(
    ("limit", "shown"),
    [
        (10 * (LINE + 1), 10),
        (10 * (LINE + 1) - 2, 9),
        (3 * (LINE + 1), 3),
        (3 * (LINE + 1) - 2, 2),
        (LINE + 1, 1),
    ],
)
def test_last_lines_of_a_log_are_kept_within_the_limit(limit: int, shown: int) -> None:
    entries = counted(10)
    result = render(entries, limit)
    assert result.text.split("\n") == [describe_entry(one, LOG) for one in entries[10 - shown :]]
    assert len(result.text) <= limit
    assert result.notes == ("All 10 entries.",) if shown == 10 else (f"The last {shown} of 10 entries.",)


@pytest.mark.parametrize(("limit", "shown"), [(3 * (LINE + 1), 3), (3 * (LINE + 1) - 2, 2), (LINE + 1, 1)])
def test_first_lines_of_a_page_are_kept_within_the_limit(limit: int, shown: int) -> None:
    entries = counted(10)
    result = render_entries_of_page(entries, limit, more="true", offset=20)
    assert result.text.split("\n") == [describe_entry(one, LOG) for one in entries[:shown]]
    assert len(result.text) <= limit
    items = "Item 21" if shown == 1 else f"Items 21 to {20 + shown}"
    assert result.notes == (
        f"{items} of 40; there are more: for the next page pass offset {20 + shown}, or all_pages true for as many as "
        "fit.",
    )


def test_truncated_last_page_is_not_the_end_of_the_log() -> None:
    result = render_entries_of_page(counted(10), 3 * (LINE + 1), more="false", total=10)
    assert result.notes == (
        "Items 1 to 3 of 10; there are more: for the next page pass offset 3, or all_pages true for as many as fit.",
    )


@pytest.mark.parametrize("raw", [True, False])
def test_entry_over_the_limit_is_truncated(raw: bool) -> None:
    entries = [entry(0, message="first"), entry(1, message="x" * 5000)]
    result = render(entries, 300, raw=raw)
    line = dump(entries[1]) if raw else describe_entry(entries[1], LOG)
    assert result.text == line[: len(result.text) - 1] + "…"
    assert 250 < len(result.text) <= 300
    whole = render(entries, raw=raw).text
    rest = f"[{len(whole) - len(line) + len(result.text) - 1}:{len(whole)}]"
    assert result.notes == (
        f'The last 1 of 2 entries. The entry is truncated: for its rest call again with result_path "{rest}".',
    )


@pytest.mark.parametrize("raw", [True, False])
def test_earlier_entries_are_read_with_a_range_of_the_text(raw: bool) -> None:
    entries = counted(40)
    result = render(entries, 900, raw=raw)
    whole = render(entries, raw=raw).text
    end = len(whole) - len(result.text)
    assert whole[end:] == result.text
    (note,) = result.notes
    assert note.startswith("The last ")
    assert note.endswith(f' of 40 entries. For earlier ones call again with result_path "[:{end}]".')


def test_following_the_advice_shows_every_entry_once() -> None:
    sizes = [5, 5, 3000, 5, 400, 400, 3000, 3000, 5]
    entries = [entry(number, message=f"entry {number} {'x' * size}") for number, size in enumerate(sizes)]
    seen: list[str] = []
    offset, limit = 0, 4
    for _ in range(50):
        found = entries[offset : offset + limit]
        more = "true" if offset + limit < len(entries) else "false"
        result = render_entries_of_page(found, 1000, more, len(entries), offset=offset, limit=limit, raw=True)
        assert len(result.text) <= 1000
        seen += re.findall(r"entry \d+", result.text)
        advised = re.search(r"pass offset (\d+),", result.notes[0])
        if advised is None:
            break
        offset = int(advised.group(1))
    assert seen == [f"entry {number}" for number in range(len(entries))]
    assert result.notes[0].endswith("this is the end of the list.")


def test_page_shows_all_entries_within_the_limit() -> None:
    result = render_entries_of_page(counted(300), total=300)
    assert numbers(result) == list(range(300))
    assert result.notes == ("Items 1 to 300 of 300: this is the end of the list.",)


@pytest.mark.parametrize("value", [{"detail": "moved"}, "text"])
def test_response_that_is_not_a_log_is_unchanged(value: Any) -> None:
    result = read_response(HttpResponse(200, {"content-type": "application/json"}, dump(value).encode()), LOGS)
    assert format_log(result, LOG, {"last": 5, "types": ["a"]}, MAX_CHARS, None) == result
