"""Links to the next page: RFC 8288 headers, and the arguments in the query of a URL."""

from typing import Any

import pytest

from mcp_taskruns.core.calls.links import find_next_link, parse_query, query_arguments
from mcp_taskruns.core.model.operation import QueryArgument

# docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api
GITHUB = (
    '<https://api.github.com/repositories/1300192/issues?page=2>; rel="prev", '
    '<https://api.github.com/repositories/1300192/issues?page=4>; rel="next", '
    '<https://api.github.com/repositories/1300192/issues?page=515>; rel="last", '
    '<https://api.github.com/repositories/1300192/issues?page=1>; rel="first"'
)


@pytest.mark.parametrize(
    ("header", "url"),
    [
        (GITHUB, "https://api.github.com/repositories/1300192/issues?page=4"),
        # RFC 8288 sections 3 and 3.3, and appendix B.2
        ('<http://example.com/TheBook/chapter2>; rel="previous"; title="previous chapter"', ""),
        ('<http://example.org/>; rel="start http://example.net/relation/other"', ""),
        ("</terms?a=1,2;b>; REL=NEXT", "/terms?a=1,2;b"),
        ('<?page=2>;rel="prev next"', "?page=2"),
        ('<a>; title="x; rel=next"; rel=last', ""),
        ('<a>; title="<b>; rel=next, y"; rel=next', "a"),
        ("<a>; rel=last; rel=next", ""),
        ("<a>; anchor; rel = next", "a"),
        ("<a>, <b>; rel=next", "b"),
        ('<a>; rel="next', ""),
        ("a; rel=next", ""),
        ("<a>; ; ,;;rel", ""),
        ("<" * 20_000, ""),
        ('<a>;"' * 5_000, ""),
        ("<a>" + "; \t" * 20_000, ""),
        ("", ""),
    ],
)
def test_next_link_of_a_link_header(header: str, url: str) -> None:
    assert find_next_link(header) == url


ARGUMENTS = {
    "page": QueryArgument("page", "integer"),
    "page[after]": QueryArgument("after", "string"),
    "status": QueryArgument("status", "array"),
    "all": QueryArgument("all", "boolean"),
    "free": QueryArgument("free", ""),
}


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://api.acme.example/jobs?page=2", {"page": 2}),
        ("/jobs?page=2#page=3", {"page": 2}),
        ("?page%5Bafter%5D=run_1%3D&x=1", {"after": "run_1="}),
        ("?page=x&after=2", {"page": "x"}),
        ("?page=1&page=2", {"page": 2}),
        ("?page=" + "9" * 30, {"page": "9" * 30}),
        ("?status=a&status=b", {"status": ["a", "b"]}),
        ("?status=a,b", {"status": ["a", "b"]}),
        ("?all=true&free=7", {"all": True, "free": "7"}),
        ("?all=false", {"all": False}),
        ("?page=", {}),
        ("https://api.acme.example/page=2", {}),
        ("?page=2&" + "x" * 20_000, {}),
        ("?page=2" + "&a=1" * 1_000, {}),
        ("", {}),
    ],
)
def test_query_of_a_url_has_the_arguments_of_the_operation(url: str, found: dict[str, Any]) -> None:
    assert query_arguments(url, ARGUMENTS) == found


def test_query_is_decoded_as_utf_8_with_replacements() -> None:
    assert parse_query("?a=%ff&b=%C3%A4+c") == {"a": ["\ufffd"], "b": ["ä c"]}
