"""Capabilities to tools: every inference about a capability file happens here, once, at start."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal

from mcp_taskruns.core import spec
from mcp_taskruns.core.lifecycles import own_arguments, wait_tools, with_lifecycles
from mcp_taskruns.core.naming import base_uri_variable, distinct, legal_name, list_by_spec_names, prefix_of, title_of
from mcp_taskruns.core.operation import (
    ArgumentReference,
    Authentication,
    BaseUri,
    ConstantTemplate,
    ErrorBody,
    Hints,
    Location,
    Operation,
    Parameter,
    Template,
    Tool,
    Variable,
)
from mcp_taskruns.core.refinements import Refinements, refined_arguments
from mcp_taskruns.core.templates import (
    PLACEHOLDER,
    parse_constant,
    parse_template,
    parse_tree,
    parse_value,
    reference_of,
    references_of,
)

ToolNames = Literal["prefixed", "spec"]

OWN_HEADERS = frozenset({"authorization", "host", "content-length", "content-type", "accept"})
"""Headers that the server sets itself: not shown to the caller, dropped when passed."""

DEFAULT_ACCEPT = "application/json, */*;q=0.5"
EVENT_STREAM_ACCEPT = "text/event-stream, */*;q=0.1"

HINTS_BY_METHOD = {
    # read-only, destructive, idempotent: RFC 9110 section 9.2 for what is safe and what is idempotent
    "GET": (True, False, True),
    "HEAD": (True, False, True),
    "OPTIONS": (True, False, True),
    "PUT": (False, True, True),
    "DELETE": (False, True, True),
    "PATCH": (False, True, False),
    "POST": (False, False, False),
}

TYPES = frozenset({"string", "integer", "number", "boolean", "array", "object"})


@dataclass(frozen=True)
class _Found:
    """An operation where it stands."""

    consumed: spec.Consumed
    resource: spec.ConsumedResource
    operation: spec.ConsumedOperation
    refinements: Refinements


@dataclass(frozen=True)
class _Argument:
    """One property of a tool's input schema, before it is written."""

    name: str
    declared: spec.InputParameter
    location: Location
    required: bool


def compile_tools(capabilities: Sequence[spec.Capability], *, names: ToolNames = "prefixed") -> tuple[Tool, ...]:
    """All tools of the capabilities, in file order, with legal and distinct names."""
    compiled = [tuple(_compile_capability(capability)) for capability in capabilities]
    groups = [
        (*group, *wait_tools(capability, group)) for capability, group in zip(capabilities, compiled, strict=True)
    ]
    tools = list(chain.from_iterable(groups))
    named = distinct(list_by_spec_names(tools) if names == "spec" else tools)
    listed = {tool.name: shown.name for tool, shown in zip(tools, named, strict=True)}
    left = iter(named)
    return tuple(
        chain.from_iterable(
            with_lifecycles(capability, list(islice(left, len(group))), listed)
            for capability, group in zip(capabilities, groups, strict=True)
        )
    )


def _compile_capability(capability: spec.Capability) -> Iterator[Tool]:
    operations: dict[str, list[_Found]] = {}
    for consumed in capability.capability.consumes:
        refinements = Refinements(capability.source, consumed)
        for resource in consumed.resources:
            for operation in resource.operations:
                found = _Found(consumed, resource, operation, refinements)
                operations.setdefault(f"{consumed.namespace}.{operation.name}", []).append(found)
    for exposed in capability.capability.exposes:
        if exposed.type == "mcp":
            for tool in exposed.tools:
                yield _compile_tool(capability, tool, _called(tool, operations.get(tool.call, [])))


def _called(tool: spec.ExposedTool, candidates: Sequence[_Found]) -> _Found | None:
    """Of several operations of one name the only one whose inputs are those of `with`, else the first."""
    fitting = [found for found in candidates if _fits(tool, found)]
    return fitting[0] if len(fitting) == 1 else next(iter(candidates), None)


def _fits(tool: spec.ExposedTool, found: _Found) -> bool:
    resource, operation = found.resource, found.operation
    path = operation.path if operation.path is not None else resource.path
    placeholders = {double or single for double, single in PLACEHOLDER.findall(path)}
    declared = {item.name for item in (*resource.input_parameters, *operation.input_parameters) if item.value is None}
    return set(tool.with_) | placeholders == declared | placeholders


