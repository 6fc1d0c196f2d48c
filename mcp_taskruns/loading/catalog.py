"""The catalog: the tools and routes that are served, after the operator's filters."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from mcp_taskruns.core.calls.addresses import is_usable_base_uri
from mcp_taskruns.core.model.operation import Operation
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.core.rest.routes import Route, compile_routes, operation_key
from mcp_taskruns.errors import SettingsError
from mcp_taskruns.settings import Settings

MAX_LISTED = 5
"""The number of tool names that a line about changes lists."""


@dataclass(frozen=True)
class Catalog:
    """The served tools by name, and the REST routes with notes for the operator.

    `operations` are those of all capability files, including operations of tools that are not served.
    """

    tools: Mapping[str, Tool]
    operations: Sequence[Operation] = field(default=(), repr=False)
    routes: Sequence[Route] = ()
    notes: Sequence[str] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    """For each tool that is not served because of the environment, the variables that it lacks."""


def build_catalog(
    tools: Sequence[Tool], settings: Settings, rest_tools: Sequence[Tool] = (), *, is_complete: bool = True
) -> Catalog:
    """Apply the filters of the settings to the tools, and compile the routes of the `rest_tools`.

    A route is served if the tool for the same operation is served; if there is none, the filters apply to the route
    itself. Raises SettingsError for a setting that refers to something that does not exist, unless `is_complete` is
    false: then a file that cannot be loaded might contain it.
    """
    if is_complete:
        _validate(settings, [*tools, *rest_tools])
    served = {tool.name: tool for tool in tools if _is_served(tool, settings)}
    operations = [tool.operation for tool in (*tools, *rest_tools)]
    for runs in {tool.runs.read.tool: tool.runs for tool in tools if tool.runs}.values():
        operations += runs.side_operations()
    without_routes = tuple(_describe_missing_routes(served.values(), rest_tools)) if settings.rest else ()
    missing = _missing_variables(tools, settings.environment)
    if not rest_tools:
        return Catalog(served, operations, notes=without_routes, missing=missing)
    decisions = {operation_key(tool): _is_served(tool, settings) for tool in tools if not tool.derived}
    routed = [tool for tool in rest_tools if decisions.get(operation_key(tool), _is_served(tool, settings))]
    compiled = compile_routes(routed, tools)
    return Catalog(served, operations, compiled.routes, (*compiled.notes, *without_routes), missing)


def _describe_missing_routes(served: Iterable[Tool], rest_tools: Sequence[Tool]) -> Iterator[str]:
    """Yield a line for each provider with tools whose capability file declares no routes at all."""
    routed = {(tool.prefix, tool.operation.namespace) for tool in rest_tools}
    missing = Counter(
        (tool.prefix, tool.operation.namespace)
        for tool in served
        if not tool.derived and tool.operation.namespace and (tool.prefix, tool.operation.namespace) not in routed
    )
    for (prefix, namespace), number in missing.items():
        yield (
            f"the REST API has no routes for the {number} tools of {prefix} (namespace {namespace}): add an adapter of "
            "type rest to its capability file"
        )


def _validate(settings: Settings, tools: Sequence[Tool]) -> None:
    """Raise SettingsError for a setting that refers to a provider or a tool that does not exist."""
    prefixes = {tool.prefix for tool in tools}
    unknown = set(settings.only) - prefixes
    if unknown:
        names, known = ", ".join(sorted(unknown)), ", ".join(sorted(prefixes))
        raise SettingsError(f"--only: no provider has the prefix {names}; prefixes: {known}")
    for option, patterns in (("--tools", settings.tools), ("--exclude-tools", settings.exclude_tools)):
        for pattern in patterns:
            if not any(_matches(tool, [pattern]) for tool in tools):
                # A misspelled pattern that excludes nothing would leave a tool available.
                raise SettingsError(f"{option}: no tool matches {pattern!r}; run `mcp-taskruns tools` to list them")
    _validate_base_uris(settings.base_uris, {tool.operation.namespace for tool in tools} - {""})


def _validate_base_uris(base_uris: Mapping[str, str], namespaces: set[str]) -> None:
    for namespace, uri in base_uris.items():
        if not is_usable_base_uri(uri):
            rule = "use https (or http for a loopback address) and no query"
            raise SettingsError(f"--base-uri: {namespace}={uri} is not a valid base URI; {rule}")
    unknown = base_uris.keys() - namespaces
    if unknown:
        names, known = ", ".join(sorted(unknown)), ", ".join(sorted(namespaces))
        raise SettingsError(f"--base-uri: no capability file consumes {names}; namespaces: {known}")


def _is_served(tool: Tool, settings: Settings) -> bool:
    if not tool.is_available(settings.environment):
        return False
    if settings.only and tool.prefix not in settings.only:
        return False
    if settings.read_only and not tool.hints.read_only:
        return False
    if settings.tools and not _matches(tool, settings.tools):
        return False
    return not _matches(tool, settings.exclude_tools)


def _missing_variables(tools: Iterable[Tool], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that tools lack, by the names of these tools."""
    lacking = [tool for tool in tools if not tool.is_available(environment)]
    needs = {
        tool.name: [one.name for operation in tool.called_operations() for one in operation.needs] for tool in lacking
    }
    return {name: " or ".join(dict.fromkeys(variables)) for name, variables in needs.items()}


def _matches(tool: Tool, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(tool.name, pattern) for pattern in patterns)


def describe_changes(old: Catalog, new: Catalog) -> Iterator[str]:
    """Yield a short line for the tools that were added, removed and changed."""
    added, removed = new.tools.keys() - old.tools.keys(), old.tools.keys() - new.tools.keys()
    changed = [name for name in new.tools.keys() & old.tools.keys() if new.tools[name] != old.tools[name]]
    for names, change in ((added, "added"), (removed, "removed"), (changed, "changed")):
        if names:
            more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
            yield f"{change}: {', '.join(sorted(names)[:MAX_LISTED])}{more}"
