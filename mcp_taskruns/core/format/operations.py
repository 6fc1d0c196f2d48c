"""Compilation of an operation, as a tool calls it: what is sent, and which of it the caller passes."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, TypeVar
from urllib.parse import unquote

from mcp_taskruns.core.format import run_keywords, spec
from mcp_taskruns.core.format.authentication import TOKEN, Unsupported, parse_alternatives
from mcp_taskruns.core.format.bodies import (
    body_argument,
    body_from_parameters,
    body_kind_of,
    body_steps,
    kind_without_data,
    parse_body,
    put_into_body,
)
from mcp_taskruns.core.format.inputs import (
    BODY,
    ENVIRONMENT,
    Argument,
    DeclaredOperation,
    Inputs,
    LocatedInput,
    location_of,
    merge_inputs,
    refine_argument,
)
from mcp_taskruns.core.format.names import base_uri_variable
from mcp_taskruns.core.format.outputs import parse_outputs_or_none
from mcp_taskruns.core.format.pairing import Caller
from mcp_taskruns.core.format.templates import TemplateParser, placeholders_of, references_of
from mcp_taskruns.core.model.operation import (
    ArgumentReference,
    Authentication,
    BaseUri,
    BodyKind,
    Echo,
    Location,
    Operation,
    OptionalObject,
    Template,
    Variable,
    variables_in,
)

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})

DEFAULT_ACCEPT = "application/json, */*;q=0.5"
EVENT_STREAM_ACCEPT = "text/event-stream, */*;q=0.1"
JSON_LINES_ACCEPT = "application/x-ndjson, */*;q=0.1"

_URL = re.compile(r"https?://", re.IGNORECASE)

_Parsed = TypeVar("_Parsed")

_NO_PATH: Template = ()
_NO_BODY: tuple[BodyKind | None, Any] = (None, None)


@dataclass(frozen=True)
class CompiledOperation:
    """An operation, the arguments of its tool, and the arguments that the tool accepts and drops."""

    operation: Operation
    arguments: list[Argument]
    dropped: frozenset[str]


def compile_operation(
    capability: spec.Capability, tool: Caller, prefix: str, declared: DeclaredOperation
) -> CompiledOperation:
    """Compile the operation that a tool calls.

    Parts that cannot be compiled make the operation unsupported: its calls return an error with the first reason.
    """
    return _OperationCompiler(capability, tool, prefix, declared).compile()


class _OperationCompiler:
    """Compiles one operation, and collects the problems of its parts."""

    def __init__(
        self,
        capability: spec.Capability,
        tool: Caller,
        prefix: str,
        declared: DeclaredOperation,
    ) -> None:
        self._capability = capability
        self._tool = tool
        self._prefix = prefix
        self._declared = declared
        environment = [item.name for item in declared.declared_inputs() if (item.location or "").lower() == ENVIRONMENT]
        self._parser = TemplateParser(capability, environment)
        self._problems: list[str] = []
        self._refinements = {item.name: item for item in tool.input_parameters}
        self._mapped = dict(self._mapped_arguments())
        self._in_body = {
            item.name: item for item in declared.declared_inputs() if location_of(item, ()) == Location.BODY
        }

    def compile(self) -> CompiledOperation:
        path = self._parse(self._parser.path, self._declared.path, _NO_PATH)
        located = merge_inputs(self._declared, path)
        self._problems.extend(
            f"{self._capability.source} has {problem}" for problem in _find_problems(self._declared, path, located)
        )
        inputs = Inputs(self._given_values())
        for declaration, location in located:
            if not self._is_replaced(declaration, location):
                inputs.add(declaration, location, self._constant(declaration.value, inputs.with_))
        body, kind = self._body(inputs, path)
        operation = self._operation(path, inputs, body, kind)
        arguments = [refine_argument(argument, self._refinements) for argument in inputs.arguments.values()]
        order = list(Location)
        arguments.sort(key=lambda argument: order.index(argument.location))
        ids = run_id_arguments(self._declared.consumed.runs)
        integers = frozenset(one.name for one in arguments if one.name in ids and one.declared.type == "integer")
        arguments = [_with_text_id(one) if one.name in integers else one for one in arguments]
        operation = replace(operation, integer_arguments=integers)
        return CompiledOperation(operation, arguments, frozenset(inputs.dropped))

    def _parse(self, parse: Callable[[Any], _Parsed], written: Any, fallback: _Parsed) -> _Parsed:
        """Return what `parse` returns, or record its error and return the fallback."""
        try:
            return parse(written)
        except Unsupported as exc:
            self._problems.append(f"{self._capability.source} {exc}")
        except ValueError as exc:
            self._problems.append(f"{self._capability.source} has {exc}")
        return fallback

    def _given_values(self) -> dict[str, Any]:
        """Return the parsed values of the tool's `with`."""
        return {
            name: self._parse(lambda value: self._parser.tree(value, references=True), text, None)
            for name, text in self._tool.with_.items()
        }

    def _constant(self, written: Any, given: Mapping[str, Any]) -> Any:
        if written is None:
            return None
        inputs = (item for item in self._declared.declared_inputs() if item.value is None)
        declared = {item.name for item in inputs if (item.location or "").lower() != ENVIRONMENT}
        names = {*self._refinements, *given, *declared, *placeholders_of(self._declared.path)}
        return _substitute(self._parse(lambda value: self._parser.value(value, names), written, None), given)

    def _body(self, inputs: Inputs, path: Template) -> tuple[Any, BodyKind]:
        """Return the body and its kind, and add the arguments to which body and constants refer."""
        operation = self._declared.operation
        kind, template = self._parse(lambda body: parse_body(body, self._parser), operation.body, _NO_BODY)
        used = {*references_of(template), *self._mapped}
        template = _substitute(template, inputs.values() | dict(inputs.with_))
        if isinstance(template, dict) and template:
            template = OptionalObject(template)
        inputs.add_undeclared(operation.method.upper(), path, used.union(references_of(template)))
        kind = kind or body_kind_of(self._declared.declared_inputs())
        if template is None:
            template = self._body_of_parameters(inputs, kind)
        for name, steps in self._mapped.items():
            put = partial(put_into_body, template, value=ArgumentReference(name))
            template = self._parse(put, steps, template)
        is_required = operation.body is not None and kind in {"text", "xml", "binary"}
        for name in references_of(template):
            inputs.add_argument(name, body_argument(name, kind), Location.BODY, is_required)
        for name in chain.from_iterable(references_of(parameter.constant) for parameter in inputs.parameters):
            inputs.add_argument(name, spec.InputParameter(name=name), Location.QUERY, False)
        return template, kind

    def _body_of_parameters(self, inputs: Inputs, kind: BodyKind) -> Any:
        """Return the body of an operation without a template.

        A single body parameter of any name is the whole body, except for constants, fields of a form, and parameters
        beside arguments that are mapped into the body.
        """
        in_body = [parameter for parameter in inputs.parameters if parameter.location is Location.BODY]
        names = {parameter.name for parameter in in_body} | self._in_body.keys()
        if not (names or self._mapped) and kind_without_data(self._declared.operation.body):
            return ArgumentReference(BODY)
        is_member = self._mapped or any(item.value is not None for item in self._in_body.values())
        is_member = is_member or any(one.argument is None and _is_scalar(one.constant) for one in in_body)
        is_whole = len(names) == 1 and kind not in {"form", "multipart"} and (names == {BODY} or not is_member)
        return body_from_parameters(in_body, is_whole=is_whole)

    def _mapped_arguments(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the arguments that the tool's `inputParameters` map into the body, with their places in it."""
        for item in self._tool.input_parameters:
            steps = self._parse(body_steps, item.mapping, None)
            if steps is not None:
                yield item.name, steps

    def _is_replaced(self, declaration: spec.InputParameter, location: Location) -> bool:
        """Whether arguments that are mapped into the body replace the whole body as an argument."""
        is_only = self._in_body.keys() == {declaration.name}
        is_used = declaration.value is not None or declaration.name in self._tool.with_
        return location is Location.BODY and bool(self._mapped) and is_only and not is_used

    def _operation(self, path: Template, inputs: Inputs, body: Any, kind: BodyKind) -> Operation:
        consumed, declared, policies = self._declared.consumed, self._declared.operation, self._declared.policies
        base = self._base_uri()
        authentications = self._authentications()
        return Operation(
            name=declared.name,
            namespace=consumed.namespace,
            provider=self._prefix,
            method=declared.method.upper(),
            base=base,
            path=path,
            parameters=tuple(inputs.parameters),
            body=body,
            body_kind=kind,
            accept=declared.accept or _accept(consumed, declared),
            authentication=next(iter(authentications), None),
            alternatives=authentications[1:],
            error_body=policies.error_body(),
            error_messages=policies.error_messages(),
            errors=policies.errors(declared.name),
            limits=policies.limits,
            safe_to_retry=declared.safe_to_retry,
            timeout_s=declared.timeout_seconds,
            redactions=policies.redactions(declared),
            paging=policies.paging(declared.paging),
            events=policies.events(declared.events),
            log=policies.log(declared.log),
            upload=policies.upload(declared.upload),
            trims=policies.trims(declared),
            echo=Echo(declared.echo.argument, declared.echo.text) if declared.echo else None,
            notes=policies.notes(declared),
            returns_file=declared.returns_file,
            needs=policies.needs(declared),
            stream_format=declared.stream_format,
            follow_redirect=policies.follow_redirect(declared),
            returns_run=_returns_run(consumed.runs, declared.name),
            output_format=(declared.output_raw_format or "json").lower(),
            outputs=parse_outputs_or_none(self._tool.output_parameters),
            unsupported=next(iter(self._problems), None),
        )

    def _base_uri(self) -> BaseUri:
        """Return the address in the file, and the environment variables that replace it.

        A variable that fills a placeholder of the address does not replace it.
        """
        consumed = self._declared.consumed
        adapters = [one for one in self._capability.capability.consumes if one.type == "http" and not one.import_]
        longer = f"{self._prefix}-{consumed.namespace}"
        names = [longer] if len(adapters) > 1 else [self._prefix, longer]
        written = (consumed.base_uri or "").strip()
        template = self._parse(self._parser.constant, written, None) if written else None
        used = {name for variable in variables_in(template) for name in variable.names}
        own = next((one for one in map(base_uri_variable, names) if one not in used), None)
        variables = tuple(one for one in (own, *consumed.base_uri_env) if one and one not in used)
        literal = "".join(part if isinstance(part, str) else "x" for part in template or ())
        is_address = template and (isinstance(template[0], Variable) or _URL.match(literal))
        default = template if is_address and "{" not in literal else None
        return BaseUri(default, variables, self._declared.policies.base_uri_rules())

    def _authentications(self) -> tuple[Authentication, ...]:
        def parse(declared: Any) -> tuple[Authentication, ...]:
            return parse_alternatives(declared, lambda text: self._parser.credential(str(text)))

        own = self._declared.operation.authentication
        return self._parse(parse, own or self._declared.consumed.authentication, ())


def _returns_run(runs: run_keywords.RunsKeywords | None, operation: str) -> bool:
    """Whether the response of an operation shows runs. A cancellation may be confirmed without content."""
    if runs is None or operation in runs.cancel:
        return False
    start = runs.start.get(operation)
    if start is not None and start.find is not None:
        return False
    return operation in {runs.read.operation, *runs.start, *runs.runs_in}


def run_id_arguments(runs: run_keywords.RunsKeywords | None) -> set[str]:
    """Return the names of the arguments that take the id of a run."""
    if runs is None:
        return set()
    names = {runs.read.run_id_argument, *(cancel.run_id_argument for cancel in runs.cancel.values())}
    return names.union(start.then.run_id_argument for start in runs.start.values() if start.then) - {""}


def _with_text_id(argument: Argument) -> Argument:
    """Return an argument for the integer id of a run, which callers pass as the text that results contain."""
    written = argument.declared.json_schema or {}
    kept = {name: value for name, value in written.items() if name in {"description", "title"}}
    if examples := written.get("examples"):
        kept["examples"] = [str(example) for example in examples]
    schema = {**kept, "pattern": "^-?[0-9]+$"}
    return Argument(
        argument.name,
        argument.declared.model_copy(update={"type": "string", "json_schema": schema}),
        argument.location,
        argument.required,
    )


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, dict | list)


