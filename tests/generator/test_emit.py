"""YAML with comments."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mcp_taskruns.generator.emit import Comment, Flow, mark, scalar, to_yaml
from mcp_taskruns.loading.yaml import read_document

LONG = "word " * 40

TEXTS = [
    *(
        "plain",
        "two words",
        "https://a.example/v1",
        "$.items[*]",
        "it's",
        "a: b",
        "#no",
        "no #no",
        "-",
        "",
        " x ",
        "{a}",
    ),
    *(
        "true",
        "No",
        "null",
        "~",
        "1e5",
        "0x1f",
        "1.5",
        "1.0.0-alpha2",
        "2026-01-02",
        "\u00e4\u00f6",
        "\U0001f600",
        "a\nb",
    ),
    *(
        "\u0085",
        "\ud7ff",
        '"quoted"\t\\',
        LONG.strip(),
        LONG,
        f"{LONG}\n",
        f"{LONG} \u0007",
        "x" * 200,
        "x" * 130 + " y",
    ),
]


@pytest.mark.parametrize("value", [*TEXTS, 1, 1.5, True, None, [], {}, Flow(), [1, "a"], [[1], [2]], [{"a": 1}, "b"]])
def test_value_is_read_as_written(tmp_path: Path, value: Any) -> None:
    file = tmp_path / "a.yaml"
    document = {
        "key": value,
        "list": [value, "x"],
        "flow": Flow(a=value, b=[value]),
        "nested": {"deep": [{"a": value}]},
    }
    file.write_text(to_yaml(document), encoding="utf-8", newline="\n")
    assert read_document(file) == document


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_is_quoted_where_necessary(text: str) -> None:
    assert yaml.safe_load(f"- {scalar(text)}") == [text]


def test_comments_precede_the_next_key() -> None:
    document = {Comment("Head"): None, "a": Flow(x=1), mark("look " * 30): None, "b": {mark("inner"): None, "c": ["d"]}}
    lines = to_yaml(document).splitlines()
    assert lines[:2] == ["# Head", "a: {x: 1}"]
    assert lines[2].startswith("# check: look look")
    assert lines[3].startswith("#   look")
    assert lines[4:] == ["b:", "  # check: inner", "  c: [d]"]


def test_mapping_on_one_line_only_if_it_fits() -> None:
    wide = Flow({f"key{n}": Flow(value="x" * 10) for n in range(9)})
    assert to_yaml({"a": wide}).splitlines()[:2] == ["a:", "  key0: {value: xxxxxxxxxx}"]
    assert to_yaml({"a": ["x" * 30] * 5}).splitlines()[:2] == ["a:", f"- {'x' * 30}"]
