"""Load folders of capability files into compiled tools."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mcp_taskruns.core.format.compiler import NO_BASE_URIS, ToolNames, compile_tools
from mcp_taskruns.core.format.overlay import apply_overlay
from mcp_taskruns.core.format.spec import Capability, parse_capability
from mcp_taskruns.core.format.tool_schemas import with_result_path
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import CapabilityError
from mcp_taskruns.loading.files import capability_files, overlay_of
from mcp_taskruns.loading.yaml import read_document


@dataclass(frozen=True)
class Loaded:
    """The result of loading: tools, the tools that REST routes call, and why files cannot be served.

    `capabilities` are the parsed files that the tools were compiled from.
    """

    tools: tuple[Tool, ...]
    rest_tools: tuple[Tool, ...] = ()
    problems: tuple[CapabilityError, ...] = ()
    capabilities: Mapping[Path, Capability] = field(default_factory=dict, repr=False)


def load(
    folders: Sequence[str | Path],
    *,
    overlays: bool = True,
    names: ToolNames = "prefixed",
    base_uris: Mapping[str, str] = NO_BASE_URIS,
    rest: bool = False,
    previous: Mapping[Path, Capability] | None = None,
) -> Loaded:
    """Load every capability file in the folders that can be served; without folders, load the built-in files.

    `base_uris` overrides the base URIs of providers by the namespace of their `consumes`. With `rest`, the tools that
    REST routes call are compiled too. `previous` are the capabilities of an earlier load: one replaces its file if that
    has become invalid. An invalid file does not affect other files. Raises CapabilityError for a folder that does not
    exist or has no capability files.
    """
    previous = previous or {}
    capabilities, problems = _read(folders, previous, overlays=overlays)
    rejected: list[Capability] = []

    def reject(capability: Capability, problem: CapabilityError) -> None:
        problems.append(problem)
        rejected.append(capability)

    tools = compile_tools(list(capabilities.values()), names=names, base_uris=base_uris, refuse=reject)
    if rejected:
        capabilities = _replace(capabilities, rejected, previous)
        tools = compile_tools(list(capabilities.values()), names=names, base_uris=base_uris, refuse=reject)
    rest_tools: tuple[Tool, ...] = ()
    if rest:
        rest_tools = compile_tools(list(capabilities.values()), surface="rest", base_uris=base_uris, refuse=reject)
    tools, rest_tools = (tuple(map(with_result_path, group)) for group in (tools, rest_tools))
    return Loaded(tools, rest_tools, tuple(problems), capabilities)


def _read(
    folders: Sequence[str | Path], previous: Mapping[Path, Capability], *, overlays: bool
) -> tuple[dict[Path, Capability], list[CapabilityError]]:
    """Parse the capability files, and use the previous version of a file that is invalid."""
    capabilities: dict[Path, Capability] = {}
    problems: list[CapabilityError] = []
    for path in capability_files(folders):
        try:
            capabilities[path] = load_capability(path, overlays=overlays)
        except CapabilityError as exc:
            problems.append(exc)
            if path in previous:
                capabilities[path] = previous[path]
    return capabilities, problems


def _replace(
    capabilities: Mapping[Path, Capability], rejected: Iterable[Capability], previous: Mapping[Path, Capability]
) -> dict[Path, Capability]:
    """Replace rejected capabilities by their previous versions, and remove those that have none."""
    identities = set(map(id, rejected))
    return {
        path: previous[path] if id(capability) in identities else capability
        for path, capability in capabilities.items()
        if id(capability) not in identities or path in previous
    }


def load_tools(
    folders: Sequence[str | Path], *, overlays: bool = True, names: ToolNames = "prefixed"
) -> tuple[Tool, ...]:
    """Return the tools of all capability files in the folders; without folders, those of the built-in files.

    Raises CapabilityError for the first file that cannot be served.
    """
    loaded = load(folders, overlays=overlays, names=names)
    for problem in loaded.problems:
        raise problem
    return loaded.tools


def load_capability(path: Path, *, overlays: bool = True) -> Capability:
    """Parse a capability file, with `overlays/<same name>` beside it applied if that exists.

    Raises CapabilityError.
    """
    document = read_document(path)
    overlay = overlay_of(path)
    source = path.name
    if overlays and overlay.is_file():
        source = f"{path.name} with overlays/{path.name}"
        document = apply_overlay(document, read_document(overlay), f"overlays/{path.name}")
    return parse_capability(document, source)
