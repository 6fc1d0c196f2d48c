"""Where capability files and their overlays lie."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mcp_taskruns.errors import CapabilityError

MAX_FILE_BYTES = 10_000_000
"""A larger file is no capability file: it is not read."""


def shipped_capabilities() -> Path:
    """The folder of the capability files that come with the package."""
    package = Path(__file__).parents[1]
    installed = package / "capabilities"
    return installed if installed.is_dir() else package.parent / "capabilities"


def capability_files(folders: Sequence[str | Path]) -> list[Path]:
    """The capability files of the folders, each once, in name order; a file stands for itself.

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
    return list({path.resolve(): path for path in reversed(files)}.values())[::-1]


def orphan_overlays(folders: Sequence[str | Path]) -> list[Path]:
    """The overlays that refine no file."""
    overlays = [path for folder in _folders(folders) for path in _yaml_files(folder / "overlays")]
    return sorted(path for path in overlays if not (path.parent.parent / path.name).is_file())


def capability_folders(folders: Sequence[str | Path]) -> list[Path]:
    """The folders in which the capability files lie, with their overlays."""
    return list(dict.fromkeys(path if path.is_dir() else path.parent for path in _folders(folders)))


def _folders(folders: Sequence[str | Path]) -> list[Path]:
    return [Path(folder).expanduser() for folder in folders] or [shipped_capabilities()]


def overlay_of(path: Path) -> Path:
    """Where the overlay of a capability file lies, if it has one."""
    return path.parent / "overlays" / path.name


def _yaml_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("*") if path.suffix in {".yaml", ".yml"} and path.is_file())
