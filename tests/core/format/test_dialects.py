"""Both dialects of capability files are read as one."""

from copy import deepcopy
from typing import Any

import pytest

from mcp_taskruns.core.format.compiler import compile_tools
from mcp_taskruns.core.format.dialects import unify
from mcp_taskruns.core.format.overlay import apply_overlay
from mcp_taskruns.core.format.spec import parse_capability, unknown_keys
from tests.core.documents import Json

LISTED: Json = {
    "naftiko": "1.0.0-alpha2",
    "binds": [{"namespace": "env", "keys": {"K": "K"}}, {"namespace": "other"}],
    "capability": {
        "consumes": [
            {
                "namespace": "things",
                "baseUri": "https://api.example",
                "inputParameters": [{"name": "X-V", "in": "header"}],
                "resources": [
                    {
                        "name": "one",
                        "path": "/one",
                        "inputParameters": [{"name": "r", "in": "query"}],
                        "operations": [
                            {
                                "name": "get",
                                "method": "GET",
                                "inputParameters": [{"name": "q", "type": "string"}, {"name": "bare"}],
                                "outputParameters": [{"name": "id", "value": "$.id"}],
                            }
                        ],
                    }
                ],
            }
        ],
        "exposes": [
            {
                "namespace": "m",
                "type": "mcp",
                "tools": [
                    {
                        "name": "do",
                        "call": "things.get",
                        "with": {"q": "tools.q"},
                        "inputParameters": [{"name": "q", "description": "What."}],
                        "outputParameters": [{"name": "id", "mapping": "$.id"}],
                    }
                ],
            },
            {
                "namespace": "r",
                "type": "rest",
                "resources": [
                    {
                        "name": "/v1/one",
                        "path": "/v1/one",
                        "operations": [
                            {"name": "get-one", "method": "GET", "outputParameters": [{"name": "id", "mapping": "$"}]}
                        ],
                    }
                ],
            },
        ],
    },
}

KEYED: Json = {
    "ikanos": "1.0.0-alpha2",
    "binds": {"env": {"keys": {"K": "K"}}, "other": None},
    "capability": {
        "consumes": {
            "things": {
                "baseUri": "https://api.example",
                "inputParameters": {"X-V": {"in": "header"}},
                "resources": {
                    "one": {
                        "path": "/one",
                        "inputParameters": {"r": {"in": "query"}},
                        "operations": {
                            "get": {
                                "method": "GET",
                                "inputParameters": {"q": {"type": "string"}, "bare": None},
                                "outputParameters": {"id": {"value": "$.id"}},
                            }
                        },
                    }
                },
            }
        },
        "exposes": {
            "m": {
                "type": "mcp",
                "tools": {
                    "do": {
                        "call": "things.get",
                        "with": {"q": "tools.q"},
                        "inputParameters": {"q": {"description": "What."}},
                        "outputParameters": {"id": {"mapping": "$.id"}},
                    }
                },
            },
            "r": {
                "type": "rest",
                "resources": {
                    "/v1/one": {
                        "operations": {"get-one": {"method": "GET", "outputParameters": {"id": {"mapping": "$"}}}}
                    }
                },
            },
        },
    },
}


@pytest.mark.parametrize("written", [LISTED, KEYED], ids=["lists", "mappings"])
def test_every_named_list_may_be_a_mapping(written: Json) -> None:
    before = deepcopy(written)
    assert unify(written) == LISTED
    assert written == before


def test_both_dialects_compile_to_the_same_tools() -> None:
    listed, keyed = (parse_capability(written, "f.yaml") for written in (LISTED, KEYED))
    assert keyed == listed
    assert list(unknown_keys(keyed)) == []
    assert compile_tools([keyed]) == compile_tools([listed])


@pytest.mark.parametrize(
    ("written", "unified"),
    [
        ({}, {}),
        ({"ikanos": "1"}, {"naftiko": "1"}),
        ({"info": {"display": "Things"}}, {"info": {"label": "Things"}}),
        (
            {"capability": {"consumes": [{"auth": {"type": "none"}}]}},
            {"capability": {"consumes": [{"authentication": {"type": "none"}}]}},
        ),
        (
            {"capability": {"exposes": [{"tools": {"do": {"display": "Do it"}}}]}},
            {"capability": {"exposes": [{"tools": [{"name": "do", "label": "Do it"}]}]}},
        ),
    ],
)
def test_synonyms_are_replaced(written: Json, unified: Json) -> None:
    assert unify(written) == unified


