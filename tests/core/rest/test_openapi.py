"""The OpenAPI document of the REST server and the HTML page that shows it."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from typing import Any, get_args
from urllib.parse import quote

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from mcp_taskruns.core.model.operation import BaseUri, Location, Operation
from mcp_taskruns.core.model.tool import Hints, Tool
from mcp_taskruns.core.rest.openapi import openapi_document
from mcp_taskruns.core.rest.routes import Route
from mcp_taskruns.errors import Kind
from mcp_taskruns.servers.rest.docs_page import curl_example, docs_page, example_of
from tests.core.documents import Json

LIMIT = {"type": "integer", "description": "How many.", "minimum": 1, "maximum": 100, "default": 20}
RUN_ID = {"type": "string", "description": "Id of the run.", "examples": ["run-1"]}
NASTY = """<script>alert("1")<b>&amp; ]]> '"""


def route(
    method: str = "GET",
    path: str = "/v1/runs",
    arguments: Mapping[str, tuple[Location, Any]] | None = None,
    required: tuple[str, ...] = (),
    variables: Mapping[str, str] | None = None,
    *,
    name: str = "acme-list-runs",
    prefix: str = "acme",
    description: str = "Lists the runs.",
    output_schema: Json | None = None,
    body: str = "",
    **operation: Any,
) -> Route:
    """Return a route with these arguments, each a location and a schema."""
    arguments = arguments or {}
    tool = Tool(
        name=name,
        declared_name=name,
        prefix=prefix,
        title=f"Acme: {name}",
        description=description,
        hints=Hints(True, False, True, True),
        input_schema={
            "type": "object",
            "properties": {argument: schema for argument, (_, schema) in arguments.items()},
            "additionalProperties": False,
            "required": list(required),
        },
        operation=Operation(
            name=name,
            provider=prefix,
            method=method,
            base=BaseUri(None, ()),
            path=(path,),
            **operation,
        ),
        output_schema=output_schema,
    )
    return Route(
        method,
        path,
        tool,
        variables or {},
        {argument: location for argument, (location, _) in arguments.items()},
        body,
        name=name,
    )


RUN = {"runId": (Location.PATH, RUN_ID)}
GET_RUN = route("GET", "/v1/runs/{runid}", RUN, ("runId",), {"runid": "runId"}, name="acme-get-run")
LIST_RUNS = route("GET", "/v1/runs", {"limit": (Location.QUERY, LIMIT)})
START_RUN = route(
    "POST",
    "/v1/runs",
    {
        "wait_seconds": (Location.QUERY, {"type": "number", "minimum": 0}),
        "X-Trace": (Location.HEADER, {"type": "string"}),
        "payload": (
            Location.BODY,
            {
                "type": "object",
                "description": "What to run.",
                "required": ["task"],
                "properties": {
                    "task": {"type": "string", "examples": ["flow/it's"]},
                    "input": {"anyOf": [{"type": "array", "items": {}}, {"type": "object"}]},
                },
            },
        ),
    },
    ("payload",),
    name="acme-start-run",
    body="payload",
)
FOLLOW = route("GET", "/v1/events", name="acme-follow", accept="text/event-stream, */*;q=0.1")
EXPORT = route("GET", "/v1/export", name="zeta-export", prefix="zeta", returns_file=True)
RENAME = route("PATCH", "/v1/names", {"title": (Location.BODY, {"type": "string"})}, name="acme-rename")
SEVERAL = (LIST_RUNS, START_RUN, EXPORT, GET_RUN, FOLLOW, RENAME)


def documented(*routes: Route, protected: bool = False, server: str = "/") -> Json:
    """Return the document of the routes after validating it as OpenAPI 3.1 and JSON."""
    document = openapi_document(routes, version="1.2.3", protected=protected, server=server)
    assert json.loads(json.dumps(document)) == document
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    return document


def only(document: Json) -> Json:
    """Return the only operation of a document."""
    ((operation,),) = (item.values() for item in document["paths"].values())
    found: Json = operation
    return found


