"""What is wrong with the provider's side of a capability file: addresses, credentials, operations."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from mcp_taskruns.core.calls.request import is_usable
from mcp_taskruns.core.checks.codes import Finding, Place, did_you_mean
from mcp_taskruns.core.checks.model import File, Site, Use, numbered
from mcp_taskruns.core.format.authentication import Unsupported, UnsupportedKind, parse_authentication
from mcp_taskruns.core.format.bodies import BODY_KINDS
from mcp_taskruns.core.format.compiler import TYPES, fitting
from mcp_taskruns.core.format.inputs import BODY, ENVIRONMENT, FORM_PLACES
from mcp_taskruns.core.format.operations import METHODS
from mcp_taskruns.core.format.outputs import parse_outputs
from mcp_taskruns.core.format.templates import BrokenTemplate, Holes, placeholders_of
from mcp_taskruns.core.model.operation import Location, Operation, Template, Variable
from mcp_taskruns.core.rest.routes import same_variable


def check_addresses(file: File) -> Iterator[Finding]:
    bases = {use.tool.operation.namespace: use.tool.operation.base for use in file.uses if use.site}
    for place, consumed in file.consumes():
        base = bases.get(consumed.namespace)
        if base is None:
            continue
        if base.default is not None:
            literal = "".join(part if isinstance(part, str) else "x" for part in base.default)
            if isinstance(base.default[0], str) and not is_usable(literal):
                told = f"baseUri {literal} is not https, or has a query, and is called by nobody"
                yield Finding("address-in-clear", (*place, "baseUri"), told)
            continue
        if file.environment is None:
            is_settled = bool(consumed.base_uri_env)
        else:
            is_settled = not set(base.variables).isdisjoint(file.environment)
        if is_settled:
            continue
        written = (consumed.base_uri or "").strip()
        if not written:
            told = "baseUri is empty" if consumed.base_uri is not None else "there is no baseUri"
        elif "{" in written:
            told = f"baseUri {written} has a placeholder that nothing fills"
        else:
            told = f"baseUri {written} is no http address"
        mend = f"Set {base.variables[0]} in the server's environment, or write the address in an overlay."
        yield Finding("empty-base-uri", (*place, "baseUri"), told, mend)


def check_authentication(file: File) -> Iterator[Finding]:
    holes = Holes(file.capability)
    for place, consumed in file.consumes():
        here = (*place, "authentication")
        try:
            found = parse_authentication(consumed.authentication or {}, lambda text: holes.credential(str(text)))
        except UnsupportedKind as exc:
            yield Finding("unsupported-authentication", here, f"{consumed.namespace} {exc}")
        except Unsupported as exc:
            yield Finding("incomplete-authentication", here, f"{consumed.namespace} {exc}")
        except BrokenTemplate as exc:
            yield Finding("unclosed-template", here, f"the authentication of {consumed.namespace} has {exc}")
        else:
            if found is not None and not any(isinstance(part, Variable) for part in chain.from_iterable(found.parts)):
                told = f"the credential of {consumed.namespace} is no variable of the environment"
                yield Finding("literal-credential", here, told)


def check_credentials(file: File) -> Iterator[Finding]:
    binds = [
        ((*place, "keys", key), key, names)
        for place, bind in numbered(("binds",), file.capability.binds)
        for key, names in bind.keys.items()
    ]
    known = {name for _, key, names in binds for name in (key, *names)}
    used: dict[str, Site] = {}
    for use in file.uses:
        site = use.site
        if site is not None:
            known |= {declared.name for _, declared in site.inputs() if declared.location == ENVIRONMENT}
            names = chain.from_iterable(variable.names for variable in _variables(use.tool.operation))
            used |= {name: used.get(name, site) for name in names}
    for name in sorted(used.keys() - known):
        told = f"{name} is used and no bind declares it"
        mend = f"Declare it: binds with keys {{{name}: {name}}}."
        yield Finding("unbound-credential", _place_of_hole(used[name], name), told, mend)
    if file.environment is not None:
        for place, key, names in binds:
            if set(names).isdisjoint(file.environment):
                told = f"{' or '.join(names)} is not set in the environment"
                told += "" if key in names else f", and is to be {key}"
                yield Finding("unset-credential", place, told, f"Set {names[0]} where the server runs.")


def _variables(operation: Operation) -> Iterator[Variable]:
    """What of the environment it sends."""
    parts = operation.authentication.parts if operation.authentication else ()
    constants = [parameter.constant for parameter in operation.parameters]
    pending: list[Any] = [operation.path, operation.body, operation.base.default, *parts, *constants]
    while pending:
        part = pending.pop()
        if isinstance(part, Variable):
            yield part
        elif isinstance(part, dict):
            pending += part.values()
        elif isinstance(part, list | tuple):
            pending += part


def _place_of_hole(site: Site, name: str) -> Place:
    """The first text with a hole of this name, else the operation."""
    hole = re.compile(rf"\{{\s*([\w-]+\.)*{re.escape(name)}\s*\}}")
    return next((place for place, text in _texts(site) if hole.search(text)), site.place)


def _texts(site: Site) -> Iterator[tuple[Place, str]]:
    """The texts of an operation that may have holes."""
    yield from _leaves((*site.consumed_place, "authentication"), site.consumed.authentication)
    yield from _leaves((*site.consumed_place, "baseUri"), site.consumed.base_uri)
    yield site.path_place, site.path
    for place, declared in site.inputs():
        yield from _leaves((*place, "value"), declared.value)
    yield from _leaves((*site.place, "body"), site.operation.body)


def _leaves(place: Place, value: Any) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves((*place, key), item)
    elif isinstance(value, list):
        for inner, item in numbered(place, value):
            yield from _leaves(inner, item)


def check_operations(file: File) -> Iterator[Finding]:
    """What keeps operations from being called."""
    for use in file.uses:
        site = use.site
        reason = use.tool.operation.unsupported
        if site is None or reason is None:
            continue
        told = list(_refusals(file, use, site))
        yield from told
        is_told = told or site.consumed.type != "http" or _cannot_authenticate(file, site)
        if not is_told:
            yield Finding("unsupported-operation", site.place, reason.removeprefix(f"{file.capability.source} "))


def _cannot_authenticate(file: File, site: Site) -> bool:
    found = [finding for finding in check_authentication(file) if finding.code != "literal-credential"]
    return site.consumed_place in [finding.place[:3] for finding in found]


def _refusals(file: File, use: Use, site: Site) -> Iterator[Finding]:
    """Why the compiler refuses an operation."""
    holes = Holes(file.capability)
    method = site.operation.method
    if method.upper() not in METHODS:
        yield Finding("unknown-method", (*site.place, "method"), f"{site.name}: {method} is no HTTP method here")
    try:
        template: Template = holes.path(site.path)
    except BrokenTemplate as exc:
        yield Finding("unclosed-template", site.path_place, f"{site.name}: the path has {exc}")
        return
    literal = "".join(part if isinstance(part, str) else "x" for part in template).partition("?")[0]
    if re.search(r"(^|/)(\.|%2e){1,2}(/|$)", literal, re.IGNORECASE):
        yield Finding("unsafe-path", site.path_place, f"{site.name}: the path {site.path} leads elsewhere")
    yield from _misplaced(site)
    body = site.operation.body
    if isinstance(body, Mapping) and set(body) == {"type", "data"}:
        written = str(body["type"])
        if re.sub(r"[-_ ]", "", written.lower()) not in BODY_KINDS:
            told = f"{site.name}: a body of type {written} cannot be sent"
            yield Finding("unsupported-body", (*site.place, "body", "type"), told)
    for place, text in [*_texts(site), *_leaves((*use.place, "with"), use.declared.with_)]:
        try:
            holes.template(text)
        except BrokenTemplate as exc:
            if place[:4] != (*site.consumed_place, "authentication"):
                yield Finding("unclosed-template", place, f"{site.name} has {exc}")


def _misplaced(site: Site) -> Iterator[Finding]:
    """Inputs for which a request has no place."""
    for place, declared in site.inputs():
        if (declared.location or "query").lower() not in {*Location, ENVIRONMENT, *FORM_PLACES}:
            told = f"{site.name}: {declared.name} is in {declared.location}, which is no place in a request"
            yield Finding("unknown-place", (*place, "in"), told, did_you_mean(str(declared.location), list(Location)))
    names = placeholders_of(site.path)
    for place, declared in numbered((*site.place, "inputParameters"), site.operation.input_parameters):
        if (declared.location or "").lower() == Location.PATH and declared.name not in names:
            told = f"{site.name}: the path {site.path} has no place for the path parameter {declared.name}"
            close = [name for name in names if same_variable(name) == same_variable(declared.name)]
            mend = f"Write {close[0]} in place of {declared.name}." if close else ""
            yield Finding("absent-placeholder", place, told, mend or f"Put {{{declared.name}}} into the path.")


def check_halves(file: File) -> Iterator[Finding]:
    """What is called although a half of it is not said, or cannot be read."""
    for use in file.uses:
        if use.site is not None and "method" not in use.site.operation.model_fields_set:
            yield Finding("missing-method", use.site.place, f"{use.site.name} has no method: it is called with GET")
        try:
            parse_outputs(use.declared.output_parameters)
        except ValueError as exc:
            yield Finding("unreadable-mapping", (*use.place, "outputParameters"), f"{use.name} has {exc}")


def check_duplicates(file: File) -> Iterator[Finding]:
    for name, sites in file.sites.items():
        if len(sites) > 1:
            told = f"{name} is there {len(sites)} times: a tool calls the one that its `with` fits"
            yield Finding("duplicate-operation", (*sites[1].place, "name"), told)
    for use in file.uses:
        if use.is_ambiguous:
            count = len(fitting(use.declared, use.sites)) or "none"
            told = f"{use.name} calls {use.declared.call}, and its `with` fits {count} of {len(use.sites)} operations"
            yield Finding("ambiguous-operation", (*use.place, "call"), told)


def check_calls(file: File) -> Iterator[Finding]:
    imported = {name for _, one in file.consumes() if one.import_ for name in (one.import_, one.namespace)}
    for use in file.uses:
        if use.site is None:
            call = use.declared.call
            told = f"{use.name} calls {call}, which is not there" if call else f"{use.name} does not say what it calls"
            mend = did_you_mean(call, file.sites)
            if call.partition(".")[0] in imported:
                told = f"{use.name} calls {call}, which is in another file"
                mend = "Copy the consumes of the other file into this one."
            yield Finding("call-to-nothing", (*use.place, "call"), told, mend)


_TYPES = TYPES | {"null", "file"}
"""The types of JSON Schema, and the one that OpenAPI 2.0 has for fields of forms."""


def check_inputs(file: File) -> Iterator[Finding]:
    undeclared: dict[tuple[Place, str], list[Site]] = {}
    for use in file.uses:
        site = use.site
        if site is None or use.is_ambiguous:
            continue
        operation = use.tool.operation
        declared = {one.name for _, one in site.inputs()}
        in_path = {one.name for _, one in site.inputs() if (one.location or "path").lower() == Location.PATH}
        refined = {one.name for one in getattr(use.declared, "input_parameters", ())}
        for place, one in site.inputs():
            types = (one.type,) if isinstance(one.type, str) else one.type or ()
            for name in types:
                if name not in _TYPES:
                    told = f"{site.name}: the type of {one.name} is {name}, which JSON Schema does not have"
                    yield Finding("unknown-type", (*place, "type"), told, did_you_mean(name, TYPES))
        for parameter in operation.parameters:
            if parameter.location is Location.PATH and parameter.name not in in_path:
                if parameter.argument is not None and parameter.argument not in refined:
                    known = undeclared.setdefault((site.consumed_place, parameter.name), [])
                    known += [site] if site not in known else []
            elif parameter.location is Location.QUERY and parameter.name in use.declared.with_.keys() - declared:
                told = f"{use.name}: {site.name} knows no input {parameter.name}: it is sent in the query"
                mend = did_you_mean(parameter.name, declared)
                yield Finding("with-unknown-input", (*use.place, "with", parameter.name), told, mend)
    for (_, name), sites in undeclared.items():
        times = f" (in {len(sites)} operations)" if len(sites) > 1 else ""
        told = f"{{{name}}} in {sites[0].path} is not declared{times}: the caller gets no description of it"
        mend = f"Declare {name} under inputParameters with in: path and a description."
        yield Finding("undeclared-placeholder", sites[0].path_place, told, mend)


_DESCRIBING = frozenset({"properties", "patternProperties", "anyOf", "oneOf", "allOf", "$ref", "enum", "const"})
"""Words of a schema, of which one at least says what an object has in it."""


def check_bodies(file: File) -> Iterator[Finding]:
    for use in file.tools:
        site = use.site
        if site is None:
            continue
        for parameter in use.tool.operation.parameters:
            if (parameter.location, parameter.name) != (Location.BODY, BODY) or parameter.argument is None:
                continue
            schema = use.tool.input_schema["properties"][parameter.argument]
            if schema.get("type", "object") == "object" and _DESCRIBING.isdisjoint(schema):
                declared = [place for place, one in site.inputs() if one.name == BODY]
                place = declared[0] if declared else (*use.place, "with", BODY)
                told = f"{use.name}: nothing is known of its body but that it is an object"
                mend = f"Describe it in the overlay: `schema` with properties on the parameter {BODY}."
                yield Finding("body-without-schema", place, told, mend)


def check_schemas(file: File) -> Iterator[Finding]:
    from jsonschema import Draft202012Validator, SchemaError

    for use in file.tools:
        schema = use.tool.input_schema
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as exc:
            told = f"{use.name}: its schema is not valid: {exc.json_path}: {exc.message[:200]}"
            yield Finding("invalid-schema", _place_of_argument(use, list(exc.path)), told)
        for path, address in _remote_references(schema, ()):
            told = f"{use.name}: its schema refers to {address}: only references within it can be followed"
            yield Finding("invalid-schema", _place_of_argument(use, path), told)


def _place_of_argument(use: Use, path: Sequence[Any]) -> Place:
    """Where the argument is declared in whose schema this path begins."""
    argument = path[1] if len(path) > 1 else None
    names = {parameter.name for parameter in use.tool.operation.parameters if parameter.argument == argument}
    declared = [place for place, one in (use.site.inputs() if use.site else ()) if one.name in names]
    return next(iter(declared), use.place)


def _remote_references(schema: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    if isinstance(schema, Mapping):
        reference = schema.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            yield path, reference
        for name, item in schema.items():
            yield from _remote_references(item, (*path, name))
    elif isinstance(schema, list):
        for item in schema:
            yield from _remote_references(item, path)
