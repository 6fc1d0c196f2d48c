"""The documentation is true: its commands run, its tables are complete, its links and examples work."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import Field, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

from mcp_taskruns.cli import COMMANDS, build_parser
from mcp_taskruns.core.calls.sse import MAX_EVENT_BYTES
from mcp_taskruns.core.model.limits import ALL_REQUESTS, RequestKind
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.engine.exchange import MAX_FILE_BYTES, MAX_PARSED_BYTES
from mcp_taskruns.engine.paginate import MAX_PAGES
from mcp_taskruns.engine.rate_limits import MAX_REQUESTS, MAX_STREAMS
from mcp_taskruns.engine.results import MAX_STRUCTURED_CHARS
from mcp_taskruns.engine.retries import MAX_RETRIES
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.settings import PREFIX, flag_of, options, variable_of
from tests.timing import PATIENCE

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
EXAMPLE = json.loads((ROOT / "claude_desktop_config.example.json").read_text(encoding="utf-8"))
COMMAND = "/path/to/mcp-taskruns/.venv/bin/mcp-taskruns"

CONSOLE_BLOCK = re.compile(r"(?:<!-- (?P<mark>not run: .+?) -->\n)?```console\n(?P<lines>.*?)```", re.DOTALL)
COMMAND_LINE = re.compile(r"^\$ (.+?)(?: +#.*)?$", re.MULTILINE)
MADE = re.compile(r"make ([\w-]+)")
SERVED = re.compile(r"mcp-taskruns (?:serve --transport http|simulate)\b")
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


def sentences(name: str) -> str:
    """Return a document without its line breaks."""
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


@dataclass(frozen=True)
class Block:
    """The commands of one console block."""

    place: str
    commands: tuple[str, ...]
    is_run: bool


def console_blocks() -> Iterator[Block]:
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for match in CONSOLE_BLOCK.finditer(text):
            line = text.count("\n", 0, match.start("lines")) + 1
            place = f"{path.relative_to(ROOT).as_posix()}:{line}"
            yield Block(place, tuple(COMMAND_LINE.findall(match["lines"])), match["mark"] is None)


BLOCKS = list(console_blocks())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the examples of docs/capability-files.md and docs/new-provider.md."""
    page = (ROOT / "docs" / "capability-files.md").read_text(encoding="utf-8")
    example = re.search(r"`my-capabilities/acme\.yaml`:\n\n```yaml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    (tmp_path / "my-capabilities").mkdir()
    (tmp_path / "my-capabilities" / "acme.yaml").write_text(example[1], encoding="utf-8")
    page = (ROOT / "docs" / "new-provider.md").read_text(encoding="utf-8")
    openapi = re.search(r"`openapi\.yaml`:\n\n```yaml\n(.*?)```", page, re.DOTALL)
    assert openapi is not None
    (tmp_path / "openapi.yaml").write_text(openapi[1], encoding="utf-8")
    return tmp_path


def environment() -> dict[str, str]:
    """An environment without keys, in which `mcp-taskruns` is found and servers take free ports."""
    path = os.pathsep.join((str(BIN), os.environ.get("PATH", "")))
    return {"PATH": path, f"{PREFIX}PORT": "0", f"{PREFIX}REST_PORT": "0"}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.is_run], ids=lambda block: block.place)
def test_console_block_runs(block: Block, folder: Path) -> None:
    assert block.commands
    addresses: list[str] = []
    for index, written in enumerate(block.commands):
        command = written.removeprefix(".venv/bin/")
        if made := MADE.match(command):
            # The other tests run what `make test` runs; here it is enough that make knows the target.
            subprocess.run(["make", "--dry-run", made[1]], cwd=ROOT, check=True, capture_output=True, timeout=PATIENCE)
        elif SERVED.match(command):
            with served(command, folder) as addresses:
                for line in block.commands[index + 1 :]:
                    if line.startswith("curl "):
                        get(line, addresses)
        elif command.startswith("curl "):
            assert addresses, f"{block.place}: no server runs for {command}"
        elif command == "mcp-taskruns demo":
            pass  # tests/test_demo.py runs it
        else:
            run(command, folder)


