"""Comments of YAML files that mark what is to be confirmed: `# check: ...`."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

_MARK = re.compile(r"(?:^|(?<=\s))# ?check:[ \t]*(.*)$")
_CONTINUATION = re.compile(r"\s*#\s{2,}(\S.*)$")


def find_marks(path: Path, root: yaml.Node) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each mark in a file whose parsed document is `root`.

    Lines of comment that follow and are indented by two spaces or more continue the text.
    """
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    scalars = list(_scalar_lines(root))
    for number, line in enumerate(lines):
        match = _MARK.search(line)
        if match is None or any(_is_inside(number, match.start(), span) for span in scalars):
            continue
        text = [match[1]]
        for following in lines[number + 1 :]:
            continued = _CONTINUATION.match(following)
            if continued is None:
                break
            text.append(continued[1])
        yield number + 1, " ".join(text).strip()


_Span = tuple[tuple[int, int], tuple[int, int]]


def _scalar_lines(node: yaml.Node) -> Iterator[_Span]:
    """Yield the start and the end, as line and column, of the scalars that could contain the text of a comment."""
    stack = [node]
    while stack:
        one = stack.pop()
        if isinstance(one, yaml.MappingNode):
            stack += [part for pair in one.value for part in pair]
        elif isinstance(one, yaml.SequenceNode):
            stack += one.value
        elif "#" in one.value:
            yield (one.start_mark.line, one.start_mark.column), (one.end_mark.line, one.end_mark.column)


def _is_inside(line: int, column: int, span: _Span) -> bool:
    return span[0] <= (line, column) < span[1]
