"""A capability as its checks look at it: what calls what, and where each stands."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mcp_taskruns.core.checks.codes import Place
from mcp_taskruns.core.format import spec
from mcp_taskruns.core.format.compiler import choose, compile_tool, fitting
from mcp_taskruns.core.format.inputs import Found
from mcp_taskruns.core.format.names import prefix_of
from mcp_taskruns.core.format.policies import Refinements
from mcp_taskruns.core.model.tool import Tool


@dataclass(frozen=True)
class Site(Found):
    """An operation of the provider, and its place."""

    place: Place

    @property
    def name(self) -> str:
        return f"{self.consumed.namespace}.{self.operation.name}"

    @property
    def consumed_place(self) -> Place:
        return self.place[:3]

    @property
    def path_place(self) -> Place:
        return (*(self.place if self.operation.path is not None else self.place[:-2]), "path")

    def inputs(self) -> Iterator[tuple[Place, spec.InputParameter]]:
        """The inputs that are declared for it, the innermost first."""
        scopes = ((self.place, self.operation), (self.place[:-2], self.resource), (self.consumed_place, self.consumed))
        for place, scope in scopes:
            yield from numbered((*place, "inputParameters"), scope.input_parameters)


@dataclass(frozen=True)
class Use:
    """What calls an operation: a tool, or an operation of a REST adapter. `site` is what it calls, None for nothing."""

    place: Place
    declared: spec.ExposedTool | spec.RestOperation
    name: str
    tool: Tool
    sites: Sequence[Site]

    @property
    def is_ambiguous(self) -> bool:
        """Whether `with` does not tell which of several operations is called."""
        return len(self.sites) > 1 and len(fitting(self.declared, self.sites)) != 1

    @property
    def site(self) -> Site | None:
        """The operation that is called."""
        return choose(self.declared, self.sites)


class File:
    """A capability with what calls what in it."""

    def __init__(
        self, capability: spec.Capability, tools: Sequence[Tool], environment: Collection[str] | None = None
    ) -> None:
        self.capability = capability
        self.environment = environment
        self.sites: dict[str, list[Site]] = {}
        for place, consumed in self.consumes():
            refinements = Refinements(capability.source, consumed)
            for outer, resource in numbered((*place, "resources"), consumed.resources):
                for inner, operation in numbered((*outer, "operations"), resource.operations):
                    site = Site(consumed, resource, operation, refinements, inner)
                    self.sites.setdefault(site.name, []).append(site)
        self.waits = [tool for tool in tools if tool.waits]
        self.tools = list(self._tool_uses([tool for tool in tools if not tool.waits]))
        self.rest = list(self._rest_uses())

    @property
    def uses(self) -> list[Use]:
        return [*self.tools, *self.rest]

    def consumes(self) -> Iterator[tuple[Place, spec.Consumed]]:
        return numbered(("capability", "consumes"), self.capability.capability.consumes)

    def exposes(self) -> Iterator[tuple[Place, spec.Exposed]]:
        return numbered(("capability", "exposes"), self.capability.capability.exposes)

    def _tool_uses(self, tools: Sequence[Tool]) -> Iterator[Use]:
        found = [
            (inner, declared)
            for place, exposed in self.exposes()
            if exposed.type == "mcp"
            for inner, declared in numbered((*place, "tools"), exposed.tools)
        ]
        for (place, declared), tool in zip(found, tools, strict=True):
            yield Use(place, declared, tool.name, tool, self.sites.get(declared.call, ()))

    def _rest_uses(self) -> Iterator[Use]:
        for place, exposed in self.exposes():
            if exposed.type != "rest":
                continue
            for outer, resource in numbered((*place, "resources"), exposed.resources):
                for inner, declared in numbered((*outer, "operations"), resource.operations):
                    name = f"{declared.method.upper()} {resource.path}"
                    sites = self.sites.get(declared.call, [])
                    tool = compile_tool(self.capability, declared, choose(declared, sites))
                    yield Use(inner, declared, name, tool, sites)


def numbered(place: Place, items: Sequence[Any]) -> Iterator[tuple[Place, Any]]:
    for number, item in enumerate(items):
        yield (*place, number), item


def listed_name(capability: spec.Capability, tool: spec.ExposedTool) -> str:
    """The name that a tool gets, before it is made legal."""
    return f"{prefix_of(capability)}-{tool.rename or tool.name}"


def name_place(place: Place, tool: spec.ExposedTool) -> Place:
    """Where the name of a tool stands."""
    return (*place, "rename" if tool.rename else "name")
