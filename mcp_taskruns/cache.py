"""What capability files were compiled to, kept between starts.

To read and compile the shipped files takes a tenth of a start and 4 MB, of which nothing is needed afterwards.
"""

import hashlib
import os
import pickle
import stat
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from mcp_taskruns import __version__
from mcp_taskruns.catalog import Loaded
from mcp_taskruns.folders import MAX_FILE_BYTES, capability_files, overlay_of
from mcp_taskruns.settings import Settings

if TYPE_CHECKING:
    from mcp_taskruns.core.compiler import ToolNames

MAX_KEPT = 8
"""Entries that are kept: one for each combination of files and settings that is in use."""


def load_capabilities(settings: Settings) -> Loaded:
    """What the settings' capability files hold, as it is kept for just these files, or read anew.

    Raises CapabilityError for a folder that is not there or holds no files.
    """
    files = capability_files(settings.capabilities)
    folder = None if settings.no_cache else _folder(settings.environment)
    entry = None
    if folder is not None:
        with suppress(OSError):  # a file that cannot be read is told where it is read
            entry = folder / f"{_digest(files, settings)}.pickle"
    kept = None if entry is None else _read(entry)
    if kept is not None:
        return kept
    from mcp_taskruns.loader import load  # with YAML and the models of capability files: what keeping them spares

    loaded = load(settings.capabilities, **load_options(settings))
    if entry is not None and not loaded.problems:
        with suppress(OSError):  # a disk that is full or read-only: the next start reads them anew
            if entry.stem == _digest(files, settings):  # they were not changed meanwhile
                _write(entry, loaded)
    return loaded


def load_options(settings: Settings) -> "LoadOptions":
    """What the loader needs to know of the settings."""
    return {
        "overlays": not settings.no_overlays,
        "names": settings.tool_names,
        "base_uris": settings.base_uris,
        "rest": settings.rest,
    }


class LoadOptions(TypedDict):
    """Keyword arguments of the loader."""

    overlays: bool
    names: "ToolNames"
    base_uris: Mapping[str, str]
    rest: bool


def _folder(environment: Mapping[str, str]) -> Path | None:
    """The user's folder for what can be made anew; None where there is none, or others could write into it."""
    home = environment.get("XDG_CACHE_HOME") or (environment.get("HOME") and f"{environment['HOME']}/.cache")
    if not home or not hasattr(os, "getuid"):
        return None
    folder = Path(home, "mcp-taskruns")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder if _is_ours(folder) else None
    except OSError:
        return None


def _is_ours(path: Path) -> bool:
    """Whether nobody else can have written it: what is kept is trusted as compiled Python is."""
    found = path.stat()
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _digest(files: Sequence[Path], settings: Settings) -> str:
    """What tells these files, read by this code with these settings, from all others.

    Raises OSError for a file that cannot be read, or is too large to be one.
    """
    options = (settings.no_overlays, settings.tool_names, sorted(settings.base_uris.items()), settings.rest)
    digest = hashlib.sha256(repr((__version__, sys.version_info, options)).encode())
    package = Path(__file__).parent
    for path in sorted([*package.glob("*.py"), *package.glob("core/*.py")]):
        found = path.stat()
        digest.update(f"{path.name} {found.st_mtime_ns} {found.st_size}\0".encode())
    for path in files:
        overlay = overlay_of(path)
        for read in (path, overlay) if overlay.is_file() else (path,):
            size = read.stat().st_size
            if size > MAX_FILE_BYTES:
                raise OSError(f"{read.name} is too large")
            digest.update(f"{read.parent.name}/{read.name} {size}\0".encode())
            digest.update(read.read_bytes())
    return digest.hexdigest()


def _read(entry: Path) -> Loaded | None:
    """What is kept there; None for nothing, and for what cannot be used."""
    try:
        if not _is_ours(entry):
            return None
        kept = pickle.loads(entry.read_bytes())
        entry.touch()
    except Exception:  # half an entry, or one of another version, may fail in any way: it is made anew
        return None
    return kept if isinstance(kept, Loaded) else None


def _write(entry: Path, loaded: Loaded) -> None:
    """Keep it whole or not at all, and the newest entries only."""
    descriptor, name = tempfile.mkstemp(dir=entry.parent)
    with os.fdopen(descriptor, "wb") as file:
        pickle.dump(loaded, file, pickle.HIGHEST_PROTOCOL)
    os.replace(name, entry)
    newest = sorted(entry.parent.glob("*.pickle"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in newest[MAX_KEPT:]:
        old.unlink(missing_ok=True)
