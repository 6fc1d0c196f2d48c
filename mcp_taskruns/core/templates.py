"""Text with holes: `{{env.KEY}}` of the environment, `{{tools.x}}` and `{x}` of the caller."""

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from mcp_taskruns.core import spec
from mcp_taskruns.core.operation import ArgumentReference, ConstantTemplate, Template, Variable

PLACEHOLDER = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}|\{\s*([^{}]+?)\s*\}")
"""A hole of a path, which has single braces as well."""

HOLE = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")

_REFERENCE = re.compile(r"^[\w-]+\.(.+)$")


def parse_tree(value: Any, capability: spec.Capability) -> Any:
    """A body template: where a hole is all of a text, its value keeps its JSON type."""
    if isinstance(value, dict):
        return {name: parse_tree(item, capability) for name, item in value.items()}
    if isinstance(value, list):
        return [parse_tree(item, capability) for item in value]
    if not isinstance(value, str):
        return value
    parsed = parse_template(value, HOLE, capability)
    return parsed[0] if len(parsed) == 1 else (parsed or "")


def parse_value(value: Any, capability: spec.Capability) -> Any:
    """A value that is not asked from the caller, with its holes filled from the environment."""
    if isinstance(value, dict):
        return {name: parse_value(item, capability) for name, item in value.items()}
    if isinstance(value, list):
        return [parse_value(item, capability) for item in value]
    return parse_constant(value, capability) if isinstance(value, str) else value


def parse_constant(text: str, capability: spec.Capability) -> ConstantTemplate:
    """Text whose names are variables of the environment, also those that no bind declares."""
    return tuple(
        Variable((hole.name,)) if isinstance(hole, ArgumentReference) else hole
        for hole in parse_template(text, HOLE, capability)
    )


def references_of(tree: Any) -> Iterator[str]:
    """The caller's arguments that a body template names."""
    if isinstance(tree, ArgumentReference):
        yield tree.name
    elif isinstance(tree, dict):
        yield from chain.from_iterable(map(references_of, tree.values()))
    elif isinstance(tree, list | tuple):
        yield from chain.from_iterable(map(references_of, tree))


def parse_template(text: str, holes: re.Pattern[str], capability: spec.Capability) -> Template:
    """Text with its holes: bound names become variables of the environment, other names the caller's arguments."""
    parts: list[str | Variable | ArgumentReference] = []
    end = 0
    for match in holes.finditer(text):
        if match.start() > end:
            parts.append(text[end : match.start()])
        name = match.group(1)
        if name is None:  # in single braces, where a dot is the name's own
            parts.append(ArgumentReference(match.group(2)))
        else:
            parts.append(_bound(name, capability) or ArgumentReference(reference_of(name) or name))
        end = match.end()
    if end < len(text):
        parts.append(text[end:])
    return tuple(parts)


def _bound(name: str, capability: spec.Capability) -> Variable | None:
    keys = [(bind, name.removeprefix(f"{bind.namespace}.")) for bind in capability.binds]
    for bind, key in keys:
        if key in bind.keys:
            return Variable(bind.keys[key])
    # In a bind's namespace, but not among its keys: the name is all we know.
    return next((Variable((key,)) for _, key in keys if key != name), None)


def reference_of(value: Any) -> str | None:
    """The argument that `tools.x`, `rest.x` or `namespace.x` refers to."""
    match = _REFERENCE.match(value) if isinstance(value, str) else None
    return match.group(1) if match else None
