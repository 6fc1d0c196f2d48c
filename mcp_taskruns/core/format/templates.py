"""Text with holes: `{{env.KEY}}` of the environment, `{{tools.x}}` and `{x}` of the caller."""

import json
import re
from collections.abc import Collection, Iterator
from itertools import chain
from typing import Any

from mcp_taskruns.core.format import spec
from mcp_taskruns.core.model.operation import ArgumentReference, ConstantTemplate, Template, Variable

PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}|\{([^{}]*)\}")
"""A hole of a path, which has single braces as well."""

HOLE = re.compile(r"\{\{([^{}]*)\}\}")

_ADAPTERS = frozenset({"tools", "rest", "mcp"})
_EXPANSION = re.compile(r"^[+#./;?&=,!@|]|\*$|:\d+$")
"""What makes a hole one of RFC 6570's higher levels: `{?q,limit}`, `{+path}`, `{id*}`."""

_SHELL = re.compile(r"\$\{\s*([A-Za-z_]\w*)\s*\}")
_CALLERS = re.compile(r"^(?:tools|rest|mcp)\.")
_PLACED = re.compile(r"(?:path|query|header|cookie|body)\.(.+)", re.DOTALL)
_JSON_STRING_OR_HOLE = re.compile(r'"(?:[^"\\]|\\.)*"|\{\{[^{}]*\}\}', re.DOTALL)


class BrokenTemplate(ValueError):
    """A hole that has no end, or no name."""


