"""Serve capability files again when they change."""

import logging
import os
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path

import anyio
from watchfiles import Change, awatch

from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.errors import TaskRunsError
from mcp_taskruns.loading.catalog import Catalog, describe_changes

DEBOUNCE_MS = 200
"""Changes within this time are one change: an editor writes a file in several steps."""

CHECK_MS = 1_000
"""How often a missing or replaced folder is looked for, and the end of watching is noticed."""

RESCAN_SECONDS = 5.0
"""How often the files are compared with those that were read: the system does not report every change."""

_ENDINGS = (".yaml", ".yml")

logger = logging.getLogger(__name__)

Build = Callable[[], tuple[Catalog, Sequence[TaskRunsError]]]
"""Returns the catalog of the files and the problems in them; an invalid file keeps its last valid content."""


async def watch(
    gateway: Gateway,
    folders: Sequence[Path],
    build: Build,
    known_problems: Sequence[str],
    announce: Callable[[str], None],
    stopped: anyio.Event,
) -> None:
    """Build and serve a catalog after each change in these folders, until `stopped` is set.

    Each new problem is announced once; `known_problems` have been announced before.
    """
    problems = set(known_problems)
    watcher = _Watcher(folders, stopped)
    async with aclosing(watcher.changes()) as changed:
        async for _ in changed:
            catalog, found = await _build(gateway, build)
            watcher.has_unreadable_files = any(isinstance(problem.__cause__, OSError) for problem in found)
            for problem in map(str, found):
                if problem not in problems:
                    announce(f"{problem} (the last valid version is still served)")
            problems = set(map(str, found))
            changes = list(describe_changes(gateway.catalog, catalog))
            if changes or catalog.routes != gateway.catalog.routes:
                await gateway.replace_catalog(catalog)
                announce(f"Capability files have changed. {'; '.join(changes) or 'only the REST side'}.")


async def _build(gateway: Gateway, build: Build) -> tuple[Catalog, Sequence[TaskRunsError]]:
    """Build a catalog, or return the present one with the reason why that failed."""
    try:
        # In a thread: a thousand files take seconds, and calls go on meanwhile.
        return await anyio.to_thread.run_sync(build)
    except TaskRunsError as exc:
        return gateway.catalog, [exc]
    except Exception:
        logger.exception("capability files could not be read")
        return gateway.catalog, [TaskRunsError("the capability files could not be read; see the log")]


class _Watcher:
    """Notices changes of the capability files in folders, which may be missing or replaced at any time.

    The system reports changes in a folder, but none in another one that has replaced it, so the folders are compared
    by device and inode. It reports no changes of a file behind a link, nor on some file systems, so the files are
    compared too.

    `has_unreadable_files`: the next comparison counts as a change, because they may be readable again.
    """

    def __init__(self, folders: Sequence[Path], stopped: anyio.Event) -> None:
        self.has_unreadable_files = False
        self._folders = [folder.absolute() for folder in folders]
        self._stopped = stopped
        self._seen: Mapping[str, tuple[int, ...]] = {}
        self._seen_at = 0.0

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yield at the start, because files may have changed before, and after each change."""
        while not self._stopped.is_set():
            watched = _identify(self._folders)
            await self._compare()
            yield
            async with aclosing(self._reports(watched)) as reports:
                async for is_changed in reports:
                    if await self._compare_if_due() or is_changed:
                        await self._compare()
                        yield
                    if _identify(self._folders) != watched:
                        break

    async def _reports(self, watched: Collection[Path]) -> AsyncGenerator[bool, None]:
        """Yield whether the system has reported a change, at least every CHECK_MS; end when a folder is removed."""
        try:
            async with aclosing(self._awatch(watched)) as events:
                async for changes in events:
                    yield bool(changes)
                    if any(Path(path) in watched and change is Change.deleted for change, path in changes):
                        return
        except (OSError, RuntimeError) as exc:  # RuntimeError: other reasons of the system
            if not isinstance(exc, FileNotFoundError):
                logger.warning("folders cannot be watched: files are compared every %g s (%s)", RESCAN_SECONDS, exc)
            async for _ in self._awatch(()):
                yield False

    def _awatch(self, watched: Collection[Path]) -> AsyncGenerator[set[tuple[Change, str]], None]:
        return awatch(
            *watched,
            watch_filter=lambda _, path: Path(path) in watched or _is_relevant(path),
            debounce=DEBOUNCE_MS,
            rust_timeout=CHECK_MS,
            yield_on_timeout=True,
            stop_event=self._stopped,
            recursive=False,
            ignore_permission_denied=True,
        )

    async def _compare_if_due(self) -> bool:
        """Every RESCAN_SECONDS, return whether the files differ from those that were read, or may be readable again."""
        if anyio.current_time() < self._seen_at + RESCAN_SECONDS:
            return False
        return await self._compare() or self.has_unreadable_files

    async def _compare(self) -> bool:
        """Return whether the files differ from those of the last call."""
        # In a thread: the folders may be on a slow network.
        found = await anyio.to_thread.run_sync(_describe_files, self._folders)
        is_changed, self._seen, self._seen_at = found != self._seen, found, anyio.current_time()
        return is_changed


def _identify(folders: Sequence[Path]) -> dict[Path, tuple[int, int]]:
    """Return the device and inode of each folder that exists, and of its overlays."""
    found = {}
    for folder in folders:
        for path in (folder, folder / "overlays"):
            with suppress(OSError):
                if path.is_dir():
                    info = path.stat()
                    found[path] = (info.st_dev, info.st_ino)
    return found


def _describe_files(folders: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """Return what the file system knows about each capability file and overlay."""
    found: dict[str, tuple[int, ...]] = {}
    for folder in _identify(folders):
        with suppress(OSError):
            for entry in os.scandir(folder):
                if entry.name.endswith(_ENDINGS):
                    with suppress(OSError):
                        info = entry.stat()
                        found[entry.path] = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    return found


def _is_relevant(path: str) -> bool:
    """Accept YAML files, overlay folders, and links to other folders, as Kubernetes makes them."""
    return path.endswith((*_ENDINGS, "overlays")) or Path(path).is_symlink()
