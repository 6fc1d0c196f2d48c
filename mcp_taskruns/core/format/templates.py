"""Templates: texts with placeholders such as `{{env.KEY}}`, `{{tools.x}}` and `{x}`."""

import json
import re
from collections.abc import Collection, Iterator
from itertools import chain, zip_longest
from typing import Any

from mcp_taskruns.core.format import spec
from mcp_taskruns.core.model.operation import ArgumentReference, ConstantTemplate, Template, Variable

PATH_PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}|\{([^{}]*)\}")
"""A placeholder in a path, where single braces are allowed too."""

PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}")

_ADAPTERS = frozenset({"tools", "rest", "mcp"})
_RFC_6570_EXPRESSION = re.compile(r"\A[+#./;?&=,!@|]|\*\Z|:\d+\Z")
"""Operators and modifiers of RFC 6570 beyond level 1: `{?q,limit}`, `{+path}`, `{id*}`."""

_SHELL_VARIABLE = re.compile(r"\$\{\s*([A-Za-z_]\w*)\s*\}")
_ADAPTER_PREFIX = re.compile(r"^(?:tools|rest|mcp)\.")
_WITH_LOCATION = re.compile(r"(?:path|query|header|cookie|body)\.(.+)", re.DOTALL)
_JSON_STRING_OR_PLACEHOLDER = re.compile(r'"(?:[^"\\]|\\.)*"|' + PLACEHOLDER.pattern, re.DOTALL)

_MAX_QUOTED = 60
"""The length in characters to which a template is truncated in a message."""


class InvalidTemplate(ValueError):
    """A placeholder that is not closed, has no name, or is not supported."""


class TemplateParser:
    """Parses the templates of one capability file.

    `environment` holds names that always refer to environment variables.
    """

    def __init__(self, capability: spec.Capability, environment: Collection[str] = ()) -> None:
        self._binds = capability.binds
        self._environment = frozenset(environment)
        self._adapters = _ADAPTERS | ({exposed.namespace for exposed in capability.capability.exposes} - {""})

    def reference(self, text: Any) -> str | None:
        """Return the argument of `tools.x`, `rest.path.x`, `namespace.x`, `$this.namespace.x` or `{{x}}`."""
        if not isinstance(text, str):
            return None
        placeholder = PLACEHOLDER.fullmatch(text.strip())
        if placeholder is not None:
            name = placeholder.group(1).strip()
            return None if not name or self.bound(name) else self._argument(name) or name
        return self._argument(text)

    def _argument(self, text: str) -> str | None:
        adapter, dot, name = text.removeprefix("$this.").partition(".")
        if not (dot and name and adapter in self._adapters):
            return None
        with_location = _WITH_LOCATION.fullmatch(name) if adapter in _ADAPTERS else None
        return with_location.group(1) if with_location else name

    def bound(self, name: str) -> Variable | None:
        """Return the environment variable to which a name is bound."""
        if name in self._environment:
            return Variable((name,))
        keys = [(bind, name.removeprefix(f"{bind.namespace}.")) for bind in self._binds]
        for bind, key in keys:
            if key in bind.keys:
                return Variable(bind.keys[key])
        # A name in the namespace of a bind that is not one of its keys is the name of the variable.
        keys += [(spec.Bind(), name.removeprefix("env."))]
        return next((Variable((key,)) for _, key in keys if key and key != name), None)

    def template(self, text: str, pattern: re.Pattern[str] = PLACEHOLDER) -> Template:
        """Parse a text: bound names refer to the environment, others to arguments. Raises InvalidTemplate."""
        parts: list[str | Variable | ArgumentReference] = []
        end = 0
        for match in pattern.finditer(text):
            if match.start() > end:
                parts.append(_literal(text[end : match.start()]))
            parts.append(self._placeholder(match, text))
            end = match.end()
        if end < len(text):
            parts.append(_literal(text[end:]))
        return tuple(parts)

    def _placeholder(self, match: re.Match[str], text: str) -> Variable | ArgumentReference:
        double = match.group(1)
        name: str = (match.group(2) if double is None else double).strip()
        if not name:
            raise InvalidTemplate(f"a placeholder without a name in {_quote(text)}")
        if double is None:  # in single braces a dot is part of the name
            return Variable((name,)) if name in self._environment else ArgumentReference(name)
        return self.bound(name) or ArgumentReference(self._argument(name) or name)

    def path(self, text: str) -> Template:
        """Parse a path. Raises InvalidTemplate."""
        template = self.template(text, PATH_PLACEHOLDER)
        if any(isinstance(part, str) and ("{" in part or "}" in part) for part in template):
            raise InvalidTemplate(f"an unmatched brace in {_quote(text)}")
        for name in placeholders_of(text):
            if _RFC_6570_EXPRESSION.search(name):
                raise InvalidTemplate(f"the RFC 6570 expression {{{name}}} in {_quote(text)}, which is not supported")
        return template

    def tree(self, value: Any, *, references: bool = False) -> Any:
        """Parse the texts in a tree of JSON values. A placeholder that is a whole text keeps its type.

        With `references`, a text such as `tools.x` is a reference as well. Raises InvalidTemplate.
        """
        if isinstance(value, dict):
            return {_check_key(name): self.tree(item, references=references) for name, item in value.items()}
        if isinstance(value, list):
            return [self.tree(item, references=references) for item in value]
        if not isinstance(value, str):
            return value
        reference = self._argument(value) if references else None
        parsed = (ArgumentReference(reference),) if reference else self.template(value)
        return parsed[0] if len(parsed) == 1 else (parsed or "")

    def json_text(self, text: str) -> Any:
        """Parse JSON text in which placeholders may stand without quotes.

        Raises ValueError for other text, and InvalidTemplate.
        """
        quoted = _JSON_STRING_OR_PLACEHOLDER.sub(_quote_placeholder, text)
        try:
            return self.tree(json.loads(quoted, strict=False))
        except RecursionError as exc:
            raise ValueError("nested too deeply") from exc

    def value(self, value: Any, arguments: Collection[str]) -> Any:
        """Parse a constant value, whose placeholders refer to the environment or to one of `arguments`.

        Raises InvalidTemplate.
        """
        if isinstance(value, dict):
            return {_check_key(name): self.value(item, arguments) for name, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, arguments) for item in value]
        return self._constant(value, arguments) if isinstance(value, str) else value

    def constant(self, text: str) -> ConstantTemplate:
        """Parse a text whose placeholders all refer to the environment. Raises InvalidTemplate."""
        template: ConstantTemplate = self._constant(text, ())
        return template

    def credential(self, text: str) -> ConstantTemplate:
        """Parse the text of a secret, in which `env.KEY` and `${KEY}` are variables as well. Raises InvalidTemplate."""
        namespace, dot, name = text.strip().partition(".")
        if dot and name.isidentifier() and namespace in {"env", *(bind.namespace for bind in self._binds)}:
            return self.constant(f"{{{{{text.strip()}}}}}")
        return self.constant(_SHELL_VARIABLE.sub(r"{{\1}}", text))

    def _constant(self, text: str, arguments: Collection[str]) -> Any:
        written = iter(match.group(1).strip() for match in PLACEHOLDER.finditer(text))
        return tuple(
            part if isinstance(part, str) else self._constant_part(part, next(written), arguments)
            for part in self.template(text)
        )

    def _constant_part(
        self, part: Variable | ArgumentReference, written: str, arguments: Collection[str]
    ) -> Variable | ArgumentReference:
        """Return the variable instead of a reference to something that is not an argument."""
        if not isinstance(part, ArgumentReference) or part.name in arguments or self._argument(written):
            return part
        return Variable((part.name.rpartition(".")[2] or part.name,))