def _compile_tool(capability: spec.Capability, tool: spec.ExposedTool, found: _Found | None) -> Tool:
    prefix = prefix_of(capability)
    own: dict[str, Any] = {}
    if found is None:
        operation = _missing_operation(capability, tool, prefix)
        arguments = [_from_with(name, value) for name, value in tool.with_.items()]
        ignored: frozenset[str] = frozenset()
    else:
        operation, arguments, ignored = _compile_operation(capability, tool, prefix, found)
        own = own_arguments(found.consumed, operation.name, is_stream=operation.is_stream)
        own |= refined_arguments(found.operation)
    described = tool.description or (found.operation.description if found else None) or tool.name
    return Tool(
        name=legal_name(f"{prefix}-{tool.rename or tool.name}"),
        spec_name=tool.name,
        prefix=prefix,
        title=tool.label or title_of(tool.rename or tool.name),
        description=described,
        hints=_hints(tool.hints, operation.method),
        input_schema=_input_schema(arguments, own),
        operation=operation,
        ignored=ignored,
        own=frozenset(own) - {argument.name for argument in arguments},
    )


def _missing_operation(capability: spec.Capability, tool: spec.ExposedTool, prefix: str) -> Operation:
    return Operation(
        name=tool.name,
        provider=prefix,
        method="POST",
        base=BaseUri(None, ()),
        path=(),
        unsupported=f"{capability.source} calls {tool.call!r}, which none of its consumes declares",
    )


def _from_with(name: str, value: Any) -> _Argument:
    reference = reference_of(value)
    return _Argument(reference or name, spec.InputParameter(name=name), Location.QUERY, False)


def _compile_operation(
    capability: spec.Capability, tool: spec.ExposedTool, prefix: str, found: _Found
) -> tuple[Operation, list[_Argument], frozenset[str]]:
    consumed, resource, declared, refinements = found.consumed, found.resource, found.operation, found.refinements
    path = parse_template(declared.path if declared.path is not None else resource.path, PLACEHOLDER, capability)
    inputs = _merged_inputs(consumed, resource, declared, path)
    taken: dict[str, Location] = {}
    parameters: list[Parameter] = []
    arguments: list[_Argument] = []
    ignored: set[str] = set()
    for declaration, location in inputs:
        argument = reference_of(tool.with_.get(declaration.name)) or declaration.name
        if location is Location.HEADER and declaration.name.lower() in OWN_HEADERS:
            ignored.add(argument)
            continue
        if declaration.value is not None:
            constant = parse_value(declaration.value, capability)
            parameters.append(Parameter(declaration.name, location, None, constant))
            continue
        while argument in taken:
            argument = f"{argument}_{location}"
        taken[argument] = location
        default = Variable(declaration.env) if declaration.env else None
        required = declaration.required if declaration.required is not None else location is Location.PATH
        parameters.append(
            Parameter(declaration.name, location, argument, None, default, declaration.explode is not False)
        )
        arguments.append(_Argument(argument, declaration, location, required and default is None))
    body, body_arguments, problem = _body(declared.body, parameters, capability)
    arguments += [argument for argument in body_arguments if argument.name not in taken]
    authentication, unsupported = _authentication(consumed, capability)
    operation = Operation(
        name=declared.name,
        provider=prefix,
        method=declared.method.upper(),
        base=_base_uri(consumed, prefix),
        path=path,
        parameters=tuple(parameters),
        body=body,
        accept=declared.accept or _accept(consumed, declared),
        authentication=authentication,
        error_body=_error_body(consumed.error_body),
        unsupported=unsupported or problem,
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
    )
    return operation, arguments, frozenset(ignored)


def _merged_inputs(
    consumed: spec.Consumed,
    resource: spec.ConsumedResource,
    operation: spec.ConsumedOperation,
    path: Template,
) -> list[tuple[spec.InputParameter, Location]]:
    """Adapter, resource and operation merged, the inner ones' fields winning, in the order of the input schema."""
    placeholders = [hole.name for hole in path if isinstance(hole, ArgumentReference)]
    merged: dict[tuple[str, str], spec.InputParameter] = {}
    own = {(parameter.name, _location(parameter, placeholders)) for parameter in operation.input_parameters}
    for scope in (consumed.input_parameters, resource.input_parameters, operation.input_parameters):
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
    return parameter.location or ("path" if parameter.name in placeholders else "query")


def _refined(outer: spec.InputParameter, inner: spec.InputParameter) -> spec.InputParameter:
    return outer.model_copy(update={name: getattr(inner, name) for name in inner.model_fields_set})


