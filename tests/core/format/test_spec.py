from typing import Any

import pytest

from mcp_taskruns.core.format.spec import Capability, parse_capability, unknown_keys
from mcp_taskruns.errors import CapabilityError
from tests.core.documents import Json, document


def with_naftiko(**more: Any) -> Json:
    return {"naftiko": "1.0.0-alpha2", **more}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "f.yaml: must be a mapping, not a list"),
        ("naftiko", "f.yaml: must be a mapping, not a str"),
        (None, "f.yaml: must be a mapping, not a NoneType"),
        ({}, "f.yaml: naftiko: the format's version is missing; is this a capability file?"),
        (with_naftiko(info=[]), "f.yaml: info: must be a mapping"),
        (
            with_naftiko(capability={"consumes": [{"baseUri": 5}]}),
            "f.yaml: capability.consumes[0].baseUri: must be text",
        ),
        (
            with_naftiko(capability={"consumes": [{}, {"resources": [{"operations": [{}]}]}]}),
            "f.yaml: capability.consumes[1].resources[0].operations[0].name: is missing",
        ),
        (with_naftiko(capability={"exposes": [{}]}), "f.yaml: capability.exposes[0].type: is missing"),
        (
            with_naftiko(capability={"consumes": {"a": "text"}}),
            "f.yaml: capability.consumes[0]: must be a mapping",
        ),
        (
            with_naftiko(binds=[{"keys": 5}]),
            "f.yaml: binds[0].keys: must be a mapping",
        ),
        (with_naftiko(binds=[{"keys": [5]}]), "f.yaml: binds[0].keys: must have a name in each item"),
        (with_naftiko(binds=[{"keys": [{"key": "A"}]}]), "f.yaml: binds[0].keys: must have a name in each item"),
        (with_naftiko(binds=5), "f.yaml: binds: must be a list, or a mapping keyed by name"),
        (
            with_naftiko(capability={"consumes": [{"inputParameters": [{"name": "a", "required": "odd"}]}]}),
            "f.yaml: capability.consumes[0].inputParameters[0].required: must be true or false",
        ),
        (
            with_naftiko(capability={"consumes": [{"inputParameters": [{"name": "a", "required": []}]}]}),
            "f.yaml: capability.consumes[0].inputParameters[0].required: must be true or false",
        ),
        (
            with_naftiko(capability={"consumes": [{"max_concurrent_requests": "many"}]}),
            "f.yaml: capability.consumes[0].max_concurrent_requests: must be an integer",
        ),
        (
            with_naftiko(capability={"consumes": [{"max_concurrent_requests": []}]}),
            "f.yaml: capability.consumes[0].max_concurrent_requests: must be an integer",
        ),
        (
            with_naftiko(capability={"consumes": [{"rate_limits": [{"requests": 1, "per_seconds": {}}]}]}),
            "f.yaml: capability.consumes[0].rate_limits[0].per_seconds: must be a number",
        ),
        (
            with_naftiko(capability={"consumes": [{"max_concurrent_requests": 0}]}),
            "f.yaml: capability.consumes[0].max_concurrent_requests: must be greater than 0",
        ),
        (
            with_naftiko(capability={"consumes": [{"authentication": ["bearer"]}]}),
            "f.yaml: capability.consumes[0].authentication: must be a mapping, or a list of mappings",
        ),
        (with_naftiko(info={"tags": "Thing"}), "f.yaml: info.tags: must be a list, or a mapping keyed by name"),
    ],
)
def test_invalid_value_is_rejected_with_its_place(given: Any, message: str) -> None:
    with pytest.raises(CapabilityError) as caught:
        parse_capability(given, "f.yaml")
    assert str(caught.value) == message


def test_minimal_capability_has_a_version_only() -> None:
    assert parse_capability({"naftiko": 1}, "f.yaml") == Capability(source="f.yaml", naftiko="1")


