"""A YAML document as data, bounded, with the line of each value."""

import re
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from mcp_taskruns.errors import CapabilityError
from mcp_taskruns.loading.files import MAX_FILE_BYTES

MAX_NODES = 1_000_000
"""Nodes of a file with its aliases written out: a few lines of aliases can stand for billions."""

MAX_DEPTH = 100

Place = tuple[str | int, ...]
"""Where something stands in a document: keys of mappings, and of lists the number of an item or its name."""

FLATTENED = (
    "the whole file is one line: its line breaks were lost, and YAML does not work without them; fetch the original "
    "file again, as a download and not from a page's text"
)

TOO_MUCH = "too many or too deeply nested values"

_SPELLINGS = {"naftiko": "ikanos", "authentication": "auth", "label": "display"}
"""Words of the format that files may spell otherwise."""

# What YAML 1.2 does not allow, section 5.1. Said the other way around it would take 5 ms to compile.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]|[\ufffe\uffff]")
_MERGE = "tag:yaml.org,2002:merge"
_KEY = re.compile(r"[\w-]+:(?=\s)")


def read_document(path: Path) -> dict[str, Any]:
    """The mapping that a file holds. Raises CapabilityError naming the file and the line."""
    return _read(path)[0]


def read_lines(path: Path) -> "Lines":
    """The lines of what `read_document` reads. Raises CapabilityError as that does."""
    return Lines(_read(path)[1])


class Lines:
    """The line, counted from 1, on which each value of a document begins."""

    def __init__(self, root: yaml.Node) -> None:
        self._root = root

    def line_of(self, place: Place) -> int:
        """The line of what stands at a place, or of the innermost part around it that is there.

        A number on a mapping is its n-th entry, a text on a list the item of that name or namespace.
        """
        return list(self._walk(place))[-1]

    def depth_of(self, place: Place) -> int:
        """How many steps of a place lead to something: all of them where it is there."""
        return len(list(self._walk(place))) - 1

    def _walk(self, place: Place) -> Iterator[int]:
        node = self._root
        yield _line(node)
        for step in place:
            found = _entry(node, step)
            if found is None:
                return
            key, node = found
            yield _line(key)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _entry(node: yaml.Node, step: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """What a step leads to: the node that begins it, and its value."""
    if isinstance(node, yaml.MappingNode):
        entries = _entries(node)
        if isinstance(step, int):
            return next(islice(entries.values(), step, None), None)
        return entries.get(step) or entries.get(_SPELLINGS.get(step, step))
    if not isinstance(node, yaml.SequenceNode):
        return None
    for number, item in enumerate(node.value):
        if step == number or (isinstance(step, str) and step == _name(item)):
            return item, item
    return None


def _entries(node: yaml.MappingNode) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """The entries of a mapping in the order that they have as data: what is merged into it comes first."""
    own = {key.value: (key, value) for key, value in node.value if key.tag != _MERGE}
    merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in node.value:
        if key.tag == _MERGE:
            for other in reversed(value.value if isinstance(value, yaml.SequenceNode) else [value]):
                merged |= _entries(other) if isinstance(other, yaml.MappingNode) else {}
    return merged | own


def _name(item: yaml.Node) -> str | None:
    """The name of an item of a list, or its namespace."""
    entries = _entries(item) if isinstance(item, yaml.MappingNode) else {}
    found = entries.get("name", entries.get("namespace"))
    return found[1].value if found and isinstance(found[1], yaml.ScalarNode) else None


_SafeLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where it was built

_TAG = "tag:yaml.org,2002:"
_TEXT = f"{_TAG}str"

# What a plain scalar is, by its first character. YAML 1.1 has more than a person means: `on`, `12:30` (750), `010` (8),
# dates.
_KINDS = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+0123456789."),
    ("merge", r"<<", "<"),
)
_RESOLVERS: dict[str, list[tuple[str, re.Pattern[str]]]] = {"": [(f"{_TAG}null", re.compile(""))]}
for _kind, _pattern, _first in _KINDS:
    for _character in _first:
        _RESOLVERS.setdefault(_character, []).append((_TAG + _kind, re.compile(_pattern)))

_SCALARS: dict[str, Callable[[str], Any]] = {
    _TEXT: str,
    f"{_TAG}int": lambda text: int(text, 16 if text.startswith("0x") else 10),
    f"{_TAG}float": float,
    f"{_TAG}bool": lambda text: {"true": True, "false": False}[text.lower()],
    f"{_TAG}null": lambda _: None,
}

_TAGS: dict[type[yaml.Node], Collection[str]] = {
    yaml.ScalarNode: _SCALARS,
    yaml.SequenceNode: (f"{_TAG}seq",),
    yaml.MappingNode: (f"{_TAG}map",),
}


