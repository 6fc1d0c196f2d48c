"""Serving capability files anew when they change."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
from watchfiles import Change, awatch

from mcp_taskruns.catalog import Catalog, changes
from mcp_taskruns.errors import TaskRunsError
from mcp_taskruns.gateway import Gateway

DEBOUNCE_MS = 200
"""Changes that are so close to each other are one: an editor writes a file in several steps."""

logger = logging.getLogger(__name__)

Build = Callable[[], tuple[Catalog, Sequence[str]]]
"""Makes a catalog of what the files say now; and says what is wrong with files that are not in it."""


async def watch(
    gateway: Gateway, folders: Sequence[Path], build: Build, known: Sequence[str], announce: Callable[[str], None]
) -> None:
    """After each change in these folders build a catalog and serve it, for ever.

    A change that brings a problem which is not `known` changes nothing: what was served is served on, whole, and why is
    announced.
    """
    wrong = set(known)
    async for _ in awatch(*folders, watch_filter=_is_yaml, debounce=DEBOUNCE_MS):
        try:
            # In a thread: a thousand files take seconds, in which calls go on.
            catalog, problems = await anyio.to_thread.run_sync(build)
        except TaskRunsError as exc:
            catalog, problems = gateway.catalog, [str(exc)]
        added = [problem for problem in problems if problem not in wrong]
        if added:
            for problem in added:
                announce(f"{problem} (nothing has changed: what was served is served on)")
            continue
        wrong = set(problems)
        told = list(changes(gateway.catalog, catalog))
        if told or catalog.routes != gateway.catalog.routes:
            await gateway.serve(catalog)
            announce(f"Capability files have changed. {'; '.join(told) or 'the REST side alone'}.")


def _is_yaml(_: Change, path: str) -> bool:
    return path.endswith((".yaml", ".yml"))
