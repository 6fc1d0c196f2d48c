"""A capability file and its overlay as texts, made of chosen operations of an OpenAPI document."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches

from mcp_taskruns.generator.capability import build_capability, plan_tools
from mcp_taskruns.generator.document import Document, InvalidDocument, Operation
from mcp_taskruns.generator.emit import to_yaml
from mcp_taskruns.generator.family import RunFamily, find_families, own_id
from mcp_taskruns.generator.overlay import build_overlay

ALL = "all"
"""Instead of the names of operations: all of them."""


@dataclass(frozen=True)
class Files:
    """The texts of the two files, and the number of tools."""

    capability: str
    overlay: str
    tools: int


@dataclass(frozen=True)
class Generator:
    """The operations of a document, and those that work on its runs."""

    document: Document
    families: Sequence[RunFamily]

    @classmethod
    def of(cls, root: object) -> "Generator":
        """Return the generator for a parsed OpenAPI document. Raises InvalidDocument."""
        document = Document(root)  # type: ignore[arg-type]  # it checks the type itself
        return cls(document, find_families(document))

    def default_operations(self) -> list[Operation]:
        """Return the operations on the most probable kind of run, in the order of the document."""
        chosen = set(self.families[0].operations) if self.families else set()
        return [one for one in self.document.operations if one in chosen]

    def named_operations(self, names: Sequence[str]) -> list[Operation]:
        """Return the operations with these ids, in the order of the document. Raises InvalidDocument."""
        if list(names) == [ALL]:
            return list(self.document.operations)
        known = {key: one for one in reversed(self.document.operations) for key in _keys(one)}
        chosen = set()
        for name in names:
            operation = known.get(_normalize(name))
            if operation is None:
                close = get_close_matches(_normalize(name), known, 1)
                hint = f"; did you mean {known[close[0]].id}?" if close else ""
                raise InvalidDocument(f"it has no operation {name!r}{hint}")
            chosen.add(operation)
        return [one for one in self.document.operations if one in chosen]

    def build(self, name: str, operations: Sequence[Operation], today: date) -> Files:
        """Return the files for these operations."""
        provider, plans = plan_tools(self.document, name, operations)
        chosen = set(operations)
        family = next((one for one in self.families if one.read in chosen), None)
        return Files(
            to_yaml(build_capability(provider, plans, today)),
            to_yaml(build_overlay(provider, plans, family)),
            len(plans),
        )


def _keys(operation: Operation) -> set[str]:
    ids = (operation.id, own_id(operation), f"{operation.method} {operation.path}")
    return {_normalize(one) for one in ids}


def _normalize(name: str) -> str:
    return re.sub(r"[^a-z0-9{}/]", "", name.lower())