def schemas(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key == "schema":
                yield value
            yield from schemas(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from schemas(item)


def test_document_without_routes_is_valid() -> None:
    assert documented()["paths"] == {}


def test_document_has_title_version_and_server() -> None:
    document = documented(server="https://runs.acme.example/api")
    assert (document["openapi"], document["info"]["version"]) == ("3.1.0", "1.2.3")
    assert document["servers"] == [{"url": "https://runs.acme.example/api"}]
    assert documented()["servers"] == [{"url": "/"}]


def test_operation_has_name_tag_and_description_of_the_tool() -> None:
    operation = only(documented(route()))
    assert operation == {
        "operationId": "acme-list-runs",
        "tags": ["acme"],
        "summary": "Acme: acme-list-runs",
        "description": "Lists the runs.",
        "responses": operation["responses"],
    }


def test_tags_are_the_prefixes_in_order() -> None:
    document = documented(
        route(path="/v1/z", name="zeta-a", prefix="zeta"),
        route(path="/v1/a", name="acme-a"),
        route(path="/v1/y", name="zeta-b", prefix="zeta"),
    )
    assert document["tags"] == [{"name": "zeta"}, {"name": "acme"}]


def test_methods_of_one_path_are_grouped() -> None:
    document = documented(*SEVERAL)
    assert {path: list(item) for path, item in document["paths"].items()} == {
        "/v1/runs": ["get", "post"],
        "/v1/export": ["get"],
        "/v1/runs/{runid}": ["get"],
        "/v1/events": ["get"],
        "/v1/names": ["patch"],
    }


def test_operation_id_is_the_name_of_the_route() -> None:
    assert only(documented(replace(LIST_RUNS, name="acme-list-runs-2")))["operationId"] == "acme-list-runs-2"


@pytest.mark.parametrize("path", ["/v1/{{runid}}.json", "/v1/{{ runid }}.json", "/v1/{runid}.json"])
def test_path_has_single_braces(path: str) -> None:
    document = documented(route("GET", path, RUN, ("runId",), {"runid": "runId"}))
    assert list(document["paths"]) == ["/v1/{runid}.json"]
    assert only(document)["parameters"][0]["description"] == "Id of the run."


def test_placeholder_is_a_required_path_parameter() -> None:
    (parameter,) = only(documented(GET_RUN))["parameters"]
    assert parameter == {
        "name": "runid",
        "in": "path",
        "required": True,
        "description": "Id of the run.",
        "schema": {"type": "string", "examples": ["run-1"]},
    }


def test_placeholder_is_required_even_with_a_default() -> None:
    optional = route("GET", "/v1/{project-id}", RUN, (), {"project-id": "runId"})
    (parameter,) = only(documented(optional))["parameters"]
    assert (parameter["name"], parameter["required"]) == ("project-id", True)


def test_placeholder_without_argument_takes_any_text() -> None:
    (parameter,) = only(documented(route("GET", "/v1/{other}")))["parameters"]
    assert parameter == {"name": "other", "in": "path", "required": True, "schema": {"type": "string"}}


def test_repeated_placeholder_is_one_parameter() -> None:
    repeated = route("GET", "/v1/{runid}/{runid}", RUN, ("runId",), {"runid": "runId"})
    assert len(only(documented(repeated))["parameters"]) == 1


def test_paths_that_differ_only_in_placeholder_names_are_merged() -> None:
    delete = route("DELETE", "/v1/runs/{id}", {"id": (Location.PATH, RUN_ID)}, ("id",), {"id": "id"}, name="acme-end")
    document = documented(GET_RUN, delete)
    assert list(document["paths"]) == ["/v1/runs/{runid}"]
    assert document["paths"]["/v1/runs/{runid}"]["delete"]["parameters"] == [
        {**document["paths"]["/v1/runs/{runid}"]["get"]["parameters"][0]}
    ]


def test_first_of_two_equal_routes_is_documented() -> None:
    document = documented(route(name="acme-first"), route(name="acme-second"))
    assert only(document)["operationId"] == "acme-first"


@pytest.mark.parametrize(
    ("place", "schema", "written"),
    [
        (Location.QUERY, LIMIT, {"schema": {key: LIMIT[key] for key in LIMIT if key != "description"}}),
        (Location.HEADER, {"type": "string"}, {"schema": {"type": "string"}}),
        (Location.COOKIE, {"type": "string"}, {"schema": {"type": "string"}}),
        (Location.QUERY, {}, {"schema": {}}),
        (Location.QUERY, {"type": "object"}, {"content": {"application/json": {"schema": {"type": "object"}}}}),
        (Location.HEADER, {"type": "array", "items": {}}, {"schema": {"type": "array", "items": {}}}),
    ],
)
def test_argument_is_a_parameter_at_its_location(place: Location, schema: Json, written: Json) -> None:
    (parameter,) = only(documented(route(arguments={"x": (place, schema)})))["parameters"]
    described = {"description": schema["description"]} if "description" in schema else {}
    assert parameter == {"name": "x", "in": str(place), "required": False, **described, **written}


def test_array_in_the_query_is_exploded() -> None:
    array = {"type": "array", "items": {"type": "string"}}
    (parameter,) = only(documented(route(arguments={"ids": (Location.QUERY, array)})))["parameters"]
    assert (parameter["style"], parameter["explode"], parameter["schema"]) == ("form", True, array)


def test_required_argument_is_a_required_parameter() -> None:
    places = {"a": (Location.QUERY, LIMIT), "b": (Location.QUERY, LIMIT)}
    parameters = only(documented(route(arguments=places, required=("b",))))["parameters"]
    assert [(parameter["name"], parameter["required"]) for parameter in parameters] == [("a", False), ("b", True)]


def test_argument_can_be_the_whole_body() -> None:
    operation = only(documented(START_RUN))
    schema = dict(START_RUN.tool.input_schema["properties"]["payload"])
    description = schema.pop("description")
    assert operation["requestBody"] == {
        "description": description,
        "required": True,
        "content": {"application/json": {"schema": schema}},
    }
    assert [parameter["name"] for parameter in operation["parameters"]] == ["wait_seconds", "X-Trace"]


@pytest.mark.parametrize(("required", "expected"), [((), {}), (("title",), {"required": ["title"]})])
def test_body_arguments_are_members_of_an_object(required: tuple[str, ...], expected: Json) -> None:
    title, tags = {"type": "string", "description": "The title."}, {"type": "array", "items": {}}
    places = {"title": (Location.BODY, title), "tags": (Location.BODY, tags)}
    operation = only(documented(route("POST", arguments=places, required=required)))
    assert operation["requestBody"] == {
        "required": bool(required),
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"title": title, "tags": tags},
                    "additionalProperties": False,
                    **expected,
                }
            }
        },
    }


