"""Output mappings by `outputParameters`."""

import re
import tracemalloc
from typing import Any

import pytest

from mcp_taskruns.core.calls.outputs import CostlyMapping, map_output
from mcp_taskruns.core.format.outputs import parse_outputs, parse_outputs_or_none
from mcp_taskruns.core.format.spec import OutputParameter
from mcp_taskruns.core.model.json_path import EACH
from mcp_taskruns.core.model.operation import Output
from tests.core.documents import Json, tool_of


def parsed(*declared: Json) -> Output | None:
    return parse_outputs(map(OutputParameter.model_validate, declared))


@pytest.mark.parametrize(
    "declared",
    [
        [],
        [{"type": "object", "mapping": "$."}],
        [{"type": "object", "mapping": "$"}],
        [{"mapping": ""}],
        [{"type": "array", "description": "All."}],
        [{"properties": {}}],
        [{"items": None}],
        [{"items": {"type": "string"}}],
        [{"items": "string"}],
        [{"items": [{"type": "object"}]}],
        [{"name": "", "mapping": "$"}],
        [{"name": "all", "mapping": "$.a"}, {"mapping": "$"}],
    ],
    ids=repr,
)
def test_response_without_mapping_has_no_output(declared: list[Json]) -> None:
    assert parsed(*declared) is None


