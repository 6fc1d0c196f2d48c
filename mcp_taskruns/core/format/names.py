"""Names of tools: accepted by all clients, unique, and independent of what else is served."""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
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


def prefixed_name(prefix: str, name: str) -> str:
    """Return a name with the provider's prefix, unless it begins with that already."""
    return name if _prefix_pattern(prefix).match(name) else f"{prefix}-{name}"


def without_prefix(prefix: str, name: str) -> str:
    """Return the part of a name after the provider's prefix; the name itself if it does not begin with that."""
    match = _prefix_pattern(prefix).match(name)
    return name[match.end() :] if match else name


@cache
def _prefix_pattern(prefix: str) -> re.Pattern[str]:
    """Return a pattern of the prefix as the first words of a name, in any case and with any separators."""
    words = "[^a-zA-Z0-9]*".join(map(re.escape, re.split("[^a-zA-Z0-9]+", prefix)))
    return re.compile(f"(?i:{words})(?:[^a-zA-Z0-9]+|$|(?=[A-Z]))")


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

    Names are given to one file after the other, so that adding a file changes no name of the files before it. A tool
    whose name another file has gets the namespace of its provider: `acme-users-list`. If that does not distinguish it,
    it gets a digest of its file's name. Within a file the later of two tools is numbered.
    """
    holders: dict[str, Set[str]] = {}  # the names that are taken, each with the namespaces of the file that has it
    renamed: list[list[Tool]] = []
    for group, source in zip(groups, sources, strict=True):
        digest = hashlib.sha256(file_of(source).encode()).hexdigest()[:6]
        namespaces = {tool.operation.namespace for tool in group}
        reserved = holders.keys() | {tool.name for tool in group}
        names = [_name_beside(tool, holders, reserved, digest) for tool in group]
        unique = _number(names, set(holders))
        renamed.append([_with_name(tool, name) for tool, name in zip(group, unique, strict=True)])
        holders |= dict.fromkeys(unique, namespaces)
    return renamed


def _name_beside(tool: Tool, holders: Mapping[str, Set[str]], reserved: Set[str], digest: str) -> tuple[str, str]:
    """Return the name of a tool and its suffix; if another file has the name, one that distinguishes the two."""
    other_namespaces = holders.get(tool.name)
    if other_namespaces is None:
        return tool.name, ""
    namespace = without_prefix(tool.prefix, slug(tool.operation.namespace))
    name = legal_name(f"{tool.prefix}-{namespace}-{without_prefix(tool.prefix, tool.name)}")
    is_distinct = namespace and tool.operation.namespace not in other_namespaces and name not in reserved
    return (name, "") if is_distinct else (tool.name, f"-{digest}")


def _with_name(tool: Tool, name: str) -> Tool:
    return tool if name == tool.name else replace(tool, name=name)


def number_duplicates(names: Sequence[str]) -> list[str]:
    """Return the names, with a number at the later of two equal ones."""
    return _number([(name, "") for name in names], set())


def _number(names: Sequence[tuple[str, str]], taken: set[str]) -> list[str]:
    """Return the names with their suffixes, and with a number where a name is taken; add them to `taken`."""
    unique: list[str] = []
    for name, suffix in names:
        number, candidate = 1, _with_suffix(name, suffix)
        while candidate in taken:
            number += 1
            candidate = _with_suffix(name, f"{suffix}-{number}")
        taken.add(candidate)
        unique.append(candidate)
    return unique


def _with_suffix(name: str, suffix: str) -> str:
    return name[: MAX_NAME - len(suffix)] + suffix


def file_of(source: str) -> str:
    """Return the capability file's name, from a source that may name its overlay as well."""
    return source.partition(" with overlays/")[0]


def suggest_name(written: str, known: Collection[str]) -> str:
    """Return a fix that suggests the most similar of the known names, or an empty string if none is similar."""
    close = get_close_matches(written, list(known), 1, 0.7)
    return f"Did you mean `{close[0]}`?" if close else ""


def slug(text: str) -> str:
    """Return a text in lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
