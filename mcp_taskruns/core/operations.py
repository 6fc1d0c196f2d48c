"""One operation of a provider, as a tool calls it: what is sent where, and what of it the caller passes."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from itertools import chain
from typing import Any
from urllib.parse import unquote

from mcp_taskruns.core import spec
from mcp_taskruns.core.authentication import CONNECTION_HEADERS, TOKEN, Unsupported, parse_authentication
from mcp_taskruns.core.naming import base_uri_variable
from mcp_taskruns.core.operation import (
    ArgumentReference,
    Authentication,
    BaseUri,
    BodyKind,
    ErrorBody,
    Location,
    Operation,
    Parameter,
    Template,
    Variable,
)
from mcp_taskruns.core.outputs import read_outputs
from mcp_taskruns.core.refinements import Refinements
from mcp_taskruns.core.templates import BrokenTemplate, Holes, references_of

OWN_HEADERS = CONNECTION_HEADERS | {"authorization", "content-type", "accept"}
"""Headers that the server sets itself: not shown to the caller, dropped when passed."""

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})

DEFAULT_ACCEPT = "application/json, */*;q=0.5"
EVENT_STREAM_ACCEPT = "text/event-stream, */*;q=0.1"

FORM_PLACES = frozenset({"form", "formdata"})
"""Locations of OpenAPI 2.0, whose generators left them in some files: fields of a form, which is the body."""

ENVIRONMENT = "environment"
"""The location of an input that is not sent: a name for a variable of the environment."""

BODY_KINDS: Mapping[str, BodyKind] = {
    "json": "json",
    "text": "text",
    "raw": "text",
    "xml": "xml",
    "form": "form",
    "formurlencoded": "form",
    "multipart": "multipart",
    "multipartform": "multipart",
    "binary": "binary",
}

BODY = "body"

_ABSOLUTE = re.compile(r"https?://", re.IGNORECASE)


_Merged = list[tuple[spec.InputParameter, Location]]


@dataclass(frozen=True)
class Found:
    """An operation where it stands in its file."""

    consumed: spec.Consumed
    resource: spec.ConsumedResource
    operation: spec.ConsumedOperation
    refinements: Refinements

    @property
    def path(self) -> str:
        """The path as written: the operation's own, else the resource's."""
        return self.resource.path if self.operation.path is None else self.operation.path


@dataclass(frozen=True)
class Argument:
    """One property of a tool's input schema, before it is written."""

    name: str
    declared: spec.InputParameter
    location: Location
    required: bool


@dataclass
class _Inputs:
    """What one call of an operation takes, while it is put together."""

    with_: Mapping[str, Any]
    parameters: list[Parameter] = field(default_factory=list)
    arguments: dict[str, Argument] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)
    sources: dict[str, str] = field(default_factory=dict)
    """The parameter that each argument was first of."""

    def ask(self, name: str, declared: spec.InputParameter, location: Location, required: bool) -> None:
        known = self.arguments.get(name)
        if known is None:
            self.arguments[name] = Argument(name, declared, location, required)
        elif required and not known.required:
            self.arguments[name] = Argument(name, known.declared, known.location, True)

    def meanings(self) -> dict[str, Any]:
        """What each input of the operation is, by its name: an argument, or a constant."""
        return {
            parameter.name: ArgumentReference(parameter.argument) if parameter.argument else parameter.constant
            for parameter in reversed(self.parameters)
        }


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
    merged = _merged_inputs(found, path)
    problems.extend(f"{capability.source} has {problem}" for problem in _problems(found, path, merged))
    given = {
        name: read(lambda text: holes.tree(text, references=True), text, None) for name, text in tool.with_.items()
    }
    asked = {item.name: item for item in getattr(tool, "input_parameters", ())}
    inputs = _Inputs(given)

    def constant(written: Any) -> Any:
        return _replaced(read(lambda value: holes.value(value, {*asked, *given}), written, None), given)

    for declaration, location in merged:
        _add_input(inputs, declaration, location, constant)
    kind, template = read(lambda body: _body_template(body, holes), declared.body, ("json", None))
    used = set(references_of(template))
    template = _replaced(template, inputs.meanings() | given)
    _add_unknown(inputs, declared.method.upper(), path, used.union(references_of(template)))
    if declared.body is None:
        kind = _kind_of(chain(*scopes))
    body = template if declared.body is not None else _body_of(inputs.parameters, kind)
    required = declared.body is not None and kind in {"text", "xml", "binary"}
    for name in references_of(body):
        inputs.ask(name, _described(name, kind), Location.BODY, required)
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
        error_body=_error_body(consumed.error_body),
        errors=refinements.errors(declared.name),
        limits=refinements.limits,
        repeatable=declared.repeatable,
        timeout_s=declared.timeout,
        redactions=refinements.redactions(declared),
        paging=refinements.paging(declared.paging),
        log=refinements.log(declared.log),
        upload=refinements.upload(declared.upload),
        remarks=refinements.remarks(declared),
        is_file=declared.file,
        outputs=read_outputs(tool.output_parameters),
        unsupported=next(iter(problems), None),  # read last: all that comes before may add to them
    )
    arguments = [_refined_argument(argument, asked) for argument in inputs.arguments.values()]
    order = list(Location)
    return operation, sorted(arguments, key=lambda one: order.index(one.location)), frozenset(inputs.ignored)


