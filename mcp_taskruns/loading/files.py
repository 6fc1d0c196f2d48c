"""Where capability files and their overlays are on disk."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mcp_taskruns.errors import CapabilityError

MAX_FILE_BYTES = 10_000_000
"""The size above which a file is rejected without reading it."""


def builtin_capabilities() -> Path:
    """Return the folder of the capability files that are part of this package."""
    package = Path(__file__).parents[1]
    installed = package / "capabilities"
    return installed if installed.is_dir() else package.parent / "capabilities"


def capability_files(folders: Sequence[str | Path]) -> list[Path]:
    """Return the capability files in the folders, each once and sorted by name within its folder.

    An item may also be a file. Without items, return the built-in files. Raises CapabilityError for an item that does
    not exist and for a folder without capability files.
    """
    files: list[Path] = []
    for folder in _expand(folders):
        if not folder.exists():
            raise CapabilityError(str(folder), "", "no such file or folder")
        found = [folder] if folder.is_file() else sorted(_yaml_files(folder))
        if not found:
            raise CapabilityError(str(folder), "", "the folder has no capability files (*.yaml)")
        files += found
    return list({path.resolve(): path for path in reversed(files)}.values())[::-1]


def orphan_overlays(folders: Sequence[str | Path]) -> list[Path]:
    """Return the overlays in the folders that have no capability file of the same name."""
    overlays = [path for folder in _expand(folders) for path in _yaml_files(folder / "overlays")]
    return sorted(path for path in overlays if not (path.parent.parent / path.name).is_file())


def capability_folders(folders: Sequence[str | Path]) -> list[Path]:
    """Return the folders that contain the capability files and their overlays, each once."""
    return list(dict.fromkeys(path if path.is_dir() else path.parent for path in _expand(folders)))


def overlay_of(path: Path) -> Path:
    """Return the path of a capability file's overlay, whether or not it exists."""
    return path.parent / "overlays" / path.name


def _expand(folders: Sequence[str | Path]) -> list[Path]:
    return [Path(folder).expanduser() for folder in folders] or [builtin_capabilities()]


def _yaml_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("*") if path.suffix in {".yaml", ".yml"} and path.is_file())
