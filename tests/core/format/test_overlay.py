from copy import deepcopy
from typing import Any

import pytest

from mcp_taskruns.core.format.overlay import apply_overlay
from mcp_taskruns.errors import CapabilityError


@pytest.mark.parametrize(
    ("base", "overlay", "merged"),
    [
        pytest.param({"a": 1}, {}, {"a": 1}, id="nothing"),
        pytest.param({"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}, id="values replace"),
        pytest.param({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}, id="mappings merge"),
        pytest.param({"a": 1, "b": 2}, {"a": None, "x": None}, {"b": 2}, id="null deletes"),
        pytest.param({"a": {"b": 1}}, {"a": {"b": None}}, {"a": {}}, id="null deletes inside"),
        pytest.param({}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}, id="null deletes in what is new"),
        pytest.param({"a": False}, {"a": {"b": 1}}, {"a": {"b": 1}}, id="a mapping replaces a scalar"),
        pytest.param({"a": {"b": 1}}, {"a": [1]}, {"a": [1]}, id="a list replaces a mapping"),
        pytest.param({"a": [1, 2]}, {"a": [3]}, {"a": [3]}, id="a list of scalars replaces"),
        pytest.param(
            {"a": [{"name": "x", "v": 1}, {"name": "y", "v": 2}]},
            {"a": [{"name": "y", "v": 3}, {"name": "z", "v": 4}]},
            {"a": [{"name": "x", "v": 1}, {"name": "y", "v": 3}, {"name": "z", "v": 4}]},
            id="lists merge by name",
        ),
        pytest.param(
            {"a": [{"namespace": "x", "keys": {"K": "K"}}]},
            {"a": [{"namespace": "x", "keys": {"K": ["L", "K"]}}]},
            {"a": [{"namespace": "x", "keys": {"K": ["L", "K"]}}]},
            id="lists merge by namespace",
        ),
        pytest.param(
            {"a": [{"name": "x", "v": 1}, {"name": "x", "v": 2}]},
            {"a": [{"name": "x", "v": 3}]},
            {"a": [{"name": "x", "v": 3}, {"name": "x", "v": 2}]},
            id="the first of a name is refined",
        ),
        pytest.param({"a": [{"name": "x"}]}, {"a": [{"v": 1}]}, {"a": [{"v": 1}]}, id="items without a name replace"),
        pytest.param({"a": ["s"]}, {"a": [{"name": "x"}]}, {"a": ["s", {"name": "x"}]}, id="unnamed items stay"),
        pytest.param(
            {"a": [{"name": "x", "v": 1}]}, {"a": [{"name": ["x"]}]}, {"a": [{"name": ["x"]}]}, id="a list is no name"
        ),
        pytest.param(
            {"a": [{"name": {}}]}, {"a": [{"name": "x"}]}, {"a": [{"name": {}}, {"name": "x"}]}, id="nor is {}"
        ),
        pytest.param(
            {"a": [{"name": 5, "v": 1}]}, {"a": [{"name": 5, "w": 2}]}, {"a": [{"name": 5, "w": 2}]}, id="nor a number"
        ),
    ],
)
def test_an_overlay_is_merged(base: Any, overlay: Any, merged: Any) -> None:
    before = deepcopy((base, overlay))
    assert apply_overlay(base, overlay, "overlays/f.yaml") == merged
    assert (base, overlay) == before


@pytest.mark.parametrize(("overlay", "kind"), [([], "list"), ("text", "str"), (None, "NoneType")])
def test_an_overlay_that_is_no_mapping_is_refused(overlay: Any, kind: str) -> None:
    with pytest.raises(CapabilityError) as caught:
        apply_overlay({}, overlay, "overlays/f.yaml")
    assert str(caught.value) == f"overlays/f.yaml: an overlay is a mapping, this is a {kind}"


@pytest.mark.parametrize("document", [[], "text", None, 5])
def test_what_is_no_capability_stays_what_it_is(document: Any) -> None:
    assert apply_overlay(document, {"a": 1}, "overlays/f.yaml") == document
