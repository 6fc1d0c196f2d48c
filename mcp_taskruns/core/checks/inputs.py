"""Checks of what tools take: parameters, request bodies and input schemas."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator, SchemaError

from mcp_taskruns.core.checks.codes import Finding, Place
from mcp_taskruns.core.checks.meta_schema import is_surely_valid
from mcp_taskruns.core.checks.model import File, Site, Use
from mcp_taskruns.core.checks.patterns import INVALID, MAX_QUOTED, find_pattern_problem
from mcp_taskruns.core.format.names import suggest_name
from mcp_taskruns.core.format.tool_schemas import TYPES
from mcp_taskruns.core.model.operation import ArgumentReference, Location
from mcp_taskruns.core.model.schemas import find_endless_schema

_KNOWN_TYPES = TYPES | {"null", "file"}
"""The types of JSON Schema, and `file`, which OpenAPI 2.0 has for form fields."""

_CONTENT_KEYWORDS = frozenset({"properties", "patternProperties", "anyOf", "oneOf", "allOf", "$ref", "enum", "const"})
"""Keywords of JSON Schema that describe the content of an object."""


def check_parameters(file: File) -> Iterator[Finding]:
    """Find parameter types that do not exist, and parameters in `with` that the operation does not declare."""
    for use, site in _called_sites(file):
        for place, declared in site.inputs():
            types = (declared.type,) if isinstance(declared.type, str) else declared.type or ()
            for name in types:
                if name not in _KNOWN_TYPES:
                    message = f"{site.name}: {declared.name} has the unknown type {name}"
                    yield Finding("unknown-parameter-type", (*place, "type"), message, suggest_name(name, TYPES))
        names = {declared.name for _, declared in site.inputs()}
        for parameter in use.tool.operation.parameters:
            if parameter.location is Location.QUERY and parameter.name in use.declared.with_.keys() - names:
                message = f"{use.name}: {site.name} does not declare {parameter.name}; it is sent in the query"
                fix = suggest_name(parameter.name, names)
                yield Finding("undeclared-parameter", (*use.place, "with", parameter.name), message, fix)


def check_placeholders(file: File) -> Iterator[Finding]:
    """Find path placeholders without a declaration, each once for an adapter."""
    undeclared: dict[tuple[Place, str], dict[Place, Site]] = {}
    for use, site in _called_sites(file):
        for name in _undeclared_placeholders(use, site):
            undeclared.setdefault((site.consumed_place, name), {}).setdefault(site.place, site)
    for (_, name), found in undeclared.items():
        sites = list(found.values())
        count = f" (in {len(sites)} operations)" if len(sites) > 1 else ""
        message = f"{{{name}}} in {sites[0].path} is not declared{count}, so its argument has no description"
        fix = f"Declare {name} in `inputParameters` with `in: path` and a description."
        yield Finding("undeclared-placeholder", sites[0].path_place, message, fix)


def _called_sites(file: File) -> Iterator[tuple[Use, Site]]:
    for use in file.uses:
        if use.site is not None:
            yield use, use.site


def _undeclared_placeholders(use: Use, site: Site) -> Iterator[str]:
    """Yield the path parameters that are arguments of the tool, but declared neither by operation nor tool."""
    declared = {item.name for _, item in site.inputs() if (item.location or "path").lower() == Location.PATH}
    described = {item.name for item in use.declared.input_parameters}
    for parameter in use.tool.operation.parameters:
        is_declared = parameter.name in declared or parameter.argument in described
        if parameter.location is Location.PATH and parameter.argument is not None and not is_declared:
            yield parameter.name


def check_bodies(file: File) -> Iterator[Finding]:
    """Find request bodies of which only the type is known."""
    for use in file.tools:
        site = use.site
        if site is None:
            continue
        for parameter in use.tool.operation.parameters:
            if parameter.argument is None or use.tool.operation.body != ArgumentReference(parameter.argument):
                continue
            schema = use.tool.input_schema["properties"][parameter.argument]
            if schema.get("type", "object") == "object" and _CONTENT_KEYWORDS.isdisjoint(schema):
                declared = [place for place, item in site.inputs() if item.name == parameter.name]
                place = declared[0] if declared else (*use.place, "with", parameter.name)
                fix = f"Describe it in the overlay: set `schema` with properties on the parameter {parameter.name}."
                yield Finding("missing-body-schema", place, f"{use.name}: the body is an object without a schema", fix)


def check_schemas(file: File) -> Iterator[Finding]:
    """Find input schemas that clients cannot use."""
    for use in file.tools:
        schema = use.tool.input_schema
        try:
            if not is_surely_valid(schema):
                Draft202012Validator.check_schema(schema)
        except SchemaError as exc:
            message = f"{use.name}: the input schema is not valid: {exc.json_path}: {exc.message[:200]}"
            yield Finding("invalid-schema", _place_of_argument(use, list(exc.path)), message)
        yield from _check_validation(use, schema)
        for path, reference in _external_references(schema, ()):
            message = f"{use.name}: the input schema has the external reference {reference}"
            yield Finding("invalid-schema", _place_of_argument(use, path), message)


def _place_of_argument(use: Use, path: Sequence[Any]) -> Place:
    """Return the place where the argument is declared to whose schema a path in the input schema leads."""
    argument = path[1] if len(path) > 1 else None
    names = {parameter.name for parameter in use.tool.operation.parameters if parameter.argument == argument}
    declared = [place for place, item in (use.site.inputs() if use.site else ()) if item.name in names]
    return next(iter(declared), use.place)


def _check_validation(use: Use, schema: Mapping[str, Any]) -> Iterator[Finding]:
    """Find schemas against which validating arguments could take too long."""
    endless = find_endless_schema(schema)
    if endless is not None:
        message = f"{use.name}: validating arguments against the input schema would never end"
        yield Finding("endless-schema", _place_of_argument(use, endless), message)
    for path, pattern in _patterns(schema, ()):
        problem = find_pattern_problem(pattern)
        if problem not in {None, INVALID}:  # an invalid one makes the schema invalid
            message = f"{use.name}: the pattern `{pattern[:MAX_QUOTED]}` {problem}"
            yield Finding("unsafe-pattern", _place_of_argument(use, path), message)


def _patterns(schema: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield the patterns of a schema with the path to the schema that has each."""
    if isinstance(schema, Mapping):
        patterns = schema.get("patternProperties")
        own = [schema.get("pattern"), *(patterns if isinstance(patterns, Mapping) else ())]
        yield from ((path, pattern) for pattern in own if isinstance(pattern, str))
        for name, item in schema.items():
            yield from _patterns(item, (*path, name))
    elif isinstance(schema, list):
        for item in schema:
            yield from _patterns(item, path)


def _external_references(schema: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    if isinstance(schema, Mapping):
        reference = schema.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            yield path, reference
        for name, item in schema.items():
            yield from _external_references(item, (*path, name))
    elif isinstance(schema, list):
        for item in schema:
            yield from _external_references(item, path)
