"""The lines on which the values of a YAML document begin."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import yaml

from mcp_taskruns.core.checks.codes import Place
from mcp_taskruns.core.format.dialects import SYNONYMS
from mcp_taskruns.loading.yaml import MERGE, read_nodes

_OLD_SPELLINGS = {keyword: synonym for synonym, keyword in SYNONYMS.items()}


def read_lines(path: Path) -> "Lines":
    """Return the lines of the document that `read_document` reads. Raises CapabilityError as that does."""
    return Lines(read_nodes(path)[1])


class Lines:
    """The lines, counted from 1, on which the values of a document begin.

    Places may use the unified form of a document: an index of a keyed mapping is the number of an entry, a string in a
    list is the name or namespace of an item, and keywords have their current spelling.
    """

    def __init__(self, root: yaml.Node) -> None:
        self._root = root

    def line_of(self, place: Place) -> int:
        """Return the line of a place, or that of the innermost existing part around it."""
        return list(self._walk(place))[-1]

    def depth_of(self, place: Place) -> int:
        """Return the number of steps of a place that exist."""
        return len(list(self._walk(place))) - 1

    def _walk(self, place: Place) -> Iterator[int]:
        node = self._root
        yield _line_of(node)
        for step in place:
            entry = _find_entry(node, step)
            if entry is None:
                return
            key, node = entry
            yield _line_of(key)


def _line_of(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _find_entry(node: yaml.Node, step: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """Return the node at which an entry begins, and the node of its value."""
    if isinstance(node, yaml.MappingNode):
        entries = _entries_of(node)
        if isinstance(step, int):
            return next(islice(entries.values(), step, None), None)
        return entries.get(step) or entries.get(_OLD_SPELLINGS.get(step, step))
    if not isinstance(node, yaml.SequenceNode):
        return None
    for index, item in enumerate(node.value):
        if step == index or (isinstance(step, str) and step == _name_of(item)):
            return item, item
    return None


def _entries_of(node: yaml.MappingNode) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """Return the entries of a mapping in the order of its data: merged entries come first."""
    entries = {key.value: (key, value) for key, value in node.value if key.tag != MERGE}
    merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in node.value:
        if key.tag == MERGE:
            for other in reversed(value.value if isinstance(value, yaml.SequenceNode) else [value]):
                merged |= _entries_of(other) if isinstance(other, yaml.MappingNode) else {}
    return merged | entries


def _name_of(item: yaml.Node) -> str | None:
    """Return the name or namespace of a list item."""
    entries = _entries_of(item) if isinstance(item, yaml.MappingNode) else {}
    entry = entries.get("name", entries.get("namespace"))
    return entry[1].value if entry and isinstance(entry[1], yaml.ScalarNode) else None
