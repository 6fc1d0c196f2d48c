"""A capability as its checks see it: tools, the operations they call, and the place of each in the document."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcp_taskruns.core.checks.codes import Place
from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.compiler import compile_tool
from mcp_taskruns.core.format.inputs import DeclaredOperation
from mcp_taskruns.core.format.names import prefix_of, prefixed_name
from mcp_taskruns.core.format.pairing import Caller, pair_operations
from mcp_taskruns.core.format.policies import Policies
from mcp_taskruns.core.model.tool import Tool


@dataclass(frozen=True)
class Site(DeclaredOperation):
    """An operation of the provider with its place."""

    place: Place

    @property
    def name(self) -> str:
        """`namespace.operation`, as `call` refers to it."""
        return f"{self.consumed.namespace}.{self.operation.name}"

    @property
    def consumed_place(self) -> Place:
        """The place of the `consumes` item."""
        return self.place[:3]

    @property
    def path_place(self) -> Place:
        """The place of the path: on the operation, or on its resource."""
        return (*(self.place if self.operation.path is not None else self.place[:-2]), "path")

    def inputs(self) -> Iterator[tuple[Place, spec.InputParameter]]:
        """Yield the input parameters of the operation, then of its resource, then of its adapter."""
        scopes = ((self.place, self.operation), (self.place[:-2], self.resource), (self.consumed_place, self.consumed))
        for place, scope in scopes:
            yield from enumerate_items((*place, "inputParameters"), scope.input_parameters)

    def texts(self) -> Iterator[tuple[Place, str]]:
        """Yield the texts that may have placeholders: authentication, base URI, path, constants and body."""
        yield from strings_in((*self.consumed_place, "authentication"), self.consumed.authentication)
        yield from strings_in((*self.consumed_place, "baseUri"), self.consumed.base_uri)
        yield self.path_place, self.path
        for place, headers in ((self.consumed_place, self.consumed.headers), (self.place, self.operation.headers)):
            yield from strings_in((*place, "headers"), headers)
        for place, declared in self.inputs():
            yield from strings_in((*place, "value"), declared.value)
        yield from strings_in((*self.place, "body"), self.operation.body)


@dataclass(frozen=True)
class Use:
    """A tool or a REST operation, with the operations that it may mean."""

    place: Place
    declared: Caller
    name: str
    """The listed name of a tool, or the method and path of a REST operation."""
    tool: Tool
    sites: Sequence[Site]

    @property
    def is_ambiguous(self) -> bool:
        """Whether `with` does not select one of several operations."""
        return len(self.sites) > 1

    @property
    def site(self) -> Site | None:
        """The operation that is called, if exactly one is meant."""
        return self.sites[0] if len(self.sites) == 1 else None


class File:
    """A capability with its tools and REST operations.

    `environment` holds the names of the environment variables that are set; None means that they are not checked.
    """

    def __init__(
        self, capability: spec.Capability, tools: Sequence[Tool], environment: Collection[str] | None = None
    ) -> None:
        self.capability = capability
        self.environment = environment
        self.sites = self._find_sites()
        self.run_tools = [tool for tool in tools if tool.derived]
        self.tools = list(self._find_tools([tool for tool in tools if not tool.derived]))
        self.rest = list(self._find_rest_operations())

    @property
    def uses(self) -> list[Use]:
        """Everything that calls an operation."""
        return [*self.tools, *self.rest]

    def consumes(self) -> Iterator[tuple[Place, spec.Consumed]]:
        """Yield the `consumes` items with their places."""
        return enumerate_items(("capability", "consumes"), self.capability.capability.consumes)

    def exposes(self) -> Iterator[tuple[Place, spec.Exposed]]:
        """Yield the `exposes` items with their places."""
        return enumerate_items(("capability", "exposes"), self.capability.capability.exposes)

    def _find_sites(self) -> dict[str, list[Site]]:
        sites: dict[str, list[Site]] = {}
        for place, consumed in self.consumes():
            policies = Policies(self.capability.source, consumed)
            for outer, resource in enumerate_items((*place, "resources"), consumed.resources):
                for inner, operation in enumerate_items((*outer, "operations"), resource.operations):
                    site = Site(consumed, resource, operation, policies, inner)
                    sites.setdefault(site.name, []).append(site)
        return sites

    def _find_tools(self, tools: Sequence[Tool]) -> Iterator[Use]:
        declarations = [
            (inner, declared)
            for place, exposed in self.exposes()
            if exposed.type == "mcp"
            for inner, declared in enumerate_items((*place, "tools"), exposed.tools)
        ]
        meant = pair_operations([declared for _, declared in declarations], self.sites)
        for (place, declared), tool, sites in zip(declarations, tools, meant, strict=True):
            yield Use(place, declared, tool.name, tool, sites)

    def _find_rest_operations(self) -> Iterator[Use]:
        declarations = [
            (inner, resource.path, declared)
            for place, exposed in self.exposes()
            if exposed.type == "rest"
            for outer, resource in enumerate_items((*place, "resources"), exposed.resources)
            for inner, declared in enumerate_items((*outer, "operations"), resource.operations)
        ]
        meant = pair_operations([declared for _, _, declared in declarations], self.sites)
        for (place, path, declared), sites in zip(declarations, meant, strict=True):
            name = f"{declared.method.upper()} {path}"
            yield Use(place, declared, name, compile_tool(self.capability, declared, sites), sites)


def enumerate_items(place: Place, items: Sequence[Any]) -> Iterator[tuple[Place, Any]]:
    """Yield the items of the list at `place` with their places."""
    for index, item in enumerate(items):
        yield (*place, index), item


def strings_in(place: Place, value: Any) -> Iterator[tuple[Place, str]]:
    """Yield all strings in a JSON value with their places; keys of objects are not included."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from strings_in((*place, key), item)
    elif isinstance(value, list):
        for inner, item in enumerate_items(place, value):
            yield from strings_in(inner, item)


def listed_name(capability: spec.Capability, tool: spec.ExposedTool) -> str:
    """Return the name of a tool with its prefix, before invalid characters are replaced."""
    return prefixed_name(prefix_of(capability), tool.rename or tool.name)


def name_place(place: Place, tool: spec.ExposedTool) -> Place:
    """Return the place of a tool's name."""
    return (*place, "rename" if tool.rename else "name")
