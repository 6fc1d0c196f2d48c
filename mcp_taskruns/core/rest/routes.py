"""The routes of the REST server, compiled from the `rest` adapters of capability files."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mcp_taskruns.core.format.names import file_of, number_duplicates, slug
from mcp_taskruns.core.format.templates import PATH_PLACEHOLDER, placeholders_of
from mcp_taskruns.core.model.operation import ArgumentReference, Location, Operation
from mcp_taskruns.core.model.tool import Tool

BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods whose requests have no body, so all arguments are in the URL."""


@dataclass(frozen=True)
class Route:
    """One operation of the REST server.

    Attributes:
        method: the HTTP method.
        path: the path at which the route is served.
        tool: the tool that a request calls.
        variables: the argument of each placeholder in the path.
        locations: where a caller passes each argument.
        body: the argument that is the whole request body; empty if arguments are members of the body.
        source: the capability file.
        name: a name that no other route has.
        shared_path: the path in the file, if other files declare it too; `path` is then below the file's prefix.
    """

    method: str
    path: str
    tool: Tool = field(hash=False)
    variables: Mapping[str, str] = field(hash=False)
    locations: Mapping[str, Location] = field(hash=False)
    body: str = ""
    source: str = ""
    name: str = ""
    shared_path: str = ""


@dataclass(frozen=True)
class Routes:
    """The routes to serve, and sentences about routes that are not served where their files declare them."""

    routes: tuple[Route, ...] = ()
    notes: tuple[str, ...] = ()


def compile_routes(rest_tools: Sequence[Tool], served: Sequence[Tool]) -> Routes:
    """Compile the routes of the tools that REST adapters call.

    If a served MCP tool calls the same operation with the same arguments, the route calls that tool. If several files
    declare the same route, each is served below its prefix. If one file declares a route twice, the first is served.
    """
    equivalent = {operation_key(tool): tool for tool in reversed(served) if not tool.derived}
    declared = [_compile_route(tool, _equivalent_tool(tool, equivalent)) for tool in rest_tools if tool.route]
    distinct = _remove_duplicates(declared)
    routes = _separate_conflicts(distinct)
    names = number_duplicates([route.tool.name for route in routes])
    notes = [*_describe_duplicates(declared), *map(_describe_conflict, filter(_is_moved, routes))]
    return Routes(tuple(replace(route, name=name) for route, name in zip(routes, names, strict=True)), tuple(notes))


def route_key(method: str, path: str) -> str:
    """Return a key that is equal for routes that match the same requests."""
    return f"{method} {PATH_PLACEHOLDER.sub('{}', path)}"


def _declaration(route: Route) -> tuple[str, str]:
    return route.source, route_key(route.method, route.path)


def _remove_duplicates(routes: Iterable[Route]) -> list[Route]:
    first: dict[tuple[str, str], Route] = {}
    for route in routes:
        first.setdefault(_declaration(route), route)
    return list(first.values())


def _describe_duplicates(routes: Sequence[Route]) -> Iterator[str]:
    seen: set[tuple[str, str]] = set()
    for route in routes:
        if _declaration(route) in seen:
            name = file_of(route.source)
            yield f"{route.method} {route.path} is declared twice in {name}: the first declaration is served"
        seen.add(_declaration(route))


def _separate_conflicts(routes: Sequence[Route]) -> list[Route]:
    """Move routes that several files declare below the prefixes of their files."""
    files = Counter(route_key(route.method, route.path) for route in routes)
    prefixes = Counter((route.tool.prefix, route_key(route.method, route.path)) for route in routes)
    return [
        _move_below_prefix(route, is_unique=prefixes[route.tool.prefix, key] == 1) if files[key] > 1 else route
        for route in routes
        for key in (route_key(route.method, route.path),)
    ]


def _move_below_prefix(route: Route, *, is_unique: bool) -> Route:
    """Return the route below the prefix of its file, or below the file's name if another file has that prefix."""
    prefix = route.tool.prefix if is_unique else slug(file_of(route.source).rsplit(".", 1)[0])
    return replace(route, path=f"/{prefix}{route.path}", shared_path=route.path)


def _is_moved(route: Route) -> bool:
    return bool(route.shared_path)


def _describe_conflict(route: Route) -> str:
    return (
        f"{route.method} {route.shared_path} is declared by more than one file: that of {file_of(route.source)} is "
        f"served at {route.path}"
    )


def operation_key(tool: Tool) -> tuple[Any, ...]:
    """Return a key that is equal for tools that call the same operation."""
    operation = tool.operation
    return tool.prefix, operation.namespace, operation.name, operation.method, operation.path


def _equivalent_tool(tool: Tool, served: Mapping[tuple[Any, ...], Tool]) -> Tool:
    """Return the served tool with the same operation and arguments, or else the tool itself."""
    other = served.get(operation_key(tool))
    return tool if other is None or _argument_names(other) != _argument_names(tool) else other


def _argument_names(tool: Tool) -> set[str]:
    return set(tool.input_schema["properties"]) - tool.server_arguments


def _compile_route(rest_tool: Tool, tool: Tool) -> Route:
    """Compile the route that `rest_tool` declares. Requests call `tool`."""
    assert rest_tool.route is not None
    method, path, source = rest_tool.route
    variables = dict(_path_variables(path, tool))
    return Route(
        method=method.upper(),
        path=path if path.startswith("/") else f"/{path}",
        tool=tool,
        variables=variables,
        locations=_argument_locations(method.upper(), tool, set(variables.values())),
        body=_whole_body_argument(tool.operation),
        source=source,
        name=tool.name,
    )


def normalize_name(name: str) -> str:
    """Return a name without case, hyphens and underscores, to compare the spellings of a placeholder."""
    return re.sub(r"[-_]", "", name).lower()


def _path_variables(path: str, tool: Tool) -> Iterator[tuple[str, str]]:
    """Yield each placeholder of a path with its argument, which may have the provider's name or another spelling."""
    properties = tool.input_schema["properties"]
    known = {normalize_name(name): name for name in reversed(list(properties))}
    for parameter in tool.operation.parameters:
        if parameter.argument and parameter.location is Location.PATH:
            known.setdefault(normalize_name(parameter.name), parameter.argument)
    for name in placeholders_of(path):
        argument = name if name in properties else known.get(normalize_name(name))
        if argument is not None:
            yield name, argument


def _argument_locations(method: str, tool: Tool, in_path: set[str]) -> dict[str, Location]:
    parameters = {parameter.argument: parameter.location for parameter in tool.operation.parameters}
    locations: dict[str, Location] = {}
    for name in tool.input_schema["properties"]:
        location = parameters.get(name, Location.QUERY if name in tool.server_arguments else Location.BODY)
        if name in in_path:
            location = Location.PATH
        elif location in {Location.PATH, Location.COOKIE} or (location is Location.BODY and method in BODILESS):
            location = Location.QUERY
        locations[name] = location
    return locations


def _whole_body_argument(operation: Operation) -> str:
    body = operation.body
    return body.name if isinstance(body, ArgumentReference) else ""