@pytest.mark.parametrize(
    ("served", "content"),
    [
        (LIST_RUNS, {"application/json": {"schema": {}}, "*/*": {"schema": {}}}),
        (FOLLOW, {"text/event-stream": {"schema": {"type": "string"}}}),
        (EXPORT, {"*/*": {"schema": {}}}),
        (
            route(output_schema={"type": "object", "properties": {"id": {"type": "string"}}}),
            {
                "application/json": {"schema": {"type": "object", "properties": {"id": {"type": "string"}}}},
                "*/*": {"schema": {}},
            },
        ),
        (route(output_schema={}), {"application/json": {"schema": {}}, "*/*": {"schema": {}}}),
    ],
)
def test_success_response_has_its_media_type(served: Route, content: Json) -> None:
    assert only(documented(served))["responses"]["2XX"]["content"] == content


def test_every_error_is_a_problem() -> None:
    document = documented(LIST_RUNS)
    responses = only(document)["responses"]
    assert list(responses) == ["2XX", "400", "404", "429", "default"]
    for status in ("400", "404", "429", "default"):
        name = responses[status]["$ref"].removeprefix("#/components/responses/")
        assert document["components"]["responses"][name]["content"] == {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        }


def test_response_429_has_retry_after() -> None:
    responses = documented(LIST_RUNS)["components"]["responses"]
    assert [name for name, response in responses.items() if "headers" in response] == ["TooManyRequests"]
    assert list(responses["TooManyRequests"]["headers"]) == ["Retry-After"]


def test_problem_kinds_are_the_error_kinds() -> None:
    problem = documented()["components"]["schemas"]["Problem"]
    assert problem["properties"]["kind"]["enum"] == list(get_args(Kind))


