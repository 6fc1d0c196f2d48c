"""The catalog: filters of the settings, and settings that refer to something that does not exist."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcp_taskruns.core.model.operation import NeededVariable
from mcp_taskruns.core.model.tool import Hints, Tool
from mcp_taskruns.errors import SettingsError
from mcp_taskruns.loading.catalog import Catalog, build_catalog, describe_changes
from mcp_taskruns.loading.loader import load
from mcp_taskruns.settings import Settings
from tests.format.files import FILES as FORMAT_FILES
from tests.format.files import FOLDER

BUILTIN = load([], rest=True)

WRITING = Hints(False, False, False, True)


def build(**settings: Any) -> Catalog:
    return build_catalog(BUILTIN.tools, Settings(**settings), BUILTIN.rest_tools)


def rest_tool(method: str, path: str) -> Tool:
    (found,) = (tool for tool in BUILTIN.rest_tools if tool.route is not None and tool.route[:2] == (method, path))
    return found


def names(catalog: Catalog) -> set[str]:
    return set(catalog.tools)


def routed(catalog: Catalog) -> set[str]:
    return {route.tool.name for route in catalog.routes}


def test_all_tools_and_routes_are_served_by_default() -> None:
    catalog = build()
    assert len(catalog.tools) == 40
    assert len(catalog.routes) == 31
    assert len(catalog.notes) == 2
    assert [tool.name for tool in catalog.tools.values()] == list(catalog.tools)


def test_catalog_without_rest_tools_has_no_routes_and_notes() -> None:
    catalog = build_catalog(BUILTIN.tools, Settings())
    assert len(catalog.tools) == 40
    assert (catalog.routes, catalog.notes) == ((), ())


@pytest.mark.parametrize(
    ("settings", "tools", "routes"),
    [
        ({"only": ("runway",)}, 4, 2),
        ({"only": ("runway", "inngest")}, 9, 5),
        ({"tools": ("runway-*",)}, 4, 2),
        ({"tools": ("render-list-tasks", "*-wait-for-run")}, 5, 1),
        ({"exclude_tools": ("posthog-*",)}, 18, 12),
        ({"tools": ("render-*",), "exclude_tools": ("*-list-*",)}, 7, 5),
        ({"only": ("render",), "tools": ("runway-*",)}, 0, 0),
        ({"only": ("render",), "read_only": True}, 7, 5),
    ],
)
def test_filters_apply_to_tools_and_their_routes(settings: dict[str, Any], tools: int, routes: int) -> None:
    catalog = build(**settings)
    assert (len(catalog.tools), len(catalog.routes)) == (tools, routes)
    assert routed(catalog) <= names(catalog)


@pytest.mark.parametrize(
    ("environment", "is_served"),
    [
        ({}, False),
        ({"ACME_KEY_V2": ""}, False),
        ({"ACME_KEY_V2": "  "}, False),
        ({"ACME_KEY_V2": "x"}, True),
        ({"ACME_KEY": "x"}, False),
        ({"ACME_KEY": "v2-"}, False),
        ({"ACME_KEY": " v2-x\n"}, True),
        ({"ACME_KEY": "old-v2-x"}, False),
        ({"ACME_KEY": "x", "ACME_KEY_V2": "x"}, True),
    ],
)
def test_tool_is_served_if_a_needed_variable_has_a_matching_value(environment: dict[str, str], is_served: bool) -> None:
    needs = (NeededVariable("ACME_KEY_V2", re.compile(".+")), NeededVariable("ACME_KEY", re.compile("v2-.+")))
    tool, other = (replace(one, name=name) for one, name in zip(BUILTIN.tools, ("needy", "other"), strict=False))
    needy = replace(tool, operation=replace(tool.operation, needs=needs))
    route = replace(rest_tool("GET", "/v1/v1/runs/{runid}"), operation=needy.operation)
    catalog = build_catalog([needy, other], Settings(environment=environment), [route])
    assert names(catalog) == ({"needy", "other"} if is_served else {"other"})
    assert catalog.missing == ({} if is_served else {"needy": "ACME_KEY_V2 or ACME_KEY"})
    assert len(catalog.routes) == int(is_served)
    assert needy.operation in catalog.operations


def test_patterns_are_case_sensitive() -> None:
    with pytest.raises(SettingsError, match="no tool matches 'Runway-\\*'"):
        build(tools=("Runway-*",))


def test_operations_include_those_of_tools_that_are_not_served() -> None:
    assert list(build(only=("runway",)).operations) == list(build().operations)
    called = [tool.operation for tool in (*BUILTIN.tools, *BUILTIN.rest_tools)]
    side = build().operations[len(called) :]
    assert list(build().operations[: len(called)]) == called
    # Inngest's result, steps and retry, PostHog's log, retry and newer cancellation
    assert {operation.name for operation in side} == {
        "getrunv2",
        "getruntracev2",
        "rerunv2",
        "tasksrunslogsretrieve",
        "tasksrunsresumeincloudcreate",
        "tasksrunscancelcreate",
    }


def test_operation_without_an_mcp_tool_has_its_own_route() -> None:
    without = [tool for tool in BUILTIN.tools if tool.name != "render-list-tasks"]
    catalog = build_catalog(without, Settings(), BUILTIN.rest_tools)
    assert len(catalog.routes) == 31
    assert len(routed(catalog) - names(catalog)) == 1


def test_filters_apply_to_routes_without_an_mcp_tool() -> None:
    tool = rest_tool("POST", "/v1/task-runs")
    alone = replace(tool, name="render-alone", hints=WRITING)
    others = [one for one in BUILTIN.tools if one.operation.name != tool.operation.name]

    def routes(**settings: Any) -> list[str]:
        return [route.name for route in build_catalog(others, Settings(**settings), [alone]).routes]

    assert routes() == ["render-alone"]
    assert routes(tools=("render-*",)) == ["render-alone"]
    assert routes(read_only=True) == []
    assert routes(tools=("runway-*",)) == []
    assert routes(only=("runway",)) == []


def test_excluding_a_tool_excludes_every_route_of_its_operation() -> None:
    rest = rest_tool("GET", "/v1/tasks")
    # Another argument makes it a separate route of the same operation.
    schema = {**rest.input_schema, "properties": {**rest.input_schema["properties"], "more": {"type": "string"}}}
    other = replace(rest, name="render-other", input_schema=schema)

    def routes(**settings: Any) -> list[str]:
        return [route.name for route in build_catalog(BUILTIN.tools, Settings(**settings), [other]).routes]

    assert routes() == ["render-other"]
    assert routes(exclude_tools=("render-list-tasks",)) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"only": ("rendr", "acme", "runway")},
            "--only: no provider has the prefix acme, rendr; prefixes: inngest, ",
        ),
        (
            {"tools": ("render-*", "rendr-*")},
            "--tools: no tool matches 'rendr-*'; run `mcp-taskruns tools` to list them",
        ),
        ({"exclude_tools": ("rendr-*",)}, "--exclude-tools: no tool matches 'rendr-*'"),
        (
            {"base_uri": ("acme=https://a.example",)},
            "--base-uri: no capability file consumes acme; namespaces: inngest-runs, ",
        ),
    ],
)
def test_settings_that_match_nothing_are_rejected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build(**settings)
    assert str(caught.value).startswith(message)


def test_base_uri_of_an_existing_namespace_is_accepted() -> None:
    assert len(build(base_uri=("inngest-runs=http://127.0.0.1:1",)).tools) == 40


def test_settings_that_match_nothing_are_accepted_if_a_file_is_missing() -> None:
    settings = Settings(exclude_tools=("rendr-*",), base_uri=("acme=https://a.example",))
    assert len(build_catalog(BUILTIN.tools, settings, BUILTIN.rest_tools, is_complete=False).tools) == 40


def changed(catalog: Catalog, *without: str, **others: str) -> Catalog:
    """Return the catalog without some tools, and with tools that have other descriptions."""
    tools = {name: tool for name, tool in catalog.tools.items() if name not in without}
    for name, description in others.items():
        listed = name.replace("_", "-")
        tools[listed] = replace(next(iter(catalog.tools.values())), name=listed, description=description)
    return replace(catalog, tools=tools)


def describe(old: Catalog, new: Catalog) -> list[str]:
    return list(describe_changes(old, new))


def test_changes_are_described_in_short_lines() -> None:
    catalog = build(only=("runway",))
    more = changed(catalog, a_b="one")
    assert describe(catalog, catalog) == []
    assert describe(catalog, more) == ["added: a-b"]
    assert describe(more, catalog) == ["removed: a-b"]
    assert describe(more, changed(catalog, a_b="two")) == ["changed: a-b"]
    assert describe(more, changed(catalog, "runway-wait-for-run", a_b="two", c="new")) == [
        "added: c",
        "removed: runway-wait-for-run",
        "changed: a-b",
    ]


@pytest.mark.parametrize(("count", "shown"), [(5, "t0, t1, t2, t3, t4"), (7, "t0, t1, t2, t3, t4 and 2 more")])
def test_only_the_first_changes_are_listed(count: int, shown: str) -> None:
    catalog = build(only=("runway",))
    many: Mapping[str, str] = {f"t{number}": "new" for number in range(count)}
    assert describe(catalog, changed(catalog, **many)) == [f"added: {shown}"]


CAPABILITY = """
naftiko: 1.0.0-alpha2
info: {label: Made, tags: [Made]}
capability:
  consumes:
  - type: http
    namespace: made
    baseUri: https://made.example
    resources:
    - name: a
      path: /a
      operations:
      - name: make
        method: POST
        inputParameters: [PARAMETERS]
        BODY
  exposes:
  - type: rest
    namespace: r
    resources:
    - {path: /v1/a, name: a, operations: [{method: POST, name: make, call: made.make, with: {title: rest.title}}]}
  - type: mcp
    namespace: m
    tools:
    - {name: make, call: made.make, with: {title: tools.title}, hints: {readOnly: false}}
