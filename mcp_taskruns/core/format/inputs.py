"""The inputs of an operation: where each is sent, and which the caller passes."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.authentication import CONNECTION_HEADERS
from mcp_taskruns.core.format.policies import Policies
from mcp_taskruns.core.model.operation import ArgumentReference, Location, Parameter, Template, Variable

OWN_HEADERS = CONNECTION_HEADERS | {"authorization", "content-type", "accept"}
"""Headers that the server sets itself: not shown to the caller, dropped when passed."""


BODY = "body"

_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


FORM_PLACES = frozenset({"form", "formdata"})
"""Locations of OpenAPI 2.0, whose generators left them in some files: fields of a form, which is the body."""


ENVIRONMENT = "environment"
"""The location of an input that is not sent: a name for a variable of the environment."""


MergedInputs = list[tuple[spec.InputParameter, Location]]


@dataclass(frozen=True)
class Found:
    """An operation where it stands in its file."""

    consumed: spec.Consumed
    resource: spec.ConsumedResource
    operation: spec.ConsumedOperation
    refinements: Policies

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
class Inputs:
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


def refine_argument(argument: Argument, asked: Mapping[str, spec.InputParameter]) -> Argument:
    """The argument as the tool's own `inputParameters` tell of it."""
    told = asked.get(argument.name)
    if told is None:
        return argument
    required = argument.required if told.required is None else told.required or argument.location is Location.PATH
    words = {"type", "description", "json_schema"} & told.model_fields_set
    declared = argument.declared.model_copy(update={name: getattr(told, name) for name in words})
    return Argument(argument.name, declared, argument.location, required)


def merge_inputs(found: Found, path: Template) -> MergedInputs:
    """Adapter, resource and operation merged, the inner ones' fields winning, in the order of the input schema."""
    operation = found.operation
    placeholders = [hole.name for hole in path if isinstance(hole, ArgumentReference)]
    merged: dict[tuple[str, str], spec.InputParameter] = {}
    own = {(parameter.name, location_of(parameter, placeholders)) for parameter in operation.input_parameters}
    for scope in (found.consumed.input_parameters, found.resource.input_parameters, operation.input_parameters):
        for parameter in scope:
            key = (parameter.name, location_of(parameter, placeholders))
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


def location_of(parameter: spec.InputParameter, placeholders: list[str]) -> str:
    written = (parameter.location or ("path" if parameter.name in placeholders else "query")).lower()
    return Location.BODY if written in FORM_PLACES else written


def _refined(outer: spec.InputParameter, inner: spec.InputParameter) -> spec.InputParameter:
    return outer.model_copy(update={name: getattr(inner, name) for name in inner.model_fields_set})


def add_input(
    inputs: Inputs, declared: spec.InputParameter, location: Location, constant: Callable[[Any], Any]
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


def add_undeclared(inputs: Inputs, method: str, path: Template, used: Set[str]) -> None:
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
        add_input(inputs, declared, location, lambda value: value)