def run(command: str, folder: Path) -> None:
    done = subprocess.run(
        shlex.split(command),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


@contextmanager
def served(command: str, folder: Path) -> Iterator[list[str]]:
    """Run a command that serves until it is stopped. Yields the addresses that it announces."""
    arguments = shlex.split(command) + (["--port", "0"] if "simulate" in command.split() else [])
    with subprocess.Popen(
        arguments, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout
            addresses: list[str] = []
            while len(addresses) < 1 + ("--rest" in arguments):
                line = process.stdout.readline()
                assert line, f"{command} ended without an address"
                addresses += ADDRESS.findall(line)
            yield addresses
        finally:
            process.terminate()


def get(command: str, addresses: list[str]) -> None:
    """Send the request of a curl command to the server that listens instead of the documented port."""
    url = re.sub(r"http://127\.0\.0\.1:8080", addresses[-1], shlex.split(command)[-1])
    assert httpx.get(url, timeout=PATIENCE).status_code == 200, command


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_documented_command_lines_are_valid(block: Block) -> None:
    for command in block.commands:
        program, *arguments = shlex.split(command.replace(".venv/bin/", "").partition(" > ")[0])
        if program == "mcp-taskruns":
            build_parser().parse_args(arguments or ["serve"])


@pytest.mark.parametrize("option", options(), ids=lambda option: option.name)
def test_flag_and_variable_are_documented(option: Field[Any]) -> None:
    assert f"| `{flag_of(option)}` | `{variable_of(option)}` |" in CONFIGURATION


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_documented(command: str) -> None:
    assert re.search(rf"mcp-taskruns {command}\b", CONFIGURATION)


def test_documented_rates_are_those_of_the_overlays() -> None:
    per = {60: "a minute", 3600: "an hour"}
    of = {frozenset({RequestKind.READ}): " reads", frozenset({RequestKind.WRITE}): " writes", ALL_REQUESTS: ""}
    rates = {
        tool.prefix: [
            (f"{rate.requests:,}{of[rate.kinds]}", per[round(rate.per_seconds)]) for rate in tool.operation.limits.rates
        ]
        for tool in load_tools([])
    }
    assert rates == {
        "inngest": [],
        "posthog": [("480", "a minute"), ("4,800", "an hour")],
        "render": [("400 reads", "a minute"), ("30 writes", "a minute")],
        "runway": [],
    }
    text = "(Render: 400 reads and 30 writes a minute; PostHog: 480 calls a minute and 4,800 an hour)"
    assert text in sentences("docs/errors.md")


@pytest.mark.parametrize(
    ("page", "bound"),
    [
        ("docs/errors.md", f"at most {MAX_REQUESTS} requests and {MAX_STREAMS} streams open at each provider"),
        ("docs/errors.md", "three times at most"),
        ("docs/security.md", f"{MAX_PARSED_BYTES // 1_000_000} MB for JSON and text"),
        (
            "docs/security.md",
            f"{MAX_FILE_BYTES // 1_000_000} MB for files and logs, {MAX_EVENT_BYTES // 1_000_000} MB for an event",
        ),
        ("docs/tools.md", f"Structured content over {MAX_STRUCTURED_CHARS:,} characters"),
        ("docs/tools.md", f"by the time of a wait, and to {MAX_PAGES}."),
    ],
)
def test_documented_bounds_are_those_of_the_code(page: str, bound: str) -> None:
    assert MAX_RETRIES == 3
    assert bound in sentences(page)


def environment_names(tool: Tool) -> set[str]:
    """Return the variables that a tool reads."""
    operation = tool.operation
    names = {name for variable in operation.credentials() for name in variable.names}
    names |= {name for parameter in operation.parameters if parameter.default for name in parameter.default.names}
    return names | set(operation.base.variables)


def test_variables_of_the_built_in_tools_are_documented() -> None:
    for tool in load_tools([]):
        for name in environment_names(tool):
            assert f"`{name}`" in CONFIGURATION


def test_readme_fits_150_lines() -> None:
    assert len(README.splitlines()) <= 150


def test_readme_configurations_start_the_command_of_a_checkout() -> None:
    configurations = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", README, re.DOTALL)]
    servers = [configuration.get("mcpServers") or configuration["servers"] for configuration in configurations]
    assert [(server["taskruns"]["command"], server["taskruns"]["args"]) for server in servers] == [(COMMAND, [])] * 2


@pytest.mark.anyio
async def test_example_configuration_starts_a_server_that_names_missing_keys() -> None:
    server = EXAMPLE["mcpServers"]["taskruns"]
    assert (server["command"], server["args"]) == (COMMAND, [])
    command = StdioServerParameters(
        command=str(BIN / Path(server["command"]).name),
        args=server["args"],
        env=server["env"] | {"PATH": os.environ["PATH"]},
    )
    async with Client(command) as client:
        assert len((await client.list_tools()).tools) == 40
        result = await client.call_tool("render-list-tasks", {})
    assert "Set RENDER_API_KEY" in str(result.content)


def test_picture_draws_bars_as_rectangles_and_escapes_text() -> None:
    draw = runpy.run_path(str(ROOT / "docs" / "demo_svg.py"))["draw"]
    picture = ElementTree.fromstring(draw(["\x1b[1m1/1  A & B\x1b[0m", "   \x1b[32m██\x1b[0m\x1b[2m░\x1b[0m  67%"]))
    space = "{http://www.w3.org/2000/svg}"
    texts = [(text.text, text.get("x")) for text in picture.iter(f"{space}text") if text.get("textLength")]
    assert texts == [("1/1  A & B", "16.0"), ("67%", "78.4")]
    bars = [bar.get("width") for bar in picture.iter(f"{space}rect")][1:]
    assert bars == ["15.6", "7.8"]


def test_links_lead_to_files() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (path.parent / target).exists(), f"{path.name}: {target}"


def test_readme_links_work_on_a_package_index() -> None:
    targets = re.findall(r"[^!]\[[^\]]*\]\(([^)]+)\)", README)
    assert [target for target in targets if not target.startswith("https://")] == []


def test_documents_do_not_name_the_folder_of_a_machine() -> None:
    for path in (*DOCUMENTS, ROOT / "Makefile"):
        text = path.read_text(encoding="utf-8")
        assert str(ROOT) not in text, path
        assert not re.search(r"/(home|root|tmp)/", text), path