@pytest.mark.parametrize(
    ("declared", "output"),
    [
        ([{"mapping": "$.data"}], Output(("data",))),
        ([{"type": "string", "mapping": "$.data[0].id"}], Output(("data", 0, "id"))),
        ([{"mapping": "data[*].id"}], Output(("data", EACH, "id"))),
        ([{"mapping": "$..id"}], Output("$..id")),
        ([{"value": "$.data"}], Output(("data",))),
        ([{"const": "fixed"}], Output(constant="fixed")),
        ([{"value": 5}], Output(constant=5)),
        ([{"value": False}], Output(constant=False)),
        ([{"const": "a", "value": "b"}], Output(constant="a")),
        ([{"mapping": "$.a", "value": "fixed"}], Output(("a",))),
        ([{"name": "id"}], Output(properties={"id": Output(("id",))})),
        ([{"name": "id", "mapping": "$.run.id"}], Output(properties={"id": Output(("run", "id"))})),
        (
            [{"name": "all", "mapping": "$"}, {"name": "n", "value": 1}],
            Output(properties={"all": Output(), "n": Output(constant=1)}),
        ),
        ([{"properties": {"a": {"mapping": "$.b"}}}], Output(properties={"a": Output(("b",))})),
        ([{"properties": {"a": {"type": "string"}}}], Output(properties={"a": Output(("a",))})),
        ([{"properties": {"a": "string", "b": None}}], Output(properties={"a": Output(("a",)), "b": Output(("b",))})),
        ([{"properties": {5: {"mapping": "$"}}}], Output(properties={"5": Output()})),
        ([{"properties": [{"name": "a", "mapping": "$.b"}, "odd"]}], Output(properties={"a": Output(("b",))})),
        ([{"mapping": "$.a", "items": {"mapping": "$.b"}}], Output(("a",), items=Output(("b",)))),
        ([{"mapping": "$.a", "items": [{"mapping": "$.b"}]}], Output(("a",), items=Output(("b",)))),
        ([{"mapping": "$.a", "items": ["string"]}], Output(("a",))),
        (
            [{"items": [{"name": "x", "mapping": "$.y"}]}],
            Output(items=Output(properties={"x": Output(("y",))})),
        ),
        (
            [{"items": [{"name": "x"}, {"name": "z"}]}],
            Output(items=Output(properties={"x": Output(("x",)), "z": Output(("z",))})),
        ),
        (
            [{"items": {"properties": {"x": {"items": {"mapping": "$.y"}}}}}],
            Output(items=Output(properties={"x": Output(("x",), items=Output(("y",)))})),
        ),
        ([{"mapping": "$.a", "properties": "odd", "items": []}], Output(("a",))),
    ],
    ids=repr,
)
def test_output_parameters_are_parsed(declared: list[Json], output: Output) -> None:
    assert parsed(*declared) == output


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"properties": {"a": {"mapping": 5}}}, "a mapping that is not valid JSONPath: 5"),
        ({"items": {"mapping": ["$.a"]}}, "a mapping that is not valid JSONPath: ['$.a']"),
    ],
)
def test_mapping_that_is_not_text_is_refused(declared: Json, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parsed(declared)


DEEP: Json = {"mapping": "$.a"}
for _ in range(60):
    DEEP = {"items": DEEP}


@pytest.mark.parametrize(
    "declared",
    [
        {"mapping": "$.a["},
        {"properties": {"a": {"mapping": 5}}},
        {"mapping": "$.a", "items": {"mapping": "$.b["}},
        {"name": "a", "mapping": "$[?match(@.a, 'b')]"},
        DEEP,
    ],
    ids=lambda declared: str(declared)[:40],
)
def test_invalid_output_parameters_return_the_whole_response(declared: Json) -> None:
    assert parse_outputs_or_none([OutputParameter.model_validate(declared)]) is None
    tool = tool_of(tool={"outputParameters": [declared, {"name": "b", "mapping": "$.b"}]})
    assert (tool.operation.unsupported, tool.operation.outputs) == (None, None)


def test_valid_output_parameters_are_applied() -> None:
    assert parse_outputs_or_none([OutputParameter.model_validate({"mapping": "$.a"})]) == Output(("a",))


@pytest.mark.parametrize(
    "mapping",
    [
        "$[?match(@.a, '(a+)+b')]",
        "$[?search(@.a, 'b')].c",
        "$[? !search (@.a, 'b')]",
        "$[?@.a =~ /(a+)+b/]",
        "$..[?@.a=~/b/]",
    ],
)
def test_mapping_with_regular_expression_is_refused(mapping: str) -> None:
    with pytest.raises(ValueError, match=r"^a mapping with a regular expression, which is not supported: "):
        parsed({"mapping": mapping})


@pytest.mark.parametrize("mapping", ["$.match", "$.search[*].matches", "$['match (a)']", "$..research", "$..match"])
def test_names_that_look_like_pattern_functions_are_accepted(mapping: str) -> None:
    assert parsed({"mapping": mapping}) is not None


@pytest.mark.parametrize("word", ["items", "properties"])
def test_too_deeply_nested_outputs_are_refused(word: str) -> None:
    declared: Json = {"mapping": "$.a"}
    for depth in range(60):
        if depth == 40:
            assert parsed(declared) is not None
        declared = {word: declared if word == "items" else {"a": declared}}
    with pytest.raises(ValueError, match=r"^outputs that are nested too deeply$"):
        parsed(declared)


def test_outputs_can_be_keyed_by_name() -> None:
    listed = tool_of(tool={"outputParameters": [{"name": "id", "mapping": "$.a"}, {"name": "n", "const": 5}]})
    keyed = tool_of(tool={"outputParameters": {"id": {"mapping": "$.a"}, "n": {"const": 5}}})
    assert keyed == listed
    assert listed.operation.outputs == Output(properties={"id": Output(("a",)), "n": Output(constant=5)})


def test_outputs_of_the_consumed_operation_are_ignored() -> None:
    tool = tool_of({"outputParameters": [{"name": "id", "value": "$.id"}]})
    assert tool.operation.outputs is None


RUN: Json = {"id": "r", "steps": [{"n": 1, "out": {"a": "x"}}, {"n": 2}], "total": 2, "none": None}


@pytest.mark.parametrize(
    ("declared", "value", "mapped"),
    [
        ([{"mapping": "$.id"}], RUN, "r"),
        ([{"mapping": "$.steps"}], RUN, RUN["steps"]),
        ([{"mapping": "$.steps[0].n"}], RUN, 1),
        ([{"mapping": "$.steps[-1].n"}], RUN, 2),
        ([{"mapping": "$.steps[5]"}], RUN, None),
        ([{"mapping": "$['id']"}], RUN, "r"),
        ([{"mapping": "$.none"}], RUN, None),
        ([{"mapping": "$.missing"}], RUN, None),
        ([{"mapping": "$.id.deeper"}], RUN, None),
        ([{"mapping": "$.id"}], "text", None),
        ([{"mapping": "$.steps[*].n"}], RUN, [1, 2]),
        ([{"mapping": "$.missing[*].n"}], RUN, []),
        # Members of an object
        ([{"name": "run", "mapping": "$.id"}, {"name": "total"}], RUN, {"run": "r", "total": 2}),
        ([{"name": "gone"}, {"name": "n", "value": 1}], RUN, {"gone": None, "n": 1}),
        ([{"name": "all", "mapping": "$"}], RUN, {"all": RUN}),
        ([{"name": "run", "mapping": "$.id"}], "text", "text"),
        ([{"name": "run", "mapping": "$.id"}], None, None),
        (
            [{"name": "run", "properties": {"id": {"mapping": "$.a"}}}],
            {"run": {"a": 1}},
            {"run": {"id": 1}},
        ),
        ([{"name": "run", "properties": {"id": {}}}], {"run": None}, {"run": None}),
        ([{"name": "run", "properties": {"id": {}}}], {"run": "text"}, {"run": "text"}),
        ([{"properties": {"a": {"mapping": "$.steps[0].out.a"}, "c": {"const": "k"}}}], RUN, {"a": "x", "c": "k"}),
        # Lists
        ([{"mapping": "$.steps", "items": {"mapping": "$.n"}}], RUN, [1, 2]),
        ([{"mapping": "$.steps", "items": [{"name": "no", "mapping": "$.n"}]}], RUN, [{"no": 1}, {"no": 2}]),
        (
            [{"mapping": "$.steps", "items": {"properties": {"a": {"mapping": "$.out.a"}}}}],
            RUN,
            [{"a": "x"}, {"a": None}],
        ),
        ([{"mapping": "$.steps", "items": {"const": 0}}], RUN, [0, 0]),
        ([{"mapping": "$.total", "items": {"mapping": "$.n"}}], RUN, 2),
        ([{"mapping": "$.missing", "items": {"mapping": "$.n"}}], RUN, None),
        ([{"mapping": "$.steps[*].n", "items": {"mapping": "$"}}], RUN, [1, 2]),
        ([{"mapping": "$", "items": {"items": {"mapping": "$.a"}}}], [[{"a": 1}], [], "t"], [[1], [], "t"]),
        # Some files declare a list as an object.
        ([{"properties": {"no": {"mapping": "$.n"}}}], RUN["steps"], [{"no": 1}, {"no": 2}]),
        ([{"properties": {"no": {"mapping": "$.n"}}}], [], []),
        ([{"mapping": "$.steps", "properties": {"n": {}}}], RUN, [{"n": 1}, {"n": 2}]),
        # Columns of a row without names are selected by index.
        ([{"properties": {"a": {"mapping": "$[0]"}, "b": {"mapping": "$[1]"}}}], ["x", "y"], {"a": "x", "b": "y"}),
        (
            [{"items": {"properties": {"a": {"mapping": "$[0]"}, "b": {"mapping": "$[2]"}}}}],
            [["x", "y"], ["z"]],
            [{"a": "x", "b": None}, {"a": "z", "b": None}],
        ),
        # JSONPath beyond names and indexes: RFC 9535
        ([{"mapping": "$..n"}], RUN, [1, 2]),
        ([{"mapping": "$.steps[?(@.n == 2)].n"}], RUN, [2]),
        ([{"mapping": "$.steps[?@.n > 5]"}], RUN, []),
        ([{"mapping": "$.steps[0:1].n"}], RUN, [1]),
        ([{"mapping": "$.steps.*.n"}], RUN, [1, 2]),
        ([{"mapping": "$ .id"}], RUN, "r"),
        ([{"mapping": "$ .missing"}], RUN, None),
        ([{"mapping": "$..n"}], "text", []),
        ([{"mapping": "$..n"}], '{"n": 1}', []),
        ([{"mapping": "$..n"}], None, []),
        ([{"mapping": "$..n", "items": {"properties": {"a": {"mapping": "$"}}}}], RUN, [1, 2]),
    ],
    ids=repr,
)
def test_response_is_mapped(declared: list[Json], value: Any, mapped: Any) -> None:
    output = parsed(*declared)
    assert output is not None
    before = repr(value)
    assert map_output(output, value) == mapped
    assert repr(value) == before


@pytest.mark.parametrize("mapping", ["$.a[", "no path at all", "$.a[?(@.b ==)]", "a..b[", "$[?nofunc(@.a)]", "{{a}}"])
def test_invalid_jsonpath_is_refused(mapping: str) -> None:
    with pytest.raises(ValueError, match=r"^a mapping that is not valid JSONPath: "):
        parsed({"mapping": mapping})


def test_filter_that_does_not_apply_to_a_value_finds_nothing() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    output = parsed({"mapping": "$..n"})
    assert output is not None
    assert map_output(output, value) == []


@pytest.mark.parametrize("number", ["$[0]", "$[-1].a"])
def test_mapping_by_index_is_detected_in_any_property(number: str) -> None:
    output = parsed({"properties": {"named": {"mapping": "$.n"}, "first": {"mapping": number}}})
    assert output is not None
    assert map_output(output, [{"a": 1, "n": 2}])["named"] is None


@pytest.mark.parametrize(
    "mapping",
    [
        "$..*..*..*",
        "$..a..b",
        "$[?@..x]",
        "$[?@.a[?@.b]]",
        "$[?$['a'][*] == @.b]",
        "$[0,0][0,0]",
        "$.a & $.b",
        "$..[?@.a == $[*]]",
        "$[?count(@.*) > 1]",
        "$" + "[*]" * 200 + "[?@.a]",
    ],
)
def test_mapping_that_could_take_too_long_is_refused(mapping: str) -> None:
    with pytest.raises(CostlyMapping, match=r"^a mapping that could take too long"):
        parsed({"mapping": mapping})
    tool = tool_of(tool={"outputParameters": [{"mapping": mapping}]})
    assert (tool.operation.unsupported, tool.operation.outputs) == (None, None)


@pytest.mark.parametrize(
    ("mapping", "found"),
    [
        ("$..id", [1, 2, 3]),
        ("$.a[?@.t=='y,*?..'].id", [2]),
        ("$.a[?(@.id > 1 && @.t)].id", [2]),
        ("$.a[0,1].id", [1, 2]),
        ("$.a[-1:].id", [2]),
        ("$.a[?length(@.t) > 1].id", [2]),
        ("$.b.id | $.a[0:1].id", [3, 1]),
        ("$.a[?@.id == $.b.id]", []),
    ],
)
def test_mapping_with_filters_selects_values(mapping: str, found: Any) -> None:
    value = {"a": [{"id": 1, "t": "x"}, {"id": 2, "t": "y,*?.."}], "b": {"id": 3}}
    assert map_output(Output(mapping), value) == found


def test_mapping_over_a_large_list_with_a_long_name_takes_bounded_memory() -> None:
    value = {"k" * 1_000_000: [0] * 20_000}
    tracemalloc.start()
    try:
        assert len(map_output(Output("$..*"), value)) == 20_001
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000
