"""One operation of a provider, as a tool calls it: what is sent where, and what of it the caller passes."""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any
from urllib.parse import unquote

from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.authentication import TOKEN, Unsupported, parse_authentication
from mcp_taskruns.core.format.bodies import body_argument, body_from_parameters, body_kind_of, parse_body
from mcp_taskruns.core.format.inputs import (
    ENVIRONMENT,
    Argument,
    Found,
    Inputs,
    MergedInputs,
    add_input,
    add_undeclared,
    location_of,
    merge_inputs,
    refine_argument,
)
from mcp_taskruns.core.format.names import base_uri_variable
from mcp_taskruns.core.format.outputs import read_outputs
from mcp_taskruns.core.format.templates import Holes, references_of
from mcp_taskruns.core.model.operation import (
    ArgumentReference,
    Authentication,
    BaseUri,
    Location,
    Operation,
    Template,
    Variable,
)

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})

DEFAULT_ACCEPT = "application/json, */*;q=0.5"
EVENT_STREAM_ACCEPT = "text/event-stream, */*;q=0.1"


_ABSOLUTE = re.compile(r"https?://", re.IGNORECASE)


def compile_operation(
    capability: spec.Capability, tool: "spec.ExposedTool | spec.RestOperation", prefix: str, found: Found
) -> tuple[Operation, list[Argument], frozenset[str]]:
    """The operation that a tool calls, the arguments that the tool asks for, and those that it takes and drops.

    What is wrong with it is said by the operation: every call of it is refused with the reason.
    """
    consumed, declared, refinements = found.consumed, found.operation, found.refinements
    scopes = (consumed.input_parameters, found.resource.input_parameters, declared.input_parameters)
    environment = [item.name for item in chain(*scopes) if (item.location or "").lower() == ENVIRONMENT]
    holes = Holes(capability, environment)
    problems: list[str] = []

    def read(parse: Callable[[Any], Any], written: Any, fallback: Any) -> Any:
        """What is written, or the fallback for what cannot be read."""
        try:
            return parse(written)
        except Unsupported as exc:
            problems.append(f"{capability.source} {exc}")
        except ValueError as exc:
            problems.append(f"{capability.source} has {exc}")
        return fallback

    path = read(holes.path, found.path, ())
    merged = merge_inputs(found, path)
    problems.extend(f"{capability.source} has {problem}" for problem in _problems(found, path, merged))
    given = {
        name: read(lambda text: holes.tree(text, references=True), text, None) for name, text in tool.with_.items()
    }
    asked = {item.name: item for item in getattr(tool, "input_parameters", ())}
    inputs = Inputs(given)

    def constant(written: Any) -> Any:
        return _replaced(read(lambda value: holes.value(value, {*asked, *given}), written, None), given)

    for declaration, location in merged:
        add_input(inputs, declaration, location, constant)
    kind, template = read(lambda body: parse_body(body, holes), declared.body, ("json", None))
    used = set(references_of(template))
    template = _replaced(template, inputs.meanings() | given)
    add_undeclared(inputs, declared.method.upper(), path, used.union(references_of(template)))
    if declared.body is None:
        kind = body_kind_of(chain(*scopes))
    body = template if declared.body is not None else body_from_parameters(inputs.parameters, kind)
    required = declared.body is not None and kind in {"text", "xml", "binary"}
    for name in references_of(body):
        inputs.ask(name, body_argument(name, kind), Location.BODY, required)
    for name in chain.from_iterable(references_of(parameter.constant) for parameter in inputs.parameters):
        inputs.ask(name, spec.InputParameter(name=name), Location.QUERY, False)
    operation = Operation(
        name=declared.name,
        namespace=consumed.namespace,
        provider=prefix,
        method=declared.method.upper(),
        base=_base_uri(capability, consumed, prefix, lambda text: read(holes.constant, text, None)),
        path=path,
        parameters=tuple(inputs.parameters),
        body=body,
        body_kind=kind,
        accept=declared.accept or _accept(consumed, declared),
        authentication=_authentication(consumed, holes, read),
        error_body=refinements.error_body(),
        errors=refinements.errors(declared.name),
        limits=refinements.limits,
        safe_to_retry=declared.safe_to_retry,
        timeout_s=declared.timeout_seconds,
        redactions=refinements.redactions(declared),
        paging=refinements.paging(declared.paging),
        events=refinements.events(declared.events),
        log=refinements.log(declared.log),
        upload=refinements.upload(declared.upload),
        notes=refinements.notes(declared),
        returns_file=declared.returns_file,
        outputs=read_outputs(tool.output_parameters),
        unsupported=next(iter(problems), None),  # read last: all that comes before may add to them
    )
    arguments = [refine_argument(argument, asked) for argument in inputs.arguments.values()]
    order = list(Location)
    return operation, sorted(arguments, key=lambda one: order.index(one.location)), frozenset(inputs.ignored)


