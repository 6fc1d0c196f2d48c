"""Folders of capability files to compiled tools, and to what is wrong with a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mcp_taskruns.core.format.compiler import NO_BASE_URIS, ToolNames, compile_tools
from mcp_taskruns.core.format.overlay import apply_overlay
from mcp_taskruns.core.format.spec import Capability, parse_capability
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import CapabilityError
from mcp_taskruns.loading.catalog import Loaded
from mcp_taskruns.loading.files import capability_files, overlay_of
from mcp_taskruns.loading.yaml import read_document


@dataclass
class Known:
    """The capability files as they were when they could be compiled: what stands in for one that cannot be any more."""

    capabilities: dict[Path, Capability] = field(default_factory=dict)


def load(
    folders: Sequence[str | Path],
    *,
    overlays: bool = True,
    names: ToolNames = "prefixed",
    base_uris: Mapping[str, str] = NO_BASE_URIS,
    rest: bool = False,
    known: Known | None = None,
) -> Loaded:
    """All that can be served of the capability files in the folders; no folders: the shipped ones.

    `base_uris` are the addresses of providers by the namespace of their `consumes`. One bad file takes no other down,
    and of one that is `known` what it was before is served on. Raises CapabilityError for a folder that is not there or
    holds no files.
    """
    known = known or Known()
    problems: list[CapabilityError] = []
    capabilities: dict[Path, Capability] = {}
    for path in capability_files(folders):
        try:
            capabilities[path] = load_capability(path, overlays=overlays)
        except CapabilityError as exc:
            problems.append(exc)
            if path in known.capabilities:
                capabilities[path] = known.capabilities[path]
    refused: list[Capability] = []

    def refuse(capability: Capability, problem: CapabilityError) -> None:
        problems.append(problem)
        refused.append(capability)

    tools = compile_tools(list(capabilities.values()), names=names, base_uris=base_uris, refuse=refuse)
    if refused:
        for path, capability in list(capabilities.items()):
            if any(capability is one for one in refused):
                del capabilities[path]
                if path in known.capabilities:
                    capabilities[path] = known.capabilities[path]
        tools = compile_tools(list(capabilities.values()), names=names, base_uris=base_uris, refuse=refuse)
    rest_tools: tuple[Tool, ...] = ()
    if rest:
        left = list(capabilities.values())
        rest_tools = compile_tools(left, surface="rest", base_uris=base_uris, refuse=refuse)
    known.capabilities = capabilities
    return Loaded(tools, rest_tools, tuple(problems))


def load_tools(
    folders: Sequence[str | Path], *, overlays: bool = True, names: ToolNames = "prefixed"
) -> tuple[Tool, ...]:
    """The tools of all capability files in the folders; no folders: the shipped ones.

    Raises CapabilityError naming the first file that cannot be served.
    """
    loaded = load(folders, overlays=overlays, names=names)
    for problem in loaded.problems:
        raise problem
    return loaded.tools


def load_capability(path: Path, *, overlays: bool = True) -> Capability:
    """One capability file, refined by `overlays/<the same name>` beside it.

    Raises CapabilityError naming the file and the place in it.
    """
    document = read_document(path)
    overlay = overlay_of(path)
    source = path.name
    if overlays and overlay.is_file():
        source = f"{path.name} with overlays/{path.name}"
        document = apply_overlay(document, read_document(overlay), f"overlays/{path.name}")
    return parse_capability(document, source)