def _refined_argument(argument: Argument, asked: Mapping[str, spec.InputParameter]) -> Argument:
    """The argument as the tool's own `inputParameters` tell of it."""
    told = asked.get(argument.name)
    if told is None:
        return argument
    required = argument.required if told.required is None else told.required or argument.location is Location.PATH
    words = {"type", "description", "json_schema"} & told.model_fields_set
    declared = argument.declared.model_copy(update={name: getattr(told, name) for name in words})
    return Argument(argument.name, declared, argument.location, required)


def _problems(found: Found, path: Template, inputs: _Merged) -> Iterator[str]:
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
        if _location(parameter, placeholders) == Location.PATH and parameter.name not in placeholders:
            yield f"the path parameter {parameter.name!r} and no place for it in the path {written!r}"
    scopes = (found.consumed.input_parameters, found.resource.input_parameters, found.operation.input_parameters)
    for parameter in chain(*scopes):
        if _location(parameter, placeholders) not in {*Location, ENVIRONMENT}:
            yield f"the parameter {parameter.name!r} in {parameter.location!r}, which is no place for one"
    for parameter, location in inputs:
        if location in {Location.HEADER, Location.COOKIE} and not TOKEN.fullmatch(parameter.name):
            yield f"the {location} parameter {parameter.name!r}, which is no name for one"


def _merged_inputs(found: Found, path: Template) -> _Merged:
    """Adapter, resource and operation merged, the inner ones' fields winning, in the order of the input schema."""
    operation = found.operation
    placeholders = [hole.name for hole in path if isinstance(hole, ArgumentReference)]
    merged: dict[tuple[str, str], spec.InputParameter] = {}
    own = {(parameter.name, _location(parameter, placeholders)) for parameter in operation.input_parameters}
    for scope in (found.consumed.input_parameters, found.resource.input_parameters, operation.input_parameters):
        for parameter in scope:
            key = (parameter.name, _location(parameter, placeholders))
            if key[1] == Location.PATH and parameter.name not in placeholders and key not in own:
                continue  # declared for the whole adapter, and this path has no place for it
            outer = merged.get(key)
            merged[key] = _refined(outer, parameter) if outer else parameter
    for name in placeholders:
        # Two thirds of public files leave path parameters undeclared: each is a required string.
        merged.setdefault((name, Location.PATH), spec.InputParameter(name=name, type="string", required=True))
    order = list(Location)
    kept = [(parameter, Location(key[1])) for key, parameter in merged.items() if key[1] in set(order)]
    return sorted(kept, key=lambda pair: (order.index(pair[1]), _place(pair[0].name, placeholders)))


def _place(name: str, placeholders: list[str]) -> int:
    return placeholders.index(name) if name in placeholders else len(placeholders)


def _location(parameter: spec.InputParameter, placeholders: list[str]) -> str:
    written = (parameter.location or ("path" if parameter.name in placeholders else "query")).lower()
    return Location.BODY if written in FORM_PLACES else written


def _refined(outer: spec.InputParameter, inner: spec.InputParameter) -> spec.InputParameter:
    return outer.model_copy(update={name: getattr(inner, name) for name in inner.model_fields_set})


