"""Checks of operations: whether they exist, are unique and can be called."""

import re
from collections.abc import Iterator, Mapping

from mcp_taskruns.core.calls.outputs import CostlyMapping
from mcp_taskruns.core.checks.codes import Finding
from mcp_taskruns.core.checks.model import File, Site, Use, enumerate_items, strings_in
from mcp_taskruns.core.checks.provider import check_authentication
from mcp_taskruns.core.format.bodies import BODY_KINDS
from mcp_taskruns.core.format.inputs import ENVIRONMENT, FORM_LOCATIONS
from mcp_taskruns.core.format.names import suggest_name
from mcp_taskruns.core.format.operations import METHODS
from mcp_taskruns.core.format.outputs import parse_outputs
from mcp_taskruns.core.format.pairing import count_fitting
from mcp_taskruns.core.format.templates import InvalidTemplate, TemplateParser, placeholders_of
from mcp_taskruns.core.model.operation import Location
from mcp_taskruns.core.rest.routes import normalize_name

_DOT_SEGMENT = re.compile(r"(\A|/)(\.|%2e){1,2}(/|\Z)", re.IGNORECASE)


def check_calls(file: File) -> Iterator[Finding]:
    """Find tools that call operations that do not exist."""
    imports = [consumed for _, consumed in file.consumes() if consumed.import_]
    imported = {name for consumed in imports for name in (consumed.import_, consumed.namespace)}
    for use in file.uses:
        if use.sites:
            continue
        call = use.declared.call
        message = f"{use.name} calls {call}, which does not exist" if call else f"{use.name} has no `call`"
        fix = suggest_name(call, file.sites)
        if call.partition(".")[0] in imported:
            message = f"{use.name} calls {call}, which is in another file"
            fix = "Copy the `consumes` of the other file into this one."
        yield Finding("unknown-operation", (*use.place, "call"), message, fix)


def check_duplicates(file: File) -> Iterator[Finding]:
    """Find operations of the same name, and tools that do not select one of them."""
    for name, sites in file.sites.items():
        if len(sites) > 1:
            message = f"{len(sites)} operations have the name {name}; tools call them by their order or by `with`"
            yield Finding("duplicate-operation", (*sites[1].place, "name"), message)
    for use in file.uses:
        if use.is_ambiguous:
            count = count_fitting(use.declared, use.sites) or "none"
            call = use.declared.call
            message = f"{use.name} calls {call}, and its `with` matches {count} of {len(use.sites)} operations"
            yield Finding("ambiguous-operation", (*use.place, "call"), message)


def check_completeness(file: File) -> Iterator[Finding]:
    """Find operations without a method and output mappings that are ignored."""
    for use in file.uses:
        if use.site is not None and "method" not in use.site.operation.model_fields_set:
            yield Finding("missing-method", use.site.place, f"{use.site.name} has no method; GET is used")
        try:
            parse_outputs(use.declared.output_parameters)
        except ValueError as exc:
            code = "costly-output-mapping" if isinstance(exc, CostlyMapping) else "invalid-output-mapping"
            yield Finding(code, (*use.place, "outputParameters"), f"{use.name} has {exc}")


def check_operations(file: File) -> Iterator[Finding]:
    """Find the reasons for which operations cannot be called."""
    for use in file.uses:
        site = use.site
        reason = use.tool.operation.unsupported
        if site is None or reason is None:
            continue
        findings = list(_check_operation(file, use, site))
        yield from findings
        is_reported = findings or site.consumed.type != "http" or _has_unusable_authentication(file, site)
        if not is_reported:
            yield Finding("unsupported-operation", site.place, reason.removeprefix(f"{file.capability.source} "))


def _has_unusable_authentication(file: File, site: Site) -> bool:
    findings = [finding for finding in check_authentication(file) if finding.code != "hardcoded-credential"]
    return site.consumed_place in [finding.place[:3] for finding in findings]


def _check_operation(file: File, use: Use, site: Site) -> Iterator[Finding]:
    method = site.operation.method
    if method.upper() not in METHODS:
        message = f"{site.name}: the method {method} is not supported"
        yield Finding("unknown-method", (*site.place, "method"), message)
    parser = TemplateParser(file.capability)
    try:
        path = parser.path(site.path)
    except InvalidTemplate as exc:
        yield Finding("invalid-template", site.path_place, f"{site.name}: the path has {exc}")
        return
    literal = "".join(part if isinstance(part, str) else "x" for part in path).partition("?")[0]
    if _DOT_SEGMENT.search(literal):
        message = f"{site.name}: the path {site.path} has a `.` or `..` segment"
        yield Finding("unsafe-path", site.path_place, message)
    yield from _check_locations(site)
    yield from _check_path_parameters(site)
    yield from _check_body_type(site)
    yield from _check_templates(parser, use, site)


def _check_locations(site: Site) -> Iterator[Finding]:
    for place, declared in site.inputs():
        location = (declared.location or "query").lower()
        if location not in {*Location, ENVIRONMENT, *FORM_LOCATIONS}:
            message = f"{site.name}: {declared.name} has the unknown location {declared.location}"
            fix = suggest_name(str(declared.location), list(Location))
            yield Finding("unknown-parameter-location", (*place, "in"), message, fix)


def _check_path_parameters(site: Site) -> Iterator[Finding]:
    names = placeholders_of(site.path)
    for place, declared in enumerate_items((*site.place, "inputParameters"), site.operation.input_parameters):
        if (declared.location or "").lower() != Location.PATH or declared.name in names:
            continue
        message = f"{site.name}: the path {site.path} has no placeholder for the path parameter {declared.name}"
        similar = [name for name in names if normalize_name(name) == normalize_name(declared.name)]
        fix = f"Rename the parameter to {similar[0]}." if similar else f"Add {{{declared.name}}} to the path."
        yield Finding("missing-placeholder", place, message, fix)


def _check_body_type(site: Site) -> Iterator[Finding]:
    body = site.operation.body
    if isinstance(body, Mapping) and set(body) == {"type", "data"}:
        written = str(body["type"])
        if re.sub(r"[-_ ]", "", written.lower()) not in BODY_KINDS:
            message = f"{site.name}: the body type {written} is not supported"
            yield Finding("unsupported-body-type", (*site.place, "body", "type"), message)


def _check_templates(parser: TemplateParser, use: Use, site: Site) -> Iterator[Finding]:
    authentication = (*site.consumed_place, "authentication")  # reported by check_authentication
    for place, text in [*site.texts(), *strings_in((*use.place, "with"), use.declared.with_)]:
        try:
            parser.template(text)
        except InvalidTemplate as exc:
            if place[:4] != authentication:
                yield Finding("invalid-template", place, f"{site.name} has {exc}")
