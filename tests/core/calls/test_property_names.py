"""Property names that model vendors refuse."""

import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mcp_taskruns.core.calls.property_names import listed_schema, safe_names, to_real_names
from tests.core.documents import Json, inputs, tool_of

SAFE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}")
LONG = "filter[" + "x" * 70 + "]"


def schema(*names: str, **more: Any) -> Json:
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}, **more}


@pytest.mark.parametrize(
    ("names", "safe"),
    [
        (["filter[status]", "window[seconds]"], ["filter_status", "window_seconds"]),
        (["ValidUntilDate<", "$filter", "a b"], ["ValidUntilDate", "filter", "a_b"]),
        (["a[b]", "a(b)", "a_b"], ["a_b_2", "a_b_3"]),  # distinct from each other, and from a name that is not changed
        (["a_b", "a[b]"], ["a_b_2"]),
        (["2[fa]", "[]", "größe", "日本"], ["_2_fa", "_", "gr_e", "__2"]),
        (["", "_[x]"], ["_", "x"]),
    ],
)
def test_refused_names_get_distinct_identifiers(names: list[str], safe: list[str]) -> None:
    found = safe_names(schema(*names))
    assert list(found.values()) == safe
    assert all(SAFE.fullmatch(name) for name in found.values())


@pytest.mark.parametrize("name", ["limit", "X-Trace", "thing.id", "2fa", "_", "n" * 64])
def test_accepted_names_are_unchanged(name: str) -> None:
    assert safe_names(schema(name)) == {}


def test_long_name_is_truncated_with_a_digest() -> None:
    first, second = safe_names(schema(LONG, LONG + "y")).values()
    assert (len(first), len(second)) == (64, 64)
    assert first != second
    assert SAFE.fullmatch(first)


def test_numbered_long_name_has_at_most_64_characters() -> None:
    names = safe_names(schema("n" * 63 + "]", "n" * 63 + "[", "n" * 63 + "("))
    assert [len(name) for name in names.values()] == [63, 64, 64]


NESTED = schema("plain")
NESTED["properties"]["body"] = {
    "type": "object",
    "required": ["filter[a]"],
    "properties": {
        "filter[a]": {"type": "string", "description": "Which."},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
        "either": {"anyOf": [schema("of[x]"), schema("of[y]")], "allOf": [schema("of[z]")]},
        "map": {"additionalProperties": schema("in[map]")},
        "open": {"type": "object"},
        "free": True,
    },
}
NESTED["$defs"] = {"item": schema("id[]", required=["id[]"], allOf=[{"$ref": "#/$defs/item"}])}


def test_nested_properties_are_listed_under_safe_names() -> None:
    names = safe_names(NESTED)
    assert set(names) == {"filter[a]", "id[]", "of[x]", "of[y]", "of[z]", "in[map]"}
    listed = listed_schema(NESTED, names)
    Draft202012Validator.check_schema(listed)
    body = listed["properties"]["body"]
    assert body["required"] == ["filter_a"]
    assert body["properties"]["filter_a"] == {
        "type": "string",
        "description": "Which. Also accepted as `filter[a]`, the name at the provider.",
    }
    assert body["properties"]["either"]["anyOf"][0]["properties"]["of_x"]["description"] == (
        "Also accepted as `of[x]`, the name at the provider."
    )
    assert listed["$defs"]["item"]["required"] == ["id"]
    assert "in_map" in body["properties"]["map"]["additionalProperties"]["properties"]
    assert NESTED["properties"]["body"]["required"] == ["filter[a]"]


@pytest.mark.parametrize("use_safe", [True, False], ids=["safe", "real"])
def test_arguments_are_sent_under_their_real_names(use_safe: bool) -> None:
    names = safe_names(NESTED)

    def name(real: str) -> str:
        return names[real] if use_safe else real

    def arguments(of: Any) -> Json:
        return {
            "plain": "p",
            "body": {
                of("filter[a]"): "f",
                "items": [{of("id[]"): "1"}, {"other": 1}],
                "either": {of("of[x]"): "x", of("of[z]"): "z"},
                "map": {"key": {of("in[map]"): "m"}},
                "open": {"filter_a": "kept", "deep": {"filter_a": 1}},
                "free": [{"filter_a": 1}],
            },
        }

    assert to_real_names(arguments(name), NESTED, names) == arguments(lambda real: real)


def test_both_names_of_an_argument_are_left_for_validation() -> None:
    given = schema("a[b]")
    assert to_real_names({"a_b": 1, "a[b]": 2}, given, safe_names(given)) == {"a_b": 1, "a[b]": 2}


@pytest.mark.parametrize("reference", ["#/$defs/missing", "https://elsewhere.example/x", "#/properties/a~1b/x"])
def test_unknown_references_are_ignored(reference: str) -> None:
    given = schema("x[]") | {"properties": {"x[]": {"$ref": reference}}}
    assert to_real_names({"x": {"y": 1}}, given, safe_names(given)) == {"x[]": {"y": 1}}


def test_schema_of_booleans_and_wrong_values_is_accepted() -> None:
    given: Json = {"properties": {"a[]": True, "b": {"properties": 5, "items": [1], "allOf": [True], "required": "x"}}}
    names = safe_names(given)
    assert names == {"a[]": "a"}
    assert listed_schema(given, names)["properties"]["a"] is True
    assert to_real_names({"a": 1, "b": [1]}, given, names) == {"a[]": 1, "b": [1]}


def test_tool_lists_a_safe_name_and_keeps_the_real_one_in_its_schema() -> None:
    tool = tool_of(inputs({"name": "filter[status]", "in": "query"}, {"name": "limit", "in": "query"}))
    assert tool.safe_names == {"filter[status]": "filter_status"}
    assert list(tool.input_schema["properties"]) == ["filter[status]", "limit"]
