"""Comments that mark what is to be confirmed."""

from pathlib import Path

from mcp_taskruns.loading.marks import find_marks
from mcp_taskruns.loading.yaml import read_nodes

FILE = """\
# check: the first
a: b  # check: after a value
#check:  without a space
c: 'no # check: in quotes'
d: no#check:in-a-word
e: >-
  text # check: of a block
# check: a long text
#   that continues
# and ends
f: "several
  lines # check: in quotes"
# checks: another word
g: [1, x]  #  a comment
"""


def test_marks_are_found_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(FILE, encoding="utf-8")
    assert list(find_marks(path, read_nodes(path)[1])) == [
        (1, "the first"),
        (2, "after a value"),
        (3, "without a space"),
        (8, "a long text that continues"),
    ]