def test_protected_server_requires_a_bearer_token() -> None:
    protected, open_ = documented(LIST_RUNS, protected=True), documented(LIST_RUNS)
    assert protected["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
    assert protected["security"] == [{"bearer": []}]
    assert "401" in only(protected)["responses"]
    assert "security" not in open_
    assert "securitySchemes" not in open_["components"]
    assert "401" not in only(open_)["responses"]


def test_every_schema_is_valid_json_schema() -> None:
    found = [schema for schema in schemas(documented(*SEVERAL)) if "$ref" not in schema]
    assert len(found) > len(SEVERAL)
    for schema in found:
        Draft202012Validator.check_schema(schema)


def test_tool_schemas_are_not_modified() -> None:
    before = json.dumps(START_RUN.tool.input_schema)
    documented(START_RUN)
    assert json.dumps(START_RUN.tool.input_schema) == before


class Page(HTMLParser):
    """Collects the elements, texts and links of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        """The texts outside of `pre`, which contains commands and JSON."""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        self.links += [value for key in ("href", "src") if (value := named.get(key))]
        self.ids += [value for value in [named.get("id")] if value]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "pre" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def test_page_is_self_contained() -> None:
    written = docs_page(documented(*SEVERAL))
    page = Page(written)
    assert page.open == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert [link for link in page.links if not link.startswith("#")] == ["openapi.json"]
    assert not re.search(r"url\(|@import", written)


def test_page_links_to_every_operation() -> None:
    page = Page(docs_page(documented(*SEVERAL)))
    names = [served.tool.name for served in SEVERAL]
    assert sorted(page.ids) == sorted(names)
    assert {link.removeprefix("#") for link in page.links if link.startswith("#")} == set(names)
    for served in SEVERAL:
        assert f"{served.method} {served.path} " in page.text
        assert served.tool.title in page.text


def test_page_groups_operations_by_provider() -> None:
    page = Page(docs_page(documented(*SEVERAL)))
    assert page.ids[-1] == EXPORT.tool.name
    assert page.links.index("#zeta-export") == len(SEVERAL) - 1


def test_page_describes_parameters() -> None:
    page = Page(docs_page(documented(LIST_RUNS, GET_RUN)))
    assert "limit query optional integer How many. Minimum: 1. Maximum: 100. Default: 20. " in page.text
    assert 'runid path required string Id of the run. Examples: "run-1". ' in page.text


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, "any"),
        ({"type": "array", "items": {"type": "string"}}, "array of string Can be repeated for several values."),
        ({"type": "array"}, "array of any Can be repeated for several values."),
        ({"type": "object"}, "object Encoded as JSON."),
        ({"type": "string", "format": "uuid"}, "string (uuid)"),
        ({"type": ["string", "null"]}, "string or null"),
        ({"enum": ["a", 1]}, '"a" | 1'),
        ({"anyOf": [{"type": "integer"}, {"oneOf": [{"type": "string"}]}]}, "integer or string"),
    ],
)
def test_page_summarises_schemas(schema: Json, expected: str) -> None:
    document = openapi_document([route(arguments={"x": (Location.QUERY, schema)})], version="1", protected=False)
    row = docs_page(document).split("<tr>")[-1].split("</tr>")[0]
    cells = [unescape(re.sub("<.*?>", "", cell)) for cell in row.split("<td>")[3:]]
    assert " ".join(filter(None, cells)) == expected


def test_page_shows_the_schema_of_a_body() -> None:
    page = docs_page(documented(START_RUN))
    (written,) = re.findall(r"<summary>Schema</summary>\n<pre>(.*?)</pre>", page, re.DOTALL)
    schema = {**START_RUN.tool.input_schema["properties"]["payload"]}
    del schema["description"]
    assert json.loads(unescape(written)) == schema
    assert "What to run." in Page(page).text


def full(text: str) -> Json:
    """Return a document that contains the text in every place that accepts text."""
    schema = {"type": "string", "description": text, "default": text, "format": text}
    places = {text: (Location.QUERY, schema), "body": (Location.BODY, schema), "b": (Location.HEADER, {"enum": [text]})}
    served = route(
        "POST", f"/v1/{text}", places, (text, "body", "b"), name=text, prefix=text, description=text, body="body"
    )
    document = openapi_document([served], version=text, protected=True, server=f"https://{text}")
    document["info"] |= {"title": text, "description": text}
    operation = document["paths"][f"/v1/{text}"]["post"]
    operation["parameters"][0]["in"] = text
    operation["responses"]["2XX"]["content"] = {text: {}}
    return {
        **document,
        "openapi": text,
        "paths": {f"/v1/{text}": {text: operation}},
        "components": {"schemas": {"Problem": {"properties": {"kind": {"enum": [text]}}}}},
    }


def test_page_escapes_text_of_the_document() -> None:
    nasty, plain = Page(docs_page(full(NASTY))), Page(docs_page(full("harmless")))
    assert nasty.tags == plain.tags
    assert nasty.ids == [NASTY]
    assert nasty.links == ["#" + quote(NASTY), "openapi.json"]
    # Methods are in capitals, values are JSON.
    shown = plain.text.replace('"harmless"', json.dumps(NASTY)).replace("HARMLESS", NASTY.upper())
    assert nasty.text == shown.replace("harmless", NASTY)


@pytest.mark.parametrize(
    ("served", "expected"),
    [
        (LIST_RUNS, "Returns application/json or any other type."),
        (FOLLOW, "Returns text/event-stream."),
        (EXPORT, "Returns a file of any type."),
    ],
)
def test_page_describes_responses(served: Route, expected: str) -> None:
    assert expected in Page(docs_page(documented(served))).text


def test_page_shows_the_server_address() -> None:
    page = Page(docs_page(documented(server="https://runs.acme.example/")))
    assert "this server: https://runs.acme.example ." in page.text
    assert "this server (scheme, host and port)." in Page(docs_page(documented())).text


def test_page_mentions_tokens_only_if_protected() -> None:
    assert "$TOKEN" in docs_page(documented(LIST_RUNS, protected=True))
    assert "$TOKEN" not in docs_page(documented(LIST_RUNS))


def command(served: Route, protected: bool = False) -> str:
    document = documented(served, protected=protected)
    ((path, operations),) = document["paths"].items()
    return curl_example(served.method, path, operations[served.method.lower()], protected)


@pytest.mark.parametrize(
    ("served", "expected"),
    [
        (LIST_RUNS, 'curl "$BASE/v1/runs"'),
        (GET_RUN, 'curl "$BASE/v1/runs/run-1"'),
        (FOLLOW, 'curl --no-buffer "$BASE/v1/events"'),
        (route("HEAD"), 'curl --head "$BASE/v1/runs"'),
        (route("DELETE"), 'curl --request DELETE "$BASE/v1/runs"'),
        (
            route("GET", "/v1/{task-id}.json", variables={"task-id": "task_id"}),
            'curl "$BASE/v1/TASK_ID.json"',
        ),
        (
            route(arguments={"$a[]": (Location.QUERY, {"type": "array", "items": LIMIT})}, required=("$a[]",)),
            'curl "$BASE/v1/runs?%24a%5B%5D=20"',
        ),
        (
            route(arguments={"x": (Location.QUERY, {"type": "array", "examples": [[]]})}, required=("x",)),
            'curl "$BASE/v1/runs?x="',
        ),
        (
            route(arguments={"X-Env": (Location.HEADER, {"examples": ["it's"]})}, required=("X-Env",)),
            "curl \"$BASE/v1/runs\" \\\n  --header 'X-Env: it'\"'\"'s'",
        ),
        (
            START_RUN,
            "curl --request POST \"$BASE/v1/runs\" \\\n  --header 'Content-Type: application/json' \\\n"
            '  --data \'{"task": "flow/it\'"\'"\'s"}\'',
        ),
    ],
)
def test_example_is_the_smallest_request(served: Route, expected: str) -> None:
    assert command(served) == expected


def test_example_passes_the_token_of_a_protected_server() -> None:
    assert command(LIST_RUNS, protected=True) == ('curl "$BASE/v1/runs" \\\n  --header "Authorization: Bearer $TOKEN"')


@pytest.mark.parametrize("text", ["$(reboot)", "`reboot`", '"; reboot; "', "'; reboot; '", "a\nb", "!!", "\\"])
def test_example_is_quoted_for_the_shell(text: str) -> None:
    schema = {"type": "string", "examples": [text]}
    places = {text: (Location.QUERY, schema), "h": (Location.HEADER, schema), "body": (Location.BODY, schema)}
    served = route("POST", f"/v1/{text}/{{id}}", places, (text, "body", "h"), {"id": text}, body="body")
    document = openapi_document([served], version="1", protected=False)
    ((path, operations),) = document["paths"].items()
    written = curl_example("POST", path, operations["post"], False)
    words = shlex.split(written.replace(" \\\n", " "))
    assert [words[:3], words[4::2]] == [["curl", "--request", "POST"], ["--header", "--header", "--data"]]
    assert (words[5], json.loads(words[9])) == (f"h: {text}", text)
    # A shell expands these inside double quotes; only the dollar of $BASE is intended.
    assert not set('$`"\\!\n') & set(words[3].removeprefix("$"))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({}, "text"),
        ({"type": "string"}, "text"),
        ({"type": "integer"}, 1),
        ({"type": "number", "minimum": 5}, 5),
        ({"type": "boolean"}, True),
        ({"type": "null"}, "text"),
        ({"type": ["integer", "null"]}, 1),
        ({"type": "array"}, ["text"]),
        ({"type": "array", "items": {"type": "boolean"}}, [True]),
        ({"type": "object"}, {}),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 1}),
        ({"type": "object", "required": ["b", "c"], "properties": {"a": {}, "b": {"const": 0}}}, {"b": 0, "c": "text"}),
        ({"oneOf": [{"enum": ["x", "y"]}, {}]}, "x"),
        ({"examples": [[5], {}], "type": "object"}, [5]),
        ({"examples": [], "default": None}, None),
    ],
)
def test_example_value_is_from_the_schema_or_minimal(schema: Json, value: Any) -> None:
    assert example_of(schema) == value
