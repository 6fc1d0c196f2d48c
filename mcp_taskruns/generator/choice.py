"""The choice of operations in a terminal: a list that input lines filter and change."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mcp_taskruns.generator.document import Operation
from mcp_taskruns.generator.words import clean_text

HELP = "Numbers (1 3-5) select or deselect, a word filters the list, * removes the filter, Enter accepts."

_MAX_LISTED = 40
_NUMBERS = re.compile(r"[\d\s,-]+")


@dataclass
class Choice:
    """The operations to choose from, those that are chosen, and the filter."""

    operations: Sequence[Operation]
    chosen: set[Operation]
    filter: str = field(default="")

    def result(self) -> list[Operation]:
        """Return the chosen operations in the order of the document."""
        return [one for one in self.operations if one in self.chosen]

    def lines(self) -> Iterator[str]:
        """Yield the lines of the list: number, whether chosen, method, path and id of each operation."""
        listed = [(number, one) for number, one in enumerate(self.operations, 1) if self._matches(one)]
        for number, one in listed[:_MAX_LISTED]:
            sign = "x" if one in self.chosen else " "
            yield f"{number:>4} [{sign}] {one.method:<6} {clean_text(one.path)}  {clean_text(one.id)}"
        if len(listed) > _MAX_LISTED:
            yield f"     ... {len(listed) - _MAX_LISTED} more; type a word to filter"
        yield f"{len(self.chosen)} of {len(self.operations)} chosen. {HELP}"

    def _matches(self, operation: Operation) -> bool:
        text = f"{operation.method} {operation.path} {operation.id} {operation.summary}".lower()
        return all(word in text for word in self.filter.lower().split())

    def apply(self, line: str) -> bool:
        """Apply an input line; return whether the choice is accepted."""
        written = line.strip()
        if not written:
            return True
        if not _NUMBERS.fullmatch(written):
            self.filter = "" if written == "*" else written
            return False
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", written):
            for operation in self.operations[max(int(first), 1) - 1 : int(last or first)]:
                self.chosen ^= {operation}
        return False
