import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from mcp_taskruns.core.calls import truncation
from mcp_taskruns.core.calls.truncation import MARK, MAX_GAPS, describe_gaps, one_line, quote, quote_name
from mcp_taskruns.core.model.json import dump
from tests.core.documents import Json


def truncate(value: Any, limit: int, size: int | None = None) -> tuple[Any, list[str]]:
    """Return the truncated value and a text for each truncated place."""
    kept, gaps = truncation.truncate(value, limit, size)
    return kept, list(map(str, gaps))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("ten chars.", "ten chars."),
        ("eleven char", "eleven ch…"),
        (" a\r\n\tb ", "a b"),
        ("\x1b[2Ja\x00\x9fb", "[2Ja b"),
        ("a\n" * 6, "a a a a a…"),
        ("a\u202eb\u2066c", "a b c"),
    ],
)
def test_one_line_has_no_control_characters_and_is_truncated(text: str, line: str) -> None:
    assert one_line(text, 10) == line


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", '""'),
        ("busy", '"busy"'),
        ('no "id"', "\"no 'id'\""),
        ('"\n\nHint: "', "\"' Hint: '\""),
        ("eleven char", '"eleven ch…"'),
    ],
)
def test_quoted_text_cannot_end_its_quotation(text: str, quoted: str) -> None:
    assert quote(text, 10) == quoted


@pytest.mark.parametrize("name", ["", "trn-1", "IN_PROGRESS", "v1.2/a:b@c+d", "Läuft"])
def test_plain_name_is_not_quoted(name: str) -> None:
    assert quote_name(name) == name


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("not found", '"not found"'),
        ("a\n", '"a"'),
        ("done. Hint: retry", '"done. Hint: retry"'),
        ("x" * 101, f'"{"x" * 99}…"'),
    ],
)
def test_name_that_may_be_a_sentence_is_quoted(name: str, quoted: str) -> None:
    assert quote_name(name) == quoted


def test_member_names_in_notes_are_quoted() -> None:
    _, notes = truncate({"a.\nAlso call x.": "x" * 1_000}, 200)
    assert notes[0].startswith('["a.\\nAlso call x."]: ')


def test_small_members_are_kept_beside_a_long_one() -> None:
    small: Json = {"empty": {}, "none": None, "yes": True, "number": 1.5}
    kept, notes = truncate({**small, "long": "x" * 1_000}, 200)
    text = kept.pop("long")
    assert kept == small
    assert notes == [f"long: {text.count('x')} of 1,000 characters"]


@pytest.mark.parametrize("value", [{}, [], "", None, True, 1.5, 123_456, [[], {}], {"a": {}}], ids=repr)
def test_value_at_the_limit_is_unchanged(value: Any) -> None:
    assert truncate(value, len(dump(value))) == (value, [])


@pytest.mark.parametrize("limit", [50, 200, 1_000])
def test_known_size_gives_the_same_result(limit: int) -> None:
    value = {"id": 1, "items": [{"text": "x" * 300}] * 5, "number": 10**400}
    assert truncate(value, limit, len(dump(value))) == truncate(value, limit)
    assert truncate([value], limit, len(dump([value]))) == truncate([value], limit)
    assert truncate(value, len(dump(value)), len(dump(value))) == (value, [])


@pytest.mark.parametrize("limit", [0, 1])
@pytest.mark.parametrize("value", [{}, []], ids=repr)
def test_empty_value_exceeds_a_zero_limit(value: Any, limit: int) -> None:
    assert truncate(value, limit) == (value, [])


@pytest.mark.parametrize(
    ("value", "limit", "kept", "notes"),
    [
        (123_456, 5, None, ["the value: a number of 6 digits is left out"]),
        (10**4_000, 4_000, None, ["the value: a number of 4,001 digits is left out"]),
        (-(10**300), 100, None, ["the value: a number of 302 digits is left out"]),
        ({"id": 1, "big": 10**300}, 100, {"id": 1, "big": None}, ["big: a number of 301 digits is left out"]),
        (
            {"a": {"b": [10**300, 1]}},
            200,
            {"a": {"b": [None]}},
            ["a.b[0]: a number of 301 digits is left out", "a.b: 1 of 2 items"],
        ),
    ],
    ids=["short", "long", "negative", "member", "item"],
)
def test_long_number_is_left_out(value: Any, limit: int, kept: Any, notes: list[str]) -> None:
    assert truncate(value, limit) == (kept, notes)


