"""Parts of results: the paths that select them, and the advice that leads through a long result."""

import json
import random
import re
from typing import Any

import pytest

from mcp_taskruns.core.calls.parts import advise_to_read_on, find_part, parse_result_path
from mcp_taskruns.core.calls.truncation import Gap, truncate
from mcp_taskruns.errors import InvalidArguments

VALUE: Any = {
    "id": "run-1",
    "data": {"items": [{"n": n} for n in range(10)], "text": "0123456789", "a b": 1, '"': 2, "": 3, "0": "zero"},
    "none": None,
}


def unchanged(text: str) -> str:
    return text


def select(written: str, value: Any = VALUE) -> Any:
    return find_part(value, parse_result_path(written), unchanged).value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("", VALUE),
        ("$", VALUE),
        ("id", "run-1"),
        ("$.id", "run-1"),
        (" data.items[3].n ", 3),
        ("data.items[-1]", {"n": 9}),
        ("data.items[7:]", [{"n": 7}, {"n": 8}, {"n": 9}]),
        ("data.items[2:4]", [{"n": 2}, {"n": 3}]),
        ("data.items[:1]", [{"n": 0}]),
        ("data.items[-2:]", [{"n": 8}, {"n": 9}]),
        ("data.items[5:2]", []),
        ("data.items[10:]", []),
        ("data.text", "0123456789"),
        ("data.text[4:7]", "456"),
        ("data.text[-3:]", "789"),
        ("data.text[20:]", ""),
        ('data["a b"]', 1),
        ("data['a b']", 1),
        ('data["\\""]', 2),
        ('data[""]', 3),
        ("data.0", "zero"),
        ("none", None),
        ("[1:]", {"data": VALUE["data"], "none": None}),
        ("[:1]", {"id": "run-1"}),
    ],
)
def test_path_selects_a_part(written: str, value: Any) -> None:
    assert select(written) == value


@pytest.mark.parametrize("written", ["[0]", "[1:]", "[-1:]", "$[0]"])
def test_path_begins_in_a_list(written: str) -> None:
    assert select(written, ["a"]) in ("a", [], ["a"])


NO_PATHS = [
    "a..b",
    ".",
    "a.",
    "a b",
    "a[",
    "a[x]",
    "a[*]",
    "a[1:2:3]",
    "a[1:].b",
    "[0]b",
    'a["]',
    "a[1",
    "$$",
    "é!",
    r'["\q"]',
]


@pytest.mark.parametrize("written", [*NO_PATHS, "a[99999999999]", "a" + ".a" * 1_000])
def test_text_that_is_not_a_path_is_refused(written: str) -> None:
    with pytest.raises(InvalidArguments, match=r"result_path: .* is not a path such as data\.items\[500:\]"):
        parse_result_path(written)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("other", "the result has no member other"),
        ("data.items.n", "data.items is a list, which has no member n"),
        ("data.items[10]", "data.items has 10 items, and no item 10"),
        ("data.items[-11]", "data.items has 10 items, and no item -11"),
        ("data[0]", "data is an object, which has no item 0; a range is [0:]"),
        ("data.text[0]", "data.text is a text, which has no item 0; a range is [0:]"),
        ("none[0:]", "none is null, which has no range"),
        ("data.items[0].n[0:]", "data.items[0].n is a number, which has no range"),
        ("id.x", "id is a text, which has no member x"),
    ],
)
def test_place_that_the_result_lacks_is_an_error(written: str, message: str) -> None:
    with pytest.raises(InvalidArguments, match=re.escape(f"result_path: {message}")):
        select(written)


def test_missing_member_is_reported_with_the_members_that_exist() -> None:
    with pytest.raises(InvalidArguments) as exc_info:
        select("data.other", {"data": {f"m{number}": 1 for number in range(12)}})
    assert exc_info.value.hint == "The members of data are: m0, m1, m2, m3, m4, m5, m6, m7, m8, m9 and 2 more."


def test_long_path_and_names_are_shortened_in_errors() -> None:
    for written in ("x" * 1_000_000, "a b" * 1_000_000):
        with pytest.raises(InvalidArguments) as exc_info:
            select(written, {"n" * 1_000_000: 1})
        assert len(exc_info.value.to_line()) < 500


