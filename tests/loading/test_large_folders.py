"""Unusually large folders and files."""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from mcp.client import Client

from mcp_taskruns.engine.gateway import Gateway
from mcp_taskruns.engine.progress import Progress
from mcp_taskruns.loading.catalog import build_catalog
from mcp_taskruns.loading.check import check_files
from mcp_taskruns.loading.loader import load
from mcp_taskruns.servers.mcp.server import build_server
from mcp_taskruns.settings import Settings
from tests.timing import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.load]

LEGAL = re.compile(r"[a-zA-Z0-9_-]{1,64}")

WORDS = [
    "list",
    "create",
    "retrieve",
    "update",
    "delete",
    "cancel",
    "restart-and-wait-for-every-one-of-the-long-running-workflows",
]
"""The tool names in each file; the last one gives names of more than 64 characters."""


def capability(tag: str, operations: Mapping[str, str], url: str = "") -> str:
    """Return a capability file with tools of these names and operation paths."""
    lines = [
        "naftiko: 1.0.0-alpha2",
        f"info: {{tags: [{tag}]}}",
        "capability:",
        "  consumes:",
        "  - namespace: api",
        f"    baseUri: '{url}'",
        "    resources:",
        *(f"    - {{path: '{path}', operations: [{{name: {name}}}]}}" for name, path in operations.items()),
        "  exposes:",
        "  - type: mcp",
        "    tools:",
        *(f"    - {{name: {name}, call: api.{name}}}" for name in operations),
        "",
    ]
    return "\n".join(lines)


async def respond(stream: anyio.abc.SocketStream) -> None:
    """Respond to a request with its path, as a provider."""
    async with stream:
        request = await stream.receive()
        body = b'"' + request.split(b" ")[1] + b'"'
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        await stream.send(f"{head}Connection: close\r\n\r\n".encode() + body)


async def call(gateway: Gateway, tool: str, arguments: Mapping[str, Any]) -> Any:
    async def report(_: Progress) -> None:
        """Ignore progress."""

    with anyio.fail_after(PATIENCE):
        return (await gateway.call(tool, arguments, report)).value


async def test_seven_thousand_tools_of_a_thousand_files_have_unique_names_and_can_be_called(
    tmp_path: Path,
) -> None:
    # Ten files each belong to one provider, so their names collide.
    for number in range(1_000):
        paths = {word: f"/{number}/{{id}}/{word}" for word in WORDS}
        (tmp_path / f"{number:04}.yaml").write_text(capability(f"Provider {number // 10}", paths))
    loaded = load([tmp_path])
    names = [tool.name for tool in loaded.tools]
    assert loaded.problems == ()
    assert (len(names), len(set(names))) == (7_000, 7_000)
    assert [name for name in names if not LEGAL.fullmatch(name)] == []
    assert names[:6] == [f"provider-0-{word}" for word in WORDS[:6]]
    assert {len(name) for name in names[6::7]} == {64}
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, respond)
        url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        settings = Settings(environment={"PROVIDER_99_BASE_URL": url})
        gateway = Gateway(build_catalog(loaded.tools, settings), settings)
        # A tool of the last file, and one of the first file of the same provider.
        assert await call(gateway, names[-7], {"id": "x"}) == "/999/x/list"
        assert await call(gateway, "provider-99-list", {"id": "y"}) == "/990/y/list"
        await gateway.aclose()
        tasks.cancel_scope.cancel()


async def test_file_with_740_tools_is_listed_in_one_page(tmp_path: Path) -> None:
    paths = {f"operation-{number}": f"/{number}/{{id}}" for number in range(740)}
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, respond)
        url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        (tmp_path / "large.yaml").write_text(capability("Large", paths, url))
        loaded = load([tmp_path])
        assert loaded.problems == ()
        gateway = Gateway(build_catalog(loaded.tools, Settings()), Settings())
        async with Client(build_server(gateway), mode="legacy") as client:
            listed = await client.list_tools()
            # One page, because some clients read only the first.
            assert listed.next_cursor is None
            assert [tool.name for tool in listed.tools] == [f"large-{name}" for name in paths]
            for number in (0, 370, 739):
                result = await client.call_tool(f"large-operation-{number}", {"id": "a/b"})
                assert [block.model_dump()["text"] for block in result.content] == [f'"/{number}/a%2Fb"']
        tasks.cancel_scope.cancel()


def detailed(number: int) -> str:
    """Return a capability file with this number of tools and of REST routes, each with 8 inputs."""
    inputs = [f"{{name: p{index}, in: query, type: string, description: 'Parameter {index}.'}}" for index in range(6)]
    inputs.append("{name: body, in: body, type: object, description: What to do.}")
    names = range(number)
    given = "{id: tools.id, body: tools.body, p0: tools.p0, p1: tools.p1, p2: tools.p2, p3: tools.p3}"
    resources = (
        f"    - {{path: '/{name}/{{id}}', operations: [{{name: op{name}, method: POST, inputParameters: [{line}]}}]}}"
        for name, line in zip(names, [", ".join(inputs)] * number, strict=True)
    )
    routes = (
        f"    - {{path: '/v1/{name}/{{id}}', operations: [{{method: POST, call: api.op{name}}}]}}" for name in names
    )
    tools = (
        f"    - {{name: do-{name}, description: Does {name}., call: api.op{name}, with: {given}}}" for name in names
    )
    return "\n".join(
        [
            "naftiko: 1.0.0-alpha2\ninfo: {tags: [Large]}\ncapability:\n  consumes:",
            "  - namespace: api\n    baseUri: https://api.example\n    resources:",
            *resources,
            "  exposes:\n  - type: rest\n    resources:",
            *routes,
            "  - type: mcp\n    tools:",
            *tools,
        ]
    )


MAX_CHECK_TIME = 4.0
"""The CPU time of a check, as a multiple of that of loading: two seconds on a machine that loads in half a second."""


@pytest.mark.parametrize("layout", ["one-file", "many-files", "overlay"])
def test_740_tools_are_checked_in_seconds(tmp_path: Path, layout: str) -> None:
    if layout == "many-files":
        for number in range(37):
            (tmp_path / f"{number}.yaml").write_text(detailed(20).replace("[Large]", f"[Large {number}]"))
    else:
        (tmp_path / "large.yaml").write_text(detailed(740))
    if layout == "overlay":
        (tmp_path / "overlays").mkdir()
        schema = (
            "{required: [a], properties: {a: {type: string, enum: [x, y]}, b: {type: array, items: {type: string}}}}"
        )
        lines = (f"        op{number}: {{inputParameters: {{body: {{schema: {schema}}}}}}}" for number in range(740))
        head = "overlay: 2\ncapability:\n  consumes:\n    api:\n      operations:"
        (tmp_path / "overlays/large.yaml").write_text("\n".join([head, *lines]))
    start = time.process_time()
    load([tmp_path])
    loaded = time.process_time()
    result = check_files([tmp_path])
    assert time.process_time() - loaded < MAX_CHECK_TIME * (loaded - start)
    assert result.tools == 740
    assert {finding.code for finding in result.findings} <= {"undeclared-placeholder", "missing-body-schema"}
