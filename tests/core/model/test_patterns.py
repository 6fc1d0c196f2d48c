"""Limits of regular expressions of capability files."""

import pytest

from mcp_taskruns.core.model.patterns import InvalidPattern, compile_pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "((a{300}){300}){300}",
        "(?:(?:a?){300}){300}b",
        "((((((a{9}){9}){9}){9}){9}){9}){9}",
        "(?:(?:a|b){300}){300,}",
        r"(?x)( ( \d{300} ) {300} ) {300}",
        "(?:[a-z]{300}(?#c)){300,400}",
        r"(?:\)a{300}){300}",
        "a{40000}",
        "a" * 20_000,
        "x|" * 9_999 + "a{99999}",
    ],
)
def test_pattern_that_takes_much_memory_to_compile_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidPattern, match="is too large"):
        compile_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "^[a-z0-9]{1,20000}$",
        r"^(?:[0-9a-f]{2}:){5}[0-9a-f]{2}$",
        "(?:a{0,1000}){0,1000}",
        "^(?:[A-Za-z0-9+/]{4}){1,100000}$",
        r"[(]{100}[)]{100}\({100}",
        "[]{999}]{99}",
        "a{300}",
        "^.{1000}$",
    ],
)
def test_pattern_of_moderate_size_is_compiled(pattern: str) -> None:
    compile_pattern(pattern)


@pytest.mark.parametrize("pattern", ["a)", ")" * 100, "(" * 100, "((a)", "a{300}{300}{300}", "[" * 100, "{1}"])
def test_unbalanced_pattern_is_invalid(pattern: str) -> None:
    with pytest.raises(InvalidPattern):
        compile_pattern(pattern)
