"""Checks of listed tools: their snapshots, and what models and clients need of every tool.

`UPDATE_TOOLSNAPS=1` updates the snapshots instead of comparing them.
"""

import json
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

Json = dict[str, Any]

IS_UPDATE = os.environ.get("UPDATE_TOOLSNAPS") == "1"


def check_snapshot(snap: Path, listed: Json) -> None:
    """Compare a listed tool with its snapshot, or update that."""
    text = json.dumps(listed, indent=2, ensure_ascii=False) + "\n"
    if IS_UPDATE:
        snap.parent.mkdir(parents=True, exist_ok=True)
        snap.write_text(text, encoding="utf-8")
    assert snap.is_file(), f"{snap.stem} is new; run UPDATE_TOOLSNAPS=1 pytest"
    assert text == snap.read_text(encoding="utf-8"), "if this is intended, run UPDATE_TOOLSNAPS=1 pytest"


def check_no_snapshot_is_left(folder: Path, names: Collection[str]) -> None:
    """Check that each snapshot in a folder belongs to one of these tools, or remove the others."""
    left = {path.stem for path in folder.glob("*")} - set(names)
    if IS_UPDATE:
        for name in left:
            (folder / f"{name}.json").unlink()
        left = set()
    assert left == set(), "if this is intended, run UPDATE_TOOLSNAPS=1 pytest"


def sentences(text: str) -> list[str]:
    """Return the sentences of a text; the full stop of an abbreviation does not end one."""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", re.sub(r"\b(e\.g|i\.e|etc)\.", r"\1", text))


def check_description(listed: Json) -> None:
    """Check that the description has at most three sentences and 400 characters, and names the provider at once.

    Models choose between tools of several providers by the first words.
    """
    description = listed["description"]
    assert listed["title"].partition(": ")[0] in " ".join(description.split()[:5])
    assert description == " ".join(description.split())
    assert description.endswith(".")
    assert len(description) <= 400
    assert len(sentences(description)) <= 3


def check_named_tools(listed: Json, names: Collection[str], prefixes: Collection[str]) -> None:
    """Check that the description names only existing tools, which begin with one of the prefixes."""
    named = re.findall(rf"\b(?:{'|'.join(prefixes)})-[a-z-]+", listed["description"])
    assert set(named) <= set(names) - {listed["name"]}


def check_hints(listed: Json) -> None:
    """Check that the tool has all hints, and that a tool that reads is neither destructive nor unsafe to repeat."""
    hints = listed["annotations"]
    assert {hint: type(value) for hint, value in hints.items()} == {
        "readOnlyHint": bool,
        "destructiveHint": bool,
        "idempotentHint": bool,
        "openWorldHint": bool,
    }
    assert hints["openWorldHint"] is True
    if hints["readOnlyHint"]:
        assert (hints["destructiveHint"], hints["idempotentHint"]) == (False, True)


def check_input_schema(listed: Json) -> None:
    """Check that the input schema is a plain object whose members are described."""
    schema = listed["inputSchema"]
    Draft202012Validator.check_schema(schema)
    assert set(schema) <= {"type", "properties", "required", "additionalProperties"}
    assert (schema["type"], schema["additionalProperties"]) == ("object", False)
    assert set(schema.get("required", [])) <= set(schema["properties"])
    assert [name for name, argument in schema["properties"].items() if not argument.get("description")] == []
    assert [part for part in _parts(schema) if part.get("type") == "array" and "items" not in part] == []


def _parts(schema: Any) -> Iterator[Json]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from _parts(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _parts(value)
