"""Where capability files and their overlays are on disk."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mcp_taskruns.errors import CapabilityError, SettingsError

ALL = "all"
"""Instead of names: all built-in files that are loaded on request."""

MAX_FILE_BYTES = 10_000_000
"""The size above which a file is rejected without reading it."""


def builtin_capabilities() -> Path:
    """Return the folder of the capability files that are part of this package."""
    package = Path(__file__).parents[1]
    installed = package / "capabilities"
    return installed if installed.is_dir() else package.parent / "capabilities"


def files_on_request(names: Sequence[str] = (ALL,)) -> list[Path]:
    """Return the built-in files that are not loaded by default, sorted; only those with these names.

    A name is that of a file, `acme-jobs` for `acme-jobs.yaml`, or its first words, `acme`. Raises SettingsError for a
    name that no file has.
    """
    files = sorted(_yaml_files(builtin_capabilities() / "more"))
    for name in names:
        if name != ALL and not any(_has_name(path, name) for path in files):
            known = ", ".join(path.stem for path in files)
            raise SettingsError(f"--with: no built-in provider has the name {name!r}; names: {known}, {ALL}")
    return [path for path in files if any(name == ALL or _has_name(path, name) for name in names)]


def _has_name(path: Path, name: str) -> bool:
    return f"{path.stem}-".startswith(f"{name.lower()}-")


def paths_to_load(folders: Sequence[str | Path], names: Sequence[str]) -> list[Path]:
    """Return the folders, or without any that of the built-in files, and the files on request with these names.

    Raises SettingsError for a name that no file has.
    """
    return [*_expand(folders), *(files_on_request(names) if names else ())]


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
