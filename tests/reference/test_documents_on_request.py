"""The files of providers that are loaded on request agree with the providers' OpenAPI documents.

Every operation is called with arguments made from its document. What a document lacks is listed here with its source.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from mcp_taskruns.core.calls.request import HttpRequest, build_request
from mcp_taskruns.core.model.operation import Location, Operation
from mcp_taskruns.loading.catalog import build_catalog
from mcp_taskruns.loading.files import files_on_request
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.settings import Settings
from tests.reference.data import OPENAPI_ON_REQUEST

Json = dict[str, Any]

ENVIRONMENT = {"GITHUB_TOKEN": "ghp_simulated", "TRIGGER_SECRET_KEY": "tr_dev_1234"}
FILES = {path.stem: path for path in files_on_request() if path.stem in {"github-actions", "trigger-dev"}}
TOOLS = {name: load_tools([path]) for name, path in FILES.items()}
OPERATIONS = {
    f"{name} {operation.name}": (name, operation)
    for name, tools in TOOLS.items()
    for operation in build_catalog(tools, Settings()).operations
}

UNDOCUMENTED_OPERATIONS = {
    # docs.github.com/rest/users/users: Get the authenticated user. The document is that of Actions only.
    "github-actions getauthenticateduser",
}
UNDOCUMENTED = {
    # github.blog/changelog 2026-02-19: Workflow dispatch API now returns run IDs
    ("github-actions createworkflowdispatchevent", "body.return_run_details"),
}
UNDOCUMENTED_STATUSES = {
    "github-actions": set[str](),
    # trigger.dev/docs: Runs
    "trigger-dev": {"DEQUEUED", "WAITING", "EXPIRED", "TIMED_OUT"},
}
STATUSES = {
    "github-actions": ["components", "parameters", "workflow-run-status", "schema", "enum"],
    "trigger-dev": ["components", "schemas", "CommonRunObject", "properties", "status", "enum"],
}
"""Where the documents list the statuses of a run, and GitHub also its conclusions."""

every_operation = pytest.mark.parametrize("key", [key for key in OPERATIONS if key not in UNDOCUMENTED_OPERATIONS])


@cache
def read_document(name: str) -> Any:
    return json.loads(OPENAPI_ON_REQUEST[name].read_text(encoding="utf-8"))


def resolve(part: Any, document: Any, depth: int = 0) -> Any:
    """Return a part of a document without references, with the members of `allOf` in one object."""
    if isinstance(part, list):
        return [resolve(item, document, depth) for item in part]
    if not isinstance(part, dict) or depth > 20:
        return part
    if "$ref" in part:
        target = document
        for step in part["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return resolve(target, document, depth + 1)
    plain = {name: resolve(item, document, depth + 1) for name, item in part.items()}
    for one in plain.pop("allOf", ()):
        plain = {**one, **plain, "properties": {**one.get("properties", {}), **plain.get("properties", {})}}
    return plain


def shape(operation: Operation) -> str:
    """Return the path of an operation with `{}` for each variable."""
    return "".join(part if isinstance(part, str) else "{}" for part in operation.path)


@cache
def described(key: str) -> tuple[Json, dict[tuple[str, str], Json], Json]:
    """Return an operation in the document, the schemas of its parameters, and the schema of its body."""
    name, operation = OPERATIONS[key]
    document = read_document(name)
    paths = {re.sub(r"{[^}]+}", "{}", path): item for path, item in document["paths"].items()}
    item = paths[shape(operation)]
    found = item[operation.method.lower()]
    parameters: dict[tuple[str, str], Json] = {}
    for one in resolve([*item.get("parameters", ()), *found.get("parameters", ())], document):
        named = (
            members(one["name"], one["schema"]) if one.get("style") == "deepObject" else [(one["name"], one["schema"])]
        )
        parameters |= {(one["in"], text): {**one, "schema": schema} for text, schema in named}
    body = resolve(found.get("requestBody", {}), document)
    return found, parameters, body.get("content", {}).get("application/json", {}).get("schema", {})


def members(name: str, schema: Json) -> Iterator[tuple[str, Json]]:
    """Yield the names and schemas of the parameters that a parameter of the style `deepObject` consists of."""
    properties = schema.get("properties", {})
    if not properties:
        yield name, schema
    for member, inner in properties.items():
        yield from members(f"{name}[{member}]", inner)


def sample(schema: Json) -> Any:
    """Return a value that a schema allows."""
    for keyword in ("example", "default"):
        if keyword in schema:
            return schema[keyword]
    if "enum" in schema:
        return schema["enum"][0]
    for keyword in ("oneOf", "anyOf"):
        if keyword in schema:
            return sample(schema[keyword][0])
    if schema.get("type") == "array":
        return [sample(schema.get("items", {}))]
    if schema.get("type") == "object" or "properties" in schema:
        return {name: sample(inner) for name, inner in schema.get("properties", {}).items()}
    return {"integer": 1, "number": 1, "boolean": True}.get(schema.get("type", ""), "text")


def arguments_of(key: str) -> Json:
    """Return arguments for every parameter of an operation."""
    _, parameters, body = described(key)
    _, operation = OPERATIONS[key]
    arguments: Json = {}
    for parameter in operation.parameters:
        if parameter.argument is None:
            continue
        place = (parameter.location.value, parameter.name)
        if parameter.location is Location.BODY:
            is_whole = parameter.name == "body"
            arguments[parameter.argument] = sample(body if is_whole else body["properties"][parameter.name])
        else:
            arguments[parameter.argument] = sample(parameters[place]["schema"])
    return arguments


def build(key: str) -> HttpRequest:
    return build_request(OPERATIONS[key][1], arguments_of(key), ENVIRONMENT)


def undocumented(schema: Any, value: Any, at: str = "body") -> Iterator[str]:
    """Yield the members of the value that are missing in the schema, where the schema lists members."""
    if isinstance(value, dict) and "properties" in schema:
        for name, member in value.items():
            if name in schema["properties"]:
                yield from undocumented(schema["properties"][name], member, f"{at}.{name}")
            else:
                yield f"{at}.{name}"


@every_operation
def test_method_and_url_of_an_operation_are_in_the_document(key: str) -> None:
    name, operation = OPERATIONS[key]
    described(key)
    address = urlsplit(build(key).url)
    (server,) = read_document(name)["servers"]
    defaults = {variable: one["default"] for variable, one in server.get("variables", {}).items()}
    assert f"{address.scheme}://{address.netloc}" == server["url"].format(**defaults)
    assert re.fullmatch(re.escape(shape(operation)).replace(r"\{\}", "[^/]+"), address.path)


@every_operation
def test_parameters_of_a_request_are_in_the_document(key: str) -> None:
    found, parameters, _ = described(key)
    request = build(key)
    query = parse_qsl(urlsplit(request.url).query, keep_blank_values=True)
    own = {"accept", "authorization", "content-type"}
    sent = {("query", name) for name, _ in query} | {
        ("header", name) for name, _ in request.headers if name.lower() not in own
    }
    assert sent - set(parameters) == set(), found["operationId"]
    required = {place for place, one in parameters.items() if one.get("required") and place[0] == "query"}
    assert required - sent == set()


@every_operation
def test_body_of_a_request_matches_the_document(key: str) -> None:
    found, _, schema = described(key)
    request = build(key)
    if request.content is None:
        assert not found.get("requestBody", {}).get("required")
        return
    body = json.loads(request.content)
    assert {place for place in undocumented(schema, body) if (key, place) not in UNDOCUMENTED} == set()
    validator = Draft202012Validator(schema, format_checker=FormatChecker())
    assert list(validator.iter_errors(body)) == []
    assert set(schema.get("required", ())) <= set(body)


def documented_arguments(schema: Mapping[str, Any], at: str) -> Iterator[str]:
    for name, inner in schema.get("properties", {}).items():
        yield f"{at}.{name}"
        yield from documented_arguments(inner, f"{at}.{name}")


@pytest.mark.parametrize("name", FILES)
def test_members_of_a_body_are_in_the_document(name: str) -> None:
    """Bodies that are one argument list their members in the overlay."""
    for tool in TOOLS[name]:
        body = tool.input_schema["properties"].get("body")
        if body is not None:
            _, _, schema = described(f"{name} {tool.operation.name}")
            assert set(documented_arguments(body, "body")) == set(documented_arguments(schema, "body"))


@pytest.mark.parametrize("name", FILES)
def test_statuses_of_the_document_are_described(name: str) -> None:
    listed = read_document(name)
    for step in STATUSES[name]:
        listed = listed[step]
    statuses = next(tool.runs.statuses for tool in TOOLS[name] if tool.runs)
    known = {part for native in (*statuses.exact, *(native for native, _ in statuses.patterns)) for part in native}
    conclusions = {"action_required", "failure", "stale", "timed_out"} if name == "github-actions" else set()
    assert set(listed) - known - conclusions == set()
    assert known - set(listed) - {"*"} == UNDOCUMENTED_STATUSES[name]


def test_what_a_document_lacks_is_sent_only_where_that_is_listed() -> None:
    sent = {
        (key, place)
        for key in OPERATIONS
        if key not in UNDOCUMENTED_OPERATIONS and (content := build(key).content) is not None
        for place in undocumented(described(key)[2], json.loads(content))
    }
    assert sent == UNDOCUMENTED
    assert set(OPERATIONS) >= UNDOCUMENTED_OPERATIONS
