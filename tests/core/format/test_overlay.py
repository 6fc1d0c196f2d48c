"""Merging overlays into capability documents."""

from copy import deepcopy
from typing import Any

import pytest

from mcp_taskruns.core.format.overlay import apply_overlay, overlay_place
from mcp_taskruns.errors import CapabilityError
from tests.core.documents import Json


def consumed(*resources: Json, **keys: Any) -> Json:
    return {"capability": {"consumes": [{"namespace": "things", **keys, "resources": list(resources)}]}}


def changed(**keys: Any) -> Json:
    """Return an overlay of the provider `things`."""
    return {"overlay": 2, "capability": {"consumes": {"things": keys}}}


def exposed(*tools: Json) -> Json:
    return {"capability": {"exposes": [{"namespace": "mcp", "type": "mcp", "tools": list(tools)}]}}


def changed_tools(**tools: Any) -> Json:
    return {"overlay": 2, "capability": {"exposes": {"mcp": {"tools": tools}}}}


GET = {"name": "get", "method": "GET"}
LIST = {"name": "list", "method": "GET"}
ID_IN_PATH = {"name": "id", "in": "path"}
ID_IN_BODY = {"name": "id", "in": "body"}


@pytest.mark.parametrize(
    ("base", "overlay", "merged"),
    [
        pytest.param({"prefix": "a"}, {}, {"prefix": "a"}, id="empty overlay"),
        pytest.param({"prefix": "a"}, {"prefix": "b"}, {"prefix": "b"}, id="values replace"),
        pytest.param(
            {"info": {"label": "a", "created": "b"}},
            {"info": {"label": "c"}},
            {"info": {"label": "c", "created": "b"}},
            id="mappings merge",
        ),
        pytest.param(
            {"info": {"tags": ["a"]}}, {"info": {"tags": ["b"]}}, {"info": {"tags": ["b"]}}, id="lists replace"
        ),
        pytest.param({"prefix": "a", "info": {}}, {"prefix": None}, {"info": {}}, id="null deletes"),
        pytest.param({"info": {"label": "a"}}, {"info": {"label": None}}, {"info": {}}, id="null deletes inside"),
        pytest.param(
            {}, {"info": {"label": None, "created": "b"}}, {"info": {"created": "b"}}, id="null in a new part"
        ),
        pytest.param(
            {"binds": [{"namespace": "env", "keys": {"K": "K"}}]},
            {"binds": {"env": {"keys": {"K": ["L", "K"]}}, "more": {"keys": {"A": "B"}}}},
            {"binds": [{"namespace": "env", "keys": {"K": ["L", "K"]}}, {"namespace": "more", "keys": {"A": "B"}}]},
            id="binds merge by namespace",
        ),
    ],
)
def test_overlay_is_merged_into_the_document(base: Json, overlay: Json, merged: Json) -> None:
    assert apply_overlay(base, {"overlay": 2, **overlay}, "overlays/f.yaml") == merged


@pytest.mark.parametrize(
    ("base", "overlay", "merged"),
    [
        pytest.param(
            consumed({"operations": [GET, LIST]}),
            changed(operations={"list": {"accept": "text/plain"}}),
            consumed({"operations": [GET, LIST | {"accept": "text/plain"}]}),
            id="operation by name",
        ),
        pytest.param(
            consumed({"name": "a", "operations": [GET]}, {"name": "b", "operations": [LIST]}),
            changed(operations={"list": {"method": "POST"}}),
            consumed({"name": "a", "operations": [GET]}, {"name": "b", "operations": [LIST | {"method": "POST"}]}),
            id="operation of any resource",
        ),
        pytest.param(
            consumed({"operations": [GET]}),
            changed(operations={"new": {"method": "POST", "path": "/new", "inputParameters": {"a": {"in": "query"}}}}),
            consumed(
                {"operations": [GET]},
                {
                    "name": "new",
                    "operations": [
                        {
                            "name": "new",
                            "method": "POST",
                            "path": "/new",
                            "inputParameters": [{"name": "a", "in": "query"}],
                        }
                    ],
                },
            ),
            id="new operation",
        ),
        pytest.param(
            consumed({"operations": [GET, LIST]}),
            changed(operations={"get": None, "other": None}),
            consumed({"operations": [LIST]}),
            id="deleted operation",
        ),
        pytest.param(
            consumed(inputParameters=[ID_IN_PATH, ID_IN_BODY]),
            changed(inputParameters={"id": {"in": "body", "type": "string"}}),
            consumed(inputParameters=[ID_IN_PATH, ID_IN_BODY | {"type": "string"}]),
            id="parameter by name and location",
        ),
        pytest.param(
            consumed(inputParameters=[ID_IN_PATH, ID_IN_BODY]),
            changed(inputParameters={"id": {"type": "string"}}),
            consumed(inputParameters=[ID_IN_PATH | {"type": "string"}, ID_IN_BODY]),
            id="first parameter of a name",
        ),
        pytest.param(
            consumed(inputParameters=[ID_IN_PATH]),
            changed(inputParameters={"id": {"in": "query"}}),
            consumed(inputParameters=[ID_IN_PATH, {"name": "id", "in": "query"}]),
            id="new parameter of another location",
        ),
        pytest.param(
            consumed(errors={"a": {"status": 404}}),
            changed(errors={"b": {"status": 401}, "a": {"hint": "Look."}}),
            consumed(errors={"a": {"status": 404, "hint": "Look."}, "b": {"status": 401}}),
            id="error rules by name",
        ),
        pytest.param(
            exposed({"name": "a", "inputParameters": [{"name": "x"}]}),
            changed_tools(a={"inputParameters": {"x": {"type": "string"}}}, b={"call": "things.get"}),
            exposed(
                {"name": "a", "inputParameters": [{"name": "x", "type": "string"}]}, {"name": "b", "call": "things.get"}
            ),
            id="tools by name",
        ),
        pytest.param(
            {"capability": {"exposes": {"mcp": {"tools": {"a": {"call": "things.get"}}}}}},
            changed_tools(a={"label": "A"}),
            {
                "capability": {
                    "exposes": [{"namespace": "mcp", "tools": [{"name": "a", "call": "things.get", "label": "A"}]}]
                }
            },
            id="capability file with mappings",
        ),
        pytest.param(
            {"capability": {"consumes": 5}},
            {"overlay": 2, "capability": {"consumes": {"m": {"baseUri": "https://m.example"}}}},
            {"capability": {"consumes": [{"namespace": "m", "baseUri": "https://m.example"}]}},
            id="new provider",
        ),
    ],
)
def test_capability_of_an_overlay_is_merged_by_name(base: Json, overlay: Json, merged: Json) -> None:
    before = deepcopy((base, overlay))
    assert apply_overlay(base, overlay, "overlays/f.yaml") == merged
    assert (base, overlay) == before


