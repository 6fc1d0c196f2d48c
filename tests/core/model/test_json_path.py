"""Parsing and use of JSON paths and conditions."""

import re
from typing import Any

import pytest

from mcp_taskruns.core.model.json_path import (
    EACH,
    Condition,
    Path,
    format_path,
    matches,
    parse_condition,
    parse_path,
    replace_at,
    set_at,
    value_at,
    values_at,
)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("$", ()),
        ("$.", ()),
        ("$.id", ("id",)),
        ("$.data.run_id", ("data", "run_id")),
        ("$.body.idempotencyKey", ("body", "idempotencyKey")),
        ("$.X-Run-Id", ("X-Run-Id",)),
        ("$[*]", (EACH,)),
        ("$[*].taskRun", (EACH, "taskRun")),
        ("$.results[*]", ("results", EACH)),
        ("$.a[*].b[*].c", ("a", EACH, "b", EACH, "c")),
        ("$.a[*][*]", ("a", EACH, EACH)),
        ("$.0.1", ("0", "1")),
        ("$.results[0]", ("results", 0)),
        ("$[0]", (0,)),
        ("$[0][1]", (0, 1)),
        ("$[-1].id", (-1, "id")),
        ("$.a['b']", ("a", "b")),
        ("$['two words'][\"it's\"].c", ("two words", "it's", "c")),
        ("$['']", ("",)),
        ("$['0'][0]", ("0", 0)),
        ("$['*'][*]", ("*", EACH)),
    ],
)
def test_path_is_parsed_to_its_steps(text: str, path: Path) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize(
    "text",
    [
        *("$.a..b", "$.a.", "$..a", "$$.a", "$.a b", "$.a[", "$.a[*", "$.a.[*]", "$[?(@.a)]", "$.a,b", "$*", "$.a/b"),
        *("$.a[b]", "$.a[0:2]", "$.a[]", "$.a['b]", "$.a['b\"]", "$.a[\"b']", "$.a['b\\'c']", "$.a[0", "$.a[1.5]"),
        *("$.a[0][", "$.a[1234567890]", "$['a','b']"),
    ],
)
def test_invalid_path_is_rejected(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole message is compared
        parse_path(text)
    assert str(caught.value) == f"`{text}` is not a path such as `$.data.id` or `$[*].run`"


@pytest.mark.parametrize(
    ("text", "fix"), [("id", "$.id"), ("data.id", "$.data.id"), ("[0]", "$[0]"), ("", "$"), ("X-Total", "$.X-Total")]
)
def test_path_without_dollar_is_rejected_with_a_fix(text: str, fix: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"`{text}` is not a path: paths start with `$`, write `{fix}`")):
        parse_path(text)


@pytest.mark.parametrize(
    ("value", "text", "found"),
    [
        ({"a": 1}, "$", [{"a": 1}]),
        (None, "$", [None]),
        ({"a": {"b": 1}}, "$.a.b", [1]),
        ({"a": {"b": None}}, "$.a.b", [None]),
        ({"a": {}}, "$.a.b", []),
        ({"a": None}, "$.a.b", []),
        ({"a": "text"}, "$.a.b", []),
        ("text", "$.a", []),
        ([{"a": 1}], "$.a", []),
        ([1, 2], "$[*]", [1, 2]),
        ([], "$[*]", []),
        ({"a": 1}, "$[*]", []),
        ("text", "$[*]", []),
        ([{"a": 1}, {"b": 2}, None, {"a": 3}], "$[*].a", [1, 3]),
        ({"results": [{"id": 1}, {"id": 2}]}, "$.results[*].id", [1, 2]),
        ({"a": [{"b": [1, 2]}, {"b": []}, {"b": [3]}]}, "$.a[*].b[*]", [1, 2, 3]),
        ([1, 2, 3], "$[0]", [1]),
        ([1, 2, 3], "$[2]", [3]),
        ([1, 2, 3], "$[3]", []),
        ([1, 2, 3], "$[-1]", [3]),
        ([1, 2, 3], "$[-3]", [1]),
        ([1, 2, 3], "$[-4]", []),
        ({"0": "a"}, "$[0]", []),
        ([1], "$['0']", []),
        ("text", "$[0]", []),
        ([{"id": 1}, {"id": 2}], "$[1].id", [2]),
        ({"a": [[1, 2], [3], "text"]}, "$.a[*][0]", [1, 3]),
        ({"two words": {"": 1}}, "$['two words']['']", [1]),
    ],
)
def test_values_at_a_path_are_found_in_order(value: Any, text: str, found: list[Any]) -> None:
    assert list(values_at(value, parse_path(text))) == found
    assert value_at(value, parse_path(text)) == next(iter(found), None)


def test_value_at_no_path_is_none() -> None:
    assert value_at({"a": 1}, None) is None


