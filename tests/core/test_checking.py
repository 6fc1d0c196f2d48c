from typing import Any

import pytest

from mcp_taskruns.core.checking import check_capability, check_schemas
from mcp_taskruns.core.compiler import compile_tools
from mcp_taskruns.core.spec import parse_capability

from . import Json, document, inputs, tool_of


def warnings(given: Json) -> list[str]:
    capability = parse_capability(given, "things-api.yaml")
    return list(check_capability(capability, compile_tools([capability])))


def test_a_sound_capability_has_no_warnings() -> None:
    assert warnings(document()) == []


def changed(**changes: Any) -> Json:
    return document() | changes


IMPORTING = document()
IMPORTING["capability"]["consumes"][0]["import"] = "other.yaml"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            changed(naftiko="2.0.0"),
            ["naftiko: version 2.0.0 is not known here; known are 1.0.0-alpha1, 1.0.0-alpha2"],
        ),
        (changed(skills=[]), ["skills: this key is not known and is ignored"]),
        (changed(capability={}), ["capability.exposes: no MCP tools"]),
        (
            IMPORTING,
            ["capability.consumes: import 'other.yaml' is not supported"],
        ),
        (document(baseUri=""), ["capability.consumes: no usable baseUri: set THING_BASE_URL"]),
        (document(baseUri="https://{region}.example"), ["capability.consumes: no usable baseUri: set THING_BASE_URL"]),
        (
            document(authentication={"type": "oauth1"}, baseUri=""),
            ["tool thing-do-it: things-api.yaml authenticates by oauth1, which this server cannot do"],
        ),
        (
            document(tool={"call": "things.other"}),
            ["tool thing-do-it: things-api.yaml calls 'things.other', which none of its consumes declares"],
        ),
        (
            document(inputs({"name": "id", "in": "path"}, {"name": "part", "in": "path"}), path="/{id}"),
            ["tool thing-do-it: the path has no place for the path parameter part: it is not sent"],
        ),
        (
            document(inputs({"name": "id", "in": "path", "value": "7"})),
            ["tool thing-do-it: the path has no place for the path parameter id: it is not sent"],
        ),
        (document(inputs({"name": "id", "in": "path"}), path="/{id}/{other}/{{THING_KEY}}"), []),
        (document(inputParameters=[{"name": "id", "in": "path"}]), []),
        (
            document(authentication={"type": "bearer"}),
            ["tool thing-do-it: things-api.yaml authenticates by bearer and does not say with what"],
        ),
        (document({"method": "patch"}), []),
        (document({"method": "FETCH"}), ["tool thing-do-it: FETCH is no HTTP method of this format"]),
        (
            document(authentication={"type": "basic", "username": "{{MY_NAME}}", "password": "{{env.MY_PASSWORD}}"}),
            ["binds: MY_NAME is used and not declared", "binds: MY_PASSWORD is used and not declared"],
        ),
        (
            document(inputs({"name": "X-A", "in": "header", "value": "{{MY_TOKEN}} {{THING_KEY}}"})),
            ["binds: MY_TOKEN is used and not declared"],
        ),
        (
            document(authentication={"type": "basic", "username": "{{KEY}}", "password": "{{FIRST_KEY}}"})
            | {"binds": [{"keys": {"KEY": ["FIRST_KEY", "SECOND_KEY"]}}]},
            [],
        ),
        (document(tool={"description": "x" * 2_048}), []),
        (
            document(tool={"description": "x" * 2_049}),
            ["tool thing-do-it: the description has more than 2,048 characters"],
        ),
    ],
)
def test_an_author_is_warned(given: Json, told: list[str]) -> None:
    assert warnings(given) == told


def test_an_unusable_address_is_told_once_for_all_tools() -> None:
    given = document(baseUri="")
    given["capability"]["exposes"][0]["tools"].append({"name": "again", "call": "things.op"})
    assert warnings(given) == ["capability.consumes: no usable baseUri: set THING_BASE_URL"]


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({}, []),
        ({"type": "string", "enum": ["a"]}, []),
        ({"$ref": "#"}, []),
        (
            {"items": {"type": "text"}},
            ["its schema is not valid: $.properties.a.items.type: 'text' is not valid under"],
        ),
        ({"pattern": 5}, ["its schema is not valid: $.properties.a.pattern: 5 is not of type 'string'"]),
        (
            {"$ref": "https://schemas.example/a.json"},
            ["its schema refers to https://schemas.example/a.json: only references within it can be followed"],
        ),
        (
            {"anyOf": [{"$ref": "other.json"}, {"items": {"$ref": "#"}}], "$ref": "#"},
            ["its schema refers to other.json: only references within it can be followed"],
        ),
        ({"properties": {"$ref": {"type": "string"}}}, []),
        (
            {"minimum": "a", "$ref": "other.json"},
            [
                "its schema is not valid: $.properties.a.minimum: 'a' is not of type 'number'",
                "its schema refers to other.json: only references within it can be followed",
            ],
        ),
    ],
)
def test_an_author_is_told_of_a_schema_that_cannot_be_used(schema: Json, told: list[str]) -> None:
    tool = tool_of(inputs({"name": "a", "in": "body", "schema": schema}, method="POST"))
    found = list(check_schemas([tool]))
    assert len(found) == len(told)
    assert [line[: len(f"tool thing-do-it: {start}")] for line, start in zip(found, told, strict=True)] == [
        f"tool thing-do-it: {start}" for start in told
    ]