def _problems(found: Found, path: Template, inputs: MergedInputs) -> Iterator[str]:
    """Why nothing can be sent there: each ends the sentence that begins with the file."""
    written = found.path
    if found.operation.method.upper() not in METHODS:
        yield f"the method {found.operation.method!r}, which is none of {', '.join(sorted(METHODS))}"
    if found.consumed.type != "http":
        yield f"consumes of type {found.consumed.type!r}, which this server cannot call"
    if _ABSOLUTE.match(written):
        yield f"a whole address in place of a path: {written!r}"
    literal = "".join(part if isinstance(part, str) else "x" for part in path).partition("?")[0]
    if any(unquote(segment) in {".", ".."} for segment in literal.split("/")):
        yield f"a path that leads elsewhere: {written!r}"
    placeholders = [hole.name for hole in path if isinstance(hole, ArgumentReference)]
    for parameter in found.operation.input_parameters:
        if location_of(parameter, placeholders) == Location.PATH and parameter.name not in placeholders:
            yield f"the path parameter {parameter.name!r} and no place for it in the path {written!r}"
    scopes = (found.consumed.input_parameters, found.resource.input_parameters, found.operation.input_parameters)
    for parameter in chain(*scopes):
        if location_of(parameter, placeholders) not in {*Location, ENVIRONMENT}:
            yield f"the parameter {parameter.name!r} in {parameter.location!r}, which is no place for one"
    for parameter, location in inputs:
        if location in {Location.HEADER, Location.COOKIE} and not TOKEN.fullmatch(parameter.name):
            yield f"the {location} parameter {parameter.name!r}, which is no name for one"


def _replaced(tree: Any, meanings: Mapping[str, Any]) -> Any:
    """The tree with what its holes name in place of them: `with` may call an input by another name, or be its value."""
    if isinstance(tree, ArgumentReference):
        return meanings.get(tree.name, tree)
    if isinstance(tree, dict):
        return {name: _replaced(item, meanings) for name, item in tree.items()}
    if isinstance(tree, list):
        return [_replaced(item, meanings) for item in tree]
    if isinstance(tree, tuple):
        return tuple(part if isinstance(part, str) else _part(_replaced(part, meanings)) for part in tree)
    return tree


def _part(value: Any) -> Any:
    """A value as it stands inside a text: what was text is escaped there, unlike the text around it."""
    return (value,) if isinstance(value, str) else value


def _base_uri(
    capability: spec.Capability, consumed: spec.Consumed, prefix: str, constant: Callable[[str], Any]
) -> BaseUri:
    """The address as far as the file knows it, and what in the environment says it instead."""
    several = sum(one.type == "http" and not one.import_ for one in capability.capability.consumes) > 1
    name = f"{prefix}-{consumed.namespace}" if several else prefix
    variables = (base_uri_variable(name), *consumed.base_uri_env)
    written = (consumed.base_uri or "").strip()
    template = constant(written) if written else None
    literal = "".join(part if isinstance(part, str) else "x" for part in template or ())
    begins = template and (isinstance(template[0], Variable) or _ABSOLUTE.match(literal))
    return BaseUri(template if begins and "{" not in literal else None, variables)


def _accept(consumed: spec.Consumed, operation: spec.ConsumedOperation) -> str:
    told = [operation.description or "", *(parameter.description or "" for parameter in operation.input_parameters)]
    if any("text/event-stream" in text for text in told):
        return EVENT_STREAM_ACCEPT
    return consumed.accept or DEFAULT_ACCEPT


def _authentication(
    consumed: spec.Consumed, holes: Holes, read: Callable[[Callable[[Any], Any], Any, Any], Any]
) -> Authentication | None:
    found: Authentication | None = read(
        lambda declared: parse_authentication(declared, lambda text: holes.credential(str(text))),
        consumed.authentication or {},
        None,
    )
    return found