def _add_input(
    inputs: _Inputs, declared: spec.InputParameter, location: Location, constant: Callable[[Any], Any]
) -> None:
    """One input of the operation: a constant, what `with` says, or what the caller is asked for."""
    given = inputs.with_.get(declared.name)
    is_own = location is Location.HEADER and declared.name.lower() in OWN_HEADERS
    if declared.value is not None:
        if not (is_own and declared.name.lower() in CONNECTION_HEADERS):
            inputs.parameters.append(Parameter(declared.name, location, None, constant(declared.value)))
        return
    if is_own:
        inputs.ignored.add(given.name if isinstance(given, ArgumentReference) else declared.name)
        return
    if given is None and declared.name in inputs.with_:
        return  # null: left out
    if given is not None and not isinstance(given, ArgumentReference):
        inputs.parameters.append(Parameter(declared.name, location, None, given))
        return
    name = given.name if given else declared.name
    while name in inputs.arguments and not (given and inputs.sources[name] != declared.name):
        name = f"{name}_{location}"  # as the path's `id` and the query's
    inputs.sources.setdefault(name, declared.name)
    default = Variable(declared.env) if declared.env else None
    required = declared.required if declared.required is not None else location is Location.PATH
    inputs.parameters.append(Parameter(declared.name, location, name, None, default, declared.explode is not False))
    inputs.ask(name, declared, location, required and default is None)


def _add_unknown(inputs: _Inputs, method: str, path: Template, used: Set[str]) -> None:
    """What `with` names and the operation does not declare: a body, a header of ours, else a parameter of the query.

    What is `used` in the body's template stands there.
    """
    known = {parameter.name for parameter in inputs.parameters} | inputs.ignored
    known |= {name for name, given in inputs.with_.items() if given is None}
    known |= {hole.name for hole in path if isinstance(hole, ArgumentReference)}
    for name, given in inputs.with_.items():
        reference = given.name if isinstance(given, ArgumentReference) else None
        if name in known or name in used or reference in used:
            continue
        if name.lower() in OWN_HEADERS:
            inputs.ignored.add(reference or name)
            continue
        location = Location.BODY if name == BODY and method in _WITH_BODY else Location.QUERY
        declared = spec.InputParameter(name=name)
        _add_input(inputs, declared, location, lambda value: value)


def _body_template(body: Any, holes: Holes) -> tuple[BodyKind, Any]:
    """The kind of a body and its tree; the fields of a body that has no template stand in its parameters."""
    if body is None:
        return "json", None
    if isinstance(body, str):
        return _text_body(body, holes)
    if not isinstance(body, Mapping) or set(body) != {"type", "data"}:
        return "json", holes.tree(body)  # some APIs have a member `data`, or a `type`, of their own
    written = str(body["type"])
    kind = BODY_KINDS.get(re.sub(r"[-_ ]", "", written.lower()))
    if kind is None:
        raise Unsupported(f"has a body template of type {written}, which this server cannot send")
    data = body["data"]
    if kind == "json" and isinstance(data, str):
        try:
            return kind, holes.json_text(data)
        except BrokenTemplate:
            raise
        except ValueError:
            return kind, holes.tree(data)
    if kind == "multipart" and not isinstance(data, list | Mapping):
        raise Unsupported("has a multipart body whose data are no fields")
    return kind, holes.tree(data)


def _text_body(body: str, holes: Holes) -> tuple[BodyKind, Any]:
    """A body that is only text: JSON with holes where it reads so, else XML or plain text."""
    template = holes.tree(body)
    if body.lstrip().startswith("<"):
        return "xml", template
    try:
        tree = holes.json_text(body)
    except BrokenTemplate:
        raise
    except ValueError:
        return "text", template
    return "json", tree


def _body_of(parameters: list[Parameter], kind: BodyKind) -> Any:
    """The body that the parameters in it are: the one named `body` is all of a JSON body, others are its members."""
    fields = {
        parameter.name: ArgumentReference(parameter.argument) if parameter.argument else parameter.constant
        for parameter in parameters
        if parameter.location is Location.BODY
    }
    return fields[BODY] if set(fields) == {BODY} and kind == "json" else fields or None


def _kind_of(parameters: Iterable[spec.InputParameter]) -> BodyKind:
    """How a body without a template is sent: as JSON, or as a form where its parameters are fields of one."""
    fields = [one for one in parameters if (one.location or "").lower() in FORM_PLACES]
    has_file = any("file" in ((one.type,) if isinstance(one.type, str) else one.type or ()) for one in fields)
    return ("multipart" if has_file else "form") if fields else "json"


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


def _described(name: str, kind: BodyKind) -> spec.InputParameter:
    if kind != "binary":
        return spec.InputParameter(name=name)
    schema = {"type": "string", "contentEncoding": "base64"}
    return spec.InputParameter(name=name, description="Bytes, in base64.", json_schema=schema)


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


def _error_body(declared: spec.ErrorBody | None) -> ErrorBody | None:
    return ErrorBody(declared.status, declared.message) if declared else None


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
