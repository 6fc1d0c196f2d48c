"""Regular expressions that take exponential time."""

import pytest

from mcp_taskruns.core.checks.patterns import AMBIGUOUS, TOO_LARGE, find_pattern_problem


@pytest.mark.parametrize(
    "pattern",
    [
        "^(a+)+$",
        "(a|a)*b",
        "(.*)*",
        "^(a|aa)+$",
        "([a-zA-Z]+)*",
        "(x+x+)+y",
        "(?=(a+)+$)",
        r"^(\w+\s?)*$",
        r"(\d+|\w+)*x",
        "(a*)*",
        "(a?b?)*",
        "(?:a|b|ab)*c",
        "(?i)(a|A)*b",
        "(a+){10,}",
        "(a+){20}",
        "((ab)*)*c",
        r"(?P<x>[\w.]+)+@",
        "^([^,]*,?)*$",
        r"(?:(?:a+)b?)+c",
        r"(\p{L}+)*!",
        "([a-c]|[b-d])+e",
        r"(?:\.|[^x])*y",
        "(a+)+?b",
        r"(.)(?:\1|b)*c",
        "(foo|f.o)*$",
        "(abc|a(b|x)c)*$",
        r"^(\d{1,3})+$",
        r"^(?:\d{1,3},?){1,100}$",
        "(?:a{2,3})*b",
        "(a{0,5}){0,50}b",
        "((a|a){20})",
        "(a+|b){12}",
        "(?:(?:ab){2}(?:ab){1,2})+c",
        "(?:" + "|".join([r"\w"] * 100) + ")*",
    ],
)
def test_pattern_that_takes_exponential_time_is_recognised(pattern: str) -> None:
    assert find_pattern_problem(pattern) == AMBIGUOUS


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        ".*",
        "^[ -~]*$",
        "^[a-z0-9]+(?:-[a-z0-9]+)*$",
        r"^([a-z0-9]+\.)+[a-z]{2,}$",
        r"^\d{4}-\d{2}$",
        "(a|b)*c",
        r"^(?:[0-9]{1,3}\.){3}[0-9]{1,3}$",
        r"^\S+@\S+\.\S+$",
        "^(?!foo).*$",
        r"^arn:[a-z]+(:[\w-]*)*$",
        r"(?:\s*,\s*\w+)*",
        "[a*]+",
        "a{,}",
        "x{2}y{3,5}",
        r"^https?://[^\s/]+(/[^\s/]*)*$",
        r"(\(\w+\))*",
        r"^\{+a\}+$",
        "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
        r'^[^"\\]*(?:\\.[^"\\]*)*$',
        "(?:ab|ac)*d",
        "^(?:[0-9a-f]{32},?)+$",
        "^([0-9a-f]{32})+$",
        "^(?:(?:ab){20}c)*$",
        "^(?:[a-z]{1,63}[.])*[a-z]{1,63}$",
        "^(?:[a-z]{1,3}[0-9]{1,3})+$",
        "^([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}$",
        "(ab?)*",
        "[^]]+",
        "(?#comment)a",
        # Too long to be examined: left to the time limit of searches.
        "a" * 200 + "(a+)+$",
        r"\w?" * 100,
    ],
)
def test_pattern_without_nested_repetition_is_safe(pattern: str) -> None:
    assert find_pattern_problem(pattern) is None


@pytest.mark.parametrize("pattern", ["(", "[a", "a**", "(?P<", "(?:" * 2_000 + ")" * 2_000])
def test_invalid_pattern_is_recognised(pattern: str) -> None:
    assert find_pattern_problem(pattern) == "is not a regular expression"


def test_pattern_that_takes_much_memory_is_too_large() -> None:
    assert find_pattern_problem("((a{300}){300}){300}") == TOO_LARGE
