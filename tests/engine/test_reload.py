"""Capability files that change while they are served."""

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
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from mcp.client import Client
from mcp.client.session import IncomingMessage
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.subscriptions import ToolsListChanged
from mcp.types import TextContent, ToolListChangedNotification

from mcp_taskruns import app
from mcp_taskruns.app import load_gateway, watch_if_requested
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.runs.events import Progress
from mcp_taskruns.engine import reload as watching
from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.errors import CallError, UnknownTool
from mcp_taskruns.logs import RedactingFormatter
from mcp_taskruns.settings import read_settings
from tests.clients import Era

pytestmark = pytest.mark.anyio

PATIENCE = 15.0
"""Seconds that a change may take to be noticed on a busy machine."""

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

BAD = "naftiko: 1.0.0-alpha2\ninfo: a: b\n"
WHY = "line 2, column 8: mapping values are not allowed in this context"
KEPT = "(the last valid version is still served)"


def capability(tag: str = "Acme", tool: str = "list-things", **changed: str) -> str:
    """A capability file of one tool."""
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


class Watched:
    """A gateway whose capability files are watched, and what was announced."""

    def __init__(self, gateway: Gateway, folder: Path) -> None:
        self.gateway = gateway
        self.folder = folder
        self.announced: list[str] = []
        self.known: list[str] = []
        self._news = anyio.Event()

    def announce(self, text: str) -> None:
        self.announced.append(text)
        self._news.set()

    @property
    def tools(self) -> list[str]:
        return list(self.gateway.tools)

    def write(self, name: str, text: str) -> None:
        """Put a file there at once, as an editor that is careful does."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        beside = path.with_name(f"{path.name}.new")
        beside.write_text(text)
        beside.replace(path)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for the announcement after which something is so."""
        with anyio.fail_after(PATIENCE):
            while not is_so():
                await self._news.wait()
                self._news = anyio.Event()

    async def news(self) -> list[str]:
        """What is announced next."""
        with anyio.fail_after(PATIENCE):
            while not self.announced:
                await self._news.wait()
                self._news = anyio.Event()
        announced, self.announced = self.announced, []
        return announced

    async def until_watched(self) -> None:
        """Change files until it is noticed: when the system begins to tell of changes, nobody is told."""
        with anyio.fail_after(PATIENCE):
            number = 0
            while not self.announced:
                number += 1
                self.write("probe.yaml", capability(tool=f"probe-{number}", path="/v1/probe"))
                with anyio.move_on_after(0.5):
                    await self._news.wait()
        self.remove("probe.yaml")
        await self.until(lambda: not any("probe" in name for name in self.tools))
        self.announced.clear()

    async def call(self, name: str) -> CallResult:
        return await self.gateway.call(name, {}, _silent)


async def _silent(_: Progress) -> None:
    """Nobody watches the call."""