"""
TITLE = "{name: title, in: body, type: string}"


@pytest.mark.parametrize(
    ("parameters", "body"),
    [
        (TITLE, ""),
        (TITLE, "body: {type: json, data: {kind: fixed, title: '{{title}}'}}"),
        (TITLE, "body: {type: formUrlEncoded, data: {kind: fixed, title: '{{title}}'}}"),
        (f"{TITLE}, {{name: X-Kind, in: header, type: string, value: fixed}}", ""),
        (f"{TITLE}, {{name: filter, in: query, type: object, value: {{a: [1]}}}}", ""),
    ],
    ids=["members", "template", "form", "constant", "constant object"],
)
def test_route_and_tool_of_an_operation_are_matched_for_every_body_shape(
    parameters: str, body: str, tmp_path: Path
) -> None:
    text = CAPABILITY.replace("PARAMETERS", parameters).replace("BODY", body)
    (tmp_path / "made.yaml").write_text(text, "utf-8")
    loaded = load([tmp_path], rest=True)
    assert loaded.problems == ()
    catalog = build_catalog(loaded.tools, Settings(), loaded.rest_tools)
    assert routed(catalog) == names(catalog) == {"made-make"}
    hidden = build_catalog(loaded.tools, Settings(read_only=True), loaded.rest_tools)
    assert (routed(hidden), names(hidden)) == (set(), set())


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("path", [FOLDER / name for name in FORMAT_FILES], ids=lambda path: path.name)
def test_catalog_has_the_tools_and_routes_of_a_file(path: Path, read_only: bool) -> None:
    loaded = load([path], rest=True)
    assert loaded.problems == ()
    catalog = build_catalog(loaded.tools, Settings(read_only=read_only), loaded.rest_tools)
    served = [tool for tool in loaded.tools if tool.hints.read_only or not read_only]
    assert list(catalog.tools.values()) == served
    assert len(catalog.operations) == len(loaded.tools) + len(loaded.rest_tools)
    exposed = {tool.route[0].upper() + " " + str(tool.operation.name) for tool in loaded.rest_tools if tool.route}
    routed = {f"{route.method} {route.tool.operation.name}" for route in catalog.routes}
    assert routed <= exposed
    if read_only:
        assert all(route.tool.hints.read_only for route in catalog.routes)
    else:
        assert routed == exposed


@pytest.mark.parametrize("uri", ["http://api.example", "https://{host}", "https://api.example?key=1", "https://a b"])
def test_insecure_or_invalid_base_uri_is_rejected(uri: str) -> None:
    loaded = load([])
    namespace = loaded.tools[0].operation.namespace
    with pytest.raises(SettingsError, match="is not a valid base URI; use https"):
        build_catalog(loaded.tools, Settings(base_uri=(f"{namespace}={uri}",)))


def test_loopback_base_uri_may_use_http() -> None:
    loaded = load([])
    namespace = loaded.tools[0].operation.namespace
    assert build_catalog(loaded.tools, Settings(base_uri=(f"{namespace}=http://127.0.0.1:1",))).tools


THING = """\
naftiko: 1.0.0-alpha2
info: {tags: [Thing]}
capability:
  consumes:
  - {namespace: things, baseUri: 'https://api.example', resources: [{path: /things, operations: [{name: list}]}]}
  exposes:
  - {type: mcp, tools: [{name: list, call: things.list}, {name: list-all, call: things.list}]}
"""

ROUTES = "  - {type: rest, resources: [{path: /v1/things, operations: [{method: GET, call: things.list}]}]}\n"


@pytest.mark.parametrize("with_builtin", [False, True])
def test_file_without_a_rest_adapter_is_noted_if_routes_are_served(tmp_path: Path, with_builtin: bool) -> None:
    def notes(text: str, **settings: Any) -> list[str]:
        (tmp_path / "thing.yaml").write_text(text)
        loaded = load([tmp_path], rest=True)
        others = BUILTIN.tools if with_builtin else ()
        other_routes = BUILTIN.rest_tools if with_builtin else ()
        catalog = build_catalog([*loaded.tools, *others], Settings(**settings), [*loaded.rest_tools, *other_routes])
        return [note for note in catalog.notes if "no routes" in note]

    assert notes(THING, rest=True) == [
        "the REST API has no routes for the 2 tools of thing (namespace things): add an adapter of type rest to its "
        "capability file"
    ]
    assert notes(THING) == notes(THING + ROUTES, rest=True) == []