def _find_problems(declared: DeclaredOperation, path: Template, located: list[LocatedInput]) -> Iterator[str]:
    """Yield what makes the operation unsupported, each as the end of a sentence."""
    written = declared.path
    if declared.operation.method.upper() not in METHODS:
        yield f"the unknown method {declared.operation.method!r}; use one of {', '.join(sorted(METHODS))}"
    if declared.consumed.type != "http":
        yield f"`consumes` of the unsupported type {declared.consumed.type!r}"
    if _URL.match(written):
        yield f"a URL instead of a path: {written!r}"
    literal = "".join(part if isinstance(part, str) else "x" for part in path).partition("?")[0]
    if any(unquote(segment) in {".", ".."} for segment in literal.split("/")):
        yield f"a path with the segment . or ..: {written!r}"
    yield from _find_input_problems(declared, path, located)


def _find_input_problems(declared: DeclaredOperation, path: Template, located: list[LocatedInput]) -> Iterator[str]:
    placeholders = [part.name for part in path if isinstance(part, ArgumentReference)]
    for parameter in declared.operation.input_parameters:
        if location_of(parameter, placeholders) == Location.PATH and parameter.name not in placeholders:
            yield f"the path parameter {parameter.name!r}, for which the path {declared.path!r} has no placeholder"
    for parameter in declared.declared_inputs():
        if location_of(parameter, placeholders) not in {*Location, ENVIRONMENT}:
            yield f"the parameter {parameter.name!r} in the unknown location {parameter.location!r}"
    for parameter, location in located:
        if location in {Location.HEADER, Location.COOKIE} and not TOKEN.fullmatch(parameter.name):
            yield f"the {location} parameter {parameter.name!r}, which is not a valid name"


def _substitute(tree: Any, values: Mapping[str, Any]) -> Any:
    """Return the tree with references replaced: `with` may map an input to another argument, or to a constant."""
    if isinstance(tree, ArgumentReference):
        return values.get(tree.name, tree)
    if isinstance(tree, dict):
        return {name: _substitute(item, values) for name, item in tree.items()}
    if isinstance(tree, list):
        return [_substitute(item, values) for item in tree]
    if isinstance(tree, tuple):
        return tuple(part if isinstance(part, str) else _as_part(_substitute(part, values)) for part in tree)
    return tree


def _as_part(value: Any) -> Any:
    """Return a value as a part of a text; a text becomes a template of its own, so that it is escaped there."""
    return (value,) if isinstance(value, str) else value


def _accept(consumed: spec.Consumed, operation: spec.ConsumedOperation) -> str:
    if operation.stream_format is not None:
        return JSON_LINES_ACCEPT if operation.stream_format == "ndjson" else EVENT_STREAM_ACCEPT
    descriptions = [operation.description, *(parameter.description for parameter in operation.input_parameters)]
    if any("text/event-stream" in (description or "") for description in descriptions):
        return EVENT_STREAM_ACCEPT
    return consumed.accept or DEFAULT_ACCEPT
