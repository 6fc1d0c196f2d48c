"""Serve capability files again when they change."""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import anyio
from watchfiles import Change, awatch

from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.errors import TaskRunsError
from mcp_taskruns.loading.catalog import Catalog, describe_changes

DEBOUNCE_MS = 200
"""Changes within this time are one change: an editor writes a file in several steps."""

CHECK_MS = 1_000
"""How often a missing folder is looked for, and the end of watching is noticed."""

logger = logging.getLogger(__name__)

Build = Callable[[], tuple[Catalog, Sequence[str]]]
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
    async for _ in _changes(folders, stopped):
        catalog, found = await _build(gateway, build)
        for problem in found:
            if problem not in problems:
                announce(f"{problem} (the last valid version is still served)")
        problems = set(found)
        changes = list(describe_changes(gateway.catalog, catalog))
        if changes or catalog.routes != gateway.catalog.routes:
            await gateway.replace_catalog(catalog)
            announce(f"Capability files have changed. {'; '.join(changes) or 'only the REST side'}.")


async def _build(gateway: Gateway, build: Build) -> tuple[Catalog, Sequence[str]]:
    """Build a catalog, or return the present one with the reason why that failed."""
    try:
        # In a thread: a thousand files take seconds, and calls go on meanwhile.
        return await anyio.to_thread.run_sync(build)
    except TaskRunsError as exc:
        return gateway.catalog, [str(exc)]
    except Exception:
        logger.exception("capability files could not be read")
        return gateway.catalog, ["the capability files could not be read; see the log"]


async def _changes(folders: Sequence[Path], stopped: anyio.Event) -> AsyncIterator[None]:
    """Yield at the start, because files may have changed before, and after each change."""
    while not stopped.is_set():
        existing = [folder for folder in folders if folder.is_dir()]
        yield
        if not existing:
            with anyio.move_on_after(CHECK_MS / 1000):
                await stopped.wait()
            continue
        async for changes in awatch(
            *existing,
            watch_filter=_is_relevant,
            debounce=DEBOUNCE_MS,
            rust_timeout=CHECK_MS,
            yield_on_timeout=True,
            stop_event=stopped,
        ):
            if changes:
                yield
            if [folder for folder in folders if folder.is_dir()] != existing:
                break


def _is_relevant(_: Change, path: str) -> bool:
    """Accept YAML files, overlay folders, and links to other folders, as Kubernetes makes them."""
    return path.endswith((".yaml", ".yml", "overlays")) or Path(path).is_symlink()