def test_operation_name_that_is_not_unique_is_rejected() -> None:
    base = consumed({"operations": [GET]}, {"operations": [GET]})
    with pytest.raises(CapabilityError) as caught:
        apply_overlay(base, changed(operations={"get": {"accept": "text/plain"}}), "overlays/f.yaml")
    assert str(caught.value) == (
        "overlays/f.yaml: capability.consumes.things.operations.get: the capability file has 2 operations with the "
        "name `get`: make names unique"
    )


@pytest.mark.parametrize(("overlay", "kind"), [([], "list"), ("text", "str"), (None, "NoneType")])
def test_overlay_that_is_not_a_mapping_is_rejected(overlay: Any, kind: str) -> None:
    with pytest.raises(CapabilityError) as caught:
        apply_overlay({}, overlay, "overlays/f.yaml")
    assert str(caught.value) == f"overlays/f.yaml: an overlay must be a mapping, not a {kind}"


@pytest.mark.parametrize("document", [[], "text", None, 5])
def test_document_that_is_not_a_mapping_is_unchanged(document: Any) -> None:
    assert apply_overlay(document, {"overlay": 2, "prefix": "a"}, "overlays/f.yaml") == document


def test_capability_that_is_not_a_mapping_is_unchanged() -> None:
    assert apply_overlay({"capability": 5}, changed(baseUri=""), "overlays/f.yaml") == {"capability": 5}


MISSING = "overlay: the version of the overlay language is missing: write `overlay: 2` on the first line"


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        (
            {"prefix": "a"},
            "overlay: the version of the overlay language is missing: write `overlay: 2` on the first line",
        ),
        ({"overlay": 1}, "overlay: version 1 of the overlay language is not supported: write `overlay: 2`"),
        ({"overlay": "2"}, "overlay: version '2' of the overlay language is not supported: write `overlay: 2`"),
        ({"overlay": True}, "overlay: version True of the overlay language is not supported: write `overlay: 2`"),
        ({"overlay": 2, "prefx": "a"}, "unknown key `prefx`; did you mean `prefix`?"),
        ({"overlay": 2, "zzz": None}, "unknown key `zzz`"),
        ({"overlay": 2, "prefix": ["a"]}, "prefix: must be text"),
        ({"overlay": 2, "capability": {"consumes": []}}, "capability.consumes: must be a mapping"),
        (
            changed(operations={"get": {"timeout": 5}}),
            "capability.consumes.things.operations.get: unknown key `timeout`; did you mean `timeout_seconds`?",
        ),
        (changed(resources={}), "capability.consumes.things: unknown key `resources`"),
        (changed(errors=[{"status": 404}]), "capability.consumes.things.errors: must be a mapping"),
        (
            changed(operations={"get": {"paging": {"default_page_size": 5, "total": {"heder": "X-Total"}}}}),
            "capability.consumes.things.operations.get.paging.total: unknown key `heder`; did you mean `header`?",
        ),
        (changed(inputParameters=[ID_IN_PATH]), "capability.consumes.things.inputParameters: must be a mapping"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_overlay_is_rejected_with_its_place(overlay: Json, message: str) -> None:
    with pytest.raises(CapabilityError) as caught:
        apply_overlay(consumed(), overlay, "overlays/f.yaml")
    place, _, reason = str(caught.value).partition("overlays/f.yaml: ")
    assert (place, reason) == ("", message)


def test_null_is_accepted_for_every_keyword() -> None:
    overlay = changed(runs=None, errors=None, operations={"get": None})
    assert apply_overlay(consumed({"operations": [GET]}, runs={}), overlay, "overlays/f.yaml") == consumed(
        {"operations": []}
    )


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (("prefix",), ("prefix",)),
        (("binds", 0, "keys"), ("binds", "env", "keys")),
        (("capability", "consumes", 0, "baseUri"), ("capability", "consumes", "things", "baseUri")),
        (
            ("capability", "consumes", 0, "resources", 0, "operations", 0, "method"),
            ("capability", "consumes", "things", "operations", "get", "method"),
        ),
        (("capability", "consumes", 0, "resources", 0, "path"), ("capability", "consumes", "things", "path")),
        (("capability", "consumes", 3, "path"), ("capability", "consumes", 3, "path")),
        (("info", "tags", 0), ("info", "tags", 0)),
    ],
)
def test_place_in_the_overlay_has_names_instead_of_indexes(place: Any, expected: Any) -> None:
    document = {
        "binds": [{"namespace": "env"}],
        "info": {"tags": ["a"]},
        **consumed({"name": "r", "operations": [GET]}),
    }
    assert overlay_place(document, place) == expected
