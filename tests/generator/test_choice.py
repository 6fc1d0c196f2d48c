"""The choice of operations in a terminal."""

from mcp_taskruns.generator.choice import Choice
from mcp_taskruns.generator.document import Document, Operation
from tests.generator import documents


def choice(*chosen: str) -> Choice:
    operations = Document(documents.builds()).operations
    return Choice(operations, {one for one in operations if one.id in chosen})


def chosen(one: Choice) -> list[str]:
    return [operation.id for operation in one.result()]


def test_lines_show_what_is_chosen() -> None:
    *lines, last = choice("getBuild").lines()
    assert lines[2] == ("   3 [x] GET    /v2/organizations/{org}/pipelines/{slug}/builds/{number}  getBuild")
    assert lines[3].startswith("   4 [ ] PUT ")
    assert last.startswith("1 of 7 chosen. ")


def test_numbers_select_and_deselect() -> None:
    one = choice("getBuild")
    assert not one.apply("1-2, 3 99")
    assert chosen(one) == ["listBuilds", "createBuild"]


def test_words_filter_and_an_asterisk_removes_the_filter() -> None:
    one = choice()
    assert not one.apply("CANCEL build")
    assert [line.split()[-1] for line in one.lines()][:-1] == ["cancelBuild"]
    assert not one.apply("*")
    assert len(list(one.lines())) == 8


def test_empty_line_accepts() -> None:
    assert choice().apply(" \n")


def test_long_lists_are_truncated() -> None:
    operations = [Operation(f"op{n}", "GET", "/") for n in range(50)]
    lines = list(Choice(operations, set()).lines())
    assert len(lines) == 42
    assert lines[-2] == "     ... 10 more; type a word to filter"