@asynccontextmanager
async def watched(folder: Path, **flags: object) -> AsyncIterator[Watched]:
    """The folder's files as they are served with --watch."""
    settings = read_settings({"capabilities": [str(folder)], "watch": True} | flags, KEYS)
    gateway, loaded = load_gateway(settings, lambda _: None)
    it = Watched(gateway, folder)
    it.known = [str(problem) for problem in loaded.problems]
    try:
        async with watch_if_requested(gateway, settings, loaded, it.announce):
            await it.until_watched()
            yield it
    finally:
        await gateway.aclose()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "DEBOUNCE_MS", 100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one capability file."""
    path = tmp_path / "capabilities"
    path.mkdir()
    (path / "acme.yaml").write_text(capability())
    return path


async def test_a_file_that_is_added_is_served(folder: Path) -> None:
    async with watched(folder) as it:
        assert it.tools == ["acme-list-things"]
        it.write("new.yaml", capability("New", "list-more"))
        assert await it.news() == ["Capability files have changed. added: new-list-more."]
        assert it.tools == ["acme-list-things", "new-list-more"]


async def test_a_file_that_is_changed_is_served_as_it_is_now(folder: Path) -> None:
    async with watched(folder) as it:
        it.write("acme.yaml", capability(description="Lists other things."))
        assert await it.news() == ["Capability files have changed. changed: acme-list-things."]
        assert it.gateway.tools["acme-list-things"].description == "Lists other things."
        it.write("acme.yaml", capability(tool="find-things"))
        assert await it.news() == ["Capability files have changed. added: acme-find-things; removed: acme-list-things."]
        assert it.tools == ["acme-find-things"]


async def test_a_file_that_is_removed_is_served_no_more(folder: Path) -> None:
    (folder / "new.yaml").write_text(capability("New", "list-more"))
    async with watched(folder) as it:
        it.remove("new.yaml")
        assert await it.news() == ["Capability files have changed. removed: new-list-more."]
        assert it.tools == ["acme-list-things"]
        with pytest.raises(UnknownTool):
            await it.call("new-list-more")


async def test_a_file_that_is_written_in_place_is_served(folder: Path) -> None:
    async with watched(folder) as it:
        (folder / "acme.yaml").write_text(capability(tool="find-things"))
        await it.until(lambda: it.tools == ["acme-find-things"])


async def test_overlays_are_watched_from_the_first_one_to_the_last(folder: Path) -> None:
    async with watched(folder) as it:
        assert not (folder / "overlays").exists()
        it.write("overlays/acme.yaml", "overlay: 2\nprefix: first\n")
        await it.until(lambda: it.tools == ["first-list-things"])
        it.write("overlays/acme.yaml", "overlay: 2\nprefix: second\n")
        await it.until(lambda: it.tools == ["second-list-things"])
        it.remove("overlays/acme.yaml")
        await it.until(lambda: it.tools == ["acme-list-things"])
        it.write("overlays/acme.yaml", "overlay: 2\nprefix: third\n")
        await it.until(lambda: it.tools == ["third-list-things"])


async def test_a_folder_of_overlays_that_is_moved_in_is_noticed(folder: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "acme.yaml").write_text("overlay: 2\nprefix: moved\n")
    async with watched(folder) as it:
        made.rename(folder / "overlays")
        await it.until(lambda: it.tools == ["moved-list-things"])


async def test_a_folder_of_overlays_that_is_removed_is_noticed(folder: Path) -> None:
    (folder / "overlays").mkdir()
    (folder / "overlays" / "acme.yaml").write_text("overlay: 2\nprefix: refined\n")
    async with watched(folder) as it:
        assert it.tools == ["refined-list-things"]
        shutil.rmtree(folder / "overlays")
        await it.until(lambda: it.tools == ["acme-list-things"])


async def test_files_that_are_no_yaml_change_nothing(folder: Path) -> None:
    async with watched(folder) as it:
        served = it.gateway.catalog
        it.write("notes.txt", "x")
        it.write("more.json", "{}")
        it.write("acme.yaml", capability() + "# a comment\n")
        it.write("new.yaml", capability("New"))
        assert await it.news() == ["Capability files have changed. added: new-list-things."]
        assert it.gateway.catalog is not served


async def test_each_of_several_folders_and_files_is_watched(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "one.yaml").write_text(capability("One"))
    async with watched(folder, capabilities=[str(folder), str(other / "one.yaml")]) as it:
        assert it.tools == ["acme-list-things", "one-list-things"]
        (other / "one.yaml").write_text(capability("Two"))
        await it.until(lambda: it.tools == ["acme-list-things", "two-list-things"])


async def test_a_bad_change_keeps_all_of_the_old_and_is_told_once_and_its_mend_is_served(folder: Path) -> None:
    (folder / "new.yaml").write_text(capability("New"))
    async with watched(folder) as it:
        served = it.gateway.catalog
        it.write("acme.yaml", BAD)
        assert await it.news() == [f"acme.yaml: {WHY} {KEPT}"]
        assert it.gateway.catalog is served
        it.write("acme.yaml", capability(tool="find-things"))
        assert await it.news() == ["Capability files have changed. added: acme-find-things; removed: acme-list-things."]
        assert it.tools == ["acme-find-things", "new-list-things"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
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
async def test_whatever_is_wrong_the_old_is_served_until_it_is_mended(
    folder: Path, name: str, text: str, told: str
) -> None:
    async with watched(folder) as it:
        served = it.gateway.catalog
        it.write(name, text)
        assert await it.news() == [f"{told} {KEPT}"]
        assert it.gateway.catalog is served
        it.remove(name)
        it.write("acme.yaml", capability(tool="find-things"))
        await it.until(lambda: it.tools == ["acme-find-things"])


async def test_a_bad_change_that_is_taken_back_is_as_if_it_never_was(folder: Path) -> None:
    async with watched(folder) as it:
        served = it.gateway.catalog
        it.write("acme.yaml", BAD)
        assert await it.news() == [f"acme.yaml: {WHY} {KEPT}"]
        it.write("acme.yaml", capability())
        assert it.gateway.catalog is served
        # And is told again when it is done again.
        it.write("new.yaml", capability("New"))
        await it.until(lambda: it.tools == ["acme-list-things", "new-list-things"])
        it.announced.clear()
        it.write("acme.yaml", BAD)
        assert await it.news() == [f"acme.yaml: {WHY} {KEPT}"]


async def test_a_folder_without_files_keeps_the_old(folder: Path) -> None:
    async with watched(folder) as it:
        it.remove("acme.yaml")
        assert await it.news() == [f"{folder}: the folder has no capability files (*.yaml) {KEPT}"]
        assert it.tools == ["acme-list-things"]
        it.write("acme.yaml", capability(tool="find-things"))
        await it.until(lambda: it.tools == ["acme-find-things"])


async def test_a_file_that_was_bad_at_the_start_keeps_no_other_from_changing(folder: Path) -> None:
    (folder / "bad.yaml").write_text(BAD)
    async with watched(folder) as it:
        assert it.known == [f"bad.yaml: {WHY}"]
        it.write("acme.yaml", capability(tool="find-things"))
        assert await it.news() == ["Capability files have changed. added: acme-find-things; removed: acme-list-things."]
        it.write("bad.yaml", capability("Good"))
        assert await it.news() == ["Capability files have changed. added: good-list-things."]
        it.write("bad.yaml", BAD)
        assert await it.news() == [f"bad.yaml: {WHY} {KEPT}"]
        assert it.tools == ["acme-find-things", "good-list-things"]


async def test_when_only_the_file_that_was_bad_at_the_start_is_left_nothing_is_served(folder: Path) -> None:
    (folder / "bad.yaml").write_text(BAD)
    async with watched(folder) as it:
        it.remove("acme.yaml")
        assert await it.news() == ["Capability files have changed. removed: acme-list-things."]
        assert it.tools == []


async def test_a_file_that_has_become_bad_keeps_no_other_from_changing(folder: Path) -> None:
    (folder / "other.yaml").write_text(capability("Other"))
    async with watched(folder) as it:
        it.write("acme.yaml", BAD)
        assert await it.news() == [f"acme.yaml: {WHY} {KEPT}"]
        it.write("other.yaml", capability("Other", tool="find-things"))
        assert await it.news() == [
            "Capability files have changed. added: other-find-things; removed: other-list-things."
        ]
        assert it.tools == ["acme-list-things", "other-find-things"]
        it.remove("acme.yaml")
        assert await it.news() == ["Capability files have changed. removed: acme-list-things."]


async def test_a_folder_that_is_deleted_and_made_again_is_read_anew(folder: Path) -> None:
    async with watched(folder) as it:
        shutil.rmtree(folder)
        (told,) = await it.news()
        assert told.endswith(KEPT)
        assert it.tools == ["acme-list-things"]
        it.write("new.yaml", capability("New"))
        await it.until(lambda: it.tools == ["new-list-things"])
        it.write("new.yaml", capability("Newer"))
        await it.until(lambda: it.tools == ["newer-list-things"])


async def test_a_folder_that_is_swapped_by_a_link_is_read_anew(tmp_path: Path, folder: Path) -> None:
    # As Kubernetes does with a ConfigMap.
    other = tmp_path / "other"
    other.mkdir()
    (other / "acme.yaml").write_text(capability(tool="find-things"))
    link = tmp_path / "mounted" / "..data"
    link.parent.mkdir()
    link.symlink_to(folder)
    (link.parent / "acme.yaml").symlink_to(Path("..data", "acme.yaml"))
    async with watched(link.parent) as it:
        assert it.tools == ["acme-list-things"]
        beside = link.with_name("..new")
        beside.symlink_to(other)
        beside.replace(link)
        await it.until(lambda: it.tools == ["acme-find-things"])


async def test_a_failure_of_the_server_itself_keeps_the_old_and_the_watch_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise ZeroDivisionError("odd")

    async with watched(folder) as it:
        with monkeypatch.context() as patch:
            patch.setattr(app, "_build_catalog", failing)
            it.write("new.yaml", capability("New"))
            assert await it.news() == [f"the capability files could not be read; see the log {KEPT}"]
        assert "ZeroDivisionError: odd" in caplog.text
        assert it.tools == ["acme-list-things"]
        it.write("other.yaml", capability("Other"))
        await it.until(lambda: it.tools == ["acme-list-things", "new-list-things", "other-list-things"])


async def test_a_prefix_that_is_there_no_more_keeps_the_old(folder: Path) -> None:
    async with watched(folder, only=["acme"]) as it:
        served = it.gateway.catalog
        it.write("acme.yaml", capability("Beta"))
        told = "--only: no provider has the prefix acme; prefixes: beta"
        assert await it.news() == [f"{told} {KEPT}"]
        assert it.gateway.catalog is served
        it.write("acme.yaml", capability(tool="find-things"))
        await it.until(lambda: it.tools == ["acme-find-things"])


async def test_changed_files_are_served_as_the_settings_say(folder: Path) -> None:
    (folder / "beta.yaml").write_text(capability("Beta"))
    flags = {"only": ["acme"], "base_uri": ["acme=http://127.0.0.1:9/given"], "no_overlays": True, "tool_names": "spec"}
    async with watched(folder, **flags) as it:
        it.write("overlays/acme.yaml", "overlay: 2\nprefix: refined\n")
        it.write("beta.yaml", capability("Beta", "other"))
        it.write("acme.yaml", capability(tool="find-things", url="https://changed.example"))
        await it.until(lambda: it.tools == ["find-things"])
        assert it.gateway.tools["find-things"].operation.base.default == ("http://127.0.0.1:9/given",)


async def test_the_routes_of_the_rest_side_change_too(folder: Path) -> None:
    async with watched(folder, rest=True) as it:
        assert [(route.method, route.path) for route in it.gateway.catalog.routes] == [("GET", "/v1/acme")]
        it.write("acme.yaml", capability(path="/v1/other"))
        assert await it.news() == ["Capability files have changed. only the REST side."]
        assert [(route.method, route.path) for route in it.gateway.catalog.routes] == [("GET", "/v1/other")]
        it.write("new.yaml", capability("New"))
        assert await it.news() == ["Capability files have changed. added: new-list-things."]
        assert sorted(route.path for route in it.gateway.catalog.routes) == ["/v1/new", "/v1/other"]


async def test_without_the_rest_side_a_change_of_it_is_none(folder: Path) -> None:
    async with watched(folder) as it:
        served = it.gateway.catalog
        it.write("acme.yaml", capability(path="/v1/other"))
        it.write("beta.yaml", capability("Beta"))
        assert await it.news() == ["Capability files have changed. added: beta-list-things."]
        assert served.routes == it.gateway.catalog.routes == ()


HttpResponse = Callable[[anyio.abc.SocketStream], Awaitable[None]]


class Provider:
    """A provider that answers each request as it is told to, and keeps what was asked."""

    def __init__(self, answer: HttpResponse) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.was_asked = anyio.Event()
        self._answer = answer

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                received = b""
                while b"\r\n\r\n" not in received:
                    received += await stream.receive()
                self.asked.append(received.decode())
                self.was_asked.set()
                await self._answer(stream)


@asynccontextmanager
async def listening(answer: HttpResponse) -> AsyncIterator[Provider]:
    provider = Provider(answer)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, provider.serve)
        provider.url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        yield provider
        tasks.cancel_scope.cancel()


def says(body: str) -> HttpResponse:
    async def answer(stream: anyio.abc.SocketStream) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
        await stream.send(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())

    return answer


async def test_a_call_under_way_ends_on_the_old_operation_while_the_new_one_is_served(folder: Path) -> None:
    go_on = anyio.Event()

    async def late(stream: anyio.abc.SocketStream) -> None:
        await go_on.wait()
        await says('{"from":"old"}')(stream)

    async with listening(late) as old, listening(says('{"from":"new"}')) as new:
        (folder / "acme.yaml").write_text(capability(url=old.url))
        async with watched(folder) as it:
            ended: list[Any] = []

            async def begin() -> None:
                ended.append((await it.call("acme-list-things")).value)

            with anyio.fail_after(PATIENCE):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(begin)
                    await old.was_asked.wait()
                    it.write("acme.yaml", capability(url=new.url))
                    assert await it.news() == ["Capability files have changed. changed: acme-list-things."]
                    assert (await it.call("acme-list-things")).value == {"from": "new"}
                    assert ended == []
                    go_on.set()
            assert ended == [{"from": "old"}]
    assert (len(old.asked), len(new.asked)) == (1, 1)


async def test_a_call_under_way_of_a_tool_that_is_removed_ends_as_it_began(folder: Path) -> None:
    go_on = anyio.Event()

    async def late(stream: anyio.abc.SocketStream) -> None:
        await go_on.wait()
        await says('{"key": "acme-planted-key"}')(stream)

    async with listening(late) as old:
        (folder / "acme.yaml").write_text(capability(url=old.url))
        (folder / "beta.yaml").write_text(capability("Beta"))
        async with watched(folder) as it:
            ended: list[str] = []

            async def begin() -> None:
                ended.append((await it.call("acme-list-things")).text)

            with anyio.fail_after(PATIENCE):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(begin)
                    await old.was_asked.wait()
                    it.remove("acme.yaml")
                    assert await it.news() == ["Capability files have changed. removed: acme-list-things."]
                    go_on.set()
            # What was a secret when the call began is one when it ends.
            assert ended == ['{"key":"[secret]"}']


async def test_a_stream_under_way_is_followed_to_its_end(folder: Path) -> None:
    go_on = anyio.Event()

    async def stream_events(stream: anyio.abc.SocketStream) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        await stream.send(f"{head}data: before\n\n".encode())
        await go_on.wait()
        await stream.send(b"data: after\n\n")

    told = "Streams text/event-stream"
    async with listening(stream_events) as old, listening(says('{"from":"new"}')) as new:
        (folder / "acme.yaml").write_text(capability(url=old.url, description=told))
        async with watched(folder) as it:
            ended: list[CallResult] = []
            first = anyio.Event()

            async def report(_: Progress) -> None:
                first.set()

            async def begin() -> None:
                ended.append(await it.gateway.call("acme-list-things", {"wait_seconds": 1}, report))

            with anyio.fail_after(PATIENCE):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(begin)
                    await first.wait()
                    it.write("acme.yaml", capability(url=new.url, tool="find-things"))
                    await it.until(lambda: it.tools == ["acme-find-things"])
                    assert ended == []
                    go_on.set()
            assert [event["data"] for event in json.loads(ended[0].text)["events"]][:2] == ["before", "after"]
            assert (await it.call("acme-find-things")).value == {"from": "new"}
    assert len(new.asked) == 1


async def test_the_secrets_of_a_new_file_are_masked_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with listening(says('{"you sent": "new-planted-key"}')) as provider, watched(folder) as it:
        mask = it.gateway.redactor
        assert mask.redact_text("acme-planted-key, new-planted-key") == "[secret], new-planted-key"
        it.write("new.yaml", capability("New", url=provider.url))
        assert await it.news() == ["Capability files have changed. added: new-list-things."]
        # The log holds the mask with which it began.
        assert it.gateway.redactor is mask
        assert mask.redact_text("acme-planted-key, new-planted-key") == "[secret], [secret]"
        record = logging.LogRecord("x", logging.INFO, "x.py", 1, "key=%s", ("new-planted-key",), None)
        assert RedactingFormatter(mask).format(record).endswith(" INFO x key=[secret]")
        assert (await it.call("new-list-things")).text == '{"you sent":"[secret]"}'
        assert "Authorization: Bearer new-planted-key" in provider.asked[0]
        it.remove("new.yaml")
        assert await it.news() == ["Capability files have changed. removed: new-list-things."]
        # Answers to calls under way may still hold it.
        assert mask.redact_text("new-planted-key") == "[secret]"


LIMITS = """\
overlay: 2
capability:
  consumes:
    acme:
      rate_limits: [{{applies_to: reads, requests: {calls}, per_seconds: 600}}]