def test_text_is_redacted_before_a_range_of_it_is_taken() -> None:
    part = find_part(
        {"a": "xx SECRET xx"}, parse_result_path("a[5:9]"), lambda text: text.replace("SECRET", "[secret]")
    )
    assert part.value == "ecre"


def test_range_is_described_with_the_numbers_of_the_path() -> None:
    def describe(written: str) -> str:
        return find_part(VALUE, parse_result_path(written), unchanged).describe()

    assert describe("data.items[2:4]") == "data.items: items 2 to 4 of 10"
    assert describe("data.text[4:]") == "data.text: characters 4 to 10 of 10"
    assert describe("[1:]") == "the object: members 1 to 3 of 3"
    assert describe("data.text[20:]") == "data.text: characters 10 to 10 of 10"
    assert describe("data.items") == ""


def read_whole(value: Any, written: str, limit: int) -> Any:
    """Read a value with as many calls as it takes, following the advice about each truncated place."""
    part = find_part(value, parse_result_path(written), unchanged)
    if isinstance(part.value, str):
        if len(part.value) <= limit:
            return part.value
        gap = part.gap(Gap((), limit, len(part.value), "characters"))
        return part.value[:limit] + read_whole(value, gap.rest, limit)
    kept, gaps = truncate(part.value, limit)
    for gap in gaps:
        kept = _fill(kept, gap, read_whole(value, part.gap(gap).rest, limit))
    return kept


def _fill(kept: Any, gap: Gap, rest: Any) -> Any:
    """Return the kept value with the rest of a gap added."""
    if not gap.path:
        if gap.unit == "digits":
            return rest
        if gap.unit == "characters":
            return kept[: gap.kept] + rest
        return kept + rest if isinstance(kept, list) else kept | rest
    step, *others = gap.path
    inner = _fill(kept[step], Gap(tuple(others), gap.kept, gap.total, gap.unit), rest)
    return {**kept, step: inner} if isinstance(kept, dict) else [*kept[:step], inner, *kept[step + 1 :]]


def grown(chance: random.Random, depth: int) -> Any:
    kind = chance.choice(["text", "number", "list", "object", "object"]) if depth else "text"
    if kind == "text":
        return "".join(chance.choice('ab "\\\n💥\x01') for _ in range(chance.randrange(3_000)))
    if kind == "number":
        return chance.choice([None, True, 1.5, chance.randrange(10**6)])
    items = [grown(chance, depth - 1) for _ in range(chance.randrange(9))]
    names = ["m{}", "m {}", '"{}', "é.{}", "{}"]
    return items if kind == "list" else {chance.choice(names).format(place): item for place, item in enumerate(items)}


@pytest.mark.parametrize("seed", range(30))
def test_following_every_rest_returns_the_whole_value(seed: int) -> None:
    value = {"output": grown(random.Random(seed), 4)}
    assert read_whole(value, "", 600) == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    ("value", "calls"),
    [
        ({"data": {"output": "x" * 200_000}}, 5),
        ({"data": {"output": [{"n": n, "text": "x" * 180} for n in range(1_000)]}}, 5),
        ({"data": {"output": {f"m{n}": "x" * 40 for n in range(4_000)}}}, 5),
    ],
    ids=["text", "list", "object"],
)
def test_output_of_200_kb_is_read_in_five_calls(value: Any, calls: int) -> None:
    limit, made, written = 50_000, 0, ""
    while True:
        made += 1
        part = find_part(value, parse_result_path(written), unchanged)
        if isinstance(part.value, str):
            gaps = [Gap((), limit, len(part.value), "characters")] if len(part.value) > limit else []
        else:
            gaps = truncate(part.value, limit)[1]
        if not gaps:
            break
        match = re.search(r'result_path "([^"]+)"\.', advise_to_read_on([part.gap(gap) for gap in gaps]))
        assert match is not None
        written = match.group(1)
    assert made <= calls


def test_advice_names_the_first_place_that_has_a_short_path() -> None:
    gaps = [Gap(("k" * 500,), 5, 10, "items"), Gap(("a b", 3), 5, 10, "items"), Gap((), 2, 3, "members")]
    assert advise_to_read_on(gaps) == (
        'To read on, call again with result_path "[\\"a b\\"][3][5:]", or another of these places.'
    )
    assert advise_to_read_on(gaps[:1]) == ""
    assert advise_to_read_on([Gap(("n",), 0, 400, "digits")]) == 'To read on, call again with result_path "n".'
