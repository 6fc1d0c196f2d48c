"""The inputs of an operation: where each is sent, and which of them the caller passes."""

from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.authentication import CONNECTION_HEADERS
from mcp_taskruns.core.format.policies import Policies
from mcp_taskruns.core.format.templates import without_fragment
from mcp_taskruns.core.model.operation import ArgumentReference, Location, Parameter, Template, Variable

SERVER_HEADERS = CONNECTION_HEADERS | {"authorization", "content-type", "accept"}
"""Headers that the server sets itself: not offered to the caller, and dropped if passed."""

BODY = "body"

_METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})

FORM_LOCATIONS = frozenset({"form", "formdata"})
"""Locations of OpenAPI 2.0, which generators left in some files: fields of a form, which is the body."""

ENVIRONMENT = "environment"
"""The location of an input that is not sent: the name of an environment variable."""

LocatedInput = tuple[spec.InputParameter, Location]


@dataclass(frozen=True)
class DeclaredOperation:
    """An operation with the parts of the capability file around it."""

    consumed: spec.Consumed
    resource: spec.ConsumedResource
    operation: spec.ConsumedOperation
    policies: Policies

    @property
    def path(self) -> str:
        """The path as written, without its fragment: that of the operation, else that of the resource."""
        return without_fragment(self.resource.path if self.operation.path is None else self.operation.path)

    def declared_inputs(self) -> Iterator[spec.InputParameter]:
        """Yield all declared inputs, the outermost first."""
        yield from header_inputs(self.consumed.headers)
        yield from self.consumed.input_parameters
        yield from self.resource.input_parameters
        yield from header_inputs(self.operation.headers)
        yield from self.operation.input_parameters


def header_inputs(headers: Mapping[str, Any]) -> Iterator[spec.InputParameter]:
    """Yield the inputs that the `headers` of a capability file declare; one without a value is not sent."""
    for name, value in headers.items():
        if value is not None:
            yield spec.InputParameter(name=name, location=Location.HEADER, value=value)


@dataclass(frozen=True)
class Argument:
    """One property of a tool's input schema."""

    name: str
    declared: spec.InputParameter
    location: Location
    required: bool


@dataclass
class Inputs:
    """The parameters and arguments of a call, while they are collected."""

    with_: Mapping[str, Any]
    parameters: list[Parameter] = field(default_factory=list)
    arguments: dict[str, Argument] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    sources: dict[str, str] = field(default_factory=dict)
    """For each argument, the first parameter that takes its value."""

    def add_argument(self, name: str, declared: spec.InputParameter, location: Location, required: bool) -> None:
        """Add an argument, or make a known one required."""
        known = self.arguments.get(name)
        if known is None:
            self.arguments[name] = Argument(name, declared, location, required)
        elif required and not known.required:
            self.arguments[name] = Argument(name, known.declared, known.location, True)

    def values(self) -> dict[str, Any]:
        """Return the value of each input by its name: a reference to an argument, or a constant."""
        return {
            parameter.name: ArgumentReference(parameter.argument) if parameter.argument else parameter.constant
            for parameter in reversed(self.parameters)
        }

    def add(self, declared: spec.InputParameter, location: Location, constant: Any = None) -> None:
        """Add an input: its parsed `constant`, the value in `with`, or an argument of the caller."""
        given = self.with_.get(declared.name)
        is_server_header = location is Location.HEADER and declared.name.lower() in SERVER_HEADERS
        if declared.value is not None:
            if not (is_server_header and declared.name.lower() in CONNECTION_HEADERS):
                self.parameters.append(self._constant(declared, location, constant))
        elif is_server_header:
            self.dropped.add(given.name if isinstance(given, ArgumentReference) else declared.name)
        elif given is None and declared.name in self.with_:
            return  # `with` omits it by null
        elif given is not None and not isinstance(given, ArgumentReference):
            self.parameters.append(self._constant(declared, location, given))
        else:
            self._add_from_caller(declared, location, given)

    @staticmethod
    def _constant(declared: spec.InputParameter, location: Location, value: Any) -> Parameter:
        return Parameter(declared.name, location, None, value, keeps_slashes=declared.keeps_slashes)

    def _add_from_caller(
        self, declared: spec.InputParameter, location: Location, given: ArgumentReference | None
    ) -> None:
        name = given.name if given else declared.name
        while name in self.arguments and not (given and self.sources[name] != declared.name):
            name = f"{name}_{location}"  # for example the `id` of the path and that of the query
        self.sources.setdefault(name, declared.name)
        default = Variable(declared.env) if declared.env else None
        required = declared.required if declared.required is not None else location is Location.PATH
        self.parameters.append(
            Parameter(
                declared.name,
                location,
                name,
                default=default,
                explode=declared.explode is not False,
                keeps_slashes=declared.keeps_slashes,
            )
        )
        self.add_argument(name, declared, location, required and default is None)

    def add_undeclared(self, method: str, path: Template, used: Set[str]) -> None:
        """Add the inputs in `with` that the operation does not declare: a body, a dropped header, else in the query.

        `used` are the names in the body's template.
        """
        known = {parameter.name for parameter in self.parameters} | self.dropped
        known |= {name for name, given in self.with_.items() if given is None}
        known |= set(_arguments_in(path))
        for name, given in self.with_.items():
            reference = given.name if isinstance(given, ArgumentReference) else None
            if name in known or name in used or reference in used:
                continue
            if name.lower() in SERVER_HEADERS:
                self.dropped.add(reference or name)
                continue
            location = Location.BODY if name == BODY and method in _METHODS_WITH_BODY else Location.QUERY
            self.add(spec.InputParameter(name=name), location)