"""


async def test_the_rates_of_a_provider_that_is_unchanged_stay_used_and_new_ones_count_anew(folder: Path) -> None:
    overlay = folder / "overlays" / "acme.yaml"
    overlay.parent.mkdir()
    overlay.write_text(LIMITS.format(calls=2))
    async with listening(says("{}")) as provider:
        (folder / "acme.yaml").write_text(capability(url=provider.url))

        async def refused(it: Watched) -> str:
            with pytest.raises(CallError) as caught:
                await it.call("acme-list-things")
            return f"{caught.value.kind}: {caught.value.message}"

        async with watched(folder, timeout=6.0) as it:
            await it.call("acme-list-things")
            it.write("beta.yaml", capability("Beta"))
            assert await it.news() == ["Capability files have changed. added: beta-list-things."]
            it.write("acme.yaml", capability(url=provider.url, description="Lists others."))
            assert await it.news() == ["Capability files have changed. changed: acme-list-things."]
            await it.call("acme-list-things")
            assert re.match(
                r"rate_limited: acme's rate limit allows no more calls of this kind for \d+ s", await refused(it)
            )
            it.write("overlays/acme.yaml", LIMITS.format(calls=1))
            assert await it.news() == ["Capability files have changed. changed: acme-list-things."]
            await it.call("acme-list-things")
            assert (await refused(it)).startswith("rate_limited: ")
    assert len(provider.asked) == 3


async def test_what_was_accepted_of_a_tool_is_asked_anew_when_it_has_changed(folder: Path) -> None:
    async with listening(says("{}")) as provider:
        (folder / "acme.yaml").write_text(capability(url=provider.url))
        async with watched(folder) as it:
            await it.call("acme-list-things")
            changed = capability(url=provider.url).replace("path: /things", "path: '/things/{id}'")
            it.write("acme.yaml", changed)
            assert await it.news() == ["Capability files have changed. changed: acme-list-things."]
            with pytest.raises(CallError, match="id: is required"):
                await it.call("acme-list-things")
    assert len(provider.asked) == 1


async def test_without_watch_nothing_is_watched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        raise AssertionError("it is watched")

    monkeypatch.setattr(watching, "watch", never)
    settings = read_settings({"capabilities": [str(folder)]}, KEYS)
    gateway, loaded = load_gateway(settings, lambda _: None)
    async with watch_if_requested(gateway, settings, loaded, lambda _: None):
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_a_client_of_the_process_is_told_and_calls_what_is_new(era: Era, folder: Path, tmp_path: Path) -> None:
    news = anyio.Event()

    async def on_message(message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            news.set()

    command = ["-m", "mcp_taskruns", "serve", "--watch", "--capabilities", str(folder)]
    environment = {"NEW_KEY": "new-planted-key", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    process = StdioServerParameters(command=sys.executable, args=command, env=environment)
    log = tmp_path / "log"
    with log.open("w") as errors:
        transport = stdio_client(process, errlog=errors)
        async with (
            listening(says('{"from":"new"}')) as provider,
            Client(transport, mode=era, message_handler=on_message) as client,
            anyio.create_task_group() as tasks,
        ):

            async def listen() -> None:
                async with client.listen(tools_list_changed=True) as events:
                    async for event in events:
                        if isinstance(event, ToolsListChanged):
                            news.set()

            with anyio.fail_after(30):
                assert [tool.name for tool in (await client.list_tools()).tools] == ["acme-list-things"]
                if era == "auto":
                    tasks.start_soon(listen)
                number = 0
                while not news.is_set():
                    number += 1
                    new = capability("New", url=provider.url, description=f"Lists {number}.")
                    (folder / "new.yaml").write_text(new)
                    with anyio.move_on_after(1):
                        await news.wait()
                tools = (await client.list_tools()).tools
                assert [tool.name for tool in tools] == ["acme-list-things", "new-list-things"]
                result = await client.call_tool("new-list-things", {})
                assert isinstance(result.content[0], TextContent)
                assert result.content[0].text == '{"from":"new"}'
                tasks.cancel_scope.cancel()
    assert "Capability files have changed. added: new-list-things." in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("transport", "end"),
    [
        ("stdio", "end of input"),
        ("stdio", signal.SIGINT),
        ("stdio", signal.SIGTERM),
        ("http", signal.SIGINT),
        ("http", signal.SIGTERM),
    ],
    ids=str,
)
def test_a_process_that_watches_ends_in_time_with_code_0(
    transport: str, end: str | signal.Signals, folder: Path
) -> None:
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
            if isinstance(end, signal.Signals):
                child.send_signal(end)
            else:
                child.stdin.close()
            assert child.wait(PATIENCE) == 0
            assert time.monotonic() - began < 2
            assert child.stderr.read() == b""
        finally:
            child.kill()
