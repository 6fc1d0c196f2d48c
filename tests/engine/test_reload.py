"""Reloading: capability files and overlays that change while the server runs."""

import errno
import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
import watchfiles
from mcp.client import Client
from mcp.client.session import IncomingMessage
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.subscriptions import ToolsListChanged
from mcp.types import TextContent, ToolListChangedNotification

from mcp_taskruns import app
from mcp_taskruns.app import load_gateway, watch_if_requested
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.engine import reload
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.progress import Progress
from mcp_taskruns.errors import CallError, UnknownTool
from mcp_taskruns.logs import RedactingFormatter
from mcp_taskruns.settings import read_settings
from tests.clients import Era
from tests.timing import PATIENCE, scaled

pytestmark = pytest.mark.anyio

FILE = """\
naftiko: 1.0.0-alpha2
info: {{tags: [{tag}]}}
binds:
- {{namespace: env, keys: {{{key}: {key}}}}}
capability:
  consumes:
  - namespace: {namespace}
    baseUri: {url}
    authentication: {{type: bearer, token: '{{{{env.{key}}}}}'}}
    resources:
    - path: /things
      operations: [{{name: list, description: {description}}}]
  exposes:
  - {{type: mcp, tools: [{{name: {tool}, call: {namespace}.list}}]}}
  - type: rest
    resources:
    - {{path: {path}, operations: [{{method: GET, name: list, call: {namespace}.list}}]}}
"""

KEYS = {"ACME_KEY": "acme-planted-key", "NEW_KEY": "new-planted-key", "BETA_KEY": "beta-planted-key"}

INVALID = "naftiko: 1.0.0-alpha2\ninfo: a: b\n"
YAML_ERROR = "line 2, column 8: mapping values are not allowed in this context"
STILL_SERVED = "(the last valid version is still served)"


def capability(tag: str = "Acme", tool: str = "list-things", **changed: str) -> str:
    """Return a capability file with one tool."""
    values = {
        "tag": tag,
        "tool": tool,
        "namespace": tag.lower(),
        "url": "https://api.example",
        "key": f"{tag.upper()}_KEY",
        "description": "Lists.",
        "path": f"/v1/{tag.lower()}",
    }
    return FILE.format(**values | changed)


class WatchedFolder:
    """A gateway whose capability files are watched, and the announced changes."""

    def __init__(self, gateway: Gateway, folder: Path) -> None:
        self.gateway = gateway
        self.folder = folder
        self.announced: list[str] = []
        self.problems: list[str] = []
        self._is_announced = anyio.Event()

    def announce(self, text: str) -> None:
        self.announced.append(text)
        self._is_announced.set()

    @property
    def tools(self) -> list[str]:
        return list(self.gateway.tools)

    def serves(self, tool: str) -> bool:
        return tool in self.gateway.tools

    def write(self, name: str, text: str) -> None:
        """Write a file and rename it, as editors do, so that it is never seen incomplete."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f"{path.name}.new")
        temporary.write_text(text)
        temporary.replace(path)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for an announcement after which the condition is true."""
        with anyio.fail_after(PATIENCE):
            while not condition():
                await self._is_announced.wait()
                self._is_announced = anyio.Event()

    async def next_announcements(self) -> list[str]:
        """Wait for announcements and return those since the last call."""
        with anyio.fail_after(PATIENCE):
            while not self.announced:
                await self._is_announced.wait()
                self._is_announced = anyio.Event()
        announced, self.announced = self.announced, []
        return announced

    async def wait_until_watched(self) -> None:
        """Change a file until a change is announced: the system does not report when it starts to watch."""
        with anyio.fail_after(PATIENCE):
            number = 0
            while not self.announced:
                number += 1
                self.write("probe.yaml", capability(tool=f"probe-{number}", path="/v1/probe"))
                with anyio.move_on_after(0.5):
                    await self._is_announced.wait()
        self.remove("probe.yaml")
        await self.wait_until(lambda: not any("probe" in name for name in self.tools))
        self.announced.clear()

    async def call(self, name: str) -> CallResult:
        return await self.gateway.call(name, {}, _ignore)


async def _ignore(_: Progress) -> None:
    """Ignore progress."""


