"""Serving capability files anew when they change."""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import anyio
from watchfiles import Change, awatch

from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.errors import TaskRunsError
from mcp_taskruns.loading.catalog import Catalog, describe_changes

DEBOUNCE_MS = 200
"""Changes that are so close to each other are one: an editor writes a file in several steps."""

LOOK_MS = 1_000
"""How often a folder that is there no more is looked for, and the end of watching."""

logger = logging.getLogger(__name__)

Build = Callable[[], tuple[Catalog, Sequence[str]]]
"""Makes a catalog of what the files say, or said before they were wrong; and says what is wrong."""


async def watch(
    gateway: Gateway,
    folders: Sequence[Path],
    build: Build,
    known: Sequence[str],
    announce: Callable[[str], None],
    stopped: anyio.Event,
) -> None:
    """After each change in these folders build a catalog and serve it, until it is `stopped`.

    Of a file that has become wrong what it was before is served on, whole, and why is announced, once: problems that
    are `known` are not.
    """
    wrong = set(known)
    async for _ in _changes(folders, stopped):
        try:
            # In a thread: a thousand files take seconds, in which calls go on.
            catalog, problems = await anyio.to_thread.run_sync(build)
        except TaskRunsError as exc:
            catalog, problems = gateway.catalog, [str(exc)]
        except Exception:
            logger.exception("capability files could not be read")
            catalog, problems = gateway.catalog, ["the capability files could not be read; the log says why"]
        for problem in problems:
            if problem not in wrong:
                announce(f"{problem} (what was served before is served on)")
        wrong = set(problems)
        told = list(describe_changes(gateway.catalog, catalog))
        if told or catalog.routes != gateway.catalog.routes:
            await gateway.replace_catalog(catalog)
            announce(f"Capability files have changed. {'; '.join(told) or 'the REST side alone'}.")


async def _changes(folders: Sequence[Path], stopped: anyio.Event) -> AsyncIterator[None]:
    """Something for each time that the folders have changed; first of all, since they may have before."""
    while not stopped.is_set():
        there = [folder for folder in folders if folder.is_dir()]
        yield
        if not there:
            with anyio.move_on_after(LOOK_MS / 1000):
                await stopped.wait()
            continue
        async for found in awatch(
            *there,
            watch_filter=_may_matter,
            debounce=DEBOUNCE_MS,
            rust_timeout=LOOK_MS,
            yield_on_timeout=True,
            stop_event=stopped,
        ):
            if found:
                yield
            if [folder for folder in folders if folder.is_dir()] != there:
                break


def _may_matter(_: Change, path: str) -> bool:
    """YAML files, the folder of overlays, and links to other folders, as Kubernetes makes them."""
    return path.endswith((".yaml", ".yml", "overlays")) or Path(path).is_symlink()
