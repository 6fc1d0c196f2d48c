"""Mapping of responses by the `outputParameters` of a tool."""

import json
from typing import Any

import pytest

from mcp_taskruns.core.calls.received import HttpResponse
from mcp_taskruns.core.calls.response import CallResult, read_response
from mcp_taskruns.errors import ProviderError
from tests.format.files import tools_of

RESPONSE = {
    "total": 2,
    "odd name": "odd",
    "page": {"size": 50, "next": {"cursor": "c2"}},
    "data": [
        {"id": "a", "owner": {"name": "Ann"}, "parts": [{"number": 1}, {"number": 2}], "secret": 1},
        {"id": "b", "parts": []},
    ],
}


def mapped(
    tool: str, response: Any, status: int = 200, media_type: str = "application/json", file: str = "outputs.yaml"
) -> CallResult:
    body = response if isinstance(response, bytes) else json.dumps(response).encode()
    return read_response(HttpResponse(status, {"content-type": media_type}, body), tools_of(file)[tool].operation)


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ("none", RESPONSE),
        ("consumed-only", RESPONSE),
        ("whole", RESPONSE),
        ("whole-dollar", RESPONSE),
        ("part", RESPONSE["data"]),
        ("deep", "c2"),
        ("index", "b"),
        ("each", ["a", "b"]),
        ("quoted", "odd"),
        ("missing", None),
        (
            "named",
            {
                "count": 2,
                "first": "a",
                "lost": None,
                "source": "outputs",
                "version": 2,
                "everything": RESPONSE,
            },
        ),
        ("named-whole", {"result": RESPONSE}),
        ("object", {"size": 50, "next": "c2", "last": None, "kind": "page"}),
        ("object-of-list", {"count": 2, "next": "c2"}),
        ("nested", {"page": {"next": {"cursor": "c2", "gone": None}}}),
        (
            "items",
            [{"id": "a", "owner": "Ann", "kind": "thing"}, {"id": "b", "owner": None, "kind": "thing"}],
        ),
        ("items-of-list", [{"id": "a"}, {"id": "b"}]),
        (
            "items-in-items",
            {"things": [{"id": "a", "parts": [{"n": 1}, {"n": 2}]}, {"id": "b", "parts": []}]},
        ),
        ("items-of-values", ["a", "b"]),
    ],
)
def test_response_is_mapped_to_outputs(tool: str, expected: Any) -> None:
    outcome = mapped(tool, RESPONSE)
    assert outcome.value == expected
    assert json.loads(outcome.text) == expected
    assert list(outcome.value or {}) == list(expected or {})  # in the order of the file


def test_list_is_mapped_item_by_item() -> None:
    assert mapped("list-at-top", [{"id": 1, "x": 2}, {}]).value == [{"id": 1}, {"id": None}]
    assert mapped("list-at-top", []).value == []


def test_missing_value_is_null() -> None:
    assert mapped("object", {"page": None}).value in (None, {"size": None, "next": None, "last": None, "kind": "page"})
    assert mapped("object-of-list", {"page": "none"}).value == {"count": None, "next": None}
    assert mapped("items", {}).value is None


def test_declared_type_is_not_enforced() -> None:
    assert mapped("whole", [1]).value == [1]
    assert mapped("whole-dollar", {"a": 1}).value == {"a": 1}
    assert mapped("object-of-list", {"total": "many"}).value == {"count": "many", "next": None}


@pytest.mark.parametrize("tool", ["named", "items", "object", "deep"])
def test_response_that_is_not_json_is_unchanged(tool: str) -> None:
    outcome = mapped(tool, b"total: 2", media_type="text/plain")
    assert outcome.text == "total: 2"
    assert mapped(tool, b"\x00\xff", media_type="image/png").data == b"\x00\xff"


@pytest.mark.parametrize("tool", ["named", "items", "object", "deep"])
def test_error_has_the_message_of_the_provider(tool: str) -> None:
    with pytest.raises(ProviderError, match="no such page") as caught:
        mapped(tool, {"message": "no such page"}, 404)
    assert caught.value.kind == "not_found"


@pytest.mark.parametrize("tool", ["named", "items", "object", "deep"])
def test_empty_response_is_a_success(tool: str) -> None:
    outcome = mapped(tool, b"", 204)
    assert (outcome.status, outcome.value) == (204, None)
    assert "204" in outcome.text


def test_keyed_outputs_are_named_outputs() -> None:
    response = {"total": 2, "data": [{"id": 1}, {"id": 2}]}
    assert mapped("list", response, file="keyed-maps.yaml").value == {"ids": [1, 2], "count": 2}


def test_outputs_of_the_original_dialect_are_mapped() -> None:
    ship = {"imo_number": "9", "vessel_name": "Ann", "dimensions": {"loa": 100.5, "draft": 7}}
    assert mapped("get-ship", ship, file="original-dialect.yaml").value == {
        "number": "9",
        "name": "Ann",
        "measures": {"length": 100.5, "width": None},
    }
    assert mapped("list-ships", [ship], file="original-dialect.yaml").value == [{"number": "9", "kind": "ship"}]