@pytest.mark.parametrize(("written", "read"), [("KEY", ("KEY",)), (["A", "B"], ("A", "B"))])
def test_bind_key_has_one_or_several_variables(written: Any, read: tuple[str, ...]) -> None:
    capability = parse_capability(with_naftiko(binds=[{"keys": {"KEY": written}}]), "f.yaml")
    assert (capability.binds[0].namespace, capability.binds[0].keys) == ("env", {"KEY": read})


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["A", "B"], {"A": ("A",), "B": ("B",)}),
        ([{"name": "A"}, "B"], {"A": ("A",), "B": ("B",)}),
        ({"A": None, "B": "C"}, {"A": ("A",), "B": ("C",)}),
        ({}, {}),
        (None, {}),
    ],
)
def test_bind_key_without_source_is_its_own_variable(written: Any, read: dict[str, Any]) -> None:
    assert parse_capability(with_naftiko(binds=[{"keys": written}]), "f.yaml").binds[0].keys == read


@pytest.mark.parametrize(
    ("written", "read"), [("string", "string"), (["string", "null"], ("string", "null")), ([], ()), (None, None)]
)
def test_type_is_a_name_or_a_list(written: Any, read: Any) -> None:
    given = document({"inputParameters": [{"name": "a", "type": written}]})
    (consumed,) = parse_capability(given, "f.yaml").capability.consumes
    assert consumed.resources[0].operations[0].input_parameters[0].type == read


def test_empty_tag_is_dropped() -> None:
    assert parse_capability(with_naftiko(info={"tags": [None, "a", None]}), "f.yaml").info.tags == ("a",)


@pytest.mark.parametrize("part", ["info", "binds", "capability"])
def test_part_without_a_value_is_absent(part: str) -> None:
    assert parse_capability(with_naftiko(**{part: None}), "f.yaml") == parse_capability(with_naftiko(), "f.yaml")


def test_numbers_are_accepted_as_text() -> None:
    capability = parse_capability(with_naftiko(info={"label": 12, "tags": [1.5, "b"]}), "f.yaml")
    assert (capability.info.label, capability.info.tags) == ("12", ("1.5", "b"))


def test_file_cannot_set_its_source() -> None:
    assert parse_capability(with_naftiko(source="other.yaml"), "f.yaml").source == "f.yaml"


def test_known_keys_are_not_reported() -> None:
    given = document({"inputParameters": [{"name": "a", "in": "query"}], "body": {"type": "json", "data": {}}})
    assert list(unknown_keys(parse_capability(given, "f.yaml"))) == []


def test_unknown_keys_are_found_at_every_depth() -> None:
    given = document({"inputParameters": [{"name": "a", "colour": "red"}], "retries": 3})
    given["steps"] = []
    given["capability"]["aggregates"] = []
    given["capability"]["exposes"][0]["tools"][0]["hints"] = {"readonly": True}
    given["capability"]["consumes"][0]["baseUrl"] = "https://api.example"
    assert list(unknown_keys(parse_capability(given, "f.yaml"))) == [
        "steps",
        "capability.aggregates",
        "capability.consumes[0].baseUrl",
        "capability.consumes[0].resources[0].operations[0].retries",
        "capability.consumes[0].resources[0].operations[0].inputParameters[0].colour",
        "capability.exposes[0].tools[0].hints.readonly",
    ]


@pytest.mark.parametrize("key", ["authentication", "auth"])
def test_auth_is_a_synonym_of_authentication(key: str) -> None:
    given = document()
    given["capability"]["consumes"][0][key] = {"type": "bearer"}
    capability = parse_capability(given, "f.yaml")
    assert capability.capability.consumes[0].authentication == {"type": "bearer"}
    assert list(unknown_keys(capability)) == []


def test_auth_beside_authentication_is_an_unknown_key() -> None:
    capability = parse_capability(document(authentication={"type": "basic"}, auth={"type": "bearer"}), "f.yaml")
    assert capability.capability.consumes[0].authentication == {"type": "basic"}
    assert list(unknown_keys(capability)) == ["capability.consumes[0].auth"]
