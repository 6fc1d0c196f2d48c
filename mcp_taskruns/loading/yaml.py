"""Read YAML 1.2 documents with bounds on size, nesting and aliases."""

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import yaml

from mcp_taskruns.errors import CapabilityError
from mcp_taskruns.loading.files import MAX_FILE_BYTES

MAX_NODES = 1_000_000
"""The number of nodes of a document with its aliases expanded; a few lines of aliases can expand to billions."""

MAX_DEPTH = 100
"""The number of nested collections."""

FLATTENED = (
    "the whole file is a single line: its line breaks are missing. Download the original file again, as a file and not "
    "as text from a web page"
)

TOO_LARGE = "too many or too deeply nested values"

_SafeLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, if it is available

_TAG = "tag:yaml.org,2002:"
_STRING = f"{_TAG}str"
MERGE = f"{_TAG}merge"

# The plain scalars that are not strings, with their possible first characters. PyYAML follows YAML 1.1, in which `on`,
# `12:30` (750), `010` (8) and dates are not strings either.
_PLAIN_SCALARS = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+0123456789."),
    ("merge", r"<<", "<"),
)


def _build_resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Return the tags of plain scalars and their patterns by first character."""
    resolvers = {"": [(f"{_TAG}null", re.compile(""))]}
    for kind, pattern, first in _PLAIN_SCALARS:
        for character in first:
            resolvers.setdefault(character, []).append((_TAG + kind, re.compile(pattern)))
    return resolvers


_RESOLVERS = _build_resolvers()

_CONSTRUCTORS: dict[str, Callable[[str], Any]] = {
    _STRING: str,
    f"{_TAG}int": lambda text: int(text, 16 if text.startswith("0x") else 10),
    f"{_TAG}float": float,
    f"{_TAG}bool": lambda text: {"true": True, "false": False}[text.lower()],
    f"{_TAG}null": lambda _: None,
}

_ALLOWED_TAGS: dict[type[yaml.Node], Collection[str]] = {
    yaml.ScalarNode: _CONSTRUCTORS,
    yaml.SequenceNode: (f"{_TAG}seq",),
    yaml.MappingNode: (f"{_TAG}map",),
}

# Characters that YAML 1.2 forbids, section 5.1. A pattern of the allowed ones would take 5 ms to compile.
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]|[\ufffe\uffff]")
_KEY = re.compile(r"[\w-]+:(?=\s)")


def read_document(path: Path) -> dict[str, Any]:
    """Return the mapping that a file contains. Raises CapabilityError with the file and the line."""
    return read_nodes(path)[0]


def read_nodes(path: Path) -> tuple[dict[str, Any], yaml.Node]:
    """Return the mapping that a file contains, and its root node. Raises CapabilityError."""
    name = f"{path.parent.name}/{path.name}" if path.parent.name == "overlays" else path.name
    data = _read_bytes(path, name)
    text = _decode(data, name)
    node = _parse(data, text, name)
    document = _Constructor(name).construct(node)
    if not isinstance(document, dict):
        raise _wrong_root(node, text, name)
    return document, node


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CapabilityError(name, "", f"the file is larger than {MAX_FILE_BYTES:,} bytes")
        return path.read_bytes()
    except OSError as exc:
        raise CapabilityError(name, "", exc.strerror or "the file cannot be read") from exc


def _decode(data: bytes, name: str) -> str:
    """Decode UTF-8. YAML readers would accept UTF-16, and report other encodings without a position."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")) or b"\x00" in data[:2]:
        raise CapabilityError(name, "", "the file is UTF-16 or UTF-32; save it as UTF-8")
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        reason = f"the byte 0x{data[exc.start]:02x} is not valid UTF-8; save the file as UTF-8"
        raise CapabilityError(name, _position_after(data[: exc.start].decode()), reason) from exc
    match = _FORBIDDEN.search(text)
    if match is not None:
        reason = f"the control character U+{ord(match.group()):04X} is not allowed in YAML; remove it"
        raise CapabilityError(name, _position_after(text[: match.start()]), reason)
    return text


def _position_after(text: str) -> str:
    return f"line {text.count(chr(10)) + 1}, column {len(text) - text.rfind(chr(10))}"