class Holes:
    """What the holes of one capability's texts mean; `environment` are names that are always the environment's."""

    def __init__(self, capability: spec.Capability, environment: Collection[str] = ()) -> None:
        self._binds = capability.binds
        self._environment = frozenset(environment)
        self._adapters = _ADAPTERS | ({exposed.namespace for exposed in capability.capability.exposes} - {""})

    def reference(self, text: Any) -> str | None:
        """The argument that `tools.x`, `rest.path.x`, `namespace.x`, `$this.namespace.x` or `{{x}}` refers to."""
        if not isinstance(text, str):
            return None
        hole = HOLE.fullmatch(text.strip())
        if hole is not None:
            name = hole.group(1).strip()
            return None if not name or self.bound(name) else self._referred(name) or name
        return self._referred(text)

    def _referred(self, text: str) -> str | None:
        adapter, dot, name = text.removeprefix("$this.").partition(".")
        if not (dot and name and adapter in self._adapters):
            return None
        placed = _PLACED.fullmatch(name) if adapter in _ADAPTERS else None
        return placed.group(1) if placed else name

    def bound(self, name: str) -> Variable | None:
        """The variable of the environment that a name is bound to."""
        if name in self._environment:
            return Variable((name,))
        keys = [(bind, name.removeprefix(f"{bind.namespace}.")) for bind in self._binds]
        for bind, key in keys:
            if key in bind.keys:
                return Variable(bind.keys[key])
        # In a bind's namespace, but not among its keys: the name is all we know.
        keys += [(spec.Bind(), name.removeprefix("env."))]
        return next((Variable((key,)) for _, key in keys if key and key != name), None)

    def template(self, text: str, holes: re.Pattern[str] = HOLE) -> Template:
        """Text with its holes: bound names are the environment's, other names the caller's arguments.

        Raises BrokenTemplate.
        """
        parts: list[str | Variable | ArgumentReference] = []
        end = 0
        for match in holes.finditer(text):
            if match.start() > end:
                parts.append(_literal(text[end : match.start()]))
            double = match.group(1)
            name: str = (match.group(2) if double is None else double).strip()
            if not name:
                raise BrokenTemplate(f"a hole without a name in {_shown(text)}")
            if double is None:  # in single braces, where a dot is the name's own
                parts.append(Variable((name,)) if name in self._environment else ArgumentReference(name))
            else:
                parts.append(self.bound(name) or ArgumentReference(self._referred(name) or name))
            end = match.end()
        if end < len(text):
            parts.append(_literal(text[end:]))
        return tuple(parts)

    def path(self, text: str) -> Template:
        """A path with its placeholders. Raises BrokenTemplate."""
        template = self.template(text, PLACEHOLDER)
        if any(isinstance(part, str) and ("{" in part or "}" in part) for part in template):
            raise BrokenTemplate(f"a brace that has no partner in {_shown(text)}")
        for name in placeholders_of(text):
            if _EXPANSION.search(name):
                raise BrokenTemplate(f"the hole {{{name}}} in {_shown(text)}, which only RFC 6570 has")
        return template

    def tree(self, value: Any, *, references: bool = False) -> Any:
        """A tree of JSON values; where a hole is all of a text, its value keeps its JSON type.

        With `references` a text such as `tools.x` is a reference as well. Raises BrokenTemplate.
        """
        if isinstance(value, dict):
            return {_plain(name): self.tree(item, references=references) for name, item in value.items()}
        if isinstance(value, list):
            return [self.tree(item, references=references) for item in value]
        if not isinstance(value, str):
            return value
        reference = self._referred(value) if references else None
        parsed = (ArgumentReference(reference),) if reference else self.template(value)
        return parsed[0] if len(parsed) == 1 else (parsed or "")

    def json_text(self, text: str) -> Any:
        """The tree of a text that is JSON with holes, also where holes stand without quotes.

        Raises ValueError for a text that is not, BrokenTemplate as well.
        """

        def quoted(match: re.Match[str]) -> str:
            return match.group() if match.group().startswith('"') else json.dumps(match.group())

        try:
            return self.tree(json.loads(_JSON_STRING_OR_HOLE.sub(quoted, text), strict=False))
        except RecursionError as exc:
            raise ValueError("too deep") from exc

    def value(self, value: Any, arguments: Collection[str]) -> Any:
        """A value that stands in the file, with its holes filled by the environment, or by one of the `arguments`.

        Raises BrokenTemplate.
        """
        if isinstance(value, dict):
            return {_plain(name): self.value(item, arguments) for name, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, arguments) for item in value]
        return self._constant(value, arguments) if isinstance(value, str) else value

    def constant(self, text: str) -> ConstantTemplate:
        """Text whose names are variables of the environment, also unbound ones. Raises BrokenTemplate."""
        template: ConstantTemplate = self._constant(text, ())
        return template

    def credential(self, text: str) -> ConstantTemplate:
        """The text of a secret, in which `env.KEY` and `${KEY}` are variables as well. Raises BrokenTemplate."""
        namespace, dot, name = text.strip().partition(".")
        if dot and name.isidentifier() and namespace in {"env", *(bind.namespace for bind in self._binds)}:
            return self.constant(f"{{{{{text.strip()}}}}}")
        return self.constant(_SHELL.sub(r"{{\1}}", text))

    def _constant(self, text: str, arguments: Collection[str]) -> Any:
        def told(part: str | Variable | ArgumentReference, written: str) -> str | Variable | ArgumentReference:
            if not isinstance(part, ArgumentReference) or part.name in arguments or self._referred(written):
                return part
            return Variable((part.name.rpartition(".")[2] or part.name,))

        names = iter(match.group(1).strip() for match in HOLE.finditer(text))
        return tuple(part if isinstance(part, str) else told(part, next(names)) for part in self.template(text))


def placeholders_of(path: str) -> list[str]:
    """The names in a path's holes, without what says that they are the caller's."""
    written = [(double or single).strip() for double, single in PLACEHOLDER.findall(path)]
    return [_CALLERS.sub("", name) for name in written]


def references_of(tree: Any) -> Iterator[str]:
    """The caller's arguments that a tree names."""
    if isinstance(tree, ArgumentReference):
        yield tree.name
    elif isinstance(tree, dict):
        yield from chain.from_iterable(map(references_of, tree.values()))
    elif isinstance(tree, list | tuple):
        yield from chain.from_iterable(map(references_of, tree))


def _plain(name: Any) -> Any:
    if isinstance(name, str) and "{{" in name:
        raise BrokenTemplate(f"a hole in the name of a member, {_shown(name)}")
    return name


def _literal(text: str) -> str:
    if "{{" in text:
        raise BrokenTemplate(f"a hole that never closes in {_shown(text)}")
    return text


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
