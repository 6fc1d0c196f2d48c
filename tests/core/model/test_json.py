import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from mcp_taskruns.core.calls.truncation import MAX_LINE, one_line
from mcp_taskruns.core.model.json import MAX_CONTAINERS, MAX_VALUES, JsonLimitExceeded, dump, parse, parse_or_text
from mcp_taskruns.core.model.timestamps import parse_timestamp


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, "ö", None]}, '{"a":[1,"ö",null]}'),
        (float("inf"), "null"),
        ([float("nan")], "[null]"),
        ("\u2028", '"\u2028"'),
        (10**30, str(10**30)),
    ],
)
def test_dump_returns_compact_valid_json(value: Any, text: str) -> None:
    assert dump(value) == text


@pytest.mark.parametrize("kind", [str, str.encode])
@pytest.mark.parametrize(
    ("text", "value"),
    [
        (' {"a": [1, 1.0, null, true]} ', {"a": [1, 1.0, None, True]}),
        ('"\\u00f6\\ud83d\\ude00"', "ö😀"),
        (str(10**30), 10**30),
        # Half a surrogate pair has no form in UTF-8.
        ('"a\\ud800b"', "a?b"),
        ('{"\\uDFFF": ["\\ud83d\\ude00", "\\udc00\\ud800"]}', {"?": ["😀", "??"]}),
    ],
)
def test_parse_accepts_lone_surrogates(kind: Callable[[str], Any], text: str, value: Any) -> None:
    assert parse(kind(text)) == value
    assert json.loads(dump(parse(kind(text)))) == value


@pytest.mark.parametrize(
    "text", ["", "text", "{", "[1,]", "'a'", '{"a":1} b', "nul", "\\ud800", '{"a":"\\ud800"', '"\\UD800"']
)
def test_invalid_json_is_rejected_or_returned_as_text(text: str) -> None:
    for written in (text, text.encode()):
        with pytest.raises(ValueError, match=r"."):
            parse(written)
    assert parse_or_text(text) == text


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("null", None), ('"a"', "a"), ("[]", [])])
def test_valid_json_is_parsed(text: str, value: Any) -> None:
    assert parse_or_text(text) == value


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\r\n\t b\u2028c\x0bd", "a b c d"),
        ("  a  ", "a"),
        ("", ""),
        ("\n", ""),
        ("\x1b[31mred\x1b[0m\x07", "[31mred [0m"),
        ("a\x00\x7f\x85\x9bb", "a b"),
        ("größe", "größe"),
        ("x" * MAX_LINE, "x" * MAX_LINE),
        ("x" * (MAX_LINE + 1), "x" * (MAX_LINE - 1) + "…"),
        ("x\n" * MAX_LINE, "x " * (MAX_LINE // 2 - 1) + "x…"),
        (" " * 10_000_000 + "x", ""),
    ],
)
def test_one_line_has_at_most_180_characters(text: str, line: str) -> None:
    assert one_line(text) == line


@pytest.mark.parametrize(
    ("text", "limit", "line"),
    [("abcde", 5, "abcde"), ("abcdef", 5, "abcd…"), ("a\n\nb c", 5, "a b c"), ("x" * 1_000, 1_000, "x" * 1_000)],
)
def test_one_line_has_a_given_limit(text: str, limit: int, line: str) -> None:
    assert one_line(text, limit) == line


NINE = datetime(2026, 1, 31, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T09:00:00Z", NINE),
        ("2026-01-31t09:00:00z", NINE),
        ("2026-01-31T09:00:00.000000Z", NINE),
        ("2026-01-31T10:30:00+01:30", NINE),
        ("2026-01-31 09:00:00+00:00", NINE),
        # Without a zone: UTC, wherever the server stands
        ("2026-01-31T09:00:00", NINE),
        ("2026-01-31", NINE.replace(hour=0)),
        ("2026-01-31T09:00:00.25Z", NINE.replace(microsecond=250_000)),
        ("2026-02-30T09:00:00Z", None),
        ("2026-01-31T25:00:00Z", None),
        ("yesterday", None),
        ("", None),
        (None, None),
        (1_769_850_000, NINE),
        ([], None),
        ({}, None),
    ],
)
def test_timestamp_is_parsed(text: Any, moment: datetime | None) -> None:
    read = parse_timestamp(text)
    assert read == moment
    assert read is None or read.tzinfo is not None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" + "0," * MAX_VALUES + "0]", "has more than 600,000 values"),
        ("[" + '"",' * MAX_VALUES + "0]", "has more than 600,000 values"),
        ("[" + '"a",' * 3 * MAX_VALUES + "0]", "has more than 600,000 values"),
        ("[" + "[]," * MAX_CONTAINERS + "0]", "100,000 lists and objects"),
        ("[" + "{}," * MAX_CONTAINERS + "0]", "100,000 lists and objects"),
        ("[" + "9" * 4_200 + ("," + "9" * 4_200) * 300 + "]", "has more than 600,000 values"),
        ("[" * 300 + "]" * 300, "is nested more than 200 levels deep"),
        ('{"a":' * 300 + "1" + "}" * 300, "is nested more than 200 levels deep"),
        ("[-" + "1" * 4_301 + "]", "has an integer of more than 4,300 digits"),
    ],
    ids=[
        "numbers",
        "empty texts",
        "texts",
        "lists",
        "objects",
        "long numbers",
        "deep list",
        "deep object",
        "long integer",
    ],
)
def test_json_beyond_a_limit_is_not_parsed(text: str, reason: str) -> None:
    with pytest.raises(JsonLimitExceeded, match=reason):
        parse(text)
    assert parse_or_text(text) == text


def test_separators_inside_of_strings_do_not_count_as_values() -> None:
    inner = json.dumps([{"a": 1, "b": ["\\", '"', "9" * 40]}] * 60_000)
    assert parse(json.dumps({"output": inner})) == {"output": inner}


def test_text_with_too_many_escapes_is_not_repaired() -> None:
    with pytest.raises(ValueError, match="surrogate"):
        parse('["' + "\\ud800" * 1_100_000 + '"]')


def test_escaped_backslash_before_a_surrogate_is_kept() -> None:
    # The text is a backslash, `ud800`, and a lone surrogate.
    assert parse(r'"\\ud800\ud800"') == r"\ud800?"