class _Loader(_SafeLoader):  # type: ignore[misc, valid-type]  # one of two classes
    """Nodes of YAML, whose scalars are those of YAML 1.2: `on`, `yes` and dates are text.

    Nodes and nesting are bounded while nodes are made: libyaml calls itself for it, and ends the process where that is
    too deep.
    """

    _depth = -1
    _nodes = 0

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """The tag of a node that has none."""
        if kind is yaml.ScalarNode:
            if implicit[0]:
                for tag, pattern in _RESOLVERS.get(value[:1], ()):
                    if pattern.fullmatch(value):
                        return tag
            return _TEXT
        return f"{_TAG}seq" if kind is yaml.SequenceNode else f"{_TAG}map"

    def descend_resolver(self, current_node: yaml.Node | None, current_index: Any) -> None:
        """Called before each node is made, with the node around it."""
        self._depth += 1
        self._nodes += 1
        if current_node is not None and (self._depth > MAX_DEPTH or self._nodes > MAX_NODES):
            raise yaml.MarkedYAMLError(problem=TOO_MUCH, problem_mark=current_node.start_mark)

    def ascend_resolver(self) -> None:
        """Called after each node is made."""
        self._depth -= 1


class _Builder:
    """Nodes to data. What safe loading lets through is refused: duplicate keys, and aliases without bound."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes = 0

    def build(self, node: yaml.Node, depth: int = 0) -> Any:
        """The value of a node; raises CapabilityError for what a capability file cannot hold."""
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise self.refused(node, TOO_MUCH)
        if node.tag not in _TAGS[type(node)]:
            raise self.refused(node, f"the tag {node.tag!r} cannot stand here")
        if isinstance(node, yaml.ScalarNode):
            try:
                return _SCALARS[node.tag](node.value)
            except (ValueError, LookupError) as exc:  # of an explicit tag, or a number of thousands of digits
                kind = node.tag.removeprefix(_TAG)
                raise self.refused(node, f"{node.value[:40]!r} cannot be read as {kind}") from exc
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, depth + 1) for item in node.value]
        return self._mapping(node, depth)

    def _mapping(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.refused(key, "a key must be text; a value that begins with {{ needs quotes")
            if key.tag == _MERGE:
                merged |= self._merged(value, depth)
            elif key.value in own:
                raise self.refused(key, f"the key {key.value!r} is there twice")
            else:
                own[key.value] = self.build(value, depth + 1)
        return merged | own if merged else own

    def _merged(self, value: yaml.Node, depth: int) -> dict[str, Any]:
        """What `<<` brings: of several mappings the first wins."""
        merged: dict[str, Any] = {}
        for other in reversed(value.value if isinstance(value, yaml.SequenceNode) else [value]):
            if not isinstance(other, yaml.MappingNode):
                raise self.refused(other, "only mappings can be merged with <<")
            merged |= self.build(other, depth + 1)
        return merged

    def refused(self, node: yaml.Node, reason: str) -> CapabilityError:
        return CapabilityError(
            self._name, f"line {node.start_mark.line + 1}, column {node.start_mark.column + 1}", reason
        )


def _read(path: Path) -> tuple[dict[str, Any], yaml.Node]:
    name = f"{path.parent.name}/{path.name}" if path.parent.name == "overlays" else path.name
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CapabilityError(name, "", f"larger than {MAX_FILE_BYTES:,} bytes")
        data = path.read_bytes()
    except OSError as exc:
        raise CapabilityError(name, "", exc.strerror or "cannot be read") from exc
    text = _decoded(data, name)
    loader = _Loader(data)
    try:
        node = loader.get_single_node()
    except yaml.YAMLError as exc:
        if _is_flattened(text, text):
            raise CapabilityError(name, "line 1", FLATTENED) from exc
        mark = getattr(exc, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise CapabilityError(name, place, getattr(exc, "problem", None) or "is not YAML") from exc
    finally:
        loader.dispose()
    if node is None:
        raise CapabilityError(name, "", "the file is empty")
    document = _Builder(name).build(node)
    if not isinstance(document, dict):
        raise _wrong_root(node, text, name)
    return document, node


def _decoded(data: bytes, name: str) -> str:
    """The text of a file, refused where it is not UTF-8: YAML readers take it for UTF-16, or say nothing of use."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")) or b"\x00" in data[:2]:
        raise CapabilityError(name, "", "the file is UTF-16 or UTF-32, not UTF-8: save it as UTF-8")
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        wrong = f"the byte 0x{data[exc.start]:02x} is not UTF-8: save the file as UTF-8"
        raise CapabilityError(name, _position(data[: exc.start].decode()), wrong) from exc
    found = _UNPRINTABLE.search(text)
    if found is not None:
        wrong = f"the control character U+{ord(found.group()):04X} cannot stand in YAML: take it out"
        raise CapabilityError(name, _position(text[: found.start()]), wrong)
    return text


def _position(before: str) -> str:
    """The place after so much text."""
    return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"


def _wrong_root(node: yaml.Node, text: str, name: str) -> CapabilityError:
    if isinstance(node, yaml.ScalarNode) and _is_flattened(text, node.value):
        return CapabilityError(name, "line 1", FLATTENED)
    what = "an overlay" if name.startswith("overlays/") else "a capability file"
    kind = "list" if isinstance(node, yaml.SequenceNode) else "text"
    return CapabilityError(name, "", f"{what} is a mapping, this is a {kind}")


def _is_flattened(written: str, read: str) -> bool:
    """Whether a file that is no document of ours was one before its line breaks were lost: keys follow keys."""
    text = written.strip()
    return not ("\n" in text or "\r" in text or text.startswith(("{", "["))) and len(_KEY.findall(read)) > 2