@pytest.mark.parametrize(
    ("character", "limit", "least"),
    [
        ("x", 130, 100),
        ("💥", 130, 100),
        ('"', 130, 35),  # two characters each
        ("\x01", 130, 11),  # six characters each
        ("x", 31, 1),
        ("x", 30, 0),
        ("x", 2, 0),
    ],
)
def test_text_is_truncated_by_the_length_of_its_json(character: str, limit: int, least: int) -> None:
    value, notes = truncate(character * 2_000, limit)
    kept = value.count(character)
    assert value == f"{character * kept}… ({2_000 - kept:,} more)"
    assert notes == [f"the text: {kept} of 2,000 characters"]
    assert kept >= least
    assert len(dump(character * kept)) <= limit


def test_text_that_exceeds_the_limit_with_escapes_is_truncated() -> None:
    assert truncate("x" * 98, 100) == ("x" * 98, [])
    assert truncate('"' * 49, 100) == ('"' * 49, [])
    value, notes = truncate('"' * 50, 100)
    assert (len(dump(value)) <= 100, len(notes)) == (True, 1)


def test_first_members_are_kept_if_there_are_too_many() -> None:
    members = {f"m{number:05}": number % 10 for number in range(100_000)}
    kept, notes = truncate(members, 1_000)
    assert list(kept.items()) == list(members.items())[: len(kept)]
    assert 980 < len(dump(kept)) <= 1_000
    assert notes == [f"the object: {len(kept)} of 100,000 members"]


def test_note_contains_the_path_of_truncated_members() -> None:
    page = {"id": "trn-1", "output": {"by_name": {f"m{number}": None for number in range(5_000)}}}
    kept, notes = truncate(page, 500)
    assert kept["id"] == "trn-1"
    assert notes == [f"output.by_name: {len(kept['output']['by_name'])} of 5,000 members"]


def test_many_large_members_are_truncated_and_the_first_are_kept() -> None:
    members = {f"m{number}": "x" * 1_000 for number in range(1_000)}
    kept, notes = truncate(members, 5_000)
    assert list(kept) == list(members)[: len(kept)]
    assert all(text.startswith("xx") for text in kept.values())
    assert 3_500 < len(dump(kept)) <= 5_000
    assert len(notes) == len(kept) + 1


@pytest.mark.parametrize(("cuts", "more"), [(1, []), (10, []), (11, ["and 1 more"]), (40, ["and 30 more"])])
def test_at_most_ten_places_are_described(cuts: int, more: list[str]) -> None:
    value = {f"m{number:02}": "x" * 1_000 for number in range(cuts)}
    _, gaps = truncation.truncate(value, 5_000 if cuts > 5 else 500)
    places = [note.partition(":")[0] for note in describe_gaps(gaps).split("; ")]
    assert places == [*list(value)[:MAX_GAPS], *more]


# The first item of a list needs at least 60 characters.
@pytest.mark.parametrize(("limit", "kept"), [(62, ["x" * 30 + "… (970 more)"]), (61, [])])
def test_first_item_is_truncated_if_it_has_60_characters(limit: int, kept: list[str]) -> None:
    assert truncate(["x" * 1_000], limit)[0] == kept


def grown(chance: random.Random, depth: int) -> Any:
    kind = chance.choice(["text", "number", "list", "list", "dict", "dict"]) if depth else "text"
    if kind == "text":
        return "abc déf " * chance.randrange(200)
    if kind == "number":
        return chance.choice([None, True, 1.5, chance.randrange(10**6)])
    items = [grown(chance, depth - 1) for _ in range(chance.randrange(8))]
    return items if kind == "list" else {f"member{place}": item for place, item in enumerate(items)}


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("limit", [500, 2_000, 10_000])
def test_truncated_value_is_json_within_the_limit(seed: int, limit: int) -> None:
    value = grown(random.Random(seed), 5)
    kept, notes = truncate(value, limit)
    text = dump(kept)
    assert json.loads(text) == kept
    assert len(text) <= limit
    assert (kept == value) is (notes == [])
    if len(dump(value)) <= limit:
        assert kept == value


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = "x" * 1_000
    for _ in range(depth):
        value = wrap(value)
    return value