@pytest.mark.parametrize(
    ("value", "text", "made"),
    [
        ({}, "$.a", {"a": "new"}),
        ({"a": 1}, "$.a", {"a": "new"}),
        ({"a": 1}, "$.b", {"a": 1, "b": "new"}),
        ({"body": {"task": "t"}}, "$.body.key", {"body": {"task": "t", "key": "new"}}),
        ({}, "$.body.key", {"body": {"key": "new"}}),
        ({"body": None}, "$.body.key", {"body": {"key": "new"}}),
        ({"body": [1]}, "$.body.key", {"body": {"key": "new"}}),
        ({"x": 1}, "$.a.b.c", {"x": 1, "a": {"b": {"c": "new"}}}),
    ],
)
def test_set_at_changes_a_copy(value: dict[str, Any], text: str, made: dict[str, Any]) -> None:
    before = repr(value)
    assert set_at(value, parse_path(text), "new") == made
    assert repr(value) == before


STATUS = parse_path("$.body.status")


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ((), {}, True),
        ((), None, True),
        (((STATUS, ("cancelled",)),), {"body": {"status": "cancelled"}}, True),
        (((STATUS, ("cancelled",)),), {"body": {"status": "failed"}}, False),
        (((STATUS, ("cancelled",)),), {"body": {}}, False),
        (((STATUS, ("cancelled",)),), "text", False),
        (((STATUS, ("cancelled", "failed")),), {"body": {"status": "failed"}}, True),
        (((STATUS, ("cancelled",)), (("b",), (1,))), {"body": {"status": "cancelled"}, "b": 1}, True),
        (((STATUS, ("cancelled",)), (("b",), (1,))), {"body": {"status": "cancelled"}, "b": 2}, False),
        (((STATUS, ("cancelled",)), (("b",), (1,))), {"body": {"status": "x"}, "b": 1}, False),
        (((("a",), (None,)),), {}, True),
        (((("a",), ("x",)),), {"a": ["x"]}, False),
    ],
)
def test_condition_matches_when_every_path_has_an_accepted_value(
    condition: Condition, value: Any, expected: bool
) -> None:
    assert matches(value, condition) is expected


@pytest.mark.parametrize(
    ("written", "condition"),
    [
        ({}, ()),
        ({"$.status": "skipped"}, ((("status",), ("skipped",)),)),
        ({"$.a.b": ["x", "y"], "$.c": 1}, ((("a", "b"), ("x", "y")), (("c",), (1,)))),
        ({"$.ended": None}, ((("ended",), (None,)),)),
        # An empty list is an accepted value only inside a list of values.
        ({"$.data": [[]]}, ((("data",), ([],)),)),
        ({"$.data": []}, ((("data",), ()),)),
        ({"$.error": {"code": 1}}, ((("error",), ({"code": 1},)),)),
    ],
)
def test_condition_is_parsed_to_paths_and_values(written: dict[str, Any], condition: Condition) -> None:
    assert parse_condition(written) == condition


@pytest.mark.parametrize("path", ["$.a..b", "$.a[b]", "$*"])
def test_condition_with_an_invalid_path_is_rejected(path: str) -> None:
    with pytest.raises(ValueError, match="is not a path"):
        parse_condition({"$.a": 1, path: 2})


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("a",), "a"),
        (("a", "b"), "a.b"),
        ((EACH,), "[*]"),
        ((EACH, "taskRun"), "[*].taskRun"),
        (("results", EACH, "log_url"), "results[*].log_url"),
        (("a", EACH, EACH), "a[*][*]"),
        (("results", 0, "id"), "results[0].id"),
        ((-1,), "[-1]"),
    ],
)
def test_formatted_path_can_be_parsed_again(path: Path, text: str) -> None:
    assert format_path(path) == text
    assert parse_path(f"$.{text}" if text[:1] not in ("", "[") else f"${text}") == path


@pytest.mark.parametrize(
    ("value", "text", "made"),
    [
        (1, "$", [1]),
        (None, "$", [None]),
        ({"a": 1, "b": 2}, "$.a", {"a": [1], "b": 2}),
        ({"a": None}, "$.a", {"a": [None]}),
        ({"a": {"b": 1, "c": 2}, "d": 3}, "$.a.b", {"a": {"b": [1], "c": 2}, "d": 3}),
        ([1, 2], "$[*]", [[1], [2]]),
        ({"r": [{"a": 1}, {"b": 2}, "text", None]}, "$.r[*].a", {"r": [{"a": [1]}, {"b": 2}, "text", None]}),
        ([[1], [2, 3]], "$[*][*]", [[[1]], [[2], [3]]]),
        ([1, 2], "$[0]", [[1], 2]),
        ({"a": [{"b": 1}, {"b": 2}]}, "$.a[-1].b", {"a": [{"b": 1}, {"b": [2]}]}),
        # A path that does not exist changes nothing.
        ({"a": 1}, "$.b", {"a": 1}),
        ({"a": 1}, "$.a.b", {"a": 1}),
        ({"a": 1}, "$.a[*]", {"a": 1}),
        ("text", "$.a", "text"),
        (None, "$.a.b", None),
        ([], "$[*].a", []),
        ([], "$[0]", []),
        ({"0": 1}, "$[0]", {"0": 1}),
    ],
)
def test_replace_at_changes_a_copy(value: Any, text: str, made: Any) -> None:
    before = repr(value)
    assert replace_at(value, parse_path(text), lambda found: [found]) == made
    assert repr(value) == before