@pytest.mark.parametrize("first", ["auth", "authentication"])
def test_synonym_beside_its_keyword_is_an_unknown_key(first: str) -> None:
    words = {"auth": "b", "authentication": "a"}
    part = {first: words[first], **words}
    unified = {"capability": {"consumes": [words]}}
    assert unify({"capability": {"consumes": [part]}}) == unified


@pytest.mark.parametrize(
    "part",
    [
        {"with": {"auth": "tools.auth", "display": "tools.display"}},
        {"with": {"tools": {"a": {"b": 1}}, "operations": {"a": None}}},
        {"hints": {"auth": True}},
        {"inputParameters": [{"name": "q", "schema": {"properties": {"auth": None, "tools": {"a": {}}}}}]},
        {"inputParameters": [{"name": "body", "value": {"ikanos": 1, "display": {"inputParameters": {"a": {}}}}}]},
    ],
)
def test_synonyms_in_opaque_values_are_unchanged(part: Json) -> None:
    document = {"capability": {"exposes": [{"tools": [{"name": "do", **part}]}]}}
    assert unify(document) == document


@pytest.mark.parametrize(
    "document",
    [
        {"info": []},
        {"capability": "none", "info": "none"},
        {"capability": [{"consumes": {"a": {}}}]},
        {"binds": "env"},
        {"capability": {"consumes": 5, "exposes": "mcp"}},
        {"capability": {"consumes": [5, "text", ["list"]]}},
    ],
    ids=repr,
)
def test_values_of_a_wrong_type_are_unchanged(document: Json) -> None:
    assert unify(document) == document


def test_item_of_a_wrong_type_is_unchanged() -> None:
    written = {"capability": {"consumes": {"a": "text", "b": 5, "c": {"type": "http"}}}}
    assert unify(written) == {"capability": {"consumes": ["text", 5, {"namespace": "c", "type": "http"}]}}


def resources_of(document: Json) -> Any:
    return document["capability"]["consumes"][0]["resources"]


@pytest.mark.parametrize(
    ("written", "unified"),
    [
        ({"/things": {}}, [{"name": "/things", "path": "/things"}]),
        ({"/things": None}, [{"name": "/things", "path": "/things"}]),
        ({"/things": {"path": "/other"}}, [{"name": "/things", "path": "/other"}]),
        ({"/things": {"name": "own"}}, [{"name": "own", "path": "/things"}]),
        ({"things": {}}, [{"name": "things"}]),
        ({5: {}}, [{"name": 5}]),
    ],
)
def test_key_of_a_resource_is_its_name_and_may_be_its_path(written: Any, unified: Any) -> None:
    assert resources_of(unify({"capability": {"consumes": [{"resources": written}]}})) == unified


NULLS: Json = {
    "info": None,
    "prefix": None,
    "capability": {"consumes": [{"namespace": "things", "auth": None, "resources": None}], "exposes": None},
}


def test_key_without_a_value_is_dropped() -> None:
    assert unify(NULLS) == {"capability": {"consumes": [{"namespace": "things"}]}}


def test_null_does_not_hide_the_other_spelling() -> None:
    part = {"authentication": None, "auth": {"type": "bearer"}}
    unified = {"authentication": {"type": "bearer"}}
    assert unify({"capability": {"consumes": [part]}}) == {"capability": {"consumes": [unified]}}


@pytest.mark.parametrize("base", [LISTED, KEYED], ids=["lists", "mappings"])
def test_overlay_is_merged_into_either_dialect(base: Json) -> None:
    consumes = {"things": {"operations": {"get": {"safe_to_retry": False}}}}
    merged = apply_overlay(base, {"overlay": 2, "capability": {"consumes": consumes}}, "overlays/f.yaml")
    expected = deepcopy(LISTED)
    resources_of(expected)[0]["operations"][0]["safe_to_retry"] = False
    assert merged == expected


@pytest.mark.parametrize("spelling", ["auth", "authentication"])
def test_overlay_deletes_a_key_in_its_other_spelling(spelling: str) -> None:
    base = {"capability": {"consumes": [{"namespace": "a", spelling: {"type": "bearer"}}]}}
    overlay = {"overlay": 2, "capability": {"consumes": {"a": {"authentication": None}}}}
    assert apply_overlay(base, overlay, "overlays/f.yaml") == {"capability": {"consumes": [{"namespace": "a"}]}}