def _body(
    template: Any, parameters: list[Parameter], capability: spec.Capability
) -> tuple[Any, list[_Argument], str | None]:
    """The body's tree, the arguments that only it names, and why it cannot be sent, if it cannot."""
    fields = {
        parameter.name: ArgumentReference(parameter.argument) if parameter.argument else parameter.constant
        for parameter in parameters
        if parameter.location is Location.BODY
    }
    if template is None:
        whole = set(fields) == {"body"}
        return (fields["body"] if whole else fields or None), [], None
    kind = template.get("type", "json") if isinstance(template, dict) else "text"
    if kind != "json" or not isinstance(template, dict):
        return None, [], f"{capability.source} has a body template of type {kind}, which this server cannot send"
    tree = parse_tree(template.get("data"), capability)
    names = dict.fromkeys(references_of(tree))
    arguments = [_Argument(name, spec.InputParameter(name=name), Location.BODY, False) for name in names]
    return tree, arguments, None


def _base_uri(consumed: spec.Consumed, prefix: str) -> BaseUri:
    written = (consumed.base_uri or "").removesuffix("/")
    usable = written.startswith(("http://", "https://")) and "{" not in written
    return BaseUri(written if usable else None, (base_uri_variable(prefix), *consumed.base_uri_env))


def _error_body(declared: spec.ErrorBody | None) -> ErrorBody | None:
    return ErrorBody(declared.status, declared.message) if declared else None


def _accept(consumed: spec.Consumed, operation: spec.ConsumedOperation) -> str:
    told = [operation.description or "", *(parameter.description or "" for parameter in operation.input_parameters)]
    if any("text/event-stream" in text for text in told):
        return EVENT_STREAM_ACCEPT
    return consumed.accept or DEFAULT_ACCEPT


def _authentication(consumed: spec.Consumed, capability: spec.Capability) -> tuple[Authentication | None, str | None]:
    """How the adapter authenticates, and why its operations cannot be called, if they cannot."""
    declared = consumed.authentication or {}
    kind = str(declared.get("type", "none")).lower()

    def template(*keys: str) -> ConstantTemplate:
        return parse_constant(next((str(declared[key]) for key in keys if declared.get(key)), ""), capability)

    match kind:
        case "none":
            return None, None
        case "bearer":
            found = Authentication("bearer", (template("token"),))
        case "basic":
            found = Authentication("basic", (template("username"), template("password")))
        case "apikey":
            query = "query" in (declared.get("placement"), declared.get("in"))
            named = next((key for key in ("header", "name", "key") if declared.get(key)), "name")
            value = template("value", "key") if named == "header" else template("value")
            name = str(declared.get(named, ""))
            found = Authentication(
                "apikey", (value,) if name else ((),), Location.QUERY if query else Location.HEADER, name
            )
        case _:
            return None, f"{capability.source} authenticates by {kind}, which this server cannot do"
    if not all(found.parts):
        return None, f"{capability.source} authenticates by {kind} and does not say with what"
    return found, None


def _hints(declared: spec.Hints, method: str) -> Hints:
    read_only, destructive, idempotent = HINTS_BY_METHOD.get(method, HINTS_BY_METHOD["POST"])
    if declared.read_only is not None:
        read_only = declared.read_only
        destructive = destructive and not read_only
    return Hints(
        read_only,
        destructive if declared.destructive is None else declared.destructive,
        idempotent if declared.idempotent is None else declared.idempotent,
        True if declared.open_world is None else declared.open_world,
    )


def _input_schema(arguments: list[_Argument], own: Mapping[str, Any]) -> dict[str, Any]:
    """The provider's arguments, and our own where they leave room for them."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {**own, **{argument.name: _property(argument) for argument in arguments}},
        "additionalProperties": False,
    }
    required = [argument.name for argument in arguments if argument.required]
    if required:
        schema["required"] = required
    return schema


def _property(argument: _Argument) -> dict[str, Any]:
    declared = argument.declared
    schema: dict[str, Any] = {"type": declared.type} if declared.type in TYPES else {}
    if declared.type == "array":
        # What is not in the body is sent as text, and some clients refuse an array without items' type.
        schema["items"] = {} if argument.location is Location.BODY else {"type": "string"}
    if declared.description:
        schema["description"] = declared.description
    return schema | (declared.json_schema or {})
