"""The only reader of capability files: folders of YAML to compiled tools."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mcp_taskruns.core.compiler import NO_BASE_URIS, ToolNames, compile_tools
from mcp_taskruns.core.operation import Tool
from mcp_taskruns.core.overlay import apply_overlay
from mcp_taskruns.core.spec import Capability, parse_capability
from mcp_taskruns.documents import read_document
from mcp_taskruns.errors import CapabilityError


def shipped_capabilities() -> Path:
    """The folder of the capability files that come with the package."""
    package = Path(__file__).parent
    installed = package / "capabilities"
    return installed if installed.is_dir() else package.parent / "capabilities"


@dataclass(frozen=True)
class Loaded:
    """What folders of capability files hold: tools, what their REST sides call, and the files that cannot be served."""

    tools: tuple[Tool, ...]
    rest_tools: tuple[Tool, ...] = ()
    problems: tuple[CapabilityError, ...] = ()


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


def capability_files(folders: Sequence[str | Path]) -> list[Path]:
    """The capability files of the folders, in name order; a file stands for itself.

    Raises CapabilityError for a folder that is not there or holds none.
    """
    files: list[Path] = []
    for folder in _folders(folders):
        if not folder.exists():
            raise CapabilityError(str(folder), "", "there is no such file or folder")
        found = [folder] if folder.is_file() else sorted(_yaml_files(folder))
        if not found:
            raise CapabilityError(str(folder), "", "no capability files (*.yaml) here")
        files += found
    return files


def orphan_overlays(folders: Sequence[str | Path]) -> list[Path]:
    """The overlays that refine no file."""
    overlays = [path for folder in _folders(folders) for path in _yaml_files(folder / "overlays")]
    return sorted(path for path in overlays if not (path.parent.parent / path.name).is_file())


def capability_folders(folders: Sequence[str | Path]) -> list[Path]:
    """The folders in which the capability files lie, with their overlays."""
    return list(dict.fromkeys(path if path.is_dir() else path.parent for path in _folders(folders)))


def _folders(folders: Sequence[str | Path]) -> list[Path]:
    return [Path(folder).expanduser() for folder in folders] or [shipped_capabilities()]


def load_capability(path: Path, *, overlays: bool = True) -> Capability:
    """One capability file, refined by `overlays/<the same name>` beside it.

    Raises CapabilityError naming the file and the place in it.
    """
    document = read_document(path)
    overlay = path.parent / "overlays" / path.name
    source = path.name
    if overlays and overlay.is_file():
        source = f"{path.name} with overlays/{path.name}"
        document = apply_overlay(document, read_document(overlay), f"overlays/{path.name}")
    return parse_capability(document, source)


def _yaml_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("*") if path.suffix in {".yaml", ".yml"} and path.is_file())