def without_fragment(path: str) -> str:
    """Return a path without its fragment, which is never sent: RFC 9110 section 7.1."""
    if "#" not in path:
        return path
    end = 0
    for literal, placeholder in zip_longest(literals_between_placeholders(path), PATH_PLACEHOLDER.finditer(path)):
        if "#" in literal:
            return path[: end + literal.index("#")]
        end = placeholder.end() if placeholder else len(path)
    return path


def literals_between_placeholders(text: str) -> list[str]:
    """Split the text of a path at its placeholders."""
    literals, end = [], 0
    for match in PATH_PLACEHOLDER.finditer(text):
        literals.append(text[end : match.start()])
        end = match.end()
    return [*literals, text[end:]]


def placeholders_of(path: str) -> list[str]:
    """Return the names of the placeholders in a path, without the prefix of an adapter."""
    written = [(double or single).strip() for double, single in PATH_PLACEHOLDER.findall(path)]
    return [_ADAPTER_PREFIX.sub("", name) for name in written]


def references_of(tree: Any) -> Iterator[str]:
    """Yield the names of the arguments to which a tree refers."""
    if isinstance(tree, ArgumentReference):
        yield tree.name
    elif isinstance(tree, dict):
        yield from chain.from_iterable(map(references_of, tree.values()))
    elif isinstance(tree, list | tuple):
        yield from chain.from_iterable(map(references_of, tree))


def _check_key(name: Any) -> Any:
    if isinstance(name, str) and "{{" in name:
        raise InvalidTemplate(f"a placeholder in a key, {_quote(name)}")
    return name


def _literal(text: str) -> str:
    if "{{" in text:
        raise InvalidTemplate(f"an unclosed placeholder in {_quote(text)}")
    return text


def _quote_placeholder(match: re.Match[str]) -> str:
    return match.group() if match.group().startswith('"') else json.dumps(match.group())


def _quote(text: str) -> str:
    return repr(text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…")
