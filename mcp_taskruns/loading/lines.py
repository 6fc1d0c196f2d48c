"""The lines on which the values of a YAML document begin."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import yaml

from mcp_taskruns.core.checks.codes import Place
from mcp_taskruns.core.format.dialects import OTHER_SPELLINGS
from mcp_taskruns.loading.yaml import MERGE, read_nodes


def read_lines(path: Path) -> "Lines":
    """Return the lines of the document that `read_document` reads. Raises CapabilityError as that does."""
    return Lines(read_nodes(path)[1])


class Lines:
    """The lines, counted from 1, on which the values of a document begin.

    Places may use the unified form of a document: an index of a keyed mapping is the number of an entry, and keywords
    have their current spelling.
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
        return entries.get(step) or entries.get(OTHER_SPELLINGS.get(step, step))
    if not isinstance(node, yaml.SequenceNode):
        return None
    item = node.value[step] if isinstance(step, int) and step < len(node.value) else None
    return None if item is None else (item, item)


def _entries_of(node: yaml.MappingNode) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """Return the entries of a mapping in the order of its data: merged entries come first."""
    entries = {key.value: (key, value) for key, value in node.value if key.tag != MERGE}
    merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in node.value:
        if key.tag == MERGE:
            for other in reversed(value.value if isinstance(value, yaml.SequenceNode) else [value]):
                merged |= _entries_of(other) if isinstance(other, yaml.MappingNode) else {}
    return merged | entries