@asynccontextmanager
async def watching(folder: Path, **flags: object) -> AsyncIterator[WatchedFolder]:
    """Serve the files of the folder with `--watch`."""
    settings = read_settings({"capabilities": [str(folder)], "watch": True} | flags, KEYS)
    gateway, loaded = load_gateway(settings, lambda _: None)
    watched = WatchedFolder(gateway, folder)
    watched.problems = [str(problem) for problem in loaded.problems]
    try:
        async with watch_if_requested(gateway, settings, loaded, watched.announce):
            await watched.wait_until_watched()
            yield watched
    finally:
        await gateway.aclose()


@pytest.fixture(autouse=True)
def _short_debounce(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reload soon after a change."""
    monkeypatch.setattr(reload, "DEBOUNCE_MS", 100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one capability file."""
    path = tmp_path / "capabilities"
    path.mkdir()
    (path / "acme.yaml").write_text(capability())
    return path


async def test_added_file_is_served(folder: Path) -> None:
    async with watching(folder) as watched:
        assert watched.tools == ["acme-list-things"]
        watched.write("new.yaml", capability("New", "list-more"))
        assert await watched.next_announcements() == ["Capability files have changed. added: new-list-more."]
        assert watched.tools == ["acme-list-things", "new-list-more"]


async def test_changed_file_is_served(folder: Path) -> None:
    async with watching(folder) as watched:
        watched.write("acme.yaml", capability(description="Lists other things."))
        assert await watched.next_announcements() == ["Capability files have changed. changed: acme-list-things."]
        assert watched.gateway.tools["acme-list-things"].description == "Lists other things."
        watched.write("acme.yaml", capability(tool="find-things"))
        assert await watched.next_announcements() == [
            "Capability files have changed. added: acme-find-things; removed: acme-list-things."
        ]
        assert watched.tools == ["acme-find-things"]


async def test_removed_file_is_not_served(folder: Path) -> None:
    (folder / "new.yaml").write_text(capability("New", "list-more"))
    async with watching(folder) as watched:
        watched.remove("new.yaml")
        assert await watched.next_announcements() == ["Capability files have changed. removed: new-list-more."]
        assert watched.tools == ["acme-list-things"]
        with pytest.raises(UnknownTool):
            await watched.call("new-list-more")


async def test_file_written_in_place_is_served(folder: Path) -> None:
    async with watching(folder) as watched:
        (folder / "acme.yaml").write_text(capability(tool="find-things"))
        await watched.wait_until(lambda: watched.tools == ["acme-find-things"])


async def test_added_changed_and_removed_overlays_are_applied(folder: Path) -> None:
    async with watching(folder) as watched:
        assert not (folder / "overlays").exists()
        watched.write("overlays/acme.yaml", "overlay: 2\nprefix: first\n")
        await watched.wait_until(lambda: watched.tools == ["first-list-things"])
        watched.write("overlays/acme.yaml", "overlay: 2\nprefix: second\n")
        await watched.wait_until(lambda: watched.tools == ["second-list-things"])
        watched.remove("overlays/acme.yaml")
        await watched.wait_until(lambda: watched.tools == ["acme-list-things"])
        watched.write("overlays/acme.yaml", "overlay: 2\nprefix: third\n")
        await watched.wait_until(lambda: watched.tools == ["third-list-things"])


async def test_moved_overlays_folder_is_applied(folder: Path, tmp_path: Path) -> None:
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    (prepared / "acme.yaml").write_text("overlay: 2\nprefix: moved\n")
    async with watching(folder) as watched:
        prepared.rename(folder / "overlays")
        await watched.wait_until(lambda: watched.tools == ["moved-list-things"])


async def test_removed_overlays_folder_is_no_longer_applied(folder: Path) -> None:
    (folder / "overlays").mkdir()
    (folder / "overlays" / "acme.yaml").write_text("overlay: 2\nprefix: refined\n")
    async with watching(folder) as watched:
        assert watched.tools == ["refined-list-things"]
        shutil.rmtree(folder / "overlays")
        await watched.wait_until(lambda: watched.tools == ["acme-list-things"])


@pytest.fixture
def _only_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not compare files, so that only what the system reports is noticed."""
    monkeypatch.setattr(reload, "RESCAN_SECONDS", inf)
    monkeypatch.setattr(reload, "CHECK_MS", 100)


def _fill(folder: Path, tool: str) -> Path:
    folder.mkdir()
    (folder / "acme.yaml").write_text(capability(tool=tool))
    return folder


def _remove_and_create(folder: Path) -> None:
    shutil.rmtree(folder)
    _fill(folder, "second")


def _swap(folder: Path) -> None:
    new = _fill(folder.with_name("new"), "second")
    folder.rename(folder.with_name("old"))
    new.rename(folder)


def _retarget(folder: Path) -> None:
    if not folder.is_symlink():
        folder.rename(folder.with_name("target-1"))
        folder.symlink_to("target-1")
    _fill(folder.with_name("target-2"), "second")
    new = folder.with_name("link")
    new.symlink_to("target-2")
    new.replace(folder)


@pytest.mark.usefixtures("_only_reports")
@pytest.mark.parametrize("replace", [_remove_and_create, _swap, _retarget])
async def test_replaced_folder_is_watched(folder: Path, replace: Callable[[Path], None]) -> None:
    async with watching(folder) as watched:
        replace(folder)
        await watched.wait_until(lambda: watched.tools == ["acme-second"])
        watched.write("acme.yaml", capability(tool="third"))
        await watched.wait_until(lambda: watched.tools == ["acme-third"])


@pytest.mark.usefixtures("_only_reports")
async def test_replaced_overlays_folder_is_watched(folder: Path, tmp_path: Path) -> None:
    (folder / "overlays").mkdir()
    (folder / "overlays" / "acme.yaml").write_text("overlay: 2\nprefix: first\n")
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    (prepared / "acme.yaml").write_text("overlay: 2\nprefix: second\n")
    async with watching(folder) as watched:
        (folder / "overlays").rename(tmp_path / "old")
        prepared.rename(folder / "overlays")
        await watched.wait_until(lambda: watched.tools == ["second-list-things"])
        watched.write("overlays/acme.yaml", "overlay: 2\nprefix: third\n")
        await watched.wait_until(lambda: watched.tools == ["third-list-things"])


@pytest.mark.usefixtures("_only_reports")
async def test_folder_that_is_missing_for_a_while_is_watched_again(folder: Path, tmp_path: Path) -> None:
    async with watching(folder) as watched:
        shutil.move(folder, tmp_path / "away")
        assert await watched.next_announcements() == [f"{folder}: no such file or folder {STILL_SERVED}"]
        assert watched.tools == ["acme-list-things"]
        _fill(folder, "second")
        await watched.wait_until(lambda: watched.tools == ["acme-second"])
        watched.write("acme.yaml", capability(tool="third"))
        await watched.wait_until(lambda: watched.tools == ["acme-third"])


async def test_file_that_is_given_by_its_path_may_be_replaced(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    one = other / "one.yaml"
    one.write_text(capability("One"))
    async with watching(folder, capabilities=[str(folder), str(one)]) as watched:
        for tool in ("one-second", "one-third"):
            new = other / "new"
            new.write_text(capability("One", tool=tool.removeprefix("one-")))
            shutil.move(new, one)
            await watched.wait_until(partial(watched.serves, tool))


async def test_changes_that_the_system_does_not_report_are_served(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload, "RESCAN_SECONDS", 0.1)
    monkeypatch.setattr(reload, "CHECK_MS", 100)
    target = tmp_path / "target.yaml"
    (folder / "acme.yaml").rename(target)
    (folder / "acme.yaml").symlink_to(target)
    async with watching(folder) as watched:
        target.write_text(capability(tool="second"))
        await watched.wait_until(lambda: watched.tools == ["acme-second"])


async def test_file_that_was_unreadable_for_a_while_is_served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "RESCAN_SECONDS", 0.1)
    monkeypatch.setattr(reload, "CHECK_MS", 100)
    read_bytes, is_readable = Path.read_bytes, False

    def read(path: Path) -> bytes:
        if path.name == "acme.yaml" and not is_readable:
            raise OSError(errno.EIO, "Input/output error")
        return read_bytes(path)

    async with watching(folder) as watched:
        monkeypatch.setattr(Path, "read_bytes", read)
        watched.write("acme.yaml", capability(tool="second"))
        assert await watched.next_announcements() == [f"acme.yaml: Input/output error {STILL_SERVED}"]
        assert watched.tools == ["acme-list-things"]
        is_readable = True
        await watched.wait_until(lambda: watched.tools == ["acme-second"])


async def test_files_are_compared_if_folders_cannot_be_watched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reload, "RESCAN_SECONDS", 0.1)
    monkeypatch.setattr(reload, "CHECK_MS", 100)

    def fail(*paths: Path, **options: Any) -> Any:
        if paths:
            raise OSError(errno.ENOSPC, "OS file watch limit reached")
        return watchfiles.awatch(**options)

    monkeypatch.setattr(reload, "awatch", fail)
    async with watching(folder) as watched:
        watched.write("acme.yaml", capability(tool="second"))
        await watched.wait_until(lambda: watched.tools == ["acme-second"])
    assert caplog.text.count("OS file watch limit reached") == 1


async def test_other_files_and_comments_are_not_announced(folder: Path) -> None:
    async with watching(folder) as watched:
        served = watched.gateway.catalog
        watched.write("notes.txt", "x")
        watched.write("more.json", "{}")
        watched.write("acme.yaml", capability() + "# a comment\n")
        watched.write("new.yaml", capability("New"))
        assert await watched.next_announcements() == ["Capability files have changed. added: new-list-things."]
        assert watched.gateway.catalog is not served


async def test_each_of_several_folders_and_files_is_watched(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "one.yaml").write_text(capability("One"))
    async with watching(folder, capabilities=[str(folder), str(other / "one.yaml")]) as watched:
        assert watched.tools == ["acme-list-things", "one-list-things"]
        (other / "one.yaml").write_text(capability("Two"))
        await watched.wait_until(lambda: watched.tools == ["acme-list-things", "two-list-things"])


async def test_invalid_change_is_announced_and_its_correction_is_served(folder: Path) -> None:
    (folder / "new.yaml").write_text(capability("New"))
    async with watching(folder) as watched:
        served = watched.gateway.catalog
        watched.write("acme.yaml", INVALID)
        assert await watched.next_announcements() == [f"acme.yaml: {YAML_ERROR} {STILL_SERVED}"]
        assert watched.gateway.catalog is served
        watched.write("acme.yaml", capability(tool="find-things"))
        assert await watched.next_announcements() == [
            "Capability files have changed. added: acme-find-things; removed: acme-list-things."
        ]
        assert watched.tools == ["acme-find-things", "new-list-things"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("acme.yaml", "", "acme.yaml: the file is empty"),
        ("acme.yaml", "info: {}\n", "acme.yaml: naftiko: the format's version is missing; is this a capability file?"),
        ("new.yaml", "- a\n", "new.yaml: a capability file must be a mapping, not a list"),
        ("overlays/acme.yaml", "", "overlays/acme.yaml: the file is empty"),
        (
            "overlays/acme.yaml",
            "overlay: 2\ncapability: {consumes: {acme: {runs: {read: {operation: gone, run_id_argument: id}, "
            "fields: {id: $.id, status: $.status}, statuses: {running: [a]}}}}}\n",
            "acme.yaml with overlays/acme.yaml: capability.consumes.runs.read: no tool calls the operation `gone`",
        ),
    ],
)
async def test_previous_files_are_served_until_the_problem_is_fixed(
    folder: Path, name: str, text: str, message: str
) -> None:
    async with watching(folder) as watched:
        served = watched.gateway.catalog
        watched.write(name, text)
        assert await watched.next_announcements() == [f"{message} {STILL_SERVED}"]
        assert watched.gateway.catalog is served
        watched.remove(name)
        watched.write("acme.yaml", capability(tool="find-things"))
        await watched.wait_until(lambda: watched.tools == ["acme-find-things"])


async def test_invalid_change_is_announced_again_after_it_was_undone(folder: Path) -> None:
    async with watching(folder) as watched:
        served = watched.gateway.catalog
        watched.write("acme.yaml", INVALID)
        assert await watched.next_announcements() == [f"acme.yaml: {YAML_ERROR} {STILL_SERVED}"]
        watched.write("acme.yaml", capability())
        assert watched.gateway.catalog is served
        # The same invalid change is announced again.
        watched.write("new.yaml", capability("New"))
        await watched.wait_until(lambda: watched.tools == ["acme-list-things", "new-list-things"])
        watched.announced.clear()
        watched.write("acme.yaml", INVALID)
        assert await watched.next_announcements() == [f"acme.yaml: {YAML_ERROR} {STILL_SERVED}"]


async def test_previous_files_are_served_when_the_folder_becomes_empty(folder: Path) -> None:
    async with watching(folder) as watched:
        watched.remove("acme.yaml")
        assert await watched.next_announcements() == [
            f"{folder}: the folder has no capability files (*.yaml) {STILL_SERVED}"
        ]
        assert watched.tools == ["acme-list-things"]
        watched.write("acme.yaml", capability(tool="find-things"))
        await watched.wait_until(lambda: watched.tools == ["acme-find-things"])


async def test_changes_are_served_beside_a_file_that_was_invalid_at_the_start(folder: Path) -> None:
    (folder / "bad.yaml").write_text(INVALID)
    async with watching(folder) as watched:
        assert watched.problems == [f"bad.yaml: {YAML_ERROR}"]
        watched.write("acme.yaml", capability(tool="find-things"))
        assert await watched.next_announcements() == [
            "Capability files have changed. added: acme-find-things; removed: acme-list-things."
        ]
        watched.write("bad.yaml", capability("Good"))
        assert await watched.next_announcements() == ["Capability files have changed. added: good-list-things."]
        watched.write("bad.yaml", INVALID)
        assert await watched.next_announcements() == [f"bad.yaml: {YAML_ERROR} {STILL_SERVED}"]
        assert watched.tools == ["acme-find-things", "good-list-things"]


async def test_nothing_is_served_when_only_an_invalid_file_is_left(folder: Path) -> None:
    (folder / "bad.yaml").write_text(INVALID)
    async with watching(folder) as watched:
        watched.remove("acme.yaml")
        assert await watched.next_announcements() == ["Capability files have changed. removed: acme-list-things."]
        assert watched.tools == []


async def test_changes_are_served_beside_a_file_that_became_invalid(folder: Path) -> None:
    (folder / "other.yaml").write_text(capability("Other"))
    async with watching(folder) as watched:
        watched.write("acme.yaml", INVALID)
        assert await watched.next_announcements() == [f"acme.yaml: {YAML_ERROR} {STILL_SERVED}"]
        watched.write("other.yaml", capability("Other", tool="find-things"))
        assert await watched.next_announcements() == [
            "Capability files have changed. added: other-find-things; removed: other-list-things."
        ]
        assert watched.tools == ["acme-list-things", "other-find-things"]
        watched.remove("acme.yaml")
        assert await watched.next_announcements() == ["Capability files have changed. removed: acme-list-things."]


async def test_deleted_and_recreated_folder_is_watched(folder: Path) -> None:
    async with watching(folder) as watched:
        shutil.rmtree(folder)
        (announcement,) = await watched.next_announcements()
        assert announcement.endswith(STILL_SERVED)
        assert watched.tools == ["acme-list-things"]
        watched.write("new.yaml", capability("New"))
        await watched.wait_until(lambda: watched.tools == ["new-list-things"])
        watched.write("new.yaml", capability("Newer"))
        await watched.wait_until(lambda: watched.tools == ["newer-list-things"])


async def test_folder_replaced_through_a_symbolic_link_is_read_again(tmp_path: Path, folder: Path) -> None:
    # Kubernetes updates a mounted ConfigMap in this way.
    other = tmp_path / "other"
    other.mkdir()
    (other / "acme.yaml").write_text(capability(tool="find-things"))
    link = tmp_path / "mounted" / "..data"
    link.parent.mkdir()
    link.symlink_to(folder)
    (link.parent / "acme.yaml").symlink_to(Path("..data", "acme.yaml"))
    async with watching(link.parent) as watched:
        assert watched.tools == ["acme-list-things"]
        new_link = link.with_name("..new")
        new_link.symlink_to(other)
        new_link.replace(link)
        await watched.wait_until(lambda: watched.tools == ["acme-find-things"])


async def test_watch_continues_after_an_internal_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("odd")

    async with watching(folder) as watched:
        with monkeypatch.context() as patch:
            patch.setattr(app, "_build_catalog", fail)
            watched.write("new.yaml", capability("New"))
            assert await watched.next_announcements() == [
                f"the capability files could not be read; see the log {STILL_SERVED}"
            ]
        assert "ZeroDivisionError: odd" in caplog.text
        assert watched.tools == ["acme-list-things"]
        watched.write("other.yaml", capability("Other"))
        await watched.wait_until(lambda: watched.tools == ["acme-list-things", "new-list-things", "other-list-things"])


async def test_previous_files_are_served_when_the_only_prefix_disappears(folder: Path) -> None:
    async with watching(folder, only=["acme"]) as watched:
        served = watched.gateway.catalog
        watched.write("acme.yaml", capability("Beta"))
        message = "--only: no provider has the prefix acme; prefixes: beta"
        assert await watched.next_announcements() == [f"{message} {STILL_SERVED}"]
        assert watched.gateway.catalog is served
        watched.write("acme.yaml", capability(tool="find-things"))
        await watched.wait_until(lambda: watched.tools == ["acme-find-things"])


async def test_changed_files_are_loaded_with_the_same_settings(folder: Path) -> None:
    (folder / "beta.yaml").write_text(capability("Beta"))
    flags = {"only": ["acme"], "base_uri": ["acme=http://127.0.0.1:9/given"], "no_overlays": True, "tool_names": "spec"}
    async with watching(folder, **flags) as watched:
        watched.write("overlays/acme.yaml", "overlay: 2\nprefix: refined\n")
        watched.write("beta.yaml", capability("Beta", "other"))
        watched.write("acme.yaml", capability(tool="find-things", url="https://changed.example"))
        await watched.wait_until(lambda: watched.tools == ["find-things"])
        assert watched.gateway.tools["find-things"].operation.base.default == ("http://127.0.0.1:9/given",)


async def test_rest_routes_are_reloaded(folder: Path) -> None:
    async with watching(folder, rest=True) as watched:
        assert [(route.method, route.path) for route in watched.gateway.catalog.routes] == [("GET", "/v1/acme")]
        watched.write("acme.yaml", capability(path="/v1/other"))
        assert await watched.next_announcements() == ["Capability files have changed. only the REST side."]
        assert [(route.method, route.path) for route in watched.gateway.catalog.routes] == [("GET", "/v1/other")]
        watched.write("new.yaml", capability("New"))
        assert await watched.next_announcements() == ["Capability files have changed. added: new-list-things."]
        assert sorted(route.path for route in watched.gateway.catalog.routes) == ["/v1/new", "/v1/other"]


async def test_rest_changes_are_ignored_without_rest(folder: Path) -> None:
    async with watching(folder) as watched:
        served = watched.gateway.catalog
        watched.write("acme.yaml", capability(path="/v1/other"))
        watched.write("beta.yaml", capability("Beta"))
        assert await watched.next_announcements() == ["Capability files have changed. added: beta-list-things."]
        assert served.routes == watched.gateway.catalog.routes == ()


Responder = Callable[[anyio.abc.SocketStream], Awaitable[None]]


class Provider:
    """A provider that responds to each request with `respond` and records the requests."""

    def __init__(self, respond: Responder) -> None:
        self.url = ""
        self.requests: list[str] = []
        self.is_requested = anyio.Event()
        self._respond = respond

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                received = b""
                while b"\r\n\r\n" not in received:
                    received += await stream.receive()
                self.requests.append(received.decode())
                self.is_requested.set()
                await self._respond(stream)


@asynccontextmanager
async def listening(respond: Responder) -> AsyncIterator[Provider]:
    """Serve a provider on a loopback port."""
    provider = Provider(respond)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, provider.serve)
        provider.url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        yield provider
        tasks.cancel_scope.cancel()


def respond_json(body: str) -> Responder:
    """Return a function that responds with this JSON."""

    async def respond(stream: anyio.abc.SocketStream) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
        await stream.send(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())

    return respond


async def test_running_call_completes_with_the_old_operation_after_a_change(folder: Path) -> None:
    may_respond = anyio.Event()

    async def respond_late(stream: anyio.abc.SocketStream) -> None:
        await may_respond.wait()
        await respond_json('{"from":"old"}')(stream)

    async with listening(respond_late) as old, listening(respond_json('{"from":"new"}')) as new:
        (folder / "acme.yaml").write_text(capability(url=old.url))
        async with watching(folder) as watched:
            results: list[Any] = []

            async def call() -> None:
                results.append((await watched.call("acme-list-things")).value)

            with anyio.fail_after(PATIENCE):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(call)
                    await old.is_requested.wait()
                    watched.write("acme.yaml", capability(url=new.url))
                    assert await watched.next_announcements() == [
                        "Capability files have changed. changed: acme-list-things."
                    ]
                    assert (await watched.call("acme-list-things")).value == {"from": "new"}
                    assert results == []
                    may_respond.set()
            assert results == [{"from": "old"}]
    assert (len(old.requests), len(new.requests)) == (1, 1)


async def test_running_call_of_a_removed_tool_completes(folder: Path) -> None:
    may_respond = anyio.Event()

    async def respond_late(stream: anyio.abc.SocketStream) -> None:
        await may_respond.wait()
        await respond_json('{"key": "acme-planted-key"}')(stream)

    async with listening(respond_late) as old:
        (folder / "acme.yaml").write_text(capability(url=old.url))
        (folder / "beta.yaml").write_text(capability("Beta"))
        async with watching(folder) as watched:
            results: list[str] = []

            async def call() -> None:
                results.append((await watched.call("acme-list-things")).text)

            with anyio.fail_after(PATIENCE):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(call)
                    await old.is_requested.wait()
                    watched.remove("acme.yaml")
                    assert await watched.next_announcements() == [
                        "Capability files have changed. removed: acme-list-things."
                    ]
                    may_respond.set()
            # The secret of the removed file is still redacted.
            assert results == ['{"key":"[secret]"}']


async def test_running_stream_is_followed_to_its_end_after_a_change(folder: Path) -> None:
    may_respond = anyio.Event()

    async def stream_events(stream: anyio.abc.SocketStream) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        await stream.send(f"{head}data: before\n\n".encode())
        await may_respond.wait()
        await stream.send(b"data: after\n\n")

    description = "Streams text/event-stream"
    async with listening(stream_events) as old, listening(respond_json('{"from":"new"}')) as new:
        (folder / "acme.yaml").write_text(capability(url=old.url, description=description))
        async with watching(folder) as watched:
            results: list[CallResult] = []
            first = anyio.Event()

            async def report(_: Progress) -> None:
                first.set()

            async def call() -> None:
                results.append(await watched.gateway.call("acme-list-things", {"wait_seconds": 1}, report))

            with anyio.fail_after(PATIENCE):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(call)
                    await first.wait()
                    watched.write("acme.yaml", capability(url=new.url, tool="find-things"))
                    await watched.wait_until(lambda: watched.tools == ["acme-find-things"])
                    assert results == []
                    may_respond.set()
            assert [event["data"] for event in json.loads(results[0].text)["events"]][:2] == ["before", "after"]
            assert (await watched.call("acme-find-things")).value == {"from": "new"}
    assert len(new.requests) == 1


async def test_secrets_of_an_added_file_are_redacted_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with listening(respond_json('{"received": "new-planted-key"}')) as provider, watching(folder) as watched:
        redactor = watched.gateway.redactor
        assert redactor.redact_text("acme-planted-key, new-planted-key") == "[secret], new-planted-key"
        watched.write("new.yaml", capability("New", url=provider.url))
        assert await watched.next_announcements() == ["Capability files have changed. added: new-list-things."]
        # The log formatter keeps the redactor that it was created with.
        assert watched.gateway.redactor is redactor
        assert redactor.redact_text("acme-planted-key, new-planted-key") == "[secret], [secret]"
        record = logging.LogRecord("x", logging.INFO, "x.py", 1, "key=%s", ("new-planted-key",), None)
        assert RedactingFormatter(redactor).format(record).endswith(" INFO x key=[secret]")
        assert (await watched.call("new-list-things")).text == '{"received":"[secret]"}'
        assert "Authorization: Bearer new-planted-key" in provider.requests[0]
        watched.remove("new.yaml")
        assert await watched.next_announcements() == ["Capability files have changed. removed: new-list-things."]
        # Responses to running calls may still contain it.
        assert redactor.redact_text("new-planted-key") == "[secret]"


LIMITS = """\
overlay: 2
capability:
  consumes:
    acme:
      rate_limits: [{{applies_to: reads, requests: {calls}, per_seconds: 600}}]
"""


async def test_used_rate_limits_are_kept_and_changed_ones_start_empty(folder: Path) -> None:
    overlay = folder / "overlays" / "acme.yaml"
    overlay.parent.mkdir()
    overlay.write_text(LIMITS.format(calls=2))
    async with listening(respond_json("{}")) as provider:
        (folder / "acme.yaml").write_text(capability(url=provider.url))

        async def rate_limit_error(watched: WatchedFolder) -> str:
            with pytest.raises(CallError) as exc_info:
                await watched.call("acme-list-things")
            return f"{exc_info.value.kind}: {exc_info.value.message}"

        async with watching(folder, timeout=60.0) as watched:
            await watched.call("acme-list-things")
            watched.write("beta.yaml", capability("Beta"))
            assert await watched.next_announcements() == ["Capability files have changed. added: beta-list-things."]
            watched.write("acme.yaml", capability(url=provider.url, description="Lists others."))
            assert await watched.next_announcements() == ["Capability files have changed. changed: acme-list-things."]
            await watched.call("acme-list-things")
            assert re.match(
                r"rate_limited: acme's rate limit allows no more calls of this kind for \d+ s",
                await rate_limit_error(watched),
            )
            watched.write("overlays/acme.yaml", LIMITS.format(calls=1))
            assert await watched.next_announcements() == ["Capability files have changed. changed: acme-list-things."]
            await watched.call("acme-list-things")
            assert (await rate_limit_error(watched)).startswith("rate_limited: ")
    assert len(provider.requests) == 3


async def test_arguments_are_validated_against_the_changed_tool(folder: Path) -> None:
    async with listening(respond_json("{}")) as provider:
        (folder / "acme.yaml").write_text(capability(url=provider.url))
        async with watching(folder) as watched:
            await watched.call("acme-list-things")
            changed = capability(url=provider.url).replace("path: /things", "path: '/things/{id}'")
            watched.write("acme.yaml", changed)
            assert await watched.next_announcements() == ["Capability files have changed. changed: acme-list-things."]
            with pytest.raises(CallError, match="id: is required"):
                await watched.call("acme-list-things")
    assert len(provider.requests) == 1


async def test_files_are_not_watched_without_watch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise AssertionError("files are watched")

    monkeypatch.setattr(reload, "watch", fail)
    settings = read_settings({"capabilities": [str(folder)]}, KEYS)
    gateway, loaded = load_gateway(settings, lambda _: None)
    async with watch_if_requested(gateway, settings, loaded, lambda _: None):
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_client_is_notified_and_can_call_the_added_tool(era: Era, folder: Path, tmp_path: Path) -> None:
    is_notified = anyio.Event()

    async def on_message(message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            is_notified.set()

    command = ["-m", "mcp_taskruns", "serve", "--watch", "--capabilities", str(folder)]
    environment = {"NEW_KEY": "new-planted-key", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    process = StdioServerParameters(command=sys.executable, args=command, env=environment)
    log = tmp_path / "log"
    with log.open("w") as errors:
        transport = stdio_client(process, errlog=errors)
        async with (
            listening(respond_json('{"from":"new"}')) as provider,
            Client(transport, mode=era, message_handler=on_message) as client,
            anyio.create_task_group() as tasks,
        ):

            async def listen() -> None:
                async with client.listen(tools_list_changed=True) as events:
                    async for event in events:
                        if isinstance(event, ToolsListChanged):
                            is_notified.set()

            with anyio.fail_after(PATIENCE):
                assert [tool.name for tool in (await client.list_tools()).tools] == ["acme-list-things"]
                if era == "auto":
                    tasks.start_soon(listen)
                number = 0
                while not is_notified.is_set():
                    number += 1
                    new = capability("New", url=provider.url, description=f"Lists {number}.")
                    (folder / "new.yaml").write_text(new)
                    with anyio.move_on_after(1):
                        await is_notified.wait()
                tools = (await client.list_tools()).tools
                assert [tool.name for tool in tools] == ["acme-list-things", "new-list-things"]
                result = await client.call_tool("new-list-things", {})
                assert isinstance(result.content[0], TextContent)
                assert result.content[0].text == '{"from":"new"}'
                tasks.cancel_scope.cancel()
    assert "Capability files have changed. added: new-list-things." in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("transport", "stop"),
    [
        ("stdio", "end of input"),
        ("stdio", signal.SIGINT),
        ("stdio", signal.SIGTERM),
        ("http", signal.SIGINT),
        ("http", signal.SIGTERM),
    ],
    ids=str,
)
def test_watching_process_exits_in_time_with_code_0(transport: str, stop: str | signal.Signals, folder: Path) -> None:
    command = ["-m", "mcp_taskruns", "serve", "--watch", "--transport", transport, "--port", "0"]
    with subprocess.Popen(
        [sys.executable, *command, "--capabilities", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        try:
            assert child.stdin
            assert child.stdout
            assert child.stderr
            if transport == "stdio":
                child.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
                child.stdin.flush()
                assert child.stdout.readline()
            else:
                assert b"MCP on " in child.stderr.readline()
            began = time.monotonic()
            if isinstance(stop, signal.Signals):
                child.send_signal(stop)
            else:
                child.stdin.close()
            assert child.wait(PATIENCE) == 0
            assert time.monotonic() - began < scaled(2)
            assert child.stderr.read() == b""
        finally:
            child.kill()
