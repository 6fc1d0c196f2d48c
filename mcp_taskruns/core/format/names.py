"""Names of tools: legal everywhere, distinct, and the same whatever else is served."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mcp_taskruns.core.format import spec
from mcp_taskruns.core.model.operation import Operation
from mcp_taskruns.core.model.tool import Tool

MAX_NAME = 64
"""One longer name hides every tool of the server in some clients; the same holds for other characters."""


def prefix_of(capability: spec.Capability) -> str:
    """What the names of a capability's tools begin with: the overlay's word, else its first tag, else its file."""
    first_tag = capability.info.tags[0] if capability.info.tags else ""
    return capability.prefix or slug(first_tag) or slug(file_of(capability.source).rsplit(".", 1)[0]) or "capability"


def legal_name(name: str) -> str:
    """`name` as every client accepts it: letters, digits, `_` and `-`, at most 64; cut names keep a digest."""
    legal = re.sub(r"[^a-zA-Z0-9_-]+", "-", name).strip("-") or "tool"
    if len(legal) <= MAX_NAME:
        return legal
    digest = hashlib.sha256(legal.encode()).hexdigest()[:8]
    return f"{legal[: MAX_NAME - 9]}-{digest}"


def base_uri_variable(prefix: str) -> str:
    """The environment variable that points a capability elsewhere: `RENDER_BASE_URL`."""
    return re.sub(r"[^A-Z0-9]+", "_", prefix.upper()) + "_BASE_URL"


def title_of(name: str) -> str:
    """A tool's name as a title, for one that has no label."""
    return name.replace("-", " ").replace("_", " ").strip().capitalize()


def list_by_spec_names(tools: Sequence[Tool]) -> list[Tool]:
    """Tools under their files' own names where those are unique, also where descriptions speak of them."""
    counts = Counter(tool.declared_name for tool in tools)
    listed = {tool.name: legal_name(tool.declared_name) for tool in tools if counts[tool.declared_name] == 1}
    return [
        replace(
            tool,
            name=listed.get(tool.name, tool.name),
            description=renamed(tool.description, listed),
            input_schema=_renamed_schema(tool.input_schema, listed),
            operation=_renamed_in(tool.operation, listed),
        )
        for tool in tools
    ]


def _renamed_schema(schema: Any, names: Mapping[str, str]) -> Any:
    if isinstance(schema, Mapping):
        return {name: _renamed_schema(part, names) for name, part in schema.items()}
    if isinstance(schema, list):
        return [_renamed_schema(part, names) for part in schema]
    return renamed(schema, names) if isinstance(schema, str) else schema


def _renamed_in(operation: Operation, listed: Mapping[str, str]) -> Operation:
    rules = tuple(replace(rule, hint=renamed(rule.hint, listed)) for rule in operation.errors)
    upload = operation.upload and replace(operation.upload, hint=renamed(operation.upload.hint, listed))
    remarks = tuple((when, renamed(says, listed)) for when, says in operation.notes)
    return replace(operation, errors=rules, upload=upload, notes=remarks)


def renamed(text: str, names: Mapping[str, str]) -> str:
    """Text that speaks of other tools by the names under which they are listed."""
    return re.sub(r"[a-zA-Z0-9_-]+", lambda word: names.get(word.group(), word.group()), text)


def distinct(groups: Sequence[Sequence[Tool]], sources: Sequence[str]) -> list[list[Tool]]:
    """The groups of tools, one of each source, with no two of one name.

    In one file the later of two is numbered. Among files the later one's is marked with its file, so that no other name
    changes with it.
    """
    taken: set[str] = set()
    named: list[list[Tool]] = []
    for group, source in zip(groups, sources, strict=True):
        mark = hashlib.sha256(file_of(source).encode()).hexdigest()[:6]
        others = frozenset(taken)
        named.append([_named(tool, others, taken, mark) for tool in group])
    return named


def _named(tool: Tool, others: frozenset[str], taken: set[str], mark: str) -> Tool:
    name = tool.name if tool.name not in others else _ending(tool.name, f"-{mark}")
    number = 1
    while name in taken:
        number += 1
        name = _ending(tool.name, f"-{number}" if tool.name not in others else f"-{mark}-{number}")
    taken.add(name)
    return tool if name == tool.name else replace(tool, name=name)


def distinct_names(names: Sequence[str]) -> list[str]:
    """The names with the later of two numbered."""
    taken: set[str] = set()
    told: list[str] = []
    for name in names:
        number, shown = 1, name
        while shown in taken:
            number += 1
            shown = _ending(name, f"-{number}")
        taken.add(shown)
        told.append(shown)
    return told


def _ending(name: str, ending: str) -> str:
    return name[: MAX_NAME - len(ending)] + ending


def file_of(source: str) -> str:
    """The capability file's name, of a source that may name its overlay too."""
    return source.partition(" with overlays/")[0]


def slug(text: str) -> str:
    """Text in lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
