from typing import Any

import pytest

from mcp_taskruns.core.checking import check_capability
from mcp_taskruns.core.compiler import compile_tools
from mcp_taskruns.core.spec import parse_capability

from . import Json, document


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
