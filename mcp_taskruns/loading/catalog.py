"""What of the capabilities is served: the tools that the operator lets through, and the routes to them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from mcp_taskruns.core.calls.request import is_usable_base_uri
from mcp_taskruns.core.model.operation import Operation
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.core.rest.routes import Route
from mcp_taskruns.errors import CapabilityError, SettingsError
from mcp_taskruns.settings import Settings


@dataclass(frozen=True)
class Loaded:
    """What folders of capability files hold: tools, what their REST sides call, and the files that cannot be served."""

    tools: tuple[Tool, ...]
    rest_tools: tuple[Tool, ...] = ()
    problems: tuple[CapabilityError, ...] = ()


@dataclass(frozen=True)
class Catalog:
    """Tools by name, and the routes of the REST side with what there is to say of them.

    `operations` are all that the capability files have, also those of tools that are not served.
    """

    tools: Mapping[str, Tool]
    operations: Sequence[Operation] = field(default=(), repr=False)
    routes: Sequence[Route] = ()
    notes: Sequence[str] = ()


def build_catalog(
    tools: Sequence[Tool], settings: Settings, rest_tools: Sequence[Tool] = (), *, is_whole: bool = True
) -> Catalog:
    """The tools that the settings let through, and of the REST side what calls them, or what no other tool calls.

    Raises SettingsError for a setting that names what is not there, if the tools are the whole of the folders: a file
    that cannot be read might have it.
    """
    if is_whole:
        _refuse_unknown([*tools, *rest_tools], settings)
    served = [tool for tool in tools if _is_served(tool, settings)]
    operations = [tool.operation for tool in (*tools, *rest_tools)]
    if not rest_tools:
        return Catalog({tool.name: tool for tool in served}, operations)
    from mcp_taskruns.core.rest.routes import compile_routes, identity  # only who serves the REST side pays for it

    # What the operator says of a tool holds for the routes that call the same operation.
    known = {identity(tool): _is_served(tool, settings) for tool in tools if not tool.is_wait_tool}
    shown = [tool for tool in rest_tools if known.get(identity(tool), _is_served(tool, settings))]
    compiled = compile_routes(shown, tools)
    return Catalog({tool.name: tool for tool in served}, operations, compiled.routes, compiled.notes)


def _refuse_unknown(tools: Sequence[Tool], settings: Settings) -> None:
    prefixes = {tool.prefix for tool in tools}
    unknown = set(settings.only) - prefixes
    if unknown:
        there_are = ", ".join(sorted(prefixes))
        raise SettingsError(f"--only: no capability has the prefix {', '.join(sorted(unknown))}; there are {there_are}")
    for flag, patterns in (("--tools", settings.tools), ("--exclude-tools", settings.exclude_tools)):
        for pattern in patterns:
            if not any(_matches(tool, [pattern]) for tool in tools):
                # A misspelled pattern that excludes nothing would leave a tool that should not be there.
                raise SettingsError(f"{flag}: no tool matches {pattern!r}; `mcp-taskruns tools` lists them")
    for namespace, uri in settings.base_uris.items():
        if not is_usable_base_uri(uri):
            told = "it has to be https, or http on this machine, and without a query"
            raise SettingsError(f"--base-uri: {namespace}={uri} cannot be called: {told}")
    namespaces = {tool.operation.namespace for tool in tools} - {""}
    strangers = settings.base_uris.keys() - namespaces
    if strangers:
        there_are = ", ".join(sorted(namespaces))
        raise SettingsError(f"--base-uri: no capability consumes {', '.join(sorted(strangers))}; there are {there_are}")


def _is_served(tool: Tool, settings: Settings) -> bool:
    if settings.only and tool.prefix not in settings.only:
        return False
    if settings.read_only and not tool.hints.read_only:
        return False
    if settings.tools and not _matches(tool, settings.tools):
        return False
    return not _matches(tool, settings.exclude_tools)


def _matches(tool: Tool, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(tool.name, pattern) for pattern in patterns)


def changes(old: Catalog, new: Catalog) -> Iterator[str]:
    """What is different in the new catalog, in a few words each."""
    added, removed = new.tools.keys() - old.tools.keys(), old.tools.keys() - new.tools.keys()
    changed = [name for name in new.tools.keys() & old.tools.keys() if new.tools[name] != old.tools[name]]
    for names, told in ((added, "added"), (removed, "removed"), (changed, "changed")):
        if names:
            shown = ", ".join(sorted(names)[:5])
            yield f"{told}: {shown}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")
