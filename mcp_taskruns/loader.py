"""The only reader of capability files: folders of YAML to compiled tools."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mcp_taskruns.catalog import Loaded
from mcp_taskruns.core.compiler import NO_BASE_URIS, ToolNames, compile_tools
from mcp_taskruns.core.operation import Tool
from mcp_taskruns.core.overlay import apply_overlay
from mcp_taskruns.core.spec import Capability, parse_capability
from mcp_taskruns.documents import read_document
from mcp_taskruns.errors import CapabilityError
from mcp_taskruns.folders import capability_files, overlay_of


def load(
    folders: Sequence[str | Path],
    *,
    overlays: bool = True,
    names: ToolNames = "prefixed",
    base_uris: Mapping[str, str] = NO_BASE_URIS,
    rest: bool = False,
) -> Loaded:
    """All that can be served of the capability files in the folders; no folders: the shipped ones.

    `base_uris` are the addresses of providers by the namespace of their `consumes`. One bad file takes no other down.
    Raises CapabilityError for a folder that is not there or holds no files.
    """
    problems: list[CapabilityError] = []
    capabilities: list[Capability] = []
    for path in capability_files(folders):
        try:
            capabilities.append(load_capability(path, overlays=overlays))
        except CapabilityError as exc:
            problems.append(exc)
    tools = compile_tools(capabilities, names=names, base_uris=base_uris, refuse=problems.append)
    rest_tools: tuple[Tool, ...] = ()
    if rest:
        told: list[CapabilityError] = []  # the same as above
        rest_tools = compile_tools(capabilities, surface="rest", base_uris=base_uris, refuse=told.append)
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