def _parse(data: bytes, text: str, name: str) -> yaml.Node:
    loader = _Loader(data)
    try:
        node: yaml.Node | None = loader.get_single_node()
    except yaml.YAMLError as exc:
        if _is_flattened(text, text):
            raise CapabilityError(name, "line 1", FLATTENED) from exc
        mark = getattr(exc, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise CapabilityError(name, place, getattr(exc, "problem", None) or "the file is not valid YAML") from exc
    finally:
        loader.dispose()
    if node is None:
        raise CapabilityError(name, "", "the file is empty")
    return node


class _Loader(_SafeLoader):  # type: ignore[misc, valid-type]  # the base class is chosen at run time
    """Parse YAML to nodes, with the plain scalars of YAML 1.2.

    Nodes and nesting are limited while nodes are created, because libyaml recurses and a deep document would end the
    process.
    """

    _depth = -1
    _nodes = 0

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """Return the tag of a node without an explicit one."""
        if kind is yaml.ScalarNode:
            if implicit[0]:
                for tag, pattern in _RESOLVERS.get(value[:1], ()):
                    if pattern.fullmatch(value):
                        return tag
            return _STRING
        return f"{_TAG}seq" if kind is yaml.SequenceNode else f"{_TAG}map"

    def descend_resolver(self, current_node: yaml.Node | None, current_index: Any) -> None:
        """Count a node; PyYAML calls this before it creates one, with the parent node."""
        self._depth += 1
        self._nodes += 1
        if current_node is not None and (self._depth > MAX_DEPTH or self._nodes > MAX_NODES):
            raise yaml.MarkedYAMLError(problem=TOO_LARGE, problem_mark=current_node.start_mark)

    def ascend_resolver(self) -> None:
        """Leave a node; PyYAML calls this after it created one."""
        self._depth -= 1


class _Constructor:
    """Construct data from nodes. Unlike safe loading, rejects duplicate keys and unbounded aliases."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes = 0

    def construct(self, node: yaml.Node, depth: int = 0) -> Any:
        """Return the value of a node. Raises CapabilityError."""
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise self._error(node, TOO_LARGE)
        if node.tag not in _ALLOWED_TAGS[type(node)]:
            raise self._error(node, f"the tag {node.tag!r} is not allowed here")
        if isinstance(node, yaml.ScalarNode):
            return self._construct_scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.construct(item, depth + 1) for item in node.value]
        return self._construct_mapping(node, depth)

    def _construct_scalar(self, node: yaml.ScalarNode) -> Any:
        try:
            return _CONSTRUCTORS[node.tag](node.value)
        except (ValueError, LookupError) as exc:  # with an explicit tag, or a number of thousands of digits
            kind = node.tag.removeprefix(_TAG)
            raise self._error(node, f"{node.value[:40]!r} is not a valid {kind}") from exc

    def _construct_mapping(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(key, "a key must be a string; quote a value that begins with {{")
            if key.tag == MERGE:
                merged |= self._construct_merged(value, depth)
            elif key.value in entries:
                raise self._error(key, f"duplicate key {key.value!r}")
            else:
                entries[key.value] = self.construct(value, depth + 1)
        return merged | entries if merged else entries

    def _construct_merged(self, value: yaml.Node, depth: int) -> dict[str, Any]:
        """Return the entries that `<<` adds; the first of several mappings wins."""
        merged: dict[str, Any] = {}
        for other in reversed(value.value if isinstance(value, yaml.SequenceNode) else [value]):
            if not isinstance(other, yaml.MappingNode):
                raise self._error(other, "only mappings can be merged with <<")
            merged |= self.construct(other, depth + 1)
        return merged

    def _error(self, node: yaml.Node, reason: str) -> CapabilityError:
        place = f"line {node.start_mark.line + 1}, column {node.start_mark.column + 1}"
        return CapabilityError(self._name, place, reason)


def _wrong_root(node: yaml.Node, text: str, name: str) -> CapabilityError:
    if isinstance(node, yaml.ScalarNode) and _is_flattened(text, node.value):
        return CapabilityError(name, "line 1", FLATTENED)
    subject = "an overlay" if name.startswith("overlays/") else "a capability file"
    kind = "list" if isinstance(node, yaml.SequenceNode) else "scalar"
    return CapabilityError(name, "", f"{subject} must be a mapping, not a {kind}")


def _is_flattened(written: str, scalar: str) -> bool:
    """Whether an invalid file was valid before its line breaks were lost: it has several keys on one line."""
    text = written.strip()
    is_single_line = not ("\n" in text or "\r" in text or text.startswith(("{", "[")))
    return is_single_line and len(_KEY.findall(scalar)) > 2
