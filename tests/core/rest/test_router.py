"""Selection of a route among several that could match."""

from typing import Any

import pytest

from mcp_taskruns.core.format.compiler import compile_tools
from mcp_taskruns.core.format.spec import parse_capability
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.core.rest.router import Match, Router
from mcp_taskruns.core.rest.routes import compile_routes

PATHS = [
    "/v1/f/{id}",
    "/v1/f/{id}.json",
    "/v1/f/list",
    "/v1/jobs/{id}:run",
    "/v1/jobs/{id}:runs",
    "/v1/compare/{base}...{head}",
    "/v1/x-{id}-y",
    "/v1/{a}/{b}/{c}",
    "/v1/{a}/fixed/{c}",
]


def rest_tools(tag: str = "Thing", source: str = "thing.yaml") -> tuple[Tool, ...]:
    operations = [{"name": f"op{number}", "method": "GET"} for number in range(len(PATHS))]
    document: dict[str, Any] = {
        "naftiko": "1.0.0-alpha2",
        "info": {"tags": [tag]},
        "capability": {
            "consumes": [
                {
                    "namespace": "things",
                    "baseUri": "https://api.example",
                    "resources": [
                        {"path": path, "operations": [operation]}
                        for path, operation in zip(PATHS, operations, strict=True)
                    ],
                }
            ],
            "exposes": [
                {
                    "type": "rest",
                    "resources": [
                        {"path": path, "operations": [{**operation, "call": f"things.{operation['name']}"}]}
                        for path, operation in zip(PATHS, operations, strict=True)
                    ],
                }
            ],
        },
    }
    return compile_tools([parse_capability(document, source)], surface="rest")


ROUTER = Router(compile_routes(rest_tools(), ()).routes)


@pytest.mark.parametrize("prefix", ["", "/thing"])
@pytest.mark.parametrize(
    ("path", "route", "variables"),
    [
        ("/v1/f/list", "/v1/f/list", {}),
        ("/v1/f/a", "/v1/f/{id}", {"id": "a"}),
        ("/v1/f/a.json", "/v1/f/{id}.json", {"id": "a"}),
        ("/v1/f/.json", "/v1/f/{id}", {"id": ".json"}),
        ("/v1/f/a%2Fb", "/v1/f/{id}", {"id": "a/b"}),
        ("/v1/f/a%2Ejson", "/v1/f/{id}.json", {"id": "a"}),
        ("/v1/jobs/a:run", "/v1/jobs/{id}:run", {"id": "a"}),
        ("/v1/jobs/a%3Arun", "/v1/jobs/{id}:run", {"id": "a"}),
        ("/v1/jobs/a:runs", "/v1/jobs/{id}:runs", {"id": "a"}),
        ("/v1/jobs/a:b:run", "/v1/jobs/{id}:run", {"id": "a:b"}),
        ("/v1/compare/main...feature", "/v1/compare/{base}...{head}", {"base": "main", "head": "feature"}),
        ("/v1/compare/v1.2...v1.3", "/v1/compare/{base}...{head}", {"base": "v1.2", "head": "v1.3"}),
        ("/v1/x-1-y", "/v1/x-{id}-y", {"id": "1"}),
        ("/v1/1/2/3", "/v1/{a}/{b}/{c}", {"a": "1", "b": "2", "c": "3"}),
        ("/v1/1/fixed/3", "/v1/{a}/fixed/{c}", {"a": "1", "c": "3"}),
    ],
)
def test_most_specific_route_is_found(prefix: str, path: str, route: str, variables: dict[str, str]) -> None:
    found = ROUTER.find("GET", prefix + path)
    assert isinstance(found, Match)
    assert (found.route.path, found.variables) == (route, variables)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/:run",
        "/v1/compare/a..b",
        "/v1/compare/...b",
        "/v1/x--y",
        "/v1/f/",
        "/v1/f",
        "/v1",
        "",
        "/other/v1/f/a",
    ],
)
def test_unknown_path_has_no_route(path: str) -> None:
    assert ROUTER.find("GET", path) == []


def test_path_with_other_methods_returns_these() -> None:
    assert ROUTER.find("POST", "/v1/f/list") == ["GET", "GET"]


def test_path_declared_by_two_files_leads_to_the_paths_below_their_prefixes() -> None:
    tools = [*rest_tools("One", "one.yaml"), *rest_tools("Two", "two.yaml")]
    router = Router(compile_routes(tools, ()).routes)
    assert router.find("GET", "/v1/f/list") == []
    assert router.find_moved("GET", "/v1/x-1-y") == ["/one/v1/x-{id}-y", "/two/v1/x-{id}-y"]
    assert router.find_moved("POST", "/v1/x-1-y") == []
    assert router.find_moved("GET", "/v1") == []


def test_matching_takes_linear_time() -> None:
    # A regular expression would take minutes and exceed the timeout of the test.
    dots = "." * 60_000
    assert ROUTER.find("GET", f"/v1/compare/{dots}/") == []
    found = ROUTER.find("GET", f"/v1/compare/a{dots}b")
    assert isinstance(found, Match)
    assert found.variables == {"base": "a", "head": dots[3:] + "b"}
