"""Names of tools: accepted by all clients, unique, and independent of what else is served."""

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
"""The length limit of names: a single longer name, or one with other characters, hides all tools in some clients."""


def prefix_of(capability: spec.Capability) -> str:
    """Return the prefix of a capability's tools: that of the overlay, else its first tag, else its file name."""
    first_tag = capability.info.tags[0] if capability.info.tags else ""
    return capability.prefix or slug(first_tag) or slug(file_of(capability.source).rsplit(".", 1)[0]) or "capability"


def legal_name(name: str) -> str:
    """Return a name that every client accepts: letters, digits, `_` and `-`, at most 64 of them.

    A name that is too long is truncated and ends with a digest of the whole.
    """
    legal = re.sub(r"[^a-zA-Z0-9_-]+", "-", name).strip("-") or "tool"
    if len(legal) <= MAX_NAME:
        return legal
    digest = hashlib.sha256(legal.encode()).hexdigest()[:8]
    return f"{legal[: MAX_NAME - 9]}-{digest}"


def base_uri_variable(prefix: str) -> str:
    """Return the environment variable that sets the base URI: `THING_BASE_URL`."""
    return re.sub(r"[^A-Z0-9]+", "_", prefix.upper()) + "_BASE_URL"


def title_of(name: str) -> str:
    """Return a title for a tool without a label."""
    return name.replace("-", " ").replace("_", " ").strip().capitalize()


def list_by_declared_names(tools: Sequence[Tool]) -> list[Tool]:
    """Return the tools under their names in the capability files where those are unique, also in descriptions."""
    counts = Counter(tool.declared_name for tool in tools)
    names = {tool.name: legal_name(tool.declared_name) for tool in tools if counts[tool.declared_name] == 1}
    return [
        replace(
            tool,
            name=names.get(tool.name, tool.name),
            description=rename_tools(tool.description, names),
            input_schema=_rename_in_schema(tool.input_schema, names),
            operation=_rename_in_operation(tool.operation, names),
        )
        for tool in tools
    ]


def _rename_in_schema(schema: Any, names: Mapping[str, str]) -> Any:
    if isinstance(schema, Mapping):
        return {name: _rename_in_schema(part, names) for name, part in schema.items()}
    if isinstance(schema, list):
        return [_rename_in_schema(part, names) for part in schema]
    return rename_tools(schema, names) if isinstance(schema, str) else schema


def _rename_in_operation(operation: Operation, names: Mapping[str, str]) -> Operation:
    rules = tuple(replace(rule, hint=rename_tools(rule.hint, names)) for rule in operation.errors)
    upload = operation.upload and replace(operation.upload, hint=rename_tools(operation.upload.hint, names))
    notes = tuple((when, rename_tools(text, names)) for when, text in operation.notes)
    return replace(operation, errors=rules, upload=upload, notes=notes)


def rename_tools(text: str, names: Mapping[str, str]) -> str:
    """Replace the names of tools in a text by their listed names."""
    return re.sub(r"[a-zA-Z0-9_-]+", lambda word: names.get(word.group(), word.group()), text)


def make_unique(groups: Sequence[Sequence[Tool]], sources: Sequence[str]) -> list[list[Tool]]:
    """Return the groups of tools, one for each source, with unique names.

    Within a file the later of two tools is numbered. Between files the tool of the later file gets a digest of the
    file's name, so that adding a file changes no other name.
    """
    taken: set[str] = set()
    renamed: list[list[Tool]] = []
    for group, source in zip(groups, sources, strict=True):
        digest = hashlib.sha256(file_of(source).encode()).hexdigest()[:6]
        others = frozenset(taken)
        renamed.append([_with_unique_name(tool, others, taken, digest) for tool in group])
    return renamed


def _with_unique_name(tool: Tool, others: frozenset[str], taken: set[str], digest: str) -> Tool:
    name = tool.name if tool.name not in others else _with_suffix(tool.name, f"-{digest}")
    number = 1
    while name in taken:
        number += 1
        name = _with_suffix(tool.name, f"-{number}" if tool.name not in others else f"-{digest}-{number}")
    taken.add(name)
    return tool if name == tool.name else replace(tool, name=name)


def number_duplicates(names: Sequence[str]) -> list[str]:
    """Return the names, with a number at the later of two equal ones."""
    taken: set[str] = set()
    unique: list[str] = []
    for name in names:
        number, candidate = 1, name
        while candidate in taken:
            number += 1
            candidate = _with_suffix(name, f"-{number}")
        taken.add(candidate)
        unique.append(candidate)
    return unique


def _with_suffix(name: str, suffix: str) -> str:
    return name[: MAX_NAME - len(suffix)] + suffix


def file_of(source: str) -> str:
    """Return the capability file's name, from a source that may name its overlay as well."""
    return source.partition(" with overlays/")[0]


def slug(text: str) -> str:
    """Return a text in lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
