"""The REST routes as an OpenAPI document, from the same schemas that the tools list."""

from collections.abc import Sequence
from typing import Any, get_args

from mcp_taskruns.core.format.templates import PLACEHOLDER, placeholders_of
from mcp_taskruns.core.model.operation import Location
from mcp_taskruns.core.rest.routes import Route, route_key
from mcp_taskruns.errors import Kind

Json = dict[str, Any]

PROBLEM_TYPE = "application/problem+json"
ANY_TYPE = "*/*"
SUCCESS = "2XX"

_ANY_TEXT: Json = {"type": "string"}
_NOTE: Json = {"X-Note": {"description": "What this server has to say of the answer.", "schema": _ANY_TEXT}}
_RETRY_AFTER: Json = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}

PROBLEM: Json = {
    "type": "object",
    "description": "What went wrong, whose fault it is and what to do about it (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "description": "Always about:blank."},
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599, "description": "The status of this answer."},
        "detail": {"type": "string", "description": "What went wrong, in a sentence."},
        "kind": {"type": "string", "enum": list(get_args(Kind)), "description": "What kind of error it is."},
        "retryable": {"type": "boolean", "description": "Whether the same request may succeed later."},
        "retry_after_s": {"type": "number", "minimum": 0, "description": "Seconds to wait before that."},
        "provider_status": {"type": "integer", "description": "The provider's status, where this answer has another."},
        "hint": {"type": "string", "description": "What to do next."},
    },
}

_PROBLEMS = {
    "400": ("BadRequest", "The arguments do not fit the operation."),
    "401": ("Unauthorized", "The bearer token is missing or is not one of this server's."),
    "404": ("NotFound", "There is nothing of this id at the provider."),
    "429": ("TooManyRequests", "The provider's rate is used up; the answer says when to ask again."),
    "default": ("Problem", "Another error of the request, of the provider or of this server."),
}


def openapi_document(routes: Sequence[Route], *, version: str, protected: bool, server: str = "/") -> Json:
    """The OpenAPI 3.1 document of the routes.

    `protected` says whether callers need a bearer token. Two paths that differ in the names of their placeholders alone
    are one path to OpenAPI, under the first one's names.
    """
    problems = {status: named for status, named in _PROBLEMS.items() if protected or status != "401"}
    responses = {status: {"$ref": f"#/components/responses/{name}"} for status, (name, _) in problems.items()}
    components: Json = {
        "schemas": {"Problem": PROBLEM},
        "responses": {name: _problem(name, told) for name, told in problems.values()},
    }
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "mcp-taskruns",
            "version": version,
            "description": "Start, watch and cancel long-running tasks at the providers that run them: "
            "the same operations that this server's MCP tools run.",
        },
        "servers": [{"url": server}],
        "tags": [{"name": prefix} for prefix in dict.fromkeys(route.tool.prefix for route in routes)],
        "paths": _paths(routes, responses),
        "components": components,
    }
    if protected:
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"bearer": []}]
    return document


def _problem(name: str, told: str) -> Json:
    headers = {"headers": _RETRY_AFTER} if name == "TooManyRequests" else {}
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": told, **headers, "content": {PROBLEM_TYPE: {"schema": schema}}}


def _paths(routes: Sequence[Route], problems: Json) -> Json:
    paths: dict[str, Json] = {}
    spelled: dict[str, str] = {}
    for route in routes:
        path = spelled.setdefault(route_key("", route.path), _single_braced(route.path))
        operations = paths.setdefault(path, {})
        # Of two routes that match the same requests, the first serves them.
        operations.setdefault(route.method.lower(), _operation(route, path, problems))
    return paths


def _single_braced(path: str) -> str:
    names = iter(placeholders_of(path))
    return PLACEHOLDER.sub(lambda _: f"{{{next(names)}}}", path)


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
    """What fills the path's placeholders, under the names that they have in the document."""
    named = dict(zip(placeholders_of(path), placeholders_of(route.path), strict=True))
    return [
        _parameter(name, Location.PATH, _schema(route, route.variables.get(variable, "")), required=True)
        for name, variable in named.items()
    ]


def _parameters(route: Route) -> list[Json]:
    return [
        _parameter(name, place, _schema(route, name), required=_is_required(route, name))
        for name, place in route.places.items()
        if place not in {Location.PATH, Location.BODY}
    ]


def _parameter(name: str, place: Location, schema: Json, *, required: bool) -> Json:
    described, schema = _apart(schema)
    parameter: Json = {"name": name, "in": str(place), "required": required, **described}
    if schema.get("type") == "object":  # has no form of its own in a query: it is JSON there
        return parameter | {"content": {"application/json": {"schema": schema}}}
    if schema.get("type") == "array" and place is Location.QUERY:
        parameter |= {"style": "form", "explode": True}  # the name is repeated, however the provider wants it
    return parameter | {"schema": schema}


def _request_body(route: Route) -> Json | None:
    members = [name for name, place in route.places.items() if place is Location.BODY]
    if not members:
        return None
    required = [name for name in members if _is_required(route, name)]
    if route.body:
        described, schema = _apart(_schema(route, route.body))
    else:
        described = {}
        schema = {
            "type": "object",
            "properties": {name: _schema(route, name) for name in members},
            "additionalProperties": False,
        }
        if required:
            schema["required"] = required
    return {**described, "required": bool(required), "content": {"application/json": {"schema": schema}}}


def _success(route: Route) -> Json:
    """What comes when all went well; the status is the provider's."""
    operation = route.tool.operation
    if operation.is_stream:
        return {"description": "Events as they come.", "content": {"text/event-stream": {"schema": _ANY_TEXT}}}
    content: Json = {ANY_TYPE: {"schema": {}}}
    if operation.returns_file:
        return {"description": "The file.", "headers": _NOTE, "content": content}
    schema = route.tool.output_schema
    json = {"application/json": {"schema": {} if schema is None else schema}}
    return {"description": "The answer.", "headers": _NOTE, "content": json | content}


def _schema(route: Route, argument: str) -> Json:
    """The schema of an argument; a placeholder that is none takes any text."""
    schema: Json = route.tool.input_schema["properties"].get(argument, _ANY_TEXT)
    return schema


def _is_required(route: Route, argument: str) -> bool:
    return argument in route.tool.input_schema.get("required", ())


def _apart(schema: Json) -> tuple[Json, Json]:
    """The description of a schema, which OpenAPI wants beside it, and the schema without it."""
    rest = dict(schema)
    described = rest.pop("description", None)
    return ({"description": described} if described else {}), rest
