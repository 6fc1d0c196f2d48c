"""The REST side of capability files: which request is which call of which tool."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mcp_taskruns.core.format.names import distinct_names, file_of, slug
from mcp_taskruns.core.format.templates import PLACEHOLDER, placeholders_of
from mcp_taskruns.core.model.operation import ArgumentReference, Location, Operation
from mcp_taskruns.core.model.tool import Tool

BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})

_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True)
class Route:
    """One operation of the REST side.

    `path` is the path as it is served, with `variables` that are arguments of the tool, by the names they have there.
    `places` say where a caller passes each argument: an argument that is all of the body is named in `body`, others
    of the body are its members. `source` is the file, `name` distinct among all routes. `claimed` is the path that the
    file has, where that is another file's as well.
    """

    method: str
    path: str
    tool: Tool = field(hash=False)
    variables: Mapping[str, str] = field(hash=False)
    places: Mapping[str, Location] = field(hash=False)
    body: str = ""
    source: str = ""
    name: str = ""
    claimed: str = ""


@dataclass(frozen=True)
class Routes:
    """The routes to be served, and sentences about those that are not where their files put them."""

    routes: tuple[Route, ...] = ()
    notes: tuple[str, ...] = ()


def compile_routes(rest_tools: Sequence[Tool], served: Sequence[Tool]) -> Routes:
    """The routes of the tools that the REST side calls.

    Where a tool that is served calls the same operation with the same arguments, the route is that tool's. Where two
    files claim one route, each is served below its prefix; where one file claims it twice, the first has it.
    """
    twins = {identity(tool): tool for tool in reversed(served) if not tool.is_wait_tool}
    found = [_route(tool, _twin(tool, twins)) for tool in rest_tools if tool.route is not None]
    notes: list[str] = []
    alone = list(_without_duplicates(found, notes))
    claims = Counter(route_key(route.method, route.path) for route in alone)
    prefixes = Counter((route.tool.prefix, route_key(route.method, route.path)) for route in alone)
    routes: list[Route] = []
    for route in alone:
        key = (route.tool.prefix, route_key(route.method, route.path))
        if claims[key[1]] > 1:
            prefix = route.tool.prefix if prefixes[key] == 1 else slug(file_of(route.source).rsplit(".", 1)[0])
            routes.append(replace(route, path=f"/{prefix}{route.path}", claimed=route.path))
            notes.append(
                f"{route.method} {route.path} is claimed by more than one file: that of {file_of(route.source)} is "
                f"served at {routes[-1].path}"
            )
        else:
            routes.append(route)
    names = distinct_names([route.tool.name for route in routes])
    return Routes(tuple(replace(route, name=name) for route, name in zip(routes, names, strict=True)), tuple(notes))


def route_key(method: str, path: str) -> str:
    """What two routes share that answer the same requests."""
    return f"{method} {PLACEHOLDER.sub('{}', path)}"


def _without_duplicates(routes: Iterable[Route], notes: list[str]) -> Iterator[Route]:
    """The routes without those that their own file has before."""
    seen: set[tuple[str, str]] = set()
    for route in routes:
        claim = (route.source, route_key(route.method, route.path))
        if claim in seen:
            notes.append(f"{route.method} {route.path} is there twice in {file_of(route.source)}: the first is served")
        else:
            yield route
        seen.add(claim)


def identity(tool: Tool) -> tuple[Any, ...]:
    """What tools share that call the same operation."""
    operation = tool.operation
    return tool.prefix, operation.namespace, operation.name, operation.method, operation.path


def _twin(tool: Tool, twins: Mapping[tuple[Any, ...], Tool]) -> Tool:
    twin = twins.get(identity(tool))
    return tool if twin is None or _arguments(twin) != _arguments(tool) else twin


def _arguments(tool: Tool) -> set[str]:
    return set(tool.input_schema["properties"]) - tool.server_arguments


def _route(rest: Tool, tool: Tool) -> Route:
    assert rest.route is not None
    method, path, source = rest.route
    variables = dict(_variables(path, tool))
    return Route(
        method=method.upper(),
        path=path if path.startswith("/") else f"/{path}",
        tool=tool,
        variables=variables,
        places=_places(method.upper(), tool, set(variables.values())),
        body=_whole_body(tool.operation),
        source=source,
        name=tool.name,
    )


def same_variable(name: str) -> str:
    """A name as paths have it: without case, hyphens and underscores."""
    return re.sub(r"[-_]", "", name).lower()


def _variables(path: str, tool: Tool) -> Iterator[tuple[str, str]]:
    """The argument that each variable of a path is; the provider's name for it counts as well."""
    known = {same_variable(name): name for name in reversed(list(tool.input_schema["properties"]))}
    for parameter in tool.operation.parameters:
        if parameter.argument and parameter.location is Location.PATH:
            known.setdefault(same_variable(parameter.name), parameter.argument)
    for name in placeholders_of(path):
        argument = name if name in tool.input_schema["properties"] else known.get(same_variable(name))
        if argument is not None:
            yield name, argument


def _places(method: str, tool: Tool, in_path: set[str]) -> dict[str, Location]:
    locations = {parameter.argument: parameter.location for parameter in tool.operation.parameters}
    places: dict[str, Location] = {}
    for name in tool.input_schema["properties"]:
        location = locations.get(name, Location.QUERY if name in tool.server_arguments else Location.BODY)
        if name in in_path:
            location = Location.PATH
        elif location in {Location.PATH, Location.COOKIE} or (location is Location.BODY and method in BODILESS):
            location = Location.QUERY
        places[name] = location
    return places


def _whole_body(operation: Operation) -> str:
    body = operation.body
    return body.name if isinstance(body, ArgumentReference) else ""


def read_text(texts: Sequence[str], schema: Mapping[str, Any]) -> Any:
    """The value that texts of a URL or of a header mean, by the schema of the argument.

    What cannot be of its type stays text: the schema says what is wrong with it.
    """
    kinds = _kinds(schema)
    if "array" in kinds and (len(texts) > 1 or len(kinds) == 1):
        items = schema.get("items", next((one["items"] for one in schema.get("anyOf", ()) if "items" in one), {}))
        return [read_text([text], items) for text in texts]
    if len(texts) > 1:
        return list(texts)
    text = texts[0]
    if "string" in kinds:
        return text
    if "boolean" in kinds and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    try:
        value = json.loads(text, parse_constant=_refuse) if kinds & {"integer", "number", "object", "array"} else text
    except (ValueError, RecursionError):
        return text
    return text if value is None else value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    kind = schema.get("type", [])
    kinds = {kind} if isinstance(kind, str) else set(kind)
    for option in schema.get("anyOf", ()):
        kinds |= _kinds(option)
    return kinds
