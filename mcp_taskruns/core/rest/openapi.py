"""The OpenAPI document of the REST server, generated from the input and output schemas of the tools."""

from collections.abc import Sequence
from typing import Any, get_args

from mcp_taskruns.core.format.templates import PATH_PLACEHOLDER, placeholders_of
from mcp_taskruns.core.model.operation import Location
from mcp_taskruns.core.rest.routes import Route, route_key
from mcp_taskruns.errors import Kind

Json = dict[str, Any]

PROBLEM_TYPE = "application/problem+json"
ANY_TYPE = "*/*"
SUCCESS = "2XX"

_ANY_TEXT: Json = {"type": "string"}
_NOTE: Json = {"X-Note": {"description": "A note of this server about the response.", "schema": _ANY_TEXT}}
_RETRY_AFTER: Json = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}

PROBLEM: Json = {
    "type": "object",
    "description": "An error, its cause and what to do about it (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "description": "Always about:blank."},
        "title": {"type": "string", "description": "The reason phrase of the status code."},
        "status": {
            "type": "integer",
            "minimum": 400,
            "maximum": 599,
            "description": "The status code.",
        },
        "detail": {"type": "string", "description": "What happened."},
        "kind": {"type": "string", "enum": list(get_args(Kind)), "description": "The kind of the error."},
        "retryable": {"type": "boolean", "description": "Whether the same request may succeed later."},
        "retry_after_s": {"type": "number", "minimum": 0, "description": "Seconds to wait before the next request."},
        "provider_status": {"type": "integer", "description": "The provider's status code, if it differs."},
        "hint": {"type": "string", "description": "What to do next."},
    },
}

DESCRIPTION = (
    "Start, watch and cancel long-running tasks at the providers that run them, with the operations of this server's "
    "MCP tools."
)

_PROBLEMS = {
    "400": ("BadRequest", "The arguments are invalid."),
    "401": ("Unauthorized", "The bearer token is missing or invalid."),
    "404": ("NotFound", "The provider has no resource with this id."),
    "429": ("TooManyRequests", "The provider's rate limit is reached; `Retry-After` is the time to wait."),
    "default": ("Problem", "Another error of the request, the provider or this server."),
}


def openapi_document(routes: Sequence[Route], *, version: str, protected: bool, server: str = "/") -> Json:
    """Return the OpenAPI 3.1 document of the routes. `protected` is whether callers need a bearer token.

    OpenAPI does not distinguish two paths that differ only in the names of their placeholders: they become one path,
    with the names of the first.
    """
    problems = {status: problem for status, problem in _PROBLEMS.items() if protected or status != "401"}
    responses = {status: {"$ref": f"#/components/responses/{name}"} for status, (name, _) in problems.items()}
    components: Json = {
        "schemas": {"Problem": PROBLEM},
        "responses": {name: _problem_response(name, description) for name, description in problems.values()},
    }
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": "mcp-taskruns", "version": version, "description": DESCRIPTION},
        "servers": [{"url": server}],
        "tags": [{"name": prefix} for prefix in dict.fromkeys(route.tool.prefix for route in routes)],
        "paths": _paths(routes, responses),
        "components": components,
    }
    if protected:
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"bearer": []}]
    return document


def _problem_response(name: str, description: str) -> Json:
    headers = {"headers": _RETRY_AFTER} if name == "TooManyRequests" else {}
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, **headers, "content": {PROBLEM_TYPE: {"schema": schema}}}


def _paths(routes: Sequence[Route], problems: Json) -> Json:
    paths: dict[str, Json] = {}
    first_spelling: dict[str, str] = {}
    for route in routes:
        path = first_spelling.setdefault(route_key("", route.path), _with_single_braces(route.path))
        operations = paths.setdefault(path, {})
        # The router serves the first of two routes that match the same requests.
        operations.setdefault(route.method.lower(), _operation(route, path, problems))
    return paths


def _with_single_braces(path: str) -> str:
    names = iter(placeholders_of(path))
    return PATH_PLACEHOLDER.sub(lambda _: f"{{{next(names)}}}", path)


def _operation(route: Route, path: str, problems: Json) -> Json:
    tool = route.tool
    operation: Json = {
        "operationId": route.name,
        "tags": [tool.prefix],
        "summary": tool.title,
        "description": tool.description,
    }
    parameters = [*_path_parameters(route, path), *_parameters(route)]
    if parameters:
        operation["parameters"] = parameters
    body = _request_body(route)
    if body:
        operation["requestBody"] = body
    operation["responses"] = {SUCCESS: _success(route), **problems}
    return operation


def _path_parameters(route: Route, path: str) -> list[Json]:
    """Return the parameters for the placeholders of `path`, which may have other names in the route."""
    names = dict(zip(placeholders_of(path), placeholders_of(route.path), strict=True))
    return [
        _parameter(name, Location.PATH, _schema(route, route.variables.get(variable, "")), required=True)
        for name, variable in names.items()
    ]


def _parameters(route: Route) -> list[Json]:
    return [
        _parameter(name, location, _schema(route, name), required=_is_required(route, name))
        for name, location in route.locations.items()
        if location not in {Location.PATH, Location.BODY}
    ]


def _parameter(name: str, location: Location, schema: Json, *, required: bool) -> Json:
    description, schema = _split_description(schema)
    parameter: Json = {"name": name, "in": str(location), "required": required, **description}
    if schema.get("type") == "object":  # the server expects an object in a query as JSON
        return parameter | {"content": {"application/json": {"schema": schema}}}
    if schema.get("type") == "array" and location is Location.QUERY:
        parameter |= {"style": "form", "explode": True}  # repeated names, whatever the provider expects
    return parameter | {"schema": schema}


def _request_body(route: Route) -> Json | None:
    members = [name for name, location in route.locations.items() if location is Location.BODY]
    if not members:
        return None
    required = [name for name in members if _is_required(route, name)]
    if route.body:
        description, schema = _split_description(_schema(route, route.body))
    else:
        description = {}
        schema = {
            "type": "object",
            "properties": {name: _schema(route, name) for name in members},
            "additionalProperties": False,
        }
        if required:
            schema["required"] = required
    return {**description, "required": bool(required), "content": {"application/json": {"schema": schema}}}


def _success(route: Route) -> Json:
    """Return the description of a successful response, which has the provider's status code."""
    operation = route.tool.operation
    content: Json
    if operation.is_stream:
        return {
            "description": "A stream of server-sent events.",
            "content": {"text/event-stream": {"schema": _ANY_TEXT}},
        }
    content = {ANY_TYPE: {"schema": {}}}
    if operation.returns_file:
        return {"description": "The file.", "headers": _NOTE, "content": content}
    schema = route.tool.output_schema
    json = {"application/json": {"schema": {} if schema is None else schema}}
    return {"description": "The response.", "headers": _NOTE, "content": json | content}


def _schema(route: Route, argument: str) -> Json:
    """Return the schema of an argument. A placeholder that is not an argument takes any text."""
    schema: Json = route.tool.input_schema["properties"].get(argument, _ANY_TEXT)
    return schema


def _is_required(route: Route, argument: str) -> bool:
    return argument in route.tool.input_schema.get("required", ())


def _split_description(schema: Json) -> tuple[Json, Json]:
    """Return the description, which OpenAPI expects beside a schema, and the schema without it."""
    rest = dict(schema)
    description = rest.pop("description", None)
    return ({"description": description} if description else {}), rest