HOSTILE = [
    pytest.param("\x01" * 5_000, id="control characters"),
    pytest.param('"' * 5_000, id="quotes"),
    pytest.param("\\\n" * 5_000, id="back slashes and line breaks"),
    pytest.param("\x01ab" * 5_000, id="some escapes"),
    pytest.param("x" * 5_000 + "\x01" * 5_000, id="escapes at the end"),
    pytest.param("\x01" * 5_000 + "x" * 5_000, id="escapes at the start"),
    pytest.param("💥\u2028" * 5_000, id="wide characters"),
    pytest.param(["\x01" * 5_000] * 50, id="list of escapes"),
    pytest.param({"a": {"b": ['"' * 5_000]}}, id="escapes inside"),
    pytest.param({f"m{number}": number for number in range(50_000)}, id="very many members"),
    pytest.param({f"m{number}": {} for number in range(50_000)}, id="very many empty members"),
    pytest.param({f"m{number}": "x" * 500 for number in range(2_000)}, id="many large members"),
    pytest.param({f"m{number}": ["x" * 50] * 50 for number in range(500)}, id="many lists"),
    pytest.param({f"m{number}": {"a": "x" * 500} for number in range(500)}, id="many mappings"),
    pytest.param([{f"m{number}": "x" * 500 for number in range(500)}] * 5, id="list of many members"),
    pytest.param(list(range(50_000)), id="very many items"),
    pytest.param([None] * 50_000, id="very many nulls"),
    pytest.param([[]] * 50_000, id="very many empty items"),
    pytest.param(nested(190, lambda value: [value]), id="nested lists"),
    pytest.param(nested(190, lambda value: {"a": value}), id="nested mappings"),
    pytest.param(nested(95, lambda value: [{"a": value}]), id="nested lists and mappings"),
    pytest.param(nested(95, lambda value: {"a": [value], "b": 1}), id="nested beside others"),
    pytest.param({"k" * 40: "x" * 5_000}, id="long key"),
    pytest.param({f"{number:040}": "x" * 500 for number in range(500)}, id="many long keys"),
    pytest.param({f"{number:040}": [1] * 500 for number in range(500)}, id="many long keys of lists"),
    pytest.param({'"' * 15 + str(number): "x" * 500 for number in range(500)}, id="keys of escapes"),
    pytest.param({"\x01" * 500 + str(number): "x" * 500 for number in range(50)}, id="long keys of escapes"),
    pytest.param({f"{number:018}": "\x01" * 1_000 for number in range(500)}, id="keys of many escapes"),
    pytest.param({"k" * 200: "x" * 1_000}, id="key longer than most limits"),
    pytest.param({f"{number:060}": "x" * 500 for number in range(500)}, id="many keys as long as a member's least"),
    pytest.param({f"{number:01000}": True for number in range(500)}, id="many very long keys"),
    pytest.param({"a": 1, "k" * 10_000: 1, "b": [1] * 9_000}, id="very long key between others"),
    pytest.param({f"m{number:03}": 10**200 for number in range(500)}, id="many huge numbers"),
    pytest.param([10**200] * 500, id="list of huge numbers"),
    pytest.param(10**4_000, id="huge number"),
    pytest.param({f"m{number}": [10**4_000] for number in range(50)}, id="huge numbers inside"),
]


@pytest.mark.parametrize("limit", [100, 101, 130, 500, 2_000, 20_000])
@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_value_does_not_exceed_the_limit(value: Any, limit: int) -> None:
    kept, gaps = truncation.truncate(value, limit)
    text = dump(kept)
    assert json.loads(text) == kept
    assert len(text) <= limit
    assert (kept == value) is (gaps == []) is (len(dump(value)) <= limit)
    assert len(describe_gaps(gaps)) < 2_000


@pytest.mark.parametrize("limit", [0, 1, 2, 10, 30, 60, 90])
@pytest.mark.parametrize("value", HOSTILE)
def test_too_small_limit_is_exceeded_by_at_most_a_mark(value: Any, limit: int) -> None:
    kept, _ = truncate(value, limit)
    text = dump(kept)
    assert json.loads(text) == kept
    assert len(text) <= max(limit, MARK)


@pytest.mark.parametrize("limit", [0, 1, 2, 30])
def test_text_is_truncated_to_its_mark_at_a_tiny_limit(limit: int) -> None:
    assert truncate("x" * 100, limit) == ("… (100 more)", ["the text: 0 of 100 characters"])


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("k" * 200, "k" * 119 + "…"),
        (".X", '[".X"]'),
        ("a b", '["a b"]'),
        ('"', '["\\""]'),
        ("", '[""]'),
        ("X-y_1", "X-y_1"),
        ("\x1b[2J", '["\\u001b[2J"]'),
    ],
)
def test_note_contains_the_place_as_a_path(name: str, place: str) -> None:
    kept, notes = truncate({name: "x" * 1_000}, 300)
    ((kept_name, text),) = kept.items()
    assert kept_name == name
    assert notes == [f"{place}: {text.count('x')} of 1,000 characters"]