def refine_argument(argument: Argument, refinements: Mapping[str, spec.InputParameter]) -> Argument:
    """Return the argument with the changes that the tool's own `inputParameters` make."""
    changed = refinements.get(argument.name)
    if changed is None:
        return argument
    is_path = argument.location is Location.PATH
    required = argument.required if changed.required is None else changed.required or is_path
    fields = {"type", "description", "json_schema"} & changed.model_fields_set
    declared = argument.declared.model_copy(update={name: getattr(changed, name) for name in fields})
    return Argument(argument.name, declared, argument.location, required)


def merge_inputs(declared: DeclaredOperation, path: Template) -> list[LocatedInput]:
    """Merge the inputs of adapter, resource and operation; inner fields win. Return them in schema order."""
    placeholders = _arguments_in(path)
    merged: dict[tuple[str, str], spec.InputParameter] = {}
    own = {(one.name, location_of(one, placeholders)) for one in declared.operation.input_parameters}
    for parameter in declared.declared_inputs():
        key = (parameter.name, location_of(parameter, placeholders))
        if key[1] == Location.PATH and parameter.name not in placeholders and key not in own:
            continue  # declared for the whole adapter, and this path has no placeholder for it
        outer = merged.get(key)
        merged[key] = _merge_fields(outer, parameter) if outer else parameter
    for name in placeholders:
        # Most public files leave path parameters undeclared: each is a required string.
        merged.setdefault((name, Location.PATH), spec.InputParameter(name=name, type="string", required=True))
    order = list(Location)
    located = [(parameter, Location(key[1])) for key, parameter in merged.items() if key[1] in set(order)]
    return sorted(located, key=lambda pair: (order.index(pair[1]), _position(pair[0].name, placeholders)))


def _arguments_in(path: Template) -> list[str]:
    return [part.name for part in path if isinstance(part, ArgumentReference)]


def _position(name: str, placeholders: list[str]) -> int:
    return placeholders.index(name) if name in placeholders else len(placeholders)


def location_of(parameter: spec.InputParameter, placeholders: Collection[str]) -> str:
    """Return the location of a parameter; without one it is in the path if that has its name, else in the query."""
    written = (parameter.location or ("path" if parameter.name in placeholders else "query")).lower()
    return Location.BODY if written in FORM_LOCATIONS else written


def _merge_fields(outer: spec.InputParameter, inner: spec.InputParameter) -> spec.InputParameter:
    return outer.model_copy(update={name: getattr(inner, name) for name in inner.model_fields_set})
